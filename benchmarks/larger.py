"""The larger networks of the catalogue with random weights: how exact, how fast, how much memory, what is stored.

    python benchmarks/larger.py                      all of them, at the side that they are read at
    python benchmarks/larger.py NAME:SIDE ...        these

Cosine: the smallest of four pictures' rows, all blocks side by side, between OpenVINO and eager float32. Each network
runs in a process of its own, twice: the first one makes and compiles it, the second reads what was compiled and takes
the time. Memory is of the second: the whole process, and what a pass adds to it, two requests of four pictures in
flight; and of the first one the whole. Times stand beside whatever else the machine does; CPU seconds suffer less from
that. The record is written after each network, and `--add` keeps what it has of others.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np

NETWORKS = (
    "vit_small_patch14_dinov2:224",
    "vit_pe_core_tiny_patch16_384:384",
    "vit_base_patch16_siglip_224:224",
    "vit_small_patch16_dinov3:256",
    "convnext_tiny.dinov3_lvd1689m:320",
    "vit_small_patch14_reg4_dinov2:518",
    "vit_pe_core_small_patch16_384:384",
)
COSINES = {"f32": 0.99999, "bf16": 0.999}
HEADER = ("network", "px", "precision", "cosine", "images/s", "CPU s an image", "weights MB")
HEADER += ("process MiB", "first time MiB", "a pass MiB", "stored KB an image")
PICTURES = 4
LEAST = 3.0  # s of measuring the pace


def one(name: str, side: int, precision: str, compared: bool) -> dict[str, object]:
    """What a process finds of one network: `compared` with eager float32, or its pace."""
    from headstart.trunk.backbone import open_backbone
    from headstart.trunk.engine import OpenVinoEngine
    from headstart.trunk.network import block_widths

    backbone = open_backbone(name, "none")
    backbone = backbone.resized(replace(backbone.preprocess, size=(side, side)))
    engine = OpenVinoEngine(backbone, precision)
    found, pixels = [], pictures(side)
    parts = [(k, pixels[k : k + engine.batch]) for k in range(0, PICTURES, engine.batch)]
    ready = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
    engine.run(parts, lambda at, rows: found.append((at, rows.copy())))
    seconds, n, begun, cpu = 0.0, 0, time.perf_counter(), time.process_time()
    while seconds < LEAST and not (compared and n):
        engine.run([(None, pixels[: engine.batch])] * engine.at_once, lambda tag, rows: None)
        seconds, n = time.perf_counter() - begun, n + engine.batch * engine.at_once
    cpu = (time.process_time() - cpu) / n
    peak = highest()
    answer = {"batch": engine.batch, "requests": engine.at_once, "rate": n / seconds, "cpu": cpu}
    answer |= {"ready": ready, "pass": peak - ready, "features": sum(block_widths(backbone))}
    answer |= {"weights": 4 * backbone.n_parameters, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    ours = np.concatenate([rows for _, rows in sorted(found, key=lambda part: part[0])])
    return answer | ({"cosine": cosine(backbone, pixels, ours)} if compared else {})


def pictures(side: int) -> np.ndarray:
    """uint8 (PICTURES, side, side, 3): coarse blobs under noise. torch is not imported for them."""
    rng, cell = np.random.default_rng(0), -(-side // 4)
    coarse = rng.integers(0, 256, (PICTURES, 4, 4, 3)).repeat(cell, 1).repeat(cell, 2)[:, :side, :side]
    return np.clip(coarse + rng.integers(-40, 41, coarse.shape), 0, 255).astype(np.uint8)


def cosine(backbone: object, pixels: np.ndarray, ours: np.ndarray) -> float:
    """The smallest of the pictures' rows to those of eager float32."""
    import torch

    from headstart.trunk.module import Trunk

    trunk = Trunk(backbone)  # type: ignore[arg-type]
    with torch.inference_mode():
        theirs = np.concatenate([torch.cat(trunk(torch.from_numpy(p[None])), 1).numpy() for p in pixels])
    return float(min((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)))


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def highest() -> int:
    """The most bytes since the mark was set."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def child(word: str, precision: str, what: str, cache: str) -> dict[str, float]:
    name, _, side = word.rpartition(":")
    command = [sys.executable, str(Path(__file__)), "--one", name, side, precision, what]
    return dict(json.loads(measure.run(command, {"HEADSTART_CACHE": cache}).stdout.splitlines()[-1]))


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("networks", nargs="*", help="NAME:SIDE, all by default")
    parser.add_argument("--add", action="store_true", help="to what the record has of other networks")
    parser.add_argument("--one", nargs=4, metavar=("NAME", "SIDE", "PRECISION", "WHAT"), help="of one process")
    options = parser.parse_args()
    if options.one:
        name, side, precision, what = options.one
        sys.stdout.write(json.dumps(one(name, int(side), precision, what == "compared")) + "\n")
        return
    record = options.results / "larger.json"
    raw: dict[str, dict[str, dict[str, float]]] = json.loads(record.read_text())["values"] if options.add else {}
    with tempfile.TemporaryDirectory() as cache:
        for word in options.networks or NETWORKS:
            for precision in COSINES:
                first, found = (child(word, precision, what, cache) for what in ("compared", "timed"))
                raw[f"{word} {precision}"] = {"first": first, "again": found}
            rows = [row(*key.split(), **values) for key, values in raw.items()]
            least = {p: min(v["first"]["cosine"] for k, v in raw.items() if k.endswith(p)) for p in COSINES}
            targets = [measure.Target(f"cosine {name}", least[name], floor=floor) for name, floor in COSINES.items()]
            measure.publish(options, __doc__, [measure.Table("Larger networks", HEADER, rows)], targets, raw)


def row(word: str, precision: str, first: dict[str, float], again: dict[str, float]) -> list[str]:
    name, _, side = word.rpartition(":")
    sizes = [again["ready"] + again["pass"], first["peak"], again["pass"]]
    paces = [f"{first['cosine']:.7f}", f"{again['rate']:.1f}", f"{again['cpu']:.3f}", f"{again['weights'] / 1e6:.0f}"]
    return [name, side, precision, *paces, *(f"{s / 2**20:.0f}" for s in sizes), f"{2 * again['features'] / 1e3:.1f}"]


if __name__ == "__main__":
    main()
