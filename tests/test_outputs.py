"""Several labels an image and measured values: what holds of their closed-form heads, whatever the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.errors import OptionError
from headstart.heads import outputs
from headstart.heads.calibrate import platt, sigmoid
from headstart.heads.closed import ridge_left_out_of, ridge_path, ridge_weights
from headstart.heads.measured import fit_values, half_widths
from headstart.heads.outputs import fit_outputs
from headstart.heads.per_label import best_thresholds, fit_per_label, learnable
from headstart.heads.spectrum import decompose
from headstart.heads.taps import Part, TapSet, lower, value_sets
from headstart.heads.without import Whole

ONE = (TapSet("one", (Part("a", root=False, unit=False),)),)
TWO = (*ONE, TapSet("two", (Part("b", root=False, unit=True),)))
PENALTIES = [0.3, 30.0, 3000.0]


def pictures(n: int, seed: int, widths: tuple[int, int] = (30, 12)) -> tuple[dict[str, Any], Any]:
    """Blocks, and scores (image, 4) that are linear in both of them, of unit spread, with noise."""
    rng = np.random.default_rng(seed)
    blocks = {name: rng.normal(size=(n, width)) + 1 for name, width in zip("ab", widths, strict=True)}
    truth = np.random.default_rng(99)
    clean = sum(block @ truth.normal(size=(block.shape[1], 4)) / np.sqrt(block.shape[1]) for block in blocks.values())
    scores = clean + 0.3 * rng.normal(size=(n, 4))
    return blocks, (scores - [1, 0, 0, -1]) / 1.5


def labels(n: int, seed: int, unknown: float = 0.0) -> tuple[dict[str, Any], Any]:
    blocks, scores = pictures(n, seed)
    hidden = np.random.default_rng(seed + 1).random((n, 4)) < unknown
    return blocks, np.where(hidden, -1, scores > np.median(scores, axis=0)).astype(np.int8)


def grouped(n: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, n // 2, n)


@pytest.mark.parametrize("shape", [(40, 12), (30, 90), (25, 25)])  # primal, dual, square
def test_leave_one_out_of_any_targets_equals_refitting(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    X, groups = rng.normal(size=shape) + 3, grouped(shape[0], 1)
    targets = (rng.normal(size=(shape[0], 3)) + 5) * [1, 1e3, 1e-3]
    formula = ridge_path(decompose(X), targets, PENALTIES, groups)
    for k, l2 in enumerate(PENALTIES):
        for group in np.unique(groups):
            out = groups == group
            coef, intercept = ridge_weights(decompose(X[~out]), targets[~out], np.array([l2]))
            assert (np.abs(formula[k, out] - (X[out] @ coef.T + intercept)) < 1e-6 * targets.std(axis=0)).all()


@pytest.mark.parametrize("shape", [(60, 12), (40, 90)])
def test_images_that_did_not_teach_are_answered_without_their_group(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    X, targets, groups = rng.normal(size=shape) + 3, rng.normal(size=(shape[0], 3)), grouped(shape[0], 3)
    new, l2 = rng.random(shape[0]) < 0.4, np.array(PENALTIES)
    kept = (X[~new], targets[~new])
    formula = ridge_left_out_of(decompose(kept[0]), kept[1], l2, groups[~new], X[new], groups[new])
    shared = 0
    for row, (x, group) in enumerate(zip(X[new], groups[new], strict=True)):
        stay = groups[~new] != group
        shared += not stay.all()
        coef, intercept = ridge_weights(decompose(kept[0][stay]), kept[1][stay], l2)
        assert np.abs(formula[row] - (coef @ x + intercept)).max() < 1e-6
    assert shared > 5


def test_a_penalty_for_each_output_is_as_each_output_alone() -> None:
    X, targets = np.random.default_rng(4).normal(size=(30, 50)), np.random.default_rng(5).normal(size=(30, 3))
    coef, intercept = ridge_weights(decompose(X), targets, np.array(PENALTIES))
    for k, l2 in enumerate(PENALTIES):
        alone = ridge_weights(decompose(X), targets[:, [k]], np.array([l2]))
        assert np.allclose(coef[k], alone[0][0], rtol=1e-9, atol=0)
        assert np.allclose(intercept[k], alone[1][0], rtol=1e-9, atol=1e-12)


def test_penalties_chosen_on_a_part_of_the_images_are_used_for_all() -> None:
    X, targets = np.random.default_rng(21).normal(size=(60, 8)), pictures(60, 21)[1]
    spectrum, groups = decompose(X), grouped(60, 22)
    found = fit_outputs(Whole(X), targets, groups, lambda a, t: ((a - t) ** 2).mean(axis=1), np.arange(0, 60, 4))
    for k, l2 in enumerate(found.l2 * spectrum.scale):
        alone = ridge_path(spectrum, targets[:, [k]], [l2], groups)[0]
        assert np.allclose(found.left_out[:, k], alone[:, 0], rtol=1e-9)
        assert np.allclose(found.coef[k], ridge_weights(spectrum, targets[:, [k]], np.array([l2]))[0][0], rtol=1e-9)


def test_rare_labels_get_as_good_a_penalty_where_it_is_chosen_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 images of 500 hold one with the label or none, and then any penalty looks alike."""
    blocks, _ = pictures(500, 23, (480, 12))
    scores = blocks["a"][:, :4]
    present = (scores > np.sort(scores, axis=0)[-13]).astype(np.int8)  # 12 of 500 have it
    losses = []
    for rows in (500, 30):
        monkeypatch.setattr(outputs, "CHOICE_ROWS", rows)
        losses.append(fit_per_label(blocks, present, np.arange(500), ONE).candidates[0].log_loss)
    assert losses[1] < 1.005 * losses[0]


