"""What every estimator has: the settings (`Settings`), and once fitted a `Fit` that answers, scores and saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from headstart.data.given import Labels, classes_of
from headstart.data.table import Table, list_images, read_table, table_of
from headstart.errors import BundleError, DataError
from headstart.files.bundle import Bundle, check_writable, read_bundle
from headstart.ship.package import Loaded, unpack
from headstart.ship.predict import Predictions, predict
from headstart.ship.stretches import Taken
from headstart.story import pipeline, publish
from headstart.story.careful import careful
from headstart.story.options import Options
from headstart.story.replacing import check_replaceable
from headstart.story.target import moved
from headstart.story.unlike import unlike
from headstart.tasks.aims import as_saved
from headstart.tasks.known import TASKS
from headstart.tasks.task import Task
from headstart.trunk.engine import Engine, compile_trunk

Learned = TypeVar("Learned")
# Each also as a column of a pandas or polars frame, which headstart need not know: see data/given.py.
Images = str | Path | Sequence[Any] | npt.NDArray[Any]
Given = Any  # labels in the forms of data/given.py and data/given_truth.py
# The estimator of each task, by its name: none of them knows another.
LOADS = {
    "classify": "TransferClassifier",
    "tag": "TransferTagger",
    "regress": "TransferRegressor",
    "anomaly": "AnomalyDetector",
    "recognise": "TransferRecogniser",
    "segment": "TransferSegmenter",
    "detect": "TransferDetector",
}


@dataclass(eq=False, repr=False)
class Settings:
    """What every estimator may be told, as `Options` has it, which says what each means.

    scikit-learn reads them from the signature, so that they cannot be taken over from there in one word:
    tests/test_estimators.py compares the two.
    """

    backbone: str = Options.backbone
    weights: str = Options.weights
    taps: str = Options.taps
    layer: str | None = Options.layer
    head: str = Options.head
    epochs: int | None = Options.epochs
    batch_size: int | None = Options.batch_size
    optimizer: str = Options.optimizer
    tune: str = Options.tune
    augment: str = Options.augment
    lr: str | None = Options.lr
    budget: str | None = Options.budget
    size: int | None = Options.size
    view: str = Options.view
    views: int = Options.views
    precision: str = Options.precision
    bands: str | None = Options.bands
    cache: str | None = Options.cache
    ray: str | None = Options.ray
    seed: int = Options.seed


class Fit:
    """What an estimator has learned. Copies of the estimator share it, since it is never changed but for the network,
    which is compiled at the first use. A pickle of it holds what predicts alone."""

    def __init__(self, model: Loaded, engine: Engine | None, learned: pipeline.Learned | None = None) -> None:
        self.model, self.engine, self.learned = model, engine, learned
        self.set_aside: tuple[tuple[str, str], ...] = ()

    @classmethod
    def saved(cls, bundle: Bundle) -> Self:
        """That of a saved model. Raises BundleError."""
        return cls(unpack(bundle), None)

    @property
    def classes(self) -> npt.NDArray[Any]:
        """The names of the outputs, as what they stand for."""
        return classes_of(self.model.names, self.model.kind)

    def compiled(self) -> Engine:
        """The network compiled for this machine."""
        if self.engine is None:
            self.engine = compile_trunk(self.model.backbone, self.model.precision)
        return self.engine

    def predict(self, X: Images, taken: Taken | None = None) -> Predictions:
        """What the model says of them; `taken(rows, features)` is given what the head reads. Raises DataError naming
        the first image that cannot be read."""
        table = list_images([X]) if isinstance(X, str | Path) else table_of(X)
        found = predict(self.model, table, self.compiled(), taken=taken)
        bad = np.flatnonzero(~found.readable)
        if len(bad):
            first = f"{found.names[bad[0]]}: {found.errors[bad[0]]}"
            raise DataError(f"{len(bad)} of {len(found.names)} images cannot be read; the first, {first}")
        return found

    def evaluate(self, X: Images, y: Given | None, seed: int) -> dict[str, Any]:
        """The score of the model on labelled images."""
        task = self.model.task.name
        table = read(X, task, min_classes=1) if y is None else table_of(X, y, task)
        return self.score_of(table, seed)

    def score_of(self, table: Table, seed: int) -> dict[str, Any]:
        """The score of the model on the labelled images of a table."""
        return pipeline.evaluate(self.model, table, seed, engine=self.compiled())[0].to_json()

    def save(self, folder: str | Path, force: bool, made_by: str) -> dict[str, Any]:
        """Judge and write what was learned."""
        if self.learned is None:
            raise left_behind(self.model.bundle is not None)
        check_writable(folder)
        if not force:
            check_replaceable(folder, self.learned.seen.table)
        return publish.save(pipeline.prove(self.learned), Path(folder), Path(folder).resolve().name, made_by)

    def __getstate__(self) -> dict[str, Any]:
        head: Any = self.model.head
        if self.model.task.own is None:
            head = replace(head, candidates=(), left_out=np.empty((0, len(self.model.names))))
        model = replace(self.model, bundle=None, head=head)
        bare = {name: value for name, value in vars(model).items() if name != "task"}  # functions, some of them local
        return {"model": bare, "task": model.task.name, "set_aside": self.set_aside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = state["model"]
        task = as_saved(TASKS[state["task"]], kept["rule"], len(kept["names"]))
        self.model = Loaded(**kept, task=task)
        self.set_aside, self.engine, self.learned = state["set_aside"], None, None

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def fitted(task: Task, X: Images, labels: Labels | None, settings: Any) -> Fit:
    """Learn from images and labels that were handed over, or from a folder or manifest. Raises HeadstartError."""
    if labels is None and not isinstance(X, str | Path):
        raise DataError("images without labels: give fit(images, labels), or a folder or manifest")
    table = read(X, task.name) if labels is None else table_of(X, labels)
    found = learned(task, table, Options(**settings.get_params()), labels is None)
    if labels is not None:
        bare = [(str(name), "no label") for name in table.names[table.labels == ""]]
        found.set_aside = (*found.set_aside, *bare)
    return found


def learned(task: Task, table: Table, options: Options, hold_out: bool) -> Fit:
    """Learn from the images of a table; `hold_out`: as the command holds some out. Raises HeadstartError."""
    found = pipeline.learn(table, options, hold_out=hold_out, task=task)
    seen, method, what = found.seen, found.method, (found.material, found.plan)
    names, precision = seen.targets.names, seen.engine.precision
    if task.own is not None:
        names = task.own.names(found.head)
    novelty = unlike(task, what[0], what[1].train, found.head, bool(found.tuned and found.tuned.backbone))
    rule = careful(found.rule, *what, found.head, method)
    kind = seen.table.kind
    head, _ = moved(found.target, found.head, what[0], what[1].train)
    model = Loaded(None, seen.backbone, method.task, head, names, rule, precision, kind, novelty=novelty)
    fit = Fit(model, seen.engine, found)
    fit.set_aside = seen.features.set_aside
    return fit


def read(X: Images, task: str, min_classes: int = 2) -> Table:
    """A folder or manifest with the truth of a task. Raises DataError for images that bring none."""
    if not isinstance(X, str | Path):
        raise DataError("images without labels: give them too, or a folder or manifest")
    return read_table(X, min_classes, task=task)


def fit_of(estimator: Any, kind: type[Learned]) -> Learned:
    """What an estimator has learned, which is of this kind. Raises scikit-learn's NotFittedError."""
    check_is_fitted(estimator, "_fit")
    found: Learned = estimator._fit
    return found


