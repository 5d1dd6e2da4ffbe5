"""(images, classes, size) -> every setting, each with its source. Pure functions; the numbers are on this page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headstart.errors import OptionError

# Penalties tried, in units of the mean squared length of a centred row: half-decades over the range in which the
# leave-one-out minimum fell on ten sets (1e-4 to 10), a decade of margin on both sides.
PENALTIES = tuple(10 ** (k / 2) for k in range(-10, 5))
LOGISTIC_PENALTIES = (1.0, 0.1, 0.01, 0.001)  # strong to weak: each fit starts from the last one (methods.md 1.1)

PHOTOGRAPH = 256  # px, median short side from which pictures count as photographs
SMALL = 5000  # images below which cross-validation is the headline (methods.md 5.1)


@dataclass(frozen=True)
class Setting:
    """One line of the report's recipe table."""

    name: str
    value: str
    source: str


def input_side(short_side: float, native: int, n_images: int, patch: int = 0) -> tuple[int, bool]:
    """(side in px of the network's input, crop the borders) for pictures of this median short side.

    Small pictures are enlarged, few of the smallest more, and nothing is cropped from them. Photographs are read above
    the training size: a network trained on random crops expects objects larger than they are (FixRes, Touvron et al.
    2019); above 20,000 images at the training size itself, where the time counts more (docs/measurements.md,
    input-side).

    `patch`: of a transformer, in px, 0 for other networks. It is read at its own size, whatever the pictures: at
    another the positions of its patches are resampled, and what that costs was not measured here.
    """
    if patch:
        return max(patch, round(native / patch) * patch), short_side >= PHOTOGRAPH
    scale = native / 224
    if short_side <= 40 and n_images <= SMALL:
        return _even(192 * scale), False
    if short_side <= 72:
        return _even(160 * scale), False
    if short_side <= 144:
        return _even(192 * scale), False
    if short_side < PHOTOGRAPH:
        return native, False
    return (_even(native * 10 / 7) if n_images <= 20_000 else native), True


STRIDE = 32  # px, of most networks


def _even(side: float) -> int:
    """The nearest multiple of the stride."""
    return max(STRIDE, round(side / STRIDE) * STRIDE)


# The view of elongated pictures is tried: a centre crop of .875 shows 66 % of the width of a photograph of 4:3, 58 % of
# one of 3:2, 49 % of a film's frame of 16:9 (docs/measurements.md, views).
ELONGATED = 1.6  # long side in short sides
ELONGATED_SHARE = 0.25  # of the images: then it is worth two more passes over a part of them

LONGEST = 4  # long side of the input in short ones: what is longer is squeezed
VIEW_IMAGES, VIEW_EACH = 300, 4  # images on which views are compared, and of each class at least


def elongated(shapes: Sequence[float]) -> bool:
    """Of pictures' long sides in short sides: whether the middle of so many of them is half of them or less."""
    return bool(shapes) and sum(shape > ELONGATED for shape in shapes) >= ELONGATED_SHARE * len(shapes)


def heads(n_images: int, n_classes: int) -> tuple[str, ...]:
    """The heads worth trying. Ridge and LDA share one decomposition; logistic regression takes four fits in each of
    six parts, and is worth its time on few images (docs/measurements.md, logistic-heads)."""
    return ("ridge", "lda", "logistic") if n_images * n_images * n_classes <= 1e6 else ("ridge", "lda")


TRAINED_FOLDS = 5  # of what is trained step by step, anew in each


def cross_validation(n_images: int) -> tuple[int, int]:
    """(folds, repeats) of closed forms, twice: more repeats narrow the interval below what new images show. Of few
    images ten folds, since a model of four fifths of 100 images is 1 to 2 points worse than one of all of them; of nine
    tenths about half a point (docs/measurements.md, cross-validation)."""
    return 10 if n_images <= 1000 else 5, 2


def held_out_fraction(n_images: int) -> float:
    """Share of the images for the test set above SMALL: 20 %, at most 10,000 (at 90 % right an interval of +-0.6)."""
    return min(0.2, 10_000 / n_images)


UNEQUAL = 10.0  # largest class over smallest; from here on accuracy says little of the small classes


def unequal(images_by_class: Sequence[int]) -> bool:
    """Whether the mean over the classes (balanced accuracy) tells more than the share of all images."""
    return max(images_by_class) >= UNEQUAL * max(1, min(images_by_class))


