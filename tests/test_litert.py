"""LiteRT: what the file says is what the network says, in float32 and in int8; and what is said where the converter is
not there.

The converter wants an environment of its own (`make litert`), so its tests are skipped without it. The small file that
the others read was made by `python tests/test_litert.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conftest import TINY, Run
from headstart.errors import HeadstartError, OptionError
from headstart.export import litert
from headstart.export.formats import FORMATS, check_any_size, check_installed
from headstart.export.loader import program

SIZE = (8, 12)
ABOUT = {"names": ["red", "grün", "blue"], "task": "classify", "rule": {}}
FILE = Path(__file__).parent / "litert" / "colours.tflite"
CONVOLUTION = np.array([[3, -1, -1], [-1, 3, -1], [-1, -1, 3]], np.float32) / 128  # (filter, channel), 1 x 1 px
LINEAR = 4 * np.eye(3, dtype=np.float32)

converter = pytest.mark.skipif(
    litert.VARIABLE not in os.environ and find_spec("litert_torch") is None,
    reason=f"needs litert-torch: make litert, or {litert.VARIABLE}",
)


def expected(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """What the small network says of pixels (image, height, width, 3)."""
    maps = np.maximum(pixels.astype(np.float64) @ CONVOLUTION.T, 0)
    scores = np.exp(maps.mean(axis=(1, 2)) @ LINEAR.T)
    return scores / scores.sum(axis=1, keepdims=True)


def pictures(n: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(image, height, width, 3): noise, stronger in one colour."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 120, (n, *SIZE, 3))
    found[np.arange(n), :, :, rng.integers(0, 3, n)] += 30
    return found.astype(np.uint8)


def opened(file: Path, folder: Path) -> tuple[Any, Any]:
    """(run, about), by the loader that would lie beside the file."""
    found = types.ModuleType("predict")
    found.__file__ = str(folder / "predict.py")
    exec(program(FORMATS["litert"]), found.__dict__)
    return found.open_model(file)


def small_network() -> Any:
    """uint8 pixels -> answers, with the names of parts that a graph has."""
    import torch
    from torch import nn

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, bias=False)
            self.conv.weight = nn.Parameter(torch.from_numpy(CONVOLUTION)[:, :, None, None])

        def forward(self, pixels: Any) -> Any:
            return self.conv(pixels.permute(0, 3, 1, 2).float()).relu().mean((2, 3))

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.linear = Trunk(), nn.Linear(3, 3, bias=False)
            self.linear.weight = nn.Parameter(torch.from_numpy(LINEAR))

        def forward(self, pixels: Any) -> Any:
            return self.linear(self.trunk(pixels)).softmax(dim=1)

    return Graph().eval().requires_grad_(False)


def make(file: Path) -> Path:
    from headstart.export.format import Exportable

    litert.convert(Exportable(small_network(), SIZE, ABOUT), file)
    return file


def test_the_python_of_the_page_on_devices_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the small file, whose pictures are smaller than the page's."""
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    page = (Path(__file__).parents[1] / "docs" / "edge.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "(1, 160, 160, 3)" in block
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "satellite-litert-int8" / "model.tflite"
    place.parent.mkdir()
    shutil.copy(FILE, place)
    known: dict[str, Any] = {}
    exec(compile(block.replace("160, 160", "8, 12"), "edge.md", "exec"), known)
    assert known["probabilities"] == pytest.approx(1 / 3, abs=0.01)  # of a black picture


def test_a_file_says_what_the_network_says_however_many_pictures_it_is_given(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the runtime, ai-edge-litert")
    run, about = opened(FILE, tmp_path)
    pixels = pictures(9)
    found = run(pixels)
    assert about == ABOUT
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(pixels), atol=1e-5)
    for k in (0, 8):
        np.testing.assert_array_equal(run(pixels[k : k + 1])[0], found[k])
    assert len(set(found.argmax(axis=1))) == 3


@converter
def test_a_converted_file_says_what_the_network_says(tmp_path: Path) -> None:
    from headstart.export.agreement import run

    make(tmp_path / "model.tflite")
    (tmp_path / "predict.py").write_text(program(FORMATS["litert"]), encoding="utf-8")
    np.save(tmp_path / "pixels.npy", pictures(6))
    ran = run(tmp_path, FORMATS["litert"], tmp_path / "pixels.npy", [])  # raises where it imports torch or headstart
    assert ran.about == ABOUT
    assert ran.answers is not None
    np.testing.assert_allclose(ran.answers, expected(pictures(6)), atol=1e-5)


@converter
def test_int8_is_near_and_layers_that_stay_float_bring_it_nearer(tmp_path: Path) -> None:
    from headstart.export.agreement import run

    (tmp_path / "predict.py").write_text(program(FORMATS["litert"]), encoding="utf-8")
    np.save(tmp_path / "pixels.npy", pictures(20, seed=1))
    quantiser = litert.litert_quantiser(FILE, [pictures(20)], tmp_path)
    assert list(quantiser.layers) == ["conv"]
    off = {}
    weights = litert.LitertQuantiser(FILE, None, quantiser.layers)
    for what, maker, floats in (("all", quantiser, []), ("float", quantiser, ["conv"]), ("weights", weights, [])):
        maker.write(tmp_path / "model.tflite", floats)
        ran = run(tmp_path, FORMATS["litert"], tmp_path / "pixels.npy", [])
        assert ran.about == ABOUT
        assert ran.answers is not None
        off[what] = np.abs(ran.answers - expected(pictures(20, seed=1))).max()
    assert 0 < off["all"] < 0.05
    assert off["float"] < off["all"]
    assert off["weights"] < off["all"]


@converter
def test_a_saved_model_is_exported(run: Run, pictures: Path, tmp_path: Path) -> None:
    """The whole way, for a network with squeeze-and-excitation and a head of the user's own layers."""
    fitted = run("fit", pictures, "-o", tmp_path / "model", *TINY, "--head", "gap, dropout 0.2, dense 8 relu")
    assert fitted.code == 0, fitted.err
    done = run("export", tmp_path / "model", "--to", "litert", "--data", pictures, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["label_agreement"] == 1
    assert record["largest_difference"] <= 1e-4
    assert (Path(record["folder"]) / "model.tflite").stat().st_size == record["bytes"]


def test_without_the_converter_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(litert.VARIABLE, raising=False)
    monkeypatch.setattr(litert, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=rf"needs litert-torch.*pip install.*{litert.VARIABLE}"):
        check_installed(FORMATS["litert"])
    monkeypatch.setenv(litert.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(OptionError, match="which is no program"):
        check_installed(FORMATS["litert"])
    monkeypatch.setenv(litert.VARIABLE, "sh")  # what a program named by the user has is not known before it is run
    check_installed(FORMATS["litert"])
    with pytest.raises(OptionError, match="leave it out"):
        check_any_size(FORMATS["litert"], any_size=True)


@pytest.mark.skipif(find_spec("ai_edge_quantizer") is not None, reason="is about a Python without the quantizer")
def test_a_python_without_the_converter_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(litert.VARIABLE, sys.executable)
    with pytest.raises(HeadstartError, match=r"python\S* cannot make the litert file .*No module named.*pip install"):
        litert.litert_quantiser(FILE, [pictures(1)], tmp_path)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("a.Named/b.Graph_inner/c.Trunk_trunk/timm.conv2d_same.Conv2dSame_conv_stem;1", "conv_stem"),
        ("c.Trunk_trunk/d.Sequential_blocks/d.Sequential_0/e.Block_1/f.Conv2d_conv_dw;2", "blocks.0.1.conv_dw"),
        ("b.Graph_inner/c.LinearHead_head/d.Linear_linear;2", ""),
        ("x.convert.<locals>.Named/b.Graph_inner/c.Trunk_trunk;3", ""),
        ("c.Trunk_trunk/e.ReLU6_act;;c.Trunk_trunk/e.BatchNormAct2d_bn1;;c.Trunk_trunk/f.Conv2d_conv_pw;1", "conv_pw"),
        ("StatefulPartitionedCall", ""),
    ],
)  # fmt: skip
def test_operations_are_known_by_the_networks_own_names(name: str, layer: str) -> None:
    assert litert.layer_of(name) == layer


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    make(FILE)
