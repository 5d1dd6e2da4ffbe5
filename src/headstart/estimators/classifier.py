"""One class an image, as a scikit-learn classifier."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from headstart.data.given import labels_of
from headstart.data.given_truth import remarks
from headstart.errors import DataError
from headstart.estimators.fitted import Fit, Given, Images, Settings, fit_of, fitted, loaded, takes_images
from headstart.judge.class_marks import decision_of, probabilities_of
from headstart.story.options import Options
from headstart.story.unlike import novelty_in
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.confidence import abstains, has_sets, in_set


@dataclass(eq=False, repr=False)
class TransferClassifier(ClassifierMixin, Settings, BaseEstimator):  # type: ignore[misc]
    """A frozen pre-trained network with a head fitted to your images: one class an image.

    backbone: any timm network, or the folder of a saved model. weights: "auto", "none" (random) or a file. taps:
    "auto", "last", "all" or "late". layer: the one layer to read. head: "auto", or layers in words ("gap, dense 128
    relu"), trained with epochs, batch_size and optimizer ("adam", "adamw", "sgd"). tune: "none", "auto", "last", "all",
    a number of modules or a stage; augment, lr and budget are of that, as in `headstart fit --help`. size: side of the
    network's input in px, None = from the images. view: what is seen of a picture, "crop", "whole", "pad" or "auto";
    views: 2 = its mirror image too. precision: "auto", "bf16" or "f32". bands: those of a TIFF that are
    red, green and blue, "4,3,2". cache: folder of stored features. seed: of every random draw. coverage: of the sets
    of `predict_set`, None = 0.9. sets: "lac", as few classes as possible on average; "raps", more where the model is
    unsure; "classwise", the coverage holds for each class. max_error: the largest share of wrong answers among those
    that are sure enough, with 95 % confidence (`abstains`); None: all are sure enough. aim: "accuracy", or "balanced":
    answers serve the mean recall of the classes. cost: a CSV file of what each mistake costs, a row a true class, a
    column an answer. positive: of two classes the one that scores are of, None = by name, else the rarer.
    target: pictures without labels of the place of use, to which the model is fitted where they are of another kind.

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
    target: str | None = Options.target

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
        self._fit = fitted(CLASSIFICATION, X, labels, self)
        self.classes_ = self._fit.classes if labels is None else labels.values
        self.set_aside_ = self._fit.set_aside
        return self

    def predict_proba(self, X: Images) -> npt.NDArray[np.float32]:
        """Probabilities (image, class). Raises DataError naming the first image that cannot be read."""
        return probabilities_of(fit_of(self, Fit).predict(X).answers)

    def predict(self, X: Images) -> npt.NDArray[Any]:
        """The most probable class of each image, or the one that `aim` or `cost` asks for, (image,)."""
        check_is_fitted(self, "_fit")
        return np.asarray(self.classes_[decision_of(fit_of(self, Fit).predict(X).answers)])

    def predict_set(self, X: Images) -> npt.NDArray[np.bool_]:
        """Which classes can be meant (image, class), one at least: the share `coverage` of new images has its true
        class among them, of each class with `sets="classwise"`. Raises DataError for a loaded model of before
        there were sets."""
        found = fit_of(self, Fit)
        if not has_sets(found.model.rule):
            raise DataError("the model was saved before there were sets: fit it again, and they come with it")
        return in_set(found.predict(X).answers, found.model.rule)

    def abstains(self, X: Images) -> npt.NDArray[np.bool_]:
        """Whether the answer is not sure enough (image,), so that of the others at most the share `max_error` is wrong,
        with 95 % confidence; never, where none was set."""
        found = fit_of(self, Fit)
        return abstains(found.predict(X).answers, found.model.rule)

    def novelty(self, X: Images) -> npt.NDArray[np.float32]:
        """How unlike the images are to all that taught (image,): 0 is usual; see `known`. Raises DataError."""
        return novelty_in(fit_of(self, Fit).predict(X))

    def known(self, X: Images) -> npt.NDArray[np.bool_]:
        """Whether the images are like those that taught (image,): not so of at most 5 % of new ones of its classes."""
        return np.asarray(self.novelty(X) <= 1)

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json) on labelled images; classes are matched by name.

        Of a folder or manifest with a test part (else a validation part) that part alone is scored.
        """
        return fit_of(self, Fit).evaluate(X, y, self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """Judge the model as `headstart fit` does and write the bundle; returns the content of metrics.json.

        A model of other data is replaced only with `force`.
        """
        return fit_of(self, Fit).save(folder, force, f"TransferClassifier(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = loaded(cls, folder, CLASSIFICATION.name, Fit)
        found.classes_ = found._fit.classes
        return found

    def __sklearn_tags__(self) -> Any:
        return takes_images(super().__sklearn_tags__())
