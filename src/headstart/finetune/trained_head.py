"""A head of trained layers, as the story and saved models hold it: data, until it is asked for answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headstart.finetune.at_cut import Stored
from headstart.finetune.design import Design, Epoch
from headstart.heads.probe import Blocks, Candidate, Link
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import Part

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TrainedHead:
    """A trained module as a head. `left_out` (image, output): what it says of the training images that were held out to
    stop by, NaN for the others; `candidates` is empty where none were. `workers`: how many processes of a cluster
    trained it; None where this one did."""

    design: Design
    module: nn.Module
    scale: float  # features are divided by it: their root mean square over the training images
    candidates: tuple[Candidate, ...]
    left_out: Doubles = field(repr=False)
    epochs: tuple[Epoch, ...] = ()
    link: Link = "softmax"
    workers: int | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.design.block, root=False, unit=False),)

    def outputs(self, blocks: Blocks) -> Doubles:
        """(image, output)."""
        from headstart.finetune.forward import answers_of  # torch

        stored = Stored(self.design.shape, blocks[self.design.block])
        return answers_of(self.module, stored.still, np.arange(len(stored.values)), self.scale, self.link)
