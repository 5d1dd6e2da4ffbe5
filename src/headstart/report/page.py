"""Report data -> one HTML file that needs nothing else: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headstart.counted import count, counted
from headstart.report import figures, numbers, words
from headstart.report.content import Measured, ReportData
from headstart.report.numbers import Estimate, estimate

MAX_PICTURES = 24  # a gallery: two screens of a phone show 12; more is what the CSV files are for
MAX_GROUPS = 12  # duplicate groups shown
MAX_COPIES = 6  # pictures shown of one group
MAX_JPEG_BYTES = (
    48 * 1024
)  # a 256 px preview takes 10 to 20 KiB; so a report stays below about 11 MiB in the worst case
MAX_SET_ASIDE = 500  # lines; the whole list is in set_aside.csv
MAX_PAIRS = 20  # most confused pairs listed; half of it where the whole matrix is shown too
SHORT_TABLE = 30  # classes up to which a table or a confusion matrix is shown whole
WORST_CLASSES = 20  # rows shown of a longer class table; the rest unfolds
NAMED_COLUMNS = 12  # classes up to which the columns of the confusion matrix carry names, not numbers

# Lone surrogates (undecodable file names) cannot be written as UTF-8, control characters are not allowed in HTML or
# YAML, and signs that turn the writing direction make a name look like another.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def clean(text: str) -> str:
    """Text that any UTF-8 file may hold: what cannot be printed becomes U+FFFD."""
    return UNPRINTABLE.sub("\ufffd", text)


@dataclass(frozen=True)
class Row:
    """A line of a table with a bar: text, numbers written out, drawing."""

    name: str
    note: str
    value: str
    extra: str
    drawing: Markup


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


@cache
def environment(**filters: Callable[..., str]) -> Environment:
    """Jinja2 with autoescape, strict names and further filters; templates lie beside this file, parsed once."""
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters.update(percent=numbers.percent, count=count, decimal=numbers.decimal, seconds=numbers.seconds)
    env.filters.update(sentence=_sentence)
    env.filters.update(filters)
    words: Any = {"interval": numbers.interval, "full": numbers.full, "plural": counted, "estimate": estimate}
    env.globals.update(words)
    return env


def _sentence(text: str) -> str:
    """With a capital letter at its start."""
    return text[:1].upper() + text[1:]


def render_report(data: ReportData) -> str:
    """The whole report as the text of one HTML file (UTF-8, no outside resources, no scripts)."""
    accuracy = words.accuracy_of(data.headline)
    page = (
        environment()
        .get_template("page.html.jinja")
        .render(
            data=data,
            accuracy=accuracy,
            n=int(data.headline.score["n"]),
            headline=words.headline(data),
            how=words.how_measured(data.headline),
            measure=words.measure_of(data),
            verdict=words.verdict(data),
            steps=words.next_steps(data),
            warnings=words.warnings(data),
            **shared_parts(data),
            **_data_section(data),
            **_confusion_section(data.headline, data.classes),
            **_picture_section(data),
            curve=figures.learning_curve(data.curve),
            curve_rows=[(p.n, estimate(p.accuracy)) for p in data.curve],
            curve_said=words.curve_sentence(data),
            tuned=data.network is not None and data.network.tuned,
            losses=figures.by_epoch(data.losses),
            rates=figures.by_epoch([(rate, None) for rate in data.rates], "learning rate"),
            losses_said=words.loss_sentence(data.losses, data.more_epochs),
            calibration=words.calibration_sentences(data.headline.score, data.temperature),
            reliability=figures.reliability(data.reliability),
            set_aside=data.set_aside[:MAX_SET_ASIDE],
            stages=_stages(data.seconds),
        )
    )
    return clean(page)


def shared_parts(data: ReportData) -> dict[str, Any]:
    """What the page and the card both show."""
    per_class = [_class_row(row) for row in data.headline.score.get("per_class", ())]
    per_class.sort(key=lambda row: 2.0 if row.recall is None else row.recall.value)
    shown = len(per_class) if len(per_class) <= SHORT_TABLE else WORST_CLASSES
    splits = [s for s in data.counts if any(data.counts[s].values())]
    return {
        "results": _results(data),
        "further": _further(data.headline.score),
        "per_class": per_class[:shown],
        "per_class_rest": per_class[shown:],
        "splits": [(s, count(sum(data.counts[s].values()))) for s in splits],
        "network": _network(data),
        "model": shlex.quote(data.model),
        "model_python": repr(data.model),
        "timm_python": repr(f"local-dir:{data.model}"),
    }


def _results(data: ReportData) -> list[Row]:
    """The model first, its further scores, then the baselines, each with its own n and with what it is held against."""
    rows, key = [], words.measure_of(data).replace(" ", "_")
    for measured, mark in [(data.headline, "model"), *((m, "also") for m in data.also)]:
        est, n = estimate(measured.score.get(key)) or words.accuracy_of(measured), int(measured.score["n"])
        rows.append(_result_row("This model", words.source_name(measured), est, n, "", mark))
    for baseline in data.baselines:
        name, note = words.BASELINES[baseline.kind]
        extra = words.comparison(baseline)
        rows.append(_result_row(name, note, estimate(baseline.accuracy), baseline.n, extra, "baseline"))
    return rows


def _result_row(name: str, note: str, est: Estimate | None, n: int, extra: str, mark: str) -> Row:
    return Row(name, note, numbers.full(est, n), extra, figures.bar(est, mark))


def _further(score: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The other numbers of the headline score, written out."""
    names = {
        "balanced_accuracy": "Balanced accuracy (the mean recall of the classes)",
        "macro_precision": "Precision, mean of the classes",
        "macro_f1": "F1, mean of the classes",
    }
    found = [(title, estimate(score.get(key))) for key, title in names.items()]
    return [(title, numbers.full(est)) for title, est in found if est is not None]


