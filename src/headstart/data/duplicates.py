"""Images that are the same picture: exact copies by content hash, nearly the same pictures by two keys that must agree.

Near copies are found from what is at hand after one pass of the trunk. Key one is the cosine of the network's
features, key two the correlation of 16 x 16 grey thumbnails (zero mean, unit norm: brightness and contrast
cancel). A pair is tied when the product of the two distances is small, so that strong agreement of one key
makes up for a weaker other one. Look-alikes agree in one key only: tiles of open sea have cosine 0.99 and thumbnails
of noise.

In some sets look-alikes are the rule: handwritten digits, coats of one shop, frames of one camera. There different
pictures come as close to each other as copies do. Such a set is known by its own distances: at ten times the limit
many images hang together in one chain, where copies, however many, are small groups apart. It gets a tenth of the
limit, or of that where it is so again, and there colours must agree too (chequerboards differ in nothing else). Of the
81 near copies in CIFAR-10 ten are of other colours, and stay.

Measured with EfficientNet-Lite0's pre-logits, sets (images in them). Nothing is tied among the 79,003 pairs of
hymenoptera and the 4.5 million of eurosat_3000; in brain_mri_yes_no 22 sets beside 22 of equal files, as many in
faces_orl (people in one pose) as before: 32 (71). Where look-alikes are the rule, before and with a tenth of the limit:
scikit-learn's digits 7 (23) and 0, 3,000 of Fashion-MNIST 29 (73) and 0, camvid 15 (53) and 10 (22), of which most are
less than half a second apart. Share of made copies that is found (hymenoptera, MRI / 64-pixel satellite tiles, a tenth
of them open sea): JPEG quality 90 1.00, 0.99 / 0.84, quality 50 1.00, 0.99 / 0.52, half size 1.00, 0.99 / 0.81,
brightness or contrast changed by 20 % 1.00, 0.99 / 0.85, mirrored 1.00, 0.99 / 0.88, squashed by a quarter 1.00,
0.99 / 0.88, 2 % cropped 0.89, 0.59 / 0.61. The same with the tenth of the limit in camvid: 1.00, but cropped 0.25.
Without a second look crops of 5 % and wide borders are mostly missed: the thumbnails no longer agree.

Two further rules came after those numbers. Where look-alikes are rare, thumbnails of which no pixel moved far count as
ten times as close (`small.SAME_PIXELS`): of 2,000 tiles of EuroSAT half size .53 -> .85, JPEG quality 40 .42 -> .78,
mirrored .80 -> .86 of 120 made copies; the rest are tiles without contrast, open sea. And where a picture is framed,
what the frame holds must agree as well: tiles in one frame were tied to each other, 116 pairs for 1,000 images, now
0.5.

With a second look (second_look.py; benchmarks/planted_copies.py), which `inspect` takes and `fit` does not, crops by 5
and 10 % of the sides and borders of a tenth: hymenoptera 1.00, 0.99, 0.98; brain_mri_yes_no 0.98, 0.93, 0.92;
eurosat_3000 0.83, 0.77, 0.20. These sets are those on which the limits were chosen. Sets that chose
nothing: imagenet_100 1.00, 0.97, 0.99 and 1.00 of copies at half size and as JPEG of quality 40; 1,500 of CIFAR-100
1.00, 0.94, 0.71, of these 0.37 and 0.96 (2 false pairs at most beside one kind of copy). Where look-alikes are the rule
(camvid, Fashion-MNIST, faces) it adds next to nothing: faces_orl 0.01, 0.00, 0.00. Untouched sets: hymenoptera,
eurosat_3000, Fashion-MNIST 0, camvid 10 (23) as without; brain_mri_yes_no 26 for 22 (67 images for 52, all copies by
eye).
In the last 20,000 images of CIFAR-10 it finds 195 sets for 8; of the first 48 further ones at most 4 look doubtful by
eye, the others show one picture cut out otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.data import second_look
from headstart.data.second_look import Look
from headstart.data.small import inverse, same_colours, same_pixels, thumbnail_parts, within_frames
from headstart.errors import DataError
from headstart.files.cores import n_cores

NEAR_PRODUCT = (
    0.0015  # (1 - cosine) x (1 - correlation) of a near copy at most; the measurement is in the module's docstring
)
LOOSE_PRODUCT = 0.015  # ten times: pairs that are looked at to tell whether look-alikes are the rule
LEAST_PRODUCT = 0.0000015  # where they are and lie as close as this nothing but equal pictures can be told from them
# Share of the images that hang together at ten times the limit in chains above LARGEST_SET, from which look-alikes
# are the rule: digits 0.25, Fashion-MNIST 0.44, camvid 0.10; photographs, faces_orl and satellite tiles 0, eight made
# copies of each MRI slice 0.04.
CROWDED = 0.05
LOWEST_CORRELATION = 0.95  # thumbnails: below, different pictures of one kind begin (MRI slices, digits)
# 1 - cosine. Unrelated photographs are at 0.6 to 0.7, and so are X-rays squashed to another aspect ratio, whose
# thumbnails correlate at 0.9999: the product tells them apart. Nothing is left out but features that say nothing.
LARGEST_DISTANCE = 0.9
# 1 - cosine of unrelated images; in a set where it is less (random weights, one scene), cosines are stretched to it
USUAL_DISTANCE = 0.5
ENOUGH_TO_STRETCH = 100  # images; fewer may all be copies of each other, then their mean cosine says nothing
LARGEST_SET = (10, 0.02)  # images, share of all images: a larger near set is a chain, see _components
LARGEST_STRICT_SET = (20, 0.10)
NEIGHBOURS = 32  # closest near copies kept per image: bounds memory, does not cut a set apart
TILE = (512, 1024)  # pairs compared at a time: 2 MiB of float32, which a core's cache holds
# Coordinates of a thumbnail's even part in which pairs are screened: of the pairs of CIFAR-10 that pass, half agree in
# all 256, and a pair takes a fifth of the time. 8 let seven times as many pass, 32 take a third longer.
SCREEN = 16
SLACK = 1e-4  # of a correlation: float32 in another order
REACH = math.acos(LOWEST_CORRELATION - SLACK)  # rad: the largest difference of two angles whose cosine is that much
DENSE = 0.01  # share of a tile's pairs from which comparing all features is cheaper than gathering pairs
GATHER = 2**13  # pairs whose features are gathered at a time (8192 x 1280 float32: 40 MiB a side)
SEARCH_ALL = 1_000_000  # distinct images up to which every pair is compared; beyond, pairs within a bucket
BUCKET = 250_000  # distinct images to a bucket, on average

Alike = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.bool_]]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True)
class DuplicateSet:
    """Two or more images that show the same picture.

    `kind` is "exact" (same bytes) or "near" (nearly the same picture, such as a copy at another size, or the next frame
    of a film); `rows` are sorted row numbers. A near set holds the exact copies of its members too.
    """

    kind: Literal["exact", "near"]
    rows: tuple[int, ...]


def find_duplicates(
    hashes: Sequence[str], embeddings: NDArray[Any], thumbnails: NDArray[np.uint8], look: Look | None = None
) -> list[DuplicateSet]:
    """Sets of exact copies, then sets of near copies, each ordered by its first row.

    hashes: content hash of each image. embeddings (image, feature): any float type, any scale. thumbnails (image, 16,
    16, 3) uint8. look: gives the whole picture of a row, (32, 32, 3) uint8, or None where it cannot be read; with it
    cropped and framed copies are found too (second_look.py).

    The answer does not depend on the order of the rows. Up to 1,000,000 distinct images all pairs that
    may agree are compared, tile by tile; beyond, only pairs of images whose features are closest to the same one of
    n/250,000 pivot images (exact copies are always found). Raises DataError where the three disagree on the number of
    images.
    """
    n = len(hashes)
    if embeddings.shape[:1] != (n,) or thumbnails.shape != (n, 16, 16, 3):
        raise DataError(
            f"duplicates: {n} hashes, features {embeddings.shape} and thumbnails {thumbnails.shape} do not belong "
            "together: expected (image, feature) and (image, 16, 16, 3)"
        )
    if n < 2:
        return []
    _, first, copy_of = np.unique(np.asarray(hashes, dtype=str), return_index=True, return_inverse=True)
    members = np.split(np.argsort(copy_of, kind="stable"), np.cumsum(np.bincount(copy_of))[:-1])
    exact = [DuplicateSet("exact", tuple(sorted(rows.tolist()))) for rows in members if len(rows) > 1]
    keys = _Keys.of(embeddings, thumbnails, first)
    near = [
        DuplicateSet("near", tuple(sorted(int(row) for image in images for row in members[image])))
        for images in _components(keys, _near_pairs(keys, len(first), _search), _second_look(keys, look))
    ]
    return sorted(exact, key=lambda s: s.rows) + sorted(near, key=lambda s: s.rows)


def tie_groups(n: int, duplicates: Sequence[DuplicateSet], groups: NDArray[Any]) -> NDArray[np.int64]:
    """Group number of each of n images, numbered by first appearance: duplicates and images with the same `groups`
    value share one.

    groups (image,): the user's own group ("" = none). Ties are transitive: two patients with a common picture become
    one group.
    """
    user = np.asarray(groups, dtype=str)
    _, codes = np.unique(user, return_inverse=True)
    named = np.flatnonzero(user != "")
    anchor: dict[int, int] = {}
    a = [anchor.setdefault(int(codes[row]), int(row)) for row in named] + [
        s.rows[0] for s in duplicates for _ in s.rows
    ]
    b = named.tolist() + [row for s in duplicates for row in s.rows]
    component = _connected(n, np.array(a, dtype=np.int64), np.array(b, dtype=np.int64))
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]


def find_leaks(duplicates: Sequence[DuplicateSet], splits: NDArray[Any]) -> list[DuplicateSet]:
    """The sets whose images stand in more than one of the user's splits; splits (image,), "none" is no split."""
    return [s for s in duplicates if len({splits[row] for row in s.rows} - {"none", ""}) > 1]


