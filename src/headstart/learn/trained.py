"""A head of one's own layers, trained on what the frozen trunk said: one pass of the trunk, whatever the epochs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from headstart.data.splits import hold_out
from headstart.errors import OptionError
from headstart.learn import spec
from headstart.learn.probe import Blocks, Candidate
from headstart.learn.recipe import Training
from headstart.learn.spectrum import Doubles
from headstart.learn.taps import Part

Ints = npt.NDArray[np.integer]
Values = npt.NDArray[np.floating]
CHUNK = 256  # rows a forward pass in evaluation: 46,000 values each in float32 are 47 MB


@dataclass(frozen=True)
class Design:
    """What head, on which block of features, trained how. `shape`: (channel, height, width), (channel,) if pooled."""

    words: str  # the spec
    layers: tuple[spec.Layer, ...]
    block: str
    shape: tuple[int, ...]
    training: Training
    start: Callable[[Ints], nn.Module] | None = None  # rows to learn from -> a module that has learned before


@dataclass(frozen=True)
class Epoch:
    """One line of the loss curve: mean log-loss, over the epoch's batches and on the held-out images."""

    loss: float
    held_out_loss: float | None
    held_out_accuracy: float | None
    rate: float  # learning rate at its end

    @property
    def watched(self) -> float:
        """The loss that stops the training; no number is worse than any."""
        loss = self.loss if self.held_out_loss is None else self.held_out_loss
        return loss if math.isfinite(loss) else math.inf


@dataclass(frozen=True)
class SpecHead:
    """A trained head. `left_out` (image, class): log-probabilities of the training images that were held out to stop
    by, NaN for the others; `candidates` is empty where none were."""

    design: Design
    module: nn.Module
    scale: float  # features are divided by it: their root mean square over the training images
    candidates: tuple[Candidate, ...]
    left_out: Doubles = field(repr=False)
    epochs: tuple[Epoch, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.design.block, root=False, unit=False),)

    def log_probabilities(self, blocks: Blocks) -> Doubles:
        """(image, class)."""
        values = blocks[self.design.block]
        chunks = [values[at : at + CHUNK] for at in range(0, len(values), CHUNK)]
        return np.concatenate([_forward(self.module, _tensor(c, self.design.shape, self.scale)) for c in chunks])


def check_layers(design: Design | None) -> None:
    """Raises OptionError where the layers cannot follow each other; builds nothing."""
    if design:
        with torch.device("meta"):
            spec.build(design.layers, design.shape, 2, design.words)


@dataclass(frozen=True)
class Examples:
    """What a head learns from: rows (example,) of values (image, feature), which may lie on disk and are never copied
    whole; y, groups (example,); keys: content hashes."""

    values: Values
    rows: Ints
    y: Ints
    groups: Ints
    keys: Sequence[str]
    n_classes: int
    views: tuple[Values, ...] = ()  # random views (view row, feature), one for each of some epochs; never judged by
    view_rows: Ints | None = None  # (example,) rows of the views

    def part(self, some: Ints, design: Design, scale: float, epoch: int = 0) -> torch.Tensor:
        """These examples as the layers take them in an epoch, float32; as they are in the first of each round."""
        turn = epoch % (len(self.views) + 1)
        if turn and self.view_rows is not None:
            return _tensor(self.views[turn - 1][self.view_rows[some]], design.shape, scale)
        return _tensor(self.values[self.rows[some]], design.shape, scale)


