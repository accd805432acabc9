"""Blend the pixels that several chips cover."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from xchip.chips.placement import Placement

Overlap = Literal["mean", "first", "taper"]
Fill: TypeAlias = bool | complex | np.number | np.bool_
"""The value of pixels that no chip covers: a number."""
OVERLAPS: tuple[Overlap, ...] = ("mean", "first", "taper")


def blend_window(overlap: str | ArrayLike) -> str | np.ndarray:
    """Validate ``overlap``: return a word of `OVERLAPS`, or weights (y, x) in float32."""
    if isinstance(overlap, str):
        if overlap not in OVERLAPS:
            raise ValueError(f"overlap must be one of {OVERLAPS} or an array of weights (y, x), got {overlap!r}")
        return overlap
    weights = np.asarray(overlap, np.float32)
    if weights.ndim != 2 or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"weights must be finite, at least 0, and have the dims (y, x) of a chip; got shape {weights.shape}")
    return weights


@dataclass(frozen=True, slots=True)
class Blend:
    """How the pixels of several chips become a single pixel."""

    dtype: np.dtype
    """Data type of the result."""
    working: np.dtype
    """Data type of the computation."""
    fill: np.generic
    """Value of pixels without chips."""
    nodata: float | None
    """Value of pixels of chips that do not count, like NaN."""
    rule: Literal["only", "first", "weighted"]
    """"only": no pixel has several chips."""


def blend_of(
    dtype: np.dtype, placement: Placement, window: str | np.ndarray, *, nodata: float | None, fill: Fill | None, name: str
) -> Blend:
    """Return how chips of ``dtype`` blend by ``window`` (see `blend_window`). Messages name the chips ``name``.

    Raises
    ------
    ValueError
        If pixels without chips have no value, or ``dtype`` can't hold it.
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
                f"the chips of {name!r} leave pixels uncovered, and their value is unknown: {dtype} has no NaN and no nodata "
                "value is declared; pass fill=, such as fill=0"
            )
        fill = 0
    rule: Literal["only", "first", "weighted"] = "only" if not placement.overlapping else "first" if first else "weighted"
    return Blend(dtype, working, _of_dtype(fill, dtype, name), nodata, rule)


def _of_dtype(fill: Fill, dtype: np.dtype, name: str) -> np.generic:
    """Return ``fill`` as a value of ``dtype``. Integers must fit."""
    try:
        value = dtype.type(fill)
        fits = dtype.kind not in "iu" or value == fill
    except (OverflowError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"the fill value {fill!r} of pixels without chips does not fit {dtype}, the data type of {name!r}; pass "
            "another fill=, or convert the chips with .astype"
        )
    return value


def weights_of(blend: Blend, window: str | np.ndarray, size: tuple[int, int], name: str) -> np.ndarray | None:
    """Return the weights (y, x) of a chip's pixels, float32; None if all are equal."""
    if isinstance(window, np.ndarray):
        if window.shape != size:
            raise ValueError(
                f"weights have the shape {window.shape}, but the chips of {name!r} have {size} (y, x); they must be equal"
            )
        return window if blend.rule == "weighted" else None
    if window != "taper" or blend.rule != "weighted":
        return None
    # Raised cosine over the pixels' centres, so that all weights are positive.
    y, x = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in size)
    return (y[:, None] * x).astype(np.float32)


def paint(
    shape: tuple[int, ...], blend: Blend, weights: np.ndarray | None, pieces: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return a raster (..., y, x) from ``pieces``: rows of `Placement.pieces` and their pixels, in the order of the chips."""
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
    """Return (weights with tiny values for zeros, so that these pixels differ from nodata; the smallest weight above zero)."""
    light = np.min(weights, where=weights > 0, initial=np.float32(1))
    return np.where(weights > 0, weights, light * np.float32(2.0**-40)), light


def _add(
    out: np.ndarray,
    total: np.ndarray,
    pixels: np.ndarray,
    weight: np.float32 | np.ndarray,
    light: np.float32 | None,
    blend: Blend,
) -> None:
    """Blend a piece into ``out``, the mean so far, and its weights into ``total``, their sum so far.

    Weights below ``light`` count only where all weights are below ``light``.
    """
    counts = _counts(pixels, blend.nodata)
    blank = total == 0
    if blend.rule == "weighted":
        weight = np.where(counts, weight, np.float32(0))
        if light is not None:
            only_light = total < light
            weight = np.where(only_light | (weight >= light), weight, np.float32(0))
            replaced = only_light & (weight >= light)
            np.copyto(total, 0, where=replaced)
            blank |= replaced
        # The mean moves towards each new value, instead of dividing a sum: where all values agree nothing moves, so that the
        # result is exact, infinities and -0.0 too.
        moves = ~blank & (weight > 0) & (pixels != out)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            np.add(out, (pixels - out) * (weight / (total + weight)), out=out, where=moves)
    np.copyto(out, pixels, where=blank)
    total += weight if blend.rule == "weighted" else counts


def _counts(pixels: np.ndarray, nodata: float | None) -> np.ndarray:
    """Return which pixels hold data: bool, shaped like ``pixels``."""
    counts = np.ones(pixels.shape, bool) if pixels.dtype.kind not in "fc" else ~np.isnan(pixels)
    if nodata is not None and not np.isnan(nodata):
        counts &= pixels != nodata
    return counts
