"""A JSON list written one entry at a time, to the letter as `json.dumps` writes the whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any


def pieces(entries: Iterable[Any], **how: Any) -> Iterator[str]:
    """`json.dumps(list(entries), indent=1, **how)` in pieces."""
    before = "[\n "
    for entry in entries:
        # a line break in a text is written as an escape, so that each one here ends a line of the document
        yield before + json.dumps(entry, indent=1, **how).replace("\n", "\n ")
        before = ",\n "
    yield "[]" if before.startswith("[") else "\n]"
