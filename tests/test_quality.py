"""Rules and their tables against the plain definition, and the counting loop against both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xchip.core.counting import code_counter, compile_rule, count_classes
from xchip.quality import (
    CLEAR,
    CLOUD,
    DEFECTIVE,
    NODATA,
    SHADOW,
    SNOW,
    WATER,
    BitField,
    QualityClass,
    QualityRule,
    bits,
    lookup_table,
    values,
)

SCL = values("scl", {NODATA: [0], DEFECTIVE: [1], CLOUD: [8, 9, 10], SHADOW: [3], SNOW: [11], WATER: [6]})
QA_PIXEL = bits("qa_pixel", {NODATA: [0], CLOUD: [1, 2, 3], SHADOW: [4], SNOW: [5], WATER: [7]})
STATE = bits(
    "state",
    {CLOUD: [(0, 2, 1), (0, 2, 2), 10, (8, 2, 3)], SHADOW: [2], SNOW: [12, 15], WATER: [(3, 3, 0), (3, 3, 3)]},
    values={NODATA: [65535]},
)


def plain_class(rule: QualityRule, value: int) -> int:
    """The definition, one value at a time."""
    for cls in QualityClass:
        for owner, conditions in rule.conditions:
            for condition in conditions if owner == cls else ():
                if isinstance(condition, BitField):
                    word = "".join(reversed(f"{value:064b}"))
                    if word[condition.offset : condition.offset + condition.length] == "".join(
                        reversed(f"{condition.value:0{condition.length}b}")
                    ):
                        return cls
                elif value == condition:
                    return cls
    return rule.default


@st.composite
def rules(draw: st.DrawFn, bits_in_word: int) -> QualityRule:
    conditions = []
    for cls in draw(st.lists(st.sampled_from(list(QualityClass)), unique=True, max_size=6)):
        own: list[int | BitField] = []
        for _ in range(draw(st.integers(1, 3))):
            if draw(st.booleans()):
                own.append(draw(st.integers(0, 2**bits_in_word - 1)))
            else:
                offset = draw(st.integers(0, bits_in_word - 1))
                length = draw(st.integers(1, min(3, bits_in_word - offset)))
                own.append(BitField(offset, length, draw(st.integers(0, 2**length - 1))))
        conditions.append((cls, tuple(own)))
    return QualityRule("qa", tuple(conditions), draw(st.sampled_from([CLEAR, NODATA, WATER])))


@given(rules(8))
def test_table_of_8_bits_follows_the_definition(rule: QualityRule) -> None:
    assert lookup_table(rule, np.dtype("uint8")).tolist() == [plain_class(rule, value) for value in range(256)]


@pytest.mark.parametrize("rule", [SCL, QA_PIXEL, STATE], ids=["scl", "qa_pixel", "state"])
def test_table_of_16_bits_follows_the_definition(rule: QualityRule) -> None:
    table = lookup_table(rule, np.dtype("uint16"))
    some = [*range(0, 65536, 37), *range(1024), 65535]
    assert table[some].tolist() == [plain_class(rule, value) for value in some]


@given(st.sampled_from(["u1", "i1", "u2", "i2"]).flatmap(lambda kind: st.tuples(st.just(kind), rules(8))), st.data())
def test_counts_equal_a_loop_for_any_rule_dtype_and_cuts(drawn: tuple[str, QualityRule], data: st.DataObject) -> None:
    dtype, rule = np.dtype(drawn[0]), drawn[1]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    height, width = data.draw(st.integers(1, 600)), data.draw(st.integers(1, 20))
    info = np.iinfo(dtype)
    block = rng.integers(info.min, info.max, (height, width), endpoint=True, dtype=dtype)
    rows, columns = (
        np.unique([0, n, *data.draw(st.lists(st.integers(0, n), max_size=4))]).astype(np.int64) for n in (height, width)
    )
    codes = rule.codes(block)
    for counter, pixels in ((compile_rule(rule, dtype), block), (code_counter(), codes)):
        counts = count_classes(pixels, counter, rows, columns)
        for i in range(len(rows) - 1):
            for j in range(len(columns) - 1):
                cell = codes[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
                assert counts[:, i, j].tolist() == np.bincount(cell.ravel(), minlength=7).tolist()


def test_first_class_that_applies_wins() -> None:
    words = np.array([0b1, 0b11, 0b11000, 0b110000, 0b10110000, 0b10100000, 0b10000000, 0b1000000], "uint16")
    assert QA_PIXEL.codes(words).tolist() == [NODATA, NODATA, CLOUD, SHADOW, SHADOW, SNOW, WATER, CLEAR]


def test_illegal_codes_are_clear_unless_the_rule_says_otherwise() -> None:
    assert SCL.codes(np.array([12, 13, 255], "uint8")).tolist() == [CLEAR] * 3
    strict = values("scl", {CLOUD: [8]}, default=DEFECTIVE)
    assert strict.codes(np.array([8, 12], "uint8")).tolist() == [CLOUD, DEFECTIVE]


def test_words_of_32_bits_are_reduced_to_the_bits_in_use() -> None:
    rule = bits("qc", {CLOUD: [(0, 2, 2)], NODATA: [(0, 2, 3)]})
    words = np.array([0, 1, 2, 3, 0x40000002, 0xFFFFFFFF, 0x80000000], "uint32")
    assert rule.codes(words).tolist() == [CLEAR, CLEAR, CLOUD, NODATA, CLOUD, NODATA, CLEAR]
    high = bits("qc", {CLOUD: [31], SNOW: [(17, 2, 3)]}, values={NODATA: [2**32 - 1]})
    assert high.codes(words).tolist() == [CLEAR, CLEAR, CLEAR, CLEAR, CLEAR, NODATA, CLOUD]


def test_floats_of_a_masked_stack() -> None:
    assert SCL.codes(np.array([np.nan, 0, 8, 8.5, 4], "float64")).tolist() == [NODATA, NODATA, CLOUD, CLEAR, CLEAR]


def test_negative_values_of_signed_bands() -> None:
    rule = values("qa", {NODATA: [-9999], CLOUD: [2]})
    assert rule.codes(np.array([-9999, 2, 0], "int16")).tolist() == [NODATA, CLOUD, CLEAR]
    assert compile_rule(rule, np.dtype("int16")) is not None


@pytest.mark.parametrize("dtype", ["int16", ">i2", "int32", ">i4", "int64"])
def test_signed_words_have_bits_and_numbers(dtype: str) -> None:
    rule = bits("qa", {CLOUD: [1], SNOW: [20], WATER: [15]}, values={NODATA: [-9999]})
    words = np.array([-9999, 0b10, 0b100, -32768], dtype)
    # -32768 has bit 15; bit 20 only where the dtype is that wide.
    assert rule.codes(words).tolist() == [NODATA, CLOUD, CLEAR, WATER if words.itemsize == 2 else SNOW]
    if words.itemsize == 2:
        counts = count_classes(words[None], compile_rule(rule, words.dtype), np.array([0, 1]), np.array([0, 4]))
        assert counts.ravel().tolist() == [1, 0, 1, 0, 0, 1, 1]
    assert STATE.codes(np.array([-1], "int16")).tolist() == [NODATA]  # 65535, in a file whose words are signed


def test_the_highest_bits_of_a_word() -> None:
    rule = bits("qa", {CLOUD: [63], SNOW: [(31, 1, 1)], WATER: [70]})
    assert rule.codes(np.array([2**63, 2**31, 2**62], "uint64")).tolist() == [CLOUD, SNOW, CLEAR]
    assert rule.codes(np.array([-(2**63), 2**31, 2**62], "int64")).tolist() == [CLOUD, SNOW, CLEAR]
    assert rule.codes(np.array([-(2**31), 2**30], "int32")).tolist() == [SNOW, CLEAR]
    assert rule.codes(np.array([255], "uint8")).tolist() == [CLEAR]


def test_codes_of_text_are_refused() -> None:
    with pytest.raises(TypeError, match="'scl' must hold numbers"):
        SCL.codes(np.array(["a"]))


def test_a_field_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="value that fits in length bits"):
        bits("qa", {CLOUD: [(0, 2, 4)]})


@given(rules(16))
def test_rules_survive_text_and_are_values(rule: QualityRule) -> None:
    again = QualityRule.from_json(rule.to_json())
    assert again == rule
    assert hash(again) == hash(rule)
