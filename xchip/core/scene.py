"""What xchip knows of one STAC item once it is understood: plain values that travel to any worker."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from datetime import datetime

from xchip.core.grid import PixelGrid
from xchip.core.quality import NodataRule, QualityRule


class ItemError(ValueError):
    """An item that can't be used. The message begins ``item '<id>'``, and says what is missing and where it was looked for.

    Examples
    --------
    >>> import xchip
    >>> try:
    ...     xchip.stack({"type": "Feature", "id": "bare", "properties": {}, "assets": {}, "links": []})
    ... except ItemError as error:
    ...     print(error.item_id)
    bare
    """

    def __init__(self, item_id: str, problem: str) -> None:
        super().__init__(f"item {item_id!r}: {problem}")
        self.item_id = item_id
        self.problem = problem

    def __reduce__(self) -> tuple[type[ItemError], tuple[str, str]]:
        return type(self), (self.item_id, self.problem)


@dataclass(frozen=True, slots=True)
class Header:
    """What a raster file says of itself."""

    grid: PixelGrid
    """The file's own pixels and CRS."""
    dtypes: tuple[str, ...]
    """NumPy dtype of each band."""
    nodata: tuple[float | None, ...]
    """Nodata value of each band."""
    block: tuple[int, int]
    """(height, width) of the blocks that the file is stored in."""
    masked: bool
    """Whether a mask band goes with the data."""
    alpha: int | None = None
    """Number (from 1) of the band tagged as alpha."""
    descriptions: tuple[str | None, ...] = ()
    """Name of each band, where the file gives one."""
    scales: tuple[float, ...] = ()
    """Scale of each band."""
    offsets: tuple[float, ...] = ()
    """Offset of each band."""


@dataclass(frozen=True, slots=True)
class BoaOffset:
    """Whether a Sentinel-2 item's digital numbers hold the offset that processing baseline 04.00 brought."""

    offset: int | None
    """What has to be added to the stored values so that they are as before: -1000, or 0; None: undecided."""
    origin: str
    """For people: where that was found, or why it is undecided."""


@dataclass(frozen=True, slots=True)
class Band:
    """One band of an item: a variable of the stack."""

    name: str
    """The variable's name."""
    asset: str
    """Key of the item's asset."""
    href: str
    """What GDAL opens: an absolute path, a URL or a /vsi path."""
    grid: PixelGrid
    """The band's own pixels."""
    dtype: str
    """NumPy dtype as stored."""
    index: int = 1
    """Number of the band in its file, from 1; 0 is the file's mask: uint8, 0 where there are no data."""
    count: int = 1
    """How many bands the file has."""
    nodata: float | None = None
    """The value that means "no data"; None where the source declares none."""
    scale: float = 1.0
    """physical = stored * scale + offset."""
    offset: float = 0.0
    """See ``scale``."""
    common_name: str | None = None
    """STAC common name, such as "red"."""
    block: tuple[int, int] | None = None
    """(height, width) of the file's blocks, where known."""
    masked: bool = False
    """Whether a mask or alpha band of the file says where data are, as the file's header or the item tells."""
    boa_offset: BoaOffset | None = None
    """The offset of Sentinel-2 reflectances in the file; None for all other bands."""
    dn_offset: int = 0
    """Added to pixels with data as they are read, by `apply_offset`; ``scale`` and ``offset`` are for what comes of it."""
    opened: bool = False
    """Whether the file was opened, so that ``nodata`` and ``masked`` hold what it declares too."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One item, understood."""

    item_id: str
    """The item's id."""
    collection: str | None
    """Its collection's id."""
    href: str | None
    """Where the item's JSON is."""
    datetime: datetime
    """With zone, UTC; start_datetime where ``datetime`` is null."""
    sensor: str | None
    """Name of the `SensorProfile`; None for an unknown product."""
    grid: PixelGrid
    """The scene's pixels: the finest among the profile's bands, or among the data assets."""
    bands: tuple[Band, ...]
    """The bands that were asked for (or the default ones), in that order."""
    rule: QualityRule | NodataRule
    """How its quality is read."""
    quality: tuple[Band, ...]
    """The band of a `QualityRule`, or the data bands of a `NodataRule`."""
    bbox: tuple[float, float, float, float] | None = None
    """(west, south, east, north) as published."""
    block: tuple[int, int] | None = None
    """(height, width) of file blocks on the scene's grid, from the files or the profile."""
    mask: Band | None = None
    """Under a `NodataRule`, the mask of the one file that all its bands are in: it tells nodata too."""
    boa_offset: BoaOffset | None = None
    """The offset of the item's Sentinel-2 reflectances, whichever bands were asked for; None for other products."""
    origins: dict[str, str] = field(default_factory=dict, compare=False)
    """For people: where "crs", "grid", "bands", "datetime", "sensor", "quality" and "offset" came from."""

    def __dask_tokenize__(self) -> tuple[str, bytes]:
        # dask would take each field apart, ten times as slowly; an archive has many scenes.
        return type(self).__qualname__, pickle.dumps(self)
