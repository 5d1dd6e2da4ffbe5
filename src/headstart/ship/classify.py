"""What a network's own top says of images: the ImageNet answer, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.data.table import Table
from headstart.errors import BackboneError, ImageError
from headstart.trunk.backbone import own_labels
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import stream
from headstart.trunk.layers import LOGITS
from headstart.trunk.network import Backbone
from headstart.trunk.store import Halves


def classify(
    table: Table,
    backbone: Backbone,
    top: int = 5,
    precision: str = "auto",
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """[{"path", "predictions": [{"wnid", "name", "probability"}], "error"}] in the table's order, best first.

    Raises BackboneError for a network without a top, or one whose classes have no names.
    """
    labels = own_labels(backbone)
    if backbone.random:
        raise BackboneError(f"{backbone.name} has random weights: its answers would mean nothing; drop --weights none")
    with_top = replace(backbone, taps=(), ends=(LOGITS,))
    found: list[dict[str, Any]] = [{"path": str(name), "predictions": [], "error": None} for name in table.names]

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
