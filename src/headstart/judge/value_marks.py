"""Measured values: marks of answers, and the scores that they give, each with a 95 % interval.

R2 is the share of the variance that the answers explain: 1 minus their squared error over that of the mean of the
images judged, so 0 for one who knows nothing but this mean, and below 0 for worse. MAE and RMSE are in the unit of the
value. Of several columns R2 is the mean over columns, and MAE and RMSE stand in a table a column: their units differ.
Intervals: `judge/summaries.py`. Where every answer is equally wrong, faultless ones above all, the images of a kind
not seen yet may be answered no better than by the mean (`blind_ends`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError
from headstart.judge.intervals import units_of
from headstart.judge.marks import Array, Interval, Marks, Score, Summary
from headstart.judge.summaries import (
    averaged_scores,
    blind_ends,
    crossed,
    estimate,
    least_of_share,
    resampled,
    summarise,
)

CONSTANT = 1e-12  # of the mean square: a variance below is rounding

Units = NDArray[np.int64]
Ends = tuple[float, float]


class ColumnRow(TypedDict):
    """What is said of one column; `coverage`, the share of truths inside their interval, where there are intervals."""

    column: str
    n: int
    r2: Interval
    mae: Interval
    rmse: Interval
    coverage: NotRequired[Interval]


def value_marks(
    values: NDArray[np.floating[Any]],
    answers: NDArray[np.floating[Any]],
    half_widths: NDArray[np.floating[Any]] | None = None,
    units: NDArray[np.floating[Any]] | None = None,
) -> Marks:
    """What is judged of values (image, column) against answers (image, column).

    half_widths (column,) or (image, column): of the intervals answer ± half width; units (column,): the standard
    deviations in which columns are added up, of these values by default, 1 where they do not vary. Columns of the
    marks: truth, answer, squared, absolute (image, column) in the columns' own units; by image, in `units`: loss, mean
    squared error over columns, and distance, mean absolute error; and, if there are half widths, half_width and covered
    (image, column), 1 where the truth is inside. Raises DataError without images, OptionError where shapes do not fit
    or numbers are not finite.
    """
    _check(values, answers, half_widths)
    truth, answer = values.astype(np.float64), answers.astype(np.float64)
    deviation = truth.std(axis=0) if units is None else np.asarray(units, dtype=np.float64)
    deviation = np.where(deviation > 0, deviation, 1.0)
    error = answer - truth
    columns = {
        "truth": truth,
        "answer": answer,
        "squared": error**2,
        "absolute": np.abs(error),
        "loss": ((error / deviation) ** 2).mean(axis=1),
        "distance": np.abs(error / deviation).mean(axis=1),
    }
    if half_widths is not None:
        columns["half_width"] = np.broadcast_to(np.asarray(half_widths, dtype=np.float64), truth.shape)
        columns["covered"] = (np.abs(error) <= half_widths).astype(np.float64)
    return Marks(columns)


def column_marks(marks: Marks, column: int) -> Marks:
    """The marks of one column (image, 1)."""
    return Marks({name: v[:, [column]] if v.ndim == 2 else v for name, v in marks.columns.items()})


def r2s(marks: Marks, weights: Array) -> Array:
    """(resample, column); nan where the truth does not vary."""
    truth = marks["truth"] - marks["truth"].mean(axis=0)
    total = weights.sum(axis=1, keepdims=True)
    square = weights @ truth**2
    around = square - (weights @ truth) ** 2 / total
    varies = (around > CONSTANT * square) & (np.ptp(marks["truth"], axis=0) > 0)
    share = np.divide(weights @ marks["squared"], around, out=np.full(around.shape, np.nan), where=varies)
    return np.asarray(1 - share)


def _r2(marks: Marks, weights: Array) -> Array:
    """The mean over the columns in which it is defined."""
    found = r2s(marks, weights)
    known = np.isfinite(found)
    n = known.sum(axis=1)
    return np.divide(np.where(known, found, 0.0).sum(axis=1), n, out=np.full(len(n), np.nan), where=n > 0)


def _means(column: str, marks: Marks, weights: Array) -> Array:
    """Means (resample, column) of marks (image, column)."""
    return np.asarray(weights @ marks[column] / weights.sum(axis=1, keepdims=True))


def _mae(marks: Marks, weights: Array) -> Array:
    return np.asarray(_means("absolute", marks, weights).mean(axis=1))


def _rmse(marks: Marks, weights: Array) -> Array:
    return np.asarray(np.sqrt(_means("squared", marks, weights).mean(axis=1)))


def _coverage(marks: Marks, weights: Array) -> Array:
    return np.asarray(_means("covered", marks, weights).mean(axis=1))


def _r2_ends(marks: Marks, units: Units) -> Ends:
    """The mean of the columns' ends: of which nothing is seen may fail together."""
    found = r2s(marks, np.ones((1, len(marks))))[0]
    ends = [
        blind_ends(float(found[c]), 1.0, 0.0, marks["squared"][:, c], units) for c in np.flatnonzero(np.isfinite(found))
    ]
    low, high = np.array(ends).mean(axis=0)
    return float(low), float(high)


