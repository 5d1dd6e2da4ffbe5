"""A JSON list written some entries at a time, to the letter as `json.dumps` writes the whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

AT_ONCE = 256  # entries: Python's encoder leaves something for the garbage collector at each call


def pieces(entries: Iterable[Any], **how: Any) -> Iterator[str]:
    """`json.dumps(list(entries), indent=1, **how)` in pieces."""
    every, before = iter(entries), "["
    while some := list(islice(every, AT_ONCE)):
        yield before + json.dumps(some, indent=1, **how)[1:-2]  # without the brackets and the last line's end
        before = ","
    yield "[]" if before == "[" else "\n]"
