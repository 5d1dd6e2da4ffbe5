"""The truth that a program hands over, for its task: `truth_given`. One class an image is read by `given.py`.

| labels | read by itself ("auto") as |
|---|---|
| texts, booleans, whole numbers | classes |
| lists or sets of names, of which one has not exactly one | tags |
| numbers or a frame (image, label) of 0 and 1, nan or -1 for unknown | tags; classes where each row has exactly one 1 |
| fractions; 10 or more different numbers for fewer than twice as many images; several columns of numbers | values |

None, NaN and pandas.NA are no label; an empty list is an image that was looked at and has none of the labels. Names of
frame columns are the labels' names, or those of the values.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.given import MEASURED, NO_LABEL, Labels, is_frame, is_missing, labels_of
from headstart.data.given_masks import masks_given
from headstart.data.truth import BETWEEN, Asked, check_tag, number_in, number_text, tag_text, value_text
from headstart.errors import DataError

FLAGS = (0.0, 1.0, -1.0)


def truth_given(given: object, task: str = "auto") -> Labels:
    """The truth as it was given, for a task. Raises DataError, OptionError."""
    Asked(task)
    if task in ("classify", "recognise", "anomaly"):
        return replace(labels_of(given), task=task)
    if task == "segment":
        return masks_given(given)
    matrix = _matrix(given)
    if matrix is not None:
        return _of_matrix(*matrix, task)
    entries = _entries(given)
    if entries is not None and (task == "tag" or any(_is_listed(one) and len(one) != 1 for one in entries)):
        return _of_names(entries, task)
    if task == "tag":
        raise DataError(
            "labels for tags are one list of names an image, or a matrix (image, label) of 0 and 1: give those, for "
            "instance [text.split('|') for text in labels]"
        )
    if task == "regress" or _are_measured(given):
        return _of_values(given)
    return labels_of(given)


def _is_listed(one: object) -> bool:
    return isinstance(one, (list, tuple, AbstractSet)) or (isinstance(one, np.ndarray) and one.ndim == 1)


def _entries(given: Any) -> list[Any] | None:
    """The entries where any of them is a list or set; None for labels that stand alone."""
    if isinstance(given, (str, bytes, dict)) or is_frame(given) or getattr(given, "ndim", 1) != 1:
        return None
    if not hasattr(given, "__iter__"):
        return None
    entries = given.to_pylist() if hasattr(given, "to_pylist") else list(given) if hasattr(given, "__len__") else None
    return entries if entries is not None and any(map(_is_listed, entries)) else None


def _matrix(given: Any) -> tuple[NDArray[np.object_], tuple[str, ...] | None] | None:
    """(cells (image, column), names of the columns) of several columns; None where there is one, or lists of names."""
    if is_frame(given):
        names = list(getattr(given, "column_names", given.columns))
        if len(names) == 1 and len(given) and any(map(_is_listed, list(given[names[0]]))):
            return None
        cells = np.empty((len(given), len(names)), dtype=object)
        for place, name in enumerate(names):
            column = given[name]
            cells[:, place] = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        return (cells, tuple(map(str, names))) if len(names) > 1 else None
    if hasattr(given, "toarray"):
        given = given.toarray()
    if getattr(given, "ndim", 1) == 2 and hasattr(given, "__array__"):
        cells = np.asarray(given).astype(object)
        return (cells, None) if cells.shape[1] > 1 else None
    entries = _entries(given)
    if not entries or not all(isinstance(one, (list, tuple, np.ndarray)) for one in entries):
        return None
    sizes = {len(one) for one in entries}
    if len(sizes) > 1 or sizes == {1} or not all(_is_number(cell) for one in entries for cell in one):
        return None
    return np.array([list(one) for one in entries], dtype=object).reshape(len(entries), sizes.pop()), None


def _is_number(cell: object) -> bool:
    return is_missing(cell) or isinstance(cell, bool | int | float | np.bool_ | np.integer | np.floating)


def _of_matrix(cells: NDArray[np.object_], names: tuple[str, ...] | None, task: str) -> Labels:
    numbers = _numbers(cells)
    known = ~np.isnan(numbers)
    flags = bool(np.isin(numbers[known], FLAGS).all())
    if task == "tag" and not flags:
        row, column = np.argwhere(known & ~np.isin(numbers, FLAGS))[0]
        raise DataError(
            f"label {row} holds {numbers[row, column]:g} in column {column}: a matrix of tags is of 0 and 1, with nan "
            "or -1 for unknown; for measured values say task='regress'"
        )
    if task == "regress" or not flags:
        columns = names or tuple(f"value {k}" for k in range(cells.shape[1]))
        texts = tuple(value_text(row) if not np.isnan(row).any() else "" for row in numbers)
        return Labels(texts, "str", np.array([]), task="regress", columns=columns)
    kind = "int" if names is None else "str"
    columns = names or tuple(map(str, range(cells.shape[1])))
    for name in columns:
        check_tag(name, "labels")
    here, unknown = numbers == 1, ~known | (numbers == -1)
    if task == "auto" and len(here) and (here.sum(axis=1) == 1).all() and not unknown.any():
        read = labels_of([columns[k] for k in here.argmax(axis=1)])
        return read if names is not None else labels_of(here.argmax(axis=1))
    texts = tuple(
        "" if gone.all() else tag_text(np.array(columns)[there], np.array(columns)[gone])
        for there, gone in zip(here, unknown, strict=True)
    )
    return Labels(texts, kind, np.array(columns if names else range(len(columns))), task="tag", columns=columns)


def _numbers(cells: NDArray[np.object_]) -> NDArray[np.float64]:
    """(image, column) with nan for none. Raises DataError for what is no number, or not finite."""
    found = np.full(cells.shape, np.nan)
    for (row, column), cell in np.ndenumerate(cells):
        if is_missing(cell):
            continue
        try:
            found[row, column] = float(cell)
        except (TypeError, ValueError):
            found[row, column] = np.inf
        if not np.isfinite(found[row, column]):
            raise DataError(f"label {row} is {cell!r} in column {column}, which is no finite number: correct it")
    return found


def _of_names(entries: Sequence[Any], task: str) -> Labels:
    """Lists or sets of names. Raises DataError."""
    if task == "regress":
        raise DataError("labels are lists of names or of different lengths: give one number an image, or one a column")
    texts, seen = [], set()
    for row, one in enumerate(entries):
        if is_missing(one):
            texts.append("")
            continue
        names = list(one) if _is_listed(one) else [one]
        wrong = next((name for name in names if not isinstance(name, str | int | np.integer)), None)
        if wrong is not None:
            raise DataError(f"label {row} holds {wrong!r}: the labels of an image are texts or whole numbers")
        for name in names:
            check_tag(str(name), f"label {row}")
        seen |= {name for name in names if not isinstance(name, str)}
        if any(not str(name).strip() for name in names):
            raise DataError(f"label {row} holds an empty name: leave it out; [] stands for an image that has none")
        texts.append(tag_text(str(name) for name in names))
    names_seen = sorted({part for text in texts for part in text.split(BETWEEN) if part})
    numbers = len({str(name) for name in seen}) == len(names_seen)
    kind = "int" if numbers and names_seen else "str"
    values = sorted(map(int, names_seen)) if kind == "int" else names_seen
    return Labels(tuple(texts), kind, np.array(values, dtype=int if kind == "int" else object), task="tag")


def _are_measured(given: Any) -> bool:
    """Whether labels are numbers with fractions, or so many different ones that they are no classes."""
    try:
        cells = _one_column(given)
    except DataError:
        return False
    numbers = [float(c) for c in cells if not is_missing(c) and _is_number(c) and not isinstance(c, bool | np.bool_)]
    if not numbers or len(numbers) < sum(not is_missing(c) for c in cells) or not np.isfinite(numbers).all():
        return False
    different = len(set(numbers))
    return any(n != np.floor(n) for n in numbers) or (different >= MEASURED and 2 * different > len(numbers))


def _of_values(given: Any) -> Labels:
    """One number an image. Raises DataError."""
    cells = _one_column(given)
    texts = []
    for row, cell in enumerate(cells):
        if is_missing(cell) or (isinstance(cell, str) and cell.strip() in NO_LABEL):
            texts.append("")
            continue
        number = number_in(str(cell.item() if isinstance(cell, np.generic) else cell).strip())
        if number is None or isinstance(cell, bool | np.bool_):
            raise DataError(
                f"label {row} is {cell!r}, which is no finite number: give a number for each image, None where there "
                "is no value"
            )
        texts.append(number_text(number))
    name = getattr(given, "name", None)
    if is_frame(given):
        name = next(iter(getattr(given, "column_names", given.columns)))
    return Labels(
        tuple(texts), "str", np.array([]), task="regress", columns=(name if isinstance(name, str) else "value",)
    )


def _one_column(given: Any) -> list[Any]:
    """The entries of one column, each as it was given. Raises DataError."""
    if is_frame(given):
        names = list(getattr(given, "column_names", given.columns))
        given = given[names[0]]
    if getattr(given, "ndim", 1) == 2:
        given = given[:, 0]
    if isinstance(given, (str, bytes, dict)) or not hasattr(given, "__len__"):
        raise DataError(f"labels are of type {type(given).__name__}: give a list with one label an entry")
    for method in ("to_pylist", "tolist"):
        if hasattr(given, method):
            return list(getattr(given, method)())
    return [one[0] if isinstance(one, (list, tuple)) and len(one) == 1 else one for one in given]


def remarks(labels: Labels) -> list[str]:
    """What was read otherwise than it is written, and which classes are nearly the same."""
    found = []
    if labels.written:
        some = ", ".join(repr(text) for text in sorted(set(labels.written)))
        found.append(
            f"{len(labels.written)} labels are the text {some}, which data frames write for a missing one: their "
            "images are not learned from. A class needs another name"
        )
    alike = defaultdict(list)
    for name in dict.fromkeys(labels.texts):
        alike[" ".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            shown = " and ".join(ascii(name) for name in names)
            found.append(f"the classes {shown} look the same, but are learned as different ones")
    return found