def find_conflicts(duplicates: Sequence[DuplicateSet], labels: NDArray[Any]) -> list[DuplicateSet]:
    """The sets whose images carry different labels; labels (image,), "" is no label."""
    return [s for s in duplicates if len({labels[row] for row in s.rows} - {""}) > 1]


@dataclass(frozen=True)
class _Keys:
    """The two keys of each distinct image, the rows in hash order.

    features (all images, feature) as given, scale (image,) the factor that brings each row to length 1, stretch what
    distances are multiplied by. Thumbnails lie as their even part (image, 128) and odd part (image, 128) under
    mirroring, of length 1 together and 0 without contrast: the correlation of two is even + odd, that of one with the
    other's mirror image even - odd.
    """

    features: NDArray[Any]
    scale: NDArray[np.float32]
    even: NDArray[np.float32]
    odd: NDArray[np.float32]
    stretch: float
    thumbnails: NDArray[np.uint8]  # of all images
    rows: NDArray[np.int64]  # of these in all images

    @classmethod
    def of(cls, embeddings: NDArray[Any], thumbnails: NDArray[np.uint8], rows: NDArray[np.int64]) -> _Keys:
        scale, total = np.zeros(len(rows), np.float32), np.zeros(embeddings.shape[1], np.float64)
        for start in range(0, len(rows), GATHER):
            part = embeddings[rows[start : start + GATHER]].astype(np.float32)
            length = np.linalg.norm(part, axis=1)
            length[~np.isfinite(length)] = 0
            part[length == 0] = 0
            scale[start : start + GATHER] = inverse(length)
            total += (part * inverse(length)[:, None]).sum(axis=0)
        n, stretch = len(rows), 1.0
        if n >= ENOUGH_TO_STRETCH:
            mean_cosine = (float(total @ total) - n) / (n * (n - 1))
            stretch = max(1.0, USUAL_DISTANCE / max(1.0 - mean_cosine, 1e-6))
        even, odd = thumbnail_parts(thumbnails[rows])
        return cls(embeddings, scale, even, odd, stretch, thumbnails, rows)

    def take(self, rows: NDArray[np.int64]) -> _Keys:
        parts = (self.scale[rows], self.even[rows], self.odd[rows])
        return _Keys(self.features, *parts, self.stretch, self.thumbnails, self.rows[rows])

    def unit(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Features (row, feature) of length 1; zeros where there are none."""
        scale = self.scale[rows, None]
        return np.where(scale > 0, self.features[self.rows[rows]].astype(np.float32) * scale, np.float32(0))

    def distance(self, cosine: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.maximum(1.0 - cosine, 0.0) * np.float32(self.stretch), dtype=np.float32)

    def same(self, alike: Alike, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """What `alike` says of the thumbnails of each pair a, b."""
        starts = range(0, len(a), GATHER)
        parts = [[self.thumbnails[self.rows[rows[s : s + GATHER]]] for rows in (a, b)] for s in starts]
        return np.concatenate([np.zeros(0, bool), *(alike(*part) for part in parts)])

    def same_inside(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each pair a, b of which one is framed agrees inside the frame too, and there is something to see."""
        agree = np.ones(len(a), dtype=bool)
        for start in range(0, len(a), GATHER):
            i, j = a[start : start + GATHER], b[start : start + GATHER]
            framed, inside = within_frames(self.thumbnails[self.rows[i]], self.thumbnails[self.rows[j]])
            distance = self.distance(np.einsum("pf,pf->p", self.unit(i), self.unit(j)))
            agree[start : start + GATHER] = ~framed | (inside > 0) & (distance * (1 - inside) <= LOOSE_PRODUCT)
        return agree


def _near_pairs(keys: _Keys, n: int, search: Callable[[_Keys], Iterable[Pairs]]) -> Pairs:
    """All pairs up to LOOSE_PRODUCT with their product of distances; within buckets where there are too many images."""
    if n <= SEARCH_ALL:
        return _join(search(keys))
    found = []
    for rows in _buckets(keys, n):
        here = keys.take(rows)
        a, b, product = _join(search(here))
        found.append((rows[a], rows[b], product))
    return _join(found)


def _second_look(keys: _Keys, look: Look | None) -> Pairs:
    """Pairs that a second look finds alike; where that is so of too many, look-alikes are the rule: a lower limit."""
    if look is None or len(keys.scale) < 2:
        return _join(())

    def search(here: _Keys) -> list[Pairs]:
        pairs = second_look.candidates(here.unit(slice(None)), here.stretch)
        pairs, product = second_look.looked_at(pairs, here.thumbnails, here.rows, look)
        return [(pairs.a, pairs.b, product * np.float32(NEAR_PRODUCT / second_look.DETAIL))]

    a, b, product = pairs = _near_pairs(keys, len(keys.scale), search)
    near = product <= _limit(len(keys.scale), pairs, second_look.LARGEST_SET, second_look.CROWDED)
    return a[near], b[near], product[near]


def _buckets(keys: _Keys, n: int) -> Iterator[NDArray[np.int64]]:
    """Rows by the closest of n / BUCKET pivot images, evenly spaced in hash order: random, but always the same."""
    pivots = np.linspace(0, n - 1, -(-n // BUCKET)).astype(np.int64)
    pivot = keys.unit(pivots)
    closest = np.concatenate(
        [np.argmax(keys.unit(slice(s, s + GATHER)) @ pivot.T, axis=1) for s in range(0, n, GATHER)]
    )
    for bucket in range(len(pivots)):
        rows = np.flatnonzero(closest == bucket)
        for start in range(0, len(rows), SEARCH_ALL):
            yield rows[start : start + SEARCH_ALL]


def _join(parts: Iterable[Pairs]) -> Pairs:
    kept = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)), *parts]
    return (
        np.concatenate([p[0] for p in kept]),
        np.concatenate([p[1] for p in kept]),
        np.concatenate([p[2] for p in kept]),
    )


