"""The whole story: a table of images ... a bundle and a report.

table -> backbone at the right size -> features (one pass) -> duplicates -> who teaches, who judges
      -> heads, chosen by leave-one-out -> the headline and its baselines -> bundle and report
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headstart import recipe
from headstart.counted import counted
from headstart.data.deep import said
from headstart.data.duplicates import DuplicateSet, find_duplicates, tie_groups
from headstart.data.scarce import training_images, without
from headstart.data.second_look import looking_at
from headstart.data.sources import GoneSource
from headstart.data.table import Table
from headstart.data.targets import Targets
from headstart.errors import DataError
from headstart.files.bundle import read_bundle
from headstart.finetune.record import TuningRecord
from headstart.heads.material import Material
from headstart.heads.novelty import Novelty
from headstart.heads.taps import LAST, plain
from headstart.heads.without import Shared
from headstart.judge.crossing import CurvePoint
from headstart.judge.labels import Suspect
from headstart.judge.marks import Score
from headstart.judge.shortcut import Told
from headstart.ship.package import Loaded, unpack
from headstart.ship.predict import Predictions, predict_with_features
from headstart.story import evidence
from headstart.story.by_group import ByGroup, by_group
from headstart.story.careful import careful
from headstart.story.clock import Clock
from headstart.story.given_away import given_away
from headstart.story.growth import Growth
from headstart.story.opening import (
    QUIET,
    Options,
    Watcher,
    aimed,
    announce_maps,
    features_again,
    features_of,
    method_of,
    open_network,
    refuse_others,
    session_of,
    short_side,
)
from headstart.story.options import check
from headstart.story.pairing import Pairing, weighed
from headstart.story.plan import Plan, make_plan
from headstart.story.rank import Ranking, chosen
from headstart.story.target import TAPS as LATE
from headstart.story.target import Target, moved, refuse_target, target_of
from headstart.story.trust import Trust, trust_of
from headstart.story.unlike import unlike
from headstart.story.view import Sight, sighted
from headstart.tasks.known import TASKS, with_confidence, with_threshold
from headstart.tasks.task import Head, Rule, Task
from headstart.tasks.two_classes import asked_for, judged_by
from headstart.trunk.engine import Engine
from headstart.trunk.features import Features
from headstart.trunk.network import Backbone
from headstart.trunk.store import cache_root

if TYPE_CHECKING:
    from headstart.finetune.tune import Tuned

LEAST_SHOWN = 0.05  # s between the stages of a fit: less is nobody's concern


@dataclass(frozen=True)
class Seen:
    """What the network saw: the material that everything later is made of."""

    table: Table  # the rows that could be read
    backbone: Backbone
    engine: Engine
    features: Features
    targets: Targets
    duplicates: list[DuplicateSet]
    groups: npt.NDArray[np.int64]  # (image,)
    enlarged: bool
    ranking: Ranking | None = None  # of networks, where `--backbone auto` chose this one
    sight: Sight | None = None  # of views, where they were tried
    pairing: Pairing | None = None  # of a second network, where there was one

    def material(self, seed: int) -> Material:
        """Its features with their labels."""
        return Material(self.features.blocks, self.targets, self.groups, self.features.hashes, seed)


@dataclass(frozen=True)
class Learned:
    """A model that has learned and has not been judged yet. `seen` and `material`: by the tuned network, if there is
    one; `frozen`: by the frozen one."""

    seen: Seen
    plan: Plan
    head: Head
    method: evidence.Method
    material: Material
    options: Options
    seconds: dict[str, float]  # wall clock by stage
    frozen: Material
    tuned: Tuned | None = None
    shared: Shared | None = None  # what is known of the training images' features, for those who judge
    target: Target | None = None  # pictures of the place of use

    @property
    def rule(self) -> Rule:
        """What turns the head's outputs into decisions."""
        return evidence.rule_of(self.method.task, self.material, self.plan.train, self.head)


