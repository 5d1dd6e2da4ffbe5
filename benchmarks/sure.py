"""Do calibrated probabilities, sets of classes and the largest error hold on images that nobody learned from?

    python benchmarks/sure.py [--draws 50] [--only eurosat_3000 ...] [--cache FOLDER]

Each draw divides a set anew by whole groups (copies stay together): a part teaches, as `fit --max-error 0.05` learns,
thresholds included, and the rest judges. Expected calibration error: without correction, less what a perfectly
calibrated model of the same answers has by chance. Coverage: of sets at 90 %, before the likeliest class is added; in
the second table of the sets as `predict` names them, by each of --sets from the same answers, with the mean coverage of
the class that is held least. A largest error is kept where at most 5 % of the answers given for the judged images are
wrong; since these are few, that is missed now and then by chance alone where the true error is below: the last column
counts what chance does not explain (one-sided 5 %).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import NormalDist
from typing import Any

import measure
import numpy as np
from coverage import material_of
from threadpoolctl import threadpool_limits

from headstart.data.targets import class_numbers
from headstart.heads.material import Material
from headstart.heads.taps import tap_sets
from headstart.judge.intervals import accuracy_interval, wilson
from headstart.judge.reliability import ece_by_chance
from headstart.story import evidence
from headstart.story.careful import careful
from headstart.story.plan import make_plan
from headstart.tasks.confidence import SETS, confidence, in_set
from headstart.tasks.known import TASKS, with_confidence
from headstart.tasks.task import closed_form

TAUGHT = {"hymenoptera": 200, "brain_mri_yes_no": 150, "digits": 500, "eurosat_3000": 1000, "cifar10": 1000}
TAUGHT |= {"cifar100": 2000}  # 20 images a class; on request, since its cross-validation takes as long as all others
MOST = 8000  # images of a set
MOST_ERROR = 0.05
COVERAGE = 0.9
TASK = with_confidence(TASKS["classify"], COVERAGE, MOST_ERROR)


def digits_at(folder: Path) -> Path:
    """scikit-learn's digits as pictures."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    for k, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        place = folder / "digits" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(place / f"{k:04d}.png")
    return folder / "digits"


def divided(material: Material, n: int, seed: int) -> tuple[Any, Any]:
    """(rows that teach, rows that judge)."""
    names = np.unique(material.groups)
    place = np.random.default_rng(1000 + seed).permutation(len(names))[np.searchsorted(names, material.groups)]
    order = np.argsort(place, kind="stable")
    taught = np.sort(order[:n])
    return taught, np.flatnonzero(~np.isin(material.groups, material.groups[taught]))