@pytest.mark.parametrize("quick", [True, False])
def test_outputs_fitted_together_equal_those_fitted_alone_in_any_order(quick: bool) -> None:
    blocks, present = labels(60, 6, unknown=0.1)
    _, values = pictures(60, 6)
    groups = grouped(60, 7)
    for fit, truth in ((fit_per_label, present), (fit_values, values)):
        whole = fit(blocks, truth, groups, TWO, 0, quick)
        turned = fit(blocks, truth[:, [2, 0, 3, 1]], groups, TWO, 0, quick)
        assert np.allclose(turned.outputs(blocks), whole.outputs(blocks)[:, [2, 0, 3, 1]], rtol=1e-6, atol=1e-8)
        for k in range(4):
            alone = fit(blocks, truth[:, [k]], groups, TWO, 0, quick)
            assert np.allclose(alone.outputs(blocks)[:, 0], whole.outputs(blocks)[:, k], rtol=1e-6, atol=1e-8)
            assert np.allclose(alone.left_out[:, 0], whole.left_out[:, k], rtol=1e-6, atol=1e-8)


def test_values_in_another_unit_and_from_another_zero_give_the_same_answers() -> None:
    blocks, values = pictures(50, 8)
    unit, zero = np.array([1e-6, 1.0, 1e6, -3.0]), np.array([0.0, 1e3, -1e6, 5.0])
    one, other = (fit_values(blocks, v, np.arange(50), TWO) for v in (values, zero + unit * values))
    for a, b in ((one.outputs(blocks), other.outputs(blocks)), (one.left_out, other.left_out)):
        assert np.allclose(zero + unit * a, b, rtol=0, atol=1e-7 * np.abs(unit))


def test_a_constant_column_and_dead_features_are_answered_by_what_is_known() -> None:
    blocks, values = pictures(40, 9)
    values[:, 1] = 7.25
    assert np.abs(fit_values(blocks, values, np.arange(40), TWO).outputs(blocks)[:, 1] - 7.25).max() < 1e-9
    dead = {name: np.full(block.shape, 0.5) for name, block in blocks.items()}
    answers = fit_values(dead, values, np.arange(40), TWO).outputs(dead)
    assert np.allclose(answers, values.mean(axis=0), atol=1e-6)
    present = (np.arange(40) % 4 == 0).astype(np.int8)[:, None]
    odds = fit_per_label(dead, present, np.arange(40), TWO).outputs(dead)
    assert np.allclose(sigmoid(odds), 0.25, atol=0.03)


def test_left_out_answers_hold_for_new_images() -> None:
    """They are worth what answers for other images are; the answers for the images that taught are worth more."""
    blocks, values = pictures(1200, 10)
    train = slice(0, 100)
    probe = fit_values({k: b[train] for k, b in blocks.items()}, values[train], np.arange(100), ONE)
    new = {k: b[100:] for k, b in blocks.items()}
    errors = [
        ((a - t) ** 2).mean(axis=0) for a, t in ((probe.left_out, values[train]), (probe.outputs(new), values[100:]))
    ]
    assert (errors[0] / errors[1] > 0.7).all()
    assert (errors[0] / errors[1] < 1.4).all()


