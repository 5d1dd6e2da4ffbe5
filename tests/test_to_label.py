"""What `predict` takes: pictures, folders, lists without labels, Parquet, zip files, paths on standard input."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import Run
from headstart.data import archives, to_label
from headstart.data.images import Limits
from headstart.data.table import Table, list_images
from headstart.errors import DataError, ImageError

PATHS = [f"images/{one}.png" for one in "abcd"]


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """images/a.png to d.png, whose bytes are their names."""
    (tmp_path / "images").mkdir()
    for path in PATHS:
        (tmp_path / path).write_bytes(path.encode())
    return tmp_path


def contents(table: Table) -> list[str]:
    """What each row holds, "" where it cannot be read."""

    def content(row: int) -> str:
        try:
            data = table.read(row)
        except ImageError:
            return ""
        assert isinstance(data, bytes)
        return data.decode()

    return [content(row) for row in range(len(table))]


@pytest.mark.parametrize("inner", ["masks", "annotations", "test_labels"])
def test_masks_are_no_pictures_for_a_model_that_segments(four: Path, inner: str) -> None:
    """As where they teach; a folder of nothing else was meant, and so was a file that is named."""
    (four / inner).mkdir()
    for one in "abcd":
        (four / inner / f"{one}_mask.png").write_bytes(b"mask")
    assert len(list_images([four])) == 8
    found = list_images([four], masks=False)
    assert contents(found) == PATHS
    assert any("4 masks of pictures" in note for note in found.notes)
    assert len(list_images([four / inner], masks=False)) == 4
    assert len(list_images([four / inner / "a_mask.png"], masks=False)) == 1


def test_lists_need_no_labels_where_none_are_used(four: Path) -> None:
    (four / "list.csv").write_text("file\n" + "".join(f"{p}\n" for p in [*PATHS, PATHS[0]]))
    (four / "list.txt").write_text("".join(f"{p}\n" for p in PATHS))
    (four / "labelled.csv").write_text("path,label\nimages/a.png,x\nimages/b.png,ants;bees\n")
    pq.write_table(pa.table({"image": pa.array([b"1", b"2"])}), four / "set.parquet")
    assert contents(list_images([four / "list.csv"])) == [*PATHS, PATHS[0]]  # a line an answer
    assert contents(list_images([four / "list.txt", four / "set.parquet"])) == [*PATHS, "1", "2"]
    assert contents(list_images([four / "labelled.csv"])) == PATHS[:2]
    (four / "sets").mkdir()
    (four / "set.parquet").rename(four / "sets/train-0.parquet")
    assert contents(list_images([four / "sets"])) == ["1", "2"]


def test_one_missing_among_others_is_a_row_and_all_missing_is_an_error(four: Path) -> None:
    table = list_images([four / "no.png", four / "images/a.png", four / "no.csv"])
    assert contents(table) == ["", "images/a.png", ""]
    with pytest.raises(ImageError, match="does not exist"):
        table.read(0)
    with pytest.raises(DataError, match=r"no.png does not exist.*and 1 more"):
        list_images([four / "no.png", four / "no.csv"])
    (four / "bad.csv").write_text("kind\nx\n")
    assert contents(list_images([four / "bad.csv", four / "images/b.png"])) == ["", "images/b.png"]
    with pytest.raises(DataError, match="no column 'path'"):
        list_images([four / "bad.csv"])


# Zip files


def packed(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_pictures_in_a_zip_file_are_read_from_it_by_any_number_of_threads(tmp_path: Path) -> None:
    members = {f"in/{k}.png": f"{k}".encode() * 1000 for k in range(100)}
    others = {"in/": b"", "__MACOSX/in/._1.png": b"x", "in/.hidden.png": b"x", "readme.txt": b"x", "in/Thumbs.db": b"x"}
    path = packed(tmp_path / "a.zip", others | members)
    table = list_images([path])
    names = sorted(members, key=str.encode)
    assert table.names.tolist() == [f"{path}/{name}" for name in names]
    assert table.notes == (f"{path}: 4 files in it are no pictures",)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(table.read, range(100))) == [members[name] for name in names]
    assert threading.active_count() < 20


def test_a_member_that_cannot_be_unpacked_is_a_row_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(
        tmp_path / "a.zip", {"a.png": b"a" * 99, "locked.png": b"b", "wrong.png": b"wrong", "z.png": b"z" * 9999}
    )
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as file:
        file.writestr("lzma.png", b"l")
    data = bytearray(path.read_bytes())
    for found, offset in ((data.find(b"locked.png") - 30, 6), (data.rfind(b"locked.png") - 46, 8)):
        data[found + offset] |= archives.NEEDS_PASSWORD
    at = data.find(b"wrong.png") + len("wrong.png")
    data[at + 3] ^= 0xFF
    path.write_bytes(data)
    monkeypatch.setattr(archives, "DEFAULT_LIMITS", Limits(max_bytes=5000))
    table = list_images([path])
    reasons = {}
    for row in range(len(table)):
        try:
            table.read(row)
        except ImageError as error:
            reasons[Path(table.names[row]).name] = str(error)
    assert list(reasons) == ["locked.png", "lzma.png", "wrong.png", "z.png"]
    for name, said in zip(reasons, ("password", "packed in a way", "cannot be unpacked", "9,999 bytes"), strict=True):
        assert said in reasons[name]


def test_a_damaged_zip_file_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = packed(tmp_path / "a.zip", {f"{k}.png": b"x" for k in range(50)}).read_bytes()
    (tmp_path / "no.zip").write_bytes(b"no zip")
    (tmp_path / "cut.zip").write_bytes(sound[:-30])
    (tmp_path / "none.zip").write_bytes(packed(tmp_path / "e.zip", {"readme.txt": b""}).read_bytes())
    for name, said in (("no.zip", "not a sound zip"), ("cut.zip", "not a sound zip"), ("none.zip", "no images found")):
        with pytest.raises(DataError, match=said) as caught:
            list_images([tmp_path / name])
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(archives, "MOST_CONTENTS", 1000)
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        list_images([tmp_path / "a.zip"])


def test_a_flipped_bit_anywhere_in_a_zip_file_ends_in_words(tmp_path: Path) -> None:
    sound = packed(tmp_path / "a.zip", {"a.png": b"a" * 50, "b/c.png": b"c"}, zipfile.ZIP_STORED).read_bytes()
    for place in range(len(sound)):
        (tmp_path / "b.zip").write_bytes(sound[:place] + bytes([sound[place] ^ 1 << place % 8]) + sound[place + 1 :])
        with contextlib.suppress(DataError):
            assert set(contents(list_images([tmp_path / "b.zip"]))) <= {"a" * 50, "c", ""}, place


# Standard input


class Piped(io.TextIOWrapper):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


@pytest.mark.parametrize("data", [b"a.png\nb c.png\n\n", b"a.png\r\nb c.png", b"a.png\0b c.png\0"])
def test_paths_come_on_standard_input_in_lines_or_with_zero_bytes(data: bytes) -> None:
    assert to_label.named(["x.png", "-", "y"], Piped(data)) == ["x.png", "a.png", "b c.png", "y"]


def test_standard_input_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert to_label.named(["x.png"], Piped(b"a.png")) == ["x.png"]
    assert to_label.named(["-"], Piped(b"a\nb.png\0")) == ["a\nb.png"]
    with pytest.raises(DataError, match="no path came"):
        to_label.named(["-"], Piped(b"\n"))
    monkeypatch.setattr(to_label, "MOST_PATHS", 4)
    with pytest.raises(DataError, match="more than 4 bytes"):
        to_label.named(["-"], Piped(b"a.png\n"))


# The command


def test_every_way_to_name_the_same_pictures_gives_the_same_answers(
    run: Run, model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["moss/0.png", "sand/0.png", "sea/0.png"]
    for name in names:
        (tmp_path / name).parent.mkdir()
        shutil.copy(pictures / name, tmp_path / name)
    files = [tmp_path / name for name in names]
    (tmp_path / "list.csv").write_text("file\nmoss\\0.png\nsand/0.png\nno.png\nsea/0.png\n")
    packed(tmp_path / "set.zip", {name: file.read_bytes() for name, file in zip(names, files, strict=True)})
    monkeypatch.setattr("sys.stdin", Piped("".join(f"{file}\n" for file in files).encode()))

    def answers(what: object) -> tuple[list[tuple[str, float]], str]:
        found = run("predict", model, what, "--json")
        assert found.code == 0, found.err
        records = json.loads(found.out)
        missing = [record["error"] for record in records if record["label"] is None]
        assert missing == ["the file does not exist"] * ("list.csv" in str(what))
        return [(r["label"], r["probability"]) for r in records if r["label"] is not None], found.err

    first, _ = answers(tmp_path / "set.zip")
    assert [label for label, _ in first] == ["moss", "sand", "sea"]
    assert answers("-")[0] == first
    listed, told = answers(tmp_path / "list.csv")
    assert listed == first
    assert "note: 1 path was found otherwise than written: 'moss\\\\0.png' is moss/0.png" in told
    assert "note: 1 path names no file that exists, such as 'no.png'" in told
    assert run("predict", model, tmp_path / "no.png", tmp_path / "no.csv").code == 1
