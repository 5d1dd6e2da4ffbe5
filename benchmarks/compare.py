"""`headstart compare` where transfer should help, and where it cannot: every arm, and the sentence that it comes to.

    python benchmarks/compare.py [--only eurosat_3000 ...] [--epochs 6] [--cache FOLDER]

cifar10_5000: 500 training images a class, 2,000 test images. digits: scikit-learn's, 8 px. noise: 300 pictures of
random pixels in two classes. permuted: 600 images of EuroSAT whose labels were shuffled. In the last two there is
nothing to learn, and the sentence must say that transfer does not help.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
from small_sets import digits

from headstart.data.table import Table, read_table, table_of
from headstart.story import compare
from headstart.story.opening import Options, Watcher

# set: (settings, how the sentence must begin; "" where that is for the figures to say)
SETS: dict[str, tuple[dict[str, Any], str]] = {
    "eurosat_3000": ({"augment": "aerial", "size": 96}, "Transfer helps"),
    "cifar10_5000": ({"size": 96}, "Transfer helps"),
    "digits": ({"augment": "document", "size": 96}, ""),
    "noise": ({"size": 64, "augment": "none"}, "Transfer does not help"),
    "permuted": ({"size": 64}, "Transfer does not help"),
}


def table(name: str, data: Path) -> Table:
    rng = np.random.default_rng(0)
    if name == "digits":
        return digits()
    if name == "noise":
        return table_of(list(rng.integers(0, 256, (300, 64, 64, 3), np.uint8)), ["a", "b"] * 150)
    if name == "cifar10_5000":
        whole = read_table(data / "cifar10")
        order = rng.permutation(len(whole))
        kinds = [(order[(whole.splits[order] == part)], n) for part, n in (("train", 500), ("test", 200))]
        return whole.take(np.concatenate([r[whole.labels[r] == c][:n] for r, n in kinds for c in whole.classes]))
    whole = read_table(data / "eurosat_3000")
    if name == "eurosat_3000":
        return whole
    part = whole.take(np.sort(rng.permutation(len(whole))[:600]))
    return replace(part, labels=rng.permutation(part.labels))


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    options = parser.parse_args()
    record = options.results / "compare.json"
    found: dict[str, Any] = json.loads(record.read_text())["values"] if record.exists() else {}
    tables, targets = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            settings = Options(epochs=options.epochs, cache=options.cache or folder, **SETS[name][0])
            say = Watcher(lambda text, name=name: print(f"{name}: {text}", file=sys.stderr, flush=True))
            outcome = compare.compare(table(name, options.data), settings, say)
            print(*compare.lines(outcome), sep="\n", file=sys.stderr, flush=True)
            found[name] = {"epochs": options.epochs, "settings": SETS[name][0], **outcome.to_json()}
    for name, (_, begins) in SETS.items():
        if name not in found:
            continue
        rows = []
        for arm in found[name]["arms"]:
            d = arm["difference"]
            change = measure.points(d) if d else ""
            rows.append([arm["name"], measure.percent(arm["accuracy"]), change, f"{arm['seconds']:.0f}"])
        rows.append(["**verdict**", found[name]["verdict"], "; ".join(found[name]["flags"]), ""])
        title = f"{name}: {found[name]['train']} to learn from, {found[name]['n']} to judge by"
        tables.append(measure.Table(title, ("arm", "accuracy", "against frozen, points", "seconds"), rows))
        right = float(found[name]["verdict"].startswith(begins))
        targets.append(measure.Target(f"{name}: the sentence begins as it must", right, floor=1))
    measure.publish(options, __doc__ or "", tables, targets, found)


if __name__ == "__main__":
    main()
