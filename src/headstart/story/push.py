"""A saved model to the Hugging Face hub, through its own client: one commit that holds the model and nothing private.

The model's files, its scores and its card are handed over. What shows or names the user's images stays here: the report
with its pictures, and the lists of paths. A repository of anything else than a model of ours is left alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import BundleError, HeadstartError, OutputError
from headstart.files.bundle import (
    ABOUT,
    CARD,
    CHECKSUMS,
    DEFINING,
    EXPORT,
    MANIFEST,
    METRICS,
    MOST_BYTES,
    RUN,
    Bundle,
    read_with,
)
from headstart.files.reading import read_regular, why

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SHARED = (*DEFINING, CHECKSUMS, METRICS, RUN, CARD, EXPORT)
PRIVATE = tuple(name for name in ABOUT if name not in SHARED)  # they hold pictures, or paths of pictures
OF_THE_HUB = (
    ".gitattributes",
    ".gitignore",
    CARD,
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
)  # in a repository without model
KNOWN = (*DEFINING, *ABOUT, CHECKSUMS)


@dataclass(frozen=True)
class Pushed:
    """`left_out`: files of the model that were not sent; `removed`: files of an earlier push that this model lacks."""

    address: str
    repository: str
    commit: str
    private: bool
    files: tuple[str, ...]
    left_out: tuple[str, ...]
    removed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def push(folder: str, repository: str, public: bool, with_report: bool) -> Pushed:
    """Commit the model in `folder` to OWNER/NAME on the hub, which is made where it is missing: private unless
    `public`. A name without owner is one of the user's own.

    Raises BundleError for a folder that is no sound model, OutputError for what the hub refuses.
    """
    contents = read_with(folder, lambda bundle: _contents(bundle, with_report))
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    if not get_token():
        raise OutputError("the hub wants to know who you are: run `hf auth login` once, or set HF_TOKEN to a token")
    api = HfApi()
    try:
        return _pushed(api, contents, _named(api, repository), public, folder)
    except HeadstartError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:  # HTTPError: of the client's own HTTP library
        raise OutputError(f"the model cannot be sent to {repository}: {_reason(error)}") from None


def _contents(bundle: Bundle, with_report: bool) -> dict[str, bytes]:
    """What is sent, by file. Raises BundleError where a file has changed since it was checked."""
    left = () if with_report else PRIVATE
    found = {}
    for name in (name for name in KNOWN if name not in left and (bundle.folder / name).is_file()):
        try:
            content = read_regular(bundle.folder / name, MOST_BYTES)
        except OSError as error:
            raise BundleError(f"{bundle.folder / name} cannot be read: {why(error)}") from None
        stated = bundle.checksums.get(name)
        if stated is not None and hashlib.sha256(content).hexdigest() != stated["sha256"]:
            raise BundleError(f"{bundle.folder / name} was changed while it was read: give the command again")
        found[name] = content
    return found


def _named(api: HfApi, repository: str) -> str:
    """OWNER/NAME. Raises ValueError for what is no name there."""
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repository)
    return repository if "/" in repository else f"{api.whoami()['name']}/{repository}"


def _pushed(api: HfApi, contents: dict[str, bytes], repository: str, public: bool, folder: str) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = _there(api, repository)
    if there is None:
        api.create_repo(repository, private=not public, exist_ok=True)
        there = _there(api, repository)
    private, names = there or (not public, [])
    if not private and not public:
        raise OutputError(f"{repository} is there already and is public: give --public to send the model there")
    strangers = [name for name in names if name not in OF_THE_HUB]
    if strangers and MANIFEST not in names:
        raise OutputError(
            f"{repository} holds {strangers[0]}, and no model of headstart: name another, so that nothing is lost there"
        )
    removed = tuple(name for name in names if name in KNOWN and name not in contents)
    adds = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
    drops = [CommitOperationDelete(path_in_repo=name) for name in removed]
    done = api.create_commit(repository, [*adds, *drops], commit_message="A model of headstart")
    left = tuple(name for name in PRIVATE if name not in contents and (Path(folder) / name).is_file())
    address = f"{api.endpoint}/{repository}"
    return Pushed(address, repository, str(done.oid), private, tuple(contents), left, removed)


def _there(api: HfApi, repository: str) -> tuple[bool, list[str]] | None:
    """(whether it is private, the names of its files); None where there is no such repository, or none to be seen."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        about = api.model_info(repository)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise
        return None
    return bool(about.private), [file.rfilename for file in about.siblings or []]


def _reason(error: Exception) -> str:
    """Why the hub did not take it: what is wrong, and what helps."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", None)
    said = str(getattr(error, "server_message", None) or "").strip()
    text = " ".join((said or str(error)).split())[:200]
    if isinstance(error, HFValidationError):
        return "that is no name on the hub: OWNER/NAME, of letters, digits, -, _ and ."
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on (unset HF_HUB_OFFLINE)"
    if status == 401:
        return "HTTP 401: the token is not known there: run `hf auth login`, or set HF_TOKEN to another"
    if status == 403:
        return f"HTTP 403: the token has no right to write there: make one with the role write ({text})"
    if status:
        return f"{constants.ENDPOINT} answered HTTP {status} ({text})"
    if "Timeout" in type(error).__name__:
        return f"{constants.ENDPOINT} did not answer in time"
    if isinstance(error, ValueError):
        return text
    return f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {text[:100]})"
