"""Laws of models that recognise: what is saved answers the same, and a gallery grows without touching anybody else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TINY, Run
from headstart.data.images import write_png
from headstart.data.table import list_images
from headstart.data.targets import ClassNumbers
from headstart.errors import BundleError
from headstart.files import forms, swap
from headstart.files.bundle import GALLERY, HEAD, MODEL, read_bundle, write_bundle

NAMES = ("anna", "ben", "carl", "dora", "emil", "fay")
COLOURS = {name: (60 * (k & 1), 60 * (k >> 1 & 1), 60 * (k >> 2)) for k, name in enumerate((*NAMES, "gus", "hal"))}


def shown(name: str, number: int) -> np.ndarray[Any, Any]:
    """A picture of somebody, whom a colour tells apart; each is another one."""
    rng = np.random.default_rng([list(COLOURS).index(name), number])
    return (rng.integers(0, 150, (40, 40, 3)) + 15 + np.array(COLOURS[name])).astype(np.uint8)


def folder_of(place: Path, names: tuple[str, ...], numbers: range) -> Path:
    for name in names:
        (place / name).mkdir(parents=True, exist_ok=True)
        for k in numbers:
            write_png(shown(name, k), place / name / f"{k}.png")
    return place


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people with five pictures each, and gus, who has one."""
    place = folder_of(tmp_path_factory.mktemp("data") / "people", NAMES, range(5))
    return folder_of(place, ("gus",), range(1))


