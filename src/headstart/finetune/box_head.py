"""The head that finds things, as the story and saved models hold it: data, until it is asked for answers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart.errors import BundleError
from headstart.heads.box_answers import OVERLAP, answered
from headstart.heads.maps import Layer

if TYPE_CHECKING:
    import torch

    from headstart.finetune.box_layers import BoxLayers

Floats = npt.NDArray[np.float32]
Blocks = Mapping[str, npt.NDArray[np.floating]]
Frame = tuple[int, int]  # (height, width) px of what the network sees
CHUNK = 8  # images whose maps go through at a time
MOST_WIDTH = 1024  # channels of a head that is read


@dataclass(frozen=True, eq=False)
class BoxHead:
    """`maps`: what it reads, fine to coarse, of pictures of a `frame`; `weights`: of its layers, `width` channels wide,
    by torch's names. Of boxes of a class that overlap by more than `overlap`, the best one stays. From which score on
    a box is shown, and how boxes are counted, is the model's rule."""

    maps: tuple[Layer, ...]
    frame: Frame
    n_classes: int
    width: int
    weights: Mapping[str, npt.NDArray[np.generic]] = field(repr=False)
    overlap: float = OVERLAP

    def outputs(self, blocks: Blocks) -> Floats:
        """(image, 300, 6): x1, y1, x2, y2 in px of the frame, score in 0..1 (0: no box), class; best first."""
        n = len(blocks[self.maps[0].block])
        found = [self._some(blocks, np.arange(n)[at : at + CHUNK]) for at in range(0, n, CHUNK)]
        return np.concatenate(found)

    def _some(self, blocks: Blocks, rows: npt.NDArray[np.integer]) -> Floats:
        import torch

        with torch.inference_mode():
            read = [torch.from_numpy(m.grid(blocks[m.block][rows]).astype(np.float32)) for m in self.maps]
            logits, boxes = self._asked(read)
        scores = logits.sigmoid().numpy()
        pairs = zip(boxes.numpy(), scores, strict=True)
        return np.stack([answered(box, score, self.frame, self.overlap) for box, score in pairs])

    @cached_property
    def module(self) -> BoxLayers:
        """In torch, ready to answer."""
        import torch

        layers = empty_layers(self.maps, self.n_classes, self.width)
        layers.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in self.weights.items()})
        return layers.eval().requires_grad_(False)

    @cached_property
    def _asked(self) -> Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, torch.Tensor]]:
        """The same with the channels of a place side by side, in which depthwise convolutions take half the time."""
        import torch

        last = torch.channels_last
        layers = copy.deepcopy(self.module).to(memory_format=last)
        return lambda maps: layers([x.contiguous(memory_format=last) for x in maps], self.frame)

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """What a saved model keeps."""
        return dict(self.weights)

    def described(self) -> dict[str, Any]:
        """The rest of it, which JSON can hold."""
        return {
            "kind": "boxes",
            "maps": [{"block": layer.block, "shape": list(layer.shape)} for layer in self.maps],
            "frame": list(self.frame),
            "n_classes": self.n_classes,
            "width": self.width,
            "overlap": self.overlap,
        }


def empty_layers(maps: Sequence[Layer], n_classes: int, width: int) -> BoxLayers:
    """The layers that read these maps, before they have learned."""
    from headstart.finetune.box_layers import BoxLayers

    return BoxLayers([layer.shape[0] for layer in maps], n_classes, width)


def read_box_head(described: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[np.generic]]) -> BoxHead:
    """The inverse of `described` and `tensors`. Raises BundleError where they are not what was written."""
    try:
        head = BoxHead(
            maps=tuple(_layer(one["block"], one["shape"]) for one in described["maps"]),
            frame=_whole(described["frame"], 2),
            n_classes=_whole([described["n_classes"]], 1)[0],
            width=_whole([described["width"]], 1)[0],
            weights=dict(tensors),
            overlap=_share(described["overlap"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the head that finds things is damaged ({error}): copy the model again") from None
    _check(head)
    return head


def _layer(block: Any, shape: Any) -> Layer:
    if not isinstance(block, str):
        raise ValueError(f"{block!r} is no name of a block")
    return Layer(block, _whole(shape, 3))  # type: ignore[arg-type]


def _whole(values: Any, n: int) -> Any:
    found = tuple(values)
    if len(found) != n or any(type(v) is not int or not 1 <= v <= 2**20 for v in found):
        raise ValueError(f"{str(values)[:80]}: {n} whole numbers from 1")
    return found


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{str(value)[:80]}: a number in 0..1")
    return float(value)


def _check(head: BoxHead) -> None:
    """Raises BundleError where the numbers do not fit each other."""
    reason = ""
    if not head.maps or head.width > MOST_WIDTH:
        reason = f"{len(head.maps)} maps, width {head.width}"
    else:
        wanted = {
            k: tuple(v.shape) for k, v in empty_layers(head.maps, head.n_classes, head.width).state_dict().items()
        }
        found = {k: v.shape for k, v in head.weights.items()}
        odd = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        odd += sorted(k for k, v in head.weights.items() if not np.isfinite(v).all())
        reason = f"{odd[0]} is missing, of another shape, or no number" if odd else ""
    if reason:
        raise BundleError(f"the head that finds things is damaged ({reason}): copy the model again")
