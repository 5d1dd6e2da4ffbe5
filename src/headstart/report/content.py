"""What a report is made of: frozen, plain data, filled by the pipeline and read by the page and the card.

A score `S` is the mapping of metrics.json: `n`; `accuracy` and its like as `{"value", "low", "high"}` (95 % interval;
shares are fractions of 1, errors in the user's units); and the tables of its task, as the judge makes them:
`per_class` and `confusion` (rows truth, columns predicted, in the order of `ReportData.classes`); `per_label`,
`co_occurrence` and `answered_together`; `per_column`; `roc`, `pairs`, `false_accept_rate`, `confused` and `closest`.
A metric may also be a bare number: it is then shown without an interval. What is None or empty is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headstart.judge.marks import Interval

Score = Mapping[str, Any]
Metric = Mapping[str, object] | float


@dataclass(frozen=True)
class Measured:
    """A score and the images it was measured on."""

    score: Score
    source: Literal["cross-validation", "test split", "test folder", "validation folder"]
    n_train: int = 0  # images that the scored model learned from (cross-validation: in one fold); 0 = not told
    folds: int = 5  # cross-validation only
    repeats: int = 1  # cross-validation only


@dataclass(frozen=True)
class Baseline:
    """What an answer without transfer gets, on its own `n` images, beside what it is held against on the same ones."""

    kind: str  # a key of words.BASELINES, or what it is in words
    value: Metric  # in this `measure`, as all three
    n: int
    difference: Metric | None = None  # the rival's minus this one's, paired on the same images
    rival: Metric | None = None  # of this model; for random weights of the pre-trained ones; None = the sum of the two
    measure: str = "accuracy"  # a key of measures.MEASURES, or a name of the task's own
    n_train: int = 0  # images that it learned from, where they are fewer than all; 0 = not told
    percent: bool = True  # whether a measure that is not known there is told in percent


@dataclass(frozen=True)
class Like:
    """A training image of the class that another image was taken for, of those the most like it: `cosine` of their
    features."""

    jpeg: bytes
    name: str
    cosine: float


@dataclass(frozen=True)
class Picture:
    """One image with what was said of it; for a suspected label `predicted` is the suggested class."""

    jpeg: bytes  # a small preview; empty, or above page.MAX_JPEG_BYTES, gives a box in its place
    name: str
    label: str
    predicted: str
    probability: float | None  # of `predicted`, 0..1; for a suspected label its score; None where there is none
    note: str = ""
    looked: bytes = b""  # the same picture with what spoke for the answer, and what against it
    like: Like | None = None


@dataclass(frozen=True)
class Copy:
    """One member of a duplicate group."""

    jpeg: bytes
    name: str
    label: str
    split: str  # the user's: train, validation, test or none


@dataclass(frozen=True)
class DuplicateGroup:
    kind: Literal["exact", "near"]
    copies: tuple[Copy, ...]

    @property
    def leak(self) -> bool:
        """Whether copies stand in more than one of the user's splits."""
        return len({c.split for c in self.copies} - {"none", ""}) > 1

    @property
    def conflict(self) -> bool:
        """Whether copies carry different labels."""
        return len({c.label for c in self.copies} - {""}) > 1


@dataclass(frozen=True)
class CurvePoint:
    n: int  # training images
    value: Metric  # in the headline's measure


@dataclass(frozen=True)
class OneGroup:
    """The headline on the judged images of one of the user's groups."""

    name: str
    n: int
    value: Metric


@dataclass(frozen=True)
class Groups:
    """The user's groups, worst first. `how`: a key of groups.HOW. `p`: how often chance alone makes as wide a spread;
    None: not known. not_judged: groups that could not be left out."""

    how: str
    each: tuple[OneGroup, ...]
    p: float | None = None
    not_judged: tuple[str, ...] = ()


@dataclass(frozen=True)
class RiskPoint:
    """Of the surest share `answered` of the images the share `error` is wrong."""

    answered: float
    error: float


@dataclass(frozen=True)
class Unlike:
    """How images unlike all that taught are known: at most the share `false_alarms` of new images of known classes is
    taken for such, by `n` images; `told_apart`: the AUROC by which the distance alone knew classes left out."""

    false_alarms: float
    n: int
    told_apart: float


@dataclass(frozen=True)
class ReliabilityBin:
    confidence: float  # mean probability of the answers in the bin, 0..1
    accuracy: float  # share of them that is right, 0..1
    n: int


