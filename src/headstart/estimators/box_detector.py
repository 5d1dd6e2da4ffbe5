"""Which things lie where, as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from headstart.data.given_boxes import boxes_given
from headstart.data.table import Table, read_table, table_of
from headstart.errors import DataError
from headstart.estimators.fitted import Given, Images, fit_of, loaded, takes_images
from headstart.estimators.placed import PlacedFit, PlacedSettings, enough, fitted, sizes_of, with_truth
from headstart.tasks.detecting import counts_of
from headstart.tasks.detection import DETECTION, shown


class Boxes(TypedDict):
    """What is found in a picture, the surest first: boxes (box, 4), x1, y1, x2, y2, edges in px of the upright picture;
    labels (box,), classes as they were given; scores (box,), 0 to 1."""

    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[Any]
    scores: npt.NDArray[np.float64]


@dataclass(eq=False, repr=False)
class TransferDetector(PlacedSettings, BaseEstimator):  # type: ignore[misc]
    """Which things lie in a picture, and where, learned from pictures with boxes.

    The settings are those of `TransferSegmenter`, but `classes`.

    Images are given as a data set that `headstart fit --task detect` reads (a path), or as for `TransferClassifier`
    with the boxes of each: a list of (label, x1, y1, x2, y2), or {"boxes": (box, 4), "labels": (box,)}, as `predict`
    answers and torchvision has it. Places are edges in px of the picture as it is displayed. An empty list is a picture
    known to be empty; None is one of which nothing is known, and it neither teaches nor judges.

    After `fit`: `classes_` (class,) as given, in their own order, and `set_aside_`, (name, reason) of what was not
    learned from. A pickle holds what predicts alone, and copies share what was learned.
    """

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from X (and y, the boxes of each, unless X is a data set). Raises HeadstartError.

        With y every image is learned from, and `save` judges by cross-validation; a data set is split as `headstart
        fit` does. What is wrong with some boxes is warned of.
        """
        if y is None:
            table = _read(X, 2)
        else:
            given = _given(X, y)
            for note in given.notes:
                warnings.warn(note, stacklevel=2)
            table = enough(given)
        self._fit = fitted(DETECTION, table, self, hold_out=y is None)
        self.classes_ = self._fit.classes
        self.set_aside_ = self._fit.set_aside
        return self

    def predict(self, X: Images) -> list[Boxes]:
        """What is found in each image: see `Boxes`. Which scores are enough was chosen for each class by the best F1 on
        images that were held out. Raises DataError naming the first image that cannot be read."""
        fit = fit_of(self, PlacedFit)
        found = []
        for said in fit.predict(X):
            assert said.answer is not None
            sure = shown(said.answer, fit.model.rule)
            found.append(Boxes(boxes=sure[:, :4], labels=fit.classes[sure[:, 5].astype(int)], scores=sure[:, 4]))
        return found

    def count(self, X: Images) -> npt.NDArray[np.float64]:
        """How many things of each class each image shows (image, class). A number of its own, chosen to err least: it
        need not be that of the boxes, nor a whole one."""
        fit = fit_of(self, PlacedFit)
        n = len(fit.model.names)
        answers = [said.answer for said in fit.predict(X) if said.answer is not None]
        return np.array([counts_of(answer, fit.model.rule, n) for answer in answers]).reshape(-1, n)

    def score(self, X: Images, y: Given | None = None) -> float:
        """COCO's average precision at an overlap of 0.5, mean of the classes, 0 to 1; NaN without a true box."""
        return fit_of(self, PlacedFit).headline_of(_judging(X, y), self.seed)

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json) on images with boxes; classes are matched by name.

        Of a data set with a test part (else a validation part) that part alone is scored.
        """
        return fit_of(self, PlacedFit).score_of(_judging(X, y), self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """As `TransferSegmenter.save`."""
        return fit_of(self, PlacedFit).save(folder, force, f"TransferDetector(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = loaded(cls, folder, DETECTION.name, PlacedFit)
        found.classes_ = found._fit.classes
        return found

    def __sklearn_tags__(self) -> Any:
        return takes_images(super().__sklearn_tags__())


def _judging(X: Images, y: Given | None) -> Table:
    return _read(X, 1) if y is None else _given(X, y)


def _read(X: Images, least: int) -> Table:
    if not isinstance(X, str | Path):
        raise DataError("images without boxes: give fit(images, boxes), or the path of a data set")
    return read_table(X, least, task=DETECTION.name)


def _given(X: Images, y: Given) -> Table:
    """With what is wrong with some boxes in its notes."""
    bare = table_of(X)
    truth, notes = boxes_given(y, [str(name) for name in bare.names], sizes_of(bare))
    return replace(with_truth(bare, truth), notes=tuple(notes))
