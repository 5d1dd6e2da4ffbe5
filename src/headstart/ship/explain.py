"""Where a network looked: how much each place of an image adds to the answer that a saved model gives for it.

A linear head's score is a sum over features, and a feature is the mean, or the standard deviation, of a map over its
places: so the score is a sum over places too (class activation maps; Zhou et al. 2016), of every stage that the head
reads, and not an estimate. A place p of a map m with n places adds, for the weight w of a prepared feature f,

mean    w f m_p / sum(m)   (f is a mean of unit length, or its square root: shared out in proportion)
std     w f (m_p - mean)^2 / sum((m - mean)^2)

The weights are those of the answer less the mean over all answers: what speaks for it, and not for every class alike.
What has no places (a token of the whole image, a layer after the pooling) is told as the share that is not shown.
Where a model sees the mirror image too, the picture itself is explained, for the answer that both gave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headstart.data.table import Table
from headstart.errors import ImageError, OptionError
from headstart.heads.probe import Probe
from headstart.heads.taps import LAST
from headstart.judge.class_marks import decision_of
from headstart.ship.package import Loaded
from headstart.ship.reasons import Reasons, Similar
from headstart.tasks.classification import CLASSIFICATION
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import stream
from headstart.trunk.layers import LAST_MAP, Tap
from headstart.trunk.network import Backbone, block_names, block_widths, tap_at
from headstart.trunk.store import Halves

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

ALIKE = 0.02  # share of their length by which pooled features may differ from the mean of the last map (float16)
# A mean that is so small beside its map has places that cancel; its square root would blow them up.
CANCELS = 1e-3
MEAN, STD, TOKEN = "mean", "std", "token"


@dataclass(frozen=True)
class Explanation:
    """Of one image: `places` (height, width) of the network's view, whose sum is the shown part of the score; `output`:
    the number of the answer; `score`: of it above the mean of all, the intercept left out; `shown`: the share of the
    absolute contributions that has places; `similar`: the training images most like it, where the model names them."""

    row: int
    places: Doubles
    output: int
    score: float
    shown: float
    similar: tuple[Similar, ...] = ()


@dataclass(frozen=True)
class _Read:
    """A part of the head: columns of its weights, and the map that its features are made of (None: there is none)."""

    block: str
    columns: slice
    map: str | None
    pool: str


def explain(
    model: Loaded,
    table: Table,
    deliver: Callable[[Explanation], None],
    failed: Callable[[int, ImageError], None],
    reasons: Reasons | None = None,
    asked: Mapping[int, int] | None = None,
) -> None:
    """An explanation for every image that can be read, in any order. asked: row -> the output to be explained, where it
    is not the model's own answer. Raises OptionError for a model without a linear head."""
    head = linear_head(model)
    if model.backbone.preprocess.views > 1:
        asked = _answers(model, table) if asked is None else asked
        one = replace(model.backbone.preprocess, views=1)
        model = replace(model, backbone=replace(model.backbone, preprocess=one))
    backbone, taps = _with_maps(model.backbone, head)
    reads = _reads(head, taps, model.backbone)

    def finished(rows: list[int], blocks: dict[str, Halves]) -> None:
        for k, row in enumerate(rows):
            values = {name: found[k].astype(np.float32) for name, found in blocks.items()}
            maps = _maps(taps, values)
            features = {read.block: _feature(read, maps, values) for read in reads}
            output = asked[row] if asked is not None else _answer(model, features)
            found = _explained(row, maps, model, reads, taps, backbone.preprocess.size, features, output)
            deliver(found if reasons is None else replace(found, similar=reasons.of(features[reasons.part.block])))

    stream(table, backbone, compile_trunk(backbone, model.precision), finished, failed, exact=True)


def linear_head(model: Loaded) -> Probe:
    """The model's head. Raises OptionError for another kind."""
    if isinstance(model.head, Probe):
        return model.head
    raise OptionError(
        "--explain is for models with a linear head, and this one has layers of its own or recognises: leave it out"
    )


def _with_maps(backbone: Backbone, head: Probe) -> tuple[Backbone, dict[str, Tap]]:
    """The network that gives maps where it gave pooled features; the taps that do, by the names of the layers."""
    wanted = {part.block.rpartition("/")[0] for part in head.parts}
    read, taps = [], {}
    for tap in (tap for tap in backbone.taps if tap.name in wanted):
        if set(tap.pools) <= {MEAN, STD, TOKEN}:
            pools = (*(pool for pool in tap.pools if pool == TOKEN), "map")
            taps[tap.name] = replace(tap, pools=pools, shape=tap_at(backbone, tap.name, "none").shape)
        read.append(taps.get(tap.name, tap))
    last = any(part.block == LAST for part in head.parts)
    with suppress(OptionError):  # two networks side by side have no last map
        if last and (tap := tap_at(backbone, LAST_MAP, "none")).channels == backbone.last_channels:
            taps[LAST_MAP] = tap
            read.append(tap)
    return replace(backbone, taps=tuple(read), ends=(LAST,) if last else ()), taps


