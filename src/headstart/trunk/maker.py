"""Name and weights -> a torch network, and what it says of itself. The door to timm.

Nothing here runs when the shelf of the cache (`shelf.py`) knows the network already.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from headstart.data.preprocess import CROP_MODES, Preprocess
from headstart.errors import BackboneError
from headstart.files import forms
from headstart.files.cells import printable
from headstart.trunk import catalog
from headstart.trunk import weights as weight_files
from headstart.trunk.catalog import UNKNOWN
from headstart.trunk.layers import LAST, Tap
from headstart.trunk.module import shapes
from headstart.trunk.network import Backbone, Made, Network
from headstart.trunk.tokens import depths, tokens_in
from headstart.trunk.weights import Weights


def made(architecture: str, where: Weights, seed: int, say: Callable[[str], object]) -> Any:
    """timm's network with these weights. torch's own random numbers go on afterwards as if nothing had been drawn.

    Raises BackboneError.
    """
    with _drawing(seed):
        if where.path is None:
            return timm.create_model(architecture, pretrained=False)
        if where.kind == "hub":
            return _published(where.network, where.path)
        if where.kind == "brought":
            return _brought(where.network, where.path)
        told = say if where.kind == "file" else lambda line: None  # of a package everybody knows
        return _from_file(architecture, where.path, where.called, overlay_of(where.overlay), told)


def made_of(name: str, architecture: str, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Any:
    """timm's network with the tensors of a saved model, under timm's own names and without the top.

    Raises BackboneError.
    """
    plan = _planned(architecture)  # compared with it before a network takes memory: any network can be named
    own, tops = plan.state_dict(), _top_names(plan)
    missing = [k for k in own if k not in tensors and not k.startswith(tops)]
    unexpected = [
        k
        for k, t in tensors.items()
        if k not in own or tuple(own[k].shape) != t.shape or own[k].is_floating_point() != (t.dtype.kind == "f")
    ]
    if missing or unexpected:
        raise BackboneError(
            f"the saved tensors do not fit {name}: {printable(', '.join((missing or unexpected)[:3])[:200])}"
        )
    with _drawing(0):
        network = timm.create_model(architecture, pretrained=False)
    network.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, strict=False)
    weight_files.check_numbers(network, f"the saved {name}")
    return network


def frozen(network: Any) -> Any:
    """In evaluation mode and without gradients."""
    return network.eval().requires_grad_(False)


def is_timms(architecture: str) -> bool:
    """Whether timm itself defines the network, so that its release says what it is; a user may have added others."""
    return bool(timm.model_entrypoint(architecture).__module__.partition(".")[0] == "timm")


def backbone_of(network: Any, name: str, source: str, licence: str = "") -> Backbone:
    """A Backbone around a timm network. licence: of its weights; "": that of those which timm publishes."""
    state = network.state_dict()
    network = frozen(network)
    cfg: Mapping[str, Any] = network.pretrained_cfg
    pooled, tops = _top_is_pooled(network), _top_names(network)
    taps, last = _taps(network, cfg)
    return Backbone(
        name=name,
        network=Network(Made(network), _described(network, tops)),
        weights_source=source,
        weights_hash=weight_files.fingerprint({k: v for k, v in state.items() if not k.startswith(tops)}),
        preprocess=_preprocess(cfg, source.startswith("package")),
        taps=taps,
        last_channels=network.num_features if pooled else last,
        last_is_pooled=pooled,
        n_parameters=sum(p.numel() for k, p in network.named_parameters() if not k.startswith(tops)),
        licence=licence or str(cfg.get("license") or UNKNOWN),
        classifier=str(cfg["classifier"]) if isinstance(network.get_classifier(), nn.Linear) and not pooled else "",
        native_size=catalog.side_read_at(name, int(cfg["input_size"][-1])),
        n_classes=int(getattr(network, "num_classes", 0)),
    )


def _described(network: Any, tops: tuple[str, ...]) -> dict[str, Any]:
    """What is asked later of timm's description, as JSON; `tops`: how the names of tensors above the trunk begin."""
    cfg: Mapping[str, Any] = network.pretrained_cfg
    tokens = tokens_in(network)
    return {
        "tokens": None if tokens is None else tokens.to_json(),
        "input_size": [int(side) for side in cfg["input_size"]],
        "fixed_input_size": bool(cfg.get("fixed_input_size")),
        "crop_pct": float(cfg["crop_pct"]),
        "resize": _resize(cfg),
        "classifier": cfg["classifier"] if isinstance(cfg["classifier"], str) else list(cfg["classifier"]),
        "first_conv": cfg["first_conv"] if isinstance(cfg["first_conv"], str) else list(cfg["first_conv"]),
        "tag": str(cfg.get("tag") or ""),
        "tops": list(tops),
        "architecture": str(cfg.get("architecture") or ""),
    }


