"""Features on disk, under the hash of everything that made them; any number of processes may share one store.

    ROOT/features/KEY/made-by.json     what KEY stands for
    ROOT/features/KEY/*-SUM.parquet    shards: content_hash, thumbnail, and one fixed-size float16 list a block

A shard is written beside its place, flushed, then renamed: it is there whole or not at all. Shards are only ever
added, each under a name of its own, so two writers cannot collide; an image that both wrote is read once. SUM is the
checksum of all its bytes, and nothing of a shard is handed out before they agree. A shard that cannot be read or has
changed is treated as absent, and its images are computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import platformdirs
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.errors import OutputError
from headstart.files.arrow import numbers, rows_of, texts
from headstart.files.parquet import open_parquet
from headstart.files.reading import read_regular, why
from headstart.files.whole import sweep, write_whole

SHARD_ROWS = 512  # images lost at most by a kill: 1.5 s of work for the default backbone on 2 cores
SHARD_BYTES = 64 * 2**20  # of feature maps: fewer rows a shard, so that memory stays bounded
IN_MEMORY = 2**29  # bytes of all blocks of one view; feature maps of more are read from disk as they are needed
MAP = "/map"  # the end of the name of a block that holds maps
THUMBNAIL_BYTES = 16 * 16 * 3
MOST_SHARD = 2**31  # bytes of a shard that is read: one of feature maps is one row larger than SHARD_BYTES at most
MADE_BY = "made-by.json"
TRIES = 20  # to write a shard while other processes clear the store
# Features do not compress.
AS_IT_IS: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
UNREADABLE = (OSError, pa.ArrowException, KeyError, ValueError)  # what pyarrow and numpy say of a damaged shard
Halves = npt.NDArray[np.float16]
Made = TypeVar("Made")


def cache_root(given: str | None = None) -> Path:
    """The folder of what can be computed again: `given`, else HEADSTART_CACHE, else the platform's cache folder."""
    return Path(given or os.environ.get("HEADSTART_CACHE") or platformdirs.user_cache_dir("headstart"))


@dataclass(frozen=True)
class Found:
    """Rows of the store in the order asked for."""

    thumbnails: npt.NDArray[np.uint8]  # (image, 16, 16, 3)
    blocks: dict[str, Halves]  # block -> (image, feature)


class OnDisk(np.memmap):
    """(row, value) in a file. Rows are copied as they are read and written, and leave this process's memory again: the
    system keeps what it has room for, and a set of any size is read by a process of a size of its own."""

    def __getitem__(self, index: Any) -> Any:
        found = np.array(self.view(np.ndarray)[index])
        self.release()
        return found

    def __setitem__(self, index: Any, value: Any) -> None:
        self.view(np.ndarray)[index] = value  # numpy itself would write into what __getitem__ gives
        self.release()

    def release(self) -> None:
        """Let its pages leave this process's memory; what was written stays."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def nameless(folder: Path, n: int, width: int) -> Halves:
    """(n, width) values in a file of this folder without a name, gone with the process. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk says so here; later it would end the process
            os.posix_fallocate(file.fileno(), 0, n * width * 2)
        return OnDisk(file, np.float16, "w+", shape=(n, width))


