"""What the benchmark programs share: a timed child process, and the record of a result beside the program.

A record is benchmarks/results/NAME.json and NAME.md: machine, versions, date, command, tables, and each target with
what was reached. Only the standard library is imported here, so that a program that times other processes stays small.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGES = (
    "headstart",
    "torch",
    "torchvision",
    "timm",
    "openvino",
    "numpy",
    "scipy",
    "pyarrow",
    "pillow",
    "simplejpeg",
)


@dataclass(frozen=True)
class Finished:
    """A child process that ended well. stderr goes to the terminal."""

    seconds: float  # wall clock, start to exit
    cpu: float  # s of all its threads, user and system, and of the children it waited for
    peak_bytes: int  # largest resident set of the process, shared pages included
    started: float  # time.time() just before the start
    stdout: str


@dataclass(frozen=True)
class Target:
    """`value` should be at least `floor`, or at most `ceiling`."""

    what: str
    value: float
    floor: float | None = None
    ceiling: float | None = None

    @property
    def met(self) -> bool:
        return (self.floor is None or self.value >= self.floor) and (self.ceiling is None or self.value <= self.ceiling)


@dataclass(frozen=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join([f"## {self.title}", "", *("| " + " | ".join(line) + " |" for line in lines)])


def arguments(doc: str) -> argparse.ArgumentParser:
    """A parser with the options that every program has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = HERE.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=shared, help="the folder of data sets (default ../shared/data)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the record goes")
    parser.set_defaults(load_at_start=os.getloadavg()[0])
    return parser


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Finished:
    """Run a child to its end. Exits with its output if it fails."""
    with tempfile.TemporaryFile("w+") as out:
        started, start = time.time(), time.perf_counter()
        child = subprocess.Popen(command, stdout=out, env={**os.environ, **(environment or {})})
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {child.returncode}\n{text[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return Finished(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, started, text)


def fit(data: Path, cache: Path, *options: str) -> tuple[Finished, dict[str, Any]]:
    """`headstart fit DATA --json` as a process of its own with this cache, and its JSON; the model is dropped."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "headstart",
            "fit",
            str(data),
            "-o",
            str(Path(folder) / "model"),
            "--json",
            *options,
        ]
        done = run(command, {"HEADSTART_CACHE": str(cache)})
    metrics = json.loads(done.stdout)
    metrics.pop("model", None)  # a folder that is gone
    return done, metrics


def percent(score: Mapping[str, float]) -> str:
    """A metric with its 95 % interval."""
    return f"{score['value']:.2%} ({score['low']:.2%} to {score['high']:.2%})"


def points(change: Mapping[str, float]) -> str:
    """A difference of two shares with its 95 % interval, in points."""
    value, low, high = (100 * change[end] for end in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def publish(
    options: argparse.Namespace, doc: str, tables: Sequence[Table], targets: Sequence[Target], values: Mapping[str, Any]
) -> None:
    """Print the tables, and write them, the raw values and the circumstances to NAME.md and NAME.json."""
    name = getattr(options, "record", None) or Path(sys.argv[0]).stem
    about = {
        "command": command_line(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine() | {"load before the run": round(options.load_at_start, 2)},
        "versions": versions() | values.get("versions", {}),
    }
    if targets:
        tables = [*tables, Table("Targets", ("what", "reached", "target", "met"), [target_row(t) for t in targets])]
    body = "\n\n".join(table.markdown() for table in tables)
    print(body, flush=True)
    facts = [f"`{about['command']}`, {about['date']}", *(_listed(about[k]) for k in ("machine", "versions"))]
    page = "\n\n".join([f"# {name}", doc.strip().splitlines()[0], *facts, body])
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"{name}.md").write_text(page + "\n", encoding="utf-8")
    reached = [asdict(t) | {"met": t.met} for t in targets]
    whole = about | {"targets": reached, "values": {k: v for k, v in values.items() if k != "versions"}}
    (options.results / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def target_row(target: Target) -> list[str]:
    wanted = f"at least {target.floor:g}" if target.floor is not None else f"at most {target.ceiling:g}"
    return [
        target.what,
        f"{target.value:.3g}" if target.value < 10 else f"{target.value:.1f}",
        wanted,
        "yes" if target.met else "NO",
    ]


def command_line() -> str:
    """The command as another person would type it: paths of this machine are left out."""
    words = ["PATH" if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def machine() -> dict[str, Any]:
    """CPU model, cores that this process may use, memory."""
    about = {"processor": platform.processor() or platform.machine()}
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        text = cpuinfo.read_text()
        found = {
            key: re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE) for key in ("model name", "cpu family", "model")
        }
        about = {key: match[1] for key, match in found.items() if match}
        about["bfloat16"] = ", ".join(sorted(set(re.findall(r"avx512_bf16|amx_bf16", text)))) or "no"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return about | {"cores": cores, "memory GiB": round(memory, 1), "system": platform.system()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "source tree" if package == "headstart" else "absent"
    return found


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())
