"""What the network says of a set of images, as a table on disk: `headstart features`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from headstart.data.table import Table
from headstart.errors import OptionError
from headstart.files import far
from headstart.files.bundle import read_bundle
from headstart.files.cells import csv_bytes
from headstart.files.put import put, refusing
from headstart.ship.package import unpack
from headstart.story.feature_folder import Place, feature_table, write_folder
from headstart.story.opening import Options, Watcher, features_of, open_at_size
from headstart.story.pipeline import announce
from headstart.tasks.known import TASKS
from headstart.trunk.engine import compile_trunk
from headstart.trunk.layers import Tap
from headstart.trunk.network import Backbone, block_names, tap_at
from headstart.trunk.pieces import Sight
from headstart.trunk.store import cache_root

DEFAULTS = vars(Options())


def opened_for(table: Table, options: Options, model: str | None, watch: Watcher) -> tuple[Backbone, str]:
    """The network that sees the images, and its precision: as the options say; or that of a saved model, to what its
    head reads. Raises OptionError for both at once, BundleError."""
    if model is None:
        whole = TASKS[table.task].whole  # as a fit sees them
        return open_at_size(table, options, say=watch.say, whole=whole), options.precision
    given = [
        name
        for name in ("backbone", "weights", "size", "view", "views", "bands")
        if getattr(options, name) != DEFAULTS[name]
    ]
    if given:
        raise OptionError(f"--model {model} brings its own network and size: leave --{given[0]} out")
    loaded = unpack(read_bundle(model))
    return loaded.backbone, loaded.precision if options.precision == "auto" else options.precision


def write_features(
    table: Table,
    out: far.Place,
    layer: str | None,
    pooling: str,
    options: Options,
    watch: Watcher,
    seen_by: tuple[Backbone, str],
    folder: Mapping[str, object] | None = None,
) -> tuple[int, dict[str, int], list[dict[str, str]]]:
    """Features of a data set (labelled or not) as a file: path, label, split, hash and the features of each block.

    Parquet has one float16 list a block, JSON lines one list a block, CSV a column a feature: "pre_logits 17".

    `layer`: a block of the taps ("blocks.3/mean"), or any layer by its name, pooled as `pooling`; the shape of a map
    stands in the column's metadata. `folder`: of Parquet files (`feature_folder.py`), which say that they were seen so
    (`feature_fit.seen_as`); None: one file. `seen_by`: see `opened_for`. Returns (images, {block: features}, set
    aside). Raises OptionError, OutputError.
    """
    backbone, precision = seen_by
    one = layer is not None and layer not in block_names(backbone)
    if one:
        backbone = replace(backbone, taps=(tap_at(backbone, str(layer), pooling),), ends=())
        layer = None
    engine = compile_trunk(backbone, precision)
    announce(table, watch)
    said = {"headstart": json.dumps(_described(backbone.taps[0], pooling))} if one else {}
    if folder is not None:
        root = cache_root(options.cache).absolute()
        place = Place(Sight.of(backbone, engine, root), out.absolute(), layer, said, folder)
        found = write_folder(table, place, options.ray, watch.bar("network", len(table)), watch.say)
        return found.images, found.blocks, [{"path": n, "reason": r} for n, r in found.set_aside]
    features = features_of(table, backbone, engine, options, watch.bar("network", len(table)), watch.say)
    kept = table.take(features.kept)
    chosen = {name: block for name, block in features.blocks.items() if layer in (None, name)}
    about: dict[str, list[str]] = {
        "path": kept.names.tolist(),
        "label": kept.labels.tolist(),
        "split": kept.splits.tolist(),
        "content_hash": list(features.hashes),
    }
    ending = out.suffix.lower()

    def write(place: Path) -> object:
        if ending == ".parquet":
            return pq.write_table(feature_table(about, chosen, said), place)
        return _write_text(about, chosen, place, ending)

    with refusing(f"features cannot be written to {out}"):
        put(out, write)
    return (
        len(kept),
        {name: block.shape[1] for name, block in chosen.items()},
        [{"path": n, "reason": r} for n, r in features.set_aside],
    )


def _described(one: Tap, pooling: str) -> dict[str, object]:
    """What the column of one layer says of itself."""
    shape = one.shape if pooling == "none" else (one.widths[0],)
    return {"layer": one.name, "module": one.module, "pooling": pooling, "shape": list(shape)}


def _write_text(about: dict[str, Any], blocks: dict[str, Any], place: Path, ending: str) -> None:
    """The rows as CSV or as JSON lines. Numbers are float16, so that four digits say all of them."""
    heads = list(zip(*about.values(), strict=True))
    if ending == ".csv":
        names = [*about, *(f"{name} {k}" for name, block in blocks.items() for k in range(block.shape[1]))]
        rows = (
            (*head, *(_short(v) for block in blocks.values() for v in block[row])) for row, head in enumerate(heads)
        )
        place.write_bytes(csv_bytes(names, rows))
        return
    with place.open("w", encoding="utf-8") as file:
        for row, head in enumerate(heads):
            values = {name: [_short(v) for v in block[row]] for name, block in blocks.items()}
            file.write(json.dumps(dict(zip(about, head, strict=True)) | values, ensure_ascii=True) + "\n")


def _short(value: Any) -> float:
    """The shortest number that is this float16 again."""
    return float(f"{float(value):.5g}")
