"""What is trained step by step: a head of one's own layers on what the frozen trunk said, or the part above a cut.

One pass of the trunk, whatever the epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.targets import Targets
from headstart.errors import OptionError
from headstart.finetune.arithmetic import memory_kept
from headstart.finetune.at_cut import AtCut
from headstart.finetune.checkpoint import Checkpoint, named, under
from headstart.finetune.design import Arithmetic, Bar, Design, Epoch, held_out, no_bar
from headstart.finetune.forward import answers_of
from headstart.finetune.loop import Groups, Loop, batches, kept
from headstart.finetune.objective import Objective, Unit
from headstart.finetune.own_layers import build_head
from headstart.finetune.team import ALONE, Team
from headstart.finetune.trained_head import TrainedHead
from headstart.heads.probe import Candidate, Link
from headstart.heads.spectrum import Doubles
from headstart.judge.intervals import accuracy_interval
from headstart.recipe import Training

Ints = npt.NDArray[np.integer]
Batch = tuple[torch.Tensor, torch.Tensor]  # activations, encoded truths
Tell = Callable[[int, Epoch], None]  # of each epoch its number from 0 on, and what it came to


def nobody(number: int, epoch: Epoch) -> None:
    """Is told nothing."""


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

    def answers_of(self, module: nn.Module, some: Ints, scale: float, link: Link) -> Doubles:
        """Outputs (example, output) of a module for some of them as they are, without random views."""
        return answers_of(module, self.activations.still, self.rows[some], scale, link)

    def fetch(self, epoch: int, begun: Begun, objective: Objective) -> Callable[[Ints], Batch]:
        """Examples -> (their random views for this epoch, their truths as the loss takes them)."""

        def fetched(some: Ints) -> Batch:
            viewed = self.activations.viewed(self.rows[some], self.views_seen + epoch)
            wanted = objective.encode(self.targets.take(some))
            wanted = wanted if begun.unit is None else begun.unit.into(wanted)
            return torch.from_numpy(viewed).div_(begun.scale), torch.from_numpy(wanted)

        return fetched


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
            leave(self.unit, _last(self.module))
        return self.module.eval().requires_grad_(False)

    def answers(self, module: nn.Module, examples: Examples, some: Ints, link: Link) -> Doubles:
        """Outputs (example, output) in the user's own numbers, by the weights of some moment of the training."""
        found = examples.answers_of(module, some, self.scale, link)
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
            enter(unit, _last(module))
    return Begun(module, scale, unit)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a module learns, and how: data that another process can learn from as this one does. `rows`: places of the
    examples that teach; `stop`: of those that stop the training."""

    training: Training
    arithmetic: Arithmetic
    examples: Examples
    rows: Ints
    stop: Ints
    objective: Objective
    seed: int = 0
    checkpoint: Checkpoint | None = None
    keep_last: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a lesson: the weights that are kept, the loss curve, the least loss that was watched. `workers`: how
    many processes of a cluster learned it, None where this one did."""

    kept: dict[str, torch.Tensor]
    epochs: tuple[Epoch, ...]
    best: float
    workers: int | None = None


