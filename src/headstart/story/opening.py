"""The network that the user's options open: at which size, read at which layers, compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from headstart import recipe
from headstart.data import images
from headstart.data.deep import said
from headstart.data.placing import frame_for
from headstart.data.ranges import ranges_of
from headstart.data.scarce import training_images
from headstart.data.shapes import upright_size
from headstart.data.table import Table
from headstart.data.truth import PLACED
from headstart.errors import DataError, ImageError, OptionError, OutputError
from headstart.finetune import spec
from headstart.finetune.design import Bar, Design, Epoch, no_bar
from headstart.finetune.job import Session
from headstart.heads.taps import one_layer, with_late
from headstart.story.evidence import Method
from headstart.story.options import LARGEST, SMALLEST, Options, bands_of, check_seed
from headstart.tasks.aims import with_aim
from headstart.tasks.oddities import alarmed
from headstart.tasks.task import Task, no_maps
from headstart.tasks.two_classes import with_positive
from headstart.trunk.backbone import open_backbone
from headstart.trunk.catalog import asked_side_by_side
from headstart.trunk.engine import Engine, accelerator, compile_trunk
from headstart.trunk.features import Features, Through, extract, extract_again, store_key
from headstart.trunk.layers import LAST_MAP
from headstart.trunk.network import Backbone, block_names, possible_sizes, tap_at, whole_maps
from headstart.trunk.pieces import through_a_cluster
from headstart.trunk.store import IN_MEMORY, Store, cache_root

SIZE_SAMPLE = 64  # image headers looked at to choose the input size: their median short side is known to a few percent

RESIZES = {"crop": "shortest", "whole": "squash", "pad": "pad"}  # what --view makes of a picture

Say = Callable[[str], None]
Maps = Callable[[tuple[str, ...]], tuple[str, ...]]  # stages of a network -> those whose maps are read
Epochs = Callable[[int, int], Callable[[Epoch], None]]  # (epochs at most, images an epoch) -> called after each


@dataclass(frozen=True)
class Watcher:
    """How a run tells of itself: nothing by default; the command line prints."""

    say: Say = field(default=lambda text: None)
    bar: Bar = field(default=no_bar)
    epochs: Epochs = field(default=lambda total, n: lambda epoch: None)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show what is being done while it is done, where there are no parts to count."""
        done = self.bar(name, 1)
        yield
        done(1)


QUIET = Watcher()


def session_of(watch: Watcher, device: str = "cpu") -> Session:
    """Where a tuning works in this process, and whom it tells."""
    return Session(device=device, say=watch.say, bar=watch.bar, compile=compile_trunk)


def announce_maps(table: Table, backbone: Backbone, options: Options, watch: Watcher, mirrored: int = 0) -> None:
    """Say what feature maps will take on disk at most, those of so many `mirrored` views of each image among them.
    Raises OutputError where that is more than there is."""
    values = sum(tap.widths[tap.pools.index("map")] for tap in backbone.taps if "map" in tap.pools)
    if not values:
        return
    view = 2 * values * len(table)
    size, place = view * (1 + mirrored), cache_root(options.cache)
    place.mkdir(parents=True, exist_ok=True)
    needed, free = size * (2 if view > IN_MEMORY else 1), shutil.disk_usage(place).free
    views = f" in {1 + mirrored} views" if mirrored else ""
    line = f"feature maps of {len(table)} images{views}, {values} values each: {size / 1e9:.2f} GB in {place}"
    if needed > free:
        less = "begin --head with gap, take --taps last without it, a smaller --size,"
        if table.task in PLACED:
            less = "take --augment none, a smaller --size,"
        raise OutputError(
            f"{line}, and {needed / 1e9:.2f} GB are needed where {free / 1e9:.2f} GB are free: {less} or another "
            "--cache"
        )
    watch.say(line)


def refuse_others(task: Task, options: Options) -> None:
    """Raises OptionError where something is to be trained step by step that this task only solves in closed form, or
    pictures are seen in a way that it cannot use."""
    if options.views > 1 and task.maps is not no_maps:
        raise OptionError(
            f"--views {options.views} averages a picture and its mirror image, and --task {task.name} looks at places "
            "of the picture: leave it out"
        )
    if asked_side_by_side(options.backbone) and task.maps is not no_maps:
        raise OptionError(
            f"--backbone {options.backbone} is two networks, whose maps do not join, and --task {task.name} looks at "
            "places of the picture: name one of them"
        )
    if task.objective is not None:
        return
    for name, value, default in (("tune", options.tune, "none"), ("head", options.head, "auto")):
        if value != default:
            raise OptionError(
                f"--{name} {value} trains step by step, which --task {task.name} does not do: leave it out; a network "
                "that was tuned on other images may be given with --backbone MODEL"
            )


