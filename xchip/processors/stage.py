"""Bring an item's files into an archive: copy them in blocks, resume after errors, check their size; or warp them."""

from __future__ import annotations

import posixpath
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from xchip.core.scene import ItemError
from xchip.core.types import JSON
from xchip.indexing.archive.layout import folder_name, item_name
from xchip.indexing.archive.task import ArchiveError
from xchip.io.retry import Event, GivenUp, Outcome, insistently, retrying
from xchip.io.signing import unsigned_href
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.processors.recipe import Item, Staging
from xchip.processors.warp import GRID_FIELDS, described, note_in, write_warped
from xchip.raster.header import read_header
from xchip.stac.scene.assets import raster_assets
from xchip.stac.scene.understand import collection_of

if TYPE_CHECKING:
    import fsspec

T = TypeVar("T")

AT_ONCE = 4
"""Number of an item's files to fetch at the same time."""
BLOCK = 1 << 23
"""Bytes of a file to hold in memory while it is copied."""

STAGING = "xchip:staging"
"""Field of an asset to be brought into the archive: the fields of its `Staging`. The item's fingerprint covers it."""
PROBLEM = "xchip:problem"
"""Field of an item that can't be used: the reason."""
_FILE_EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"


def planned(item: Item, wanted: Mapping[str, Staging], *, copy: bool) -> Item:
    """Return ``item`` with only the ``wanted`` assets, and a note at each asset to be brought into the archive.

    If an asset has several hrefs, it keeps the href that programs can read without a login.

    Examples
    --------
    >>> item = {"id": "a", "assets": {"red": {"href": "s3://b/red.tif"}, "thumbnail": {"href": "s3://b/a.png"}}}
    >>> planned(item, {"red": Staging()}, copy=True)["assets"]
    {'red': {'href': 's3://b/red.tif', 'xchip:staging': {}}}
    >>> planned(item, {"red": Staging()}, copy=False)["assets"]
    {'red': {'href': 's3://b/red.tif'}}
    """
    hrefs = {raster.key: raster.href for raster in raster_assets(item, None)}
    missing = [key for key in wanted if key not in item["assets"]]
    if missing:
        raise ValueError(f"it has no asset {', '.join(missing)}, only {', '.join(item['assets'])}")
    assets = {}
    for key, rule in wanted.items():
        asset = dict(item["assets"][key])
        if copy or not rule.keeps_bytes:
            asset.pop("alternate", None)
            asset |= {"href": hrefs.get(key, asset["href"]), STAGING: _fields(rule)}
        assets[key] = asset
    return {**item, "assets": assets}


def refused(item: Item, problem: str) -> Item:
    """Mark ``item`` as unusable, so that `Stage` fails with the reason."""
    return {**item, "assets": {}, PROBLEM: problem}


