"""Stages of the network that learn together with the decoder, from views that are drawn anew at each step.

A tuned network soon knows the maps of a few pictures by heart, and their mirror images are no help against that: views
at other scales and in other light are. They are made of the pixels, so that what stays below the cut runs at each step
too, without gradients.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.placing import Size
from headstart.data.zoomed import Zoom, drawn_window, mask_in, picture_in, relit
from headstart.errors import OptionError
from headstart.finetune.at_cut import normalised
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.decoded import Decoded
from headstart.finetune.decoder import Decoder, parts_between
from headstart.finetune.decoding import Batch, Clock, Decoding, Groups, Learned, as_batch, learn, points_at
from headstart.finetune.design import Bar, no_bar
from headstart.finetune.segmenter import Material, decoder_groups, head_of
from headstart.heads.maps import Layer
from headstart.heads.material import Ints
from headstart.heads.pointwise import Rng
from headstart.trunk.cut import find_cuts
from headstart.trunk.layers import INPUT
from headstart.trunk.network import Backbone
from headstart.trunk.weights import fingerprint

TRUNK_RATE = 0.1  # of the decoder's, for the last stage: what has learned before moves less
STAGE_DECAY = 0.8  # of the rate, for each stage below the last (discriminative rates: Howard and Ruder 2018)
LEARNED_BEFORE = 0.3  # of the rate, for a decoder that has


@dataclass(frozen=True)
class Pictures:
    """Where views come from. `pixels(rows)`: uint8 (image, height, width, 3) in the network's frame; `zoom`; `flips`:
    (across, down), which views may be beside upright ones."""

    pixels: Callable[[Ints], npt.NDArray[np.uint8]]
    zoom: Zoom
    flips: tuple[tuple[bool, bool], ...] = ()


@dataclass(frozen=True, eq=False)
class Views:
    """Pictures and their `masks` (row, height, width) as `decoding.learn` asks for them."""

    pictures: Pictures
    masks: npt.NDArray[np.uint8]
    rows: Ints
    n_classes: int
    backbone: Backbone

    @property
    def n_views(self) -> int:
        return 1 + len(self.pictures.flips)

    def batch(self, rows: Ints, views: Ints, rng: Rng) -> Batch:
        """Views of these rows, turned as the number of each says."""
        shown, points = [], []
        for row, view, pixels in zip(rows, views, self.pictures.pixels(rows), strict=True):
            across, down = ((False, False), *self.pictures.flips)[view]
            picture, mask = self._view(pixels, self.masks[row], rng)
            turn = (slice(None, None, -1 if down else 1), slice(None, None, -1 if across else 1))
            shown.append(picture[turn])
            points.append(points_at(np.ascontiguousarray(mask[turn]), self.n_classes, rng))
        x = torch.from_numpy(normalised(np.stack(shown), self.backbone))
        return as_batch([x.contiguous(memory_format=torch.channels_last)], points)

    def _view(self, pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], rng: Rng) -> Any:
        zoom, frame = self.pictures.zoom, (pixels.shape[0], pixels.shape[1])
        window = drawn_window(frame, zoom, rng)
        picture = relit(picture_in(pixels, window, zoom.size), zoom.light, rng)
        return picture, mask_in(mask, frame, window, zoom.size)


class Whole(nn.Module):
    """Pictures (image, channel, height, width) -> logits: `below`, parts of the network that stay as they are; `parts`,
    those above, which learn; the decoder on the maps that each of them makes."""

    def __init__(self, below: Sequence[nn.Module], parts: Sequence[nn.Module], decoder: Decoder) -> None:
        super().__init__()
        self.below, self.parts, self.decoder = nn.ModuleList(below), nn.ModuleList(parts), decoder

    def forward(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        (x,), maps = pictures, []
        with torch.no_grad():
            for part in self.below:
                x = part(x)
                maps.append(x)
        for part in self.parts:
            x = part(x)
            maps.append(x)
        return self.decoder(maps)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Segmenter:
    """A tuned trunk and the decoder on it; `cut`: the module above which it learned."""

    backbone: Backbone
    head: Decoded
    cut: str
    learned: Learned


def tune_segmenter(  # noqa: PLR0913 - what is tuned, on what, how; the rest is who watches and where it goes on
    backbone: Backbone,
    material: Material,
    pictures: Pictures,
    head: Decoded,
    cut: str,
    how: Decoding,
    *,
    seed: int = 0,
    clock: Clock = time.monotonic,
    checkpoint: Checkpoint | None = None,
    bar: Bar = no_bar,
) -> Segmenter:
    """The stages above `cut` (the pixels, or a tap whose map is one of `material.maps`) and the decoder learn on
    together.

    BatchNorm of the trunk keeps its statistics. Raises OptionError where `cut` is no such place or the network cannot
    be taken apart at its stages, BackboneError where it cannot be followed.
    """
    network = copy.deepcopy(backbone.module).requires_grad_(False)
    below, parts = parts_at(_at_size(backbone.around(network), pictures.zoom.size), material.maps, cut)
    decoder = copy.deepcopy(head.module).requires_grad_(True)
    module = Whole(below, parts, decoder)
    groups = decoder_groups(decoder, how, LEARNED_BEFORE if head.epochs else 1.0) + _trunk_groups(parts)
    kept, learned = learn(
        module,
        groups,
        Views(pictures, material.masks(), material.rows, material.n_classes, backbone),
        how,
        seed=seed,
        frozen_statistics=nn.ModuleList([module.below, module.parts]),
        clock=clock,
        checkpoint=checkpoint,
        bar=bar,
    )
    tuned = _with_weights(backbone, network, module, kept, cut)
    return Segmenter(tuned, head_of(kept.decoder, material, head.width, learned), cut, learned)


def check_tunable(backbone: Backbone, maps: Sequence[Layer]) -> None:
    """Raises OptionError where a stage's output is no map, as that of a transformer is none."""
    height, width = backbone.preprocess.size
    x = torch.zeros(1, 3, height, width)
    with torch.inference_mode():
        for part, layer in zip(parts_at(backbone, maps, INPUT)[1], maps, strict=True):
            x = part(x)
            if tuple(x.shape[1:]) != layer.shape:
                stage = layer.block.removesuffix("/map")
                raise OptionError(
                    f"--tune is not possible with {backbone.name}, whose {stage} gives no map: leave it out, or take a "
                    "convolutional network"
                )


