"""A model whose answers lie in the picture: into a bundle and out of it, and what it says of images.

Images are answered one after the other as they come from the network, each by itself: neither its neighbours nor how
many there are change a digit, and memory does not grow with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.given import kind_of
from headstart.data.preprocess import Preprocess
from headstart.data.shapes import upright_size
from headstart.data.table import Table
from headstart.errors import BundleError, HeadstartError, ImageError
from headstart.files.bundle import HEAD, MODEL, Bundle
from headstart.heads.material import Blocks
from headstart.ship.package import NOTHING, WITHOUT_TOP, Tensors, check_finite, network_described, unusable
from headstart.tasks.known import PLACED
from headstart.tasks.placed import Answer, PlacedHead, PlacedTask, Size
from headstart.tasks.task import Record, Rule
from headstart.trunk.backbone import from_tensors, timm_config, timm_tensors
from headstart.trunk.engine import Engine, compile_trunk
from headstart.trunk.features import note, notes_of, stream
from headstart.trunk.network import Backbone, read_at
from headstart.trunk.weights import BROKEN


@dataclass(frozen=True, eq=False)
class Placed:
    """A saved model of this kind, ready to be compiled; `kind`: what the names of its classes stand for, a key of
    `given.KINDS`."""

    bundle: Bundle | None
    backbone: Backbone
    task: PlacedTask
    head: PlacedHead
    names: tuple[str, ...]
    rule: Rule
    precision: str
    kind: str = "str"

    @property
    def frame(self) -> Size:
        return self.backbone.preprocess.size


@dataclass(frozen=True, eq=False)
class Said:
    """What a model says of one image, row `row` of the table: `answer` None and `error` why where it cannot be read;
    `size`: (height, width) in px of the upright picture."""

    row: int
    size: Size
    answer: Answer | None
    error: str = ""


def pack(
    task: PlacedTask, backbone: Backbone, head: PlacedHead, names: tuple[str, ...], rule: Rule, precision: str
) -> tuple[dict[str, Any], dict[str, Any], Tensors]:
    """(manifest, timm's config, tensors by file) of a model; the timm view is the network without a top."""
    backbone = replace(backbone, classifier="")
    manifest = {
        "task": task.name,
        "classes": list(names),
        "rule": {name: list(values) for name, values in rule.items()},
        "preprocess": backbone.preprocess.to_json(),
        "backbone": network_described(backbone),
        "precision": precision,
        "head": {
            "maps": [{"block": layer.block, "shape": list(layer.shape)} for layer in head.maps],
            **head.described(),
        },
        "calibration": {"method": "none"},
    }
    return (
        manifest,
        timm_config(backbone, 0, ()) | WITHOUT_TOP,
        {MODEL: timm_tensors(backbone, NOTHING, NOTHING), HEAD: head.tensors()},
    )


def unpack(bundle: Bundle) -> Placed:
    """The network and head of a bundle. Raises BundleError."""
    manifest, task = bundle.manifest, PLACED[bundle.manifest["task"]]
    try:
        about, described = manifest["backbone"], manifest["head"]
        if described["kind"] not in task.kinds:
            raise ValueError(f"its head is not one of the task {task.name}")
        preprocess, names = Preprocess.from_json(manifest["preprocess"]), tuple(manifest["classes"])
        tensors = bundle.tensors(MODEL)
        backbone = from_tensors(about["name"], tensors, preprocess, about["weights_source"], about["licence"])
        backbone = read_at(backbone, [one["block"].removesuffix("/map") for one in described["maps"]])
        backbone = replace(backbone, ends=())
        own = bundle.tensors(HEAD)
        check_finite(own)
        head = task.read(described, own, names, preprocess.size)
        _check_maps(head, backbone)
        rule = _rule(task, manifest.get("rule", {}), len(names))
    except BundleError:
        raise
    except (*BROKEN, HeadstartError) as error:
        raise unusable(bundle, error) from None
    precision = str(manifest.get("precision", "auto"))
    kind = kind_of(names, str(manifest.get("class_type", "str")))
    return Placed(bundle.without_tensors(), backbone, task, head, names, rule, precision, kind)


def _check_maps(head: PlacedHead, backbone: Backbone) -> None:
    """Raises ValueError where the network gives other maps than the head reads."""
    given = {f"{tap.name}/map": tap.shape for tap in backbone.taps}
    for layer in head.maps:
        if tuple(layer.shape) != given.get(layer.block):
            raise ValueError(f"its head reads {layer.block} of {tuple(layer.shape)}, given: {given.get(layer.block)}")


def _rule(task: PlacedTask, given: Mapping[str, Any], n: int) -> Rule:
    """A number for each of n classes, of each that the task answers by. Raises ValueError for others."""
    rule = {name: tuple(map(float, values)) for name, values in given.items()}
    for name in task.ruled:
        found = rule.get(name, ())
        if len(found) != n or not all(math.isfinite(v) and v >= 0 for v in found):
            raise ValueError(f"its rule needs {name}, {n} numbers from 0, and has {list(found)}")
    return rule


def predict(
    model: Placed,
    table: Table,
    done: Callable[[Said], None],
    engine: Engine | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> tuple[str, ...]:
    """`done(said)` for each image of the table, in its order; how odd pictures were read, one line a kind."""
    hand_on = in_order(done, progress)

    def each(row: int, blocks: Blocks) -> None:
        hand_on(said_of(model, row, table.read(row), blocks))

    def failed(row: int, error: ImageError) -> None:
        hand_on(Said(row, (0, 0), None, str(error)))

    return streamed(model, table, each, failed, engine)


def in_order(done: Callable[[Said], None], progress: Callable[[int], None]) -> Callable[[Said], None]:
    """What takes answers in any order, and hands them on in that of their rows."""
    waiting: dict[int, Said] = {}
    turn = 0

    def hand_on(said: Said) -> None:
        nonlocal turn
        waiting[said.row] = said
        progress(1)
        while turn in waiting:
            done(waiting.pop(turn))
            turn += 1

    return hand_on


def streamed(
    model: Placed,
    table: Table,
    each: Callable[[int, Blocks], None],
    failed: Callable[[int, ImageError], None],
    engine: Engine | None = None,
) -> tuple[str, ...]:
    """`each(row, block -> (1, feature))` of what can be read, in any order; how odd pictures were read."""
    seen: dict[str, tuple[int, str]] = {}

    def deliver(rows: list[int], blocks: Mapping[str, Any]) -> None:
        for k, row in enumerate(rows):
            each(row, {name: values[k : k + 1] for name, values in blocks.items()})

    def remarked(row: int, remark: str) -> None:
        note(seen, str(table.names[row]), remark)

    engine = engine or compile_trunk(model.backbone, model.precision)
    stream(table, model.backbone, engine, deliver, failed, False, remarked)
    return notes_of(seen)


def said_of(model: Placed, row: int, source: bytes | NDArray[Any], blocks: Blocks) -> Said:
    """What the model says of one image, of what the network says of it: block -> (1, feature). Raises BundleError where
    that is no number, ImageError where the size cannot be read."""
    size = upright_size(source)
    return Said(row, size, model.task.answer(output_of(model, blocks), size, model.frame, model.rule))


def output_of(model: Placed, blocks: Blocks) -> NDArray[np.float32]:
    """What the head says of one image. Raises BundleError where that is no number."""
    output: NDArray[np.float32] = model.head.outputs(blocks)[0]
    if np.isnan(output).any():
        raise BundleError(
            "the model answers with what is no number, since its weights are too large or damaged: copy it again from "
            "where it was made, or run `headstart fit` again"
        )
    return output


def record(model: Placed, name: str, said: Said) -> Record:
    """{"path", what the task says, "error"}; on an error all that the task says is null."""
    if said.answer is None:
        empty = model.task.record(model.names, model.task.none(), (0, 0), model.rule)
        return {"path": name, **dict.fromkeys(empty), "error": said.error}
    return {"path": name, **model.task.record(model.names, said.answer, said.size, model.rule), "error": None}
