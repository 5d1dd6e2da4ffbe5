"""Do the intervals of AUROC, average precision, kappa, MCC and of points on the ROC curve hold the truth?

    python benchmarks/two_class_intervals.py [--draws 400]        about 2 minutes and one pass over 10,000 images

Scores of a logistic regression on features of CIFAR-10's test images, taught by TAUGHT of them, for pairs of classes
and for one class against the other nine. The answers for the rest are a world: what they show together is true, and
each draw takes some at random, with replacement, and is judged. Nothing of the intervals was settled on these answers:
their form was chosen on made, normally distributed scores (tests/test_two_classes.py).
"""

from __future__ import annotations

from typing import Any

import measure
import numpy as np
from optimism import material_of
from sklearn.linear_model import LogisticRegression

from headstart.data.table import read_table
from headstart.judge.class_marks import class_marks
from headstart.judge.marks import Marks
from headstart.judge.two_classes import JUDGED, diagnostic
from headstart.story.opening import Options
from headstart.story.pipeline import LAST

TAUGHT = 400
WORLDS = {  # the class that is looked for, the others (none: all)
    "cat, not dog": ("cat", ("dog",)),
    "ship, not airplane": ("ship", ("airplane",)),
    "deer of ten": ("deer", ()),
}
SIZES = (40, 100, 400)
NAMES = ("auroc", "average_precision", "kappa", "mcc")


def world(features: Any, y: Any, classes: tuple[str, ...], looked: str, others: tuple[str, ...]) -> Marks:
    one = classes.index(looked)
    rest = [classes.index(c) for c in others] or [k for k in range(len(classes)) if k != one]
    rows = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(y, [one, *rest])))
    truth = (y == one).astype(np.int64)
    taught, judged = rows[:TAUGHT], rows[TAUGHT:]
    model = LogisticRegression(C=0.1, max_iter=2000).fit(features[taught], truth[taught])
    return class_marks(truth[judged], model.predict_proba(features[judged]))


def told(marks: Marks, thresholds: Any = None) -> dict[str, Any]:
    """Name -> (value, low, high) of what is defined."""
    found = diagnostic(marks, ("other", "looked for"), positive=1, thresholds=thresholds)
    cells = {name: found[name] for name in NAMES}
    for row in found["operating"]:
        other = "sensitivity" if row["asked"] == "specificity" else "specificity"
        cells[f"{other} at {row['asked']} {row['share']}"] = row[other]
    return {name: (c["value"], c["low"], c["high"]) for name, c in cells.items() if c["value"] is not None}


def held(marks: Marks, n: int, draws: int) -> dict[str, tuple[int, int]]:
    """Name -> (draws that hold the truth, draws in which it is defined)."""
    truth = {name: value for name, (value, _, _) in told(marks).items()}
    counts = {name: [0, 0] for name in truth}
    for seed in range(draws):
        rows = np.random.default_rng([seed, n]).integers(len(marks), size=n)
        for name, (_, low, high) in told(marks.take(rows)).items():
            counts[name][0] += low <= truth[name] <= high
            counts[name][1] += 1
    return {name: (hit, of) for name, (hit, of) in counts.items()}


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--cache", help="folder of stored features")
    options = parser.parse_args()
    table = read_table(options.data / "cifar10/test-00000-of-00001.parquet")
    material = material_of(table, Options(cache=options.cache))
    features, y = np.asarray(material.blocks[LAST], np.float64), material.targets.strata
    rows, targets, record = [], [], {}
    for name, (looked, others) in WORLDS.items():
        marks = world(features, y, material.targets.names, looked, others)
        truth = told(marks)
        for n in SIZES:
            found = held(marks, n, options.draws)
            record[f"{name}, {n}"] = found
            for what, (hit, of) in found.items():
                rows.append([name, str(n), what, f"{truth[what][0]:.3f}", str(of), f"{hit / max(of, 1):.1%}"])
                targets.append(measure.Target(f"{name}, {n} images, {what}", hit / max(of, 1), floor=0.92))
    header = ("world", "images", "score", "true", "draws", "interval holds it")
    title = f"95 % intervals, thresholds chosen on {JUDGED}"
    measure.publish(options, __doc__, [measure.Table(title, header, rows)], targets, record)


if __name__ == "__main__":
    main()
