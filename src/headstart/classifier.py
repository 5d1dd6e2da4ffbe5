"""The pipeline as scikit-learn estimators: `TransferClassifier`, `TransferTagger`, `TransferRegressor`.

>>> from headstart import TransferClassifier
>>> model = TransferClassifier().fit("photos/")  # doctest: +SKIP
>>> model.predict(["a.jpg", "b.jpg"])  # doctest: +SKIP
>>> model.evaluate("test/")["accuracy"], model.save("model/")  # doctest: +SKIP

Each has the settings (`Settings`, fields and nothing else) and, once fitted, a `_Fit` that answers, scores and saves;
what is left to a class is the form of its labels and answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from headstart.data.given import Labels, classes_of, labels_of
from headstart.data.given_truth import remarks, truth_given
from headstart.data.table import Table, list_images, read_table, table_of
from headstart.data.targets import UNKNOWN, LabelSets, label_targets
from headstart.errors import BundleError, DataError
from headstart.files.bundle import check_writable
from headstart.judge.class_marks import decision_of, probabilities_of
from headstart.ship.package import Loaded
from headstart.ship.predict import Predictions, predict
from headstart.story import pipeline, publish
from headstart.story.careful import careful
from headstart.story.options import Options
from headstart.story.replacing import check_replaceable
from headstart.story.unlike import novelty_in, unlike
from headstart.tasks.aims import as_saved
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.confidence import abstains, has_sets, in_set
from headstart.tasks.known import TASKS
from headstart.tasks.multilabel import MULTILABEL
from headstart.tasks.regression import REGRESSION
from headstart.tasks.task import Task
from headstart.trunk.engine import Engine, compile_trunk

# Each also as a column of a pandas or polars frame, which headstart need not know: see data/given.py.
Images = str | Path | Sequence[Any] | npt.NDArray[Any]
Given = Any  # labels in the forms of data/given.py and data/given_truth.py


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
    precision: str = Options.precision
    bands: str | None = Options.bands
    cache: str | None = Options.cache
    seed: int = Options.seed


@dataclass(eq=False, repr=False)
class TransferClassifier(ClassifierMixin, Settings, BaseEstimator):  # type: ignore[misc]
    """A frozen pre-trained network with a head fitted to your images: one class an image.

    backbone: any timm network, or the folder of a saved model. weights: "auto", "none" (random) or a file. taps:
    "auto", "last" or "all". layer: the one layer to read. head: "auto", or layers in words ("gap, dense 128 relu"),
    trained with epochs, batch_size and optimizer ("adam", "adamw", "sgd"). tune: "none", "auto", "last", "all", a
    number of modules or a stage; augment, lr and budget are of that, as in `headstart fit --help`. size: side of the
    network's input in px, None = from the images. precision: "auto", "bf16" or "f32". bands: those of a TIFF that are
    red, green and blue, "4,3,2". cache: folder of stored features. seed: of every random draw. coverage: of the sets
    of `predict_set`, None = 0.9. sets: "lac", as few classes as possible on average; "raps", more where the model is
    unsure; "classwise", the coverage holds for each class. max_error: the largest share of wrong answers among those
    that are sure enough, with 95 % confidence (`abstains`); None: all are sure enough. aim: "accuracy", or "balanced":
    answers serve the mean recall of the classes. cost: a CSV file of what each mistake costs, a row a true class, a
    column an answer. positive: of two classes the one that scores are of, None = by name, else the rarer.

    Images are given as a folder or manifest (a path), or as a sequence or column of paths, Pillow images or arrays
    (height, width[, channel]) with labels; numbers (a, b, c) are one picture where c is 1, 3 or 4, else grey ones.
    Labels are texts, whole numbers or booleans (image,); (image, 1) is taken as that without a warning. None, NaN and
    pandas.NA are no label.

    After `fit`: `classes_` (class,) as given, in their own order, which is that of `predict_proba`'s columns;
    `set_aside_`: (name, reason) of each image that was not learned from. A pickle or a joblib file holds what predicts
    and not what was learned from, images and features: `save` works on the fitted estimator and its copies in memory.
    Several threads may predict with one estimator, and so may a forked child.
    """

    coverage: float | None = Options.coverage
    sets: str = Options.sets
    max_error: float | None = Options.max_error
    aim: str = Options.aim
    cost: str | None = Options.cost
    positive: str | None = Options.positive

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from X (and y (image,), unless X is a folder or manifest). Raises HeadstartError.

        With y every image is learned from; a folder is split as `headstart fit` does. An image that cannot be read or
        has no label is set aside and listed in `set_aside_`.
        """
        labels = None if y is None else labels_of(y)
        if labels is not None:
            labels.check_classes()
            for line in remarks(labels):
                warnings.warn(line, stacklevel=2)
        self._fit = _fitted(CLASSIFICATION, X, labels, self)
        self.classes_ = self._fit.classes if labels is None else labels.values
        self.set_aside_ = self._fit.set_aside
        return self

    def predict_proba(self, X: Images) -> npt.NDArray[np.float32]:
        """Probabilities (image, class). Raises DataError naming the first image that cannot be read."""
        return probabilities_of(_of(self).predict(X).answers)

    def predict(self, X: Images) -> npt.NDArray[Any]:
        """The most probable class of each image, or the one that `aim` or `cost` asks for, (image,)."""
        check_is_fitted(self, "_fit")
        return np.asarray(self.classes_[decision_of(_of(self).predict(X).answers)])

    def predict_set(self, X: Images) -> npt.NDArray[np.bool_]:
        """Which classes can be meant (image, class), one at least: the share `coverage` of new images has its true
        class among them, of each class with `sets="classwise"`. Raises DataError for a loaded model of before
        there were sets."""
        found = _of(self)
        if not has_sets(found.model.rule):
            raise DataError("the model was saved before there were sets: fit it again, and they come with it")
        return in_set(found.predict(X).answers, found.model.rule)

    def abstains(self, X: Images) -> npt.NDArray[np.bool_]:
        """Whether the answer is not sure enough (image,), so that of the others at most the share `max_error` is wrong,
        with 95 % confidence; never, where none was set."""
        found = _of(self)
        return abstains(found.predict(X).answers, found.model.rule)

    def novelty(self, X: Images) -> npt.NDArray[np.float32]:
        """How unlike the images are to all that taught (image,): 0 is usual; see `known`. Raises DataError."""
        return novelty_in(_of(self).predict(X))

    def known(self, X: Images) -> npt.NDArray[np.bool_]:
        """Whether the images are like those that taught (image,): not so of at most 5 % of new ones of its classes."""
        return np.asarray(self.novelty(X) <= 1)

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json) on labelled images; classes are matched by name.

        Of a folder or manifest with a test part (else a validation part) that part alone is scored.
        """
        return _of(self).evaluate(X, y, self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """Judge the model as `headstart fit` does and write the bundle; returns the content of metrics.json.

        A model of other data is replaced only with `force`.
        """
        return _of(self).save(folder, force, f"TransferClassifier(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = _loaded(cls, folder, CLASSIFICATION)
        found.classes_ = found._fit.classes
        return found

    def __sklearn_tags__(self) -> Any:
        return _takes_images(super().__sklearn_tags__())


@dataclass(eq=False, repr=False)
class TransferTagger(ClassifierMixin, MultiOutputMixin, Settings, BaseEstimator):  # type: ignore[misc]
    """As `TransferClassifier`, for several labels an image: any of them, all, or none.

    threshold: the probability from which a label is given; None: for each label the one that serves F1 best.

    Labels are a list of names for each image (a list, tuple or set; empty for none of them), or numbers or a frame
    (image, label) of 0 and 1, where NaN and -1 mean that nobody has looked. After `fit`: `classes_` (label,), the names
    or the columns in their order, which is that of the answers'; `set_aside_`.
    """

    threshold: float | None = Options.threshold

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from X (and y, unless X is a manifest). Raises HeadstartError."""
        labels = None if y is None else truth_given(y, "tag")
        task = MULTILABEL
        if labels is not None and labels.columns:  # the answers have all of them, also where no image has a 1
            task = replace(task, targets=partial(_in_columns, labels.columns))
        self._fit = _fitted(task, X, labels, self)
        self.classes_ = self._fit.classes if labels is None else labels.values
        self.set_aside_ = self._fit.set_aside
        return self

    def predict_proba(self, X: Images) -> npt.NDArray[np.float32]:
        """The probability of each label (image, label). Raises DataError naming the first unreadable image."""
        return _of(self).predict(X).answers[:, :, 0]

    def predict(self, X: Images) -> npt.NDArray[np.int64]:
        """1 where a label is given, else 0 (image, label)."""
        answers = _of(self).predict(X).answers
        return np.asarray(answers[:, :, 0] >= answers[:, :, 1], dtype=np.int64)

    def score(self, X: Images, y: Given, sample_weight: npt.ArrayLike | None = None) -> float:
        """The share of images of which all labels are right, those that are known: scikit-learn's subset accuracy. A
        label that the model does not know is not found. Images of which no label is known do not count."""
        names = _of(self).model.names
        table = table_of(X, truth_given(y, "tag"))
        new = tuple(name for name in table.classes if name not in names)
        truth = label_targets(table, (*names, *new)).present
        found = np.concatenate([self.predict(X), np.zeros((len(truth), len(new)), np.int64)], axis=1)
        right = ((found == truth) | (truth == UNKNOWN)).all(axis=1)
        counts = (truth != UNKNOWN).any(axis=1)
        weights = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight)
        return float(np.average(right[counts], weights=weights[counts]))

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json); labels are matched by name."""
        return _of(self).evaluate(X, y, self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """As `TransferClassifier.save`."""
        return _of(self).save(folder, force, f"TransferTagger(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = _loaded(cls, folder, MULTILABEL)
        found.classes_ = found._fit.classes
        return found

    def __sklearn_tags__(self) -> Any:
        tags = _takes_images(super().__sklearn_tags__())
        tags.classifier_tags.multi_class, tags.classifier_tags.multi_label = False, True
        tags.target_tags.single_output = False
        return tags


class TransferRegressor(RegressorMixin, MultiOutputMixin, Settings, BaseEstimator):  # type: ignore[misc]
    """As `TransferClassifier`, for measured values: one number an image, or several.

    Values are numbers (image,) or (image, column), or a frame; an image without one, or without one of them, is set
    aside. `score` is R2, the mean over the columns. After `fit`: `columns_`, the names of the values; `set_aside_`.
    """

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from X (and y, unless X is a manifest). Raises HeadstartError."""
        labels = None if y is None else truth_given(y, "regress")
        self._fit = _fitted(REGRESSION, X, labels, self)
        self._flat = len(self._fit.model.names) == 1 and (y is None or _is_flat(y))
        self.columns_ = self._fit.classes
        self.set_aside_ = self._fit.set_aside
        return self

    def predict(self, X: Images) -> npt.NDArray[np.float64]:
        """The value of each image, in the shape of y: (image,) or (image, column). Of a manifest with one column and of
        a loaded model with one value (image,). Raises DataError naming the first image that cannot be read."""
        return self._shaped(_of(self).predict(X).answers[:, :, 0])

    def predict_interval(self, X: Images) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(low, high), each in the shape of `predict`: 90 % of images like those learned from lie between them; an end
        is infinite where too few images taught to say it."""
        found = _of(self).predict(X).answers
        value, half = found[:, :, 0], found[:, :, 1]
        return self._shaped(value - half), self._shaped(value + half)

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json); several columns are matched by name."""
        return _of(self).evaluate(X, y, self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """As `TransferClassifier.save`."""
        return _of(self).save(folder, force, f"TransferRegressor(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = _loaded(cls, folder, REGRESSION)
        found.columns_ = found._fit.classes
        found._flat = len(found.columns_) == 1
        return found

    def _shaped(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        found = values.astype(np.float64)
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self) -> Any:
        return _takes_images(super().__sklearn_tags__())


class _Fit:
    """What an estimator has learned. Copies of the estimator share it, since it is never changed but for the network,
    which is compiled at the first use. A pickle of it holds what predicts alone."""

    def __init__(self, model: Loaded, engine: Engine | None, learned: pipeline.Learned | None = None) -> None:
        self.model, self.engine, self.learned = model, engine, learned
        self.set_aside: tuple[tuple[str, str], ...] = ()

    @property
    def classes(self) -> npt.NDArray[Any]:
        """The names of the outputs, as what they stand for."""
        return classes_of(self.model.names, self.model.kind)

    def compiled(self) -> Engine:
        """The network compiled for this machine."""
        if self.engine is None:
            self.engine = compile_trunk(self.model.backbone, self.model.precision)
        return self.engine

    def predict(self, X: Images) -> Predictions:
        """What the model says of them. Raises DataError naming the first image that cannot be read."""
        table = list_images([X]) if isinstance(X, str | Path) else table_of(X)
        found = predict(self.model, table, self.compiled())
        bad = np.flatnonzero(~found.readable)
        if len(bad):
            first = f"{found.names[bad[0]]}: {found.errors[bad[0]]}"
            raise DataError(f"{len(bad)} of {len(found.names)} images cannot be read; the first, {first}")
        return found

    def evaluate(self, X: Images, y: Given | None, seed: int) -> dict[str, Any]:
        """The score of the model on labelled images."""
        task = self.model.task.name
        table = _read(X, task, min_classes=1) if y is None else table_of(X, y, task)
        return pipeline.evaluate(self.model, table, seed, engine=self.compiled())[0].to_json()

    def save(self, folder: str | Path, force: bool, made_by: str) -> dict[str, Any]:
        """Judge and write what was learned."""
        if self.learned is None:
            if self.model.bundle:
                raise DataError("a loaded model is saved already: copy its folder")
            raise DataError(
                "a model that was pickled has left behind what it learned from, and cannot be judged and saved: save "
                "the estimator that was fitted, or fit again"
            )
        check_writable(folder)
        if not force:
            check_replaceable(folder, self.learned.seen.table)
        return publish.save(pipeline.prove(self.learned), Path(folder), Path(folder).resolve().name, made_by)

    def __getstate__(self) -> dict[str, Any]:
        head: Any = self.model.head
        lean = replace(head, candidates=(), left_out=np.empty((0, len(self.model.names))))
        model = replace(self.model, bundle=None, head=lean)
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


def _fitted(task: Task, X: Images, labels: Labels | None, settings: Any) -> _Fit:
    """Learn from images and labels that were handed over, or from a folder or manifest. Raises HeadstartError."""
    if labels is None and not isinstance(X, str | Path):
        raise DataError("images without labels: give fit(images, labels), or a folder or manifest")
    table = _read(X, task.name) if labels is None else table_of(X, labels)
    learned = pipeline.learn(table, Options(**settings.get_params()), hold_out=labels is None, task=task)
    seen, method = learned.seen, learned.method
    names, kind = seen.targets.names, seen.table.kind
    what, precision = (learned.material, learned.plan), seen.engine.precision
    novelty = unlike(task, what[0], what[1].train, learned.head, bool(learned.tuned and learned.tuned.backbone))
    rule = careful(learned.rule, *what, learned.head, method)
    model = Loaded(None, seen.backbone, method.task, learned.head, names, rule, precision, kind, novelty=novelty)
    found = _Fit(model, seen.engine, learned)
    bare = [] if labels is None else [(str(name), "no label") for name in table.names[table.labels == ""]]
    found.set_aside = (*seen.features.set_aside, *bare)
    return found


def _read(X: Images, task: str, min_classes: int = 2) -> Table:
    if not isinstance(X, str | Path):
        raise DataError("images without labels: give them too, or a folder or manifest")
    return read_table(X, min_classes, task=task)


def _of(estimator: Any) -> _Fit:
    """What an estimator has learned. Raises scikit-learn's NotFittedError."""
    check_is_fitted(estimator, "_fit")
    found: _Fit = estimator._fit
    return found


def _loaded(kind: Any, folder: str | Path, task: Task) -> Any:
    """An estimator of this kind with a saved model of its task, compiled. Raises BundleError."""
    model = pipeline.load(folder)
    if model.task.name != task.name:
        loads = {
            CLASSIFICATION.name: TransferClassifier,
            MULTILABEL.name: TransferTagger,
            REGRESSION.name: TransferRegressor,
        }
        other = loads.get(model.task.name)
        remedy = f"load it by {other.__name__}.load" if other else f"use it by headstart predict {folder}"
        raise BundleError(f"{folder} is a model of the task {model.task.name!r} and not of {task.name!r}: {remedy}")
    found = kind(backbone=model.backbone.name, precision=model.precision)
    found._fit = _Fit(model, None)
    found._fit.compiled()
    return found


def _in_columns(columns: tuple[str, ...], table: Table, names: tuple[str, ...]) -> LabelSets:
    """The labels of a matrix: all of its columns, in their order."""
    return label_targets(table, columns)


def _is_flat(y: Any) -> bool:
    """Whether values are (image,) and not (image, column)."""
    return len(y.shape) < 2 if hasattr(y, "shape") else np.ndim(list(y)) < 2


def _takes_images(tags: Any) -> Any:
    """scikit-learn's tags for what reads pictures, arrays or paths, and folders that bring their own labels."""
    tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
    tags.input_tags.two_d_array = False
    tags.target_tags.required = False
    return tags
