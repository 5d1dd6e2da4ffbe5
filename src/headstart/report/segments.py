"""The class of each pixel: what the page says of a model that segments, and its section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.data.mask_drawing import palette
from headstart.report import figures, measures
from headstart.report.content import ReportData
from headstart.report.measures import measure
from headstart.report.numbers import NOTHING, estimate, full, percent
from headstart.report.otherwise import usable as better_than_nothing
from headstart.report.telling import Hub, Table, Telling, Use
from headstart.report.words import Advice

FACTS = {
    "miou": "Mean over the classes of intersection over union: of the pixels that are of a class or are called so, "
    "the share of which both is true",
    "pixel_accuracy": "Pixels named rightly",
    "boundary_f1": "Boundaries found where they are, within 0.75 % of the diagonal (F1, mean of the classes)",
}
LEAST = 0.5  # intersection over union, below which less than half of what either says is common to both
SHARE_SHOWN = 0.01  # of a class's pixels, from which a confusion is listed
MOST_PAIRS = 15
MOST_COLUMNS = 20  # classes up to which the whole table of confusions is drawn


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    score, n = data.headline.score, int(data.headline.score["n"])
    miou, pixels = (estimate(score.get(name)) for name in ("miou", "pixel_accuracy"))
    text = f"On {counted(n, 'image')} that it has never seen the model's masks and the true ones have "
    text += f"{full(miou)} in common (mean intersection over union of the classes)"
    return f"{text}; {full(pixels)} of the pixels are named rightly." if pixels is not None else f"{text}."


def usable(data: ReportData) -> Advice:
    """Which classes it is good for."""
    found = better_than_nothing(data)
    if found.mood == "bad":
        return found
    rows = [row for row in data.headline.score.get("each_class") or [] if row["iou"]["value"] is not None]
    weak = sorted((row for row in rows if row["iou"]["value"] < LEAST), key=lambda row: row["iou"]["value"])
    question = "Is it usable?"
    if not weak:
        return Advice(question, "Yes, on images like these: of each class more than half is common to both.", "good")
    named = ", ".join(f"{row['label']} ({percent(row['iou']['value'])})" for row in weak[:5])
    more = f" and {len(weak) - 5} more" if len(weak) > 5 else ""
    text = f"Not for {named}{more}, of which less than half is common to truth and answer; look at the others."
    return Advice(question, text, "unsure")


def warnings(data: ReportData) -> list[str]:
    """Classes that few images judge."""
    few = [row["label"] for row in data.headline.score.get("each_class") or [] if 0 < row["n"] < 5]
    none = [row["label"] for row in data.headline.score.get("each_class") or [] if row["n"] == 0]
    found = []
    if few:
        found.append(f"Fewer than 5 judged images show {', '.join(few[:8])}: their numbers say little.")
    if none:
        found.append(f"No judged image shows {', '.join(none[:8])}: nothing is known of how well it is found.")
    return found


def sections(data: ReportData) -> dict[str, Any]:
    """The numbers, each class, what is taken for what."""
    score = data.headline.score
    colours = {name: colour(palette(), k) for k, name in enumerate(data.classes)}
    confusion = score.get("confusion") or []
    return {
        "segmented": {
            "facts": facts(data),
            "rows": [_row(row) | {"colour": colours[row["label"]]} for row in _ordered(score)],
            "pairs": pairs(confusion, data.classes),
            "matrix": matrix(confusion) if len(data.classes) <= MOST_COLUMNS else [],
        }
    }


def colour(colours: Sequence[Sequence[int]] | NDArray[np.uint8], kind: int) -> str:
    """Of a class, as CSS has it."""
    red, green, blue = (int(v) for v in colours[kind % len(colours)])
    return f"rgb({red} {green} {blue})"


def facts(data: ReportData) -> list[tuple[str, str]]:
    """Every number with its interval."""
    score = data.headline.score
    return [(title, measures.full(measure(name), estimate(score.get(name)))) for name, title in FACTS.items()]


def _ordered(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes, the weakest first; those that could not be judged last."""
    rows = score.get("each_class") or []
    return sorted(rows, key=lambda row: 2.0 if row["iou"]["value"] is None else row["iou"]["value"])


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    est = estimate(row["iou"])
    return {
        "name": row["label"],
        "n": row["n"],
        "pixels": percent(row["pixels"]),
        "iou": full(est) if est is not None else NOTHING,
        "drawing": figures.bar(est, "model"),
        "others": [NOTHING if row[k] is None else percent(row[k]) for k in ("precision", "recall", "boundary_f1")],
    }


