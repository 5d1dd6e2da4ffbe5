"""Exports in 8-bit integers: what they lose, their size and speed beside float32, and what the gate refuses.

    python benchmarks/int8.py sets                   two data sets, the default network, as `headstart export` does
    python benchmarks/int8.py networks [NAME...]     eight networks, models of 40 photographs, as in exports.py

Of the sets the command itself runs, so that its gate decides; a line that is not made says why. Of the networks
everything is written down, whatever was lost: agreement and differences from `predict` in float32 over 200 photographs,
and the paired accuracy difference on the 153 of them whose class is known. Speeds are ratios of both files, in turns.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
from exports import ASKED, NETWORKS, SIDE, fitted, truth

from headstart.cli.main import main as headstart
from headstart.data.table import list_images
from headstart.errors import HeadstartError
from headstart.export.about import about
from headstart.export.agreement import differences, run
from headstart.export.folder import size_of
from headstart.export.formats import FORMATS, check_installed
from headstart.export.quantise import LARGEST, PACKAGES
from headstart.files.bundle import read_bundle
from headstart.judge.intervals import paired_gain
from headstart.ship.package import unpack
from headstart.story import int8
from headstart.story.export import converted

SETS = ("hymenoptera", "eurosat_3000")
ALLOWED, FASTER = 0.5, 1.8  # points; times, where the processor has VNNI
HEADER = (
    "labels that agree",
    "largest difference",
    "accuracy difference",
    "of the size",
    "times the speed",
    "in float",
)


def said(command: list[str]) -> tuple[dict[str, Any] | None, str]:
    """What an export says as JSON, or why there is none."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            headstart([*command, "--json"])
        except SystemExit as ended:
            if ended.code:
                return None, err.getvalue().strip().splitlines()[-1]
    return json.loads(out.getvalue()), ""


def of_set(name: str, to: str, options: Any, folder: Path) -> tuple[list[str], Any]:
    """A default fit of a data set, exported."""
    data, place = options.data / name, folder / name
    if not (place / "headstart.json").exists():
        headstart(["fit", str(data), "-o", str(place), "--cache", str(folder / "cache")])
    words = ["export", str(place), "--to", to, "--int8", "--data", str(data), "-o", str(folder / f"{name}-{to}-int8")]
    found, why = said([*words, "--max-drop", str(options.max_drop)])
    if found is None:
        return [name, to, "not made", why, *[""] * 4], None
    made = found["int8"]
    found.pop("folder")
    cells = _cells(found["label_agreement"], found["largest_difference"], found["score"]["difference"], made)
    return [name, to, *cells], found


def of_network(name: str, to: str, options: Any, folder: Path) -> tuple[list[str], Any]:
    """A network of exports.py; kept beside its model."""
    kept = folder / f"{name}-{to}-int8.json"
    if not kept.exists():
        try:
            check_installed(FORMATS[to])
        except HeadstartError as error:
            return [name, to, str(error), *[""] * 5], None
        if options.finished:
            return [name, to, "not run yet", *[""] * 5], None
        photos = sorted((options.data / "hymenoptera" / "val").glob("*/*.jpg"))
        asked = [*photos, *sorted((options.data / "imagenet_100").glob("*.JPEG"))][:ASKED]
        try:
            kept.write_text(json.dumps(_measured(name, to, options.data, folder, asked, len(photos))))
        except HeadstartError as error:
            return [name, to, str(error), *[""] * 5], None
    found = json.loads(kept.read_text())
    return [name, to, *_cells(found["labels"], found["largest"], found["difference"], found["int8"])], found


def _measured(name: str, to: str, data: Path, folder: Path, asked: list[Path], known: int) -> dict[str, Any]:
    place = fitted(name, NETWORKS[name], data, folder)
    model, of = unpack(read_bundle(place)), FORMATS[to]
    ours = truth(model, place, asked, asked[:1])["ours"].astype(np.float32)
    teaching = list_images(sorted(map(str, (folder / "taught").glob("*/*.jpg"))))
    with tempfile.TemporaryDirectory() as scratch:
        converted(model, of, about(model, name, False), False, Path(scratch))
        made = int8.made(model, of, Path(scratch), teaching, ALLOWED)
        theirs = run(Path(scratch), of, place.with_suffix(".npy"), ()).answers
        size = size_of(Path(scratch))
    assert theirs is not None
    classes = np.array([model.names.index(file.parent.name) for file in asked[:known]])
    right = [found[:known].argmax(axis=1) == classes for found in (theirs, ours)]
    gain = paired_gain(right[0], right[1])
    found = differences(model, ours, theirs).to_json() | {"bytes": size, "side": SIDE, "int8": made.to_json()}
    return found | {"difference": gain["difference"], "accuracy": float(right[1].mean())}


def _cells(agree: float, largest: float, difference: dict[str, float], made: dict[str, Any]) -> list[str]:
    floats = f"{len(made['floats'])} of {made['layers']}"
    size, speed = f"{made['size_ratio']:.1%}", f"{made['speed_ratio']:.2f}"
    return [f"{agree:.1%}", f"{largest:.3f}", measure.points(difference), size, speed, floats]


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("what", choices=("sets", "networks"))
    parser.add_argument("names", nargs="*", help="all by default")
    parser.add_argument("--to", action="append", help="a format; several with several (default: all in int8)")
    parser.add_argument("--max-drop", type=float, default=ALLOWED, help="points (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where models and finished lines are kept, to go on after a stop")
    parser.add_argument("--finished", action="store_true", help="record the lines that --folder has, and make no other")
    parser.add_argument("--record", help="the name of the record (default: int8 or int8_networks)")
    options = parser.parse_args()
    options.record = options.record or ("int8" if options.what == "sets" else "int8_networks")
    line = of_set if options.what == "sets" else of_network
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for name in options.names or (SETS if options.what == "sets" else NETWORKS):
            for to in options.to or PACKAGES:
                found.append(line(name, to, options, folder))
                print(" | ".join(found[-1][0]), flush=True)
    made = [values for _, values in found if values]
    targets = [
        measure.Target(
            "the largest share of the float32 file", max(f["int8"]["size_ratio"] for f in made), None, LARGEST
        ),
        measure.Target("the least speed beside float32", min(f["int8"]["speed_ratio"] for f in made), FASTER),
    ]
    if options.what == "sets":
        most = max(f["int8"]["gate"]["drop"] for f in made)
        targets.append(measure.Target("points lost at most, as counted", most, None, ALLOWED))
        expected = max(f["int8"]["gate"]["expected"] for f in made)
        targets.append(measure.Target("points to be expected at most", expected, None, ALLOWED))
    tables = [measure.Table("Exports in int8", ("", "format", *HEADER), [cells for cells, _ in found])]
    measure.publish(options, __doc__, tables, targets, {"rows": [values for _, values in found]})


if __name__ == "__main__":
    main()
