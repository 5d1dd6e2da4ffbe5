"""What is learned from features: preparation, calibration, the choice of heads, the plan, the evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import recipe
from headstart.data.table import table_of
from headstart.data.targets import ClassNumbers, class_numbers
from headstart.errors import DataError, OptionError
from headstart.heads.calibrate import best_scale, calibrate, log_loss, log_softmax
from headstart.heads.material import Material
from headstart.heads.probe import fit_probe
from headstart.heads.taps import Part, plain, tap_sets, with_late
from headstart.story import evidence
from headstart.story.folds import fitter
from headstart.story.opening import Options, sized
from headstart.story.pipeline import learn
from headstart.story.plan import make_plan
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import closed_form
from headstart.trunk.backbone import open_backbone

BLOCKS = ("a/mean", "a/std", "pre_logits")


def material(n: int, n_classes: int = 3, seed: int = 0, signal: float = 1.5, y: Any = None) -> Material:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes if y is None else y
    blocks = {}
    for name, width in zip(BLOCKS, (6, 6, 20), strict=True):
        centres = np.random.default_rng(99).normal(size=(n_classes, width))
        blocks[name] = np.abs(signal * centres[y] + rng.normal(size=(n, width))).astype(np.float16)
    keys = tuple(f"{k:08x}" for k in rng.permutation(n))
    return Material(blocks, ClassNumbers(y, tuple("abcdefgh"[:n_classes])), np.arange(n), keys, 0)


def probe_of(m: Material, taps: str = "auto", heads: tuple[str, ...] = ("ridge", "lda", "logistic")) -> Any:
    return fit_probe(m.blocks, class_numbers(m.targets), m.groups, tap_sets(taps, BLOCKS), heads)


def no_bar(stage: str, total: int) -> Any:
    return lambda done: None


@pytest.mark.parametrize("part", [Part("x", r, u) for r in (False, True) for u in (False, True)])
def test_preparation_looks_at_one_image_at_a_time(part: Part) -> None:
    x = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float16)
    assert np.array_equal(part.of(x)[4:6], part.of(x[4:6]))
    assert not part.of(np.zeros((2, 5))).any()


def test_unknown_taps_are_refused_with_the_allowed_ones() -> None:
    with pytest.raises(OptionError, match=r"'lats'.*auto, last, all"):
        tap_sets("lats", BLOCKS)


def test_calibration_recovers_a_known_scale_and_corrects_rare_classes() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(20_000, 3))
    truth = log_softmax(4 * scores + np.array([1.0, 0.0, -1.0]))
    y = np.array([rng.choice(3, p=np.exp(row)) for row in truth])
    scale, offsets = calibrate(scores, y)
    assert scale == pytest.approx(4, rel=0.05)
    assert offsets == pytest.approx([1, 0, -1], abs=0.1)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("signal", [-3.0, 0.0, 0.5, 3.0, 50.0])
def test_no_scale_has_a_lower_log_loss_than_the_best(size: float, signal: float) -> None:
    """Scores that tell nothing, or the opposite, and scores that are always right have their best at an end."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, 40)
    scores = size * (rng.normal(size=(40, 4)) + signal * np.eye(4)[y])
    scale, loss = best_scale(scores, y)
    tried = np.exp(np.linspace(-7, 7, 2001)) / scores.std()
    assert loss == pytest.approx(log_loss(scale * scores, y, 1 / 42), abs=1e-12)
    assert loss <= min(log_loss(one * scores, y, 1 / 42) for one in tried) + 5e-6


def test_eighteen_of_eighteen_is_not_certainty() -> None:
    """All right: the likeliest scale is infinite. The answer stays about as sure as 18 images can make it, 19/20."""
    y = np.arange(18) % 2
    scores = np.eye(2)[y]
    scale, offsets = calibrate(scores, y)
    sure = np.exp(log_softmax(scale * scores + offsets)).max(axis=1).mean()
    assert 0.93 < sure < 0.99


def test_calibration_never_raises_the_log_loss_of_its_own_images() -> None:
    rng = np.random.default_rng(2)
    scores, y = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    scale, offsets = calibrate(scores, y)
    assert log_loss(scale * scores + offsets, y) <= min(log_loss(scores, y), np.log(4)) + 1e-3


