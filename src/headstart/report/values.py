"""Measured values: what the page says of them, and its section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from headstart.counted import count, counted
from headstart.report import measures, numbers, plots
from headstart.report.content import Column, ReportData
from headstart.report.measures import measure
from headstart.report.numbers import Estimate, estimate
from headstart.report.telling import Hub, Table, Telling, Use
from headstart.report.words import FEW_IMAGES, Advice, blind_one, headline_measure, headline_of, is_wide, listing

MOST_COLUMNS = 12  # drawn: each takes two charts; the table has all
ENDS = 0.2  # of the images, those with the smallest and the largest values
DRAWN_IN = 0.5  # of the error: from here on the values at the ends are said to be drawn to the middle


@dataclass(frozen=True)
class ColumnRow:
    """A line of the table; `flat`: the error of always answering the mean of these images."""

    name: str
    n: str
    r2: tuple[str, str]  # with its interval, as the next two
    mae: tuple[str, str]
    rmse: tuple[str, str]
    coverage: Estimate | None
    flat_mae: str
    flat_rmse: str


@dataclass(frozen=True)
class ColumnView:
    name: str
    said: str
    scatter: Markup
    residuals: Markup
    left_out: str  # dots that are not drawn, in words


def rows_of(data: ReportData) -> list[Mapping[str, Any]]:
    """The judge's row of each column; of one column the score is its row."""
    score = data.headline.score
    return list(score.get("per_column") or [{**score, "column": data.classes[0]}])


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    what = headline_measure(data)
    est, n = headline_of(data.headline, data.headline_name), int(data.headline.score["n"])
    told = f"an {what.name} of {measures.full(what, est, n)}"
    if len(data.classes) > 1:
        of = f"the mean of {len(data.classes)} columns"
        return f"On images that the model has never seen its answers reach {told}, {of}."
    text = f"On images that the model has never seen its answers for {data.classes[0]} reach {told}"
    mae = estimate(data.headline.score.get("mae"))
    if mae is None:
        return f"{text}."
    return f"{text}; on average they are {measures.full(measure('mae', data.classes[0]), mae)} away from the truth."


def usable(data: ReportData) -> Advice:
    """Whether it beats the mean, and what error must be acceptable."""
    question = "Is it usable?"
    est = headline_of(data.headline, data.headline_name)
    constant = blind_one(data)
    guess = None if constant is None else estimate(constant.value)
    least = est.value if est.low is None else est.low
    if least <= (0.0 if guess is None else guess.value):
        return Advice(question, "No: it is not shown to be better than always answering the mean.", "bad")
    known = [(row["column"], mae) for row in rows_of(data) if (mae := estimate(row.get("mae")))]
    errors = [measures.value(measure("mae", name), mae.value) for name, mae in known]
    off = f"If errors of {listing(errors, 3)} on average are acceptable" if errors else "If such errors are acceptable"
    answer = f"{off}, yes, on images like these."
    found = [(r2.value, row["column"]) for row in rows_of(data) if (r2 := estimate(row.get("r2")))]
    if len(found) > 1:
        r2, name = min(found)
        answer += f" The weakest column is \u201c{name}\u201d, with an R\u00b2 of {measures.value(measure('r2'), r2)}."
    return Advice(question, answer, "unsure" if is_wide(est) else "good")


def steps(data: ReportData) -> list[str]:
    """Columns of which small values are answered too high and large ones too low."""
    return [text for column in data.columns if (text := _drawn_in(column))][:3]


def _drawn_in(column: Column) -> str:
    truth, answer = np.asarray(column.truth, dtype=float), np.asarray(column.answer, dtype=float)
    few = int(len(truth) * ENDS)
    if few < 5:
        return ""
    order, off = np.argsort(truth, kind="stable"), answer - truth
    low, high = float(off[order[:few]].mean()), float(off[order[-few:]].mean())
    error = float(np.sqrt((off**2).mean()))
    if min(low, -high) < DRAWN_IN * error:
        return ""
    what = measure("mae", column.name)
    return (
        f"The smallest values of {column.name} are answered {measures.value(what, low)} too high and the largest "
        f"{measures.value(what, -high)} too low, on average over a fifth of the images each: more images with such "
        "values pay most."
    )


