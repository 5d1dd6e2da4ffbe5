"""The answers for very many images as a folder of Parquet files, each of which is written when its images are answered.

    FOLDER/answers-00003-of-00062.parquet   the same columns as one file has; whole as soon as it is there
    FOLDER/_answers.part                    while the work is not done: what is said of all images together

The folder is whole when the files that their own names count are there and `_answers.part` is not. What was cut short
goes on after the last whole file: at most the images of one file are asked again. `_answers.part` of a folder elsewhere
lies below the cache of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from headstart.counted import counted
from headstart.data.identity import identity
from headstart.data.table import Table
from headstart.errors import OutputError
from headstart.files.far import Place, open_place
from headstart.files.put import names_in, refusing, work_beside
from headstart.files.unfinished import ENDING, Unfinished, unfinished
from headstart.heads.reference import Sample
from headstart.ship.answer_file import write_predictions
from headstart.ship.batch import Bar, Say, about, packed, unpacked
from headstart.ship.package import Loaded
from headstart.ship.predict import record_of_none, records_of
from headstart.ship.spread import answering
from headstart.ship.stretches import Stretch, Tally, rows_at_once
from headstart.tasks.task import Record
from headstart.trunk.engine import Engine, compile_trunk
from headstart.trunk.store import cache_root

STEM = "_answers"  # readers of folders of Parquet files pass over names that begin with an underscore
# Of one file: 16,384 images with the usual batches, which is what a kill loses, a minute of the default network.
STRETCHES = 64
MOST_BYTES = 32 * 2**20  # of answers that wait in memory for their file: of 20,000 classes those of 400 images
OURS = re.compile(r"answers-\d{5,}-of-\d{5,}\.parquet")


@dataclass(frozen=True, eq=False)
class Filed:
    """All images of a table, answered in files: `paths` in their order; `tally`: of all images together."""

    table: Table
    paths: tuple[Place, ...]
    tally: Tally

    def records(self) -> Iterator[Record]:
        """As they were written."""
        import pyarrow.parquet as pq

        for path in self.paths:
            with open_place(path) as opened, pq.ParquetFile(opened) as file:
                for batch in file.iter_batches():
                    yield from batch.to_pylist()


def filed(
    model: Loaded,
    table: Table,
    folder: Place,
    top: int,
    bar: Bar,
    say: Say,
    engine: Engine | None = None,
    ray: str | None = None,
) -> Filed:
    """The answers for every image of the table, written into a folder, which is made. `ray`: the cluster that answers,
    None: this process. Raises OutputError, and BundleError for a damaged model."""
    engine, top = engine or compile_trunk(model.backbone, model.precision), min(top, len(model.names))
    pictures = identity(table)
    assert pictures is not None, "images that lie on disk"
    size = _rows_of_a_file(model, engine)
    depends = about(model, engine, pictures) | {"number of best answers (--top)": str(top)}
    paths = _paths(folder, -(-len(table) // size))
    with _work(folder, depends, say) as work:
        files = _Files(model, table, paths, size, top, work)
        start = _gone_on(files, say)
        if start < len(table):
            answering(ray)(model, table, engine, files.add, bar("predict", len(table) - start), start=start)
    return Filed(table, paths, files.tally)


def _rows_of_a_file(model: Loaded, engine: Engine) -> int:
    """Whole stretches."""
    rows = rows_at_once(engine)
    one = 4 * rows * len(model.names) * int(np.prod(model.task.extra, dtype=np.int64))
    return rows * max(1, min(STRETCHES, MOST_BYTES // one))


def _paths(folder: Place, n: int) -> tuple[Place, ...]:
    return tuple(folder / f"answers-{k:05d}-of-{n:05d}.parquet" for k in range(n))


@contextmanager
def _work(folder: Place, depends: dict[str, str], say: Say) -> Iterator[Unfinished]:
    """What is done of this work; files of half-done work that was other goes. Raises OutputError where other files lie
    in the folder."""
    beside = folder / STEM if isinstance(folder, Path) else work_beside(folder, cache_root())
    _check_free(folder, begun=beside.with_name(f"{beside.name}{ENDING}").exists())
    with unfinished(beside, depends) as work:
        if work.differs:
            say(f"note: {work.path} is of another {work.differs}: all images are answered anew")
        yield work


def _check_free(folder: Place, begun: bool) -> None:
    """Makes the folder. Raises OutputError where answers lie in it that are not half-done work, or other tables."""
    with refusing(f"{folder} cannot be written"):
        if isinstance(folder, Path):
            folder.mkdir(exist_ok=True)
        tables = sorted(name for name in names_in(folder) if name.endswith(".parquet") and name[0] not in "._")
    lies = next((name for name in tables if not begun or not OURS.fullmatch(name)), None)
    if lies is not None:
        raise OutputError(f"{folder} holds {lies} already: choose another -o, or remove what lies there")


@dataclass(eq=False)
class _Files:
    """Gathers what is said of images until it fills a file, and writes that. `number`: of the next file."""

    model: Loaded
    table: Table
    paths: Sequence[Place]
    size: int  # rows of a file
    top: int
    work: Unfinished
    number: int = 0
    waiting: list[Stretch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tally = Tally(self.model, self.table)
        self.like = record_of_none(self.model, self.top)

    def add(self, some: Stretch) -> None:
        self.waiting.append(some)
        self.tally.add(some)
        if some.start + len(some) in ((self.number + 1) * self.size, len(self.table)):
            self._write()

    def _write(self) -> None:
        path, waiting, self.waiting = self.paths[self.number], self.waiting, []
        found = records_of(self.model, self.table, waiting, self.top)
        size = write_predictions(found, path, self.top, self.like, self.work.new)
        self.work.append(size.to_bytes(8, "little") + packed(_without_answers(waiting)))
        self.number += 1

    def known(self, frame: bytes, there: Mapping[str, int | None]) -> None:
        """A file that is there. Raises OutputError where it is not, or is another."""
        path = self.paths[self.number]
        if there.get(path.name) != int.from_bytes(frame[:8], "little"):
            raise OutputError(
                f"{path} is gone or was changed: remove {path.parent}, or choose another -o, to begin anew"
            )
        self.tally.add(unpacked(frame[8:]))
        self.number += 1


def _gone_on(files: _Files, say: Say) -> int:
    """The first row that is not answered; what is no whole file of this work is removed."""
    folder = files.paths[0].parent
    with refusing(f"{folder} cannot be written"):
        there = names_in(folder)
    for frame in files.work:
        files.known(frame, there)
    for name in there.keys() - {path.name for path in files.paths[: files.number]}:
        if OURS.fullmatch(name):
            with refusing(f"{folder} cannot be written"):
                (folder / name).unlink()
    start = min(files.number * files.size, len(files.table))
    if start:
        n = counted(len(files.table), "answer")
        say(f"{folder} has {start:,} of {n}: it goes on from there")
    return start


def _without_answers(some: Sequence[Stretch]) -> Stretch:
    """What a tally takes of consecutive stretches, as one."""
    first = some[0]
    samples = [one.sample for one in some if one.sample is not None]
    sample = None
    if samples:
        rows, values, placed = (
            np.concatenate([getattr(s, name) for s in samples]) for name in ("rows", "values", "placed")
        )
        sample = Sample(rows, values, placed)
    errors = np.concatenate([one.errors for one in some])
    remarks = {row: remark for one in some for row, remark in one.remarks.items()}
    return replace(
        first, answers=first.answers[:0], errors=errors, novelty=first.novelty[:0], remarks=remarks, sample=sample
    )
