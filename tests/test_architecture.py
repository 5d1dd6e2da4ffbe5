"""The house rules that no linter knows: one door for each heavy library, short functions, quick imports, no pickle.

Each rule is a function from a file's syntax tree to the lines that break it. One test runs every rule over every file,
another shows that every rule finds what it is for. Which room may import which is checked by import-linter (pyproject).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import headstart

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "headstart"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

DOORS = {
    "timm": {"trunk/maker.py", "trunk/catalog.py"},
    "openvino": {"trunk/engine.py", "export/openvino.py", "export/quantise_openvino.py"},
    "nncf": {"export/quantise_openvino.py"},
    "onnx": {"export/onnx.py", "export/quantise_onnx.py"},
    "onnxruntime": {"export/quantise_onnx.py"},
    "simplejpeg": {"data/jpeg.py"},
    # one decoder, a file for each kind; given, sources and table know a Pillow image that the user hands in
    "PIL": {
        f"data/{name}.py"
        for name in """box_drawing decoders facts given given_masks images jpeg mask_drawing mask_files modes overlay
        png quiet resize shapes sources tiff upright""".split()  # noqa: SIM905
    },
    "pydicom": {"data/dicom.py"},
    "pillow_heif": {"data/decoders.py"},
    "tifffile": {"data/tiff.py"},
    "fsspec": {"files/far_stores.py"},
    "httpx2": {"files/far_stores.py"},
    "pyarrow.fs": {"files/far_stores.py"},
    "ray": {"trunk/scale.py"},
}
WEB = {file for file in FILES if file.startswith("serve/")}
DOORS |= dict.fromkeys(("starlette", "uvicorn", "prometheus_client", "python_multipart"), WEB)
QUICK = {"__init__", "errors", "files/bundle", "files/swap", "cli/main", "data/table", "data/images"}  # by --help
SLOW = ["torch", "torchvision", "timm", "openvino", "sklearn", "scipy.stats", "ray"]  # 0.3 to 4 s each
# What trains or makes a network. All other files are imported without torch, timm and torchvision, and import these
# inside the functions that need them: a frozen model waits for none of it (tests/test_lean.py).
WITH_TORCH = {
    "data/augment.py",
    "export/any_size.py",
    "export/graph.py",
    "export/heads.py",
    "export/placed.py",
    "export/native.py",
    "export/onnx.py",
    "export/sensitive.py",
    "finetune/above.py",
    "finetune/arithmetic.py",
    "finetune/box_layers.py",
    "finetune/box_loss.py",
    "finetune/box_training.py",
    "finetune/box_tuning.py",
    "finetune/checkpoint.py",
    "finetune/decoder.py",
    "finetune/decoding.py",
    "finetune/depthwise.py",
    "finetune/finder.py",
    "finetune/forward.py",
    "finetune/loop.py",
    "finetune/own_layers.py",
    "finetune/pace.py",
    "finetune/paced.py",
    "finetune/pilot.py",
    "finetune/segment_tuning.py",
    "finetune/segmenter.py",
    "finetune/team.py",
    "finetune/together.py",
    "finetune/training.py",
    "finetune/tunable.py",
    "finetune/tune.py",
    "story/activations_of.py",
    "story/freeze_depth.py",
    "trunk/cut.py",
    "trunk/maker.py",
    "trunk/module.py",
    "trunk/two.py",
}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
NAMELESS = {"utils", "util", "helpers", "helper", "base", "common", "constants", "misc"}
# Where JSON is read or written: what the Hub, timm, a saved model or a user's list calls its keys.
JSON_EDGES = {
    *(f"estimators/{name}.py" for name in ("fitted", "classifier", "tagger", "regressor", "detector", "recogniser")),
    *(f"estimators/{name}.py" for name in ("placed", "segmenter", "box_detector")),
    "export/about.py",
    "story/export.py",
    "story/export_placed.py",
    "story/publish.py",
    "story/placed_publish.py",
    "ship/placed.py",
    "ship/placed_files.py",
    "ship/package.py",
    "trunk/cut.py",
    "trunk/backbone.py",
    "trunk/engine.py",
    "trunk/maker.py",
    "trunk/network.py",
    "trunk/shelf.py",
    "data/beside.py",
}
JSON_FUNCTIONS = {"to_json", "described"}
MOST_MODULES = 6  # at the top level
LONGEST_FUNCTION = 60  # lines; about 40 is the aim
LONGEST_FILE = 450  # lines; about 400 is the aim

Found = Iterator[tuple[int, str]]


def imported(nodes: Iterable[ast.AST]) -> Found:
    """The modules that some nodes import, each with its line."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def one_door(file: str, tree: ast.Module) -> Found:
    for line, name in imported(ast.walk(tree)):
        library = name.partition(".")[0]
        library = "pyarrow.fs" if name.startswith("pyarrow.fs") else library
        if file not in DOORS.get(library, {file}):
            yield line, f"imports {library}, whose door is {' and '.join(sorted(DOORS[library]))}"


