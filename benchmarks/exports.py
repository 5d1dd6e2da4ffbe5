"""Exports of eight networks: what each says beside `predict` on 200 photographs, and on odd pictures by its loader.

    python benchmarks/exports.py                          every network and format
    python benchmarks/exports.py resnet18 --to onnx       this one

A model is fitted on 40 photographs of ants and bees, and asked about 200 others (hymenoptera's validation part and
ImageNet photographs). Where no weights are at hand they are drawn, with normalisations of drawn scales that were shown
photographs, so that no branch is silent. Differences are of probabilities, from `predict` in float32.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np

sys.path.insert(0, str(measure.HERE.parent / "tests"))
from curated_odd import odd_pictures
from headstart.cli.main import main as headstart
from headstart.data import images
from headstart.data.table import list_images
from headstart.errors import HeadstartError
from headstart.export.about import about
from headstart.export.agreement import BOUND, differences, run
from headstart.export.answers import plain_of
from headstart.export.folder import size_of
from headstart.export.formats import FORMATS, check_installed
from headstart.files.bundle import read_bundle
from headstart.ship.package import unpack
from headstart.ship.predict import predict
from headstart.story.export import converted
from headstart.trunk.engine import on_cpu

SIDE, TAUGHT, ASKED = 224, 20, 200  # px; photographs of each class that teach, and that are asked about
OWN = "its own weights"
NETWORKS = {
    "tf_efficientnet_lite0": OWN,
    "tf_efficientnet_lite2": OWN,
    "mobilenetv2_100": "mobilenet_v2-b0353104.pth",
    "resnet18": "",
    "vgg16": "",
    "densenet121": "",
    "inception_v3": "",
    "mobilenetv3_small_100": "",
}
ANY_SIZE = ("tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_100")  # on every fourth photograph
HEADER = ("network", "weights", "format", "MB", "labels that agree", "largest difference", "mean difference")
MORE = ("odd pictures by predict.py", "any size: largest difference")


def drawn(name: str, pixels: np.ndarray, place: Path) -> Path:
    """Weights of a network by chance, whose normalisations have seen photographs."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.2)
            norm.momentum = 1.0
        seen = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 128 - 1
        network.train()(seen)
    save_file({k: v.contiguous() for k, v in network.eval().state_dict().items()}, place)
    return place


