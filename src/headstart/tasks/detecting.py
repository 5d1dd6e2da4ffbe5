"""How boxes are learned: a head on stored maps and their flipped views; held-out pictures choose its scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.data.boxes import BoxTruth
from headstart.data.placing import to_frame, to_picture
from headstart.data.targets import Targets
from headstart.errors import DataError
from headstart.finetune.box_head import BoxHead, read_box_head
from headstart.heads.box_counts import Counting, counting_of
from headstart.heads.material import Blocks, Ints, rows_of
from headstart.judge.box_score import MAP50, best_scores
from headstart.judge.boxes import box_marks
from headstart.judge.summaries import value
from headstart.recipe import Setting
from headstart.tasks.held_maps import checkpoint_of, cut_named, held_out, maps_by, taken, unjudged
from headstart.tasks.placed import How, PlacedHead, Size, Taught, Views
from headstart.tasks.task import Rule, Tried

if TYPE_CHECKING:
    from headstart.finetune.paced import Pace, Passed

KINDS = ("boxes",)
FROZEN = "boxes on the frozen network's maps"
SHOWN, MEAN = "shown_from", "mean_boxes"  # of a rule, each a number a class, as the next two: `heads/box_counts.py`
COUNTED, FACTOR = "counted_from", "count_factor"  # the latter 0 where boxes are numbered
HELD_OUT = 0.15  # of the pictures that teach: they choose scores, and whether a tuned network is kept
LEAST_HELD = 3  # pictures: fewer choose nothing, and scores of one half are taken
HALF = 0.5
Loss = tuple[float, float | None]  # of an epoch: of what teaches, held out
EPOCHS = 20  # of 250 pictures, 200 CPU seconds of the default network at 640 x 480 px; as many steps of fewer or more
STEPS = EPOCHS * 250 // 8
MOST_EPOCHS = 60  # with 150 a model of 12 made pictures found a quarter of what it found with 60


def boxes_of(targets: Targets) -> BoxTruth:
    """Raises TypeError for the targets of another task."""
    if not isinstance(targets, BoxTruth):
        raise TypeError(f"{type(targets).__name__} are no boxes")
    return targets


@dataclass(frozen=True, eq=False)
class _Held:
    """Pictures that were held out of those that teach: their rows of the views, and their boxes; rows of the others."""

    views: Views
    rows: Ints
    truth: BoxTruth
    taught: Ints

    def map50(self, head: BoxHead, blocks: Blocks | None = None) -> float:
        """`blocks`: their maps, where another network made them."""
        return value(MAP50, box_marks(self.truth, self._answers(head, blocks))) or 0.0

    def rule(self, head: BoxHead, mean: NDArray[np.float64], blocks: Blocks | None = None) -> Rule:
        """As `rule_of`, by what the head answers for these. mean (class,): boxes a picture that teaches."""
        return rule_of(self._answers(head, blocks) if len(self.rows) else [], self.truth, mean)

    def _answers(self, head: BoxHead, blocks: Blocks | None) -> list[NDArray[np.float64]]:
        """Boxes (n, 6) in px of the pictures, of all scores."""
        v, given = self.views, self.views.blocks if blocks is None else blocks
        mine = {layer.block: given[layer.block] for layer in head.maps}
        found = []
        for place, row in zip(self.rows if blocks is None else np.arange(len(self.rows)), self.rows, strict=True):
            output = head.outputs(rows_of(mine, np.array([place])))[0]
            found.append(boxes_in(output, (int(v.sizes[row, 0]), int(v.sizes[row, 1])), v.frame))
        return found


def rule_of(answers: Sequence[NDArray[np.float64]], truth: BoxTruth, mean: NDArray[np.float64]) -> Rule:
    """The scores that suit the boxes (n, 6) that were answered for pictures that taught nothing: the best F1 to show a
    box, the least error to count; one half for a class that they do not show. mean (class,): what always saying the
    mean says."""
    shown, counting = np.full(len(mean), HALF), [Counting(HALF) for _ in mean]
    if len(answers):
        things = truth.matrix().astype(np.int64)
        shown = np.where(things.any(axis=0), best_scores(box_marks(truth, answers)), HALF)
        counting = [counting_of(scores_of(answers, kind), things[:, kind]) for kind in range(len(mean))]
    factors = [one.factor or 0.0 for one in counting]
    named = ((SHOWN, shown), (COUNTED, [one.least for one in counting]), (FACTOR, factors), (MEAN, mean))
    return {name: tuple(float(v) for v in values) for name, values in named}


def boxes_in(output: NDArray[np.float32], size: Size, frame: Size) -> NDArray[np.float64]:
    """Boxes (n, 6) in px of the picture, of size (height, width), from a head's in px of the frame; a score of 0 is no
    box."""
    found = output[output[:, 4] > 0].astype(np.float64)
    placed = np.clip(to_picture(found[:, :4], size, frame), 0, [size[1], size[0], size[1], size[0]])
    return np.concatenate([placed, found[:, 4:]], axis=1)


def scores_of(answers: Sequence[NDArray[np.float64]], kind: int) -> NDArray[np.float64]:
    """(image, box): the scores of boxes (n, 6) of one class, 0 for all others."""
    found = np.zeros((len(answers), max(1, *(len(boxes) for boxes in answers), 1)))
    for k, boxes in enumerate(answers):
        found[k, : len(boxes)] = np.where(boxes[:, 5] == kind, boxes[:, 4], 0)
    return found


def counts_of(found: NDArray[np.float64], rule: Rule, n: int) -> NDArray[np.float64]:
    """(class,): how many things of n classes the boxes (n, 6) of one image mean."""
    least, factor = (rule.get(name, (0.0,) * n) for name in (COUNTED, FACTOR))
    ways = [Counting(least[k], factor[k] or None) for k in range(n)]
    return np.array([way.of(scores_of([found], k))[0] for k, way in enumerate(ways)])


def learn(views: Views, rows: Ints, how: How) -> Taught:
    """A head for the pictures of these rows. Raises DataError where none of them shows anything."""
    from headstart.finetune.box_training import train_boxes

    truth = boxes_of(views.targets).take(rows)
    if not truth.matrix().any():
        raise DataError("no picture that teaches has a box: nothing can be learned")
    apart = held_out(views, rows, truth.strata, HELD_OUT, LEAST_HELD)
    held, teach = _Held(views, rows[apart], truth.take(apart), rows[~apart]), np.flatnonzero(~apart)
    if how.tune != "none":
        cut_named(how.tune, [layer.block.removesuffix("/map") for layer in views.layers])  # a wrong word is said first
    untuned = unjudged(how.tune, len(held.rows))
    lesson, pace, losses = _lesson(views, rows, how), _pace(how, len(teach)), list[Loss]()
    told = _telling(how, "train the head", losses)
    kept = checkpoint_of(views, rows[teach], how, _as_bytes(truth.take(teach)), "boxes")
    head = train_boxes(lesson, teach, pace, seed=views.seed, arithmetic=_arithmetic(), told=told, checkpoint=kept)
    found = Taught(
        head=head,
        rule=held.rule(head, truth.take(teach).matrix().mean(axis=0)),
        settings=_settings(pace, head, len(held.rows), len(losses)),
        remarks=(*_remarks(apart, truth), *untuned),
        losses=tuple(losses),
    )
    if how.tune != "none" and len(held.rows):
        return _tuned(found, lesson, teach, held, how)
    mark = held.map50(head) if len(held.rows) else None
    return found if mark is None else replace(found, tried=(Tried(FROZEN, 1 - mark, mark, True),))


def _as_bytes(truth: BoxTruth) -> Iterator[bytes]:
    for boxes, labels, hard in zip(truth.boxes, truth.labels, truth.hard, strict=True):
        yield boxes.tobytes() + labels.tobytes() + hard.tobytes()


def _tuned(found: Taught, lesson: Any, teach: Ints, held: _Held, how: How) -> Taught:
    """The model whose upper stages learned too, where the held-out pictures show it to be better."""
    from headstart.finetune.box_tuning import tune_boxes

    head, views, losses = found.head, held.views, list[Loss]()
    assert isinstance(head, BoxHead)
    names = [layer.block.removesuffix("/map") for layer in lesson.maps]
    at = names.index(cut_named(how.tune, names)) + 1
    told, below = _telling(how, "tune the network", losses), replace(lesson, maps=lesson.maps[:at])
    pace, arithmetic, made = _pace(how, len(teach)), _arithmetic(), lesson.maps[at:]
    truth = _as_bytes(boxes_of(views.targets).take(held.taught))
    tuned = tune_boxes(
        views.backbone,
        below,
        teach,
        made,
        pace,
        head=head,
        seed=views.seed,
        arithmetic=arithmetic,
        told=told,
        checkpoint=checkpoint_of(views, held.taught, how, truth, f"boxes above {names[at - 1]}"),
    )
    blocks = maps_by(tuned.backbone, views, held.rows)
    before, after = held.map50(head), held.map50(tuned.head, blocks)
    better = after > before
    tried = (
        Tried(FROZEN, 1 - before, before, not better),
        Tried(f"the network tuned above {names[at - 1]}", 1 - after, after, better),
    )
    if not better:
        return replace(found, tried=tried)
    rule, whole = held.rule(tuned.head, np.asarray(found.rule[MEAN]), blocks), (*found.losses, *losses)
    return replace(found, head=tuned.head, rule=rule, tried=tried, losses=whole, backbone=tuned.backbone, frozen=found)


def read(
    described: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], names: tuple[str, ...], frame: Size
) -> PlacedHead:
    """The head of a saved model. Raises HeadstartError, or ValueError where it is for other classes or pictures."""
    head = read_box_head(described, tensors)
    if head.n_classes != len(names) or head.frame != frame:
        raise ValueError(f"its head is for {head.n_classes} classes in {head.frame}, needed: {len(names)} in {frame}")
    return head


def _lesson(views: Views, rows: Ints, how: How) -> Any:
    from headstart.finetune.box_training import Lesson, View

    flips = [View(taken(views.blocks, views.layers, rows))]
    flips += [View(views.flipped(rows, across, down), across, down) for across, down in how.flips]
    truth = boxes_of(views.targets).take(rows)
    placed = tuple(
        to_frame(boxes, (int(h), int(w)), views.frame).astype(np.float32)
        for boxes, (h, w) in zip(truth.boxes, views.sizes[rows], strict=True)
    )
    return Lesson(views.layers, views.frame, tuple(flips), replace(truth, boxes=placed))


def _arithmetic() -> Any:
    from headstart.finetune.arithmetic import BF16, CHANNELS_LAST
    from headstart.trunk.engine import cpu_has_bf16

    return BF16 if cpu_has_bf16() else CHANNELS_LAST


def _pace(how: How, n: int) -> Pace:
    from headstart.finetune.paced import Pace

    if how.budget is not None:
        return Pace(seconds=how.budget, clock=time.monotonic)
    return Pace(epochs=how.epochs or int(np.clip(round(STEPS * 8 / max(1, n)), 8, MOST_EPOCHS)))


def _telling(how: How, name: str, losses: list[Loss]) -> Callable[[Passed], None]:
    """Moves a bar of a hundred parts, and keeps the losses."""
    step, done = how.bar(name, 100), [0]

    def told(passed: Passed) -> None:
        losses.append((passed.loss, None))
        now = min(100, int(100 * passed.done))
        step(now - done[0])
        done[0] = now

    return told


def _settings(pace: Pace, head: BoxHead, n_held: int, n_epochs: int) -> tuple[Setting, ...]:
    maps = ", ".join(layer.block.removesuffix("/map") for layer in head.maps)
    n = sum(int(np.prod(w.shape)) for w in head.weights.values())
    told = f"{pace.seconds:.0f} s, set by --budget" if pace.seconds is not None else counted(n_epochs, "epoch")
    scores = (
        f"best F1 of {counted(n_held, 'held-out picture')}" if n_held else "one half: too few pictures to choose by"
    )
    return (
        Setting("head", f"FCOS on a pyramid of {maps}, {n:,} parameters", "Tian et al. 2019; Lin et al. 2017"),
        Setting("training", told, "one cycle that ends with its time (Smith 2018), moving average of the weights"),
        Setting("scores", scores, "from which a box is shown; counts have scores of their own, which err least"),
    )


def _remarks(held: NDArray[np.bool_], truth: BoxTruth) -> tuple[str, ...]:
    few = [n for n, k in zip(truth.names, truth.matrix().sum(axis=0), strict=True) if k < 20]
    found = [f"fewer than 20 boxes teach {', '.join(few[:8])}"] if few else []
    if not held.any():
        found.append("too few pictures to choose scores by: boxes are shown from one half on")
    return tuple(found)
