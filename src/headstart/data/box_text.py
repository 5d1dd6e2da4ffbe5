"""The boxes of one picture as one text, as a table holds them, and back.

JSON, a list of `[class number, x1, y1, x2, y2, hard]` in px of the upright picture. Places are edges, not centres: a
box of one pixel at the origin is 0, 0, 1, 1. `hard` is 1 for a box that is not counted, neither when it is found nor
when it is missed: VOC's difficult ones, COCO's crowds. "[]" is a picture known to be empty, "" one of which nothing is
known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import NamedTuple

from headstart.errors import DataError
from headstart.files.cells import quoted

DIGITS = 3  # of a px that are written: a thousandth is below what anybody can draw


class Box(NamedTuple):
    """A class number, edges in px of the upright picture, and whether it is not counted."""

    number: int
    x1: float
    y1: float
    x2: float
    y2: float
    hard: bool = False


def boxes_text(boxes: Iterable[Box]) -> str:
    """As a text; whole numbers are written without a point."""
    return json.dumps(
        [[box.number, *map(_plain, (box.x1, box.y1, box.x2, box.y2)), int(box.hard)] for box in boxes],
        separators=(",", ":"),
    )


def _plain(value: float) -> float:
    rounded = round(float(value), DIGITS)
    return int(rounded) if rounded.is_integer() else rounded


def boxes_in(text: str) -> list[Box]:
    """The boxes of a text that is not "". Raises DataError for a text that is none of these."""
    try:
        held = json.loads(text)
        found = [Box(int(n), float(a), float(b), float(c), float(d), bool(hard)) for n, a, b, c, d, hard in held]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"no list of boxes [class number, x1, y1, x2, y2, hard]: {quoted(text[:60])}") from error
    if not isinstance(held, list):
        raise DataError(f"no list of boxes: {quoted(text[:60])}")
    if not all(math.isfinite(value) for box in found for value in box):
        raise DataError(f"a box has an edge that is no finite number: {quoted(text[:60])}")
    return found
