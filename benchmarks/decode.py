"""Which JPEG decoder is fastest for what headstart needs: the file's bytes in, a small upright crop out?

    python benchmarks/decode.py [SHARED]        SHARED: the folder of real data, default ../shared

Three sets: the photographs of hymenoptera (about 0.2 megapixels) at 224 px, a synthetic 12-megapixel photograph at
224 px, and the 32 px JPEGs of CIFAR-10 at 32 px. Each way decodes, then resizes and crops with the same single
Pillow call. Reported: milliseconds per image, best of five rounds: CPU time, and wall time with one thread and two.
The last result stands in benchmarks/decode.md, which `--write` rewrites.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image

from headstart.data.images import Preprocess, load

Way = Callable[[bytes, int], object]


def crop(picture: Image.Image, side: int) -> Image.Image:
    """The centre square of 7/8 of the short side, resized to side x side px."""
    width, height = picture.size
    half = min(width, height) * 0.875 / 2
    box = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
    return picture.resize((side, side), Image.Resampling.BICUBIC, box=box)


def pillow_full(data: bytes, side: int) -> object:
    return crop(Image.open(io.BytesIO(data)).convert("RGB"), side)


def pillow_draft(data: bytes, side: int) -> object:
    picture = Image.open(io.BytesIO(data))
    need = math.ceil(2 * side / 0.875)
    picture.draft("RGB", (need, need))
    return crop(picture.convert("RGB"), side)


def _simplejpeg(data: bytes, side: int, min_factor: int) -> object:
    need = math.ceil(2 * side / 0.875)
    simplejpeg.decode_jpeg_header(data)  # the product asks for the size first
    array = simplejpeg.decode_jpeg(data, min_height=need, min_width=need, min_factor=min_factor)
    return crop(Image.fromarray(array), side)


def simplejpeg_eighths(data: bytes, side: int) -> object:
    return _simplejpeg(data, side, 1)


def simplejpeg_powers(data: bytes, side: int) -> object:
    return _simplejpeg(data, side, 2)


def product(data: bytes, side: int) -> object:
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return load(data, Preprocess((side, side), 0.875, "bicubic", "shortest", mean, std))


def ways() -> dict[str, Way]:
    found: dict[str, Way] = {
        "Pillow, full size": pillow_full,
        "Pillow, draft": pillow_draft,
        "simplejpeg, n/8": simplejpeg_eighths,
        "simplejpeg, 1/2 1/4 1/8": simplejpeg_powers,
        "headstart `load` (checks and thumbnail too)": product,
    }
    try:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped]
    except ImportError:
        return found
    torch.set_num_threads(1)

    def torchvision_full(data: bytes, side: int) -> object:
        tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        return crop(Image.fromarray(tensor.permute(1, 2, 0).contiguous().numpy()), side)

    return {**found, "torchvision, full size": torchvision_full}


def large_photograph() -> bytes:
    """A JPEG of 4000 x 3000 px with the spectrum of a photograph: noise at every octave, quality 90."""
    rng = np.random.default_rng(0)
    total = np.zeros((3000, 4000, 3), np.float32)
    for octave in range(10):
        shape = (max(3000 >> (9 - octave), 2), max(4000 >> (9 - octave), 2), 3)
        small = Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8))
        total += np.asarray(small.resize((4000, 3000), Image.Resampling.BICUBIC), np.float32) * 0.75**octave
    buffer = io.BytesIO()
    Image.fromarray((total / 3.8).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def milliseconds(
    some: Sequence[Way], images: Sequence[bytes], side: int, threads: int, rounds: int = 5
) -> list[tuple[float, float]]:
    """(CPU, wall) milliseconds per image of each way, the best of some rounds in which the ways take turns."""
    times: list[list[tuple[float, float]]] = [[] for _ in some]
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            for way, taken in zip(some, times, strict=True):
                start, cpu = time.perf_counter(), time.process_time()
                for _ in pool.map(way, images, [side] * len(images)):
                    pass
                taken.append((time.process_time() - cpu, time.perf_counter() - start))
    scale = 1000 / len(images)
    return [(scale * min(cpu for cpu, _ in taken), scale * min(wall for _, wall in taken)) for taken in times]


def sets(shared: Path) -> dict[str, tuple[list[bytes], int]]:
    photographs = [p.read_bytes() for p in sorted((shared / "data/hymenoptera/train").glob("*/*.jpg"))[:100]]
    cells = pq.ParquetFile(shared / "data/cifar10/train-00000-of-00001.parquet").read_row_group(0)["image"]
    large = large_photograph()
    return {
        f"hymenoptera, {len(photographs)} images, 224 px": (photographs, 224),
        f"12 megapixels, {len(large) / 1e6:.1f} MB, 224 px": ([large] * 4, 224),
        f"CIFAR-10, {len(cells)} images, 32 px": ([cell["bytes"] for cell in cells.to_pylist()], 32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("shared", nargs="?", type=Path, default=default)
    parser.add_argument("--write", action="store_true", help="rewrite benchmarks/decode.md")
    options = parser.parse_args()
    lines = [
        "# JPEG decoders, ms per image, best of five rounds",
        "",
        f"`python benchmarks/decode.py --write`, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}.",
        "",
        "| set | way | CPU | wall, 1 thread | wall, 2 threads |",
        "|---|---|---|---|---|",
    ]
    for name, (images, side) in sets(options.shared).items():
        found = ways()
        one, two = (milliseconds(list(found.values()), images, side, threads) for threads in (1, 2))
        for way_name, (cpu, wall), (_, wall_of_two) in zip(found, one, two, strict=True):
            lines.append(f"| {name} | {way_name} | {cpu:.3f} | {wall:.3f} | {wall_of_two:.3f} |")
            print(lines[-1], flush=True)
    if options.write:
        (Path(__file__).parent / "decode.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
