"""What a model is measured in: names, and how a number of each kind is written, with its interval and its difference.

A share is told in percent and differences of it in points; R2 as it is; an error in the unit of its column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from headstart.counted import count
from headstart.report import numbers
from headstart.report.numbers import Estimate


@dataclass(frozen=True)
class Measure:
    """`name`: in a sentence; `said`: what it is, as the start of a sentence; `unit`: of an error."""

    name: str
    said: str
    kind: Literal["share", "number", "error"] = "share"
    unit: str = ""
    higher_is_better: bool = True

    @property
    def scale(self) -> str:
        """What a bar of it goes from and to."""
        return "0 to 100 %" if self.kind == "share" else "0 to 1"


RIGHT = "the share of images named correctly"
MEASURES = {
    "accuracy": Measure("accuracy", "Share of images named correctly"),
    "balanced_accuracy": Measure(
        "balanced accuracy",
        f"Balanced accuracy: {RIGHT}, taken for each class and averaged over the classes",
    ),
    "macro_precision": Measure("mean precision", "Precision, mean of the classes"),
    "mean_average_precision": Measure(
        "mean average precision",
        "Average precision of each label (how well the images that have it are ranked before those that have not), "
        "averaged over the labels",
    ),
    "macro_f1": Measure("macro F1", "F1 of each class or label, averaged"),
    "micro_f1": Measure("micro F1", "F1 of all labels of all images together"),
    "exact_match": Measure("exact match", "Share of images of which every label is right"),
    "label_accuracy": Measure("label accuracy", "Share of the labels of an image that are rightly given or not given"),
    "r2": Measure(
        "R\u00b2",
        "R\u00b2: the share of the differences between the images that the answers explain; 1 is perfect, 0 no better "
        "than always answering the mean, and below 0 worse than that",
        "number",
    ),
    "mae": Measure("mean absolute error", "Mean absolute error", "error", higher_is_better=False),
    "rmse": Measure("root mean squared error", "Root mean squared error", "error", higher_is_better=False),
    "coverage": Measure("coverage", "Share of the values that lie in their prediction interval"),
    "identification_rate": Measure(
        "identification rate", "Share of images of enrolled identities whose most similar identity is the right one"
    ),
    "eer": Measure(
        "equal error rate",
        "Where as many pairs of strangers are accepted as pairs of one identity are rejected",
        higher_is_better=False,
    ),
    "tar_at_far_1e2": Measure(
        "true accepts at 1 % false accepts", "Pairs of one identity accepted where 1 % of the pairs of strangers are"
    ),
    "tar_at_far_1e3": Measure(
        "true accepts at 0.1 % false accepts",
        "Pairs of one identity accepted where 0.1 % of the pairs of strangers are",
    ),
    "auroc": Measure("AUROC", "AUROC: how often an odd image has a higher score than a good one", "number"),
    "miou": Measure(
        "mean IoU",
        "Mean over the classes of intersection over union: of the pixels that are of a class or are called so, the "
        "share of which both is true",
    ),
    "pixel_accuracy": Measure("pixel accuracy", "Share of the pixels that are named rightly"),
    "boundary_f1": Measure("boundary F1", "F1 of boundaries found where they are, mean of the classes"),
    "map50": Measure(
        "mean average precision",
        "Average precision of each class's boxes, of which one counts as found where it has half in common with a true "
        "one, mean of the classes",
    ),
    "map": Measure("mAP at IoU .5 to .95", "The same, mean over ten thresholds from half to nearly all in common"),
    "found": Measure("share found", "Share of the odd images that are called odd"),
    "false_alarms": Measure("false-alarm rate", "Share of the good images that are called odd", higher_is_better=False),
    "open_set_rate": Measure(
        "open-set rate", "Share of images of enrolled identities that are named rightly and accepted"
    ),
}


def key_of(name: str) -> str:
    """The key of a measure that is given by its key or by its name with spaces."""
    return name.replace(" ", "_")


def measure(name: str, unit: str = "", percent: bool = True) -> Measure:
    """By its key; one that is not known has its own name, and is a share or else a plain number."""
    own = name.replace("_", " ")
    found = MEASURES.get(key_of(name)) or Measure(own, own.capitalize(), "share" if percent else "number")
    return replace(found, unit=unit) if found.kind == "error" else found


def _decimals(what: Measure, *values: float) -> int:
    """Of a plain number three, and more where one below 1 would read as 1, which is perfect."""
    if what.kind != "number":
        return numbers.decimals(*values)
    hidden = [places for places in range(3, numbers.MOST_PLACES) if any(v < 1 <= round(v, places) for v in values)]
    return hidden[-1] + 1 if hidden else 3


def value(what: Measure, number: float | None) -> str:
    """ "96.1 %", "0.352", "2.59 cells"."""
    if number is None:
        return numbers.NOTHING
    if what.kind == "share":
        return numbers.percent(number)
    return with_unit(what, numbers.plain(number, _decimals(what, number)))


def with_unit(what: Measure, text: str) -> str:
    return f"{text} {what.unit}" if what.unit else text


def between(what: Measure, est: Estimate) -> str:
    """The ends of its interval without a unit, or ""."""
    if what.kind == "share":
        return numbers.interval(est)
    if est.low is None or est.high is None:
        return ""
    places = _decimals(what, est.value, est.low, est.high)
    return f"{numbers.plain(est.low, places)} to {numbers.plain(est.high, places)}"


def full(what: Measure, est: Estimate | None, n: int | None = None) -> str:
    """ "96.1 % (95 % interval 91.7-98.2, n = 153)", "2.59 cells (95 % interval 2.41 to 2.77, n = 364)"."""
    if est is None or what.kind == "share":
        return numbers.full(est, n)
    inside = [f"95 % interval {between(what, est)}"] if between(what, est) else []
    inside += [f"n = {count(n)}"] if n is not None else []
    ends = [end for end in (est.low, est.high) if end is not None]
    text = with_unit(what, numbers.plain(est.value, _decimals(what, est.value, *ends)))
    return text + (f" ({', '.join(inside)})" if inside else "")


def apart(what: Measure, est: Estimate | None) -> tuple[str, str]:
    """The value as `full` writes it, and its interval: for a table of narrow columns, without a unit."""
    if est is None:
        return numbers.NOTHING, ""
    return full(replace(what, unit=""), est).partition(" (")[0], between(what, est)


def change(what: Measure, one: float, other: float, gain: Estimate | None = None) -> str:
    """The one minus the other as both are written, with the interval of `gain`."""
    if what.kind == "share":
        return numbers.points_between(one, other, gain)
    places = _decimals(what, one, other)
    apart = round(one, places) - round(other, places)
    text = with_unit(what, ("+" if round(apart, places) > 0 else "") + numbers.plain(apart, places))
    if gain is None or gain.low is None or gain.high is None:
        return text
    return f"{text} (95 % interval {numbers.plain(gain.low, places)} to {numbers.plain(gain.high, places)})"
