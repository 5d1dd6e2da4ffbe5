"""The sentences of the report: pure functions of its data, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.counted import count, counted
from headstart.report import measures
from headstart.report.content import Baseline, Measured, ReportData
from headstart.report.measures import Measure
from headstart.report.numbers import Estimate, estimate, share

FEW_IMAGES = 100  # below this n a 95 % interval around 90 % is wider than 12 points (Wilson)
WIDE = 0.10  # an interval wider than 10 points cannot tell a good model from a fair one
SMALL_GAIN = 0.01  # a learning curve whose last step surely gains less than one point is called flat

BASELINES = {
    "most frequent": ("Most frequent class", "always the same answer"),
    "prevalence": ("Share of each label", "the same answer for every picture"),
    "the mean": ("The mean", "always the same answer"),
    "raw pixels": ("Raw 16\u00d716 pixels", "the same kind of head on tiny pictures, no network"),
    "frozen": ("The same network, frozen", "with headstart's own head: what tuning is worth"),
    "closed form": ("headstart's own head", "in closed form, on the same network"),
    "random weights": ("Same network, random weights", "nothing learned from other images, a quick head"),
}
LOOKING = ("raw pixels", "frozen", "closed form", "random weights")  # the kinds that look at the pictures


@dataclass(frozen=True)
class Advice:
    """One answer of the verdict: `mood` is good, unsure or bad."""

    question: str
    answer: str
    mood: str


def headline_measure(data: ReportData) -> Measure:
    """What the headline is measured in; an error in the unit of the one column."""
    unit = data.classes[0] if len(data.classes) == 1 else ""
    return measures.measure(data.headline_name, unit, data.headline_percent)


def headline_of(measured: Measured, name: str) -> Estimate:
    """The headline of a score, which every score has."""
    found = estimate(measured.score[name])
    if found is None:
        raise ValueError(f"a report needs a finite {name.replace('_', ' ')} in its headline score")
    return found


def source_name(measured: Measured) -> str:
    """What a score was measured on, short, for a table."""
    if measured.source == "cross-validation":
        times = f", {measured.repeats} times" if measured.repeats > 1 else ""
        return f"{measured.folds}-fold cross-validation{times}"
    return {"test split": "held-out test set", "test folder": "your test images"}.get(
        measured.source, "your validation folder"
    )


def how_measured(measured: Measured) -> str:
    """What the headline was measured on, one sentence."""
    n = counted(measured.score["n"], "image")
    if measured.source == "cross-validation":
        again = f", repeated {measured.repeats} times with new folds" if measured.repeats > 1 else ""
        return (
            f"Measured by {measured.folds}-fold cross-validation on {n}{again}: every image was judged by a model that "
            "had not seen it, and everything was chosen inside the fold."
        )
    return {
        "test split": f"Measured on a held-out test set of {n} that nothing was chosen on and that was used once.",
        "test folder": f"Measured on your own test set of {n}, used once, after everything had been chosen.",
        "validation folder": f"Measured on your own validation folder of {n}, used once: "
        "everything was chosen on the training images alone.",
    }[measured.source]


def _alike(groups: int) -> str:
    return f"{counted(groups, 'group')} of pictures that are the same or nearly so"


def loss_sentence(losses: Sequence[tuple[float, float | None]], more: int = 0, loss: str = "log-loss") -> str:
    """Which epoch the trained head is of, and why."""
    if not losses:
        return ""
    held = [out for _, out in losses if out is not None]
    if len(held) < len(losses):
        many = len(losses) > 1
        kept = "; the epoch with the lowest training loss was kept." if many else "."
        return f"{counted(len(losses), 'epoch')} on all training images{kept}"
    best = min(range(len(held)), key=lambda k: held[k])
    then = f"From there it learned for {counted(more, 'more epoch')} from those images too. " if more else ""
    return (
        f"Epoch {best + 1} of {len(held)} was kept: its {loss} on training images held out for this is "
        f"{'the lowest, ' if len(held) > 1 else ''}{held[best]:.3f}. {then}No image that judges the model had a part "
        "in it."
    )


def listing(names: Sequence[str], most: int) -> str:
    """The first names of a list and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {count(rest)} more" if rest > 0 else "")


def blind_one(data: ReportData) -> Baseline | None:
    """The baseline that never looks at a picture."""
    return next((b for b in data.baselines if b.kind not in LOOKING), None)


