"""Several labels an image and measured values: the closed-form heads on real pictures, with the default network.

    python benchmarks/new_heads.py [--splits 50]

Measured values: the number of red cells and of platelets in each of 364 blood smears (bccd), and how far a tile of
eurosat_3000 was enlarged before it was seen (made: a square of it, 30 to 100 % of its side, brought back to 64 px).
Several labels: the kinds of cells in each smear; pictures of four tiles of eurosat_3000 and of CIFAR-10, whose labels
are the classes that are in them (made: no tile is in two pictures, and none both teaches and tests).

Smears are seen whole, squashed to the network's own size, and as `fit` sees photographs, enlarged and without their
borders. Prediction intervals and thresholds are judged on random draws: one part teaches, the others are covered, or
named.
"""

from __future__ import annotations

import io
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

from headstart.data.table import Table, read_table, table_of
from headstart.heads.calibrate import sigmoid
from headstart.heads.measured import fit_values, half_widths
from headstart.heads.per_label import best_thresholds, fit_per_label
from headstart.heads.taps import tap_sets, value_sets
from headstart.story import opening
from headstart.story.opening import Options, open_at_size
from headstart.trunk.engine import compile_trunk

Array = NDArray[Any]
CELLS = ("RBC", "Platelets", "WBC")
LEAST_SHOWN, TILE = 0.3, 64  # share of a tile's side that is seen at least; px of a tile of EuroSAT


@dataclass(frozen=True)
class Pictures:
    """blocks: block -> (image, feature); truth (image, output); names of the outputs; train, test: rows."""

    blocks: Mapping[str, Array]
    truth: Array
    names: tuple[str, ...]
    train: Array
    test: Array

    def at(self, rows: Array) -> dict[str, Array]:
        return {name: block[rows] for name, block in self.blocks.items()}


def features_of(pictures: Sequence[Any], cache: str, whole: bool = False) -> Mapping[str, Array]:
    options, table = Options(cache=cache), table_of(pictures, None)
    backbone = open_at_size(table, options)
    if whole:
        side = backbone.native_size
        seen = replace(backbone.preprocess, size=(side, side), crop_fraction=1.0, resize="squash")
        backbone = backbone.resized(seen)
    features = opening.features_of(
        table, backbone, compile_trunk(backbone, options.precision), options, lambda done: None
    )
    assert len(features) == len(pictures)
    return features.blocks


def smears(data: Path, cache: str, whole: bool) -> tuple[Pictures, Pictures]:
    """(numbers of cells, kinds of cells present) of every smear."""
    paths = sorted((data / "bccd" / "JPEGImages").glob("*.jpg"))
    found = [cells_in(data / "bccd" / "Annotations" / f"{path.stem}.xml") for path in paths]
    counts = np.array([[names.count(kind) for kind in CELLS] for names in found])
    blocks, rows = features_of(paths, cache, whole), np.arange(len(paths))
    return (
        Pictures(blocks, counts[:, :2].astype(np.float64), CELLS[:2], rows, rows),
        Pictures(blocks, (counts > 0).astype(np.int8), CELLS, rows, rows),
    )


def cells_in(annotation: Path) -> list[str]:
    return [node.text or "" for node in ET.parse(annotation).getroot().findall("object/name")]


def enlarged(data: Path, cache: str) -> Pictures:
    """Tiles of which a square was brought to the whole; the value is the logarithm (base 2) of the enlargement."""
    rng = np.random.default_rng(0)
    tiles, _ = opened(read_table(data / "eurosat_3000"), rng.permutation(3000))
    shown = rng.uniform(LEAST_SHOWN, 1, len(tiles))
    pictures = []
    for tile, share in zip(tiles, shown, strict=True):
        side = share * TILE
        left, top = rng.uniform(0, TILE - side, 2)
        box = (left, top, left + side, top + side)
        pictures.append(tile.resize((TILE, TILE), Image.Resampling.BICUBIC, box))
    values = np.log2(1 / shown)[:, None]
    half = len(tiles) // 2
    return Pictures(features_of(pictures, cache), values, ("enlargement",), np.arange(half), np.arange(half, 2 * half))


