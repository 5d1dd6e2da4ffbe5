"""Which things lie in a picture, and where: boxes around them.

Answers are boxes (n, 6): x1, y1, x2, y2 in px of the upright picture, score, class; all that the head gives. From which
score on one is shown, and from which it is counted, are the model's rule, one number a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.box_drawing import COLOURS, Drawn, with_boxes
from headstart.data.boxes import box_targets
from headstart.data.placing import frame_for
from headstart.data.targets import Targets
from headstart.heads.box_answers import once
from headstart.heads.material import Ints
from headstart.judge.box_score import MAP50, box_score
from headstart.judge.boxes import MISSED, NONE, box_marks
from headstart.judge.marks import Marks, Score
from headstart.judge.matching import LEFT_OUT
from headstart.judge.summaries import measure_of
from headstart.tasks.box_files import HEADER, coco_document, csv_rows, found_boxes
from headstart.tasks.detecting import COUNTED, FACTOR, KINDS, MEAN, SHOWN, boxes_in, boxes_of, counts_of, learn, read
from headstart.tasks.placed import Answer, PlacedTask, Size, with_own_tables
from headstart.tasks.task import Record, Rule

STRIDE = 32  # of the coarsest map that is read
PIXELS = 960 * 736  # of the frame at most: small things need px, and time grows with them
MOST_NAMED = 40  # boxes of a picture up to which each has its name
EDGE = 0.01  # of a tile's side: a box that ends so near to where its tile does may go on beyond
STRIDES = (8, 16, 32)  # of the maps that are read: the last of each


def frame(sizes: Ints, side: int | None, patch: int | None = None) -> Size:
    """The shape and size of the pictures that teach, of PIXELS at most; `side`: of its longer side instead. `patch`:
    what the sides are multiples of, in px, where that is not STRIDE."""
    if side is not None:
        longer = sizes.max(axis=1, keepdims=True)
        return frame_for(np.round(sizes * (side / longer)), patch or STRIDE, side * side)
    return frame_for(sizes, patch or STRIDE, PIXELS)


def stages(taps: Sequence[tuple[str, tuple[int, ...]]], size: Size) -> tuple[str, ...]:
    """The last map of each of STRIDES, where the network has one."""
    found: dict[int, str] = {}
    for name, shape in taps:
        if len(shape) == 3:
            found[round(size[0] / shape[1])] = name
    chosen = [found[stride] for stride in STRIDES if stride in found]
    return tuple(chosen or list(found.values())[-3:])


def answer(output: NDArray[np.float32], size: Size, frame: Size, rule: Rule) -> Answer:
    """Boxes (n, 6) in px of the picture, from those in px of the frame; a score of 0 is none."""
    return boxes_in(output, size, frame)


def joined(outputs: Sequence[NDArray[np.float32]], boxes: Ints, size: Size, frame: Size, rule: Rule) -> Answer:
    """The boxes of all tiles that are sure enough to be shown or counted, each thing once."""
    found, partly = [none()], [np.zeros(0, bool)]
    for output, (left, top, right, bottom) in zip(outputs, boxes.tolist(), strict=True):
        own = boxes_in(output, (bottom - top, right - left), frame)
        own[:, :4] += [left, top, left, top]
        near = EDGE * np.array([right - left, bottom - top] * 2)
        ends, whole = np.array([left, top, right, bottom]), np.array([0, 0, size[1], size[0]])
        found.append(own)
        partly.append(((np.abs(own[:, :4] - ends) < near) & (ends != whole)).any(axis=1))
    every, cut = np.concatenate(found), np.concatenate(partly)
    kinds = every[:, 5].astype(int)
    sure = every[:, 4] >= np.minimum(rule[SHOWN], rule[COUNTED])[kinds]
    kept: Answer = every[sure]
    return kept[once(kept, cut[sure])]


def _numbers(rule: Rule, name: str, n: int) -> NDArray[np.float64]:
    """(class,); 0 for each where the rule does not say it."""
    return np.asarray(rule.get(name, (0.0,) * n), dtype=np.float64)


def marks(targets: Targets, row: int, found: Answer, rule: Rule) -> Mapping[str, NDArray[Any]]:
    truth = boxes_of(targets).take(np.array([row]))
    shown, mean = (_numbers(rule, name, len(truth.names)) for name in (SHOWN, MEAN))
    columns = {name: values[0] for name, values in box_marks(truth, [found], shown, mean).columns.items()}
    return columns | {"answered": counts_of(found, rule, len(truth.names))}


def score(found: Marks, names: Sequence[str], groups: Ints, seed: int) -> Score:
    return with_own_tables(box_score(found, names, groups, seed))


def constant(teach: Targets, targets: Targets, sizes: Ints) -> Iterator[Answer]:
    """As many boxes of each class as a picture has in the mean, of its mean place and size: nothing is looked at."""
    truth = boxes_of(teach)
    n = np.rint(truth.matrix().mean(axis=0)).astype(int) if len(truth) else np.zeros(len(truth.names), int)
    middle = np.array([0.25, 0.25, 0.75, 0.75])
    for height, width in sizes:
        rows = [
            [*(middle * [width, height, width, height]), 0.5, kind] for kind, k in enumerate(n) for _ in range(int(k))
        ]
        yield np.array(rows, dtype=np.float64).reshape(-1, 6)


def shown(found: Answer, rule: Rule) -> Answer:
    """The boxes that are sure enough, the surest first."""
    least = rule.get(SHOWN)
    kept = found if least is None else found[found[:, 4] >= np.asarray(least)[found[:, 5].astype(int)]]
    return kept[np.argsort(-kept[:, 4], kind="stable")]


def counts(names: Sequence[str], found: Answer, rule: Rule) -> dict[str, float]:
    """Name -> how many there are; where that is a sum of scores, a part of a thing too."""
    return {name: round(float(n), 2) for name, n in zip(names, counts_of(found, rule, len(names)), strict=True)}


def record(names: Sequence[str], found: Answer, size: Size, rule: Rule) -> Record:
    """{"boxes": [{"label", "score", "box": [x1, y1, x2, y2]}], "counts": {name: how many}, "width", "height"}; the
    surest first."""
    counted = counts(names, found, rule)
    return {"boxes": found_boxes(shown(found, rule), names), "counts": counted, "width": size[1], "height": size[0]}


def said(names: Sequence[str], found: Answer, rule: Rule) -> str:
    """How many of each."""
    kinds = shown(found, rule)[:, 5].astype(int)
    return _listed(dict(zip(names, np.bincount(kinds, minlength=len(names)).tolist(), strict=True)))


def told(one: Mapping[str, Any]) -> str:
    found: dict[str, int] = {}
    for box in one["boxes"]:
        found[box["label"]] = found.get(box["label"], 0) + 1
    return _listed(found)


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in found.items() if n) or "nothing"


def rows(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """One row a box; a picture without any has one row without a box."""
    lines = [(*row, one["error"] or "") for one in records for row in csv_rows(one["path"], _of(one, names), names)]
    return [*HEADER, "error"], lines


def coco(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    """COCO's layout of the pictures that could be read, with scores."""
    read = [one for one in records if not one["error"]]
    sizes = [(one["width"], one["height"]) for one in read]
    return coco_document([one["path"] for one in read], sizes, [_of(one, names) for one in read], names)


