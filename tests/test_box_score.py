"""The judge of boxes: equal to a COCO evaluator, resamples are what they stand for, chosen scores are the best."""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
import pytest

from headstart.data.boxes import BoxTruth
from headstart.errors import DataError, OptionError
from headstart.judge.box_score import (
    MAP,
    MAP50,
    SUMMARIES,
    best_scores,
    box_score,
    size_rows,
)
from headstart.judge.boxes import average_precisions, box_marks
from headstart.judge.intervals import units_of
from headstart.judge.summaries import paired, summarise, value

NAMES = ("a", "b", "c")


def made(
    seed: int, n: int = 12, most: int = 12, ties: bool = False, hard: float = 0.2, whole: bool = False
) -> tuple[BoxTruth, list[np.ndarray]]:
    """True boxes, and answers that are the same ones moved a little, some of another class, and many false ones.

    whole: edges at whole px, so that overlaps are equal and stand exactly at thresholds.
    """
    rng = np.random.default_rng(seed)
    boxes, labels, hards, answers = [], [], [], []
    for _ in range(n):
        k = int(rng.integers(0, most + 1))
        corner, side = rng.uniform(0, 60, (k, 2)), rng.uniform(4, 40, (k, 2))
        true = np.concatenate([corner, corner + side], axis=1)
        kind = rng.integers(0, len(NAMES), k)
        found = np.repeat(true, 2, axis=0) + rng.normal(0, 3, (2 * k, 4))
        false = rng.uniform(0, 60, (3, 2))
        found = np.concatenate([found, np.concatenate([false, false + 15], axis=1)])
        found = np.concatenate(
            [np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:]) + 1], axis=1
        )
        score = rng.integers(1, 6, len(found)) / 8 if ties else rng.uniform(0, 1, len(found))
        said = np.where(rng.uniform(size=len(found)) < 0.8, np.append(np.repeat(kind, 2), [0, 1, 2]), 1)
        if whole:
            true, found = np.round(true / 4) * 4, np.round(found / 4) * 4
            true[:, 2:] = np.maximum(true[:, 2:], true[:, :2] + 4)
            found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 4)
        boxes.append(true.astype(np.float32))
        labels.append(kind.astype(np.int64))
        hards.append(rng.uniform(size=k) < hard)
        answers.append(np.column_stack([found.astype(np.float32), score, said]))
    return BoxTruth(tuple(boxes), tuple(labels), tuple(hards), np.ones(n, bool), NAMES), answers


def by_coco(truth: BoxTruth, answers: list[np.ndarray]) -> tuple[float, float, np.ndarray]:
    """(mean over the overlaps, at 0.5, (class, threshold)) of a COCO evaluator; nan where a class has no box."""
    from faster_coco_eval import COCO, COCOeval_faster

    annotations, results = [], []
    for image, (boxes, labels, hards) in enumerate(zip(truth.boxes, truth.labels, truth.hard, strict=True)):
        for (x1, y1, x2, y2), label, hard in zip(boxes.astype(float), labels, hards, strict=True):
            w, h = x2 - x1, y2 - y1
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image + 1, "category_id": int(label) + 1, "area": w * h,
                 "bbox": [x1, y1, w, h], "iscrowd": int(hard)}
            )  # fmt: skip
    for image, found in enumerate(answers):
        for x1, y1, x2, y2, score, kind in found.astype(float):
            results.append(
                {
                    "image_id": image + 1,
                    "category_id": int(kind) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(
            {
                "images": [{"id": k + 1, "width": 100, "height": 100} for k in range(len(truth))],
                "annotations": annotations,
                "categories": [{"id": k + 1, "name": name} for k, name in enumerate(truth.names)],
            }
        )
        judge = COCOeval_faster(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][:, :, :, 0, 2]  # threshold, recall, class; all sizes, 100 answers
    each = np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1)).T
    return float(judge.stats[0]), float(judge.stats[1]), each


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_a_coco_evaluator_says(seed: int, whole: bool, ties: bool) -> None:
    truth, answers = made(seed, ties=ties, whole=whole, hard=0.0 if seed == 0 else 0.3)
    every, at_50, each = by_coco(truth, answers)
    marks = box_marks(truth, answers)
    found = average_precisions(marks, np.ones((1, len(truth))))[0]
    np.testing.assert_allclose(found, each, atol=1e-6)
    assert value(MAP, marks) == pytest.approx(every, abs=1e-6)
    assert value(MAP50, marks) == pytest.approx(at_50, abs=1e-6)


def one_class(true: np.ndarray) -> BoxTruth:
    """A picture with these boxes of class a, not hard."""
    k = len(true)
    return BoxTruth((np.float32(true),), (np.zeros(k, np.int64),), (np.zeros(k, bool),), np.ones(1, bool), NAMES)


def row_of(n: int, top: float = 0.0) -> np.ndarray:
    """n boxes side by side."""
    left = 12.0 * np.arange(n)
    return np.column_stack([left, np.full(n, top), left + 10, np.full(n, top + 10)])


