"""Two commits give the same numbers: every value of metrics.json, on five fits.

A change that only moves code must not change what a user is told. Each commit is checked out beside the other, fits
the same images with the same Python in a process of its own and an empty cache, and every value of the two
metrics.json files but the seconds is compared, to the last digit. Models that the first commit saved are read by the
second, and must answer the same.

    python benchmarks/same_numbers.py BEFORE AFTER
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import HERE, Table, Target, arguments, publish, run

DIGITS = "from headstart{place}demo import write_digits; from pathlib import Path; write_digits(Path({folder!r}))"
CIFAR = """
import io, numpy as np, pyarrow.parquet as pq
from pathlib import Path
table = pq.read_table({source!r})
labels = np.array(table["label" if "label" in table.column_names else "labels"].to_pylist())
for label in range(10):
    for row in np.flatnonzero(labels == label)[:30]:
        place = Path({folder!r}) / str(label)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{{row}}.jpg").write_bytes(table["image"][int(row)].as_py()["bytes"])
"""


@dataclass(frozen=True)
class Fit:
    name: str
    data: Path
    options: tuple[str, ...] = ()


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", help="another")
    parser.add_argument("--only", nargs="*", help="names of fits")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        trees = {name: checked_out(getattr(options, name), work / name) for name in ("before", "after")}
        rows, differing = [], 0
        for fit in fits(options.data, work, trees["before"]):
            if options.only and fit.name not in options.only:
                continue
            found = {name: fitted(tree, fit, work / f"{name}-{fit.name}") for name, tree in trees.items()}
            different = sorted(differences(found["before"], found["after"]))
            answers = [said(trees["after"], work / f"{name}-{fit.name}" / "model", fit.data) for name in trees]
            differing += len(different) + (answers[0] != answers[1])
            same = "the same" if answers[0] == answers[1] else "DIFFERENT"
            rows.append([fit.name, str(n_values(found["before"])), ", ".join(different[:5]) or "none", same])
            print(rows[-1], flush=True)
        table = Table(
            f"{options.before} against {options.after}",
            ("fit", "values", "different", "predictions of the first commit's model, read by the second"),
            rows,
        )
        publish(options, __doc__ or "", [table], [Target("values that differ", differing, ceiling=0)], {})
    sys.exit(bool(differing))


def fits(data: Path, work: Path, tree: Path) -> Iterator[Fit]:
    """Four sets as they lie, and a network tuned on 300 small pictures."""
    digits, cifar = work / "digits", work / "cifar300"
    place = ".data." if (tree / "src/headstart/data/demo.py").exists() else "."
    run([sys.executable, "-c", DIGITS.format(place=place, folder=str(digits))], environment(tree))
    source = next((data / "cifar10").glob("*train*.parquet"))
    run([sys.executable, "-c", CIFAR.format(source=str(source), folder=str(cifar))], environment(tree))
    for name in ("hymenoptera", "eurosat_3000", "brain_mri_yes_no"):
        yield Fit(name, data / name)
    yield Fit("digits", digits)
    yield Fit("cifar10_300 tuned", cifar, ("--tune", "last", "--epochs", "3", "--size", "64", "--precision", "f32"))


def checked_out(commit: str, folder: Path) -> Path:
    repository = HERE.parent
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(repository), str(folder)], check=True)
    found = subprocess.run(["git", "rev-parse", commit], cwd=repository, check=True, capture_output=True, text=True)
    subprocess.run(["git", "checkout", "--quiet", found.stdout.strip()], cwd=folder, check=True)
    return folder


def environment(tree: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(tree / "src"), "HEADSTART_CACHE": str(tree / "cache")}


def fitted(tree: Path, fit: Fit, folder: Path) -> dict[str, Any]:
    """metrics.json of one fit; the model stays in `folder`."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "headstart", "fit", str(fit.data), "-o", str(folder / "model"), "--json"]
    run([*command, *fit.options], environment(tree))
    found: dict[str, Any] = json.loads((folder / "model" / "metrics.json").read_text())
    found.pop("seconds")
    return found


def said(tree: Path, model: Path, data: Path) -> Any:
    """The second commit's predictions with a model, of some images."""
    images = sorted(p for p in data.rglob("*") if p.suffix in (".jpg", ".png"))[::17]
    command = [sys.executable, "-m", "headstart", "predict", str(model), *map(str, images), "--json"]
    return json.loads(run(command, environment(tree)).stdout)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{at}]")
    else:
        yield path, value


def differences(before: Any, after: Any) -> set[str]:
    """The places whose values are not equal, or that only one side has."""
    one, other = dict(leaves(before)), dict(leaves(after))
    return {place for place in one.keys() | other.keys() if one.get(place, "absent") != other.get(place, "absent")}


def n_values(found: Any) -> int:
    return sum(1 for _ in leaves(found))


if __name__ == "__main__":
    main()
