"""What fine-tuning needs of the data: activations at a cut, stored or live, and what a tuned network says of images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from headstart import recipe
from headstart.counted import counted
from headstart.data.augment import Augmentation, augmentation, view
from headstart.data.table import Table
from headstart.finetune.activations import Activations, Live, Stored, View
from headstart.finetune.tunable import Tunable, kind_of, share_of
from headstart.finetune.tune import Blocks, Tuning
from headstart.story.opening import Watcher
from headstart.story.options import Options, rate_of, seconds_of
from headstart.tasks.task import Task, closed_form
from headstart.trunk.engine import Engine, compile_trunk
from headstart.trunk.features import extract_again, store_key
from headstart.trunk.layers import INPUT, Tap
from headstart.trunk.network import Backbone, block_names, cut_at, shapes
from headstart.trunk.store import Store, cache_root

AUGMENTATION_VERSION = 1  # raised when the same settings would give other views
SHARE = 0.6  # of a time budget for the steps of training; reading, views and judging take the rest
Ints = npt.NDArray[np.int64]


def prepare(
    task: Task,
    table: Table,
    hashes: tuple[str, ...],
    backbone: Backbone,
    options: Options,
    train: Ints,
    trainings: int,
    watch: Watcher,
) -> Tuning:
    """What learns and how. `train`: rows that may teach; `trainings`: how often that will happen (folds and all)."""
    n, rate = len(train), rate_of(options.lr)
    training = recipe.tuning(n, options.epochs, options.batch_size, backbone.random, rate, kind_of(backbone))
    how = augmentation(options.augment, backbone.preprocess.crop_fraction == 1.0)
    seconds = seconds_of(options.budget)
    known: dict[Tunable, tuple[Ints, int, Activations]] = {}

    def activations(what: Tunable, rows: Ints, epochs: int) -> Activations:
        """Of these rows for a trial, of all that may teach for a whole training: its folds come too. What was made
        before serves for a part of its images (live, for any) and for fewer epochs."""
        if what in known:
            of, most, found = known[what]
            if epochs <= most and (isinstance(found, Live) or np.isin(rows, of).all()):
                return found
        of = rows if epochs < training.epochs else train
        found = _at_cut(what, table, hashes, backbone, options, how, of, epochs, watch)
        known[what] = (of, epochs, found)
        return found

    compiled: dict[str, Engine] = {}  # of the last network asked for

    def features(tuned: Backbone, rows: Ints) -> Blocks:
        if tuned.weights_hash not in compiled:
            compiled.clear()
            compiled[tuned.weights_hash] = compile_trunk(tuned, options.precision)
        engine = compiled[tuned.weights_hash]
        store = Store(cache_root(options.cache), store_key(tuned, engine))
        return dict(extract_again(table.take(rows), [hashes[row] for row in rows], tuned, engine, store).blocks)

    return Tuning(
        backbone,
        options.tune,
        training,
        task.sets("auto", block_names(backbone)),
        activations,
        features,
        partial(closed_form, task),
        options.precision,
        options.lr == "find",
        None if seconds is None else SHARE * seconds / trainings,
        cache_root(options.cache),
        json.dumps([backbone.preprocess.to_json(), repr(how), options.seed, AUGMENTATION_VERSION]),
        watch.say,
        watch.bar,
    )


def _at_cut(  # noqa: PLR0913 - as `prepare`
    what: Tunable,
    table: Table,
    hashes: tuple[str, ...],
    backbone: Backbone,
    options: Options,
    how: Augmentation,
    rows: Ints,
    epochs: int,
    watch: Watcher,
) -> Activations:
    """Of these rows: live at the input, where a view costs no pass of a network; else stored, where that pays and
    fits."""

    def random_view(pixels: npt.NDArray[np.uint8], content_hash: str, number: int) -> npt.NDArray[np.uint8]:
        return view(pixels, how, options.seed, content_hash, number)

    varied: View | None = None if options.augment == "none" else random_view
    shape = shapes(backbone.module, (what.cut,), backbone.preprocess.size)[what.cut][1:]
    where = f"{what.cut} ({' x '.join(map(str, shape))})"
    learns = f"{what.n_parameters:,} of {counted(backbone.n_parameters, 'parameter')} learn above {where}"
    images = counted(len(rows), "image")
    if what.cut == INPUT:
        watch.say(f"{learns}: {images} {'is' if len(rows) == 1 else 'are'} read anew in {_each(epochs)}")
        return Live(shape, table, hashes, backbone, None, varied)
    tap = Tap(f"cut at {what.cut}", shape[0], 1, ("map",), what.cut, shape)
    cut, root = cut_at(backbone, tap), cache_root(options.cache)
    engine, n_views = compile_trunk(cut, options.precision), recipe.n_views(len(rows)) if varied else 1
    needed = 2 * int(np.prod(shape)) * n_views * len(rows)
    root.mkdir(parents=True, exist_ok=True)
    size = f"{needed / 1e9:.2f} GB"
    share = share_of(backbone, what)
    if not recipe.caches(epochs, n_views, share, needed, shutil.disk_usage(root).free):
        spared = f"spare {1 - share:.0%} of {counted(epochs - n_views, 'pass', 'passes')} through it"
        if epochs <= n_views:
            spared = "spare nothing"
        why = f"{counted(n_views, 'stored view')} would take {size} and {spared}"
        watch.say(f"{learns}: the frozen part of the network runs anew in {_each(epochs)}, since {why}")
        return Live(shape, table, hashes, cut, engine, varied)
    times = f"the frozen part runs {counted(n_views, 'time')} and not {epochs}"
    stored = f"activations of {counted(n_views, 'view')} of {images} are stored, {size}"
    watch.say(f"{learns}: {stored}, and {times}")
    chosen, known, store = table.take(rows), [hashes[row] for row in rows], Store(root, store_key(cut, engine))
    still = extract_again(chosen, known, cut, engine, store, watch.bar("view 0", len(rows)))
    found = [_stored_view(k, chosen, known, cut, engine, options, how, watch) for k in range(1, n_views)]
    places = np.full(len(table), -1)
    places[rows] = np.arange(len(rows))
    return Stored(shape, still.blocks[tap.blocks[0]], tuple(found), places)


def _each(epochs: int) -> str:
    return "the one epoch" if epochs == 1 else f"each of {epochs} epochs"


def _stored_view(
    number: int,
    table: Table,
    hashes: Sequence[str],
    cut: Backbone,
    engine: Engine,
    options: Options,
    how: Augmentation,
    watch: Watcher,
) -> npt.NDArray[np.floating]:
    """The activations of a random view of each image of the table, from the store or the network."""

    def change(pixels: npt.NDArray[np.uint8], content_hash: str) -> npt.NDArray[np.uint8]:
        return view(pixels, how, options.seed, content_hash, number)

    key = store_key(cut, engine) | {"view": [number, options.seed, AUGMENTATION_VERSION, repr(how)]}
    store = Store(cache_root(options.cache), key)
    found = extract_again(table, hashes, cut, engine, store, watch.bar(f"view {number}", len(table)), change)
    return found.blocks[cut.taps[0].blocks[0]]
