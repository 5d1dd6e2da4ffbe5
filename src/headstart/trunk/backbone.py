"""Name -> Backbone: a frozen network without its top, its preprocessing, its taps. The door to timm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from headstart.data.images import Preprocess
from headstart.errors import BackboneError, HeadstartError, nearest
from headstart.files import forms
from headstart.files.bundle import CONFIG, MANIFEST, MODEL, Bundle, read_bundle
from headstart.files.cells import printable
from headstart.files.reading import read_regular
from headstart.trunk import catalog, hub
from headstart.trunk import weights as weight_files
from headstart.trunk.layers import LAST, Tap
from headstart.trunk.network import RANDOM, Backbone, shapes

# Its real ImageNet weights install as an ordinary package; 336 images/s on 2 CPU cores (methods.md 9).
DEFAULT = "tf_efficientnet_lite0"
ALIASES = catalog.aliases()  # what Keras, torchvision and the tutorials call a network -> timm's name


def resolve(name: str) -> str:
    """timm's name for a network, whatever the letter case; Keras's and torchvision's names and the catalog's too.

    timm's own names come first, except efficientnet_lite0...: the weights are published under tf_efficientnet_lite0.
    Raises BackboneError with the nearest names.
    """
    architecture, dot, tag = name.lower().partition(".")
    known = {n.lower(): n for n in timm.list_models()}
    alias = ALIASES.get(catalog.squeezed(architecture))
    found = alias if architecture.startswith("efficientnet_lite") else known.get(architecture, alias)
    if found is None:
        near = nearest(architecture, [*known.values(), *ALIASES])
        raise BackboneError(f"unknown backbone {name[:80]!r}{near}: any of timm's {len(known)} networks will do")
    return f"{found.partition('.')[0]}.{tag}" if dot else found


def open_backbone(
    name: str = DEFAULT, weights: str = "auto", seed: int = 0, say: Callable[[str], object] = lambda line: None
) -> Backbone:
    """The network of this name without its top; or that of a saved model, where `name` is its folder.

    `weights`: "auto" (installed package, else the hub), "none" (random, drawn from `seed`), or a .safetensors or .pth
    file.
    torch's own random numbers go on afterwards as if nothing had been drawn. `say` is told what to know before
    anything is fetched. Raises BackboneError, BundleError.
    """
    if (Path(name) / MANIFEST).exists() or (Path(name) / CONFIG).exists():
        return _of_a_model(Path(name), weights, seed)
    if Path(name).is_file():
        raise BackboneError(f"{name} is a file: name its network with --backbone, and give the file with --weights")
    full = resolve(name)
    architecture, _, tag = full.partition(".")
    with _drawing(seed):
        if weights == "none":
            network, source = timm.create_model(architecture, pretrained=False), RANDOM
        elif weights != "auto":
            network, source = _from_file(architecture, Path(weights), weights, say=say), f"file {Path(weights).name}"
        elif not tag and (path := weight_files.packaged(architecture)):
            source = f"package {weight_files.PACKAGES[architecture]}"
            network = _from_file(architecture, path, source)
        else:
            network = _from_hub(full, say)
            source = f"hub timm/{architecture}.{network.pretrained_cfg['tag']}"
    return backbone_of(network, full, source)


def _of_a_model(folder: Path, weights: str, seed: int) -> Backbone:
    """The trunk of a model that headstart has saved, or of timm's own layout (config.json, model.safetensors).

    Its input size and crop are the network's own again: the next task's images decide anew.
    """
    if not (folder / MANIFEST).exists():
        return _of_timms_layout(folder, weights, seed)
    bundle = read_bundle(folder)
    if weights != "auto":
        return open_backbone(resolve(bundle.manifest["backbone"]["name"]), weights, seed)
    return trunk_of(bundle)


def trunk_of(bundle: Bundle) -> Backbone:
    """The trunk of a saved model, see `_of_a_model`. Raises BackboneError, BundleError."""
    about, classes, folder = bundle.manifest["backbone"], bundle.manifest["classes"], bundle.folder
    tensors = bundle.tensors(MODEL)
    if top := about["classifier"]:
        tensors = {name: t for name, t in tensors.items() if name not in (f"{top}.weight", f"{top}.bias")}
    earlier = about["weights_source"]
    source = RANDOM if earlier == RANDOM else f"model {folder.name} ({earlier})"
    with _of_a_stranger(folder):
        saved = Preprocess.from_json(bundle.manifest["preprocess"])
        backbone = from_tensors(about["name"], tensors, saved, source, about["licence"])
    cfg: Mapping[str, Any] = vars(backbone.module)["pretrained_cfg"]
    size, crop = (int(cfg["input_size"][1]), int(cfg["input_size"][2])), float(cfg["crop_pct"])
    link = f"{folder.name}: {len(classes)} classes, data {bundle.manifest.get('data_fingerprint', '')[:12]}"
    return replace(
        backbone,
        preprocess=replace(saved, size=size, crop_fraction=crop),
        chain=(*(about.get("chain") or (about["weights_source"],)), link),
    )


def _of_timms_layout(folder: Path, weights: str, seed: int) -> Backbone:
    """A checkpoint as timm writes it: the architecture and preprocessing stand in config.json."""
    try:
        config = forms.parse(read_regular(folder / CONFIG), forms.TIMM)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BackboneError(f"{folder / CONFIG} is no timm description of a network: it {reason}") from None
    files = [folder / name for name in (MODEL, "pytorch_model.bin") if (folder / name).exists()]
    if not files:
        raise BackboneError(f"{folder} holds no {MODEL}: copy the model again")
    architecture = resolve(config["architecture"]).partition(".")[0]
    if weights != "auto":
        return open_backbone(architecture, weights, seed)
    with _drawing(seed), _of_a_stranger(folder):
        overlay = _overlay(config.get("pretrained_cfg") or {})
        network = _from_file(architecture, files[0], str(files[0]), overlay)
        return backbone_of(network, config["architecture"], f"model {folder.resolve().name}")


@contextmanager
def _of_a_stranger(folder: Path) -> Iterator[None]:
    """What torch and timm say of a network that cannot be made as a folder describes it, in one line."""
    try:
        yield
    except BackboneError:
        raise
    except (*weight_files.BROKEN, HeadstartError) as error:
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        raise BackboneError(
            f"{folder} cannot be used as a network ({reason}): copy it again from where it was made"
        ) from None


def _overlay(described: Mapping[str, Any]) -> dict[str, Any]:
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
    architecture = resolve(name).split(".")[0]
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
    return replace(backbone_of(network, name, source), preprocess=preprocess, licence=licence)


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


def own_labels(backbone: Backbone) -> list[tuple[str, str]]:
    """(WordNet id, name) of each class of the network's own top, named as Keras's `decode_predictions` names them.

    Raises BackboneError where there is no top or timm knows no names for its classes.
    """
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    network: Any = backbone.module
    n = int(getattr(network, "num_classes", 0))
    subset = infer_imagenet_subset(network) if n else None
    if subset is None:
        what = f"{n} classes that have no ImageNet names" if n else "no classes of its own"
        raise BackboneError(f"{backbone.name} has {what}: choose a network trained on ImageNet, such as {DEFAULT}")
    info = ImageNetInfo(subset)
    descriptions = [info.index_to_description(k) for k in range(n)]
    return [(info.index_to_label_name(k), d.split(",")[0].replace(" ", "_")) for k, d in enumerate(descriptions)]


def untraceable() -> tuple[list[type[nn.Module]], list[Callable[..., Any]]]:
    """timm's modules and functions that torch.fx must not look into."""
    from timm.models import get_notrace_functions, get_notrace_modules

    return list(get_notrace_modules()), list(get_notrace_functions())  # type: ignore[no-untyped-call]


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
    found = shapes(network, names, tuple(cfg["input_size"][1:]))
    taps = []
    for name in (n for n in names if n in found):
        shape = found[name]
        last_axis = len(shape) == 3 or (len(shape) == 4 and shape[-1] == channels.get(name) != shape[1])
        axis = -1 if last_axis else 1
        taps.append(Tap(name, shape[axis], axis, module=name))
    return tuple(taps), found[LAST][-1]


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


def _from_file(
    architecture: str,
    path: Path,
    source: str,
    overlay: dict[str, Any] | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> nn.Module:
    """The network with the weights of a file; its top has as many classes as the file's.

    `overlay`: what the file's own description says of it in timm's terms, such as mean and std.
    """
    state = weight_files.read_state(path)
    options: dict[str, Any] = {"pretrained_cfg_overlay": overlay}
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


def _from_hub(name: str, say: Callable[[str], object]) -> Any:
    """The network with its published weights: from a file brought here, the hub's cache, else fetched.

    `say` is told what to know before anything is fetched. Raises BackboneError.
    """
    about = catalog.published(name)
    if brought := weight_files.brought_file(name, about.network):
        state, carried = weight_files.read_carried(brought)
        overlay = _overlay(carried.preprocess)
        weight_files.match(_planned(about.network, pretrained_cfg_overlay=overlay).state_dict(), state, str(brought))
        network: Any = timm.create_model(about.network, pretrained=False, pretrained_cfg_overlay=overlay)
        network.load_state_dict(weight_files.match(network.state_dict(), state, str(brought)))
        weight_files.check_numbers(network, str(brought))
        return network
    return _published(about.network, hub.obtain(about, say))


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
