"""What heads learn from and are judged on: features with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Blocks = Mapping[str, npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Material:
    """Features with their labels. blocks: block -> (image, feature); y, groups (image,); keys: content hashes."""

    blocks: Blocks
    y: Ints
    groups: Ints
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    seed: int

    def at(self, rows: Ints) -> dict[str, npt.NDArray[np.floating]]:
        """The blocks of these rows; views of them where the rows are one stretch, which saves half the memory."""
        stretch = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows) and bool((np.diff(rows) == 1).all())
        index: Any = slice(int(rows[0]), int(rows[-1]) + 1) if stretch else rows
        return {name: block[index] for name, block in self.blocks.items()}

    def without_maps(self) -> Material:
        """The same images without the blocks that only a head of the user's own layers reads."""
        blocks = {name: block for name, block in self.blocks.items() if not name.endswith("/map")}
        return Material(blocks, self.y, self.groups, self.keys, self.classes, self.seed)

    def part(self, rows: Ints) -> Material:
        keys = tuple(self.keys[row] for row in rows)
        return Material(self.at(rows), self.y[rows], self.groups[rows], keys, self.classes, self.seed)
