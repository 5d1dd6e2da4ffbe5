"""A model of a folder of features, without the pictures: `headstart fit FEATURES/`.

The order is that of `pipeline.learn`; the network is opened for the saved model, and runs on nothing. What is asked of
pixels alone is left out: random weights and the files' headers as controls, views that are tried, pictures larger than
their thumbnails in the report. Everything else is, bit for bit, what a fit of the pictures gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart import recipe
from headstart.data.feature_set import TASKS as LEARNED
from headstart.data.feature_set import WHOLE, FeatureSet
from headstart.data.preprocess import Preprocess
from headstart.data.sources import GoneSource, RefusedSource
from headstart.data.table import Table
from headstart.data.tree import shown
from headstart.errors import BackboneError, DataError, HeadstartError, OptionError
from headstart.files.bundle import CONFIG, MANIFEST
from headstart.files.reading import read_regular
from headstart.heads.sums import Each
from headstart.heads.taps import LAST
from headstart.story.clock import Clock
from headstart.story.feature_rows import features_in
from headstart.story.opening import QUIET, Options, Watcher, aimed, read_at, refuse_others
from headstart.story.options import check
from headstart.story.pipeline import Fitted, announce, examine, labelled, prove, taught
from headstart.story.plan import make_plan
from headstart.tasks.known import TASKS, with_confidence, with_threshold
from headstart.trunk import scale
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import Bytes, Deliver
from headstart.trunk.features import Features
from headstart.trunk.network import Backbone, block_names
from headstart.trunk.store import cache_root

LOOKS = ("backbone", "weights", "seed", "size", "view", "views", "bands", "precision")  # by what pictures are seen
OF_PICTURES = ("tune", "head", "target", *LOOKS[3:])  # options that ask for the pictures
LEFT_OUT = (
    "fitted from features, without the pictures: no control with random weights, no look at the files themselves, and "
    "thumbnails in the report"
)


@dataclass(eq=False)
class Recorded:
    """The engine that has seen the pictures, as an `Engine` that sees no more."""

    name: str
    precision: str
    batch: int

    def run(self, batches: Iterable[tuple[Any, Bytes]], deliver: Deliver) -> None:
        """Raises HeadstartError."""
        raise HeadstartError("a fit of features sees no pictures: fit from the images themselves")


def seen_as(options: Options, model: str | None) -> dict[str, object]:
    """By what pictures are seen, for a folder of features; what lies on this disk by its whole path."""
    found: dict[str, object] = {name: getattr(options, name) for name in LOOKS}
    network = Path(model or options.backbone)
    if (network / MANIFEST).exists() or (network / CONFIG).exists():
        found["backbone"] = str(network.absolute())
    if options.weights not in ("auto", "none"):
        found["weights"] = str(Path(options.weights).absolute())
    return found


def check_possible(options: Options, found: FeatureSet, task: str) -> None:
    """Raises OptionError for what cannot be done without the pictures."""
    where, plain = shown(str(found.folder)), vars(Options())
    if LAST not in found.blocks:
        raise OptionError(
            f"{where} holds {', '.join(found.blocks)} alone, and a fit reads {LAST} too: make the features without "
            "--layer"
        )
    for name in OF_PICTURES:
        if (value := getattr(options, name)) != plain[name]:
            raise OptionError(
                f"--{name} {value} asks for the pictures, and {where} holds features: leave it out, or fit the images"
            )
    if options.backbone.partition(":")[0] == "auto":
        raise OptionError(f"--backbone {options.backbone} ranks networks on pictures: leave it out, {where} is of one")
    if task not in LEARNED:
        raise OptionError(
            f"--task {task} needs more of a picture than {where} holds: {', '.join(LEARNED)} are learned from features"
        )


def fit_features(found: FeatureSet, table: Table, options: Options, watch: Watcher = QUIET) -> Fitted:
    """As `pipeline.fit` of the pictures. `table`: whose rows have their features in the set. Raises HeadstartError."""
    clock = Clock()
    check(options)
    task = with_threshold(TASKS[table.task], options.threshold)
    task = with_confidence(task, options.coverage, options.max_error, options.sets)
    check_possible(options, found, task.name)
    with clock("open the network"), watch.step("open the network"):
        options, backbone = _network(found, options, watch)
    refuse_others(task, options)
    table = labelled(table)
    if options.min_images is not None:  # of images that can be read
        table = table.take([row for row, source in enumerate(table.sources) if isinstance(source, GoneSource)])
    table = task.prepare(table, options.min_images)
    table = replace(table, notes=(*table.notes, LEFT_OUT))
    task = aimed(task, table, options)
    announce(table, watch)
    seen_by = found.seen_by
    engine = Recorded(str(seen_by["engine"]), str(seen_by["precision"]), int(seen_by["batch"]))
    with clock("read features"):
        features = _features(found, table, options, watch)
    with clock("find duplicates"):
        seen = replace(examine(task, table, backbone, engine, features), enlarged=found.short_side < recipe.PHOTOGRAPH)
        plan = make_plan(seen.table.splits, seen.targets.strata, seen.groups, features.hashes, options.seed)
    return prove(taught(task, seen, plan, options, watch, clock), watch)


def _features(found: FeatureSet, table: Table, options: Options, watch: Watcher) -> Features:
    """Of the images of the table that could be read. Raises DataError where none could."""
    known = [(row, source.place) for row, source in enumerate(table.sources) if isinstance(source, GoneSource)]
    refused = [(str(table.names[row]), one) for row, one in enumerate(table.sources) if isinstance(one, RefusedSource)]
    if not known:
        raise DataError(
            f"none of {len(table)} images could be read; the first, {refused[0][0]}: {refused[0][1].reason}"
        )
    kept, rows = np.array(known, dtype=np.intp).T
    each = None if options.ray is None else _spread(found, options.ray)
    features = features_in(found, rows, cache_root(options.cache), watch.bar("features", len(rows)), each)
    return replace(features, kept=kept, set_aside=tuple((name, source.reason) for name, source in refused))


def _spread(found: FeatureSet, ray: str) -> Each:
    """Passes by a cluster that this process has joined. Raises HeadstartError where a node does not see the folder."""
    folder = found.folder.absolute()
    mark = mark_of(folder)
    with scale.joined(ray):
        for node, there in scale.ask_each_node(mark_of, folder):
            if there != mark:
                raise HeadstartError(
                    f"node {node} of the cluster does not see {folder} as this machine does: put it where all nodes "
                    "find it under the same path"
                )
    return scale.each


def mark_of(folder: Path) -> str:
    """On a node: what the folder says of itself, in short; "" where it is not there."""
    try:
        return hashlib.blake2b(read_regular(folder / WHOLE), digest_size=16).hexdigest()
    except OSError:
        return ""


def _network(found: FeatureSet, options: Options, watch: Watcher) -> tuple[Options, Backbone]:
    """The network of the features, read at what they hold, and the options by which it is opened: the user's name for
    it, or that of the folder. Raises HeadstartError where it cannot be opened, or is another one."""
    where, asked, seen_by = shown(str(found.folder)), found.options, found.seen_by
    known = {name: asked[name] for name in LOOKS if name != "seed" and name in asked}
    own = {n: getattr(options, n) for n in ("backbone", "weights") if getattr(options, n) != getattr(Options, n)}
    options = replace(options, **{**known, **own})
    say = "name it with --backbone, and a file of its weights with --weights"
    try:
        backbone = open_backbone(options.backbone, options.weights, int(asked.get("seed", 0)), watch.say, options.cache)
    except HeadstartError as error:
        raise BackboneError(f"the network of {where} cannot be opened here ({error}): {say}") from None
    backbone = backbone.resized(Preprocess.from_json(seen_by["preprocess"]))
    for name, here in (("backbone", backbone.name), ("weights", backbone.weights_hash)):
        if here != seen_by[name]:
            raise OptionError(f"{where} is of another network ({name}: {seen_by[name]}, here {here}): {say}")
    taps = tuple(tap for tap in backbone.taps if set(tap.blocks) <= set(found.blocks))
    backbone = read_at(replace(backbone, taps=taps), options)
    if lacking := [name for name in block_names(backbone) if name not in found.blocks]:
        raise OptionError(f"{where} does not hold {lacking[0]}: it holds {', '.join(found.blocks)}")
    return options, backbone
