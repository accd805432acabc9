"""Tiles that are decoded without GDAL hold what GDAL reads; and GDAL reads all that can't be decoded so."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.errors
from hypothesis import given, reject
from hypothesis import strategies as st
from rasterio.errors import RasterioError
from rasterio.windows import Window

from xchip.io import gdal as pool
from xchip.io.gdal import POOL, DatasetPool
from xchip.raster import deflate_tiles as tiles
from xchip.raster.deflate_tiles import inflate, read_tiles
from xchip.raster.reader import strips
from xchip.raster.regrid import Box

pytest.importorskip("imagecodecs", reason="needs xchip[fast]")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """Save (band, y, x) values as a tiled GeoTIFF, with deflate unless ``profile`` says otherwise."""
    count, height, width = values.shape
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate"} | profile
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=values.dtype, **tiled) as file:
        file.write(values)
    return path


def noise(shape: tuple[int, int, int], dtype: str, seed: int = 0) -> np.ndarray:
    """Any bits: for floats too, but for NaN, which equals nothing."""
    values = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    found = values.view(dtype)[..., 0]
    return np.nan_to_num(found) if found.dtype.kind == "f" else found


def decoded(path: Path, indexes: list[int], box: Box) -> np.ndarray | None:
    """What is decoded without GDAL, if anything."""
    with rasterio.open(path) as file:
        out = np.full((len(indexes), *box.shape), 77, file.dtypes[0])
        return out if inflate(file, indexes, box, out) else None


def read_by_gdal(path: Path, indexes: list[int], box: Box) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(indexes, window=Window(box.left, box.top, box.shape[1], box.shape[0]))


@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]),
    predictor=st.sampled_from([1, 2, 3]),
    interleave=st.sampled_from(["pixel", "band"]),
    bigtiff=st.sampled_from(["YES", "NO"]),
    tile=st.tuples(st.sampled_from([16, 48]), st.sampled_from([16, 32])),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 100), st.integers(1, 100)),
    data=st.data(),
)
def test_whole_tiles_are_what_gdal_reads(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, predictor: int, interleave: str, bigtiff: str,
    tile: tuple[int, int], shape: tuple[int, int, int], data: st.DataObject,
) -> None:  # fmt: skip
    if predictor == 3 and dtype not in ("float32", "float64"):
        predictor = 2
    profile = {"predictor": predictor, "interleave": interleave, "bigtiff": bigtiff, "blockysize": tile[0], "blockxsize": tile[1]}
    try:
        path = write(tmp_path_factory.mktemp("tiles") / "a.tif", noise(shape, dtype), **profile)
    except rasterio.errors.RasterioIOError as error:
        if "64 bit samples" not in str(error):
            raise
        reject()  # rasterio's wheels before 1.4.4 have a libtiff that can't do it
    edges = []
    for size, step in zip(shape[1:], tile, strict=True):
        first = data.draw(st.sampled_from(range(0, size, step)))
        edges.append((first, data.draw(st.sampled_from([*range(first + step, size, step), size]))))
    (top, bottom), (left, right) = edges
    box = Box(top, bottom, left, right)
    indexes = data.draw(st.lists(st.integers(1, shape[0]), min_size=1, max_size=4, unique=True))
    found = decoded(path, indexes, box)
    if predictor == 3 and interleave == "pixel" and shape[0] > 1:
        assert found is None
    else:
        np.testing.assert_array_equal(found, read_by_gdal(path, indexes, box))


@pytest.mark.parametrize(
    "profile",
    [
        {"compress": "lzw"},
        {"compress": "zstd"},
        {"compress": None},
        {"tiled": False, "blockxsize": None},  # strips
        {"nbits": 12},
        {"endianness": "big"},
    ],
    ids=str,
)
def test_what_is_not_known_is_left_to_gdal(tmp_path: Path, profile: dict[str, Any]) -> None:
    values = noise((2, 70, 90), "uint16") % 4096
    path = write(tmp_path / "a.tif", values, **profile)
    whole = Box(0, 70, 0, 90)
    assert decoded(path, [1, 2], whole) is None
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(read_tiles(file, [2, 1], whole), values[::-1])


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_inks_that_gdal_makes_colours_of_are_left_to_it(tmp_path: Path, interleave: str) -> None:
    values = noise((4, 70, 90), "uint8")
    path = write(tmp_path / "a.tif", values, photometric="CMYK", interleave=interleave)
    whole = Box(0, 70, 0, 90)
    assert decoded(path, [1, 2, 3, 4], whole) is None
    colours = read_by_gdal(path, [1, 2, 3, 4], whole)
    assert (colours != values).any()
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(read_tiles(file, [1, 2, 3, 4], whole), colours)


def test_a_window_inside_tiles_is_left_to_gdal(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise((1, 70, 90), "uint8"))
    for box in (Box(0, 16, 1, 32), Box(0, 16, 0, 31), Box(3, 16, 0, 32), Box(0, 15, 0, 32), Box(16, 16, 0, 32)):
        assert decoded(path, [1], box) is None
    assert decoded(path, [1], Box(64, 70, 64, 90)) is not None  # tiles at the image's corner are cut there


def test_a_tile_that_was_never_written_holds_nodata_as_gdal_says(tmp_path: Path) -> None:
    profile = {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate", "sparse_ok": True, "nodata": 9}
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 64, 32, 1, dtype="uint8", **profile) as file:
        file.write(np.ones((1, 16, 32), np.uint8), window=Window(0, 0, 32, 16))
    assert decoded(tmp_path / "a.tif", [1], Box(0, 16, 0, 32)) is not None
    assert decoded(tmp_path / "a.tif", [1], Box(0, 32, 0, 64)) is None
    with rasterio.open(tmp_path / "a.tif") as file:
        values = read_tiles(file, [1], Box(0, 32, 0, 64))[0]
    assert (values[:16, :32] == 1).all()
    assert values[16:].tolist() == [[9] * 64] * 16


@pytest.mark.parametrize("damage", ["flipped", "cut", "swapped"])
def test_damage_is_found_and_gdal_tells_of_it(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "a.tif", noise((1, 64, 64), "uint16"), predictor=2)
    with rasterio.open(path) as file:
        start, size = (int(file.get_tag_item(f"BLOCK_{what}_1_2", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[start + size // 2] ^= 255
    elif damage == "swapped":
        data[start : start + size] = bytes(size)
    path.write_bytes(data[: start + size // 2] if damage == "cut" else data)
    whole = Box(0, 64, 0, 64)
    assert decoded(path, [1], whole) is None
    with rasterio.open(path) as file, pytest.raises(RasterioError):
        read_tiles(file, [1], whole)
    with pytest.raises(OSError, match=r"a\.tif"):
        list(strips(str(path)))


@given(
    bigtiff=st.sampled_from(["YES", "NO"]),
    cut=st.integers(0, 600),
    flips=st.lists(st.tuples(st.integers(0, 599), st.integers(0, 255)), max_size=9),
)
def test_a_damaged_header_is_never_more_than_unknown(
    tmp_path_factory: pytest.TempPathFactory, bigtiff: str, cut: int, flips: list[tuple[int, int]]
) -> None:
    path = write(tmp_path_factory.mktemp("tiles") / "a.tif", noise((1, 64, 64), "uint8"), bigtiff=bigtiff)
    whole = path.read_bytes()
    with rasterio.open(path) as file:
        sound = inflate(file, [1], Box(0, 64, 0, 64), np.empty((1, 64, 64), np.uint8))
        assert sound
    data = bytearray(whole)
    for at, value in flips:
        data[at] = value
    path.write_bytes(data[: len(data) - cut])
    with tiles._opened(str(path)) as file:
        layout = tiles._layout(file)
        out = np.empty((1, 32, 32), np.uint8)
        if layout is not None and layout.bits == 8 and (layout.samples, layout.planes) == (1, 1):
            tiles._fill(file, layout, [0], Box(0, 16, 0, 32), out)


@pytest.mark.parametrize("entries", [[(317, 1, 1, 2)], [(317, 8, 1, 2)], [(317, 9, 1, 2)], [(317, 3, 1, 2), (317, 3, 1, 1)]])
def test_tags_that_gdal_may_read_otherwise_are_left_to_it(tmp_path: Path, entries: list[tuple[int, int, int, int]]) -> None:
    # The predictor as BYTE, SSHORT or SLONG, and twice: GDAL takes all these.
    path = write(tmp_path / "a.tif", noise((1, 70, 90), "uint16"))
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (number,) = struct.unpack_from("<H", data, start)
    own = [struct.unpack_from("<HHII", data, start + 2 + 12 * at) for at in range(number)]
    table = sorted([*(entry for entry in own if entry[0] != 317), *entries], key=lambda entry: entry[0])
    struct.pack_into("<I", data, 4, len(data))
    rows = b"".join(struct.pack("<HHII", *entry) for entry in table)
    path.write_bytes(data + struct.pack("<H", len(table)) + rows + bytes(4))
    whole = Box(0, 70, 0, 90)
    assert decoded(path, [1], whole) is None
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(read_tiles(file, [1], whole), read_by_gdal(path, [1], whole))


def test_a_file_that_is_written_again_is_read_anew(tmp_path: Path) -> None:
    whole = Box(0, 64, 0, 64)
    for seed, tile in enumerate((16, 32, 64)):
        values = noise((1, 64, 64), "uint8", seed)
        path = write(tmp_path / "a.tif", values, blockxsize=tile, blockysize=tile)
        with POOL.borrowed(str(path)) as file:
            np.testing.assert_array_equal(read_tiles(file, [1], whole), values)
        np.testing.assert_array_equal(decoded(path, [1], whole), values)


def test_without_the_extra_gdal_reads_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise((3, 64, 64), "uint8")
    path = write(tmp_path / "a.tif", values)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    tiles._codecs.cache_clear()
    try:
        assert decoded(path, [1], Box(0, 64, 0, 64)) is None
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(read_tiles(file, [3, 1], Box(0, 64, 0, 64)), values[[2, 0]])
    finally:
        tiles._codecs.cache_clear()


def test_real_files_are_what_gdal_reads(shared_data: Path) -> None:
    own = 0
    for path in sorted((shared_data / "rasters").rglob("*.[tT][iI][fF]")):
        with rasterio.open(path) as file:
            if file.driver != "GTiff" or max(file.shape) > 20_000:
                continue
            box, indexes = Box(0, file.height, 0, file.width), list(file.indexes)
        found = decoded(path, indexes, box)
        if found is not None:
            np.testing.assert_array_equal(found, read_by_gdal(path, indexes, box), err_msg=path.name)
            own += 1
    assert own >= 10


def test_gdal_keeps_little_of_what_was_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write(tmp_path / "a.tif", noise((1, 64, 64), "uint8"), compress="lzw"))
    monkeypatch.setattr(pool, "KEPT_BYTES", 3000)
    monkeypatch.setattr(tiles, "POOL", own := DatasetPool())

    def still_open_after(box: Box) -> bool:
        with own.borrowed(path) as file:
            read_tiles(file, [1], box)
        return not file.closed

    part, whole = Box(0, 64, 1, 64), Box(0, 32, 0, 64)
    assert all(still_open_after(part) for _ in range(9)), "what GDAL keeps of blocks that were read in part serves the next"
    assert still_open_after(whole)
    assert not still_open_after(whole)
    assert still_open_after(whole), "it is opened anew"
