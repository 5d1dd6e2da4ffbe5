"""How well odd pictures are told from good ones, and how often good ones raise an alarm.

AUROC and average precision are those of `two_classes`, of scores; shares have Wilson's interval. What bad pictures are
needed for is not defined where there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.judge.crossing import Measure
from headstart.judge.intervals import Gain, accuracy_interval, interval, units_of
from headstart.judge.marks import Interval, Marks, Score, ends
from headstart.judge.summaries import UNDEFINED
from headstart.judge.two_classes import Table, auroc, average_precision, roc

BINS = 24  # of the drawn scores
Groups = NDArray[np.integer[Any]] | None


def marks_of(kind: NDArray[np.int64], score: NDArray[np.float64], order: NDArray[np.float64] | None = None) -> Marks:
    """kind (image,): 0 of a good picture; score (image,): 1 is the threshold; order (image,): what pictures are ranked
    by, where the scores are of several models and each has a threshold of its own. `odd`: what is answered; `right`."""
    odd = score >= 1
    ranked = score if order is None else order
    return Marks({"kind": kind, "score": score, "order": ranked, "odd": odd, "right": odd == (kind > 0)})


def _both(marks: Marks) -> bool:
    bad = marks["kind"] > 0
    return bool(bad.any() and not bad.all())


def _auroc(marks: Marks, groups: Groups = None) -> Interval:
    if not _both(marks):
        return UNDEFINED
    return auroc(marks["kind"] > 0, marks["order"], units_of(len(marks), groups))[0]


def _value(marks: Marks) -> float:
    found = _auroc(marks)["value"]
    return float("nan") if found is None else found


def _gain(one: Marks, other: Marks, groups: Groups = None) -> Gain:
    """Paired: the influences of the two differ image by image (DeLong et al. 1988)."""
    if not _both(one):
        return {"n": 0, "difference": UNDEFINED}
    from scipy.special import stdtrit

    units, bad = units_of(len(one), groups), one["kind"] > 0
    (first, mine), (second, theirs) = (auroc(bad, marks["order"], units) for marks in (one, other))
    value, sums = ends(first)[0] - ends(second)[0], np.bincount(units, weights=mine - theirs)
    m = len(sums)
    half = float(stdtrit(max(m - 1, 1), 0.975)) * float(np.sqrt((sums**2).sum() * m / max(m - 1, 1)))
    return {"n": len(one), "difference": interval(value, max(-1.0, value - half), min(1.0, value + half))}


AUROC = Measure("auroc", _value, _auroc, _gain, percent=False)


def _false_alarms(marks: Marks, groups: Groups = None) -> Interval:
    good = marks["kind"] == 0
    return _share(marks["odd"][good], None if groups is None else groups[good])


def _share(hit: NDArray[np.bool_], groups: Groups) -> Interval:
    if not len(hit):
        return UNDEFINED
    found = accuracy_interval(hit, groups)
    return {"value": found["value"], "low": found["low"], "high": found["high"]}


def _alarms_value(marks: Marks) -> float:
    return float(marks["odd"][marks["kind"] == 0].mean())


def _alarms_gain(one: Marks, other: Marks, groups: Groups = None) -> Gain:
    return {"n": 0, "difference": UNDEFINED}


FALSE_ALARMS = Measure("false_alarms", _alarms_value, _false_alarms, _alarms_gain, higher_is_better=False)


def score_of(
    marks: Marks, names: Sequence[str], groups: Groups, rate: float | None = None, folds: int | None = None
) -> Score:
    """`auroc`, `average_precision`, `found` (of the odd ones) and `false_alarms` (of the good ones), the first that is
    defined first; `kinds`: a row a kind of oddity; `roc`; `scores`: how many of which lie where. rate: of false alarms,
    as asked."""
    bad, both = marks["kind"] > 0, _both(marks)
    found: dict[str, Interval] = {}
    if both:
        units = units_of(len(marks), groups)
        found |= {"auroc": _auroc(marks, groups)}
        found |= {"average_precision": average_precision(bad, marks["order"], units)}
    if bad.any():
        found["found"] = _share(marks["odd"][bad], None if groups is None else groups[bad])
    if not bad.all():
        found["false_alarms"] = _false_alarms(marks, groups)
    tables: Table = {"asked": rate, "good": int((~bad).sum()), "odd": int(bad.sum())}
    tables |= {"kinds": _kinds(marks, names, groups), "scores": _scores(marks)}
    tables["roc"] = roc(bad, marks["order"]) if both else []
    return Score(len(marks), found, tables, folds, None if folds is None else 1)


def _kinds(marks: Marks, names: Sequence[str], groups: Groups) -> list[Table]:
    """Each kind of oddity against all good pictures."""
    rows = []
    for k in np.unique(marks["kind"][marks["kind"] > 0]):
        here = (marks["kind"] == k) | (marks["kind"] == 0)
        some, units = marks.take(here), None if groups is None else groups[here]
        hit = some["odd"][some["kind"] > 0]
        share = _share(hit, None if units is None else units[some["kind"] > 0])
        rows.append({"kind": names[k], "n": len(hit), "auroc": _auroc(some, units), "found": share})
    return sorted(rows, key=lambda row: (row["found"]["value"], row["kind"]))


def _scores(marks: Marks) -> Table:
    """How many pictures lie in which bin of the logarithm of the score; the threshold is the end of a bin."""
    logs, bad = np.log(marks["score"]), marks["kind"] > 0
    low, high = min(float(logs.min()), -1e-3), max(float(logs.max()), 1e-3)
    low, high = max(low, -4.0), min(high, 4.0)
    below = max(1, min(BINS - 1, round(BINS * -low / (high - low))))
    edges = np.concatenate([np.linspace(low, 0, below + 1), np.linspace(0, high, BINS - below + 1)[1:]])
    inside = np.clip(logs, low, high)
    inside = np.where((logs < 0) & (inside >= 0), edges[below - 1], inside)
    counts = {name: np.histogram(inside[side], edges)[0].tolist() for name, side in (("good", ~bad), ("odd", bad))}
    return {"edges": np.exp(edges).tolist(), **counts}
