"""A command that is killed and started again, or started twice at once, ends as one that nothing disturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TINY

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")
def test_kills_change_nothing(parted: Path, tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--kills", "1", "--pairs", "1", "--seed", "1"]
    places = ["--command", "fit", "predict", "--images", str(parted), "--results", str(tmp_path)]
    done = subprocess.run([*program, *places, "--", *TINY], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "kills.json").read_text())["values"]
    assert list(found) == ["fit", "predict"]
    kills = [kill for command in found.values() for kill in command["rounds"]]
    assert all(k["same"] and k["whole"] and k["again"] == 0 and k["lost"] <= 8 for k in kills)
    assert any(k["was_running"] for k in kills)
    assert all(p["same"] and not p["beside"] for command in found.values() for p in command["pairs"])
