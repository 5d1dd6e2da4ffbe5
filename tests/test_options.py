"""Options: wrong values are refused before anything heavy is imported, and none is without effect."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headstart
from headstart.cli.arguments import parser
from headstart.errors import OptionError
from headstart.story import options
from headstart.story.options import Options, check

HEAVY = ("torch", "torchvision", "timm", "openvino", "sklearn", "scipy.stats")
TUNED, HEAD = {"tune": "auto"}, {"head": "gap, dense 8 relu"}
# option: a value that is not its default, and what must stand beside it for an effect (one of these)
NEEDS: dict[str, tuple[object, list[dict[str, str]]]] = {
    "backbone": ("resnet18", [{}]),
    "weights": ("none", [{}]),
    "taps": ("last", [{}]),
    "layer": ("pre_logits", [{}, HEAD]),
    "head": ("gap", [{}]),
    "epochs": (3, [TUNED, HEAD]),
    "batch_size": (8, [TUNED, HEAD]),
    "optimizer": ("sgd", [HEAD]),
    "tune": ("auto", [{}]),
    "augment": ("none", [TUNED]),
    "lr": ("0.1", [TUNED]),
    "budget": ("9s", [TUNED]),
    "size": (64, [{}]),
    "view": ("whole", [{}]),
    "views": (2, [{}, HEAD]),
    "precision": ("f32", [{}]),
    "bands": ("4,3,2", [{}]),
    "threshold": (0.4, [{}]),
    "coverage": (0.8, [{}]),
    "sets": ("raps", [{}]),
    "max_error": (0.02, [{}]),
    "aim": ("balanced", [{}]),
    "cost": ("costs.csv", [{}]),
    "positive": ("tumour", [{}]),
    "target": ("there", [{}]),
    "false_alarms": (0.01, [{}]),
    "min_images": (3, [{}]),
    "cache": ("here", [{}]),
    "ray": ("local", [{}]),
    "seed": (3, [{}]),
}


def test_the_words_are_those_of_the_rooms_that_read_them() -> None:
    from headstart.data.augment import KINDS
    from headstart.heads.taps import TAPS
    from headstart.tasks.confidence import SETS
    from headstart.trunk.backbone import DEFAULT
    from headstart.trunk.engine import PRECISIONS
    from headstart.trunk.layers import POOLINGS

    assert options.BACKBONE == DEFAULT
    assert options.TAPS == TAPS
    assert options.PRECISIONS == PRECISIONS
    assert tuple(POOLINGS) == options.POOLINGS
    assert options.AUGMENTATIONS == KINDS
    assert options.SETS == SETS


def test_a_command_without_options_is_that_of_the_options() -> None:
    """What is written twice, the default of an option and that of its argument, is the same."""
    given = vars(parser().parse_args(["fit", "DATA"]))
    assert {name: given[name] for name in vars(Options())} == vars(Options())


def test_every_option_is_in_the_table() -> None:
    assert set(NEEDS) == set(vars(Options()))


@pytest.mark.parametrize(
    ("beside", "name"), [(beside, name) for beside in ({}, TUNED, HEAD) for name in NEEDS if name not in beside]
)
def test_an_option_has_an_effect_or_is_refused(name: str, beside: dict[str, str]) -> None:
    value, needs = NEEDS[name]
    anywhere = {} in needs
    against = beside == TUNED and name in ("head", "layer", "taps", "views", "target")
    against |= beside == HEAD and name in ("tune", "taps", "target")
    given = Options(**(beside | {name: value}))  # type: ignore[arg-type]
    if not against and (anywhere or beside in needs):
        check(given)
    else:
        with pytest.raises(OptionError, match="leave"):
            check(given)


WRONG = [
    ("export", "--to tflite", "one of onnx, openvino, litert, torch"),
    ("export", "--to onnx --int8 --max-drop -1", "points of the accuracy, from 0 to 100"),
    ("review", "--port 70000", "1 to 65535"),
    ("serve", "--queue 0", "at least 1 image"),
    ("serve", "--max-images 500", "room for them all"),
    ("serve", "--max-mb nan", "must be above 0"),
    ("serve", "--timeout nan", "must be above 0"),
    ("serve", "--max-megapixels 1e9", "pixels"),
    ("fit", "--task segmnt", "allowed are auto, classify, tag"),
    ("fit", "--task segment --classes a,,b", "a name is empty"),
    ("fit", "--classes a,b", "for --task segment"),
    ("fit", "--threshold 1.5", "a probability between 0 and 1"),
    ("fit", "--coverage 0.4", "from 0.5 to 0.999"),
    ("fit", "--coverage nan", "from 0.5 to 0.999"),
    ("fit", "--sets rasp", "did you mean raps"),
    ("fit", "--max-error 1", "a share between 0 and 1"),
    ("fit", "--false-alarms 0.9", "a share from 0.001 to 0.5"),
    ("fit", "--aim balance", "one of accuracy, balanced"),
    ("fit", "--aim balanced --cost c.csv", "leave one of them out"),
    ("fit", "--taps some", "one of auto, last, all"),
    ("fit", "--precision f16", "one of auto, bf16, f32"),
    ("fit", "--size 3", "16 to 1024"),
    ("fit", "--view hole", "did you mean whole"),
    ("fit", "--views 3", "1, or 2"),
    ("fit", "--views 2 --tune auto", "leave --views or --tune out"),
    ("fit", "--views 2 --head flatten", "begin --head with gap"),
    ("fit", "--seed -1", "a whole number from 0"),
    ("fit", "--epochs 0 --tune auto", "1 to 10000"),
    ("fit", "--epochs 3", "add --tune auto or --head"),
    ("fit", "--augment none", "add --tune auto"),
    ("fit", "--batch-size 0 --tune auto", "1 to 100000"),
    ("fit", "--optimizer lion --head gap", "one of adam, adamw, sgd"),
    ("fit", "--optimizer sgd --tune all", "add --head"),
    ("fit", "--head gapp", "did you mean gap"),
    ("fit", "--augment fotos --tune all", "one of photo"),
    ("fit", "--lr fast --tune all", "a number above 0"),
    ("fit", "--budget soon --tune all", "such as 90s"),
    ("fit", "--tune all --layer x", "leave out"),
    ("fit", "--task segment --tune all --ray local", "learns masks and boxes on one machine"),
    ("fit", "--task detect --tune all --ray local", "learns masks and boxes on one machine"),
    ("fit", "--ray here", "names no cluster"),
    ("predict MODEL", "--ray 10.0.0.5", "names no cluster"),
    ("fit", "--taps all --layer x", "leave it out"),
    ("fit", "--track here", "tensorboard:FOLDER"),
    ("fit", "--add-to other --taps last", "cannot be set with --add-to"),
    ("fit", "--weights=", "--weights is empty"),
    ("features", "-o f.txt", "must end in"),
    ("features", "-o f.csv --pool most --layer x", "one of avg, max"),
    ("features", "-o f.csv --pool max", "add --layer"),
    ("features", "-o f.csv --pool max --layer pre_logits/mean", "pooled already"),
    ("features", "-o f.csv --seed 3", "draws nothing"),
    ("features", "-o f.csv --size 9", "16 to 1024"),
    ("inspect", "--seed 3", "draws nothing"),
    ("suggest MODEL", "--number 0", "a whole number from 1"),
    ("suggest MODEL", "--sheet page.txt", "must end in"),
    ("rank", "--budget soon", "such as 90s"),
    ("inspect", "--backbone auto", "is of fit"),
    ("fit", "--backbone auto --layer x", "is of one network"),
    ("inspect", "--fail-on leeks", "did you mean leaks"),
    ("inspect", "--bands 4,3", "three"),
    ("fit", "--bands red,green,blue", "three whole numbers"),
    ("fit", "--min-images 0", "a whole number from 1"),
    ("compare", "--group-by (", "no regular expression"),
    ("fit", "--group site --group-by folder", "leave one of them out"),
    ("fit", "--group=", "--group is empty"),
    ("fit", "--time=", "--time is empty"),
    ("inspect", "--precision f16", "one of auto"),
    ("classify", "--top 0", "1 or more"),
    ("classify", "-o f.txt", "must end in"),
    ("classify", "--size 3000", "16 to 1024"),
    ("classify", "--seed 1", "unrecognized"),
    ("classify", "--cache x", "unrecognized"),
    ("predict MODEL", "--top 0", "1 or more"),
    ("predict MODEL", "--tiles 0", "a whole number from 1"),
    ("predict MODEL", "-o f.txt", "must end in"),
    ("predict MODEL", f"--explain {sys.executable}", "is no folder"),
    ("predict MODEL", "--explain=", "--explain is empty"),
    ("predict MODEL", "--masks=", "--masks is empty"),
    ("compare", "--epochs 0", "1 to 10000"),
    ("compare", "--augment fotos", "one of photo"),
    ("compare", "--curve --freeze-depth", "leave one of them out"),
    ("backbones", "--sort prio", "did you mean prior"),
    ("backbones", "--download x --search y", "leave one of them out"),
    ("backbones", "--import-weights x --sort top1", "leave one of them out"),
    ("backbones", "--export-weights x y.pth", "must end in .safetensors"),
]
# Runs every command in one process, and says after each what it wrote and which heavy libraries are loaded.
SCRIPT = """
import contextlib, io, json, sys
from headstart.cli.main import main
for words in json.loads(sys.argv[1]):
    err, code = io.StringIO(), 0
    with contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, err.getvalue(), [m for m in json.loads(sys.argv[2]) if m in sys.modules]]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], tuple[int, str, list[str]]]]:
    place = tmp_path_factory.mktemp("wrong")
    words = [
        [*command.split(), *([] if command == "backbones" else ["DATA"]), *given.split()] for command, given, _ in WRONG
    ]
    env = os.environ | {"PYTHONPATH": str(Path(headstart.__file__).parents[1])}
    told = [sys.executable, "-c", SCRIPT, json.dumps(words), json.dumps(HEAVY)]
    done = subprocess.run(told, capture_output=True, text=True, env=env, cwd=place, timeout=120, check=True)
    yield {
        (command, given): json.loads(line)
        for (command, given, _), line in zip(WRONG, done.stdout.splitlines(), strict=True)
    }
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("command", "given", "said"), WRONG)
def test_a_wrong_value_is_refused_before_the_data_are_read_and_anything_heavy_is_loaded(
    command: str, given: str, said: str, answers: dict[tuple[str, str], tuple[int, str, list[str]]]
) -> None:
    code, err, loaded = answers[command, given]
    assert code == 2, err
    assert said in err
    assert err.count("\n") == 1
    assert loaded == []


