"""Fine-tuning from a cut point: the frozen part's activations are made once a view, the part above learns on.

It starts from the fitted closed-form head (LP-FT: Kumar et al. 2022), is stopped by a held-out part of the training
images, and is compared there with the frozen model, on the same images, paired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.judge.metrics import accuracy_interval, paired_gain
from headstart.learn.material import Material
from headstart.learn.probe import Probe, fit_probe
from headstart.learn.recipe import Training
from headstart.learn.taps import TapSet, plain
from headstart.learn.trained import Design, Epoch, Examples, SpecHead, train_head
from headstart.trunk.network import Backbone
from headstart.trunk.tunable import Tail, Tunable

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tuning:
    """What learns, and how. `views`: random views of the training images at the cut, (view row, feature) each;
    `view_rows` (image,): their rows, -1 where an image has none."""

    backbone: Backbone
    what: Tunable
    block: str
    shape: tuple[int, ...]
    training: Training
    automatic: bool  # keep the tuned model only where it wins
    sets: tuple[TapSet, ...]  # of the frozen model that it is compared with
    heads: tuple[str, ...]
    views: tuple[npt.NDArray[np.floating], ...] = ()
    view_rows: Ints | None = None


@dataclass(frozen=True)
class Tuned:
    """The outcome: `head` is the tuned tail, or the frozen model where tuning did not win; `record` says why."""

    head: SpecHead | Probe
    record: dict[str, Any]


def tune(
    tuning: Tuning,
    material: Material,
    rows: Ints,
    device: str = "cpu",
    progress: Callable[[Epoch], None] = lambda e: None,
) -> Tuned:
    """Learn from these rows. With `automatic` the frozen model of all of them is given where tuning does not win.

    "Wins": more of the held-out images right, and the paired 95 % interval of the difference above 0.
    """

    def start(some: npt.NDArray[np.integer]) -> nn.Module:
        probe = _closed(tuning, material, some, (plain(),))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(material.seed)
            tail = Tail(tuning.backbone, tuning.what, len(material.classes))
        with torch.no_grad():
            tail.linear.weight.copy_(torch.from_numpy(probe.coef))
            tail.linear.bias.copy_(torch.from_numpy(probe.intercept))
        return tail

    design = Design(f"tuned above {tuning.what.cut}", (), tuning.block, tuning.shape, tuning.training, start)
    keys = [material.keys[row] for row in rows]
    places = None if tuning.view_rows is None else tuning.view_rows[rows]
    examples = Examples(
        material.blocks[tuning.block],
        rows,
        material.y[rows],
        material.groups[rows],
        keys,
        len(material.classes),
        tuning.views,
        places,
    )
    head = train_head(design, examples, material.seed, device, progress)
    record: dict[str, Any] = {
        "cut": tuning.what.cut,
        "modules": len(tuning.what.modules),
        "parameters": tuning.what.n_parameters,
    }
    record["epochs"] = [asdict(epoch) for epoch in head.epochs]
    judged = np.flatnonzero(~np.isnan(head.left_out[:, 0]))
    if not len(judged):
        return Tuned(head, record | {"kept": True, "compared": None})
    compared = _compare(tuning, material, rows, judged, head)
    kept = not tuning.automatic or (compared["difference"]["low"] or 0.0) > 0
    record |= {"kept": kept, "compared": compared}
    return Tuned(head if kept else _closed(tuning, material, rows, tuning.sets), record)


def _compare(
    tuning: Tuning, material: Material, rows: Ints, judged: npt.NDArray[np.intp], head: SpecHead
) -> dict[str, Any]:
    """Frozen and tuned, both made without the held-out images, on them."""
    others = np.delete(rows, judged)
    frozen = _closed(tuning, material, others, tuning.sets)
    held = rows[judged]
    answers = frozen.log_probabilities({name: material.blocks[name][held] for name in {p.block for p in frozen.parts}})
    right = [a.argmax(axis=1) == material.y[held] for a in (head.left_out[judged], answers)]
    groups = material.groups[held]
    found = {name: accuracy_interval(hit, groups) for name, hit in zip(("tuned", "frozen"), right, strict=True)}
    return {"n": len(held), **found, "difference": paired_gain(right[0], right[1], groups)["difference"]}


def _closed(tuning: Tuning, material: Material, rows: npt.NDArray[np.integer], sets: tuple[TapSet, ...]) -> Probe:
    names = {part.block for tap_set in sets for part in tap_set.parts}
    blocks = {name: material.blocks[name][rows] for name in names}
    return fit_probe(blocks, material.y[rows], material.groups[rows], sets, tuning.heads, material.seed)


def as_probe(head: SpecHead) -> Probe:
    """The linear top of a tuned network, as any other model's on its last layer."""
    tail = head.module
    assert isinstance(tail, Tail)
    weight, bias = (p.detach().double().numpy() for p in (tail.linear.weight, tail.linear.bias))
    return Probe(plain().parts, weight, bias, head.candidates, head.left_out)


def tuned_backbone(head: SpecHead, backbone: Backbone, cut: str) -> Backbone:
    """The backbone with what was learned."""
    tail = head.module
    assert isinstance(tail, Tail)
    return tail.tuned(backbone, cut)
