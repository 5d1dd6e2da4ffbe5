"""The state of a training on disk, so that what was killed goes on: one file, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from headstart.errors import OutputError
from headstart.files.reading import open_regular, why
from headstart.files.whole import write_whole

EVERY = 30.0  # s between two: half a minute is lost at most (docs/measurements.md, checkpoints)

State = tuple[dict[str, torch.Tensor], dict[str, Any]]


class Checkpoint:
    """The file of the training that `made_by` describes: whatever changes the result must be in there."""

    def __init__(self, root: Path, made_by: Mapping[str, Any], every: float | None = None) -> None:
        text = json.dumps(made_by, sort_keys=True, default=str)
        self.path = root / "tuning" / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.safetensors"
        self.every = EVERY if every is None else every
        self._last = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path.absolute(), "every": self.every}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Where this is read may be another machine, with a clock of its own."""
        self.path, self.every, self._last = state["path"], state["every"], time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every

    def save(self, tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> None:
        """Raises OutputError."""
        whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        keep(self.path, lambda path: save_file(whole, path, {"record": json.dumps(record)}))
        self._last = time.monotonic()

    def load(self) -> State | None:
        """What was saved; None where nothing was, or it cannot be read."""
        try:
            open_regular(self.path).close()
            with safe_open(self.path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["record"])  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
            return None


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a file of the training, whole or not at all. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"the state of the training cannot be written to {path.parent} ({why(error)}): choose another --cache"
        ) from None


def under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with `prefix` and a dot, without it."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}
