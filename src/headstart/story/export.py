"""A saved model as a file for another runtime: load, find images, convert, check there, write.

The order matters: what cannot be exported, written or checked is said before anything slow, and a file that disagrees
with `predict` is never left behind.
"""

from __future__ import annotations

import datetime
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.counted import counted
from headstart.errors import HeadstartError, OutputError, lacks_memory
from headstart.export.about import about
from headstart.export.agreement import (
    BATCH,
    Answers,
    Differences,
    Ran,
    Score,
    bound_of,
    differences,
    run,
    scored,
)
from headstart.export.answers import check_exportable, further, further_of, plain_of
from headstart.export.folder import PROGRAM, RECORD, check_folder, size_of, write_folder
from headstart.export.format import Exportable, Format
from headstart.export.formats import check_any_size, check_installed, format_of
from headstart.export.loader import program
from headstart.files.bundle import CARD, EXPORT, Bundle, read_bundle
from headstart.files.cells import printable
from headstart.files.reading import MOST_TEXT, read_regular, why
from headstart.files.whole import write_whole
from headstart.report.exports import with_exports
from headstart.ship.package import Loaded, unpack
from headstart.ship.predict import predict, predict_with_features
from headstart.story import int8
from headstart.story.held_out import HeldOut, decoded, held_out
from headstart.story.opening import QUIET, Watcher
from headstart.trunk.engine import compile_trunk, on_cpu

READ = 200  # files that the loader is given: it decodes them one after the other


@dataclass(frozen=True)
class Asked:
    """to: the format. output: the folder, None for one beside the model. data: where its images are, None to look for
    them. any_size: pictures of any size go in. force: an export of another model may be replaced. int8: in 8-bit
    integers, where that loses no more than `max_drop` points."""

    to: str
    output: str | None = None
    data: str | None = None
    any_size: bool = False
    force: bool = False
    int8: bool = False
    max_drop: float = 0.5


@dataclass(frozen=True, eq=False)
class Truth:
    """What an export is held against. pixels: a .npy of uint8 (image, height, width, 3); answers (image, output): what
    `predict` says of them in float32; as_here: the same in the precision that this machine takes by itself, where that
    is another, and its name. files: pictures on the disk, the first images' bytes. further: what a second output should
    be of the first BATCH images, where the graph has one."""

    held: HeldOut
    pixels: Path
    answers: Answers
    as_here: tuple[str, Answers] | None
    files: tuple[Path, ...]
    further: Answers | None = None


