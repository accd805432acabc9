"""Sensors: the bands of each product, its quality band, and the names that catalogues use. A sensor is a row of data.

Add a sensor in a few lines, or replace a rule, without subclassing. Indexes, stacks, exports, training samples and processors
then know the sensor.

Examples
--------
>>> from dataclasses import replace
>>> from xchip.quality import CLOUD, NODATA, values
>>> mine = SensorProfile("my-drone", bands=(BandSpec("red", keys=("b1",), wavelength=0.65), BandSpec("mask")),
...                      quality=(values("mask", {NODATA: [0], CLOUD: [2]}, source="our flight manual"),))
>>> register(mine) is find("my-drone")
True
>>> unregister("my-drone")
>>> strict = replace(find("sentinel-2-l2a"), quality=(values("scl", {NODATA: [0, 1], CLOUD: [7, 8, 9, 10]}),))
"""

from __future__ import annotations

from xchip.sensors.profile import BandSpec, ClaySensor, SensorProfile
from xchip.sensors.registry import (
    AssetNames,
    band_called,
    find,
    match,
    names,
    recognise,
    register,
    renamed,
    rule_by_name,
    rule_for_band,
    unregister,
)

__all__ = [
    "AssetNames",
    "BandSpec",
    "ClaySensor",
    "SensorProfile",
    "band_called",
    "find",
    "match",
    "names",
    "recognise",
    "register",
    "renamed",
    "rule_by_name",
    "rule_for_band",
    "unregister",
]
