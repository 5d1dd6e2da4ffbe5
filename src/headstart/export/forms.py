"""What a model of masks or of boxes gives as a file, how that becomes an answer, and how far two answers differ.

The program beside the file makes answers of what the graph gives by the same rules, written once more in NumPy
(`loaders/masks.py.txt`, `loaders/boxes.py.txt`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.export.loader import BOXES, MASKS
from headstart.finetune.box_head import BoxHead
from headstart.heads.box_answers import KIND, LOOKED_AT, LOWEST, MOST, SCORE, Floats, answered, overlaps
from headstart.ship.placed import Placed
from headstart.tasks.detection import shown
from headstart.tasks.placed import Answer, Size

Differs = Callable[[Answer, Answer], tuple[int, int]]
SAME_PLACE = 0.99  # overlap of two boxes that are the same one: a quarter of a px of a box of 100 x 100 px
SAME_SCORE = 1e-3
NEAR_PLACE, NEAR_SCORE = 0.9, 0.05  # of what bfloat16, whose numbers have 3 digits, says of the same picture


@dataclass(frozen=True)
class Form:
    """How the models of one task are exported.

    what: the answers, as text. loader: which text of `loaders/` makes answers of the output. output: its name, axes and
    what it holds, as the file says it; answering(model): numbers by which it becomes an answer, likewise.
    answer(model, output of one image, size of the upright picture): as `predict` says it.
    differs(ours, theirs): (what is different, of how many) of one picture's answers; `unit`: what is counted. roughly:
    likewise of those in another precision, of what `predict` shows by the model's rule; `rough`: what is counted there.
    most: the largest share that may be different, of all pictures; each: of any one of them.
    """

    what: str
    unit: str
    loader: str
    output: dict[str, Any]
    answering: Callable[[Placed], dict[str, Any]]
    answer: Callable[[Placed, Floats, Size], Answer]
    differs: Differs
    roughly: Callable[[Placed], Differs]
    rough: str
    most: float
    each: float


def pixels_that_differ(ours: Answer, theirs: Answer) -> tuple[int, int]:
    return int((ours != theirs).sum()), ours.size


def boxes_that_differ(ours: Answer, theirs: Answer) -> tuple[int, int]:
    """Boxes (n, 6) of either that have no counterpart in the other: one of the same class at SAME_PLACE or better, its
    score within SAME_SCORE; of both together."""
    lost = _without(ours, theirs, SAME_PLACE, SAME_SCORE) + _without(theirs, ours, SAME_PLACE, SAME_SCORE)
    return lost, len(ours) + len(theirs)


def _without(some: Answer, others: Answer, place: float, score: float) -> int:
    """How many boxes of some (n, 6) have no counterpart among others (m, 6)."""
    alike = overlaps(some, others) >= place
    alike &= some[:, None, KIND] == others[None, :, KIND]
    alike &= np.abs(some[:, None, SCORE] - others[None, :, SCORE]) <= score
    return int((~alike.any(axis=1)).sum())


def shown_boxes_that_differ(model: Placed) -> Differs:
    """The boxes that `predict` shows of either that are not near one of the other, shown or not."""

    def differs(ours: Answer, theirs: Answer) -> tuple[int, int]:
        mine, others = shown(ours, model.rule), shown(theirs, model.rule)
        lost = _without(mine, theirs, NEAR_PLACE, NEAR_SCORE) + _without(others, ours, NEAR_PLACE, NEAR_SCORE)
        return lost, len(mine) + len(others)

    return differs


def _mask(model: Placed, output: Floats, size: Size) -> Answer:
    return model.task.answer(output, size, model.frame, model.rule)


def _boxes(model: Placed, output: Floats, size: Size) -> Answer:
    found = answered(output[:, :4], output[:, 4:], model.frame, _box_head(model).overlap)
    return model.task.answer(found, size, model.frame, model.rule)


def _box_head(model: Placed) -> BoxHead:
    if not isinstance(model.head, BoxHead):
        raise TypeError(f"{type(model.head).__name__} finds no boxes")
    return model.head


def _answering_boxes(model: Placed) -> dict[str, Any]:
    how = {"lowest": LOWEST, "looked_at": LOOKED_AT, "overlap": _box_head(model).overlap, "most": MOST}
    return {"answering": how, "rule": {name: list(values) for name, values in model.rule.items()}}


def _scores(name: str, axes: list[str], what: str) -> dict[str, Any]:
    return {"name": name, "type": "float32", "axes": axes, "what": what}


FORMS = {
    "segment": Form(
        what="masks",
        unit="pixels",
        loader=MASKS,
        output=_scores("scores", ["image", "name", "row", "column"], "logits at the cells of a grid on the picture"),
        answering=lambda model: {},
        answer=_mask,
        differs=pixels_that_differ,
        roughly=lambda model: pixels_that_differ,
        rough="pixels",
        most=1e-3,  # where two classes are equally likely the last digit decides
        each=1e-3,
    ),
    "detect": Form(
        what="boxes",
        unit="boxes",
        loader=BOXES,
        output=_scores(
            "places",
            ["image", "place", "x1, y1, x2, y2, score of each name"],
            "edges in px of the input, scores in 0..1",
        ),
        answering=_answering_boxes,
        answer=_boxes,
        differs=boxes_that_differ,
        roughly=shown_boxes_that_differ,
        rough="boxes that are shown",
        most=5e-3,  # where two boxes overlap by just as much as is allowed the last digit decides, and moves others
        each=1.0,  # one box of few is a large share of its picture
    ),
}


def share_of(found: tuple[int, int]) -> float:
    """Of (what differs, of how many)."""
    return found[0] / max(1, found[1])


def shares(differs: Differs, ours: list[Answer], theirs: list[Answer]) -> tuple[NDArray[np.float64], float]:
    """((image,) the share of each picture that differs, that of all of them together)."""
    found = [differs(one, other) for one, other in zip(ours, theirs, strict=True)]
    whole = (sum(n for n, _ in found), sum(n for _, n in found))
    return np.array([share_of(one) for one in found]), share_of(whole)
