"""Paint invented land and sky that look like Sentinel-2 images, with NumPy alone. `xchip.testing` writes them to files.

Fields are painted at 10 m. Relief, woods, water, snow, clouds and shadows are painted at 20 m on a `Film`, which covers the
fields at the end: that is four times less work than painting each layer at 10 m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BANDS = ("blue", "green", "red", "nir")
# Reflectance of these bands, as in Sentinel-2 L2A images of such surfaces.
FOREST = (0.022, 0.040, 0.026, 0.26)
SHRUB = (0.052, 0.072, 0.080, 0.20)
CROP = (0.030, 0.068, 0.036, 0.42)
STUBBLE = (0.082, 0.122, 0.152, 0.26)
SOIL = (0.070, 0.094, 0.124, 0.20)
ROCK = (0.108, 0.124, 0.140, 0.19)
TRACK = (0.105, 0.135, 0.155, 0.23)
WATER = (0.036, 0.044, 0.026, 0.012)
SILT = (0.066, 0.088, 0.080, 0.030)
SNOW = (0.70, 0.70, 0.68, 0.62)
CLOUD = (0.62, 0.61, 0.61, 0.64)

SUN = (-0.64, 0.77)
"""(down, right): unit vector towards the sun, at the upper right as on a southern morning."""
SHADOW = (27, 32)
"""(down, left): pixels of 20 m from a cloud to its shadow. A cloud 1 km up under a sun 50 degrees high is 0.85 km away."""


@dataclass(frozen=True)
class Sky:
    """Clouds and nodata, each as a part of the scene from 0 to 1."""

    clouds: float = 0.2
    """Approximate part under cumulus clouds."""
    cirrus: float = 0.06
    """Approximate part under cirrus."""
    nodata: float = 0.08
    """Part beyond the swath's slanted edge."""

    def __post_init__(self) -> None:
        for name in ("clouds", "cirrus", "nodata"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a part of the scene, from 0 to 1, got {getattr(self, name)}")


class Film:
    """Layers that cover the ground: final = ground * gain + glow."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.gain = np.ones(shape, np.float32)
        self.glow = np.zeros((len(BANDS), *shape), np.float32)

    def shine(self, light: np.ndarray) -> None:
        """Brighten or darken all layers so far."""
        self.gain *= light
        self.glow *= light

    def paint(self, colour: tuple[float, ...], alpha: np.ndarray, light: np.ndarray | float = 1.0) -> None:
        """Cover the layers so far with ``colour`` times ``light``, opaque where ``alpha`` is 1."""
        rest = 1 - alpha
        self.gain *= rest
        for band, reflectance in zip(self.glow, colour, strict=True):
            band *= rest
            band += alpha * (light * np.float32(reflectance))


def noise(
    rng: np.random.Generator, shape: tuple[int, int], *, length: float, slope: float, stretch: float = 1.0, angle: float = 0.0
) -> np.ndarray:
    """Return fractal noise with mean 0 and standard deviation 1, float32.

    Its spectrum is flat for waves longer than ``length`` pixels and falls with the power ``slope`` for shorter ones;
    features are ``stretch`` times as long in the direction ``angle`` (radians from the x axis) as across it.
    """
    ky = np.fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    kx = np.fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = kx * cos + ky * sin, ky * cos - kx * sin
    amplitude = ((along * np.float32(stretch)) ** 2 + across**2 + np.float32(length**-2)) ** np.float32(-slope / 2)
    amplitude[0, 0] = 0
    waves = rng.standard_normal((*amplitude.shape, 2), np.float32).view(np.complex64)[..., 0]
    field = np.fft.irfft2(waves * amplitude, s=shape)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def step(field: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 where ``field`` is below ``low``, 1 above ``high``, and a smooth transition between."""
    t = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def level(field: np.ndarray, part: float) -> float:
    """Return the value that ``part`` of the pixels reach; infinite for 0."""
    return float(np.quantile(field, 1 - part)) if part else np.inf


def twice(field: np.ndarray) -> np.ndarray:
    """Return ``field`` on pixels of half the size, interpolated bilinearly."""
    # Two axes without a transposition, which would make later sums of arrays slow.
    quarter = (field[:, 1:] - field[:, :-1]) * np.float32(0.25)
    field = field.repeat(2, 1)
    field[:, 1:-1:2] += quarter
    field[:, 2::2] -= quarter
    quarter = (field[1:] - field[:-1]) * np.float32(0.25)
    field = field.repeat(2, 0)
    field[1:-1:2] += quarter
    field[2::2] -= quarter
    return field


@dataclass(frozen=True)
class Land:
    """Relief and cover of the ground at 20 m; bool arrays except ``film``."""

    film: Film
    water: np.ndarray
    snow: np.ndarray
    shade: np.ndarray
    """Slopes in shadow."""


def paint_land(rng: np.random.Generator, shape: tuple[int, int], *, snow: float) -> Land:
    """Paint mountains on the left, and a plain with a river and lakes on the right."""
    scale = np.float32(1 / 1024)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None] * scale, np.arange(shape[1], dtype=np.float32)[None, :] * scale
    across = x / x[0, -1]
    film = Film(shape)
    broad = noise(rng, shape, length=300, slope=2.6)
    warp = noise(rng, shape, length=120, slope=2.7)
    rough = noise(rng, shape, length=200, slope=2.05)
    upland = step(0.10 * broad + 0.03 * warp - across, -0.46, -0.02)
    relief = upland * (1.2 + 0.55 * (1.2 - np.abs(rough)) + 0.25 * broad)
    down, right = np.gradient(relief)
    light = np.clip(1 + 11 * (SUN[0] * -down + SUN[1] * -right), 0.16, 1.8)

    middle = np.float32(y[-1, 0] * rng.uniform(0.45, 0.75))
    course = np.abs(y - middle + 0.09 * np.sin(4.3 * x + np.float32(rng.uniform(0, 6))) + 0.034 * warp)
    valley = 1 - step(course, 0.012, 0.07)
    film.paint(SHRUB, step(upland + 0.10 * warp, 0.06, 0.2), 1 + 0.16 * rough)
    woods = noise(rng, shape, length=60, slope=1.8) + 1.0 * valley - 0.35 * np.abs(upland - 0.25)
    film.paint(FOREST, step(woods, 1.15, 1.5) * np.float32(0.9), 1 + 0.15 * rough)
    film.paint(ROCK, step(relief + 0.06 * rough, 1.0, 1.7), 1 + 0.12 * rough)
    film.shine(light)
    height = relief + 0.10 * broad
    snowline = level(height, snow)
    white = step(height, snowline - 0.08, snowline + 0.10) if snow else np.zeros(shape, np.float32)
    film.paint(SNOW, white, np.clip(light, 0.42, 1.2))

    lakes = step(-broad - 7 * upland + 0.16 * warp, 1.75, 1.79)
    bank = course * 1024 / (1.6 + 5.0 * across)
    flat = 1 - step(upland, 0.55, 0.7)
    film.paint(TRACK, (1 - step(bank, 1.0, 1.9)) * flat * np.float32(0.6))
    river = (1 - step(bank, 0.8, 1.15)) * flat
    film.paint(SILT, river)
    film.paint(WATER, lakes)
    return Land(film, np.maximum(river, lakes) > 0.5, white > 0.5, light < 0.4)


