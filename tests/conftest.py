"""Fixtures that more than one test file uses."""

from __future__ import annotations

import functools
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest

import headstart
from browsing import CHROMIUM, Open
from headstart.cli.main import UNLOOKED, main
from headstart.data.images import write_png
from headstart.trunk import shelf
from headstart.trunk.backbone import open_backbone
from headstart.trunk.network import Backbone
from scenes import Fit, fitting, write_scenes

TINY = ("--backbone", "test_efficientnet", "--weights", "none", "--size", "64", "--precision", "f32")


def smallest() -> Backbone:
    """timm's network for tests, with random weights, at 32 px."""
    network = open_backbone("test_efficientnet", "none")
    return network.resized(replace(network.preprocess, size=(32, 32)))


def pytest_configure() -> None:
    gc.set_threshold(*UNLOOKED)  # as the command does
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when timm is imported; a test must not wait for a network
    # Containers often forbid it. Each process would compile all of headstart, and each worker rewrite all tests, anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place of the tests' own for stored features, in this process and in those that it starts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(folder))
        patch.setattr(shelf, "MOST_BYTES", 2**28)  # the networks of all tests would take more than a gigabyte
        yield folder


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """A network that many tests open is compiled once (about 1 s): same weights, input, layers and precision.

    The engine is the real one. The hash does not cover a network's own top, so what reads that is compiled anew.
    """
    from headstart.ship import batch, predict
    from headstart.ship import placed as placed_answers
    from headstart.story import feature_file, grow, opening, placed
    from headstart.trunk.engine import Engine, compile_trunk
    from headstart.trunk.network import LOGITS

    engines: dict[object, Engine] = {}

    def compiled(backbone: Backbone, precision: str = "auto") -> Engine:
        if LOGITS in backbone.ends:
            return compile_trunk(backbone, precision)
        known = (*(value for name, value in vars(backbone).items() if name != "network"), precision)
        if known not in engines:
            if len(engines) == 12:  # memory
                engines.pop(next(iter(engines)))
            engines[known] = compile_trunk(backbone, precision)
        return engines[known]

    with pytest.MonkeyPatch.context() as patch:
        for module in (batch, feature_file, grow, opening, placed, placed_answers, predict):
            patch.setattr(module, "compile_trunk", compiled)
        yield


@pytest.fixture
def tuned_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tuned network runs in torch, headstart's other engine: to compile it once for OpenVINO takes 0.3 s."""
    from headstart.finetune.job import Session
    from headstart.story import freeze_depth, pipeline
    from headstart.story.opening import Watcher, session_of
    from headstart.trunk.engine import TorchEngine

    def in_torch(watch: Watcher, device: str = "cpu") -> Session:
        return replace(
            session_of(watch, device), compile=lambda backbone, precision: TorchEngine(backbone, "cpu", "f32")
        )

    for module in (pipeline, freeze_depth):
        monkeypatch.setattr(module, "session_of", in_torch)


def calls(work: Callable[[], object]) -> int:
    """How many functions, of Python and of C, are called while this is done: a count of work that no clock disturbs."""
    n, before = 0, sys.getprofile()

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal n
        n += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return n


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """`headstart` with these arguments, in this process."""

    def command(*arguments: object) -> Ran:
        capfd.readouterr()
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Ran(code, *capfd.readouterr())

    return command


def picture(
    colour: int, rng: np.random.Generator, side: int = 40, strength: int = 120
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Noise (side, side, 3) with one strong colour of red, green and blue."""
    pixels = rng.integers(0, 120, (side, side, 3))
    pixels[..., colour] += strength
    return pixels.astype(np.uint8)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes, moss, sand and sea, with eight small pictures each that a colour tells apart."""
    folder, rng = tmp_path_factory.mktemp("data") / "pictures", np.random.default_rng(0)
    for colour, name in enumerate(("moss", "sand", "sea")):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            write_png(picture(colour, rng), folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def parted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in train and test, six and two of each class: judged once, where `pictures` are cross-validated."""
    folder = tmp_path_factory.mktemp("data") / "parted"
    for file in pictures.glob("*/*.png"):
        place = folder / ("test" if int(file.stem) > 5 else "train") / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    return folder


@pytest.fixture(scope="session")
def model(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small saved model of `pictures`; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    main(["fit", str(pictures), "-o", str(folder), *TINY])
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with their masks and boxes; not to be changed."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def fitted(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Small models of their masks and of their boxes; not to be changed."""
    return fitting(scenes, tmp_path_factory.mktemp("placed"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens an address in a window of its own. What it asks of another host, or fails in, fails the test."""
    contexts: list[Any] = []
    urls: list[str] = []
    asked: list[str] = []
    broken: list[str] = []

    def open_page(url: str, **how: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | how))
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.on("console", lambda told: broken.append(told.text) if "Content Security" in told.text else None)
        urls.append(url)
        page.goto(url)
        return page

    yield open_page
    hosts, own = ({urlsplit(url).netloc for url in some if not url.startswith("blob:")} for some in (asked, urls))
    for context in contexts:
        context.close()
    assert hosts == own
    assert broken == []


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; a test that needs it skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the real images in {folder}, which is absent")
    return folder


# Every line in is a JSON list: the files that stdout and stderr go to, and the arguments. A fork, which has the
# slow imports done, becomes `python -m headstart` until its interpreter ends. Lines out: its number; its exit code and
# the most memory that it took, in bytes.
FORKS = """
import json, os, runpy, signal, sys
import jinja2, scipy.optimize
from headstart.cli import answers
from headstart.story import pipeline, publish
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that was started in the background ignores it
for line in iter(sys.stdin.readline, ""):
    child = os.fork()
    if not child:
        break
    _, status, used = os.wait4(child, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    print(os.waitstatus_to_exitcode(status), unit * used.ru_maxrss, flush=True)
else:
    sys.exit()
os.setsid()
out, err, *arguments = json.loads(line)
files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, 0o600) for path in (out, err)]
print(os.getpid(), flush=True)
for number, file in enumerate(files, start=1):
    os.dup2(file, number)
    os.close(file)
sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
sys.argv = ["headstart", *arguments]
runpy.run_module("headstart", run_name="__main__", alter_sys=True)
"""


class Process(NamedTuple):
    number: int
    ended: Callable[[], tuple[int, int]]  # waits for its end: (exit code, bytes of memory at the most)

    def code(self) -> int:
        return self.ended()[0]


Start = Callable[..., Process]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def start(home: Path, cache: Path) -> Iterator[Start]:
    """`headstart` with these arguments in a process of its own, one at a time, whose home folder is `home`."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    env = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")} | {"HOME": str(home)}
    env |= {"HEADSTART_CACHE": str(cache), "PYTHONPATH": str(Path(headstart.__file__).resolve().parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as server:
        assert server.stdin is not None
        given, said = server.stdin, server.stdout
        assert said is not None
        ended = functools.cache(lambda: (0, 0))

        def end() -> tuple[int, int]:
            code, peak = said.readline().split()
            return int(code), int(peak)

        def command(out: str | Path, err: str | Path, *arguments: object) -> Process:
            nonlocal ended
            ended()  # of the one before, where a test that failed has not waited for it
            given.write(json.dumps([str(a) for a in (out, err, *arguments)]) + "\n")
            given.flush()
            number = int(said.readline())
            ended = functools.cache(end)
            return Process(number, ended)

        yield command
