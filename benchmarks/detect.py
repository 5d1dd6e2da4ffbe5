"""Boxes of cells in bccd's official sets: a head on stored maps, its tuned and its from-scratch version, paired.

    python benchmarks/detect.py [--cache FOLDER] [--seconds 240] [--kept FOLDER] [--only frozen|tuned|scratch]

Blood smears of 640 x 480 px with red and white cells and platelets: ImageSets/Main/trainval teaches, test judges. A
share of the pictures that teach is held out: it chooses thresholds, and whether the tuned version is kept. Seconds are
CPU seconds of one thread, so that other work on the machine changes nothing; the frozen head gets --seconds, the tuned
version as many again after it, the same network from random weights as many as both and the passes together. `--only`
makes one of them (tuned needs frozen) and keeps its answers in --kept, so that they can run beside each other.

Sizes, width, rates and the overlap of rival boxes were chosen on train and val alone.
"""

from __future__ import annotations

import json
import os
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

from headstart.data.splits import hold_out
from headstart.data.table import table_of
from headstart.finetune.arithmetic import BF16, CHANNELS_LAST
from headstart.finetune.box_head import BoxHead, Layer, read_box_head
from headstart.finetune.box_training import Lesson, View, train_boxes
from headstart.finetune.box_tuning import Tuned, tune_boxes
from headstart.finetune.paced import Pace, Passed
from headstart.heads.box_choice import counted_from, found_things, shown_from
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import compile_trunk, cpu_has_bf16
from headstart.trunk.features import extract, store_key
from headstart.trunk.network import Backbone, whole_maps
from headstart.trunk.store import Store, cache_root

NAMES = ("Platelets", "RBC", "WBC")
STAGES = ("blocks.2", "blocks.4", "blocks.6")  # the last of strides 8, 16 and 32
VIEWS = {"": (False, False), "across": (True, False), "down": (False, True), "both": (True, True)}
HELD_OUT = 0.15
RESAMPLES = 2000
LEVELS = np.arange(0.5, 1, 0.05)  # of overlap: COCO's
ARITHMETIC = BF16 if cpu_has_bf16() else CHANNELS_LAST


@dataclass(frozen=True)
class Truth:
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    hard: list[np.ndarray]

    def take(self, rows: np.ndarray) -> Truth:
        return Truth(*([some[i] for i in rows] for some in (self.boxes, self.labels, self.hard)))


@dataclass(frozen=True)
class Data:
    """Maps of the pictures that teach, in four views, and of those that judge."""

    lesson: Lesson
    teach: np.ndarray
    held: np.ndarray
    judging: dict[str, np.ndarray]
    truth: Truth  # of the judging ones
    backbone: Backbone
    seconds: float  # CPU seconds of all passes; those that the store had cost none
    n_passes: int


def truth_of(folder: Path, names: list[str], frame: tuple[int, int]) -> Truth:
    """Boxes in px of the frame. VOC counts px from 1; boxes without area teach nothing."""
    found = Truth([], [], [])
    for name in names:
        root = ElementTree.parse(folder / "Annotations" / f"{name}.xml").getroot()
        size = np.array([float(root.findtext(f"size/{k}", "0")) for k in ("width", "height")] * 2)
        boxes, labels = [], []
        for thing in root.iter("object"):
            edges = np.array([float(thing.findtext(f"bndbox/{k}", "0")) for k in ("xmin", "ymin", "xmax", "ymax")])
            edges = np.clip(edges - [1, 1, 0, 0], 0, size)
            if (edges[2:] > edges[:2] + 1).all():
                boxes.append(edges / size * [frame[1], frame[0], frame[1], frame[0]])
                labels.append(NAMES.index(thing.findtext("name", "")))
        found.boxes.append(np.array(boxes, np.float32).reshape(-1, 4))
        found.labels.append(np.array(labels, np.int64))
        found.hard.append(np.zeros(len(labels), np.bool_))
    return found


