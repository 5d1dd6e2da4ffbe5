"""The features of one photograph, as four networks see it.

    python examples/features_of_a_photograph.py elephant.jpg

Each network is read at its last feature map. The map tells what is where; its mean over the positions is the row of
numbers that a classifier learns from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from headstart.trunk.backbone import open_backbone

# network -> layer; the names are those of Keras
NETWORKS = {
    "VGG16": "block5_pool",
    "ResNet50": "conv5_block3_out",
    "InceptionV3": "mixed10",
    "MobileNetV2": "out_relu",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Features of one photograph with four networks.")
    parser.add_argument("data", metavar="IMAGE", help="a photograph")
    parser.add_argument("--weights", default="auto", help="auto, or none (random)")
    given = parser.parse_args(arguments)

    for name, layer in NETWORKS.items():
        network = open_backbone(name, given.weights)
        height, width = network.preprocess.size
        maps = network.features([given.data], layer=layer, pooling="none")
        row = maps.values.mean(axis=(2, 3))  # what pooling="avg" gives at once
        print(f"{name} ({network.weights_source}), input {height} x {width} px")
        print(f"  {layer} (here: {maps.module}): map {maps.shape[1:]}, mean {row.shape[1:]}")
        print(f"  first five features: {', '.join(f'{value:.3g}' for value in row[0, :5])}")


if __name__ == "__main__":
    main()