@dataclass(frozen=True)
class Fitted:
    """Everything that a fit found."""

    seen: Seen
    plan: Plan
    head: Head
    verdict: evidence.Verdict
    view: Head | None  # the head of the timm view; None where that has no top
    view_verdict: evidence.Verdict
    validation: Score | None
    baselines: tuple[evidence.Baseline, ...]
    curve: list[CurvePoint]
    suspects: list[Suspect]  # rows of the features
    leak_free: Score | None  # the score without judged images that have a copy among the training images
    seconds: dict[str, float]
    options: Options
    method: evidence.Method
    rule: Rule
    tuning: TuningRecord | None = None
    growth: Growth | None = None
    trust: Trust | None = None
    groups: ByGroup | None = None
    shortcut: Told | None = None
    novelty: Novelty | None = None
    target: Target | None = None  # pictures of the place of use, to which the head is moved after it was judged

    @property
    def tuned(self) -> bool:
        """Whether the network of the model was tuned."""
        return self.tuning is not None and self.tuning.kept


def fit(table: Table, options: Options, watch: Watcher = QUIET, task: Task | None = None) -> Fitted:
    """Learn, then prove. Raises HeadstartError."""
    return prove(learn(table, options, watch, task=task), watch)


def learn(
    table: Table, options: Options, watch: Watcher = QUIET, hold_out: bool = True, task: Task | None = None
) -> Learned:
    """The frozen model. With `hold_out` false it learns from all but the user's own test and validation."""
    clock, task = Clock(), with_threshold(task or TASKS[table.task], options.threshold)
    task = with_confidence(task, options.coverage, options.max_error, options.sets)
    check(options)
    refuse_others(task, options)
    refuse_target(task, options)
    table = task.prepare(labelled(table), options.min_images)
    task = aimed(task, table, options)
    options, ranking = chosen(task, table, options, watch, clock)
    options, sight = sighted(task, table, options, watch, clock)
    options, pairing = weighed(task, table, options, watch, clock)
    with clock("open the network"), watch.step("open the network"):
        backbone, engine = open_network(table, options, say=watch.say, whole=task.whole, maps=task.maps)
    announce(table, watch)
    announce_maps(table, backbone, options, watch)
    with clock("read images, run the network"):
        table, features = features_of_enough(task, table, backbone, engine, options, watch)
    with clock("find duplicates"):
        seen = examine(task, table, backbone, engine, features)
        seen = replace(seen, ranking=ranking, sight=sight, pairing=pairing)
        splits, strata = seen.table.splits, seen.targets.strata
        spent = frozenset[str]().union(*(choice.hashes for choice in (ranking, sight, pairing) if choice))
        plan = make_plan(splits, strata, seen.groups, features.hashes, options.seed, hold_out, spent)
    return taught(task, seen, plan, options, watch, clock)


def taught(task: Task, seen: Seen, plan: Plan, options: Options, watch: Watcher, clock: Clock) -> Learned:
    """Heads for what the network saw. Raises DataError where a class cannot be learned."""
    with clock("fit heads"), watch.step("fit heads"):
        task.check(seen.targets, plan.train)
        material = seen.material(options.seed)
        method = method_of(task, seen.backbone, options, len(plan.train), bool((seen.table.groups != "").any()))
        if options.tune == "none":
            target = target_of(material, plan.train, seen.backbone, seen.engine, options, watch)
            if target is not None and target.differs:
                method = replace(method, sets=task.sets(LATE, tuple(material.blocks)))
            shared = evidence.shared_of(material, plan, method)
            head = evidence.final_head(material, plan, method, watch.bar, shared)
            return Learned(seen, plan, head, method, material, options, clock.seconds, material, None, shared, target)
    return _tuned(seen, plan, material, method, options, watch, clock)


