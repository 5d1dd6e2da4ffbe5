"""Several labels an image: what the page says of them, and its sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.counted import count, counted
from headstart.report import figures, measures, plots
from headstart.report.content import ReportData
from headstart.report.numbers import Estimate, ends, estimate, full, percent, share
from headstart.report.telling import Hub, Table, Telling, Use
from headstart.report.words import (
    FEW_IMAGES,
    Advice,
    article,
    blind_one,
    headline_measure,
    headline_of,
    is_wide,
    listing,
)

FEW_PER_LABEL = 10  # below this one image moves a label's recall by more than 10 points
SHORT_TABLE = 30  # labels up to which the table is shown whole, and the matrix with its numbers
WORST_LABELS = 20  # rows shown of a longer table; the rest unfolds
NAMED_COLUMNS = 8  # labels up to which the columns of the matrix carry names, not numbers
MOST_PAIRS = 10  # of labels that are given together too often or too seldom
APART = 2.0  # standard deviations of the count (Poisson) from which such a pair is listed
CARD_LABELS = 20  # rows of the card's table


@dataclass(frozen=True)
class LabelRow:
    """A line of the table. `known`: in how many of the images it was looked for, "" where in all."""

    name: str
    n: str
    known: str
    drawing: Markup
    shares: tuple[Estimate | None, ...]  # average precision, precision, recall, F1
    threshold: str


@dataclass(frozen=True)
class Together:
    """Which labels come together: a matrix with numbers or a drawing, and the pairs that the answers get wrong."""

    matrix: list[list[tuple[str, str]]]
    drawing: Markup
    pairs: list[tuple[str, str, str, str]]  # two labels, images that have both, images that were given both
    comparable: bool
    named: bool


def rows_of(data: ReportData) -> list[Mapping[str, Any]]:
    """The judge's rows, the lowest average precision first, those that were not judged last."""

    def order(row: Mapping[str, Any]) -> float:
        est = estimate(row["average_precision"])
        return 2.0 if est is None else est.value

    return sorted(data.headline.score.get("per_label", ()), key=order)


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    what = headline_measure(data)
    est, n = headline_of(data.headline, data.headline_name), int(data.headline.score["n"])
    told = f"{article(what.name)} of {measures.full(what, est, n)}"
    text = f"On images that it has never seen the model finds labels with {told}"
    exact = estimate(data.headline.score.get("exact_match"))
    return f"{text}." if exact is None else f"{text}; {full(exact)} of the images have every label right."


def usable(data: ReportData) -> Advice:
    """Whether it beats the share of each label, and how many images have a wrong set."""
    question, score = "Is it usable?", data.headline.score
    est = headline_of(data.headline, data.headline_name)
    constant = blind_one(data)
    guess = None if constant is None else estimate(constant.value)
    if guess is not None and (est.value if est.low is None else est.low) <= guess.value:
        text = "No: it is not shown to be better than giving every image the same answer"
        return Advice(question, f"{text} ({headline_measure(data).name} {percent(guess.value)}).", "bad")
    exact = estimate(score.get("exact_match"))
    answer = "Yes, on images like these, if the numbers of the labels that you need are good enough."
    if exact is not None:
        low, high = (exact.value if end is None else end for end in (exact.low, exact.high))
        wrong = f"between {' and '.join(ends(1 - high, 1 - low))}" if low < high else share(1 - exact.value)
        answer = f"If {wrong} % of the images may have a label too many or too few, yes, on images like these."
    judged = [(found, row) for row in rows_of(data) if (found := estimate(row["average_precision"]))]
    if len(judged) > 1:
        found, row = judged[0]
        answer += (
            f" The weakest label is \u201c{row['label']}\u201d, with an average precision of {full(found, row['n'])}."
        )
    return Advice(question, answer, "unsure" if is_wide(est) else "good")


def steps(data: ReportData) -> list[str]:
    """The pair of labels that the answers put together or keep apart most wrongly."""
    pairs, _ = _wrong_pairs(data)
    if not pairs:
        return []
    first, second, true, given = pairs[0]
    often = "more often" if given > true else "more seldom"
    return [
        f"{first} and {second} are given together {often} than they come: {count(given)} instead of {count(true)} "
        f"times. Images that have one of the two alone{'' if given > true else ', and both,'} pay most."
    ]


def warnings(data: ReportData) -> list[str]:
    """Few images judged, labels with few images or none."""
    n, found = int(data.headline.score["n"]), []
    if n < FEW_IMAGES:
        found.append(f"Only {counted(n, 'image')} judged: the numbers of a rare label rest on a few of them.")
    few = sorted(name for name, images in data.images_by_class.items() if images < FEW_PER_LABEL)
    if few:
        found.append(
            f"{counted(len(few), 'label')} with fewer than {FEW_PER_LABEL} training images: {listing(few, 3)}."
        )
    none = [str(row["label"]) for row in rows_of(data) if estimate(row["average_precision"]) is None]
    if none:
        found.append(f"{counted(len(none), 'label')} not judged, since no judged image has it: {listing(none, 3)}.")
    return found


def sections(data: ReportData) -> dict[str, Any]:
    """Each label, and which labels come together."""
    rows = [_row(row, int(data.headline.score["n"])) for row in rows_of(data)]
    shown = len(rows) if len(rows) <= SHORT_TABLE else WORST_LABELS
    tagged = {
        "rows": rows[:shown],
        "rest": rows[shown:],
        "threshold": _threshold_said(data),
        "first": data.headline.source == "cross-validation" and data.headline.repeats > 1,
        "together": _together(data),
    }
    return {"tagged": tagged if rows else None, "tagged_names": _names(data) if rows else []}


