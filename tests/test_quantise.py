"""Exports in 8-bit integers: what the gate refuses, what stays in float, and which images say so."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cli.main import main
from headstart.data import images
from headstart.errors import DataError, HeadstartError, OptionError
from headstart.export import agreement, gate, quantise
from headstart.export.formats import FORMATS
from headstart.export.sensitive import Layer
from headstart.files.bundle import read_bundle
from headstart.judge.intervals import paired_gain
from headstart.story import export, int8
from headstart.story.held_out import held_out

PER_CENT = 0.01


def verdict(lost: int, gained: int, same: int, expected: float = 0.0, max_drop: float = 0.5) -> gate.Verdict:
    ours = np.array([True] * lost + [False] * gained + [True] * same)
    theirs = np.array([False] * lost + [True] * gained + [True] * same)
    return gate.judged(max_drop, len(ours), paired_gain(theirs, ours)["difference"], (ours, theirs), expected)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 500), st.floats(0, 3), st.floats(0, 5))
def test_the_gate_holds_both_numbers_against_what_is_allowed(
    lost: int, gained: int, same: int, expected: float, allowed: float
) -> None:
    found = verdict(lost, gained, same, expected, allowed)
    assert found.drop == pytest.approx(100 * (lost - gained) / (lost + gained + same))
    assert found.low <= found.drop <= found.high
    if expected > allowed:
        assert not found.accepted
    elif found.drop <= allowed:
        assert found.accepted
    else:
        assert found.accepted == (found.chance is not None and found.chance >= gate.CHANCE)
    worse = verdict(lost + 1, gained, same, expected, allowed)
    assert found.accepted or not worse.accepted


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 40), st.integers(0, 40))
def test_chance_is_that_of_a_fair_coin(lost: int, gained: int) -> None:
    n = lost + gained
    assert gate.at_least(lost, n) == pytest.approx(sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n)


def test_what_is_refused_is_said_with_its_numbers() -> None:
    with pytest.raises(HeadstartError, match=r"loses 4.00 points.*12 right answers lost.*--max-drop allows 0.5"):
        gate.check(verdict(12, 0, 288), 1, 9)
    with pytest.raises(HeadstartError, match=r"0.90 points are to be expected"):
        gate.check(verdict(0, 0, 200, expected=0.9), 1, 9)
    lucky = verdict(2, 0, 151)
    assert lucky.accepted
    assert "no more than chance" in str(gate.remark(lucky, False))


def test_labels_that_change_cost_what_the_model_gives_for_them() -> None:
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
    before = p.argmax(axis=1)
    assert gate.cost_of_changes(p, before, before) == 0.0
    assert gate.cost_of_changes(p, before, 1 - before) == pytest.approx(100 * (0.2 + 0.8 + 0.6) / 3)


@pytest.mark.parametrize("variance", [0.01, 0.1, 0.3])
def test_the_drop_to_be_expected_is_what_calibrated_answers_lose(variance: float) -> None:
    """Margins as even as near 0 in any set, labels drawn by their probabilities, scores changed at random."""
    rng, n = np.random.default_rng(0), 1_000_000
    margins = rng.uniform(0, 12, n)
    wrong = 1 / (1 + np.exp(margins))
    changed = margins + rng.normal(0, variance**0.5, n) < 0
    lost = 100 * np.where(changed, 1 - 2 * wrong, 0).mean()
    assert quantise.expected_drop(variance, wrong.mean()) == pytest.approx(lost, rel=0.1)
    assert quantise.expected_drop(quantise.allowed_noise("classify", 0.7), quantise.ERRORS) == pytest.approx(0.7)


@pytest.mark.parametrize("task", ["classify", "tag", "regress"])
def test_noise_is_0_of_the_same_answers_and_grows_as_the_square_of_a_change(task: str) -> None:
    rng, unit = np.random.default_rng(1), np.array([1.0, 1.0, 1.0]) * (3.0 if task == "regress" else 1.0)
    raw, change = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) * 0.01

    def answers(scores: npt.NDArray[np.float64]) -> Any:
        if task == "classify":
            return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        return 1 / (1 + np.exp(-scores)) if task == "tag" else scores

    one, two, three = (answers(raw + k * change) for k in (0, 1, 2))
    assert quantise.noise_of(task, one, one, unit) == 0.0
    once, twice = (quantise.noise_of(task, one, other, unit) for other in (two, three))
    assert once > 0
    assert twice == pytest.approx(4 * once, rel=1e-6)
    assert quantise.noise_of(task, one, np.full_like(one, np.nan), unit) == math.inf


class Pretended:
    """A network whose noise is the sum of its layers' in 8 bits; 1,000 bytes a layer in float."""

    def __init__(self, noise: dict[str, float]) -> None:
        self.noise, self.layers, self.written = noise, {name: name for name in noise}, [()]

    def write(self, path: Path, floats: Collection[str]) -> None:
        self.written.append(tuple(floats))

    def measured(self) -> tuple[int, float]:
        size = sum(1000 if name in self.written[-1] else 250 for name in self.layers)
        return size, sum(noise for name, noise in self.noise.items() if name not in self.written[-1])