def read(options: Any) -> Data:
    """What the trunk says, and the truth."""
    folder, frame = options.data / "bccd", tuple(options.size)
    teach, judge = (names_of(folder, part) for part in ("trainval", "test"))
    backbone = open_backbone()
    how = replace(backbone.preprocess, size=frame, resize="squash", crop_fraction=1.0)
    backbone = whole_maps(replace(backbone, preprocess=how), STAGES)
    taps = tuple(replace(tap, pools=("map",)) for tap in backbone.taps if tap.name in STAGES)
    backbone = replace(backbone, taps=taps, ends=())
    engine, began, n_passes, views = compile_trunk(backbone), time.process_time(), 0, []
    for name, (across, down) in VIEWS.items():
        store = Store(cache_root(options.cache), store_key(backbone, engine) | ({"flip": name} if name else {}))
        paths = [str(folder / "JPEGImages" / f"{k}.jpg") for k in (teach if name else teach + judge)]
        found = extract(table_of(paths), backbone, engine, store, change=flip(across, down) if name else None)
        n_passes += found.n_forward
        views.append(View({k: v[: len(teach)] for k, v in found.blocks.items()}, across, down))
        if not name:
            judging, keys = {k: v[len(teach) :] for k, v in found.blocks.items()}, found.hashes[: len(teach)]
    seconds = time.process_time() - began
    truth = truth_of(folder, teach, frame)
    maps = tuple(Layer(f"{tap.name}/map", tap.shape) for tap in taps)
    counts = np.array([[(k == c).sum() > 0 for c in range(len(NAMES))] for k in truth.labels], np.int64)
    held = hold_out(counts, np.arange(len(teach)), HELD_OUT, 0, keys)
    lesson = Lesson(maps, frame, tuple(views), truth, len(NAMES))
    rows = np.flatnonzero(~held), np.flatnonzero(held)
    return Data(lesson, *rows, judging, truth_of(folder, judge, frame), backbone, seconds, n_passes)


def names_of(folder: Path, part: str) -> list[str]:
    return (folder / "ImageSets" / "Main" / f"{part}.txt").read_text().split()


def flip(across: bool, down: bool) -> Callable[[np.ndarray, str], np.ndarray]:
    rows, columns = slice(None, None, -1 if down else 1), slice(None, None, -1 if across else 1)
    return lambda pixels, content_hash: np.ascontiguousarray(pixels[rows, columns])


# What learns


def pace(seconds: float, **changed: Any) -> Pace:
    return Pace(seconds=seconds, clock=time.process_time, **changed)


def told(passed: Passed) -> None:
    print(f"epoch {passed.number}: loss {passed.loss:.4f}, {passed.done:.0%}", flush=True)


def chosen(head: BoxHead, answers: np.ndarray, data: Data) -> BoxHead:
    """With thresholds of the held-out pictures."""
    truth = Truth(data.lesson.truth.boxes, data.lesson.truth.labels, data.lesson.truth.hard).take(data.held)
    shown = shown_from(answers, truth.boxes, truth.labels, truth.hard, len(NAMES))
    return head.with_thresholds(shown, counted_from(answers, truth.labels, truth.hard, len(NAMES)))


def rows_of(blocks: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(values[rows]) for name, values in blocks.items()}


def frozen(options: Any, data: Data) -> dict[str, Any]:
    began = time.time(), time.process_time()
    head = train_boxes(data.lesson, data.teach, pace(options.seconds), arithmetic=ARITHMETIC, told=told)
    return kept(head, data, data.lesson.views[0].blocks, data.judging, began)


def tuned(options: Any, data: Data) -> dict[str, Any]:
    known, weights = load(options, "frozen"), np.load(options.kept / "frozen.weights.npz")
    head = read_box_head(known["head"], {name: weights[name] for name in weights.files})
    below = replace(data.lesson, maps=data.lesson.maps[: 1 + options.stay])
    made = data.lesson.maps[1 + options.stay :]
    began = time.time(), time.process_time()
    how = pace(options.seconds, rate=options.tuned_rate)
    found = tune_boxes(data.backbone, below, data.teach, made, how, head=head, arithmetic=ARITHMETIC, told=told)
    return again(found, options, data, began)


