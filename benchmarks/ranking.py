"""Does `--backbone auto` choose well, and what does the choice cost? Six networks, eight sets, against trying all.

    python benchmarks/ranking.py --networks FOLDER [--cache FOLDER] [--train 2000] [--test 1000] [--tune-only]

Networks: EfficientNet-Lite0 to Lite2 (packages), MobileNetV2 (torchvision's file), and two that were tuned before on
other images, as a user has them: Lite0 on CIFAR-100, MobileNetV2 on Fashion-MNIST, 5,000 images each that are in no set
below. They are made in `--networks` where they are not there.

Trying all: every network sees every training image, its head answers for the test images, and the best is taken.
Regret: the best network's accuracy on the test images minus that of the network that `auto` chose, both with all
training images. Cost: images through each network, at its measured pace, plus the rest of the training images through
the chosen one; in parts of what trying all costs.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np
from small_sets import digits

from headstart.data.table import Table, read_table, table_of
from headstart.story import pipeline, publish
from headstart.story.opening import Options

FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
TUNED = {"lite0 of CIFAR-100": ("tf_efficientnet_lite0", "auto"), "mobilenetv2 of Fashion-MNIST": ("", "")}
TAUGHT = 5000  # images that each of the tuned networks has learned from
Candidates = dict[str, tuple[str, str]]  # name -> (--backbone, --weights)


def fashion() -> Table:
    """The 60,000 training pictures of Fashion-MNIST, 28 px."""
    pixels = np.frombuffer(gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((FASHION / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return table_of(list(pixels.reshape(-1, 28, 28)), [f"kind {k}" for k in labels])


def sets(data: Path, train: int, test: int) -> dict[str, Table]:
    """name -> so many training and test images at most, in their own parts where a set has them."""
    found = {name: read_table(data / name) for name in ("hymenoptera", "eurosat_3000", "brain_mri_yes_no")}
    found |= {"faces_orl": read_table(data / "faces_orl", task="classify"), "digits": digits()}
    found |= {"cifar10": read_table(data / "cifar10"), "fashion": fashion(), "cifar100": read_table(data / "cifar100")}
    return {name: divided(table, train, test) for name, table in found.items()}


def divided(table: Table, train: int, test: int) -> Table:
    """Drawn at random, stratified by class: test images from the test part, else from a third of all. The last TAUGHT
    training images in this order are never drawn: they teach the tuned networks."""
    order, splits = drawn(table), table.splits.astype(str)
    judged = np.isin(splits, ("test", "validation"))
    if not judged.any():
        judged[order[: len(order) // 3]] = True
    mine, other = order[~judged[order]][:train], order[judged[order]][:test]
    parts = np.array(["train"] * len(mine) + ["test"] * len(other), dtype=object)
    return replace(table.take(np.concatenate([mine, other])), splits=parts)


def drawn(table: Table) -> np.ndarray:
    """All rows, so that every beginning holds the classes in proportion."""
    rng = np.random.default_rng(0)
    pace = np.empty(len(table))
    for name in table.classes:
        mine = rng.permutation(np.flatnonzero(table.labels == name))
        pace[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    return np.argsort(pace, kind="stable")


def networks(folder: Path, data: Path, cache: str | None) -> Candidates:
    """The six; those that are tuned are made where they are not there."""
    mobile = ("mobilenetv2_100", str(data.parent / "weights" / "mobilenet_v2-b0353104.pth"))
    found = {f"lite{k}": (f"tf_efficientnet_lite{k}", "auto") for k in range(3)} | {"mobilenetv2": mobile}
    for name, (backbone, weights), table in (
        ("lite0-cifar100", found["lite0"], lambda: read_table(data / "cifar100")),
        ("mobilenetv2-fashion", mobile, fashion),
    ):
        place = folder / name
        if not (place / "headstart.json").exists():
            whole = table()
            order = drawn(whole)
            mine = whole.take(order[whole.splits[order] != "test"][-TAUGHT:])
            mine = replace(mine, splits=np.full(TAUGHT, "none", object))
            how = Options(backbone, weights, tune="last", epochs=4, size=96, cache=cache)
            publish.save(pipeline.fit(mine, how), place, name, "benchmarks/ranking.py")
        found[name] = (str(place), "auto")
    return found


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--networks", type=Path, required=True, help="a folder of the tuned networks")
    parser.add_argument("--cache", help="a folder that is kept")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--extract-only", action="store_true")
    options = parser.parse_args()
    found = networks(options.networks, options.data, options.cache)
    for name, table in sets(options.data, options.train, options.test).items():
        for network, (backbone, weights) in found.items():
            pipeline.inspect(table, Options(backbone, weights, cache=options.cache))
            print(name, network, len(table), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
