"""The head that knows odd pictures, and what it tells of itself: how it is saved, read again and accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.heads.oddity import MAP, Cloud, Layer, Oddity, Patches, needed
from headstart.heads.taps import Part
from headstart.recipe import Setting
from headstart.tasks.task import Head, Rule, Tried

NUMBERS = ("limit", "rate", "n", "usual", "hot")
OF_PATCHES = ("patches.mean", "patches.whitening", "patches.memory")
OF_CLOUD = ("cloud.mean", "cloud.axes", "cloud.spread")
HALF = ("patches.memory",)  # saved as float16, which they are rounded to when they are made


def oddity_of(head: Head) -> Oddity:
    """Raises TypeError for the head of another task."""
    if not isinstance(head, Oddity):
        raise TypeError(f"{type(head).__name__} is no head that knows odd pictures")
    return head


def rule_of(head: Head) -> Rule:
    """None: the threshold is 1."""
    return {}


def names_of(head: Head) -> tuple[str, ...]:
    """Of the one output: the score of being odd."""
    return ("odd",)


def described(head: Head) -> dict[str, Any]:
    """As headstart.json has it."""
    own = oddity_of(head)
    layers = own.patches.layers if own.patches else ()
    return {
        **{name: getattr(own, name) for name in NUMBERS},
        "middles": list(own.middles),
        "widths": list(own.widths),
        "rest": own.cloud.rest,
        "channels": [layer.channels for layer in layers],
    }


def tensors(head: Head) -> dict[str, NDArray[Any]]:
    """What good pictures look like."""
    own = oddity_of(head)
    found: dict[str, NDArray[Any]] = {name: getattr(own.cloud, name.partition(".")[2]) for name in OF_CLOUD}
    if own.patches:
        found |= {name: getattr(own.patches, name.partition(".")[2]) for name in OF_PATCHES}
    return {name: np.ascontiguousarray(t, np.float16 if name in HALF else np.float32) for name, t in found.items()}


def read(
    described: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    names: tuple[str, ...],
    parts: tuple[Part, ...],
    width: int,
) -> Oddity:
    """The head of a saved model, after its tensors were compared with each other and with what it reads."""
    maps, whole = (tuple(p for p in parts if p.block.endswith(MAP) == wanted) for wanted in (True, False))
    channels = described["channels"]
    wanted = {*OF_CLOUD, *(OF_PATCHES if maps else ())}
    if set(tensors) != wanted:
        raise ValueError(f"it holds {', '.join(sorted(tensors))[:200]}, needed: {', '.join(sorted(wanted))}")
    t = {name: found.astype(np.float32) for name, found in tensors.items()}
    n, k = len(described["middles"]), len(t["cloud.spread"])
    if n != (2 if maps else 1) or len(described["widths"]) != n or len(channels) != len(maps):
        raise ValueError(f"it has {n} measures and {len(channels)} maps, and reads {len(maps)}")
    features = len(t["cloud.mean"])
    if t["cloud.mean"].shape != (features,) or t["cloud.axes"].shape != (k, features) or features > width:
        raise ValueError(f"it has {k} axes of the shape {t['cloud.axes'].shape}, and reads {width} features")
    if names != ("odd",) or (t["cloud.spread"] <= 0).any():
        raise ValueError("it is no head with one score, or has an axis without spread")
    cloud = Cloud(whole, t["cloud.mean"], t["cloud.axes"], t["cloud.spread"], float(described["rest"]))
    patches = None
    if maps:
        layers = tuple(Layer(part.block, int(c)) for part, c in zip(maps, channels, strict=True))
        patches = _patches(layers, t, width - features)
    numbers = {name: described[name] for name in NUMBERS}
    return Oddity(cloud, patches, tuple(described["middles"]), tuple(described["widths"]), **numbers)


def _patches(layers: tuple[Layer, ...], t: Mapping[str, NDArray[np.float32]], values: int) -> Patches:
    """values: of all maps of a picture. Raises ValueError."""
    width = sum(layer.channels for layer in layers)
    mean, whitening, memory = (t[name] for name in OF_PATCHES)
    if mean.shape != (width,) or whitening.shape != (width, width) or memory.shape[1:] != (width,) or not len(memory):
        raise ValueError(
            f"its patches have the shapes {mean.shape}, {whitening.shape} and {memory.shape}, needed: {width} features"
        )
    if values < width:
        raise ValueError(f"its maps hold {values} values a picture, and have {width} channels")
    return Patches(layers, mean, whitening, memory)


def tried(head: Head) -> tuple[Tried, ...]:
    """Nothing is chosen: there are no odd pictures to choose by."""
    return ()


def settings(head: Head) -> tuple[Setting, ...]:
    """The decisions of the fit with their sources."""
    own = oddity_of(head)
    layers = " and ".join(layer.block.removesuffix(MAP) for layer in own.patches.layers) if own.patches else ""
    score = f"the whole picture and its patches ({layers})" if layers else "the whole picture"
    how = "distances to good pictures in widths of left-out good ones, the larger (patches: Roth et al. 2022)"
    return (
        Setting("score", score, how),
        Setting(
            "threshold",
            f"a false-alarm rate of {own.rate:.3g}",
            f"{counted(own.n, 'good picture')}, each left out of what it was compared with",
        ),
    )


def remarks(head: Head) -> tuple[str, ...]:
    """What the threshold is, and what it cannot say."""
    own = oddity_of(head)
    if own.supported:
        return (f"odd from a score of 1, chosen so that {own.rate:.3g} of good pictures raise a false alarm",)
    return (
        f"a false-alarm rate of {own.rate:.3g} cannot be told from {counted(own.n, 'good picture')}: "
        f"{needed(own.rate)} are needed; the threshold lies above all of them",
    )
