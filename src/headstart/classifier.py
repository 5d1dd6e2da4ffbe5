"""`TransferClassifier`: the pipeline as a scikit-learn estimator.

>>> from headstart import TransferClassifier
>>> model = TransferClassifier().fit("photos/")  # doctest: +SKIP
>>> model.predict(["a.jpg", "b.jpg"])  # doctest: +SKIP
>>> model.evaluate("test/")["accuracy"], model.save("model/")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from headstart import pipeline, publish
from headstart.bundle import check_writable
from headstart.data.table import Table, list_images, read_table, table_of
from headstart.errors import DataError
from headstart.opening import Options
from headstart.replacing import check_replaceable
from headstart.ship.package import Loaded
from headstart.ship.predict import predict
from headstart.trunk.backbone import DEFAULT

Images = str | Path | Sequence[Any] | npt.NDArray[Any]


class TransferClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A frozen pre-trained network with a head fitted to your images.

    backbone: any timm network, or the folder of a saved model. weights: "auto", "none" (random) or a file. taps:
    "auto", "last" or "all". layer: the one layer to read. head: "auto", or layers in words ("gap, dense 128 relu"),
    trained with epochs, batch_size and optimizer ("adam", "adamw", "sgd"). tune: "none", "auto", "last", "all", a
    number of modules or a stage; augment, lr and budget are of that, as in `headstart fit --help`. size: side of the
    network's input in px, None = from the images. precision: "auto", "bf16" or "f32". cache: folder of stored features.
    seed: of every random draw.

    Images are given as a folder or manifest (a path), or as a sequence of paths or arrays (height, width[, channel])
    with labels. After `fit`: `classes_` (class,) in the order of `predict_proba`'s columns.
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

    def fit(self, X: Images, y: Sequence[Any] | npt.NDArray[Any] | None = None) -> Self:
        """Learn from X (and y (image,), unless X is a folder or manifest). Raises HeadstartError.

        With y every image is learned from; a folder is split as `headstart fit` does. An image that cannot be read is
        set aside and listed in `set_aside_`.
        """
        if y is None and not isinstance(X, str | Path):
            raise DataError("images without labels: give fit(images, labels), or a folder or manifest")
        table = read_table(X) if y is None else table_of(list(X), list(y))  # type: ignore[arg-type]
        self._learned = pipeline.learn(table, Options(**self.get_params()), hold_out=y is None)
        seen = self._learned.seen
        self.classes_ = _labels(seen.classes, y)
        self.set_aside_ = seen.features.set_aside
        self._model = Loaded(None, seen.backbone, self._learned.head, seen.classes, seen.engine.precision)
        self._engine = seen.engine
        return self

    def predict_proba(self, X: Images) -> npt.NDArray[np.float32]:
        """Probabilities (image, class). Raises DataError naming the first image that cannot be read."""
        check_is_fitted(self, "classes_")
        found = predict(self._model, self._table(X), self._engine)
        bad = np.flatnonzero(~found.readable)
        if len(bad):
            first = f"{found.names[bad[0]]}: {found.errors[bad[0]]}"
            raise DataError(f"{len(bad)} of {len(found.names)} images cannot be read; the first, {first}")
        return found.probabilities

    def predict(self, X: Images) -> npt.NDArray[Any]:
        """The most probable class of each image, (image,)."""
        check_is_fitted(self, "classes_")
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def evaluate(self, X: Images, y: Sequence[Any] | npt.NDArray[Any] | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json) on labelled images; classes are matched by name.

        Of a folder or manifest with a test part (else a validation part) that part alone is scored.
        """
        check_is_fitted(self, "classes_")
        table = read_table(X, min_classes=1) if y is None else table_of(list(X), list(y))  # type: ignore[arg-type]
        return pipeline.evaluate(self._model, table, self.seed, engine=self._engine)[0]

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """Judge the model as `headstart fit` does and write the bundle; returns the content of metrics.json.

        A model of other data is replaced only with `force`.
        """
        check_is_fitted(self, "classes_")
        if not hasattr(self, "_learned"):
            raise DataError("a loaded model is saved already: copy its folder")
        check_writable(folder)
        if not force:
            check_replaceable(folder, self._learned.seen.table)
        fitted = pipeline.prove(self._learned)
        return publish.save(fitted, Path(folder), Path(folder).resolve().name, f"TransferClassifier(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        from headstart.trunk.engine import compile_trunk

        model = pipeline.load(folder)
        found = cls(backbone=model.backbone.name, precision=model.precision)
        found.classes_ = np.array(model.classes, dtype=object)
        found._model, found._engine = model, compile_trunk(model.backbone, model.precision)
        return found

    def _table(self, X: Images) -> Table:
        if isinstance(X, str | Path):
            return list_images([X])
        return table_of(list(X), None)


def _labels(names: tuple[str, ...], y: Sequence[Any] | npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """The class labels in the order of `names`, of the type that the user gave."""
    if y is None:
        return np.array(names, dtype=object)
    given = {str(label): label for label in y}
    return np.array([given[name] for name in names])
