"""The story of tasks whose answers lie in the picture: maps of a frozen network, a head on them, the judge.

table -> frame -> maps (one pass) -> copies -> who teaches, who judges -> a head, chosen by held-out images that teach
      -> the headline beside a model that never looks -> bundle and report
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data import images
from headstart.data.duplicates import DuplicateSet, find_duplicates, tie_groups
from headstart.data.shapes import upright_size
from headstart.data.splits import folds as stratified_folds
from headstart.data.table import Table
from headstart.data.targets import Targets
from headstart.errors import DataError, ImageError, OptionError
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints, rows_of
from headstart.heads.taps import LAST
from headstart.judge.intervals import Gain
from headstart.judge.marks import Marks, Score
from headstart.story.clock import Clock
from headstart.story.opening import QUIET, Watcher, announce_maps, features_again, features_of
from headstart.story.options import Options, auto_words, bands_of, check, seconds_of
from headstart.story.plan import Plan, make_plan
from headstart.tasks.placed import Answer, How, PlacedTask, Taught, Views, stacked
from headstart.tasks.task import Rule
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import Engine, accelerator, compile_trunk
from headstart.trunk.features import Features, extract_again, store_key
from headstart.trunk.network import Backbone, read_at, whole_maps
from headstart.trunk.store import Store, cache_root

FEW = 50  # images up to which each is judged once, in folds; of more a fifth is held out, as the learning takes minutes
FOLDS = 5
HELD_OUT = 0.2


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network saw: `sizes` (image, 2), (height, width) of the upright pictures in px."""

    table: Table
    backbone: Backbone
    engine: Engine
    features: Features
    targets: Targets
    sizes: Ints
    duplicates: list[DuplicateSet]
    groups: Ints

    @property
    def layers(self) -> tuple[Layer, ...]:
        return layers_of(self.backbone)


@dataclass(frozen=True, eq=False)
class Learned:
    """A model that has learned and is not judged yet. `seen`: the images as the frozen network sees them."""

    task: PlacedTask
    seen: Seen
    plan: Plan
    taught: Taught
    seconds: dict[str, float]
    options: Options

    @property
    def backbone(self) -> Backbone:
        """The network of the model: the one that was tuned, where one was."""
        tuned: Backbone | None = self.taught.backbone
        return tuned or self.seen.backbone


