"""Statistics of bands over npz cubes, written by `xchip.prechip` or by stacchip."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np

from xchip.chips.train.stats_values import BandStats, SensorStats
from xchip.core.limits import check_whole
from xchip.core.moments import Moments, moments
from xchip.io.progress import one_step, told
from xchip.io.storage import StorageOptions
from xchip.io.store import Store, reached
from xchip.sensors.clay import CLAY_SENSORS, sensor_of_platform, stored_nodata

STACCHIP_FOLDER = "mode_v1_chipper_v2"
"""Folder of stacchip's bucket that holds the folders of platforms."""
AT_ONCE = 4
"""Default number of cubes in memory; a cube of Clay has 335 MB of pixels."""

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
    """Return mean, standard deviation, minimum and maximum of each band over the cubes of a folder, without nodata pixels.

    A pixel is nodata where it has the nodata value of its band. For products without nodata values (NAIP, LINZ), it is nodata
    where all bands are 0.

    Parameters
    ----------
    folder
        Folder or URL with ``<platform>/cube_<number>.npz``, or with ``mode_v1_chipper_v2/<platform>/cube_<number>.npz`` as in
        stacchip's bucket.
    platform
        Clay's name of the platform, or the name of the sensor; None: all platforms in the folder.
    bands
        Names of the cubes' bands; None: Clay's bands.
    max_cubes
        Maximum number of cubes per platform, the first by number. Chips are shuffled, so these cubes are a sample.
    storage
        How to reach the folder.
    threads
        Cubes to read at the same time, at least 1; default: 4.
    progress
        Whether to show how many cubes are done; or a function to call with (number of cubes done, number of cubes).

    Returns
    -------
    BandStats
        As from `xchip.band_stats`, with one entry per platform.

    Raises
    ------
    FileNotFoundError
        If there are no cubes.
    ValueError
        If a platform is unknown, or a cube has another number of bands.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256), nodata=0)
    ...     index = xchip.index_items(item, size=128).compute()
    ...     report = xchip.prechip(index, f"{folder}/cubes", assets=["red", "nir"], progress=False)
    ...     stats = cube_stats(f"{folder}/cubes", bands=["red", "nir"], progress=False)["sentinel-2-l2a"]
    >>> stats.bands, stats.count, stats.chips
    (('red', 'nir'), (65536, 65536), 4)
    """
    for name, value in (("max_cubes", max_cubes), ("threads", threads)):
        if value is not None:
            check_whole(name, value)
    store = Store(folder, storage or StorageOptions())
    sensor_names = list(CLAY_SENSORS) if platform is None else [sensor_of_platform(platform)]
    with reached(f"read the cubes in {store.path()!r}"):
        cubes = {sensor: names[:max_cubes] for sensor in sensor_names if (names := _cubes(store, sensor))}
    if not cubes:
        places = " or ".join(CLAY_SENSORS[sensor].platform for sensor in sensor_names)
        raise FileNotFoundError(f"no cubes (cube_<number>.npz) in folder {places} of {store.path()!r}")
    total, done, stats = sum(map(len, cubes.values())), 0, []
    at_once = threads or AT_ONCE
    with (
        told(one_step(progress)) as tell,
        ThreadPoolExecutor(at_once, thread_name_prefix="xchip-stats") as pool,
    ):
        for sensor, names in cubes.items():
            band_names = tuple(bands or CLAY_SENSORS[sensor].bands)
            parts, chips = [], 0
            for count, part in _in_order(pool, store, names, sensor, band_names, at_once):
                parts.append(part)
                chips, done = chips + count, done + 1
                tell("cubes read", done, total)
            total_moments = reduce(Moments.merge, parts)
            stats.append(SensorStats.of(sensor, band_names, total_moments, chips, CLAY_SENSORS[sensor].wavelengths))
    return BandStats(tuple(stats))


def _cubes(store: Store, sensor: str) -> list[str]:
    """Return the names of a sensor's cubes, ordered by number."""
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
    """Yield (number of chips, moments) of each cube, with at most ``ahead`` cubes in memory."""
    for start in range(0, len(names), ahead):
        yield from pool.map(lambda name: _moments(store, name, sensor, bands), names[start : start + ahead])


def _moments(store: Store, name: str, sensor: str, bands: tuple[str, ...]) -> tuple[int, Moments]:
    with np.load(io.BytesIO(store.read(name))) as cube:
        pixels = cube["pixels"]
    if pixels.ndim != 4 or pixels.shape[1] != len(bands):
        raise ValueError(
            f"{store.path(name)!r} has pixels of shape {pixels.shape}, not (chip, {len(bands)}, y, x) for the bands "
            f"{', '.join(bands)}; pass the names of its bands as bands= (--assets)"
        )
    values = stored_nodata(sensor, bands)
    empty = (pixels == 0).all(axis=1) if all(value is None for value in values) else None
    packed = np.empty((6, len(bands)))
    for number, value in enumerate(values):  # band by band, to save memory
        band = pixels[:, number]
        valid = ~empty if empty is not None else None if value is None else band != value
        packed[:, number] = moments(band, valid=valid).packed
    return len(pixels), Moments(packed)
