"""A Ray cluster beside one process: the same bits, what it costs, what a killed worker or a lost node changes, memory.

    python benchmarks/scale.py [--n 6000] [--rounds 5] [--many 24000] [--few 2000]
        [--parts files paces losses memory train]

The images are CIFAR-10's, at the size that a fit chooses for them. All clusters are of this machine: `--ray local` is
one worker with all processors, and two nodes with half of them each are two workers.

1. Bits: `features`, `predict` and `fit` of `--few` images in one process, by one worker and by two; their files are
   compared, of the model all those that its checksums name.
2. Overhead of extraction by `--ray local`: seconds and CPU seconds (of all processes) of `--n` + 1,000 images less
   those of 1,000, in turns with one process, so that the start of the cluster and of its worker is in neither. What
   that takes is told apart, and what the first 1,000 images take with the imports of all processes. The same work may
   take a fifth more or less from one minute to the next: what counts is the median of the rounds' ratios.
3. SIGKILL of a worker at a random moment, of one that decodes beside one that has the network (a node that calls its
   processor an accelerator), and of a whole node: the store is compared with that of one process, and each image that
   goes through the network is counted.
4. The most memory of a worker, `--n` images against `--many`, in the same cluster.
5. Tuning above the last stage, three epochs of `--few` images in float32, by one process and by two workers of one
   processor each: seconds and CPU seconds of the training alone, with the start of the workers and once they are there;
   the largest difference of a weight, beside that of one process whose first weights are each one step of float32
   away, and the images of the held-out part that are right.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure

START = 1000  # images of the shorter run
MEMORY = 300 * 2**20  # bytes of shared memory of a node
TICKS = os.sysconf("SC_CLK_TCK")
HEADSTART = [sys.executable, "-m", "headstart"]
WORKER = "ray::MapWorker"  # as Ray calls the process of an actor of its data sets
MOST_OVERHEAD = 0.10
SHARD = 512
PARTS = ("files", "paces", "losses", "memory", "train")
WAYS = ("one process", "two workers", "one process, moved")  # who trains; the last one begins a step of float32 away
STEP = 2.0**-23  # of float32 at 1
SAME_WEIGHTS = 2.0  # times what such a beginning comes to
DECODER = "a worker that decodes"


def part(source: Path, folder: Path, n: int) -> None:
    """The first n rows as Parquet, in row groups as large as those of the source."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for file in sorted(source.glob("train-*.parquet")):
        table = pq.read_table(file).slice(0, n)
        pq.write_table(table, folder / file.name, row_group_size=pq.ParquetFile(file).metadata.row_group(0).num_rows)


def family() -> list[Path]:
    """Where the system tells of this process and all that come of it."""
    parents = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    found, before = {os.getpid()}, 0
    while len(found) > before:
        before = len(found)
        found |= {one for one, parent in parents.items() if parent in found}
    return [Path(f"/proc/{one}") for one in sorted(found)]


class Meter:
    """CPU seconds of this process and all that come of it, those that have ended too: looked at twice a second."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}  # ticks by process
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.look()

    def look(self) -> float:
        for place in family():
            with suppress(OSError):
                ticks = sum(map(int, (place / "stat").read_text().rpartition(")")[2].split()[11:13]))
                self._known[place.name] = max(ticks, self._known.get(place.name, 0))
        return sum(self._known.values()) / TICKS


def workers() -> list[int]:
    """Processes of actors, those that come of this process."""
    found = []
    for place in family():
        with suppress(OSError):
            title = (place / "cmdline").read_bytes().decode(errors="replace")
            if title.startswith(WORKER):
                found.append(int(place.name))
    return found


def peak_of(process: int) -> float:
    """MiB that a process had at the most."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def cluster(nodes: int, cpus: int, gpus: int = 0) -> Iterator[Any]:
    """A cluster of so many nodes on this machine."""
    from headstart.trunk.surroundings import SETTINGS

    os.environ.update(SETTINGS)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": MEMORY, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(nodes - 1):
            found.add_node(**{name: value for name, value in node.items() if name != "include_dashboard"})
        yield found
    finally:
        found.shutdown()


def opened(folder: Path) -> Any:
    """(table, backbone, engine) of a set at the size that a fit gives it."""
    from headstart.data.table import read_table
    from headstart.story.opening import Options, sized
    from headstart.trunk.backbone import open_backbone
    from headstart.trunk.engine import compile_trunk

    table = read_table(folder)
    backbone = sized(open_backbone(), table, Options())
    return table, backbone, compile_trunk(backbone)


