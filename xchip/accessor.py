"""The ``.chips`` accessor of Dataset and DataArray: each method calls one function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import xarray as xr

from xchip.core.arrays import Quality, Xarray, array_grid
from xchip.core.grid import Anchor, ChipGrid, Edge, GridOptions, Pair, Size
from xchip.core.limits import IndexOptions, grid_and_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask_geopandas
    import geopandas
    import numpy as np
    import pandas as pd

    from xchip.chips.blend import Fill, Overlap
    from xchip.chips.map import ChipFunction
    from xchip.core.reduce import BlockFunction
    from xchip.indexing.explain.explanation import Explanation


@xr.register_dataset_accessor("chips")
@xr.register_dataarray_accessor("chips")
class ChipsAccessor:
    """Chips of an array with one-dimensional pixel-centre coordinates x and y, and a CRS that rioxarray finds.

    The accessor keeps no state: each call looks at the array again.
    """

    def __init__(self, obj: Xarray) -> None:
        self._obj = obj

    def grid(self, size: Size = 256, *, stride: Pair | None = None, edge: Edge = "drop", anchor: Anchor = "origin") -> ChipGrid:
        """Return the grid of chips. No pixel is read.

        Parameters
        ----------
        size
            Height and width of a chip in pixels: a number, (height, width), or a ChipGrid, which is used unchanged.
        stride
            Pixels from one chip to the next: a number, or (y, x). Default: ``size``.
        edge
            "drop" keeps whole chips only; "pad", "shift" and "partial" cover the border too; see `ChipGrid`.
        anchor
            "origin" starts at the array's upper left pixel, "crs" at the origin of the CRS, so that scenes share cells.

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
        return array_grid(self._obj, size, stride=stride, edge=edge, anchor=anchor)

    def stats(self, size: Size = 256, *, quality: Quality = None, **grid_options: Unpack[GridOptions]) -> xr.Dataset:
        """Return the fraction of each quality class in each chip.

        Parameters
        ----------
        size, stride, edge, anchor
            As for `grid`.
        quality
            A band's name, a rule, a boolean DataArray (True = nodata), or a DataArray of `xchip.QualityClass` codes. None:
            the array's own quality band and rule; without a quality band, a pixel is NODATA where all bands are nodata.

        Returns
        -------
        xarray.Dataset
            ``nodata_fraction`` of all pixels; ``defective_``, ``cloud_``, ``shadow_``, ``snow_``, ``water_`` and
            ``clear_fraction`` of the valid pixels, NaN where no pixel is valid. float64 (time, chip_y, chip_x); lazy if the
            array is. chip_y and chip_x are chip indices. For a stack of several items, the grid is that of the stack.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
        >>> stats = ds.chips.stats(256)
        >>> stats.cloud_fraction.dims, stats.cloud_fraction.shape
        (('time', 'chip_y', 'chip_x'), (1, 2, 3))
        """
        from xchip.sensors.array_quality import array_stats

        return array_stats(self._obj, size, quality=quality, **grid_options)

    def sums(
        self, function: BlockFunction, bands: str | list[str], size: Size = 256, *, n: int, **grid_options: Unpack[GridOptions]
    ) -> xr.DataArray:
        """Sum the values that ``function`` returns over each chip, for custom statistics.

        Parameters
        ----------
        function
            ``function(*blocks, cells)``, as for `xchip.chip_sums`.
        bands
            The bands whose blocks the function gets, in order.
        size, stride, edge, anchor
            As for `grid`.
        n
            Number of sums that the function returns for each cell.

        Returns
        -------
        xarray.DataArray
            float64 (time, sum, chip_y, chip_x), without time if the array has no time; lazy if the array is.

        Examples
        --------
        >>> import xchip.testing
        >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
        >>> brightness = ds.chips.sums(lambda red, cells: cells.sum(red)[None], "red", 256, n=1)
        >>> brightness.sizes["chip_x"], bool((brightness > 0).all())
        (3, True)
        """
        from xchip.core.reduce import array_sums

        return array_sums(self._obj, function, bands, size, n=n, **grid_options)

    def index(
        self,
        size: Size = 256,
        *,
        quality: Quality = None,
        item_id: str | None = None,
        **options: Unpack[IndexOptions],
    ) -> geopandas.GeoDataFrame | dask_geopandas.GeoDataFrame:
        """Return the table of chips: one row per chip, in the index schema.

        Parameters
        ----------
        size, stride, edge, anchor
            As for `grid`. Chips are numbered on the grid of their item, also in a stack of several items.
        quality
            As for `stats`.
        max_nodata, max_cloud
            Keep chips with at most this fraction (0 to 1). A chip without valid pixels has no cloud fraction, so any
            ``max_cloud`` drops it.
        item_id
            The item's id, for an array without an id.
        max_defective, max_shadow, max_snow, max_water, min_clear
            Limits on the other fractions (0 to 1).

        Returns
        -------
        dask_geopandas.GeoDataFrame or geopandas.GeoDataFrame
            Lazy for an array of Dask, with one partition per time step and known spatial partitions; in memory for NumPy.

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
        """Return the cost of `index` before it runs: chips, tasks, chunks, bytes, memory. No pixel is read.

        Parameters
        ----------
        size, stride, edge, anchor, quality, item_id, max_nodata, max_cloud
            As for `index`, like the other limits. Limits choose chips after their pixels are counted, so they save no work.
        threads
            Threads of a worker, to estimate its memory. Default: the number that Dask uses on this machine.

        Returns
        -------
        Explanation
            Each figure says whether it is exact, a bound or an estimate, and why. Notes report chunks that are too small or
            too large, and a quality band that is counted at more pixels than its file has.

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

    def isel(self, *, chip_y: int, chip_x: int, size: Size = 256, **grid_options: Unpack[GridOptions]) -> Xarray:
        """Return one chip by its position in the grid: a slice of the array, padded where the chip crosses the border.

        Parameters
        ----------
        chip_y, chip_x
            Row and column of the chip, from 0 at the upper left; negative numbers count from the end.
        size, stride, edge, anchor
            As for `grid`.

        Returns
        -------
        xarray.Dataset or xarray.DataArray
            The type of the array; lazy if the array is.

        Raises
        ------
        IndexError
            If the position is outside the grid.

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
        """Return the pixels of rows of an index, found by item and position.

        Parameters
        ----------
        rows
            Rows of an index whose items are in the array, in any order.
        pad
            Allow chips of several sizes: pad each below and to the right to the largest size, with nodata (0 where no
            nodata value is declared).
        batch
            Number of chips in a chunk of the result.

        Returns
        -------
        xarray.Dataset
            (chip, y, x), one variable per band; coordinates chip_id, item_id, datetime, proj_code and the edges on ``chip``.
            Lazy if the array is; the graph grows with the number of chunks that the chips touch.

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
        template: xr.DataArray | np.ndarray | None = None,
        dim: str = "class",
        fill: Fill | None = None,
        stride: Pair | None = None,
        edge: Edge | None = None,
        anchor: Anchor = "origin",
    ) -> xr.DataArray:
        """Apply a function to each chip, such as a model's prediction, and put the results on the scene's grid.

        Parameters
        ----------
        function
            Gets a NumPy array (n, band, height, width) of at most ``batch`` chips in the dtype of the bands, and returns
            (n, y, x) or (n, k, y, x). The results may be coarser than the chips by a whole factor. Results without y and x,
            (n,) or (n, k), turn each chip into one pixel. Dask calls the function from several threads at once; use the
            single-threaded scheduler if the function is not thread-safe.
        size, stride, anchor
            As for `grid`.
        bands
            Bands that the function gets, in order; all must have the same dtype. Default: all bands.
        overlap, fill
            Values of pixels in several chips, and of pixels in no chip; as for `xchip.stitch`. Class numbers have no mean:
            use "first", or return one score per class and choose the class with the highest score afterwards.
        batch
            Maximum number of chips in one call.
        template
            An array with the shape and dtype of the function's result for one chip. None: the function is called once,
            immediately, with one chip of nodata (0 where no nodata value is declared).
        dim
            Name of the dimension of the ``k`` values.
        edge
            Default "pad": chips cover the whole scene, and their pixels outside it are nodata (0 where no nodata value is
            declared). "shift" passes only pixels of the scene to the function, "drop" leaves a margin; "partial" is an
            error.

        Returns
        -------
        xarray.DataArray
            (time, class, y, x), without time or class if the array or the results have no such dimension; always lazy.
            Chunks are whole strides, about 2048 pixels wide. Each chunk is computed independently, so a chip on the border
            of two chunks is computed twice. Written chunk by chunk, by ``.to_zarr`` or by
            ``.rio.to_raster(path, tiled=True, lock=True)``, the result needs memory for a few chunks, and for a row of
            chunks where chunks share blocks of the scene.

        Raises
        ------
        ValueError
            If bands differ in dtype, if the grid has no chips, or for the reasons of `xchip.stitch`. When computed, if the
            function returns another shape than its template.

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
