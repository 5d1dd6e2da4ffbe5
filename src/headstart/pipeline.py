"""The whole story: a table of images ... a bundle and a report.

table -> backbone at the right size -> features (one pass) -> duplicates -> who teaches, who judges
      -> heads, chosen by leave-one-out -> the headline and its baselines -> bundle and report
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.bundle import read_bundle
from headstart.data import images
from headstart.data.duplicates import DuplicateSet, find_duplicates, tie_groups
from headstart.data.sources import GoneSource
from headstart.data.table import Table
from headstart.errors import DataError, ImageError, OptionError, OutputError, nearest
from headstart.judge.labels import Suspect, suspected_labels
from headstart.judge.metrics import score
from headstart.learn import recipe, spec, trial
from headstart.learn.plan import Plan, check_classes, make_plan
from headstart.learn.probe import Probe
from headstart.learn.taps import LAST, one_layer, plain, tap_sets
from headstart.learn.trained import Design, SpecHead, check_layers
from headstart.ship.package import Loaded, unpack
from headstart.ship.predict import Predictions, predict
from headstart.trunk.backbone import DEFAULT, open_backbone
from headstart.trunk.engine import Engine, accelerator, compile_trunk
from headstart.trunk.features import Features, extract, store_key
from headstart.trunk.layers import LAST_MAP
from headstart.trunk.network import Backbone, block_names, possible_sizes, tap_at
from headstart.trunk.store import IN_MEMORY, Store, cache_root

SIZE_SAMPLE = 64  # image headers looked at to choose the input size: their median short side is known to a few percent

Head = Probe | SpecHead
Say = Callable[[str], None]
Bar = Callable[[str, int], Callable[[int], None]]  # (stage, total) -> called with the number done since the last call


@dataclass(frozen=True)
class Options:
    """What the user may set; every other setting comes from the recipe."""

    backbone: str = DEFAULT
    weights: str = "auto"  # or "none", or a file
    taps: str = "auto"  # or "last", "all"
    layer: str | None = None  # the one layer to read; None: as `taps` says
    head: str = "auto"  # or layers in words, as learn.spec reads them
    epochs: int | None = None  # of a head of one's own layers, as the next two; None: learn.recipe.training
    batch_size: int | None = None
    optimizer: str = "adam"
    size: int | None = None  # px; None: learn.recipe.input_side
    precision: str = "auto"  # or "bf16", "f32"
    cache: str | None = None  # folder; None: HEADSTART_CACHE or the platform's
    seed: int = 0


@dataclass(frozen=True)
class Watcher:
    """How a run tells of itself: nothing by default; the command line prints."""

    say: Say = field(default=lambda text: None)
    bar: Bar = field(default=lambda stage, total: lambda done: None)


QUIET = Watcher()


@dataclass(frozen=True)
class Seen:
    """What the network saw: the material that everything later is made of."""

    table: Table  # the rows that could be read
    backbone: Backbone
    engine: Engine
    features: Features
    classes: tuple[str, ...]
    y: npt.NDArray[np.int64]  # (image,) class numbers
    duplicates: list[DuplicateSet]
    groups: npt.NDArray[np.int64]  # (image,)
    enlarged: bool


@dataclass(frozen=True)
class Learned:
    """A model that has learned and has not been judged yet."""

    seen: Seen
    plan: Plan
    head: Head
    method: trial.Method
    material: trial.Material
    options: Options
    seconds: dict[str, float]  # wall clock by stage


@dataclass(frozen=True)
class Fitted:
    """Everything that a fit found."""

    seen: Seen
    plan: Plan
    head: Head
    verdict: trial.Verdict
    view: Head  # the head of the timm view
    view_verdict: trial.Verdict
    validation: dict[str, Any] | None
    baselines: tuple[trial.Baseline, ...]
    curve: list[dict[str, Any]]
    suspects: list[Suspect]  # rows of the features
    leak_free: dict[str, Any] | None  # the score without judged images that have a copy among the training images
    seconds: dict[str, float]
    options: Options
    method: trial.Method
    growth: dict[str, Any] | None = None  # what was added to an earlier model (grow.py)


def fit(table: Table, options: Options, watch: Watcher = QUIET) -> Fitted:
    """Learn, then prove. Raises HeadstartError."""
    return prove(learn(table, options, watch), watch)


def learn(table: Table, options: Options, watch: Watcher = QUIET, hold_out: bool = True) -> Learned:
    """The frozen model. With `hold_out` false it learns from all but the user's own test and validation."""
    clock = Clock()
    with clock("open the network"):
        check_head(options)
        table = labelled(table)
        check_labels(table)
        backbone, engine = open_network(table, options, say=watch.say)
    announce(table, watch)
    announce_maps(table, backbone, options, watch)
    with clock("read images, run the network"):
        features = see(table, backbone, engine, options, watch.bar("network", len(table)))
    with clock("find duplicates"):
        seen = look(table, backbone, engine, features)
        plan = make_plan(seen.table.splits, seen.y, seen.groups, features.hashes, options.seed, hold_out)
    return taught(seen, plan, options, watch, clock)


