"""A saved model of masks as a file for another runtime, in the order of `export.py`: load, find images, convert, check
there, write.

What is compared is the mask of each picture: the share of its pixels that have another class than `predict` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.placing import Size, numbers_in
from headstart.errors import HeadstartError, OptionError, lacks_memory
from headstart.export.about import about_masks
from headstart.export.agreement import Ran, run
from headstart.export.folder import PROGRAM, check_folder, size_of, write_folder
from headstart.export.format import Exportable, Format
from headstart.export.formats import check_installed, format_of
from headstart.export.loader import MASKS, program
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
from headstart.trunk.engine import Engine, compile_trunk, on_cpu

FORMATS = ("onnx", "openvino")
MOST = 32  # pictures that check it: their pixels are some million answers
MOST_WRONG = 1e-3  # share of a picture's pixels: where two classes are equally likely the last digit decides
LOADED = ("largest", "mean", "labels")  # what export.json calls the differences of others than the graph itself
Mask = NDArray[np.uint8]


def export_masks(bundle: Bundle, asked: Asked, watch: Watcher = QUIET) -> Exported:
    """Raises OptionError for what cannot be exported, DataError without images, OutputError where it cannot be written,
    HeadstartError where it cannot be converted or does not agree."""
    of = format_of(asked.to)
    _check(of, asked)
    check_installed(of)
    model = unpack(bundle)
    place = Path(asked.output) if asked.output else default_folder(bundle.folder, key_of(asked))
    data = str(bundle.manifest.get("data_fingerprint", ""))
    check_folder(place, data, asked.force)
    found: dict[str, Any] = {}
    with scratch_folder() as scratch:
        held, pixels = decoded(held_out(bundle, asked.data, MOST), model.backbone.preprocess, scratch / "pixels.npy")
        masks, here = _masks(model, held, on_cpu(model.backbone, "f32"), watch), _here(model, held, watch)
        said = about_masks(model, bundle.folder.name)

        def fill(new: Path) -> None:
            watch.say(f"{of.name}: converting")
            converted(model, of, said, new)
            watch.say(f"{of.name}: checked on {held.said}")
            files = files_of(held, scratch / "files")
            found.update(
                recorded(of, held.said, masks, run(new, of, pixels, files), size_of(new)) | _beside(masks, here)
            )
            write_record(new, found, said)

        write_folder(place, data, asked.force, fill)
    return Exported(place, found, noted(bundle, key_of(asked), found))


def _check(of: Format, asked: Asked) -> None:
    """Raises OptionError for what a graph of masks cannot be."""
    if of.name not in FORMATS:
        raise OptionError(f"--to {of.name} is not of a model of masks: one of {', '.join(FORMATS)}")
    for option, given in (("--any-size", asked.any_size), ("--int8", asked.int8)):
        if given:
            raise OptionError(f"{option} is not of a model of masks: leave it out")


def _masks(model: Placed, held: HeldOut, engine: Engine, watch: Watcher) -> list[Mask]:
    """What `predict` says with this engine."""
    found: list[Mask] = []

    def done(said: Said) -> None:
        assert said.answer is not None  # what cannot be read was left out
        found.append(said.answer)

    predict(model, held.table, done, engine, watch.bar("predict", len(held.table)))
    return found


def _here(model: Placed, held: HeldOut, watch: Watcher) -> tuple[str, list[Mask]] | None:
    """The same in the precision that this machine takes by itself, and its name; None where that is float32."""
    engine = compile_trunk(model.backbone, model.precision)
    return None if engine.precision == "f32" else (engine.precision, _masks(model, held, engine, watch))


def _beside(masks: list[Mask], here: tuple[str, list[Mask]] | None) -> dict[str, Any]:
    """How far this machine's own `predict` is from that in float32."""
    if here is None:
        return {"predict_here": None}
    shares = np.array([(one != other).mean() for one, other in zip(masks, here[1], strict=True)])
    return {"predict_here": {"precision": here[0], "n": len(masks), **_told(shares, LOADED)}}


def converted(model: Placed, of: Format, said: Mapping[str, Any], folder: Path) -> None:
    """Write the file and its loader into the folder. Raises HeadstartError where the converter cannot."""
    from headstart.export.masks import masks_graph

    try:
        of.convert(Exportable(masks_graph(model), model.frame, dict(said), outputs=("scores",)), folder)
        (folder / PROGRAM).write_text(program(of, MASKS), encoding="utf-8")
    except (RuntimeError, ValueError, TypeError) as error:
        if lacks_memory(error):
            raise
        raise HeadstartError(
            f"{model.backbone.name} cannot be converted to {of.name} ({why_not(error)}): try another --to"
        ) from error


def wrong(masks: list[Mask], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """(image,): the share of pixels that scores (image, class, row, column) give another class than the mask has."""
    sizes: list[Size] = [(mask.shape[0], mask.shape[1]) for mask in masks]
    return np.array([(numbers_in(s, size) != m).mean() for s, size, m in zip(scores, sizes, masks, strict=True)])


def recorded(of: Format, checked_on: str, masks: list[Mask], ran: Ran, size: int) -> dict[str, Any]:
    """As export.json has it. Raises HeadstartError where it disagrees with `predict`."""
    assert ran.answers is not None
    own = wrong(masks, ran.answers)
    if not (np.isfinite(ran.answers).all() and own.max() <= MOST_WRONG):
        raise HeadstartError(
            f"the {of.name} file does not say what predict says: of a picture {own.max():.2%} of the pixels are of "
            f"another class, and {MOST_WRONG:.1%} is allowed: nothing was written; try another --to"
        )
    could = [k for k, error in enumerate(ran.errors) if not error]
    loader = None
    if could:
        by_loader = wrong([masks[k] for k in could], ran.read[could])
        unread = len(ran.errors) - len(could)
        loader = {"n": len(could), **_told(by_loader, LOADED), "unread": unread}
    return {
        "format": of.name,
        "file": of.file,
        "bytes": size,
        "any_size": False,
        "checked_on": checked_on,
        "images": len(masks),
        **_told(own, ("largest_difference", "mean_difference", "label_agreement")),
        "score": None,
        "loader": loader,
        "further": None,
        **timed(of, ran),
    }


def _told(shares: NDArray[np.float64], names: tuple[str, str, str]) -> dict[str, float]:
    """The largest share of a picture's pixels that differ, the mean share, and what agrees."""
    return dict(zip(names, (float(shares.max()), float(shares.mean()), 1 - float(shares.mean())), strict=True))
