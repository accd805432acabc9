"""The MODIS recipe: which tiles, which composites of them, and what becomes of those."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import stac_api
from recipe_runs import Shelf, buckets, three_runs

import xchip
from xchip.io.storage import StorageOptions
from xchip.processors import modis, process
from xchip.processors.recipe import SAME, Catalogue, Item, Staging, Unit

BANDS = (*(f"sur_refl_b{number:02d}" for number in range(1, 8)), "sur_refl_state_500m", "sur_refl_qc_500m")
"""The assets that are staged: seven reflectances, the state flags, which mark clouds, and the quality control flags."""

OPTIONS: dict[str, Any] = {option.name: option.default for option in modis.RECIPE.all_options()}
SIZE = 1111950.5196666666
"""Metres of a tile; the map is 36 of them wide and 18 high (MODIS Land, sinusoidal tile grid)."""
RADIUS = 6371007.181
TILE = Unit(modis.TILES.index((10, 19)), "h19v10")
CRS = pyproj.CRS("+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs").to_wkt()
PIXELS = 60
"""Width of the tiles of small files."""


def composites(year: int, v: int = 10, h: int = 19, products: tuple[str, ...] = modis.PRODUCTS) -> list[Item]:
    """The items of a tile and a year, as the Planetary Computer has them: every eight days anew from 1 January."""
    return [
        composite(product, date(year, 1, 1) + timedelta(days=8 * number), v, h) for product in products for number in range(46)
    ]


def composite(product: str, begin: date, v: int = 10, h: int = 19, *, pixels: int = 2400) -> Item:
    end = begin + timedelta(days=7)
    left, top = (h - 18) * SIZE, (9 - v) * SIZE
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"{product}.A{begin:%Y%j}.h{h:02d}v{v:02d}.061.2025066034638",
        "collection": modis.COLLECTION,
        "geometry": {"type": "Polygon", "coordinates": [[[10, -20], [20, -20], [20, -10], [10, -10], [10, -20]]]},
        "bbox": [10, -20, 20, -10],
        "links": [],
        "properties": {
            "datetime": None,
            "start_datetime": f"{begin}T00:00:00Z",
            "end_datetime": f"{end}T23:59:59Z",
            "modis:tile-id": f"51{h:03d}{v:03d}",
            "modis:vertical-tile": v,
            "modis:horizontal-tile": h,
            "proj:epsg": None,
            "proj:wkt2": CRS,
            "proj:shape": [pixels, pixels],
            "proj:transform": [SIZE / pixels, 0.0, left, 0.0, -SIZE / pixels, top],
        },
        "assets": {name: {"href": f"https://example.com/{name}.tif", "roles": ["data"]} for name in (*BANDS, "hdf")},
    }


def write_tile(folder: Path, seed: int = 0) -> tuple[Item, dict[str, np.ndarray]]:
    """An item of few pixels, and its files with any values; every flag appears. Gives the item and the pixels by asset."""
    item = composite("MOD09A1", date(2020, 1, 1) + timedelta(days=8 * seed), pixels=PIXELS)
    rng = np.random.default_rng(seed)
    a, b, c, d, e, f = item["properties"]["proj:transform"]
    shape = (PIXELS, PIXELS)
    values = {}
    for name in BANDS:
        dtype = {"sur_refl_state_500m": "uint16", "sur_refl_qc_500m": "uint32"}.get(name, "int16")
        values[name] = rng.integers(0, 2**16 if dtype == "uint16" else 2**14, shape).astype(dtype)
    # A quarter of the tile was not seen; the quality flags say so as well as the state flags.
    unseen = (slice(None), slice(0, PIXELS // 4))
    for name, fill in [*modis.FILL.items(), *((name, -28672) for name in BANDS[:7])]:
        values[name][unseen] = fill
    for name, pixels in values.items():
        path = folder / item["id"] / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        profile = {"driver": "GTiff", "height": PIXELS, "width": PIXELS, "count": 1, "dtype": pixels.dtype, "crs": CRS}
        # Copies of the flags do not all declare their fill.
        nodata = None if name in modis.FILL else -28672
        transform = rasterio.Affine(a, b, c, d, e, f)
        with rasterio.open(
            path, "w", **profile, transform=transform, nodata=nodata, tiled=True, blockxsize=16, blockysize=16
        ) as file:
            file.write(pixels, 1)
        item["assets"][name]["href"] = str(path)
    return item, values


def classes(state: int) -> str:
    """What a pixel is by the user guide's table of the state flags."""
    if state == 65535:
        return "nodata"
    if state & 0b11 in (0b01, 0b10) or state >> 10 & 1 or state >> 8 & 0b11 == 0b11:
        return "cloud"
    if state >> 2 & 1:
        return "shadow"
    if state >> 12 & 1 or state >> 15 & 1:
        return "snow"
    return "clear" if state >> 3 & 0b111 in (1, 2) else "water"


