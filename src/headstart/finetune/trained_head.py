"""What is trained step by step: a head of one's own layers on what the frozen trunk said, or the part above a cut.

One pass of the trunk, whatever the epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.splits import hold_out
from headstart.data.targets import Targets
from headstart.errors import OptionError
from headstart.finetune import spec
from headstart.finetune.arithmetic import PLAIN, Arithmetic, memory_kept
from headstart.finetune.at_cut import AtCut, Stored
from headstart.finetune.checkpoint import Checkpoint, named, under
from headstart.finetune.loop import Groups, Loop, batches, kept
from headstart.finetune.objective import Objective, Unit
from headstart.heads.probe import Blocks, Candidate, Link
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import Part
from headstart.judge.intervals import accuracy_interval
from headstart.recipe import Training

Ints = npt.NDArray[np.integer]
Values = npt.NDArray[np.floating]
Batch = tuple[torch.Tensor, torch.Tensor]  # activations, encoded truths
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
    """One line of the loss curve: the mean loss over the epoch's batches and on the held-out images, and the share of
    their answers that is right (None where answers are not right or wrong)."""

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
class TrainedHead:
    """A trained module as a head. `left_out` (image, output): what it says of the training images that were held out to
    stop by, NaN for the others; `candidates` is empty where none were."""

    design: Design
    module: nn.Module
    scale: float  # features are divided by it: their root mean square over the training images
    candidates: tuple[Candidate, ...]
    left_out: Doubles = field(repr=False)
    epochs: tuple[Epoch, ...] = ()
    link: Link = "softmax"

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.design.block, root=False, unit=False),)

    def answer(self, examples: Examples, some: Ints) -> Doubles:
        """Outputs (example, output) of some examples as they are."""
        return _answers(self.module, examples, some, self.scale, self.link)

    def outputs(self, blocks: Blocks) -> Doubles:
        """(image, output)."""
        stored = Stored(self.design.shape, blocks[self.design.block])
        rows = np.arange(len(stored.values))
        chunks = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]
        read = (torch.from_numpy(stored.still(chunk)).div_(self.scale) for chunk in chunks)
        return np.concatenate([_forward(self.module, x, self.link) for x in read])


def check_layers(design: Design | None) -> None:
    """Raises OptionError where the layers cannot follow each other; builds nothing."""
    if design:
        with torch.device("meta"):
            spec.build(design.layers, design.shape, 2, design.words)


@dataclass(frozen=True)
class Examples:
    """What a head learns from: rows (example,) of the activations, the truth of each, groups (example,); keys: content
    hashes. `views_seen`: epochs of random views that an earlier training had."""

    activations: AtCut
    rows: Ints
    targets: Targets
    groups: Ints
    keys: Sequence[str]
    views_seen: int = 0

    def still(self, some: Ints, scale: float = 1.0) -> torch.Tensor:
        """These examples as the layers take them, float32: the images as they are."""
        return torch.from_numpy(self.activations.still(self.rows[some])).div_(scale)

    def fetch(self, epoch: int, begun: Begun, objective: Objective) -> Callable[[Ints], Batch]:
        """Examples -> (their random views for this epoch, their truths as the loss takes them)."""

        def fetched(some: Ints) -> Batch:
            viewed = self.activations.viewed(self.rows[some], self.views_seen + epoch)
            wanted = objective.encode(self.targets.take(some))
            wanted = wanted if begun.unit is None else begun.unit.into(wanted)
            return torch.from_numpy(viewed).div_(begun.scale), torch.from_numpy(wanted)

        return fetched


def build_head(design: Design, n_outputs: int, seed: int = 0) -> nn.Module:
    """The layers with their first weights drawn from `seed`; torch's own random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return spec.build(design.layers, design.shape, n_outputs, design.words)


@dataclass(frozen=True)
class Begun:
    """A module before its first step: activations are divided by `scale`, and `unit` is what it learns in (None: in
    the numbers of its answers)."""

    module: nn.Module
    scale: float
    unit: Unit | None

    def ended(self) -> nn.Module:
        """The module, which gives answers in the user's own numbers again."""
        if self.unit is not None:
            self.unit.leave(_last(self.module))
        return self.module.eval().requires_grad_(False)

    def answers(self, module: nn.Module, examples: Examples, some: Ints, link: Link) -> Doubles:
        """Outputs (example, output) in the user's own numbers, by the weights of some moment of the training."""
        found = _answers(module, examples, some, self.scale, link)
        return found if self.unit is None else self.unit.back(found)


