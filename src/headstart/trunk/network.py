"""A frozen network without its top: its taps, its layers, and the module that an engine compiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.images import Preprocess, load
from headstart.data.table import table_of
from headstart.errors import OptionError
from headstart.files import forks
from headstart.trunk.layers import INPUT, LAST, LAST_MAP, LOGITS, POOLINGS, Tap, find_layer, hooked

RANDOM = "random weights"


@dataclass(frozen=True)
class Backbone:
    """A pre-trained network, frozen: no gradient and evaluation mode.

    `weights_source` says where the weights came from, "random weights" included; `weights_hash` names their bytes.
    `last_is_pooled`: the fully connected top (larger than the trunk: VGG) is dropped, and `LAST` is the mean of the
    last feature map.
    """

    name: str
    module: nn.Module
    weights_source: str
    weights_hash: str
    preprocess: Preprocess
    taps: tuple[Tap, ...]
    last_channels: int
    last_is_pooled: bool
    n_parameters: int
    licence: str
    classifier: str  # the name of the network's own linear top; "" where it has none that reads `LAST`
    native_size: int  # px, the side of the input that the weights were trained or tested at
    chain: tuple[str, ...] = ()  # the models that it comes from, oldest first; empty for published weights
    ends: tuple[str, ...] = (LAST,)  # what is given after the taps: LAST, LOGITS or nothing

    @property
    def random(self) -> bool:
        """Whether nothing was learned before: the weights were drawn."""
        return self.weights_source == RANDOM

    def features(self, images: Iterable[Any], layer: str = LAST, pooling: str = "avg", batch: int = 8) -> Activations:
        """What a layer says of these images (paths, arrays, Pillow images), in float32 and eager torch.

        `layer`: a tap, any module's name, Keras's name, `last_map` or `pre_logits`; `pooling`: "avg", "max", "none"
        (the map as it is) or "flatten". Raises OptionError, and ImageError for an image that cannot be read.
        """
        tap = tap_at(self, layer, pooling)
        trunk = Trunk(replace(self, taps=(tap,), ends=()))
        table = table_of(images)
        rows = []
        for start in range(0, len(table), batch):
            some = [load(table.read(row), self.preprocess).array for row in range(len(table))[start : start + batch]]
            with torch.inference_mode():
                rows.append(trunk(torch.from_numpy(np.stack(some)))[0].numpy())
        values = np.concatenate(rows)
        shape = tap.shape if pooling == "none" else (values.shape[1],)
        return Activations(values.reshape(-1, *shape), tuple(map(str, table.names)), layer, tap.module)

    def resized(self, preprocess: Preprocess) -> Backbone:
        """The same network with other preprocessing (input size, crop).

        A network that cannot take that size (ViT and Swin have theirs built in) keeps its present one.
        """
        found = replace(self, preprocess=preprocess)
        return found if _runs(found) else replace(found, preprocess=replace(preprocess, size=self.preprocess.size))


@dataclass(frozen=True)
class Activations:
    """values float32 (image, feature), or (image, channel, height, width) of a map; names (image,)."""

    values: npt.NDArray[np.float32]
    names: tuple[str, ...]
    layer: str  # as it was asked for
    module: str  # what it is called in the network

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


class Trunk(nn.Module):
    """uint8 pixels (image, height, width, 3) -> one float32 (image, feature) per block; see `block_names`.

    Normalisation is inside, so that every engine and export gets the same pixels; pooling is in float32.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        forks.torch_runs()
        self.network: Any = backbone.module
        self.taps = backbone.taps
        self.ends = backbone.ends
        self.last_is_pooled = backbone.last_is_pooled
        mean, std = backbone.preprocess.mean, backbone.preprocess.std
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        pooled: dict[str, tuple[torch.Tensor, ...]] = {}

        def pool_at(tap: Tap) -> Callable[[nn.Module, Any, torch.Tensor], None]:
            # Pooled at once: a later layer that works in place would change what was kept.
            return lambda module, inputs, output: pooled.update({tap.name: tap.read(output)})

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

    def _end(self, name: str, features: torch.Tensor) -> torch.Tensor:
        if name == LOGITS:
            return self.network.forward_head(features).float()  # type: ignore[no-any-return]
        if self.last_is_pooled:
            return features.float().mean((2, 3))
        return self.network.forward_head(features, pre_logits=True)  # type: ignore[no-any-return]


