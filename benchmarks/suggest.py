"""`headstart suggest` against labels at random: from 10 to 50 labels a class on CIFAR-10 and eurosat_3000.

    python benchmarks/suggest.py [--cache FOLDER] [--seeds 5]

All begin with the same 10 labels a class; then as many again are asked for, four times, out of 4,000 (CIFAR-10) or
1,500 (EuroSAT) unlabelled images, the model fitted anew each time (ridge on the pre-logits). Judged on the other
images. `least sure` takes the smallest margins alone. Differences are paired by seed, with Student's t interval.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from typing import Any

import measure
import numpy as np
from more_data import material_of, table_of
from numpy.typing import NDArray
from scipy.stats import t as student

from headstart.heads.choosing import choose
from headstart.heads.material import Material
from headstart.heads.taps import last
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import closed_form

SETS = {"cifar10": 4000, "eurosat_3000": 1500}  # images without a label
STEPS = (10, 20, 30, 40, 50)  # labels a class, on average
Ints = NDArray[np.int64]
Arm = Callable[[Ints, Ints, NDArray[Any], int], Ints]  # (labelled, unlabelled, probabilities, n) -> rows


def arms(features: NDArray[Any], rng: np.random.Generator) -> dict[str, Arm]:
    def suggested(have: Ints, pool: Ints, p: NDArray[Any], n: int) -> Ints:
        return np.asarray(pool[choose(features[pool], p, n, features[have]).rows])

    def least_sure(have: Ints, pool: Ints, p: NDArray[Any], n: int) -> Ints:
        two = np.sort(p, axis=1)[:, -2:]
        return np.asarray(pool[np.argsort(two[:, 1] - two[:, 0])[:n]])

    def at_random(have: Ints, pool: Ints, p: NDArray[Any], n: int) -> Ints:
        return rng.choice(pool, n, replace=False)

    return {"random": at_random, "least sure": least_sure, "suggest": suggested}


def curve(material: Material, arm: str, features: NDArray[Any], n_pool: int, seed: int) -> list[float]:
    """Accuracy at each of STEPS."""
    y, k = material.targets.strata, len(material.targets.names)
    order = np.random.default_rng(seed).permutation(len(y))
    pool, test = order[:n_pool], order[n_pool:]
    have = np.concatenate([pool[y[pool] == c][: STEPS[0]] for c in range(k)])
    pick, found = arms(features, np.random.default_rng(seed))[arm], []
    for step in STEPS:
        head = closed_form(CLASSIFICATION, material, np.sort(have), (last(),))
        found.append(float((head.outputs(material.at(np.sort(test))).argmax(axis=1) == y[np.sort(test)]).mean()))
        if step < STEPS[-1]:
            free = np.setdiff1d(pool, have)
            said = np.exp(head.outputs(material.at(free)))
            have = np.concatenate([have, pick(have, free, said, (STEPS[1] - STEPS[0]) * k)])
    return found


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows, values = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, n_pool in SETS.items():
            material = material_of(table_of(options.data, name), options.cache or folder)
            features = last().of(material.blocks)
            found = {
                arm: np.array([curve(material, arm, features, n_pool, seed) for seed in range(options.seeds)])
                for arm in ("random", "least sure", "suggest")
            }
            values[name] = {arm: of.tolist() for arm, of in found.items()}
            for k, step in enumerate(STEPS):
                cells = [f"{100 * of[:, k].mean():.1f}" for of in found.values()]
                for arm in ("least sure", "suggest"):
                    d = 100 * (found[arm][:, k] - found["random"][:, k])
                    half = student.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
                    cells.append(f"{d.mean():+.1f} ({d.mean() - half:+.1f} to {d.mean() + half:+.1f})")
                rows.append([name, str(step), *cells])
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    header = (
        "set",
        "labels a class",
        "random, %",
        "least sure",
        "suggest",
        "least sure less random",
        "suggest less random",
    )
    measure.publish(options, __doc__ or "", [measure.Table("Labels asked for", header, rows)], [], values)


if __name__ == "__main__":
    main()
