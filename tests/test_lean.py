"""What each command imports. On a machine that has opened the network before, a frozen model needs no torch.

`MAY` is the list: which of the libraries in SLOW a command may import. Everything runs in two new processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from conftest import Run

MAKERS = {"torch", "torchvision", "timm", "huggingface_hub"}  # they make or fetch a network, and do not run it
SLOW = (*sorted(MAKERS), "sklearn", "scipy", "scipy.optimize", "scipy.stats", "pandas", "jinja2", "ray")
# command -> what it may import of these. In this order, since what one has imported is there for the next.
MAY: dict[str, set[str]] = {
    "predict": set(),
    "serve": set(),
    "classify": set(),
    "features": set(),
    "inspect": set(),
    "suggest": set(),
    "evaluate": {"scipy"},
    "fit": {"scipy", "scipy.optimize", "jinja2"},
    "TransferClassifier": set(SLOW) - MAKERS - {"ray"},  # its classes are scikit-learn's
}
QUICK = ("fit --help", "fit DATA -o MODEL --size 3", "predict MODEL a.jpg --top 0", "classify a.jpg -o a.txt")
ROOMS = (
    "ship.package",
    "ship.predict",
    "ship.embed",
    "ship.classify",
    "tasks.known",
    "story.pipeline",
    "story.feature_file",
    "story.enrol",
    "story.grow",
    "story.compare",
    "cli.answers",
    "cli.serving",
    "serve.running",
)
BEGIN = """
import contextlib, importlib, io, json, sys

def said(words):
    from headstart.cli.main import main

    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
    return code, out.getvalue()

def tell(*found):
    print(json.dumps([*found, [name for name in asked if name in sys.modules]]))

def served(words, image):
    # The answer for an image by a server that runs here until it has given it.
    import os, signal, threading, urllib.request

    from headstart.cli import serving

    found, listens = [], threading.Event()

    def ask():
        listens.wait(60)
        told = {"Content-Type": "image/png", "X-Filename": image}
        request = urllib.request.Request(found[0]["url"] + "/predict", open(image, "rb").read(), told)
        found.append(urllib.request.urlopen(request, timeout=60).read().decode())
        os.kill(os.getpid(), signal.SIGTERM)

    serving.say_json = lambda value: (found.append(value), listens.set())
    threading.Thread(target=ask, daemon=True).start()
    return said(words)[0], found[1]

asked, given = json.loads(sys.argv[1]), json.loads(sys.argv[2])
"""


def in_a_new_process(code: str, asked: tuple[str, ...], given: object) -> list[Any]:
    """What the lines of its output say."""
    told = [sys.executable, "-c", BEGIN + code, json.dumps(asked), json.dumps(given)]
    environment = os.environ | {"PYTHONPATH": str(Path(headstart.__file__).parents[1])}
    done = subprocess.run(told, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_help_and_usage_errors_need_no_numpy_and_no_room_needs_a_slow_library() -> None:
    code = (
        "for words in given[0]:\n    tell(words, said(words.split())[0])\n"
        "for room in given[1]:\n    importlib.import_module(f'headstart.{room}')\n    tell(room, None)\n"
    )
    found = in_a_new_process(code, ("numpy", "pyarrow", "PIL", *SLOW), [QUICK, ROOMS])
    assert [(name, ended) for name, ended, _ in found] == [
        *((words, 0 if "--help" in words else 2) for words in QUICK),
        *((room, None) for room in ROOMS),
    ]
    for name, _, loaded in found:
        assert set(loaded) <= (set() if name in QUICK else {"numpy", "pyarrow", "PIL"}), name


@pytest.fixture
def commands(parted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """One of each kind, by a network with weights of the user's own: so a fit opens one with random weights too. No
    other test has opened these two, and no other uses this cache."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    from safetensors.torch import save_file

    from headstart.trunk.backbone import open_backbone

    weights = tmp_path / "own.safetensors"
    save_file(open_backbone("test_efficientnet", "none", 4093).module.state_dict(), weights)
    network = ["--backbone", "test_efficientnet", "--weights", str(weights), "--size", "64", "--precision", "f32"]
    fresh = tmp_path / "fresh.png"
    Image.fromarray(np.random.default_rng(4).integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(fresh)
    data, model, image = str(parted), str(tmp_path / "model"), str(parted / "test" / "sea" / "6.png")
    return {
        "fit": ["fit", data, "-o", model, "--force", "--json", "--seed", "11", *network],
        "predict": ["predict", model, image, "--json"],
        "serve": ["serve", model, "--port", "0", "--json"],
        "classify": ["classify", image, "--json", *network],
        "features": ["features", data, "-o", str(tmp_path / "features.parquet"), "--json", *network],
        "inspect": ["inspect", data, "--json", *network],
        "suggest": ["suggest", model, str(fresh), "--json"],
        "evaluate": ["evaluate", model, data, "--json"],
    }


def test_with_a_network_that_was_compiled_before_a_command_says_the_same_without_torch(
    commands: dict[str, list[str]], run: Run, parted: Path
) -> None:
    first = {name: run(*words) for name, words in commands.items() if name != "serve"}
    assert [ran.code for ran in first.values()] == [0] * len(first)
    code = (
        "for name, words in given[0].items():\n"
        "    tell(name, *(served(words, given[1][2]) if name == 'serve' else said(words)))\n"
        "from headstart import TransferClassifier\n"
        "model = TransferClassifier('test_efficientnet', weights=given[1][0], size=64, precision='f32')\n"
        "tell('TransferClassifier', 0, model.fit(given[1][1]).predict([given[1][2]])[0])\n"
    )
    again = {name: commands[name] for name in MAY if name in commands}
    weights, image = commands["fit"][commands["fit"].index("--weights") + 1], commands["predict"][2]
    found = in_a_new_process(code, SLOW, [again, [weights, str(parted), image]])
    assert [name for name, *_ in found] == list(MAY)
    for name, ended, out, loaded in found:
        assert ended == 0, name
        assert set(loaded) <= MAY[name], name
        if name == "TransferClassifier":
            assert out == "sea"
        else:
            assert answer(name, out) == answer(name, first["predict" if name == "serve" else name].out)


def answer(command: str, out: str) -> Any:
    """What a command says, without what each fit has of its own: its seconds."""
    found = json.loads(out)
    return {name: value for name, value in found.items() if name != "seconds"} if command == "fit" else found
