"""The head that finds things: what places answer for, what they draw, how it learns and what is answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from headstart.data.boxes import BoxTruth
from headstart.errors import BundleError
from headstart.finetune.box_head import BoxHead, read_box_head
from headstart.finetune.box_layers import BoxLayers, around, far_of, places
from headstart.finetune.box_loss import Truth, assigned, loss_of, overlap_of
from headstart.finetune.box_training import Lesson, View, all_places, mirrored, padded, train_boxes
from headstart.finetune.box_tuning import Tuned, tune_boxes
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.paced import Pace, Passed, share
from headstart.heads.box_answers import MOST, SCORE, answered, overlaps
from headstart.heads.box_counts import counting_of
from headstart.heads.maps import Layer
from headstart.judge.box_score import MAP50
from headstart.judge.boxes import box_marks
from headstart.judge.summaries import value
from headstart.tasks.detecting import HALF, MEAN, SHOWN, rule_of
from headstart.trunk.backbone import open_backbone
from headstart.trunk.module import Trunk
from headstart.trunk.network import whole_maps

FRAME = (64, 96)
MAPS = (Layer("fine/map", (3, 8, 12)), Layer("coarse/map", (5, 4, 6)))
SIDE = 14.0  # px of the things that are taught
CLASSES = 2


def seen(truth: BoxTruth, rng: np.random.Generator, across: bool = False, down: bool = False) -> dict[str, np.ndarray]:
    """Maps that show where things are: the class on the cells of their middle, on both grids, and noise."""
    found = {}
    for layer in MAPS:
        c, h, w = layer.shape
        grid = 0.1 * rng.standard_normal((len(truth.boxes), c, h, w))
        for i, boxes in enumerate(truth.boxes):
            for box, label in zip(mirrored(boxes, FRAME, across, down), truth.labels[i], strict=True):
                y, x = int((box[1] + box[3]) / 2 * h / FRAME[0]), int((box[0] + box[2]) / 2 * w / FRAME[1])
                grid[i, label, y, x] += 2
        found[layer.block] = grid.reshape(len(grid), -1).astype(np.float16)
    return found


def things(n: int, rng: np.random.Generator) -> BoxTruth:
    """Pictures with 0 to 3 squares each, of two classes, with room between them."""
    boxes, labels = [], []
    for _ in range(n):
        spots = rng.permutation(6)[: rng.integers(0, 4)]
        corner = np.stack([spots % 3 * 32.0 + 9, spots // 3 * 32.0 + 9], 1) + rng.uniform(-4, 4, (len(spots), 2))
        boxes.append(np.hstack([corner, corner + SIDE]).astype(np.float32))
        labels.append(rng.integers(0, CLASSES, len(spots)))
    hard = tuple(np.zeros(len(k), np.bool_) for k in labels)
    return BoxTruth(tuple(boxes), tuple(labels), hard, np.ones(n, np.bool_), ("one", "other"))


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    rng = np.random.default_rng(0)
    truth = things(48, rng)
    views = (View(seen(truth, rng)), View(seen(truth, rng, across=True), across=True))
    return Lesson(MAPS, FRAME, views, truth)


@pytest.fixture(scope="module")
def head(lesson: Lesson) -> BoxHead:
    return train_boxes(lesson, np.arange(32), Pace(epochs=24, rate=8e-3), width=16)


def truth_of(boxes: list[list[float]], labels: list[int], hard: list[bool] | None = None) -> Truth:
    return Truth(
        torch.tensor([boxes], dtype=torch.float32).reshape(1, -1, 4),
        torch.tensor([labels], dtype=torch.int64),
        torch.tensor([hard or [False] * len(labels)]),
    )


def first_guess(side: float = 16.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What 8 x 12 places say before they have learned: scores, squares around them, and where they are."""
    middle = places((8, 12), FRAME)[0]
    return torch.full((1, 96, CLASSES), 0.01), around(middle, torch.full((96, 4), side / 2))[None], middle


def test_a_box_comes_back_from_its_distances() -> None:
    middle = all_places(MAPS, FRAME)
    boxes = torch.rand(len(middle), 4) * 30
    assert torch.allclose(around(middle, far_of(middle, boxes)), boxes, atol=1e-5)


def test_places_are_the_middles_of_cells_that_cover_the_frame() -> None:
    middle, stride = places((8, 12), FRAME)
    assert stride.tolist() == [8, 8]
    assert middle[0].tolist() == [4, 4]
    assert middle[1].tolist() == [12, 4]
    assert middle[12].tolist() == [4, 12]
    assert middle[-1].tolist() == [92, 60]