def extracted(seen: Any, root: Path, address: str | None, n: int) -> Any:
    """The features of the first n images, by a store that is empty."""
    import numpy as np

    from headstart.trunk.features import extract, store_key
    from headstart.trunk.pieces import through_a_cluster
    from headstart.trunk.store import Store

    table, backbone, engine = seen
    through = None
    if address is not None:
        through = lambda *words: through_a_cluster(*words, address=address)  # noqa: E731
    store = Store(root, store_key(backbone, engine))
    return extract(table.take(np.arange(n)), backbone, engine, store, through=through), store.folder


def digest(features: Any) -> str:
    """Of all that a store says of images."""
    found = hashlib.blake2b(json.dumps([features.hashes, features.set_aside, features.remarks]).encode())
    for name in sorted(features.blocks):
        found.update(name.encode() + features.blocks[name].tobytes())
    found.update(features.thumbnails.tobytes())
    return found.hexdigest()


def timed(seen: Any, address: str | None, n: int, meter: Meter) -> tuple[float, float]:
    """(seconds, CPU seconds) of one extraction."""
    with tempfile.TemporaryDirectory() as root:
        cpu, start = meter.look(), time.perf_counter()
        extracted(seen, Path(root), address, n)
        return time.perf_counter() - start, meter.look() - cpu


def child_pace(folder: Path, way: str, n: int) -> dict[str, Any]:
    """Of one round: what n images more take, and the start."""
    from headstart.trunk import scale

    seen, address = opened(folder), None if way == "alone" else scale.LOCAL
    meter, start = Meter(), time.perf_counter()
    cpu = meter.look()
    with scale.joined(address):
        begun = time.perf_counter() - start, meter.look() - cpu
        first, few, many = (timed(seen, address, images, meter) for images in (START, START, n + START))
    return {"start": begun, "first": first, "few": few, "many": many}


def watched(stop: threading.Event, peaks: dict[int, float]) -> None:
    while not stop.wait(0.2):
        for one in workers():
            peaks[one] = max(peaks.get(one, 0.0), peak_of(one))


def child_memory(folder: Path, n: int) -> dict[str, Any]:
    """The most that a worker of one process took, MiB."""
    from headstart.trunk import scale

    seen, stop, peaks = opened(folder), threading.Event(), dict[int, float]()
    with scale.joined(scale.LOCAL), tempfile.TemporaryDirectory() as root:
        look = threading.Thread(target=watched, args=(stop, peaks))
        look.start()
        extracted(seen, Path(root), scale.LOCAL, n)
        stop.set()
        look.join()
    return {"workers": sorted(peaks.values()), "peak": max(peaks.values())}


def counted_finish(log: str) -> Callable[[Any], Any]:
    """What workers do, with a line in `log` for each batch that was through the network."""

    def finish(sight: Any) -> Any:
        import ray

        from headstart.trunk import features, pieces

        node = ray.get_runtime_context().get_node_id()

        class Counted(features._ShardWriter):
            def add(self, tag: Any, rows: Any) -> None:
                with Path(log).open("ab", buffering=0) as file:
                    file.write(f"{len(tag)} {node}\n".encode())
                super().add(tag, rows)

        features._ShardWriter = Counted  # type: ignore[misc]
        return pieces.finish(sight)

    return finish


def seen_by_node(log: Path) -> dict[str, int]:
    """Images that were through the network, by the node where it runs."""
    found: dict[str, int] = {}
    for line in log.read_text().splitlines():
        count, _, node = line.partition(" ")
        found[node] = found.get(node, 0) + int(count)
    return found


def counted_prepare(log: str) -> Callable[[Any], Any]:
    """What workers do that decode alone, with a line in `log` as each piece begins."""

    def prepare(sight: Any) -> Any:
        from headstart.trunk import pieces

        step = pieces.prepare(sight)

        def prepared(piece: Any) -> Any:
            with Path(log).open("ab", buffering=0) as file:
                file.write(f"{os.getpid()}\n".encode())
            return step(piece)

        return prepared

    return prepare


