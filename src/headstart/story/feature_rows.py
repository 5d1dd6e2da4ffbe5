"""The features in a folder of Parquet files, as a fit reads them: few are in memory, many are read a part at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.feature_set import SIDE, THUMBNAIL, FeatureSet, read_rows
from headstart.errors import DataError, OutputError
from headstart.files.arrow import rows_of
from headstart.files.forks import Lock
from headstart.files.parquet import UNSOUND
from headstart.files.reading import why
from headstart.heads.sums import Each, Rows, each_of, in_threads, stretch
from headstart.heads.taps import LAST, MANY, Taken
from headstart.trunk.features import Features
from headstart.trunk.store import IN_MEMORY, Halves, nameless

# Bytes of decoded files in memory: the rows of a chunk of 4,096 lie in some ten files of 3 MB, and each of the fifteen
# blocks is asked for in turn.
KEPT = 128 << 20
Ints = npt.NDArray[np.intp]


class Files:
    """The files of a set of features, those that were read last kept; safe on several threads. `ends` (file,): the
    number of images up to the end of each; `widths`: block -> features."""

    def __init__(self, paths: tuple[Path, ...], ends: tuple[int, ...], widths: Mapping[str, int]) -> None:
        self.paths, self.ends, self.widths = paths, ends, dict(widths)
        self._lock, self._kept = Lock(), OrderedDict[tuple[int, bool], dict[str, Halves]]()
        rows = max(np.diff(ends, prepend=0), default=1)
        self._most = max(2, KEPT // max(1, int(rows) * 2 * sum(widths.values())))

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (tuple(path.absolute() for path in self.paths), self.ends, self.widths)

    def of(self, file: int, name: str) -> Halves:
        """(image, feature) of a block. The last layer is read alone, and all others together: so they are asked for.
        Raises DataError where the file is gone or damaged."""
        alone = name == LAST
        with self._lock:
            if (file, alone) not in self._kept:
                self._kept[file, alone] = self.read(file, [n for n in self.widths if (n == LAST) == alone])
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((file, alone))
            return self._kept[file, alone][name]

    def read(self, file: int, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Some blocks of a file, or its thumbnails (image, 768). Raises DataError."""
        path = self.paths[file]
        try:
            table = read_rows(path, names)
            return {n: rows_of(table[n], np.uint8 if n == THUMBNAIL else np.float16) for n in names}
        except (*UNSOUND, KeyError) as error:
            raise DataError(f"{path} cannot be read ({why(error)}): make the features again") from None

    def parts(self, rows: Ints) -> list[tuple[int, Ints, Ints]]:
        """(file, places in `rows`, rows of the file) of each file in which some of these images are."""
        shard = np.searchsorted(self.ends, rows, side="right")
        found = []
        for file in np.unique(shard):
            here = np.flatnonzero(shard == file)
            found.append((int(file), here, rows[here] - (self.ends[file - 1] if file else 0)))
        return found


@dataclass(frozen=True, eq=False)
class Column:
    """A block of features (image, feature) as `sums.Rows`. `each`: who works on passes over it, see `sums.each_of`; it
    stays behind where this goes to another process."""

    files: Files
    name: str
    each: Each = in_threads

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (self.files, self.name)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.files.widths[self.name]

    def __len__(self) -> int:
        return self.files.ends[-1]

    def __getitem__(self, index: Any) -> Halves:
        """Rows (row, feature), by a slice or by their numbers from 0 on."""
        rows = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index, dtype=np.intp)
        out = np.empty((len(rows), self.shape[1]), np.float16)
        for file, here, inside in self.files.parts(rows):
            out[here] = self.files.of(file, self.name)[stretch(inside)]
        return out


@dataclass(frozen=True, eq=False)
class Near:
    """The same rows as `of`, in a file that is mapped, for what asks for rows all over the set: `laid` (image,
    feature). In another process they are read as `of` reads them."""

    of: Rows
    laid: Halves

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.of,)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.laid.shape

    @property
    def each(self) -> Each:
        return each_of(self.of)

    def __len__(self) -> int:
        return len(self.laid)

    def __getitem__(self, index: Any) -> Any:
        return self.laid[index]


def _itself(rows: Rows) -> Rows:
    return rows


def features_in(
    found: FeatureSet, rows: Ints, root: Path, done: Callable[[int], None], each: Each | None = None
) -> Features:
    """What is known of these images, in their order: as `extract` would give it. Of many, blocks are read when they are
    asked for; the last layer, by which copies are found, lies in a file below `root` meanwhile. `each`: who works on
    passes over them, of more than MANY images.

    Raises DataError, OutputError where there is no room for that file.
    """
    files = Files(found.paths, found.ends, found.blocks)
    few = 2 * len(rows) * sum(found.blocks.values()) <= IN_MEMORY and (each is None or len(rows) <= MANY)
    blocks: dict[str, Any] = {n: np.empty((len(rows), width), np.float16) for n, width in files.widths.items() if few}
    last = blocks[LAST] if few else _room(root, len(rows), files.widths[LAST])
    thumbnails = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    for file, here, inside in files.parts(rows):
        read = files.read(file, [*(blocks or [LAST]), THUMBNAIL])
        thumbnails[here] = read.pop(THUMBNAIL)[inside].reshape(-1, SIDE, SIDE, 3)
        for name, block in read.items():
            (last if name == LAST else blocks[name])[here] = block[inside]
        done(len(here))
    if not few:
        blocks = {name: Taken(Column(files, name, each or in_threads), rows) for name in files.widths}
        blocks[LAST] = Near(blocks[LAST], last)
    hashes = tuple(found.hashes[row] for row in rows)
    return Features(blocks, thumbnails, hashes, np.arange(len(rows)), (), 0, found.remarks)


def _room(root: Path, n: int, width: int) -> Halves:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return nameless(root, n, width)
    except OSError as error:
        needed = f"{2 * n * width / 1e9:.2f} GB"
        raise OutputError(f"the cache {root} has no room for {needed} ({why(error)}): choose another --cache") from None
