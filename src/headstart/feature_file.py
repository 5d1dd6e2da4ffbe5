"""What the network says of a set of images, as a table on disk: `headstart features`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.data.table import Table, list_images, read_table
from headstart.errors import DataError, OutputError
from headstart.opening import Options, Watcher, open_at_size, see
from headstart.pipeline import announce
from headstart.trunk.engine import compile_trunk
from headstart.trunk.network import block_names, tap_at


def write_features(
    data: str, out: Path, layer: str | None, pooling: str, options: Options, watch: Watcher
) -> tuple[int, dict[str, int], list[dict[str, str]]]:
    """Features of a data set (labelled or not) as Parquet: path, label, split, hash and one float16 list a block.

    `layer`: a block of the taps ("blocks.3/mean"), or any layer by its name, pooled as `pooling`; the shape of a map
    stands in the column's metadata. Returns (images, {block: features}, set aside). Raises OptionError, OutputError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = _any_images(data)
    backbone = open_at_size(table, options, say=watch.say)
    one = layer is not None and layer not in block_names(backbone)
    if one:
        backbone = replace(backbone, taps=(tap_at(backbone, str(layer), pooling),), ends=())
        layer = None
    engine = compile_trunk(backbone, options.precision)
    announce(table, watch)
    features = see(table, backbone, engine, options, watch.bar("network", len(table)), watch.say)
    kept = table.take(features.kept)
    chosen = {name: block for name, block in features.blocks.items() if layer in (None, name)}
    columns: dict[str, Any] = {
        "path": kept.names.tolist(),
        "label": kept.labels.tolist(),
        "split": kept.splits.tolist(),
        "content_hash": list(features.hashes),
    }
    for name, block in chosen.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
    written = pa.table(columns)
    if one:
        tap = backbone.taps[0]
        shape = tap.shape if pooling == "none" else (tap.widths[0],)
        known = {"layer": tap.name, "module": tap.module, "pooling": pooling, "shape": list(shape)}
        place = written.schema.get_field_index(tap.blocks[0])
        field = written.schema.field(place).with_metadata({"headstart": json.dumps(known)})
        written = written.cast(written.schema.set(place, field))
    partial = out.with_name(f".{out.name}.partial")
    try:
        pq.write_table(written, partial)
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"features cannot be written to {out} ({error.strerror}): choose another -o") from None
    finally:
        partial.unlink(missing_ok=True)
    return (
        len(kept),
        {name: block.shape[1] for name, block in chosen.items()},
        [{"path": n, "reason": r} for n, r in features.set_aside],
    )


def _any_images(data: str) -> Table:
    """A labelled set; or the images of a folder without classes, or one image."""
    place = Path(data)
    if place.is_dir():
        try:
            return read_table(data, min_classes=1)
        except DataError:
            return list_images([data])
    is_set = not place.exists() or place.suffix.lower() in (".csv", ".tsv", ".parquet")
    return read_table(data, min_classes=1) if is_set else list_images([data])
