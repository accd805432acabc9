"""Layers of sample places: one point for each place, river and lake, and points at random."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xchip.core.lonlat import in_degrees
from xchip.processors.choosers import LONLAT, read_layer
from xchip.stac.api.conditions import box_shape, checked_bbox

if TYPE_CHECKING:
    import geopandas
    import numpy as np

Layer = Any
"""A GeoDataFrame, named by ``attrs["name"]``, or the path or URL of a layer that geopandas reads."""

EQUAL_AREA = "EPSG:6933"
"""On this map of the whole Earth equal areas are equal: what is uniform on it is uniform on the ground."""
WORLD = (-180.0, -90.0, 180.0, 90.0)
AT_RANDOM = "random"
AT_ONCE, TRIES = 100, 100
"""Points that are tried at once in the box around an area, and how often, until enough of them lie in it."""
DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON"}


def sample_places(
    places: Sequence[Layer] = (),
    *,
    rivers: Sequence[Layer] = (),
    lakes: Sequence[Layer] = (),
    random: int = 0,
    region: Any = None,
    seed: int = 0,
) -> geopandas.GeoDataFrame:
    """A layer of points to look for scenes at, such as `xchip naip` takes: row by row, in the order of the arguments.

    A layer's points do not depend on which other layers are given, nor on its place among them if its name is its own.

    Parameters
    ----------
    places
        Layers of which every feature becomes a point: towns, parks, airports, ports. A point is taken as it is; a line or an
        area gives one point that is sure to lie on it.
    rivers, lakes
        Layers of lines and of areas: one point at random along each line, and in each area, of what lies in the region.
    random
        Number of points at random in the region, uniform by area.
    region
        A layer whose features together are the region, or (west, south, east, north) in degrees. None: the whole Earth.
    seed
        The same seed gives the same points.

    Returns
    -------
    geopandas.GeoDataFrame
        Points in longitude and latitude, with the columns ``name`` (of the feature, null where its layer has none) and ``layer``
        (the file's name without its ending, or "random").

    Raises
    ------
    ValueError
        If there is nothing to sample, a layer has other geometries than it should, or nothing lies in the region.

    Examples
    --------
    >>> places = sample_places(random=3, region=(-125, 25, -66, 49), seed=7)
    >>> list(places["layer"]), places.crs.to_epsg()
    (['random', 'random', 'random'], 4326)
    """
    import geopandas
    import pandas as pd

    if random < 0:
        raise ValueError(f"random is a number of points, 0 or more, got {random}")
    if not (places or rivers or lakes or random):
        raise ValueError("nothing to sample: give layers of places, rivers or lakes, or a number of points at random")
    area = None if region is None else _region(region)
    parts = [_each(*_opened(layer), area) for layer in places]
    parts += [_one_in_each(*_opened(layer), area, seed, lines=True) for layer in rivers]
    parts += [_one_in_each(*_opened(layer), area, seed, lines=False) for layer in lakes]
    if random:
        parts.append(_at_random(random, area, _generator(seed, AT_RANDOM)))
    found = [part for part in parts if len(part)]
    if not found:
        if region is None:
            raise ValueError("the layers have no features with a geometry: there is nothing to sample")
        raise ValueError(f"none of the features lies in the region {region!r}; is it in degrees, west before south?")
    return geopandas.GeoDataFrame(pd.concat(found, ignore_index=True), crs=LONLAT)


def write_places(places: geopandas.GeoDataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a layer by its ending: .gpkg, .parquet (GeoParquet), .fgb or .geojson; whole or not at all.

    Raises
    ------
    ValueError
        If the ending is another, or the path a URL.
    """
    if "://" in os.fspath(path):
        raise ValueError(f"{os.fspath(path)!r} is a URL; write the layer to a file, and upload that")
    target = Path(path)
    ending = target.suffix.lower()
    if ending != ".parquet" and ending not in DRIVERS:
        raise ValueError(f"{str(target)!r} is no file of a known kind; it must end in .parquet, {', '.join(DRIVERS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        if ending == ".parquet":
            places.to_parquet(aside, write_covering_bbox=True)
        else:
            # A job knows its row by its number: FlatGeobuf would sort them for its index.
            more = {".gpkg": {"layer": "places"}, ".fgb": {"SPATIAL_INDEX": "NO"}}.get(ending, {})
            places.to_file(aside, driver=DRIVERS[ending], **more)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _opened(layer: Layer) -> tuple[geopandas.GeoDataFrame, str]:
    """(features in longitude and latitude, name) of a layer; features without a geometry are left out."""
    import geopandas

    if isinstance(layer, geopandas.GeoDataFrame):
        frame, name = in_degrees(layer), str(layer.attrs.get("name", "layer"))
    else:
        source = os.fspath(layer)
        frame, name = read_layer(source, None), posixpath.basename(source).partition(".")[0]
    return frame[~(frame.geometry.isna() | frame.geometry.is_empty)], name


def _generator(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one layer: others do not change them."""
    import numpy as np

    return np.random.default_rng([seed, *name.encode()])


def _region(region: Any) -> Any:
    """A geometry in longitude and latitude."""
    import shapely

    if not isinstance(region, str | os.PathLike) and hasattr(region, "__len__") and len(region) == 4:
        return box_shape(checked_bbox(region))
    frame, name = _opened(region)
    area = frame.geometry.make_valid().union_all()
    if area.area == 0:
        raise ValueError(f"layer {name!r} has no areas, and the region must be one")
    shapely.prepare(area)
    return area


def _each(frame: geopandas.GeoDataFrame, name: str, area: Any) -> geopandas.GeoDataFrame:
    """A point of every feature, of those whose point lies in the region."""
    points = frame.geometry.representative_point()
    inside = points.index == points.index if area is None else points.intersects(area)
    return _part(points[inside], frame[inside], name)


def _one_in_each(frame: geopandas.GeoDataFrame, name: str, area: Any, seed: int, *, lines: bool) -> geopandas.GeoDataFrame:
    """A point at random on every line, or in every area, of what of it lies in the region."""
    import geopandas
    import shapely

    wanted = ("LineString", "MultiLineString", "LinearRing") if lines else ("Polygon", "MultiPolygon")
    others = sorted(set(frame.geom_type) - set(wanted))
    if others:
        raise ValueError(
            f"layer {name!r} has {', '.join(others)}, where {'rivers are lines' if lines else 'lakes are areas'}; "
            "give it as places, of which each is taken as it is"
        )
    rng = _generator(seed, name)
    shapes = frame.geometry if lines else frame.geometry.make_valid()
    points = []
    for shape in shapes:
        # Drawn whether or not the feature lies in the region: a river has the same number in every region.
        draw = rng.spawn(1)[0]
        kept = _parts_of(shape if area is None else shapely.intersection(shape, area), lines=lines)
        points.append(None if kept.is_empty else _on_line(kept, draw) if lines else _in_area(kept, draw))
    series = geopandas.GeoSeries(points, index=frame.index, crs=LONLAT)
    inside = ~series.isna()
    return _part(series[inside], frame[inside], name)


def _parts_of(shape: Any, *, lines: bool) -> Any:
    """The lines, or the areas, of what may be a mixture: a river that touches the region's border leaves a point too."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shape))
    kept = parts[(shapely.get_dimensions(parts) == (1 if lines else 2)) & ~shapely.is_empty(parts)]
    return shapely.MultiLineString(list(kept)) if lines else shapely.MultiPolygon(list(kept))


def _on_line(line: Any, rng: np.random.Generator) -> Any:
    import shapely

    # Lines of several parts have no ends in common: the length goes on from part to part.
    parts = shapely.get_parts(line)
    ends = shapely.length(parts).cumsum()
    distance = rng.uniform(0, ends[-1])
    number = min(int(ends.searchsorted(distance, side="right")), len(parts) - 1)
    return shapely.line_interpolate_point(parts[number], distance - (ends[number - 1] if number else 0))


def _in_area(area: Any, rng: np.random.Generator) -> Any:
    return next(iter(_points_in(area, 1, rng)))


def _at_random(count: int, area: Any, rng: np.random.Generator) -> geopandas.GeoDataFrame:
    import geopandas
    import shapely

    area = shapely.box(*WORLD) if area is None else _parts_of(area, lines=False)
    points = geopandas.GeoSeries(list(_points_in(area, count, rng)), crs=LONLAT)
    return _part(points, geopandas.GeoDataFrame(geometry=points), AT_RANDOM)


def _points_in(area: Any, count: int, rng: np.random.Generator) -> Iterator[Any]:
    """So many points in an area in longitude and latitude, uniform on the ground."""
    import shapely

    to_map = _equal_area()
    west, south, east, north = shapely.bounds(area)
    (left, right), (bottom, top) = to_map.transform([west, east], [south, north])
    shapely.prepare(area)
    missing, size = count, max(count, AT_ONCE)
    for _ in range(TRIES):
        x, y = rng.uniform(left, right, size), rng.uniform(bottom, top, size)
        points = shapely.points(*to_map.transform(x, y, direction="INVERSE"))
        found = points[shapely.contains(area, points)][:missing]
        yield from found
        missing -= len(found)
        if not missing:
            return
    # Slivers: a point that is sure to lie there is better than none.
    yield from [area.representative_point()] * missing


@lru_cache(maxsize=1)
def _equal_area() -> Any:
    import pyproj

    return pyproj.Transformer.from_crs(LONLAT, EQUAL_AREA, always_xy=True)


def _part(points: geopandas.GeoSeries, features: geopandas.GeoDataFrame, layer: str) -> geopandas.GeoDataFrame:
    """Points with the names of their features."""
    import geopandas
    import pandas as pd

    column = next((column for column in features.columns if str(column).lower() == "name"), None)
    names = pd.Series(None, index=features.index, dtype="object") if column is None else features[column]
    return geopandas.GeoDataFrame({"name": names.to_numpy("object"), "layer": layer}, geometry=points.to_numpy(), crs=LONLAT)
