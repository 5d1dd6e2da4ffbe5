"""A small classifier of satellite images for a small device, from images to an int8 file: four classes.

    python examples/satellite_edge.py DATA
    python examples/satellite_edge.py DATA --backbone MobileNetV3Small --head "gap, dropout 0.2, dense 128 relu"

DATA is a folder with one folder of images per class, such as EuroSAT. Four of its classes are listed in a manifest (a
CSV file with the columns path,label,split), every third image for the test, which `headstart fit` takes as well. Each
file is run by its own runtime on the test images: docs/edge.md has the numbers, and the same as commands.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart import TransferClassifier
from headstart.errors import HeadstartError
from headstart.story.export import Asked, export

CLASSES = ("Forest", "Highway", "Residential", "SeaLake")
TEST = 3  # every third image


def write_manifest(data: Path, classes: Sequence[str], file: Path) -> int:
    """List the images of these classes; returns their number."""
    rows = [
        (path.resolve(), name, "train" if number % TEST else "test")
        for name in classes
        for number, path in enumerate(sorted((data / name).iterdir()))
    ]
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("path", "label", "split"), *rows])
    return len(rows)


def exported(model: Path, manifest: Path, to: str, int8: bool) -> str:
    """One line about a file that was written, or about why there is none."""
    kind = f"{to} {'int8' if int8 else 'float32'}"
    folder = model.with_name(f"{model.name}-{kind.replace(' ', '-')}")
    try:
        found = export(model, Asked(to, str(folder), str(manifest), int8=int8)).record
    except HeadstartError as error:
        return f"{kind}: not written: {error}"
    score: dict[str, Any] = found["score"]
    return (
        f"{kind}: {found['bytes'] / 1e6:.2f} MB, {found['latency_ms']:.1f} ms an image, accuracy "
        f"{score['exported']['value']:.3f} (predict {score['predict']['value']:.3f}), in {folder}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Satellite images on the edge.")
    parser.add_argument("data", metavar="DATA", help="a folder with one folder of images per class")
    parser.add_argument("-o", "--output", default="satellite-model", metavar="MODEL", help="where to save the model")
    parser.add_argument("--classes", nargs="+", default=CLASSES, metavar="NAME", help="folders to tell apart")
    parser.add_argument("--backbone", default="efficientnet_lite0", metavar="NAME", help="such as MobileNetV3Small")
    parser.add_argument("--weights", default="auto", help="auto, none (random), or a file")
    parser.add_argument("--head", default="auto", help='layers, such as "gap, dropout 0.2, dense 128 relu"')
    parser.add_argument("--to", default="litert", metavar="FORMAT", help="litert, onnx or openvino")
    parser.add_argument("--no-int8", action="store_true", help="float32 alone")
    given = parser.parse_args(arguments)

    # How long layers of one's own are trained; without --head nothing is.
    trained = {} if given.head == "auto" else {"epochs": 10, "batch_size": 32}
    model, saved = TransferClassifier(given.backbone, given.weights, head=given.head, **trained), Path(given.output)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.csv"
        print(f"{write_manifest(Path(given.data), given.classes, manifest)} images of {', '.join(given.classes)}")
        model.fit(manifest)
        scores = model.save(saved)["test"]
        print(f"accuracy: {scores['accuracy']['value']:.3f} on {scores['n']} images that it had not learned from")
        weights = [saved / name for name in ("model.safetensors", "head.safetensors")]
        size = sum(file.stat().st_size for file in weights if file.exists())
        print(f"{saved}: network and head take {size / 1e6:.1f} MB")
        for int8 in (False,) if given.no_int8 else (False, True):
            print(exported(saved, manifest, given.to, int8))


if __name__ == "__main__":
    main()
