"""Leave-one-out by formula equals leave-one-out by refitting, for every head that claims it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.heads.closed import Logistic, Ridge, ShrunkLDA, lda_left_out, ridge_left_out
from headstart.heads.spectrum import decompose


def blobs(n: int, d: int, n_classes: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.repeat(np.arange(n_classes), 2), rng.integers(0, n_classes, n - 2 * n_classes)])
    return rng.normal(size=(n_classes, d))[y] + 2 * rng.normal(size=(n, d)) + 3, y


def refitted(head: type, l2: float, X: Any, y: Any, out: Any) -> Any:
    kept = np.setdiff1d(np.arange(len(y)), out)
    return head(l2).fit(X[kept], y[kept]).decision_function(X[out])


def relative(a: Any, b: Any) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


SHAPES = [(40, 12, 3), (30, 90, 4), (25, 25, 2)]  # primal, dual, square


@pytest.mark.parametrize("head", [Ridge, ShrunkLDA])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("l2", [0.3, 30.0, 3000.0])
def test_leave_one_out_equals_refitting(head: type, shape: tuple[int, int, int], l2: float) -> None:
    X, y = blobs(*shape, seed=1)
    formula = head(l2).fit(X, y).leave_one_out_
    for i in range(len(y)):
        assert relative(formula[[i]], refitted(head, l2, X, y, [i])) < 1e-6


@pytest.mark.parametrize("head", [Ridge, ShrunkLDA])
@pytest.mark.parametrize("shape", SHAPES)
def test_groups_are_left_out_together(head: type, shape: tuple[int, int, int]) -> None:
    X, y = blobs(*shape, seed=2)
    groups = np.random.default_rng(3).integers(0, len(y) // 2, len(y))  # groups that span classes
    formula = head(10.0).fit(X, y, groups=groups).leave_one_out_
    parts = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    refitting = [out for out in parts if set(y) == set(np.delete(y, out))]  # without the others a class is gone
    assert sum(len(out) > 1 for out in refitting) >= 5
    for out in refitting:
        assert relative(formula[out], refitted(head, 10.0, X, y, out)) < 1e-6


@pytest.mark.parametrize("head", [Ridge, ShrunkLDA])
def test_a_group_with_all_of_a_class_gives_finite_scores(head: type) -> None:
    X, y = blobs(30, 8, 3, seed=4)
    groups = np.where(y == 0, 0, np.arange(30) + 1)
    assert np.isfinite(head(1.0).fit(X, y, groups=groups).leave_one_out_).all()


@pytest.mark.parametrize("left_out", [ridge_left_out, lda_left_out])
def test_every_penalty_of_a_path_equals_its_own_fit(left_out: Any) -> None:
    X, y = blobs(40, 60, 3, seed=5)
    path = left_out(decompose(X), y, [0.1, 10.0, 1000.0])
    for k, l2 in enumerate([0.1, 10.0, 1000.0]):
        assert relative(path[k], left_out(decompose(X), y, [l2])[0]) < 1e-9


@pytest.mark.parametrize("head", [Ridge, ShrunkLDA])
def test_primal_and_dual_are_one_model(head: type) -> None:
    X, y = blobs(40, 39, 3, seed=6)
    wide = np.concatenate([X, np.zeros((40, 20))], axis=1)  # the same geometry, solved in the dual
    narrow, dual = head(5.0).fit(X, y), head(5.0).fit(wide, y)
    assert relative(narrow.decision_function(X), dual.decision_function(wide)) < 1e-8
    assert relative(narrow.leave_one_out_, dual.leave_one_out_) < 1e-8


def test_ridge_equals_scikit_learn() -> None:
    from sklearn.linear_model import Ridge as Reference

    X, y = blobs(50, 20, 3, seed=7)
    theirs = Reference(alpha=7.0).fit(X, np.eye(3)[y]).predict(X)
    assert relative(Ridge(7.0).fit(X, y).decision_function(X), theirs - theirs.mean(axis=1, keepdims=True)) < 1e-9


def test_lda_equals_a_direct_solution() -> None:
    X, y = blobs(60, 10, 3, seed=8)
    means = np.stack([X[y == k].mean(axis=0) for k in range(3)])
    precision = np.linalg.inv((X - means[y]).T @ (X - means[y]) + 4 * np.eye(10))
    apart = X[:, None] - means
    direct = -(60 - 3) / 2 * np.einsum("nkd,de,nke->nk", apart, precision, apart) + np.log(np.bincount(y) / 60)
    ours = ShrunkLDA(4.0).fit(X, y).decision_function(X)
    assert relative(ours, direct - direct.mean(axis=1, keepdims=True)) < 1e-9


def test_logistic_equals_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    X, y = blobs(80, 6, 3, seed=9)
    theirs = LogisticRegression(C=1 / 5, tol=1e-10, max_iter=5000).fit(X, y).predict_proba(X)
    logits = Logistic(l2=5.0, max_iter=2000, tol=1e-8).fit(X, y).decision_function(X)
    ours = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_features_that_say_nothing_give_the_share_of_each_class(shape: tuple[int, int]) -> None:
    """A dead network, in the dual and in the primal: every image is alike, so only the classes' shares are left."""
    x = np.full(shape, 0.5, np.float32)
    y = np.array([0] * 3 + [1] * (shape[0] - 3))
    for head in (Ridge(1.0), ShrunkLDA(1.0)):
        scores = head.fit(x, y).decision_function(x)
        assert np.isfinite(scores).all()
        assert np.isfinite(head.leave_one_out_).all()
        assert (scores.argmax(axis=1) == 1).all()
