"""Find the assets of an item that are rasters readable by GDAL, and the data assets among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from xchip.core.types import JSON
from xchip.sensors.registry import plain_key
from xchip.stac.fields import BandFields, band_fields, mapping, text, words
from xchip.stac.inputs import resolve
from xchip.stac.scene.classification import QUALITY_ROLES

_MEDIA_TYPE = re.compile(r"^(image/(vnd\.stac\.geotiff|(x-)?(geo)?tiff|x\.geotiff|jp2|jpx|j2k|nitf)|application/(x-)?geotiff)\b")
_NO_RASTER_TYPE = re.compile(r"^(image/(?!tiff)|text/|video/|application/(?!octet-stream))")
_EXTENSIONS = (".tif", ".tiff", ".jp2", ".j2k", ".vrt", ".img", ".ntf", ".nitf", ".cog")
_HIDDEN_ROLES = frozenset({"thumbnail", "overview", "visual", "preview"})
_HIDDEN_KEYS = _HIDDEN_ROLES | {"rendered_preview", "tilejson", "browse", "tci", "quicklook"}
_NO_DATA_ROLES = QUALITY_ROLES | {"mask", "saturation"}
_COPY = re.compile(r"([_-](jp2|cog|tiff?|wm|\d+(\.\d+)?k?m))+$")
_SIZE = re.compile(r"[_-](\d+(?:\.\d+)?)(k?)m\b")


@dataclass(frozen=True, slots=True)
class Raster:
    """An asset that is a raster."""

    key: str
    """Its key in the item."""
    href: str
    """The href that GDAL opens."""
    href_origin: str
    """Why this href was chosen, if the asset has several."""
    fields: JSON
    """Its JSON."""
    roles: tuple[str, ...]
    """Its roles, lower case."""
    bands: tuple[BandFields, ...]
    """Published metadata of its bands; empty if there is none."""

    @property
    def is_data(self) -> bool:
        """Whether it holds measurements, not a mask, a quality band or metadata."""
        if not _NO_DATA_ROLES.isdisjoint(self.roles):
            return False
        return "data" in self.roles or "metadata" not in self.roles


def raster_assets(item: JSON, href: str | None) -> list[Raster]:
    """Return the raster assets of ``item``, in its order. Relative hrefs are resolved against ``href``, the item's JSON."""
    properties = mapping(item.get("properties"))
    rasters = []
    for key, asset in mapping(item.get("assets")).items():
        if not isinstance(asset, dict):
            continue
        chosen, origin = _href(asset, properties)
        if chosen is None or not _is_raster(asset.get("type"), chosen):
            continue
        roles = words(asset.get("roles")) or words(asset.get("role"))
        rasters.append(Raster(str(key), resolve(chosen, href), origin, asset, roles, band_fields(asset, properties, str(key))))
    return rasters


@lru_cache(maxsize=4096)
def _is_raster_type(media_type: str) -> bool | None:
    """Return True or False if the media type decides, else None."""
    if _MEDIA_TYPE.match(media_type):
        return True
    return False if _NO_RASTER_TYPE.match(media_type) else None


def _is_raster(media_type: object, href: str) -> bool:
    by_type = _is_raster_type(media_type.lower().strip()) if isinstance(media_type, str) else None
    if by_type is not None:
        return by_type
    return re.split(r"[?#]", href)[0].lower().endswith(_EXTENSIONS)


# Hosts that answer GDAL with a login form.
_LOGIN_HOSTS = frozenset({"landsatlook.usgs.gov", "zipper.dataspace.copernicus.eu", "datahub.creodias.eu"})
_STORES = ("s3://", "gs://", "az://", "oss://", "/vsi")


def _href(asset: JSON, properties: JSON) -> tuple[str | None, str]:
    """Return (href, reason) of an asset: its main href, or an alternate one if the main href requires a login."""
    main = text(asset.get("href"))
    if not asset.get("alternate") or (main is not None and not _needs_login(main, asset, properties)):
        return main, ""
    for name, value in mapping(asset.get("alternate")).items():
        alternate = mapping(value)
        href = text(alternate.get("href"))
        if href is not None and (href.startswith(_STORES) or not _needs_login(href, alternate, properties)):
            return href, f"alternate {str(name)!r}, because {main!r} requires a login" if main else f"alternate {str(name)!r}"
    return main, ""


