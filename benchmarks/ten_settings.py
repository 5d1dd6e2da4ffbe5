"""What more passes are worth: eleven settings fixed beforehand, each with the default, `--views 2` and two networks.

    python benchmarks/ten_settings.py [--draws 3] [--arms default mirror pair] [--only NAME ...] [--cache FOLDER]

Ants and bees (244 teach), EuroSAT (2,400, and 20 a class), brain MRI (177, copies on either side), faces (5 a person),
digits (898), Fashion-MNIST (2,000), CIFAR-10 (4, 25, 500 a class), CIFAR-100 (20 a class), drawn anew each time. The
same images teach and judge in every arm; the difference to the default is paired, over all draws. CPU s is of a fit to
its heads; images of earlier draws and arms are stored. What was run takes its place in the record.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray
from ranking import fashion
from small_sets import digits

from headstart.data.table import Table, read_table
from headstart.judge.intervals import paired_gain
from headstart.story import evidence, pipeline
from headstart.story.opening import Options
from headstart.tasks.classification import CLASSIFICATION

ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "mirror": {"views": 2},
    "pair": {"backbone": "efficientnet_lite0+efficientnet_lite2"},
}
MOST = 1000  # images that judge
Rows = NDArray[np.intp]
Drawn = Callable[[Table, np.random.Generator], tuple[Rows, Rows]]


def share(of: float) -> Drawn:
    """This share of the images teaches, and the others judge."""

    def drawn(table: Table, rng: np.random.Generator) -> tuple[Rows, Rows]:
        order = rng.permutation(len(table))
        return order[: round(of * len(table))], order[round(of * len(table)) :]

    return drawn


def a_class(n: int) -> Drawn:
    """So many of each class teach; the images of a test part judge, where there is one, or all others."""

    def drawn(table: Table, rng: np.random.Generator) -> tuple[Rows, Rows]:
        order = rng.permutation(len(table))
        judge = order[table.splits[order] == "test"]
        pool = order[table.splits[order] != "test"]
        teach = np.concatenate([pool[table.labels[pool] == name][:n] for name in table.classes])
        return teach, judge if len(judge) else np.setdiff1d(order, teach)

    return drawn


def in_all(n: int) -> Drawn:
    return lambda table, rng: (lambda order: (order[:n], order[n:]))(rng.permutation(len(table)))


# name: (its images, who teaches and who judges)
SETTINGS: dict[str, tuple[str, Drawn]] = {
    "ants and bees": ("hymenoptera", share(0.615)),
    "EuroSAT": ("eurosat_3000", share(0.8)),
    "EuroSAT, 20 a class": ("eurosat_3000", a_class(20)),
    "brain MRI": ("brain_mri_yes_no", share(0.7)),
    "faces, 5 a person": ("faces_orl", a_class(5)),
    "digits": ("digits", share(0.5)),
    "Fashion-MNIST, 2,000": ("fashion", in_all(2000)),
    "CIFAR-10, 4 a class": ("cifar10", a_class(4)),
    "CIFAR-10, 25 a class": ("cifar10", a_class(25)),
    "CIFAR-10, 500 a class": ("cifar10", a_class(500)),
    "CIFAR-100, 20 a class": ("cifar100", a_class(20)),
}


def table_of(name: str, data: Path) -> Table:
    made = {"digits": digits, "fashion": fashion}.get(name)
    return made() if made else read_table(data / name)


def parted(table: Table, drawn: Drawn, draw: int) -> Table:
    """The images of one draw, with the parts that it says."""
    teach, judge = drawn(table, np.random.default_rng(draw))
    rows = np.concatenate([teach, judge[:MOST]])
    splits = np.array(["train"] * len(teach) + ["test"] * (len(rows) - len(teach)), dtype=object)
    return replace(table.take(rows), splits=splits)


def one(table: Table, arm: str, cache: str, seed: int) -> tuple[NDArray[np.bool_], float, str]:
    """(which judged images are right, CPU seconds, the network that was kept)."""
    start = time.process_time()
    learned = pipeline.learn(table, Options(cache=cache, seed=seed, **ARMS[arm]))
    assert learned.plan.judge is not None
    verdict = evidence.judge_rows(CLASSIFICATION, learned.material, learned.head, learned.plan.judge, learned.rule)
    return np.asarray(verdict.marks["right"], bool), time.process_time() - start, learned.seen.backbone.name


def run(table: Table, drawn: Drawn, arm: str, draws: int, cache: str) -> dict[str, Any]:
    hits, seconds, kept = [], [], []
    for draw in range(draws):
        right, spent, name = one(parted(table, drawn, draw), arm, cache, draw)
        hits.append("".join(map(str, right.astype(int))))
        seconds.append(spent)
        kept.append(name)
    return {"hits": hits, "seconds": seconds, "kept": kept}


def right(found: dict[str, Any]) -> NDArray[np.bool_]:
    """(image,) over all draws."""
    return np.array(list("".join(found["hits"]))) == "1"


def publish(options: Any, values: dict[str, Any]) -> None:
    rows, gains = list[list[str]](), {arm: list[Any]() for arm in ARMS}
    for name, arms in values.items():
        base = arms["default"]
        cells = [name, str(len(base["hits"])), str(len(base["hits"][0]))]
        for arm, found in arms.items():
            by_draw = [np.mean([c == "1" for c in hits]) for hits in found["hits"]]
            cells += [f"{np.mean(by_draw):.2%}", f"{np.median(found['seconds']):.0f}"]
            if arm != "default":
                gain = paired_gain(right(found), right(base))["difference"]
                cells.append(measure.points(gain))
                gains[arm].append(gain)
            if arm == "pair":
                cells.append(f"{sum('+' in network for network in found['kept'])} of {len(found['kept'])}")
        rows.append(cells)
    header = ["setting", "draws", "judged"]
    for arm in next(iter(values.values())):
        header += [arm, "CPU s"] + (["difference, points"] if arm != "default" else []) + ["kept"] * (arm == "pair")
    targets = [
        measure.Target(
            f"settings on which {arm} falls by more than its interval", sum(g["high"] < 0 for g in found), ceiling=0
        )
        for arm, found in gains.items()
        if found
    ]
    measure.publish(options, __doc__ or "", [measure.Table("Eleven settings", tuple(header), rows)], targets, values)


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    options = parser.parse_args()
    record = options.results / "ten_settings.json"
    values = json.loads(record.read_text())["values"] if record.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            of, drawn = SETTINGS[name]
            table = table_of(of, options.data)
            for arm in options.arms:
                found = run(table, drawn, arm, options.draws, options.cache or folder)
                values.setdefault(name, {})[arm] = found
                print(name, arm, f"{right(found).mean():.2%}", f"{np.median(found['seconds']):.0f} s", file=sys.stderr)
                publish(options, values)


if __name__ == "__main__":
    main()
