"""`plain_items`: every kind of thing that callers have items in, and what is no item."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from item_making import header_of, make_item, tif

from xchip.stac.scene.understand import plain_items, scenes, understand


def test_what_items_may_be(shared_data: Path) -> None:
    import pystac

    path = shared_data / "rasters" / "s2_29RKH" / "item.json"
    item = json.loads(path.read_text())
    whole = {"type": "FeatureCollection", "features": [item, item]}
    loaded = pystac.Item.from_file(str(path))
    assert "proj:code" in loaded.properties  # pystac turns proj:epsg into it
    collection = pystac.ItemCollection([loaded, loaded])
    for given_items, count, href in (
        (item, 1, None),
        ([item], 1, None),
        ((entry for entry in [item, path]), 2, None),
        (whole, 2, None),
        (path, 1, str(path)),
        (str(path), 1, str(path)),
        (path.as_uri(), 1, str(path)),
        ([path, str(path)], 2, str(path)),
        (loaded, 1, str(path)),
        (collection, 2, str(path)),
        ([collection, whole, [path]], 5, str(path)),
    ):
        found = list(plain_items(given_items))
        assert len(found) == count
        assert found[0][1] == href
        assert understand(found[-1][0]).grid.crs == "EPSG:32629"
    base = str(path.parent / "B02.tif")
    assert next(plain_items(path))[0]["assets"]["blue"]["href"] == base
    assert next(plain_items(loaded))[0]["assets"]["blue"]["href"] == base
    assert item["assets"]["blue"]["href"] == "./B02.tif"  # the caller's dict is left alone


def test_an_item_search(shared_data: Path) -> None:
    item = json.loads((shared_data / "items" / "planetarycomputer__naip.json").read_text())

    class ItemSearch:
        def items_as_dicts(self) -> Any:
            return iter([item, item])

    assert [scene.sensor for scene in scenes(ItemSearch())] == ["naip", "naip"]


def test_hrefs_are_resolved_against_the_file_or_the_self_link(tmp_path: Path) -> None:
    item = make_item({"a": {"href": "./a.tif", "alternate": {"x": {"href": "../b.tif"}}}, "b": {"href": "s3://c/b.tif"}})
    item["links"] = [{"rel": "self", "href": "https://example.com/x/y/item.json"}]
    (found,) = plain_items(item)
    assert found[1] == "https://example.com/x/y/item.json"
    assert found[0]["assets"]["a"]["href"] == "https://example.com/x/y/a.tif"
    assert found[0]["assets"]["a"]["alternate"]["x"]["href"] == "https://example.com/x/b.tif"
    assert found[0]["assets"]["b"]["href"] == "s3://c/b.tif"
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))
    ((by_file, href),) = plain_items(path)
    assert (by_file["assets"]["a"]["href"], href) == (str(tmp_path / "a.tif"), str(path))
    lines = tmp_path / "items.ndjson"
    item["links"] = []
    lines.write_text(f"{json.dumps(item)}\n\n{json.dumps(item)}\n")
    assert [(found["assets"]["a"]["href"], href) for found, href in plain_items(lines)] == [(str(tmp_path / "a.tif"), None)] * 2
    assert (
        understand(item, href="s3://bucket/items/item.json", header=lambda _: header_of()).bands[0].href
        == "s3://bucket/items/a.tif"
    )


def test_stac_geoparquet_gives_the_items_it_was_made_of(shared_data: Path) -> None:
    found = list(plain_items(shared_data / "items" / "stac-geoparquet__naip.parquet"))
    item, _ = found[0]
    assert (item["id"], item["collection"]) == ("ok_m_3409901_nw_14_1_20100425", "naip")
    assert item["properties"]["datetime"] == "2010-04-25T00:00:00Z"
    assert item["properties"]["proj:epsg"] == 26914
    assert item["geometry"]["type"] == "Polygon"
    assert "description" not in item["assets"]["image"]["eo:bands"][0]
    json.dumps([item for item, _ in found])
    item, _ = next(plain_items(shared_data / "items" / "stac-geoparquet__100-sentinel-2-items.parquet"))
    assert understand(item).bbox == pytest.approx((-105.365, 39.659, -104.885, 40.651), abs=1e-3)


def test_over_http(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp")
    import functools
    import http.server
    import threading

    (tmp_path / "item.json").write_text(json.dumps(make_item({"a": {**tif(), "href": "./a.tif"}})))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/item.json"
        (scene,) = scenes(url)
        server.shutdown()
    assert (scene.href, scene.bands[0].href) == (url, url.replace("item.json", "a.tif"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "no items: an empty list"),
        ({"type": "FeatureCollection", "features": []}, "no items: a FeatureCollection"),
        ({"type": "Collection", "id": "s2", "links": []}, "a STAC Collection ('s2'), which is not a STAC item"),
        ({"type": "Feature", "id": "f", "geometry": None, "properties": {}}, "a Feature ('f'), which is not a STAC item"),
        ({"a": 1}, "a dict with keys ['a']"),
        ([{"type": "FeatureCollection", "features": [7]}], "int '7'"),
        (7, "int '7' is not a STAC item"),
        (b"x", "bytes"),
        ([None], "NoneType"),
        ("/nowhere/item.json", "file '/nowhere/item.json' does not exist"),
    ],
)
def test_what_is_no_item(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match="pass") as caught:
        list(plain_items(value))
    assert words in str(caught.value)


def test_files_that_hold_no_items(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; pass its item files"):
        list(plain_items(tmp_path))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match=r"broken.json' is not JSON"):
        list(plain_items(broken))
    lines = tmp_path / "broken.ndjson"
    lines.write_text("\n{\n")
    with pytest.raises(ValueError, match=r"line 2 of .*broken.ndjson' is not JSON"):
        list(plain_items(lines))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="not a stac-geoparquet file: it has no column id and no assets"):
        list(plain_items(tmp_path / "other.parquet"))


@pytest.mark.parametrize("name", ["items.json", "items.parquet"])
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    with socket.socket() as taken:  # a port at which nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/{name}"
        with pytest.raises(OSError, match=rf"can't read '{url}': .*connect"):
            list(plain_items(url))
    (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(ValueError, match=rf"{name}' is not (JSON|a Parquet file): "):
        list(plain_items(tmp_path / name))


def test_pystac_objects_that_are_no_items() -> None:
    import pystac

    with pytest.raises(ValueError, match=r"Catalog \('c'\) is not an item; pass its items: catalog.get_items\(\)"):
        list(plain_items(pystac.Catalog("c", "d")))


def test_reading_dicts_imports_no_pystac() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from xchip.stac.scene.understand import plain_items; "
        "list(plain_items({'type': 'Feature', 'id': 'a', 'assets': {}}));"
        "print([m for m in ('pystac', 'rasterio', 'pyproj', 'shapely', 'dask', 'stackstac') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