def build_head(design: Design, n_classes: int, seed: int = 0) -> nn.Module:
    """The layers with their first weights drawn from `seed`; torch's own random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return spec.build(design.layers, design.shape, n_classes, design.words)


def train_head(
    design: Design,
    examples: Examples,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> SpecHead:
    """Train, stopping by the log-loss of a held-out part.

    Each batch is drawn without replacement from a permutation of `seed`; a last batch of one image joins the one
    before it. The weights kept are those of the best epoch on the held-out part, which nothing else is judged on.
    Raises OptionError where the loss is no number.
    """
    how, y = design.training, examples.y
    held = hold_out(y, examples.groups, how.held_out, seed, examples.keys) if how.held_out else np.zeros(len(y), bool)
    rows, stop = np.flatnonzero(~held), np.flatnonzero(held)
    if design.start:
        scale, module = 1.0, design.start(examples.rows[rows]).to(device)
    else:
        scale = _root_mean_square(examples.values, examples.rows[rows])
        module = build_head(design, examples.n_classes, seed).to(device)
    found: list[Epoch] = []
    best = math.inf
    state = module.state_dict()
    order = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of dropout
        learn = _Learner(module, design, scale, device, math.ceil(len(rows) / how.batch_size))
        for number in range(how.epochs):
            loss = learn.epoch(examples, order.permutation(rows), number)
            found.append(learn.measured(examples, stop, loss))
            progress(found[-1])
            if found[-1].watched < best:
                best, state = found[-1].watched, copy.deepcopy(learn.answering.state_dict())
            elif len(found) - 1 - min(range(len(found)), key=lambda k: found[k].watched) >= how.patience:
                break
    if not math.isfinite(best):
        raise OptionError(f"the head {design.words!r} did not learn: its loss is no number; try another --optimizer")
    module.load_state_dict(state)
    module = module.eval().requires_grad_(False)
    left_out = np.full((len(y), examples.n_classes), np.nan)
    if len(stop):
        left_out[stop] = _answers(module, examples, stop, design, scale)
    accuracy = min(found, key=lambda epoch: epoch.watched).held_out_accuracy
    layer = design.block.split("/")[0]
    judged = () if accuracy is None else (Candidate(layer, design.words, 0.0, best, accuracy, 1.0),)
    return SpecHead(design, module.cpu(), scale, judged, left_out, tuple(found))


def one_cycle(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak learning rate: a straight rise over `warm_up` of the steps, then half a cosine (Smith 2018)."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - rise + 1) / max(1, steps - rise)))


class _Learner:
    """The layers with what moves them."""

    def __init__(self, module: nn.Module, design: Design, scale: float, device: str, n_batches: int) -> None:
        how = design.training
        self.module, self.design, self.scale, self.device = module, design, scale, device
        self.optimizer = _optimizer(how, module)
        self.average = _moving_average(module, how.average)
        steps = how.epochs * n_batches
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: one_cycle(step, steps, how.warm_up)
        )

    @property
    def rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    @property
    def answering(self) -> nn.Module:
        """The weights that answer: their moving average where there is one."""
        return self.module if self.average is None else self.average.module

    def epoch(self, examples: Examples, order: Ints, number: int) -> float:
        """One pass over the rows in this order; the mean loss."""
        how = self.design.training
        self.module.train()
        if how.frozen_statistics:
            for layer in self.module.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        total = 0.0
        for batch in _batches(order, how.batch_size):
            x = examples.part(batch, self.design, self.scale, number).to(self.device)
            target = torch.from_numpy(examples.y[batch].astype(np.int64)).to(self.device)
            self.optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(self.module(x), target, label_smoothing=how.smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            if how.clip:
                nn.utils.clip_grad_norm_(self.module.parameters(), how.clip)
            self.optimizer.step()
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.module)
            total += float(loss.detach()) * len(batch)
        return total / len(order)

    def measured(self, examples: Examples, stop: Ints, loss: float) -> Epoch:
        """The line of the loss curve after an epoch of this mean loss."""
        if not len(stop):
            return Epoch(loss, None, None, self.rate)
        found, y = _answers(self.answering, examples, stop, self.design, self.scale), examples.y[stop]
        held = float(-found[np.arange(len(y)), y].mean())
        return Epoch(loss, held, float((found.argmax(axis=1) == y).mean()), self.rate)


def _answers(module: nn.Module, examples: Examples, some: Ints, design: Design, scale: float) -> Doubles:
    """Log-probabilities (example, class) of some examples as they are, without random views."""
    chunks = [some[at : at + CHUNK] for at in range(0, len(some), CHUNK)]
    return np.concatenate([_forward(module, examples.part(chunk, design, scale)) for chunk in chunks])


def _batches(order: Ints, size: int) -> Iterator[Ints]:
    """Stretches of `order`; a last one of a single image joins the one before: batch statistics need two."""
    ends = [*range(size, len(order), size), len(order)]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]
    start = 0
    for end in ends:
        yield order[start:end]
        start = end


def _forward(module: nn.Module, x: torch.Tensor) -> Doubles:
    """Log-probabilities (image, class)."""
    module.eval()
    with torch.inference_mode():
        scores = module(x.to(next(module.parameters()).device))
        return np.asarray(scores.double().log_softmax(dim=1).cpu().numpy())


def _tensor(values: Values, shape: tuple[int, ...], scale: float) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).div_(scale).view(-1, *shape)


def _root_mean_square(values: Values, rows: Ints) -> float:
    """Over at most 2,000 of the rows: within 1 %, and no second copy of large maps."""
    some = values[rows[:: max(1, len(rows) // 1000)]].astype(np.float32)
    return float(np.sqrt(np.mean(np.square(some)))) or 1.0


def _moving_average(module: nn.Module, decay: float) -> AveragedModel | None:
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None  # type: ignore[no-untyped-call]


def _optimizer(plan: Training, module: nn.Module) -> torch.optim.Optimizer:
    learn = [p for p in module.parameters() if p.requires_grad]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(learn, plan.rate, momentum=0.9, nesterov=True)
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(learn, plan.rate, weight_decay=0.05)
    return torch.optim.Adam(learn, plan.rate)
