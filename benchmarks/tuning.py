"""An epoch of tuning the last stage from cached activations, against the plain loop that runs the whole network live.

    python benchmarks/tuning.py [--n 256] [--rounds 3]

Both train the same modules (the last stage and a linear top) on the same images in batches of 32 with AdamW, in turns,
in float32 on all cores. The plain loop is the tutorials': everything below the last stage frozen, every image through
the whole network in every epoch; its images lie decoded in memory, so decoding is not counted against it. Cached: the
activations at the cut in float16, made once a view by the engine; that pass is reported beside it.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import measure
import numpy as np
import torch

from headstart.learn import recipe
from headstart.learn.trained import Design, Examples, _Learner
from headstart.opening import cut_tap
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import compile_trunk
from headstart.trunk.network import Backbone
from headstart.trunk.tunable import Tail, tunable

CASES = (("hymenoptera", 224, 2), ("eurosat_3000", 160, 10))
NETWORKS = (("tf_efficientnet_lite0", "auto"), ("resnet18", "none"))


def cached(backbone: Backbone, activations: Any, y: Any, n_classes: int) -> float:
    """Seconds of an epoch on stored activations."""
    what = tunable(backbone, "last")
    tap = cut_tap(backbone, what.cut)
    design = Design("", (), tap.blocks[0], tap.shape, recipe.tuning(len(y), 1, 32))
    learn = _Learner(Tail(backbone, what, n_classes), design, 1.0, "cpu", len(y) // 32 + 1)
    examples = Examples(activations, np.arange(len(y)), y, np.arange(len(y)), [], n_classes)
    start = time.perf_counter()
    learn.epoch(examples, np.arange(len(y)), 0)
    return time.perf_counter() - start


def live(backbone: Backbone, pixels: torch.Tensor, y: Any, n_classes: int) -> float:
    """Seconds of an epoch of the plain loop."""
    whole = replace(tunable(backbone, "last"), cut="input")  # the same modules learn, all the others run live
    network = Tail(backbone, whole, n_classes).train()
    learn = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learn, 3e-4)
    start = time.perf_counter()
    for at in range(0, len(y), 32):
        optimizer.zero_grad(set_to_none=True)
        target = torch.from_numpy(y[at : at + 32])
        torch.nn.functional.cross_entropy(network(pixels[at : at + 32]), target).backward()
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--n", type=int, default=256, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows, targets, values = [], [], {}
    for data, side, n_classes in CASES:
        pixels = rng.integers(0, 256, (options.n, side, side, 3), np.uint8)  # what is in a picture takes no time
        y = rng.integers(0, n_classes, options.n)
        for name, weights in NETWORKS:
            backbone = open_backbone(name, weights)
            backbone = backbone.resized(replace(backbone.preprocess, size=(side, side)))
            cut = tunable(backbone, "last").cut
            at_cut = replace(backbone, taps=(cut_tap(backbone, cut),), ends=())
            engine = compile_trunk(at_cut)
            found: dict[int, Any] = {}
            start = time.perf_counter()
            size = engine.batch
            batches = [(k, pixels[k : k + size]) for k in range(0, options.n - options.n % size, size)]
            engine.run(batches, lambda tag, out, f=found: f.update({tag: out.astype(np.float16)}))
            passed = time.perf_counter() - start
            activations = np.concatenate([found[k] for k in sorted(found)])
            ready = torch.from_numpy(pixels[: len(activations)]).permute(0, 3, 1, 2).float() / 255
            labels = y[: len(activations)]
            ours, plain = [], []
            for _ in range(options.rounds):
                ours.append(cached(backbone, activations, labels, n_classes))
                plain.append(live(backbone, ready, labels, n_classes))
            ratio = statistics.median(plain) / statistics.median(ours)
            seconds = [f"{statistics.median(taken):.2f}" for taken in (ours, plain)]
            rows.append([f"{data}, {side} px", name, *seconds, f"{ratio:.1f}", f"{passed:.2f}"])
            values[f"{data} {name}"] = {"cached": ours, "live": plain, "pass": passed}
            targets.append(measure.Target(f"{name} at {side} px: times faster an epoch", ratio, floor=3))
    header = ("images", "network", "cached, s", "live, s", "ratio", "pass of a view, s")
    measure.publish(
        options, __doc__ or "", [measure.Table("An epoch of the last stage", header, rows)], targets, values
    )


if __name__ == "__main__":
    main()
