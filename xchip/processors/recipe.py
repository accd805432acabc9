"""The parts of a recipe: its options, its units of work, and the functions that choose items and assets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import numpy as np
    import shapely

Item: TypeAlias = dict[str, Any]
"""A STAC item as plain JSON, with absolute hrefs."""
Options: TypeAlias = Mapping[str, Any]
"""Name of each option -> its value: the recipe's own options, and `COMMON`."""
Value: TypeAlias = str | int | float | tuple[str, ...] | tuple[int, ...]
"""The default value of an option."""
Kind: TypeAlias = Literal["text", "integer", "number", "fraction", "flag", "names", "integers", "pixels", "choice"]
"""What an option holds: str, int, float, a float from 0 to 1, bool, a tuple of str, a tuple of int, an int or (height, width), or
one of ``choices``."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a recipe: a keyword in Python; an option and environment variables on the command line."""

    name: str
    """As in Python ("max_cloud"); the command line derives ``--max-cloud`` and ``XCHIP_<RECIPE>_MAX_CLOUD``."""
    kind: Kind
    help: str
    """One sentence for ``--help``."""
    default: Value | None = None
    """None: the option has no default value."""
    required: bool = False
    """Whether the recipe can't run without a value."""
    example: str = ""
    """A value for the message that says that a required option is missing."""
    env: tuple[str, ...] = ()
    """Other environment variables that set it, such as "STACCHIP_MGRS_SOURCE"."""
    choices: tuple[str, ...] = ()
    """Valid values of the kind "choice"."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work for one job: a row of a layer, a survey, a tile."""

    index: int
    """Number of the unit, from 0: the index of an array job."""
    name: str
    """For people and for choosers: the name of a tile, a prefix in a bucket."""
    geometry: shapely.Geometry | None = None
    """Shape in longitude and latitude, if the unit has one."""


@dataclass(frozen=True, slots=True)
class Staging:
    """How an asset's file is changed on its way into the archive. Without any field, its bytes are copied.

    With any field, GDAL warps or cuts the file and writes a Cloud Optimized GeoTIFF with overviews. That also happens if files
    are not to be copied, because such a file exists nowhere else.
    """

    crs: str | None = None
    """CRS to warp to, such as "EPSG:3857"; None: the file's own CRS."""
    resolution: float | None = None
    """Size of a pixel in that CRS; None: the file's own, or GDAL's proposal if the CRS changes. Pixels begin at the file's upper
    left corner; in another CRS they lie on whole multiples of the size, so that neighbours share a lattice."""
    resampling: str = "nearest"
    """Name in rasterio's `Resampling`: "nearest", "bilinear", "average" ..."""
    bands: tuple[int, ...] = ()
    """Numbers, from 1, of the bands to keep; none: all. A dropped alpha band becomes a mask of the file."""
    nodata: float | None = None
    """The nodata value of a file that declares none; None: a mask marks the pixels beyond the file's borders."""

    @property
    def keeps_bytes(self) -> bool:
        """Whether the file stays as it is."""
        return self.crs is None and self.resolution is None and not self.bands


SAME = Staging()
"""Keep the file as it is."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The catalogue in which a chooser looks for items."""

    api: str | None
    """URL of a STAC API, if the recipe has one."""
    pixels: StorageOptions = field(default_factory=StorageOptions)
    """How to reach the source's files; a chooser that lists a bucket uses ``pixels.filesystem(url)``."""

    def search(self, **parameters: Any) -> Iterator[Item]:
        """Search the API with the parameters of `xchip.search`; without ``sortby`` the order of the items is undefined."""
        from xchip.stac.api.search import search

        if self.api is None:
            raise ValueError("this recipe has no API to search")
        return search(self.api, **parameters)


Units: TypeAlias = Callable[[Options], Sequence[Unit]]
"""Options -> all units, addressed by index. It must not search, because every job calls it."""
Choose: TypeAlias = Callable[[Unit, Catalogue, "np.random.Generator", Options], Iterator[Item]]
"""(unit, catalogue, rng, options) -> the items of a unit, each item once. All randomness comes from ``rng``, which is seeded by
the unit; the result must not depend on the order in which a server returns items. The function may correct items (give them a
collection, say); it then yields new dicts. For an unusable item it may yield the result of `stage.refused`: then only that item
fails, with the reason."""
Assets: TypeAlias = Callable[[Item, Options], Mapping[str, Staging]]
"""(item, options) -> key of each asset to keep, and its staging. Other assets are left out of the archive's item."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A data source: all that `xchip.processors.process` needs to make an archive of it."""

    name: str
    """Name of the command: "sentinel-2"."""
    summary: str
    """First line of ``--help``."""
    units: Units
    choose: Choose
    assets: Assets
    options: tuple[Option, ...] = ()
    """The recipe's own options; `COMMON` are added."""
    api: str | None = None
    """Default URL of the STAC API to search; None: the recipe searches no API."""
    sensor: str | None = None
    """Name of the `SensorProfile` of items whose metadata don't identify their product."""
    pixels: StorageOptions = field(default_factory=StorageOptions)
    """How to reach the source's files: requester pays, signatures, region ..."""
    defaults: Mapping[str, Value] = field(default_factory=dict)
    """Defaults of `COMMON` options that differ in this recipe."""
    description: str = ""
    """Text of ``--help`` below the summary."""

    def all_options(self) -> tuple[Option, ...]:
        """Return the recipe's own options and the common ones, with the defaults of this recipe."""
        omitted = {option.name for option in self.options} | ({"api"} if self.api is None else set())
        defaults = {"api": self.api, **self.defaults}
        common = (replace(option, default=defaults.get(option.name, option.default)) for option in COMMON)
        return (*self.options, *(option for option in common if option.name not in omitted))

    def values(self, given: Options) -> dict[str, Any]:
        """Return the value of each option: ``given``, or the default if it is absent or None.

        Raises
        ------
        ValueError
            If a name is unknown, or a required option has no value.
        """
        options = {option.name: option for option in self.all_options()}
        unknown = sorted(set(given) - set(options))
        if unknown:
            raise ValueError(f"recipe {self.name!r} has no option {', '.join(unknown)}; it has {', '.join(sorted(options))}")
        values = {name: option.default if given.get(name) is None else given[name] for name, option in options.items()}
        for name, option in options.items():
            if option.required and values[name] is None:
                raise ValueError(f"recipe {self.name!r} needs {name}=, such as {option.example!r}: {option.help}")
        return values


COMMON: tuple[Option, ...] = (
    Option("api", "text", "STAC API to search."),
    Option(
        "assets", "names", "Bands to keep, as the catalogue names them; the band that marks clouds stays. Default: the recipe's."
    ),
    Option("size", "pixels", "Pixels of a chip: 256, or HEIGHTxWIDTH.", 256),
    Option("max_nodata", "fraction", "Keep chips with at most this fraction of nodata.", 0.5),
    Option("max_cloud_fraction", "fraction", "Keep chips with at most this fraction of cloud."),
    Option("copy", "flag", "Copy the items' files into the archive.", True),
    Option("seed", "integer", "Seed of all random choices, together with the unit's index.", 0),
)
"""Options of every recipe."""