def block_names(backbone: Backbone) -> tuple[str, ...]:
    """The names of `Trunk`'s outputs, in order: "TAP/mean" and "TAP/std" for each tap, then "pre_logits"."""
    return (*(name for tap in backbone.taps for name in tap.blocks), *backbone.ends)


def block_widths(backbone: Backbone) -> tuple[int, ...]:
    """The number of features of each of `Trunk`'s outputs, in order."""
    n_classes: Any = getattr(backbone.module, "num_classes", 0)  # torch types every attribute as a module or tensor
    ends = {LAST: backbone.last_channels, LOGITS: int(n_classes)}
    return (*(width for tap in backbone.taps for width in tap.widths), *(ends[name] for name in backbone.ends))


def tap_at(backbone: Backbone, layer: str, pooling: str = "avg") -> Tap:
    """A layer by its name (see `find_layer`), pooled as "avg", "max", "none" or "flatten", at the present input size.

    Raises OptionError for an unknown layer or pooling, and where a layer gives no single activation.
    """
    if pooling not in POOLINGS:
        raise OptionError(f"pooling {pooling!r} is not known: one of {', '.join(POOLINGS)}")
    module = find_layer(backbone.module, layer, tuple(tap.name for tap in backbone.taps))
    shape = shapes(backbone.module, (module,), backbone.preprocess.size).get(module)
    if shape is None:
        raise OptionError(f"layer {layer!r} of {backbone.name} gives no single activation: choose another")
    known = {tap.module: tap.channel_axis for tap in backbone.taps}
    last = len(shape) == 3 or (len(shape) == 4 and -1 in known.values())  # tokens; maps of Swin and its like
    axis = known.get(module, -1 if last else 1)
    places = [size for k, size in enumerate(shape) if k not in (0, axis % len(shape))]
    map_shape = (shape[axis], *places, *([1] if len(places) == 1 else []))
    return Tap(layer, shape[axis], axis, (POOLINGS[pooling],), module, map_shape)


def cut_at(backbone: Backbone, tap: Tap) -> Backbone:
    """The backbone with this tap as all that it says."""
    return replace(backbone, taps=(tap,), ends=())


def shapes(network: Any, names: Iterable[str], size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The shape of each of these modules' output, of LAST_MAP and of LAST, for one image of (height, width) px.

    A module that gives no single tensor, or is not used, is left out.
    """
    forks.torch_runs()
    found: dict[str, tuple[int, ...]] = {}

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


def _runs(backbone: Backbone) -> bool:
    """Whether the network takes images of the size that `backbone.preprocess` says."""
    cfg: Mapping[str, Any] = vars(backbone.module)["pretrained_cfg"]
    if backbone.preprocess.size == tuple(cfg["input_size"][1:]):
        return True
    if cfg.get("fixed_input_size"):
        return False
    try:
        with torch.inference_mode():
            Trunk(backbone)(torch.zeros(1, *backbone.preprocess.size, 3, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError, IndexError):  # torch's and timm's refusals of a shape
        return False
    return True


def possible_sizes(backbone: Backbone) -> str:
    """The sides that a network takes, in words for an error."""
    own = backbone.preprocess.size[0]

    def takes(side: int) -> bool:
        return _runs(replace(backbone, preprocess=replace(backbone.preprocess, size=(side, side))))

    low, high = 0, own
    while high - low > 1:  # whoever takes a size takes the larger ones, where any but its own is taken
        middle = (low + high) // 2
        low, high = (low, middle) if takes(middle) else (middle, high)
    return f"it takes {own} px only" if high == own else f"it takes {high} px at least"