def _fields(rule: Staging) -> dict[str, Any]:
    """Return the fields of a rule that differ from the defaults, as JSON."""
    default = asdict(Staging())
    changed = {name: value for name, value in asdict(rule).items() if value != default[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def _rule(fields: JSON) -> Staging:
    """Return the rule with these `_fields`."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Staging(**values)


def file_names(item: Item) -> dict[str, str]:
    """Return {key of each asset that `planned` noted: name of its file in the archive, relative to the root}.

    The files lie beside the item's JSON, under the names at their source; if two names are equal, the key is put in front.
    """
    folder = posixpath.dirname(item_name(collection_of(item), str(item.get("id"))))
    noted = {key: asset for key, asset in item["assets"].items() if STAGING in asset}
    names = {key: _base(asset["href"], warped=bool(asset[STAGING])) for key, asset in noted.items()}
    uses = Counter(name.lower() for name in names.values())
    return {key: f"{folder}/{folder_name(name if uses[name.lower()] == 1 else f'{key}-{name}')}" for key, name in names.items()}


def _base(href: str, *, warped: bool) -> str:
    path = unquote(urlsplit(href).path) if "://" in href else href
    name = posixpath.basename(path.replace("\\", "/").rstrip("/")) or "file"
    return f"{posixpath.splitext(name)[0]}.tif" if warped else name


@dataclass(frozen=True, slots=True)
class Stage:
    """Bring the files that `planned` noted into an archive; pass it to `xchip.build_index` as ``prepare``."""

    pixels: StorageOptions
    """How to reach the source files."""
    block: int = BLOCK
    """Bytes to request at a time."""

    def __call__(self, item: Item, store: Store, attempts: int) -> Outcome[Item]:
        """Bring the item's files into the archive, except files that are already there; return the item with its new hrefs.

        Raises
        ------
        GivenUp
            If a file can't be fetched, or the item is unusable.
        ArchiveError
            If the archive can't be written.
        """
        if not item["assets"]:
            problem = item.get(PROBLEM, "none of its assets is among the bands to keep; choose bands with assets= (--assets)")
            error = ItemError(str(item.get("id")), problem)
            raise GivenUp((Event(1, "permanent", type(error).__name__, str(error)),)) from error
        names = file_names(item)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="xchip-stage") as pool:
            futures = {
                key: pool.submit(_File(item["assets"][key], store, name, self, attempts).stage) for key, name in names.items()
            }
        outcomes = {key: future.result() for key, future in futures.items()}
        assets = {key: outcomes[key].value if key in outcomes else asset for key, asset in item["assets"].items()}
        staged = {**item, "assets": assets}
        as_published = [key for key, asset in item["assets"].items() if not asset.get(STAGING)]
        if len(as_published) < len(assets):
            staged = _grids_to_assets(staged, as_published)
        if names:
            staged["stac_extensions"] = list(dict.fromkeys([*item.get("stac_extensions", ()), _FILE_EXTENSION]))
        return Outcome(staged, tuple(event for outcome in outcomes.values() for event in outcome.history))


def _grids_to_assets(item: Item, as_published: list[str]) -> Item:
    """Move the item's grid to the assets that still have it, because the other assets were warped."""
    properties = {name: value for name, value in item["properties"].items() if not name.startswith("proj:")}
    shared = {name: value for name, value in item["properties"].items() if name in GRID_FIELDS}
    assets = {key: shared | asset if key in as_published else asset for key, asset in item["assets"].items()}
    return {**item, "properties": properties, "assets": assets}


@dataclass(frozen=True, slots=True)
class _File:
    """A file to bring into the archive."""

    asset: JSON
    store: Store
    name: str
    """Name in the archive, relative to the root."""
    settings: Stage
    attempts: int
    history: list[Event] = field(default_factory=list)

    def stage(self) -> Outcome[dict[str, Any]]:
        """Bring the file into the archive; return the asset that describes it there."""
        rule = _rule(self.asset[STAGING])
        staged = {name: value for name, value in self.asset.items() if name != STAGING} | {"href": self.store.path(self.name)}
        size = self._retry(self._size)
        if not rule.keeps_bytes:
            self._warp(rule, size)
            size = self._archived_size()
            with self.store.storage.gdal():
                staged = described(staged, insistently(lambda: read_header(self.store.path(self.name))), rule)
        elif size is None or self._archived_size() != size:
            with self._writing() as path:
                self._fetch(path, size)
                size = path.stat().st_size
        return Outcome(staged | {"file:size": size}, tuple(self.history))

    def _warp(self, rule: Staging, size: int | None) -> None:
        note = {"file": unsigned_href(self.asset["href"]), "size": size, **self.asset[STAGING]}
        if size is not None and self._archived_note() == note:
            return
        with tempfile.TemporaryDirectory(prefix="xchip-") as folder:
            source = Path(folder) / posixpath.basename(self.name)
            self._fetch(source, size)
            with self._writing() as path:
                write_warped(source, path, rule, note)

    def _retry(self, function: Callable[[StorageOptions], T]) -> T:
        """Call ``function`` with retries, and add its errors to the history."""
        value, history = retrying(function, self.settings.pixels, attempts=self.attempts)
        self.history.extend(history)
        return value

    def _source(self, pixels: StorageOptions) -> tuple[fsspec.AbstractFileSystem, str]:
        """Return (file system, path) of the source, newly signed."""
        return pixels.filesystem(pixels.sign(self.asset["href"]))

    def _size(self, pixels: StorageOptions) -> int | None:
        """Return the size of the source in bytes; None if its server does not send it."""
        fs, path = self._source(pixels)
        try:
            size = fs.info(path).get("size")
        except FileNotFoundError as error:
            # Over HTTP, fsspec raises FileNotFoundError for any refusal; the cause says whether the error is transient.
            raise error.__cause__ or error from None
        return None if size is None else int(size)

    def _fetch(self, target: Path, size: int | None) -> None:
        """Write the source's bytes to ``target``; each retry resumes where the last attempt ended."""
        with target.open("wb") as out:

            def resume(pixels: StorageOptions) -> None:
                fs, path = self._source(pixels)
                if size is None:
                    out.seek(0)
                    out.truncate()
                    with fs.open(path, "rb") as source:
                        shutil.copyfileobj(source, out, self.settings.block)
                    return
                while (start := out.tell()) < size:
                    stop = min(start + self.settings.block, size)
                    block = fs.cat_file(path, start=start, end=stop)
                    if len(block) != stop - start:
                        problem = f"got {len(block):,} of {stop - start:,} bytes from byte {start:,} on"
                        raise ConnectionError(f"{unsigned_href(self.asset['href'])}: {problem}")
                    out.write(block)

            self._retry(resume)

    def _archived_size(self) -> int | None:
        """Return the size of the file in the archive; None if it is absent."""
        fs, path = self.store.filesystem(self.name)
        try:
            return int(insistently(lambda: fs.info(path))["size"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArchiveError(f"can't look for {self.name!r} in the archive {self.store.path()!r}: {error}") from error

    def _archived_note(self) -> object:
        """Return the note in the archive's file; it is read past GDAL's caches, because the file may be replaced."""
        if self._archived_size() is None:
            return None
        with self.store.open(self.name) as file:
            return note_in(file)

    @contextmanager
    def _writing(self) -> Iterator[Path]:
        """Give a local path to write to; copy the file to the archive and check that it arrives in full."""
        caller_writes = False
        try:
            with self.store.writing(self.name) as path:
                caller_writes = True
                yield path
                caller_writes = False
                written = path.stat().st_size
            if (arrived := self._archived_size()) != written:
                raise OSError(f"{arrived or 0:,} of {written:,} bytes arrived")
        except Exception as error:
            if caller_writes or isinstance(error, ArchiveError):
                raise
            raise ArchiveError(f"can't write {self.name!r} into the archive {self.store.path()!r}: {error}") from error
