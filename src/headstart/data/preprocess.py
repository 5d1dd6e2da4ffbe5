"""How a network wants its pictures, and what the pictures of a set have in common: it is saved with every model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from headstart.errors import OptionError, nearest

INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
RESIZES = ("shortest", "squash", "pad")
CROP_MODES = {"shortest": "center", "squash": "squash", "pad": "border"}  # what timm calls them
VIEWS = (1, 2)
KINDS = ("unsigned", "signed", "float")  # of samples of more than 8 bits
MOST_BANDS = 10_000  # hyperspectral cameras have some hundreds


@dataclass(frozen=True)
class Preprocess:
    """How a network wants its pictures; it belongs to the weights. Raises OptionError on nonsense.

    size: (height, width) in px. crop_fraction: part of the resized picture that the centre crop keeps, in (0, 1].
    resize: "shortest" scales until the picture just covers round(size / crop_fraction), then crops the centre;
    "squash" scales both sides to size and crops nothing; "pad" scales the whole picture into size, in its own shape and
    in the middle, and fills the rest with `fill`. mean, std: of RGB in 0..1, applied inside the network's graph.

    The last three belong to the set, not to the weights. views: 1, or 2: the features of the picture and of its mirror
    image are averaged, inside the network's graph too. ranges: (kind of samples, black, white) of pictures of more than
    8 bits, found from the images that teach (data/deep.py); a kind without one is shown by each picture's own range.
    bands: the bands of a TIFF that are red, green and blue, or the one that is grey, counted from 1; () for the usual.
    """

    size: tuple[int, int]
    crop_fraction: float
    interpolation: str
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    ranges: tuple[tuple[str, float, float], ...] = ()
    bands: tuple[int, ...] = ()
    views: int = 1

    def __post_init__(self) -> None:
        if not (len(self.size) == 2 and all(isinstance(s, int) and 1 <= s <= 4096 for s in self.size)):
            raise OptionError(f"size {self.size!r}: (height, width), each a whole number of px in 1..4096")
        if not 0 < self.crop_fraction <= 1:
            raise OptionError(f"crop_fraction {self.crop_fraction!r}: more than 0, at most 1")
        for name, value, allowed in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("resize", self.resize, RESIZES),
        ):
            if value not in allowed:
                raise OptionError(f"{name} {value!r}: one of {', '.join(allowed)}{nearest(str(value), allowed)}")
        for name, triple in (("mean", self.mean), ("std", self.std)):
            if not (len(triple) == 3 and all(math.isfinite(v) for v in triple)):
                raise OptionError(f"{name} {triple!r}: three finite numbers, for red, green and blue")
        if min(self.std) <= 0:
            raise OptionError(f"std {self.std!r}: each more than 0")
        if self.views not in VIEWS:
            raise OptionError(f"views {self.views!r}: 1, or 2 for the mirror image too")
        _check_ranges(self.ranges)
        check_bands(self.bands)

    @property
    def fill(self) -> tuple[int, int, int]:
        """RGB of what "pad" puts around a picture: the mean, which is 0 to the network, as the padding of its own
        convolutions is."""
        red, green, blue = (min(255, max(0, round(255 * value))) for value in self.mean)
        return red, green, blue

    def range_of(self, kind: str) -> tuple[float, float] | None:
        """(black, white) of the set's pictures of this kind of samples."""
        return next(((low, high) for known, low, high in self.ranges if known == kind), None)

    def to_json(self) -> dict[str, object]:
        """Plain JSON values under the field names; what a set does not have is left out."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in named.items() if k != "ranges"}
        for name, usual in (("bands", []), ("views", 1)):
            if plain[name] == usual:
                del plain[name]
        return plain | ({"ranges": {kind: [low, high] for kind, low, high in self.ranges}} if self.ranges else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of to_json. Raises OptionError if a field is missing, unknown or nonsense."""
        names = {f.name for f in fields(cls)}
        needed = names - {"ranges", "bands", "views"}
        if not (isinstance(values, Mapping) and needed <= set(values) <= names):
            found = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
            raise OptionError(f"preprocess has the fields {found}: needed are {sorted(needed)}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            if "ranges" in given:
                given["ranges"] = tuple((kind, *ends) for kind, ends in given["ranges"].items())
            return cls(**given)
        except (TypeError, ValueError, AttributeError) as error:
            raise OptionError(f"preprocess {dict(values)!r}: {error}") from None


def _check_ranges(ranges: tuple[tuple[str, float, float], ...]) -> None:
    for kind, low, high in ranges:
        numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in (low, high))
        if kind not in KINDS or not numbers or not low < high:
            raise OptionError(f"ranges {ranges!r}: for {', '.join(KINDS)} samples a black value and a larger white one")
    if len({kind for kind, _, _ in ranges}) != len(ranges):
        raise OptionError(f"ranges {ranges!r}: one for each kind of samples")


def check_bands(bands: tuple[int, ...]) -> tuple[int, ...]:
    """The bands themselves. Raises OptionError."""
    whole = all(isinstance(b, int) and not isinstance(b, bool) and 1 <= b <= MOST_BANDS for b in bands)
    if len(bands) not in (0, 1, 3) or not whole:
        raise OptionError(
            f"bands {','.join(map(str, bands))} are not allowed: three whole numbers from 1 for red, green and blue, "
            "such as 4,3,2, or one for grey"
        )
    return bands
