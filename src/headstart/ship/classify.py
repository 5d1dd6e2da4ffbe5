"""What a network's own top says of images: the ImageNet answer, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from headstart.data.table import Table
from headstart.errors import BackboneError, ImageError
from headstart.files.cells import csv_bytes
from headstart.files.put import refusing
from headstart.files.whole import write_whole
from headstart.trunk.backbone import own_labels
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import stream
from headstart.trunk.layers import LOGITS
from headstart.trunk.network import Backbone
from headstart.trunk.store import Halves


class Named(TypedDict):
    """A class of the network's own top."""

    wnid: str
    name: str
    probability: float


class Answered(TypedDict):
    """What the top says of one image, best first; nothing where it could not be read."""

    path: str
    predictions: list[Named]
    error: str | None


def write_answers(found: list[Answered], path: Path, top: int) -> None:
    """What `classify` gives as CSV (a row an image), JSON lines or JSON; whole or not at all. Raises OutputError."""
    ending = path.suffix.lower()
    if ending == ".csv":
        heads = [f"{what}_{k}" for k in range(1, top + 1) for what in ("wnid", "name", "probability")]
        rows = []
        for record in found:
            cells = [v for p in record["predictions"] for v in (p["wnid"], p["name"], f"{p['probability']:.6f}")]
            rows.append([record["path"], *cells, *[""] * (len(heads) - len(cells)), record["error"] or ""])
        content = csv_bytes(["path", *heads, "error"], rows)
    elif ending == ".jsonl":
        content = "".join(json.dumps(record, ensure_ascii=True) + "\n" for record in found).encode()
    else:
        content = json.dumps(found, ensure_ascii=True, indent=1).encode()
    with refusing(f"answers cannot be written to {path}"):
        write_whole(path, lambda place: place.write_bytes(content))


def classify(
    table: Table,
    backbone: Backbone,
    top: int = 5,
    precision: str = "auto",
    progress: Callable[[int], None] = lambda done: None,
) -> list[Answered]:
    """[{"path", "predictions": [{"wnid", "name", "probability"}], "error"}] in the table's order, best first.

    Raises BackboneError for a network without a top, or one whose classes have no names.
    """
    labels = own_labels(backbone)
    if backbone.random:
        raise BackboneError(f"{backbone.name} has random weights: its answers would mean nothing; drop --weights none")
    with_top = replace(backbone, taps=(), ends=(LOGITS,))
    found: list[Answered] = [{"path": str(name), "predictions": [], "error": None} for name in table.names]

    def deliver(rows: list[int], blocks: dict[str, Halves]) -> None:
        for row, logits in zip(rows, blocks[LOGITS].astype(np.float64), strict=True):
            p = np.exp(logits - logits.max())
            p /= p.sum()
            best = np.argsort(-p, kind="stable")[:top]
            found[row]["predictions"] = [
                {"wnid": labels[k][0], "name": labels[k][1], "probability": float(p[k])} for k in best
            ]
        progress(len(rows))

    def failed(row: int, error: ImageError) -> None:
        found[row]["error"] = str(error)
        progress(1)

    stream(table, with_top, compile_trunk(with_top, precision), deliver, failed, exact=True)
    return found