def once(ready: Callable[[], bool], act: Callable[[], Any]) -> threading.Thread:
    """`act` as soon as the work is `ready` for it."""

    def wait() -> None:
        while not ready():
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def child_kills(folder: Path, what: str, n: int, share: float) -> dict[str, Any]:
    """One run that loses a worker or a node, and what it came to."""
    from headstart.trunk import pieces, scale

    seen = opened(folder)
    with tempfile.TemporaryDirectory() as root:
        expected, _ = extracted(seen, Path(root), None, n)
    with tempfile.TemporaryDirectory() as root:
        done, begun, after = Path(root) / "done", Path(root) / "begun", list[int]()
        done.touch()
        begun.touch()
        apart = what == DECODER
        pieces.finish, pieces.prepare = counted_finish(str(done)), counted_prepare(str(begun))
        if apart:
            pieces.Sight.accelerated = True  # type: ignore[assignment,method-assign]
        with cluster(2, 2 if apart else 1, 1 if apart else 0) as nodes:

            def ready() -> bool:
                seen_there = seen_by_node(done)
                if apart:  # the second piece is being decoded
                    return len(begun.read_text().split()) > 1
                return sum(seen_there.values()) >= share * n and len(seen_there) == 2

            def act() -> None:
                after.append(sum(seen_by_node(done).values()))
                if what == "a node":
                    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
                else:
                    there = [int(begun.read_text().split()[-1])] if apart else workers()
                    os.kill(random.choice(there), signal.SIGKILL)

            thread = once(ready, act)
            started = time.perf_counter()
            with scale.joined(nodes.address):
                found, store = extracted(seen, Path(root) / "cache", nodes.address, n)
            seconds = time.perf_counter() - started
            thread.join()
        through, different = sum(seen_by_node(done).values()), len(set(expected.hashes))
        return {
            "lost": what,
            "after": after[0],
            "seconds": seconds,
            "same": digest(found) == digest(expected),
            "images": different,
            "through the network": through,
            "twice": through - different,
            "decoded": len(begun.read_text().split()),
            "half shards": len(list(store.glob(".*.partial"))),
        }


def child_train(folder: Path, way: str, seeds: int, out: Path) -> dict[str, Any]:
    """Of a training by each seed: seconds, CPU seconds, right answers; the weights go to a file."""
    import numpy as np

    from headstart.finetune import above, together
    from headstart.finetune.job import Job, Session
    from headstart.finetune.tunable import tunable
    from headstart.heads.material import Material
    from headstart.story.activations_of import prepare
    from headstart.story.opening import Options
    from headstart.tasks.classification import CLASSIFICATION as TASK

    seen, meter, found = opened(folder), Meter(), list[dict[str, float]]()
    table, backbone, _ = seen
    rows, where = np.arange(len(table)), cluster(2, 1) if way == WAYS[1] else nullcontext()
    with tempfile.TemporaryDirectory() as root, where as nodes:
        features, _ = extracted(seen, Path(root), None, len(table))
        options = Options(tune="last", epochs=3, cache=root, precision="f32")
        tuning = prepare(TASK, table, features.hashes, backbone, options, rows, 1)
        session, what = Session(), tunable(backbone, "last")
        tuning.reader.at_cut(what, rows, tuning.training.epochs, session)
        elsewhere = together.Elsewhere(nodes.address, Path(root)) if nodes else None
        with elsewhere or nullcontext():
            for seed in range(seeds):
                material = Material(features.blocks, TASK.targets(table, table.classes), rows, features.hashes, seed)
                job = Job(tuning, material, rows, replace(session, elsewhere=elsewhere))
                design, _, _ = above._designed(job, what)
                if way == WAYS[2]:
                    design = replace(design, start=moved(design.start))
                examples = above._examples(job, what, rows)
                cpu, start = meter.look(), time.perf_counter()
                head = above._trained(job, design, examples, what, 0.0)
                found.append(
                    {"s": time.perf_counter() - start, "cpu": meter.look() - cpu, "right": right_of(head, job)}
                )
        state = head.module.state_dict()
    np.savez(out, **{name: value.numpy() for name, value in state.items()})
    return {"trainings": found, "workers": head.workers}


def moved(start: Any) -> Any:
    """A beginning with each weight one step of float32 more or less."""
    import torch

    def begun(rows: Any) -> Any:
        module, drawn = start(rows), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(1 + STEP * torch.randn(weight.shape, generator=drawn).sign())
        return module

    return begun


def right_of(head: Any, job: Any) -> int:
    """Of the held-out images."""
    held = job.held
    return int((head.left_out[held].argmax(axis=1) == job.material.targets.numbers[held]).sum())


def trained(images: Path, work: Path) -> dict[str, Any]:
    """By who did it; and by how much the weights of each differ at the most from those of the first."""
    import numpy as np

    found = {way: ask("train", images, way, 2, work / f"{way}.npz") for way in WAYS}
    first, *others = (np.load(work / f"{way}.npz") for way in WAYS)
    apart = [max(float(np.abs(first[name].astype(float) - one[name]).max()) for name in one.files) for one in others]
    return found | {"apart": dict(zip(WAYS[1:], apart, strict=True))}