def taught(seen: Seen, plan: Plan, options: Options, watch: Watcher, clock: Clock) -> Learned:
    """Heads for what the network saw. Raises DataError where a class cannot be learned."""
    with clock("fit heads"):
        check_classes(seen.y, seen.classes, plan)
        features = seen.features
        material = trial.Material(features.blocks, seen.y, seen.groups, features.hashes, seen.classes, options.seed)
        method = how(seen.backbone, options, len(plan.train))
        head = trial.final_head(material, plan, method, watch.bar)
    return Learned(seen, plan, head, method, material, options, clock.seconds)


def prove(learned: Learned, watch: Watcher = QUIET) -> Fitted:
    """Judge a learned model: the headline, its baselines, the learning curve, suspected labels."""
    clock = Clock(learned.seconds)
    seen, plan, head, material, options = learned.seen, learned.plan, learned.head, learned.material, learned.options
    with clock("judge"):
        verdict = trial.judge(material, plan, head, learned.method, watch.bar)
        validation = None if plan.validation is None else trial.judge_rows(material, head, plan.validation).score
        same = head.parts == plain().parts
        bare = material.without_maps()
        view, view_verdict = (head, verdict) if same else trial.timm_view(bare, plan)
        leak_free = _without_leaks(seen, plan, verdict)
        suspects = _suspects(seen, plan, head, verdict)
    with clock("baselines"):
        baselines = _baselines(seen, plan, bare, verdict, options, watch)
    with clock("learning curve"):
        curve = trial.curve(bare, plan, head, learned.method)
    return Fitted(
        seen,
        plan,
        head,
        verdict,
        view,
        view_verdict,
        validation,
        baselines,
        curve,
        suspects,
        leak_free,
        clock.seconds,
        options,
        learned.method,
    )


def labelled(table: Table) -> Table:
    """The images that have a label; a note says how many have none."""
    known = np.asarray(table.labels != "", dtype=bool)
    if known.all():
        return table
    return replace(table.take(known), notes=(*table.notes, f"not used: {int((~known).sum())} images without a label"))


def check_labels(table: Table) -> None:
    """Raises DataError on fewer than two classes or a class with one training image, before anything slow."""
    training = table.labels[np.isin(table.splits.astype(str), ("train", "none"))]
    if len(table.classes) < 2:
        raise DataError(
            f"only one class, {table.classes[0]!r}: at least 2 are needed" if table.classes else "no labels"
        )
    lonely = [name for name, count in Counter(training).items() if count == 1]
    if lonely:
        raise DataError(
            f"class {lonely[0]!r} has a single training image, at least 2 are needed: "
            "add images of it or remove the class"
        )


def announce(table: Table, watch: Watcher) -> None:
    """Say what the data were read as, and what was passed over."""
    watch.say(table.layout)
    for note in table.notes:
        watch.say(f"note: {note}")


def announce_maps(table: Table, backbone: Backbone, options: Options, watch: Watcher) -> None:
    """Say what feature maps will take on disk. Raises OutputError where that is more than there is."""
    values = sum(tap.widths[tap.pools.index("map")] for tap in backbone.taps if "map" in tap.pools)
    if not values:
        return
    size, place = 2 * values * len(table), cache_root(options.cache)
    place.mkdir(parents=True, exist_ok=True)
    needed, free = size * (2 if size > IN_MEMORY else 1), shutil.disk_usage(place).free
    said = f"feature maps of {len(table)} images, {values} values each: {size / 1e9:.2f} GB in {place}"
    if needed > free:
        raise OutputError(
            f"{said}, and {needed / 1e9:.2f} GB are needed where {free / 1e9:.2f} GB are free: begin --head with gap, "
            "take a smaller --size, or another --cache"
        )
    watch.say(said)


def open_network(table: Table, options: Options, random: bool = False, say: Say = QUIET.say) -> tuple[Backbone, Engine]:
    """The backbone at the size for these images, compiled; with `random` the same network with random weights."""
    backbone = read_at(open_at_size(table, options, random, say), options)
    return backbone, compile_trunk(backbone, options.precision)


