"""The products that come with xchip: one `SensorProfile` each. Rules cite the product guide that they follow.

Wavelengths, and platforms, band orders and ground sample distances of `ClaySensor`, are those of Clay's configs/metadata.yaml,
v1.5; wavelengths of bands that are not in it come from the products' guides. Clay has no Sentinel-2 level 1C and no HLS: they
get the values of the same instrument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from xchip.core.quality import CLEAR, CLOUD, DEFECTIVE, NODATA, SHADOW, SNOW, WATER, bits, values
from xchip.sensors.profile import BandSpec, ClaySensor, SensorProfile


def _centred(wavelengths: Mapping[str, float], bands: Iterable[BandSpec]) -> tuple[BandSpec, ...]:
    """``bands`` with their wavelengths, micrometres by name."""
    return tuple(replace(spec, wavelength=wavelengths.get(spec.name)) for spec in bands)


# -- Sentinel-2 ----------------------------------------------------------------------------------------------------

SCL = values(
    "scl",
    {NODATA: [0], DEFECTIVE: [1], CLOUD: [8, 9, 10], SHADOW: [3], SNOW: [11], WATER: [6]},
    source="Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), L2A scene classification, table of labels",
)

# (name, band, metres, common name)
_S2_REFLECTANCE = (
    ("coastal", "b01", 60, "coastal"),
    ("blue", "b02", 10, "blue"),
    ("green", "b03", 10, "green"),
    ("red", "b04", 10, "red"),
    ("rededge1", "b05", 20, "rededge"),
    ("rededge2", "b06", 20, "rededge"),
    ("rededge3", "b07", 20, "rededge"),
    ("nir", "b08", 10, "nir"),
    ("nir08", "b8a", 20, "nir08"),
    ("nir09", "b09", 60, "nir09"),
    ("cirrus", "b10", 60, "cirrus"),
    ("swir16", "b11", 20, "swir16"),
    ("swir22", "b12", 20, "swir22"),
)
_S2_WAVELENGTHS = {
    "coastal": 0.443, "blue": 0.493, "green": 0.56, "red": 0.665, "rededge1": 0.704, "rededge2": 0.74, "rededge3": 0.783,
    "nir": 0.842, "nir08": 0.865, "nir09": 0.945, "cirrus": 1.375, "swir16": 1.61, "swir22": 2.19,
}  # fmt: skip
_S2_CLAY_BANDS = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")


def _sentinel_2(*, cirrus: bool) -> Iterator[BandSpec]:
    for name, band, metres, common in _S2_REFLECTANCE:
        if cirrus or name != "cirrus":
            yield BandSpec(name, (band, band.replace("b0", "b")), common, "uint16", 0, float(metres), scale=1e-4)


_S2_PLATFORM = r"sentinel2"

SENTINEL_2_L2A = SensorProfile(
    "sentinel-2-l2a",
    bands=(
        *_centred(_S2_WAVELENGTHS, _sentinel_2(cirrus=False)),
        BandSpec("scl", dtype="uint8", nodata=0, resolution=20),
        BandSpec("aot", dtype="uint16", nodata=0, resolution=20, default=False, scale=1e-3),
        BandSpec("wvp", dtype="uint16", nodata=0, resolution=20, default=False, scale=1e-3),
    ),
    quality=(SCL,),
    collections=(
        "sentinel-2-l2a",  # Planetary Computer, Earth Search v1, CDSE
        "sentinel-2-c1-l2a",  # Earth Search v1
        "sentinel-2-pre-c1-l2a",  # Earth Search v1
        "sentinel-s2-l2a-cogs",  # Earth Search v0
        "sentinel-s2-l2a",  # Earth Search v0
        "s2_l2a",  # Digital Earth Africa
        "s2_l2a_c1",  # Digital Earth Africa
        "s2_l2a-1",  # Brazil Data Cube
    ),
    platform=_S2_PLATFORM,
    level=r"s2msi2a|msil2a|_l2a\b|\bl2a\b",
    block=(1024, 1024),
    baseline_offset=-0.1,
    clay=ClaySensor("sentinel-2-l2a", _S2_CLAY_BANDS, 10.0),
    staged=("blue", "green", "nir", "nir08", "red", "rededge1", "rededge2", "rededge3", "scl", "swir16", "swir22"),
    stored_ratio=(0.045, "0.045 of the pixels, the mean of 13 published file:size of SCL (0.02 to 0.10)"),
)

SENTINEL_2_L1C = SensorProfile(
    "sentinel-2-l1c",
    bands=_centred(_S2_WAVELENGTHS, _sentinel_2(cirrus=True)),
    collections=("sentinel-2-l1c", "sentinel-s2-l1c"),
    platform=_S2_PLATFORM,
    level=r"s2msi1c|msil1c|_l1c\b|\bl1c\b",
    block=(1024, 1024),
    baseline_offset=-0.1,
    clay=ClaySensor("sentinel-2-l1c", _S2_CLAY_BANDS, 10.0),
)

# -- Landsat Collection 2 ------------------------------------------------------------------------------------------

QA_PIXEL = bits(
    "qa_pixel",
    {NODATA: [0], CLOUD: [1, 2, 3], SHADOW: [4], SNOW: [5], WATER: [7]},
    source="Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619) and Landsat 4-7 (LSDS-1618), QA_PIXEL bit index",
)

_LANDSAT_VARIANTS = (
    ("oli", r"\bl[oct]0[89]_|landsat.?[89]\b|\boli"),
    ("etm", r"\ble07_|landsat.?7\b|\betm"),
    ("tm", r"\blt0[45]_|landsat.?[45]\b.*\btm\b"),
    ("mss4", r"\blm0[45]_|landsat.?[45]\b.*\bmss\b"),
    ("mss1", r"\blm0[123]_|landsat.?[123]\b"),
)
# Number of each band, by instrument; the same name means the same part of the spectrum.
_TM = {"blue": 1, "green": 2, "red": 3, "nir08": 4, "swir16": 5, "swir22": 7}
_LANDSAT_NUMBERS = {
    "oli": {"coastal": 1, "blue": 2, "green": 3, "red": 4, "nir08": 5, "swir16": 6, "swir22": 7},
    "etm": _TM,
    "tm": _TM,
}
_LANDSAT_L1_ONLY = {
    "oli": {"cirrus": 9, "lwir11": 10, "lwir12": 11},
    "mss4": {"green": 1, "red": 2, "nir08": 3, "nir09": 4},
    "mss1": {"green": 4, "red": 5, "nir08": 6, "nir09": 7},
}
_LANDSAT_WAVELENGTHS = {
    "coastal": 0.443, "red": 0.65, "green": 0.56, "blue": 0.48, "nir08": 0.86, "cirrus": 1.37, "swir16": 1.6, "swir22": 2.2,
}  # fmt: skip
_LANDSAT_CLAY_BANDS = ("red", "green", "blue", "nir08", "swir16", "swir22")
_LANDSAT_STAGED = ("blue", "green", "red", "nir08", "swir16", "swir22")
_LANDSAT_RATIO = (0.035, "0.035 of the pixels, as QA_PIXEL of two real scenes deflates to (0.026 and 0.045)")
_LANDSAT_PLATFORM = r"landsat"
_QA_BANDS = (
    BandSpec("qa_pixel", ("pixel_qa",), dtype="uint16", resolution=30),
    BandSpec("qa_radsat", dtype="uint16", resolution=30, default=False),
)


_ST_AUXILIARY = (("atran", 1e-4), ("cdist", 1e-2), ("drad", 1e-3), ("urad", 1e-3), ("trad", 1e-3), ("emis", 1e-4), ("emsd", 1e-4))

LANDSAT_C2_L2 = SensorProfile(
    "landsat-c2-l2",
    bands=(
        *_centred(
            _LANDSAT_WAVELENGTHS,
            (
                # Without the bare number as a key: in level 2, B10 may be a surface or a brightness temperature.
                BandSpec(name, (f"sr_b{number}",), name, "uint16", 0, 30, scale=2.75e-5, offset=-0.2, variant=variant)
                for variant, numbers in _LANDSAT_NUMBERS.items()
                for name, number in numbers.items()
            ),
        ),
        BandSpec("lwir11", ("st_b10",), "lwir11", "uint16", 0, 30, scale=0.00341802, offset=149.0, variant="oli"),
        *(
            BandSpec("lwir", ("st_b6",), "lwir", "uint16", 0, 30, scale=0.00341802, offset=149.0, variant=variant)
            for variant in ("etm", "tm")
        ),
        *_QA_BANDS,
        BandSpec("qa_aerosol", ("sr_qa_aerosol",), dtype="uint8", resolution=30, default=False),
        BandSpec("cloud_qa", ("sr_cloud_qa",), dtype="uint8", resolution=30, default=False),
        BandSpec("atmos_opacity", ("sr_atmos_opacity",), None, "int16", -9999, 30, default=False, scale=1e-3),
        *(BandSpec(name, (f"st_{name}",), None, "int16", -9999, 30, default=False, scale=s) for name, s in _ST_AUXILIARY),
        BandSpec("qa", ("st_qa",), None, "int16", -9999, 30, default=False, scale=1e-2),
    ),
    quality=(QA_PIXEL,),
    collections=(
        "landsat-c2-l2",  # Planetary Computer, Earth Search, stactools
        "landsat-8-c2-l2",  # Planetary Computer, before 2022
        "landsat-c2l2-sr",  # USGS
        "landsat-c2l2-st",  # USGS
        "ls5_sr",  # Digital Earth Africa, the USGS files as they are
        "ls7_sr",
        "ls8_sr",
        "ls9_sr",
        "ls5_st",
        "ls7_st",
        "ls8_st",
        "ls9_st",
    ),
    platform=_LANDSAT_PLATFORM,
    level=r"\bl[cotem]\d\d_l2s[pr]_\d{6}_\d{8}_(\d{8}_)?02_",
    variants=_LANDSAT_VARIANTS,
    block=(256, 256),
    clay=ClaySensor("landsat-c2l2-sr", _LANDSAT_CLAY_BANDS, 30.0),
    staged=(*_LANDSAT_STAGED, "qa_pixel"),
    stored_ratio=_LANDSAT_RATIO,
)


def _level_1() -> Iterator[BandSpec]:
    for variant in ("oli", "etm", "tm", "mss4", "mss1"):
        numbers = {**_LANDSAT_NUMBERS.get(variant, {}), **_LANDSAT_L1_ONLY.get(variant, {})}
        dtype = "uint16" if variant == "oli" else "uint8"
        metres = 60.0 if variant.startswith("mss") else 30.0
        for name, number in numbers.items():
            yield BandSpec(name, (f"b{number}", f"b{number:02d}"), name, dtype, 0, metres, variant=variant)


LANDSAT_C2_L1 = SensorProfile(
    "landsat-c2-l1",
    bands=(
        *_centred(_LANDSAT_WAVELENGTHS, _level_1()),
        BandSpec("lwir", ("b6",), "lwir", "uint8", 0, 30, variant="tm"),
        BandSpec("lwir_low", ("b6_vcid_1", "lwir"), "lwir", "uint8", 0, 30, variant="etm"),
        BandSpec("lwir_high", ("b6_vcid_2",), "lwir", "uint8", 0, 30, variant="etm"),
        BandSpec("pan", ("b8",), "pan", "uint16", 0, 15, default=False, variant="oli"),
        BandSpec("pan", ("b8",), "pan", "uint8", 0, 15, default=False, variant="etm"),
        *_QA_BANDS,
        *(BandSpec(name, dtype="int16", resolution=30, default=False, scale=0.01) for name in ("saa", "sza", "vaa", "vza")),
    ),
    quality=(QA_PIXEL,),
    collections=("landsat-c2-l1", "landsat-c2l1"),
    platform=_LANDSAT_PLATFORM,
    level=r"\bl[cotem]\d\d_l1(tp|gt|gs)_\d{6}_\d{8}_(\d{8}_)?02_",
    variants=_LANDSAT_VARIANTS,
    block=(256, 256),
    clay=ClaySensor("landsat-c2l1", _LANDSAT_CLAY_BANDS, 30.0),
    # As stacchip, and the thermal bands under the names that they have for Landsat 8 and 9.
    staged=(*_LANDSAT_STAGED, "lwir", "lwir_high", "lwir11", "lwir12", "pan", "qa_pixel"),
    stored_ratio=_LANDSAT_RATIO,
)

# -- MODIS ---------------------------------------------------------------------------------------------------------

# Land/water flag, bits 3-5: 001 is land, 010 a coastline or shore; the other six are ocean, inland or ephemeral water.
_MODIS_WATER = [(3, 3, flag) for flag in (0, 3, 4, 5, 6, 7)]
MODIS_STATE = bits(
    "sur_refl_state_500m",
    {CLOUD: [(0, 2, 1), (0, 2, 2), 10, (8, 2, 3)], SHADOW: [2], SNOW: [12, 15], WATER: _MODIS_WATER},
    values={NODATA: [65535]},
    source="MODIS Surface Reflectance User's Guide (MOD09, Collection 6), 500 m state QA bits of MOD09A1",
)
MODIS_QC = bits(
    "sur_refl_qc_500m",
    {NODATA: [(0, 2, 3)], CLOUD: [(0, 2, 2)]},
    source="MODIS Surface Reflectance User's Guide (MOD09, Collection 6), 500 m QA bits of MOD09A1, MODLAND QA",
)

# Bands 1 to 7 with their centres in nanometres.
_MODIS_NANOMETRES = {
    "red": 645.0, "nir08": 858.5, "blue": 469.0, "green": 555.0, "nir12": 1240.0, "swir16": 1640.0, "swir22": 2130.0,
}  # fmt: skip

MODIS_09A1 = SensorProfile(
    "modis-09a1",
    bands=(
        *_centred(
            {name: nanometres / 1000 for name, nanometres in _MODIS_NANOMETRES.items()},
            (
                BandSpec(name, (f"sur_refl_b{n:02d}",), None if n == 5 else name, "int16", -28672, 463.3, scale=1e-4)
                for n, name in enumerate(_MODIS_NANOMETRES, 1)
            ),
        ),
        BandSpec("sur_refl_state_500m", dtype="uint16", nodata=65535, resolution=463.3),
        BandSpec("sur_refl_qc_500m", dtype="uint32", resolution=463.3, default=False),
        *(
            BandSpec(f"sur_refl_{name}", dtype="int16", nodata=0, resolution=463.3, default=False, scale=1e-2)
            for name in ("szen", "vzen", "raz")
        ),
        BandSpec("sur_refl_day_of_year", dtype="uint16", nodata=65535, resolution=463.3, default=False),
    ),
    quality=(MODIS_STATE, MODIS_QC),
    collections=(
        "modis-09a1-061",  # Planetary Computer, stactools
        "modis-09a1-006",
        *(
            f"{short}09a1{version}"
            for short in ("mod", "myd")
            for version in (".v061", ".v006", ".061", ".006", "_061", "_006", "")
        ),
    ),
    platform=r"terra|aqua",
    level=r"\bm[oy]d09a1\b",
    block=(512, 512),
    # Nanometres, unlike the other products: so Clay's configuration has them, and so it was trained.
    clay=ClaySensor("modis", tuple(_MODIS_NANOMETRES), 500.0, _MODIS_NANOMETRES),
    staged=(*_MODIS_NANOMETRES, "sur_refl_state_500m", "sur_refl_qc_500m"),
)

# -- HLS -----------------------------------------------------------------------------------------------------------

FMASK = bits(
    "fmask",
    {CLOUD: [0, 1, 2], SHADOW: [3], SNOW: [4], WATER: [5]},
    values={NODATA: [255]},
    source="HLS Product User Guide v2.0, Fmask quality assessment layer (255 is fill, bits 6-7 the aerosol level)",
)


def _hls(wavelengths: Mapping[str, float], rows: Iterable[tuple[str, tuple[str, ...], str | None]]) -> tuple[BandSpec, ...]:
    bands = (BandSpec(name, keys, common, "int16", -9999, 30, scale=1e-4) for name, keys, common in rows)
    return (
        *_centred(wavelengths, bands),
        BandSpec("fmask", dtype="uint8", nodata=255, resolution=30),
        *(
            BandSpec(name, dtype="uint16", nodata=40000, resolution=30, default=False, scale=0.01)
            for name in ("saa", "sza", "vaa", "vza")
        ),
    )


_HLS_VISIBLE = (
    ("coastal", ("b01", "coastal_aerosol"), "coastal"),
    ("blue", ("b02",), "blue"),
    ("green", ("b03",), "green"),
    ("red", ("b04",), "red"),
)

HLS_L30 = SensorProfile(
    "hls-l30",
    bands=(
        *_hls(
            _LANDSAT_WAVELENGTHS,
            (
                *_HLS_VISIBLE,
                ("nir08", ("b05", "nir_narrow", "nir"), "nir08"),
                ("swir16", ("b06", "swir_1"), "swir16"),
                ("swir22", ("b07", "swir_2"), "swir22"),
                ("cirrus", ("b09",), "cirrus"),
            ),
        ),
        BandSpec("lwir11", ("b10", "thermal_infrared_1"), "lwir11", "int16", -9999, 30, scale=0.01),
        BandSpec("lwir12", ("b11", "thermal_infrared_2"), "lwir12", "int16", -9999, 30, scale=0.01),
    ),
    quality=(FMASK,),
    collections=("hls-l30", "hls2-l30", "hlsl30", "hlsl30.v1.5", "hlsl30.v2.0", "hlsl30_1.5", "hlsl30_2.0"),
    platform=r"landsat",
    level=r"\bhls[._-]l30\b",
    block=(256, 256),
    clay=ClaySensor("hls-l30", _LANDSAT_CLAY_BANDS, 30.0),
)

HLS_S30 = SensorProfile(
    "hls-s30",
    bands=_hls(
        _S2_WAVELENGTHS,
        (
            *_HLS_VISIBLE,
            ("rededge1", ("b05", "red_edge_1"), "rededge"),
            ("rededge2", ("b06", "red_edge_2"), "rededge"),
            ("rededge3", ("b07", "red_edge_3"), "rededge"),
            ("nir", ("b08", "nir_broad"), None),
            ("nir08", ("b8a", "nir_narrow"), "nir08"),
            ("nir09", ("b09", "water_vapor"), "nir09"),
            ("cirrus", ("b10",), "cirrus"),
            ("swir16", ("b11", "swir_1"), "swir16"),
            ("swir22", ("b12", "swir_2"), "swir22"),
        ),
    ),
    quality=(FMASK,),
    collections=("hls-s30", "hls2-s30", "hlss30", "hlss30.v1.5", "hlss30.v2.0", "hlss30_1.5", "hlss30_2.0"),
    platform=_S2_PLATFORM,
    level=r"\bhls[._-]s30\b",
    block=(256, 256),
    clay=ClaySensor("hls-s30", _S2_CLAY_BANDS, 30.0),
)

# -- Products without a quality band -------------------------------------------------------------------------------

SENTINEL_1_RTC = SensorProfile(
    "sentinel-1-rtc",
    bands=(
        *(BandSpec(name, (f"gamma0_{name}",), dtype="float32", resolution=10) for name in ("vv", "vh", "hh", "hv")),
        BandSpec("incidence", ("local_incident_angle",), dtype="uint16", resolution=20, default=False, scale=0.01),
    ),
    # Nodata is -32768 at Planetary Computer and 0 at Indigo: the items say which.
    collections=("sentinel-1-rtc", "sentinel1-rtc-aws", "sentinel-1-rtc-aws", "sentinel-s1-rtc-indigo"),
    platform=r"sentinel1",
    level=r"[_-]rtc\b",
    block=(512, 512),
    # Clay's numbers for the polarisations, which have no wavelengths of light. Cubes come from the Planetary Computer.
    clay=ClaySensor("sentinel-1-rtc", ("vv", "vh"), 10.0, {"vv": 3.5, "vh": 4.0}, nodata=-32768.0),
    staged=("vv", "vh"),
    stored_ratio=(0.64, "0.64 of the pixels, by the file:size of one published item"),
)

NAIP = SensorProfile(
    "naip",
    bands=tuple(
        BandSpec(name, ("image", "asset", "data", "cog"), name, "uint8", index=index, wavelength=micrometres)
        for index, (name, micrometres) in enumerate((("red", 0.65), ("green", 0.56), ("blue", 0.48), ("nir", 0.842)), 1)
    ),
    collections=("naip", "usda-naip", "naip-source", "naip-analytic"),
    block=(512, 512),
    clay=ClaySensor("naip", ("red", "green", "blue", "nir"), 1.0),
)

LINZ = SensorProfile(
    "linz",
    # A fourth band may be alpha or infrared: the file says which. stacchip calls its copies "asset".
    bands=tuple(
        BandSpec(name, ("visual", "asset"), name, "uint8", index=index, wavelength=micrometres)
        for index, (name, micrometres) in enumerate((("red", 0.635), ("green", 0.555), ("blue", 0.465)), 1)
    ),
    collections=("linz", "linz-aerial-imagery"),
    block=(512, 512),
    clay=ClaySensor("linz", ("red", "green", "blue"), 0.5),
)

PRODUCTS: tuple[SensorProfile, ...] = (
    SENTINEL_2_L2A,
    SENTINEL_2_L1C,
    LANDSAT_C2_L2,
    LANDSAT_C2_L1,
    MODIS_09A1,
    HLS_L30,
    HLS_S30,
    SENTINEL_1_RTC,
    NAIP,
    LINZ,
)
"""All products, in the order of messages and lists."""

RULES_BY_BAND_NAME = (
    values(
        "oa_fmask",
        {NODATA: [0], CLEAR: [1], CLOUD: [2], SHADOW: [3], SNOW: [4], WATER: [5]},
        source="Digital Earth Australia Knowledge Hub, Geoscience Australia Landsat and Sentinel-2 ARD, oa_fmask",
    ),
)
"""Rules of quality bands with a distinctive name, of products that have no profile."""