def open_network(
    table: Table,
    options: Options,
    random: bool = False,
    say: Say = QUIET.say,
    whole: bool = False,
    maps: Maps = no_maps,
) -> tuple[Backbone, Engine]:
    """The backbone at the size for these images, compiled; with `random` the same network with random weights, with
    `whole` one that sees pictures to their borders; `maps`: of its stages those whose whole maps are read."""
    backbone = with_maps(read_at(open_at_size(table, options, random, say, whole), options), options, maps)
    return backbone, compile_trunk(backbone, options.precision)


def with_maps(backbone: Backbone, options: Options, maps: Maps) -> Backbone:
    """The backbone that gives whole maps of some stages too, unless the user names what is read."""
    if options.layer or options.taps == "last":
        return backbone
    wanted = maps(tuple(tap.name for tap in backbone.taps))
    return whole_maps(backbone, wanted) if wanted else backbone


def open_at_size(
    table: Table, options: Options, random: bool = False, say: Say = QUIET.say, whole: bool = False
) -> Backbone:
    """The backbone at the size for these images."""
    check_seed(options.seed)
    backbone = open_backbone(options.backbone, "none" if random else options.weights, options.seed, say, options.cache)
    found = sized(backbone, table, options, whole)
    for line in said(found.preprocess.ranges):
        say(line)
    return found


def read_at(backbone: Backbone, options: Options) -> Backbone:
    """The backbone with the taps that the heads will read, and no others: what is not read need not be computed."""
    if options.tune != "none":
        from headstart.finetune.tunable import tunable  # torch

        tunable(backbone, "last" if options.tune == "auto" else options.tune)  # a wrong word is named before long work
        return backbone
    if options.head != "auto":
        from headstart.finetune.own_layers import check_layers  # torch

        tap = tap_at(backbone, options.layer or LAST_MAP, spec.pooling(spec.parse(options.head)))
        backbone = replace(backbone, taps=(tap,))
        check_layers(design_of(backbone, options, 1))
        return backbone
    if options.layer:
        return replace(backbone, taps=(tap_at(backbone, options.layer),))
    return replace(backbone, taps=()) if options.taps == "last" else backbone


def design_of(backbone: Backbone, options: Options, n_images: int) -> Design | None:
    """The user's own layers on the one layer that is read; None where heads are solved in closed form."""
    if options.head == "auto":
        return None
    tap, layers = backbone.taps[0], spec.parse(options.head)
    shape = tap.shape if "map" in tap.pools else (tap.channels,)
    training = recipe.training(n_images, options.epochs, options.batch_size, options.optimizer)
    return Design(words=options.head, layers=layers, block=tap.blocks[0], shape=shape, training=training)


def method_of(task: Task, backbone: Backbone, options: Options, n_images: int, places: bool = False) -> Method:
    """Closed-form heads on the taps chosen, or the user's own layers on one of them. `places`: the user says which
    images were taken together."""
    design, device = design_of(backbone, options, n_images), accelerator() or "cpu"
    if design:
        if task.objective is None:
            raise OptionError(f"--head {design.words!r} is not allowed for the task {task.name}: leave --head away")
        return Method(task, (), design, device=device)
    if options.layer:
        return Method(task, (one_layer(options.layer, backbone.taps[0].blocks[0]),))
    blocks = block_names(backbone)
    sets = task.sets(options.taps, blocks)
    return Method(task, with_late(sets, blocks) if places and task.name == "classify" else sets)


def as_published(options: Options, say: Say = QUIET.say) -> Backbone:
    """The backbone at its own input size, or the user's: what its own top was trained for."""
    backbone = open_backbone(options.backbone, options.weights, options.seed, say, options.cache)
    if options.bands:
        backbone = replace(backbone, preprocess=replace(backbone.preprocess, bands=bands_of(options.bands)))
    return at_side(backbone, options.size, backbone.preprocess.crop_fraction) if options.size else backbone


def at_side(backbone: Backbone, side: int, crop_fraction: float) -> Backbone:
    """The backbone at an input side in px that the user has set. Raises OptionError where it cannot be."""
    if not SMALLEST <= side <= LARGEST:
        raise OptionError(f"size {side} px is not allowed: {SMALLEST} to {LARGEST}")
    found = backbone.resized(replace(backbone.preprocess, size=(side, side), crop_fraction=crop_fraction))
    if found.preprocess.size != (side, side):
        raise OptionError(f"size {side} px is not possible with {backbone.name}: {possible_sizes(backbone, side)}")
    return found


