"""How the head that finds things learns, from stored maps of pictures and of their flipped views.

A mirrored map is not the map of the mirrored picture, so each view is a pass of the network and a store of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.boxes import BoxTruth
from headstart.finetune.arithmetic import numbers
from headstart.finetune.box_head import Blocks, BoxHead, Frame, empty_layers
from headstart.finetune.box_layers import WIDTH, places
from headstart.finetune.box_loss import Truth, loss_of
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.design import PLAIN, Arithmetic
from headstart.finetune.paced import Pace, Paced, Passed
from headstart.heads.maps import Layer

Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class View:
    """What the network said of all pictures, mirrored `across` (left and right) or `down` (top and bottom)."""

    blocks: Blocks = field(repr=False)
    across: bool = False
    down: bool = False


@dataclass(frozen=True)
class Lesson:
    """Stored maps of pictures of a frame, `views[0]` those of the pictures as they are, and the `truth` in px of the
    frame."""

    maps: tuple[Layer, ...]
    frame: Frame
    views: tuple[View, ...]
    truth: BoxTruth

    @property
    def n_classes(self) -> int:
        return len(self.truth.names)

    def read(self, rows: Ints, number: int) -> list[torch.Tensor]:
        """Maps (image, channel, h, w) of a view of these pictures, in channels-last order."""
        blocks = self.views[number].blocks
        return [channels_last(layer.grid(np.asarray(blocks[layer.block][rows]))) for layer in self.maps]

    def wanted(self, rows: Ints, number: int) -> Truth:
        view = self.views[number]
        return padded(self.truth, rows, self.frame, view.across, view.down)


def channels_last(values: npt.NDArray[np.floating]) -> torch.Tensor:
    """float32 (image, channel, h, w), the channels of a place side by side in memory."""
    turned = np.ascontiguousarray(values.transpose(0, 2, 3, 1), np.float32)
    return torch.from_numpy(turned).permute(0, 3, 1, 2)


def mirrored(boxes: npt.NDArray[np.float32], frame: Frame, across: bool, down: bool) -> npt.NDArray[np.float32]:
    """Boxes (n, 4) of the mirrored picture."""
    (height, width), found = frame, np.array(boxes, np.float32).reshape(-1, 4)
    if across:
        found[:, [0, 2]] = width - found[:, [2, 0]]
    if down:
        found[:, [1, 3]] = height - found[:, [3, 1]]
    return found


def padded(truth: BoxTruth, rows: Ints, frame: Frame, across: bool = False, down: bool = False) -> Truth:
    """The boxes of these pictures as a batch."""
    most = max((len(truth.labels[row]) for row in rows), default=0)
    boxes = np.zeros((len(rows), most, 4), np.float32)
    labels = np.full((len(rows), most), -1, np.int64)
    hard = np.zeros((len(rows), most), np.bool_)
    for k, row in enumerate(rows):
        n = len(truth.labels[row])
        boxes[k, :n] = mirrored(truth.boxes[row], frame, across, down)
        labels[k, :n], hard[k, :n] = truth.labels[row], truth.hard[row]
    return Truth(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(hard))


def all_places(maps: Sequence[Layer], frame: Frame) -> torch.Tensor:
    """(place, 2): x, y of every place of the maps, in the order of the head's answers."""
    return torch.cat([places(layer.shape[1:], frame)[0] for layer in maps])


def train_boxes(
    lesson: Lesson,
    rows: Ints,
    pace: Pace,
    *,
    width: int = WIDTH,
    seed: int = 0,
    arithmetic: Arithmetic = PLAIN,
    told: Callable[[Passed], None] = lambda passed: None,
    checkpoint: Checkpoint | None = None,
) -> BoxHead:
    """The head that these pictures teach; it shows and counts from a score of one half on until thresholds are chosen.

    Each batch is one view of pictures drawn without replacement; the views take turns.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = empty_layers(lesson.maps, lesson.n_classes, width)
    layers = layers.to(memory_format=torch.channels_last)
    middle = all_places(lesson.maps, lesson.frame)

    def learn(some: Ints, epoch: int, batch: int) -> torch.Tensor:
        number = (epoch + batch) % len(lesson.views)
        with numbers(arithmetic, "cpu"):
            logits, boxes = layers(lesson.read(rows[some], number), lesson.frame)
        return loss_of(logits, boxes, middle, lesson.wanted(rows[some], number))

    done = Paced(layers, pace, len(rows), seed=seed, checkpoint=checkpoint).run(learn, told)
    return head_of(done, lesson.maps, lesson.frame, lesson.n_classes, width)


def head_of(layers: nn.Module, maps: tuple[Layer, ...], frame: Frame, n_classes: int, width: int) -> BoxHead:
    """The head of trained layers."""
    weights: Mapping[str, Any] = {
        name: np.array(value.detach().cpu().contiguous().numpy()) for name, value in layers.state_dict().items()
    }
    return BoxHead(maps, frame, n_classes, width, weights)
