"""The section of a model card that tells of its exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEGIN, END = "<!-- exports -->", "<!-- end of exports -->"
BEFORE = "\n## How it was made\n"  # where the section goes in a card that has none yet


def with_exports(card: str, exports: Mapping[str, Mapping[str, Any]]) -> str:
    """The card with these exports, by what they are called, in place of those that it told of."""
    section = f"{BEGIN}\n{_section(exports)}\n{END}"
    start, end = card.find(BEGIN), card.find(END)
    if 0 <= start < end:
        return card[:start] + section + card[end + len(END) :]
    head, before, tail = card.partition(BEFORE)
    return f"{head}\n{section}\n{before}{tail}" if before else f"{card.rstrip()}\n\n{section}\n"


def _section(exports: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "## Exports",
        "",
        "Each was run by its own runtime and compared with `headstart predict` in float32. Its folder holds "
        "`predict.py`, which reads pictures as headstart does.",
        "",
        "| export | MB | images | largest difference | labels that agree | score there | predict's | ms an image |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(name, e))} |" for name, e in sorted(exports.items())]
    told = [line for name, e in sorted(exports.items()) if (line := _int8(name, e.get("int8")))]
    return "\n".join([*lines, *(["", *told] if told else [])])


def _int8(name: str, found: object) -> str:
    """What is said of an export in 8-bit integers; nothing of others, or where the record was broken by hand."""
    if not isinstance(found, dict) or not isinstance(found.get("gate"), dict):
        return ""
    verdict, floats, notes = found["gate"], found.get("floats"), found.get("notes")
    kept = ", ".join(f"`{layer}`" for layer in floats) if isinstance(floats, list) and floats else "none"
    told = (
        f"- `{name}` is in 8-bit integers: {_number(found.get('size_ratio'), '{:.0f} %', 100)} of the size and "
        f"{_number(found.get('speed_ratio'), '{:.2f}')} times the speed of float32 where it was made; "
        f"{_number(verdict.get('drop'), '{:.2f}')} points lost ({_number(verdict.get('low'), '{:+.2f}')} to "
        f"{_number(verdict.get('high'), '{:+.2f}')}), {_number(verdict.get('max_drop'), '{:g}')} allowed. "
        f"Layers left in float: {kept}."
    )
    return told + "".join(f" {str(note)[:1].upper()}{str(note)[1:]}." for note in (notes or ()))


def _cells(name: str, export: Mapping[str, Any]) -> list[str]:
    score = export.get("score") or {}
    return [
        f"`{name}`",
        _number(export.get("bytes"), "{:.1f}", 1e-6),
        _number(export.get("images"), "{:,.0f}"),
        _number(export.get("largest_difference"), "{:.1g}"),
        _number(export.get("label_agreement"), "{:.1f} %", 100),
        _number((score.get("exported") or {}).get("value"), "{:.3f}"),
        _number((score.get("predict") or {}).get("value"), "{:.3f}"),
        _number(export.get("latency_ms"), "{:.1f}"),
    ]


def _number(value: object, form: str, unit: float = 1.0) -> str:
    return form.format(value * unit) if isinstance(value, int | float) and not isinstance(value, bool) else "-"
