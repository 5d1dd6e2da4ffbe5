"""A trunk compiled for this machine. The one door to OpenVINO.

On a CPU: OpenVINO, asynchronous with the throughput hint, in bfloat16 where the CPU has it (measured 12 times eager
float32 torch for EfficientNet-Lite0: benchmarks/). On CUDA and MPS, and where OpenVINO cannot take a network: torch,
channels-last, autocast.

Batch shapes are static and the last batch is padded by its caller, so that a row does not depend on its batch mates.

The graph that is compiled is kept on the shelf of the cache (`shelf.py`), and so is what OpenVINO makes of it for this
processor: a network that was compiled before is at work in 0.1 s, and torch is not imported. What is kept and what was
just made are the same graph, read from the same bytes.

A compiled network works in the process that compiled it. In a forked child OpenVINO waits for ever: in `wait` for
streams that the child does not have, and when the network is freed, to join them (2026.4.1, Linux). Compiling anew
there works and gives the parent's rows to the bit, from what is kept, or once torch, which traces the network, runs on
one thread (`forks.py`). So an engine compiles again at its first use in a child. Of 100 children, four at a time and
while another thread of the parent predicted, all answered; a round of four took 6.1 s at most (a small network at 64
px; 2 cores that 13 programs shared).
"""

from __future__ import annotations

import copy
import ctypes
import logging
import os
import platform
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import openvino

from headstart.errors import HeadstartError, OptionError
from headstart.files import forks
from headstart.files.cores import n_cores
from headstart.trunk.backbone import made_by
from headstart.trunk.layers import LAST
from headstart.trunk.network import Backbone

log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]
Deliver = Callable[[Any, Rows], None]

# Images a request on a CPU: of 1 to 32, 2 and 4 were the fastest at 224 px, 4 and 8 at 160 px, 8 and more at 32 px, by
# a tenth (2 cores, benchmarks/extraction.py). Each request holds its own activations, so the smallest of the fastest.
CPU_BATCH, CPU_BATCH_SMALL = 4, 8
SMALL_INPUT = 128  # px
GPU_BATCH = 128
LEAST_ROOM = 2**30  # bytes of address space; an engine with its threads takes more
PRECISIONS = ("auto", "bf16", "f32")


class Engine(Protocol):
    """Runs batches of exactly `batch` images; hands each result to `deliver` with the tag that came with it."""

    name: str
    precision: str
    batch: int

    def run(self, batches: Iterable[tuple[Any, Bytes]], deliver: Deliver) -> None:
        """Pixels (batch, height, width, 3) -> rows (batch, feature), all blocks side by side in `block_names`' order.

        `deliver` is called from one thread at a time, in any order of the batches. The rows are valid during the call.
        """


def compile_trunk(backbone: Backbone, precision: str = "auto") -> Engine:
    """The fastest engine on this machine that takes the network. Raises OptionError for an unknown precision."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r} is not known: one of {', '.join(PRECISIONS)}")
    device = accelerator()
    if device:
        return TorchEngine(backbone, device, "bf16" if precision == "auto" else precision)
    return on_cpu(backbone, ("bf16" if cpu_has_bf16() else "f32") if precision == "auto" else precision)


def on_cpu(backbone: Backbone, chosen: str) -> Engine:
    """The fastest engine of the processor, whatever else there is; `chosen`: "bf16" or "f32"."""
    try:
        return OpenVinoEngine(backbone, chosen)
    except RuntimeError as error:
        log.warning("OpenVINO cannot take %s (%s): torch runs it", backbone.name, str(error).splitlines()[0][:160])
        return TorchEngine(backbone, "cpu", chosen)


def cpu_has_bf16() -> bool:
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_batch(size: tuple[int, int]) -> int:
    """Images a request on a CPU for inputs of (height, width) px."""
    return CPU_BATCH_SMALL if max(size) <= SMALL_INPUT else CPU_BATCH


def accelerator() -> str | None:
    """torch's name of the device that is faster than the processor, or None. torch is asked only where there may be
    one."""
    if "torch" not in sys.modules and not _may_have_accelerator():
        return None
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def _may_have_accelerator() -> bool:
    """Whether a driver is here that torch could use: CUDA's (NVIDIA), ROCm's (AMD) or Apple's."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    if Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _check_room() -> None:
    """Raises MemoryError where the process may have little address space: with 700 MB OpenVINO waits for ever for a
    thread that it cannot make, or ends the process."""
    with suppress(ImportError):
        import resource

        allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
        if 0 <= allowed < LEAST_ROOM:
            raise MemoryError(f"the process may use {allowed / 2**20:.0f} MiB of addresses")


