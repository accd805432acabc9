"""What a data source is to the pipeline: a `Recipe`, which is data, a way to list its units, and a way to choose items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import numpy as np

Item = dict[str, Any]
"""A STAC item as plain JSON, with absolute hrefs."""
Options = Mapping[str, Any]
"""Option's name -> its value: those of the recipe, and of `COMMON`."""

Kind = Literal["text", "integer", "number", "fraction", "flag", "names", "integers", "pixels", "choice"]
"""What an option holds: str, int, float, a float from 0 to 1, bool, a tuple of str, a tuple of int, an int or (height, width), or
one of ``choices``."""


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that users may choose, as a keyword in Python and as an option and environment variables on the command line."""

    name: str
    """As in Python ("max_cloud"): the command line makes ``--max-cloud`` and ``XCHIP_<RECIPE>_MAX_CLOUD`` of it."""
    kind: Kind
    help: str
    """For ``--help``: one sentence."""
    default: Any = None
    """None: there is none, and the recipe does without."""
    required: bool = False
    """Whether nothing can be done without it."""
    example: str = ""
    """A value, for the message where a required one is missing."""
    env: tuple[str, ...] = ()
    """Other environment variables that give it, such as "STACCHIP_MGRS_SOURCE"."""
    choices: tuple[str, ...] = ()
    """For the kind "choice"."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work that one job does: a row of a layer, a survey, a tile."""

    index: int
    """Its place among the units, from 0: what an array job counts."""
    name: str
    """For people, and for choosers: a tile's name, a prefix in a bucket."""
    geometry: Any = None
    """Its shape in longitude and latitude (shapely), where it has one."""


@dataclass(frozen=True, slots=True)
class Staging:
    """What becomes of an asset's file on its way into the archive. Without any field: the same bytes.

    With any field it is warped or cut by GDAL and written as a Cloud Optimized GeoTIFF with overviews. That happens also where
    files are not to be copied, because there is no such file elsewhere.
    """

    crs: str | None = None
    """CRS to warp to, such as "EPSG:3857"; None: the file's own."""
    resolution: float | None = None
    """Size of a pixel in that CRS; None: the file's own, or, in another CRS, what GDAL proposes. Pixels begin at the file's upper
    left corner; in another CRS they lie on whole multiples of it, so that neighbours share a lattice."""
    resampling: str = "nearest"
    """Name of rasterio's `Resampling`: "nearest", "bilinear", "average" ..."""
    bands: tuple[int, ...] = ()
    """Numbers, from 1, of the bands to keep; none: all. What is no longer there, such as alpha, becomes a mask of the file."""
    nodata: float | None = None
    """The value that means "no data", where the file declares none; None: beyond its borders a mask says so."""

    @property
    def keeps_bytes(self) -> bool:
        """Whether the file stays as it is."""
        return self.crs is None and self.resolution is None and not self.bands


SAME = Staging()
"""The file as it is."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Where a chooser looks for items."""

    api: str | None
    """URL of a STAC API, where the recipe has one."""
    pixels: StorageOptions = field(default_factory=StorageOptions)
    """How files of the source are reached; a chooser that lists a bucket uses ``pixels.filesystem(url)``."""

    def search(self, **question: Any) -> Iterator[Item]:
        """Items of the API, as `xchip.search` finds them; its order is not to be relied upon without ``sortby``."""
        from xchip.stac.api.search import search

        if self.api is None:
            raise ValueError("this recipe has no API to search")
        return search(self.api, **question)


Units = Callable[[Options], Sequence[Unit]]
"""Options -> all units, addressed by index. Must not search: it is called by each job."""
Choose = Callable[[Unit, Catalogue, "np.random.Generator", Options], Iterator[Item]]
"""(unit, catalogue, rng, options) -> the items of a unit, one after another, none twice. Whatever is random comes from ``rng``,
which is seeded by the unit; the answer must not depend on the order in which a server gives items. It may correct items (give
them a collection, say), and gives new dicts where it does. For one that can't be had it may give what `stage.refused` makes: then
that one fails, with the reason, and the others do not."""
Assets = Callable[[Item, Options], Mapping[str, Staging]]
"""(item, options) -> key of each asset to keep, with what becomes of it. The others are left out of the archive's item."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A data source: what `xchip.processors.process` needs to make an archive of it."""

    name: str
    """Of the command: "sentinel-2"."""
    summary: str
    """First line of ``--help``."""
    units: Units
    choose: Choose
    assets: Assets
    options: tuple[Option, ...] = ()
    """Its own; `COMMON` are added."""
    api: str | None = None
    """URL of the STAC API that is searched unless the user says; None: there is none."""
    sensor: str | None = None
    """Name of the `SensorProfile` of items that are not recognised by what is published of them."""
    pixels: StorageOptions = field(default_factory=StorageOptions)
    """How the source's files are reached: requester pays, signatures, region ..."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of `COMMON` options that differ from theirs."""
    description: str = ""
    """More for ``--help``, below the summary."""

    def all_options(self) -> tuple[Option, ...]:
        """Its own options and the common ones, with the defaults that hold for it."""
        from dataclasses import replace

        own = {option.name for option in self.options}
        known: dict[str, Any] = {"api": self.api} | dict(self.defaults)
        common = (replace(o, default=known.get(o.name, o.default)) for o in COMMON if o.name not in own)
        return (*self.options, *(option for option in common if option.name != "api" or self.api is not None))

    def values(self, given: Options) -> dict[str, Any]:
        """The value of each option: as given, else the default. None counts as not given.

        Raises
        ------
        ValueError
            For a name that is no option, and a required option without a value.
        """
        known = {option.name: option for option in self.all_options()}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(f"recipe {self.name!r} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        values = {name: option.default if given.get(name) is None else given[name] for name, option in known.items()}
        for name, option in known.items():
            if option.required and values[name] is None:
                raise ValueError(f"recipe {self.name!r} needs {name}=, such as {option.example!r}: {option.help}")
        return values


COMMON: tuple[Option, ...] = (
    Option("api", "text", "STAC API to search."),
    Option("assets", "names", "Bands to keep, as the catalogue names them; what tells clouds stays. Default: the recipe's."),
    Option("size", "pixels", "Pixels of a chip: 256, or HEIGHTxWIDTH.", 256),
    Option("max_nodata", "fraction", "Keep chips with at most this fraction of nodata.", 0.5),
    Option("max_cloud_fraction", "fraction", "Keep chips with at most this fraction of cloud."),
    Option("copy", "flag", "Copy the items' files into the archive.", True),
    Option("seed", "integer", "Decides what is random, together with the unit's index.", 0),
)
"""Options of every recipe."""
