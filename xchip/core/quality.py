"""Quality classes of pixels, and the rules that map the values of a quality band to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np


class QualityClass(IntEnum):
    """Class of a pixel. If several classes apply, the lowest number wins.

    Examples
    --------
    >>> [f"{cls.name} {cls.value}" for cls in QualityClass][:4]
    ['NODATA 0', 'DEFECTIVE 1', 'CLOUD 2', 'SHADOW 3']
    """

    NODATA = 0
    DEFECTIVE = 1
    CLOUD = 2
    SHADOW = 3
    SNOW = 4
    WATER = 5
    CLEAR = 6


NODATA, DEFECTIVE, CLOUD, SHADOW, SNOW, WATER, CLEAR = QualityClass
N_CLASSES = len(QualityClass)


@dataclass(frozen=True, slots=True)
class BitField:
    """A condition on a QA word: the ``length`` bits from ``offset`` on (0 = lowest) hold ``value``."""

    offset: int
    """Lowest bit of the field, counted from the right, from 0."""
    length: int
    """Number of bits of the field."""
    value: int
    """The required value of the field."""

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 1 or not 0 <= self.value < 1 << self.length:
            raise ValueError(f"a bit field needs offset >= 0, length >= 1 and a value that fits in length bits, got {self}")

    @property
    def mask(self) -> int:
        """The field's bits in the word."""
        return ((1 << self.length) - 1) << self.offset

    @property
    def word(self) -> int:
        """The value, shifted to its place in the word."""
        return self.value << self.offset


_WORD = 2**64 - 1
"""All bits of the widest word that a pixel can hold."""

Condition = int | BitField
"""A value of the band, or one of its bit fields."""


