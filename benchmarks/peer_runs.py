"""A peer's environment, and its program as a process: seconds, memory, answers, and why it failed where it did."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure

PROGRAMS = Path(__file__).resolve().parent / "peers"
STEP = re.compile(r"^(EPOCHS|STEPS) ?= ?([\d_]+)", re.MULTILINE)  # what is cut where a recipe would take too long
# How a score with its uncertainty looks in what a program prints: 96.7% [92.6%, 98.6%], 0.96 ± 0.02; not 0.1±0.0 ms.
INTERVAL = re.compile(
    r"\d ?%? *(±|\+/-) ?\d+(\.\d+)?(?![\d.]| ?ms| ?MB)|\d ?%? +[\[(]\d+(\.\d+)?%?(,| to) \d+(\.\d+)?%?[\])]"
)
BETWEEN_LOOKS = 2.0  # s between two looks at a process tree's memory: to share out its pages takes 50 ms a look


@dataclass(frozen=True)
class Peer:
    """One row. `learn` and `predict`: files in peers/, empty where nothing runs, and `note` says why."""

    name: str
    title: str
    network: str
    source: str  # where its documentation shows this recipe
    requires: tuple[str, ...]  # what pip is given
    learn: str = ""
    predict: str = ""
    beside: tuple[str, ...] = ()  # further files that the user writes
    environment: str = ""  # whose environment it shares; its own name where empty
    picks: bool = False  # the epoch that is kept was chosen on the images that judge
    note: str = ""
    cut: Mapping[str, int] = field(default_factory=dict)  # set: epochs (or steps) that are run instead of what it asks


@dataclass(frozen=True)
class Ran:
    """A program's process with all its children."""

    ended: str  # "" where it ended well, else one line that says why not
    seconds: float
    cpu: float  # s
    peak_bytes: int  # proportional set size of the tree
    printed: str


def peers(file: Path = PROGRAMS / "peers.toml") -> list[Peer]:
    rows = tomllib.loads(file.read_text(encoding="utf-8"))
    return [
        Peer(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for name, row in rows.items()
    ]


def installed(peer: Peer, envs: Path, constraints: Path | None, ours: Path) -> Path:
    """The environment's folder; made where it is not there. Raises OSError with pip's last line where that fails."""
    place = envs / (peer.environment or peer.name)
    if (place / "done").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    wanted = [str(ours) if word == "headstart" else word for word in peer.requires]
    limits = ["-c", str(constraints)] if constraints else []
    python = place / "bin" / "python"
    if uv := shutil.which("uv"):
        commands = [[uv, "venv", "-q", "--python", sys.executable, str(place)]]
        commands += [[uv, "pip", "install", "-q", "--python", str(python), *limits, *wanted]]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(place)],
            [str(python), "-m", "pip", "install", "-q", *limits, *wanted],
        ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(place, ignore_errors=True)
            raise OSError(refusal(done.stderr))
    (place / "done").touch()
    return place


def refusal(text: str) -> str:
    """Why nothing was installed: pip's first line that names an error, or the cause that uv gives."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [re.sub(r"^.*?(Because|ERROR:) *", "", line) for line in lines if re.search(r"Because|^ERROR:", line)]
    return (named or lines or ["pip said nothing"])[0][:200]


def size_of(place: Path) -> dict[str, int]:
    """Bytes and packages of an environment, pip and what it brings itself left out."""
    site = next(place.glob("lib/python*/site-packages"))
    roots = [path for path in site.iterdir() if path.name != "pip" and not path.name.startswith("pip-")]
    files = [file for root in roots for file in (root.rglob("*") if root.is_dir() else [root]) if file.is_file()]
    files = [file for file in files if file.suffix != ".pyc"]
    packages = sum(1 for root in roots if root.suffix == ".dist-info")
    return {"bytes": sum(file.lstat().st_size for file in files), "packages": packages}


def versions(place: Path) -> dict[str, str]:
    """Those of an environment's packages that a record names; without the environment none."""
    found = (
        path.name.removesuffix(".dist-info").rsplit("-", 1)
        for path in place.glob("lib/python*/site-packages/*.dist-info")
    )
    return {name: version for name, version in found if name in measure.PACKAGES}