def _of(one: Mapping[str, Any], names: Sequence[str]) -> Answer:
    """The boxes (n, 6) of a record."""
    number = {name: k for k, name in enumerate(names)}
    found = [[*box["box"], box["score"], number[box["label"]]] for box in one["boxes"] or []]
    return np.array(found, dtype=np.float64).reshape(-1, 6)


def truth(targets: Targets, row: int, size: Size) -> Answer:
    """The true boxes that are counted, each with a score of 1."""
    own = boxes_of(targets)
    kept = ~own.hard[row]
    ones = np.ones(int(kept.sum()))
    return np.column_stack([own.boxes[row][kept], ones, own.labels[row][kept]]).astype(np.float64).reshape(-1, 6)


def worst(found: Marks) -> Ints:
    """Rows: those with the most boxes missed or shown falsely, in the share of all that are there or shown."""
    missed = found["n_true"].sum(axis=1) - found["found"].sum(axis=1)
    false = found["given"].sum(axis=1) - found["found"].sum(axis=1)
    both = found["n_true"].sum(axis=1) + false
    return np.argsort(-(missed + false) / np.maximum(both, 1), kind="stable")


def drawn(
    picture: NDArray[np.uint8], size: Size, names: Sequence[str], found: Answer, true: Answer | None, rule: Rule
) -> NDArray[np.uint8]:
    """The picture with the boxes that are shown; the true ones on its left where they are known."""
    boxes = [_to_draw(names, one) for one in ([] if true is None else [true]) + [shown(found, rule)]]
    return np.concatenate([with_boxes(picture, size, some) for some in boxes], axis=1)


def _to_draw(names: Sequence[str], boxes: Answer) -> list[Drawn]:
    """With names and scores, where they do not hide everything."""
    few = len(boxes) <= MOST_NAMED
    told = [names[int(kind)] if sure >= 1 else f"{names[int(kind)]} {sure:.2f}" for *_, sure, kind in boxes]
    edges = [(float(a), float(b), float(c), float(d)) for a, b, c, d, *_ in boxes]
    return [Drawn(e, int(one[5]), text if few else "") for e, one, text in zip(edges, boxes, told, strict=True)]


def none() -> Answer:
    return np.zeros((0, 6))


DETECTION = PlacedTask(
    name="detect",
    kinds=KINDS,
    targets=box_targets,
    frame=frame,
    stages=stages,
    learn=learn,
    answer=answer,
    joined=joined,
    marks=marks,
    score=score,
    headline=measure_of(MAP50),
    constant=constant,
    constant_name="mean boxes in the middle",
    record=record,
    said=said,
    told=told,
    rows=rows,
    coco=coco,
    drawn=drawn,
    colours=lambda n: np.array([COLOURS[k % len(COLOURS)] for k in range(n)], np.uint8),
    truth=truth,
    worst=worst,
    none=none,
    read=read,
    ruled=(SHOWN, COUNTED, FACTOR, MEAN),
    fill={"kind": NONE, "true_kind": NONE, "true_score": MISSED, "matched": LEFT_OUT},
)
