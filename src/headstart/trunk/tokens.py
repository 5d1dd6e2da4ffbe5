"""What the tokens of a vision transformer are, and the same network for another size of input.

A transformer cuts its input into square patches. Each is a token, row by row; before them may stand tokens of the whole
picture: the class token, and registers, which the network keeps notes in (Darcet et al. 2024). Only the patches have a
place, so that means and maps leave the others out.

Where a patch lies the network knows from a grid of learned vectors, or of angles. For another size of input that grid
is resampled once, bicubic, as timm does it for `img_size`: at the network's own size nothing changes by a bit. The
weights that are saved are those of its own grid.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("VisionTransformer", "Eva")  # timm's classes whose sizes were compared with `img_size` (tests/test_tokens.py)
QUARTERS = 4  # depths that are read: of DINOv2's dense heads (Oquab et al. 2023, section 7.4) the same share each


@dataclass(frozen=True)
class Tokens:
    """`patch`: its side in px. `prefix`: tokens before those of the patches; `has_class`: the first of them is the
    class token. `norm`: the module that the last block's tokens go through; "" where it changes nothing.
    `class_is_last`: the class token behind it is what the network's own classifier reads."""

    patch: int
    prefix: int
    has_class: bool
    norm: str
    class_is_last: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether an input of (height, width) px is cut without rest."""
        return all(side % self.patch == 0 for side in size)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of patches in an input of (height, width) px."""
        return size[0] // self.patch, size[1] // self.patch

    def count(self, size: tuple[int, int]) -> int:
        """Tokens of an input of (height, width) px, those before the patches too."""
        rows, columns = self.grid(size)
        return self.prefix + rows * columns

    def nearest(self, side: int) -> tuple[int, ...]:
        """The sides in px that are cut without rest below and above this one."""
        below = side // self.patch * self.patch
        return tuple(found for found in (below, below + self.patch) if found)


def tokens_of(described: Mapping[str, Any]) -> Tokens | None:
    """Of what timm says of a network (`maker.backbone_of`); None for what is no transformer of KINDS."""
    said = described.get("tokens")
    return None if said is None else Tokens(**said)


def tokens_in(network: Any) -> Tokens | None:
    """Of timm's network itself."""
    patches, pool = getattr(network, "patch_embed", None), getattr(network, "attn_pool", None)
    if type(network).__name__ not in KINDS or type(patches).__name__ != "PatchEmbed":
        return None
    high, wide = patches.patch_size  # type: ignore[union-attr]
    if high != wide or getattr(pool, "pos_embed", None) is not None:
        return None
    names = ("norm", "fc_norm")
    norm = next((name for name in names if any(True for _ in getattr(network, name).parameters())), "")
    has_class = network.cls_token is not None
    last = has_class and network.global_pool == "token" and norm == "norm"
    return Tokens(int(high), int(network.num_prefix_tokens), has_class, norm, last)


def depths(n_blocks: int) -> tuple[int, ...]:
    """The blocks that are read, numbered from 0: the last one of each quarter."""
    return tuple(sorted({max(0, round(n_blocks * k / QUARTERS) - 1) for k in range(1, QUARTERS + 1)}))


def at_size(network: Any, size: tuple[int, int]) -> Any:
    """timm's network for inputs of (height, width) px: itself where that is its own size, or where it is no transformer
    of KINDS; else a copy that shares its weights, and has positions of its own.

    Raises AssertionError where the input is not cut without rest, as timm does.
    """
    tokens = tokens_in(network)
    own = None if tokens is None else tuple(network.patch_embed.img_size)
    if tokens is None or own == tuple(size):
        return network
    assert tokens.fits(size), f"an input of {size[0]} x {size[1]} px is not cut into patches of {tokens.patch} px"
    found = copy.deepcopy(network, {id(p): p for p in network.parameters()})
    found.set_input_size(img_size=tuple(size))
    return found.train(network.training)
