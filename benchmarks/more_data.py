"""Does the interval of "twice the images would bring" hold? The upper half of the images is hidden.

    python benchmarks/more_data.py [--cache FOLDER] [--draws 10]

Of each set n images are drawn, and the learning curve of them is continued to 2 n as `fit` does it. Then as many others
are added: the truth is what a model of all 2 n answers rightly more often than one of the n, on all images left over.
Both are ridge on the pre-logits, as the curve is. CIFAR-100 and digits chose `outlook.STRAY`; the others judge.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray
from small_sets import digits

from headstart.data.table import Table, read_table
from headstart.heads.material import Material
from headstart.heads.taps import last
from headstart.story import evidence
from headstart.story.folds import refitter
from headstart.story.opening import Options, features_of, open_network
from headstart.story.plan import Plan
from headstart.tasks.classification import CLASSIFICATION, targets_of
from headstart.tasks.task import closed_form

SETS = {  # n
    "cifar100": (1000, 2000),
    "digits": (100, 200, 400),
    "cifar10": (100, 300, 1000, 2000),
    "eurosat_3000": (100, 300, 800),
    "hymenoptera": (40, 100),
    "brain_mri_yes_no": (40, 80),
    "faces_orl": (120,),
}
CHOSE = ("cifar100", "digits")
MOST = 12_000  # images of a set


def table_of(data: Path, name: str) -> Table:
    table = digits() if name == "digits" else read_table(data / name)
    rows = np.flatnonzero(table.splits == "train") if len(table) > MOST else np.arange(len(table))
    return table.take(np.sort(np.random.default_rng(0).permutation(rows)[:MOST]))


def material_of(table: Table, cache: str) -> Material:
    """Images without their copies."""
    options = Options(cache=cache)
    backbone, engine = open_network(table, options)
    found = features_of(table, backbone, engine, options, lambda done: None)
    _, first = np.unique(np.array(found.hashes), return_index=True)
    targets = targets_of(table.take(found.kept[first]), table.classes)
    blocks = {last().parts[0].block: found.blocks[last().parts[0].block][first]}
    return Material(blocks, targets, np.arange(len(first)), tuple(found.hashes[k] for k in first), 0)


def order_of(strata: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """The rows, two of each class first."""
    order = rng.permutation(len(strata))
    nth = np.array([(strata[order[:k]] == strata[order[k]]).sum() if k < 2000 else 9 for k in range(len(order))])
    return np.asarray(order[np.argsort(nth >= 3, kind="stable")], dtype=np.int64)


def trials(material: Material, sizes: tuple[int, ...], draws: int) -> Iterator[dict[str, Any]]:
    y = material.targets.strata
    method = evidence.Method(CLASSIFICATION, (last(),))
    for draw in range(draws):
        order = order_of(y, np.random.default_rng(draw))
        for n in sizes:
            rows, test = np.sort(order[:n]), order[2 * n :]
            part = material.part(rows)
            plan = Plan("cross-validation", np.arange(n), None, None, np.full(n, "train", dtype=object))
            head = closed_form(CLASSIFICATION, part, plan.train, method.sets)
            told = evidence.curve(part, plan, head, method)[-1].get("twice")
            fit = refitter(CLASSIFICATION, material, method.sets, quick=True)
            right = [float((fit(order[:k])(test).argmax(axis=1) == y[test]).mean()) for k in (n, 2 * n)]
            yield {"n": n, "draw": draw, "told": told, "truth": right[1] - right[0], "at": right[0], "test": len(test)}


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    rows, values, judges = [], {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, sizes in SETS.items():
            found = list(
                trials(material_of(table_of(options.data, name), options.cache or folder), sizes, options.draws)
            )
            values[name] = found
            for n in sizes:
                mine = [f for f in found if f["n"] == n]
                said = [f for f in mine if f["told"]]
                holds = [f["told"]["low"] <= f["truth"] <= f["told"]["high"] for f in said]
                judges += [] if name in CHOSE else holds
                mean = {k: 100 * float(np.mean([f["told"][k] for f in said])) for k in ("value", "low", "high")}
                cells = [
                    f"{100 * np.mean([f['at'] for f in mine]):.1f}",
                    f"{100 * np.mean([f['truth'] for f in mine]):+.1f}",
                ]
                cells += [
                    f"{mean['value']:+.1f}, {mean['low']:.1f} to {mean['high']:.1f}",
                    f"{sum(holds)} of {len(said)}",
                ]
                rows.append([name, str(n), str(mine[0]["test"]), *cells])
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    targets = [
        measure.Target(
            "share of intervals that hold the truth, sets that chose nothing", float(np.mean(judges)), floor=0.9
        )
    ]
    header = ("set", "n", "judged on", "accuracy at n, %", "gain at 2 n, points", "told (means)", "held")
    measure.publish(options, __doc__ or "", [measure.Table("Twice the images", header, rows)], targets, values)


if __name__ == "__main__":
    main()
