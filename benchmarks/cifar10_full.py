"""`headstart fit` on all 50,000 training images of CIFAR-10: test accuracy, seconds by stage, peak memory.

    python benchmarks/cifar10_full.py

One process with an empty cache. The 10,000 test images are scored once. Peak memory is the largest resident set that
the system saw for that process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import measure


def main() -> None:
    options = measure.arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory() as cache:
        done, metrics = measure.fit(options.data / "cifar10", Path(cache))
    test, gigabytes = metrics["test"], done.peak_bytes / 1e9
    result = [
        ["test accuracy (95 % interval)", measure.percent(test["accuracy"])],
        ["test images", str(test["n"])],
        ["seconds, start to exit", f"{done.seconds:.1f}"],
        ["peak memory, GB", f"{gigabytes:.2f}"],
    ]
    stages = [[name, f"{seconds:.1f}"] for name, seconds in metrics["seconds"].items()]
    tables = [
        measure.Table("CIFAR-10, all training images", ("what", "value"), result),
        measure.Table("Stages", ("stage", "seconds"), stages),
    ]
    targets = [measure.Target("peak memory, GB", gigabytes, ceiling=2.5)]
    values = {"seconds": done.seconds, "peak bytes": done.peak_bytes, "metrics": metrics}
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
