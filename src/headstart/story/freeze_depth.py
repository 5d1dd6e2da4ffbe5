"""How general is each stage? Accuracy against the number of stages that stay frozen (`compare --freeze-depth`).

As Yosinski et al. 2014, with the pre-trained network as A and the user's images as B: the stages above the cut are
tuned from their pre-trained weights, or drawn anew. Where the two meet, what lies above the cut need not be
transferred; where tuning beats drawing anew, it carries something, or the stages only work together.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart import recipe
from headstart.counted import counted
from headstart.data.table import Table
from headstart.errors import OptionError
from headstart.finetune.job import Session, Tuning
from headstart.finetune.tunable import stages, tunable
from headstart.finetune.tune import answers, tune
from headstart.heads.material import Material
from headstart.judge.marks import Interval, Marks, ends
from headstart.story.activations_of import prepare
from headstart.story.compare import marks_with, start
from headstart.story.evidence import rule_of
from headstart.story.opening import QUIET, Options, Watcher, open_at_size, session_of
from headstart.story.plan import Plan
from headstart.tasks.known import TASKS
from headstart.tasks.task import Task
from headstart.trunk.network import RANDOM, Backbone
from headstart.trunk.weights import fingerprint


@dataclass(frozen=True)
class Depth:
    """One point: `frozen` stages stay as they are, what lies above `cut` learns; `drawn`: from random weights."""

    frozen: int
    cut: str
    tuned: Interval
    drawn: Interval
    difference: Interval  # tuned minus drawn, paired
    seconds: float


@dataclass(frozen=True)
class Curve:
    n_train: int
    n_judged: int
    source: str
    stages: int
    head_alone: Interval  # accuracy with everything frozen
    depths: tuple[Depth, ...]

    def to_json(self) -> dict[str, Any]:
        found = {"train": self.n_train, "n": self.n_judged, "source": self.source, "stages": self.stages}
        return {**found, "all_frozen": self.head_alone, "depths": [vars(depth) for depth in self.depths]}


def freeze_depth(table: Table, options: Options, watch: Watcher = QUIET) -> Curve:
    """Each stage's cut in turn, from the top down; one pass of the frozen part each. Raises HeadstartError."""
    task = TASKS[table.task]
    measure = task.judging.headline
    seen, plan = start(task, table, options, watch)
    features, material = seen.features, seen.material(options.seed)
    random = open_at_size(seen.table, options, random=True, whole=task.whole)
    assert plan.judge is not None
    groups = seen.groups[plan.judge]
    found = []
    names = stages(seen.backbone)
    if not names:
        raise OptionError(f"{seen.backbone.name} has no stages to freeze one by one: take another network")
    for frozen, stage in reversed(list(enumerate(names))):
        begun = time.perf_counter()
        what = tunable(seen.backbone, stage if frozen else "all")
        watch.say(f"{frozen} of {len(names)} stages frozen: what lies above {what.cut} learns")
        mine = replace(options, tune=stage if frozen else "all")
        tuning = prepare(task, seen.table, features.hashes, seen.backbone, mine, plan.train, 1)
        session = session_of(watch)  # one each: what is made at this cut serves no other
        tuned = _marks(task, tuning, material, plan, session)
        other = _drawn_anew(tuning, random, what.modules, options, len(plan.train))
        again = replace(material, blocks=other.reader.features(other.backbone, np.arange(len(seen.targets)), session))
        drawn = _marks(task, other, again, plan, session)
        gain = measure.gain(tuned, drawn, groups)["difference"]
        scores = [measure.of(marks, groups) for marks in (tuned, drawn)]
        found.append(Depth(frozen, what.cut, scores[0], scores[1], gain, round(time.perf_counter() - begun, 1)))
    alone = measure.of(marks_with(task, seen, plan, replace(options, tune="none"), watch), groups)
    return Curve(len(plan.train), len(plan.judge), plan.source, len(names), alone, tuple(found))


def _drawn_anew(tuning: Tuning, random: Backbone, modules: tuple[str, ...], options: Options, n: int) -> Tuning:
    """The same with random weights above the cut, trained as from scratch; below it the pre-trained ones stay."""
    network: Any = copy.deepcopy(tuning.backbone.module)
    state, fresh = network.state_dict(), random.module.state_dict()
    above = {name: fresh[name] for name in state if any(name.startswith(f"{module}.") for module in modules)}
    network.load_state_dict(state | above)
    drawn = tuning.backbone.around(network, weights_hash=fingerprint(network.state_dict()), weights_source=RANDOM)
    training = recipe.tuning(n, options.epochs, options.batch_size, random=True)
    return replace(tuning, backbone=drawn, training=training)


def _marks(task: Task, tuning: Tuning, material: Material, plan: Plan, session: Session) -> Marks:
    """The marks of a network tuned so, on the judged images."""
    assert plan.judge is not None
    tuned = tune(tuning, material, plan.train, session)
    found, _ = answers(tuning, tuned, material, plan.judge, session)
    rule = rule_of(task, material, plan.train, tuned.head)
    return task.judging.mark(material.targets.take(plan.judge), task.answers(found, rule))


def lines(found: Curve) -> list[str]:
    """The table for the terminal."""
    rows = [f"{counted(found.n_train, 'image')} to learn from, {found.n_judged:,} to judge by ({found.source})", ""]
    rows.append(f"{'stages frozen':>13s}  {'tuned above':24s} {'drawn anew above':24s} {'tuned minus drawn anew':24s}")
    rows.append(f"{found.stages:>13d}  {_interval(found.head_alone)}  (the head alone)")
    for depth in found.depths:
        d = depth.difference
        gain = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * end for end in ends(d)))
        rows.append(f"{depth.frozen:>13d}  {_interval(depth.tuned):24s} {_interval(depth.drawn):24s} {gain}")
    best = max(found.depths, key=lambda depth: ends(depth.tuned)[0])
    alone, value = ends(found.head_alone)[0], ends(best.tuned)[0]
    if value <= alone:
        return [*rows, "", f"no depth is better than the head alone, {alone:.1%}"]
    return [*rows, "", f"best: {best.frozen} of {found.stages} stages frozen, {value:.1%}"]


def _interval(accuracy: Interval) -> str:
    return f"{accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