def _reads(head: Probe, taps: dict[str, Tap], backbone: Backbone) -> list[_Read]:
    widths = dict(zip(block_names(backbone), block_widths(backbone), strict=True))
    found, start = [], 0
    for part in head.parts:
        layer, _, pool = part.block.rpartition("/")
        layer, pool = (LAST_MAP, MEAN) if part.block == LAST else (layer, pool)
        end = start + widths[part.block]
        placed = layer in taps and pool != TOKEN  # the class token has no place
        found.append(_Read(part.block, slice(start, end), layer if placed else None, pool))
        start = end
    return found


def _maps(taps: dict[str, Tap], values: dict[str, Floats]) -> dict[str, Doubles]:
    """layer -> (channel, place)."""
    return {name: values[f"{name}/map"].reshape(tap.shape[0], -1).astype(np.float64) for name, tap in taps.items()}


def _answers(model: Loaded, table: Table) -> dict[int, int]:
    """row -> the number of the model's answer, of the images that can be read."""
    found: dict[int, int] = {}

    def finished(rows: list[int], blocks: dict[str, Halves]) -> None:
        for k, row in enumerate(rows):
            found[row] = _answer(model, {name: block[k].astype(np.float32) for name, block in blocks.items()})

    engine = compile_trunk(model.backbone, model.precision)
    stream(table, model.backbone, engine, finished, lambda row, error: None, exact=True)
    return found


def _answer(model: Loaded, features: dict[str, Floats]) -> int:
    """The number of the model's answer."""
    outputs = linear_head(model).outputs({block: feature[None] for block, feature in features.items()})
    if model.task.name != CLASSIFICATION.name:
        return int(outputs[0].argmax())
    return int(decision_of(model.task.answers(outputs, model.rule))[0])


def _explained(
    row: int,
    maps: dict[str, Doubles],
    model: Loaded,
    reads: list[_Read],
    taps: dict[str, Tap],
    size: tuple[int, int],
    features: dict[str, Floats],
    output: int,
) -> Explanation:
    head = linear_head(model)
    prepared = [part.of(features[read.block][None])[0] for read, part in zip(reads, head.parts, strict=True)]
    weights = head.coef[output] - (head.coef.mean(axis=0) if head.link == "softmax" else 0)
    places, score, total, shown = np.zeros(size), 0.0, 0.0, 0.0
    for read, one in zip(reads, prepared, strict=True):
        added = weights[read.columns] * one  # (feature,)
        total, score = total + float(np.abs(added).sum()), score + float(added.sum())
        if read.map is None or (read.block == LAST and not _is_mean(features[LAST], maps[LAST_MAP])):
            continue
        grid = _grid(_spread(added, maps[read.map], read.pool), taps[read.map].shape)
        if grid is not None:
            places += _enlarged(grid, size)
            shown += float(np.abs(added).sum())
    return Explanation(row, places, output, score, shown / total if total else 0.0)


def _feature(read: _Read, maps: dict[str, Doubles], values: dict[str, Floats]) -> Floats:
    """What the head reads, (feature,), before it is prepared."""
    if read.block == LAST:
        return values[LAST]
    if read.map is None:
        return values[read.block]
    found = maps[read.map].mean(axis=1) if read.pool == MEAN else maps[read.map].std(axis=1)
    return np.asarray(found, np.float32)


def _is_mean(features: Floats, last_map: Doubles) -> bool:
    """Whether the last features are the mean of the last map: some networks have layers between."""
    return bool(np.linalg.norm(last_map.mean(axis=1) - features) <= ALIKE * np.linalg.norm(features))


def _spread(added: Doubles, values: Doubles, pool: str) -> Doubles:
    """(place,): what each place adds; added (channel,), values (channel, place)."""
    if pool == STD:
        away = (values - values.mean(axis=1, keepdims=True)) ** 2
        return np.asarray((added / np.maximum(away.sum(axis=1), np.finfo(float).tiny)) @ away)
    total = values.sum(axis=1)
    least = CANCELS * np.abs(values).sum(axis=1)
    safe = np.where(np.abs(total) > least, total, np.inf)
    return np.asarray((added / safe) @ values)


def _grid(part: Doubles, shape: tuple[int, ...]) -> Doubles | None:
    """(height, width) of (place,): tokens are a square, after those of the whole image. None for one place alone."""
    height, width = shape[1:] if len(shape) > 2 else (1, 1)
    if width == 1:
        side = int(np.sqrt(height))
        part, height, width = part[height - side**2 :], side, side
    return part.reshape(height, width) if height > 1 else None


def _enlarged(grid: Doubles, size: tuple[int, int]) -> Doubles:
    """(height, width) at this size, between the places in straight lines, with the same sum."""
    down, across = (_between(n, length) for n, length in zip(grid.shape, size, strict=True))
    wide = down @ grid @ across.T * (grid.size / (size[0] * size[1]))
    return np.asarray(wide + (grid.sum() - wide.sum()) / wide.size)


def _between(n: int, length: int) -> Doubles:
    """(length, n): the weights of n values at `length` points."""
    at = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, n - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(n)), 0)