def scratch(options: Any, data: Data) -> dict[str, Any]:
    backbone = open_backbone(weights="none", seed=0)
    taps, ends, how = data.backbone.taps, data.backbone.ends, data.backbone.preprocess
    backbone = replace(backbone, taps=taps, ends=ends, preprocess=how)
    views = tuple(View({"input": Pixels(options, data, *flips)}, *flips) for flips in VIEWS.values())
    pixels = replace(data.lesson, maps=(Layer("input", (3, *data.lesson.frame)),), views=views)
    began = time.time(), time.process_time()
    seconds = 2 * options.seconds + options.passes
    found = tune_boxes(
        backbone,
        pixels,
        data.teach,
        data.lesson.maps,
        pace(seconds),
        below=1.0,
        statistics=True,
        arithmetic=ARITHMETIC,
        told=told,
    )
    return again(found, options, data, began)


class Pixels:
    """Normalised pixels (image, channel x height x width) of the pictures that teach, in one view."""

    def __init__(self, options: Any, data: Data, across: bool, down: bool) -> None:
        from headstart.data.images import load as load_picture

        folder, self.how, self.flip = options.data / "bccd" / "JPEGImages", data.backbone.preprocess, flip(across, down)
        paths = [folder / f"{name}.jpg" for name in names_of(options.data / "bccd", "trainval")]
        self.read = lambda row: load_picture(paths[row], self.how).array

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        pixels = np.stack([self.flip(self.read(row), "") for row in rows]).astype(np.float32) / 255
        return ((pixels - self.how.mean) / self.how.std).transpose(0, 3, 1, 2).reshape(len(rows), -1)


def again(found: Tuned, options: Any, data: Data, began: tuple[float, float]) -> dict[str, Any]:
    """Answers of a changed backbone: its maps are made anew, of no picture but those held out and those that judge."""
    spent = time.time() - began[0], time.process_time() - began[1]
    backbone = replace(found.backbone, preprocess=data.backbone.preprocess)
    engine, folder = compile_trunk(backbone), options.data / "bccd"
    teach = names_of(folder, "trainval")
    paths = [folder / "JPEGImages" / f"{k}.jpg" for k in [teach[i] for i in data.held] + names_of(folder, "test")]
    store = Store(cache_root(options.cache), store_key(backbone, engine))
    blocks = extract(table_of([str(path) for path in paths]), backbone, engine, store).blocks
    n = len(data.held)
    held, judging = ({k: v[part] for k, v in blocks.items()} for part in (slice(n), slice(n, None)))
    return answers_of(found.head, data, held, judging, spent)


def kept(head: BoxHead, data: Data, blocks: Any, judging: Any, began: tuple[float, float]) -> dict[str, Any]:
    spent = time.time() - began[0], time.process_time() - began[1]
    return answers_of(head, data, rows_of(blocks, data.held), judging, spent)


def answers_of(head: BoxHead, data: Data, held: Any, judging: Any, spent: tuple[float, float]) -> dict[str, Any]:
    on_held = head.outputs(held)
    head = chosen(head, on_held, data)
    began = time.process_time()
    answers = head.outputs(judging)
    each = (time.process_time() - began) / len(answers)
    record = {"wall": spent[0], "cpu": spent[1], "cpu_an_image": each, "head": head.described()}
    return {"record": record, "answers": answers, "held": on_held, "weights": head.tensors()}


def save(options: Any, name: str, made: dict[str, Any]) -> None:
    options.kept.mkdir(parents=True, exist_ok=True)
    np.savez(options.kept / f"{name}.npz", answers=made["answers"], held=made["held"])
    np.savez(options.kept / f"{name}.weights.npz", **made["weights"])
    (options.kept / f"{name}.json").write_text(json.dumps(made["record"]))


def load(options: Any, name: str) -> dict[str, Any]:
    arrays = np.load(options.kept / f"{name}.npz")
    return json.loads((options.kept / f"{name}.json").read_text()) | {k: arrays[k] for k in arrays.files}


# How it is judged


@dataclass(frozen=True)
class Marks:
    """Of one class: `scores`, `image` (answer,), best first; `right` (answer, level of overlap); `things` (image,)."""

    scores: np.ndarray
    image: np.ndarray
    right: np.ndarray
    things: np.ndarray