def baseline_images(n_images: int, n_classes: int = 2, rare: bool = False) -> int:
    """Images for the random-weights baseline: it costs a forward pass of its own, and 400 place it to +-5 points. Where
    a class is `rare` 800, of which it gets an equal part; four of each class at least."""
    return min(n_images, max(800 if rare else 400, 4 * n_classes))


@dataclass(frozen=True)
class Training:
    """How a head of one's own layers is trained."""

    epochs: int
    batch_size: int  # images
    optimizer: str
    rate: float  # peak learning rate
    warm_up: float  # share of the steps until the peak
    patience: int  # epochs without a better held-out log-loss until it stops
    held_out: float  # share of the training images to stop by
    smoothing: float = 0.0  # of the labels
    clip: float = 0.0  # largest length of a gradient; 0: any
    average: float = 0.0  # decay of the moving average of the weights, a step; 0: none
    frozen_statistics: bool = False  # BatchNorm keeps the mean and variance of the pre-training
    weight_decay: float = 0.0
    mixup: float = 0.0  # of Beta(mixup, mixup), from which the share of another image is drawn; 0: none
    stage_decay: float = 1.0  # the learning rate of a stage, in that of the stage above it


# Peak learning rates: torch's and Keras's default for Adam; ten times that for SGD with momentum.
RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 1e-2}
HELD_OUT_SHARE = 0.15  # of the images, from 40 on
STEPS = 1500  # of batches of 32: the best epoch came before on hymenoptera, eurosat_3000 and CIFAR-10 (10,000)


