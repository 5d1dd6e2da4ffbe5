"""A decoder fitted to stored maps: it starts from the closed form on the same maps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.errors import OptionError
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.decoded import Decoded
from headstart.finetune.decoder import WIDTH, Decoder
from headstart.finetune.decoding import (
    Clock,
    Decoding,
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

Doubles = npt.NDArray[np.float64]
FINE = 4  # pixels of a mask, an axis, for each cell of the finest map: the network's own input where that has stride 4
SEEN = 200  # images whose maps are centred and scaled by


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

    def masks(self) -> npt.NDArray[np.uint8]:
        """(row, height, width) at FINE pixels a cell."""
        height, width = self.grid
        n = 1 + int(self.rows.max(initial=-1))
        return masks_at(self.mask_of, n, (FINE * height, FINE * width), self.rows)


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
    maps = stored_maps(material.views, material.maps)
    teaching = Teaching(maps, material.masks(), material.rows, len(material.views), material.n_classes)
    module = fresh_decoder(material, start, seed, width)
    groups = decoder_groups(module, how, 1.0)
    kept, learned = learn(module, groups, teaching, how, seed=seed, clock=clock, checkpoint=checkpoint, bar=bar)
    return head_of(kept, material, width, learned), learned


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


def started_decoder(material: Material, start: Pointwise | None, seed: int = 0, width: int = WIDTH) -> Decoded:
    """A decoder that has not learned yet, to be tuned with the trunk from the first step on."""
    return head_of(fresh_decoder(material, start, seed, width), material, width, Learned(0.0, 0.0, ()))


def decoder_groups(decoder: Decoder, how: Decoding, share: float) -> Groups:
    own, linear = decoder.groups()
    return [(share, own), (share * how.linear, linear)]


def head_of(kept: Any, material: Material, width: int, learned: Learned) -> Decoded:
    kept = kept.to(memory_format=torch.contiguous_format)
    state = {name: value.detach().cpu().numpy().copy() for name, value in kept.state_dict().items()}
    return Decoded(material.maps, material.n_classes, width, state, learned.epochs, learned.seconds)
