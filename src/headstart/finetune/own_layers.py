"""The layers that a head in words stands for: planned, made, and made again from what was saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.finetune.design import Design
from headstart.finetune.spec import ACTIVATIONS, POOLED, Layer, wrong
from headstart.finetune.trained_head import TrainedHead
from headstart.heads.probe import Link

Tensors = Mapping[str, npt.NDArray[Any]]


def check_layers(design: Design | None) -> None:
    """Raises OptionError where the layers cannot follow each other; builds nothing."""
    if design:
        with torch.device("meta"):
            build(design.layers, design.shape, 2, design.words)


def build_head(design: Design, n_outputs: int, seed: int = 0) -> nn.Module:
    """The layers with their first weights drawn from `seed`; torch's own random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(design.layers, design.shape, n_outputs, design.words)


def rebuilt(design: Design, tensors: Tensors, scale: float, n_outputs: int, link: Link) -> TrainedHead:
    """A saved head. Raises ValueError where these are not the tensors of its layers."""
    _check_tensors(design, tensors, n_outputs)
    module = build_head(design, n_outputs).eval().requires_grad_(False)
    module.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
    return TrainedHead(design, module, scale, (), np.empty((0, n_outputs)), link=link)


def _check_tensors(design: Design, tensors: Tensors, n_outputs: int) -> None:
    """Compare the layers in words with the tensors before they take memory: a few words can ask for any size."""
    with torch.device("meta"):
        planned = build_head(design, n_outputs).state_dict()
    if {name: tuple(t.shape) for name, t in planned.items()} != {name: t.shape for name, t in tensors.items()}:
        raise ValueError(f"the tensors of its head are not those of the layers {design.words[:80]!r}")
    for name, t in tensors.items():
        if name.endswith("running_var") and (t < 0).any():
            raise ValueError(f"{name} of its head is below zero")


def build(layers: tuple[Layer, ...], shape: tuple[int, ...], n_classes: int, spec: str) -> nn.Sequential:
    """The layers for inputs (channel, height, width), or (channel,) where the trunk has pooled already.

    Raises OptionError where a layer cannot follow the one before it.
    """
    modules: list[nn.Module] = []
    for layer in layers:
        flat = len(shape) == 1
        if layer.kind in POOLED and layer is layers[0] and flat:
            continue  # done by the trunk
        if flat and layer.kind in ("gap", "gmp", "conv", "maxpool", "avgpool"):
            raise wrong(spec, layer.at, f"{layer.kind} needs a feature map, and what comes before leaves none")
        if not flat and layer.kind == "dense":
            raise wrong(spec, layer.at, "dense needs one row an image: put gap or flatten before it")
        made, shape = _module(layer, shape, n_classes, spec)
        modules += made
        if layer.activation:
            modules.append(_activation(layer.activation))
    return nn.Sequential(*modules)


def _module(layer: Layer, shape: tuple[int, ...], n_classes: int, spec: str) -> tuple[list[nn.Module], tuple[int, ...]]:
    """(modules, shape of what comes out)."""
    flat, channels = len(shape) == 1, shape[0]
    if layer.kind == "dense":
        units = layer.units or n_classes
        return [nn.Linear(channels, units)], (units,)
    if layer.kind == "conv":
        return [nn.Conv2d(channels, layer.units, layer.kernel, padding="same")], (layer.units, *shape[1:])
    if layer.kind in ("maxpool", "avgpool"):
        size = tuple(side // layer.kernel for side in shape[1:])
        if min(size) < 1:
            raise wrong(
                spec, layer.at, f"{layer.kind} of {layer.kernel}: the map is only {shape[1]} x {shape[2]} there"
            )
        kind = nn.MaxPool2d if layer.kind == "maxpool" else nn.AvgPool2d
        return [kind(layer.kernel)], (channels, *size)
    if layer.kind == "flatten":
        return [nn.Flatten()], (math.prod(shape),)
    if layer.kind in POOLED:
        pool = nn.AdaptiveAvgPool2d(1) if layer.kind == "gap" else nn.AdaptiveMaxPool2d(1)
        return [pool, nn.Flatten()], (channels,)
    if layer.kind == "batchnorm":
        return [nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)], shape
    if layer.kind == "dropout":
        return [nn.Dropout(layer.share)], shape
    return [_activation(layer.kind)], shape


def _activation(word: str) -> nn.Module:
    made: nn.Module = getattr(nn, ACTIVATIONS[word])()
    return made
