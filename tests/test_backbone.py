"""A frozen network, its taps and its preprocessing: what it says of an image is its own, whatever surrounds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from timm.data.imagenet_info import ImageNetInfo

import curated
from headstart.data import images
from headstart.errors import BackboneError
from headstart.trunk import weights as weight_files
from headstart.trunk.backbone import (
    DEFAULT,
    _weights_of,
    from_tensors,
    open_backbone,
    resolve,
    timm_config,
    timm_tensors,
)
from headstart.trunk.engine import OpenVinoEngine
from headstart.trunk.maker import backbone_of
from headstart.trunk.module import Trunk
from headstart.trunk.network import Backbone, block_names, block_widths

Bytes = npt.NDArray[np.uint8]
SMALL = "test_efficientnet"


def at(backbone: Backbone, side: int) -> Backbone:
    return backbone.resized(replace(backbone.preprocess, size=(side, side)))


def noise(n: int, size: tuple[int, int], seed: int = 0) -> Bytes:
    """Pixels (image, height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), np.uint8)


def through(backbone: Backbone, pixels: Bytes) -> list[torch.Tensor]:
    with torch.inference_mode():
        return list(Trunk(backbone)(torch.from_numpy(pixels)))


@pytest.fixture(scope="module")
def small() -> Backbone:
    return at(open_backbone(SMALL, "none"), 64)


@pytest.fixture(scope="module")
def default() -> Backbone:
    return open_backbone()


def check_against_a_plain_forward_pass(backbone: Backbone) -> None:
    """Blocks against hooks of our own, pooled by numpy in float64."""
    pixels = noise(2, backbone.preprocess.size)
    mean, std = (np.array(v, np.float32) for v in (backbone.preprocess.mean, backbone.preprocess.std))
    x = torch.from_numpy(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).copy())
    network: Any = backbone.module
    kept: dict[str, npt.NDArray[np.float64]] = {}
    hooks = []
    for tap in backbone.taps:

        def keep(module: object, inputs: object, output: torch.Tensor, name: str = tap.name) -> None:
            kept[name] = output.double().numpy().copy()

        hooks.append(network.get_submodule(tap.name).register_forward_hook(keep))
    with torch.inference_mode():
        features = network.forward_features(x)
        pooled = backbone.last_is_pooled
        last = features.mean((2, 3)) if pooled else network.forward_head(features, pre_logits=True)
    for hook in hooks:
        hook.remove()
    expected = []
    for tap in backbone.taps:
        activation = kept[tap.name]
        positions = tuple(a for a in range(1, activation.ndim) if a != tap.channel_axis % activation.ndim)
        expected += [activation.mean(positions), activation.std(positions)]
    blocks = through(backbone, pixels)
    assert tuple(b.shape[1] for b in blocks) == block_widths(backbone)
    assert len(blocks) == len(block_names(backbone))
    for ours, theirs in zip(blocks, [*expected, last.double().numpy()], strict=True):
        assert np.abs(ours.numpy() - theirs).max() <= 2e-5 * max(np.abs(theirs).max(), 1e-3)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("resnet18", [64, 64, 128, 256, 512]),
        ("mobilenetv3_small_100", [16, 24, 40, 48, 96, 576]),
        ("convnext_atto", [40, 80, 160, 320]),
        ("densenet121", [64, 256, 512, 1024, 1024]),
        ("resnetv2_18", [64, 64, 128, 256, 512]),
    ],
)
def test_taps_are_the_stages_of_a_plain_forward_pass(name: str, widths: list[int]) -> None:
    backbone = at(open_backbone(name, "none"), 64)
    assert [tap.channels for tap in backbone.taps] == widths
    check_against_a_plain_forward_pass(backbone)


def test_a_network_with_a_size_built_in_keeps_it() -> None:
    name, widths = "swin_tiny_patch4_window7_224", [96, 192, 384, 768]
    backbone = open_backbone(name, "none")
    wanted = replace(backbone.preprocess, size=(96, 96), crop_fraction=1.0)
    backbone = backbone.resized(wanted)
    assert backbone.preprocess == replace(wanted, size=(224, 224))
    assert [tap.channels for tap in backbone.taps] == widths
    check_against_a_plain_forward_pass(backbone)


