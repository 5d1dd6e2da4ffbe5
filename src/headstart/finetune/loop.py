"""One batch after another: the step, its learning rate, the moving average, and the state that goes to the disk."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from headstart.errors import DataError
from headstart.finetune.arithmetic import numbers, ordered, prepare
from headstart.finetune.checkpoint import State, named, under
from headstart.finetune.design import PLAIN, Arithmetic
from headstart.finetune.objective import Objective
from headstart.finetune.team import ALONE, Team
from headstart.recipe import Training

Ints = npt.NDArray[np.integer]
Fetch = Callable[[Ints], tuple[torch.Tensor, torch.Tensor]]  # examples -> (activations, encoded truths)
Groups = list[tuple[float, list[nn.Parameter]]]  # share of the peak learning rate, parameters


def one_cycle(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak learning rate: a straight rise over `warm_up` of the steps, then half a cosine (Smith 2018)."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - rise + 1) / max(1, steps - rise)))


class Loop:
    """A module with what moves it. `steps`: batches in all epochs; `seed` decides what mixup mixes; `groups` of
    parameters, None: all of one; `team`: who learns the same with this process, each from a share of every batch."""

    def __init__(  # noqa: PLR0913 - what learns, from what, and where
        self,
        module: nn.Module,
        how: Training,
        steps: int,
        objective: Objective,
        *,
        seed: int = 0,
        device: str = "cpu",
        arithmetic: Arithmetic = PLAIN,
        groups: Groups | None = None,
        team: Team = ALONE,
    ) -> None:
        self.how, self.steps, self.objective, self.seed, self.device = how, steps, objective, seed, device
        self.arithmetic, self.team = arithmetic, team
        self.module = prepare(module, arithmetic)
        self.called = team.wrap(self.module)
        self.optimizer = _optimizer(how, groups or [(1.0, list(self.module.parameters()))])
        self.average = _moving_average(self.module, how)
        self.part = how.batch_size  # images of a batch that go through at once; fewer where memory is short
        self.step = 0
        self.idle = self.rehearsed = False

    @property
    def rate(self) -> float:
        """The peak group's learning rate at the last step."""
        return self.how.rate * one_cycle(max(0, self.step - 1), self.steps, self.how.warm_up)

    @property
    def answering(self) -> nn.Module:
        """The weights that answer: their moving average where there is one."""
        return self.module if self.average is None else self.average.module

    def batches(self, order: Ints, fetch: Fetch, skip: int = 0) -> Iterator[float]:
        """Learn from these examples in this order, a batch at a time, without the first `skip` batches; the summed loss
        of each. The next batch is fetched meanwhile."""
        self.module.train()
        if self.how.frozen_statistics:
            for layer in self.module.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        some = list(batches(order, self.how.batch_size))[skip:]
        with ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
            coming = pool.submit(fetch, self._mine(some[0])) if some else None
            for number, batch in enumerate(some):
                assert coming is not None
                x, target = coming.result()
                following = some[number + 1 : number + 2]
                coming = pool.submit(fetch, self._mine(following[0])) if following else None
                self.idle = self.team.idle(len(batch))
                yield self._learn(x.to(self.device), target.to(self.device), len(batch)) * len(batch)

    def _mine(self, batch: Ints) -> Ints:
        """What this process reads of a batch."""
        return batch[self.team.share(len(batch))]

    def _learn(self, x: torch.Tensor, target: torch.Tensor, n: int) -> float:
        """One step by this process's share of a batch of n; the mean loss of the batch. Where memory is short it goes
        through in parts: the step is the same, but for the statistics of BatchNorm where they learn."""
        share = one_cycle(self.step, self.steps, self.how.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        x, target = self._mixed(x, target, n)
        known = max(1, int(self.team.total(0 if self.idle else _known(target))))
        self._rehearse(x, target, known)
        while True:
            try:
                loss = self.team.total(self._backward(x, target, known)) / self.team.size
                break
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if self.team.size > 1:  # the others wait for gradients of this process
                    raise DataError(
                        "out of memory on a worker of the cluster: take a smaller --batch-size or --size, or tune "
                        "fewer layers"
                    ) from None
            self._shrink()
        if self.how.clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.how.clip)
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(self.module)
        return loss

    def _rehearse(self, x: torch.Tensor, target: torch.Tensor, known: int) -> None:
        """Among several processes with accelerators: how many images go through at once is found before the first step
        that the others wait in, and nothing is learned."""
        if self.team.size == 1 or self.device == "cpu" or self.rehearsed:
            return
        buffers = {name: value.clone() for name, value in self.module.named_buffers()}
        while not self.rehearsed:
            try:
                with self.team.apart(self.called):
                    self._backward(x, target, known)
                self.rehearsed = True
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._shrink()
        for name, value in self.module.named_buffers():
            value.copy_(buffers[name])

    def _shrink(self) -> None:
        if self.part <= 1:
            raise DataError("out of memory with a single image at a time: take a smaller --size, or tune fewer layers")
        self.part = max(1, self.part // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _mixed(self, x: torch.Tensor, target: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixup (Zhang et al. 2018): each activation with a share of another one of the batch of n, and the truths
        likewise. What is not known of one of the two is not known of the mix."""
        if not (self.how.mixup and self.objective.mixes):
            return x, target
        share, other = self._partners(n, self.step)
        other = other[self.team.share(n)]
        added, wanted = self.team.whole(x, n)[other], self.team.whole(target, n)[other]
        return share * x + (1 - share) * added, share * target + (1 - share) * wanted

    def _partners(self, n: int, step: int) -> tuple[float, Ints]:
        """What mixup draws for a batch of n: (the share that each keeps, the place of what is added to it)."""
        drawn = np.random.default_rng((self.seed, step))
        return float(drawn.beta(self.how.mixup, self.how.mixup)), drawn.permutation(n)

    def _backward(self, x: torch.Tensor, target: torch.Tensor, known: int) -> float:
        """The gradients of a batch of which so many truths are `known`; its mean loss, or of a share of it so much
        that the mean over all processes, of this as of the gradients, is the whole batch's."""
        self.optimizer.zero_grad(set_to_none=True)
        total, parts = 0.0, [*zip(torch.split(x, self.part), torch.split(target, self.part), strict=True)]
        for number, (part, wanted) in enumerate(parts, start=1):
            with self.team.apart(self.called) if number < len(parts) else nullcontext():
                with numbers(self.arithmetic, self.device):
                    scores = self.called(ordered(part, self.arithmetic))
                loss = self.objective.loss(scores.float(), wanted, self.how.smoothing)
                loss = loss * (0.0 if self.idle else self.team.size * _known(wanted) / known)
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def state(self) -> State:
        """All that a training needs to go on, bit for bit."""
        tensors = named("module", self.module.state_dict()) | {"random": torch.get_rng_state()}
        if self.average is not None:
            tensors |= named("average", self.average.state_dict())
        for k, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{k}.{name}"] = torch.as_tensor(value)
        return tensors, {"step": self.step, "part": self.part}

    def restore(self, tensors: dict[str, torch.Tensor], record: Mapping[str, Any]) -> None:
        self.step, self.part = int(record["step"]), int(record["part"])
        self.module.load_state_dict(under("module", tensors))
        if self.average is not None:
            self.average.load_state_dict(under("average", tensors))
        for k, parameter in enumerate(self._parameters()):
            for name, value in under(f"optimizer.{k}", tensors).items():
                # in the memory order of the parameter: another would round differently in its last bit
                like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                self.optimizer.state[parameter][name] = like.detach().copy_(value)
        torch.set_rng_state(tensors["random"])

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def batches(order: Ints, size: int) -> Iterator[Ints]:
    """Stretches of `order`; a last one of a single image joins the one before: batch statistics need two."""
    ends = [*range(size, len(order), size), len(order)]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]
    start = 0
    for end in ends:
        yield order[start:end]
        start = end


