"""Names in an archive: whatever an id is, its folder is one folder, and only its own."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from xchip.indexing.archive.layout import MAX_BYTES, folder_name, item_name, part_name

IDS = st.text(max_size=200)


@given(IDS)
@example("..")
@example(".hidden")
@example("_")
@example("")
@example("../../etc/passwd")
@example("\x00")
@example("ø" * 120)
def test_a_folder_name_is_one_plain_name(identifier: str) -> None:
    name = folder_name(identifier)
    assert name.isascii()
    assert 0 < len(name) <= MAX_BYTES
    assert not set(name) & set('/\\:*?"<>|\0 ')
    assert name[0] not in "._"


@given(IDS, IDS)
@example("x" * 300, "x" * 299 + "y")
@example("%2E", ".")
@example("%5F", "_")
@example("%00", "")
def test_different_ids_have_different_folders(one: str, other: str) -> None:
    assert (folder_name(one) == folder_name(other)) == (one == other)


def test_no_collection_is_a_name_that_no_collection_has() -> None:
    assert folder_name(None) == "_" != folder_name("_")


@given(IDS, IDS)
def test_items_and_parts_lie_below_their_folders(collection: str, item_id: str) -> None:
    assert part_name(collection, item_id) == f"index/{folder_name(collection)}/{folder_name(item_id)}/index.parquet"
    folder, file = item_name(collection, item_id).rsplit("/", 1)
    assert folder == f"items/{folder_name(collection)}/{folder_name(item_id)}"
    assert file == f"{folder_name(item_id)}.json"
