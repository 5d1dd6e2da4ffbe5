"""Which class each pixel has: marks of answered masks, and the scores that they give, each with a 95 % interval.

- `miou`: the mean over classes of the intersection over union of all images' pixels together (Everingham et al. 2015);
  a class that neither the truth nor the answer has does not count.
- `pixel_accuracy`: the share of pixels answered rightly.
- `boundary_f1`: the mean over classes of the F1 of boundary pixels, again of all images together: a pixel of one
  boundary is found where the other passes within TOLERANCE of the image's diagonal (Csurka et al. 2013).

Pixels whose truth is void count nowhere, and where a class ends at void is no boundary.

An interval is at least as wide as the one that the images' own shares give, so that faultless answers are not certain
of perfection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.data.placing import VOID
from headstart.errors import DataError, OptionError
from headstart.judge.intervals import interval, units_of, wider
from headstart.judge.marks import Array, Interval, Marks, Score, Summary
from headstart.judge.summaries import UNDEFINED, estimate, percentile_ends, resampled, share_ends

TOLERANCE = 0.0075  # of the diagonal: that of BSDS (Martin et al. 2004) and DAVIS (Perazzi et al. 2016)

Masks = NDArray[np.integer[Any]]
Units = NDArray[np.int64]
MATCHED, ANSWERED, FOUND, TRUE = range(4)  # of the last axis of `boundary`


class SegmentRow(TypedDict):
    """What is said of one class: `n` images have it, on the share `pixels` of all that is known."""

    label: str
    n: int
    pixels: float
    iou: Interval
    precision: float | None
    recall: float | None
    boundary_f1: float | None


def segment_marks(pairs: Iterable[tuple[Masks, Masks]], n_classes: int) -> Marks:
    """What is judged of (truth, answer) masks of class numbers, (height, width) each, VOID in the truth.

    Columns: confusion (image, truth, answer), pixels; boundary (image, class, 4), pixels: answered ones that are near
    a true one, all answered, true ones that are near an answered one, all true. Raises DataError without images,
    OptionError where two masks do not fit or a number is no class.
    """
    found = [(_confusion(*_checked(*pair, n_classes), n_classes), _boundary(*pair, n_classes)) for pair in pairs]
    if not found:
        raise DataError("score: no images to judge")
    confusion, boundary = (np.stack(part) for part in zip(*found, strict=True))
    return Marks({"confusion": confusion, "boundary": boundary})


def _checked(truth: Masks, answer: Masks, n_classes: int) -> tuple[Masks, Masks]:
    if truth.ndim != 2 or truth.shape != answer.shape:
        raise OptionError(f"score: an answer of {answer.shape} px for a mask of {truth.shape}, (height, width)")
    for name, mask in (("truth", truth[truth != VOID]), ("answer", answer)):
        if mask.size and not (mask.min() >= 0 and mask.max() < n_classes):
            raise OptionError(f"score: the {name} holds {mask.min()} to {mask.max()}, classes are 0 to {n_classes - 1}")
    return truth, answer


def _confusion(truth: Masks, answer: Masks, n_classes: int) -> NDArray[np.int64]:
    """(truth, answer): how many pixels."""
    known = truth != VOID
    cells = truth[known].astype(np.int64) * n_classes + answer[known]
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _boundary(truth: Masks, answer: Masks, n_classes: int) -> NDArray[np.int64]:
    """(class, 4): see `segment_marks`."""
    known, reach = truth != VOID, TOLERANCE * float(np.hypot(*truth.shape))
    edges = [_edges(mask, known) for mask in (answer, truth)]
    counts = np.zeros((n_classes, 4), np.int64)
    for k in np.unique(np.concatenate([truth[edges[1]], answer[edges[0]]])):
        mine, theirs = (np.argwhere(edge & (mask == k)) for edge, mask in zip(edges, (answer, truth), strict=True))
        counts[k] = _near(mine, theirs, reach), len(mine), _near(theirs, mine, reach), len(theirs)
    return counts


def _edges(mask: Masks, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(height, width): the pixel has a neighbour, of four, of another class that is known too."""
    found = np.zeros(mask.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (mask[one] != mask[other]) & known[one] & known[other]
        found[one] |= differ
        found[other] |= differ
    return found


def _near(points: NDArray[np.intp], others: NDArray[np.intp], reach: float) -> int:
    """How many of the points (point, 2) have one of the others within reach, px."""
    from scipy.spatial import cKDTree

    if not len(points) or not len(others):
        return 0
    away, _ = cKDTree(others).query(points, distance_upper_bound=reach + 1e-9)
    return int(np.isfinite(away).sum())


def ious(marks: Marks, weights: Array) -> Array:
    """(resample, class) intersection over union; nan where neither truth nor answer has the class."""
    cells = marks["confusion"]
    both = weights @ np.diagonal(cells, axis1=1, axis2=2)
    either = weights @ (cells.sum(axis=1) + cells.sum(axis=2)) - both
    return _share(both, either)


def boundary_f1s(marks: Marks, weights: Array) -> Array:
    """(resample, class) F1 of the boundaries; nan where there are none."""
    matched, answered, found, true = (weights @ marks["boundary"][:, :, k] for k in (MATCHED, ANSWERED, FOUND, TRUE))
    precision, recall = (np.nan_to_num(_share(*pair)) for pair in ((matched, answered), (found, true)))
    f1 = np.nan_to_num(_share(2 * precision * recall, precision + recall))
    return np.where(answered + true > 0, f1, np.nan)


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _mean_known(cells: Array) -> Array:
    """The mean over the last axis of what is a number; nan where nothing is."""
    known = np.isfinite(cells)
    return _share(np.where(known, cells, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def _miou(marks: Marks, weights: Array) -> Array:
    return _mean_known(ious(marks, weights))


def _pixel_accuracy(marks: Marks, weights: Array) -> Array:
    cells = marks["confusion"]
    return _share(weights @ np.trace(cells, axis1=1, axis2=2), weights @ cells.sum(axis=(1, 2)))


def _boundary_f1(marks: Marks, weights: Array) -> Array:
    return _mean_known(boundary_f1s(marks, weights))


def _least(of: Callable[[Marks, Array], Array], marks: Marks, units: Units) -> tuple[float, float]:
    """Ends as far from the value as those of the mean of the images' own shares are from that mean."""
    found = float(of(marks, np.ones((1, len(marks))))[0])
    own = np.array([of(marks.take(np.array([i])), np.ones((1, 1)))[0] for i in range(len(marks))])
    known = np.isfinite(own)
    mean, low, high, _ = share_ends(own[known], units[known])
    return found - (mean - low), found + (high - mean)


MIOU = Summary("miou", _miou, least=partial(_least, _miou))
PIXEL_ACCURACY = Summary("pixel_accuracy", _pixel_accuracy, least=partial(_least, _pixel_accuracy))
BOUNDARY_F1 = Summary("boundary_f1", _boundary_f1, least=partial(_least, _boundary_f1))
SUMMARIES = (MIOU, PIXEL_ACCURACY, BOUNDARY_F1)


def segment_score(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> Score:
    """SUMMARIES with their intervals; `tables`: `per_class`, a SegmentRow a class, and `confusion` (truth, answer), the
    share of all known pixels. groups (image,): images of one group are not independent; None = all are."""
    units = units_of(len(marks), groups)
    drawn = resampled([marks], {"ious": ious, **{s.name: s.of for s in SUMMARIES if s is not MIOU}}, units, seed)
    drawn["miou"] = _mean_known(drawn["ious"])
    found = {s.name: estimate(s, marks, drawn[s.name], units) for s in SUMMARIES}
    whole = marks["confusion"].sum(axis=0).astype(np.float64)
    tables = {
        "per_class": _rows(marks, names, units, drawn["ious"]),
        "confusion": (whole / max(1.0, float(whole.sum()))).tolist(),
    }
    return Score(len(marks), found, tables)


def _rows(marks: Marks, names: Sequence[str], units: Units, drawn: Array) -> list[SegmentRow]:
    """drawn (resample, class): intersections over unions."""
    cells, one = marks["confusion"], np.ones((1, len(marks)))
    true, answered = cells.sum(axis=2), cells.sum(axis=1)
    both = np.diagonal(cells, axis1=1, axis2=2).sum(axis=0).astype(np.float64)
    edges = boundary_f1s(marks, one)[0]
    total = max(1, int(cells.sum()))

    def row(k: int) -> SegmentRow:
        there = (true[:, k] + answered[:, k]) > 0
        return {
            "label": str(names[k]),
            "n": int((true[:, k] > 0).sum()),
            "pixels": float(true[:, k].sum() / total),
            "iou": _iou_of(marks.take(there), k, units[there], drawn[:, k]) if there.any() else UNDEFINED,
            "precision": _or_none(both[k], answered[:, k].sum()),
            "recall": _or_none(both[k], true[:, k].sum()),
            "boundary_f1": float(edges[k]) if np.isfinite(edges[k]) else None,
        }

    return [row(k) for k in range(len(names))]


def _iou_of(marks: Marks, k: int, units: Units, drawn: Array) -> Interval:
    """The interval of a class on the images that have it in truth or answer."""

    def of(some: Marks, weights: Array) -> Array:
        return np.asarray(ious(some, weights)[:, k])

    found = float(of(marks, np.ones((1, len(marks))))[0])
    resamples = percentile_ends(drawn, found, len(np.unique(units)))
    return wider(found, resamples, _least(of, marks, units)) if np.isfinite(found) else interval(None, None, None)


def _or_none(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