def training(
    n_images: int, epochs: int | None = None, batch_size: int | None = None, optimizer: str = "adam"
) -> Training:
    """For this many training images; what is given is taken as it is. Raises OptionError.

    Batches of 32 (the tutorials'; Masters and Luschi 2018 find 2 to 32 best), 10 to 50 epochs, one cycle with a tenth
    of warm-up (Smith 2018). 15 % are held out to stop by, from 40 images on.
    """
    if optimizer not in RATES:
        raise OptionError(f"optimizer {optimizer!r} is not known: one of {', '.join(RATES)}")
    for name, value, most in (("epochs", epochs, 10_000), ("batch-size", batch_size, 100_000)):
        if value is not None and not 1 <= value <= most:
            raise OptionError(f"--{name} {value} is not allowed: a whole number from 1 to {most}")
    size = batch_size or 32
    count = epochs or _epochs(n_images, 10, 50)
    held_out = HELD_OUT_SHARE if n_images >= 40 else 0.0
    decay = 0.05 if optimizer == "adamw" else 0.0
    return Training(count, size, optimizer, RATES[optimizer], 0.1, max(5, count // 5), held_out, weight_decay=decay)


def _epochs(n_images: int, least: int, most: int) -> int:
    """As many as make STEPS batches of 32, within bounds."""
    return min(most, max(least, round(STEPS * 32 / max(1, n_images))))


# Fewer training images of a class than this and a frozen network with a closed-form head is as good or better
# (methods.md 8.2: at 5 a class fine-tuning loses, at 20 it begins to pay). Of the median class: one rare species does
# not keep a network from learning the others, and the held-out images still compare.
TUNABLE_IMAGES = 20
# Held-out images that one model gets right and the other does not: with 6 of 6 on one side p = 0.03, with fewer no
# outcome could tell the two apart.
DISCORDANT = 6
# Images that a larger set holds out, or a twentieth of it: so many show a gain of 2 to 3 points (docs/measurements.md,
# held-out).
HELD_OUT = 750
PILOT_EPOCHS = 3  # of the trial that decides how deep `--tune auto` goes
PILOT_SHARE = 0.25  # of a time budget, for that trial
WORTH_STORING = 0.2  # of a training's time: for less, a few views over and over are too little to learn from
FINISH = 1 / 3  # of the epochs, once more, with the held-out images


def n_views(n_images: int) -> int:
    """Views of each training image whose activations are stored, the image itself among them: a pass of the frozen part
    each. Even, so that half are mirrored (alternating flip); fewer where there are many images (methods.md 1.6)."""
    return 4 if n_images < 20_000 else 2


def caches(epochs: int, views: int, share: float, needed: int, free: int) -> bool:
    """Whether activations at a cut are stored, `needed` bytes of them, or made anew in each epoch. `share`: of the
    network's multiply-adds that lie above the cut, where a step takes three of them for each of a pass.

    Storing pays where that spares passes (methods.md 2.4), and a fifth of the whole time with them, and fits. Where
    little is frozen it would spare little, and views of its own for each epoch are worth more (docs/measurements.md,
    stored-activations).
    """
    spared, whole = (epochs - views) * (1 - share), epochs * (1 + 2 * share)
    return spared > WORTH_STORING * whole and needed < free // 2


def epochs_within(seconds: float | None, epochs: int, n_images: int, rate: float) -> int:
    """The epochs that fit into this time at this many images a second; at least one."""
    return epochs if seconds is None else max(1, min(epochs, int(seconds * rate / max(1, n_images))))


def tuning(
    n_images: int,
    epochs: int | None = None,
    batch_size: int | None = None,
    random: bool = False,
    rate: float | None = None,
    kind: str = "depthwise",
) -> Training:
    """For a part of a pre-trained network with a fitted head on top (LP-FT, Kumar et al. 2022). Raises OptionError.

    AdamW with one cycle, at 1e-3 for networks of depthwise convolutions; `kind` "normalised" (attention, LayerNorm):
    1e-4 (methods.md 2.2 gives 5e-5 to 3e-4); "plain" (ordinary convolutions, as VGG and ResNet): SGD with momentum at
    3e-3 (BiT-HyperRule, Kolesnikov et al. 2020). A stage has 0.8 times the rate of the one above it; label smoothing
    0.1, mixup 0.2 of the activations, a moving average of the weights over about a fifth of the steps (cheap insurance,
    methods.md 2.2), gradients of length 1 at most. BatchNorm keeps its statistics at every size: few images and small
    batches make them worse (peers.md 6); a network of random weights (`random`: training from scratch) has none worth
    keeping (docs/measurements.md, tuning-rates). 15 % of the images are held out to stop by, of larger sets less
    (HELD_OUT). The epochs make STEPS batches of 32: 12 at least, above 10,000 images 8, and 24 at most
    (docs/measurements.md, tuning-epochs).
    """
    checked = training(n_images, epochs, batch_size, "adamw")
    held_out = min(checked.held_out, max(0.05, HELD_OUT / max(1, n_images)))
    count = epochs or _epochs(n_images, 12 if n_images < 10_000 else 8, 24)
    size = batch_size or (32 if n_images < 10_000 else 64)
    sgd = kind == "plain" and not random
    usual = 1e-3 if random or kind == "depthwise" else 3e-3 if sgd else 1e-4
    return replace(
        checked,
        epochs=count,
        batch_size=size,
        optimizer="sgd" if sgd else "adamw",
        weight_decay=0.0 if sgd else 0.05,
        rate=rate or usual,
        mixup=0.2,
        held_out=held_out,
        patience=max(4, count // 2),  # the rate of one cycle must have had the time to fall
        smoothing=0.1,
        clip=1.0,
        average=_average(count, n_images, size),
        frozen_statistics=not random,
        stage_decay=1.0 if random else 0.8,
    )


def pilot_images(n_images: int, hurried: bool) -> int:
    """Images of the trial that decides how deep `--tune auto` goes: a tenth; 1,000 at least, and where time is short.

    Fewer steps end where they began or worse (docs/measurements.md, pilot).
    """
    return min(n_images, 1000 if hurried else max(1000, n_images // 10))


def pilot(how: Training, n_images: int) -> Training:
    """That trial on so many images: batches of 32 at most, since the steps are few."""
    few = training(n_images)
    return replace(
        how,
        epochs=PILOT_EPOCHS,
        patience=PILOT_EPOCHS,
        batch_size=min(how.batch_size, few.batch_size),
        average=0.0,
        held_out=few.held_out,
    )


def finish(how: Training, n_images: int) -> Training:
    """For the end of a tuning, in which the held-out images teach too: one more, lower cycle.

    A third of the epochs at a fifth of the rate (docs/measurements.md, finish). Where the held-out images are a smaller
    share they teach less that is new, and cost as much less time.
    """
    epochs = round(finish_share(how) * how.epochs)
    average = _average(epochs, n_images, how.batch_size)
    return replace(how, epochs=epochs, rate=how.rate / 5, held_out=0.0, patience=max(1, epochs), average=average)


# s that a training takes this machine: a shorter one is not worth the start of a cluster's workers, 35 CPU seconds for
# two (docs/measurements.md, workers).
SHORT = 30.0


def finish_share(how: Training) -> float:
    """The epochs of the end, in those before it."""
    return FINISH * how.held_out / HELD_OUT_SHARE


def _average(epochs: int, n_images: int, batch_size: int) -> float:
    """Decay of a moving average over about a fifth of the steps."""
    steps = epochs * max(1, n_images // batch_size)
    return max(0.0, 1 - 5 / max(steps, 5))
