"""Pairs of small grey pictures laid over each other: one may be cropped, framed, squashed or mirrored.

Each axis of the one is scaled and shifted until the two agree best where they overlap (Lucas and Kanade 1981, four
numbers a pair, from a few starts): a crop lies inside its original, and an original inside its framed copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Sides of what is seen of the one, in sides of the other: (across, down), from which the search begins. The last four
# are pictures of 4:3 made square by bars.
STARTS = ((1, 1), (0.9, 0.9), (0.8, 0.8), (1.1, 1.1), (1.25, 1.25), (1, 0.75), (0.75, 1), (1, 1.33), (1.33, 1))
SCALES = (0.6, 1.6)  # of an axis
FARTHEST = 0.4  # shift of a centre, in half sides
STRIDE = 0.1  # at most a step
FLAT = 12  # grey levels, largest less smallest of a row: less is a frame, JPEG's noise beside its edge included
DAMPING = 1e-3  # of the mean curvature: flat pictures would jump


@dataclass(frozen=True)
class Alignment:
    """How pairs of pictures lie over each other.

    place (pair, 4): scale across and down, shift across and down, in half sides, of the second picture in the first;
    mirrored (pair,): whether the first was turned left to right; correlation (pair,) where they overlap.
    """

    place: Floats
    mirrored: NDArray[np.bool_]
    correlation: Floats

    def take(self, pairs: NDArray[np.intp]) -> Alignment:
        return Alignment(self.place[pairs], self.mirrored[pairs], self.correlation[pairs])


def align(first: Floats, second: Floats, steps: int) -> Alignment:
    """first, second (pair, side, side) grey, laid over each other from every start of `STARTS`, or its mirror image."""
    best = Alignment(
        np.ones((len(first), 4), np.float32), np.zeros(len(first), bool), np.full(len(first), -2, np.float32)
    )
    for mirrored in (False, True):
        seen = first[:, :, ::-1] if mirrored else first
        for across, down in STARTS:
            place = np.tile(np.array([across, down, 0, 0], np.float32), (len(first), 1))
            agree = _agreement(seen, second, place)
            better = agree > best.correlation
            best = Alignment(
                np.where(better[:, None], place, best.place),
                np.where(better, mirrored, best.mirrored),
                np.where(better, agree, best.correlation),
            )
    return refine(first, second, best, steps)


def refine(first: Floats, second: Floats, start: Alignment, steps: int) -> Alignment:
    """The alignment after Gauss-Newton steps from `start`, which may come from smaller pictures of the same."""
    seen, place = _turned(first, start.mirrored), start.place
    best, best_place = _agreement(seen, second, place), place
    for _ in range(steps):
        place = place + _step(seen, second, place)
        place[:, :2] = np.clip(place[:, :2], *SCALES)
        place[:, 2:] = np.clip(place[:, 2:], -FARTHEST, FARTHEST)
        agree = _agreement(seen, second, place)
        better = agree > best
        best, best_place = np.where(better, agree, best), np.where(better[:, None], place, best_place)
    return Alignment(best_place, start.mirrored, best)


def detail(first: Floats, second: Floats, found: Alignment) -> tuple[Floats, Floats]:
    """(correlation (pair,) of what is finer than 5 px, share (pair,) of the second picture that overlaps).

    Look-alikes agree in the coarse and differ here; copies do not. Frames of one colour are left out: they agree in
    whatever is framed alike.
    """
    warped, inside = _warped(_turned(first, found.mirrored), found.place)
    shown = inside * _content(second) * (_warped(_turned(_content(first), found.mirrored), found.place)[0] > 0.999)
    shown[:, :2] = shown[:, -2:] = shown[:, :, :2] = shown[:, :, -2:] = 0
    shown = (_smooth(shown) > 0.999).astype(np.float32)  # nothing that a picture's edge has a part in
    fine = (_unit(picture - _smooth(picture), shown) for picture in (warped, second))
    return np.einsum("pyx,pyx->p", *fine), inside.mean(axis=(1, 2))


def _content(pictures: Floats) -> Floats:
    """1 within the first and last row and column that are not of one grey, and the next to them; 0 in the frame."""
    inside = np.ones_like(pictures)
    for axis, view in ((1, inside.transpose(0, 2, 1)), (2, inside)):
        varied = np.ptp(pictures, axis=3 - axis) > FLAT  # a row, then a column, at a time
        begun = np.cumsum(varied, axis=1) > 1
        ended = (np.cumsum(varied[:, ::-1], axis=1) > 1)[:, ::-1]
        whole = varied[:, :2].any(axis=1)[:, None], varied[:, -2:].any(axis=1)[:, None]
        view *= ((begun | whole[0]) & (ended | whole[1]))[:, None, :]
    return inside


def _turned(pictures: Floats, mirrored: NDArray[np.bool_]) -> Floats:
    return np.where(mirrored[:, None, None], pictures[:, :, ::-1], pictures)


def _axis(scale: Floats, shift: Floats, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """(weights (pair, out, in) of linear interpolation along an axis, whether each place is inside (pair, out))."""
    where = np.arange(side, dtype=np.float32)
    middle = (where + 0.5) * 2 / side - 1
    there = scale[:, None] * middle + shift[:, None]
    position = np.clip((there + 1) * side / 2 - 0.5, 0, side - 1)
    return np.maximum(0, 1 - np.abs(position[..., None] - where)), np.abs(there) <= 1


def _warped(pictures: Floats, place: Floats) -> tuple[Floats, Floats]:
    """(the pictures seen at `place` (pair, side, side), 1 where there is something to see and 0 elsewhere)."""
    side = pictures.shape[1]
    across, inside = _axis(place[:, 0], place[:, 2], side)
    down, below = _axis(place[:, 1], place[:, 3], side)
    seen = np.asarray(down @ pictures @ across.transpose(0, 2, 1), dtype=np.float32)
    return seen, (below[:, :, None] & inside[:, None, :]).astype(np.float32)


def _unit(pictures: Floats, inside: Floats) -> Floats:
    """Of mean 0 and length 1 inside, 0 outside; 0 where there is nothing."""
    share = np.maximum(inside.sum(axis=(1, 2)), 1)
    moved = (pictures - ((pictures * inside).sum(axis=(1, 2)) / share)[:, None, None]) * inside
    length = np.sqrt(np.einsum("pyx,pyx->p", moved, moved))
    return np.asarray(moved / np.maximum(length, 1e-6)[:, None, None], dtype=np.float32)


def _agreement(first: Floats, second: Floats, place: Floats) -> Floats:
    warped, inside = _warped(first, place)
    return np.asarray(np.einsum("pyx,pyx->p", _unit(warped, inside), _unit(second, inside)), dtype=np.float32)


def _step(first: Floats, second: Floats, place: Floats) -> Floats:
    """The Gauss-Newton step (pair, 4), slopes by finite differences of a half pixel."""
    warped, inside = _warped(first, place)
    now, apart = _unit(warped, inside), 1.0 / first.shape[1]
    slopes = []
    for number in range(4):
        moved = place.copy()
        moved[:, number] += apart
        slopes.append((_unit(_warped(first, moved)[0], inside) - now) / apart)
    slope = np.stack(slopes, axis=1).reshape(len(first), 4, -1)
    curve = slope @ slope.transpose(0, 2, 1)
    mean = np.trace(curve, axis1=1, axis2=2) / 4
    curve += (DAMPING * mean + 1e-9)[:, None, None] * np.eye(4, dtype=np.float32)
    off = (_unit(second, inside) - now).reshape(len(first), -1, 1)
    return np.clip(np.linalg.solve(curve, slope @ off)[..., 0], -STRIDE, STRIDE)


def _smooth(pictures: Floats) -> Floats:
    """The mean of 5 x 5 px around each."""
    side = pictures.shape[1]
    wide = np.pad(pictures, ((0, 0), (2, 2), (2, 2)), mode="edge")
    tall = np.sum([wide[:, k : k + side] for k in range(5)], axis=0)
    return np.asarray(np.sum([tall[:, :, k : k + side] for k in range(5)], axis=0) / 25, dtype=np.float32)
