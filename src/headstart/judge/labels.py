"""Images whose label is probably wrong: confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70, sections 3.1
and 3.2).

A class's threshold is the mean probability that the images labelled so get for it, so a class of which the model is
never sure is held to a lower standard. Images that reach the threshold of another class than their label's say how
many labels of a class are wrong; as many of that class are suspected, those where the most probable class beats the
label's by most ("prune by class", section 3.2). With 5 % of scikit-learn's digits relabelled at random and a logistic
regression, 0.89 of them are found and 0.85 of the suspects are such; of the untouched digits 2 of 1,797 are suspected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError


@dataclass(frozen=True)
class Suspect:
    """A row, the class number suggested instead, and the suggestion's probability minus the label's, in (0, 1]."""

    row: int
    suggested: int
    score: float


def suspected_labels(
    labels: NDArray[np.integer[Any]], out_of_fold: NDArray[np.floating[Any]], classes: Sequence[str]
) -> list[Suspect]:
    """Suspected labels, worst first.

    labels (image,) int; out_of_fold (image, class): probabilities of a model that did not learn from the image. Never
    half of a class is suspected: where a common class swallows a rare one, the model is at fault, not the labels.
    Raises OptionError where the shapes do not fit.
    """
    n, n_classes = len(labels), len(classes)
    if out_of_fold.shape != (n, n_classes):
        raise OptionError(
            f"suspected labels: probabilities {out_of_fold.shape}, expected ({n}, {n_classes}) (image, class)"
        )
    if n == 0:
        return []
    own = out_of_fold[np.arange(n), labels].astype(np.float64)
    size = np.bincount(labels, minlength=n_classes)
    threshold = np.bincount(labels, weights=own, minlength=n_classes) / np.maximum(size, 1)
    threshold[size == 0] = np.inf  # nothing is known of how sure the model is of a class without images
    best = out_of_fold.argmax(axis=1)
    margin = out_of_fold[np.arange(n), best].astype(np.float64) - own
    allowed = _wrong_by_class(labels, out_of_fold, threshold, size)
    rows = np.flatnonzero((best != labels) & (margin > 0))
    rows = rows[np.lexsort((rows, -margin[rows]))]
    taken = np.zeros(n_classes, dtype=np.int64)
    found = []
    for row in rows.tolist():
        label = int(labels[row])
        if taken[label] < allowed[label]:
            taken[label] += 1
            found.append(Suspect(row, int(best[row]), float(margin[row])))
    return found


def _wrong_by_class(
    labels: NDArray[np.integer[Any]], out_of_fold: NDArray[Any], threshold: NDArray[np.float64], size: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many images of each class (class,) are mislabelled: the confident joint, calibrated to the class sizes
    (Northcutt's equations 1 to 3)."""
    confident = out_of_fold >= threshold
    counted = confident.any(axis=1)
    joint_class = np.where(confident, out_of_fold, -1).argmax(axis=1)
    counts = np.bincount(labels[counted], minlength=len(size))
    off = np.bincount(labels[counted & (joint_class != labels)], minlength=len(size))
    wrong = np.ceil(size * off / np.maximum(counts, 1)).astype(np.int64)
    return np.minimum(wrong, (size - 1) // 2)