def _search(keys: _Keys) -> Iterator[Pairs]:
    """Near pairs a < b, tile by tile of all pairs that may agree, on every processor: thumbnails first, screened in few
    coordinates, features only of the pairs that are left."""
    screen = _screen(keys)
    angle = np.arcsin(np.clip(screen[:, SCREEN - 1], -1, 1))  # two thumbnails agree no better than its cosine tells
    order = np.argsort(angle, kind="stable")
    screen, angle = screen[order], angle[order]

    def search(top: int) -> Pairs:
        rows = slice(top, min(len(order), top + TILE[0]))
        tiles = []
        end = int(np.searchsorted(angle, angle[rows.stop - 1] + REACH, side="right"))
        for left in range(top, end, TILE[1]):
            columns = slice(left, min(len(order), left + TILE[1]))
            most = screen[rows] @ screen[columns].T
            found = np.flatnonzero(most >= LOWEST_CORRELATION - SLACK)  # flat: 30 times faster than in two dimensions
            if len(found) > DENSE * most.size:
                tiles.append(_confirm_tile(keys, order[rows], order[columns], left - top))
            elif len(found):
                a, b = np.divmod(found, most.shape[1])
                later = b + left > a + top
                tiles.append(_confirm(keys, order[a[later] + top], order[b[later] + left]))
        a, b, product = _closest(_join(tiles))
        return np.minimum(a, b), np.maximum(a, b), product

    with ThreadPoolExecutor(n_cores()) as pool:
        yield from pool.map(search, range(0, len(order), TILE[0]))