def warnings(data: ReportData) -> list[str]:
    """Few images judged; no interval."""
    n = int(data.headline.score["n"])
    found = []
    if n < FEW_IMAGES:
        found.append(f"Only {counted(n, 'image')} judged: a few of them can move the R\u00b2 much.")
    without = [column.name for column in data.columns if column.half_width is None]
    if without:
        found.append(f"Too few training images to say how far off an answer may be: {listing(without, 3)}.")
    return found


def sections(data: ReportData) -> dict[str, Any]:
    """A table of the columns, and of each its scatter and its residuals."""
    coverage = estimate(data.headline.score.get("coverage"))
    promised = data.columns[0].coverage if data.columns else 0.9
    held = ""
    if coverage is not None:
        told = numbers.full(coverage, int(data.headline.score["n"]))
        of = "the values" if len(data.classes) == 1 else "the values of all columns"
        held = f"The {100 * promised:g} % intervals held {told} of {of} of images that were not used to set them."
    views = [_view(column) for column in data.columns[:MOST_COLUMNS]]
    by_name = {column.name: column for column in data.columns}
    rows = [_row(row, by_name.get(row["column"])) for row in rows_of(data)]
    return {"measured": {"rows": rows, "held": held, "columns": views, "more": len(data.columns) - len(views)}}


def _row(row: Mapping[str, Any], column: Column | None) -> ColumnRow:
    flat = ("", "")
    if column is not None and len(column.truth):
        off = np.asarray(column.truth, dtype=float)
        off = off - off.mean()
        flat = numbers.plain(float(np.abs(off).mean())), numbers.plain(float(np.sqrt((off**2).mean())))
    r2, mae, rmse = (measures.apart(measure(name), estimate(row.get(name))) for name in ("r2", "mae", "rmse"))
    return ColumnRow(row["column"], count(row["n"]), r2, mae, rmse, estimate(row.get("coverage")), *flat)


def _view(column: Column) -> ColumnView:
    n = len(column.truth)
    if column.half_width is None:
        said = "Too few training images to say how far off an answer may be."
    else:
        half = measures.value(measure("mae", column.name), column.half_width)
        promised = f"{100 * column.coverage:g}"
        said = (
            f"An interval is the answer \u00b1 {half}: as wide as it takes for {promised} % of the training images, "
            "each answered by a model that had not seen it."
        )
    drawn = len(plots.spread_evenly(n))
    left_out = f"{count(drawn)} of {counted(n, 'image')} are drawn, evenly over the truth. " if drawn < n else ""
    return ColumnView(column.name, said, plots.scatter(column), plots.residuals(column), left_out)


def tables(data: ReportData) -> list[Table]:
    """Each column with its errors."""
    rows = []
    for row in rows_of(data):
        found = [estimate(row.get(name)) for name in ("r2", "mae", "rmse", "coverage")]
        told = [measures.full(measure(k), e) for k, e in zip(("r2", "mae", "rmse", "coverage"), found, strict=True)]
        rows.append((row["column"], count(row["n"]), *told))
    columns = ("column", "images", "R\u00b2", "mean absolute error", "root mean squared error", "coverage")
    return [Table("Each column", "Errors in the unit of the column.", columns, rows)]


def _limits(data: ReportData) -> list[str]:
    return [
        "The model always answers with a number, also for a picture of something else, and seldom with one beyond the "
        "values that it learned from."
    ]


TELLING = Telling(
    nouns=("measured value", "measured values"),
    counts="Images",
    does="estimates",
    headline=headline,
    usable=usable,
    steps=steps,
    warnings=warnings,
    further={
        "mae": "Mean absolute error",
        "rmse": "Root mean squared error",
        "coverage": "Values within their prediction interval",
    },
    sections=sections,
    galleries={
        "worst": ("Worst mistakes", "Answers that are farthest from the truth."),
        "least_certain": ("Least certain", "Answers with the widest intervals."),
        "most_certain": ("Closest to the truth", "What the model measures best."),
    },
    limits=_limits,
    card_limits=_limits,
    use=Use(
        "Measure new images, and write the answers with their intervals to a table:",
        "Measure it on other images, a list with the same columns:",
        "list.csv",
        "TransferRegressor",
    ),
    hub=Hub(
        "",
        "Image regression",
        ("image-regression",),
        {"r2": ("r_squared", "R2"), "mae": ("mae", "Mean absolute error"), "rmse": ("rmse", "Root mean squared error")},
    ),
    tables=tables,
    truths="values",
    outputs="values",
    loss=("squared error", "squared error, variances"),
    tried=("unexplained share", "R\u00b2"),
    tried_share=False,
)
