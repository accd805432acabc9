"""The main job against real servers: an object store, a STAC API, Dask workers in other processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pytest
from processes import dask_cluster, object_store, s3_client, stac_api

import xchip
from xchip.testing import write_scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [
        Path(write_scene(tmp_path_factory.mktemp("scenes"), item_id=f"scene-{n}", seed=n, shape=(600, 700))) for n in range(3)
    ]


@pytest.fixture(scope="module")
def expected(scenes: list[Path]) -> pd.DataFrame:
    return comparable(xchip.index_items(scenes, 128).compute())


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    rows = pd.DataFrame(rows).drop(columns=["item_href", "geometry"]).sort_values("chip_id", ignore_index=True)
    return rows.astype({name: object for name in rows if isinstance(rows[name].dtype, pd.StringDtype)})


# --- object store ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, scenes: list[Path]) -> Iterator[dict[str, str]]:
    with object_store(tmp_path_factory.mktemp("s3")) as environment:
        client = s3_client(environment["AWS_ENDPOINT_URL"])
        for path in scenes:
            for file in path.parent.iterdir():
                client.put_object(Bucket="scenes", Key=f"{path.stem}/{file.name}", Body=file.read_bytes())
        yield environment


@pytest.mark.server
def test_items_and_files_in_a_bucket(
    store: dict[str, str], scenes: list[Path], expected: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    urls = [f"s3://scenes/{path.stem}/{path.name}" for path in scenes]
    index = xchip.index_items(urls, 128)
    pd.testing.assert_frame_equal(comparable(index.compute()), expected)
    assert index.compute()["item_href"].unique().tolist() == urls

    xchip.write_index(index, "s3://scenes/index")
    back = [geopandas.read_parquet(f"s3://scenes/index/part-{n:06d}.parquet") for n in range(3)]
    pd.testing.assert_frame_equal(comparable(pd.concat(back)), expected, check_dtype=False)

    ds, local = xchip.stack(urls[0]), xchip.stack(scenes[0])
    rows = back[0].iloc[[1, 7]]
    pd.testing.assert_frame_equal(
        ds.chips.extract(rows)["red"].to_dataframe()[["red"]], local.chips.extract(rows)["red"].to_dataframe()[["red"]]
    )


@pytest.mark.server
def test_a_missing_object_names_item_and_file(store: dict[str, str], scenes: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    item = json.loads(scenes[0].read_text())
    for asset in item["assets"].values():
        asset["href"] = "s3://scenes/nowhere/" + asset["href"].rsplit("/", 1)[-1]
    with pytest.raises(xchip.ItemError, match=r"item 'synthetic-scene-0': .*s3://scenes/nowhere/SCL\.tif"):
        xchip.index_items(item, 128).compute()


# --- STAC API ---------------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_search_of_a_stac_api(scenes: list[Path], expected: pd.DataFrame, tmp_path: Path) -> None:
    import pystac_client

    items: list[dict[str, Any]] = []
    for path in scenes:
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = (path.parent / asset["href"]).as_uri()
        items.append(item)
    with stac_api(tmp_path, items) as url:
        client = pystac_client.Client.open(url)
        search = client.search(collections=[items[0]["collection"]], limit=2)
        pd.testing.assert_frame_equal(comparable(xchip.index_items(search, 128).compute()), expected)
        one = client.search(ids=["synthetic-scene-1"], collections=[items[0]["collection"]])
        assert xchip.stack(one)["item_id"].values.tolist() == ["synthetic-scene-1"]
        with pytest.raises(ValueError, match="no items"):
            xchip.index_items(client.search(ids=["nothing"], collections=[items[0]["collection"]]))


# --- Dask in other processes --------------------------------------------------------------------------------------------


@pytest.mark.server
def test_workers_in_other_processes(scenes: list[Path], expected: pd.DataFrame, tmp_path: Path) -> None:
    from distributed import Client

    with dask_cluster(tmp_path) as address, Client(address) as client:
        client.wait_for_workers(2, timeout=60)
        xchip.write_index(xchip.index_items(scenes, 128), tmp_path / "index")
        rows = geopandas.read_parquet(tmp_path / "index")
        pd.testing.assert_frame_equal(comparable(rows), expected, check_dtype=False)
        ds = xchip.stack(scenes)
        pd.testing.assert_frame_equal(comparable(ds.chips.index(128).compute()), expected)
        chips = ds.chips.extract(rows.sample(20, random_state=0)).compute()
    local = xchip.stack(scenes).chips.extract(rows.sample(20, random_state=0)).compute(scheduler="threads")
    assert local.equals(chips)