def same_fractions(rows: Any, found: np.ndarray) -> None:
    """Whether an index has the fractions of an array of class names."""
    assert len(rows)
    for row in rows.itertuples():
        chip = found[row.row_off : row.row_off + row.height, row.col_off : row.col_off + row.width]
        valid = chip[chip != "nodata"]
        assert row.nodata_fraction == (chip == "nodata").mean()
        for name in ("cloud", "shadow", "snow", "water", "clear"):
            assert getattr(row, f"{name}_fraction") == pytest.approx(
                (valid == name).mean() if valid.size else np.nan, nan_ok=True
            )


def index_of(item: Item, root: Path, **options: Any) -> Any:
    """The index of one item, by the recipe's own assets and the pipeline."""
    recipe = replace(modis.RECIPE, choose=lambda unit, catalogue, rng, options: iter([item]), pixels=StorageOptions())
    options = {"size": 10, "max_nodata": 1.0, "progress": False, "client": False} | options
    report = process(recipe, root, 0, **options)
    assert report.failed == 0, report.failures["message"].tolist()
    return xchip.read_index(root)


def chosen(items: list[Item], seed: int = 0, order: int = 0, **options: Any) -> list[Item]:
    shelf: Any = Shelf(items, order)
    return list(modis.choose(TILE, shelf, np.random.default_rng(seed), OPTIONS | options))


def begins(items: list[Item]) -> list[date]:
    return [date.fromisoformat(item["properties"]["start_datetime"][:10]) for item in items]


# Which tiles


def test_tiles_are_free_of_fill() -> None:
    assert len(modis.TILES) == len(set(modis.TILES)) == 233
    assert list(modis.TILES) == sorted(modis.TILES)
    for v, h in modis.TILES:
        # The map is as wide as the cosine of the latitude; a tile is whole where its corner farthest from the middle is on it.
        x = max(abs(h - 18), abs(h + 1 - 18)) * SIZE
        y = max(abs(9 - v), abs(9 - v - 1)) * SIZE
        assert x <= np.pi * RADIUS * np.cos(y / RADIUS), (v, h)


def test_an_index_means_the_same_tile_as_with_stacchip() -> None:
    units = modis.units(OPTIONS)
    assert [unit.index for unit in units] == list(range(233))
    assert [units[number].name for number in (0, 12, 28, 232)] == ["h12v02", "h09v03", "h08v04", "h22v14"]


# Which composites


@given(years=st.lists(st.integers(2001, 2024), min_size=1, max_size=4), count=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_months_are_drawn_year_by_year(years: list[int], count: int, seed: int) -> None:
    drawn = modis.months_of(np.random.default_rng(seed), years, count)
    assert list(drawn) == sorted(set(years))
    for year, months in drawn.items():
        assert len(set(months)) == count
        assert set(months) <= set(range(1, 13))
        assert modis.months_of(np.random.default_rng(seed), [year], count) == {year: months}


def test_years_and_seeds_have_months_of_their_own() -> None:
    drawn = [modis.months_of(np.random.default_rng(seed), range(2001, 2021), 4) for seed in range(5)]
    assert len({tuple(months) for year in drawn for months in year.values()}) > 80


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), order=st.integers(0, 99), months=st.integers(1, 12), product=st.sampled_from(modis.PRODUCTS))
def test_the_first_composite_of_each_month(seed: int, order: int, months: int, product: str) -> None:
    years = (2019, 2020)
    catalogue = [item for year in years for item in composites(year)]
    found = chosen(catalogue, seed, order, years=years, months=months, product=product)
    drawn = modis.months_of(np.random.default_rng(seed), years, months)
    days = {year: begins(composites(year)) for year in years}
    wanted = [min(day for day in days[year] if day.month == month) for year in years for month in drawn[year]]
    assert begins(found) == wanted
    assert all(item["id"].startswith(f"{product}.") for item in found)
    assert chosen(catalogue, seed, order + 1, years=years, months=months, product=product) == found