def rival_of(baseline: Baseline) -> Estimate | None:
    """What a baseline is held against, on the same images."""
    gain, own = estimate(baseline.difference), estimate(baseline.value)
    if baseline.rival is not None or gain is None or own is None:
        return estimate(baseline.rival)
    return Estimate(own.value + gain.value)


def comparison(baseline: Baseline) -> str:
    """A baseline's difference with the two numbers that it is the difference of; "" where there is none."""
    rival, gain, own = rival_of(baseline), estimate(baseline.difference), estimate(baseline.value)
    if rival is None or gain is None or own is None:
        return ""
    images = f"on the same {counted(baseline.n, 'image')}"
    who = f"this model {images}"
    if baseline.kind == "random weights":
        few = f"learned from the same {counted(baseline.n_train, 'image')} and " if baseline.n_train else ""
        who = f"the pre-trained network with the same quick head, {few}judged {images}"
    what = measures.measure(baseline.measure, percent=baseline.percent)
    return (
        f"{who}: {measures.value(what, rival.value)}; difference {measures.change(what, rival.value, own.value, gain)}"
    )


def compared_in(data: ReportData) -> Measure:
    """What the alternatives are compared in."""
    first = next(iter(data.baselines), None)
    if first is None:
        return measures.measure(data.headline_name, percent=data.headline_percent)
    return measures.measure(first.measure, percent=first.percent)


def transfer(data: ReportData) -> Advice | None:
    """Whether pre-trained weights help; None where nothing tells."""
    question = "Does transfer help?"
    if data.network is not None and not data.network.pretrained:
        return Advice(question, "Nothing was transferred: the network has random weights.", "unsure")
    without = next((b for b in data.baselines if b.kind == "random weights"), None)
    if without is None:
        return None
    rival, gain, own = rival_of(without), estimate(without.difference), estimate(without.value)
    if rival is None or gain is None or own is None or gain.low is None or gain.high is None:
        return _transfer_unpaired(data, without, question)
    what = measures.measure(without.measure, percent=without.percent)
    few = f"learned from {counted(without.n_train, 'image')} and " if without.n_train else ""
    said = (
        f"with its pre-trained weights the network gets {_reached(what, measures.value(what, rival.value))}, with "
        f"random weights {measures.value(what, own.value)}: {measures.change(what, rival.value, own.value, gain)}. "
        f"Both had the same quick head, {few}judged on the same {counted(without.n, 'image')}"
    )
    least, most = _for_better(data, gain.low, gain.high)
    if least > 0:
        return Advice(question, f"Yes: {said}.", "good")
    if most < 0:
        return Advice(question, f"No, it harms: {said}. Try another backbone.", "bad")
    return Advice(question, f"Not shown, the interval includes zero: {said}.", "unsure")


def _reached(what: Measure, text: str) -> str:
    if what.name == "accuracy":
        return f"{text} right"
    each = " (each class counts the same)" if what.name == "balanced accuracy" else ""
    return f"{article(what.name)} of {text}{each}"


def article(name: str) -> str:
    """ "a mean average precision", "an R2"."""
    return f"{'an' if name[0] in 'AaeioR' else 'a'} {name}"


def _for_better(data: ReportData, low: float, high: float) -> tuple[float, float]:
    """Both ends of a difference, so that more is better."""
    return (low, high) if data.higher_is_better else (-high, -low)


def _transfer_unpaired(data: ReportData, without: Baseline, question: str) -> Advice | None:
    what = headline_measure(data)
    mine, other = headline_of(data.headline, data.headline_name), estimate(without.value)
    if other is None or mine.low is None or mine.high is None or other.low is None or other.high is None:
        return None
    ours = _reached(what, measures.full(what, mine, data.headline.score["n"]))
    said = f"this model gets {ours}, the same network with random weights {measures.full(what, other, without.n)}"
    least, most = _for_better(data, mine.low - other.high, mine.high - other.low)
    if least > 0:
        return Advice(question, f"Yes: {said}; the two intervals do not touch.", "good")
    if most < 0:
        return Advice(question, f"No, it harms: {said}. Try another backbone.", "bad")
    return Advice(question, f"Not shown: {said}; the two intervals overlap.", "unsure")


