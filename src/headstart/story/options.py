"""What the user may set, and what can be said of it before a heavy library is imported.

A wrong value is refused at once, and so is one that would change nothing: who sets it expects that it does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from headstart import recipe
from headstart.data.preprocess import VIEWS, check_bands
from headstart.errors import OptionError, nearest
from headstart.finetune import spec
from headstart.trunk.catalog import asked_side_by_side
from headstart.trunk.cluster import check_address

# Names that heavy rooms know: tests/test_options.py compares them.
BACKBONE = "tf_efficientnet_lite0"  # trunk.backbone.DEFAULT
TAPS = ("auto", "last", "all", "late")  # heads.taps.TAPS
PRECISIONS = ("auto", "bf16", "f32")  # trunk.engine.PRECISIONS
POOLINGS = ("avg", "max", "token", "none", "flatten")  # trunk.layers.POOLINGS
SETS = ("lac", "raps", "classwise")  # tasks.confidence.SETS
AIMS = ("accuracy", "balanced")
SIGHTS = ("auto", "crop", "whole", "pad")  # what is seen of a picture: story.opening.sized
AUGMENTATIONS = ("photo", "aerial", "medical", "document", "none")  # data.augment.KINDS
SMALLEST, LARGEST = 16, 1024  # px of the input
LEAST_ALARMS, MOST_ALARMS = 0.001, 0.5  # the former asks for 999 good pictures at least
LEAST_COVERAGE, MOST_COVERAGE = 0.5, 0.999  # of sets: the latter asks for 999 images at least


@dataclass(frozen=True)
class Options:
    """What the user may set; every other setting comes from the recipe."""

    backbone: str = BACKBONE  # or auto, auto:NAME,NAME: story.rank chooses; A+B: both, see story.pairing
    weights: str = "auto"  # or "none", or a file
    taps: str = "auto"  # or "last", "all", "late"
    layer: str | None = None  # the one layer to read; None: as `taps` says
    head: str = "auto"  # or layers in words, as finetune.spec reads them
    epochs: int | None = None  # of a head of one's own layers, as the next two; None: recipe.training
    batch_size: int | None = None
    optimizer: str = "adam"
    tune: str = "none"  # or "auto", "last", "all", a number of modules, a stage: finetune.tunable
    augment: str = "photo"  # random views for tuning: data.augment.KINDS
    lr: str | None = None  # peak learning rate of tuning, or "find"; None: recipe.tuning
    budget: str | None = None  # of time for tuning: 90s, 10m, 2h; None: as the recipe says
    size: int | None = None  # px; None: recipe.input_side
    view: str = "auto"  # what is seen of a picture: its middle ("crop"), or all of it ("whole", "pad"); story.view
    views: int = 1  # or 2: the features of a picture and of its mirror image, averaged
    precision: str = "auto"  # or "bf16", "f32"
    bands: str | None = None  # of a TIFF: those that are red, green and blue, from 1, such as "4,3,2"; None: as it says
    threshold: float | None = None  # from which a label is given; None: the best for each by left-out answers (F1)
    coverage: float | None = None  # of the sets of classes that `predict` answers with; None: 0.9
    sets: str = "lac"  # least ambiguous, or "raps": adaptive, or "classwise": each class has the coverage
    max_error: float | None = None  # of the answers given, the others are marked; None: all are given
    aim: str = "accuracy"  # what answers serve; or "balanced": the mean recall of the classes
    cost: str | None = None  # CSV file of what each mistake costs; None: all the same
    positive: str | None = None  # of two classes the one that is looked for; None: judge.two_classes.looked_for
    false_alarms: float | None = None  # share of good pictures that are called odd; None: heads.oddity.RATE
    target: str | None = None  # unlabelled pictures of the place of use
    min_images: int | None = None  # classes with fewer training images are left out; None: they are refused
    cache: str | None = None  # folder; None: HEADSTART_CACHE or the platform's
    ray: str | None = None  # the cluster that sees images and tunes: trunk.cluster.check_address; None: this process
    seed: int = 0


def check(options: Options, trained: bool = False) -> None:
    """Raises OptionError for a value that cannot be, or that would change nothing beside the others. `trained`: of a
    task in which something is trained step by step in any case."""
    _one_of("taps", options.taps, TAPS)
    _one_of("precision", options.precision, PRECISIONS)
    _one_of("augment", options.augment, AUGMENTATIONS)
    _one_of("aim", options.aim, AIMS)
    _one_of("sets", options.sets, SETS)
    _one_of("view", options.view, SIGHTS)
    _check_views(options)
    recipe.training(1, options.epochs, options.batch_size, options.optimizer)
    if options.head != "auto":
        spec.parse(options.head)
    rate_of(options.lr)
    seconds_of(options.budget)
    bands_of(options.bands)
    check_seed(options.seed)
    if options.threshold is not None and not 0 < options.threshold < 1:
        raise OptionError(f"threshold {options.threshold} is not allowed: a probability between 0 and 1")
    if options.coverage is not None and not LEAST_COVERAGE <= options.coverage <= MOST_COVERAGE:
        raise OptionError(
            f"coverage {options.coverage:g} is not allowed: a share from {LEAST_COVERAGE} to {MOST_COVERAGE}"
        )
    if options.max_error is not None and not 0 < options.max_error < 1:
        raise OptionError(f"max-error {options.max_error:g} is not allowed: a share between 0 and 1, such as 0.02")
    if options.false_alarms is not None and not LEAST_ALARMS <= options.false_alarms <= MOST_ALARMS:
        raise OptionError(
            f"false-alarms {options.false_alarms:g} is not allowed: a share from {LEAST_ALARMS} to {MOST_ALARMS}"
        )
    if options.size is not None and not SMALLEST <= options.size <= LARGEST:
        raise OptionError(f"size {options.size} px is not allowed: {SMALLEST} to {LARGEST}")
    for name in ("backbone", "weights", "layer", "tune", "cost", "positive", "target"):
        if getattr(options, name) == "":
            raise OptionError(f"--{name} is empty: give a name, or leave it out")
    _check_ray(options, trained)
    _check_auto(options)
    _check_side_by_side(options, trained)
    _check_target(options)
    _check_together(options, trained)


def _check_ray(options: Options, trained: bool) -> None:
    """Raises OptionError for what names no cluster, and for a training that is not spread."""
    if options.ray is None:
        return
    check_address(options.ray)
    if trained and options.tune != "none":
        raise OptionError(
            f"--tune {options.tune} learns masks and boxes on one machine, and --ray spreads what a frozen network "
            "says: leave one of them out"
        )


def _check_auto(options: Options) -> None:
    """Raises OptionError for what is of one network where several are ranked."""
    if auto_words(options.backbone) is not None:
        for name, given in (("weights", options.weights != "auto"), ("layer", options.layer is not None)):
            if given:
                raise OptionError(
                    f"--{name} is of one network, and --backbone auto chooses among several: leave it out"
                )


def _check_side_by_side(options: Options, trained: bool) -> None:
    """Raises OptionError for what is of one network where two run side by side."""
    if not asked_side_by_side(options.backbone):
        return
    if trained:
        raise OptionError(f"--backbone {options.backbone} is two networks, whose maps do not join: name one of them")
    if options.tune != "none":
        raise OptionError(f"--backbone {options.backbone} is two networks, which are not tuned: name one of them")
    plain = Options()
    for name in ("weights", "layer", "head"):
        value = getattr(options, name)
        if value != getattr(plain, name) and (name, value) != ("weights", "none"):
            raise OptionError(
                f"--{name} {value} is of one network, and --backbone {options.backbone} is two: leave it out, or name "
                "one of them"
            )


def _check_target(options: Options) -> None:
    """Raises OptionError for what says otherwise what heads read, beside pictures of the place of use."""
    for name in ("tune", "head", "layer", "taps") if options.target is not None else ():
        if getattr(options, name) != getattr(Options, name):
            raise OptionError(f"--target decides what heads read, and so does --{name}: leave one of them out")


def _check_together(options: Options, trained: bool) -> None:
    """Raises OptionError for an option that has no effect beside the others."""
    tuned, own_head = options.tune != "none", options.head != "auto"
    for name, given in (
        ("lr", options.lr is not None),
        ("budget", options.budget is not None and not trained),
        ("augment", options.augment != Options.augment and not trained),
    ):
        if given and not tuned:
            raise OptionError(f"--{name} is of fine-tuning: add --tune auto, or leave it out")
    for name, given in (("epochs", options.epochs is not None), ("batch-size", options.batch_size is not None)):
        if given and not tuned and not own_head and not trained:
            raise OptionError(
                f"--{name} is of training, and the default head is solved in closed form without it: "
                "add --tune auto or --head LAYERS, or leave it out"
            )
    if options.optimizer != Options.optimizer and not own_head:
        raise OptionError(
            f"--optimizer {options.optimizer} is of a head of your own layers: add --head LAYERS, or leave it out"
        )
    if options.cost is not None and options.aim != Options.aim:
        raise OptionError(f"--cost says what answers serve, and so does --aim {options.aim}: leave one of them out")
    if tuned and (options.layer or own_head or options.taps != "auto"):
        raise OptionError("--tune learns in the network itself: leave out --head, --layer and --taps")
    if options.taps != "auto" and (options.layer or own_head):
        raise OptionError(f"--taps {options.taps} says what --layer and --head say otherwise: leave it out")


def _check_views(options: Options) -> None:
    """Raises OptionError for a number of views that cannot be, or where a picture and its mirror image cannot be
    averaged."""
    if options.views not in VIEWS:
        raise OptionError(f"views {options.views} are not allowed: 1, or 2 for the mirror image too")
    if options.views > 1 and options.tune != "none":
        raise OptionError("--views 2 is of a frozen network, and --tune trains it: leave --views or --tune out")
    if options.views > 1 and options.head != "auto" and spec.pooling(spec.parse(options.head)) == "none":
        raise OptionError(
            "--views 2 averages a picture and its mirror image, whose maps do not lie on each other: begin --head with "
            "gap or gmp, or leave --views out"
        )


def auto_words(backbone: str) -> str | None:
    """Of `auto` and `auto:NAME,NAME` what stands behind the colon; None where one network is named."""
    word, _, names = backbone.partition(":")
    return names if word == "auto" else None


def check_pooling(pooling: str, layer: str | None) -> None:
    """Raises OptionError for an unknown --pool, or one that nothing is pooled by."""
    _one_of("pooling", pooling, POOLINGS)
    if pooling != "avg" and (layer is None or "/" in layer):
        what = f"{layer} is pooled already" if layer else "it is of one layer"
        raise OptionError(
            f"--pool {pooling} has no effect: {what}; add --layer NAME (last_map, block5_pool ...), or leave it out"
        )


def check_random(options: Options, command: str) -> None:
    """Raises OptionError for a seed where nothing is drawn by it."""
    if options.seed and options.weights != "none":
        raise OptionError(
            f"--seed {options.seed} has no effect: {command} draws nothing unless --weights none is given; leave it out"
        )


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise OptionError(f"seed {seed} is not allowed: a whole number from 0 to {2**32 - 1}")


def check_top(top: int) -> None:
    if top < 1:
        raise OptionError(f"--top {top} is not allowed: 1 or more")


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


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionError(f"{name} {value!r} is not known{nearest(value, known)}: one of {', '.join(known)}")


def set_otherwise(options: Options) -> str | None:
    """The first option that is not at its default, of those that decide what a model is."""
    default = vars(type(options)())
    free = ("cache", "ray", "seed")
    return next((n.replace("_", "-") for n, v in vars(options).items() if v != default[n] and n not in free), None)


def typed(data: str, output: str, more: dict[str, str], options: Options, handed_on: Callable[[str], str]) -> list[str]:
    """The command that makes the same model, with only what differs from the default.

    It is published with the model, so it names no private place: `handed_on` writes a path.
    """
    words = ["headstart", "fit", handed_on(data), "-o", handed_on(output)]
    chosen = {n: v for n, v in vars(options).items() if v != getattr(Options, n) and n not in ("cache", "ray")}
    for name, value in (more | chosen).items():
        words += [f"--{name.replace('_', '-')}", handed_on(str(value))]
    return words
