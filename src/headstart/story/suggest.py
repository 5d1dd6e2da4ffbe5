"""Which unlabelled images to label next: `headstart suggest MODEL IMAGES -n 100 -o suggest.csv`.

Their features are kept as `fit` keeps them, so that a later fit with their labels sees no image again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.counted import counted
from headstart.data import images
from headstart.data.sources import FileSource
from headstart.data.table import Table
from headstart.errors import DataError, HeadstartError, ImageError, OptionError, OutputError
from headstart.files.bundle import Bundle, read_bundle
from headstart.files.cells import csv_bytes
from headstart.files.output import from_folder
from headstart.files.reading import why
from headstart.files.whole import write_whole
from headstart.heads.choosing import Choice, choose
from headstart.heads.taps import last
from headstart.judge.class_marks import probabilities_of
from headstart.ship.package import Loaded, unpack
from headstart.story.opening import QUIET, Options, Watcher, features_of, read_at
from headstart.trunk.backbone import trunk_of
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import store_key
from headstart.trunk.layers import LAST
from headstart.trunk.network import Backbone
from headstart.trunk.store import Store, cache_root

COLUMNS = ("path", "label", "rank", "predicted", "probability", "reason")
PREVIEW = 256  # px, the longer side


@dataclass(frozen=True)
class Suggested:
    """What is worth a label: a record an image, best first, and the row of the table of each."""

    records: tuple[dict[str, Any], ...]
    rows: tuple[int, ...]
    set_aside: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def suggest(folder: str | Path, table: Table, n: int, cache: str | None = None, watch: Watcher = QUIET) -> Suggested:
    """n images of the table to label next for a saved classifier; fewer where the others were its own, or are copies.

    Raises OptionError where the model names no classes, DataError where nothing can be suggested.
    """
    bundle = read_bundle(folder)
    model = unpack(bundle)
    if model.task.name != "classify":
        raise OptionError(f"{folder} is a model of --task {model.task.name}: suggest is of one class an image")
    backbone, options = _as_fitted(bundle, model, cache)
    engine = compile_trunk(backbone, model.precision)
    features = features_of(table, backbone, engine, options, watch.bar("network", len(table)), watch.say)
    known, hashes = _known(bundle, Store(cache_root(cache), store_key(backbone, engine)))
    fresh, seen = [], set(hashes)
    for row, content in enumerate(features.hashes):
        if content not in seen:
            fresh.append(row)
            seen.add(content)
    if not fresh:
        read = counted(len(features), "image")
        raise DataError(f"all {read} that can be read belong to this model already: there is nothing to label")
    blocks = {name: block[fresh] for name, block in features.blocks.items()}
    answers = probabilities_of(model.task.answers(model.head.outputs(blocks), model.rule))
    if LAST not in blocks:
        name = next(iter(blocks))
        raise OptionError(f"{folder} reads the layer {name} alone: suggest needs a model that reads {LAST} too")
    taught = None if known is None else last().of(known)
    choice = choose(last().of(blocks), answers, n, taught)
    notes = list(features.remarks)
    if len(fresh) < len(features):
        passed = counted(len(features) - len(fresh), "image")
        notes.append(f"passed over {passed}: the model's own, or copies of others")
    if taught is None:
        notes.append("which images are unlike the labelled ones is not said: their features are not in this cache")
    names = [str(table.names[features.kept[row]]) for row in fresh]
    records = tuple(_record(rank, k, names[k], answers[k], choice, model) for rank, k in enumerate(choice.rows, 1))
    rows = tuple(int(features.kept[fresh[k]]) for k in choice.rows)
    return Suggested(records, rows, features.set_aside, tuple(notes))


def _as_fitted(bundle: Bundle, model: Loaded, cache: str | None) -> tuple[Backbone, Options]:
    """The network with all the layers that `fit` reads of it, so that what is stored is what a later fit asks for."""
    told = {k: v for k, v in bundle.run.get("options", {}).items() if k in vars(Options())}
    options = replace(Options(**told), cache=cache, tune="none", lr=None, budget=None)
    backbone = replace(trunk_of(bundle, cache), preprocess=model.backbone.preprocess)
    return read_at(backbone, options), options


def _known(bundle: Bundle, store: Store) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """(features of the images that the model knows, if they are stored; their content hashes)."""
    from headstart.data.splits import read_split

    try:
        hashes = tuple(map(str, read_split(bundle.folder / "split.parquet").hashes))
    except HeadstartError:
        return None, ()
    found = store.read(hashes) if all(h in store for h in hashes) else None
    return (None if found is None or LAST not in found.blocks else dict(found.blocks)), hashes


def _record(rank: int, k: int, name: str, answer: Any, choice: Choice, model: Loaded) -> dict[str, Any]:
    order = np.argsort(-answer, kind="stable")
    label, probability = model.names[order[0]], float(answer[order[0]])
    reason = f"{model.names[order[1]]} is almost as likely ({answer[order[1]]:.0%})"
    if choice.distance is not None and choice.distance[k] > choice.far:
        reason = "unlike every labelled image"
    elif choice.unsure[k] < 0.8:
        reason = f"among the least sure of these images ({model.names[order[1]]} {answer[order[1]]:.0%})"
    return {
        "path": name,
        "label": "",
        "rank": rank,
        "predicted": label,
        "probability": round(probability, 6),
        "reason": reason,
    }


def write_suggested(found: Suggested, table: Table, out: Path) -> None:
    """A list that `fit` reads once its column label is filled: paths from its own folder on. Raises OutputError."""
    rows = []
    for record, row in zip(found.records, found.rows, strict=True):
        source, name = table.sources[row], record["path"]
        if isinstance(source, FileSource):
            name = from_folder(str(source.path), out.absolute().parent)
        rows.append([name, *(record[column] for column in COLUMNS[1:])])
    _write(out, csv_bytes(COLUMNS, rows))


def write_sheet(found: Suggested, table: Table, out: Path) -> None:
    """The same as pictures, on one page that needs nothing else. Raises OutputError."""
    from headstart import report

    def preview(row: int) -> bytes:
        try:
            return images.preview(table.read(row), PREVIEW)
        except ImageError:
            return b""

    pictures = [
        report.Picture(preview(row), r["path"], "", r["predicted"], r["probability"], f"{r['rank']}. {r['reason']}")
        for r, row in zip(found.records, found.rows, strict=True)
    ]
    _write(out, report.render_sheet(pictures).encode())


def _write(out: Path, content: bytes) -> None:
    try:
        write_whole(out, lambda place: place.write_bytes(content))
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({why(error)}): choose another place") from None