def test_the_defaults_are_four_months_of_four_years_from_terra() -> None:
    items = chosen([item for year in range(2017, 2025) for item in composites(year)])
    assert [day.year for day in begins(items)] == [year for year in (2018, 2020, 2022, 2023) for _ in range(4)]
    assert {item["id"][:7] for item in items} == {"MOD09A1"}


def test_a_composite_that_was_made_twice_counts_once_and_the_later_one() -> None:
    items = composites(2020, products=("MOD09A1",))
    again = [{**item, "id": item["id"].replace("2025066034638", "2026001000000")} for item in items]
    found = chosen(items + again, years=(2020,), months=12)
    assert len(found) == 12
    assert all(item["id"].endswith("2026001000000") for item in found)


def test_a_month_without_a_composite_and_a_catalogue_without_any() -> None:
    items = [item for item in composites(2020) if begins([item])[0].month != 6]
    assert [day.month for day in begins(chosen(items, years=(2020,), months=12))] == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert chosen([], years=(2020,), months=12) == []


def test_other_tiles_are_not_taken() -> None:
    assert chosen(composites(2020, v=10, h=20), years=(2020,)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"years": ()}, "years is empty"), ({"months": 13}, "from 1 to 12, got 13"), ({"months": 0}, "from 1 to 12, got 0")],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(composites(2020), **options)


@pytest.mark.server
def test_the_search_of_a_real_server(tmp_path: Path) -> None:
    items = [*composites(2020), *composites(2020, h=20)]
    with stac_api(tmp_path, items) as url:
        catalogue = Catalogue(url)
        options = OPTIONS | {"years": (2020,)}
        served = list(modis.choose(TILE, catalogue, np.random.default_rng(3), options))
    assert [item["id"] for item in served] == [item["id"] for item in chosen(items, 3, years=(2020,))]


# What becomes of them


def test_seven_bands_and_both_flags_are_kept_as_they_are_or_warped() -> None:
    item = composite("MOD09A1", date(2020, 1, 1))
    native = modis.assets(item, OPTIONS)
    assert native == dict.fromkeys(BANDS, SAME)
    assert len(native) == 9
    warped = modis.assets(item, OPTIONS | {"crs": "EPSG:3857"})
    assert list(warped) == list(native)
    assert warped["sur_refl_b01"] == Staging(crs="EPSG:3857", resampling="nearest")
    # Beyond the tile the flags must say that nothing was seen.
    assert warped["sur_refl_state_500m"].nodata == 65535
    assert int(warped["sur_refl_qc_500m"].nodata or 0) & 0b11 == 0b11
    # What tells clouds is kept in any case.
    one = ["sur_refl_b01", "sur_refl_state_500m"]
    assert list(modis.assets(item, OPTIONS | {"assets": ("sur_refl_b01",)})) == one
    assert list(modis.assets(item, OPTIONS | {"assets": ("red", "sur_refl_b08")})) == one


def test_real_items_are_of_this_form(real_data: Path) -> None:
    made = composite("MYD09A1", date(2025, 2, 26), 10, 35)
    real = json.loads((real_data / "items/planetarycomputer__modis-09A1-061.json").read_text())
    assert made["id"] == real["id"]
    assert set(made["assets"]) <= set(real["assets"])
    for name in ("start_datetime", "end_datetime", "modis:tile-id", "modis:vertical-tile", "modis:horizontal-tile", "proj:shape"):
        assert made["properties"][name] == real["properties"][name]
    assert np.allclose(made["properties"]["proj:transform"], real["properties"]["proj:transform"])
    shelf: Any = Shelf([real])
    unit = Unit(modis.TILES.index((10, 33)), "h33v10")
    assert list(modis.choose(unit, shelf, np.random.default_rng(0), OPTIONS | {"years": (2025,), "months": 12})) == []
    for file in ("planetarycomputer__modis-09A1-061", "stactools-modis__MOD09A1"):
        item = json.loads((real_data / f"items/{file}.json").read_text())
        assert list(modis.assets(item, OPTIONS)) == list(BANDS)


