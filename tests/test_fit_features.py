"""A model of a folder of features: the one that the pictures give, with none of them at hand."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import Run, picture
from headstart.cli.main import main
from headstart.data.feature_set import WHOLE, read_set
from headstart.data.images import write_png
from headstart.files.bundle import HEAD, MODEL, read_bundle
from headstart.story import feature_folder, feature_rows
from headstart.story.feature_rows import features_in
from headstart.tasks import task

SMALL = ("--backbone", "test_efficientnet", "--weights", "none", "--size", "32", "--precision", "f32")
PER_CLASS = 12


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes that a colour mostly tells apart, one twice, and some that cannot be read; `features`
    in files of seven; a `model` of the pictures."""
    root, rng = tmp_path_factory.mktemp("fit"), np.random.default_rng(0)
    for colour, name in enumerate(("moss", "sand", "sea")):
        (root / "data" / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            write_png(picture(colour, rng, strength=10), root / "data" / name / f"{number:02}.png")
    shutil.copy(root / "data" / "moss" / "00.png", root / "data" / "moss" / "copy.png")
    for number in range(15):  # two files of features without an image
        (root / "data" / "sea" / f"broken{number:02}.png").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_folder, "piece_rows", lambda backbone: 7)
        main(["features", str(root / "data"), "-o", f"{root / 'features'}/", *SMALL])
    main(["fit", str(root / "data"), "-o", str(root / "model"), *SMALL])
    return root


def same_models(one: Path, other: Path) -> None:
    """Of pictures and of their features: heads, split, judged numbers; but for what asks for pixels, and times."""
    a, b = read_bundle(one), read_bundle(other)
    for file in (MODEL, HEAD):
        ours, theirs = a.tensors(file), b.tensors(file)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert a.manifest == b.manifest
    assert pq.read_table(one / "split.parquet") == pq.read_table(other / "split.parquet")
    found = [json.loads((model / "metrics.json").read_text()) for model in (one, other)]
    found[0]["baselines"].pop("random_weights", None)
    for each in found:
        del each["seconds"], each["shortcut"]
    assert found[0] == found[1]
    lists = [{path.name: path.read_bytes() for path in model.glob("*.csv")} for model in (one, other)]
    assert lists[0] == lists[1] != {}


def test_features_give_the_model_of_the_pictures_without_them(here: Path, tmp_path: Path, run: Run) -> None:
    moved, model = tmp_path / "elsewhere", tmp_path / "model"
    shutil.copytree(here / "features", moved)
    (here / "data").rename(here / "gone")
    try:
        found = run("fit", moved, "-o", model)
        again = run("fit", moved, "-o", model)  # of the same images: it may take its place
    finally:
        (here / "gone").rename(here / "data")
    assert (found.code, again.code) == (0, 0), found.err + again.err
    assert "note: fitted from features, without the pictures" in found.err
    same_models(here / "model", model)
    assert (model / "report.html").read_text().count("data:image/jpeg") > 5
    one = here / "data" / "sand" / "03.png"
    answers = [run("predict", folder, one, "--json") for folder in (here / "model", model)]
    assert (answers[0].code, answers[0].out) == (0, answers[1].out)


def listed(here: Path, name: str, column: str, truth: Callable[[Path, int], object]) -> Path:
    """A list beside the pictures of all of them but the first three; a quarter of them judge."""
    paths = sorted((here / "data").glob("*/*.png"))[3:]
    lines = [
        f"{path.relative_to(here / 'data').as_posix()},{'train' if k % 4 else 'test'},{truth(path, k)}"
        for k, path in enumerate(paths)
    ]
    (here / "data" / name).write_text("\n".join([f"path,split,{column}", *lines]))
    return here / "data" / name


def test_new_labels_are_those_of_a_list_of_the_same_pictures(here: Path, tmp_path: Path, run: Run) -> None:
    """Values and several labels too. Pictures that the list does not name stay out."""
    whole = ("--view", "whole")
    assert run("features", here / "data", "-o", f"{tmp_path / 'whole'}/", *SMALL, *whole).code == 0
    kinds = listed(
        here, "kinds.csv", "kind,place", lambda path, k: f"{'wet' if path.parent.name == 'sea' else 'dry'},{k // 2}"
    )
    tags = listed(here, "tags.csv", "kind", lambda path, k: ("red " if k % 3 else "") + path.parent.name)
    values = listed(here, "values.csv", "kind,weight", lambda path, k: f"a,{k % 7 + 0.25 * k}")
    for labels, options in (
        (kinds, ["--label", "kind", "--group", "place"]),
        (tags, ["--task", "tag"]),
        (values, ["--task", "regress", "--label", "weight"]),
    ):
        models = [tmp_path / labels.stem / name for name in ("pictures", "features")]
        one = run("fit", labels, "-o", models[0], *SMALL, *whole, *options)
        (here / "data" / "moss").rename(here / "gone")
        try:
            two = run("fit", tmp_path / "whole", "-o", models[1], "--labels", labels, *options)
        finally:
            (here / "gone").rename(here / "data" / "moss")
        assert (one.code, two.code) == (0, 0), one.err + two.err
        same_models(*models)


