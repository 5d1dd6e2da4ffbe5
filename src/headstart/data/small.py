"""What two thumbnails of 16 x 16 px have in common: their grey, their colours, what a frame holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAME_COLOURS = 0.97  # cosine of two thumbnails without their grey; re-encoded photographs are above 0.99
LEAST_COLOUR = 4.0  # of 255, root mean square of that; below, rounding and JPEG rule it, or one copy may be grey
# Grey levels (of 255), root mean square of what two thumbnails differ by, colours and brightness included: copies that
# were made smaller or saved as JPEG of quality 40 stay below, other pictures do not, be they tiles of one kind of
# land, coats (7), digits, faces. Such pairs count as ten times as close.
SAME_PIXELS = 4.0
FLAT = 12  # grey levels, largest less smallest along an edge: less is a frame
FRAME = 3  # px of a thumbnail that are cut off on every side to see what a frame holds
LOWEST_CONTRAST = (
    2.0  # grey levels (of 255), standard deviation within a thumbnail: below, rounding noise rules the correlation
)


def same_colours(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether the colours of each pair (pair, 16, 16, 3) point the same way (cosine), mirrored or not; or one has
    none."""
    a, b = _colours(one), _colours(other)
    length = [np.sqrt((c**2).mean(axis=(1, 2, 3))) for c in (a, b)]
    both = np.maximum((a * b).mean(axis=(1, 2, 3)), (a * b[:, :, ::-1]).mean(axis=(1, 2, 3)))
    agree = (np.minimum(*length) < LEAST_COLOUR) | (both >= SAME_COLOURS * length[0] * length[1])
    return np.asarray(agree, dtype=bool)


def same_pixels(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each pair (pair, 16, 16, 3) differs by SAME_PIXELS at most, mirrored or not."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    apart = [((a - seen) ** 2).mean(axis=(1, 2, 3)) for seen in (b, b[:, :, ::-1])]
    return np.asarray(np.minimum(*apart) <= SAME_PIXELS**2, dtype=bool)


def within_frames(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """(whether one of each pair (pair, 16, 16, 3) is framed, correlation inside the frame, mirrored or not; 0 where
    there is too little to see)."""
    grey = [t.mean(axis=3, dtype=np.float32) for t in (one, other)]
    a, b = (_middle(g) for g in grey)
    both = np.maximum(np.einsum("pyx,pyx->p", a, b), np.einsum("pyx,pyx->p", a, b[:, :, ::-1]))
    return _framed(grey[0]) | _framed(grey[1]), np.asarray(both, dtype=np.float32)


def _framed(grey: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether the four edges of each thumbnail (image, 16, 16) are of one grey."""
    edges = np.stack([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    return np.asarray((np.ptp(edges, axis=2) <= FLAT).all(axis=1))


def _middle(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a frame holds, (image, 10, 10), of mean 0 and length 1; 0 where the contrast is too low."""
    inside = grey[:, FRAME:-FRAME, FRAME:-FRAME]
    inside = inside - inside.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt((inside**2).sum(axis=(1, 2)))
    length[length < LOWEST_CONTRAST * inside.shape[1]] = 0
    return np.asarray(inside * inverse(length)[:, None, None], dtype=np.float32)


def _colours(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Thumbnails (image, 16, 16, 3) without their grey."""
    pixels = thumbnails.astype(np.float32)
    return np.asarray(pixels - pixels.mean(axis=3, keepdims=True), dtype=np.float32)


def inverse(length: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / length, and 0 for 0."""
    return np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)


def thumbnail_parts(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Even and odd part (image, 128) of grey thumbnails of mean 0 and length 1 (0 where the contrast is too low)."""
    grey = thumbnails.mean(axis=3, dtype=np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt((grey**2).sum(axis=(1, 2)))
    length[length < LOWEST_CONTRAST * 16] = 0  # 16: the square root of the number of pixels
    grey *= inverse(length)[:, None, None] / np.float32(np.sqrt(2.0))
    left, right = grey[:, :, :8], grey[:, :, :7:-1]
    return (left + right).reshape(len(grey), 128), (left - right).reshape(len(grey), 128)
