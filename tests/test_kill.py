"""A fit that is killed and started again ends as one that nothing disturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TINY

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")
def test_kills_change_nothing(pictures: Path, tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--kills", "2", "--seed", "1"]
    places = ["--images", str(pictures), "--results", str(tmp_path)]
    done = subprocess.run([*program, *places, "--", *TINY], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = json.loads((tmp_path / "kills.json").read_text())["values"]["rounds"]
    assert len(rounds) == 2
    assert all(r["same"] and r["again"] == 0 and r["lost"] <= 8 for r in rounds)
    assert any(r["was_running"] for r in rounds)