def canvases(table: Table, train: Array, test: Array, cache: str) -> Pictures:
    """Pictures of four tiles each, two by two."""
    pictures, truth = [], []
    for rows in (train, test):
        tiles, labels = opened(table, rows)
        for k in range(0, len(tiles), 4):
            side = tiles[k].size[0]
            canvas = Image.new("RGB", (2 * side, 2 * side))
            for place, tile in enumerate(tiles[k : k + 4]):
                canvas.paste(tile, (place % 2 * side, place // 2 * side))
            pictures.append(canvas)
            truth.append([name in labels[k : k + 4] for name in table.classes])
    cut = len(train) // 4
    blocks = features_of(pictures, cache)
    return Pictures(blocks, np.array(truth, np.int8), table.classes, np.arange(cut), np.arange(cut, len(pictures)))


def opened(table: Table, rows: Array) -> tuple[list[Image.Image], list[str]]:
    """(pictures, their classes) of these rows."""
    pictures = []
    for row in rows:
        raw = table.read(int(row))
        pictures.append(Image.open(io.BytesIO(raw)).convert("RGB") if isinstance(raw, bytes) else Image.fromarray(raw))
    return pictures, [str(name) for name in table.labels[rows]]


def label_sets(data: Path, cache: str) -> dict[str, Pictures]:
    rng = np.random.default_rng(0)
    order, table = rng.permutation(3000), read_table(data / "cifar10")
    train, test = (rng.permutation(np.flatnonzero(table.splits == part))[:4000] for part in ("train", "test"))
    return {
        "bccd, kinds of cells": smears(data, cache, True)[1],
        "eurosat_3000, four tiles": canvases(read_table(data / "eurosat_3000"), order[:2000], order[2000:], cache),
        "CIFAR-10, four tiles": canvases(table, train, test, cache),
    }


# Measured values


def left_out(pictures: Pictures) -> tuple[Array, Array]:
    """(truth, left-out answers) of the images that teach, (image, column)."""
    values, sets = pictures.truth[pictures.train], value_sets("auto", tuple(pictures.blocks))
    return values, fit_values(pictures.at(pictures.train), values, pictures.train, sets).left_out


def tested(pictures: Pictures) -> tuple[Array, Array]:
    """(truth, answers) of the images that test."""
    rows, sets = pictures.train, value_sets("auto", tuple(pictures.blocks))
    probe = fit_values(pictures.at(rows), pictures.truth[rows], rows, sets)
    return pictures.truth[pictures.test], probe.outputs(pictures.at(pictures.test))


def explained(truth: Array, answers: Array) -> dict[str, float]:
    """R2 with its 95 % interval, by bootstrap over the images."""

    def r2(rows: Array) -> float:
        known = truth[rows]
        return float(1 - ((known - answers[rows]) ** 2).sum() / ((known - known.mean()) ** 2).sum())

    rng, n = np.random.default_rng(0), len(truth)
    low, high = np.percentile([r2(rng.integers(0, n, n)) for _ in range(2000)], [2.5, 97.5])
    return {"value": r2(np.arange(n)), "low": float(low), "high": float(high)}


def value_rows(name: str, pictures: Pictures, judge: Callable[[Pictures], tuple[Array, Array]]) -> list[dict[str, Any]]:
    truth, answers = judge(pictures)
    found = []
    for k, column in enumerate(pictures.names):
        known = truth[:, k]
        errors = [float(np.abs(known - guess).mean()) for guess in (answers[:, k], known.mean())]
        r2 = explained(known, answers[:, k])
        found.append({"what": f"{name}: {column}", "n": len(truth), "r2": r2, "mae": errors[0], "constant": errors[1]})
    return found


def covered(pictures: Pictures, splits: int, most: int = 600) -> list[float]:
    """The share of the other half's values inside 90 % intervals of one half, for each draw; first column."""
    found, sets = [], value_sets("auto", tuple(pictures.blocks))
    for draw in range(splits):
        order = np.random.default_rng(draw).permutation(len(pictures.truth))[:most]
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        truth = pictures.truth[:, :1]
        probe = fit_values(pictures.at(one), truth[one], one, sets)
        width = half_widths(truth[one] - probe.left_out)
        found.append(float((np.abs(truth[other] - probe.outputs(pictures.at(other))) <= width).mean()))
    return found


# Several labels


def f1(said: Array, present: Array) -> Array:
    """(label,)."""
    both = (said & (present == 1)).sum(axis=0)
    return 2 * both / np.maximum(said.sum(axis=0) + (present == 1).sum(axis=0), 1)


def label_row(name: str, pictures: Pictures) -> dict[str, Any]:
    """Of the test images; of five folds where all images teach. Thresholds come from the images that teach."""
    n, once = len(pictures.truth), not np.array_equal(pictures.train, pictures.test)
    fold = np.random.default_rng(0).permutation(n) % 5
    parts = (
        [(pictures.train, pictures.test)]
        if once
        else [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(5)]
    )
    odds, said, sets = (
        np.zeros(pictures.truth.shape),
        np.zeros(pictures.truth.shape, bool),
        tap_sets("auto", tuple(pictures.blocks)),
    )
    for train, test in parts:
        probe = fit_per_label(pictures.at(train), pictures.truth[train], train, sets)
        odds[test] = probe.outputs(pictures.at(test))
        said[test] = sigmoid(odds[test]) >= best_thresholds(probe.left_out, pictures.truth[train])
    rows = pictures.test
    present, share = pictures.truth[rows], pictures.truth[rows].mean(axis=0)
    precision = [average_precision_score(present[:, k], odds[rows, k]) for k in range(len(share))]
    return {
        "what": name,
        "n": len(rows),
        "map": float(np.mean(precision)),
        "constant map": float(share.mean()),
        "f1": float(f1(said[rows], present).mean()),
        "constant f1": float((2 * share / (1 + share)).mean()),  # every label said of every image
        "f1 at a half": float(f1(odds[rows] > 0, present).mean()),
    }


def compared(pictures: Pictures, sizes: Sequence[int], draws: int) -> list[list[float]]:
    """[images that teach, F1 of the others at .5, at the threshold best on left-out answers, at ours] for each size."""
    sets, found = tap_sets("auto", tuple(pictures.blocks)), []
    for size in sizes:
        scores = []
        for draw in range(draws):
            order = np.random.default_rng(draw).permutation(len(pictures.truth))
            one, other = order[:size], order[size:]
            truth, new = pictures.truth[one], pictures.truth[other]
            probe = fit_per_label(pictures.at(one), truth, one, sets)
            p = sigmoid(probe.outputs(pictures.at(other)))
            ours = best_thresholds(probe.left_out, truth)
            each = (0.5, best_on_left_out(sigmoid(probe.left_out), truth), ours)
            scores.append([float(f1(p >= t, new).mean()) for t in each])
        found.append([float(size), *np.mean(scores, axis=0)])
    return found


def best_on_left_out(p: Array, present: Array) -> Array:
    """The threshold (label,) at which F1 is highest for these very answers."""
    tried = np.linspace(0.01, 0.99, 99)
    return tried[np.argmax([f1(p >= t, present) for t in tried], axis=0)]


# The record


def values_table(rows: Sequence[Mapping[str, Any]]) -> measure.Table:
    lines = []
    for r in rows:
        ends = f"{r['r2']['value']:.3f} ({r['r2']['low']:.3f} to {r['r2']['high']:.3f})"
        lines.append([r["what"], str(r["n"]), ends, f"{r['mae']:.3f}", f"{r['constant']:.3f}"])
    return measure.Table("Measured values", ("what", "images", "R2", "MAE", "MAE of the mean"), lines)


def labels_table(rows: Sequence[Mapping[str, Any]]) -> measure.Table:
    names = ("map", "constant map", "f1", "constant f1", "f1 at a half")
    lines = [[r["what"], str(r["n"]), *(f"{r[name]:.3f}" for name in names)] for r in rows]
    header = ("what", "images", "mAP", "mAP by chance", "macro F1", "F1 of every label always", "F1 at .5")
    return measure.Table("Several labels an image", header, lines)


def thresholds_table(found: Mapping[str, Sequence[Sequence[float]]]) -> measure.Table:
    lines = [[name, f"{r[0]:.0f}", *(f"{v:.3f}" for v in r[1:])] for name, rows in found.items() for r in rows]
    header = ("what", "images that teach", "F1 at .5", "at the best of the left-out answers", "at ours")
    return measure.Table("Thresholds on images that did not choose them", header, lines)


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--draws", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        whole, cropped = (smears(options.data, cache, seen)[0] for seen in (True, False))
        tiles, sets = enlarged(options.data, cache), label_sets(options.data, cache)
    cells, usual = value_rows("bccd, whole", whole, left_out), value_rows("bccd, as photographs", cropped, left_out)
    values = [*cells, *usual, *value_rows("eurosat_3000", tiles, tested)]
    held = {"bccd, red cells": covered(whole, options.splits), "eurosat_3000": covered(tiles, options.splits)}
    shares = [[name, str(len(h)), f"{np.mean(h):.1%}", f"{np.std(h):.1%}"] for name, h in held.items()]
    labels = [label_row(name, pictures) for name, pictures in sets.items()]
    chosen = {name: compared(pictures, (40, 80, 200), options.draws) for name, pictures in sets.items()}
    tables = [
        values_table(values),
        measure.Table("90 % intervals of one half, on the other", ("what", "halves", "inside", "SD"), shares),
        labels_table(labels),
        thresholds_table(chosen),
    ]
    targets = [
        measure.Target("R2 of red cells, left out", cells[0]["r2"]["value"], floor=0.33),
        measure.Target("MAE of red cells in that of the mean", cells[0]["mae"] / cells[0]["constant"], ceiling=0.999),
        *(measure.Target(f"{name}: % inside, at least", float(100 * np.mean(h)), floor=88) for name, h in held.items()),
        *(
            measure.Target(f"{name}: % inside, at most", float(100 * np.mean(h)), ceiling=92)
            for name, h in held.items()
        ),
        *(measure.Target(f"{r['what']}: mAP over chance", r["map"] - r["constant map"], floor=0.001) for r in labels),
        *(measure.Target(f"{r['what']}: F1 over a constant", r["f1"] - r["constant f1"], floor=0.0) for r in labels),
        *(
            measure.Target(f"{name}, {r[0]:.0f} images: F1 over that at .5", r[3] - r[1], floor=0.0)
            for name, rows in chosen.items()
            for r in rows
        ),
    ]
    raw = {"values": values, "covered": held, "labels": labels, "thresholds": chosen}
    measure.publish(options, __doc__ or "", tables, targets, raw)


if __name__ == "__main__":
    main()
