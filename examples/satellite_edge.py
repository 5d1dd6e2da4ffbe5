"""A small classifier of satellite images for a small device: MobileNetV3Small, four classes.

    python examples/satellite_edge.py DATA

DATA is a folder with one folder of images per class, such as EuroSAT. Four of its classes are listed in a manifest (a
CSV file with the columns path,label), which `headstart fit` takes as well.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headstart import TransferClassifier

CLASSES = ("Forest", "Highway", "Residential", "SeaLake")


def write_manifest(data: Path, classes: Sequence[str], file: Path) -> int:
    """List the images of these classes; returns their number."""
    rows = [(path.resolve(), name) for name in classes for path in sorted((data / name).iterdir())]
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("path", "label"), *rows])
    return len(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Satellite images on the edge.")
    parser.add_argument("data", metavar="DATA", help="a folder with one folder of images per class")
    parser.add_argument("-o", "--output", default="satellite-model", metavar="MODEL", help="where to save the model")
    parser.add_argument("--classes", nargs="+", default=CLASSES, metavar="NAME", help="folders to tell apart")
    parser.add_argument("--weights", default="auto", help="auto, none (random), or a file")
    given = parser.parse_args(arguments)

    model = TransferClassifier(
        "MobileNetV3Small", given.weights, head="gap, dropout 0.2, dense 128 relu", epochs=10, batch_size=32
    )
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.csv"
        print(f"{write_manifest(Path(given.data), given.classes, manifest)} images of {', '.join(given.classes)}")
        model.fit(manifest)
        metrics = model.save(given.output)
    scores = metrics["test"] or metrics["cross_validation"]  # few images are judged by cross-validation
    print(f"accuracy: {scores['accuracy']['value']:.3f} on {scores['n']} images that it had not learned from")

    saved = Path(given.output)
    weights = [saved / name for name in ("model.safetensors", "head.safetensors")]
    size = sum(file.stat().st_size for file in weights if file.exists())
    print(f"{saved}: network and head take {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
