"""How far probabilities may be off by chance alone, and how many mistakes remain where only sure answers are given."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.judge.class_marks import ECE_BINS, calibration_bins

SIMULATED = 200  # judged sets of a model that is right exactly as often as it says
POINTS = 20  # of the curve


class Chance(TypedDict):
    """The expected calibration error, without correction, of a perfectly calibrated model that is asked for as many
    images with the same probabilities: its `mean`, and what it is below in 95 of 100 sets (`high`)."""

    mean: float
    high: float


class RiskPoint(TypedDict):
    """Where the surest share `answered` of the images is answered, all at least as sure as `least`, the share `error`
    of the answers is wrong."""

    answered: float
    error: float
    least: float


def ece_by_chance(sure: NDArray[Any], seed: int = 0) -> Chance:
    """From the stated probabilities (image,): answers are drawn right as often as they say."""
    bins, rng = calibration_bins(sure), np.random.default_rng(seed)
    gap = sure - (rng.random((SIMULATED, len(sure))) < sure)  # (set, image)
    sums = gap @ np.eye(ECE_BINS)[bins]
    found = np.abs(sums).sum(axis=1) / len(sure)
    return {"mean": float(found.mean()), "high": float(np.quantile(found, 0.95))}


def risk_coverage(sure: NDArray[Any], wrong: NDArray[np.bool_]) -> list[RiskPoint]:
    """From few, sure answers to all (Geifman and El-Yaniv 2017), of sure (image,) and wrong (image,). Equally sure ones
    are answered together."""
    order = np.argsort(-sure, kind="stable")
    s, errors = sure[order], np.cumsum(wrong[order])
    ends = np.append(np.flatnonzero(s[1:] < s[:-1]), len(s) - 1)  # the last of each that are equally sure
    wanted = np.ceil(np.arange(1, POINTS + 1) / POINTS * len(s)) - 1
    places = np.unique(ends[np.searchsorted(ends, wanted)])
    return [
        {"answered": float((k + 1) / len(s)), "error": float(errors[k] / (k + 1)), "least": float(s[k])} for k in places
    ]
