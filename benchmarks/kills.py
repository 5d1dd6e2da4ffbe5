"""Kill a command at random moments, run it again, and compare with a run that nothing disturbed.

    python benchmarks/kills.py [--command fit add-to predict] [--kills 50] [--pairs 5] [--seed 0] [--images FOLDER]
                               [--record NAME] [--task segment] [-- FIT OPTIONS]
    python benchmarks/kills.py --command fit --kills 20 --record kills_tuning -- --tune last --precision f32
    python benchmarks/kills.py --command fit --task segment --kills 6 --pairs 1 --record kills_segment
    python benchmarks/kills.py --command fit --task detect --kills 6 --pairs 1 --record kills_detect

Each round begins at the same place: `fit` with an empty cache and no model; `add-to` with a model of half the images,
their features in the cache, and no model at its own output; `predict` with a model and an older file of answers. The
command is started, killed with SIGKILL, and started again to its end. Half of the kills fall at a random moment of the
whole run, half just after a random number of shards reached the store, so that extraction gets its share; `predict`
keeps its answers beside the file, and all of its kills fall at a random moment. Shards, and the stretches in which
`predict` keeps them, are made small (8 images) so that there are many.
Imports are done once: every command is a fork of one process that has them.

Looked at: that the second run gives byte for byte the model or the answers of the undisturbed one, and the same metrics
but for the seconds; that what lies at the output after the kill is what lay there before or the whole new one; that no
image with stored features goes through the network again; and that the images computed but not stored at the kill are
at most one shard. `--pairs`: so many times two of the command are started at once, on one cache and one output; one of
them may be refused there, and what they leave must be the same. `--task segment` and `detect` take some pictures of
camvid and bccd with a small network of drawn weights; of their kills half fall in the training of the head. What is
compared there leaves out the seconds that the head says of its training.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import measure
import pyarrow.parquet as pq

SHARD = 8  # images
PER_CLASS, CLASSES = 40, 3  # images of EuroSAT
COMMANDS = ("fit", "add-to", "predict")
OLD = "what was there before"
PLACED = {  # task -> options of its fits: each a few seconds long, on two cores
    "segment": "--backbone mobilenetv3_small_050 --weights none --size 128 --epochs 6 --precision f32",
    "detect": "--backbone mobilenetv3_small_050 --weights none --size 128 --epochs 6 --precision f32",
}
PLACED_IMAGES = 40  # of a part that teaches, a quarter of which of one that judges
CONTEXT = multiprocessing.get_context("forkserver")


def run(arguments: Sequence[str], log: Path, computed: Any) -> None:
    """The command in this process, its words to `log`; `computed` counts the images that go through the network."""
    from headstart.cli import main as cli
    from headstart.finetune import checkpoint
    from headstart.ship import stretches
    from headstart.trunk import features

    checkpoint.EVERY = 0.1  # s: many states of a training to be killed between
    stretches.BUFFER = SHARD

    class Counted(features._ShardWriter):
        def add(self, tag: list[features.Decoded], rows: features.Rows) -> None:
            computed.value += len(tag)  # before the writer: a kill in between counts it as computed
            super().add(tag, rows)

    features.SHARD_ROWS, features._ShardWriter = SHARD, Counted  # type: ignore[misc]
    with log.open("wb") as words:
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
    cli.main(arguments)


@dataclass(frozen=True)
class Place:
    """Where one round works: `output` is a model or a file of answers; `start_with` is copied into the cache first."""

    cache: Path
    output: Path
    log: Path
    arguments: list[str]
    start_with: Path | None = None

    def clear(self) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)
        shutil.rmtree(self.output.parent, ignore_errors=True)
        self.output.parent.mkdir()
        if self.start_with:
            shutil.copytree(self.start_with, self.cache)
        if self.output.suffix:
            self.output.write_text(OLD)

    def start(self) -> tuple[ForkServerProcess, Any]:
        computed = CONTEXT.Value("i", 0, lock=False)
        process = CONTEXT.Process(target=run, args=(self.arguments, self.log, computed))
        process.start()
        return process, computed

    def shards(self) -> list[Path]:
        return list(self.cache.glob("features/*/*.parquet"))

    def stored(self) -> int:
        """Images in whole shards."""
        return sum(pq.read_metadata(shard).num_rows for shard in self.shards())

    @property
    def trains(self) -> bool:
        """Whether a state of a training lies in the cache while it works."""
        return "--tune" in self.arguments or "--task" in self.arguments

    def result(self) -> Any:
        """What must not depend on a kill: the answers; or checksums of the defining files, and the metrics without the
        seconds. None where there is nothing."""
        if self.output.suffix or not self.output.exists():
            return self.output.read_text() if self.output.exists() else None
        metrics = json.loads((self.output / "metrics.json").read_text())
        metrics.pop("seconds")
        found = {"checksums": json.loads((self.output / "checksums.json").read_text()), "metrics": metrics}
        manifest = json.loads((self.output / "headstart.json").read_text())
        if manifest["head"].pop("seconds", None) is not None:
            found["manifest"] = manifest
            found["checksums"].pop("headstart.json")
        return found


@dataclass(frozen=True)
class Killed:
    """One round."""

    when: str
    was_running: bool  # False: it had ended before the kill
    tuning: bool  # a checkpoint of a training lay there at the kill
    stored: int  # images that had reached the store at the kill
    lost: int  # images computed and not stored
    again: int  # images with stored features that the second run computed again
    whole: bool  # at the kill the output was the one before, or the new one
    same: bool


@dataclass(frozen=True)
class Pair:
    codes: list[int | None]
    same: bool
    beside: list[str]  # what lies beside the output


@dataclass(frozen=True)
class Found:
    command: str
    kills: list[Killed]
    pairs: list[Pair]
    n_images: int  # that an undisturbed run computes
    seconds: float  # that it takes


def run_whole(place: Place) -> tuple[int, float]:
    """(images computed, seconds) of a run to its end."""
    start = time.perf_counter()
    process, computed = place.start()
    process.join()
    if process.exitcode:
        sys.exit(f"headstart {' '.join(place.arguments)}: exit code {process.exitcode}\n{place.log.read_text()}")
    return int(computed.value), time.perf_counter() - start


def killed(place: Place, n_shards: int, seconds: float, n_images: int, expected: Any, rng: random.Random) -> Killed:
    in_training = "--tune" in place.arguments or (place.trains and rng.random() < 1 / 2)
    place.clear()
    before, had, shards = place.result(), place.stored(), len(place.shards())
    process, computed = place.start()
    start = time.perf_counter()
    if in_training:
        states, wait_for = place.cache / "tuning", 1 if "--task" in place.arguments else rng.randrange(1, 4)
        when = f"{wait_for} files of training, and up to 3 s"
        while process.is_alive() and len(list(states.glob("*.safetensors"))) < wait_for:
            time.sleep(0.01)
        process.join(rng.uniform(0, 3))
    elif n_shards == shards or rng.random() < 0.5:
        moment = rng.uniform(0, seconds)
        when = f"{moment:.2f} s"
        process.join(moment)
    else:
        wait_for = rng.randrange(n_shards - shards)
        when = f"{wait_for} shards"
        far = shards + wait_for
        while process.is_alive() and len(place.shards()) < far and time.perf_counter() - start < 10 * seconds:
            time.sleep(0.001)
        process.join(rng.uniform(0, 0.03))  # s, several batches
    was_running = process.is_alive()
    process.kill()
    process.join()
    training = any((place.cache / "tuning").glob("*.safetensors"))
    left, stored, first = place.result(), place.stored() - had, int(computed.value)
    second, _ = run_whole(place)
    keeps = place.arguments[0] != "predict"
    return Killed(
        when,
        was_running,
        training,
        stored,
        first - stored if keeps else 0,
        second - (n_images - stored) if keeps else 0,
        left in (before, expected),
        place.result() == expected,
    )


def pair(place: Place, expected: Any) -> Pair:
    """Two of the command at once."""
    place.clear()
    processes = [place.start()[0] for _ in range(2)]
    for process in processes:
        process.join()
    beside = [path.name for path in place.output.parent.iterdir() if path != place.output]
    return Pair([process.exitcode for process in processes], place.result() == expected, beside)


def sample(source: Path, target: Path) -> Path:
    """Some images of the first classes, as a folder."""
    for folder in sorted(f for f in source.iterdir() if f.is_dir())[:CLASSES]:
        (target / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:PER_CLASS]:
            shutil.copy(image, target / folder.name)
    return target


def placed_sample(task: str, data: Path, target: Path) -> Path:
    """Some pictures of camvid with their masks, or of bccd with their boxes, in parts."""
    for part, n in (("train", PLACED_IMAGES), ("test", PLACED_IMAGES // 4)):
        if task == "segment":
            for inner in ("images", "masks"):
                (target / part / inner).mkdir(parents=True)
                for file in sorted((data / "camvid" / part / inner).iterdir())[:n]:
                    shutil.copy(file, target / part / inner)
            continue
        (target / part).mkdir(parents=True)
        names = (data / "bccd" / "ImageSets" / "Main" / f"{part}.txt").read_text().split()
        for name in names[:n]:
            shutil.copy(data / "bccd" / "JPEGImages" / f"{name}.jpg", target / part)
            shutil.copy(data / "bccd" / "Annotations" / f"{name}.xml", target / part)
    return target


def place_of(command: str, work: Path, data: Path, options: Sequence[str]) -> Place:
    """Where the command works, after what it needs has been made."""
    cache, out, log = work / "cache", work / "out", work / "log"
    out.mkdir()
    made = ["--cache", str(cache), *options]
    if command == "fit":
        return Place(cache, out / "model", log, ["fit", str(data), "-o", str(out / "model"), *made])
    fitted, answers = work.parent / "fit" / "out" / "model", out / "answers.csv"
    if command == "predict" and fitted.exists():
        return Place(cache, answers, log, ["predict", str(fitted), str(data), "-o", str(answers)])
    old, base = work / "old", work / "base"
    first = [f for folder in sorted(data.iterdir()) for f in sorted(folder.iterdir())[::2]]
    for file in first:
        (old / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, old / file.parent.name)
    run_whole(Place(cache, base, log, ["fit", str(old), "-o", str(base), *made]))
    kept = cache.rename(work / "kept")
    if command == "add-to":
        grown = ["fit", str(data), "-o", str(out / "model"), "--add-to", str(base), "--cache", str(cache)]
        return Place(cache, out / "model", log, grown, kept)
    return Place(cache, answers, log, ["predict", str(base), str(data), "-o", str(answers)])


def tried(command: str, work: Path, data: Path, options: argparse.Namespace) -> Found:
    work.mkdir()
    place = place_of(command, work, data, options.fit)
    place.clear()
    rng = random.Random(options.seed)
    n_images, seconds = run_whole(place)
    expected, n_shards = place.result(), len(place.shards())
    kills = [killed(place, n_shards, seconds, n_images, expected, rng) for _ in range(options.kills)]
    return Found(command, kills, [pair(place, expected) for _ in range(options.pairs)], n_images, seconds)


def tables(found: Found) -> list[measure.Table]:
    n, what = len(found.kills), found.command
    title = f"{n} kills of {what}, {found.n_images} images computed in {found.seconds:.1f} s, in shards of {SHARD}"
    header = ("killed after", "running", "newly stored", "lost", "computed again", "output whole", "same result")
    lines = [
        [k.when, word(k.was_running), *map(str, (k.stored, k.lost, k.again)), word(k.whole), word(k.same)]
        for k in found.kills
    ]
    made = [measure.Table(title, header, lines)]
    if found.pairs:
        title = f"{len(found.pairs)} times two of {what} at once, on one cache and one output"
        lines = [[str(p.codes), word(p.same), ", ".join(p.beside) or "nothing"] for p in found.pairs]
        made.append(measure.Table(title, ("exit codes", "same result", "beside it"), lines))
    return made


def targets(found: Found, tuned: bool, placed: bool) -> list[measure.Target]:
    kills, what, running = found.kills, found.command, [k for k in found.kills if k.was_running]
    wrong = sum(not (p.same and 0 in p.codes and not p.beside) for p in found.pairs)
    made = [
        measure.Target(f"{what}: rounds with another result", sum(not k.same for k in kills), ceiling=0),
        measure.Target(f"{what}: kills that left half an output", sum(not k.whole for k in kills), ceiling=0),
        measure.Target(f"{what}: pairs with another result, or both refused", wrong, ceiling=0),
        measure.Target(f"{what}: stored images computed again, most", max(k.again for k in kills), ceiling=0),
        measure.Target(f"{what}: images lost in a kill, most", max(k.lost for k in kills), ceiling=SHARD),
    ]
    if what == "predict":
        return made[:3]
    if placed:
        n = sum(k.tuning for k in running)
        made.append(measure.Target(f"{what}: kills while a head learned", n, floor=len(kills) / 4))
    if tuned:
        n = sum(k.tuning for k in running)
        return [*made, measure.Target(f"{what}: kills while a network was tuned", n, floor=len(kills) / 2)]
    n = sum(0 < k.stored < found.n_images for k in running)
    return [*made, measure.Target(f"{what}: kills during extraction", n, floor=len(kills) / 4)]


def word(yes: bool) -> str:
    return "yes" if yes else "NO"


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--command", choices=COMMANDS, nargs="+", default=COMMANDS)
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--pairs", type=int, default=5, help="times that two of a command are started at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", default="kills", help="name of the record")
    parser.add_argument("--images", type=Path, help="a folder with a folder per class (default: some of EuroSAT)")
    parser.add_argument("--task", choices=("classify", *PLACED), default="classify")
    parser.add_argument("fit", nargs="*", help="options of `headstart fit`, after --")
    options = parser.parse_args()
    CONTEXT.set_forkserver_preload(
        ["headstart.story.publish", "headstart.story.pipeline", "headstart.trunk.maker", "scipy.optimize"]
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.task in PLACED:
            data = options.images or placed_sample(options.task, options.data, work / "images")
            options.fit = ["--task", options.task, *PLACED[options.task].split(), *options.fit]
        else:
            data = options.images or sample(options.data / "eurosat_3000", work / "images")
        found = [tried(command, work / command, data, options) for command in options.command]
    goals = [target for one in found for target in targets(one, "--tune" in options.fit, options.task in PLACED)]
    values = {
        one.command: {
            "rounds": [vars(k) for k in one.kills],
            "pairs": [vars(p) for p in one.pairs],
            "images": one.n_images,
            "seconds": one.seconds,
        }
        for one in found
    }
    measure.publish(options, __doc__ or "", [table for one in found for table in tables(one)], goals, values)
    sys.exit(0 if all(t.met for t in goals if t.ceiling is not None) else 1)


if __name__ == "__main__":
    main()
