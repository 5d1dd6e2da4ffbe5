"""The heads of a fold by formula: as fitted from its images alone, choices included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart import recipe
from headstart.data.targets import UNKNOWN, ClassNumbers, LabelSets, Targets, Values
from headstart.heads import spectrum
from headstart.heads.folds import least
from headstart.heads.material import Material
from headstart.heads.probe import Candidate, Probe
from headstart.heads.taps import Part, TapSet
from headstart.heads.without import Asked, Whole, _Few, _Most, _Narrow
from headstart.judge.class_marks import class_marks, mean_marks
from headstart.judge.crossing import cross_validate, learning_curve
from headstart.story import evidence
from headstart.story.folds import fitter, refitter
from headstart.story.plan import make_plan
from headstart.tasks.classification import ACCURACY, CLASSIFICATION
from headstart.tasks.multilabel import MULTILABEL
from headstart.tasks.regression import REGRESSION

SETS = (TapSet("one", (Part("a", True, True),)), TapSet("both", (Part("a", False, True), Part("b", False, True))))
GROUPED = np.random.default_rng(0).integers(0, 70, 90)  # copies, patients
NARROW, WIDE = (9, 14), (60, 110)  # features: fewer than images, and more


def material(targets: Targets, widths: tuple[int, int], groups: Any = None, seed: int = 0) -> Material:
    """Features that tell the truth, in noise."""
    n, rng = len(targets), np.random.default_rng(seed)
    truth = targets.strata if targets.strata.ndim == 1 else targets.matrix()
    seen = np.eye(int(truth.max()) + 1)[truth] if targets.strata.ndim == 1 else np.nan_to_num(truth)
    blocks = {
        name: (rng.normal(size=(n, width)) + 0.8 * seen @ rng.normal(size=(seen.shape[1], width))).astype(np.float32)
        for name, width in zip("ab", widths, strict=True)
    }
    groups = np.arange(n) if groups is None else groups
    return Material(blocks, targets, groups, tuple(f"{k:04x}" for k in range(n)), 0)


def classes(y: Any) -> ClassNumbers:
    return ClassNumbers(np.asarray(y), tuple("abcdef"[: int(np.max(y)) + 1]))


def values(n: int) -> Values:
    x = np.random.default_rng(5).normal(size=(n, 2))
    return Values(x * [3.0, 0.01] + [100.0, 0.0], ("mass", "share"))


def labels(n: int, unknown: float) -> LabelSets:
    rng = np.random.default_rng(6)
    present = (rng.random((n, 3)) < [0.5, 0.2, 0.3]).astype(np.int8)
    present[rng.random((n, 3)) < unknown * np.array([1, 1, 0])] = UNKNOWN
    return LabelSets(present, ("x", "y", "z"))


CASES = {
    "balanced": (CLASSIFICATION, classes(np.arange(90) % 3), None),
    "one in ten": (CLASSIFICATION, classes((np.arange(90) % 11 == 0).astype(int)), None),
    "groups": (CLASSIFICATION, classes(np.arange(90) % 3), GROUPED),
    "a class in two groups": (CLASSIFICATION, classes(np.where(np.arange(90) < 3, 2, np.arange(90) % 2)), None),
    "many classes": (CLASSIFICATION, classes(np.arange(90) % 6), GROUPED),
    "values": (REGRESSION, values(90), GROUPED),
    "labels": (MULTILABEL, labels(90, 0.0), GROUPED),
    "labels, some unknown": (MULTILABEL, labels(90, 0.2), GROUPED),
}


@pytest.mark.parametrize("widths", [NARROW, WIDE])
@pytest.mark.parametrize(("case", "quick"), [*((case, False) for case in CASES), ("groups", True), ("values", True)])
def test_a_fold_by_formula_is_a_fold_fitted_anew(
    case: str, widths: tuple[int, int], quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers, left-out answers, penalties and weights, however many images are held."""
    task, targets, groups = CASES[case]
    if case != "balanced":
        without_logistic(monkeypatch)
    m = material(targets, widths, groups)
    seen: list[Probe] = []

    def solve(*given: Any, **more: Any) -> Any:
        seen.append(task.solve(*given, **more))
        return seen[-1]

    spied = replace(task, solve=solve)
    quickly, anew = fitter(spied, m, SETS, quick), refitter(spied, m, SETS, quick)
    order = np.random.default_rng(1).permutation(90)
    for held in (order[:18], order[:40], order[:72]):
        held = np.flatnonzero(np.isin(m.groups, m.groups[held]))
        rows = np.setdiff1d(np.arange(90), held)
        if len(rows) < 12 or (task is CLASSIFICATION and set(targets.strata) != set(targets.strata[rows])):
            continue  # no fold lacks a class
        ours, theirs = (fit(rows)(held[::2]) for fit in (quickly, anew))
        one, other = seen[-2:]
        # LDA that knows its images by heart (few of them, the weakest penalty) has few digits by either way
        close = 1e-2 if any(c.head == "lda" and c.l2 < 1e-4 for c in other.candidates) else 1e-6
        assert np.abs(ours - theirs).max() < close * np.abs(theirs).max()
        assert np.abs(one.left_out - other.left_out).max() < close * max(1, np.abs(other.left_out).max())
        assert [told(c) for c in one.candidates] == [told(c) for c in other.candidates]
    assert len(seen) >= 2


