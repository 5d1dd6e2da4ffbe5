"""Whether an export says what `predict` says: it is run by its own runtime, in a process without headstart.

Two things are compared. The graph gets the very pixels that `predict` sees: what differs then is arithmetic, and must
stay within BOUND. The loader beside it gets the files themselves: what differs then is decoding too.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.targets import Targets
from headstart.errors import HeadstartError
from headstart.export.answers import answers_of, compared_as, same_answer
from headstart.export.format import Format
from headstart.export.loader import CHECK, text
from headstart.judge.crossing import Measure
from headstart.judge.marks import Interval
from headstart.ship.package import Loaded

# Largest difference of a probability, and of a value in units of its spread, that float32 may make. Sums in another
# order move a feature to the next value of float16 now and then (benchmarks/exports.py has what that comes to).
BOUND, VALUES_BOUND = 1e-4, 1e-3
# Of the logarithm of a score, of heat and of similarities: whitening makes steps of features larger (measured on
# satellite tiles 4e-5 and 1e-5, on faces 2e-5).
COMPARED_BOUND = 1e-3
ANY_SIZE_BOUND = 2e-2  # where the graph resizes: measured up to 1.3e-3, see any_size.py for why it differs
BATCH = 8  # images at once for the rate
PATIENCE = 30.0  # s an image until a check is given up: 500 of VGG16 take 3 minutes on a core of its own
Answers = npt.NDArray[np.float32]  # (image, output)


@dataclass(frozen=True, eq=False)
class Ran:
    """What an export said. answers (image, output) of pixels, None of a graph that takes any size; latency: s, the
    median of one image; rate: images a second, BATCH at once; read (file, output): of files by its loader, NaN where it
    could not, and `errors` (file,) why; further: the second output, of the first images; runtime: its release."""

    answers: Answers | None
    latency: float
    rate: float
    read: Answers
    errors: tuple[str, ...]
    about: dict[str, Any]
    runtime: str
    further: Answers | None = None


@dataclass(frozen=True)
class Differences:
    """Between two sets of answers. largest, mean: of probabilities or similarities, of values in units of their spread,
    of scores of oddity by their logarithms. labels: the share of images whose labels agree; None of measured values."""

    n: int
    largest: float
    mean: float
    labels: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Score:
    """In the measure of the task, on images whose truth is known: `exported`, `predict` and the paired difference."""

    measure: str
    percent: bool  # whether it is told in percent
    n: int
    exported: Interval
    predict: Interval
    difference: Interval

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(folder: Path, of: Format, pixels: Path | None, files: Sequence[Path], batch: int = BATCH) -> Ran:
    """Run the export in `folder` in a process of its own. pixels: a .npy of uint8 (image, height, width, 3).

    Raises HeadstartError where it ends otherwise than well, or imports what it must not need.
    """
    with tempfile.TemporaryDirectory(prefix="headstart-") as place:
        job, program, out = (Path(place) / name for name in ("job.json", "check.py", "out.npz"))
        program.write_text(text(CHECK), encoding="utf-8")
        asked = {"pixels": pixels and str(pixels), "files": [str(f) for f in files], "batch": batch}
        asked |= {"runtime": of.packages[-1], "out": str(out)}
        job.write_text(json.dumps(asked), encoding="utf-8")
        n = len(files) + (0 if pixels is None else len(np.load(pixels, mmap_mode="r")))
        command = [of.python(), "-I", str(program), str(folder), str(job)]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE * (100 + n), cwd=place, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HeadstartError(f"the {of.name} file cannot be checked ({error}): nothing was written") from None
        if ended.returncode:
            said = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1][:300]
            raise HeadstartError(f"{of.runtime} cannot run the {of.name} file ({said}): nothing was written")
        with np.load(out) as found:
            ran = Ran(
                answers=found.get("answers"),
                latency=float(found["latency"]) if "latency" in found else np.nan,
                rate=float(found["rate"]) if "rate" in found else np.nan,
                read=found["read"],
                errors=tuple(found["errors"].tolist()),
                about=json.loads(str(found["about"])),
                runtime=str(found["runtime"]),
                further=found.get("further"),
            )
            needed = sorted(set(of.alone) & set(found["imported"].tolist()))
    if needed:
        raise HeadstartError(f"the {of.name} file needs {' and '.join(needed)} to run: nothing was written")
    return ran


def differences(model: Loaded, ours: Answers, theirs: Answers) -> Differences:
    """Of answers (image, output) as the graph gives them."""
    scale = spread(model, ours)
    off = np.abs(compared_as(model, ours) - compared_as(model, theirs)) / scale
    if not np.isfinite(theirs).all():
        off = np.full(off.shape, np.inf)
    same = same_answer(model, ours, theirs)
    return Differences(len(ours), float(off.max()), float(off.mean()), None if same is None else float(same.mean()))


def spread(model: Loaded, ours: Answers) -> npt.NDArray[np.float64]:
    """(output,): the unit in which differences are told: 1 of probabilities, of values their standard deviation."""
    if model.task.name != "regress":
        return np.ones(ours.shape[1])
    found = ours.astype(np.float64).std(axis=0)
    return np.asarray(np.where(found > 0, found, np.maximum(np.abs(ours).max(axis=0), 1.0)))


def scored(model: Loaded, truth: Targets, groups: npt.NDArray[np.int64], ours: Answers, theirs: Answers) -> Score:
    """Both against the truth, paired."""
    judging = model.task.judging
    measure: Measure = judging.compared_in(truth)
    mine, other = (judging.mark(truth, answers_of(model, found)) for found in (ours, theirs))
    gain = measure.gain(other, mine, groups)
    return Score(
        measure.name,
        measure.percent,
        len(ours),
        measure.of(other, groups),
        measure.of(mine, groups),
        gain["difference"],
    )


def bound_of(model: Loaded, any_size: bool) -> float:
    """The largest difference that a graph in float32 may have."""
    if any_size:
        return ANY_SIZE_BOUND
    if model.task.own is not None:
        return COMPARED_BOUND
    return VALUES_BOUND if model.task.name == "regress" else BOUND
