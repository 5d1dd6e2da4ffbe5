"""Measured values: one number an image, or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.table import Table
from headstart.data.targets import Targets, Values, value_targets
from headstart.errors import DataError, OptionError
from headstart.finetune.objective import SQUARED
from headstart.heads.material import Ints, Material
from headstart.heads.measured import fit_values, half_widths
from headstart.heads.probe import Known, Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet, value_sets
from headstart.judge.marks import Marks
from headstart.judge.summaries import measure_of
from headstart.judge.value_marks import R2, crossed_value_score, value_marks, value_score
from headstart.tasks.task import Judging, Record, Rule, Task

COVERAGE = 0.9  # of the prediction intervals, the usual one
DETERMINATION = measure_of(R2, percent=False)


def values_of(targets: Targets) -> Doubles:
    """(image, column). Raises TypeError for the targets of another task."""
    if not isinstance(targets, Values):
        raise TypeError(f"{type(targets).__name__} are not measured values")
    return targets.values


def prepare(table: Table, min_images: int | None) -> Table:
    """The table as it is. Raises OptionError for what is of classes."""
    if min_images is not None:
        raise OptionError(f"--min-images {min_images} is of classes, and these images have values: leave it out")
    return table


def check(targets: Targets, rows: Ints) -> None:
    """Raises DataError for a column with one value."""
    values = values_of(targets)[rows]
    for k, name in enumerate(targets.names):
        if np.ptp(values[:, k]) == 0:
            raise DataError(f"every training image that can be read has the {name} {values[0, k]:g}: nothing to learn")


def solve(
    material: Material, sets: tuple[TapSet, ...], *, quick: bool = False, known: Known | None = None, workers: int = 1
) -> Probe:
    """Ridge for each column; with `quick` without the averaging of tap sets."""
    m = material
    return fit_values(m.blocks, values_of(m.targets), m.groups, sets, m.seed, quick, known, workers)


def answers(outputs: Doubles, rule: Rule) -> Doubles:
    """(image, column, 2): the value, and half the width of its interval."""
    return np.stack([outputs, np.broadcast_to(rule["half_widths"], outputs.shape)], axis=2)


def mark(targets: Targets, said: NDArray[Any]) -> Marks:
    """Of answers (image, column, 2)."""
    return value_marks(values_of(targets), said[:, :, 0], said[:, :, 1])


def _mean(repeats: Sequence[Marks], said: NDArray[Any]) -> Marks:
    return value_marks(repeats[0]["truth"], said[:, :, 0], said[:, :, 1])


def mean_value(targets: Targets, n: int) -> Doubles:
    """The mean of each column, for each of n images."""
    values = values_of(targets)
    middle = values.mean(axis=0)
    return np.broadcast_to(
        np.stack([middle, half_widths(values - middle, COVERAGE)], axis=1), (n, len(middle), 2)
    ).copy()


def intervals(targets: Targets, left_out: Doubles, groups: Ints) -> Rule:
    """Half the width of each column's prediction interval, from left-out residuals."""
    known = np.isfinite(left_out).all(axis=1)
    if not known.any():
        return {"half_widths": (float("inf"),) * len(targets.names)}
    found = half_widths(values_of(targets)[known] - left_out[known], COVERAGE, groups[known])
    return {"half_widths": tuple(float(v) for v in found)}


def record(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule, top: int) -> Record:
    """{"values", "low", "high"}, each {column: number}; an end is null where too few images taught to say it."""

    def told(numbers: NDArray[np.floating[Any]]) -> dict[str, float | None]:
        return {name: float(v) if np.isfinite(v) else None for name, v in zip(names, numbers, strict=True)}

    value, half = answer[:, 0], answer[:, 1]
    return {"values": told(value), "low": told(value - half), "high": told(value + half)}


def said(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule) -> tuple[str, float]:
    """The values; of an interval at the stated coverage."""
    return ", ".join(f"{value:.4g}" for value in answer[:, 0]), COVERAGE


def galleries(marks: Marks) -> dict[str, Ints]:
    """Rows of the marks, the farthest off first, in units of each column's standard deviation."""
    spread = np.where(marks["truth"].std(axis=0) > 0, marks["truth"].std(axis=0), 1)
    off = (np.abs(marks["truth"] - marks["answer"]) / spread).max(axis=1)
    return {"worst": np.argsort(-off, kind="stable")}


REGRESSION = Task(
    name="regress",
    targets=value_targets,
    prepare=prepare,
    check=check,
    solve=solve,
    objective=SQUARED,
    answers=answers,
    judging=Judging(
        mark=mark,
        score=value_score,
        crossed=crossed_value_score,
        headline=DETERMINATION,
        mean=_mean,
    ),
    constant=mean_value,
    constant_name="the mean",
    rule=intervals,
    record=record,
    galleries=galleries,
    said=said,
    sets=value_sets,
    whole=True,
    extra=(2,),
)
