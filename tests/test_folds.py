"""The heads of a fold by formula: as fitted from its images alone, choices included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.data.targets import UNKNOWN, ClassNumbers, LabelSets, Targets, Values
from headstart.heads.material import Material
from headstart.heads.probe import Probe
from headstart.heads.taps import Part, TapSet
from headstart.story.folds import fitter, refitter
from headstart.tasks.classification import CLASSIFICATION
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


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("widths", [NARROW, WIDE])
@pytest.mark.parametrize("case", CASES)
def test_a_fold_by_formula_is_a_fold_fitted_anew(case: str, widths: tuple[int, int], quick: bool) -> None:
    """Answers, left-out answers, penalties and weights, however many images are held."""
    task, targets, groups = CASES[case]
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
        assert np.abs(ours - theirs).max() < 1e-6 * np.abs(theirs).max()
        assert np.abs(one.left_out - other.left_out).max() < 1e-6 * max(1, np.abs(other.left_out).max())
        key = [[(c.taps, c.head, c.l2, c.weight) for c in probe.candidates] for probe in (one, other)]
        assert key[0] == key[1]
    assert len(seen) >= 2
