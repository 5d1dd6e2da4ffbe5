"""What a server takes at the most. Everything beyond is refused in one line, before it costs anything."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.data.limits import Limits
from headstart.errors import OptionError


@dataclass(frozen=True)
class Bounds:
    """body: bytes of a request; pixels: of an image, width * height; images: of a request; queue: images that wait or
    are worked on, of all requests; seconds: for an answer.

    80 million pixels pass the cameras of phones up to 64 megapixels, and not 10,000 x 10,000, which a file of a few KB
    can hold and which takes seconds of a processor. A client must send at least `pace` bytes a second on average,
    after `patience` seconds: 128 kbit/s, a slow mobile connection.
    """

    body: int = 32 * 2**20
    pixels: int = 80_000_000
    images: int = 64
    queue: int = 128
    seconds: float = 30.0
    patience: float = 10.0
    pace: float = 16_000.0

    def __post_init__(self) -> None:
        if not 1 <= self.images <= self.queue:
            raise OptionError(
                f"--max-images {self.images} --queue {self.queue}: at least 1 image, and room for them all"
            )
        if self.body < 1 or not 0 < self.seconds < float("inf"):
            raise OptionError(f"--max-mb and --timeout must be above 0, got {self.body / 2**20:g} and {self.seconds:g}")
        _ = self.limits

    @property
    def limits(self) -> Limits:
        """Of one image, for the decoder. Raises OptionError."""
        return Limits(max_pixels=self.pixels)

    @property
    def held(self) -> int:
        """Bytes of bodies in memory, of all requests."""
        return 8 * self.body
