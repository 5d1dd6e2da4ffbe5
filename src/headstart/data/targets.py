"""The truth of each image, in the form that its task asks for: a class, a set of labels, measured values.

A task reads its targets from a table (`tasks/`); everything between the table and the judge handles them by what they
have in common (`Targets`), and only heads, objectives and marks of a task look inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.data.given import sorted_names
from headstart.data.good import GOOD
from headstart.data.table import Table
from headstart.data.truth import tags_in, values_in
from headstart.errors import DataError, nearest

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
        """(image, column x bin): 1 in the bin of each value; bins hold equal numbers of images.

        Equal values are in one bin, that of the middle of their ranks, whatever the order of the rows.
        """
        n, columns = self.values.shape
        held = []
        for c in range(columns):
            ordered = np.sort(self.values[:, c])
            below, up_to = (np.searchsorted(ordered, self.values[:, c], side) for side in ("left", "right"))
            held.append(np.eye(BINS, dtype=np.int64)[(below + up_to - 1) * BINS // (2 * n)])
        return np.concatenate(held, axis=1)

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


def class_targets(table: Table, names: Sequence[str] | None = None) -> ClassNumbers:
    """One class an image; -1 where it has no label. names: of a saved model; None: the classes of the training rows.

    Where identities are recognised, those of other rows are names too, after these. Raises DataError for a class that
    is not among the names.
    """
    known = tuple(names) if names is not None else table.classes
    new = set(table.labels) - {"", *known}
    if table.task == "recognise":
        known = (*known, *sorted_names(new, table.kind)) if new else known
    elif new:
        _refuse(table, "class", min(new), known)
    number = {name: k for k, name in enumerate(known)} | {"": -1}
    return ClassNumbers(np.array([number[label] for label in table.labels], dtype=np.int64), known)


def kind_targets(table: Table, names: Sequence[str] | None = None) -> ClassNumbers:
    """0 for a good picture, and a number for each kind of oddity; -1 where nothing is known. names: not heeded, since a
    saved model has no kinds."""
    kinds = sorted_names(set(table.labels) - {"", GOOD}, table.kind)
    number = {name: k for k, name in enumerate((GOOD, *kinds))} | {"": -1}
    return ClassNumbers(np.array([number[label] for label in table.labels], dtype=np.int64), (GOOD, *kinds))


def label_targets(table: Table, names: Sequence[str] | None = None) -> LabelSets:
    """Several labels an image; an image without label is UNKNOWN in all of them, as is a label that has no column.

    names: of a saved model; None: the labels of the training rows, sorted. Raises DataError for an image with a label
    that is not among them.
    """
    known = tuple(names) if names is not None else table.classes
    place = {name: k for k, name in enumerate(known)}
    absent = [name in table.columns or not table.columns for name in known]
    start = np.where(absent, 0, UNKNOWN).astype(np.int8)
    found = np.full((len(table), len(known)), UNKNOWN, dtype=np.int8)
    for row, text in enumerate(table.labels):
        if not text:
            continue
        found[row] = start
        present, unknown = tags_in(text)
        for name in unknown & place.keys():
            found[row, place[name]] = UNKNOWN
        for name in present:
            if name not in place:
                _refuse(table, "label", name, known)
            found[row, place[name]] = 1
    return LabelSets(found, known)


def value_targets(table: Table, names: Sequence[str] | None = None) -> Values:
    """Measured values; names: the columns of a saved model, None: the table's own.

    Several columns are put into the order of `names`; a single one may be called otherwise. Raises DataError for other
    columns, and for an image without value: take the rows with one.
    """
    known = tuple(names) if names is not None else table.columns
    bare = np.flatnonzero(table.labels == "")
    if len(bare):
        raise DataError(f"{counted(len(bare), 'image')} without a value, such as {table.names[bare[0]]}: give each one")
    if len(known) != len(table.columns) or (len(known) > 1 and set(known) != set(table.columns)):
        raise DataError(
            f"the values are those of columns {', '.join(table.columns)}, and {', '.join(known)} are needed: name them "
            f"with --label {','.join(known)}"
        )
    order = [table.columns.index(name) for name in known] if len(known) > 1 else [0]
    rows = [values_in(text) for text in table.labels]
    return Values(np.array(rows, dtype=np.float64).reshape(len(rows), len(known))[:, order], known)


def _refuse(table: Table, what: str, name: str, known: Sequence[str]) -> None:
    row = next(row for row, text in enumerate(table.labels) if name in (text, *text.split("|")))
    raise DataError(
        f"{table.names[row]} has the {what} {name!r}, which is not among the {len(known)} that are known"
        f"{nearest(name, known)}: correct it, or add training images of it"
    )
