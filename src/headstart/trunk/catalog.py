"""The curated networks, the names that people know them by, and what to know of one before it is fetched.

`catalog.csv` has one row a set of weights. Sizes in pixels, accuracies on ImageNet's validation images in percent,
parameters in millions; `depth` counts the layers with weights on the longest path (`trunk.cut.depth`); `prior` is the
mean accuracy, in percent, of the fine-tuned network over 11 data sets (methods.md 3.3). An empty cell: not known.

`frozen` is the accuracy on ImageNet of what was trained without its classes, as it is: DINOv2 with a linear head, by
its authors; DINOv3 likewise, by others at 512 px (github.com/yberreby/dinov3-in1k-probes); CLIP likewise (Radford et
al. 2021, table 10); SigLIP 2 (Tschannen et al. 2025, table 1) and Perception Encoder (Bolya et al. 2025, and its page)
by texts alone, without a head, which is less than a linear head reaches.

`read_at` is the side at which pictures are read where the user sets none, if that is not the input size of the weights:
DINOv2 ends its training at 518 px, and its authors judge frozen features at 224 (Oquab et al. 2023, section 7.1).
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
UNKNOWN = "unknown"  # the licence of weights that do not say it
# timm's modules whose networks take every multiple of their patches (tokens.py); those of two class tokens do not
TRANSFORMERS = ("vision_transformer", "deit", "eva")
# Bytes that a process takes which opens a network for the first time: torch, timm and OpenVINO, and as many times the
# weights: the file read, the network filled from it, the graph and the engine's copy (benchmarks/results/larger.md).
START, MEMORY = 900 * 2**20, 4
BETWEEN = "+"  # the names of two networks that run side by side


@dataclass(frozen=True)
class Entry:
    """One set of published weights."""

    name: str  # as the tutorials write it
    network: str  # timm's architecture and tag
    family: str
    input_size: int  # px
    read_at: int | None  # px, None: at `input_size`
    patch: int | None  # px, of a transformer that takes every multiple of it
    top1: float | None  # %
    top5: float | None  # %
    frozen: float | None  # %
    parameters_millions: float
    gmacs: float  # at `side`; products of attention are counted
    depth: int | None
    prior: float | None  # %
    licence: str
    gated: bool  # the hub asks for an account that has accepted the terms
    non_commercial: bool
    fixed_size: bool  # the network takes its input size only

    @property
    def architecture(self) -> str:
        return self.network.partition(".")[0]

    @property
    def side(self) -> int:
        """px, of the input where the user sets none and the pictures ask for nothing else."""
        return self.read_at or self.input_size


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


def side_read_at(name: str, input_size: int) -> int:
    """The side in px at which the pictures of weights for `input_size` px are read where nothing else is asked for.
    `name`: timm's, with a tag or without."""
    entry = entry_of(name) or entry_of(first_choice(name.partition(".")[0]) or "")
    return entry.side if entry and entry.input_size == input_size else input_size


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
    **{f"DINOv2{k[0]}": f"vit_{k}_patch14_dinov2" for k in ("small", "base", "large")},
    **{f"DINOv2_{k[0]}_reg": f"vit_{k}_patch14_reg4_dinov2" for k in ("small", "base", "large")},
    **{f"DINOv2_vit{k[0]}14": f"vit_{k}_patch14_dinov2" for k in ("small", "base", "large")},
    **{f"DINOv2_vit{k[0]}14_reg": f"vit_{k}_patch14_reg4_dinov2" for k in ("small", "base", "large")},
    "DINOv3": "vit_small_patch16_dinov3",
    **{f"DINOv3{k[0]}": f"vit_{k}_patch16_dinov3" for k in ("small", "base", "large")},
    **{f"DINOv3_vit{k[0]}16": f"vit_{k}_patch16_dinov3" for k in ("small", "base", "large")},
    **{f"DINOv3_ConvNeXt_{k}": f"convnext_{k}.dinov3_lvd1689m" for k in ("tiny", "small", "base", "large")},
    **{f"DINOv3_ConvNeXt_{k[0]}": f"convnext_{k}.dinov3_lvd1689m" for k in ("tiny", "small", "base", "large")},
    "CLIP": "vit_base_patch16_clip_224",
    "SigLIP": "vit_base_patch16_siglip_224",
    **{f"SigLIP2{k}": "vit_base_patch16_siglip_224" for k in ("", "B", "B16", "B16_224")},
    **{f"SigLIP2_B16_{k}": f"vit_base_patch16_siglip_{k}.v2_webli" for k in (256, 384, 512)},
    "PE": "vit_pe_core_small_patch16_384",
    "PE_Core": "vit_pe_core_small_patch16_384",
    **{f"PE_Core_{k[0]}": f"vit_pe_core_{k}_patch16_384" for k in ("tiny", "small")},
    **{f"PE_Core_{k[0]}16_384": f"vit_pe_core_{k}_patch16_384" for k in ("tiny", "small")},
    **{f"PE_Core_{k}": "vit_pe_core_base_patch16_224" for k in ("B", "B16_224")},
    **{f"PE_Core_{k}": "vit_pe_core_large_patch14_336" for k in ("L", "L14_336")},
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


def terms(network: str, licence: str) -> list[str]:
    """What is to be known of a licence that is not open, in one line; none where it is open or not known."""
    if non_commercial(licence):
        return [f"the licence of {network}, {licence}, forbids commercial use"]
    if not licence or licence in OPEN_LICENCES or licence == UNKNOWN:
        return []
    return [f"the licence of {network} is {licence}: read its terms before you use what comes of it"]


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
    made_in = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    other_sizes = made_in in TRANSFORMERS and "distilled" not in architecture
    return Published(
        network=network,
        repository=str(cfg.hf_hub_id or ""),
        filename=cfg.hf_hub_filename,
        url=str(cfg.url or ""),
        licence=str(cfg.license or UNKNOWN),
        input_size=size,
        fixed_size=size if cfg.fixed_input_size and not other_sizes else None,
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
    lines += terms(network, licence)
    if about.fixed_size:
        lines.append(f"{network} takes images of {about.fixed_size} x {about.fixed_size} pixels only")
    needed, free = START + MEMORY * (weight_bytes or 0), available_memory()
    if free is not None and weight_bytes and needed > free:
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
