"""How a command and the workers of a group that works together speak with each other. Ray is not imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Tell = Callable[[Any], None]

END = -1  # in place of the number of what is asked
MADE, TOLD, FAILED = "made", "told", "failed"


@dataclass(frozen=True)
class Member:
    """One of `size` workers that work together, as it is known to what they do; `tell`: the command."""

    rank: int
    size: int
    tell: Tell


class Board:
    """An actor: what the command asks of workers that work together, and what they say. It outlives them."""

    def __init__(self) -> None:
        self._asked: tuple[int, list[Any]] | None = None
        self._said: list[tuple[int, str, Any]] = []

    def ask(self, asked: tuple[int, list[Any]] | None) -> None:
        self._asked = asked

    def asked(self) -> tuple[int, list[Any]] | None:
        return self._asked

    def say(self, number: int, kind: str, what: Any) -> None:
        self._said.append((number, kind, what))

    def heard(self) -> list[tuple[int, str, Any]]:
        """What was said since the last call."""
        found, self._said = self._said, []
        return found