def test_a_box_on_the_middle_of_a_cell_belongs_to_it() -> None:
    scores, boxes, middle = first_guess()
    cell = 12 * 3 + 5
    x, y = middle[cell].tolist()
    wanted = assigned(scores, boxes, middle, truth_of([[x - 8, y - 8, x + 8, y + 8]], [1]))
    assert int(wanted.weight.argmax()) == cell
    assert wanted.weight[0, cell] == pytest.approx(1.0, abs=1e-4)
    assert wanted.score[0, cell].tolist() == pytest.approx([0, 1], abs=1e-4)
    assert wanted.box[0, cell].tolist() == [x - 8, y - 8, x + 8, y + 8]


@pytest.mark.parametrize("box", [[41, 33, 42, 34], [40, 32, 40.5, 32.5], [0, 0, 96, 64], [95, 63, 96, 64]])
def test_every_box_has_a_place_however_small_or_large(box: list[float]) -> None:
    scores, boxes, middle = first_guess()
    wanted = assigned(scores, boxes, middle, truth_of([box], [0]))
    assert wanted.weight.max() >= 0.099
    assert wanted.box[wanted.weight > 0].unique(dim=0).tolist() == [box]


def test_a_place_answers_for_one_of_two_boxes() -> None:
    scores, boxes, middle = first_guess()
    wanted = assigned(scores, boxes, middle, truth_of([[12, 12, 28, 28], [20, 12, 36, 28]], [0, 1]))
    assert ((wanted.score > 0).sum(-1) <= 1).all()
    assert set(wanted.score[0].argmax(-1)[wanted.weight[0] > 0].tolist()) == {0, 1}


def test_a_hard_box_is_neither_wanted_nor_refused() -> None:
    scores, boxes, middle = first_guess()
    wanted = assigned(scores, boxes, middle, truth_of([[12, 12, 28, 28]], [0], [True]))
    assert wanted.weight.sum() == 0
    assert wanted.ignored.sum() == 4  # the cells whose middle lies inside


def test_pictures_without_boxes_teach_that_nothing_is_there() -> None:
    layers = BoxLayers([3, 5], CLASSES, 8)
    logits, boxes = layers([torch.randn(2, 3, 8, 12), torch.randn(2, 5, 4, 6)], FRAME)
    empty = Truth(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.bool))
    loss = loss_of(logits, boxes, all_places(MAPS, FRAME), empty)
    assert loss > 0
    assert loss.isfinite()


def test_overlaps_are_what_areas_say() -> None:
    a, b = np.array([[0, 0, 10, 10]], np.float32), np.array([[5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert overlaps(a, b)[0] == pytest.approx([1 / 3, 0])
    iou, general = overlap_of(torch.from_numpy(a), torch.from_numpy(b))
    assert iou.tolist() == pytest.approx([1 / 3, 0])
    assert general.tolist() == pytest.approx([1 / 3, -700 / 900])


def test_a_mirrored_box_comes_back_and_covers_the_mirrored_pixels() -> None:
    box = np.array([[3, 5, 20, 9]], np.float32)
    picture = np.zeros(FRAME)
    picture[5:9, 3:20] = 1
    x1, y1, x2, y2 = mirrored(box, FRAME, across=True, down=True)[0].astype(int)
    assert picture[::-1, ::-1][y1:y2, x1:x2].all()
    assert picture.sum() == (y2 - y1) * (x2 - x1)
    assert (mirrored(mirrored(box, FRAME, True, False), FRAME, True, False) == box).all()


def test_padding_is_no_box() -> None:
    truth = things(6, np.random.default_rng(1))
    found = padded(truth, np.arange(6), FRAME)
    assert found.there.sum() == sum(map(len, truth.labels))


def test_of_boxes_that_overlap_the_best_of_each_class_is_answered() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 200, 90], [5, 5, 5, 9]], np.float32)
    scores = np.array([[0.6, 0.5], [0.9, 0.1], [0, 0.3], [0.8, 0.8]], np.float32)
    found = answered(boxes, scores, FRAME)
    assert found.shape == (MOST, 6)
    kept = found[found[:, 4] > 0]
    assert kept[:, 4].tolist() == pytest.approx([0.9, 0.5, 0.3])
    assert kept[:, 5].tolist() == [0, 1, 1]
    assert kept[2, :4].tolist() == [40, 40, 96, 64]  # cut to the frame


