"""Boxes and scores of places -> the boxes that are answered: each thing once.

Boxes are edges in px, (x1, y1, x2, y2) with x2 > x1: one pixel at the origin is 0, 0, 1, 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Edges = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer]

MOST = 300  # boxes an image: the judge of COCO reads 100, the fullest pictures of cells hold 30
LOOKED_AT = 1000  # the best places of an image that are compared with each other, as in torchvision's detectors
LOWEST = 0.02  # of a score that is looked at: lower ones add less than .001 to the average precision
OVERLAP = 0.6  # of two boxes of a class from which on they are one thing (FCOS; Tian et al. 2019, section 4)
PART = 0.5  # of a box cut by a tile, that another one covers: then it is a part of that thing
SCORE, KIND, COLUMNS = 4, 5, 6  # of an answer: x1, y1, x2, y2, score, class


def areas(boxes: Edges) -> Edges:
    """(...,) px squared of boxes (..., 4 or more); 0 where one is turned inside out."""
    sides = np.maximum(boxes[..., 2:4] - boxes[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def overlaps(a: Edges, b: Edges) -> Floats:
    """(n, m): the intersection over the union of each of a (n, 4 or more) with each of b (m, 4 or more)."""
    (left, top, right, bottom), (x1, y1, x2, y2) = a[:, :4].T[..., None], b[:, :4].T[:, None]
    wide = np.maximum(np.minimum(right, x2) - np.maximum(left, x1), 0)
    both = wide * np.maximum(np.minimum(bottom, y2) - np.maximum(top, y1), 0)
    either = areas(a)[:, None] + areas(b)[None] - both
    return np.asarray(both / np.maximum(either, 1e-9), np.float32)


def answered(boxes: Floats, scores: Floats, frame: tuple[int, int], overlap: float = OVERLAP) -> Floats:
    """(MOST, 6): x1, y1, x2, y2, score, class of one image, best first; what is left is 0.

    boxes (place, 4) in px of the frame (height, width), to whose borders they are cut; scores (place, class) in 0..1.
    Of boxes of a class that overlap, the best stays.
    """
    place, kind = np.nonzero(scores > LOWEST)
    found = scores[place, kind]
    best = np.argsort(-found, kind="stable")[:LOOKED_AT]
    place, kind, found = place[best], kind[best], found[best]
    height, width = frame
    cut = np.clip(boxes[place], 0, np.array([width, height, width, height], np.float32))
    kept = apart(cut, kind, overlap)[:MOST]
    out = np.zeros((MOST, COLUMNS), np.float32)
    out[: len(kept)] = np.column_stack([cut[kept], found[kept], kind[kept]])
    return out


def apart(boxes: Floats, kinds: Ints, overlap: float) -> npt.NDArray[np.intp]:
    """Which of the boxes (n, 4), best first, stay: those that overlap no better one of their kind (n,), and have an
    area."""
    rivals = (overlaps(boxes, boxes) > overlap) & (kinds[:, None] == kinds[None])
    stays = areas(boxes) > 0
    for k in range(len(boxes)):
        if stays[k]:
            stays[k + 1 :] &= ~rivals[k, k + 1 :]
    return np.flatnonzero(stays)


def once(boxes: Edges, partly: npt.NDArray[np.bool_], overlap: float = OVERLAP) -> npt.NDArray[np.intp]:
    """Which of the boxes (n, 6) of overlapping tiles stay, each thing once, the best first.

    partly (n,): those that end where their tile does and may go on beyond; they stay only where no box of their class
    covers more than PART of them. The others come first, so that a part never stands in for the whole.
    """
    order = np.lexsort((-boxes[:, SCORE], partly))
    kept = np.empty((len(boxes), COLUMNS))
    stays: list[int] = []
    for k in order:
        others = kept[: len(stays)]
        others = others[others[:, KIND] == boxes[k, KIND]]
        if partly[k]:
            sides = np.minimum(others[:, 2:4], boxes[k, 2:4]) - np.maximum(others[:, :2], boxes[k, :2])
            known = np.maximum(sides, 0).prod(axis=1) > PART * areas(boxes[k])
        else:
            known = overlaps(others, boxes[k : k + 1])[:, 0] > overlap
        if areas(boxes[k]) > 0 and not known.any():
            kept[len(stays)] = boxes[k]
            stays.append(int(k))
    found = np.array(stays, np.intp)
    return found[np.argsort(-boxes[found, SCORE], kind="stable")]
