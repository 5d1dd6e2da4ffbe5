"""What the judge knows of each image's answer: marks, and what any summary of them is worth.

Marks are sufficient statistics of each image (right, loss, squared error, hits ...), made by a task from the truth and
the answers. Every score, interval, paired difference, curve and gate is a function of them, so that it is written once
for all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Interval(TypedDict):
    """A value with the ends of its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


def ends(interval: Interval) -> tuple[float, float, float]:
    """(value, low, high) of an interval that is defined."""
    value, low, high = interval["value"], interval["low"], interval["high"]
    assert value is not None
    assert low is not None
    assert high is not None
    return value, low, high


@dataclass(frozen=True, eq=False)
class Marks:
    """columns: name -> numbers (image, ...); what each column means is said where a task makes them."""

    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column]

    def take(self, rows: NDArray[Any]) -> Marks:
        """The marks of these rows, or of those where a boolean array (image,) is true."""
        return Marks({name: values[rows] for name, values in self.columns.items()})


@dataclass(frozen=True)
class Summary:
    """One number that is said of many images.

    `of(marks, weights)`: weights (resample, image), how often each image counts -> (resample,), nan where it is not
    defined. `lowest`, `highest`: what it can be at most. `higher_is_better`: else lower is. `least(marks, group numbers
    (image,))`: the ends that an interval has at least, since resamples of faultless answers show no faults; None = as
    the resamples show. `optimism(marks, group numbers)`: by how much it is too high, in the mean, on so few images: the
    interval is moved by that; None = not at all.
    """

    name: str
    of: Callable[[Marks, Array], Array]
    lowest: float = 0.0
    highest: float = 1.0
    higher_is_better: bool = True
    least: Callable[[Marks, NDArray[np.int64]], tuple[float, float]] | None = None
    optimism: Callable[[Marks, NDArray[np.int64]], float] | None = None


@dataclass(frozen=True, eq=False)
class Score:
    """What was found of `n` images: estimates by name, the headline first; `tables`: what else a task says of them,
    JSON-ready (a row a class, a confusion). `folds`, `repeats`: of a cross-validation, else None."""

    n: int
    estimates: Mapping[str, Interval]
    tables: Mapping[str, Any]
    folds: int | None = None
    repeats: int | None = None

    def __getitem__(self, name: str) -> Interval:
        return self.estimates[name]

    def value(self, name: str) -> float:
        """The value of an estimate that is defined."""
        found = self.estimates[name]["value"]
        assert found is not None, name
        return found

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        crossed = {} if self.folds is None else {"folds": self.folds, "repeats": self.repeats}
        return {"n": self.n, **self.estimates, **self.tables, **crossed}


def together(parts: Sequence[Marks]) -> Marks:
    """Marks of several sets of images as those of one."""
    return Marks({name: np.concatenate([p[name] for p in parts]) for name in parts[0].columns})
