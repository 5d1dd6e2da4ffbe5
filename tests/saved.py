"""Small saved models, without a network, for tests of what is read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.files import forms
from headstart.files.bundle import GALLERY, HEAD, MODEL, NOVELTY, ODDITY, REFERENCE, write_bundle

DESCRIBED: dict[str, Any] = {  # what headstart.json must hold
    "classes": ["ant", "bée", "\udcff", "猫"],
    "preprocess": {},
    "backbone": {"name": "resnet18", "weights_source": "random weights", "licence": "", "classifier": "fc"},
    "head": {"kind": forms.LINEAR, "parts": [{"block": "pre_logits", "root": False, "unit": True}]},
}
METRICS = {"test": {"n": 1, "accuracy": {"value": 0.5, "low": 0.1, "high": 0.9}}}
RUN = {"command": "headstart fit", "options": {"seed": 1}}


def save(
    folder: Path, number: int = 1, tensors: Mapping[str, Mapping[str, NDArray[Any]]] | None = None, **changed: Any
) -> None:
    """A small model, all of whose parts carry `number`."""
    parts: dict[str, Any] = {
        "manifest": DESCRIBED | {"number": number},
        "config": {"architecture": "resnet18", "number": number},
        "metrics": METRICS | {"number": number},
        "run": RUN,
        "tensors": tensors
        or {
            name: {"weight": np.full((2, 3), number, np.float32)}
            for name in (MODEL, HEAD, GALLERY, REFERENCE, NOVELTY, ODDITY)
        },
        "files": {"README.md": b"# model\n", "set_aside.csv": b"path,reason\n"},
    }
    write_bundle(folder, **(parts | changed))