def test_log_odds_are_calibrated_for_new_images() -> None:
    blocks, present = labels(2300, 11)
    probe = fit_per_label({k: b[:300] for k, b in blocks.items()}, present[:300], np.arange(300), TWO)
    p, truth = sigmoid(probe.outputs({k: b[300:] for k, b in blocks.items()})), present[300:] == 1
    for low, high in ((0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1)):
        here = (p >= low) & (p < high)
        error = np.sqrt((p[here] * (1 - p[here])).sum()) / here.sum()
        assert here.sum() > 300
        assert abs(p[here].mean() - truth[here].mean()) < 4 * error + 0.02


def test_unknown_cells_teach_nothing() -> None:
    """A label learns as if the images where it is unknown were not there, and answers for them all the same."""
    blocks, present = labels(80, 12, unknown=0.3)
    groups = np.arange(80)
    probe = fit_per_label(blocks, present, groups, TWO)
    assert np.isfinite(probe.left_out).all()
    for k in range(4):
        known = present[:, k] >= 0
        part = {name: block[known] for name, block in blocks.items()}
        alone = fit_per_label(part, present[known][:, [k]], groups[known], TWO)
        assert np.allclose(alone.outputs(blocks)[:, 0], probe.outputs(blocks)[:, k], rtol=1e-6, atol=1e-8)
        assert np.allclose(probe.left_out[~known, k], probe.outputs(blocks)[~known, k], rtol=1e-6, atol=1e-8)
        assert np.allclose(alone.left_out[:, 0], probe.left_out[known, k], rtol=1e-6, atol=1e-8)


def test_a_label_of_one_group_is_not_learned_and_left_out_by_group() -> None:
    blocks, present = labels(30, 13)
    groups = np.arange(30) // 3
    present[:, 0], present[:3, 0] = 0, 1  # one group has it
    present[:, 1] = 1  # all have it
    present[:, 2] = -1  # nobody knows
    assert learnable(present, groups).tolist() == [False, False, False, True]
    probe = fit_per_label(blocks, present, groups, TWO)
    shares = sigmoid(probe.outputs(blocks))[:, :3]
    assert np.allclose(shares, [4 / 32, 31 / 32, 1 / 2])
    assert np.allclose(sigmoid(probe.left_out[:3, 0]), 1 / 29)  # without the three that have it
    assert np.allclose(sigmoid(probe.left_out[3:, 0]), 4 / 29)
    assert (best_thresholds(probe.left_out, present)[:3] == 0.5).all()


def test_platt_finds_the_line_that_made_the_labels_and_never_turns_it_round() -> None:
    rng = np.random.default_rng(15)
    s = rng.normal(size=40_000)
    positive = rng.random(40_000) < sigmoid(1.5 * s - 1)
    scale, offset, loss = platt(np.stack([s, 100 * s + 50, -s]), positive)
    assert np.allclose(scale[:2], [1.5, 0.015], rtol=0.05)
    assert np.allclose(offset[:2], [-1, -1.75], atol=0.06)
    assert np.isclose(loss[0], loss[1], rtol=1e-9)
    assert scale[2] == 0
    assert np.isclose(sigmoid(offset[2:])[0], positive.mean(), atol=1e-3)


def test_platt_is_finite_where_scores_separate_the_labels() -> None:
    scale, offset, _ = platt(np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([False, False, True, True]))
    assert np.allclose(sigmoid(np.array([offset[0], scale[0] + offset[0]])), [1 / 4, 3 / 4], atol=1e-3)


def test_thresholds_serve_new_images_better_than_a_half() -> None:
    rng = np.random.default_rng(16)
    gains = []
    for _ in range(40):
        odds = 1.5 * rng.normal(size=(2000, 3)) - [0, 1.5, 3]
        truth = rng.random(odds.shape) < sigmoid(odds)
        found = best_thresholds(odds[:60], truth[:60].astype(np.int8))
        gains.append([f1(odds[60:], truth[60:], t) for t in (found, np.full(3, 0.5))])
    chosen, half = np.mean(gains, axis=0)
    assert (chosen > half + 0.01).all()


def f1(odds: Any, truth: Any, thresholds: Any) -> Any:
    said = sigmoid(odds) >= thresholds
    return 2 * (said & truth).sum(axis=0) / (said.sum(axis=0) + truth.sum(axis=0))


