"""Duplicates among up to 1,000,000 simulated images: seconds, peak memory and the share of planted copies found.

    python benchmarks/many_copies.py [--sizes 60000 200000 1000000] [--again]

Features (float16, 1280 an image, in a hundred kinds) and thumbnails are made up and lie on disk; one image in a hundred
is a copy of the one before it. `--again` adds the second look, in which a file is one of the thumbnails enlarged: what
reading and decoding files costs is not in it. Each size is a process of its own. No matrix of all pairs may exist: for
1,000,000 images it would hold 4 TB.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np

from headstart.data.duplicates import find_duplicates

SIZES = (60_000, 200_000, 1_000_000)
WIDTH, KINDS, CHUNK, EVERY = 1280, 100, 10_000, 100


def write(folder: Path, n: int) -> None:
    """features.npy (image, WIDTH) and thumbnails.npy (image, 16, 16, 3), a chunk at a time."""
    rng = np.random.default_rng(0)
    features = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float16, shape=(n, WIDTH))
    thumbnails = np.lib.format.open_memmap(folder / "thumbnails.npy", mode="w+", dtype=np.uint8, shape=(n, 16, 16, 3))
    centres = rng.normal(0, 0.6, (KINDS, WIDTH)).astype(np.float32)
    for start in range(0, n, CHUNK):
        size = min(CHUNK, n - start)
        made = np.maximum(centres[rng.integers(0, KINDS, size)] + rng.standard_normal((size, WIDTH), np.float32), 0)
        coarse = rng.integers(20, 235, (size, 4, 4, 3)).astype(np.float32)
        small = np.kron(coarse, np.ones((1, 4, 4, 1), np.float32)) + rng.normal(0, 12, (size, 16, 16, 3))
        copies = np.arange(1, size, EVERY)
        made[copies] = made[copies - 1] + 0.2 * np.abs(rng.standard_normal((len(copies), WIDTH), np.float32))
        small[copies] = small[copies - 1] + rng.normal(0, 2, (len(copies), 16, 16, 3))
        features[start : start + size] = made
        thumbnails[start : start + size] = np.clip(small, 0, 255)


def search(folder: Path, n: int, again: bool) -> dict[str, Any]:
    """What the child does, on the first n images of the files."""
    features = np.load(folder / "features.npy", mmap_mode="r")[:n]
    thumbnails = np.load(folder / "thumbnails.npy", mmap_mode="r")[:n]
    order = np.random.default_rng(1).permutation(n)
    read = []

    def look(row: int) -> Any:
        read.append(row)
        return np.kron(thumbnails[row], np.ones((2, 2, 1), np.uint8))

    start = time.perf_counter()
    found = find_duplicates([f"{k:08x}" for k in order], features, thumbnails, look if again else None)
    seconds, sets = time.perf_counter() - start, {s.rows for s in found}
    wanted = [(k - 1, k) for first in range(0, n, CHUNK) for k in range(first + 1, min(first + CHUNK, n), EVERY)]
    hit = sum(pair in sets for pair in wanted)
    wrong = len(sets - set(wanted))
    return {"seconds": seconds, "found": hit / len(wanted), "other sets": wrong, "files read again": len(read)}


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images")
    parser.add_argument("--again", action="store_true", help="with the second look")
    parser.add_argument("--record", default="many_copies")
    parser.add_argument("--files", type=Path, help="the child process: the folder of features; prints JSON")
    parser.add_argument("--write", action="store_true", help="a child process that makes the images of --files")
    given = parser.parse_args()
    if given.files and given.write:
        write(given.files, given.sizes[0])
        return
    if given.files:
        print(json.dumps(search(given.files, given.sizes[0], given.again)))
        return
    lines, targets, found = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        child = [sys.executable, __file__, "--files", folder, "--sizes"]
        measure.run([*child, str(max(given.sizes)), "--write"])  # apart: a child's peak begins at its parent's
        for n in given.sizes:
            again = ["--again"] if given.again else []
            done = measure.run([*child, str(n), *again])
            found[n] = json.loads(done.stdout) | {"peak bytes": done.peak_bytes, "cpu": done.cpu}
            told = found[n]
            peak, kept = f"{done.peak_bytes / 2**30:.2f}", f"{told['found']:.3f}"
            counted = f"{told['other sets']:,}", f"{told['files read again']:,}"
            lines.append([f"{n:,}", f"{told['seconds']:.0f}", f"{done.cpu:.0f}", peak, kept, *counted])
            print("  ".join(lines[-1]), file=sys.stderr, flush=True)
            whole = n * (WIDTH * 2 + 768) / 2**30  # GiB of features and thumbnails: their mapped pages count as well
            what = f"{n:,} images: GiB beyond 1, by those of the images' features and thumbnails"
            targets.append(measure.Target(what, (done.peak_bytes / 2**30 - 1) / whole, ceiling=2))
    header = ("images", "seconds", "CPU seconds", "peak GiB", "copies found", "other sets", "files read again")
    measure.publish(given, __doc__ or "", [measure.Table("Simulated", header, lines)], targets, {"sizes": found})


if __name__ == "__main__":
    main()