@dataclass(frozen=True, slots=True)
class QualityRule:
    """How the values of a quality band map to `QualityClass`.

    Build a rule with `values` or `bits`. A pixel gets the first class, in the order of `QualityClass`, that has a matching
    condition. A pixel without a match gets ``default``; illegal codes do too.
    """

    band: str
    """Name of the quality band: a variable of the stack."""
    conditions: tuple[tuple[QualityClass, tuple[Condition, ...]], ...]
    """(class, its conditions), in the order of `QualityClass`."""
    default: QualityClass = CLEAR
    """Class of a pixel that matches no condition."""
    source: str = ""
    """Origin of the table: product guide and table."""
    ignored: tuple[str, ...] = ()
    """Names of published classes without a mapping, which count as CLEAR."""

    def __post_init__(self) -> None:
        ordered = tuple(sorted((QualityClass(cls), tuple(conditions)) for cls, conditions in self.conditions))
        object.__setattr__(self, "conditions", ordered)

    @property
    def mask(self) -> int:
        """All bits of the rule's bit fields."""
        word = 0
        for condition in self._all():
            if isinstance(condition, BitField):
                word |= condition.mask
        return word

    @property
    def has_values(self) -> bool:
        """Whether any condition is on the whole value."""
        return any(not isinstance(condition, BitField) for condition in self._all())

    def _all(self) -> Iterable[Condition]:
        return (condition for _, conditions in self.conditions for condition in conditions)

    def classify(self, words: np.ndarray) -> np.ndarray:
        """Return the class of each of ``words`` (integers), uint8, by the definition. Slow: `lookup_table` is made with it."""
        words = np.asarray(words)
        bits = unsigned(words).astype(np.uint64)
        codes = np.full(words.shape, self.default, np.uint8)
        for cls, conditions in reversed(self.conditions):
            for condition in conditions:
                if not isinstance(condition, BitField):
                    # In a signed dtype, a number such as 65535 stands for its bits.
                    codes[(words == condition) | (bits == condition)] = cls
                elif condition.word <= _WORD:  # else no pixel can have these bits
                    codes[(bits & np.uint64(condition.mask & _WORD)) == np.uint64(condition.word)] = cls
        return codes

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Return the class of each pixel: uint8, shaped like ``values``.

        ``values`` may have any integer dtype, bool, or float (as a stack with NaN for nodata): NaN is NODATA, and a fraction,
        which is not a code of the band, gets ``default``.

        Examples
        --------
        >>> scl = values("scl", {NODATA: [0], CLOUD: [8, 9, 10]})
        >>> scl.codes(np.array([[0, 4], [9, 12]], "uint8"))
        array([[0, 6],
               [2, 6]], dtype=uint8)
        """
        values = np.asarray(values)
        if values.dtype.kind == "f":
            return self._codes_of_floats(values)
        if values.dtype.kind not in "iub":
            raise TypeError(f"quality band {self.band!r} must hold numbers, got dtype {values.dtype}")
        if values.dtype.itemsize <= 2:
            return lookup_table(self, values.dtype)[unsigned(values).astype(np.intp, copy=False)]
        if self.has_values:
            return self.classify(values)
        # Words of 32 bits: only the bits in use count, and if they are the lower 16, a table is enough.
        used = self.mask
        if used >> 16 == 0:
            return lookup_table(self, np.dtype("uint16"))[(values & used).astype(np.intp)]
        return self.classify(values)

    def _codes_of_floats(self, values: np.ndarray) -> np.ndarray:
        missing = np.isnan(values)
        whole = ~missing & (values == np.floor(values)) & (np.abs(values) < 2**32)
        codes = np.full(values.shape, self.default, np.uint8)
        codes[whole] = self.classify(values[whole].astype(np.int64))
        codes[missing] = NODATA
        return codes

    def to_json(self) -> str:
        """Return the rule as text, which `from_json` reads."""
        return json.dumps(
            {
                "band": self.band,
                "conditions": [
                    [
                        int(cls),
                        [[c.offset, c.length, c.value] if isinstance(c, BitField) else c for c in conditions],
                    ]
                    for cls, conditions in self.conditions
                ],
                "default": int(self.default),
                "source": self.source,
                "ignored": list(self.ignored),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> QualityRule:
        """Return the rule from the text that `to_json` returns."""
        fields = json.loads(text)
        return cls(
            fields["band"],
            tuple(
                (QualityClass(code), tuple(BitField(*c) if isinstance(c, list) else c for c in conditions))
                for code, conditions in fields["conditions"]
            ),
            QualityClass(fields["default"]),
            fields["source"],
            tuple(fields["ignored"]),
        )


def unsigned(values: np.ndarray) -> np.ndarray:
    """Return the bits of integers or bools as unsigned numbers: a view, in which -1 of an int16 is 65535."""
    return values.view(f"{values.dtype.byteorder}u{values.itemsize}")


@dataclass(frozen=True, slots=True)
class NodataRule:
    """Rule of a product without a quality band: NODATA where *all* its data bands are nodata, else CLEAR.

    A band's pixel is nodata where it equals the band's nodata value, is NaN, or its mask band is 0.
    """

    bands: tuple[str, ...]
    """Names of the data bands."""
    source: str = ""
    """Reason why the product has no quality band."""


@lru_cache(maxsize=64)
def lookup_table(rule: QualityRule, dtype: np.dtype) -> np.ndarray:
    """Return the class of every value of an 8 or 16 bit ``dtype``: uint8 (256,) or (65536,), indexed by the unsigned bits."""
    bits = 8 * dtype.itemsize
    words = np.arange(1 << bits, dtype=f"u{dtype.itemsize}")
    table = rule.classify(words.view(f"i{dtype.itemsize}") if dtype.kind == "i" else words)
    table.flags.writeable = False
    return table


def values(
    band: str,
    classes: Mapping[QualityClass, Iterable[int]],
    *,
    default: QualityClass = CLEAR,
    source: str = "",
    ignored: Sequence[str] = (),
) -> QualityRule:
    """Return a rule from the values of a band of classes.

    Examples
    --------
    >>> rule = values("probability", {CLOUD: range(40, 256)}, source="cloud probability of 40 % and more")
    >>> rule.codes(np.array([12, 40], "uint8"))
    array([6, 2], dtype=uint8)
    """
    return QualityRule(
        band, tuple((cls, tuple(int(v) for v in vs)) for cls, vs in classes.items()), default, source, tuple(ignored)
    )


def bits(
    band: str,
    classes: Mapping[QualityClass, Iterable[int | tuple[int, int, int] | BitField]],
    *,
    values: Mapping[QualityClass, Iterable[int]] | None = None,
    default: QualityClass = CLEAR,
    source: str = "",
    ignored: Sequence[str] = (),
) -> QualityRule:
    """Return a rule from the bits of a QA word: a bit number (the bit is set), or (offset, length, value) of a field.

    ``values`` adds conditions on the whole word, such as a fill value.

    Examples
    --------
    >>> rule = bits("qa_pixel", {NODATA: [0], CLOUD: [1, 2, 3], WATER: [7]}, source="Landsat C2 product guide")
    >>> rule.codes(np.array([1, 0b1010, 0b10000000], "uint16"))
    array([0, 2, 5], dtype=uint8)
    """
    conditions: dict[QualityClass, list[Condition]] = {}
    for cls, fields in classes.items():
        conditions[cls] = [_bit_field(field) for field in fields]
    for cls, numbers in (values or {}).items():
        conditions.setdefault(cls, []).extend(int(number) for number in numbers)
    return QualityRule(band, tuple((cls, tuple(c)) for cls, c in conditions.items()), default, source, tuple(ignored))


def _bit_field(field: int | tuple[int, int, int] | BitField) -> BitField:
    if isinstance(field, BitField):
        return field
    if isinstance(field, int):
        return BitField(field, 1, 1)
    return BitField(*field)
