"""A head in words: "flatten, dense 256 relu, dense", "conv 256 3x3 relu, gap".

| word | what | Keras |
|---|---|---|
| gap, gmp | mean, maximum over the positions | GlobalAveragePooling2D, GlobalMaxPooling2D |
| flatten | the whole map as one row | Flatten |
| dense N [activation] | fully connected; without N: one output a class, last only | Dense |
| conv N KxK [activation] | filters, the map keeps its size | Conv2D(padding="same") |
| maxpool [K], avgpool [K] | over K x K positions, 2 if not said | MaxPooling2D, AveragePooling2D |
| dropout P | share of values set to 0 in training | Dropout |
| batchnorm | normalised over the batch | BatchNormalization |
| relu, gelu, silu, tanh, sigmoid | on its own, or after dense and conv | Activation |

The last `dense` may be left out: it is always there, with one output a class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headstart.errors import OptionError, nearest

# word -> torch's class
ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "tanh": "Tanh", "sigmoid": "Sigmoid"}
POOLED = {"gap": "avg", "gmp": "max"}  # what the trunk can do itself, so that no map is kept
ARGUMENTS = {
    "gap": "nothing",
    "gmp": "nothing",
    "flatten": "nothing",
    "batchnorm": "nothing",
    **dict.fromkeys(ACTIVATIONS, "nothing"),
    "dense": f"a whole number of units from 1 and {', '.join(ACTIVATIONS)} or nothing",
    "conv": f"a number of filters from 1, a size such as 3x3, and {', '.join(ACTIVATIONS)} or nothing",
    "dropout": "a share from 0 to below 1",
    "maxpool": "a size from 2, or nothing",
    "avgpool": "a size from 2, or nothing",
}
MOST = 100_000  # units or filters: more is a slip of the finger


@dataclass(frozen=True)
class Layer:
    """One word group of a spec. `units` 0: one output a class."""

    kind: str
    units: int = 0
    kernel: int = 0
    share: float = 0.0
    activation: str = ""
    at: int = 0  # its first character in the spec


def parse(spec: str) -> tuple[Layer, ...]:
    """The layers of a spec; the last is always the dense layer of the classes.

    Raises OptionError with the place of the first mistake and what is allowed there.
    """
    layers = []
    for group in re.finditer(r"[^,]+|(?<=,)(?=,|$)|^$", spec):
        words = [(w.group().lower(), group.start() + w.start()) for w in re.finditer(r"\S+", group.group())]
        if not words:
            raise wrong(spec, group.start(), f"nothing stands there: one of {', '.join(ARGUMENTS)}")
        layers.append(_layer(spec, words))
    for layer in layers[:-1]:
        if layer.kind == "dense" and not layer.units:
            raise wrong(spec, layer.at, "only the last dense may be without a number of units")
    last = layers[-1]
    if last.kind != "dense" or last.units:
        layers.append(Layer("dense", at=len(spec)))
    return tuple(layers)


def _layer(spec: str, words: list[tuple[str, int]]) -> Layer:
    (kind, at), rest = words[0], words[1:]
    if kind not in ARGUMENTS:
        raise wrong(spec, at, f"{kind!r} is not known{nearest(kind, ARGUMENTS)}: one of {', '.join(ARGUMENTS)}")
    units, kernel, share, activation = 0, 0, 0.0, ""
    takes = {"dense": 1, "conv": 2, "dropout": 1, "maxpool": 1, "avgpool": 1}.get(kind, 0)
    numbers = rest[:takes]
    if rest and kind in ("dense", "conv") and rest[-1][0] in ACTIVATIONS:
        activation, rest = rest[-1][0], rest[:-1]
        numbers = rest[:takes]
    for word, place in rest[len(numbers) :]:
        raise wrong(spec, place, f"{word!r} is not allowed: {kind} takes {ARGUMENTS[kind]}")
    if len(numbers) < {"conv": 2, "dropout": 1}.get(kind, 0):
        raise wrong(spec, at, f"{kind} takes {ARGUMENTS[kind]}")
    for k, (word, place) in enumerate(numbers):
        number = _number(kind, k, word)
        if number is None:
            raise wrong(spec, place, f"{word!r} is not allowed: {kind} takes {ARGUMENTS[kind]}")
        if kind == "dropout":
            share = number
        elif kind in ("dense", "conv") and k == 0:
            units = int(number)
        else:
            kernel = int(number)
    if kind in ("maxpool", "avgpool"):
        kernel = kernel or 2
    return Layer(kind, units, kernel, share, activation, at)


def _number(kind: str, k: int, word: str) -> float | None:
    """The k-th number of a layer, or None where the word is not allowed there."""
    if kind == "dropout":
        share = float(word) if re.fullmatch(r"\d*\.?\d+|\d+\.", word) else 1.0
        return share if share < 1 else None
    if kind == "conv" and k == 1:
        size = re.fullmatch(r"(\d{1,2})x(\d{1,2})", word)
        return float(size[1]) if size and size[1] == size[2] and int(size[1]) > 0 else None
    least = 2 if kind in ("maxpool", "avgpool") else 1
    return float(word) if re.fullmatch(r"\d{1,6}", word) and least <= int(word) <= MOST else None


def wrong(spec: str, at: int, what: str) -> OptionError:
    """The error at this character of a spec."""
    return OptionError(f"head {spec!r}, character {at + 1}: {what}")


def pooling(layers: tuple[Layer, ...]) -> str:
    """How the trunk gives what the first layer reads: "avg", "max", or "none" for a whole map."""
    return POOLED.get(layers[0].kind, "none")
