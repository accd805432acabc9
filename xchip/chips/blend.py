"""What becomes of pixels that several chips have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xchip.chips.placement import Placement

Overlap = Literal["mean", "first", "taper"]
OVERLAPS: tuple[Overlap, ...] = ("mean", "first", "taper")


def blend_window(overlap: Any) -> str | np.ndarray:
    """``overlap`` as a word, or as weights (y, x) in float32."""
    if isinstance(overlap, str):
        if overlap not in OVERLAPS:
            raise ValueError(f"overlap must be one of {OVERLAPS} or weights (y, x), got {overlap!r}")
        return overlap
    weights = np.asarray(overlap, np.float32)
    if weights.ndim != 2 or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"weights must be finite, from 0 up, and have the dims (y, x) of a chip; got shape {weights.shape}")
    return weights


@dataclass(frozen=True, slots=True)
class Blend:
    """How pixels of several chips become one."""

    dtype: np.dtype
    """What the result has."""
    working: np.dtype
    """What it is computed in."""
    fill: Any
    """Value of pixels without chips."""
    nodata: float | None
    """Value of chips' pixels that count for nothing, beside NaN."""
    rule: Literal["only", "first", "weighted"]
    """"only": no pixel has several chips."""


def blend_of(
    dtype: np.dtype, placement: Placement, window: str | np.ndarray, *, nodata: float | None, fill: Any, name: str
) -> Blend:
    """How chips of ``dtype`` blend by ``window`` (see `blend_window`).

    Raises
    ------
    ValueError
        If nothing says what pixels hold that no chip covers, or ``dtype`` does not hold it. ``name`` says whose they are.
    """
    first = isinstance(window, str) and window == "first"
    working = dtype
    if placement.overlapping and not first:
        working = np.result_type(dtype, np.float32)
        dtype = dtype if dtype.kind in "fc" else working
    if fill is None and nodata is not None:
        fill = nodata
    elif fill is None and dtype.kind in "fc":
        fill = np.nan
    elif fill is None:
        if not placement.covers():
            raise ValueError(
                f"the chips of {name!r} leave pixels uncovered, and nothing says what those hold: {dtype} has no NaN and no "
                "nodata value is declared; pass fill=, such as fill=0"
            )
        fill = 0
    rule: Any = "only" if not placement.overlapping else "first" if first else "weighted"
    return Blend(dtype, working, _of_dtype(fill, dtype, name), nodata, rule)


def _of_dtype(fill: Any, dtype: np.dtype, name: str) -> Any:
    """``fill`` as a value of ``dtype``; integers are not cut to what fits."""
    try:
        value = dtype.type(fill)
        fits = dtype.kind not in "iu" or value == fill
    except (OverflowError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"pixels without chips would be {fill!r}, and the chips of {name!r} give {dtype}, which does not hold it; pass "
            "another fill=, or convert the chips with .astype"
        )
    return value


def weights_of(blend: Blend, window: str | np.ndarray, size: tuple[int, int], name: str) -> np.ndarray | None:
    """Weights (y, x) of a chip's pixels, float32; None: all the same."""
    if isinstance(window, np.ndarray):
        if window.shape != size:
            raise ValueError(f"weights have the shape {window.shape}, the chips of {name!r} have {size} (y, x)")
        return window if blend.rule == "weighted" else None
    if window != "taper" or blend.rule != "weighted":
        return None
    # Raised cosine over the pixels' centres, so that none is zero.
    y, x = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in size)
    return (y[:, None] * x).astype(np.float32)


def paint(
    shape: tuple[int, ...], blend: Blend, weights: np.ndarray | None, pieces: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """A raster (..., y, x) from ``pieces`` of chips: rows of `Placement.pieces` and their pixels, the first chip first."""
    out = np.full(shape, blend.fill, blend.working)
    total = None if blend.rule == "only" else np.zeros(shape, np.result_type(blend.working, np.float32).type(0).real.dtype)
    light = None
    if weights is not None and not weights.all():
        weights, light = _without_zeros(weights)
    for row, pixels in pieces:
        y, x, to_y, to_x, height, width = row[2:8].tolist()
        target = (..., slice(to_y, to_y + height), slice(to_x, to_x + width))
        if total is None:
            out[target] = pixels
            continue
        weight = np.float32(1) if weights is None else weights[y : y + height, x : x + width]
        _add(out[target], total[target], pixels.astype(blend.working, copy=False), weight, light, blend)
    return out.astype(blend.dtype, copy=False)


def _without_zeros(weights: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """(weights whose zeros are next to nothing, so that these pixels are still told from nodata; the least true weight)."""
    light = np.min(weights, where=weights > 0, initial=np.float32(1))
    return np.where(weights > 0, weights, light * np.float32(2.0**-40)), light


def _add(out: np.ndarray, total: np.ndarray, pixels: np.ndarray, weight: Any, light: np.float32 | None, blend: Blend) -> None:
    """Blend one piece into ``out``, the mean so far, whose weights sum to ``total``. Both are changed.

    Weights below ``light`` count only where there are no others.
    """
    counts = _counts(pixels, blend.nodata)
    blank = total == 0
    if blend.rule == "weighted":
        weight = np.where(counts, weight, np.float32(0))
        if light is not None:
            none = total < light
            weight = np.where(none | (weight >= light), weight, np.float32(0))
            replaced = none & (weight >= light)
            np.copyto(total, 0, where=replaced)
            blank |= replaced
        # A mean that moves towards each new value, instead of a sum that is divided: where all values agree nothing moves,
        # so that they come out bit for bit, infinities and -0.0 too.
        moves = ~blank & (weight > 0) & (pixels != out)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            np.add(out, (pixels - out) * (weight / (total + weight)), out=out, where=moves)
    np.copyto(out, pixels, where=blank)
    total += weight if blend.rule == "weighted" else counts


def _counts(pixels: np.ndarray, nodata: float | None) -> Any:
    """Where pixels hold data: bool, shaped like ``pixels``."""
    counts = np.ones(pixels.shape, bool) if pixels.dtype.kind not in "fc" else ~np.isnan(pixels)
    if nodata is not None and not np.isnan(nodata):
        counts &= pixels != nodata
    return counts
