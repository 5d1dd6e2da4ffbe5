"""An export in 8-bit integers: images that taught calibrate it, held-out images judge it, once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data import images
from headstart.data.table import Table
from headstart.errors import BundleError, DataError, HeadstartError, ImageError, OptionError
from headstart.export import gate, litert, quantise
from headstart.export.agreement import Answers, Score, run, spread
from headstart.export.answers import answers_of
from headstart.export.folder import size_of
from headstart.export.format import Format
from headstart.export.layers import Pixels, Quantiser
from headstart.export.loader import text
from headstart.files.bundle import Bundle
from headstart.judge.class_marks import decision_of
from headstart.ship.package import Loaded
from headstart.story.held_out import HeldOut
from headstart.story.opening import QUIET, Watcher
from headstart.tasks.task import Task

LEAST = 8  # images that calibrate and choose layers: fewer say nothing of ranges
FEWEST_LAYERS = 2  # the first stays in float; transformers have convolutions there alone
PACE = "pace"  # the program that times two exports in turn


@dataclass(frozen=True)
class Made:
    """An int8 file that was written: what was chosen, and beside the float file its size and speed. errors: the share
    of wrong answers of the model, where cross-validation knows it."""

    chosen: quantise.Chosen
    max_drop: float  # points
    size_ratio: float
    speed_ratio: float
    errors: float

    def to_json(self) -> dict[str, Any]:
        chosen = asdict(self.chosen) | {"floats": list(self.chosen.floats)}
        return chosen | {"size_ratio": self.size_ratio, "speed_ratio": self.speed_ratio}


def check_int8(of: Format, any_size: bool) -> None:
    """Raises OptionError for what cannot be had in int8."""
    if of.name not in quantise.PACKAGES:
        raise OptionError(f"--int8 is not of --to {of.name}: it is of --to {' and '.join(quantise.PACKAGES)}")
    if any_size:
        raise OptionError("--int8 is of graphs that take pictures of the model's size: leave --any-size out")
    package = quantise.PACKAGES[of.name]
    if of.python() == sys.executable and find_spec(package) is None:
        raise OptionError(f"--to {of.name} --int8 needs {package}: {of.extra}")


def check_task(task: Task) -> None:
    """Raises OptionError for a task whose answers are distances, which the gate does not know."""
    if task.own is not None:
        raise OptionError(f"--int8 is not of --task {task.name}: leave it out")


def shared_out(held: HeldOut, seed: int = 0) -> HeldOut:
    """Images that judge, with others that taught beside them. Of a model that was cross-validated on few all taught and
    may judge: there half of them at most calibrate instead, whole groups. Raises DataError where that is not enough."""
    if not held.labelled:
        raise DataError("--int8 is judged by images whose truth is known: name some with --data DATA")
    n, wanted = len(held.table), quantise.CALIBRATE + quantise.CHOOSE
    if held.taught and len(held.teaching) < quantise.CALIBRATE:
        order = np.random.default_rng(seed).permutation(np.unique(held.groups))
        sizes = np.array([(held.groups == group).sum() for group in order])
        moved = np.isin(held.groups, order[sizes.cumsum() <= min(wanted, n // 2)])
        rest, said = np.flatnonzero(~moved), held.said.removeprefix(f"{n:,}")
        held = replace(
            held,
            table=held.table.take(rest),
            groups=held.groups[rest],
            said=f"{len(rest):,}{said}",
            teaching=held.table.take(np.flatnonzero(moved)),
        )
    if len(held.teaching) < LEAST:
        raise _too_few(len(held.teaching))
    return held


def _too_few(n: int) -> DataError:
    return DataError(
        f"--int8 learns the ranges of its numbers from images that taught the model, and {n:,} of them are here, "
        f"{LEAST} needed: name the data of the fit with --data DATA"
    )


def made(model: Loaded, of: Format, folder: Path, teaching: Table, max_drop: float, watch: Watcher = QUIET) -> Made:
    """Replace the float file in `folder` by one in int8. teaching: images that taught the model and judge nothing.

    Raises DataError where too few are here, HeadstartError where it cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="headstart-") as place:
        scratch = Path(place)
        before, inside = scratch / "float", scratch / "inside"
        shutil.copytree(folder, before)
        inside.mkdir()
        calibrating, choosing = pixels_of(teaching, model.backbone.preprocess, scratch)
        chosen = _quantised(model, of, (before, folder, inside), calibrating, choosing, max_drop, watch)
        size = size_of(folder) / size_of(before)
        speed = _speed(of, before, folder, choosing, scratch)
        return Made(chosen, max_drop, round(size, 4), speed, _errors(model.bundle))


