"""CIFAR-10 with VGG16: the ten classes of tiny pictures, with VGG16 at their own 32 x 32 pixels.

    python examples/cifar10_vgg16.py DATA

DATA is a folder of train-*.parquet and test-*.parquet files that hold the images (Hugging Face's layout). VGG16 is cut
after its last pooling layer and stays frozen. On top come Flatten, a Dense layer of 256 units with ReLU, and one output
a class. Ten epochs, 32 images a step. The network reads each image once, whatever the number of epochs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from headstart import TransferClassifier


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="CIFAR-10 with VGG16 and a dense head.")
    parser.add_argument("data", metavar="DATA", help="a folder of train-*.parquet and test-*.parquet")
    parser.add_argument("-o", "--output", default="cifar10-model", metavar="MODEL", help="where to save the model")
    parser.add_argument("--weights", default="auto", help="auto, none (random), or a file")
    given = parser.parse_args(arguments)

    model = TransferClassifier(
        backbone="vgg16",
        weights=given.weights,
        size=32,
        layer="block5_pool",
        head="flatten, dense 256 relu",
        epochs=10,
        batch_size=32,
        optimizer="adam",
    )
    model.fit(given.data)  # learns from the training part alone
    print(f"{len(model.classes_)} classes: {', '.join(model.classes_)}")

    scores = model.save(given.output)["test"]  # judges the model on the test part, and writes it with its report
    accuracy, loss = scores["accuracy"], scores["log_loss"]
    print(f"test images: {scores['n']}")
    print(f"accuracy: {accuracy['value']:.3f} (95 % interval {accuracy['low']:.3f} to {accuracy['high']:.3f})")
    print(f"loss: {loss['value']:.3f}")
    print(f"the loss of every epoch: {given.output}/report.html")


if __name__ == "__main__":
    main()
