"""Where the settings of fine-tuning come from: the recipe as it is, and with one of its numbers changed.

    python benchmarks/settings.py [--images 5000] [--size 96] [--epochs 12] [--tune blocks.1] [--only ARM ...]

CIFAR-10, the same number of training images of each class, all 10,000 test images. Every arm learns from the same
images with the same seed, and all answer for the same test images: differences to the recipe are paired. What is
asked for is run and takes its place in the record, so that arms can run side by side (the recipe's arm first).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import measure
import numpy as np
from tuned import few

from headstart import recipe
from headstart.data import augment
from headstart.data.table import read_table
from headstart.data.targets import class_numbers
from headstart.judge.intervals import accuracy_interval, paired_gain
from headstart.story import activations_of, compare, evidence
from headstart.story.opening import Options, Watcher
from headstart.story.pipeline import Clock, Seen, taught
from headstart.story.plan import Plan
from headstart.tasks.classification import CLASSIFICATION

RECIPE = "recipe"
# arm: (what of the training is changed, what of the views)
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    RECIPE: ({}, {}),
    "statistics of BatchNorm learn": ({"frozen_statistics": False}, {}),
    "half the rate": ({"rate": 5e-4}, {}),
    "twice the rate": ({"rate": 2e-3}, {}),
    "stage decay 0.65": ({"stage_decay": 0.65}, {}),
    "no stage decay": ({"stage_decay": 1.0}, {}),
    "no mixup": ({"mixup": 0.0}, {}),
    "mixup 1": ({"mixup": 1.0}, {}),
    "TrivialAugment": ({}, {"randaugment": 1}),
    "no moving average": ({"average": 0.0}, {}),
}


@contextmanager
def changed(training: dict[str, Any], views: dict[str, Any]) -> Iterator[None]:
    usual, plain = recipe.tuning, augment.augmentation

    def otherwise(*given: Any) -> recipe.Training:
        return replace(usual(*given), **training)

    def seen_so(*given: Any) -> augment.Augmentation:
        return replace(plain(*given), **views)

    with mock.patch.object(recipe, "tuning", otherwise), mock.patch.object(activations_of, "augmentation", seen_so):
        yield


def one(seen: Seen, plan: Plan, options: Options, arm: str) -> dict[str, Any]:
    """Which judged images are wrong, by the chosen head and by the linear top, and the epochs."""
    start = time.perf_counter()
    say = Watcher(lambda text: print(f"{arm}: {text}", file=sys.stderr, flush=True))
    with changed(*ARMS[arm]):
        learned = taught(CLASSIFICATION, seen, plan, options, say, Clock())
    assert learned.tuned is not None
    assert plan.judge is not None
    wrong = {}
    for name, head in (("head", learned.head), ("top", learned.tuned.top)):
        answers = evidence.judge_rows(CLASSIFICATION, learned.material, head, plan.judge, {}).answers
        rows = np.flatnonzero(answers.argmax(axis=1) != class_numbers(seen.targets)[plan.judge])
        wrong[name] = " ".join(map(str, rows))  # one line of the record
    epochs = [[e.loss, e.held_out_loss, e.held_out_accuracy] for e in learned.tuned.epochs]
    part = learned.tuned.record.part
    assert part is not None
    said = {"alpha": part.alpha, "chosen": part.head}
    return {**wrong, "n": len(plan.judge), "epochs": epochs, **said, "seconds": round(time.perf_counter() - start)}


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--tune", default="blocks.1")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--cache", help="a folder that is kept (default: headstart's own)")
    options = parser.parse_args()
    record = options.results / "settings.json"
    what = f"{options.images} images, {options.size} px, {options.epochs} epochs, tune {options.tune}"
    settings = Options(tune=options.tune, size=options.size, epochs=options.epochs, cache=options.cache)
    whole = read_table(options.data / "cifar10")
    table = few(whole, options.images // len(whole.classes), settings.seed)
    seen, plan = compare.start(CLASSIFICATION, table, settings, Watcher())
    for arm in options.only:
        done = one(seen, plan, settings, arm)
        found = json.loads(record.read_text())["values"] if record.exists() else {}
        found.setdefault(what, {})[arm] = done
        publish(options, found)


def publish(options: Any, found: dict[str, Any]) -> None:
    tables = []
    for what, arms in found.items():
        rows = []
        for arm, done in sorted(arms.items(), key=lambda pair: list(ARMS).index(pair[0])):
            cells = [arm]
            for name in ("head", "top"):
                right = _right(done, name)
                cells.append(measure.percent(accuracy_interval(right, None)))
                change = ""
                if RECIPE in arms and arm != RECIPE:
                    gain = paired_gain(right, _right(arms[RECIPE], name))["difference"]
                    change = measure.points(gain)
                cells.append(change)
            best = min(done["epochs"], key=lambda epoch: epoch[1])
            place = f"{done['epochs'].index(best) + 1} of {len(done['epochs'])}"
            rows.append([*cells, f"{best[1]:.3f}", place, str(done["alpha"]), str(done["seconds"])])
        header = ("arm", "chosen head", "change", "linear top", "change", "held-out log-loss", "epoch", "alpha", "s")
        tables.append(measure.Table(what, header, rows))
    measure.publish(options, __doc__ or "", tables, [], found)


def _right(done: dict[str, Any], name: str) -> Any:
    right = np.ones(done["n"], bool)
    right[np.array(done[name].split(), int)] = False
    return right


if __name__ == "__main__":
    main()
