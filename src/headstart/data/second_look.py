"""A second look for copies whose thumbnails disagree: cropped, framed, made square by bars.

Three sieves, each bounded, none with more than a tile of pairs in memory: of each image the images with the closest
features; of these the pairs whose thumbnails come closest once a margin of one of them is cut away, then laid over
each other (aligned.py); of what agrees there the files are read again, 32 px wide, and the fine detail must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.aligned import Alignment, align, detail, refine
from headstart.data.images import load
from headstart.data.preprocess import Preprocess
from headstart.data.table import Table
from headstart.errors import ImageError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Look = Callable[[int], NDArray[np.uint8] | None]  # of a row the whole picture, uint8 (32, 32, 3); None: not to be had

SIDE = 32  # px of the picture that is read again
NEIGHBOURS = 8  # images with the closest features that are tried with each image
PARTNERS = 4  # of these, those looked at more closely
FEWEST, MOST = 1000, 10_000  # pairs that are laid over each other: one an image, within these; 0.2 ms each
TRIED = 10  # times as many are tried with a margin cut away
FARTHEST = 0.8  # 1 - cosine, of framed satellite tiles; a pair must agree all the better in its detail, see DETAIL
# Laid over each other, thumbnails: 0.88 to 0.95 for 19 of 20 crops of photographs and MRI slices, 0.90 for one in a
# hundred of pairs of other photographs.
LEAST_COARSE = 0.85
# Correlation of what is finer than 5 px: above 0.84 for 19 of 20 crops of photographs, 0.6 at most for other ones.
LEAST_FINE = 0.75
LEAST_SHARED = 0.55  # of the picture: a single edge, of a road or a field, is like any other
# (1 - cosine) x (1 - correlation of detail) of a copy at most. Of other photographs the least is 0.13, and of satellite
# tiles that pass the two limits above 0.05.
DETAIL = 0.03
# Images that hang together at ten times the limit, from which they are look-alikes and no copies: the ten pictures of
# each face in faces_orl. Copies made in larger numbers are left to the first look.
LARGEST_SET = 4
CROWDED = 0.10  # share of such images: faces 0.5, camvid 0.29, Fashion-MNIST 0.23; MRI slices and copies of them 0.05
# Cut away on either side (across, down); the last two are the bars that make a picture of 4:3 square.
MARGINS = ((0.0, 0.0), (0.05, 0.05), (0.09, 0.09), (0.13, 0.13), (0.0, 0.125), (0.125, 0.0))
LOWEST_CONTRAST = 2.0  # grey levels, standard deviation within a thumbnail: below, rounding noise rules
EXACT = 8192  # images up to which all features are compared; beyond, their AXES main axes, found from as many as
SAMPLE = 1024
AXES = 64
TILE = (1024, 2048)  # pairs of images at a time
CHUNK = 1024  # pairs of pictures at a time


@dataclass(frozen=True)
class Candidates:
    """Pairs of rows a < b with the distance (1 - cosine) of their features, (pair,) each."""

    a: Rows
    b: Rows
    distance: Floats

    def take(self, pairs: NDArray[np.intp]) -> Candidates:
        return Candidates(self.a[pairs], self.b[pairs], self.distance[pairs])


def looking_at(table: Table, preprocess: Preprocess) -> Look:
    """Reads a row's file again, in the range and the bands of `preprocess`."""
    whole = replace(preprocess, size=(SIDE, SIDE), crop_fraction=1.0, resize="squash")

    def look(row: int) -> NDArray[np.uint8] | None:
        try:
            return load(table.read(row), whole).array
        except ImageError:  # an older image of a saved model may be gone
            return None

    return look


