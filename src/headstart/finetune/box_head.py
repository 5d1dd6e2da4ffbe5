"""The head that finds things, as the story and saved models hold it: data, until it is asked for answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart.data.boxes import BoxTruth
from headstart.errors import BundleError
from headstart.heads.box_answers import KIND, OVERLAP, SCORE, answered
from headstart.heads.box_counts import Counting, counting_of
from headstart.heads.maps import Layer
from headstart.judge.box_score import best_scores
from headstart.judge.boxes import box_marks

if TYPE_CHECKING:
    pass

Floats = npt.NDArray[np.float32]
Blocks = Mapping[str, npt.NDArray[np.floating]]
Frame = tuple[int, int]  # (height, width) px of what the network sees
CHUNK = 8  # images whose maps go through at a time
MOST_WIDTH = 1024  # channels of a head that is read
MOST_FACTOR = 1e6  # of a sum of scores that is read as a number of things


@dataclass(frozen=True, eq=False)
class BoxHead:
    """`maps`: what it reads, fine to coarse, of pictures of a `frame`; `weights`: of its layers, `width` channels wide,
    by torch's names. A box is shown from the score `shown` (class,) on, and `counted` (class,) says how many things
    boxes are; of boxes of a class that overlap by more than `overlap`, the best one stays."""

    maps: tuple[Layer, ...]
    frame: Frame
    n_classes: int
    width: int
    weights: Mapping[str, npt.NDArray[np.generic]] = field(repr=False)
    shown: tuple[float, ...]
    counted: tuple[Counting, ...]
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
            logits, boxes = self._layers(*read)
        scores = logits.sigmoid().numpy()
        pairs = zip(boxes.numpy(), scores, strict=True)
        return np.stack([answered(box, score, self.frame, self.overlap) for box, score in pairs])

    @cached_property
    def _layers(self) -> Any:
        import torch

        layers = empty_layers(self.maps, self.n_classes, self.width)
        layers.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in self.weights.items()})
        layers = layers.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        last = torch.channels_last
        return lambda *maps: layers([x.contiguous(memory_format=last) for x in maps], self.frame)

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
            "shown": list(self.shown),
            "counted": [[how.least, how.factor] for how in self.counted],
            "overlap": self.overlap,
        }

    def with_scores_of(self, answers: Floats, truth: BoxTruth) -> BoxHead:
        """The head with the scores that suit what it answered (image, 300, 6) for pictures that it has not learned
        from, whose `truth` is in px of the frame: the best F1 to show a box, the least error to count."""
        shown, counted = chosen(answers, truth)
        return replace(self, shown=shown, counted=counted)

    def counts(self, answers: Floats) -> npt.NDArray[np.float64]:
        """(image, class): how many things of each class these answers (image, 300, 6) mean."""
        return counts_by(self.counted, answers)


def chosen(answers: Floats, truth: BoxTruth) -> tuple[tuple[float, ...], tuple[Counting, ...]]:
    """What each class is shown from and counted by, see `BoxHead.with_scores_of`."""
    things = truth.matrix().astype(np.int64)
    shown = best_scores(box_marks(truth, listed(answers)))
    return _tuple(shown), tuple(counting_of(scores_of(answers, k), things[:, k]) for k in range(len(truth.names)))


def counts_by(counted: Sequence[Counting], answers: Floats) -> npt.NDArray[np.float64]:
    """(image, class): how many things of each class answers (image, 300, 6) mean."""
    return np.stack([how.of(scores_of(answers, k)) for k, how in enumerate(counted)], axis=1)


def listed(answers: Floats) -> list[Floats]:
    """Of each image the boxes that there are, (box, 6)."""
    return [own[own[:, SCORE] > 0] for own in answers]


def scores_of(answers: Floats, kind: int) -> Floats:
    """(image, box): the scores of boxes of one class, 0 for all others."""
    return np.where(answers[..., KIND] == kind, answers[..., SCORE], np.float32(0))


def _tuple(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def empty_layers(maps: Sequence[Layer], n_classes: int, width: int) -> Any:
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
            shown=_shares(described["shown"]),
            counted=tuple(_counting(*how) for how in described["counted"]),
            overlap=_shares([described["overlap"]])[0],
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


def _counting(least: Any, factor: Any) -> Counting:
    if factor is not None and (type(factor) is not float or not 0 <= factor <= MOST_FACTOR):
        raise ValueError(f"{factor!r} is no factor from 0 to {MOST_FACTOR:g}")
    return Counting(_shares([least])[0], factor)


def _shares(values: Any) -> tuple[float, ...]:
    found = tuple(values)
    if any(type(v) not in (int, float) or not (math.isfinite(v) and 0 <= v <= 1) for v in found):
        raise ValueError(f"{str(values)[:80]}: numbers in 0..1")
    return tuple(float(v) for v in found)


def _check(head: BoxHead) -> None:
    """Raises BundleError where the numbers do not fit each other."""
    reason = ""
    if not head.maps or head.width > MOST_WIDTH:
        reason = f"{len(head.maps)} maps, width {head.width}"
    elif {len(head.shown), len(head.counted)} != {head.n_classes}:
        reason = f"{head.n_classes} classes with {len(head.shown)} and {len(head.counted)} thresholds"
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
