"""The score by the user's groups: each left out in turn is each judged by what the others taught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from headstart.heads.taps import Part, TapSet
from headstart.report import Groups, OneGroup
from headstart.report.groups import spread
from headstart.report.measures import MEASURES
from headstart.story import evidence
from headstart.story.by_group import LEAST, ByGroup, by_group
from headstart.story.folds import refitter
from headstart.story.plan import make_plan
from headstart.tasks.classification import CLASSIFICATION
from test_folds import classes, material

SETS = (TapSet("both", (Part("a", False, True), Part("b", False, True))),)
METHOD = evidence.Method(CLASSIFICATION, SETS)


def judged(names: Any, y: Any, spoilt: str = "", splits: str = "none") -> tuple[ByGroup | None, Any]:
    """By group, of 90 images; the features of group `spoilt` are noise."""
    names = np.array(names, dtype=object)
    codes = {name: k for k, name in enumerate(dict.fromkeys(names[names != ""]))}
    groups = np.array([codes.get(name, 100 + k) for k, name in enumerate(names)])
    found = material(classes(y), (12, 16), groups)
    rng, here = np.random.default_rng(1), np.flatnonzero(names == spoilt)
    for block in found.blocks.values():
        np.asarray(block)[here] = rng.normal(size=(len(here), block.shape[1]))
    parts = np.full(len(names), splits, dtype=object)
    if splits != "none":
        parts[::2] = "test"
    plan = make_plan(parts, found.targets.strata, groups, found.keys, 0)
    head = evidence.final_head(found, plan, METHOD, lambda *_: lambda done: None)
    verdict = evidence.judge(found, plan, head, METHOD, lambda *_: lambda done: None)
    return by_group(names, [], found, plan, head, METHOD, verdict), (found, verdict)


def test_each_group_is_judged_as_if_it_had_never_been_there() -> None:
    names, y = [f"site {k % 4}" for k in range(90)], np.arange(90) % 3
    found, (data, _) = judged(names, y)
    assert found is not None
    assert found.how == "left out in turn"
    for one in found.each:
        held = np.flatnonzero(np.array(names) == one.name)
        taught = np.setdiff1d(np.arange(90), held)
        answers = refitter(CLASSIFICATION, data, SETS)(taught)(held)
        assert one.n == len(held)
        assert one.value["value"] == float((answers.argmax(axis=1) == y[held]).mean())


def test_a_group_of_another_kind_is_the_worst_and_chance_alone_makes_none() -> None:
    names, y = [f"site {k // 3 % 4}" for k in range(90)], np.arange(90) % 3
    spoilt, _ = judged(names, y, "site 2")
    assert spoilt is not None
    assert spoilt.compared[0].name == "site 2"
    assert spoilt.p is not None
    assert spoilt.p < 0.01
    assert [one.value["value"] for one in spoilt.each] == sorted(one.value["value"] or 0.0 for one in spoilt.each)
    alike, _ = judged(names, y)
    assert alike is not None
    assert alike.p is not None
    assert alike.p > 0.05


def test_a_group_without_which_a_class_cannot_be_learned_is_not_judged() -> None:
    names = ["one" if k < 5 else "two" if k < 9 else f"site {k % 3}" for k in range(90)]
    found, _ = judged(names, np.where(np.arange(90) < 9, 2, np.arange(90) // 3 % 2))
    assert found is not None
    assert found.not_judged == ("one", "two")
    assert [one.name for one in found.each if one.name in ("one", "two")] == []


def test_groups_of_judged_images_add_up_to_the_score() -> None:
    names, y = [f"site {k // 2 % 4}" for k in range(90)], np.arange(90) % 3
    found, (_, verdict) = judged(names, y, splits="train")
    assert found is not None
    assert found.how == "of the judged images"
    right = sum(one.n * float(one.value["value"] or 0.0) for one in found.each)
    assert np.isclose(right / sum(one.n for one in found.each), verdict.score.value("accuracy"))
    assert judged([""] * 90, y)[0] is None


def test_small_groups_are_named_and_not_compared() -> None:
    def groups(*sizes: int) -> Groups:
        each = tuple(OneGroup(f"g{k}", n, {"value": k / 10, "low": 0.0, "high": 1.0}) for k, n in enumerate(sizes))
        return Groups("left out in turn", each, 0.001)

    said = spread(groups(LEAST - 1, LEAST, 50), MEASURES["accuracy"])
    assert said[0].startswith("accuracy from 10.0 to 20.0 % by group")
    assert "worst: g1" in said[0]
    assert "more than chance" in said[1]
    assert "no more than" in spread(replace(groups(40, 50), p=0.2), MEASURES["accuracy"])[1]
    assert "from" not in spread(groups(2, 50), MEASURES["accuracy"])[0]
