"""What fine-tuning needs of the data: activations at a cut, stored or live, and what a tuned network says of images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart import recipe
from headstart.counted import counted
from headstart.data.augment import Augmentation, augmentation, view
from headstart.data.table import Table
from headstart.data.targets import Targets
from headstart.errors import OptionError
from headstart.finetune.at_cut import AtCut, Live, Shelved, Stored, View
from headstart.finetune.job import Blocks, Session, Tuning
from headstart.finetune.tunable import Tunable, kind_of, share_of
from headstart.heads.spectrum import Doubles
from headstart.judge.marks import Marks
from headstart.story.options import Options, rate_of, seconds_of
from headstart.tasks.task import Task, closed_form
from headstart.trunk.engine import Engine
from headstart.trunk.features import extract_again, store_key
from headstart.trunk.layers import INPUT, Tap
from headstart.trunk.module import shapes
from headstart.trunk.network import Backbone, block_names, cut_at
from headstart.trunk.store import Store, cache_root

AUGMENTATION_VERSION = 1  # raised when the same settings would give other views
SHARE = 0.6  # of a time budget for the steps of training; reading, views and judging take the rest
Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


def prepare(
    task: Task,
    table: Table,
    hashes: tuple[str, ...],
    backbone: Backbone,
    options: Options,
    train: Ints,
    trainings: int,
) -> Tuning:
    """What learns and how. `train`: rows that may teach; `trainings`: how often that will happen (folds and all).

    Raises OptionError for a task of which nothing is learned step by step.
    """
    if task.objective is None:
        raise OptionError(f"--tune {options.tune} is not allowed for the task {task.name}: leave --tune away")
    n, rate = len(train), rate_of(options.lr)
    training = recipe.tuning(n, options.epochs, options.batch_size, backbone.random, rate, kind_of(backbone))
    how = augmentation(options.augment, backbone.preprocess.crop_fraction == 1.0)
    seconds, root = seconds_of(options.budget), cache_root(options.cache)
    reader = TableReader(
        table=table,
        hashes=hashes,
        backbone=backbone,
        train=train,
        epochs=training.epochs,
        views=Views(how, options.seed, options.augment != "none"),
        precision=options.precision,
        cache=root,
    )
    return Tuning(
        backbone=backbone,
        tune=options.tune,
        training=training,
        sets=task.sets("auto", block_names(backbone)),
        reader=reader,
        solve=partial(closed_form, task),
        objective=task.objective,
        mark=partial(marks_of, task),
        measure=task.judging.headline,
        precision=options.precision,
        find=options.lr == "find",
        seconds=None if seconds is None else SHARE * seconds / trainings,
        store=root,
        data=json.dumps([backbone.preprocess.to_json(), repr(how), options.seed, AUGMENTATION_VERSION]),
    )


def marks_of(task: Task, targets: Targets, outputs: Doubles, groups: Ints) -> Marks:
    """What the task's judge knows of outputs (image, output) for held-out images. What decides by them is chosen by the
    same images: for the tuned and the frozen model alike, which are compared there."""
    return task.judging.mark(targets, task.answers(outputs, task.rule(targets, outputs, groups)))


@dataclass(frozen=True)
class Views:
    """Random views of pictures: those of number 1, 2, ...; 0 is the picture itself. `varied`: whether there are any."""

    how: Augmentation
    seed: int
    varied: bool

    def of(self, pixels: Pixels, content_hash: str, number: int) -> Pixels:
        return view(pixels, self.how, self.seed, content_hash, number)

    def at(self, number: int, pixels: Pixels, content_hash: str) -> Pixels:
        return self.of(pixels, content_hash, number)

    def numbered(self, number: int) -> dict[str, object]:
        """What tells this view from others, in a store's key."""
        return {"view": [number, self.seed, AUGMENTATION_VERSION, repr(self.how)]}


