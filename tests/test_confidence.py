"""Sets hold the truth as often as they say, errors among the answers stay below what was asked, and both are kept."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart.cli.answers import record_line
from headstart.data.targets import ClassNumbers
from headstart.errors import OptionError
from headstart.files import forms
from headstart.heads.confident import NEVER, answer_threshold, least_answers, least_groups, set_threshold
from headstart.heads.material import Material
from headstart.report import Confidence
from headstart.report.classes import confidence_sentences
from headstart.story import confidence as story
from headstart.tasks.classification import record
from headstart.tasks.confidence import abstains, confidence, decided, in_set
from headstart.tasks.known import TASKS, with_confidence

NAMES = ("ant", "bee", "wasp")


def drawn(n: int, rng: np.random.Generator, classes: int = 5) -> tuple[Any, Any]:
    """(log-probabilities (image, class), truth (image,)) of a model that is surer than it should be."""
    scores = rng.normal(0, 1, (n, classes))
    truth = rng.integers(classes, size=n)
    scores[np.arange(n), truth] += 1.5
    scores *= 2
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)), truth


@pytest.mark.parametrize(("n", "coverage"), [(30, 0.9), (200, 0.9), (200, 0.7)])
def test_sets_hold_the_truth_of_the_stated_share_of_new_images(n: int, coverage: float) -> None:
    rng, held = np.random.default_rng(n), []
    for _ in range(400):
        logs, y = drawn(n + 50, rng)
        p = np.exp(logs)
        least = set_threshold(p[:n][np.arange(n), y[:n]], coverage, np.arange(n))
        held.append((p[n:][np.arange(50), y[n:]] >= least).mean())
    error = np.std(held) / np.sqrt(len(held))
    assert coverage - 3 * error <= np.mean(held) <= coverage + 1 / (n + 1) + 3 * error


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95, 0.999])
def test_too_few_images_say_nothing_and_one_more_says_something(coverage: float) -> None:
    least = least_groups(coverage)
    some = np.linspace(0.2, 0.9, least)
    assert set_threshold(some, coverage, np.arange(least)) == pytest.approx(0.2)  # the (n + 1)-th part may be missed
    assert set_threshold(some[1:], coverage, np.arange(least - 1)) == 0.0


def test_copies_count_once() -> None:
    """As often as each image is there, neither threshold changes: nor are few images many."""
    logs, y = drawn(400, np.random.default_rng(0))
    p, right = np.exp(logs), logs.argmax(axis=1) == y
    groups, times = np.arange(400), np.repeat(np.arange(400), 9)
    truth, sure = p[np.arange(400), y], p.max(axis=1)
    assert set_threshold(truth, 0.9, groups) == set_threshold(truth[times], 0.9, groups[times])
    some = answer_threshold(sure, right, 0.3, groups)
    assert 0 < some < 1
    assert some == answer_threshold(sure[times], right[times], 0.3, groups[times])
    assert answer_threshold(np.full(500, 0.9), np.ones(500, bool), 0.05, np.arange(500) % 50) == NEVER


@pytest.mark.parametrize(("n", "most"), [(150, 0.05), (600, 0.02), (600, 0.05)])
def test_the_error_among_the_answers_is_kept_with_the_stated_confidence(n: int, most: float) -> None:
    """An answer of probability s is right with probability 1 - 0.3 (1 - s) ** 3: of those above t the error is known.
    Were the bound not exact, or the starts each given all of the risk, more draws than 5 % would miss it."""
    rng, missed, answered, draws = np.random.default_rng(1), 0, [], 600
    for _ in range(draws):
        sure = rng.uniform(0, 1, n)
        right = rng.uniform(0, 1, n) < 1 - 0.3 * (1 - sure) ** 3
        least = answer_threshold(sure, right, most, np.arange(n))
        above = 0.0 if least >= 1 else 1 - least
        missed += above > 0 and 0.3 / 4 * above**3 > most
        answered.append(above)
    assert missed / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    best = (most * 4 / 0.3) ** (1 / 3)  # the share that could be answered by who knows it all
    assert np.mean(answered) >= 0.25 * best


@pytest.mark.parametrize("most", [0.02, 0.05, 0.3])
def test_right_answers_are_all_given_from_the_least_number_on(most: float) -> None:
    n = least_answers(most)
    assert (1 - most) ** n <= 0.05 < (1 - most) ** (n - 1)
    for equal in (np.linspace(0.5, 1, n), np.ones(n)):  # surely right, and all the same
        assert answer_threshold(equal, np.ones(n, bool), most, np.arange(n)) == 0.0
        assert answer_threshold(equal[1:], np.ones(n - 1, bool), most, np.arange(n - 1)) == NEVER
    assert answer_threshold(np.linspace(0.5, 1, 900), np.zeros(900, bool), most, np.arange(900)) == NEVER
    assert answer_threshold(np.empty(0), np.empty(0, bool), most, np.arange(0)) == NEVER


def test_equally_sure_answers_are_given_or_kept_together() -> None:
    sure, right = np.repeat([0.9, 0.8, 0.6], 200), np.arange(600) < 390
    least = answer_threshold(sure, right, 0.05, np.arange(600))
    assert 0.6 < least <= 0.8
    assert least > answer_threshold(sure, np.arange(600) < 590, 0.05, np.arange(600))


def test_the_rule_knows_only_what_was_left_out() -> None:
    logs, y = drawn(80, np.random.default_rng(2), 3)
    targets, groups, unknown = ClassNumbers(y, NAMES), np.arange(80), np.full((20, 3), np.nan)
    rule = confidence(0.8, 0.3, targets, logs, groups)
    assert set(rule) == {"coverage", "set_from", "max_error", "answer_from"}
    more = ClassNumbers(np.append(y, np.zeros(20, int)), NAMES)
    assert confidence(0.8, 0.3, more, np.concatenate([logs, unknown]), np.arange(100)) == rule
    assert confidence(None, None, ClassNumbers(y[:20], NAMES), unknown, groups[:20]) == {
        "coverage": (0.9,),
        "set_from": (0.0,),
    }


def test_a_set_is_never_empty_and_what_is_said_is_what_the_rule_has() -> None:
    rng = np.random.default_rng(3)
    p = rng.dirichlet([0.5] * 3, 50).astype(np.float32)
    sizes = []
    for least in (0.0, 0.2, 0.5, 1.0):
        rule = {"set_from": (least,), "answer_from": (0.7,)}
        meant = in_set(p, rule)
        assert meant[np.arange(50), p.argmax(axis=1)].all()
        assert (meant | (p < least)).all()
        sizes.append(meant.sum())
        for row, held, silent in zip(p, meant, abstains(p, rule), strict=True):
            said = record(NAMES, row, rule, 1)
            assert list(said) == ["label", "probability", "set", "abstain", "top"]
            assert (said["set"][0], said["abstain"]) == (said["label"], row.max() < 0.7)
            assert silent == said["abstain"]
            assert set(said["set"]) == {name for name, in_it in zip(NAMES, held, strict=True) if in_it}
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (150, 50)
    assert decided(NAMES, p[0], {}) == {}
    assert list(record(NAMES, p[0], {}, 1)) == ["label", "probability", "top"]


SAID = [
    ({}, "ant 71.0%, bee 28.0%, wasp 1.0%"),
    ({"set": ["ant"]}, "ant 71.0%, bee 28.0%, wasp 1.0%"),
    ({"set": ["ant", "bee"]}, "ant 71.0%, or bee 28.0%; wasp 1.0%"),
    ({"set": ["ant", "bee", "wasp"], "abstain": True}, "not sure enough: ant 71.0%, or bee 28.0%, or wasp 1.0%"),
    ({"set": [*NAMES, "fly", "flea"], "abstain": False}, "ant 71.0%, or bee 28.0%, or wasp 1.0%, or one of 2 more"),
]


@pytest.mark.parametrize(("more", "said"), SAID)
def test_a_terminal_shows_what_can_be_meant(more: dict[str, Any], said: str) -> None:
    top = [{"label": name, "probability": p} for name, p in zip(NAMES, (0.71, 0.28, 0.01), strict=True)]
    assert record_line({"path": "a.png", **top[0], **more, "top": top, "error": None}) == f"a.png: {said}"


@pytest.mark.parametrize("task", ["tag", "regress", "recognise"])
def test_other_tasks_refuse_it_in_one_line(task: str) -> None:
    for given in ((0.8, None), (None, 0.02)):
        with pytest.raises(OptionError, match=f"says nothing for --task {task}") as refused:
            with_confidence(TASKS[task], *given)
        assert "\n" not in str(refused.value)
    assert with_confidence(TASKS[task], None, None) is TASKS[task]


WRONG = [{"set_from": []}, {"set_from": [1.2]}, {"coverage": ["0.9"]}, {"answer_from": 0.5}, {"max_error": [-1]}]


@pytest.mark.parametrize("rule", WRONG)
def test_a_rule_that_cannot_be_is_refused(rule: dict[str, Any]) -> None:
    assert forms.RULE(rule, "rule")
    assert not forms.RULE({"thresholds": [0.4, 0.5], "set_from": [0.25], "answer_from": [NEVER]}, "rule")


def fitted(n: int = 100) -> Any:
    """What is measured of a fit that was judged by cross-validation, as far as it is looked at."""
    logs, y = drawn(n, np.random.default_rng(4), 3)
    rows, groups = np.arange(n), np.arange(n) // 2
    material = Material({}, ClassNumbers(y, NAMES), groups, tuple(f"{k:03d}" for k in rows), 0)
    task = with_confidence(TASKS["classify"], 0.8, 0.5)
    answers = np.exp(drawn(n, np.random.default_rng(5), 3)[0])
    return SimpleNamespace(
        plan=SimpleNamespace(train=rows, judge=None),
        verdict=SimpleNamespace(rows=rows, answers=answers, marks={"truth": y}),
        seen=SimpleNamespace(material=lambda seed: material, groups=groups, targets=material.targets),
        head=SimpleNamespace(left_out=logs),
        method=SimpleNamespace(task=task),
        options=SimpleNamespace(seed=0),
        rule=task.rule(material.targets, logs, groups),
    )


def test_no_image_sets_the_threshold_that_it_is_judged_by() -> None:
    """Whatever was left out of one fold, what is said of its own images stays."""
    fit = fitted()
    parts = list(story._thresholds(fit))
    assert np.array_equal(np.sort(np.concatenate([rows for rows, _ in parts])), np.arange(100))
    first = parts[0][1]
    for k in range(len(parts)):
        rows, rule = parts[k]
        fit.head.left_out[rows] = np.log([0.9, 0.05, 0.05])
        again = list(story._thresholds(fit))
        assert again[k][1] == rule
        parts = again
    assert parts[0][1] != first
    fit.plan.judge = fit.verdict.rows
    assert [rule for _, rule in story._thresholds(fit)] == [fit.rule]


def test_what_is_measured_is_what_is_counted() -> None:
    fit = fitted()
    fit.plan.judge = fit.verdict.rows
    found, p, y = story.measured(fit), fit.verdict.answers, fit.verdict.marks["truth"]
    assert found is not None
    meant, given = in_set(p, fit.rule), ~abstains(p, fit.rule)
    assert found.held["value"] == pytest.approx(meant[np.arange(100), y].mean())
    assert found.size["value"] == pytest.approx(meant.sum() / 100)
    assert found.answered is not None
    assert found.error is not None
    assert (found.answered["value"], found.n_answered) == (pytest.approx(given.mean()), given.sum())
    assert found.error["value"] == pytest.approx((p.argmax(axis=1) != y)[given].mean())
    assert 1 <= found.size["low"] <= found.size["value"] <= found.size["high"] <= 3
    fit.rule = {}
    assert story.measured(fit) is None
    assert story.to_json(None) is None
    assert story.remarks(fit) == []


def test_what_cannot_be_promised_is_said_in_a_line() -> None:
    fit = fitted(8)  # four groups
    fit.rule = confidence(0.9, 0.02, fit.seen.material(0).targets, fit.head.left_out, fit.seen.groups)
    sets, answers = story.remarks(fit)
    assert "9 are needed, 4 independent training images" in sets
    assert "149 right answers are needed" in answers
    assert "\n" not in sets + answers
    found = story.measured(fit)
    assert found is not None
    assert (found.sets, found.answers, found.size["value"], found.n_answered) == (False, False, 3.0, 0)
    few, none = confidence_sentences(found)
    assert "all classes" in few
    assert "not sure enough" in none


def test_the_page_says_what_was_asked_and_what_came_of_it() -> None:
    share = {"value": 0.9, "low": 0.85, "high": 0.94}
    found = Confidence(200, 0.9, share, {"value": 1.25, "low": 1.2, "high": 1.3}, 0.02, share, share, 180)  # type: ignore[arg-type]
    held, error = confidence_sentences(found)
    assert "90 % of new images" in held
    assert "1.25 classes" in held
    assert "n = 200" in held
    assert "at most 2 % wrong" in error
    assert "n = 180" in error
    assert len(confidence_sentences(Confidence(200, 0.9, share, share))) == 1  # type: ignore[arg-type]
    assert confidence_sentences(None) == []


def test_a_model_of_before_answers_as_before(model: Path, pictures: Path) -> None:
    from headstart.data.table import list_images
    from headstart.ship.predict import predict, records
    from headstart.story.pipeline import load

    loaded = load(model)
    found = predict(loaded, list_images([pictures]))
    new, old = records(loaded, found, 3), records(replace(loaded, rule={}), found, 3)
    assert all(r["set"][0] == r["label"] for r in new)
    assert old == [{what: value for what, value in r.items() if what != "set"} for r in new]
