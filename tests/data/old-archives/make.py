"""How the archives beside this file were made. Not to be run again: later code must read what the code of `COMMIT` wrote.

All scenes are synthetic. The script uses only public names of xchip, the command line, and the test server of `COMMIT`::

    PYTHONPATH=. python tests/data/old-archives/make.py   # in a checkout of COMMIT, with this folder added
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import rasterio.warp
import shapely
from plain import DRONE, STRICT, digest, nodata_of, number_types, pixels_of, plain, rows_of

import xchip

COMMIT = "0c5848d7fe1bdb0c63c735f9b7604ca7de8cd9b9"

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
WORK = Path("/tmp/old-archives")
"""Where archives are made, for the hrefs of a merged index hold the place of its archives."""
BUCKET = "scenes"
"""Items are given with hrefs in this bucket, as those of a catalogue: they do not change when an archive is moved."""

# --- scenes -----------------------------------------------------------------------------------------------------------

Item = dict[str, Any]


def ramp(shape: tuple[int, int], dtype: str, seed: int) -> np.ndarray:
    """Pixels that tell where they are, from 1 up, and compress well."""
    y, x = np.indices(shape)
    top = 250 if dtype == "uint8" else 4000
    return ((37 * y + 11 * x + 101 * seed) % top + 1).astype(dtype)


def patches(shape: tuple[int, int], codes: Iterable[int], dtype: str, seed: int, side: int = 5) -> np.ndarray:
    """Squares of one code each."""
    y, x = np.indices(shape) // side
    table = np.array(list(codes), dtype)
    return table[(y * y + 3 * x + seed) % len(table)]


def write_item(
    scenes: Path,
    item_id: str,
    collection: str | None,
    bands: Mapping[str, np.ndarray],
    *,
    crs: str,
    resolution: float,
    origin: tuple[float, float],
    nodata: Mapping[str, float | None],
    names: Mapping[str, list[str]] | None = None,
    **properties: Any,
) -> Item:
    """Write a GeoTIFF for each asset below ``scenes``, and give the item as a catalogue would."""
    folder = quote(item_id, safe="")
    (scenes / folder).mkdir(parents=True, exist_ok=True)
    height = max(pixels.shape[-2] for pixels in bands.values())
    width = max(pixels.shape[-1] for pixels in bands.values())
    assets = {}
    for key, given in bands.items():
        pixels = given if given.ndim == 3 else given[None]
        step = resolution * height / pixels.shape[1]
        transform = rasterio.Affine(step, 0, origin[0], 0, -step, origin[1])
        profile = {"driver": "GTiff", "tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "predictor": 2}
        profile |= {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype.name}
        profile |= {"crs": crs, "transform": transform, "nodata": nodata.get(key), "interleave": "pixel"}
        with rasterio.open(scenes / folder / f"{key}.tif", "w", **profile) as file:
            file.write(pixels)
        described = [
            {"name": name, "data_type": pixels.dtype.name, **({} if nodata.get(key) is None else {"nodata": nodata[key]})}
            for name in (names or {}).get(key, [key])
        ]
        assets[key] = {
            "href": f"s3://{BUCKET}/{folder}/{key}.tif",
            "type": "image/tiff; application=geotiff",
            "roles": ["data"],
            "proj:shape": list(pixels.shape[1:]),
            "proj:transform": list(transform)[:6],
            "bands": described,
        }
    right, bottom = origin[0] + resolution * width, origin[1] - resolution * height
    outline = shapely.box(origin[0], bottom, right, origin[1]).__geo_interface__
    footprint = rasterio.warp.transform_geom(crs, "EPSG:4326", outline, precision=6)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        "id": item_id,
        **({} if collection is None else {"collection": collection}),
        "geometry": footprint,
        "bbox": list(shapely.geometry.shape(footprint).bounds),
        "properties": {"description": "Synthetic: no satellite has seen this place.", "proj:code": crs, **properties},
        "links": [{"rel": "self", "href": f"https://example.com/items/{folder}", "type": "application/geo+json"}],
        "assets": assets,
    }


def sentinel_scene(
    scenes: Path,
    item_id: str,
    seed: int,
    datetime: str,
    *,
    shape: tuple[int, int] = (96, 128),
    origin: tuple[float, float] = (499980.0, 6400000.0),
    bands: tuple[str, ...] = ("red", "green", "swir16"),
    **properties: Any,
) -> Item:
    """Bands of 10 and 20 m and classes of 20 m, with a corner that holds nothing."""
    coarse = (shape[0] // 2, shape[1] // 2)
    scl = patches(coarse, (4, 5, 8, 4, 6, 9, 4, 3, 5, 11, 10, 2, 1, 7), "uint8", seed)
    scl[: 9 + seed, : 14 + seed] = 0
    pixels: dict[str, np.ndarray] = {}
    for number, name in enumerate(bands):
        band_shape = coarse if name == "swir16" else shape
        pixels[name] = ramp(band_shape, "uint16", seed + number)
        factor = band_shape[0] // coarse[0]
        pixels[name][scl.repeat(factor, 0).repeat(factor, 1) == 0] = 0
    pixels["scl"] = scl
    return write_item(
        scenes, item_id, "sentinel-2-l2a", pixels, crs="EPSG:32719", resolution=10, origin=origin,
        nodata=dict.fromkeys(pixels, 0), datetime=datetime, constellation="sentinel-2", **properties,
    )  # fmt: skip


def sentinel_items(scenes: Path) -> list[Item]:
    """Two scenes, before and after the offset of processing baseline 04.00."""
    return [
        sentinel_scene(scenes, "S2A_19HCD_20190311_0_L2A", 1, "2019-03-11T14:06:36Z", **{"s2:processing_baseline": "02.11"}),
        sentinel_scene(
            scenes, "S2B_19HDD_20240316_0_L2A", 4, "2024-03-16T14:06:36.250000Z", origin=(609780.0, 6400000.0),
            **{"s2:processing_baseline": "05.10"},
        ),
    ]  # fmt: skip


def landsat_items(scenes: Path) -> list[Item]:
    """Three scenes in two CRSs, whose origins are half a pixel off, as USGS has them; the last shows nothing but cloud."""
    shape = (60, 80)
    codes = (21824, 21824, 22280, 21952, 23888, 21824, 30048, 54596, 21762)
    items = []
    for number, (item_id, crs, datetime) in enumerate(
        (
            ("LC08_L2SP_233083_20200410_02_T1", "EPSG:32619", "2020-04-10T14:29:00Z"),
            ("LC09_L2SP_001080_20230518_02_T1", "EPSG:32620", "2023-05-18T14:29:01Z"),
            ("LC08_L2SP_001080_20230526_02_T1", "EPSG:32620", "2023-05-26T14:29:02Z"),
        )
    ):
        qa = patches(shape, codes if number < 2 else (22280,), "uint16", number, side=7)
        qa[:, : 11 + number] = 1
        pixels = {name: ramp(shape, "uint16", seed) for seed, name in enumerate(("red", "green", "nir08"), 10 * number)}
        for band in pixels.values():
            band[qa == 1] = 0
        items.append(
            write_item(
                scenes, item_id, "landsat-c2-l2", {**pixels, "qa_pixel": qa}, crs=crs, resolution=30,
                origin=(361785.0 + 3000 * number, -3570885.0), nodata={"red": 0, "green": 0, "nir08": 0, "qa_pixel": 1},
                datetime=datetime, platform=f"landsat-{item_id[3]}",
            )
        )  # fmt: skip
    return items


def naip_items(scenes: Path) -> list[Item]:
    """Four bands in one file, whose href is signed, in a collection that no profile names."""
    pixels = np.stack([ramp((80, 96), "uint8", seed) for seed in range(4)])
    item = write_item(
        scenes, "ca_m_3711951_sw_11_060_20220511", "my-aerial-images", {"image": pixels}, crs="EPSG:26911", resolution=0.6,
        origin=(259800.0, 4103000.4), nodata={}, names={"image": ["red", "green", "blue", "nir"]},
        datetime="2022-05-11T16:00:00Z",
    )  # fmt: skip
    item["assets"]["image"]["href"] = "https://example.com/scenes/image.tif?se=2024-01-01&sp=r&sv=2020&sr=c&sig=a%2Fb"
    return [item]


def unknown_items(scenes: Path) -> list[Item]:
    """A product without a quality band, whose item has no collection and an id that is no file name."""
    height = ramp((70, 90), "int16", 2)
    slope = ramp((70, 90), "int16", 5)
    height[:20, :41] = slope[:20, :41] = -9999
    height[40:45, 50:60] = -9999
    return [
        write_item(
            scenes, "terrain 7/a", None, {"height": height, "slope": slope}, crs="EPSG:3857", resolution=25,
            origin=(1_000_000.0, 5_000_000.0), nodata={"height": -9999, "slope": -9999}, datetime="2011-02-03T00:00:00Z",
        )
    ]  # fmt: skip


def drone_items(scenes: Path) -> list[Item]:
    """A product that xchip does not know, with a mask."""
    mask = patches((48, 64), (1, 1, 2, 1, 0, 3), "uint8", 0)
    return [
        write_item(
            scenes, "flight-12", "flights", {"b1": ramp((48, 64), "uint8", 3), "mask": mask}, crs="EPSG:2056", resolution=0.1,
            origin=(2_600_000.0, 1_200_000.0), nodata={"b1": 0}, datetime="2024-07-01T09:30:00Z",
        )
    ]  # fmt: skip


def series_items(scenes: Path) -> list[Item]:
    """Three dates over one place; the second scene begins elsewhere, on the same pixels."""
    return [
        sentinel_scene(
            scenes, f"S2A_19HCD_20240{number + 3}11_0_L2A", number, f"2024-0{number + 3}-11T14:06:36Z", shape=(64, 64),
            origin=(499980.0 + (80.0 if number == 1 else 0.0), 6400000.0), bands=("red",), **{"s2:processing_baseline": "05.10"},
        )
        for number in range(3)
    ]  # fmt: skip


def interrupted_items(scenes: Path) -> list[Item]:
    """Six scenes."""
    return [
        sentinel_scene(scenes, f"scene-{number}", number, f"2024-01-0{number}T14:06:36Z", shape=(64, 64), bands=("red",))
        for number in range(1, 7)
    ]


# --- archives ---------------------------------------------------------------------------------------------------------


def bring(item: Item, store: Any, attempts: int) -> tuple[Item, tuple[()]]:
    """What `build_index` takes as ``prepare``: copies an item's files beside its JSON, so that the archive needs nothing else."""
    collection, folder = item.get("collection"), quote(item["id"], safe="")
    beside = Path(store.path(f"items/{'_' if collection is None else collection}/{folder}"))
    beside.mkdir(parents=True, exist_ok=True)
    source = Path(store.path()).parent / "bucket" / BUCKET / folder
    assets = {}
    for key, asset in item["assets"].items():
        shutil.copyfile(source / f"{key}.tif", beside / f"{key}.tif")
        assets[key] = {**asset, "href": str(beside / f"{key}.tif")}
    return {**item, "assets": assets}, ()


