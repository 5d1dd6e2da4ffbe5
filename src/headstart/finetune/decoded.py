"""A trained decoder as a head: data, until it is asked for answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart.heads.maps import Layer
from headstart.heads.material import Blocks
from headstart.heads.pointwise import Floats, checked, layers_of

if TYPE_CHECKING:
    from headstart.finetune.decoder import Decoder

AT_ONCE = 8  # images a forward pass
MOST_WIDTH = 4096  # of a decoder that is read from a file


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoder with its learned `state`, torch's name -> array; `width`: its channels; `epochs`: how often it saw each
    image, in `seconds` of training."""

    maps: tuple[Layer, ...]
    n_classes: int
    width: int
    state: Mapping[str, npt.NDArray[Any]]
    epochs: float = 0.0
    seconds: float = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the finest map."""
        return max((layer.shape[1:] for layer in self.maps), key=lambda side: side[0] * side[1])

    @cached_property
    def module(self) -> Decoder:
        """In torch, ready to answer."""
        import torch

        from headstart.finetune.decoder import Decoder

        made = Decoder([layer.shape for layer in self.maps], self.n_classes, self.width)
        made.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in self.state.items()})
        return made.eval().requires_grad_(False)

    def outputs(self, blocks: Blocks) -> Floats:
        """Logits (image, class, height, width) on the finest grid."""
        import torch

        n = len(blocks[self.maps[0].block])
        found = np.empty((n, self.n_classes, *self.grid), np.float32)
        with torch.inference_mode():
            for start in range(0, n, AT_ONCE):
                here = slice(start, start + AT_ONCE)
                found[here] = self.module([torch.from_numpy(layer.of(blocks, here)) for layer in self.maps]).numpy()
        return found

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What is kept in a file, by name."""
        return dict(self.state)

    def described(self) -> dict[str, Any]:
        """What else is kept, JSON-ready."""
        return {
            "kind": "decoder",
            "maps": [{"block": layer.block, "shape": list(layer.shape)} for layer in self.maps],
            "width": self.width,
            "epochs": self.epochs,
            "seconds": self.seconds,
        }


def read_decoded(described: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], n_classes: int) -> Decoded:
    """The head that `described` and `tensors` tell of. Raises ValueError in words that follow "its head ...", KeyError
    and TypeError for what is missing."""
    maps, width = layers_of(described), described["width"]
    if not (isinstance(width, int) and 1 <= width <= MOST_WIDTH):
        raise ValueError(f"has a decoder {width!r} wide, which must be a whole number in 1..{MOST_WIDTH}")
    state = {name: _of_shape(tensors, name, shape) for name, shape in shapes_of(maps, n_classes, width).items()}
    for name, value in state.items():
        if (name.endswith("running_var") and (value < 0).any()) or (name.startswith("spread_") and (value <= 0).any()):
            raise ValueError(f"has {name} below what a variance can be")
    return Decoded(maps, n_classes, width, state, float(described["epochs"]), float(described["seconds"]))


def shapes_of(maps: tuple[Layer, ...], n_classes: int, width: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a decoder."""
    import torch

    from headstart.finetune.decoder import Decoder

    with torch.device("meta"):
        made = Decoder([layer.shape for layer in maps], n_classes, width)
    return {name: tuple(value.shape) for name, value in made.state_dict().items()}


def _of_shape(tensors: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A tensor as it is; numbers that count (batches seen) keep their type."""
    found = checked(tensors, name, shape)
    return np.asarray(tensors[name], np.int64) if name.endswith("num_batches_tracked") else found
