"""What lies elsewhere is read as its copy here is; what is missing there is one row; nothing that opens it is shown."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import TINY, Run
from far_server import Elsewhere, Ways
from headstart.data.identity import identity
from headstart.data.sources import FarSource
from headstart.data.table import Table, list_images, read_table
from headstart.errors import DataError, ImageError
from headstart.files import far as far_files
from headstart.files import far_stores
from headstart.files.bundle import read_bundle
from headstart.files.far import Far, is_far, listed, shown
from headstart.story.whereabouts import own_images, remember, words_of
from served import served

SECRETS = ("AKIDEXAMPLE", "s3cr3t-key", "p4ssword", "s1gnature")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    """A server as S3 and the web are, and the variables that name it."""
    with served(Elsewhere()) as server, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", SECRETS[0])
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS[1])
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(far_stores, "WAITS", (0.0, 0.0))
        far_stores._filed.cache_clear()
        yield server
        far_stores._filed.cache_clear()


@pytest.fixture(autouse=True)
def nothing_left(elsewhere: Elsewhere) -> Iterator[None]:
    yield
    elsewhere.objects.clear()
    elsewhere.ways.clear()
    elsewhere.asked.clear()
    far_stores._web.cache_clear()


def same(one: Table, other: Table) -> None:
    for name in ("names", "labels", "splits", "groups"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert [one.read(row) for row in range(len(one))] == [other.read(row) for row in range(len(other))]


def spelt(table: Table, folder: object) -> tuple[str, ...]:
    return tuple(line.replace(str(folder), "HERE") for line in (table.layout, *table.notes))


def with_metadata(folder: Path) -> None:
    files = sorted(folder.glob("*/*.png"))
    lines = [f"{file.relative_to(folder).as_posix()},{file.parent.name}" for file in files]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))


def with_strays(folder: Path) -> None:
    (folder / "sea" / ".hidden.png").write_bytes(b"x")
    (folder / "sea" / "notes.txt").write_text("x")
    (folder / "sea" / "deep er").mkdir()
    shutil.copy(folder / "sea" / "1.png", folder / "sea" / "deep er" / "né + 1.png")
    (folder / "empty").mkdir()
    (folder / "empty" / "read.me").write_text("")


def in_parts(folder: Path) -> None:
    for label in ("moss", "sand", "sea"):
        (folder / "train" / label).parent.mkdir(exist_ok=True)
        (folder / "val" / label).mkdir(parents=True)
        (folder / label / "1.png").rename(folder / "val" / label / "1.png")
        (folder / label).rename(folder / "train" / label)


@pytest.mark.parametrize("change", [lambda folder: None, with_metadata, with_strays, in_parts])
def test_a_folder_in_a_bucket_is_read_as_its_copy(
    change: Callable[[Path], None], elsewhere: Elsewhere, pictures: Path, tmp_path: Path
) -> None:
    here = shutil.copytree(pictures, tmp_path / "set")
    change(here)
    elsewhere.put(here, "bucket/some where/set")
    there = "s3://bucket/some where/set"
    near, far = read_table(here), read_table(there)
    same(near, far)
    assert spelt(near, here) == spelt(far, there)
    bare = [list_images([place]) for place in (here, f"{there}/")]
    assert spelt(bare[0], here) == spelt(bare[1], there)
    names = [[name.replace(str(root), "") for name in one.names] for root, one in zip((here, there), bare, strict=True)]
    assert names[0] == names[1]
    assert {type(source) for source in far.sources} == {FarSource}
    assert not list(tmp_path.glob("headstart-*"))
    assert identity(far) == identity(read_table(there)) != identity(near)
    with pytest.raises(DataError) as refused:
        read_table("s3://bucket/some where/set/sea")
    assert "\n" not in str(refused.value)
    assert "/tmp" not in str(refused.value)


def in_tars(folder: Path) -> None:
    """With a list of something beside them."""
    for label in ("moss", "sand", "sea"):
        with tarfile.open(folder / f"{label}.tar", "w") as tar:
            for file in sorted((folder / label).iterdir()):
                file.with_suffix(".cls").write_text(label)
                tar.add(file, file.name)
                tar.add(file.with_suffix(".cls"), f"{file.stem}.cls")
        shutil.rmtree(folder / label)
    (folder / "sizes.csv").write_text("name,bytes\n")


def test_a_folder_of_tar_files_is_read_as_its_copy_whatever_text_lies_beside(
    elsewhere: Elsewhere, pictures: Path, tmp_path: Path
) -> None:
    here = shutil.copytree(pictures, tmp_path / "set")
    in_tars(here)
    elsewhere.put(here, "bucket/set")
    near, far = read_table(here), read_table("s3://bucket/set")
    same(near, far)
    assert spelt(near, here) == spelt(far, "s3://bucket/set")


def test_folders_in_class_folders_are_groups_there_too(elsewhere: Elsewhere, pictures: Path, tmp_path: Path) -> None:
    for file in pictures.glob("*/*.png"):
        place = tmp_path / "set" / file.parent.name / f"camera {int(file.stem) % 2}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    elsewhere.put(tmp_path / "set", "bucket/set")
    near, far = (read_table(place, group_by="folder") for place in (tmp_path / "set", "s3://bucket/set"))
    assert len(set(near.groups)) == 2
    same(near, far)


def test_a_key_that_leads_out_of_the_folder_is_no_file(elsewhere: Elsewhere, pictures: Path, tmp_path: Path) -> None:
    elsewhere.put(pictures, "bucket/set")
    n = len(elsewhere.objects)
    picture = (pictures / "sea" / "1.png").read_bytes()
    for key in ("sea/../../../../evil.png", "sea//x.png", "sea/1.png/2.png", f"sea/{'x' * 300}.png"):
        elsewhere.objects[f"bucket/set/{key}"] = picture
    table = read_table("s3://bucket/set")
    assert len(table) == n
    assert "names that no file can have" in table.notes[-1]
    elsewhere.objects["bucket/set/metadata.csv"] = (
        f"file_name,label\nsea/1.png,a\n../../../{pictures}/sea/2.png,b\n{pictures}/sea/3.png,b\nmoss/1.png,b\n".encode()
    )
    table = read_table("s3://bucket/set", label="label")
    outside = [row for row, name in enumerate(table.names) if "/sea/2" in name or "/sea/3" in name]
    assert len(outside) == 2
    for row in outside:
        with pytest.raises(ImageError, match=r"outside of its folder|does not exist"):
            table.read(row)


def test_the_features_and_the_model_are_those_of_the_copy(
    elsewhere: Elsewhere, pictures: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    elsewhere.put(pictures, "bucket/set")
    far = ("s3://bucket/set", "--cache", tmp_path / "cache")  # nothing stored of the copy serves
    assert run("features", pictures, "-o", tmp_path / "near.parquet", *TINY).code == 0
    assert run("features", *far, "-o", tmp_path / "far.parquet", *TINY).code == 0
    assert pq.read_table(tmp_path / "near.parquet").equals(pq.read_table(tmp_path / "far.parquet"))
    found = run("fit", *far, "-o", tmp_path / "f", *TINY)
    assert found.code == 0
    assert (tmp_path / "f" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "f" / "run.json").read_text())["command"].startswith("headstart fit set -o")
    elsewhere.asked.clear()
    answers = [run("predict", tmp_path / "f", data, "--json") for data in (pictures, "s3://bucket/set")]
    fetched = [line for line in elsewhere.asked if line.startswith("GET /bucket/")]
    assert len(fetched) == len(set(fetched)) == 24
    near_said, far_said = (json.loads(one.out) for one in answers)
    assert [one | {"path": ""} for one in near_said] == [one | {"path": ""} for one in far_said]
    assert far_said[0]["path"] == "s3://bucket/set/moss/0.png"
    scored = json.loads(run("evaluate", tmp_path / "f", "s3://bucket/set", "--json").out)
    assert (scored["n"], scored["set_aside"]) == (24, [])
    assert not any(secret in text for secret in SECRETS for one in (found, *answers) for text in (one.out, one.err))


def listed_at(server: Elsewhere, pictures: Path, place: Path, query: str = "") -> Path:
    """A list of all pictures by their addresses, with a user and a signature in them."""
    server.put(pictures, "web/set")
    host = server.url.removeprefix("http://")
    lines = [
        f"http://me:{SECRETS[2]}@{host}/{key}?X-Amz-Signature={SECRETS[3]}{query},{key.split('/')[2]}"
        for key in server.objects
    ]
    place.write_text("\n".join(["path,label", *lines]))
    return place


def test_a_list_of_addresses_says_and_keeps_nothing_that_opens_them(
    elsewhere: Elsewhere, pictures: Path, tmp_path: Path, run: Run
) -> None:
    manifest = listed_at(elsewhere, pictures, tmp_path / "list.csv", "&id=7")
    gone = next(key for key in elsewhere.objects if key.endswith("sea/3.png"))
    del elsewhere.objects[gone]
    host = elsewhere.url.removeprefix("http://")
    elsewhere.objects["web/new.zip"] = Path(shutil.make_archive(str(tmp_path / "z"), "zip", pictures)).read_bytes()
    place = f"http://me:{SECRETS[2]}@{host}/web/new.zip?sig={SECRETS[3]}"
    found = run("fit", manifest, "-o", tmp_path / "model", "--target", place, *TINY)
    assert found.code == 0
    aside = (tmp_path / "model" / "set_aside.csv").read_text().splitlines()
    assert aside[1:] == [f"{elsewhere.url}/web/set/sea/3.png?id=7,the file does not exist"]
    more = [run("predict", tmp_path / "model", manifest, "-o", f"{tmp_path}/{name}") for name in ("a.parquet", "a/")]
    more.append(run("inspect", manifest, *TINY))
    assert [one.code for one in more] == [0] * 3
    manifest.unlink()
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 10
    for secret in SECRETS:
        assert not any(secret in text for one in (found, *more) for text in (one.out, one.err))
        assert not any(secret.encode() in path.read_bytes() for path in kept)
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["error"] for row in table if row["error"]] == ["the file does not exist"]


def test_lists_elsewhere_name_what_lies_beside_them(elsewhere: Elsewhere, pictures: Path) -> None:
    elsewhere.put(pictures, "bucket/set")
    keys = [key.removeprefix("bucket/set/") for key in elsewhere.objects]
    elsewhere.objects["bucket/set/list.csv"] = "\n".join(
        ["path,label", *(f"{key},{key.split('/')[0]}" for key in keys)]
    ).encode()
    elsewhere.objects["bucket/set/plain.txt"] = "\n".join(f"{key} {key.split('/')[0]}" for key in keys).encode()
    pq.write_table(
        pa.table({"path": keys, "label": [key.split("/")[0] for key in keys]}), sink := pa.BufferOutputStream()
    )
    elsewhere.objects["bucket/set/list.parquet"] = sink.getvalue().to_pybytes()
    for name in ("list.csv", "plain.txt", "list.parquet"):
        for root in ("s3://bucket", f"{elsewhere.url}/bucket"):
            table = read_table(f"{root}/set/{name}")
            assert sorted(table.read(row) for row in range(24)) == sorted(p.read_bytes() for p in pictures.glob("*/*"))
            assert set(table.labels) == {"moss", "sand", "sea"}


def as_parquet(pictures: Path, place: Path) -> None:
    files = sorted(pictures.glob("*/*.png"))
    cells = [{"bytes": file.read_bytes(), "path": None} for file in files]
    table = pa.table({"image": pa.array(cells), "label": [file.parent.name for file in files]})
    for k in range(2):
        pq.write_table(table.slice(12 * k, 12), place / f"train-{k}.parquet", row_group_size=5)


def test_parquet_and_zip_files_are_read_in_place_by_their_parts(
    elsewhere: Elsewhere, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "set"
    here.mkdir()
    as_parquet(pictures, here)
    elsewhere.put(here, "bucket/set")
    near = read_table(here)
    for block in (far_files.BLOCK, 20_000):
        monkeypatch.setattr(far_files, "BLOCK", block)
        monkeypatch.setattr(far_files, "BLOCKS", 3)
        same(near, read_table("s3://bucket/set"))
        same(read_table(here / "train-1.parquet", 1), read_table(f"{elsewhere.url}/bucket/set/train-1.parquet", 1))
        archive = Path(shutil.make_archive(str(tmp_path / "all"), "zip", pictures))
        elsewhere.objects["bucket/all.zip"] = archive.read_bytes()
        one, two = list_images([archive]), list_images([f"{elsewhere.url}/bucket/all.zip"])
        assert [one.read(k) for k in range(24)] == [two.read(k) for k in range(24)]
    elsewhere.ways["bucket/all.zip"] = Ways(ranges=False)
    with pytest.raises(DataError, match="gives no parts of files: download it first"):
        list_images([f"{elsewhere.url}/bucket/all.zip"])
    elsewhere.objects["bucket/set/train-0.parquet"] = b"PAR1 no more"
    with pytest.raises(DataError, match=r"damaged|not a Parquet"):
        read_table("s3://bucket/set/train-0.parquet")


def one(server: Elsewhere, ways: Ways, data: bytes = b"picture", most: int = 100) -> bytes:
    server.objects["web/a.png"] = data
    server.ways["web/a.png"] = ways
    return Far(f"{server.url}/web/a.png").read(most)


def test_what_fails_for_a_moment_is_tried_again_and_what_is_refused_is_not(elsewhere: Elsewhere) -> None:
    assert one(elsewhere, Ways(statuses=[503, 429])) == b"picture"
    assert len(elsewhere.asked) == 3
    for status, n, said in (
        (503, 3, "answers with 503"),
        (404, 1, "not there"),
        (403, 1, "refuses it"),
        (418, 1, "418"),
    ):
        elsewhere.asked.clear()
        with pytest.raises(OSError, match=said):
            one(elsewhere, Ways(statuses=[status] * 9))
        assert len(elsewhere.asked) == n


def test_sizes_and_redirects_are_bounded(elsewhere: Elsewhere) -> None:
    refused = [
        (Ways(), b"x" * 101, "101 bytes, more than the limit of 100"),
        (Ways(stated=10**15), b"x", "more than the limit"),
        (Ways(endless=True), b"", "more bytes than the limit"),
        (Ways(to=f"{elsewhere.url}/web/a.png"), b"", "leads on more than 5 times"),
        (Ways(to="ftp://127.0.0.1/a.png"), b"", "leads on"),
        (Ways(to="file:///etc/passwd"), b"", "leads on"),
    ]
    for ways, data, said in refused:
        with pytest.raises(OSError, match=said) as caught:
            one(elsewhere, ways, data)
        assert "\n" not in str(caught.value.strerror)
    elsewhere.objects["web/b.png"] = b"other"
    assert one(elsewhere, Ways(to=f"{elsewhere.url}/web/b.png")) == b"other"
    elsewhere.objects["bucket/large.png"] = bytes(200)
    with pytest.raises(OSError, match="200 bytes, more than the limit of 100"):
        Far("s3://bucket/large.png").read(100)


@pytest.mark.parametrize(
    "address",
    [
        "s3://nowhere/set",
        "s3://bucket/nothing",
        f"s3://me:{SECRETS[2]}@bucket/set",
        f"http://me:{SECRETS[2]}@127.0.0.1:9/list.csv?sig={SECRETS[3]}",
        "https://127.0.0.1:9/a/set.parquet",
        "https://127.0.0.1:9/a/",
        "hdfs://127.0.0.1:9/set",
        "memory://nothing/here",
    ],
)
def test_what_cannot_be_reached_is_one_line(
    address: str, elsewhere: Elsewhere, run: Run, model: Path, tmp_path: Path
) -> None:
    elsewhere.objects["bucket/other/a.png"] = b"x"
    for words in (("fit", address, "-o", tmp_path / "m"), ("predict", model, address), ("evaluate", model, address)):
        found = run(*words)
        lines = [line for line in found.err.splitlines() if line.startswith("headstart: ")]
        assert (found.code, found.out if words[0] != "predict" else "", len(lines)) == (1, "", 1)
        assert shown(address) in lines[0]
        assert not any(secret in found.err + found.out for secret in SECRETS)
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://h.org/a.jpg?X-Amz-Signature=1&id=3&token=2", "https://h.org/a.jpg?id=3"),
        ("https://me:pw@h.org:8/a b.jpg#part", "https://h.org:8/a b.jpg"),
        ("S3://b/what?.jpg", "S3://b/what?.jpg"),
        ("s3://b/x.jpg?sig=1", "s3://b/x.jpg"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(address: str, said: str) -> None:
    assert str(Far(address)) == shown(address) == said
    assert "pw" not in repr(Far(address))
    assert is_far(address)
    assert not any(is_far(text) for text in ("a/b.jpg", "c:/a.jpg", "file:///a.jpg", "ftp://h/a", "s3:/b", "s3://", ""))


def test_an_address_that_nobody_reads_is_said_so(run: Run, model: Path, tmp_path: Path) -> None:
    for words in (("fit", "abfss://box:p4ssword@h/set", "-o", tmp_path / "m"), ("predict", model, "ftp://h/a.jpg")):
        said = run(*words).err
        assert "is not read: http://, https://, s3://, gs://, hdfs://" in said
        assert SECRETS[2] not in said


@pytest.mark.parametrize("place", ["s3://me:p4ssword@bucket/a.csv", "s3://bucket/answers/", "https://host/model"])
@pytest.mark.parametrize(
    "words",
    [
        ("predict", "MODEL", "DATA", "--explain"),
        ("predict", "MODEL", "DATA", "--masks"),
        ("fit", "DATA", "-o"),
        ("fit", "DATA", "--cache"),
        ("features", "DATA", "--cache"),
        ("export", "MODEL", "--to", "onnx", "-o"),
    ],
)
def test_what_is_no_table_lies_on_this_disk(
    words: tuple[str, ...], place: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect: an address as a path is the folder s3: here, and a model that nobody finds."""
    monkeypatch.chdir(tmp_path)
    more = ("-o", "f.csv") if words[0] == "features" else ()
    found = run(*words[:2], *more, *words[2:], place)
    assert (found.code, found.err.count("\n"), "output is of this disk" in found.err) == (2, 1, True)
    assert SECRETS[2] not in found.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        ("https://me:p4ssword@host/a.csv", 2, "https://host/a.csv cannot be written: s3://, gs://, hdfs://"),
        ("hf://datasets/me/set/a.csv", 2, "cannot be written: s3://"),
        ("s3://nowhere/a.csv", 1, "s3://nowhere cannot be written (it is not there): choose another -o"),
        ("s3://nowhere/answers/", 1, "s3://nowhere/answers/ cannot be written (it is not there)"),
        ("s3://me:p4ssword@bucket/a.csv", 1, "keys are not taken from an address"),
        ("s3://bucket/a.txt", 2, "s3://bucket/a.txt cannot be written: its name must end in"),
    ],
)
def test_an_output_that_takes_nothing_is_one_line(
    place: str, code: int, said: str, elsewhere: Elsewhere, run: Run, model: Path, pictures: Path
) -> None:
    elsewhere.objects["bucket/else"] = b""
    for words in (("predict", model, pictures), ("features", pictures, *TINY)):
        found = run(*words, "-o", place)
        assert (found.code, found.err.count("\n"), SECRETS[2] in found.err) == (code, 1, False)
        assert said in found.err


