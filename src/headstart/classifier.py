"""`TransferClassifier`: the pipeline as a scikit-learn estimator.

>>> from headstart import TransferClassifier
>>> model = TransferClassifier().fit("photos/")  # doctest: +SKIP
>>> model.predict(["a.jpg", "b.jpg"])  # doctest: +SKIP
>>> model.evaluate("test/")["accuracy"], model.save("model/")  # doctest: +SKIP
"""

from __future__ import annotations

import copy
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from headstart.data.given import Labels, classes_of, labels_of
from headstart.data.table import Table, list_images, read_table, table_of
from headstart.errors import DataError
from headstart.files.bundle import check_writable
from headstart.ship.package import Loaded
from headstart.ship.predict import predict
from headstart.story import pipeline, publish
from headstart.story.opening import Options
from headstart.story.replacing import check_replaceable
from headstart.trunk.backbone import DEFAULT
from headstart.trunk.engine import Engine, compile_trunk

# Each also as a column of a pandas or polars frame, which headstart need not know: see data/given.py.
Images = str | Path | Sequence[Any] | npt.NDArray[Any]
Given = Sequence[Any] | npt.NDArray[Any]

SHARED = ("_learned", "_model", "_engine")  # never changed once they are there


class TransferClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A frozen pre-trained network with a head fitted to your images.

    backbone: any timm network, or the folder of a saved model. weights: "auto", "none" (random) or a file. taps:
    "auto", "last" or "all". layer: the one layer to read. head: "auto", or layers in words ("gap, dense 128 relu"),
    trained with epochs, batch_size and optimizer ("adam", "adamw", "sgd"). tune: "none", "auto", "last", "all", a
    number of modules or a stage; augment, lr and budget are of that, as in `headstart fit --help`. size: side of the
    network's input in px, None = from the images. precision: "auto", "bf16" or "f32". cache: folder of stored features.
    seed: of every random draw.

    Images are given as a folder or manifest (a path), or as a sequence or column of paths, Pillow images or arrays
    (height, width[, channel]) with labels; numbers (a, b, c) are one picture where c is 1, 3 or 4, else grey ones.
    Labels are texts, whole numbers or booleans (image,); (image, 1) is taken as that without a warning. None, NaN and
    pandas.NA are no label.

    After `fit`: `classes_` (class,) as given, in their own order, which is that of `predict_proba`'s columns;
    `set_aside_`: (name, reason) of each image that was not learned from. A pickle or a joblib file holds what predicts
    and not what was learned from, images and features: `save` works on the fitted estimator and its copies in memory.
    Several threads may predict with one estimator, and so may a forked child.
    """

    def __init__(  # noqa: PLR0913 (scikit-learn: every setting is an argument)
        self,
        backbone: str = DEFAULT,
        weights: str = "auto",
        taps: str = "auto",
        layer: str | None = None,
        head: str = "auto",
        epochs: int | None = None,
        batch_size: int | None = None,
        optimizer: str = "adam",
        tune: str = "none",
        augment: str = "photo",
        lr: str | None = None,
        budget: str | None = None,
        size: int | None = None,
        precision: str = "auto",
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.taps = taps
        self.layer = layer
        self.head = head
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.tune = tune
        self.augment = augment
        self.lr = lr
        self.budget = budget
        self.size = size
        self.precision = precision
        self.cache = cache
        self.seed = seed

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from X (and y (image,), unless X is a folder or manifest). Raises HeadstartError.

        With y every image is learned from; a folder is split as `headstart fit` does. An image that cannot be read or
        has no label is set aside and listed in `set_aside_`.
        """
        if y is None and not isinstance(X, str | Path):
            raise DataError("images without labels: give fit(images, labels), or a folder or manifest")
        labels = None if y is None else labels_of(y)
        if labels is not None:
            labels.check_classes()
            _warn(labels)
        table = read_table(X) if y is None else table_of(X, labels)  # type: ignore[arg-type]
        self._learned = pipeline.learn(table, Options(**self.get_params()), hold_out=y is None)
        seen = self._learned.seen
        names = seen.targets.names
        self.classes_ = np.array(names, dtype=object) if labels is None else labels.values
        self.set_aside_ = (*seen.features.set_aside, *_unlabelled(table, labels))
        kind = seen.table.kind
        task, head = self._learned.method.task, self._learned.head
        self._model = Loaded(None, seen.backbone, task, head, names, self._learned.rule, seen.engine.precision, kind)
        self._engine = seen.engine
        return self

    def predict_proba(self, X: Images) -> npt.NDArray[np.float32]:
        """Probabilities (image, class). Raises DataError naming the first image that cannot be read."""
        check_is_fitted(self, "classes_")
        found = predict(self._model, self._table(X), self._compiled())
        bad = np.flatnonzero(~found.readable)
        if len(bad):
            first = f"{found.names[bad[0]]}: {found.errors[bad[0]]}"
            raise DataError(f"{len(bad)} of {len(found.names)} images cannot be read; the first, {first}")
        return found.answers

    def predict(self, X: Images) -> npt.NDArray[Any]:
        """The most probable class of each image, (image,)."""
        check_is_fitted(self, "classes_")
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json) on labelled images; classes are matched by name.

        Of a folder or manifest with a test part (else a validation part) that part alone is scored.
        """
        check_is_fitted(self, "classes_")
        table = read_table(X, min_classes=1) if y is None else table_of(X, y)  # type: ignore[arg-type]
        return pipeline.evaluate(self._model, table, self.seed, engine=self._compiled())[0].to_json()

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """Judge the model as `headstart fit` does and write the bundle; returns the content of metrics.json.

        A model of other data is replaced only with `force`.
        """
        check_is_fitted(self, "classes_")
        if not hasattr(self, "_learned"):
            if self._model.bundle:
                raise DataError("a loaded model is saved already: copy its folder")
            raise DataError(
                "a model that was pickled has left behind what it learned from, and cannot be judged and saved: save "
                "the estimator that was fitted, or fit again"
            )
        check_writable(folder)
        if not force:
            check_replaceable(folder, self._learned.seen.table)
        fitted = pipeline.prove(self._learned)
        return publish.save(fitted, Path(folder), Path(folder).resolve().name, f"TransferClassifier(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        model = pipeline.load(folder)
        found = cls(backbone=model.backbone.name, precision=model.precision)
        found.classes_ = classes_of(model.names, model.kind)
        found._model = model
        found._compiled()
        return found

    def _table(self, X: Images) -> Table:
        return list_images([X]) if isinstance(X, str | Path) else table_of(X)

    def _compiled(self) -> Engine:
        """The network compiled for this machine; of an estimator that was pickled, at its first use."""
        if not hasattr(self, "_engine"):
            self._engine = compile_trunk(self._model.backbone, self._model.precision)
        return self._engine

    def __getstate__(self) -> dict[str, Any]:
        given: Any = super().__getstate__()
        state = {name: value for name, value in given.items() if name not in ("_learned", "_engine")}
        if "_model" in state:
            head = state["_model"].head
            lean = replace(head, candidates=(), left_out=np.empty((0, len(self.classes_))))
            state["_model"] = replace(state["_model"], bundle=None, head=lean)
        return state

    def __copy__(self) -> Self:
        twin: Self = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = copy.copy(self)
        own = {name: value for name, value in vars(self).items() if name not in SHARED}
        twin.__dict__.update(copy.deepcopy(own, memo))
        return twin

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = False  # a folder brings its own
        return tags


def _unlabelled(table: Table, labels: Labels | None) -> list[tuple[str, str]]:
    """The images that the user gave no label."""
    return [] if labels is None else [(str(name), "no label") for name in table.names[table.labels == ""]]


def _warn(labels: Labels) -> None:
    """Say what was read otherwise than it is written, and what is nearly the same."""
    if labels.written:
        some = ", ".join(repr(text) for text in sorted(set(labels.written)))
        warnings.warn(
            f"{len(labels.written)} labels are the text {some}, which data frames write for a missing one: their "
            "images are not learned from. A class needs another name",
            stacklevel=3,
        )
    alike = defaultdict(list)
    for name in dict.fromkeys(labels.texts):
        alike[" ".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            shown = " and ".join(ascii(name) for name in names)
            warnings.warn(f"the classes {shown} look the same, but are learned as different ones", stacklevel=3)
