"""What is seen of a picture: its middle, all of it, or all of it with borders; and its mirror image with it.

    python benchmarks/views.py [--draws 3] [--only NAME ...]

Made pictures, one object at a random end of a canvas three times as long as it is high, on something else: ants and
bees on photographs of other things (imagenet_100), tiles of EuroSAT and of CIFAR-10 on noise; `upright too`: every
second canvas stands on end. Ants and bees cut to strips of 2:1 around the middle. Half of the pictures teach, the
others judge. Real ones as they are: ants and bees, EuroSAT, brain MRI, faces. Each view is a whole fit, `--view auto`
too. Passes: of an image through the network, with those of a trial of views, where nothing was stored.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.splits import hold_out
from headstart.data.table import Table, read_table, table_of
from headstart.story.evidence import judge
from headstart.story.opening import Options
from headstart.story.pipeline import learn

SIDE, LONG, MOST = 256, 3, 600  # px of an object of a photograph; sides of a canvas; tiles of a set
REAL = 1000  # pictures of a real set
LEAST = 0.0  # points that `auto` may be behind the middle on made pictures
ONE = ("ants and bees in strips", "ants and bees")  # one draw
WAYS = ("auto", "crop", "whole", "pad")  # auto first: nothing of its images is stored yet
Array = NDArray[Any]


@dataclass(frozen=True)
class Way:
    """A fit of one draw: accuracy on the images that judge, the view that it took, passes an image."""

    accuracy: float
    view: str
    passes: float


def pixels(table: Table, row: int) -> Image.Image:
    return Image.open(io.BytesIO(table.read(row))).convert("RGB")


def canvas(thing: Image.Image, behind: Image.Image, rng: np.random.Generator, stands: bool) -> Array:
    """The object at one end of what is behind it."""
    side = thing.height
    behind.paste(thing, (0 if rng.random() < 0.5 else behind.width - side, 0))
    return np.rot90(np.asarray(behind)) if stands else np.asarray(behind)


def insects(data: Path, rng: np.random.Generator, stands: bool) -> Table:
    """Ants and bees, cut square, on photographs of other things; parts as they are."""
    table = read_table(data / "hymenoptera")
    behind = sorted((data / "imagenet_100").iterdir())
    made = []
    for row in range(len(table)):
        whole = pixels(table, row)
        side = min(whole.size)
        left, top = (whole.width - side) // 2, (whole.height - side) // 2
        thing = whole.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        other = Image.open(behind[rng.integers(len(behind))]).convert("RGB")
        back = other.resize((SIDE * LONG, SIDE), Image.Resampling.BICUBIC)
        made.append(canvas(thing, back, rng, stands and row % 2 == 1))
    splits = np.where(table.splits == "train", "train", "test").astype(object)
    return replace(table_of(made, list(table.labels)), splits=splits)


def strips(data: Path) -> Table:
    """Ants and bees cut to strips twice as long as they are high, the thing in the middle; parts as they are."""
    table = read_table(data / "hymenoptera")
    made = []
    for row in range(len(table)):
        whole = pixels(table, row)
        whole = whole.rotate(90, expand=True) if whole.width < whole.height else whole
        high = min(whole.width // 2, whole.height)
        top = (whole.height - high) // 2
        made.append(np.asarray(whole.crop((0, top, whole.width, top + high))))
    splits = np.where(table.splits == "train", "train", "test").astype(object)
    return replace(table_of(made, list(table.labels)), splits=splits)


def tiles(folder: Path, rng: np.random.Generator, stands: bool) -> Table:
    """Small pictures on noise, half of them to teach."""
    table = read_table(folder)
    rows = rng.permutation(len(table))[:MOST]
    made = []
    for k, row in enumerate(rows):
        thing = pixels(table, int(row))
        noise = rng.integers(0, 256, (thing.height, LONG * thing.width, 3), np.uint8)
        made.append(canvas(thing, Image.fromarray(noise), rng, stands and k % 2 == 1))
    splits = np.where(np.arange(len(rows)) < len(rows) // 2, "train", "test").astype(object)
    return replace(table_of(made, list(table.labels[rows])), splits=splits)


def real(folder: Path, share: float, draw: int) -> Table:
    """A set as it is, a share of it held out where it has no parts of its own."""
    table = read_table(folder)
    table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:REAL]))
    if (table.splits == "none").all():
        strata = np.unique(table.labels.astype(str), return_inverse=True)[1]
        keys = [f"{row:06d}" for row in range(len(table))]
        held = hold_out(strata, np.arange(len(table)), share, draw, keys)
        return replace(table, splits=np.where(held, "test", "train").astype(object))
    return replace(table, splits=np.where(table.splits == "train", "train", "test").astype(object))


def sets(data: Path) -> dict[str, Callable[[int], Table]]:
    """name -> the pictures of a draw."""

    def drawn(draw: int) -> np.random.Generator:
        return np.random.default_rng(draw)

    return {
        "ants and bees at an end": lambda draw: insects(data, drawn(draw), False),
        "the same, upright too": lambda draw: insects(data, drawn(draw), True),
        "EuroSAT at an end": lambda draw: tiles(data / "eurosat_3000", drawn(draw), False),
        "CIFAR-10 at an end": lambda draw: tiles(data / "cifar10", drawn(draw), False),
        "the same tiles, upright too": lambda draw: tiles(data / "cifar10", drawn(draw), True),
        "ants and bees in strips": lambda draw: strips(data),
        "ants and bees": lambda draw: real(data / "hymenoptera", 0.5, draw),
        "EuroSAT": lambda draw: real(data / "eurosat_3000", 0.5, draw),
        "brain MRI": lambda draw: real(data / "brain_mri_yes_no", 0.5, draw),
        "faces": lambda draw: real(data / "faces_orl", 0.5, draw),
    }


def fitted(table: Table, cache: str, view: str, draw: int, views: int = 1) -> Way:
    learned = learn(table, Options(cache=cache, view=view, views=views, seed=draw))
    verdict = judge(learned.material, learned.plan, learned.head, learned.method, lambda name, n: lambda k: None)
    sight = learned.seen.sight
    passes = (sight.n_forward + learned.seen.features.n_forward) / len(table) if sight else float(views)
    chosen = learned.options.view if sight else "crop" if view == "auto" else view
    return Way(float(verdict.marks["right"].mean()), chosen, passes)


def row_of(name: str, found: dict[str, list[Way]]) -> list[str]:
    """Accuracies and seconds of a set, means of the draws."""
    mean = {way: np.mean([100 * w.accuracy for w in ways]) for way, ways in found.items()}
    took = ", ".join(sorted({w.view for w in found["auto"]}))
    passes = np.mean([w.passes for w in found["auto"]])
    gain = f"{mean['views 2'] - mean['auto']:+.1f}"
    return [name, *(f"{mean[way]:.1f}" for way in WAYS), took, f"{passes:.2f}", gain]


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of sets")
    options = parser.parse_args()
    rows, targets, values = [], [], {}
    for name, drawn in sets(options.data).items():
        if options.only and name not in options.only:
            continue
        found: dict[str, list[Way]] = {way: [] for way in (*WAYS, "views 2")}
        with tempfile.TemporaryDirectory() as cache:
            for draw in range(1 if name in ONE else options.draws):  # whose parts are their own
                table = drawn(draw)
                for way in WAYS:
                    found[way].append(fitted(table, cache, way, draw))
                found["views 2"].append(fitted(table, cache, found["auto"][-1].view, draw, views=2))
        rows.append(row_of(name, found))
        print(rows[-1], flush=True)
        values[name] = {way: [vars(w) for w in ways] for way, ways in found.items()}
        behind = np.mean([a.accuracy - c.accuracy for a, c in zip(found["auto"], found["crop"], strict=True)])
        targets.append(measure.Target(f"{name}: auto above the middle, points", round(100 * behind, 2), floor=LEAST))
    header = ("set", *WAYS, "auto took", "passes of auto", "mirror image with it, points")
    title = f"Accuracy in percent, {options.draws} draws"
    measure.publish(options, __doc__ or "", [measure.Table(title, header, rows)], targets, values)


if __name__ == "__main__":
    main()