def more_images(data: ReportData) -> list[str]:
    """What the learning curve and the width of the interval say of more images."""
    steps = [sentence] if (sentence := curve_sentence(data)) else []
    what, est, n = headline_measure(data), headline_of(data.headline, data.headline_name), data.headline.score["n"]
    if is_wide(est):
        ends = measures.between(what, est) + (" %" if what.kind == "share" else "")
        steps.append(
            f"The interval of {ends} is wide because n = {count(int(n))} is small: "
            "judge on more images before you compare models."
        )
    return steps


def is_wide(est: Estimate) -> bool:
    """Of a share or of R2."""
    return est.low is not None and est.high is not None and est.high - est.low > WIDE


def few_judged(data: ReportData) -> list[str]:
    """A warning where one image moves a share much."""
    n = int(data.headline.score["n"])
    if n >= FEW_IMAGES:
        return []
    name = headline_measure(data).name
    return [f"Only {counted(n, 'image')} judged: one image more or less moves the {name} by {share(1 / n)} points."]


def sequence_warning(films: int) -> str:
    """Where names show frames of films and no groups were given."""
    return (
        f"The names look like frames of {counted(films, 'film')}, and neighbouring frames are nearly the same picture: "
        "an image is judged by a model that learned from its neighbours, so the score flatters. Fit again with "
        "--group-by, which keeps the frames of a film together."
    )


def shift_warnings(data: ReportData) -> list[str]:
    """What the number does not speak of, where the judged images are of another kind."""
    shift, found = data.shift, []
    if shift is None:
        return []
    what, left_out = headline_measure(data), estimate(shift.left_out)
    if shift.dropped and left_out is not None:
        judged = measures.value(what, headline_of(data.headline, data.headline_name).value)
        found.append(
            f"The judged images are of another kind than the training images, or follow another rule: the {what.name} "
            f"is {judged} on them and {measures.value(what, left_out.value)} on the training images, each left out in "
            "turn, which is more than chance explains."
        )
    if shift.auroc is not None:
        found.append(
            f"The judged images do not look like the training images: a simple classifier tells which of the two an "
            f"image is (AUROC {shift.auroc:.2f}, by chance 0.50). The number speaks of pictures like the judged ones."
        )
    return found


def shifted(data: ReportData) -> Advice | None:
    """Instead of a task's own answer, where the judged images show that the model fails on their kind."""
    if data.shift is None or not data.shift.dropped:
        return None
    answer = (
        "Not on pictures like the judged ones. They differ from the training images: teach it with pictures like those "
        "that it is to answer, or judge it on pictures like those that taught it, and fit again."
    )
    return Advice("Is it usable?", answer, "bad")


def data_warnings(data: ReportData) -> tuple[list[str], list[str]]:
    """What the data weaken the number by: leaks and random weights, which come first, and files set aside."""
    first, last = [], []
    if data.leak_count:
        first.append(
            f"{_alike(data.leak_count)} across your splits: what judges the model, or nearly that, was seen in "
            "training, so the score is too high."
        )
    if data.network is not None and not data.network.pretrained:
        first.append("Random weights were used: this model has learned nothing from other images.")
    if data.set_aside:
        verb = "was" if len(data.set_aside) == 1 else "were"
        last.append(f"{counted(len(data.set_aside), 'file')} could not be used and {verb} set aside.")
    return first, last


def curve_sentence(data: ReportData) -> str:
    """Would more images help? From the last segment of the learning curve; "" without one."""
    if len(data.curve) < 2:
        return ""
    before, after = data.curve[-2:]
    first, second = estimate(before.value), estimate(after.value)
    if first is None or second is None:
        return ""
    what = headline_measure(data)
    gain = estimate(data.gain) or Estimate(second.value - first.value)
    change = measures.change(what, second.value, first.value, gain).removeprefix("+")
    better = data.higher_is_better and second.value > first.value
    moved = f"gained {change}" if better else f"changed the {what.name} by {change}"
    said = (
        f"going from {count(before.n)} to {counted(after.n, 'training image')} {moved}, from "
        f"{measures.value(what, first.value)} to {measures.value(what, second.value)} of the same judged images"
    )
    if gain.low is None or gain.high is None:
        return f"{said[0].upper()}{said[1:]}; there is no interval for this step, so read the curve with care."
    least, most = _for_better(data, gain.low, gain.high)
    if least > 0:
        return f"More images would probably help, the curve still rises: {said}."
    if most < SMALL_GAIN:
        return f"More images of the same kind would help little: {said}."
    return f"Whether more images would help is not clear: {said}."