def test_many_features_are_read_a_part_at_a_time_and_give_the_same(
    here: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = listed(here, "parts.csv", "kind", lambda path, k: path.parent.name)
    assert run("fit", here / "features", "-o", tmp_path / "few", "--labels", labels).code == 0
    found = read_set(here / "features")
    rows = np.random.default_rng(0).permutation(len(found))[:30]
    few = features_in(found, rows, tmp_path, lambda n: None)
    for module, name, value in ((feature_rows, "IN_MEMORY", 0), (feature_rows, "KEPT", 0), (task, "MANY", 5)):
        monkeypatch.setattr(module, name, value)
    assert run("fit", here / "features", "-o", tmp_path / "many", "--labels", labels).code == 0
    a, b = (read_bundle(tmp_path / name) for name in ("few", "many"))
    assert a.manifest == b.manifest
    assert all(np.array_equal(one, b.tensors(HEAD)[name]) for name, one in a.tensors(HEAD).items())
    many = features_in(found, rows, tmp_path, lambda n: None)
    whole = features_in(found, np.arange(len(found)), tmp_path, lambda n: None)
    assert np.array_equal(few.thumbnails, many.thumbnails)
    for name, block in few.blocks.items():
        assert not isinstance(whole.blocks[name], np.ndarray)
        elsewhere = pickle.loads(pickle.dumps(whole.blocks[name]))
        for index in (slice(2, 20), np.array([7, 7, 1]), np.arange(4, 9), slice(None)):
            assert np.array_equal(block[index], many.blocks[name][index])
            assert np.array_equal(block[index], elsewhere[rows[index]])


def changed(folder: Path, name: str, how: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads((folder / name).read_text())
    how(said)
    (folder / name).write_text(json.dumps(said))


def test_what_is_no_whole_set_of_one_network_is_said_in_a_line(here: Path, tmp_path: Path, run: Run) -> None:
    def refused(break_it: Callable[[Path], object], *words: str, options: tuple[object, ...] = ()) -> None:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(here / "features", folder)
        break_it(folder)
        found = run("fit", folder, "-o", tmp_path / "model", *options)
        assert found.code in (1, 2)
        assert not (tmp_path / "model").exists()
        last = found.err.splitlines()[-1]
        assert all(word in last for word in ("headstart: ", *words)), last

    again = "-o {}/` again".format(tmp_path / "broken")
    refused(lambda folder: (folder / WHOLE).unlink(), f"no {WHOLE}", again)
    refused(lambda folder: (folder / "part-000002.parquet").unlink(), "part-000002.parquet", "is missing", again)
    refused(lambda folder: changed(folder, WHOLE, lambda said: said.pop("seen_by")), "which network", again)
    refused(lambda folder: changed(folder, WHOLE, lambda said: said.pop("remarks")), "newer folders", again)
    refused(lambda folder: changed(folder, WHOLE, lambda said: said.update(images=3)), "says 3", again)
    refused(lambda folder: changed(folder, WHOLE, lambda said: said["seen_by"].update(weights="x")), "another network")
    refused(lambda folder: (folder / WHOLE).write_text("{"), "cannot be read", again)

    def cut(folder: Path) -> None:
        path = folder / "part-000001.parquet"
        path.write_bytes(path.read_bytes()[:-10])

    def narrow(folder: Path) -> None:
        path = folder / "part-000001.parquet"
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["pre_logits"]), path)

    refused(cut, "part-000001.parquet", "cannot be read", again)
    refused(narrow, "part-000001.parquet", "pre_logits", again)

    def elsewhere(folder: Path) -> None:
        changed(folder, WHOLE, lambda said: said["options"].update(backbone="no_such_network"))

    def drawn(folder: Path) -> None:
        changed(folder, WHOLE, lambda said: said["options"].update(seed=1))

    def one_layer(folder: Path) -> None:
        shutil.rmtree(folder)
        assert run("features", here / "data", "-o", f"{folder}/", "--layer", "blocks.1", *SMALL).code == 0

    refused(elsewhere, "cannot be opened here", "--backbone")
    refused(drawn, "of another network (weights: ")
    refused(one_layer, "holds blocks.1/mean alone", "without --layer")
    refused(lambda folder: None, "--tune auto asks for the pictures", options=("--tune", "auto"))
    refused(lambda folder: None, "--size 64 asks for the pictures", options=("--size", "64"))
    refused(lambda folder: None, "--explain asks for the pictures", options=("--explain",))
    refused(lambda folder: None, "does not hold blocks.0.0", options=("--layer", "blocks.0.0"))
    refused(lambda folder: None, "--label is of a list", options=("--label", "kind"))
    refused(lambda folder: None, "of the task classify", options=("--task", "tag"))
    (tmp_path / "labels.csv").write_text("path,label\nx.png,a\ny.png,b")
    refused(lambda folder: None, "'x.png'", "'moss/00.png'", options=("--labels", tmp_path / "labels.csv"))
    found = run("fit", here / "data", "-o", tmp_path / "model", "--labels", tmp_path / "labels.csv")
    assert "gives new labels to a folder that headstart features has written" in found.err
