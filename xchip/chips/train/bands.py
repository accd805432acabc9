"""The bands that models are trained on, their order and their wavelengths."""

from __future__ import annotations

from xchip.chips.chip_table import ChipTable
from xchip.core.quality import QualityRule
from xchip.sensors.clay import CLAY_SENSORS, ClaySensor, clay_of
from xchip.sensors.profile import SensorProfile
from xchip.sensors.registry import band_called, find


def _profile_of(table: ChipTable, sensor: str | None) -> SensorProfile | None:
    """Return the profile of a sensor of a table: the profile passed as ``sensor=``, which need not be registered, comes first."""
    passed = table.reader.items.sensor
    if isinstance(passed, SensorProfile):
        return passed
    return find(sensor) if sensor is not None and sensor in CLAY_SENSORS else None


def clay_sensor_of(table: ChipTable, sensor: str | None) -> ClaySensor | None:
    """Return how Clay takes a sensor of a table; None for an unknown sensor."""
    profile = _profile_of(table, sensor)
    return None if profile is None else clay_of(profile)


def sensors_of(table: ChipTable) -> list[str | None]:
    """Return the name of the profile of each item, in the order of ``table.rows.items``; None where unknown."""
    passed = table.reader.items.sensor
    if passed is not None:
        return [find(passed).name] * len(table.rows.items)
    return [ref.sensor for ref in table.rows.items]


def training_bands(table: ChipTable) -> tuple[str, ...]:
    """Return the bands to train on: the sensor's bands for Clay, in Clay's order, if the first item has them all.

    Otherwise all bands of the table except quality bands.
    """
    scene = table.reader.items.scene(table.rows.items[0])
    quality = {band.name for band in scene.quality} if isinstance(scene.rule, QualityRule) else set()
    names = tuple(band.name for band in table.reader.bands if band.name not in quality)
    clay = clay_sensor_of(table, scene.sensor)
    return clay.bands if clay is not None and clay.bands and set(clay.bands) <= set(names) else names


def wavelengths_of(table: ChipTable) -> dict[str | None, dict[str, float]]:
    """Return the known wavelengths of the table's bands, by sensor and name of the band; units as in `sensors.clay.wavelengths`.

    Only the items know the names of some bands: "nir" of Landsat, for example, is the asset "nir08".
    """
    centres: dict[str | None, dict[str, float]] = {}
    for ref, sensor in zip(table.rows.items, sensors_of(table), strict=True):
        if sensor in centres:
            continue
        centres[sensor] = {}
        profile = _profile_of(table, sensor)
        if profile is None:
            continue
        wavelengths = clay_of(profile).wavelengths
        for band in table.reader.items.scene(ref).bands:
            specs = (band_called(profile, name) for name in (band.name, band.asset))
            names = (band.name, *(spec.name for spec in specs if spec is not None))
            centre = next((wavelengths[name] for name in names if name in wavelengths), None)
            if centre is not None:
                centres[sensor][band.name] = centre
    return centres
