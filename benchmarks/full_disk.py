"""Fill the disk under a fit of masks or boxes, make room, run it again, and compare with a run that had room.

    sudo python benchmarks/full_disk.py [--task segment detect] [--shares 0.1 0.3 0.5 0.7 0.9]

Cache and model lie on a disk of their own, in memory (a tmpfs, which only root can mount), of a share of the bytes that
an undisturbed run leaves there. Looked at: that the command ends with exit code 1 and one line that says so, that no
model or part of one is there, and that the same command on the same disk, once that is larger, gives what an
undisturbed run gives. A share at which the command ends well is told: what was left at its end is not all that it
needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kills
import measure

ROOM = 512 << 20  # bytes of a disk that is large enough
NAMED = ("No space left", "needed where")  # what the line says


@dataclass(frozen=True)
class Filled:
    """One round. code: exit code on the small disk; said: its last line; left: what lay at the output then."""

    share: float
    size: int
    code: int | None
    said: str
    left: list[str]
    same: bool


def sized(disk: Path, size: int, again: bool = False) -> None:
    options = f"size={size}" + (",remount" if again else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)


def filled(place: kills.Place, disk: Path, share: float, size: int, expected: Any) -> Filled:
    sized(disk, size)
    try:
        (disk / "out").mkdir()
        process, _ = place.start()
        process.join()
        words = place.log.read_text(errors="replace").strip().splitlines()
        left = sorted(path.name for path in place.output.parent.iterdir())
        code = process.exitcode
        sized(disk, ROOM, again=True)
        kills.run_whole(place)
        return Filled(share, size, code, words[-1][:160] if words else "", left, place.result() == expected)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def tried(task: str, work: Path, options: Any) -> list[Filled]:
    disk, data = work / "disk", kills.placed_sample(task, options.data, work / task)
    disk.mkdir(exist_ok=True)
    words = ["fit", str(data), "-o", str(disk / "out" / "model"), "--cache", str(disk / "cache"), "--task", task]
    place = kills.Place(disk / "cache", disk / "out" / "model", work / "log", [*words, *kills.PLACED[task].split()])
    sized(disk, ROOM)
    try:
        (disk / "out").mkdir()
        kills.run_whole(place)
        expected, whole = place.result(), shutil.disk_usage(disk).used
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return [filled(place, disk, share, int(share * whole), expected) for share in options.shares]


def good(one: Filled) -> bool:
    """Ended in one line without a trace of a model; or there was room after all."""
    return one.code == 0 or (one.code == 1 and not one.left and any(name in one.said for name in NAMED))


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--task", nargs="+", choices=tuple(kills.PLACED), default=list(kills.PLACED))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.3, 0.5, 0.7, 0.9])
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("only root can mount the small disk: run it as root")
    kills.CONTEXT.set_forkserver_preload(["headstart.story.placed_publish", "headstart.trunk.maker", "scipy.optimize"])
    with tempfile.TemporaryDirectory() as folder:
        found = {task: tried(task, Path(folder), options) for task in options.task}
    header = ("disk, share", "bytes", "exit code", "said", "left at the output", "same result with room")
    tables, targets = [], []
    for task, rounds in found.items():
        rows = [
            [f"{r.share:g}", str(r.size), str(r.code), r.said, ", ".join(r.left) or "nothing", kills.word(r.same)]
            for r in rounds
        ]
        tables.append(measure.Table(f"fit --task {task}", header, rows))
        bad, other = sum(not good(r) for r in rounds), sum(not r.same for r in rounds)
        targets.append(measure.Target(f"{task}: ended otherwise than well or in one line", bad, ceiling=0))
        targets.append(measure.Target(f"{task}: another result once there was room", other, ceiling=0))
    values = {task: [vars(r) for r in rounds] for task, rounds in found.items()}
    measure.publish(options, __doc__ or "", tables, targets, values)
    sys.exit(0 if all(t.met for t in targets) else 1)


if __name__ == "__main__":
    main()
