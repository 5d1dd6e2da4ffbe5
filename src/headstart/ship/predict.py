"""Bundle x images -> predictions. The one inference path: `evaluate` and the Python API go through it too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.data.table import Table
from headstart.heads.apart import Apart
from headstart.ship.package import Loaded
from headstart.ship.stretches import Progress, Stretch, Taken, Tally, stretches
from headstart.tasks.task import Record
from headstart.trunk.engine import Engine, compile_trunk
from headstart.trunk.store import Halves


@dataclass(frozen=True)
class Predictions:
    """What a model says of some images.

    names (image,); answers float32 (image, output) in the form of the model's task, NaN where the image could not be
    read; errors (image,), "" if none.
    """

    names: npt.NDArray[np.object_]
    answers: npt.NDArray[np.float32]
    errors: npt.NDArray[np.object_]
    notes: tuple[str, ...] = ()  # how odd pictures were read
    apart: Apart | None = None  # how well they are told from the images that taught, where enough are known of both
    novelty: npt.NDArray[np.float32] | None = None  # (image,): above 1 unlike all that taught; None: not known

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.errors == "", dtype=bool)

    def only(self, k: int) -> Predictions:
        """Of one image."""
        new = None if self.novelty is None else self.novelty[k : k + 1]
        return Predictions(self.names[k : k + 1], self.answers[k : k + 1], self.errors[k : k + 1], novelty=new)


def predict(
    model: Loaded,
    table: Table,
    engine: Engine | None = None,
    progress: Progress | None = None,
    taken: Taken | None = None,
) -> Predictions:
    """The answer for every image of the table, in its order. `taken(rows, features)`: is given what the head reads."""
    answers = np.full((len(table), len(model.names), *model.task.extra), np.nan, np.float32)
    errors, novelty = np.full(len(table), "", dtype=object), np.full(len(table), np.nan, np.float32)
    tally = Tally(model, table)

    def done(some: Stretch) -> None:
        rows = slice(some.start, some.start + len(some))
        answers[rows], errors[rows], novelty[rows] = some.answers, some.errors, some.novelty
        tally.add(some)

    stretches(model, table, engine or compile_trunk(model.backbone, model.precision), done, progress, taken)
    return Predictions(table.names, answers, errors, tally.notes(), tally.apart(), _known(model, novelty))


def predict_with_features(
    model: Loaded, table: Table, engine: Engine | None = None, progress: Progress | None = None
) -> tuple[Predictions, dict[str, Halves]]:
    """The answers, and what the head read of the images that can be read: block -> (readable image, feature)."""
    parts: list[dict[str, Halves]] = []
    found = predict(model, table, engine, progress, lambda rows, blocks: parts.append(blocks))
    names = parts[0] if parts else ()
    return found, {name: np.concatenate([part[name] for part in parts]) for name in names}


def _known(model: Loaded, novelty: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    return None if model.novelty is None else novelty


def records(model: Loaded, predictions: Predictions, top: int) -> list[Record]:
    """One an image: "path", what the model's task says of it (`Task.record`; of a ranked list the `top` best), "error".

    On an error all that the task says is null or empty.
    """
    task, found = model.task, []
    novelty = [None] * len(predictions.names) if predictions.novelty is None else predictions.novelty.tolist()
    every = zip(predictions.names, predictions.answers, predictions.errors, novelty, strict=True)
    for name, answer, error, new in every:
        said: Record = task.record(model.names, answer, model.rule, top)
        if "top" in said:  # one class an image; the ranked list stays the last
            said |= {"known": None if new is None else new <= 1, "novelty": new, "top": said.pop("top")}
        if error:
            said = {what: _nothing(value) for what, value in said.items()}
        found.append({"path": str(name), **said, "error": error or None})
    return found


def records_of(model: Loaded, table: Table, found: Iterable[Stretch], top: int) -> Iterator[Record]:
    """`records` of the images of a table, one after the other."""
    for part in found:
        names = table.names[part.start : part.start + len(part)]
        yield from records(
            model, Predictions(names, part.answers, part.errors, novelty=_known(model, part.novelty)), top
        )


def record_of_none(model: Loaded, top: int) -> Record:
    """The record of an image that could not be read: the names in it are those of every record of this model."""
    answers = np.full((1, len(model.names), *model.task.extra), np.nan, np.float32)
    name, error = np.array([""], dtype=object), np.array(["none"], dtype=object)
    novelty = _known(model, np.full(1, np.nan, np.float32))
    return records(model, Predictions(name, answers, error, novelty=novelty), top)[0]


def _nothing(value: object) -> object:
    """What stands for a value in the record of an image that could not be read: same kind, nothing in it."""
    if isinstance(value, dict):
        return dict.fromkeys(value)
    return [] if isinstance(value, list) else None
