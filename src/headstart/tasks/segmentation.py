"""Which class each pixel is of: masks.

Answers are class numbers uint8 (height, width) of the upright picture. Heads read maps of several stages and say how
likely each class is at each cell of the finest; that is enlarged to the picture, and the likeliest class is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.mask_drawing import mask_png, paint, palette
from headstart.data.masks import mask_targets
from headstart.data.placing import VOID, frame_for, numbers_in, values_in
from headstart.data.targets import Targets
from headstart.data.tiles import stitched
from headstart.heads.material import Ints
from headstart.judge.marks import Marks, Score
from headstart.judge.segments import MIOU, ious, segment_marks, segment_score
from headstart.judge.summaries import measure_of
from headstart.tasks.placed import Answer, PlacedTask, Size, with_own_tables
from headstart.tasks.segmenting import KINDS, learn, masks_of, read
from headstart.tasks.task import Record, Rule

STRIDE = 32  # of the coarsest maps: sides of 32 k + 1 px give worse ones
PIXELS = 640 * 480  # of the frame: a pass of the default network takes six times that of a classifier
LARGER = 4 / 3  # than the pictures at most: thin things are then seen by more cells
FINEST = 4  # stride of the finest map that is read: that of stride 2 takes half of the store and adds little
SHOWN_SHARE = 0.005  # of a picture, from which a class is named in words


def frame(sizes: Ints, side: int | None, patch: int | None = None) -> Size:
    """The shape of the pictures that teach, of PIXELS at most; `side`: of its longer side instead. `patch`: what the
    sides are multiples of, in px, where that is not STRIDE."""
    if side is None:
        return frame_for(np.round(sizes * LARGER), patch or STRIDE, PIXELS)
    return frame_for(np.round(sizes * (side / sizes.max(axis=1, keepdims=True))), patch or STRIDE, side * side)


def stages(taps: Sequence[tuple[str, tuple[int, ...]]], size: Size) -> tuple[str, ...]:
    """Those of stride FINEST and coarser."""
    maps = [(name, shape) for name, shape in taps if len(shape) == 3]
    chosen = tuple(name for name, shape in maps if round(size[0] / shape[1]) >= FINEST)
    return chosen or tuple(name for name, _ in maps)


def answer(output: NDArray[np.float32], size: Size, frame: Size, rule: Rule) -> Answer:
    """Class numbers (height, width) from scores (class, height, width) at the cells of the frame."""
    return numbers_in(output, size)


def joined(outputs: Sequence[NDArray[np.float32]], boxes: Ints, size: Size, frame: Size, rule: Rule) -> Answer:
    """Scores of overlapping tiles are averaged, each by its distance from its tile's edge."""

    def values_of(tile: int) -> NDArray[np.float32]:
        left, top, right, bottom = boxes[tile].tolist()
        return values_in(outputs[tile], (bottom - top, right - left))

    return stitched(size, boxes, values_of)


def marks(targets: Targets, row: int, found: Answer, rule: Rule) -> Mapping[str, NDArray[Any]]:
    truth = masks_of(targets)
    size = (int(found.shape[0]), int(found.shape[1]))
    columns = segment_marks([(truth.mask(row, size), found)], len(truth.names)).columns
    return {name: values[0] for name, values in columns.items()}


def score(found: Marks, names: Sequence[str], groups: Ints, seed: int) -> Score:
    return with_own_tables(segment_score(found, names, groups, seed))


def constant(teach: Targets, targets: Targets, sizes: Ints) -> Iterator[Answer]:
    """The class of most pixels, everywhere."""
    most = int(np.argmax(masks_of(teach).pixels.sum(axis=0)))
    return (np.full((int(height), int(width)), most, np.uint8) for height, width in sizes)


def shares(names: Sequence[str], found: Answer) -> dict[str, float]:
    """Of the picture's pixels the share of each class."""
    counts = np.bincount(found[found != VOID].ravel(), minlength=len(names))
    return {name: float(n / max(1, found.size)) for name, n in zip(names, counts, strict=True)}


def record(names: Sequence[str], found: Answer, size: Size, rule: Rule) -> Record:
    """{"classes": {name: share of the pixels}}."""
    return {"classes": {name: round(share, 6) for name, share in shares(names, found).items()}}


def said(names: Sequence[str], found: Answer, rule: Rule) -> str:
    """The classes that the picture shows, the largest first."""
    return _listed(shares(names, found))


def told(one: Mapping[str, Any]) -> str:
    mask = f", mask: {one['mask']}" if one.get("mask") else ""
    return f"{_listed(one['classes'])}{mask}"


def _listed(found: Mapping[str, float]) -> str:
    order = sorted(((share, name) for name, share in found.items() if share >= SHOWN_SHARE), reverse=True)
    return ", ".join(f"{name} {share:.0%}" for share, name in order) or "nothing"


def rows(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """One row an image: its mask's file where there is one, the share of each class."""
    with_files = any("mask" in one for one in records)
    columns = ["path", *(["mask"] if with_files else []), *(f"share_{name}" for name in names), "error"]
    lines = []
    for one in records:
        found = one["classes"] or {}
        mask = [one.get("mask") or ""] if with_files else []
        lines.append((one["path"], *mask, *(found.get(name, "") for name in names), one["error"] or ""))
    return columns, lines


def coco(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    """Raises OptionError: COCO's results hold objects."""
    from headstart.errors import OptionError

    raise OptionError("a .coco.json file is of boxes, and this model segments: take --masks FOLDER for its masks")


def truth(targets: Targets, row: int, size: Size) -> Answer:
    return masks_of(targets).mask(row, size)


def worst(found: Marks) -> Ints:
    """Rows, those of the lowest mean intersection over union first."""
    each = np.array([_own(found.take(np.array([k]))) for k in range(len(found))])
    return np.argsort(np.where(np.isnan(each), 2.0, each), kind="stable")


def _own(one: Marks) -> float:
    found = ious(one, np.ones((1, 1)))[0]
    known = found[np.isfinite(found)]
    return float(known.mean()) if len(known) else float("nan")


def drawn(
    picture: NDArray[np.uint8], size: Size, names: Sequence[str], found: Answer, true: Answer | None, rule: Rule
) -> NDArray[np.uint8]:
    """The picture with the classes' colours on it; the true ones on its left where they are known."""
    parts = [paint(picture, mask) for mask in ([] if true is None else [true]) + [found]]
    return np.concatenate(parts, axis=1)


def none() -> Answer:
    return np.zeros((0, 0), np.uint8)


SEGMENTATION = PlacedTask(
    name="segment",
    kinds=KINDS,
    targets=mask_targets,
    frame=frame,
    stages=stages,
    learn=learn,
    answer=answer,
    joined=joined,
    marks=marks,
    score=score,
    headline=measure_of(MIOU),
    constant=constant,
    constant_name="most frequent class everywhere",
    record=record,
    said=said,
    told=told,
    rows=rows,
    coco=coco,
    drawn=drawn,
    colours=lambda n: palette()[:n],
    mask=lambda found: mask_png(found),
    truth=truth,
    worst=worst,
    none=none,
    read=read,
)
