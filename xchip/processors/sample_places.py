"""Make layers of sample places: a point for each place, river and lake, and random points."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from xchip.core.lonlat import in_degrees
from xchip.core.types import BBox, PathLike
from xchip.processors.choosers import LONLAT, read_layer
from xchip.stac.api.conditions import box_shape, checked_bbox

if TYPE_CHECKING:
    import geopandas
    import numpy as np
    import pyproj
    import shapely

Layer: TypeAlias = "geopandas.GeoDataFrame | PathLike"
"""A GeoDataFrame, named by ``attrs["name"]``, or the path or URL of a layer that geopandas reads."""

EQUAL_AREA = "EPSG:6933"
"""An equal-area projection of the whole Earth: points that are uniform on it are uniform on the ground."""
WORLD = (-180.0, -90.0, 180.0, 90.0)
AT_RANDOM = "random"
AT_ONCE, TRIES = 100, 100
"""Number of points to try at once in the box around an area, and number of tries to find enough points in the area."""
DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON"}


def sample_places(
    places: Sequence[Layer] = (),
    *,
    rivers: Sequence[Layer] = (),
    lakes: Sequence[Layer] = (),
    random: int = 0,
    region: Layer | BBox | None = None,
    seed: int = 0,
) -> geopandas.GeoDataFrame:
    """Make a layer of points at which to search scenes, such as `xchip naip` reads; rows are in the order of the arguments.

    The points of a layer do not depend on the other layers, nor on its position among them if its name is unique.

    Parameters
    ----------
    places
        Layers in which each feature gives one point: towns, parks, airports, ports. A point is used unchanged; a line or an
        area gives a point that lies on it.
    rivers, lakes
        Layers of lines and of areas: one random point along each line, and in each area, within the region.
    random
        Number of random points in the region, uniform by area.
    region
        A layer whose features together are the region, or (west, south, east, north) in degrees. None: the whole Earth.
    seed
        The same seed makes the same points.

    Returns
    -------
    geopandas.GeoDataFrame
        Points in longitude and latitude, with the columns ``name`` (of the feature, null if its layer has no names) and
        ``layer`` (the file's name without its ending, or "random").

    Raises
    ------
    ValueError
        If there is nothing to sample, a layer has the wrong type of geometries, or nothing lies in the region.

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
        raise ValueError("nothing to sample: pass layers of places, rivers or lakes, or a number of random points")
    area = None if region is None else _region(region)
    parts = [_representative_points(*_opened(layer), area) for layer in places]
    parts += [_random_points_on(*_opened(layer), area, seed, lines=True) for layer in rivers]
    parts += [_random_points_on(*_opened(layer), area, seed, lines=False) for layer in lakes]
    if random:
        parts.append(_random_points(random, area, _generator(seed, AT_RANDOM)))
    parts = [part for part in parts if len(part)]
    if not parts:
        if region is None:
            raise ValueError("nothing to sample: the layers have no features with a geometry")
        raise ValueError(f"none of the features lies in the region {region!r}; is it in degrees, west before south?")
    return geopandas.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=LONLAT)


