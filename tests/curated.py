"""The convolutional networks that headstart curates, with random weights, as small and as quick to make as they can be.

Drawing the first weights the way timm does takes longer than every law together (VGG16: 138 million numbers), so a
network is made without memory first and then filled from one block of noise. The scales keep activations alive.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from headstart.trunk.maker import backbone_of
from headstart.trunk.network import RANDOM, Backbone

# timm's architecture -> px, the smallest side that it takes (of multiples of 32, and 75, the paper's, for Inception)
SIDES = {
    "vgg16": 32,
    "vgg19": 32,
    "resnet18": 32,
    "resnet34": 32,
    "resnet50": 32,
    "resnet101": 32,
    "resnet152": 32,
    "inception_v3": 75,
    "inception_resnet_v2": 75,
    "legacy_xception": 32,
    "densenet121": 32,
    "densenet169": 32,
    "densenet201": 32,
    "mobilenetv1_100": 32,
    "mobilenetv2_100": 32,
    "mobilenetv3_small_100": 32,
    "tf_mobilenetv3_small_100": 32,
    "mobilenetv3_large_100": 32,
    "mobilenetv4_conv_small": 32,
    "mobilenetv4_conv_medium": 32,
    "nasnetalarge": 32,
    "tf_efficientnet_lite0": 32,
    "tf_efficientnet_lite1": 32,
    "tf_efficientnet_lite2": 32,
    "efficientnet_b0": 32,
    "efficientnet_b3": 32,
    "tf_efficientnetv2_s": 32,
    "regnety_032": 32,
    "convnextv2_atto": 32,
    "convnext_nano": 32,
    "convnext_tiny": 32,
    "convnext_small": 32,
    "convnext_base": 32,
    "lcnet_100": 32,
}


def pictures(n: int, size: tuple[int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    """Pixels (image, height, width, 3): noise on coarse blobs, so that images differ after pooling too."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.integers(0, 256, (n, 4, 4, 3)).repeat(-(-height // 4), 1).repeat(-(-width // 4), 2)
    fine = rng.integers(-40, 41, (n, height, width, 3))
    return np.clip(coarse[:, :height, :width] + fine, 0, 255).astype(np.uint8)


@cache
def _noise() -> torch.Tensor:
    """A prime number of draws, so that no row of filters repeats another."""
    return torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))


def bare(architecture: str) -> Any:
    """A timm network without memory: it computes shapes, no numbers."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # timm warns of names that it has changed since
        # VGG's hidden layers, 120 of its 138 million parameters, four times narrower: no law depends on their width
        narrow = {"mlp_ratio": 0.25} if architecture.startswith("vgg") else {}
        return timm.create_model(architecture, pretrained=False, **narrow).eval()


def network_of(architecture: str) -> Any:
    """A timm network with random weights in evaluation mode: the same ones on every call.

    Each BatchNorm divides by the size of what `pictures` brings it: else the activations of a deep network die or grow
    without end, and no comparison of them means anything. One number a layer: to divide each channel by its own would
    make a network in which rounding errors grow from layer to layer.
    """
    network, side = bare(architecture).to_empty(device="cpu"), SIDES[architecture]
    start = 0
    with torch.inference_mode():
        for place, module in network.named_modules():
            last = place.endswith("bn3")
            for name, p in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                start = _fill(p, *_scale(name, p, last), start)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        hooks = [norm.register_forward_pre_hook(_sized) for norm in norms]
        network(torch.from_numpy(pictures(8, (side, side))).movedim(-1, 1) / 64 - 2)
        for hook in hooks:
            hook.remove()
    return network


def _sized(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    norm.running_var.mul_(inputs[0].square().mean())  # type: ignore[operator,union-attr]


def backbone(architecture: str) -> Backbone:
    """`network_of` as a Backbone for the smallest input that it takes."""
    network, side = network_of(architecture), SIDES[architecture]
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, side, side)}
    return backbone_of(network, architecture, RANDOM)


# (timm's architecture, classes of its own): DINO's have none, and the third one's positions are turned (RoPE)
TRANSFORMERS = [("vit_tiny_patch16_224", 10), ("vit_tiny_patch16_224", 0), ("vit_small_patch16_dinov3", 0)]


def transformer(architecture: str, classes: int) -> Backbone:
    """A vision transformer of three narrow blocks for 32 px."""
    narrow = {"img_size": 32, "depth": 3, "embed_dim": 48, "num_heads": 3}
    network = timm.create_model(architecture, num_classes=classes, **narrow).eval()
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, 32, 32), "num_classes": classes}
    return backbone_of(network, architecture, RANDOM)


def _scale(name: str, p: torch.Tensor, last: bool) -> tuple[float, float]:
    """(mean, standard deviation) of a parameter or buffer."""
    if name == "running_var" or (name == "weight" and p.ndim == 1):
        return (0.3 if last and name == "weight" else 1.0), 0.05
    if p.ndim > 1 and name == "weight":
        return 0.0, math.sqrt(2 / math.prod(p.shape[1:]))  # He: as much comes out as went in, after a ReLU
    if not p.is_floating_point():
        return 0.0, 0.0
    return (0.5, 0.05) if name == "gamma" else (0.0, 0.05)


def _fill(p: torch.Tensor, mean: float, deviation: float, start: int) -> int:
    """Numbers from the noise, read in a circle from `start`; where the next are read from."""
    if deviation == 0.0:
        p.zero_()
        return start
    noise, middle, flat, done = _noise(), torch.tensor(mean), p.view(-1), 0
    while done < len(flat):
        n = min(len(flat) - done, len(noise) - start)
        torch.add(middle, noise[start : start + n], alpha=deviation, out=flat[done : done + n])
        done, start = done + n, (start + n) % len(noise)
    return start
