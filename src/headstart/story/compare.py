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

from headstart import recipe
from headstart.counted import counted
from headstart.data.scarce import scarce, without
from headstart.data.splits import hold_out, nested_order
from headstart.data.table import Table
from headstart.errors import DataError, OptionError
from headstart.judge.metrics import accuracy_interval, balanced_interval, paired_balanced_gain, paired_gain
from headstart.story import trial
from headstart.story.opening import QUIET, Options, Watcher, open_network, see_again
from headstart.story.pipeline import Clock, Seen, check_labels, inspect, labelled, taught
from headstart.story.plan import Plan, check_classes, make_plan

Bools = npt.NDArray[np.bool_]
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
    """`right` (judged image,): which answers are right; `difference`: its accuracy minus the frozen model's, paired.
    `y` (judged image,): the classes where one is rare, and all numbers are balanced accuracies; None where none is."""

    name: str
    words: str
    accuracy: dict[str, Any]
    difference: dict[str, Any] | None
    seconds: float
    right: Bools
    worst_recall: float = 1.0  # of the classes
    curve: tuple[tuple[int, float], ...] = ()  # (training images, accuracy)
    y: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Comparison:
    n_train: int
    n_judged: int
    source: str  # which images judge
    arms: tuple[Arm, ...]
    flags: tuple[str, ...] = ()  # signs of negative transfer, in words

    @property
    def measure(self) -> str:
        return "accuracy" if self.arms[0].y is None else "balanced accuracy"

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
    seen, plan = start(table, options, watch)
    sizes = [_part(seen, plan, share, options.seed) for share in (SHARES if curve else ())]
    arms: list[Arm] = []
    for name, changes, words in ARMS:
        begun = time.perf_counter()
        options_here = replace(options, **changes)
        watch.say(f"{name}: {words}")
        there = _seen_as(seen, options_here, watch) if changes else seen
        right = right_with(there, plan, options_here, watch)
        less = [(len(p.train), right_with(there, p, options_here, watch)) for p in sizes]
        arms.append(_arm(name, words, seen, plan, right, arms, less, time.perf_counter() - begun))
    begun = time.perf_counter()
    less = [(len(p.train), _pixels(seen, p)) for p in sizes]
    right = _pixels(seen, plan)
    arms.append(_arm(PIXELS, "16 x 16 pixels, no network", seen, plan, right, arms, less, time.perf_counter() - begun))
    single = trial.single_layer_answers(seen.material(0), plan).argmax(axis=1) == seen.y[_judged(plan)]
    return Comparison(len(plan.train), len(_judged(plan)), plan.source, tuple(arms), flags(arms, single))


def start(table: Table, options: Options, watch: Watcher) -> tuple[Seen, Plan]:
    """What the frozen network sees, and who judges."""
    if options.weights == "none":
        raise OptionError("compare needs pre-trained weights: --weights none leaves nothing to compare")
    table = labelled(table)
    table = without(table, scarce(table, options.min_images), options.min_images)
    check_labels(table)
    seen = inspect(table, options, watch)
    plan = _plan(seen, options.seed)
    check_classes(seen.y, seen.classes, plan)
    return seen, plan


def _judged(plan: Plan) -> npt.NDArray[np.int64]:
    assert plan.judge is not None
    return plan.judge


def _part(seen: Seen, plan: Plan, share: float, seed: int) -> Plan:
    """The same with a stratified share of the training images, two of each class at least."""
    keys = [seen.features.hashes[row] for row in plan.train]
    least = 2 * len(seen.classes)
    order = nested_order(seen.y[plan.train], seed, keys)[: max(least, round(share * len(plan.train)))]
    return replace(plan, train=np.sort(plan.train[order]))


def _plan(seen: Seen, seed: int) -> Plan:
    splits, keys = seen.table.splits, seen.features.hashes
    if (splits == "none").all():
        held = hold_out(seen.y, seen.groups, HELD_OUT, seed, keys)
        used = np.where(held, "test", "train").astype(object)
        rows = np.arange(len(splits))
        return Plan("test split", rows[~held], rows[held], None, used)
    plan = make_plan(splits, seen.y, seen.groups, keys, seed)
    if plan.judge is None:
        raise DataError("the data have a train part and nothing to judge by: add a test part, or give no parts at all")
    return plan


def _seen_as(first: Seen, options: Options, watch: Watcher) -> Seen:
    """The first arm's rows and groups as another arm's network sees them."""
    backbone, engine = open_network(first.table, options, say=watch.say)
    bar = watch.bar("network", len(first.table))
    features = see_again(first.table, first.features.hashes, backbone, engine, options, bar)
    return replace(first, backbone=backbone, engine=engine, features=features)


