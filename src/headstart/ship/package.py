"""A fitted model <-> the tensors and JSON of a bundle.

`model.safetensors` and `config.json` are a timm network with a plain linear top, which
`timm.create_model("local-dir:MODEL", pretrained=True)` loads without headstart. A head on several taps, or on prepared
features, cannot be such a top: it is kept in `head.safetensors`, and the timm view carries the best last-layer head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.given import kind_of
from headstart.data.images import Preprocess
from headstart.data.truth import PLACED
from headstart.errors import BundleError, HeadstartError
from headstart.files.bundle import HEAD, MODEL, NOVELTY, REFERENCE, Bundle
from headstart.files.cells import printable
from headstart.files.forms import LINEAR, MOST_SIDE, RECOGNISER, TRAINED
from headstart.finetune.design import Design
from headstart.finetune.spec import parse
from headstart.finetune.trained_head import TrainedHead
from headstart.heads import reference
from headstart.heads.novelty import Novelty, part_of
from headstart.heads.probe import Link, Probe
from headstart.heads.reference import Reference
from headstart.heads.taps import Part, plain
from headstart.recipe import Training
from headstart.tasks.aims import as_saved
from headstart.tasks.known import TASKS
from headstart.tasks.task import Head, Rule, Task
from headstart.trunk.backbone import from_tensors, timm_config, timm_tensors
from headstart.trunk.catalog import side_by_side
from headstart.trunk.layers import LAST, POOLINGS
from headstart.trunk.network import Backbone, block_names, block_widths, tap_at, whole_maps
from headstart.trunk.weights import BROKEN

Tensors = dict[str, dict[str, npt.NDArray[Any]]]


Widths = Mapping[str, int]  # features of each block that the network gives
NOTHING = np.empty(0, np.float32)
WITHOUT_TOP = {"model_type": "timm_wrapper", "architectures": ["TimmWrapperModel"]}  # as transformers calls it
PROBLEMS = {  # what transformers makes of a top's outputs: softmax, a sigmoid each, nothing
    "classify": "single_label_classification",
    "tag": "multi_label_classification",
    "regress": "regression",
}


def pack(
    task: Task,
    backbone: Backbone,
    head: Head,
    view: Head | None,
    names: tuple[str, ...],
    rule: Rule,
    precision: str,
    kept: Reference | None = None,
) -> tuple[dict[str, Any], dict[str, Any], Tensors]:
    """(manifest, timm's config, tensors by file) of a model. `kept`: images that taught, for later ones to be compared
    with.

    `view`: the head on the plain pre-logits for the timm view; None for a head of the task's own, where that view is
    the network without a top, and the names are the head's.
    """
    if task.own is not None:
        backbone, names, rule = replace(backbone, classifier=""), task.own.names(head), {}
    same, tensors = _heads(task, backbone, head, view)
    if kept is not None:
        tensors[REFERENCE] = kept.tensors()
    manifest = {
        "task": task.name,
        "classes": list(names),
        "rule": {name: list(values) for name, values in rule.items()},
        "preprocess": backbone.preprocess.to_json(),
        "backbone": network_described(backbone),
        "precision": precision,
        "layer": _layer(backbone, head),
        "head": _described(task, head) | {"in_timm_view": same},
        "calibration": {"method": "none" if isinstance(head, TrainedHead) else task.calibration},
    }
    tops = names if task.own is None else ()
    config = timm_config(backbone, len(tops), tops)
    return manifest, config if side_by_side(backbone.name) else config | _for_transformers(task), tensors


def network_described(backbone: Backbone) -> dict[str, Any]:
    """What the manifest says of a network."""
    return {
        "name": backbone.name,
        "weights_source": backbone.weights_source,
        "weights_hash": backbone.weights_hash,
        "licence": backbone.licence,
        "parameters": backbone.n_parameters,
        "classifier": backbone.classifier,
        "chain": list(backbone.chain),
    }


def _for_transformers(task: Task) -> dict[str, Any]:
    """What Hugging Face's transformers reads of config.json beside timm's words; timm passes it over."""
    if task.own is not None:
        return dict(WITHOUT_TOP)
    kind = {"problem_type": PROBLEMS[task.name]} if task.name in PROBLEMS else {}
    return {"model_type": "timm_wrapper", "architectures": ["TimmWrapperForImageClassification"], **kind}


def _heads(task: Task, backbone: Backbone, head: Head, view: Head | None) -> tuple[bool, Tensors]:
    """(whether the head is that of the timm view, tensors by file)."""
    if task.own is not None:
        return False, {MODEL: timm_tensors(backbone, NOTHING, NOTHING), task.own.file: task.own.tensors(head)}
    assert isinstance(view, Probe)
    tensors: Tensors = {MODEL: timm_tensors(backbone, view.coef.astype(np.float32), view.intercept.astype(np.float32))}
    same = head.parts == plain().parts
    if isinstance(head, TrainedHead):
        tensors[HEAD] = {name: t.numpy() for name, t in head.module.state_dict().items()}
    elif not same:
        assert isinstance(head, Probe)
        tensors[HEAD] = {"coef": head.coef.astype(np.float32), "intercept": head.intercept.astype(np.float32)}
    return same, tensors


def _described(task: Task, head: Head) -> dict[str, Any]:
    """What the manifest says of a head beside its tensors."""
    parts = [{"block": p.block, "root": p.root, "unit": p.unit} for p in head.parts]
    if task.own is not None:
        return {"kind": task.own.kind, "parts": parts} | task.own.described(head)
    if isinstance(head, TrainedHead):
        design = head.design
        kind = {"kind": TRAINED, "spec": design.words, "shape": list(design.shape), "scale": head.scale}
        return kind | {"parts": parts, "training": asdict(design.training)}
    return {"kind": LINEAR} | {"parts": parts}


def _layer(backbone: Backbone, head: Head) -> dict[str, str] | None:
    """The one layer that the head reads, where it is not one of the network's own taps as they are."""
    tap = next(
        (t for t in backbone.taps if t.blocks == tuple(p.block for p in head.parts) and len(t.blocks) == 1), None
    )
    if tap is None:
        return None
    pooling = next((asked for asked, gives in POOLINGS.items() if gives == tap.pools[0]), None)
    own = tap.through or pooling is None  # a block of the network's own taps, which its name says whole
    return {"name": tap.blocks[0] if own else tap.name, "module": tap.module, "pooling": pooling or "avg"}


def _read_layer(backbone: Backbone, described: dict[str, Any], layer: dict[str, str] | None) -> Backbone:
    """The backbone that computes what the head reads, and nothing else."""
    parts = tuple(Part(part["block"], part["root"], part["unit"]) for part in described["parts"])
    wanted = {part.block for part in parts}
    maps = [tap.name for tap in backbone.taps if f"{tap.name}/map" in wanted]
    if maps and not layer:
        backbone = whole_maps(backbone, maps)
    elif layer:
        backbone = replace(backbone, taps=(tap_at(backbone, layer["name"], layer["pooling"]),))
    elif parts == plain().parts:
        backbone = replace(backbone, taps=())  # as the fit did
    return backbone if LAST in wanted else replace(backbone, ends=())


def _head(
    task: Task,
    described: dict[str, Any],
    tensors: dict[str, npt.NDArray[Any]],
    widths: Widths,
    names: tuple[str, ...],
) -> Head:
    """The head, after its tensors were compared with the features that it reads and with the classes."""
    parts = tuple(Part(part["block"], part["root"], part["unit"]) for part in described["parts"])
    for part in parts:
        if part.block not in widths:
            raise ValueError(f"its head reads {part.block}, which the network does not give")
    check_finite(tensors)
    width = sum(widths[part.block] for part in parts)
    if task.own is not None:
        return task.own.read(described, tensors, names, parts, width)
    return _of_layers(described, tensors, widths, len(names), task.link)


def check_finite(tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raises ValueError for a head that holds what is no number."""
    for name, t in tensors.items():
        if t.dtype.kind == "f" and not np.isfinite(t).all():
            raise ValueError(f"{name} of its head holds what is no finite number")


def _of_layers(
    described: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], widths: Widths, n_outputs: int, link: Link
) -> Head:
    """A linear head, or one of the user's own layers."""
    parts = tuple(Part(part["block"], part["root"], part["unit"]) for part in described["parts"])
    if described["kind"] == LINEAR:
        coef, intercept = (tensors[name].astype(np.float64) for name in ("coef", "intercept"))
        wanted = (n_outputs, sum(widths[part.block] for part in parts))
        if coef.shape != wanted or intercept.shape != wanted[:1]:
            raise ValueError(f"its head has the shapes {coef.shape} and {intercept.shape}, needed: {wanted}")
        return Probe(parts, coef, intercept, (), np.empty((0, n_outputs)), link)
    from headstart.finetune.own_layers import rebuilt  # torch

    words, shape = described["spec"], tuple(described["shape"])
    if math.prod(shape) != widths[parts[0].block]:
        raise ValueError(f"its head reads maps of {shape}, and {parts[0].block} has {widths[parts[0].block]} values")
    known = {field.name for field in fields(Training)}
    training = Training(**{name: value for name, value in described["training"].items() if name in known})
    design = Design(words=words, layers=parse(words), block=parts[0].block, shape=shape, training=training)
    return rebuilt(design, tensors, float(described["scale"]), n_outputs, link)


@dataclass(frozen=True)
class Loaded:
    """A saved model, ready to be compiled."""

    bundle: Bundle | None  # None for a model that was never saved
    backbone: Backbone
    task: Task
    head: Head
    names: tuple[str, ...]  # of the outputs: classes, labels, columns
    rule: Rule
    precision: str
    kind: str = "str"  # what the names' texts stand for: a key of `given.KINDS`
    reference: Reference | None = None  # some images that taught it
    novelty: Novelty | None = None  # what knows images that are unlike those that taught; not in models of before


def unpack(bundle: Bundle, task: Task | None = None) -> Loaded:
    """The network and head of a bundle; `task`: its task, where it is none of headstart's own. Raises BundleError."""
    manifest = bundle.manifest
    task = task or _task(bundle)
    try:
        tensors = bundle.tensors(MODEL)
        name, classifier = manifest["backbone"]["name"], manifest["backbone"]["classifier"]
        top = {k: tensors.pop(f"{classifier}.{k}") for k in ("weight", "bias")} if classifier else {}
        own = _head_tensors(bundle, task, top)
        preprocess = Preprocess.from_json(manifest["preprocess"])
        classes = tuple(manifest["classes"])
        backbone = from_tensors(
            name, tensors, preprocess, manifest["backbone"]["weights_source"], manifest["backbone"]["licence"]
        )
        _check_size(backbone)
        backbone = _read_layer(backbone, manifest["head"], manifest.get("layer"))
        widths = dict(zip(block_names(backbone), block_widths(backbone), strict=True))
        head = _head(task, manifest["head"], own, widths, classes)
        kept = {name: tuple(map(float, values)) for name, values in manifest.get("rule", {}).items()}
        rule = kept if task.own is None else task.own.rule(head)
        task = as_saved(task, rule, len(classes))
        known = _reference(bundle, head, widths)
        novelty = _novelty(bundle, head, widths, len(classes))
    except BundleError:
        raise
    except (*BROKEN, HeadstartError) as error:
        raise unusable(bundle, error) from None
    kind = kind_of(classes, str(manifest.get("class_type", "str")))
    precision = str(manifest.get("precision", "auto"))
    return Loaded(bundle.without_tensors(), backbone, task, head, classes, rule, precision, kind, known, novelty)


def _reference(bundle: Bundle, head: Head, widths: Widths) -> Reference | None:
    """The images kept with a model; None in those of before. Raises ValueError, KeyError."""
    if not bundle.has_reference:
        return None
    block = reference.block_of(head.parts)
    return reference.read(bundle.tensors(REFERENCE), block, widths[block])


def _novelty(bundle: Bundle, head: Head, widths: Widths, n_classes: int) -> Novelty | None:
    """Raises ValueError, KeyError or TypeError."""
    told = bundle.manifest.get("novelty")
    if told is None:
        return None
    return Novelty.read(told, bundle.tensors(NOVELTY), widths[part_of(head.parts).block], n_classes)


def _head_tensors(bundle: Bundle, task: Task, top: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Of the head: in a file of its own, or the top of the network. Raises ValueError for the head of another task."""
    kind = bundle.manifest["head"]["kind"]
    if kind == RECOGNISER if task.own is None else kind != task.own.kind:
        raise ValueError(f"its head is not one of the task {task.name}")
    if task.own is not None:
        return bundle.tensors(task.own.file)
    return bundle.tensors(HEAD) if bundle.has_head else {"coef": top["weight"], "intercept": top["bias"]}


def _check_size(backbone: Backbone) -> None:
    """Raises ValueError for an input that no fit gives a network: it could take all memory, or not run at all."""
    size, own = backbone.preprocess.size, backbone.native_size
    if max(size) > max(MOST_SIDE, own):
        raise ValueError(f"its input of {size[0]} x {size[1]} px is larger than {max(MOST_SIDE, own)} px")
    if min(size) < own and backbone.resized(backbone.preprocess).preprocess.size != size:
        raise ValueError(f"{backbone.name} does not take an input of {size[0]} x {size[1]} px")


def unusable(bundle: Bundle, error: Exception) -> BundleError:
    """What is said of a bundle of which no model can be made."""
    reason = f"{error} is missing" if isinstance(error, KeyError) else printable(" ".join(str(error).split())[:300])
    return BundleError(
        f"{bundle.folder} cannot be used as a model: {reason or type(error).__name__}; run `headstart fit` again"
    )


def _task(bundle: Bundle) -> Task:
    """The task that a saved model names; models of before there were several are classifiers. Raises BundleError."""
    name = str(bundle.manifest.get("task", "classify"))
    if name in PLACED:
        raise BundleError(
            f"{bundle.folder} is a model of the task {name}, whose answers lie in the picture, which this command does "
            "not take: headstart predict, evaluate and serve do"
        )
    if name not in TASKS:
        raise BundleError(
            f"{bundle.folder} is a model of the task {name!r}, which this release does not know: it knows "
            f"{', '.join(TASKS)}; take a newer release of headstart"
        )
    return TASKS[name]


def versions() -> Mapping[str, str]:
    """The releases that a result depends on."""
    packages = ("headstart", "torch", "timm", "openvino", "numpy", "scikit-learn", "pillow", "simplejpeg", "pyarrow")
    return {package: version for package in packages if (version := _version(package))}


@cache
def _version(package: str) -> str | None:
    """The release that is installed, if any. A package's metadata can be 40 KB of text to parse; a fit asks twice."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
