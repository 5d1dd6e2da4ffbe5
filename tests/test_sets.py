"""Laws of the sets of classes, whichever way they are made: lac, raps, classwise."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart.counted import and_so_on
from headstart.data.targets import ClassNumbers
from headstart.errors import OptionError
from headstart.files import forms
from headstart.heads.adaptive import FREE, PENALTIES, PENALTY, adaptive, scores
from headstart.heads.confident import least_groups
from headstart.heads.material import Material
from headstart.report.classes import confidence_sentences
from headstart.story import confidence as story
from headstart.tasks.aims import as_saved, with_aim
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.confidence import SETS, check_sets, confidence, decided, in_set, sets_of
from headstart.tasks.known import TASKS, with_confidence

K = 5
NAMES = ("ant", "bee", "fly", "moth", "wasp")
COMMON = np.full(K, 1 / K)
RARE = np.array([0.4, 0.3, 0.2, 0.05, 0.05])


def drawn(n: int, rng: np.random.Generator, shares: Any = COMMON) -> tuple[Any, Any]:
    """(log-probabilities (image, class), truth (image,)) of a model that is surer than it should be, and unsure of
    some images; rare classes are mostly taken for others."""
    truth = rng.choice(K, size=n, p=shares)
    x = rng.normal(0, 1, (n, K)) + np.log(shares)
    x[np.arange(n), truth] += rng.choice([0.5, 3.0], size=n)
    x *= 1.5
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True)), truth


def rule_of(sets: str, logs: Any, y: Any, coverage: float = 0.9, groups: Any = None) -> Any:
    groups = np.arange(len(y)) if groups is None else groups
    return confidence(coverage, None, ClassNumbers(y, NAMES), logs, groups, sets=sets)


def held(rule: Any, logs: Any, y: Any) -> Any:
    return in_set(np.exp(logs), rule)[np.arange(len(y)), y]


@pytest.mark.parametrize(
    ("sets", "n", "coverage"), [(s, *of) for s in SETS[:2] for of in ((40, 0.9), (250, 0.9), (60, 0.7))]
)
def test_sets_hold_the_truth_of_the_stated_share_of_new_images(sets: str, n: int, coverage: float) -> None:
    """With and without images that choose the penalty; never less, and not much more: a set holds the answer at least,
    so that more than asked is held where more answers are right."""
    rng, found, right = np.random.default_rng(n), [], []
    for _ in range(150):
        logs, y = drawn(n + 50, rng)
        found.append(held(rule_of(sets, logs[:n], y[:n], coverage), logs[n:], y[n:]).mean())
        right.append((logs[n:].argmax(axis=1) == y[n:]).mean())
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) >= coverage - 3 * error
    assert np.mean(found) <= max(coverage, np.mean(right)) + 0.02 + 1 / (n / 2) + 3 * error


def test_each_class_is_held_where_all_together_fail_the_rare_ones() -> None:
    rng = np.random.default_rng(1)
    by_class: dict[str, list[Any]] = {sets: [] for sets in SETS}
    for _ in range(25):
        logs, y = drawn(1000, rng, RARE)
        for sets in SETS:
            of = held(rule_of(sets, logs[:600], y[:600]), logs[600:], y[600:])
            by_class[sets].append([of[y[600:] == k].mean() for k in range(K)])
    each = {sets: np.mean(found, axis=0) for sets, found in by_class.items()}
    error = np.std(by_class["classwise"], axis=0) / np.sqrt(25)
    assert (each["classwise"] >= 0.9 - 3 * error).all()
    assert (each["classwise"] <= 0.9 + 1 / (0.05 * 600) + 3 * error).all()
    assert each["lac"][3:].max() < 0.8  # and the common ones pay for it
    assert each["lac"][0] > 0.9


def test_adaptive_sets_hold_unsure_images_better_than_the_least_ambiguous() -> None:
    """Of hard and easy images with exact probabilities; that is what larger sets are for."""
    rng = np.random.default_rng(10)
    hard = np.arange(4000) % 2 == 0
    p = np.exp(rng.normal(0, 1, (4000, 20)) * np.where(hard, 0.7, 3.0)[:, None])
    p /= p.sum(axis=1, keepdims=True)
    y = (p.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1)
    targets, names = ClassNumbers(y[:2000], tuple(f"{k:02d}" for k in range(20))), np.arange(2000)
    least, all_held = {}, {}
    for sets in ("lac", "raps"):
        of = held(confidence(0.8, None, targets, np.log(p[:2000]), names, sets=sets), np.log(p[2000:]), y[2000:])
        least[sets], all_held[sets] = of[hard[2000:]].mean(), of.mean()
    assert least["raps"] > least["lac"] + 0.03
    assert min(all_held.values()) > 0.77


@pytest.mark.parametrize("sets", SETS)
def test_a_set_is_never_empty_and_has_the_answer_first(sets: str) -> None:
    logs, y = drawn(300, np.random.default_rng(2))
    rule, p = rule_of(sets, logs, y, 0.5), np.exp(logs).astype(np.float32)
    meant = in_set(p, rule)
    assert meant[np.arange(300), p.argmax(axis=1)].all()
    assert sets_of(rule) == sets
    for row, of in zip(p[:20], meant[:20], strict=True):
        said = decided(NAMES, row, rule)["set"]
        assert said[0] == NAMES[row.argmax()]
        assert set(said) == {name for name, inside in zip(NAMES, of, strict=True) if inside}
    alone = np.concatenate([in_set(p[k : k + 1], rule) for k in range(300)])
    assert (alone == meant).all()


@pytest.mark.parametrize("sets", ["lac", "classwise"])
def test_more_coverage_never_takes_a_class_out(sets: str) -> None:
    logs, y = drawn(300, np.random.default_rng(3))
    found = [in_set(np.exp(logs), rule_of(sets, logs, y, c)) for c in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.999)]
    assert all((less <= more).all() for less, more in pairwise(found))
    assert found[0].sum() < found[-1].sum() == found[-1].size


def test_adaptive_sets_of_one_penalty_are_nested_and_unsure_images_have_the_larger_ones() -> None:
    """Penalties are chosen for a coverage; of one penalty a higher limit takes no class out."""
    logs, _ = drawn(300, np.random.default_rng(4))
    p = np.exp(logs)
    of = scores(p, p.argmax(axis=1), 0.1, 2)
    by_probability = np.take_along_axis(of, np.argsort(-p, axis=1), axis=1)
    assert (np.diff(by_probability, axis=1) > 0).all()  # no class enters before a likelier one
    assert (by_probability[:, 0] == 0).all()
    size = (of <= 0.7).sum(axis=1)
    assert size[p.max(axis=1) > 0.9].max() == 1 < size[p.max(axis=1) < 0.5].min()


def test_adaptive_sets_take_the_penalty_that_images_without_a_say_in_the_limit_choose() -> None:
    """Changing the answers of the fifth that chooses may change the penalty and nothing else; too few choose none."""
    rng = np.random.default_rng(5)
    logs, y = drawn(400, rng)
    p, first, groups = np.exp(logs), logs.argmax(axis=1), np.arange(400)
    found = adaptive(p, first, y, 0.9, groups)
    assert found.penalty in PENALTIES
    choosing = np.random.default_rng(0).permutation(400) < 80
    limit = np.sort(scores(p, first, found.penalty, found.free)[np.arange(400), y][~choosing])[
        int(np.ceil(0.9 * 321)) - 1
    ]
    assert found.limit == pytest.approx(limit)
    few = adaptive(p[:45], first[:45], y[:45], 0.9, groups[:45])
    assert (few.penalty, few.free) == (PENALTY, FREE)


@pytest.mark.parametrize("sets", SETS)
def test_copies_buy_no_narrower_sets(sets: str) -> None:
    """A group counts once, however many images it has."""
    rng = np.random.default_rng(6)
    logs, y = drawn(300, rng)
    times = rng.integers(1, 20, size=300)
    again, truth, groups = (np.repeat(of, times, axis=0) for of in (logs, y, np.arange(300)))
    once, often = rule_of(sets, logs, y), rule_of(sets, again, truth, groups=groups)
    assert once.keys() == often.keys()
    assert all(once[key] == pytest.approx(often[key]) for key in once)
    copies = np.repeat(np.arange(8), 50)  # 8 images, 50 times each: too few to say
    assert in_set(np.exp(logs), rule_of(sets, logs[copies], y[copies], groups=copies)).all()


@pytest.mark.parametrize("sets", SETS)
def test_the_order_of_classes_means_nothing(sets: str) -> None:
    rng = np.random.default_rng(7)
    logs, y = drawn(300, rng)
    order = np.array([3, 0, 4, 1, 2])
    place = np.argsort(order)
    meant = in_set(np.exp(logs), rule_of(sets, logs, y))
    assert (in_set(np.exp(logs[:, order]), rule_of(sets, logs[:, order], place[y])) == meant[:, order]).all()
    equal = scores(np.array([[0.6, 0.1, 0.1, 0.1, 0.1]]), np.array([0]), 0.2, 1)
    assert len(set(equal[0, 1:])) == 1


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("aim", ["accuracy", "balanced"])
def test_a_saved_rule_gives_the_sets_of_before(sets: str, aim: str) -> None:
    logs, y = drawn(300, np.random.default_rng(8), RARE)
    task = with_confidence(CLASSIFICATION, None, 0.3, sets)
    task = with_aim(task, aim, None, NAMES, [100] * K, None, 0.3, sets)
    rule = task.rule(ClassNumbers(y, NAMES), logs, np.arange(300))
    written = json.loads(json.dumps({name: list(values) for name, values in rule.items()}))
    assert not forms.RULE(written, "rule")
    again = {name: tuple(map(float, values)) for name, values in written.items()}
    answers = as_saved(CLASSIFICATION, again, K).answers(logs, again)
    meant = in_set(task.answers(logs, rule), rule)
    assert (in_set(answers, again) == meant).all()
    assert sets_of(again) == sets
    assert held(rule, logs, y).mean() >= 0.88
    first = answers[..., -1].argmax(axis=1) if aim == "balanced" else answers.argmax(axis=1)
    assert meant[np.arange(300), first].all()


@pytest.mark.parametrize(
    "rule", [{"set_from": (0.1, 0.2)}, {"set_limit": (1.0,)}, {"set_from": (0.1,), "set_penalty": (0.1, 1.0)}]
)
def test_a_rule_of_other_classes_is_refused(rule: Any) -> None:
    with pytest.raises(ValueError, match="it has"):
        as_saved(CLASSIFICATION, rule, K)
    check_sets({}, K)  # of before there were sets
    assert forms.RULE({"set_penalty": [0.1]}, "rule")


def test_other_tasks_refuse_it_in_one_line() -> None:
    with pytest.raises(OptionError, match="--sets raps says nothing for --task tag"):
        with_confidence(TASKS["tag"], None, None, "raps")


def fitted(sets: str, n: int = 400, shares: Any = RARE) -> Any:
    logs, y = drawn(n, np.random.default_rng(9), shares)
    rows, targets = np.arange(n), ClassNumbers(y, NAMES)
    material = Material({}, targets, rows, tuple(f"{k:03d}" for k in rows), 0)
    task = with_confidence(TASKS["classify"], None, None, sets)
    return SimpleNamespace(
        plan=SimpleNamespace(train=rows, judge=None),
        verdict=SimpleNamespace(rows=rows, answers=np.exp(logs), marks={"truth": y}),
        seen=SimpleNamespace(material=lambda seed: material, groups=rows, targets=targets),
        head=SimpleNamespace(left_out=logs),
        method=SimpleNamespace(task=task),
        options=SimpleNamespace(seed=0),
        rule=task.rule(targets, logs, rows),
    )


@pytest.mark.parametrize("sets", SETS)
def test_what_is_said_of_each_class_is_what_is_counted(sets: str) -> None:
    """Each image by thresholds of other folds; the class that is held least first."""
    fit = fitted(sets)
    found = story.measured(fit)
    assert found is not None
    assert (found.method, found.sets) == (sets, True)
    shares = [c.held["value"] for c in found.classes]
    assert shares == sorted(shares)
    assert sum(c.n for c in found.classes) == 400
    assert np.dot(shares, [c.n for c in found.classes]) / 400 == pytest.approx(found.held["value"])
    kept = story.to_json(found)
    assert kept is not None
    assert (kept["sets"], len(kept["by_class"]), kept["in_every_set"]) == (sets, K, [])
    said = confidence_sentences(found)
    assert len(said) == (2 if sets == "classwise" else 1)
    assert ("of each class" in said[0]) == (sets == "classwise")
    assert sets != "classwise" or repr(found.classes[0].name) in said[1]


def test_classes_with_too_few_images_are_in_every_set_and_named() -> None:
    fit = fitted("classwise", 60)
    y = fit.verdict.marks["truth"]
    few = np.bincount(y, minlength=K) < least_groups(0.9)
    assert 0 < few.sum() < K
    assert (in_set(fit.verdict.answers, fit.rule).all(axis=0) == few).all()
    found, (note,) = story.measured(fit), story.remarks(fit)
    assert found is not None
    assert found.in_every_set == tuple(np.array(NAMES)[few])
    for said in (note, confidence_sentences(found)[-1]):
        assert f"{few.sum()} classes" in said
        assert "moth" in said
        assert "wasp" in said
    none = fitted("classwise", 12)
    assert "hold all classes" in story.remarks(none)[0]
    assert and_so_on([str(k) for k in range(30)], 2) == "'0', '1' and 28 more"
