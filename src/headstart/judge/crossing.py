"""Cross-validation and the learning curve of any method of any task, given as functions.

    fit(train_rows: int (row,)) -> answer;    answer(rows: int (row,)) -> answers (row, ...)

`fit` sees the rows that it may learn from and nothing else: whatever it chooses (features, L2, temperature), it
chooses inside the fold. How answers are judged is the task's: as marks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.data.splits import folds as stratified_folds
from headstart.data.splits import nested_order
from headstart.errors import DataError, OptionError
from headstart.judge.intervals import Gain, corrected_half_width, wider
from headstart.judge.marks import Interval, Marks
from headstart.judge.outlook import Gains, gains_most, twice

Rows = NDArray[np.int64]
Answer = Callable[[Rows], NDArray[np.floating[Any]]]
Fit = Callable[[Rows], Answer]
Mark = Callable[[Rows, NDArray[np.floating[Any]]], Marks]  # of these rows' answers

SMALLEST_SIZES = 2  # images per class at the start of the learning curve; then the number doubles
USUAL = 5  # folds: of fewer it is said


@dataclass(frozen=True, eq=False)
class Judged:
    """The images that are judged: strata (image,) or (image, stratum), which folds keep in proportion, and their
    `names`; groups (image,), which no fold divides; keys (image,), content hashes."""

    strata: NDArray[np.integer[Any]]
    names: Sequence[str]
    groups: NDArray[np.integer[Any]]
    keys: Sequence[str]
    seed: int = 0


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What repeated cross-validation found.

    answers (image, ...) float64: out of fold, mean over repeats. marks: of all images, one of each repeat. folds
    (repeat, image): fold numbers. notes: what was done otherwise than asked.
    """

    answers: NDArray[np.float64]
    marks: tuple[Marks, ...]
    folds: Rows
    notes: tuple[str, ...] = ()


class CurvePoint(TypedDict):
    """The headline with `n` training images; `gain`: the paired difference to the point before, on the same images. Of
    the last point, where it is known: `twice`: the gain of twice all training images, by `outlook.twice`; `gains_most`:
    see `outlook.gains_most`."""

    n: int
    accuracy: Interval
    gain: NotRequired[Interval]
    twice: NotRequired[Interval | None]
    gains_most: NotRequired[Gains | None]


@dataclass(frozen=True)
class Measure:
    """One number in which answers are compared: `value(marks)`; `of(marks, groups)`: with its interval; `gain(first,
    second, groups)`: the paired difference. `percent`: whether it is told in percent."""

    name: str
    value: Callable[[Marks], float]
    of: Callable[[Marks, NDArray[np.integer[Any]] | None], Interval]
    gain: Callable[[Marks, Marks, NDArray[np.integer[Any]] | None], Gain]
    lowest: float = 0.0
    highest: float = 1.0
    higher_is_better: bool = True
    percent: bool = True


def cross_validate(
    fit: Fit,
    judged: Judged,
    mark: Mark,
    n_folds: int = 5,
    repeats: int = 1,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    prepare: Callable[[Sequence[Rows]], None] | None = None,
) -> CrossValidation:
    """Judge `fit` by repeated, stratified, group-aware cross-validation.

    Repeat r draws its folds with seed + r. progress(done, of) is called after each fold; `workers` folds are fitted at
    once, on threads. `prepare` is told the training rows of all folds, before any is fitted. A class with fewer groups
    than folds is absent from the test part of some folds but never from a training part; a note says so. Fewer folds
    are made, with a note, only where no class has as many groups as folds. Raises DataError where a class has images of
    one group only (it could not be learnt and judged at once), OptionError for repeats < 1.
    """
    if repeats < 1:
        raise OptionError(f"cross-validation: {repeats} repeats asked, at least 1 is needed")
    n_folds, notes = possible_folds(judged, n_folds)
    j = judged
    numbers = np.stack([stratified_folds(j.strata, j.groups, n_folds, j.seed + r, j.keys) for r in range(repeats)])
    if prepare is not None:
        prepare([np.flatnonzero(number != f) for number in numbers for f in range(n_folds)])
    parts: list[tuple[int, Rows, NDArray[Any]]] = []

    def judge_fold(r: int, f: int) -> tuple[int, Rows, NDArray[Any]]:
        held = np.flatnonzero(numbers[r] == f)
        return r, held, fit(np.flatnonzero(numbers[r] != f))(held)

    with ThreadPoolExecutor(workers) as pool:
        work = [pool.submit(judge_fold, r, f) for r in range(repeats) for f in range(n_folds)]
        for done, part in enumerate(work, 1):
            parts.append(part.result())
            if progress is not None:
                progress(done, len(work))
    shape = (repeats, len(judged.keys), *parts[0][2].shape[1:])
    by_repeat = np.full(shape, np.nan)
    for r, held, answers in parts:
        by_repeat[r, held] = answers
    rows = np.arange(len(judged.keys))
    return CrossValidation(by_repeat.mean(axis=0), tuple(mark(rows, a) for a in by_repeat), numbers, notes)


