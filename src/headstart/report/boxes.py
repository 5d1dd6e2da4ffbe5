"""Which things lie where: what the page says of a model that finds boxes, and its section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.counted import count, counted
from headstart.data.box_drawing import COLOURS
from headstart.report import figures, measures
from headstart.report.content import ReportData
from headstart.report.measures import measure
from headstart.report.numbers import NOTHING, estimate, full, percent
from headstart.report.otherwise import usable as better_than_nothing
from headstart.report.segments import colour
from headstart.report.telling import Hub, Table, Telling, Use
from headstart.report.words import Advice

FACTS = {
    "map50": "Average precision of the boxes, mean of the classes; half in common with a true one counts as found",
    "map": "The same, mean over ten thresholds from half to nearly all in common",
    "precision": "Of the boxes that are shown, those that are right, mean of the classes",
    "recall": "Of the true boxes, those that are found, mean of the classes",
}
GOOD = 0.8  # precision and recall of a class from which it is called usable
FEW = 20  # judged boxes of a class, below which its numbers say little


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    score, n = data.headline.score, int(data.headline.score["n"])
    found = {name: estimate(score.get(name)) for name in ("map50", "precision", "recall")}
    text = f"On {counted(n, 'image')} that it has never seen the model has a mean average precision of "
    text += f"{full(found['map50'])} (at half in common)"
    if found["precision"] is None or found["recall"] is None:
        return f"{text}."
    right, seen = full(found["precision"]), full(found["recall"])
    return f"{text}; it finds {seen} of the true boxes, and {right} of its own are right."


def usable(data: ReportData) -> Advice:
    """Which classes it is good for."""
    found = better_than_nothing(data)
    if found.mood == "bad":
        return found
    rows = [row for row in data.headline.score.get("each_class") or [] if row["recall"]["value"] is not None]
    weak = [row for row in rows if min(row["recall"]["value"], row["precision"]["value"] or 0.0) < GOOD]
    question = "Is it usable?"
    if not weak:
        text = "Yes, on images like these: of each class most is found, and most boxes are right."
        return Advice(question, text, "good")
    named = "; ".join(
        f"{row['label']}: {percent(row['recall']['value'])} found, {_share(row['precision'])} of its boxes right"
        for row in weak[:4]
    )
    return Advice(question, f"Not yet where these matter: {named}.", "unsure")


def _share(found: Mapping[str, Any]) -> str:
    return NOTHING if found["value"] is None else percent(found["value"])


def warnings(data: ReportData) -> list[str]:
    """Classes that few boxes judge."""
    rows = data.headline.score.get("each_class") or []
    few = [row["label"] for row in rows if row["n"] < FEW]
    return [f"Fewer than {FEW} judged boxes of {', '.join(few[:8])}: their numbers say little."] if few else []


def sections(data: ReportData) -> dict[str, Any]:
    """The numbers, each class, counts, sizes."""
    score = data.headline.score
    colours = {name: colour(COLOURS, k) for k, name in enumerate(data.classes)}
    return {
        "boxed": {
            "facts": facts(data),
            "rows": [_row(row) | {"colour": colours[row["label"]]} for row in _ordered(score)],
            "counts": [_counted(row) for row in _ordered(score)],
            "sizes": [_size(row) for row in score.get("by_size") or []],
        }
    }


def facts(data: ReportData) -> list[tuple[str, str]]:
    """Every number with its interval."""
    score = data.headline.score
    return [(title, measures.full(measure(name), estimate(score.get(name)))) for name, title in FACTS.items()]


def _ordered(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes, the weakest first; those that could not be judged last."""
    rows = score.get("each_class") or []
    return sorted(rows, key=lambda row: _or(row["average_precision_50"]["value"], 2.0))


def _or(value: float | None, instead: float) -> float:
    return instead if value is None else value


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    est = estimate(row["average_precision_50"])
    cells = [estimate(row[name]) for name in ("average_precision_50", "precision", "recall")]
    return {
        "name": row["label"],
        "n": count(row["n"]),
        "images": count(row["images"]),
        "drawing": figures.bar(est, "model"),
        "shares": cells,
        "cells": [NOTHING if cell is None else full(cell) for cell in cells],
        "score": f"{row['score']:.2f}",
    }


def _counted(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """(class, error of counts, that of always the mean, what is gained)."""
    numbers = [_number(row[name]) for name in ("count_error", "count_error_of_mean", "count_gain")]
    return row["label"], numbers[0], numbers[1], numbers[2]


def _number(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return NOTHING
    ends = "" if found["low"] is None else f" ({found['low']:.2f} to {found['high']:.2f})"
    return f"{found['value']:.2f}{ends}"


def _size(row: Mapping[str, Any]) -> dict[str, Any]:
    est = estimate(row["recall"])
    span = f"{row['low']:.0f} px or more" if row["high"] is None else f"{row['low']:.0f} to {row['high']:.0f} px"
    told = NOTHING if est is None else full(est)
    return {"span": span, "n": count(row["n"]), "recall": told, "drawing": figures.bar(est, "model")}


def tables(data: ReportData) -> list[Table]:
    """What could be judged, and each class."""
    rows = [(row["name"], row["n"], *row["cells"]) for row in map(_row, _ordered(data.headline.score))]
    columns = ("class", "boxes", "average precision", "precision", "recall")
    return [
        Table("Boxes", "", ("measure", "value"), facts(data)),
        Table("Each class", "The weakest first; at half in common.", columns, rows),
    ]


def _limits(data: ReportData) -> list[str]:
    return [
        "Things of other kinds are not found, and may be taken for one of these.",
        "Things that hide each other are found as one more often than apart.",
        "The network sees each picture at the size named below: things of a few of its pixels are lost.",
    ]


def _nothing(data: ReportData) -> list[str]:
    return []


TELLING = Telling(
    nouns=("class", "classes"),
    counts="Images that show each class",
    does="finds things of",
    headline=headline,
    usable=usable,
    steps=_nothing,
    warnings=warnings,
    further={},
    sections=sections,
    galleries={
        "worst": (
            "Worst answers",
            "The judged images with the largest share of boxes missed or falsely shown.",
        ),
        "least_certain": ("Least certain", ""),
        "most_certain": ("Most certain and right", ""),
    },
    limits=_limits,
    card_limits=_limits,
    use=Use(
        "Find things in new images, and write a row for each box:",
        "Measure it on other images with their boxes:",
        "folder/",
        "TransferDetector",
        more=(
            ("Pictures with the boxes drawn on them:", "headstart predict {model} images/ --explain drawn/"),
            ("In COCO's form:", "headstart predict {model} images/ -o boxes.coco.json"),
        ),
    ),
    hub=Hub(
        "object-detection",
        "Object detection",
        ("object-detection",),
        {"map50": ("mean_average_precision", "mAP at IoU .5"), "map": ("mean_average_precision", "mAP")},
    ),
    tables=tables,
    truths="boxes",
    outputs="boxes",
    looked="Below each picture the true boxes are on the left, the model's on the right.",
    loss=("loss", "loss"),
    tried=("1 - mAP", "mAP at .5"),
)