def marks_of(answers: np.ndarray, truth: Truth, kind: int) -> Marks:
    scores, image, right = [], [], []
    for i, given in enumerate(answers):
        own = given[(given[:, 5] == kind) & (given[:, 4] > 0)][:100]
        boxes = truth.boxes[i][truth.labels[i] == kind]
        scores.append(own[:, 4])
        image.append(np.full(len(own), i))
        right.append(np.stack([found_things(own, boxes, level - 1e-9) for level in LEVELS], axis=1))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    things = np.array([(labels == kind).sum() for labels in truth.labels])
    return Marks(*(np.concatenate(some)[order] for some in (scores, image, right)), things)


def precision(marks: Marks, weights: np.ndarray, level: int) -> np.ndarray:
    """(resample,): average precision at 101 recalls, as COCO; weights (resample, image)."""
    each = weights[:, marks.image]
    right = np.cumsum(each * marks.right[:, level], axis=1)
    exact = right / np.maximum(np.cumsum(each, axis=1), 1e-9)
    exact = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]
    recall = right / np.maximum(weights @ marks.things, 1)[:, None]
    at = np.stack([np.searchsorted(line, np.linspace(0, 1, 101) - 1e-12) for line in recall])
    padded = np.concatenate([exact, np.zeros((len(exact), 1))], axis=1)
    return np.take_along_axis(padded, at, axis=1).mean(axis=1)