def test_the_merged_head_is_the_average_of_its_members() -> None:
    m = material(90, signal=0.7)
    whole = probe_of(m)
    used = [c for c in whole.candidates if c.weight]
    assert len(used) > 1
    assert sum(c.weight for c in used) == pytest.approx(1)
    by_name = {t.name: (t,) for t in tap_sets("auto", BLOCKS)}
    alone = [
        fit_probe(m.blocks, class_numbers(m.targets), m.groups, by_name[c.taps], (c.head,)).outputs(m.blocks)
        for c in used
    ]
    average = sum(c.weight * one for c, one in zip(used, alone, strict=True))
    merged = whole.outputs(m.blocks)
    assert np.exp(merged).sum(axis=1) == pytest.approx(np.ones(90))
    ours, theirs = (x - x.mean(axis=1, keepdims=True) for x in (merged, average))
    scale = (ours * theirs).sum() / (theirs**2).sum()  # the merged head is calibrated once more
    assert ours == pytest.approx(scale * theirs, abs=1e-6)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    m = material(90)
    probe = probe_of(m)
    whole = probe.outputs(m.blocks)
    assert probe.outputs(m.at(np.array([7]))) == pytest.approx(whole[[7]], abs=1e-9)


def test_plain_taps_read_the_pre_logits_unprepared() -> None:
    m = material(90)
    probe = probe_of(m, "last")
    by_hand = m.blocks["pre_logits"].astype(np.float64) @ probe.coef.T + probe.intercept
    assert probe.parts == plain().parts
    assert probe.outputs(m.blocks) == pytest.approx(log_softmax(by_hand), abs=1e-6)


def test_only_heads_near_the_best_are_averaged() -> None:
    m = material(90, signal=0.7)
    candidates = probe_of(m).candidates
    losses = [c.log_loss for c in candidates]
    assert losses == sorted(losses)
    assert all((c.weight > 0) == (c.log_loss <= 1.1 * losses[0]) for c in candidates)
    assert len({c.weight for c in candidates if c.weight}) == 1


STAGES = ("one/mean", "one/std", "two/mean", "two/std", "pre_logits")


def at_places(holds: bool) -> tuple[dict[str, Any], Any, Any]:
    """(features, classes, places) of 240 images. The early stage tells the classes perfectly: by a rule that is the
    same at each place, or turned round from place to place. The late ones tell them with noise."""
    rng = np.random.default_rng(3)
    y, place = np.arange(240) % 2, np.arange(240) // 40
    sign, where = np.where(y == 1, 1.0, -1.0)[:, None], np.eye(6)[place]
    told = sign * np.ones(6) if holds else sign * np.where(place % 2, 3.0, -3.0)[:, None] * where
    early = np.hstack([told, where]) + rng.normal(size=(240, 12)) * 0.05
    late = 0.6 * sign + rng.normal(size=(240, 8))
    blocks = {"one/mean": early, "one/std": early, "two/mean": late, "two/std": late, "pre_logits": np.abs(late + 4)}
    return blocks, y, place


@pytest.mark.parametrize("holds", [True, False])
def test_early_stages_count_where_they_hold_at_places_left_out(holds: bool) -> None:
    """The defect: what tells classes at the places that teach, and not at another, decides, since single images left
    out cannot show it."""
    blocks, y, place = at_places(holds)
    sets = with_late(tap_sets("auto", STAGES), STAGES)
    assert [one.name for one in sets] == ["last", "all", "late"]
    early = [c for c in fit_probe(blocks, y, place, sets, ("ridge", "lda")).candidates if c.taps == "all"]
    assert any(c.weight for c in early) is holds
    apart = fit_probe(blocks, y, np.arange(240), sets, ("ridge", "lda")).candidates
    assert any(c.weight for c in apart if c.taps == "all")  # images alone do not show it


def test_a_head_reads_each_part_once_where_late_and_all_stages_are_averaged() -> None:
    """A saved model lists its parts, and none twice. The head is still the mean of its members."""
    y, rng = np.arange(240) % 2, np.random.default_rng(1)
    told = {"one": 0.12, "two": 0.45}
    blocks = {n: (y[:, None] * 2.0 - 1) * told[n[:3]] + rng.normal(size=(240, 4)) for n in STAGES[:-1]}
    blocks["pre_logits"] = np.abs(blocks["two/mean"] + 4)
    sets = {one.name: one for one in with_late(tap_sets("auto", STAGES), STAGES)}
    head = fit_probe(blocks, y, np.arange(240), (sets["all"], sets["late"]), ("ridge",))
    weights = {c.taps: c.weight for c in head.candidates}
    assert min(weights.values()) > 0
    assert sorted(map(str, head.parts)) == sorted(
        {str(part) for one in sets.values() for part in one.parts if not part.root}
    )
    each = [fit_probe(blocks, y, np.arange(240), (sets[name],), ("ridge",)) for name in weights]
    scores = [np.hstack([part.of(blocks[part.block]) for part in one.parts]) @ one.coef.T for one in (head, *each)]
    mean = sum(w * found for w, found in zip(weights.values(), scores[1:], strict=True))
    assert np.corrcoef(scores[0][:, 1] - scores[0][:, 0], mean[:, 1] - mean[:, 0])[0, 1] == pytest.approx(1, abs=1e-6)