def begin(design: Design, examples: Examples, objective: Objective, rows: Ints, seed: int, device: str) -> Begun:
    """The module that learns from these of the examples. Raises OptionError where its last layer cannot give values."""
    if design.start:
        scale, module = 1.0, design.start(examples.rows[rows]).to(device)
    else:
        scale = _root_mean_square(examples.activations, examples.rows[rows])
        module = build_head(design, len(examples.targets.names), seed).to(device)
    unit = objective.unit(examples.targets.take(rows))
    if unit is not None:
        if not isinstance([*module.children()][-1], nn.Linear):
            raise OptionError(
                f"the head {design.words!r} ends in an activation, and measured values may be any number: end it with "
                "dense alone"
            )
        if design.start:  # it gives the user's own numbers; fresh layers suit any unit
            unit.enter(_last(module))
    return Begun(module, scale, unit)


def held_out(how: Training, targets: Targets, groups: Ints, seed: int, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """The places of the images that stop a training of these: none where the recipe holds none out."""
    if not how.held_out:
        return np.empty(0, np.int64)
    return np.flatnonzero(hold_out(targets.strata, groups, how.held_out, seed, keys))


def train_head(  # noqa: PLR0913 - the data are two, the rest is who watches and where it goes on
    design: Design,
    examples: Examples,
    objective: Objective,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[Epoch], None] = lambda epoch: None,
    checkpoint: Checkpoint | None = None,
    keep_last: bool = False,
    bar: Bar = no_bar,
) -> TrainedHead:
    """Train, stopping by the loss of a held-out part.

    Each batch is drawn without replacement from a permutation of `seed`; a last batch of one image joins the one
    before it. The weights kept are those of the best epoch on the held-out part, which nothing else is judged on, or
    with `keep_last` of the last one: where nothing is held out, the least training loss follows what mixup drew. With
    a checkpoint, a training that was killed goes on where it was, and ends the same. `bar` is told of each batch.
    Raises OptionError where the loss is no number.
    """
    how, n = design.training, len(examples.targets)
    stop = held_out(how, examples.targets, examples.groups, seed, examples.keys)
    rows = np.delete(np.arange(n), stop)
    begun = begin(design, examples, objective, rows, seed, device)
    steps = how.epochs * sum(1 for _ in batches(rows, how.batch_size))
    groups, arithmetic = design.groups(begun.module) if design.groups else None, design.arithmetic
    with torch.random.fork_rng(devices=[]), memory_kept():
        torch.default_generator.manual_seed(seed)  # of dropout
        loop = Loop(begun.module, how, steps, objective, seed=seed, device=device, arithmetic=arithmetic, groups=groups)
        run = _Run(loop, begun, examples, rows, stop, checkpoint=checkpoint, keep_last=keep_last, bar=bar)
        run.to_the_end(seed, progress)
    if not math.isfinite(run.best):
        raise OptionError(
            f"the head {design.words!r} did not learn: its loss is no number; try another --optimizer, or a lower --lr"
        )
    begun.module.load_state_dict(run.kept)
    module = begun.ended()
    left_out = np.full((n, len(examples.targets.names)), np.nan)
    if len(stop):
        left_out[stop] = _answers(module, examples, stop, begun.scale, objective.link)
    judged = _judged(design, run, objective, left_out)
    return TrainedHead(design, module.cpu(), begun.scale, judged, left_out, tuple(run.epochs), objective.link)


def _judged(design: Design, run: _Run, objective: Objective, left_out: Doubles) -> tuple[Candidate, ...]:
    """What the held-out images say of the best epoch; nothing where there are none."""
    best = min(run.epochs, key=lambda epoch: epoch.watched)
    if best.held_out_loss is None:
        return ()
    accuracy = best.held_out_accuracy
    if accuracy is None:
        accuracy = objective.accuracy(run.examples.targets.take(run.stop), left_out[run.stop], best.held_out_loss)
    return (Candidate(design.block.split("/")[0], design.words, 0.0, run.best, accuracy, 1.0),)