def _data_section(data: ReportData) -> dict[str, Any]:
    """Images per class and split."""
    splits = [s for s in data.counts if any(data.counts[s].values())]
    totals = {c: sum(int(data.counts[s].get(c, 0)) for s in splits) for c in data.classes}
    top = max(totals.values(), default=0)
    rows = [
        (
            name,
            [count(data.counts[s].get(name, 0)) for s in splits],
            figures.stacked([(f"s{min(i, 3)}", int(data.counts[s].get(name, 0))) for i, s in enumerate(splits)], top),
        )
        for name in data.classes
    ]
    label = ""
    if totals:
        label = (
            f"Images per class, largest first: from {count(top)} down to {count(min(totals.values()))} "
            f"over {counted(len(totals), 'class', 'classes')}"
        )
    return {
        "class_counts": rows if splits else [],
        "total": sum(totals.values()),
        "skyline": figures.skyline(list(totals.values()), label) if len(totals) > SHORT_TABLE and splits else "",
        "skyline_said": label,
        "short_table": SHORT_TABLE,
    }


def _confusion_section(measured: Measured, classes: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix in the form that its size asks for."""
    many = len(classes) > SHORT_TABLE
    context: dict[str, Any] = {
        "matrix": [],
        "heat": "",
        "pairs": [],
        "mistakes": 0,
        "named_columns": len(classes) <= NAMED_COLUMNS,
    }
    confusion = words.answers_counted(measured)
    if confusion is not None:
        context["mistakes"] = int(confusion.sum() - np.trace(confusion))
        context["judged"] = int(confusion.sum())
        context["pairs"] = [
            (classes[t], classes[p], count(images), numbers.percent(part))
            for t, p, images, part in words.confused_pairs(confusion, MAX_PAIRS if many else MAX_PAIRS // 2)
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


def _picture_section(data: ReportData) -> dict[str, Any]:
    return {
        "worst": data.worst[:MAX_PICTURES],
        "least_certain": data.least_certain[:MAX_PICTURES],
        "most_certain": data.most_certain[:MAX_PICTURES],
        "suspects": data.suspects[:MAX_PICTURES],
        "groups": sorted(data.duplicates, key=lambda g: (not g.leak, not g.conflict))[:MAX_GROUPS],
        "max_copies": MAX_COPIES,
        "source_of": picture_source,
    }


def picture_source(jpeg: bytes) -> Markup:
    """A JPEG as a data: address, or "" where there is none or it is too large to embed."""
    if not jpeg or len(jpeg) > MAX_JPEG_BYTES:
        return Markup("")
    return Markup("data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii"))  # base64 needs no escaping


def _stages(seconds: Mapping[str, float]) -> list[tuple[str, float, Markup]]:
    top = max(seconds.values(), default=0.0)
    return [(name, spent, figures.bar(Estimate(spent), "model", top)) for name, spent in seconds.items()]


def _network(data: ReportData) -> list[tuple[str, str]]:
    """What is known of the backbone, as (name, value) lines."""
    net = data.network
    if net is None:
        return []
    lines = [
        ("Backbone", net.name),
        ("Weights", net.weights if net.pretrained else "random (none loaded)"),
        ("Licence of the weights", net.licence if net.pretrained else ""),
        ("Parameters", numbers.millions(net.parameters) if net.parameters else ""),
        ("Input", f"{net.size[0]} \u00d7 {net.size[1]} px" if all(net.size) else ""),
        ("Engine", net.engine),
        ("Precision", net.precision),
        ("Features from", ", ".join(net.taps)),
        ("Comes from", " → ".join(net.chain)),
    ]
    return [(name, value) for name, value in lines if value]
