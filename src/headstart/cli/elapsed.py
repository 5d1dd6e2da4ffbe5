"""How long this process has run: a command's time counts from its start, the imports included."""

from __future__ import annotations

import os
import time
from pathlib import Path

_IMPORTED = time.perf_counter()
LONGEST_START = 60.0  # s from the start of an interpreter to this import; more is a clock that tells something else


def process_start() -> float:
    """`time.perf_counter()` when this process started; when this file was imported where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        booted = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # starttime, s after boot: field 22 of proc(5)
        start = time.perf_counter() - (time.clock_gettime(time.CLOCK_BOOTTIME) - booted)
    except (OSError, ValueError, IndexError, AttributeError):
        return _IMPORTED
    return start if 0 <= _IMPORTED - start <= LONGEST_START else _IMPORTED
