"""What the part above a cut reads: stored activations, a random view each, or activations made as they are needed.

View 0 is the image itself; what is judged or stops a training is never another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headstart.data import images
from headstart.data.table import Table
from headstart.errors import DataError, ImageError, OutputError
from headstart.files.cores import n_cores
from headstart.trunk.engine import Bytes, Engine
from headstart.trunk.features import check_unchanged
from headstart.trunk.network import Backbone
from headstart.trunk.store import Store

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]
View = Callable[[npt.NDArray[np.uint8], str, int], npt.NDArray[np.uint8]]  # pixels, content hash, number -> pixels


class AtCut(Protocol):
    """Activations at a cut, (image, channel, height, width) or (image, channel), in float32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""

    def still(self, rows: Ints) -> Floats:
        """Of these images as they are."""

    def viewed(self, rows: Ints, epoch: int) -> Floats:
        """Of their random views for this epoch; in epoch 0 of the images as they are."""


@dataclass(frozen=True)
class Shelved:
    """Where activations lie in the cache: the key of the store of each view, the pictures as they are first; the block
    that they are in, and the content hash of each row."""

    root: Path
    keys: tuple[Mapping[str, object], ...]
    block: str
    hashes: tuple[str, ...] = field(repr=False)

    def views(self) -> list[npt.NDArray[np.floating]]:
        """Of each view (row, feature). Raises OutputError where they are not there."""
        found = []
        for key in self.keys:
            store = Store(self.root, key)
            there = store.read(self.hashes) if all(name in store for name in self.hashes) else None
            if there is None:
                raise OutputError(f"activations are missing in the cache {self.root}: give the same command again")
            found.append(there.blocks[self.block])
        return found


@dataclass(frozen=True)
class Stored:
    """values (row, feature) of the images as they are; `views`: the same of random views of them; `places` (image,):
    the row of each image, -1 where it has none; None: its own number. `shelved`: where another process finds them."""

    shape: tuple[int, ...]
    values: npt.NDArray[np.floating] = field(repr=False)
    views: tuple[npt.NDArray[np.floating], ...] = field(default=(), repr=False)
    places: Ints | None = field(default=None, repr=False)
    shelved: Shelved | None = field(default=None, repr=False)

    def still(self, rows: Ints) -> Floats:
        return self._of(self.values, rows)

    def viewed(self, rows: Ints, epoch: int) -> Floats:
        turn = epoch % (len(self.views) + 1)
        return self._of(self.views[turn - 1] if turn else self.values, rows)

    def _of(self, values: npt.NDArray[np.floating], rows: Ints) -> Floats:
        places = rows if self.places is None else self.places[rows]
        return values[places].astype(np.float32).reshape(-1, *self.shape)


@dataclass(frozen=True)
class Live:
    """Decoded, varied and taken through the frozen part (`engine`; None: there is none, the cut is at the input) each
    time. `view`: None for no random views; `hashes`: content hashes of the table's images."""

    shape: tuple[int, ...]
    table: Table
    hashes: tuple[str, ...] = field(repr=False)
    backbone: Backbone
    engine: Engine | None
    view: View | None

    def still(self, rows: Ints) -> Floats:
        return self._made(rows, 0)

    def viewed(self, rows: Ints, epoch: int) -> Floats:
        return self._made(rows, epoch if self.view else 0)

    def _made(self, rows: Ints, number: int) -> Floats:
        def pixels(row: int) -> npt.NDArray[np.uint8]:
            array = self._read(row)
            return self.view(array, self.hashes[row], number) if number and self.view else array

        with ThreadPoolExecutor(n_cores(), thread_name_prefix="decode") as pool:
            decoded = np.stack(list(pool.map(pixels, map(int, rows))))
        return normalised(decoded, self.backbone) if self.engine is None else self._through(self.engine, decoded)

    def _read(self, row: int) -> npt.NDArray[np.uint8]:
        """Raises DataError where the image is gone or is another picture than it was."""
        name = str(self.table.names[row])
        try:
            source = self.table.read(row)
            check_unchanged(name, self.hashes[row], images.content_hash(source))
            return images.load(source, self.backbone.preprocess).array
        except ImageError as error:
            raise DataError(f"{name} could be read before and cannot now ({error}): start again") from None

    def _through(self, engine: Engine, pixels: Bytes) -> Floats:
        n, size = len(pixels), engine.batch
        whole = np.concatenate([pixels, pixels[:1].repeat(-n % size, axis=0)])
        out = np.empty((len(whole), *self.shape), np.float32)

        def deliver(at: int, found: Floats) -> None:
            out[at : at + size] = found.reshape(-1, *self.shape)

        engine.run(((at, whole[at : at + size]) for at in range(0, len(whole), size)), deliver)
        return out[:n]


def normalised(pixels: Bytes, backbone: Backbone) -> Floats:
    """(image, height, width, 3) -> (image, 3, height, width), as the network takes them."""
    mean, std = (np.array(v, np.float32) for v in (backbone.preprocess.mean, backbone.preprocess.std))
    x = pixels.astype(np.float32)
    x -= mean * 255
    x /= std * 255
    return np.moveaxis(x, -1, 1)
