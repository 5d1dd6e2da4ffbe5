"""Cross-validation keeps the judge apart from the learner, and its intervals cover what new images show."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError
from headstart.judge import class_marks, crossing
from headstart.judge.class_marks import METRICS, crossed_class_score, mean_marks
from headstart.judge.crossing import Answer, CurvePoint, Fit, Judged, Rows
from headstart.judge.intervals import corrected_half_width
from headstart.judge.marks import Marks, Score
from headstart.tasks.classification import ACCURACY

Floats = NDArray[np.float64]


def keys(n: int) -> list[str]:
    return [f"{v:016x}" for v in np.random.default_rng(n).integers(0, 2**62, n)]


@dataclass(frozen=True)
class Crossed:
    """A cross-validation of classes with its score."""

    score: Score
    answers: Floats
    marks: Marks
    folds: Rows
    notes: tuple[str, ...]


def marking(y: NDArray[np.int64]) -> Callable[[Rows, NDArray[Any]], Marks]:
    return lambda rows, p: class_marks.class_marks(y[rows], p)


def cross_validate(
    fit: Fit,
    y: NDArray[np.int64],
    groups: NDArray[np.int64],
    keys: list[str],
    classes: list[str],
    n_folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Crossed:
    judged = Judged(y, classes, groups, keys, seed)
    found = crossing.cross_validate(fit, judged, marking(y), n_folds, repeats, progress)
    score = crossed_class_score(found.marks, list(found.folds), classes, groups, seed)
    return Crossed(score, found.answers, mean_marks(found.marks, found.answers), found.folds, found.notes)


def learning_curve(
    fit: Fit, y: NDArray[np.int64], groups: NDArray[np.int64], keys: list[str], classes: list[str], **more: Any
) -> list[CurvePoint]:
    return crossing.learning_curve(fit, Judged(y, classes, groups, keys), marking(y), ACCURACY, mean_marks, **more)


def blobs(n: int, n_classes: int, apart: float, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n_classes, 8))[y] * apart + rng.normal(size=(n, 8)), y


def nearest_mean(x: Floats, y: NDArray[np.int64], n_classes: int) -> Fit:
    def fit(train: Rows) -> Answer:
        means = np.stack([x[train][y[train] == c].mean(axis=0) for c in range(n_classes)])

        def predict(rows: Rows) -> Floats:
            logits = -0.5 * ((x[rows][:, None] - means) ** 2).sum(axis=2)
            e = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(e / e.sum(axis=1, keepdims=True))

        return predict

    return fit


def remember_everything(y: NDArray[np.int64], groups: NDArray[np.int64], n_classes: int) -> Fit:
    """Right on every image whose group it has seen, else sure of class 0: any leak shows as skill."""

    def fit(train: Rows) -> Answer:
        known = set(groups[train].tolist())
        return lambda rows: np.eye(n_classes)[[y[r] if groups[r] in known else 0 for r in rows]]

    return fit


def test_what_is_judged_was_never_seen() -> None:
    """Copies of every image, labels at random: memory alone must not score."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 2)
    y = rng.integers(0, 4, 100)[groups]
    found = cross_validate(remember_everything(y, groups, 4), y, groups, keys(200), list("abcd"), 5, 2)
    assert found.score["accuracy"]["value"] == np.mean(y == 0)
    leaky = cross_validate(remember_everything(y, groups, 4), y, np.arange(200), keys(200), list("abcd"), 5, 1)
    assert leaky.score["accuracy"]["value"] > 0.7


def test_shuffled_labels_give_chance_within_the_interval() -> None:
    x, y = blobs(300, 3, 2.0)
    y = np.random.default_rng(1).permutation(y)
    cell = cross_validate(nearest_mean(x, y, 3), y, np.arange(300), keys(300), list("abc"), 5, 3).score["accuracy"]
    assert cell["low"] < 1 / 3 < cell["high"]


