"""Two networks side by side: what each says of a picture, as one backbone; kept only where it pays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Run, picture
from headstart.data.table import Table, table_of
from headstart.errors import BackboneError, HeadstartError, OptionError
from headstart.files.bundle import read_bundle
from headstart.heads.taps import lower
from headstart.ship.package import unpack
from headstart.story.opening import Options, refuse_others
from headstart.story.options import check
from headstart.story.pairing import Pairing
from headstart.story.pipeline import Learned, learn
from headstart.tasks.known import TASKS
from headstart.trunk.backbone import from_tensors, open_backbone
from headstart.trunk.engine import Engine, on_cpu
from headstart.trunk.features import store_key
from headstart.trunk.layers import LAST
from headstart.trunk.network import Backbone, block_names, block_widths, whole_maps
from headstart.trunk.pair import paired

FIRST, SECOND = "mobilenetv3_small_050", "test_resnet"
BOTH = f"{FIRST}+{SECOND}"
DRAWN = Options(backbone=BOTH, weights="none", size=64, precision="f32")
Bytes = NDArray[np.uint8]
Blocks = dict[str, NDArray[np.float32]]


def small(backbone: Backbone) -> Backbone:
    return backbone.resized(replace(backbone.preprocess, size=(64, 64), crop_fraction=1.0))


def said(backbone: Backbone, engine: Engine, pixels: Bytes) -> Blocks:
    """What each tap says of these, whose number is a multiple of the engine's batch."""
    found: dict[int, NDArray[np.float32]] = {}
    batches = [(at, pixels[at : at + engine.batch]) for at in range(0, len(pixels), engine.batch)]
    engine.run(batches, lambda at, rows: found.update({at: np.array(rows)}))
    ends = np.cumsum(block_widths(backbone))[:-1]
    rows = np.concatenate([found[at] for at, _ in batches])
    return dict(zip(block_names(backbone), np.split(rows, ends, axis=1), strict=True))


@pytest.fixture(scope="module")
def alone() -> tuple[Backbone, Backbone]:
    """The second wants its pixels scaled otherwise."""
    first, second = (small(open_backbone(name, "none")) for name in (FIRST, SECOND))
    scaled = replace(second.preprocess, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.5))
    return first, replace(second, preprocess=scaled)


@pytest.fixture(scope="module")
def both(alone: tuple[Backbone, Backbone]) -> Backbone:
    return small(paired(*alone))


@pytest.fixture(scope="module")
def pixels() -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def blocks(both: Backbone, pixels: Bytes) -> Blocks:
    return said(both, on_cpu(both, "f32"), pixels)


# What both say


def test_each_network_says_what_it_says_alone(alone: tuple[Backbone, Backbone], blocks: Blocks, pixels: Bytes) -> None:
    lasts = []
    for one in alone:
        own = said(one, on_cpu(one, "f32"), pixels)
        for name in block_names(one)[:-1]:
            assert blocks[f"{one.name}:{name}"] == pytest.approx(own[name], abs=1e-5, rel=1e-4)
        lasts.append(own[LAST] / np.abs(own[LAST]).mean(axis=1, keepdims=True))
    assert blocks[LAST] == pytest.approx(np.concatenate(lasts, axis=1), abs=1e-4, rel=1e-3)


def test_neither_drowns_the_other(alone: tuple[Backbone, Backbone], blocks: Blocks) -> None:
    """However different their scales are: roots of both have one length."""
    width = alone[0].last_channels
    first, second = np.abs(blocks[LAST][:, :width]).mean(axis=1), np.abs(blocks[LAST][:, width:]).mean(axis=1)
    assert first == pytest.approx(np.ones(8), abs=1e-4)
    assert second == pytest.approx(np.ones(8), abs=1e-4)


def test_an_image_has_the_same_rows_in_any_company(both: Backbone, blocks: Blocks, pixels: Bytes) -> None:
    engine = on_cpu(both, "f32")
    single = engine.single() if hasattr(engine, "single") else None
    assert single is not None
    one = said(both, single, pixels)
    assert all(np.array_equal(one[name], blocks[name]) for name in blocks)


def test_facts_of_both_add_up(alone: tuple[Backbone, Backbone], both: Backbone) -> None:
    first, second = alone
    assert both.n_parameters == first.n_parameters + second.n_parameters
    assert both.last_channels == first.last_channels + second.last_channels
    assert (both.name, both.classifier, both.random) == (BOTH, "", True)
    assert both.licence == first.licence
    assert paired(first, replace(second, licence="mit")).licence == f"{first.licence} and mit"


def test_other_weights_or_another_scaling_are_another_network(alone: tuple[Backbone, Backbone], both: Backbone) -> None:
    first, second = alone
    others = [
        paired(second, first),
        paired(first, replace(second, weights_hash="0")),
        paired(first, open_backbone(SECOND, "none")),
    ]
    assert len({both.weights_hash, *(other.weights_hash for other in others)}) == 4


