"""How masks are learned: a head in closed form, a decoder trained on the same maps, the better of the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.masks import MaskTruth
from headstart.heads.material import Ints, rows_of
from headstart.heads.places import Layer, fit_places, read_places
from headstart.tasks.placed import How, PlacedHead, Size, Taught, Views

KINDS = ("places",)


def learn(views: Views, rows: Ints, how: How) -> Taught:
    """A head for the pictures of these rows."""
    truth = views.targets.take(rows)
    assert isinstance(truth, MaskTruth)
    sizes = views.sizes[rows]
    maps = tuple(Layer(layer.block, layer.shape) for layer in views.layers)

    def mask_of(image: int) -> NDArray[np.uint8]:
        return truth.mask(image, (int(sizes[image, 0]), int(sizes[image, 1])))

    blocks = rows_of(views.blocks, rows)
    head = fit_places(blocks, maps, mask_of, views.groups[rows], len(truth.names), views.seed)
    return Taught(head, {})


def read(
    described: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], names: tuple[str, ...], frame: Size
) -> PlacedHead:
    return read_places(described, tensors, len(names))