def paint_fields(rng: np.random.Generator, shape: tuple[int, int], season: float) -> np.ndarray:
    """Paint farmland, reflectance (band, y, x) at 10 m: districts of parcels of one direction and size, some with round fields.

    ``shape`` is at 20 m. Each parcel has a sowing date: over the year (``season`` from 0 to 1) it changes from bare soil to green
    to stubble.
    """
    rows, columns = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    warp = noise(rng, shape, length=90, slope=2.4) * 9
    nearest = np.full(shape, np.inf, np.float32)
    district = np.zeros(shape, np.uint8)
    n = min(256, max(6, round(shape[0] * shape[1] / 1024**2 * 26)))
    for number, (row, column) in enumerate(rng.uniform(0, 1, (n, 2)) * shape):
        distance = np.maximum(np.abs(rows - np.float32(row) + warp), np.abs(columns - np.float32(column) + warp))
        np.copyto(district, number, where=distance < nearest, casting="unsafe")
        np.minimum(nearest, distance, out=nearest)
    district = district.repeat(2, 0).repeat(2, 1)

    angle = rng.choice([0.12, 0.12, 0.34, -0.2], 256) + rng.normal(0, 0.02, 256)
    depths, widths = rng.uniform(55, 110, 256), rng.uniform(22, 48, 256)
    pivot = rng.uniform(size=256) < 0.22
    depths[pivot] = widths[pivot] = 84
    cos, sin, depth, width = (table.astype(np.float32)[district] for table in (np.cos(angle), np.sin(angle), depths, widths))
    rows, columns = np.arange(2 * shape[0], dtype=np.float32)[:, None], np.arange(2 * shape[1], dtype=np.float32)[None, :]
    u, v = (columns * cos + rows * sin) / width, (rows * cos - columns * sin) / depth
    lane = np.floor(u).astype(np.int32)
    u -= lane
    v += np.where(pivot, 0, rng.uniform(0, 1, 256)).astype(np.float32)[district] * (lane & 7)
    block = np.floor(v).astype(np.int32)
    v -= block
    parcel = (lane * 73 + block * 4099 + district * np.int32(1543)) & 1023

    phase = (rng.uniform(0, 1, 1024) + season) % 1
    green = np.clip(np.sin(2 * np.pi * phase) * 1.1 + 0.3, 0, 1)[:, None]
    ripe = np.clip(np.cos(2 * np.pi * phase + 0.6), 0, 1)[:, None]
    soil, stubble, crop = (np.array(colour)[None, :] for colour in (SOIL, STUBBLE, CROP))
    bare = soil + (stubble - soil) * ripe
    palette = (bare + (crop - bare) * green) * rng.normal(1, 0.10, (1024, 1))
    # Two more parcels after the real ones: the land round pivots, and the tracks between fields.
    palette = np.concatenate([palette, [SHRUB], [0.5 * np.array(TRACK) + 0.5 * np.array(SHRUB)]])
    parcel[pivot[district] & ((u - 0.5) ** 2 + (v - 0.5) ** 2 > 0.225)] = 1024
    parcel[(u * width < 1.0) | (v * depth < 1.0)] = 1025
    return np.stack([colours[parcel] for colours in palette.T.astype(np.float32)])


