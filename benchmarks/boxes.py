"""How often intervals of average precision hold what it comes to on many pictures, with two made detectors.

    python benchmarks/boxes.py

3,000 pictures with up to 12 boxes of three classes. The good detector finds 93 % of them, a pixel off, with a false box
or two a picture; the poor one answers twice for each, three px off, a fifth with another class, at scores that say
nothing. Draws of few pictures; beside each share, that of intervals which are not moved by what halves of them tell.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headstart.data.boxes import BoxTruth
from headstart.judge import summaries
from headstart.judge.box_score import MAP, MAP50
from headstart.judge.boxes import box_marks
from headstart.judge.marks import Marks

NAMES = ("a", "b", "c")
PICTURES, MOST = 3000, 12
DRAWS = {20: 150, 72: 150, 300: 50}
RESAMPLES = 300  # of each draw: 2,000 as in a fit would take minutes


def true_boxes(rng: np.random.Generator) -> BoxTruth:
    boxes, labels, hard = [], [], []
    for k in rng.integers(0, MOST + 1, PICTURES):
        corner, side = rng.uniform(0, 60, (k, 2)), rng.uniform(4, 40, (k, 2))
        boxes.append(np.concatenate([corner, corner + side], axis=1).astype(np.float32))
        labels.append(rng.integers(0, len(NAMES), k))
        hard.append(rng.uniform(size=k) < 0.1)
    return BoxTruth(tuple(boxes), tuple(labels), tuple(hard), np.ones(PICTURES, bool), NAMES)


def answered(truth: BoxTruth, good: bool, rng: np.random.Generator) -> list[np.ndarray]:
    found = []
    for true, kinds in zip(truth.boxes, truth.labels, strict=True):
        rows = np.flatnonzero(rng.uniform(size=len(true)) < 0.93) if good else np.repeat(np.arange(len(true)), 2)
        near = true[rows] + rng.normal(0, 1 if good else 3, (len(rows), 4))
        far = rng.uniform(0, 60, (rng.poisson(1.5) if good else 3, 2))
        boxes = np.concatenate([near, np.concatenate([far, far + 15], axis=1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        kind = np.append(kinds[rows], rng.integers(0, len(NAMES), len(far)))
        if good:
            score = np.append(rng.beta(5, 2, len(near)), rng.beta(2, 4, len(far)))
        else:
            score = rng.uniform(0, 1, len(kind))
            kind = np.where(rng.uniform(size=len(kind)) < 0.8, kind, 1)
        found.append(np.column_stack([boxes, score, kind]))
    return found


def told(marks: Marks, n: int, rng: np.random.Generator) -> None:
    for summary in (MAP50, MAP):
        whole = summaries.value(summary, marks)
        assert whole is not None
        plain, held, unmoved, excess, optimism = replace(summary, optimism=None), 0, 0, [], []
        for _ in range(DRAWS[n]):
            few = marks.take(rng.choice(PICTURES, n, replace=False))
            cells = [summaries.summarise(few, [one])[summary.name] for one in (summary, plain)]
            inside = [(c["low"] or 0.0) <= whole <= (c["high"] or 0.0) for c in cells]
            held, unmoved = held + inside[0], unmoved + inside[1]
            excess.append((cells[0]["value"] or 0.0) - whole)
            assert summary.optimism is not None
            optimism.append(summary.optimism(few, np.arange(n)))
        print(
            f"  {summary.name:6} {n:4} pictures: held in {held / DRAWS[n]:.0%} (unmoved {unmoved / DRAWS[n]:.0%}); too "
            f"high by {np.mean(excess):.4f}, told {np.mean(optimism):.4f}",
            flush=True,
        )


def main() -> None:
    summaries.RESAMPLES = RESAMPLES
    rng = np.random.default_rng(0)
    truth = true_boxes(rng)
    for good in (True, False):
        marks = box_marks(truth, answered(truth, good, rng))
        values = ", ".join(f"{one.name} {summaries.value(one, marks):.3f}" for one in (MAP50, MAP))
        print(f"{'good' if good else 'poor'}: {values}")
        for n in DRAWS:
            told(marks, n, rng)


if __name__ == "__main__":
    main()