class OpenVinoEngine:
    """A static-shape graph with as many requests in flight as the throughput hint asks for; safe on several threads."""

    def __init__(
        self, backbone: Backbone, precision: str, batch: int | None = None, traced_at: int | None = None
    ) -> None:
        """`traced_at`: take the graph for batches of that many images and change its shape, so that torch need not
        trace another. Raises RuntimeError where OpenVINO cannot."""
        self.name, self.precision = f"openvino {openvino.__version__.split('-')[0]}", precision
        self.batch = batch or cpu_batch(backbone.preprocess.size)
        self._traced_at = traced_at or self.batch
        self._backbone, self._compiling = backbone, forks.Lock()
        self._compiled, self._process = self._compile(), os.getpid()

    def _compile(self) -> Any:
        """Read as it was compiled before for this processor, else compiled."""
        _check_room()
        core, shelf = openvino.Core(), self._backbone.network.shelf
        config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": n_cores(),
        }
        traced = {} if self._traced_at == self.batch else {"traced at": self._traced_at}
        about = {"compiled": graph_key(self._backbone, self.batch) | traced, "for": config | processor(core)}
        compiled = None
        if content := shelf and shelf.read(about):
            with suppress(RuntimeError):
                compiled = core.import_model(content, "CPU", config)
        if compiled is None:
            graph = core.read_model(*graph_of(self._backbone, self._traced_at))
            if self._traced_at != self.batch:
                graph.reshape([self.batch, *self._backbone.preprocess.size, 3])
            compiled = core.compile_model(graph, "CPU", config)
            if shelf:
                shelf.write(about, compiled.export_model().getvalue())
        forks.owns_threads(compiled)
        return compiled

    def _of_this_process(self) -> Any:
        """The compiled network, compiled again where this is a forked child."""
        with self._compiling:
            if self._process != os.getpid():
                self._compiled, self._process = self._compile(), os.getpid()
            return self._compiled

    @property
    def at_once(self) -> int:
        """Batches that are worked on at the same time."""
        return int(self._of_this_process().get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def single(self) -> OpenVinoEngine | None:
        """The same for one image at a time; None where its rows differ from those of this engine by a single bit, or
        OpenVINO cannot change the shape of the graph."""
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (self.batch, *self._backbone.preprocess.size, 3), np.uint8)
        rows: list[Rows] = []
        try:
            one = OpenVinoEngine(self._backbone, self.precision, 1, traced_at=self.batch)
            one.run(enumerate(pixels[:, None]), lambda _, row: rows.append(row.copy()))
            self.run([(0, pixels)], lambda _, all_rows: rows.append(all_rows.copy()))
        except RuntimeError as error:
            log.info("%s takes no single image: %s", self._backbone.name, str(error).splitlines()[0][:160])
            return None
        return one if np.array_equal(np.concatenate(rows[:-1]), rows[-1]) else None

    def ready(self) -> Callable[[Bytes], Rows]:
        """A function for one thread alone: pixels (batch, height, width, 3) -> rows (batch, feature), waited for."""
        request = self._of_this_process().create_infer_request()

        def ask(pixels: Bytes) -> Rows:
            request.start_async({0: pixels}, share_inputs=True)
            request.wait()
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)

        return ask

    def run(self, batches: Iterable[tuple[Any, Bytes]], deliver: Deliver) -> None:
        """Results are waited for, oldest first, in the calling thread.

        Not `AsyncInferQueue`: its callbacks run Python in OpenVINO's own threads, and where the last of them still
        wants the interpreter's lock while the network is freed, both wait for ever.
        """
        compiled, in_flight = self._of_this_process(), self.at_once + 2  # so that none of them waits for the caller
        free: deque[Any] = deque()
        waiting: deque[tuple[Any, Any, Bytes]] = deque()  # request, tag, and the pixels, which are shared, not copied

        def finish() -> None:
            request, tag, _ = waiting.popleft()
            request.wait()
            free.append(request)
            deliver(tag, request.get_output_tensor(0).data)

        try:
            for tag, pixels in batches:
                if not free and len(waiting) == in_flight:
                    finish()
                request = free.popleft() if free else compiled.create_infer_request()
                request.start_async({0: pixels}, share_inputs=True)
                waiting.append((request, tag, pixels))
            while waiting:
                finish()
        finally:
            for request, _, _ in waiting:  # after an error: nothing may run on pixels that are gone
                request.wait()


