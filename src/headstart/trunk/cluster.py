"""Which clusters `--ray` names, whether one answers, how its nodes are shared among workers. Ray is not imported."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from headstart.errors import HeadstartError, OptionError

LOCAL, AUTO = "local", "auto"
ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}")
MISSING = 'Ray is not installed: pip install "headstart[ray]"'
REACHED = 5.0  # s within which a cluster must take a connection: across the world it takes 0.3
# Processors of one worker at most: threads that decode share Python's lock, 50 us an image, where a picture of 500 px
# takes 2 ms of a processor and the network 3 ms.
MOST_CORES = 8
SETTINGS_FRAME = b"\x04"  # the kind of the frame that begins what either side says (RFC 9113, sections 3.4 and 6.5)
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS_FRAME + b"\0" * 5
Node = dict[str, Any]  # as Ray describes it


class Pool(NamedTuple):
    """Workers of one kind: how many at most, processors and accelerators of each."""

    most: int
    cores: int
    accelerators: int = 0


def check_address(address: str) -> None:
    """Raises OptionError for what names no cluster, and where Ray is not installed. Ray is not imported."""
    if address.startswith("ray://"):
        raise OptionError(
            f"--ray {address} is a connection for interactive work, over which Ray Data does not run: give the command "
            "on a node of the cluster with --ray auto (`ray job submit -- headstart ...` does)"
        )
    if address not in (LOCAL, AUTO) and not ADDRESS.fullmatch(address):
        raise OptionError(
            f"--ray {address!r} names no cluster: local (this machine), auto (the cluster of this node), or its "
            "address, such as 10.0.0.5:6379"
        )
    if importlib.util.find_spec("ray") is None:
        raise OptionError(f"--ray {address}: {MISSING}")


def check_reached(address: str) -> None:
    """Raises HeadstartError where nobody takes a connection or speaks HTTP/2, as every cluster does; Ray itself would
    wait for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED) as connection:
            connection.sendall(GREETING)
            if not os.environ.get("RAY_USE_TLS") and connection.recv(9)[3:4] != SETTINGS_FRAME:
                raise OSError(errno.EPROTO, "something else than a cluster answers there")
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        raise HeadstartError(
            f"no cluster answers at --ray {address} ({reason}): see the address that `ray start --head` printed, or "
            "take --ray auto on one of its nodes"
        ) from None


def pools(nodes: Sequence[Node], accelerated: bool, apart: bool) -> tuple[Pool | None, Pool]:
    """(who prepares, who finishes) on these nodes; the former None where nothing is prepared `apart`.

    Raises HeadstartError where the cluster has no processor, or no accelerator and one is needed.
    """
    counts = [(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))) for node in nodes]
    counts = [(processors, accelerators) for processors, accelerators in counts if processors]
    if not counts:
        raise HeadstartError("the cluster has no node with a processor to spare: see `ray status`")
    if not accelerated:
        cores = min(MOST_CORES, *(processors for processors, _ in counts))
        return None, Pool(sum(processors // cores for processors, _ in counts), cores)
    total = sum(accelerators for _, accelerators in counts)
    if not total:
        raise HeadstartError(
            "this machine has an accelerator and the cluster has none, where pictures would be seen otherwise: give "
            "the command on a node of the cluster, or hide the accelerator with CUDA_VISIBLE_DEVICES="
        )
    if apart:
        return Pool(max(1, sum(processors for processors, _ in counts) - total), 1), Pool(total, 1, 1)
    cores = min(max(1, processors // accelerators) for processors, accelerators in counts if accelerators)
    return None, Pool(total, min(MOST_CORES, cores), 1)
