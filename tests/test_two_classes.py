"""What is said of two classes, and of more: AUROC, average precision, kappa, MCC, sensitivity at a specificity."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, cohen_kappa_score, matthews_corrcoef, roc_auc_score

from headstart.errors import OptionError
from headstart.judge.class_marks import class_marks
from headstart.judge.marks import Marks, ends
from headstart.judge.two_classes import (
    JUDGED,
    OTHERS,
    _of_other_folds,
    agreement,
    auroc,
    average_precision,
    crossed_diagnostic,
    diagnostic,
    looked_for,
    operating,
    threshold_at,
    thresholds_of,
)
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.known import TASKS
from headstart.tasks.two_classes import judged_by, positive_of, with_positive

NAMES = ("well", "ill")
NUMBERS = ("auroc", "average_precision", "kappa", "mcc")


def marks_of(seed: int, n: int = 80, classes: int = 2, step: float = 0.05, gap: float = 1.0) -> Marks:
    """Answers with ties, of unequal classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, n, p=np.arange(classes, 0, -1) / sum(range(classes + 1)))
    p = np.exp(rng.normal(size=(n, classes)) + gap * np.eye(classes)[truth])
    p = np.round(p / p.sum(axis=1, keepdims=True) / step) * step + 1e-3
    return class_marks(truth, p / p.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(8))
def test_numbers_are_those_of_scikit_learn(seed: int) -> None:
    marks = marks_of(seed)
    found = diagnostic(marks, NAMES, positive=1)
    truth, p = marks["truth"], marks["probability"][:, 1]
    expected = {
        "auroc": roc_auc_score(truth, p),
        "average_precision": average_precision_score(truth, p),
        "kappa": cohen_kappa_score(truth, marks["answer"]),
        "mcc": matthews_corrcoef(truth, marks["answer"]),
    }
    assert {name: found[name]["value"] for name in NUMBERS} == pytest.approx(expected)
    many = marks_of(seed, 120, 4)
    found = diagnostic(many, "abcd")
    mean = roc_auc_score(many["truth"], many["probability"], multi_class="ovr", average="macro")
    kappa, mcc = (f(many["truth"], many["answer"]) for f in (cohen_kappa_score, matthews_corrcoef))
    assert [found[name]["value"] for name in ("auroc", "kappa", "mcc")] == pytest.approx([mean, kappa, mcc])


def drawn(rng: np.random.Generator, groups: int, size: int, between: float, gap: float) -> tuple[Any, Any, Any]:
    """Truth, score and group (image,); each group of one class, its images alike by `between`, 0 to 1."""
    truth = rng.random(groups) < 0.4
    truth[:2] = False, True
    score = between**0.5 * rng.normal(size=(groups, 1)) + (1 - between) ** 0.5 * rng.normal(size=(groups, size))
    return np.repeat(truth, size), (score + gap * truth[:, None]).ravel(), np.repeat(np.arange(groups), size)


@pytest.mark.parametrize(("groups", "size", "between"), [(30, 1, 0.0), (120, 1, 0.0), (40, 4, 0.7)])
@pytest.mark.parametrize("gap", [0.7, 2.5])
def test_intervals_hold_the_truth(groups: int, size: int, between: float, gap: float) -> None:
    """In about 95 % of 150 draws or more; a standard error is 1.8 points, so that 91 % are the least."""
    rng = np.random.default_rng(groups)
    truth, score, _ = drawn(rng, 20_000, 1, between, gap)
    answer = score > gap / 2
    right = {"auroc": roc_auc_score(truth, score), "kappa": cohen_kappa_score(truth, answer)}
    right["ap"] = average_precision_score(truth, score)
    right["mcc"] = matthews_corrcoef(truth, answer)
    held = dict.fromkeys(right, 0)
    for _ in range(150):
        truth, score, unit = drawn(rng, groups, size, between, gap)
        found = agreement(truth.astype(np.int64), (score > gap / 2).astype(np.int64), 2, unit)
        found |= {"auroc": auroc(truth, score, unit)[0], "ap": average_precision(truth, score, unit)}
        for name, cell in found.items():
            _, low, high = ends(cell)
            held[name] += low <= right[name] <= high
    assert all(n / 150 >= 0.91 for n in held.values()), held