@dataclass(frozen=True)
class Compared:
    """pixels: of the graph on the very pixels of `predict`, None of one that takes any size; loader: of predict.py on
    the files, of which it could not read `unread`; score: against the truth, None where it is not known; here: the
    precision of this machine's `predict`, and how far that is from float32, where it is another; further: the name
    of a second output and its largest difference, where there is one."""

    pixels: Differences | None
    loader: Differences | None
    unread: int
    score: Score | None
    here: tuple[str, Differences] | None
    further: tuple[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The graph's under their own names, the rest in objects."""
        main = self.pixels or self.loader
        assert main is not None
        return {
            "images": main.n,
            "largest_difference": main.largest,
            "mean_difference": main.mean,
            "label_agreement": main.labels,
            "score": self.score and self.score.to_json(),
            "loader": self.loader and self.loader.to_json() | {"unread": self.unread},
            "predict_here": self.here and {"precision": self.here[0]} | self.here[1].to_json(),
            "further": self.further and {"name": self.further[0], "largest_difference": self.further[1]},
        }


@dataclass(frozen=True)
class Exported:
    """What was written, and how it did. `record`: as export.json has it."""

    folder: Path
    record: dict[str, Any]
    notes: tuple[str, ...] = ()


def export(folder: str | Path, asked: Asked, watch: Watcher = QUIET) -> Exported:
    """Raises OptionError for what cannot be exported, DataError without images, OutputError where it cannot be written,
    HeadstartError where it cannot be converted or does not agree."""
    of = format_of(asked.to)
    check_any_size(of, asked.any_size)
    check_installed(of)
    bundle = read_bundle(folder)
    model = unpack(bundle)
    check_exportable(model, bundle.folder.name)
    if asked.int8:
        int8.check_task(model.task)
        int8.check_int8(of, asked.any_size)
    place = Path(asked.output) if asked.output else default_folder(bundle.folder, key_of(asked))
    data = str(bundle.manifest.get("data_fingerprint", ""))
    check_folder(place, data, asked.force)
    found: dict[str, Any] = {}
    with scratch_folder() as scratch:
        held = held_out(bundle, asked.data)
        held = int8.shared_out(held) if asked.int8 else held
        truth = truth_of(model, held, scratch, watch)
        said = about(model, bundle.folder.name, asked.any_size)

        def fill(new: Path) -> None:
            watch.say(f"{of.name}: converting")
            converted(model, of, said, asked.any_size, new)
            made = int8.made(model, of, new, truth.held.teaching, asked.max_drop, watch) if asked.int8 else None
            watch.say(f"{of.name}: checked on {truth.held.said}")
            found.update(checked(model, of, truth, new, asked.any_size, made))
            write_record(new, found, said)

        write_folder(place, data, asked.force, fill)
    return Exported(place, found, noted(bundle, key_of(asked), found))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for a while. Raises OutputError where the disk with the system's temporary files takes no more."""
    try:
        with tempfile.TemporaryDirectory(prefix="headstart-") as place:
            yield Path(place)
    except OutputError:
        raise
    except OSError as error:
        if lacks_memory(error):
            raise
        raise OutputError(f"temporary files cannot be written ({why(error)}): free some space, or set TMPDIR") from None


def key_of(asked: Asked) -> str:
    """What an export is called beside others of the model."""
    return asked.to + ("-any-size" if asked.any_size else "") + ("-int8" if asked.int8 else "")


def default_folder(model: Path, key: str) -> Path:
    """Beside the model: a model's own folder holds nothing else."""
    return model.with_name(f"{model.name}-{key}")


def truth_of(model: Loaded, held: HeldOut, scratch: Path, watch: Watcher = QUIET) -> Truth:
    """Decode the images, and ask `predict` of them."""
    held, pixels = decoded(held, model.backbone.preprocess, scratch / "pixels.npy")
    plainly = on_cpu(model.backbone, "f32")
    answers, more = _asked(model, held, plainly, watch), None
    if further_of(model.head) is not None:
        few = held.table.take(range(min(BATCH, len(held.table))))
        more = further(model.head, predict_with_features(model, few, plainly)[1])
    here = compile_trunk(model.backbone, model.precision)
    as_here = (here.precision, _asked(model, held, here, watch)) if here.precision != "f32" else None
    return Truth(held, pixels, answers, as_here, files_of(held, scratch / "files"), more)


def _asked(model: Loaded, held: HeldOut, engine: Any, watch: Watcher) -> Answers:
    found = predict(model, held.table, engine, watch.bar("predict", len(held.table)))
    return plain_of(found.answers).astype(np.float32)


def files_of(held: HeldOut, folder: Path) -> tuple[Path, ...]:
    """The first images as files of their own, since they may lie in archives."""
    folder.mkdir()
    found = []
    for row in range(min(READ, len(held.table))):
        content = held.table.read(row)
        if isinstance(content, bytes):
            found.append(folder / f"{row:05d}")
            found[-1].write_bytes(content)
    return tuple(found)


def converted(model: Loaded, of: Format, said: Mapping[str, Any], any_size: bool, folder: Path) -> None:
    """Write the file and its loader into the folder. Raises HeadstartError where the converter cannot."""
    from headstart.export.any_size import any_size_graph
    from headstart.export.graph import graph_of

    module = any_size_graph(model) if any_size else graph_of(model)
    try:
        more = further_of(model.head)
        outputs = ("answers",) if more is None else ("answers", more.name)
        of.convert(Exportable(module, model.backbone.preprocess.size, dict(said), any_size, outputs), folder)
        (folder / PROGRAM).write_text(program(of), encoding="utf-8")
    except (RuntimeError, ValueError, TypeError) as error:
        if lacks_memory(error):
            raise
        raise HeadstartError(
            f"{model.backbone.name} cannot be converted to {of.name} ({why_not(error)}): try another --to"
        ) from error


def why_not(error: BaseException) -> str:
    """What lies at the bottom of a converter's error, whose first lines say where it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not re.match("Check .* failed at|Converting input model", line)]
    return printable((said or lines or [type(error).__name__])[0][:200])


def checked(
    model: Loaded, of: Format, truth: Truth, folder: Path, any_size: bool = False, made: int8.Made | None = None
) -> dict[str, Any]:
    """What export.json says of the export in a folder, after it was run. made: how it became one of 8-bit integers.
    Raises HeadstartError where it disagrees, or loses too much in int8."""
    ran = run(folder, of, None if any_size else truth.pixels, truth.files)
    found = compared(model, truth, ran)
    record = recorded(of, truth, ran, found, size_of(folder))
    if made is not None:
        return record | {"int8": int8.gated(model, made, truth.held, truth.answers, ran.answers, found.score).to_json()}
    agrees(found, bound_of(model, any_size), of)
    return record


def compared(model: Loaded, truth: Truth, ran: Ran) -> Compared:
    """What an export said beside `predict` in float32 and beside the truth."""
    n = len(truth.files)
    could = np.array([not error for error in ran.errors], bool)
    by_loader = differences(model, truth.answers[:n][could], ran.read[could]) if could.any() else None
    theirs, ours, rows = ran.answers, truth.answers, np.arange(len(truth.answers))
    if theirs is None:
        theirs, ours, rows = ran.read[could], ours[:n][could], rows[:n][could]
    score = None
    if truth.held.labelled and len(rows):
        targets = model.task.targets(truth.held.table.take(rows), model.names)
        if model.task.own is None or model.task.own.comparable(targets):
            score = scored(model, targets, truth.held.groups[rows], ours, theirs)
    here = None if truth.as_here is None else (truth.as_here[0], differences(model, truth.answers, truth.as_here[1]))
    pixels = None if ran.answers is None else differences(model, truth.answers, ran.answers)
    return Compared(pixels, by_loader, int((~could).sum()), score, here, _further(model, truth, ran))


def _further(model: Loaded, truth: Truth, ran: Ran) -> tuple[str, float] | None:
    """Of a second output its name and the largest difference."""
    what = further_of(model.head)
    if what is None or truth.further is None or ran.further is None:
        return None
    return what.name, float(np.abs(truth.further.astype(np.float64) - ran.further).max())


def agrees(found: Compared, bound: float, of: Format) -> None:
    """Raises HeadstartError where an export in float32 says something else than `predict`."""
    here = found.pixels or found.loader
    if here is None:
        raise HeadstartError(f"the loader of the {of.name} file reads none of the images: nothing was written")
    largest = max(here.largest, found.further[1] if found.further else 0.0)
    if not largest <= bound:
        raise HeadstartError(
            f"the {of.name} file does not say what predict says: over {counted(here.n, 'image')} they differ by up to "
            f"{largest:.2g}, and {bound:g} is allowed: nothing was written; try another --to"
        )


def recorded(of: Format, truth: Truth, ran: Ran, found: Compared, size: int) -> dict[str, Any]:
    """As export.json has it, but for what the file says of itself."""
    return {
        "format": of.name,
        "file": of.file,
        "bytes": size,
        "any_size": ran.answers is None,
        "checked_on": truth.held.said,
        **found.to_json(),
        **timed(of, ran),
    }


def timed(of: Format, ran: Ran) -> dict[str, Any]:
    """How fast it was, in which runtime, and when."""
    return {
        "latency_ms": None if np.isnan(ran.latency) else round(1000 * ran.latency, 3),
        "images_per_second": None if np.isnan(ran.rate) else round(ran.rate, 2),
        "batch": BATCH,
        "runtime": f"{of.runtime} {ran.runtime.partition('-')[0]}".strip(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write_record(folder: Path, found: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """export.json of the export's own folder."""
    files = sorted(f.name for f in folder.iterdir())
    text = json.dumps({**found, "files": files, "about": said}, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8", errors="replace")


def noted(bundle: Bundle, key: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Note an export in the model's export.json and its card. What cannot be written there is said, and no failure."""
    place, card = bundle.folder / EXPORT, bundle.folder / CARD
    try:
        exports = {**_exports(place), key: dict(found)}
        text = json.dumps(exports, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(place, lambda new: new.write_text(text, encoding="utf-8", errors="replace"))
        if card.is_file():
            told = with_exports(read_regular(card, MOST_TEXT).decode("utf-8", "replace"), exports)
            write_whole(card, lambda new: new.write_text(told, encoding="utf-8"))
    except OSError as error:
        return (f"{bundle.folder.name} does not say so itself, since it cannot be written ({why(error)})",)
    return ()


def _exports(place: Path) -> dict[str, Any]:
    """What a model's export.json says; nothing where it is none, or was broken by hand."""
    try:
        found = json.loads(read_regular(place, MOST_TEXT))
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}