def write_lines(items: Iterable[Item], path: Path) -> None:
    """The items as they are given, one a line."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def build(name: str, make_items: Any, arguments: dict[str, Any], **objects: Any) -> Path:
    """An archive that holds the files of its items; ``arguments`` are those that JSON can hold."""
    folder = WORK / name
    write_lines(make_items(folder / "bucket" / BUCKET), folder / "items.ndjson")
    archive = folder / "archive"
    report = xchip.build_index(
        str(folder / "items.ndjson"), archive, prepare=bring, client=False, progress=False, **arguments, **objects
    )
    assert report.failed == 0, report.failures.to_dict("records")
    shutil.rmtree(folder / "bucket")
    return archive


# --- what is expected -------------------------------------------------------------------------------------------------


def command(*arguments: object) -> tuple[int, str]:
    """Exit status and output of the command line."""
    words = [sys.executable, "-c", "from xchip.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.returncode, done.stdout


def looked_at(archive: Path) -> dict[str, Any]:
    """What ``status`` and ``verify`` say."""
    exit_status, output = command("status", "--json", archive)
    status = json.loads(output)
    status.pop("path")
    exit_verify, problems = command("verify", archive)
    paths = [line.partition(":")[0] for line in problems.splitlines()[:-1]]
    return {"status": {"exit": exit_status, **status}, "verify": {"exit": exit_verify, "problems": paths}}


def expect(folder: Path, **expected: Any) -> None:
    """Write it down; a row or a chip a line, so that differences can be read."""
    text = json.dumps(expected, indent=1)
    lines = re.sub(r"\n {3,}|\n {2}(?=[]}])", " ", text)  # what is deeper than that stays on the line
    (folder / "expected.json").write_text(lines + "\n")


def expect_archive(archive: Path, arguments: dict[str, Any], opening: dict[str, Any], **objects: Any) -> None:
    """Rows, pixels, status and problems of an archive."""
    rows = xchip.read_index(archive)
    box = shapely.box(*rows.total_bounds)
    west, south, east, north = box.bounds
    corner = [west, south, west + (east - west) / 4, south + (north - south) / 4]
    chips = xchip.open_chips(rows, **opening, **objects)
    expect(
        archive.parent,
        arguments=arguments,
        **looked_at(archive),
        rows=rows_of(rows, archive),
        dtypes=number_types(rows),
        bbox=corner,
        in_bbox=xchip.read_index(archive, bbox=corner).chip_id.tolist(),
        clear=xchip.read_index(archive, filters=[("clear_fraction", ">", 0.5)]).chip_id.tolist(),
        opening=opening,
        nodata=nodata_of(chips),
        pixels=pixels_of(chips),
    )


# --- a run that is killed ---------------------------------------------------------------------------------------------


def run_that_is_killed(items: str, archive: str, url: str) -> None:
    """The run; `interrupted` kills it."""
    pixels = xchip.StorageOptions(endpoint=url, unsigned=True)
    xchip.build_index(items, archive, 32, pixels=pixels, client=False, workers=1, progress=False)


def interrupted() -> None:
    """Two items done, one failed, one done and not yet recorded, one begun, one not."""
    sys.path.insert(0, str(ROOT / "tests"))
    from servers import Asked, Fault, RangeServer

    folder = WORK / "interrupted"
    write_lines(interrupted_items(folder / BUCKET), folder / "items.ndjson")
    reached: list[str] = []

    def fault(asked: Asked) -> Fault | None:
        scene = asked.path.split("/")[2]
        reached.append(scene)
        if scene == "scene-2":
            return Fault(status=404)
        if scene == "scene-3" and asked.number == 0:
            time.sleep(2)  # so that what came before is recorded with this one, and what comes after is not
        if scene == "scene-5":
            time.sleep(5)
        return None

    archive = folder / "archive"
    with RangeServer(folder, fault=fault) as server:
        words = [sys.executable, __file__, "run", str(folder / "items.ndjson"), str(archive), server.url]
        process = subprocess.Popen(words)
        while "scene-5" not in reached:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = looked_at(archive)
    with RangeServer(folder) as server:
        pixels = xchip.StorageOptions(endpoint=server.url, unsigned=True)
        whole = WORK / "whole"
        xchip.build_index(str(folder / "items.ndjson"), whole, 32, pixels=pixels, client=False, progress=False)
        rows = xchip.read_index(whole)
        chips = xchip.open_chips(rows, ["red"], pixels=pixels)
        expect(
            folder,
            arguments={"size": 32},
            **before,
            rows_before=rows_of(xchip.read_index(archive), archive),
            rows=rows_of(rows, whole),
            opening={"assets": ["red"]},
            nodata=nodata_of(chips),
            pixels=pixels_of(chips),
        )
    shutil.rmtree(whole)


# --- tables -----------------------------------------------------------------------------------------------------------


def series() -> None:
    """Sequences of an archive's chips."""
    arguments = {"size": 16, "anchor": "crs"}
    archive = build("series", series_items, arguments, quality=STRICT)
    expect_archive(archive, arguments, {"assets": ["red"]})
    options = {"window": "month", "max_nodata": 0.5, "min_steps": 2}
    folder = WORK / "series-table"
    path = xchip.write_index(xchip.series(archive, **options), folder / "series.parquet")
    rows = xchip.read_index(path)
    chips = xchip.open_chips(rows, ["red"])
    expect(
        folder,
        options=options,
        rows=rows_of(rows),
        assets=["red"],
        observed=chips.observed.values.tolist(),
        pixels=pixels_of(chips, "place_id"),
    )


