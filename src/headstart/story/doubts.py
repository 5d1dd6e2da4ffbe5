"""Images to look at again: those that the lists of a saved model name, found again among the images themselves.

`fit` writes suspected_labels.csv, duplicates.csv and mistakes.csv. An image on several of them is one doubt with
several reasons. What was mended since the fit is no doubt any more: the image is gone, or has another label.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.counted import counted
from headstart.data.duplicates import DuplicateSet, find_conflicts, find_leaks
from headstart.data.table import Table
from headstart.errors import DataError
from headstart.files.cells import cell
from headstart.files.reading import read_regular, why

Kind = Literal["suspected", "conflict", "leak", "mistake"]  # in the order in which they are walked through
SUSPECTED, DUPLICATES, MISTAKES = "suspected_labels.csv", "duplicates.csv", "mistakes.csv"
COLUMNS = {
    SUSPECTED: ("path", "label", "given", "reason"),
    DUPLICATES: ("set", "kind", "path"),
    MISTAKES: ("path", "label", "given", "reason"),
}
MOST_BYTES = 2**30
Line = Mapping[str, str]
Told = Iterator[tuple[int, "Reason"]]  # a row, and why to look at it


@dataclass(frozen=True)
class Reason:
    """Why to look: `said` in words; `suggested`: the label that it speaks for, "" for none."""

    kind: Kind
    said: str
    suggested: str = ""


@dataclass(frozen=True)
class Doubt:
    """An image by its row in the table, its path as headstart's lists have it, its label now; `copies`: the rows of the
    same picture."""

    row: int
    path: str
    label: str
    reasons: tuple[Reason, ...]
    copies: tuple[int, ...] = ()

    @property
    def suggested(self) -> str:
        """The label of the first reason that has one; "" where none has."""
        return next((reason.suggested for reason in self.reasons if reason.suggested), "")


@dataclass(frozen=True)
class Doubts:
    """All of a model; `notes`: what was found otherwise than the lists say."""

    every: tuple[Doubt, ...]
    notes: tuple[str, ...]


def listed_as(table: Table, row: int) -> str:
    """The name of an image as headstart's lists have it."""
    return str(cell(str(table.names[row])))


def doubts_of(model: Path, table: Table) -> Doubts:
    """What the lists in a model's folder say of the images of a table, by kind, then as listed.

    Raises DataError where the lists are of other images, or cannot be read.
    """
    lines = {name: _lines(model / name, columns) for name, columns in COLUMNS.items()}
    notes = [f"{model / name} is missing: fit again for it" for name, found in lines.items() if found is None]
    row_of = {
        name: row for row in reversed(range(len(table))) for name in (str(table.names[row]), listed_as(table, row))
    }
    named = {line["path"] for found in lines.values() for line in found or ()}
    notes += _gone(model, named, sum(path not in row_of for path in named))
    sets = [s for s in _sets(lines[DUPLICATES] or (), row_of) if len(s.rows) > 1]
    told = {
        SUSPECTED: list(_by_label("suspected", lines[SUSPECTED] or (), row_of, table)),
        DUPLICATES: [*_conflicts(sets, table), *_leaks(sets, table)],
        MISTAKES: list(_by_label("mistake", lines[MISTAKES] or (), row_of, table)),
    }
    reasons: dict[int, list[Reason]] = {}
    for row, reason in (one for name in COLUMNS for one in told[name]):
        reasons.setdefault(row, []).append(reason)
    copies = {row: tuple(r for r in s.rows if r != row) for s in sets for row in s.rows}
    every = (
        Doubt(row, listed_as(table, row), str(table.labels[row]), tuple(why), copies.get(row, ()))
        for row, why in reasons.items()
    )
    return Doubts(tuple(every), tuple(notes))


def _rows(table: Table) -> dict[str, int]:
    """Name of an image, as it is and as it is listed -> its first row."""
    found: dict[str, int] = {}
    for row, name in enumerate(map(str, table.names)):
        found.setdefault(name, row)
        found.setdefault(str(cell(name)), row)
    return found


def _lines(path: Path, columns: Sequence[str]) -> list[dict[str, str]] | None:
    """The lines of a list that has these columns; None where there is no such file. Raises DataError."""
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""))
        missing = next((name for name in columns if name not in (rows.fieldnames or ())), None)
        if missing:
            raise DataError(f"{path} has no column {missing!r}: fit again for it")
        return [{name: row[name] or "" for name in columns} for row in rows]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError, csv.Error) as error:
        said = why(error) if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read ({said}): fit again for it") from error


def _gone(model: Path, named: set[str], n_gone: int) -> list[str]:
    """A note where some images of the lists are no more. Raises DataError where all are."""
    if n_gone and n_gone == len(named):
        raise DataError(
            f"the lists of {model} name {counted(n_gone, 'image')}, such as {min(named)}, and these data have none of "
            "them: --data names the images that it was fitted to"
        )
    return [f"{counted(n_gone, 'image')} of the lists {'is' if n_gone == 1 else 'are'} gone"] if n_gone else []


def _by_label(kind: Kind, lines: Sequence[Line], row_of: Mapping[str, int], table: Table) -> Told:
    """Of a list of labels that speak against the given ones."""
    spelt = {str(cell(str(label))): str(label) for label in np.unique(table.labels.astype(str))}
    for line in lines:
        row = row_of.get(line["path"])
        if row is not None and str(cell(str(table.labels[row]))) == line["given"]:
            yield row, Reason(kind, line["reason"], spelt.get(line["label"], ""))


def _sets(lines: Sequence[Line], row_of: Mapping[str, int]) -> Iterator[DuplicateSet]:
    """What is still there of each set of copies."""
    for _, members in groupby(lines, key=lambda line: line["set"]):
        held = list(members)
        rows = {row_of[line["path"]] for line in held if line["path"] in row_of}
        yield DuplicateSet("exact" if held[0]["kind"] == "exact" else "near", tuple(sorted(rows)))


def _conflicts(sets: Sequence[DuplicateSet], table: Table) -> Told:
    for found in find_conflicts(sets, table.labels):
        for row in found.rows:
            others = [r for r in found.rows if table.labels[r] not in ("", table.labels[row])]
            labels = {str(table.labels[r]) for r in others}
            said = f"{_same(found)} is labelled {table.labels[others[0]]} as {listed_as(table, others[0])}"
            yield row, Reason("conflict", said, labels.pop() if len(labels) == 1 else "")


def _leaks(sets: Sequence[DuplicateSet], table: Table) -> Told:
    for found in find_leaks(sets, table.splits):
        for row in found.rows:
            other = next((r for r in found.rows if table.splits[r] not in ("", "none", table.splits[row])), None)
            if other is not None:
                said = f"{_same(found)} also stands in {table.splits[other]} as {listed_as(table, other)}"
                yield row, Reason("leak", f"{said}, and this one in {table.splits[row]}")


def _same(found: DuplicateSet) -> str:
    return "the same picture" if found.kind == "exact" else "nearly the same picture"