def test_only_the_hundred_best_answers_of_a_class_are_judged() -> None:
    truth = one_class(row_of(2))
    false = np.column_stack([row_of(99, 50), np.linspace(0.9, 0.5, 99), np.zeros(99)])
    true = np.column_stack([row_of(2), [0.4, 0.3], [0, 0]])
    answers = [np.concatenate([true, false])]
    found = average_precisions(box_marks(truth, answers), np.ones((1, 1)))[0]
    np.testing.assert_allclose(found, by_coco(truth, answers)[2], atol=1e-6)
    assert found[0, 0] == pytest.approx(51 / 101 * 0.01)


def test_of_two_boxes_overlapped_alike_the_later_is_taken() -> None:
    truth = one_class(np.array([[0, 0, 10, 10], [2, 0, 12, 10]]))
    answers = [np.array([[1, 0, 11, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 0]])]
    found = average_precisions(box_marks(truth, answers), np.ones((1, 1)))[0]
    np.testing.assert_allclose(found, by_coco(truth, answers)[2], atol=1e-6)
    assert found[0, 9] == pytest.approx(0.5 * 51 / 101)


def test_every_share_of_boxes_found_reaches_the_recalls_up_to_it() -> None:
    """k / 100 in floating point is now above, now below the k-th recall."""
    truth, found = one_class(row_of(100)), []
    for k in range(101):
        answers = np.column_stack([row_of(100)[:k], np.linspace(1, 0.5, k), np.zeros(k)])
        found.append(average_precisions(box_marks(truth, [answers]), np.ones((1, 1)), slice(0, 1))[0, 0, 0])
    recalls = np.linspace(0, 1, 101)
    reached = [(recalls <= k / 100).sum() if k else 0 for k in range(101)]
    np.testing.assert_allclose(found, np.array(reached) / 101, atol=1e-12)


def test_equal_scores_are_answered_together() -> None:
    """At 0.5 the second right answer comes with five false ones: it is not worth it."""
    boxes = np.concatenate([row_of(2), row_of(5, 50)])
    answers = np.column_stack([boxes, [0.9, *[0.5] * 6], np.zeros(7)])
    assert best_scores(box_marks(one_class(row_of(2)), [answers]))[0] == pytest.approx(0.7)


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_of_two_is_the_picture_twice(seed: int) -> None:
    truth, answers = made(seed)
    marks = box_marks(truth, answers, scores=np.full(3, 0.3), means=np.array([1.0, 2.0, 3.0]))
    weights = np.random.default_rng(seed).integers(0, 4, len(truth))
    rows = np.repeat(np.arange(len(truth)), weights)
    again = box_marks(
        truth.take(rows), [answers[row] for row in rows], scores=np.full(3, 0.3), means=np.array([1.0, 2.0, 3.0])
    )
    for summary in SUMMARIES:
        at_once = summary.of(marks, np.stack([weights, weights]).astype(float))
        assert at_once[0] == at_once[1] == pytest.approx(value(summary, again), abs=1e-12), summary.name


def perfect(truth: BoxTruth) -> list[np.ndarray]:
    return [
        np.column_stack([boxes, np.full(len(boxes), 0.9), labels])
        for boxes, labels in zip(truth.boxes, truth.labels, strict=True)
    ]


def test_faultless_answers_are_not_certain() -> None:
    truth, _ = made(1, hard=0.0)
    found = summarise(box_marks(truth, perfect(truth), means=truth.matrix().mean(axis=0)), SUMMARIES)
    assert [found[name]["value"] for name in ("map50", "map", "precision", "recall")] == [1.0] * 4
    assert all(0.4 < found[name]["low"] < 0.95 for name in ("map50", "map", "precision", "recall"))
    assert found["count_error"]["value"] == 0.0
    assert found["count_error"]["high"] > 0.1


def test_hard_boxes_count_nowhere() -> None:
    truth, _ = made(2, hard=0.4)
    marks = box_marks(truth, perfect(truth))
    assert value(MAP, marks) == 1.0
    n_hard = sum(int(hard.sum()) for hard in truth.hard)
    assert n_hard > 5
    assert marks["answered"].tolist() == marks["n_true"].tolist() == truth.matrix().tolist()
    missed = [found[~hard] for found, hard in zip(perfect(truth), truth.hard, strict=True)]
    assert value(MAP, box_marks(truth, missed)) == 1.0


def test_a_class_without_boxes_has_no_score_and_none_of_the_others_is_changed() -> None:
    truth, answers = made(4)
    wider = BoxTruth(truth.boxes, truth.labels, truth.hard, truth.known, (*NAMES, "nowhere"))
    marks = box_marks(wider, answers)
    assert np.isnan(average_precisions(marks, np.ones((1, len(truth))))[0, 3]).all()
    assert value(MAP, marks) == value(MAP, box_marks(truth, answers))
    row = box_score(marks, wider.names).tables["per_class"][3]
    assert row["n"] == 0
    assert row["average_precision"]["value"] is None


