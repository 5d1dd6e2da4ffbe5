"""A training by the workers of a cluster: each learns from its share of every batch, and all take the same step.

A worker is sent data, and makes of them what this process would learn with: the part of the network above the cut, with
the weights that it starts from; the activations, from the cache that all nodes share or from the pictures. What a
training has kept on the disk is found by whoever goes on with it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch

from headstart.counted import counted
from headstart.data.table import Table
from headstart.files.cores import n_cores
from headstart.finetune.at_cut import AtCut, Live, Stored
from headstart.finetune.design import Bar, Epoch, no_bar
from headstart.finetune.objective import Unit
from headstart.finetune.team import Team
from headstart.finetune.training import Begun, Lesson, Outcome, Tell, learn, nobody
from headstart.finetune.tunable import Tail, Tunable
from headstart.trunk import scale
from headstart.trunk.board import Member
from headstart.trunk.features import Change, Through
from headstart.trunk.network import Backbone
from headstart.trunk.pieces import Sight, check_nodes, everywhere, here_of, through_a_cluster

# Images of a batch that are worth a worker: with fewer the layers' weights are read for less than the pictures cost.
LEAST = 8
EVERY = 0.5  # s between two words on the batches that are done
Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Away:
    """Activations as they travel: without what lies in the cache, or with what compiles the frozen part (`sight`) in
    place of it, None where there is none."""

    what: Stored | Live
    sight: Sight | None = None

    @staticmethod
    def of(found: AtCut, cache: Path) -> Away:
        if isinstance(found, Live):
            sight = None if found.engine is None else Sight.of(found.backbone, found.engine, cache)
            sources = tuple(everywhere(source) for source in found.table.sources)
            return Away(replace(found, engine=None, table=replace(found.table, sources=sources)), sight)
        assert isinstance(found, Stored)
        if found.shelved is None:
            return Away(found)
        return Away(replace(found, values=np.empty((0, 0)), views=()))

    @property
    def table(self) -> Table | None:
        """The pictures that are read."""
        return self.what.table if isinstance(self.what, Live) else None

    def back(self, cache: Path) -> AtCut:
        """In another process. Raises OutputError where the cache lacks them, HeadstartError for another engine."""
        if isinstance(self.what, Live):
            engine = None if self.sight is None else self.sight.engine()
            return replace(self.what, backbone=here_of(self.what.backbone, cache), engine=engine)
        if self.what.shelved is None:
            return self.what
        first, *others = self.what.shelved.views()
        return replace(self.what, values=first, views=tuple(others))


@dataclass(frozen=True)
class Sent:
    """What each worker is handed of one training. `state`: the weights and buffers that `Tail` starts with; the other
    fields as `Begun` and `Lesson` have them, with the activations of the lesson's examples `away`."""

    backbone: Backbone
    what: Tunable
    state: Arrays
    scale: float
    unit: Unit | None
    lesson: Lesson
    away: Away
    cache: Path
    device: str


@dataclass(frozen=True)
class Made:
    """An `Outcome` as it travels."""

    kept: Arrays
    epochs: tuple[Epoch, ...]
    best: float
    workers: int | None


@dataclass(frozen=True)
class Batches:
    """Told by a worker: so many images of a stage's total were learned from since the last word."""

    stage: str
    total: int
    done: int


@dataclass(frozen=True)
class Numbered:
    """Told by a worker: an epoch, and its number from 0 on."""

    number: int
    epoch: Epoch


def arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}


def tensors(some: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in some.items()}


def take_part(sent: Sent, member: Member) -> Made:
    """A worker's part of a training."""
    torch.set_num_threads(n_cores())
    team, lesson = Team(member.rank, member.size), sent.lesson
    tail = Tail(here_of(sent.backbone, sent.cache), sent.what, len(lesson.examples.targets.names))
    tail.load_state_dict(tensors(sent.state))
    begun = Begun(tail.to(sent.device), sent.scale, sent.unit)
    lesson = replace(lesson, examples=replace(lesson.examples, activations=sent.away.back(sent.cache)))
    groups = tail.groups(lesson.training.stage_decay)
    told = partial(_bar, member.tell) if team.leads else no_bar
    progress = partial(_epoch, member.tell) if team.leads else nobody
    found = learn(begun, lesson, told, progress, device=sent.device, groups=groups, team=team, workers=team.size)
    return Made(arrays(found.kept) if team.leads else {}, found.epochs, found.best, found.workers)


