"""A head of one's own layers, trained on what the frozen trunk said: one pass of the trunk, whatever the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.splits import hold_out
from headstart.errors import OptionError
from headstart.finetune import spec
from headstart.finetune.activations import Activations, Stored
from headstart.finetune.arithmetic import PLAIN, Arithmetic, memory_kept
from headstart.finetune.checkpoint import Checkpoint, named, under
from headstart.finetune.learner import Groups, Learner, batches, kept
from headstart.heads.calibrate import best_scale
from headstart.heads.probe import Blocks, Candidate
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import Part
from headstart.judge.intervals import accuracy_interval
from headstart.recipe import Training

Ints = npt.NDArray[np.integer]
Values = npt.NDArray[np.floating]
# (stage, total) -> called with the number done since the last call
Bar = Callable[[str, int], Callable[[int], None]]
CHUNK = 256  # rows a forward pass in evaluation: 46,000 values each in float32 are 47 MB


def no_bar(stage: str, total: int) -> Callable[[int], None]:
    """Shows nothing."""
    return lambda done: None


@dataclass(frozen=True)
class Design:
    """What head, on which block of features, trained how. `shape`: (channel, height, width), (channel,) if pooled."""

    words: str  # the spec
    layers: tuple[spec.Layer, ...]
    block: str
    shape: tuple[int, ...]
    training: Training
    start: Callable[[Ints], nn.Module] | None = None  # rows to learn from -> a module that has learned before
    groups: Callable[[nn.Module], Groups] | None = None  # of parameters, by learning rate; None: one
    arithmetic: Arithmetic = PLAIN


@dataclass(frozen=True)
class Epoch:
    """One line of the loss curve: mean log-loss, over the epoch's batches and on the held-out images."""

    loss: float
    held_out_loss: float | None
    held_out_accuracy: float | None
    rate: float  # learning rate at its end
    held_out_low: float | None = None  # of the accuracy's 95 % interval
    held_out_high: float | None = None

    @property
    def watched(self) -> float:
        """The loss that stops the training; no number is worse than any."""
        loss = self.loss if self.held_out_loss is None else self.held_out_loss
        return loss if math.isfinite(loss) else math.inf


@dataclass(frozen=True)
class SpecHead:
    """A trained head. `left_out` (image, class): log-probabilities of the training images that were held out to stop
    by, NaN for the others; `candidates` is empty where none were."""

    design: Design
    module: nn.Module
    scale: float  # features are divided by it: their root mean square over the training images
    candidates: tuple[Candidate, ...]
    left_out: Doubles = field(repr=False)
    epochs: tuple[Epoch, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.design.block, root=False, unit=False),)

    def answer(self, examples: Examples, some: Ints) -> Doubles:
        """Log-probabilities (example, class) of some examples as they are."""
        return _answers(self.module, examples, some, self.scale)

    def outputs(self, blocks: Blocks) -> Doubles:
        """(image, class)."""
        stored = Stored(self.design.shape, blocks[self.design.block])
        rows = np.arange(len(stored.values))
        chunks = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]
        read = (torch.from_numpy(stored.still(chunk)).div_(self.scale) for chunk in chunks)
        return np.concatenate([_forward(self.module, x) for x in read])


def check_layers(design: Design | None) -> None:
    """Raises OptionError where the layers cannot follow each other; builds nothing."""
    if design:
        with torch.device("meta"):
            spec.build(design.layers, design.shape, 2, design.words)