def test_a_perfect_score_is_not_certain_of_itself() -> None:
    for n, classes in ((6, 2), (40, 2), (90, 3)):
        truth = np.arange(n) % classes
        p = np.full((n, classes), 0.02 / (classes - 1))
        p[np.arange(n), truth] = 0.98
        found = diagnostic(class_marks(truth, p), "abc"[:classes])
        cells = [found[name] for name in NUMBERS if name in found]
        cells += [row[name] for row in found.get("operating", ()) for name in ("sensitivity", "specificity")]
        assert all(cell["value"] == pytest.approx(1) and cell["low"] < 0.97 for cell in cells), cells


def test_other_names_and_the_other_order_change_nothing_else() -> None:
    marks = marks_of(3)
    turned = class_marks(1 - marks["truth"], marks["probability"][:, ::-1])
    turned = Marks({**turned.columns, "answer": 1 - marks["answer"]})  # of equals the first is answered
    one, other = diagnostic(marks, NAMES, positive=1), diagnostic(turned, NAMES[::-1], positive=0)
    assert one == other
    opposite = diagnostic(marks, NAMES, positive=0)
    for name in ("auroc", "kappa", "mcc"):  # whichever is positive
        assert ends(opposite[name]) == pytest.approx(ends(one[name]))
    assert opposite["share"] == pytest.approx(1 - one["share"])
    assert opposite["average_precision"]["value"] != pytest.approx(one["average_precision"]["value"])


def test_copies_of_every_image_narrow_nothing() -> None:
    marks = marks_of(5)
    groups = np.arange(len(marks))
    one, two = diagnostic(marks, NAMES, groups), diagnostic(marks.take(np.tile(groups, 2)), NAMES, np.tile(groups, 2))
    for name in NUMBERS:
        assert ends(two[name]) == pytest.approx(ends(one[name])), name
    for first, second in zip(one["operating"], two["operating"], strict=True):
        for name in ("sensitivity", "specificity"):
            assert ends(second[name]) == pytest.approx(ends(first[name]), abs=0.03)


def test_thresholds_give_what_is_asked_and_no_more() -> None:
    for seed in range(5):
        marks = marks_of(seed)
        there, p = marks["truth"] == 1, marks["probability"][:, 1]
        for asked, share in (("specificity", 0.9), ("sensitivity", 0.95), ("specificity", 1.0), ("sensitivity", 1.0)):
            least = threshold_at(there, p, asked, share)

            def reached(least: float, asked: str = asked, there: Any = there, p: Any = p) -> float:
                called = p >= least
                return float(called[there].mean() if asked == "sensitivity" else (~called[~there]).mean())

            assert reached(least) >= share
            tighter = p[p > least].min(initial=2.0) if asked == "sensitivity" else p[p < least].max(initial=-1.0)
            assert reached(float(tighter)) < share


def test_thresholds_of_other_images_are_honest() -> None:
    """Chosen on the judged images a specificity is what was asked; chosen on others it is what it is."""
    rng = np.random.default_rng(0)
    reached, asked = [], []
    for _ in range(200):
        truth, score, _ = drawn(rng, 40, 1, 0.0, 1.0)
        other, others, _ = drawn(rng, 40, 1, 0.0, 1.0)
        units = np.arange(40)
        reached.append(operating(truth, score, units, thresholds_of(other, others), OTHERS)[1]["specificity"]["value"])
        asked.append(operating(truth, score, units, None, OTHERS)[1]["specificity"]["value"])
    assert min(asked) >= 0.95
    assert np.mean(reached) < np.mean(asked) - 0.01