def test_result_is_whole_and_repeats_exactly() -> None:
    x, y = blobs(90, 3, 0.7)
    seen: list[tuple[int, int]] = []

    def run(seed: int) -> Crossed:
        def note(done: int, of: int) -> None:
            seen.append((done, of))

        return cross_validate(
            nearest_mean(x, y, 3),
            y,
            np.arange(90),
            keys(90),
            list("abc"),
            n_folds=5,
            repeats=2,
            seed=seed,
            progress=note,
        )

    first, again, other = run(0), run(0), run(1)
    assert first.score.to_json() == again.score.to_json() != other.score.to_json()
    assert np.array_equal(first.answers, again.answers)
    assert seen[:10] == [(i, 10) for i in range(1, 11)]
    assert np.allclose(first.answers.sum(axis=1), 1)
    assert first.folds.shape == (2, 90)
    assert (first.score.n, first.score.folds, first.score.repeats) == (90, 5, 2)
    json.dumps(first.score.to_json(), allow_nan=False)
    assert np.array(first.score.tables["confusion"]).sum(axis=1) == pytest.approx([30, 30, 30])
    assert np.trace(np.array(first.score.tables["confusion"])) / 90 == pytest.approx(first.score["accuracy"]["value"])
    for name in METRICS:
        assert 0 <= first.score[name]["low"] <= first.score[name]["value"] <= first.score[name]["high"]


def test_the_right_answers_of_all_repeats_make_the_accuracy() -> None:
    """So that a difference of it and of another's answers is the difference of the two accuracies as they are told."""
    x, y = blobs(120, 3, 0.7)
    found = cross_validate(nearest_mean(x, y, 3), y, np.arange(120), keys(120), list("abc"), 5, 3)
    assert found.marks["right"].mean() == pytest.approx(found.score["accuracy"]["value"], abs=1e-12)
    by_class = [found.marks["right"][y == c].mean() for c in range(3)]
    assert np.mean(by_class) == pytest.approx(found.score["balanced_accuracy"]["value"], abs=1e-12)
    assert set(np.round(3 * found.marks["right"], 9)) <= {0.0, 1.0, 2.0, 3.0}


def test_row_order_and_names_do_not_matter() -> None:
    x, y = blobs(120, 3, 0.7)
    k = keys(120)
    order = np.random.default_rng(2).permutation(120)
    first = cross_validate(nearest_mean(x, y, 3), y, np.arange(120), k, list("abc"))
    fit = nearest_mean(x[order], y[order], 3)
    moved = cross_validate(fit, y[order], np.arange(120), [k[i] for i in order], list("abc"))
    assert np.allclose(moved.answers, first.answers[order])
    assert moved.score["accuracy"] == first.score["accuracy"]