def sized(backbone: Backbone, table: Table, options: Options, whole: bool = False) -> Backbone:
    """The backbone with the input size and the view that the recipe or the user gives, and the range of pictures of
    more than 8 bits: by the images that teach."""
    patch = backbone.tokens.patch if backbone.tokens else 0
    side, crop = recipe.input_side(short_side(table), backbone.native_size, len(table.teaching), patch)
    bands = bands_of(options.bands)
    own = replace(backbone.preprocess, ranges=ranges_of(table, bands), bands=bands, views=options.views)
    if options.view in RESIZES:
        own, crop = replace(own, resize=RESIZES[options.view]), crop and options.view == "crop"
    elif whole and crop:
        # a photograph is squashed to the training size (docs/measurements.md, whole-pictures)
        own, side, crop = replace(own, resize="squash"), backbone.native_size, False
    elif whole and recipe.elongated(stretched(table)):
        own = replace(own, resize="squash")
    backbone = replace(backbone, preprocess=own)
    crop_fraction = own.crop_fraction if crop else 1.0
    if options.size is not None:
        found = at_side(backbone, options.size, crop_fraction)
    else:
        found = backbone.resized(replace(own, size=(side, side), crop_fraction=crop_fraction))
    return in_their_shape(found, shapes(table)) if options.view == "whole" else found


def in_their_shape(backbone: Backbone, sizes: npt.NDArray[np.int64]) -> Backbone:
    """The backbone with an input of as many pixels in the shape of pictures of these sizes (image, 2): so that whole
    pictures are squeezed little (docs/measurements.md, views). One that takes squares alone keeps its own."""
    least, most = sizes.min(axis=1, initial=LARGEST), sizes.max(axis=1, initial=0)
    height, width = backbone.preprocess.size
    within = np.maximum(sizes, -(-most // recipe.LONGEST)[:, None]) * max(height, width)
    if not len(sizes) or (least == most).all():
        return backbone
    step = backbone.tokens.patch if backbone.tokens else recipe.STRIDE
    most_px = LARGEST // step * step
    down, across = frame_for(within, step, height * width)
    return backbone.resized(replace(backbone.preprocess, size=(min(down, most_px), min(across, most_px))))


def shapes(table: Table) -> npt.NDArray[np.int64]:
    """(image, 2): height, width in px of some upright images that teach, by their headers."""
    found = []
    for row in some_rows(table):
        try:
            found.append(upright_size(table.read(int(row))))
        except ImageError:
            continue
    return np.array(found, np.int64).reshape(-1, 2)


def stretched(table: Table) -> list[float]:
    """Of each of those images its long side in short sides."""
    return [max(size) / min(size) for size in shapes(table).tolist() if min(size)]


def some_rows(table: Table) -> npt.NDArray[np.intp]:
    """Rows that teach, evenly over all of them."""
    rows = table.teaching
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SIZE_SAMPLE)).astype(int))]


def short_side(table: Table) -> float:
    """Median short side in px of some images that teach, by their headers; that of a photograph if none can be
    read."""
    sides = []
    for row in some_rows(table):
        try:
            sides.append(min(images.size_of(table.read(int(row)))))
        except ImageError:
            continue
    return float(np.median(sides)) if sides else 256.0


def features_of(
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
    features = extract(table, backbone, engine, store, done, through=_spread(options))
    for line in features.remarks:
        say(f"note: {line}")
    if not len(features):
        name, reason = features.set_aside[0]
        raise DataError(f"none of {len(table)} images can be read; the first, {name}: {reason}")
    return features


def features_again(
    table: Table,
    hashes: Sequence[str],
    backbone: Backbone,
    engine: Engine,
    options: Options,
    done: Callable[[int], None],
) -> Features:
    """As `features_of`, by another network, of images that this run has read before: `hashes` are their content hashes.

    Raises DataError where one is gone or is another picture now.
    """
    store = Store(cache_root(options.cache), store_key(backbone, engine))
    return extract_again(table, hashes, backbone, engine, store, done, through=_spread(options))


def _spread(options: Options) -> Through | None:
    """Who sees the images, where this process does not."""
    return None if options.ray is None else partial(through_a_cluster, address=options.ray)


def aimed(task: Task, table: Table, options: Options) -> Task:
    """The task with what its answers shall serve. Raises HeadstartError."""
    o, images = options, training_images(table) if task.name == "classify" else {}
    counts = [images.get(name, 0) for name in table.classes] if images else [1]
    task = with_aim(task, o.aim, o.cost, table.classes, counts, o.coverage, o.max_error, o.sets)
    return alarmed(with_positive(task, o.positive, table.classes, counts), table, o.false_alarms)
