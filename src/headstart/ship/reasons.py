"""The training images that an image looks like most: reasons for an answer that anybody can judge.

They are found among the images whose features are kept with a model (`heads/reference.py`), some hundred of all that
taught it; their names and labels stand in the model's own split.parquet. Where that file was taken away, or was
written for another model, and in models of before, nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.splits import read_split
from headstart.errors import DataError
from headstart.heads.reference import nearest
from headstart.heads.taps import Part
from headstart.ship.package import Loaded

SHOWN = 3  # training images named for each image


@dataclass(frozen=True)
class Similar:
    """A training image by its name and label; `cosine`: of its features with those of the image, as the head reads
    them."""

    name: str
    label: str
    cosine: float

    def to_json(self) -> dict[str, Any]:
        return {"path": self.name, "label": self.label, "similarity": round(self.cosine, 4)}


@dataclass(frozen=True, eq=False)
class Reasons:
    """Of the images kept, rows (row, feature) as `part` prepares them, names and labels (row,); `taught`: how many
    images taught the model in all."""

    part: Part
    rows: npt.NDArray[np.float32]
    names: npt.NDArray[np.object_]
    labels: npt.NDArray[np.object_]
    taught: int

    def of(self, features: npt.NDArray[np.floating]) -> tuple[Similar, ...]:
        """The nearest SHOWN of an image, nearest first; features (feature,) of the part's block."""
        (places,), (cosines,) = nearest(self.part.of(features[None]), self.rows, SHOWN)
        return tuple(
            Similar(str(self.names[k]), str(self.labels[k]), float(cosine))
            for k, cosine in zip(places, cosines, strict=True)
        )


def reasons_of(model: Loaded) -> Reasons | None:
    """What a saved model can name; None where it kept no images, or where their names are gone."""
    kept = model.reference
    if kept is None or kept.images is None or model.bundle is None:
        return None
    try:
        split = read_split(model.bundle.folder / "split.parquet")
    except DataError:
        return None
    if split.fingerprint != model.bundle.manifest.get("data_fingerprint") or kept.images.max() >= len(split.names):
        return None
    part = next(part for part in model.head.parts if part.block == kept.block)
    taught = int(np.isin(split.splits, ("train", "none")).sum())
    return Reasons(part, part.of(kept.rows), split.names[kept.images], split.labels[kept.images], taught)
