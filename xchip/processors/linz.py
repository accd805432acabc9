"""New Zealand's open aerial photographs: the latest survey of each region, every scene brought to one resolution."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from xchip.io.retry import insistently
from xchip.io.storage import StorageOptions
from xchip.io.store import reached
from xchip.processors.recipe import Catalogue, Item, Option, Options, Recipe, Staging, Unit
from xchip.stac.inputs import resolve, resolved

if TYPE_CHECKING:
    import numpy as np

CATALOGUE = "s3://nz-imagery/catalog.json"
"""Root of the static STAC catalogue, in a public bucket."""
PUBLIC = StorageOptions(unsigned=True, region="ap-southeast-2")
SURVEYS = "linz_surveys.txt"
"""File of this package with the surveys that are units, one a line."""
RESOLUTION = 0.3
"""Metres: what every scene is brought to, and the coarsest survey that `latest_surveys` keeps."""
RGB = (1, 2, 3)
"""Red, green and blue; a fourth or fifth band is infrared or alpha."""
AT_ONCE = 50
"""Items that are fetched at a time."""

# <region>/<city or sub-region>_<years>_<resolution>m/<product>/<crs>, in older surveys with the last two the other way round:
# github.com/linz/imagery, docs/naming.md.
_SURVEY = re.compile(
    r"(?P<region>[^/]+)/(?P<area>[^/]+?)_(?:(?P<first>\d{4})-)?(?P<last>\d{4})_(?P<resolution>[\d.]+)m/"
    r"(?:(?P<product>[a-z]\w*)/\d+|\d+/(?P<late_product>[a-z]\w*))"
)
# Photographs on film, scanned, bear the number of their flight in the name: they are grey.
_SCANNED = re.compile(r"_snc?\d")


@dataclass(frozen=True, slots=True)
class Survey:
    """A survey, as its place in the bucket tells."""

    path: str
    """Folder of its collection: "auckland/auckland_2022_0.075m/rgb/2193"."""
    area: str
    """Region and city or sub-region: "auckland/auckland"."""
    year: int
    """The last one of capture."""
    resolution: float
    """Metres."""
    product: str
    """"rgb", "rgbnir" ..."""

    @classmethod
    def of(cls, path: str) -> Survey | None:
        """The survey of a folder; None where the path is none of a survey in colour.

        Examples
        --------
        >>> Survey.of("otago/dunedin_2018-2019_0.1m/rgb/2193/")
        Survey(path='otago/dunedin_2018-2019_0.1m/rgb/2193', area='otago/dunedin', year=2019, resolution=0.1, product='rgb')
        """
        match = _SURVEY.fullmatch(path.strip("/"))
        if match is None or _SCANNED.search(match["area"]):
            return None
        product = match["product"] or match["late_product"]
        return cls(path.strip("/"), f"{match['region']}/{match['area']}", int(match["last"]), float(match["resolution"]), product)


def latest_surveys(paths: Iterable[str], max_resolution: float = RESOLUTION) -> list[Survey]:
    """The latest surveys of each area, in the order of their paths: those of its last year, for town and country may be apart.

    Left out are photographs without colour, products other than red, green and blue, and surveys coarser than
    ``max_resolution`` metres.
    """
    surveys = [survey for path in paths if (survey := Survey.of(path)) is not None]
    wanted = [survey for survey in surveys if survey.product == "rgb" and survey.resolution <= max_resolution]
    last: dict[str, int] = {}
    for survey in wanted:
        last[survey.area] = max(survey.year, last.get(survey.area, 0))
    return sorted((survey for survey in wanted if survey.year == last[survey.area]), key=lambda survey: survey.path)


def survey_paths(catalogue: str = CATALOGUE, storage: StorageOptions = PUBLIC) -> list[str]:
    """Folder of each collection that the root of the catalogue names, relative to it.

    Raises
    ------
    ValueError
        If what is there is no catalogue.
    OSError
        If it can't be read.
    """
    links = _links(catalogue, _read_json(catalogue, storage), "child")
    root = catalogue.rpartition("/")[0] + "/"
    return [href.removeprefix(root).rpartition("/")[0] for href in links]


def read_surveys(path: str | None) -> list[str]:
    """The paths in a file of surveys, local or at a URL, one a line, without comments (#); None: those that come with xchip."""
    if path is None:
        text = files(__package__).joinpath(SURVEYS).read_text(encoding="utf-8")
    else:
        import fsspec

        with reached(f"read the surveys in {path!r}"), fsspec.open(path, "rt", encoding="utf-8") as file:
            text = file.read()
    lines = (line.partition("#")[0].strip().strip("/") for line in text.splitlines())
    return [line for line in lines if line]


def units(options: Options) -> Sequence[Unit]:
    """One for each survey of the list."""
    return tuple(Unit(index, path) for index, path in enumerate(read_surveys(options["surveys"])))


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """Scenes of a survey at random, without repetition."""
    if options["resolution"] <= 0:
        raise ValueError(f"resolution is a number of metres above 0, got {options['resolution']}")
    collection = resolve(f"./{unit.name}/collection.json", options["catalogue"])
    survey = _read_json(collection, catalogue.pixels)
    hrefs = _links(collection, survey, "item")
    chosen = some_of(hrefs, rng, options["share"], options["min_scenes"], options["max_scenes"])
    for start in range(0, len(chosen), AT_ONCE):
        yield from _items(chosen[start : start + AT_ONCE], catalogue.pixels, survey.get("id"))


def some_of(names: Iterable[str], rng: np.random.Generator, share: float, least: int, most: int) -> list[str]:
    """A share of the names, at least ``least`` (or all) and at most ``most``, sorted. Their order makes no difference.

    Raises
    ------
    ValueError
        If there are more at least than at most.

    Examples
    --------
    >>> import numpy as np
    >>> [len(some_of(map(str, range(n)), np.random.default_rng(0), 0.5, 10, 2000)) for n in (3, 15, 30, 31, 10_000)]
    [3, 10, 15, 15, 2000]
    """
    if not 0 <= least <= most:
        raise ValueError(f"min_scenes must not be above max_scenes, nor below 0; got {least} and {most}")
    ordered = sorted(set(names))
    count = min(max(int(len(ordered) * share), least), most, len(ordered))
    return [ordered[number] for number in sorted(rng.choice(len(ordered), size=count, replace=False))] if ordered else []


def assets(item: Item, options: Options) -> Mapping[str, Staging]:
    """The picture, at one resolution, in three bands; where there is none of it, its mask says so."""
    staging = Staging(resolution=options["resolution"], resampling="bilinear", bands=RGB)
    return dict.fromkeys(options["assets"] or ("visual",), staging)


def _items(hrefs: Sequence[str], storage: StorageOptions, collection: Any) -> Iterator[Item]:
    """The items at ``hrefs``. One that is not there, or is none, fails by itself, and under the name that it should have."""
    from xchip.processors.stage import refused

    fs, _ = storage.filesystem(hrefs[0])
    paths = [storage.filesystem(href)[1] for href in hrefs]
    with reached(f"read items such as {hrefs[0]!r}"):
        contents = insistently(lambda: _contents(fs, paths))
    for href, content in zip(hrefs, contents, strict=True):
        try:
            if content is None:
                raise ValueError(f"{href!r} is not there, though the survey names it")
            yield resolved(_parsed(href, content), href)
        except ValueError as error:
            name = posixpath.basename(href).partition(".")[0]
            stand_in = {"type": "Feature", "id": name, "collection": collection, "properties": {}, "links": []}
            yield refused(stand_in, str(error))


def _contents(fs: Any, paths: Sequence[str]) -> list[bytes | None]:
    """What files hold, read together; None for one that is not there."""
    found = fs.cat(paths, on_error="return")
    for content in found.values():
        if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
            raise content
    return [None if isinstance(found[path], Exception) else found[path] for path in paths]


def _read_json(href: str, storage: StorageOptions) -> dict[str, Any]:
    fs, path = storage.filesystem(href)
    with reached(f"read {href!r}"):
        return _parsed(href, insistently(lambda: fs.cat_file(path)))


def _parsed(href: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{href!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{href!r} is no STAC object, but {type(value).__name__}")
    return value


def _links(href: str, value: Mapping[str, Any], relation: str) -> list[str]:
    """Absolute hrefs of a catalogue's children or a collection's items."""
    links = [resolve(link["href"], href) for link in value.get("links", ()) if link.get("rel") == relation]
    if not links:
        raise ValueError(f"{href!r} has no links of the relation {relation!r}; is it a static STAC catalogue's?")
    return links


RECIPE = Recipe(
    name="linz",
    summary="Index New Zealand's open aerial imagery, a survey at a time.",
    description=(
        "A unit is a survey of the list that comes with xchip, the latest of each region; `xchip linz-surveys` makes such a list "
        "anew from the catalogue. Every scene is brought to one resolution, in red, green and blue."
    ),
    units=units,
    choose=choose,
    assets=assets,
    sensor="linz",
    pixels=PUBLIC,
    options=(
        Option("surveys", "text", "File or URL with a survey's folder a line, in place of the list that comes with xchip."),
        Option("catalogue", "text", "Root of the static STAC catalogue that the surveys are in.", CATALOGUE),
        Option("share", "fraction", "Share of a survey's scenes to take, at random.", 0.5),
        Option("min_scenes", "integer", "Take at least so many of a survey.", 10),
        Option("max_scenes", "integer", "Take at most so many of a survey.", 2000),
        Option("resolution", "number", "Metres of a pixel that scenes are brought to, bilinear.", RESOLUTION),
    ),
)
"""The data source, for `xchip.processors.process`."""