@pytest.fixture(scope="module")
def fitted(people: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """What a fit of them found, and the folder that it was saved in; not to be changed."""
    from headstart.data.table import read_table
    from headstart.story import pipeline, publish
    from headstart.story.options import Options

    place = tmp_path_factory.mktemp("saved") / "people"
    options = Options(backbone="test_efficientnet", weights="none", size=64, precision="f32")
    found = pipeline.fit(read_table(people, task="recognise"), options)
    publish.save(found, place, "people", "headstart fit people")
    return found, place


@pytest.fixture
def mine(fitted: tuple[Any, Path], tmp_path: Path) -> Path:
    """A copy of the saved model, to be changed."""
    return Path(shutil.copytree(fitted[1], tmp_path / "model"))


@pytest.fixture
def hal(tmp_path: Path) -> list[Path]:
    """Three pictures of somebody new."""
    return sorted(folder_of(tmp_path / "new", ("hal",), range(3)).rglob("*.png"))


def answers(run: Run, model: Path, images: Path) -> list[dict[str, Any]]:
    found = run("predict", model, images, "--json", "--top", "99")
    assert found.code == 0, found.err
    return list(json.loads(found.out))


def test_what_is_saved_answers_as_what_was_fitted(fitted: tuple[Any, Path], people: Path) -> None:
    from headstart.ship.package import Loaded
    from headstart.ship.predict import predict, records
    from headstart.story import pipeline

    found, folder = fitted
    seen, loaded = found.seen, pipeline.load(folder)
    task, names = found.method.task, found.head.names
    before = Loaded(None, seen.backbone, task, found.head, names, found.rule, seen.engine.precision)
    table = list_images([people])
    one, other = (predict(model, table, seen.engine) for model in (before, loaded))
    assert loaded.names == names
    np.testing.assert_array_equal(one.answers, other.answers)
    assert records(before, one, 3) == records(loaded, other, 3)
    assert loaded.rule == found.rule


def test_who_has_one_picture_is_enrolled_and_judges_nobody(fitted: tuple[Any, Path]) -> None:
    found, folder = fitted
    assert "gus" in read_bundle(folder).manifest["classes"]
    score = found.verdict.score
    assert score.n == 30 == len(found.verdict.rows)
    assert list(score.estimates) == ["identification_rate", "eer", "tar_at_far_1e2", "tar_at_far_1e3", "open_set_rate"]
    assert {b.n for b in found.baselines} == {30}
    assert [b.kind for b in found.baselines] == ["constant", "raw pixels"]  # with random weights of its own
    assert found.baselines[0].scores["identification_rate"]["value"] == pytest.approx(5 / 30)
    assert found.curve[-1]["n"] == 24
    assert not (folder / HEAD).exists()


def test_enrolling_adds_one_and_leaves_all_others(run: Run, mine: Path, people: Path, hal: list[Path]) -> None:
    before, kept = answers(run, mine, people), {f: (mine / f).read_bytes() for f in ("report.html", "split.parquet")}
    metrics = json.loads((mine / "metrics.json").read_text())
    done = run("enrol", mine, "hal", *hal[:2], "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["identities"] == 8
    assert answers(run, mine, hal[2])[0]["identity"] == "hal"
    for old, new in zip(before, answers(run, mine, people), strict=True):
        assert [c for c in new["nearest"] if c["identity"] != "hal"] == old["nearest"]
    assert kept == {f: (mine / f).read_bytes() for f in kept}
    assert json.loads((mine / "metrics.json").read_text()) == metrics
    assert [change["name"] for change in read_bundle(mine).run["enrolled"]] == ["hal"]


def test_enrolled_one_by_one_or_together_and_removed_again(run: Run, mine: Path, hal: list[Path]) -> None:
    before = {**read_bundle(mine).tensors(GALLERY), "names": read_bundle(mine).manifest["classes"]}
    assert run("enrol", mine, "hal", *hal).code == 0
    together = read_bundle(mine).tensors(GALLERY)
    assert run("enrol", mine, "--remove", "hal").code == 0
    after = {**read_bundle(mine).tensors(GALLERY), "names": read_bundle(mine).manifest["classes"]}
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    for image in hal:  # who was removed may come back, one picture at a time
        assert run("enrol", mine, "hal", image).code == 0
    single = read_bundle(mine).tensors(GALLERY)
    np.testing.assert_allclose(single["gallery.means"], together["gallery.means"], atol=1e-6)
    np.testing.assert_array_equal(single["gallery.counts"], together["gallery.counts"])


def test_a_picture_counts_once_and_under_two_names_it_is_said(run: Run, mine: Path, hal: list[Path]) -> None:
    assert "not counted again" in run("enrol", mine, "hal", hal[0], hal[1], hal[0]).err
    saved = (mine / GALLERY).read_bytes()
    again = run("enrol", mine, "hal", hal[0])
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "already" in again.err
    assert (mine / GALLERY).read_bytes() == saved
    other = run("enrol", mine, "ida", hal[0])
    assert other.code == 0
    assert "is enrolled as hal too" in other.err


def test_who_is_not_enrolled_is_unknown(run: Run, mine: Path, hal: list[Path], tmp_path: Path) -> None:
    found = answers(run, mine, hal[0])[0]
    known = answers(run, mine, Path(folder_of(tmp_path / "later", ("anna",), range(7, 8)) / "anna"))[0]
    threshold = read_bundle(mine).manifest["head"]["identify"]["value"]
    for said in (found, known):
        assert (said["identity"] is None) == (said["score"] < threshold)
        assert said["nearest"][0]["score"] == said["score"]
    assert known["score"] > found["score"]
    assert known["nearest"][0]["identity"] == "anna"
    run("predict", mine, hal[0], "-o", tmp_path / "out.csv")
    header, row = (tmp_path / "out.csv").read_text(encoding="utf-8-sig").splitlines()
    assert header.startswith("path,identity,score,nearest_1,score_1")
    assert row.split(",")[1] == (found["identity"] or "")


def test_verifying_is_symmetric_and_sure_of_itself(run: Run, fitted: tuple[Any, Path], hal: list[Path]) -> None:
    one, other, same = (
        json.loads(run("verify", fitted[1], *pair, "--json").out) for pair in (hal[:2], hal[1::-1], (hal[0], hal[0]))
    )
    assert one["similarity"] == pytest.approx(other["similarity"], abs=1e-6)
    assert (one["same"], one["threshold"]) == (other["same"], other["threshold"])
    assert same["same"]
    assert same["similarity"] == pytest.approx(1, abs=1e-6)
    assert one["false_accept_rate"] == 0.01


def test_identities_that_training_lacks_are_strangers(run: Run, fitted: tuple[Any, Path], tmp_path: Path) -> None:
    """In `evaluate` of a folder, and in the test part of a fit."""
    data = folder_of(folder_of(tmp_path / "d" / "test", NAMES[:2], range(5, 9)), ("hal",), range(4))
    scored = run("evaluate", fitted[1], data, "--json")
    assert scored.code == 0, scored.err
    found = json.loads(scored.out)
    assert found["n"] == 8
    assert found["pairs"] == {"genuine": 3 * 6, "impostor": 3 * 16}
    folder_of(tmp_path / "d" / "train", NAMES, range(4))
    done = run("fit", tmp_path / "d", "--task", "recognise", "-o", tmp_path / "m", *TINY, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["test"]["n"] == 8 == told["baselines"]["raw_pixels"]["n"]
    assert read_bundle(tmp_path / "m").manifest["classes"] == list(NAMES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("enrol", "MODEL", " ", "IMAGE"), "is empty"),
        (("enrol", "MODEL", "a\x1bb", "IMAGE"), "is not allowed"),
        (("enrol", "MODEL", "Unknown", "IMAGE"), "said of nobody"),
        (("enrol", "MODEL", "hal"), "NAME IMAGES, or --remove NAME"),
        (("enrol", "MODEL", "hal", "NOTHING"), "no image can be read"),
        (("enrol", "MODEL", "--remove", "an"), "did you mean anna"),
        (("enrol", "MODEL", "hal", "IMAGE", "--remove", "anna"), "needs nothing else"),
        (("enrol", "CLASSES", "hal", "IMAGE"), "--task recognise"),
        (("enrol", "CLASSES", "--remove", "moss"), "--task recognise"),
        (("verify", "CLASSES", "IMAGE", "IMAGE"), "--task recognise"),
        (("verify", "MODEL", "IMAGE", "NOTHING"), "NOTHING.png cannot be read"),
        (("fit", "PEOPLE", "--add-to", "MODEL", "-o", "OTHER"), "headstart enrol"),
        (("fit", "PEOPLE", "--task", "recognise", "--tune", "all", "-o", "OTHER"), "--backbone MODEL"),
        (("fit", "PEOPLE", "--task", "recognise", "--head", "gap, dense", "-o", "OTHER"), "--head gap, dense"),
        (("compare", "PEOPLE", "--task", "recognise"), "leave --task out"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(
    words: tuple[str, ...],
    said: str,
    run: Run,
    fitted: tuple[Any, Path],
    model: Path,
    people: Path,
    hal: list[Path],
    tmp_path: Path,
) -> None:
    (tmp_path / "NOTHING.png").write_bytes(b"nothing")
    places = {"MODEL": fitted[1], "CLASSES": model, "PEOPLE": people, "IMAGE": hal[0], "OTHER": tmp_path / "other"}
    places["NOTHING"] = tmp_path / "NOTHING.png"
    before = (fitted[1] / "checksums.json").read_bytes()
    found = run(*(places.get(word, word) for word in words))
    assert found.code in (1, 2)
    lines = [line for line in found.err.splitlines() if line.startswith("headstart")]
    assert len(lines) == 1, found.err
    assert said in lines[0]
    assert "Traceback" not in found.err
    assert (fitted[1] / "checksums.json").read_bytes() == before
    assert not (tmp_path / "other").exists()


def test_the_last_one_stays(run: Run, mine: Path) -> None:
    for name in read_bundle(mine).manifest["classes"][:-1]:
        assert run("enrol", mine, "--remove", name).code == 0
    last = run("enrol", mine, "--remove", read_bundle(mine).manifest["classes"][0])
    assert (last.code, "nobody would be left" in last.err) == (1, True)


def test_a_kill_between_writing_and_renaming_leaves_the_old_model(
    run: Run, mine: Path, hal: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    before = {f.name: f.read_bytes() for f in mine.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(swap, "_put_in_place", killed)
        assert run("enrol", mine, "hal", *hal).code == 130
    assert {f.name: f.read_bytes() for f in mine.iterdir()} == before
    assert run("enrol", mine, "hal", *hal).code == 0


def test_two_who_enrol_at_once_are_both_enrolled(
    run: Run, mine: Path, hal: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.story import enrol

    embedded = enrol.embedded

    def meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(enrol, "embedded", embedded)
        assert run("enrol", mine, "ida", hal[1]).code == 0
        return embedded(*given)

    monkeypatch.setattr(enrol, "embedded", meanwhile)
    assert run("enrol", mine, "hal", hal[0]).code == 0
    bundle = read_bundle(mine)
    assert {"hal", "ida"} <= set(bundle.manifest["classes"])
    assert [change["name"] for change in bundle.run["enrolled"]] == ["ida", "hal"]


Change = Callable[[dict[str, Any], dict[str, Any]], object]
HOSTILE: dict[str, Change] = {
    "nan": lambda manifest, t: t["gallery.means"].__setitem__((0, 0), np.nan),
    "long": lambda manifest, t: t["gallery.means"].__imul__(1e200),
    "narrow": lambda manifest, t: t.update({"gallery.means": t["gallery.means"][:, :-1]}),
    "half": lambda manifest, t: t.update({"gallery.means": t["gallery.means"].astype(np.float16)}),
    "fewer": lambda manifest, t: t.update({"gallery.means": t["gallery.means"][:-1]}),
    "counts": lambda manifest, t: t["gallery.counts"].__setitem__(0, 0),
    "missing": lambda manifest, t: t.pop("gallery.counts"),
    "more": lambda manifest, t: t.update({"gallery.more": np.zeros(3)}),
    "names": lambda manifest, t: manifest["classes"].append("zoe"),
    "order": lambda manifest, t: manifest["classes"].reverse(),
    "metric": lambda manifest, t: manifest["head"].update(
        {"shrinkage": None if manifest["head"]["shrinkage"] else 0.5}
    ),
    "part": lambda manifest, t: manifest["head"]["parts"].pop(),
    "kind": lambda manifest, t: manifest["head"].update({"kind": forms.LINEAR}),
    "task": lambda manifest, t: manifest.update({"task": "classify"}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_gallery_that_somebody_made_up_is_refused_in_one_line(change: Change, mine: Path) -> None:
    from headstart.ship.package import unpack

    bundle = read_bundle(mine)
    manifest, arrays = (
        json.loads(json.dumps(bundle.manifest)),
        {n: t.copy() for n, t in bundle.tensors(GALLERY).items()},
    )
    change(manifest, arrays)
    network = bundle.contents[MODEL]
    assert isinstance(network, bytes)
    about = {"metrics": bundle.metrics, "run": bundle.run, "config": bundle.config}
    write_bundle(mine, manifest=manifest, tensors={GALLERY: arrays}, files={MODEL: network}, **about)
    with pytest.raises(BundleError) as error:
        unpack(read_bundle(mine))
    assert "\n" not in str(error.value)
    assert "fit` again" in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("identify", {"value": 5, "rate": 0.01, "n": 1}), ("verify", {"value": 0.5, "rate": 0, "n": 1}), ("shrinkage", 2)],
)
def test_thresholds_that_cannot_be_are_refused_before_anything_is_written(
    field: str, value: Any, fitted: tuple[Any, Path]
) -> None:
    manifest = json.loads(json.dumps(read_bundle(fitted[1]).manifest))
    manifest["head"][field] = value
    with pytest.raises(ValueError, match=field):
        forms.parse(json.dumps(manifest).encode(), forms.manifest(1))


def test_marks_count_those_alone_who_are_enrolled() -> None:
    from headstart.tasks.identifier import ABSENT
    from headstart.tasks.recognition import IDENTIFICATION, mark, most_frequent

    said = np.array([[0.9, 0.1, ABSENT], [0.2, 0.1, ABSENT], [0.3, 0.4, ABSENT], [0.9, 0.1, ABSENT]])
    targets = ClassNumbers(np.array([0, 1, 1, 2]), ("a", "b", "c"))
    marks = mark(targets, said)
    assert marks["known"].tolist() == [True, True, True, False]
    assert IDENTIFICATION.value(marks) == pytest.approx(2 / 3)
    assert IDENTIFICATION.of(marks, None)["value"] == pytest.approx(2 / 3)
    constant = mark(targets, most_frequent(ClassNumbers(np.array([0, 1, 1]), targets.names), 4))
    assert IDENTIFICATION.value(constant) == pytest.approx(2 / 3)
    assert IDENTIFICATION.gain(marks, constant, None)["n"] == 3
    strangers = marks.take(~marks["known"])
    assert IDENTIFICATION.of(strangers, None)["value"] is None
    assert IDENTIFICATION.gain(strangers, strangers, None)["difference"]["value"] is None
