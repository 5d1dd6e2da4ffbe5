"""One class an image: what the page says of it, and its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from headstart.counted import and_so_on, count, counted
from headstart.report import figures, numbers
from headstart.report.content import Confidence, Measured, ReportData, RiskPoint, Unlike
from headstart.report.diagnostic import diagnostic_section
from headstart.report.numbers import DASH, Estimate, decimal, ends, estimate, full, interval, percent, plain, share
from headstart.report.telling import Hub, Telling, Use
from headstart.report.words import Advice, few_judged, headline_of, is_wide, listing

FEW_PER_CLASS = 10  # below this one image moves a class's recall by more than 10 points
IMBALANCE = 10.0  # largest class over smallest; from here on accuracy says little about the small classes
CONFUSED = 0.25  # a pair of classes with a quarter of all mistakes is worth a sentence
MAX_PAIRS = 20  # most confused pairs listed; half of it where the whole matrix is shown too
SHORT_TABLE = 30  # classes up to which a table or a confusion matrix is shown whole
WORST_CLASSES = 20  # rows shown of a longer class table; the rest unfolds
NAMED_COLUMNS = 12  # classes up to which the columns of the confusion matrix carry names, not numbers


@dataclass(frozen=True)
class ClassRow:
    name: str
    n: str
    recall: Estimate | None
    precision: Estimate | None
    f1: Estimate | None
    drawing: Markup


@dataclass(frozen=True)
class Cell:
    text: str
    mark: str  # CSS classes: right or wrong, and the shade


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    accuracy, n = headline_of(data.headline, data.headline_name), data.headline.score["n"]
    if data.headline_name == "balanced_accuracy":
        plain = full(estimate(data.headline.score.get("accuracy")))
        return (
            f"The model gives the right class for {full(accuracy, n)} of images that it has never seen, where each "
            f"class counts the same (balanced accuracy); of all images it is {plain}."
        )
    return f"The model gives the right class for {full(accuracy, n)} of images that it has never seen."


def usable(data: ReportData) -> Advice:
    question, accuracy = "Is it usable?", headline_of(data.headline, data.headline_name)
    low, high = (accuracy.value if end is None else end for end in (accuracy.low, accuracy.high))
    constant = next((b for b in data.baselines if b.kind == "most frequent"), None)
    guess = None if constant is None else estimate(constant.value)
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
    return Advice(question, answer, "unsure" if is_wide(accuracy) else "good")


def _weakest(data: ReportData) -> Any:
    """The row of `per_class` with the lowest recall, or None."""
    rows = [(est.value, row) for row in data.headline.score.get("per_class", ()) if (est := estimate(row["recall"]))]
    return min(rows, key=lambda pair: pair[0], default=(0.0, None))[1]


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


def answers_counted(measured: Measured) -> Any:
    """The confusion matrix (truth, predicted) in whole answers, or None: where cross-validation was repeated the score
    has its mean, and the sum over the repeats has no half images."""
    confusion = measured.score.get("confusion")
    if confusion is None:
        return None
    repeats = measured.repeats if measured.source == "cross-validation" else 1
    return np.rint(repeats * np.asarray(confusion, dtype=float)).astype(np.int64)


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
                "The headline and the alternatives are balanced accuracies, in which each class counts the same."
            )
    return found


def calibration_sentences(
    score: Any, temperature: float | None, by_chance: tuple[float, float] | None = None
) -> list[str]:
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
    if plain is not None and by_chance is not None:
        mean, high = by_chance
        verdict = "no more than chance explains" if plain.value <= high else "more than chance explains"
        said.append(
            f"A model whose probabilities are exactly right would come to {share(mean)} points on so few or so many "
            f"images, and to more than {share(high)} in one of 20 such sets: what is found here is {verdict}."
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


def confidence_sentences(found: Confidence | None) -> list[str]:
    """What the sets of classes held, and what was right of the answers that were sure enough."""
    if found is None:
        return []
    held, size, asked = estimate(found.held), estimate(found.size), _asked(found.coverage)
    said = []
    if not found.sets:
        said.append(f"Sets that hold the true class of {asked} of new images are of all classes: too few images.")
    elif held is not None and size is not None:
        spread = "" if size.low is None else f", 95 % interval {plain(size.low, 2)}{DASH}{plain(size.high, 2)}"
        said.append(
            f"Beside its answer the model names all classes that can be meant, so that they hold the true class of "
            f"{asked} of new images{', of each class' if found.method == 'classwise' else ''}: they held it for "
            f"{full(held, found.n)} of the judged ones, with {plain(size.value, 2)} classes on average{spread}."
        )
        said.extend(_classwise_sentences(found))
    answered, error = estimate(found.answered), estimate(found.error)
    if found.max_error is None or answered is None:
        return said
    asked = f"at most {_asked(found.max_error)} wrong among the answers that are sure enough"
    if not found.answers:
        said.append(f"No probability could be shown to leave {asked}: all answers are marked as not sure enough.")
    elif error is None:
        said.append(f"Asked for {asked}, the model was sure enough of none of the {count(found.n)} judged images.")
    else:
        said.append(
            f"Asked for {asked}, the model was sure enough of {full(answered, found.n)} of the judged images, and "
            f"{full(error, found.n_answered)} of those answers were wrong."
        )
    return said


def _classwise_sentences(found: Confidence) -> list[str]:
    """Of which class the sets held least, and which classes are in all of them."""
    said: list[str] = []
    if found.method != "classwise":
        return said
    worst = found.classes[0] if found.classes else None
    if worst is not None and (held := estimate(worst.held)) is not None:
        said.append(f"Of the classes {worst.name!r} was held least: for {full(held, worst.n)} of its images.")
    if found.in_every_set:
        few = len(found.in_every_set)
        said.append(
            f"{counted(few, 'class', 'classes')} {'is' if few == 1 else 'are'} in every set, because too few of "
            f"{'its' if few == 1 else 'their'} images teach: {and_so_on(found.in_every_set)}."
        )
    return said


def risk_sentences(points: Sequence[RiskPoint]) -> list[str]:
    """What giving only the surest half of the answers leaves wrong."""
    half = next((p for p in points if p.answered >= 0.5), None)
    if half is None or half.answered >= 1:
        return []
    whole = points[-1]
    return [
        f"Of all answers {percent(whole.error)} are wrong; of the surest {percent(half.answered)} of them "
        f"{percent(half.error)}. Who looks at the other images in person is left with these mistakes."
    ]


def unlike_sentences(found: Unlike | None) -> list[str]:
    """How often an image of a known class is taken for something unlike all that taught."""
    if found is None:
        return []
    return [
        "The model also says whether an image is unlike everything that it was taught, such as one of a class that it "
        f"does not know. At most {_asked(found.false_alarms)} of new images of its own classes are marked so wrongly "
        f"(set by {counted(found.n, 'training image')}, left out). Not every strange image is noticed: where whole "
        "classes were left out, distance alone told their images from others with an AUROC of "
        f"{decimal(found.told_apart)} (0.5 is chance, 1 is always)."
    ]


def _asked(share_asked: float) -> str:
    return f"{100 * share_asked:g} %"


def _away(error: Estimate) -> str:
    """A calibration error with its interval."""
    between = interval(error)
    return f"{share(error.value)} points" + (f" (95 % interval {between})" if between else "")


def confusion_section(measured: Measured, classes: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix in the form that its size asks for."""
    many = len(classes) > SHORT_TABLE
    context: dict[str, Any] = {
        "matrix": [],
        "heat": "",
        "pairs": [],
        "mistakes": 0,
        "named_columns": len(classes) <= NAMED_COLUMNS,
    }
    confusion = answers_counted(measured)
    if confusion is not None:
        context["mistakes"] = int(confusion.sum() - np.trace(confusion))
        context["judged"] = int(confusion.sum())
        context["pairs"] = [
            (classes[t], classes[p], count(images), numbers.percent(part))
            for t, p, images, part in confused_pairs(confusion, MAX_PAIRS if many else MAX_PAIRS // 2)
        ]
        if not many:
            context["matrix"] = _matrix(confusion)
        else:
            context["heat"] = figures.heat_map(confusion, f"Confusion of {len(classes)} classes, truth against answer")
    return context


def _class_row(row: Mapping[str, Any]) -> ClassRow:
    recall = estimate(row["recall"])
    drawing = figures.bar(recall, "model")
    return ClassRow(row["class"], count(row["n"]), recall, estimate(row["precision"]), estimate(row["f1"]), drawing)


def _matrix(confusion: Any) -> list[list[Cell]]:
    """Cells of a confusion matrix (truth, predicted), shaded by their share of the row."""
    rows = []
    for truth, line in enumerate(confusion):
        total = max(float(line.sum()), 1e-12)
        rows.append(
            [
                Cell(
                    count(float(value)) if value else "0",
                    f"{'right' if truth == predicted else 'wrong'} q{figures.level(float(value) / total)}",
                )
                for predicted, value in enumerate(line)
            ]
        )
    return rows


def class_tables(data: ReportData) -> dict[str, Any]:
    """Each class, weakest recall first: the rows shown, and the rest."""
    rows = [_class_row(row) for row in data.headline.score.get("per_class", ())]
    rows.sort(key=lambda row: 2.0 if row.recall is None else row.recall.value)
    shown = len(rows) if len(rows) <= SHORT_TABLE else WORST_CLASSES
    return {"per_class": rows[:shown], "per_class_rest": rows[shown:]}


def sections(data: ReportData) -> dict[str, Any]:
    """Each class, what is taken for what, and whether probabilities can be trusted."""
    return {
        **class_tables(data),
        **diagnostic_section(data.headline.score),
        **confusion_section(data.headline, data.classes),
        "calibration": [
            *calibration_sentences(data.headline.score, data.temperature, data.ece_by_chance),
            *confidence_sentences(data.confidence),
            *cost_sentences(data.headline.score),
            *risk_sentences(data.risk),
            *unlike_sentences(data.unlike),
        ],
        "reliability": figures.reliability(data.reliability),
        "risk": figures.risk(data.risk),
    }


def cost_sentences(score: Mapping[str, Any]) -> list[str]:
    """What deciding by costs saves."""
    if (found := score.get("cost")) is None:
        return []
    mean, by, saved = (estimate(found[name]) for name in ("mean", "by_probability", "saved"))
    if mean is None or by is None or saved is None:
        return []
    ends = "" if saved.low is None else f" (95 % interval {plain(saved.low, 3)} to {plain(saved.high or 0.0, 3)})"
    return [
        f"The answer is the one whose expected cost is smallest, by the costs that were given: {plain(mean.value, 3)} "
        f"an image on average instead of {plain(by.value, 3)} by the most probable class; saved: "
        f"{plain(saved.value, 3)}{ends}."
    ]


def _warnings(data: ReportData) -> list[str]:
    return [*few_judged(data), *_class_warnings(data.images_by_class)]


def _limits(data: ReportData) -> list[str]:
    many = counted(len(data.classes), "class", "classes")
    also = " and marks some, not all, as unlike what it was taught" if data.unlike else ""
    return [f"The model knows {many} and always answers with one of them, also for a picture of something else{also}."]


def _card_limits(data: ReportData) -> list[str]:
    return ["It always answers with one of its classes, also for a picture of something else."]


TELLING = Telling(
    nouns=("class", "classes"),
    counts="Images per class",
    does="sorts images into",
    headline=headline,
    usable=usable,
    steps=_confused,
    warnings=_warnings,
    further={
        "balanced_accuracy": "Balanced accuracy (the mean recall of the classes)",
        "macro_precision": "Precision, mean of the classes",
        "macro_f1": "F1, mean of the classes",
    },
    sections=sections,
    galleries={
        "worst": ("Worst mistakes", "Wrong answers of which the model was most certain."),
        "least_certain": (
            "Least certain",
            "The model had a close choice here: the picture is a borderline case, or a class needs more images.",
        ),
        "most_certain": ("Most certain and right", "What the model finds typical of its classes."),
    },
    limits=_limits,
    card_limits=_card_limits,
    use=Use(
        "Name new images, and write the answers to a table:",
        "Measure it on other labelled images, one folder per class:",
        "folder/",
        "TransferClassifier",
    ),
    hub=Hub(
        "image-classification",
        "Image classification",
        ("image-classification",),
        {  # metric of a score -> (Hub metric, name shown)
            "accuracy": ("accuracy", "Accuracy"),
            "macro_precision": ("precision", "Precision, mean of the classes"),
            "macro_recall": ("recall", "Recall, mean of the classes"),
            "macro_f1": ("f1", "F1, mean of the classes"),
        },
    ),
)