def test_a_network_keeps_its_size_where_its_layers_leave_nothing_of_a_small_one() -> None:
    backbone = open_backbone("inception_v3", "none")
    assert at(backbone, 32).preprocess.size == (299, 299)
    small = at(backbone, 96)
    assert small.preprocess.size == (96, 96)
    assert [tap.channels for tap in small.taps] == [64, 192, 288, 768, 2048]
    check_against_a_plain_forward_pass(small)


@pytest.mark.parametrize(
    "name", ["hrnet_w18_small", "coat_lite_tiny", "crossvit_9_240", "deit_tiny_distilled_patch16_224"]
)
def test_networks_without_stages_with_several_maps_or_two_tops_still_give_their_last_layer(name: str) -> None:
    backbone = open_backbone(name, "none")
    blocks = through(backbone, noise(1, backbone.preprocess.size))
    assert tuple(b.shape[1] for b in blocks) == block_widths(backbone)
    assert torch.isfinite(blocks[-1]).all()


def test_vgg_at_32_px_drops_its_fully_connected_top() -> None:
    backbone = curated.backbone("vgg16")
    check_against_a_plain_forward_pass(backbone)
    assert backbone.preprocess.size == (32, 32)
    assert backbone.last_is_pooled
    assert backbone.last_channels == 512
    assert backbone.n_parameters == 14_714_688  # Keras' count for VGG16(include_top=False)
    assert not [
        name for name in timm_tensors(backbone, np.zeros((2, 512), np.float32), np.zeros(2, np.float32)) if "fc" in name
    ]


