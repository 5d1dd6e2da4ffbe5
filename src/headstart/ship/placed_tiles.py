"""Pictures much larger than those that taught, answered in tiles: masks and boxes of the whole picture come of them.

Squashed to the network's frame such a picture loses what is small in it. Each tile is seen as a picture that taught
was, so it should be about as large as those were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.table import Table
from headstart.data.tiles import Tiled, tiled
from headstart.errors import ImageError, OptionError
from headstart.heads.material import Blocks
from headstart.ship.placed import Placed, Said, in_order, output_of, streamed
from headstart.tasks.placed import Size
from headstart.trunk.engine import Engine

LEAST = 64  # px of a tile's longer side: two cells of the coarsest map that is read


def tile_of(frame: Size, side: int) -> Size:
    """(height, width) px of tiles in the shape of the frame, `side` px the longer side. Raises OptionError."""
    if side < LEAST:
        raise OptionError(f"--tiles {side}: px of a tile's longer side, from {LEAST} on, as pictures that taught have")
    height, width = (max(1, round(side * one / max(frame))) for one in frame)
    return height, width


def predict_tiled(
    model: Placed,
    table: Table,
    side: int,
    done: Callable[[Said], None],
    engine: Engine | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> tuple[str, ...]:
    """As `predict`, with pictures larger than tiles of `side` px cut into such. Raises OptionError.

    Memory: what the head says of the tiles of the pictures under way, beside what `data/tiles.py` keeps.
    """
    if model.backbone.preprocess.bands:
        raise OptionError("--tiles is not of a model of chosen bands: cut the files, or leave it out")
    cut = tiled(table, tile_of(model.frame, side), preprocess=model.backbone.preprocess)
    many = np.bincount(cut.picture, minlength=len(table))
    waiting: dict[int, dict[int, NDArray[np.float32]]] = {}
    lost: set[int] = set()
    hand_on = in_order(done, progress)

    def each(row: int, blocks: Blocks) -> None:
        picture = int(cut.picture[row])
        if picture in lost:
            return
        own = waiting.setdefault(picture, {})
        own[row] = output_of(model, blocks)
        if len(own) == many[picture]:
            hand_on(_whole(model, cut, picture, waiting.pop(picture)))

    def failed(row: int, error: ImageError) -> None:
        picture = int(cut.picture[row])
        if picture not in lost:
            lost.add(picture)
            waiting.pop(picture, None)
            hand_on(Said(picture, (0, 0), None, str(error)))

    named = replace(cut.table, names=table.names[cut.picture])
    return streamed(model, named, each, failed, engine)


def _whole(model: Placed, cut: Tiled, picture: int, outputs: dict[int, NDArray[np.float32]]) -> Said:
    """The answer for a picture, of what the head says of its tiles."""
    rows = sorted(outputs)
    size = (int(cut.sizes[picture, 0]), int(cut.sizes[picture, 1]))
    if len(rows) == 1:
        return Said(picture, size, model.task.answer(outputs[rows[0]], size, model.frame, model.rule))
    found = model.task.joined([outputs[row] for row in rows], cut.boxes[rows], size, model.frame, model.rule)
    return Said(picture, size, found)
