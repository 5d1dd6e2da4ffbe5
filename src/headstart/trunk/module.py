"""The torch module that an engine compiles: pixels -> what each tap says; and what can be asked of it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.files import forks
from headstart.trunk.layers import INPUT, LAST, LAST_MAP, LOGITS, Tap, Tapped, hooked
from headstart.trunk.tokens import at_size


class Trunk(nn.Module):
    """uint8 pixels (image, height, width, 3) -> one float32 (image, feature) per block; see `block_names`.

    Normalisation is inside, so that every engine and export gets the same pixels; pooling is in float32. Of two views
    (`Preprocess.views`) each image and its mirror image go through the network together, as a batch of twice as many,
    and what each tap says of the two is averaged.
    """

    def __init__(self, backbone: Tapped) -> None:
        super().__init__()
        forks.torch_runs()
        self.network: Any = at_size(backbone.module, backbone.preprocess.size)
        self.taps = backbone.taps
        self.ends = backbone.ends
        self.last_is_pooled = backbone.last_is_pooled
        self.views = backbone.preprocess.views
        mean, std = backbone.preprocess.mean, backbone.preprocess.std
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        if self.views == 1:
            return self._blocks(x)
        both = self._blocks(torch.cat([x, x.flip(3)]))
        return tuple(block.reshape(2, -1, block.shape[1]).mean(0) for block in both)

    def _blocks(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of normalised images (image, channel, height, width)."""
        pooled: dict[str, tuple[torch.Tensor, ...]] = {}

        def pool_at(tap: Tap) -> Callable[[nn.Module, Any, torch.Tensor], None]:
            # Pooled at once: a later layer that works in place would change what was kept.
            return lambda module, inputs, output: pooled.update({tap.name: tap.read(self._through(tap, output))})

        with hooked(self.network, [(tap.module, pool_at(tap)) for tap in self.taps]):
            features = self.network.forward_features(x)
            ends = [self._end(name, features) for name in self.ends]
            if any(tap.name not in pooled and tap.module not in (INPUT, LAST, LAST_MAP) for tap in self.taps):
                self.network.forward_head(features)  # a layer of the network's own top
            values: dict[str, Callable[[], torch.Tensor]] = {
                INPUT: lambda: x,
                LAST_MAP: lambda: features,
                LAST: lambda: self._end(LAST, features),
            }
            for tap in self.taps:
                if tap.module in values:
                    pooled[tap.name] = tap.read(values[tap.module]())
        return (*(block for tap in self.taps for block in pooled[tap.name]), *ends)

    def _through(self, tap: Tap, activation: torch.Tensor) -> torch.Tensor:
        return self.network.get_submodule(tap.through)(activation) if tap.through else activation

    def _end(self, name: str, features: torch.Tensor) -> torch.Tensor:
        if name == LOGITS:
            return self.network.forward_head(features).float()  # type: ignore[no-any-return]
        if self.last_is_pooled:
            return features.float().mean((2, 3))
        return self.network.forward_head(features, pre_logits=True)  # type: ignore[no-any-return]


def eager(trunk: Trunk, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The first block of these pixels (image, height, width, 3), in float32 and eager torch: (image, feature)."""
    with torch.inference_mode():
        return trunk(torch.from_numpy(pixels))[0].numpy()  # type: ignore[no-any-return]


def runs(backbone: Tapped) -> bool:
    """Whether the network takes images of the size that `backbone.preprocess` says, by trying."""
    try:
        with torch.inference_mode():
            Trunk(backbone)(torch.zeros(1, *backbone.preprocess.size, 3, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError, IndexError):  # torch's and timm's refusals of a shape
        return False
    return True


def shapes(network: Any, names: Iterable[str], size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The shape of each of these modules' output, of LAST_MAP and of LAST, for one image of (height, width) px.

    A module that gives no single tensor, or is not used, is left out.
    """
    forks.torch_runs()
    network, found = at_size(network, size), dict[str, tuple[int, ...]]()

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim >= 2:
                found[name] = tuple(output.shape)

        return hook

    with torch.inference_mode(), hooked(network, [(name, note(name)) for name in names]):
        features = network.forward_features(torch.zeros(1, 3, *size))
        last = network.forward_head(features, pre_logits=True)
        network.forward_head(features)
    if isinstance(features, torch.Tensor):  # CrossViT has a list of them
        found[LAST_MAP] = tuple(features.shape)
    return found | {INPUT: (1, 3, *size), LAST: tuple(last.shape)}
