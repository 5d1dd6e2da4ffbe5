"""The study of transferability in miniature: what is frozen stays, a killed study goes on, differences are paired."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from headstart.data.table import Table, read_table

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "transferability"
NAMES = ("study", "network", "figure")


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    """examples/transferability/study.py as a module; it sets the number of threads, so that is put back."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("study")
        for name in NAMES:
            patch.delitem(sys.modules, name, raising=False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cifar(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-100 with four images of each class to learn from and two to test: the miniature takes two and one."""
    folder = tmp_path_factory.mktemp("data") / "cifar100"
    folder.mkdir()
    for part, many in (("train", 4), ("test", 2)):
        (file,) = (shared / "data" / "cifar100").glob(f"{part}-*.parquet")
        whole = pq.read_table(file)
        numbers = whole["label"].to_numpy()
        rows = np.sort(np.concatenate([np.flatnonzero(numbers == number)[:many] for number in range(100)]))
        pq.write_table(whole.take(pa.array(rows)), folder / file.name)
    return folder


@pytest.fixture(scope="module")
def done(study: ModuleType, cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished miniature; not to be changed."""
    folder = tmp_path_factory.mktemp("study") / "done"
    study.main([str(cifar), "-o", str(folder), "--size", "tiny", "--workers", "1"])
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_network_of_the_design_is_there(done: Path) -> None:
    runs = read(done / "results.json")["networks"]
    keys = {(run["split"], run["target"], run["arm"], run["n"]) for run in runs}
    arms = {("base", 0), ("BnB", 0), ("BnB", 1), ("AnB", 1), ("BnB+", 1), ("AnB+", 1)}
    assert keys == {(split, target, *arm) for split in ("random0", "kind") for target in "ab" for arm in arms}
    assert len(runs) == len(keys)


def test_halves_share_no_class_and_leave_none_out(done: Path) -> None:
    classes = read(done / "results.json")["classes"]
    for half in classes.values():
        assert len({*half["a"], *half["b"]}) == len(half["a"]) + len(half["b"]) == 100
    assert len(classes["random0"]["a"]) == 50
    assert (len(classes["kind"]["a"]), len(classes["kind"]["b"])) == (65, 35)
    assert {"tiger", "woman", "rose", "orange", "oak_tree", "worm"} <= set(classes["kind"]["a"])


@pytest.fixture(scope="module")
def table(cifar: Path) -> Table:
    return read_table(cifar)


@pytest.fixture(scope="module")
def halves(study: ModuleType, table: Table) -> Any:
    """The images of the miniature's classes."""
    return study.prepare(table, replace(study.SIZES["tiny"], splits=("random0",)), "cpu")[1]


@pytest.mark.parametrize(("arm", "source"), [("BnB", "b"), ("AnB", "a"), ("BnB+", "b"), ("AnB+", "a")])
def test_frozen_layers_are_the_donors_bit_for_bit(
    arm: str, source: str, study: ModuleType, halves: Any, done: Path
) -> None:
    """Weights and BatchNorm statistics; the copied layers of the other arms must move."""
    size = replace(study.SIZES["tiny"], splits=("random0",))
    network, _ = study.make(study.Job("random0", "b", arm, 3), study.Study(done, size, halves, "bf16"))
    donor = load_file(done / "networks" / f"random0-{source}-base.safetensors")
    state = network.state_dict()
    copied = [name for name in state if int(name.partition(".")[0]) < 3]
    assert len(copied) == 3 * 6  # a convolution, and five tensors of BatchNorm
    same = [torch.equal(state[name], donor[name]) for name in copied]
    assert all(same) if not arm.endswith("+") else not any(same)
    rest = [name for name in state if name not in copied and state[name].is_floating_point()]
    assert not any(state[name].shape == donor[name].shape and torch.equal(state[name], donor[name]) for name in rest)


def test_a_study_cut_short_ends_with_the_same_results(
    study: ModuleType, cifar: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is there; killed while it trains a base network and again at a copy; one result lost as well."""
    folder = shutil.copytree(done, tmp_path / "again")
    for path in (*folder.glob("runs/kind-*"), *folder.glob("networks/kind-*"), folder / "results.json"):
        path.unlink()
    command = [str(cifar), "-o", str(folder), "--size", "tiny", "--workers", "1"]
    make, made = study.make, []

    def interrupted(job: Any, what: Any) -> Any:
        made.append(job.name)
        result = make(job, what)  # all the work is done, and nothing of it is written
        if len(made) in (2, 6):
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(study, "make", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            study.main(command)
    (folder / "runs" / f"{made[4]}.json").unlink()
    (folder / "networks" / ".123-kind-a-base.safetensors").write_text("half a file")
    study.main(command)
    twice = {name for name in made if made.count(name) == 2}
    assert twice == {made[1], made[5], made[4]}
    assert len(made) == 12 + 3
    for name in ("results.json", "tables.md", "figure.svg"):
        assert (folder / name).read_bytes() == (done / name).read_bytes()


def test_another_study_is_not_mixed_in(study: ModuleType, cifar: Path, done: Path) -> None:
    with pytest.raises(SystemExit, match="other settings"):
        study.main([str(cifar), "-o", str(done), "--size", "tiny", "--workers", "1", "--precision", "f32"])


def test_paired_differences_and_errors(done: Path) -> None:
    results = read(done / "results.json")
    accuracy = {(r["split"], r["target"], r["arm"], r["n"]): r["accuracy"] for r in results["networks"]}
    seen = set()
    for row in results["differences"]:
        splits = {"all": ("random0", "kind"), "random": ("random0",), "kind": ("kind",)}[row["halves"]]
        base = (row["against"], 0 if row["against"] == "base" else row["n"])
        gains = [accuracy[s, t, row["arm"], row["n"]] - accuracy[s, t, *base] for s in splits for t in "ab"]
        assert sorted(row["pairs"].values()) == pytest.approx(sorted(gains))
        assert row["mean"] == pytest.approx(statistics.fmean(gains))
        assert row["standard_error"] == pytest.approx(statistics.stdev(gains) / math.sqrt(len(gains)))
        seen.add((row["arm"], row["against"], row["n"], row["halves"]))
    assert len(seen) == len(results["differences"]) == 3 * (6 + 1)  # six contrasts at n = 1, one at n = 0


def test_figure_and_tables_show_the_results(study: ModuleType, done: Path, tmp_path: Path) -> None:
    """From made-up accuracies whose figure and tables are known; half of the networks suffice."""
    folder = shutil.copytree(done, tmp_path / "copy")
    for path in (folder / "runs").glob("*.json"):
        run = read(path)
        gain = {"base": 0.0, "BnB": -0.01, "AnB": -0.05, "BnB+": 0.01, "AnB+": 0.02}[run["arm"]]
        path.write_text(json.dumps({**run, "accuracy": 0.5 + gain + (0.004 if run["target"] == "a" else 0)}))
    (folder / "runs" / "kind-a-AnB-1.json").unlink()
    study.figure.main([str(folder), "-o", str(tmp_path / "out")])
    tables = (tmp_path / "out" / "tables.md").read_text()
    assert "| kind-a | 65 | 50.4 % |" in tables
    assert "| AnB less base |  | −5.0 ± 0.0 |" in tables
    assert "| AnB less BnB |  | −4.0 |" in tables  # by kind, where one pair is left and has no error
    drawing = ElementTree.parse(tmp_path / "out" / "figure.svg").getroot()
    circles = [element for element in drawing.iter() if element.tag.endswith("circle")]
    diamonds = [element for element in drawing.iter() if element.get("class") == "diamond"]
    assert len(circles) == 2 * (2 + 1) + 2 * 2  # two panels with BnB at 0 and 1 and BnB+ at 1; two lines of the key
    assert len(diamonds) == 2 * 2 + 4 + 2 * 2 + 4
    words = {element.text for element in drawing.iter() if element.text}
    assert {"BnB", "AnB+", "AnB, by kind", "layers copied, n", "0", "1"} <= words


def test_data_that_are_not_cifar_100(study: ModuleType, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="needs the 100 fine classes of CIFAR-100, not 3"):
        study.main([str(pictures), "-o", str(tmp_path / "x"), "--size", "tiny", "--workers", "1"])
