"""What tests of recipes share: a catalogue in memory, servers of items and files, and three runs on one archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import geopandas
from processes import object_store, s3_client

import xchip
from xchip.indexing.archive.layout import part_name
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.processors import process
from xchip.stac.api.conditions import Conditions, comparisons, interval, shape_of


@dataclass
class Shelf:
    """What a chooser takes for `xchip.processors.recipe.Catalogue`: items that are searched without a server."""

    items: list[dict[str, Any]]
    order: int = 0
    """Seed of the order in which items are given."""
    questions: list[dict[str, Any]] = field(default_factory=list)
    """What was asked."""

    def search(
        self, *, collections: str, datetime: Any = None, intersects: Any = None, query: Any = None
    ) -> Iterator[dict[str, Any]]:
        """The items that hold what is asked."""
        self.questions.append({"datetime": datetime, "intersects": intersects, "query": query})
        conditions = Conditions(
            collections=(collections,),
            ids=None,
            time=None if datetime is None else interval(datetime),
            area=None if intersects is None else shape_of(intersects),
            query=comparisons(query),
        )
        found = [item for item in self.items if conditions.holds(item)]
        Random(self.order).shuffle(found)
        return iter(found)


@dataclass(frozen=True)
class Buckets:
    """A real S3 server: "public" is for all to read, "scenes" for those with keys."""

    endpoint: str

    @property
    def owner(self) -> StorageOptions:
        """For one who may do all."""
        return StorageOptions(endpoint=self.endpoint, region="us-west-2", key="testkey", secret="testsecret")

    @property
    def anybody(self) -> StorageOptions:
        """For one without keys."""
        return StorageOptions(endpoint=self.endpoint, region="us-west-2", unsigned=True)

    def upload(self, folder: Path, bucket: str) -> None:
        """Put all files of a folder into a bucket."""
        client = s3_client(self.endpoint)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.put_object(Bucket=bucket, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes())


@contextmanager
def buckets(folder: Path) -> Iterator[Buckets]:
    """The server, as long as the block lasts; ``folder`` is for its data."""
    with object_store(folder) as environment:
        yield Buckets(environment["AWS_ENDPOINT_URL"])


def three_runs(recipe: str, root: str, index: int, *, storage: StorageOptions, **options: Any) -> geopandas.GeoDataFrame:
    """The index that a recipe makes; a second run must do nothing, and one after the loss of a part just that part."""
    options |= {"storage": storage, "progress": False, "client": False}
    first = process(recipe, root, index, **options)
    assert first.failed == 0, first.failures["message"].tolist()
    assert first.done > 0
    rows = xchip.read_index(root, storage=storage)
    again = process(recipe, root, index, **options)
    assert (again.done, again.skipped, again.failed) == (0, first.done, 0)
    lost = rows.iloc[0]
    part = part_name(lost["collection"], lost["item_id"])
    Store(root, storage).remove(part)
    third = process(recipe, root, index, **options)
    assert (third.done, third.skipped, third.failed) == (1, first.done - 1, 0)
    assert Store(root, storage).exists(part)
    healed = xchip.read_index(root, storage=storage)
    assert sorted(healed["chip_id"]) == sorted(rows["chip_id"])
    return healed
