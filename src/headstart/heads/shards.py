"""Features that lie on disk in several files, read as one array: a part at a time, and no more of it in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Shards:
    """Files `.npy` of (image, feature), one after the other, as `sums.Rows`: a block of features for `fit_probe`.

    `ends` (file,): the number of images up to the end of each. A file is mapped for as long as rows of it are copied.
    """

    paths: tuple[Path, ...]
    ends: tuple[int, ...]
    width: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, paths: tuple[Path, ...]) -> Shards:
        """Raises ValueError where the files do not hold arrays of one width and type; OSError."""
        found = [np.load(path, mmap_mode="r") for path in paths]
        if len({(array.ndim, array.shape[1:], array.dtype) for array in found}) != 1 or found[0].ndim != 2:
            kinds = ", ".join(
                f"{path.name} {array.shape} {array.dtype}" for path, array in zip(paths, found, strict=True)
            )
            raise ValueError(f"shards: {kinds or 'no files'}; expected (image, feature) of one width and type")
        ends = np.cumsum([len(array) for array in found]).tolist()
        return cls(paths, tuple(ends), int(found[0].shape[1]), found[0].dtype)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.width

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: slice | npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """Rows (row, feature), by a slice or by their numbers from 0 on."""
        rows = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"shards: rows {rows.min()} to {rows.max()}, there are {len(self)}")
        out, shard = np.empty((len(rows), self.width), self.dtype), np.searchsorted(self.ends, rows, side="right")
        for k in np.unique(shard):
            here = np.flatnonzero(shard == k)
            start = self.ends[k - 1] if k else 0
            out[here] = np.load(self.paths[k], mmap_mode="r")[rows[here] - start]
        return out
