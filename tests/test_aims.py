"""What answers serve: costs and rare classes move the decision, never the probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import TINY, Run
from headstart.data.costs import read_costs
from headstart.data.targets import ClassNumbers
from headstart.errors import HeadstartError, OptionError
from headstart.heads.decide import balancing, mean_recall, spared, weighted
from headstart.heads.material import Material
from headstart.heads.taps import tap_sets
from headstart.judge.class_marks import decision_of
from headstart.story.folds import fitter
from headstart.tasks.aims import as_saved, with_aim
from headstart.tasks.classification import CLASSIFICATION, record
from headstart.tasks.known import TASKS
from headstart.tasks.task import Task

NAMES = ("ant", "bee", "wasp")
COSTS = "true,ant,bee,wasp\nant,0,1,5\nbee,2,0,1\nwasp,9,1,0\n"


def drawn(n: int, seed: int, shares: tuple[float, ...] = (0.8, 0.15, 0.05)) -> tuple[Any, Any]:
    """(log-probabilities (image, class), truth (image,)), calibrated: the truth is drawn by them."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, (n, len(shares))) + np.log(shares)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return logs, (np.exp(logs).cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1)


def of(aim: str = "accuracy", cost: Path | None = None, counts: tuple[int, ...] = (5, 5, 5)) -> Task:
    return with_aim(CLASSIFICATION, aim, None if cost is None else str(cost), NAMES, counts, None, None)


def written(folder: Path, text: str) -> Path:
    (folder / "costs.csv").write_text(text)
    return folder / "costs.csv"


def test_a_matrix_and_pairs_say_the_same_in_any_order(tmp_path: Path) -> None:
    costs = read_costs(written(tmp_path, COSTS), NAMES)
    assert costs.tolist() == [[0, 1, 5], [2, 0, 1], [9, 1, 0]]
    pairs = [f"{NAMES[t]},{NAMES[a]},{costs[t, a]}" for t in (2, 0, 1) for a in (1, 2, 0)]
    assert (read_costs(written(tmp_path, "\n".join(["True,Answer,cost", *pairs])), NAMES) == costs).all()
    turned = read_costs(written(tmp_path, "x,wasp,ant,bee\nbee,1,2,0\nwasp,0,9,1\nant,5,0,1\n"), NAMES)
    assert (turned == costs).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (COSTS.replace("wasp,9", "wsap,9"), "no class"),
        (COSTS.replace("9,1,0", "9,inf,0"), "no cost"),
        (COSTS.replace("9,1,0", "9,,0"), "no cost"),
        (COSTS.replace("9,1,0", "9,1"), "cells"),
        (COSTS.replace("wasp,9,1,0\n", ""), "missing"),
        (COSTS + "ant,0,1,5\n", "twice"),
        (COSTS.replace("ant,0,1,5", "ant,3,1,5"), "more than the wrong one"),
    ],
)
def test_a_bad_file_of_costs_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HeadstartError, match=said) as caught:
        read_costs(written(tmp_path, text), NAMES)
    assert "costs.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_other_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        of(cost=tmp_path / "none.csv")
    for name in set(TASKS) - {"classify"}:
        with pytest.raises(OptionError, match="--aim balanced"):
            with_aim(TASKS[name], "balanced", None, NAMES, (1,), None, None)
        assert with_aim(TASKS[name], "accuracy", None, NAMES, (1,), None, None) is TASKS[name]


def test_equal_costs_are_no_costs_and_no_other_answer_is_expected_to_cost_less(tmp_path: Path) -> None:
    p = np.exp(drawn(300, 0)[0])
    assert (spared(p, 7 * (1 - np.eye(3))).argmax(axis=1) == p.argmax(axis=1)).all()
    costs = read_costs(written(tmp_path, COSTS), NAMES)
    expected = np.array([[sum(row[t] * costs[t, a] for t in range(3)) for a in range(3)] for row in p])
    assert (expected[np.arange(300), spared(p, costs).argmax(axis=1)] == expected.min(axis=1)).all()


def test_costs_save_what_the_score_says_and_probabilities_stay(tmp_path: Path) -> None:
    logs, y = drawn(600, 1)
    task, targets = of(cost=written(tmp_path, COSTS)), ClassNumbers(y, NAMES)
    rule = task.rule(targets, logs, np.arange(600))
    answers = task.answers(logs, rule)
    assert (answers[:, :, 0] == np.exp(logs)).all()
    score = task.judging.score(task.judging.mark(targets, answers), NAMES, np.arange(600), 0)
    costs, plain = np.reshape(rule["costs"], (3, 3)), logs.argmax(axis=1)
    found = score.tables["cost"]
    assert found["mean"]["value"] == pytest.approx(costs[y, decision_of(answers)].mean())
    assert found["by_probability"]["value"] == pytest.approx(costs[y, plain].mean())
    assert found["saved"]["value"] == pytest.approx(found["by_probability"]["value"] - found["mean"]["value"])
    assert found["saved"]["low"] > 0  # of calibrated probabilities
    assert (
        score["log_loss"]
        == CLASSIFICATION.judging.score(CLASSIFICATION.judging.mark(targets, np.exp(logs)), NAMES, np.arange(600), 0)[
            "log_loss"
        ]
    )


