"""What a model can be exported to: a format is a row of FORMATS.

Converters load torch and more, so they are imported when they are called.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from headstart.errors import OptionError, nearest
from headstart.export import litert
from headstart.export.format import Exportable, Format


def _onnx(model: Exportable, folder: Path) -> None:
    from headstart.export.onnx import convert

    convert(model, folder / "model.onnx")


def _openvino(model: Exportable, folder: Path) -> None:
    from headstart.export.openvino import convert

    convert(model, folder / "model.xml")


def _torch(model: Exportable, folder: Path) -> None:
    from headstart.export.native import convert

    convert(model, folder / "model.pt2")


def _litert(model: Exportable, folder: Path) -> None:
    litert.convert(model, folder / "model.tflite")


FORMATS: dict[str, Format] = {
    found.name: found
    for found in (
        Format("onnx", "model.onnx", ("onnx", "onnxscript", "onnxruntime"), "onnxruntime", _onnx, "onnx"),
        Format("openvino", "model.xml", ("openvino",), "openvino", _openvino, "openvino"),
        Format(
            "litert",
            "model.tflite",
            ("ai_edge_litert",),
            "ai-edge-litert",
            _litert,
            "litert",
            python=litert.interpreter,
            any_size=False,
        ),
        Format("torch", "model.pt2", ("torch",), "torch", _torch, "torch", alone=("headstart", "timm")),
    )
}


def format_of(name: str) -> Format:
    """Raises OptionError for a name that is none."""
    if name not in FORMATS:
        raise OptionError(f"--to {name} is not known{nearest(name, FORMATS)}: one of {', '.join(FORMATS)}")
    return FORMATS[name]


def check_installed(wanted: Format) -> None:
    """Raises OptionError naming what is missing and what installs it."""
    here = wanted.python() == sys.executable  # another one was named by the user
    missing = [package for package in wanted.packages if here and find_spec(package) is None]
    if missing:
        raise OptionError(f"--to {wanted.name} needs {' and '.join(missing)}: {wanted.extra}")


def check_any_size(wanted: Format, any_size: bool) -> None:
    """Raises OptionError where pictures of any size are asked for, and the format takes none."""
    if any_size and not wanted.any_size:
        able = [name for name, found in FORMATS.items() if found.any_size]
        raise OptionError(f"--any-size is not of --to {wanted.name}: leave it out, or take {' or '.join(able)}")
