"""GET /openapi.json: every path with every status that it answers."""

from __future__ import annotations

from headstart.serve.bounds import Bounds
from headstart.ship.package import versions

Json = dict[str, object]

BINARY: Json = {"schema": {"type": "string", "format": "binary"}}
RECORD: Json = {
    "type": "object",
    "description": "What `headstart predict --json` says of an image; the other fields depend on the model's task",
    "properties": {
        "path": {"type": "string", "description": "the name of the file as it was sent"},
        "error": {"type": ["string", "null"], "description": "why the image cannot be read"},
        "mask": {"type": ["string", "null"], "description": "with masks=1: a PNG of class numbers, in base64"},
    },
    "required": ["path", "error"],
}
SCORE: Json = {
    "type": ["object", "null"],
    "properties": {
        "measure": {"type": "string"},
        "value": {"type": "number"},
        "low": {"type": ["number", "null"], "description": "95 % interval"},
        "high": {"type": ["number", "null"]},
        "n": {"type": ["integer", "null"]},
        "part": {"type": "string"},
    },
}
MODEL: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "task": {"type": "string"},
        "classes": {"type": "array", "items": {"type": "string"}},
        "network": {"type": "string"},
        "input": {"type": "array", "items": {"type": "integer"}, "description": "height, width in px"},
        "licence": {"type": "string"},
        "score": SCORE,
        "novelty": {"type": "boolean", "description": "whether it knows images unlike all that taught it"},
        "heat": {"type": "boolean", "description": "whether it knows where a picture is odd: see /heat"},
        "masks": {"type": "boolean", "description": "whether its answers are masks: see masks=1 of /predict"},
        "colours": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "#rrggbb of each class, where answers lie in the picture",
        },
        "version": {"type": "string"},
        "loaded": {"type": "string", "format": "date-time"},
        "refused": {"type": ["string", "null"], "description": "why a newer model of this name is not at work"},
    },
    "required": ["name", "task", "classes", "network", "version"],
}
REFUSALS = {
    "400": "not HTTP, or cut short",
    "404": "no such model",
    "405": "another method",
    "408": "the body came too slowly",
    "413": "too many bytes or images, or masks of more bytes than a request may have",
    "415": "no image type",
    "422": "no image that can be read, or a wrong value of a parameter",
    "429": "too many images wait: come again after Retry-After seconds",
    "500": "a defect, or a damaged model",
    "503": "no answer within the time limit, or the server stops",
}


def document(bounds: Bounds, locked: bool) -> Json:
    """OpenAPI 3.1. `locked`: a token is needed."""
    found: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "headstart",
            "version": versions().get("headstart", "0"),
            "description": "Saved models behind HTTP.",
        },
        "paths": {
            "/predict": {"post": _predict(bounds, locked)},
            "/heat": {"post": _heat(locked)},
            "/models": {"get": _get("The models at work", {"type": "array", "items": MODEL}, locked)},
            "/health": {"get": _get("Whether the server lives", {"type": "object"}, locked=False)},
            "/ready": {"get": _ready()},
            "/metrics": {"get": _text("Counts for Prometheus", "text/plain", locked)},
            "/openapi.json": {"get": _get("This document", {"type": "object"}, locked)},
            "/": {"get": _text("The page", "text/html", locked=False)},
        },
        "components": {"schemas": {"Refusal": _refusal()}},
    }
    if locked:
        found["components"] = {
            "schemas": {"Refusal": _refusal()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        }
    return found


def _form(most: int) -> Json:
    files = {"type": "array", "items": BINARY["schema"], "minItems": 1, "maxItems": most}
    return {"schema": {"type": "object", "properties": {"image": files}, "required": ["image"]}}


def _refusal() -> Json:
    return {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def _predict(bounds: Bounds, locked: bool) -> Json:
    text = (
        f"At most {bounds.body:,} bytes and {bounds.images} images a request, {bounds.pixels:,} pixels an image. "
        "The name of a single image may be sent in the header X-Filename."
    )
    return {
        "operationId": "predict",
        "summary": "Ask a model about images",
        "description": text,
        "parameters": [
            _parameter("model", {"type": "string"}, "the name of a model (default: the first)"),
            _parameter("top", {"type": "integer", "minimum": 1, "maximum": 1000}, "best classes to list (default: 3)"),
            _parameter(
                "masks", {"type": "integer", "enum": [0, 1]}, "1: with masks, of --task segment (default: 0); see 413"
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": BINARY,
                "image/*": BINARY,
                "multipart/form-data": _form(bounds.images),
            },
        },
        "responses": {
            "200": _answer("One record an image", {"type": "array", "items": RECORD}),
            **{status: _refused(text) for status, text in REFUSALS.items()},
            **_unknown(locked),
        },
        **_security(locked),
    }


def _heat(locked: bool) -> Json:
    drawn: Json = {"description": "The picture, orange where it is odd", "content": {"image/jpeg": BINARY}}
    return {
        "operationId": "heat",
        "summary": "Ask a model of oddities where a picture is odd",
        "parameters": [_parameter("model", {"type": "string"}, "the name of a model (default: the first)")],
        "requestBody": {"required": True, "content": {"application/octet-stream": BINARY, "image/*": BINARY}},
        "responses": {
            "200": drawn,
            **{status: _refused(text) for status, text in REFUSALS.items()},
            **_unknown(locked),
        },
        **_security(locked),
    }


def _parameter(name: str, schema: Json, text: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _answer(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _refused(text: str) -> Json:
    return _answer(text, {"$ref": "#/components/schemas/Refusal"})


def _unknown(locked: bool) -> Json:
    return {"401": _refused("no token, or another one")} if locked else {}


def _security(locked: bool) -> Json:
    return {"security": [{"token": []}]} if locked else {}


def _get(text: str, schema: Json, locked: bool) -> Json:
    return {"summary": text, "responses": {"200": _answer(text, schema), **_unknown(locked)}, **_security(locked)}


def _ready() -> Json:
    both = {"200": _answer("Ready", {"type": "object"}), "503": _answer("It stops", {"type": "object"})}
    return {"summary": "Whether models are loaded and the server does not stop", "responses": both}


def _text(text: str, kind: str, locked: bool) -> Json:
    content = {"description": text, "content": {kind: {"schema": {"type": "string"}}}}
    missing = {} if locked or kind != "text/html" else {"404": _refused("no page is here")}
    return {"summary": text, "responses": {"200": content, **missing, **_unknown(locked)}, **_security(locked)}