def test_it_learns_to_find_things(lesson: Lesson, head: BoxHead) -> None:
    unseen = np.arange(32, 48)
    answers = head.outputs({k: v[unseen] for k, v in lesson.views[0].blocks.items()})
    marks = box_marks(lesson.truth.take(unseen), [own[own[:, SCORE] > 0] for own in answers])
    assert value(MAP50, marks) > 0.6


def test_one_picture_at_a_time_is_the_same_as_eight(lesson: Lesson, head: BoxHead) -> None:
    blocks = {k: v[:8] for k, v in lesson.views[0].blocks.items()}
    alone = [head.outputs({k: v[i : i + 1] for k, v in blocks.items()})[0] for i in range(8)]
    assert np.abs(head.outputs(blocks) - np.stack(alone)).max() < 1e-4


def test_a_training_that_was_killed_goes_on_to_the_same_bits(lesson: Lesson, tmp_path: Any) -> None:
    pace, rows = Pace(epochs=3, batch=4), np.arange(8)
    curve: list[Passed] = []
    whole = train_boxes(lesson, rows, pace, width=8, told=curve.append)
    state = Checkpoint(tmp_path, {}, every=0)

    def killed(passed: Passed) -> None:
        if passed.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_boxes(lesson, rows, pace, width=8, told=killed, checkpoint=state)
    for _ in range(2):  # from the middle, and from the end
        told: list[Passed] = []
        resumed = train_boxes(lesson, rows, pace, width=8, told=told.append, checkpoint=state)
        assert all((resumed.weights[name] == value).all() for name, value in whole.weights.items())
        assert told == curve
    other = train_boxes(lesson, rows, pace, width=8, seed=1)
    assert any((other.weights[name] != value).any() for name, value in whole.weights.items())


def test_a_budget_ends_with_a_finished_schedule(lesson: Lesson) -> None:
    ticks = iter(range(10_000))
    passed: list[Passed] = []
    train_boxes(lesson, np.arange(32), Pace(seconds=9, clock=lambda: next(ticks)), width=8, told=passed.append)
    assert passed[-1].done == 1
    assert share(1.0, 0.05) == 0
    assert share(0.05, 0.05) == 1
    assert 0 < share(0, 0.05) < 0.1


def test_a_saved_head_answers_the_same(lesson: Lesson, head: BoxHead) -> None:
    again = read_box_head(head.described(), head.tensors())
    blocks = {k: v[:2] for k, v in lesson.views[0].blocks.items()}
    assert (again.outputs(blocks) == head.outputs(blocks)).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d, t: d.pop("frame"),
        lambda d, t: d.update(width=10**9),
        lambda d, t: d.update(overlap=float("nan")),
        lambda d, t: d.update(overlap=[0.5]),
        lambda d, t: d.update(maps=[["fine/map", [3, 8]]]),
        lambda d, t: t.pop("reach"),
        lambda d, t: t.update(reach=np.full(2, np.nan, np.float32)),
        lambda d, t: t.update(reach=np.zeros(3, np.float32)),
    ],
)
def test_a_damaged_head_is_refused(head: BoxHead, spoil: Any) -> None:
    described, tensors = head.described(), head.tensors()
    spoil(described, tensors)
    with pytest.raises(BundleError, match="damaged"):
        read_box_head(described, tensors)


def test_scores_are_chosen_on_what_was_answered() -> None:
    answers = np.array([(0, 0, 10, 10, 0.9, 0), (50, 0, 60, 10, 0.6, 0), (20, 0, 30, 10, 0.5, 0)])
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    truth = BoxTruth(
        (boxes,), (np.zeros(2, np.int64),), (np.zeros(2, np.bool_),), np.ones(1, np.bool_), ("one", "other")
    )
    found = rule_of([answers], truth, np.array([2.0, 0.0]))
    assert found[SHOWN] == pytest.approx((0.25, HALF))  # all: two of three right, and all found; nothing of the other
    assert found[MEAN] == (2.0, 0.0)
    assert rule_of([], truth, np.array([2.0, 0.0]))[SHOWN] == (HALF, HALF)


