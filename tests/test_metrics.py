"""Scores agree with scikit-learn where it is right, and their intervals hold what they promise."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError
from headstart.judge import class_marks as metrics
from headstart.judge.class_marks import METRICS, class_marks, class_score
from headstart.judge.intervals import (
    Gain,
    balanced_interval,
    paired_balanced_gain,
    paired_gain,
    paired_losses,
    wilson,
)

Floats = NDArray[np.float64]


def score(
    truth: NDArray[Any], p: NDArray[Any], classes: list[str], groups: NDArray[Any] | None = None, seed: int = 0
) -> dict[str, Any]:
    return class_score(class_marks(truth, p), classes, groups, seed).to_json()


def point_scores(truth: NDArray[Any], p: NDArray[Any], n_classes: int) -> dict[str, float]:
    return metrics.point_scores(class_marks(truth, p), n_classes)


def paired_difference(
    truth: NDArray[Any], first: NDArray[Any], second: NDArray[Any], groups: NDArray[Any] | None = None
) -> Gain:
    one, other = (class_marks(truth, p)["right"] for p in (first, second))
    return paired_gain(one, other, groups)


def answers(n: int, n_classes: int, skill: float, seed: int = 0) -> tuple[NDArray[np.int64], Floats]:
    """Truth with uneven classes, and probabilities of a model with some skill."""
    rng = np.random.default_rng(seed)
    truth = np.minimum(rng.geometric(0.35, n) - 1, n_classes - 1)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), truth] += skill
    return truth, softmax(logits)


def softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def names(n: int) -> list[str]:
    return [f"c{i}" for i in range(n)]


@pytest.mark.parametrize("n_classes", [2, 5])
def test_values_agree_with_scikit_learn(n_classes: int) -> None:
    from sklearn import metrics as sk

    truth, p = answers(400, n_classes, 1.5)
    guess = p.argmax(axis=1)
    mine = score(truth, p, names(n_classes))
    precision, recall, f1, count = sk.precision_recall_fscore_support(truth, guess)
    expected = {
        "accuracy": sk.accuracy_score(truth, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
        "log_loss": sk.log_loss(truth, p),
        "macro_precision": precision.mean(),
        "macro_recall": recall.mean(),
        "macro_f1": f1.mean(),
    }
    for name, value in expected.items():
        assert mine[name]["value"] == pytest.approx(value, rel=1e-12), name
        assert point_scores(truth, p, n_classes)[name] == pytest.approx(value, rel=1e-12), name
    for c, row in enumerate(mine["per_class"]):
        assert (row["class"], row["n"]) == (f"c{c}", count[c])
        assert [row[k]["value"] for k in ("precision", "recall", "f1")] == pytest.approx(
            [precision[c], recall[c], f1[c]]
        )
    assert mine["confusion"] == sk.confusion_matrix(truth, guess).tolist()


def test_wilson_is_scipys() -> None:
    from scipy.stats import binomtest

    for k, n in ((0, 5), (18, 18), (94, 94), (90, 100), (2850, 3000)):
        low, high = binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k / n, n) == pytest.approx((low, high), abs=1e-12)
    assert wilson(0.0, 0) == (0.0, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 60), st.integers(2, 6), st.floats(-2, 8), st.booleans())
def test_every_interval_holds_its_value_and_is_json(
    seed: int, n: int, n_classes: int, skill: float, grouped: bool
) -> None:
    truth, p = answers(n, n_classes, skill, seed)
    groups = np.random.default_rng(seed).integers(0, max(1, n // 3), n) if grouped else None
    result = score(truth, p, names(n_classes), groups)
    json.dumps(result, allow_nan=False)
    cells = [result[m] for m in METRICS] + [
        row[k] for row in result["per_class"] for k in ("precision", "recall", "f1")
    ]
    for cell in cells:
        if cell["value"] is not None:
            assert 0 <= cell["low"] <= cell["value"] <= cell["high"]
            assert type(cell["value"]) is type(cell["low"]) is type(cell["high"]) is float
    assert all(result[m]["high"] <= 1 for m in METRICS if m != "log_loss")
    assert np.array(result["confusion"]).sum() == n


def test_a_perfect_score_on_few_images_is_not_believed() -> None:
    """peers.md, pain 36: 18 of 18 is 0.82 to 1, for the macro scores too, and a class of three says little."""
    truth = np.array([0] * 15 + [1] * 3)
    result = score(truth, np.eye(2)[truth] * 0.98 + 0.01, names(2))
    assert result["accuracy"]["low"] == pytest.approx(0.824, abs=1e-3)
    assert result["per_class"][1]["recall"]["low"] == pytest.approx(0.438, abs=1e-3)
    for name in ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1"):
        assert 0.5 < result[name]["low"] < 0.85
        assert result[name]["high"] == 1.0


def test_absent_and_never_predicted_classes() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    guess = np.array([0, 0, 3, 1, 0, 0])  # class 3 does not occur, class 2 is never predicted
    result = score(truth, np.eye(5)[guess], names(5))
    rows = result["per_class"]
    undefined = {"value": None, "low": None, "high": None}
    assert rows[2]["precision"] == undefined
    assert (rows[2]["recall"]["value"], rows[2]["f1"]["value"]) == (0.0, 0.0)
    assert (rows[3]["recall"], rows[3]["f1"], rows[3]["precision"]["value"]) == (undefined, undefined, 0.0)
    assert rows[4]["precision"] == rows[4]["recall"] == undefined
    assert result["macro_recall"]["value"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert result["macro_precision"]["value"] == pytest.approx((2 / 4 + 1 + 0) / 3)


def test_log_loss_is_clipped() -> None:
    result = score(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), names(2))
    assert result["log_loss"]["value"] == pytest.approx(-np.log(1e-7) / 2)


def covered(name: str, true_value: float, sample: Any, runs: int) -> float:
    hits = 0
    for run in range(runs):
        cell = sample(np.random.default_rng(run))[name]
        hits += cell["low"] <= true_value <= cell["high"]
    return hits / runs


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1", "log_loss"])
def test_intervals_cover_the_truth(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nominal 95 %; 100 runs have a standard error of 2.2 %."""
    monkeypatch.setattr(metrics, "RESAMPLES", 250)
    truth, p = answers(200_000, 4, 1.5)
    population = point_scores(truth, p, 4)

    def sample(rng: np.random.Generator) -> dict[str, Any]:
        rows = rng.integers(0, len(truth), 150)
        return score(truth[rows], p[rows], names(4))

    assert covered(name, population[name], sample, 100) >= 0.89


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "balanced_accuracy"])
def test_groups_widen_the_interval_to_honest_coverage(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """40 patients of 10 images that are right or wrong together: taken as independent, the interval misses often."""
    monkeypatch.setattr(metrics, "RESAMPLES", 250)

    def draw(rng: np.random.Generator, patients: int) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
        skill = np.repeat(rng.normal(1.5, 2.0, patients), 10)
        truth = rng.integers(0, 2, patients * 10)
        logits = rng.normal(size=(patients * 10, 2)) * 0.5
        logits[np.arange(len(truth)), truth] += skill
        return truth, softmax(logits), np.repeat(np.arange(patients), 10)

    truth, p, _ = draw(np.random.default_rng(12345), 20_000)
    value = point_scores(truth, p, 2)[name]

    def grouped(rng: np.random.Generator) -> dict[str, Any]:
        truth, p, groups = draw(rng, 40)
        return score(truth, p, names(2), groups)

    def single(rng: np.random.Generator) -> dict[str, Any]:
        truth, p, _ = draw(rng, 40)
        return score(truth, p, names(2))

    assert covered(name, value, grouped, 80) >= 0.88
    assert covered(name, value, single, 80) <= 0.75


def test_groups_of_one_are_no_groups() -> None:
    truth, p = answers(120, 3, 1.0)
    assert score(truth, p, names(3), np.random.default_rng(0).permutation(120)) == score(truth, p, names(3))


def test_many_units_are_merged_without_changing_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, p = answers(6000, 4, 1.0)
    full = score(truth, p, names(4))
    monkeypatch.setattr(metrics, "BLOCKS", 1000)
    merged = score(truth, p, names(4))
    for name in ("macro_f1", "log_loss", "ece"):
        wide = full[name]["high"] - full[name]["low"]
        assert merged[name]["high"] - merged[name]["low"] == pytest.approx(wide, rel=0.15)


def test_ece_sees_overconfidence_and_forgives_chance() -> None:
    _, p = answers(2000, 4, 0.0)
    rng = np.random.default_rng(0)
    honest = np.array([rng.choice(4, p=row) for row in p])
    plain = point_scores(honest, p, 4)["ece"]
    calibrated, sure = score(honest, p, names(4))["ece"], score(honest, softmax(3 * np.log(p)), names(4))["ece"]
    assert calibrated["value"] < 0.75 * plain
    assert calibrated["low"] < 0.01
    gap = softmax(3 * np.log(p)).max(axis=1).mean() - (p.argmax(axis=1) == honest).mean()
    assert sure["low"] < gap < sure["high"]


def test_ece_does_not_depend_on_the_order_of_equal_confidences() -> None:
    truth = np.repeat([0, 1], 50)
    p = np.tile([0.7, 0.3], (100, 1))
    order = np.random.default_rng(0).permutation(100)
    assert point_scores(truth, p, 2)["ece"] == pytest.approx(0.2)
    assert point_scores(truth[order], p[order], 2)["ece"] == pytest.approx(0.2)


def test_of_a_thousand_classes_blocks_are_resampled_and_what_occurs_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of images: as many resamples of as many blocks, a few at a time, over cells that are not 0;
    and memory is a part of what the probabilities take."""
    rng, weighted, n = np.random.default_rng(0), metrics._weighted, 9000
    truth = rng.integers(0, 1000, n)
    p = rng.random((n, 1000), dtype=np.float32)
    p[np.arange(n), truth] += 0.7
    p /= p.sum(axis=1, keepdims=True)
    made: list[tuple[int, int, int]] = []

    def counted(weights: Any, sums: Any) -> Any:
        made.append((*weights.shape, sums.nnz))
        return weighted(weights, sums)

    monkeypatch.setattr(metrics, "_weighted", counted)
    tracemalloc.start()
    try:
        score(truth, p, names(1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    resamples, blocks, cells = (np.array(column) for column in zip(*made, strict=True))
    assert resamples.sum() == 4 * metrics.RESAMPLES  # right, true and guessed answers, and the gap of calibration
    assert resamples.max() <= metrics.CHUNK
    assert set(blocks.tolist()) == {metrics.BLOCKS}
    assert cells.max() <= n
    assert peak < 3 * p.nbytes


def test_paired_difference_agrees_with_mcnemar() -> None:
    from scipy.stats import binomtest

    truth = np.zeros(100, int)
    first, second = np.eye(2)[[0] * 90 + [1] * 10], np.eye(2)[[0] * 78 + [1] * 15 + [0] * 7]
    got = paired_difference(truth, first, second)
    assert (got["only_first_right"], got["only_second_right"]) == (12, 7)
    assert got["difference"]["value"] == pytest.approx(0.05)
    assert got["p"] == pytest.approx(binomtest(12, 19).pvalue)
    back = paired_difference(truth, second, first)["difference"]
    assert [back["value"], back["low"], back["high"]] == pytest.approx(
        [-got["difference"][k] for k in ("value", "high", "low")]
    )


def test_a_model_does_not_differ_from_itself_but_that_is_not_certain() -> None:
    truth, p = answers(50, 3, 1.0)
    got = paired_difference(truth, p, p)
    assert (got["difference"]["value"], got["p"]) == (0.0, 1.0)
    assert -0.1 < got["difference"]["low"] < 0 < got["difference"]["high"] < 0.1


def test_paired_difference_counts_groups_not_copies() -> None:
    truth = np.zeros(60, int)
    first, second = np.eye(2)[[0] * 60], np.eye(2)[[0] * 50 + [1] * 10]
    alone = paired_difference(truth, first, second)
    copies = paired_difference(truth, first, second, np.concatenate([np.arange(50), np.full(10, 50)]))
    assert alone["p"] < 0.01
    assert copies["p"] == 1.0
    assert copies["difference"]["low"] < 0 < alone["difference"]["low"]


def test_paired_losses_are_students_t_over_groups() -> None:
    from scipy.stats import ttest_1samp

    truth, first = answers(80, 3, 1.0)
    second = answers(80, 3, 0.5)[1]
    at = np.arange(80)
    change = np.log(second[at, truth]) - np.log(first[at, truth])
    expected = ttest_1samp(change, 0).confidence_interval(0.95)
    one, other = (class_marks(truth, p)["loss"] for p in (first, second))
    got = paired_losses(one, other)
    assert [got["value"], got["low"], got["high"]] == pytest.approx([change.mean(), *expected])
    twice = paired_losses(*(np.repeat(a, 2) for a in (one, other)), np.repeat(at, 2))
    assert twice == pytest.approx(got)  # a copy of each image tells nothing new
    assert paired_losses(one, other, np.zeros(80, int)) == {"value": got["value"], "low": None, "high": None}


@pytest.mark.parametrize(
    ("truth", "p", "reason"),
    [
        ([0, 1], np.full((3, 2), 1 / 2), r"expected \(2, classes\)"),
        ([0, 2], np.full((2, 2), 0.5), "allowed are 0 to 1"),
        ([0, 1], np.full((2, 2), np.nan), "sum to 1"),
        ([0, 1], np.full((2, 2), 0.9), "sum to 1"),
    ],
)
def test_what_is_no_probability_is_refused(truth: list[int], p: Floats, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        score(np.array(truth), p, names(2))


def test_no_images_no_score() -> None:
    with pytest.raises(DataError, match="no images"):
        score(np.zeros(0, int), np.zeros((0, 2)), names(2))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.integers(40, 400), st.booleans())
def test_a_balanced_difference_is_that_of_the_balanced_accuracies(seed: int, n: int, grouped: bool) -> None:
    truth, p = answers(n, 3, 1.5, seed)
    _, other = answers(n, 3, 0.5, seed)
    groups = np.random.default_rng(seed).integers(0, n, n) if grouped else None
    first, second = (q.argmax(axis=1) == truth for q in (p, other))
    gain = paired_balanced_gain(truth, first, second, groups)["difference"]
    cells = [balanced_interval(truth, hit, groups) for hit in (first, second)]
    for cell, q in zip(cells, (p, other), strict=True):
        assert cell["value"] == pytest.approx(score(truth, q, names(3))["balanced_accuracy"]["value"])
    assert gain["value"] == pytest.approx((cells[0]["value"] or 0) - (cells[1]["value"] or 0), abs=1e-12)
    for cell in (gain, *cells):
        assert cell["low"] <= cell["value"] <= cell["high"]


def test_a_rare_class_decides_a_balanced_difference_that_the_accuracy_hides() -> None:
    """1,000 images of one class, 50 of another: always the first one, against right in all of the second and 950."""
    truth = np.repeat([0, 1], [1000, 50])
    constant, model = truth == 0, np.arange(1050) >= 50
    plain = paired_gain(model, constant)["difference"]
    assert plain["low"] < 0 < plain["high"]
    assert paired_balanced_gain(truth, model, constant)["difference"]["low"] > 0.4


def test_shares_of_right_answers_are_compared_as_answers_are() -> None:
    rng = np.random.default_rng(0)
    repeats, other = rng.random((3, 200)) < 0.8, rng.random(200) < 0.6
    found = paired_gain(repeats.mean(axis=0), other)["difference"]
    each = [paired_gain(right, other)["difference"] for right in repeats]
    assert found["value"] == pytest.approx(np.mean([d["value"] for d in each]))
    assert found["high"] - found["low"] < np.mean([d["high"] - d["low"] for d in each])


def test_the_plain_calibration_error_is_the_usual_one_and_the_corrected_one_takes_chance_off() -> None:
    """Of a model whose probabilities are right all of the plain error is chance."""
    rng = np.random.default_rng(0)
    p = softmax(2 * rng.normal(size=(600, 4)))
    truth = np.array([rng.choice(4, p=row) for row in p])
    found = score(truth, p, names(4))
    order = np.argsort(p.max(axis=1), kind="stable")
    gap = p.max(axis=1) - (p.argmax(axis=1) == truth)
    usual = sum(abs(gap[part].sum()) for part in np.array_split(order, metrics.ECE_BINS)) / len(truth)
    assert found["ece_plain"]["value"] == pytest.approx(usual, abs=0.003)
    assert found["ece_plain"]["value"] == point_scores(truth, p, 4)["ece_plain"]
    assert found["ece"]["value"] < 0.7 * found["ece_plain"]["value"]
    for name in ("ece", "ece_plain"):
        assert 0 <= found[name]["low"] <= found[name]["value"] <= found[name]["high"]
