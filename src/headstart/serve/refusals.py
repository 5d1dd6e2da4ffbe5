"""What a request is refused with: a status and one line."""

from __future__ import annotations

from collections.abc import Mapping

TOO_SLOW = 408


class Refusal(Exception):  # noqa: N818 (nothing went wrong here)
    """Answered as {"error": line} with this status and these headers."""

    def __init__(self, status: int, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status, self.line, self.headers = status, line, dict(headers or {})
