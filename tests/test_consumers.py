"""The small programs of examples/consumers say what the Python loader beside an export says, picture by picture.

The loader is held against `predict` by every export (`tests/test_export.py`). Here a graph of three operations stands
for a network, so that nothing is converted: what can go wrong in these programs is how pixels get in and labels out.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.images import Preprocess, load
from headstart.export.formats import FORMATS
from headstart.export.loader import program

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "consumers"
NAMES = ["green é", 'a "red"', "blue"]
SIZE = (32, 48)
ORT_WEB = "onnxruntime-web@1.30.0"
CHROMIUM = shutil.which("chromium")

pytest.importorskip("onnxruntime", reason="needs headstart[export]")


def steps(resize: str = "shortest", interpolation: str = "bicubic") -> Preprocess:
    return Preprocess(SIZE, 0.875, interpolation, resize, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def exported(folder: Path, preprocess: Preprocess, rule: dict[str, list[float]] | None = None) -> Path:
    """An export whose model asks which channel is brightest on average."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir()
    weights = (0.05 * np.array([[-1, 2, -1], [2, -1, -1], [-1, -1, 2]], np.float32)).T.copy()
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["answers"], axis=1),
        ],
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", *preprocess.size, 3])],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    about = {"names": NAMES, "task": "classify", "rule": rule or {}, "preprocess": preprocess.to_json()}
    helper.set_model_props(model, {"headstart": json.dumps(about)})
    onnx.save(model, str(folder / "model.onnx"))
    record = json.dumps({"format": "onnx", "about": about}, indent=2, ensure_ascii=False)
    (folder / "export.json").write_text(record, encoding="utf-8")
    (folder / "predict.py").write_text(program(FORMATS["onnx"]), encoding="utf-8")
    return folder


@functools.cache
def loader(folder: Path) -> types.ModuleType:
    found = types.ModuleType("predict")
    found.__file__ = str(folder / "predict.py")
    exec(compile((folder / "predict.py").read_text(), "predict.py", "exec"), found.__dict__)
    return found