def asked(program: str) -> int:
    """Epochs or steps that a program asks for; 0 where it names none."""
    found = STEP.search((PROGRAMS / program).read_text(encoding="utf-8"))
    return int(found[2]) if found else 0


def lines_of(*programs: str) -> int:
    """Lines that a user writes: without blank ones, comments and the docstring at the top."""
    total = 0
    for program in programs:
        text = (PROGRAMS / program).read_text(encoding="utf-8")
        text = re.sub(r'\A""".*?"""\n', "", text, flags=re.DOTALL)
        total += sum(1 for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return total


def command(peer: Peer, program: str, env: Path, work: Path, steps: int) -> list[str]:
    """A copy of the program in `work`, its number of epochs replaced where `steps` is not 0."""
    text = (PROGRAMS / program).read_text(encoding="utf-8")
    if steps:
        text = STEP.sub(lambda found: found[0].replace(found[2], str(steps)), text)
    (work / program).write_text(text, encoding="utf-8")
    for name in peer.beside:
        shutil.copyfile(PROGRAMS / name, work / name)
    return [str(env / "bin" / "python") if program.endswith(".py") else "sh", str(work / program)]


def run(line: list[str], env: Path, work: Path, extra: Mapping[str, str], limit: float) -> Ran:
    """Run in a session of its own, in `work`, for at most `limit` seconds; its output goes to a log beside it."""
    ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
    variables = {key: value for key, value in os.environ.items() if key not in ours}
    variables |= {"PATH": f"{env / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(env), **extra}
    log = work / f"{Path(line[1]).stem}.log"
    with log.open("w+") as out:
        start = time.perf_counter()
        child = subprocess.Popen(
            line, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=work, env=variables, start_new_session=True
        )
        peak = [0]
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(child.pid, peak, done, start + limit))
        watcher.start()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        stop(child.pid)  # whatever it left running
    child.returncode = os.waitstatus_to_exitcode(status)
    printed = log.read_text(errors="replace")
    ended = ""
    if child.returncode:
        ended = (
            f"stopped after {limit:.0f} s"
            if seconds >= limit
            else last_line(printed) or f"exit code {child.returncode}"
        )
    return Ran(ended, seconds, usage.ru_utime + usage.ru_stime, max(peak[0], usage.ru_maxrss * 1024), printed)


def watch(session: int, peak: list[int], done: threading.Event, until: float) -> None:
    """The largest memory of the session's processes together; ends them at `until`."""
    while not done.wait(BETWEEN_LOOKS):
        inside = members(session)
        # Alone, its largest resident set is what the kernel tells at its end.
        peak[0] = max(peak[0], sum(proportional(pid) for pid in inside) if len(inside) > 1 else 0)
        if time.perf_counter() > until:
            stop(session)


def members(session: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # gone
            continue
        if int(fields[3]) == session:
            found.append(int(place.name))
    return found


def proportional(pid: int) -> int:
    """Bytes of a process, pages that n processes share counted as 1/n."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss: +(\d+)", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def stop(session: int) -> None:
    for pid in members(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def last_line(text: str) -> str:
    """What went wrong, as programs say it: the last line that names an error, else the last one."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception|Interrupt)\b", line)]
    return ((named or lines or [""])[-1])[:200]


def answers(file: Path) -> dict[str, str]:
    """{file name: label} of a CSV with a picture and its label a row; a row without a label is no answer."""
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.reader(stream) if len(row) > 1]
    return {Path(row[0]).name: row[1] for row in rows if row[1]}


def record(place: Path, values: Mapping[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(values) + "\n", encoding="utf-8")
    part.replace(place)