def _needs_login(href: str, asset: JSON, properties: JSON) -> bool:
    if not href.startswith(("http://", "https://")):
        return False
    try:
        host = urlsplit(href).hostname
    except ValueError:  # such as an unclosed [ of an IPv6 address
        return False
    schemes = {**mapping(properties.get("auth:schemes")), **mapping(asset.get("auth:schemes"))}
    refs = asset.get("auth:refs")
    kinds = {mapping(schemes.get(ref)).get("type") for ref in refs if isinstance(ref, str)} if isinstance(refs, list) else set()
    return host in _LOGIN_HOSTS or "openIdConnect" in kinds or "oauth2" in kinds


def shown(rasters: Sequence[Raster]) -> list[Raster]:
    """Return the rasters to stack by default: no thumbnails, overviews or previews, and pictures only if nothing else is left."""
    by_role = [raster for raster in rasters if _HIDDEN_ROLES.isdisjoint(raster.roles)]
    by_key = [raster for raster in by_role if _COPY.sub("", plain_key(raster.key)) not in _HIDDEN_KEYS]
    pictures = [r for r in rasters if "visual" in r.roles and {"thumbnail", "overview", "preview"}.isdisjoint(r.roles)]
    return by_key or by_role or pictures


def stem(raster: Raster) -> tuple[str, tuple[str | None, ...]]:
    """Return an identifier that copies of a band share: the key without resolution and format, and the names of the bands."""
    return _COPY.sub("", plain_key(raster.key)), tuple(band.name for band in raster.bands)


def size_in_key(key: str) -> float:
    """Return the pixel size in a key ("B02_60m" -> 60.0); 0.0 if there is none."""
    match = _SIZE.search(plain_key(key))
    return float(match[1]) * (1000 if match[2] else 1) if match else 0.0


# Product types in radar geometry: rows follow the orbit, so no affine transform describes them.
_RADAR_TYPE = re.compile(r"(^|[_-])(raw|slc|ssc|grd[fhm]?|mgd|gr[dx]|ocn|cphd|csi|sicd|sidd)($|[_-])")
_RADAR_COLLECTION = re.compile(r"(^|[_-])(s1|sentinel-?_?1)[a-z]?[_-](.*[_-])?(grd|slc|ocn|raw)($|[_-])")
_GEOCODED = re.compile(
    r"(^|[_\W])((rtc|gtc|gec|geo|nrb|ard|(gamma|sigma|beta)[_-]?(0|nought))($|[_\W])|terrain.?correct|geocod|geocorrect|orthorect)"
)


def radar_geometry(item: JSON) -> str | None:
    """Return the reason to take the item's rasters as in radar geometry, even if it publishes a grid; else None."""
    properties = mapping(item.get("properties"))
    collection = text(item.get("collection")) or ""
    kinds = [text(properties.get(field)) or "" for field in ("sar:product_type", "product:type")]
    label = f"{collection} {item.get('id')}".lower()
    if _RADAR_COLLECTION.search(collection.lower()):
        reason = f"collection {collection!r}"
    elif kind := next((kind for kind in kinds if _RADAR_TYPE.search(kind.lower())), None):
        reason = f"product type {kind!r}"
    else:
        return None
    return None if _GEOCODED.search(label) else reason


def describe_assets(item: JSON) -> str:
    """Describe the assets for messages: "hdf (application/x-hdf), metadata (application/xml)"."""
    assets = mapping(item.get("assets"))
    shown = [f"{key} ({text(mapping(asset).get('type')) or 'no type'})" for key, asset in list(assets.items())[:8]]
    return ", ".join(shown) + (f" and {len(assets) - 8} more" if len(assets) > 8 else "") if shown else "none"
