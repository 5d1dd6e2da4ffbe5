"""What trained layers answer: outputs for activations, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.heads.probe import Link
from headstart.heads.spectrum import Doubles

Ints = npt.NDArray[np.integer]
CHUNK = 256  # rows a forward pass in evaluation: 46,000 values each in float32 are 47 MB


def answers_of(
    module: nn.Module, still: Callable[[Ints], npt.NDArray[np.float32]], rows: Ints, scale: float, link: Link
) -> Doubles:
    """Outputs (row, output) for the activations `still` (row, ...) of these rows, divided by `scale`."""
    chunks = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]
    read = (torch.from_numpy(still(chunk)).div_(scale) for chunk in chunks)
    return np.concatenate([_forward(module, x, link) for x in read])


def _forward(module: nn.Module, x: torch.Tensor, link: Link) -> Doubles:
    """Outputs (image, output)."""
    module.eval()
    with torch.inference_mode():
        scores = module(x.to(next(module.parameters()).device)).double()
        return np.asarray((scores.log_softmax(dim=1) if link == "softmax" else scores).cpu().numpy())