def _error_ends(column: str) -> Callable[[Marks, Units], Ends]:
    """Of the mean of `squared` or `absolute`."""

    def least(marks: Marks, units: Units) -> Ends:
        error = marks[column].mean(axis=1)
        off = np.abs(marks["truth"] - marks["truth"].mean(axis=0))
        ignorant = float((off**2 if column == "squared" else off).mean())
        return blind_ends(float(error.mean()), 0.0, ignorant, error, units)

    return least


def _rmse_ends(marks: Marks, units: Units) -> Ends:
    low, high = _error_ends("squared")(marks, units)
    return float(np.sqrt(max(low, 0.0))), float(np.sqrt(high))


def _covered(marks: Marks) -> Array:
    return np.asarray(marks["covered"].mean(axis=1))


R2 = Summary("r2", _r2, lowest=-np.inf, least=_r2_ends)
MAE = Summary("mae", _mae, highest=np.inf, higher_is_better=False, least=_error_ends("absolute"))
RMSE = Summary("rmse", _rmse, highest=np.inf, higher_is_better=False, least=_rmse_ends)
COVERAGE = Summary("coverage", _coverage, least=least_of_share(_covered))
BY_COLUMN: dict[str, Callable[[Marks, Array], Array]] = {  # the same of each column (resample, column)
    "r2": r2s,
    "mae": partial(_means, "absolute"),
    "rmse": lambda marks, weights: np.sqrt(_means("squared", marks, weights)),
    "coverage": partial(_means, "covered"),
}


def value_summaries(marks: Marks) -> tuple[Summary, ...]:
    """R2, MAE and RMSE of one column, R2 of several; and the coverage where the answers have intervals."""
    errors = (MAE, RMSE) if marks["truth"].shape[1] == 1 else ()
    return (R2, *errors, *((COVERAGE,) if "covered" in marks.columns else ()))


def value_score(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> Score:
    """`value_summaries` with their intervals; `tables` as `value_tables` has them where there are several columns.

    names: of the columns; groups (image,): images of one group are not independent; None = all are.
    """
    found = summarise(marks, value_summaries(marks), groups, seed)
    return Score(len(marks), found, value_tables(marks, names, groups, seed) if len(names) > 1 else {})


def value_tables(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> dict[str, list[ColumnRow]]:
    """JSON-ready: `per_column`, a ColumnRow a column."""
    found = _of_columns(marks, groups, seed)
    return {"per_column": [_row(name, len(marks), cells) for name, cells in zip(names, found, strict=True)]}


def _of_columns(marks: Marks, groups: NDArray[Any] | None, seed: int) -> list[dict[str, Interval]]:
    """The estimates of each column, all from the same resamples."""
    units = units_of(len(marks), groups)
    parts = [column_marks(marks, c) for c in range(marks["truth"].shape[1])]
    summaries = value_summaries(parts[0])
    drawn = resampled([marks], {s.name: BY_COLUMN[s.name] for s in summaries}, units, seed)
    return [{s.name: estimate(s, one, drawn[s.name][:, c], units) for s in summaries} for c, one in enumerate(parts)]


def _row(name: str, n: int, found: dict[str, Interval]) -> ColumnRow:
    row: ColumnRow = {"column": name, "n": n, "r2": found["r2"], "mae": found["mae"], "rmse": found["rmse"]}
    if "coverage" in found:
        row["coverage"] = found["coverage"]
    return row


def crossed_value_score(
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    names: Sequence[str],
    groups: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Score:
    """`value_score` of repeated cross-validation: out-of-fold marks and fold numbers (image,) of each repeat. Estimates
    and rows as `crossed` makes them."""
    n, kinds = len(repeats[0]), value_summaries(repeats[0])
    found = crossed(repeats, folds, kinds, groups, seed)
    tables: dict[str, list[ColumnRow]] = {}
    if len(names) > 1:
        of_repeats = [_of_columns(marks, groups, seed) for marks in repeats]
        tables["per_column"] = []
        for c, name in enumerate(names):
            parts = [column_marks(marks, c) for marks in repeats]
            cells = averaged_scores(value_summaries(parts[0]), parts, folds, [one[c] for one in of_repeats])
            tables["per_column"].append(_row(name, n, cells))
    return Score(n, found, tables, len(np.unique(folds[0])), len(repeats))


def _check(values: NDArray[Any], answers: NDArray[Any], half_widths: NDArray[Any] | None) -> None:
    if values.ndim != 2 or answers.shape != values.shape:
        raise OptionError(f"score: answers {answers.shape} for values {values.shape}, both must be (image, column)")
    if len(values) == 0:
        raise DataError("score: no images to judge")
    if half_widths is not None and np.shape(half_widths) not in (values.shape, values.shape[1:]):
        raise OptionError(
            f"score: half widths {np.shape(half_widths)}, expected {values.shape[1:]} (column) or {values.shape} "
            "(image, column)"
        )
    for what, numbers in (("values", values), ("answers", answers)):
        if not np.isfinite(numbers).all():
            raise OptionError(f"score: {what} must be finite numbers")
