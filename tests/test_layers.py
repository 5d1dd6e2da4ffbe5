"""Layers by name: timm's, torch's and Keras's, each with the activation that it claims."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision

import curated
from headstart.errors import OptionError
from headstart.trunk.layers import LAST, find_layer, hooked, keras_names
from headstart.trunk.maker import backbone_of
from headstart.trunk.network import Backbone, possible_sizes, tap_at

# keras.applications 3.15 with its top: a sample of layers -> shape (height, width, channel), for inputs of `side` px.
# Every name of these networks but fc1, not only these, was compared with Keras once: none absent, no shape differs.
KERAS: dict[str, tuple[str, int, dict[str, tuple[int, ...]]]] = {
    "VGG16": (
        "vgg16",
        224,
        {
            "fc2": (4096,),
            "block1_pool": (112, 112, 64),
            "block2_conv2": (112, 112, 128),
            "block3_conv2": (56, 56, 256),
            "block3_pool": (28, 28, 256),
            "block4_conv3": (28, 28, 512),
            "block5_conv1": (14, 14, 512),
            "block5_pool": (7, 7, 512),
        },
    ),
    "VGG19": (
        "vgg19",
        224,
        {
            "fc2": (4096,),
            "block1_pool": (112, 112, 64),
            "block2_pool": (56, 56, 128),
            "block3_conv3": (56, 56, 256),
            "block4_conv1": (28, 28, 512),
            "block4_conv4": (28, 28, 512),
            "block5_conv2": (14, 14, 512),
            "block5_pool": (7, 7, 512),
        },
    ),
    "ResNet50": (
        "resnet50",
        224,
        {
            "conv1_bn": (112, 112, 64),
            "conv2_block2_2_relu": (56, 56, 64),
            "conv3_block2_out": (28, 28, 512),
            "conv3_block4_2_bn": (28, 28, 128),
            "conv4_block2_1_bn": (14, 14, 256),
            "conv4_block5_out": (14, 14, 1024),
            "conv5_block1_3_bn": (7, 7, 2048),
            "conv5_block3_1_relu": (7, 7, 512),
        },
    ),
    "ResNet101": (
        "resnet101",
        224,
        {
            "conv1_bn": (112, 112, 64),
            "conv3_block2_out": (28, 28, 512),
            "conv4_block3_out": (14, 14, 1024),
            "conv4_block7_1_bn": (14, 14, 256),
            "conv4_block12_2_relu": (14, 14, 256),
            "conv4_block17_3_bn": (14, 14, 1024),
            "conv4_block22_out": (14, 14, 1024),
            "conv5_block3_1_relu": (7, 7, 512),
        },
    ),
    "ResNet152": (
        "resnet152",
        224,
        {
            "conv1_bn": (112, 112, 64),
            "conv3_block4_2_relu": (28, 28, 128),
            "conv4_block3_1_relu": (14, 14, 256),
            "conv4_block11_out": (14, 14, 1024),
            "conv4_block18_3_bn": (14, 14, 1024),
            "conv4_block25_2_bn": (14, 14, 256),
            "conv4_block32_2_relu": (14, 14, 256),
            "conv5_block3_1_relu": (7, 7, 512),
        },
    ),
    "DenseNet121": (
        "densenet121",
        224,
        {
            "conv1_relu": (112, 112, 64),
            "conv3_block1_1_conv": (28, 28, 128),
            "conv3_block10_1_conv": (28, 28, 128),
            "conv4_block6_1_relu": (14, 14, 128),
            "conv4_block15_1_relu": (14, 14, 128),
            "conv4_block24_0_relu": (14, 14, 992),
            "conv5_block8_0_relu": (7, 7, 736),
            "conv5_block16_2_conv": (7, 7, 32),
        },
    ),
    "DenseNet169": (
        "densenet169",
        224,
        {
            "conv1_relu": (112, 112, 64),
            "conv3_block5_0_relu": (28, 28, 256),
            "conv4_block4_1_relu": (14, 14, 128),
            "conv4_block16_1_conv": (14, 14, 128),
            "conv4_block29_0_relu": (14, 14, 1152),
            "conv5_block8_1_relu": (7, 7, 128),
            "conv5_block20_1_conv": (7, 7, 128),
            "conv5_block32_2_conv": (7, 7, 32),
        },
    ),
    "DenseNet201": (
        "densenet201",
        224,
        {
            "conv1_relu": (112, 112, 64),
            "conv3_block7_1_relu": (28, 28, 128),
            "conv4_block9_0_relu": (14, 14, 512),
            "conv4_block23_1_conv": (14, 14, 128),
            "conv4_block38_0_relu": (14, 14, 1440),
            "conv5_block3_1_conv": (7, 7, 128),
            "conv5_block18_1_relu": (7, 7, 128),
            "conv5_block32_2_conv": (7, 7, 32),
        },
    ),
    "InceptionV3": (
        "inception_v3",
        299,
        {
            "mixed0": (35, 35, 256),
            "mixed2": (35, 35, 288),
            "mixed3": (17, 17, 768),
            "mixed5": (17, 17, 768),
            "mixed6": (17, 17, 768),
            "mixed8": (8, 8, 1280),
            "mixed9": (8, 8, 2048),
            "avg_pool": (2048,),
        },
    ),
    "InceptionResNetV2": (
        "inception_resnet_v2",
        299,
        {
            "mixed_5b": (35, 35, 320),
            "block35_3_ac": (35, 35, 320),
            "block35_9_ac": (35, 35, 320),
            "block17_5_ac": (17, 17, 1088),
            "block17_12_ac": (17, 17, 1088),
            "block17_18_ac": (17, 17, 1088),
            "block8_4_ac": (8, 8, 2080),
            "avg_pool": (1536,),
        },
    ),
    "Xception": (
        "legacy_xception",
        299,
        {
            "block1_conv1_act": (149, 149, 32),
            "add": (74, 74, 128),
            "add_2": (19, 19, 728),
            "add_4": (19, 19, 728),
            "add_6": (19, 19, 728),
            "add_8": (19, 19, 728),
            "add_11": (10, 10, 1024),
            "block14_sepconv2_act": (10, 10, 2048),
        },
    ),
    "MobileNet": (
        "mobilenetv1_100",
        224,
        {
            "conv1_relu": (112, 112, 32),
            "conv_pw_2_relu": (56, 56, 128),
            "conv_dw_4_relu": (28, 28, 128),
            "conv_dw_6_relu": (14, 14, 256),
            "conv_dw_8_relu": (14, 14, 512),
            "conv_dw_10_relu": (14, 14, 512),
            "conv_pw_11_relu": (14, 14, 512),
            "conv_pw_13_relu": (7, 7, 1024),
        },
    ),
    "MobileNetV2": (
        "mobilenetv2_100",
        224,
        {
            "Conv1_relu": (112, 112, 32),
            "block_2_project_BN": (56, 56, 24),
            "block_4_add": (28, 28, 32),
            "block_7_depthwise_relu": (14, 14, 384),
            "block_9_project_BN": (14, 14, 64),
            "block_12_expand_relu": (14, 14, 576),
            "block_14_depthwise_relu": (7, 7, 960),
            "block_16_project_BN": (7, 7, 320),
        },
    ),
    "MobileNetV3Small": (
        "mobilenetv3_small_100",
        224,
        {
            "expanded_conv_project_bn": (56, 56, 16),
            "expanded_conv_2_add": (28, 28, 24),
            "expanded_conv_4_project_bn": (14, 14, 40),
            "expanded_conv_5_add": (14, 14, 40),
            "expanded_conv_6_squeeze_excite_mul": (14, 14, 120),
            "expanded_conv_8_project_bn": (7, 7, 96),
            "expanded_conv_9_add": (7, 7, 96),
            "expanded_conv_10_squeeze_excite_mul": (7, 7, 576),
        },
    ),
    "MobileNetV3Large": (
        "mobilenetv3_large_100",
        224,
        {
            "expanded_conv_project_bn": (112, 112, 16),
            "expanded_conv_3_project_bn": (28, 28, 40),
            "expanded_conv_4_squeeze_excite_mul": (28, 28, 120),
            "expanded_conv_7_project_bn": (14, 14, 80),
            "expanded_conv_9_project_bn": (14, 14, 80),
            "expanded_conv_11_add": (14, 14, 112),
            "expanded_conv_13_project_bn": (7, 7, 160),
            "expanded_conv_14_squeeze_excite_mul": (7, 7, 960),
        },
    ),
    "EfficientNetB0": (
        "efficientnet_b0",
        224,
        {
            "stem_activation": (112, 112, 32),
            "block2b_activation": (56, 56, 144),
            "block3b_add": (28, 28, 40),
            "block4b_project_bn": (14, 14, 80),
            "block5b_expand_activation": (14, 14, 672),
            "block6a_activation": (7, 7, 672),
            "block6c_add": (7, 7, 192),
            "block7a_project_bn": (7, 7, 320),
        },
    ),
    "EfficientNetB3": (
        "efficientnet_b3",
        300,
        {
            "stem_activation": (150, 150, 40),
            "block2b_project_bn": (75, 75, 32),
            "block3c_add": (38, 38, 48),
            "block4d_activation": (19, 19, 576),
            "block5b_project_bn": (19, 19, 136),
            "block6a_se_excite": (10, 10, 816),
            "block6e_expand_activation": (10, 10, 1392),
            "block7b_project_bn": (10, 10, 384),
        },
    ),
    "EfficientNetV2S": (
        "tf_efficientnetv2_s",
        384,
        {
            "stem_activation": (192, 192, 24),
            "block3c_project_bn": (48, 48, 64),
            "block4e_add": (24, 24, 128),
            "block5d_se_excite": (24, 24, 960),
            "block5i_se_excite": (24, 24, 960),
            "block6e_project_bn": (12, 12, 256),
            "block6j_project_bn": (12, 12, 256),
            "block6o_project_bn": (12, 12, 256),
        },
    ),
    "NASNetLarge": (
        "nasnetalarge",
        331,
        {
            "reduction_concat_stem_1": (83, 83, 168),
            "reduction_concat_reduce_12": (11, 11, 2688),
            "normal_concat_2": (42, 42, 1008),
            "normal_concat_5": (42, 42, 1008),
            "normal_concat_9": (21, 21, 2016),
            "normal_concat_12": (21, 21, 2016),
            "normal_concat_15": (11, 11, 4032),
            "normal_concat_18": (11, 11, 4032),
        },
    ),
}


@pytest.mark.parametrize("name", KERAS)
def test_keras_names_have_the_shapes_that_keras_says(name: str) -> None:
    architecture, side, expected = KERAS[name]
    network = curated.bare(architecture)
    found: dict[str, tuple[int, ...]] = {}
    modules = {layer: find_layer(network, layer, ()) for layer in expected}
    hooks = [
        (module, lambda m, inputs, output, layer=layer: found.update({layer: tuple(output.shape[1:])}))
        for layer, module in modules.items()
    ]
    with torch.inference_mode(), hooked(network, hooks):
        features = network.forward_features(torch.zeros(1, 3, side, side, device="meta"))
        last = network.forward_head(features, pre_logits=True)
        network.forward_head(features)
    found |= {layer: tuple(last.shape[1:]) for layer, module in modules.items() if module == LAST}
    channels_last = {k: (*v[1:], v[0]) if v[1:] != (1, 1) or len(expected[k]) == 3 else v[:1] for k, v in found.items()}
    assert channels_last == expected


def test_networks_that_keras_does_not_have_get_none_of_its_names() -> None:
    for name in ("mobilenetv4_conv_small", "lcnet_100", "convnext_nano", "regnety_032"):
        assert keras_names(curated.bare(name)) == {}


@pytest.fixture(scope="module")
def vgg() -> tuple[Backbone, Any]:
    """timm's VGG16 for 32 px, and torchvision's own convolutions with the same weights."""
    ours = curated.backbone("vgg16")
    ours = replace(ours, preprocess=replace(ours.preprocess, crop_fraction=1.0))  # pixels as they are
    with torch.device("meta"):
        theirs: Any = torchvision.models.vgg16(weights=None).features.eval()
    theirs = theirs.to_empty(device="cpu")
    theirs.load_state_dict(ours.module.features.state_dict())  # type: ignore[union-attr,operator]
    return ours, theirs


@pytest.mark.parametrize(
    ("layer", "until"), [("block5_pool", 31), ("BLOCK5_POOL", 31), ("block1_conv1", 2), ("block3_conv2", 14)]
)
def test_a_layer_of_vgg16_is_torchs_own_bit_for_bit(vgg: tuple[Backbone, Any], layer: str, until: int) -> None:
    backbone, theirs = vgg
    pixels = curated.pictures(3, (32, 32))
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (backbone.preprocess.mean, backbone.preprocess.std))
    with torch.inference_mode():
        expected = theirs[:until]((torch.from_numpy(pixels).movedim(-1, 1) - mean) / std).numpy()
    found = backbone.features(list(pixels), layer=layer, pooling="none")
    assert expected.max() > 0.01
    assert expected.min() == 0.0  # after the ReLU
    assert np.array_equal(found.values, expected)


def test_poolings_are_those_of_the_map(vgg: tuple[Backbone, Any]) -> None:
    backbone, _ = vgg
    pixels = list(curated.pictures(2, (32, 32)))
    whole = backbone.features(pixels, "block3_pool", "none").values
    assert whole.shape == (2, 256, 4, 4)
    assert np.array_equal(backbone.features(pixels, "block3_pool", "flatten").values, whole.reshape(2, -1))
    assert np.array_equal(backbone.features(pixels, "block3_pool", "max").values, whole.max((2, 3)))
    average = backbone.features(pixels, "block3_pool", "avg").values
    assert np.allclose(average, whole.astype(np.float64).mean((2, 3)), rtol=1e-5, atol=1e-7)


def test_an_unknown_layer_or_pooling_gets_the_nearest(vgg: tuple[Backbone, Any]) -> None:
    with pytest.raises(OptionError, match="block5_pool") as error:
        tap_at(vgg[0], "block5_pol")
    assert "\n" not in str(error.value)
    with pytest.raises(OptionError, match="avg, max, token, none, flatten"):
        tap_at(vgg[0], "block5_pool", "sum")


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "inception_v3"])
def test_the_smallest_side_that_is_said_is_the_smallest(name: str) -> None:
    network = curated.network_of(name)  # at its native size
    least = int(possible_sizes(backbone_of(network, name, "a test"), 1).split()[2])

    def runs(side: int) -> bool:
        try:
            with torch.inference_mode():
                network(torch.zeros(1, 3, side, side))
        except RuntimeError:
            return False
        return True

    assert runs(least)
    assert not runs(least - 1)


def test_a_network_with_its_size_built_in_says_so() -> None:
    network = timm.create_model("swin_tiny_patch4_window7_224")
    assert possible_sizes(backbone_of(network, "swin_tiny_patch4_window7_224", "a test"), 96) == "it takes 224 px only"
