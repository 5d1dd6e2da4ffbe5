"""NCE, LEEP and LogME: numbers that are meant to say, without a head, how well a network suits a set of images.

They are shown as diagnostics and choose nothing. On published benchmarks of 10 to 28 networks they rank no better than
the networks' accuracy on ImageNet (methods.md 3.3), and what was measured here is in docs/measurements.md, ranking.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
STEPS = 11  # of LogME's fixed point, as its authors have it
SETTLED = 1e-3  # relative change of alpha / beta


def nce(source: npt.NDArray[np.floating], y: Ints) -> float:
    """Negative conditional entropy -H(Y|Z), in nats, Z the network's own answer (Tran, Nguyen and Hassner 2019).

    source (image, source class): logits or probabilities of the network's own top; y (image,) class numbers.
    """
    z = source.argmax(axis=1)
    _, z = np.unique(z, return_inverse=True)
    joint = np.zeros((int(z.max()) + 1, int(y.max()) + 1))
    np.add.at(joint, (z, y), 1 / len(y))
    given = joint / joint.sum(axis=1, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(given[seen])).sum())


def leep(logits: npt.NDArray[np.floating], y: Ints) -> float:
    """Mean log-likelihood of the classes by way of the network's own answers (Nguyen et al. 2020).

    logits (image, source class) of the network's own top; y (image,) class numbers.
    """
    x = logits.astype(np.float64)
    theta = np.exp(x - x.max(axis=1, keepdims=True))
    theta /= theta.sum(axis=1, keepdims=True)
    joint = np.zeros((int(y.max()) + 1, theta.shape[1]))
    np.add.at(joint, y, theta / len(y))
    given = joint / np.maximum(joint.sum(axis=0), np.finfo(np.float64).tiny)  # (class, source class)
    return float(np.log((theta * given[y]).sum(axis=1)).mean())


def logme(features: npt.NDArray[np.floating], y: Ints) -> float:
    """Log evidence an image of a Bayesian linear model, the mean over the classes (You et al. 2021, algorithm 1).

    features (image, feature) of the last layer; y (image,) class numbers.
    """
    x = features.astype(np.float64)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    squares, width = s * s, x.shape[1]
    return float(np.mean([_evidence(u, squares, width, (y == k).astype(np.float64)) for k in np.unique(y)]))


def _evidence(
    u: npt.NDArray[np.float64], squares: npt.NDArray[np.float64], width: int, t: npt.NDArray[np.float64]
) -> float:
    """Of one class: t (image,) is 1 where it is, u (image, component) and squared singular values (component,)."""
    n, z = len(t), (u.T @ t) ** 2
    outside = max(float(t @ t - z.sum()), 0.0)  # of what no feature reaches
    alpha = beta = 1.0
    for _ in range(STEPS):
        ratio = alpha / beta
        gamma = float((squares / (squares + ratio)).sum())
        length = float((squares * z / (ratio + squares) ** 2).sum())
        error = float((z / (1 + squares / ratio) ** 2).sum()) + outside
        alpha = gamma / max(length, 1e-12)
        beta = max(n - gamma, 1e-12) / max(error, 1e-12)
        if abs(alpha / beta - ratio) <= SETTLED * ratio:
            break
    logs = float(np.log(alpha + beta * squares).sum()) + (width - len(squares)) * np.log(alpha)
    whole = width * np.log(alpha) + n * np.log(beta) - logs - beta * error - alpha * length - n * np.log(2 * np.pi)
    return float(whole) / (2 * n)