def labels_of(network: Any) -> list[tuple[str, str]] | None:
    """(WordNet id, name) of each class of the network's own top, named as Keras's `decode_predictions` names them; None
    where timm knows no names for its classes."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    n = int(getattr(network, "num_classes", 0))
    subset = infer_imagenet_subset(network) if n else None
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    descriptions = [info.index_to_description(k) for k in range(n)]
    return [(info.index_to_label_name(k), d.split(",")[0].replace(" ", "_")) for k, d in enumerate(descriptions)]


def overlay_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """What is taken over of a description in timm's words, in the types that timm wants; never where weights lie."""
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in described.items()
        if key in forms.TIMM_FIELDS and value is not None
    }


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Networks made inside draw their first weights from `seed`; the caller's random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns of names that it has changed since
        torch.default_generator.manual_seed(seed)
        yield


def _planned(architecture: str, **options: Any) -> Any:
    """The network without its numbers: its tensors have a shape and take no memory."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timm.create_model(architecture, pretrained=False, **options)
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error).lower():
            raise
        # none of timm's own from 1.0.30 on, but perhaps one that a user has added
        return timm.create_model(architecture, pretrained=False, **options)


def untraceable() -> tuple[list[type[nn.Module]], list[Callable[..., Any]]]:
    """timm's modules and functions that torch.fx must not look into."""
    from timm.models import get_notrace_functions, get_notrace_modules

    return list(get_notrace_modules()), list(get_notrace_functions())  # type: ignore[no-untyped-call]


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


def _taps(network: Any, cfg: Mapping[str, Any]) -> tuple[tuple[Tap, ...], int]:
    """(one tap a stage, features of the pre-logits).

    A stage is a child of the network's list of stages, else a module that timm's `feature_info` names. What gives no
    single activation there (HRNet's parallel branches) is no tap. Of a transformer (`tokens.py`) it is a quarter.
    """
    if tokens_in(network) is not None:
        return _taps_of_tokens(network, cfg)
    info = getattr(network, "feature_info", None) or []
    channels = {str(i["module"]): int(i["num_chs"]) for i in getattr(info, "info", info)}
    names = list(channels)
    stages = getattr(network, "blocks", None)
    if isinstance(stages, nn.Sequential) and len(stages) <= 8 and all(isinstance(s, nn.Sequential) for s in stages):
        names = [f"blocks.{k}" for k in range(len(stages))]
    found = shapes(network, names, tuple(cfg["input_size"][1:]))
    taps = []
    for name in (n for n in names if n in found):
        shape = found[name]
        last_axis = len(shape) == 3 or (len(shape) == 4 and shape[-1] == channels.get(name) != shape[1])
        axis = -1 if last_axis else 1
        taps.append(Tap(name, shape[axis], axis, module=name))
    return tuple(taps), found[LAST][-1]