def _tuned(
    seen: Seen, plan: Plan, material: Material, method: evidence.Method, options: Options, watch: Watcher, clock: Clock
) -> Learned:
    """As `taught`: a part of the network learns too."""
    from headstart.finetune.together import Elsewhere  # torch
    from headstart.finetune.tune import tune
    from headstart.story.activations_of import prepare

    task, features = method.task, seen.features
    with clock("tune"):
        trainings = 1 if plan.judge is not None else 1 + recipe.TRAINED_FOLDS
        tuning = prepare(task, seen.table, features.hashes, seen.backbone, options, plan.train, trainings)
        session = session_of(watch, method.device)
        if options.ray is not None:
            session = replace(session, elsewhere=Elsewhere(options.ray, cache_root(options.cache)))
        method = replace(method, sets=tuning.sets, tuning=tuning, session=session)
        n, training = len(plan.train), tuning.training
        line = watch.epochs(training.epochs + recipe.finish(training, n).epochs, n)
        tuned = tune(tuning, material, plan.train, session, line)
    if tuned.backbone is None:
        return Learned(seen, plan, tuned.head, method, material, options, clock.seconds, material, tuned)
    with clock("read images, run the tuned network"):
        engine = session.engine_of(tuned.backbone, options.precision)
        bar = watch.bar("tuned network", len(seen.table))
        again = features_again(seen.table, features.hashes, tuned.backbone, engine, options, bar)
        again = replace(again, kept=features.kept, set_aside=features.set_aside)
        seen = replace(seen, backbone=tuned.backbone, engine=engine, features=again)
        new = replace(material, blocks=again.blocks)
    return Learned(seen, plan, tuned.head, method, new, options, clock.seconds, material, tuned)


def prove(learned: Learned, watch: Watcher = QUIET) -> Fitted:
    """Judge a learned model: the headline, its baselines, the learning curve, suspected labels."""
    clock = Clock(learned.seconds)
    seen, plan, head, material, options = learned.seen, learned.plan, learned.head, learned.material, learned.options
    method, task, rule = learned.method, learned.method.task, learned.rule
    with clock("judge"):
        view: Head = learned.tuned.top if learned.tuned else head
        if learned.tuned and learned.tuned.backbone and plan.judge is None:
            verdict, view_verdict = evidence.cross_tuned(learned.frozen, plan, method, watch.bar)
        else:
            # where the frozen model was kept it alone is judged: it was fitted in seconds
            once = replace(method, tuning=None) if learned.tuned else method
            verdict = evidence.judge(material, plan, head, once, watch.bar, learned.shared)
            view_verdict = verdict if view is head else evidence.judge(material, plan, view, once, watch.bar)
        if task.own is None and view.parts != plain().parts:
            view, view_verdict = evidence.timm_view(task, material.without_maps(), plan, learned.shared)
        novelty = unlike(task, material, plan.train, head, bool(learned.tuned and learned.tuned.backbone))
        rule = careful(rule, material, plan, head, method, verdict)
        validation = None
        if plan.validation is not None:
            validation = evidence.judge_rows(task, material, head, plan.validation, rule).score
        leak_free = _without_leaks(task, seen, plan, verdict)
        trust = trust_of(task, material, plan, head, rule, verdict)
        groups = by_group(seen.table.groups, seen.duplicates, material, plan, head, method, verdict, learned.shared)
        suspects = _suspects(task, seen, plan, head, rule, verdict)
        if trust and trust.dropped:  # what the model says of pictures of another kind accuses no label
            judged = set(verdict.rows.tolist())
            suspects = [s for s in suspects if s.row not in judged]
    bare = learned.frozen.without_maps()
    with clock("baselines"):
        baselines = _baselines(seen, plan, bare, verdict, learned, watch)
    with clock("learning curve"), watch.step("learning curve"):
        curve = evidence.curve(bare, plan, head, method, learned.shared)
    final, target = moved(learned.target, head, material, plan.train)
    return Fitted(
        seen,
        plan,
        final,
        verdict,
        (final if view is head else view) if task.own is None else None,
        view_verdict,
        validation,
        baselines,
        curve,
        suspects,
        leak_free,
        clock.seconds,
        options,
        method,
        rule,
        learned.tuned.record if learned.tuned else None,
        trust=trust,
        groups=groups,
        shortcut=given_away(seen.table, plan.train, seen.groups, options.seed),
        novelty=novelty,
        target=target,
    )