def tables(archives: list[Path]) -> None:
    """One index of several archives, in a file and in a folder; a split; stacchip's columns."""
    merged = WORK / "merged"
    xchip.merge_indexes(archives, merged / "index.parquet", progress=False)
    xchip.merge_indexes(archives, merged / "index", progress=False)
    expect(merged, sources=[path.parent.name for path in archives], rows=rows_of(xchip.read_index(merged / "index.parquet")))

    parts = WORK / "split"
    options = {"shares": {"train": 0.6, "test": 0.4}, "block_km": 1.0, "buffer_km": 0.05, "seed": 4}
    xchip.write_index(xchip.split(merged / "index.parquet", **options), parts / "split.parquet")
    rows = xchip.read_index(parts / "split.parquet")
    assert set(rows["split"]) == {"train", "test", "buffer"}, rows["split"].value_counts()
    expect(parts, options=options, rows=rows_of(rows))

    columns = WORK / "stacchip-columns"
    xchip.write_index(xchip.read_index(archives[0]), columns / "index.parquet", schema="stacchip")
    table = pq.read_table(columns / "index.parquet")
    expect(columns, columns=table.column_names, rows=rows_of(xchip.read_index(columns / "index.parquet", chip_size=32)))


def stacchip_bucket() -> None:
    """What stacchip's processors leave: items, their files and their tables; and all tables in one. Written by pyarrow."""
    folder = WORK / "stacchip-bucket"
    bucket = folder / "bucket"
    tables = []
    for number, item_id in enumerate(("m_3711951", "m_3711952")):
        item = write_item(
            bucket / "naip", item_id, "naip", {"image": np.stack([ramp((64, 96), "uint8", number + band) for band in range(4)])},
            crs="EPSG:26911", resolution=1, origin=(259800.0 + 2000 * number, 4103000.0), nodata={},
            names={"image": ["Red", "Green", "Blue", "NIR"]}, datetime=f"2022-05-1{number}T16:00:00Z",
        )  # fmt: skip
        item["assets"]["image"]["href"] = "./image.tif"
        (bucket / "naip" / item_id / "stac_item.json").write_text(json.dumps(item))
        cells = [(x, y) for y in range(2) for x in range(3)]
        left, top = 259800.0 + 2000 * number, 4103000.0
        edges = [shapely.box(left + 32 * x, top - 32 * (y + 1), left + 32 * (x + 1), top - 32 * y) for x, y in cells]
        outlines = geopandas.GeoSeries(edges, crs="EPSG:26911").to_crs(4326)
        table = pa.table(
            {
                "chipid": [f"{item_id}-{x}-{y}" for x, y in cells],
                "date": pa.array([np.datetime64(f"2022-05-1{number}").item()] * len(cells), pa.date32()),
                "chip_index_x": pa.array([x for x, _ in cells], pa.uint16()),
                "chip_index_y": pa.array([y for _, y in cells], pa.uint16()),
                "cloud_cover_percentage": pa.array([0.25 * (x == 1) for x, _ in cells], pa.float32()),
                "nodata_percentage": pa.array([0.5 * (y == 1) for _, y in cells], pa.float32()),
                "geometry": pa.array(shapely.to_wkb(outlines.to_numpy()), pa.binary()),
            }
        )
        path = bucket / "index" / "naip" / item_id / f"index_{item_id}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table, path)
        platform = pa.array(["naip"] * len(cells))
        tables.append(table.append_column("platform", platform).append_column("item", pa.array([item_id] * len(cells))))
    pq.write_table(pa.concat_tables(tables), folder / "merged.parquet")
    rows = xchip.read_index(bucket, chip_size=32)
    chips = xchip.open_chips(rows, ["red", "nir"])
    expect(
        folder,
        rows=rows_of(rows, bucket),
        merged=rows_of(xchip.read_index(folder / "merged.parquet", chip_size=32, items_root=str(bucket)), bucket),
        assets=["red", "nir"],
        pixels=pixels_of(chips),
    )