def _taps_of_tokens(network: Any, cfg: Mapping[str, Any]) -> tuple[tuple[Tap, ...], int]:
    """Of a transformer the last block of each quarter: its class token, and its patches' mean and deviation, as the
    network's last LayerNorm gives them (as DINOv2's own linear heads read them: Oquab et al. 2023, section 7.1)."""
    tokens = tokens_in(network)
    assert tokens is not None
    names = [f"blocks.{k}" for k in depths(len(network.blocks))]
    found = shapes(network, names, tuple(cfg["input_size"][1:]))
    taps = []
    for name in names:
        own = tokens.has_class and not (tokens.class_is_last and name == names[-1])
        pools = (*(["token"] if own else []), "mean", "std")
        taps.append(Tap(name, found[name][-1], -1, pools, name, prefix=tokens.prefix, through=tokens.norm))
    return tuple(taps), found[LAST][-1]


def _preprocess(cfg: Mapping[str, Any], is_package: bool) -> Preprocess:
    mean, std = (weight_files.PACKAGE_MEAN, weight_files.PACKAGE_STD) if is_package else (cfg["mean"], cfg["std"])
    known = ("bilinear", "bicubic", "lanczos", "nearest")
    return Preprocess(
        size=(int(cfg["input_size"][1]), int(cfg["input_size"][2])),
        crop_fraction=float(cfg["crop_pct"]),
        interpolation=cfg["interpolation"] if cfg["interpolation"] in known else "bicubic",
        resize=_resize(cfg),
        mean=tuple(map(float, mean)),  # type: ignore[arg-type]
        std=tuple(map(float, std)),  # type: ignore[arg-type]
    )


def _resize(cfg: Mapping[str, Any]) -> str:
    return next((ours for ours, timms in CROP_MODES.items() if timms == cfg.get("crop_mode")), "shortest")


def _n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _from_file(
    architecture: str,
    path: Path,
    source: str,
    overlay: dict[str, Any],
    say: Callable[[str], object],
) -> nn.Module:
    """The network with the weights of a file; its top has as many classes as the file's.

    `overlay`: what the file's own description says of it in timm's terms, such as mean and std.
    """
    state = weight_files.read_state(path)
    options: dict[str, Any] = {"pretrained_cfg_overlay": overlay or None}
    plan = _planned(architecture, **options)
    n_classes = weight_files.n_classes(state)
    if n_classes not in (0, plan.num_classes):
        options["num_classes"] = n_classes
        plan = _planned(architecture, **options)
    weight_files.match(plan.state_dict(), state, source)  # before the network takes memory: any size can be named
    network: Any = timm.create_model(architecture, pretrained=False, **options)
    if weight_files.other_names(network.state_dict(), state):
        say(f"{source}: its tensors bear other names than {architecture}'s; matched by order and shape")
    network.load_state_dict(weight_files.match(network.state_dict(), state, source))
    weight_files.check_numbers(network, source)
    return network  # type: ignore[no-any-return]


def _brought(name: str, path: Path) -> Any:
    """The network with the weights of a file that was brought here."""
    state, carried = weight_files.read_carried(path)
    overlay = overlay_of(carried.preprocess)
    weight_files.match(_planned(name, pretrained_cfg_overlay=overlay).state_dict(), state, str(path))
    network: Any = timm.create_model(name, pretrained=False, pretrained_cfg_overlay=overlay)
    network.load_state_dict(weight_files.match(network.state_dict(), state, str(path)))
    weight_files.check_numbers(network, str(path))
    return network


def _published(network_name: str, path: Path) -> Any:
    """The network with the weights of a file of timm's own, whose names and shapes timm adapts where it changed its
    networks since. timm is given tensors and no file: what it reads itself, older releases unpickle."""
    state = weight_files.read_state(path)
    given = {"state_dict": state, "custom_load": False}
    try:
        network: Any = timm.create_model(network_name, pretrained=True, pretrained_cfg_overlay=given)
    except weight_files.BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"weights file {path} does not fit {network_name} ({reason}): delete it, so that it is fetched again"
        ) from None
    for cfg in (network.pretrained_cfg, network.default_cfg):
        cfg.pop("state_dict", None)
    weight_files.check_numbers(network, str(path))
    return network