def test_pictures_without_boxes_or_answers_are_judged() -> None:
    truth, _ = made(5, n=4, most=0)
    nothing = [np.zeros((0, 6)) for _ in range(4)]
    marks = box_marks(truth, nothing)
    assert [value(summary, marks) for summary in SUMMARIES] == [None, None, None, None, 0.0]
    one = [np.array([[0, 0, 5, 5, 0.5, 1.0]]), *nothing[1:]]
    assert value(SUMMARIES[-1], box_marks(truth, one)) == pytest.approx(1 / 12)


def test_what_cannot_be_judged_is_refused() -> None:
    truth, answers = made(0)
    with pytest.raises(OptionError, match="12 pictures but answers for 11"):
        box_marks(truth, answers[1:])
    with pytest.raises(OptionError, match=r"needed are finite \(box, 6\)"):
        box_marks(truth, [answers[0][:, :5], *answers[1:]])
    with pytest.raises(OptionError, match="outside 0 to 2"):
        box_marks(truth, [np.array([[0, 0, 1, 1, 0.5, 3.0]]), *answers[1:]])
    with pytest.raises(DataError, match="nothing is known"):
        box_marks(BoxTruth(truth.boxes, truth.labels, truth.hard, np.arange(12) > 0, NAMES), answers)


def test_by_how_much_average_precision_is_too_high_on_few_pictures_is_told_from_halves() -> None:
    truth, answers = made(11, n=400, most=6)
    marks, rng = box_marks(truth, answers), np.random.default_rng(0)
    assert MAP.optimism is not None
    excess, told = [], []
    for _ in range(40):
        few = marks.take(rng.choice(len(marks), 20, replace=False))
        found = value(MAP, few)
        assert found is not None
        excess.append(found - (value(MAP, marks) or 0))
        told.append(MAP.optimism(few, np.arange(20)))
    assert np.mean(excess) > 0.01
    assert 0.6 * np.mean(excess) < np.mean(told) < 1.5 * np.mean(excess)
    cell = summarise(few, [MAP])["map"]
    assert cell["low"] is not None
    assert cell["high"] is not None
    assert found - cell["low"] > cell["high"] - found
    assert MAP.optimism(few.take(np.arange(5)), np.arange(5)) == 0.0


def at_every_score(truth: BoxTruth, answers: list[np.ndarray]) -> np.ndarray:
    """(score, class): F1 at many scores, by marking anew."""
    found = []
    for score in np.linspace(0.0, 1.0, 33):
        new = box_marks(truth, answers, scores=np.full(3, score))
        right, given, true = (new[name].sum(axis=0) for name in ("found", "given", "n_true"))
        found.append(2 * right / np.maximum(given + true, 1))
    return np.array(found)


@pytest.mark.parametrize("ties", [False, True])
def test_chosen_scores_are_the_best_there_are(ties: bool) -> None:
    truth, answers = made(7, n=20, ties=ties)
    marks = box_marks(truth, answers)
    chosen = box_marks(truth, answers, scores=best_scores(marks))
    right, given, true = (chosen[name].sum(axis=0) for name in ("found", "given", "n_true"))
    f1 = 2 * right / (given + true)
    assert (f1 >= at_every_score(truth, answers).max(axis=0) - 1e-12).all()


def test_the_score_holds_what_its_parts_say() -> None:
    truth, answers = made(8, n=30)
    means = truth.matrix().mean(axis=0)
    marks = box_marks(truth, answers, scores=np.full(3, 0.4), means=means)
    score = box_score(marks, NAMES)
    assert {name: cell["value"] for name, cell in score.estimates.items()} == {
        summary.name: value(summary, marks) for summary in SUMMARIES
    }
    rows = score.tables["per_class"]
    assert np.mean([row["average_precision_50"]["value"] for row in rows]) == pytest.approx(score.value("map50"))
    for row in rows:
        for cell in (held for held in row.values() if isinstance(held, dict)):
            assert cell["low"] <= cell["value"] <= cell["high"]
        gained = row["count_error_of_mean"]["value"] - row["count_error"]["value"]
        assert row["count_gain"]["value"] == pytest.approx(gained)
    sizes = size_rows(marks, units_of(len(marks), None))
    assert sum(row["n"] for row in sizes) == marks["n_true"].sum()
    assert sum(row["n"] * row["recall"]["value"] for row in sizes) == pytest.approx(marks["found"].sum())


def test_better_answers_are_better_by_the_same_resamples() -> None:
    truth, answers = made(9, n=30, hard=0.0)
    gain = paired(MAP, box_marks(truth, perfect(truth)), box_marks(truth, answers))["difference"]
    assert gain["low"] is not None
    assert gain["low"] > 0


def test_a_set_like_bccd_is_judged_in_seconds() -> None:
    truth, answers = made(10, n=72, most=30)
    assert sum(map(len, answers)) > 2000
    started = time.process_time()
    box_score(box_marks(truth, answers), NAMES)
    assert time.process_time() - started < 20
