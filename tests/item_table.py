"""What each published item of ../shared/data holds, read by hand from its JSON: the answers for test_items.py."""

from __future__ import annotations

from dataclasses import dataclass

EARTH_SEARCH = "coastal blue green red rededge1 rededge2 rededge3 nir nir08 nir09 swir16 swir22"
L1C = "coastal blue green red rededge1 rededge2 rededge3 nir nir08 nir09 cirrus swir16 swir22"
BY_NUMBER = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"
LANDSAT = "coastal blue green red nir08 swir16 swir22"
MODIS = " ".join(f"sur_refl_b0{n}" for n in range(1, 8))
HLS = "B01 B02 B03 B04 B05 B06 B07 B09 B10 B11 Fmask"
VEGETATION = (
    "EVI NDVI VI_Quality MIR_reflectance NIR_reflectance red_reflectance blue_reflectance sun_zenith_angle pixel_reliability "
    "view_zenith_angle relative_azimuth_angle composite_day_of_the_year"
)
ASTER = (
    " ".join(f"TIR_TIR_Band{n}" for n in (10, 11, 12, 13, 14))
    + " "
    + " ".join(f"SWIR_SWIR_Band{n}" for n in range(4, 10))
    + " VNIR_VNIR_Band1 VNIR_VNIR_Band2 VNIR_VNIR_Band3N"
)
GOES = (
    "C01_1km C03_1km C04_2km C05_1km C06_2km C07_2km C08_2km C09_2km C10_2km C11_2km C12_2km C13_2km C14_2km C15_2km C16_2km "
    "C02_0.5km C01_DQF_1km C03_DQF_1km C04_DQF_2km C05_DQF_1km C06_DQF_2km C07_DQF_2km C08_DQF_2km C09_DQF_2km C10_DQF_2km "
    "C11_DQF_2km C12_DQF_2km C13_DQF_2km C14_DQF_2km C15_DQF_2km C16_DQF_2km C02_DQF_0.5km"
)
DEA = (
    "nbart_blue nbart_coastal_aerosol nbart_green nbart_nir nbart_panchromatic nbart_red nbart_swir_1 nbart_swir_2 "
    "oa_azimuthal_exiting oa_azimuthal_incident oa_combined_terrain_shadow oa_exiting_angle oa_fmask oa_incident_angle "
    "oa_nbart_contiguity oa_relative_azimuth oa_relative_slope oa_satellite_azimuth oa_satellite_view oa_solar_azimuth "
    "oa_solar_zenith oa_time_delta"
)


@dataclass(frozen=True)
class Row:
    """The first item of a file."""

    file: str
    """Below the items folder."""
    sensor: str | None
    """Profile."""
    crs: str
    """Code; or, for a CRS without one, a word that its WKT must hold."""
    transform: tuple[float, float, float, float]
    """(a, c, e, f): pixel width, left, minus pixel height, top."""
    shape: tuple[int, int]
    """(height, width)."""
    bands: str
    """Default variables, in order."""
    quality: str | None
    """The quality band; None where nodata of the data bands decides."""
    date: str
    """UTC, minutes."""
    count: int = 1
    """Items in the file."""
    needs: str = ""
    """What only a file says: words of the HeaderNeeded message. Empty: no file is opened."""
    file_bands: int = 1
    """Bands of the file that then stands in for the real one, which has this row's grid."""
    dtype: str = "uint8"
    """Its data type."""


@dataclass(frozen=True)
class Refused:
    """An item that can't be used."""

    file: str
    """Below the items folder."""
    words: tuple[str, ...]
    """What the message must say."""


