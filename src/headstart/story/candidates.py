"""Which networks are ranked: those that the user names, or those that are on this machine or may be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import BackboneError, OptionError
from headstart.files.bundle import CONFIG, MANIFEST
from headstart.trunk import catalog, weights
from headstart.trunk.backbone import resolve

MOST = 8  # networks that are ranked without being named: more cost more than the last ones can gain


@dataclass(frozen=True)
class Candidate:
    """A network that may be ranked: `backbone` and `weights` as the options of `fit` have them; `name`: as it is
    shown, without private places; `entry`: its row of the catalog, where it has one; `asked`: the user named it."""

    name: str
    backbone: str
    weights: str = "auto"
    entry: catalog.Entry | None = None
    asked: bool = False

    @property
    def prior(self) -> float:
        """Accuracy on ImageNet in percent, of what was trained without its classes as it is: of all that is known
        before the images are looked at it says most (methods.md 3.3); 0 where it is not known."""
        return (self.entry.top1 or self.entry.frozen if self.entry else None) or 0.0

    def gmacs(self, side: int) -> float | None:
        """Billion multiplications an image at an input of this side in px; None where the catalog has none."""
        return None if self.entry is None else self.entry.gmacs * (side / self.entry.side) ** 2


def named(words: str) -> tuple[Candidate, ...]:
    """Of `NAME,FOLDER,NAME=FILE ...`: networks, saved models, networks with weights of the user's own.

    Raises OptionError where nothing is named, BackboneError for a name that there is not.
    """
    found: dict[tuple[str, str], Candidate] = {}
    for word in (w.strip() for w in words.split(",")):
        if word:
            one = _named(word)
            found.setdefault((one.backbone, one.weights), one)
    if not found:
        raise OptionError(
            f"no network is named in {words!r}: allowed are names and folders of saved models with commas between, and "
            "NAME=FILE for weights of your own"
        )
    return tuple(found.values())


def _named(word: str) -> Candidate:
    if any((Path(word) / file).exists() for file in (MANIFEST, CONFIG)):
        return Candidate(Path(word).resolve().name, word, asked=True)
    name, _, file = word.partition("=")
    full = resolve(name)
    if not file:
        return Candidate(full, full, entry=entry_for(full), asked=True)
    if not Path(file).is_file():
        raise BackboneError(f"weights file {file} does not exist: check what stands after {name}=")
    return Candidate(f"{full}={Path(file).name}", full, file, entry_for(full), asked=True)


def entry_for(full: str) -> catalog.Entry | None:
    return catalog.entry_of(full) or catalog.entry_of(catalog.first_choice(full) or "")


def at_hand() -> tuple[Candidate, ...]:
    """The networks whose weights are on this machine, the best on ImageNet first, MOST at most."""
    found = []
    for name in weights.at_hand():
        with suppress(BackboneError):  # a name that this release of timm does not know
            full = resolve(name)
            found.append(Candidate(full, full, entry=entry_for(full)))
    return tuple(sorted(found, key=lambda c: (-c.prior, c.name))[:MOST])


def to_fetch() -> tuple[Candidate, ...]:
    """Of the catalog those that may be fetched and used freely, and that no cheaper one beats on ImageNet: the best
    first, MOST at most."""
    free = [e for e in catalog.entries() if e.licence in catalog.OPEN_LICENCES and not (e.gated or e.non_commercial)]
    best, kept = 0.0, []
    for entry in sorted(free, key=lambda e: (e.gmacs, -(e.top1 or 0.0))):
        if (entry.top1 or 0.0) > best:
            best = entry.top1 or 0.0
            kept.append(Candidate(entry.network, entry.network, entry=entry))
    return tuple(kept[::-1][:MOST])


def gathered(words: str | None, download: bool) -> tuple[Candidate, ...]:
    """Those that are named; else those at hand, with `download` those too that may be fetched. In order of their
    names, so that nothing depends on theirs. Raises HeadstartError."""
    if words is not None:
        if download:
            raise OptionError("--download adds networks to those at hand, and --backbones names them: leave one out")
        return _in_order(named(words))
    here = at_hand()
    if download:
        known = {c.entry.network for c in here if c.entry}
        here = (*here, *(c for c in to_fetch() if c.backbone not in known))
    if not here:
        raise BackboneError(
            "no network's weights are on this machine: name some with --backbones, or let them be fetched with "
            "--download (headstart backbones lists them)"
        )
    return _in_order(here)


def _in_order(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    return tuple(sorted(found, key=lambda c: (c.name, c.backbone, c.weights)))
