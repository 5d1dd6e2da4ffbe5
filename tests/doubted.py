"""A folder of pictures and a saved model whose lists doubt some of them, for tests of `headstart review`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import saved
from headstart.data.preprocess import Preprocess
from headstart.files.cells import csv_bytes

SEEN = Preprocess((32, 32), 1.0, "bilinear", "shortest", (0.5,) * 3, (0.5,) * 3)
ODD, TURNED, DEEP = "train/ant/=1+1.png", "train/bee/turned.jpg", "test/bee/deep.tif"
JUDGED = ("path", "action", "label", "given", "reason")
LISTS: dict[str, bytes] = {
    "suspected_labels.csv": csv_bytes(
        JUDGED,
        [(TURNED, "", "ant", "bee", "the model says ant"), (ODD, "", "bee", "ant", "the model says bee")],
    ),
    "duplicates.csv": csv_bytes(
        ("set", "kind", "path", "split", "label"),
        [
            (1, "exact", ODD, "train", "ant"), (1, "exact", "train/bee/0.png", "train", "bee"),
            (2, "near", "train/bee/1.png", "train", "bee"), (2, "near", DEEP, "test", "bee"),
            (3, "near", "train/ant/1.png", "train", "ant"), (3, "near", "train/ant/2.png", "train", "ant"),
        ],
    ),
    "mistakes.csv": csv_bytes(
        JUDGED, [(DEEP, "", "ant", "bee", "answered ant at 80%"), (TURNED, "", "ant", "bee", "answered ant at 70%")]
    ),
}  # fmt: skip


def write_pictures(folder: Path) -> None:
    """Ants and bees in two parts; one turned by EXIF, one of 16 bits, one whose name is a formula."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 1, 24)[:, None, None] + np.linspace(0, 1, 32)[None, :, None]
    for split in ("train", "test"):
        for label in ("ant", "bee"):
            (folder / split / label).mkdir(parents=True)
            for k in range(3):
                pixels = (slope * rng.integers(20, 127, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{k}.png")
    Image.fromarray(pixels).save(folder / ODD)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / TURNED, exif=exif)
    Image.fromarray((slope[..., 0] * 30_000).astype(np.uint16)).save(folder / DEEP)


def write_model(folder: Path, data: str) -> None:
    """Fitted to `data`, it says; it has no network."""
    run = saved.RUN | {"command": f"headstart fit {data} -o insects-model"}
    manifest = saved.DESCRIBED | {"preprocess": SEEN.to_json(), "classes": ["ant", "bee"]}
    saved.save(folder, manifest=manifest, run=run, files=LISTS)
