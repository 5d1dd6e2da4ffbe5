"""Wrong input is refused in one helpful line, with exit code 1 or 2; nothing is written, no code in a file runs."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TINY, Run, picture
from headstart.data.images import write_png


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def place(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with one of everything that is wrong."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "good")
    shutil.copytree("good/moss", "one-class/moss")
    shutil.copytree("one-class", "one-image")
    Path("one-image/sea").mkdir()
    shutil.copy("good/sea/0.png", "one-image/sea")
    Path("no-images/a").mkdir(parents=True)
    Path("no-images/b").mkdir()
    Path("files").mkdir()
    shutil.copy("good/sea/0.png", "files")
    for name, classes in (("unreadable", ("moss", "sea")), ("lost-class", ("sea",))):
        shutil.copytree("good", name)
        for damaged in (f for c in classes for f in Path(name, c).iterdir()):
            damaged.write_bytes(b"no picture")
        shutil.rmtree(Path(name, "sand"))
    Path("no-path.csv").write_text("name,remark\na.png,moss\n")
    Path("short-line.csv").write_text("path,label\ngood/moss/0.png,moss\ngood/sea/0.png\n")
    Path("odd-split.csv").write_text("path,label,split\ngood/moss/0.png,moss,trian\n")
    Path("empty.csv").write_text("")
    Path("binary.csv").write_bytes(b"path,label\n\xff\xfe\x00")
    Path("broken.parquet").write_bytes(b"PAR1 and no more")
    return tmp_path


@pytest.fixture
def weights(place: Path) -> Path:
    torch.save([1, 2], "list.pth")
    torch.save({"w": torch.zeros(3)}, "other.pth")
    torch.save({"w": Trap(place / "sprung")}, "trap.pth")
    Path("trap.pkl").write_bytes(pickle.dumps(Trap(place / "sprung")))
    Path("empty.pth").write_bytes(b"")
    Path("junk.safetensors").write_bytes(b"hello")
    return place


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder with a hash of its content."""
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "folder"
        for f in sorted(folder.rglob("*"))
    }


FIT = [
    ("nowhere", 1, "nowhere does not exist"),
    ("one-class", 1, "one class only, 'moss'"),
    ("one-image", 1, "class 'sea' has a single training image"),
    ("no-images", 1, "no images found in no-images"),
    ("files", 1, "no class folders"),
    ("no-path.csv", 1, "has no column 'label'"),
    ("short-line.csv", 1, "line 3 has 1 value:"),
    ("odd-split.csv", 1, "did you mean train"),
    ("empty.csv", 1, "is empty"),
    ("binary.csv", 1, "not UTF-8"),
    ("broken.parquet", 1, "not a Parquet file"),
    ("good/moss/0.png", 1, "neither a folder nor a manifest"),
    ("good --backbone resnt18", 1, "did you mean resnet18"),
    ("good --backbone mobilenetv3_small_100", 1, "not on this machine"),
    ("good --taps some", 2, "one of auto, last, all"),
    ("good --precision f16", 2, "one of auto, bf16, f32"),
    ("good --size 3", 2, "size 3 px is not allowed: 16 to 1024"),
    ("good --size 99999", 2, "16 to 1024"),
    ("good --size big", 2, "invalid int value: 'big'"),
    ("good --seed -1", 2, "seed -1 is not allowed"),
    ("good --seed 99999999999", 2, "a whole number from 0"),
    ("good --seed x", 2, "invalid int value"),
    ("good --speed 3", 2, "unrecognized arguments: --speed 3"),
    ("", 2, "required: DATA"),
    ("good -o good/moss", 1, "would be lost"),
    ("good -o no-path.csv", 1, "which is a file"),
    ("good -o /proc/model", 1, "cannot be saved"),
    ("good -o /dev/null/model", 1, "cannot be saved"),
]
OTHERS = [
    ("fti good", 2, "invalid choice: 'fti'"),
    ("predict MODEL good --top 0", 2, "--top 0 is not allowed"),
    ("predict MODEL good --top many", 2, "invalid int value"),
    ("predict MODEL good -o out.txt", 2, "must end in .csv or .jsonl or .json or .parquet"),
    ("predict MODEL good -o nowhere/out.csv", 1, "the folder nowhere does not exist"),
    ("predict MODEL good -o /proc/out.csv", 1, "cannot be written"),
    ("predict MODEL nowhere.png", 1, "nowhere.png does not exist"),
    ("predict MODEL no-images", 1, "no images found"),
    ("predict MODEL", 2, "required: IMAGES"),
    ("predict nowhere good", 1, "there is no model at"),
    ("predict good good", 1, "is not a saved model"),
    ("evaluate MODEL nowhere", 1, "does not exist"),
    ("evaluate MODEL no-images", 1, "no images found"),
    ("evaluate nowhere good", 1, "there is no model at"),
    ("report good", 1, "is not a saved model"),
    ("inspect nowhere", 1, "does not exist"),
    ("inspect no-images", 1, "no images found"),
    ("inspect good --size 0", 2, "16 to 1024"),
    ("features good", 2, "required: -o/--output"),
    ("features good -o f.txt", 2, "must end in .parquet or .csv or .jsonl"),
    ("features good -o nowhere/f.parquet", 1, "the folder nowhere does not exist"),
    ("features nowhere -o f.parquet", 1, "nowhere does not exist"),
    ("features short-line.csv -o f.parquet", 1, "line 3 has 1 value:"),
    ("features good -o f.parquet --layer stem LITTLE", 2, "layer 'stem' is not known"),
    ("demo -o /proc/demo", 1, "cannot be saved"),
]


