"""What adding images to a saved model changed, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.judge.marks import Interval


@dataclass(frozen=True)
class Growth:
    """What was added to the model of this name: `images` and `new_names` (of classes, labels); `before` and `after`:
    the headline on `n` of its own images that judge it, and the paired `difference`."""

    model: str
    images: int
    new_names: tuple[str, ...]
    n: int
    before: Interval
    after: Interval
    difference: Interval

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        old = {"n": self.n, "before": self.before, "after": self.after, "difference": self.difference}
        return {
            "model": self.model,
            "images": self.images,
            "new_classes": list(self.new_names),
            "old_classes": old,
        }