def test_perfect_folds_are_not_certain() -> None:
    truth = np.arange(60) % 2
    p = np.eye(2)[truth]
    marks = class_marks.class_marks(truth, p)
    cell = crossed_class_score([marks, marks], [np.arange(60) % 5, np.arange(60) // 12], ["a", "b"])["accuracy"]
    assert cell["high"] == cell["value"] == 1.0
    assert 0.85 < cell["low"] < 0.95


def test_corrected_interval_is_nadeau_and_bengios() -> None:
    from scipy.stats import t

    values = [0.8, 0.9, 0.85, 0.95, 0.9]
    expected = t.ppf(0.975, 4) * np.sqrt(np.var(values, ddof=1) * (1 / 5 + 1 / 4))
    assert corrected_half_width(values, 1 / 4) == pytest.approx(expected)


def test_rare_classes_are_in_every_training_part_and_noted() -> None:
    """A class of two images leaves the folds of the others alone; one image is refused."""
    y = np.array([0] * 50 + [1] * 30 + [2] * 2)
    sizes: list[int] = []

    def fit(train: Rows) -> Answer:
        assert set(y[train]) == {0, 1, 2}
        sizes.append(len(train))
        return lambda rows: np.full((len(rows), 3), 1 / 3)

    found = cross_validate(fit, y, np.arange(82), keys(82), ["ant", "bee", "wasp"], 5)
    assert min(sizes) >= 65
    assert found.notes == ("fewer groups of images than folds, so judged in some folds only: wasp (2)",)
    with pytest.raises(DataError, match="class wasp: one image only"):
        cross_validate(fit, y[:-1], np.arange(81), keys(81), ["ant", "bee", "wasp"])
    with pytest.raises(DataError, match="class wasp"):
        cross_validate(
            fit, y, np.append(np.arange(81), 80), keys(82), ["ant", "bee", "wasp"]
        )  # two copies of one image


def test_folds_are_reduced_where_no_class_fills_them() -> None:
    x, y = blobs(9, 3, 3.0)
    found = cross_validate(nearest_mean(x, y, 3), y, np.arange(9), keys(9), list("abc"), 5)
    assert found.score.folds == 3
    assert found.notes == ("3 folds instead of 5: no class has more groups of images",)
    with pytest.raises(OptionError, match="at least 1"):
        cross_validate(nearest_mean(x, y, 3), y, np.arange(9), keys(9), list("abc"), repeats=0)


def ridge(x: Floats, y: NDArray[np.int64], n_classes: int) -> Fit:
    """The simplest head that is good on digits."""

    def fit(train: Rows) -> Answer:
        middle = x[train].mean(axis=0)
        a = x[train] - middle
        gram = a.T @ a
        weights = np.linalg.solve(
            gram + 0.003 * np.trace(gram) / len(gram) * np.eye(len(gram)), a.T @ (np.eye(n_classes)[y[train]] - 0.1)
        )

        def predict(rows: Rows) -> Floats:
            e = np.exp(5 * (x[rows] - middle) @ weights)
            return np.asarray(e / e.sum(axis=1, keepdims=True))

        return predict

    return fit


@pytest.mark.parametrize("size", [150, 700])
def test_the_interval_covers_the_other_half(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The issue's law, 17 of 20 random half-splits, as a share: on scikit-learn's digits it is 0.92 of 120.

    60 draws, because 20 say little: where 0.92 are covered, 16 or fewer of 20 come up once in thirteen times.
    """
    from sklearn.datasets import load_digits

    monkeypatch.setattr(class_marks, "RESAMPLES", 250)
    data: Any = load_digits()
    x, y = data.data / 16, data.target
    covered, widths = [], []
    for run in range(60):
        order = np.random.default_rng(run).permutation(len(y))
        one, other = order[:size], order[size : 2 * size]
        shown = np.mean(ridge(x, y, 10)(one)(other).argmax(axis=1) == y[other])
        found = cross_validate(
            ridge(x[one], y[one], 10), y[one], np.arange(size), keys(size), list("0123456789"), 5, 2, run
        )
        cell = found.score["accuracy"]
        covered.append(cell["low"] <= shown <= cell["high"])
        widths.append((cell["high"] - cell["low"]) / np.sqrt(shown * (1 - shown) / size))
    assert np.mean(widths) < 8  # in standard deviations of one half; not by being useless
    assert np.mean(covered) >= 0.85


def test_learning_curve_rises_and_ends_at_cross_validation() -> None:
    x, y = blobs(600, 3, 0.8)
    curve = learning_curve(nearest_mean(x, y, 3), y, np.arange(600), keys(600), list("abc"))
    sizes = [point["n"] for point in curve]
    assert sizes == [6, 12, 24, 48, 96, 192, 384, 480]
    values = [point["accuracy"]["value"] for point in curve]
    assert values[-1] - values[0] > 0.1
    full = cross_validate(nearest_mean(x, y, 3), y, np.arange(600), keys(600), list("abc"), 5, 1, 0)
    assert values[-1] == pytest.approx(full.score["accuracy"]["value"])
    for point in curve:
        cell = point["accuracy"]
        assert 0 <= cell["low"] < cell["value"] < cell["high"] <= 1
    for before, after in itertools.pairwise(curve):
        step = after["accuracy"]["value"] - before["accuracy"]["value"]
        assert after["gain"]["value"] == pytest.approx(step, abs=1e-9)
    json.dumps(curve, allow_nan=False)


def test_learning_curve_trains_on_nested_stratified_subsets() -> None:
    x, y = blobs(200, 4, 1.0)
    seen: list[set[int]] = []
    base = nearest_mean(x, y, 4)

    def fit(train: Rows) -> Answer:
        seen.append(set(train.tolist()))
        assert np.bincount(y[train], minlength=4).min() >= len(train) // 4 - 1
        return base(train)

    learning_curve(fit, y, np.arange(200), keys(200), list("abcd"), sizes=[40, 80, 9999], n_folds=4)
    assert [len(s) for s in seen] == [40] * 4 + [80] * 4 + [150] * 4
    assert all(seen[f] < seen[4 + f] < seen[8 + f] for f in range(4))