def quick_import(file: str, tree: ast.Module) -> Found:
    """Files that `import headstart` or `headstart --help` may load keep slow libraries inside functions."""
    if file.removesuffix(".py") not in QUICK:
        return
    for line, name in imported(tree.body):
        if any(f"{name}.".startswith(f"{slow}.") for slow in SLOW):
            yield line, f"imports {name} at the top"


def torch_where_it_is_needed(file: str, tree: ast.Module) -> Found:
    """Neither torch nor a file that loads it is imported at the top of any other file."""
    if file in WITH_TORCH:
        return
    slow = {"torch", "timm", "torchvision"} | {f"headstart.{name[:-3].replace('/', '.')}" for name in WITH_TORCH}
    for line, name in imported(tree.body):
        if any(f"{name}.".startswith(f"{one}.") for one in slow):
            yield line, f"imports {name} at the top, and with it torch"


def no_pickle(file: str, tree: ast.Module) -> Found:
    for line, name in imported(ast.walk(tree)):
        if name.partition(".")[0] in UNSAFE:
            yield line, f"imports {name}, which can run code from a file"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True":
                yield node.lineno, "calls torch.load without weights_only=True"
            if given.get("allow_pickle", "False") != "False":
                yield node.lineno, "allows pickle"


def only_cli_prints_and_exits(file: str, tree: ast.Module) -> Found:
    allowed = {"cli/main.py": {"sys.exit"}, "cli/console.py": {"print"}}.get(file, set())
    for node in ast.walk(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in {"print", "exit", "quit", "sys.exit"} - allowed:
            yield node.lineno, f"calls {called}"


def no_blind_except(file: str, tree: ast.Module) -> Found:
    if file in {"data/decoders.py", "data/jpeg.py", "data/upright.py"}:
        return  # any decoder may raise anything
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in caught):
                yield node.lineno, "catches everything"


