"""Table x Backbone -> Features: one row an image, one block a tap. A frozen network sees each image once.

Threads read, hash and decode runs of images; the calling thread stacks pixels into batches for the engine; finished
batches gather into shards of the store. An image that the store knows is hashed but not decoded.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.data import images
from headstart.data.sources import FarSource, Source
from headstart.data.table import Table
from headstart.errors import DataError, ImageError, OutputError
from headstart.files.cores import n_cores
from headstart.trunk.engine import Bytes, Engine, Rows
from headstart.trunk.network import Backbone, block_names, block_widths
from headstart.trunk.store import SHARD_BYTES, SHARD_ROWS, Halves, Store

RUN = 16  # images a task: long enough that handing tasks to threads costs under 1 % of a decode
# Times as many threads where images are fetched, which mostly wait: 16 wait for 2 cores, a picture each 50 ms: 320 a s.
FAR_THREADS = 8
# Tasks waiting per thread: bounds the decoded pixels in memory (2 cores, 224 px: 2 x 4 x 16 x 147 KB = 19 MB).
AHEAD = 4
MAX_FLOAT16 = 65504.0
TRIES = 3  # passes over the table while another process deletes shards that were just written

Progress = Callable[[int], None]
Change = Callable[[npt.NDArray[np.uint8], str], npt.NDArray[np.uint8]]
Decoded = tuple[int, str, images.Pixels]  # row, content hash, pixels
Seen = dict[str, tuple[int, str]]  # remark -> of how many images, and the first of them
# row, hash, pixels (None where the store has the image already), a remark
Read = tuple[int, str, images.Pixels | ImageError | None, str]


@dataclass
class Passed:
    """What came of some rows: `hashes` (row,), None where the image cannot be read; by row number why it cannot
    (`refused`), and how an odd picture was read (`remarks`); `n_new`: images that the store lacked."""

    hashes: list[str | None]
    refused: dict[int, str] = field(default_factory=dict)
    remarks: dict[int, str] = field(default_factory=dict)
    n_new: int = 0


Through = Callable[[Table, Backbone, Engine, Store, Progress | None], Passed]


@dataclass(frozen=True)
class Features:
    """What the network says of the images that could be read.

    `blocks`: "TAP/mean", "TAP/std", "pre_logits" -> float16 (image, feature); `thumbnails` uint8 (image, 16, 16, 3);
    `hashes` (image,) content hashes; `kept` (image,) rows of the table; `set_aside` (name, reason) of the rest;
    `n_forward`: images that went through the network in this run, the rest came from the store. `remarks`: how odd
    pictures were read, one line a kind.
    """

    blocks: dict[str, Halves]
    thumbnails: npt.NDArray[np.uint8]
    hashes: tuple[str, ...]
    kept: npt.NDArray[np.intp]
    set_aside: tuple[tuple[str, str], ...]
    n_forward: int
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.hashes)


def store_key(backbone: Backbone, engine: Engine) -> dict[str, object]:
    """Everything that a stored row depends on beside the image itself."""
    return {
        "backbone": backbone.name,
        "weights": backbone.weights_hash,
        "preprocess": backbone.preprocess.to_json(),
        "decoder": images.DECODER_VERSION,
        "versions": images.versions(),
        "engine": engine.name,
        "precision": engine.precision,
        "batch": engine.batch,
        "blocks": list(block_names(backbone)),
    }


def extract(
    table: Table,
    backbone: Backbone,
    engine: Engine,
    store: Store,
    progress: Progress | None = None,
    change: Change | None = None,
    through: Through | None = None,
) -> Features:
    """The features of every image of the table that can be read; the others are set aside with their reason.

    `change`: pixels and content hash -> the pixels of a random view; the store must be one for such views alone.
    `progress` is called with the number of images done since the last call. `through`: who adds to the store what it
    lacks, where this process does not. What is done when the work is interrupted is in the store. Raises OutputError
    where the store cannot be written.
    """
    n_forward = 0
    for _ in range(TRIES):
        if through is not None:
            passed = through(table, backbone, engine, store, progress)
        else:
            passed = read_and_pass(table.sources, backbone, engine, store, progress, change)
        n_forward += passed.n_new
        names = tuple(h for h in passed.hashes if h is not None)
        found = store.read(names)
        if found is not None:
            kept = np.array([row for row, h in enumerate(passed.hashes) if h is not None], dtype=np.intp)
            aside = tuple((str(table.names[row]), reason) for row, reason in passed.refused.items())
            remarks = gathered((str(table.names[row]), remark) for row, remark in passed.remarks.items())
            return Features(found.blocks, found.thumbnails, names, kept, aside, n_forward, remarks)
    raise OutputError(f"the cache {store.folder} loses what was just written: choose another with --cache")


def extract_again(
    table: Table,
    hashes: Sequence[str],
    backbone: Backbone,
    engine: Engine,
    store: Store,
    progress: Progress | None = None,
    change: Change | None = None,
    through: Through | None = None,
) -> Features:
    """As `extract`, of images that this run has read before: one row for each, in their order.

    `hashes` (image,): what they were then. Raises DataError where one is gone or is another picture now.
    """
    found = extract(table, backbone, engine, store, progress, change, through)
    if found.set_aside:
        name, reason = found.set_aside[0]
        raise DataError(f"{name} could be read before and cannot now ({reason}): start again")
    for name, was, now in zip(table.names, hashes, found.hashes, strict=True):
        check_unchanged(str(name), was, now)
    return found


def check_unchanged(name: str, was: str, now: str) -> None:
    """Raises DataError where the content hashes of an image differ."""
    if was != now:
        raise DataError(f"{name} was another picture when this run began: leave the images alone, and start again")


def read_and_pass(
    sources: Sequence[Source],
    backbone: Backbone,
    engine: Engine,
    store: Store,
    progress: Progress | None = None,
    change: Change | None = None,
) -> Passed:
    """What the store lacks of these images, read here and added to it."""
    with closing(read_all(sources, backbone, store)) as reads:
        return pass_through(reads, len(sources), backbone, engine, store, progress, change)


def pass_through(
    reads: Iterable[Read],
    n: int,
    backbone: Backbone,
    engine: Engine,
    store: Store,
    progress: Progress | None = None,
    change: Change | None = None,
) -> Passed:
    """What the store lacks of `n` rows that were read, in order, added to it."""
    passed = Passed([None] * n)
    writer = _ShardWriter(store, backbone)

    def fresh() -> Iterator[Decoded]:
        pending: set[str] = set()
        for row, content_hash, found, remark in reads:
            if remark:
                passed.remarks[row] = remark
            if isinstance(found, ImageError):
                passed.refused[row] = str(found)
            else:
                passed.hashes[row] = content_hash
            if isinstance(found, images.Pixels) and content_hash not in pending and content_hash not in store:
                pending.add(content_hash)
                yield row, content_hash, found if change is None else _changed(found, change, content_hash)
            elif progress:
                progress(1)

    def deliver(tag: list[Decoded], rows: Rows) -> None:
        writer.add(tag, rows)
        if progress:
            progress(len(tag))

    try:
        with closing(_batches(fresh(), engine.batch, max(1, n))) as batches:
            engine.run(batches, deliver)
    finally:
        writer.flush()  # what is done stays done, an interrupt included
    passed.n_new = writer.n_added
    return passed


def _changed(found: images.Pixels, change: Change, content_hash: str) -> images.Pixels:
    return replace(found, array=change(found.array, content_hash))


def stream(
    table: Table,
    backbone: Backbone,
    engine: Engine,
    deliver: Callable[[list[int], dict[str, Halves]], None],
    failed: Callable[[int, ImageError], None],
    exact: bool = False,
    remarked: Callable[[int, str], None] = lambda row, remark: None,
    starts: range | None = None,
) -> None:
    """The features of a table without a store: `deliver(rows, blocks)` for what can be read, `failed(row, error)` else.

    The values equal those of `extract` bit for bit; with `exact` they are not rounded to float16. Batches finish in
    any order. `remarked(row, remark)`: how an odd picture was read. `starts`: the rows at which a stretch
    begins, range(first row that is read, len(table), rows of a stretch); no batch holds rows of two of them.
    """
    starts = starts or range(0, len(table), max(1, len(table)))

    def fresh() -> Iterator[Decoded]:
        for row, content_hash, found, remark in read_all(table.sources, backbone, None, starts.start):
            if remark:
                remarked(row, remark)
            if isinstance(found, images.Pixels):
                yield row, content_hash, found
            elif found is not None:
                failed(row, found)

    def finished(tag: list[Decoded], rows: Rows) -> None:
        kept = rows[: len(tag)]
        deliver([row for row, _, _ in tag], by_block(backbone, kept if exact else finite(rounded(kept))))

    with closing(_batches(fresh(), engine.batch, starts.step)) as batches:
        engine.run(batches, finished)


def gathered(remarks: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """One line for each kind of remark, with the number of images and the first of them."""
    seen: Seen = {}
    for name, remark in remarks:
        note(seen, name, remark)
    return notes_of(seen)


def note(seen: Seen, name: str, remark: str) -> None:
    """One more image of which this is said."""
    count, first = seen.get(remark, (0, name))
    seen[remark] = count + 1, first


def notes_of(seen: Seen) -> tuple[str, ...]:
    return tuple(
        f"{first}: {remark}" if count == 1 else f"{counted(count, 'image')}, such as {first}: {remark}"
        for remark, (count, first) in seen.items()
    )


def told(backbone: Backbone, rows: Rows) -> dict[str, Halves]:
    """What an engine says of some images, rows (image, feature), as `stream` delivers it: block -> (image, feature)."""
    return by_block(backbone, finite(rounded(rows)))


def rounded(rows: Rows) -> Halves:
    """float16, with infinity for what is outside its range."""
    with np.errstate(over="ignore", invalid="ignore"):
        return rows.astype(np.float16)


def finite(rows: Halves) -> Halves:
    """Infinities become the ends of float16's range, and what is no number becomes 0; rows without either stay."""
    if np.isfinite(rows).all():  # a tenth of the time
        return rows
    return np.nan_to_num(rows, nan=0.0, posinf=MAX_FLOAT16, neginf=-MAX_FLOAT16)