def _screen(keys: _Keys) -> NDArray[np.float32]:
    """(image, SCREEN + 2), of which the product of two rows is never below the correlation of the two thumbnails: the
    coordinates in which the even parts vary most, and the lengths of what they leave out and of the odd part (Cauchy
    and Schwarz)."""
    _, axes = np.linalg.eigh(keys.even.T @ keys.even)
    inside = keys.even @ axes[:, -SCREEN:]
    left_out = np.sqrt(np.maximum((keys.even**2).sum(axis=1) - (inside**2).sum(axis=1), 0))
    return np.column_stack([inside, left_out, np.sqrt((keys.odd**2).sum(axis=1))]).astype(np.float32)


def _confirm(keys: _Keys, a: NDArray[np.int64], b: NDArray[np.int64]) -> Pairs:
    """Of pairs whose thumbnails may agree, those whose thumbnails do, and whose features agree as well."""
    kept = []
    for start in range(0, len(a), GATHER):
        i, j = a[start : start + GATHER], b[start : start + GATHER]
        correlation = np.einsum("pf,pf->p", keys.even[i], keys.even[j])
        correlation += np.abs(np.einsum("pf,pf->p", keys.odd[i], keys.odd[j]))
        alike = correlation >= LOWEST_CORRELATION
        i, j, correlation = i[alike], j[alike], correlation[alike]
        distance = keys.distance(np.einsum("pf,pf->p", keys.unit(i), keys.unit(j)))
        product = distance * np.maximum(1.0 - correlation, 0)
        near = (distance <= LARGEST_DISTANCE) & (product <= LOOSE_PRODUCT)
        kept.append((i[near], j[near], product[near]))
    return _closest(_join(kept))