def refused(run: Run, command: str, model: Path, code: int, said: str) -> None:
    before = snapshot(Path())
    words = [w for part in command.split() for w in (TINY if part == "LITTLE" else [part])]
    found = run(*(str(model) if w == "MODEL" else w for w in words))
    assert found.code == code, found.err
    *read, line = found.err.splitlines()  # what the data were read as stands before what only a library can refuse
    assert said in line
    assert line.startswith("headstart")
    assert len(read) <= 1, found.err
    assert all(" images of " in before for before in read), found.err
    assert found.out == ""
    assert snapshot(Path()) == before


@pytest.mark.parametrize(("command", "code", "said"), FIT)
@pytest.mark.usefixtures("place")
def test_fit_refuses(command: str, code: int, said: str, run: Run, model: Path) -> None:
    output = "" if "-o" in command else " -o new"
    refused(run, f"fit {command}{output}", model, code, said)


@pytest.mark.parametrize(("command", "code", "said"), OTHERS)
@pytest.mark.usefixtures("place")
def test_commands_refuse(command: str, code: int, said: str, run: Run, model: Path) -> None:
    refused(run, command, model, code, said)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("nowhere.pth", "does not exist"),
        ("list.pth", "no state dict"),
        ("other.pth", "another architecture"),
        ("trap.pth", "could run code"),
        ("trap.pkl", "could run code"),
        ("empty.pth", "cannot be read"),
        ("junk.safetensors", "cannot be read"),
        ("good", "cannot be read"),
    ],
)
def test_weights_are_refused_and_no_code_in_them_runs(
    file: str, said: str, run: Run, weights: Path, model: Path
) -> None:
    refused(run, f"fit good -o new --backbone test_efficientnet --weights {file}", model, 1, said)
    assert not (weights / "sprung").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [("unreadable", "none of 16 images can be read"), ("lost-class", "class 'sea' has no readable training image")],
)
@pytest.mark.usefixtures("place")
def test_a_class_that_nobody_can_read_ends_the_fit_in_one_line(data: str, said: str, run: Run) -> None:
    found = run("fit", data, "-o", "new", *TINY)
    assert found.code == 1
    layout, error, end = found.err.split("\n")
    assert layout.startswith(f"{data}: class folders, 16 images of 2 classes")
    assert error.startswith("headstart: ")
    assert said in error
    assert (end, found.out) == ("", "")
    assert not Path("new").exists()


def test_predicting_nothing_but_broken_files_fails_and_names_them(run: Run, place: Path, model: Path) -> None:
    found = run("predict", model, place / "unreadable", "--json")
    assert found.code == 1
    assert found.err.count("\n") == 1
    assert "none of 16 images can be read" in found.err
    assert len(json.loads(found.out)) == 16


def test_evaluate_names_the_class_that_the_model_does_not_know(run: Run, place: Path, model: Path) -> None:
    (place / "good/moss").rename(place / "good/moos")
    refused(run, "evaluate MODEL good", model, 1, "does not know the class 'moos' (did you mean moss?)")


@pytest.mark.parametrize("file", ["headstart.json", "config.json", "model.safetensors", "head.safetensors"])
@pytest.mark.usefixtures("place")
def test_a_flipped_byte_in_any_defining_file_is_refused(file: str, run: Run, model: Path) -> None:
    shutil.copytree(model, "damaged")
    content = bytearray(Path("damaged", file).read_bytes())
    content[len(content) // 2] ^= 1
    Path("damaged", file).write_bytes(content)
    for command in ("predict damaged good", "evaluate damaged good", "report damaged"):
        refused(run, command, model, 1, file)


@pytest.mark.usefixtures("place")
def test_a_model_of_a_newer_format_is_refused(run: Run, model: Path) -> None:
    shutil.copytree(model, "newer")
    manifest = json.loads(Path("newer/headstart.json").read_text()) | {"format_version": 99}
    content = json.dumps(manifest).encode()
    Path("newer/headstart.json").write_bytes(content)
    checksums = json.loads(Path("newer/checksums.json").read_text())
    checksums["headstart.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    Path("newer/checksums.json").write_text(json.dumps(checksums))
    refused(run, "predict newer good", model, 1, "format version 99")


@pytest.mark.usefixtures("place")
def test_a_file_name_cannot_break_the_line_or_send_orders_to_the_terminal(run: Run, model: Path) -> None:
    refused(run, "predict MODEL no\x1b[2Jsuch.png", model, 1, "no\\x1b[2Jsuch.png")
    Path("lines").mkdir()
    write_png(picture(0, np.random.default_rng(1)), Path("lines/a\nb.png"))
    found = run("predict", model, "lines")
    assert found.out.startswith("lines/a\\nb.png: moss")
    assert found.out.count("\n") == 1


@pytest.mark.usefixtures("place")
def test_a_wrong_label_image_pair_in_a_manifest_is_set_aside_not_fatal(run: Run) -> None:
    lines = [f"good/{c}/{k}.png,{c}" for c in ("moss", "sea") for k in range(6)]
    Path("list.csv").write_text("path,label\n" + "\n".join([*lines, "good/gone.png,sea", "good/sand/0.png,"]) + "\n")
    found = run("fit", "list.csv", "-o", "new", "--json", *TINY)
    assert found.code == 0, found.err
    assert "note: not used: 1 image without a label" in found.err
    assert json.loads(found.out)["cross_validation"]["n"] == 12
    assert Path("new/set_aside.csv").read_text().splitlines()[1:] == ["good/gone.png,the file does not exist"]