NO_TYPE, NO_GRID, CONTRADICTION = "data type of asset", "no CRS in proj:code", "contradict its proj:bbox"
ROWS = [
    Row(
        "cdse__sentinel-2-l2a__T36NYH_v1.1.json",
        "sentinel-2-l2a",
        "EPSG:32636",
        (10, 699960, -10, 300000),
        (10980, 10980),
        # the finest of each band's copies: B01 is published at 20 and 60 m
        "B01_20m B02_10m B03_10m B04_10m B05_20m B06_20m B07_20m B08_10m B8A_20m B09_60m B11_20m B12_20m SCL_20m",
        "SCL_20m",
        "2020-03-22T07:46",
    ),
    Row(
        "dea__ga_ls8c_ard_088080.json",
        None,
        "EPSG:32656",
        (15, 526792.5, -15, -3077092.5),
        (15681, 15561),
        DEA,
        "oa_fmask",
        "2020-05-25T23:35",
        needs=NO_TYPE,
        dtype="int16",
    ),
    Row(
        "deafrica__s2_l2a_c1_T37MGP.json",
        "sentinel-2-l2a",
        "EPSG:32737",
        (10, 699960, -10, 9400000),
        (10980, 10980),
        f"{EARTH_SEARCH} scl",
        "scl",
        "2024-07-10T07:41",
    ),
    Row(
        "earthsearch-c1__rustac-10-items.json",
        "sentinel-2-l2a",
        "EPSG:32613",
        (10, 399960, -10, 4500000),
        (10980, 10980),
        f"{EARTH_SEARCH} scl",
        "scl",
        "2024-04-22T17:53",
        count=10,
    ),
    Row(
        "earthsearch-v0__100-items-32701.json",
        "sentinel-2-l2a",
        "EPSG:32701",
        (10, 300000, -10, 2000020),
        (10980, 10980),
        f"{BY_NUMBER} SCL",
        "SCL",
        "2018-10-04T21:05",
        count=100,
    ),
    Row(
        "earthsearch-v0__sentinel-s2-l2a-cogs__S2A_31NBJ.json",
        "sentinel-2-l2a",
        "EPSG:32631",
        (10, 199980, -10, 900000),
        (10980, 10980),
        f"{BY_NUMBER} SCL",
        "SCL",
        "2019-05-24T10:28",
    ),
    Row(
        "earthsearch-v1__sentinel-2-c1-l2a__S2A_T20HNJ.json",
        "sentinel-2-l2a",
        "EPSG:32720",
        (10, 499980, -10, 6400000),
        (10980, 10980),
        f"{EARTH_SEARCH} scl",
        "scl",
        "2024-03-11T14:1",
    ),
    Row(
        "earthsearch-v1__sentinel-2-l1c.json",
        "sentinel-2-l1c",
        "EPSG:32724",
        (10, 399960, -10, 9500020),
        (10980, 10980),
        L1C,
        None,
        "2025-07-31T13:03",
    ),
    Row(
        "earthsearch-v1__sentinel-2-l2a__S2A_29RKH.json",
        "sentinel-2-l2a",
        "EPSG:32629",
        (10, 199980, -10, 2800020),
        (10980, 10980),
        f"{EARTH_SEARCH} scl",
        "scl",
        "2020-02-19T11:34",
    ),
    *(
        Row(
            f"linz__auckland_AZ30_10000_{sheet}.json",
            None,
            "EPSG:2193",
            (0.5, left, -0.5, 5981520),
            (14400, 9600),
            "visual_1 visual_2 visual_3",
            None,
            "2010-10-30T11:00",
            needs=NO_GRID,
            file_bands=3,
        )
        for sheet, left in (("0101", 1703680), ("0102", 1708480))  # invented: nothing but the file says
    ),
    Row(
        "lpdaac__HLSL30-10-items.json",
        "hls-l30",
        "EPSG:32601",
        (30, 499980, -30, -4990020),  # invented: nothing but the file says
        (3660, 3660),
        HLS,
        "Fmask",
        "2021-01-01T21:31",
        count=10,
        needs=NO_GRID,
        dtype="int16",
    ),
    Row(
        "naip-source__m_4207009_ne_19.json",
        None,
        "EPSG:26919",
        (0.6, 341338.2, -0.6, 4749053.4),
        (12666, 9704),
        "asset_b1 asset_b2 asset_b3 asset_b4",
        None,
        "2021-10-24T",
        needs=NO_TYPE,
        file_bands=4,
    ),
    Row(
        "naip-source__stacchip_test_item.json",
        None,
        "EPSG:26919",
        (1, 341000, -1, 4741800),  # by its proj:bbox: its proj:transform begins where that ends
        (800, 1000),
        "asset_1 asset_2 asset_3 asset_4",
        None,
        "2021-10-24T12:33",
        needs=CONTRADICTION,
        file_bands=4,
    ),
    Row(
        "planetarycomputer__3dep-lidar-dsm.json",
        None,
        "NAD83 / UTM zone 11N + NAVD88 height",
        (2, 758397, -2, 4227063),
        (2450, 3073),
        "data",
        None,
        "2020-01-01T00:00",
    ),
    Row(
        "planetarycomputer__3dep-seamless.json",
        None,
        "EPSG:5498",
        (9.2592593e-05, -116.000555556293, -9.2592593e-05, 34.0005555557951),
        (10812, 10812),
        "data",
        None,
        "2020-04-24T00:00",
        needs=NO_TYPE,
        dtype="float32",
    ),
    Row(
        "planetarycomputer__aster-l1t.json",
        None,
        "EPSG:32647",
        (14.99765295516065, 479159.99999999313, -14.997532490020406, -7977509.999048144),
        (6079, 6391),
        ASTER,
        None,
        "2006-12-27T02:03",
    ),
    Row(
        "planetarycomputer__chloris-biomass.json",
        None,
        "Sinusoidal",
        (4633.12716525001, -20015109.354, -4633.127165250011, 10007554.677),
        (3600, 8640),
        "biomass biomass_change",  # the two in Web Mercator lie elsewhere
        None,
        "2019-01-01T00:00",
    ),
    Row(
        "planetarycomputer__cop-dem-glo-30.json",
        None,
        "EPSG:4326",
        (0.002777777777777778, -180.0013888888889, -0.0002777777777777778, -88.99986111111112),
        (3600, 360),
        "data",
        None,
        "2021-04-22T00:00",
        needs=NO_TYPE,
        dtype="float32",
    ),
    Row(
        "planetarycomputer__esa-worldcover.json",
        None,
        "EPSG:4326",
        (8.333333333333333e-05, -30.0, -8.333333333333333e-05, -57.0),
        (36000, 36000),
        "map input_quality_Band1 input_quality_Band2 input_quality_Band3",
        None,
        "2021-01-01T00:00",
    ),
    Row(
        "planetarycomputer__gap.json",
        None,
        "EPSG:5070",
        (30, 938865, -30, 862215),
        (10000, 10000),
        "data",
        None,
        "2011-12-31T00:00",
        needs=NO_TYPE,
    ),
    Row(
        "planetarycomputer__gnatsgo-rasters.json",
        None,
        "Western_Pacific_Albers_Equal_Area_Conic",
        (10, -2391035, -10, -539485),
        (16384, 16384),
        "mukey aws0_5 soc0_5 ...",  # 58 of them
        None,
        "2020-07-01T00:00",
    ),
    Row(
        "planetarycomputer__goes-cmi.json",
        None,
        "Geostationary Satellite (Sweep X)",
        (501.0043288718852, -2505021.4937798134, -501.00432887188526, 4589199.612286952),
        (6000, 10000),
        GOES,
        None,
        "2025-03-11T15:46",
    ),
    Row(
        "planetarycomputer__io-lulc-9-class.json",
        None,
        "EPSG:32660",
        (10, 353310, -10, 7991501.1319483295),
        (89448, 29338),
        "data",
        None,
        "2022-01-01T00:00",
        needs=NO_TYPE,
    ),
    Row(
        "planetarycomputer__landsat-8-c2-l2.json",
        "landsat-c2-l2",
        "EPSG:32632",
        (30, 263085, -30, 6006915),
        (8151, 8061),
        "SR_B1 SR_B2 SR_B3 SR_B4 SR_B5 SR_B6 SR_B7 ST_B10 QA_PIXEL",
        "QA_PIXEL",
        "2022-03-24T10:27",
    ),
    Row(
        "planetarycomputer__landsat-c2-l1.json",
        "landsat-c2-l1",
        "EPSG:32611",
        (60, 451710, -60, 3467370),
        (3690, 3787),
        "green red nir08 nir09 qa_pixel",
        "qa_pixel",
        "2013-01-07T17:52",
    ),
    Row(
        "planetarycomputer__landsat-c2-l2.json",
        "landsat-c2-l2",
        "EPSG:32630",
        (30, 138585, -30, 4429515),
        (8001, 7871),
        f"{LANDSAT} lwir11 qa_pixel",
        "qa_pixel",
        "2022-03-27T11:01",
    ),
    Row(
        "planetarycomputer__modis-09A1-061.json",
        "modis-09a1",
        "Sinusoidal",
        (463.3127165279165, 18903158.834333, -463.3127165274999, -1111950.519667),
        (2400, 2400),
        f"{MODIS} sur_refl_state_500m",
        "sur_refl_state_500m",
        "2025-02-26T00:00",
    ),
    Row(
        "planetarycomputer__modis-13Q1-061.json",
        None,
        "Sinusoidal",
        (231.65635826395825, 18903158.834333, -231.65635826374995, -1111950.519667),
        (4800, 4800),
        " ".join(f"250m_16_days_{name}" for name in VEGETATION.split()),
        None,
        "2025-02-18T00:00",
    ),
    Row(
        "planetarycomputer__mtbs.json",
        None,
        "ESRI:102039",
        (30, -2298465, -30, 3096045),
        (70357, 69612),
        "burn-severity",
        None,
        "2018-12-31T00:00",
        needs=NO_TYPE,
    ),
    Row(
        "planetarycomputer__naip-150.ndjson",
        "naip",
        "EPSG:26916",
        (0.3, 601183.5, -0.3, 3430444.8),
        (25100, 21963),
        "red green blue nir",
        None,
        "2021-11-03T16:00",
        count=150,
    ),
    Row(
        "planetarycomputer__naip.json",
        "naip",
        "EPSG:26917",
        (1, 546872, -1, 4560060),
        (7575, 5893),
        "red green blue nir",
        None,
        "2015-07-25T00:00",
    ),
    Row(
        "planetarycomputer__nasadem.json",
        None,
        "EPSG:4326",
        (0.0002777777777777778, -72.00013888888888, -0.0002777777777777778, -54.99986111111111),
        (3601, 3601),
        "elevation",
        None,
        "2000-02-20T00:00",
        needs=NO_TYPE,
        dtype="int16",
    ),
    Row(
        "planetarycomputer__noaa-c-cap.json",
        None,
        "EPSG:5070",
        (29.99999999983544, -2362065, -29.999999999823203, 3177734.999303),
        (97471, 154951),
        "data",
        None,
        "2016-01-01T00:00",
    ),
    Row(
        "planetarycomputer__nrcan-landcover.json",
        None,
        "EPSG:3978",
        (30, 1000330, -30, -585510),
        (9986, 10001),
        "landcover",
        None,
        "2015-01-01T00:00",
    ),
    Row(
        "planetarycomputer__planet-nicfi-analytic.json",
        None,
        "EPSG:3857",
        (4.77731426716, -5439870.428237628, -4.77731426716, -195678.7923766151),
        (4096, 4096),
        "data_Blue data_Green data_Red data_NIR data_5",  # eo:bands lists four, raster:bands five
        None,
        "2022-01-16T12:00",
    ),
    Row(
        "planetarycomputer__s2-africa-strip.geojson",
        "sentinel-2-l2a",
        "EPSG:32735",
        (10, 499980, -10, 9200020),
        (10980, 10980),
        f"{BY_NUMBER} SCL",
        "SCL",
        "2020-06-06T08:06",
        count=9,
    ),
    Row(
        "planetarycomputer__sentinel-1-rtc.json",
        "sentinel-1-rtc",
        "EPSG:32634",
        (10, 180600, -10, 3408040),
        (17058, 28320),
        "vv vh",
        None,
        "2025-03-11T04:42",
    ),
    Row(
        "planetarycomputer__sentinel-2-l2a.json",
        "sentinel-2-l2a",
        "EPSG:32635",
        (10, 699960, -10, 8100000),
        (10980, 10980),
        f"{BY_NUMBER} SCL",
        "SCL",
        "2015-07-04T10:10",
    ),
    Row(
        "rastervision__s2-3-items.json",
        "sentinel-2-l2a",
        "EPSG:32631",
        (10, 399960, -10, 5500020),
        (10980, 10980),
        f"{EARTH_SEARCH} scl",
        "scl",
        "2023-06-09T10:57",
        count=3,
    ),
    Row(
        "stac-geoparquet__100-sentinel-2-items.parquet",
        "sentinel-2-l2a",
        "EPSG:32613",
        (10, 399960, -10, 4500000),
        (10980, 10980),
        f"{BY_NUMBER} SCL",
        "SCL",
        "2024-12-03T17:46",
        count=100,
    ),
    Row(
        "stac-geoparquet__naip.parquet",
        "naip",
        "EPSG:26914",
        (1, 408377, -1, 3873800),
        (7588, 6375),
        "red green blue nir",
        None,
        "2010-04-25T00:00",
        count=5,
    ),
    Row(
        "stac-spec__proj-example_v1.1.json",
        None,
        "EPSG:32614",
        (15, 224992.5, -15, 6790207.5),
        (16781, 16621),
        "B1 B8",
        None,
        "2018-10-01T01:08",
        needs=CONTRADICTION,
        dtype="uint16",
    ),
    Row(
        "stactools-cop-dem__GLO30_N53W115.json",
        None,
        "EPSG:4326",
        (0.00041666666666666664, -115.00020833333333, -0.0002777777777777778, 54.00013888888889),
        (3600, 2400),
        "data edm flm wbm hem",
        None,
        "2021-04-22T00:00",
    ),
    Row(
        "stactools-hls__L30_T19LDD.json",
        "hls-l30",
        "EPSG:32619",
        (30, 399960, -30, -1599960),
        (3660, 3660),
        "coastal_aerosol blue green red nir_narrow swir_1 swir_2 cirrus thermal_infrared_1 thermal_infrared_2 fmask",
        "fmask",
        "2022-06-14T14:40",
    ),
    Row(
        "stactools-landsat__LC09_L2SP_010065.json",
        "landsat-c2-l2",
        "EPSG:32617",
        (30, 491985, -30, -683685),
        (7741, 7611),
        f"{LANDSAT} lwir11 qa_pixel",
        "qa_pixel",
        "2022-01-29T15:28",
    ),
    Row(
        "stactools-modis__MOD09A1.json",
        "modis-09a1",
        "Sinusoidal",
        (463.3127165274999, 1111950.519667, -463.3127165274999, -1111950.519667),
        (2400, 2400),
        f"{MODIS} sur_refl_state_500m",
        "sur_refl_state_500m",
        "2022-02-02T00:00",
    ),
    Row(
        "stactools-sentinel1__rtc-aws_12SYJ.json",
        "sentinel-1-rtc",
        "EPSG:32612",
        (20, 699960, -20, 4400040),
        (5490, 5490),
        "gamma0_vv gamma0_vh",
        None,
        "2016-11-21T01:09",
    ),
    Row(
        "stactools-sentinel2__T01LAC_L1C_antimeridian_v1.1.json",
        "sentinel-2-l1c",
        "EPSG:32701",
        (10, 99960, -10, 8300020),
        (10980, 10980),
        L1C,
        None,
        "2020-07-17T22:19",
    ),
    Row(
        "stactools-sentinel2__T07HFE_v1.1.json",
        "sentinel-2-l2a",
        "EPSG:32707",
        (10, 600000, -10, 6500020),
        (10980, 10980),
        f"{EARTH_SEARCH} scl",
        "scl",
        "2019-02-12T19:26",
    ),
    Row(
        "usgs__landsat-c2l1__LM01_MSS.json",
        "landsat-c2-l1",
        "EPSG:32625",
        (60, 358830, -60, 7953510),
        (4214, 4296),
        "green red nir08 nir09 qa_pixel",
        "qa_pixel",
        "1972-09-08T13:43",
    ),
    *(
        Row(
            f"usgs__landsat-c2l2-sr__{file}.json",
            "landsat-c2-l2",
            "EPSG:32618",
            (30, 261285, -30, 274815),  # invented: nothing but the file says
            (7741, 7591),
            " ".join(f"SR_B{n}.TIF" for n in range(1, 8)) + " QA_PIXEL.TIF",
            "QA_PIXEL.TIF",
            date,
            needs=NO_GRID,
            dtype="uint16",
        )
        for file, date in (("LC08_008059_v0.7", "2019-12-01T00:00"), ("beta2", "2020-12-04T19:02"))
    ),
    Row(
        "usgs__landsat-c2l2-sr__LC08_081119_beta2_assetproj.json",
        "landsat-c2-l2",
        "EPSG:3031",
        (1164.15, 857085, -1150.6499999999999, -127485),
        (200, 200),
        " ".join(f"SR_B{n}.TIF" for n in range(1, 8)) + " QA_PIXEL.TIF",
        "QA_PIXEL.TIF",
        "2020-01-01T00:00",
    ),
    Row(
        "usgs__landsat-c2l2-sr__LC09_086107_3031.json",
        "landsat-c2-l2",
        "EPSG:3031",
        (30, 1517085, -30, -1811685),
        (8271, 8331),
        f"{LANDSAT} qa_pixel",
        "qa_pixel",
        "2024-03-11T23:34",
    ),
    Row(
        "usgs__landsat-c2l2-sr__LC09_092068_v1.0.json",
        "landsat-c2-l2",
        "EPSG:32656",
        (30, 310785, -30, -1163385),
        (7721, 7601),
        f"{LANDSAT} qa_pixel",
        "qa_pixel",
        "2023-06-07T23:55",
    ),
    Row(
        "usgs__landsat-c2l2-sr__LT05_087017_antimeridian.json",
        "landsat-c2-l2",
        "EPSG:32601",
        (30, 328185, -30, 6932715),
        (7851, 8451),
        "blue green red nir08 swir16 swir22 qa_pixel",
        "qa_pixel",
        "2009-06-21T22:53",
    ),
    Row(
        "../rasters/s2_29RKH/item.json",
        "sentinel-2-l2a",
        "EPSG:32629",
        (100, 199980, -100, 2800020),
        (1098, 1098),
        f"{EARTH_SEARCH} scl",
        "scl",
        "2020-02-19T11:34",
    ),
    *(
        Row(
            f"../rasters/s2_{scene}/item.json",
            "sentinel-2-l2a",
            "EPSG:32633",
            (120, 499980, -120, top),
            (915, 915),
            "blue green red nir scl",
            "scl",
            date,
        )
        for scene, top, date in (
            ("S2A_33TWL_20230815", 5100000, "2023-08-15T09:58"),
            ("S2A_33TWL_20230818", 5100000, "2023-08-18T10:08"),
            ("S2B_33TWL_20230810", 5100000, "2023-08-10T09:58"),
            ("S2B_33TWM_20230810", 5200020, "2023-08-10T09:57"),
        )
    ),
]
REFUSED = [
    Refused("earthsearch-v1__sentinel-1-grd.json", ("radar geometry", "sentinel-1-grd", "sentinel-1-rtc")),
    Refused("planetarycomputer__sentinel-1-grd.json", ("radar geometry", "sentinel-1-grd", "sentinel-1-rtc")),
    Refused("stactools-modis__MOD09A1_hdf-only.json", ("no readable raster", "hdf (application/x-hdf)", "GeoTIFF")),
]