# --- exports ----------------------------------------------------------------------------------------------------------


def exports() -> None:
    """One export of each format."""
    import tarfile
    from io import BytesIO

    import xarray

    folder = WORK / "exports"
    made: dict[str, Any] = {}

    def export(format: Any, archives: list[str], **options: Any) -> tuple[Path, list[str]]:
        name = format.name
        out = folder / name
        report = xchip.export_chips(
            [WORK / archive / "archive" for archive in archives], out, format, client=False, progress=False, **options
        )
        assert report.failed == 0, report.failures
        files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        made[name] = {"archives": archives, "options": options, "chips": report.done, "files": files}
        return out, files

    both = {"assets": ["red", "green"], "harmonize": True, "seed": 3}
    out, files = export(xchip.Cubes(size=10), ["sentinel-2", "landsat"], **both)
    made["npz"]["arrays"] = {}
    for name in (name for name in files if name.endswith(".npz")):
        with np.load(out / name) as cube:
            arrays = {key: cube[key] for key in cube.files}
            made["npz"]["arrays"][name] = {
                **{key: array.tolist() for key, array in arrays.items() if key != "pixels"},
                "pixels": [digest(chip) for chip in arrays["pixels"]],
            }
    out, files = export(xchip.Shards(size=10), ["landsat"], **both)
    made["tar"]["members"] = {}
    for name in (name for name in files if name.endswith(".tar")):
        with tarfile.open(out / name) as shard:
            contents = {member.name: shard.extractfile(member).read() for member in shard.getmembers()}  # type: ignore[union-attr]
        made["tar"]["members"][name] = {
            member: digest(np.load(BytesIO(content))) if member.endswith(".npy") else json.loads(content)
            for member, content in contents.items()
        }
    out, files = export(xchip.GeoTiffs(), ["no-quality"], assets=["height", "slope"])
    made["tif"]["rasters"] = {}
    for name in (name for name in files if name.endswith(".tif")):
        with rasterio.open(out / name) as file:
            made["tif"]["rasters"][name] = {
                "pixels": digest(file.read()),
                "crs": file.crs.to_string(),
                "transform": list(file.transform)[:6],
                "nodata": file.nodata,
                "bands": list(file.descriptions),
            }
    out, files = export(xchip.ZarrStore(chunk=4, shard=8), ["sentinel-2"], assets=["red", "swir16"], harmonize=True)
    with xarray.open_zarr(out / "chips.zarr") as store:
        made["zarr"]["pixels"] = pixels_of(store)
        made["zarr"]["coords"] = {
            str(name): [plain(value) for value in coord.values.tolist()]
            for name, coord in store.coords.items()
            if coord.dims == ("chip",) and coord.dtype.kind in "iufOTU"
        }
        made["zarr"]["datetime"] = store.datetime.values.astype("datetime64[us]").astype(str).tolist()
    expect(folder, **made)


