"""Boxes that a program hands over, one entry a picture, in the forms in which Python's libraries have them.

| the entry of a picture | what it is |
|---|---|
| a list of (label, x1, y1, x2, y2), or numbers (box, 5) in that order | a line a box |
| {"boxes": (box, 4), "labels": (box,)}, as torchvision has it and `TransferDetector.predict` answers | boxes in columns; with "iscrowd" (box,), 1 of a box that is not counted; other keys are not read |
| a list of {"label": ..., "box": [x1, y1, x2, y2]} | a record a box, as `headstart predict --json` writes them |
| an empty list | a picture known to be empty |
| None | nothing is known of the picture: it neither teaches nor judges |

Places are edges in px of the upright picture: a box of one pixel at the origin is 0, 0, 1, 1. Labels are those of
`given.py`. What is wrong with a box is made of it as `box_rows.py` says.
"""  # noqa: E501 (a table)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from headstart.data.annotated import Annotated, Marked, Read
from headstart.data.box_rows import check_shares, checked
from headstart.data.box_text import Box, boxes_text
from headstart.data.given import Labels, classes_of, is_missing, labels_of, sorted_names
from headstart.data.shapes import Shape
from headstart.errors import DataError
from headstart.files.cells import quoted

WANTED = "give a list of (label, x1, y1, x2, y2), or {'boxes': (box, 4), 'labels': (box,)}, and [] for an empty picture"
WHERE = "the program"


class Line(NamedTuple):
    """One box as it was given, its edges as numbers."""

    label: Any
    edges: tuple[float, float, float, float]
    hard: bool = False


def boxes_given(
    given: object, names: Sequence[str], sizes: Sequence[tuple[int, int] | None]
) -> tuple[Labels, list[str]]:
    """(the boxes of a program, one text a picture; what is wrong with some of them). names: of the pictures. sizes:
    their (height, width) in px, upright; None of one that cannot be read, whose boxes are not looked at. Raises
    DataError."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise DataError(f"boxes are a {type(given).__name__}: {WANTED}, one an image")
    entries = [_lines(one, position) for position, one in enumerate(given)]
    if len(entries) != len(names):
        raise DataError(f"{len(names)} images but the boxes of {len(entries)}: give one entry for each image")
    labels = labels_of([line.label for lines in entries for line in lines or ()])
    texts = iter(labels.texts)
    pictures = [
        Annotated(name, "", boxes=None if lines is None else [_marked(next(texts), line) for line in lines])
        for name, lines in zip(names, entries, strict=True)
    ]
    read = Read(pictures, "boxes of a program")
    check_shares(WHERE, pictures, read)
    kept = [_kept(one, size, read) for one, size in zip(pictures, sizes, strict=True)]
    classes = sorted_names({box.label for boxes in kept for box in boxes or ()}, labels.kind)
    each = tuple(_text(boxes, classes) for boxes in kept)
    found = Labels(each, labels.kind, classes_of(classes, labels.kind), labels.written, "detect", classes)
    return found, [*read.notes, *read.remarks.notes()]


def _kept(one: Annotated, size: tuple[int, int] | None, read: Read) -> list[Marked] | None:
    """The boxes that are left, within the picture; None where nothing is known."""
    if one.boxes is None:
        return None
    return [] if size is None else list(checked(one, Shape((size[1], size[0])), set(), read.remarks))


def _text(boxes: list[Marked] | None, classes: Sequence[str]) -> str:
    if boxes is None:
        return ""
    return boxes_text(Box(classes.index(b.label), b.x1, b.y1, b.x2, b.y2, b.hard) for b in boxes)


def _lines(one: Any, position: int) -> list[Line] | None:
    """The boxes of one picture; None where nothing is known. Raises DataError."""
    if isinstance(one, Mapping):
        return _columns(one, position)
    if is_missing(one):
        return None
    if isinstance(one, (str, bytes)) or not isinstance(one, Iterable):
        raise DataError(f"the boxes of image {position} are a {type(one).__name__}: {WANTED}")
    return [_line(row, position) for row in one]


def _columns(one: Mapping[Any, Any], position: int) -> list[Line]:
    missing = [key for key in ("boxes", "labels") if key not in one]
    if missing:
        raise DataError(f"the boxes of image {position} have the keys {_keys(one)} and no {missing[0]!r}: {WANTED}")
    boxes, labels = _listed(one["boxes"]), _listed(one["labels"])
    hard = _listed(one["iscrowd"]) if "iscrowd" in one else [0] * len(boxes)
    if not len(boxes) == len(labels) == len(hard):
        raise DataError(f"image {position} has {len(boxes)} boxes and {len(labels)} labels: give one label a box")
    rows = zip(labels, boxes, hard, strict=True)
    return [Line(label, _edges(box, position), bool(crowd)) for label, box, crowd in rows]


def _line(row: Any, position: int) -> Line:
    if isinstance(row, Mapping):
        if "label" not in row or "box" not in row:
            raise DataError(f"a box of image {position} has the keys {_keys(row)}: it needs 'label' and 'box'")
        return Line(row["label"], _edges(row["box"], position))
    found = None if isinstance(row, (str, bytes)) or not isinstance(row, Iterable) else _listed(row)
    if found is None or len(found) != 5:
        raise DataError(f"a box of image {position} is {quoted(repr(row)[:60])}: {WANTED}")
    return Line(found[0], _edges(found[1:], position))


def _edges(box: Any, position: int) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(edge) for edge in _listed(box))
    except (TypeError, ValueError):
        raise DataError(
            f"a box of image {position} has the edges {quoted(repr(box)[:60])}: x1, y1, x2, y2 in px are four numbers, "
            "after the label"
        ) from None
    return x1, y1, x2, y2


def _marked(label: str, line: Line) -> Marked:
    return Marked(label, *line.edges, line.hard)


def _listed(values: Any) -> list[Any]:
    """The entries of a list, an array or a tensor, as Python's own."""
    return list(values.tolist()) if hasattr(values, "tolist") else list(values)


def _keys(one: Mapping[Any, Any]) -> str:
    return quoted(", ".join(map(str, one))[:60])
