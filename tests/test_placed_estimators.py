"""`TransferSegmenter` and `TransferDetector` keep scikit-learn's contract, and answer as the commands do."""

from __future__ import annotations

import csv
import inspect
import json
import pickle
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks

from conftest import Run
from headstart import BundleError, DataError, TransferClassifier, TransferDetector, TransferSegmenter
from headstart.story.options import Options
from headstart.story.placed import OTHERS

SMALL: dict[str, Any] = {
    "backbone": "test_efficientnet",
    "weights": "none",
    "size": 64,
    "precision": "f32",
    "augment": "none",
}
SIZE = (40, 56)  # (height, width) px
NAMES = ("ground", "ball", "box")
KINDS = (TransferSegmenter, TransferDetector)
Scenes = tuple[Any, list[Any], list[Any]]


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    """Pictures (image, height, width, 3) with a red and a blue rectangle, their masks, and their boxes as lists."""
    rng = np.random.default_rng(3)
    X = rng.integers(90, 140, (12, *SIZE, 3)).astype(np.uint8)
    masks, boxes = [], []
    for pixels in X:
        mask, found = np.zeros(SIZE, np.uint8), []
        for number, colour in ((1, (220, 40, 30)), (2, (30, 60, 220))):
            x, y = int(rng.integers(0, 10)) + 28 * (number - 1), int(rng.integers(0, 20))
            pixels[y : y + 18, x : x + 16] = colour
            mask[y : y + 18, x : x + 16] = number
            found.append((NAMES[number], x, y, x + 16, y + 18))
        masks.append(mask)
        boxes.append(found)
    return X, masks, boxes


@pytest.fixture(scope="module")
def segmenter(scenes: Scenes) -> TransferSegmenter:
    return TransferSegmenter(**SMALL, epochs=1, classes=NAMES).fit(scenes[0], scenes[1])


def written(X: Any, folder: Path) -> list[Path]:
    folder.mkdir()
    for k, pixels in enumerate(X):
        Image.fromarray(pixels).save(folder / f"{k:02}.png")
    return sorted(folder.iterdir())


def listed(files: list[Path], boxes: list[Any], to: Path) -> Path:
    """A list of boxes; the last two pictures judge."""
    with to.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(("path", "split", "label", "x1", "y1", "x2", "y2"))
        for k, (file, found) in enumerate(zip(files, boxes, strict=True)):
            part = "test" if k >= len(files) - 2 else "train"
            table.writerows((f"images/{file.name}", part, *box) for box in found)
    return to


@pytest.fixture(scope="module")
def detector(scenes: Scenes, tmp_path_factory: pytest.TempPathFactory) -> TransferDetector:
    folder = tmp_path_factory.mktemp("boxes")
    files = written(scenes[0], folder / "images")
    return TransferDetector(**SMALL, epochs=50).fit(listed(files, scenes[2], folder / "boxes.csv"))


def test_settings_are_the_options_that_have_an_effect() -> None:
    """Same names, types, defaults and order as in `Options`, but for the cluster, which commands alone take; of masks
    also what their values are called."""
    options = {field.name: (field.type, field.default) for field in fields(Options)}
    for kind, more in zip(KINDS, (["classes"], []), strict=True):
        given = inspect.signature(kind).parameters
        assert list(given) == [name for name in options if name not in (*OTHERS, "lr", "ray")] + more
        assert all((p.annotation, p.default) == options[n] for n, p in given.items() if n != "classes")


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
    ],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learns_own_checks_pass(check: Any, kind: Any) -> None:
    check(kind.__name__, kind(**SMALL))


@pytest.mark.parametrize("kind", KINDS)
def test_before_a_fit_nothing_is_answered(kind: Any, scenes: Scenes) -> None:
    with pytest.raises(NotFittedError):
        kind().predict(scenes[0])


