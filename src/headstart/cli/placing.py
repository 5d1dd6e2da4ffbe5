"""`fit`, `evaluate` and `predict` where answers lie in the picture: masks and boxes."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli.console import say, say_json, say_json_list, tell
from headstart.cli.given import name_of, none_were_read, tell_notes
from headstart.cli.progress import watching
from headstart.cli.spreading import joined
from headstart.counted import counted
from headstart.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.data.table import Table
    from headstart.files.bundle import Bundle
    from headstart.judge.marks import Interval, Score
    from headstart.ship.placed import Placed, Said
    from headstart.story.options import Options
    from headstart.story.placed import Fitted

NUMBERS = ("count_error",)  # of scores: things a picture, no shares
MOST = 20  # lines of one list on the terminal, a screen; --json has them all


def fit(given: argparse.Namespace, table: Table, options: Options, own: dict[str, str]) -> None:
    """As `teaching.fit`, once the table is read and known to be of such a task. `own`: options of this command."""
    from headstart.story import placed, placed_publish
    from headstart.story.options import typed
    from headstart.story.replacing import check_replaceable
    from headstart.story.whereabouts import handed_on
    from headstart.tasks.known import PLACED

    folder = Path(given.output)
    for option in ("add_to", "track", "explain"):
        if getattr(given, option):
            raise OptionError(f"--{option.replace('_', '-')} is not there for --task {table.task}: leave it out")
    if not given.force:
        check_replaceable(folder, placed_publish.with_truths_kept(table))
    command = shlex.join(typed(given.data, given.output, own | {"task": table.task}, options, handed_on))
    with joined(options.ray, tell), watching(tell) as watch:
        fitted = placed.fit(PLACED[table.task], table, options, watch)
        found = placed_publish.save(fitted, folder, name_of(given.data), command, given.data)
    if given.json:
        say_json(found | {"model": str(folder)})
        return
    for line in summary(fitted, folder, time.perf_counter() - given.begun):
        say(line)


def summary(fitted: Fitted, folder: Path, seconds: float) -> list[str]:
    """What the terminal shows at the end of a fit."""
    from headstart.cli.answers import entry

    task, score, n = fitted.task, fitted.score, fitted.seen.features.n_forward
    name = task.headline.name
    where = {
        "cross-validation": "cross-validation",
        "test split": "held-out images, used once",
        "test folder": "your test images, used once",
        "validation folder": "your validation images, used once",
    }[fitted.plan.source]
    lines = [entry(_named(name), f"{_told(name, score[name])}  n = {score.n:,}  ({where})")]
    lines += [entry(_named(other), _told(other, found)) for other, found in score.estimates.items() if other != name]
    for one in fitted.against:
        called = task.constant_name if one.kind == "constant" else one.kind
        lines.append(entry(called, f"{_told(name, one.score[name])}  n = {one.score.n:,}"))
        lines += [entry("", _gained(one.difference["difference"]))] if one.kind == "frozen" else []
    aside = len(fitted.seen.features.set_aside)
    if aside:
        lines.append(entry("set aside", f"{counted(aside, 'unreadable file')} (set_aside.csv)"))
    lines += [entry("note", remark) for remark in fitted.taught.remarks]
    lines.append(entry("time", f"{seconds:.1f} s, {counted(n, 'image')} went through the network"))
    usage = shlex.join(["headstart", "predict", str(folder)])
    return ["", *lines, "", entry("report", str(folder / "report.html")), entry("next", f"{usage} IMAGES")]


def _named(name: str) -> str:
    return {"map50": "mAP at IoU .5", "map": "mAP .5 to .95", "miou": "mean IoU"}.get(name, name.replace("_", " "))


def _told(name: str, found: Interval) -> str:
    if found["value"] is None:
        return "not determined by these images"
    if name in NUMBERS:
        return f"{found['value']:6.3g}  [{found['low']:.3g}, {found['high']:.3g}]"
    return f"{found['value']:6.1%}  [{found['low']:.1%}, {found['high']:.1%}]"


def _gained(difference: Interval) -> str:
    """What tuning changed on the same images, in points of the headline, which is a share."""
    gain, low, high = (difference[end] for end in ("value", "low", "high"))
    if gain is None or low is None or high is None:
        return "what tuning gained is not determined by these images"
    shown = "" if low > 0 else ": a loss" if high < 0 else ": no gain is shown"
    return f"tuning changed it by {100 * gain:+.1f} points  [{100 * low:+.1f}, {100 * high:+.1f}]{shown}"


def inspect(given: argparse.Namespace, table: Table, options: Options) -> dict[str, int]:
    """What is wrong with images and their truth, before anything is trained; how often, by the words of --fail-on."""
    from headstart.data.duplicates import find_leaks
    from headstart.story import placed
    from headstart.story.clock import Clock
    from headstart.tasks.known import PLACED

    if given.output:
        raise OptionError(f"-o writes no page for --task {table.task}: leave it out, or take --json")
    with joined(options.ray, tell), watching(tell) as watch:
        seen = placed.look(PLACED[table.task], table, options, watch, Clock(), maps=False)
    leaks = find_leaks(seen.duplicates, seen.table.splits)
    present, amount = seen.targets.strata.sum(axis=0), seen.targets.matrix().sum(axis=0)
    found: dict[str, Any] = {
        "images": len(seen.table),
        "set_aside": [{"path": name, "reason": reason} for name, reason in seen.features.set_aside],
        "notes": list(seen.table.notes),
        "classes": {
            name: {"images": int(n), "amount": round(float(much), 3)}
            for name, n, much in zip(seen.targets.names, present, amount, strict=True)
        },
        "duplicates": [_copies(seen.table, one.kind, one.rows) for one in seen.duplicates],
        "leaks": [_copies(seen.table, one.kind, one.rows) for one in leaks],
    }
    if given.json:
        say_json(found)
    for text in [] if given.json else _inspected(found, table.task):
        say(text)
    counts = {"leaks": len(leaks), "unreadable": len(seen.features.set_aside)}
    return dict.fromkeys(("conflicts", "shift", "shortcut"), 0) | counts


def _copies(table: Table, kind: str, rows: Sequence[int]) -> dict[str, Any]:
    return {
        "kind": kind,
        "paths": [str(table.names[row]) for row in rows],
        "splits": [str(table.splits[row]) for row in rows],
    }


def _inspected(found: dict[str, Any], task: str) -> list[str]:
    """The same for the terminal."""
    from headstart.cli.answers import entry

    what = "boxes" if task == "detect" else "of the images' pixels, in whole images"
    lines = [entry("images", f"{found['images']:,} can be read, {len(found['set_aside']):,} cannot")]
    lines += [f"  {one['path']}: {one['reason']}" for one in found["set_aside"][:MOST]]
    lines += [entry("classes", f"{len(found['classes']):,}")]
    lines += [
        f"  {name}: in {counted(one['images'], 'image')}, {one['amount']:,.6g} {what}"
        for name, one in found["classes"].items()
    ]
    lines.append(
        entry("duplicates", f"{counted(len(found['duplicates']), 'set')} of copies or nearly the same pictures")
    )
    lines.append(entry("leaks", f"{len(found['leaks']):,} of them in more than one of train, validation and test"))
    return lines + [f"  {one['kind']}: {' = '.join(one['paths'])}" for one in found["leaks"][:MOST]]


def evaluate(given: argparse.Namespace, bundle: Bundle, table: Table) -> None:
    """The score of a saved model on images with their truth."""
    from headstart.ship.placed import unpack
    from headstart.story.pipeline import judged_part
    from headstart.story.placed_judge import evaluate

    model, part = unpack(bundle), judged_part(table)
    tell_notes(table)
    with watching(tell) as watch:
        score, notes, unread = evaluate(model, table.take(table.splits == part) if part else table, watch)
    if part:
        tell(f"scored on the {part} part alone")
    for note in notes:
        tell(f"note: {note}")
    if given.json:
        say_json(score.to_json() | {"set_aside": [{"path": name, "reason": why} for name, why in unread]})
        return
    for line in score_lines(score):
        say(line)
    for name, why in unread:
        tell(f"set aside: {name}: {why}")


def score_lines(score: Score) -> list[str]:
    """Every estimate with its interval."""
    width = max(len(name) for name in score.estimates)
    return [
        f"{_named(name):<{width}}  {_told(name, found)}" + (f"  n = {score.n:,}" if k == 0 else "")
        for k, (name, found) in enumerate(score.estimates.items())
    ]


def predict(given: argparse.Namespace, bundle: Bundle, table: Table) -> None:
    """What a saved model says of images: records, masks as files, pictures with the answer drawn on them."""
    from headstart.ship.placed import predict, record, unpack
    from headstart.ship.placed_files import Drawer, write_records
    from headstart.ship.placed_tiles import predict_tiled

    if given.ray is not None:
        raise OptionError(f"--ray does not spread masks and boxes, which {given.model} answers with: leave it out")
    model = unpack(bundle)
    _check_outputs(given, model)
    tell_notes(table)
    drawer = Drawer(model, table, given.masks, given.explain)
    records: list[dict[str, Any]] = []
    failed: list[str] = []

    def done(said: Said) -> None:
        name = str(table.names[said.row])
        records.append(record(model, name, said) | drawer.draw(said))
        if said.error:
            failed.append(f"{name}: {said.error}")

    with watching(tell) as watch:
        bar = watch.bar("predict", len(table))
        if given.tiles:
            notes = predict_tiled(model, table, given.tiles, done, progress=bar)
        else:
            notes = predict(model, table, done, progress=bar)
    for note in notes:
        tell(f"note: {note}")
    _hand_over(given, model, records, len(failed), write_records)
    if len(failed) == len(table):
        none_were_read(len(table), failed[0])


def _check_outputs(given: argparse.Namespace, model: Placed) -> None:
    """Raises OptionError now for what such a model cannot be written as."""
    from headstart.files.output import check_here, names_folder

    if given.masks and model.task.mask is None:
        raise OptionError(f"--masks is of a model that segments, and {given.model} finds boxes: leave it out")
    if given.output:
        check_here(given.output)
    if given.output and (given.output.lower().endswith(".parquet") or names_folder(given.output)):
        raise OptionError(f"-o {given.output}: masks and boxes are written as .csv, .jsonl, .json or .coco.json")
    if given.output and given.output.endswith(".coco.json") and model.task.mask is not None:
        raise OptionError(f"-o {given.output} is of boxes, and {given.model} segments: take --masks FOLDER")


def _hand_over(
    given: argparse.Namespace, model: Placed, records: list[dict[str, Any]], failed: int, write: Any
) -> None:
    if given.output:
        write(model, records, Path(given.output))
        written = counted(len(records) - failed, "image")
        tell(f"{written} answered in {given.output}, {counted(failed, 'image')} could not be read")
    for option, folder in (("masks", given.masks), ("drawn pictures", given.explain)):
        if folder:
            tell(f"{option} written to {folder}")
    if given.json:
        say_json_list(records)
    elif not given.output:
        for one in records:
            say(f"{one['path']}: {one['error'] or model.task.told(one)}")
