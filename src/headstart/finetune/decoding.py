"""How a decoder learns from stored maps and masks, alone or with the part of the trunk above a cut.

A step reads some images' maps, of the picture as it is or mirrored (each a pass of the trunk of its own: a mirrored map
is not the mirrored picture's), and asks the logits at some pixels, read bilinearly, at the mask's own fineness: thin
things are thinner than a cell. The pixels are drawn as the closed form draws them, of each class about the root of how
many there are, so that cross-entropy weighs classes by their frequency to the power -1/2; a soft Jaccard index (Rahman
and Wang 2016), in which each pixel counts for those it stands for, is added. The rate follows one cycle of the time, or
of the steps, that the training has, so that it ends with a finished schedule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812, its usual name
from torch.optim.swa_utils import AveragedModel

from headstart.data.placing import VOID
from headstart.errors import DataError
from headstart.finetune.arithmetic import BF16, CHANNELS_LAST, memory_kept, numbers, prepare
from headstart.finetune.checkpoint import Checkpoint, State, named, under
from headstart.finetune.design import Arithmetic, Bar, no_bar
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints
from headstart.heads.pointwise import MaskOf, Rng

POINTS = 4096  # pixels of an image and step: 6 % of the time of a step
JACCARD = 1.0  # weight of the soft Jaccard index beside cross-entropy: both are about 1 at the start
Batch = tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]  # maps, places, classes, worth
Points = tuple[npt.NDArray[np.float32], Ints, npt.NDArray[np.float32]]  # places, classes, worth of one image
Groups = list[tuple[float, list[nn.Parameter]]]  # share of the peak rate, parameters
Fetch = Callable[[Ints, Ints, Rng], list[torch.Tensor]]  # rows, views -> maps, each (image, channel, height, width)
Clock = Callable[[], float]


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
    frozen_statistics: Sequence[nn.Module] = (),
    clock: Clock = time.monotonic,
    checkpoint: Checkpoint | None = None,
    bar: Bar = no_bar,
) -> tuple[nn.Module, Learned]:
    """The module with the moving average of its weights, in evaluation mode, and what became of it.

    With `epochs` the same seed gives the same bits on the same machine; with `seconds` of `clock` as many steps as
    there is time for. `frozen_statistics`: parts whose BatchNorm keeps its statistics. A training that was killed goes
    on from its checkpoint. Raises DataError where the loss is no number.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(memory_kept())
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="fetch"))
        torch.default_generator.manual_seed(seed)  # of dropout
        run = _Run(module, groups, how, tuple(frozen_statistics))
        saved = checkpoint.load() if checkpoint else None
        if saved is not None:
            run.restore(saved)
        per_epoch = math.ceil(len(teaching.rows) / how.batch)
        run.to_the_end(_batches(teaching, how, seed, run.step), per_epoch, pool, clock, checkpoint, bar)
    kept = run.average.module.eval().requires_grad_(False)
    return kept, Learned(run.step / per_epoch, run.elapsed, tuple(run.losses))


def moving(most: float) -> Callable[[Any, Any, Any], None]:
    """A moving average whose decay rises with the steps to `most`, so that it forgets where it began, however short the
    training; numbers that count are taken as they are."""

    @torch.no_grad()
    def move(averaged: Any, current: Any, steps: Any) -> None:
        decay = min(most, (1 + int(steps)) / (10 + int(steps)))
        for own, other in zip(averaged, current, strict=True):
            own.lerp_(other, 1 - decay) if own.is_floating_point() else own.copy_(other)

    return move


def one_cycle_at(share: float, warm_up: float) -> float:
    """Share of the peak rate when so much of a training is over: a straight rise, then half a cosine (Smith 2018)."""
    if share < warm_up:
        return (share + 1e-3) / (warm_up + 1e-3)
    return 0.5 + 0.5 * math.cos(math.pi * (share - warm_up) / (1 - warm_up))


def _batches(teaching: Lesson, how: Decoding, seed: int, skip: int) -> Iterator[Callable[[], Batch]]:
    """Without end: in each epoch every row once, in an order of its own, as it is or mirrored, without the first
    `skip`."""
    per_epoch = math.ceil(len(teaching.rows) / how.batch)
    epoch, first = divmod(skip, per_epoch)
    while True:
        rng = np.random.default_rng((seed, epoch))
        order, views = rng.permutation(teaching.rows), rng.integers(0, teaching.n_views, len(teaching.rows))
        for k in range(first, per_epoch):
            here = slice(k * how.batch, (k + 1) * how.batch)
            own = np.random.default_rng((seed, epoch, k))
            yield lambda rows=order[here], of=views[here], own=own: teaching.batch(rows, of, own)  # type: ignore[misc]
        epoch, first = epoch + 1, 0


