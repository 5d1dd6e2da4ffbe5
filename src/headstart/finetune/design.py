"""What is trained step by step, as plain data: the layers and how they learn, in which numbers, and the loss curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headstart.data.splits import hold_out
from headstart.data.targets import Targets
from headstart.finetune.spec import Layer
from headstart.recipe import Training

if TYPE_CHECKING:
    from torch import nn

Ints = npt.NDArray[np.integer]
# (stage, total) -> called with the number done since the last call
Bar = Callable[[str, int], Callable[[int], None]]


def no_bar(stage: str, total: int) -> Callable[[int], None]:
    """Shows nothing."""
    return lambda done: None


@dataclass(frozen=True)
class Arithmetic:
    """`name`: for the report; `bf16`: convolutions and matrix products in bfloat16, the weights stay in float32;
    `channels_last`: (image, height, width, channel)."""

    name: str = "float32"
    bf16: bool = False
    channels_last: bool = False


PLAIN = Arithmetic()


@dataclass(frozen=True)
class Design:
    """What head, on which block of features, trained how. `shape`: (channel, height, width), (channel,) if pooled."""

    words: str  # the spec
    layers: tuple[Layer, ...]
    block: str
    shape: tuple[int, ...]
    training: Training
    start: Callable[[Ints], nn.Module] | None = None  # rows to learn from -> a module that has learned before
    # of parameters, by their share of the learning rate; None: one
    groups: Callable[[nn.Module], list[tuple[float, list[nn.Parameter]]]] | None = None
    arithmetic: Arithmetic = PLAIN


@dataclass(frozen=True)
class Epoch:
    """One line of the loss curve: the mean loss over the epoch's batches and on the held-out images, and the share of
    their answers that is right (None where answers are not right or wrong)."""

    loss: float
    held_out_loss: float | None
    held_out_accuracy: float | None
    rate: float  # learning rate at its end
    held_out_low: float | None = None  # of the accuracy's 95 % interval
    held_out_high: float | None = None

    @property
    def watched(self) -> float:
        """The loss that stops the training; no number is worse than any."""
        loss = self.loss if self.held_out_loss is None else self.held_out_loss
        return loss if math.isfinite(loss) else math.inf


def held_out(how: Training, targets: Targets, groups: Ints, seed: int, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """The places of the images that stop a training of these: none where the recipe holds none out."""
    if not how.held_out:
        return np.empty(0, np.int64)
    return np.flatnonzero(hold_out(targets.strata, groups, how.held_out, seed, keys))