def candidates(unit: Floats, stretch: float) -> Candidates:
    """Of each image the NEIGHBOURS later ones with the closest features; unit (image, feature) of length 1."""
    n, kept = len(unit), []
    search = unit if n <= EXACT else _main_axes(unit)
    for top in range(0, n, TILE[0]):
        rows = np.arange(top, min(n, top + TILE[0]))
        best = np.full((len(rows), NEIGHBOURS), -1, np.float32)
        which = np.zeros((len(rows), NEIGHBOURS), np.int64)
        for left in range(top, n, TILE[1]):
            cosine = search[rows] @ search[left : left + TILE[1]].T
            if left == top:
                cosine[np.arange(cosine.shape[1]) <= np.arange(len(rows))[:, None]] = -1  # later ones alone
            width = min(NEIGHBOURS, cosine.shape[1])
            near = np.argpartition(-cosine, width - 1, axis=1)[:, :width]
            both = np.concatenate([best, np.take_along_axis(cosine, near, axis=1)], axis=1)
            named = np.concatenate([which, near + left], axis=1)
            first = np.argpartition(-both, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
            best, which = np.take_along_axis(both, first, axis=1), np.take_along_axis(named, first, axis=1)
        found = best.ravel() > -1
        a, b = np.repeat(rows, NEIGHBOURS)[found], which.ravel()[found]
        cosines = np.einsum("pf,pf->p", unit[a], unit[b]) if n > EXACT else best.ravel()[found]
        kept.append(Candidates(a, b, np.asarray(np.maximum(1 - cosines, 0) * stretch, dtype=np.float32)))
    joined = Candidates(*(np.concatenate([getattr(k, name) for k in kept]) for name in ("a", "b", "distance")))
    return joined.take(np.flatnonzero(joined.distance <= FARTHEST))


def looked_at(pairs: Candidates, thumbnails: NDArray[np.uint8], rows: Rows, look: Look) -> tuple[Candidates, Floats]:
    """The pairs that are copies or nearly so, with (1 - cosine) x (1 - correlation of detail) of each.

    thumbnails (all images, 16, 16, 3); rows (image,): where those that the pairs speak of stand among them.
    """
    most = int(np.clip(len(rows), FEWEST, MOST))
    pairs = _closest(pairs, pairs.distance, TRIED * most)
    grey = np.asarray(thumbnails.mean(axis=3, dtype=np.float32))
    apart = _in_chunks(pairs, lambda part: 1 - _with_margins(grey[rows[part.a]], grey[rows[part.b]]))
    pairs = _partners(pairs, pairs.distance * apart, most)
    seen: dict[int, Floats | None] = {}
    found: list[tuple[Candidates, Floats]] = []
    for start in range(0, len(pairs.a), CHUNK):
        part = pairs.take(np.arange(start, min(len(pairs.a), start + CHUNK)))
        coarse = align(grey[rows[part.a]], grey[rows[part.b]], 6)
        for row in rows[np.concatenate([part.a, part.b])[np.tile(coarse.correlation >= LEAST_COARSE, 2)]]:
            if int(row) not in seen:
                picture = look(int(row))
                seen[int(row)] = None if picture is None else picture.mean(axis=2, dtype=np.float32)
        there = [seen.get(int(rows[k])) is not None and seen.get(int(rows[m])) is not None for k, m in _zip(part)]
        good = np.flatnonzero((coarse.correlation >= LEAST_COARSE) & np.array(there, dtype=bool))
        if len(good):
            found.append(_fine(part.take(good), coarse.take(good), rows, seen))
    none = Candidates(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    copies = [none, *(part for part, _ in found)]
    joined = Candidates(*(np.concatenate([getattr(k, name) for k in copies]) for name in ("a", "b", "distance")))
    return joined, np.concatenate([np.zeros(0, np.float32), *(product for _, product in found)])


def _fine(part: Candidates, coarse: Alignment, rows: Rows, seen: dict[int, Floats | None]) -> tuple[Candidates, Floats]:
    """Of pairs laid over each other in the coarse those that agree in the fine, with their product of distances."""
    first, second = (np.stack([_there(seen[int(row)]) for row in rows[side]]) for side in (part.a, part.b))
    fine, shared = detail(first, second, refine(first, second, coarse, 3))
    same = np.flatnonzero((fine >= LEAST_FINE) & (shared >= LEAST_SHARED))
    return part.take(same), np.asarray(part.distance * np.maximum(1 - fine, 0), dtype=np.float32)[same]


def _there(picture: Floats | None) -> Floats:
    assert picture is not None
    return picture


def _zip(part: Candidates) -> list[tuple[int, int]]:
    return list(zip(part.a.tolist(), part.b.tolist(), strict=True))


def _main_axes(unit: Floats) -> Floats:
    """(image, AXES) coordinates along the axes in which features vary most."""
    sample = unit[np.linspace(0, len(unit) - 1, SAMPLE).astype(np.int64)]
    middle = sample.mean(axis=0)
    values, vectors = np.linalg.eigh((sample - middle) @ (sample - middle).T)
    axes = (sample - middle).T @ vectors[:, -AXES:] / np.sqrt(np.maximum(values[-AXES:], 1e-6))
    seen = (unit - middle) @ axes
    return np.asarray(seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _closest(pairs: Candidates, measure: Floats, most: int) -> Candidates:
    return pairs.take(np.sort(np.argsort(measure, kind="stable")[:most]))


def _partners(pairs: Candidates, measure: Floats, most: int) -> Candidates:
    """The PARTNERS closest of each a, of all these the `most` closest."""
    order = np.lexsort((pairs.b, measure, pairs.a))
    a = pairs.a[order]
    order = order[np.arange(len(a)) - np.searchsorted(a, a, side="left") < PARTNERS]
    return _closest(pairs.take(order), measure[order], most)


def _in_chunks(pairs: Candidates, measure: Callable[[Candidates], Floats]) -> Floats:
    starts = range(0, len(pairs.a), CHUNK)
    parts = [measure(pairs.take(np.arange(s, min(len(pairs.a), s + CHUNK)))) for s in starts]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _with_margins(first: Floats, second: Floats) -> Floats:
    """The best correlation (pair,) of grey thumbnails (pair, 16, 16) with a margin of one cut away, or it mirrored."""
    best = np.full(len(first), -1, np.float32)
    for one, other in ((first, second), (second, first)):
        whole = _even(other)
        for across, down in MARGINS:
            inner = _even(np.asarray(_inside(down) @ one @ _inside(across).T, dtype=np.float32))
            for seen in (inner, inner[:, :, ::-1]):
                best = np.maximum(best, np.einsum("pyx,pyx->p", seen, whole))
    return best


def _even(grey: Floats) -> Floats:
    """Of mean 0 and length 1; 0 where the contrast is too low."""
    moved = grey - grey.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt(np.einsum("pyx,pyx->p", moved, moved))
    length[length < LOWEST_CONTRAST * grey.shape[1]] = np.inf
    return np.asarray(moved / length[:, None, None], dtype=np.float32)


def _inside(margin: float, side: int = 16, fine: int = 4) -> Floats:
    """(out, in): `side` px averaged over what is left of an axis of `side` px without its margins."""
    middle = (np.arange(side * fine) + 0.5) / (side * fine)
    position = np.clip((margin + middle * (1 - 2 * margin)) * side - 0.5, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(side)))
    return np.asarray(weights.reshape(side, fine, side).mean(axis=1), dtype=np.float32)
