"""Plan the variables of a stack and choose chunks that fit the files, before any file is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from xchip.core.arrays import MASK
from xchip.core.grid import Alignment, PixelGrid
from xchip.core.quality import QualityRule
from xchip.core.scene import Band, Scene
from xchip.raster.reader import BandSource, fill_value, holds

Chunks: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""Sizes of the chunks along y and along x."""
Attrs: TypeAlias = dict[str, Any]
"""Attributes of a variable."""

# Pixels per side of a chunk: 8 MB of uint16, and one or two blocks of most published files.
CHUNK_SIDE = 2048


@dataclass(frozen=True)
class Column:
    """A variable of a stack before it is read."""

    name: str
    sources: tuple[BandSource | None, ...]
    """One per item; None if the item lacks the band."""
    dtype: np.dtype
    fill: np.generic
    """A scalar of the dtype, as stackstac requires."""
    resampling: str
    factor: tuple[int, int]
    """Size (y, x) of a band's pixel in pixels of the target, if they are aligned in all items; else (1, 1)."""
    attrs: Attrs

    @property
    def file(self) -> tuple[str | None, ...] | None:
        """The hrefs of files with several bands, the same for all columns in these files; None for files of one band."""
        if not any(source and source.band.count > 1 for source in self.sources):
            return None
        return tuple(source.band.href if source else None for source in self.sources)


def make_column(name: str, scenes: Sequence[Scene], target: PixelGrid, *, resampling: str, rescale: bool) -> Column:
    """Plan the variable ``name`` of a stack of ``scenes`` on ``target``; ValueError if its bands have different nodata values."""
    bands = [next((band for band in _all_bands(scene) if band.name == name), None) for scene in scenes]
    present = [band for band in bands if band is not None]
    quality = any(isinstance(scene.rule, QualityRule) and scene.rule.band == name for scene in scenes)
    mask = all(band.index == 0 for band in present)
    method, physical = ("nearest", False) if quality or mask else (resampling, rescale)
    dtype = np.dtype("float32") if physical else np.result_type(*(band.dtype for band in present))
    nodata = np.nan if physical else _common_nodata(name, scenes, bands)
    sources = tuple(
        None if band is None else BandSource(scene.item_id, band, target, rescale=physical)
        for scene, band in zip(scenes, bands, strict=True)
    )
    relations = [source.alignment(method) for source in sources if source is not None]
    attrs: Attrs = {"long_name": name}
    if nodata is not None and holds(dtype, nodata):
        attrs["_FillValue"] = fill_value(dtype, nodata)
    common = {band.common_name for band in present}
    if len(common) == 1 and present[0].common_name is not None:
        attrs["common_name"] = present[0].common_name
    if len({(band.scale, band.offset) for band in present}) == 1 and not physical:
        attrs["scale"], attrs["offset"] = present[0].scale, present[0].offset
    attrs |= _radiometry(present, physical=physical)
    fill = fill_value(dtype, nodata)
    if mask and (len(present) == len(scenes) or not quality):
        attrs[MASK] = 1
        # Items without a mask are judged by nodata values alone.
        fill = fill if quality else np.uint8(255)
    if None in relations:
        attrs["resampled"] = True
    return Column(name, sources, dtype, fill, method, _common_factor(relations), attrs)


def _all_bands(scene: Scene) -> tuple[Band, ...]:
    return (*scene.bands, *scene.quality, *([scene.mask] if scene.mask is not None else []))


def _radiometry(bands: Sequence[Band], *, physical: bool) -> Attrs:
    """Return the attributes of Sentinel-2 reflectances: the offset of baseline 04.00, and whether it is removed."""
    decisions = [band.boa_offset for band in bands if band.boa_offset is not None]
    attrs: Attrs = {}
    if decisions and len({decision.offset for decision in decisions}) == 1 and decisions[0].offset is not None:
        attrs["boa_offset"] = decisions[0].offset
        attrs["boa_offset_origin"] = "; ".join(dict.fromkeys(decision.origin for decision in decisions))
    if decisions and not physical and all(band.boa_offset and band.dn_offset == band.boa_offset.offset for band in bands):
        attrs["harmonized"] = 1  # netCDF has no booleans
    return attrs


def _common_factor(relations: Sequence[Alignment | None]) -> tuple[int, int]:
    factors = set()
    for relation in relations:
        if relation is None or any(axis.factor < 1 or axis.offset % axis.factor for axis in (relation.y, relation.x)):
            return 1, 1
        factors.add((relation.y.factor, relation.x.factor))
    return factors.pop() if len(factors) == 1 else (1, 1)


def _common_nodata(name: str, scenes: Sequence[Scene], bands: Sequence[Band | None]) -> float | None:
    """Return the nodata value that the bands declare, which also fills bands without one; None if no band declares one."""
    declared = {
        repr(band.nodata): (scene.item_id, band.nodata)
        for scene, band in zip(scenes, bands, strict=True)
        if band is not None and band.nodata is not None
    }
    if len(declared) > 1:
        (item1, nodata1), (item2, nodata2) = list(declared.values())[:2]
        raise ValueError(
            f"band {name!r} has nodata {nodata1} in item {item1!r} and {nodata2} in item {item2!r}; stack them separately, or "
            "pass rescale=True, which makes both NaN"
        )
    return next((value for _, value in declared.values()), None)


def band_names(scenes: Sequence[Scene]) -> list[str]:
    """Return the names of the variables in order of appearance."""
    return list(dict.fromkeys(band.name for scene in scenes for band in scene.bands))


def mask_names(scenes: Sequence[Scene]) -> list[str]:
    """Return the names of the file masks that are read for quality."""
    masks = [band.name for scene in scenes for band in scene.quality if band.index == 0]
    return list(dict.fromkeys(masks + [scene.mask.name for scene in scenes if scene.mask is not None]))


def chunk_sizes(scene: Scene, target: PixelGrid) -> Chunks:
    """Return (rows, columns) of chunks on ``target`` that contain whole blocks of ``scene``'s files, if they share a lattice."""
    offset = scene.grid.offset_of(target)
    block = _block(scene) if offset is not None else None
    block_y, block_x = block or (CHUNK_SIDE, CHUNK_SIDE)
    width = min(block_x * max(1, CHUNK_SIDE // block_x), max(scene.grid.shape[1], block_x))
    rows = min(CHUNK_SIDE, max(1, CHUNK_SIDE**2 // width))
    height = block_y * max(1, rows // block_y)
    row, col = offset or (0, 0)
    return _cut(target.shape[0], height, row), _cut(target.shape[1], width, col)


def _block(scene: Scene) -> tuple[int, int] | None:
    """Return (height, width) of the files' blocks on the scene's grid, if known."""
    if scene.block is not None:
        return scene.block
    return next((band.block for band in scene.bands if band.block is not None and band.grid == scene.grid), None)


def _cut(length: int, size: int, start: int) -> tuple[int, ...]:
    """Return the sizes of chunks that begin at multiples of ``size``, if the first pixel has number ``start``."""
    edges = [0, *range(size - start % size, length, size), length]
    return tuple(stop - begin for begin, stop in pairwise(edges))