def by_block(backbone: Backbone, rows: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """(image, feature) of all blocks side by side -> block -> (image, feature)."""
    ends = np.cumsum(block_widths(backbone))
    return dict(zip(block_names(backbone), np.split(rows, ends[:-1], axis=1), strict=True))


def read_all(
    sources: Sequence[Source], backbone: Backbone, store: Store | None, start: int = 0
) -> Generator[Read, None, None]:
    """Every row from `start` on, in order, read by as many threads as there are processors. `store`: what it has is not
    decoded."""

    def read(rows: range) -> list[Read]:
        return [_read_one(sources[row], row, backbone, store) for row in rows]

    far = start < len(sources) and isinstance(sources[start], FarSource)
    n_threads, run = (n_cores() * FAR_THREADS, RUN // 4) if far else (n_cores(), RUN)
    runs = (range(at, min(at + run, len(sources))) for at in range(start, len(sources), run))
    with ThreadPoolExecutor(n_threads, thread_name_prefix="decode") as pool:
        waiting = deque(pool.submit(read, rows) for rows in itertools.islice(runs, n_threads * AHEAD))
        try:
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(read, rows) for rows in itertools.islice(runs, 1))
                yield from done
        finally:
            for task in waiting:
                task.cancel()


def _read_one(source: Source, row: int, backbone: Backbone, store: Store | None) -> Read:
    content_hash = ""
    try:
        content = source.read()
        content_hash = images.content_hash(content)
        if store is not None and content_hash in store:
            return row, content_hash, None, images.remark(content, backbone.preprocess)
        pixels = images.load(content, backbone.preprocess)
        return row, content_hash, pixels, pixels.remark
    except ImageError as error:
        return row, content_hash, error, ""


def _batches(decoded: Iterator[Decoded], size: int, stretch: int) -> Generator[tuple[list[Decoded], Bytes], None, None]:
    """Pixels (size, height, width, 3) with what they are; the last batch of each stretch of rows is padded with its
    first image."""
    for _, some in itertools.groupby(decoded, lambda one: one[0] // stretch):
        while tag := list(itertools.islice(some, size)):
            arrays = [pixels.array for _, _, pixels in tag]
            yield tag, np.stack(arrays + [arrays[0]] * (size - len(arrays)))


def shard_rows(backbone: Backbone) -> int:
    """Images of a full shard."""
    return min(SHARD_ROWS, max(1, SHARD_BYTES // (2 * sum(block_widths(backbone)))))


class _ShardWriter:
    """Gathers finished batches and writes a shard whenever there are SHARD_ROWS rows."""

    def __init__(self, store: Store, backbone: Backbone) -> None:
        self.store, self.backbone, self.n_added = store, backbone, 0
        self._hashes: list[str] = []
        self._thumbnails: list[npt.NDArray[np.uint8]] = []
        self._rows: list[Halves] = []
        self._most = shard_rows(backbone)

    def add(self, tag: list[Decoded], rows: Rows) -> None:
        """The first len(tag) rows are those of the images in `tag`."""
        self._hashes += [content_hash for _, content_hash, _ in tag]
        self._thumbnails += [pixels.thumbnail for _, _, pixels in tag]
        self._rows.append(rounded(rows[: len(tag)]))
        self.n_added += len(tag)
        if len(self._hashes) >= self._most:
            self.flush()

    def flush(self) -> None:
        if self._hashes:
            hashes, thumbnails, rows = self._hashes, self._thumbnails, self._rows
            self._hashes, self._thumbnails, self._rows = [], [], []
            self.store.add(hashes, np.stack(thumbnails), by_block(self.backbone, finite(np.concatenate(rows))))
