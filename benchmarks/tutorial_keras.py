"""CIFAR-10 with a frozen VGG16 at its own 32 px: headstart against ten Keras epochs.

    python -m venv KERAS && KERAS/bin/pip install tensorflow-cpu pyarrow pillow
    python benchmarks/tutorial_keras.py --keras-python KERAS/bin/python [--fraction 1.0]

The first tutorial's example at its own size: VGG16 without its top, random weights on both sides (only time is
compared), frozen. Keras: Flatten, Dense(256, relu), Dense(10, softmax), Adam, batches of 32, float32; one epoch of
50,000 images with validation on the 10,000 test images is measured, after a few warm-up steps, and taken ten times.
headstart: every image through its engine once into an empty store, a head of its own on the features, the 10,000 test
images scored; measured before and after Keras, the mean is compared.

Counted on both sides: reading and decoding the same two Parquet files, once. Counted on headstart's side besides:
building and compiling the network, hashing, writing the store, the search for duplicates, choosing the head. Left out
on both: starting Python and imports. Left out on Keras's side: building the model and tracing its graphs.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import measure

EPOCHS = 10
FILES = {"train": "train-00000-of-00001.parquet", "test": "test-00000-of-00001.parquet"}


def keras_side(data: Path, fraction: float) -> dict[str, Any]:
    """Runs in the interpreter that has Keras: seconds of decoding and of one epoch."""
    import keras
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    def read(name: str) -> tuple[Any, Any]:
        columns = pq.read_table(data / FILES[name], columns=["image", "label"])
        columns = columns.slice(0, int(fraction * len(columns)))
        pictures = [
            np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in columns["image"].to_pylist()
        ]
        return np.stack(pictures).astype("float32") / 255, np.array(columns["label"].to_pylist())

    start = time.perf_counter()
    (x, y), test = read("train"), read("test")
    decoded = time.perf_counter()
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    base.trainable = False
    top = [keras.layers.Flatten(), keras.layers.Dense(256, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([base, *top])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    few, few_test = (
        64 + len(part) % 32 for part in (x, test[0])
    )  # a short last batch too, so that it is traced as well
    validation = (test[0][:few_test], test[1][:few_test])
    model.fit(x[:few], y[:few], batch_size=32, validation_data=validation, verbose=0)
    ready = time.perf_counter()
    model.fit(x, y, batch_size=32, epochs=1, validation_data=test, verbose=0)
    epoch = time.perf_counter() - ready
    versions = {name: metadata.version(name) for name in ("keras", "tensorflow-cpu")}
    return {"decode": decoded - start, "epoch": epoch, "images": len(x) + len(test[0]), "versions": versions}


def headstart_side(data: Path, fraction: float, taps: str) -> dict[str, Any]:
    """Seconds by stage, after the imports; the same rows of the same files."""
    import numpy as np

    from headstart.data.table import read_table
    from headstart.data.targets import class_numbers
    from headstart.story.opening import Options
    from headstart.story.pipeline import learn

    start = time.perf_counter()
    table = read_table(data)
    rows = [np.flatnonzero(table.splits == split) for split in ("train", "test")]
    table = table.take(np.concatenate([part[: int(fraction * len(part))] for part in rows]))
    read = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        options = Options(backbone="vgg16", weights="none", taps=taps, size=32, cache=cache)
        learned = learn(table, options)
    fitted = time.perf_counter()
    test = np.flatnonzero(learned.seen.table.splits == "test")
    blocks = {name: block[test] for name, block in learned.seen.features.blocks.items()}
    right = learned.head.outputs(blocks).argmax(axis=1) == class_numbers(learned.seen.targets)[test]
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "stages": {"read the files": read - start, **learned.seconds, "score": end - fitted},
        "accuracy": float(right.mean()),
        "images": len(learned.seen.table),
        "engine": f"{learned.seen.engine.name} {learned.seen.engine.precision}",
    }


def report(options: argparse.Namespace, ours: list[dict[str, Any]], keras: dict[str, Any]) -> None:
    mean = sum(run["seconds"] for run in ours) / len(ours)
    ten = keras["decode"] + EPOCHS * keras["epoch"]
    stages = [", ".join(f"{name} {seconds:.1f}" for name, seconds in run["stages"].items()) for run in ours]
    rows = [
        ["Keras", f"{ten:.0f}", f"decode {keras['decode']:.1f}, ten epochs of {keras['epoch']:.1f}"],
        *(["headstart", f"{run['seconds']:.1f}", stage] for run, stage in zip(ours, stages, strict=True)),
    ]
    title = f"{keras['images']} images, taps {options.taps}, {ours[0]['engine']}"
    table = measure.Table(title, ("side", "seconds", "of which"), rows)
    targets = [measure.Target("times faster than ten Keras epochs", ten / mean, floor=20)]
    versions = keras.pop("versions")
    measure.publish(options, __doc__ or "", [table], targets, {"keras": keras, "headstart": ours, "versions": versions})


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--keras-python", help="an interpreter with tensorflow-cpu, pyarrow and pillow")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the images on both sides")
    parser.add_argument(
        "--taps", choices=("auto", "last", "all"), default="auto", help="headstart's, as in `headstart fit`"
    )
    parser.add_argument(
        "--side", choices=("both", "keras"), default="both", help="`keras` prints JSON and records nothing"
    )
    options = parser.parse_args()
    data = options.data / "cifar10"
    if options.side == "keras":
        print(json.dumps(keras_side(data, options.fraction)))
        return
    if not options.keras_python:
        parser.error("--keras-python is needed: see the two lines at the top of this file")
    child = [
        options.keras_python,
        __file__,
        "--side",
        "keras",
        "--data",
        str(options.data),
        "--fraction",
        str(options.fraction),
    ]
    ours = [headstart_side(data, options.fraction, options.taps)]
    keras = json.loads(measure.run(child, {"TF_CPP_MIN_LOG_LEVEL": "2"}).stdout.splitlines()[-1])
    ours.append(headstart_side(data, options.fraction, options.taps))
    report(options, ours, keras)


if __name__ == "__main__":
    main()
