"""Beside the worst mistakes: the training image of the answered class that each looks like, and where the network
looked.

The first needs only the features at hand. The second is one more pass of the network, with its maps, over these few
images, and compiles a network that gives maps: it is on request (`fit --explain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.data import images
from headstart.data.overlay import overlay
from headstart.errors import ImageError
from headstart.heads import reference
from headstart.heads.material import Ints, rows_of
from headstart.heads.oddity import Oddity
from headstart.heads.probe import Probe
from headstart.judge.class_marks import decision_of
from headstart.ship.explain import Explanation, explain
from headstart.ship.heat import drawn as draw_heat
from headstart.ship.package import Loaded
from headstart.story.pipeline import Fitted

SIDE = 256  # px, the longer side of an overlay: that of the picture beside it
SMALL = 128  # px, of the training image: 3 to 6 KiB
COMPARED = 2000  # training images of a class at most: 10 MB of features, whatever the set


@dataclass(frozen=True)
class Looks:
    """A training image: its row, and the cosine of its features with those of the mistake."""

    row: int
    cosine: float


def look_likes(fitted: Fitted, rows: Ints) -> dict[int, Looks]:
    """row -> the training image of the class that it was taken for which it looks like most; no copy of its own, and
    nothing where the head reads no features of its own kind, or where none is left."""
    seen, plan = fitted.seen, fitted.plan
    if fitted.method.task.name != "classify" or not len(rows):
        return {}
    block = reference.block_of(fitted.head.parts)
    if block not in seen.features.blocks:
        return {}
    part = next(part for part in fitted.head.parts if part.block == block)
    values, answered = seen.features.blocks[block], _answered(fitted)
    labels, names = seen.table.labels[plan.train], seen.targets.names
    found = {}
    for row in map(int, rows):
        others = seen.groups[plan.train] != seen.groups[row]
        taught = plan.train[(labels == names[answered[row]]) & others]
        taught = taught[:: -(-len(taught) // COMPARED) or 1]
        if len(taught):
            own, theirs = part.of(np.asarray(values[[row]])), part.of(np.asarray(values[taught]))
            places, cosines = reference.nearest(own, theirs, 1)
            found[row] = Looks(int(taught[places[0, 0]]), float(cosines[0, 0]))
    return found


def overlays_of(fitted: Fitted, rows: Ints) -> dict[int, bytes]:
    """row -> a JPEG of what spoke for the answer that was judged, and what against it. Empty for a head that is not
    linear."""
    seen, head = fitted.seen, fitted.head
    if fitted.method.task.name != "classify" or not isinstance(head, Probe) or not len(rows):
        return {}
    task, rule, precision = fitted.method.task, fitted.rule, seen.engine.precision
    model = Loaded(None, seen.backbone, task, head, seen.targets.names, rule, precision)
    answered, drawn = _answered(fitted), dict[int, bytes]()

    def deliver(found: Explanation) -> None:
        row = int(rows[found.row])
        drawn[row] = overlay(seen.table.read(row), found.places, seen.backbone.preprocess, SIDE)

    def failed(row: int, error: ImageError) -> None:
        """It has no overlay then."""

    explain(model, seen.table.take(rows), deliver, failed, asked={k: answered[int(r)] for k, r in enumerate(rows)})
    return drawn


def heats_of(fitted: Fitted, rows: Ints) -> dict[int, bytes]:
    """row -> a JPEG of where a picture is odd, of those that did not teach. Empty for a head that knows no patches."""
    seen, head = fitted.seen, fitted.head
    if not isinstance(head, Oddity) or head.patches is None:
        return {}
    new = rows[~np.isin(rows, fitted.plan.train) | (seen.targets.strata[rows] > 0)]
    if not len(new):
        return {}
    heat, drawn = head.heat(rows_of(seen.features.blocks, new)), dict[int, bytes]()
    assert heat is not None
    for row, one in zip(map(int, new), heat, strict=True):
        try:
            drawn[row] = draw_heat(seen.table.read(row), one, seen.backbone.preprocess, SIDE)
        except ImageError:
            continue
    return drawn


def small(fitted: Fitted, row: int) -> bytes:
    """A small preview of a training image; b"" where it is gone."""
    try:
        return images.preview(fitted.seen.table.read(row), SMALL, preprocess=fitted.seen.backbone.preprocess)
    except ImageError:
        return b""


def _answered(fitted: Fitted) -> Mapping[int, Any]:
    """row -> the number of the class that it was judged by."""
    verdict = fitted.verdict
    answers = decision_of(verdict.answers)
    return {int(row): int(answer) for row, answer in zip(verdict.rows, answers, strict=True)}