@dataclass(frozen=True)
class Candidate:
    """A head that was tried, judged on the training images alone by leave-one-out."""

    name: str
    loss: float  # by which they are compared, less is better: nats per image; of values the share not explained
    quality: float  # 0..1: share right of the images (of the labels); of values R2
    chosen: bool = False
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """One line of the recipe."""

    name: str
    value: str
    reason: str  # where the value comes from: a paper and section, or a measurement


@dataclass(frozen=True)
class Network:
    """The backbone and how it was run."""

    name: str
    weights: str  # where they come from in words; "" when `pretrained` is False
    pretrained: bool
    licence: str = ""  # of the weights, as an SPDX name
    parameters: int = 0  # 0 = not told
    size: tuple[int, int] = (0, 0)  # input height and width, px
    engine: str = ""  # "OpenVINO 2026.4 on CPU"
    precision: str = ""  # "bfloat16"
    taps: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()  # earlier models that it comes from, oldest first
    tuned: bool = False  # part of it has learned from these images
    terms: str = ""  # what a licence that is not open asks for, in words


@dataclass(frozen=True)
class TimmView:
    """The saved folder as a plain timm network with a linear top."""

    same: bool  # whether it gives the same probabilities as headstart
    value: Metric | None = None  # the headline's measure of the timm view, on the headline's images
    n: int = 0
    reason: str = ""  # why the two differ, a sentence


@dataclass(frozen=True)
class Column:
    """A measured value of the judged images: `truth` and `answer` (image,), in its own unit; `half_width`: half the
    width of the saved model's interval, None where too few images taught to say it; `coverage`: what that promises."""

    name: str
    truth: Sequence[float]
    answer: Sequence[float]
    half_width: float | None = None
    coverage: float = 0.9


@dataclass(frozen=True)
class ClassHeld:
    """Of the `n` judged images of a class the share whose set holds it."""

    name: str
    n: int
    held: Interval


@dataclass(frozen=True)
class Confidence:
    """What sets of classes and a largest error came to on `n` judged images, each by thresholds that it did not set.

    `coverage`, `max_error`: as asked, None for no largest error. `held`: the share whose set holds the true class;
    `size`: the mean number of classes in a set; `answered`: the share whose answer was sure enough; `error`: the share
    of these `n_answered` that is wrong, None where there are none. `sets`, `answers`: whether the training images could
    say anything: else a set holds all classes, and no answer is sure enough. `method`: how sets are chosen, one of
    `tasks.confidence.SETS`; `classes`: what was held of each class that was judged, the least first; `in_every_set`:
    the classes that are.
    """

    n: int
    coverage: float
    held: Interval
    size: Interval
    max_error: float | None = None
    answered: Interval | None = None
    error: Interval | None = None
    n_answered: int = 0
    sets: bool = True
    answers: bool = True
    method: str = "lac"
    classes: tuple[ClassHeld, ...] = ()
    in_every_set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Acceptance:
    """The least similarity that a recogniser accepts, chosen so that of strangers the share `rate` is accepted; of how
    many scores of strangers it comes: below 1 / rate - 1 it lies above all of them, and the rate is not shown."""

    identify: float  # of an image and the prototype of an identity
    verify: float  # of two images
    rate: float
    identify_from: int
    verify_from: int

    def shown(self, scores: int) -> bool:
        """Whether so many scores can tell the rate."""
        return self.rate * (scores + 1) >= 1


@dataclass(frozen=True)
class Detection:
    """The share `rate` of good images that may be called odd, and the `n` left-out good ones that say from which score;
    `supported`: whether so few can tell that rate."""

    rate: float
    n: int
    supported: bool


@dataclass(frozen=True)
class Shift:
    """The judged images are of another kind than those that taught. `dropped`: they are answered worse than the
    training images, each left out, whose score is `left_out`; `auroc`: how well a simple classifier tells which of the
    two an image is, where it does."""

    left_out: Metric | None
    dropped: bool
    auroc: float | None


@dataclass(frozen=True)
class Shortcut:
    """The files of the training images give the class `label` away: told in `value` of them, 0.5 by guessing; `said`:
    so, in one sentence."""

    label: str
    value: Metric
    said: str


