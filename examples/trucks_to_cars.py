"""From trucks to cars: a model of one's own as the start of the next task.

    python examples/trucks_to_cars.py DATA

DATA is CIFAR-10 as Parquet files. First a model learns to tell trucks from ships; then that saved model, without its
head, is the network under a new head that tells cars from deer. For comparison the same network starts from random
weights. The network is frozen in all three: what the second model inherits are the weights that the first was given,
and the saved model says where they come from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from headstart import TransferClassifier
from headstart.data.table import Table, read_table
from headstart.trunk.backbone import open_backbone

HEAD = "gap, dense 64 relu"


def pick(table: Table, classes: tuple[str, str], split: str) -> tuple[list[Image.Image], list[str]]:
    """The images of two classes in one part of the data, and their labels."""
    rows = np.flatnonzero(np.isin(table.labels.astype(str), classes) & (table.splits == split))
    return [Image.open(BytesIO(table.read(int(row)))) for row in rows], list(table.labels[rows])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Reuse of an own model: trucks, then cars.")
    parser.add_argument("data", metavar="DATA", help="a folder of train-*.parquet and test-*.parquet")
    parser.add_argument("-o", "--output", default="trucks-model", metavar="MODEL", help="where to save the first model")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="the network of the first model")
    parser.add_argument("--weights", default="auto", help="auto, none (random), or a file")
    given = parser.parse_args(arguments)
    table = read_table(given.data)

    trucks = TransferClassifier(given.backbone, given.weights, head=HEAD)
    trucks.fit(*pick(table, ("truck", "ship"), "train"))
    print(f"truck or ship: {trucks.evaluate(*pick(table, ('truck', 'ship'), 'test'))['accuracy']['value']:.3f}")
    trucks.save(given.output)

    cars = ("automobile", "deer")
    reused = TransferClassifier(given.output, head=HEAD).fit(*pick(table, cars, "train"))
    drawn = TransferClassifier(given.backbone, "none", head=HEAD).fit(*pick(table, cars, "train"))
    for name, model in (("on the truck model", reused), ("on random weights", drawn)):
        accuracy = model.evaluate(*pick(table, cars, "test"))["accuracy"]
        print(f"automobile or deer, {name}: {accuracy['value']:.3f} ({accuracy['low']:.3f} to {accuracy['high']:.3f})")

    print(f"where the weights of the second model come from: {' > '.join(open_backbone(given.output).chain)}")


if __name__ == "__main__":
    main()
