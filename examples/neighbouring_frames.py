"""Why groups matter: frames of one film look alike, so that a model judged on its own films seems better than it is.

    python examples/neighbouring_frames.py camvid [--least 0.01] [--group-by "/([^_/]*)_[^/]*$"]

The folder has `images` with a mask of class numbers for each in a folder `masks` beside it (in any parts, all are taken
together). A class is a label of a picture where it covers at least the share `--least` of its pixels. Labels are
learned once, and judged twice by answers of models that have not seen the picture: each picture left out alone, and
each with all others of its group. The names of films are found in the pictures' names, if `--group-by` says nothing.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data.groups import sequences_in
from headstart.data.table import Table, read_table
from headstart.story import pipeline
from headstart.story.options import Options
from headstart.tasks.multilabel import MULTILABEL

VOID = 11  # the number of what belongs to no class
NAMES = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()  # noqa: SIM905


def labels_of(mask: Path, least: float) -> list[str]:
    """The classes that cover at least this share of the pixels."""
    numbers = np.asarray(Image.open(mask))
    shares = np.bincount(numbers.ravel(), minlength=VOID + 1) / numbers.size
    return [name for k, name in enumerate(NAMES) if shares[k] >= least]


def write_list(folder: Path, least: float, place: Path) -> None:
    """A list with one column of labels, `|` between them."""
    with place.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "labels"])
        for image in sorted(folder.resolve().glob("**/images/*.*")):
            mask = image.parent.with_name("masks") / f"{image.stem}.png"
            rows.writerow([image, "|".join(labels_of(mask, least)) or "|"])


def left_out(table: Table, options: Options) -> dict[str, float | None]:
    """The scores of answers by models without the picture, and without what belongs to it."""
    found = pipeline.learn(table, options, hold_out=False)
    answers = MULTILABEL.answers(found.head.left_out, found.rule)
    marks = MULTILABEL.judging.mark(found.seen.targets, answers)
    score = MULTILABEL.judging.score(marks, found.seen.targets.names, found.seen.groups, 0)
    return {name: estimate["value"] for name, estimate in score.estimates.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--least", type=float, default=0.01)
    parser.add_argument("--group-by", default=r"/([^_/]*)_[^/]*$")
    parser.add_argument("--backbone", default=Options.backbone)
    parser.add_argument("--weights", default=Options.weights)
    parser.add_argument("--size", type=int)
    given = parser.parse_args(arguments)
    options = Options(backbone=given.backbone, weights=given.weights, size=given.size)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "labels.csv"
        write_list(given.folder, given.least, place)
        alone = read_table(place, task="tag")
        together = read_table(place, task="tag", group_by=given.group_by)
        films = sequences_in([str(name) for name in alone.names])
        print(alone.layout.partition(": ")[2])
        print(f"names show frames of {len(set(films))} films" if films else "names show no frames")
        for what, table in (("each picture left out alone", alone), ("each with all of its group", together)):
            scores = left_out(table, options)
            print(f"{what}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if value is not None))


if __name__ == "__main__":
    main()
