"""What Ray finds around it in this process, and leaves as it was: the environment, loggers, signals, stderr."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

SETTINGS = {  # read by Ray's processes when they start
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported over the network
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what Ray Data itself asks for is warned of on stderr
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without accelerator keeps the variables that it was given
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what nodes say of lost workers would go to stdout, among results
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers that train stay where they are
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # of those that train; 2 s would be the end of each training
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # another process; a node that goes is noticed, and what it had is kept
    "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "0",  # each sees its own accelerator alone, from every thread
}
LOGGERS = ("ray", "ray.data", "ray.train")
LONGEST = 24  # characters of a folder for sockets: their paths may have 107, Ray's own part has some 75


@contextmanager
def stoppable() -> Iterator[Callable[[], object]]:
    """Once the function that it gives was called, SIGTERM ends the block, and with it what was started for it, unless
    the program has a way of its own: Ray takes the signal for a crash and prints a stack."""
    before = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    def handle(way: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, way)

    try:
        yield lambda: handle(end if before is signal.SIG_DFL else before)
    finally:
        handle(before)


@contextmanager
def settings() -> Iterator[None]:
    """Ray's processes read the environment; it is as it was afterwards. Its loggers say what is wrong, and no more."""
    before = {name: os.environ.get(name) for name in SETTINGS}
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    os.environ.update(SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def speechless() -> Iterator[None]:
    """Nothing is written to stderr by anybody in this process. Ray's own core says there that it found the level of its
    words in the environment, before it reads any other setting."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def sockets() -> str | None:
    """A folder for what a local cluster needs; None where paths there would be too long for sockets: then Ray's own."""
    place = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="hs-", dir=place) if len(place) + len("/hs-12345678") <= LONGEST else None