def test_seed_zero_is_a_seed_and_torchs_own_numbers_go_on(small: Backbone) -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    hashes = [open_backbone(SMALL, "none", seed).weights_hash for seed in (0, 1, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    assert hashes[0] == hashes[2] == small.weights_hash
    assert hashes[1] == hashes[3] != hashes[0]
    torch.manual_seed(99)
    assert open_backbone(SMALL, "none", 0).weights_hash == hashes[0]


def test_a_trunk_is_frozen_and_leaves_the_network_as_it_was(default: Backbone) -> None:
    backbone = at(default, 64)
    before = {name: t.clone() for name, t in backbone.module.state_dict().items()}
    for seed in range(3):
        through(backbone, noise(4, (64, 64), seed))
    after = backbone.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(m.training for m in backbone.module.modules())
    assert not any(p.requires_grad for p in backbone.module.parameters())
    assert not any(m._forward_hooks for m in backbone.module.modules())


def test_a_network_in_training_mode_is_frozen_when_it_is_opened() -> None:
    network = timm.create_model(SMALL).train()
    backbone = backbone_of(network, SMALL, "a test")
    assert not any(m.training for m in backbone.module.modules())
    first, again = (through(backbone, noise(4, backbone.preprocess.size)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", [SMALL, "resnet18"])
def test_a_batch_of_one_equals_a_batch_of_eight(name: str) -> None:
    backbone = at(open_backbone(name, "none"), 64)
    pixels = noise(8, (64, 64))
    together = through(backbone, pixels)
    for row in range(8):
        for one, all_ in zip(through(backbone, pixels[row : row + 1]), together, strict=True):
            assert float((one[0] - all_[row]).abs().max()) <= 1e-5 * float(all_[row].abs().max())


def test_names_are_found_in_any_case_and_unknown_ones_get_the_nearest() -> None:
    assert resolve("ResNet18") == "resnet18"
    assert resolve("VGG16.TV_in1k") == "vgg16.tv_in1k"
    assert resolve("efficientnet_lite0") == DEFAULT
    assert resolve("Xception") == "legacy_xception"
    for wrong, near in (
        ("resnet81", "resnet18"),
        ("InceptionV9", "inceptionv3"),
        ("efficientnet-litex", "efficientnetlite"),
    ):
        with pytest.raises(BackboneError, match=near) as error:
            open_backbone(wrong, "none")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", weight_files.installed())
def test_every_name_of_a_network_whose_weights_are_here_finds_them(network: str) -> None:
    """As timm writes it, as others do, with the tag of these weights, and as the hub calls it."""
    bare = network.removeprefix("tf_")
    names = {
        f"{start}{one}{tag}"
        for start in ("", "timm/", "hf-hub:timm/")
        for one in (network, bare)
        for tag in ("", ".in1k")
    }
    for name in names | {name.upper() for name in names}:
        full = resolve(name)
        assert full == network, name
        assert _weights_of(full, "auto", said_nothing).kind == "package"
    assert resolve("timm/resnet18.a1_in1k") == "resnet18.a1_in1k"


def said_nothing(line: str) -> None:
    raise AssertionError(line)


def test_a_saved_trunk_comes_back_bit_for_bit(small: Backbone) -> None:
    tensors = timm_tensors(small, np.zeros((1000, small.last_channels), np.float32), np.zeros(1000, np.float32))
    trunk = {k: v for k, v in tensors.items() if not k.startswith(f"{small.classifier}.")}
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    again = from_tensors(small.name, trunk, small.preprocess, small.weights_source, small.licence)
    assert torch.equal(torch.rand(2), expected)
    assert again.weights_hash == small.weights_hash
    pixels = noise(2, (64, 64))
    assert all(torch.equal(a, b) for a, b in zip(through(small, pixels), through(again, pixels), strict=True))
    for broken in ({k: trunk[k] for k in list(trunk)[1:]}, {**trunk, "more": np.zeros(1)}):
        with pytest.raises(BackboneError, match="do not fit"):
            from_tensors(small.name, broken, small.preprocess, "", "")


def test_timms_configuration_says_the_preprocessing(small: Backbone) -> None:
    config = timm_config(small, 2, ["a", "b"])["pretrained_cfg"]
    assert config["input_size"] == [3, 64, 64]
    assert tuple(config["mean"]) == small.preprocess.mean


def answers(
    backbone: Backbone, engine: OpenVinoEngine, pixels: Bytes, truth: npt.NDArray[np.intp]
) -> tuple[float, float]:
    """(top-1 accuracy, log-loss) of the network's own ImageNet classifier. `engine`: the backbone's, 4 images a run."""
    rows = np.empty((len(pixels), backbone.last_channels), np.float32)

    def deliver(start: int, blocks: npt.NDArray[np.float32]) -> None:
        rows[start : start + 4] = blocks[:, -backbone.last_channels :]

    engine.run(((k, pixels[k : k + 4]) for k in range(0, len(pixels), 4)), deliver)
    with torch.inference_mode():
        scores = backbone.module.get_submodule(backbone.classifier)(torch.from_numpy(rows)).log_softmax(1).numpy()
    return float((scores.argmax(1) == truth).mean()), float(-scores[np.arange(len(truth)), truth].mean())


def test_the_default_weights_know_imagenet_with_their_own_preprocessing(shared: Path, default: Backbone) -> None:
    """About 0.9 on training photographs; another channel order or scale is worse, so these are the right ones."""
    files = sorted((shared / "data" / "imagenet_100").glob("*.JPEG"))
    known: Any = ImageNetInfo()
    number = {wnid: k for k, wnid in enumerate(known.label_names())}
    truth = np.array([number[f.name.split("_")[0]] for f in files])
    pixels = np.stack([images.load(f.read_bytes(), default.preprocess).array for f in files])
    assert default.preprocess.size == (224, 224)
    backbone = replace(default, taps=())  # only the last layer is read
    engine = OpenVinoEngine(backbone, "f32", batch=4)
    accuracy, loss = answers(backbone, engine, pixels, truth)
    assert accuracy >= 0.88
    swapped = answers(backbone, engine, np.ascontiguousarray(pixels[..., ::-1]), truth)
    unscaled = replace(backbone, preprocess=replace(backbone.preprocess, mean=(0.0,) * 3, std=(1.0,) * 3))
    unscaled_found = answers(unscaled, OpenVinoEngine(unscaled, "f32", batch=4), pixels, truth)
    for found in (swapped, unscaled_found):
        assert found[0] <= accuracy - 0.03
        assert found[1] >= loss + 0.1