def _known(target: torch.Tensor) -> int:
    """The truths of a batch that are known: what a mean loss is the mean over."""
    return int((~target.isnan()).sum())


def out_of_memory(error: BaseException) -> bool:
    """Whether torch, or Python, says that memory is short."""
    words = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in words


def kept(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights."""
    return copy.deepcopy(module.state_dict())


def _moving_average(module: nn.Module, how: Training) -> AveragedModel | None:
    """With its buffers where BatchNorm learns its statistics: those of random weights are of no use."""
    if not how.average:
        return None
    average = get_ema_multi_avg_fn(how.average)  # type: ignore[no-untyped-call]
    return AveragedModel(module, multi_avg_fn=average, use_buffers=not how.frozen_statistics)


def _optimizer(how: Training, groups: Groups) -> torch.optim.Optimizer:
    """No weight decay for biases and the scales of normalisation."""
    settings = []
    for share, parameters in groups:
        learn = [p for p in parameters if p.requires_grad]
        for flat, decay in ((False, how.weight_decay), (True, 0.0)):
            some = [p for p in learn if (p.ndim <= 1) == flat]
            if some:
                settings.append({"params": some, "weight_decay": decay, "peak": how.rate * share})
    if how.optimizer == "sgd":
        return torch.optim.SGD(settings, how.rate, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if how.optimizer == "adamw" else torch.optim.Adam
    return kind(settings, how.rate, fused=True)  # one pass over the weights (docs/measurements.md, fused-update)