def scores_of(answers: np.ndarray, head: Mapping[str, Any], truth: Truth, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (resample,); the first resample is the pictures as they are."""
    marks = [marks_of(answers, truth, kind) for kind in range(len(NAMES))]
    found = {f"AP@.5 {name}": precision(m, weights, 0) for name, m in zip(NAMES, marks, strict=True)}
    found = {"mAP@.5": np.mean(list(found.values()), axis=0), **found}
    every = [precision(m, weights, level) for m in marks for level in range(len(LEVELS))]
    found["mAP@[.5:.95]"] = np.mean(every, axis=0)
    for kind, name in enumerate(NAMES):
        of_kind = np.where(answers[..., 5] == kind, answers[..., 4], 0)
        counts = (of_kind >= head["counted"][kind]).sum(axis=1)
        found[f"count error {name}"] = weights @ np.abs(counts - marks[kind].things) / weights.sum(axis=1)
        sure = marks[kind].scores >= head["shown"][kind]
        right, given = (
            weights[:, marks[kind].image[sure]] @ some for some in (marks[kind].right[sure, 0], np.ones(sure.sum()))
        )
        found[f"precision {name}"] = right / np.maximum(given, 1)
        found[f"recall {name}"] = right / np.maximum(weights @ marks[kind].things, 1)
    return found


def interval(values: np.ndarray, form: str = "{:.3f}") -> str:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return f"{form.format(values[0])} ({form.format(low)} to {form.format(high)})"


def report(options: Any, data: Data) -> None:
    made = {name: load(options, name) for name in MAKERS if (options.kept / f"{name}.json").exists()}
    n = len(data.truth.labels)
    rng = np.random.default_rng(0)
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)])
    scores = {name: scores_of(some["answers"], some["head"], data.truth, weights) for name, some in made.items()}
    held = data.lesson.truth.boxes, data.lesson.truth.labels, data.lesson.truth.hard
    on_held = {
        name: scores_of(some["held"], some["head"], Truth(*held).take(data.held), np.ones((1, len(data.held))))
        for name, some in made.items()
    }
    reds = np.array([[(labels == 1).sum() for labels in some] for some in [data.truth.labels]])[0]
    taught = np.mean([(data.lesson.truth.labels[i] == 1).sum() for i in (*data.teach, *data.held)])
    mean_error = float(np.abs(reds - taught).mean())
    tables = [
        measure.Table(
            f"{n} judging pictures, 95 % by {RESAMPLES} resamples of pictures",
            ("", *made),
            [[key, *(interval(scores[name][key]) for name in made)] for key in scores["frozen"]],
        ),
        measure.Table(
            "paired differences to frozen",
            ("", *(name for name in made if name != "frozen")),
            [
                [
                    key,
                    *(
                        interval(scores[name][key] - scores["frozen"][key], "{:+.3f}")
                        for name in made
                        if name != "frozen"
                    ),
                ]
                for key in ("mAP@.5", "mAP@[.5:.95]", "count error RBC")
            ],
        ),
        measure.Table(
            "time and size",
            ("", *made),
            [
                ["mAP@.5 of the held-out pictures", *(f"{on_held[name]['mAP@.5'][0]:.3f}" for name in made)],
                ["CPU seconds of training", *(f"{some['cpu']:.0f}" for some in made.values())],
                ["wall seconds of training, beside other work", *(f"{some['wall']:.0f}" for some in made.values())],
                ["CPU seconds a picture, head alone", *(f"{some['cpu_an_image']:.3f}" for some in made.values())],
            ],
        ),
        measure.Table("what is stored", ("", ""), stored(options, data, mean_error)),
    ]
    best = scores["frozen"]
    targets = [
        measure.Target("mAP@.5, frozen", float(best["mAP@.5"][0]), floor=0.85),
        measure.Target(
            "red cells: count error a picture, frozen", float(best["count error RBC"][0]), ceiling=mean_error
        ),
    ]
    if "tuned" in made:
        targets.append(measure.Target("mAP@.5, tuned (aim)", float(scores["tuned"]["mAP@.5"][0]), floor=0.90))
    plain = {name: {key: float(v[0]) for key, v in some.items()} for name, some in scores.items()}
    measure.publish(
        options, __doc__ or "", tables, targets, {"scores": plain, "heads": {k: v["head"] for k, v in made.items()}}
    )


def stored(options: Any, data: Data, mean_error: float) -> list[list[str]]:
    values = sum(int(np.prod(layer.shape)) for layer in data.lesson.maps)
    head = json.loads((options.kept / "frozen.json").read_text())["head"]
    parameters = sum(v.size for v in np.load(options.kept / "frozen.weights.npz").values() if v.ndim)
    return [
        ["frame, height x width px", f"{data.lesson.frame[0]} x {data.lesson.frame[1]}"],
        ["maps", ", ".join(f"{m.block} {m.shape}" for m in data.lesson.maps)],
        ["bytes a picture and view", f"{2 * values:,}"],
        ["views", ", ".join(name or "as it is" for name in VIEWS)],
        ["CPU seconds of all passes", f"{options.passes:.0f}"],
        ["numbers in the head", f"{parameters:,} at width {head['width']}"],
        ["pictures that teach, held out, judge", f"{len(data.teach)}, {len(data.held)}, {len(data.truth.labels)}"],
        ["red cells a picture: error of always saying the mean", f"{mean_error:.2f}"],
        ["arithmetic of training", ARITHMETIC.name],
    ]


MAKERS = {"frozen": frozen, "tuned": tuned, "scratch": scratch}


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--cache", help="where stored maps lie (default HEADSTART_CACHE)")
    parser.add_argument("--seconds", type=float, default=240, help="CPU seconds of the frozen head's training")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="of the frame: height and width, px")
    parser.add_argument("--kept", type=Path, default=Path("detect-kept"), help="where answers lie between parts")
    parser.add_argument("--only", choices=("passes", *MAKERS, "report"), help="one part")
    parser.add_argument("--stay", type=int, default=0, help="maps above the finest that tuning leaves as they are")
    parser.add_argument("--tuned-rate", type=float, default=1e-3, help="peak learning rate of the head in tuning")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data = read(options)
    passes = options.kept / "passes.json"
    if data.n_passes or not passes.exists():
        options.kept.mkdir(parents=True, exist_ok=True)
        passes.write_text(json.dumps({"cpu": data.seconds, "passes": data.n_passes}))
    options.passes = json.loads(passes.read_text())["cpu"]
    for name, make in MAKERS.items():
        if options.only in (None, name):
            save(options, name, make(options, data))
    if options.only in (None, "report"):
        report(options, data)


if __name__ == "__main__":
    main()
