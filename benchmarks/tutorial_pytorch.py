"""A first photo classifier: headstart against the tutorials' way in plain PyTorch, whole processes, start to exit.

    python benchmarks/tutorial_pytorch.py [--epochs 10]

Both start from the same EfficientNet-Lite0 weights and see hymenoptera's 245 training images; both are judged on its
153 validation images. The tutorials' way: ImageFolder, Resize, CenterCrop and Normalize, a DataLoader with batches of
32 and a worker for each core, float32, the network frozen and in evaluation mode, a new Linear layer, Adam at 0.001,
10 epochs of live forward passes, validation each epoch. headstart: `headstart fit DATA` with an empty cache, once
before and once after the tutorial, then again with the cache that it left.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure

RATE = 0.001  # Adam's own default, as most tutorials have it


def tutorial(data: Path, epochs: int) -> dict[str, Any]:
    """Accuracy on the validation images after each epoch."""
    import torch
    from torch import nn

    from headstart.trunk.backbone import open_backbone

    backbone = open_backbone()
    model: Any = backbone.module  # frozen and in evaluation mode
    n_inputs = model.classifier.in_features
    train, validation = loaders(data, backbone.preprocess)
    model.classifier = nn.Linear(n_inputs, len(train.dataset.classes))
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=RATE)
    accuracies = []
    for _ in range(epochs):
        for images, labels in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        with torch.no_grad():
            right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in validation)
        accuracies.append(right / len(validation.dataset))
    return {"accuracy": accuracies, "n": len(validation.dataset)}


def loaders(data: Path, preprocess: Any) -> tuple[Any, Any]:
    """DataLoaders of train/ (shuffled) and val/."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    side = preprocess.size[0]
    steps = transforms.Compose(
        [
            transforms.Resize(
                round(side / preprocess.crop_fraction), transforms.InterpolationMode(preprocess.interpolation)
            ),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    train = DataLoader(ImageFolder(str(data / "train"), steps), batch_size=32, shuffle=True, num_workers=workers)
    return train, DataLoader(ImageFolder(str(data / "val"), steps), batch_size=32, num_workers=workers)


def compare(data: Path, epochs: int) -> dict[str, Any]:
    """All processes, in turns."""
    measure.run([sys.executable, "-c", "import torch, torchvision, timm, openvino, scipy, sklearn"])  # from disk once
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        before, fitted = measure.fit(data, Path(first))
        plain = measure.run(
            [sys.executable, __file__, "--side", "tutorial", "--data", str(data.parent), "--epochs", str(epochs)]
        )
        after, again = measure.fit(data, Path(second))
        warm, _ = measure.fit(data, Path(second))
    return {
        "headstart": {"seconds": [before.seconds, after.seconds], "warm seconds": warm.seconds},
        "headstart stages": [fitted["seconds"], again["seconds"]],
        "headstart test": {key: fitted["test"][key] for key in ("n", "accuracy")},
        "tutorial": {"seconds": plain.seconds, **json.loads(plain.stdout)},
    }


def report(options: argparse.Namespace, values: dict[str, Any]) -> None:
    ours, plain, test = values["headstart"], values["tutorial"], values["headstart test"]
    cold = sum(ours["seconds"]) / len(ours["seconds"])
    accuracy, last, best = test["accuracy"]["value"], plain["accuracy"][-1], max(plain["accuracy"])
    ratio = plain["seconds"] / cold

    def right(share: float, n: int) -> str:
        return f"{share:.4f} ({round(share * n)} of {n})"

    rows = [
        ["plain PyTorch, last epoch", f"{plain['seconds']:.1f}", right(last, plain["n"]), "1"],
        ["plain PyTorch, best epoch (chosen on these images)", f"{plain['seconds']:.1f}", right(best, plain["n"]), "1"],
        ["headstart, empty cache", f"{cold:.2f}", right(accuracy, test["n"]), f"{ratio:.1f}"],
        [
            "headstart, its cache left there",
            f"{ours['warm seconds']:.2f}",
            "the same",
            f"{plain['seconds'] / ours['warm seconds']:.1f}",
        ],
    ]
    table = measure.Table(
        f"hymenoptera, {len(plain['accuracy'])} epochs",
        ("way", "seconds, whole process", "accuracy", "times faster"),
        rows,
    )
    targets = [
        measure.Target("times faster than plain PyTorch", ratio, floor=10),
        measure.Target("right of 153", round(accuracy * test["n"]), floor=147),
        measure.Target("accuracy minus plain PyTorch's last epoch", accuracy - last, floor=0),
        measure.Target("accuracy minus plain PyTorch's best epoch", accuracy - best, floor=0),
    ]
    measure.publish(options, __doc__ or "", [table], targets, values)


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--side", choices=("both", "tutorial"), default="both", help="`tutorial` prints JSON and records nothing"
    )
    options = parser.parse_args()
    if options.side == "tutorial":
        print(json.dumps(tutorial(options.data / "hymenoptera", options.epochs)))
    else:
        report(options, compare(options.data / "hymenoptera", options.epochs))


if __name__ == "__main__":
    main()
