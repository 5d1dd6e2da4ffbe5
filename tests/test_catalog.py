"""The curated networks, the names that find them, and what `headstart backbones` says of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
import torch

from headstart.errors import BackboneError, OptionError, OutputError
from headstart.story import backbones
from headstart.trunk import catalog, weights
from headstart.trunk.backbone import open_backbone, resolve
from headstart.trunk.store import cache_root

KERAS = {
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "InceptionV3": "inception_v3",
    "InceptionResNetV2": "inception_resnet_v2",
    "Xception": "legacy_xception",
    "DenseNet121": "densenet121",
    "DenseNet169": "densenet169",
    "DenseNet201": "densenet201",
    "MobileNet": "mobilenetv1_100",
    "MobileNetV2": "mobilenetv2_100",
    "MobileNetV3Small": "mobilenetv3_small_100",
    "MobileNetV3Large": "mobilenetv3_large_100",
    "NASNetLarge": "nasnetalarge",
    "EfficientNetB0": "efficientnet_b0",
    "EfficientNetB4": "efficientnet_b4",
    "EfficientNetB7": "tf_efficientnet_b7",
    "EfficientNetV2S": "tf_efficientnetv2_s",
    "EfficientNetV2B3": "tf_efficientnetv2_b3",
    "ConvNeXtTiny": "convnext_tiny",
    "ConvNeXtXLarge": "convnext_xlarge",
}
TORCHVISION = {
    "resnet18": "resnet18",
    "inception_v3": "inception_v3",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "efficientnet_b0": "efficientnet_b0",
    "mnasnet1_0": "mnasnet_100",
    "regnet_y_3_2gf": "regnety_032",
    "vit_b_16": "vit_base_patch16_224",
    "swin_t": "swin_tiny_patch4_window7_224",
}


@pytest.mark.parametrize(("name", "expected"), [*KERAS.items(), *TORCHVISION.items()])
def test_keras_and_torchvision_names_in_any_case_with_or_without_a_tag(name: str, expected: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert resolve(spelling) == expected
        assert resolve(f"{spelling}.my_tag") == f"{expected}.my_tag"


def test_every_alias_is_a_network_with_published_weights() -> None:
    for alias, network in catalog.aliases().items():
        assert resolve(alias) == network
        assert catalog.published(network).network.startswith(network)


def test_every_name_of_timm_means_itself_but_where_the_default_weights_are_a_package() -> None:
    """An alias alone can turn a name into another: all that look like one, and some of the rest."""
    alike = [name for name in timm.list_models() if catalog.squeezed(name) in catalog.aliases()]
    assert len(alike) > 30
    others = {name: found for name in [*alike, *timm.list_models()[::20]] if (found := resolve(name)) != name}
    assert others == {f"efficientnet_lite{k}": f"tf_efficientnet_lite{k}" for k in range(5)}


def test_a_name_of_the_catalog_opens_weights_of_its_own() -> None:
    first: dict[str, str] = {}
    for entry in catalog.entries():
        first.setdefault(entry.name, entry.network)
    for name, network in first.items():
        assert catalog.published(resolve(name)).network == network


@pytest.mark.parametrize("name", ["ResNet50V2", "NASNetMobile", "VGG17", ""])
def test_a_network_that_timm_has_not_is_unknown_and_the_nearest_are_named(name: str) -> None:
    with pytest.raises(BackboneError, match="unknown backbone"):
        resolve(name)


def test_the_table_agrees_with_timm() -> None:
    assert len(catalog.entries()) > 40
    assert len({entry.network for entry in catalog.entries()}) == len(catalog.entries())
    for entry in catalog.entries():
        about = catalog.published(entry.network)
        assert entry.input_size == about.input_size
        assert entry.licence == about.licence
        assert entry.fixed_size == (about.fixed_size is not None)
        assert entry.non_commercial == catalog.non_commercial(entry.licence)


@pytest.mark.parametrize("name", ["ResNet18", "MobileNetV2", "ViTTiny"])  # depths of all: tests/test_networks.py
def test_depth_and_parameters_are_those_of_the_network(name: str) -> None:
    entry = next(entry for entry in catalog.entries() if entry.name == name)
    assert backbones.count_depth(entry.network) == entry.depth
    own = sum(p.numel() for p in open_backbone(entry.network, "none").module.parameters())
    assert abs(own / 1e6 - entry.parameters_millions) < 0.006


def test_depth_is_what_the_papers_count() -> None:
    depths = {entry.name: entry.depth for entry in catalog.entries()}
    for name in ("VGG16", "VGG19", "ResNet18", "ResNet34", "ResNet101", "ResNet152", "DenseNet169", "DenseNet201"):
        assert depths[name] == int("".join(c for c in name if c.isdigit()))


@pytest.mark.parametrize("search", [None, "", "resnet", "vit", "siglip"])
def test_the_listing_fits_the_terminal_and_its_names_can_be_given_back(search: str | None) -> None:
    records = backbones.listing(search)
    lines = backbones.lines(records)
    assert max(map(len, lines)) <= 120
    heading, *rows = lines[: len(records) + 1]
    start = heading.index("network")
    assert [row[start:].split()[0] for row in rows] == [r["network"] for r in records]
    assert all(set(r) == set(backbones.COLUMNS) for r in records)
    json.dumps(records)


def test_the_first_page_shows_every_column() -> None:
    assert backbones.lines(backbones.listing())[0].split() == list(backbones.SHOWN)


def test_a_search_finds_every_network_with_weights_by_any_spelling() -> None:
    assert {r["network"] for r in backbones.listing("")} == set(timm.list_pretrained())
    found = {r["network"] for r in backbones.listing("ResNet50")}
    assert {n for n in timm.list_pretrained() if "resnet50" in n} <= found
    assert backbones.listing("MobileNet_V2")[0]["network"] == "mobilenetv2_100.ra_in1k"
    with pytest.raises(BackboneError, match="'no such network' in its name"):
        backbones.listing("no such network")


def test_sorting_puts_the_best_first_and_the_unknown_last() -> None:
    top1 = [r["top1"] for r in backbones.listing(sort="top1")]
    numbers = [x for x in top1 if x is not None]
    assert numbers == sorted(numbers, reverse=True)
    assert top1 == numbers + [None] * (len(top1) - len(numbers))
    sizes = [r["parameters_millions"] for r in backbones.listing(sort="parameters_millions")]
    assert sizes == sorted(sizes)
    with pytest.raises(OptionError, match="top1"):
        backbones.listing(sort="top-1")


def test_what_is_said_before_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(network: str, size: int = 1000) -> str:
        return " ".join(catalog.notices(catalog.published(network), size))

    assert said("resnet18") == ""
    assert "forbids commercial use" in said("convnextv2_atto")
    assert "forbids commercial use" in said("convnext_tiny.eupe_lvd1689m")
    assert "read its terms" in said("vit_small_patch16_dinov3")
    assert "224 x 224 pixels only" in said("swin_tiny_patch4_window7_224")
    assert said("vit_base_patch16_224") == ""
    monkeypatch.setattr(catalog, "available_memory", lambda: catalog.START + 4000)
    assert said("resnet18", 1000) == ""
    assert "memory" in said("resnet18", 1001)
    monkeypatch.setattr(catalog, "available_memory", lambda: None)
    assert said("resnet18", 10**15) == ""
    gated = replace(catalog.entries()[0], gated=True)
    monkeypatch.setattr(catalog, "entries", lambda: (gated,))
    assert "accepted its terms" in said(gated.network)


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def carried(file: Path, network: str = "test_efficientnet.r160_in1k", **changes: object) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state: dict[str, torch.Tensor] = timm.create_model("test_efficientnet").state_dict()
    steps = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.5}
    steps |= {"interpolation": "bilinear", "crop_mode": "center"}
    weights.write_carried(file, state, weights.Carried(network, "hub", "mit", steps))
    return state


def test_weights_carried_to_a_machine_open_there_with_their_own_preprocessing(tmp_path: Path, brought: Path) -> None:
    state = carried(tmp_path / "a.safetensors")
    with pytest.raises(BackboneError):
        open_backbone("test_efficientnet")
    record = backbones.import_weights(tmp_path / "a.safetensors")
    assert Path(record["path"]).parent == brought == cache_root() / "weights"
    for name in ("test_efficientnet", "test_efficientnet.r160_in1k"):
        backbone = open_backbone(name)
        own = backbone.module.state_dict()
        assert all(torch.equal(own[k], state[k]) for k in state)
        assert backbone.preprocess.mean == (0.1, 0.2, 0.3)
        assert backbone.preprocess.std == (0.4, 0.5, 0.6)
        assert backbone.preprocess.size == (96, 96)
        assert backbone.preprocess.crop_fraction == 0.5
        assert backbone.preprocess.interpolation == "bilinear"
    assert "test_efficientnet.r160_in1k" in weights.at_hand()
    assert next(r for r in backbones.listing("test_efficientnet.") if r["here"])["here"] == "file"
    again = backbones.export_weights("test_efficientnet", tmp_path / "b.safetensors")
    assert again["network"] == "test_efficientnet.r160_in1k"
    assert asdict(weights.read_carried(tmp_path / "b.safetensors")[1])["preprocess"]["mean"] == [0.1, 0.2, 0.3]
    said: list[str] = []
    assert backbones.download("test_efficientnet", said.append)["fetched"] is False


def test_the_packages_weights_carry_their_own_scaling(tmp_path: Path, brought: Path) -> None:
    backbones.export_weights("EfficientNetLite0", tmp_path / "lite0.safetensors")
    backbones.import_weights(tmp_path / "lite0.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        there = open_backbone()
        patch.setattr(weights, "PACKAGES", {})  # as on a machine without the package
        here = open_backbone("tf_efficientnet_lite0")
    assert here.weights_source != there.weights_source
    assert here.weights_hash == there.weights_hash
    assert here.preprocess == there.preprocess


def test_what_was_not_exported_or_is_damaged_is_not_imported(tmp_path: Path, brought: Path) -> None:
    file = tmp_path / "a.safetensors"
    state = carried(file)
    data = bytearray(file.read_bytes())
    data[-5] ^= 64
    (tmp_path / "bit.safetensors").write_bytes(data)
    name = bytes(file.read_bytes()).replace(b"0.1, 0.2", b"0.1, 0.7")
    (tmp_path / "mean.safetensors").write_bytes(name)
    (tmp_path / "cut.safetensors").write_bytes(data[:-100])
    (tmp_path / "text.safetensors").write_bytes(b"text")
    torch.save(state, tmp_path / "plain.pth")
    carried(tmp_path / "out.safetensors", "../../out")
    carried(tmp_path / "dots.safetensors", "test_efficientnet.../x")
    carried(tmp_path / "unknown.safetensors", "no_such_network")
    for path in [p for p in tmp_path.iterdir() if p.is_file() and p != file] + [tmp_path / "none", tmp_path]:
        with pytest.raises(BackboneError) as error:
            backbones.import_weights(path)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("cache/**/*.safetensors"))
    backbones.import_weights(file)
    [put] = brought.iterdir()
    put.write_bytes(data)  # damaged after it was put there
    with pytest.raises(BackboneError, match="damaged"):
        open_backbone("test_efficientnet")


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\.safetensors"):
        backbones.export_weights("vgg16", tmp_path / "a.pth")
    with pytest.raises(OutputError, match="does not exist"):
        backbones.export_weights("vgg16", tmp_path / "none" / "a.safetensors")
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        backbones.export_weights("efficientnet_lite0", tmp_path / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
