"""Two networks as one: `A+B`, a Backbone whose taps are those of both, and whose last layer is that of both.

Nothing that takes a Backbone needs to know. Both see the same pixels, prepared as the first wants them; how the second
wants them scaled is part of the network (`two.Two`). Its taps are called NETWORK:TAP, its tensors NETWORK.TENSOR. It
has no linear top, and no layer that lies behind both, so that it is not cut or tuned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.data.preprocess import Preprocess
from headstart.errors import BackboneError
from headstart.trunk.catalog import BETWEEN
from headstart.trunk.layers import OF
from headstart.trunk.network import MADE_BY, Backbone, Network, Tensors


@dataclass(frozen=True)
class Scaling:
    """What turns pixels that are normalised for the first network into those for the second, each (channel,)."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def tensors(self) -> Tensors:
        return {"scale": np.array(self.scale, np.float32), "shift": np.array(self.shift, np.float32)}


@dataclass(frozen=True)
class _Both:
    """The network in torch of two that are known; `names` of its parts."""

    names: tuple[str, str]
    networks: tuple[Network, Network]
    pooled: tuple[bool, bool]
    scaling: Scaling

    def module(self) -> Any:
        from headstart.trunk.two import Two

        parts = [network.module for network in self.networks]
        both = Two(self.names, parts, self.pooled, self.scaling.scale, self.scaling.shift)
        return both.eval().requires_grad_(False)

    def tensors(self) -> Tensors:
        found = dict(self.scaling.tensors())
        for name, network in zip(self.names, self.networks, strict=True):
            found |= {f"{name}.{key}": t for key, t in network.tensors().items()}
        return found


def part_names(first: str, second: str) -> tuple[str, str]:
    """What two networks are called as parts of one: their architectures, with the tags where those are the same."""
    one, other = first.partition(".")[0], second.partition(".")[0]
    return (one, other) if one != other else (first.replace(".", "_"), second.replace(".", "_"))


def paired(first: Backbone, second: Backbone, scaling: Scaling | None = None) -> Backbone:
    """Both as one. `scaling`: as it was saved; None: by the preprocessing of both.

    Raises BackboneError where no input size suits both.
    """
    names = part_names(first.name, second.name)
    scaling = scaling or scaling_of(first.preprocess, second.preprocess)
    source = _Both(names, (first.network, second.network), (first.last_is_pooled, second.last_is_pooled), scaling)
    shelf = first.network.shelf if second.network.shelf else None
    name = f"{first.name}{BETWEEN}{second.name}"
    described = _described(first, second, names)
    sources = dict.fromkeys((first.weights_source, second.weights_source))
    licences = dict.fromkeys((first.licence, second.licence))
    side = described["input_size"][1:]
    found = replace(
        first,
        name=name,
        network=Network(source, described, _key(name, first, second, scaling) if shelf else None, shelf),
        weights_source=f" {BETWEEN} ".join(sources),
        weights_hash=_digest(first, second, scaling),
        taps=tuple(
            replace(
                tap,
                name=f"{part}{OF}{tap.name}",
                module=f"{part}.{tap.module}",
                through=f"{part}.{tap.through}" if tap.through else "",
            )
            for part, one in zip(names, (first, second), strict=True)
            for tap in one.taps
        ),
        last_channels=first.last_channels + second.last_channels,
        last_is_pooled=False,
        n_parameters=first.n_parameters + second.n_parameters,
        licence=" and ".join(licences),
        classifier="",
        native_size=first.native_size if list(first.preprocess.size) == side else side[0],
        n_classes=0,
    )
    return replace(found, preprocess=replace(first.preprocess, size=(side[0], side[1])))


def scaling_of(first: Preprocess, second: Preprocess) -> Scaling:
    """((x * std + mean) of the first - mean of the second) / std of the second."""
    moments = list(zip(first.mean, first.std, second.mean, second.std, strict=True))
    scale = tuple(std / own_std for _, std, _, own_std in moments)
    return Scaling(scale, tuple((mean - own) / own_std for mean, _, own, own_std in moments))


def split(name: str, names: tuple[str, str], tensors: Tensors) -> tuple[Tensors, Tensors, Scaling]:
    """The tensors of a saved pair: those of each network, and the scaling. Raises BackboneError."""
    first, second = ({k[len(n) + 1 :]: t for k, t in tensors.items() if k.startswith(f"{n}.")} for n in names)
    kept = {key: tensors.get(key) for key in ("scale", "shift")}
    if any(t is None or t.shape != (3,) or t.dtype.kind != "f" or not np.isfinite(t).all() for t in kept.values()):
        raise BackboneError(
            f"the saved tensors do not fit {name}: scale and shift of the second network are no numbers"
        )
    if strange := sorted(k for k in tensors if k not in kept and not k.startswith(tuple(f"{n}." for n in names))):
        raise BackboneError(f"the saved tensors do not fit {name}: {strange[0][:80]!r} is of neither network")
    scale, shift = (tuple(map(float, np.asarray(t, np.float32))) for t in kept.values())
    return first, second, Scaling(scale, shift)


def _described(first: Backbone, second: Backbone, names: tuple[str, str]) -> dict[str, Any]:
    """As `maker` describes one network: the first one's, but for what only one network has."""
    one, other = first.network.described, second.network.described
    # a transformer that takes other sizes is made anew for each (`tokens.at_size`), which a part of two is not
    fixed = [about["input_size"] for about in (one, other) if about["fixed_input_size"] or about["tokens"]]
    if len(fixed) == 2 and fixed[0] != fixed[1]:
        raise BackboneError(
            f"{first.name} takes images of {fixed[0][1]} px only and {second.name} of {fixed[1][1]} px only, and both "
            f"of {first.name}{BETWEEN}{second.name} see the same pixels: take another second network"
        )
    tops = [f"{part}.{top}" for part, about in zip(names, (one, other), strict=True) for top in about["tops"]]
    return {
        **one,
        "input_size": list(fixed[0] if fixed else one["input_size"]),
        "fixed_input_size": bool(fixed),
        "classifier": "",
        "first_conv": "",
        "tag": "",
        "tokens": None,
        "tops": tops,
        "architecture": f"{one['architecture']}{BETWEEN}{other['architecture']}",
    }


def _key(name: str, first: Backbone, second: Backbone, scaling: Scaling) -> dict[str, Any]:
    """All that the network is made of."""
    parts: list[Mapping[str, Any]] = [first.network.key, second.network.key]
    made = {word: parts[0][word] for word in MADE_BY}
    return {"network": name, "side by side": parts, "scaling": [scaling.scale, scaling.shift], **made}


def _digest(first: Backbone, second: Backbone, scaling: Scaling) -> str:
    """32 hex digits over the weights of both, in their order, and the scaling, in the numbers that are saved."""
    own = b"".join(np.asarray(t).tobytes() for t in scaling.tensors().values())
    return hashlib.blake2b(f"{first.weights_hash} {second.weights_hash} ".encode() + own, digest_size=16).hexdigest()
