"""Which way up a picture is."""

from __future__ import annotations

from PIL import Image

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(picture: Image.Image) -> int:
    """The EXIF or XMP orientation, 1 to 8; 1 if there is none or it is nonsense."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # the metadata is broken, not the picture
        return 1
    return value if isinstance(value, int) and value in UPRIGHT else 1


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture
