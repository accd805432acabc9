"""Write synthetic scenes and make synthetic stacks for tests and demonstrations; all pixels are invented."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime as Datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from xchip.testing.landscape import BANDS, Sky, paint_scene

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr
    from numpy.typing import ArrayLike

# (value, name) of the Scene Classification Layer, as in the Sentinel-2 Level-2A product format.
SCL_CLASSES = (
    (0, "no_data"),
    (1, "saturated_or_defective"),
    (2, "dark_area_pixels"),
    (3, "cloud_shadows"),
    (4, "vegetation"),
    (5, "not_vegetated"),
    (6, "water"),
    (7, "unclassified"),
    (8, "cloud_medium_probability"),
    (9, "cloud_high_probability"),
    (10, "thin_cirrus"),
    (11, "snow"),
)
FILES = {"blue": "B02.tif", "green": "B03.tif", "red": "B04.tif", "nir": "B08.tif", "scl": "SCL.tif"}
EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
)


def write_scene(
    folder: str | Path,
    *,
    item_id: str = "synthetic-scene",
    seed: int = 0,
    place: int = 0,
    shape: tuple[int, int] = (2048, 2048),
    datetime: str = "2024-03-11T14:06:36Z",
    crs: str = "EPSG:32719",
    origin: tuple[float, float] = (499980.0, 6400000.0),
    clouds: float = 0.2,
    cirrus: float = 0.06,
    nodata: float = 0.08,
    snow: float = 0.03,
    block: int = 512,
) -> Path:
    """Write a synthetic scene that looks like Sentinel-2 L2A, and its STAC item.

    Cloud-optimised GeoTIFFs (deflate, overviews): blue, green, red and nir, uint16, reflectance x 10,000 at 10 m with
    nodata 0; scl, uint8 at 20 m. The classes of scl agree with the colours, so scl is the known answer. Two scenes of the same
    ``place`` and ``shape`` show the same land under different skies.

    Parameters
    ----------
    folder
        Folder for ``{item_id}/``, with the files, and for ``collection.json``.
    item_id
        The item's id. "synthetic-" is put in front unless the id contains "synthetic".
    seed, place
        Seeds of the sky and of the land. The same arguments give the same pixels.
    shape
        (height, width) in pixels of 10 m, both even and at least 64.
    datetime
        Date of the item, ISO 8601; crops follow the season.
    crs, origin
        CRS, and (x, y) of the upper left corner in it.
    clouds, cirrus, nodata, snow
        Approximate parts of the scene, 0 to 1: under cumulus, under cirrus, beyond the swath's slanted edge, under snow.
    block
        Width and height of the files' blocks, in pixels.

    Returns
    -------
    Path
        The item's JSON (STAC 1.1, relative hrefs).

    Raises
    ------
    ValueError
        If a length of ``shape`` is odd or below 64, or a part is not from 0 to 1.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_scene(folder, item_id="synthetic-1", shape=(256, 256))
    ...     sorted(file.name for file in path.parent.iterdir())
    ['B02.tif', 'B03.tif', 'B04.tif', 'B08.tif', 'SCL.tif', 'synthetic-1.json']
    """
    height, width = shape
    if height % 2 or width % 2 or min(shape) < 64:
        raise ValueError(f"shape must be (height, width) in pixels of 10 m, both even and at least 64, got {shape}")
    if not 0 <= snow <= 1:
        raise ValueError(f"snow must be a part of the scene, from 0 to 1, got {snow}")
    if "synthetic" not in item_id:
        item_id = f"synthetic-{item_id}"
    when = Datetime.fromisoformat(datetime)
    pixels = paint_scene(
        shape,
        place=place,
        seed=seed,
        season=when.timetuple().tm_yday / 366,
        sky=Sky(clouds=clouds, cirrus=cirrus, nodata=nodata),
        snow=snow,
    )

    scene = Path(folder) / item_id
    scene.mkdir(parents=True, exist_ok=True)
    for name, values in pixels.items():
        _write_cog(scene / FILES[name], values, crs=crs, transform=_transform(name, origin), block=block)
    item = _item(item_id, pixels, crs=crs, origin=origin, datetime=datetime)
    path = scene / f"{item_id}.json"
    path.write_text(json.dumps(item, indent=2))
    (scene.parent / "collection.json").write_text(json.dumps(_collection(), indent=2))
    return path


def _transform(band: str, origin: tuple[float, float]) -> tuple[float, ...]:
    resolution = 20.0 if band == "scl" else 10.0
    return (resolution, 0.0, origin[0], 0.0, -resolution, origin[1])


def _write_cog(path: Path, values: np.ndarray, *, crs: str, transform: tuple[float, ...], block: int) -> None:
    import rasterio
    from rasterio.transform import Affine

    is_classes = values.dtype == np.uint8
    with rasterio.open(
        path,
        "w",
        driver="COG",
        count=1,
        height=values.shape[0],
        width=values.shape[1],
        dtype=values.dtype,
        nodata=0,
        crs=crs,
        transform=Affine(*transform),
        compress="DEFLATE",
        level=1 if not is_classes else 6,
        predictor="NO" if is_classes else "STANDARD",
        blocksize=block,
        overview_resampling="NEAREST" if is_classes else "AVERAGE",
        num_threads="ALL_CPUS",
    ) as file:
        file.write(values, 1)


def _item(
    item_id: str, pixels: Mapping[str, np.ndarray], *, crs: str, origin: tuple[float, float], datetime: str
) -> dict[str, Any]:
    from rasterio.warp import transform

    height, width = pixels["red"].shape
    left, top = origin
    right, bottom = left + 10 * width, top - 10 * height
    lon, lat = transform(crs, "EPSG:4326", [left, right, right, left, left], [bottom, bottom, top, top, bottom])
    scl = pixels["scl"]
    valid = int((scl > 0).sum())
    cloudy = int(((scl >= 8) & (scl <= 10)).sum())
    properties: dict[str, Any] = {
        "title": f"Synthetic scene {item_id}",
        "description": "Synthetic: invented pixels in the likeness of Sentinel-2 L2A. No satellite has seen this place.",
        "datetime": datetime,
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": 10,
        "proj:code": crs,
    }
    if valid:
        properties["eo:cloud_cover"] = 100 * cloudy / valid
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": item_id,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [[list(point) for point in zip(lon, lat, strict=True)]]},
        "bbox": [min(lon), min(lat), max(lon), max(lat)],
        "properties": properties,
        "links": [
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
        ],
        "assets": {name: _asset(name, values, origin) for name, values in pixels.items()},
    }


def _asset(name: str, values: np.ndarray, origin: tuple[float, float]) -> dict[str, Any]:
    asset: dict[str, Any] = {
        "href": f"./{FILES[name]}",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data", "reflectance"] if name in BANDS else ["data"],
        "gsd": 10 if name in BANDS else 20,
        "proj:shape": list(values.shape),
        "proj:transform": list(_transform(name, origin)),
    }
    band: dict[str, Any] = {"name": FILES[name].removesuffix(".tif"), "data_type": values.dtype.name, "nodata": 0}
    if name in BANDS:
        asset["title"] = f"Synthetic {name} reflectance"
        asset["bands"] = [band | {"eo:common_name": name, "raster:scale": 0.0001, "raster:offset": 0}]
    else:
        asset["title"] = "Synthetic scene classification"
        asset["bands"] = [band | {"classification:classes": [{"value": value, "name": label} for value, label in SCL_CLASSES]}]
    return asset


def _collection() -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": "sentinel-2-l2a",
        "title": "Synthetic scenes",
        "description": "Synthetic scenes in the likeness of Sentinel-2 L2A, made by xchip.testing.write_scene.",
        "license": "Apache-2.0",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2015-01-01T00:00:00Z", None]]}},
        "links": [],
    }


def synthetic_stack(
    scl: ArrayLike | da.Array | None = None,
    *,
    shape: tuple[int, int] | None = None,
    seed: int = 0,
    resolution: float = 10.0,
    origin: tuple[float, float] = (499980.0, 6400000.0),
    crs: str = "EPSG:32719",
    times: Sequence[str] | None = None,
    item_ids: Sequence[str] | None = None,
    **bands: ArrayLike | da.Array,
) -> xr.Dataset:
    """Return a Dataset like those of `xchip.stack`, in memory: dims (time, y, x), pixel-centre coordinates, a CRS.

    Parameters
    ----------
    scl, **bands
        NumPy or dask arrays of one shape, (y, x) or (time, y, x). They keep their dtype and their chunks.
    shape, seed
        Without arrays: (height, width) and seed of a painted scene with blue, green, red, nir and scl.
    resolution
        Width and height of a pixel.
    origin
        (x, y) of the upper left corner.
    crs
        Anything that pyproj reads.
    times, item_ids
        One value for each time step; by default a day apart, and "synthetic-0", "synthetic-1" ...

    Raises
    ------
    ValueError
        If there is neither a band nor a shape, if there are both, or if the shapes of bands differ.

    Examples
    --------
    >>> ds = synthetic_stack(scl=np.zeros((256, 512), "uint8"), red=np.ones((256, 512), "uint16"))
    >>> dict(ds.sizes)
    {'time': 1, 'y': 256, 'x': 512}
    >>> list(synthetic_stack(shape=(100, 150)))
    ['blue', 'green', 'red', 'nir', 'scl']
    """
    import rioxarray  # noqa: F401  registers .rio
    import xarray as xr

    if scl is not None:
        bands["scl"] = scl
    if (shape is None) == (not bands):
        raise ValueError("pass either arrays (such as scl=) or shape= of a scene to paint")
    if shape is not None:
        bands = {**_painted(shape, seed)}
    arrays: dict[str, Any] = {name: band if hasattr(band, "ndim") else np.asarray(band) for name, band in bands.items()}
    arrays = {name: values[None] if values.ndim == 2 else values for name, values in arrays.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) != 1 or any(len(lengths) != 3 for lengths in shapes.values()):
        raise ValueError(f"bands must be arrays of one shape, (y, x) or (time, y, x), got {shapes}")
    n, height, width = next(iter(shapes.values()))
    when = np.datetime64("2024-03-11T14:06:36", "ns") + np.arange(n) * np.timedelta64(1, "D")
    dataset = xr.Dataset(
        {name: (("time", "y", "x"), values) for name, values in arrays.items()},
        coords={
            "time": when if times is None else np.array(times, "datetime64[ns]"),
            "y": origin[1] - (np.arange(height) + 0.5) * resolution,
            "x": origin[0] + (np.arange(width) + 0.5) * resolution,
            "item_id": ("time", [f"synthetic-{number}" for number in range(n)] if item_ids is None else list(item_ids)),
        },
    )
    if shape is not None:
        for name in dataset.data_vars:
            dataset[name].rio.write_nodata(0, inplace=True)
    return dataset.rio.write_crs(crs)


def _painted(shape: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """A painted scene on one grid: scl repeated to the pixels of the bands."""
    height, width = shape
    even = (max(64, height + height % 2), max(64, width + width % 2))
    pixels = paint_scene(even, place=seed, seed=seed, season=0.2, sky=Sky(), snow=0.03)
    pixels["scl"] = pixels["scl"].repeat(2, 0).repeat(2, 1)
    return {name: values[:height, :width] for name, values in pixels.items()}


@contextmanager
def raise_if_dask_computes() -> Iterator[None]:
    """Return a context in which any dask computation raises AssertionError, for tests that a call is lazy.

    Examples
    --------
    >>> import dask.array as da
    >>> with raise_if_dask_computes():
    ...     lazy = da.ones(3).sum()
    """
    import dask

    def refuse(*args: object, **options: object) -> NoReturn:
        raise AssertionError("dask was asked to compute inside raise_if_dask_computes()")

    with dask.config.set(scheduler=refuse):
        yield
