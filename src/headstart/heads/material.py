"""What heads learn from and are judged on: features with the truth of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headstart.data.targets import Targets
from headstart.heads.sums import stretch

Ints = npt.NDArray[np.int64]
Blocks = Mapping[str, npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Material:
    """Features with the truth of each image. blocks: block -> (image, feature); groups (image,): images of one group
    are left out together; keys: content hashes."""

    blocks: Blocks
    targets: Targets
    groups: Ints
    keys: tuple[str, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, rows: Ints) -> dict[str, npt.NDArray[np.floating]]:
        """As `rows_of`."""
        return rows_of(self.blocks, rows)

    def without_maps(self) -> Material:
        """The same images without the blocks that only a head of the user's own layers reads."""
        return replace(self, blocks={name: b for name, b in self.blocks.items() if not name.endswith("/map")})

    def part(self, rows: Ints) -> Material:
        keys = tuple(self.keys[row] for row in rows)
        return Material(self.at(rows), self.targets.take(rows), self.groups[rows], keys, self.seed)


def rows_of(blocks: Blocks, rows: Ints) -> dict[str, npt.NDArray[np.floating]]:
    """The blocks of these rows; views of them where the rows are one stretch, which saves half the memory."""
    index = stretch(rows)
    return {name: block[index] for name, block in blocks.items()}
