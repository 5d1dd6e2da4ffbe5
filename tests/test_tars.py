"""Tar files as WebDataset writes them: what is in them is what a folder would hold, and a hostile one is refused."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY, Run
from far_server import Elsewhere
from headstart.data import images, tars
from headstart.data.identity import identity
from headstart.data.table import list_images, read_table
from headstart.data.tars import several
from headstart.errors import DataError, ImageError
from served import served

Member = tuple[str, bytes]


def write(place: Path, members: list[Member]) -> Path:
    with tarfile.open(place, "w:gz" if place.suffix in (".gz", ".tgz") else "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return place


def samples(pictures: Path, how: str) -> list[Member]:
    """Each picture with its class said in one of the ways."""
    found = []
    for number, file in enumerate(sorted(pictures.glob("*/*.png"))):
        label = file.parent.name
        said = {
            "cls": label,
            "txt": f"{label}\n",
            "json": json.dumps({"label": label, "width": 40, "about": {"a": 1}}),
            "number": str(("moss", "sand", "sea").index(label)),
        }[how]
        found += [(f"all/{number:04d}.png", file.read_bytes())]
        found += [(f"all/{number:04d}.{'cls' if how == 'number' else how}", said.encode())]
    return found


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.parametrize("how", ["cls", "txt", "json", "number"])
def test_what_is_said_of_a_picture_beside_it_is_its_class(
    how: str, ending: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write(tmp_path / f"set.{ending}", samples(pictures, how))
    if how == "number":
        (tmp_path / "classes.txt").write_text("moss\nsand\nsea\n")
    monkeypatch.setattr(tars, "STEP", 5000)
    monkeypatch.setattr(tars, "KEPT_BYTES", 20_000)
    table, folder = read_table(place), read_table(pictures)
    assert table.labels.tolist() == folder.labels.tolist()
    assert table.names[0] == f"set.{ending}/all/0000.png"
    rows = [*range(24), 5, 0, 23, 11]  # back and forth
    expected = [folder.read(row) for row in rows]
    assert [table.read(row) for row in rows] == expected
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(table.read, rows)) == expected
    again = pickle.loads(pickle.dumps(table.sources))
    assert again[3].read() == expected[3]
    assert identity(table) == identity(read_table(place)) is not None


def test_several_files_are_one_set_and_their_names_say_which_part(pictures: Path, tmp_path: Path, run: Run) -> None:
    all_of = samples(pictures, "cls")
    train = [one for k in range(24) if k % 8 < 6 for one in all_of[2 * k : 2 * k + 2]]
    shards = tmp_path / "shards"
    shards.mkdir()
    write(shards / "train-000.tar", train[:12])
    write(shards / "train-001.tar", train[12:])
    write(shards / "val-000.tar", [one for one in all_of if one not in train])
    (shards / "README.md").write_text("x")
    table = read_table(shards)
    assert (table.splits == "train").sum() == 18
    assert (table.splits == "validation").sum() == 6
    both = read_table(f"{shards}/train-{{000..001}}.tar", 1)
    assert both.names.tolist() == table.names[table.splits == "train"].tolist()
    assert len(list_images([shards])) == 24
    assert len(list_images([shards / "val-000.tar", f"{shards}/train-{{000..001}}.tar"])) == 24
    assert run("inspect", shards, *TINY).code == 0
    gone = read_table(f"{shards}/train-{{000..002}}.tar", 1)
    assert len(gone) == 18
    assert "train-002.tar cannot be read as a tar file to its end (it does not exist)" in gone.notes[0]


def test_the_same_elsewhere(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Elsewhere()) as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("0.tar", "1.tar.gz"):
            write(tmp_path / f"set-{name}", samples(pictures, "number"))
        (tmp_path / "classes.txt").write_text("moss\nsand\nsea\n")
        server.put(tmp_path, "web/tars")
        for name in ("set-0.tar", "set-{0..0}.tar", "set-1.tar.gz"):
            near, far = (read_table(f"{place}/{name}") for place in (tmp_path, f"{server.url}/web/tars"))
            assert near.labels.tolist() == far.labels.tolist()
            assert set(far.labels) == {"moss", "sand", "sea"}
            assert [far.read(row) for row in range(24)] == [near.read(row) for row in range(24)]
        server.objects.clear()
        with pytest.raises(DataError, match="it does not exist"):
            read_table(f"{server.url}/web/tars/set-0.tar")


def test_json_says_labels_that_come_together_values_and_groups(pictures: Path, tmp_path: Path) -> None:
    files = sorted(pictures.glob("*/*.png"))

    def said(what: Callable[[int], dict[str, Any]]) -> Path:
        members = [(f"{k}.png", file.read_bytes()) for k, file in enumerate(files)]
        members += [(f"{k}.json", json.dumps(what(k)).encode()) for k in range(len(files))]
        return write(tmp_path / "set.tar", members)

    tags = read_table(said(lambda k: {"label": ["a"] * (k % 2) + ["b"] * (k % 3 == 0)}))
    assert (tags.task, tags.classes) == ("tag", ("a", "b"))
    values = read_table(said(lambda k: {"height": k / 7}), task="regress", label="height")
    assert (values.task, values.columns) == ("regress", ("height",))
    grouped = read_table(said(lambda k: {"label": "ab"[k % 2], "patient": str(k // 4)}), group="patient")
    assert len(set(grouped.groups)) == 6


def test_what_stands_beside_the_picture_is_no_picture(pictures: Path, tmp_path: Path) -> None:
    picture = next(pictures.glob("*/*.png")).read_bytes()
    members = [
        *(("a/1.seg.png", b"mask"), ("a/1.png", picture), ("a/1.cls", b"x"), ("a/1.embedding.npy", b"n")),
        *(("a/2.PNG", picture), ("a/2.CLS", b"y"), ("b/1.png", picture), ("b/1.cls", b"y")),
        *(
            ("a/.3.png", b"h"),
            ("__MACOSX/4.png", b"h"),
            ("a/5.cls", b"x"),
            ("./c.d/6.png", picture),
            ("./c.d/6.cls", b"x"),
        ),
    ]
    table = read_table(write(tmp_path / "set.tar", members))
    assert table.names.tolist() == [f"set.tar/{name}" for name in ("a/1.png", "a/2.PNG", "b/1.png", "./c.d/6.png")]
    assert table.labels.tolist() == ["x", "y", "y", "x"]
    assert len(table.notes) == 3


def special(kind: bytes, name: str, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_links_devices_and_names_that_lead_out_are_nothing_but_names(pictures: Path, tmp_path: Path) -> None:
    good, secret = samples(pictures, "cls"), tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    place = tmp_path / "set.tar"
    with tarfile.open(place, "w") as file:
        for info in (
            special(tarfile.SYMTYPE, "l.png", str(secret)),
            special(tarfile.LNKTYPE, "h.png", "../secret.png"),
            special(tarfile.CHRTYPE, "d.png"),
            special(tarfile.FIFOTYPE, "p.png"),
        ):
            file.addfile(info)
        for name, content in [*good, ("../../up.png", b"up"), (f"{tmp_path}/whole.png", b"abs")]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    table = list_images([place])
    assert len(table) == 25
    assert table.read(24) == b"abs"
    assert "4 links and other things" in " ".join(table.notes)
    assert sorted(tmp_path.rglob("*")) == before


def header(size: int, name: str = "a.png", kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def bombs() -> Iterator[tuple[str, str, bytes]]:
    end = bytes(1024)
    yield "larger than it is", "set.tar", header(2**40) + b"x"
    yield "back to itself", "set.tar", header(-512) + end
    yield "back to the beginning", "set.tar", header(0) + header(-(2**20)) + end
    yield "a name without end", "set.tar", header(2**40, kind=tarfile.GNUTYPE_LONGNAME) + end
    yield "facts without end", "set.tar", header(2**31, kind=tarfile.XHDTYPE) + end
    yield "a name of less than nothing", "set.tar", header(-1, kind=tarfile.GNUTYPE_LONGNAME) + end
    yield "no tar file", "set.tar", b"no tar file" * 200
    yield "nothing", "set.tar", b""
    yield "no gzip", "set.tar.gz", b"no gzip" * 200
    yield "a bomb", "set.tar.gz", gzip.compress(header(2**33) + bytes(2**27))
    yield "gzip that ends early", "set.tar.gz", gzip.compress(header(9) + bytes(4096))[:60]
    yield "endless members", "set.tar.gz", gzip.compress(header(0) * 300)


@pytest.mark.parametrize(("name", "content"), [one[1:] for one in bombs()], ids=[one[0] for one in bombs()])
def test_a_hostile_tar_file_is_refused_or_gives_nothing(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MOST_MEMBERS", 100)
    place = tmp_path / name
    place.write_bytes(content)
    said: list[str] = []
    with suppress(DataError):
        table = list_images([place])
        said += table.notes
        for row in range(len(table)):
            with pytest.raises(ImageError):
                images.small(table.read(row), 8)
    with pytest.raises(DataError) if not said else nullcontext() as refused:
        list_images([place])
    said += [str(refused.value)] if refused else []
    assert len(said) == 1
    assert f"{name} cannot be read as a tar file to its end (" in said[0]
    assert "\n" not in said[0]


def test_what_lies_before_the_damage_is_used(pictures: Path, tmp_path: Path) -> None:
    whole = write(tmp_path / "set.tar", samples(pictures, "cls")).read_bytes()
    half = whole[: len(whole) // 2]
    for content in (half, half[: len(half) // 512 * 512] + b"\x01garbage" * 640):
        (tmp_path / "set.tar").write_bytes(content)
        table = list_images([tmp_path / "set.tar"])
        assert 10 <= len(table) <= 13
        assert "cannot be read as a tar file to its end" in table.notes[0]


def test_names_of_many_files() -> None:
    assert several("a{08..11}.tar") == ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]
    assert several("{0..1}-{1..2}") == ["0-1", "0-2", "1-1", "1-2"]
    assert several("plain{x}.tar") == ["plain{x}.tar"]
    for wrong in ("{5..1}.tar", "{0..999999999}.tar"):
        with pytest.raises(DataError, match="stands for"):
            several(wrong)
