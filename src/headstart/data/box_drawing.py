"""Boxes drawn on a picture, each class in its colour, with its name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from headstart.data.mask_drawing import palette
from headstart.data.placing import to_frame

WIDE = 200  # px of a picture to one px of a line
MOST_NAMED = 40  # boxes of a picture up to which each has its name: more would hide it


def draw_boxes(
    picture: NDArray[np.uint8], size: tuple[int, int], names: Sequence[str], boxes: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """The picture (height, width, 3) with boxes (n, 6), x1, y1, x2, y2 in px of its original, score, class, of which
    `size` is (height, width). A score below 1 stands behind the name."""
    shown = Image.fromarray(picture)
    pen, line = ImageDraw.Draw(shown), max(1, round(max(picture.shape[:2]) / WIDE))
    font = ImageFont.load_default(size=max(10, 5 * line))
    placed = to_frame(boxes[:, :4], size, (picture.shape[0], picture.shape[1]))
    for (x1, y1, x2, y2), score, kind in zip(placed.tolist(), boxes[:, 4], boxes[:, 5].astype(int), strict=True):
        colour = tuple(palette()[kind].tolist())
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
        if len(boxes) <= MOST_NAMED:
            text = names[kind] if score >= 1 else f"{names[kind]} {score:.2f}"
            left, top, right, bottom = pen.textbbox((x1, max(0, y1 - 6 * line)), text, font=font)
            pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=colour)
            pen.text((x1, max(0, y1 - 6 * line)), text, fill=(0, 0, 0), font=font)
    return np.asarray(shown)
