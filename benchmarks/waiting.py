"""What a user waits for, whole processes from start to exit: one prediction, and fits with and without stored features.

    python benchmarks/waiting.py [--before CHECKOUT] [--rounds 3] [--only NAME ...] [--quick]

With `--before` an older checkout takes turns with this one, with the same interpreter: its sources stand first on
PYTHONPATH. Each has a cache of its own. "first time": an empty cache. "compiled": the stored features are removed and
all else is kept, so a network that was compiled before need not be opened. "again": nothing was removed. Where there
are several rounds, medians. CPU seconds are those of all threads, user and system: on a machine with other work they
say more than the clock. Stages come from metrics.json, each the median of its own. CIFAR-10 with
all its images is measured only where it is named.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measure import Finished, Target

# how this table calls a stage of metrics.json; what is not named here, and what no stage counts, is the rest
STAGES = {
    "start the program": "start",
    "open the network": "opening",
    "read images, run the network": "network",
    "fit heads": "heads",
    "judge": "judging",
    "learning curve": "curve",
    "baselines": "baselines",
}
COLUMNS = (*STAGES.values(), "rest")
PROOF = ("heads", "judging", "curve", "baselines")
# what must not change where a fit gets faster
SAME = ("test", "cross_validation", "candidates", "learning_curve")
# heads, judging, curve and baselines together, in the seconds of the network
PROOFS = {"eurosat_3000": 1.0, "cifar100_20_a_class": 1.0, "cifar100_60_a_class": 1.0, "cifar10": 0.5}
SETS = ("hymenoptera", *PROOFS)
FEW = 10  # pictures of a class, where the program is only tried
STATES = ("first time", "compiled", "again")


@dataclass(frozen=True)
class Side:
    """A checkout whose sources run, with a folder of its own for its cache and models."""

    name: str
    checkout: Path
    place: Path

    def run(self, *words: str) -> Finished:
        """`python WORDS` to its end."""
        paths = {"PYTHONPATH": str(self.checkout / "src"), "HEADSTART_CACHE": str(self.place / "cache")}
        return measure.run([sys.executable, *words], paths)

    def fit(self, data: Path) -> tuple[Finished, dict[str, Any]]:
        """A fit that replaces the model of these data, and what it says of itself."""
        model = self.model(data)
        done = self.run("-m", "headstart", "fit", str(data), "-o", str(model), "--json", "--force")
        return done, json.loads(done.stdout)

    def model(self, data: Path) -> Path:
        return self.place / f"model-{data.name}"

    def forget(self, what: str) -> None:
        shutil.rmtree(self.place / "cache" / what, ignore_errors=True)

    @property
    def commit(self) -> str:
        asked = ["git", "-C", str(self.checkout), "describe", "--always", "--dirty"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


@dataclass(frozen=True)
class Waited:
    """The middle of some runs of one command."""

    seconds: float  # wall clock, start to exit
    cpu: float  # s of all threads, user and system
    peak_bytes: int
    stages: dict[str, float]  # s by COLUMNS; empty for what is no fit

    @property
    def proof(self) -> float:
        """Seconds of heads, judging, curve and baselines."""
        return sum(self.stages[name] for name in PROOF)


def middle(runs: Sequence[tuple[Finished, dict[str, Any]]]) -> Waited:
    def of(value: Callable[[Finished], float]) -> float:
        return statistics.median(value(done) for done, _ in runs)

    stages = [staged(done, metrics["seconds"]) for done, metrics in runs if "seconds" in metrics]
    middles = {name: statistics.median(s[name] for s in stages) for name in COLUMNS} if stages else {}
    return Waited(of(lambda d: d.seconds), of(lambda d: d.cpu), max(d.peak_bytes for d, _ in runs), middles)


def staged(done: Finished, seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by COLUMNS; the rest is what the process took beyond them."""
    named = {short: seconds.get(stage, 0.0) for stage, short in STAGES.items()}
    return named | {"rest": done.seconds - sum(named.values())}


Table = dict[str, dict[str, Waited]]  # what was done -> side -> how long it took


