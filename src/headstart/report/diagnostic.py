"""One class an image, as doctors and inspectors ask: a small table in plain words, and the ROC curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from headstart.report.figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, axes
from headstart.report.numbers import estimate, full, percent, plain

TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Row:
    name: str
    value: str
    between: str
    said: str


def diagnostic_section(score: Mapping[str, Any]) -> dict[str, Any]:
    """`diagnosed`: rows, sentences and the ROC curve; None where the score has none of it."""
    found = score.get("diagnostic")
    if found is None:
        return {"diagnosed": None}
    return {
        "diagnosed": {
            "positive": found.get("positive"),
            "rows": _rows(found),
            "points": _points(found),
            "roc": roc_curve(found.get("roc", ())),
            "missing": found["missing"],
        }
    }


def _rows(found: Mapping[str, Any]) -> list[Row]:
    positive = found.get("positive")
    kinds = [
        (
            "auroc",
            "AUROC" if positive is not None else "AUROC, mean of the classes",
            f"How often an image of \u201c{positive}\u201d gets a higher probability of it than one of the other class."
            if positive is not None
            else "How often an image of a class gets a higher probability of it than one of another class.",
            "1 is always, 0.5 is chance.",
        ),
        (
            "average_precision",
            "AUPRC (average precision)",
            f"How purely images of \u201c{positive}\u201d come first when all are ordered by its probability.",
            f"1 is perfect, {plain(found.get('share', 0.0), 2)} is chance.",
        ),
        ("kappa", "Cohen\u2019s kappa", "How far answers and labels agree beyond chance.", "1 is always, 0 is chance."),
        (
            "mcc",
            "Matthews\u2019 correlation (MCC)",
            "The correlation of answers and labels, which a large class alone cannot raise.",
            "1 is perfect, 0 is chance.",
        ),
    ]
    rows = []
    for key, name, what, scale in kinds:
        est = estimate(found.get(key))
        if est is None:
            continue
        between = "" if est.low is None or est.high is None else f"{plain(est.low, 3)} to {plain(est.high, 3)}"
        rows.append(Row(name, plain(est.value, 3), between, f"{what} {scale}"))
    return rows


def _points(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each sensitivity at a specificity, and the other way round."""
    said, positive = [], found.get("positive")
    for row in found.get("operating", ()):
        chosen = {
            "the judged images": "chosen on these very images, so that new ones will show somewhat less",
            "the other folds": "chosen in cross-validation on the images of the other folds",
        }.get(row["chosen_on"], "chosen on training images, each left out in turn")
        sensitivity, specificity = (full(estimate(row[name])) for name in ("sensitivity", "specificity"))
        said.append(
            f"{percent(row['share'])} {row['asked']} asked: calling an image \u201c{positive}\u201d from a probability "
            f"of {plain(row['threshold'], 3)} on ({chosen}) finds {sensitivity} of its images (sensitivity) and leaves "
            f"{specificity} of the others alone (specificity)."
        )
    return said


def roc_curve(points: Sequence[tuple[float, float]]) -> Markup:
    """Sensitivity (upwards) against 1 - specificity, both in percent; "" below two points."""
    if len(points) < 2:
        return Markup("")
    wide, high = WIDTH - LEFT - RIGHT - 16, HEIGHT - TOP - BOTTOM

    def at(false: float, true: float) -> tuple[float, float]:
        return LEFT + 8 + wide * false, TOP + high * (1 - true)

    line = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in points)
    (x0, y0), (x1, y1) = at(0, 0), at(1, 1)
    labels = [(at(t, 0)[0], f"{100 * t:.0f}") for t in TICKS]
    drawn = axes(TICKS, [at(0, t)[1] for t in TICKS], labels, "false alarms (1 - specificity), %", "sensitivity, %")
    shown = [points[k] for k in range(0, len(points), max(1, len(points) // 10))]
    said = "; ".join(f"{percent(x)} false alarms: {percent(y)} found" for x, y in shown)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="ROC curve. {said}">{drawn}'
        f'<path class="diagonal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>'
        f'<polyline class="line" points="{line}"/></svg>'
    )
