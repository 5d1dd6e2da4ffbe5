"""An OpenVINO graph in 8-bit integers, by NNCF's post-training quantisation."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino

from headstart.export.layers import Pixels, layer_name, quietly

WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData")
FOLLOWS = ("Clamp", "Relu", "PRelu")  # what is computed together with the layer before it
KEPT = "headstart"  # of the runtime info


@dataclass(frozen=True, eq=False)
class OpenVinoQuantiser:
    """A float graph in a folder. layers: name as in the network -> node; outside: nodes that stay in float whatever is
    asked, see `onnx_quantiser`."""

    folded: Path
    pixels: tuple[Pixels, ...]
    layers: dict[str, str]
    outside: tuple[str, ...]
    narrow: bool

    def write(self, path: Path, floats: Collection[str]) -> None:
        """The graph in int8, but for these layers."""
        with quietly():
            nncf = _nncf()
            from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

            model = openvino.Core().read_model(self.folded)
            names = [*self.outside, *(self.layers[name] for name in floats)]
            found = nncf.quantize(
                model,
                nncf.Dataset(self.pixels),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(self.pixels),
                ignored_scope=nncf.IgnoredScope(names=names, validate=False),
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.ENABLE if self.narrow else OverflowFix.DISABLE
                ),
            )
        found.set_rt_info(model.get_rt_info(KEPT).value, KEPT)
        openvino.save_model(found, path, compress_to_fp16=False)


def _nncf() -> Any:
    """The library. It would report its use over the network, unasked: it does not where that package is not found."""
    reports = "openvino_telemetry"
    known = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == reports}
    sys.modules[reports] = None  # type: ignore[assignment]
    try:
        import nncf
    finally:
        del sys.modules[reports]
        sys.modules.update(known)
    return nncf


def openvino_quantiser(path: Path, pixels: Sequence[Pixels], scratch: Path, narrow: bool) -> OpenVinoQuantiser:
    """Of the float graph model.xml; pixels: images that calibrate, each (1, height, width, 3)."""
    model = openvino.Core().read_model(path)
    layers = _fold(model)
    folded = scratch / "folded.xml"
    openvino.save_model(model, folded, compress_to_fp16=False)
    return OpenVinoQuantiser(folded, tuple(pixels), layers, _outside(model), narrow)


def _fold(model: Any) -> dict[str, str]:
    """Compute what depends on constants alone: NNCF stores weights in 8 bits only where nothing lies between them and
    their layer, and padding worked out from the size of the picture would fill half the file. The number of images is 1
    meanwhile, and free again afterwards.

    Returns layer -> node: folding drops the names, so that they are given anew, in the order of the data.
    """
    from openvino._offline_transformations import apply_moc_transformations

    before = [layer_name(_weight_of(node)) for node in _weighted(model)]
    free = model.input(0).partial_shape
    alone = openvino.PartialShape(free)
    alone[0] = 1
    model.reshape(alone)
    apply_moc_transformations(model, cf=False)
    model.reshape(free)
    nodes = _weighted(model)
    names = before if len(before) == len(nodes) else [node.get_friendly_name() for node in nodes]
    found: dict[str, str] = {}
    for name, node in zip(names, nodes, strict=True):
        name = name if name not in found else node.get_friendly_name()
        node.set_friendly_name(f"headstart/{name}")
        found[name] = node.get_friendly_name()
    return found


def _weighted(model: Any) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() in WEIGHTED]


def _weight_of(layer: Any) -> str:
    """The name of the constant that a layer's weights come from."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() != "Constant" and node.get_input_size():
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())


def _outside(model: Any) -> tuple[str, ...]:
    """Nodes that no convolution reads from, but for the non-linearity after the last ones; those before the first."""
    nodes = model.get_ordered_ops()
    feeds: set[str] = set()
    for node in reversed(nodes):
        if node.get_type_name() in WEIGHTED or any(
            target.get_node().get_friendly_name() in feeds
            for output in node.outputs()
            for target in output.get_target_inputs()
        ):
            feeds.add(node.get_friendly_name())
    fed: set[str] = set()
    inside: set[str] = set()
    for node in nodes:
        name, makers = node.get_friendly_name(), [source.get_node() for source in node.input_values()]
        if node.get_type_name() in WEIGHTED or any(maker.get_friendly_name() in fed for maker in makers):
            fed.add(name)
            follows = node.get_type_name() in FOLLOWS and makers[0].get_friendly_name() in inside
            bias = node.get_type_name() == "Add" and makers[0].get_type_name() in WEIGHTED
            if name in feeds or follows or bias:
                inside.add(name)
    named = [n.get_friendly_name() for n in nodes if n.get_type_name() not in ("Constant", "Parameter", "Result")]
    return tuple(name for name in named if name not in inside)
