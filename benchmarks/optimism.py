"""Is the reported accuracy the true one? Small sets drawn from a large one, judged as `fit` judges them.

    python benchmarks/optimism.py --draws 200       eurosat_3000 and CIFAR-10 (its 10,000 test images)

Each draw has 100 to 500 images, stratified, some classes thinned where the aim is `balanced`. Its own cross-validation
says what `fit` would report, heads, layers, penalties, calibration and decisions chosen by the draw alone; the images
that were not drawn, thousands, say what is true. Thinned draws are held against the mean recall of the rest.
With `--backbone auto` the network is chosen by the draw too, among NETWORKS (a third of the draws: they take longer).
Target: reported less true within 0.5 points of 0 on average, the 95 % interval holds the truth of 93 to 97 % of draws.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import measure
import numpy as np

from headstart.data.table import Table, read_table
from headstart.heads.material import Ints, Material
from headstart.heads.taps import tap_sets
from headstart.story import evidence, opening, pipeline
from headstart.story.candidates import named
from headstart.story.plan import make_plan
from headstart.story.rank import Asked, rank
from headstart.tasks.aims import with_aim
from headstart.tasks.classification import CLASSIFICATION
from headstart.trunk.backbone import resolve

SETS = {"eurosat_3000": "eurosat_3000", "cifar10": "cifar10/test-00000-of-00001.parquet"}
AUTO = "--backbone auto"
SIZES = (100, 200, 500)
NETWORKS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
THINNED = 0.25  # of the images of every second class, where the aim is `balanced`


Found = dict[str, float]


def material_of(table: Table, options: opening.Options) -> Material:
    backbone, engine = opening.open_network(table, options)
    features = opening.features_of(table, backbone, engine, options, lambda done: None)
    return pipeline.examine(CLASSIFICATION, table, backbone, engine, features).material(0)


def drawn(y: Ints, groups: Ints, n: int, thin: bool, rng: np.random.Generator) -> Ints:
    """Rows: about n, of each class alike or, of every second one, fewer; no group is divided."""
    rows = []
    for k in np.unique(y):
        most = n // (int(y.max()) + 1)
        most = max(3, round(THINNED * most)) if thin and k % 2 else most
        rows.append(rng.permutation(np.flatnonzero(y == k))[:most])
    return np.flatnonzero(np.isin(groups, groups[np.concatenate(rows)]))


def chosen(table: Table, materials: dict[str, Material], rows: Ints, options: opening.Options) -> Material:
    """Of the network that `--backbone auto` takes for these rows."""
    found = rank(CLASSIFICATION, table.take(rows), options, Asked(named(",".join(materials))))
    return next(m for network, m in materials.items() if resolve(network) == found.chosen.backbone)


def one(table: Table, materials: dict[str, Material], how: opening.Options, n: int, aim: str, seed: int) -> Found:
    material = materials[NETWORKS[0]]
    y, names = material.targets.strata, material.targets.names
    rows = drawn(y, material.groups, n, aim == "balanced", np.random.default_rng(seed))
    if aim == AUTO:
        material = chosen(table, materials, rows, how)
    rest = np.setdiff1d(np.arange(len(y)), rows)
    asked, counts = "accuracy" if aim == AUTO else aim, np.bincount(y[rows]).tolist()
    task = with_aim(CLASSIFICATION, asked, None, names, counts, None, None)
    part = material.part(rows)
    none = np.full(len(rows), "none", dtype=object)
    plan = make_plan(none, part.targets.strata, part.groups, part.keys, seed)
    method = evidence.Method(task, tap_sets("auto", tuple(part.blocks)))
    shared = evidence.shared_of(part, plan, method)
    head = evidence.final_head(part, plan, method, lambda *_: lambda done: None, shared)
    verdict = evidence.judge(part, plan, head, method, lambda *_: lambda done: None, shared)
    rule = evidence.rule_of(task, part, plan.train, head)
    name = task.judging.headline.name
    truth = evidence.judge_rows(task, material, head, rest, rule).score.value(name)
    found: Any = verdict.score[name]
    return {"n": n, "reported": found["value"], "low": found["low"], "high": found["high"], "true": truth}


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--cache", help="folder of stored features")
    options = parser.parse_args()
    rows, targets, record = [], [], {}
    for name, place in SETS.items():
        table, how = read_table(options.data / place), opening.Options(cache=options.cache)
        materials = {network: material_of(table, replace(how, backbone=network)) for network in NETWORKS}
        assert len({len(m) for m in materials.values()} | {len(table)}) == 1  # all can be read
        for aim in ("accuracy", "balanced", AUTO):
            draws = range(options.draws // 3 if aim == AUTO else options.draws)
            found = [one(table, materials, how, SIZES[seed % len(SIZES)], aim, seed) for seed in draws]
            record[f"{name}, {aim}"] = found
            off = np.array([f["reported"] - f["true"] for f in found])
            held = np.mean([f["low"] <= f["true"] <= f["high"] for f in found])
            width = np.mean([f["high"] - f["low"] for f in found])
            error = 1.96 * off.std(ddof=1) / len(off) ** 0.5
            told = (f"{100 * off.mean():+.2f} +- {100 * error:.2f}", f"{held:.1%}", f"{100 * width:.1f}")
            rows.append([name, aim, str(len(found)), *told])
            print(*rows[-1], sep="   ", flush=True)
            targets += [
                measure.Target(f"{name}, {aim}: points off", abs(100 * float(off.mean())), ceiling=0.5),
                measure.Target(f"{name}, {aim}: covered", float(held), floor=0.93),
                measure.Target(f"{name}, {aim}: covered, at most", float(held), ceiling=0.97),
            ]
    header = ("set", "aim", "draws", "reported less true, points", "interval holds the truth", "its width, points")
    measure.publish(options, __doc__, [measure.Table("Optimism", header, rows)], targets, record)


if __name__ == "__main__":
    main()
