"""A decoder fitted to stored maps, and the trunk above a cut tuned with it.

Both start from what was there before: the decoder from the closed form, the tuned network from the frozen one with its
decoder. The stored map of a stage is the activation at its end, so that tuning the stages above needs no pass and no
store of its own.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.errors import OptionError
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.decoded import Decoded
from headstart.finetune.decoder import WIDTH, Above, Decoder, parts_between
from headstart.finetune.decoding import (
    Clock,
    Decoding,
    Fetch,
    Groups,
    Learned,
    Teaching,
    learn,
    masks_at,
    stored_maps,
)
from headstart.finetune.design import Bar, no_bar
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints
from headstart.heads.pointwise import MaskOf, Pointwise
from headstart.trunk.cut import find_cuts
from headstart.trunk.network import Backbone
from headstart.trunk.weights import fingerprint

Doubles = npt.NDArray[np.float64]
FINE = 4  # pixels of a mask, an axis, for each cell of the finest map: the network's own input where that has stride 4
SEEN = 200  # images whose maps are centred and scaled by
TRUNK_RATE = 0.1  # of the decoder's, for the last stage: what has learned before moves less
STAGE_DECAY = 0.8  # of the rate, for each stage below the last (discriminative rates: Howard and Ruder 2018)
LEARNED_BEFORE = 0.3  # of the rate, for a decoder that has


@dataclass(frozen=True)
class Material:
    """What a segmenter learns from. views: blocks of the pictures as they are, and of them mirrored where they are at
    hand; `maps`: what is read of them, from low to high; `rows` (image,) that teach."""

    views: tuple[Blocks, ...]
    maps: tuple[Layer, ...]
    mask_of: MaskOf
    rows: Ints
    n_classes: int

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the finest map."""
        return max((layer.shape[1:] for layer in self.maps), key=lambda side: side[0] * side[1])

    def teaching(self, fetch: Fetch) -> Teaching:
        """With masks at FINE pixels a cell."""
        height, width = self.grid
        n = 1 + int(self.rows.max(initial=-1))
        masks = masks_at(self.mask_of, n, (FINE * height, FINE * width), self.rows)
        return Teaching(fetch, masks, self.rows, len(self.views), self.n_classes)


def fit_decoder(
    material: Material,
    start: Pointwise | None,
    how: Decoding,
    *,
    seed: int = 0,
    width: int = WIDTH,
    clock: Clock = time.monotonic,
    checkpoint: Checkpoint | None = None,
    bar: Bar = no_bar,
) -> tuple[Decoded, Learned]:
    """A decoder on these maps as they are stored. Raises DataError, OptionError where `start` reads other maps."""
    if start is not None and start.maps != material.maps:
        raise OptionError("a decoder starts from a closed form on the same maps: fit that to these maps first")
    teaching = material.teaching(stored_maps(material.views, material.maps))
    module = fresh_decoder(material, start, seed, width)
    groups = _decoder_groups(module, how, 1.0)
    kept, learned = learn(module, groups, teaching, how, seed=seed, clock=clock, checkpoint=checkpoint, bar=bar)
    return _as_head(kept, material, width, learned), learned


def fresh_decoder(material: Material, start: Pointwise | None, seed: int, width: int) -> Decoder:
    """Before its first step."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = Decoder([layer.shape for layer in material.maps], material.n_classes, width)
    some = material.rows[:: math.ceil(len(material.rows) / SEEN)]
    for k, layer in enumerate(material.maps):
        centre, spread = centre_and_spread(layer, material.views[0], some)
        getattr(module, f"centre_{k}").copy_(torch.from_numpy(centre))
        getattr(module, f"spread_{k}").copy_(torch.from_numpy(np.where(spread > 1e-6, spread, 1.0)))
    if start is not None:
        module.start(start)
    return module


def centre_and_spread(layer: Layer, blocks: Blocks, rows: Ints) -> tuple[Doubles, Doubles]:
    """(channel,), (channel,): mean and standard deviation over the places of the maps of these rows, read one after the
    other, twice."""
    places = len(rows) * layer.shape[1] * layer.shape[2]

    def summed(of: Callable[[Doubles], Doubles]) -> Doubles:
        each = (of(layer.of(blocks, np.array([row]))[0].astype(np.float64)) for row in rows)
        return np.asarray(sum(x.sum(axis=(1, 2)) for x in each) / places)

    centre = summed(lambda x: x)
    return centre, np.sqrt(summed(lambda x: np.square(x - centre[:, None, None])))


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
    head: Decoded,
    cut: str,
    how: Decoding,
    *,
    seed: int = 0,
    clock: Clock = time.monotonic,
    checkpoint: Checkpoint | None = None,
    bar: Bar = no_bar,
) -> Segmenter:
    """The stages above the map `cut` (a tap, one of `material.maps`) and the decoder learn on together.

    BatchNorm of the trunk keeps its statistics. Raises OptionError where `cut` is no such map or the network cannot be
    taken apart at its stages, BackboneError where it cannot be followed.
    """
    names = {tap.name: tap.module for tap in backbone.taps}
    places = [layer.block.removesuffix("/map") for layer in material.maps]
    if cut not in places[:-1]:
        raise OptionError(f"tune above {cut!r} is not possible: one of {', '.join(places[:-1])}")
    at = places.index(cut)
    network = copy.deepcopy(backbone.module).requires_grad_(False)
    parts = parts_between(find_cuts(backbone.around(network)), names[cut], [names[place] for place in places[at + 1 :]])
    decoder = copy.deepcopy(head.module).requires_grad_(True)
    module = Above(parts, decoder)
    groups = _decoder_groups(decoder, how, LEARNED_BEFORE if head.epochs else 1.0) + _trunk_groups(parts)
    teaching = material.teaching(stored_maps(material.views, material.maps[: at + 1]))
    kept, learned = learn(
        module,
        groups,
        teaching,
        how,
        seed=seed,
        frozen_statistics=(module.parts,),
        clock=clock,
        checkpoint=checkpoint,
        bar=bar,
    )
    tuned = _with_weights(backbone, network, module, kept, cut)
    return Segmenter(tuned, _as_head(kept.decoder, material, head.width, learned), cut, learned)


def started_decoder(material: Material, start: Pointwise | None, seed: int = 0, width: int = WIDTH) -> Decoded:
    """A decoder that has not learned yet, to be tuned with the trunk from the first step on."""
    return _as_head(fresh_decoder(material, start, seed, width), material, width, Learned(0.0, 0.0, ()))


def _decoder_groups(decoder: Decoder, how: Decoding, share: float) -> Groups:
    own, linear = decoder.groups()
    return [(share, own), (share * how.linear, linear)]


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


def _with_weights(backbone: Backbone, network: Any, module: Above, kept: Any, cut: str) -> Backbone:
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


def _as_head(kept: Any, material: Material, width: int, learned: Learned) -> Decoded:
    kept = kept.to(memory_format=torch.contiguous_format)
    state = {name: value.detach().cpu().numpy().copy() for name, value in kept.state_dict().items()}
    return Decoded(material.maps, material.n_classes, width, state, learned.epochs, learned.seconds)