def test_thresholds_pass_over_the_unknown_and_know_their_aims() -> None:
    odds, present = np.random.default_rng(17).normal(size=(50, 2)), labels(50, 17)[1][:, :2]
    more = np.concatenate([odds, odds + 5]), np.concatenate([present, np.full_like(present, -1)])
    assert np.array_equal(best_thresholds(*more), best_thresholds(odds, present))
    assert (best_thresholds(odds, present, "accuracy") == 0.5).all()
    with pytest.raises(OptionError, match="f1, accuracy"):
        best_thresholds(odds, present, "f2")


def test_intervals_hold_the_share_that_they_state() -> None:
    held = []
    for draw in range(50):
        blocks, values = pictures(400, 100 + draw)
        parts = [{k: b[rows] for k, b in blocks.items()} for rows in (slice(0, 80), slice(80, 400))]
        probe = fit_values(parts[0], values[:80], np.arange(80), ONE)
        wrong = np.abs(values[80:] - probe.outputs(parts[1]))
        held.append((wrong <= half_widths(values[:80] - probe.left_out)).mean())
    assert 0.88 < np.mean(held) < 0.92


def test_half_widths_are_order_statistics_and_infinite_where_images_are_too_few() -> None:
    residuals = np.random.default_rng(18).permutation(np.arange(-10.0, 10.0))[:, None]  # 10, 9, 9, ..., 1, 1, 0
    assert half_widths(residuals, 0.9)[0] == 9  # the 19th of 20 (18.9)
    assert half_widths(residuals[:9], 0.9)[0] == np.abs(residuals[:9]).max()  # the 9th of 9
    assert half_widths(residuals[:8], 0.9)[0] == np.inf
    assert half_widths(np.zeros((99, 2)), 0.99).tolist() == [0, 0]
    with pytest.raises(OptionError, match=r"coverage 90 "):
        half_widths(residuals, 90)


def test_a_group_counts_once_however_many_images_it_has() -> None:
    rng = np.random.default_rng(19)
    residuals, groups = rng.normal(size=(30, 2)), np.arange(30)
    copies = np.concatenate([np.arange(30), np.repeat(3, 500)])
    assert np.array_equal(half_widths(residuals[copies], 0.8, groups[copies]), half_widths(residuals, 0.8, groups))


def test_the_intervals_of_grouped_images_hold_for_new_groups() -> None:
    """Groups of unequal size whose images share most of their error: one image of a new group is covered."""
    rng, held = np.random.default_rng(20), []
    for _ in range(300):
        groups = np.repeat(np.arange(25), rng.geometric(0.3, 25) + np.where(np.arange(25) == 0, 200, 0))
        shared, new = rng.normal(size=25), rng.normal(size=200)
        wrong = shared[groups] + 0.3 * rng.normal(size=len(groups))
        width = half_widths(wrong[:, None], 0.8, groups)
        held.append((np.abs(new + 0.3 * rng.normal(size=200)) <= width).mean())
    assert 0.79 < np.mean(held) < 0.84


def test_values_are_read_from_the_lower_stages_too() -> None:
    blocks = ("s1/mean", "s1/std", "s2/mean", "s2/std", "s3/mean", "s3/std", "pre_logits")
    assert [part.block for part in lower(blocks).parts] == ["s1/mean", "s1/std", "s2/mean", "s2/std"]
    assert [found.name for found in value_sets("auto", blocks)] == ["last", "all", "lower"]
    assert [found.name for found in value_sets("all", blocks)] == ["all"]
    assert [found.name for found in value_sets("auto", ("pre_logits",))] == ["last", "all"]


def test_a_layer_that_several_tap_sets_read_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is smaller, and its answers are those of the average all the same."""
    rng = np.random.default_rng(3)
    blocks = {name: rng.normal(size=(50, 4)).astype(np.float32) for name in ("low", "high")}
    both = tuple(Part(name, root=False, unit=False) for name in blocks)
    sets = (TapSet("all", both), TapSet("lower", both[:1]))
    values = (blocks["low"].sum(axis=1) + 0.1 * rng.normal(size=50))[:, None].astype(np.float64)
    monkeypatch.setattr(outputs, "WORTH", 10.0)  # both are averaged
    merged = fit_values(blocks, values, np.arange(50), sets)
    assert merged.parts == both
    alone = [fit_values(blocks, values, np.arange(50), (one,)) for one in sets]
    assert np.allclose(merged.outputs(blocks), np.mean([head.outputs(blocks) for head in alone], axis=0))
