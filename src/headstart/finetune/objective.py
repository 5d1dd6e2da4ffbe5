"""What is learned step by step: a loss for the training, and what held-out images say of its outputs.

outputs (image, output) are what a head gives: log-probabilities of classes, log-odds of labels, values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.targets import Targets, class_numbers
from headstart.heads.calibrate import best_scale, log_softmax
from headstart.heads.probe import Link
from headstart.heads.spectrum import Doubles
from headstart.judge.class_marks import class_marks

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
EVEN = 0.5  # the probability that label smoothing draws a label to


@dataclass(frozen=True)
class Unit:
    """In which numbers values are learned: value = centre + spread * number; centre, spread (output,).

    The same rate then suits counts of thousands and shares of one: a head starts and ends in the user's own numbers,
    and learns in these.
    """

    centre: Doubles
    spread: Doubles

    def into(self, encoded: Floats) -> Floats:
        return ((encoded - self.centre) / self.spread).astype(np.float32)

    def back(self, outputs: Doubles) -> Doubles:
        return np.asarray(self.centre + self.spread * outputs)


@dataclass(frozen=True)
class Objective:
    """What one kind of truth is learned by, and what outputs are worth to held-out images.

    `encode(targets)`: as the loss takes them, float (image, output), nan where the truth is not known, so that mixup
    can mix them. `loss(scores, encoded, smoothing)`: the mean over what is known of a batch, 0 where nothing is.
    `link`: what the last layer gives -> outputs. `best_scale(targets, outputs)`: (the factor with which the outputs
    answer best for these images, the mean loss with it); (1, the mean loss) where a factor means nothing.
    `mean_loss(targets, outputs)`: as they are. `losses(targets, outputs)`: of each image, (image,), no image so large
    that it decides alone. `right(targets, outputs)`: the share of each image's answers that is right, (image,); None
    where answers are not right or wrong. `unit(targets that teach)`: None where the last layer learns as it is.
    `mixes`: whether the mean of two truths is one, so that mixup can be used.
    """

    encode: Callable[[Targets], Floats]
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    link: Link
    best_scale: Callable[[Targets, Doubles], tuple[float, float]]
    mean_loss: Callable[[Targets, Doubles], float]
    losses: Callable[[Targets, Doubles], Doubles]
    right: Callable[[Targets, Doubles], NDArray[Any]] | None
    unit: Callable[[Targets], Unit | None]
    mixes: bool = True

    def linked(self, scores: Doubles) -> Doubles:
        """What a last layer, or a mean of several, gives -> outputs."""
        return log_softmax(scores) if self.link == "softmax" else scores

    def scaled(self, targets: Targets, outputs: Doubles) -> Doubles:
        """The outputs at the factor that answers best for these images."""
        return self.linked(self.best_scale(targets, outputs)[0] * outputs)

    def accuracy(self, targets: Targets, outputs: Doubles, loss: float) -> float:
        """The share of the answers that is right; of values the share of their variance that is explained."""
        return 1 - loss if self.right is None else float(self.right(targets, outputs).mean())


def no_unit(targets: Targets) -> Unit | None:
    """Of objectives whose last layer learns as it is."""
    return None


def _one_hot(targets: Targets) -> Floats:
    found = np.zeros((len(targets), len(targets.names)), np.float32)
    found[np.arange(len(targets)), class_numbers(targets)] = 1
    return found


def _cross_entropy(scores: torch.Tensor, encoded: torch.Tensor, smoothing: float) -> torch.Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(scores, encoded, label_smoothing=smoothing)


def _best_class_scale(targets: Targets, outputs: Doubles) -> tuple[float, float]:
    return best_scale(outputs, class_numbers(targets))


def _mean_log_loss(targets: Targets, outputs: Doubles) -> float:
    return float(-outputs[np.arange(len(outputs)), class_numbers(targets)].mean())


def _log_losses(targets: Targets, outputs: Doubles) -> Doubles:
    return np.asarray(class_marks(class_numbers(targets), np.exp(outputs))["loss"])


def _right_classes(targets: Targets, outputs: Doubles) -> NDArray[Any]:
    return np.asarray(outputs.argmax(axis=1) == class_numbers(targets))


def _present(targets: Targets) -> Floats:
    return targets.matrix().astype(np.float32)


def _binary_cross_entropy(scores: torch.Tensor, encoded: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Of the labels that are known; each drawn to EVEN by `smoothing`."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    known = ~encoded.isnan()
    wanted = torch.where(known, encoded, EVEN) * (1 - smoothing) + EVEN * smoothing
    losses = binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


def _label_losses(targets: Targets, outputs: Doubles) -> Doubles:
    """-log of the probability of the truth (image, label); nan where that is not known."""
    wanted = targets.matrix()
    return np.asarray(np.logaddexp(0.0, np.where(wanted == 1, -outputs, outputs)) + 0.0 * wanted)


def _best_odds_scale(targets: Targets, outputs: Doubles) -> tuple[float, float]:
    """One factor of all log-odds: a label that is there or not is a choice between two classes."""
    wanted = targets.matrix()
    known = ~np.isnan(wanted)
    if not known.any():
        return 1.0, 0.0
    half = outputs[known] / 2
    return best_scale(np.stack([-half, half], axis=1), wanted[known].astype(np.int64))


def _mean_label_loss(targets: Targets, outputs: Doubles) -> float:
    losses = _label_losses(targets, outputs)
    known = ~np.isnan(losses)
    return float(losses[known].mean()) if known.any() else 0.0


def _mean_of_known(values: Doubles, empty: float) -> Doubles:
    """The mean (image,) of values (image, label) that are not nan; `empty` where all are."""
    known = ~np.isnan(values)
    found = np.where(known, values, 0.0).sum(axis=1) / np.maximum(1, known.sum(axis=1))
    return np.where(known.any(axis=1), found, empty)


def _losses_of_labels(targets: Targets, outputs: Doubles) -> Doubles:
    return _mean_of_known(_label_losses(targets, outputs), 0.0)


def _right_labels(targets: Targets, outputs: Doubles) -> NDArray[Any]:
    """An image of which nothing is known has nothing wrong."""
    wanted = targets.matrix()
    hit = np.where(np.isnan(wanted), np.nan, ((outputs > 0) == (wanted == 1)).astype(np.float64))
    return _mean_of_known(hit, 1.0)


def _squared(scores: torch.Tensor, encoded: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Smoothing means nothing for a value: it is left aside."""
    from torch.nn.functional import mse_loss

    return mse_loss(scores, encoded)