class _Run:
    """A training: the module, its optimiser and moving average, and where it is."""

    def __init__(self, module: nn.Module, groups: Groups, how: Decoding, frozen: tuple[nn.Module, ...]) -> None:
        self.how, self.frozen = how, frozen
        self.module = prepare(module, how.arithmetic)
        settings = []
        for share, parameters in groups:
            for flat, decay in ((False, how.weight_decay), (True, 0.0)):
                some = [p for p in parameters if p.requires_grad and (p.ndim <= 1) == flat]
                settings += [{"params": some, "weight_decay": decay, "peak": how.rate * share}] if some else []
        self.optimizer = torch.optim.AdamW(settings, how.rate, fused=True)
        self.average = AveragedModel(self.module, multi_avg_fn=moving(how.average), use_buffers=True)
        self.step, self.elapsed, self.total = 0, 0.0, 0.0
        self.losses: list[float] = []

    def to_the_end(
        self,
        batches: Iterator[Callable[[], Batch]],
        per_epoch: int,
        pool: ThreadPoolExecutor,
        clock: Clock,
        checkpoint: Checkpoint | None,
        bar: Bar,
    ) -> None:
        """Steps until the time, or the epochs, are over."""
        self.module.train()
        for part in self.frozen:
            for layer in part.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        done = bar("training", 1000)
        shown, start, before = 0, clock(), self.elapsed
        coming = pool.submit(next(batches))
        while (share := self._share(per_epoch)) < 1:
            batch, coming = coming.result(), pool.submit(next(batches))
            self._learn(batch, share)
            self.elapsed = before + clock() - start
            if self.step % per_epoch == 0:
                self.losses.append(self.total / per_epoch)
                self.total = 0.0
            if checkpoint and checkpoint.due:
                checkpoint.save(*self.state())
            now = min(1000, int(1000 * self._share(per_epoch)))
            done(now - shown)
            shown = now
        coming.cancel()
        if checkpoint:
            checkpoint.save(*self.state())
        if checkpoint:  # of a training that has ended: it is not done again
            checkpoint.save(*self.state())

    def _share(self, per_epoch: int) -> float:
        """How much of the training is over."""
        if self.how.epochs is not None:
            return self.step / (self.how.epochs * per_epoch)
        assert self.how.seconds is not None
        return self.elapsed / self.how.seconds

    def _learn(self, batch: Batch, share: float) -> None:
        cycle = one_cycle_at(share, self.how.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * cycle
        maps, at, classes, worth = batch
        self.optimizer.zero_grad(set_to_none=True)
        with numbers(self.how.arithmetic, "cpu"):
            logits = self.module(maps)
        loss = loss_of(logits, at, classes, worth)
        if not math.isfinite(float(loss.detach())):
            raise DataError("the decoder did not learn: its loss is no number; try a lower rate, or --tune none")
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        self.total += float(loss.detach())
        self.average.update_parameters(self.module)

    def state(self) -> State:
        """All that it needs to go on, bit for bit."""
        tensors = named("module", self.module.state_dict()) | named("average", self.average.state_dict())
        tensors["random"] = torch.get_rng_state()
        for k, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{k}.{name}"] = torch.as_tensor(value)
        record = {"step": self.step, "elapsed": self.elapsed, "total": self.total, "losses": self.losses}
        return tensors, record

    def restore(self, saved: State) -> None:
        tensors, record = saved
        self.step, self.elapsed = int(record["step"]), float(record["elapsed"])
        self.total, self.losses = float(record["total"]), [*record["losses"]]
        self.module.load_state_dict(under("module", tensors))
        self.average.load_state_dict(under("average", tensors))
        for k, parameter in enumerate(self._parameters()):
            for name, value in under(f"optimizer.{k}", tensors).items():
                # in the memory order of the parameter: another would round differently in its last bit
                like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                self.optimizer.state[parameter][name] = like.detach().copy_(value)
        torch.set_rng_state(tensors["random"])

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
