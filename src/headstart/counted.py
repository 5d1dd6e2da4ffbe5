"""Numbers as a sentence says them: "1 image", "1,797 images"."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun. The plural stands at the noun's end, or is given: counted(2, "class", "classes")."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
