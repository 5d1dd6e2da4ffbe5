"""What each curated convolutional network can do here: loads, cuts, engine, head, bundle.

    python benchmarks/networks.py                 every network, the smallest input that it takes
    python benchmarks/networks.py resnet18 vgg16  these

Loads: as timm makes it, with its smallest input. Cuts: points where `tail(trunk(x)) == network(x)` held bit for bit,
all of them as one piece. Engine: the smallest cosine of an image's pre-logits row to eager float32, or the reason why
torch runs it. Head, bundle: a fit on 30 small pictures of three colours, saved, read again: the largest difference of
a probability.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.HERE.parent / "tests"))
import curated
import test_networks as laws
from headstart import TransferClassifier
from headstart.data.images import write_png
from headstart.trunk.cut import find_cuts
from headstart.trunk.engine import OpenVinoEngine, cpu_has_bf16
from headstart.trunk.network import Backbone

COSINES = {"bf16": 0.999, "f32": 0.99999}


def cut(backbone: Backbone) -> str:
    cuts = find_cuts(backbone)
    laws.check_cuts(backbone, cuts, curated.pictures(2, backbone.preprocess.size))
    return str(len(cuts.names))


def engine(backbone: Backbone, precision: str) -> str:
    if precision == "bf16" and not cpu_has_bf16():
        return "this processor has no bfloat16"
    try:
        compiled = OpenVinoEngine(backbone, precision)
    except RuntimeError as error:
        return f"falls back to torch: {str(error).splitlines()[0][:80]}"
    pixels = curated.pictures(8, backbone.preprocess.size)
    return f"openvino {laws.check_engine(backbone, compiled, pixels, COSINES[precision]):.6f}"


def pictures(folder: Path) -> None:
    """Ten pictures of each of three colours."""
    rng = np.random.default_rng(0)
    for colour, name in enumerate(("moss", "sand", "sea")):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 120, (40, 40, 3))
            pixels[..., colour] += 120
            write_png(pixels.astype(np.uint8), folder / name / f"{number}.png")


def fitted(name: str, side: int, data: Path) -> tuple[str, str]:
    """(how the head does on its own images, whether the bundle gives the same)."""
    images = sorted(str(p) for p in data.glob("*/*.png"))
    truth = np.array([Path(p).parent.name for p in images])
    with tempfile.TemporaryDirectory() as folder:
        model = TransferClassifier(backbone=name, weights="none", size=side, cache=f"{folder}/cache").fit(data)
        model.save(f"{folder}/model")
        before = model.predict_proba(images)
        after = TransferClassifier.load(f"{folder}/model").predict_proba(images)
    right = float((model.classes_[before.argmax(1)] == truth).mean())
    apart = float(np.abs(before - after).max())  # probabilities in float32
    return f"{right:.0%}", f"{'within' if apart <= 1e-6 else 'NO, apart by'} {apart:.0e}"


def row(name: str, data: Path) -> list[str]:
    """What was found; a law that does not hold says so in its cell."""
    backbone, side = curated.backbone(name), curated.SIDES[name]
    before = laws.fingerprints(backbone.module)
    blocks = laws.check_taps(backbone, curated.pictures(8, backbone.preprocess.size))
    laws.check_batches(backbone, curated.pictures(8, backbone.preprocess.size), blocks)
    cells = [name, f"{side} px, {backbone.n_parameters / 1e6:.1f} M"]
    for ask in (cut, lambda b: engine(b, "bf16"), lambda b: engine(b, "f32")):
        try:
            cells.append(ask(backbone))
        except AssertionError as error:
            cells.append("NO: " + (str(error).splitlines() or ["a law"])[0][:60])
    laws.check_frozen(backbone, before, blocks[-1])
    return cells + list(fitted(name, side, data))


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("networks", nargs="*", help="all by default")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pictures(Path(folder) / "data")
        for name in options.networks or curated.SIDES:
            rows.append(row(name, Path(folder) / "data"))
            print(" | ".join(rows[-1]), flush=True)
    header = ("network", "loads", "cuts", "engine bf16", "engine f32", "head fits", "bundle round trip")
    whole = sum(all(cell and not cell.startswith("NO") for cell in r) for r in rows)
    targets = [measure.Target("networks that keep every law", whole, floor=len(rows))]
    measure.publish(options, __doc__, [measure.Table("Networks", header, rows)], targets, {"rows": rows})


if __name__ == "__main__":
    main()
