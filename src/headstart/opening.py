"""What the user may set, and the network that it opens: at which size, read at which layers, compiled."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from headstart.data import images
from headstart.data.augment import augmentation
from headstart.data.deep import said
from headstart.data.preprocess import check_bands
from headstart.data.ranges import ranges_of
from headstart.data.table import Table
from headstart.errors import DataError, ImageError, OptionError, OutputError
from headstart.learn import recipe, spec, trial
from headstart.learn.taps import LAST, one_layer, tap_sets
from headstart.learn.trained import Bar, Design, Epoch, check_layers, no_bar
from headstart.trunk.backbone import DEFAULT, open_backbone
from headstart.trunk.engine import Engine, accelerator, compile_trunk
from headstart.trunk.features import Features, extract, store_key
from headstart.trunk.layers import LAST_MAP
from headstart.trunk.network import Backbone, block_names, possible_sizes, tap_at
from headstart.trunk.store import IN_MEMORY, Store, cache_root
from headstart.trunk.tunable import tunable

SIZE_SAMPLE = 64  # image headers looked at to choose the input size: their median short side is known to a few percent

Say = Callable[[str], None]
Epochs = Callable[[int, int], Callable[[Epoch], None]]  # (epochs at most, images an epoch) -> called after each


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
    tune: str = "none"  # or "auto", "last", "all", a number of modules, a stage: trunk.tunable
    augment: str = "photo"  # random views for tuning: data.augment.KINDS
    lr: str | None = None  # peak learning rate of tuning, or "find"; None: learn.recipe.tuning
    budget: str | None = None  # of time for tuning: 90s, 10m, 2h; None: as the recipe says
    size: int | None = None  # px; None: learn.recipe.input_side
    precision: str = "auto"  # or "bf16", "f32"
    bands: str | None = None  # of a TIFF: those that are red, green and blue, from 1, such as "4,3,2"; None: as it says
    cache: str | None = None  # folder; None: HEADSTART_CACHE or the platform's
    seed: int = 0


@dataclass(frozen=True)
class Watcher:
    """How a run tells of itself: nothing by default; the command line prints."""

    say: Say = field(default=lambda text: None)
    bar: Bar = field(default=no_bar)
    epochs: Epochs = field(default=lambda total, n: lambda epoch: None)


QUIET = Watcher()


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
    found = sized(backbone, table, options)
    for line in said(found.preprocess.ranges):
        say(line)
    return found


def read_at(backbone: Backbone, options: Options) -> Backbone:
    """The backbone with the taps that the heads will read, and no others: what is not read need not be computed."""
    if options.tune != "none":
        tunable(backbone, "last" if options.tune == "auto" else options.tune)  # a wrong word is named before long work
        return backbone
    if options.head != "auto":
        tap = tap_at(backbone, options.layer or LAST_MAP, spec.pooling(spec.parse(options.head)))
        backbone = replace(backbone, taps=(tap,))
        check_layers(how(backbone, options, 1).design)
        return backbone
    if options.layer:
        return replace(backbone, taps=(tap_at(backbone, options.layer),))
    return replace(backbone, taps=()) if options.taps == "last" else backbone


def how(backbone: Backbone, options: Options, n_images: int) -> trial.Method:
    """Closed-form heads on the taps chosen, or the user's own layers on one of them, or a part of the network."""
    device = accelerator() or "cpu"
    if options.head == "auto":
        if options.layer:
            return trial.Method((one_layer(options.layer, backbone.taps[0].blocks[0]),))
        return trial.Method(tap_sets(options.taps, block_names(backbone)))
    tap, layers = backbone.taps[0], spec.parse(options.head)
    shape = tap.shape if "map" in tap.pools else (tap.channels,)
    training = recipe.training(n_images, options.epochs, options.batch_size, options.optimizer)
    design = Design(options.head, layers, tap.blocks[0], shape, training)
    return trial.Method((), design, None, device)


