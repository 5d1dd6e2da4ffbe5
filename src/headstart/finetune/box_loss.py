"""Which places answer for which box, and how wrong they are.

Assignment aligned with the task (TOOD; Feng et al. 2021, section 3.2): of the places inside a box, those that say its
class best and draw it best answer for it. Their score should be how well they draw it; all others should say 0
(quality focal loss; Li et al. 2020). Edges are learned by generalised IoU (Rezatofighi et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812, its usual name

ANSWERING = 10  # places that answer for a box (TOOD takes 13, of five strides)
SCORE_POWER, OVERLAP_POWER = 0.5, 6.0  # of a place's score and overlap in how well it suits a box (YOLOv8's; TOOD 1, 6)
FOCUS = 2.0  # how much less what is nearly right counts (Li et al. 2020, section 4.1)
EDGES = 2.0  # weight of the edges against the scores, as in TOOD
TINY = 1e-9
LEAST = 1e-6  # of an overlap, so that its power is a number in float32
FLOOR = 0.1  # of how well a box counts as drawn by its best place: else what is far larger than all first guesses
# would have no weight, and would never be learned


@dataclass(frozen=True)
class Wanted:
    """What a batch should have said: `score` (image, place, class) in 0..1; `box` (image, place, 4) and `weight`
    (image, place), 0 where a place answers for nothing; `ignored` (image, place): inside a box that does not count."""

    score: torch.Tensor
    box: torch.Tensor
    weight: torch.Tensor
    ignored: torch.Tensor


@dataclass(frozen=True)
class Truth:
    """Boxes of a batch, padded: `boxes` (image, box, 4) px of the frame, `labels` (image, box) class numbers, -1 where
    there is none, `hard` (image, box): answered or not, it does not count."""

    boxes: torch.Tensor
    labels: torch.Tensor
    hard: torch.Tensor

    @property
    def there(self) -> torch.Tensor:
        """(image, box)."""
        return (self.labels >= 0) & ~self.hard


def overlap_of(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(...,): IoU and generalised IoU of boxes a and b (..., 4), which are broadcast."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    either = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1) + (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) - both
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    iou = both / (either + TINY)
    return iou, iou - (hull - either) / (hull + TINY)


@torch.no_grad()
def assigned(scores: torch.Tensor, boxes: torch.Tensor, middle: torch.Tensor, truth: Truth) -> Wanted:
    """What each place should say. scores (image, place, class), boxes (image, place, 4) are what it says now; middle
    (place, 2) where it is."""
    n, n_places, n_classes = scores.shape
    if not truth.labels.shape[1]:
        empty = scores.new_zeros(n, n_places)
        return Wanted(torch.zeros_like(scores), torch.zeros_like(boxes), empty, empty.bool())
    inside = _inside(middle, truth.boxes)  # (image, box, place)
    fits, overlap = _suiting(scores, boxes, truth, inside & truth.there[..., None])
    chosen = _best(fits, inside & truth.there[..., None])
    claims = chosen.sum(1)
    rival = F.one_hot(overlap.masked_fill(~chosen, -1).argmax(1), truth.labels.shape[1]).transpose(1, 2).bool()
    chosen &= rival | (claims <= 1)[:, None]
    quality = _quality(fits, overlap, chosen)
    weight, owner = quality.max(1)  # one box a place at most
    label = truth.labels.clamp(min=0).gather(1, owner)
    score = F.one_hot(label, n_classes).to(scores.dtype) * weight[..., None]
    box = truth.boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    ignored = (inside & (truth.hard & (truth.labels >= 0))[..., None]).any(1) & (weight == 0)
    return Wanted(score, box, weight, ignored)


def _suiting(
    scores: torch.Tensor, boxes: torch.Tensor, truth: Truth, allowed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(image, box, place): how well each allowed place suits a box, and how well it draws it; 0 for all others. Few of
    the pairs are allowed, so only those are computed."""
    image, box, place = allowed.nonzero(as_tuple=True)
    drawn = overlap_of(truth.boxes[image, box], boxes[image, place])[0].clamp(min=LEAST)
    said = scores[image, place, truth.labels[image, box]]
    fits, overlap = (scores.new_zeros(allowed.shape) for _ in range(2))
    fits[image, box, place] = said**SCORE_POWER * drawn**OVERLAP_POWER
    overlap[image, box, place] = drawn
    return fits, overlap


def _inside(middle: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(image, box, place): whether the middle of the cell lies in the box; one smaller than the finest cell is taken
    for as large, so that some cell is always its own."""
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    half = torch.maximum(half, middle[0])  # of the first cell of the finest map, half of each side
    (x, y), low, high = middle.T, (centre - half)[..., None], (centre + half)[..., None]
    across = (x >= low[:, :, 0]) & (x < high[:, :, 0])
    down = (y >= low[:, :, 1]) & (y < high[:, :, 1])
    return torch.logical_and(across, down)


def _best(fits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """(image, box, place): the allowed places that suit a box best."""
    top = fits.masked_fill(~allowed, -1).topk(min(ANSWERING, fits.shape[2]), 2).indices
    return torch.zeros_like(allowed).scatter_(2, top, torch.ones_like(top, dtype=torch.bool)) & allowed


def _quality(fits: torch.Tensor, overlap: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """(image, box, place) in 0..1: how well a place suits its box, the best one as well as it draws the box."""
    fits = fits * chosen
    best = fits.amax(2, keepdim=True)
    drawn = (overlap * chosen).amax(2, keepdim=True).clamp(min=FLOOR)
    return fits / best.clamp(min=1e-38) * drawn


def loss_of(logits: torch.Tensor, boxes: torch.Tensor, middle: torch.Tensor, truth: Truth) -> torch.Tensor:
    """How wrong a batch is, a number: scores and edges, each per well-drawn place."""
    scores = logits.sigmoid()
    wanted = assigned(scores.detach(), boxes.detach(), middle, truth)
    total = wanted.weight.sum().clamp(min=1.0)
    apart = F.binary_cross_entropy_with_logits(logits, wanted.score, reduction="none")
    focus = (wanted.score - scores).abs() ** FOCUS * ~wanted.ignored[..., None]
    own = wanted.weight > 0
    edges = (1 - overlap_of(boxes[own], wanted.box[own])[1]) * wanted.weight[own]
    return ((focus * apart).sum() + EDGES * edges.sum()) / total  # type: ignore[no-any-return]
