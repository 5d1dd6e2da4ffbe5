"""A fitted model <-> the tensors and JSON of a bundle.

`model.safetensors` and `config.json` are a timm network with a plain linear top, which
`timm.create_model("local-dir:MODEL", pretrained=True)` loads without headstart. A head on several taps, or on prepared
features, cannot be such a top: it is kept in `head.safetensors`, and the timm view carries the best last-layer head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.bundle import HEAD, MODEL, Bundle
from headstart.data.images import Preprocess
from headstart.errors import BundleError, HeadstartError
from headstart.learn.probe import Probe
from headstart.learn.taps import Part, plain
from headstart.trunk.backbone import Backbone, from_tensors, timm_config, timm_tensors

Tensors = dict[str, dict[str, npt.NDArray[Any]]]


def pack(
    backbone: Backbone, probe: Probe, view: Probe, classes: tuple[str, ...], precision: str
) -> tuple[dict[str, Any], dict[str, Any], Tensors]:
    """(manifest, timm's config, tensors by file) of a model.

    `view`: the head on the plain pre-logits for the timm view.
    """
    tensors: Tensors = {MODEL: timm_tensors(backbone, view.coef.astype(np.float32), view.intercept.astype(np.float32))}
    same = probe.parts == plain().parts
    if not same:
        tensors[HEAD] = {"coef": probe.coef.astype(np.float32), "intercept": probe.intercept.astype(np.float32)}
    manifest = {
        "classes": list(classes),
        "preprocess": backbone.preprocess.to_json(),
        "backbone": {
            "name": backbone.name,
            "weights_source": backbone.weights_source,
            "weights_hash": backbone.weights_hash,
            "licence": backbone.licence,
            "parameters": backbone.n_parameters,
            "classifier": backbone.classifier,
        },
        "precision": precision,
        "head": {
            "kind": "linear on prepared features; probabilities = softmax(prepared @ coef' + intercept)",
            "parts": [{"block": p.block, "root": p.root, "unit": p.unit} for p in probe.parts],
            "in_timm_view": same,
        },
        "calibration": {"method": "scale and class offsets on leave-one-out scores, folded into the head"},
    }
    return manifest, timm_config(backbone, len(classes), classes), tensors


@dataclass(frozen=True)
class Loaded:
    """A saved model, ready to be compiled."""

    bundle: Bundle | None  # None for a model that was never saved
    backbone: Backbone
    probe: Probe
    classes: tuple[str, ...]
    precision: str


def unpack(bundle: Bundle) -> Loaded:
    """The network and head of a bundle. Raises BundleError."""
    manifest = bundle.manifest
    try:
        tensors = bundle.tensors(MODEL)
        name, classifier = manifest["backbone"]["name"], manifest["backbone"]["classifier"]
        top = {k: tensors.pop(f"{classifier}.{k}") for k in ("weight", "bias")} if classifier else {}
        head = bundle.tensors(HEAD) if bundle.has_head else {"coef": top["weight"], "intercept": top["bias"]}
        parts = tuple(Part(**part) for part in manifest["head"]["parts"])
        preprocess = Preprocess.from_json(manifest["preprocess"])
        classes = tuple(manifest["classes"])
        backbone = from_tensors(
            name, tensors, preprocess, manifest["backbone"]["weights_source"], manifest["backbone"]["licence"]
        )
        if parts == plain().parts:
            backbone = replace(backbone, taps=())  # as the fit did
        coef, intercept = head["coef"].astype(np.float64), head["intercept"].astype(np.float64)
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, HeadstartError) as error:
        raise BundleError(
            f"{bundle.folder} cannot be used as a model: {_reason(error)}; run `headstart fit` again"
        ) from None
    if coef.shape[0] != len(classes):
        raise BundleError(f"{bundle.folder}: the head has {coef.shape[0]} classes, the model {len(classes)}")
    probe = Probe(parts, coef, intercept, (), np.empty((0, len(classes))))
    return Loaded(bundle, backbone, probe, classes, str(manifest.get("precision", "auto")))


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def versions() -> Mapping[str, str]:
    """The releases that a result depends on."""
    from importlib import metadata

    packages = ("headstart", "torch", "timm", "openvino", "numpy", "scikit-learn", "pillow", "simplejpeg", "pyarrow")
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
