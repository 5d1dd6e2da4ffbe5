"""A graph as OpenVINO's intermediate representation, in float32; what it says of itself lies in its runtime info."""

from __future__ import annotations

import json
from pathlib import Path

import openvino

from headstart.export.format import Exportable
from headstart.trunk.engine import converted

KEY = "headstart"  # of the runtime info: JSON


def convert(model: Exportable, path: Path) -> None:
    """Write model.xml and model.bin beside it: any number of images."""
    height, width = (side + 8 for side in model.size) if model.any_size else model.size
    free = [-1, -1, -1, 3] if model.any_size else [-1, height, width, 3]
    found = converted(model.module, [2, height, width, 3], free)
    found.inputs[0].get_tensor().set_names({"pixels"})
    for output, name in zip(found.outputs, model.outputs, strict=True):
        output.get_tensor().set_names({name})
    written(found, model.about, path)


def written(found: openvino.Model, about: dict[str, object], path: Path) -> None:
    """The graph with what it says of itself, its weights as they are."""
    found.set_rt_info(json.dumps(about, ensure_ascii=False), KEY)
    openvino.save_model(found, path, compress_to_fp16=False)
