"""A million images through `predict`, through `features`, and a model fitted from their features: seconds and memory.

    python benchmarks/million.py [--sizes 6000 60000 1000000] [--backbone mobilenetv3_small_050] [--size 32]
                                 [--parts predict features fit]

The lists repeat CIFAR-10's 60,000 images, written as files, as often as needed, under other names. The network is
small, has random weights and sees 32 px, so that what is not the network shows. Peaks are of the whole process.

1. `predict -o FOLDER/`: each row is read, decoded, answered and written anew, since `predict` keeps no features. "The
   list" is a process of its own that reads the list and takes the identity of its images, which comes before the first.
2. `features -o FOLDER/` from an empty cache: each row is read and known by its content, so that a copy does not go
   through the network again; its features are written again.
3. `fit FOLDER/`: heads, exact leave-one-out and judged images by the features alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
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
HEADSTART = [sys.executable, "-m", "headstart"]
NOTHING = "import headstart.data.identity, headstart.data.table"


def lists(files: Path, source: Path, sizes: list[int], work: Path) -> dict[int, Path]:
    """A list of so many rows with their classes for each size. A list with classes takes an image once: so each further
    round through the files has a name of its own for their folder."""
    import pyarrow.parquet as pq

    labels = [label for file in sorted(source.glob("*.parquet")) for label in pq.read_table(file)["label"].to_pylist()]
    names = [
        f"{path.relative_to(files)},{label}" for path, label in zip(sorted(files.glob("*/*.jpg")), labels, strict=True)
    ]
    found = {}
    for n in sizes:
        rounds = [work / f"round{k}" for k in range(-(-n // len(names)))]
        for place in rounds:
            place.exists() or place.symlink_to(files)
        rows = [f"{place}/{name}" for place in rounds for name in names]
        found[n] = work / f"{n}.csv"
        found[n].write_text("\n".join(["path,label", *rows[:n]]) + "\n")
    return found


def rows_in(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def predicted(options: argparse.Namespace, images: Path, n: int, work: Path) -> dict[str, Any]:
    """Seconds, CPU seconds and peaks: of reading the list, and of all."""
    bare = measure.run([sys.executable, "-c", NOTHING])
    listed = measure.run([sys.executable, "-c", LIST, str(images)])
    output = work / f"answers{n}"
    done = measure.run([*HEADSTART, "predict", str(work / "model"), str(images), "-o", f"{output}/"])
    return (
        of(done)
        | written(output, n)
        | {"list cpu": listed.cpu - bare.cpu, "list peak": listed.peak_bytes - bare.peak_bytes}
    )


def extracted(options: argparse.Namespace, images: Path, n: int, work: Path) -> dict[str, Any]:
    """The same of `features`, from an empty cache."""
    cache = work / "cache"
    words = [*seen_by(options), "--cache", str(cache)]
    done = measure.run([*HEADSTART, "features", str(images), "-o", f"{work / f'features{n}'}/", *words])
    shutil.rmtree(cache)
    return of(done) | written(work / f"features{n}", n)


def fitted(options: argparse.Namespace, images: Path, n: int, work: Path) -> dict[str, Any]:
    """The same of a fit from what `extracted` wrote."""
    model = work / f"model{n}"
    done = measure.run(
        [*HEADSTART, "fit", str(work / f"features{n}"), "-o", str(model), "--cache", str(work / "cache")]
    )
    metrics = json.loads((model / "metrics.json").read_text())
    judged = metrics["test"] or metrics["cross_validation"]
    return of(done) | {"accuracy": judged["accuracy"]["value"], "judged": judged["n"]}


WAYS = {"predict": predicted, "features": extracted, "fit": fitted}


def of(done: measure.Finished) -> dict[str, Any]:
    return {"seconds": done.seconds, "cpu": done.cpu, "peak": done.peak_bytes}


def written(folder: Path, n: int) -> dict[str, Any]:
    """Files and bytes of a folder. Raises AssertionError where it does not have a row an image."""
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        rows = other.submit(rows_in, folder).result()
    assert rows == n, f"{rows} rows instead of {n}"
    files = list(folder.glob("*.parquet"))
    return {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}


def seen_by(options: argparse.Namespace) -> list[str]:
    return ["--backbone", options.backbone, "--weights", "none", "--size", str(options.size)]


def rows_of(found: dict[int, dict[str, Any]], more: dict[str, Any]) -> list[list[str]]:
    """A line a size: what all parts have, and more of this one."""
    return [
        [
            f"{n:,}",
            f"{one['seconds']:.0f}",
            f"{one['cpu']:.0f}",
            f"{1e6 * one['cpu'] / n:.0f}",
            f"{one['peak'] / 2**20:.0f}",
            *(say(one, n) for say in more.values()),
        ]
        for n, one in found.items()
    ]


FILES = {"files": lambda one, n: f"{one['files']}", "bytes an image in them": lambda one, n: f"{one['bytes'] / n:.0f}"}
COLUMNS: dict[str, dict[str, Any]] = {
    "predict": {
        "of the CPU s: the list": lambda one, n: f"{one['list cpu']:.1f}",
        "bytes an image of the list": lambda one, n: f"{one['list peak'] / n:.0f}",
        **FILES,
    },
    "features": FILES,
    "fit": {"right, %": lambda one, n: f"{100 * one['accuracy']:.1f}", "judged": lambda one, n: f"{one['judged']:,}"},
}
TITLES = {
    "predict": "`predict` into a folder of Parquet files",
    "features": "`features` into a folder of Parquet files",
    "fit": "`fit` from that folder",
}


def report(options: argparse.Namespace, found: dict[str, dict[int, dict[str, Any]]], when: dict[str, str]) -> None:
    tables, targets = [], []
    header = ("images", "s", "CPU s", "CPU µs an image", "peak of the process, MiB")
    for part in WAYS:
        if part in found:
            more = COLUMNS[part]
            tables.append(measure.Table(f"{TITLES[part]}, {when[part]}", (*header, *more), rows_of(found[part], more)))
    few, many, *_, last = sorted(found["predict"])
    for part in ("predict", "features"):
        if part not in found:
            continue
        peak, cpu = ({n: one[what] for n, one in found[part].items()} for what in ("peak", "cpu"))
        says = f"{part}: peak of {many:,} images, times that of {few:,}"
        targets.append(measure.Target(says, peak[many] / peak[few], ceiling=MOST_RATIO))
        pace = (cpu[last] / last) / (cpu[many] / many)
        targets.append(measure.Target(f"{part}: CPU time an image, {last:,} / {many:,} images", pace, ceiling=1.1))
    measure.publish(options, __doc__ or "", tables, targets, {"parts": found, "measured": when})


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[6_000, 60_000, 1_000_000])
    parser.add_argument("--backbone", default="mobilenetv3_small_050")
    parser.add_argument("--size", type=int, default=32, help="px of the network's input")
    parser.add_argument("--most-fitted", type=int, default=10**9, help="images of the largest list that is fitted")
    parser.add_argument(
        "--parts", nargs="*", choices=WAYS, default=tuple(WAYS), help="the others are the last record's"
    )
    options = parser.parse_args()
    record = options.results / "million.json"
    before = json.loads(record.read_text())["values"] if record.exists() and set(options.parts) != set(WAYS) else {}
    found = {part: {int(n): one for n, one in rows.items()} for part, rows in before.get("parts", {}).items()}
    when = dict(before.get("measured", {}))
    found |= {part: {} for part in options.parts}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    with tempfile.TemporaryDirectory() as folder:
        work, source = Path(folder), options.data / "cifar10"
        # by another process: the peak of a child is never below the size of the process that starts it
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            other.submit(unpacked, source, work / "files").result()
            other.submit(sample, source, work / "train", 600).result()
            places = other.submit(lists, work / "files", source, options.sizes, work).result()
        measure.run([*HEADSTART, "fit", str(work / "train"), "-o", str(work / "model"), *seen_by(options)])
        for n, images in places.items():
            for part in (one for one in options.parts if one != "fit" or n <= options.most_fitted):
                found[part][n], when[part] = WAYS[part](options, images, n, work), now
                print(f"{part} {n:,} images: {found[part][n]}", file=sys.stderr, flush=True)
            shutil.rmtree(work / f"features{n}", ignore_errors=True)
    report(options, found, when)


if __name__ == "__main__":
    main()
