"""Where a network can be read: layers by timm's, torch's and Keras's names, and how an activation is pooled.

Keras's names are those of `keras.applications`; each answers with the same activation (after the non-linearity that
Keras folds into the layer). A tap pools as it goes, so that no feature map leaves the network unless one is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headstart.data.preprocess import Preprocess
from headstart.errors import OptionError, nearest
from headstart.files.forks import Lock

if TYPE_CHECKING:
    import torch
    from torch import nn

LAST = "pre_logits"  # what the network's own classifier reads
LAST_MAP = "last_map"  # the last feature map, before pooling
INPUT = "input"  # normalised pixels: the cut before everything, where the tail is the whole network
LOGITS = "logits"  # what the network's own classifier says
# what a user asks for -> what a tap gives. `none` and `flatten` are the same numbers: a stored row has one axis.
POOLINGS = {"avg": "mean", "max": "max", "token": "token", "none": "map", "flatten": "map"}
OF = ":"  # between a network and its tap, where there are two networks: trunk.pair
_HOOKING = Lock()


@dataclass(frozen=True)
class Tap:
    """A named activation. `pools`: what is given of it: "mean", "std", "max" over the positions, "map", all of them, or
    "token", the class token.

    A map is (channel, height, width) flattened in this order, (channel, position, 1) for tokens whose places are not
    known, (channel,) after pooling; `shape` is known where "map" is asked for. `prefix`: tokens before those of the
    patches, which are no positions; the class token is the first of them. `through`: a module that the activation goes
    through before it is read, "" for none.
    """

    name: str  # what the block is called
    channels: int
    channel_axis: int  # 1 for (batch, channel, ...), -1 for (batch, ..., channel)
    pools: tuple[str, ...] = ("mean", "std")
    module: str = ""  # the module whose output it is; LAST_MAP and LAST are no modules
    shape: tuple[int, ...] = ()
    prefix: int = 0
    through: str = ""

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(f"{self.name}/{pool}" for pool in self.pools)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(math.prod(self.shape) if pool == "map" else self.channels for pool in self.pools)

    def read(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The activation of a batch -> one float32 (image, feature) for each of `pools`."""
        x = x.float()
        if self.channel_axis == -1 and x.ndim > 2:
            x = x.movedim(-1, 1)
        found = {"token": x[:, :, 0]} if "token" in self.pools else {}
        if self.prefix:
            x = x[:, :, self.prefix :]
        axes = tuple(range(2, x.ndim))
        if "map" in self.pools:
            found["map"] = x.flatten(1).clone()  # a later layer that works in place would change it
        if not axes:
            found |= {"mean": x, "max": x, "std": x.new_zeros(x.shape)}
            return tuple(found[pool] for pool in self.pools)
        mean = x.mean(axes, keepdim=True)  # over the axes as they lie: flattening them first costs the engine a copy
        found["mean"] = mean.flatten(1)
        if "std" in self.pools:
            found["std"] = ((x - mean) ** 2).mean(axes).sqrt()
        if "max" in self.pools:
            found["max"] = x.amax(axes)
        return tuple(found[pool] for pool in self.pools)


class Tapped(Protocol):
    """A network in torch, and what is read of it at which input: a `Backbone`."""

    @property
    def module(self) -> Any: ...
    @property
    def taps(self) -> tuple[Tap, ...]: ...
    @property
    def ends(self) -> tuple[str, ...]: ...
    @property
    def last_is_pooled(self) -> bool: ...
    @property
    def preprocess(self) -> Preprocess: ...


