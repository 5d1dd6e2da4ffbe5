"""Exports of heads that compare: good pictures and people, each with a second output, say what `predict` says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import Run
from headstart.data.images import write_png
from headstart.data.table import table_of
from headstart.errors import HeadstartError, OptionError
from headstart.estimators.fitted import learned
from headstart.export import loader
from headstart.export.agreement import COMPARED_BOUND, differences
from headstart.export.answers import further
from headstart.export.format import Exportable
from headstart.export.formats import FORMATS
from headstart.export.graph import graph_of
from headstart.export.heads import OddityHead
from headstart.heads.oddity import Layer, fit_oddity
from headstart.heads.taps import Part
from headstart.ship.package import Loaded
from headstart.ship.predict import predict_with_features, records
from headstart.story.export import Compared, agrees
from headstart.story.int8 import check_task
from headstart.story.options import Options
from headstart.tasks.known import TASKS
from headstart.tasks.oddities import ODDITIES
from headstart.tasks.recognition import RECOGNITION
from headstart.trunk.engine import on_cpu

Pixels = np.ndarray[Any, Any]
SMALL: dict[str, Any] = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}


def pictures(n: int, seed: int = 0) -> Pixels:
    """(image, 64, 64, 3): stripes under noise."""
    noise = np.random.default_rng(seed).integers(0, 40, (n, 64, 64, 3))
    return (noise + 90 + 40 * (np.arange(64)[:, None] // 8 % 2)[:, :, None]).astype(np.uint8)


def odd(n: int) -> Pixels:
    found = pictures(n, 1)
    found[:, 20:44, 20:44] = np.random.default_rng(2).integers(0, 255, (n, 24, 24, 1))
    return found


def model_of(kind: str) -> Loaded:
    if kind == "people":
        tint = 60 * np.array([[k >> c & 1 for c in range(3)] for k in range(6)])
        faces = np.repeat(tint, 4, axis=0)[:, None, None, :] + pictures(24) // 2
        table = table_of(faces.astype(np.uint8), [f"p{k}" for k in np.repeat(np.arange(6), 4)], "recognise")
        return learned(RECOGNITION, table, Options(**SMALL), False).model
    bare = table_of(pictures(24))
    table = replace(bare, labels=np.full(24, "good", dtype=object), task="anomaly")
    taps = "last" if kind == "whole" else "auto"
    return learned(ODDITIES, table, Options(**SMALL, taps=taps, false_alarms=0.1), False).model


@pytest.fixture(scope="module")
def models() -> dict[str, Loaded]:
    return {kind: model_of(kind) for kind in ("patches", "whole", "people")}


@pytest.mark.parametrize("kind", ["patches", "whole", "people"])
def test_the_graph_says_what_predict_says_and_of_one_picture_what_it_says_of_eight(
    kind: str, models: dict[str, Loaded]
) -> None:
    model, pixels = models[kind], np.concatenate([pictures(5, 7), odd(3)])
    graph = graph_of(model)
    found, blocks = predict_with_features(model, table_of(pixels), on_cpu(model.backbone, "f32"))
    with torch.inference_mode():
        said = [out.numpy() for out in graph(torch.from_numpy(pixels))]
        alone = [out.numpy() for out in graph(torch.from_numpy(pixels[6:7]))]
    assert len(said) == (1 if kind == "whole" else 2)
    assert found.answers.std(axis=0).max() > 1e-3  # they are told apart: a constant would agree with anything
    off = differences(model, found.answers, said[0])
    assert off.largest < COMPARED_BOUND
    assert off.labels == 1
    assert differences(model, said[0][6:7], alone[0]).largest < COMPARED_BOUND
    if kind != "whole":
        np.testing.assert_allclose(said[1], further(model.head, blocks), atol=COMPARED_BOUND)
        np.testing.assert_allclose(alone[1], said[1][6:7], atol=COMPARED_BOUND)


def test_maps_of_tokens_and_of_two_sizes_are_read_as_by_the_head() -> None:
    """A fine map of 4 x 4 places after a token of the whole picture, and a coarse one of 3 x 3."""
    rng = np.random.default_rng(0)
    blocks = {"last": rng.normal(2, 1, (40, 12)), "a/map": rng.normal(3, 1, (40, 6 * 17))}
    blocks["b/map"] = rng.normal(3, 1, (40, 4 * 9))
    blocks = {name: block.astype(np.float32) for name, block in blocks.items()}
    whole, layers = (Part("last", root=False, unit=True),), (Layer("a/map", 6), Layer("b/map", 4))
    head = fit_oddity(blocks, np.arange(40), [str(k) for k in range(40)], whole, layers, 0, 0.1)
    asked = {name: block[:9] + rng.normal(0, 0.5, (9, 1)).astype(np.float32) for name, block in blocks.items()}
    module = OddityHead(head, {name: block.shape[1] for name, block in blocks.items()})
    with torch.inference_mode():
        score, heat = module({name: torch.from_numpy(block) for name, block in asked.items()})
    np.testing.assert_allclose(np.log(score.numpy()), np.log(head.outputs(asked)), atol=1e-3)
    np.testing.assert_allclose(heat.numpy(), head.heat(asked), atol=1e-3)
    known = {name: block[:9] for name, block in blocks.items()}  # their patches are in the memory, rounded to float16
    with torch.inference_mode():
        away = module.patches({name: torch.from_numpy(block) for name, block in known.items()}).numpy()
    np.testing.assert_allclose(away, head.patches.heat(known), atol=1e-5)


@pytest.mark.parametrize("name", ["onnx", "openvino", "torch"])
def test_a_file_has_its_second_output_under_its_name(name: str, tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = pixels.float() / 255
            return x.mean((1, 2)), x[:, :, :, 0]

    of, about = FORMATS[name], {"further": {"name": "heat"}}
    of.convert(Exportable(Two().eval(), (8, 6), about, outputs=("answers", "heat")), tmp_path)
    space: dict[str, Any] = {"json": json}
    exec(compile(loader.text(of.opener), of.opener, "exec"), space)
    run, said = space["open_model"](tmp_path / of.file)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    assert said == about
    np.testing.assert_allclose(run(pixels), (pixels / 255).mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(run(pixels, 1), pixels[..., 0] / 255, atol=1e-6)


def test_the_command_checks_both_outputs_and_the_loader_tells_records(run: Run, tmp_path: Path) -> None:
    for name, some in (("fine", pictures(24)), ("bent", odd(6))):
        (tmp_path / "d" / name).mkdir(parents=True)
        for k, one in enumerate(some):
            write_png(one, tmp_path / "d" / name / f"{k}.png")
    words = [f"--{name}={value}" for name, value in SMALL.items()]
    done = run("fit", tmp_path / "d", "-o", tmp_path / "m", "--task", "anomaly", "--good", "fine", *words)
    assert done.code == 0, done.err
    done = run("export", tmp_path / "m", "--to", "openvino", "--data", tmp_path / "d", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["further"]["name"] == "heat"
    assert 0 <= record["further"]["largest_difference"] <= COMPARED_BOUND
    assert (record["label_agreement"], record["loader"]["labels"]) == (1, 1)
    assert record["score"]["measure"] == "auroc"
    assert record["score"]["exported"] == record["score"]["predict"]
    about = json.loads((tmp_path / "m-openvino" / "export.json").read_text())["about"]
    assert about["rule"] == {"odd_from": [1.0], "false_alarms": [0.05]}
    assert about["further"]["axes"] == ["image", "row", "column"]
    files = sorted((tmp_path / "d" / "bent").iterdir())
    command = [sys.executable, "-I", str(tmp_path / "m-openvino" / "predict.py"), *map(str, files)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ours = json.loads(run("predict", tmp_path / "m", *files, "--json").out)
    assert [list(one) for one in told] == [list(one) for one in ours]
    assert [one["verdict"] for one in told] == [one["verdict"] for one in ours]
    assert [one["score"] for one in told] == pytest.approx([one["score"] for one in ours], rel=1e-3)
    refused = run("export", tmp_path / "m", "--to", "openvino", "--data", tmp_path / "d", "--int8")
    assert (refused.code, "--int8 is not of --task anomaly" in refused.err) == (2, True)


def test_the_loader_names_people_as_predict_does(models: dict[str, Loaded]) -> None:
    space: dict[str, Any] = {"__name__": "loader", "__file__": "predict.py"}
    text = loader.program(FORMATS["onnx"]).replace("import onnxruntime", "")
    exec(compile(text, "predict.py", "exec"), space)
    model = replace(models["people"], rule={"identify": (0.5,), "verify": (0.4,)})
    found, _ = predict_with_features(model, table_of(np.concatenate([pictures(3), odd(3)])))
    about = {"task": "recognise", "names": list(model.names), "rule": {"identify": [0.5]}}
    for said, answer in zip(records(model, found, 5), found.answers, strict=True):
        told = space["record"](answer, about)
        assert {name: said[name] for name in told} == told


def test_a_second_output_that_differs_is_refused() -> None:
    from headstart.export.agreement import Differences

    same = Differences(8, 0.0, 0.0, 1.0)
    agrees(Compared(same, same, 0, None, None, ("heat", 0.0)), COMPARED_BOUND, FORMATS["onnx"])
    with pytest.raises(HeadstartError, match=r"differ by up to 0\.5"):
        agrees(Compared(same, same, 0, None, None, ("heat", 0.5)), COMPARED_BOUND, FORMATS["onnx"])


def test_distances_are_not_quantised() -> None:
    for name in ("anomaly", "recognise"):
        with pytest.raises(OptionError, match=f"--int8 is not of --task {name}"):
            check_task(TASKS[name])
