"""Is transfer worth it here? Frozen, tuned, from scratch, random features, raw pixels: same images, paired.

Every arm learns from the same training images and answers for the same held-out ones; no arm's settings are chosen by
them. The verdict says in plain words what the differences allow, and what signs of negative transfer there are
(methods.md 3.4).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.data.splits import hold_out, nested_order
from headstart.data.table import Table
from headstart.errors import DataError, OptionError
from headstart.judge.crossing import Measure
from headstart.judge.marks import Interval, Marks, ends
from headstart.story import evidence
from headstart.story.opening import QUIET, Options, Watcher, features_again, open_network
from headstart.story.pipeline import Clock, Seen, inspect, labelled, taught
from headstart.story.plan import Plan, make_plan
from headstart.tasks.known import TASKS
from headstart.tasks.task import Task

HELD_OUT = 0.25  # of the images where the user has no split: every arm is trained once, so the judged part can be large
# name, what differs from the user's options, what it is in words
ARMS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("frozen", {}, "pre-trained, frozen, headstart's own head"),
    ("last stage tuned", {"tune": "last"}, "the last stage learns too"),
    ("all tuned", {"tune": "all"}, "the whole network learns, from the pre-trained weights"),
    ("from scratch", {"tune": "all", "weights": "none"}, "the whole network learns, from random weights, as long"),
    ("random weights", {"weights": "none"}, "random weights, frozen: what the architecture alone gives"),
)
PIXELS = "raw pixels"
SHARES = (0.25, 0.5)  # of the training images, for the learning curve of each arm


@dataclass(frozen=True)
class Arm:
    """`marks` of its answers for the judged images; `difference`: its worth minus the frozen model's, paired. All
    numbers are in `measure`."""

    name: str
    words: str
    accuracy: Interval
    difference: Interval | None
    seconds: float
    marks: Marks
    measure: Measure
    worst_recall: float = 1.0  # of the classes
    curve: tuple[tuple[int, float], ...] = ()  # (training images, accuracy)


@dataclass(frozen=True)
class Comparison:
    n_train: int
    n_judged: int
    source: str  # which images judge
    arms: tuple[Arm, ...]
    flags: tuple[str, ...] = ()  # signs of negative transfer, in words

    @property
    def measure(self) -> str:
        return self.arms[0].measure.name.replace("_", " ")

    @property
    def verdict(self) -> str:
        return verdict({arm.name: arm for arm in self.arms})

    def to_json(self) -> dict[str, Any]:
        arms = [
            {
                "name": a.name,
                "what": a.words,
                "accuracy": a.accuracy,
                "difference": a.difference,
                "worst_recall": a.worst_recall,
                "curve": [{"n": n, "accuracy": value} for n, value in a.curve],
                "seconds": a.seconds,
            }
            for a in self.arms
        ]
        found = {"train": self.n_train, "n": self.n_judged, "source": self.source, "verdict": self.verdict}
        return {**found, "measure": self.measure.replace(" ", "_"), "flags": list(self.flags), "arms": arms}


def compare(table: Table, options: Options, watch: Watcher = QUIET, curve: bool = False) -> Comparison:
    """Every arm on one split of the data: the user's, or a quarter of the images held out. Raises HeadstartError.

    With `curve` every arm also learns from a quarter and from half of the training images.
    """
    task = TASKS[table.task]
    seen, plan = start(task, table, options, watch)
    sizes = [_part(seen, plan, share, options.seed) for share in (SHARES if curve else ())]
    arms: list[Arm] = []
    for name, changes, words in ARMS:
        begun = time.perf_counter()
        options_here = replace(options, **changes)
        watch.say(f"{name}: {words}")
        there = _seen_as(seen, options_here, watch) if changes else seen
        marks = marks_with(task, there, plan, options_here, watch)
        less = [(len(p.train), marks_with(task, there, p, options_here, watch)) for p in sizes]
        took = time.perf_counter() - begun
        arms.append(_arm(name, words, task, seen, plan, marks, arms, less, took))
    begun = time.perf_counter()
    less = [(len(p.train), _pixels(task, seen, p)) for p in sizes]
    marks, took = _pixels(task, seen, plan), time.perf_counter() - begun
    arms.append(_arm(PIXELS, "16 x 16 pixels, no network", task, seen, plan, marks, arms, less, took))
    single = _marked(task, seen, plan, evidence.single_layer_answers(task, seen.material(0), plan))
    return Comparison(len(plan.train), len(_judged(plan)), plan.source, tuple(arms), flags(arms, single))


def start(task: Task, table: Table, options: Options, watch: Watcher) -> tuple[Seen, Plan]:
    """What the frozen network sees, and who judges."""
    if options.weights == "none":
        raise OptionError("compare needs pre-trained weights: --weights none leaves nothing to compare")
    if task.own is not None:
        raise OptionError(f"compare trains networks, which --task {task.name} does not do: leave --task out")
    table = task.prepare(labelled(table), options.min_images)
    seen = inspect(table, options, watch, task, look_again=False)
    plan = _plan(seen, options.seed)
    task.check(seen.targets, plan.train)
    return seen, plan


def _judged(plan: Plan) -> npt.NDArray[np.int64]:
    assert plan.judge is not None
    return plan.judge


def _part(seen: Seen, plan: Plan, share: float, seed: int) -> Plan:
    """The same with a stratified share of the training images, two of each class at least."""
    keys = [seen.features.hashes[row] for row in plan.train]
    least = 2 * len(seen.targets.names)
    order = nested_order(seen.targets.strata[plan.train], seed, keys)[: max(least, round(share * len(plan.train)))]
    return replace(plan, train=np.sort(plan.train[order]))


def _plan(seen: Seen, seed: int) -> Plan:
    splits, keys = seen.table.splits, seen.features.hashes
    if (splits == "none").all():
        held = hold_out(seen.targets.strata, seen.groups, HELD_OUT, seed, keys)
        used = np.where(held, "test", "train").astype(object)
        rows = np.arange(len(splits))
        return Plan("test split", rows[~held], rows[held], None, used)
    plan = make_plan(splits, seen.targets.strata, seen.groups, keys, seed)
    if plan.judge is None:
        raise DataError("the data have a train part and nothing to judge by: add a test part, or give no parts at all")
    return plan


def _seen_as(first: Seen, options: Options, watch: Watcher) -> Seen:
    """The first arm's rows and groups as another arm's network sees them."""
    backbone, engine = open_network(first.table, options, say=watch.say, whole=TASKS[first.table.task].whole)
    bar = watch.bar("network", len(first.table))
    features = features_again(first.table, first.features.hashes, backbone, engine, options, bar)
    return replace(first, backbone=backbone, engine=engine, features=features)


def marks_with(task: Task, seen: Seen, plan: Plan, options: Options, watch: Watcher) -> Marks:
    """The marks of the model of these options, on the judged images."""
    learned = taught(task, seen, plan, options, watch, Clock())
    rule = evidence.rule_of(task, learned.material, plan.train, learned.head)
    return evidence.judge_rows(task, learned.material, learned.head, _judged(plan), rule).marks


def _pixels(task: Task, seen: Seen, plan: Plan) -> Marks:
    answers = evidence.pixel_answers(task, seen.material(0), plan, seen.features.thumbnails)
    return _marked(task, seen, plan, answers)


def _marked(task: Task, seen: Seen, plan: Plan, answers: npt.NDArray[np.floating]) -> Marks:
    return task.judging.mark(seen.targets.take(_judged(plan)), answers)


def _arm(  # noqa: PLR0913 - one line of the table
    name: str,
    words: str,
    task: Task,
    seen: Seen,
    plan: Plan,
    marks: Marks,
    before: list[Arm],
    less: list[tuple[int, Marks]],
    seconds: float,
) -> Arm:
    groups = seen.groups[_judged(plan)]
    measure = task.judging.compared_in(seen.targets.take(plan.train))
    difference = measure.gain(marks, before[0].marks, groups)["difference"] if before else None
    curve = tuple((n, _share(some, measure)) for n, some in [*less, (len(plan.train), marks)])
    return Arm(
        name,
        words,
        measure.of(marks, groups),
        difference,
        round(seconds, 1),
        marks,
        measure,
        1.0 if task.judging.weakest is None else task.judging.weakest(marks),
        curve if less else (),
    )


def _share(marks: Marks, measure: Measure) -> float:
    return measure.value(marks)


def flags(arms: list[Arm], single: Marks) -> tuple[str, ...]:
    """Signs of negative transfer; `single`: what the last layer alone gets right."""
    named = {arm.name: arm for arm in arms}
    frozen = named["frozen"]
    value = _value(frozen)
    found = []
    for name in ("last stage tuned", "all tuned"):
        arm = named[name]
        if _beats(frozen, arm):
            found.append(f"{name} is worse than frozen: fewer layers, a lower --lr, or more images")
        if _value(arm) > value and arm.worst_recall < frozen.worst_recall - 0.05:
            found.append(
                f"{name} gains on the mean and loses on the weakest class: {_percent(frozen.worst_recall)} of it was "
                f"found before, {_percent(arm.worst_recall)} after"
            )
    for name in ("random weights", PIXELS):
        if not _beats(frozen, named[name]):
            found.append(f"the pre-trained features are no better than {name}: they say nothing of these images")
    alone = _share(single, frozen.measure)
    if value - alone > 0.03:
        found.append(
            f"several layers gain {_apart(value, alone):.1f} points on the last alone ({_percent(value)} against "
            f"{_percent(alone)}): it is made for other images than these"
        )
    return tuple(found)


def verdict(arms: dict[str, Arm]) -> str:
    """What the paired differences allow to say, in plain words."""
    frozen, scratch, drawn = arms["frozen"], arms["from scratch"], arms["random weights"]
    tuned = [arms[name] for name in ("last stage tuned", "all tuned")]
    best = max(tuned, key=_value)
    if _beats(scratch, best) and _beats(scratch, frozen):
        return "Transfer hurts here: the same network trained from scratch on your images is better"
    others = [arm for arm in (scratch, drawn, arms[PIXELS]) if not _beats(frozen, arm)]
    if others and not any(_beats(best, arm) for arm in others):
        *some, last = ("training from scratch" if arm is scratch else arm.name for arm in others)
        names = f"{', '.join(some)} and {last}" if some else last
        verb = "does" if others[0] is scratch and not some else "do"
        known = f"as far as {counted(len(frozen.marks), 'image')} can tell"
        return f"Transfer does not help here, {known}: {names} {verb} as well as the pre-trained network"
    n, of = len(frozen.marks), frozen.measure.name.replace("_", " ")
    said = (
        f"Transfer helps: the {of} of the frozen network is {_percent(_value(frozen))} on {counted(n, 'image')}, that "
        f"of training from scratch {_percent(_value(scratch))} ({_points(frozen, scratch):+.1f} points)"
    )
    if _beats(best, frozen):
        gained = f"gains another {_points(best, frozen):.1f} points ({_percent(_value(best))})"
        return f"{said}, and tuning pays: {best.name} {gained}"
    if _beats(frozen, best):
        return f"{said}; frozen is enough, tuning made it worse (fewer layers, or more images, may mend that)"
    return f"{said}; frozen is enough, tuning changes nothing that {counted(n, 'image')} could show"


def _value(arm: Arm) -> float:
    return float(arm.accuracy["value"] or 0.0)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _apart(one: float, other: float) -> float:
    """The difference in points of two shares as they are written."""
    return round(100 * one, 1) - round(100 * other, 1)


def _points(one: Arm, other: Arm) -> float:
    """By how many points the one is better, as the table says it."""
    return _apart(_value(one), _value(other))


def _beats(one: Arm, other: Arm) -> bool:
    """Whether the paired 95 % interval of the difference lies above 0."""
    return bool((one.measure.gain(one.marks, other.marks, None)["difference"]["low"] or 0.0) > 0)


def lines(found: Comparison) -> list[str]:
    """The table for the terminal."""
    head = f"{'arm':18s} {'accuracy':>8s}  {'95 % interval':16s} {'against frozen':>24s} {'seconds':>8s}"
    rows = [
        f"{counted(found.n_train, 'image')} to learn from, {found.n_judged:,} to judge by ({found.source})",
        "",
        head,
    ]
    if found.measure != "accuracy":
        rows.insert(1, "one class is rare: every accuracy below is a balanced one, in which each class counts the same")
    for arm in found.arms:
        a, d = arm.accuracy, arm.difference
        apart = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * end for end in ends(d))) if d else ""
        interval = f"[{a['low']:.1%}, {a['high']:.1%}]"
        rows.append(f"{arm.name:18s} {a['value']:8.1%}  {interval:16s} {apart:>24s} {arm.seconds:8.1f}")
    if any(arm.curve for arm in found.arms):
        rows += ["", f"{found.measure} with fewer training images:"]
        rows += [f"{a.name:18s} " + ", ".join(f"{value:.1%} with {n:,}" for n, value in a.curve) for a in found.arms]
    return [*rows, "", found.verdict, *(f"note: {flag}" for flag in found.flags)]
