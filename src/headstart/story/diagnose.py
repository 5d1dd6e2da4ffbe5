"""What else is said of networks that were ranked: numbers that need no head, and two networks side by side."""

from __future__ import annotations

from dataclasses import replace

from headstart.data.table import Table
from headstart.data.targets import ClassNumbers, class_numbers
from headstart.heads.material import Material
from headstart.heads.taps import LAST, Part, TapSet
from headstart.heads.transferability import leep, logme, nce
from headstart.story.opening import Options, Watcher, features_of
from headstart.trunk.engine import compile_trunk
from headstart.trunk.layers import LOGITS
from headstart.trunk.network import Backbone


def diagnosed(
    table: Table, material: Material, backbone: Backbone, options: Options, watch: Watcher
) -> dict[str, float | None]:
    """Of the images of `table`, whose features are `material`: NCE, LEEP and LogME of one class an image; none for
    other tasks. The first two need what the network's own top says, a second pass, and are None where it has none: a
    saved model keeps no top of its own."""
    if not isinstance(material.targets, ClassNumbers):
        return {}
    y = class_numbers(material.targets)
    found: dict[str, float | None] = {"nce": None, "leep": None, "logme": logme(material.blocks[LAST], y)}
    if backbone.n_classes > 1 and not backbone.random and not backbone.chain:
        top = replace(backbone, taps=(), ends=(LOGITS,))
        bar = watch.bar(f"top of {backbone.name}", len(table))
        logits = features_of(table, top, compile_trunk(top, options.precision), options, bar).blocks[LOGITS]
        found |= {"nce": nce(logits, y), "leep": leep(logits, y)}
    return found


def joined(
    first: Material, second: Material, sets: tuple[TapSet, ...], others: tuple[TapSet, ...]
) -> tuple[Material, tuple[TapSet, ...]]:
    """Two networks' features of the same images as one material, and each set of taps with its parts of both."""
    blocks = {f"{k} {name}": b for k, m in enumerate((first, second)) for name, b in m.blocks.items()}
    both = tuple(TapSet(one.name, (*_of(0, one), *_of(1, other))) for one, other in zip(sets, others, strict=True))
    return replace(first, blocks=blocks), both


def _of(number: int, tap_set: TapSet) -> tuple[Part, ...]:
    return tuple(replace(part, block=f"{number} {part.block}") for part in tap_set.parts)