class Store:
    """Features of one (weights, preprocess, engine, taps) combination. Raises OutputError where it cannot write."""

    def __init__(self, root: Path, made_by: Mapping[str, Any]) -> None:
        self._made_by = json.dumps(made_by, sort_keys=True, indent=1)
        self.root = root
        self.folder = root / "features" / hashlib.blake2b(self._made_by.encode(), digest_size=16).hexdigest()
        self._in_place(lambda: sweep(self.folder))
        self._where: dict[str, tuple[Path, int]] = {}
        self._known: set[str] = set()  # names of shards whose hashes were read
        self.take_in(sorted(path.name for path in self.folder.glob("*-*.parquet")))

    def take_in(self, shards: Iterable[str]) -> None:
        """Know of the images in shards that others have added, by the names of their files."""
        for name in shards:
            if name not in self._known:
                self._known.add(name)
                self._index(self.folder / name)

    def shards_of(self, hashes: Iterable[str]) -> frozenset[str]:
        """The names of the shards in which these images are."""
        return frozenset(self._where[content_hash][0].name for content_hash in hashes)

    def _in_place(self, act: Callable[[], Made]) -> Made:
        """`act` in the store's folder, which is made where it is missing; again where another process cleared it."""
        for left in reversed(range(TRIES)):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not (self.folder / MADE_BY).exists():
                    write_whole(self.folder / MADE_BY, lambda path: path.write_text(self._made_by))
                return act()
            except OSError as error:
                # cleared between two steps; mkdir says "exists" of a folder that went before it looked again
                if not (left and isinstance(error, FileNotFoundError | FileExistsError)):
                    reason = f"the cache {self.root} cannot be written ({why(error)}): choose another with --cache"
                    raise OutputError(reason) from None
        raise AssertionError

    def __contains__(self, content_hash: str) -> bool:
        return content_hash in self._where

    def _index(self, path: Path) -> None:
        try:
            with open_parquet(path) as parquet:
                hashes = parquet.read(["content_hash"])["content_hash"].to_pylist()
        except UNREADABLE:
            return
        for row, content_hash in enumerate(hashes):
            self._where.setdefault(content_hash, (path, row))

    def add(self, hashes: Sequence[str], thumbnails: npt.NDArray[np.uint8], blocks: Mapping[str, Halves]) -> None:
        """Write one shard: content hashes (image,), thumbnails (image, 16, 16, 3), blocks (image, feature)."""
        flat = pa.py_buffer(np.ascontiguousarray(thumbnails))
        columns: dict[str, pa.Array] = {
            "content_hash": texts(hashes),
            "thumbnail": pa.FixedSizeBinaryArray.from_buffers(pa.binary(THUMBNAIL_BYTES), len(hashes), [None, flat]),
            **{name: lists(block) for name, block in blocks.items()},
        }
        schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()])
        sink = io.BytesIO()
        pq.write_table(pa.table(columns, schema), sink, **AS_IT_IS)
        path = self.folder / f"{uuid.uuid4().hex}-{_checksum(sink.getbuffer())}.parquet"
        self._in_place(lambda: write_whole(path, lambda place: place.write_bytes(sink.getbuffer())))
        self._known.add(path.name)
        for row, content_hash in enumerate(hashes):
            self._where.setdefault(content_hash, (path, row))

    def read(self, hashes: Sequence[str]) -> Found | None:
        """The rows of these images, in this order; None if shards were lost meanwhile (their images are forgotten)."""
        by_shard: dict[Path, list[tuple[int, int]]] = {}
        for out, content_hash in enumerate(hashes):
            path, row = self._where[content_hash]
            by_shard.setdefault(path, []).append((out, row))
        thumbnails = np.empty((len(hashes), 16, 16, 3), np.uint8)
        blocks: dict[str, Halves] = {}
        lost = False
        for path, places in by_shard.items():
            found = _read_shard(path)
            if found is None:
                lost = True
                self._forget(path)
            if found is None or lost:
                continue
            out, rows = np.array(places).T
            thumbnails[out] = found.thumbnails[rows]
            whole = 2 * len(hashes) * sum(block.shape[1] for block in found.blocks.values())
            for name, block in found.blocks.items():
                if name not in blocks:
                    blocks[name] = self._room(len(hashes), block.shape[1], whole > IN_MEMORY and name.endswith(MAP))
                blocks[name][out] = block[rows]
        return None if lost else Found(thumbnails, blocks)

    def _room(self, n: int, width: int, on_disk: bool) -> Halves:
        """(n, width) values: in memory, or in a file without a name where they are many, gone with the process."""
        if not on_disk and n * width * 2 <= IN_MEMORY:
            return np.empty((n, width), np.float16)
        return self._in_place(lambda: nameless(self.folder, n, width))

    def _forget(self, path: Path) -> None:
        self._where = {h: place for h, place in self._where.items() if place[0] != path}
        with suppress(OSError):
            path.unlink()


def lists(block: npt.NDArray[Any]) -> pa.Array:
    """(image, value) as a column. No value can be null: Parquet writes and reads that in half the time."""
    item = pa.field("item", pa.from_numpy_dtype(block.dtype), nullable=False)
    return pa.FixedSizeListArray.from_arrays(numbers(block.ravel()), type=pa.list_(item, block.shape[1]))


def _checksum(content: bytes | memoryview) -> str:
    """CRC-32: it finds what a disk has changed, one or two bits always, in 1 ms a MB."""
    return f"{zlib.crc32(content):08x}"


def _read_shard(path: Path) -> Found | None:
    """All of a shard; None if it cannot be read or is not what was written."""
    try:
        content = read_regular(path, MOST_SHARD)
        if _checksum(content) != path.stem.rpartition("-")[2]:
            return None
        table = pq.ParquetFile(pa.BufferReader(content)).read().combine_chunks()
        n = len(table)
        raw = table["thumbnail"].combine_chunks().buffers()[1]
        thumbnails = np.frombuffer(raw, np.uint8, n * THUMBNAIL_BYTES).reshape(-1, 16, 16, 3)
        blocks = {
            name: rows_of(table[name], np.float16)
            for name in table.column_names
            if name not in ("content_hash", "thumbnail")
        }
    except UNREADABLE:
        return None
    return Found(thumbnails, blocks)


@dataclass(frozen=True)
class Usage:
    """What a store holds: for each KEY its description, number of shards and bytes."""

    root: Path
    entries: tuple[tuple[str, dict[str, Any], int, int], ...]

    @property
    def total_bytes(self) -> int:
        return sum(size for *_, size in self.entries)


def usage(root: Path) -> Usage:
    entries = []
    for folder in _keys(root):
        try:
            made_by = json.loads(read_regular(folder / MADE_BY))
        except (OSError, ValueError, RecursionError):
            made_by = {}
        sizes = list(_sizes(folder))
        entries.append((folder.name, made_by if isinstance(made_by, dict) else {}, len(sizes), sum(sizes)))
    return Usage(root, tuple(entries))


def _keys(root: Path) -> list[Path]:
    return sorted(place for place in (root / "features").glob("[!.]*") if place.is_dir())


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of each shard; another process may delete them meanwhile."""
    for shard in folder.glob("*.parquet"):
        with suppress(OSError):
            yield shard.stat().st_size


def clear(root: Path) -> None:
    """Delete the stored features, and nothing else under `root`. Raises OutputError.

    Each folder is renamed first: a process that is adding to it makes it anew, and keeps what it adds from then on.
    """
    place = root / "features"
    try:
        for folder in _keys(root):
            with suppress(FileNotFoundError):
                folder.rename(place / f".{folder.name}.{uuid.uuid4().hex}.cleared")
        for aside in place.glob(".*.cleared"):
            with suppress(FileNotFoundError):  # another process clears it too
                shutil.rmtree(aside)
    except OSError as error:
        raise OutputError(f"the cache {root} cannot be cleared ({why(error)}: {error.filename})") from None
