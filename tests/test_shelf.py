"""What is kept of networks between runs: it is what was written, or it is not there."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from headstart.errors import OutputError
from headstart.trunk import engine as engines
from headstart.trunk import shelf as shelves
from headstart.trunk.backbone import from_tensors, made_by, open_backbone, timm_tensors
from headstart.trunk.engine import OpenVinoEngine, graph_key
from headstart.trunk.network import Backbone, tap_at
from headstart.trunk.shelf import Shelf, files, kept_bytes

ABOUT = {"of": "a test", "n": 3}
SMALL = "test_efficientnet"
NOTHING = np.empty(0, np.float32)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def small(tmp_path: Path, seed: int = 0) -> Backbone:
    backbone = open_backbone(SMALL, "none", seed, cache=str(tmp_path))
    return backbone.resized(replace(backbone.preprocess, size=(64, 64)))


def rows(backbone: Backbone) -> npt.NDArray[np.float32]:
    engine, found = OpenVinoEngine(backbone, "f32", batch=2), []
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    engine.run([(None, pixels)], lambda tag, values: found.append(values.copy()))
    return found[0]


def test_what_is_kept_is_read_under_its_own_description_alone(shelf: Shelf) -> None:
    assert shelf.read(ABOUT) is None
    shelf.write(ABOUT, b"content")
    assert shelf.read(ABOUT) == b"content"
    assert shelf.read(ABOUT | {"n": 4}) is None
    assert Shelf(shelf.folder.parent).read(dict(reversed(ABOUT.items()))) == b"content"


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: b""])
def test_what_has_changed_on_the_disk_counts_as_absent_and_goes(shelf: Shelf, damage: object) -> None:
    shelf.write(ABOUT, b"content")
    [path] = files(shelf.folder.parent)
    path.write_bytes(damage(b"content"))  # type: ignore[operator]
    assert shelf.read(ABOUT) is None
    assert files(shelf.folder.parent) == []


def test_a_fact_that_is_no_json_counts_as_absent(shelf: Shelf) -> None:
    shelf.write(ABOUT, b"{half")
    assert shelf.fact(ABOUT) is None
    shelf.note(ABOUT | {"n": 5}, {"sizes": [1, 2]})
    assert shelf.fact(ABOUT | {"n": 5}) == {"sizes": [1, 2]}


def test_a_disk_that_refuses_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "networks").write_bytes(b"a file where the folder should be")
    shelf = Shelf(tmp_path)
    shelf.write(ABOUT, b"content")
    assert shelf.read(ABOUT) is None
    assert small(tmp_path).weights_hash == small(tmp_path / "other").weights_hash


def test_what_was_not_used_for_longest_goes_first(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(shelves, "MOST_BYTES", 250)
    for n in range(2):
        shelf.write({"n": n}, bytes(100))
    for age, path in enumerate(sorted(files(shelf.folder.parent), key=lambda p: p.stat().st_mtime)):
        os.utime(path, (age, age))
    shelf.read({"n": 0})  # used now
    shelf.write({"n": 2}, bytes(100))
    assert [shelf.read({"n": n}) is not None for n in range(3)] == [True, False, True]
    assert kept_bytes(shelf.folder.parent) == 200


def test_clearing_leaves_nothing_and_touches_nothing_else(shelf: Shelf) -> None:
    shelf.write(ABOUT, b"content")
    other = shelf.folder.parent / "weights" / "mine-1.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"mine")
    shelves.clear(shelf.folder.parent)
    assert kept_bytes(shelf.folder.parent) == 0
    assert other.read_bytes() == b"mine"
    (shelf.folder / "a-b").mkdir()  # no file of ours
    shelves.clear(shelf.folder.parent)


def test_a_folder_that_cannot_be_cleared_is_said_in_one_line(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.write(ABOUT, b"content")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="cannot be cleared"):
        shelves.clear(shelf.folder.parent)


def test_a_network_that_is_known_is_the_one_that_was_made(tmp_path: Path) -> None:
    made, known = small(tmp_path), small(tmp_path)
    assert replace(known, network=made.network) == made
    assert known.network.described == made.network.described
    theirs, ours = made.network.tensors(), known.network.tensors()
    assert known.network._made is None  # all that without making it
    assert set(theirs) == set(ours)
    assert all(np.array_equal(theirs[n], ours[n]) and theirs[n].shape == ours[n].shape for n in theirs)
    assert all(t.equal(known.module.state_dict()[n]) for n, t in made.module.state_dict().items())
    assert tap_at(known, "blocks.1", "flatten") == tap_at(made, "blocks.1", "flatten")
    assert not known.module.training
    assert not any(p.requires_grad for p in known.module.parameters())


def test_another_seed_or_other_bytes_are_another_network(tmp_path: Path) -> None:
    one, two = small(tmp_path), small(tmp_path, seed=1)
    assert one.weights_hash != two.weights_hash
    tensors = dict(one.network.tensors())
    again = from_tensors(SMALL, tensors, one.preprocess, "saved", "mit", cache=str(tmp_path))
    name = next(n for n, t in tensors.items() if t.dtype == np.float32)
    other = from_tensors(SMALL, tensors | {name: tensors[name] + 1}, one.preprocess, "saved", "mit", str(tmp_path))
    assert again.weights_hash == one.weights_hash != other.weights_hash
    assert graph_key(again, 4) == graph_key(one, 4) != graph_key(other, 4)


def test_a_file_of_weights_that_changed_is_read_again(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    file, one = tmp_path / "mine.safetensors", small(tmp_path)
    state = {n: t.numpy().copy() for n, t in one.module.state_dict().items()}
    hashes = []
    for add in (0, 0, 1):
        save_file({n: t + add if t.dtype == np.float32 else t for n, t in state.items()}, file)
        hashes.append(open_backbone(SMALL, str(file), cache=str(tmp_path)).weights_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_compiled_anew_read_and_imported_answer_the_same_to_the_bit(tmp_path: Path) -> None:
    backbone = small(tmp_path)
    first = rows(backbone)
    kept = {path.name for path in files(tmp_path)}
    assert np.array_equal(rows(small(tmp_path)), first)
    assert {path.name for path in files(tmp_path)} == kept  # nothing was made again
    shelf = Shelf(tmp_path)
    core = engines.openvino.Core()
    config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    config |= {"INFERENCE_NUM_THREADS": engines.n_cores()}
    about = {"compiled": graph_key(backbone, 2), "for": config | engines.processor(core)}
    shelf.write(about, b"no compiled network")  # as by another release that calls itself the same
    assert np.array_equal(rows(small(tmp_path)), first)
    assert np.array_equal(rows(backbone.around(backbone.module)), first)  # and without a shelf


def test_the_top_is_part_of_what_a_graph_with_it_is_kept_under(tmp_path: Path) -> None:
    one = small(tmp_path)
    tensors = dict(one.network.tensors())
    same_trunk = from_tensors(SMALL, tensors, one.preprocess, "saved", "mit", cache=str(tmp_path))
    tops = [replace(b, taps=(), ends=("logits",)) for b in (one, same_trunk)]
    assert graph_key(tops[0], 4) != graph_key(tops[1], 4)
    maxima = [replace(b, taps=(tap_at(b, "blocks.1", "max"),), ends=()) for b in (one, same_trunk)]
    assert graph_key(maxima[0], 4) != graph_key(maxima[1], 4)  # a layer may lie in the top


def test_a_known_network_that_is_pickled_needs_no_cache_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path)
    content = pickle.dumps(small(tmp_path))
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "elsewhere"))
    shelves.clear(tmp_path)
    read = pickle.loads(content)
    assert np.array_equal(rows(read), rows(small(tmp_path / "elsewhere")))
    assert timm_tensors(read, NOTHING, NOTHING).keys() == timm_tensors(small(tmp_path), NOTHING, NOTHING).keys()


def test_what_is_kept_depends_on_the_code_that_makes_it() -> None:
    assert set(made_by()) == {"torch", "timm", "code"}
    assert len(made_by()["code"]) == 32
