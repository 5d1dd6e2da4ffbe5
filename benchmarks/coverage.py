"""Does the reported interval hold, and do shuffled labels give chance?

    python benchmarks/coverage.py                 20 halves of eurosat_3000, shuffled labels on three sets

Each half of eurosat_3000 (1,500 images, stratified, drawn anew) is judged by its own cross-validation, as `headstart
fit` judges a folder of 1,500 images; the model that the half gives is then scored on the other half. Target: the
interval holds that score in at least 17 of 20. With shuffled labels the interval must hold chance (the share of the
most frequent class for two classes, 1 / classes for balanced ones).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import numpy as np

from headstart.data.table import read_table
from headstart.data.targets import ClassNumbers, class_numbers
from headstart.heads.material import Material
from headstart.heads.taps import tap_sets
from headstart.story import evidence, opening, pipeline
from headstart.story.plan import make_plan
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import closed_form

SHUFFLED = ("hymenoptera", "brain_mri_yes_no", "eurosat_3000")
MOST = 600  # images of a set for the shuffled labels


def material_of(folder: Path, cache: str | None, most: int | None = None) -> Material:
    """Features of a folder; of more than `most` images of so many, drawn."""
    options = opening.Options(cache=cache)
    table = read_table(folder)
    if most is not None and len(table) > most:
        table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:most]))
    backbone, engine = opening.open_network(table, options)
    features = opening.features_of(table, backbone, engine, options, lambda done: None)
    seen = pipeline.examine(CLASSIFICATION, table, backbone, engine, features)
    return seen.material(0)


def judged(material: Material) -> tuple[dict[str, float], Any]:
    """(accuracy with interval by cross-validation, the model) of these images."""
    none = np.full(len(material), "none", dtype=object)
    plan = make_plan(none, material.targets.strata, material.groups, material.keys, material.seed)
    sets = tap_sets("auto", tuple(material.blocks))
    probe = closed_form(CLASSIFICATION, material, plan.train, sets)
    verdict = evidence.judge(
        material, plan, probe, evidence.Method(CLASSIFICATION, sets), lambda stage, total: lambda done: None
    )
    return verdict.score["accuracy"], probe


def halves(material: Material, draws: int) -> list[tuple[dict[str, float], float]]:
    """(interval of one half, accuracy on the other) of each draw."""
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(material))
        order = order[np.argsort(class_numbers(material.targets)[order], kind="stable")]
        one, other = np.sort(order[::2]), np.sort(order[1::2])
        interval, probe = judged(material.part(one))
        truth = evidence.judge_rows(CLASSIFICATION, material, probe, other, {}).score["accuracy"]["value"]
        found.append((interval, truth))
        print(f"half {seed}: {interval['low']:.4f} to {interval['high']:.4f}, the other half {truth:.4f}", flush=True)
    return found


def shuffled(material: Material) -> tuple[dict[str, float], float]:
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(material))[:MOST])
    part = material.part(rows)
    y = rng.permutation(class_numbers(part.targets))
    interval, _ = judged(replace(part, targets=ClassNumbers(y, part.targets.names)))
    return interval, float(np.bincount(y).max() / len(y))


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--cache", help="folder of stored features")
    options = parser.parse_args()
    found = halves(material_of(options.data / "eurosat_3000", options.cache), options.draws)
    covered = sum(interval["low"] <= truth <= interval["high"] for interval, truth in found)
    chance = {name: shuffled(material_of(options.data / name, options.cache)) for name in SHUFFLED}
    rows = [
        [
            name,
            measure.percent(interval),
            f"{share:.1%}",
            "yes" if interval["low"] <= share <= interval["high"] else "NO",
        ]
        for name, (interval, share) in chance.items()
    ]
    inside = sum(row[-1] == "yes" for row in rows)
    tables = [
        measure.Table("Halves of eurosat_3000", ("draws", "covered"), [[str(len(found)), str(covered)]]),
        measure.Table("Shuffled labels", ("set", "accuracy", "most frequent class", "chance inside"), rows),
    ]
    targets = [
        measure.Target("other halves covered", covered, floor=0.85 * options.draws),
        measure.Target("sets whose interval holds chance", inside, floor=len(SHUFFLED)),
    ]
    measure.publish(options, __doc__, tables, targets, {"halves": found, "shuffled": chance})


if __name__ == "__main__":
    main()
