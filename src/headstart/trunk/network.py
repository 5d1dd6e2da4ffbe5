"""A frozen network without its top, as data: its taps, its layers, its preprocessing. torch makes it, others run it.

What the rest of headstart asks of a network was found out once, when torch had it at hand, and lies on the shelf of the
cache (`shelf.py`). The network itself is made when something asks for `Backbone.module`: training, a new layer or input
size, an engine that has not compiled it yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headstart.data.images import Preprocess, load
from headstart.data.table import table_of
from headstart.errors import OptionError
from headstart.files.forks import Lock
from headstart.trunk.catalog import side_by_side
from headstart.trunk.layers import LAST, LOGITS, POOLINGS, Tap
from headstart.trunk.shelf import Shelf
from headstart.trunk.store import cache_root
from headstart.trunk.tokens import Tokens, tokens_of

RANDOM = "random weights"
MADE_BY = ("torch", "timm", "code")  # of a key: the releases and the code that made it
Tensors = Mapping[str, npt.NDArray[np.generic]]


class Source(Protocol):
    """What a network in torch can be made of; it can be pickled."""

    def module(self) -> Any:
        """The network, in evaluation mode and without gradients."""

    def tensors(self) -> Tensors | None:
        """Its trunk's tensors under timm's names, where they are at hand without making it."""


@dataclass(frozen=True)
class Made:
    """A network that is there already."""

    network: Any

    def module(self) -> Any:
        return self.network

    def tensors(self) -> None:
        return None


class Network:
    """The torch network behind a backbone, made of its `source` at the first need; safe on several threads.

    `described`: what timm says of it, see `maker.backbone_of`. `key`: all that it is made of, for what is kept of it on
    the `shelf`; without a shelf everything is found out anew.
    """

    def __init__(
        self,
        source: Source,
        described: Mapping[str, Any],
        key: Mapping[str, Any] | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.source, self.described, self.key, self.shelf = source, described, dict(key or {}), shelf
        self._lock, self._made = Lock(), None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Where this is read may be another machine, with a cache of its own."""
        shelf = state["shelf"] and Shelf(cache_root())
        self.__init__(**state | {"shelf": shelf})  # type: ignore[misc]

    @property
    def module(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self.source.module()
            return self._made

    def tensors(self) -> Tensors:
        """The trunk's tensors under timm's names."""
        found = self.source.tensors() if self._made is None else None
        if found is not None:
            return found
        tops = tuple(self.described["tops"])
        return {k: v.cpu().numpy() for k, v in self.module.state_dict().items() if not k.startswith(tops)}

    def known(self, question: str, find: Callable[[Any], Any], any_weights: bool = False) -> Any:
        """`find(module)`, which JSON can hold: found out once for this network; `any_weights`: the answer is that of
        every network of this architecture whose size of input is the same."""
        if self.shelf is None:
            return find(self.module)
        alike = {k: self.described[k] for k in ("architecture", "input_size", "fixed_input_size")}
        alike |= {k: self.key[k] for k in MADE_BY}
        about = {"of": alike if any_weights else self.key, "question": question}
        found = self.shelf.fact(about)
        if found is None:
            found = find(self.module)
            self.shelf.note(about, found)
        return found


@dataclass(frozen=True)
class Backbone:
    """A pre-trained network, frozen: no gradient and evaluation mode.

    `weights_source` says where the weights came from, "random weights" included; `weights_hash` names their bytes.
    `last_is_pooled`: the fully connected top (larger than the trunk: VGG) is dropped, and `LAST` is the mean of the
    last feature map.
    """

    name: str
    network: Network
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
    n_classes: int = 0  # of the network's own top
    chain: tuple[str, ...] = ()  # the models that it comes from, oldest first; empty for published weights
    ends: tuple[str, ...] = (LAST,)  # what is given after the taps: LAST, LOGITS or nothing

    @property
    def module(self) -> Any:
        """The network in torch, which this makes if it was not needed before."""
        return self.network.module

    @property
    def tokens(self) -> Tokens | None:
        """What its tokens are, of a transformer that takes other sizes than its own."""
        return tokens_of(self.network.described)

    @property
    def random(self) -> bool:
        """Whether nothing was learned before: the weights were drawn."""
        return self.weights_source == RANDOM

    def around(self, module: Any, **changed: Any) -> Backbone:
        """The same of another network of this architecture, with what has `changed` of the fields."""
        n_classes = int(getattr(module, "num_classes", 0))
        return replace(self, network=Network(Made(module), self.network.described), n_classes=n_classes, **changed)

    def features(self, images: Iterable[Any], layer: str = LAST, pooling: str = "avg", batch: int = 8) -> Activations:
        """What a layer says of these images (paths, arrays, Pillow images), in float32 and eager torch.

        `layer`: a tap, any module's name, Keras's name, `last_map` or `pre_logits`; `pooling`: "avg", "max", "none"
        (the map as it is) or "flatten". Raises OptionError, and ImageError for an image that cannot be read.
        """
        from headstart.trunk.module import Trunk, eager

        tap = tap_at(self, layer, pooling)
        trunk = Trunk(replace(self, taps=(tap,), ends=()))
        table = table_of(images)
        rows = []
        for start in range(0, len(table), batch):
            some = [load(table.read(row), self.preprocess).array for row in range(len(table))[start : start + batch]]
            rows.append(eager(trunk, np.stack(some)))
        values = np.concatenate(rows)
        shape = tap.shape if pooling == "none" else (values.shape[1],)
        return Activations(values.reshape(-1, *shape), tuple(map(str, table.names)), layer, tap.module)

    def resized(self, preprocess: Preprocess) -> Backbone:
        """The same network with other preprocessing (input size, crop).

        A network that cannot take that size keeps its present one: Swin has its own built in, and a transformer takes
        multiples of its patches.
        """
        found = replace(self, preprocess=preprocess)
        return found if _runs(found) else replace(found, preprocess=replace(preprocess, size=self.preprocess.size))

    def to_json(self) -> dict[str, Any]:
        """Everything but the network itself."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("network", "preprocess", "taps")}
        return plain | {"preprocess": self.preprocess.to_json(), "taps": [vars(tap) for tap in self.taps]}

    @staticmethod
    def from_json(said: Mapping[str, Any], network: Network) -> Backbone:
        """What `to_json` said, around this network. Raises KeyError, TypeError or ValueError for anything else."""
        taps = tuple(Tap(**t | {"pools": tuple(t["pools"]), "shape": tuple(t["shape"])}) for t in said["taps"])
        plain = dict(said) | {"chain": tuple(said["chain"]), "ends": tuple(said["ends"])}
        return Backbone(
            **plain | {"preprocess": Preprocess.from_json(said["preprocess"]), "taps": taps}, network=network
        )


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


def block_names(backbone: Backbone) -> tuple[str, ...]:
    """The names of `Trunk`'s outputs, in order: "TAP/mean" and "TAP/std" for each tap, then "pre_logits"."""
    return (*(name for tap in backbone.taps for name in tap.blocks), *backbone.ends)


def block_widths(backbone: Backbone) -> tuple[int, ...]:
    """The number of features of each of `Trunk`'s outputs, in order."""
    ends = {LAST: backbone.last_channels, LOGITS: backbone.n_classes}
    return (*(width for tap in backbone.taps for width in tap.widths), *(ends[name] for name in backbone.ends))


def tap_at(backbone: Backbone, layer: str, pooling: str = "avg") -> Tap:
    """A layer by its name (see `find_layer`), pooled as "avg", "max", "token" (the class token), "none" or "flatten",
    at the present input size; or a block of the backbone's own taps, such as "blocks.5/token".

    Raises OptionError for an unknown layer or pooling, and where a layer gives no single activation.
    """
    if pooling not in POOLINGS:
        raise OptionError(f"pooling {pooling!r} is not known: one of {', '.join(POOLINGS)}")
    if POOLINGS[pooling] == "map" and backbone.preprocess.views > 1:
        raise OptionError(
            "views 2 averages a picture and its mirror image, whose maps do not lie on each other: leave --views away, "
            f"or pool {layer} by avg or max"
        )
    size, names = backbone.preprocess.size, tuple(tap.name for tap in backbone.taps)
    for own in backbone.taps:
        if layer in own.blocks:
            return replace(own, pools=(layer.rpartition("/")[2],))

    def find(module: Any) -> tuple[str, tuple[int, ...] | None]:
        from headstart.trunk.layers import find_layer
        from headstart.trunk.module import shapes

        place = find_layer(module, layer, names)
        return place, shapes(module, (place,), size).get(place)

    module, shape = backbone.network.known(f"layer {layer} at {size[0]} x {size[1]}", find)
    if shape is None:
        raise OptionError(f"layer {layer!r} of {backbone.name} gives no single activation: choose another")
    return _tap_of(backbone, layer, pooling, module, tuple(shape))


def _tap_of(backbone: Backbone, layer: str, pooling: str, module: str, shape: tuple[int, ...]) -> Tap:
    """The tap of a layer whose output has this shape for one image."""
    tokens, size = backbone.tokens, backbone.preprocess.size
    known = {tap.module: tap.channel_axis for tap in backbone.taps}
    last = len(shape) == 3 or (len(shape) == 4 and -1 in known.values())  # tokens; maps of Swin and its like
    axis = known.get(module, -1 if last else 1)
    if tokens is not None and len(shape) == 3 and shape[1] == tokens.count(size):
        prefix, places = tokens.prefix, [*tokens.grid(size)]
    else:
        prefix, places = 0, [side for k, side in enumerate(shape) if k not in (0, axis % len(shape))]
    if pooling == "token" and not (tokens is not None and tokens.has_class and prefix):
        raise OptionError(f"layer {layer!r} of {backbone.name} has no class token: take --pool avg")
    map_shape = (shape[axis], *places, *([1] if len(places) == 1 else []))
    return Tap(layer, shape[axis], axis, (POOLINGS[pooling],), module, map_shape, prefix)


def whole_maps(backbone: Backbone, stages: Collection[str]) -> Backbone:
    """The backbone that gives the maps of these taps too, beside what is pooled of them. Raises OptionError for two
    networks side by side, whose maps have places of their own."""
    if side_by_side(backbone.name):
        raise OptionError(f"{backbone.name} is two networks, whose maps do not join: name one of them")
    taps = [
        replace(tap, pools=(*tap.pools, "map"), shape=tap_at(backbone, tap.name, "none").shape)
        if tap.name in stages
        else tap
        for tap in backbone.taps
    ]
    return replace(backbone, taps=tuple(taps))


def read_at(backbone: Backbone, stages: Collection[str]) -> Backbone:
    """The backbone that gives the maps of these taps and the last layer, and nothing else."""
    chosen = whole_maps(replace(backbone, taps=tuple(t for t in backbone.taps if t.name in stages)), stages)
    return replace(chosen, taps=tuple(replace(tap, pools=("map",)) for tap in chosen.taps), ends=(LAST,))


def cut_at(backbone: Backbone, tap: Tap) -> Backbone:
    """The backbone with this tap as all that it says."""
    return replace(backbone, taps=(tap,), ends=())


def _runs(backbone: Backbone) -> bool:
    """Whether the network takes images of the size that `backbone.preprocess` says."""
    described, size = backbone.network.described, backbone.preprocess.size
    if list(size) == list(described["input_size"][1:]):
        return True
    if backbone.tokens is not None:
        return backbone.tokens.fits(size)
    if described["fixed_input_size"]:
        return False

    def find(module: Any) -> bool:
        from headstart.trunk.module import runs

        return runs(backbone)

    return bool(backbone.network.known(f"runs at {size[0]} x {size[1]}", find, any_weights=True))


def possible_sizes(backbone: Backbone, side: int) -> str:
    """The sides that a network takes where it does not take this one, in words for an error."""
    own, tokens = backbone.preprocess.size[0], backbone.tokens
    if tokens is not None:
        near = " or ".join(map(str, tokens.nearest(side)))
        return f"its patches are {tokens.patch} px, and the side is a multiple of that: {near}"

    def takes(side: int) -> bool:
        return _runs(replace(backbone, preprocess=replace(backbone.preprocess, size=(side, side))))

    low, high = 0, own
    while high - low > 1:  # whoever takes a size takes the larger ones, where any but its own is taken
        middle = (low + high) // 2
        low, high = (low, middle) if takes(middle) else (middle, high)
    return f"it takes {own} px only" if high == own else f"it takes {high} px at least"
