"""The training images that an image looks like, for somebody who looks at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conftest import TINY, picture
from headstart.cli.main import main
from headstart.data.images import write_png
from headstart.data.table import read_table
from headstart.story.alike import LookAlikes


def test_look_alikes_are_training_images_and_neither_itself_nor_its_copies(tmp_path: Path) -> None:
    rng, data = np.random.default_rng(6), tmp_path / "data"
    for part, n in (("train", 28), ("test", 4)):  # fewer than 50 are not kept with a model
        for colour, name in enumerate(("sand", "sea")):
            (data / part / name).mkdir(parents=True)
            for k in range(n):
                write_png(picture(colour, rng), data / part / name / f"{k:02d}.png")
    main(["fit", str(data), "-o", str(tmp_path / "model"), *TINY])
    table = read_table(data)
    alike = LookAlikes(tmp_path / "model", table)
    for row in (0, 3, 9, 40):
        every = alike.of(row)
        assert 2 <= len(every) <= 3
        assert row not in [one.row for one in every]
        assert [one.similarity for one in every] == sorted((one.similarity for one in every), reverse=True)
        assert all((table.splits[one.row], table.labels[one.row]) == ("train", one.label) for one in every)
        assert every[0].row not in [one.row for one in alike.of(row, (every[0].row,))]
    assert LookAlikes(tmp_path / "none", table).of(0) == ()
