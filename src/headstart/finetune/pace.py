"""How fast a part of a network learns on this machine, and in which arithmetic: measured once, then remembered.

What was measured decides the arithmetic, and that the last bits of the result: so it is kept with the checkpoints, and
a training that was killed goes on with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from headstart.files.reading import read_regular
from headstart.finetune.arithmetic import ALL, VERSION, Arithmetic, candidates, fastest, memory_kept, rates
from headstart.finetune.checkpoint import keep
from headstart.trunk.engine import this_machine


@dataclass(frozen=True)
class Pace:
    arithmetic: Arithmetic
    images_per_second: float  # of a training step


def measured(
    store: Path | None,
    kind: Mapping[str, str | int],
    make: Callable[[], nn.Module],
    x: torch.Tensor,
    *,
    precision: str,
    device: str,
) -> Pace:
    """The pace on activations x (image, ...), which are of a whole batch; from `store` where it is known there."""
    key = {**kind, "shape": list(x.shape), "precision": precision, "torch": torch.__version__, "device": device}
    machine = asdict(this_machine()) | {"threads": torch.get_num_threads(), "version": VERSION}
    text = json.dumps(key | machine, sort_keys=True)
    path = store and store / "tuning" / f"pace-{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.json"
    if path and (known := _read(path)):
        return known

    def modules() -> Iterator[nn.Module]:
        while True:
            yield make()

    with memory_kept():
        found = rates(modules(), x, candidates(make(), precision, device), device)
    pace = Pace(*fastest(found))
    if path:
        record = {
            "arithmetic": pace.arithmetic.name,
            "images_per_second": pace.images_per_second,
            "of": json.loads(text),
        }
        record["tried"] = {way.name: round(rate, 1) for way, rate in found}
        keep(path, lambda p: p.write_text(json.dumps(record, indent=1)))
    return pace


def _read(path: Path) -> Pace | None:
    try:
        found = json.loads(read_regular(path))
        arithmetic = {way.name: way for way in ALL}[found["arithmetic"]]
        return Pace(arithmetic, float(found["images_per_second"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
