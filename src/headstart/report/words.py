"""The sentences of the report: pure functions of its data, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.counted import count, counted
from headstart.report.content import Baseline, Measured, ReportData
from headstart.report.numbers import Estimate, decimal, ends, estimate, full, interval, percent, points_between, share

FEW_IMAGES = 100  # below this n a 95 % interval around 90 % is wider than 12 points (Wilson)
FEW_PER_CLASS = 10  # below this one image moves a class's recall by more than 10 points
IMBALANCE = 10.0  # largest class over smallest; from here on accuracy says little about the small classes
WIDE = 0.10  # an interval wider than 10 points cannot tell a good model from a fair one
SMALL_GAIN = 0.01  # a learning curve whose last step surely gains less than one point is called flat
CONFUSED = 0.25  # a pair of classes with a quarter of all mistakes is worth a sentence

BASELINES = {
    "most frequent": ("Most frequent class", "always the same answer"),
    "raw pixels": ("Raw 16\u00d716 pixels", "the same kind of head on tiny pictures, no network"),
    "frozen": ("The same network, frozen", "with headstart's own head: what tuning is worth"),
    "closed form": ("headstart's own head", "in closed form, on the same network"),
    "random weights": ("Same network, random weights", "nothing learned from other images, a quick head"),
}


@dataclass(frozen=True)
class Advice:
    """One answer of the verdict: `mood` is good, unsure or bad."""

    question: str
    answer: str
    mood: str


def accuracy_of(measured: Measured) -> Estimate:
    """The headline of a score, which is its first entry after `n`: of classes the accuracy."""
    found = estimate(measured.score[next(name for name in measured.score if name != "n")])
    if found is None:
        raise ValueError("a report needs a finite accuracy in its headline score")
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


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    accuracy, n = accuracy_of(data.headline), data.headline.score["n"]
    return f"The model gives the right class for {full(accuracy, n)} of images that it has never seen."


def confused_pairs(confusion: Any, most: int) -> list[tuple[int, int, float, float]]:
    """The largest off-diagonal cells of a confusion matrix (truth, predicted), both ways of a pair apart.

    Returns (truth, predicted, images, share of the truth's images), largest count first; single images only where no
    pair has more.
    """
    matrix = np.array(confusion, dtype=float)
    rows = matrix.sum(axis=1)
    np.fill_diagonal(matrix, 0.0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    truth, predicted = np.unravel_index(order, matrix.shape)
    least = 1.0 if matrix.max(initial=0.0) > 1 else 0.0  # single mistakes say little where there are others
    return [
        (int(t), int(p), float(matrix[t, p]), float(matrix[t, p] / rows[t]))
        for t, p in zip(truth, predicted, strict=True)
        if matrix[t, p] > least
    ]


def verdict(data: ReportData) -> list[Advice]:
    """Does transfer help, is the result usable: each with its reason."""
    return [advice for advice in (_transfer(data), _usable(data)) if advice is not None]


def rival_of(baseline: Baseline) -> Estimate | None:
    """What a baseline is held against, on the same images."""
    gain, own = estimate(baseline.difference), estimate(baseline.accuracy)
    if baseline.rival is not None or gain is None or own is None:
        return estimate(baseline.rival)
    return Estimate(own.value + gain.value)


def comparison(baseline: Baseline) -> str:
    """A baseline's difference with the two numbers that it is the difference of; "" where there is none."""
    rival, gain, own = rival_of(baseline), estimate(baseline.difference), estimate(baseline.accuracy)
    if rival is None or gain is None or own is None:
        return ""
    images = f"on the same {counted(baseline.n, 'image')}"
    who = f"this model {images}"
    if baseline.kind == "random weights":
        few = f"learned from the same {counted(baseline.n_train, 'image')} and " if baseline.n_train else ""
        who = f"the pre-trained network with the same quick head, {few}judged {images}"
    return f"{who}: {percent(rival.value)}; difference {points_between(rival.value, own.value, gain)}"


def measure_of(data: ReportData) -> str:
    """What the alternatives are compared in."""
    return next((b.measure for b in data.baselines), "accuracy")


def _transfer(data: ReportData) -> Advice | None:
    question = "Does transfer help?"
    if data.network is not None and not data.network.pretrained:
        return Advice(question, "Nothing was transferred: the network has random weights.", "unsure")
    without = next((b for b in data.baselines if b.kind == "random weights"), None)
    if without is None:
        return None
    rival, gain, own = rival_of(without), estimate(without.difference), estimate(without.accuracy)
    if rival is None or gain is None or own is None or gain.low is None or gain.high is None:
        return _transfer_unpaired(data, without, question)
    few = f"learned from {counted(without.n_train, 'image')} and " if without.n_train else ""
    said = (
        f"with its pre-trained weights the network gets {_right(rival, without)}, with random weights "
        f"{percent(own.value)}: {points_between(rival.value, own.value, gain)}. Both had the same quick head, {few}"
        f"judged on the same {counted(without.n, 'image')}"
    )
    if gain.low > 0:
        return Advice(question, f"Yes: {said}.", "good")
    if gain.high < 0:
        return Advice(question, f"No, it harms: {said}. Try another backbone.", "bad")
    return Advice(question, f"Not shown, the interval includes zero: {said}.", "unsure")


def _right(est: Estimate, baseline: Baseline) -> str:
    if baseline.measure == "accuracy":
        return f"{percent(est.value)} right"
    return f"a balanced accuracy of {percent(est.value)} (each class counts the same)"


def _transfer_unpaired(data: ReportData, without: Baseline, question: str) -> Advice | None:
    mine, other = accuracy_of(data.headline), estimate(without.accuracy)
    if other is None or mine.low is None or mine.high is None or other.low is None or other.high is None:
        return None
    n = data.headline.score["n"]
    said = f"this model gets {full(mine, n)} right, the same network with random weights {full(other, without.n)}"
    if mine.low > other.high:
        return Advice(question, f"Yes: {said}; the two intervals do not touch.", "good")
    if mine.high < other.low:
        return Advice(question, f"No, it harms: {said}. Try another backbone.", "bad")
    return Advice(question, f"Not shown: {said}; the two intervals overlap.", "unsure")


def _usable(data: ReportData) -> Advice:
    question, accuracy = "Is it usable?", accuracy_of(data.headline)
    low, high = (accuracy.value if end is None else end for end in (accuracy.low, accuracy.high))
    constant = next((b for b in data.baselines if b.kind == "most frequent"), None)
    guess = None if constant is None else estimate(constant.accuracy)
    if constant is not None and guess is not None:
        mine = estimate(constant.rival) or accuracy
        if (mine.value if mine.low is None else mine.low) <= guess.value:
            of = "" if constant.measure == "accuracy" else "balanced accuracy "
            return Advice(
                question,
                "No: it is not shown to be better than always answering the most frequent class "
                f"({of}{percent(guess.value)}).",
                "bad",
            )
    wrong = f"between {' and '.join(ends(1 - high, 1 - low))}" if low < high else f"about {share(1 - accuracy.value)}"
    answer = f"If {wrong} wrong answers in 100 are acceptable, yes, on images like these."
    weak = _weakest(data)
    if weak is not None and len(data.classes) > 1:
        recall = estimate(weak["recall"])
        answer += (
            f" The weakest class is \u201c{weak['class']}\u201d: {full(recall, weak['n'])} of its images are found."
        )
    wide = accuracy.low is not None and accuracy.high is not None and accuracy.high - accuracy.low > WIDE
    return Advice(question, answer, "unsure" if wide else "good")


def _weakest(data: ReportData) -> Any:
    """The row of `per_class` with the lowest recall, or None."""
    rows = [(est.value, row) for row in data.headline.score.get("per_class", ()) if (est := estimate(row["recall"]))]
    return min(rows, key=lambda pair: pair[0], default=(0.0, None))[1]


def next_steps(data: ReportData) -> list[str]:
    """What to do now, most useful first."""
    steps = [*_look_at_data(data), *_confused(data), *_more_images(data)]
    steps.append(
        "Try it on images from the place where it will be used: these numbers hold for images like yours, "
        "not for another camera, season or hospital."
    )
    return steps


def _look_at_data(data: ReportData) -> list[str]:
    steps = []
    if data.leak_count:
        one = data.leak_count == 1
        steps.append(
            f"{_alike(data.leak_count)} {'stands' if one else 'stand'} in more than one of your splits: take "
            f"{'its' if one else 'their'} pictures out of all but one and fit again, since they flatter the score."
        )
    if data.suspect_count:
        labels = counted(data.suspect_count, "label")
        verb = "looks" if data.suspect_count == 1 else "look"
        steps.append(f"{labels} {verb} wrong: check {'it' if data.suspect_count == 1 else 'those'} first.")
    if data.conflict_count:
        verb = "carries" if data.conflict_count == 1 else "carry"
        steps.append(f"{_alike(data.conflict_count)} {verb} different labels: decide which is right.")
    return steps


def _alike(groups: int) -> str:
    return f"{counted(groups, 'group')} of pictures that are the same or nearly so"


def answers_counted(measured: Measured) -> Any:
    """The confusion matrix (truth, predicted) in whole answers, or None: where cross-validation was repeated the score
    has its mean, and the sum over the repeats has no half images."""
    confusion = measured.score.get("confusion")
    if confusion is None:
        return None
    repeats = measured.repeats if measured.source == "cross-validation" else 1
    return np.rint(repeats * np.asarray(confusion, dtype=float)).astype(np.int64)


def _confused(data: ReportData) -> list[str]:
    matrix = answers_counted(data.headline)
    if matrix is None or len(data.classes) < 3:
        return []
    both = np.triu(matrix + matrix.T, 1)
    mistakes = int(both.sum())
    if mistakes == 0 or both.max() < CONFUSED * mistakes or both.max() < 3:
        return []
    first, second = np.unravel_index(int(both.argmax()), both.shape)
    return [
        f"{data.classes[first]} and {data.classes[second]} are taken for each other in {count(float(both.max()))} of "
        f"{counted(mistakes, 'mistake')}: more or clearer images of these two pay most."
    ]


def _more_images(data: ReportData) -> list[str]:
    steps = []
    sentence = curve_sentence(data)
    if sentence:
        steps.append(sentence)
    accuracy, n = accuracy_of(data.headline), int(data.headline.score["n"])
    if accuracy.low is not None and accuracy.high is not None and accuracy.high - accuracy.low > WIDE:
        steps.append(
            f"The interval of {interval(accuracy)} % is wide because n = {count(n)} is small: "
            "judge on more images before you compare models."
        )
    return steps


def loss_sentence(losses: Sequence[tuple[float, float | None]], more: int = 0) -> str:
    """Which epoch the trained head is of, and why."""
    if not losses:
        return ""
    held = [loss for _, loss in losses if loss is not None]
    if len(held) < len(losses):
        many = len(losses) > 1
        kept = "; the epoch with the lowest training loss was kept." if many else "."
        return f"{counted(len(losses), 'epoch')} on all training images{kept}"
    best = min(range(len(held)), key=lambda k: held[k])
    then = f"From there it learned for {counted(more, 'more epoch')} from those images too. " if more else ""
    return (
        f"Epoch {best + 1} of {len(held)} was kept: its log-loss on training images held out for this is "
        f"{'the lowest, ' if len(held) > 1 else ''}{held[best]:.3f}. {then}No image that judges the model had a part "
        "in it."
    )


def curve_sentence(data: ReportData) -> str:
    """Would more images help? From the last segment of the learning curve; "" without one."""
    if len(data.curve) < 2:
        return ""
    before, after = data.curve[-2:]
    first, second = estimate(before.accuracy), estimate(after.accuracy)
    if first is None or second is None:
        return ""
    gain = estimate(data.gain) or Estimate(second.value - first.value)
    change = points_between(second.value, first.value, gain).removeprefix("+")
    moved = f"changed the accuracy by {change}" if second.value <= first.value else f"gained {change}"
    said = (
        f"going from {count(before.n)} to {counted(after.n, 'training image')} {moved}, from {percent(first.value)} to "
        f"{percent(second.value)} of the same judged images"
    )
    if gain.low is None or gain.high is None:
        return f"{said[0].upper()}{said[1:]}; there is no interval for this step, so read the curve with care."
    if gain.low > 0:
        return f"More images would probably help, the curve still rises: {said}."
    if gain.high < SMALL_GAIN:
        return f"More images of the same kind would help little: {said}."
    return f"Whether more images would help is not clear: {said}."


def warnings(data: ReportData) -> list[str]:
    """What makes the numbers weaker than they look, worst first; the pipeline's own warnings last."""
    found: list[str] = []
    if data.leak_count:
        found.append(
            f"{_alike(data.leak_count)} across your splits: what judges the model, or nearly that, was seen in "
            "training, so the score is too high."
        )
    if data.network is not None and not data.network.pretrained:
        found.append("Random weights were used: this model has learned nothing from other images.")
    n = int(data.headline.score["n"])
    if n < FEW_IMAGES:
        found.append(
            f"Only {counted(n, 'image')} judged: one image more or less moves the accuracy by {share(1 / n)} points."
        )
    found += _class_warnings(data.images_by_class)
    if data.set_aside:
        verb = "was" if len(data.set_aside) == 1 else "were"
        found.append(f"{counted(len(data.set_aside), 'file')} could not be used and {verb} set aside.")
    return [*found, *data.warnings]


def _class_warnings(by_class: dict[str, int]) -> list[str]:
    found = []
    few = sorted(c for c, images in by_class.items() if images < FEW_PER_CLASS)
    if few:
        names = listing(few, 3)
        found.append(
            f"{counted(len(few), 'class', 'classes')} with fewer than {FEW_PER_CLASS} training images: {names}."
        )
    if by_class and min(by_class.values()) > 0:
        large, small = max(by_class, key=lambda c: by_class[c]), min(by_class, key=lambda c: by_class[c])
        if by_class[large] >= IMBALANCE * by_class[small]:
            found.append(
                f"Unequal classes: {large} has {counted(by_class[large], 'image')}, {small} has "
                f"{count(by_class[small])}; read the balanced accuracy and the class table, not the accuracy alone. "
                "The alternatives are compared by the balanced accuracy, in which each class counts the same."
            )
    return found


def listing(names: Sequence[str], most: int) -> str:
    """The first names of a list and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {count(rest)} more" if rest > 0 else "")


def calibration_sentences(score: Any, temperature: float | None) -> list[str]:
    """ECE and log-loss in plain words."""
    said = []
    ece, plain, log_loss = (estimate(score.get(name)) for name in ("ece", "ece_plain", "log_loss"))
    if ece is not None:
        said.append(
            f"On average the stated probability is {_away(ece)} away from the share of right answers: the expected "
            "calibration error in 15 groups of equally many images, less the part that chance alone makes of it "
            "(bias-corrected). Zero would be perfect."
        )
    if plain is not None:
        said.append(
            f"Without that correction, as other programs state it, the expected calibration error is {_away(plain)}."
        )
    if log_loss is not None:
        chance = float(np.exp(-log_loss.value))
        between = (
            "" if log_loss.low is None else f" (95 % interval {decimal(log_loss.low)} to {decimal(log_loss.high)})"
        )
        said.append(
            f"The log-loss is {decimal(log_loss.value)} nats{between}: the right class gets a probability of "
            f"{percent(chance)} in the geometric mean."
        )
    if temperature is not None:
        said.append(f"Probabilities were set with a temperature of {decimal(temperature)}, fitted on training images.")
    return said


def _away(error: Estimate) -> str:
    """A calibration error with its interval."""
    between = interval(error)
    return f"{share(error.value)} points" + (f" (95 % interval {between})" if between else "")
