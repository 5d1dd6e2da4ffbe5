"""What is seen of a picture: all of elongated ones where that answers better; its mirror image with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import Run, picture
from headstart.data.preprocess import Preprocess
from headstart.data.table import Table, read_table, table_of
from headstart.errors import OptionError
from headstart.judge.intervals import mean_of_groups
from headstart.story.opening import Options, in_their_shape, open_at_size, refuse_others
from headstart.story.pipeline import Learned, learn, load
from headstart.story.view import Sight, Tried, elongated
from headstart.tasks.known import TASKS
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import Engine, on_cpu
from headstart.trunk.features import store_key
from headstart.trunk.network import Backbone

Bytes = NDArray[np.uint8]
NETWORK = "mobilenetv3_small_050"
DRAWN = Options(backbone=NETWORK, weights="none", size=64)
SIZE = 64


def long(colour: int, rng: np.random.Generator) -> Bytes:
    """Noise (32, 96, 3) with a coloured square at a random end."""
    canvas = rng.integers(0, 256, (32, 96, 3)).astype(np.uint8)
    at = 0 if rng.random() < 0.5 else 64
    canvas[:, at : at + 32] = picture(colour, rng, 32)
    return canvas


@pytest.fixture(scope="module")
def frieze() -> Table:
    """Elongated pictures of two classes, each third of them to judge."""
    rng = np.random.default_rng(0)
    made = [long(k % 2 * 2, rng) for k in range(48)]
    table = table_of(made, [("red", "blue")[k % 2] for k in range(48)])
    return replace(table, splits=np.array(["test" if k % 6 > 3 else "train" for k in range(48)], dtype=object))


@pytest.fixture(scope="module")
def learned(frieze: Table) -> Learned:
    return learn(frieze, DRAWN)


@pytest.fixture(scope="module")
def network() -> Backbone:
    backbone = open_backbone(NETWORK, "none")
    return backbone.resized(replace(backbone.preprocess, size=(SIZE, SIZE), crop_fraction=1.0))


def seen_twice(backbone: Backbone) -> Backbone:
    return replace(backbone, preprocess=replace(backbone.preprocess, views=2))


def rows(engine: Engine, pixels: Bytes) -> NDArray[np.float32]:
    found: list[NDArray[np.float32]] = []
    engine.run([(0, pixels)], lambda tag, values: found.append(np.array(values)))
    return found[0]


# The view


def test_of_elongated_pictures_left_out_answers_choose_and_judged_ones_do_not(learned: Learned) -> None:
    sight = learned.seen.sight
    assert sight is not None
    assert sight.chosen == learned.options.view
    assert sight.chosen != "crop"  # where the coloured square is not
    assert [row.view for row in sight.rows] == ["crop", "whole", "pad"]
    hashes = np.array(learned.seen.features.hashes)
    assert learned.plan.judge is not None
    assert not sight.hashes & set(hashes[learned.plan.judge])
    assert sight.hashes <= set(hashes[learned.plan.train])


def test_what_was_tried_is_not_computed_again(learned: Learned) -> None:
    """The images that chose come from the store: a third of them judge, and alone are new."""
    assert learned.seen.sight is not None
    assert learned.seen.features.n_forward == len(learned.seen.table) - len(learned.seen.sight.hashes)


def test_the_whole_picture_is_seen_in_its_own_shape(frieze: Table) -> None:
    how = open_at_size(frieze, replace(DRAWN, view="whole")).preprocess
    assert (how.resize, how.size, how.crop_fraction) == ("squash", (32, 96), 1.0)


def test_a_task_that_sees_pictures_whole_sees_the_ends_of_small_long_ones(frieze: Table, pictures: Path) -> None:
    assert open_at_size(frieze, DRAWN, whole=True).preprocess.resize == "squash"
    assert open_at_size(frieze, DRAWN).preprocess.resize == "shortest"
    assert open_at_size(read_table(pictures), DRAWN, whole=True).preprocess.resize == "shortest"


def test_ordinary_pictures_pay_nothing(pictures: Path) -> None:
    table = read_table(pictures)
    assert not elongated(table)
    upright = open_at_size(table, DRAWN)
    assert upright.preprocess == open_at_size(table, replace(DRAWN, view="crop")).preprocess
    assert upright.preprocess.resize == "shortest"


@pytest.mark.parametrize(
    ("gain", "error", "chosen"), [(0.3, 0.1, "whole"), (0.1, 0.1, "crop"), (0.0, 0.1, "crop"), (-0.2, 0.1, "crop")]
)
def test_another_view_is_better_by_more_than_one_standard_error(gain: float, error: float, chosen: str) -> None:
    tried = (Tried("crop", (64, 64), 0.5, 0.0, 0.0), Tried("whole", (32, 96), 0.5 - gain, gain, error))
    assert Sight(tried, frozenset("ab"), 4).chosen == chosen


def test_copies_count_once_in_the_standard_error() -> None:
    rng = np.random.default_rng(0)
    once = rng.normal(0.1, 1, 500)
    mean, error = mean_of_groups(once, np.arange(500))
    assert error == pytest.approx(once.std(ddof=1) / np.sqrt(500))
    assert mean_of_groups(np.repeat(once, 4), np.repeat(np.arange(500), 4)) == pytest.approx((mean, error))


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [([(110, 300)], (32, 96)), ([(300, 110)], (96, 32)), ([(50, 5000)], (32, 128)), ([(90, 90)] * 3, (64, 64))],
)
def test_the_input_has_the_shape_of_the_pictures_up_to_four_to_one(
    network: Backbone, sizes: list[tuple[int, int]], shape: tuple[int, int]
) -> None:
    assert in_their_shape(network, np.array(sizes)).preprocess.size == shape


def test_no_side_of_the_input_is_longer_than_a_saved_model_may_have(network: Backbone) -> None:
    from headstart.files.forms import MOST_SIDE

    large = replace(network, preprocess=replace(network.preprocess, size=(640, 640)))
    assert in_their_shape(large, np.array([(100, 400)])).preprocess.size == (320, MOST_SIDE)


def test_a_network_of_one_size_keeps_it() -> None:
    vit = open_backbone("swin_tiny_patch4_window7_224", "none")
    assert in_their_shape(vit, np.array([(100, 300)])).preprocess.size == (224, 224)


# The mirror image


@pytest.fixture(scope="module")
def pixels() -> Bytes:
    small = np.random.default_rng(1).integers(0, 256, (8, 6, 6, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for one in small])


@pytest.fixture(scope="module")
def both(network: Backbone) -> Engine:
    return on_cpu(seen_twice(network), "f32")


def test_two_views_are_the_mean_of_a_picture_and_its_mirror_image(
    network: Backbone, both: Engine, pixels: Bytes
) -> None:
    one = on_cpu(network, "f32")
    here, there = rows(one, pixels), rows(one, np.ascontiguousarray(pixels[:, :, ::-1]))
    assert np.abs(here - there).max() > 1e-3  # a network that sees no difference would agree with anything
    np.testing.assert_allclose(rows(both, pixels), (here + there) / 2, atol=1e-5)


def test_a_mirrored_picture_has_the_same_features(both: Engine, pixels: Bytes) -> None:
    mirrored = rows(both, np.ascontiguousarray(pixels[:, :, ::-1]))
    np.testing.assert_allclose(mirrored, rows(both, pixels), atol=1e-3)


def test_of_one_picture_it_says_what_it_says_of_eight(network: Backbone, both: Engine, pixels: Bytes) -> None:
    from headstart.trunk.engine import OpenVinoEngine

    alone = OpenVinoEngine(seen_twice(network), "f32", 1)
    np.testing.assert_allclose(
        np.concatenate([rows(alone, pixels[k : k + 1]) for k in range(8)]), rows(both, pixels), atol=1e-5
    )


def test_what_was_stored_of_one_view_is_found_and_of_two_kept_apart(network: Backbone, both: Engine) -> None:
    one, two = (store_key(backbone, both)["preprocess"] for backbone in (network, seen_twice(network)))
    assert set(one) == {"size", "crop_fraction", "interpolation", "resize", "mean", "std"}
    assert two == one | {"views": 2}


@pytest.fixture(scope="module")
def model(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from headstart.cli.main import main

    folder = tmp_path_factory.mktemp("twice") / "model"
    words = ["--backbone", NETWORK, "--weights", "none", "--size", "64", "--views", "2", "--view", "pad"]
    main(["fit", str(pictures), "-o", str(folder), *words])
    return folder


def test_a_saved_model_sees_as_it_learned_and_says_so(model: Path, pictures: Path, run: Run) -> None:
    how = load(model).backbone.preprocess
    assert (how.views, how.resize) == (2, "pad")
    recipe = {one["name"]: one for one in json.loads((model / "run.json").read_text())["recipe"]}
    assert recipe["views"]["source"] == "set by --views 2: twice the network's time"
    assert recipe["view"]["source"] == "set by --view pad"
    answer = run("predict", model, pictures / "moss" / "0.png", "--json")
    assert json.loads(answer.out)[0]["label"] == "moss"
    assert "mirror image" in (model / "report.html").read_text()


def test_the_next_set_decides_anew_what_the_network_of_a_model_sees(model: Path) -> None:
    how = open_backbone(str(model)).preprocess
    assert (how.views, how.resize) == (1, "shortest")


def test_a_model_of_two_views_is_explained_for_the_answer_that_both_gave(model: Path, pictures: Path) -> None:
    from headstart.data.table import list_images
    from headstart.ship.explain import Explanation, explain
    from headstart.ship.predict import predict

    loaded, table = load(model), list_images([str(pictures / "sea")])
    found: list[Explanation] = []
    explain(loaded, table, found.append, lambda row, error: None)
    answers = predict(loaded, table).answers.argmax(axis=1)
    assert {one.row: one.output for one in found} == dict(enumerate(answers))
    assert all(one.places.shape == (SIZE, SIZE) for one in found)


def test_who_looks_at_places_takes_one_view() -> None:
    with pytest.raises(OptionError, match="looks at places"):
        refuse_others(TASKS["anomaly"], replace(DRAWN, views=2))
    refuse_others(TASKS["classify"], replace(DRAWN, views=2))


def test_maps_of_two_views_are_refused(network: Backbone) -> None:
    from headstart.trunk.network import tap_at

    with pytest.raises(OptionError, match="leave --views away"):
        tap_at(seen_twice(network), "last_map", "none")
    assert tap_at(seen_twice(network), "last_map", "avg").pools == ("mean",)


def test_a_release_that_does_not_know_two_views_refuses_them() -> None:
    """A field that `from_json` does not know is refused: so do older ones with this."""
    said = open_backbone(NETWORK, "none").preprocess.to_json()
    with pytest.raises(OptionError, match="fields"):
        Preprocess.from_json(said | {"sights": 2})