def open_at_size(table: Table, options: Options, random: bool = False, say: Say = QUIET.say) -> Backbone:
    """The backbone at the size for these images."""
    if not 0 <= options.seed < 2**32:
        raise OptionError(f"seed {options.seed} is not allowed: a whole number from 0 to {2**32 - 1}")
    backbone = open_backbone(options.backbone, "none" if random else options.weights, options.seed, say)
    return sized(backbone, table, options)


def read_at(backbone: Backbone, options: Options) -> Backbone:
    """The backbone with the taps that the heads will read, and no others: what is not read need not be computed."""
    if options.head != "auto":
        tap = tap_at(backbone, options.layer or LAST_MAP, spec.pooling(spec.parse(options.head)))
        backbone = replace(backbone, taps=(tap,))
        check_layers(how(backbone, options, 1).design)
        return backbone
    if options.layer:
        return replace(backbone, taps=(tap_at(backbone, options.layer),))
    return replace(backbone, taps=()) if options.taps == "last" else backbone


def how(backbone: Backbone, options: Options, n_images: int) -> trial.Method:
    """Closed-form heads on the taps chosen, or the user's own layers on one of them."""
    if options.head == "auto":
        if options.layer:
            return trial.Method((one_layer(options.layer, backbone.taps[0].blocks[0]),))
        return trial.Method(tap_sets(options.taps, block_names(backbone)))
    tap, layers = backbone.taps[0], spec.parse(options.head)
    shape = tap.shape if "map" in tap.pools else (tap.channels,)
    training = recipe.training(n_images, options.epochs, options.batch_size, options.optimizer)
    design = Design(options.head, layers, tap.blocks[0], shape, training)
    return trial.Method((), design, accelerator() or "cpu")


def check_head(options: Options) -> None:
    """Raises OptionError for a wrong --taps, --head, or what trains it, before anything slow."""
    tap_sets(options.taps, (LAST,))
    recipe.training(1, options.epochs, options.batch_size, options.optimizer)
    if options.head != "auto":
        spec.parse(options.head)
    if options.taps != "auto" and (options.layer or options.head != "auto"):
        raise OptionError(f"--taps {options.taps} says what --layer and --head say otherwise: leave it out")


def as_published(options: Options, say: Say = QUIET.say) -> Backbone:
    """The backbone at its own input size, or the user's: what its own top was trained for."""
    backbone = open_backbone(options.backbone, options.weights, options.seed, say)
    return at_side(backbone, options.size, backbone.preprocess.crop_fraction) if options.size else backbone


def at_side(backbone: Backbone, side: int, crop_fraction: float) -> Backbone:
    """The backbone at an input side in px that the user has set. Raises OptionError where it cannot be."""
    if not 16 <= side <= 1024:
        raise OptionError(f"size {side} px is not allowed: 16 to 1024")
    found = backbone.resized(replace(backbone.preprocess, size=(side, side), crop_fraction=crop_fraction))
    if found.preprocess.size != (side, side):
        raise OptionError(f"size {side} px is not possible with {backbone.name}: {possible_sizes(backbone)}")
    return found


def sized(backbone: Backbone, table: Table, options: Options) -> Backbone:
    """The backbone with the input size that the recipe or the user gives."""
    side, crop = recipe.input_side(_short_side(table), backbone.native_size, len(table))
    own = backbone.preprocess
    crop_fraction = own.crop_fraction if crop else 1.0
    if options.size is not None:
        return at_side(backbone, options.size, crop_fraction)
    return backbone.resized(replace(own, size=(side, side), crop_fraction=crop_fraction))


def _short_side(table: Table) -> float:
    """Median short side in px of some images, by their headers; that of a photograph if none can be read."""
    sides = []
    for row in np.unique(np.linspace(0, len(table) - 1, min(len(table), SIZE_SAMPLE)).astype(int)):
        try:
            sides.append(min(images.size_of(table.read(int(row)))))
        except ImageError:
            continue
    return float(np.median(sides)) if sides else 256.0


def see(table: Table, backbone: Backbone, engine: Engine, options: Options, done: Callable[[int], None]) -> Features:
    """The features of the table, from the store or the network. Raises DataError if no image can be read."""
    store = Store(cache_root(options.cache), store_key(backbone, engine))
    features = extract(table, backbone, engine, store, done)
    if not len(features):
        name, reason = features.set_aside[0]
        raise DataError(f"none of {len(table)} images can be read; the first, {name}: {reason}")
    return features


