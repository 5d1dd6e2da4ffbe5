"""One photograph in many forms: turned, in other colours and modes, tiny and huge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def odd_pictures(folder: Path) -> list[Path]:
    """The same photograph turned, in other colours and modes, and a huge one."""
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    photo = small.resize((480, 360), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = photo.copy()
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    deep = Image.fromarray((np.asarray(photo.convert("L")).astype(np.uint16) * 201) + 77)
    kept: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "plain.jpg": (photo, {}),
        "turned.jpg": (photo, {"exif": turned}),
        "cmyk.jpg": (photo.convert("CMYK"), {}),
        "grey.jpg": (photo.convert("L"), {}),
        "grey.png": (photo.convert("L"), {}),
        "palette.png": (photo.convert("P"), {}),
        "hole.gif": (photo.convert("P"), {"transparency": 3}),
        "clear.png": (clear, {}),
        "deep.png": (deep, {}),
        "two.png": (photo.convert("1"), {}),
        "turned.png": (photo, {"exif": turned}),
        "turned.tif": (photo, {"exif": turned}),
        "turned.webp": (photo, {"exif": turned, "lossless": True}),
        "tiny.png": (photo.resize((3, 2)), {}),
        "long.jpg": (photo.resize((1500, 20)), {}),
        "huge.jpg": (photo.resize((3200, 2400)), {"quality": 40}),
    }
    for name, (picture, options) in kept.items():
        picture.save(folder / name, **options)
    return [folder / name for name in kept]
