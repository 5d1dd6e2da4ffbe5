"""What lies on a disk may be a pipe, a device or a name that gives orders."""

from __future__ import annotations

import ast
import csv
import io
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.files.cells import CONTROL, FORMULA, csv_bytes, printable, quoted
from headstart.files.reading import read_regular


def test_a_regular_file_is_read_whole_and_no_larger_one(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_regular(file) == read_regular(file, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, more than the limit of 4"):
        read_regular(file, 4)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "a named pipe"), ("link", "a device"), ("folder", r"folder|directory")):
        with pytest.raises(OSError, match=kind):
            read_regular(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match=r"socket|No such device"):
            read_regular(tmp_path / "socket")
    if Path("/proc/self/mem").exists():
        assert read_regular("/proc/self/maps") == b""  # it says that it is empty, and no more is read


@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), max_size=5))
def test_cells_of_any_text_run_nothing_and_order_nothing(rows: list[list[str]]) -> None:
    written = csv_bytes(("a", "b"), rows).decode()
    read = list(csv.reader(io.StringIO(written, newline="")))[1:]
    assert len(read) == len(rows)
    for cells, given_cells in zip(read, rows, strict=True):
        for cell, text in zip(cells, given_cells, strict=True):
            assert not cell.startswith(FORMULA)
            assert not CONTROL.search(cell)
            assert cell.removeprefix("'") == printable(text).removeprefix("'")


@given(st.text())
def test_a_value_in_a_message_is_short_and_gives_no_orders(text: str) -> None:
    said = quoted(text)
    assert not CONTROL.search(said)
    assert len(text) > 40 or ast.literal_eval(said) == text
    assert len(ast.literal_eval(said)) <= 41
    assert ast.literal_eval(quoted(f"{text} "))[-1] == " "


def test_numbers_stay_numbers() -> None:
    assert csv_bytes(("x",), [(-1.5,), ("-1.5",), (None,)]) == b'x\r\n-1.5\r\n\'-1.5\r\n""\r\n'
