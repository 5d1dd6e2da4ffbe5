"""What a tuning is told (`Tuning`, data that can be sent to another process), and where it works (`Session`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from headstart.data.targets import Targets
from headstart.finetune.at_cut import AtCut
from headstart.finetune.design import Bar, Epoch, held_out, no_bar
from headstart.finetune.objective import Objective
from headstart.heads.material import Material
from headstart.heads.probe import Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet
from headstart.judge.crossing import Measure
from headstart.judge.marks import Marks
from headstart.recipe import Training
from headstart.trunk.engine import Engine, compile_trunk
from headstart.trunk.network import Backbone

if TYPE_CHECKING:
    from headstart.finetune.together import Elsewhere
    from headstart.finetune.tunable import Tunable

Ints = npt.NDArray[np.int64]
Blocks = dict[str, npt.NDArray[np.floating]]
Solve = Callable[[Material, Ints, tuple[TapSet, ...]], Probe]  # the closed-form model of some rows
Mark = Callable[[Targets, Doubles, Ints], Marks]  # of outputs (image, output) for images in these groups
Say = Callable[[str], None]


def silent(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Session:
    """What a tuning uses of the process that it runs in, and what it has made there. It goes to no other process.

    `elsewhere`: the cluster that trains and sees pictures in place of this process; `compile`: makes engines; `engine`:
    that of the last network asked for, by its weights' hash; `activations`: what was made at a cut, of which rows and
    for how many epochs.
    """

    device: str = "cpu"  # that trains
    say: Say = silent  # of a whole training, not of a trial or a fold
    bar: Bar = no_bar
    elsewhere: Elsewhere | None = None
    compile: Callable[[Backbone, str], Engine] = compile_trunk
    engine: dict[str, Engine] = field(default_factory=dict, repr=False)
    activations: dict[Tunable, tuple[Ints, int, AtCut]] = field(default_factory=dict, repr=False)

    def quiet(self) -> Session:
        """The same, of which nobody is told."""
        return replace(self, say=silent, bar=no_bar)

    def engine_of(self, backbone: Backbone, precision: str) -> Engine:
        """The network compiled; the last one is kept."""
        if backbone.weights_hash not in self.engine:
            self.engine.clear()
            self.engine[backbone.weights_hash] = self.compile(backbone, precision)
        return self.engine[backbone.weights_hash]


class Reader(Protocol):
    """What reads the images, as data: it can be sent to another process, which reads the same."""

    def at_cut(self, what: Tunable, rows: Ints, epochs: int, session: Session) -> AtCut:
        """Activations at this cut, of these rows, for so many epochs."""
        ...

    def features(self, backbone: Backbone, rows: Ints, session: Session) -> Blocks:
        """What a network says of some images, as they are."""
        ...


@dataclass(frozen=True)
class Tuning:
    """What learns, and how; `tune` as the user said it ("auto", "last", "all", N, a stage). It can be pickled.

    `solve`, `objective`, `mark` and `measure` are the task's: how a head is fitted and what is learned, and by what
    answers are compared.
    """

    backbone: Backbone  # frozen, with the taps that heads read
    tune: str
    training: Training
    sets: tuple[TapSet, ...]  # of the frozen model, and of a closed-form head on the tuned network
    reader: Reader
    solve: Solve
    objective: Objective
    mark: Mark
    measure: Measure
    precision: str = "auto"
    find: bool = False  # the learning rate, by a range test
    seconds: float | None = None  # that one training may take
    store: Path | None = None  # where the state of a training is kept
    data: str = ""  # what makes the activations: a part of the checkpoints' key


@dataclass(frozen=True, eq=False)
class Job:
    """One tuning of these rows of the material. `progress` is told of each epoch."""

    tuning: Tuning
    material: Material
    rows: Ints
    session: Session
    progress: Callable[[Epoch], None] = lambda epoch: None

    @cached_property
    def held(self) -> Ints:
        """The places among the rows that stop the training, and compare: those that `train_head` holds out."""
        m, rows, keys = self.material, self.rows, [self.material.keys[row] for row in self.rows]
        return held_out(self.tuning.training, m.targets.take(rows), m.groups[rows], m.seed, keys)

    @cached_property
    def held_targets(self) -> Targets:
        """The truth of the held-out images."""
        return self.material.targets.take(self.rows[self.held])

    @property
    def held_groups(self) -> Ints:
        return self.material.groups[self.rows[self.held]]

    @property
    def teaching(self) -> Ints:
        """The rows without those that are held out."""
        return np.delete(self.rows, self.held)

    def seen_by(self, backbone: Backbone) -> Material:
        """What a network says of these rows, with their truths."""
        blocks = self.tuning.reader.features(backbone, self.rows, self.session)
        return replace(replace(self.material, blocks={}).part(self.rows), blocks=blocks)


def part_of(seconds: float | None, share: float) -> float | None:
    """A share of a time budget, if there is one."""
    return None if seconds is None else share * seconds
