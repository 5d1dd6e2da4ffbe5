"""The curated networks, the names that people know them by, and what to know of one before it is fetched.

`catalog.csv` has one row a set of weights. Sizes in pixels, accuracies on ImageNet's validation images in percent,
parameters in millions; `depth` counts the layers with weights on the longest path (`trunk.cut.depth`); `prior` is the
mean accuracy, in percent, of the fine-tuned network over 11 data sets (methods.md 3.3). An empty cell: not known.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from headstart.errors import BackboneError, OptionError, nearest

CSV = Path(__file__).with_name("catalog.csv")
OPEN_LICENCES = ("apache-2.0", "bsd-3-clause", "mit", "cc-by-4.0")  # use, change and sell; no terms of one's own
# Licences that forbid commercial use without "nc" or "noncommercial" in their name.
RESEARCH_LICENCES = ("apple-amlr", "seer-license")
BETWEEN = "+"  # the names of two networks that run side by side
MEMORY = 3  # times the weights: the file read, the network filled from it, and the engine's copy


@dataclass(frozen=True)
class Entry:
    """One set of published weights."""

    name: str  # as the tutorials write it
    network: str  # timm's architecture and tag
    family: str
    input_size: int  # px
    top1: float | None  # %
    top5: float | None  # %
    parameters_millions: float
    gmacs: float  # at `input_size`
    depth: int | None
    prior: float | None  # %
    licence: str
    gated: bool  # the hub asks for an account that has accepted the terms
    non_commercial: bool
    fixed_size: bool  # the network takes its input size only

    @property
    def architecture(self) -> str:
        return self.network.partition(".")[0]


@cache
def entries() -> tuple[Entry, ...]:
    """The curated networks, in the order of the first page."""
    with CSV.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return tuple(Entry(**{f.name: _cell(row[f.name], str(f.type)) for f in fields(Entry)}) for row in rows)


def _cell(text: str, kind: str) -> Any:
    if kind == "bool":
        return text == "yes"
    if kind == "str":
        return text
    return None if not text else int(text) if kind.startswith("int") else float(text)


def entry_of(network: str) -> Entry | None:
    """The row of timm's name, with its tag."""
    return next((entry for entry in entries() if entry.network == network), None)


def first_choice(architecture: str) -> str | None:
    """The weights that a name without a tag means: those that the catalog lists first for the architecture."""
    return next((entry.network for entry in entries() if entry.architecture == architecture), None)