def test_two_sets_of_weights_of_one_architecture_are_told_apart(alone: tuple[Backbone, Backbone]) -> None:
    first = replace(alone[1], name=f"{SECOND}.r160_in1k")
    found = paired(first, alone[1])
    assert len({tap.name for tap in found.taps}) == len(found.taps)
    assert {name.partition(".")[0] for name in found.network.tensors()} >= {f"{SECOND}_r160_in1k", SECOND}


def test_tensors_make_both_again(both: Backbone, blocks: Blocks, pixels: Bytes) -> None:
    tensors = dict(both.network.tensors())
    again = from_tensors(BOTH, tensors, both.preprocess, "somewhere", "mit")
    assert again.weights_hash == both.weights_hash
    found = said(again, on_cpu(again, "f32"), pixels)
    assert all(found[name] == pytest.approx(blocks[name], abs=1e-6) for name in blocks)
    assert set(both.module.state_dict()) >= set(tensors)


@pytest.mark.parametrize("change", [{"scale": None}, {"shift": np.full(3, np.nan, np.float32)}, {"x.y": np.zeros(1)}])
def test_tensors_of_something_else_are_refused(both: Backbone, change: dict[str, Any]) -> None:
    tensors = {k: t for k, t in {**both.network.tensors(), **change}.items() if t is not None}
    with pytest.raises(BackboneError, match="do not fit"):
        from_tensors(BOTH, tensors, both.preprocess, "somewhere", "mit")


def test_the_lower_stages_are_those_of_both() -> None:
    found = lower(("a:1/mean", "a:2/mean", "b:1/mean", "b:2/mean", LAST))
    assert [part.block for part in found.parts] == ["a:1/mean", "b:1/mean"]


# What is refused


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"{FIRST}+{FIRST}", "twice"),
        (f"{FIRST}+timm/{FIRST}", "twice"),
        (f"{FIRST}+{SECOND}+resnet18", "names 3 networks"),
        (f"{FIRST}+resnot", "unknown backbone 'resnot'"),
        (f"{FIRST}+", "unknown backbone ''"),
    ],
)
def test_wrong_pairs_are_refused_in_one_line(name: str, why: str) -> None:
    with pytest.raises(BackboneError, match=why) as raised:
        open_backbone(name, "none")
    assert "\n" not in str(raised.value)


def test_networks_of_two_fixed_sizes_are_refused(alone: tuple[Backbone, Backbone]) -> None:
    fixed = [
        replace(one, network=replace_described(one, [3, side, side])) for one, side in zip(alone, (64, 96), strict=True)
    ]
    with pytest.raises(BackboneError, match="64 px only and test_resnet of 96 px only"):
        paired(*fixed)
    assert paired(alone[0], fixed[1]).preprocess.size == (96, 96)


def replace_described(backbone: Backbone, size: list[int]) -> Any:
    network = backbone.network
    described = {**network.described, "input_size": size, "fixed_input_size": True}
    return type(network)(network.source, described, network.key, network.shelf)


def test_weights_of_a_file_are_of_one_network(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="is of one network"):
        open_backbone(BOTH, str(tmp_path / "weights.safetensors"))


@pytest.mark.parametrize("given", [{"weights": "w.pth"}, {"layer": "last_map"}, {"head": "gap, dense 4"}])
def test_what_is_of_one_network_is_refused_for_two(given: dict[str, Any]) -> None:
    with pytest.raises(HeadstartError, match=f"{next(iter(given))}.* is of one network"):
        check(replace(DRAWN, **{"weights": "none", **given}))


def test_two_networks_are_not_tuned() -> None:
    with pytest.raises(OptionError, match="which are not tuned"):
        check(replace(DRAWN, tune="last"))


def test_tasks_that_look_at_places_take_one_network() -> None:
    with pytest.raises(OptionError, match="whose maps do not join"):
        refuse_others(TASKS["anomaly"], DRAWN)
    with pytest.raises(OptionError, match="whose maps do not join"):
        check(DRAWN, trained=True)


# A fit


def seen_by(scene: int, rng: np.random.Generator) -> Bytes:
    return picture(scene, rng, 32, strength=40)


@pytest.fixture(scope="module")
def scenes() -> Table:
    rng = np.random.default_rng(0)
    table = table_of([seen_by(k % 3, rng) for k in range(54)], [("moss", "sand", "sea")[k % 3] for k in range(54)])
    return replace(table, splits=np.array(["test" if k >= 36 else "train" for k in range(54)], dtype=object))


def weighed(scenes: Table, monkeypatch: pytest.MonkeyPatch, gain: float) -> Learned:
    """A fit in which both are better than the first alone by so much, with a standard error of 0.1."""
    monkeypatch.setattr("headstart.story.pairing.gained", lambda *_: ("log-loss", gain, 0.1))
    return learn(scenes, DRAWN)


