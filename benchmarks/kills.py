"""Kill a fit at random moments, run it again, and compare with a fit that nothing disturbed.

    python benchmarks/kills.py [--kills 50] [--seed 0] [--images FOLDER] [--record NAME] [-- FIT OPTIONS]
    python benchmarks/kills.py --kills 20 --record kills_tuning -- --tune last --precision f32

Each round begins with an empty cache and no model: `headstart fit` is started, killed with SIGKILL, and started again
to its end. Half of the kills fall at a random moment of the whole run, half just after a random number of shards
reached the store, so that extraction gets its share. Shards are made small (8 images) so that there are many. Imports
are done once: every fit is a fork of one process that has them.

Looked at: that the second run gives byte for byte the model of the undisturbed one, and the same metrics but for the
seconds; that no image with stored features goes through the network again; and that the images computed but not stored
at the kill are at most one shard.
"""

from __future__ import annotations

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
CONTEXT = multiprocessing.get_context("forkserver")


def fit(arguments: Sequence[str], log: Path, computed: Any) -> None:
    """The command in this process, its words to `log`; `computed` counts the images that go through the network."""
    from headstart import cli
    from headstart.learn import checkpoint
    from headstart.trunk import features

    checkpoint.EVERY = 0.1  # s: many states of a training to be killed between

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
    """Where one round works."""

    cache: Path
    model: Path
    log: Path
    arguments: list[str]

    def start(self) -> tuple[ForkServerProcess, Any]:
        computed = CONTEXT.Value("i", 0, lock=False)
        process = CONTEXT.Process(target=fit, args=(self.arguments, self.log, computed))
        process.start()
        return process, computed

    def shards(self) -> list[Path]:
        return list(self.cache.glob("features/*/*.parquet"))

    def stored(self) -> int:
        """Images in whole shards."""
        return sum(pq.read_metadata(shard).num_rows for shard in self.shards())

    def result(self) -> dict[str, Any]:
        """What must not depend on a kill: checksums of the defining files, and the metrics without the seconds."""
        metrics = json.loads((self.model / "metrics.json").read_text())
        metrics.pop("seconds")
        return {"checksums": json.loads((self.model / "checksums.json").read_text()), "metrics": metrics}


@dataclass(frozen=True)
class Killed:
    """One round."""

    when: str
    was_running: bool  # False: the fit had ended before the kill
    tuning: bool  # a checkpoint of a training lay there at the kill
    stored: int  # images in the store at the kill
    lost: int  # images computed and not stored
    again: int  # images with stored features that the second run computed again
    same: bool


def whole(place: Place) -> tuple[int, float]:
    """(images computed, seconds) of a run to its end."""
    start = time.perf_counter()
    process, computed = place.start()
    process.join()
    if process.exitcode:
        sys.exit(f"headstart {' '.join(place.arguments)}: exit code {process.exitcode}\n{place.log.read_text()}")
    return int(computed.value), time.perf_counter() - start


def killed(place: Place, n_shards: int, seconds: float, n_images: int, expected: Any, rng: random.Random) -> Killed:
    tuned = "--tune" in place.arguments
    for folder in (place.cache, place.model):
        shutil.rmtree(folder, ignore_errors=True)
    process, computed = place.start()
    start = time.perf_counter()
    if tuned:
        states, wait_for = place.cache / "tuning", rng.randrange(1, 4)
        when = f"{wait_for} files of training, and up to 3 s"
        while process.is_alive() and len(list(states.glob("*.safetensors"))) < wait_for:
            time.sleep(0.01)
        process.join(rng.uniform(0, 3))
    elif rng.random() < 0.5:
        moment = rng.uniform(0, seconds)
        when = f"{moment:.2f} s"
        process.join(moment)
    else:
        wait_for = rng.randrange(n_shards)
        when = f"{wait_for} shards"
        while process.is_alive() and len(place.shards()) < wait_for and time.perf_counter() - start < 10 * seconds:
            time.sleep(0.001)
        process.join(rng.uniform(0, 0.03))  # s, several batches
    was_running = process.is_alive()
    process.kill()
    process.join()
    training = any((place.cache / "tuning").glob("*.safetensors"))
    stored, first = place.stored(), int(computed.value)
    second, _ = whole(place)
    return Killed(
        when, was_running, training, stored, first - stored, second - (n_images - stored), place.result() == expected
    )


def sample(source: Path, target: Path) -> Path:
    """Some images of the first classes, as a folder."""
    for folder in sorted(f for f in source.iterdir() if f.is_dir())[:CLASSES]:
        (target / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:PER_CLASS]:
            shutil.copy(image, target / folder.name)
    return target


def rounds(work: Path, data: Path, kills: int, seed: int, options: Sequence[str]) -> tuple[list[Killed], int, float]:
    """(every round, images of an undisturbed run, its seconds)."""
    cache, model, rng = work / "cache", work / "model", random.Random(seed)
    place = Place(cache, model, work / "log", ["fit", str(data), "-o", str(model), "--cache", str(cache), *options])
    n_images, seconds = whole(place)
    expected, n_shards = place.result(), len(place.shards())
    return [killed(place, n_shards, seconds, n_images, expected, rng) for _ in range(kills)], n_images, seconds


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", default="kills", help="name of the record")
    parser.add_argument("--images", type=Path, help="a folder with a folder per class (default: some of EuroSAT)")
    parser.add_argument("fit", nargs="*", help="options of `headstart fit`, after --")
    options = parser.parse_args()
    CONTEXT.set_forkserver_preload(["headstart.publish", "headstart.pipeline", "sklearn.linear_model", "scipy.stats"])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = options.images or sample(options.data / "eurosat_3000", work / "images")
        done, n_images, seconds = rounds(work, data, options.kills, options.seed, options.fit)
    running = [k for k in done if k.was_running]
    cells = [
        [k.when, "yes" if k.was_running else "no", *map(str, (k.stored, k.lost, k.again)), "yes" if k.same else "NO"]
        for k in done
    ]
    header = ("killed after", "was running", "stored at the kill", "lost", "stored and computed again", "same result")
    title = f"{len(done)} kills of a fit of {n_images} forward passes and {seconds:.1f} s, in shards of {SHARD}"
    targets = [
        measure.Target("rounds with another result", sum(not k.same for k in done), ceiling=0),
        measure.Target("stored images computed again, most", max(k.again for k in done), ceiling=0),
        measure.Target("images lost in a kill, most", max(k.lost for k in done), ceiling=SHARD),
        measure.Target("kills during extraction", sum(0 < k.stored < n_images for k in running), floor=len(done) / 4),
        measure.Target("kills while a network was tuned", sum(k.tuning for k in running), floor=len(done) / 2),
    ]
    targets = targets[:4] if "--tune" not in options.fit else [*targets[:3], targets[4]]
    values = {"rounds": [vars(k) for k in done], "images": n_images, "seconds": seconds}
    measure.publish(options, __doc__ or "", [measure.Table(title, header, cells)], targets, values)
    sys.exit(0 if all(t.met for t in targets[:3]) else 1)


if __name__ == "__main__":
    main()
