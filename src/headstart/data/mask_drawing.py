"""Masks as files that other programs read, and painted on their pictures."""

from __future__ import annotations

import io
from collections.abc import Collection
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data import images
from headstart.data.overlay import SIDE
from headstart.data.placing import VOID
from headstart.data.preprocess import Preprocess

# Told apart by all kinds of colour vision (Okabe and Ito 2008), without black, which is void.
FIRST = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
DARKEST = 25.0  # lightness (CIELAB) of a class at least: darker colours are hardly told from void
STEPS = (0, 36, 73, 109, 146, 182, 219, 255)  # of red, green and blue, from which further colours are taken
PAINTED = 0.5  # share of a class's colour in its pixels; its edge has all of it

Pixels = NDArray[np.uint8]


@cache
def palette() -> Pixels:
    """Colours (256, 3) of class numbers: a class has the same colour whatever the others are; VOID is black.

    After the first seven each is the one farthest from all before it and from black, by distance in CIELAB.
    """
    free = np.array(list(product(STEPS, repeat=3)), np.uint8)
    lab = _lab(free)
    free, lab = free[lab[:, 0] >= DARKEST], lab[lab[:, 0] >= DARKEST]
    found = [(0, 0, 0), *FIRST]
    nearest = np.min([np.linalg.norm(lab - one, axis=1) for one in _lab(np.array(found, np.uint8))], axis=0)
    while len(found) <= VOID:
        best = int(nearest.argmax())
        found.append(tuple(free[best].tolist()))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=1))
    return np.array([*found[1:], found[0]], np.uint8)[: VOID + 1]


def _lab(colours: Pixels) -> NDArray[np.float64]:
    """sRGB (colour, 3) as CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    share = colours / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def mask_png(numbers: Pixels, colours: Pixels | None = None) -> bytes:
    """A palette PNG whose indices are the class numbers (height, width). colours: (256, 3); None: `palette`."""
    picture = Image.fromarray(numbers)
    picture.putpalette((palette() if colours is None else colours).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def painted(
    source: bytes | NDArray[Any],
    numbers: Pixels,
    colours: Pixels | None = None,
    clear: Collection[int] = (VOID,),
    side: int = SIDE,
    preprocess: Preprocess | None = None,
) -> bytes:
    """A JPEG of the upright picture with the class of each pixel (height, width) in its colour, its edges in full.

    clear: the class numbers that are left as they are, such as a background. side: px, the longer one at most. Raises
    ImageError.
    """
    picture = images.small(source, side, preprocess=preprocess)
    seen = _sampled(numbers, picture.shape[:2])
    bare = np.isin(seen, list(clear))
    share = np.where(_edges(seen), 1.0, PAINTED)
    share[bare] = 0
    colour = (palette() if colours is None else colours)[seen]
    mixed = picture + share[:, :, None] * (colour.astype(np.float64) - picture)
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _sampled(numbers: Pixels, size: tuple[int, ...]) -> Pixels:
    """The number that lies under the centre of each pixel of a picture of another size."""
    rows, columns = (
        ((np.arange(n) + 0.5) * whole / n).astype(np.int64) for n, whole in zip(size, numbers.shape, strict=True)
    )
    return np.asarray(numbers[rows[:, None], columns])


def _edges(numbers: Pixels) -> NDArray[np.bool_]:
    """Pixels above or beside which another class lies."""
    found = np.zeros(numbers.shape, bool)
    found[1:] |= numbers[1:] != numbers[:-1]
    found[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    return found