class TorchEngine:
    """The trunk in torch: channels-last, autocast to bfloat16 where that is the precision."""

    def __init__(self, backbone: Backbone, device: str, precision: str, batch: int | None = None) -> None:
        import torch

        from headstart.trunk.module import Trunk

        self.name, self.precision = f"torch {torch.__version__} {device}", precision
        self.batch = batch or (cpu_batch(backbone.preprocess.size) if device == "cpu" else GPU_BATCH)
        self._device, self._process = device, os.getpid()
        trunk = copy.deepcopy(Trunk(backbone))  # moving the network itself would change it for everyone
        self._trunk = trunk.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def run(self, batches: Iterable[tuple[Any, Bytes]], deliver: Deliver) -> None:
        """Raises HeadstartError on an accelerator that was opened before a fork, which no driver allows."""
        import torch

        if self._device != "cpu" and self._process != os.getpid():
            raise HeadstartError(
                f"the model was loaded on {self._device} before this process was forked, and a forked process cannot "
                "use that: load the model in each worker (gunicorn: without --preload), or start workers by 'spawn'"
            )
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self.precision == "bf16"):
            for tag, pixels in batches:
                blocks = self._trunk(torch.from_numpy(pixels).to(self._device, non_blocking=True))
                deliver(tag, torch.cat([block.float() for block in blocks], dim=1).cpu().numpy())


def graph_key(backbone: Backbone, batch: int) -> dict[str, Any]:
    """All that the graph of a trunk depends on. A saved model and the network that it was made from have the same, as
    long as neither the network's own top is read nor a layer that may lie in it."""
    usual = backbone.ends == (LAST,) and all(tap.pools[-2:] == ("mean", "std") for tap in backbone.taps)
    return {
        "architecture": backbone.name.partition(".")[0],
        "weights": backbone.weights_hash,
        "network": {} if usual else backbone.network.key,
        "taps": [asdict(tap) for tap in backbone.taps],
        "ends": list(backbone.ends),
        "pooled": backbone.last_is_pooled,
        "mean, std": [list(backbone.preprocess.mean), list(backbone.preprocess.std)],
        "shape": [batch, *backbone.preprocess.size, 3],
        **({"views": backbone.preprocess.views} if backbone.preprocess.views > 1 else {}),
        "openvino": openvino.__version__,
        **made_by(),
    }


def processor(core: Any) -> dict[str, Any]:
    """What a compiled network depends on beside its graph and settings."""
    able = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return {"processor": str(core.get_property("CPU", "FULL_DEVICE_NAME")), "able": able}


def graph_of(backbone: Backbone, batch: int) -> tuple[bytes, bytes]:
    """The trunk as OpenVINO's intermediate representation (XML, weights): kept from before, else made by torch.

    Raises RuntimeError where OpenVINO cannot take the network.
    """
    shelf, about = backbone.network.shelf, {"graph": graph_key(backbone, batch)}
    content = shelf and shelf.read(about)
    if not content:
        graph, weights = _written(to_openvino(backbone, batch))
        content = len(graph).to_bytes(8, "little") + graph + weights
        if shelf:
            shelf.write(about, content)
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]


def _written(model: Any) -> tuple[bytes, bytes]:
    """OpenVINO writes a graph to files only."""
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
        openvino.serialize(model, graph, weights)
        return graph.read_bytes(), weights.read_bytes()


def to_openvino(backbone: Backbone, batch: int) -> Any:
    """The trunk as an OpenVINO graph: uint8 (batch, height, width, 3) in, float32 (batch, feature) out.

    It goes through the frontend itself, not `openvino.convert_model`, which would report its use over the network. A
    function is traced, not the module: that leaves out a script module for each layer, and takes half the time.
    """
    import torch

    from headstart.trunk.module import Trunk

    trunk = Trunk(backbone).eval()
    shape = [batch, *backbone.preprocess.size, 3]
    return converted(lambda pixels: torch.cat(trunk(pixels), dim=1), shape, shape)


def converted(function: Callable[[Any], Any], example: Sequence[int], shape: Sequence[int]) -> Any:
    """A function of uint8 pixels as an OpenVINO graph, traced on zeros of the shape `example`; it takes pixels of
    `shape`, where -1 is any length. Raises RuntimeError where OpenVINO cannot take it."""
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    zeros = torch.zeros(list(example), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of every Python number in a network
        traced = torch.jit.trace(function, zeros, check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced)  # kept in a variable: the graph reads weights that it holds
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    pixels = model.inputs[0].get_node()
    pixels.set_partial_shape(openvino.PartialShape(list(shape)))
    pixels.set_element_type(openvino.Type.u8)
    model.validate_nodes_and_infer_types()
    return model


@dataclass(frozen=True)
class Machine:
    """What the run's record says of the machine."""

    cores: int
    processor: str
    accelerator: str


def this_machine() -> Machine:
    found = accelerator() or "none"
    if found == "cuda":
        import torch

        found = torch.cuda.get_device_name()
    return Machine(n_cores(), str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")), found)
