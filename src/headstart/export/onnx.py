"""A graph as an ONNX file, by torch's own exporter; what it says of itself lies in the file's metadata."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch

from headstart.export.format import Exportable

OPSET = 20
KEY = "headstart"  # of the metadata: JSON


def convert(model: Exportable, path: Path) -> None:
    """Write the file: input "pixels", output "answers", a second one where there is one, any number of images."""
    import onnx

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            model.module,
            (example(model),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=list(model.outputs),
            dynamic_shapes=(dynamic(model),),
            verbose=False,
        )
    assert program is not None
    found = program.model_proto
    del found.metadata_props[:]
    for node in found.graph.node:  # names of source files of the machine that exported
        del node.metadata_props[:]
    for value in (*found.graph.value_info, *found.graph.input, *found.graph.output, *found.graph.initializer):
        del value.metadata_props[:]
    onnx.helper.set_model_props(found, {KEY: json.dumps(model.about, ensure_ascii=False)})
    found.producer_name, found.doc_string = "headstart", ""
    onnx.checker.check_model(found)
    onnx.save(found, str(path))


def example(model: Exportable) -> torch.Tensor:
    """Two images, so that the number of images is not taken for a constant."""
    height, width = model.size
    shape = (2, height + 7, width + 20, 3) if model.any_size else (2, height, width, 3)
    return torch.zeros(shape, dtype=torch.uint8)


def dynamic(model: Exportable) -> dict[int, torch.export.Dim]:
    """The axes whose length is free."""
    free = {0: torch.export.Dim("images", min=1)}
    if model.any_size:
        free |= {1: torch.export.Dim("height", min=1), 2: torch.export.Dim("width", min=1)}
    return free
