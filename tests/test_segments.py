"""Scores of masks: as counted by hand, void left out, intervals that hold the value and are not blind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.data.placing import VOID
from headstart.errors import DataError, OptionError
from headstart.judge.marks import Marks, ends
from headstart.judge.segments import MIOU, boundary_f1s, ious, segment_marks, segment_score
from headstart.judge.summaries import paired


def masks(n: int = 12, noise: float = 0.2, seed: int = 0) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        truth = np.kron(rng.integers(0, 3, (4, 5)), np.ones((8, 8), int)).astype(np.uint8)
        answer = np.where(rng.random(truth.shape) < noise, rng.integers(0, 3, truth.shape), truth).astype(np.uint8)
        pairs.append((truth, answer))
    return pairs


def one(marks: Marks) -> Any:
    return np.ones((1, len(marks)))


def test_the_confusion_counts_pixels_of_truth_and_answer() -> None:
    truth, answer = np.array([[0, 0, 1], [1, 2, VOID]], np.uint8), np.array([[0, 1, 1], [1, 2, 0]], np.uint8)
    marks = segment_marks([(truth, answer)], 4)
    np.testing.assert_array_equal(marks["confusion"][0][:3, :3], [[1, 1, 0], [0, 2, 0], [0, 0, 1]])
    np.testing.assert_allclose(ious(marks, one(marks))[0], [1 / 2, 2 / 3, 1, np.nan])
    score = segment_score(marks, "abcd")
    assert score.value("miou") == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert score.value("pixel_accuracy") == pytest.approx(4 / 5)
    assert score.tables["per_class"][3]["iou"]["value"] is None


def test_the_mean_is_over_the_pixels_of_all_images_together() -> None:
    marks = segment_marks(masks(), 3)
    whole = marks["confusion"].sum(axis=0)
    both = np.diag(whole)
    expected = both / (whole.sum(axis=0) + whole.sum(axis=1) - both)
    assert segment_score(marks, "abc").value("miou") == pytest.approx(expected.mean())
    twice = np.full((1, len(marks)), 2.0)
    np.testing.assert_allclose(MIOU.of(marks, twice), expected.mean())


def test_a_boundary_is_found_within_its_reach_and_not_beyond() -> None:
    """300 x 400 px: the reach is 3.75 px."""
    truth = np.zeros((300, 400), np.uint8)
    truth[:, 200:] = 1
    for moved, found in ((0, 1.0), (2, 1.0), (9, 0.0)):
        answer = np.roll(truth, moved, axis=1)
        answer[:, :20] = 0
        marks = segment_marks([(truth, answer)], 2)
        np.testing.assert_allclose(boundary_f1s(marks, one(marks))[0], [found, found])


def test_void_is_no_boundary_and_hides_what_is_answered() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[:, 20:] = VOID
    answer = np.zeros((40, 40), np.uint8)
    answer[10:20, 25:] = 1
    marks = segment_marks([(truth, answer)], 2)
    assert not marks["boundary"].any()
    assert marks["confusion"].sum() == 40 * 20
    assert segment_score(marks, "ab").estimates["boundary_f1"]["value"] is None


def test_intervals_hold_the_value_and_faultless_answers_are_not_certain() -> None:
    for noise in (0.0, 0.3):
        score = segment_score(segment_marks(masks(noise=noise), 3), "abc")
        for name in ("miou", "pixel_accuracy", "boundary_f1"):
            value, low, high = ends(score[name])
            assert low < value <= high, name
            assert low < 0.9 if noise == 0 else high < 1
        assert all(ends(row["iou"])[1] < ends(row["iou"])[0] for row in score.tables["per_class"])


def test_more_images_narrow_the_interval_and_tied_ones_do_not() -> None:
    few, many = (segment_score(segment_marks(masks(n), 3), "abc")["pixel_accuracy"] for n in (6, 60))
    tied = segment_score(segment_marks(masks(6) * 10, 3), "abc", np.tile(np.arange(6), 10))["pixel_accuracy"]
    width = [ends(cell)[2] - ends(cell)[1] for cell in (few, many, tied)]
    assert width[1] < width[0] / 2
    assert width[2] > width[0] / 1.5


def test_two_answers_are_compared_on_the_same_images() -> None:
    good, bad = (segment_marks(masks(noise=noise), 3) for noise in (0.05, 0.4))
    value, low, _ = ends(paired(MIOU, good, bad)["difference"])
    assert value > 0.3
    assert low > 0


@pytest.mark.parametrize(
    ("truth", "answer", "reason"),
    [
        (np.zeros((4, 5), int), np.zeros((5, 4), int), "height, width"),
        (np.full((2, 2), 3), np.zeros((2, 2), int), "truth holds"),
        (np.zeros((2, 2), int), np.full((2, 2), VOID), "answer holds"),
    ],
)
def test_masks_that_cannot_be_judged_are_refused(truth: Any, answer: Any, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        segment_marks([(truth, answer)], 3)


def test_no_images_are_no_score() -> None:
    with pytest.raises(DataError):
        segment_marks([], 3)
