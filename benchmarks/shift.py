"""Is a judged part of another kind named, and is a random one left alone?

    python benchmarks/shift.py [--splits 200] [--cache FOLDER]

Random splits, whole groups, 30 % judged: the share that is said to look different (5 % at most). Then pictures that are
of another kind: CIFAR-10 photographs against other ones in grey, inverted and blurred, and faces against faces of other
people; the AUROC with which the parts are told apart. Nothing was chosen here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import measure
import numpy as np
from coverage import material_of
from PIL import Image, ImageFilter, ImageOps

from headstart.data.table import Table, read_table, table_of
from headstart.heads.apart import Apart, apart
from headstart.heads.material import Material
from headstart.story import opening, pipeline
from headstart.tasks.classification import CLASSIFICATION

SETS = ("hymenoptera", "brain_mri_yes_no", "eurosat_3000", "cifar10")
MOST = 3000  # images of a set
EACH = 1000  # photographs of each kind
KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda picture: picture,
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "inverted": ImageOps.invert,
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
}


def false_alarms(material: Material, splits: int) -> float:
    """The share of random splits whose parts are said to look different."""
    y, accused = material.targets.strata, 0
    names = np.unique(material.groups)
    for seed in range(splits):
        judged = np.isin(material.groups, np.random.default_rng(seed).permutation(names)[: int(0.3 * len(names))])
        found = apart(material.at, np.flatnonzero(~judged), np.flatnonzero(judged), y, material.groups, seed)
        accused += found is not None and found.clear
    return accused / splits


def of_table(table: Table, cache: str | None) -> Material:
    options = opening.Options(cache=cache)
    backbone, engine = opening.open_network(table, options)
    features = opening.features_of(table, backbone, engine, options, lambda done: None)
    return pipeline.examine(CLASSIFICATION, table, backbone, engine, features).material(0)


def changed(table: Table, kind: str, cache: str | None) -> Apart | None:
    """EACH photographs as they are, told from EACH others of this kind."""
    rows = np.random.default_rng(0).permutation(len(table))[: 2 * EACH]
    pictures = [Image.open(io.BytesIO(bytes(table.read(int(row))))).convert("RGB") for row in rows]
    pictures[EACH:] = [KINDS[kind](picture) for picture in pictures[EACH:]]
    material = of_table(table_of(pictures, list(table.labels[rows])), cache)
    alone = replace(material, groups=np.arange(len(material)))
    halves = np.arange(EACH), np.arange(EACH, 2 * EACH)
    return apart(alone.at, *halves, alone.targets.strata, alone.groups, 0)


def other_people(table: Table, cache: str | None) -> Apart | None:
    """Faces of one half of the people told from those of the other."""
    material = of_table(table, cache)
    first = material.targets.strata < len(material.targets.names) // 2
    none = np.zeros(len(material), dtype=np.int64)
    return apart(material.at, np.flatnonzero(first), np.flatnonzero(~first), none, material.groups, 0)


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--cache", help="folder of stored features")
    options = parser.parse_args()
    alarms, told, targets, values = [], [], [], {}
    for name in SETS:
        share = false_alarms(material_of(options.data / name, options.cache, MOST), options.splits)
        alarms.append([name, str(options.splits), f"{share:.1%}"])
        targets.append(measure.Target(f"{name}: random splits said to differ", share, ceiling=0.05))
        values[name] = share
        print(alarms[-1], flush=True)
    photographs = read_table(options.data / "cifar10" / "test-00000-of-00001.parquet")
    people = read_table(options.data / "faces_orl", task="classify")
    cases = {f"CIFAR-10, {kind}": changed(photographs, kind, options.cache) for kind in KINDS}
    cases["faces of other people"] = other_people(people, options.cache)
    for name, found in cases.items():
        assert found is not None
        told.append([name, f"{found.auroc:.3f} [{found.low:.3f}, {found.high:.3f}]", "yes" if found.clear else "no"])
        kind = "left alone" if name.endswith("the same") else "named"
        targets.append(measure.Target(f"{name}: {kind}", float(found.clear == (kind == "named")), floor=1))
        values[name] = found.to_json()
        print(told[-1], flush=True)
    tables = [
        measure.Table("Random splits", ("set", "splits", "said to differ"), alarms),
        measure.Table("Pictures of another kind", ("what", "AUROC, 0.5 by chance", "named"), told),
    ]
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
