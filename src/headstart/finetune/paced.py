"""A training that ends when its time does: the learning rate falls by what is spent, of seconds or of steps.

What a step learns from is the caller's: `learn` fetches its examples and says how wrong the module is. So heads and
networks of any task share the schedule, the moving average and the state that a killed training goes on from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from headstart.finetune.checkpoint import Checkpoint, State, named, under

Ints = npt.NDArray[np.integer]
Clock = Callable[[], float]  # s
Learn = Callable[[Ints, int, int], torch.Tensor]  # examples, epoch, batch of the epoch -> their mean loss


@dataclass(frozen=True)
class Pace:
    """How long and how fast. `seconds` of `clock` are the budget; without them it is `epochs`, and the same seed gives
    the same bits."""

    epochs: int = 20
    seconds: float | None = None
    clock: Clock = time.monotonic
    batch: int = 8  # images
    rate: float = 3e-3  # peak of AdamW
    warm_up: float = 0.05  # share of the time until the peak
    weight_decay: float = 0.02
    average: float = 0.99  # decay of the moving average of the weights, a step, once there are 90 of them
    clip: float = 10.0  # largest length of a gradient


@dataclass(frozen=True)
class Passed:
    """An epoch: its number from 1, the mean loss, and the share of the training that is done."""

    number: int
    loss: float
    done: float


def share(done: float, warm_up: float) -> float:
    """Share of the peak learning rate when `done` of the training, 0..1, is over: a straight rise, then half a cosine
    (Smith 2018)."""
    if done < warm_up:
        return max(done / warm_up, 1e-3)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (done - warm_up) / max(1e-9, 1 - warm_up)))


class Paced:
    """A module that learns. `n`: examples an epoch; `groups`: (share of the learning rate, parameters); `frozen`:
    BatchNorms that keep their statistics; `checkpoint`: where its state lies."""

    def __init__(
        self,
        module: nn.Module,
        pace: Pace,
        n: int,
        *,
        seed: int = 0,
        groups: list[tuple[float, list[nn.Parameter]]] | None = None,
        frozen: nn.Module | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.module, self.pace, self.n, self.seed, self.frozen = module, pace, n, seed, frozen
        self.optimizer = _optimizer(pace, groups or [(1.0, list(module.parameters()))])
        self.average = AveragedModel(module, multi_avg_fn=_averaging(pace.average), use_buffers=True)
        self.checkpoint = checkpoint
        self.step, self.spent, self.total, self.seen = 0, 0.0, 0.0, 0
        self.passed: list[Passed] = []
        self._random: torch.Tensor | None = None  # state of torch's generator
        self.batches = max(1, n // pace.batch)
        self._restore(checkpoint.load() if checkpoint else None)

    @property
    def done(self) -> float:
        """The share of the training that is over."""
        if self.pace.seconds is not None:
            return self.spent / max(1e-9, self.pace.seconds)
        return self.step / max(1, self.pace.epochs * self.batches)

    def run(self, learn: Learn, told: Callable[[Passed], None] = lambda passed: None) -> nn.Module:
        """Train to the end; the module whose weights are the moving average. Epochs that an earlier run has trained
        are told again."""
        for one in self.passed:
            told(one)
        with torch.random.fork_rng(devices=[]):  # of dropout
            torch.default_generator.manual_seed(self.seed)
            if self._random is not None:
                torch.set_rng_state(self._random)
            self._to_the_end(learn, told)
            if self.checkpoint:
                self.checkpoint.save(*self.state())
        return self.average.module.eval().requires_grad_(False)

    def _to_the_end(self, learn: Learn, told: Callable[[Passed], None]) -> None:
        began = self.pace.clock() - self.spent
        while self.done < 1:
            epoch, batch = divmod(self.step, self.batches)
            self.ready()
            self._learn(learn(self.drawn(self.step), epoch, batch))
            self.spent = self.pace.clock() - began
            if batch == self.batches - 1 or self.done >= 1:
                self.passed.append(Passed(epoch + 1, self.total / max(1, self.seen), min(1.0, self.done)))
                told(self.passed[-1])
                self.total, self.seen = 0.0, 0
            if self.checkpoint and self.checkpoint.due:
                self.checkpoint.save(*self.state())

    def ready(self) -> None:
        """In training mode, but for the statistics that stay."""
        self.module.train()
        for layer in self.frozen.modules() if self.frozen else ():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()

    def drawn(self, step: int) -> Ints:
        """The examples of a step: each once an epoch, those left over by whole batches in a later one."""
        epoch, batch = divmod(step, self.batches)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
        return order[batch * self.pace.batch : (batch + 1) * self.pace.batch]

    def _learn(self, loss: torch.Tensor) -> None:
        now = share(self.done, self.pace.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * now
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), self.pace.clip)
        self.optimizer.step()
        self.step += 1
        self.average.update_parameters(self.module)
        self.total, self.seen = self.total + float(loss.detach()), self.seen + 1

    def state(self) -> State:
        """All that it needs to go on, bit for bit where the budget is in epochs."""
        tensors = named("module", self.module.state_dict()) | named("average", self.average.state_dict())
        for k, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{k}.{name}"] = torch.as_tensor(value)
        passed = [[one.number, one.loss, one.done] for one in self.passed]
        record = {"step": self.step, "spent": self.spent, "total": self.total, "seen": self.seen, "passed": passed}
        return tensors | {"random": torch.get_rng_state()}, record

    def _restore(self, found: tuple[Mapping[str, torch.Tensor], Mapping[str, Any]] | None) -> None:
        if found is None:
            return
        tensors, record = found
        self.module.load_state_dict(under("module", tensors))
        self.average.load_state_dict(under("average", tensors))
        for k, parameter in enumerate(self._parameters()):
            for name, value in under(f"optimizer.{k}", tensors).items():
                # in the memory order of the parameter: another would round differently in its last bit
                like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                self.optimizer.state[parameter][name] = like.detach().copy_(value)
        self.step, self.spent = int(record["step"]), float(record["spent"])
        self.total, self.seen = float(record["total"]), int(record["seen"])
        self.passed = [Passed(*one) for one in record.get("passed", ())]
        self._random = tensors["random"]

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def _averaging(decay: float) -> Callable[..., None]:
    """Of a moving average that follows fast at first: (1 + steps) / (10 + steps), up to `decay`."""

    @torch.no_grad()
    def update(average: Any, current: Any, steps: Any) -> None:
        kept = min(decay, (1 + float(steps)) / (10 + float(steps)))
        for mine, new in zip(average, current, strict=True):
            if torch.is_floating_point(mine):
                mine.lerp_(new.to(mine.dtype), 1 - kept)
            else:
                mine.copy_(new)

    return update


def _optimizer(pace: Pace, groups: list[tuple[float, list[nn.Parameter]]]) -> torch.optim.Optimizer:
    """AdamW; no weight decay for biases and the scales of normalisation."""
    settings = []
    for part, parameters in groups:
        learn = [p for p in parameters if p.requires_grad]
        for flat, decay in ((False, pace.weight_decay), (True, 0.0)):
            some = [p for p in learn if (p.ndim <= 1) == flat]
            if some:
                settings.append({"params": some, "weight_decay": decay, "peak": pace.rate * part})
    return torch.optim.AdamW(settings, pace.rate, fused=True)
