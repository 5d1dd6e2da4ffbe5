"""A map of a network as the store has it: which block, of which shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.heads.material import Blocks, Ints


@dataclass(frozen=True)
class Layer:
    """`block` holds (image, channel x height x width) of `shape` (channel, height, width)."""

    block: str
    shape: tuple[int, int, int]

    def of(self, blocks: Blocks, rows: Ints | slice) -> npt.NDArray[np.float32]:
        """(image, channel, height, width) of these rows."""
        return np.asarray(self.grid(blocks[self.block][rows]), np.float32)

    def grid(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(image, channel, height, width) of rows (image, value)."""
        return values.reshape(-1, *self.shape)