def test_masks_are_places_in_the_classes(segmenter: TransferSegmenter, scenes: Scenes) -> None:
    X, masks, _ = scenes
    assert segmenter.classes_.tolist() == list(NAMES)
    found = segmenter.predict(X)
    assert all(one.shape == SIZE and one.dtype == np.uint8 for one in found)
    assert np.mean([one == mask for one, mask in zip(found, masks, strict=True)]) > 0.9
    score = segmenter.evaluate(X, masks)
    assert segmenter.score(X, masks) == score["miou"]["value"] > 0.6
    assert score["miou"]["low"] < score["miou"]["high"]


def test_numbers_without_names_are_the_classes(scenes: Scenes) -> None:
    """Masks of 0, 3 and 7, one void and one missing: what is answered can be turned back into these."""
    X, masks, _ = scenes
    values = [np.array([0, 3, 7], np.int64)[mask] for mask in masks]
    values[0][:] = 255
    with pytest.warns(UserWarning, match="the masks hold 0, 3, 7, and answers the places"):
        model = TransferSegmenter(**SMALL, epochs=1).fit(X, [*values[:-1], None])
    assert model.classes_.tolist() == [0, 3, 7]
    assert [reason for _, reason in model.set_aside_] == ["no truth", "no truth"]
    assert np.mean(model.classes_[model.predict(X[1:2])[0]] == values[1]) > 0.8
    assert model.score(X[1:3], values[1:3]) > 0.4


def test_boxes_are_found_where_they_are(detector: TransferDetector, scenes: Scenes) -> None:
    X, _, boxes = scenes
    assert detector.classes_.tolist() == ["ball", "box"]
    found = detector.predict(X)
    for one in found:
        assert one["boxes"].shape == (len(one["labels"]), 4)
        assert (np.diff(one["scores"]) <= 0).all()
        assert set(one["labels"]) <= {"ball", "box"}
    assert detector.score(X, boxes) == detector.evaluate(X, boxes)["map50"]["value"] > 0.3
    assert detector.count(X).shape == (len(X), 2)


def test_answers_can_be_given_as_the_truth(detector: TransferDetector, scenes: Scenes) -> None:
    """What is answered has the form of what is learned from; and only boxes that are true count as found."""
    X = scenes[0]
    found = detector.predict(X)
    assert any(len(one["boxes"]) for one in found)
    assert detector.evaluate(X, found)["recall"]["value"] == 1
    assert np.isnan(detector.score(X, [[] for _ in X]))


