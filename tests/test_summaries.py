"""Scores of labels and of values agree with scikit-learn, and their intervals keep what they promise."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError
from headstart.judge import summaries
from headstart.judge.intervals import wilson
from headstart.judge.marks import Marks, Summary, ends
from headstart.judge.summaries import crossed, paired, percentile_ends, summarise
from headstart.judge.tag_marks import SUMMARIES, average_precisions, crossed_tag_score, tag_marks, tag_score
from headstart.judge.value_marks import MAE, R2, RMSE, crossed_value_score, value_marks, value_score, value_summaries

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
    other = np.where(present < 0, np.nan, p)
    one, two = (tag_score(tag_marks(present, q, threshold), list("abcd")).to_json() for q in (p, other))
    assert one["co_occurrence"] == two["co_occurrence"]
    assert one["answered_together"] == two["answered_together"]
    for name in BY_NAME:
        assert one[name] == pytest.approx(two[name]), name
    assert one["per_label"] == two["per_label"]


@pytest.mark.parametrize("summary", SUMMARIES, ids=lambda s: s.name)
def test_of_one_label_only_the_images_count_in_which_it_is_known(summary: Summary) -> None:
    present, p, _ = tags(80, labels=1, unknown=0.4)
    for threshold in (0.0, 0.4):
        bound, known = np.full((80, 1), threshold), present[:, 0] >= 0
        left = tag_marks(present[known], p[known], bound[known])
        assert plain(summary, tag_marks(present, p, bound)) == pytest.approx(plain(summary, left))


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
        assert 0.7 < low < 0.99  # a label has 5 positives
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
    value, low, high = ends(paired(summary, one, one)["difference"])
    assert value == 0
    assert -low == high <= 2.8 / 82
    assert (high > 0) == bool(np.isfinite(summary.highest - summary.lowest))


def test_a_paired_difference_is_tighter_than_the_two_apart() -> None:
    present, p, threshold = tags(150)
    one, two = tag_marks(present, p, threshold), tag_marks(present, np.clip(p + 0.05 * present, 0, 1), threshold)
    summary = BY_NAME["mean_average_precision"]
    value, low, high = ends(paired(summary, two, one)["difference"])
    apart = ends(summarise(one, (summary,))[summary.name])
    assert value == pytest.approx(plain(summary, two) - plain(summary, one))
    assert 0 < low < value < high
    assert high - low < 0.7 * (apart[2] - apart[1])


@pytest.mark.parametrize(
    "summary",
    [*(BY_NAME[s] for s in ("mean_average_precision", "label_accuracy")), R2, RMSE],
    ids=lambda s: s.name,
)
def test_the_interval_holds_the_truth_as_often_as_it_says(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "RESAMPLES", 200)

    def draw(n: int, seed: int) -> Marks:
        return tag_marks(*tags(n, seed=seed)) if summary in SUMMARIES else values(n, seed=seed)

    truth = plain(summary, draw(50_000, 999))
    held = []
    for seed in range(120):
        _, low, high = ends(summarise(draw(120, seed), (summary,))[summary.name])
        held.append(low <= truth <= high)
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("summary", [BY_NAME["micro_f1"], R2], ids=lambda s: s.name)
def test_images_of_a_group_that_err_together_make_it_less_sure(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 groups of 4 images that differ a little: without their groups the interval misses the truth much too often."""
    monkeypatch.setattr(summaries, "RESAMPLES", 200)

    def draw(groups: int, seed: int) -> tuple[Marks, NDArray[np.int64]]:
        rng, g = np.random.default_rng(seed), np.repeat(np.arange(groups), 4)
        if summary in SUMMARIES:
            present, p, threshold = tags(groups, seed=seed)
            return tag_marks(present[g], np.clip(p[g] + rng.normal(0, 0.02, (len(g), 4)), 0, 1), threshold[g]), g
        one = values(groups, seed=seed)
        truth = one["truth"][g] + rng.normal(0, 0.1, (len(g), 1))
        return value_marks(truth, one["answer"][g], one["half_width"][g]), g

    truth = plain(summary, draw(20_000, 999)[0])
    held = np.zeros((60, 2))
    for seed in range(60):
        marks, g = draw(30, seed)
        for k, groups in enumerate((g, None)):
            _, low, high = ends(summarise(marks, (summary,), groups)[summary.name])
            held[seed, k] = low <= truth <= high
    with_groups, without = held.mean(axis=0)
    assert with_groups >= 0.89
    assert without <= 0.8


def test_more_groups_than_are_resampled_give_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = values(1000)
    fine = summarise(marks, (R2, MAE))
    monkeypatch.setattr(summaries, "BLOCKS", 250)
    monkeypatch.setattr(summaries, "CELLS", 1000 * 7)
    for name, coarse in summarise(marks, (R2, MAE)).items():
        value, low, high = ends(fine[name])
        assert ends(coarse) == pytest.approx((value, low, high), abs=0.15 * (high - low))


@pytest.mark.parametrize("groups", [8, 20, 1000])
def test_the_ends_of_a_mean_are_students_whatever_the_bias_of_the_draws(groups: int) -> None:
    """Means of resamples vary by (m - 1) / m of the variance, and by the normal distribution: both are made good."""
    from scipy.special import ndtri, stdtrit

    error = 0.3 / np.sqrt(groups)
    draws = 5 + 0.1 + error * np.sqrt((groups - 1) / groups) * ndtri((np.arange(10**6) + 0.5) / 10**6)
    half = stdtrit(groups - 1, 0.975) * error
    assert percentile_ends(draws, 5.0, groups) == pytest.approx((5 - half, 5 + half), rel=1e-3)


