"""`--ray`: the work of a command spread over the nodes of a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def ray_option(command: argparse.ArgumentParser | argparse._ArgumentGroup, what: str) -> None:
    command.add_argument(
        "--ray",
        metavar="local|auto|ADDRESS",
        help=f"{what} on the nodes of a Ray cluster: one of this machine alone, that of this node, or at HOST:PORT "
        "(needs headstart[ray]; default: in this process)",
    )


@contextmanager
def joined(address: str | None, say: Callable[[str], None]) -> Iterator[None]:
    """Connected to the cluster while the block lasts, which `say` is told of. Raises HeadstartError."""
    if address is None:
        yield
        return
    from headstart.trunk import scale

    with scale.joined(address):
        say(scale.described())
        yield
