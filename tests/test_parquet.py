"""Index files: what other readers find in them, and that nothing is lost or half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

import xchip
from xchip.indexing.rows import COLUMNS, FRACTIONS
from xchip.testing import synthetic_stack


def stack(times: int = 2) -> Any:
    scl = np.random.default_rng(1).integers(0, 12, (times, 70, 90)).astype("uint8")
    return synthetic_stack(scl=scl).assign_attrs(sensor="sentinel-2-l2a")


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Without what Parquet readers choose as they like: the index, and the kind of string."""
    frame = pd.DataFrame(frame).reset_index(drop=True)
    texts = {name: frame[name].astype(object).where(frame[name].notna(), None) for name in frame if _is_text(frame[name])}
    return frame.assign(**texts)


def _is_text(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.StringDtype) or column.dtype == object


def test_geopandas_reads_back_what_was_written(tmp_path: Path) -> None:
    rows = stack().chips.index(32)
    path = xchip.write_index(rows, tmp_path / "index.parquet")
    assert path == str(tmp_path / "index.parquet")
    back = geopandas.read_parquet(path)
    assert back.crs == "EPSG:4326" or back.crs == "OGC:CRS84"
    assert tuple(back.columns) == COLUMNS
    pd.testing.assert_frame_equal(plain(back.drop(columns="geometry")), plain(rows.drop(columns="geometry")), check_dtype=False)
    assert shapely.equals_exact(back.geometry.values, rows.geometry.values).all()


def test_types_are_the_schema(tmp_path: Path) -> None:
    xchip.write_index(stack().chips.index(32), tmp_path / "index.parquet")
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "index.parquet")}
    expected = dict.fromkeys(("chip_id", "item_id", "collection", "item_href", "sensor", "proj_code"), "string")
    expected |= dict.fromkeys(("chip_index_x", "chip_index_y", "col_off", "row_off", "width", "height"), "int32")
    expected |= dict.fromkeys(("proj_left", "proj_bottom", "proj_right", "proj_top", *FRACTIONS), "double")
    expected |= {"datetime": "timestamp[us, tz=UTC]", "geometry": "binary"}
    expected |= {"bbox": "struct<xmin: double, ymin: double, xmax: double, ymax: double>"}
    assert types == expected


def test_metadata_are_complete_geoparquet(tmp_path: Path) -> None:
    rows = stack().chips.index((32, 16), stride=16, edge="pad")
    xchip.write_index(rows, tmp_path / "index.parquet")
    file = pq.ParquetFile(tmp_path / "index.parquet")
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"]
    assert column["covering"] == {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}}
    assert column["crs"]["id"] == {"authority": "OGC", "code": "CRS84"}
    np.testing.assert_allclose(column["bbox"], rows.total_bounds)
    boxes = pd.DataFrame(pq.read_table(tmp_path / "index.parquet", columns=["bbox"])["bbox"].to_pylist())
    np.testing.assert_array_equal(boxes.to_numpy(), rows.bounds.to_numpy())
    assert shapely.is_ccw(shapely.get_exterior_ring(rows.geometry.values)).all()
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_metadata_record_sensor_and_grid(tmp_path: Path) -> None:
    rows = stack().chips.index((32, 16), stride=16, edge="pad")
    grid = {"size": [32, 16], "stride": [16, 16], "edge": "pad", "anchor": "origin"}
    grid |= {"proj_code": "EPSG:32719", "resolution": [10.0, 10.0], "phase": [0.0, 0.0]}
    lazy = stack().chunk(time=1).chips.index((32, 16), stride=16, edge="pad")
    for number, index in enumerate((rows, lazy, lazy[lazy.cloud_fraction < 0.9])):
        path = xchip.write_index(index, tmp_path / f"{number}.parquet")
        xchip_metadata = json.loads(pq.read_schema(path).metadata[b"xchip"])
        assert xchip_metadata["schema_version"] == "1.0"
        assert xchip_metadata["software"] == f"xchip {xchip.__version__}"
        assert xchip_metadata["grids"] == [{"sensor": "sentinel-2-l2a", "grid": grid}]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_folder_gets_a_file_a_partition(tmp_path: Path, lazy: bool) -> None:
    ds = stack()
    index = ds.chunk(time=1).chips.index(32) if lazy else ds.chips.index(32)
    folder = tmp_path / "index"
    xchip.write_index(index, folder)
    assert sorted(part.name for part in folder.iterdir()) == [f"part-{n:06d}.parquet" for n in range(2 if lazy else 1)]
    back = geopandas.read_parquet(folder)
    assert back["chip_id"].tolist() == ds.chips.index(32)["chip_id"].tolist()


