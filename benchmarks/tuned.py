"""What fine-tuning is worth: accuracy with and without, on the same images, paired, over some seeds.

    python benchmarks/tuned.py [--seeds 0 1 2] [--only cifar10_5000 ...] [--tune auto] [--cache FOLDER]

Each run is `headstart fit --tune ...` with a seed of its own; "frozen" is headstart's own head on several layers of
the same network, judged on the same images. Sets without a test part are judged by 5-fold cross-validation in which
all is chosen anew, sets with one by its images, once. cifar10_5000: 500 training images of each class, drawn anew with
each seed, all 10,000 test images. eurosat_3000_all: all of the network learns, in every fold, with smaller pictures
and half the epochs, so that three seeds end in an hour. With a cache that is kept, a run that was killed goes on. What
is asked for is run and takes its place in the record; other sets and seeds stay in it as they were, so that seeds can
run side by side.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
from scipy import stats

from headstart.data.table import Table, read_table
from headstart.story import account, pipeline
from headstart.story.opening import Options, Watcher

PER_CLASS = 500  # of cifar10_5000
# set: (settings, least accuracy wanted in %)
SETS: dict[str, tuple[dict[str, Any], float | None]] = {
    "eurosat_3000": ({"augment": "aerial"}, 96.0),
    "eurosat_3000_all": ({"augment": "aerial", "tune": "all", "size": 96, "epochs": 6}, 96.0),
    "hymenoptera": ({}, None),
    "brain_mri_yes_no": ({"augment": "medical"}, None),
    "cifar10_5000": ({}, 88.0),
    "cifar10": ({"epochs": 12}, 94.0),
}


def table_of(name: str, data: Path, seed: int) -> Table:
    table = read_table(data / name.removesuffix("_5000").removesuffix("_all"))
    return few(table, PER_CLASS, seed) if name == "cifar10_5000" else table


def few(table: Table, per_class: int, seed: int) -> Table:
    """This many training images of each class, and all test images."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(table.splits == "train"))
    chosen = np.concatenate([order[table.labels[order] == label][:per_class] for label in table.classes])
    return table.take(np.concatenate([chosen, np.flatnonzero(table.splits == "test")]))


def one(name: str, data: Path, options: Options) -> dict[str, Any]:
    """Accuracy of the model and of the frozen one, their difference, and what was decided."""
    start = time.perf_counter()
    say = Watcher(lambda text: print(f"{name} {options.seed}: {text}", file=sys.stderr, flush=True))
    fitted = pipeline.fit(table_of(name, data, options.seed), options, say)
    frozen = next(b for b in fitted.baselines if b.kind == "frozen")
    assert fitted.tuning is not None
    return {
        "accuracy": fitted.verdict.score["accuracy"],
        "n": fitted.verdict.score.n,
        "frozen": frozen.scores["accuracy"],
        "difference": frozen.difference["difference"],
        "said": account.tuning_line(fitted.tuning),
        "tuning": {key: value for key, value in fitted.tuning.to_json().items() if key != "compared"},
        "seconds": {stage: round(s, 1) for stage, s in fitted.seconds.items()},
        "wall": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--tune", default="auto")
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    options = parser.parse_args()
    record = options.results / "tuned.json"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Options(tune=options.tune, cache=options.cache or folder)
        for name in options.only:
            for seed in options.seeds:
                asked = replace(base, **{"seed": seed} | SETS[name][0])
                run = one(name, options.data, asked)
                found = json.loads(record.read_text())["values"] if record.exists() else {}
                settled = {"tune": asked.tune, "settings": SETS[name][0]}
                known = found.get(name, {})
                runs = known["runs"] if settled.items() <= known.items() else {}
                found[name] = settled | {"runs": dict(sorted((runs | {str(seed): run}).items()))}
                publish(options, found)


def publish(options: argparse.Namespace, found: dict[str, Any]) -> None:
    rows, targets = [], []
    for name, (_, floor) in SETS.items():
        if name not in found:
            continue
        runs = found[name]["runs"]
        mean = 100 * float(np.mean([run["accuracy"]["value"] for run in runs.values()]))
        for seed, run in runs.items():
            gain = run["difference"]
            change = measure.points(gain) if gain else ""
            cells = [measure.percent(run["accuracy"]), measure.percent(run["frozen"]), change, f"{run['wall']:.0f}"]
            rows.append([name, found[name]["tune"], seed, str(run["n"]), *cells, run["said"]])
        if len(runs) > 1:
            rows.append([name, found[name]["tune"], "mean", "", *_means(list(runs.values())), "", "95 % interval"])
        if floor:
            targets.append(measure.Target(f"{name}: mean accuracy of {len(runs)} seeds, %", mean, floor=floor))
    header = ("set", "tune", "seed", "n", "accuracy", "frozen", "difference, points", "seconds", "said")
    measure.publish(options, __doc__ or "", [measure.Table("Tuned against frozen", header, rows)], targets, found)


def _means(runs: list[dict[str, Any]]) -> list[str]:
    """Tuned, frozen, paired difference: the mean over the seeds and its 95 % interval (Student's t), points."""
    values = [[run[what]["value"] for what in ("accuracy", "frozen", "difference")] for run in runs]
    columns = 100 * np.array(values)
    means = columns.mean(axis=0)
    halves = stats.t.ppf(0.975, len(runs) - 1) * columns.std(axis=0, ddof=1) / np.sqrt(len(runs))
    return [f"{mean:.1f} ± {half:.1f}" for mean, half in zip(means, halves, strict=True)]


if __name__ == "__main__":
    main()
