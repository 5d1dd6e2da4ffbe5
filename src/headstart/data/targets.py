"""The truth of each image, in the form that its task asks for: a class, a set of labels, measured values.

A task reads its targets from a table (`tasks/`); everything between the table and the judge handles them by what they
have in common (`Targets`), and only heads, objectives and marks of a task look inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
BINS = 10  # of equal numbers of images, in which splits keep measured values in proportion
UNKNOWN = -1  # of a label that nobody has looked for in this image


class Targets(Protocol):
    """One truth an image.

    `names`: of the outputs, in the order of a head's columns. `strata`: what splits keep in proportion, as numbers
    (image,), or (image, stratum) of 0 and 1 where an image is in several.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def strata(self) -> Ints: ...

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[Any]) -> Self: ...

    def matrix(self) -> Doubles:
        """(image, output) for least squares."""
        ...


@dataclass(frozen=True, eq=False)
class ClassNumbers:
    """One class an image: numbers (image,) in 0 .. len(names) - 1; -1 for a class that has no name here."""

    numbers: Ints
    names: tuple[str, ...]

    @property
    def strata(self) -> Ints:
        return self.numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: NDArray[Any]) -> ClassNumbers:
        return ClassNumbers(self.numbers[rows], self.names)

    def matrix(self) -> Doubles:
        return np.eye(len(self.names))[self.numbers]


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Several labels an image: present (image, label) is 1, 0, or UNKNOWN."""

    present: NDArray[np.int8]
    names: tuple[str, ...]

    @property
    def strata(self) -> Ints:
        """(image, label): 1 where the label is known to be there."""
        return np.asarray(self.present == 1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.present)

    def take(self, rows: NDArray[Any]) -> LabelSets:
        return LabelSets(self.present[rows], self.names)

    def matrix(self) -> Doubles:
        """1 and 0; nan where the label is unknown."""
        return np.where(self.present == UNKNOWN, np.nan, self.present.astype(np.float64))


@dataclass(frozen=True, eq=False)
class Values:
    """Measured numbers: values (image, column), finite."""

    values: Doubles
    names: tuple[str, ...]

    @property
    def strata(self) -> Ints:
        """(image, column x bin): 1 in the bin of each value; bins hold equal numbers of images."""
        n, columns = self.values.shape
        rank = self.values.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
        bins = np.minimum(rank * BINS // max(n, 1), BINS - 1)
        return np.concatenate([np.eye(BINS, dtype=np.int64)[bins[:, c]] for c in range(columns)], axis=1)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[Any]) -> Values:
        return Values(self.values[rows], self.names)

    def matrix(self) -> Doubles:
        return self.values


def class_numbers(targets: Targets) -> Ints:
    """Class numbers (image,). Raises TypeError for the targets of another task."""
    if not isinstance(targets, ClassNumbers):
        raise TypeError(f"{type(targets).__name__} are not one class an image")
    return targets.numbers


def counts(targets: Targets) -> dict[str, int]:
    """Images of each class, or with each label; nothing where truth is a number."""
    strata = targets.strata
    found = np.bincount(strata, minlength=len(targets.names)) if strata.ndim == 1 else strata.sum(axis=0)
    if len(found) != len(targets.names):
        return {}
    return dict(zip(targets.names, found.tolist(), strict=True))