def test_late_stages_are_tried_beside_all_only_where_both_are_asked_for() -> None:
    for taps in ("last", "all", "late"):
        sets = tap_sets(taps, STAGES)
        assert with_late(sets, STAGES) == sets
    alone = tap_sets("auto", ("pre_logits",))
    assert with_late(alone, ("pre_logits",)) == alone  # late is last there


def test_the_users_groups_reach_the_choice_of_stages(tmp_path: Path) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8))
    table = table_of(pictures, ["a", "b"] * 12)
    options = Options(backbone="test_efficientnet", weights="none", size=32, cache=str(tmp_path))
    tried = []
    for groups in (table.groups, np.array([f"site {k // 4}" for k in range(24)], dtype=object)):
        learned = learn(replace(table, groups=groups), options)
        tried.append({candidate.taps for candidate in learned.head.candidates})
    assert tried == [{"last", "all"}, {"last", "all", "late"}]


def test_duplicates_do_not_flatter_left_out_predictions() -> None:
    """Every image twice, labels at random: left out together the pairs are at chance, alone they look learned."""
    rng = np.random.default_rng(4)
    blocks = {"pre_logits": np.repeat(rng.normal(size=(60, 300)), 2, axis=0)}
    y = np.repeat(np.arange(60) % 2, 2)
    sets = tap_sets("last", ("pre_logits",))
    tied = fit_probe(blocks, y, np.repeat(np.arange(60), 2), sets, ("ridge",)).candidates[0].accuracy
    apart = fit_probe(blocks, y, np.arange(120), sets, ("ridge",)).candidates[0].accuracy
    assert tied < 0.7 < 0.9 < apart


def relabelled(m: Material, y: Any) -> Material:
    return replace(m, targets=ClassNumbers(y, m.targets.names))


def plan_of(m: Material, split: str = "none") -> Any:
    return make_plan(np.full(len(m), split, dtype=object), m.targets.strata, m.groups, m.keys, 0)


def test_a_fold_never_sees_its_own_labels() -> None:
    """The labels of the judged rows change nothing in the predictions for them."""
    m = material(90)
    rows, judged = np.arange(60), np.arange(60, 90)
    changed = relabelled(m, np.where(np.arange(90) < 60, class_numbers(m.targets), 0))
    sets = tap_sets("auto", BLOCKS)
    ours, theirs = (fitter(CLASSIFICATION, x, sets)(rows)(judged) for x in (m, changed))
    assert np.array_equal(ours, theirs)


def test_precomputed_products_change_nothing() -> None:
    m = material(25)  # fewer images than features: the dual
    rows, judged = np.arange(20), np.arange(20, 25)
    sets = tap_sets("auto", BLOCKS)
    part = m.part(rows)
    direct = fit_probe(part.blocks, class_numbers(part.targets), part.groups, sets, recipe.heads(20, 3))
    quick = fitter(CLASSIFICATION, m, sets)(rows)(judged)
    assert quick == pytest.approx(np.exp(direct.outputs(m.at(judged))), abs=1e-6)


