"""New Zealand's open aerial photographs: the latest survey of each region, with all scenes resampled to one resolution."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from xchip.core.types import JSON
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
"""File of this package with the default surveys, one per line."""
RESOLUTION = 0.3
"""Metres: default resolution of all scenes, and of the coarsest survey that `latest_surveys` keeps."""
RGB = (1, 2, 3)
"""Red, green and blue; a fourth or fifth band is infrared or alpha."""
AT_ONCE = 50
"""Number of items to fetch at a time."""

# <region>/<city or sub-region>_<years>_<resolution>m/<product>/<crs>; in older surveys the CRS comes before the product:
# github.com/linz/imagery, docs/naming.md.
_SURVEY = re.compile(
    r"(?P<region>[^/]+)/(?P<area>[^/]+?)_(?:(?P<first>\d{4})-)?(?P<last>\d{4})_(?P<resolution>[\d.]+)m/"
    r"(?:(?P<product>[a-z]\w*)/\d+|\d+/(?P<late_product>[a-z]\w*))"
)
# Scanned film photographs have the number of their flight in the name: they are grey.
_SCANNED = re.compile(r"_snc?\d")


@dataclass(frozen=True, slots=True)
class Survey:
    """A survey, parsed from its folder in the bucket."""

    path: str
    """Folder of its collection: "auckland/auckland_2022_0.075m/rgb/2193"."""
    area: str
    """Region and city or sub-region: "auckland/auckland"."""
    year: int
    """Last year of capture."""
    resolution: float
    """Metres."""
    product: str
    """"rgb", "rgbnir" ..."""

    @classmethod
    def of(cls, path: str) -> Survey | None:
        """Return the survey of a folder; None if the path is not that of a colour survey.

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
    """Return the surveys of each area's last year, ordered by path; there may be several, because town and country may differ.

    Grey photographs, products other than red, green and blue, and surveys coarser than ``max_resolution`` metres are left out.
    """
    surveys = [survey for path in paths if (survey := Survey.of(path)) is not None]
    usable = [survey for survey in surveys if survey.product == "rgb" and survey.resolution <= max_resolution]
    last: dict[str, int] = {}
    for survey in usable:
        last[survey.area] = max(survey.year, last.get(survey.area, 0))
    return sorted((survey for survey in usable if survey.year == last[survey.area]), key=lambda survey: survey.path)


def survey_paths(catalogue: str = CATALOGUE, storage: StorageOptions = PUBLIC) -> list[str]:
    """Return the folder of each collection in the root of the catalogue, relative to the root.

    Raises
    ------
    ValueError
        If the file is not a catalogue.
    OSError
        If it can't be read.
    """
    links = _links(catalogue, _read_json(catalogue, storage), "child")
    root = catalogue.rpartition("/")[0] + "/"
    return [href.removeprefix(root).rpartition("/")[0] for href in links]


def read_surveys(path: str | None) -> list[str]:
    """Read a file or URL of surveys, one path per line, with comments after #; None: the surveys that come with xchip."""
    if path is None:
        text = files(__package__).joinpath(SURVEYS).read_text(encoding="utf-8")
    else:
        import fsspec

        with reached(f"read the surveys in {path!r}"), fsspec.open(path, "rt", encoding="utf-8") as file:
            text = file.read()
    lines = (line.partition("#")[0].strip().strip("/") for line in text.splitlines())
    return [line for line in lines if line]


def units(options: Options) -> Sequence[Unit]:
    """Return a unit for each survey of the list."""
    return tuple(Unit(index, path) for index, path in enumerate(read_surveys(options["surveys"])))


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """Yield random scenes of a survey, each once."""
    if options["resolution"] <= 0:
        raise ValueError(f"resolution is a number of metres above 0, got {options['resolution']}")
    collection = resolve(f"./{unit.name}/collection.json", options["catalogue"])
    survey = _read_json(collection, catalogue.pixels)
    hrefs = _links(collection, survey, "item")
    sample = some_of(hrefs, rng, options["share"], options["min_scenes"], options["max_scenes"])
    for start in range(0, len(sample), AT_ONCE):
        yield from _items(sample[start : start + AT_ONCE], catalogue.pixels, survey.get("id"))