def pretended(noise: dict[str, float], allowed: float) -> tuple[Pretended, tuple[str, ...], float, int]:
    network = Pretended(noise)
    suffering = [Layer(name, found, 250) for name, found in noise.items()]
    found = quantise.quantise(network, suffering, Path(), network.measured, 1000 * len(noise), allowed)
    return network, *found


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=80), st.floats(0.001, 5))
def test_layers_that_hurt_are_taken_back_until_it_is_enough_or_the_file_is_large(
    noises: list[float], allowed: float
) -> None:
    network, floats, noise, tried = pretended({f"layer{k}": value for k, value in enumerate(noises)}, allowed)
    assert network.written[-1] == floats  # what is said is what lies there
    assert network.measured()[1] == noise
    assert floats[0] == "layer0"
    others = [n for n in network.layers if n not in floats]
    if len(floats) > 1 and others:
        assert min(network.noise[n] for n in floats[1:]) >= max(network.noise[n] for n in others)
    assert tried <= quantise.ROUNDS
    room = quantise.LARGEST * 1000 * len(noises) - network.measured()[0]
    assert noise <= allowed or tried == quantise.ROUNDS or not others or room < 750
    least = 250 * len(noises) + 750
    assert network.measured()[0] <= max(least, quantise.LARGEST * 1000 * len(noises)) + 1e-6


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional network in ONNX, with the names that an export gives."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, stored, last, width = np.random.default_rng(0), [], [], "scaled", 3
    nodes += [helper.make_node("Cast", ["pixels"], ["cast"], "cast", to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Transpose", ["cast"], ["moved"], "moved", perm=[0, 3, 1, 2])]
    stored += [numpy_helper.from_array(np.float32(255), "scale")]
    nodes += [helper.make_node("Div", ["moved", "scale"], ["scaled"], "scaling")]
    for name, wide in (("stem", 16), ("blocks.0", 32), ("blocks.1", 64)):
        weight = rng.normal(size=(wide, width, 3, 3)).astype(np.float32) / (9 * width) ** 0.5 * 1.5
        stored += [numpy_helper.from_array(weight, f"trunk.network.{name}.weight")]
        stored += [numpy_helper.from_array(rng.normal(size=wide).astype(np.float32) / 10, f"{name}.bias")]
        inputs = [last, f"trunk.network.{name}.weight", f"{name}.bias"]
        nodes += [helper.make_node("Conv", inputs, [f"{name}.out"], f"{name}.conv", pads=[1, 1, 1, 1], strides=[2, 2])]
        nodes += [helper.make_node("Relu", [f"{name}.out"], [f"{name}.relu"], f"{name}.relu")]
        last, width = f"{name}.relu", wide
    stored += [numpy_helper.from_array(rng.normal(size=(width, 3)).astype(np.float32), "head.weight")]
    nodes += [helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool")]
    nodes += [helper.make_node("Flatten", ["pooled"], ["flat"], "flat")]
    nodes += [helper.make_node("Gemm", ["flat", "head.weight"], ["scores"], "head")]
    nodes += [helper.make_node("Softmax", ["scores"], ["answers"], "softmax", axis=1)]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 32, 32, 3])
    answers = helper.make_tensor_value_info("answers", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "small", [pixels], [answers], stored)
    place = tmp_path_factory.mktemp("float") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(place))
    return place


def asked(path: Path, pixels: npt.NDArray[np.uint8]) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path)).run(None, {"pixels": pixels})[0]


@pytest.mark.parametrize("floats", [(), ("stem",), ("stem", "blocks.1")])
def test_an_onnx_file_in_int8_is_smaller_and_keeps_in_float_what_it_is_told(
    floats: tuple[str, ...], float_file: Path, tmp_path: Path
) -> None:
    import onnx

    from headstart.export.quantise_onnx import onnx_quantiser

    pixels = np.random.default_rng(2).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    made = onnx_quantiser(float_file, [one[None] for one in pixels], tmp_path, narrow=False)
    assert list(made.layers) == ["stem", "blocks.0", "blocks.1"]
    made.write(tmp_path / "int8.onnx", floats)
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    whole = {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT and name.endswith(".weight")}
    assert whole == {"head.weight", *(f"trunk.network.{name}.weight" for name in floats)}
    rounded = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert not rounded & {"flat", "scores", "pooled", "cast", "moved"}
    if "blocks.1" not in floats:
        assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * float_file.stat().st_size
    before, after = asked(float_file, pixels), asked(tmp_path / "int8.onnx", pixels)
    assert 0 < np.abs(before - after).max() < 5 * PER_CENT


