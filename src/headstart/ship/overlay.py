"""Explanations drawn on their images, one file each, and the training images that each looks like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.data.overlay import overlay
from headstart.data.table import Table
from headstart.errors import ImageError, OutputError
from headstart.files.reading import why
from headstart.files.whole import write_whole
from headstart.ship.explain import Explanation, explain, linear_head
from headstart.ship.package import Loaded
from headstart.ship.reasons import SHOWN, Reasons, reasons_of

REASONS = "explanations.json"


def overlays(model: Loaded, table: Table, folder: Path, progress: Callable[[int], None] | None = None) -> list[float]:
    """Writes one JPEG for each image that can be read, named by its place in the table and its name. Returns the shares
    of the contributions that have places. Raises OptionError for a model without a linear head, OutputError."""
    linear_head(model)
    reasons, told = reasons_of(model), dict[int, dict[str, Any]]()
    shown = list[float]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--explain {folder} cannot be made ({why(error)}): choose another folder") from None

    def deliver(found: Explanation) -> None:
        place = place_of(folder, table, found.row)
        content = overlay(table.read(found.row), found.places, model.backbone.preprocess)
        try:
            write_whole(place, lambda at: at.write_bytes(content))
        except OSError as error:
            raise OutputError(f"{place} cannot be written ({why(error)}): choose another --explain") from None
        shown.append(found.shown)
        told[found.row] = {
            "path": str(table.names[found.row]),
            "overlay": place.name,
            "answer": model.names[found.output],
            "nearest": [one.to_json() for one in found.similar],
        }
        if progress:
            progress(1)

    def failed(row: int, error: ImageError) -> None:
        if progress:
            progress(1)

    explain(model, table, deliver, failed, reasons)
    if reasons is not None:
        _write_reasons(folder / REASONS, reasons, [told[row] for row in sorted(told)])
    return shown


def place_of(folder: Path, table: Table, row: int) -> Path:
    """The file of an image's overlay: its place in the table, and its name."""
    stem = re.sub(r"[^\w.-]", "_", Path(str(table.names[row])).stem)[:80]
    return folder / f"{row + 1:0{len(str(len(table)))}d}-{stem}.jpg"


def _write_reasons(place: Path, reasons: Reasons, told: list[dict[str, Any]]) -> None:
    kept = len(reasons.names)
    among = f"the nearest {SHOWN} of the {kept} of {reasons.taught} training images whose features the model keeps"
    content = {"nearest": among, "similarity": "cosine of the features as the head reads them", "images": told}
    text = json.dumps(content, indent=1) + "\n"
    try:
        write_whole(place, lambda at: at.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"{place} cannot be written ({why(error)}): choose another --explain") from None
