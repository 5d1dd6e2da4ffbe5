"""A few of the images that taught a model, kept with it: what later images are compared with.

In the saved model they are `reference.safetensors`, of which `reference` (row, feature) float16 holds their features as
the network gave them, of one block: the pre-logits where the head reads them, else the deepest that it reads. Rows
are images that taught, one of each group, drawn with the seed from the classes in turn: at most MOST, and 1 MiB where
that leaves LEAST. `placed` (row,) float32 is what the model answers for each when it is left out: the number of its
class or likeliest label, or its first value. `image` (row,) int32 numbers them among the rows of split.parquet; models
of before lack it. Whatever else is made of the training images for later may take these
rows; models of before have none, and are silent.

Whether new images look different (`shift`) is the test of `apart`, among images that get the same answer: a folder of
ants alone is no other kind of picture to a model of ants and bees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.heads.apart import Apart, apart
from headstart.heads.material import Blocks, Ints
from headstart.heads.taps import LAST, Part

MOST = 512  # images
MOST_BYTES = 2**20  # of features in float16: 1,280 of the default network leave 409 images
LEAST = 128  # images, however wide the features are
WIDEST = 8192  # features: wider ones are maps of a layer, of which 128 images would be larger than many a network
ENOUGH = 50  # images of which it is worth saying that they look different
SAMPLED = 2000  # images of which features are kept for the comparison, however many there are
BINS = 4  # of measured values: images are compared with those of about the same value
ROWS, PLACED, IMAGES = "reference", "placed", "image"  # the names of the tensors


@dataclass(frozen=True, eq=False)
class Reference:
    """`rows` (row, feature) float16 of `block`; `placed` (row,) float32; `images` (row,) int32, their numbers in the
    model's split, None where they are not known."""

    block: str
    rows: npt.NDArray[np.float16]
    placed: npt.NDArray[np.float32]
    images: npt.NDArray[np.int32] | None = None

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """As they are saved."""
        known = {} if self.images is None else {IMAGES: self.images}
        return {ROWS: self.rows, PLACED: self.placed, **known}


def block_of(parts: tuple[Part, ...]) -> str:
    """The block that is kept, of those that a head reads."""
    return LAST if LAST in {part.block for part in parts} else parts[-1].block


