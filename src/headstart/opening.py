"""What the user may set, and the network that it opens: at which size, read at which layers, compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from headstart.data import images
from headstart.data.augment import augmentation, view
from headstart.data.table import Table
from headstart.errors import DataError, ImageError, OptionError, OutputError
from headstart.learn import recipe, spec, trial
from headstart.learn.finetune import Tuning
from headstart.learn.taps import LAST, TapSet, one_layer, tap_sets
from headstart.learn.trained import Design, check_layers
from headstart.trunk.backbone import DEFAULT, open_backbone
from headstart.trunk.engine import Engine, accelerator, compile_trunk
from headstart.trunk.features import Features, extract, store_key
from headstart.trunk.layers import LAST_MAP, Tap
from headstart.trunk.network import Backbone, block_names, possible_sizes, shapes, tap_at
from headstart.trunk.store import IN_MEMORY, Store, cache_root
from headstart.trunk.tunable import tunable

AUGMENTATION_VERSION = 1  # raised when the same settings would give other views
SIZE_SAMPLE = 64  # image headers looked at to choose the input size: their median short side is known to a few percent

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
    tune: str = "none"  # or "auto", "last", "all", a number of modules, a stage: trunk.tunable
    augment: str = "photo"  # random views for tuning: data.augment.KINDS
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
    if options.tune != "none":
        cut = tunable(backbone, "last" if options.tune == "auto" else options.tune).cut
        return replace(backbone, taps=(*backbone.taps, cut_tap(backbone, cut)))
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
    if options.tune != "none":
        tuning = tuning_of(backbone, options, n_images)
        return trial.Method(tuning.sets, None, tuning, device)
    if options.head == "auto":
        if options.layer:
            return trial.Method((one_layer(options.layer, backbone.taps[0].blocks[0]),))
        return trial.Method(tap_sets(options.taps, block_names(backbone)))
    tap, layers = backbone.taps[0], spec.parse(options.head)
    shape = tap.shape if "map" in tap.pools else (tap.channels,)
    training = recipe.training(n_images, options.epochs, options.batch_size, options.optimizer)
    design = Design(options.head, layers, tap.blocks[0], shape, training)
    return trial.Method((), design, None, device)


def cut_tap(backbone: Backbone, cut: str) -> Tap:
    """The whole activation at a cut point, as the network has it."""
    shape = shapes(backbone.module, (cut,), backbone.preprocess.size)[cut]
    return Tap(f"cut at {cut}", shape[1], 1, ("map",), cut, shape[1:])


def tuned_against(backbone: Backbone) -> tuple[TapSet, ...]:
    """The frozen model's tap sets: all blocks but the activation at the cut."""
    return tap_sets("auto", tuple(name for name in block_names(backbone) if not name.endswith("/map")))


def tuning_of(backbone: Backbone, options: Options, n_images: int) -> Tuning:
    """What learns and how, without its views yet."""
    automatic = options.tune == "auto"
    tap = backbone.taps[-1]
    return Tuning(
        backbone,
        tunable(replace(backbone, taps=backbone.taps[:-1]), "last" if automatic else options.tune),
        tap.blocks[0],
        tap.shape,
        recipe.tuning(n_images, options.epochs, options.batch_size, backbone.random),
        automatic,
        tuned_against(backbone),
        ("ridge", "lda"),
    )


def with_views(tuning: Tuning, table: Table, rows: npt.NDArray[np.int64], options: Options, watch: Watcher) -> Tuning:
    """The same with random views of these rows of the table (training images) at the cut; one trunk pass a view."""
    how = augmentation(options.augment, tuning.backbone.preprocess.crop_fraction == 1.0)
    if options.augment == "none":
        return tuning
    cut = replace(tuning.backbone, taps=tuning.backbone.taps[-1:], ends=())
    engine = compile_trunk(cut, options.precision)
    chosen, views = table.take(rows), []
    for number in range(1, recipe.n_views(len(rows))):
        key = store_key(cut, engine) | {"view": [number, options.seed, AUGMENTATION_VERSION, repr(how)]}

        def change(pixels: npt.NDArray[np.uint8], content_hash: str, number: int = number) -> npt.NDArray[np.uint8]:
            return view(pixels, how, options.seed, content_hash, number)

        bar = watch.bar(f"view {number}", len(rows))
        found = extract(chosen, cut, engine, Store(cache_root(options.cache), key), bar, change)
        views.append(found.blocks[tuning.block])
    places = np.full(len(table), -1)
    places[rows] = np.arange(len(rows))
    return replace(tuning, views=tuple(views), view_rows=places)


def check_head(options: Options) -> None:
    """Raises OptionError for a wrong --taps, --head, or what trains it, before anything slow."""
    tap_sets(options.taps, (LAST,))
    recipe.training(1, options.epochs, options.batch_size, options.optimizer)
    if options.head != "auto":
        spec.parse(options.head)
    if options.tune != "none" and (options.layer or options.head != "auto" or options.taps != "auto"):
        raise OptionError("--tune learns in the network itself: leave out --head, --layer and --taps")
    augmentation(options.augment, False)
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
    side, crop = recipe.input_side(short_side(table), backbone.native_size, len(table))
    own = backbone.preprocess
    crop_fraction = own.crop_fraction if crop else 1.0
    if options.size is not None:
        return at_side(backbone, options.size, crop_fraction)
    return backbone.resized(replace(own, size=(side, side), crop_fraction=crop_fraction))


def short_side(table: Table) -> float:
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