def right_with(seen: Seen, plan: Plan, options: Options, watch: Watcher) -> Bools:
    """Which judged images the model of these options gets right."""
    learned = taught(seen, plan, options, watch, Clock())
    answers = trial.judge_rows(learned.material, learned.head, _judged(plan)).probabilities
    return np.asarray(answers.argmax(axis=1) == seen.y[_judged(plan)])


def _pixels(seen: Seen, plan: Plan) -> Bools:
    answers = trial.pixel_answers(seen.material(0), plan, seen.features.thumbnails)
    return np.asarray(answers.argmax(axis=1) == seen.y[_judged(plan)])


def _arm(
    name: str,
    words: str,
    seen: Seen,
    plan: Plan,
    right: Bools,
    before: list[Arm],
    less: list[tuple[int, Bools]],
    seconds: float,
) -> Arm:
    y, groups = seen.y[_judged(plan)], seen.groups[_judged(plan)]
    rare = recipe.unequal(np.bincount(seen.y[plan.train], minlength=len(seen.classes)).tolist())
    of = y if rare else None
    difference = _gain(right, before[0].right, of, groups) if before else None
    worst = min(float(right[y == k].mean()) for k in np.unique(y))
    curve = (*((n, _share(hit, of)) for n, hit in less), (len(plan.train), _share(right, of)))
    accuracy = balanced_interval(y, right, groups) if rare else accuracy_interval(right, groups)
    return Arm(name, words, accuracy, difference, round(seconds, 1), right, worst, curve if less else (), of)


def _share(right: Bools, y: npt.NDArray[np.int64] | None) -> float:
    """The share of right answers, of all images or as the mean over the classes."""
    if y is None:
        return float(right.mean())
    return float(np.mean([right[y == k].mean() for k in np.unique(y)]))


def _gain(
    one: Bools, other: Bools, y: npt.NDArray[np.int64] | None, groups: npt.NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """The paired difference of these shares with its interval."""
    found = paired_gain(one, other, groups) if y is None else paired_balanced_gain(y, one, other, groups)
    return dict(found["difference"])


def flags(arms: list[Arm], single: Bools) -> tuple[str, ...]:
    """Signs of negative transfer; `single`: what the last layer alone gets right."""
    named = {arm.name: arm for arm in arms}
    frozen = named["frozen"]
    value = frozen.accuracy["value"]
    found = []
    for name in ("last stage tuned", "all tuned"):
        arm = named[name]
        if _beats(frozen, arm):
            found.append(f"{name} is worse than frozen: fewer layers, a lower --lr, or more images")
        if arm.accuracy["value"] > value and arm.worst_recall < frozen.worst_recall - 0.05:
            found.append(
                f"{name} gains on the mean and loses on the weakest class: {_percent(frozen.worst_recall)} of it was "
                f"found before, {_percent(arm.worst_recall)} after"
            )
    for name in ("random weights", PIXELS):
        if not _beats(frozen, named[name]):
            found.append(f"the pre-trained features are no better than {name}: they say nothing of these images")
    alone = _share(single, frozen.y)
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
    best = max(tuned, key=lambda arm: arm.accuracy["value"])
    if _beats(scratch, best) and _beats(scratch, frozen):
        return "Transfer hurts here: the same network trained from scratch on your images is better"
    others = [arm for arm in (scratch, drawn, arms[PIXELS]) if not _beats(frozen, arm)]
    if others and not any(_beats(best, arm) for arm in others):
        *some, last = ("training from scratch" if arm is scratch else arm.name for arm in others)
        names = f"{', '.join(some)} and {last}" if some else last
        verb = "does" if others[0] is scratch and not some else "do"
        known = f"as far as {counted(len(frozen.right), 'image')} can tell"
        return f"Transfer does not help here, {known}: {names} {verb} as well as the pre-trained network"
    n, of = len(frozen.right), "accuracy" if frozen.y is None else "balanced accuracy"
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
    return float(arm.accuracy["value"])


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
    return bool((_gain(one.right, other.right, one.y)["low"] or 0.0) > 0)


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
        apart = f"{100 * d['value']:+.1f} ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})" if d else ""
        interval = f"[{a['low']:.1%}, {a['high']:.1%}]"
        rows.append(f"{arm.name:18s} {a['value']:8.1%}  {interval:16s} {apart:>24s} {arm.seconds:8.1f}")
    if any(arm.curve for arm in found.arms):
        rows += ["", f"{found.measure} with fewer training images:"]
        rows += [f"{a.name:18s} " + ", ".join(f"{value:.1%} with {n:,}" for n, value in a.curve) for a in found.arms]
    return [*rows, "", found.verdict, *(f"note: {flag}" for flag in found.flags)]
