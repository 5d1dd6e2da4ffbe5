"""One network of the study: its images, its eight layers, its training.

The images of a half lie in memory as bytes; a random view (shifted by up to PAD pixels, mirrored) is one indexing
operation on a whole batch. Frozen layers run in evaluation mode and without gradient, so that neither their weights nor
their BatchNorm statistics move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from headstart.data.table import Table

PAD, SIDE, LAYERS = 2, 32, 8
MEAN, STD = 128.0, 64.0  # of pixel values, for every half alike


@dataclass(frozen=True)
class Half:
    """Half of the classes. Images are bytes (image, side, side, 3), the training images with a border of PAD."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int


@dataclass(frozen=True)
class Schedule:
    """What all networks of a study share."""

    widths: tuple[int, ...]  # of the six convolutions
    steps: int
    batch: int
    rate: float  # the highest learning rate of the one cycle
    decay: float = 5e-4


def read_half(table: Table, classes: Sequence[str], per_class: int, test_per_class: int) -> Half:
    """The first images of each class, in the order of the files."""

    def part(split: str, most: int) -> tuple[Tensor, Tensor]:
        mine = [np.flatnonzero((table.labels == name) & (table.splits == split))[:most] for name in classes]
        pixels = [
            np.asarray(Image.open(BytesIO(bytes(table.read(int(row))))).convert("RGB")) for row in np.concatenate(mine)
        ]
        labels = np.repeat(np.arange(len(classes)), [len(rows) for rows in mine])
        return torch.from_numpy(np.stack(pixels)), torch.from_numpy(labels)

    images, labels = part("train", per_class)
    bordered = nn.functional.pad(images, (0, 0, PAD, PAD, PAD, PAD))
    return Half(bordered, labels, *part("test", test_per_class), len(classes))


def build(widths: Sequence[int], classes: int) -> nn.Sequential:
    """Six 3x3 convolutions, the image halved after every second, then 128 units, then the classes: eight layers."""
    layers: list[nn.Module] = []
    before = 3
    for place, width in enumerate(widths):
        pool = [nn.MaxPool2d(2)] if place % 2 else []
        convolution = nn.Conv2d(before, width, 3, padding=1, bias=False)
        layers.append(nn.Sequential(convolution, *pool, nn.BatchNorm2d(width), nn.ReLU()))
        before = width
    flat = before * (SIDE // 8) ** 2
    layers.append(nn.Sequential(nn.Flatten(), nn.Linear(flat, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU()))
    layers.append(nn.Linear(128, classes))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def copy_layers(donor: nn.Sequential, network: nn.Sequential, n: int) -> None:
    """Give the first `n` layers of `network` the weights and statistics of the donor's."""
    for place in range(n):
        network[place].load_state_dict(donor[place].state_dict())


def views(images: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Randomly shifted and mirrored copies of these rows, (row, 3, SIDE, SIDE), channels last in memory."""
    down, right = torch.randint(0, 2 * PAD + 1, (2, len(rows), 1), generator=generator)
    mirrored = torch.rand(len(rows), 1, generator=generator) < 0.5
    line = torch.arange(SIDE)
    across = torch.where(mirrored, SIDE - 1 - line, line) + right
    device = images.device
    rows, high, wide = (x.to(device) for x in (rows[:, None, None], (line + down)[:, :, None], across[:, None, :]))
    return as_input(images[rows, high, wide])


def as_input(images: Tensor) -> Tensor:
    """Bytes (image, side, side, 3) as centred float32 (image, 3, side, side)."""
    return ((images.float() - MEAN) / STD).permute(0, 3, 1, 2)


def mixed(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 where it is safe, or float32 everywhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def train(network: nn.Sequential, frozen: int, half: Half, plan: Schedule, seed: int, precision: str) -> float:
    """Train all layers but the first `frozen`; the mean loss of the last tenth of the steps.

    The order of the images and their views depend on `seed` alone.
    """
    device = half.images.device
    generator = torch.Generator().manual_seed(seed)
    still, moving = network[:frozen], network[frozen:]
    still.requires_grad_(False).eval()
    moving.train()
    optimiser = torch.optim.SGD(moving.parameters(), plan.rate, 0.9, weight_decay=plan.decay, nesterov=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, plan.steps, pct_start=0.2, cycle_momentum=False)
    epochs = -(-plan.steps * plan.batch // len(half.labels))
    order = torch.cat([torch.randperm(len(half.labels), generator=generator) for _ in range(epochs)])
    losses = []
    for rows in order.split(plan.batch)[: plan.steps]:
        x, y = views(half.images, rows, generator), half.labels[rows.to(device)]
        with mixed(device, precision):
            with torch.no_grad():
                x = still(x)
            loss = nn.functional.cross_entropy(moving(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cycle.step()
        losses.append(loss.detach())
    return float(torch.stack(losses[-max(plan.steps // 10, 1) :]).mean())


@torch.no_grad()
def accuracy(network: nn.Sequential, half: Half, precision: str) -> float:
    """Share of the half's test images that the network gets right."""
    network.eval()
    right = 0
    for images, labels in zip(half.test_images.split(500), half.test_labels.split(500), strict=True):
        with mixed(images.device, precision):
            right += int((network(as_input(images)).argmax(1) == labels).sum())
    return right / len(half.test_labels)
