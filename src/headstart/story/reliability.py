"""How the stated probabilities of a classifier held on the judged images: see `judge/reliability.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart import report
from headstart.judge.reliability import ece_by_chance, risk_coverage

if TYPE_CHECKING:
    from headstart.story.pipeline import Fitted

BINS = 10  # of the reliability diagram


def _answers(fitted: Fitted) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
    """(stated probability (image,), whether the answer is right (image,)); None for a task that states none."""
    marks = fitted.verdict.marks
    return (marks["sure"], marks["answer"] == marks["truth"]) if "sure" in marks.columns else None


def bins(fitted: Fitted) -> tuple[report.ReliabilityBin, ...]:
    """Bins of equal numbers of answers by their probability."""
    found = _answers(fitted)
    if found is None:
        return ()
    sure, right = found
    parts = [k for k in np.array_split(np.argsort(sure, kind="stable"), BINS) if len(k)]
    return tuple(report.ReliabilityBin(float(sure[k].mean()), float(right[k].mean()), len(k)) for k in parts)


def by_chance(fitted: Fitted) -> tuple[float, float] | None:
    """(mean, 95th percentile) of the calibration error that chance makes."""
    found = _answers(fitted)
    if found is None:
        return None
    chance = ece_by_chance(found[0], fitted.options.seed)
    return chance["mean"], chance["high"]


def risk(fitted: Fitted) -> tuple[report.RiskPoint, ...]:
    """From few, sure answers to all."""
    found = _answers(fitted)
    points = [] if found is None else risk_coverage(found[0], ~found[1])
    return tuple(report.RiskPoint(p["answered"], p["error"]) for p in points)


def unlike(fitted: Fitted) -> report.Unlike | None:
    """How images unlike all that taught are known."""
    n = fitted.novelty
    return None if n is None else report.Unlike(n.rate, n.n, n.told_apart[n.method])


def told(fitted: Fitted, sure: report.Confidence | None, data: report.ReportData) -> report.ReportData:
    """What the page says, with how far its probabilities can be relied on."""
    return replace(
        data,
        reliability=bins(fitted),
        ece_by_chance=by_chance(fitted),
        risk=risk(fitted),
        unlike=unlike(fitted),
        confidence=sure,
    )


def to_json(fitted: Fitted) -> dict[str, Any] | None:
    """As metrics.json has it; None for a task that states no probabilities."""
    found = _answers(fitted)
    if found is None:
        return None
    sure, right = found
    drawn = [{"probability": b.confidence, "right": b.accuracy, "n": b.n} for b in bins(fitted)]
    chance = ece_by_chance(sure, fitted.options.seed)
    return {"bins": drawn, "ece_by_chance": chance, "risk_coverage": risk_coverage(sure, ~right)}
