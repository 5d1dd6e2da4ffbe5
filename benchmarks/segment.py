"""What each pixel shows, on camvid: closed form, decoder, tuned and from scratch, on the same 70 pictures.

    python benchmarks/segment.py [--cache FOLDER] [--keep FOLDER] [--cpu] [--seconds 180] [--tune-seconds 400]

The 130 training pictures (480 x 360) teach, the 35 of `val` choose between what was learned, the 70 of `test` judge.
The pictures are read at 480 x 640 px; 11 classes, void left out. `--keep`: where trained networks lie, so that a run
goes on where another ended. `--cpu`: seconds are CPU seconds / 2, as on two quiet cores, for a machine that does other
work. `--wall`: the longest that a training may take then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from headstart.data.placing import VOID
from headstart.data.table import table_of
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.decoded import Decoded, read_decoded
from headstart.finetune.decoder import Above, Decoder, parts_between
from headstart.finetune.decoding import Decoding, Teaching, learn, masks_at
from headstart.finetune.segment_tuning import Pictures, tune_segmenter
from headstart.finetune.segmenter import FINE, Material, fit_decoder, started_decoder
from headstart.heads.maps import Layer
from headstart.heads.pointwise import Pointwise, enlarged, fit_pointwise, read_pointwise
from headstart.judge.marks import Marks, Score
from headstart.judge.segments import MIOU, segment_marks, segment_score
from headstart.judge.summaries import paired
from headstart.tasks.segmenting import read, zoom_of
from headstart.trunk.backbone import open_backbone
from headstart.trunk.cut import find_cuts
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import extract, store_key
from headstart.trunk.layers import INPUT
from headstart.trunk.network import Backbone, whole_maps
from headstart.trunk.store import Store, cache_root
from headstart.trunk.weights import fingerprint

NAMES = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()  # noqa: SIM905
NOT_KNOWN = 11  # in its masks
STAGES = tuple(f"blocks.{k}" for k in range(1, 7))
WIDTH = 64
CEILINGS = (("closed", 60.0), ("decoder", 360.0))  # CPU s
PARTS = ("closed", "decoder", "tuned", "scratch")


@dataclass(frozen=True)
class Spent:
    """Of a training, the reading of its maps not counted. `epochs`: times that it saw each picture."""

    seconds: float
    cpu: float
    epochs: float = 1.0


def mapped(backbone: Backbone, size: tuple[int, int]) -> Backbone:
    """The network that gives the maps of STAGES for whole pictures squashed to a size."""
    backbone = backbone.resized(replace(backbone.preprocess, size=size, crop_fraction=1.0, resize="squash"))
    backbone = whole_maps(backbone, STAGES)
    taps = tuple(replace(tap, pools=("map",)) for tap in backbone.taps if tap.name in STAGES)
    return replace(backbone, taps=taps, ends=())


def pictures(options: Any, part: str) -> list[Path]:
    return sorted((options.data / "camvid" / part / "images").glob("*.jpg"))


def masks(options: Any, part: str) -> list[Any]:
    found = []
    for path in sorted((options.data / "camvid" / part / "masks").glob("*.png")):
        mask = np.asarray(Image.open(path))
        found.append(np.where(mask == NOT_KNOWN, VOID, mask).astype(np.uint8))
    return found


def maps_of(options: Any, backbone: Backbone, part: str, mirrored: bool = False) -> dict[str, Any]:
    engine = compile_trunk(backbone)
    key = store_key(backbone, engine) | ({"view": "mirror"} if mirrored else {})
    store = Store(cache_root(options.cache), key)
    change = (lambda pixels, _: np.ascontiguousarray(pixels[:, ::-1])) if mirrored else None
    return extract(table_of(pictures(options, part)), backbone, engine, store, change=change).blocks


def answered(options: Any, found: Any, part: str, truth: list[Any]) -> Marks:
    logits = answers(options, found, part)
    pairs = ((t, enlarged(one, t.shape).argmax(axis=0)) for one, t in zip(logits, truth, strict=True))
    return segment_marks(pairs, len(NAMES))


def kept_marks(options: Any, name: str, make: Callable[[], Marks]) -> Marks:
    """Made, or as they lie in the folder of an earlier run."""
    place = options.keep / f"{name}.npz" if options.keep else None
    if place and place.exists():
        with np.load(place) as file:
            return Marks({column: file[column] for column in file.files})
    marks = make()
    if place:
        np.savez_compressed(place, **marks.columns)
    return marks


def kept(options: Any, name: str, make: Callable[[], tuple[dict[str, Any], dict[str, Any], Spent]]) -> Any:
    """(tensors, description, what was spent) of a training: made, or as it lies in the folder of an earlier run."""
    place = options.keep / name if options.keep else None
    if place and place.with_suffix(".json").exists():
        about = json.loads(place.with_suffix(".json").read_text())
        return load_file(place.with_suffix(".safetensors")), about["described"], Spent(**about["spent"])
    tensors, described, spent = make()
    if place:
        options.keep.mkdir(parents=True, exist_ok=True)
        save_file({k: np.array(v, order="C") for k, v in tensors.items()}, place.with_suffix(".safetensors"))
        about = {"described": described, "spent": vars(spent)}
        place.with_suffix(".json").write_text(json.dumps(about))
    return tensors, described, spent


def timed(options: Any, seconds: float) -> tuple[Callable[[], float], Callable[[], tuple[float, float]]]:
    """(the clock that a training of so many seconds goes by, what was spent since: seconds, CPU seconds)."""
    start, cpu = time.monotonic(), time.process_time()

    def clock() -> float:
        if not options.cpu:
            return time.monotonic()
        share = (time.monotonic() - start) / options.wall if options.wall else 0.0
        return max((time.process_time() - cpu) / 2, share * seconds)

    return clock, lambda: (time.monotonic() - start, time.process_time() - cpu)


def decoder(options: Any, material: Material, closed: Pointwise) -> Any:
    clock, spent = timed(options, options.seconds)
    head, learned = fit_decoder(material, closed, Decoding(seconds=options.seconds), width=WIDTH, clock=clock)
    return head.tensors(), head.described(), Spent(*spent(), learned.epochs)


def tuned(options: Any, backbone: Backbone, material: Material, start: Decoded) -> Any:
    clock, spent = timed(options, options.tune_seconds)
    pixels, zoom = np.stack(pixels_of(options, "train")), zoom_of("photo", options.frame, material.maps)
    pictures, how = Pictures(pixels.__getitem__, zoom, ((True, False),)), Decoding(seconds=options.tune_seconds)
    checkpoint = Checkpoint(options.keep, {"tuned": options.tune_seconds}) if options.keep else None
    found = tune_segmenter(backbone, material, pictures, start, INPUT, how, clock=clock, checkpoint=checkpoint)
    trunk = {f"trunk.{name}": value for name, value in found.backbone.network.tensors().items()}
    return trunk | found.head.tensors(), found.head.described(), Spent(*spent(), found.learned.epochs)


def from_scratch(options: Any, material: Material) -> Any:
    """The same network with random weights and the same decoder, from pixels, in the time of the decoder; its
    BatchNorm learns."""
    backbone = mapped(open_backbone(weights="none"), options.frame)
    pixels = pixels_of(options, "train")
    mean, std = (255 * torch.tensor(v).view(3, 1, 1) for v in (backbone.preprocess.mean, backbone.preprocess.std))

    def fetch(rows: Any, views: Any, rng: Any) -> list[Any]:
        some = [np.ascontiguousarray(pixels[r][:, ::-1] if v else pixels[r]) for r, v in zip(rows, views, strict=True)]
        x = torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float()
        return [((x - mean) / std).contiguous(memory_format=torch.channels_last)]

    network = backbone.module.requires_grad_(True)
    parts = parts_between(find_cuts(backbone), INPUT, [tap.module for tap in backbone.taps])
    torch.manual_seed(0)
    module = Above(parts, Decoder([layer.shape for layer in material.maps], len(NAMES), WIDTH), given=False)
    height, width = material.grid
    truth = masks_at(material.mask_of, len(pixels), (FINE * height, FINE * width), material.rows)
    teaching = Teaching(fetch, truth, material.rows, 2, len(NAMES))
    clock, spent = timed(options, options.seconds)
    done, learned = learn(
        module, [(1.0, [*module.parameters()])], teaching, Decoding(seconds=options.seconds), clock=clock
    )
    with torch.no_grad():  # parameters and BatchNorm's statistics go where the network has them
        for own, theirs in zip(module.parts.state_dict().values(), done.parts.state_dict().values(), strict=True):
            own.copy_(theirs)
    trunk = {f"trunk.{name}": value.numpy() for name, value in network.state_dict().items() if "classifier" not in name}
    head = {name: value.numpy() for name, value in done.decoder.state_dict().items()}
    described = started_decoder(material, None, width=WIDTH).described()
    return trunk | head, described, Spent(*spent(), learned.epochs)


def pixels_of(options: Any, part: str) -> list[Any]:
    height, width = options.frame
    return [
        np.asarray(Image.open(path).resize((width, height), Image.Resampling.BICUBIC))
        for path in pictures(options, part)
    ]


def answers(options: Any, found: Any, part: str) -> Any:
    """Logits of a head, and of the network that it was trained with, on a part of the set."""
    tensors, described, _ = found
    backbone = mapped(open_backbone(), options.frame)
    trunk = {k.removeprefix("trunk."): v for k, v in tensors.items() if k.startswith("trunk.")}
    head = read(described, {k: v for k, v in tensors.items() if not k.startswith("trunk.")}, tuple(NAMES), (0, 0))
    if trunk:
        module = backbone.module
        own = module.state_dict() | {k: torch.from_numpy(v) for k, v in trunk.items()}
        module.load_state_dict(own)
        backbone = backbone.around(module.eval(), weights_hash=fingerprint(trunk))
    return head.outputs(maps_of(options, backbone, part))


def arguments() -> Any:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--cache", help="folder of stored maps")
    parser.add_argument("--keep", type=Path, help="folder of trained networks")
    parser.add_argument("--cpu", action="store_true", help="seconds are CPU seconds / 2")
    parser.add_argument("--wall", type=float, default=0.0, help="s that a training takes at most with --cpu")
    parser.add_argument("--seconds", type=float, default=180.0, help="of the decoder, and of the network from scratch")
    parser.add_argument("--tune-seconds", type=float, default=400.0)
    parser.add_argument("--frame", type=int, nargs=2, default=(480, 640), help="px, height and width")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="train these; and judge them")
    return parser.parse_args()


def closed_form(material: Material) -> Any:
    start, cpu = time.monotonic(), time.process_time()
    found = fit_pointwise(material.views[0], material.maps, material.mask_of, np.arange(len(material.rows)), len(NAMES))
    return found.tensors(), found.described(), Spent(time.monotonic() - start, time.process_time() - cpu)


def main() -> None:
    options = arguments()
    options.frame = tuple(options.frame)
    backbone, taught = mapped(open_backbone(), options.frame), masks(options, "train")
    views = tuple(maps_of(options, backbone, "train", mirrored) for mirrored in (False, True))
    layers = tuple(Layer(f"{tap.name}/map", tap.shape) for tap in backbone.taps)  # type: ignore[arg-type]
    material = Material(views, layers, taught.__getitem__, np.arange(len(taught)), len(NAMES))

    @cache
    def closed() -> Pointwise:
        tensors, described, _ = kept(options, "closed", lambda: closed_form(material))
        return read_pointwise(described, tensors, len(NAMES))

    @cache
    def decoded() -> Decoded:
        tensors, described, _ = kept(options, "decoder", lambda: decoder(options, material, closed()))
        return read_decoded(described, tensors, len(NAMES))

    makers: dict[str, Callable[[], Any]] = {
        "closed": lambda: closed_form(material),
        "decoder": lambda: decoder(options, material, closed()),
        "tuned": lambda: tuned(options, backbone, material, decoded()),
        "scratch": lambda: from_scratch(options, material),
    }
    found = {name: kept(options, name, make) for name, make in makers.items() if name in options.parts}
    report(options, material, found)


def report(options: Any, material: Material, found: dict[str, Any]) -> None:
    scores: dict[str, dict[str, tuple[Marks, Score]]] = {"val": {}, "test": {}}
    for part, known in scores.items():
        truth = masks(options, part)
        for name, one in found.items():
            marks = kept_marks(options, f"{name}-{part}", partial(answered, options, one, part, truth))
            known[name] = marks, segment_score(marks, NAMES)
    publish(options, material, {name: one[2] for name, one in found.items()}, scores)


def publish(options: Any, material: Material, spent: dict[str, Spent], scores: Any) -> None:
    rows, per_class = [], []
    for name, (_, score) in scores["test"].items():
        used, cells = spent[name], [measure.percent(score[key]) for key in ("miou", "pixel_accuracy", "boundary_f1")]
        val = scores["val"][name][1].value("miou")
        rows.append([name, *cells, f"{val:.1%}", f"{used.seconds:.0f}", f"{used.cpu:.0f}", f"{used.epochs:.1f}"])
        per_class.append([name, *(f"{row['iou']['value']:.0%}" for row in score.tables["per_class"])])
    pairs = [("decoder", "closed"), ("tuned", "decoder"), ("decoder", "scratch"), ("closed", "scratch")]
    pairs = [pair for pair in pairs if set(pair) <= set(spent)]
    gains = {
        f"{one} - {other}": paired(MIOU, scores["test"][one][0], scores["test"][other][0])["difference"]
        for one, other in pairs
    }
    size = sum(2 * int(np.prod(layer.shape)) for layer in material.maps)
    chosen = max(sorted({"closed", "decoder"} & set(spent)), key=lambda name: scores["val"][name][1].value("miou"))
    facts = [["bytes an image and view in the store", f"{size:,}"], ["frozen head chosen on val", chosen]]
    head = ("model", "mIoU", "pixels right", "boundary F1", "mIoU, val", "s", "CPU s", "epochs")
    tables = [
        measure.Table("70 test pictures, 95 % intervals over pictures", head, rows),
        measure.Table("IoU of each class", ("model", *NAMES), per_class),
        measure.Table("mIoU, paired", ("", "points"), [[k, measure.points(v)] for k, v in gains.items()]),  # type: ignore[arg-type]
        measure.Table("Also", ("", ""), facts),
    ]
    value = {name: 100 * score.value("miou") for name, (_, score) in scores["test"].items()}
    floors = {"closed": 53.0, "decoder": 60.0, "tuned": 66.0}
    targets = [measure.Target(f"mIoU, {name}", value[name], floor=floors[name]) for name in floors if name in value]
    targets += [measure.Target(f"CPU s, {name}", spent[name].cpu, ceiling=s) for name, s in CEILINGS if name in spent]
    values = {
        "scores": {part: {name: s.to_json() for name, (_, s) in each.items()} for part, each in scores.items()},
        "gains": gains,
        "spent": {name: vars(used) for name, used in spent.items()},
        "bytes": size,
        "load": os.getloadavg()[0],
    }
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
