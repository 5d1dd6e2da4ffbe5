"""How transferable are features? Yosinski et al. 2014 at small scale, on halves of CIFAR-100.

    python examples/transferability/study.py DATA -o FOLDER [--size small|large] [--device cpu|cuda]

DATA is CIFAR-100 as Parquet files. The classes are cut in two halves, at random and by kind (living, not living). On
each half B a network is trained from scratch (base); then networks whose first n layers come from a trained one, the
others being drawn anew, with as many steps:

    BnB   first n layers of the base network of the same half B, frozen
    AnB   first n layers of the base network of the other half A, frozen
    BnB+  as BnB, but the copied layers learn too
    AnB+  as AnB, but the copied layers learn too

BnB with n = 0 copies nothing: the base network again from another seed, which shows how far chance alone goes.
Both halves take both parts. Killed and started again with the same command, the study goes on where it was; a
network that was interrupted starts again from its own seed. FOLDER then holds `results.json`, `figure.svg` and
`tables.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import figure
import numpy as np
import torch
from network import Half, Schedule, accuracy, build, copy_layers, read_half, train
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.data.table import Table, read_table

KIND = "kind"  # the name of the split into living and not living; the others are random0, random1, ...
NOT_LIVING = (  # seven of the twenty superclasses of CIFAR-100; landscapes are not living, fruit and trees are
    *("bottle", "bowl", "can", "cup", "plate"),
    *("clock", "keyboard", "lamp", "telephone", "television"),
    *("bed", "chair", "couch", "table", "wardrobe"),
    *("bridge", "castle", "house", "road", "skyscraper"),
    *("cloud", "forest", "mountain", "plain", "sea"),
    *("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    *("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
)


@dataclass(frozen=True)
class Size:
    """How large a study is."""

    plan: Schedule
    depths: tuple[int, ...]  # n: how many layers are copied
    splits: tuple[str, ...]
    per_class: int
    test_per_class: int = 100


RANDOM = ("random0", "random1", "random2", "random3")
SIZES = {
    "tiny": Size(Schedule((4, 4, 4, 4, 4, 4), 3, 32, 0.1), (1,), ("random0", KIND), 2, 1),  # shows that it runs
    "small": Size(Schedule((16, 16, 32, 32, 64, 64), 1000, 128, 0.1), (1, 3, 5, 7), ("random0", KIND), 500),
    "large": Size(Schedule((32, 32, 64, 64, 128, 128), 3000, 256, 0.2), tuple(range(1, 8)), (*RANDOM, KIND), 500),
}


@dataclass(frozen=True)
class Job:
    """One network: trained on half `target` ("a" or "b") of a split, its first `n` layers copied."""

    split: str
    target: str
    arm: str
    n: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.target}-{self.arm}" + (f"-{self.n}" if self.arm != "base" else "")

    @property
    def donor(self) -> Job:
        """The base network that the copied layers come from."""
        other = {"a": "b", "b": "a"}[self.target]
        return Job(self.split, self.target if self.arm.startswith("BnB") else other, "base", 0)

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())


@dataclass(frozen=True)
class Study:
    """What every worker needs."""

    folder: Path
    size: Size
    halves: dict[str, Half]  # "random0-a", ...
    precision: str


def jobs_of(size: Size) -> tuple[list[Job], list[Job]]:
    """The base networks, and those that copy from them."""
    places = [(split, target) for split in size.splits for target in "ab"]
    bases = [Job(*place, "base", 0) for place in places]
    arms = [("BnB", 0), *((arm, n) for n in size.depths for arm in figure.ARMS)]
    return bases, [Job(*place, arm, n) for place in places for arm, n in arms]


def halves_of(names: Sequence[str], split: str) -> dict[str, list[str]]:
    """The classes of half "a" and of half "b"; by kind, "a" is what lives."""
    if split == KIND:
        first = [name for name in names if name not in NOT_LIVING]
    else:
        order = np.random.default_rng(int(split.removeprefix("random"))).permutation(len(names))
        first = [names[place] for place in sorted(order[: len(names) // 2])]
    return {"a": first, "b": [name for name in names if name not in first]}


def make(job: Job, study: Study) -> tuple[nn.Sequential, dict[str, Any]]:
    """Build, copy, train and judge one network."""
    start, half, plan = time.perf_counter(), study.halves[f"{job.split}-{job.target}"], study.size.plan
    torch.manual_seed(job.seed)
    network = build(plan.widths, half.classes)
    if job.n:
        donor = build(plan.widths, study.halves[f"{job.donor.split}-{job.donor.target}"].classes)
        donor.load_state_dict(load_file(study.folder / "networks" / f"{job.donor.name}.safetensors"))
        copy_layers(donor, network, job.n)
    network.to(half.images.device)
    frozen = 0 if job.arm.endswith("+") else job.n
    loss = train(network, frozen, half, plan, job.seed, study.precision)
    right = accuracy(network, half, study.precision)
    found = {"accuracy": right, "training_loss": round(loss, 4), "test_images": len(half.test_labels)}
    return network, {**asdict(job), **found, "seconds": round(time.perf_counter() - start, 1)}


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    fill(beside)
    beside.replace(path)


def write_json(path: Path, content: object) -> None:
    write(path, lambda place: place.write_text(json.dumps(content, indent=1) + "\n"))


def settle(job: Job, study: Study) -> None:
    """Make one network unless its result is there: weights first, so that a result always has them."""
    place = study.folder / "runs" / f"{job.name}.json"
    if place.exists():
        return
    network, result = make(job, study)
    if job.arm == "base":
        weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        write(study.folder / "networks" / f"{job.name}.safetensors", partial(save_file, weights))
    write_json(place, result)
    print(f"{job.name:22} accuracy {result['accuracy']:.4f}  {result['seconds']:6.1f} s", flush=True)


_study: list[Study] = []  # in a worker process: the study, handed over once


def _enter(study: Study) -> None:
    torch.set_num_threads(1)
    _study.append(study)


def _settle_here(job: Job) -> None:
    settle(job, _study[0])


def run_all(study: Study, workers: int) -> None:
    """Every job, in `workers` processes of one thread each, so that their number changes no result."""
    for stage in jobs_of(study.size):
        if workers > 1:
            with torch.multiprocessing.get_context("spawn").Pool(workers, _enter, (study,)) as pool:
                pool.map(_settle_here, stage, chunksize=1)
        else:
            torch.set_num_threads(1)
            for job in stage:
                settle(job, study)


def prepare(table: Table, size: Size, device: str) -> tuple[dict[str, dict[str, list[str]]], dict[str, Half]]:
    """The classes of each half, and its images on the device."""
    names = sorted(set(table.labels[table.labels != ""]))
    missing = sorted(set(NOT_LIVING) - set(names))
    if missing or len(names) != 100:
        raise SystemExit(f"the study needs the 100 fine classes of CIFAR-100, not {len(names)}; missing: {missing[:3]}")
    classes = {split: halves_of(names, split) for split in size.splits}
    halves = {}
    for split, pair in classes.items():
        for target, mine in pair.items():
            half = read_half(table, mine, size.per_class, size.test_per_class)
            tensors = (half.images, half.labels, half.test_images, half.test_labels)
            halves[f"{split}-{target}"] = Half(*(t.to(device) for t in tensors), half.classes)
    return classes, halves


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Remember the settings of a study; SystemExit where the folder holds another one."""
    place = folder / "settings.json"
    if place.exists() and json.loads(place.read_text()) != json.loads(json.dumps(settings)):
        raise SystemExit(f"{folder} holds a study with other settings ({place}): choose another folder with -o")
    write_json(place, settings)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Transferability of features on halves of CIFAR-100.")
    parser.add_argument("data", metavar="DATA", help="a folder of train-*.parquet and test-*.parquet")
    parser.add_argument("-o", "--output", type=Path, default=Path("transferability"), metavar="FOLDER")
    parser.add_argument("--size", choices=SIZES, default="small", help="small: 70 minutes of a core; large: for a GPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--workers", type=int, help="processes; all cores unless told, one on a GPU")
    given = parser.parse_args(arguments)
    size = SIZES[given.size]
    classes, halves = prepare(read_table(given.data), size, given.device)
    settings = {"size": given.size, **asdict(size), "precision": given.precision, "classes": classes}
    claim(given.output, settings)
    study = Study(given.output, size, halves, given.precision)
    run_all(study, given.workers or (os.cpu_count() or 1 if given.device == "cpu" else 1))
    figure.collect(given.output, given.output)


if __name__ == "__main__":
    main()
