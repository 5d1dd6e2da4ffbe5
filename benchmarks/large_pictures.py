"""`fit` of 2,000 pictures of 1920 x 1080: peak memory, and what is said of the disk before it starts.

    python benchmarks/large_pictures.py [--task anomaly] [--images 2000] [--smaller 500]
    python benchmarks/large_pictures.py --task segment --record large_pictures_segment
    python benchmarks/large_pictures.py --task detect --record large_pictures_detect

The pictures are made: JPEGs of crops from the photographs of hymenoptera and camvid, each with a place, a size, a light
and noise of its own. For `anomaly` all are good but for every twentieth, which has a grey block. For `segment` and
`detect` each shows up to five blocks of two colours, whose masks (PNG, three classes) or boxes (a list) lie beside
them; training has a budget of BUDGET, as memory does not depend on how long it takes. A smaller set is fitted first, so
that what memory grows by an image can be seen. Features and maps go to an empty cache; its bytes are compared with the
line that was said.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 1920, 1080
EVERY = 20  # of so many pictures one is odd
QUALITY = 70  # of the JPEGs: about 150 KB each
LIMIT = 4.0  # GB
SCORES = {"anomaly": ("auroc", "false_alarms"), "segment": ("miou",), "detect": ("map50",)}
SAID = r"feature maps of (\d+) images(?: in (\d+) views)?, (\d+) values each: ([\d.]+) GB"
BUDGET = "60s"
KINDS = {"disc": (200, 60, 40), "block": (40, 60, 200)}  # the things that masks and boxes are of, and their colours
STORED = "bytes stored (pooled features and thumbnails too) / bytes of maps said"


def write_pictures(place: Path, data: Path, n: int, task: str) -> int:
    """n pictures with their truth; the bytes of the pictures."""
    found = [*sorted((data / "hymenoptera").rglob("*.jpg")), *sorted((data / "camvid").rglob("*.png"))]
    photographs = [path for path in found if "annot" not in str(path) and min(Image.open(path).size) >= 240]
    size, boxes = 0, []
    for name in ("good", "odd") if task == "anomaly" else ("images", "masks"):
        (place / name).mkdir(parents=True)
    for k in range(n):
        rng = np.random.default_rng(k)
        made = photograph(photographs[k % len(photographs)], rng)
        if task == "anomaly":
            folder = "good" if k % EVERY else "odd"
            if folder == "odd":
                made.paste((128, 128, 128), (700, 400, 1100, 700))
        else:
            folder = "images"
            mask, things = with_things(made, rng)
            mask.save(place / "masks" / f"{k:05}.png")
            boxes += [f"images/{k:05}.jpg,{','.join(map(str, box))},{kind}" for kind, box in things]
        path = place / folder / f"{k:05}.jpg"
        made.save(path, quality=QUALITY)
        size += path.stat().st_size
    if task == "segment":
        (place / "classes.txt").write_text("\n".join(["ground", *KINDS]) + "\n")
    if task == "detect":
        shutil.rmtree(place / "masks")
        (place / "boxes.csv").write_text("\n".join(["path,x1,y1,x2,y2,label", *boxes]) + "\n")
    return size


def photograph(path: Path, rng: np.random.Generator) -> Image.Image:
    """A crop of it of 1920 x 1080 px, with a light and noise of its own."""
    with Image.open(path) as picture:
        across = int(picture.width * rng.uniform(0.6, 1))
        down = min(int(across * HEIGHT / WIDTH), picture.height)
        x, y = (int(rng.integers(0, most + 1)) for most in (picture.width - across, picture.height - down))
        small = picture.convert("RGB").crop((x, y, x + across, y + down))
    pixels = np.asarray(small, np.float32) * rng.normal(1, 0.05) + rng.normal(0, 3, (down, across, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((WIDTH, HEIGHT))


def with_things(picture: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, list[tuple[str, list[int]]]]:
    """Draws one to five things on the picture; its mask, and their (kind, box x1, y1, x2, y2)."""
    mask, found = Image.new("L", (WIDTH, HEIGHT)), []
    for _ in range(rng.integers(1, 6)):
        kind = int(rng.integers(0, len(KINDS)))
        side = int(rng.integers(60, 300))
        x, y = int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side))
        name, colour = list(KINDS.items())[kind]
        for canvas, ink in ((picture, colour), (mask, kind + 1)):
            pen = ImageDraw.Draw(canvas)
            (pen.ellipse if name == "disc" else pen.rectangle)((x, y, x + side - 1, y + side - 1), fill=ink)
        found.append((name, [x, y, x + side, y + side]))
    return mask, found


def fitted(data: Path, n: int, task: str) -> dict[str, Any]:
    """One fit in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, cache, said = Path(folder) / "pictures", Path(folder) / "cache", Path(folder) / "said"
        size = write_pictures(pictures, data, n, task)
        words = [sys.executable, "-m", "headstart", "fit"]
        words += [str(pictures / "boxes.csv" if task == "detect" else pictures), "-o", str(Path(folder) / "model")]
        words += ["--task", task, "--json", "--cache", str(cache)]
        words += [] if task == "anomaly" else ["--budget", BUDGET]
        # exec: the process that is measured is that of the fit
        done = measure.run(["sh", "-c", 'said=$1; shift; exec "$@" 2>"$said"', "sh", str(said), *words])
        stored = sum(path.stat().st_size for path in (cache / "features").rglob("*.parquet"))
        line = re.search(SAID, said.read_text())
    found = json.loads(done.stdout)
    judged = found["test"] or found["cross_validation"]
    return {
        "images": n,
        "bytes": size,
        "seconds": done.seconds,
        "cpu": done.cpu,
        "peak bytes": done.peak_bytes,
        "cached bytes": stored,
        "said GB": float(line[4]) if line else None,
        "said bytes": 2 * int(line[1]) * int(line[2] or 1) * int(line[3]) if line else 0,
        "scores": {name: judged[name] for name in SCORES[task]},
    }


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--task", choices=tuple(SCORES), default="anomaly")
    parser.add_argument("--record", default="large_pictures", help="name of the record")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--smaller", type=int, default=500, help="fitted first; 0: not at all")
    options = parser.parse_args()
    found, rows = [], []
    for n in filter(None, (options.smaller, options.images)):
        one = fitted(options.data, n, options.task)
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
        measure.Target(STORED, off, ceiling=1.15),
    ]
    title = f"{options.task}: pictures of {WIDTH} x {HEIGHT}"
    measure.publish(options, __doc__ or "", [measure.Table(title, header, rows)], targets, {"fits": found})


if __name__ == "__main__":
    main()