def test_what_rounding_one_layer_changes_is_foretold() -> None:
    """Against the network itself with that one layer's weights and inputs rounded."""
    import torch
    from torch import nn

    from headstart.export import sensitive

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU()
    )
    network = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1)).eval()
    network[3].weight.data *= 20
    takes = Takes(network)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    score = quantise.scored("classify", np.ones(3))
    found = {layer.name: layer for layer in sensitive.layers(takes, [pixels], score)}
    assert list(found) == ["0.0", "0.2", "0.4", "3"]
    plain = score(takes(torch.from_numpy(pixels))).detach()
    for name, layer in found.items():
        module = network.get_submodule(name)
        weight = module.weight.data.clone()
        handle = module.register_forward_pre_hook(lambda m, inputs: (sensitive._rounded(inputs[0]),))
        module.weight.data = sensitive._rounded_weights(weight)
        change = score(takes(torch.from_numpy(pixels))).detach() - plain
        module.weight.data = weight
        handle.remove()
        assert layer.noise == pytest.approx(float((change**2).mean()), rel=0.3)


def Takes(network: Any) -> Any:  # noqa: N802
    """A graph: pixels in, normalised."""
    import torch
    from torch import nn

    class Graph(nn.Module):
        def forward(self, pixels: torch.Tensor) -> Any:
            return network(pixels.permute(0, 3, 1, 2).float() / 255)

    found = Graph()
    found.trunk = nn.Module()
    found.trunk.network = network
    return found


Made = tuple[Path, Path, dict[str, Any], set[str]]


@pytest.fixture(scope="module")
def made(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """(a copy of the model, the folder of its int8 file, what was said, the contents of images that calibrated)."""
    place, seen = tmp_path_factory.mktemp("int8"), set()
    mine, original = place / "mine", int8._decoded
    shutil.copytree(model, mine)

    def watched(table: Any, rows: Any, preprocess: Any) -> Any:
        seen.update(images.content_hash(table.read(row)) for row in range(len(table)))
        return original(table, rows, preprocess)

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(int8, "_decoded", watched)
        words = ["export", str(mine), "--to", "openvino", "--int8", "--max-drop", "100", "--data", str(pictures)]
        main([*words, "--json"])
    return mine, place / "mine-openvino-int8", json.loads(out.getvalue()), seen


def test_an_int8_export_says_what_was_done_and_images_that_judge_never_calibrate(made: Made, pictures: Path) -> None:
    mine, folder, record, seen = made
    found = record["int8"]
    assert record["bytes"] == sum((folder / name).stat().st_size for name in ("model.xml", "model.bin"))
    assert found["floats"]
    assert set(found["floats"]) <= {f"{name}" for name in layer_names(folder)}
    assert found["gate"]["accepted"]
    assert found["gate"]["drop"] == pytest.approx(-100 * record["score"]["difference"]["value"])
    assert found["gate"]["n"] == record["images"] == 12
    assert "openvino-int8" in json.loads((mine / "export.json").read_text())
    held = int8.shared_out(held_out(read_bundle(mine), str(pictures)))
    judging = {images.content_hash(held.table.read(row)) for row in range(len(held.table))}
    assert len(seen) == 12
    assert not seen & judging


def layer_names(folder: Path) -> list[str]:
    import openvino

    from headstart.export.quantise_openvino import WEIGHTED

    nodes = openvino.Core().read_model(folder / "model.xml").get_ordered_ops()
    return [n.get_friendly_name().removeprefix("headstart/") for n in nodes if n.get_type_name() in WEIGHTED]


def test_what_loses_too_much_leaves_nothing(
    made: Made, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, folder, _, _ = made

    def untouched(*rest: Any) -> int8.Made:
        return int8.Made(quantise.Chosen((), 9, 0.0, 0.1, 8, 1, False), 0.5, 0.3, 1.0, 0.1)

    def ran(*asked: Any) -> Any:
        """What the file says, with the classes in another order."""
        found = agreement.run(*asked)
        return replace(found, answers=np.roll(found.answers, 1, axis=1))

    monkeypatch.setattr(int8, "made", untouched)
    monkeypatch.setattr(export, "run", ran)
    before = (folder / "model.bin").read_bytes()
    for place in (folder, tmp_path / "new"):
        words = ["export", str(mine), "--to", "openvino", "--int8", "--data", str(pictures), "-o", str(place)]
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 1
        assert "--max-drop allows 0.5" in capsys.readouterr().err
    assert (folder / "model.bin").read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_had_in_int8_is_said_before_anything_slow(model: Path, pictures: Path) -> None:
    for words in ((FORMATS["torch"], False), (FORMATS["onnx"], True)):
        with pytest.raises(OptionError):
            int8.check_int8(*words)
    held = held_out(read_bundle(model), str(pictures))
    with pytest.raises(DataError, match="whose truth is known"):
        int8.shared_out(replace(held, labelled=False))
    with pytest.raises(DataError, match="taught the model, and 0 of them are here"):
        int8.shared_out(replace(held, taught=False))