def fitted(name: str, weights: str, data: Path, folder: Path) -> Path:
    """A saved model of 40 photographs."""
    taught, place = folder / "taught", folder / name
    if not taught.exists():
        for kind in ("ants", "bees"):
            (taught / kind).mkdir(parents=True)
            for file in sorted((data / "hymenoptera" / "train" / kind).glob("*.jpg"))[:TAUGHT]:
                (taught / kind / file.name).write_bytes(file.read_bytes())
    if not weights:
        rule = images.Preprocess((SIDE, SIDE), 1.0, "bilinear", "shortest", (0.5,) * 3, (0.5,) * 3)
        shown = [images.load(f.read_bytes(), rule).array for f in sorted(taught.glob("*/*.jpg"))[:: TAUGHT // 4]]
        weights = str(drawn(name, np.stack(shown), folder / f"{name}.safetensors"))
    elif weights != OWN:
        weights = str(data.parent / "weights" / weights)
    options = ["--backbone", name, "--size", str(SIDE), "--precision", "f32", "--cache", str(folder / "cache")]
    options += [] if weights == OWN else ["--weights", weights]
    if not (place / "headstart.json").exists():
        headstart(["fit", str(taught), "-o", str(place), *options])
    return place


def truth(model: Any, place: Path, asked: list[Path], odd: list[Path]) -> dict[str, np.ndarray]:
    """What `predict` says of both in float32, and the pixels of the first; kept beside the model."""
    kept = place.with_suffix(".npz")
    if not kept.exists():
        engine = on_cpu(model.backbone, "f32")
        ours, strange = (plain_of(predict(model, list_images(files), engine).answers) for files in (asked, odd))
        pixels = np.stack([images.load(f.read_bytes(), model.backbone.preprocess).array for f in asked])
        np.savez(kept, ours=ours, strange=strange, pixels=pixels)
        np.save(place.with_suffix(".npy"), pixels)
    with np.load(kept) as found:
        return {name: found[name] for name in ("ours", "strange")}


def row(name: str, to: str, place: Path, asked: list[Path], odd: list[Path], scratch: Path) -> tuple[list[str], Any]:
    """The cells of a network and format, and the numbers behind them."""
    model, of = unpack(read_bundle(place)), FORMATS[to]
    said = truth(model, place, asked, odd)
    found: dict[str, Any] = {"network": name, "format": to}
    for any_size in (False, True) if of.any_size and name in ANY_SIZE else (False,):
        folder = scratch / f"{name}-{to}-{any_size}"
        folder.mkdir()
        converted(model, of, about(model, name, any_size), any_size, folder)
        files, ours = (asked[::4], said["ours"][::4]) if any_size else (odd, said["strange"])
        ran = run(folder, of, None if any_size else place.with_suffix(".npy"), files)
        could = np.array([not error for error in ran.errors])
        read = differences(model, ours[could], ran.read[could]).to_json() | {"unread": int((~could).sum())}
        if any_size:
            found["any_size"] = read
        else:
            assert ran.answers is not None
            found |= differences(model, said["ours"], ran.answers).to_json() | {"bytes": size_of(folder)}
            found["odd"] = read
    any_cell = (
        f"{found['any_size']['largest']:.1e}" if "any_size" in found else "not asked" if of.any_size else "one size"
    )
    return [
        f"{found['bytes'] / 1e6:.1f}",
        f"{found['labels']:.1%}",
        f"{found['largest']:.1e}",
        f"{found['mean']:.1e}",
        f"{found['odd']['labels']:.0%}, {found['odd']['largest']:.1e}",
        any_cell,
    ], found


def told(name: str, to: str, options: Any, asked: list[Path], odd: list[Path], folder: Path) -> tuple[list[str], Any]:
    """A whole line; a format that cannot be made here says why in its cells."""
    kept = folder / f"{name}-{to}.json"
    if kept.exists():
        return tuple(json.loads(kept.read_text()))
    weights = NETWORKS[name]
    begin = [name, {OWN: "ImageNet", "": "drawn"}.get(weights, "ImageNet"), to]
    try:
        check_installed(FORMATS[to])
        place = fitted(name, weights, options.data, folder)
        with tempfile.TemporaryDirectory() as scratch:
            cells, found = row(name, to, place, asked, odd, Path(scratch))
    except HeadstartError as error:
        return [*begin, *([str(error)[:80]] * 6)], None
    kept.write_text(json.dumps([[*begin, *cells], found]))
    return [*begin, *cells], found


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("networks", nargs="*", help="all by default")
    parser.add_argument("--to", action="append", help="a format; several with several (default: all)")
    parser.add_argument("--folder", type=Path, help="where models and finished lines are kept, to go on after a stop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        (folder / "odd").mkdir(parents=True, exist_ok=True)
        odd = odd_pictures(folder / "odd")
        photos = sorted((options.data / "hymenoptera" / "val").glob("*/*.jpg"))
        asked = [*photos, *sorted((options.data / "imagenet_100").glob("*.JPEG"))][:ASKED]
        rows, values = [], []
        for name in options.networks or NETWORKS:
            for to in options.to or FORMATS:
                cells, found = told(name, to, options, asked, odd, folder)
                rows.append(cells)
                values.append(found)
                print(" | ".join(cells), flush=True)
    known = [found for found in values if found]
    targets = [
        measure.Target("cells that are empty", sum(found is None for found in values), ceiling=0),
        measure.Target("the least share of labels that agree", min(f["labels"] for f in known), floor=1.0),
        measure.Target("the largest difference", max(f["largest"] for f in known), ceiling=BOUND),
        measure.Target("of odd pictures", max(f["odd"]["largest"] for f in known), ceiling=BOUND),
    ]
    tables = [measure.Table("Exports in float32", (*HEADER, *MORE), rows)]
    measure.publish(options, __doc__, tables, targets, {"rows": values})


if __name__ == "__main__":
    main()
