"""How many processors there are for this process."""

from __future__ import annotations

import os

LIMIT = "HEADSTART_CORES"


def n_cores() -> int:
    """The processors that this process may use: those that the system allows, or as many of them as HEADSTART_CORES
    says (a worker of a cluster has a part of its machine)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    limit = os.environ.get(LIMIT, "")
    return min(allowed, max(1, int(limit))) if limit.isascii() and limit.isdigit() else allowed
