"""A graph as a LiteRT file (TensorFlow Lite's format), by litert-torch in an environment of its own.

The one kept converter, litert-torch, holds torch, typing_extensions and pydantic back to releases that a server and
the tests have left behind, and brings jax: it must not decide what else is installed. So it is never imported here. It
is given torch's exported program and works in a process whose interpreter is this one, where it is installed, or the
one that HEADSTART_LITERT_PYTHON names. That one needs no headstart (`converting.py.txt` is all that it runs), and has
the runtime, which checks the file. Converters from ONNX were no way round it: onnx2tf pins numpy 1.26 and TensorFlow.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError, OptionError
from headstart.export.loader import text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from headstart.export.format import Exportable

    Pixels = npt.NDArray[np.uint8]  # (image, height, width, 3)

VARIABLE = "HEADSTART_LITERT_PYTHON"
EXTRA = (
    "it pins other packages, so give it an environment of its own: python3 -m venv litert && litert/bin/pip install "
    f"litert-torch simplejpeg && export {VARIABLE}=litert/bin/python"
)
SECONDS = 3600  # VGG16 takes minutes


def interpreter() -> str:
    """The Python that has litert-torch. Raises OptionError with how to get one."""
    named = os.environ.get(VARIABLE, "")
    if named:
        found = shutil.which(named)
        if found is None:
            raise OptionError(f"{VARIABLE} names {named}, which is no program: name the Python that has litert-torch")
        return os.path.abspath(found)  # noqa: PTH100 - the link itself, which makes it the environment's Python
    if find_spec("litert_torch") is None:
        raise OptionError(f"--to litert needs litert-torch; {EXTRA}")
    return sys.executable


def convert(model: Exportable, path: Path) -> None:
    """Write the file: input "pixels", output "answers", one image at a time. Raises HeadstartError."""
    import torch

    class Named(torch.nn.Module):
        """What comes out under a name, as the file will have it."""

        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            found = self.inner(pixels)
            return dict(zip(model.outputs, found if isinstance(found, tuple) else (found,), strict=True))

    python = interpreter()
    with tempfile.TemporaryDirectory(prefix="headstart-") as place:
        program = Path(place) / "graph.pt2"
        with torch.no_grad():
            one = torch.zeros((1, *model.size, 3), dtype=torch.uint8)
            torch.export.save(torch.export.export(Named(model.module), (), {"pixels": one}), program)
        _work(python, "convert", program=str(program), about=json.dumps(model.about), out=str(path.absolute()))


@dataclass(frozen=True)
class LitertQuantiser:
    """A float file, and a file of the ranges of its values; None for weights in int8 alone. layers: as the network
    calls them -> as the file does."""

    file: Path
    ranges: Path | None
    layers: dict[str, str]

    def write(self, path: Path, floats: Collection[str]) -> None:
        """The file in int8 but for these layers, as the network calls them. Raises HeadstartError."""
        ranges = None if self.ranges is None else str(self.ranges.absolute())
        files = {"file": str(self.file.absolute()), "ranges": ranges, "out": str(path.absolute())}
        _work(interpreter(), "quantise", floats=[self.layers[name] for name in floats], **files)


def litert_quantiser(path: Path, pixels: Sequence[Pixels], scratch: Path) -> LitertQuantiser:
    """Run the float file on images that calibrate, each (image, height, width, 3). scratch: a folder for files."""
    import numpy as np

    pictures, ranges = scratch / "calibrating.npy", scratch / "ranges.json"
    np.save(pictures, np.concatenate(list(pixels)))
    files = {"file": str(path.absolute()), "pixels": str(pictures.absolute()), "out": str(ranges.absolute())}
    _work(interpreter(), "calibrate", **files)
    pictures.unlink()
    names = json.loads(ranges.read_text(encoding="utf-8"))["layers"]
    named = {layer_of(name): module_of(name) for name in names}
    return LitertQuantiser(path, ranges, {layer: module for layer, module in named.items() if layer})


def layer_of(name: str) -> str:
    """As the network calls it, "" of what is no layer of the network: "a.Graph_inner/b.Trunk_trunk/c.Sequential_blocks/
    d.Conv2d_conv;1" is blocks.conv. Each step of a name is a class and, after its first "_", the attribute; before it
    stand, with ";;", the names of what was folded into it."""
    steps = [step.rpartition(".")[2].partition("_")[2] for step in module_of(name).split("/")]
    return ".".join(steps[steps.index("trunk") + 1 :]) if "trunk" in steps else ""


def module_of(name: str) -> str:
    """The part of an operation's name that all operations of its layer bear, what pads its input too."""
    return name.split(";;")[-1].partition(";")[0]


def _work(python: str, do: str, **job: Any) -> None:
    """Run `converting.py.txt` on a job."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as place:
        program, asked = Path(place) / "converting.py", Path(place) / "job.json"
        program.write_text(text("converting"), encoding="utf-8")
        asked.write_text(json.dumps({"do": do, **job}), encoding="utf-8")
        command = [python, "-I", str(program), str(asked)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=place, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HeadstartError(f"litert-torch did not make the litert file ({error}): nothing was written") from None
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1][:300]
        missing = f"; {EXTRA}" if "No module named" in said else ""
        raise HeadstartError(f"{python} cannot make the litert file ({said}): nothing was written{missing}")
