"""What a raster file says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from xchip.core.grid import PixelGrid, proj_code
from xchip.core.scene import Band, Header, Scene
from xchip.io.gdal import POOL, shown
from xchip.io.storage import StorageOptions

_WAY_OUT = "warp it to a north-up grid first (gdalwarp)"


def read_header(href: str) -> Header:
    """Grid, dtypes, nodata, blocks and masks of the raster at ``href``, sidecar files included. Opens the file.

    Raises
    ------
    OSError
        If the file can't be opened.
    ValueError
        If it has no pixel grid on Earth that xchip can use: no CRS, only ground control points, rotated, or upside down.
        The message names the file and what is missing.
    """
    with POOL.borrowed(href) as dataset:
        absence = _absence(dataset)
        return Header(
            grid=_grid(dataset, shown(href)),
            dtypes=tuple(dataset.dtypes),
            nodata=absence.nodata,
            block=(int(dataset.block_shapes[0][0]), int(dataset.block_shapes[0][1])),
            masked=absence.masked,
            alpha=absence.alpha,
            descriptions=tuple(dataset.descriptions),
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
        )


class Absence(NamedTuple):
    """How a file says where it has no data."""

    nodata: tuple[float | None, ...]
    """Nodata value of each band."""
    masked: bool
    """Whether a mask band goes with the data."""
    alpha: int | None
    """Number (from 1) of the band tagged as alpha."""


def read_absence(href: str) -> Absence:
    """How the raster at ``href`` says where it has no data; it may be without georeferencing. Opens the file.

    Raises
    ------
    OSError
        If the file can't be opened.
    """
    with POOL.borrowed(href) as dataset:
        return _absence(dataset)


def _absence(dataset: Any) -> Absence:
    kinds = [interpretation.name for interpretation in dataset.colorinterp]
    alpha = kinds.index("alpha") + 1 if "alpha" in kinds else None
    masked = any({flag.name for flag in flags} == {"per_dataset"} for flags in dataset.mask_flag_enums)
    return Absence(tuple(dataset.nodatavals), masked and alpha is None, alpha)


def _grid(dataset: Any, name: str) -> PixelGrid:
    import pyproj

    a, b, c, d, e, f = dataset.transform[:6]
    if (a, b, c, d, e, f) == (1, 0, 0, 0, 1, 0):
        points, crs = dataset.gcps
        if points:
            raise ValueError(f"{name} has no pixel grid, only {len(points)} ground control points; {_WAY_OUT}")
        raise ValueError(
            f"{name} has no georeferencing: no transform{'' if dataset.crs else ' and no CRS'}, neither in the file nor in a "
            "sidecar file (.aux.xml, world file); give its item proj:transform, proj:shape and proj:code"
        )
    if not dataset.crs:
        raise ValueError(f"{name} has no CRS, neither in the file nor in a sidecar file; give its item proj:code or proj:wkt2")
    if b or d:
        raise ValueError(f"{name} is rotated (transform {(a, b, c, d, e, f)}); {_WAY_OUT}")
    if a < 0 or e > 0:
        raise ValueError(f"{name} is {'mirrored' if a < 0 else 'south-up'} (pixel size {a} x {e}); {_WAY_OUT}")
    crs = pyproj.CRS.from_wkt(dataset.crs.to_wkt())
    if not (crs.is_geographic or crs.is_projected):
        raise ValueError(f"{name} has a CRS of no known place on Earth ({crs.name!r}); give its item proj:code or proj:wkt2")
    return PixelGrid(proj_code(crs), (a, b, c, d, e, f), (dataset.height, dataset.width))


def signed_scene(scene: Scene, storage: StorageOptions) -> Scene:
    """The scene with signed hrefs, to be read now; the scene itself where nothing signs."""
    if storage.signer is None:
        return scene
    hrefs: dict[str, str] = {}  # bands of one file keep one href

    def with_signature(band: Band) -> Band:
        if band.href not in hrefs:
            hrefs[band.href] = storage.sign(band.href)
        return replace(band, href=hrefs[band.href])

    mask = None if scene.mask is None else with_signature(scene.mask)
    bands, quality = (tuple(map(with_signature, part)) for part in (scene.bands, scene.quality))
    return replace(scene, bands=bands, quality=quality, mask=mask)


def header_reader(storage: StorageOptions) -> Callable[[str], Header]:
    """`read_header` of signed hrefs: what `xchip.stac.scene.understand.understand` takes as ``header``."""
    return read_header if storage.signer is None else lambda href: read_header(storage.sign(href))
