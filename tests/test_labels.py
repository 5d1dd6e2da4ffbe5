"""Suspected labels: flipped ones are found, clean and rare ones are left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.judge.class_marks import class_marks
from headstart.judge.crossing import Answer, Judged, Rows, cross_validate
from headstart.judge.labels import Expected, expected, suspected_labels

DIGITS = list("0123456789")


def out_of_fold(x: NDArray[np.float64], y: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression

    def fit(train: Rows) -> Answer:
        model = LogisticRegression(C=0.3, max_iter=300).fit(x[train], y[train])
        return lambda rows: np.asarray(model.predict_proba(x[rows]))

    keys = [f"{i:05d}" for i in range(len(y))]
    judged = Judged(y, [str(c) for c in range(n_classes)], np.arange(len(y)), keys)
    return cross_validate(fit, judged, lambda rows, p: class_marks(y[rows], p)).answers


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return data.data / 16, data.target


def test_flipped_labels_are_found(digits: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    x, y = digits
    rng = np.random.default_rng(0)
    flipped = rng.choice(len(y), len(y) // 20, replace=False)
    noisy = y.copy()
    noisy[flipped] = (y[flipped] + rng.integers(1, 10, len(flipped))) % 10
    suspects = suspected_labels(noisy, out_of_fold(x, noisy, 10), DIGITS)
    found = {s.row for s in suspects}
    hits = found & set(flipped.tolist())
    assert len(hits) / len(flipped) > 0.85
    assert len(hits) / len(found) > 0.8
    assert np.mean([s.suggested == y[s.row] for s in suspects if s.row in hits]) > 0.9
    worst = [s.row for s in suspects[: len(flipped) // 2]]
    assert np.mean(np.isin(worst, flipped)) > 0.95
    scores = [s.score for s in suspects]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] <= scores[0] <= 1


def test_clean_separable_data_has_no_suspects() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    x = np.eye(4)[y] * 6 + rng.normal(size=(200, 4)) * 0.5
    assert suspected_labels(y, out_of_fold(x, y, 4), list("abcd")) == []


def test_a_rare_class_that_the_model_never_learns_is_not_called_wrong() -> None:
    """2 % of the images belong to a class like any other; the model prefers the common one, the labels are right."""
    rng = np.random.default_rng(0)
    y = (np.arange(1000) >= 980).astype(int)
    p = np.clip(
        np.where(y[:, None] == 1, [0.9, 0.1], [0.97, 0.03]) + rng.normal(0, 0.03, (1000, 1)) * [1, -1], 0.001, 0.999
    )
    assert suspected_labels(y, p, ["common", "rare"]) == []


def test_at_most_half_of_a_class_is_suspected() -> None:
    y = np.repeat([0, 1], 20)
    p = np.tile([0.9, 0.1], (40, 1))  # all seem to be class 0
    assert len(suspected_labels(y, p, ["a", "b"])) <= 9


def made(rng: np.random.Generator, n: int, n_classes: int, sharp: float, rate: float) -> tuple[Any, Any, Any]:
    """(labels, answers, which labels are wrong): a calibrated model of images as hard as `sharp` has it."""
    scores = sharp * rng.gumbel(size=(n, n_classes))
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    truth = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=n_classes - 1)
    wrong = rng.random(n) < rate
    return np.where(wrong, (truth + rng.integers(1, n_classes, n)) % n_classes, truth), p, wrong


@pytest.mark.parametrize(("n_classes", "sharp"), [(2, 20.0), (2, 2.0), (10, 6.0), (10, 2.0), (50, 2.0)])
def test_the_number_of_wrong_labels_holds(n_classes: int, sharp: float) -> None:
    """From nearly no mistakes to many: the wrong labels of the list are within what is said of it."""
    rng, held, draws = np.random.default_rng(0), 0, 40
    for _ in range(draws):
        y, p, wrong = made(rng, 400, n_classes, sharp, 0.06)
        found = suspected_labels(y, p, [str(k) for k in range(n_classes)])
        said, true = expected(found), int(wrong[[s.row for s in found]].sum())
        held += said.low <= true <= said.high
    assert held >= 0.9 * draws


@pytest.mark.parametrize("sharp", [6.0, 2.0, 1.0])
def test_a_weak_model_accuses_no_right_label(sharp: float) -> None:
    rng, draws = np.random.default_rng(1), 40
    accused = [len(suspected_labels(*made(rng, 400, 10, sharp, 0.0)[:2], DIGITS)) for _ in range(draws)]
    assert sum(n > 0 for n in accused) <= 0.1 * draws


def test_nothing_is_expected_of_an_empty_list() -> None:
    assert expected([]) == Expected(0, 0, 0, 0)


def test_edges() -> None:
    assert suspected_labels(np.zeros(0, int), np.zeros((0, 2)), ["a", "b"]) == []
    with pytest.raises(OptionError, match="expected"):
        suspected_labels(np.zeros(3, int), np.zeros((3, 3)), ["a", "b"])
