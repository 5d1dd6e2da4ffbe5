"""Does `--backbone auto` choose well, and what does the choice cost? Six networks, eight sets, against trying all.

    python benchmarks/ranking.py --networks FOLDER [--cache FOLDER] [--train 2000] [--test 1000] [--only SET ...]

Networks: EfficientNet-Lite0 to Lite2 (packages), MobileNetV2 (torchvision's file), and two that were tuned before on
other images, as a user has them: Lite0 on CIFAR-100, MobileNetV2 on Fashion-MNIST, 5,000 images each that are in no set
below. They are made in `--networks` where they are not there.

Trying all: every network sees every training image, its head answers for the test images, and the best is taken.
Regret: the best network's accuracy on the test images minus that of the network that `auto` chose, both with all
training images. Cost: images through each network, at its measured pace, plus the rest of the training images through
the chosen one; in parts of what trying all costs.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
from small_sets import digits

from headstart.data.table import Table, read_table, table_of
from headstart.data.targets import class_numbers
from headstart.heads.taps import LAST
from headstart.heads.transferability import logme
from headstart.story import evidence, pipeline, publish
from headstart.story.candidates import Candidate, entry_for
from headstart.story.opening import Options
from headstart.story.rank import Asked, Ranking, rank
from headstart.tasks.classification import CLASSIFICATION

FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
TAUGHT = 5000  # images that each of the tuned networks has learned from
Candidates = dict[str, tuple[str, str]]  # name -> (--backbone, --weights)


def fashion() -> Table:
    """The 60,000 training pictures of Fashion-MNIST, 28 px."""
    pixels = np.frombuffer(gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((FASHION / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return table_of(list(pixels.reshape(-1, 28, 28)), [f"kind {k}" for k in labels])


def sets(data: Path, train: int, test: int) -> dict[str, Table]:
    """name -> so many training and test images at most, in their own parts where a set has them."""
    found = {name: read_table(data / name) for name in ("hymenoptera", "eurosat_3000", "brain_mri_yes_no")}
    found |= {"faces_orl": read_table(data / "faces_orl", task="classify"), "digits": digits()}
    found |= {"cifar10": read_table(data / "cifar10"), "fashion": fashion(), "cifar100": read_table(data / "cifar100")}
    return {name: divided(table, train, test) for name, table in found.items()}


def divided(table: Table, train: int, test: int) -> Table:
    """Drawn at random, stratified by class: test images from the test part, else from a third of all. The last TAUGHT
    training images in this order are never drawn: they teach the tuned networks."""
    order, splits = drawn(table), table.splits.astype(str)
    judged = np.isin(splits, ("test", "validation"))
    if not judged.any():
        judged[order[: len(order) // 3]] = True
    mine, other = order[~judged[order]][:train], order[judged[order]][:test]
    parts = np.array(["train"] * len(mine) + ["test"] * len(other), dtype=object)
    return replace(table.take(np.concatenate([mine, other])), splits=parts)


def drawn(table: Table) -> np.ndarray:
    """All rows, so that every beginning holds the classes in proportion."""
    rng = np.random.default_rng(0)
    pace = np.empty(len(table))
    for name in table.classes:
        mine = rng.permutation(np.flatnonzero(table.labels == name))
        pace[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    return np.argsort(pace, kind="stable")


def networks(folder: Path, data: Path, cache: str | None) -> Candidates:
    """The six; those that are tuned are made where they are not there."""
    mobile = ("mobilenetv2_100", str(data.parent / "weights" / "mobilenet_v2-b0353104.pth"))
    found = {f"lite{k}": (f"tf_efficientnet_lite{k}", "auto") for k in range(3)} | {"mobilenetv2": mobile}
    for name, (backbone, weights), table in (
        ("lite0-cifar100", found["lite0"], lambda: read_table(data / "cifar100")),
        ("mobilenetv2-fashion", mobile, fashion),
    ):
        place = folder / name
        if not (place / "headstart.json").exists():
            whole = table()
            order = drawn(whole)
            mine = whole.take(order[whole.splits[order] != "test"][-TAUGHT:])
            mine = replace(mine, splits=np.full(TAUGHT, "none", object))
            how = Options(backbone, weights, tune="last", epochs=4, size=96, cache=cache)
            publish.save(pipeline.fit(mine, how), place, name, "benchmarks/ranking.py")
        found[name] = (str(place), "auto")
    return found


def tried(table: Table, options: Options) -> dict[str, float]:
    """A network with all training images: its accuracy on the test images, left out, and LogME."""
    learned = pipeline.learn(table, options)
    plan, material = learned.plan, learned.material
    assert plan.judge is not None
    judged = evidence.judge_rows(CLASSIFICATION, material, learned.head, plan.judge, learned.rule).score
    y = class_numbers(material.targets)[plan.train]
    left_out = float((learned.head.left_out.argmax(axis=1) == y).mean())
    return {
        "test": judged.value("accuracy"),
        "left_out": left_out,
        "logme": logme(material.blocks[LAST][plan.train], y),
    }


def one(table: Table, found: Candidates, cache: str | None) -> dict[str, Any]:
    """What `auto` chose on a set, what trying all found, and what both cost in seconds of the networks."""
    all_of = {name: tried(table, Options(*given, cache=cache)) for name, given in found.items()}
    asked = tuple(Candidate(name, *given, entry_for(given[0]), asked=True) for name, given in found.items())
    ranking = rank(CLASSIFICATION, table, Options(cache=cache), Asked(asked))
    n, chosen = ranking.n_images, ranking.chosen
    whole = sum(n / row.images_per_second for row in ranking.rows)
    seen = sum(row.images / row.images_per_second for row in ranking.rows)
    seen += (n - chosen.images) / chosen.images_per_second
    best, by_proof = (max(all_of, key=lambda name: all_of[name][what]) for what in ("test", "left_out"))
    values = [[all_of[name][what] for name in found] for what in ("test", "left_out", "logme")]
    return {
        "n": n,
        "chosen": chosen.name,
        "images": {row.name: row.images for row in ranking.rows},
        "networks": all_of,
        "best": best,
        "by_proof": by_proof,
        "regret": all_of[best]["test"] - all_of[chosen.name]["test"],
        "regret_by_proof": all_of[by_proof]["test"] - all_of[chosen.name]["test"],
        "share": seen / whole,
        "share_of_50000": _share_of_many(ranking, 50_000),
        "correlation": {"left_out": _spearman(values[1], values[0]), "logme": _spearman(values[2], values[0])},
    }


def _share_of_many(ranking: Ranking, n: int) -> float:
    """The same where the set had so many training images."""
    rows, chosen = ranking.rows, ranking.chosen
    seen = sum(row.images / row.images_per_second for row in rows) + (n - chosen.images) / chosen.images_per_second
    return seen / sum(n / row.images_per_second for row in rows)


def _spearman(one: list[float], other: list[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--networks", type=Path, required=True, help="a folder of the tuned networks")
    parser.add_argument("--cache", help="a folder that is kept")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--only", nargs="+", help="some of the sets")
    options = parser.parse_args()
    found, results = networks(options.networks, options.data, options.cache), {}
    for name, table in sets(options.data, options.train, options.test).items():
        if options.only is None or name in options.only:
            results[name] = one(table, found, options.cache)
            print(name, results[name], file=sys.stderr, flush=True)
    report(options, found, results)


def report(options: argparse.Namespace, found: Candidates, results: dict[str, dict[str, Any]]) -> None:
    rows = [
        [
            name,
            str(r["n"]),
            *(f"{r['networks'][network]['test']:.1%}" for network in found),
            f"{r['chosen']} / {r['best']} / {r['by_proof']}",
            f"{100 * r['regret']:.1f} / {100 * r['regret_by_proof']:.1f}",
            f"{r['share']:.0%} / {r['share_of_50000']:.0%}",
            f"{r['correlation']['left_out']:.2f} / {r['correlation']['logme']:.2f}",
        ]
        for name, r in results.items()
    ]
    head = (
        "set",
        "n",
        *found,
        "auto / best on the test images / by trying all",
        "regret, points: hindsight / trying all",
    )
    head = (*head, "share of the cost / with 50,000 images", "Spearman with the test accuracy: left-out / LogME")
    mean = {what: float(100 * np.mean([r[what] for r in results.values()])) for what in ("regret", "regret_by_proof")}
    share = float(np.mean([r["share"] for r in results.values()]))
    targets = [
        measure.Target("mean regret in points, best in hindsight", mean["regret"], ceiling=0.3),
        measure.Target("mean regret in points, against choosing by trying all", mean["regret_by_proof"], ceiling=0.3),
        measure.Target("mean share of the cost of trying all", share, ceiling=1.0),
    ]
    measure.publish(options, __doc__ or "", [measure.Table("Sets", head, rows)], targets, results)


if __name__ == "__main__":
    main()
