"""Tasks whose answers lie in the picture, from the folder to the saved model: laws that hold for masks and boxes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from conftest import TINY
from headstart.cli.placing import summary
from headstart.data.placing import numbers_in
from headstart.data.table import Table, list_images, read_table
from headstart.errors import HeadstartError, OptionError
from headstart.export.agreement import Ran
from headstart.export.formats import format_of
from headstart.export.forms import FORMS, boxes_that_differ
from headstart.files.bundle import read_bundle
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks
from headstart.ship import placed as shipped
from headstart.ship.placed import Placed, Said
from headstart.story import placed
from headstart.story.export_placed import Expected, recorded
from headstart.story.options import Options
from headstart.story.placed_judge import evaluate
from headstart.story.placed_publish import save
from headstart.tasks import segmenting
from headstart.tasks.held_maps import cut_named, unjudged
from headstart.tasks.known import PLACED
from headstart.tasks.placed import PlacedHead, stacked
from scenes import EPOCHS, SIZE, SMALL, Fit, table_of


def said(model: Placed, table: Table) -> list[Said]:
    found: list[Said] = []
    shipped.predict(model, table, found.append)
    return found


def test_masks_of_plain_colours_are_found(fitted: Fit) -> None:
    found, _ = fitted("segment")
    assert found.score.value("miou") > 0.6
    assert found.against[0].score.value("miou") < 0.4
    assert found.against[0].difference["difference"]["low"] is not None


@pytest.mark.parametrize("task", PLACED)
def test_a_saved_model_is_judged_as_the_fit_was(fitted: Fit, scenes: Path, task: str) -> None:
    found, folder = fitted(task)
    table = table_of(scenes, task)
    model = shipped.unpack(read_bundle(folder))
    score, _, unread = evaluate(model, table.take(table.splits == "test"))
    assert not unread
    assert score.estimates == found.score.estimates


@dataclass(frozen=True)
class Opposite:
    """Says the opposite of another head."""

    head: PlacedHead

    @property
    def maps(self) -> tuple[Layer, ...]:
        return self.head.maps

    def outputs(self, blocks: Blocks) -> np.ndarray:
        return -self.head.outputs(blocks)


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("task", PLACED)
def test_a_tuned_model_stands_beside_the_frozen_one_on_the_same_images(
    fitted: Fit, scenes: Path, monkeypatch: pytest.MonkeyPatch, task: str, folds: bool
) -> None:
    """The same answers differ by nothing; worse ones by what they are worse."""
    first, _ = fitted(task)
    worse = replace(first.taught, head=cast(Any, Opposite(first.taught.head)))
    for other in (first.taught, worse):
        taught = replace(first.taught, frozen=other)
        plan = replace(first.plan, judge=None, train=first.rows) if folds else first.plan
        monkeypatch.setattr(placed, "make_plan", lambda *given, plan=plan, **more: plan)
        again = replace(PLACED[task], learn=lambda *given, taught=taught: taught)
        found = placed.fit(again, table_of(scenes, task), SMALL)
        pair = next(one for one in found.against if one.kind == "frozen")
        gain = found.score.value(PLACED[task].headline.name) - pair.score.value(PLACED[task].headline.name)
        assert pair.difference["difference"]["value"] == pytest.approx(gain)
        assert (gain > 0.1) == (other is not first.taught)
        assert "tuning changed it by" in "\n".join(summary(found, scenes, 1.0))


def test_a_network_tuned_for_masks_is_saved_as_it_was_judged_with_the_frozen_one_beside_it(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = segmenting._Lesson.quality  # the tuned network shall win, however little it learned
    monkeypatch.setattr(
        segmenting._Lesson, "quality", lambda own, head, blocks=None: quality(own, head) if blocks is None else 2.0
    )
    table = table_of(scenes, "segment")
    found = placed.fit(PLACED["segment"], table, replace(SMALL, tune="auto", augment="photo", epochs=1))
    assert found.taught.tried[-1].chosen
    assert "from its pixels on" in found.taught.tried[-1].name
    assert [one.kind for one in found.against] == ["constant", "frozen"]
    assert found.taught.frozen is not None
    assert len(found.taught.losses) == len(found.taught.frozen.losses) + 1
    save(found, tmp_path / "model", "scenes", "headstart fit scenes")
    model = shipped.unpack(read_bundle(tmp_path / "model"))
    score, _, _ = evaluate(model, table.take(table.splits == "test"))
    assert score.estimates == found.score.estimates
    assert "frozen" in json.loads((tmp_path / "model" / "metrics.json").read_text())["baselines"]


@pytest.mark.parametrize("task", PLACED)
def test_an_answer_does_not_depend_on_the_images_beside_it(fitted: Fit, scenes: Path, task: str) -> None:
    model = shipped.unpack(read_bundle(fitted(task)[1]))
    paths = sorted((scenes / "test" / "images").iterdir())[:5]
    together = said(model, list_images(paths))
    for one, path in zip(together, paths, strict=True):
        alone = said(model, list_images([path]))[0]
        assert one.answer is not None
        assert alone.answer is not None
        assert np.array_equal(one.answer, alone.answer)


@pytest.mark.parametrize("task", PLACED)
def test_what_judges_does_not_teach(fitted: Fit, scenes: Path, task: str) -> None:
    """Another truth of the test images leaves every number of the head as it is."""
    table = table_of(scenes, task)
    labels = table.labels.copy()
    test = np.flatnonzero(table.splits == "test")
    labels[test] = labels[np.roll(test, 1)]
    again = placed.fit(PLACED[task], replace(table, labels=labels), replace(SMALL, epochs=EPOCHS[task]))
    first, _ = fitted(task)
    column = {"segment": "confusion", "detect": "true_side"}[task]
    assert not np.array_equal(again.marks[column], first.marks[column])
    for name, tensor in first.taught.head.tensors().items():
        assert np.array_equal(tensor, again.taught.head.tensors()[name]), name
    assert first.taught.rule == again.taught.rule


def test_a_turned_picture_has_the_turned_mask_size_and_the_same_classes(
    fitted: Fit, scenes: Path, tmp_path: Path
) -> None:
    """Orientation 6 of a picture that is stored lying: the answer is of the picture as it is displayed."""
    model = shipped.unpack(read_bundle(fitted("segment")[1]))
    picture = Image.open(scenes / "test" / "images" / "00.png")
    lying = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "turned.png", exif=exif)
    plain, turned = said(model, list_images([scenes / "test" / "images" / "00.png", tmp_path / "turned.png"]))
    assert plain.answer is not None
    assert turned.answer is not None
    assert turned.answer.shape == SIZE
    assert np.array_equal(plain.answer, turned.answer)


def test_masks_are_files_in_the_pictures_own_pixels(
    fitted: Fit, scenes: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    folder = fitted("segment")[1]
    images = scenes / "test" / "images"
    out, masks, drawn = tmp_path / "out.csv", tmp_path / "masks", tmp_path / "drawn"
    code, _, _ = run("predict", folder, images, "-o", out, "--masks", masks, "--explain", drawn)
    assert code == 0
    rows = list(csv.DictReader(out.open()))
    model = shipped.unpack(read_bundle(folder))
    for row, one in zip(rows, said(model, list_images([images])), strict=True):
        mask = np.asarray(Image.open(row["mask"]))
        assert np.array_equal(mask, one.answer)
        shares = [float(row[f"share_{name}"]) for name in ("ground", "ball", "box")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares[1] == pytest.approx((mask == 1).mean(), abs=1e-5)
    assert len(list(drawn.glob("*.jpg"))) == len(rows)


def test_boxes_are_rows_json_and_coco(
    fitted: Fit, scenes: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    folder, images = fitted("detect")[1], scenes / "test" / "images"
    code, text, _ = run("predict", folder, images, "--json")
    assert code == 0
    records = json.loads(text)
    for name in ("boxes.csv", "boxes.coco.json"):
        assert run("predict", folder, images, "-o", tmp_path / name)[0] == 0
    rows = list(csv.DictReader((tmp_path / "boxes.csv").open()))
    coco = json.loads((tmp_path / "boxes.coco.json").read_text())
    n = sum(len(record["boxes"]) for record in records)
    assert n == len(coco["annotations"]) == sum(row["label"] != "" for row in rows)
    for record in records:
        for box in record["boxes"]:
            x1, y1, x2, y2 = box["box"]
            assert 0 <= x1 < x2 <= SIZE[1]
            assert 0 <= y1 < y2 <= SIZE[0]
    again = read_table(tmp_path / "boxes.coco.json", task="detect", min_classes=1)
    assert len(again) == len(records)


@pytest.mark.parametrize("task", PLACED)
def test_the_commands_fit_evaluate_and_inspect(
    scenes: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], task: str
) -> None:
    data = scenes / "voc" if task == "detect" else scenes
    more = () if task == "detect" else ("--classes", scenes / "classes.txt")
    model = tmp_path / "model"
    options = ("--task", task, *more, *TINY, "--epochs", "1", "--augment", "none")
    code, text, _ = run("fit", data, "-o", model, *options, "--json")
    assert code == 0
    found = json.loads(text)
    code, text, _ = run("evaluate", model, data, *more, "--json")
    assert code == 0
    head = PLACED[task].headline.name
    assert json.loads(text)[head] == found["test"][head]
    code, text, _ = run("inspect", data, "--task", task, *more, *TINY, "--json")
    assert code == 0
    assert json.loads(text)["images"] == 44
    assert "</html>" in (model / "report.html").read_text()
    assert str(scenes) not in (model / "split.parquet").read_bytes().decode("latin-1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--taps last", "--taps last has no effect on --task segment"),
        ("--threshold 0.5", "has no effect on --task segment"),
        ("--tune 3", "--tune 3 is not allowed here"),
    ],
)
def test_what_has_no_effect_is_refused(
    scenes: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], words: str, message: str
) -> None:
    options = ("--task", "segment", "--classes", scenes / "classes.txt", *TINY, "--epochs", "1")
    code, _, errors = run("fit", scenes, "-o", tmp_path / "model", *options, *words.split())
    assert code in (1, 2)
    assert message in errors
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("task", "words"),
    [("detect", "--masks m"), ("detect", "-o a.parquet"), ("segment", "-o a.parquet"), ("segment", "-o a.coco.json")],
)
def test_what_cannot_be_written_is_refused_before_anything_is_asked(
    fitted: Fit,
    scenes: Path,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    task: str,
    words: str,
) -> None:
    folder = fitted(task)[1]
    monkeypatch.chdir(tmp_path)
    code, _, errors = run("predict", folder, scenes / "test" / "images", *words.split())
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_networks_are_not_ranked_for_masks_and_boxes() -> None:
    with pytest.raises(OptionError, match="--backbone auto ranks classifiers"):
        placed.refuse_others("segment", Options(backbone="auto"))


def test_other_commands_say_that_they_do_not_take_such_a_model(
    fitted: Fit, run: Callable[..., tuple[int, str, str]], scenes: Path
) -> None:
    for task, what in (("segment", "masks"), ("detect", "boxes")):
        code, _, errors = run("export", fitted(task)[1], "--to", "onnx", "--int8")
        assert code == 2
        assert f"--int8 is not of a model of {what}" in errors
        code, _, errors = run("export", fitted(task)[1], "--to", "torch")
        assert code == 2
        assert "one of onnx, openvino" in errors
    code, _, errors = run("rank", scenes, "--task", "segment")
    assert code == 2
    assert "rank does not take --task segment" in errors


def test_where_nothing_can_be_tuned_is_said_before_anything_is_learned(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenting, "_decoder", lambda *given: pytest.fail("a decoder was trained"))
    with pytest.raises(OptionError, match="one of auto, last, all, or a place"):
        placed.fit(PLACED["segment"], table_of(scenes, "segment"), replace(SMALL, tune="blocks.9", epochs=1))


def test_a_stage_is_named_as_it_is_or_by_a_word() -> None:
    stages = ["a", "b", "c", "d", "e"]
    assert [cut_named(word, stages) for word in ("last", "all", "auto", "b")] == ["d", "a", "c", "b"]
    with pytest.raises(OptionError, match="--tune e is not allowed"):
        cut_named("e", stages)


def test_a_tuning_that_nothing_can_judge_is_said_or_refused() -> None:
    assert unjudged("none", 0) == ()
    assert unjudged("b", 5) == ()
    assert "--tune b did nothing: too few images" in unjudged("b", 0)[0]


@pytest.mark.parametrize("task", PLACED)
def test_a_fit_of_few_images_says_that_it_was_not_tuned(fitted: Fit, task: str) -> None:
    found, _ = fitted(task)
    views, how = placed.views_of(found.seen, found.options), placed.how_of(found.options, placed.QUIET)
    tied = replace(views, groups=np.zeros(len(views), np.int64))  # of one group nothing is held out
    taught = found.task.learn(tied, found.plan.train[:6], replace(how, tune="last", epochs=1))
    assert "--tune last did nothing" in " ".join(taught.remarks)
    assert taught.backbone is None
    with pytest.raises(OptionError, match="--tune 3 is not allowed"):  # before anything is learned
        found.task.learn(tied, found.plan.train[:6], replace(how, tune="3", epochs=1))


def test_marks_of_different_lengths_are_filled_up() -> None:
    each = [{"score": np.array([0.5]), "n": np.array(1)}, {"score": np.array([0.9, 0.1, 0.3]), "n": np.array(3)}]
    marks = stacked(each, {"score": -1})
    assert marks["score"].tolist() == [[0.5, -1, -1], [0.9, 0.1, 0.3]]
    assert marks["n"].tolist() == [1, 3]


@pytest.mark.parametrize(("to", "head"), [("openvino", "pointwise"), ("onnx", "decoder")])
def test_an_export_of_masks_says_what_predict_says(
    to: str, head: str, fitted: Fit, scenes: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    """The graph on the pixels, its loader on the files, and the loader's masks as the command's."""
    found, folder = fitted("segment")
    if head == "pointwise":
        kept = closed_form(found)
        folder = tmp_path / "closed"
        save(kept, folder, "scenes", "headstart fit scenes --task segment")
    out = tmp_path / "export"
    code, text, errors = run("export", folder, "--to", to, "-o", out, "--data", scenes / "test" / "images", "--json")
    assert code == 0, errors
    record = json.loads(text)
    assert record["label_agreement"] > 0.9999
    assert record["loader"]["labels"] > 0.9999
    assert json.loads((out / "export.json").read_text())["about"]["names"] == ["ground", "ball", "box"]
    files = sorted((scenes / "test" / "images").iterdir())[:3]
    done = subprocess.run(
        [sys.executable, "-I", out / "predict.py", *files, "--masks", tmp_path / "masks"],
        capture_output=True,
        text=True,
        check=True,
    )
    model = shipped.unpack(read_bundle(folder))
    for one, own in zip(json.loads(done.stdout), said(model, list_images(files)), strict=True):
        assert np.mean(np.asarray(Image.open(one["mask"])) == own.answer) > 0.999
        assert one["classes"]["ball"] == pytest.approx((np.asarray(own.answer) == 1).mean(), abs=1e-3)


@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_an_export_of_boxes_says_what_predict_says(
    to: str, fitted: Fit, scenes: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    """The graph on the pixels, its loader on the files, and the loader's records as the command's."""
    folder, out = fitted("detect")[1], tmp_path / "export"
    code, text, errors = run("export", folder, "--to", to, "-o", out, "--data", scenes / "test" / "images", "--json")
    assert code == 0, errors
    record = json.loads(text)
    assert record["of"] == "boxes"
    assert record["label_agreement"] > 0.999
    assert record["loader"]["labels"] > 0.999
    files = sorted((scenes / "test" / "images").iterdir())[:4]
    lying = tmp_path / "lying.png"  # a picture whose EXIF orientation turns it, and one that is none
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(files[0]).transpose(Image.Transpose.ROTATE_90).save(lying, exif=exif)
    (tmp_path / "none.png").write_bytes(b"none")
    files = [*files, lying, tmp_path / "none.png"]
    done = subprocess.run(
        [sys.executable, "-I", out / "predict.py", *files], capture_output=True, text=True, check=True
    )
    code, text, _ = run("predict", folder, *files, "--json")
    assert code == 0
    ours, theirs = json.loads(text), json.loads(done.stdout)
    assert sum(len(one["boxes"]) for one in ours[:-1]) > 4
    assert ours[0]["boxes"] == ours[4]["boxes"]
    for one, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert one.keys() == other.keys()
        assert (one["width"], one["height"]) == (other["width"], other["height"])
        assert one["counts"] == pytest.approx(other["counts"], abs=0.01)
        assert [box["label"] for box in one["boxes"]] == [box["label"] for box in other["boxes"]]
        for box, same in zip(one["boxes"], other["boxes"], strict=True):
            assert box["score"] == pytest.approx(same["score"], abs=1e-3)
            assert box["box"] == pytest.approx(same["box"], abs=0.1)
    assert theirs[-1]["boxes"] is None
    assert "cannot be read" in theirs[-1]["error"]


def test_boxes_that_differ_are_those_without_a_counterpart() -> None:
    one = np.array([[0, 0, 50, 50, 0.9, 0], [60, 0, 90, 30, 0.5, 1]])
    assert boxes_that_differ(one, one) == (0, 4)
    assert boxes_that_differ(one, one[:0]) == (2, 2)
    assert boxes_that_differ(one[:0], one[:0]) == (0, 0)
    for column, by in ((0, 1.0), (4, 0.002), (5, 1)):  # moved by a px, another score, another class
        other = one.copy()
        other[0, column] += by
        assert boxes_that_differ(one, other) == (2, 4)
    near = one + np.array([0.1, 0, 0, 0, 0.0005, 0])
    assert boxes_that_differ(one, near) == (0, 4)


def closed_form(found: placed.Fitted) -> placed.Fitted:
    """The same fit with the head in closed form instead of the decoder."""
    views = placed.views_of(found.seen, found.options)
    few = replace(views, groups=np.zeros(len(views), np.int64))  # of one group nothing is held out to choose a decoder
    taught = found.task.learn(few, found.plan.train[:8], placed.how_of(found.options, placed.QUIET))
    assert taught.head.described()["kind"] == "pointwise"
    return replace(found, taught=taught)


def test_an_export_whose_answers_differ_is_refused(fitted: Fit) -> None:
    model = shipped.unpack(read_bundle(fitted("segment")[1]))
    scores = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    masks = [numbers_in(one, (40, 50)) for one in scores]
    expected = Expected(model, FORMS["segment"], masks, [(40, 50)] * 2)
    ran = Ran(scores, 0.1, 1.0, scores[:0], (), {}, "1.0")
    assert recorded(format_of("onnx"), "2 images", expected, ran, 1)["loader"] is None
    masks[1][:, :5] += 1
    with pytest.raises(HeadstartError, match=r"of a picture 10\.00% of the pixels differ"):
        recorded(format_of("onnx"), "2 images", expected, ran, 1)
    with pytest.raises(HeadstartError, match="what is no number"):
        recorded(format_of("onnx"), "2 images", expected, replace(ran, answers=scores * np.nan), 1)
