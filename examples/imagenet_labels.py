"""What is in this photograph? The answer of a network that was trained on ImageNet, with its own top.

    python examples/imagenet_labels.py elephant.jpg

The same on the command line: headstart classify elephant.jpg --backbone resnet50 --top 5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from headstart.data.table import list_images
from headstart.ship.classify import classify
from headstart.trunk.backbone import open_backbone


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The ImageNet labels of one photograph.")
    parser.add_argument("data", metavar="IMAGE", help="a photograph")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="resnet50, vgg16, inceptionv3 ...")
    parser.add_argument("--weights", default="auto", help="auto, or a file (random weights know no labels)")
    given = parser.parse_args(arguments)

    network = open_backbone(given.backbone, given.weights)
    (answer,) = classify(list_images([given.data]), network, top=5)
    if answer["error"]:
        raise SystemExit(f"{answer['path']} cannot be read: {answer['error']}")
    print(f"{answer['path']}, by {network.name}:")
    for place, found in enumerate(answer["predictions"], start=1):
        print(f"  {place}. {found['wnid']}  {found['name']}  {found['probability']:.1%}")


if __name__ == "__main__":
    main()
