"""Report data -> one HTML file that needs nothing else: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headstart.counted import count, counted
from headstart.report import figures, groups, measures, mend, numbers, sections, words
from headstart.report.classes import SHORT_TABLE
from headstart.report.content import Candidate, ReportData
from headstart.report.numbers import Estimate, estimate
from headstart.report.sections import telling_of
from headstart.report.telling import Telling

MAX_PICTURES = 24  # a gallery: two screens of a phone show 12; more is what the CSV files are for
MAX_GROUPS = 12  # duplicate groups shown
MAX_COPIES = 6  # pictures shown of one group
MAX_JPEG_BYTES = 48 * 1024  # a 256 px preview takes 10 to 25 KiB
# Characters of all pictures of a page together, and of the text of a class: so that a file stays below 3 MB.
MOST_EMBEDDED, OF_A_CLASS, LEAST_EMBEDDED = 2_500_000, 1_200, 1_000_000
MAX_SET_ASIDE = 500  # lines; the whole list is in set_aside.csv

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
    env.filters.update(sentence=sentence)
    env.filters.update(filters)
    words: Any = {
        "interval": numbers.interval,
        "full": numbers.full,
        "plural": counted,
        "estimate": estimate,
        "contents": contents,
    }
    env.globals.update(words)
    return env


HEADED = re.compile(r'<section id="([^"]+)"[^>]*>\s*<h2 id="[^"]+"[^>]*>(.*?)</h2>', re.S)


def contents(body: Markup) -> list[tuple[str, Markup]]:
    """(id, heading) of the sections of a page, in their order: its table of contents."""
    return [(key, Markup(title)) for key, title in HEADED.findall(body)]  # both were escaped by the template


def sentence(text: str) -> str:
    """With a capital letter at its start."""
    return text[:1].upper() + text[1:]


def render_report(data: ReportData) -> str:
    """The whole report as the text of one HTML file (UTF-8, no outside resources, no scripts)."""
    telling = telling_of(data)
    what, compared = words.headline_measure(data), words.compared_in(data)
    page = (
        environment()
        .get_template("page.html.jinja")
        .render(
            EMPTY
            | {
                "data": data,
                "telling": telling,
                "how": words.how_measured(data.headline),
                "compared": compared,
                "mends": mend.mends(data),
                "steps": sections.next_steps(data),
                "curve": figures.learning_curve(data.curve, what),
                "curve_rows": [(p.n, measures.full(what, estimate(p.value))) for p in data.curve],
                "curve_said": words.curve_sentence(data),
                "tuned": data.network is not None and data.network.tuned,
                "losses": figures.by_epoch(data.losses, telling.loss[1]),
                "rates": figures.by_epoch([(rate, None) for rate in data.rates], "learning rate"),
                "losses_said": words.loss_sentence(data.losses, data.more_epochs, telling.loss[0]),
                "candidates": [_candidate(c, telling) for c in data.candidates],
                "set_aside": data.set_aside[:MAX_SET_ASIDE],
                "stages": _stages(data.seconds),
            }
            | shared_parts(data)
            | _data_section(data, telling)
            | _picture_section(data)
            | groups.section(data.groups, what)
            | telling.sections(data)
        )
    )
    return clean(page)


# What the sections of tasks read: each task fills in those that it has.
EMPTY: dict[str, Any] = {
    "per_class": [],
    "per_class_rest": [],
    "diagnosed": None,
    "matrix": [],
    "heat": "",
    "calibration": [],
    "reliability": "",
    "risk": "",
    "tagged": None,
    "measured": None,
    "recognised": None,
    "odd": None,
    "segmented": None,
    "boxed": None,
}


def shared_parts(data: ReportData) -> dict[str, Any]:
    """What the page and the card both show."""
    what, telling = words.headline_measure(data), telling_of(data)
    est, n = words.headline_of(data.headline, data.headline_name), int(data.headline.score["n"])
    timm = None if data.timm is None else estimate(data.timm.value)
    number, _, unit = measures.value(what, est.value).partition(" ")
    return {
        "n": n,
        "headline": sections.headline(data),
        "big": number,
        "big_unit": unit if what.kind == "share" else what.name,
        "titled": f"{number} {unit}" if what.kind == "share" else f"{what.name} {number}",
        "own_measure": what.name,
        "measure": words.compared_in(data).name,
        "verdict": sections.verdict(data),
        "warnings": sections.warnings(data),
        "own_told": measures.full(what, est, n),
        "timm_told": None if data.timm is None or timm is None else measures.full(what, timm, data.timm.n or n),
        "results": _results(data),
        "further": _further(data.headline.score, telling, data),
        "splits": [(s, count(images)) for s, images in data.images_by_split.items()],
        "network": _network(data),
        "model": shlex.quote(data.model),
        "model_python": repr(data.model),
        "timm_python": repr(f"local-dir:{data.model}"),
    }


def _candidate(candidate: Candidate, telling: Telling) -> tuple[Candidate, str]:
    return candidate, numbers.percent(candidate.quality) if telling.tried_share else numbers.decimal(candidate.quality)


def _results(data: ReportData) -> list[Row]:
    """The model first, its further scores, then the baselines, each with its own n and with what it is held against."""
    rows, what = [], words.compared_in(data)
    key = measures.key_of(next((b.measure for b in data.baselines), data.headline_name))
    for measured, mark in [(data.headline, "model"), *((m, "also") for m in data.also)]:
        found = estimate(measured.score.get(key))
        told, est = (what, found) if found else (words.headline_measure(data), None)
        est = est or words.headline_of(measured, data.headline_name)
        n = int(measured.score["n"])
        rows.append(_result_row("This model", words.source_name(measured), measures.full(told, est, n), est, mark))
    for baseline in data.baselines:
        name, note = words.BASELINES.get(baseline.kind, (sentence(baseline.kind), "always the same answer"))
        if baseline.kind == "most frequent":
            name = f"Most frequent {telling_of(data).nouns[0]}"
        est = estimate(baseline.value)
        told = measures.full(measures.measure(baseline.measure, percent=baseline.percent), est, baseline.n)
        row = _result_row(name, note, told, est, "baseline")
        rows.append(replace(row, extra=words.comparison(baseline)))
    return rows


def _result_row(name: str, note: str, told: str, est: Estimate | None, mark: str) -> Row:
    return Row(name, note, told, "", figures.bar(est, mark))


def _further(score: Mapping[str, Any], telling: Telling, data: ReportData) -> list[tuple[str, str]]:
    """The other numbers of the headline score, written out."""
    unit = data.classes[0] if len(data.classes) == 1 else ""
    titles = telling.further
    if titles is None:
        own = [key for key, value in score.items() if isinstance(value, Mapping) and "low" in value]
        titles = {key: sentence(measures.measure(key).name) for key in own if key != data.headline_name}
    found = [(title, measures.measure(key, unit, False), estimate(score.get(key))) for key, title in titles.items()]
    return [(title, measures.full(what, est)) for title, what, est in found if est is not None]


def _data_section(data: ReportData, telling: Telling) -> dict[str, Any]:
    """Images per class (label, identity) and split."""
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
            f"{telling.counts}, largest first: from {count(top)} down to {count(min(totals.values()))} "
            f"over {counted(len(totals), *telling.nouns)}"
        )
    return {
        "class_counts": rows if splits else [],
        "total": sum(data.images_by_split.values()),
        "skyline": figures.skyline(list(totals.values()), label) if len(totals) > SHORT_TABLE and splits else "",
        "skyline_said": label,
    }


def _picture_section(data: ReportData) -> dict[str, Any]:
    return {
        "worst": data.worst[:MAX_PICTURES],
        "least_certain": data.least_certain[:MAX_PICTURES],
        "most_certain": data.most_certain[:MAX_PICTURES],
        "suspects": data.suspects[:MAX_PICTURES],
        "groups": sorted(data.duplicates, key=lambda g: (not g.leak, not g.conflict))[:MAX_GROUPS],
        "max_copies": MAX_COPIES,
        "source_of": Embedded(MOST_EMBEDDED - OF_A_CLASS * len(data.classes)),
    }


def picture_source(jpeg: bytes) -> Markup:
    """A JPEG as a data: address, or "" where there is none or it is too large to embed."""
    if not jpeg or len(jpeg) > MAX_JPEG_BYTES:
        return Markup("")
    return Markup("data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii"))  # base64 needs no escaping


class Embedded:
    """The pictures of one page as data: addresses, as long as there is room for `most` characters of them (at least
    LEAST_EMBEDDED); the first that are asked for are kept."""

    def __init__(self, most: int = MOST_EMBEDDED) -> None:
        self.left = max(most, LEAST_EMBEDDED)

    def __call__(self, jpeg: bytes) -> Markup:
        """As `picture_source`, "" where there is no room left."""
        source = picture_source(jpeg)
        if len(source) > self.left:
            return Markup("")
        self.left -= len(source)
        return source


def _stages(seconds: Mapping[str, float]) -> list[tuple[str, float, Markup]]:
    top = max(seconds.values(), default=0.0)
    return [(name, spent, figures.bar(Estimate(spent), "model", top)) for name, spent in seconds.items()]


def _network(data: ReportData) -> list[tuple[str, str]]:
    """What is known of the backbone, as (name, value) lines."""
    net = data.network
    if net is None:
        return []
    licence = f"{net.licence.replace('unknown', 'not known')}{f': {net.terms}' if net.terms else ''}"
    lines = [
        ("Backbone", net.name),
        ("Weights", net.weights if net.pretrained else "random (none loaded)"),
        ("Licence of the weights", licence if net.pretrained else ""),
        ("Parameters", numbers.millions(net.parameters) if net.parameters else ""),
        ("Input", f"{net.size[0]} \u00d7 {net.size[1]} px" if all(net.size) else ""),
        ("Engine", net.engine),
        ("Precision", net.precision),
        ("Features from", ", ".join(net.taps)),
        ("Comes from", " → ".join(net.chain)),
    ]
    return [(name, value) for name, value in lines if value]
