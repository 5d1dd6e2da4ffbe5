"""The truth of a picture as boxes: which things lie in it, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.box_text import boxes_in
from headstart.data.table import Table
from headstart.errors import DataError, nearest


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """Boxes of each image, in px of the upright picture, edges not centres.

    boxes: of each image float32 (box, 4), x1, y1, x2, y2. labels: int64 (box,), numbers of `names`. hard: bool (box,),
    True for a box that is not counted, neither found nor missed. known (image,): False where nothing is known of an
    image, whose arrays are empty as those of an image without boxes are.
    """

    boxes: tuple[NDArray[np.float32], ...]
    labels: tuple[NDArray[np.int64], ...]
    hard: tuple[NDArray[np.bool_], ...]
    known: NDArray[np.bool_]
    names: tuple[str, ...]

    @property
    def strata(self) -> NDArray[np.int64]:
        """(image, class): 1 where the class is present."""
        return np.asarray(self.matrix() > 0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, rows: NDArray[Any]) -> BoxTruth:
        """Of these row numbers, in this order; or of the rows where a boolean array (image,) is true."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return BoxTruth(
            tuple(self.boxes[i] for i in index),
            tuple(self.labels[i] for i in index),
            tuple(self.hard[i] for i in index),
            self.known[index],
            self.names,
        )

    def matrix(self) -> NDArray[np.float64]:
        """(image, class): the number of boxes that are counted."""
        found = np.zeros((len(self), len(self.names)))
        for row, (labels, hard) in enumerate(zip(self.labels, self.hard, strict=True)):
            found[row] = np.bincount(labels[~hard], minlength=len(self.names))
        return found


def box_targets(table: Table, names: Sequence[str] | None = None) -> BoxTruth:
    """The boxes of a table's images. names: of a saved model, into whose numbers classes are turned; None: the table's.

    Raises DataError for a class with boxes that is not among the names.
    """
    known = table.columns if names is None else tuple(names)
    number = {name: k for k, name in enumerate(known)}
    turned = np.array([number.get(name, -1) for name in table.columns], dtype=np.int64)
    boxes, labels, hard = [], [], []
    for row, text in enumerate(table.labels):
        found = boxes_in(text) if text else []
        own = np.array([box.number for box in found], dtype=np.int64)
        _check(table, row, own, turned, known)
        boxes.append(np.array([box[1:5] for box in found], dtype=np.float32).reshape(-1, 4))
        labels.append(turned[own])
        hard.append(np.array([box.hard for box in found], dtype=bool))
    return BoxTruth(tuple(boxes), tuple(labels), tuple(hard), np.asarray(table.labels != "", dtype=bool), known)


def _check(table: Table, row: int, own: NDArray[np.int64], turned: NDArray[np.int64], known: tuple[str, ...]) -> None:
    """Raises DataError for a class number that is not in the table, or a class that is not known."""
    if len(own) and not 0 <= own.min() <= own.max() < len(turned):
        raise DataError(f"{table.names[row]}: a box has a class number that none of the {len(turned)} classes has")
    strange = own[turned[own] < 0]
    if len(strange):
        name = table.columns[strange[0]]
        raise DataError(
            f"{table.names[row]} has a box of class {name!r}, which is not one of the known classes, "
            f"{', '.join(map(repr, known[:10]))}{nearest(name, known)}: take such boxes out or rename the class"
        )
