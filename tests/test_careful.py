"""Laws of the threshold of a largest error that cross-validation must show too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart import recipe
from headstart.data.targets import ClassNumbers
from headstart.finetune.design import no_bar
from headstart.heads.confident import NEVER, answer_threshold
from headstart.heads.material import Material
from headstart.heads.taps import tap_sets
from headstart.story import careful as module
from headstart.story import evidence
from headstart.story.careful import careful
from headstart.story.plan import make_plan
from headstart.tasks.known import TASKS, with_confidence
from headstart.tasks.task import closed_form

NAMES = ("ant", "bee", "wasp")
MOST = 0.2
SETS = tap_sets("last", ("pre_logits",))
METHOD = evidence.Method(with_confidence(TASKS["classify"], None, MOST), SETS)


@pytest.fixture(autouse=True)
def _few_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laws hold for any number of folds."""
    monkeypatch.setattr(recipe, "cross_validation", lambda n: (3, 1))


def taught(seed: int, n: int = 120, judged: int = 0, apart: float = 1.0) -> Any:
    """(rule, material, plan, head) of images whose features lie `apart` by class; the last `judged` are held out."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    x = rng.normal(0, 1, (n, 6)) + apart * np.eye(3, 6)[y]
    material = Material(
        {"pre_logits": x.astype(np.float32)},
        ClassNumbers(y, NAMES),
        np.arange(n),
        tuple(f"{k:03d}" for k in range(n)),
        0,
    )
    splits = np.array(["none" if not judged else "train"] * (n - judged) + ["test"] * judged, dtype=object)
    plan = make_plan(splits, material.targets.strata, material.groups, material.keys, 0)
    head = closed_form(METHOD.task, material, plan.train, SETS)
    return evidence.rule_of(METHOD.task, material, plan.train, head), material, plan, head


def shown_by(verdict: Any, material: Any) -> float:
    marks = verdict.marks
    return answer_threshold(marks["sure"], marks["answer"] == marks["truth"], MOST, material.groups[verdict.rows])


@pytest.mark.parametrize("apart", [0.5, 4.0])
def test_the_threshold_is_the_higher_of_two_and_the_rest_of_the_rule_stays(apart: float) -> None:
    rule, material, plan, head = taught(1, apart=apart)
    found = careful(rule, material, plan, head, METHOD)
    verdict = evidence.judge(material, plan, head, METHOD, no_bar)
    assert found == {**rule, "answer_from": (max(rule["answer_from"][0], shown_by(verdict, material)),)}
    lowest, none = {**rule, "answer_from": (0.0,)}, {**rule, "answer_from": (NEVER,)}
    assert careful(lowest, material, plan, head, METHOD, verdict)["answer_from"] == (shown_by(verdict, material),)
    assert careful(none, material, plan, head, METHOD, verdict) == none


@pytest.mark.parametrize("judged", [0, 40])
def test_answers_that_are_optimistic_by_formula_do_not_lower_it(judged: int) -> None:
    """As if every training image were answered rightly, and surely; with images held out and without."""
    rule, material, plan, head = taught(2, 120 + judged, judged)
    assert (plan.judge is None) == (judged == 0)
    y = material.targets.numbers[plan.train]
    head = replace(head, left_out=np.log(np.where(np.arange(3) == y[:, None], 0.98, 0.01)))
    optimistic = evidence.rule_of(METHOD.task, material, plan.train, head)
    assert optimistic["answer_from"] == (0.0,) < rule["answer_from"]
    verdict = evidence.judge(material, plan, head, METHOD, no_bar)  # held out images, where there are some
    found = careful(optimistic, material, plan, head, METHOD, verdict)["answer_from"][0]
    assert found > 0
    crossed = evidence.judge(material, replace(plan, judge=None), head, METHOD, no_bar)
    assert found == shown_by(crossed, material)
    given = crossed.marks["sure"] >= found
    assert (crossed.marks["answer"] != crossed.marks["truth"])[given].sum() <= MOST * given.sum()


def test_images_that_judge_have_no_say() -> None:
    rule, material, plan, head = taught(3, 160, 40)
    found = careful(rule, material, plan, head, METHOD)
    y = material.targets.numbers.copy()
    y[plan.judge] = (y[plan.judge] + 1) % 3
    other = replace(material, targets=ClassNumbers(y, NAMES))
    assert careful(rule, other, plan, head, METHOD) == found
    assert careful(rule, other, plan, head, METHOD, evidence.judge(other, plan, head, METHOD, no_bar)) == found


def test_a_rule_without_a_largest_error_stays_and_nothing_is_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, material, plan, head = taught(4)
    verdict = evidence.judge(material, plan, head, METHOD, no_bar)

    def refused(*given: Any) -> Any:
        raise AssertionError("cross-validated again")

    monkeypatch.setattr(module.evidence, "judge", refused)
    without = {name: value for name, value in rule.items() if name not in ("max_error", "answer_from")}
    assert careful(without, material, plan, head, METHOD) is without
    assert careful(rule, material, plan, head, METHOD, verdict)["answer_from"] >= rule["answer_from"]
    # layers that are trained: to train them again in each fold would take minutes, where images were held out
    trained: Any = type("Trained", (), {"closed": False})()
    assert careful(rule, material, replace(plan, judge=plan.train[:9]), head, trained, verdict) is rule
    with pytest.raises(AssertionError, match="again"):
        careful(rule, material, plan, head, METHOD)
