"""The head that recognises, and what it tells of itself: how it is saved, read again and accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.errors import DataError
from headstart.heads.embedding import Embedding
from headstart.heads.gallery import Gallery, Threshold
from headstart.heads.material import Blocks
from headstart.heads.probe import Candidate
from headstart.heads.recognition import Recogniser
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import Part
from headstart.recipe import Setting
from headstart.tasks.task import Head, Rule, Tried

ABSENT = -2.0  # the answer for an identity that is not enrolled: below every cosine
THRESHOLDS = ("identify", "verify")


@dataclass(frozen=True, eq=False)
class Identifier:
    """The head: similarities to the prototypes of `names`, ABSENT where one is not enrolled. `identities`: how many the
    gallery had when its threshold was chosen."""

    recogniser: Recogniser
    names: tuple[str, ...]
    identities: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.recogniser.embedding.parts

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Of linear heads: none."""
        return ()

    @property
    def left_out(self) -> Doubles:
        """No image: what is left out of a fit is chosen by whole identities."""
        return np.empty((0, len(self.names)))

    def outputs(self, blocks: Blocks) -> Doubles:
        """(image, identity)."""
        r = self.recogniser
        found = r.gallery.nearest(r.embedding.embed(blocks))
        if self.names == r.gallery.names:
            return found
        number = {name: k for k, name in enumerate(self.names)}
        out = np.full((len(found), len(self.names)), ABSENT)
        out[:, [number[name] for name in r.gallery.names]] = found
        return out


def identifier_of(head: Head) -> Identifier:
    """Raises TypeError for the head of another task."""
    if not isinstance(head, Identifier):
        raise TypeError(f"{type(head).__name__} is no head that recognises")
    return head


def rule_of(head: Head) -> Rule:
    """The similarities from which an image is named, and two images are the same."""
    r = identifier_of(head).recogniser
    return {"identify": (r.identify.value,), "verify": (r.verify.value,)}


def names_of(head: Head) -> tuple[str, ...]:
    """Those enrolled."""
    return identifier_of(head).recogniser.gallery.names


def described(head: Head) -> dict[str, Any]:
    """As headstart.json has it."""
    own = identifier_of(head)
    r = own.recogniser
    return {
        "shrinkage": r.embedding.shrinkage,
        "identify": asdict(r.identify),
        "verify": asdict(r.verify),
        "identities": own.identities,
    }


def tensors(head: Head) -> dict[str, NDArray[Any]]:
    """The metric and the prototypes."""
    r = identifier_of(head).recogniser
    return {**r.embedding.arrays(), **r.gallery.arrays()}


def read(
    described: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    names: tuple[str, ...],
    parts: tuple[Part, ...],
    width: int,
) -> Identifier:
    """The head of a saved model, after its tensors were compared with each other and with what it reads."""
    shrinkage, k = described["shrinkage"], width
    wanted = {"gallery.means", "gallery.counts"}
    if shrinkage is not None:
        wanted |= {"embedding.mean", "embedding.whitening"}
    if set(tensors) != wanted:
        raise ValueError(f"its gallery holds {', '.join(sorted(tensors))[:200]}, needed: {', '.join(sorted(wanted))}")
    if shrinkage is not None:
        mean, whitening = tensors["embedding.mean"], tensors["embedding.whitening"]
        k = whitening.shape[-1]
        if mean.shape != (width,) or whitening.shape != (width, k) or not k:
            raise ValueError(
                f"its metric has the shapes {mean.shape} and {whitening.shape}, and reads {width} features"
            )
        if {mean.dtype, whitening.dtype} != {np.dtype(np.float32)}:
            raise ValueError(f"its metric is of {mean.dtype} and {whitening.dtype}, needed: float32")
    means, counts = tensors["gallery.means"], tensors["gallery.counts"]
    if means.shape != (len(names), k) or means.dtype != np.float64 or counts.dtype != np.int64:
        raise ValueError(
            f"its prototypes are {means.dtype} {means.shape} with counts of {counts.dtype}, needed: float64 "
            f"{(len(names), k)} with counts of int64"
        )
    if (np.abs(means) > 1 + 1e-6).any():
        raise ValueError("its prototypes are no means of rows of unit length")
    gallery = Gallery.read(names, tensors)
    embedding = Embedding.read(parts, shrinkage, tensors)
    identify, verify = (Threshold(**{f: described[of][f] for f in ("value", "rate", "n")}) for of in THRESHOLDS)
    return Identifier(Recogniser(embedding, gallery, identify, verify, (), ()), names, described["identities"])


def tried(head: Head) -> tuple[Tried, ...]:
    """The metrics that were compared: by the mean error rate of their two uses."""
    r = identifier_of(head).recogniser
    return tuple(
        Tried(_metric(c.shrinkage), c.error, 1 - c.eer, c.shrinkage == r.embedding.shrinkage) for c in r.candidates
    )


def _metric(shrinkage: float | None) -> str:
    return "cosine" if shrinkage is None else f"whitened within identities, shrinkage {shrinkage:g}"


def settings(head: Head) -> tuple[Setting, ...]:
    """The decisions of the fit with their sources."""
    r = identifier_of(head).recogniser
    why = f"lowest error rate of {len(r.candidates)} on identities left out" if r.candidates else "too few identities"
    return (
        Setting("metric", _metric(r.embedding.shrinkage), why),
        Setting(
            "thresholds",
            f"similarity of {r.identify.value:.3f} to be named, {r.verify.value:.3f} of two images",
            f"{r.identify.rate:.0%} of strangers pass: {counted(r.identify.n, 'image')} of identities left out, and "
            f"{counted(r.verify.n, 'pair')} of them",
        ),
    )


def remarks(head: Head) -> tuple[str, ...]:
    """What the threshold is, and what it cannot say."""
    r = identifier_of(head).recogniser
    if not r.identify.n:
        return r.notes
    line = (
        f"unknown below a similarity of {r.identify.value:.3f}, chosen so that {r.identify.rate:.0%} of strangers pass"
    )
    return (line, *r.notes)


def with_gallery(head: Identifier, gallery: Gallery) -> Identifier:
    """The same metric and thresholds before other people. Raises DataError where nobody is left."""
    if not gallery.names:
        raise DataError("nobody would be left in the gallery: enrol somebody else first")
    return replace(head, recogniser=replace(head.recogniser, gallery=gallery), names=gallery.names)
