"""Linear heads with exact leave-one-out predictions from one decomposition.

All three follow the scikit-learn contract: the constructor only stores, `fit(X, y)` returns self, learned names end
in `_`. X is (image, feature), y (image,) holds class numbers 0..n_classes-1, `groups` (image,) ties images that
must be left out together (duplicates, one patient).

`Ridge`      least squares on one-hot targets with an L2 penalty; `ridge_path` and `ridge_weights` take any targets.
             Leave-one-out by e_S = (I - H)_SS^-1 (y - yhat)_S (Allen 1974; for blocks Rao, Toutenburg et al.), exact.
`ShrunkLDA`  Gaussian classes with one covariance S_w + l2 I. Leave-one-out by rank-one (groups: rank-k) changes of
             the class mean and of S_w (Sherman-Morrison-Woodbury), exact. S_w is itself a rank-C change of the total
             scatter, so that both heads share one decomposition.
`Logistic`   multinomial logistic regression, L-BFGS. No closed form exists: it has out-of-fold predictions instead.

Scores of `decision_function` sum to zero over the classes (a constant per image changes no probability).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from headstart.heads.lda import Forms, without_group, without_one
from headstart.heads.spectrum import CHUNK, Doubles, Floats, Spectrum, decompose

Ints = npt.NDArray[np.integer]
Rows = npt.NDArray[np.intp]
Real = TypeVar("Real", bound=np.floating[Any])


class Head(Protocol):
    """What the rest of headstart asks of a fitted head."""

    coef_: Doubles  # (class, feature)
    intercept_: Doubles  # (class,)

    def decision_function(self, X: Floats) -> Doubles: ...


def one_hot(y: Ints, n_classes: int) -> Doubles:
    """(image, class) of 0 and 1."""
    return np.eye(n_classes)[y]


def tied_places(groups: Ints) -> list[Rows]:
    """The places of each group of several images."""
    order = np.argsort(groups, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(groups[order])) + 1, len(order))
    sizes = np.diff(ends, prepend=0)
    return [order[ends[k] - sizes[k] : ends[k]] for k in np.flatnonzero(sizes > 1)]


def groups_among(rows: Rows, groups: Ints | None) -> Iterator[tuple[Rows, Rows]]:
    """(places in rows, members) of every group of several images with a row here; members start with those rows."""
    if groups is None or not len(groups):
        return
    place = np.full(len(groups), -1)
    place[rows] = np.arange(len(rows))
    for members in tied_places(groups):
        here = place[members] >= 0
        if here.any():
            yield place[members[here]], np.concatenate([members[here], members[~here]])


def linear_scores(X: Floats, coef: Doubles, intercept: Doubles) -> Doubles:
    """X coef' + intercept, (image, class), made in chunks so that a large float16 X is never widened whole."""
    out = np.empty((len(X), len(intercept)))
    for start in range(0, len(X), CHUNK):
        out[start : start + CHUNK] = X[start : start + CHUNK].astype(np.float64) @ coef.T + intercept
    return out