@dataclass(frozen=True, eq=False)
class TableReader:
    """Reads the images of a table for a tuning. `hashes`: their content; `backbone`: the frozen network, of which the
    part below a cut makes activations; `train`: rows that may teach; `epochs` of a whole training."""

    table: Table
    hashes: tuple[str, ...] = field(repr=False)
    backbone: Backbone
    train: Ints = field(repr=False)
    epochs: int
    views: Views
    precision: str
    cache: Path

    def at_cut(self, what: Tunable, rows: Ints, epochs: int, session: Session) -> AtCut:
        """Of these rows for a trial, of all that may teach for a whole training: its folds come too. What was made
        before serves for a part of its images (live, for any) and for fewer epochs."""
        if what in session.activations:
            of, most, found = session.activations[what]
            if epochs <= most and (isinstance(found, Live) or np.isin(rows, of).all()):
                return found
        of = rows if epochs < self.epochs else self.train
        found = self._made(what, of, epochs, session)
        session.activations[what] = (of, epochs, found)
        return found

    def features(self, backbone: Backbone, rows: Ints, session: Session) -> Blocks:
        """What a network says of these rows, from the store or in one pass."""
        engine = session.engine_of(backbone, self.precision)
        store = Store(self.cache, store_key(backbone, engine))
        chosen, hashes = self._of(rows)
        return dict(extract_again(chosen, hashes, backbone, engine, store).blocks)

    def _made(self, what: Tunable, rows: Ints, epochs: int, session: Session) -> AtCut:
        """Live at the input, where a view costs no pass of a network; else stored, where that pays and fits."""
        network = self.backbone
        shape = shapes(network.module, (what.cut,), network.preprocess.size)[what.cut][1:]
        where = f"{what.cut} ({' x '.join(map(str, shape))})"
        learns = f"{what.n_parameters:,} of {counted(network.n_parameters, 'parameter')} learn above {where}"
        images = counted(len(rows), "image")
        if what.cut == INPUT:
            session.say(f"{learns}: {images} {'is' if len(rows) == 1 else 'are'} read anew in {_each(epochs)}")
            return self._live(shape, network, None)
        below = cut_at(network, Tap(f"cut at {what.cut}", shape[0], 1, ("map",), what.cut, shape))
        engine = session.compile(below, self.precision)
        n_views = recipe.n_views(len(rows)) if self.views.varied else 1
        needed = 2 * int(np.prod(shape)) * n_views * len(rows)
        size = f"{needed / 1e9:.2f} GB"
        why = self._no_use(what, epochs, n_views, needed)
        if why:
            would = f"{counted(n_views, 'stored view')} would take {size} and {why}"
            session.say(f"{learns}: the frozen part of the network runs anew in {_each(epochs)}, since {would}")
            return self._live(shape, below, engine)
        times = f"the frozen part runs {counted(n_views, 'time')} and not {epochs}"
        stored = f"activations of {counted(n_views, 'view')} of {images} are stored, {size}"
        session.say(f"{learns}: {stored}, and {times}")
        keys = tuple(store_key(below, engine) | (self.views.numbered(k) if k else {}) for k in range(n_views))
        found = [self._stored(k, keys[k], rows, below, engine, session) for k in range(n_views)]
        places = np.full(len(self.table), -1)
        places[rows] = np.arange(len(rows))
        shelved = Shelved(self.cache.absolute(), keys, below.taps[0].blocks[0], tuple(self._of(rows)[1]))
        return Stored(shape, found[0], tuple(found[1:]), places, shelved)

    def _no_use(self, what: Tunable, epochs: int, n_views: int, needed: int) -> str:
        """Why activations of so many bytes are not stored; "" where they are."""
        self.cache.mkdir(parents=True, exist_ok=True)
        share = share_of(self.backbone, what)
        if recipe.caches(epochs, n_views, share, needed, shutil.disk_usage(self.cache).free):
            return ""
        if epochs <= n_views:
            return "spare nothing"
        return f"spare {1 - share:.0%} of {counted(epochs - n_views, 'pass', 'passes')} through it"

    def _live(self, shape: tuple[int, ...], below: Backbone, engine: Engine | None) -> Live:
        varied: View | None = self.views.of if self.views.varied else None
        return Live(shape, self.table, self.hashes, below, engine, varied)

    def _stored(
        self,
        number: int,
        key: Mapping[str, object],
        rows: Ints,
        below: Backbone,
        engine: Engine,
        session: Session,
    ) -> npt.NDArray[np.floating]:
        """The activations of a view of each of these rows, from the store of this key or the network."""
        table, hashes = self._of(rows)
        bar, store = session.bar(f"view {number}", len(rows)), Store(self.cache, key)
        varied = partial(self.views.at, number) if number else None
        view = self.views.numbered(number) if number else {}
        through = None if session.elsewhere is None else session.elsewhere.sees(varied, view)
        found = extract_again(table, hashes, below, engine, store, bar, varied, through)
        return found.blocks[below.taps[0].blocks[0]]

    def _of(self, rows: Ints) -> tuple[Table, Sequence[str]]:
        """These rows of the table, and their content hashes."""
        return self.table.take(rows), [self.hashes[row] for row in rows]


def _each(epochs: int) -> str:
    return "the one epoch" if epochs == 1 else f"each of {epochs} epochs"