def squeezed(name: str) -> str:
    """A name as aliases are compared: letters and digits alone, lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# Keras's and torchvision's names that no row of the catalog has -> timm's. Names are compared by `squeezed`.
# Keras's ResNet50V2 and NASNetMobile are not here: timm's resnetv2_50 strides elsewhere, and it has no NASNetMobile.
OTHERS = {
    **{f"EfficientNetB{k}": f"efficientnet_b{k}" for k in range(6)},
    **{f"EfficientNetB{k}": f"tf_efficientnet_b{k}" for k in (6, 7)},  # published under this name only
    **{f"EfficientNetV2{k}": f"tf_efficientnetv2_{k.lower()}" for k in ("B0", "B1", "B2", "B3", "S", "M", "L")},
    **{f"EfficientNetLite{k}": f"tf_efficientnet_lite{k}" for k in range(5)},
    **{f"ConvNeXt{k}": f"convnext_{k.lower()}" for k in ("Atto", "Tiny", "Small", "Base", "Large", "XLarge")},
    "MobileNetV1": "mobilenetv1_100",
    "MobileNet_V3": "mobilenetv3_large_100",
    "MNASNet1_0": "mnasnet_100",
    **{f"RegNet_Y_{k}": f"regnety_{n}" for k, n in (("400MF", "004"), ("800MF", "008"), ("1_6GF", "016"))},
    **{f"RegNet_Y_{k}": f"regnety_{n}" for k, n in (("3_2GF", "032"), ("8GF", "080"), ("16GF", "160"))},
    **{f"ViT_B_{k}": f"vit_base_patch{k}_224" for k in (16, 32)},
    **{f"ViT_L_{k}": f"vit_large_patch{k}_224" for k in (16, 32)},
    **{f"Swin_{k[0]}": f"swin_{k}_patch4_window7_224" for k in ("tiny", "small", "base")},
    "ViT": "vit_base_patch16_224",
    "DINOv2": "vit_small_patch14_dinov2",
    "DINOv3": "vit_small_patch16_dinov3",
    "CLIP": "vit_base_patch16_clip_224",
    "SigLIP": "vit_base_patch16_siglip_224",
    "SigLIP2": "vit_base_patch16_siglip_224",
}


def side_by_side(name: str) -> tuple[str, ...]:
    """Of A+B the names of both; () for one network."""
    names = tuple(word.strip() for word in name.split(BETWEEN))
    return names if len(names) > 1 else ()


def asked_side_by_side(backbone: str) -> tuple[str, ...]:
    """The same of what a user names: () too where there is a file or folder of that name."""
    return () if Path(backbone).exists() else side_by_side(backbone)


COLUMNS = (*(f.name for f in fields(Entry)), "here")  # of the list of networks


def check_column(column: str | None) -> None:
    """Raises OptionError for a column that the list does not have."""
    if column is not None and column not in COLUMNS:
        raise OptionError(f"no column {column!r}{nearest(column, COLUMNS)}: sort by one of {', '.join(COLUMNS)}")


@cache
def aliases() -> dict[str, str]:
    """Squeezed name -> timm's architecture, or with the tag where the architecture's first weights are others."""
    found: dict[str, str] = {}
    for entry in entries():
        plain = first_choice(entry.architecture) == entry.network
        found.setdefault(squeezed(entry.name), entry.architecture if plain else entry.network)
    return {squeezed(name): network for name, network in OTHERS.items()} | found


def non_commercial(licence: str) -> bool:
    return bool(re.search(r"(^|[^a-z])nc([^a-z]|$)|non-?commercial", licence)) or licence in RESEARCH_LICENCES


@dataclass(frozen=True)
class Published:
    """Where the weights of one network are, and what holds for them."""

    network: str  # timm's name with its tag
    repository: str  # on the hub; "" where it is not there
    filename: str | None  # in the repository, where it is not the usual one
    url: str  # of the first publication, "" where there is none
    licence: str
    input_size: int  # px
    fixed_size: int | None  # px, where the network takes this size only


def published(name: str) -> Published:
    """The weights that timm's name means, with a tag or without (see `first_choice`). Raises BackboneError."""
    import timm

    architecture, _, tag = name.partition(".")
    known = timm.list_pretrained(f"{architecture}.*")
    if not known:
        raise BackboneError(
            f"no weights are published for {name}: give a file with --weights FILE, or --weights none for random ones"
        )
    if tag and name not in known:
        near = nearest(name, known) or f": one of {', '.join(known[:8])}"
        raise BackboneError(f"{architecture} has no weights called {tag!r}{near}")
    default: Any = timm.get_pretrained_cfg(architecture)
    network = name if tag else first_choice(architecture) or f"{architecture}.{default.tag}"
    cfg: Any = timm.get_pretrained_cfg(network)
    size = int(cfg.input_size[-1])
    return Published(
        network=network,
        repository=str(cfg.hf_hub_id or ""),
        filename=cfg.hf_hub_filename,
        url=str(cfg.url or ""),
        licence=str(cfg.license or "unknown"),
        input_size=size,
        fixed_size=size if cfg.fixed_input_size else None,
    )


def timms_networks() -> list[str]:
    """The names of timm's networks, without tags, and of those that were added to them."""
    import timm

    return list(timm.list_models())


def published_networks() -> list[str]:
    """timm's names, with tags, of every network that has weights somewhere."""
    import timm

    return list(timm.list_pretrained())


def notices(about: Published, weight_bytes: int | None) -> list[str]:
    """What is said before a download, one line each: terms of the licence, a fixed input size, too little memory."""
    network, licence = about.network, about.licence
    entry = entry_of(network)
    lines = []
    if entry and entry.gated:
        lines.append(f"{network} is gated: the hub gives it to accounts that have accepted its terms")
    if non_commercial(licence):
        lines.append(f"the licence of {network}, {licence}, forbids commercial use")
    elif licence not in OPEN_LICENCES:
        lines.append(f"the licence of {network} is {licence}: read its terms before you use what comes of it")
    if about.fixed_size:
        lines.append(f"{network} takes images of {about.fixed_size} x {about.fixed_size} pixels only")
    needed, free = MEMORY * (weight_bytes or 0), available_memory()
    if free is not None and needed > free:
        lines.append(
            f"{network} needs about {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are available here"
        )
    return lines


def available_memory() -> int | None:
    """Bytes of memory that programs may still take; None where the system does not say (not Linux)."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
