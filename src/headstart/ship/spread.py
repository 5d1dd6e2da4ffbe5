"""Stretches of a table answered by the workers of a cluster, and handed on in order.

A worker holds the model and answers whole stretches, by the same code and in the same batches as one machine. What is
said of a stretch depends on its own images alone, so it does not matter who answers it, nor when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from headstart.data.table import Table
from headstart.ship.package import Loaded
from headstart.ship.stretches import Part, Progress, Stretch, rows_at_once, stretches
from headstart.trunk import scale
from headstart.trunk.engine import Engine
from headstart.trunk.pieces import Sight, check_nodes, everywhere
from headstart.trunk.store import cache_root

AT_ONCE = 2  # stretches of a piece: 512 images, so that handing it out (20 ms of a processor) is 1 % of its work


class Asked(NamedTuple):
    """What each worker is handed: the model, and how it must see."""

    model: Loaded
    sight: Sight


class Piece(NamedTuple):
    """Some stretches of a table."""

    table: Table
    part: Part


def answering(ray: str | None) -> Callable[..., None]:
    """What answers the stretches of a table: this process, or the cluster of that address."""
    return stretches if ray is None else partial(spread_stretches, address=ray)


def spread_stretches(
    model: Loaded,
    table: Table,
    engine: Engine,
    done: Callable[[Stretch], None],
    progress: Progress,
    start: int,
    address: str,
) -> None:
    """As `stretches`, by the workers of a cluster, which see with engines like this one. Raises HeadstartError."""
    sight = Sight.of(model.backbone, engine, cache_root().absolute())
    stretch = rows_at_once(engine)
    size = AT_ONCE * stretch
    bare = replace(table, notes=(), sources=tuple(map(everywhere, table.sources)))
    with scale.joined(address):
        check_nodes(bare, {})
        pieces = [
            Piece(bare.take(np.arange(first, min(first + size, len(table)))), Part(first, len(table), stretch))
            for first in range(start, len(table), size)
        ]
        work = scale.Work(Asked(model, sight), answer, accelerated=sight.accelerated)
        for found in scale.spread(pieces, work, in_order=True):
            for some in found:
                done(some)
                progress(len(some))


def answer(asked: Asked) -> Callable[[Piece], list[Stretch]]:
    """Answers a piece, in a worker."""
    engine = asked.sight.engine()

    def answered(piece: Piece) -> list[Stretch]:
        found: list[Stretch] = []
        stretches(asked.model, piece.table, engine, found.append, part=piece.part)
        return found

    return answered
