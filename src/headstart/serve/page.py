"""The page of GET /: one file, with everything in it, and the headers that let a browser run just that."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent / "pages" / "index.html"
ANYWHERE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}  # with every answer
NOTHING = "default-src 'none'; frame-ancestors 'none'"  # of answers that are no page


@dataclass(frozen=True)
class Page:
    content: bytes
    policy: str


def read_page(path: Path = PAGE) -> Page | None:
    """A page of which a browser runs the scripts that are in it and no other, and sends nothing anywhere else."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(text.encode(), policy)
