"""Stored activations against live ones: the same fit, the same random views, made once in float16 or anew each epoch.

    python benchmarks/cached.py [--only hymenoptera ...] [--epochs 8]

The last stage of EfficientNet-Lite0 is tuned twice, in float32, from the same seed. Both answer for the same images,
which neither has seen (hymenoptera: its validation part; eurosat_3000: a quarter), and are compared image by image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import measure
import numpy as np

from headstart import recipe
from headstart.data.table import read_table
from headstart.data.targets import class_numbers
from headstart.finetune.at_cut import Live
from headstart.judge.intervals import accuracy_interval, paired_gain
from headstart.story import compare, evidence
from headstart.story.opening import QUIET, Options
from headstart.story.pipeline import Clock, Seen, taught
from headstart.tasks.classification import CLASSIFICATION

SETS: dict[str, dict[str, Any]] = {"hymenoptera": {}, "eurosat_3000": {"augment": "aerial"}}


@contextmanager
def live(n_views: int) -> Iterator[None]:
    """Nothing is stored; the views of an epoch are those that the stored ones would be."""
    viewed = Live.viewed

    def same(self: Live, rows: Any, epoch: int) -> Any:
        return viewed(self, rows, epoch % n_views)

    with mock.patch.object(recipe, "caches", return_value=False), mock.patch.object(Live, "viewed", same):
        yield


def one(seen: Seen, plan: compare.Plan, options: Options) -> tuple[Any, Any, float]:
    """(which judged images are right, the epochs, seconds of the tuning)."""
    clock = Clock()
    learned = taught(CLASSIFICATION, seen, plan, options, QUIET, clock)
    assert learned.tuned is not None
    assert plan.judge is not None
    head, rule = learned.head, learned.rule
    answers = evidence.judge_rows(CLASSIFICATION, learned.material, head, plan.judge, rule).answers
    return (
        answers.argmax(axis=1) == class_numbers(seen.targets)[plan.judge],
        learned.tuned.epochs,
        clock.seconds["tune"],
    )


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    rows, targets, values = [], [], {}
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
            settings = Options(tune="last", precision="f32", epochs=options.epochs, cache=folder, **SETS[name])
            seen, plan = compare.start(CLASSIFICATION, read_table(options.data / name), settings, QUIET)
            stored, epochs, seconds = one(seen, plan, settings)
            with live(recipe.n_views(len(plan.train))):
                fresh, again, longer = one(seen, plan, replace(settings, cache=other))
        groups = seen.groups[plan.judge]
        found = paired_gain(stored, fresh, groups)["difference"]
        apart = max(abs(a.loss - b.loss) for a, b in zip(epochs, again, strict=False))  # one may stop sooner
        change = measure.points(found)
        both = [measure.percent(accuracy_interval(right, groups)) for right in (stored, fresh)]
        rows.append([name, str(len(stored)), *both, change, f"{apart:.1e}", f"{seconds:.0f}", f"{longer:.0f}"])
        inside = float(found["low"] <= 0 <= found["high"])
        targets.append(measure.Target(f"{name}: no difference beyond the interval", inside, floor=1))
        losses = [[float(np.round(e.loss, 6)) for e in some] for some in (epochs, again)]
        values[name] = {"difference": found, "losses, stored": losses[0], "losses, live": losses[1]}
    header = ("set", "judged", "stored", "live", "difference", "largest of the losses", "stored, s", "live, s")
    measure.publish(options, __doc__ or "", [measure.Table("Stored and live", header, rows)], targets, values)


if __name__ == "__main__":
    main()
