"""--group and --time: columns of a list that say what belongs together, and what came first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.table import Table, read_table
from headstart.data.times import moment
from headstart.errors import DataError, OptionError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for k in range(20):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(folder / f"{k}.png")
    return folder


def written(images: Path, times: list[str], **columns: list[str]) -> Path:
    """A list of as many images as there are times, of two classes in turn."""
    columns = {"label": ["ab"[k % 2] for k in range(len(times))], "taken": times, **columns}
    lines = [",".join(("path", *columns)), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    text = "\n".join([lines[0], *(f"{k}.png,{line}" for k, line in enumerate(lines[1:]))])
    (images / "list.csv").write_text(text)
    return images / "list.csv"


def judged(table: Table) -> list[str]:
    return [str(name) for name in table.names[table.splits == "test"]]


def test_the_latest_fifth_judges_and_times_are_never_divided(images: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        days = rng.integers(1, 9, 20)
        table = read_table(written(images, [f"2024-03-{day:02d}" for day in days]), time="taken")
        test = table.splits == "test"
        assert days[test].min() > days[~test].max()
        share = {int(day): abs(int((days > day).sum()) - 4) for day in days if (days > day).any()}
        assert abs(int(test.sum()) - 4) == min(share.values())
        last = f"2024-03-{days[~test].max():02d}"
        assert any(f"judged on the {test.sum()} image" in note and f"after {last}" in note for note in table.notes)


def test_times_in_any_writing_stand_in_one_order() -> None:
    for written_so in (
        ["2", "10", "1e2"],
        ["2023-12-31", "2024-01-01 08:00", "2024-01-01T09:00:00Z", "2024-01-02"],
        ["2023:12:31 23:59:59", "2024:01:01 00:00:00"],
    ):
        found = [moment(text) for text in written_so]
        assert all(found)
        assert found == sorted(found, key=lambda one: one[1] if one else 0)
        assert len({one[0] for one in found if one}) == 1
    assert [moment(text) for text in ("yesterday", "2024-13-01", "03/04/2024", "nan")] == [None] * 4


def test_what_is_no_time_is_named_with_its_line(images: Path) -> None:
    days = [f"2024-03-{k + 1:02d}" for k in range(10)]
    with pytest.raises(DataError, match=r"list.csv line 5: column 'taken' holds 'monday', which is no time"):
        read_table(written(images, [*days[:3], "monday", *days[4:]]), time="taken")
    with pytest.raises(DataError, match=r"list.csv line 5: column 'taken' holds '7', a number among dates"):
        read_table(written(images, [*days[:3], "7", *days[4:]]), time="taken")
    with pytest.raises(DataError, match="one time only"):
        read_table(written(images, ["2024-03-01"] * 10), time="taken")
    with pytest.raises(DataError, match=r"no column 'when'.*'taken'"):
        read_table(written(images, days), time="when")
    with pytest.raises(DataError, match="leave --time out"):
        read_table(written(images, days, split=["train"] * 5 + ["test"] * 5), time="taken")


def test_images_without_a_time_and_classes_of_the_future_are_not_used(images: Path) -> None:
    days = ["", *(f"2024-03-{k + 1:02d}" for k in range(10))]
    table = read_table(written(images, days, label=[*"abababababc"]), time="taken")
    assert table.labels[0] == table.labels[10] == ""
    assert judged(table) == ["9.png"]
    assert {"1 image without a time", "1 class without an earlier image (c)"} <= {
        part for note in table.notes for part in (note.removeprefix("not used: "), note.rpartition(" of ")[2])
    }


def test_a_column_of_groups_is_named_and_not_guessed(images: Path) -> None:
    places = ["north", "south", "north", "", "east"] * 2
    file = written(images, ["1"] * 10, where=places)
    assert not any(read_table(file).groups)
    assert read_table(file, group="Where").groups.tolist() == places
    with pytest.raises(DataError, match="no column 'place'"):
        read_table(file, group="place")
    with pytest.raises(OptionError, match="leave one of them out"):
        read_table(file, group="where", group_by="(.)")
    with pytest.raises(DataError, match="--group could name"):
        read_table(Path(__file__).parent, group="where")