def timed(fitted: Fitted, started: float, whole: float) -> Fitted:
    """With the time, in s, that the program took until the fit began, and that lies between its stages."""
    between = whole - started - sum(fitted.seconds.values())
    rest = {"between these stages": between} if between >= LEAST_SHOWN else {}
    return replace(fitted, seconds={"start the program": started, **fitted.seconds, **rest})


def labelled(table: Table) -> Table:
    """The images that have a label; a note says how many have none."""
    known = np.asarray(table.labels != "", dtype=bool)
    if known.all():
        return table
    return replace(
        table.take(known), notes=(*table.notes, f"not used: {counted(int((~known).sum()), 'image')} without a label")
    )


def features_of_enough(
    task: Task, table: Table, backbone: Backbone, engine: Engine, options: Options, watch: Watcher
) -> tuple[Table, Features]:
    """The table and its features, without the classes of which fewer than --min-images images can be read."""
    features = features_of(table, backbone, engine, options, watch.bar("network", len(table)), watch.say)
    if options.min_images is None:
        return table, features
    kept = table.take(features.kept)
    counted = training_images(kept)
    few = {name: counted.get(name, 0) for name in table.classes if counted.get(name, 0) < options.min_images}
    if not few:
        return table, features
    smaller = without(table, few, options.min_images)
    watch.say(f"note: {smaller.notes[-1]}, since others cannot be read")
    task.prepare(smaller, None)
    again = features_of(smaller, backbone, engine, options, watch.bar("network", len(smaller)))  # all from the store
    return smaller, replace(again, n_forward=features.n_forward)


def announce(table: Table, watch: Watcher) -> None:
    """Say what was passed over. What the data were read as has been said: before the heavy imports."""
    for note in table.notes:
        watch.say(f"note: {note}")


def examine(
    task: Task, table: Table, backbone: Backbone, engine: Engine, features: Features, look_again: bool = False
) -> Seen:
    """What the network saw, with the truth of each image, and which images are copies; look_again: cropped and framed
    ones too, for which files are read a second time."""
    notes = (*table.notes, *said(backbone.preprocess.ranges), *features.remarks)
    kept = replace(table.take(features.kept), notes=notes)
    targets = task.targets(kept, table.classes)  # of all: a class of which nothing can be read is not forgotten
    look = looking_at(kept, backbone.preprocess) if look_again else None
    duplicates = find_duplicates(features.hashes, features.blocks[LAST], features.thumbnails, look)
    groups = task.ties(kept, duplicates, features.hashes)
    enlarged = short_side(table) < recipe.PHOTOGRAPH
    return Seen(kept, backbone, engine, features, targets, duplicates, groups, enlarged)


def _baselines(
    seen: Seen, plan: Plan, material: Material, verdict: evidence.Verdict, learned: Learned, watch: Watcher
) -> tuple[evidence.Baseline, ...]:
    task, options = learned.method.task, learned.options
    if task.own is not None and not task.own.comparable(seen.targets.take(verdict.rows)):
        return ()
    found = [
        evidence.constant(task, material, plan, verdict),
        evidence.raw_pixels(task, material, plan, verdict, seen.features.thumbnails),
    ]
    if options.tune != "none":
        found.append(evidence.frozen(task, material, plan, verdict, learned.method.sets))
    if options.head != "auto":
        found.append(evidence.own_head(task, material, plan, verdict))
    drawn = evidence.draw_for_baseline(task, material, plan)
    at_hand = not any(isinstance(seen.table.sources[row], GoneSource) for row in drawn)
    if options.weights != "none" and at_hand:
        random, engine = open_network(seen.table, replace(options, tune="none"), random=True, whole=task.whole)
        hashes, bar = [seen.features.hashes[row] for row in drawn], watch.bar("random weights", len(drawn))
        features = features_again(seen.table.take(drawn), hashes, random, engine, options, bar)
        found.append(evidence.random_weights(task, material, plan, drawn, features.blocks))
    return tuple(found)


