"""Which bands of a product models are trained on, in which order, and what is known of each."""

from __future__ import annotations

from xchip.chips.chip_table import ChipTable
from xchip.core.quality import QualityRule
from xchip.sensors.clay import CLAY_SENSORS
from xchip.sensors.registry import band_called, find


def sensors_of(table: ChipTable) -> list[str | None]:
    """Name of the profile of each of the table's items, in the order of ``table.rows.items``; None: unknown."""
    given = table.reader.items.sensor
    if given is not None:
        return [find(given).name] * len(table.rows.items)
    return [ref.sensor for ref in table.rows.items]


def training_bands(table: ChipTable) -> tuple[str, ...]:
    """The bands that a model is trained on: those that Clay takes, in its order, where the first item has them all.

    Else all bands of the table but those that tell the quality.
    """
    scene = table.reader.items.scene(table.rows.items[0])
    quality = {band.name for band in scene.quality} if isinstance(scene.rule, QualityRule) else set()
    names = tuple(band.name for band in table.reader.bands if band.name not in quality)
    clay = CLAY_SENSORS.get(scene.sensor or "")
    return clay.bands if clay is not None and set(clay.bands) <= set(names) else names


def wavelengths_of(table: ChipTable) -> dict[str | None, dict[str, float]]:
    """Centre of the table's bands, by sensor and by the band's name in the table, where known; units as in `sample.wavelengths`.

    A band may go by a name that only the items know: "nir" of Landsat, say, is the asset "nir08".
    """
    found: dict[str | None, dict[str, float]] = {}
    for ref, sensor in zip(table.rows.items, sensors_of(table), strict=True):
        if sensor in found:
            continue
        found[sensor] = {}
        clay = CLAY_SENSORS.get(sensor or "")
        if clay is None or sensor is None:
            continue
        for band in table.reader.items.scene(ref).bands:
            specs = (band_called(find(sensor), name) for name in (band.name, band.asset))
            names = (band.name, *(spec.name for spec in specs if spec is not None))
            centre = next((clay.wavelengths[name] for name in names if name in clay.wavelengths), None)
            if centre is not None:
                found[sensor][band.name] = centre
    return found