def pixels_of(teaching: Table, preprocess: images.Preprocess, scratch: Path, seed: int = 0) -> tuple[Pixels, Path]:
    """(images that calibrate, a .npy of others on which layers are chosen), drawn by chance."""
    order = np.random.default_rng(seed).permutation(len(teaching))
    most = quantise.CALIBRATE + quantise.CHOOSE
    found: list[Pixels] = []
    for pixels in _decoded(teaching, order.tolist(), preprocess):
        found.append(pixels)
        if len(found) == most:
            break
    if len(found) < LEAST:
        raise _too_few(len(found))
    n = min(quantise.CALIBRATE, len(found) * quantise.CALIBRATE // most)
    chosen = scratch / "choosing.npy"
    np.save(chosen, np.stack(found[n:]))
    return np.stack(found[:n]), chosen


def _decoded(table: Table, rows: Sequence[int], preprocess: images.Preprocess) -> Iterator[Pixels]:
    for row in rows:
        try:
            yield images.load(table.read(row), preprocess).array
        except ImageError:
            continue


def _answers(folder: Path, of: Format, pixels: Path) -> Answers:
    found = run(folder, of, pixels, ()).answers
    assert found is not None
    return found


def _quantised(
    model: Loaded,
    of: Format,
    places: tuple[Path, Path, Path],
    calibrating: Pixels,
    choosing: Path,
    max_drop: float,
    watch: Watcher,
) -> quantise.Chosen:
    """places: of the float file, of the int8 file, for files in between."""
    from headstart.export.graph import graph_of
    from headstart.export.sensitive import layers

    before, folder, inside = places
    ours = _answers(before, of, choosing)
    task, unit = model.task.name, spread(model, ours)
    allowed, narrow = quantise.allowed_noise(task, max_drop), quantise.sums_overflow()
    watch.say(f"{of.name}: ranges from {len(calibrating):,} images that taught")
    some: Any = np.load(choosing, mmap_mode="r")[: quantise.PROBED]
    parts = [np.array(some[at : at + quantise.AT_ONCE]) for at in range(0, len(some), quantise.AT_ONCE)]
    suffering = layers(graph_of(model), parts, quantise.scored(task, unit))
    quantiser = quantiser_of(of, before / of.file, calibrating, inside, narrow)
    if len(quantiser.layers) < FEWEST_LAYERS:
        raise HeadstartError(
            f"{model.backbone.name} has its weights in other layers than convolutions, which --int8 leaves in float: "
            "leave --int8 out"
        )

    def measured() -> tuple[int, float]:
        return size_of(folder), quantise.noise_of(task, ours, _answers(folder, of, choosing), unit)

    size = size_of(before)
    try:
        floats, noise, tried = quantise.quantise(quantiser, suffering, folder / of.file, measured, size, allowed)
    except (RuntimeError, ValueError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise HeadstartError(
            f"{model.backbone.name} cannot be made int8 for {of.name} ({why}): leave --int8 out"
        ) from error
    found = quantise.Chosen(floats, len(quantiser.layers), noise, allowed, len(calibrating), tried, narrow)
    if of.name == "litert" and _too_much(model, noise, allowed, max_drop):  # small too, and nearly as good as float
        litert.LitertQuantiser(before / of.file, None, {}).write(folder / of.file, ())
        return replace(found, floats=(), noise=measured()[1], calibrated=0, tried=tried + 1, weights=True)
    return found


def _too_much(model: Loaded, noise: float, allowed: float, max_drop: float) -> bool:
    """Whether the gate would refuse: by the share of wrong answers that is known of the model, not of the int8 file."""
    try:
        metrics = model.bundle.metrics if model.bundle and model.task.name == "classify" else {}
        scores = metrics.get("cross_validation") or metrics["test"]
        return quantise.expected_drop(noise, 1 - float(scores["accuracy"]["value"])) > max_drop
    except (BundleError, KeyError, TypeError, ValueError, AttributeError):
        return noise > allowed


def quantiser_of(of: Format, path: Path, calibrating: Pixels, inside: Path, narrow: bool) -> Quantiser:
    pixels = [one[None] for one in calibrating]
    if of.name == "openvino":
        from headstart.export.quantise_openvino import openvino_quantiser

        return openvino_quantiser(path, pixels, inside, narrow)
    if of.name == "litert":
        return litert.litert_quantiser(path, pixels, inside)
    from headstart.export.quantise_onnx import onnx_quantiser

    return onnx_quantiser(path, pixels, inside, narrow)


def _speed(of: Format, before: Path, after: Path, pixels: Path, scratch: Path) -> float:
    """How many times as fast the int8 file is, one picture at a time, both in turn."""
    program, out = scratch / "pace.py", scratch / "pace.json"
    program.write_text(text(PACE), encoding="utf-8")
    command = [of.python(), "-I", str(program), str(before), str(after), str(pixels), str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=scratch, check=False)
    if ended.returncode:
        why = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1][:200]
        raise HeadstartError(f"the int8 file cannot be timed ({why}): leave --int8 out")
    float_seconds, seconds = json.loads(out.read_text())
    return round(float_seconds / seconds, 3)


@dataclass(frozen=True)
class Gated:
    """An int8 file that the gate let through; notes: what is to be said of it."""

    made: Made
    verdict: gate.Verdict
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return self.made.to_json() | {"gate": self.verdict.to_json(), "notes": list(self.notes)}


def gated(
    model: Loaded, made: Made, held: HeldOut, ours: Answers, theirs: Answers | None, score: Score | None
) -> Gated:
    """What the gate says. ours, theirs (image, output): what `predict` and the file say of the held images.

    Raises HeadstartError where the file loses too much.
    """
    assert theirs is not None
    assert score is not None
    found = verdict(model, made, held, ours, theirs, score)
    gate.check(found, len(made.chosen.floats), made.chosen.layers)
    notes = tuple(note for note in (slower(made), gate.remark(found, held.taught)) if note)
    return Gated(made, found, notes)


def verdict(model: Loaded, made: Made, held: HeldOut, ours: Answers, theirs: Answers, score: Score) -> gate.Verdict:
    """Of the answers of a float model and of its int8 file (image, output)."""
    if model.task.name != "classify":
        return gate.judged(made.max_drop, len(ours), score.difference, None, None)
    truth = model.task.targets(held.table, model.names)
    both = [answers_of(model, found) for found in (ours, theirs)]
    right = [np.asarray(model.task.judging.mark(truth, found)["right"], bool) for found in both]
    expected = gate.cost_of_changes(ours, *(np.asarray(decision_of(found)) for found in both))
    if held.taught:
        noise = quantise.noise_of("classify", ours, theirs, np.ones(ours.shape[1]))
        expected = max(expected, quantise.expected_drop(noise, made.errors))
    return gate.judged(made.max_drop, len(ours), score.difference, (right[0], right[1]), expected)


def _errors(bundle: Bundle | None) -> float:
    """The share of wrong answers that cross-validation found; that which noise is allowed for where it is not known."""
    try:
        found = (bundle.metrics if bundle else {}).get("cross_validation") or {}
        return 1 - float(found["accuracy"]["value"])
    except (BundleError, KeyError, TypeError, ValueError, AttributeError):
        return quantise.ERRORS


def slower(made: Made) -> str | None:
    """A warning in words where int8 does not pay on this machine."""
    if made.speed_ratio >= 1:
        return None
    return f"in int8 it is slower here, at {made.speed_ratio:.2f} times the speed of float32: of use for its size alone"
