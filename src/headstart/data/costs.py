"""What each mistake costs: a CSV file -> (true class, answer).

Either a row a true class with a column for each answer (the first column names the true class), or a row a pair with
the columns true, answer and cost.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError, nearest
from headstart.files.cells import quoted
from headstart.files.reading import why

MOST_BYTES = 64 * 2**20  # 2,000 classes with 16 characters a cost
MOST_CLASSES = 1000  # the costs stand in headstart.json, as numbers
LONG = ("true", "answer", "cost")


def read_costs(path: str | Path, classes: Sequence[str]) -> NDArray[np.float64]:
    """(true class, answer) in the order of the classes, in any unit. Raises OptionError for what cannot be read,
    DataError for what is no cost of these classes."""
    head, body = _rows(Path(path))
    if len(classes) > MOST_CLASSES:
        raise DataError(f"--cost {path}: {len(classes):,} classes, allowed are at most {MOST_CLASSES:,}")
    long = tuple(cell.casefold() for cell in head) == LONG
    found = np.full((len(classes), len(classes)), np.nan)
    for number, row in body:
        if len(row) != len(head):
            raise DataError(f"{path}, line {number}: {len(row)} cells, its header has {len(head)}")
        pairs = [(row[1], row[2])] if long else list(zip(head[1:], row[1:], strict=True))
        true = _class(row[0], classes, path, number)
        for answer, text in pairs:
            place = true, _class(answer, classes, path, number)
            if not np.isnan(found[place]):
                raise DataError(f"{path}, line {number}: the cost of {answer!r} for {row[0]!r} stands there twice")
            found[place] = _number(text, path, number)
    _check(found, classes, path)
    return found


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(header, (line, cells) of each row that is not empty)."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise OptionError(f"--cost {path} has more than {MOST_BYTES // 2**20} MiB: name a CSV file of costs")
        text = path.read_text("utf-8-sig")
        lines = [(n, [cell.strip() for cell in row]) for n, row in enumerate(csv.reader(text.splitlines()), 1)]
    except OSError as error:
        raise OptionError(f"--cost {path} cannot be read ({why(error)}): name a CSV file of costs") from None
    except (UnicodeDecodeError, csv.Error):
        raise OptionError(f"--cost {path} is no CSV file in UTF-8: save it as one") from None
    rows = [(n, row) for n, row in lines if any(row)]
    if not rows:
        raise OptionError(f"--cost {path} is empty: a header, then a row for each true class, is needed")
    return rows[0][1], rows[1:]


def _class(name: str, classes: Sequence[str], path: str | Path, line: int) -> int:
    if name not in classes:
        known = ", ".join(classes[:20])
        raise DataError(f"{path}, line {line}: {quoted(name)} is no class{nearest(name, classes)}: they are {known}")
    return list(classes).index(name)


def _number(text: str, path: str | Path, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e30:
        raise DataError(f"{path}, line {line}: {quoted(text)} is no cost: a finite number is needed")
    return value


def _check(costs: NDArray[np.float64], classes: Sequence[str], path: str | Path) -> None:
    """Raises DataError where one is missing, or where a right answer costs more than a wrong one."""
    for true, answer in np.argwhere(np.isnan(costs)):
        what = f"the cost of the answer {classes[int(answer)]!r} for {classes[int(true)]!r}"
        raise DataError(f"{path}: {what} is missing: each class needs a row, and a column for each answer")
    right = np.diag(costs)
    for true in np.flatnonzero(right > costs.min(axis=1)):
        k, wrong = int(true), int(costs[true].argmin())
        raise DataError(
            f"{path}: the right answer for {classes[k]!r} costs {right[true]:g}, more than the wrong one "
            f"{classes[wrong]!r} ({costs[true, wrong]:g}): rows are true classes, columns are answers"
        )
