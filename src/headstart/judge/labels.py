"""Images whose label is probably wrong, and how many such labels a list of them holds.

An image that the model, without it, gives to another class has a wrong label, or it is hard. Both are estimated at
once from the left-out answers: a label is the image's class with probability 1 - e, else any other class alike
(Northcutt, Jiang and Chuang 2021, JAIR 70: noise that depends on the class; here one rate), and the class has the
probabilities softmax(scale * log p). Scale and e are those of the largest likelihood. Hard images are mistaken in
proportion to what the model leaves open; wrong labels lie beyond that, where it is sure. So a weak model finds e = 0
and accuses nobody, since its mistakes are what it said to expect.

Of each image that gives the probability that its label is wrong, and the list ends where that falls below one half.
Constants were chosen by reason, none on data; benchmarks/planted_labels.py says what comes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError

SCALES = np.exp(np.linspace(-1, 1.5, 26))  # wrong labels make a calibrated model about half as sure as it should be
RATES = np.concatenate([[0.0], np.geomspace(2e-4, 0.4, 46)])  # of wrong labels; above, no label says what a class is
WITHIN = 1.92  # of the largest log-likelihood: a 95 % interval of one number (half the quantile of chi-squared)
CUT = 0.5  # the least probability that a label on the list is wrong
MOST_ROWS = 20_000  # images from which two numbers are estimated: a rate is then known to a thousandth
LEAST = 1e-9  # a probability that no model is sure beyond
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Suspect:
    """A row, the class number suggested instead, and the probability that the label is wrong: `score`, and with the
    least and the largest share of wrong labels that the answers allow."""

    row: int
    suggested: int
    score: float
    least: float = 0.0
    most: float = 1.0
    sure: float = float("nan")  # the probability of the suggested class, of the model without the image

    def reason(self, classes: Sequence[str]) -> str:
        """In words."""
        return f"the model without it says {classes[self.suggested]} at {self.sure:.0%}"


@dataclass(frozen=True)
class Expected:
    """How many labels of a list of n are wrong, with a 95 % interval."""

    n: int
    wrong: int
    low: int
    high: int

    def __str__(self) -> str:
        if self.n == 1:
            return "1 label may be wrong"
        return (
            f"about {self.wrong:,} of these {self.n:,} labels are expected to be wrong ({self.low:,} to {self.high:,})"
        )


def expected(suspects: Sequence[Suspect]) -> Expected:
    """From the probabilities of the list. The interval holds that of the rate of wrong labels, and what chance makes of
    probabilities."""

    def total(p: Doubles, sign: float) -> float:
        return float(p.sum() + sign * 1.96 * np.sqrt((p * (1 - p)).sum()))

    n = len(suspects)
    score, least, most = (np.array([getattr(s, name) for s in suspects]) for name in ("score", "least", "most"))
    low, high = int(np.floor(total(least, -1))), int(np.ceil(total(most, 1)))
    return Expected(n, round(float(score.sum())), max(0, low), min(n, high))


def suspected_labels(
    labels: NDArray[np.integer[Any]], out_of_fold: NDArray[np.floating[Any]], classes: Sequence[str]
) -> list[Suspect]:
    """Suspected labels, the most probably wrong first; none where the answers do not show that any label is wrong.

    labels (image,) int; out_of_fold (image, class): probabilities of a model that did not learn from the image. Never
    half of a class is suspected: where a common class swallows a rare one, the model is at fault, not the labels.
    Raises OptionError where the shapes do not fit.
    """
    n, n_classes = len(labels), len(classes)
    if out_of_fold.shape != (n, n_classes):
        raise OptionError(
            f"suspected labels: probabilities {out_of_fold.shape}, expected ({n}, {n_classes}) (image, class)"
        )
    if n == 0 or n_classes < 2:
        return []
    logs = np.log(np.maximum(out_of_fold.astype(np.float64), LEAST))
    drawn = np.arange(n) if n <= MOST_ROWS else np.random.default_rng(0).choice(n, MOST_ROWS, replace=False)
    likelihood = _likelihood(logs[drawn], labels[drawn], n_classes)
    best = likelihood.max(axis=0)  # (rate,)
    rate = int(best.argmax())
    possible = np.flatnonzero(best > best[rate] - WITHIN)
    if possible[0] == 0:
        return []
    scale = float(SCALES[likelihood[:, rate].argmax()])
    own = _own(logs, labels, scale)
    score, least, most = (_wrong(own, float(RATES[k]), n_classes) for k in (rate, possible[0], possible[-1]))
    found = out_of_fold.argmax(axis=1)
    chosen = (score > CUT) & (found != labels)
    size, taken = (np.bincount(labels[some], minlength=n_classes) for some in (slice(None), chosen))
    chosen &= (2 * taken < size)[labels]
    rows = np.flatnonzero(chosen)
    rows = rows[np.lexsort((rows, own[rows]))]
    return [
        Suspect(
            int(r), int(found[r]), float(score[r]), float(least[r]), float(most[r]), float(out_of_fold[r, found[r]])
        )
        for r in rows
    ]


def _own(logs: Doubles, labels: NDArray[np.integer[Any]], scale: float) -> Doubles:
    """(image,): the probability of the label by softmax(scale * logs)."""
    scaled = scale * logs
    scaled -= scaled.max(axis=1, keepdims=True)
    p = np.exp(scaled)
    return np.asarray(p[np.arange(len(labels)), labels] / p.sum(axis=1))


def _likelihood(logs: Doubles, labels: NDArray[np.integer[Any]], n_classes: int) -> Doubles:
    """(scale, rate): the log-likelihood of the labels."""
    found = np.empty((len(SCALES), len(RATES)))
    for row, scale in zip(found, SCALES, strict=True):
        own = np.clip(_own(logs, labels, float(scale)), LEAST, 1 - LEAST)
        for k, rate in enumerate(RATES):
            row[k] = np.log((1 - rate) * own + rate / (n_classes - 1) * (1 - own)).sum()
    return found


def _wrong(own: Doubles, rate: float, n_classes: int) -> Doubles:
    """(image,): the probability that a label is wrong to which the model gives `own`."""
    other = rate / (n_classes - 1) * (1 - own)
    return np.asarray(other / np.maximum((1 - rate) * own + other, LEAST * LEAST))
