"""The images of `headstart demo`: scikit-learn's handwritten digits, written out as PNG files in one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.data.images import write_png
from headstart.errors import OutputError


def write_digits(folder: Path) -> int:
    """Write 1,797 grey pictures of 8 x 8 px (UCI optical recognition of handwritten digits); returns their number."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    try:
        for number, (picture, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            place = folder / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            write_png(np.rint(picture * (255 / 16)).astype(np.uint8), place / f"{number:04d}.png")
    except OSError as error:
        raise OutputError(f"the images cannot be written to {folder} ({error.strerror}): choose another -o") from None
    return len(digits.images)