def expected(folder: Path, file: Path) -> tuple[str, float]:
    """What predict.py says of a file."""
    module = loader(folder)
    run, about = module.open_model(module.FILE)
    said = module.record(run(module.pixels(file.read_bytes(), about)[None])[0], about)
    return said["label"], said["probability"]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("consumers") / "model", steps())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Wide, tall, small, grey, transparent, turned by EXIF, CMYK; none without a clear answer in its middle."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    found: list[Path] = []
    for k, (width, height) in enumerate([(300, 120), (90, 400), (20, 15), (48, 32), (640, 480)]):
        pixels = rng.integers(0, 150, (height, width, 3))
        pixels[:, : width // 3, (k + 1) % 3] += 60  # in part cropped away
        pixels[..., k % 3] += 40
        picture = Image.fromarray(pixels.astype(np.uint8))
        found.append(folder / f"{k}.{'jpg' if k % 2 else 'png'}")
        picture.save(found[-1], **({"quality": 95, "subsampling": 0} if k % 2 else {}))
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=turned, quality=95, subsampling=0)
    picture.convert("L").save(folder / "grey.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    alpha = np.dstack([np.asarray(picture), np.full((480, 640), 120, np.uint8)])
    Image.fromarray(alpha).save(folder / "alpha.png")
    return [*found, *(folder / name for name in ("turned.jpg", "grey.png", "cmyk.jpg", "alpha.png"))]


# Python


def in_python(folder: Path, files: list[Path]) -> list[list[str]]:
    """The lines of the program, by a Python that sees nothing of headstart."""
    command = [sys.executable, "-I", "-W", "error", FOLDER / "predict.py", folder, *files]
    said = subprocess.run(list(map(str, command)), capture_output=True, check=True, encoding="utf-8").stdout
    return [line.split("\t") for line in said.splitlines()]


@pytest.mark.parametrize(
    ("preprocess", "rule"),
    [
        (steps(), {}),
        (steps("squash", "bilinear"), {"weights": [1.0, 3.0, 1.0]}),
        (steps("shortest", "lanczos"), {"costs": [0, 1, 5, 1, 0, 1, 1, 1, 0]}),
    ],
)
def test_the_short_program_gives_the_labels_of_the_loader(
    files: list[Path], tmp_path: Path, preprocess: Preprocess, rule: dict[str, list[float]]
) -> None:
    export = exported(tmp_path / "model", preprocess, rule)
    found = in_python(export, files)
    assert [name for name, *_ in found] == list(map(str, files))
    for (_, label, probability), file in zip(found, files, strict=True):
        name, value = expected(export, file)
        assert label == name, file.name
        assert float(probability) == pytest.approx(value, abs=5e-3)  # JPEGs are decoded whole
    assert len({label for _, label, _ in found}) == 3


# C


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program, by the words of its README."""
    openvino = pytest.importorskip("openvino")
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    place = Path(openvino.__file__).parent
    (library,) = (place / "libs").glob("libopenvino_c.so*")
    out = tmp_path_factory.mktemp("c") / "predict"
    asked = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-D_FORTIFY_SOURCE=2"]
    linked = [f"-I{place / 'include'}", str(library), f"-Wl,-rpath,{place / 'libs'}"]
    subprocess.run(["gcc", *asked, "-o", str(out), str(FOLDER / "predict.c"), *linked], check=True)
    return out


def ppm(folder: Path, file: Path, out: Path) -> Path:
    """The picture as the model takes it."""
    module = loader(folder)
    Image.fromarray(module.pixels(file.read_bytes(), module.open_model(module.FILE)[1])).save(out)
    return out


def test_the_c_program_gives_the_labels_of_the_loader(
    in_c: Path, export: Path, files: list[Path], tmp_path: Path
) -> None:
    pictures = [ppm(export, file, tmp_path / f"{k}.ppm") for k, file in enumerate(files)]
    command = [in_c, export / "model.onnx", export / "export.json", *pictures]
    said = subprocess.run(list(map(str, command)), capture_output=True, check=True, encoding="utf-8").stdout
    lines = [line.split("\t") for line in said.splitlines()]
    assert [name for name, *_ in lines] == list(map(str, pictures))
    for (_, label, probability), file in zip(lines, files, strict=True):
        name, value = expected(export, file)
        assert label == json.dumps(name, ensure_ascii=False)[1:-1], file.name
        assert float(probability) == pytest.approx(value, abs=1e-5)
    assert len({label for _, label, _ in lines}) == 3


def test_the_c_program_refuses_what_it_cannot_answer(in_c: Path, export: Path, tmp_path: Path) -> None:
    def ended(folder: Path, content: bytes) -> subprocess.CompletedProcess[str]:
        (tmp_path / "a.ppm").write_bytes(content)
        command = [in_c, folder / "model.onnx", folder / "export.json", tmp_path / "a.ppm"]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)

    whole = b"P6 48 32 255\n" + bytes(3 * 48 * 32)
    assert ended(export, whole).returncode == 0
    assert "binary PPM" in ended(export, b"\xff\xd8\xff").stderr
    assert "cut short" in ended(export, whole[:-1]).stderr
    assert ended(export, b"P6 32 48 255\n" + bytes(3 * 48 * 32)).returncode == 1  # of another size
    weighing = exported(tmp_path / "weighing", steps(), {"weights": [1.0, 2.0, 1.0]})
    assert "--aim" in ended(weighing, whole).stderr


# JavaScript


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def page() -> Iterator[Callable[[Path], Any]]:
    """A folder, served on this machine, as a page in headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    servers = []
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def opened(folder: Path) -> Any:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
            servers.append(server)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            found = browser.new_page()
            found.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            return found

        yield opened
        browser.close()
        for server in servers:
            server.shutdown()
            server.server_close()


def site(folder: Path, export: Path | None, runtime: Path | None) -> Path:
    """The page with an export and the runtime beside it; without a runtime an empty one."""
    shutil.copytree(FOLDER / "web", folder)
    if export is not None:
        shutil.copytree(export, folder / "model")
    (folder / "ort").mkdir()
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        if runtime is not None:
            (folder / "ort" / name).symlink_to(runtime / name)
    if runtime is None:
        (folder / "ort" / "ort.wasm.min.mjs").write_text("export const env = { wasm: {} };")
    return folder


def test_the_page_resizes_as_predict_does(page: Callable[[Path], Any], tmp_path: Path) -> None:
    opened, rng = page(site(tmp_path / "site", None, None)), np.random.default_rng(1)
    for resize, interpolation in (("shortest", "bicubic"), ("squash", "lanczos")):
        wanted = steps(resize, interpolation)
        for height, width in ((61, 47), (90, 30), (11, 17)):
            pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            given = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
            found = opened.evaluate(
                """async ([data, width, height, wanted]) => {
                  const { resized } = await import("./predict.js");
                  return Array.from(resized({ data: new Uint8ClampedArray(data), width, height }, wanted)); }""",
                [given.ravel().tolist(), width, height, wanted.to_json()],
            )
            off = np.abs(np.reshape(found, (*SIZE, 3)) - load(pixels, wanted).array.astype(int))
            assert off.max() <= 1, (resize, interpolation, height, width)  # Pillow rounds weights to 22 bits
            assert (off > 0).mean() < 0.01


@pytest.fixture(scope="module")
def onnxruntime_web() -> Path:
    """The pinned release, fetched once by npm into the user's cache; 33 MB, so not a part of this project."""
    from platformdirs import user_cache_path

    place = user_cache_path("headstart-tests") / re.sub(r"\W", "-", ORT_WEB)
    found = place / "node_modules" / "onnxruntime-web" / "dist"
    if not (found / "ort.wasm.min.mjs").exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"needs npm, to fetch {ORT_WEB}")
        new = place.with_name(f"{place.name}.{os.getpid()}")
        new.mkdir(parents=True, exist_ok=True)
        asked = ["install", "--prefix", str(new), "--ignore-scripts", "--no-audit", "--no-fund", ORT_WEB]
        try:
            ended = subprocess.run([npm, *asked], capture_output=True, timeout=120, check=False).returncode
        except subprocess.TimeoutExpired:
            ended = 1
        if ended:
            shutil.rmtree(new)
            pytest.skip(f"npm cannot fetch {ORT_WEB}")
        try:
            new.rename(place)
        except OSError:  # another worker was first
            shutil.rmtree(new)
    return found


