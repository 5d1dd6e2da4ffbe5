"""Shrunk LDA in inner products: what it asks of images, whoever made them (a decomposition, or a fold's hat matrix).

With T = S_t + l2 I the total scatter and its penalty, M the class means (centred on the grand mean) and S_w the
within-class scatter, A = (S_w + l2 I)^-1 = T^-1 + T^-1 M inner M' T^-1: a rank-C change. Leaving images out changes S_w
and the means by a rank as small (Sherman, Morrison and Woodbury).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Forms:
    """Inner products between class means under A, and what makes them of the total scatter's."""

    inner: Doubles  # (class, class)
    mean_total: Doubles  # (class, class) M' T^-1 M
    mean_mean: Doubles  # (class, class) M' A M

    @staticmethod
    def of(mean_total: Doubles, counts: Ints) -> Forms:
        """From M' T^-1 M and the images of each class."""
        root = np.sqrt(counts)
        small = np.eye(len(counts)) - root[:, None] * mean_total * root
        inner = np.asarray(root[:, None] * np.linalg.inv(small) * root, np.float64)
        return Forms(inner, mean_total, mean_total + mean_total @ inner @ mean_total)

    def with_means(self, total: Doubles) -> Doubles:
        """x' A M (row, class), from x' T^-1 M."""
        return np.asarray(total + total @ self.inner @ self.mean_total)


def without_one(form: Forms, leverage: Doubles, x_total: Doubles, y: Ints, counts: Ints) -> Doubles:
    """Scores (row, class) of each row by a fit without that row, from x' T^-1 x (row,) and x' T^-1 M (row, class)."""
    i = np.arange(len(y))
    x_mean = form.with_means(x_total)
    x_x = leverage + ((x_total @ form.inner) * x_total).sum(axis=1)
    mean_mean = form.mean_mean
    square = x_x[:, None] - 2 * x_mean + mean_mean.diagonal()  # (x - m_k)' A (x - m_k)
    own = square[i, y]
    cross = (x_x - x_mean[i, y])[:, None] - x_mean + mean_mean[:, y].T  # (x - m_k)' A (x - m_y)
    weight = counts[y] / np.maximum(counts[y] - 1, 1)
    left = np.maximum(1 - weight * own, 1e-12)
    square = square + (weight / left)[:, None] * cross**2
    square[i, y] = weight**2 * own / left
    return _gaussian_scores(square, _counts_without(counts, y[:, None]), int(counts.sum()) - 1)


def without_group(form: Forms, hat: Doubles, x_total: Doubles, y: Ints, counts: Ints) -> Doubles:
    """Scores (row, class) of the rows of one group by a fit without the whole group, from x' T^-1 x (row, row) and
    x' T^-1 M (row, class).

    Every vector is written in the basis (group rows, class means), whose inner products under A are `gram`.
    """
    m, n_classes = len(y), len(counts)
    x_mean = form.with_means(x_total)
    gram = np.block([[hat + x_total @ form.inner @ x_total.T, x_mean], [x_mean.T, form.mean_mean]])
    basis = np.eye(m + n_classes)
    deviations = basis[:m] - basis[m + y]
    means, downdates = basis[m:].copy(), [deviations]
    for k in np.unique(y):
        left = counts[k] - (y == k).sum()
        if left:
            total = deviations[y == k].sum(axis=0)
            means[k] -= total / left
            downdates.append(total[None] / np.sqrt(left))
    removed = np.concatenate(downdates)
    across = removed @ gram
    changed = gram + across.T @ np.linalg.solve(np.eye(len(removed)) - across @ removed.T, across)
    apart = basis[:m, None, :] - means[None]  # (row, class, basis)
    square = np.einsum("rkb,bc,rkc->rk", apart, changed, apart, optimize=True)
    return _gaussian_scores(square, _counts_without(counts, np.tile(y, (m, 1))), int(counts.sum()) - m)


def _counts_without(counts: Ints, gone: Ints) -> Doubles:
    """Images per class (row, class) once those in gone (row, left out) lose one image each; at least half a one."""
    left = np.tile(counts.astype(np.float64), (len(gone), 1))
    np.subtract.at(left, (np.arange(len(gone))[:, None], gone), 1)
    return np.maximum(left, 0.5)


def _gaussian_scores(square: Doubles, counts: Doubles, n: int) -> Doubles:
    freedom = max(n - counts.shape[1], 1)
    return np.asarray(-freedom / 2 * square + np.log(counts / n))


def scores_of(form: Forms, x_total: Doubles, counts: Ints) -> Doubles:
    """Scores (row, class) of images that did not teach, from x' T^-1 M (row, class); they sum to zero."""
    freedom = max(int(counts.sum()) - len(counts), 1)
    scores = freedom * (form.with_means(x_total) - form.mean_mean.diagonal() / 2) + np.log(counts / counts.sum())
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))