def learning_curve(  # noqa: PLR0913 - the data are one, how they are judged are three
    fit: Fit,
    judged: Judged,
    mark: Mark,
    measure: Measure,
    mean: Callable[[Sequence[Marks], NDArray[Any]], Marks],
    sizes: Sequence[int] | None = None,
    n_folds: int = 5,
    draws: int = 3,
    workers: int = 1,
    of: int | None = None,
) -> list[CurvePoint]:
    """The measure against the number of training images.

    In each fold the training part is put in a stratified order and `fit` sees its first n images, so larger sets hold
    the smaller ones; sizes up to an eighth of the training part are drawn `draws` times, larger ones once. Every image
    is judged once per draw; `mean` makes one of the marks of several draws and their mean answers. sizes: default 2
    images a class, doubling, up to the whole training part; sizes asked are cut to it. of: all training images, where
    the curve is of a part of them. The interval is the wider of the
    measure's own and the corrected t-interval over folds and draws. Other arguments, and errors, as in
    `cross_validate`.
    """
    n_folds, _ = possible_folds(judged, n_folds)
    number = stratified_folds(judged.strata, judged.groups, n_folds, judged.seed, judged.keys)
    largest = int(min((number != f).sum() for f in range(n_folds)))
    least = len(judged.names)
    asked = _doubling(SMALLEST_SIZES * least, largest) if sizes is None else sizes
    orders = [_training_orders(number, judged, judged.seed + draw) for draw in range(draws)]
    curve: list[CurvePoint] = []
    points: list[Marks] = []
    for size in sorted({max(least, min(int(s), largest)) for s in asked}):
        used = orders if size <= largest / 8 else orders[:1]
        answers = [_answers_with(fit, [rows[:size] for rows in order], number, workers) for order in used]
        found = [mark(np.arange(len(number)), a) for a in answers]
        point: CurvePoint = {"n": size, "accuracy": _curve_interval(found, number, judged.groups, measure)}
        now = mean(found, np.mean(answers, axis=0))
        if points:
            point["gain"] = measure.gain(now, points[-1], judged.groups)["difference"]
        curve.append(point)
        points.append(now)
    if len(points) > 1:
        n = len(judged.keys) if of is None else of
        curve[-1]["twice"] = twice([point["n"] for point in curve], points, judged.groups, n)
        curve[-1]["gains_most"] = gains_most(points[-2], points[-1], judged.names, judged.groups)
    return curve


def _training_orders(number: Rows, judged: Judged, seed: int) -> list[Rows]:
    """The training rows of each fold, in an order whose every beginning is stratified."""
    parts = [np.flatnonzero(number != f) for f in range(int(number.max()) + 1)]
    return [rows[nested_order(judged.strata[rows], seed, [judged.keys[int(row)] for row in rows])] for rows in parts]


def _answers_with(fit: Fit, training: Sequence[Rows], number: Rows, workers: int) -> NDArray[np.float64]:
    """The answers for each image by the model that learnt from its fold's training rows."""

    def judge_fold(f: int) -> tuple[Rows, NDArray[Any]]:
        test = np.flatnonzero(number == f)
        return test, fit(np.sort(training[f]))(test)

    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(judge_fold, range(len(training))))
    answers = np.empty((len(number), *found[0][1].shape[1:]))
    for test, some in found:
        answers[test] = some
    return answers


def _curve_interval(
    draws: Sequence[Marks], number: Rows, groups: NDArray[np.integer[Any]], measure: Measure
) -> Interval:
    """The mean over draws with the wider of the two intervals."""
    n_folds = int(number.max()) + 1
    ends = [measure.of(marks, groups) for marks in draws]
    value, low, high = (float(np.mean([e[end] or 0.0 for e in ends])) for end in ("value", "low", "high"))
    of_folds = [measure.value(marks.take(number == f)) for marks in draws for f in range(n_folds)]
    half = corrected_half_width([v for v in of_folds if np.isfinite(v)], 1 / (n_folds - 1))
    return wider(value, (low, high), (value - half, value + half), measure.highest, measure.lowest)


def _doubling(first: int, last: int) -> list[int]:
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return [*sizes, last]


def possible_folds(judged: Judged, n_folds: int) -> tuple[int, tuple[str, ...]]:
    """The number of folds that the data allow, and notes where they are fewer than most judge with."""
    said = min(n_folds, USUAL)
    if judged.strata.ndim > 1:
        most = len(np.unique(judged.groups))
        if most < n_folds:
            note = f"{most} folds instead of {n_folds}: there are no more groups of images"
            return max(2, most), (note,) if most < said else ()
        return n_folds, ()
    pairs = np.unique(np.stack([judged.strata, judged.groups]), axis=1)
    by_class = np.bincount(pairs[0], minlength=len(judged.names))
    lone = [str(judged.names[int(c)]) for c in np.flatnonzero(by_class == 1)]
    if lone:
        raise DataError(
            f"class {', '.join(lone)}: one image only (copies and images of one group are one), 2 or more are needed"
        )
    notes = []
    if by_class.max() < n_folds:
        if by_class.max() < said:
            notes.append(f"{by_class.max()} folds instead of {n_folds}: no class has more groups of images")
        n_folds = max(2, int(by_class.max()))
    low = np.flatnonzero((by_class > 0) & (by_class < min(n_folds, said)))
    few = [f"{judged.names[int(c)]} ({by_class[c]})" for c in low]
    if few:
        notes.append(f"fewer groups of images than folds, so judged in some folds only: {', '.join(few)}")
    return n_folds, tuple(notes)
