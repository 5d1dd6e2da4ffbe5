"""A decoder on stored maps: it starts as the closed form, live is stored, the same seed is the same bits, and a budget
ends with a finished schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.placing import VOID
from headstart.data.zoomed import Zoom
from headstart.errors import DataError, OptionError
from headstart.finetune.decoded import Decoded, read_decoded
from headstart.heads.maps import Layer
from headstart.heads.pointwise import Pointwise, fit_pointwise
from headstart.trunk.layers import INPUT

N, SIZE = 8, (64, 96)


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """A tiny network of random weights, its maps of N pictures, masks that the pictures show, the closed form."""
    import torch

    from headstart.finetune.segmenter import Material
    from headstart.trunk.backbone import open_backbone
    from headstart.trunk.module import Trunk
    from headstart.trunk.network import whole_maps

    backbone = open_backbone("mobilenetv3_small_050", weights="none")
    backbone = backbone.resized(replace(backbone.preprocess, size=SIZE, crop_fraction=1.0, resize="squash"))
    backbone = whole_maps(backbone, [tap.name for tap in backbone.taps])
    taps = tuple(replace(tap, pools=("map",)) for tap in backbone.taps[:5])
    backbone = replace(backbone, taps=taps, ends=())
    rng = np.random.default_rng(0)
    cells = np.kron(rng.integers(0, 2, (N, 8, 12)), np.ones((8, 8), int))
    pixels = (cells[..., None] * 120 + rng.integers(0, 100, (N, *SIZE, 3))).astype(np.uint8)
    maps = tuple(Layer(f"{tap.name}/map", tap.shape) for tap in taps)  # type: ignore[arg-type]
    with torch.inference_mode():
        views = [
            {m.block: b.numpy() for m, b in zip(maps, Trunk(backbone)(torch.from_numpy(x)), strict=True)}
            for x in (pixels, np.ascontiguousarray(pixels[:, :, ::-1]))
        ]
    masks = list(cells.astype(np.uint8))
    closed = fit_pointwise(views[0], maps, masks.__getitem__, np.arange(N), 2)
    material = Material(tuple(views), maps, masks.__getitem__, np.arange(N), 2)
    return {"backbone": backbone, "pixels": pixels, "material": material, "closed": closed, "masks": masks}


def fitted(seen: dict[str, Any], epochs: int = 2, **more: Any) -> Decoded:
    from headstart.finetune.decoding import Decoding
    from headstart.finetune.segmenter import fit_decoder

    how = Decoding(epochs=epochs, batch=4)
    return fit_decoder(seen["material"], more.pop("start", seen["closed"]), how, width=8, **more)[0]


@pytest.fixture(scope="module")
def head(seen: dict[str, Any]) -> Decoded:
    return fitted(seen)


def test_it_starts_as_the_closed_form(seen: dict[str, Any]) -> None:
    from headstart.finetune.segmenter import started_decoder

    blocks, closed = seen["material"].views[0], seen["closed"]
    found = started_decoder(seen["material"], closed, width=8).outputs(blocks)
    np.testing.assert_allclose(found, closed.outputs(blocks), atol=1e-4 * np.abs(found).max())


def test_it_learns(seen: dict[str, Any]) -> None:
    from headstart.finetune.decoding import Decoding
    from headstart.finetune.segmenter import fit_decoder

    _, learned = fit_decoder(seen["material"], None, Decoding(epochs=12, batch=2, rate=3e-2), width=8)
    assert learned.epochs == 12
    assert learned.losses[-1] < 0.9 * learned.losses[0]


def test_the_same_seed_gives_the_same_bits_and_another_one_others(seen: dict[str, Any], head: Decoded) -> None:
    again, other = fitted(seen), fitted(seen, seed=1)
    assert all(np.array_equal(head.state[name], again.state[name]) for name in head.state)
    assert not all(np.array_equal(head.state[name], other.state[name]) for name in head.state)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_training_that_was_killed_goes_on_and_ends_the_same(
    seen: dict[str, Any], head: Decoded, tmp_path: Path, steps: int
) -> None:
    from headstart.finetune.checkpoint import Checkpoint
    from headstart.finetune.decoding import Decoding
    from headstart.finetune.segmenter import fit_decoder

    class KilledError(Exception):
        pass

    def bar(stage: str, total: int) -> Callable[[int], None]:
        left = [steps]

        def step(done: int) -> None:
            left[0] -= 1
            if not left[0]:
                raise KilledError

        return step

    with pytest.raises(KilledError):
        fitted(seen, checkpoint=Checkpoint(tmp_path, {}, every=0), bar=bar)
    done = fitted(seen, checkpoint=Checkpoint(tmp_path, {}, every=0))
    assert all(np.array_equal(head.state[name], done.state[name]) for name in head.state)
    kept, how = Checkpoint(tmp_path, {}, every=0), Decoding(epochs=2, batch=4)
    _, again = fit_decoder(seen["material"], seen["closed"], how, width=8, checkpoint=kept)  # is not done again
    _, whole = fit_decoder(seen["material"], seen["closed"], how, width=8)
    assert again.epochs == whole.epochs == 2
    assert again.losses == whole.losses


def test_a_budget_ends_with_a_finished_schedule(seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.finetune import decoding, paced
    from headstart.finetune.segmenter import fit_decoder

    now, rates = [0.0], list[float]()

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    cycle = paced.share
    monkeypatch.setattr(paced, "share", lambda *given: rates.append(cycle(*given)) or rates[-1])
    _, learned = fit_decoder(seen["material"], None, decoding.Decoding(seconds=20.0, batch=4), width=8, clock=clock)
    assert learned.seconds >= 20
    assert len(rates) == 20
    assert max(rates) > 0.9
    assert rates[-1] < 0.02
    assert rates[0] < 0.02


def test_stored_maps_below_any_cut_give_what_the_picture_gives(seen: dict[str, Any], head: Decoded) -> None:
    """tail(trunk(x)), in float32."""
    import torch

    from headstart.finetune.decoder import Above, parts_between
    from headstart.trunk.cut import find_cuts
    from headstart.trunk.layers import INPUT

    backbone, material = seen["backbone"], seen["material"]
    live = head.outputs(material.views[0])
    cuts, modules = find_cuts(backbone), [tap.module for tap in backbone.taps]
    for k in range(len(modules) - 1):
        above = Above(parts_between(cuts, modules[k], modules[k + 1 :]), head.module).eval()
        below = [torch.from_numpy(layer.of(material.views[0], slice(None))) for layer in material.maps[: k + 1]]
        with torch.inference_mode():
            np.testing.assert_allclose(above(below).numpy(), live, atol=1e-5 * max(1.0, np.abs(live).max()))
    whole = Above(parts_between(cuts, INPUT, modules), head.module, given=False).eval()
    mean, std = (255 * torch.tensor(v).view(3, 1, 1) for v in (backbone.preprocess.mean, backbone.preprocess.std))
    x = (torch.from_numpy(seen["pixels"]).permute(0, 3, 1, 2).float() - mean) / std
    with torch.inference_mode():
        np.testing.assert_allclose(whole([x]).numpy(), live, atol=1e-5 * max(1.0, np.abs(live).max()))


def test_tuning_moves_what_lies_above_the_cut_alone(seen: dict[str, Any], head: Decoded) -> None:
    from headstart.finetune.decoding import Decoding
    from headstart.finetune.segment_tuning import tune_segmenter

    backbone, material = seen["backbone"], seen["material"]
    before = {name: np.array(value) for name, value in backbone.network.tensors().items()}
    how = Decoding(epochs=2, batch=4)
    found = tune_segmenter(backbone, material, pictures(seen), head, backbone.taps[1].name, how)
    after = found.backbone.network.tensors()
    moved = {name.rpartition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("blocks.2", "blocks.3", "blocks.4")) for name in moved)
    assert all(np.array_equal(before[name], after[name]) for name in before if "running" in name)
    assert all(np.array_equal(before[name], value) for name, value in backbone.network.tensors().items())
    assert found.backbone.weights_hash != backbone.weights_hash
    assert not np.array_equal(found.head.state["out.weight"], head.state["out.weight"])


def pictures(seen: dict[str, Any], size: tuple[int, int] = (32, 64)) -> Any:
    from headstart.finetune.segment_tuning import Pictures

    return Pictures(seen["pixels"].__getitem__, Zoom(size, (0.8, 1.6), 0.3), ((True, False),))


def test_from_the_pixels_on_everything_learns_and_the_same_seed_gives_the_same_bits(
    seen: dict[str, Any], head: Decoded
) -> None:
    from headstart.finetune.decoding import Decoding
    from headstart.finetune.segment_tuning import tune_segmenter

    def tuned(seed: int) -> Any:
        how = Decoding(epochs=1, batch=4)
        return tune_segmenter(seen["backbone"], seen["material"], pictures(seen), head, INPUT, how, seed=seed)

    first, again, other = tuned(0), tuned(0), tuned(1)
    before, after = (dict(one.network.tensors()) for one in (seen["backbone"], first.backbone))
    moved = {name.rpartition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    read = [tap.name for tap in seen["backbone"].taps]
    assert {"conv_stem", *read} == {next((b for b in read if name.startswith(f"{b}.")), "conv_stem") for name in moved}
    assert first.backbone.weights_hash == again.backbone.weights_hash != other.backbone.weights_hash


def test_a_view_of_the_whole_frame_gives_the_maps_of_the_store(seen: dict[str, Any], head: Decoded) -> None:
    """Where views change nothing, what learns reads what the head reads when it answers."""
    import torch

    from headstart.finetune.segment_tuning import Pictures, Views, Whole, parts_at

    material, backbone = seen["material"], seen["backbone"]
    plain = Pictures(seen["pixels"].__getitem__, Zoom(SIZE))
    views = Views(plain, material.masks(), material.rows, 2, backbone)
    (x,), *_ = views.batch(material.rows, np.zeros(N, int), np.random.default_rng(0))
    live = head.outputs(material.views[0])
    for cut in (INPUT, backbone.taps[2].name):
        with torch.inference_mode():
            found = Whole(*parts_at(backbone, material.maps, cut), head.module).eval()([x]).numpy()
        np.testing.assert_allclose(found, live, atol=1e-5 * max(1.0, np.abs(live).max()))


def test_points_of_a_flipped_view_lie_where_its_picture_shows_them(seen: dict[str, Any]) -> None:
    from headstart.finetune.segment_tuning import Pictures, Views

    cells = np.kron(np.random.default_rng(1).integers(0, 2, (2, 4, 6)), np.ones((16, 16), int)).astype(np.uint8)
    coloured = np.stack([cells * 200] * 3, axis=-1)
    turned = Pictures(coloured.__getitem__, Zoom((32, 48), (0.5, 3.0)), ((True, False), (True, True)))
    views = Views(turned, cells, np.arange(2), 2, seen["backbone"])
    assert views.n_views == 3
    for view in range(3):
        (x,), at, classes, _ = views.batch(np.arange(2), np.full(2, view), np.random.default_rng(view))
        assert tuple(x.shape) == (2, 3, 32, 48)
        for k in range(2):
            row, column = (((at[k, :, axis].numpy() + 1) / 2 * n).astype(int) for axis, n in ((1, 32), (0, 48)))
            shown = (x[k, 0] > x[k, 0].mean()).numpy()[row, column]
            inside = np.abs(x[k, 0].numpy() - x[k, 0].numpy().mean())[row, column] > 0.3  # not on an edge
            assert (shown == (classes[k].numpy() == 1))[inside].mean() > 0.95


def test_a_cut_that_is_none_of_the_maps_is_refused(seen: dict[str, Any], head: Decoded) -> None:
    from headstart.finetune.decoding import Decoding
    from headstart.finetune.segment_tuning import tune_segmenter

    for cut in ("blocks.9", seen["backbone"].taps[-1].name):
        with pytest.raises(OptionError, match="tune above"):
            tune_segmenter(seen["backbone"], seen["material"], pictures(seen), head, cut, Decoding(epochs=1))


def test_a_network_whose_stages_give_no_maps_is_not_tuned(seen: dict[str, Any]) -> None:
    from headstart.finetune.segment_tuning import check_tunable
    from headstart.trunk.backbone import open_backbone
    from headstart.trunk.network import whole_maps

    check_tunable(seen["backbone"], seen["material"].maps)
    backbone = open_backbone("test_vit", weights="none")
    backbone = whole_maps(backbone, [tap.name for tap in backbone.taps])
    maps = [Layer(f"{tap.name}/map", tap.shape) for tap in backbone.taps]  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="gives no map"):
        check_tunable(backbone, maps)


def test_a_start_on_other_maps_and_no_images_are_refused(seen: dict[str, Any]) -> None:
    closed: Pointwise = replace(seen["closed"], maps=seen["closed"].maps[:2])
    with pytest.raises(OptionError, match="same maps"):
        fitted(seen, start=closed)
    with pytest.raises(DataError, match="no image"):
        fitted(seen | {"material": replace(seen["material"], rows=np.arange(0))}, start=None)


def test_a_head_comes_back_from_what_is_kept_of_it(seen: dict[str, Any], head: Decoded) -> None:
    blocks = seen["material"].views[0]
    back = read_decoded(head.described(), head.tensors(), 2)
    np.testing.assert_array_equal(back.outputs(blocks), head.outputs(blocks))
    alone = back.outputs({name: block[3:4] for name, block in blocks.items()})
    np.testing.assert_allclose(alone[0], back.outputs(blocks)[3], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("out.bias", lambda t: t[:1], "must be"),
        ("out.weight", lambda t: t * np.nan, "no numbers"),
        ("spread_0", lambda t: -t, "variance"),
        ("looks.0.first.running_var", lambda t: t - 9, "variance"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(head: Decoded, name: str, change: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_decoded(head.described(), head.tensors() | {name: change(head.state[name])}, 2)


def test_points_of_a_mirrored_view_are_mirrored(seen: dict[str, Any]) -> None:
    """The mask read at the points gives their classes, whichever view."""
    from headstart.finetune.decoding import Teaching

    rng = np.random.default_rng(0)
    masks = rng.integers(0, 3, (2, 31, 47)).astype(np.uint8)
    masks[:, :, :20] = VOID
    teaching = Teaching(lambda rows, views, rng: [], masks, np.arange(2), 2, 3)
    _, at, classes, worth = teaching.batch(np.array([0, 1]), np.array([0, 1]), rng)
    for k, mask in enumerate((masks[0], masks[1][:, ::-1])):
        x, y = (((at[k, :, axis].numpy() + 1) / 2 * n).astype(int) for axis, n in ((0, 47), (1, 31)))
        np.testing.assert_array_equal(mask[y, x], classes[k].numpy())
        assert float(worth[k].sum()) == pytest.approx(1, abs=0.05)


def test_the_loss_of_right_answers_is_nothing_and_void_does_not_count() -> None:
    import torch

    from headstart.finetune.decoding import loss_of

    truth = torch.arange(6).reshape(1, 2, 3) % 3
    y, x = torch.meshgrid(torch.tensor([-0.5, 0.5]), torch.tensor([-2 / 3, 0, 2 / 3]), indexing="ij")
    at = torch.stack([x, y], dim=-1).reshape(1, 6, 2)
    logits = 30 * torch.nn.functional.one_hot(truth, 3).permute(0, 3, 1, 2).float()
    classes, worth = truth.reshape(1, 6).clone(), torch.full((1, 6), 1 / 6)
    assert float(loss_of(logits, at, classes, worth)) == pytest.approx(0, abs=1e-3)
    wrong = logits.clone()
    wrong[0, :, 0, 0] = torch.tensor([0.0, 0.0, 30.0])
    assert float(loss_of(wrong, at, classes, worth)) > 1
    classes[0, 0] = VOID
    assert float(loss_of(wrong, at, classes, worth)) == pytest.approx(0, abs=1e-3)
    assert float(loss_of(wrong, at, torch.full((1, 6), VOID), worth)) == 0