def check_head(options: Options) -> None:
    """Raises OptionError for a wrong --taps, --head, or what trains it, before anything slow."""
    tap_sets(options.taps, (LAST,))
    recipe.training(1, options.epochs, options.batch_size, options.optimizer)
    if options.head != "auto":
        spec.parse(options.head)
    bands_of(options.bands)
    rate_of(options.lr)
    seconds_of(options.budget)
    if options.tune == "none" and (options.lr or options.budget):
        raise OptionError(f"--{'lr' if options.lr else 'budget'} is of fine-tuning: add --tune auto")
    if options.tune != "none" and (options.layer or options.head != "auto" or options.taps != "auto"):
        raise OptionError("--tune learns in the network itself: leave out --head, --layer and --taps")
    augmentation(options.augment, False)
    if options.taps != "auto" and (options.layer or options.head != "auto"):
        raise OptionError(f"--taps {options.taps} says what --layer and --head say otherwise: leave it out")


def rate_of(lr: str | None) -> float | None:
    """The learning rate that `--lr` names; None where it is to be found, or is the recipe's. Raises OptionError."""
    if lr in (None, "find"):
        return None
    try:
        rate = float(lr or "")
    except ValueError:
        rate = math.nan
    if not 0 < rate <= 10:
        raise OptionError(f"lr {lr!r} is not allowed: a number above 0, at most 10, or find")
    return rate


def bands_of(bands: str | None) -> tuple[int, ...]:
    """The bands that `--bands` names, such as 4,3,2. Raises OptionError where Preprocess does not take them."""
    words = [] if bands is None else bands.replace(" ", "").split(",")
    if not all(re.fullmatch("[0-9]{1,5}", word) for word in words):
        raise OptionError(
            f"bands {bands!r} are not allowed: three whole numbers from 1, such as 4,3,2, or one for grey"
        )
    return check_bands(tuple(map(int, words)))


def seconds_of(budget: str | None) -> float | None:
    """A time such as 90s, 10m or 2h, in seconds. Raises OptionError."""
    if budget is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|min|h)", budget.strip())
    if not found or not float(found[1]):
        raise OptionError(f"budget {budget!r} is not a time: such as 90s, 10m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[found[2]]


def as_published(options: Options, say: Say = QUIET.say) -> Backbone:
    """The backbone at its own input size, or the user's: what its own top was trained for."""
    backbone = open_backbone(options.backbone, options.weights, options.seed, say)
    if options.bands:
        backbone = replace(backbone, preprocess=replace(backbone.preprocess, bands=bands_of(options.bands)))
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
    """The backbone with the input size that the recipe or the user gives, and the range of pictures of more than 8
    bits: by the images that teach."""
    side, crop = recipe.input_side(short_side(table), backbone.native_size, len(table.teaching))
    bands = bands_of(options.bands)
    own = replace(backbone.preprocess, ranges=ranges_of(table, bands), bands=bands)
    backbone = replace(backbone, preprocess=own)
    crop_fraction = own.crop_fraction if crop else 1.0
    if options.size is not None:
        return at_side(backbone, options.size, crop_fraction)
    return backbone.resized(replace(own, size=(side, side), crop_fraction=crop_fraction))


def short_side(table: Table) -> float:
    """Median short side in px of some images that teach, by their headers; that of a photograph if none can be
    read."""
    sides, rows = [], table.teaching
    for row in rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SIZE_SAMPLE)).astype(int))]:
        try:
            sides.append(min(images.size_of(table.read(int(row)))))
        except ImageError:
            continue
    return float(np.median(sides)) if sides else 256.0


def see(
    table: Table,
    backbone: Backbone,
    engine: Engine,
    options: Options,
    done: Callable[[int], None],
    say: Say = QUIET.say,
) -> Features:
    """The features of the table, from the store or the network; `say` is told how odd pictures were read.

    Raises DataError if no image can be read.
    """
    store = Store(cache_root(options.cache), store_key(backbone, engine))
    features = extract(table, backbone, engine, store, done)
    for line in features.remarks:
        say(f"note: {line}")
    if not len(features):
        name, reason = features.set_aside[0]
        raise DataError(f"none of {len(table)} images can be read; the first, {name}: {reason}")
    return features
