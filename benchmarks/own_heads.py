"""Heads of the user's own layers: accuracy on hymenoptera, and CIFAR-10 with the tutorials' VGG16 head in one pass.

    python benchmarks/own_heads.py [--n 10000]

1. Each head of the tutorials on hymenoptera's `val` folder (153 images, touched once). Target: 0.93.
2. CIFAR-10: `flatten, dense 256 relu, dense`, 10 epochs in batches of 32, on the feature maps of the default backbone,
   10,000 training and 10,000 test images. Target: every image goes through the network once, whatever the epochs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import measure
import pyarrow.parquet as pq

HEADS = (
    "flatten, dense 256 relu, dense",
    "gap, dropout 0.2, dense 128 relu",
    "conv 256 3x3 relu, gap",
    "gap, batchnorm, dense 512 relu, dropout 0.5",
)
SPLITS = {"train": "train-00000-of-00001.parquet", "test": "test-00000-of-00001.parquet"}


def some_of(source: Path, target: Path, n: int) -> Path:
    """The first n images of either part, as Parquet files of their own."""
    for name in SPLITS.values():
        pq.write_table(pq.read_table(source / name).slice(0, n), target / name)
    return target


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--n", type=int, default=10_000, help="images of either part of CIFAR-10")
    options = parser.parse_args()
    rows, targets, values = [], [], {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "cifar").mkdir()
        cifar = some_of(options.data / "cifar10", work / "cifar", options.n)
        ten = ["--epochs", "10", "--batch-size", "32"]
        jobs = [(f"hymenoptera: {head}", options.data / "hymenoptera", head, []) for head in HEADS]
        jobs.append((f"CIFAR-10, {options.n} images: {HEADS[0]}", cifar, HEADS[0], ten))
        for name, data, head, more in jobs:
            model = work / "model"
            given = ["fit", data, "-o", model, "--head", head, "--cache", work / "cache", "--json", *more]
            run = measure.run([sys.executable, "-m", "headstart", *map(str, given)])
            found, record = json.loads(run.stdout), json.loads((model / "run.json").read_text())
            score, n = found["test"], record["images_through_the_network"]
            own = found["baselines"]["closed_form"]["accuracy"]["value"]
            epochs = len(found["training"])
            reached = f"{score['accuracy']['value']:.4f}"
            rows.append([name, reached, f"{own:.4f}", str(epochs), str(n), f"{run.seconds:.0f}"])
            values[name] = {"metrics": found, "seconds": run.seconds, "forward": n}
            if "hymenoptera" in name:
                targets.append(measure.Target(name, score["accuracy"]["value"], floor=0.93))
            else:
                targets.append(measure.Target(f"{name}: passes of the trunk", n / (2 * options.n), ceiling=1.0))
    header = ("head", "accuracy", "closed form", "epochs", "images through the network", "seconds")
    measure.publish(options, __doc__ or "", [measure.Table("Own heads", header, rows)], targets, values)


if __name__ == "__main__":
    main()
