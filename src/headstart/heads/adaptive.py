"""Regularised adaptive sets of classes (RAPS, Angelopoulos, Bates, Malik and Jordan 2021).

Classes enter an image's set in the order of their probabilities until these add up to enough, so that an unsure answer
comes with more classes than a sure one. Each class behind the k-th costs an extra penalty, which keeps a long tail of
improbable ones out.

Nothing is drawn at random: the score of a class is what lies *before* it, so that the answer is in every set and the
same image has the same set each time. The paper keeps the last class of a set by a coin instead. Without the coin the
sets hold the truth a little more often than asked; where more answers are right than the coverage asks for, each set is
the answer alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.heads.confident import Ints, least_groups
from headstart.heads.measured import half_widths
from headstart.heads.spectrum import Doubles

PENALTIES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # tried: from hardly any to one that hardly a class outlives
CHOOSING = 5  # every so many-th group chooses the penalty, the others set the threshold
# Where the fifth that would choose is too small for a threshold of its own: a light penalty from the sixth class on,
# inside the range that the paper tries. The coverage holds whatever they are.
PENALTY, FREE = 0.01, 5
QUARTERS = 4  # of the images by how sure the answer is, in which coverage is compared


@dataclass(frozen=True)
class Adaptive:
    """A class belongs to a set while its score is at most `limit`; `penalty` for each class behind the `free` first."""

    limit: float
    penalty: float
    free: int


def adaptive(p: Doubles, first: Ints, truth: Ints, coverage: float, groups: Ints) -> Adaptive:
    """Of left-out probabilities p (image, class), the answers first (image,) and the truth (image,).

    The penalty and the number of free classes are chosen by a fifth of the groups, the limit by the others: the
    (n + 1)-corrected quantile of their scores, in which each group (image,) counts once. Where all are too few to say,
    the limit is above any score: every class belongs to the set.
    """
    names, group = np.unique(groups, return_inverse=True)
    choosing = np.random.default_rng(0).permutation(len(names))[group] < len(names) // CHOOSING
    penalty, free = PENALTY, FREE
    if len(names) // CHOOSING > least_groups(coverage):
        penalty, free = _chosen(p[choosing], first[choosing], truth[choosing], coverage, groups[choosing])
        p, first, truth, groups = p[~choosing], first[~choosing], truth[~choosing], groups[~choosing]
    limit = _limit(scores(p, first, penalty, free), truth, coverage, groups)
    return Adaptive(limit if np.isfinite(limit) else above_all(p.shape[1], penalty), penalty, free)


def above_all(n_classes: int, penalty: float) -> float:
    """A limit that every class keeps: probabilities add up to 1."""
    return 2 + penalty * n_classes


def scores(p: Doubles, first: Ints, penalty: float, free: int) -> Doubles:
    """(image, class): the probability of all that comes before the class, and the penalty of its place. The answer
    first (image,) comes first, the others by their probability p (image, class); equals have one place."""
    before, place = _before(p, first)
    return before + penalty * np.maximum(0, place - free)


def _before(p: Doubles, first: Ints) -> tuple[Doubles, Ints]:
    """(image, class) each: the probability of all that comes before the class; its place, from 1."""
    p = np.asarray(p, dtype=np.float64)
    rank = p.copy()
    rank[np.arange(len(p)), first] = 2.0
    order = np.argsort(-rank, axis=1, kind="stable")
    ranked, sorted_p = np.take_along_axis(rank, order, axis=1), np.take_along_axis(p, order, axis=1)
    mass = np.cumsum(sorted_p, axis=1) - sorted_p
    new = np.diff(ranked, axis=1, prepend=3.0) < 0
    start = np.maximum.accumulate(np.where(new, np.arange(p.shape[1]), 0), axis=1)  # of the run of equals
    before, place = np.empty_like(p), np.empty(p.shape, dtype=np.int64)
    np.put_along_axis(before, order, np.take_along_axis(mass, start, axis=1), axis=1)
    np.put_along_axis(place, order, start + 1, axis=1)
    return before, place


def _limit(found: Doubles, truth: Ints, coverage: float, groups: Ints) -> float:
    return float(half_widths(found[np.arange(len(truth)), truth][:, None], coverage, groups)[0])


def _chosen(p: Doubles, first: Ints, truth: Ints, coverage: float, groups: Ints) -> tuple[float, int]:
    """(penalty, free classes), each group (image,) counted once.

    As many classes are free as places are needed to hold the truth of `coverage` (the paper's appendix). A heavy
    penalty makes sets smaller at the expense of unsure images, which are then held less often than sure ones, and least
    ambiguous sets are smaller still. So it is the penalty with the smallest sets among those that hold the truth as
    evenly as the most even one, within a standard error: by the quarter of images that is held least. The paper
    compares images by the sizes of their sets for this; quarters by the answer's probability are the same for all
    penalties.
    """
    before, place = _before(p, first)
    free = int(_limit(place.astype(np.float64), truth, coverage, groups))
    _, group, n = np.unique(groups, return_inverse=True, return_counts=True)
    weight = 1 / n[group]
    quarter = _quarters(p[np.arange(len(p)), first], weight)
    least, sizes = [], []
    for penalty in PENALTIES:
        found = before + penalty * np.maximum(0, place - free)
        meant = found <= _limit(found, truth, coverage, groups)
        held = weight * meant[np.arange(len(truth)), truth]
        least.append(float(np.min(np.bincount(quarter, held, QUARTERS) / np.bincount(quarter, weight, QUARTERS))))
        sizes.append(float((meant.sum(axis=1) * weight).sum() / len(n)))
    error = np.sqrt(coverage * (1 - coverage) * QUARTERS / len(n))
    even = np.array(least) >= max(least) - error - 1e-9  # sums of copies are rounded
    return PENALTIES[int(np.argmin(np.where(even, np.round(sizes, 6), np.inf)))], free


def _quarters(sure: Doubles, weight: Doubles) -> Ints:
    """(image,): 0 for the least sure quarter of the weight, to 3."""
    order = np.argsort(sure, kind="stable")
    quarter = np.empty(len(sure), dtype=np.int64)
    quarter[order] = ((np.cumsum(weight[order]) - weight[order] / 2) * QUARTERS / weight.sum()).astype(np.int64)
    return quarter