def _confirm_tile(keys: _Keys, rows: NDArray[np.int64], columns: NDArray[np.int64], ahead: int) -> Pairs:
    """The same for a tile where many thumbnails agree: all its features are compared, the closest few kept. `ahead`: by
    how many images the first column comes after the first row."""
    correlation = keys.even[rows] @ keys.even[columns].T
    correlation += np.abs(keys.odd[rows] @ keys.odd[columns].T)
    distance = keys.distance(keys.unit(rows) @ keys.unit(columns).T)
    product = distance * np.maximum(1.0 - correlation, 0)
    later = np.arange(len(columns)) + ahead > np.arange(len(rows))[:, None]
    near = (correlation >= LOWEST_CORRELATION) & (distance <= LARGEST_DISTANCE) & (product <= LOOSE_PRODUCT) & later
    product[~near] = np.inf
    width = min(NEIGHBOURS, product.shape[1])
    b = np.argpartition(product, width - 1, axis=1)[:, :width]
    a = np.repeat(np.arange(len(product)), width)
    b = b.ravel()
    kept = product[a, b]
    fine = np.isfinite(kept)
    return rows[a[fine]], columns[b[fine]], kept[fine]


def _closest(pairs: Pairs) -> Pairs:
    """The NEIGHBOURS closest partners b of each a."""
    a, b, product = pairs
    order = np.lexsort((b, product, a))
    a = a[order]
    rank = np.arange(len(a)) - np.searchsorted(a, a, side="left")
    order = order[rank < NEIGHBOURS]
    return pairs[0][order], b[order], product[order]