def child(words: Sequence[str]) -> dict[str, Any]:
    """What another process of this program was asked for."""
    what, folder, *rest = words
    place = Path(folder)
    if what == "pace":
        return child_pace(place, rest[0], int(rest[1]))
    if what == "memory":
        return child_memory(place, int(rest[0]))
    if what == "train":
        return child_train(place, rest[0], int(rest[1]), Path(rest[2]))
    return child_kills(place, rest[0], int(rest[1]), float(rest[2]))


def ask(*words: object) -> dict[str, Any]:
    done = measure.run([sys.executable, __file__, "--child", *map(str, words)])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(words[0], words[2:], found, file=sys.stderr, flush=True)
    return found


def files_of(images: Path, work: Path, ray: str | None) -> dict[str, str]:
    """Digests of what the commands write."""
    work.mkdir()
    environment = os.environ | {"HEADSTART_CACHE": str(work / "cache")}
    more = [] if ray is None else ["--ray", ray]
    for command in (
        ["features", str(images), "-o", str(work / "features.parquet"), "--cache", str(work / "other")],
        ["fit", str(images), "-o", str(work / "model")],
        ["predict", str(work / "model"), str(images), "-o", str(work / "answers.csv")],
    ):
        subprocess.run([*HEADSTART, *command, *more], env=environment, check=True, stdout=subprocess.DEVNULL)
    named = json.loads((work / "model" / "checksums.json").read_text())
    written = ("features.parquet", "answers.csv")
    whole = {name: hashlib.sha256((work / name).read_bytes()).hexdigest() for name in written}
    shutil.rmtree(work / "cache")
    shutil.rmtree(work / "other")
    return whole | {f"model/{name}": one["sha256"] for name, one in named.items()}


def bits(images: Path, work: Path) -> dict[str, dict[str, str]]:
    """By who did it: the digests of all files."""
    found = {"one process": files_of(images, work / "alone", None)}
    found["1 worker"] = files_of(images, work / "local", "local")
    with cluster(2, 1) as two:
        found["2 workers"] = files_of(images, work / "two", two.address)
    return found


def arguments() -> argparse.Namespace:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--n", type=int, default=6000)
    parser.add_argument("--many", type=int, default=24000)
    parser.add_argument("--few", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="the others are the last record's")
    parser.add_argument("--child", nargs="+", help="the other processes of this program; prints JSON")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.child:
        print(json.dumps(child(options.child)))
        return
    found, when = dict[str, Any](), datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for n in {options.few, options.n + START, options.many}:
            part(options.data / "cifar10", work / str(n), n)
        few, more, many = (work / str(n) for n in (options.few, options.n + START, options.many))
        if "files" in options.parts:
            found["files"] = bits(few, work)
        if "paces" in options.parts:
            found["paces"] = {"alone": [], "local": []}
            for _ in range(options.rounds):
                for way, rounds in found["paces"].items():
                    rounds.append(ask("pace", more, way, options.n))
        if "losses" in options.parts:
            rng = random.Random(0)
            found["losses"] = [
                ask("kills", few, what, options.few, f"{rng.uniform(0.15, 0.7):.2f}")
                for what in ("a worker", DECODER, "a node")
                for _ in range(2)
            ]
        if "memory" in options.parts:
            found["memory"] = {str(n): ask("memory", many, n) for n in (options.n, options.many)}
        if "train" in options.parts:
            found["train"] = trained(few, work)
    before = earlier(options)
    measured = before["measured"] | dict.fromkeys(options.parts, when)
    report(options, before | found | {"measured": measured})


def earlier(options: argparse.Namespace) -> dict[str, Any]:
    """What the last record says of the parts that are not measured now."""
    record = options.results / "scale.json"
    left_out = set(PARTS) - set(options.parts)
    if not left_out:
        return {"measured": {}}
    said = json.loads(record.read_text())
    left_out &= set(said["values"])
    measured = said["values"].get("measured", dict.fromkeys(PARTS, said["date"]))
    return {name: said["values"][name] for name in left_out} | {"measured": measured}


