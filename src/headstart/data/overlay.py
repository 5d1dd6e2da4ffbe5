"""Weights of places drawn on a picture: a JPEG of the whole upright picture."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data import images
from headstart.data.preprocess import Preprocess

SIDE = 1600  # px, the longer side of an overlay at most
FOR, AGAINST = (255, 80, 0), (0, 90, 255)  # orange and blue: told apart by all kinds of colour vision
STRONGEST = 99.0  # percentile of the absolute contributions that is drawn at full strength: a few px would outshine all
OPAQUE = 0.65
UNSEEN = 0.45  # brightness of what the network's view cuts off
GRID = 28  # places a side that are drawn: early stages look at edges, and their own places are a px or two


def overlay(
    source: bytes | npt.NDArray[np.generic],
    places: npt.NDArray[np.float64],
    preprocess: Preprocess,
    side: int = SIDE,
    full: float | None = None,
) -> bytes:
    """A JPEG of the picture with what each place of the view (height, width) adds: for the answer orange, against it
    blue; what the view cuts off is darker. side: px, the longer one at most. full: what is drawn at full strength;
    None: the strongest of this picture. Raises ImageError."""
    picture = Image.open(io.BytesIO(images.preview(source, side, preprocess=preprocess))).convert("RGB")
    left, top, right, bottom = (round(edge) for edge in images.crop_box(*picture.size, preprocess))
    size = max(1, right - left), max(1, bottom - top)
    shown = _shown(places, *picture.size, preprocess).astype(np.float32)
    coarse = Image.fromarray(shown).resize((GRID, GRID), Image.Resampling.BOX)
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float64)
    most = full or np.percentile(np.abs(smooth), STRONGEST) or 1
    strength = np.clip(np.abs(smooth) / most, 0, 1)[:, :, None] * OPAQUE
    colour = np.where(smooth[:, :, None] > 0, FOR, AGAINST)
    pixels = np.asarray(picture, np.float64) * UNSEEN
    view = np.asarray(picture, np.float64)[top : top + size[1], left : left + size[0]]
    pixels[top : top + size[1], left : left + size[0]] = view * (1 - strength) + colour * strength
    return as_jpeg(pixels.round().astype(np.uint8))


def _shown(places: npt.NDArray[np.float64], width: int, height: int, preprocess: Preprocess) -> npt.NDArray[np.float64]:
    """The places (height, width), of the input or of a grid on it, that show the picture: without borders."""
    left, top, across, down = images.place_in_frame(width, height, preprocess)
    tall, wide = (length / side for length, side in zip(places.shape, preprocess.size, strict=True))
    row, column = round(top * tall), round(left * wide)
    under, behind = max(row + 1, round((top + down) * tall)), max(column + 1, round((left + across) * wide))
    return places[row:under, column:behind]


def as_jpeg(pixels: npt.NDArray[np.uint8], quality: int = 90) -> bytes:
    """A picture (height, width, 3) as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def small_jpeg(pixels: npt.NDArray[np.uint8], side: int, most: int) -> bytes:
    """The same of at most `most` bytes, as large (its longer side up to `side` px) and as fine as that allows; b""
    where nothing does."""
    picture = Image.fromarray(pixels)
    for share in (1.0, 0.75, 0.5, 0.375):
        smaller = picture.copy()
        smaller.thumbnail((round(side * share), round(side * share)))
        for quality in (85, 70, 50):
            found = as_jpeg(np.asarray(smaller), quality)
            if len(found) <= most:
                return found
    return b""
