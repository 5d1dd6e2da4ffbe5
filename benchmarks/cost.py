"""What a pass over very many photographs costs: measured an image here, and multiplied on paper to 1e9.

    python benchmarks/cost.py [--set hymenoptera] [--backbone tf_efficientnet_lite0]

Measured: bytes of a file, CPU time to decode it and of the network at 224 px, CPU time of a whole extraction and what
the store keeps, each an image. CPU time and not seconds, since the machine may have other work. Taken from other
records: heads of 1,000,000 images (many_images), bytes of an answer (million). Assumed, and to be checked before money
is spent: prices (PRICES), and that a graphics processor waits for its processors, which decode.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure

SIZES = (10**5, 10**6, 10**7, 10**8, 10**9)
HOURS_A_MONTH = 730
GB = 1e9
# US dollars, us-east-1, on demand, as listed in June 2026 (m7g.large and g5.xlarge an hour) and as commonly stated for
# S3 Standard; nothing of it was asked of the seller.
PRICES = {
    "vcpu hour": 0.0816 / 2,
    "gpu hour": 1.006,
    "gb month": 0.023,
    "1,000 gets": 0.0004,
    "gb out": 0.09,
}
GPU_VCPUS = 4  # of that machine
REQUESTS = 2  # a picture that is an object of its own: its size is asked for first


def decoded(files: list[Path], preprocess: Any) -> float:
    """CPU seconds an image."""
    from headstart.data import images

    contents = [file.read_bytes() for file in files]
    start = time.process_time()
    for content in contents:
        images.load(content, preprocess)
    return (time.process_time() - start) / len(contents)


def network(backbone: Any, n: int) -> float:
    """CPU seconds an image, of pixels that are decoded."""
    import numpy as np

    from headstart.trunk.engine import compile_trunk

    engine = compile_trunk(backbone, "auto")
    size = backbone.preprocess.size
    pixels = np.random.default_rng(0).integers(0, 256, (engine.batch, *size, 3)).astype(np.uint8)

    def run(n_batches: int) -> float:
        start = time.process_time()
        engine.run(((k, pixels) for k in range(n_batches)), lambda tag, rows: None)
        return time.process_time() - start

    run(2)
    n_batches = -(-n // engine.batch)
    return run(n_batches) / (n_batches * engine.batch)


def measured(folder: Path, name: str) -> dict[str, float]:
    """What the child process does."""
    from headstart.data.table import list_images
    from headstart.trunk.backbone import open_backbone
    from headstart.trunk.engine import compile_trunk
    from headstart.trunk.features import extract, store_key
    from headstart.trunk.store import Store

    files = sorted(path for path in folder.rglob("*.jpg"))
    backbone = open_backbone(name)
    engine = compile_trunk(backbone, "auto")
    table = list_images([folder])
    with tempfile.TemporaryDirectory() as cache:
        store = Store(Path(cache), store_key(backbone, engine))
        start = time.process_time()
        extract(table, backbone, engine, store)
        all_of_it = (time.process_time() - start) / len(table)
        kept = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file()) / len(table)
    return {
        "bytes": sum(file.stat().st_size for file in files) / len(files),
        "decode": decoded(files, backbone.preprocess),
        "network": network(backbone, len(files)),
        "extract": all_of_it,
        "store": kept,
    }


def curve(one: dict[str, float], heads: float, answer: float) -> list[list[str]]:
    rows = []
    for n in SIZES:
        cpu, head = n * one["extract"] / 3600, n * heads / 3600
        gpu = n * one["decode"] / GPU_VCPUS / 3600
        moved, stored = n * one["bytes"] / GB, n * one["store"] / GB
        gets = REQUESTS * n / 1000 * PRICES["1,000 gets"]
        by_cpu = (cpu + head) * PRICES["vcpu hour"] + gets
        by_gpu = gpu * PRICES["gpu hour"] + head * PRICES["vcpu hour"] + gets
        keep = (moved + stored) * PRICES["gb month"]
        cells = [cpu, head, gpu, moved, stored, n * answer / GB]
        money = [by_cpu, by_gpu, keep, moved * PRICES["gb out"]]
        rows.append([f"{n:.0e}".replace("e+0", "e"), *(f"{c:,.3g}" if c < 100 else f"{c:,.0f}" for c in cells)])
        rows[-1] += [f"{m:,.2f}" if m < 10 else f"{m:,.0f}" for m in money]
    return rows


def recorded() -> tuple[float, float]:
    """(seconds of heads an image, bytes an answer) of the records."""
    heads = json.loads((measure.HERE / "results" / "many_images.json").read_text())["values"]["sizes"]["1000000"]
    seconds = heads["seconds"]
    answers = json.loads((measure.HERE / "results" / "million.json").read_text())["values"]["sizes"]["1000000"]
    return (seconds["all"] - seconds["decomposition"]) / 1e6, answers["bytes"] / 1e6


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--set", default="hymenoptera", help="folder of photographs below the data")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options.data / options.set, options.backbone)))
        return
    words = ["--data", str(options.data), "--set", options.set, "--backbone", options.backbone]
    one = json.loads(measure.run([sys.executable, __file__, "--child", *words]).stdout.splitlines()[-1])
    heads, answer = recorded()
    inputs = [
        ["bytes of a file", f"{one['bytes']:,.0f}"],
        ["decoded, CPU ms", f"{1000 * one['decode']:.2f}"],
        ["network, CPU ms", f"{1000 * one['network']:.2f}"],
        ["extraction, CPU ms", f"{1000 * one['extract']:.2f}"],
        ["share of decoding in it", f"{one['decode'] / one['extract']:.0%}"],
        ["images a second and core", f"{1 / one['extract']:.0f}"],
        ["bytes in the store", f"{one['store']:,.0f}"],
        ["heads and leave-one-out, s of 2 cores (many_images)", f"{heads:.2e}"],
        ["bytes of an answer (million)", f"{answer:.0f}"],
    ]
    header = (
        *("images", "core hours of extraction", "of heads", "GPU hours, bound by 4 decoding cores", "GB read"),
        *("GB of features", "GB of answers", "$ by cores", "$ by GPU", "$ a month kept", "$ to move them out once"),
    )
    tables = [
        measure.Table(f"An image of {options.set}, {options.backbone} at 224 px", ("what", "measured"), inputs),
        measure.Table("On paper", header, curve(one, 2 * heads, answer)),
        measure.Table("Assumed prices, US dollars", ("what", "price"), [[k, f"{v:g}"] for k, v in PRICES.items()]),
    ]
    measure.publish(options, __doc__ or "", tables, [], {"an image": one, "prices": PRICES})


if __name__ == "__main__":
    main()