def test_answers_elsewhere_are_those_of_this_disk(
    elsewhere: Elsewhere, run: Run, model: Path, pictures: Path, tmp_path: Path
) -> None:
    elsewhere.objects["bucket/else"] = b""
    for name in ("answers.csv", "answers.parquet", "folder/"):
        for place in (f"{tmp_path}/{name}", f"s3://bucket/out/{name}"):
            found = run("predict", model, pictures, "-o", place)
            assert (found.code, f"written to {place}" in found.err) == (0, True)
    here = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert here == {n.removeprefix("bucket/out/"): d for n, d in elsewhere.objects.items() if n != "bucket/else"}
    again = run("predict", model, pictures, "-o", "s3://bucket/out/folder/")
    assert (again.code, "already: choose another -o" in again.err) == (1, True)


@pytest.mark.parametrize("output", ["s3://bucket/answers.csv", "s3://bucket/answers/"])
def test_answers_go_on_where_a_store_refused_them(
    output: str, elsewhere: Elsewhere, run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked lies here until the store takes the output; of a folder what it took is not asked again."""
    monkeypatch.setattr("headstart.ship.stretches.BUFFER", 1)
    monkeypatch.setattr("headstart.ship.answer_folder.STRETCHES", 1)
    elsewhere.objects["bucket/else"] = b""
    whole = run("predict", model, pictures, "-o", f"{output.rstrip('/')}.json")
    expected = json.loads(elsewhere.objects.pop(f"{output.removeprefix('s3://').rstrip('/')}.json"))
    takes = 1 if output.endswith("/") else 0
    elsewhere.ways["bucket"] = Ways(takes=takes)
    refused = run("predict", model, pictures, "-o", output)
    assert (whole.code, refused.code, refused.err.splitlines()[-1].count("choose another -o")) == (0, 1, 1)
    assert SECRETS[1] not in refused.err
    assert len(elsewhere.objects) == 1 + takes
    elsewhere.ways.clear()
    again = run("predict", model, pictures, "-o", output, "--json")
    assert (again.code, "it goes on from there" in again.err) == (0, True)
    assert json.loads(again.out) == expected


def test_features_elsewhere_are_those_of_this_disk(
    elsewhere: Elsewhere, run: Run, pictures: Path, tmp_path: Path
) -> None:
    elsewhere.objects["bucket/else"] = b""
    for name in ("f.parquet", "f.csv", "folder/"):
        for place in (f"{tmp_path}/{name}", f"s3://bucket/out/{name}"):
            assert run("features", pictures, *TINY, "-o", place).code == 0
    here = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert here == {n.removeprefix("bucket/out/"): d for n, d in elsewhere.objects.items() if n != "bucket/else"}
    elsewhere.asked.clear()
    assert run("features", pictures, *TINY, "-o", "s3://bucket/out/folder/").code == 0
    assert {line.split()[0] for line in elsewhere.asked if line.endswith(".parquet")} <= {"GET", "HEAD"}
    fitted = run("fit", "s3://bucket/out/folder/", "-o", tmp_path / "m")
    assert (fitted.code, "copy the folder here first" in fitted.err) == (1, True)
    foreign = run("features", pictures, *TINY, "-o", "s3://bucket/")
    assert (foreign.code, "holds other files" in foreign.err) == (1, True)


def test_sources_travel_and_stay_closed(elsewhere: Elsewhere, pictures: Path) -> None:
    elsewhere.put(pictures, "bucket/set")
    table = read_table("s3://bucket/set")
    again = pickle.loads(pickle.dumps(table.sources))
    assert [source.read() for source in again] == [table.read(row) for row in range(len(table))]


def test_fsspec_reads_what_it_alone_knows(pictures: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in pictures.glob("*/*.png"):
        memory.pipe_file(f"/set/{file.relative_to(pictures).as_posix()}", file.read_bytes())
    same(read_table(pictures), read_table("memory://set"))
    assert [one.path for one in listed(Far("memory://set/sea"))] == [f"{k}.png" for k in range(8)]


def test_a_saved_model_causes_no_fetch(elsewhere: Elsewhere, pictures: Path, model: Path, tmp_path: Path) -> None:
    """Its own images are looked for where its command says, on this disk alone."""
    elsewhere.put(pictures, "bucket/set")
    stranger = shutil.copytree(model, tmp_path / "stranger")
    told = json.loads((stranger / "run.json").read_text())
    (stranger / "run.json").write_text(json.dumps(told | {"command": "headstart fit s3://bucket/set -o model"}))
    bundle = read_bundle(stranger)
    assert words_of(bundle)[2] == "s3://bucket/set"
    with suppress(DataError):  # they are where this cache remembers them
        own_images(bundle, lambda place: read_table(place, 1), "a test needs them")
    remember("a fingerprint", "s3://bucket/set")
    assert elsewhere.asked == []


def test_a_program_hands_over_addresses(elsewhere: Elsewhere, pictures: Path, model: Path) -> None:
    from headstart import TransferClassifier

    elsewhere.put(pictures, "bucket/set")
    loaded = TransferClassifier.load(model)
    names = ["moss/1.png", "sea/2.png"]
    near = loaded.predict_proba([pictures / name for name in names])
    assert (loaded.predict_proba([f"{elsewhere.url}/bucket/set/{name}" for name in names]) == near).all()
    assert (loaded.predict_proba([f"s3://bucket/set/{name}" for name in names]) == near).all()