def test_a_pair_that_does_not_win_is_not_kept(scenes: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    found = weighed(scenes, monkeypatch, 0.05)
    assert (found.seen.backbone.name, found.options.backbone) == (FIRST, FIRST)
    assert found.seen.features.n_forward == 18  # the images that judge: what has been weighed is stored
    usual = learn(scenes, replace(DRAWN, backbone=FIRST))
    assert usual.seen.features.n_forward == 0
    assert store_key(usual.seen.backbone, usual.seen.engine) == store_key(found.seen.backbone, found.seen.engine)
    assert np.array_equal(usual.head.left_out, found.head.left_out)


def test_a_pair_that_wins_is_kept_and_judged_images_do_not_choose(
    scenes: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = weighed(scenes, monkeypatch, 0.15)
    assert (found.seen.backbone.name, found.options.backbone) == (BOTH, BOTH)
    assert found.seen.pairing is not None
    hashes = np.array(found.seen.features.hashes)
    assert found.plan.judge is not None
    assert found.seen.pairing.hashes == set(hashes[found.plan.train])
    assert {part.block.partition(":")[0] for part in found.head.parts} == {FIRST, SECOND, LAST}


@pytest.mark.parametrize(("gain", "kept"), [(0.2, True), (0.1, False), (0.0, False), (-0.3, False)])
def test_kept_where_better_by_more_than_one_standard_error(gain: float, kept: bool) -> None:
    found = Pairing("a", "b", "log-loss", gain, 0.1, (10**6, 3 * 10**6), (0.4, 1.2), frozenset("xy"), 4)
    assert found.kept == kept
    assert ("run on each image (3.0 million parameters instead of 1.0" in found.why) == kept
    assert ("b is left out" in found.why) != kept
    assert f"{'better' if gain > 0 else 'worse'} by {abs(gain):.2g}" in found.why


# The saved model


@pytest.fixture(scope="module")
def kept(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of both networks, whether they win or not."""
    from headstart.cli.main import main

    folder = tmp_path_factory.mktemp("pair") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.story.pairing.gained", lambda *_: ("log-loss", 0.2, 0.1))
        main(["fit", str(pictures), "-o", str(folder), "--backbone", BOTH, "--weights", "none", "--size", "64"])
    return folder


def test_the_saved_model_says_what_it_is(kept: Path) -> None:
    bundle = read_bundle(kept)
    assert bundle.manifest["backbone"]["name"] == BOTH
    assert bundle.manifest["backbone"]["classifier"] == ""
    assert set(bundle.config) == {"note"}  # timm has no such network
    assert bundle.metrics["second_network"]["kept"] is True
    assert BOTH in (kept / "README.md").read_text(encoding="utf-8")
    assert f"{FIRST} and {SECOND}, side by side" in (kept / "report.html").read_text(encoding="utf-8")
    assert "side by side" in json.dumps(bundle.run)


def test_read_again_it_is_what_it_was(kept: Path) -> None:
    model = unpack(read_bundle(kept))
    own = open_backbone(BOTH, "none")
    assert model.backbone.weights_hash == own.weights_hash
    assert open_backbone(str(kept)).weights_hash == own.weights_hash
    assert model.backbone.network.described == own.network.described


def test_a_folder_of_its_name_changes_nothing(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / BOTH).symlink_to(kept)
    assert unpack(read_bundle(BOTH)).backbone.name == BOTH
    check(replace(DRAWN, backbone=BOTH, weights="auto", tune="last"))  # a saved model: who tunes it is told then


def test_it_predicts_and_explains(kept: Path, pictures: Path, run: Run) -> None:
    done = run("predict", kept, pictures / "sea" / "0.png", "--json")
    assert (done.code, json.loads(done.out)[0]["label"]) == (0, "sea")
    assert run("predict", kept, pictures / "sea" / "0.png", "--explain", kept.parent / "why").code == 0


def test_it_is_exported_as_it_predicts(kept: Path, tmp_path: Path, run: Run) -> None:
    done = run("export", kept, "--to", "openvino", "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err


def test_it_looks_at_no_places(kept: Path) -> None:
    with pytest.raises(OptionError, match="whose maps do not join"):
        whole_maps(open_backbone(str(kept)), ["blocks.3"])


def test_it_is_not_tuned(kept: Path, pictures: Path, tmp_path: Path, run: Run) -> None:
    done = run("fit", pictures, "-o", tmp_path / "m", "--backbone", kept, "--tune", "last", "--size", "64")
    assert done.code == 1
    assert len(done.err.strip().splitlines()[-1]) < 300
    assert "two networks side by side, which are not cut or tuned" in done.err.strip().splitlines()[-1]