@pytest.mark.parametrize(
    ("splits", "source"),
    [
        (["train", "validation"], "validation folder"),
        (["train", "test"], "test folder"),
        (["train", "validation", "test"], "test folder"),
        (["none"], "cross-validation"),
    ],
)
def test_the_users_own_split_is_kept(splits: list[str], source: str) -> None:
    m = material(60)
    given = np.array([splits[k // 3 % len(splits)] for k in range(60)], dtype=object)
    plan = make_plan(given, m.targets.strata, m.groups, m.keys, 0)
    assert plan.source == source
    assert set(given[plan.train]) == {splits[0]}
    if plan.judge is not None:
        assert set(given[plan.judge]) == {"test" if "test" in splits else "validation"}


def test_many_images_are_held_out_and_never_learned() -> None:
    m = material(recipe.SMALL + 1)
    plan = plan_of(m)
    assert plan.source == "test split"
    assert plan.judge is not None
    assert not set(plan.train) & set(plan.judge)
    assert len(plan.judge) == pytest.approx(0.2 * len(m), abs=len(m.targets.names))


def test_a_class_with_one_image_is_named() -> None:
    m = material(30)
    y = np.array([2] + [0, 1] * 14 + [0])
    lonely = relabelled(m, y)
    with pytest.raises(DataError, match="class 'c' has a single training image"):
        CLASSIFICATION.check(lonely.targets, plan_of(lonely).train)


def judged_by(m: Material, plan: Any) -> Any:
    """The verdict on headstart's own model of these images."""
    sets = tap_sets("auto", BLOCKS)
    head = closed_form(CLASSIFICATION, m, plan.train, sets)
    return evidence.judge(m, plan, head, evidence.Method(CLASSIFICATION, sets), no_bar)


@pytest.mark.parametrize(
    ("taught", "judged", "measure", "value"),
    [((30, 40, 35), (12, 8, 20), "accuracy", 0.2), ((8, 80, 40), (12, 8, 20), "balanced_accuracy", 1 / 3)],
)
def test_the_most_frequent_class_is_that_of_the_training_images_and_is_paired_on_the_judged_ones(
    taught: tuple[int, ...], judged: tuple[int, ...], measure: str, value: float
) -> None:
    """The judged images have another most frequent one, and the model is right for a part of them."""
    y = np.concatenate([np.repeat(np.arange(3), counts) for counts in (taught, judged)])
    m = material(len(y), signal=0.9, y=y)
    given = np.repeat(np.array(["train", "test"], dtype=object), [sum(taught), sum(judged)])
    plan = make_plan(given, y, m.groups, m.keys, 0)
    verdict = judged_by(m, plan)
    frequent = evidence.constant(CLASSIFICATION, m, plan, verdict)
    assert (frequent.n, frequent.measure) == (40, measure)
    assert frequent.scores["accuracy"]["value"] == pytest.approx(0.2)
    assert frequent.scores[measure]["value"] == pytest.approx(value)
    truth = y[sum(taught) :]
    right = verdict.marks["right"] == 1
    assert 0.45 < right.mean() < 0.9
    each = [right[truth == c].mean() for c in range(3)]
    gain = (right.mean() if measure == "accuracy" else np.mean(each)) - value
    assert frequent.difference["difference"]["value"] == pytest.approx(gain)
    assert frequent.difference["difference"]["low"] < gain < frequent.difference["difference"]["high"]
    if measure == "accuracy":
        assert frequent.difference["only_first_right"] == (right & (truth != 1)).sum()
        assert frequent.difference["only_second_right"] == (~right & (truth == 1)).sum() > 0


def test_shuffled_labels_give_chance_and_are_not_shown_to_beat_the_most_frequent_class() -> None:
    m = material(90)
    shuffled = relabelled(m, np.random.default_rng(5).permutation(class_numbers(m.targets)))
    plans = plan_of(m), plan_of(shuffled)
    honest, chance = (judged_by(one, plan) for one, plan in zip((m, shuffled), plans, strict=True))
    assert chance.score["accuracy"]["low"] <= 1 / 3 <= chance.score["accuracy"]["high"]
    assert honest.score["accuracy"]["low"] > 0.8
    beaten, level = (
        evidence.constant(CLASSIFICATION, one, plan, verdict).difference["difference"]["low"]
        for one, plan, verdict in zip((m, shuffled), plans, (honest, chance), strict=True)
    )
    assert level < 0 < beaten


def test_the_random_baseline_is_compared_on_equal_terms() -> None:
    """With the model's own features in place of random ones the difference is nothing, however few rows are drawn, and
    however often both are wrong; with others it is that of the two scores, and the rival stays as it was."""
    m = material(120, signal=0.7)
    plan = plan_of(m)
    drawn = evidence.draw_for_baseline(CLASSIFICATION, m, plan)
    same = evidence.random_weights(CLASSIFICATION, m, plan, drawn, m.at(drawn))
    assert 0.4 < same.scores["accuracy"]["value"] < 0.9
    assert same.scores == same.rival
    assert [same.difference[f"only_{one}_right"] for one in ("first", "second")] == [0, 0]
    rng = np.random.default_rng(0)
    noise = {name: rng.normal(size=block.shape) for name, block in m.at(drawn).items()}
    other = evidence.random_weights(CLASSIFICATION, m, plan, drawn, noise)
    assert other.rival == same.rival
    gap = same.scores["accuracy"]["value"] - other.scores["accuracy"]["value"]
    assert other.difference["difference"]["value"] == pytest.approx(gap)
    assert gap > 0.05


@pytest.mark.parametrize(("common", "rare"), [(2000, 60), (4000, 20), (100, 4)])
def test_the_random_baseline_sees_enough_of_a_rare_class_and_counts_it_as_the_others(common: int, rare: int) -> None:
    y = np.repeat([0, 1], [common, rare])
    rng = np.random.default_rng(0)
    blocks = {name: (rng.normal(size=(len(y), 8)) + 3 * y[:, None]).astype(np.float16) for name in BLOCKS}
    keys = tuple(f"{k:08x}" for k in rng.permutation(len(y)))
    m = Material(blocks, ClassNumbers(y, ("sand", "sea")), np.arange(len(y)), keys, 0)
    plan = make_plan(np.full(len(y), "none", dtype=object), y, m.groups, m.keys, 0, may_hold_out=False)
    drawn = evidence.draw_for_baseline(CLASSIFICATION, m, plan)
    assert (y[drawn] == 1).sum() == min(rare, len(drawn) // 2)
    noise = {name: rng.normal(size=(len(drawn), 8)).astype(np.float16) for name in BLOCKS}
    found = evidence.random_weights(CLASSIFICATION, m, plan, drawn, noise)
    assert found.measure == "balanced_accuracy"
    assert found.rival[found.measure]["value"] > 0.9
    assert found.scores[found.measure]["value"] < 0.65
    if rare >= 20:
        assert found.difference["difference"]["low"] > 0


def test_a_baseline_of_many_small_classes_leaves_none_with_a_single_image() -> None:
    """Cross-validation of a class with one image, or with copies of one, cannot be."""
    y = np.arange(4000) % 500
    groups = np.where(
        np.arange(4000) < 1000, np.arange(4000) % 500, np.arange(4000)
    )  # two copies of each class's first
    rng = np.random.default_rng(1)
    keys = tuple(f"{k:08x}" for k in rng.permutation(4000))
    m = Material({}, ClassNumbers(y, tuple(map(str, range(500)))), groups, keys, 0)
    plan = make_plan(np.full(4000, "none", dtype=object), y, groups, m.keys, 0, may_hold_out=False)
    drawn = evidence.draw_for_baseline(CLASSIFICATION, m, plan)
    assert min(len(set(groups[drawn[y[drawn] == c]])) for c in range(500)) >= 2


def test_more_images_give_a_better_curve() -> None:
    m = material(240, signal=0.8)
    plan = plan_of(m)
    sets = tap_sets("auto", BLOCKS)
    points = evidence.curve(
        m, plan, closed_form(CLASSIFICATION, m, plan.train, sets), evidence.Method(CLASSIFICATION, sets)
    )
    sizes = [p["n"] for p in points]
    assert sizes == sorted(set(sizes))
    assert len(sizes) >= 4
    assert points[-1]["accuracy"]["value"] > points[0]["accuracy"]["value"] + 0.05


@pytest.mark.parametrize(("short", "n", "side"), [(8, 1797, 192), (32, 50_000, 160), (64, 3000, 160), (375, 398, 320)])
def test_the_input_size_follows_the_pictures(short: int, n: int, side: int) -> None:
    assert recipe.input_side(short, 224, n)[0] == side


def test_the_images_that_teach_decide_the_input_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test set of another size, or a large one, changes nothing: the model would be another one."""
    monkeypatch.setattr(recipe, "SMALL", 4)
    taught = table_of([np.zeros((32, 32, 3), np.uint8)] * 4, list("abab"))
    both = table_of(
        [np.zeros((32, 32, 3), np.uint8)] * 4 + [np.zeros((300, 300, 3), np.uint8)] * 9, list("ab" * 6 + "a")
    )
    judged = replace(both, splits=np.array(["train"] * 4 + ["test"] * 9, dtype=object))
    backbone = open_backbone("test_efficientnet", "none")
    sizes = [sized(backbone, table, Options()).preprocess.size for table in (taught, judged, both)]
    assert sizes[0] == sizes[1] != sizes[2]
    assert sized(backbone, judged.take(judged.splits == "test"), Options()).preprocess.size == sizes[2]


def test_the_input_size_never_falls_as_pictures_grow() -> None:
    sides = [recipe.input_side(short, 224, 30_000)[0] for short in range(8, 600)]
    assert sides == sorted(sides)
