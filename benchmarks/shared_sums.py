"""Heads of features in Parquet files, by one process and by two workers of a cluster: bits, CPU, bytes moved.

    python benchmarks/shared_sums.py [--sizes 60000 200000] [--width 2848]

The features are those of many_images.py, made up, in files of 512 images as `headstart features -o FOLDER/` writes
them. Ridge and LDA are fitted with everything that a fit does for one set of taps. The workers are two nodes of a
cluster of this machine, with a processor each; the one process has both. CPU seconds are of all processes, without the
start of the cluster. Bytes moved: what goes to the workers once for each pass, what goes with each piece, and what
comes back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import measure
import numpy as np
from many_images import classes_of, write_shards
from scale import Meter, cluster

from headstart.heads.probe import fit_probe
from headstart.heads.sums import in_threads
from headstart.heads.taps import Taken, one_layer
from headstart.story.feature_folder import feature_table
from headstart.story.feature_rows import Column, Files
from headstart.trunk import scale
from headstart.trunk.store import AS_IT_IS

SIZES = (60_000, 200_000)
FILE = 512  # images
WAYS = ("one process", "two workers")


def write_files(folder: Path, n: int, width: int) -> None:
    """Parquet files of the first n images."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as scratch:
        write_shards(Path(scratch), n, width)
        number = 0
        for path in sorted(Path(scratch).glob("*.npy")):
            whole = np.load(path, mmap_mode="r")
            for start in range(0, len(whole), FILE):
                table = feature_table({}, {"all": np.array(whole[start : start + FILE])}, {})
                pq.write_table(table, folder / f"{number:06d}.parquet", **AS_IT_IS)
                number += 1


def weight(value: object) -> int:
    """Bytes of what is handed over, arrays included."""
    apart: list[Any] = []
    return len(pickle.dumps(value, 5, buffer_callback=apart.append)) + sum(len(part.raw()) for part in apart)


class Counting:
    """`each`, which counts the bytes that go and come."""

    def __init__(self) -> None:
        self.went, self.came, self.passes = 0, 0, 0

    def __call__(self, work: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[Any]:
        self.passes, self.went = self.passes + 1, self.went + weight(work)

        def counted() -> Iterator[Any]:
            for piece in pieces:
                self.went += weight(piece)
                yield piece

        for found in scale.each(work, counted()):
            self.came += weight(found)
            yield found


def heads_of(folder: Path, n: int, width: int, way: str) -> dict[str, Any]:
    """What the child does."""
    import pyarrow.parquet as pq

    paths = tuple(sorted(folder.glob("*.parquet")))
    ends = np.cumsum([pq.ParquetFile(path).metadata.num_rows for path in paths])
    files = Files(paths, tuple(np.minimum(ends, n).tolist()), {"all": width})
    shared = way == WAYS[1]
    with cluster(2, 1) if shared else nullcontext() as nodes, scale.joined(nodes.address if shared else None):
        counting, meter = Counting(), Meter()
        block: Any = Taken(Column(files, "all", counting if shared else in_threads), np.arange(n))
        before, start = meter.look(), time.perf_counter()
        probe = fit_probe({"all": block}, classes_of(n), np.arange(n), (one_layer("all", "all"),), ("ridge", "lda"))
        seconds, cpu = time.perf_counter() - start, meter.look() - before
    digest = hashlib.sha256(b"".join(a.tobytes() for a in (probe.coef, probe.intercept, probe.left_out))).hexdigest()
    moved = {"passes": counting.passes, "went": counting.went, "came": counting.came}
    return {"seconds": seconds, "cpu": cpu, "digest": digest, **moved}


def report(options: argparse.Namespace, found: dict[int, dict[str, dict[str, Any]]]) -> None:
    rows, targets = [], []
    for n, ways in found.items():
        one, two = (ways[way] for way in WAYS)
        for way in WAYS:
            told = ways[way]
            moved = [f"{told[name] / 1e6:,.0f}" for name in ("went", "came")] if way == WAYS[1] else ["-", "-"]
            rows.append([f"{n:,}", way, f"{told['seconds']:.0f}", f"{told['cpu']:.0f}", *moved, told["digest"][:12]])
        targets.append(measure.Target(f"{n:,} images: same bits", float(one["digest"] == two["digest"]), floor=1.0))
        targets.append(
            measure.Target(f"{n:,} images: CPU, two workers / one process", two["cpu"] / one["cpu"], ceiling=1.1)
        )
    header = ("images", "by", "s", "CPU s", "MB to workers", "MB from workers", "heads (SHA-256)")
    title = f"Ridge and LDA on {options.width:,} float16 features in Parquet files"
    measure.publish(options, __doc__ or "", [measure.Table(title, header, rows)], targets, {"sizes": found})


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images")
    parser.add_argument("--width", type=int, default=2848, help="features an image")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "WAY"), help="the child process; prints JSON")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(heads_of(Path(options.child[0]), options.sizes[0], options.width, options.child[1])))
        return
    found: dict[int, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in options.sizes:
            write_files(Path(folder), n, options.width)
            for way in WAYS:
                words = ["--sizes", str(n), "--width", str(options.width), "--child", folder, way]
                done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
                found.setdefault(n, {})[way] = json.loads(done.stdout.splitlines()[-1])
                print(f"{n:,} by {way}: {found[n][way]}", file=sys.stderr, flush=True)
    report(options, found)


if __name__ == "__main__":
    main()