def without_logistic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "heads", lambda n_images, n_classes: ("ridge", "lda"))


def told(candidate: Candidate) -> tuple[str, str, float, float]:
    return candidate.taps, candidate.head, candidate.l2, candidate.weight


@pytest.mark.parametrize("way", [_Narrow, _Few, _Most, None])
@pytest.mark.parametrize("shape", [(40, 10), (40, 70)])
@pytest.mark.parametrize("l2", [0.01, 100.0])
def test_every_way_is_the_hat_matrix_of_the_rows(way: Any, shape: tuple[int, int], l2: float) -> None:
    """Each for itself, and from the matrix that folds share."""
    rng = np.random.default_rng(2)
    x, truth, tied = rng.normal(size=shape) + 1, rng.normal(size=(40, 2)), [np.array([0, 3, 4])]
    whole = Whole(x)
    taught = whole.without(np.array([2, 3, 11, 30]))
    z = x[taught.rows] - x[taught.rows].mean(axis=0)
    assert taught.scale == pytest.approx(float((z**2).sum() / 36), rel=0.03)
    inner = np.linalg.inv(z.T @ z + l2 * np.eye(shape[1]))
    rest = np.eye(36) - 1 / 36 - z @ inner @ z.T
    targets = truth[taught.rows]
    ahead = targets.mean(axis=0) + (x[taught.held] - x[taught.rows].mean(axis=0)) @ inner @ z.T @ targets
    if way is None:
        whole.prepare([Asked(taught, targets, tied)], [l2 / taught.scale], 1)
        found = whole.ready(taught.held, taught.scale * (l2 / taught.scale), targets, tied)
        assert found is not None
        assert whole.ready(taught.held, taught.scale * (l2 / taught.scale), 2 * targets, tied) is None
    else:
        found = way.of(taught).kept(l2, targets, tied)
    for ours, theirs in (
        (found.diagonal, rest.diagonal()),
        (found.residuals, rest @ targets),
        (found.blocks[0], rest[np.ix_(tied[0], tied[0])]),
        (found.held, ahead),
    ):
        assert np.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def test_what_is_prepared_for_all_folds_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """More images than are tried with every penalty; the folds of three repeats."""
    without_logistic(monkeypatch)
    monkeypatch.setattr(spectrum, "ROUNDED", 100)
    m = material(classes(np.arange(240) % 3), (20, 300), np.maximum(np.arange(240), 5))
    plan = make_plan(np.full(240, "none", dtype=object), m.targets.strata, m.groups, m.keys, 0)
    method = evidence.Method(CLASSIFICATION, SETS)
    shared = evidence.shared_of(m, plan, method)
    assert shared is not None
    head = evidence.final_head(m, plan, method, no_bar, shared)
    found = evidence.judge(m, plan, head, method, no_bar, shared)
    anew = cross_validate(
        refitter(CLASSIFICATION, m, SETS),
        evidence.judged_of(m),
        lambda rows, p: class_marks(m.targets.strata[rows], p),
        *recipe.cross_validation(240),
    )
    assert np.abs(found.answers - anew.answers).max() < 1e-6
    assert shared.of(SETS[1])._ready


def test_the_curve_ends_where_a_refit_of_the_folds_does(monkeypatch: pytest.MonkeyPatch) -> None:
    without_logistic(monkeypatch)
    m = material(classes(np.arange(240) % 3), (20, 300))
    plan = make_plan(np.full(240, "none", dtype=object), m.targets.strata, m.groups, m.keys, 0)
    method = evidence.Method(CLASSIFICATION, SETS)
    shared = evidence.shared_of(m, plan, method)
    head = evidence.final_head(m, plan, method, no_bar, shared)
    evidence.judge(m, plan, head, method, no_bar, shared)
    best = max(head.candidates, key=lambda c: c.weight).taps
    (chosen,) = (tap_set for tap_set in SETS if tap_set.name == best)
    judged = evidence.judged_of(m)
    anew = learning_curve(
        refitter(CLASSIFICATION, m, (chosen,), quick=True),
        judged,
        lambda rows, p: class_marks(m.targets.strata[rows], p),
        ACCURACY,
        mean_marks,
        draws=1,
    )
    assert evidence.curve(m, plan, head, method, shared) == anew


@pytest.mark.parametrize("start", [(0,), (7,), (14,), range(1, 15, 3)])
def test_downhill_ends_in_the_one_valley(start: Any) -> None:
    bottoms = np.array([0, 3, 9, 14])
    asked: list[int] = []

    def loss(k: int) -> Any:
        asked.append(k)
        return np.abs(k - bottoms) + 0.0

    assert (least(loss, 15, start) == bottoms).all()
    assert len(asked) == len(set(asked))


def no_bar(stage: str, total: int) -> Any:
    return lambda done: None
