"""benchmarks/peers.py: its table is what its records say, and a peer that fails is a row with its reason."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def modules() -> Any:
    """(peer_runs, peer_sets, peer_page), which lie beside the benchmark programs."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import peer_page
        import peer_runs
        import peer_sets
    finally:
        sys.path.remove(str(BENCHMARKS))
    return peer_runs, peer_sets, peer_page


def told(ended: str = "", cpu: float = 4.0) -> dict[str, Any]:
    return {"ended": ended, "seconds": 9.0, "cpu": cpu, "peak": 3_000_000}


def judged(peer: str, hits: str, repeat: int = 0) -> dict[str, Any]:
    fields = {"steps": 0, "interval": False, "learn": told(), "judge": told(), "first": told(cpu=1.25)}
    return {"peer": peer, "set": "photos", "repeat": repeat, "hits": hits, "answered": len(hits), **fields}


def rows(table: Any) -> dict[str, list[str]]:
    return {row[0]: [str(cell) for cell in row] for row in table.rows}


def test_the_table_is_what_the_records_say(modules: Any) -> None:
    _, _, page = modules
    runs = modules[0].peers()
    records = [judged("headstart", "1" * 19 + "0"), judged("embetter", "0" * 10 + "1" * 10)]
    photos, last = page.tables(runs, records)
    found = rows(photos)
    assert photos.title == "photos"
    assert "right of 20, %" in photos.header
    assert found["headstart"][2].startswith("95.0 (")
    assert found["embetter + LogisticRegression"][2].startswith("50.0 (")
    assert found["embetter + LogisticRegression"][3].startswith("+45.0 (")
    assert found["timm, a plain loop"][2] == "not run"
    assert len(last.rows) == len(runs)  # each peer, those that never ran as well


def test_repeats_are_one_row(modules: Any) -> None:
    _, _, page = modules
    records = [judged("headstart", "11"), judged("headstart", "10", 1)]
    photos, _ = page.tables(modules[0].peers(), records)
    assert rows(photos)["headstart"][2].startswith("75.0 (")


def test_a_peer_that_fails_is_a_row_that_says_why(modules: Any) -> None:
    runs, _, page = modules
    failed = {"peer": "timm", "set": "photos", "repeat": 0, "steps": 0, "learn": told("OSError: no | weights")}
    refused = {"peer": "otx", "kind": "install", "ended": "no version fits"}
    photos, last = page.tables(runs.peers(), [judged("headstart", "11"), failed | {"interval": False}, refused])
    assert rows(photos)["timm, a plain loop"][2] == "OSError: no / weights"
    assert rows(last)["OTX"][1] == "no version fits"
    assert rows(last)["OTX"][-1].startswith("It installs.")
    assert {len(row) for table in (photos, last) for row in table.rows} == {len(photos.header), len(last.header)}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory of a process tree is read from /proc")
def test_a_program_that_fails_or_takes_too_long_says_so(modules: Any, tmp_path: Path) -> None:
    runs, _, _ = modules
    (tmp_path / "fails.py").write_text("print('so far', flush=True)\nraise ValueError('no such class')\n")
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(60)\n")
    line = [sys.executable, str(tmp_path / "fails.py")]
    failed = runs.run(line, tmp_path, tmp_path, {}, 30)
    assert failed.ended == "ValueError: no such class"
    assert "so far" in failed.printed
    start = time.monotonic()
    assert (
        runs.run([sys.executable, str(tmp_path / "waits.py")], tmp_path, tmp_path, {}, 1).ended == "stopped after 1 s"
    )
    assert time.monotonic() - start < 20


def test_epochs_are_cut_in_a_copy_alone(modules: Any, tmp_path: Path) -> None:
    runs, _, _ = modules
    (peer,) = [peer for peer in runs.peers() if peer.name == "pytorch_fixed"]
    runs.command(peer, peer.learn, tmp_path, tmp_path, 3)
    assert "EPOCHS = 3\n" in (tmp_path / peer.learn).read_text()
    assert runs.asked(peer.learn) == 25


def test_what_the_user_writes_is_counted(modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, _, _ = modules
    monkeypatch.setattr(runs, "PROGRAMS", tmp_path)
    (tmp_path / "a.py").write_text('"""What it is.\n\nMore.\n"""\n\nimport sys\n\n# why\nprint(sys.argv)  # all\n')
    assert runs.lines_of("a.py") == 2


def test_each_program_of_a_row_is_there(modules: Any) -> None:
    runs, _, _ = modules
    for peer in runs.peers():
        for program in (peer.learn, peer.predict, *peer.beside):
            assert not program or (runs.PROGRAMS / program).is_file(), f"{peer.name}: {program}"
        assert peer.learn or peer.note, f"{peer.name} does not run and says not why"
        assert not peer.cut or max(peer.cut.values()) < runs.asked(peer.learn), f"{peer.name}: cut to more than it asks"


def test_a_split_is_of_each_class_and_by_content(modules: Any, tmp_path: Path) -> None:
    _, sets, _ = modules
    for label, n in (("a", 8), ("b", 12)):
        (tmp_path / "one" / label).mkdir(parents=True)
        for number in range(n):
            (tmp_path / "one" / label / f"{number}.png").write_bytes(f"{label}{number}".encode())
    place = sets.made(tmp_path / "one", tmp_path / "sets")
    count = {part: sum(1 for _ in (place / part).glob("*/*")) for part in ("train", "val")}
    assert count == {"train": 15, "val": 5}
    truth = json.loads((place / "truth.json").read_text())
    assert sorted(truth.values()) == ["a", "a", "b", "b", "b"]
    for name, label in truth.items():  # the number says nothing; the picture is the one of val/
        assert (place / "judged" / name).read_bytes().decode().startswith(label)
    again = sets.made(tmp_path / "one", tmp_path / "again")
    assert sorted(p.name for p in again.rglob("val/*/*")) == sorted(p.name for p in place.rglob("val/*/*"))
