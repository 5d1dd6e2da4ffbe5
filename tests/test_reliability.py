"""What chance makes of a calibration error, and what remains wrong where only sure answers are given."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.judge.reliability import ece_by_chance, risk_coverage
from headstart.report import RiskPoint, Unlike, figures
from headstart.report.classes import calibration_sentences, risk_sentences, unlike_sentences


def test_a_calibrated_model_lies_below_the_95th_percentile_as_often() -> None:
    """By the ECE that the judge states, drawn apart from the simulation."""
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 300)
    chance = ece_by_chance(sure)
    order = np.array_split(np.argsort(sure, kind="stable"), 15)
    found = []
    for _ in range(400):
        gap = sure - (rng.uniform(size=300) < sure)
        found.append(sum(abs(gap[k].sum()) for k in order) / 300)
    assert np.mean(found) == pytest.approx(chance["mean"], rel=0.1)
    assert 0.01 < np.mean(np.array(found) > chance["high"]) < 0.12
    assert ece_by_chance(np.tile(sure, 16))["mean"] == pytest.approx(chance["mean"] / 4, rel=0.15)


def test_the_curve_counts_what_is_wrong_among_the_surest() -> None:
    rng = np.random.default_rng(1)
    sure = np.round(rng.uniform(0.3, 1, 200), 2)  # with ties
    wrong = rng.uniform(size=200) > sure
    points = risk_coverage(sure, wrong)
    assert points[-1]["answered"] == 1
    assert points[-1]["error"] == pytest.approx(wrong.mean())
    for point in points:
        given = sure >= point["least"]
        assert (point["answered"], point["error"]) == (pytest.approx(given.mean()), pytest.approx(wrong[given].mean()))
    shares = [p["answered"] for p in points]
    assert shares == sorted(set(shares))
    assert len(risk_coverage(np.ones(50), wrong[:50])) == 1


def test_the_page_says_it() -> None:
    estimate = {"value": 0.03, "low": 0.02, "high": 0.04}
    for high, said in ((0.05, "no more than chance"), (0.02, "more than chance")):
        assert any(said in text for text in calibration_sentences({"ece_plain": estimate}, None, (0.01, high)))
    points = [RiskPoint(0.25, 0.0), RiskPoint(0.5, 0.02), RiskPoint(1.0, 0.1)]
    (said,) = risk_sentences(points)
    assert "10" in said
    assert "50" in said
    assert risk_sentences(points[2:]) == []
    assert "polyline" in figures.risk(points)
    assert figures.risk(points[:1]) == ""
    assert "5 % of new images" in unlike_sentences(Unlike(0.05, 100, 0.8))[0]
    assert unlike_sentences(None) == []
