"""Does `--tune auto` ever end below the frozen model? Fifteen small sets: 5, 20 and 100 images a class of five sets.

    python benchmarks/small_sets.py [--cache FOLDER] [--test 1000]

Of each set so many images a class are drawn to learn from (fewer where there are not so many), and others to judge by,
the same for both models: the frozen one and that of `--tune auto`. The difference is paired.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import measure
import numpy as np

from headstart.data.table import Table, read_table, table_of
from headstart.data.targets import class_numbers
from headstart.judge.intervals import paired_gain
from headstart.story import account, evidence, pipeline
from headstart.story.opening import Options
from headstart.tasks.classification import CLASSIFICATION

PER_CLASS = (5, 20, 100)
SETS = {
    "eurosat_3000": "aerial",
    "cifar10": "photo",
    "hymenoptera": "photo",
    "brain_mri_yes_no": "medical",
    "digits": "document",
}


def digits() -> Table:
    """scikit-learn's 1,797 digits of 8 px."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = [np.repeat((image * 15.9).astype(np.uint8)[..., None], 3, axis=2) for image in found.images]
    return table_of(pictures, [str(label) for label in found.target])


def part(table: Table, per_class: int, n_test: int, seed: int = 0) -> Table:
    """So many training images of each class, and others for a test part; half of a class at most is learned from."""
    order = np.random.default_rng(seed).permutation(len(table))
    train: list[int] = []
    for label in table.classes:
        mine = order[table.labels[order] == label]
        train += list(mine[: min(per_class, len(mine) // 2)])
    test = np.setdiff1d(order, train)
    test = np.random.default_rng(seed).permutation(test)[:n_test]
    rows = np.concatenate([train, test]).astype(np.int64)
    splits = np.array(["train"] * len(train) + ["test"] * len(test), dtype=object)
    return replace(table.take(rows), splits=splits)


def one(table: Table, options: Options) -> dict[str, Any]:
    start = time.perf_counter()
    learned = pipeline.learn(table, options)
    assert learned.tuned is not None
    assert learned.plan.judge is not None
    head, rule = learned.head, learned.rule
    verdict = evidence.judge_rows(CLASSIFICATION, learned.material, head, learned.plan.judge, rule)
    frozen = pipeline.learn(table, Options(cache=options.cache, seed=options.seed))
    rows = learned.plan.judge
    y = class_numbers(learned.seen.targets)[rows]
    before = frozen.head.outputs(frozen.material.at(rows)).argmax(axis=1) == y
    after = verdict.answers.argmax(axis=1) == y
    return {
        "train": len(learned.plan.train),
        "n": len(rows),
        "frozen": float(before.mean()),
        "auto": float(after.mean()),
        "difference": paired_gain(after, before, learned.seen.groups[rows])["difference"],
        "kept": learned.tuned.record.kept,
        "said": account.tuning_line(learned.tuned.record),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    parser.add_argument("--test", type=int, default=1000)
    options = parser.parse_args()
    rows, values = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in SETS.items():
            table = digits() if name == "digits" else read_table(options.data / name)
            for per_class in PER_CLASS:
                settings = Options(tune="auto", augment=kind, cache=options.cache or folder)
                found = one(part(table, per_class, options.test), settings)
                values[f"{name} {per_class}"] = found
                d = found["difference"]
                change = measure.points(d)
                cells = [str(found["train"]), str(found["n"]), f"{found['frozen']:.1%}", f"{found['auto']:.1%}", change]
                rows.append([name, str(per_class), *cells, "tuned" if found["kept"] else "frozen", found["said"]])
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    worse = sum(found["difference"]["high"] < 0 for found in values.values())
    targets = [measure.Target("sets on which auto is below frozen by more than the interval", worse, ceiling=0)]
    header = ("set", "a class", "train", "test", "frozen", "auto", "difference, points", "kept", "said")
    measure.publish(options, __doc__ or "", [measure.Table("Fifteen small sets", header, rows)], targets, values)


if __name__ == "__main__":
    main()
