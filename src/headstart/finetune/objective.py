"""What is learned step by step: a loss for the training, and what held-out images say of its outputs.

outputs (image, output) are what a head gives: log-probabilities of classes, log-odds of labels, values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.data.targets import Targets, class_numbers
from headstart.heads.calibrate import best_scale, log_softmax
from headstart.heads.spectrum import Doubles


@dataclass(frozen=True)
class Objective:
    """`encode(targets)`: as the loss takes them, float (image, output), so that mixup can mix them. `loss(scores,
    encoded, smoothing)`: the mean over a batch. `link(scores)`: what the last layer gives -> outputs. `scaled(targets,
    outputs)`: the outputs at the scale that answers best for these images; as they are where a scale means nothing.
    `losses(targets, outputs)`: of each image, (image,). `right(targets, outputs)`: the share of each image's answers
    that is right, (image,); None where answers are not right or wrong."""

    encode: Callable[[Targets], NDArray[np.float32]]
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    link: Callable[[torch.Tensor], torch.Tensor]
    scaled: Callable[[Targets, Doubles], Doubles]
    losses: Callable[[Targets, Doubles], Doubles]
    right: Callable[[Targets, Doubles], Doubles] | None


def _one_hot(targets: Targets) -> NDArray[np.float32]:
    return np.eye(len(targets.names), dtype=np.float32)[class_numbers(targets)]


def _cross_entropy(scores: torch.Tensor, encoded: torch.Tensor, smoothing: float) -> torch.Tensor:
    return nn.functional.cross_entropy(scores, encoded, label_smoothing=smoothing)


def _at_best_scale(targets: Targets, outputs: Doubles) -> Doubles:
    return log_softmax(best_scale(outputs, class_numbers(targets))[0] * outputs)


def _log_losses(targets: Targets, outputs: Doubles) -> Doubles:
    return np.asarray(-outputs[np.arange(len(outputs)), class_numbers(targets)])


def _right_classes(targets: Targets, outputs: Doubles) -> Doubles:
    return np.asarray(outputs.argmax(axis=1) == class_numbers(targets), dtype=np.float64)


def _log_probabilities(scores: torch.Tensor) -> torch.Tensor:
    return scores.log_softmax(dim=1)


CROSS_ENTROPY = Objective(_one_hot, _cross_entropy, _log_probabilities, _at_best_scale, _log_losses, _right_classes)
