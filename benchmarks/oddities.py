"""Is anything odd about it, from good pictures alone: AUROC with intervals, and false alarms on fresh good ones.

    python benchmarks/oddities.py [--cache FOLDER] [--draws 1]

1. brain_mri_yes_no, "no" as good: five folds over the good ones, copies tied; each "yes" judged by one fold's model.
2. eurosat_3000, each class as good: 60 tiles teach, 60 others and 20 of each other class judge.
3. Crops of a picture of hymenoptera, 60 teach, 40 others judge and 60 with a scratch, a spot, a foreign patch or a
   blur: a camera that trembles (92 % of the picture), and crops from anywhere (60 %).

What is measured and how it is put together was chosen on the first, on five classes of the second (Forest, Highway,
Residential, River, SeaLake) and on two other pictures of the third. The other five classes and pictures chose nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from headstart.data.good import GOOD
from headstart.data.table import Table, read_table
from headstart.data.targets import ClassNumbers, class_numbers
from headstart.heads.material import Material
from headstart.judge.marks import Interval
from headstart.story import pipeline
from headstart.story.opening import Options
from headstart.tasks import oddities
from headstart.tasks.oddities import ODDITIES, sets_for

CHOSE = ("Forest", "Highway", "Residential", "River", "SeaLake")
KINDS = ("scratch", "spot", "patch", "blur")
TEACH, FRESH, ODD, OF_EACH = 60, 40, 60, 20
SIDE = 256  # px of a crop
USED = 5  # pictures that chose: the first two as good ones, three as foreign ones


def material_of(table: Table, cache: str | None) -> Material:
    return pipeline.inspect(table, Options(cache=cache), task=ODDITIES, look_again=False).material(0)


def told(cell: Interval) -> str:
    return f"{cell['value']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})"


def judged(material: Material, taught: Any, rest: Any) -> Any:
    """The verdict on the rest of a head of the rows that taught."""
    head = oddities.solve(material.part(taught), sets_for("auto", tuple(material.blocks)))
    return oddities.given(material.part(rest), head)


def scans(options: Any) -> Any:
    material = material_of(read_table(options.data / "brain_mri_yes_no", task="anomaly"), options.cache)
    return oddities.crossed(material, sets_for("auto", tuple(material.blocks)))


def tiles(options: Any) -> dict[str, list[Any]]:
    table, rng = read_table(options.data / "eurosat_3000", min_classes=2, task="classify"), np.random.default_rng(0)
    kept = [rng.permutation(np.flatnonzero(table.labels == name))[: 2 * TEACH + OF_EACH] for name in table.classes]
    material = material_of(table.take(np.concatenate(kept)), options.cache)
    names, kind = material.targets.names, class_numbers(material.targets)
    found: dict[str, list[Any]] = {}
    for k, name in ((k, name) for k, name in enumerate(names) if name != GOOD):
        as_good = Material(
            material.blocks,
            ClassNumbers(np.where(kind == k, 0, 1), (GOOD, "other")),
            material.groups,
            material.keys,
            0,
        )
        for seed in range(options.draws):
            mine = np.random.default_rng(seed).permutation(np.flatnonzero(kind == k))[: 2 * TEACH]
            others = [
                np.random.default_rng(seed).permutation(np.flatnonzero(kind == j))[:OF_EACH]
                for j in range(1, len(names))
                if j != k
            ]
            found.setdefault(name, []).append(judged(as_good, mine[:TEACH], np.concatenate([mine[TEACH:], *others])))
        print(name, told(found[name][0].score["auroc"]), flush=True)
    return found


def crop(picture: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A square of this share of the shorter side, with the light and the noise of another moment."""
    width, height = picture.size
    side = int(min(width, height) * share * rng.uniform(0.96, 1.0))
    free = np.array([width - side, height - side])
    corner = rng.integers(0, free + 1)
    if share > 0.85:
        corner = np.clip(free // 2 + (rng.normal(0, 0.012, 2) * side).astype(int), 0, free)
    x, y = map(int, corner)
    pixels = np.asarray(picture.crop((x, y, x + side, y + side)).resize((SIDE, SIDE)), float)
    pixels = pixels * rng.normal(1, 0.03) + rng.normal(0, 3, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def spoilt(good: Image.Image, kind: str, foreign: Image.Image, rng: np.random.Generator) -> Image.Image:
    """With one defect of 8 to 16 % of the side; a scratch is longer, a blur twice as wide."""
    size = int(SIDE * rng.uniform(0.08, 0.16))
    x, y = (int(v) for v in rng.integers(size, SIDE - 3 * size, 2))
    out, draw = good.copy(), None
    if kind == "scratch":
        angle, length, grey = rng.uniform(0, np.pi), SIDE * rng.uniform(0.2, 0.4), int(rng.choice([20, 235]))
        draw = ImageDraw.Draw(out)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        draw.line([(x, y), end], (grey, grey, grey), int(rng.integers(2, 4)))
    elif kind == "spot":
        spot = Image.new("RGB", (size, int(size * rng.uniform(0.6, 1))), tuple(int(v) for v in rng.integers(0, 256, 3)))
        mask = Image.new("L", spot.size)
        ImageDraw.Draw(mask).ellipse([0, 0, *spot.size], 255)
        out.paste(spot, (x, y), mask.filter(ImageFilter.GaussianBlur(1)))
    elif kind == "patch":
        left, top = (int(rng.integers(0, length - size)) for length in foreign.size)
        out.paste(foreign.crop((left, top, left + size, top + size)), (x, y))
    else:
        box = (x, y, x + 2 * size, y + 2 * size)
        out.paste(out.crop(box).filter(ImageFilter.GaussianBlur(6)), box)
    return out


def write_made(place: Path, source: Path, others: list[Path], share: float, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    picture, foreign = Image.open(source).convert("RGB"), [Image.open(other).convert("RGB") for other in others]
    for name in (f"train/{GOOD}", f"test/{GOOD}", *(f"test/{kind}" for kind in KINDS)):
        (place / name).mkdir(parents=True)
    for k in range(TEACH + FRESH):
        crop(picture, share, rng).save(place / ("train" if k < TEACH else "test") / GOOD / f"{k:03}.png")
    for k in range(ODD):
        kind = KINDS[k % len(KINDS)]
        one = spoilt(crop(picture, share, rng), kind, foreign[k % len(foreign)], rng)
        one.save(place / "test" / kind / f"{k:03}.png")
    return place


def defects(options: Any) -> dict[str, Any]:
    paths = [p for p in sorted((options.data / "hymenoptera").rglob("*.jpg")) if min(Image.open(p).size) >= 300]
    drawn = [paths[k] for k in np.random.default_rng(0).permutation(len(paths))[USED : USED + 6]]
    found = {}
    for number, source in enumerate(drawn[:3]):
        for name, share in (("trembling camera", 0.92), ("anywhere", 0.6)):
            with tempfile.TemporaryDirectory() as folder:
                place = write_made(Path(folder) / "data", source, drawn[3:], share, number)
                table = read_table(place, task="anomaly")
                material = material_of(table, options.cache)
                taught = np.flatnonzero(table.splits == "train")
                rest = np.flatnonzero(table.splits == "test")
                found[f"{name}, picture {number + 1}"] = judged(material, taught, rest)
                print(number, name, told(found[f"{name}, picture {number + 1}"].score["auroc"]), flush=True)
    return found


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--cache", help="folder of stored features")
    parser.add_argument("--draws", type=int, default=1, help="of the tiles that teach")
    options = parser.parse_args()
    mri = scans(options)
    print("scans", told(mri.score["auroc"]), flush=True)
    made, land = defects(options), tiles(options)
    rows = [["brain_mri_yes_no, no as good", told(mri.score["auroc"]), told(mri.score["false_alarms"])]]
    values = {name: float(np.mean([v.score.value("auroc") for v in each])) for name, each in land.items()}
    for name, each in land.items():
        mark = " (chose)" if name in CHOSE else ""
        rows.append(
            [f"eurosat_3000, {name} as good{mark}", told(each[0].score["auroc"]), told(each[0].score["false_alarms"])]
        )
    rows += [[f"made defects, {k}", told(v.score["auroc"]), told(v.score["false_alarms"])] for k, v in made.items()]
    fresh = [v for each in land.values() for v in each] + list(made.values())
    alarms = np.concatenate([v.marks["odd"][v.marks["kind"] == 0] for v in fresh])
    unseen = [value for name, value in values.items() if name not in CHOSE]
    by_kind = [
        f"{share:.3f}"
        for share in (
            np.mean([v.score.value("auroc") for k, v in made.items() if w in k]) for w in ("camera", "anywhere")
        )
    ]
    targets = [
        measure.Target("AUROC, brain_mri_yes_no", mri.score.value("auroc"), floor=0.86),
        measure.Target("AUROC, mean of the five classes that chose nothing", float(np.mean(unseen)), floor=0.96),
        measure.Target("AUROC, mean of ten classes", float(np.mean(list(values.values()))), floor=0.96),
        measure.Target("AUROC, made defects, trembling camera", float(by_kind[0]), floor=0.95),
        measure.Target("AUROC, made defects, anywhere", float(by_kind[1]), floor=0.95),
        measure.Target(
            f"false alarms of {len(alarms)} fresh good pictures, asked 0.05", float(alarms.mean()), ceiling=0.05
        ),
    ]
    tables = [measure.Table("AUROC and false alarms", ("data", "AUROC", "false alarms at 0.05"), rows)]
    measure.publish(options, __doc__ or "", tables, targets, {"rows": rows})


if __name__ == "__main__":
    main()
