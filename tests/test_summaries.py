"""Scores of labels and of values agree with scikit-learn, and their intervals keep what they promise."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.judge import summaries
from headstart.judge.marks import Marks, Summary, ends
from headstart.judge.summaries import crossed, paired, summarise
from headstart.judge.tag_marks import SUMMARIES, average_precisions, crossed_tag_score, tag_marks, tag_score
from headstart.judge.value_marks import MAE, R2, RMSE, crossed_value_score, value_marks, value_score

BY_NAME = {s.name: s for s in SUMMARIES}


def tags(n: int = 120, labels: int = 4, seed: int = 0, unknown: float = 0.0) -> tuple[NDArray[np.int8], Any, Any]:
    """Truth, probabilities with ties, thresholds."""
    rng = np.random.default_rng(seed)
    present = (rng.random((n, labels)) < np.linspace(0.1, 0.6, labels)).astype(np.int8)
    p = np.round(np.clip(0.3 * present + 0.7 * rng.random((n, labels)), 0, 1), 2)
    present[rng.random((n, labels)) < unknown] = -1
    return present, p, np.full((n, labels), 0.45)


def values(n: int = 150, columns: int = 1, noise: float = 1.0, seed: int = 0) -> Marks:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, columns)) * 3 + 10
    return value_marks(truth, truth + noise * rng.normal(size=(n, columns)), np.full((n, columns), 1.64 * noise))


def plain(summary: Summary, marks: Marks) -> float:
    return float(summary.of(marks, np.ones((1, len(marks))))[0])


def test_values_agree_with_scikit_learn() -> None:
    from sklearn import metrics as sk

    present, p, threshold = tags()
    marks = tag_marks(present, p, threshold)
    said = p >= threshold
    expected = {
        "mean_average_precision": sk.average_precision_score(present, p),
        "macro_f1": sk.f1_score(present, said, average="macro"),
        "micro_f1": sk.f1_score(present, said, average="micro"),
        "exact_match": (present == said).all(axis=1).mean(),
        "label_accuracy": (present == said).mean(),
        "log_loss": np.mean([sk.log_loss(present[:, k], np.clip(p[:, k], 1e-7, 1 - 1e-7)) for k in range(4)]),
    }
    for name, value in expected.items():
        assert plain(BY_NAME[name], marks) == pytest.approx(value), name
    m = values()
    assert plain(R2, m) == pytest.approx(sk.r2_score(m["truth"], m["answer"]))
    assert plain(MAE, m) == pytest.approx(sk.mean_absolute_error(m["truth"], m["answer"]))
    assert plain(RMSE, m) == pytest.approx(sk.root_mean_squared_error(m["truth"], m["answer"]))


@pytest.mark.parametrize("summary", [*SUMMARIES, R2, MAE, RMSE], ids=lambda s: s.name)
def test_a_weight_of_two_is_the_image_twice_and_order_means_nothing(summary: Summary) -> None:
    marks = tag_marks(*tags(40, unknown=0.2)) if summary in SUMMARIES else values(40)
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, (1, 40)).astype(float)
    repeated = marks.take(np.repeat(np.arange(40), weights[0].astype(int)))
    assert summary.of(marks, weights)[0] == pytest.approx(plain(summary, repeated))
    order = rng.permutation(40)
    assert plain(summary, marks.take(order)) == pytest.approx(plain(summary, marks))


def test_unknown_labels_count_nowhere() -> None:
    present, p, threshold = tags(60, unknown=0.3)
    other = np.where(present < 0, 1 - p, p)
    one, two = (tag_score(tag_marks(present, q, threshold), list("abcd")).to_json() for q in (p, other))
    assert one["co_occurrence"] == two["co_occurrence"]
    for name in BY_NAME:
        assert one[name] == pytest.approx(two[name]), name
    assert one["per_label"] == two["per_label"]


def test_copies_tell_nothing_new() -> None:
    """Of images in groups of copies the interval is that of the groups."""
    marks = tag_marks(*tags(60))
    twice = marks.take(np.repeat(np.arange(60), 2))
    alone = summarise(marks, SUMMARIES)
    copies = summarise(twice, SUMMARIES, np.repeat(np.arange(60), 2))
    for name, cell in alone.items():
        assert ends(copies[name]) == pytest.approx(ends(cell)), name


def test_perfect_answers_are_not_certain() -> None:
    present, _, threshold = tags(50)
    found = tag_score(tag_marks(present, present.astype(float), threshold), list("abcd"))
    for name in ("mean_average_precision", "macro_f1", "exact_match"):
        value, low, high = ends(found[name])
        assert value == high == 1
        assert 0.85 < low < 0.99
    json.dumps(found.to_json(), allow_nan=False)


def test_what_is_not_determined_has_no_value() -> None:
    """No positive at all; one value alone; no known label."""
    nothing = tag_score(tag_marks(np.zeros((9, 2), np.int8), np.full((9, 2), 0.2), np.full((9, 2), 0.5)), ["a", "b"])
    assert nothing["mean_average_precision"]["value"] is None
    constant = np.full((9, 1), 4.2)
    assert value_score(value_marks(constant, constant, constant), ["x"])["r2"]["value"] is None
    unknown = tag_marks(np.full((3, 1), -1, np.int8), np.zeros((3, 1)), np.zeros((3, 1)))
    assert tag_score(unknown, ["a"])["label_accuracy"]["value"] is None


@pytest.mark.parametrize(
    "summary", [BY_NAME["mean_average_precision"], BY_NAME["micro_f1"], R2, MAE], ids=lambda s: s.name
)
def test_a_paired_difference_is_antisymmetric_and_that_of_a_thing_with_itself_nothing(summary: Summary) -> None:
    if summary in SUMMARIES:
        present, p, threshold = tags(80)
        one, two = tag_marks(present, p, threshold), tag_marks(present, 0.5 * p + 0.25, threshold)
    else:
        one, two = values(80), values(80, noise=2.0)
        two = value_marks(one["truth"], two["answer"], two["half_width"])
    there, back = paired(summary, one, two)["difference"], paired(summary, two, one)["difference"]
    value, low, high = ends(back)
    assert ends(there) == pytest.approx((-value, -high, -low))
    assert ends(paired(summary, one, one)["difference"])[0] == 0


@pytest.mark.parametrize(
    "summary", [BY_NAME["mean_average_precision"], BY_NAME["macro_f1"], R2, RMSE], ids=lambda s: s.name
)
def test_the_interval_holds_the_truth_as_often_as_it_says(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "RESAMPLES", 200)

    def draw(n: int, seed: int) -> Marks:
        return tag_marks(*tags(n, seed=seed)) if summary in SUMMARIES else values(n, seed=seed)

    truth = plain(summary, draw(20_000, 999))
    held = []
    for seed in range(60):
        _, low, high = ends(summarise(draw(120, seed), (summary,))[summary.name])
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.83  # 0.93 to 0.97 of 400; of 60 so few come up once in a hundred times


def test_cross_validation_passes_over_a_fold_without_the_label() -> None:
    present, p, threshold = tags(60, labels=2)
    present[:, 0] = np.arange(60) < 3  # all of them in the first fold
    marks, fold = tag_marks(present, p, threshold), np.arange(60) // 12
    found = crossed_tag_score([marks, marks], [fold, fold], ["a", "b"])
    assert (found.folds, found.repeats) == (5, 2)
    assert found.value("mean_average_precision") == pytest.approx(average_precisions(marks, np.ones((1, 60))).mean())
    wide, narrow = (ends(x["micro_f1"]) for x in (found, tag_score(marks, ["a", "b"])))
    assert wide[0] == pytest.approx(narrow[0])
    assert wide[1] < narrow[1]
    assert wide[2] > narrow[2]


def test_several_columns_are_told_one_by_one() -> None:
    marks = values(90, columns=2)
    scored = crossed_value_score([marks], [np.arange(90) % 5], ["age", "weight"])
    rows = scored.tables["per_column"]
    assert [row["column"] for row in rows] == ["age", "weight"]
    assert scored.value("r2") == pytest.approx(np.mean([row["r2"]["value"] for row in rows]))
    assert "mae" not in scored.estimates
    alone = crossed([marks], [np.arange(90) % 5], (R2,))
    assert alone["r2"] == scored["r2"]