def loaded(kind: Any, folder: str | Path, task: str, fit: Any) -> Any:
    """An estimator of this kind with a saved model of its task, compiled; `fit`: the class of what it has learned, with
    `saved`. Raises BundleError."""
    bundle = read_bundle(folder)
    check_task(bundle, task)
    learned = fit.saved(bundle)
    found = kind(backbone=learned.model.backbone.name, precision=learned.model.precision)
    found._fit = learned
    learned.compiled()
    return found


def check_task(bundle: Bundle, task: str) -> None:
    """Raises BundleError for a model of another task, with the class that loads it."""
    own = str(bundle.manifest.get("task", "classify"))
    if own != task:
        other = LOADS.get(own)
        remedy = f"load it by {other}.load" if other else "this release does not know it; take a newer one of headstart"
        raise BundleError(f"{bundle.folder} is a model of the task {own!r} and not of {task!r}: {remedy}")


def left_behind(was_loaded: bool) -> DataError:
    """What is said where a model has nothing to be judged by."""
    if was_loaded:
        return DataError("a loaded model is saved already: copy its folder")
    return DataError(
        "a model that was pickled has left behind what it learned from, and cannot be judged and saved: save the "
        "estimator that was fitted, or fit again"
    )


def takes_images(tags: Any) -> Any:
    """scikit-learn's tags for what reads pictures, arrays or paths, and folders that bring their own labels."""
    tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
    tags.input_tags.two_d_array = False
    tags.target_tags.required = False
    return tags
