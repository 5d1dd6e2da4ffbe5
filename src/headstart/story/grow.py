"""New images or classes for a saved model: `headstart fit --add-to MODEL DATA`.

The old images' features come from the store, so only new images go through the network; the heads are then fitted to
all of them, as if they had come together. What the old classes lose or gain is measured on the old images, paired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.data.given import kind_of
from headstart.data.sources import GoneSource
from headstart.data.splits import Split, hold_out, read_split
from headstart.data.table import Table
from headstart.errors import DataError, OptionError
from headstart.files.bundle import Bundle, read_with
from headstart.judge.marks import Marks
from headstart.ship.package import Loaded, unpack
from headstart.story import evidence
from headstart.story.growth import Growth
from headstart.story.opening import QUIET, Options, Watcher, aimed, features_of, read_at
from headstart.story.pipeline import Clock, Fitted, Seen, announce, examine, labelled, prove, taught
from headstart.story.plan import Plan, make_plan
from headstart.story.replacing import check_grows
from headstart.tasks.known import TASKS, with_confidence
from headstart.trunk.backbone import trunk_of
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import Features, store_key
from headstart.trunk.store import Store, cache_root


@dataclass(frozen=True)
class Old:
    """A saved model with the images that it was made of."""

    name: str
    loaded: Loaded
    split: Split
    source: str  # what judged it
    options: Options


def add_to(folder: str | Path, table: Table, options: Options, watch: Watcher = QUIET) -> Fitted:
    """The model of the saved one's images and those of `table` together, judged; `Fitted.growth` says what changed.

    Of `options` only `cache`, `ray` and `seed` are read: everything else is the saved model's. Raises HeadstartError.
    """
    clock = Clock()
    with clock("open the network"):
        table = labelled(table)
        old, backbone = read_with(folder, lambda bundle: (_open(bundle, options), trunk_of(bundle, options.cache)))
        backbone = replace(backbone, preprocess=old.loaded.backbone.preprocess)
        backbone = read_at(backbone, old.options)
        engine = compile_trunk(backbone, old.loaded.precision)
        store = Store(cache_root(options.cache), store_key(backbone, engine))
        before = _from_store(old, store, cache_root(options.cache))
    announce(table, watch)
    with clock("read images, run the network"):
        fresh = features_of(table, backbone, engine, old.options, watch.bar("network", len(table)), watch.say)
    with clock("find duplicates"):
        table, features, n_old = _together(old, before, table.take(fresh.kept), fresh)
        task = with_confidence(
            TASKS[old.loaded.task.name], old.options.coverage, old.options.max_error, old.options.sets
        )
        task = aimed(task, table, old.options)
        seen = examine(task, table, backbone, engine, features)
        plan = _plan(old, seen, n_old)
    fitted = prove(taught(task, seen, plan, old.options, watch, clock), watch)
    growth = _growth(old, fitted, n_old, len(seen.table) - n_old)
    return replace(fitted, growth=growth)


def _open(bundle: Bundle, options: Options) -> Old:
    """Raises DataError where the model's own list of images is gone or belongs to another, OptionError for a model
    that recognises."""
    check_grows(bundle)
    split = read_split(bundle.folder / "split.parquet")
    if split.fingerprint != bundle.manifest.get("data_fingerprint"):
        raise DataError(f"{bundle.folder / 'split.parquet'} is not the list of this model's images: copy it again")
    if "costs" in bundle.manifest.get("rule", {}):
        raise OptionError(
            f"{bundle.folder} decides by costs of its own classes: run headstart fit --cost on all images together"
        )
    known = {k: v for k, v in bundle.run["options"].items() if k in vars(Options())}
    if known.get("target"):
        raise OptionError(
            f"{bundle.folder} was fitted to a place of use: run headstart fit --target on all images together"
        )
    own = replace(Options(**known), backbone=str(bundle.folder), weights="auto", cache=options.cache, seed=options.seed)
    own = replace(own, tune="none", lr=None, budget=None)  # a tuned network is the one that is frozen now
    own = replace(own, ray=options.ray)
    found = bundle.metrics
    headline = found.get("test") or found.get("cross_validation") or {}
    return Old(bundle.folder.name, unpack(bundle), split, str(headline.get("source", "cross-validation")), own)


def _from_store(old: Old, store: Store, root: Path) -> Features:
    """The features of the old images. Raises DataError where the store has lost some."""
    hashes = tuple(map(str, old.split.hashes))
    lost = [str(name) for name, h in zip(old.split.names, hashes, strict=True) if h not in store]
    found = None if lost else store.read(hashes)
    if found is None:
        raise DataError(
            f"{len(lost) or 'some'} of the {len(hashes)} images of {old.name} have no features in the cache {root} any "
            f"more (the first, {lost[0] if lost else hashes[0]}): name the --cache that it was made with, or run "
            "`headstart fit` on all images together"
        )
    return Features(found.blocks, found.thumbnails, hashes, np.arange(len(hashes)), (), 0)


def _together(old: Old, before: Features, table: Table, fresh: Features) -> tuple[Table, Features, int]:
    """(all images, their features, how many are old): an image that was known stays as it was, unless its label is
    new."""
    labels = dict(zip(before.hashes, old.split.labels, strict=True))
    same = np.array([labels.get(h) == label for h, label in zip(fresh.hashes, table.labels, strict=True)], dtype=bool)
    replaced = {h for h, k in zip(fresh.hashes, same, strict=True) if h in labels and not k}
    kept = np.flatnonzero([h not in replaced for h in before.hashes])
    added = np.flatnonzero(~same)
    if not len(added):
        raise DataError(f"all {len(table)} images are in {old.name} already, with the same labels: nothing to add")
    split, new = old.split, table.take(added)
    counts = np.bincount(split.groups)
    groups = [f"{old.name} {code}" if counts[code] > 1 else "" for code in split.groups[kept]]
    judged = old.source != "cross-validation"
    splits = split.splits[kept] if judged else np.full(len(kept), "none", dtype=object)
    columns = [(split.names[kept], new.names), (split.labels[kept], new.labels), (splits, new.splits)]
    names, labelled_as, parts = (np.concatenate(pair) for pair in columns)
    joined = Table(
        names,
        labelled_as,
        parts,
        np.concatenate([np.array(groups, dtype=object), new.groups]),
        (*[GoneSource()] * len(kept), *new.sources),
        new.notes,
        f"{counted(len(kept), 'image')} of the model {old.name}, and {new.layout}",
        kind_of(labelled_as, old.loaded.kind),
        old.loaded.task.name,
        table.columns,
    )
    blocks = {name: np.concatenate([b[kept], fresh.blocks[name][added]]) for name, b in before.blocks.items()}
    thumbnails = np.concatenate([before.thumbnails[kept], fresh.thumbnails[added]])
    hashes = (*(before.hashes[k] for k in kept), *(fresh.hashes[k] for k in added))
    everything = np.arange(len(joined))
    return (
        joined,
        Features(blocks, thumbnails, hashes, everything, fresh.set_aside, fresh.n_forward, fresh.remarks),
        len(kept),
    )


def _plan(old: Old, seen: Seen, n_old: int) -> Plan:
    """The old split goes on; of new images without a split of their own the same share is held out."""
    splits, keys, seed = seen.table.splits.copy(), seen.features.hashes, old.options.seed
    new = np.arange(n_old, len(splits))
    unsplit = bool((splits[new] == "none").all())
    if old.source == "cross-validation" or not unsplit:
        return make_plan(splits, seen.targets.strata, seen.groups, keys, seed)
    name = "validation" if old.source == "validation folder" else "test"
    share = float((splits[:n_old] == name).mean())
    held = hold_out(seen.targets.strata[new], seen.groups[new], share, seed, [keys[row] for row in new])
    splits[new] = np.where(held, name, "train")
    for row in new:  # a copy of an old image stands where that one stands
        twins = np.flatnonzero(seen.groups[:n_old] == seen.groups[row])
        if len(twins):
            splits[row] = splits[twins[0]]
    plan = make_plan(splits, seen.targets.strata, seen.groups, keys, seed)
    return replace(plan, source=old.source)  # type: ignore[arg-type]


def _growth(old: Old, fitted: Fitted, n_old: int, n_new: int) -> Growth:
    """What was added, and what the model is worth on the old images before and after, paired."""
    here = np.flatnonzero(fitted.verdict.rows < n_old)
    rows, after = fitted.verdict.rows[here], fitted.verdict.marks.take(here)
    before = _marks_before(old, fitted, rows)
    groups, measure = fitted.seen.groups[rows], fitted.method.task.judging.headline
    new = tuple(name for name in fitted.seen.targets.names if name not in old.loaded.names)
    gain = measure.gain(after, before, groups)["difference"]
    return Growth(old.name, n_new, new, len(rows), measure.of(before, groups), measure.of(after, groups), gain)


def _marks_before(old: Old, fitted: Fitted, rows: npt.NDArray[np.int64]) -> Marks:
    """How the old model answers for the old images: those that judged it, or by cross-validation as it was judged."""
    task, part = old.loaded.task, fitted.seen.material(old.options.seed).part(rows)
    part = replace(part, targets=task.targets(fitted.seen.table.take(rows), old.loaded.names))
    if fitted.plan.judge is not None:
        return evidence.judge_rows(task, part, old.loaded.head, np.arange(len(rows)), old.loaded.rule).marks
    splits = np.full(len(rows), "none", dtype=object)
    plan = make_plan(splits, part.targets.strata, part.groups, part.keys, old.options.seed, False)
    return evidence.judge(part, plan, fitted.head, fitted.method, QUIET.bar).marks