def _suspects(task: Task, seen: Seen, plan: Plan, head: Head, rule: Rule, verdict: evidence.Verdict) -> list[Suspect]:
    """Suspected labels of the training images (left-out answers) and of the judged ones."""
    if task.suspects is None:
        return []
    answers = np.full((len(seen.targets), *verdict.answers.shape[1:]), np.nan)
    answers[plan.train] = task.answers(head.left_out, rule)
    answers[verdict.rows] = verdict.answers
    rows = np.flatnonzero(~np.isnan(answers.reshape(len(answers), -1)[:, 0]))
    found = task.suspects(seen.targets.take(rows), answers[rows])
    return [replace(s, row=int(rows[s.row])) for s in found]


def _without_leaks(task: Task, seen: Seen, plan: Plan, verdict: evidence.Verdict) -> Score | None:
    """The score of the judged images without those that share a group with a training image; None if there are none."""
    if plan.judge is None:
        return None
    clean = ~np.isin(seen.groups[plan.judge], seen.groups[plan.train])
    if clean.all() or not clean.any():
        return None
    return task.judging.score(verdict.marks.take(clean), seen.targets.names, seen.groups[plan.judge[clean]], 0)


def load(folder: str | Path) -> Loaded:
    """A saved model. Raises BundleError."""
    return unpack(read_bundle(folder))


def judged_part(table: Table) -> str | None:
    """The part of a table that a model is scored on: the test part, else the validation part, else (None) all of it."""
    return next((split for split in ("test", "validation") if (table.splits == split).any()), None)


def evaluate(
    model: Loaded,
    table: Table,
    seed: int = 0,
    watch: Watcher = QUIET,
    engine: Engine | None = None,
    positive: str | None = None,
) -> tuple[Score, Predictions]:
    """The score of a saved model on labelled images, on the test part alone where there is one; what the truth names is
    matched by name. `engine`: the model's, if it is compiled already. `positive`: instead of the model's.

    Raises OptionError where that is no class of two, DataError for an unknown label, and where no image can be read.
    """
    asked, part = asked_for(model.task, positive, model.names), judged_part(table)
    table = labelled(table.take(table.splits == part) if part else table)
    targets = model.task.targets(table, model.names)
    found, blocks = predict_with_features(model, table, engine, progress=watch.bar("network", len(table)))
    rows = np.flatnonzero(found.readable)
    if not len(rows):
        raise DataError(f"none of {len(table)} images can be read; the first, {found.names[0]}: {found.errors[0]}")
    groups = tie_groups(len(rows), [], table.groups[rows])
    judging, own = model.task.judging, model.task.own
    if own is not None:
        return own.given(Material(blocks, targets.take(rows), groups, (), seed), model.head).score, found
    marks = judging.mark(targets.take(rows), found.answers[rows].astype(np.float64))
    judging = judged_by(model.task, model.rule, asked).judging
    return judging.score(marks, model.names, groups, seed), found


def inspect(
    table: Table, options: Options, watch: Watcher = QUIET, task: Task | None = None, look_again: bool = True
) -> Seen:
    """Broken files, duplicates, leaks and conflicts, before anything is trained."""
    table, task = labelled(table), task or TASKS[table.task]
    backbone, engine = open_network(table, options, say=watch.say, whole=task.whole, maps=task.maps)
    announce(table, watch)
    table, features = features_of_enough(task, table, backbone, engine, options, watch)
    return examine(task, table, backbone, engine, features, look_again)
