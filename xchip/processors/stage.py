"""Bringing an item's files into an archive: streamed, gone on with after a break, checked by size; or warped and written anew."""

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
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from xchip.core.scene import ItemError
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

T = TypeVar("T")

AT_ONCE = 4
"""Files of an item that are fetched at the same time."""
BLOCK = 1 << 23
"""Bytes that are held in memory of a file that is copied."""

STAGING = "xchip:staging"
"""Member of an asset that is to be brought into the archive: the fields of its `Staging`. The item's fingerprint covers it."""
PROBLEM = "xchip:problem"
"""Member of an item that can't be used: why."""
_FILE_EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"


def planned(item: Item, wanted: Mapping[str, Staging], *, copy: bool) -> Item:
    """``item`` with the ``wanted`` assets alone, and a note at each that is to be brought into the archive.

    Of several hrefs an asset keeps the one that programs can read without a login.

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
    """``item`` in a form that `Stage` refuses, with the reason."""
    return {**item, "assets": {}, PROBLEM: problem}


def _fields(rule: Staging) -> dict[str, Any]:
    """What of a rule is not as in `SAME`, as JSON."""
    default = asdict(Staging())
    changed = {name: value for name, value in asdict(rule).items() if value != default[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def _rule(fields: Mapping[str, Any]) -> Staging:
    """Undo `_fields`."""
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Staging(**known)


def file_names(item: Item) -> dict[str, str]:
    """Asset's key -> name of its file in the archive, relative to the root, of each asset that `planned` noted.

    They lie beside the item's JSON, under the names that they have at their source; two of one name are told apart by their keys.
    """
    folder = posixpath.dirname(item_name(collection_of(item), str(item.get("id"))))
    noted = {key: asset for key, asset in item["assets"].items() if STAGING in asset}
    own = {key: _base(asset["href"], warped=bool(asset[STAGING])) for key, asset in noted.items()}
    uses = Counter(name.lower() for name in own.values())
    return {key: f"{folder}/{folder_name(name if uses[name.lower()] == 1 else f'{key}-{name}')}" for key, name in own.items()}


def _base(href: str, *, warped: bool) -> str:
    path = unquote(urlsplit(href).path) if "://" in href else href
    name = posixpath.basename(path.replace("\\", "/").rstrip("/")) or "file"
    return f"{posixpath.splitext(name)[0]}.tif" if warped else name


@dataclass(frozen=True, slots=True)
class Stage:
    """Brings the files that `planned` noted into an archive: what `xchip.build_index` takes as ``prepare``."""

    pixels: StorageOptions
    """How the files are reached where they are."""
    block: int = BLOCK
    """Bytes that are asked for at a time."""

    def __call__(self, item: Item, store: Store, attempts: int) -> Outcome[Item]:
        """The item with hrefs in the archive, once its files are there; a file that is there already is not fetched again.

        Raises
        ------
        GivenUp
            If a file can't be had.
        ArchiveError
            If the archive can't be written.
        """
        if not item["assets"]:
            problem = item.get(PROBLEM, "none of its assets is among the bands to keep; say which with assets= (--assets)")
            raise _given_up(ItemError(str(item.get("id")), problem))
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
            staged = _own_grids(staged, as_published)
        if names:
            staged["stac_extensions"] = list(dict.fromkeys([*item.get("stac_extensions", ()), _FILE_EXTENSION]))
        return Outcome(staged, tuple(event for outcome in outcomes.values() for event in outcome.history))


def _given_up(error: ItemError) -> GivenUp:
    failure = GivenUp((Event(1, "permanent", type(error).__name__, str(error)),))
    failure.__cause__ = error
    return failure


def _own_grids(item: Item, as_published: list[str]) -> Item:
    """The item without a grid of its own: it goes to the assets that still have it, for others were warped."""
    properties = {name: value for name, value in item["properties"].items() if not name.startswith("proj:")}
    shared = {name: value for name, value in item["properties"].items() if name in GRID_FIELDS}
    assets = {key: shared | asset if key in as_published else asset for key, asset in item["assets"].items()}
    return {**item, "properties": properties, "assets": assets}


@dataclass(frozen=True, slots=True)
class _File:
    """A file on its way."""

    asset: Mapping[str, Any]
    store: Store
    name: str
    """Where it goes, relative to the archive's root."""
    how: Stage
    attempts: int
    history: list[Event] = field(default_factory=list)

    def stage(self) -> Outcome[dict[str, Any]]:
        """The asset as the archive has it; its file is there."""
        rule = _rule(self.asset[STAGING])
        plain = {name: value for name, value in self.asset.items() if name != STAGING} | {"href": self.store.path(self.name)}
        size = self._tried(self._size)
        if not rule.keeps_bytes:
            self._warp(rule, size)
            size = self._size_there()
            with self.store.storage.gdal():
                plain = described(plain, insistently(lambda: read_header(self.store.path(self.name))), rule)
        elif size is None or self._size_there() != size:
            with self._writing() as path:
                self._fetch(path, size)
                size = path.stat().st_size
        return Outcome(plain | {"file:size": size}, tuple(self.history))

    def _warp(self, rule: Staging, size: int | None) -> None:
        note = {"file": unsigned_href(self.asset["href"]), "size": size, **self.asset[STAGING]}
        if size is not None and self._note_there() == note:
            return
        with tempfile.TemporaryDirectory(prefix="xchip-") as folder:
            source = Path(folder) / posixpath.basename(self.name)
            self._fetch(source, size)
            with self._writing() as path:
                write_warped(source, path, rule, note)

    def _tried(self, function: Callable[[StorageOptions], T]) -> T:
        """What ``function`` gives, tried as often as there is hope; what went wrong is kept."""
        value, history = retrying(function, self.how.pixels, attempts=self.attempts)
        self.history.extend(history)
        return value

    def _place(self, pixels: StorageOptions) -> tuple[Any, str]:
        """(file system, path) of the source now."""
        return pixels.filesystem(pixels.sign(self.asset["href"]))

    def _size(self, pixels: StorageOptions) -> int | None:
        """Bytes of the source; None where its server does not say."""
        fs, path = self._place(pixels)
        try:
            size = fs.info(path).get("size")
        except FileNotFoundError as error:
            # Over HTTP fsspec says so of any refusal; the cause tells which, and so whether it will pass.
            raise error.__cause__ or error from None
        return None if size is None else int(size)

    def _fetch(self, target: Path, size: int | None) -> None:
        """Write the source's bytes to ``target``; after a break it goes on where it was."""
        with target.open("wb") as out:

            def go_on(pixels: StorageOptions) -> None:
                fs, path = self._place(pixels)
                if size is None:
                    out.seek(0)
                    out.truncate()
                    with fs.open(path, "rb") as whole:
                        shutil.copyfileobj(whole, out, self.how.block)
                    return
                while (start := out.tell()) < size:
                    stop = min(start + self.how.block, size)
                    block = fs.cat_file(path, start=start, end=stop)
                    if len(block) != stop - start:
                        problem = f"{len(block):,} bytes came of {stop - start:,} from byte {start:,} on"
                        raise ConnectionError(f"{unsigned_href(self.asset['href'])}: {problem}")
                    out.write(block)

            self._tried(go_on)

    def _size_there(self) -> int | None:
        """Bytes of the file in the archive; None where there is none."""
        fs, path = self.store.filesystem(self.name)
        try:
            return int(insistently(lambda: fs.info(path))["size"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArchiveError(f"can't look for {self.name!r} in the archive {self.store.path()!r}: {error}") from error

    def _note_there(self) -> Any:
        """What the file in the archive says that it was made of; read past GDAL's caches, for it may be replaced."""
        if self._size_there() is None:
            return None
        with self.store.open(self.name) as file:
            return note_in(file)

    @contextmanager
    def _writing(self) -> Iterator[Path]:
        """A path to write the archive's file to; it must arrive in full."""
        ours = False
        try:
            with self.store.writing(self.name) as path:
                ours = True
                yield path
                ours = False
                written = path.stat().st_size
            if (arrived := self._size_there()) != written:
                raise OSError(f"{arrived} bytes are there of {written}")
        except Exception as error:
            if ours or isinstance(error, ArchiveError):
                raise
            raise ArchiveError(f"can't write {self.name!r} into the archive {self.store.path()!r}: {error}") from error