def row_by_row(X: npt.NDArray[Real], weights: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """X weights, (row, output), each row by a product of its own: the last digits of a row in a product of matrices
    depend on how many rows there are, and here a row is the same bits in any company."""
    return np.asarray(np.matmul(X[:, None, :], weights)[:, 0])


class Ridge:
    """One-hot least squares with penalty `l2` (in the units of X'X) and an unpenalised intercept.

    After `fit`: `coef_` (class, feature), `intercept_` (class,), `leave_one_out_` (image, class): the scores that a
    fit without the image (and its group) gives to that image.
    """

    def __init__(self, l2: float = 1.0) -> None:
        self.l2 = l2

    def fit(self, X: Floats, y: Ints, groups: Ints | None = None, spectrum: Spectrum | None = None) -> Self:
        spectrum = spectrum or decompose(X)
        targets = one_hot(y, int(y.max()) + 1)
        self.leave_one_out_ = ridge_left_out(spectrum, y, [self.l2], groups)[0]
        coef, intercept = ridge_weights(spectrum, targets, np.array([self.l2]))
        self.intercept_ = centred(intercept)
        self.coef_ = coef - coef.mean(axis=0)
        return self

    def decision_function(self, X: Floats) -> Doubles:
        return linear_scores(X, self.coef_, self.intercept_)


def ridge_left_out(
    spectrum: Spectrum, y: Ints, l2s: list[float], groups: Ints | None = None, rows: Rows | None = None
) -> Doubles:
    """Leave-one-out scores of ridge for classes y (image,), (penalty, row, class), as `ridge_path`."""
    scores = ridge_path(spectrum, one_hot(y, int(y.max()) + 1), l2s, groups, rows)
    return np.asarray(scores - scores.mean(axis=2, keepdims=True))


def ridge_weights(spectrum: Spectrum, targets: Doubles, l2: Doubles) -> tuple[Doubles, Doubles]:
    """(coef (output, feature), intercept (output,)) of ridge for targets (image, output). `l2`: a penalty for each
    output, or one for all."""
    share = np.sqrt(spectrum.values)[:, None] / (spectrum.values[:, None] + l2)  # (component, output)
    coef = spectrum.coefficients(share * spectrum.project(targets)).T
    return coef, targets.mean(axis=0) - coef @ spectrum.mean


def ridge_path(
    spectrum: Spectrum, targets: Doubles, l2s: list[float], groups: Ints | None = None, rows: Rows | None = None
) -> Doubles:
    """Leave-one-out answers of ridge for targets (image, output) of any kind: (penalty, row, output), for every
    penalty from one decomposition.

    `rows`: the images whose answers are wanted; all by default.
    """
    n = spectrum.n_images
    rows = np.arange(n) if rows is None else rows
    share = spectrum.values / (spectrum.values + np.asarray(l2s)[:, None])  # (penalty, component)
    projected = spectrum.project(targets)
    mean = targets.mean(axis=0)
    scores = np.empty((len(l2s), len(rows), targets.shape[1]))
    for here, leverage, fitted in spectrum.fits(l2s, projected, rows):
        wanted = targets[rows[here]]
        scores[:, here] = wanted - (wanted - mean - fitted) / (1 - 1 / n - leverage.T)[:, :, None]
    for places, members, u in _tied(spectrum, rows, groups):
        for k in range(len(l2s)):
            fitted = mean + u @ (share[k][:, None] * projected)
            kept = np.eye(len(members)) - 1 / n - (u * share[k]) @ u.T
            scores[k, places] = (targets[members] - np.linalg.solve(kept, targets[members] - fitted))[: len(places)]
    return scores


def ridge_left_out_of(
    spectrum: Spectrum, targets: Doubles, l2: Doubles, groups: Ints, X: Floats, X_groups: Ints
) -> Doubles:
    """Answers (row, output) for images X (row, feature) that did not teach, each by a fit without the images of its
    group that did. `l2`: a penalty for each output.

    With T the new rows and S the members of their group that taught: fitted_T - H_TS (I - H_SS)^-1 (y - fitted)_S.
    """
    answers = linear_scores(X, *ridge_weights(spectrum, targets, l2))
    share = spectrum.values[:, None] / (spectrum.values[:, None] + l2)  # (component, output)
    weights, n = share * spectrum.project(targets), spectrum.n_images
    tied = np.flatnonzero(np.isin(X_groups, groups))
    coordinates = spectrum.coordinates(X[tied])  # (tied row, component)
    for group in np.unique(X_groups[tied]):
        here, members = X_groups[tied] == group, np.flatnonzero(groups == group)
        new, ours, theirs = tied[here], spectrum.rows(members), coordinates[here]
        wrong = targets[members] - targets.mean(axis=0) - ours @ weights
        for k in range(targets.shape[1]):
            kept = np.eye(len(members)) - 1 / n - (ours * share[:, k]) @ ours.T
            across = 1 / n + (theirs * share[:, k]) @ ours.T
            answers[new, k] -= across @ np.linalg.solve(kept, wrong[:, k])
    return answers


def _tied(spectrum: Spectrum, rows: Rows, groups: Ints | None) -> Iterator[tuple[Rows, Rows, Doubles]]:
    """As `groups_among`, each with its members' rows of U, which are made for many groups at once."""
    waiting: list[tuple[Rows, Rows]] = []
    for places, members in [*groups_among(rows, groups), (rows[:0], rows[:0])]:
        waiting.append((places, members))
        if len(members) and sum(len(m) for _, m in waiting) < CHUNK:
            continue
        u = spectrum.rows(np.concatenate([m for _, m in waiting]))
        ends = np.cumsum([len(m) for _, m in waiting])
        for (where, which), end in zip(waiting, ends, strict=True):
            if len(which):
                yield where, which, u[end - len(which) : end]
        waiting = []


class ShrunkLDA:
    """Linear discriminant analysis with within-class scatter S_w + `l2` I (Friedman 1989; Hastie et al., ESL 4.3).

    Score of class k: -(n - C)/2 (x - mean_k)' (S_w + l2 I)^-1 (x - mean_k) + log prior_k, made to sum to zero.
    After `fit`: `coef_`, `intercept_`, `leave_one_out_` as in `Ridge`.
    """

    def __init__(self, l2: float = 1.0) -> None:
        self.l2 = l2

    def fit(self, X: Floats, y: Ints, groups: Ints | None = None, spectrum: Spectrum | None = None) -> Self:
        spectrum = spectrum or decompose(X)
        self.leave_one_out_ = lda_left_out(spectrum, y, [self.l2], groups)[0]
        counts = np.bincount(y)
        projected = spectrum.project(one_hot(y, len(counts))) / counts
        share = np.sqrt(spectrum.values) / (spectrum.values + self.l2)
        forms = Forms.of(projected.T @ ((np.sqrt(spectrum.values) * share)[:, None] * projected), counts)
        precise_means = spectrum.coefficients(share[:, None] * projected)  # (feature, class)
        coef = (precise_means @ (np.eye(len(counts)) + forms.inner @ forms.mean_total)).T
        freedom = max(len(y) - len(counts), 1)
        intercept = -coef @ spectrum.mean - forms.mean_mean.diagonal() / 2
        self.coef_ = freedom * (coef - coef.mean(axis=0))
        self.intercept_ = centred(freedom * intercept + np.log(counts / len(y)))
        return self

    def decision_function(self, X: Floats) -> Doubles:
        return linear_scores(X, self.coef_, self.intercept_)


def lda_left_out(
    spectrum: Spectrum, y: Ints, l2s: list[float], groups: Ints | None = None, rows: Rows | None = None
) -> Doubles:
    """Leave-one-out scores of shrunk LDA, (penalty, row, class), as `ridge_left_out`.

    A class that vanishes with the image keeps its old mean and half a count: no refit could know it.
    """
    counts = np.bincount(y)
    n_classes = len(counts)
    rows = np.arange(len(y)) if rows is None else rows
    projected = spectrum.project(one_hot(y, n_classes)) / counts
    share = spectrum.values / (spectrum.values + np.asarray(l2s)[:, None])  # (penalty, component)
    forms = [Forms.of(projected.T @ (one[:, None] * projected), counts) for one in share]
    scores = np.empty((len(l2s), len(rows), n_classes))
    for here, leverage, total in spectrum.fits(l2s, projected, rows):
        for k, form in enumerate(forms):
            scores[k, here] = without_one(form, leverage[:, k], total[k], y[rows[here]], counts)
    for places, members, u in _tied(spectrum, rows, groups):
        for k, form in enumerate(forms):
            hat, total_means = (u * share[k]) @ u.T, u @ (share[k][:, None] * projected)
            scores[k, places] = without_group(form, hat, total_means, y[members], counts)[: len(places)]
    return np.asarray(scores - scores.mean(axis=2, keepdims=True))


class Logistic:
    """Multinomial logistic regression: mean log-loss + `l2` / (2 n) |coef|^2, intercept unpenalised, by L-BFGS.

    `start` (coef, intercept): where the search begins. `tol`: the largest gradient at its end. After `fit`: `coef_`,
    `intercept_`, `n_iter_`.
    """

    def __init__(
        self, l2: float = 1.0, max_iter: int = 100, start: tuple[Doubles, Doubles] | None = None, tol: float = 1e-4
    ) -> None:
        self.l2 = l2
        self.tol = tol
        self.max_iter = max_iter
        self.start = start

    def fit(self, X: Floats, y: Ints, n_classes: int | None = None) -> Self:
        from scipy.optimize import minimize

        n, d = X.shape
        c = n_classes or int(y.max()) + 1
        targets = one_hot(y, c)
        start = np.zeros((c, d + 1))
        if self.start is not None:
            start[:, :d], start[:, d] = self.start

        def loss(flat: Doubles) -> tuple[float, Doubles]:
            weights = flat.reshape(c, d + 1)
            inner, p = weights[:, :d], X @ weights[:, :d].T + weights[:, d]  # p (image, class): logits, then shares
            p -= p.max(axis=1, keepdims=True)
            wanted = np.vdot(p, targets)
            np.exp(p, out=p)
            total = p.sum(axis=1, keepdims=True)
            value = (np.log(total).sum() - wanted) / n + self.l2 / (2 * n) * (inner**2).sum()
            p /= total
            p -= targets
            gradient = np.empty_like(weights)
            gradient[:, :d] = (p.T @ X + self.l2 * inner) / n
            gradient[:, d] = p.sum(axis=0) / n
            return float(value), gradient.ravel()

        options = {"maxiter": self.max_iter, "gtol": self.tol, "ftol": 0.0}
        found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        weights = found.x.reshape(c, d + 1)
        weights = weights - weights.mean(axis=0)
        self.coef_, self.intercept_, self.n_iter_ = weights[:, :d], weights[:, d], int(found.nit)
        return self

    def decision_function(self, X: Floats) -> Doubles:
        return linear_scores(X, self.coef_, self.intercept_)


def centred(values: Doubles) -> Doubles:
    return np.asarray(values - values.mean())