@dataclass(frozen=True)
class Examples:
    """What a head learns from: rows (example,) of the activations, y, groups (example,); keys: content hashes.
    `views_seen`: epochs of random views that an earlier training had."""

    activations: Activations
    rows: Ints
    y: Ints
    groups: Ints
    keys: Sequence[str]
    n_classes: int
    views_seen: int = 0

    def still(self, some: Ints, scale: float = 1.0) -> torch.Tensor:
        """These examples as the layers take them, float32: the images as they are."""
        return torch.from_numpy(self.activations.still(self.rows[some])).div_(scale)

    def fetch(self, epoch: int, scale: float) -> Callable[[Ints], tuple[torch.Tensor, torch.Tensor]]:
        """Examples -> (their random views for this epoch, class numbers)."""

        def fetched(some: Ints) -> tuple[torch.Tensor, torch.Tensor]:
            viewed = self.activations.viewed(self.rows[some], self.views_seen + epoch)
            return torch.from_numpy(viewed).div_(scale), torch.from_numpy(self.y[some].astype(np.int64))

        return fetched


def build_head(design: Design, n_classes: int, seed: int = 0) -> nn.Module:
    """The layers with their first weights drawn from `seed`; torch's own random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return spec.build(design.layers, design.shape, n_classes, design.words)


def train_head(
    design: Design,
    examples: Examples,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[Epoch], None] = lambda epoch: None,
    checkpoint: Checkpoint | None = None,
    keep_last: bool = False,
    bar: Bar = no_bar,
) -> SpecHead:
    """Train, stopping by the log-loss of a held-out part.

    Each batch is drawn without replacement from a permutation of `seed`; a last batch of one image joins the one
    before it. The weights kept are those of the best epoch on the held-out part, which nothing else is judged on, or
    with `keep_last` of the last one: where nothing is held out, the least training loss follows what mixup drew. With
    a checkpoint, a training that was killed goes on where it was, and ends the same. `bar` is told of each batch.
    Raises OptionError where the loss is no number.
    """
    how, y = design.training, examples.y
    held = hold_out(y, examples.groups, how.held_out, seed, examples.keys) if how.held_out else np.zeros(len(y), bool)
    rows, stop = np.flatnonzero(~held), np.flatnonzero(held)
    if design.start:
        scale, module = 1.0, design.start(examples.rows[rows]).to(device)
    else:
        scale = _root_mean_square(examples.activations, examples.rows[rows])
        module = build_head(design, examples.n_classes, seed).to(device)
    steps = how.epochs * sum(1 for _ in batches(rows, how.batch_size))
    groups = design.groups(module) if design.groups else None
    with torch.random.fork_rng(devices=[]), memory_kept():
        torch.default_generator.manual_seed(seed)  # of dropout
        learner = Learner(module, how, steps, examples.n_classes, seed, device, design.arithmetic, groups)
        run = _Run(learner, examples, rows, stop, scale, checkpoint, keep_last, bar)
        run.to_the_end(seed, progress)
    if not math.isfinite(run.best):
        raise OptionError(
            f"the head {design.words!r} did not learn: its loss is no number; try another --optimizer, or a lower --lr"
        )
    module.load_state_dict(run.kept)
    module = module.eval().requires_grad_(False)
    left_out = np.full((len(y), examples.n_classes), np.nan)
    if len(stop):
        left_out[stop] = _answers(module, examples, stop, scale)
    accuracy = min(run.epochs, key=lambda epoch: epoch.watched).held_out_accuracy
    layer = design.block.split("/")[0]
    judged = () if accuracy is None else (Candidate(layer, design.words, 0.0, run.best, accuracy, 1.0),)
    return SpecHead(design, module.cpu(), scale, judged, left_out, tuple(run.epochs))


class _Run:
    """The epochs of a training: where it is, and the best weights so far."""

    def __init__(
        self,
        learner: Learner,
        examples: Examples,
        rows: Ints,
        stop: Ints,
        scale: float,
        checkpoint: Checkpoint | None,
        keep_last: bool,
        bar: Bar,
    ) -> None:
        self.learner, self.examples, self.rows, self.stop, self.scale = learner, examples, rows, stop, scale
        self.keep_last, self.bar = keep_last, bar
        self.checkpoint = checkpoint
        self.epochs: list[Epoch] = []
        self.best = math.inf
        self.kept = kept(learner.module)
        self.done, self.total = 0, 0.0  # batches of the present epoch, and the sum of their losses
        self.ended = False

    def to_the_end(self, seed: int, progress: Callable[[Epoch], None]) -> None:
        self._take_up()
        order = np.random.default_rng(seed)
        for number in range(self.learner.how.epochs):
            permuted = order.permutation(self.rows)
            if self.ended:
                break
            if number < len(self.epochs):
                continue
            self._learn(permuted, number)
            progress(self.epochs[-1])
        self.ended = True
        self._save(final=True)

    def _learn(self, order: Ints, number: int) -> None:
        """The rest of an epoch, and what it comes to."""
        how = self.learner.how
        sizes = [len(some) for some in batches(order, how.batch_size)]
        step = self.bar(f"epoch {self.examples.views_seen + number + 1}", len(order))
        step(sum(sizes[: self.done]))
        for loss in self.learner.batches(order, self.examples.fetch(number, self.scale), self.done):
            step(sizes[self.done])
            self.done, self.total = self.done + 1, self.total + loss
            if self.checkpoint and self.checkpoint.due:
                self._save()
        self.epochs.append(self._measured(self.total / len(order)))
        self.done, self.total = 0, 0.0
        watched = [epoch.watched for epoch in self.epochs]
        if self.keep_last or watched[-1] < self.best:
            self.best, self.kept = watched[-1], kept(self.learner.answering)
        else:
            self.ended = len(watched) - 1 - watched.index(min(watched)) >= how.patience

    def _measured(self, loss: float) -> Epoch:
        """The line of the loss curve after an epoch of this mean loss."""
        if not len(self.stop):
            return Epoch(loss, None, None, self.learner.rate)
        found = _answers(self.learner.answering, self.examples, self.stop, self.scale)
        y = self.examples.y[self.stop]
        # smoothing teaches too small a scale, and more so each epoch: then losses at the best scale are compared
        smoothed = self.learner.how.smoothing > 0
        held = best_scale(found, y)[1] if smoothed else float(-found[np.arange(len(y)), y].mean())
        right = accuracy_interval(found.argmax(axis=1) == y, self.examples.groups[self.stop])
        return Epoch(loss, held, right["value"], self.learner.rate, right["low"], right["high"])

    def _save(self, final: bool = False) -> None:
        """The state; of a training that has ended its outcome alone."""
        if self.checkpoint is None:
            return
        tensors, record = ({}, {}) if final else self.learner.state()
        epochs = [asdict(epoch) for epoch in self.epochs]
        more = {"epochs": epochs, "best": self.best, "done": self.done, "total": self.total, "ended": self.ended}
        self.checkpoint.save(tensors | named("kept", self.kept), record | more)

    def _take_up(self) -> None:
        found = self.checkpoint.load() if self.checkpoint else None
        if found is None:
            return
        tensors, record = found
        self.kept = under("kept", tensors)
        self.epochs = [Epoch(**epoch) for epoch in record["epochs"]]
        self.best, self.done, self.total = record["best"], record["done"], record["total"]
        self.ended = record["ended"]
        if "step" in record:
            self.learner.restore(tensors, record)


def _answers(module: nn.Module, examples: Examples, some: Ints, scale: float) -> Doubles:
    """Log-probabilities (example, class) of some examples as they are, without random views."""
    chunks = [some[at : at + CHUNK] for at in range(0, len(some), CHUNK)]
    return np.concatenate([_forward(module, examples.still(chunk, scale)) for chunk in chunks])


def _forward(module: nn.Module, x: torch.Tensor) -> Doubles:
    """Log-probabilities (image, class)."""
    module.eval()
    with torch.inference_mode():
        scores = module(x.to(next(module.parameters()).device))
        return np.asarray(scores.double().log_softmax(dim=1).cpu().numpy())


def _root_mean_square(activations: Activations, rows: Ints) -> float:
    """Over at most 2,000 of the rows: within 1 %, and no second copy of large maps."""
    some = activations.still(rows[:: max(1, len(rows) // 1000)])
    return float(np.sqrt(np.mean(np.square(some)))) or 1.0
