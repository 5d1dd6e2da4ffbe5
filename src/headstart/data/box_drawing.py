"""Boxes drawn on a picture: a JPEG of the whole upright picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from headstart.data import images
from headstart.data.overlay import SIDE, as_jpeg
from headstart.data.shapes import upright_size

# Told apart by all kinds of colour vision (Okabe and Ito 2008, Color Universal Design), without black; darker where
# white words would not be read on them.
COLOURS = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 140, 105),
    (186, 95, 150),
    (176, 122, 0),
    (48, 140, 190),
    (110, 100, 0),
)
LINE, WORDS = 320, 55  # a line is this part of the longer side wide, words this part high, within the limits below
LEAST_LINE, LEAST_WORDS, MOST_WORDS = 2, 11, 24  # px
DASH = 4  # widths of a line
PAD = 2  # px around words


@dataclass(frozen=True)
class Drawn:
    """A box to be drawn. edges: x1, y1, x2, y2 in px of the upright picture. kind: a number for its colour, such as its
    class's. words: beside it, such as its class and score. dashed: as for what was missed."""

    edges: tuple[float, float, float, float]
    kind: int
    words: str = ""
    dashed: bool = False


def draw_boxes(source: bytes | NDArray[Any], boxes: Sequence[Drawn], side: int = SIDE) -> bytes:
    """A JPEG with these boxes, the later above the earlier. side: px, the longer one at most. Raises ImageError."""
    shown = images.small(source, side)
    size = upright_size(source)
    return as_jpeg(with_boxes(shown, size, boxes))


def with_boxes(pixels: NDArray[np.uint8], size: tuple[int, int], boxes: Sequence[Drawn]) -> NDArray[np.uint8]:
    """The same on pixels (height, width, 3), at any size, of a picture whose own size is (height, width)."""
    picture, (height, width) = Image.fromarray(pixels), size
    across, down = picture.width / width, picture.height / height
    longer = max(picture.size)
    line = max(LEAST_LINE, round(longer / LINE))
    font = ImageFont.load_default(float(min(MOST_WORDS, max(LEAST_WORDS, longer // WORDS))))
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        x1, y1, x2, y2 = (edge * by for edge, by in zip(box.edges, (across, down, across, down), strict=True))
        edges = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # the last pixel inside
        colour = COLOURS[box.kind % len(COLOURS)]
        if box.dashed:
            for start, end in _dashes(edges, DASH * line):
                pen.line([start, end], fill=colour, width=line)
        else:
            pen.rectangle(edges, outline=colour, width=line)
    for box in boxes:
        if box.words:
            at = box.edges[0] * across, box.edges[1] * down
            _write(pen, font, box.words, at, COLOURS[box.kind % len(COLOURS)])
    return np.asarray(picture)


def _dashes(
    edges: tuple[float, float, float, float], length: float
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """The ends of lines of this length, and as long a gap after each, around a box."""
    x1, y1, x2, y2 = edges
    for a, b in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        whole = abs(b[0] - a[0]) + abs(b[1] - a[1])
        for start in np.arange(0.0, max(whole, 1e-9), 2 * length):
            parts = (start / whole if whole else 0.0, min(1.0, (start + length) / whole) if whole else 0.0)
            first, last = ((a[0] + (b[0] - a[0]) * p, a[1] + (b[1] - a[1]) * p) for p in parts)
            yield first, last


def _write(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    words: str,
    corner: tuple[float, float],
    colour: tuple[int, int, int],
) -> None:
    """White words on the box's colour, above its corner, or below where the picture ends."""
    left, top, right, bottom = pen.textbbox((0, 0), words, font=font)
    width, height = right - left + 2 * PAD, bottom - top + 2 * PAD
    room = pen.im.size
    x = min(max(corner[0], 0.0), max(room[0] - width, 0.0))
    y = corner[1] - height if corner[1] >= height else min(max(corner[1], 0.0), max(room[1] - height, 0.0))
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + PAD - left, y + PAD - top), words, fill=(255, 255, 255), font=font)
