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
import uuid
from collections.abc import Sequence
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
THUMBNAIL_BYTES = 16 * 16 * 3
Halves = npt.NDArray[np.float16]


def cache_root(given: str | None = None) -> Path:
    """The folder of everything that can be computed again: `given`, else HEADSTART_CACHE, else the platform's cache folder."""
    return Path(given or os.environ.get("HEADSTART_CACHE") or platformdirs.user_cache_dir("headstart"))


@dataclass(frozen=True)
class Found:
    """Rows of the store in the order asked for."""

    thumbnails: npt.NDArray[np.uint8]  # (image, 16, 16, 3)
    blocks: dict[str, Halves]  # block -> (image, feature)


class Store:
    """Features of one (weights, preprocess, engine, taps) combination. Raises OutputError where it cannot write."""

    def __init__(self, root: Path, made_by: dict[str, Any]) -> None:
        text = json.dumps(made_by, sort_keys=True, indent=1)
        self.folder = root / "features" / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "made-by.json").exists():
                _write_whole(self.folder / "made-by.json", lambda path: path.write_text(text))
        except OSError as error:
            raise OutputError(
                f"the cache {root} cannot be written ({error.strerror}): choose another with --cache"
            ) from None
        self._where: dict[str, tuple[Path, int]] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            self._index(path)

    def __contains__(self, content_hash: str) -> bool:
        return content_hash in self._where

    def _index(self, path: Path) -> None:
        try:
            hashes = pq.read_table(path, columns=["content_hash"])["content_hash"].to_pylist()
        except (OSError, pa.ArrowException):
            return
        for row, content_hash in enumerate(hashes):
            self._where.setdefault(content_hash, (path, row))

    def add(self, hashes: Sequence[str], thumbnails: npt.NDArray[np.uint8], blocks: dict[str, Halves]) -> None:
        """Write one shard."""
        columns: dict[str, pa.Array] = {"content_hash": pa.array(hashes, pa.string())}
        flat = np.ascontiguousarray(thumbnails).tobytes()
        columns["thumbnail"] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(THUMBNAIL_BYTES), len(hashes), [None, pa.py_buffer(flat)]
        )
        for name, block in blocks.items():
            columns[name] = pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(block).ravel()), block.shape[1]
            )
        path = self.folder / f"{uuid.uuid4().hex}.parquet"
        table = pa.table(columns)
        try:
            _write_whole(path, lambda p: pq.write_table(table, p, compression="none", use_dictionary=["content_hash"]))
        except OSError as error:
            raise OutputError(
                f"the cache {self.folder} cannot be written ({error.strerror}): choose another with --cache"
            ) from None
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
            try:
                table = pq.read_table(path).combine_chunks()
            except (OSError, pa.ArrowException):
                self._where = {h: place for h, place in self._where.items() if place[0] != path}
                path.unlink(missing_ok=True)
                return None
            out, rows = np.array(places).T
            raw = table["thumbnail"].combine_chunks().buffers()[1]
            thumbnails[out] = np.frombuffer(raw, np.uint8, len(table) * THUMBNAIL_BYTES).reshape(-1, 16, 16, 3)[rows]
            for name in table.column_names[2:]:
                values = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
                blocks.setdefault(name, np.empty((len(hashes), values.shape[1]), np.float16))[out] = values[rows]
        return Found(thumbnails, blocks)


def _write_whole(path: Path, write: Any) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        write(partial)
        with open(partial, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
            made_by = json.loads((folder / "made-by.json").read_text())
        except (OSError, ValueError):
            made_by = {}
        shards = list(folder.glob("*.parquet"))
        entries.append((folder.name, made_by, len(shards), sum(s.stat().st_size for s in shards)))
    return Usage(root, tuple(entries))


def clear(root: Path) -> None:
    """Delete the stored features, and nothing else under `root`."""
    shutil.rmtree(root / "features", ignore_errors=True)
