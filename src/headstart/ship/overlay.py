"""An explanation drawn on its image: a JPEG of the whole upright picture."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.data import images
from headstart.data.preprocess import Preprocess
from headstart.data.table import Table
from headstart.errors import ImageError, OutputError
from headstart.files.reading import why
from headstart.files.whole import write_whole
from headstart.ship.explain import Explanation, explain, linear_head
from headstart.ship.package import Loaded

SIDE = 1600  # px, the longer side of an overlay at most
FOR, AGAINST = (255, 80, 0), (0, 90, 255)  # orange and blue: told apart by all kinds of colour vision
STRONGEST = 99.0  # percentile of the absolute contributions that is drawn at full strength: a few px would outshine all
OPAQUE = 0.65
UNSEEN = 0.45  # brightness of what the network's view cuts off
GRID = 28  # places a side that are drawn: early stages look at edges, and their own places are a px or two


def overlays(model: Loaded, table: Table, folder: Path, progress: Callable[[int], None] | None = None) -> list[float]:
    """Writes one JPEG for each image that can be read, named by its place in the table and its name. Returns the shares
    of the contributions that have places. Raises OptionError for a model without a linear head, OutputError."""
    linear_head(model)
    digits, shown = len(str(len(table))), list[float]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--explain {folder} cannot be made ({why(error)}): choose another folder") from None

    def deliver(found: Explanation) -> None:
        stem = re.sub(r"[^\w.-]", "_", Path(str(table.names[found.row])).stem)[:80]
        place = folder / f"{found.row + 1:0{digits}d}-{stem}.jpg"
        content = overlay(table.read(found.row), found.places, model.backbone.preprocess)
        try:
            write_whole(place, lambda at: at.write_bytes(content))
        except OSError as error:
            raise OutputError(f"{place} cannot be written ({why(error)}): choose another --explain") from None
        shown.append(found.shown)
        if progress:
            progress(1)

    def failed(row: int, error: ImageError) -> None:
        if progress:
            progress(1)

    explain(model, table, deliver, failed)
    return shown


def overlay(source: bytes | npt.NDArray[np.generic], places: npt.NDArray[np.float64], preprocess: Preprocess) -> bytes:
    """A JPEG of the picture with what each place of the view (height, width) adds: for the answer orange, against it
    blue; what the view cuts off is darker. Raises ImageError."""
    from PIL import Image

    picture = Image.open(io.BytesIO(images.preview(source, SIDE, preprocess=preprocess))).convert("RGB")
    left, top, right, bottom = (round(edge) for edge in images.crop_box(*picture.size, preprocess))
    size = max(1, right - left), max(1, bottom - top)
    coarse = Image.fromarray(places.astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX)
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float64)
    strength = np.clip(np.abs(smooth) / (np.percentile(np.abs(smooth), STRONGEST) or 1), 0, 1)[:, :, None] * OPAQUE
    colour = np.where(smooth[:, :, None] > 0, FOR, AGAINST)
    pixels = np.asarray(picture, np.float64) * UNSEEN
    view = np.asarray(picture, np.float64)[top : top + size[1], left : left + size[0]]
    pixels[top : top + size[1], left : left + size[0]] = view * (1 - strength) + colour * strength
    buffer = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
