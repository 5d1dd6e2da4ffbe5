"""Which answered boxes are which true ones: the greedy matching of COCO.

Of one class in one picture, boxes are answered in the order of their scores, at most `MOST` of them. Each takes the
true box that it overlaps most of those still free, if that overlap is at least the threshold; of equal overlaps the
later one. A box that overlaps only boxes that are not counted (hard: difficult ones, crowds) is left out, any number of
them for one such box, and there the overlap is the share of the answered box that lies inside. All else is a false box.
Source: Lin et al. 2014, Microsoft COCO, and its evaluation code (cocoapi, `COCOeval.evaluateImg`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of intersection over union, as COCO has them
MOST = 100  # answers of a class in a picture that are judged, the best ones first
AT_ONCE = 128  # pairs of class and picture that are matched side by side: a few MB
RIGHT, FALSE, LEFT_OUT = 1, 0, -1

Doubles = NDArray[np.float64]
Flags = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Pair:
    """The boxes of one class in one picture: answered (answer, 4), best score first; true (box, 4); hard (box,)."""

    answered: Doubles
    true: Doubles
    hard: NDArray[np.bool_]


def best_first(scores: Doubles, kinds: NDArray[np.int64]) -> NDArray[np.intp]:
    """The rows (answer,) of a picture's answers that are judged: best score first, of equal ones the earlier, `MOST` of
    a class."""
    order = np.argsort(-scores, kind="stable")
    rank = np.empty(len(order), np.int64)
    for kind in np.unique(kinds):
        here = kinds[order] == kind
        rank[here] = np.arange(here.sum())
    return order[rank < MOST]


def matched(pairs: Sequence[Pair]) -> list[tuple[Flags, NDArray[np.int64]]]:
    """For each pair, of its answers at each of THRESHOLDS: (answer, threshold) RIGHT, FALSE or LEFT_OUT, and the true
    box that it is, -1 for none."""
    found = [
        (np.zeros((len(p.answered), len(THRESHOLDS)), np.int8), np.full((len(p.answered), len(THRESHOLDS)), -1))
        for p in pairs
    ]
    both = [k for k, p in enumerate(pairs) if len(p.answered) and len(p.true)]
    for start in range(0, len(both), AT_ONCE):
        part = both[start : start + AT_ONCE]
        for k, flags, which in _side_by_side([pairs[k] for k in part], part):
            found[k] = flags, which
    return found


def _side_by_side(pairs: Sequence[Pair], numbers: Sequence[int]) -> Iterator[tuple[int, Flags, NDArray[np.int64]]]:
    n_answers, n_true = max(len(p.answered) for p in pairs), max(len(p.true) for p in pairs)
    overlap = np.full((len(pairs), n_answers, n_true), -1.0)
    hard = np.zeros((len(pairs), 1, n_true), dtype=bool)
    for k, p in enumerate(pairs):
        overlap[k, : len(p.answered), : len(p.true)] = overlaps(p.answered, p.true, p.hard)
        hard[k, 0, : len(p.true)] = p.hard
    flags, which = _greedy(overlap, hard)
    for k, p in enumerate(pairs):
        yield numbers[k], flags[k, : len(p.answered)], which[k, : len(p.answered)]


def _greedy(overlap: Doubles, hard: NDArray[np.bool_]) -> tuple[Flags, NDArray[np.int64]]:
    """overlap (pair, answer, box), hard (pair, 1, box) -> flags and boxes (pair, answer, threshold)."""
    n, n_answers, n_true = overlap.shape
    flags = np.zeros((n, n_answers, len(THRESHOLDS)), np.int8)
    which = np.full((n, n_answers, len(THRESHOLDS)), -1)
    free = np.broadcast_to(~hard, (n, len(THRESHOLDS), n_true)).copy()
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for rank in range(n_answers):
        here = overlap[:, rank, None, :]
        enough = here >= least
        own = np.where(enough & free, here, -1.0)
        best = n_true - 1 - own[..., ::-1].argmax(axis=-1)
        taken = np.take_along_axis(own, best[..., None], axis=-1)[..., 0] >= 0
        flags[:, rank] = np.where(taken, RIGHT, np.where((enough & hard).any(axis=-1), LEFT_OUT, FALSE))
        which[:, rank] = np.where(taken, best, -1)
        pair, threshold = np.nonzero(taken)
        free[pair, threshold, best[pair, threshold]] = False
    return flags, which


def overlaps(answered: NDArray[Any], true: NDArray[Any], hard: NDArray[np.bool_]) -> Doubles:
    """(answer, box): intersection over union; over the answered box alone where the true one is hard."""
    a, b = answered[:, None, :].astype(np.float64), true[None, :, :].astype(np.float64)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area_a, area_b = ((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b))
    whole = np.where(hard, area_a, area_a + area_b - shared)
    return np.divide(shared, whole, out=np.zeros(shared.shape), where=whole > 0)
