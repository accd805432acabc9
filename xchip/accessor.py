"""``.chips`` on Dataset and DataArray: each method hands over to a plain function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import xarray as xr

from xchip.core.arrays import Quality, Xarray, as_dataset, pixel_grid
from xchip.core.grid import Anchor, ChipGrid, Edge, GridOptions, Pair, Size, chip_grid
from xchip.core.limits import IndexOptions, grid_and_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask_geopandas
    import geopandas
    import numpy as np
    import pandas as pd

    from xchip.chips.blend import Overlap
    from xchip.chips.map import ChipFunction
    from xchip.core.reduce import BlockFunction
    from xchip.indexing.explain.explanation import Explanation


@xr.register_dataset_accessor("chips")
@xr.register_dataarray_accessor("chips")
class ChipsAccessor:
    """Chips of an array with one-dimensional pixel-centre coordinates x and y and a CRS that rioxarray finds.

    The accessor keeps no state: whatever the array is now is what counts.
    """

    def __init__(self, obj: Xarray) -> None:
        self._obj = obj

    def grid(self, size: Size = 256, *, stride: Pair | None = None, edge: Edge = "drop", anchor: Anchor = "origin") -> ChipGrid:
        """The chips' geometry. No pixel is read.

        Parameters
        ----------
        size
            Pixels, (height, width), or a ChipGrid, which is taken as it is.
        stride
            Pixels between chips, or (y, x); ``size`` unless given.
        edge
            "drop" keeps whole chips only; "pad", "shift" and "partial" go on to the border; see `ChipGrid`.
        anchor
            "origin" begins at the array's upper left pixel, "crs" at the CRS's origin, so that scenes share cells.

        Returns
        -------
        ChipGrid

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
        >>> ds.chips.grid(256).shape
        (2, 3)
        """
        return chip_grid(pixel_grid(as_dataset(self._obj)), size, stride=stride, edge=edge, anchor=anchor)

    def stats(self, size: Size = 256, *, quality: Quality = None, **grid_options: Unpack[GridOptions]) -> xr.Dataset:
        """Quality fractions of each chip.

        Parameters
        ----------
        size, stride, edge, anchor
            As for `grid`.
        quality
            A band's name, a rule, a boolean DataArray (True = nodata), or a DataArray of `xchip.QualityClass` codes. None:
            what the array says of itself; without a quality band, pixels are NODATA where all bands are.

        Returns
        -------
        xarray.Dataset
            ``nodata_fraction`` of all pixels; ``defective_``, ``cloud_``, ``shadow_``, ``snow_``, ``water_`` and
            ``clear_fraction`` of the valid ones, NaN where none is valid. float64 (time, chip_y, chip_x); lazy if the
            array is. chip_y and chip_x are chip indices. In a stack of several items the grid is the stack's.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
        >>> stats = ds.chips.stats(256)
        >>> stats.cloud_fraction.dims, stats.cloud_fraction.shape
        (('time', 'chip_y', 'chip_x'), (1, 2, 3))
        """
        from xchip.core.reduce import chip_stats
        from xchip.sensors.array_quality import quality_of

        ds = as_dataset(self._obj)
        array, rule = quality_of(ds, quality)
        return chip_stats(array, chip_grid(pixel_grid(ds), size, **grid_options), rule)

    def sums(
        self, function: BlockFunction, bands: str | list[str], size: Size = 256, *, n: int, **grid_options: Unpack[GridOptions]
    ) -> xr.DataArray:
        """Custom statistics: sums over each chip of whatever ``function`` makes of the pixels.

        Parameters
        ----------
        function
            ``function(*blocks, cells)``, as for `xchip.core.reduce.chip_sums`.
        bands
            The bands whose blocks it gets, in order.
        size, stride, edge, anchor
            As for `grid`.
        n
            How many sums it returns a cell.

        Returns
        -------
        xarray.DataArray
            float64 (time, sum, chip_y, chip_x), or without time like the array; lazy if the array is.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
        >>> brightness = ds.chips.sums(lambda red, cells: cells.sum(red)[None], "red", 256, n=1)
        >>> brightness.sizes["chip_x"], bool((brightness > 0).all())
        (3, True)
        """
        from xchip.core.reduce import band_sums

        ds = as_dataset(self._obj)
        grid = chip_grid(pixel_grid(ds), size, **grid_options)
        return band_sums([ds[name] for name in ([bands] if isinstance(bands, str) else bands)], grid, function, n=n)

    def index(
        self,
        size: Size = 256,
        *,
        quality: Quality = None,
        item_id: str | None = None,
        **options: Unpack[IndexOptions],
    ) -> geopandas.GeoDataFrame | dask_geopandas.GeoDataFrame:
        """The table of chips: one row each, in the index schema.

        Parameters
        ----------
        size, stride, edge, anchor
            As for `grid`. Rows are numbered on each item's own grid, also in a stack of several items.
        quality
            As for `stats`.
        max_nodata, max_cloud
            Keep chips whose fraction is at most this (0 to 1). A chip without valid pixels has no cloud fraction, so
            ``max_cloud`` drops it.
        item_id
            The item's id, for an array that has none.
        max_defective, max_shadow, max_snow, max_water, min_clear
            Limits on the other fractions, in the same way.

        Returns
        -------
        dask_geopandas.GeoDataFrame or geopandas.GeoDataFrame
            Lazy for dask-backed arrays: one partition a time step, spatial partitions known. Immediate for NumPy.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
        >>> rows = ds.chips.index(256, max_nodata=0.5)
        >>> rows.chip_id.tolist()[:2], rows.col_off.tolist()[:2]
        (['synthetic-0-0-0', 'synthetic-0-1-0'], [0, 256])
        """
        from xchip.indexing.rows import array_index

        grid_options, limits = grid_and_limits("index", options)
        return array_index(self._obj, size, quality=quality, item_id=item_id, limits=limits, **grid_options)

    def explain(
        self,
        size: Size = 256,
        *,
        quality: Quality = None,
        item_id: str | None = None,
        threads: int | None = None,
        **options: Unpack[IndexOptions],
    ) -> Explanation:
        """What `index` will take, before anything runs: chips, tasks, chunks, bytes, memory. No pixel is read.

        Parameters
        ----------
        size, stride, edge, anchor, quality, item_id, max_nodata, max_cloud
            As for `index`, as are the other limits. Limits choose chips after their pixels are counted, so they spare nothing.
        threads
            Threads of a worker, for its memory; as many as Dask would take on this machine if not given.

        Returns
        -------
        Explanation
            Each figure says whether it is exact, a bound or an estimate, and why. Notes tell where chunks are too small or
            too large, and where the quality band is counted at more pixels than it has.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000)).chunk(y=300, x=500)
        >>> job = ds.chips.explain(256)
        >>> job.chips.value, job.chunks.value, job.pixel_bytes.value
        (6, 4, 600000)
        """
        from xchip.indexing.explain.arrays import explain_array

        grid_options, limits = grid_and_limits("explain", options)
        return explain_array(self._obj, size, quality=quality, item_id=item_id, limits=limits, threads=threads, **grid_options)

    def isel(self, *, chip_y: int, chip_x: int, size: Size = 256, **grid_options: Unpack[GridOptions]) -> Any:
        """One chip, by its position in the grid: a slice of the array, padded where the window leaves it.

        Parameters
        ----------
        chip_y, chip_x
            Row and column of chips, from 0 at the upper left; negative numbers count from the end.
        size, stride, edge, anchor
            As for `grid`.

        Returns
        -------
        Like the array
            Lazy if the array is.

        Raises
        ------
        IndexError
            Outside the grid.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
        >>> dict(ds.chips.isel(chip_y=1, chip_x=2, size=256).sizes)
        {'time': 1, 'y': 256, 'x': 256}
        """
        from xchip.chips.extract import isel_chip

        return isel_chip(self._obj, self.grid(size, **grid_options).chip(chip_y=chip_y, chip_x=chip_x))

    def extract(self, rows: pd.DataFrame, *, pad: bool = False, batch: int = 64) -> xr.Dataset:
        """The pixels of rows of an index, by item and position.

        Parameters
        ----------
        rows
            Rows of an index whose items are in the array; any order.
        pad
            Allow chips of several sizes: all are padded below and to the right to the largest, with nodata (0 where none
            is declared).
        batch
            Chips in a chunk of the result.

        Returns
        -------
        xarray.Dataset
            (chip, y, x), a variable a band; coordinates chip_id, item_id, datetime, proj_code and the edges on ``chip``.
            Lazy if the array is, in a graph that grows with the chunks that the chips touch.

        Raises
        ------
        ValueError
            If a row's item or window is not in the array, or chips differ in size and ``pad`` is False.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
        >>> rows = ds.chips.index(256)
        >>> chips = ds.chips.extract(rows[rows.chip_index_x == 0])
        >>> dict(chips.sizes), chips.chip_id.values.tolist()
        ({'chip': 2, 'y': 256, 'x': 256}, ['synthetic-0-0-0', 'synthetic-0-0-1'])
        """
        from xchip.chips.extract import extract_rows
        from xchip.indexing.rows import frame_of

        return extract_rows(self._obj, frame_of(rows), pad=pad, batch=batch)

    def map(
        self,
        function: ChipFunction,
        size: Size = 256,
        *,
        bands: str | Sequence[str] | None = None,
        overlap: Overlap | np.ndarray = "mean",
        batch: int = 16,
        template: Any = None,
        dim: str = "class",
        fill: Any = None,
        stride: Pair | None = None,
        edge: Edge | None = None,
        anchor: Anchor = "origin",
    ) -> xr.DataArray:
        """A function of each chip, such as a model's prediction, put back on the scene's grid.

        Parameters
        ----------
        function
            Gets a NumPy array (n, band, height, width) of at most ``batch`` chips in the bands' dtype, and returns
            (n, y, x) or (n, k, y, x). The results may be coarser than the chips by a whole number, or without y and x,
            (n,) or (n, k): then each chip becomes one pixel. Dask calls it from several threads at once; give a scheduler
            of one thread if it can't do that.
        size, stride, anchor
            As for `grid`.
        bands
            Which bands it gets, in order; they must have one dtype. All of them unless given.
        overlap, fill
            What pixels in several chips become, and in none; as for `xchip.stitch`. Class numbers have no mean: take
            "first", or map to a value a class and choose the highest afterwards.
        batch
            Chips in one call, at most.
        template
            An array with the shape and dtype of what the function returns for one chip. None: the function is called
            once, now, with one chip of nodata (0 where none is declared).
        dim
            Name of the dimension of the ``k`` values.
        edge
            "pad" unless given: chips cover the whole scene, and outside of it are nodata (0 where none is declared).
            "shift" gives the function pixels of the scene alone, "drop" leaves a margin; "partial" is refused.

        Returns
        -------
        xarray.DataArray
            (time, class, y, x), without time or class if the array or the results have none; always lazy. Chunks are whole
            strides, about 2048 pixels wide; each is made on its own, so that chips on the border of two are computed for
            both. Written chunk by chunk, by ``.to_zarr`` or by ``.rio.to_raster(path, tiled=True, lock=True)``, it needs
            memory for a few chunks and, where chunks share blocks of the scene, for a row of these.

        Raises
        ------
        ValueError
            If bands differ in dtype, if the grid has no chips, and as `xchip.stitch`. When computed, if the function
            returns another shape than its template.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000)).chunk(y=512, x=512)
        >>> def vegetation(chips):
        ...     red, nir = chips[:, 0].astype("float32"), chips[:, 1].astype("float32")
        ...     return (nir - red) / (nir + red + 1)
        >>> ndvi = ds.chips.map(vegetation, 256, bands=["red", "nir"], stride=192, overlap="taper")
        >>> ndvi.dims, ndvi.shape, str(ndvi.dtype)
        (('time', 'y', 'x'), (1, 600, 1000), 'float32')
        """
        from xchip.chips.map import map_chips

        return map_chips(
            self._obj,
            function,
            size,
            bands=bands,
            overlap=overlap,
            batch=batch,
            template=template,
            dim=dim,
            fill=fill,
            stride=stride,
            edge=edge,
            anchor=anchor,
        )

    def _repr_html_(self) -> str:
        from xchip.chips.array_repr import array_html

        return array_html(self._obj)

    def __repr__(self) -> str:
        from xchip.chips.array_repr import array_text

        return array_text(self._obj)
