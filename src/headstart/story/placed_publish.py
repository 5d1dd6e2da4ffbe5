"""What a fit of a task whose answers lie in the picture found -> metrics.json, the report, the bundle on disk."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart import recipe, report
from headstart.counted import counted
from headstart.data import images
from headstart.data.duplicates import find_leaks
from headstart.data.overlay import small_jpeg
from headstart.data.splits import write_split
from headstart.data.table import Table
from headstart.data.targets import counts
from headstart.errors import ImageError
from headstart.files.bundle import write_bundle
from headstart.files.cells import csv_bytes
from headstart.report.page import MAX_JPEG_BYTES
from headstart.ship.package import versions
from headstart.ship.placed import pack
from headstart.story import whereabouts
from headstart.story.account import network_told
from headstart.story.placed import FOLDS, Fitted, answers
from headstart.story.publish import run_of
from headstart.story.whereabouts import handed_on, without_place
from headstart.trunk.engine import this_machine

GALLERY = 12  # of the worst pictures; each is drawn twice, the truth and the answer
SHOWN = 640  # px, the longer side of a drawn picture: 12 of them are about a megabyte


def metrics(fitted: Fitted) -> dict[str, Any]:
    """The content of metrics.json."""
    crossed = fitted.plan.judge is None
    headline = fitted.score.to_json() | {"source": fitted.plan.source}
    return {
        "validation": None if fitted.validation is None else fitted.validation.to_json(),
        "test": None if crossed else headline,
        "cross_validation": headline if crossed else None,
        "baselines": {
            one.kind.replace(" ", "_"): {
                "n": one.score.n,
                **one.score.estimates,
                "measure": fitted.task.headline.name,
                "difference": one.difference,
            }
            for one in fitted.against
        },
        "candidates": [asdict(one) for one in fitted.taught.tried],
        "training": [{"loss": loss, "held_out_loss": held} for loss, held in fitted.taught.losses],
        "set_aside": [{"path": name, "reason": reason} for name, reason in fitted.seen.features.set_aside],
        "seconds": {stage: round(s, 3) for stage, s in fitted.seconds.items()},
    }


def with_truths_kept(table: Table) -> Table:
    """The table with what a model may keep of the truths: their hashes, since they may name private places."""
    labels = np.array([hashlib.blake2b(str(t).encode(), digest_size=8).hexdigest() for t in table.labels], object)
    return replace(table, labels=labels)


def save(fitted: Fitted, folder: Path, title: str, command: str, data: str | None = None) -> dict[str, Any]:
    """Write the bundle; returns the content of metrics.json. `data`: where the images are, remembered on this machine
    and not in the bundle. Raises OutputError."""
    seen, taught = fitted.seen, fitted.taught
    names = seen.targets.names
    manifest, config, tensors = pack(fitted.task, seen.backbone, taught.head, names, taught.rule, seen.engine.precision)
    found = metrics(fitted)
    with tempfile.TemporaryDirectory() as scratch:
        split = Path(scratch) / "split.parquet"
        used = [str(s) for s in fitted.plan.splits]
        rows = [str(n) for n in seen.table.names]
        labels = [str(text) for text in with_truths_kept(seen.table).labels]
        fingerprint = write_split(split, rows, seen.features.hashes, labels, used, seen.groups)
        manifest |= {"class_type": seen.table.kind} if seen.table.kind != "str" else {}
        manifest |= {"data_fingerprint": fingerprint, "versions": dict(versions())}
        run = run_of(command, fitted.options, settings(fitted), seen.engine, seen.features, found["seconds"])
        page = report_data(fitted, folder, title, command, fingerprint, run["created"])
        files = {
            "split.parquet": split.read_bytes(),
            "report.html": report.render_report(page).encode(),
            "README.md": report.render_card(page).encode(),
            "duplicates.csv": csv_bytes(("set", "kind", "path", "split"), _copies(fitted)),
            "set_aside.csv": csv_bytes(("path", "reason"), seen.features.set_aside),
        }
        write_bundle(folder, manifest=manifest, config=config, metrics=found, run=run, tensors=tensors, files=files)
        if data is not None:
            whereabouts.remember(fingerprint, data, fitted.options.cache)
    return found


def _copies(fitted: Fitted) -> list[tuple[int, str, str, str]]:
    table = fitted.seen.table
    return [
        (k, one.kind, str(table.names[row]), str(table.splits[row]))
        for k, one in enumerate(fitted.seen.duplicates, 1)
        for row in one.rows
    ]


def settings(fitted: Fitted) -> list[recipe.Setting]:
    """The decisions of the fit with their sources."""
    seen, options = fitted.seen, fitted.options
    height, width = seen.backbone.preprocess.size
    judged = {
        "cross-validation": (f"{FOLDS}-fold cross-validation, once", "few images and no split of yours"),
        "test split": (f"{counted(len(fitted.rows), 'image')} held out", "no split of yours"),
        "test folder": ("your test images", "your own split"),
        "validation folder": ("your validation images", "your own split"),
    }[fitted.plan.source]
    return [
        recipe.Setting(
            "frame",
            f"{width} x {height} px, the whole picture",
            "set by --size" if options.size else "the shape of the median picture, in multiples of the stride",
        ),
        recipe.Setting(
            "precision",
            seen.engine.precision,
            "set by --precision" if options.precision != "auto" else "bfloat16 where the processor has it (measured)",
        ),
        recipe.Setting("judged by", *judged),
        *fitted.taught.settings,
    ]


def report_data(
    fitted: Fitted, folder: Path, title: str, command: str, fingerprint: str, created: str
) -> report.ReportData:
    """Everything that the report and the card say."""
    seen, plan, machine, task = fitted.seen, fitted.plan, this_machine(), fitted.task
    crossed = plan.judge is None
    n_train = len(plan.train) if not crossed else round(len(plan.train) * (1 - 1 / FOLDS))
    also = (
        ()
        if fitted.validation is None
        else (report.Measured(fitted.validation.to_json(), "validation folder", n_train),)
    )
    leaks = find_leaks(seen.duplicates, seen.table.splits)
    return report.ReportData(
        title=title,
        model=handed_on(folder),
        classes=seen.targets.names,
        task=task.name,
        headline=report.Measured(fitted.score.to_json(), plan.source, n_train, FOLDS),
        headline_name=task.headline.name,
        headline_percent=task.headline.percent,
        higher_is_better=task.headline.higher_is_better,
        also=also,
        baselines=tuple(
            report.Baseline(
                task.constant_name if one.kind == "constant" else one.kind,
                one.score[task.headline.name],
                one.score.n,
                one.difference["difference"],
                fitted.score[task.headline.name],
                task.headline.name,
            )
            for one in fitted.against
        ),
        counts=_counts(fitted),
        images={split: int((plan.splits == split).sum()) for split in ("train", "validation", "test")},
        layout=without_place(seen.table.layout),
        notes=(*seen.table.notes, *fitted.taught.remarks),
        fingerprint=fingerprint,
        set_aside=seen.features.set_aside,
        worst=worst_pictures(fitted),
        n_duplicates=len(seen.duplicates),
        n_leaks=len(leaks),
        n_conflicts=0,
        losses=fitted.taught.losses,
        network=network_told(seen.backbone, seen.engine, _layers_read(fitted), fitted.taught.backbone is not None),
        candidates=tuple(report.Candidate(t.name, t.error, t.quality, t.chosen) for t in fitted.taught.tried),
        tried_on="training images that were held out",
        recipe=tuple(report.Setting(s.name, s.value, s.source) for s in settings(fitted)),
        seconds=fitted.seconds,
        machine={"Processor": machine.processor, "Cores": str(machine.cores), "Accelerator": machine.accelerator},
        versions=versions(),
        seed=fitted.options.seed,
        command=command,
        created=created.replace("T", " ").replace("+00:00", " UTC"),
    )


def worst_pictures(fitted: Fitted) -> tuple[report.Picture, ...]:
    """The judged images that fared worst, with the truth and the answer drawn on them; of folds, where the model has
    learned from each by now, those that it still does not get right."""
    seen, task = fitted.seen, fitted.task
    rows = fitted.rows[task.worst(fitted.marks)[:GALLERY]]
    shown = []
    for row, answer in zip(map(int, rows), answers(task, seen, fitted.taught, rows), strict=True):
        try:
            plain = images.small(seen.table.read(row), SHOWN, preprocess=seen.backbone.preprocess)
        except ImageError:
            continue
        size = (int(seen.sizes[row, 0]), int(seen.sizes[row, 1]))
        truth = task.truth(seen.targets, row, size)
        rule = fitted.taught.rule
        drawn = task.drawn(plain, size, seen.targets.names, answer, truth, rule)
        parts = [small_jpeg(pixels, SHOWN, MAX_JPEG_BYTES) for pixels in (plain, drawn)]
        said = task.said(seen.targets.names, answer, rule)
        told = task.said(seen.targets.names, truth, {})
        name = str(seen.table.names[row])
        shown.append(report.Picture(parts[0], name, told, said, None, looked=parts[1]))
    return tuple(shown)


def _layers_read(fitted: Fitted) -> tuple[str, ...]:
    return tuple(layer.block.removesuffix("/map") for layer in fitted.taught.head.maps)


def _counts(fitted: Fitted) -> dict[str, dict[str, int]]:
    found = {}
    for split in ("train", "validation", "test"):
        here = counts(fitted.seen.targets.take(np.flatnonzero(fitted.plan.splits == split)))
        if any(here.values()):
            found[split] = here
    return found
