"""Read the tables that stacchip wrote, with what they do not record.

stacchip's tables record the positions of chips, the shares of cloud and nodata, and the footprint. Other columns of an index
are null or NaN. Their date is read as midnight UTC. Their share of cloud, shadow and defective pixels becomes
``cloud_fraction``, as a share of the valid pixels. The tables do not record the size of chips, and merged tables do not record
where their items are: pass ``chip_size`` and ``items_root``.

Examples
--------
>>> import tempfile, xchip, xchip.testing
>>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
>>> with tempfile.TemporaryDirectory() as folder:
...     path = xchip.write_index(ds.chips.index(200, item_id="scene"), f"{folder}/scene.parquet", schema="stacchip")
...     rows = xchip.stacchip.read_index(path, chip_size=200)
>>> rows.chip_id.iloc[-1], int(rows.col_off.iloc[-1]), int(rows.width.iloc[-1])
('scene-4-2', 800, 200)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xchip.core.types import BBox, Filters, PathLike
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas

__all__ = ["open_index", "read_index"]


def read_index(
    path: PathLike | Sequence[PathLike],
    bbox: BBox | None = None,
    filters: Filters | None = None,
    *,
    chip_size: int = 256,
    items_root: str | None = None,
    storage: StorageOptions | None = None,
) -> geopandas.GeoDataFrame:
    """Read stacchip's tables into memory, in the columns of an index.

    Parameters
    ----------
    path
        A table, a folder of tables, the bucket that stacchip's processors filled, or a list of these. Other indexes are read as
        `xchip.read_index` reads them.
    bbox, filters, storage
        As for `xchip.read_index`.
    chip_size
        Height and width of a chip in stacchip's tables, in pixels.
    items_root
        Folder or bucket with the items of stacchip's tables, where its processors put them: ``<platform>/<item>/stac_item.json``.
        A table in stacchip's bucket lies beside its items, so only merged tables need it.

    Returns
    -------
    geopandas.GeoDataFrame
        As `xchip.read_index` returns it. ``item_href`` is null if neither ``items_root`` nor the path of the table says where
        the items are.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ValueError
        If ``path`` is not an index, if a parameter is not valid, or if a table does not record its items, or the platforms that
        ``items_root`` needs.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = xchip.write_index(ds.chips.index(200, item_id="scene"), f"{folder}/scene.parquet", schema="stacchip")
    ...     rows = read_index(path, filters=[("chip_index_x", "==", 4)], chip_size=200)
    >>> rows.chip_id.tolist()
    ['scene-4-0', 'scene-4-1', 'scene-4-2']
    """
    from xchip.indexing.opening.read import as_frame, read_rows
    from xchip.indexing.stacchip.tables.from_stacchip import StacchipOptions

    return as_frame(read_rows(path, bbox, filters, storage=storage, stacchip=StacchipOptions(chip_size, items_root)))


def open_index(
    path: PathLike | Sequence[PathLike],
    bbox: BBox | None = None,
    filters: Filters | None = None,
    *,
    chip_size: int = 256,
    items_root: str | None = None,
    storage: StorageOptions | None = None,
) -> dask_geopandas.GeoDataFrame:
    """Open stacchip's tables lazily, in the columns of an index.

    Parameters and errors are those of `read_index`.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        As `xchip.open_index` returns it.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = xchip.write_index(ds.chips.index(200, item_id="scene"), f"{folder}/scene.parquet", schema="stacchip")
    ...     len(open_index(path, chip_size=200))
    15
    """
    from xchip.indexing.opening.read import lazy_frame
    from xchip.indexing.stacchip.tables.from_stacchip import StacchipOptions

    return lazy_frame(path, bbox, filters, storage=storage, stacchip=StacchipOptions(chip_size, items_root))
