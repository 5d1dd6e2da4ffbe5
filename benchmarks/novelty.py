"""Are images of classes that no model was taught told from those of known ones, and how often are known ones accused?

    python benchmarks/novelty.py [--draws 10] [--only cifar10 ...] [--cache FOLDER]

Each draw leaves 40 % of the classes out; of the others 60 % of the images teach (by whole groups) and the rest are
fresh. AUROC of the novelty against that of the largest probability (maximum soft-max), for the classes left out against
the fresh images; the share of fresh images beyond the limit (5 % is stated), and of those of unseen classes.
hymenoptera stands with scikit-learn's digits as one set. The seeds are other ones than those by which the score's form
was settled (Fashion-MNIST and faces by the same program, these four looked at).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
from coverage import material_of
from sure import digits_at
from threadpoolctl import threadpool_limits

from headstart.data.targets import ClassNumbers, class_numbers
from headstart.heads.material import Material
from headstart.heads.novelty import RATE, novelty_of, part_of
from headstart.heads.taps import tap_sets
from headstart.judge.intervals import accuracy_interval
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import closed_form

SETS = ("hymenoptera", "eurosat_3000", "cifar10", "cifar100")
MOST = {"cifar10": 8000, "cifar100": 10000}  # images of a set
TAUGHT = 3000  # at most


def both(one: Material, other: Material) -> Material:
    """Two sets as one."""
    names = (*one.targets.names, *other.targets.names)
    y = np.concatenate([class_numbers(one.targets), class_numbers(other.targets) + len(one.targets.names)])
    blocks = {name: np.concatenate([block, other.blocks[name]]) for name, block in one.blocks.items()}
    groups = np.concatenate([one.groups, other.groups + int(one.groups.max()) + 1])
    return Material(blocks, ClassNumbers(y, names), groups, (*one.keys, *other.keys), 0)


def auroc(new: Any, known: Any) -> float:
    from scipy.stats import rankdata

    rank = rankdata(np.concatenate([known, new]))[len(known) :]
    return float((rank.sum() - len(new) * (len(new) + 1) / 2) / (len(new) * len(known)))


def one(m: Material, seed: int) -> dict[str, float]:
    rng, y = np.random.default_rng(5000 + seed), class_numbers(m.targets)
    n = len(m.targets.names)
    kept = np.sort(rng.permutation(n)[: max(2, round(0.6 * n))])
    known = np.isin(y, kept)
    groups = rng.permutation(np.unique(m.groups[known]))
    teaches = known & np.isin(m.groups, groups[: int(0.6 * len(groups))])
    train = np.sort(rng.permutation(np.flatnonzero(teaches))[:TAUGHT])
    fresh = np.flatnonzero(known & ~np.isin(m.groups, m.groups[teaches]))
    new = np.flatnonzero(~known & ~np.isin(m.groups, m.groups[teaches]))
    numbers = np.searchsorted(kept, y[train])
    part = m.part(train)
    names = tuple(m.targets.names[k] for k in kept)
    part = Material(part.blocks, ClassNumbers(numbers, names), part.groups, part.keys, 0)
    with threadpool_limits(1):
        head = closed_form(CLASSIFICATION, part, np.arange(len(train)), tap_sets("auto", tuple(m.blocks)))
    read = part_of(head.parts)
    found = novelty_of(m.blocks[read.block], read, train, numbers, m.groups[train], head.left_out, 0)
    assert found is not None
    p = {name: np.exp(head.outputs(m.at(rows))) for name, rows in (("fresh", fresh), ("new", new))}
    score = {k: found.scores(read.of(m.blocks[read.block][r]), p[k]) for k, r in (("fresh", fresh), ("new", new))}
    return {
        "soft-max": auroc(-p["new"].max(axis=1), -p["fresh"].max(axis=1)),
        "novelty": auroc(score["new"], score["fresh"]),
        "accused": float((score["fresh"] > 1).mean()),
        "found": float((score["new"] > 1).mean()),
        "means": float(found.method == "class means"),
        "fresh": len(fresh),
    }


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=list(SETS))
    parser.add_argument("--cache", help="folder of stored features")
    options = parser.parse_args()
    rows, targets, values = [], [], {}
    for name in options.only:
        material = material_of(options.data / name, options.cache, MOST.get(name))
        if name == "hymenoptera":
            with tempfile.TemporaryDirectory() as scratch:
                digits = material_of(digits_at(Path(scratch)), options.cache)
            few = np.sort(np.random.default_rng(0).permutation(len(digits))[:600])
            material = both(material, digits.part(few))
        found = [one(material, seed) for seed in range(options.draws)]
        mean = {what: float(np.mean([f[what] for f in found])) for what in found[0]}
        n = round(mean["fresh"])  # the draws share the images
        stated = accuracy_interval(np.arange(n) < round(RATE * n), None)
        shares = [f"{mean[k]:.1%}" for k in ("accused", "found", "means")]
        rows.append([name, f"{mean['soft-max']:.3f}", f"{mean['novelty']:.3f}", *shares, str(n)])
        targets.append(measure.Target(f"{name}: AUROC above soft-max", mean["novelty"] - mean["soft-max"], floor=0))
        high = float(stated["high"])
        targets.append(measure.Target(f"{name}: known images accused", mean["accused"], ceiling=round(high, 4)))
        values[name] = found
        print(rows[-1], flush=True)
    header = ("set", "AUROC of soft-max", "of novelty", "known accused", "unseen found", "class means chosen", "fresh")
    measure.publish(options, __doc__ or "", [measure.Table(f"{options.draws} draws", header, rows)], targets, values)


if __name__ == "__main__":
    main()
