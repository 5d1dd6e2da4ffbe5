"""One folder takes another's place on the disk, whole or not at all.

The new content is written and synced in a hidden folder beside the target, `.NAME.partial-PID-TOKEN`, which then takes
the target's name; a folder that was there first steps aside as `.NAME.old-PID-TOKEN` and is deleted last. A kill leaves
the old or the new folder at the path or, in the moment between the two renames, the old one beside it, and `recover`
moves it back. The next `replace` removes what killed ones left behind. Of two processes that replace the same folder at
once, one may be refused; what lies at the path is always whole.

Paths are absolute, with links followed. What the system refuses is raised as it comes, as OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headstart.errors import OutputError

_ABANDONED_SECONDS = 24 * 3600.0
"""No save takes a day. Age decides where process ids cannot: in containers each run may have the same one."""

_SWAP_SECONDS = 0.2
"""A live process is between its two renames for microseconds; after this long it was killed there."""


def replace(place: Path, fill: Callable[[Path], None], approve: Callable[[Path], None]) -> None:
    """Let `fill` write into a new folder, then put that folder at `place`. Missing parents are made.

    fill: writes the files and syncs them.
    approve: called with `place` just before it is touched; raises if what is there must stay.
    """
    recover(place)
    approve(place)
    partial = _beside(place, "partial")
    try:
        partial.mkdir(parents=True)
        fill(partial)
        _sync_folder(partial)
        _put_in_place(partial, place, approve)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _sweep(place)


def recover(place: Path) -> None:
    """Move back the folder that a process killed between its two renames had set aside; mostly there is none."""
    if place.exists() or not _leftovers(place, "old"):
        return
    time.sleep(_SWAP_SECONDS)
    waiting = [path for path, _ in _leftovers(place, "old")]
    if place.exists() or not waiting:
        return
    newest = waiting[-1]
    try:
        newest = max(waiting, key=lambda path: path.stat().st_mtime)
        newest.rename(place)
    except OSError as error:
        if not place.exists():
            raise OutputError(
                f"a save to {place} was cut short, and the folder from before it cannot be moved back "
                f"({error.strerror}): rename {newest} to {place.name}"
            ) from error


def identity(place: Path) -> tuple[int, int] | None:
    """What changes when another folder takes this one's place; None while there is none."""
    try:
        status = place.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def held(place: Path) -> Iterator[tuple[int, int] | None]:
    """`identity` of the folder that is there, which is kept open: no later folder gets its number meanwhile."""
    handle = None
    with contextlib.suppress(OSError):  # Windows opens no folders, and does not give a number to another one so soon
        handle = os.open(place, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        yield identity(place)
    finally:
        if handle is not None:
            os.close(handle)


def probe(place: Path) -> None:
    """Raise OSError if `replace` could not write at `place`. Leaves nothing behind."""
    ground = next(parent for parent in place.parents if parent.exists())
    trial = _beside(ground / place.name, "partial")
    trial.mkdir()
    trial.rmdir()


def _put_in_place(partial: Path, place: Path, approve: Callable[[Path], None]) -> None:
    """Rename `partial` to `place`; again, where another process put a folder there between the two renames."""
    aside: list[Path] = []
    for attempts_left in (2, 1, 0):
        approve(place)
        try:
            aside += _step_aside(place)
            partial.rename(place)
            break
        except OSError as error:
            if not attempts_left or error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
        finally:
            recover(place)
    _sync_folder(place.parent)
    for path in aside:
        _discard(path, place)


def _step_aside(place: Path) -> list[Path]:
    """Clear the path: an empty folder is removed, a full one renamed to the path that is returned."""
    if not place.exists():
        return []
    if any(place.iterdir()):
        return [place.rename(_beside(place, "old"))]
    place.rmdir()
    return []


def _beside(place: Path, role: str) -> Path:
    """A new hidden name beside `place` that says whose it is; role is "partial" or "old"."""
    return place.with_name(f".{place.name}.{role}-{os.getpid()}-{secrets.token_hex(4)}")


def _leftovers(place: Path, role: str) -> list[tuple[Path, int]]:
    """The folders that processes keep or left beside `place`, each with its process id."""
    name = re.compile(re.escape(f".{place.name}.{role}-") + r"(\d+)-[0-9a-f]{8}")
    with contextlib.suppress(OSError):
        return [(path, int(match[1])) for path in place.parent.iterdir() if (match := name.fullmatch(path.name))]
    return []


def _sweep(place: Path) -> None:
    """Remove what killed processes left; what a live one still needs stays."""
    for path, pid in _leftovers(place, "partial") + _leftovers(place, "old"):
        with contextlib.suppress(OSError):
            if not _is_running(pid) or time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                _discard(path, place)


def _discard(path: Path, place: Path) -> None:
    """Delete a folder so that a kill on the way cannot leave half of it under the name of a whole one."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path.rename(_beside(place, "partial")), ignore_errors=True)


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        return True  # there os.kill would end the process; age decides alone
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's, or a name that no process gave
    return True


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can: Windows and some network disks cannot."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