def test_faultless_values_are_not_certain() -> None:
    """As many images as were seen may hide a kind of which none was seen: at most Wilson's share of 0."""
    m = values(40)
    marks = value_marks(m["truth"], m["truth"], m["half_width"])
    unseen = wilson(0.0, 40)[1]
    found = {name: ends(cell) for name, cell in summarise(marks, value_summaries(marks)).items()}
    assert found["r2"] == pytest.approx((1, 1 - unseen, 1))
    assert found["mae"] == pytest.approx((0, 0, unseen * np.abs(m["truth"] - m["truth"].mean()).mean()))
    assert found["rmse"] == pytest.approx((0, 0, np.sqrt(unseen) * m["truth"].std()))
    assert found["coverage"] == pytest.approx((1, 1 - unseen, 1))


def test_labels_without_mistakes_may_fail_together_where_they_share_images() -> None:
    """Two labels on the same images tell no more than one; on different images they tell more."""
    n, one = 60, np.arange(60) < 20
    same, apart = (np.stack([one, other], axis=1).astype(np.int8) for other in (one, (np.arange(n) >= 20) & ~one))
    for name in ("mean_average_precision", "macro_f1"):
        lows = []
        for present in (one[:, None].astype(np.int8), same, apart):
            marks = tag_marks(present, present.astype(float), np.full(present.shape, 0.5))
            lows.append(ends(summarise(marks, (BY_NAME[name],))[name])[1])
        assert lows[0] == pytest.approx(lows[1]), name
        assert lows[1] < lows[2] < 1, name


@pytest.mark.parametrize("summary", [*SUMMARIES, R2, MAE, RMSE], ids=lambda s: s.name)
def test_shares_of_the_best_answers_stay_in_their_bounds(summary: Summary) -> None:
    """One group alone: a value, and an interval that says next to nothing, within what is possible."""
    marks = tag_marks(*tags(12)) if summary in SUMMARIES else values(12)
    value, low, high = ends(summarise(marks, (summary,), np.zeros(12))[summary.name])
    assert summary.lowest <= low <= value <= high <= summary.highest
    free, together = ends(summarise(marks, (summary,))[summary.name]), (low, high)
    assert together[1] - together[0] > free[2] - free[1]


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


def test_the_rows_of_labels_agree_with_scikit_learn_and_hold_their_intervals() -> None:
    from sklearn import metrics as sk

    present, p, threshold = tags(90)
    threshold[:, 0] = 1.0  # never given: no precision
    found = tag_score(tag_marks(present, p, threshold), list("abcd")).tables
    said = p >= threshold
    for k, row in enumerate(found["per_label"]):
        assert (row["n"], row["known"]) == (present[:, k].sum(), 90)
        assert row["threshold"] == pytest.approx(threshold[0, k])
        for part in ("precision", "recall", "f1"):
            expected = getattr(sk, f"{part}_score")(present[:, k], said[:, k], zero_division=0)
            if part == "precision" and k == 0:
                assert row[part]["value"] is None
            else:
                value, low, high = ends(row[part])
                assert value == pytest.approx(expected)
                assert 0 <= low < high <= 1
        value, low, high = ends(row["average_precision"])
        assert value == pytest.approx(sk.average_precision_score(present[:, k], p[:, k]))
        assert low < value < high
    for name, cells in (("co_occurrence", present.astype(int)), ("answered_together", said.astype(int))):
        assert found[name] == (cells.T @ cells).tolist()


def test_rows_of_repeats_are_means() -> None:
    one, two = (tag_marks(tags(80)[0], tags(80, seed=s)[1], np.full((80, 4), t)) for s, t in ((0, 0.4), (1, 0.5)))
    fold = np.arange(80) % 5
    both = crossed_tag_score([one, two], [fold, fold], list("abcd"))
    alone = [tag_score(m, list("abcd")) for m in (one, two)]
    for name in BY_NAME:
        assert both.value(name) == pytest.approx(np.mean([a.value(name) for a in alone]))
    rows = [[a.tables["per_label"][k]["f1"]["value"] for a in alone] for k in range(4)]
    assert [row["f1"]["value"] for row in both.tables["per_label"]] == pytest.approx(np.mean(rows, axis=1))
    assert both.tables["per_label"][0]["threshold"] == pytest.approx(0.45)
    json.dumps(both.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("present", "p", "threshold", "error", "said"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(2), DataError, "no images"),
        (np.zeros((3, 2)), np.zeros((3, 1)), np.zeros(2), OptionError, r"\(3, 1\).*\(3, 2\)"),
        (np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3), OptionError, r"thresholds \(3,\)"),
        (np.full((3, 2), 2), np.zeros((3, 2)), np.zeros(2), OptionError, "allowed are 1, 0 and -1"),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), np.zeros(2), OptionError, "between 0 and 1"),
        (np.zeros((3, 2)), np.full((3, 2), 1.5), np.zeros(2), OptionError, "between 0 and 1"),
        (np.zeros((3, 2)), np.zeros((3, 2)), np.full(2, 1.5), OptionError, "thresholds are probabilities"),
    ],
)
def test_what_are_no_labels_or_answers_is_refused(present: Any, p: Any, threshold: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        tag_marks(present, p, threshold)


def test_what_are_no_values_is_refused() -> None:
    for truth, answer, error, said in (
        (np.zeros((0, 1)), np.zeros((0, 1)), DataError, "no images"),
        (np.zeros((3, 1)), np.zeros(3), OptionError, r"\(3,\) for values \(3, 1\)"),
        (np.zeros((3, 1)), np.full((3, 1), np.inf), OptionError, "answers must be finite"),
    ):
        with pytest.raises(error, match=said):
            value_marks(truth, answer)
