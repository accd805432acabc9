"""Read the headers of raster files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from xchip.core.grid import PixelGrid, proj_code
from xchip.core.scene import Band, Header, Scene
from xchip.io.gdal import POOL, redacted
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_WAY_OUT = "warp it to a north-up grid first (gdalwarp)"


def read_header(href: str) -> Header:
    """Open the raster at ``href`` and return its grid, dtypes, nodata, blocks and masks, also from sidecar files.

    Raises
    ------
    OSError
        If the file can't be opened.
    ValueError
        If xchip can't use the pixel grid: no CRS, a CRS that is not on Earth, only ground control points, rotated, or upside
        down. The message names the file and what is missing.
    """
    with POOL.borrowed(href) as dataset:
        absence = _absence(dataset)
        return Header(
            grid=_grid(dataset, redacted(href)),
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
    """How a file marks pixels without data."""

    nodata: tuple[float | None, ...]
    """Nodata value of each band."""
    masked: bool
    """Whether the file has a mask band."""
    alpha: int | None
    """Number of the alpha band, from 1."""


def read_absence(href: str) -> Absence:
    """Open the raster at ``href`` and return how it marks pixels without data; it needs no georeferencing.

    Raises
    ------
    OSError
        If the file can't be opened.
    """
    with POOL.borrowed(href) as dataset:
        return _absence(dataset)


def _absence(dataset: DatasetReader) -> Absence:
    kinds = [interpretation.name for interpretation in dataset.colorinterp]
    alpha = kinds.index("alpha") + 1 if "alpha" in kinds else None
    masked = any({flag.name for flag in flags} == {"per_dataset"} for flags in dataset.mask_flag_enums)
    return Absence(tuple(dataset.nodatavals), masked and alpha is None, alpha)


def _grid(dataset: DatasetReader, name: str) -> PixelGrid:
    import pyproj

    transform = a, b, _, d, e, _ = dataset.transform[:6]
    if transform == (1, 0, 0, 0, 1, 0):
        points, _ = dataset.gcps
        if points:
            raise ValueError(f"{name} has no pixel grid, only {len(points)} ground control points; {_WAY_OUT}")
        raise ValueError(
            f"{name} has no georeferencing: no transform{'' if dataset.crs else ' and no CRS'}, neither in the file nor in a "
            "sidecar file (.aux.xml, world file); add proj:transform, proj:shape and proj:code to its item"
        )
    if not dataset.crs:
        raise ValueError(f"{name} has no CRS, neither in the file nor in a sidecar file; add proj:code or proj:wkt2 to its item")
    if b or d:
        raise ValueError(f"{name} is rotated (transform {transform}); {_WAY_OUT}")
    if a < 0 or e > 0:
        raise ValueError(f"{name} is {'mirrored' if a < 0 else 'south-up'} (pixel size {a} x {e}); {_WAY_OUT}")
    crs = pyproj.CRS.from_wkt(dataset.crs.to_wkt())
    if not (crs.is_geographic or crs.is_projected):
        raise ValueError(f"{name} has a CRS with no known place on Earth ({crs.name!r}); add proj:code or proj:wkt2 to its item")
    return PixelGrid(proj_code(crs), transform, (dataset.height, dataset.width))


def signed_scene(scene: Scene, storage: StorageOptions) -> Scene:
    """Return the scene with signed hrefs, to be read now; ``scene`` itself without a signer."""
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
    """Return `read_header` for signed hrefs, the ``header`` of `xchip.stac.scene.understand.understand`."""
    return read_header if storage.signer is None else lambda href: read_header(storage.sign(href))