@pytest.mark.parametrize("rule", [{"weights": [1.0, 3.0, 1.0]}, {"costs": [0, 1, 5, 1, 0, 1, 1, 1, 0]}])
def test_the_page_gives_the_labels_of_the_loader(
    page: Callable[[Path], Any], files: list[Path], onnxruntime_web: Path, tmp_path: Path, rule: dict[str, list[float]]
) -> None:
    files = [file for file in files if file.name != "cmyk.jpg"]  # browsers turn its colours by another rule
    export = exported(tmp_path / "model", steps(), rule)
    opened = page(site(tmp_path / "site", export, onnxruntime_web))
    (tmp_path / "no.jpg").write_text("no picture")
    opened.set_input_files("#files", [*map(str, files), str(tmp_path / "no.jpg")])
    opened.wait_for_selector("body[data-done]")
    *said, refused = opened.locator("#answers li").all_inner_texts()
    assert refused.startswith("no.jpg: cannot be read")
    for line, file in zip(said, files, strict=True):
        name, value = expected(export, file)
        assert line.startswith(f"{file.name}: {name} ("), line
        assert float(line.rpartition("(")[2].split()[0]) == pytest.approx(100 * value, abs=2)


def test_each_program_is_named_in_the_readme_and_short() -> None:
    told = (FOLDER / "README.md").read_text()
    for file in (FOLDER / "predict.c", FOLDER / "web" / "predict.js"):
        assert file.name in told
        assert len(file.read_text().splitlines()) <= 80
    assert len((FOLDER / "predict.py").read_text().splitlines()) <= 40
