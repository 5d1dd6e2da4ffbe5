"""What a network that was tuned says of a few images that were held out, and at which stage it is cut for tuning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headstart.data.splits import hold_out
from headstart.errors import OptionError, nearest
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints
from headstart.heads.taps import Taken
from headstart.tasks.placed import How, Views
from headstart.trunk.backbone import made_by
from headstart.trunk.network import Backbone, block_names

AUTO = 0.5  # share of the maps, from the top, whose stages learn where nobody says otherwise
WORDS = ("auto", "last", "all")


def taken(blocks: Blocks, layers: Sequence[Layer], rows: Ints) -> Blocks:
    """The maps of these rows, read as they are asked for: all of them may be more than memory holds."""
    return {layer.block: cast(Any, Taken(blocks[layer.block], rows)) for layer in layers}


def maps_by(backbone: Backbone, views: Views, rows: Ints) -> Blocks:
    """The maps that this network makes of the images of these rows, in float16 as the store has them, one at a time in
    torch: (row, ...)."""
    import torch

    from headstart.trunk.module import Trunk

    trunk = Trunk(backbone).eval()
    found: dict[str, list[np.ndarray]] = {name: [] for name in block_names(backbone)}
    with torch.inference_mode():
        for row in rows:
            said = trunk(torch.from_numpy(views.pixels(np.array([row]))))
            for name, block in zip(found, said, strict=True):
                found[name].append(block.float().numpy().reshape(1, -1).astype(np.float16))
    return {name: np.concatenate(some) for name, some in found.items() if name.endswith("/map")}


def checkpoint_of(views: Views, rows: Ints, how: How, truth: Iterable[bytes], what: str) -> Any:
    """Where a training of these rows goes on from when it was killed: all that changes its result is in the name of the
    file. `truth`: of these rows, as bytes; `what`: which training. None where the run keeps nothing."""
    if how.folder is None:
        return None
    from headstart.finetune.checkpoint import Checkpoint

    digest = hashlib.blake2b(digest_size=16)
    for part in (*(views.keys[row].encode() for row in rows), *truth):
        digest.update(part + b"\0")
    b = views.backbone
    about = {
        "what": what,
        "network": [b.name, b.weights_hash, b.preprocess.to_json()],
        "maps": [[layer.block, *layer.shape] for layer in views.layers],
        "images and truth": [digest.hexdigest(), *views.targets.names],
        "how": [how.tune, how.budget, how.epochs, how.flips, how.augment, how.device, views.seed],
        "made by": made_by(),
    }
    return Checkpoint(Path(how.folder), about)


def held_out(views: Views, rows: Ints, strata: Ints, share: float, least: int) -> NDArray[np.bool_]:
    """(row,): of these rows those that are held out, about `share` of their groups; none where that would be fewer than
    `least` images."""
    groups, keys = views.groups[rows], [views.keys[row] for row in rows]
    if len(np.unique(groups)) * share < least:
        return np.zeros(len(rows), dtype=bool)
    return hold_out(strata, groups, share, views.seed, keys)


def unjudged(tune: str, held: int) -> tuple[str, ...]:
    """What is said of a tuning that was asked for where no images are held out to show whether it pays."""
    said = f"--tune {tune} did nothing: too few images to hold some out, which would show whether it pays"
    return () if held or tune == "none" else (said,)


def cut_named(tune: str, places: Sequence[str], share: float = AUTO) -> str:
    """The place above whose map the network learns, of those that are read, from low to high; `share` of them, from the
    top, learn where nobody says otherwise. Raises OptionError for a word that means none."""
    below = list(places[:-1])
    if tune == "last":
        return below[-1]
    if tune == "all":
        return below[0]
    if tune == "auto":
        return below[int(len(below) * (1 - share))]
    if tune in below:
        return tune
    raise OptionError(
        f"--tune {tune} is not allowed here{nearest(tune, [*WORDS, *below])}: one of {', '.join(WORDS)}, or a place "
        f"above whose map the network learns, {', '.join(below)}"
    )