def some_of(names: Iterable[str], rng: np.random.Generator, share: float, least: int, most: int) -> list[str]:
    """Draw a share of the names, at least ``least`` (or all) and at most ``most``; return them sorted.

    The result does not depend on the order of ``names``.

    Raises
    ------
    ValueError
        If ``least`` is above ``most`` or negative.

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
    """Return the picture, to be resampled to one resolution in three bands; a mask marks the pixels beyond its borders."""
    staging = Staging(resolution=options["resolution"], resampling="bilinear", bands=RGB)
    return dict.fromkeys(options["assets"] or ("visual",), staging)


def _items(hrefs: Sequence[str], storage: StorageOptions, collection: object) -> Iterator[Item]:
    """Read the items at ``hrefs``. A missing or invalid item fails alone, with the id that its name suggests."""
    from xchip.processors.stage import refused

    fs, _ = storage.filesystem(hrefs[0])
    paths = [storage.filesystem(href)[1] for href in hrefs]
    with reached(f"read items such as {hrefs[0]!r}"):
        contents = insistently(lambda: _contents(fs, paths))
    for href, content in zip(hrefs, contents, strict=True):
        try:
            if content is None:
                raise ValueError(f"{href!r} does not exist, although the survey links to it")
            yield resolved(_parsed(href, content), href)
        except ValueError as error:
            name = posixpath.basename(href).partition(".")[0]
            stand_in = {"type": "Feature", "id": name, "collection": collection, "properties": {}, "links": []}
            yield refused(stand_in, str(error))


def _contents(fs: Any, paths: Sequence[str]) -> list[bytes | None]:
    """Read files together; None for a missing file."""
    contents = fs.cat(paths, on_error="return")
    for content in contents.values():
        if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
            raise content
    return [None if isinstance(contents[path], Exception) else contents[path] for path in paths]


def _read_json(href: str, storage: StorageOptions) -> dict[str, Any]:
    fs, path = storage.filesystem(href)
    with reached(f"read {href!r}"):
        return _parsed(href, insistently(lambda: fs.cat_file(path)))


def _parsed(href: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{href!r} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{href!r} is not a STAC object, but a JSON value of type {type(value).__name__}")
    return value


def _links(href: str, value: JSON, relation: str) -> list[str]:
    """Return the absolute hrefs of a catalogue's children or a collection's items."""
    links = [resolve(link["href"], href) for link in value.get("links", ()) if link.get("rel") == relation]
    if not links:
        raise ValueError(f"{href!r} has no links of the relation {relation!r}; it must be part of a static STAC catalogue")
    return links


RECIPE = Recipe(
    name="linz",
    summary="Index New Zealand's open aerial imagery, a survey at a time.",
    description=(
        "A unit is a survey in the list that comes with xchip, the latest of each region; `xchip linz-surveys` makes a new list "
        "from the catalogue. All scenes are resampled to one resolution, in red, green and blue."
    ),
    units=units,
    choose=choose,
    assets=assets,
    sensor="linz",
    pixels=PUBLIC,
    options=(
        Option("surveys", "text", "File or URL with one survey folder per line, instead of the list that comes with xchip."),
        Option("catalogue", "text", "Root of the static STAC catalogue with the surveys.", CATALOGUE),
        Option("share", "fraction", "Share of a survey's scenes to draw.", 0.5),
        Option("min_scenes", "integer", "Minimum number of scenes per survey.", 10),
        Option("max_scenes", "integer", "Maximum number of scenes per survey.", 2000),
        Option("resolution", "number", "Size of a pixel in metres; scenes are resampled (bilinear).", RESOLUTION),
    ),
)
"""The recipe, for `xchip.processors.process`."""
