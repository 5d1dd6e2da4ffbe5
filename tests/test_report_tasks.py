"""Laws of the page and the card for labels that come together, measured values and identities."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html import unescape
from typing import Any

import numpy as np
import pytest

from headstart.judge.identities import Pairs, verification
from headstart.judge.tag_marks import tag_marks, tag_score
from headstart.judge.value_marks import value_marks, value_score
from headstart.report import (
    Acceptance,
    Baseline,
    Candidate,
    Column,
    CurvePoint,
    Measured,
    Network,
    Picture,
    ReportData,
    measures,
    numbers,
    plots,
    render_card,
    render_report,
    sections,
    words,
)

HOSTILE = "<b onclick='x'>a</b> & \"q\" {{ 7*7 }} | x"
NETWORK = Network("efficientnet_lite0", "ImageNet-1k", True, "Apache-2.0")
GAIN = {"value": 0.3, "low": 0.2, "high": 0.4}


@cache
def tagged(k: int = 4, n: int = 60) -> ReportData:
    rng = np.random.default_rng(k)
    names = tuple(f"label {i} {HOSTILE}" for i in range(k))
    z = rng.normal(size=(n, k))
    present = (z + rng.normal(size=(n, 1)) > 0.5).astype(np.int8)
    present[: n // 4, 0] = -1
    p = 1 / (1 + np.exp(-2 * z - rng.normal(size=(n, k))))
    score = tag_score(tag_marks(present, p, np.full((n, k), 0.41)), names).to_json()
    base = Baseline("prevalence", 0.31, n, GAIN, 0.61, "mean average precision")
    picture = Picture(b"", HOSTILE, names[0], f"{names[0]} + {names[1]}", None)
    return ReportData(
        "cells", "model/", names, Measured(score, "test split"), "tag", "mean_average_precision",
        baselines=(base,), network=NETWORK, images={"train": 9 * n}, worst=(picture,),
        counts={"train": dict.fromkeys(names, 5)}, candidates=(Candidate("ridge", 0.31, 0.9),),
    )  # fmt: skip


@cache
def measured(k: int = 1, n: int = 60, scale: float = 10.0) -> ReportData:
    rng = np.random.default_rng(k)
    names = tuple(f"column {i} {HOSTILE}" for i in range(k))
    truth = scale * (3 + rng.normal(size=(n, k)))
    answer = 0.5 * truth + 1.5 * scale + 0.3 * scale * rng.normal(size=(n, k))
    score = value_score(value_marks(truth, answer, np.full((n, k), scale)), names).to_json()
    columns = tuple(Column(m, truth[:, i].tolist(), answer[:, i].tolist(), scale) for i, m in enumerate(names))
    curve = (CurvePoint(20, {"value": -0.3, "low": -0.6, "high": 0.1}), CurvePoint(80, GAIN))
    return ReportData(
        "counts", "model/", names, Measured(score, "cross-validation"), "regress", "r2", columns=columns,
        baselines=tuple(Baseline(kind, 0.1, n, GAIN, 0.4, "r2") for kind in ("the mean", "random weights")),
        network=NETWORK, images={"train": n}, curve=curve, gain=GAIN, candidates=(Candidate("ridge", 0.7, 0.3),),
        worst=(Picture(b"", HOSTILE, "12", "9.3", None, "interval 4 to 14"),),
    )  # fmt: skip


@cache
def recognised(k: int = 20) -> ReportData:
    rng = np.random.default_rng(k)
    names = tuple(f"person {i} {HOSTILE}" for i in range(k))
    identity = np.repeat(np.arange(k), 3)
    one, other = np.triu_indices(3 * k, 1)
    scores = rng.normal(size=len(one)) * 0.2 + 0.7 * (identity[one] == identity[other])
    estimates, tables = verification(Pairs(scores, identity[one], identity[other]))
    score: dict[str, Any] = {
        "n": 3 * k, "identification_rate": {"value": 0.975, "low": 0.951, "high": 0.991}, **estimates, **tables,
        "open_set_rate": {"value": 0.942, "low": 0.911, "high": 0.963},
        "false_accept_rate": {"asked": 0.01, "value": 0.021, "low": 0.004, "high": 0.052},
        "confused": [{"identity": names[0], "taken_for": names[1], "n": 4}],
        "closest": [{"first": names[2], "second": names[3], "similarity": 0.613}],
    }  # fmt: skip
    return ReportData(
        "faces", "model/", names, Measured(score, "cross-validation"), "recognise", "identification_rate",
        network=NETWORK, counts={"train": dict.fromkeys(names, 3)},
        acceptance=Acceptance(0.4321, 0.5123, 0.01, 400, 900),
    )  # fmt: skip


ALL = [tagged, measured, lambda: measured(3), recognised]


def text_of(page: str) -> str:
    """What a reader sees, on one line."""
    body = page.split("<main>", 1)[1]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def estimates_in(found: Any, name: str = "") -> list[tuple[str, numbers.Estimate]]:
    """(key, estimate) of every interval in a score and its tables."""
    if isinstance(found, dict) and "low" in found:
        est = numbers.estimate(found)
        return [] if est is None else [(name, est)]
    if isinstance(found, dict):
        return [pair for key, value in found.items() for pair in estimates_in(value, key)]
    return [pair for value in found for pair in estimates_in(value, name)] if isinstance(found, list) else []


@pytest.mark.parametrize("data", [tagged, lambda: tagged(45, 40), measured, lambda: measured(3), recognised])
def test_every_estimate_of_the_score_and_of_its_tables_stands_on_the_page(data: Any) -> None:
    read, found = text_of(render_report(data())), estimates_in(dict(data().headline.score))
    assert len(found) > 3
    for key, est in found:
        if key == "log_loss":  # of labels: compared by nobody, told in metrics.json
            continue
        what = replace(measures.measure(key), unit="")
        assert measures.full(what, est).split(" (")[0] in read, key
        assert measures.between(what, est) in read, key


@pytest.mark.parametrize("data", ALL)
def test_only_a_classifier_speaks_of_classes_and_only_shares_of_accuracy(data: Any) -> None:
    page, card = render_report(data()), render_card(data())
    for text in (text_of(page), card):
        assert "class" not in re.sub(r"image-classification|TransferClassifier|Image classification", "", text)
    if data().task == "regress":
        assert "accuracy" not in (page + card).lower()
        assert " points" not in text_of(page)


@pytest.mark.parametrize("data", ALL)
def test_no_text_of_the_data_becomes_markup(data: Any) -> None:
    page, card = render_report(data()), render_card(data())
    assert "<b onclick" not in page
    assert "{{ 7*7 }}" in text_of(page)
    assert "<b onclick" not in re.sub(r"`+[^`\n]*`+", "", card.split("\n---\n", 1)[1])
    rows = [line for line in card.split("\n") if line.startswith("| `")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", rows[0])) for row in rows)


def test_ten_thousand_images_five_hundred_identities_and_many_labels_make_a_bounded_page() -> None:
    numbers_of = np.random.default_rng(0).normal(size=(2, 10_000)).tolist()
    few, many = (
        replace(measured(), columns=(Column("x", numbers_of[0][:n], numbers_of[1][:n], 1.0),)) for n in (3000, 10_000)
    )
    assert len(render_report(many)) < len(render_report(few)) + 3000 < 150_000
    drawn = plots.scatter(many.columns[0])
    assert drawn.count("h0") <= plots.MOST_DOTS
    assert len(render_report(recognised(120))) < 150_000
    k = 150
    page = plots.together(np.ones((k, k), dtype=np.int64), "x")
    assert page.count("h1v1") <= 100 * 100


@pytest.mark.parametrize(("data", "name"), [(tagged, "prevalence"), (measured, "the mean")], ids=["labels", "values"])
def test_what_a_blind_answer_reaches_is_not_usable(data: Any, name: str) -> None:
    what = data().headline_name
    guess = Baseline(name, data().headline.score[what]["value"], 60, measure=what)
    assert sections.verdict(replace(data(), baselines=(guess,)))[-1].mood == "bad"
    assert sections.verdict(replace(data(), baselines=(replace(guess, value=0.01),)))[-1].mood != "bad"


@pytest.mark.parametrize(
    ("exact", "start"),
    [(0.75, "If 25.0 % of"), ({"value": 0.75, "low": 0.6, "high": 0.9}, "If between 10.0 and 40.0 % of")],
)
def test_how_many_images_are_not_all_right_is_said_with_and_without_an_interval(exact: Any, start: str) -> None:
    score = {**tagged().headline.score, "exact_match": exact}
    data = replace(tagged(), headline=replace(tagged().headline, score=score))
    assert sections.verdict(data)[-1].answer.startswith(start)


def test_differences_are_in_the_measure_of_the_baseline() -> None:
    assert "R\u00b2 of 0.400, with random weights 0.100: +0.300 (95 %" in words.transfer(measured()).answer  # type: ignore[union-attr]
    assert "difference +0.300 (95 % interval 0.200 to 0.400)" in words.comparison(measured().baselines[0])
    assert "difference +30.0 points" in words.comparison(tagged().baselines[0])


def test_values_that_are_drawn_to_the_middle_are_told_and_others_not() -> None:
    data = measured(1, 400)
    assert any("too high and the largest" in step for step in sections.next_steps(data))
    truth = np.asarray(data.columns[0].truth)
    noise = np.random.default_rng(0).normal(size=len(truth))
    true = replace(data.columns[0], answer=(truth + noise).tolist())
    assert not any("too high" in step for step in sections.next_steps(replace(data, columns=(true,))))


def test_pairs_of_labels_are_compared_only_where_both_are_known_everywhere() -> None:
    data = tagged()
    score = dict(data.headline.score)
    k = len(data.classes)
    score["answered_together"] = (60 * np.ones((k, k), dtype=int)).tolist()
    score["co_occurrence"] = np.eye(k, dtype=int).tolist()
    page = render_report(replace(data, headline=replace(data.headline, score=score)))
    table = page.split('aria-label="Pairs of labels"', 1)[1].split("</table>", 1)[0]
    assert "label 1" in table
    assert "label 0" not in table


def test_notes_of_the_judging_stand_beside_how_it_was_measured_and_thresholds_are_told() -> None:
    for make in (render_report, render_card):
        assert "Only 3 folds: see." in make(replace(measured(), judging_notes=("only 3 folds: see",)))
    read = text_of(render_report(recognised()))
    assert "at least 0.432" in read
    assert "from a similarity of 0.512" in read
    assert "not part of it" in read
    assert "41.0 %" in text_of(render_report(tagged()))
    assert "the threshold that you set" in render_report(replace(tagged(), threshold=0.3))
    few = replace(recognised(), acceptance=Acceptance(0.9, 0.9, 0.01, 98, 98))
    assert "98 scores of strangers cannot tell a rate of 1.0 %" in text_of(render_report(few))
    assert "from a similarity of 0.900, where" not in text_of(render_report(few))
    none = replace(measured().columns[0], half_width=None)
    assert "Too few training images to say" in render_report(replace(measured(), columns=(none,)))


def test_the_hub_is_told_a_task_that_it_knows_or_none() -> None:
    fronts = {data().task: render_card(data()).split("\n---\n", 1)[0] for data in (tagged, measured, recognised)}
    assert 'pipeline_tag: "image-classification"' in fronts["tag"]
    assert "multi-label" in fronts["tag"]
    assert "pipeline_tag" not in fronts["regress"]
    assert 'pipeline_tag: "image-feature-extraction"' in fronts["recognise"]


@pytest.mark.parametrize("value", [0.0, 1e-12, -3.14159e-4, 0.5, -2.594, 12.3456, 99_999.4, 1.5e12])
def test_a_measured_value_reads_back_to_three_digits(value: float) -> None:
    back = float(numbers.plain(value).replace(numbers.MINUS, "-").replace(",", ""))
    assert abs(back - value) <= 0.0051 * abs(value)


def test_of_an_unknown_task_what_holds_for_any_is_said_in_its_own_measure_and_direction() -> None:
    off = {"value": 0.84, "low": 0.71, "high": 0.97}
    score = {"n": 50, "distance": off, "within_one": {"value": 0.91, "low": 0.8, "high": 0.97}}
    base = Baseline(
        "middle grade", 1.3, 50, {"value": -0.46, "low": -0.6, "high": -0.3}, 0.84, "distance", percent=False
    )
    data = ReportData(
        "grades", "model/", ("grade",), Measured(score, "cross-validation"), "grade", "distance", False, False,
        baselines=(base, replace(base, kind="random weights")),
    )  # fmt: skip
    read = text_of(render_report(data))
    assert "a distance of 0.840 (95 % interval 0.710 to 0.970, n = 50)" in read
    assert "difference \u22120.460 (95 % interval" in read
    assert "Yes: with its pre-trained weights" in read
    assert "Within one" in read
    assert "It is better than always the same answer (middle grade)" in read
    assert "class" not in read
    assert "0.840" in render_card(data)


def test_hardly_perfect_is_not_written_as_perfect() -> None:
    what = measures.measure("r2")
    for value, text in (
        (0.9997, "0.9997"),
        (0.99996, "0.99996"),
        (1.0, "1.000"),
        (0.35, "0.350"),
        (-0.2, "\u22120.200"),
    ):
        assert measures.value(what, value) == text
    near = numbers.Estimate(0.9991, 0.9984, 0.9996)
    assert measures.full(what, near) == "0.9991 (95 % interval 0.9984 to 0.9996)"
    assert measures.apart(what, near) == ("0.9991", "0.9984 to 0.9996")
