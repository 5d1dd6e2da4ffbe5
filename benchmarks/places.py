"""Pictures of several places teach, and others judge: CIFAR-10 and EuroSAT, each place with pictures of its own kind.

    python benchmarks/places.py [--draws 2] [--cache FOLDER]

500 pictures teach, in three or four kinds at random: as they are, grey, blurred, inverted, edges, half or twice the
resolution. 500 others judge in each of the kinds that taught, and in each other. The groups of `fit --group` are the
kinds; what is left out to choose by is a whole kind then. `all stages`: with groups, but early stages count as any
other. The last layer alone is what should be reached.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
from travels import KINDS, changed, parts, right

from headstart.data.table import Table, read_table, table_of
from headstart.heads.taps import last
from headstart.story import pipeline
from headstart.story.opening import Options, features_of
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import closed_form

SETS = (("cifar10", 50), ("eurosat_3000", 200))
TEACH = 500
PLACES = (
    ("the same", "grey", "blurred"),
    ("the same", "inverted", "half the resolution"),
    ("grey", "edges", "twice the resolution"),
    ("the same", "blurred", "twice the resolution", "half the resolution"),
)
ARMS = ("last layer", "no groups", "all stages", "groups")


def one(table: Table, a_class: int, draw: int, cache: str) -> dict[str, dict[str, dict[str, float]]]:
    """places -> kind that is judged -> arm -> accuracy."""
    rows, options, found = parts(table, a_class, draw)[1], Options(cache=cache, seed=draw), {}
    truth, shown = table.labels[rows], {kind: changed(table, rows, kind) for kind in KINDS}
    teach, judge = np.arange(TEACH), np.arange(TEACH, len(rows))
    for places in PLACES:
        kinds = np.array(places, dtype=object)[np.random.default_rng(draw).integers(0, len(places), TEACH)]
        pictures = [shown[kind].read(row) for row, kind in zip(teach, kinds, strict=True)]
        apart = table_of(pictures, list(truth[teach]))
        plain, learned = (pipeline.learn(t, options, hold_out=False) for t in (apart, replace(apart, groups=kinds)))
        material, train, seen = learned.material, learned.plan.train, learned.seen
        blocks, names = tuple(material.blocks), np.array(seen.targets.names)
        heads: dict[str, Any] = {
            "last layer": closed_form(CLASSIFICATION, plain.material, plain.plan.train, (last(),)),
            "no groups": plain.head,
            "all stages": closed_form(CLASSIFICATION, material, train, CLASSIFICATION.sets("auto", blocks)),
            "groups": learned.head,
        }
        there = {
            kind: features_of(shown[kind].take(judge), seen.backbone, seen.engine, options, lambda done: None).blocks
            for kind in KINDS
        }
        found[", ".join(places)] = {
            kind: {
                arm: right(head, there[kind], names, truth[judge], np.arange(len(judge))) for arm, head in heads.items()
            }
            for kind in KINDS
        }
    return found


def mean(draws: list[Any], places: str, kinds: list[str], arm: str) -> float:
    return float(np.mean([draw[places][kind][arm] for draw in draws for kind in kinds]))


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    options = parser.parse_args()
    tables, values, targets = [], {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, a_class in SETS:
            table = read_table(Path(options.data) / name)
            draws = [one(table, a_class, draw, options.cache or folder) for draw in range(options.draws)]
            rows, gains = [], []
            for places in (", ".join(some) for some in PLACES):
                taught = places.split(", ")
                for said, kinds in (("these", taught), ("others", [kind for kind in KINDS if kind not in taught])):
                    by_arm = [mean(draws, places, kinds, arm) for arm in ARMS]
                    rows.append([places, said, *(f"{share:.1%}" for share in by_arm)])
                    gains += [100 * (by_arm[-1] - by_arm[0])] if said == "others" else []
            tables.append(measure.Table(f"{name}, {TEACH} teach", ("places that teach", "judged", *ARMS), rows))
            values[name] = draws
            targets.append(
                measure.Target(
                    f"{name}: points above the last layer at other places", round(float(np.mean(gains)), 2), 0
                )
            )
            print(tables[-1], file=sys.stderr, flush=True)
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