def fits(sides: Sequence[Side], data: Path, rounds: int) -> tuple[Table, dict[str, Any]]:
    """A fit for the first time, with the features removed, and again; side -> what the last one said of itself."""
    runs: dict[str, dict[str, list[tuple[Finished, dict[str, Any]]]]] = {s: {x.name: [] for x in sides} for s in STATES}
    for side in sides:
        side.forget("")
        runs["first time"][side.name].append(side.fit(data))
    for _ in range(rounds):
        for side in sides:
            runs["again"][side.name].append(side.fit(data))
        for side in sides:
            side.forget("features")
            runs["compiled"][side.name].append(side.fit(data))
    told = {side.name: runs["compiled"][side.name][-1][1] for side in sides}
    return {f"{data.name}, {s}": {name: middle(done) for name, done in runs[s].items()} for s in STATES}, told


def commands(sides: Sequence[Side], data: Path, rounds: int) -> Table:
    """What no fit is: help, one prediction by the model of these data, and timm's import beside them, in turns."""
    picture = next(path for path in sorted(data.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg"))
    runs: dict[str, dict[str, list[tuple[Finished, dict[str, Any]]]]] = {}

    def add(what: str, side: Side, *words: str) -> None:
        runs.setdefault(what, {}).setdefault(side.name, []).append((side.run(*words), {}))

    for _ in range(rounds):
        for side in sides:
            add("import timm", side, "-c", "import timm")
            add("predict one photograph", side, "-m", "headstart", "predict", str(side.model(data)), str(picture))
            add("fit --help", side, "-m", "headstart", "fit", "--help")
    return {what: {name: middle(done) for name, done in by_side.items()} for what, by_side in runs.items()}


def first_of_each(source: Path, folder: Path, each: int) -> Path:
    """The first `each` pictures of every class of a folder of pictures, its parts kept, or of a Parquet file."""
    if source.is_file():
        table = pq.read_table(source)
        labels = table.column("label").combine_chunks()
        rows = [
            i for c in pc.unique(labels).to_pylist() for i in pc.indices_nonzero(pc.equal(labels, c)).to_pylist()[:each]
        ]
        folder.mkdir(parents=True)
        pq.write_table(table.take(pa.array(sorted(rows))), folder / "train.parquet")
        return folder
    for inside in sorted({path.parent for path in source.rglob("*") if path.is_file() and path.parent != source}):
        for path in sorted(p for p in inside.iterdir() if p.is_file() and not p.name.startswith("."))[:each]:
            place = folder / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    return folder


def sets(options: argparse.Namespace, scratch: Path) -> list[Path]:
    """The folders to fit."""
    data: Path = options.data
    each = {"cifar100_20_a_class": 20, "cifar100_60_a_class": 60}
    found = []
    for name in options.only:
        hundred = name in each
        source = data / ("cifar100/train-00000-of-00001.parquet" if hundred else name)
        few = min(each.get(name, FEW), 2 if hundred else FEW) if options.quick else each.get(name)
        found.append(first_of_each(source, scratch / "data" / name, few) if few else source)
    return found


def reached(found: Table, side: str, bf16: bool) -> list[Target]:
    """The targets of what was measured."""
    at = {what: by_side[side] for what, by_side in found.items()}
    targets: list[Target] = []

    def most(what: str, value: float, ceiling: float) -> None:
        targets.append(Target(what, value, ceiling=ceiling))

    if "import timm" in at:
        one = at["predict one photograph"].seconds
        most("predict one photograph, s", one, 2.5)
        most("predict one photograph / import timm", one / at["import timm"].seconds, 1 / 3)
        most("fit --help, s", at["fit --help"].seconds, 0.3)
    if "hymenoptera, compiled" in at:
        ants = at["hymenoptera, compiled"]
        most("hymenoptera, compiled: whole process less the network, s", ants.seconds - ants.stages["network"], 6)
        if bf16:
            most("hymenoptera, compiled, with bf16: whole process, s", ants.seconds, 9)
        most("hymenoptera, again: whole process, s", at["hymenoptera, again"].seconds, 4)
    for name, ceiling in PROOFS.items():
        if f"{name}, compiled" in at:
            many = at[f"{name}, compiled"]
            most(f"{name}, compiled: proof / network", many.proof / many.stages["network"], ceiling)
    if "eurosat_3000, again" in at:
        most("eurosat_3000, again: whole process, s", at["eurosat_3000, again"].seconds, 15)
    if "cifar10, compiled" in at:
        most("cifar10: peak memory, GB", max(at[f"cifar10, {state}"].peak_bytes for state in STATES) / 1e9, 2.0)
    return targets


def differences(told: dict[str, dict[str, dict[str, Any]]]) -> dict[str, float]:
    """set -> the largest difference of any number in SAME between the sides; infinite where another thing is said."""
    return {
        name: max(apart({k: one.get(k) for k in SAME}, {k: other.get(k) for k in SAME}) for other in rest)
        for name, (one, *rest) in ((name, list(sides.values())) for name, sides in told.items())
        if rest
    }


def apart(one: object, other: object) -> float:
    """The largest difference between two numbers at one place in two JSON documents; the other may say more."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() <= other.keys():
        return max((apart(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((apart(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(float(one) - float(other))
    return 0.0 if one == other else float("inf")


def report(
    options: argparse.Namespace, sides: Sequence[Side], found: Table, told: dict[str, dict[str, dict[str, Any]]]
) -> None:
    now, names = sides[-1].name, [side.name for side in sides]
    whole, stages = [], []
    for what, by_side in found.items():
        cells = [f"{by_side[name].seconds:.2f} ({by_side[name].cpu:.2f})" for name in names]
        ratio = [f"{by_side[names[0]].seconds / by_side[now].seconds:.1f}"] if len(sides) > 1 else []
        whole.append([what, *cells, *ratio])
        stages += [
            [f"{what}, {name}" if len(sides) > 1 else what, *(f"{s:.2f}" for s in waited.stages.values())]
            for name, waited in by_side.items()
            if waited.stages
        ]
    header = ("what", *(f"{name}, s (CPU s)" for name in names), *(["before / now"] if len(sides) > 1 else []))
    tables = [
        measure.Table("Whole processes, start to exit", header, whole),
        measure.Table("Seconds of each fit by stage", ("what", *COLUMNS), stages),
    ]
    far = differences(told)
    if far:
        rows = [[name, f"{distance:.1e}"] for name, distance in far.items()]
        title = "Largest difference of a number in score, interval, candidates and learning curve"
        tables.append(measure.Table(title, ("set", "before and now"), rows))
    bf16 = measure.machine().get("bfloat16", "no") != "no"
    targets = reached(found, now, bf16)
    if "eurosat_3000" in far:
        targets.append(Target("eurosat_3000: largest difference of a number", far["eurosat_3000"], ceiling=1e-6))
    values = {
        "versions": {f"headstart {side.name}": side.commit for side in sides},
        "waited": {what: {name: vars(w) for name, w in by_side.items()} for what, by_side in found.items()},
        "load at the end": os.getloadavg()[0],
    }
    measure.publish(options, __doc__ or "", tables, targets, values)


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older checkout, beside this one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=SETS, default=SETS[:-1], help="default: all but cifar10, the large"
    )
    parser.add_argument("--quick", action="store_true", help="a few images of each set, once: does the program work?")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        checkouts = [("before", options.before.resolve())] if options.before else []
        sides = [Side(*c, scratch / c[0]) for c in (*checkouts, ("now", measure.HERE.parent))]
        found, told = {}, {}
        for data in sets(options, scratch):
            timed, told[data.name] = fits(sides, data, rounds)
            if data.name == "hymenoptera":
                timed = commands(sides, data, rounds) | timed
            print(*(f"{what}: {w['now'].seconds:.1f} s" for what, w in timed.items()), sep="\n", file=sys.stderr)
            found |= timed
        report(options, sides, found, told)


if __name__ == "__main__":
    main()
