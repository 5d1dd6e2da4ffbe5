"""What an export says of itself, inside the file and beside it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from headstart.export.answers import OUTPUTS, further_of, rule_of
from headstart.ship.package import Loaded, versions


def about(model: Loaded, name: str, any_size: bool) -> dict[str, Any]:
    """JSON-ready: all that is needed to feed the graph and to read its answers, and where the weights come from."""
    backbone, more = model.backbone, further_of(model.head)
    further = {} if more is None else {"further": {"type": "float32", **asdict(more)}}
    manifest = model.bundle.manifest if model.bundle else {}
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
        "output": {"name": "answers", "type": "float32", "axes": ["image", "name"], "what": OUTPUTS[model.task.name]},
        **further,
        "any_size": any_size,
        "preprocess": backbone.preprocess.to_json(),
        "rule": {what: list(values) for what, values in rule_of(model).items()},
        "calibration": manifest.get("calibration", {}).get("method", model.task.calibration),
        "network": backbone.name,
        "weights": backbone.weights_source,
        "weights_chain": list(backbone.chain),
        "licence": backbone.licence,
        "data": manifest.get("data_fingerprint", ""),
        "versions": dict(versions()),
    }
