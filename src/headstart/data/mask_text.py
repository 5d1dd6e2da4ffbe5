"""The truth of a picture for `--task segment` as one text, as a table holds it: where its mask is, or what it consists of.

JSON with these keys, "" = no mask is known:

| key | what it says |
|---|---|
| `mask` | the path of a mask file; or `shapes` |
| `shapes` | `[[class number, [x1, y1, x2, y2, ...]], ...]`, polygons in px, edges not centres; later ones lie on top; `{"counts": [...]}` in place of corners: COCO's runs |
| `rest` | of shapes: the class number of pixels in none of them |
| `size` | width and height of the mask in px |
| `turned` | the EXIF orientation of the picture, where the mask belongs to it as it is stored and not as it is displayed |
| `box` | x1, y1, x2, y2 px of the upright picture, where only that part of it is meant (`tiles.py`) |
| `values` | the class number of each value in the file, a number or `"r,g,b"`; missing: numbers are class numbers |
| `pixels` | how many pixels are of each class number; void is not counted |

Class numbers are places in `Table.columns`; 255 is void: such pixels neither teach nor judge.
"""  # noqa: E501 (a table)

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.mask_files import mask_bytes, numbers_of, values_of
from headstart.data.placing import VOID, Size, upright, upright_size
from headstart.data.polygons import filled, unrolled
from headstart.errors import DataError, ImageError
from headstart.files.cells import quoted

Shape = tuple[int, list[float] | dict[str, list[int]]]


@dataclass(frozen=True)
class Drawn:
    """What such a text holds. size: (height, width) px of the mask as it is stored. pixels: class number -> px. box:
    x1, y1, x2, y2 px of the upright picture, where only that part of it is meant."""

    size: Size
    pixels: dict[int, int]
    mask: str | None = None
    values: dict[str, int] | None = None
    shapes: tuple[Shape, ...] = ()
    rest: int = VOID
    orientation: int = 1
    box: tuple[int, ...] | None = None

    @property
    def upright(self) -> Size:
        """(height, width) px as it is displayed; of the part, where one is meant."""
        if self.box is not None:
            return self.box[3] - self.box[1], self.box[2] - self.box[0]
        return upright_size(self.size, self.orientation)

    @property
    def text(self) -> str:
        found: dict[str, Any] = {"mask": self.mask} if self.mask is not None else {"shapes": self.shapes}
        if self.mask is None and self.rest != VOID:
            found["rest"] = self.rest
        found["size"] = [self.size[1], self.size[0]]
        if self.orientation != 1:
            found["turned"] = self.orientation
        if self.box is not None:
            found["box"] = self.box
        if self.values is not None:
            found["values"] = self.values
        found["pixels"] = {str(number): n for number, n in sorted(self.pixels.items()) if number != VOID}
        return json.dumps(found, separators=(",", ":"))

    def numbers(self) -> NDArray[np.uint8]:
        """Class numbers (height, width) of the upright picture, VOID = 255. Raises ImageError with a reason."""
        if self.mask is not None:
            found = numbers_of(values_of(mask_bytes(self.mask)), self.values)
        else:
            found = drawn(self.shapes, self.rest, self.size)
        if found.shape != self.size:
            raise ImageError(f"the mask has become {_said(found.shape)} and was {_said(self.size)}: it was changed")
        whole = upright(found, self.orientation)
        if self.box is None:
            return whole
        left, top, right, bottom = self.box
        return whole[top:bottom, left:right]

    def cut(self, box: tuple[int, ...], mask: NDArray[np.uint8]) -> str:
        """The text of a part, x1, y1, x2, y2 px of the upright mask; "" where that is void all over."""
        counts = np.bincount(mask[box[1] : box[3], box[0] : box[2]].ravel(), minlength=VOID + 1)[:VOID]
        pixels = {int(number): int(counts[number]) for number in np.flatnonzero(counts)}
        return replace(self, pixels=pixels, box=box).text if pixels else ""


def drawn_in(text: str) -> Drawn:
    """What a text that is not "" holds. Raises DataError for one that is no such text."""
    try:
        found = json.loads(text)
        width, height = (int(side) for side in found["size"])
        return Drawn(
            (height, width),
            {int(number): int(n) for number, n in found["pixels"].items()},
            found.get("mask"),
            found.get("values"),
            tuple((int(number), shape) for number, shape in found.get("shapes", ())),
            int(found.get("rest", VOID)),
            int(found.get("turned", 1)),
            tuple(map(int, found["box"])) if "box" in found else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f"no text of a mask, with the keys mask or shapes, size and pixels: {quoted(text[:60])}"
        ) from error


def mask_of(text: str, size: Size | None = None) -> NDArray[np.uint8]:
    """Class numbers (height, width) of the upright picture, VOID = 255; of a text that is not "".

    size: (height, width) px of that picture, where it is known. Raises ImageError with a reason: a mask that is gone,
    damaged or changed, or that is of another size.
    """
    try:
        found = drawn_in(text).numbers()
    except DataError as error:
        raise ImageError(str(error)) from error
    if size is not None and found.shape != tuple(size):
        raise ImageError(f"the mask is {_said(found.shape)} and the picture {_said(size)}")
    return found


def published(text: str) -> str:
    """A text without the path of its mask and without shapes: its size and pixels, by which copies are told to have the
    same truth. What is handed on with a model names no path."""
    if not text:
        return ""
    found = drawn_in(text)
    height, width = found.upright
    pixels = {str(number): n for number, n in sorted(found.pixels.items())}
    return json.dumps({"size": [width, height], "pixels": pixels}, separators=(",", ":"))


def said(text: str, names: Sequence[str], most: int = 4) -> str:
    """What a mask shows, in words: "road 41 %, sky 30 %, car 20 % and 3 more"; "" for none."""
    if not text:
        return ""
    pixels = drawn_in(text).pixels
    total = sum(pixels.values())
    order = sorted(pixels, key=lambda number: -pixels[number])
    shares = [f"{names[number]} {_percent(pixels[number] / total)}" for number in order]
    return ", ".join(shares[:most]) + (f" and {len(shares) - most} more" if len(shares) > most else "")


def _percent(share: float) -> str:
    return "below 1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def drawn(shapes: tuple[Shape, ...], rest: int, size: Size) -> NDArray[np.uint8]:
    """Shapes as class numbers (height, width), later ones on top. Raises ImageError for runs that do not fit."""
    found = np.full(size, rest, np.uint8)
    for number, shape in shapes:
        if isinstance(shape, dict):
            found[unrolled(shape["counts"], size)] = number
            continue
        corners = np.asarray(shape, np.float64).reshape(-1, 2)
        left, top = np.clip(np.floor(corners.min(axis=0)), 0, size[::-1]).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, size[::-1]).astype(int)
        if right > left and bottom > top:  # only where it lies: a polygon is mostly small
            part = found[top:bottom, left:right]
            part[filled(corners - (left, top), part.shape)] = number
    return found


def _said(size: tuple[int, ...]) -> str:
    return f"{size[1]} x {size[0]} px"
