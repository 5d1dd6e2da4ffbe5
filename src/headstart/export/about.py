"""What an export says of itself, inside the file and beside it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from headstart.export.answers import OUTPUTS, further_of, rule_of
from headstart.export.forms import Form
from headstart.ship.package import Loaded, versions
from headstart.ship.placed import Placed


def about(model: Loaded, name: str, any_size: bool) -> dict[str, Any]:
    """JSON-ready: all that is needed to feed the graph and to read its answers, and where the weights come from."""
    more = further_of(model.head)
    further = {} if more is None else {"further": {"type": "float32", **asdict(more)}}
    manifest = model.bundle.manifest if model.bundle else {}
    output = {"name": "answers", "type": "float32", "axes": ["image", "name"], "what": OUTPUTS[model.task.name]}
    return {
        **_fed(model, name, any_size),
        "output": output,
        **further,
        "rule": {what: list(values) for what, values in rule_of(model).items()},
        "calibration": manifest.get("calibration", {}).get("method", model.task.calibration),
        **_made_of(model),
    }


def about_placed(model: Placed, form: Form, name: str) -> dict[str, Any]:
    """The same of a model of masks or boxes: what its output is, and the numbers by which answers are made of it."""
    return {**_fed(model, name, False), "output": form.output, **form.answering(model), **_made_of(model)}


def _fed(model: Loaded | Placed, name: str, any_size: bool) -> dict[str, Any]:
    """What the graph takes."""
    backbone = model.backbone
    return {
        "made_by": f"headstart {versions().get('headstart', '')}".strip(),
        "model": name,
        "task": model.task.name,
        "names": list(model.names),
        "input": {
            "name": "pixels",
            "type": "uint8",
            "axes": ["image", "height", "width", "RGB"],
            "size": None if any_size else list(backbone.preprocess.size),
        },
        "any_size": any_size,
        "preprocess": backbone.preprocess.to_json(),
    }


def _made_of(model: Loaded | Placed) -> dict[str, Any]:
    """Where the network and its weights come from."""
    backbone, manifest = model.backbone, model.bundle.manifest if model.bundle else {}
    return {
        "network": backbone.name,
        "weights": backbone.weights_source,
        "weights_chain": list(backbone.chain),
        "licence": backbone.licence,
        "data": manifest.get("data_fingerprint", ""),
        "versions": dict(versions()),
    }
