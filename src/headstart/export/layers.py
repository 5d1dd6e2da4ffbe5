"""What those who quantise a graph have in common: images, names of layers, silence of other libraries."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # (image, height, width, 3)
TRUNK = "trunk.network."  # what a graph calls the network


class Quantiser(Protocol):
    """A float file whose ranges are known, or can be."""

    @property
    def layers(self) -> dict[str, str]:
        """Layers with weights in the order of the data: name as in the network -> name in the file."""

    def write(self, path: Path, floats: Collection[str]) -> None:
        """The file in int8, but for these layers."""


def layer_name(weight: str) -> str:
    """As the network calls it: "trunk.network.blocks.0.0.conv_dw.weight" is blocks.0.0.conv_dw."""
    return weight.removeprefix("self.").removeprefix(TRUNK).removesuffix(".weight")


@contextmanager
def quietly() -> Iterator[None]:
    """Neither lines and bars on the terminal nor warnings nor what goes to the log, of libraries that do all of it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    out, err = io.StringIO(), io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
