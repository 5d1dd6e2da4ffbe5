"""Which head suits a tuned network: each of `finetune.choice.SHARES`, on images that taught nothing.

    python benchmarks/tuned_heads.py [--seeds 0 1] [--size 96] [--test 3000] [--cache FOLDER]

`--tune last`, and once a deeper cut, of small sets; the head is given and not chosen, the training is the same for all
heads of a seed. "chosen": the one that the held-out images choose. "frozen": headstart's own head on several layers of
the frozen network, from the same images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from unittest import mock

import measure
import numpy as np
from small_sets import part

from headstart.data.table import Table, read_table
from headstart.finetune import choice
from headstart.story import evidence, pipeline
from headstart.story.opening import Options
from headstart.tasks.classification import CLASSIFICATION

SETS = (  # set, images a class, what learns, kind of picture
    ("cifar10", 100, "last", "photo"),
    ("cifar10", 300, "last", "photo"),
    ("eurosat_3000", 100, "last", "aerial"),
    ("cifar10", 100, "blocks.2", "photo"),
)


def scores(table: Table, options: Options) -> dict[str, tuple[float, float]]:
    """Head -> (accuracy, log-loss) on the images to judge by."""

    def of(some: Options) -> tuple[float, float]:
        learned = pipeline.learn(table, some)
        assert learned.plan.judge is not None
        head, rule = learned.head, learned.rule
        found = evidence.judge_rows(CLASSIFICATION, learned.material, head, learned.plan.judge, rule).score
        return found.value("accuracy"), found.value("log_loss")

    values = {"frozen": of(replace(options, tune="none")), "chosen": of(options)}
    for name in choice.SHARES:
        with mock.patch.object(choice, "_least", lambda *given, name=name: name):
            values[name] = of(options)
    return values


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--test", type=int, default=3000)
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options, Options(size=options.size, cache=options.cache or folder))


def run(options: argparse.Namespace, base: Options) -> None:
    rows, values = [], {}
    for name, per_class, tune, kind in SETS:
        table = part(read_table(options.data / name), per_class, options.test)
        asked = replace(base, tune=tune, augment=kind)
        found = [scores(table, replace(asked, seed=seed)) for seed in options.seeds]
        values[f"{name} {per_class} {tune}"] = found
        for head in found[0]:
            accuracy, loss = np.mean([one[head] for one in found], axis=0)
            rows.append([name, str(10 * per_class), tune, head, f"{accuracy:.1%}", f"{loss:.3f}"])
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    header = ("set", "images", "tune", "head", "accuracy", "log-loss")
    title = f"Heads on tuned networks, means of {len(options.seeds)} seeds"
    measure.publish(options, __doc__ or "", [measure.Table(title, header, rows)], [], values)


if __name__ == "__main__":
    main()