def drawn_scores(sure: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores (image, box) of 40 pictures: of each thing one near 0.8 and 10 near 0.1; or, not `sure`, of each thing
    three anywhere from 0.1 to 0.6, whatever it is."""
    rng = np.random.default_rng(0)
    things = rng.integers(0, 8, 40)
    scores = np.zeros((40, 40))
    for row, n in zip(scores, things, strict=True):
        if sure:
            row[:n], row[n : n + 10] = rng.uniform(0.7, 0.9, n), rng.uniform(0.02, 0.3, 10)
        else:
            row[: 3 * n] = rng.uniform(0.1, 0.6, 3 * n)
    return scores, things


def test_clear_scores_are_counted_and_doubtful_ones_summed() -> None:
    scores, things = drawn_scores(sure=True)
    counting = counting_of(scores, things)
    assert counting.factor is None
    assert 0.3 < counting.least <= 0.7
    assert (counting.of(scores) == things).all()
    scores, things = drawn_scores(sure=False)
    counting = counting_of(scores, things)
    assert counting.factor is not None
    assert counting.of(scores).sum() == pytest.approx(things.sum())


@pytest.fixture(scope="module")
def network() -> Any:
    """A tiny network with random weights, read at strides 8, 16 and 32 of pictures of 64 x 96 px."""
    backbone = open_backbone("mobilenetv3_small_050", "none")
    found = backbone.resized(replace(backbone.preprocess, size=FRAME, resize="squash", crop_fraction=1.0))
    return whole_maps(found, ("blocks.1", "blocks.3", "blocks.5"))


def maps_of(backbone: Any, pixels: np.ndarray) -> tuple[tuple[Layer, ...], dict[str, np.ndarray]]:
    """Its maps, and what it says of these pictures in float32."""
    taps = tuple(replace(tap, pools=("map",)) for tap in backbone.taps if "map" in tap.pools)
    trunk = Trunk(replace(backbone, taps=taps, ends=()))
    with torch.inference_mode():
        said = trunk(torch.from_numpy(pixels))
    layers = tuple(Layer(f"{tap.name}/map", tap.shape) for tap in taps)
    return layers, {m.block: x.numpy() for m, x in zip(layers, said, strict=True)}


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, *FRAME, 3)).astype(np.uint8)


def tuned_of(network: Any, pictures: np.ndarray, rate: float) -> tuple[Lesson, BoxHead, Tuned]:
    maps, blocks = maps_of(network, pictures)
    lesson = Lesson(maps, FRAME, (View(blocks),), things(len(pictures), np.random.default_rng(2)))
    head = train_boxes(lesson, np.arange(8), Pace(epochs=1), width=8)
    stored = replace(lesson, maps=maps[:1])
    return lesson, head, tune_boxes(network, stored, np.arange(8), maps[1:], Pace(epochs=2, rate=rate), head=head)


def test_maps_from_the_store_and_live_give_the_same_answers(network: Any, pictures: np.ndarray) -> None:
    lesson, head, tuned = tuned_of(network, pictures, rate=0.0)
    _, live = maps_of(tuned.backbone, pictures)
    assert all(np.abs(live[m.block] - lesson.views[0].blocks[m.block]).max() < 1e-5 for m in lesson.maps)
    assert all(tuned.head.weights[k] == pytest.approx(v) for k, v in head.weights.items() if "norm" not in k)


def test_tuning_moves_what_lies_above_the_stored_map_and_nothing_else(network: Any, pictures: np.ndarray) -> None:
    _, _, tuned = tuned_of(network, pictures, rate=1e-2)
    before, after = network.module.state_dict(), tuned.backbone.module.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert {name.split(".")[1] for name in moved} == {"2", "3", "4", "5"}
    assert not [name for name in moved if "running" in name]
    assert tuned.backbone.weights_hash != network.weights_hash


def test_from_pixels_all_learns(network: Any, pictures: np.ndarray) -> None:
    maps, _ = maps_of(network, pictures)
    given = pictures.transpose(0, 3, 1, 2).reshape(8, -1).astype(np.float32) / 255
    pixels = Lesson(
        (Layer("input", (3, *FRAME)),), FRAME, (View({"input": given}),), things(8, np.random.default_rng(2))
    )
    found = tune_boxes(network, pixels, np.arange(8), maps, Pace(epochs=1), width=8, below=1.0, statistics=True)
    moved = [
        name
        for name, value in network.module.state_dict().items()
        if not torch.equal(value, found.backbone.module.state_dict()[name])
    ]
    assert any("running_mean" in name for name in moved)
    assert any(name.startswith("conv_stem") for name in moved)
    assert found.head.maps == maps
