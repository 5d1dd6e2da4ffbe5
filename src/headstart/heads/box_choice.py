"""From which score on a box is shown, and from which it is counted: chosen on pictures that taught nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.heads.box_answers import Floats, Ints, overlaps

SAME = 0.5  # overlap from which on an answer is the thing (PASCAL VOC)
SCORE, KIND = 4, 5  # columns of an answer


def found_things(answers: Floats, boxes: Floats, same: float = SAME) -> npt.NDArray[np.bool_]:
    """(answer,): whether each answer (answer, 4), best first, is the first to find a thing of boxes (n, 4): the one
    that it covers best of those not found yet."""
    found, free = np.zeros(len(answers), np.bool_), np.ones(len(boxes), np.bool_)
    if not len(boxes):
        return found
    covered = overlaps(answers, boxes)
    for k in range(len(answers)):
        best = int(np.where(free, covered[k], -1).argmax())
        if free[best] and covered[k, best] >= same:
            found[k], free[best] = True, False
    return found


def shown_from(
    answers: Floats, boxes: Sequence[Floats], labels: Sequence[Ints], hard: Sequence[npt.NDArray[np.bool_]], n: int
) -> tuple[float, ...]:
    """(class,): the score from which on boxes of each of n classes have the best F1 (van Rijsbergen 1979) on these
    pictures; one half for a class that they do not show. answers (image, box, 6), truth as in `train_boxes`."""
    chosen = []
    for kind in range(n):
        scores, right, things = [], [], 0
        for image, given in enumerate(answers):
            own = given[(given[:, KIND] == kind) & (given[:, SCORE] > 0)]
            counts = (labels[image] == kind) & ~hard[image]
            excused = found_things(own, boxes[image][(labels[image] == kind) & hard[image]])
            hit = found_things(own, boxes[image][counts])
            scores.append(own[hit | ~excused, SCORE])
            right.append(hit[hit | ~excused])
            things += int(counts.sum())
        chosen.append(_best_f1(np.concatenate(scores), np.concatenate(right), things))
    return tuple(chosen)


def _best_f1(scores: Floats, right: npt.NDArray[np.bool_], things: int) -> float:
    """Half-way between the last score of the best set and the next lower one."""
    if not things or not right.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order].astype(np.float64), np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + things)
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal scores come together
    best = int(f1.argmax())
    return float((ranked[best] + (ranked[best + 1] if best + 1 < len(ranked) else 0)) / 2)


def counted_from(
    answers: Floats, labels: Sequence[Ints], hard: Sequence[npt.NDArray[np.bool_]], n: int
) -> tuple[float, ...]:
    """(class,): the score from which on the number of boxes of each of n classes errs least, in the mean over these
    pictures; of thresholds that err the same, the middle one."""
    steps, chosen = np.linspace(0.02, 0.98, 97), []
    for kind in range(n):
        things = np.array([((own == kind) & ~odd).sum() for own, odd in zip(labels, hard, strict=True)])
        scores = np.where(answers[..., KIND] == kind, answers[..., SCORE], 0)
        error = np.array([np.abs(n_above(scores, step) - things).mean() for step in steps])
        best = np.flatnonzero(error <= error.min() + 1e-9)
        chosen.append(float(steps[best[len(best) // 2]]) if things.any() else 0.5)
    return tuple(chosen)


def n_above(scores: npt.NDArray[np.floating], threshold: float) -> Ints:
    """(image,): the number of scores (image, box) from this one on."""
    return np.asarray((scores >= threshold).sum(axis=1))