Learn = Callable[[Begun, Lesson, Bar, Tell], Outcome]


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
    elsewhere: Learn | None = None,
) -> TrainedHead:
    """Train, stopping by the loss of a held-out part.

    Each batch is drawn without replacement from a permutation of `seed`; a last batch of one image joins the one
    before it. The weights kept are those of the best epoch on the held-out part, which nothing else is judged on, or
    with `keep_last` of the last one: where nothing is held out, the least training loss follows what mixup drew. With
    a checkpoint, a training that was killed goes on where it was, and ends the same. `bar` is told of each batch.
    `elsewhere` learns in place of this process. Raises OptionError where the loss is no number.
    """
    how, n = design.training, len(examples.targets)
    stop = held_out(how, examples.targets, examples.groups, seed, examples.keys)
    rows = np.delete(np.arange(n), stop)
    begun = begin(design, examples, objective, rows, seed, device)
    lesson = Lesson(how, design.arithmetic, examples, rows, stop, objective, seed, checkpoint, keep_last)
    if elsewhere is None:
        elsewhere = partial(learn, device=device, groups=design.groups(begun.module) if design.groups else None)
    outcome = elsewhere(begun, lesson, bar, lambda number, epoch: progress(epoch))
    if not math.isfinite(outcome.best):
        raise OptionError(
            f"the head {design.words!r} did not learn: its loss is no number; try another --optimizer, or a lower --lr"
        )
    begun.module.load_state_dict(outcome.kept)
    module = begun.ended()
    left_out = np.full((n, len(examples.targets.names)), np.nan)
    if len(stop):
        left_out[stop] = examples.answers_of(module, stop, begun.scale, objective.link)
    judged = _judged(design, lesson, outcome, left_out)
    return TrainedHead(
        design, module.cpu(), begun.scale, judged, left_out, outcome.epochs, objective.link, outcome.workers
    )


def learn(
    begun: Begun,
    lesson: Lesson,
    bar: Bar = no_bar,
    progress: Tell = nobody,
    *,
    device: str = "cpu",
    groups: Groups | None = None,
    team: Team = ALONE,
    workers: int | None = None,
) -> Outcome:
    """In this process, on `device`, and in all others of the team alike. `groups`: as `Loop` takes them."""
    how, seed = lesson.training, lesson.seed
    steps = how.epochs * sum(1 for _ in batches(lesson.rows, how.batch_size))
    with torch.random.fork_rng(devices=[]), memory_kept():
        torch.default_generator.manual_seed(seed)  # of dropout
        loop = Loop(
            begun.module,
            how,
            steps,
            lesson.objective,
            seed=seed,
            device=device,
            arithmetic=lesson.arithmetic,
            groups=groups,
            team=team,
        )
        run = _Run(loop, begun, lesson, bar, workers)
        run.to_the_end(seed, progress)
    return Outcome(run.kept, tuple(run.epochs), run.best, run.workers)


def _judged(design: Design, lesson: Lesson, outcome: Outcome, left_out: Doubles) -> tuple[Candidate, ...]:
    """What the held-out images say of the best epoch; nothing where there are none."""
    best = min(outcome.epochs, key=lambda epoch: epoch.watched)
    if best.held_out_loss is None:
        return ()
    accuracy = best.held_out_accuracy
    if accuracy is None:
        truth = lesson.examples.targets.take(lesson.stop)
        accuracy = lesson.objective.accuracy(truth, left_out[lesson.stop], best.held_out_loss)
    return (Candidate(design.block.split("/")[0], design.words, 0.0, outcome.best, accuracy, 1.0),)


