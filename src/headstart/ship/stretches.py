"""The images of a table in stretches: so many rows at a time, each answered whole before the next is handed on.

Batches of the network and blocks of the head end where a stretch ends. So what is said of a stretch depends on its own
images alone, and work that was cut short goes on at the next one with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from headstart.data.table import Table
from headstart.errors import BundleError, ImageError
from headstart.heads.apart import Apart
from headstart.heads.novelty import part_of
from headstart.heads.probe import Probe
from headstart.heads.reference import Sample, Sampled, placed_by
from headstart.heads.spectrum import Doubles
from headstart.judge.class_marks import probabilities_of
from headstart.ship.package import Loaded
from headstart.tasks.task import Head
from headstart.trunk.engine import Engine
from headstart.trunk.features import Seen, note, notes_of, stream
from headstart.trunk.store import Halves

BUFFER = 256  # images of a stretch: what a kill loses, 1 s of work for the default network on 2 cores
Progress = Callable[[int], None]
Blocks = dict[str, Halves]
Taken = Callable[[npt.NDArray[np.int64], Blocks], None]


@dataclass(frozen=True, eq=False)
class Stretch:
    """What a model says of consecutive images of a table, the first of which is row `start`.

    answers float32 (image, output, ...) in the form of the model's task, NaN where the image could not be read; errors
    (image,), "" if none; novelty float32 (image,), NaN where it is not known; remarks: row of the table -> how an odd
    picture was read; sample: of some of them what the network said, None where the model keeps nothing to compare with.
    """

    start: int
    answers: npt.NDArray[np.float32]
    errors: npt.NDArray[np.object_]
    novelty: npt.NDArray[np.float32]
    remarks: dict[int, str]
    sample: Sample | None

    def __len__(self) -> int:
        return len(self.errors)


class Part(NamedTuple):
    """Where a table stands in a longer one: the number of its first row there, the rows of that in all, and those of
    each of its stretches."""

    first: int
    of: int
    size: int


def rows_at_once(engine: Engine) -> int:
    """Rows of a stretch: whole batches."""
    return -(-BUFFER // engine.batch) * engine.batch


def stretches(
    model: Loaded,
    table: Table,
    engine: Engine,
    done: Callable[[Stretch], None],
    progress: Progress | None = None,
    taken: Taken | None = None,
    start: int = 0,
    part: Part | None = None,
) -> None:
    """`done(stretch)` for each stretch of the table from row `start` on, which begins one, in order.

    `part`: of which longer table it is a part, whose rows are then numbered; it begins with a stretch.
    `progress(n)`: n more images are read and answered, or cannot be. `taken(rows, features)`: what the head reads of
    the images that can be read. Raises BundleError for a model that answers with what is no number.
    """
    work = _Work(model, part or Part(0, len(table), rows_at_once(engine)), len(table), done, taken)
    work.next = start

    def deliver(rows: list[int], values: Blocks) -> None:
        work.deliver(rows, values)
        if progress:
            progress(len(rows))

    def failed(row: int, error: ImageError) -> None:
        work.failed(row, str(error))
        if progress:
            progress(1)

    stream(
        table,
        model.backbone,
        engine,
        deliver,
        failed,
        remarked=work.remarked,
        starts=range(start, len(table), work.size),
    )


@dataclass
class _Open:
    """A stretch of which not all has come."""

    left: int  # images
    rows: list[int] = field(default_factory=list)
    blocks: list[Blocks] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    remarks: dict[int, str] = field(default_factory=dict)


class _Work:
    """Gathers what comes of each stretch, and hands on those that are whole, in order."""

    def __init__(
        self,
        model: Loaded,
        part: Part,
        n: int,
        done: Callable[[Stretch], None],
        taken: Taken | None,
    ) -> None:
        self.model, self.part, self.n, self.size, self.done, self.taken = model, part, n, part.size, done, taken
        self.next = 0
        self.open: dict[int, _Open] = {}  # by the first row
        self.sampled = None if model.reference is None else Sampled(model.reference, part.of)

    def _of(self, row: int) -> _Open:
        start = row - row % self.size
        if start not in self.open:
            self.open[start] = _Open(min(self.size, self.n - start))
        return self.open[start]

    def deliver(self, rows: list[int], blocks: Blocks) -> None:
        mine = self._of(rows[0])
        mine.rows += rows
        mine.blocks.append(blocks)
        mine.left -= len(rows)
        self._hand_on()

    def failed(self, row: int, reason: str) -> None:
        mine = self._of(row)
        mine.errors[row] = reason
        mine.left -= 1
        self._hand_on()

    def remarked(self, row: int, remark: str) -> None:
        self._of(row).remarks[row] = remark

    def _hand_on(self) -> None:
        while self.next in self.open and not self.open[self.next].left:
            whole = self.open.pop(self.next)
            self.next += self.size
            self.done(self._answered(self.next - self.size, whole))

    def _answered(self, start: int, whole: _Open) -> Stretch:
        model, first, n = self.model, self.part.first, min(self.size, self.n - start)
        answers = np.full((n, len(model.names), *model.task.extra), np.nan, np.float32)
        errors, novelty = np.full(n, "", dtype=object), np.full(n, np.nan, np.float32)
        for row, reason in whole.errors.items():
            errors[row - start] = reason
        sample = None
        if whole.rows:
            order = np.argsort(whole.rows)
            rows = np.array(whole.rows, dtype=np.int64)[order]
            blocks = {name: np.concatenate([b[name] for b in whole.blocks])[order] for name in whole.blocks[0]}
            with threadpool_limits(1):
                found, new = answered(model, blocks)
            answers[rows - start], novelty[rows - start] = found, new
            if self.sampled is not None:
                sample = self.sampled.of(first + rows, blocks, placed_by(found, model.task.name))
            if self.taken is not None:
                self.taken(rows, blocks)
        remarks = {first + row: remark for row, remark in sorted(whole.remarks.items())}
        return Stretch(first + start, answers, errors, novelty, remarks, sample)


class Tally:
    """What is said of all images together, gathered stretch by stretch, in order."""

    def __init__(self, model: Loaded, table: Table) -> None:
        self._names = table.names
        self._remarks: Seen = {}
        self._sampled = None if model.reference is None else Sampled(model.reference, len(table))
        self.n_failed = 0
        self.first_failed = ""  # its name and reason

    def add(self, some: Stretch) -> None:
        failed = np.flatnonzero(some.errors != "")
        if len(failed) and not self.n_failed:
            self.first_failed = f"{self._names[some.start + failed[0]]}: {some.errors[failed[0]]}"
        self.n_failed += len(failed)
        for row, remark in some.remarks.items():
            note(self._remarks, str(self._names[row]), remark)
        if self._sampled is not None and some.sample is not None:
            self._sampled.add(some.sample)

    def notes(self) -> tuple[str, ...]:
        """How odd pictures were read."""
        return notes_of(self._remarks)

    def apart(self) -> Apart | None:
        """How well they are told from the images that taught, where enough are known of both."""
        return None if self._sampled is None else self._sampled.shift()


def answered(model: Loaded, blocks: Blocks) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(answers (image, output), novelty (image,), not a number where the model knows none) for what the network says.

    Each image is asked for alone: the last digits of a product of matrices depend on how many rows it has, and on the
    threads that share it (the caller allows one), and an answer must not depend on the images beside it.
    """
    outputs = _outputs(model.head, blocks)
    found = np.concatenate([model.task.answers(outputs[k : k + 1], model.rule) for k in range(len(outputs))])
    answers = _numbers(found.astype(np.float32))
    if model.novelty is None:
        return answers, np.full(len(answers), np.nan, np.float32)
    part = part_of(model.head.parts)
    return answers, model.novelty.scores(part.of(blocks[part.block]), probabilities_of(answers))


def _outputs(head: Head, blocks: Blocks) -> Doubles:
    """(image, output), each image asked for alone."""
    if isinstance(head, Probe):
        return head.outputs_alone(blocks)
    n = len(next(iter(blocks.values())))
    each = [{name: values[k : k + 1] for name, values in blocks.items()} for k in range(n)]
    return np.concatenate([head.outputs(one) for one in each])


def _numbers(found: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same. Raises BundleError where it is no number."""
    first = found.reshape(*found.shape[:2], -1)[:, :, 0]  # what follows, as the width of an interval, may be infinite
    if not np.isfinite(first).all() or np.isnan(found).any():
        raise BundleError(
            "the model answers with what is no number, since its weights are too large or damaged: copy it again from "
            "where it was made, or run `headstart fit` again"
        )
    return found