def test_every_option_with_a_value_that_can_be_wrong_is_tried() -> None:
    """Paths and names are known to be wrong only where they are looked up; the others have a row above."""
    free = {"--output", "--backbone", "--layer", "--tune", "--cache", "--weights", "--search", "--download"}
    free |= {"--backbones", "--cost", "--add-to", "--import-weights", "--label", "--labels", "--remove", "--positive"}
    free |= {"--good", "--target", "--data", "--model", "--host", "--token-file"}
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    tried = {word for _, given, _ in WRONG for word in given.replace("=", " ").split() if word.startswith("--")}
    for command in action.choices.values():
        for option in command._actions:
            if option.option_strings and option.nargs != 0:
                assert option.option_strings[-1] in tried | free, option.option_strings


def test_what_the_data_were_read_as_is_said_before_anything_heavy_is_loaded(tmp_path: Path, pictures: Path) -> None:
    """The first line comes while torch is being imported, or before."""
    code = (
        "import sys, importlib.abc\n"
        f"heavy = {HEAVY!r}\n"
        "class Stop(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in heavy:\n"
        "            raise MemoryError(name)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from headstart.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(headstart.__file__).parents[1])}
    for command in (["fit", "-o", "m"], ["inspect"], ["compare"], ["features", "-o", "f.csv"]):
        told = [sys.executable, "-c", code, command[0], str(pictures), *command[1:]]
        done = subprocess.run(told, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=120, check=False)
        first, second = done.stderr.splitlines()
        assert "24 images of 3 classes" in first
        assert second.startswith("headstart: out of memory")
        assert done.returncode == 1