@dataclass(eq=False)
class _Run:
    """The epochs of a lesson: where it is, and the best weights. In a team all are at the same place with the same
    weights: the first process judges each epoch and decides, saves and tells."""

    loop: Loop
    begun: Begun
    lesson: Lesson
    bar: Bar = no_bar
    workers: int | None = None
    epochs: list[Epoch] = field(default_factory=list)
    best: float = math.inf
    done: int = 0  # batches of the present epoch
    total: float = 0.0  # the sum of their losses
    ended: bool = False
    kept: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = kept(self.loop.module)

    def to_the_end(self, seed: int, progress: Tell) -> None:
        self._take_up()
        order = np.random.default_rng(seed)
        for number in range(self.loop.how.epochs):
            permuted = order.permutation(self.lesson.rows)
            if self.ended:
                break
            if number < len(self.epochs):
                continue
            self._learn(permuted, number)
            progress(number, self.epochs[-1])
        self.ended = True
        self._save(final=True)

    def _learn(self, order: Ints, number: int) -> None:
        """The rest of an epoch, and what it comes to."""
        how, examples, team = self.loop.how, self.lesson.examples, self.loop.team
        sizes = [len(some) for some in batches(order, how.batch_size)]
        step = self.bar(f"epoch {examples.views_seen + number + 1}", len(order))
        step(sum(sizes[: self.done]))
        fetch = examples.fetch(number, self.begun, self.loop.objective)
        for loss in self.loop.batches(order, fetch, self.done):
            step(sizes[self.done])
            self.done, self.total = self.done + 1, self.total + loss
            if self.lesson.checkpoint and self.lesson.checkpoint.due:
                self._save()
        self.epochs.append(team.told(lambda: self._measured(self.total / len(order))))
        self.done, self.total = 0, 0.0
        watched = [epoch.watched for epoch in self.epochs]
        if self.lesson.keep_last or watched[-1] < self.best:
            self.best, self.kept = watched[-1], kept(self.loop.answering)
        else:
            self.ended = len(watched) - 1 - watched.index(min(watched)) >= how.patience

    def _measured(self, loss: float) -> Epoch:
        """The line of the loss curve after an epoch of this mean loss."""
        examples, stop = self.lesson.examples, self.lesson.stop
        if not len(stop):
            return Epoch(loss, None, None, self.loop.rate)
        objective, truth = self.loop.objective, examples.targets.take(stop)
        found = self.begun.answers(self.loop.answering, examples, stop, objective.link)
        # smoothing teaches too small a scale, and more so each epoch: then losses at the best scale are compared
        smoothed = self.loop.how.smoothing > 0
        held = objective.best_scale(truth, found)[1] if smoothed else objective.mean_loss(truth, found)
        if objective.right is None:
            return Epoch(loss, held, None, self.loop.rate)
        right = accuracy_interval(objective.right(truth, found), examples.groups[stop])
        return Epoch(loss, held, right["value"], self.loop.rate, right["low"], right["high"])

    def _save(self, final: bool = False) -> None:
        """The state; of a training that has ended its outcome alone."""
        checkpoint = self.lesson.checkpoint
        if checkpoint is None or not self.loop.team.leads:
            return
        tensors, record = ({}, {}) if final else self.loop.state()
        epochs = [asdict(epoch) for epoch in self.epochs]
        more = {"epochs": epochs, "best": self.best, "done": self.done, "total": self.total, "ended": self.ended}
        if self.workers is not None:
            more["workers"] = self.workers
        checkpoint.save(tensors | named("kept", self.kept), record | more)

    def _take_up(self) -> None:
        checkpoint, team = self.lesson.checkpoint, self.loop.team
        found = team.told(checkpoint.load) if checkpoint else None
        if found is None:
            return
        tensors, record = found
        self.kept = under("kept", tensors)
        self.epochs = [Epoch(**epoch) for epoch in record["epochs"]]
        self.best, self.done, self.total = record["best"], record["done"], record["total"]
        self.ended = record["ended"]
        if self.ended:
            self.workers = record.get("workers")
        if "step" in record:
            self.loop.restore(tensors, record)


def _last(module: nn.Module) -> nn.Linear:
    """The layer that gives the scores: the last of its children."""
    last = [*module.children()][-1]
    assert isinstance(last, nn.Linear)
    return last


def enter(unit: Unit, last: nn.Linear) -> None:
    """A last layer that gives the user's numbers gives those of the unit from now on."""
    centre, spread = (torch.from_numpy(v).to(last.weight) for v in (unit.centre, unit.spread))
    with torch.no_grad():
        last.weight.div_(spread[:, None])
        last.bias.sub_(centre).div_(spread)


def leave(unit: Unit, last: nn.Linear) -> None:
    """The way back of `enter`."""
    centre, spread = (torch.from_numpy(v).to(last.weight) for v in (unit.centre, unit.spread))
    with torch.no_grad():
        last.weight.mul_(spread[:, None])
        last.bias.mul_(spread).add_(centre)


def _root_mean_square(activations: AtCut, rows: Ints) -> float:
    """Over at most 2,000 of the rows: within 1 %, and no second copy of large maps."""
    some = activations.still(rows[:: max(1, len(rows) // 1000)])
    return float(np.sqrt(np.mean(np.square(some)))) or 1.0
