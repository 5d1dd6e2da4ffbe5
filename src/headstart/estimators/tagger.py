"""Several labels an image, as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin

from headstart.data.given_truth import truth_given
from headstart.data.table import Table, table_of
from headstart.data.targets import UNKNOWN, LabelSets, label_targets
from headstart.estimators.fitted import Fit, Given, Images, Settings, fit_of, fitted, loaded, takes_images
from headstart.story.options import Options
from headstart.tasks.multilabel import MULTILABEL


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
        self._fit = fitted(task, X, labels, self)
        self.classes_ = self._fit.classes if labels is None else labels.values
        self.set_aside_ = self._fit.set_aside
        return self

    def predict_proba(self, X: Images) -> npt.NDArray[np.float32]:
        """The probability of each label (image, label). Raises DataError naming the first unreadable image."""
        return fit_of(self, Fit).predict(X).answers[:, :, 0]

    def predict(self, X: Images) -> npt.NDArray[np.int64]:
        """1 where a label is given, else 0 (image, label)."""
        answers = fit_of(self, Fit).predict(X).answers
        return np.asarray(answers[:, :, 0] >= answers[:, :, 1], dtype=np.int64)

    def score(self, X: Images, y: Given, sample_weight: npt.ArrayLike | None = None) -> float:
        """The share of images of which all labels are right, those that are known: scikit-learn's subset accuracy. A
        label that the model does not know is not found. Images of which no label is known do not count."""
        names = fit_of(self, Fit).model.names
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
        return fit_of(self, Fit).evaluate(X, y, self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """As `TransferClassifier.save`."""
        return fit_of(self, Fit).save(folder, force, f"TransferTagger(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = loaded(cls, folder, MULTILABEL.name, Fit)
        found.classes_ = found._fit.classes
        return found

    def __sklearn_tags__(self) -> Any:
        tags = takes_images(super().__sklearn_tags__())
        tags.classifier_tags.multi_class, tags.classifier_tags.multi_label = False, True
        tags.target_tags.single_output = False
        return tags


def _in_columns(columns: tuple[str, ...], table: Table, names: tuple[str, ...]) -> LabelSets:
    """The labels of a matrix: all of its columns, in their order."""
    return label_targets(table, columns)
