"""Copies made of known images, planted among them: how many are found, and how many other pairs are tied.

    python benchmarks/planted_copies.py [--sets hymenoptera faces_orl ...] [--images 3000] [--copies 120]

For each set and each kind of copy the images and `--copies` made ones are searched as `headstart inspect` does, and as
`fit` does (without the second look). Recall is the share of made copies that stand in one set with their original. A
false pair is one that stands in a set and would not without the copies, and whose images come of different originals.
Pairs tied in the untouched set are counted apart: many sets hold copies of their own, so they want an eye.

The limits of the search were chosen on `CHOSE`; the other sets judge.
"""

from __future__ import annotations

import gzip
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import measure
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headstart.data.duplicates import DuplicateSet, find_duplicates
from headstart.data.second_look import looking_at
from headstart.data.table import list_images
from headstart.story.opening import features_of, open_network
from headstart.story.options import Options
from headstart.story.pipeline import LAST

CHOSE = ("hymenoptera", "eurosat_3000", "brain_mri_yes_no", "camvid", "fashion_mnist", "cifar10")
SETS = (*CHOSE, "cifar100", "digits", "faces_orl", "bccd", "imagenet_100")
FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")  # Debian: dataset-fashion-mnist
FLOORS = {
    "byte copy": 0.98,
    "half size": 0.95,
    "JPEG 40": 0.95,
    "mirror": 0.95,
    "crop 5 %": 0.90,
    "crop 10 %": 0.85,
    "border": 0.85,
    "grey": 0.90,
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm", ".tif")
Made = Callable[[Image.Image, np.random.Generator], Image.Image]


def half(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.LANCZOS)


def cropped(share: float) -> Made:
    """A window with `share` of each side cut away, anywhere."""

    def make(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        across, down = (max(1, round(share * side)) for side in picture.size)
        left, top = int(rng.integers(0, across + 1)), int(rng.integers(0, down + 1))
        return picture.crop((left, top, left + picture.width - across, top + picture.height - down))

    return make


def bordered(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A tenth of the shorter side on every side, black, white or grey."""
    grey = (0, 255, 128)[int(rng.integers(3))]
    return ImageOps.expand(picture, max(1, round(0.1 * min(picture.size))), (grey, grey, grey))


MAKE: dict[str, Made] = {
    "half size": half,
    "mirror": lambda picture, rng: ImageOps.mirror(picture),
    "crop 5 %": cropped(0.05),
    "crop 10 %": cropped(0.10),
    "border": bordered,
    "grey": lambda picture, rng: picture.convert("L").convert("RGB"),
}


def copy_of(raw: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """A file: JPEG of quality 90 where the original is one, else without loss."""
    if kind == "byte copy":
        return raw
    opened = Image.open(io.BytesIO(raw))
    jpeg, picture, out = opened.format == "JPEG", opened.convert("RGB"), io.BytesIO()
    if kind == "JPEG 40":
        picture.save(out, "JPEG", quality=40)
    else:
        made = MAKE[kind](picture, rng)
        made.save(out, "JPEG", quality=90) if jpeg else made.save(out, "PNG")
    return out.getvalue()


def suffix(raw: bytes) -> str:
    return str(Image.open(io.BytesIO(raw)).format).lower()


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def files_of(name: str, data: Path, most: int) -> list[bytes]:
    """At most `most` images of a set, drawn at random, as files."""
    if name == "digits":
        from sklearn.datasets import load_digits

        found = [as_png((d * 15.9).astype(np.uint8)) for d in load_digits().images]
    elif name == "fashion_mnist":
        pixels = np.frombuffer(gzip.decompress(FASHION.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
        found = [as_png(picture) for picture in pixels]
    elif name.startswith("cifar"):
        import pyarrow.parquet as pq

        paths = sorted((data / name).rglob("*.parquet"))
        column = next(name for name in pq.read_schema(paths[0]).names if "im" in name)
        found = [record["bytes"] for path in paths for record in pq.read_table(path)[column].to_pylist()]
    else:
        paths = sorted(p for p in (data / name).rglob("*") if p.suffix.lower() in SUFFIXES and "mask" not in str(p))
        found = [path.read_bytes() for path in paths]
    rows = np.sort(np.random.default_rng(0).permutation(len(found))[:most])
    return [found[row] for row in rows]


def pairs_in(sets: list[DuplicateSet]) -> set[tuple[int, int]]:
    return {pair for s in sets for pair in combinations(s.rows, 2)}


def searched(name: str, data: Path, images: int, copies: int, cache: str) -> Iterator[tuple[str, ...]]:
    """One line a kind of copy: recall with and without a second look, false pairs for 1,000 images, seconds."""
    raw = files_of(name, data, images)
    n, rng, kinds = len(raw), np.random.default_rng(1), tuple(FLOORS)
    of = np.sort(rng.permutation(n)[:copies])
    with tempfile.TemporaryDirectory() as folder:
        made = [copy_of(raw[row], kind, rng) for kind in kinds for row in of]
        paths = [Path(folder) / f"{k:06d}.{suffix(b)}" for k, b in enumerate(raw + made)]
        for path, content in zip(paths, raw + made, strict=True):
            path.write_bytes(content)
        options = Options(cache=cache)
        table = list_images(paths)
        backbone, engine = open_network(table, options)
        seen = features_of(table, backbone, engine, options, None)
        place = {int(row): k for k, row in enumerate(seen.kept)}
        look = looking_at(table.take(seen.kept), backbone.preprocess)

        def search(rows: list[int], again: bool) -> tuple[list[DuplicateSet], float]:
            where = np.array([place[row] for row in rows])
            start = time.perf_counter()
            found = find_duplicates(
                [seen.hashes[k] for k in where],
                seen.blocks[LAST][where],
                seen.thumbnails[where],
                (lambda row: look(int(where[row]))) if again else None,
            )
            return found, time.perf_counter() - start

        own = [row for row in range(n) if row in place]
        untouched = {again: search(own, again) for again in (False, True)}
        known = {again: pairs_in(untouched[again][0]) for again in (False, True)}
        yield name, "untouched", *(str(len(known[again])) for again in (True, False)), "", f"{untouched[True][1]:.1f}"
        for number, kind in enumerate(kinds):
            rows = own + [n + number * copies + k for k in range(len(of)) if n + number * copies + k in place]
            origin = own + [int(of[row - n - number * copies]) for row in rows[len(own) :]]
            told = []
            for again in (True, False):
                sets, seconds = search(rows, again)
                pairs = pairs_in(sets)
                sources = [tuple(sorted((origin[a], origin[b]))) for a, b in pairs]
                hit = sum(a == b for a, b in sources)
                wrong = sum(a != b and (a, b) not in known[again] for a, b in sources)
                told.append((hit / len(of), wrong * 1000 / len(rows), seconds))
            yield name, kind, f"{told[0][0]:.2f}", f"{told[1][0]:.2f}", f"{told[0][1]:.2f}", f"{told[0][2]:.1f}"


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--images", type=int, default=3000, help="of a set, at most")
    parser.add_argument("--copies", type=int, default=120, help="of each kind")
    parser.add_argument("--cache", default=None, help="where features are kept")
    parser.add_argument("--record", default="planted_copies")
    given = parser.parse_args()
    lines, targets = [], []
    for name in given.sets:
        for line in searched(name, given.data, given.images, given.copies, given.cache):
            print("  ".join(line), flush=True)
            lines.append(line)
            if line[1] in FLOORS:
                targets.append(measure.Target(f"{name}: {line[1]}", float(line[2]), floor=FLOORS[line[1]]))
                targets.append(measure.Target(f"{name}: false pairs beside {line[1]}", float(line[4]), ceiling=1.0))
    header = ("set", "copy", "found by inspect", "by fit", "false pairs for 1,000 images", "seconds of the search")
    tables = [measure.Table("Planted copies; `untouched`: pairs tied without them", header, lines)]
    measure.publish(given, __doc__ or "", tables, targets, {"chose": CHOSE, "lines": lines})


if __name__ == "__main__":
    main()