def test_balanced_finds_rare_classes_on_new_images() -> None:
    gained = []
    for seed in range(20):
        (logs, y), (new, truth) = drawn(400, seed), drawn(4000, 1000 + seed)
        weights = balancing(np.exp(logs), y, np.arange(400))
        ones = np.ones(4000)
        plain = mean_recall(new.argmax(axis=1), truth, ones)
        gained.append(mean_recall(weighted(np.exp(new), weights).argmax(axis=1), truth, ones) - plain)
    assert np.mean(gained) > 0.08
    assert min(gained) > 0


def test_the_order_of_classes_says_nothing_and_copies_count_once() -> None:
    logs, y = drawn(300, 3)
    order, groups = np.array([2, 0, 1]), np.arange(300)
    weights = balancing(np.exp(logs), y, groups)
    assert balancing(np.exp(logs)[:, order], np.argsort(order)[y], groups) == pytest.approx(weights[order])
    some = np.concatenate([groups, np.repeat(np.flatnonzero(y == 2)[:2], 50)])
    assert balancing(np.exp(logs)[some], y[some], groups[some]) == pytest.approx(weights)


def test_of_equal_classes_balanced_is_nearly_what_it_was() -> None:
    logs, y = drawn(900, 4, (1 / 3, 1 / 3, 1 / 3))
    weights = balancing(np.exp(logs), y, np.arange(900))
    assert (weighted(np.exp(logs), weights).argmax(axis=1) == logs.argmax(axis=1)).mean() > 0.95


def test_weights_are_chosen_without_the_images_that_they_answer() -> None:
    """The answers for the held images of a fold stay, whatever their truth is."""
    rng = np.random.default_rng(5)
    y = np.repeat([0, 1, 2], (60, 20, 10))
    x = rng.normal(0, 1, (90, 12)) + 0.8 * np.eye(3, 12)[y]
    held = np.arange(0, 90, 5)
    rows, found = np.setdiff1d(np.arange(90), held), []
    for truth in (y[held], rng.integers(0, 3, len(held))):
        mine = y.copy()
        mine[held] = truth
        keys = tuple(f"{k:03d}" for k in range(90))
        material = Material({"pre_logits": x.astype(np.float32)}, ClassNumbers(mine, NAMES), np.arange(90), keys, 0)
        fit = fitter(of("balanced"), material, tap_sets("last", ("pre_logits",)))
        found.append(fit(rows)(held))
    assert (found[0] == found[1]).all()
    assert found[0].shape == (len(held), 3, 2)
    assert (decision_of(found[0]) != found[0][:, :, 0].argmax(axis=1)).any()


def test_the_headline_is_the_balanced_accuracy_where_that_was_asked_or_a_class_is_rare() -> None:
    logs, y = drawn(200, 6)
    targets = ClassNumbers(y, NAMES)
    for task, first in (
        (of(), "accuracy"),
        (of(counts=(50, 20, 6)), "accuracy"),
        (of(counts=(50, 20, 5)), "balanced_accuracy"),
        (of("balanced"), "balanced_accuracy"),
    ):
        answers = task.answers(logs, task.rule(targets, logs, np.arange(200)))
        score = task.judging.score(task.judging.mark(targets, answers), NAMES, np.arange(200), 0)
        assert (task.judging.headline.name, next(iter(score.estimates))) == (first, first)
        assert set(score.estimates) == set(
            CLASSIFICATION.judging.score(
                CLASSIFICATION.judging.mark(targets, np.exp(logs)), NAMES, np.arange(200), 0
            ).estimates
        )


def test_a_saved_rule_answers_as_it_did_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    logs, y = drawn(200, 7)
    targets = ClassNumbers(y, NAMES)
    for task in (of("balanced"), of(cost=written(tmp_path, COSTS))):
        rule = task.rule(targets, logs, np.arange(200))
        again = as_saved(CLASSIFICATION, rule, 3)
        answers = again.answers(logs, rule)
        assert (answers == task.answers(logs, rule)).all()
        assert again.extra == (2,)
        assert again.judging.headline == task.judging.headline
        for k in range(20):
            said = record(NAMES, answers[k], rule, 3)
            assert said["label"] == NAMES[decision_of(answers)[k]] == said["set"][0] == said["top"][0]["label"]
            assert said["probability"] == answers[k, decision_of(answers)[k], 0]
        with pytest.raises(ValueError, match="needed"):
            as_saved(CLASSIFICATION, rule, 4)
    assert as_saved(CLASSIFICATION, {"coverage": (0.9,)}, 3) is CLASSIFICATION


def test_every_command_knows_a_model_that_does_not_answer_with_the_most_probable_class(
    pictures: Path, tmp_path: Path, run: Run
) -> None:
    """fit with a bound of mistakes, report, evaluate, predict with explanations, suggest."""
    costs, model, new = tmp_path / "costs.csv", tmp_path / "model", tmp_path / "new.png"
    costs.write_text("true,moss,sand,sea\nmoss,0,1,1\nsand,1,0,1\nsea,1000,1000,0\n", encoding="utf-8")
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(new)
    done = run("fit", pictures, "-o", model, "--cost", costs, "--max-error", 0.3, *TINY)
    assert done.code == 0, done.err
    assert "mean cost" in done.out
    (said,) = json.loads(run("predict", model, new, "--json", "--explain", tmp_path / "why").out)
    assert said["label"] == said["set"][0] == "sea"
    assert said["novelty"] > 1
    assert len(list((tmp_path / "why").iterdir())) == 1
    assert json.loads(run("evaluate", model, pictures, "--json").out)["n"] == 24
    (asked,) = json.loads(run("suggest", model, new, "--json").out)["suggested"]
    assert 0 < asked["probability"] <= 1
