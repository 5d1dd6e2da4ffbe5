"""Processes that learn together: each takes its share of every batch, and all take the same step.

Their gradients are averaged by torch (`DistributedDataParallel`), whose process group whoever started them has made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

Said = TypeVar("Said")


@dataclass(frozen=True)
class Team:
    """`size` processes, of which this one is number `rank`: 0 is the one that judges, saves and tells."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def idle(self, n: int) -> bool:
        """Whether nothing of a batch of n examples is left for this process."""
        return self.rank >= n

    def share(self, n: int) -> npt.NDArray[np.intp]:
        """The places of a batch of n examples that are this process's, a stretch of them; the first one where it is
        idle, since each process must have gradients, whose weight is then 0."""
        mine = self._shares(n)[self.rank]
        return mine if len(mine) else np.zeros(1, np.intp)

    def _shares(self, n: int) -> list[npt.NDArray[np.intp]]:
        return np.array_split(np.arange(n), self.size)

    def whole(self, share: torch.Tensor, n: int) -> torch.Tensor:
        """A batch of n examples, of which each process gives its share: to read a picture costs more than to send what
        was read."""
        if self.size == 1:
            return share
        sizes = [len(places) for places in self._shares(n)]
        mine = share.new_zeros((max(sizes), *share.shape[1:]))
        mine[: len(share)] = share
        shares = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(shares, mine)
        return torch.cat([some[:size] for some, size in zip(shares, sizes, strict=True)])

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as it is called in training: a backward pass averages the gradients of all processes. All begin
        with the weights and buffers of the first; later each keeps buffers of its own."""
        if self.size == 1:
            return module
        on = next(module.parameters()).device
        return DistributedDataParallel(module, [on.index] if on.type == "cuda" else None, broadcast_buffers=False)

    @contextmanager
    def apart(self, wrapped: nn.Module) -> Iterator[None]:
        """Backward passes add to this process's gradients alone; the next one outside averages the sums."""
        if isinstance(wrapped, DistributedDataParallel):
            with wrapped.no_sync():
                yield
        else:
            yield

    def total(self, value: float) -> float:
        """The sum of what each process gives."""
        if self.size == 1:
            return value
        values = torch.tensor([value], dtype=torch.float64)
        distributed.all_reduce(values)
        return float(values)

    def told(self, find: Callable[[], Said]) -> Said:
        """What the first process finds, in all of them."""
        if self.size == 1:
            return find()
        box = [find() if self.leads else None]
        distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]


ALONE = Team()