@contextmanager
def hooked(network: nn.Module, hooks: Iterable[tuple[str, Callable[..., None]]]) -> Iterator[None]:
    """The network with these forward hooks, by module name; afterwards it is as it was. Unknown names are left out.

    One thread at a time: hooks are the network's, so that each thread's would note what another one's pictures gave.
    """
    with _HOOKING:
        modules = dict(network.named_modules())
        handles = [modules[name].register_forward_hook(hook) for name, hook in hooks if name in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def find_layer(network: nn.Module, name: str, taps: tuple[str, ...]) -> str:
    """The module (or LAST, LAST_MAP) that a layer's name means, in any letter case.

    Raises OptionError with the nearest names.
    """
    known = {n.lower(): n for n, _ in network.named_modules() if n}
    keras = {n.lower(): module for n, module in keras_names(network).items()}
    own = {LAST: LAST, LAST_MAP: LAST_MAP, INPUT: INPUT}
    wanted = name.lower().replace(OF, ".")
    for names in (own, known, keras):
        if wanted in names:
            return names[wanted]
    near = nearest(name, [*own, *keras_names(network), *known.values()])
    some = ", ".join((*taps, LAST_MAP, LAST))
    raise OptionError(f"layer {name!r} is not known{near}: its taps are {some}; any module's name will do")


def keras_names(network: nn.Module) -> dict[str, str]:
    """Keras's layer names -> modules of this network; empty for a family that Keras does not have."""
    modules = dict(network.named_modules())
    find: dict[str, Callable[[Any], dict[str, str]]] = {
        "VGG": _vgg,
        "ResNet": _resnet,
        "DenseNet": _densenet,
        "InceptionV3": _inception_v3,
        "InceptionResnetV2": _inception_resnet_v2,
        "Xception": _xception,
        "NASNetALarge": _nasnet,
        "EfficientNet": _efficientnet,
        "MobileNetV3": _mobilenet_v3,
    }
    kind = type(network).__name__
    return {k: m for k, m in find[kind](network).items() if m in modules or m == LAST} if kind in find else {}


def _vgg(network: Any) -> dict[str, str]:
    """block1_conv1 is the output after its ReLU; block5_pool the last map."""
    from torch import nn

    found, block, conv = {"fc1": "pre_logits.act1", "fc2": "pre_logits.act2"}, 1, 0
    for place, layer in network.features.named_children():
        if isinstance(layer, nn.Conv2d):
            conv += 1
        elif isinstance(layer, nn.ReLU):
            found[f"block{block}_conv{conv}"] = f"features.{place}"
        elif isinstance(layer, nn.MaxPool2d):
            found[f"block{block}_pool"] = f"features.{place}"
            block, conv = block + 1, 0
    return found


def _resnet(network: Any) -> dict[str, str]:
    """A stage halves its map in the first convolution there and in the second here, so that one has no name."""
    found = {"conv1_bn": "bn1", "conv1_relu": "act1", "pool1_pool": "maxpool", "avg_pool": LAST}
    for stage in range(1, 5):
        for k, block in enumerate(getattr(network, f"layer{stage}")):
            keras, ours = f"conv{stage + 1}_block{k + 1}", f"layer{stage}.{k}"
            found[f"{keras}_out"] = ours
            if hasattr(block, "bn3"):
                found |= {f"{keras}_0_bn": f"{ours}.downsample.1", f"{keras}_3_bn": f"{ours}.bn3"}
                found |= {f"{keras}_2_bn": f"{ours}.bn2", f"{keras}_2_relu": f"{ours}.act2"}
                if k or stage == 1:
                    found |= {f"{keras}_1_bn": f"{ours}.bn1", f"{keras}_1_relu": f"{ours}.act1"}
    return found


def _densenet(network: Any) -> dict[str, str]:
    """A block's `concat` is found for its last layer only: the others exist in no single tensor here."""
    found = {"conv1_relu": "features.norm0", "pool1": "features.pool0", "relu": "features.norm5", "avg_pool": LAST}
    blocks = [m for n, m in network.features.named_children() if n.startswith("denseblock")]
    for k, block in enumerate(blocks, start=1):
        n_layers = len(list(block.children()))
        found[f"conv{k + 1}_block{n_layers}_concat"] = f"features.denseblock{k}"
        for j in range(1, n_layers + 1):
            keras, ours = f"conv{k + 1}_block{j}", f"features.denseblock{k}.denselayer{j}"
            found |= {f"{keras}_0_relu": f"{ours}.norm1", f"{keras}_1_relu": f"{ours}.norm2"}
            found |= {f"{keras}_1_conv": f"{ours}.conv1", f"{keras}_2_conv": f"{ours}.conv2"}
        ours = f"features.transition{k}"
        found |= {f"pool{k + 1}_relu": f"{ours}.norm", f"pool{k + 1}_conv": f"{ours}.conv", f"pool{k + 1}_pool": ours}
    return found


def _inception_v3(network: Any) -> dict[str, str]:
    mixed = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
    return {f"mixed{k}": f"Mixed_{name}" for k, name in enumerate(mixed)} | {"avg_pool": LAST}


def _inception_resnet_v2(network: Any) -> dict[str, str]:
    found = {"mixed_5b": "mixed_5b", "mixed_6a": "mixed_6a", "mixed_7a": "mixed_7a", "conv_7b_ac": "conv2d_7b"}
    for keras, ours in (("block35", "repeat"), ("block17", "repeat_1"), ("block8", "repeat_2")):
        found |= {f"{keras}_{k + 1}_ac": f"{ours}.{k}" for k in range(len(getattr(network, ours)))}
    return found | {"avg_pool": LAST}


def _xception(network: Any) -> dict[str, str]:
    """Keras's block2 to block13 end in `add`, `add_1` ... `add_11`."""
    found = {"block1_conv1_act": "act1", "block1_conv2_act": "act2", "add": "block1", "avg_pool": LAST}
    found |= {f"add_{k}": f"block{k + 1}" for k in range(1, 12)}
    return found | {"block14_sepconv1_act": "act3", "block14_sepconv2_act": "act4"}


def _nasnet(network: Any) -> dict[str, str]:
    """Keras counts the reduction cells too: normal cells 0-5, 7-12 and 13-18 for six cells a stage."""
    stage = sum(bool(re.fullmatch(r"cell_\d+", name)) for name, _ in network.named_children()) // 3
    found = {f"reduction_concat_stem_{k + 1}": f"cell_stem_{k}" for k in range(2)}
    found |= {f"reduction_concat_reduce_{(k + 1) * stage}": f"reduction_cell_{k}" for k in range(2)}
    for k in range(3 * stage):
        found[f"normal_concat_{k + (k >= stage)}"] = f"cell_{k}"
    return found


def _blocks(network: Any) -> list[tuple[int, int, str, Any]]:
    """(stage, place in it, name of the module, block) of every block."""
    return [(s, k, f"blocks.{s}.{k}", b) for s, stage in enumerate(network.blocks) for k, b in enumerate(stage)]


def _parts(place: str, block: Any) -> dict[str, str]:
    """What a block is made of -> its modules: "expand", "depthwise", "gate", "project", and "add" where it has one."""
    from torch import nn

    kind = type(block).__name__
    order = {
        "InvertedResidual": {"expand": "bn1", "depthwise": "bn2", "gate": "se", "project": "bn3"},
        "DepthwiseSeparableConv": {"depthwise": "bn1", "gate": "se", "project": "bn2"},
        "EdgeResidual": {"expand": "bn1", "project": "bn2"},
        "ConvBnAct": {"convolved": "bn1"},
    }.get(kind, {})
    found = {part: f"{place}.{module}" for part, module in order.items()}
    if isinstance(getattr(block, "se", None), nn.Identity):
        found.pop("gate", None)
    return found | ({"add": place} if order and block.has_skip else {})


def _named(patterns: dict[str, str], parts: dict[str, str]) -> dict[str, str]:
    return {pattern: parts[part] for part, pattern in patterns.items() if part in parts}


def _efficientnet(network: Any) -> dict[str, str]:
    """EfficientNet, MobileNet and MobileNetV2: timm has one class for them."""
    blocks = _blocks(network)
    if all(type(block).__name__ == "DepthwiseSeparableConv" for *_, block in blocks):
        found = {"conv1_relu": "bn1"}
        for k, (_, _, place, block) in enumerate(blocks, start=1):
            patterns = {"depthwise": f"conv_dw_{k}_relu", "project": f"conv_pw_{k}_relu"}
            found |= _named(patterns, _parts(place, block))
        return found
    if [len(stage) for stage in network.blocks] == [1, 2, 3, 4, 3, 3, 1]:
        return _mobilenet_v2(blocks)
    found = {"stem_activation": "bn1", "top_activation": "bn2", "avg_pool": LAST}
    for s, k, place, block in blocks:
        name = f"block{s + 1}{chr(ord('a') + k)}"
        patterns = {"expand": f"{name}_expand_activation", "depthwise": f"{name}_activation", "add": f"{name}_add"}
        patterns |= {"gate": f"{name}_se_excite", "project": f"{name}_project_bn"}
        patterns |= {"convolved": f"{name}_project_activation"}
        found |= _named(patterns, _parts(place, block))
    return found


def _mobilenet_v2(blocks: list[tuple[int, int, str, Any]]) -> dict[str, str]:
    found = {"Conv1_relu": "bn1", "out_relu": "bn2"}
    for n, (_, _, place, block) in enumerate(blocks):
        name = f"block_{n}" if n else "expanded_conv"
        patterns = {"expand": f"{name}_expand_relu", "depthwise": f"{name}_depthwise_relu"}
        patterns |= {"project": f"{name}_project_BN", "add": f"{name}_add"}
        found |= _named(patterns, _parts(place, block))
    return found


def _mobilenet_v3(network: Any) -> dict[str, str]:
    """MobileNetV3 alone: Keras has neither MobileNetV4 nor LCNet, for which timm has the same class."""
    blocks = _blocks(network)
    found: dict[str, str] = {}
    kinds = {type(block).__name__ for *_, block in blocks}
    if "InvertedResidual" not in kinds or "UniversalInvertedResidual" in kinds:
        return {}
    for n, (_, _, place, block) in enumerate(blocks):
        name = f"expanded_conv_{n}" if n else "expanded_conv"
        patterns = {"project": f"{name}_project_bn", "add": f"{name}_add", "gate": f"{name}_squeeze_excite_mul"}
        found |= _named(patterns, _parts(place, block))
    return found