def _epoch(tell: Callable[[object], None], number: int, epoch: Epoch) -> None:
    tell(Numbered(number, epoch))


def _bar(tell: Callable[[object], None], stage: str, total: int) -> Callable[[int], None]:
    """Of a worker: it tells of it twice a second, and at the end."""
    told, waiting, done = [time.monotonic()], [0], [0]

    def step(count: int) -> None:
        waiting[0], done[0] = waiting[0] + count, done[0] + count
        if waiting[0] and (time.monotonic() - told[0] >= EVERY or done[0] >= total):
            tell(Batches(stage, total, waiting[0]))
            told[0], waiting[0] = time.monotonic(), 0

    return step


class Listener:
    """Passes on what workers tell: each epoch once, though one that was lost with a worker is learned again."""

    def __init__(self, bar: Bar, progress: Tell) -> None:
        self._bar, self._progress = bar, progress
        self._steps: dict[str, Callable[[int], None]] = {}
        self._left: dict[str, int] = {}
        self._epochs = 0

    def __call__(self, said: Batches | Numbered) -> None:
        if isinstance(said, Numbered):
            if said.number == self._epochs:
                self._epochs += 1
                self._progress(said.number, said.epoch)
            return
        if said.stage not in self._steps:
            self._steps[said.stage] = self._bar(said.stage, said.total)
            self._left[said.stage] = said.total
        done = min(said.done, self._left[said.stage])
        if done:
            self._left[said.stage] -= done
            self._steps[said.stage](done)


class Elsewhere:
    """The cluster at an address, in place of this process: its workers train and see pictures. `cache`: the folder that
    all nodes share. The workers are started at the first need, and are gone when the block ends in which it is used."""

    def __init__(self, address: str, cache: Path) -> None:
        self.address, self.cache = address, cache.absolute()
        self._stack = ExitStack()
        self._workers: scale.Together | None = None

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.rest(wait=kind is None)

    def rest(self, wait: bool = True) -> None:
        """End the workers; `wait` until their part of the cluster is free."""
        workers, self._workers = self._workers, None
        with self._stack:
            if workers is not None:
                workers.end(wait)
        self._stack = ExitStack()

    def sees(self, change: Change | None, view: Mapping[str, object]) -> Through:
        """Who adds to the store what it lacks of these pictures, or of random views of them (`change`); `view`: what
        tells these from others in the store's key."""
        return partial(through_a_cluster, address=self.address, change=change, view=view, ready=self.rest)

    def learn(
        self,
        begun: Begun,
        lesson: Lesson,
        bar: Bar,
        progress: Tell,
        *,
        backbone: Backbone,
        what: Tunable,
        device: str,
        say: Callable[[str], None],
    ) -> Outcome:
        """As `training.learn`, of a part of this network; `say` is told by whom. What has ended is read here.

        Raises HeadstartError.
        """
        found = lesson.checkpoint.load() if lesson.checkpoint else None
        if found is not None and found[1].get("ended"):
            return learn(begun, lesson, bar, progress, device=device)
        away = Away.of(lesson.examples.activations, self.cache)
        examples = replace(lesson.examples, activations=away.what)
        sent = Sent(
            backbone=backbone,
            what=what,
            state=arrays(begun.module.state_dict()),
            scale=begun.scale,
            unit=begun.unit,
            lesson=replace(lesson, examples=examples),
            away=away,
            cache=self.cache,
            device=device,
        )
        workers = self._at_work(away.table, lesson.training.batch_size, device)
        say(f"{counted(workers.size, 'worker')} of the cluster, {counted(workers.pool.cores, 'processor')} each")
        made: Made = workers.do(sent, Listener(bar, progress))
        return Outcome(tensors(made.kept), made.epochs, made.best, made.workers)

    def _at_work(self, table: Table | None, batch: int, device: str) -> scale.Together:
        if self._workers is None:
            self._stack.enter_context(scale.joined(self.address))
            check_nodes(table, {"--cache": self.cache})
            (self.cache / "tuning").mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=".workers-", dir=self.cache / "tuning"))
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._workers = scale.Together(take_part, folder, device == "cuda", batch // LEAST)
        return self._workers