def report(options: argparse.Namespace, found: dict[str, Any]) -> None:
    same, paces, kills, memory = (found[name] for name in PARTS[:4])
    alone = same["one process"]
    others = {name: found for name, found in same.items() if found is not alone}
    rows = [[name, *("yes" if found[name] == alone[name] else "NO" for found in others.values())] for name in alone]
    tables = [measure.Table(f"Files of {options.few:,} images: those of one process?", ("file", *others), rows)]
    wall, cpu = ([middle(paces[way], k) for way in ("alone", "local")] for k in (0, 1))
    lines = [
        [way, f"{wall[k]:.1f}", f"{cpu[k]:.1f}", f"{1000 * cpu[k] / options.n:.2f}", *starts(paces[way])]
        for k, way in enumerate(("alone", "local"))
    ]
    header = (
        "who",
        "s",
        "CPU s",
        "CPU ms an image",
        "start, s",
        "start, CPU s",
        "first, s",
        "first, CPU s",
    )
    title = f"Extraction of {options.n:,} images more, the median of {len(paces['alone'])} rounds in turns"
    tables.append(measure.Table(title, header, lines))
    words = [
        [
            one["lost"],
            f"{one['after']:,}",
            "yes" if one["same"] else "NO",
            f"{one['images']:,}",
            f"{one['through the network']:,}",
            f"{one['twice']:,}",
            str(one["decoded"] or ""),
            str(one["half shards"]),
        ]
        for one in kills
    ]
    header = (
        "lost",
        "after images",
        "same bits",
        "images",
        "through the network",
        "twice",
        "decoded",
        "half shards",
    )
    tables.append(measure.Table(f"What is lost on the way, {options.few:,} images, two nodes", header, words))
    peaks = [[f"{int(n):,}", f"{one['peak']:.0f}"] for n, one in memory.items()]
    tables.append(measure.Table("The most memory of a worker", ("images", "MiB"), peaks))
    times = [ratios(paces, k) for k in (0, 1)]
    few, many = (one["peak"] for one in memory.values())
    targets = [
        measure.Target("files that differ", sum(cell == "NO" for row in rows for cell in row), ceiling=0),
        measure.Target(
            f"seconds of a cluster, times those of one process ({span(times[0])})",
            statistics.median(times[0]),
            ceiling=1 + MOST_OVERHEAD,
        ),
        measure.Target(
            f"CPU seconds, the same ({span(times[1])})", statistics.median(times[1]), ceiling=1 + MOST_OVERHEAD
        ),
        measure.Target("losses after which a bit differs", sum(not one["same"] for one in kills), ceiling=0),
        measure.Target("images computed twice after a loss, most", max(one["twice"] for one in kills), ceiling=SHARD),
        measure.Target(f"memory of a worker, {options.many:,} images against {options.n:,}", many / few, ceiling=1.2),
    ]
    if "train" in found:
        tables.append(of_training(found["train"], options.few))
        two, control = (found["train"]["apart"][way] for way in WAYS[1:])
        said = f"largest difference of a trained weight, {two:.2g}, times that of a start one step of float32 away"
        cpu = [found["train"][way]["trainings"][-1]["cpu"] for way in WAYS[:2]]
        targets += [
            measure.Target(said, two / control, ceiling=SAME_WEIGHTS),
            measure.Target(
                "CPU seconds of two workers that are there, times those of one process",
                cpu[1] / cpu[0],
                ceiling=1 + MOST_OVERHEAD,
            ),
        ]
    when = [[name, found["measured"][name]] for name in PARTS if name in found["measured"]]
    tables.append(measure.Table("When", ("part", "measured at the latest"), when))
    measure.publish(options, __doc__ or "", tables, targets, json.loads(json.dumps(found)))


def of_training(found: dict[str, Any], n: int) -> measure.Table:
    """The first training of two workers has their start in it."""
    rows = []
    for way in WAYS:
        for number, one in enumerate(found[way]["trainings"], start=1):
            rows.append([way, str(number), f"{one['s']:.1f}", f"{one['cpu']:.1f}", str(int(one["right"]))])
    title = f"Tuning above the last stage, three epochs of {n:,} images, two trainings one after the other"
    return measure.Table(title, ("who", "training", "s", "CPU s", "held-out right"), rows)


def ratios(paces: dict[str, Any], k: int) -> list[float]:
    """Seconds (k = 0) or CPU seconds (1) of a cluster by those of one process, of each round."""
    pairs = zip(*(paces[way] for way in ("alone", "local")), strict=True)
    return [(b["many"][k] - b["few"][k]) / (a["many"][k] - a["few"][k]) for a, b in pairs]


def span(times: list[float]) -> str:
    return f"of {len(times)} rounds the median, {min(times):.2f} to {max(times):.2f}"


def middle(rounds: Sequence[dict[str, Any]], k: int) -> float:
    """Seconds (k = 0) or CPU seconds (1) of the images more: the median of the rounds."""
    return statistics.median(one["many"][k] - one["few"][k] for one in rounds)


def starts(rounds: Sequence[dict[str, Any]]) -> list[str]:
    """The least seconds and CPU seconds until a cluster is there, and of the first images."""
    return [f"{min(one[what][k] for one in rounds):.1f}" for what in ("start", "first") for k in (0, 1)]


if __name__ == "__main__":
    main()
