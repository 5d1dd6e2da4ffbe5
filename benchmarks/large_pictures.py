"""`fit --task anomaly` of 2,000 pictures of 1920 x 1080: peak memory, and what is said of the disk before it starts.

    python benchmarks/large_pictures.py [--images 2000] [--smaller 500]

The pictures are made: JPEGs of crops from the photographs of hymenoptera and camvid, each with a place, a size, a light
and noise of its own, all good but for every twentieth, which has a grey block. A smaller set is fitted first, so that
what memory grows by an image can be seen. Features and maps go to an empty cache; its bytes are compared with the line
that was said.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 1920, 1080
EVERY = 20  # of so many pictures one is odd
QUALITY = 70  # of the JPEGs: about 150 KB each
LIMIT = 4.0  # GB
STORED = "bytes stored (pooled features and thumbnails too) / bytes of maps said"


def write_pictures(place: Path, data: Path, n: int) -> int:
    """n pictures in good/ and odd/; their bytes."""
    found = [*sorted((data / "hymenoptera").rglob("*.jpg")), *sorted((data / "camvid").rglob("*.png"))]
    photographs = [path for path in found if "annot" not in str(path) and min(Image.open(path).size) >= 240]
    size = 0
    for name in ("good", "odd"):
        (place / name).mkdir(parents=True)
    for k in range(n):
        rng = np.random.default_rng(k)
        with Image.open(photographs[k % len(photographs)]) as picture:
            across = int(picture.width * rng.uniform(0.6, 1))
            down = min(int(across * HEIGHT / WIDTH), picture.height)
            x, y = (int(rng.integers(0, most + 1)) for most in (picture.width - across, picture.height - down))
            small = picture.convert("RGB").crop((x, y, x + across, y + down))
        pixels = np.asarray(small, np.float32) * rng.normal(1, 0.05) + rng.normal(0, 3, (down, across, 1))
        made = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((WIDTH, HEIGHT))
        odd = k % EVERY == 0
        if odd:
            made.paste((128, 128, 128), (700, 400, 1100, 700))
        path = place / ("odd" if odd else "good") / f"{k:05}.jpg"
        made.save(path, quality=QUALITY)
        size += path.stat().st_size
    return size


def fitted(data: Path, n: int) -> dict[str, Any]:
    """One fit in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, cache, said = Path(folder) / "pictures", Path(folder) / "cache", Path(folder) / "said"
        size = write_pictures(pictures, data, n)
        words = [sys.executable, "-m", "headstart", "fit", str(pictures), "-o", str(Path(folder) / "model")]
        words += ["--task", "anomaly", "--json", "--cache", str(cache)]
        # exec: the process that is measured is that of the fit
        done = measure.run(["sh", "-c", 'said=$1; shift; exec "$@" 2>"$said"', "sh", str(said), *words])
        stored = sum(path.stat().st_size for path in (cache / "features").rglob("*.parquet"))
        line = re.search(r"feature maps of (\d+) images, (\d+) values each: ([\d.]+) GB", said.read_text())
    found = json.loads(done.stdout)
    return {
        "images": n,
        "bytes": size,
        "seconds": done.seconds,
        "cpu": done.cpu,
        "peak bytes": done.peak_bytes,
        "cached bytes": stored,
        "said GB": float(line[3]) if line else None,
        "said bytes": 2 * int(line[1]) * int(line[2]) if line else 0,
        "auroc": found["cross_validation"]["auroc"],
        "false_alarms": found["cross_validation"]["false_alarms"],
    }


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--smaller", type=int, default=500)
    options = parser.parse_args()
    found, rows = [], []
    for n in (options.smaller, options.images):
        one = fitted(options.data, n)
        found.append(one)
        print(json.dumps(one), file=sys.stderr, flush=True)
        each = [f"{one[name] / n / 1e3:.0f}" for name in ("said bytes", "cached bytes")]
        rows.append(
            [
                f"{n:,}",
                f"{one['bytes'] / 1e6:.0f}",
                f"{one['peak bytes'] / 1e9:.2f}",
                *each,
                f"{one['seconds']:.0f}",
                f"{one['cpu']:.0f}",
            ]
        )
    header = ("images", "MB of JPEGs", "peak memory, GB", "KB an image, said", "KB an image, stored", "s", "CPU s")
    last = found[-1]
    off = last["cached bytes"] / last["said bytes"] if last["said bytes"] else 0.0
    targets = [
        measure.Target(f"peak memory of {options.images:,} images, GB", last["peak bytes"] / 1e9, ceiling=LIMIT),
        measure.Target(STORED, off, floor=1.0, ceiling=1.15),
    ]
    title = f"Pictures of {WIDTH} x {HEIGHT}"
    measure.publish(options, __doc__ or "", [measure.Table(title, header, rows)], targets, {"fits": found})


if __name__ == "__main__":
    main()
