"""Many images: the memory of `predict`, what it keeps when it is killed, and its pace beside the network alone.

    python benchmarks/batch.py [--model MODEL] [--few 6000] [--many 60000] [--kills 20] [--before CHECKOUT]

The images are CIFAR-10's 60,000, written as files, and read once as those and once from the Parquet files. The model is
fitted to 600 of them at 32 px (`--size`), so that memory and overhead show and not the network; `--size 0` takes the
size that `fit` chooses. Peaks are of the whole process. Kills are SIGKILL at a random moment of the run; the command is
then given again, and its file compared with that of a run that nothing disturbed. The network alone runs on pixels that
are decoded already, as many images as `--few`, in the model's engine. `--before`: a checkout of an earlier release,
whose `predict` is timed in turn with this one, shares and no seconds: the machine may have other work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import measure

MOST_RATIO = 1.2
ENDINGS = ("csv", "jsonl", "json", "parquet")
ALONE = """
import sys, time
import numpy as np
from headstart.story.pipeline import load
from headstart.trunk.engine import compile_trunk
model = load(sys.argv[1])
engine = compile_trunk(model.backbone, model.precision)
n, size = int(sys.argv[2]), model.backbone.preprocess.size
pixels = np.random.default_rng(0).integers(0, 256, (engine.batch, *size, 3)).astype(np.uint8)
work = ((k, pixels) for k in range(-(-n // engine.batch)))
start, cpu = time.perf_counter(), time.process_time()
engine.run(work, lambda tag, rows: None)
print(time.perf_counter() - start, time.process_time() - cpu)
"""


def unpacked(source: Path, folder: Path) -> None:
    """All images as files, in folders of 1,000."""
    import pyarrow.parquet as pq

    number = 0
    for file in sorted(source.glob("*.parquet")):
        for image in pq.read_table(file, columns=["image"])["image"].to_pylist():
            place = folder / f"{number // 1000:03d}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:05d}.jpg").write_bytes(image["bytes"])
            number += 1


def sample(source: Path, folder: Path, n: int) -> None:
    """n images with their classes, to fit a model to."""
    import pyarrow.parquet as pq

    table = pq.read_table(sorted(source.glob("*.parquet"))[-1]).slice(0, n)
    for k, (image, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{k}.jpg").write_bytes(image["bytes"])


def part(source: Path, folder: Path, n: int) -> None:
    """The first n rows as Parquet, in row groups as large as those of the source."""
    import pyarrow.parquet as pq

    folder.mkdir()
    left = n
    for file in sorted(source.glob("*.parquet")):
        table = pq.read_table(file).slice(0, left)
        pq.write_table(table, folder / file.name, row_group_size=pq.ParquetFile(file).metadata.row_group(0).num_rows)
        left -= len(table)
        if not left:
            return


class Predicts:
    """`headstart predict` of a list of files or a folder, as a process of its own."""

    def __init__(self, model: Path, sources: Path | None = None) -> None:
        self.model = model
        self.environment = dict(os.environ) | ({"PYTHONPATH": str(sources)} if sources else {})

    def command(self, images: Path, output: Path) -> list[str]:
        return [sys.executable, "-m", "headstart", "predict", str(self.model), str(images), "-o", str(output)]

    def run(self, images: Path, output: Path) -> measure.Finished:
        return measure.run(self.command(images, output), self.environment)


def killed(predicts: Predicts, images: Path, output: Path, after: float, expected: bytes) -> dict[str, Any]:
    """Killed after so many seconds and given again: how many answers were kept, and whether it ended by itself."""
    output.unlink(missing_ok=True)
    child = subprocess.Popen(predicts.command(images, output), env=predicts.environment, stderr=subprocess.DEVNULL)
    try:
        child.wait(after)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    ran, half = child.returncode == -9, output.exists() and output.read_bytes() != expected
    again = subprocess.run(
        predicts.command(images, output), env=predicts.environment, capture_output=True, text=True, check=True
    )
    kept = re.search(r"has ([\d,]+) of", again.stderr)
    return {
        "after": after,
        "was running": ran,
        "half a file": half,
        "kept": int(kept[1].replace(",", "")) if kept else 0,
        "left": [path.name for path in output.parent.iterdir() if path != output],
    }


def kills(predicts: Predicts, images: Path, work: Path, n: int) -> tuple[list[dict[str, Any]], list[bool]]:
    output = work / "killed" / "answers.csv"
    output.parent.mkdir()
    start = time.perf_counter()
    predicts.run(images, output)
    seconds, expected, rng = time.perf_counter() - start, output.read_bytes(), random.Random(0)
    rounds, same = [], []
    for _ in range(n):
        rounds.append(killed(predicts, images, output, rng.uniform(0.3, 1) * seconds, expected))
        same.append(output.read_bytes() == expected)
    return rounds, same


def alone(model: Path, n: int, environment: dict[str, str]) -> list[float]:
    """Seconds, and those of all processors, that the engine takes for n images."""
    words = [sys.executable, "-c", ALONE, str(model), str(n)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def peaks(
    predicts: Predicts, places: dict[str, tuple[Path, Path]], work: Path, endings: Sequence[str]
) -> list[dict[str, Any]]:
    """Of few and of many images, by what they are read from and the ending of the output."""
    found = []
    for (kind, (few, many)), these in zip(places.items(), (endings, endings[:1]), strict=True):
        for ending in these:
            first, second = (predicts.run(images, work / f"answers.{ending}") for images in (few, many))
            mib = [done.peak_bytes / 2**20 for done in (first, second)]
            found.append({"from": kind, "to": ending, "MiB": mib, "seconds": [first.seconds, second.seconds]})
    return found


def arguments() -> argparse.Namespace:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--few", type=int, default=6000)
    parser.add_argument("--many", type=int, default=60000)
    parser.add_argument("--endings", nargs="+", choices=ENDINGS, default=ENDINGS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="of the pace, in turn")
    parser.add_argument("--size", type=int, default=32, help="px of the network's input; 0: as fit chooses")
    parser.add_argument("--model", type=Path, help="a saved model, instead of one that is fitted here")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier release")
    parser.add_argument("--record", default="batch", help="name of the record")
    return parser.parse_args()


def prepared(options: argparse.Namespace, work: Path) -> tuple[Path, dict[str, tuple[Path, Path]]]:
    """(a model, what is predicted: few and many)."""
    source, files = options.data / "cifar10", work / "files"
    # by another process: the peak of a child is never below the size of the process that starts it
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        other.submit(unpacked, source, files).result()
        other.submit(part, source, work / "few", options.few).result()
        other.submit(part, source, work / "many", options.many).result()
        other.submit(sample, source, work / "train", 600).result()
    lists = []
    for n in (options.few, options.many):
        names = [str(path) for path in sorted(files.glob("*/*.jpg"))[:n]]
        lists.append(work / f"{n}.csv")
        lists[-1].write_text("\n".join(["path", *names]) + "\n")
    model = options.model or work / "model"
    if not options.model:
        size = ["--size", str(options.size)] if options.size else []
        measure.run([sys.executable, "-m", "headstart", "fit", str(work / "train"), "-o", str(model), *size])
    return model, {"files": (lists[0], lists[1]), "Parquet": (work / "few", work / "many")}


def pace(options: argparse.Namespace, predicts: Predicts, images: Path, work: Path) -> dict[str, list[float]]:
    """CPU seconds and seconds of each round: the network alone, this release, the one before."""
    found: dict[str, list[float]] = {}
    ways: dict[str, Predicts] = {"now": predicts}
    if options.before:
        ways["before"] = Predicts(predicts.model, options.before / "src")
    for _ in range(options.rounds):
        found.setdefault("alone", []).append(alone(predicts.model, options.few, predicts.environment)[1])
        for name, way in ways.items():
            found.setdefault(name, []).append(way.run(images, work / "pace.csv").cpu)
    return found


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model, places = prepared(options, work)
        predicts = Predicts(model)
        memory = peaks(predicts, places, work, options.endings)
        rounds, same = kills(predicts, places["files"][0], work, options.kills)
        paces = pace(options, predicts, places["files"][0], work)
        shutil.rmtree(work / "files")
    report(options, memory, rounds, same, paces)


def report(
    options: argparse.Namespace,
    memory: Sequence[dict[str, Any]],
    rounds: Sequence[dict[str, Any]],
    same: Sequence[bool],
    paces: dict[str, list[float]],
) -> None:
    ratios = [one["MiB"][1] / one["MiB"][0] for one in memory]
    few, many = f"{options.few:,} images, MiB", f"{options.many:,} images, MiB"
    lines = [
        [one["from"], one["to"], *(f"{mib:.0f}" for mib in one["MiB"]), f"{ratio:.3f}"]
        for one, ratio in zip(memory, ratios, strict=True)
    ]
    tables = [measure.Table("Peak of the process", ("read from", "written as", few, many, "ratio"), lines)]
    running = [one for one in rounds if one["was running"]]
    words = [
        [f"{one['after']:.1f} s", "yes" if one["was running"] else "no", f"{one['kept']:,}", "yes" if ok else "NO"]
        for one, ok in zip(rounds, same, strict=True)
    ]
    title = f"{len(rounds)} kills of {options.few:,} images"
    tables.append(measure.Table(title, ("after", "was running", "answers kept", "same file"), words))
    best = {name: min(values) for name, values in paces.items()}
    shares = [[name, f"{best['alone'] / value:.2f}"] for name, value in best.items()]
    tables.append(measure.Table("Pace in CPU time, the network alone = 1", ("what", "share"), shares))
    goals = [
        measure.Target("peak of many images, times that of few, most", max(ratios), ceiling=MOST_RATIO),
        measure.Target("kills after which the file is another", sum(not ok for ok in same), ceiling=0),
        measure.Target("half a file at a kill", sum(one["half a file"] for one in rounds), ceiling=0),
        measure.Target("what lies beside the file at the end", sum(len(one["left"]) for one in rounds), ceiling=0),
        measure.Target("kills of a run with answers kept", sum(one["kept"] > 0 for one in running), floor=1),
    ]
    values = {"memory": memory, "kills": [*rounds], "same": [*same], "cpu seconds": paces}
    measure.publish(options, __doc__ or "", tables, goals, json.loads(json.dumps(values)))


if __name__ == "__main__":
    main()
