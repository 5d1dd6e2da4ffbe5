"""Where pictures are odd: the distance of each patch to those of good pictures, drawn on the picture, one file each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.overlay import overlay
from headstart.data.preprocess import Preprocess
from headstart.data.table import Table
from headstart.errors import ImageError, OptionError, OutputError
from headstart.files.reading import why
from headstart.files.whole import write_whole
from headstart.heads.oddity import Oddity
from headstart.ship.overlay import place_of
from headstart.ship.package import Loaded
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import stream
from headstart.trunk.store import Halves

FULL = 1.5  # heat that is drawn at full strength; 1 is the hottest patch of a good picture at the threshold


def knows_patches(model: Loaded) -> bool:
    """Whether the model says where a picture is odd. Raises OptionError for one that could, and looks at no patches."""
    if not isinstance(model.head, Oddity):
        return False
    if model.head.patches is None:
        raise OptionError("--explain draws patches, and this model knows none (--taps last, --layer): leave it out")
    return True


def drawn(source: bytes | NDArray[np.generic], heat: NDArray[np.floating], preprocess: Preprocess, side: int) -> bytes:
    """A JPEG of the picture with the heat (height, width) of its places, orange; side: px, the longer one at most.
    Raises ImageError."""
    return overlay(source, heat.astype(np.float64), preprocess, side, full=FULL)


def heat_maps(model: Loaded, table: Table, folder: Path, progress: Callable[[int], None] | None = None) -> int:
    """Writes one JPEG for each image that can be read; returns how many. Raises OptionError, OutputError."""
    from headstart.data.overlay import SIDE

    head, written = model.head, 0
    assert isinstance(head, Oddity)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--explain {folder} cannot be made ({why(error)}): choose another folder") from None

    def deliver(rows: list[int], blocks: dict[str, Halves]) -> None:
        nonlocal written
        found = head.heat(blocks)
        assert found is not None
        for row, heat in zip(rows, found, strict=True):
            place = place_of(folder, table, row)
            content = drawn(table.read(row), heat, model.backbone.preprocess, SIDE)
            try:
                write_whole(place, lambda at, content=content: at.write_bytes(content))
            except OSError as error:
                raise OutputError(f"{place} cannot be written ({why(error)}): choose another --explain") from None
            written += 1
            if progress:
                progress(1)

    def failed(row: int, error: ImageError) -> None:
        if progress:
            progress(1)

    stream(table, model.backbone, compile_trunk(model.backbone, model.precision), deliver, failed)
    return written
