"""How a decoder learns from stored maps and masks, alone or with the part of the trunk above a cut.

A step reads some images' maps, of the picture as it is or mirrored (each a pass of the trunk of its own: a mirrored map
is not the mirrored picture's), and asks the logits at some pixels, read bilinearly, at the mask's own fineness: thin
things are thinner than a cell. The pixels are drawn as the closed form draws them, of each class about the root of how
many there are, so that cross-entropy weighs classes by their frequency to the power -1/2; a soft Jaccard index (Rahman
and Wang 2016), in which each pixel counts for those it stands for, is added. The schedule is that of `paced.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812, its usual name

from headstart.data.placing import VOID
from headstart.errors import DataError
from headstart.finetune.arithmetic import BF16, CHANNELS_LAST, memory_kept, numbers, prepare
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.design import Arithmetic, Bar, no_bar
from headstart.finetune.paced import Clock, Pace, Paced
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints
from headstart.heads.pointwise import MaskOf, Rng

POINTS = 4096  # pixels of an image and step: 6 % of the time of a step
JACCARD = 1.0  # weight of the soft Jaccard index beside cross-entropy: both are about 1 at the start
Batch = tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]  # maps, places, classes, worth
Points = tuple[npt.NDArray[np.float32], Ints, npt.NDArray[np.float32]]  # places, classes, worth of one image
Groups = list[tuple[float, list[nn.Parameter]]]  # share of the peak rate, parameters
Fetch = Callable[[Ints, Ints, Rng], list[torch.Tensor]]  # rows, views -> maps, each (image, channel, height, width)


@dataclass(frozen=True)
class Decoding:
    """How long and in which steps. `seconds` of training, or `epochs` (times that each image is seen), of which one is
    given."""

    seconds: float | None = None
    epochs: int | None = None
    batch: int = 4  # images
    rate: float = 3e-3  # peak, of AdamW
    warm_up: float = 0.1  # share of the time
    weight_decay: float = 1e-3
    average: float = 0.99  # decay of the moving average of the weights, a step, once there were many
    linear: float = 0.1  # share of the rate for the part that starts from the closed form
    bf16: bool = True  # where the processor has it

    def pace(self, clock: Clock) -> Pace:
        return Pace(
            epochs=self.epochs or 1,
            seconds=self.seconds,
            clock=clock,
            batch=self.batch,
            rate=self.rate,
            warm_up=self.warm_up,
            weight_decay=self.weight_decay,
            average=self.average,
            clip=math.inf,
        )

    @property
    def arithmetic(self) -> Arithmetic:
        able = self.bf16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return BF16 if able else CHANNELS_LAST


@dataclass(frozen=True)
class Learned:
    """What became of it: `epochs` seen, `seconds` used, and the mean loss of each epoch."""

    epochs: float
    seconds: float
    losses: tuple[float, ...]


def stored_maps(views: Sequence[Blocks], maps: Sequence[Layer]) -> Fetch:
    """Maps of the store. views: blocks of the pictures as they are, then of them mirrored."""

    def fetch(rows: Ints, of: Ints, rng: Rng) -> list[torch.Tensor]:
        found = []
        for layer in maps:
            x = np.empty((len(rows), *layer.shape), np.float16)
            for k, (row, view) in enumerate(zip(rows, of, strict=True)):
                x[k] = views[view][layer.block][row].reshape(layer.shape)
            found.append(torch.from_numpy(x).float().contiguous(memory_format=torch.channels_last))
        return found

    return fetch


def masks_at(mask_of: MaskOf, n_images: int, size: tuple[int, int], rows: Ints) -> npt.NDArray[np.uint8]:
    """(image, height, width) class numbers at a size in px: those of the pixels at the centres; VOID of other rows."""
    found = np.full((n_images, *size), VOID, np.uint8)
    for row in map(int, rows):
        mask = mask_of(row)
        y, x = (((np.arange(n) + 0.5) * have / n).astype(np.intp) for n, have in zip(size, mask.shape, strict=True))
        found[row] = mask[y[:, None], x]
    return found


def points_in(mask: npt.NDArray[np.uint8], n_classes: int, rng: Rng) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    """(places in the flat mask, classes, worth (POINTS,)): drawn with replacement, of each class about as many as the
    root of its pixels; worth: the share of the known pixels that each stands for. All VOID where nothing is known."""
    order = np.argsort(mask, axis=None, kind="stable")
    counts = np.bincount(mask.ravel(), minlength=VOID + 1)[:n_classes]
    if not counts.any():
        return np.zeros(POINTS, np.int64), np.full(POINTS, VOID), np.zeros(POINTS, np.float32)
    chance = np.sqrt(counts) / np.sqrt(counts).sum()
    kinds = np.sort(rng.choice(n_classes, POINTS, p=chance))
    starts = np.cumsum(counts) - counts
    place = order[starts[kinds] + (rng.random(POINTS) * counts[kinds]).astype(np.int64)]
    worth = counts[kinds] / counts.sum() / (POINTS * chance[kinds])
    return place, kinds, worth.astype(np.float32)


def loss_of(logits: torch.Tensor, at: torch.Tensor, classes: torch.Tensor, worth: torch.Tensor) -> torch.Tensor:
    """Of logits (image, class, height, width); at (image, point, 2): x and y from -1 to 1; classes, worth (image,
    point)."""
    read = F.grid_sample(logits.float(), at[:, None], mode="bilinear", padding_mode="border", align_corners=False)
    scores = read[:, :, 0].permute(0, 2, 1).flatten(0, 1)  # (point, class)
    y, known = classes.flatten(), classes.flatten() != VOID
    if not bool(known.any()):
        return scores.sum() * 0.0
    scores, y, w = scores[known], y[known], worth.flatten()[known][:, None]
    logs = scores.log_softmax(dim=1)
    p, one = logs.exp(), F.one_hot(y, scores.shape[1]).float()
    both, whole = (w * p * one).sum(dim=0), (w * (p + one - p * one)).sum(dim=0)
    there = (w * one).sum(dim=0) > 0
    return F.nll_loss(logs, y) + JACCARD * (1 - both[there] / whole[there]).mean()


class Lesson(Protocol):
    """What `learn` learns from: rows that teach, each in one of `n_views` views; `batch(rows, views, rng)`."""

    @property
    def rows(self) -> Ints: ...

    @property
    def n_views(self) -> int: ...

    def batch(self, rows: Ints, views: Ints, rng: Rng) -> Batch: ...


@dataclass(eq=False)
class Teaching:
    """Stored maps and masks: `fetch`: maps of rows and views; `masks` (row, height, width); `rows` that teach;
    `n_views`: 2 where mirrored maps are at hand. Raises DataError where there is nothing to learn from."""

    fetch: Fetch
    masks: npt.NDArray[np.uint8]
    rows: Ints
    n_views: int
    n_classes: int

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise DataError("no image with a mask is left to learn from: give more images")

    def batch(self, rows: Ints, views: Ints, rng: Rng) -> Batch:
        """Of these rows: the mask is mirrored where the view is."""
        drawn = []
        for row, view in zip(rows, views, strict=True):
            at, kinds, worth = points_at(self.masks[row], self.n_classes, rng)
            drawn.append((at * np.array([-1 if view else 1, 1], np.float32), kinds, worth))
        return as_batch(self.fetch(rows, views, rng), drawn)


def points_at(mask: npt.NDArray[np.uint8], n_classes: int, rng: Rng) -> Points:
    """As `points_in`, the places as x and y from -1 to 1, (POINTS, 2)."""
    place, kinds, worth = points_in(mask, n_classes, rng)
    y, x = np.divmod(place, mask.shape[1])
    at = np.stack([(2 * x + 1) / mask.shape[1] - 1, (2 * y + 1) / mask.shape[0] - 1], axis=1)
    return at.astype(np.float32), kinds, worth


def as_batch(maps: list[torch.Tensor], points: Sequence[Points]) -> Batch:
    """Of maps and the points of each image."""
    at, kinds, worth = (torch.from_numpy(np.stack(part)) for part in zip(*points, strict=True))
    return maps, at, kinds, worth


def learn(  # noqa: PLR0913 - what learns, from what, how; the rest is who watches and where it goes on
    module: nn.Module,
    groups: Groups,
    teaching: Lesson,
    how: Decoding,
    *,
    seed: int = 0,
    frozen_statistics: nn.Module | None = None,
    clock: Clock = time.monotonic,
    checkpoint: Checkpoint | None = None,
    bar: Bar = no_bar,
) -> tuple[nn.Module, Learned]:
    """The module with the moving average of its weights, in evaluation mode, and what became of it.

    With `epochs` the same seed gives the same bits on the same machine; with `seconds` of `clock` as many steps as
    there is time for. `frozen_statistics`: a part whose BatchNorm keeps its statistics. A training that was killed goes
    on from its checkpoint. Raises DataError where the loss is no number.
    """
    prepared = prepare(module, how.arithmetic)
    paced = Paced(
        prepared,
        how.pace(clock),
        len(teaching.rows),
        seed=seed,
        groups=groups,
        frozen=frozen_statistics,
        checkpoint=checkpoint,
    )
    move = _moving(bar("training", 1000))
    with memory_kept(), ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
        ahead = _Ahead(teaching, paced, pool)

        def step(some: npt.NDArray[np.integer], epoch: int, batch: int) -> torch.Tensor:
            move(paced.done)
            maps, at, classes, worth = ahead.taken(paced.step)
            with numbers(how.arithmetic, "cpu"):
                logits = prepared(maps)
            loss = loss_of(logits, at, classes, worth)
            if not math.isfinite(float(loss.detach())):
                raise DataError("the decoder did not learn: its loss is no number; try a lower rate, or --tune none")
            return loss

        kept = paced.run(step)
    move(1.0)
    return kept, Learned(paced.step / paced.batches, paced.spent, tuple(one.loss for one in paced.passed))


def _moving(done: Callable[[int], None]) -> Callable[[float], None]:
    """Moves a bar of a thousand parts to a share."""
    shown = [0]

    def move(share: float) -> None:
        now = min(1000, int(1000 * share))
        done(now - shown[0])
        shown[0] = now

    return move


class _Ahead:
    """Batches by the number of their step, each row in one of its views: the next is made while one is learned from."""

    def __init__(self, teaching: Lesson, paced: Paced, pool: ThreadPoolExecutor) -> None:
        self.teaching, self.paced, self.pool = teaching, paced, pool
        self.coming: tuple[int, Future[Batch]] | None = None

    def taken(self, step: int) -> Batch:
        number, future = self.coming or (step, self.pool.submit(self._made, step))
        assert number == step
        found = future.result()
        self.coming = step + 1, self.pool.submit(self._made, step + 1)
        return found

    def _made(self, step: int) -> Batch:
        rng = np.random.default_rng((self.paced.seed, *divmod(step, self.paced.batches)))
        rows = self.teaching.rows[self.paced.drawn(step)]
        return self.teaching.batch(rows, rng.integers(0, self.teaching.n_views, len(rows)), rng)
