"""Wrong labels planted in real sets: what the list of suspects finds, whether its number holds, and what mending gains.

    python benchmarks/planted_labels.py FEATURES [--draws 4] [--record NAME]

FEATURES: a folder of files NAME.npz with `labels` (image,), `splits` (image,), `groups` (image,) and `features` (image,
feature), the last layer of the default network. 5 % of the labels of a random part of each set are made another class:
any one alike, or one that the model takes for the image's own; or none is touched. Ridge and LDA learn from them, and
what they answer left out makes the list. "held": draws in which the wrong labels of the list are within what is said.
Labels of the list that suggest another class are then changed, all of them unseen, and images that did not teach, with
their own labels, judge before and after. Nothing was chosen on these sets.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

from headstart.heads.probe import Probe, fit_probe
from headstart.heads.taps import Part, TapSet
from headstart.judge.labels import expected, suspected_labels

TAPS = (TapSet("last", (Part("last", root=True, unit=True),)),)
SHARE = 0.05
# set -> images that teach: weak models learn from few
SETS = {
    "hymenoptera": (250,),
    "brain": (200,),
    "faces": (300,),
    "digits": (100, 1200),
    "eurosat": (100, 200, 2000),
    "fashion": (100, 2000),
    "cifar10": (150, 500, 2000),
    "cifar100": (2000,),
}
HEADER = ("set", "images", "planted", "accuracy", "average precision", "list", "said", "wrong", "held", "mended")


def fitted(x: Any, y: NDArray[np.int64], groups: Any) -> Probe:
    return fit_probe({"last": x}, y, groups, TAPS, ("ridge", "lda"), 0)


def planted(y: Any, kind: str, logs: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """(labels, which are wrong)."""
    n_classes, noisy = int(y.max()) + 1, y.copy()
    wrong = np.zeros(len(y), bool)
    if kind == "none":
        return noisy, wrong
    wrong[rng.choice(len(y), round(SHARE * len(y)), replace=False)] = True
    for row in np.flatnonzero(wrong):
        weight = np.ones(n_classes) if kind == "any" else np.exp(logs[row] / 2)
        weight[y[row]] = 0
        noisy[row] = rng.choice(n_classes, p=weight / weight.sum())
    return noisy, wrong


def average_precision(score: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    hits = wrong[np.argsort(-score, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()) if hits.any() else float("nan")


def one(data: Any, n: int, kind: str, seed: int) -> dict[str, float]:
    rng = np.random.default_rng([seed, n])
    order = rng.permutation(len(data["labels"]))
    taught, judged = order[:n], order[n : n + 2000]
    names, y = np.unique(data["labels"][taught], return_inverse=True)
    x, groups = data["features"][taught], data["groups"][taught]
    logs = fitted(x, y, groups).left_out if kind == "alike" else None
    noisy, wrong = planted(y, kind, logs, rng)
    head = fitted(x, noisy, groups)
    answers = np.exp(head.left_out)
    found = suspected_labels(noisy, answers, [str(name) for name in names])
    said, rows = expected(found), [s.row for s in found]
    mended = noisy.copy()
    mended[rows] = [s.suggested for s in found]
    truth = data["labels"][judged]

    def accuracy(by: Probe) -> float:
        return float((names[by.outputs({"last": data["features"][judged]}).argmax(axis=1)] == truth).mean())

    before = accuracy(head)
    own = answers[np.arange(n), noisy]
    return {
        "accuracy": float((head.left_out.argmax(axis=1) == y).mean()),
        "precision": average_precision(answers.max(axis=1) - own, wrong),
        "n": said.n,
        "said": said.wrong,
        "wrong": float(wrong[rows].sum()),
        "held": float(said.low <= wrong[rows].sum() <= said.high),
        "before": before,
        "after": accuracy(fitted(x, mended, groups)) if rows and len(set(mended)) == len(names) else before,
    }


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("features", type=Path, metavar="FEATURES")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--record", metavar="NAME")
    options: argparse.Namespace = parser.parse_args()
    lines, values, sure, held = [], {}, [], []
    for name, sizes in SETS.items():
        with np.load(options.features / f"{name}.npz") as file:
            data = dict(file)
        for n in sizes:
            for kind in ("none", "any", "alike"):
                draws = [one(data, n, kind, seed) for seed in range(options.draws)]
                mean = {key: float(np.mean([draw[key] for draw in draws])) for key in draws[0]}
                values[f"{name} {n} {kind}"] = draws
                held += [draw["held"] for draw in draws]
                sure += [mean["precision"]] if mean["accuracy"] > 0.95 and kind == "any" else []
                gain = f"{mean['before']:.1%} to {mean['after']:.1%}"
                numbers = (mean["accuracy"], mean["precision"])
                counts = (mean["n"], mean["said"], mean["wrong"])
                kept = f"{int(sum(d['held'] for d in draws))} of {len(draws)}"
                lines.append(
                    (name, str(n), kind, *(f"{v:.3f}" for v in numbers), *(f"{v:.1f}" for v in counts), kept, gain)
                )
                print(*lines[-1], flush=True)
    targets = [
        measure.Target("least average precision where more than 95 % are right", min(sure), floor=0.8),
        measure.Target("share of draws in which the number holds", float(np.mean(held)), floor=0.95),
    ]
    measure.publish(options, __doc__ or "", [measure.Table("Planted labels", HEADER, lines)], targets, values)


if __name__ == "__main__":
    main()