def write_places(places: geopandas.GeoDataFrame, path: PathLike) -> Path:
    """Write a layer as .gpkg, .parquet (GeoParquet), .fgb or .geojson, by the ending of ``path``; whole or not at all.

    Raises
    ------
    ValueError
        If the ending is unknown, or the path is a URL.
    """
    if "://" in os.fspath(path):
        raise ValueError(f"{os.fspath(path)!r} is a URL; write the layer to a local file and upload the file")
    target = Path(path)
    ending = target.suffix.lower()
    if ending != ".parquet" and ending not in DRIVERS:
        raise ValueError(f"{str(target)!r} has an unknown ending; use one of .parquet, {', '.join(DRIVERS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        if ending == ".parquet":
            places.to_parquet(aside, write_covering_bbox=True)
        else:
            # Jobs address rows by number, and FlatGeobuf would sort the rows for its index.
            options = {".gpkg": {"layer": "places"}, ".fgb": {"SPATIAL_INDEX": "NO"}}.get(ending, {})
            places.to_file(aside, driver=DRIVERS[ending], **options)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _opened(layer: Layer) -> tuple[geopandas.GeoDataFrame, str]:
    """Return (features in longitude and latitude, name) of a layer, without features that have no geometry."""
    import geopandas

    if isinstance(layer, geopandas.GeoDataFrame):
        frame, name = in_degrees(layer), str(layer.attrs.get("name", "layer"))
    else:
        source = os.fspath(layer)
        frame, name = read_layer(source, None), posixpath.basename(source).partition(".")[0]
    return frame[~(frame.geometry.isna() | frame.geometry.is_empty)], name


def _generator(seed: int, name: str) -> np.random.Generator:
    """Return a layer's own generator, so that other layers do not change its points."""
    import numpy as np

    return np.random.default_rng([seed, *name.encode()])


def _region(region: Layer | BBox) -> shapely.Geometry:
    """Return the region as a geometry in longitude and latitude."""
    import shapely

    if not isinstance(region, str | os.PathLike) and hasattr(region, "__len__") and len(region) == 4:
        return box_shape(checked_bbox(region))
    frame, name = _opened(region)
    area = frame.geometry.make_valid().union_all()
    if area.area == 0:
        raise ValueError(f"layer {name!r} has no areas, so it is not a region; pass a layer of areas as region=")
    shapely.prepare(area)
    return area


def _representative_points(frame: geopandas.GeoDataFrame, name: str, area: shapely.Geometry | None) -> geopandas.GeoDataFrame:
    """Return a point of each feature, without points outside of the region."""
    points = frame.geometry.representative_point()
    inside = points.index == points.index if area is None else points.intersects(area)
    return _part(points[inside], frame[inside], name)


def _random_points_on(
    frame: geopandas.GeoDataFrame, name: str, area: shapely.Geometry | None, seed: int, *, lines: bool
) -> geopandas.GeoDataFrame:
    """Return a random point on each line, or in each area, within the region."""
    import geopandas
    import shapely

    valid = ("LineString", "MultiLineString", "LinearRing") if lines else ("Polygon", "MultiPolygon")
    invalid = sorted(set(frame.geom_type) - set(valid))
    if invalid:
        raise ValueError(
            f"layer {name!r} has {', '.join(invalid)}, where {'rivers are lines' if lines else 'lakes are areas'}; "
            "pass it as places=, which accepts all geometries"
        )
    rng = _generator(seed, name)
    shapes = frame.geometry if lines else frame.geometry.make_valid()
    points = []
    for shape in shapes:
        # Spawned also for features outside of the region, so that a river has the same random numbers in every region.
        own_rng = rng.spawn(1)[0]
        kept = _parts_of(shape if area is None else shapely.intersection(shape, area), lines=lines)
        points.append(None if kept.is_empty else _on_line(kept, own_rng) if lines else next(_points_in(kept, 1, own_rng)))
    series = geopandas.GeoSeries(points, index=frame.index, crs=LONLAT)
    inside = ~series.isna()
    return _part(series[inside], frame[inside], name)


def _parts_of(shape: shapely.Geometry, *, lines: bool) -> shapely.Geometry:
    """Return the lines, or the areas, of a shape that may be mixed: a river that touches the region's border adds a point."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shape))
    kept = parts[(shapely.get_dimensions(parts) == (1 if lines else 2)) & ~shapely.is_empty(parts)]
    return shapely.MultiLineString(list(kept)) if lines else shapely.MultiPolygon(list(kept))


def _on_line(line: shapely.Geometry, rng: np.random.Generator) -> shapely.Geometry:
    """Return a random point on a line, uniform by length."""
    import shapely

    # The parts of a line share no ends, so lengths are added from part to part.
    parts = shapely.get_parts(line)
    ends = shapely.length(parts).cumsum()
    distance = rng.uniform(0, ends[-1])
    number = min(int(ends.searchsorted(distance, side="right")), len(parts) - 1)
    return shapely.line_interpolate_point(parts[number], distance - (ends[number - 1] if number else 0))


def _random_points(count: int, area: shapely.Geometry | None, rng: np.random.Generator) -> geopandas.GeoDataFrame:
    import geopandas
    import shapely

    area = shapely.box(*WORLD) if area is None else _parts_of(area, lines=False)
    points = geopandas.GeoSeries(list(_points_in(area, count, rng)), crs=LONLAT)
    return _part(points, geopandas.GeoDataFrame(geometry=points), AT_RANDOM)


def _points_in(area: shapely.Geometry, count: int, rng: np.random.Generator) -> Iterator[shapely.Geometry]:
    """Yield ``count`` random points in an area in longitude and latitude, uniform on the ground."""
    import shapely

    to_map = _equal_area()
    west, south, east, north = shapely.bounds(area)
    (left, right), (bottom, top) = to_map.transform([west, east], [south, north])
    shapely.prepare(area)
    missing, size = count, max(count, AT_ONCE)
    for _ in range(TRIES):
        x, y = rng.uniform(left, right, size), rng.uniform(bottom, top, size)
        points = shapely.points(*to_map.transform(x, y, direction="INVERSE"))
        inside = points[shapely.contains(area, points)][:missing]
        yield from inside
        missing -= len(inside)
        if not missing:
            return
    # The area is a sliver: use a point that certainly lies in it.
    yield from [area.representative_point()] * missing


@lru_cache(maxsize=1)
def _equal_area() -> pyproj.Transformer:
    import pyproj

    return pyproj.Transformer.from_crs(LONLAT, EQUAL_AREA, always_xy=True)


def _part(points: geopandas.GeoSeries, features: geopandas.GeoDataFrame, layer: str) -> geopandas.GeoDataFrame:
    """Return the points with the names of their features."""
    import geopandas
    import pandas as pd

    column = next((column for column in features.columns if str(column).lower() == "name"), None)
    names = pd.Series(None, index=features.index, dtype="object") if column is None else features[column]
    return geopandas.GeoDataFrame({"name": names.to_numpy("object"), "layer": layer}, geometry=points.to_numpy(), crs=LONLAT)