def paint_scene(shape: tuple[int, int], *, place: int, seed: int, season: float, sky: Sky, snow: float) -> dict[str, np.ndarray]:
    """Paint "blue", "green", "red", "nir" (uint16, reflectance x 10,000, 0 = nodata) at 10 m and "scl" (uint8) at 20 m.

    ``shape`` is (height, width) at 10 m, both even. ``place`` decides the land, ``seed`` the sky.
    """
    half = (shape[0] // 2, shape[1] // 2)
    land = paint_land(np.random.default_rng([place, 0]), half, snow=snow)
    fields = paint_fields(np.random.default_rng([place, 1]), half, season)
    rng = np.random.default_rng([place, 2, seed])
    film = land.film

    heaps = noise(rng, half, length=45, slope=2.0) + 1.5 * noise(rng, half, length=300, slope=3.0)
    base = level(heaps, sky.clouds)
    thick = step(heaps, base - 0.15, base + 0.75) if sky.clouds else np.zeros(half, np.float32)
    veil = noise(rng, half, length=120, slope=2.0, stretch=5.0, angle=0.5)
    thin = step(veil, level(veil, sky.cirrus) - 0.3, level(veil, sky.cirrus / 20)) if sky.cirrus else np.zeros(half, np.float32)
    down, left = SHADOW
    shadow = np.zeros(half, np.float32)
    shadow[down:, :-left] = thick[:-down, left:]
    film.shine(1 - np.float32(0.6) * shadow)
    film.paint(CLOUD, np.float32(0.34) * thin)
    if sky.clouds:
        steep_down, steep_right = np.gradient(step(heaps, base - 0.2, base + 3.0))
        tops = 0.72 + 0.34 * step(heaps, base, base + 2.0) - 3.0 * (SUN[0] * steep_down + SUN[1] * steep_right)
        film.paint(CLOUD, thick, np.clip(tops, 0.45, 1.35))

    texture = 1 + 0.035 * noise(rng, shape, length=25, slope=1.2)
    grain = 0.008 * rng.standard_normal(shape, np.float32)
    gain = twice(film.gain)
    digital = {}
    for number, name in enumerate(BANDS):
        band = (fields[number] * gain + twice(film.glow[number])) * (texture + np.roll(grain, 97 * number, 0))
        digital[name] = np.clip(np.rint(band * 10000), 1, 20000).astype(np.uint16)

    near, red = (digital[name][::2, ::2].astype(np.float32) for name in ("nir", "red"))
    scl = np.where(near > 2.2 * red, 4, 5).astype(np.uint8)
    scl[land.shade] = 2
    scl[land.water] = 6
    scl[land.snow] = 11
    scl[shadow > 0.4] = 3
    scl[(thick > 0.04) & (thick <= 0.12)] = 7
    scl[thin > 0.15] = 10
    scl[thick > 0.12] = 8
    scl[thick > 0.5] = 9
    along = np.arange(half[1])[None, :] + 0.23 * np.arange(half[0])[:, None]
    edge = level(along, sky.nodata)
    scl[along >= edge - 2] = 1  # not all detectors see the last pixels of a swath
    scl[along >= edge] = 0
    outside = (scl == 0).repeat(2, 0).repeat(2, 1)
    for band in digital.values():
        band[outside] = 0
    return digital | {"scl": scl}
