"""Answered boxes as rows of CSV and as a COCO document.

Both can be read again as a set of pictures with boxes (`data/box_sets.py`): so answers, once looked through, can teach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from numpy.typing import NDArray

HEADER = ("path", "x1", "y1", "x2", "y2", "label", "score")
EDGE_DIGITS = 2  # of a px
SCORE_DIGITS = 4


class Found(TypedDict):
    """One box of a record: edges x1, y1, x2, y2 in px of the upright picture."""

    label: str
    score: float
    box: list[float]


class CocoImage(TypedDict):
    id: int
    file_name: str
    width: int
    height: int


class CocoBox(TypedDict):
    """bbox: x, y, width, height in px."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int
    score: float


class CocoCategory(TypedDict):
    id: int
    name: str


class Coco(TypedDict):
    images: list[CocoImage]
    annotations: list[CocoBox]
    categories: list[CocoCategory]


def found_boxes(answers: NDArray[Any], names: Sequence[str]) -> list[Found]:
    """answers (box, 6): x1, y1, x2, y2 in px, score, class. In the order of the answers."""
    return [
        {
            "label": names[int(kind)],
            "score": round(float(score), SCORE_DIGITS),
            "box": [round(float(edge), EDGE_DIGITS) for edge in edges],
        }
        for *edges, score, kind in answers.tolist()
    ]


def csv_rows(path: str, answers: NDArray[Any], names: Sequence[str]) -> list[tuple[object, ...]]:
    """A row a box, under HEADER; a picture without boxes has one row with empty cells."""
    found = found_boxes(answers, names)
    return [(path, *one["box"], one["label"], one["score"]) for one in found] or [(path, "", "", "", "", "", "")]


def coco_document(
    paths: Sequence[str], sizes: Sequence[tuple[int, int]], answers: Sequence[NDArray[Any]], names: Sequence[str]
) -> Coco:
    """Of pictures with their (width, height) upright; numbers of pictures, boxes and classes start at 1."""
    boxes: list[CocoBox] = []
    for image, one in enumerate(answers, start=1):
        for *edges, score, kind in one.tolist():
            x1, y1, x2, y2 = (round(float(edge), EDGE_DIGITS) for edge in edges)
            width, height = round(x2 - x1, EDGE_DIGITS), round(y2 - y1, EDGE_DIGITS)
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": image,
                    "category_id": int(kind) + 1,
                    "bbox": [x1, y1, width, height],
                    "area": round(width * height, EDGE_DIGITS),
                    "iscrowd": 0,
                    "score": round(float(score), SCORE_DIGITS),
                }
            )
    return {
        "images": [
            {"id": k, "file_name": path, "width": width, "height": height}
            for k, (path, (width, height)) in enumerate(zip(paths, sizes, strict=True), start=1)
        ],
        "annotations": boxes,
        "categories": [{"id": k, "name": name} for k, name in enumerate(names, start=1)],
    }
