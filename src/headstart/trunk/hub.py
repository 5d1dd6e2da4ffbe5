"""Weights from the Hugging Face hub, through its own client, and checked by us against the hub's checksum.

Progress, a broken connection taken up where it broke, HF_HOME, HF_ENDPOINT, HF_TOKEN and proxies are the client's
work. Ours: nothing is asked of a server for a file that is here; an unreachable hub is found out in seconds; a file
whose bytes are not the server's is deleted; every failure is one line that names what is at hand.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import BackboneError
from headstart.files.reading import open_regular
from headstart.trunk.catalog import Published, notices
from headstart.trunk.weights import CACHED_NAMES, at_hand

CONNECT_SECONDS = 5.0  # until the hub counts as out of reach; a slow satellite link answers in 2
BRING = (
    "bring a file from another machine (headstart backbones --export-weights there, --import-weights here), give one "
    "with --weights FILE, or --weights none for random ones"
)


@dataclass(frozen=True)
class Remote:
    """A file on the hub."""

    repository: str
    filename: str
    size: int | None  # bytes
    checksum: str  # SHA-256 or git's SHA-1, in hex, as the server gives it; "" where it gives none


def cached(repository: str, filename: str | None = None) -> Path | None:
    """The weights file where the hub's cache on this machine has it. Asks no server."""
    import huggingface_hub as hub

    found = (hub.try_to_load_from_cache(repository, name) for name in _names(filename))
    return next((Path(path) for path in found if isinstance(path, str)), None)


def obtain(about: Published, say: Callable[[str], object]) -> Path:
    """The weights file: from the hub's cache on this machine, else fetched; then `say` is told what it is before.

    Raises BackboneError.
    """
    if not about.repository:
        raise BackboneError(
            f"the weights of {about.network} are not on the hub: fetch {about.url} and give it with --weights FILE"
        )
    if here := cached(about.repository, about.filename):
        return here
    there = remote(about.repository, about.filename)
    size = "of unknown size" if there.size is None else f"{there.size / 1e6:.1f} MB"
    say(f"fetching {about.network}, {size}, licence {about.licence}")
    for line in notices(about, there.size):
        say(line)
    return fetch(there)


def remote(repository: str, filename: str | None = None) -> Remote:
    """What the hub says of the weights file, in one short attempt. Raises BackboneError."""
    import huggingface_hub as hub
    from huggingface_hub.errors import HTTPError, RemoteEntryNotFoundError  # type: ignore[attr-defined]

    asked = os.environ.get("HF_HUB_ETAG_TIMEOUT")
    for name in _names(filename):
        url = hub.hf_hub_url(repository, name)
        try:
            about = hub.get_hf_file_metadata(
                url, timeout=hub.constants.HF_HUB_ETAG_TIMEOUT if asked else CONNECT_SECONDS
            )
        except RemoteEntryNotFoundError:
            continue
        except (HTTPError, OSError, RuntimeError, ValueError) as error:  # HTTPError: the client's own HTTP library's
            raise _cannot(repository, error) from None
        return Remote(repository, name, about.size, (about.etag or "").lower())
    raise _failed(repository, f"it holds no {' or '.join(_names(filename))}")


def fetch(file: Remote) -> Path:
    """Download a file into the hub's cache and check it. Raises BackboneError."""
    import huggingface_hub as hub
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        path = Path(hub.hf_hub_download(file.repository, file.filename))
        found = _digest(path, file.checksum)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _cannot(file.repository, error) from None
    if found != file.checksum:
        _delete(path)
        raise BackboneError(
            f"{file.filename} of {file.repository} came damaged: its checksum is {found[:16]}..., the hub's "
            f"{file.checksum[:16]}...; the file was deleted: try again, or another network (a proxy may change files)"
        )
    return path


def _names(filename: str | None) -> tuple[str, ...]:
    return (filename,) if filename else CACHED_NAMES


def _digest(path: Path, like: str) -> str:
    """The file's checksum of the kind that `like` is: SHA-256 of a large file, git's SHA-1 of a small one."""
    if len(like) not in (40, 64):
        return like  # the server names none that can be computed; the client has compared the length
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _delete(path: Path) -> None:
    """Remove a file of the cache, and what it links to."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


def _cannot(repository: str, error: Exception) -> BackboneError:
    return _failed(repository, _reason(repository, error))


def _failed(repository: str, reason: str) -> BackboneError:
    here = at_hand()
    more = f" and {len(here) - 12} more" if len(here) > 12 else ""
    return BackboneError(
        f"the weights of {repository} are not on this machine and cannot be fetched: {reason}; "
        f"weights at hand: {', '.join(here[:12]) or 'none'}{more}; {BRING}"
    )


def _reason(repository: str, error: Exception) -> str:
    """Why the hub did not give it: what is wrong, and what helps."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    kind = type(error).__name__
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on (unset HF_HUB_OFFLINE to fetch them)"
    if isinstance(error, GatedRepoError) or status == 403:
        return f"HTTP {status}, gated: accept the terms at {constants.ENDPOINT}/{repository}, then set HF_TOKEN"
    if status == 401:
        return "HTTP 401: the hub has no such repository, or it wants a token (set HF_TOKEN, or correct it)"
    if status == 404:
        return f"HTTP 404: {constants.ENDPOINT} has no such repository"
    if status:
        return f"{constants.ENDPOINT} answered HTTP {status}"
    if "Timeout" in kind:
        return f"{constants.ENDPOINT} did not answer in time ({kind})"
    return f"{constants.ENDPOINT} cannot be reached or read ({kind}: {' '.join(str(error).split())[:100]})"