@dataclass(frozen=True)
class ReportData:
    """Everything that the report and the card say."""

    title: str  # what the data is called, such as the folder's name
    model: str  # path of the saved model as the user would type it
    classes: tuple[str, ...]  # what the task answers with: classes, labels, columns of values, identities
    headline: Measured
    task: str = "classify"  # a key of sections.TELLINGS, or another: of that only what holds for any task is said
    headline_name: str = "accuracy"  # key of the headline's score, and of measures.MEASURES where it is known there
    headline_percent: bool = True  # whether one that is not known there is told in percent
    higher_is_better: bool = True
    judging_notes: tuple[str, ...] = ()  # what was done otherwise than asked when it was judged, such as fewer folds
    also: tuple[Measured, ...] = ()  # further scores, shown in the table beside the headline
    baselines: tuple[Baseline, ...] = ()
    shift: Shift | None = None  # None: nothing speaks for one
    leak_free: Metric | None = None  # the headline without judged images that have a copy among the training images
    shortcut: Shortcut | None = None
    films: int = 0  # of which the names look like frames, where no groups were given
    decides: bool = False  # whether answers serve the mean recall or costs
    warnings: tuple[str, ...] = ()  # more than what words.warnings derives from this data

    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # split -> class or label -> images used
    images: Mapping[str, int] = field(default_factory=dict)  # split -> images; {} = the sums of `counts`
    layout: str = ""  # what the data was read as, one line
    notes: tuple[str, ...] = ()  # what was ignored and why
    fingerprint: str = ""
    set_aside: tuple[tuple[str, str], ...] = ()  # (file, reason)

    worst: tuple[Picture, ...] = ()  # most confident mistakes first
    least_certain: tuple[Picture, ...] = ()
    most_certain: tuple[Picture, ...] = ()  # certain and right
    suspects: tuple[Picture, ...] = ()
    n_suspects: int | None = None  # of all images; None = len(suspects)
    suspects_said: str = ""  # how many of them are expected to be wrong, with an interval
    duplicates: tuple[DuplicateGroup, ...] = ()
    n_duplicates: int | None = None  # groups in all; None = len(duplicates)
    n_leaks: int | None = None  # groups across the user's splits; None = counted in `duplicates`
    n_conflicts: int | None = None  # groups with different labels; None = counted in `duplicates`

    curve: tuple[CurvePoint, ...] = ()
    gain: Metric | None = None  # accuracy of the last point minus the last but one, paired if it can be
    twice: Metric | None = None  # gain of twice the images, by the curve continued
    losses: tuple[tuple[float, float | None], ...] = ()  # of each epoch: training, held out (nats per image)
    more_epochs: int = 0  # after those, on the held-out images too
    rates: tuple[float, ...] = ()  # learning rate at the end of each epoch
    groups: Groups | None = None  # the user's, where two or more are judged
    reliability: tuple[ReliabilityBin, ...] = ()
    ece_by_chance: tuple[float, float] | None = None  # of a perfectly calibrated model: mean, 95th percentile
    risk: tuple[RiskPoint, ...] = ()  # few, sure answers first
    unlike: Unlike | None = None
    temperature: float | None = None
    threshold: float | None = None  # of every label, where the user set it
    confidence: Confidence | None = None  # of one class an image
    columns: tuple[Column, ...] = ()  # of measured values
    acceptance: Acceptance | None = None  # of identities
    detection: Detection | None = None  # of odd images

    network: Network | None = None
    candidates: tuple[Candidate, ...] = ()
    tried_on: str = "the training images"  # what their numbers are of
    recipe: tuple[Setting, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)  # stage -> wall-clock seconds
    machine: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    command: str = ""
    created: str = ""  # ISO date and time
    timm: TimmView | None = None

    @property
    def images_by_split(self) -> dict[str, int]:
        """Images used in each split that has any."""
        found = self.images or {split: sum(self.counts[split].values()) for split in self.counts}
        return {split: int(n) for split, n in found.items() if n}

    @property
    def suspect_count(self) -> int:
        return len(self.suspects) if self.n_suspects is None else self.n_suspects

    @property
    def duplicate_count(self) -> int:
        return len(self.duplicates) if self.n_duplicates is None else self.n_duplicates

    @property
    def leak_count(self) -> int:
        return sum(g.leak for g in self.duplicates) if self.n_leaks is None else self.n_leaks

    @property
    def conflict_count(self) -> int:
        return sum(g.conflict for g in self.duplicates) if self.n_conflicts is None else self.n_conflicts

    @property
    def images_by_class(self) -> dict[str, int]:
        """Training images of each class (all splits where there is none called train or none)."""
        chosen = [self.counts[s] for s in ("train", "none") if s in self.counts] or list(self.counts.values())
        return {c: sum(int(split.get(c, 0)) for split in chosen) for c in self.classes} if chosen else {}
