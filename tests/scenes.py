"""Pictures of red and blue rectangles with their masks and boxes, and small models of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headstart.data.table import Table, read_table
from headstart.story.options import Options

if TYPE_CHECKING:
    from headstart.story.placed import Fitted

COLOURS = {"ball": (220, 40, 30), "box": (30, 60, 220)}
SIZE = (72, 96)  # (height, width) px
EPOCHS = {"segment": 2, "detect": 30}
SMALL = Options(backbone="test_efficientnet", weights="none", size=64, precision="f32", augment="none")


def write_scene(folder: Path, n: int, seed: int) -> None:
    """Pictures with red and blue rectangles on grey noise, their masks, and their boxes in VOC's form."""
    rng = np.random.default_rng(seed)
    for part in ("images", "masks", "Annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for k in range(n):
        pixels = rng.integers(90, 140, (*SIZE, 3)).astype(np.uint8)
        mask, boxes = np.zeros(SIZE, np.uint8), []
        for kind, (name, colour) in enumerate(COLOURS.items(), 1):
            x, y = int(rng.integers(kind == 2 and 48, 24 if kind == 1 else 68)), int(rng.integers(0, 40))
            wide, high = (int(v) for v in rng.integers(18, 27, 2))
            pixels[y : y + high, x : x + wide] = colour
            mask[y : y + high, x : x + wide] = kind
            boxes.append((name, x + 1, y + 1, min(x + wide, SIZE[1]), min(y + high, SIZE[0])))
        Image.fromarray(pixels).save(folder / "images" / f"{k:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{k:02}.png")
        things = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
            "</object>"
            for name, a, b, c, d in boxes
        )
        size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{k:02}.png</filename>{size}{things}</annotation>"
        (folder / "Annotations" / f"{k:02}.xml").write_text(text)


def write_scenes(root: Path) -> Path:
    """36 that teach and 8 that judge, in layouts of both tasks."""
    write_scene(root / "train", 36, 0)
    write_scene(root / "test", 8, 1)
    for part in ("train", "test"):
        (root / "voc" / part).mkdir(parents=True)
        (root / "voc" / part / "JPEGImages").symlink_to(root / part / "images")
        (root / "voc" / part / "Annotations").symlink_to(root / part / "Annotations")
    (root / "classes.txt").write_text("ground\nball\nbox\n")
    return root


def table_of(scenes: Path, task: str) -> Table:
    if task == "detect":
        return read_table(scenes / "voc", task="detect")
    return read_table(scenes, task="segment", classes=str(scenes / "classes.txt"))


Fit = Callable[[str], "tuple[Fitted, Path]"]


def fitting(scenes: Path, place: Path) -> Fit:
    """From the name of a task to what was fitted to these scenes and its saved model, made when first asked for."""
    from headstart.story import placed
    from headstart.story.placed_publish import save
    from headstart.tasks.known import PLACED

    made: dict[str, tuple[Fitted, Path]] = {}

    def fit(task: str) -> tuple[Fitted, Path]:
        if task not in made:
            found = placed.fit(PLACED[task], table_of(scenes, task), replace(SMALL, epochs=EPOCHS[task]))
            save(found, place / task, "scenes", f"headstart fit scenes --task {task}")
            made[task] = found, place / task
        return made[task]

    return fit