def short(file: str, tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield node.lineno, f"{node.name} has {lines} lines, more than {LONGEST_FUNCTION}"
    last = max((node.end_lineno or 0 for node in tree.body), default=0)
    if last > LONGEST_FILE:
        yield last, f"the file has {last} lines, more than {LONGEST_FILE}"


def named_for_what_it_is(file: str, tree: ast.Module) -> Found:
    for part in Path(file).with_suffix("").parts:
        if part.strip("_") in NAMELESS:
            yield 1, f"{part} is a name for anything"


def plain_modules(file: str, tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"keeps global state: {', '.join(node.names)}"
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield node.lineno, "imports *"
    code = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if code and not (isinstance(code[0], ast.ImportFrom) and code[0].module == "__future__"):
        yield 1, "does not start with `from __future__ import annotations`"


def typed_records(file: str, tree: ast.Module) -> Found:
    """What passes between rooms has a type of its own; `dict[str, Any]` is for the edges with JSON."""
    if file in JSON_EDGES or file.partition("/")[0] in ("files", "cli", "report"):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") or node.name in JSON_FUNCTIONS:
            continue
        notes = [argument.annotation for argument in [*node.args.args, *node.args.kwonlyargs]] + [node.returns]
        if any(note is not None and "dict[str, Any]" in ast.unparse(note) for note in notes):
            yield node.lineno, f"{node.name} takes or gives a dict[str, Any]"


Rule = Callable[[str, ast.Module], Found]
RULES: list[Rule] = [
    one_door,
    quick_import,
    torch_where_it_is_needed,
    no_pickle,
    only_cli_prints_and_exits,
    no_blind_except,
    short,
    named_for_what_it_is,
    plain_modules,
    typed_records,
]


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {file: ast.parse(path.read_text(encoding="utf-8")) for file, path in FILES.items()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule: Rule, trees: dict[str, ast.Module]) -> None:
    assert "story/pipeline.py" in trees
    broken = [f"src/headstart/{file}:{line}: {what}" for file, tree in trees.items() for line, what in rule(file, tree)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("rule", "file", "code"),
    [
        (one_door, "heads/closed.py", "def f():\n    from timm.layers import trunc_normal_"),
        (one_door, "ship/predict.py", "import openvino.runtime as ov"),
        (one_door, "data/splits.py", "import PIL.Image"),
        (one_door, "data/far_sets.py", "def f():\n    import pyarrow.fs as fs"),
        (one_door, "trunk/pieces.py", "def f():\n    import ray.data"),
        (quick_import, "cli/main.py", "import torch.nn"),
        (quick_import, "data/table.py", "from scipy.stats import norm"),
        (torch_where_it_is_needed, "story/pipeline.py", "from torch import nn"),
        (torch_where_it_is_needed, "story/pipeline.py", "from headstart.finetune import tune"),
        (torch_where_it_is_needed, "story/pipeline.py", "from headstart.finetune.tune import answers"),
        (no_pickle, "heads/closed.py", "import joblib"),
        (no_pickle, "trunk/backbone.py", "torch.load(path)"),
        (no_pickle, "trunk/backbone.py", "torch.load(path, weights_only=False)"),
        (no_pickle, "trunk/store.py", "np.load(path, allow_pickle=True)"),
        (only_cli_prints_and_exits, "story/pipeline.py", "print('done')"),
        (only_cli_prints_and_exits, "story/pipeline.py", "sys.exit(1)"),
        (no_blind_except, "story/pipeline.py", "try:\n    f()\nexcept Exception:\n    pass"),
        (no_blind_except, "story/pipeline.py", "try:\n    f()\nexcept (OSError, BaseException):\n    pass"),
        (no_blind_except, "story/pipeline.py", "try:\n    f()\nexcept:\n    pass"),
        (short, "story/pipeline.py", "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION),
        (short, "story/pipeline.py", "x = 1\n" * (LONGEST_FILE + 1)),
        (named_for_what_it_is, "judge/utils.py", ""),
        (named_for_what_it_is, "helpers/io.py", ""),
        (plain_modules, "story/pipeline.py", "from __future__ import annotations\ndef f():\n    global x"),
        (plain_modules, "story/pipeline.py", "from __future__ import annotations\nfrom os import *"),
        (typed_records, "judge/marks.py", "def f(x: dict[str, Any]) -> None: ..."),
        (typed_records, "judge/marks.py", "def f() -> tuple[int, dict[str, Any]]: ..."),
        (plain_modules, "story/pipeline.py", "'''text'''\nimport os"),
    ],
)
def test_a_rule_finds_what_it_is_for(rule: Rule, file: str, code: str) -> None:
    assert len(list(rule(file, ast.parse(code)))) == 1


def test_the_top_level_is_not_crowded() -> None:
    assert len([file for file in FILES if "/" not in file]) <= MOST_MODULES


def test_the_house_has_thirteen_floors_at_most() -> None:
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    rooms = {room.strip() for layer in layers for room in layer.replace(":", "|").split("|")}
    assert len(layers) <= 13
    assert rooms == {file.partition("/")[0].removesuffix(".py") for file in FILES} - {"__init__", "__main__"}


def in_a_new_process(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HOME": str(home), "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import headstart",
        "import headstart.cli.main",
        "import headstart.files.bundle, headstart.data.table",
        "import sys, headstart.cli.main\nsys.argv = ['headstart', '--help']\ntry:\n    headstart.cli.main.main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code",
    ],
    ids=["headstart", "cli", "bundle and table", "--help"],
)
def test_starting_is_quick_and_leaves_no_trace(code: str, tmp_path: Path) -> None:
    slow = f"import sys\nloaded = [name for name in {SLOW} if name in sys.modules]\nassert not loaded, loaded"
    done = in_a_new_process(f"{code}\n{slow}", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_can_be_imported_and_no_other_is_public() -> None:
    assert list(headstart.__all__) == sorted(headstart.__all__)
    values = {name: getattr(headstart, name) for name in headstart.__all__}
    modules = {name for name in dir(headstart) if isinstance(getattr(headstart, name), ModuleType)}
    public = {name for name in dir(headstart) if not name.startswith("_")} - modules - {"annotations"}
    assert public == {name for name in values if not name.startswith("_")}
    assert not modules & set(values)


def test_the_package_is_typed_and_says_its_version() -> None:
    assert (PACKAGE / "py.typed").is_file()
    project = (PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{headstart.__version__}"' in project
    changes = (PACKAGE.parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{headstart.__version__}]" in changes