def test_flags_are_read_as_the_user_guide_has_them(tmp_path: Path) -> None:
    item, values = write_tile(tmp_path / "source")
    rows = index_of(item, tmp_path / "native")
    assert len(rows) == 36
    assert set(rows["sensor"]) == {"modis-09a1"}
    same_fractions(rows, np.vectorize(classes)(values["sur_refl_state_500m"]))
    for name in BANDS:
        copy = tmp_path / "native/items" / modis.COLLECTION / item["id"] / f"{name}.tif"
        assert copy.read_bytes() == Path(item["assets"][name]["href"]).read_bytes()


def test_two_bits_of_the_quality_flags_are_not_the_other_way_round(tmp_path: Path) -> None:
    item, values = write_tile(tmp_path / "source")
    rows = index_of(item, tmp_path / "archive", assets=("sur_refl_b01", "sur_refl_qc_500m"))
    # MODLAND QA, bits 1 and 0: 00 ideal, 01 less than ideal, 10 not produced for clouds, 11 not produced for other reasons.
    names = np.array(["clear", "clear", "cloud", "nodata"])
    same_fractions(rows, names[values["sur_refl_qc_500m"] & 0b11])


def test_warped_to_another_map_by_the_nearest_pixel(tmp_path: Path) -> None:
    item, values = write_tile(tmp_path / "source")
    rows = index_of(item, tmp_path / "warped", crs="EPSG:3857")
    assert set(rows["proj_code"]) == {"EPSG:3857"}
    folder = tmp_path / "warped/items" / modis.COLLECTION / item["id"]
    grids = set()
    for name in BANDS:
        with rasterio.open(folder / f"{name}.tif") as made, rasterio.open(item["assets"][name]["href"]) as source:
            grids.add((made.transform, made.shape, made.crs))
            fill = modis.FILL.get(name, -28672)
            wanted = np.full(made.shape, fill, made.dtypes[0])
            rasterio.warp.reproject(
                rasterio.band(source, 1), wanted, dst_transform=made.transform, dst_crs=made.crs, dst_nodata=fill, src_nodata=fill
            )
            assert (made.read(1) == wanted).all()
            assert made.nodata == fill
    assert len(grids) == 1
    with rasterio.open(folder / "sur_refl_state_500m.tif") as made:
        state = made.read(1)
    # The tile's sides are slanted on this map: beyond them nothing was seen.
    assert (state == 65535).mean() > (values["sur_refl_state_500m"] == 65535).mean()
    same_fractions(rows, np.vectorize(classes)(state))


@pytest.mark.server
def test_from_a_real_api_to_archives_in_a_bucket(tmp_path: Path) -> None:
    items = []
    for number in range(8):
        item, _ = write_tile(tmp_path / "source", number)
        for name in BANDS:
            item["assets"][name]["href"] = f"s3://public/{item['id']}/{name}.tif"
        items.append(item)
    for name in ("s3", "api"):
        (tmp_path / name).mkdir()
    with buckets(tmp_path / "s3") as store, stac_api(tmp_path / "api", items) as url:
        store.upload(tmp_path / "source", "public")
        options: dict[str, Any] = {"api": url, "years": (2020,), "months": 12, "size": 16}
        for crs in ("native", "EPSG:3857"):
            root = f"s3://scenes/modis-{crs[-4:]}"
            rows = three_runs("modis", root, TILE.index, storage=store.owner, pixels=store.anybody, crs=crs, **options)
            # The items are those of January and February: the first of each month is taken.
            assert sorted(set(rows["item_id"])) == sorted(item["id"] for item in (items[0], items[4]))
            assert (rows["nodata_fraction"] <= 0.5).all()
            assert (rows["proj_code"] == "EPSG:3857").all() == (crs == "EPSG:3857")