@dataclass(eq=False)
class _Run:
    """The epochs of a training from `rows` of the examples, stopped by `stop`: where it is, and the best weights."""

    loop: Loop
    begun: Begun
    examples: Examples
    rows: Ints
    stop: Ints
    checkpoint: Checkpoint | None = None
    keep_last: bool = False
    bar: Bar = no_bar
    epochs: list[Epoch] = field(default_factory=list)
    best: float = math.inf
    done: int = 0  # batches of the present epoch
    total: float = 0.0  # the sum of their losses
    ended: bool = False
    kept: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = kept(self.loop.module)

    def to_the_end(self, seed: int, progress: Callable[[Epoch], None]) -> None:
        self._take_up()
        order = np.random.default_rng(seed)
        for number in range(self.loop.how.epochs):
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
        how = self.loop.how
        sizes = [len(some) for some in batches(order, how.batch_size)]
        step = self.bar(f"epoch {self.examples.views_seen + number + 1}", len(order))
        step(sum(sizes[: self.done]))
        fetch = self.examples.fetch(number, self.begun, self.loop.objective)
        for loss in self.loop.batches(order, fetch, self.done):
            step(sizes[self.done])
            self.done, self.total = self.done + 1, self.total + loss
            if self.checkpoint and self.checkpoint.due:
                self._save()
        self.epochs.append(self._measured(self.total / len(order)))
        self.done, self.total = 0, 0.0
        watched = [epoch.watched for epoch in self.epochs]
        if self.keep_last or watched[-1] < self.best:
            self.best, self.kept = watched[-1], kept(self.loop.answering)
        else:
            self.ended = len(watched) - 1 - watched.index(min(watched)) >= how.patience

    def _measured(self, loss: float) -> Epoch:
        """The line of the loss curve after an epoch of this mean loss."""
        if not len(self.stop):
            return Epoch(loss, None, None, self.loop.rate)
        objective, truth = self.loop.objective, self.examples.targets.take(self.stop)
        found = self.begun.answers(self.loop.answering, self.examples, self.stop, objective.link)
        # smoothing teaches too small a scale, and more so each epoch: then losses at the best scale are compared
        smoothed = self.loop.how.smoothing > 0
        held = objective.best_scale(truth, found)[1] if smoothed else objective.mean_loss(truth, found)
        if objective.right is None:
            return Epoch(loss, held, None, self.loop.rate)
        right = accuracy_interval(objective.right(truth, found), self.examples.groups[self.stop])
        return Epoch(loss, held, right["value"], self.loop.rate, right["low"], right["high"])

    def _save(self, final: bool = False) -> None:
        """The state; of a training that has ended its outcome alone."""
        if self.checkpoint is None:
            return
        tensors, record = ({}, {}) if final else self.loop.state()
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
            self.loop.restore(tensors, record)


def _answers(module: nn.Module, examples: Examples, some: Ints, scale: float, link: Link) -> Doubles:
    """Outputs (example, output) of some examples as they are, without random views."""
    chunks = [some[at : at + CHUNK] for at in range(0, len(some), CHUNK)]
    return np.concatenate([_forward(module, examples.still(chunk, scale), link) for chunk in chunks])


def _forward(module: nn.Module, x: torch.Tensor, link: Link) -> Doubles:
    """Outputs (image, output)."""
    module.eval()
    with torch.inference_mode():
        scores = module(x.to(next(module.parameters()).device)).double()
        return np.asarray((scores.log_softmax(dim=1) if link == "softmax" else scores).cpu().numpy())


def _last(module: nn.Module) -> nn.Linear:
    """The layer that gives the scores: the last of its children."""
    last = [*module.children()][-1]
    assert isinstance(last, nn.Linear)
    return last


def _root_mean_square(activations: AtCut, rows: Ints) -> float:
    """Over at most 2,000 of the rows: within 1 %, and no second copy of large maps."""
    some = activations.still(rows[:: max(1, len(rows) // 1000)])
    return float(np.sqrt(np.mean(np.square(some)))) or 1.0
