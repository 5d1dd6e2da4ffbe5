"""What a forked child cannot take over from its parent: threads, and locks that they held.

Only the thread that forks goes on in the child. Whatever waits there for another one waits for ever: torch for its
OpenMP pool (the first layer of any network hangs), a network that OpenVINO compiled for its streams (so does freeing
it, also when the interpreter ends), and whoever takes a lock that another thread held at that moment. So a child runs
torch on one thread, as torch's own data loaders do; it never frees what its parent compiled; and a `Lock` is free in
it. `trunk/engine.py` compiles again in the child and has the measurements.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from types import TracebackType
from weakref import WeakSet

_OWNING_THREADS: WeakSet[object] = WeakSet()
_AT_WORK: set[str] = set()


class Lock:
    """A lock that is free in a forked child, whoever held it in the parent. One thread may take it twice."""

    def __init__(self) -> None:
        self._of_process: dict[int, threading.RLock] = {}

    def _here(self) -> threading.RLock:
        return self._of_process.setdefault(os.getpid(), threading.RLock())  # atomic: one lock a process

    def __enter__(self) -> None:
        self._here().acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._here().release()


def owns_threads(thing: object) -> None:
    """Said of what waits for threads of its own when it is freed: in a forked child it is never freed."""
    _OWNING_THREADS.add(thing)


def torch_runs() -> None:
    """Said before torch works in this process."""
    _AT_WORK.add("torch")


def _in_the_child() -> None:
    for thing in list(_OWNING_THREADS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))  # a reference that nobody gives back
    if "torch" in _AT_WORK:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_the_child)
