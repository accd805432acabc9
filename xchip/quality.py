"""Quality rules: the classes that values or bit fields of a product's quality band stand for.

Every rule gives one code per pixel, a `QualityClass`. Where several classes apply to a pixel, the lowest code wins.

Examples
--------
>>> import numpy as np
>>> mask = values("mask", {NODATA: [0], CLOUD: [2, 3]}, source="flight manual, table 3")
>>> flags = bits("flags", {CLOUD: [1, 2], WATER: [(4, 2, 0b11)]}, source="bits 1 and 2; bits 4-5 = 11")
>>> mask.codes(np.array([0, 1, 2], "uint8")).tolist(), flags.codes(np.array([0b100, 0b110000], "uint16")).tolist()
([0, 6, 2], [2, 5])
"""

from __future__ import annotations

from xchip.core.quality import (
    CLEAR,
    CLOUD,
    DEFECTIVE,
    N_CLASSES,
    NODATA,
    SHADOW,
    SNOW,
    WATER,
    BitField,
    NodataRule,
    QualityClass,
    QualityRule,
    bits,
    lookup_table,
    values,
)

__all__ = [
    "CLEAR",
    "CLOUD",
    "DEFECTIVE",
    "NODATA",
    "N_CLASSES",
    "SHADOW",
    "SNOW",
    "WATER",
    "BitField",
    "NodataRule",
    "QualityClass",
    "QualityRule",
    "bits",
    "lookup_table",
    "values",
]