def _connected(n: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Component number of each of n nodes joined by the edges a - b."""
    if not len(a):
        return np.arange(n, dtype=np.int64)
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(a), dtype=np.int8), (a, b)), shape=(n, n))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


def _components(keys: _Keys, pairs: Pairs, seen_again: Pairs) -> list[list[int]]:
    """Sets of images joined by near pairs, without chains.

    A resembles B and B resembles C does not make A resemble C: in data of one kind (digits, frames of one camera) such
    chains can tie a whole class together, which no split could then use. Where many of the images hang together in such
    chains look-alikes are the rule, and `_limit` is lower. Else a set of more than max(10, 2 %) of the images is taken
    apart and joined again by pairs at a tenth of the limit; what is still more than max(20, 10 %) is not tied at all.
    seen_again: pairs of a second look, whose limit is kept already.
    """
    (a, b, product), n = pairs, len(keys.scale)
    most, most_strict = (max(few, int(share * n)) for few, share in (LARGEST_SET, LARGEST_STRICT_SET))
    limit = _limit(n, pairs, most)
    if limit == NEAR_PRODUCT:
        product = np.where(keys.same(same_pixels, a, b), product / 10, product)
    near = np.flatnonzero(product <= limit)
    near = near[keys.same_inside(a[near], b[near])]
    a, b, product = a[near], b[near], product[near]
    if limit < NEAR_PRODUCT:
        same = keys.same(same_colours, a, b)
        a, b, product = a[same], b[same], product[same]
    a, b, product = _join([(a, b, product), seen_again])
    sets, large = _sized(n, a, b, lambda size: size <= most)
    strict = large[a] & (product <= limit / 10)
    tight, _ = _sized(n, a[strict], b[strict], lambda size: size <= most_strict)
    return sets + tight


def _limit(n: int, pairs: Pairs, most: int, crowded: float = CROWDED) -> float:
    """The largest product of a near copy: NEAR_PRODUCT, or a tenth, a hundredth ... of it, so that at ten times the
    limit few images hang together in chains of more than `most`."""
    a, b, product = pairs
    limit = NEAR_PRODUCT
    while limit > LEAST_PRODUCT:
        near = product <= 10 * limit
        _, chained = _sized(n, a[near], b[near], lambda size: size <= most)
        if chained.mean() < crowded:
            break
        limit /= 10
    return limit


def _sized(
    n: int, a: NDArray[np.int64], b: NDArray[np.int64], fits: Callable[[int], bool]
) -> tuple[list[list[int]], NDArray[np.bool_]]:
    """The components of two or more nodes that fit, and which nodes stand in one that does not (n,)."""
    component = _connected(n, a, b)
    inside = np.zeros(n, dtype=bool)
    inside[a] = inside[b] = True
    nodes = np.flatnonzero(inside)
    order = nodes[np.argsort(component[nodes], kind="stable")]
    cuts = np.flatnonzero(np.diff(component[order])) + 1
    sets, large = [], np.zeros(n, dtype=bool)
    for rows in np.split(order, cuts) if len(order) else []:
        if fits(len(rows)):
            sets.append(rows.tolist())
        else:
            large[rows] = True
    return sets, large