def look(table: Table, backbone: Backbone, engine: Engine, features: Features) -> Seen:
    kept = table.take(features.kept)
    classes = table.classes
    number = {name: k for k, name in enumerate(classes)}
    unknown = sorted({str(label) for label in kept.labels if label not in number})
    if unknown:
        raise DataError(f"label {unknown[0]!r} is not among the training classes {', '.join(classes[:10])}")
    y = np.array([number[label] for label in kept.labels], dtype=np.int64)
    duplicates = find_duplicates(features.hashes, features.blocks[LAST], features.thumbnails)
    groups = tie_groups(len(kept), duplicates, kept.groups)
    enlarged = _short_side(table) < recipe.PHOTOGRAPH
    return Seen(kept, backbone, engine, features, classes, y, duplicates, groups, enlarged)


def _baselines(
    seen: Seen, plan: Plan, material: trial.Material, verdict: trial.Verdict, options: Options, watch: Watcher
) -> tuple[trial.Baseline, ...]:
    found = [
        trial.most_frequent(material, plan, verdict),
        trial.raw_pixels(material, plan, verdict, seen.features.thumbnails),
    ]
    if options.head != "auto":
        found.append(trial.closed_form(material, plan, verdict))
    drawn = trial.draw_for_baseline(material, plan)
    at_hand = not any(isinstance(seen.table.sources[row], GoneSource) for row in drawn)
    if options.weights != "none" and at_hand:
        random, engine = open_network(seen.table, options, random=True)
        features = see(seen.table.take(drawn), random, engine, options, watch.bar("random weights", len(drawn)))
        found.append(trial.random_weights(material, plan, drawn, features.blocks))
    return tuple(found)


def _suspects(seen: Seen, plan: Plan, head: Head, verdict: trial.Verdict) -> list[Suspect]:
    """Suspected labels of the training images (left-out predictions) and of the judged ones."""
    probabilities = np.full((len(seen.y), len(seen.classes)), np.nan)
    probabilities[plan.train] = np.exp(head.left_out)
    probabilities[verdict.rows] = verdict.probabilities
    rows = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    found = suspected_labels(seen.y[rows], probabilities[rows], seen.classes)
    return [Suspect(int(rows[s.row]), s.suggested, s.score) for s in found]


def _without_leaks(seen: Seen, plan: Plan, verdict: trial.Verdict) -> dict[str, Any] | None:
    """The score of the judged images without those that share a group with a training image; None if there are none."""
    if plan.judge is None:
        return None
    clean = ~np.isin(seen.groups[plan.judge], seen.groups[plan.train])
    if clean.all() or not clean.any():
        return None
    rows = plan.judge[clean]
    return score(seen.y[rows], verdict.probabilities[clean], seen.classes, seen.groups[rows])


def load(folder: str | Path) -> Loaded:
    """A saved model. Raises BundleError."""
    return unpack(read_bundle(folder))


def evaluate(model: Loaded, table: Table, seed: int = 0, watch: Watcher = QUIET) -> tuple[dict[str, Any], Predictions]:
    """The score of a saved model on labelled images; classes are matched by name.

    Raises DataError for a label that the model does not know, and where no image can be read.
    """
    table = labelled(table)
    unknown = sorted({str(label) for label in table.labels} - set(model.classes))
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise DataError(
            f"the model does not know the class {unknown[0]!r}{more}{nearest(unknown[0], model.classes)}: it knows "
            f"{', '.join(model.classes[:20])}; rename the folder or take it out"
        )
    found = predict(model, table, progress=watch.bar("network", len(table)))
    rows = np.flatnonzero(found.readable)
    if not len(rows):
        raise DataError(f"none of {len(table)} images can be read; the first, {found.names[0]}: {found.errors[0]}")
    number = {name: k for k, name in enumerate(model.classes)}
    y = np.array([number[str(label)] for label in table.labels[rows]], dtype=np.int64)
    groups = tie_groups(len(rows), [], table.groups[rows])
    return score(y, found.probabilities[rows].astype(np.float64), model.classes, groups, seed), found


def inspect(table: Table, options: Options, watch: Watcher = QUIET) -> Seen:
    """Broken files, duplicates, leaks and conflicts, before anything is trained."""
    table = labelled(table)
    backbone, engine = open_network(table, options, say=watch.say)
    announce(table, watch)
    return look(table, backbone, engine, see(table, backbone, engine, options, watch.bar("network", len(table))))


class Clock:
    """Wall-clock seconds by stage."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
