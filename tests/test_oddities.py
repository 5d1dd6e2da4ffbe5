"""Laws of models that learn from good pictures alone: false alarms as stated, bad ones never teach, saved = fitted."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TINY, Run
from headstart.data.duplicates import DuplicateSet
from headstart.data.good import GOOD, says_good
from headstart.data.images import write_png
from headstart.data.table import list_images, read_table
from headstart.data.targets import ClassNumbers
from headstart.errors import DataError, HeadstartError, OptionError
from headstart.files.bundle import HEAD, ODDITY, REFERENCE, read_bundle
from headstart.heads.material import Material, rows_of
from headstart.heads.oddity import Layer, Oddity, fit_oddity, needed, thinned
from headstart.heads.taps import Part
from headstart.judge.oddities import AUROC, FALSE_ALARMS, marks_of, score_of
from headstart.tasks import detector, oddities

WHOLE = (Part("pre_logits", root=False, unit=True),)
LAYERS = (Layer("a/map", 6), Layer("b/map", 4))


def made(n: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray[Any, Any]]:
    """Features of n pictures: a whole, and maps of 4 x 4 and 2 x 2 places, in which `shift` moves one place."""
    rng = np.random.default_rng(seed)
    fine, coarse = rng.normal(0, 1, (n, 6, 16)) + 3, rng.normal(0, 1, (n, 4, 4)) + 3
    fine[:, :, 5] += shift
    blocks = {"pre_logits": rng.normal(0, 1, (n, 12)) + 2, "a/map": fine.reshape(n, 96), "b/map": coarse.reshape(n, 16)}
    return {name: block.astype(np.float32) for name, block in blocks.items()}


def fitted_on(blocks: dict[str, np.ndarray[Any, Any]], rate: float, seed: int = 0) -> Oddity:
    n = len(blocks["pre_logits"])
    return fit_oddity(blocks, np.arange(n), [str(k) for k in range(n)], WHOLE, LAYERS, seed, rate)


# Heads


@pytest.mark.parametrize(("n", "rate"), [(40, 0.1), (25, 0.2)])
def test_of_fresh_good_pictures_no_more_than_the_stated_share_raises_an_alarm(n: int, rate: float) -> None:
    shares = [float((fitted_on(made(n, 2 * k), rate, k).outputs(made(300, 2 * k + 1)) >= 1).mean()) for k in range(12)]
    assert rate / 5 < np.mean(shares) < rate * 1.35


def test_the_threshold_lies_above_all_where_so_few_cannot_tell_the_rate() -> None:
    few, enough = fitted_on(made(15, 0), 0.05), fitted_on(made(20, 0), 0.05)
    assert not few.supported
    assert enough.supported
    assert needed(0.05) == 19
    assert needed(0.01) == 99
    assert "19 are needed" in detector.remarks(few)[0]


def test_a_patch_that_no_good_picture_has_is_hot_where_it_is() -> None:
    head = fitted_on(made(60, 0), 0.05)
    odd = made(20, 1, shift=12)
    heat = head.heat(odd)
    assert heat is not None
    assert heat.shape == (20, 4, 4)
    assert (head.outputs(odd) >= 1).all()
    hottest = heat.reshape(20, -1).argmax(axis=1)
    assert np.isin(hottest, (0, 1, 2, 4, 5, 6, 8, 9, 10)).all()  # the place, and those that it is smoothed over
    assert (heat >= 0).all()


def test_a_score_is_of_its_picture_alone() -> None:
    head, asked = fitted_on(made(30, 0), 0.1), made(40, 1)
    whole = head.outputs(asked)
    one_by_one = np.concatenate([head.outputs(rows_of(asked, np.array([k]))) for k in range(40)])
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-4)


def test_what_is_saved_of_a_head_is_what_was_fitted() -> None:
    head, asked = fitted_on(made(30, 0), 0.1), made(20, 1)
    width = sum(block.shape[1] for block in asked.values())
    again = detector.read(detector.described(head), detector.tensors(head), ("odd",), head.parts, width)
    np.testing.assert_array_equal(head.outputs(asked), again.outputs(asked))
    for name in detector.tensors(head):
        broken = {k: t for k, t in detector.tensors(head).items() if k != name}
        with pytest.raises(ValueError, match="needed"):
            detector.read(detector.described(head), broken, ("odd",), head.parts, width)
        wrong = {**detector.tensors(head), name: np.ones((1, 1, 2), np.float32)}
        with pytest.raises((ValueError, IndexError)):
            detector.read(detector.described(head), wrong, ("odd",), head.parts, width)


def test_a_thinned_memory_leaves_no_patch_alone() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(0, 0.1, (500, 3)), [[9.0, 9, 9], [-9.0, 0, 0]]]).astype(np.float32)
    kept = thinned(rows, 10, rng)
    assert len(np.unique(kept, axis=0)) == 10
    assert all((np.abs(kept - rows[k]).sum(axis=1) == 0).any() for k in (500, 501))
    assert thinned(rows, 600, rng) is rows


# The task


def material(n_good: int, n_bad: int, seed: int = 0) -> Material:
    good, bad = made(n_good, seed), made(n_bad, seed + 1, shift=9)
    blocks = {name: np.concatenate([good[name], bad[name]]) for name in good}
    blocks |= {"a/mean": np.zeros((n_good + n_bad, 6)), "b/mean": np.zeros((n_good + n_bad, 4))}
    kinds = np.array([0] * n_good + [1 + k % 2 for k in range(n_bad)])
    n = n_good + n_bad
    targets = ClassNumbers(kinds, (GOOD, "crack", "hole"))
    return Material(blocks, targets, np.arange(n), tuple(map(str, range(n))), seed)


SETS = (oddities.TapSet("whole", WHOLE), oddities.TapSet("patches", tuple(Part(m.block, False, False) for m in LAYERS)))


def test_bad_pictures_never_teach() -> None:
    m = material(30, 10)
    good = np.flatnonzero(m.targets.strata == 0)
    one, other = (oddities.solve(part, SETS, rate=0.1) for part in (m, m.part(good)))
    np.testing.assert_array_equal(one.outputs(m.blocks), other.outputs(m.blocks))


def test_every_picture_is_judged_once_and_kinds_are_told() -> None:
    m, seen = material(40, 12), []
    found = oddities.crossed(m, SETS, rate=0.1, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (5, 5)
    assert len(found.marks) == 52
    assert np.isfinite(found.answers).all()
    score = found.score.to_json()
    assert score["auroc"]["value"] > 0.9
    assert score["false_alarms"]["value"] < 0.3
    assert [(row["kind"], row["n"]) for row in score["kinds"]] in (
        [("crack", 6), ("hole", 6)],
        [("hole", 6), ("crack", 6)],
    )
    assert sum(score["scores"]["good"]) == 40
    assert sum(score["scores"]["odd"]) == 12


def test_copies_of_a_judged_picture_do_not_teach() -> None:
    """All pictures in pairs of copies: left out together, they score as pictures of which there is one."""
    m = material(40, 0)
    twice = Material(
        {name: np.repeat(block, 2, axis=0) for name, block in m.blocks.items()},
        m.targets.take(np.repeat(np.arange(40), 2)),
        np.repeat(np.arange(40), 2),
        tuple(map(str, range(80))),
        0,
    )
    found = oddities.crossed(twice, SETS, rate=0.1)
    assert found.score["false_alarms"]["value"] <= 0.3
    assert np.median(found.answers) > np.median(oddities.solve(twice, SETS, rate=0.1).outputs(twice.blocks)) * 1.2


def test_without_odd_pictures_only_false_alarms_are_judged() -> None:
    found = oddities.crossed(material(30, 0), SETS, rate=0.1)
    assert list(found.score.estimates) == ["false_alarms"]
    assert AUROC.of(found.marks, None)["value"] is None
    assert FALSE_ALARMS.of(found.marks, None) == found.score["false_alarms"]


def test_scores_of_bins_hold_every_picture_on_its_side_of_the_threshold() -> None:
    rng = np.random.default_rng(0)
    score = np.concatenate([np.exp(rng.normal(0, 2, 300)), [1.0, np.nextafter(1, 0), 1e-12, 1e12]])
    marks = marks_of((rng.random(304) < 0.5).astype(np.int64), score)
    table = score_of(marks, (GOOD, "odd"), None).tables["scores"]
    at_one = int(np.argmin(np.abs(np.array(table["edges"]) - 1)))
    above = sum(table["good"][at_one:]) + sum(table["odd"][at_one:])
    assert above == int((score >= 1).sum())


# Data


def folder_of(place: Path, names: dict[str, int]) -> Path:
    """Pictures of stripes; those of other labels than good have a bright square."""
    for name, n in names.items():
        (place / name).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            rng = np.random.default_rng([len(name), k])
            image = rng.integers(90, 130, (64, 64, 3)) + 40 * (np.arange(64)[:, None] // 8 % 2)[:, :, None]
            if not says_good(Path(name).name) and Path(name).name not in (".", "train"):
                image[20:44, 20:44] = 255 * rng.integers(0, 2, (24, 24, 1))
            write_png(image.astype(np.uint8), place / name / f"{k}.png")
    return place


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *((name, True) for name in ("good", "OK", "ok_front", "no_tumor", "no", "Normal", "defect-free", "0")),
        *((name, True) for name in ("healthy leaf", "without crack", "notumor")),
        *(
            (name, False)
            for name in ("not good", "no_good", "abnormal", "yes", "def_front", "crack", "1", "", "not_ok")
        ),
    ],
)
def test_labels_that_say_that_nothing_is_wrong(name: str, good: bool) -> None:
    assert says_good(name) is good


@pytest.mark.parametrize(
    ("names", "good", "found"),
    [
        ({".": 12}, None, {("none", "good"): 12}),
        ({"no": 12, "yes": 3}, None, {("none", "good"): 12, ("none", "yes"): 3}),
        ({"a": 12, "b": 3, "c": 2}, "a,c", {("none", "good"): 14, ("none", "b"): 3}),
        (
            {"train/good": 12, "test/good": 4, "test/crack": 3, "ground_truth/crack": 3},
            None,
            {("train", "good"): 12, ("test", "good"): 4, ("test", "crack"): 3},
        ),
        (
            {"train": 12, "test/good": 4, "test/crack": 3},
            None,
            {("train", "good"): 12, ("test", "good"): 4, ("test", "crack"): 3},
        ),
    ],
)
def test_folders(tmp_path: Path, names: dict[str, int], good: str | None, found: dict[tuple[str, str], int]) -> None:
    table = read_table(folder_of(tmp_path / "data", names), task="anomaly", good=good)
    assert Counter(zip(table.splits, table.labels, strict=True)) == found
    assert table.task == "anomaly"
    assert table.classes[0] == GOOD


def test_lists(tmp_path: Path) -> None:
    folder_of(tmp_path, {"p": 12})
    names = [f"p/{k}.png" for k in range(12)]
    bare, told = tmp_path / "bare.csv", tmp_path / "told.csv"
    bare.write_text("path\n" + "\n".join(names))
    told.write_text(
        "path,label\n" + "\n".join(f"{name},{'ok' if k < 11 else 'scratch'}" for k, name in enumerate(names))
    )
    assert set(read_table(bare, task="anomaly").labels) == {GOOD}
    assert Counter(read_table(told, task="anomaly").labels) == {GOOD: 11, "scratch": 1}


@pytest.mark.parametrize(
    ("names", "given", "kind", "said"),
    [
        ({"a": 12, "b": 3}, {}, DataError, "--good"),
        ({"a": 12, "b": 3}, {"good": "d"}, OptionError, "'d' is no label"),
        ({"a": 12, "b": 3}, {"good": " "}, OptionError, "--good is empty"),
        ({".": 5}, {}, DataError, "5 good pictures to learn from: at least 10"),
        ({"good": 3, "crack": 20}, {}, DataError, "at least 10 are needed"),
        ({"good": 12, "crack": 3}, {"task": "classify", "good": "good"}, OptionError, "--task anomaly"),
    ],
)
def test_what_cannot_be_learned_is_one_line(
    tmp_path: Path, names: dict[str, int], given: dict[str, str], kind: type[HeadstartError], said: str
) -> None:
    with pytest.raises(kind, match=said) as error:
        read_table(folder_of(tmp_path / "data", names), **{"task": "anomaly", **given})
    assert "\n" not in str(error.value)


def test_a_part_without_good_pictures_judges_nothing_alone(tmp_path: Path) -> None:
    table = read_table(folder_of(tmp_path / "data", {"train/good": 12, "test/crack": 3}), task="anomaly")
    ready = oddities.prepare(table, None)
    assert set(ready.splits) == {"none"}
    assert "cross-validation" in ready.notes[-1]


def test_near_copies_are_tied_unless_most_good_pictures_are_such(tmp_path: Path) -> None:
    table = read_table(folder_of(tmp_path / "data", {"good": 12, "crack": 3}), task="anomaly")
    good = np.flatnonzero(table.labels == GOOD)
    hashes = [*map(str, range(13)), "12", "14"]
    few = [DuplicateSet("near", tuple(good[:2].tolist()))]
    assert len(np.unique(oddities.ties(table, few, hashes))) == 14
    most = [DuplicateSet("near", tuple(good[:9].tolist()))]
    assert len(np.unique(oddities.ties(table, most, hashes))) == 14  # the same file twice


# The whole


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("data") / "tiles", {"good": 24, "square": 6})


@pytest.fixture(scope="module")
def fitted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """What a fit of them found, and the folder that it was saved in; not to be changed."""
    from headstart.story import pipeline, publish
    from headstart.story.options import Options

    place = tmp_path_factory.mktemp("saved") / "tiles"
    options = Options(backbone="test_efficientnet", weights="none", size=64, precision="f32", false_alarms=0.1)
    found = pipeline.fit(read_table(data, task="anomaly"), options)
    publish.save(found, place, "tiles", "headstart fit tiles")
    return found, place


def test_a_saved_model_answers_as_the_fitted_one(fitted: tuple[Any, Path], data: Path) -> None:
    from headstart.ship.predict import predict, records
    from headstart.story import pipeline

    found, folder = fitted
    loaded = pipeline.load(folder)
    table = list_images([data])
    answer = predict(loaded, table, found.seen.engine)
    order = [list(found.seen.table.names).index(str(Path(n).relative_to(data))) for n in answer.names]
    expected = found.head.outputs({k: b[order] for k, b in found.seen.features.blocks.items()})
    np.testing.assert_allclose(answer.answers, expected, rtol=2e-3)
    for record in records(loaded, answer, 1):
        assert set(record) == {"path", "verdict", "score", "error"}
        assert record["verdict"] == ("odd" if record["score"] >= 1 else "good")


def test_what_is_saved(fitted: tuple[Any, Path]) -> None:
    _, folder = fitted
    bundle = read_bundle(folder)
    assert bundle.manifest["task"] == "anomaly"
    assert bundle.manifest["classes"] == ["odd"]
    assert not (folder / HEAD).exists()
    assert not (folder / REFERENCE).exists()
    assert (folder / ODDITY).exists()
    score = bundle.metrics["cross_validation"]
    assert next(iter(score)) == "n"
    assert score["n"] == 30
    assert score["auroc"]["value"] > 0.5
    assert score["asked"] == 0.1
    assert set(bundle.metrics["baselines"]) == {"always_good", "raw_pixels"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    for words in ("Good or odd", "false alarms", "square", "AUROC"):
        assert words in page
    assert "AUROC" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_guide_runs(run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiles").symlink_to(data)
    Path("new").symlink_to(data / "square")
    page = (Path(__file__).resolve().parents[1] / "docs" / "anomalies.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines():
        words = line.split()[1:]
        found = run(*words, *(TINY if words[0] == "fit" else ()))
        assert found.code == 0, found.err
    rows = list(csv.DictReader(Path("answers.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["path", "verdict", "score", "error"]
    assert len(list(Path("where").glob("*.jpg"))) == 6
    told = json.loads(run("evaluate", "model", "tiles", "--json").out)
    assert (told["good"], told["odd"]) == (24, 6)
    assert run("report", "model").code == 0


def test_good_pictures_alone_by_the_command(run: Run, data: Path, tmp_path: Path) -> None:
    done = run("fit", data / "good", "-o", tmp_path / "m", "--task", "anomaly", *TINY, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert list(found["cross_validation"])[:2] == ["n", "false_alarms"]
    assert found["baselines"] == {}
    page = (tmp_path / "m" / "report.html").read_text(encoding="utf-8")
    assert "no odd picture was there to judge by" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tune", "all"), "--tune all trains step by step"),
        (("--head", "gap,dense"), "--task anomaly does not do"),
        (("--min-images", "3"), "--min-images 3 is of classes"),
        (("--false-alarms", "0.9"), "false-alarms 0.9 is not allowed"),
        (("--aim", "balanced"), "--aim balanced"),
        (("--positive", "square"), "--positive square"),
        (("--coverage", "0.8"), "--coverage 0.8"),
        (("--threshold", "0.8"), "--threshold 0.8"),
    ],
)
def test_options_that_say_nothing_are_refused_in_one_line(
    run: Run, data: Path, tmp_path: Path, options: tuple[str, str], said: str
) -> None:
    found = run("fit", data, "-o", tmp_path / "m", "--task", "anomaly", *TINY, *options)
    assert found.code == 2
    assert said in found.err
    assert found.err.strip().count("\n") <= 2
    assert not (tmp_path / "m").exists()
