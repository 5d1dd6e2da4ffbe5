"""A saved model of masks or boxes as a file for another runtime, in the order of `export.py`: load, find images,
convert, check there, write.

What is compared are the answers of each picture, `export/forms.py` says how: the share of its pixels that have another
class than `predict` says, or of its boxes that are not found again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import HeadstartError, OptionError, lacks_memory
from headstart.export.about import about_placed
from headstart.export.agreement import Ran, run
from headstart.export.folder import PROGRAM, check_folder, size_of, write_folder
from headstart.export.format import Exportable, Format
from headstart.export.formats import check_installed, format_of
from headstart.export.forms import FORMS, Form, shares
from headstart.export.loader import program
from headstart.files.bundle import Bundle
from headstart.ship.placed import Placed, Said, predict, unpack
from headstart.story.export import (
    Asked,
    Exported,
    default_folder,
    files_of,
    key_of,
    noted,
    scratch_folder,
    timed,
    why_not,
    write_record,
)
from headstart.story.held_out import HeldOut, decoded, held_out
from headstart.story.opening import QUIET, Watcher
from headstart.tasks.placed import Answer, Size
from headstart.trunk.engine import Engine, compile_trunk, on_cpu

FORMATS = ("onnx", "openvino")
MOST = 32  # pictures that check it: their pixels are some million answers, their boxes some hundred
LOADED = ("largest", "mean", "labels")  # what export.json calls the differences of others than the graph itself


@dataclass(frozen=True, eq=False)
class Expected:
    """What an export is held against: what `predict` says of each picture in float32, and their upright sizes (height,
    width) in px; here: the same answers in the precision that this machine takes by itself, and its name, None where
    that is float32."""

    model: Placed
    form: Form
    answers: list[Answer]
    sizes: list[Size]
    here: tuple[str, list[Answer]] | None = None

    def read(self, outputs: NDArray[np.float32], rows: Sequence[int]) -> list[Answer]:
        """Answers from what the graph gave for the pictures of these rows."""
        return [self.form.answer(self.model, one, self.sizes[row]) for one, row in zip(outputs, rows, strict=True)]


def export_placed(bundle: Bundle, asked: Asked, watch: Watcher = QUIET) -> Exported:
    """Raises OptionError for what cannot be exported, DataError without images, OutputError where it cannot be written,
    HeadstartError where it cannot be converted or does not agree."""
    of, form = format_of(asked.to), FORMS[bundle.manifest["task"]]
    _check(of, form, asked)
    check_installed(of)
    model = unpack(bundle)
    place = Path(asked.output) if asked.output else default_folder(bundle.folder, key_of(asked))
    data = str(bundle.manifest.get("data_fingerprint", ""))
    check_folder(place, data, asked.force)
    found: dict[str, Any] = {}
    with scratch_folder() as scratch:
        held, pixels = decoded(held_out(bundle, asked.data, MOST), model.backbone.preprocess, scratch / "pixels.npy")
        expected = expected_of(model, held, watch)
        said = about_placed(model, form, bundle.folder.name)

        def fill(new: Path) -> None:
            watch.say(f"{of.name}: converting")
            converted(model, of, form, said, new)
            watch.say(f"{of.name}: checked on {held.said}")
            ran = run(new, of, pixels, files_of(held, scratch / "files"))
            found.update(recorded(of, held.said, expected, ran, size_of(new)))
            write_record(new, found, said)

        write_folder(place, data, asked.force, fill)
    return Exported(place, found, noted(bundle, key_of(asked), found))


def _check(of: Format, form: Form, asked: Asked) -> None:
    """Raises OptionError for what a graph of masks or boxes cannot be."""
    if of.name not in FORMATS:
        raise OptionError(f"--to {of.name} is not of a model of {form.what}: one of {', '.join(FORMATS)}")
    for option, given in (("--any-size", asked.any_size), ("--int8", asked.int8)):
        if given:
            raise OptionError(f"{option} is not of a model of {form.what}: leave it out")


def expected_of(model: Placed, held: HeldOut, watch: Watcher = QUIET) -> Expected:
    """What `predict` says in float32, and in the precision that this machine takes by itself."""
    plainly = _said(model, held, on_cpu(model.backbone, "f32"), watch)
    engine = compile_trunk(model.backbone, model.precision)
    here = None if engine.precision == "f32" else (engine.precision, _answers(_said(model, held, engine, watch)))
    return Expected(model, FORMS[model.task.name], _answers(plainly), [one.size for one in plainly], here)


def _said(model: Placed, held: HeldOut, engine: Engine, watch: Watcher) -> list[Said]:
    found: list[Said] = []
    predict(model, held.table, found.append, engine, watch.bar("predict", len(held.table)))
    return found


def _answers(said: list[Said]) -> list[Answer]:
    answers = [one.answer for one in said if one.answer is not None]
    assert len(answers) == len(said)  # what cannot be read was left out
    return answers


def converted(model: Placed, of: Format, form: Form, said: Mapping[str, Any], folder: Path) -> None:
    """Write the file and its loader into the folder. Raises HeadstartError where the converter cannot."""
    from headstart.export.placed import placed_graph

    try:
        graph = Exportable(placed_graph(model), model.frame, dict(said), outputs=(form.output["name"],))
        of.convert(graph, folder)
        (folder / PROGRAM).write_text(program(of, form.loader), encoding="utf-8")
    except (RuntimeError, ValueError, TypeError) as error:
        if lacks_memory(error):
            raise
        raise HeadstartError(
            f"{model.backbone.name} cannot be converted to {of.name} ({why_not(error)}): try another --to"
        ) from error


def recorded(of: Format, checked_on: str, expected: Expected, ran: Ran, size: int) -> dict[str, Any]:
    """As export.json has it. Raises HeadstartError where it disagrees with `predict`."""
    assert ran.answers is not None
    form, ours, n = expected.form, expected.answers, len(expected.answers)
    if not np.isfinite(ran.answers).all():
        raise HeadstartError(
            f"the {of.name} file answers with what is no number: nothing was written; try another --to"
        )
    each, whole = shares(form.differs, ours, expected.read(ran.answers, range(n)))
    for share, most, where in ((each.max(), form.each, "of a picture"), (whole, form.most, f"of {n} pictures")):
        if share > most:
            raise HeadstartError(
                f"the {of.name} file does not say what predict says: {where} {share:.2%} of the {form.unit} differ, "
                f"and {most:.1%} is allowed: nothing was written; try another --to"
            )
    could = [k for k, error in enumerate(ran.errors) if not error]
    loader = None
    if could:
        by_loader = shares(form.differs, [ours[k] for k in could], expected.read(ran.read[could], could))
        loader = {"n": len(could), **_told(*by_loader, LOADED), "unread": len(ran.errors) - len(could)}
    return {
        "format": of.name,
        "file": of.file,
        "bytes": size,
        "any_size": False,
        "checked_on": checked_on,
        "images": n,
        **_told(each, whole, ("largest_difference", "mean_difference", "label_agreement")),
        "of": form.unit,
        "score": None,
        "loader": loader,
        "predict_here": _beside(expected),
        "further": None,
        **timed(of, ran),
    }


def _beside(expected: Expected) -> dict[str, Any] | None:
    """How far this machine's own `predict` is from that in float32."""
    if expected.here is None:
        return None
    name, answers = expected.here
    form = expected.form
    found = shares(form.roughly(expected.model), expected.answers, answers)
    return {"precision": name, "n": len(answers), **_told(*found, LOADED), "of": form.rough}


def _told(each: Any, whole: float, names: tuple[str, str, str]) -> dict[str, float]:
    """The largest share of a picture's answers that differ, that of all of them, and what agrees."""
    return dict(zip(names, (float(each.max()), whole, 1 - whole), strict=True))