def _spread(values: Doubles) -> Doubles:
    """Standard deviation (output,); 1 of a column that is the same throughout."""
    found = values.std(axis=0)
    return np.where(found > 0, found, 1.0)


def _unit_of_values(targets: Targets) -> Unit | None:
    values = targets.matrix()
    return Unit(values.mean(axis=0), _spread(values))


def _squared_losses(targets: Targets, outputs: Doubles) -> Doubles:
    """Squared errors in units of the variance of these images' truths, the mean over the columns: 1 - R2 on average."""
    values = targets.matrix()
    return np.asarray((((outputs - values) / _spread(values)) ** 2).mean(axis=1))


def _mean_squared(targets: Targets, outputs: Doubles) -> float:
    return float(_squared_losses(targets, outputs).mean())


def _as_it_is(targets: Targets, outputs: Doubles) -> tuple[float, float]:
    return 1.0, _mean_squared(targets, outputs)


CROSS_ENTROPY = Objective(
    encode=_one_hot,
    loss=_cross_entropy,
    link="softmax",
    best_scale=_best_class_scale,
    mean_loss=_mean_log_loss,
    losses=_log_losses,
    right=_right_classes,
    unit=no_unit,
)
BINARY = Objective(
    encode=_present,
    loss=_binary_cross_entropy,
    link="none",
    best_scale=_best_odds_scale,
    mean_loss=_mean_label_loss,
    losses=_losses_of_labels,
    right=_right_labels,
    unit=no_unit,
)
SQUARED = Objective(
    encode=_present,
    loss=_squared,
    link="none",
    best_scale=_as_it_is,
    mean_loss=_mean_squared,
    losses=_squared_losses,
    right=None,
    unit=_unit_of_values,
    mixes=False,  # two pictures laid over each other have no length, angle or age in between
)
