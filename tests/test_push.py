"""A model goes to the hub through the hub's own client, against a server on this machine, and comes back the same."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import headstart
import saved
from headstart.files.bundle import read_bundle
from headstart.story.push import PRIVATE
from hub_server import Hub, Repository
from served import served

assert set(PRIVATE) == {
    *("report.html", "split.parquet", "suspected_labels.csv", "duplicates.csv", "mistakes.csv", "set_aside.csv")
}
LISTS = {name: f"{name} of photographs".encode() for name in PRIVATE}
CARD = b"---\nlibrary_name: headstart\n---\n# A model\n"
CLIENT = """
import contextlib, io, json, os, sys
from headstart.cli.main import main

for line in sys.stdin:
    asked = json.loads(line)
    os.environ["HF_TOKEN"] = asked["token"]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if "fetch" in asked:
            from huggingface_hub import snapshot_download

            print(snapshot_download(asked["fetch"], local_dir=asked["to"]))
        else:
            try:
                main(asked["words"])
            except SystemExit as end:
                code = end.code
    slow = [name for name in ("torch", "timm") if name in sys.modules]
    print(json.dumps([code, out.getvalue(), err.getvalue(), slow]), flush=True)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with served(Hub()) as found:
        yield found


def client(endpoint: str, home: Path) -> subprocess.Popen[str]:
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment = os.environ | settings | {"PYTHONPATH": str(Path(headstart.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


Ask = Callable[..., tuple[int, str, str]]


def asking(process: subprocess.Popen[str]) -> Ask:
    def ask(*words: object, token: str = "writer", **more: str) -> tuple[int, str, str]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"words": [*map(str, words)], "token": token, **more}) + "\n")
        process.stdin.flush()
        code, out, err, slow = json.loads(process.stdout.readline())
        assert not slow
        return code, out, err

    return ask


@pytest.fixture(scope="module")
def ask(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    with client(hub.url, tmp_path_factory.mktemp("home")) as process:
        yield asking(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    saved.save(tmp_path / "model", files={"README.md": CARD, **LISTS})
    return tmp_path / "model"


def test_what_is_pushed_is_private_holds_no_pictures_and_comes_back_as_the_same_model(
    hub: Hub, ask: Ask, model: Path, tmp_path: Path
) -> None:
    n = len([*model.iterdir()]) - len(PRIVATE)
    code, out, err = ask("push", model, "someone/birds")
    assert (code, out) == (0, f"{n} files sent, private: {hub.url}/someone/birds\n"), err
    assert err == (
        f"left out, since they hold your pictures or paths: {', '.join(PRIVATE)} (--with-report sends them)\n"
    )
    there = hub.repositories["someone/birds"]
    assert there.private
    sent = set(there.files) - {".gitattributes"}
    assert sent == {file.name for file in model.iterdir()} - set(PRIVATE)
    assert all(there.files[name] == (model / name).read_bytes() for name in sent)
    assert ask(fetch="someone/birds", to=str(tmp_path / "back"))[0] == 0
    assert read_bundle(tmp_path / "back").checksums == read_bundle(model).checksums


def test_a_second_push_leaves_the_second_model_there(hub: Hub, ask: Ask, model: Path, tmp_path: Path) -> None:
    assert ask("push", model, "again", "--public", "--with-report")[0] == 0
    assert set(PRIVATE) <= set(hub.repositories["someone/again"].files)
    assert not hub.repositories["someone/again"].private
    hub.repositories["someone/again"].files["mine.txt"] = b"stays"
    tensors = {name: saved_tensors(model)[name] for name in ("model.safetensors",)}
    before = {file.name for file in model.iterdir()}
    shutil.rmtree(model)
    saved.save(model, 2, tensors, files={"README.md": CARD})
    code, out, err = ask("push", model, "someone/again", "--public", "--json")
    found = json.loads(out)
    assert (code, found["repository"], found["private"]) == (0, "someone/again", False)
    assert set(found["removed"]) == before - {file.name for file in model.iterdir()}
    assert set(found["removed"]) == set(err.partition(": ")[2].strip().split(", "))
    there = set(hub.repositories["someone/again"].files)
    assert there == {".gitattributes", "mine.txt", *(file.name for file in model.iterdir())}


def saved_tensors(model: Path) -> dict[str, dict[str, object]]:
    bundle = read_bundle(model)
    return {name: dict(bundle.tensors(name)) for name in bundle.checksums if name.endswith(".safetensors")}


def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(hub: Hub, ask: Ask, model: Path, tmp_path: Path) -> None:
    hub.repositories["someone/theirs"] = Repository(True, {"config.json": b"{}", "README.md": b""})
    hub.repositories["someone/open"] = Repository(False)
    before = list(hub.commits)
    damaged = shutil.copytree(model, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"x" + (model / "model.safetensors").read_bytes()[1:])
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "README.md").write_text("no front matter")
    for place, name, token, said in (
        (model, "someone/new", "", "run `hf auth login` once, or set HF_TOKEN"),
        (model, "someone/new", "stranger", "the token is not known there"),
        (model, "someone/new", "reader", "no right to write there"),
        (model, "others/new", "writer", "no right to write there"),
        (model, "a/b/c", "writer", "no name on the hub"),
        (model, "a..b", "writer", "no name on the hub"),
        (model, "someone/theirs", "writer", "no model of headstart"),
        (model, "someone/open", "writer", "is public: give --public"),
        (damaged, "someone/new", "writer", "damaged"),
        (bare, "someone/bare", "writer", "front matter"),
        (tmp_path / "nothing", "someone/new", "writer", "there is no model"),
    ):
        code, out, err = ask("push", place, name, token=token)
        assert (code, out) == (1, ""), (name, token)
        assert said in err.splitlines()[-1], err
        assert len(err.splitlines()) == 1, err
    assert hub.commits == before
    assert hub.repositories["someone/theirs"].files == {"config.json": b"{}", "README.md": b""}


def test_a_hub_out_of_reach_is_one_line(model: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with client(nobody, tmp_path) as process:
        code, out, err = asking(process)("push", model, "someone/new")
        assert process.stdin is not None
        process.stdin.close()
    assert (code, out) == (1, "")
    assert f"{nobody} cannot be reached" in err
    assert len(err.splitlines()) == 1