def test_all_forms_of_boxes_are_one(scenes: Scenes) -> None:
    from headstart.data.given_boxes import boxes_given

    lists = [[*boxes, ("ball", 1, 2, 3.5, 4)] for boxes in scenes[2][:2]] + [[], None]
    columns = [
        None if one is None else {"boxes": np.array([b[1:] for b in one]), "labels": [b[0] for b in one]}
        for one in lists
    ]
    records = [
        None if one is None else [{"label": b[0], "box": list(b[1:]), "score": 0.5} for b in one] for one in lists
    ]
    names, sizes = [f"image {k}" for k in range(4)], [SIZE] * 4
    first, notes = boxes_given(lists, names, sizes)
    assert notes == []
    assert first.texts[2:] == ("[]", "")
    assert boxes_given(columns, names, sizes)[0].texts == first.texts
    assert boxes_given(records, names, sizes)[0].texts == first.texts
    numbers = [np.array([(3, 0, 0, 9, 9), (10, 1, 1, 5, 5)])]
    found = boxes_given(numbers, names[:1], sizes[:1])[0]
    assert (found.columns, found.values.tolist()) == (("3", "10"), [3, 10])
    crowds = [{"boxes": [(0, 0, 9, 9)], "labels": [1], "iscrowd": [1]}]
    assert boxes_given(crowds, names[:1], sizes[:1])[0].texts == ("[[0,0,0,9,9,1]]",)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[("ball", 1, 2, 3)]], "a box of image 0 is .* give a list of"),
        ([[(1, 2, 3, 4, "ball")]], "x1, y1, x2, y2 in px are four numbers, after the label"),
        ([{"box": []}], "no 'boxes'"),
        ([{"boxes": [(1, 2, 3, 4)], "labels": []}], "1 boxes and 0 labels"),
        (["ball"], "the boxes of image 0 are a str"),
        ({"boxes": []}, "boxes are a dict"),
        ([[], []], "1 images but the boxes of 2"),
    ],
)
def test_boxes_that_cannot_be_read_are_refused(scenes: Scenes, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TransferDetector(**SMALL).fit(scenes[0][:1], y)


def test_what_is_wrong_with_a_box_is_warned_of(scenes: Scenes) -> None:
    from headstart.data.given_boxes import boxes_given

    given = [[("ball", 9, 9, 1, 1), ("ball", 5, 5, 5, 9), ("box", 50, 30, 90, 39)]]
    found, notes = boxes_given(given, ["image 0"], [SIZE])
    assert found.texts == ("[[0,1,1,9,9,0],[1,50,30,56,39,0]]",)
    assert len(notes) == 3
    with pytest.warns(UserWarning, match="of no area"), pytest.raises(DataError, match="at least 2 are needed"):
        TransferDetector(**SMALL).fit(scenes[0][:1], [[given[0][1]]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: [mask[:-1] for mask in masks], "the mask of image 0 is 56 x 39 px and the picture"),
        (lambda masks: masks[:-1], "12 images but 11 truths"),
        (lambda masks: [mask * 0 for mask in masks], "nothing to tell apart"),
        (
            lambda masks: [mask + 4 for mask in masks],
            "none of the 3 classes .ground, ball, box.",
        ),
        (lambda masks: [mask / 2 for mask in masks], "give class numbers"),
    ],
)
def test_masks_that_do_not_fit_are_refused(scenes: Scenes, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TransferSegmenter(**SMALL, classes=NAMES).fit(scenes[0], change(scenes[1]))


@pytest.mark.parametrize("which", ["segmenter", "detector"])
def test_a_saved_model_answers_alike_in_python_and_by_the_command(
    which: str, scenes: Scenes, tmp_path: Path, run: Run, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    truth = scenes[1 if which == "segmenter" else 2]
    saved = model.save(tmp_path / "model")
    part = ("test", 2) if which == "detector" else ("cross_validation", len(truth))
    assert saved[part[0]]["n"] == part[1]
    again = type(model).load(tmp_path / "model")
    files = written(scenes[0], tmp_path / "images")
    first, second = model.predict(scenes[0]), again.predict(files)
    assert again.classes_.tolist() == model.classes_.tolist()
    assert again.score(files, truth) == model.score(scenes[0], truth)
    masks, out = tmp_path / "masks", ("--masks", tmp_path / "masks") if which == "segmenter" else ()
    code, text, _ = run("predict", tmp_path / "model", tmp_path / "images", "--json", *out)
    assert code == 0
    for one, two, record, path in zip(first, second, json.loads(text), files, strict=True):
        if which == "segmenter":
            assert np.array_equal(one, two)
            assert np.array_equal(one, np.asarray(Image.open(masks / path.name)))
        else:
            assert np.array_equal(one["boxes"], two["boxes"])
            assert np.array_equal(one["scores"], two["scores"])
            assert list(one["labels"]) == list(two["labels"]) == [box["label"] for box in record["boxes"]]
            told = np.array([box["box"] for box in record["boxes"]]).reshape(-1, 4)
            assert one["boxes"] == pytest.approx(told, abs=0.01)
    with pytest.raises(BundleError, match=rf"load it by {type(model).__name__}\.load"):
        TransferClassifier.load(tmp_path / "model")
    with pytest.raises(DataError, match="saved already"):
        again.save(tmp_path / "other")


@pytest.mark.parametrize("which", ["segmenter", "detector"])
def test_a_pickle_answers_the_same(which: str, scenes: Scenes, request: pytest.FixtureRequest) -> None:
    model, X = request.getfixturevalue(which), scenes[0][:3]
    first = model.predict(X)
    twin = pickle.loads(pickle.dumps(model))
    for one, two in zip(first, twin.predict(X), strict=True):
        assert np.array_equal(one, two) if which == "segmenter" else np.array_equal(one["boxes"], two["boxes"])
    with pytest.raises(DataError, match="pickled"):
        twin.save("anywhere")


def test_a_data_set_is_learned_by_its_path(scenes: Scenes, tmp_path: Path) -> None:
    X, masks, boxes = scenes
    files = written(X, tmp_path / "images")
    written(masks, tmp_path / "masks")
    model = TransferSegmenter(**SMALL, epochs=1, classes=",".join(NAMES)).fit(tmp_path)
    assert model.classes_.tolist() == list(NAMES)
    assert model.score(tmp_path) == model.score(files, [tmp_path / "masks" / file.name for file in files])
    found = TransferDetector(**SMALL, epochs=1).fit(str(listed(files, boxes, tmp_path / "boxes.csv")))
    assert found.classes_.tolist() == ["ball", "box"]
    assert found.evaluate(tmp_path / "boxes.csv")["n"] == 2
    numbered = [[(NAMES.index(name), *edges) for name, *edges in some] for some in boxes]
    given = clone(found).fit(X, numbered)
    assert given.classes_.tolist() == [1, 2]
    assert given.evaluate(X, numbered)["n"] == len(X)
    with pytest.raises(DataError, match="images without boxes"):
        clone(found).fit(X)
    with pytest.raises(DataError, match="images without masks"):
        clone(model).fit(X)


def test_an_image_that_cannot_be_read_is_set_aside_and_named(
    segmenter: TransferSegmenter, scenes: Scenes, tmp_path: Path
) -> None:
    files = [str(file) for file in written(scenes[0], tmp_path / "images")]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    broken = str(tmp_path / "broken.png")
    model = clone(segmenter).fit([broken, *files], [scenes[1][0], *scenes[1]])
    assert [name for name, _ in model.set_aside_] == [broken]
    with pytest.raises(DataError, match=r"1 of 2 images cannot be read; the first, .*broken\.png"):
        model.predict([files[0], broken])


def test_scikit_learns_tools_run(scenes: Scenes) -> None:
    """Pillow images with Pillow masks, and boxes as dictionaries, are divided into folds as other data are."""
    X, masks, boxes = scenes
    pictures, drawn = [Image.fromarray(one) for one in X], [Image.fromarray(one) for one in masks]
    scores = cross_val_score(TransferSegmenter(**SMALL, epochs=1), pictures, drawn, cv=2)
    assert scores.min() > 0.4
    columns = [{"boxes": np.array([b[1:] for b in some]), "labels": [b[0] for b in some]} for some in boxes]
    assert np.isfinite(cross_val_score(TransferDetector(**SMALL, epochs=1), pictures, columns, cv=2)).all()


@pytest.mark.parametrize("page", ["segmentation", "detection"])
def test_the_python_of_the_pages_runs(
    page: str, scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small network, since the default one takes minutes."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).resolve().parents[1] / "docs" / f"{page}.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Transfer" in b)
    small = re.sub(r"(Transfer\w+)\(", r"\1(**SMALL, epochs=1, ", block)
    (X, masks, boxes), few = scenes, 6
    known: dict[str, Any] = {"SMALL": SMALL, "images": X[:few], "masks": masks[:few], "boxes": boxes[:few]}
    known |= {"new": X[few:], "masks_of_new": masks[few:], "boxes_of_new": boxes[few:]}
    exec(small, known)
    assert (tmp_path / "model" / "headstart.json").is_file()
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f"{type(known['model']).__name__}.load(" in card
