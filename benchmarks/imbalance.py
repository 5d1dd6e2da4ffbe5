"""Rare classes: one in ten and one in fifty, judged by mean recall and by average precision (AUPRC).

    python benchmarks/imbalance.py [--draws 3] [--cache FOLDER]

Half of the classes keep all their images that teach, the others a tenth or a fiftieth of them (two at least): EuroSAT
(200 of a class), CIFAR-10 (500), brain MRI (75 scans with a tumour). All classes are judged alike, by images that do
not teach. `--aim balanced` moves the decision so that left-out answers of those that teach have the best mean recall.
AUPRC: the mean over the classes, one against the others; the decision does not change it.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from headstart.data.table import Table, read_table
from headstart.data.targets import class_numbers
from headstart.judge.intervals import paired_balanced_gain
from headstart.story import evidence, pipeline
from headstart.story.opening import Options

SETS = (("eurosat_3000", 200), ("cifar10", 500), ("brain_mri_yes_no", 75))
RATIOS = (10, 50)
AIMS = ("accuracy", "balanced")
JUDGED = 2000  # images at most


def parted(table: Table, most: int, ratio: int, draw: int) -> Table:
    """So many of every second class teach, and few of the others; the rest judges."""
    order = np.random.default_rng(draw).permutation(len(table))
    pool = order[table.splits[order] != "test"]
    teach = []
    for k, name in enumerate(table.classes):
        rare = k % 2 == 0
        mine = pool[table.labels[pool] == name]
        teach.append(mine[: max(2, round(most / ratio)) if rare else most])
    rows = np.concatenate(teach)
    there = order[table.splits[order] == "test"]
    judge = (there if len(there) else np.setdiff1d(order, rows))[:JUDGED]
    splits = np.array(["train"] * len(rows) + ["test"] * len(judge), dtype=object)
    return replace(table.take(np.concatenate([rows, judge])), splits=splits)


def one(table: Table, aim: str, cache: str, seed: int) -> tuple[NDArray[Any], NDArray[Any], float]:
    """(classes, answers are right, AUPRC) of the judged images."""
    learned = pipeline.learn(table, Options(cache=cache, seed=seed, aim=aim))
    rows = learned.plan.judge
    assert rows is not None
    task = learned.method.task  # with what its answers shall serve
    verdict = evidence.judge_rows(task, learned.material, learned.head, rows, learned.rule)
    y = class_numbers(learned.seen.targets)[rows]
    found = learned.head.outputs(learned.material.at(rows))
    return (
        y,
        np.asarray(verdict.marks["right"], bool),
        float(average_precision_score(np.eye(found.shape[1])[y], found)),
    )


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    options = parser.parse_args()
    rows, values, worse = [], {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, most in SETS:
            table = read_table(options.data / name)
            for ratio in RATIOS:
                draws = [parted(table, most, ratio, draw) for draw in range(options.draws)]
                found = {
                    aim: [one(part, aim, options.cache or folder, k) for k, part in enumerate(draws)] for aim in AIMS
                }
                y = np.concatenate([each[0] for each in found["accuracy"]])
                right = {aim: np.concatenate([each[1] for each in found[aim]]) for aim in AIMS}
                recall = {aim: float(np.mean([right[aim][y == c].mean() for c in np.unique(y)])) for aim in AIMS}
                gain = paired_balanced_gain(y, right["balanced"], right["accuracy"])["difference"]
                auprc = {aim: float(np.mean([each[2] for each in found[aim]])) for aim in AIMS}
                worse += gain["high"] < 0
                values[f"{name} 1:{ratio}"] = {"mean recall": recall, "auprc": auprc, "gain": gain}
                cells = [f"{recall[aim]:.1%}" for aim in AIMS] + [measure.points(gain)]
                rows.append([name, f"1:{ratio}", str(len(y)), *cells, *(f"{auprc[aim]:.3f}" for aim in AIMS)])
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    header = (
        "set",
        "ratio",
        "judged",
        "mean recall",
        "--aim balanced",
        "difference, points",
        "AUPRC",
        "--aim balanced",
    )
    targets = [measure.Target("settings on which --aim balanced has a lower mean recall", worse, ceiling=0)]
    measure.publish(options, __doc__ or "", [measure.Table("Rare classes", header, rows)], targets, values)


if __name__ == "__main__":
    main()
