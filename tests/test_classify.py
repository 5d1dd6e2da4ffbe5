"""A network's own answer: right weights, right preprocessing, right names."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from headstart.data.table import Table, list_images
from headstart.errors import BackboneError
from headstart.ship.classify import classify
from headstart.trunk.backbone import open_backbone, own_labels
from headstart.trunk.network import Backbone


@pytest.fixture(scope="module")
def photographs(shared: Path) -> Table:
    """50 photographs of as many classes, each named WNID_NAME.JPEG."""
    return list_images([shared / "data" / "imagenet_100"]).take(range(0, 100, 2))


@pytest.fixture(scope="module")
def answers(photographs: Table) -> list[dict[str, Any]]:
    """What the default network says of them."""
    return classify(photographs, open_backbone())


def right(found: list[dict[str, Any]], most: int = 1) -> float:
    """Share of photographs with their WordNet id among the first answers."""
    hits = [Path(f["path"]).name.split("_")[0] in [p["wnid"] for p in f["predictions"][:most]] for f in found]
    return sum(hits) / len(hits)


def blue_first(backbone: Backbone) -> Backbone:
    """The network fed with its channels the other way round."""
    module: Any = copy.deepcopy(backbone.module)
    module.conv_stem.weight.data = module.conv_stem.weight.data.flip(1)
    return backbone.around(module)


def swapped(backbone: Backbone, **preprocess: Any) -> Backbone:
    return replace(backbone, preprocess=replace(backbone.preprocess, **preprocess))


@pytest.mark.parametrize(
    ("name", "weights", "floor"),
    [
        ("tf_efficientnet_lite1", "auto", 0.85),
        ("efficientnet_lite2", "auto", 0.85),
        ("mobilenetv2_100", "weights/mobilenet_v2-b0353104.pth", 0.80),  # torchvision's names: matched by order, shape
    ],
)
def test_real_weights_name_photographs(photographs: Table, shared: Path, name: str, weights: str, floor: float) -> None:
    backbone = open_backbone(name, "auto" if weights == "auto" else str(shared / weights))
    found = classify(photographs, backbone)
    assert right(found) >= floor
    assert right(found, 5) >= 0.95
    assert all(sum(p["probability"] for p in f["predictions"]) <= 1 + 1e-6 for f in found)


def test_the_default_network_names_photographs_and_wrong_preprocessing_is_seen(
    photographs: Table, answers: list[dict[str, Any]]
) -> None:
    """Channels in the wrong order, or another network's mean, cost points: so the right ones are in use."""
    backbone = open_backbone()
    assert backbone.name == "tf_efficientnet_lite0"
    assert right(answers) >= 0.85
    assert right(answers, 5) >= 0.95
    assert right(answers) - right(classify(photographs, blue_first(backbone))) >= 0.06
    caffe = swapped(backbone, mean=(0.485, 0.456, 0.406), std=(1 / 255,) * 3)
    assert right(answers) - right(classify(photographs, caffe)) >= 0.5


def test_names_are_those_of_keras() -> None:
    labels = own_labels(open_backbone("test_efficientnet", "none"))
    assert labels[386] == ("n02504458", "African_elephant")
    assert labels[0] == ("n01440764", "tench")
    assert len(labels) == 1000


def test_a_larger_label_set_has_its_own_names() -> None:
    import timm

    backbone = open_backbone("test_efficientnet", "none")
    module = timm.create_model("test_efficientnet", num_classes=21841)
    labels = own_labels(backbone.around(module))
    assert len(labels) == 21841
    assert all(wnid.startswith("n") and name for wnid, name in labels)
    module = timm.create_model("test_efficientnet", num_classes=7)
    with pytest.raises(BackboneError, match="7 classes that have no ImageNet names"):
        own_labels(backbone.around(module))


def test_random_weights_give_no_answer(photographs: Table) -> None:
    with pytest.raises(BackboneError, match="random weights: its answers would mean nothing"):
        classify(photographs, open_backbone("test_efficientnet", "none"))


def test_the_command(shared: Path, run: Run, tmp_path: Path) -> None:
    photograph = next((shared / "data" / "imagenet_100").glob("n01496331*"))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    said = run("classify", str(photograph), "--top", "3")
    assert "n01496331" in said.out
    assert "electric_ray" in said.out
    assert len(said.out.splitlines()) == 4
    found = json.loads(run("classify", str(photograph), str(tmp_path / "broken.jpg"), "--top", "2", "--json").out)
    assert [len(f["predictions"]) for f in found] == [2, 0]
    assert set(found[0]["predictions"][0]) == {"wnid", "name", "probability"}
    assert found[1]["error"]
