"""Is transfer worth it here? Frozen, tuned, from scratch, random features, raw pixels: same images, paired.

Every arm learns from the same training images and answers for the same held-out ones; no arm's settings are chosen by
them. The verdict says in plain words what the differences allow (flags of negative transfer: methods such as the
probe of random weights, and training from scratch at equal epochs).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.splits import hold_out
from headstart.data.table import Table
from headstart.errors import DataError, OptionError
from headstart.judge.metrics import accuracy_interval, paired_gain
from headstart.learn import trial
from headstart.learn.material import Material
from headstart.learn.plan import Plan, check_classes, make_plan
from headstart.opening import QUIET, Options, Watcher, open_network, see
from headstart.pipeline import Clock, Seen, announce, check_labels, labelled, look, taught

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


@dataclass(frozen=True)
class Arm:
    """`right` (judged image,): which answers are right; `difference`: its accuracy minus the frozen model's, paired."""

    name: str
    words: str
    accuracy: dict[str, Any]
    difference: dict[str, Any] | None
    seconds: float
    right: Bools


@dataclass(frozen=True)
class Comparison:
    n_train: int
    n_judged: int
    source: str  # which images judge
    arms: tuple[Arm, ...]

    @property
    def verdict(self) -> str:
        return verdict({arm.name: arm for arm in self.arms})

    def to_json(self) -> dict[str, Any]:
        arms = [
            {"name": a.name, "what": a.words, "accuracy": a.accuracy, "difference": a.difference, "seconds": a.seconds}
            for a in self.arms
        ]
        return {"train": self.n_train, "n": self.n_judged, "source": self.source, "verdict": self.verdict, "arms": arms}


def compare(table: Table, options: Options, watch: Watcher = QUIET) -> Comparison:
    """Every arm on one split of the data: the user's, or a quarter of the images held out. Raises HeadstartError."""
    if options.weights == "none":
        raise OptionError("compare needs pre-trained weights: --weights none leaves nothing to compare")
    table = labelled(table)
    check_labels(table)
    announce(table, watch)
    seen = _seen(table, options, watch)
    plan = _plan(seen, options.seed)
    check_classes(seen.y, seen.classes, plan)
    assert plan.judge is not None
    groups = seen.groups[plan.judge]
    arms: list[Arm] = []
    for name, changes, words in ARMS:
        start = time.perf_counter()
        options_here = replace(options, **changes)
        there = _seen_as(seen, options_here, watch) if changes else seen
        right = _right(there, plan, options_here, watch)
        arms.append(_arm(name, words, right, arms, groups, time.perf_counter() - start))
    start = time.perf_counter()
    arms.append(
        _arm(PIXELS, "16 x 16 pixels, no network", _pixels(seen, plan), arms, groups, time.perf_counter() - start)
    )
    return Comparison(len(plan.train), len(plan.judge), plan.source, tuple(arms))


def _seen(table: Table, options: Options, watch: Watcher) -> Seen:
    backbone, engine = open_network(table, options, say=watch.say)
    return look(table, backbone, engine, see(table, backbone, engine, options, watch.bar("network", len(table))))


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
    features = see(first.table, backbone, engine, options, watch.bar("network", len(first.table)))
    return replace(first, backbone=backbone, engine=engine, features=features)


def _right(seen: Seen, plan: Plan, options: Options, watch: Watcher) -> Bools:
    """Which judged images this arm gets right."""
    assert plan.judge is not None
    learned = taught(seen, plan, options, watch, Clock())
    answers = trial.judge_rows(learned.material, learned.head, plan.judge).probabilities
    return np.asarray(answers.argmax(axis=1) == seen.y[plan.judge])


def _pixels(seen: Seen, plan: Plan) -> Bools:
    assert plan.judge is not None
    features = seen.features
    material = Material(features.blocks, seen.y, seen.groups, features.hashes, seen.classes, 0)
    answers = trial.pixel_answers(material, plan, features.thumbnails)
    return np.asarray(answers.argmax(axis=1) == seen.y[plan.judge])


def _arm(
    name: str,
    words: str,
    right: Bools,
    before: list[Arm],
    groups: npt.NDArray[np.int64],
    seconds: float,
) -> Arm:
    difference = paired_gain(right, before[0].right, groups)["difference"] if before else None
    return Arm(name, words, accuracy_interval(right, groups), difference, round(seconds, 1), right)


def verdict(arms: dict[str, Arm]) -> str:
    """What the paired differences allow to say, in plain words."""
    frozen, scratch, drawn = arms["frozen"], arms["from scratch"], arms["random weights"]
    tuned = [arms[name] for name in ("last stage tuned", "all tuned")]
    best = max(tuned, key=lambda arm: arm.accuracy["value"])
    if _beats(scratch, best) and _beats(scratch, frozen):
        return "Transfer hurts here: the same network trained from scratch on your images is better"
    others = [arm for arm in (scratch, drawn, arms[PIXELS]) if _beats(frozen, arm) is not True]
    if others and all(_beats(best, arm) is not True for arm in others):
        names = " and ".join(arm.name for arm in others)
        return (
            f"Transfer does not help here, as far as {len(frozen.right)} images can tell: {names} "
            f"{'does' if len(others) == 1 else 'do'} as well as the pre-trained network"
        )
    gain = 100 * (frozen.accuracy["value"] - scratch.accuracy["value"])
    said = f"Transfer helps: the frozen network is {gain:+.1f} points from training from scratch"
    if _beats(best, frozen):
        more = 100 * (best.accuracy["value"] - frozen.accuracy["value"])
        return f"{said}, and tuning pays: {best.name} gains another {more:.1f} points"
    if _beats(frozen, best):
        return f"{said}; frozen is enough, tuning made it worse (fewer layers, or more images, may mend that)"
    return f"{said}; frozen is enough, tuning changes nothing that {len(frozen.right)} images could show"


def _beats(one: Arm, other: Arm) -> bool:
    """Whether the paired 95 % interval of the difference lies above 0."""
    return bool((paired_gain(one.right, other.right)["difference"]["low"] or 0.0) > 0)


def lines(found: Comparison) -> list[str]:
    """The table for the terminal."""
    head = f"{'arm':18s} {'accuracy':>8s}  {'95 % interval':16s} {'against frozen':>24s} {'seconds':>8s}"
    rows = [f"{found.n_train} images to learn from, {found.n_judged} to judge by ({found.source})", "", head]
    for arm in found.arms:
        a, d = arm.accuracy, arm.difference
        apart = f"{100 * d['value']:+.1f} ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})" if d else ""
        interval = f"[{a['low']:.1%}, {a['high']:.1%}]"
        rows.append(f"{arm.name:18s} {a['value']:8.1%}  {interval:16s} {apart:>24s} {arm.seconds:8.1f}")
    return [*rows, "", found.verdict]
