"""Heads for 3,000 to 1,000,000 images whose features lie on disk: seconds and peak memory, simulated.

    python benchmarks/many_images.py [--sizes 3000 10000 60000 200000 1000000] [--width 2848]

The features are made up, with ten classes that can mostly be told apart: float16, as many values an image as all taps
of the default network give, in files of 50,000 images that are mapped while they are read. Ridge and LDA are fitted
with everything that a fit does for one set of taps: 15 penalties, exact leave-one-out of every image, calibration. Each
size is a process of its own; the decomposition is that of a (feature, feature) matrix, whatever the number of images.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import measure
import numpy as np
from numpy.typing import NDArray

from headstart.heads import spectrum
from headstart.heads.probe import fit_probe
from headstart.heads.shards import Shards
from headstart.heads.taps import MANY, Taken, one_layer

SIZES = (3_000, 10_000, 60_000, 200_000, 1_000_000)
SHARD = 50_000  # images a file
CHUNK = 4096  # images made at a time
CLASSES = 10
APART = 0.035  # standard deviation of the class centres in a feature, where that of the images is 0.6


def classes_of(n: int) -> NDArray[np.int64]:
    """(image,); of a smaller set the beginning of a larger one's."""
    return np.random.default_rng(0).integers(0, CLASSES, n)


def write_shards(folder: Path, n: int, width: int) -> None:
    """Features (image, feature) of n images, a file for every SHARD of them."""
    rng = np.random.default_rng(1)
    y, centres = classes_of(n), APART * rng.standard_normal((CLASSES, width), np.float32)
    noise = np.abs(rng.standard_normal((2 * CHUNK, width), np.float32))
    for start in range(0, n, SHARD):
        size = min(SHARD, n - start)
        path = folder / f"{start:09d}.npy"
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(size, width))
        for at in range(0, size, CHUNK):
            mine = y[start + at : start + min(at + CHUNK, size)]
            rows = rng.integers(0, len(noise), len(mine))
            file[at : at + len(mine)] = np.roll(noise, int(rng.integers(width)), axis=1)[rows] + centres[mine]
        del file


def timed(seconds: dict[str, float], name: str, of: Callable[..., Any]) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        start = time.perf_counter()
        try:
            return of(*values)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    return call


def heads_of(folder: Path, n: int) -> dict[str, Any]:
    """What the child does, on the first n images of the files: seconds by stage, and what the heads are worth."""
    whole = Shards.of(tuple(sorted(folder.glob("*.npy"))))
    block: Any = whole[:n] if n <= MANY else Taken(whole, np.arange(n))
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    with (
        patch.object(spectrum, "summed", timed(seconds, "sums", spectrum.summed)),
        patch.object(np.linalg, "eigh", timed(seconds, "decomposition", np.linalg.eigh)),
    ):
        probe = fit_probe({"all": block}, classes_of(n), np.arange(n), (one_layer("all", "all"),), ("ridge", "lda"))
    seconds["all"] = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": max(c.accuracy for c in probe.candidates)}


def report(options: argparse.Namespace, found: dict[int, dict[str, Any]]) -> None:
    rows, above = [], {}
    for n, one in found.items():
        seconds = one["seconds"]
        above[n] = seconds["all"] - seconds["decomposition"]
        cells = [
            seconds.get("sums", 0.0),
            seconds["decomposition"],
            above[n] - seconds.get("sums", 0.0),
            seconds["all"],
        ]
        per_thousand = f"{1000 * above[n] / n:.3f}"
        peak = f"{one['peak bytes'] / 1e9:.2f}"
        accuracy = f"{one['accuracy']:.1%}"
        rows.append([f"{n:,}", *(f"{s:.1f}" for s in cells), per_thousand, peak, accuracy])
    header = (
        "images",
        "s, sums (one pass)",
        "s, decomposition",
        "s, penalties, leave-one-out, calibration",
        "s, all",
        "s above the decomposition, per 1,000 images",
        "peak memory, GB",
        "leave-one-out accuracy",
    )
    largest, before = max(found), sorted(found)[-2] if len(found) > 1 else max(found)
    growth = (above[largest] / largest) / (above[before] / before)
    targets = [
        measure.Target(f"peak memory with {largest:,} images, GB", found[largest]["peak bytes"] / 1e9, ceiling=4.0),
        measure.Target(f"seconds an image, {largest:,} / {before:,} images", growth, ceiling=1.25),
    ]
    title = f"Ridge and LDA on {options.width:,} float16 features"
    measure.publish(options, __doc__ or "", [measure.Table(title, header, rows)], targets, {"sizes": found})


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images")
    parser.add_argument("--width", type=int, default=2848, help="features an image")
    parser.add_argument("--shards", type=Path, help="the child process: the folder of features; prints JSON")
    options = parser.parse_args()
    if options.shards:
        print(json.dumps(heads_of(options.shards, options.sizes[0])))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), max(options.sizes), options.width)
        for n in options.sizes:
            done = measure.run([sys.executable, __file__, "--shards", folder, "--sizes", str(n)])
            found[n] = json.loads(done.stdout) | {"peak bytes": done.peak_bytes}
            print(f"{n:,} images: {found[n]['seconds']}", file=sys.stderr, flush=True)
    report(options, found)


if __name__ == "__main__":
    main()
