"""A float export in 8-bit integers: ranges from images that taught, the layers that hurt left in float.

Which layers stay in float is found on images that taught the model, never on those that judge it: what each layer's
rounding changes in the answers (`sensitive.py`), then the file itself, run by its own runtime. Layers are taken back
into float, those that hurt most first, until the answers are steady enough or the file is as large as it may be.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart.export.layers import Quantiser

if TYPE_CHECKING:
    import torch

    from headstart.export.sensitive import Layer

# format -> the module that quantises it
PACKAGES = {"onnx": "onnxruntime", "openvino": "nncf", "litert": "ai_edge_quantizer"}
CALIBRATE = 100  # images: see benchmarks/int8.py
CHOOSE = 64  # other images that taught, on which a file is tried while layers are chosen
PROBED = 8  # of them go forth and back through the network in torch, a second each
AT_ONCE = 4  # images: the maps of every layer are kept meanwhile
LARGEST = 0.35  # of the float file
PER_VALUE = 3  # bytes that a weight costs more in float
SPARE = 0.05  # of the float file, for weights in float: int8 files take 0.27 to 0.30 of it
ROUNDS = 4  # files that are tried at most, each with twice the layers in float
SAFE = 0.5  # of the noise that is allowed, as far as it can be foretold: files came to 0.7 to 1.3 times that
FEWEST = 4  # layers that are taken back at once
ERRORS = 0.1  # the share of wrong answers that the noise which is allowed is worked out for
LEAST = 1e-30  # of a probability in float32 whose logarithm is taken

Answers = npt.NDArray[np.float32]  # (image, output)
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Chosen:
    """floats: layers left in float, in the order of the data, of so many `layers`. noise: the mean square of what int8
    changes in the scores of images that taught, and `allowed`. calibrated: images; tried: files. weights: only weights
    are int8, and what is computed stays float."""

    floats: tuple[str, ...]
    layers: int
    noise: float
    allowed: float
    calibrated: int
    tried: int
    narrow: bool
    weights: bool = False


def allowed_noise(task: str, max_drop: float) -> float:
    """The mean square of a score's change that costs `max_drop` points, as far as that can be told.

    Of classes the score is the logarithm of the odds between the best two. Where probabilities are calibrated and
    margins m near 0 have the density f, wrong answers are the integral of f / (1 + exp m) = f ln 2, and a normal change
    with the variance v costs the integral of f P(change > m) m / 2 = f v / 8. Of values the score is in units of their
    standard deviation, so that v is what R2 loses.
    """
    return max_drop / 100 if task == "regress" else 8 * math.log(2) * max_drop / 100 / ERRORS


def expected_drop(noise: float, errors: float) -> float:
    """Points of accuracy on new images that a change of the scores costs, by the same reasoning; errors: the share of
    wrong answers."""
    return 100 * noise * errors / (8 * math.log(2))


def scores(task: str, answers: Floats, unit: Floats) -> npt.NDArray[np.float64]:
    """(image, score) of answers (image, output): what must not change. Of classes all the log-probabilities; unit
    (output,): of values their standard deviation."""
    p = answers.astype(np.float64)
    if task == "classify":
        return np.log(np.maximum(p, LEAST))
    if task == "tag":
        p = np.clip(p, LEAST, 1 - np.finfo(np.float32).epsneg)
        return np.log(p) - np.log1p(-p)
    return p / unit


def noise_of(task: str, ours: Answers, theirs: Answers, unit: Floats) -> float:
    """The mean square of what changes in the scores; of classes in the odds between the two that were the best."""
    change = scores(task, theirs, unit) - scores(task, ours, unit)
    if task == "classify":
        best = np.argsort(ours, axis=1)[:, -2:]
        ends = np.take_along_axis(change, best, axis=1)
        change = ends[:, -1] - ends[:, 0]
    found = float(np.mean(change**2))
    return found if np.isfinite(found) else math.inf


def scored(task: str, unit: Floats, seed: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same as one number an image, in torch: of several labels and values a sum with random signs, whose square is
    the mean of theirs."""
    import torch

    signs = np.random.default_rng(seed).choice([-1.0, 1.0], len(unit)) / unit / len(unit) ** 0.5
    weights = torch.from_numpy(signs).float()

    def margin(answers: torch.Tensor) -> torch.Tensor:
        best = answers.clamp(min=LEAST).log().topk(2, dim=1).values
        return best[:, 0] - best[:, 1]

    def summed(answers: torch.Tensor) -> torch.Tensor:
        return (answers.logit(eps=1e-6) if task == "tag" else answers) @ weights

    return margin if task == "classify" else summed


def quantise(
    quantiser: Quantiser,
    suffering: Sequence[Layer],
    path: Path,
    measured: Callable[[], tuple[int, float]],
    size: int,
    allowed: float,
) -> tuple[tuple[str, ...], float, int]:
    """Write the file; returns (layers left in float, noise, files tried).

    suffering: of `sensitive.layers`. measured: of the file that was just written, (bytes, noise). size: bytes of the
    float file. The first layer is always in float: it reads the normalised picture, of which 256 steps are no more than
    the picture's own, NNCF makes graphs of some networks that do not compile without it, and it holds few weights.
    """
    first = next(iter(quantiser.layers), "")
    ranked = sorted((x for x in suffering if x.name in quantiser.layers and x.name != first), key=lambda x: -x.noise)
    expected = sum(x.noise for x in ranked)
    floats: list[str] = []
    spare = SPARE * size
    for layer in ranked:
        if expected > SAFE * allowed and PER_VALUE * layer.values <= spare:
            floats, expected, spare = [*floats, layer.name], expected - layer.noise, spare - PER_VALUE * layer.values
    tried: list[tuple[float, list[str]]] = []
    while True:
        kept = [name for name in quantiser.layers if name == first or name in floats]
        quantiser.write(path, kept)
        written, noise = measured()
        tried.append((noise, kept))
        more = _more(ranked, floats, LARGEST * size - written)
        if noise <= allowed or not more or len(tried) == ROUNDS:
            break
        floats = [*floats, *more]
    noise, best = min(tried)
    if best != tried[-1][1]:
        quantiser.write(path, best)
    return tuple(best), noise, len(tried)


def _more(ranked: Sequence[Layer], floats: Sequence[str], spare: float) -> list[str]:
    """The next layers, worst first: as many as there are already, that fit into so many bytes."""
    found: list[str] = []
    for layer in ranked:
        cost = PER_VALUE * layer.values
        if layer.name not in floats and cost <= spare and len(found) < max(FEWEST, len(floats)):
            found.append(layer.name)
            spare -= cost
    return found


def sums_overflow() -> bool:
    """Whether sums of 8-bit products may overflow on this processor: x86 without VNNI adds pairs of them in 16 bits, so
    that weights need 7. Where nothing is known of it (x86 without /proc/cpuinfo) they get 7 as well."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return not {"avx512_vnni", "avx_vnni"} & set(known.split())
