"""Who is it, on 40 people x 10 pictures: identification, strangers, and pairs of people whom the metric never saw.

    python benchmarks/recognition.py [--draws 20]

Everything is chosen on the images that teach: the metric by identities left out, the thresholds by strangers among
them. Three questions a draw:
1. 5 pictures a person enrolled, the other 5 tested.
2. 20 people enrolled with 5 pictures and tested with 5, 20 unknown: right and accepted at the threshold that 1 % of the
   unknown pictures pass, and at the model's own threshold, with the share of strangers that it lets in.
3. Pairs of 8 people, by a metric of the 32 others, in five folds; and of 20 people by a metric of the 20 others.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import coverage
import measure
import numpy as np

from headstart.data.targets import class_numbers
from headstart.heads.embedding import fit_embedding
from headstart.heads.recognition import fit_recogniser
from headstart.heads.taps import tap_sets
from headstart.judge.identities import equal_error_rate, scored_pairs, together


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--cache", help="folder of stored features")
    options = parser.parse_args()
    material = coverage.material_of(options.data / "faces_orl", options.cache)
    y, groups = class_numbers(material.targets), material.groups
    n = int(y.max()) + 1
    names = [f"{i:02}" for i in range(n)]
    (taps,) = tap_sets("all", tuple(material.blocks))
    found: dict[str, list[float]] = {}
    chosen: Counter[str] = Counter()

    def model(rows: Any) -> Any:
        made = fit_recogniser(material.at(rows), y[rows], names, groups[rows], taps.parts, 0)
        chosen[str(made.embedding.shrinkage)] += 1
        return made

    def answers(made: Any, rows: Any) -> tuple[Any, Any]:
        best, similarity = made.gallery.best(made.embedding.embed(material.at(rows)))
        return np.array([int(made.gallery.names[i]) for i in best]) == y[rows], similarity

    def pairs(taught: Any, away: Any) -> Any:
        metric = fit_embedding(material.at(taught), y[taught], groups[taught], taps.parts, 0)
        chosen[str(metric.shrinkage)] += 1
        return scored_pairs(metric.embed(material.at(away)), y[away], groups[away], 0)

    def one(seed: int) -> dict[str, float]:
        rng = np.random.default_rng(seed)
        by_person = np.stack([rng.permutation(np.flatnonzero(y == c)) for c in range(n)])
        person = rng.permutation(n)
        half = n // 2
        right, _ = answers(model(by_person[:, :5].ravel()), by_person[:, 5:].ravel())
        made = model(by_person[person[:half], :5].ravel())
        hit, own = answers(made, by_person[person[:half], 5:].ravel())
        _, other = answers(made, by_person[person[half:]].ravel())
        allowed = np.sort(other)[::-1][int(0.01 * len(other))]  # so many lie above
        folds = []
        for some in np.array_split(person, 5):
            away = np.isin(y, some)
            folds.append(pairs(np.flatnonzero(~away & ~np.isin(groups, groups[away])), np.flatnonzero(away)))
        pooled = together(folds)
        new = np.isin(y, person[half:])
        halves = pairs(np.flatnonzero(~new & ~np.isin(groups, groups[new])), np.flatnonzero(new))
        return {
            "identification": float(right.mean()),
            "open set, 1 % of the strangers pass": float((hit & (own > allowed)).mean()),
            "open set, the model's threshold": float((hit & (own >= made.identify.value)).mean()),
            "strangers that pass the model's threshold": float((other >= made.identify.value).mean()),
            "EER, metric of 32 others": equal_error_rate(pooled.genuine, pooled.impostor),
            "EER, metric of 20 others": equal_error_rate(halves.genuine, halves.impostor),
        }

    for seed in range(options.draws):
        values = one(seed)
        print(seed, {k: round(v, 4) for k, v in values.items()}, flush=True)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    rows = [[k, f"{np.mean(v):.2%}", f"{min(v):.2%}", f"{max(v):.2%}"] for k, v in found.items()]
    tables = [
        measure.Table(f"faces_orl, {options.draws} draws", ("what", "mean", "lowest", "highest"), rows),
        measure.Table("Chosen", ("shrinkage", "times"), [[k, str(v)] for k, v in sorted(chosen.items())]),
    ]
    mean = {k: float(np.mean(v)) for k, v in found.items()}
    targets = [
        measure.Target("identification", mean["identification"], floor=0.995),
        measure.Target("open set at 1 %", mean["open set, 1 % of the strangers pass"], floor=0.95),
        measure.Target("EER, metric of 32 others", mean["EER, metric of 32 others"], ceiling=0.05),
        measure.Target("EER, metric of 20 others", mean["EER, metric of 20 others"], ceiling=0.05),
    ]
    measure.publish(options, __doc__ or "", tables, targets, {"draws": found, "chosen": dict(chosen)})


if __name__ == "__main__":
    main()