def drawn(blocks: Blocks, block: str, rows: Ints, placed: npt.NDArray[np.floating], groups: Ints, seed: int) -> Ints:
    """Places in `rows` (row,) of the images that are kept, in increasing order. placed, groups (row,)."""
    width = blocks[block].shape[1]
    most = min(MOST, max(LEAST, MOST_BYTES // (2 * width)))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    order = order[np.sort(np.unique(groups[order], return_index=True)[1])]
    strata = placed[order]
    turn = np.zeros(len(order), dtype=np.int64)
    if np.array_equal(strata, np.rint(strata)):  # classes: in turn
        for one in np.unique(strata):
            mine = strata == one
            turn[mine] = np.arange(mine.sum())
    return np.sort(order[np.argsort(turn, kind="stable")[:most]])


def reference_of(
    blocks: Blocks, block: str, rows: Ints, placed: npt.NDArray[np.floating], groups: Ints, seed: int
) -> Reference | None:
    """What is kept of the images `rows` (row,) of the blocks that taught; None where there are too few to compare.

    placed (row,): see above, NaN for images that were not left out. groups (row,).
    """
    known = np.flatnonzero(np.isfinite(placed))
    if len(known) < ENOUGH or blocks[block].shape[1] > WIDEST:
        return None
    kept = known[drawn(blocks, block, rows[known], placed[known], groups[known], seed)]
    values = np.asarray(blocks[block][rows[kept]], dtype=np.float16)
    return Reference(block, values, placed[kept].astype(np.float32), rows[kept].astype(np.int32))


def read(tensors: Mapping[str, npt.NDArray[np.generic]], block: str, width: int) -> Reference:
    """As they were saved. Raises ValueError or KeyError where they do not fit the network."""
    rows, placed = tensors[ROWS], tensors[PLACED]
    if rows.ndim != 2 or rows.shape[1] != width or placed.shape != rows.shape[:1]:
        raise ValueError(f"its reference has the shapes {rows.shape} and {placed.shape}, needed: (row, {width})")
    images = tensors.get(IMAGES)
    if images is not None and (images.shape != rows.shape[:1] or images.dtype.kind != "i" or images.min(initial=0) < 0):
        raise ValueError(f"its reference numbers images in the shape {images.shape}, needed: ({len(rows)},)")
    known = None if images is None else images.astype(np.int32)
    return Reference(block, rows.astype(np.float16), placed.astype(np.float32), known)


def nearest(
    x: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], most: int
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """(places (image, most) in `rows`, cosines (image, most)) of the rows (row, feature) that are most like x (image,
    feature), the likest first; all of them where there are fewer."""
    cosines = _unit(x) @ _unit(rows).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
    return order, np.take_along_axis(cosines, order, axis=1)


def _unit(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)


def placed_by(answers: npt.NDArray[np.floating], task: str) -> npt.NDArray[np.float64]:
    """(image,): what images are compared by, of the model's answers (image, output, ...); NaN where there are none."""
    first = answers.reshape(*answers.shape[:2], -1)[:, :, 0].astype(np.float64)
    known = np.asarray(np.isfinite(first).all(axis=1))
    if task == "recognise":  # new people are the rule: there is nothing to compare by
        return np.where(known, 0.0, np.nan)
    found = first[:, 0] if task == "regress" else np.nan_to_num(first).argmax(axis=1)
    return np.where(known, found, np.nan)


def shift(kept: Reference, blocks: Blocks, placed: npt.NDArray[np.floating], seed: int = 0) -> Apart | None:
    """How well these images can be told from those that taught; None where there are too few to say.

    blocks: block -> (image, feature); placed (image,), of the same images.
    """
    if kept.block not in blocks or len(placed) < ENOUGH:
        return None
    new = np.asarray(blocks[kept.block], dtype=np.float16)
    values = np.concatenate([kept.placed.astype(np.float64), placed.astype(np.float64)])
    strata = _strata(values, kept.placed)
    joined = np.concatenate([kept.rows, new])
    n = len(kept.rows)
    here, there = np.arange(n), np.arange(n, len(joined))
    return apart(lambda rows: {LAST: joined[rows]}, here, there, strata, np.arange(len(joined)), seed)


@dataclass(frozen=True, eq=False)
class Sample:
    """Some images of those that are asked about: `rows` (row,) int64, their numbers; `values` (row, feature) float16;
    `placed` (row,) float64, see `placed_by`."""

    rows: Ints
    values: npt.NDArray[np.float16]
    placed: npt.NDArray[np.float64]


@dataclass(eq=False)
class Sampled:
    """Features of some of `n` images, evenly drawn, gathered as they come."""

    kept: Reference
    n: int

    def __post_init__(self) -> None:
        self.chosen = np.random.default_rng(0).permutation(self.n)[:SAMPLED] if self.n >= ENOUGH else np.arange(0)
        self.parts: list[Sample] = []

    def of(self, rows: Ints, blocks: Blocks, placed: npt.NDArray[np.float64]) -> Sample:
        """Those of these rows (row,) that were drawn. blocks: block -> (row, feature); placed (row,)."""
        mine = np.flatnonzero(np.isin(rows, self.chosen))
        return Sample(rows[mine], np.asarray(blocks[self.kept.block][mine], dtype=np.float16), placed[mine])

    def add(self, some: Sample) -> None:
        if len(some.rows):
            self.parts.append(some)

    def shift(self) -> Apart | None:
        """See `shift`. The order in which the images came does not matter."""
        if sum(len(part.rows) for part in self.parts) < ENOUGH:
            return None
        order = np.argsort(np.concatenate([part.rows for part in self.parts]))
        values, placed = (np.concatenate([getattr(p, of) for p in self.parts])[order] for of in ("values", "placed"))
        return shift(self.kept, {self.kept.block: values}, placed)


def _strata(values: npt.NDArray[np.float64], known: npt.NDArray[np.float32]) -> Ints:
    """Numbers (image,) of what is alike in `values` (image,): equal, or where they are measured of about the same size
    among those `known` (row,)."""
    if np.array_equal(known, np.rint(known)) and np.array_equal(values, np.rint(values)):
        return values.astype(np.int64)
    edges = np.quantile(known.astype(np.float64), np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, values).astype(np.int64)
