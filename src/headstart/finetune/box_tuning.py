"""Stages of the network that learn together with the head that finds things, from a stored map on.

Below the map everything stays, and no picture goes through it again; above it the maps are made anew at each step.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.errors import OptionError
from headstart.finetune.arithmetic import numbers
from headstart.finetune.box_head import BoxHead, empty_layers
from headstart.finetune.box_layers import WIDTH
from headstart.finetune.box_loss import loss_of
from headstart.finetune.box_training import Lesson, all_places, head_of
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.design import PLAIN, Arithmetic
from headstart.finetune.paced import Pace, Paced, Passed
from headstart.heads.maps import Layer
from headstart.trunk.cut import find_cuts, layer_cut
from headstart.trunk.layers import INPUT
from headstart.trunk.network import Backbone
from headstart.trunk.weights import fingerprint

Ints = npt.NDArray[np.integer]
MAP = "/map"
BELOW = 0.1  # learning rate of the stages in that of the head: what is known moves less than what is new


@dataclass(frozen=True)
class Tuned:
    """A backbone whose upper stages have learned, and the head that reads its maps."""

    backbone: Backbone
    head: BoxHead


class Above(nn.Module):
    """The last of the stored maps -> it and those above it -> what the head says. `parts`: from each map to the next;
    `network`: a copy of the backbone's, of which they are made."""

    def __init__(self, backbone: Backbone, stored: Sequence[Layer], made: Sequence[Layer], layers: nn.Module) -> None:
        super().__init__()
        network = copy.deepcopy(backbone.module).requires_grad_(False)
        cuts = find_cuts(backbone.around(network))
        names = [layer_cut(backbone, layer.block.removesuffix(MAP)) for layer in (stored[-1], *made)]
        pairs = itertools.pairwise(names)
        self.parts = nn.ModuleList(cuts.between(below, above) for below, above in pairs).requires_grad_(True)
        self.layers, self.n_read = layers, len(layers.enter)  # type: ignore[arg-type]
        self._network = [network]  # in a list: its other parameters are not this module's

    def forward(self, maps: Sequence[torch.Tensor], frame: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        found = list(maps)
        for part in self.parts:
            found.append(part(found[-1]))
        answers: tuple[torch.Tensor, torch.Tensor] = self.layers(found[-self.n_read :], frame)
        return answers

    def tuned(self, backbone: Backbone, cut: str) -> Backbone:
        """The backbone with what was learned, read at the same taps."""
        network = copy.deepcopy(self._network[0])
        for part in self.parts:
            network.load_state_dict(part.state_dict(), strict=False)
        network = network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
        return backbone.around(
            network,
            weights_hash=fingerprint(network.state_dict()),
            weights_source=f"{backbone.weights_source}, tuned above {cut}",
            chain=(*(backbone.chain or (backbone.weights_source,)), f"tuned above {cut}"),
        )


def tune_boxes(  # noqa: PLR0913 - network, data and start are given, the rest is how, who watches and where it goes on
    backbone: Backbone,
    lesson: Lesson,
    rows: Ints,
    made: tuple[Layer, ...],
    pace: Pace,
    *,
    head: BoxHead | None = None,
    width: int = WIDTH,
    below: float = BELOW,
    statistics: bool = False,
    seed: int = 0,
    arithmetic: Arithmetic = PLAIN,
    told: Callable[[Passed], None] = lambda passed: None,
    checkpoint: Checkpoint | None = None,
) -> Tuned:
    """All above the last of the lesson's stored maps learns: the maps `made` from it, and the `head` that these
    pictures have taught, or fresh layers `width` wide. `below`: the rate of the stages in that of the head;
    `statistics`: whether BatchNorm in them learns its own, as random weights need.

    Raises OptionError where the network cannot be cut there.
    """
    maps = _read(lesson.maps, made, head)
    module = Above(backbone, lesson.maps, made, _layers(maps, lesson.n_classes, head, width, seed))
    module = module.to(memory_format=torch.channels_last)
    middle = all_places(maps, lesson.frame)

    def learn(some: Ints, epoch: int, batch: int) -> torch.Tensor:
        number = (epoch + batch) % len(lesson.views)
        with numbers(arithmetic, "cpu"):
            logits, boxes = module(lesson.read(rows[some], number), lesson.frame)
        return loss_of(logits, boxes, middle, lesson.wanted(rows[some], number))

    groups = [(1.0, list(module.layers.parameters())), (below, list(module.parts.parameters()))]
    frozen = None if statistics else module.parts
    paced = Paced(module, pace, len(rows), seed=seed, groups=groups, frozen=frozen, checkpoint=checkpoint)
    done = paced.run(learn, told)
    assert isinstance(done, Above)
    found = head_of(done.layers, maps, lesson.frame, lesson.n_classes, width if head is None else head.width)
    return Tuned(done.tuned(backbone, lesson.maps[-1].block.removesuffix(MAP)), found)


def _read(stored: tuple[Layer, ...], made: tuple[Layer, ...], head: BoxHead | None) -> tuple[Layer, ...]:
    """The maps that the head reads: its own, or all but the pixels. Raises OptionError."""
    every = (*stored, *made)
    maps = tuple(layer for layer in every if layer.block != INPUT) if head is None else head.maps
    if not made or every[-len(maps) :] != maps:
        names = ", ".join(layer.block for layer in every)
        raise OptionError(f"maps {names}: needed are those that the head reads, the last of them made anew")
    return maps


def _layers(maps: tuple[Layer, ...], n_classes: int, head: BoxHead | None, width: int, seed: int) -> nn.Module:
    """The layers of a head that has learned, or fresh ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: nn.Module = empty_layers(maps, n_classes, width if head is None else head.width)
    if head is not None:
        layers.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in head.weights.items()})
    return layers
