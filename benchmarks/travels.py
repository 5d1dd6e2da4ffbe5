"""Does what was learned travel? CIFAR-10 and EuroSAT judged in grey, inverted, blurred, as edges, in other resolutions.

    python benchmarks/travels.py [--draws 2] [--cache FOLDER]

50 of each class of CIFAR-10 teach, and 20 and 200 of EuroSAT; others judge, half of those that are left the place of
use for `--target` without their labels. `mixed otherwise`: of ten classes two make most of the place of use and of what
is judged there. The last layer alone is what must be reached; `--taps late` reads it and the upper half of the stages.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from headstart.data.table import Table, read_table, table_of
from headstart.heads.taps import last
from headstart.story import pipeline
from headstart.story.opening import Options, features_of
from headstart.story.target import moved, told
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import closed_form

Array = NDArray[Any]
EACH = 1000  # pictures of a place of use, half of them judged
SMALLER, LARGER = 0.5, 2.0
KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda picture: picture,
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "inverted": ImageOps.invert,
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(picture.width / 32)),
    "edges": lambda picture: ImageOps.invert(
        ImageOps.grayscale(picture).filter(ImageFilter.FIND_EDGES)  # light on dark, as a drawing dark on light
    ).convert("RGB"),
    "half the resolution": lambda picture: picture.resize(_times(picture, SMALLER), Image.Resampling.BOX),
    "twice the resolution": lambda picture: picture.resize(_times(picture, LARGER), Image.Resampling.BICUBIC),
}
SETS = (("cifar10", 50), ("eurosat_3000", 20), ("eurosat_3000", 200))
ARMS = ("default", "last layer", "late", "target", "target, mixed otherwise", "late, mixed otherwise")


def _times(picture: Image.Image, factor: float) -> tuple[int, int]:
    return round(picture.width * factor), round(picture.height * factor)


def parts(table: Table, a_class: int, draw: int) -> tuple[Array, Array]:
    """Rows that teach, and others."""
    order = np.random.default_rng(draw).permutation(len(table))
    pool = order[table.splits[order] != "test"]
    teach = np.concatenate([pool[table.labels[pool] == name][:a_class] for name in table.classes])
    rest = order[table.splits[order] == "test"] if (table.splits == "test").any() else np.setdiff1d(pool, teach)
    return teach, np.random.default_rng(draw).permutation(rest)[:EACH]


def changed(table: Table, rows: Array, kind: str) -> Table:
    pictures = [Image.open(io.BytesIO(table.read(int(row)))).convert("RGB") for row in rows]
    return table_of([np.asarray(KINDS[kind](picture)) for picture in pictures], list(table.labels[rows]))


def one(table: Table, a_class: int, draw: int, cache: str) -> dict[str, dict[str, float]]:
    """kind -> arm -> accuracy in the judged half of the pictures of that kind."""
    teach, others = parts(table, a_class, draw)
    options = Options(cache=cache, seed=draw)
    learned = pipeline.learn(table.take(teach), options, hold_out=False)
    seen, material, rows = learned.seen, learned.material, learned.plan.train
    late = closed_form(CLASSIFICATION, material, rows, CLASSIFICATION.sets("late", tuple(material.blocks)))
    alone = closed_form(CLASSIFICATION, material, rows, (last(),))
    names, found = np.array(seen.targets.names), dict[str, dict[str, float]]()
    for kind in KINDS:
        there = features_of(changed(table, others, kind), seen.backbone, seen.engine, options, lambda done: None)
        truth, half = table.labels[others], len(others) // 2
        some = np.flatnonzero((truth == names[0]) | (truth == names[1]) | (np.arange(len(truth)) % 10 == 0))
        heads = {"default": learned.head, "last layer": alone, "late": late}
        row = {arm: right(head, there.blocks, names, truth, np.arange(half, len(truth))) for arm, head in heads.items()}
        for arm, mine in (("target", np.arange(len(truth))), ("target, mixed otherwise", some)):
            use, judged = mine[: len(mine) // 2], mine[len(mine) // 2 :]
            target = told(material, rows, {b: x[use] for b, x in there.blocks.items()})
            head = moved(target, late, material, rows)[0] if target.differs else learned.head
            row[arm] = right(head, there.blocks, names, truth, judged)
            if mine is some:
                row["late, mixed otherwise"] = right(late, there.blocks, names, truth, judged)
        found[kind] = row
    return found


def right(head: Any, blocks: dict[str, Array], names: Array, truth: Array, rows: Array) -> float:
    answers = head.outputs({name: block[rows] for name, block in blocks.items()}).argmax(axis=1)
    return float((names[answers] == truth[rows]).mean())


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    options = parser.parse_args()
    tables, values, behind = [], {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, a_class in SETS:
            table = read_table(Path(options.data) / name)
            draws = [one(table, a_class, draw, options.cache or folder) for draw in range(options.draws)]
            mean = {kind: {arm: float(np.mean([d[kind][arm] for d in draws])) for arm in ARMS} for kind in KINDS}
            rows = [[kind, *(f"{mean[kind][arm]:.1%}" for arm in ARMS)] for kind in KINDS]
            tables.append(measure.Table(f"{name}, {a_class} a class teach", ("judged", *ARMS), rows))
            values[f"{name} {a_class}"] = draws
            behind += sum(mean[kind]["target"] < mean[kind]["last layer"] for kind in KINDS)
            print(tables[-1], file=sys.stderr, flush=True)
    targets = [measure.Target("kinds of pictures on which --target is behind the last layer alone", behind, ceiling=0)]
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
