"""The size of a picture as it is stored, and which way up it is shown: from the header alone."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data import formats, images, tiff
from headstart.data.decoders import FORMATS, decoding
from headstart.data.upright import orientation_of

PNG = b"\x89PNG"
TURNING = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type")  # of a PNG: without them nothing turns it


@dataclass(frozen=True, slots=True)
class Shape:
    """stored: (width, height) in px as it is stored. orientation: EXIF's, 1 to 8."""

    stored: tuple[int, int]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) in px as it is displayed."""
        width, height = self.stored
        return (height, width) if self.orientation >= 5 else (width, height)


def shape_of(data: bytes) -> Shape:
    """Of an encoded picture. Raises ImageError."""
    size = images.size_of(data)
    if formats.is_dicom(data) or formats.is_heif(data):  # these turn themselves
        return Shape(size)
    if data[:4] in tiff.MAGIC and (pages := tiff.pages(data)):
        turn = pages[0].one(tiff.ORIENTATION, 1)
        return Shape(size, turn if 1 <= turn <= 8 else 1)
    if data[:4] == PNG and not any(mark in data for mark in TURNING):  # Pillow would decode it to find out
        return Shape(size)
    with decoding(), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        return Shape(size, orientation_of(picture))


def upright_size(source: bytes | NDArray[Any]) -> tuple[int, int]:
    """(height, width) in px of a picture, encoded or an array, as it is displayed. Raises ImageError."""
    width, height = images.size_of(source) if isinstance(source, np.ndarray) else shape_of(source).upright
    return height, width