def parts_at(backbone: Backbone, maps: Sequence[Layer], cut: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """(parts below the cut, parts above), each from one map to the next, the first from the pixels."""
    places = [INPUT, *(layer.block.removesuffix("/map") for layer in maps)]
    if cut not in places[:-1]:
        raise OptionError(f"tune above {cut!r} is not possible: one of {', '.join(places[:-1])}")
    names = {tap.name: tap.module for tap in backbone.taps}
    parts = parts_between(find_cuts(backbone), INPUT, [names[place] for place in places[1:]])
    at = places.index(cut)
    return parts[:at], parts[at:]


def _at_size(backbone: Backbone, size: Size) -> Backbone:
    """What is traced: a network's graph may hold numbers that follow from the size of its pictures."""
    return replace(backbone, preprocess=replace(backbone.preprocess, size=size))


def _trunk_groups(parts: Sequence[nn.Module]) -> Groups:
    """The parts' parameters, less the lower they lie; each once."""
    found, seen = list[tuple[float, list[nn.Parameter]]](), set[int]()
    for depth, part in enumerate(reversed(parts)):
        some = [p for p in part.parameters() if id(p) not in seen]
        seen |= {id(p) for p in some}
        for p in some:
            p.requires_grad_(True)
        found.append((TRUNK_RATE * STAGE_DECAY**depth, some))
    return found


def _with_weights(backbone: Backbone, network: Any, module: Whole, kept: Any, cut: str) -> Backbone:
    """The backbone with the weights that were kept: the average's are copies, which go where the network has them."""
    with torch.no_grad():
        for own, learned in zip(module.parts.parameters(), kept.parts.parameters(), strict=True):
            own.copy_(learned)
    network = network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    tops = (f"{backbone.classifier}.",) if backbone.classifier else ("head.", "pre_logits.")
    state = {k: v for k, v in network.state_dict().items() if not k.startswith(tops)}
    return backbone.around(
        network,
        weights_hash=fingerprint(state),
        weights_source=f"{backbone.weights_source}, tuned above {cut}",
        chain=(*(backbone.chain or (backbone.weights_source,)), f"tuned above {cut}"),
    )