def held_by(sets: str, part: Material, left_out: Any, p: Any, y: Any) -> dict[str, Any]:
    """Of judged images: the share whose set holds the truth, of each class too (nan without images), and of the quarter
    with the least sure answers; classes in a set, and in the largest one."""
    meant = in_set(p, confidence(COVERAGE, None, part.targets, left_out, part.groups, sets=sets))
    held, of, size = meant[np.arange(len(y)), y], np.bincount(y, minlength=p.shape[1]), meant.sum(axis=1)
    with np.errstate(invalid="ignore"):
        each = np.bincount(y, weights=held, minlength=len(of)) / of
    unsure = np.argsort(p.max(axis=1), kind="stable")[: len(y) // 4]
    shares = {"covered": float(held.mean()), "unsure": float(held[unsure].mean()), "each": each.tolist()}
    return shares | {"classes": float(size.mean()), "largest": int(size.max())}


def one(material: Material, n: int, seed: int) -> dict[str, Any]:
    taught, judged = divided(material, n, seed)
    part, sets = material.part(taught), tap_sets("auto", tuple(material.blocks))
    plan = make_plan(np.full(len(part), "none", dtype=object), part.targets.strata, part.groups, part.keys, 0)
    method = evidence.Method(TASK, sets)
    with threadpool_limits(1):
        head = closed_form(TASK, part, plan.train, sets)
        rule = careful(evidence.rule_of(TASK, part, plan.train, head), part, plan, head, method)
    p, y = np.exp(head.outputs(material.at(judged))), class_numbers(material.targets)[judged]
    sure, wrong = p.max(axis=1), p.argmax(axis=1) != y
    given = sure >= rule["answer_from"][0]
    order = np.array_split(np.argsort(sure, kind="stable"), 15)
    ece = sum(abs((sure[k] - ~wrong[k]).sum()) for k in order) / len(y)
    error = float(wrong[given].mean()) if given.any() else 0.0
    noise = 1.645 * np.sqrt(MOST_ERROR * (1 - MOST_ERROR) / max(1, given.sum()))
    return {
        "accuracy": float(1 - wrong.mean()),
        "ece": float(ece),
        "chance": ece_by_chance(sure)["mean"],
        "held": float((p[np.arange(len(y)), y] >= rule["set_from"][0]).mean()),
        "size": float(in_set(p, rule).sum(axis=1).mean()),
        "answered": float(given.mean()),
        "error": error,
        "kept": float(error <= MOST_ERROR),
        "beyond": float(error <= MOST_ERROR + noise),
        "sets": {sets: held_by(sets, part, head.left_out, p, y) for sets in SETS},
    }


def told(name: str, found: list[dict[str, Any]], material: Material) -> tuple[list[list[str]], list[measure.Target]]:
    """A row for each way to choose sets, and what must hold: never less than asked beyond chance. With classwise
    sets of no class, with the risk shared out among the classes, of which the worst is looked at."""
    rows, targets, names, y = [], [], material.targets.names, class_numbers(material.targets)
    for sets in SETS:
        each = np.nanmean([f["sets"][sets]["each"] for f in found], axis=0)
        keys = ("covered", "unsure", "classes", "largest")
        covered, unsure, classes, largest = (float(np.mean([f["sets"][sets][k] for f in found])) for k in keys)
        worst, one = int(each.argmin()), sets == "classwise"
        row = [name, sets, f"{covered:.1%}", f"{unsure:.1%}", f"{classes:.2f}", f"{largest:.1f}"]
        rows.append([*row, f"{each[worst]:.1%}", names[worst]])
        n = len(np.unique(material.groups[y == worst] if one else material.groups))
        least = wilson(COVERAGE, n, NormalDist().inv_cdf(1 - 0.025 / (len(names) if one else 1)))[0]
        what = f"{name}, {sets}: coverage" + (" of the class held least" if one else "")
        targets.append(measure.Target(what, float(each[worst]) if one else covered, floor=least))
    return rows, targets


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=TAUGHT, default=list(TAUGHT)[:5])
    parser.add_argument("--cache", help="folder of stored features")
    options = parser.parse_args()
    rows, by_sets, targets, values = [], [], [], {}
    for name in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            folder = digits_at(Path(scratch)) if name == "digits" else options.data / name
            material = material_of(folder, options.cache, MOST)
        found = [one(material, TAUGHT[name], seed) for seed in range(options.draws)]
        mean = {what: float(np.mean([f[what] for f in found])) for what in found[0] if what != "sets"}
        # the draws share the images: as many are independent as there are
        n = len(np.unique(material.groups))
        ninety = accuracy_interval(np.arange(n) < round(0.9 * n), None)
        excess = mean["ece"] - mean["chance"]
        shares = [f"{mean[k]:.1%}" for k in ("accuracy", "held")]
        rest = [f"{mean['size']:.2f}", *(f"{mean[k]:.1%}" for k in ("answered", "error", "kept", "beyond"))]
        rows.append(
            [name, str(TAUGHT[name]), shares[0], f"{mean['ece']:.3f}", f"{mean['chance']:.3f}", shares[1], *rest]
        )
        inside = float(ninety["low"] <= mean["held"] <= ninety["high"])
        targets.append(measure.Target(f"{name}: calibration error above chance", excess, ceiling=0.02))
        targets.append(measure.Target(f"{name}: coverage within the binomial interval of 90 %", inside, floor=1))
        targets.append(measure.Target(f"{name}: share of draws that keep the largest error", mean["kept"], floor=0.95))
        values[name] = found
        more, must = told(name, found, material)
        by_sets, targets = by_sets + more, targets + must
        print(rows[-1], *more, sep="\n", flush=True)
    header = (
        "set",
        "taught",
        "accuracy",
        "ECE",
        "by chance",
        "covered",
        "classes",
        "answered",
        "error",
        "kept",
        "not beyond chance",
    )
    tables = [
        measure.Table(f"{options.draws} draws", header, rows),
        measure.Table(
            "Sets of classes, at 90 %",
            (
                "set",
                "--sets",
                "covered",
                "of the least sure quarter",
                "classes",
                "largest",
                "class held least",
                "which",
            ),
            by_sets,
        ),
    ]
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
