"""What is known of each product: its bands, its quality band, and the names that catalogues give them. A sensor is a row of data.

Add one in a few lines, or change a rule, without subclassing.

Examples
--------
>>> from dataclasses import replace
>>> from xchip.quality import CLOUD, NODATA, values
>>> mine = SensorProfile("my-drone", bands=(BandSpec("red", keys=("b1",)), BandSpec("mask")),
...                      quality=(values("mask", {NODATA: [0], CLOUD: [2]}, source="our flight manual"),))
>>> register(mine) is find("my-drone")
True
>>> unregister("my-drone")
>>> strict = replace(find("sentinel-2-l2a"), quality=(values("scl", {NODATA: [0, 1], CLOUD: [7, 8, 9, 10]}),))
"""

from __future__ import annotations

from xchip.sensors.profile import BandSpec, SensorProfile
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
