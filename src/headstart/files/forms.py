"""What the JSON of a saved model must hold: a table of fields, stated once and checked before anything uses them.

A check takes a value and says in words what is wrong with it, "" where nothing is. Fields that a table does not name
may be there: a later release may add some that this one can ignore. What needs the network to judge (whether a block
exists, whether the head fits it) is checked where the network is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from headstart.files.cells import printable

Check = Callable[[Any, str], str]
"""(value, where it stands) -> what is wrong with it."""

MOST_WORDS = 10_000
"""Characters of a text: a class or a network has fewer, and what is compared with every known name takes long."""
MOST_SIDE = 1024
"""px, the largest input that `--size` allows and that a network of timm has of its own."""
MOST_CLASSES = 10_000_000
FLOAT32 = 3.4e38
"""The largest number that a network can hold."""
LINEAR = "linear on prepared features; probabilities = softmax(prepared @ coef' + intercept)"
TRAINED = "trained layers"
RECOGNISER = "nearest prototype by cosine similarity; unknown below a threshold"
DETECTOR = "distance to good images; odd from 1"
PLACED = ("pointwise", "decoder", "boxes")  # heads on maps; what else they say of themselves their tasks check
"""The kinds of head."""


def shown(value: object) -> str:
    """A value of somebody else's in one short line."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} with {len(value)} entries"
    return printable(repr(value[:40]) if isinstance(value, str) else json.dumps(value)[:40])


