"""A list of boxes: a line each, with the columns path, x1, y1, x2, y2 and label (or xmin, ymin, xmax, ymax).

Edges are in px of the picture, or, all of them, shares of it. A line with the four cells empty is a picture known to be
empty. Columns split and group are as in other lists; width and height are the size that the boxes were drawn on;
difficult, iscrowd or hard says 1 of a box that is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from headstart.data import columns
from headstart.data.annotated import Annotated, Marked, Read
from headstart.data.lines import read_sheet
from headstart.data.places import Placed, lies, none_exists, place, say_missing, say_moved
from headstart.data.sheets import MISSING, Sheet
from headstart.data.tree import shown
from headstart.data.truth import Asked
from headstart.errors import DataError
from headstart.files.cells import quoted

EDGES = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))
HARD = ("hard", "difficult", "iscrowd")
WANTED = "needed are path, x1, y1, x2, y2 and label, a line a box"


def is_box_list(path: Path) -> bool:
    """Whether the first line of a list names the columns of boxes."""
    try:
        sheet = read_sheet(path, lambda name: lies(path.parent, name), None)
    except DataError:
        return False
    plain = [columns.squeezed(name) for name in sheet.names]
    return any(all(edge in plain for edge in edges) for edges in EDGES)


def read_box_list(path: Path, asked: Asked) -> Read:
    """The pictures of a list. Raises DataError."""
    sheet = read_sheet(path, lambda name: lies(path.parent, name), asked)
    if not len(sheet):
        raise DataError(f"{sheet.where} lists no images: {WANTED}")
    edges = _edges(sheet)
    label = _label(sheet, asked)
    told = columns.described(sheet, asked)
    names, placed = _paths(sheet, path.parent)
    read = Read([], sheet.kind, notes=[*say_moved(placed), *say_missing(placed)])
    stated, hard = _stated(sheet), _column(sheet, HARD)
    found: dict[str, Annotated] = {}
    for row, file in enumerate(placed.files):
        picture = found.get(file)
        if picture is None:
            group, time = told.groups[row], told.times[row]
            picture = Annotated(shown(names[row]), file, told.splits[row], [], stated[row], False, group, time)
            found[file] = picture
            read.pictures.append(picture)
        elif (picture.split, picture.group) != (told.splits[row], told.groups[row]):
            raise DataError(f"{sheet.row(row)}: {quoted(names[row])} is in another part or group than on a line before")
        cells = [sheet.values[column][row].strip() for column in edges]
        assert picture.boxes is not None
        if any(cell not in MISSING for cell in cells):
            left_out = hard is not None and sheet.values[hard][row].strip().lower() in columns.TRUE
            x1, y1, x2, y2 = map(_number, cells)
            picture.boxes.append(Marked(label[row], x1, y1, x2, y2, left_out))
    read.notes = [*sheet.notes, *read.notes]
    return read


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _column(sheet: Sheet, known: Sequence[str]) -> int | None:
    """The one column of these names whose values are at hand."""
    return next((p for word in known for p in sheet.values if columns.squeezed(sheet.names[p]) == word), None)


def _edges(sheet: Sheet) -> list[int]:
    for names in EDGES:
        found = [_column(sheet, (name,)) for name in names]
        if all(place is not None for place in found):
            return [place for place in found if place is not None]
    raise DataError(f"{sheet.where} has no columns of boxes: its columns are {sheet.seen()}; {WANTED}")


def _label(sheet: Sheet, asked: Asked) -> list[str]:
    column = columns.column_called(sheet.names, asked.label) if asked.label else columns.label_column(sheet)
    if column is None or column not in sheet.values:
        what = f"no column {quoted(asked.label)}, which --label names" if asked.label else "no column of classes"
        raise DataError(f"{sheet.where} has {what}: its columns are {sheet.seen()}; {WANTED}")
    return ["" if value.strip() in MISSING else value.strip() for value in sheet.values[column]]


def _paths(sheet: Sheet, folder: Path) -> tuple[list[str], Placed]:
    """The paths as they are written, and their files. Raises DataError where none exists."""
    column = next(iter([*columns.places(sheet, "path"), *columns.places(sheet, "path?")]))
    names = sheet.values[column]
    empty = next((row for row, name in enumerate(names) if not name.strip()), None)
    if empty is not None:
        raise DataError(f"{sheet.row(empty)} has no path")
    placed = place(folder, names)
    if not placed.n_found:
        raise DataError(none_exists(sheet.where, folder, placed))
    return names, placed


def _stated(sheet: Sheet) -> list[tuple[int, int] | None]:
    width, height = _column(sheet, ("width", "imagewidth")), _column(sheet, ("height", "imageheight"))
    if width is None or height is None:
        return [None] * len(sheet)
    sizes = [(_number(w), _number(h)) for w, h in zip(sheet.values[width], sheet.values[height], strict=True)]
    return [(round(w), round(h)) if w >= 1 and h >= 1 and math.isfinite(w * h) else None for w, h in sizes]
