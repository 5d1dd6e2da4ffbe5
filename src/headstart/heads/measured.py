"""Measured values: ridge for each column, with exact leave-one-out, and intervals from its residuals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from headstart.errors import OptionError
from headstart.heads.outputs import Member, average, candidates, choice_rows, fit_outputs
from headstart.heads.probe import Blocks, Known, Probe, source_of
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet

Ints = npt.NDArray[np.integer]


def fit_values(
    blocks: Blocks,
    values: Doubles,
    groups: Ints,
    tap_sets: tuple[TapSet, ...],
    seed: int = 0,
    quick: bool = False,
    known: Known | None = None,
    workers: int = 1,
) -> Probe:
    """Ridge for each column of values (image, column), finite, in any unit; the answers are in that unit.

    blocks: block -> (image, feature); groups (image,) are left out together. Each column takes the penalty with the
    least left-out squared error, and the average of the tap sets whose error is within a tenth of the best; with
    `quick` the best alone. `known`, `workers`: as in `fit_probe`. A candidate's `log_loss` is here the left-out
    squared error in units of the column's variance, mean over the columns, and `accuracy` 1 less that.
    """
    centre, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 1e-12 * np.abs(centre), spread, 1.0)  # a constant column stays the constant
    # a matter of numbers alone: with a free intercept, ridge answers alike in any unit and from any zero
    targets = (values - centre) / spread
    rows = choice_rows(len(values), seed)

    def on(tap_set: TapSet) -> Member:
        found = fit_outputs(source_of(tap_set, blocks, known), targets, groups, _squared_error, rows)
        return Member(tap_set, found, _squared_error(found.left_out[None], targets)[0], spread > 0)

    with ThreadPoolExecutor(workers) as pool:
        members = list(pool.map(on, tap_sets))
    probe, shares = average(members, quick, blocks)
    explained = [1 - float(member.losses.mean()) for member in members]
    return replace(
        probe,
        coef=spread[:, None] * probe.coef,
        intercept=centre + spread * probe.intercept,
        left_out=centre + spread * probe.left_out,
        candidates=candidates(members, shares, explained),
    )


def _squared_error(answers: Doubles, targets: Doubles) -> Doubles:
    """Mean over the images: (penalty, output) of answers (penalty, image, output) for targets (image, output)."""
    return np.asarray(((answers - targets) ** 2).mean(axis=1))


def half_widths(residuals: Doubles, coverage: float = 0.9, groups: Ints | None = None) -> Doubles:
    """Half the width (column,) of intervals, answer -+ half width, that hold `coverage` of new images' values.

    residuals (image, column): truth less left-out answer. Without groups it is the ceil((n + 1) coverage)-th smallest
    absolute residual, the jackknife's (Barber et al. 2021; what they prove of CV+ and jackknife+ costs a factor of two
    in the worst case, but for a fit that one image hardly moves, as ridge, the coverage is the stated one). It is
    infinite where the images are too few to say: fewer than coverage / (1 - coverage), 9 for 90 %.

    Images of one group resemble each other, and a new image comes from a new group: groups are exchangeable, images
    are not. So each group counts once, with its images in equal parts (Lee, Barber and Willett 2023). One drawn
    residual a group would do too, but waste the others and depend on the draw; all residuals alike would let one
    patient with a thousand images speak for all. Raises OptionError for a coverage that is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise OptionError(f"coverage {coverage} is not allowed: more than 0 and less than 1, such as 0.9")
    n = len(residuals)
    _, group, sizes = np.unique(np.arange(n) if groups is None else groups, return_inverse=True, return_counts=True)
    weight = 1 / (sizes[group] * (len(sizes) + 1))  # the new image's own group has the rest, at infinity
    sizes_of = np.sort(np.abs(residuals), axis=0)
    held = np.cumsum(weight[np.argsort(np.abs(residuals), axis=0, kind="stable")], axis=0)
    widths = np.full(residuals.shape[1], np.inf)
    for column in range(residuals.shape[1]):
        place = int(np.searchsorted(held[:, column], coverage - 1e-9))  # sums of 1 / (n + 1) are rounded
        if place < n:
            widths[column] = sizes_of[place, column]
    return widths