# --- all of it --------------------------------------------------------------------------------------------------------


def main() -> None:
    """Make the archives in `WORK`, and bring them here."""
    changed = subprocess.run(["git", "diff", "--quiet", COMMIT, "--", "xchip"], cwd=ROOT)
    if changed.returncode:
        raise SystemExit(f"xchip is not as at {COMMIT}: what is made now would not be an old archive")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    archives = []
    for name, make_items, arguments, opening in (
        ("sentinel-2", sentinel_items, {"size": 32}, {"assets": ["red", "green", "swir16", "scl"], "harmonize": True}),
        (
            "landsat",
            landsat_items,
            {"size": [24, 32], "edge": "pad", "max_nodata": 0.6, "max_cloud": 0.6},
            {"assets": ["red", "green", "nir08"]},
        ),
        ("naip", naip_items, {"size": 32, "stride": 16, "sensor": "naip"}, {"assets": None}),
        ("no-quality", unknown_items, {"size": 32, "edge": "partial"}, {"assets": ["height", "slope"], "pad": True}),
    ):
        archive = build(name, make_items, dict(arguments))
        expect_archive(archive, dict(arguments), dict(opening))
        archives.append(archive)
    archive = build("own-profile", drone_items, {"size": 16}, sensor=DRONE)
    expect_archive(archive, {"size": 16}, {"assets": ["red"]}, sensor=DRONE)
    series()
    interrupted()
    tables(archives)
    stacchip_bucket()
    exports()
    for folder in sorted(path for path in WORK.iterdir() if path.is_dir()):
        shutil.rmtree(HERE / folder.name, ignore_errors=True)
        shutil.copytree(folder, HERE / folder.name)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT)
    if sys.argv[1:2] == ["run"]:
        run_that_is_killed(*sys.argv[2:])
    else:
        main()
