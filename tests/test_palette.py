"""Which colours a column has."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from xchip.plots.palette import COLOURS, OTHERS, SPLITS, categories_of, is_category, numbers_of


def test_splits_keep_order_and_colours() -> None:
    found = categories_of(pd.Series(["test", "train", "val", "test", "extra"]))
    assert found.names == ["train", "val", "test", "extra"]
    assert found.colours[:3] == [SPLITS["train"], SPLITS["val"], SPLITS["test"]]
    assert found.colours[3] not in found.colours[:3]
    assert found.codes.tolist() == [2, 0, 1, 2, 3]


def test_ten_categories_have_ten_colours() -> None:
    found = categories_of(pd.Series(list("jihgfedcba")))
    assert found.names == list("abcdefghij")
    assert len(set(found.colours)) == 10


def test_of_more_the_most_frequent_are_kept() -> None:
    column = pd.Series(list("abcdefghijklm") * 2 + ["m"] * 3 + ["k"])
    found = categories_of(column)
    assert found.names[-1] == "4 others"
    assert found.colours[-1] == OTHERS
    assert len(found.names) == len(COLOURS)
    assert {"m", "k"} < set(found.names)
    others = {letter for letter, code in zip(column, found.codes, strict=True) if code == len(COLOURS) - 1}
    assert others == set("abcdefghijklm") - set(found.names)


def test_missing_values_have_no_code() -> None:
    for dtype in (object, "category", "string[pyarrow]"):
        found = categories_of(pd.Series(["a", None, "b", None], dtype=dtype))
        assert (found.names, found.codes.tolist()) == (["a", "b"], [0, -1, 1, -1])
    assert categories_of(pd.Series([None, None], dtype=object)).names == []


@pytest.mark.parametrize(
    ("values", "dtype", "category"),
    [
        ([1, 2], "int32", False),
        ([1, None], "Int64", False),
        ([1.5, np.nan], "float32", False),
        ([1.5, None], "double[pyarrow]", False),
        ([True, False], "bool", True),
        ([True, None], "boolean", True),
        (["a", None], "object", True),
        (["a", None], "category", True),
        (["2024-01-01", None], "datetime64[ns]", False),
        (["2024-01-01", None], "datetime64[us, UTC]", False),
    ],
)
def test_kinds_of_columns(values: list[object], dtype: str, category: bool) -> None:
    column = pd.Series(values).astype(dtype)
    assert is_category(column) == category
    if not category:
        numbers = numbers_of(column)
        assert numbers.dtype == np.float64
        assert np.isnan(numbers).tolist() == pd.Series(values).isna().tolist()


def test_dates_are_days() -> None:
    column = pd.Series(pd.to_datetime(["2024-03-11T12:00:00+02:00", "1969-12-31T00:00:00+00:00"], utc=True))
    assert numbers_of(column).tolist() == [19793 + 10 / 24, -1.0]


def test_infinite_numbers_have_no_colour() -> None:
    assert np.isnan(numbers_of(pd.Series([np.inf, -np.inf]))).all()
