"""VGG16 step by step: load without the top, look, cut, extract features, put a head on, fit, evaluate, predict.

    python examples/step_by_step_vgg16.py DATA

DATA is a folder with one folder of images per class.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sklearn.model_selection import train_test_split

from headstart import TransferClassifier
from headstart.trunk.backbone import open_backbone
from headstart.trunk.layers import keras_names


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="VGG16, cut at block5_pool, one step at a time.")
    parser.add_argument("data", metavar="DATA", help="a folder with one folder of images per class")
    parser.add_argument("--weights", default="auto", help="auto, none (random), or a file")
    parser.add_argument("--size", type=int, default=224, help="side of the network's input in pixels")
    given = parser.parse_args(arguments)

    # 1. The images and their labels, a quarter of them kept for the test.
    paths = sorted(path for path in Path(given.data).glob("*/*") if path.is_file())
    labels = [path.parent.name for path in paths]
    train, test, y_train, y_test = train_test_split(paths, labels, test_size=0.25, stratify=labels, random_state=0)
    print(f"1. {len(train)} images to train on, {len(test)} to test, classes: {', '.join(sorted(set(labels)))}")

    # 2. The network without its top. It is frozen: nothing below changes its weights.
    network = open_backbone("vgg16", given.weights)
    print(f"2. {network.name}: {network.n_parameters:,} parameters without the top, {network.weights_source}")

    # 3. Its layers. Every one can be read; Keras's names work.
    print(f"3. layers: {', '.join(name for name in keras_names(network.module) if name.startswith('block'))}")

    # 4. What the layer block5_pool says of two images: a map (image, channel, height, width), and its mean.
    maps = network.features(train[:2], layer="block5_pool", pooling="none")
    means = network.features(train[:2], layer="block5_pool", pooling="avg")
    print(f"4. block5_pool: {maps.shape}, after global average pooling: {means.shape}")

    # 5. A head of our own on that layer, and its training.
    head = "gap, dense 256 relu"  # the last layer, one output a class with softmax, is added by itself
    model = TransferClassifier(
        "vgg16", given.weights, layer="block5_pool", head=head, epochs=10, batch_size=32, size=given.size
    )
    model.fit(train, y_train)
    print(f"5. fitted: {head}")

    # 6. How good is it on images that it has never seen?
    scores = model.evaluate(test, y_test)
    for name in ("accuracy", "log_loss", "macro_precision", "macro_recall"):
        print(f"6. {name}: {scores[name]['value']:.3f}")

    # 7. What is in this picture?
    for path, probabilities in zip(test[:3], model.predict_proba(test[:3]), strict=True):
        best = probabilities.argmax()
        print(f"7. {path.parent.name}/{path.name}: {model.classes_[best]} ({probabilities[best]:.0%})")


if __name__ == "__main__":
    main()
