"""Features on disk, under the hash of everything that made them; any number of processes may share one store.

    ROOT/features/KEY/made-by.json     what KEY stands for
    ROOT/features/KEY/*.parquet        shards: content_hash, thumbnail, and one fixed-size float16 list a block

A shard is written beside its place, flushed, then renamed: it is there whole or not at all. Shards are only ever
added, each under a name of its own, so two writers cannot collide; an image that both wrote is read once. A shard
that cannot be read is treated as absent, and its images are computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.errors import OutputError

SHARD_ROWS = 512  # images lost at most by a kill: 1.5 s of work for the default backbone on 2 cores
SHARD_BYTES = 64 * 2**20  # of feature maps: fewer rows a shard, so that memory stays bounded
IN_MEMORY = 2**30  # bytes of a block; larger ones (feature maps) are read from disk as they are needed
THUMBNAIL_BYTES = 16 * 16 * 3
MADE_BY = "made-by.json"
# Features do not compress, and a checksum of each page finds what a disk has changed: it costs 1 ms a shard.
AS_IT_IS: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}
UNREADABLE = (OSError, pa.ArrowException, KeyError, ValueError)  # what pyarrow and numpy say of a damaged shard
Halves = npt.NDArray[np.float16]


def cache_root(given: str | None = None) -> Path:
    """The folder of what can be computed again: `given`, else HEADSTART_CACHE, else the platform's cache folder."""
    return Path(given or os.environ.get("HEADSTART_CACHE") or platformdirs.user_cache_dir("headstart"))


@dataclass(frozen=True)
class Found:
    """Rows of the store in the order asked for."""

    thumbnails: npt.NDArray[np.uint8]  # (image, 16, 16, 3)
    blocks: dict[str, Halves]  # block -> (image, feature)


class Store:
    """Features of one (weights, preprocess, engine, taps) combination. Raises OutputError where it cannot write."""

    def __init__(self, root: Path, made_by: Mapping[str, Any]) -> None:
        text = json.dumps(made_by, sort_keys=True, indent=1)
        self.folder = root / "features" / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / MADE_BY).exists():
                write_whole(self.folder / MADE_BY, lambda path: path.write_text(text))
            _remove_remains(self.folder)
        except OSError as error:
            raise _cannot_write(root, error) from None
        self._where: dict[str, tuple[Path, int]] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            self._index(path)

    def __contains__(self, content_hash: str) -> bool:
        return content_hash in self._where

    def _index(self, path: Path) -> None:
        try:
            hashes = _table(path, ["content_hash"])["content_hash"].to_pylist()
        except UNREADABLE:
            return
        for row, content_hash in enumerate(hashes):
            self._where.setdefault(content_hash, (path, row))

    def add(self, hashes: Sequence[str], thumbnails: npt.NDArray[np.uint8], blocks: Mapping[str, Halves]) -> None:
        """Write one shard: content hashes (image,), thumbnails (image, 16, 16, 3), blocks (image, feature)."""
        flat = pa.py_buffer(np.ascontiguousarray(thumbnails))
        columns: dict[str, pa.Array] = {
            "content_hash": pa.array(hashes, pa.string()),
            "thumbnail": pa.FixedSizeBinaryArray.from_buffers(pa.binary(THUMBNAIL_BYTES), len(hashes), [None, flat]),
            **{name: _lists(block) for name, block in blocks.items()},
        }
        schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()])
        path = self.folder / f"{uuid.uuid4().hex}.parquet"
        table = pa.table(columns, schema)
        try:
            write_whole(path, lambda p: pq.write_table(table, p, **AS_IT_IS))
        except OSError as error:
            raise _cannot_write(self.folder, error) from None
        for row, content_hash in enumerate(hashes):
            self._where.setdefault(content_hash, (path, row))

    def read(self, hashes: Sequence[str]) -> Found | None:
        """The rows of these images, in this order; None if a shard was lost meanwhile (its images are forgotten)."""
        by_shard: dict[Path, list[tuple[int, int]]] = {}
        for out, content_hash in enumerate(hashes):
            path, row = self._where[content_hash]
            by_shard.setdefault(path, []).append((out, row))
        thumbnails = np.empty((len(hashes), 16, 16, 3), np.uint8)
        blocks: dict[str, Halves] = {}
        for path, places in by_shard.items():
            found = _read_shard(path)
            if found is None:
                self._forget(path)
                return None
            out, rows = np.array(places).T
            thumbnails[out] = found.thumbnails[rows]
            for name, block in found.blocks.items():
                if name not in blocks:
                    blocks[name] = self._room(len(hashes), block.shape[1])
                blocks[name][out] = block[rows]
        return Found(thumbnails, blocks)

    def _room(self, n: int, width: int) -> Halves:
        """(n, width) values: in memory, or in a file without a name where they are many, gone with the process."""
        if n * width * 2 <= IN_MEMORY:
            return np.empty((n, width), np.float16)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                return np.memmap(file, np.float16, "w+", shape=(n, width))
        except OSError as error:
            raise _cannot_write(self.folder, error) from None

    def _forget(self, path: Path) -> None:
        self._where = {h: place for h, place in self._where.items() if place[0] != path}
        with suppress(OSError):
            path.unlink()


def _lists(block: Halves) -> pa.Array:
    """(image, feature) as a column. No value can be null: Parquet writes and reads that in half the time."""
    item = pa.field("item", pa.float16(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), type=pa.list_(item, block.shape[1]))


def _table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A shard, or some columns of it. Raises one of UNREADABLE."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns).combine_chunks()


def _read_shard(path: Path) -> Found | None:
    """All of a shard; None if it cannot be read."""
    try:
        table = _table(path)
        n = len(table)
        raw = table["thumbnail"].combine_chunks().buffers()[1]
        thumbnails = np.frombuffer(raw, np.uint8, n * THUMBNAIL_BYTES).reshape(-1, 16, 16, 3)
        blocks = {
            name: table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(n, -1)
            for name in table.column_names
            if name not in ("content_hash", "thumbnail")
        }
    except UNREADABLE:
        return None
    return Found(thumbnails, blocks)


def _cannot_write(place: Path, error: OSError) -> OutputError:
    why = error.strerror or str(error)
    return OutputError(f"the cache {place} cannot be written ({why}): choose another with --cache")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write` beside its place, then rename: `path` is there whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        write(partial)
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_remains(folder: Path) -> None:
    """Remove what killed writers left. An hour-old file is nobody's: a shard takes well under a second to write."""
    for partial in folder.glob(".*.partial"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > 3600:
                partial.unlink()


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
    for folder in sorted((root / "features").glob("*")):
        try:
            made_by = json.loads((folder / MADE_BY).read_text())
        except (OSError, ValueError):
            made_by = {}
        shards = list(folder.glob("*.parquet"))
        entries.append((folder.name, made_by, len(shards), sum(s.stat().st_size for s in shards)))
    return Usage(root, tuple(entries))


def clear(root: Path) -> None:
    """Delete the stored features, and nothing else under `root`. Raises OutputError."""
    try:
        shutil.rmtree(root / "features")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"the cache {root} cannot be cleared ({error.strerror}: {error.filename})") from None
