"""What a converter is given, and what a format is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

EXTRA = "pip install 'headstart[export]'"


@dataclass(frozen=True, eq=False)
class Exportable:
    """What a converter is given.

    module: uint8 (image, height, width, 3) -> float32 (image, output), in evaluation mode.
    size: (height, width) in px of what it takes; of `any_size`, of the pictures that it makes inside.
    about: what the file says of itself, JSON-ready: names, task, rule, preprocess, licence, versions ...
    any_size: the module takes pictures of any height and width, and resizes them itself.
    outputs: names of what it gives, in order: the answers, and of some heads a second tensor.
    """

    module: nn.Module
    size: tuple[int, int]
    about: dict[str, Any]
    any_size: bool = False
    outputs: tuple[str, ...] = ("answers",)


@dataclass(frozen=True)
class Format:
    """One kind of file.

    name: as `--to` says it. file: the name of the file that is opened, in the folder of the export.
    packages: modules that must be there to make and to run it; `extra`: what installs them. runtime: the package that
    runs it, as pip names it.
    convert: writes `file`, and what belongs to it, into a folder.
    opener: the text of `loaders/` that opens it, `open_model(path) -> (run, about)`: run takes uint8 (image, height,
    width, 3) and gives float32 (image, output) for any number of images, of a second output that with the number 1
    behind them; about is what the file says of itself. It is a part of the predict.py beside the export, which the
    check against `predict` runs.
    python: the interpreter that has the runtime. alone: packages that its process must not import.
    any_size: whether a graph of it can take pictures of any size.
    """

    name: str
    file: str
    packages: tuple[str, ...]
    runtime: str
    convert: Callable[[Exportable, Path], None]
    opener: str
    extra: str = EXTRA
    python: Callable[[], str] = lambda: sys.executable
    alone: tuple[str, ...] = ("headstart", "torch", "timm")
    any_size: bool = True
