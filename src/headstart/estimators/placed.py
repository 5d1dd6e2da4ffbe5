"""What estimators of masks and boxes have: the settings that have an effect there, and once fitted a `PlacedFit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from headstart.data.given import Labels, classes_of
from headstart.data.shapes import upright_size
from headstart.data.table import Table, list_images, table_of
from headstart.data.teachable import check_teachable
from headstart.errors import DataError, ImageError
from headstart.estimators.fitted import Images, left_behind
from headstart.files.bundle import Bundle, check_writable
from headstart.ship.placed import Placed, Said, predict, unpack
from headstart.story import placed, placed_publish
from headstart.story.options import Options
from headstart.story.pipeline import judged_part
from headstart.story.placed_judge import evaluate
from headstart.story.replacing import check_replaceable
from headstart.tasks.known import PLACED
from headstart.tasks.placed import PlacedTask
from headstart.trunk.engine import Engine, compile_trunk

Size = tuple[int, int]  # (height, width) px of an upright picture


@dataclass(eq=False, repr=False)
class PlacedSettings:
    """What an estimator of masks or boxes may be told: of `Options` those that have an effect there."""

    backbone: str = Options.backbone
    weights: str = Options.weights
    epochs: int | None = Options.epochs
    tune: str = Options.tune
    augment: str = Options.augment
    budget: str | None = Options.budget
    size: int | None = Options.size
    precision: str = Options.precision
    bands: str | None = Options.bands
    cache: str | None = Options.cache
    seed: int = Options.seed


class PlacedFit:
    """What such an estimator has learned: as `Fit` is for the others. Copies of the estimator share it; a pickle of it
    holds what predicts alone."""

    def __init__(self, model: Placed, engine: Engine | None, learned: placed.Learned | None = None) -> None:
        self.model, self.engine, self.learned = model, engine, learned
        self.set_aside: tuple[tuple[str, str], ...] = ()

    @classmethod
    def saved(cls, bundle: Bundle) -> Self:
        """That of a saved model. Raises BundleError."""
        return cls(unpack(bundle), None)

    @property
    def classes(self) -> npt.NDArray[Any]:
        """(class,): the names as what they stand for."""
        return classes_of(self.model.names, self.model.kind)

    def compiled(self) -> Engine:
        """The network compiled for this machine."""
        if self.engine is None:
            self.engine = compile_trunk(self.model.backbone, self.model.precision)
        return self.engine

    def predict(self, X: Images) -> list[Said]:
        """What the model says of each image, in order. Raises DataError naming the first that cannot be read."""
        table = list_images([X], masks=self.model.task.mask is None) if isinstance(X, str | Path) else table_of(X)
        found: list[Said] = []
        predict(self.model, table, found.append, self.compiled())
        bad = [said for said in found if said.answer is None]
        if bad:
            first = f"{table.names[bad[0].row]}: {bad[0].error}"
            raise DataError(f"{len(bad)} of {len(table)} images cannot be read; the first, {first}")
        return found

    def score_of(self, table: Table, seed: int) -> dict[str, Any]:
        """The score of the model on the images of a table that have a truth, of its test part (else its validation
        part) alone where it has one."""
        part = judged_part(table)
        given = table.take(table.splits == part) if part else table
        return evaluate(self.model, given, seed=seed, engine=self.compiled())[0].to_json()

    def headline_of(self, table: Table, seed: int) -> float:
        """The headline of `score_of`, NaN where these images do not determine it."""
        value = self.score_of(table, seed)[self.model.task.headline.name]["value"]
        return float("nan") if value is None else float(value)

    def save(self, folder: str | Path, force: bool, made_by: str) -> dict[str, Any]:
        """Judge and write what was learned."""
        if self.learned is None:
            raise left_behind(self.model.bundle is not None)
        check_writable(folder)
        if not force:
            check_replaceable(folder, placed_publish.with_truths_kept(self.learned.seen.table))
        return placed_publish.save(placed.prove(self.learned), Path(folder), Path(folder).resolve().name, made_by)

    def __getstate__(self) -> dict[str, Any]:
        head: Any = self.model.head
        model = replace(self.model, bundle=None, head=replace(head))  # without layers in torch that it may have made
        bare = {name: value for name, value in vars(model).items() if name != "task"}  # functions, some of them local
        return {"model": bare, "task": model.task.name, "set_aside": self.set_aside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.model = Placed(**state["model"], task=PLACED[state["task"]])
        self.set_aside, self.engine, self.learned = state["set_aside"], None, None

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def fitted(task: PlacedTask, table: Table, settings: Any, hold_out: bool) -> PlacedFit:
    """Learn from a table; `hold_out`: as the command holds images out. Raises HeadstartError."""
    options = Options(**{name: getattr(settings, name) for name in vars(PlacedSettings())})
    found = placed.learn(task, table, options, hold_out=hold_out)
    seen, taught = found.seen, found.taught
    names, precision, kind = seen.targets.names, seen.engine.precision, seen.table.kind
    model = Placed(None, found.backbone, task, taught.head, names, taught.rule, precision, kind)
    fit = PlacedFit(model, None if taught.backbone is not None else seen.engine, found)
    bare = [(str(name), "no truth") for name in table.names[table.labels == ""]]
    fit.set_aside = (*seen.features.set_aside, *bare)
    return fit


def sizes_of(table: Table) -> list[Size | None]:
    """(height, width) px of the upright pictures, by their headers; None of those that cannot be read."""
    return [_size_of(table, row) for row in range(len(table))]


def _size_of(table: Table, row: int) -> Size | None:
    try:
        return upright_size(table.read(row))
    except ImageError:
        return None


def with_truth(table: Table, truth: Labels) -> Table:
    """The table with a truth for each image, as `read_table` would have it. Raises DataError."""
    if len(truth.texts) != len(table):
        raise DataError(f"{len(table)} images but {len(truth.texts)} truths: give one for each image, None for none")
    labels = np.array(truth.texts, dtype=object)
    return replace(table, labels=labels, task=truth.task, columns=truth.columns, kind=truth.kind)


def enough(table: Table) -> Table:
    """A table of a program, with what is scarce in its notes. Raises DataError for too little to learn from."""
    known: Sequence[str] = [str(label) for label in table.labels]
    notes = check_teachable("the program's data", table.task, known, table.columns)
    return replace(table, notes=(*table.notes, *notes))
