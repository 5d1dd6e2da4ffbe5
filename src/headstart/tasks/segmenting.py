"""How masks are learned: a head in closed form, a decoder trained on the same maps, the network's stages with it; which
is kept, images that teach and were held out decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.data.masks import MaskTruth
from headstart.data.placing import numbers_in
from headstart.data.targets import Targets
from headstart.data.zoomed import Zoom
from headstart.finetune.decoded import Decoded, read_decoded
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints, rows_of
from headstart.heads.pointwise import Pointwise, fit_pointwise, read_pointwise
from headstart.judge.segments import MIOU, segment_marks
from headstart.judge.summaries import value
from headstart.recipe import Setting
from headstart.tasks.held_maps import checkpoint_of, cut_named, held_out, maps_by, taken, unjudged
from headstart.tasks.placed import How, PlacedHead, Size, Taught, Views
from headstart.tasks.task import Tried
from headstart.trunk.layers import INPUT

KINDS = ("pointwise", "decoder")
HELD_OUT = 0.15  # of the images that teach: they choose the head
LEAST_HELD = 4  # images: fewer choose nothing, and the closed form is taken
# of a decoder, and of the network tuned with it, of 4 images each, where neither --budget nor --epochs says how long:
# camvid, 170 CPU s, and 780 more at 0.23 a view
STEPS = 850
SHARE = 0.8  # of each side of the frame that a view has: a third less work a step
# --augment -> least and largest scale of things in a view; most change of its light
SCALES = {"photo": (0.8, 1.6), "aerial": (0.8, 1.6), "medical": (0.8, 1.25), "document": (0.8, 1.25)}
LIGHT = {"photo": 0.3, "aerial": 0.2, "medical": 0.1, "document": 0.15}
LEAST_EPOCHS, MOST_EPOCHS = 4, 60
Losses = tuple[tuple[float, float | None], ...]  # of the epochs: of training, of held-out images where known
CLOSED, DECODER = "ridge at each place, in closed form", "a decoder on the frozen network's maps"


def masks_of(targets: Targets) -> MaskTruth:
    """Raises TypeError for the targets of another task."""
    if not isinstance(targets, MaskTruth):
        raise TypeError(f"{type(targets).__name__} are no masks")
    return targets


@dataclass(frozen=True, eq=False)
class _Lesson:
    """Images that teach, `rows` of the views: `teach` and `held` are places among them."""

    views: Views
    rows: Ints
    truth: MaskTruth
    maps: tuple[Layer, ...]
    teach: Ints
    held: Ints

    def mask(self, image: int) -> NDArray[np.uint8]:
        size = self.views.sizes[self.rows[image]]
        return self.truth.mask(image, (int(size[0]), int(size[1])))

    def closed(self, images: Ints) -> Pointwise:
        """The head in closed form of these."""
        v, rows = self.views, self.rows[images]
        return fit_pointwise(
            taken(v.blocks, self.maps, rows),
            self.maps,
            lambda k: self.mask(int(images[k])),
            v.groups[rows],
            len(self.truth.names),
            v.seed,
        )

    def checkpoint(self, how: How, what: str) -> Any:
        texts = (str(self.truth.texts[image]).encode() for image in self.teach)
        return checkpoint_of(self.views, self.rows[self.teach], how, texts, what)

    def quality(self, head: PlacedHead, blocks: Blocks | None = None) -> float:
        """The mean IoU of the held-out images; `blocks`: their maps, where another network made them."""
        given = self.views.blocks if blocks is None else blocks
        places = self.rows[self.held] if blocks is None else np.arange(len(self.held))
        mine = {layer.block: given[layer.block] for layer in head.maps}
        pairs = []
        for place, image in zip(places, self.held, strict=True):
            true = self.mask(int(image))
            output = head.outputs(rows_of(mine, np.array([place])))[0]
            pairs.append((true, numbers_in(output, (true.shape[0], true.shape[1]))))
        return value(MIOU, segment_marks(pairs, len(self.truth.names))) or 0.0


def learn(views: Views, rows: Ints, how: How) -> Taught:
    """The best head for the images of these rows."""
    lesson = _lesson(views, rows)
    cut = None if how.tune == "none" else _cut(lesson, how)
    every = np.arange(len(rows))
    untuned = unjudged(how.tune, len(lesson.held))
    if not len(lesson.held):
        head = lesson.closed(every)
        few = f"{counted(len(rows), 'image')}: too few to hold some out, so that the closed form is taken as it is"
        return Taught(head, {}, settings=(_closed_setting(head),), remarks=(few, *untuned))
    closed = lesson.closed(lesson.teach)
    found = {CLOSED: lesson.quality(closed)}
    decoder, losses = _decoder(lesson, closed, how)
    found[DECODER] = lesson.quality(decoder)
    best = max(found, key=found.__getitem__)
    kept: PlacedHead = decoder if best == DECODER else lesson.closed(every)
    settings = [_closed_setting(closed), _decoder_setting(decoder, how)]
    frozen = _told(lesson, found, kept, settings, losses)
    return frozen if cut is None else _tuned(lesson, frozen, found, decoder, cut, how)


def _told(
    lesson: _Lesson, found: Mapping[str, float], head: PlacedHead, settings: Sequence[Setting], losses: Losses
) -> Taught:
    """The head that is kept: the best of those `found`, by the mean IoU of the held-out images."""
    best = max(found, key=found.__getitem__)
    tried = tuple(Tried(name, 1 - iou, iou, name == best) for name, iou in found.items())
    said = f"highest mean IoU of {counted(len(lesson.held), 'held-out image')}"
    return Taught(head, {}, tried, (Setting("kept", best, said), *settings), (), losses)


def _tuned(lesson: _Lesson, frozen: Taught, found: Mapping[str, float], decoder: Decoded, cut: str, how: How) -> Taught:
    """The network tuned with its decoder, where the held-out images show it to be better; else what was there before,
    with what was tried."""
    tuned, named, setting = _tune(lesson, decoder, cut, how)
    iou = lesson.quality(tuned.head, maps_by(tuned.backbone, lesson.views, lesson.rows[lesson.held]))
    settings, every = (*frozen.settings[1:], setting), {**found, named: iou}
    if iou <= max(found.values()):
        return _told(lesson, every, frozen.head, settings, frozen.losses)
    losses = (*frozen.losses, *((loss, None) for loss in tuned.learned.losses))
    taught = _told(lesson, every, tuned.head, settings, losses)
    return replace(taught, backbone=tuned.backbone, frozen=frozen)


def _lesson(views: Views, rows: Ints) -> _Lesson:
    truth = masks_of(views.targets).take(rows)
    held = held_out(views, rows, truth.strata, HELD_OUT, LEAST_HELD)
    return _Lesson(views, rows, truth, views.layers, np.flatnonzero(~held), np.flatnonzero(held))


def _material(lesson: _Lesson, how: How, at: Ints) -> Any:
    """Of the images at these places, in views of their own rows."""
    from headstart.finetune.segmenter import Material

    v, rows = lesson.views, lesson.rows[at]
    views = [taken(v.blocks, lesson.maps, rows)]
    views += [v.flipped(rows, True, False)] if (True, False) in how.flips else []
    n = len(lesson.truth.names)
    return Material(tuple(views), lesson.maps, lambda k: lesson.mask(int(at[k])), np.arange(len(rows)), n)


def _decoding(how: How, n: int) -> Any:
    from headstart.finetune.decoding import Decoding

    if how.budget is not None:
        return Decoding(seconds=how.budget)
    return Decoding(epochs=how.epochs or int(np.clip(round(STEPS * 4 / max(1, n)), LEAST_EPOCHS, MOST_EPOCHS)))


def _decoder(lesson: _Lesson, closed: Pointwise, how: How) -> tuple[Decoded, Losses]:
    from headstart.finetune.segmenter import fit_decoder

    material, decoding = _material(lesson, how, lesson.teach), _decoding(how, len(lesson.teach))
    kept = lesson.checkpoint(how, "decoder")
    head, learned = fit_decoder(material, closed, decoding, seed=lesson.views.seed, checkpoint=kept, bar=how.bar)
    return head, tuple((loss, None) for loss in learned.losses)


def _cut(lesson: _Lesson, how: How) -> str:
    """Above which place the network is to learn, known to be possible before anything has learned."""
    from headstart.finetune.segment_tuning import check_tunable

    cut = cut_named(how.tune, [INPUT, *(layer.block.removesuffix("/map") for layer in lesson.maps)], share=1.0)
    check_tunable(lesson.views.backbone, lesson.maps)
    return cut


def _tune(lesson: _Lesson, decoder: Decoded, cut: str, how: How) -> tuple[Any, str, Setting]:
    """(what was tuned, what it is called, how it learned)."""
    from headstart.finetune.segment_tuning import Pictures, tune_segmenter

    views, rows = lesson.views, lesson.rows[lesson.teach]
    zoom = zoom_of(how.augment, views.frame, lesson.maps)
    found = tune_segmenter(
        views.backbone,
        _material(lesson, replace(how, flips=()), lesson.teach),
        Pictures(lambda some: views.pixels(rows[some]), zoom, how.flips),
        decoder,
        cut,
        _decoding(how, len(rows)),
        seed=views.seed,
        checkpoint=lesson.checkpoint(how, f"above {cut}"),
        bar=how.bar,
    )
    above = "from its pixels on" if cut == INPUT else f"above {cut}"
    shown = f"views of {zoom.size[1]} x {zoom.size[0]} px at {zoom.scale[0]:g} to {zoom.scale[1]:g} times the size"
    setting = Setting("tuning", f"{above}, {_how_long(found.head, how)}", f"{shown}, drawn anew at each step")
    return found, f"the network tuned {above}, with its decoder", setting


def zoom_of(kind: str, frame: Size, maps: Sequence[Layer]) -> Zoom:
    """Views of pictures of a kind (--augment): a part of the frame, in multiples of the coarsest map's cells."""
    if kind == "none":
        return Zoom(frame)
    cells = min((layer.shape[1:] for layer in maps), key=lambda grid: grid[0] * grid[1])
    height, width = (whole // n * max(1, round(SHARE * n)) for whole, n in zip(frame, cells, strict=True))
    return Zoom((height, width), SCALES[kind], LIGHT[kind])


def _closed_setting(head: Pointwise) -> Setting:
    how = "left-out images choose the penalty; classes weigh as their frequency to the power -1/2"
    return Setting("closed form", f"ridge on {counted(len(head.maps), 'map')}, penalty {head.penalty:g}", how)


def _decoder_setting(head: Decoded, how: How) -> Setting:
    n = sum(int(np.prod(t.shape)) for t in head.tensors().values())
    told = f"a pyramid of {n:,} numbers, {_how_long(head, how)}"
    return Setting("decoder", told, "Lin et al. 2017; starts from the closed form")


def _how_long(head: Decoded, how: How) -> str:
    return f"{head.seconds:.0f} s, set by --budget" if how.budget is not None else f"{head.epochs:.3g} epochs"


def read(
    described: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], names: tuple[str, ...], frame: Size
) -> PlacedHead:
    """The head of a saved model. Raises KeyError, TypeError, ValueError."""
    reader = read_pointwise if described["kind"] == "pointwise" else read_decoded
    try:
        return reader(described, tensors, len(names))
    except ValueError as error:
        raise ValueError(f"its head {error}") from None