def test_a_single_file_from_a_lazy_index_has_a_row_group_a_scene(tmp_path: Path) -> None:
    xchip.write_index(stack(5).chunk(time=1).chips.index(32), tmp_path / "index.parquet")
    assert pq.ParquetFile(tmp_path / "index.parquet").num_row_groups == 5


def test_an_old_index_is_replaced_only_by_a_complete_one(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    xchip.write_index(stack(3).chunk(time=1).chips.index(32), folder)
    before = {part: part.read_bytes() for part in folder.iterdir()}

    def fail(frame: pd.DataFrame) -> pd.DataFrame:
        if "synthetic-1" in set(frame["item_id"]):
            raise RuntimeError("the second scene is broken")
        return frame

    index = stack(3).chunk(time=1).chips.index(16)
    with pytest.raises(RuntimeError, match="second scene"):
        xchip.write_index(index.map_partitions(fail, meta=index._meta), folder)
    assert {part: part.read_bytes() for part in folder.iterdir()} == before
    with pytest.raises(RuntimeError, match="second scene"):
        xchip.write_index(index.map_partitions(fail, meta=index._meta), tmp_path / "one.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    xchip.write_index(stack(2).chunk(time=1).chips.index(16), folder)
    assert len(list(folder.iterdir())) == 2, "no part of the old index is left"


def test_folders_with_other_parquet_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cities.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"no parts of an index, such as 'cities\.parquet'; choose another folder"):
        xchip.write_index(stack().chips.index(32), tmp_path)
    assert (tmp_path / "cities.parquet").read_bytes() == b"mine"


def test_an_empty_index_has_columns(tmp_path: Path) -> None:
    back = geopandas.read_parquet(xchip.write_index(stack().chips.index(256), tmp_path / "index.parquet"))
    assert len(back) == 0
    assert tuple(back.columns) == COLUMNS


def test_columns_of_the_user_are_kept(tmp_path: Path) -> None:
    rows = stack().chips.index(32)
    rows["split"] = "train"
    rows["score"] = np.linspace(0, 1, len(rows))
    back = geopandas.read_parquet(xchip.write_index(rows, tmp_path / "index.parquet"))
    assert back["split"].tolist() == ["train"] * len(rows)
    assert back["score"].tolist() == rows["score"].tolist()


def test_stacchip_columns(tmp_path: Path) -> None:
    rows = stack().chips.index(32)
    back = geopandas.read_parquet(xchip.write_index(rows, tmp_path / "index.parquet", schema="stacchip"))
    assert back["chipid"].tolist() == rows["chip_id"].tolist()
    scl = stack()["scl"].values
    row = rows.iloc[3]
    window = scl[0, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
    assert back["cloud_cover_percentage"].iloc[3] == pytest.approx(np.isin(window, [1, 3, 8, 9, 10]).mean())
    assert back["nodata_percentage"].iloc[3] == (window == 0).mean()


def test_memory_filesystem_stands_for_buckets() -> None:
    rows = stack().chips.index(32)
    xchip.write_index(rows, "memory://bucket/index")
    back = geopandas.read_parquet("memory://bucket/index/part-000000.parquet")
    assert back["chip_id"].tolist() == rows["chip_id"].tolist()
    xchip.write_index(stack().chunk(time=1).chips.index(32), "memory://bucket/one.parquet")
    assert len(geopandas.read_parquet("memory://bucket/one.parquet")) == len(rows)


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    rows = stack().chips.index(32)
    with pytest.raises(ValueError, match=r"not an index: the columns \['cloud_fraction'\] are missing"):
        xchip.write_index(rows.drop(columns="cloud_fraction"), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="schema must be one of"):
        xchip.write_index(rows, tmp_path / "a.parquet", schema="mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.csv", "a.GeoParquet", "a.gpkg"])
def test_names_of_other_files_are_no_folders(tmp_path: Path, name: str) -> None:
    index = synthetic_stack(shape=(64, 64)).chips.index(32, item_id="scene")
    with pytest.raises(ValueError, match=rf"one file \*\.parquet or a folder of them, got '.*{name}'"):
        xchip.write_index(index, tmp_path / name)
    assert not list(tmp_path.iterdir())