@dataclass(frozen=True, eq=False)
class Against:
    """What the model is held against on the same images: a model that never looks, or the frozen one."""

    kind: str
    score: Score
    difference: Gain


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model that has learned and was judged. `rows`: those judged, of the features; `marks`: theirs."""

    task: PlacedTask
    seen: Seen
    plan: Plan
    taught: Taught
    rows: Ints
    marks: Marks
    score: Score
    validation: Score | None
    against: tuple[Against, ...]
    seconds: dict[str, float]
    options: Options


def fit(task: PlacedTask, table: Table, options: Options, watch: Watcher = QUIET) -> Fitted:
    """Learn, then prove. Raises HeadstartError."""
    return prove(learn(task, table, options, watch), watch)


def learn(task: PlacedTask, table: Table, options: Options, watch: Watcher = QUIET, hold_out: bool = True) -> Learned:
    """A model that is not judged yet; `hold_out`: of many images a fifth does not teach and judges. Raises
    HeadstartError."""
    clock = Clock()
    check(options, trained=True)
    refuse_others(task.name, options)
    seen = look(task, table, options, watch, clock)
    plan = plan_of(seen, options.seed, hold_out)
    with clock("learn"):
        taught = task.learn(views_of(seen, options, watch), plan.train, how_of(options, watch))
    return Learned(task, seen, plan, taught, clock.seconds, options)


def prove(learned: Learned, watch: Watcher = QUIET) -> Fitted:
    """The headline, beside a model that never looks. Raises DataError where nothing can judge."""
    task, frozen, plan, options = learned.task, learned.seen, learned.plan, learned.options
    taught, clock = learned.taught, Clock(learned.seconds)
    with clock("judge"):
        seen = seen_by(frozen, taught, options, watch)
        rows, marks, before = judged(task, seen, frozen, plan, taught, options, watch)
        score = task.score(marks, seen.targets.names, seen.groups[rows], options.seed)
        validation = None
        if plan.validation is not None:
            found = marks_of(task, seen, taught, plan.validation)
            validation = task.score(found, seen.targets.names, seen.groups[plan.validation], options.seed)
        others = {"constant": never_looking(task, seen, plan, rows, taught.rule)}
        others |= {} if before is None else {"frozen": before}
        against = tuple(held_against(kind, task, seen, rows, marks, other, options) for kind, other in others.items())
    return Fitted(task, seen, plan, taught, rows, marks, score, validation, against, clock.seconds, options)


def look(task: PlacedTask, table: Table, options: Options, watch: Watcher, clock: Clock, maps: bool = True) -> Seen:
    """The table with what the network says of it; without `maps` what tells copies alone. Raises DataError where no
    image can be read or none has a truth."""
    table = table.take(np.asarray(table.labels != "", dtype=bool))
    if not len(table):
        raise DataError("no image has a truth to learn from: see what the data were read as")
    with clock("open the network"), watch.step("open the network"):
        backbone, engine = open_framed(task, table, options, watch, maps)
    for note in table.notes:
        watch.say(f"note: {note}")
    announce_maps(table, backbone, options, watch, len(FLIPS[options.augment]))
    with clock("read images, run the network"):
        features = features_of(table, backbone, engine, options, watch.bar("network", len(table)), watch.say)
    with clock("find duplicates"):
        kept = replace(table.take(features.kept), notes=(*table.notes, *features.remarks))
        duplicates = find_duplicates(features.hashes, features.blocks[LAST], features.thumbnails)
        groups = tie_groups(len(kept), duplicates, kept.groups)
        sizes = np.array([upright_size(kept.read(row)) for row in range(len(kept))], dtype=np.int64)
    return Seen(kept, backbone, engine, features, task.targets(kept, table.classes), sizes, duplicates, groups)


def open_framed(
    task: PlacedTask, table: Table, options: Options, watch: Watcher = QUIET, maps: bool = True
) -> tuple[Backbone, Engine]:
    """The backbone that sees whole pictures in the frame for these, read at the maps that the task's heads take."""
    backbone = open_backbone(options.backbone, options.weights, options.seed, watch.say, options.cache)
    tokens = backbone.tokens
    if tokens is not None and options.tune != "none":
        raise OptionError(
            f"--tune {options.tune} is not possible with {backbone.name} for --task {task.name}: a transformer's maps "
            "are made of tokens, and it does not work on from them; leave it out, or take a convolutional network"
        )
    frame = task.frame(sizes_that_teach(table), options.size, tokens.patch if tokens else None)
    seen = replace(backbone.preprocess, size=frame, resize="squash", crop_fraction=1.0, bands=bands_of(options.bands))
    backbone = backbone.resized(seen)
    if backbone.preprocess.size != frame:
        raise OptionError(
            f"{backbone.name} takes pictures of {backbone.preprocess.size[0]} px alone, and --task {task.name} needs "
            f"{frame[0]} x {frame[1]}: take a convolutional network, such as --backbone {Options.backbone}"
        )
    shapes = whole_maps(backbone, [tap.name for tap in backbone.taps]).taps if maps else ()
    stages = task.stages([(tap.name, tap.shape) for tap in shapes], frame) if maps else ()
    backbone = read_at(backbone, stages)
    return backbone, compile_trunk(backbone, options.precision)


def layers_of(backbone: Backbone) -> tuple[Layer, ...]:
    """The maps that a backbone gives."""
    return tuple(Layer(f"{t.name}/map", (t.shape[0], t.shape[1], t.shape[2])) for t in backbone.taps)


def sizes_that_teach(table: Table, most: int = 64) -> Ints:
    """(image, 2): (height, width) in px of some images that teach, by their headers. Raises DataError for none."""
    found, rows = [], table.teaching
    for row in rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int))]:
        try:
            found.append(upright_size(table.read(int(row))))
        except ImageError:
            continue
    if not found:
        raise DataError(f"none of the {len(table)} images can be read: look at them with headstart inspect")
    return np.array(found, dtype=np.int64)


