"""A million images through `predict` into a folder of files: seconds, memory, and what the list of them costs.

    python benchmarks/million.py [--sizes 6000 60000 1000000] [--backbone mobilenetv3_small_050] [--size 32]

The lists repeat CIFAR-10's 60,000 images, written as files, as often as needed; each row is read, decoded, answered
and written anew, since `predict` keeps no features. The network is small, has random weights and sees 32 px, so that
what is not the network shows. Peaks are of the whole process. "The list" is a process of its own that reads the list
and takes the identity of its images, which `predict` does before the first image.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import measure
from batch import sample, unpacked

MOST_RATIO = 1.2
LIST = """
import sys
from headstart.data.identity import identity
from headstart.data.table import list_images
identity(list_images([sys.argv[1]]))
"""
NOTHING = "import headstart.data.identity, headstart.data.table"


def lists(files: Path, sizes: list[int], work: Path) -> dict[int, Path]:
    """A list of so many rows for each size."""
    names = [str(path) for path in sorted(files.glob("*/*.jpg"))]
    found = {}
    for n in sizes:
        found[n] = work / f"{n}.csv"
        found[n].write_text("\n".join(["path", *(names * (n // len(names) + 1))[:n]]) + "\n")
    return found


def rows_in(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def measured(model: Path, images: Path, n: int, work: Path) -> dict[str, Any]:
    """Seconds, CPU seconds and peaks: of reading the list, and of all."""
    bare = measure.run([sys.executable, "-c", NOTHING])
    listed = measure.run([sys.executable, "-c", LIST, str(images)])
    output = work / f"answers{n}"
    command = [sys.executable, "-m", "headstart", "predict", str(model), str(images), "-o", f"{output}/"]
    done = measure.run(command)
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        rows = other.submit(rows_in, output).result()
    assert rows == n, f"{rows} rows instead of {n}"
    files = list(output.iterdir())
    return {
        "seconds": done.seconds,
        "cpu": done.cpu,
        "peak": done.peak_bytes,
        "list seconds": listed.seconds - bare.seconds,
        "list cpu": listed.cpu - bare.cpu,
        "list peak": listed.peak_bytes - bare.peak_bytes,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
    }


def report(options: argparse.Namespace, found: dict[int, dict[str, Any]]) -> None:
    rows = [
        [
            f"{n:,}",
            f"{one['seconds']:.0f}",
            f"{one['cpu']:.0f}",
            f"{1e6 * one['cpu'] / n:.0f}",
            f"{one['list cpu']:.1f}",
            f"{one['list peak'] / n:.0f}",
            f"{one['peak'] / 2**20:.0f}",
            f"{one['files']}",
            f"{one['bytes'] / n:.0f}",
        ]
        for n, one in found.items()
    ]
    header = (
        *("images", "s", "CPU s", "CPU µs an image", "of these CPU s: the list", "bytes an image of the list"),
        *("peak of the process, MiB", "files", "bytes an image in them"),
    )
    sizes = sorted(found)
    targets = []
    if len(sizes) > 1:
        few, many = sizes[0], sizes[1]
        ratio = found[many]["peak"] / found[few]["peak"]
        targets = [measure.Target(f"peak of {many:,} images, times that of {few:,}", ratio, ceiling=MOST_RATIO)]
        last, before = sizes[-1], sizes[-2]
        pace = (found[last]["cpu"] / last) / (found[before]["cpu"] / before)
        targets.append(measure.Target(f"CPU time an image, {last:,} / {before:,} images", pace, ceiling=1.1))
    title = f"{options.backbone} at {options.size} px, into a folder of Parquet files"
    values = {"sizes": {str(n): one for n, one in found.items()}}
    measure.publish(options, __doc__ or "", [measure.Table(title, header, rows)], targets, values)


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[6_000, 60_000, 1_000_000])
    parser.add_argument("--backbone", default="mobilenetv3_small_050")
    parser.add_argument("--size", type=int, default=32, help="px of the network's input")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        work, source = Path(folder), options.data / "cifar10"
        # by another process: the peak of a child is never below the size of the process that starts it
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            other.submit(unpacked, source, work / "files").result()
            other.submit(sample, source, work / "train", 600).result()
            places = other.submit(lists, work / "files", options.sizes, work).result()
        model = work / "model"
        words = ["--backbone", options.backbone, "--weights", "none", "--size", str(options.size)]
        measure.run([sys.executable, "-m", "headstart", "fit", str(work / "train"), "-o", str(model), *words])
        for n, images in places.items():
            found[n] = measured(model, images, n, work)
            print(f"{n:,} images: {found[n]}", file=sys.stderr, flush=True)
    report(options, found)


if __name__ == "__main__":
    main()