def test_cross_validation_takes_thresholds_from_other_folds_and_averages() -> None:
    one, other = marks_of(1), marks_of(2)
    other = class_marks(one["truth"], other["probability"])
    folds = [np.arange(80) % 5, (np.arange(80) * 7) % 5]
    found = crossed_diagnostic([one, other], folds, NAMES, positive=1)
    alone = [diagnostic(marks, NAMES, positive=1) for marks in (one, other)]
    for name in NUMBERS:
        assert found[name]["value"] == pytest.approx(np.mean([a[name]["value"] for a in alone]))
        assert found[name]["low"] < np.mean([a[name]["low"] for a in alone])
    assert {row["chosen_on"] for row in found["operating"]} == {OTHERS}
    json.dumps(found, allow_nan=False)
    changed = one["truth"].copy()  # what is true of a fold does not move the thresholds that it is judged by
    here = folds[0] == 0
    changed[here] = 1 - changed[here]
    again = class_marks(changed, one["probability"])
    first, second = (_of_other_folds(marks, folds[0], 1) for marks in (one, again))
    assert first is not None
    assert second is not None
    assert all(np.array_equal(a[here], b[here]) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a[~here], b[~here]) for a, b in zip(first, second, strict=True))


def test_a_missing_class_is_said() -> None:
    marks = marks_of(1)
    found = diagnostic(marks.take(marks["truth"] == 0), NAMES)
    assert "'ill'" in found["missing"]
    assert found["auroc"]["value"] is None
    assert found["operating"] == []
    json.dumps(found, allow_nan=False)


def test_the_positive_class_is_the_rarer_one_or_the_one_asked_for() -> None:
    for counts, asked, expected in (((3, 5), None, 0), ((5, 3), None, 1), ((4, 4), None, 1), ((3, 5), "ill", 1)):
        task = with_positive(CLASSIFICATION, asked, NAMES, counts)
        marks, fold = marks_of(1), np.arange(80) % 4
        found = task.judging.crossed([marks], [fold], NAMES, np.arange(80), 0)
        assert found.tables["diagnostic"]["positive"] == NAMES[expected]
        told = judged_by(task, {"positive": (float(expected),)}).judging.score(marks, NAMES, np.arange(80), 0)
        assert told.tables["diagnostic"]["positive"] == NAMES[expected]
    assert [looked_for(pair, (3, 5)) for pair in (("no", "yes"), ("yes", "no"), ("No", "normal"))] == [1, 0, 0]
    with pytest.raises(OptionError, match="ill"):
        positive_of("il", NAMES)
    with pytest.raises(OptionError, match="two classes"):
        with_positive(CLASSIFICATION, "a", tuple("abc"), (1, 1, 1))
    with pytest.raises(OptionError, match="two classes"):
        with_positive(TASKS["regress"], "a", ("weight",), (1,))


@pytest.mark.parametrize("few", [5, 10, 20])
def test_a_share_at_a_threshold_of_few_images_is_not_said_to_be_known(few: int) -> None:
    """The lowest of five scores is no threshold that 95 % of all such images pass: what it says of the others may be
    anything. In 90 % of 100 draws or more the interval holds the truth."""

    def specificities(truth: Any, score: Any) -> list[Any]:
        rows = operating(truth, score, np.arange(len(truth)), None, JUDGED)
        return [ends(row["specificity"]) for row in rows if row["asked"] == "sensitivity"]

    many = np.arange(200_000) < 100_000
    true = [value for value, _, _ in specificities(many, np.random.default_rng(0).normal(size=len(many)) + many)]
    held = np.zeros(len(true))
    for seed in range(100):
        there = np.arange(few + 100) < few
        found = specificities(there, np.random.default_rng([seed, few]).normal(size=len(there)) + there)
        held += [low <= value <= high for value, (_, low, high) in zip(true, found, strict=True)]
    assert held.min() >= 90