def plan_of(seen: Seen, seed: int, hold_out: bool = True) -> Plan:
    """The user's own parts; else folds of few images, and a held-out fifth of more, where `hold_out` allows it."""
    splits, strata, hashes = seen.table.splits, seen.targets.strata, seen.features.hashes
    plan = make_plan(splits, strata, seen.groups, hashes, seed, may_hold_out=False)
    if plan.judge is not None or len(plan.train) <= FEW or not hold_out:
        return plan
    n = round(1 / HELD_OUT)
    keys = [hashes[row] for row in plan.train]
    groups = seen.groups[plan.train]
    if len(np.unique(groups)) < n:
        return plan
    held = stratified_folds(strata[plan.train], groups, n, seed, keys) == 0
    used = plan.splits.copy()
    used[plan.train[held]] = "test"
    return Plan("test split", plan.train[~held], plan.train[held], None, used)


def views_of(seen: Seen, options: Options, watch: Watcher = QUIET) -> Views:
    """What heads learn from."""

    def flipped(rows: Ints, across: bool, down: bool) -> Blocks:
        made = store_key(seen.backbone, seen.engine) | {"mirrored": {"across": across, "down": down}}
        store, hashes = Store(cache_root(options.cache), made), [seen.features.hashes[row] for row in rows]
        bar, how = watch.bar("network, mirrored", len(rows)), partial(_flip, across, down)
        return extract_again(seen.table.take(rows), hashes, seen.backbone, seen.engine, store, bar, how).blocks

    def pixels(rows: Ints) -> NDArray[np.uint8]:
        loaded = [images.load(seen.table.read(int(row)), seen.backbone.preprocess).array for row in rows]
        return np.stack(loaded)

    return Views(
        blocks={layer.block: seen.features.blocks[layer.block] for layer in seen.layers},
        layers=seen.layers,
        targets=seen.targets,
        sizes=seen.sizes,
        frame=seen.backbone.preprocess.size,
        groups=seen.groups,
        keys=seen.features.hashes,
        seed=options.seed,
        flipped=flipped,
        pixels=pixels,
        backbone=seen.backbone,
    )


def _flip(across: bool, down: bool, pixels: NDArray[np.uint8], key: str) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


# kinds of pictures (--augment) -> flips under which they stay pictures of that kind, see data/augment.py
ACROSS, ALL = ((True, False),), ((True, False), (False, True), (True, True))
FLIPS = {"photo": ACROSS, "aerial": ALL, "medical": ALL, "document": (), "none": ()}


def how_of(options: Options, watch: Watcher) -> How:
    return How(
        tune=options.tune,
        budget=seconds_of(options.budget),
        epochs=options.epochs,
        flips=FLIPS[options.augment],
        augment=options.augment,
        device=accelerator() or "cpu",
        folder=cache_root(options.cache),
        bar=watch.bar,
    )


def answers(task: PlacedTask, seen: Seen, taught: Taught, rows: Ints) -> Iterator[Answer]:
    """What the model says of these rows, one after the other."""
    blocks = {layer.block: seen.features.blocks[layer.block] for layer in taught.head.maps}
    frame = seen.backbone.preprocess.size
    for row in rows:
        found = taught.head.outputs(rows_of(blocks, np.array([row])))[0]
        yield task.answer(found, (int(seen.sizes[row, 0]), int(seen.sizes[row, 1])), frame, taught.rule)