def parse(content: bytes, form: Check) -> dict[str, Any]:
    """The JSON object in `content`, if it has this form. Raises ValueError, which says what is wrong."""
    try:
        parsed: Any = json.loads(content, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read as JSON ({printable(str(error))[:200]})") from None
    if wrong := form(parsed, "") or ANYTHING(parsed, ""):
        raise ValueError(f"does not hold what it should: {wrong}")
    return dict(parsed)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_number(digits[:40])


# Single values


def text(value: Any, place: str) -> str:
    """Any text, also an empty one."""
    if not isinstance(value, str):
        return f"{place} is {shown(value)}, not a text"
    return f"{place} has {len(value):,} characters, more than {MOST_WORDS:,}" if len(value) > MOST_WORDS else ""


def name(value: Any, place: str) -> str:
    """A text that is not empty."""
    return text(value, place) or ("" if value else f"{place} is empty")


def truth(value: Any, place: str) -> str:
    return "" if isinstance(value, bool) else f"{place} is {shown(value)}, neither true nor false"


def whole(least: int, most: int = 2**53) -> Check:
    span = f"from {least}" if most == 2**53 else f"from {least} to {most}"

    def check(value: Any, place: str) -> str:
        fits = type(value) is int and least <= value <= most
        return "" if fits else f"{place} is {shown(value)}, not a whole number {span}"

    return check


def number(least: float = -math.inf, most: float = math.inf, above: float = -math.inf) -> Check:
    """A finite number of `least` to `most`, and larger than `above`."""
    bounds = [f"at least {least}"] * (least > -math.inf) + [f"at most {most}"] * (most < math.inf)
    words = " and ".join(bounds + [f"above {above}"] * (above > -math.inf))

    def check(value: Any, place: str) -> str:
        fits = type(value) in (int, float) and abs(value) < FLOAT32 and least <= value <= most and value > above
        return "" if fits else f"{place} is {shown(value)}, not a finite number{' ' + words if words else ''}"

    return check


def one_of(*allowed: str) -> Check:
    return lambda value, place: (
        "" if isinstance(value, str) and value in allowed else f"{place} is {shown(value)}, not {' or '.join(allowed)}"
    )


def or_null(inner: Check) -> Check:
    return lambda value, place: "" if value is None else inner(value, place)


# Several


def each(inner: Check, least: int = 0, most: int = MOST_CLASSES, distinct: bool = False) -> Check:
    """A list; with `distinct` of values that all differ."""
    size = f"{least}" if least == most else f"at least {least}" if most == MOST_CLASSES else f"{least} to {most}"

    def check(value: Any, place: str) -> str:
        if not isinstance(value, list) or not least <= len(value) <= most:
            return f"{place} is {shown(value)}, not a list of {size}"
        seen: set[str] = set()
        for k, one in enumerate(value, 1):
            if wrong := inner(one, f"entry {k} of {place}"):
                return wrong
            key = json.dumps(one, sort_keys=True) if distinct else str(k)
            if key in seen:
                return f"{place} holds {shown(one) if isinstance(one, str) else f'entry {k}'} twice"
            seen.add(key)
        return ""

    return check


def either(first: Check, second: Check) -> Check:
    return lambda value, place: first(value, place) and second(value, place)


def record(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these fields, and perhaps those."""
    fields = {**needed, **(optional or {})}

    def check(value: Any, place: str) -> str:
        if not isinstance(value, dict):
            return f"{place or 'it'} is {shown(value)}, not an object"
        for field, inner in fields.items():
            where = f"{place}.{field}" if place else field
            if field not in value and field in needed:
                return f"{where} is missing"
            if field in value and (wrong := inner(value[field], where)):
                return wrong
        return ""

    return check


ANYTHING: Check = record({})
"""An object of whatever fields."""

# headstart.json

PART = record({"block": name, "root": truth, "unit": truth})
TRAINING = record(
    {"epochs": whole(0), "batch_size": whole(1), "optimizer": name, "rate": number(0), "warm_up": number(0)}
    | {"patience": whole(0), "held_out": number(0, 1)},
    dict.fromkeys(("smoothing", "clip", "average", "weight_decay", "mixup", "stage_decay"), number(0))
    | {"frozen_statistics": truth},
)
LINEAR_HEAD = record({"kind": one_of(LINEAR), "parts": each(PART, 1, 10_000, distinct=True)})
TRAINED_HEAD = record(
    {"kind": one_of(TRAINED), "parts": each(PART, 1, 1), "spec": name, "shape": each(whole(1), 1, 3)}
    | {"scale": number(above=0), "training": TRAINING}
)
THRESHOLD = record({"value": number(-1.01, 1.01), "rate": number(0, 1, above=0), "n": whole(0)})
RECOGNISING_HEAD = record(
    {"kind": one_of(RECOGNISER), "parts": each(PART, 1, 10_000, distinct=True), "identities": whole(1)}
    | {"shrinkage": or_null(number(0, 1, above=0)), "identify": THRESHOLD, "verify": THRESHOLD}
)
DETECTING_HEAD = record(
    {"kind": one_of(DETECTOR), "parts": each(PART, 1, 10_000, distinct=True)}
    | {"channels": each(whole(1), 0, 9)}
    | {"middles": each(number(), 1, 2), "widths": each(number(above=0), 1, 2), "limit": number()}
    | {"rate": number(0, 1, above=0), "n": whole(1), "usual": number(), "hot": number(), "rest": number(above=0)}
)
HEAD_ON_MAPS = record(
    {"kind": one_of(*PLACED), "maps": each(record({"block": name, "shape": each(whole(1), 3, 3)}), 1, 100)}
)
HEADS = {LINEAR: LINEAR_HEAD, TRAINED: TRAINED_HEAD, RECOGNISER: RECOGNISING_HEAD, DETECTOR: DETECTING_HEAD}
HEADS |= dict.fromkeys(PLACED, HEAD_ON_MAPS)
RULE = record(  # of the other tasks' rules the task itself knows what they are
    {},
    {"coverage": each(number(0, 1), 1, 1), "set_from": each(number(0, 1), 1, 10_000_000)}
    | {"set_limit": each(number(0), 1, 1), "set_penalty": each(number(0), 2, 2)}
    | {"max_error": each(number(0, 1), 1, 1), "answer_from": each(number(0, 2), 1, 1)}
    | {"positive": each(number(0, 1), 1, 1), "operating_from": each(number(0, 2), 4, 4)}
    | {"weights": each(number(above=0), 1, 10_000_000), "costs": each(number(), 1, 10_000_000)},
)


NOVELTY = record(
    {"method": name, "false_alarms": number(0, 1, above=0), "images": whole(1), "usual": number(), "limit": number()}
    | {"middles": each(number(), 2, 2), "widths": each(number(above=0), 2, 2), "told_apart": ANYTHING},
)


def _head(value: Any, place: str) -> str:
    return record({"kind": _kind})(value, place) or HEADS[value["kind"]](value, place)


def _kind(value: Any, place: str) -> str:
    known = isinstance(value, str) and value in HEADS
    return "" if known else f"{place} is {shown(value)}, no kind of head that this release knows"


def manifest(newest: int) -> Check:
    """Of headstart.json, in format versions up to `newest`."""
    return record(
        {
            "format_version": whole(1, newest),
            "classes": each(name, 1, distinct=True),
            "preprocess": ANYTHING,  # `Preprocess.from_json` knows its rules
            "backbone": record(
                {"name": name, "weights_source": name, "licence": text, "classifier": text},
                {"weights_hash": name, "parameters": whole(0), "chain": or_null(each(text))},
            ),
            "head": _head,
        },
        {
            "precision": one_of("auto", "bf16", "f32"),
            "layer": or_null(record({"name": name, "pooling": name}, {"module": text})),
            "rule": RULE,
            "novelty": or_null(NOVELTY),
            "data_fingerprint": text,
            "calibration": ANYTHING,
            "versions": ANYTHING,
        },
    )


# metrics.json and run.json, as far as anything is read from them again

SHARE = number(0, 1)
ESTIMATE = record(dict.fromkeys(("value", "low", "high"), or_null(number())))
_SCORE = record({"n": whole(1)}, {"source": text, "accuracy": record({"value": SHARE, "low": SHARE, "high": SHARE})})


def score(value: Any, place: str) -> str:
    """`n`, then estimates and tables by name; the first is the headline of its task."""
    if wrong := _SCORE(value, place):
        return wrong
    first = next((field for field in value if field != "n"), None)
    return f"{place} holds no score" if first is None else ESTIMATE(value[first], f"{place}.{first}")


METRICS = record({}, {"test": or_null(score), "cross_validation": or_null(score)})
OPTIONS = record(
    {},
    dict.fromkeys(("backbone", "weights", "taps", "head", "optimizer", "tune", "augment", "precision"), name)
    | dict.fromkeys(("layer", "lr", "budget", "cache"), or_null(name))
    | dict.fromkeys(("epochs", "batch_size", "size"), or_null(whole(1)))
    | {
        "aim": name,
        "cost": or_null(name),
        "positive": or_null(name),
        "target": or_null(name),
        "sets": one_of("lac", "raps", "classwise"),
    }
    | dict.fromkeys(("coverage", "max_error", "false_alarms"), or_null(number(0, 1)))
    | {"seed": whole(0)},
)
RUN = record({"options": OPTIONS})

# config.json in timm's layout: what is taken over of it, and nothing else

_NAMES = either(name, each(name, 1))
_TIMM: dict[str, Check] = {
    "input_size": each(whole(1, MOST_SIDE), 3, 3),
    "fixed_input_size": truth,
    "interpolation": name,
    "crop_pct": number(0, 1, above=0),
    "crop_mode": name,
    "mean": each(number(), 3, 3),
    "std": each(number(above=0), 3, 3),
    "num_classes": whole(0, MOST_CLASSES),
    "classifier": _NAMES,
    "first_conv": _NAMES,
    "license": text,
    "tag": text,
}
TIMM_FIELDS = {field: or_null(check) for field, check in _TIMM.items()}
TIMM = record({"architecture": name}, {"pretrained_cfg": or_null(record({}, TIMM_FIELDS))})
