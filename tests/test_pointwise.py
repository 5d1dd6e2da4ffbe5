"""The class of each place in closed form: left out by formula as by fitting anew, scores as the maps say them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.data.placing import VOID
from headstart.heads import pointwise
from headstart.heads.maps import Layer
from headstart.heads.pointwise import Pointwise, fit_pointwise, read_pointwise

MAPS = (Layer("a/map", (6, 12, 16)), Layer("b/map", (5, 6, 8)), Layer("c/map", (4, 3, 4)))
N = 8


def material(seed: int = 0) -> tuple[dict[str, Any], list[Any]]:
    """Blocks of N images, and masks of 45 x 63 px: the largest of the first three channels of the finest map."""
    rng = np.random.default_rng(seed)
    blocks = {m.block: rng.normal(size=(N, int(np.prod(m.shape)))).astype(np.float16) for m in MAPS}
    grids = MAPS[0].of(blocks, slice(None))[:, :3]
    return blocks, [pointwise.enlarged(grid, (45, 63)).argmax(axis=0).astype(np.uint8) for grid in grids]


@pytest.fixture(scope="module")
def fitted() -> tuple[dict[str, Any], list[Any], Pointwise]:
    blocks, masks = material()
    return blocks, masks, fit_pointwise(blocks, MAPS, masks.__getitem__, np.arange(N), 3)


def test_it_learns_what_the_maps_say(fitted: Any) -> None:
    blocks, masks, head = fitted
    logits = head.outputs(blocks)
    assert logits.shape == (N, 3, 12, 16)
    answers = [pointwise.enlarged(one, mask.shape).argmax(axis=0) for one, mask in zip(logits, masks, strict=True)]
    assert np.mean(np.array(answers) == np.array(masks)) > 0.88


@pytest.mark.parametrize("each", [1, 4])
def test_left_out_by_formula_is_left_out_by_fitting_anew(each: int) -> None:
    """Also where a group has more rows than there are features."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 9)).astype(np.float32)
    x[:, -1] = 1
    root = rng.uniform(0.5, 2, 60).astype(np.float32)
    targets = rng.normal(size=(60, 2)).astype(np.float32)
    tied = np.arange(60) // (5 * each)
    ridge = pointwise._Ridge(x * root[:, None], targets * root[:, None], root)
    found = ridge.left_out(0.1, tied, np.arange(60))
    for group in np.unique(tied):
        out, rest = tied == group, tied != group
        w = root[rest, None] * x[rest]
        penalty = np.diag([0.1 * 60] * 8 + [1e-9 * 60])
        coef = np.linalg.solve(w.T @ w + penalty, w.T @ (root[rest, None] * targets[rest]))
        np.testing.assert_allclose(found[out], x[out] @ coef, atol=2e-3)


def test_void_teaches_nothing(fitted: Any) -> None:
    """Whatever lies under it: the same pixels are drawn where the rest stays."""
    blocks, masks, _ = fitted
    hidden = [mask.copy() for mask in masks]
    for mask in hidden:
        mask[:, :30] = VOID
    drawn = pointwise.drawn_pixels(hidden.__getitem__, N, 3, np.random.default_rng(0))
    assert drawn.at[:, 1].min() * 63 > 30
    with pytest.raises(ValueError, match="no pixel"):
        fit_pointwise(blocks, MAPS, lambda row: np.full((4, 4), VOID, np.uint8), np.arange(N), 3)


def test_each_pixel_drawn_stands_for_its_share_of_the_image(fitted: Any) -> None:
    _, masks, _ = fitted
    drawn = pointwise.drawn_pixels(masks.__getitem__, N, 3, np.random.default_rng(0))
    for row in range(N):
        for k in range(3):
            mine = (drawn.images == row) & (drawn.classes == k)
            assert drawn.worth[mine].sum() == pytest.approx(np.mean(masks[row] == k))


def test_a_head_comes_back_from_what_is_kept_of_it(fitted: Any) -> None:
    blocks, _, head = fitted
    back = read_pointwise(head.described(), head.tensors(), 3)
    np.testing.assert_array_equal(back.outputs(blocks), head.outputs(blocks))
    assert back.left_out == head.left_out


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("bias", np.zeros(4), "must be"),
        ("weight.1", np.full((2, 5, 3), np.nan), "no numbers"),
        ("weight.0", np.zeros((2, 5, 3)), "must be"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(fitted: Any, name: str, value: Any, reason: str) -> None:
    head = fitted[2]
    with pytest.raises(ValueError, match=reason):
        read_pointwise(head.described(), head.tensors() | {name: value}, 3)


def test_one_image_is_answered_as_among_others(fitted: Any) -> None:
    blocks, _, head = fitted
    alone = head.outputs({name: block[3:4] for name, block in blocks.items()})
    np.testing.assert_allclose(alone[0], head.outputs(blocks)[3], atol=1e-5)


@pytest.mark.parametrize(("size", "to"), [((3, 5), (7, 9)), ((4, 4), (8, 16)), ((1, 1), (3, 2)), ((6, 8), (3, 4))])
def test_grids_are_read_between_centres_as_torch_reads_them(size: tuple[int, int], to: tuple[int, int]) -> None:
    import torch

    grid = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(grid)[None], size=to, mode="bilinear")[0]
    np.testing.assert_allclose(pointwise.enlarged(grid, to), theirs.numpy(), atol=1e-5)
    y, x = np.mgrid[: to[0], : to[1]]
    at = np.stack([(y.ravel() + 0.5) / to[0], (x.ravel() + 0.5) / to[1]], axis=1).astype(np.float32)
    np.testing.assert_allclose(pointwise.read_at(grid, at), theirs.flatten(1).T.numpy(), atol=1e-5)
