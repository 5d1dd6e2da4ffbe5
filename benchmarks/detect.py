"""Boxes of cells in bccd's official sets: a head on stored maps, its tuned and its from-scratch version, paired.

    python benchmarks/detect.py [--cache FOLDER] [--seconds 200] [--kept FOLDER] [--only frozen|tuned|scratch]

Blood smears of 640 x 480 px with red and white cells and platelets: ImageSets/Main/trainval teaches, test judges. A
share of the pictures that teach is held out: it chooses thresholds, and whether the tuned version is kept. Seconds are
CPU seconds of one thread, so that other work on the machine changes little; the frozen head gets --seconds, the tuned
version as many again after it, the same network from random weights as many as the frozen head and the passes together.
`--only` makes one of them (tuned needs frozen) and keeps its answers in --kept, so that they can run beside each other;
the same command goes on after a kill, and `--only report` writes down what is there.

What chose anything (rates, the overlap of rival boxes, how things are counted) were train and val alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

from headstart.data.boxes import BoxTruth, box_targets
from headstart.data.images import load as load_picture
from headstart.data.splits import hold_out
from headstart.data.table import Table, read_table
from headstart.finetune.arithmetic import BF16, CHANNELS_LAST
from headstart.finetune.box_head import BoxHead, read_box_head
from headstart.finetune.box_training import Lesson, View, train_boxes
from headstart.finetune.box_tuning import Tuned, tune_boxes
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.paced import Pace, Passed
from headstart.heads.box_answers import SCORE
from headstart.heads.maps import Layer
from headstart.judge.box_score import MAP50, SUMMARIES, box_score
from headstart.judge.boxes import box_marks
from headstart.judge.marks import Marks
from headstart.judge.summaries import paired, value
from headstart.tasks.detecting import SHOWN, counts_of, rule_of
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import compile_trunk, cpu_has_bf16
from headstart.trunk.features import extract, store_key
from headstart.trunk.network import Backbone, whole_maps
from headstart.trunk.store import Store, cache_root

RED = "RBC"
SIZE = (480, 640)  # px of every picture
STAGES = ("blocks.2", "blocks.4", "blocks.6")  # the last of strides 8, 16 and 32
VIEWS = {"": (False, False), "across": (True, False), "down": (False, True), "both": (True, True)}
HELD_OUT = 0.15
PER_CLASS = ("average_precision_50", "precision", "recall", "count_error", "count_error_of_mean", "count_gain")
ARITHMETIC = BF16 if cpu_has_bf16() else CHANNELS_LAST


@dataclass(frozen=True)
class Data:
    """Maps of the pictures that teach, in four views, and of those that judge, which follow them in the table."""

    table: Table
    lesson: Lesson
    teach: np.ndarray
    held: np.ndarray
    judging: dict[str, np.ndarray]
    truth: BoxTruth  # of the judging ones
    backbone: Backbone
    seconds: float  # CPU seconds of all passes; those that the store had cost none
    n_passes: int


def read(options: Any) -> Data:
    """What the trunk says, and the truth."""
    table, frame = read_table(options.data / "bccd", task="detect"), tuple(options.size)
    judges = np.asarray(table.splits == "test")
    table = table.take(np.concatenate([np.flatnonzero(~judges), np.flatnonzero(judges)]))
    n, truth, backbone = int((~judges).sum()), in_frame(box_targets(table), frame), opened(frame)
    engine, began, n_passes, views = compile_trunk(backbone), time.process_time(), 0, []
    for name, flips in VIEWS.items():
        store = Store(cache_root(options.cache), store_key(backbone, engine) | ({"flip": name} if name else {}))
        some = table.take(np.arange(n)) if name else table
        found = extract(some, backbone, engine, store, change=flip(*flips) if name else None)
        n_passes += found.n_forward
        views.append(View({k: v[:n] for k, v in found.blocks.items()}, *flips))
        if not name:
            judging, keys = {k: v[n:] for k, v in found.blocks.items()}, found.hashes[:n]
    seconds = time.process_time() - began
    maps = tuple(Layer(f"{tap.name}/map", tap.shape) for tap in backbone.taps)
    lesson = Lesson(maps, frame, tuple(views), truth.take(np.arange(n)))
    held = hold_out(lesson.truth.strata, np.arange(n), HELD_OUT, 0, keys)
    rows = np.flatnonzero(~held), np.flatnonzero(held)
    judge = truth.take(np.arange(n, len(truth)))
    return Data(table, lesson, *rows, judging, judge, backbone, seconds, n_passes)


def opened(frame: tuple[int, int], weights: str = "auto") -> Backbone:
    """The network that sees whole pictures at this size and gives three maps."""
    backbone = open_backbone(weights=weights)
    how = replace(backbone.preprocess, size=frame, resize="squash", crop_fraction=1.0)
    backbone = whole_maps(replace(backbone, preprocess=how), STAGES)
    taps = tuple(replace(tap, pools=("map",)) for tap in backbone.taps if tap.name in STAGES)
    return replace(backbone, taps=taps, ends=())


def in_frame(truth: BoxTruth, frame: tuple[int, int]) -> BoxTruth:
    """The truth in px of the frame: all pictures have one size."""
    scale = np.array([frame[1] / SIZE[1], frame[0] / SIZE[0]] * 2, np.float32)
    return replace(truth, boxes=tuple(boxes * scale for boxes in truth.boxes))


def flip(across: bool, down: bool) -> Callable[[np.ndarray, str], np.ndarray]:
    rows, columns = slice(None, None, -1 if down else 1), slice(None, None, -1 if across else 1)
    return lambda pixels, content_hash: np.ascontiguousarray(pixels[rows, columns])


# What learns


def pace(seconds: float, **changed: Any) -> Pace:
    return Pace(seconds=seconds, clock=time.process_time, **changed)


def told(passed: Passed) -> None:
    print(f"epoch {passed.number}: loss {passed.loss:.4f}, {passed.done:.0%}", flush=True)


def watched(options: Any, name: str) -> dict[str, Any]:
    """Who is told, and where a part that was killed goes on."""
    asked = {k: str(v) for k, v in vars(options).items() if k not in ("load_at_start", "only", "results", "passes")}
    return {"told": told, "checkpoint": Checkpoint(options.kept, {"part": name, **asked})}


def rows_of(blocks: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(values[rows]) for name, values in blocks.items()}


def frozen(options: Any, data: Data) -> dict[str, Any]:
    began = time.time(), time.process_time()
    head = train_boxes(
        data.lesson,
        data.teach,
        pace(options.seconds, rate=options.rate),
        width=options.width,
        arithmetic=ARITHMETIC,
        **watched(options, "frozen"),
    )
    return kept(head, data, data.lesson.views[0].blocks, data.judging, began)


def tuned(options: Any, data: Data) -> dict[str, Any]:
    known, weights = load(options, "frozen"), np.load(options.kept / "frozen.weights.npz")
    head = read_box_head(known["head"], {name: weights[name] for name in weights.files})
    below = replace(data.lesson, maps=data.lesson.maps[: 1 + options.stay])
    made = data.lesson.maps[1 + options.stay :]
    began = time.time(), time.process_time()
    how, seen = pace(options.seconds, rate=options.tuned_rate), watched(options, "tuned")
    found = tune_boxes(data.backbone, below, data.teach, made, how, head=head, arithmetic=ARITHMETIC, **seen)
    return again(found, options, data, began)


def scratch(options: Any, data: Data) -> dict[str, Any]:
    backbone = opened(data.lesson.frame, "none")
    views = tuple(View({"input": Pixels(data, *flips)}, *flips) for flips in VIEWS.values())
    pixels = replace(data.lesson, maps=(Layer("input", (3, *data.lesson.frame)),), views=views)
    began = time.time(), time.process_time()
    seconds = options.scratch_seconds or options.seconds + options.passes
    found = tune_boxes(
        backbone,
        pixels,
        data.teach,
        data.lesson.maps,
        pace(seconds),
        below=1.0,
        statistics=True,
        arithmetic=ARITHMETIC,
        **watched(options, "scratch"),
    )
    return again(found, options, data, began)


class Pixels:
    """Normalised pixels (image, channel x height x width) of the pictures that teach, in one view."""

    def __init__(self, data: Data, across: bool, down: bool) -> None:
        self.table, self.how, self.flip = data.table, data.backbone.preprocess, flip(across, down)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        read = [self.flip(load_picture(self.table.read(row), self.how).array, "") for row in rows]
        pixels = (np.stack(read).astype(np.float32) / 255 - self.how.mean) / self.how.std
        return pixels.transpose(0, 3, 1, 2).reshape(len(rows), -1)


def again(found: Tuned, options: Any, data: Data, began: tuple[float, float]) -> dict[str, Any]:
    """Answers of a changed backbone: its maps are made anew, of the pictures held out and of those that judge."""
    spent = time.time() - began[0], time.process_time() - began[1]
    engine, n = compile_trunk(found.backbone), len(data.held)
    store = Store(cache_root(options.cache), store_key(found.backbone, engine))
    judge = np.arange(len(data.teach) + n, len(data.table))
    blocks = extract(data.table.take(np.concatenate([data.held, judge])), found.backbone, engine, store).blocks
    held, judging = ({k: v[part] for k, v in blocks.items()} for part in (slice(n), slice(n, None)))
    return answers_of(found.head, data, held, judging, spent)


def kept(head: BoxHead, data: Data, blocks: Any, judging: Any, began: tuple[float, float]) -> dict[str, Any]:
    spent = time.time() - began[0], time.process_time() - began[1]
    return answers_of(head, data, rows_of(blocks, data.held), judging, spent)


def answers_of(head: BoxHead, data: Data, held: Any, judging: Any, spent: tuple[float, float]) -> dict[str, Any]:
    on_held = head.outputs(held)
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


def marks_of(made: dict[str, Any], part: str, truth: BoxTruth, data: Data) -> Marks:
    """Of the answers for a part, at the scores that the held-out pictures chose."""
    mean = data.lesson.truth.matrix().mean(axis=0)
    rule = rule_of(listed(made["held"]), data.lesson.truth.take(data.held), mean)
    answers = listed(made[part])
    marks = box_marks(truth, answers, np.array(rule[SHOWN]), mean)
    counted = np.stack([counts_of(boxes, rule, len(truth.names)) for boxes in answers])
    return Marks({**marks.columns, "answered": counted})


def listed(answers: Any) -> list[Any]:
    """Of each image the boxes that there are, (box, 6), of answers (image, 300, 6)."""
    return [own[own[:, SCORE] > 0].astype(np.float64) for own in answers]


def told_of(score: Mapping[str, Any]) -> str:
    return "none" if score["value"] is None else f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def rows_of_score(scores: Mapping[str, Any]) -> list[list[str]]:
    """Every summary, then every number of each class, a column for each version."""
    first = next(iter(scores.values()))
    rows = [[name, *(told_of(s.estimates[name]) for s in scores.values())] for name in first.estimates]
    for k, row in enumerate(first.tables["per_class"]):
        for key in PER_CLASS:
            rows.append([f"{row['label']}: {key}", *(told_of(s.tables["per_class"][k][key]) for s in scores.values())])
    return rows


def report(options: Any, data: Data) -> None:
    made = {name: load(options, name) for name in MAKERS if (options.kept / f"{name}.json").exists()}
    names = data.truth.names
    marks = {name: marks_of(some, "answers", data.truth, data) for name, some in made.items()}
    scores = {name: box_score(some, names) for name, some in marks.items()}
    held = data.lesson.truth.take(data.held)
    on_held = {name: value(MAP50, marks_of(some, "held", held, data)) for name, some in made.items()}
    others = [name for name in made if name != "frozen"]
    differences = [
        [s.name, *(signed(paired(s, marks[name], marks["frozen"])["difference"]) for name in others)] for s in SUMMARIES
    ]
    red = scores["frozen"].tables["per_class"][names.index(RED)]
    time_rows = [
        ["mAP@.5 of the held-out pictures", *(f"{v:.3f}" for v in on_held.values())],
        ["CPU seconds of training", *(f"{some['cpu']:.0f}" for some in made.values())],
        ["wall seconds of training, beside other work", *(f"{some['wall']:.0f}" for some in made.values())],
        ["CPU seconds a picture, head alone", *(f"{some['cpu_an_image']:.3f}" for some in made.values())],
    ]
    tables = [
        measure.Table(f"{len(data.truth)} pictures that judge", ("", *made), rows_of_score(scores)),
        measure.Table("Less frozen, paired by picture", ("", *others), differences),
        measure.Table("Time", ("", *made), time_rows),
        measure.Table("What is stored", ("", ""), stored(options, data)),
    ]
    best = max(on_held, key=lambda name: on_held[name])
    targets = [
        measure.Target("mAP@.5, frozen", scores["frozen"].estimates["map50"]["value"], floor=0.85),
        measure.Target(
            f"mAP@.5, {best}, kept by held-out pictures (aim)", scores[best].estimates["map50"]["value"], 0.9
        ),
        measure.Target(
            "red cells a picture that the frozen head's count errs by",
            red["count_error"]["value"],
            ceiling=red["count_error_of_mean"]["value"],
        ),
    ]
    plain = {name: {"metrics": s.estimates, "tables": s.tables} for name, s in scores.items()}
    measure.publish(
        options, __doc__ or "", tables, targets, {"scores": plain, "heads": {k: v["head"] for k, v in made.items()}}
    )


def signed(change: Mapping[str, Any]) -> str:
    if change["value"] is None:
        return "none"
    return f"{change['value']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})"


def stored(options: Any, data: Data) -> list[list[str]]:
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
        ["arithmetic of training", ARITHMETIC.name],
    ]


MAKERS = {"frozen": frozen, "tuned": tuned, "scratch": scratch}


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--cache", help="where stored maps lie (default HEADSTART_CACHE)")
    parser.add_argument("--seconds", type=float, default=200, help="CPU seconds of the frozen head's training")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="of the frame: height and width, px")
    parser.add_argument("--kept", type=Path, default=Path("detect-kept"), help="where answers lie between parts")
    parser.add_argument("--only", choices=("passes", *MAKERS, "report"), help="one part")
    parser.add_argument("--stay", type=int, default=0, help="maps above the finest that tuning leaves as they are")
    parser.add_argument("--scratch-seconds", type=float, help="CPU seconds from random weights (default: see above)")
    parser.add_argument("--width", type=int, default=64, help="channels of the head")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate of the head")
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