def _threshold_said(data: ReportData) -> str:
    if data.threshold is not None:
        return f"A label is given from a probability of {percent(data.threshold)}, the threshold that you set."
    return (
        "A label is given from the probability in the last column, its threshold: the one that gave the best F1 on "
        "training images, each answered by a model that had not seen it."
    )


def _row(row: Mapping[str, Any], n: int) -> LabelRow:
    shares = tuple(estimate(row[name]) for name in ("average_precision", "precision", "recall", "f1"))
    known = "" if row["known"] == n else f"of {count(row['known'])}"
    return LabelRow(
        row["label"], count(row["n"]), known, figures.bar(shares[0], "model"), shares, _threshold(row["threshold"])
    )


def _threshold(value: float) -> str:
    """A threshold above 1 says that the label is never given."""
    return percent(value) if value <= 1 else "never"


def _wrong_pairs(data: ReportData) -> tuple[list[tuple[str, str, int, int]], bool]:
    """Pairs of labels (first, second, images that have both, images given both) whose two counts are farther apart than
    chance makes them, the farthest first; and whether they can be compared: unknown labels are given, but not true."""
    score = data.headline.score
    if "co_occurrence" not in score or "answered_together" not in score:
        return [], True
    known = {row["label"]: row["known"] == score["n"] for row in score["per_label"]}
    names, true, given = _names(data), np.asarray(score["co_occurrence"]), np.asarray(score["answered_together"])
    firsts, seconds = np.triu_indices(len(names), 1)
    apart = np.abs(given - true)[firsts, seconds] / np.sqrt(np.maximum(true, 1))[firsts, seconds]
    found = [
        (names[i], names[j], int(true[i, j]), int(given[i, j]))
        for i, j, far in ((firsts[k], seconds[k], apart[k]) for k in np.argsort(-apart, kind="stable"))
        if far >= APART and known[names[i]] and known[names[j]]
    ]
    return found[:MOST_PAIRS], all(known.values())


def _names(data: ReportData) -> list[str]:
    """In the order of the matrices, which is that of the judge's own rows."""
    return [str(row["label"]) for row in data.headline.score["per_label"]]


def _together(data: ReportData) -> Together | None:
    if "co_occurrence" not in data.headline.score or len(_names(data)) < 2:
        return None
    matrix = np.asarray(data.headline.score["co_occurrence"])
    pairs, comparable = _wrong_pairs(data)
    told = [(a, b, count(true), count(given)) for a, b, true, given in pairs]
    short = len(matrix) <= SHORT_TABLE
    drawing = Markup("") if short else plots.together(matrix, f"Images with both of {len(matrix)} labels")
    return Together(_cells(matrix) if short else [], drawing, told, comparable, len(matrix) <= NAMED_COLUMNS)


def _cells(matrix: NDArray[np.int64]) -> list[list[tuple[str, str]]]:
    """(text, CSS classes) of images with both labels, shaded by the share of the row's own images."""
    own = np.maximum(np.diag(matrix), 1)
    return [
        [
            (count(int(n)), "own" if row == column else f"right q{figures.level(float(n / own[row]))}")
            for column, n in enumerate(line)
        ]
        for row, line in enumerate(matrix)
    ]


def tables(data: ReportData) -> list[Table]:
    """The weakest labels."""
    rows = rows_of(data)
    told = [
        (
            str(row["label"]),
            count(row["n"]),
            *(full(estimate(row[name])) for name in ("average_precision", "precision", "recall", "f1")),
            _threshold(row["threshold"]),
        )
        for row in rows[:CARD_LABELS]
    ]
    caption = "Lowest average precision first."
    if len(rows) > CARD_LABELS:
        caption = f"The weakest {CARD_LABELS} of {len(rows)} labels; `report.html` has all."
    columns = ("label", "images", "average precision", "precision", "recall", "F1", "given from")
    return [Table("Each label", caption, columns, told)]


def _limits(data: ReportData) -> list[str]:
    return [
        f"The model knows {counted(len(data.classes), 'label')} and nothing else: a picture of something else gets "
        "none of them, or wrong ones.",
        "A label that was marked as unknown in an image counts nowhere; one that was forgotten counts as absent.",
    ]


TELLING = Telling(
    nouns=("label", "labels"),
    counts="Images with each label",
    does="gives each image any number of",
    headline=headline,
    usable=usable,
    steps=steps,
    warnings=warnings,
    further={
        "macro_f1": "F1, mean of the labels",
        "micro_f1": "F1 of all labels of all images together",
        "exact_match": "Images of which every label is right",
        "label_accuracy": "Labels rightly given or not given, mean of the images",
    },
    sections=sections,
    galleries={
        "worst": ("Worst mistakes", "Images with a wrong or a missing label that the model was surest of."),
        "least_certain": ("Least certain", "The model had a close choice for at least one label here."),
        "most_certain": ("Most certain and right", "Every label is right, and the model was sure of all."),
    },
    limits=_limits,
    card_limits=_limits,
    use=Use(
        "Label new images, and write the answers to a table:",
        "Measure it on other labelled images, a list with the same labels:",
        "list.csv",
        "TransferTagger",
    ),
    hub=Hub(
        "image-classification",
        "Image classification, several labels an image",
        ("image-classification", "multi-label"),
        {
            "mean_average_precision": ("mean_average_precision", "Mean average precision"),
            "macro_f1": ("f1", "F1, mean of the labels"),
            "micro_f1": ("f1", "F1 of all labels together"),
            "exact_match": ("accuracy", "Images of which every label is right"),
        },
    ),
    tables=tables,
    tried=("log-loss", "labels right"),
)
