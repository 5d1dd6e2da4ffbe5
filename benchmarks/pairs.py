"""Two networks side by side, `--backbone A+B`, beside each alone: accuracy, what is kept, and what it costs.

    python benchmarks/pairs.py [--draws 2] [--only NAME ...] [--cache FOLDER]

EfficientNet-Lite0 (A) and Lite2 (B), as their packages bring them. CIFAR-10 with 10 and 50 images a class and 2,000
test images, EuroSAT with 20 a class and 500 others, brain MRI with half of the images. Each accuracy is that of the
head of a whole fit on the images that did not teach; `kept`: what left-out answers of those that teach chose, so that
the fit has the accuracy of A+B or of A. Seconds: of the passes over the images that teach and judge, where they were
not in the cache.

How the last layers are joined, on the features of A and of B, each at its own size: `evened`, each at a mean absolute
value of 1, as A+B does it at the size of A; `raw`, as they are; `apart`, as two blocks, each of unit length; `and
alone`: the sets of each network alone among the candidates too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import measure
import numpy as np
from few_labels import drawn, tested
from numpy.typing import NDArray

from headstart.data.splits import hold_out
from headstart.data.table import Table, read_table
from headstart.heads.material import Material
from headstart.heads.taps import LAST, OF, Part, TapSet, tap_sets
from headstart.story.evidence import Method, judge
from headstart.story.opening import QUIET, Options, features_of, open_network
from headstart.story.pairing import compared
from headstart.story.pipeline import examine
from headstart.story.plan import Plan, make_plan
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import solved
from headstart.trunk.network import block_names

A, B = "tf_efficientnet_lite0", "tf_efficientnet_lite2"
WAYS = {"A": A, "B": B, "A+B": f"{A}+{B}"}
JOINED = ("evened", "raw", "apart", "evened and alone")
TEST = 2000
LEAST = -0.3  # points by which the mean of what is kept may be behind A on a setting
Blocks = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Draw:
    """Of one draw: accuracy of each way, seconds of its passes and how many images they saw, what is kept and why,
    accuracies by how the last layers are joined."""

    accuracy: dict[str, float]
    seconds: dict[str, float]
    passes: dict[str, int]
    kept: bool
    gain: float
    error: float
    joined: dict[str, float]


def few(folder: Path, labels: int, draw: int) -> Table:
    """So many images a class to teach, the first TEST test images to judge."""
    table = read_table(folder)
    return table.take(np.concatenate([drawn(table, labels, draw), tested(table, TEST)]))


def parted(folder: Path, share: float, most: int, draw: int) -> Table:
    """A set without parts: this share to judge, `most` images of it at most."""
    table = read_table(folder)
    strata = np.unique(table.labels.astype(str), return_inverse=True)[1]
    held = hold_out(strata, np.arange(len(table)), share, draw, [f"{row:06d}" for row in range(len(table))])
    table = replace(table, splits=np.where(held, "test", "train").astype(object))
    judged = np.random.default_rng(draw).permutation(np.flatnonzero(held))[:most]
    return table.take(np.sort(np.concatenate([np.flatnonzero(~held), judged])))


def settings(data: Path) -> dict[str, Callable[[int], Table]]:
    """name -> the images of a draw."""
    return {
        "CIFAR-10, 10 a class": lambda draw: few(data / "cifar10", 10, draw),
        "CIFAR-10, 50 a class": lambda draw: few(data / "cifar10", 50, draw),
        "EuroSAT, 20 a class": lambda draw: parted(data / "eurosat_3000", 1 - 200 / 3000, 500, draw),
        "brain MRI": lambda draw: parted(data / "brain_mri_yes_no", 0.5, 1000, draw),
    }


def one(table: Table, options: Options) -> tuple[float, float, int, Material, Plan]:
    """(accuracy, seconds of the pass, images that it saw, features, plan) of this network or pair, whether a fit would
    keep it or not."""
    backbone, engine = open_network(table, options)
    begun = time.perf_counter()
    features = features_of(table, backbone, engine, options, lambda done: None)
    seconds = time.perf_counter() - begun
    seen = examine(CLASSIFICATION, table, backbone, engine, features)
    plan = make_plan(seen.table.splits, seen.targets.strata, seen.groups, features.hashes, options.seed)
    material = seen.material(options.seed)
    sets = CLASSIFICATION.sets(options.taps, block_names(backbone))
    return accuracy_of(material, plan, sets), seconds, features.n_forward, material, plan


def accuracy_of(material: Material, plan: Plan, sets: tuple[TapSet, ...]) -> float:
    """In percent, on the images that judge."""
    head = solved(CLASSIFICATION, material, plan.train, sets)
    verdict = judge(material, plan, head, Method(CLASSIFICATION, sets), lambda name, n: lambda k: None)
    return 100 * float(verdict.marks["right"].mean())


def joined(first: Material, second: Material, how: str, times: float) -> tuple[Material, tuple[TapSet, ...]]:
    """The features of both as one material, and the sets that heads read."""
    blocks = {
        f"{name}{OF}{key}": b for name, m in zip("AB", (first, second), strict=True) for key, b in m.blocks.items()
    }
    lasts = [np.asarray(m.blocks[LAST], np.float32) for m in (first, second)]
    lasts[1] = times * lasts[1]
    stages = tuple(key for key in blocks if not key.endswith(LAST))
    if how == "apart":
        both = tuple(f"{name}{OF}{LAST}" for name in "AB")
        last = TapSet("last", tuple(Part(key, root=True, unit=True) for key in both))
        every = TapSet("all", tuple(Part(key, root=False, unit=True) for key in (*stages, *both)))
        return replace(first, blocks=blocks), (last, every)
    if how != "raw":
        lasts = [last / np.abs(last).mean(axis=1, keepdims=True) for last in lasts]
    blocks[LAST] = np.concatenate(lasts, axis=1)
    sets = tap_sets("auto", (*stages, LAST))
    if how.endswith("alone"):
        sets += tuple(
            TapSet(f"{one.name} {name}", tuple(replace(p, block=f"{name}{OF}{p.block}") for p in one.parts))
            for name, m in zip("AB", (first, second), strict=True)
            for one in tap_sets("auto", tuple(m.blocks))
        )
    return replace(first, blocks=blocks), sets


def measured(table: Table, cache: str, draw: int, times: float) -> Draw:
    """Each way on the same images."""
    options = Options(cache=cache, seed=draw)
    found = {way: one(table, replace(options, backbone=name)) for way, name in WAYS.items()}
    chosen = compared(CLASSIFICATION, table, replace(options, backbone=WAYS["A+B"]), QUIET)
    first, second, plan = found["A"][3], found["B"][3], found["A"][4]
    return Draw(
        {way: f[0] for way, f in found.items()},
        {way: f[1] for way, f in found.items()},
        {way: f[2] for way, f in found.items()},
        chosen.kept,
        chosen.gain,
        chosen.error,
        {how: accuracy_of(*joined_for(first, second, how, plan, times)) for how in JOINED},
    )


def joined_for(
    first: Material, second: Material, how: str, plan: Plan, times: float
) -> tuple[Material, Plan, tuple[TapSet, ...]]:
    material, sets = joined(first, second, how, times)
    return material, plan, sets


def row_of(name: str, draws: list[Draw]) -> list[str]:
    mean = {way: np.mean([d.accuracy[way] for d in draws]) for way in WAYS}
    choices = ", ".join(f"{'A+B' if d.kept else 'A'} ({d.gain:+.3f}, SE {d.error:.3f})" for d in draws)
    fits = np.mean([d.accuracy["A+B" if d.kept else "A"] for d in draws])
    each = {w: 1000 * sum(d.seconds[w] for d in draws) / max(1, sum(d.passes[w] for d in draws)) for w in WAYS}
    pace = ", ".join(f"{ms:.1f}" if any(d.passes[w] for d in draws) else "stored" for w, ms in each.items())
    return [name, *(f"{mean[way]:.1f}" for way in WAYS), choices, f"{fits:.1f}", pace]


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="names of settings")
    parser.add_argument("--cache", type=Path, help="where features stay (default: nowhere)")
    parser.add_argument("--times", type=float, default=1.0, help="the last layer of B is so many times as large")
    options = parser.parse_args()
    rows, others, targets, values = [], [], [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, table_of in settings(options.data).items():
            if options.only and name not in options.only:
                continue
            draws = [
                measured(table_of(draw), str(options.cache or scratch), draw, options.times)
                for draw in range(options.draws)
            ]
            rows.append(row_of(name, draws))
            others.append([name, *(f"{np.mean([d.joined[how] for d in draws]):.2f}" for how in JOINED)])
            print(rows[-1], others[-1], flush=True)
            values[name] = [vars(d) for d in draws]
            behind = np.mean([d.accuracy["A+B"] - d.accuracy["A"] if d.kept else 0.0 for d in draws])
            targets.append(
                measure.Target(f"{name}: what is kept above A, points", round(float(behind), 2), floor=LEAST)
            )
    header = ("set", *WAYS, "kept (lower log-loss, standard error)", "the fit", "ms an image: A, B, A+B")
    tables = [
        measure.Table(f"Accuracy in percent, {options.draws} draws", header, rows),
        measure.Table("A+B by how the last layers are joined", ("set", *JOINED), others),
    ]
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
