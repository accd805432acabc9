"""What options say of rows and bands, as `xchip.read_index` and `xchip.open_chips` take it."""

from __future__ import annotations

from typing import Any

_SYMBOLS = {"eq": "==", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def names_of(text: str | None) -> list[str] | None:
    """``red,nir`` -> names of bands; None where not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def box_of(text: str | None) -> tuple[float, float, float, float] | None:
    """``W,S,E,N`` -> a bbox; None where not given."""
    from xchip.stac.conditions import checked_bbox

    return None if text is None else checked_bbox(text)


def filters_of(sentences: tuple[str, ...]) -> list[tuple[str, str, Any]] | None:
    """``cloud_fraction<=0.1``, one or several -> filters that must all hold; None without any."""
    from xchip.stac.conditions import comparisons

    return [(one.field, _SYMBOLS[one.operator], one.value) for one in comparisons(sentences)] or None
