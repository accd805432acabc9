"""`Scene`: one STAC item in a known form, as plain values that can be sent to any worker."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from datetime import datetime

from xchip.core.grid import PixelGrid
from xchip.core.quality import NodataRule, QualityRule


class ItemError(ValueError):
    """An item can't be used. The message begins ``item '<id>'``, names what is missing, and says where xchip looked for it.

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
    """The header of a raster file."""

    grid: PixelGrid
    """The file's own pixels and CRS."""
    dtypes: tuple[str, ...]
    """NumPy dtype of each band."""
    nodata: tuple[float | None, ...]
    """Nodata value of each band."""
    block: tuple[int, int]
    """(height, width) of the blocks of the file."""
    masked: bool
    """Whether the file has a mask band."""
    alpha: int | None = None
    """Number (from 1) of the band tagged as alpha; None if there is none."""
    descriptions: tuple[str | None, ...] = ()
    """Name of each band; None where the file has none."""
    scales: tuple[float, ...] = ()
    """Scale of each band."""
    offsets: tuple[float, ...] = ()
    """Offset of each band."""


@dataclass(frozen=True, slots=True)
class BoaOffset:
    """Whether a Sentinel-2 item's digital numbers contain the offset that processing baseline 04.00 introduced."""

    offset: int | None
    """Number to add to the stored values to get values as before that baseline: -1000, or 0; None: undecided."""
    origin: str
    """Text: where the answer was found, or why it is undecided."""


@dataclass(frozen=True, slots=True)
class Band:
    """One band of an item: a variable of the stack."""

    name: str
    """The variable's name."""
    asset: str
    """Key of the item's asset."""
    href: str
    """Path for GDAL: an absolute path, a URL or a /vsi path."""
    grid: PixelGrid
    """The band's own pixels."""
    dtype: str
    """NumPy dtype as stored."""
    index: int = 1
    """Number of the band in its file, from 1; 0 is the file's mask: uint8, 0 for no data."""
    count: int = 1
    """Number of bands in the file."""
    nodata: float | None = None
    """The value that means "no data"; None where the source declares none."""
    scale: float = 1.0
    """physical = stored * scale + offset."""
    offset: float = 0.0
    """See ``scale``."""
    common_name: str | None = None
    """STAC common name, such as "red"."""
    block: tuple[int, int] | None = None
    """(height, width) of the file's blocks; None where unknown."""
    masked: bool = False
    """Whether the file has a mask or alpha band, by the file's header or the item."""
    boa_offset: BoaOffset | None = None
    """The offset of Sentinel-2 reflectances in the file; None for all other bands."""
    dn_offset: int = 0
    """Number that `apply_offset` adds to pixels with data when they are read, before ``scale`` and ``offset``."""
    opened: bool = False
    """Whether the file was opened, so that ``nodata`` and ``masked`` include its header."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One STAC item in a known form."""

    item_id: str
    """The item's id."""
    collection: str | None
    """Its collection's id."""
    href: str | None
    """Location of the item's JSON."""
    datetime: datetime
    """With time zone, UTC; start_datetime if ``datetime`` is null."""
    sensor: str | None
    """Name of the `SensorProfile`; None for an unknown product."""
    grid: PixelGrid
    """The scene's pixels: the finest among the profile's bands, or among the data assets."""
    bands: tuple[Band, ...]
    """The requested bands (or the default ones), in order."""
    rule: QualityRule | NodataRule
    """Rule for the item's quality."""
    quality: tuple[Band, ...]
    """The band of a `QualityRule`, or the data bands of a `NodataRule`."""
    bbox: tuple[float, float, float, float] | None = None
    """(west, south, east, north) as published; None if not published."""
    block: tuple[int, int] | None = None
    """(height, width) of file blocks on the scene's grid, from the files or the profile."""
    mask: Band | None = None
    """With a `NodataRule` whose bands are all in one file: the file's mask, which marks nodata too."""
    boa_offset: BoaOffset | None = None
    """The offset of the item's Sentinel-2 reflectances, for any requested bands; None for other products."""
    origins: dict[str, str] = field(default_factory=dict, compare=False)
    """Text: the origins of "crs", "grid", "bands", "datetime", "sensor", "quality" and "offset"."""

    def __dask_tokenize__(self) -> tuple[str, bytes]:
        # Tokenizing each field, as dask does, takes ten times as long, and an archive has many scenes.
        return type(self).__qualname__, pickle.dumps(self)