def pairs(confusion: list[list[float]], names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(true class, answer, share of the true class's pixels), the largest parts of all pixels first."""
    found = [
        (part, names[t], names[a], part / sum(line))
        for t, line in enumerate(confusion)
        for a, part in enumerate(line)
        if a != t and part > 0 and part / sum(line) >= SHARE_SHOWN
    ]
    return [(truth, answer, percent(share)) for _, truth, answer, share in sorted(found, reverse=True)[:MOST_PAIRS]]


def matrix(confusion: list[list[float]]) -> list[list[tuple[str, str]]]:
    """(text, CSS class) of each cell: of a true class's pixels those that are answered so, in percent."""
    lines = []
    for t, line in enumerate(confusion):
        total = sum(line)
        shares = [part / total if total else 0.0 for part in line]
        lines.append([(_whole(share), _shade(share, t == a)) for a, share in enumerate(shares)])
    return lines


def _whole(share: float) -> str:
    return "" if share < 0.005 else f"{100 * share:.0f}"


def _shade(share: float, right: bool) -> str:
    """As the other confusion tables: blue is right, orange wrong, in steps."""
    if share < 0.005:
        return "q0"
    return f"{'right' if right else 'wrong'} q{min(5, 1 + int(share * 5))}"


def tables(data: ReportData) -> list[Table]:
    """What could be judged, and each class."""
    rows = [(row["name"], str(row["n"]), row["pixels"], row["iou"]) for row in map(_row, _ordered(data.headline.score))]
    return [
        Table("Masks", "", ("measure", "value"), facts(data)),
        Table("Each class", "The weakest first.", ("class", "images", "pixels", "intersection over union"), rows),
    ]


def _limits(data: ReportData) -> list[str]:
    return [
        "Each pixel is given one of the classes, also where a picture shows something else.",
        "The network sees each picture at the size named below: what is thinner than a few of its pixels is lost.",
    ]


def _nothing(data: ReportData) -> list[str]:
    return []


TELLING = Telling(
    nouns=("class", "classes"),
    counts="Images that show each class",
    does="gives each pixel one of",
    headline=headline,
    usable=usable,
    steps=_nothing,
    warnings=warnings,
    further={},
    sections=sections,
    galleries={
        "worst": (
            "Worst answers",
            "The judged images that have least in common with their masks.",
        ),
        "least_certain": ("Least certain", ""),
        "most_certain": ("Most certain and right", ""),
    },
    limits=_limits,
    card_limits=_limits,
    use=Use(
        "Answer for new images: the share of each class, and with --masks a PNG of class numbers for each:",
        "Measure it on other images with their masks:",
        "folder/",
        "TransferSegmenter",
        more=(
            ("Masks as files:", "headstart predict {model} images/ --masks masks/"),
            ("Pictures with the masks drawn on them:", "headstart predict {model} images/ --explain drawn/"),
        ),
    ),
    hub=Hub(
        "image-segmentation",
        "Image segmentation",
        ("image-segmentation", "semantic-segmentation"),
        {"miou": ("mean_iou", "Mean IoU"), "pixel_accuracy": ("accuracy", "Pixel accuracy")},
    ),
    tables=tables,
    truths="masks",
    outputs="masks",
    looked="Below each picture the true mask is on the left, the model's on the right.",
    loss=("loss", "loss"),
    tried=("1 - mean IoU", "mean IoU"),
)
