"""Measured values: marks of answers, and the scores that they give, in the user's units.

R2 is 1 - squared error / squared error of the mean of the judged images. Of several columns the headline is the mean of
their R2; errors are told of each column, since units do not mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.judge.marks import Array, Interval, Marks, Score, Summary
from headstart.judge.summaries import crossed, summarise


class ValueRow(TypedDict):
    """What is said of one column."""

    column: str
    n: int
    r2: Interval
    mae: Interval
    rmse: Interval
    coverage: Interval


def value_marks(values: NDArray[Any], answers: NDArray[Any], half_widths: NDArray[Any]) -> Marks:
    """Of truth, answers and half widths of the 90 % prediction intervals, all (image, column).

    Columns: truth, answer, half_width, covered: whether the truth lies in the interval (image, column).
    """
    covered = np.abs(values - answers) <= half_widths
    columns = {"truth": values, "answer": answers, "half_width": half_widths, "covered": covered}
    return Marks({name: column.astype(np.float64) for name, column in columns.items()})


def _r2(marks: Marks, weights: Array) -> Array:
    """Mean over the columns (resample,); nan where a column has one value."""
    truth, total = marks["truth"], weights.sum(axis=1, keepdims=True)
    errors = weights @ (truth - marks["answer"]) ** 2
    centred = truth - truth.mean(axis=0)  # the same for every resample: only the digits are kept
    spread = weights @ centred**2 - (weights @ centred) ** 2 / total
    floor = 1e-12 * np.maximum(np.abs(truth).max(axis=0), 1e-300) ** 2 * total
    return np.asarray(np.where(spread > floor, 1 - errors / np.where(spread > floor, spread, 1), np.nan).mean(axis=1))


def _mae(marks: Marks, weights: Array) -> Array:
    return np.asarray((weights @ np.abs(marks["truth"] - marks["answer"])).mean(axis=1) / weights.sum(axis=1))


def _rmse(marks: Marks, weights: Array) -> Array:
    squares = weights @ (marks["truth"] - marks["answer"]) ** 2 / weights.sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(squares).mean(axis=1))


def _coverage(marks: Marks, weights: Array) -> Array:
    return np.asarray((weights @ marks["covered"]).mean(axis=1) / weights.sum(axis=1))


R2 = Summary("r2", _r2, lowest=-np.inf)
MAE = Summary("mae", _mae, highest=np.inf, higher_is_better=False)
RMSE = Summary("rmse", _rmse, highest=np.inf, higher_is_better=False)
COVERAGE = Summary("coverage", _coverage, share=True)


def _summaries(n_columns: int) -> tuple[Summary, ...]:
    """Errors of several columns are not added up: they have units of their own."""
    return (R2, MAE, RMSE, COVERAGE) if n_columns == 1 else (R2, COVERAGE)


def value_score(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> Score:
    """All scores, each with its 95 % interval; `tables` has `per_column` where there are several."""
    return Score(
        len(marks), summarise(marks, _summaries(len(names)), groups, seed), _tables(marks, names, groups, seed)
    )


def crossed_value_score(
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    names: Sequence[str],
    groups: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Score:
    """All scores of repeated cross-validation; the table is of the first repeat."""
    found = crossed(repeats, folds, _summaries(len(names)), groups, seed)
    tables = _tables(repeats[0], names, groups, seed)
    return Score(len(repeats[0]), found, tables, len(np.unique(folds[0])), len(repeats))


def _tables(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None, seed: int
) -> dict[str, list[ValueRow]]:
    rows: list[ValueRow] = []
    for k, name in enumerate(names if len(names) > 1 else ()):
        one = Marks({what: column[:, k : k + 1] for what, column in marks.columns.items()})
        found = summarise(one, (R2, MAE, RMSE, COVERAGE), groups, seed)
        rows.append(
            {
                "column": str(name),
                "n": len(marks),
                "r2": found["r2"],
                "mae": found["mae"],
                "rmse": found["rmse"],
                "coverage": found["coverage"],
            }
        )
    return {"per_column": rows} if rows else {}
