"""`headstart fit` on 3,000 satellite pictures of 10 classes: accuracy by repeated 5-fold cross-validation.

    python benchmarks/eurosat.py

One process with an empty cache. Everything is chosen inside the fold; the interval is the corrected resampled one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import measure


def main() -> None:
    options = measure.arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory() as cache:
        done, metrics = measure.fit(options.data / "eurosat_3000", Path(cache))
    judged = metrics["cross_validation"]
    result = [
        ["accuracy (95 % interval)", measure.percent(judged["accuracy"])],
        ["images, folds, repeats", f"{judged['n']}, {judged['folds']}, {judged['repeats']}"],
        ["seconds, start to exit", f"{done.seconds:.1f}"],
        ["peak memory, GB", f"{done.peak_bytes / 1e9:.2f}"],
    ]
    stages = [[name, f"{seconds:.1f}"] for name, seconds in metrics["seconds"].items()]
    tables = [
        measure.Table("eurosat_3000", ("what", "value"), result),
        measure.Table("Stages", ("stage", "seconds"), stages),
    ]
    targets = [measure.Target("accuracy in %", 100 * judged["accuracy"]["value"], floor=95.0)]
    values = {"seconds": done.seconds, "peak bytes": done.peak_bytes, "metrics": metrics}
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
