"""Ridge and LDA of a fold: left-out answers of the images that teach, answers for the held ones, the best penalty.

A few penalties are tried, downhill, where the head of all images tries them all: each costs a factorisation here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.heads.lda import Doubles, Forms, Ints, scores_of, without_group, without_one
from headstart.heads.taps import Part, TapSet
from headstart.heads.without import Kept, Taught

Rows = npt.NDArray[np.intp]

# Images up to which all penalties are tried: the left-out losses of so few may have two valleys. Of the folds of six
# real sets, 48 to 2,400 images, none had.
ALL_TRIED = 100
HELD = "held images"  # a block of features: which of the held images it is, (held, held) of 0 and 1


def ridge_without(kept: Kept, targets: Doubles, tied: Sequence[Rows]) -> tuple[Doubles, Doubles]:
    """Ridge for targets (row, target): (answers for the rows, each by a fit without it and its group; for the held)."""
    left = targets - kept.residuals / kept.diagonal[:, None]
    for places, block in zip(tied, kept.blocks, strict=True):
        left[places] = targets[places] - np.linalg.solve(block, kept.residuals[places])
    return left, kept.held


def lda_without(kept: Kept, y: Ints, n_classes: int, tied: Sequence[Rows]) -> tuple[Doubles, Doubles]:
    """Shrunk LDA for classes y (row,), as `ridge_without`; `kept` is of the classes, one-hot."""
    counts, k = np.bincount(y, minlength=n_classes), len(y)
    share = counts / k
    total = (np.eye(n_classes)[y] - share - kept.residuals) / counts  # x' T^-1 M, of the centred hat matrix
    sums = np.zeros((n_classes, n_classes))
    np.add.at(sums, y, total)
    form = Forms.of(sums / counts[:, None], counts)
    left = without_one(form, 1 - 1 / k - kept.diagonal, total, y, counts)
    for places, block in zip(tied, kept.blocks, strict=True):
        hat = np.eye(len(places)) - 1 / k - block
        left[places] = without_group(form, hat, total[places], y[places], counts)
    left -= left.mean(axis=1, keepdims=True)
    return left, scores_of(form, (kept.held - share) / counts, counts)


def nearest(penalties: Sequence[float], penalty: float) -> int:
    """The number of the penalty closest to this one."""
    return int(np.argmin(np.abs(np.log(penalties) - np.log(penalty))))


def least(loss: Callable[[int], Doubles], n: int, first: Iterable[int]) -> Rows:
    """Of each output the number, 0 to n - 1, with the least loss; loss(number): (output,).

    From the best of the `first` downhill until both neighbours are worse: where a loss has one valley, as left-out
    losses over the penalties have, that is the least of all. The lowest of equals.
    """
    losses = {k: loss(k) for k in first}
    while True:
        tried = sorted(losses)
        best: Rows = np.array(tried, np.intp)[np.stack([losses[k] for k in tried]).argmin(axis=0)]
        new = {int(k) for b in best for k in (b - 1, b + 1) if 0 <= k < n} - losses.keys()
        if not new:
            return best
        losses |= {k: loss(k) for k in sorted(new)}


@dataclass(frozen=True)
class Chosen:
    """The penalties that lose least: number (output,) among them; left (row, output) and held (held, output): the
    answers with them, for the images that teach by fits without them and their group."""

    numbers: Rows
    left: Doubles
    held: Doubles


def chosen(
    fit: Callable[[float], tuple[Doubles, Doubles]],
    loss: Callable[[Doubles], Doubles],
    penalties: Sequence[float],
    taught: Taught,
    head: str,
) -> Chosen:
    """fit(penalty): (left, held); loss(left): (output,), or one for all outputs, (1,)."""
    found: dict[int, tuple[Doubles, Doubles]] = {}

    def at(number: int) -> Doubles:
        found[number] = fit(penalties[number])
        return loss(found[number][0])

    every, start, few = range(len(penalties)), taught.starts.get(head), taught.n_images <= ALL_TRIED
    first = every if few else every[1::3] if start is None else (nearest(penalties, start),)
    best = least(at, len(penalties), first)
    numbers = np.broadcast_to(best, found[int(best[0])][0].shape[1:])
    left, held = (np.stack([found[int(k)][i][:, c] for c, k in enumerate(numbers)], axis=1) for i in (0, 1))
    return Chosen(numbers, left, held)


def on_held(sets: tuple[TapSet, ...]) -> tuple[TapSet, ...]:
    """Sets of these names whose features of a held image are which it is: the coefficients of a linear head on them are
    its answers, and such heads are averaged like all others."""
    return tuple(TapSet(tap_set.name, (Part(HELD, root=False, unit=False),)) for tap_set in sets)
