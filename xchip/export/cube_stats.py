"""Statistics of bands over npz cubes, those of `xchip.prechip` or of stacchip."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np

from xchip import sensors
from xchip.chips.train.stats_values import BandStats, SensorStats
from xchip.core.limits import check_whole
from xchip.core.moments import Moments, moments
from xchip.io.progress import one_step, told
from xchip.io.storage import StorageOptions
from xchip.io.store import Store, reached
from xchip.sensors.clay import CLAY_SENSORS, sensor_of_platform

STACCHIP_FOLDER = "mode_v1_chipper_v2"
"""Folder of stacchip's bucket with the folders of platforms."""
AT_ONCE = 4
"""Cubes in memory: one of Clay's has 335 MB of pixels."""
SENTINEL_1_NODATA = -32768.0
"""Of terrain-corrected Sentinel-1 as the Planetary Computer publishes it, whose profile declares none: publishers differ."""

_CUBE = re.compile(r"cube_(\d+)\.npz")


def cube_stats(
    folder: str,
    platform: str | None = None,
    bands: Sequence[str] | None = None,
    *,
    max_cubes: int | None = None,
    storage: StorageOptions | None = None,
    threads: int | None = None,
    progress: bool | Callable[[int, int], object] = True,
) -> BandStats:
    """Mean, standard deviation, minimum and maximum of each band over the cubes of a folder, without nodata pixels.

    A pixel is nodata where it has the nodata value of its band; of products that have none (NAIP, LINZ), where all bands are 0.

    Parameters
    ----------
    folder
        Folder or URL with ``<platform>/cube_<number>.npz``, or with that below ``mode_v1_chipper_v2``, where stacchip has it.
    platform
        Clay's name of it, or the sensor's; None: all that are there.
    bands
        Names of the cubes' bands; None: Clay's.
    max_cubes
        Take so many of each platform, the first by number. Chips are shuffled, so these are a sample.
    storage
        How the folder is reached.
    threads
        Cubes that are read at the same time, at least 1; 4 if not given.
    progress
        Whether to show how many cubes are done; or a function that is called with (cubes that are done, all cubes).

    Returns
    -------
    BandStats
        As of `xchip.band_stats`; one entry a platform.

    Raises
    ------
    FileNotFoundError
        If there are no cubes.
    ValueError
        If a platform is not known, or a cube has another number of bands.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256), nodata=0)
    ...     index = xchip.index_items(item, size=128).compute()
    ...     report = xchip.prechip(index, f"{folder}/cubes", assets=["red", "nir"], progress=False)
    ...     found = cube_stats(f"{folder}/cubes", bands=["red", "nir"], progress=False)["sentinel-2-l2a"]
    >>> found.bands, found.count, found.chips
    (('red', 'nir'), (65536, 65536), 4)
    """
    if max_cubes is not None and max_cubes < 1:
        raise ValueError(f"max_cubes is a number of cubes, at least 1, got {max_cubes}")
    if threads is not None:
        check_whole("threads", threads)
    store = Store(folder, storage or StorageOptions())
    wanted = list(CLAY_SENSORS) if platform is None else [sensor_of_platform(platform)]
    with reached(f"read the cubes in {store.path()!r}"):
        cubes = {sensor: names[:max_cubes] for sensor in wanted if (names := _cubes(store, sensor))}
    if not cubes:
        places = " or ".join(CLAY_SENSORS[sensor].platform for sensor in wanted)
        raise FileNotFoundError(f"no cubes (cube_<number>.npz) in folder {places} of {store.path()!r}")
    total, done, found = sum(map(len, cubes.values())), 0, []
    at_once = threads or AT_ONCE
    with (
        told(one_step(progress)) as tell,
        ThreadPoolExecutor(at_once, thread_name_prefix="xchip-stats") as pool,
    ):
        for sensor, names in cubes.items():
            known = tuple(bands or CLAY_SENSORS[sensor].bands)
            parts, chips = [], 0
            for count, part in _in_order(pool, store, names, sensor, known, at_once):
                parts.append(part)
                chips, done = chips + count, done + 1
                tell("cubes read", done, total)
            whole = reduce(Moments.merge, parts)
            found.append(SensorStats.of(sensor, known, whole, chips, CLAY_SENSORS[sensor].wavelengths))
    return BandStats(tuple(found))


def _cubes(store: Store, sensor: str) -> list[str]:
    """Names of a sensor's cubes, by number."""
    platform = CLAY_SENSORS[sensor].platform
    for folder in (platform, f"{STACCHIP_FOLDER}/{platform}"):
        names = [entry.name for entry in store.entries(folder)]
        numbers = {name: int(match[1]) for name in names if (match := _CUBE.fullmatch(name.removeprefix(f"{folder}/")))}
        if numbers:
            return sorted(numbers, key=numbers.__getitem__)
    return []


def _in_order(
    pool: ThreadPoolExecutor, store: Store, names: Sequence[str], sensor: str, bands: tuple[str, ...], ahead: int
) -> Iterator[tuple[int, Moments]]:
    """(chips, moments) of each cube; no more cubes are in memory than are read at the same time."""
    for start in range(0, len(names), ahead):
        yield from pool.map(lambda name: _moments(store, name, sensor, bands), names[start : start + ahead])


def _moments(store: Store, name: str, sensor: str, bands: tuple[str, ...]) -> tuple[int, Moments]:
    with np.load(io.BytesIO(store.read(name))) as cube:
        pixels = cube["pixels"]
    if pixels.ndim != 4 or pixels.shape[1] != len(bands):
        raise ValueError(
            f"{store.path(name)!r} has pixels of shape {pixels.shape}, not (chip, {len(bands)}, y, x) for the bands "
            f"{', '.join(bands)}; name its bands with assets="
        )
    values = nodata_of(sensor, bands)
    empty = (pixels == 0).all(axis=1) if all(value is None for value in values) else None
    packed = np.empty((6, len(bands)))
    for number, value in enumerate(values):  # one band after the other: so less memory is needed
        band = pixels[:, number]
        valid = ~empty if empty is not None else None if value is None else band != value
        packed[:, number] = moments(band, valid=valid).packed
    return len(pixels), Moments(packed)


def nodata_of(sensor: str, bands: Sequence[str]) -> tuple[float | None, ...]:
    """The nodata value of each band as stored; None where the product declares none.

    Examples
    --------
    >>> nodata_of("sentinel-1-rtc", ["vv"]), nodata_of("modis-09a1", ["red"]), nodata_of("naip", ["red"])
    ((-32768.0,), (-28672,), (None,))
    """
    if sensor == "sentinel-1-rtc":
        return (SENTINEL_1_NODATA,) * len(bands)
    profile = sensors.find(sensor)
    specs = (sensors.band_called(profile, band, None) for band in bands)
    return tuple(None if spec is None else spec.nodata for spec in specs)
