"""A graph as torch's own exported program (.pt2): read by `torch.export.load`, without headstart, timm or pickle."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from headstart.export.format import Exportable
from headstart.export.onnx import dynamic, example

KEY = "headstart.json"  # of the files in the archive


def convert(model: Exportable, path: Path) -> None:
    """Write the program: any number of images."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(model.module, (example(model),), dynamic_shapes=(dynamic(model),))
        for node in program.graph.nodes:  # names of source files of the machine that exported
            node.meta.pop("stack_trace", None)
        about = {KEY: json.dumps(model.about, ensure_ascii=False)}
        torch.export.save(program, str(path), extra_files=about)