def each_marked(task: PlacedTask, seen: Seen, taught: Taught, rows: Ints) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The marks of these rows, one after the other."""
    for row, answer in zip(rows, answers(task, seen, taught, rows), strict=True):
        yield task.marks(seen.targets, int(row), answer, taught.rule)


def marks_of(task: PlacedTask, seen: Seen, taught: Taught, rows: Ints, step: Any = None) -> Marks:
    """The marks of these rows."""
    each = []
    for one in each_marked(task, seen, taught, rows):
        each.append(one)
        if step is not None:
            step(1)
    return stacked(each, task.fill)


def judged(
    task: PlacedTask, seen: Seen, frozen: Seen, plan: Plan, taught: Taught, options: Options, watch: Watcher
) -> tuple[Ints, Marks, Marks | None]:
    """(rows, marks, marks of the frozen network's answers where a tuned one was kept) of the images that judge; where
    all teach, each by a model that the others taught. `frozen`: the images as the frozen network sees them."""
    if plan.judge is not None:
        marks = marks_of(task, seen, taught, plan.judge, watch.bar("judge", len(plan.judge)))
        return plan.judge, marks, marks_of(task, frozen, taught.frozen, plan.judge) if taught.frozen else None
    train, groups = plan.train, seen.groups[plan.train]
    n = min(FOLDS, len(np.unique(groups)))
    if n < 2:
        raise DataError("all images are copies of one, or of one group: give others, or a test part")
    fold = stratified_folds(
        seen.targets.strata[train], groups, n, options.seed, [seen.features.hashes[r] for r in train]
    )
    each: list[Any] = [None] * len(train)
    before: list[Any] = [None] * len(train)
    step, quiet = watch.bar("judge", len(train)), how_of(options, QUIET)
    views = views_of(frozen, options)
    for f in range(n):
        found = task.learn(views, train[fold != f], replace(quiet, budget=quiet.budget and quiet.budget / n))
        held = np.flatnonzero(fold == f)
        mine = seen_by(frozen, found, options)
        for k, one in zip(held, each_marked(task, mine, found, train[held]), strict=True):
            each[k] = before[k] = one
            step(1)
        if found.frozen is not None:
            for k, one in zip(held, each_marked(task, frozen, found.frozen, train[held]), strict=True):
                before[k] = one
    tuned = any(own is not other for own, other in zip(each, before, strict=True))
    return train, stacked(each, task.fill), stacked(before, task.fill) if tuned else None


def never_looking(task: PlacedTask, seen: Seen, plan: Plan, rows: Ints, rule: Rule) -> Marks:
    """Of a model that never looks, on the same images."""
    said = task.constant(seen.targets.take(plan.train), seen.targets.take(rows), seen.sizes[rows])
    each = [task.marks(seen.targets, int(row), answer, rule) for row, answer in zip(rows, said, strict=True)]
    return stacked(each, task.fill)


def held_against(
    kind: str, task: PlacedTask, seen: Seen, rows: Ints, marks: Marks, others: Marks, options: Options
) -> Against:
    """The model beside another one, by the marks of both on the same images."""
    score = task.score(others, seen.targets.names, seen.groups[rows], options.seed)
    return Against(kind, score, task.headline.gain(marks, others, seen.groups[rows]))


# of Options: what a task whose answers lie in the picture has no use for
OTHERS = ("taps", "layer", "head", "batch_size", "optimizer", "lr", "threshold", "coverage", "sets")
OTHERS += ("view", "views", "max_error", "aim", "cost", "positive", "false_alarms", "min_images", "target")


def refuse_others(name: str, options: Options) -> None:
    """Raises OptionError for an option that has no effect on such a task."""
    for field in OTHERS:
        value = getattr(options, field)
        if value != getattr(Options, field):
            raise OptionError(f"--{field.replace('_', '-')} {value} has no effect on --task {name}: leave it out")
    if auto_words(options.backbone) is not None:
        raise OptionError(
            f"--backbone {options.backbone} ranks classifiers, and --task {name} needs maps: name a network"
        )


def seen_by(seen: Seen, taught: Taught, options: Options, watch: Watcher = QUIET) -> Seen:
    """The same images, as the network that was tuned sees them; as they were seen, where none was."""
    if taught.backbone is None:
        return seen
    engine = compile_trunk(taught.backbone, options.precision)
    bar = watch.bar("tuned network", len(seen.table))
    found = features_again(seen.table, seen.features.hashes, taught.backbone, engine, options, bar)
    found = replace(found, kept=seen.features.kept, set_aside=seen.features.set_aside)
    return replace(seen, backbone=taught.backbone, engine=engine, features=found)
