"""How often the intervals of labels and of values hold the truth, on made answers whose truth is known.

    python benchmarks/intervals.py        about 1 minute

Each row draws 300 sets of images from one world, judges each, and counts how often the 95 % interval holds what 300,000
other images of that world show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from headstart.judge import summaries
from headstart.judge.marks import Marks
from headstart.judge.summaries import summarise, value
from headstart.judge.tag_marks import SUMMARIES, tag_marks
from headstart.judge.value_marks import value_marks, value_summaries

SETS = 300
MANY = 300_000  # images that show the truth
LABELS = (  # images, labels, share of images with a label, how far its log-odds are raised there
    (60, 4, 0.3, 2.0),
    (60, 4, 0.1, 2.0),
    (60, 4, 0.1, 1.0),
    (200, 4, 0.05, 2.0),
    (100, 5, 0.2, 1.5),
    (400, 10, 0.1, 2.0),
    (100, 4, 0.3, 5.0),
)
VALUES = (  # images, noise in standard deviations of the truth, whether it has heavy tails (Student's t of 4)
    (12, 0.5, False),
    (30, 0.5, False),
    (100, 0.7, False),
    (60, 0.7, True),
    (200, 0.7, True),
)


def labels(rng: np.random.Generator, n: int, kinds: int, share: float, raised: float) -> Marks:
    """Labels that come together, and answers that err together."""
    both = 0.8 * rng.normal(size=(n, kinds)) + 0.6 * rng.normal(size=(n, 1))
    present: NDArray[np.int8] = (both > -ndtri(share)).astype(np.int8)
    noise = 0.8 * rng.normal(size=(n, kinds)) + 0.6 * rng.normal(size=(n, 1))
    return tag_marks(present, expit(raised * (present - 1) + noise), np.full(kinds, 0.4))


def values(rng: np.random.Generator, n: int, noise: float, heavy: bool) -> Marks:
    truth = rng.normal(size=(n, 1))
    error = rng.standard_t(4, size=(n, 1)) if heavy else rng.normal(size=(n, 1))
    return value_marks(truth, truth + noise * error, np.array([1.6 * noise]))


def main() -> None:
    summaries.RESAMPLES = 300
    for draw, rows in ((labels, LABELS), (values, VALUES)):
        for n, *world in rows:
            many = draw(np.random.default_rng(99), MANY, *world)  # type: ignore[operator]
            kinds = SUMMARIES if draw is labels else value_summaries(many)
            truth = {s.name: value(s, many) or 0.0 for s in kinds}
            held = dict.fromkeys(truth, 0)
            for seed in range(SETS):
                found = summarise(draw(np.random.default_rng([seed, n]), n, *world), kinds)  # type: ignore[operator]
                for name, t in truth.items():
                    low, high = found[name]["low"], found[name]["high"]
                    held[name] += low is not None and high is not None and low <= t <= high
            shares = ", ".join(f"{name} {held[name] / SETS:.3f}" for name in held)
            print(f"{n} images, {world}: {next(iter(truth))} {next(iter(truth.values())):.3f}; {shares}", flush=True)


if __name__ == "__main__":
    main()
