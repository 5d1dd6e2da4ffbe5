"""The training images that an image looks like, for somebody who looks at it."""

from __future__ import annotations

from pathlib import Path

from headstart.data.table import read_table
from headstart.story.alike import LookAlikes


def test_look_alikes_are_training_images_and_neither_itself_nor_its_copies(model: Path, pictures: Path) -> None:
    table = read_table(pictures, min_classes=1)
    alike = LookAlikes(model, table)
    for row in (0, 9, 20):
        every = alike.of(row)
        assert 2 <= len(every) <= 3
        assert row not in [one.row for one in every]
        assert [one.similarity for one in every] == sorted((one.similarity for one in every), reverse=True)
        assert all(one.label == table.labels[one.row] for one in every)
        assert every[0].row not in [one.row for one in alike.of(row, (every[0].row,))]
