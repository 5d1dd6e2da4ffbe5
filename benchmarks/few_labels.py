"""CIFAR-10 with 4, 10, 25 and 50 labels a class: accuracy on all 10,000 test images, and seconds.

    python benchmarks/few_labels.py [--draws 5] [--test 10000]

Accuracy: five draws of training images from the 50,000, the default network, `pipeline.learn` on each draw, with one
store for all draws, which changes no feature. Seconds: for each number of labels a fresh process with an empty cache,
from its start (imports included) to a fitted head; then, apart, its predictions for the test images. That process
works on the first draw, and its accuracy is shown beside the one with the shared store: the two must agree.

Published for comparison: Intel's OTX, supervised, MobileNetV3-Large fine-tuned, end to end on one RTX 3090.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

from headstart.data.table import Table, read_table
from headstart.ship.package import Loaded
from headstart.ship.predict import predict
from headstart.story.opening import Options, features_of, open_network
from headstart.story.pipeline import learn
from headstart.tasks.classification import CLASSIFICATION

# labels a class: (least accuracy wanted, accuracy of OTX, seconds of OTX)
PUBLISHED = {4: (0.50, 0.3421, 109), 10: (0.60, 0.4737, 127), 25: (0.68, 0.595, 153), 50: (0.72, 0.6713, 159)}


def drawn(table: Table, labels: int, draw: int) -> NDArray[np.intp]:
    """Rows of so many training images of each class; a larger number holds the smaller one of the same draw."""
    rng = np.random.default_rng(draw)
    order = rng.permutation(np.flatnonzero(table.splits == "train"))
    return np.concatenate([order[table.labels[order] == name][:labels] for name in table.classes])


def tested(table: Table, n: int) -> NDArray[np.intp]:
    return np.flatnonzero(table.splits == "test")[:n]


def accuracies(table: Table, n_test: int, draws: int) -> dict[int, list[float]]:
    """labels a class -> the accuracy of each draw. All share one store: an image goes through the network once."""
    with tempfile.TemporaryDirectory() as cache:
        options = Options(cache=cache)
        blocks, y = test_features(table, n_test, options)

        def accuracy(labels: int, draw: int) -> float:
            learned = learn(table.take(drawn(table, labels, draw)), options, hold_out=False)
            found = learned.head.outputs(blocks).argmax(axis=1)
            return float((np.array(learned.seen.targets.names)[found] == y).mean())

        return {labels: [accuracy(labels, draw) for draw in range(draws)] for labels in PUBLISHED}


def test_features(table: Table, n_test: int, options: Options) -> tuple[dict[str, NDArray[np.float16]], NDArray[Any]]:
    """Blocks (image, feature) and class names (image,) of the test images, at the size that so few labels get."""
    test = table.take(tested(table, n_test))
    backbone, engine = open_network(table.take(drawn(table, max(PUBLISHED), 0)), options)
    return features_of(test, backbone, engine, options, lambda done: None).blocks, test.labels


def end_to_end(data: Path, labels: int, n_test: int) -> dict[str, Any]:
    """What the fresh process does with the first draw: time.time() when fitted and when done, stages, the accuracy."""
    table = read_table(data)
    test = table.take(tested(table, n_test))
    with tempfile.TemporaryDirectory() as cache:
        learned = learn(table.take(drawn(table, labels, 0)), Options(cache=cache), hold_out=False)
    seen, fitted = learned.seen, time.time()
    model = Loaded(None, seen.backbone, CLASSIFICATION, learned.head, seen.targets.names, {}, seen.engine.precision)
    found = predict(model, test, seen.engine).answers.argmax(axis=1)
    done = time.time()
    accuracy = float((np.array(seen.targets.names)[found] == test.labels).mean())
    return {"fitted": fitted, "done": done, "stages": learned.seconds, "accuracy": accuracy}


def timed(options: argparse.Namespace, labels: int) -> dict[str, Any]:
    """Seconds from the start of a fresh process to the fitted head, and of its predictions."""
    command = [sys.executable, __file__, "--data", str(options.data), "--test", str(options.test), "--one", str(labels)]
    child = measure.run(command)
    found = json.loads(child.stdout)
    return {
        "fit": found["fitted"] - child.started,
        "predict": found["done"] - found["fitted"],
        "stages": found["stages"],
        "accuracy": found["accuracy"],
    }


def report(options: argparse.Namespace, accuracy: dict[int, list[float]], seconds: dict[int, dict[str, Any]]) -> None:
    rows, targets = [], []
    for labels, (floor, otx, otx_seconds) in PUBLISHED.items():
        mean, spread = np.mean(accuracy[labels]), np.std(accuracy[labels], ddof=1) if options.draws > 1 else 0.0
        one = seconds[labels]
        rows.append(
            [
                str(labels),
                f"{mean:.1%} ± {spread:.1%}",
                f"{one['fit']:.1f}",
                f"{one['predict']:.1f}",
                f"{accuracy[labels][0]:.2%} / {one['accuracy']:.2%}",
                f"{otx:.1%}",
                str(otx_seconds),
            ]
        )
        targets.append(
            measure.Target(f"mean accuracy in % with {labels} labels a class", float(100 * mean), floor=100 * floor)
        )
    header = (
        "labels a class",
        "accuracy, mean ± SD",
        "seconds to a fitted head",
        "seconds to predict",
        "first draw: shared store / fresh process",
        "OTX accuracy",
        "OTX seconds, RTX 3090",
    )
    title = f"CIFAR-10, {options.draws} draws, {options.test} test images"
    values = {"accuracy": accuracy, "seconds": seconds}
    measure.publish(options, __doc__ or "", [measure.Table(title, header, rows)], targets, values)


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--one", type=int, metavar="LABELS", help="the fresh process: prints JSON and records nothing")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(end_to_end(options.data / "cifar10", options.one, options.test)))
        return
    accuracy = accuracies(read_table(options.data / "cifar10"), options.test, options.draws)
    report(options, accuracy, {labels: timed(options, labels) for labels in PUBLISHED})


if __name__ == "__main__":
    main()
