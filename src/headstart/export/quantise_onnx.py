"""An ONNX file in 8-bit integers, by ONNX Runtime's static quantisation.

Weights are int8 by channel, activations uint8 with ranges that the user's images fill, written as pairs of
QuantizeLinear and DequantizeLinear (QDQ): each runtime that reads them may compute in integers or in float.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.export.layers import Pixels, layer_name, quietly

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FOLLOWS = ("Clip", "Relu", "LeakyRelu")  # what is computed together with the layer before it


@dataclass(frozen=True, eq=False)
class OnnxQuantiser:
    """A float file whose ranges are known. layers: name as in the network -> node; outside: nodes that stay in float
    whatever is asked: what comes before the first layer, and what makes answers of the last one's maps."""

    prepared: Any  # onnx.ModelProto with folded constants and inferred shapes
    ranges: Any  # onnxruntime's TensorsData
    layers: dict[str, str]
    outside: tuple[str, ...]
    narrow: bool  # weights in 7 bits: see `quantise.sums_overflow`

    def write(self, path: Path, floats: Collection[str]) -> None:
        """The file in int8, but for these layers."""
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        copy = onnx.ModelProto()
        copy.CopyFrom(self.prepared)
        with quietly():
            quantizer = QDQQuantizer(
                copy,
                per_channel=True,
                reduce_range=self.narrow,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self.ranges,
                nodes_to_quantize=[],
                nodes_to_exclude=[*self.outside, *_with_followers(self.prepared.graph, floats, self.layers)],
                op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
                extra_options={},
            )
            quantizer.quantize_model()
        found = quantizer.model.model
        found.producer_name, found.producer_version = self.prepared.producer_name, self.prepared.producer_version
        onnx.save(found, str(path))


def onnx_quantiser(path: Path, pixels: Sequence[Pixels], scratch: Path, narrow: bool) -> OnnxQuantiser:
    """Run the float file on images that calibrate, each (image, height, width, 3). scratch: a folder for files."""
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(pixels)

        def get_next(self) -> dict[str, Pixels] | None:
            some = next(self.left, None)
            return None if some is None else {"pixels": some}

    prepared = scratch / "prepared.onnx"
    with quietly():
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(str(prepared))
        calibrator = create_calibrator(
            prepared,
            augmented_model_path=str(scratch / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(Reader())
        ranges = calibrator.compute_data()
    outside = _outside(model.graph)
    layers = {name: node for name, node in _layers(model.graph).items() if node not in outside}
    return OnnxQuantiser(model, ranges, layers, outside, narrow)


def _with_followers(graph: Any, floats: Collection[str], layers: dict[str, str]) -> list[str]:
    """The nodes of these layers, and the non-linearities after them: what lies between the two would otherwise be
    rounded over its whole range, which the non-linearity cuts off."""
    alone = {layers[name] for name in floats}
    made = {output for node in graph.node if node.name in alone for output in node.output}
    return [
        node.name for node in graph.node if node.name in alone or (node.op_type in FOLLOWS and node.input[0] in made)
    ]


def _layers(graph: Any) -> dict[str, str]:
    """Layers with weights, in the order of the file: name -> node."""
    stored = {tensor.name for tensor in graph.initializer}
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in stored:
            name = layer_name(node.input[1])
            found[name if name not in found else node.name] = node.name
    return found


def _outside(graph: Any) -> tuple[str, ...]:
    """Nodes that no convolution reads from, but for the non-linearity after the last; those before the first."""
    maker = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    before: set[str] = set()  # read by a convolution, over any number of nodes
    waiting = list(convolutions)
    while waiting:
        node = waiting.pop()
        if node.name not in before:
            before.add(node.name)
            waiting += [maker[name] for name in node.input if name in maker]
    after: set[str] = set()  # reads from a convolution: nodes lie in the order of the data
    made = set()
    for node in graph.node:
        if node in convolutions or any(name in made for name in node.input):
            made |= set(node.output)
            after.add(node.name)
    inside = before & after
    for node in graph.node:
        if node.op_type in FOLLOWS and node.input[0] in maker and maker[node.input[0]].name in inside:
            inside.add(node.name)
    return tuple(node.name for node in graph.node if node.name not in inside)
