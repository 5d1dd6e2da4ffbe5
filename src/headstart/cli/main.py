"""Arguments in, pipeline called, errors turned into one line and an exit code.

0: done. 1: a failure that it explains. 2: wrong usage. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from headstart.cli.arguments import parser
from headstart.cli.console import ClosedOutputError, drop_output, flush, say, say_json, tell
from headstart.cli.elapsed import process_start
from headstart.cli.progress import quiet_libraries, shown_to_somebody, watching
from headstart.counted import counted
from headstart.errors import DataError, HeadstartError, OptionError, lacks_memory, reason_of

if TYPE_CHECKING:
    from headstart.data.table import Table
    from headstart.story.options import Options

_RESUMES = "no result was written; images that were read need not be read again by the same command"
INTERRUPTED = dict.fromkeys(("demo", "fit", "features", "inspect", "compare"), _RESUMES)


# Objects made before the next look for cycles: libraries make a million that stay (a start took 5.4 s of CPU, 4.0 so).
UNLOOKED = (50_000, 20, 50)


SMALLER = "take a smaller --size, or fewer images, or close other programs"
REMEDIES = dict.fromkeys(("fit", "features", "inspect", "compare", "classify"), SMALLER)


def main(arguments: Sequence[str] | None = None) -> None:
    """The `headstart` command."""
    begun = process_start() if arguments is None else time.perf_counter()
    gc.set_threshold(*UNLOOKED)
    quiet_libraries()
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    name = words[0]
    try:
        try:
            given = parser().parse_args(words)
            given.begun = begun
            COMMANDS[given.command](given)
        finally:
            flush()
    except HeadstartError as error:
        _fail(str(error), 2 if isinstance(error, OptionError) else 1)
    except KeyboardInterrupt:
        if shown_to_somebody():
            sys.stderr.write("\r\x1b[K")  # over the ^C that the terminal shows, and over a bar
        _fail(f"interrupted: {INTERRUPTED.get(name, 'nothing was written')}", 130)
    except BrokenPipeError:
        drop_output()
        sys.exit(141)
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ClosedOutputError):
            drop_output()
            _fail(
                f"the result cannot be written to the standard output ({reason_of(error)}): free some space, or send "
                "it elsewhere",
                1,
            )
        if not lacks_memory(error):
            raise
        _fail(f"out of memory ({reason_of(error)}): {REMEDIES.get(name, 'close other programs, or allow it more')}", 1)


def _fail(text: str, code: int) -> NoReturn:
    tell(f"headstart: {text}")
    sys.exit(code)


def _demo(given: argparse.Namespace) -> None:
    from headstart.data.demo import write_digits
    from headstart.data.table import read_table
    from headstart.files.bundle import check_writable
    from headstart.story.replacing import check_replaceable

    folder = Path(given.output)
    images = folder / "digits"
    check_writable(folder / "model")
    if not given.force:
        there = read_table(images) if images.is_dir() else None
        check_replaceable(folder / "model", there)
    count = write_digits(images)
    tell(f"{counted(count, 'image')} of handwritten digits, one folder a class, written to {images}")
    given.data, given.output, given.add_to, given.track = str(images), str(folder / "model"), None, ""
    given.group_by, given.task, given.label = None, "auto", None
    _fit_and_save(given)
    if not given.json:
        for line in ("", "For your own images, one folder per class:", "  headstart fit YOUR-FOLDER -o model"):
            say(line)


def _fit_and_save(given: argparse.Namespace) -> None:
    from headstart.story.options import set_otherwise, typed
    from headstart.story.track import open_trackers, read_words

    folder, options = Path(given.output), _options(given)
    if given.add_to and (other := set_otherwise(options)):
        raise OptionError(f"--{other} cannot be set with --add-to: it is the model's own")
    read_words(given.track)
    from headstart.files.bundle import check_writable, read_bundle
    from headstart.story.replacing import check_grows, check_replaceable

    if given.add_to:
        check_grows(read_bundle(given.add_to))
    check_writable(folder)
    table = _read(given, 1 if given.add_to else 2)
    if not given.force:
        check_replaceable(folder, table, given.add_to)
    from headstart.cli import answers
    from headstart.story import account, grow, pipeline, publish

    own = {name: value for name in ("add_to", "group_by", "label") if (value := getattr(given, name))}
    own |= {} if given.task == "auto" else {"task": given.task}
    command = shlex.join(typed(given.data, given.output, own, options, publish.handed_on))
    with open_trackers(given.track, tell) as tracker:
        tracker.settings(publish.public(vars(options)))
        started = time.perf_counter() - given.begun
        with watching(tell, tracker) as watch:
            old = given.add_to
            fitted = grow.add_to(old, table, options, watch) if old else pipeline.fit(table, options, watch)
        fitted = pipeline.timed(fitted, started, time.perf_counter() - given.begun)
        found = publish.save(fitted, folder, Path(given.data).resolve().name, command)
        tracker.result(publish.main_scores(fitted), [folder / "report.html", folder / "metrics.json"])
    if given.json:
        say_json(found | {"model": str(folder)})
        return
    for line in answers.summary(fitted, folder, time.perf_counter() - given.begun):
        say(line)
    for said in (*account.outcomes(fitted), account.no_gain_line(fitted)):
        if said:
            say(said)


def _evaluate(given: argparse.Namespace) -> None:
    from headstart.files.bundle import read_bundle

    bundle = read_bundle(given.model)
    table = _read(given, 1, str(bundle.manifest.get("task", "classify")))
    from headstart.cli.answers import score_lines
    from headstart.ship.package import unpack
    from headstart.story import pipeline

    model = unpack(bundle)
    del bundle  # and with it a second copy of the weights
    part = pipeline.judged_part(table)
    _tell_notes(table)
    with watching(tell) as watch:
        scored, found = pipeline.evaluate(model, table, watch=watch)
    if part:
        tell(f"scored on the {part} part alone")
    for note in found.notes:
        tell(f"note: {note}")
    unread = [{"path": str(n), "reason": str(e)} for n, e in zip(found.names, found.errors, strict=True) if e]
    if given.json:
        say_json(scored.to_json() | {"set_aside": unread})
        return
    for line in score_lines(scored):
        say(line)
    for record in unread:
        tell(f"set aside: {record['path']}: {record['reason']}")


def _predict(given: argparse.Namespace) -> None:
    from headstart.files.output import PREDICTIONS, check_output
    from headstart.story.options import check_top

    check_top(given.top)
    if given.output:
        check_output(Path(given.output), PREDICTIONS)
    from headstart.data.table import list_images
    from headstart.data.to_label import named

    table = list_images(named(given.images, sys.stdin))
    from headstart.ship.predict import predict, records, write_predictions
    from headstart.story import pipeline

    model = pipeline.load(given.model)
    _tell_notes(table)
    with watching(tell) as watch:
        answer = predict(model, table, progress=watch.bar("predict", len(table)))
        found = records(model, answer, given.top)
    for note in answer.notes:
        tell(f"note: {note}")
    failed = sum(record["error"] is not None for record in found)
    if given.output:
        write_predictions(found, Path(given.output), min(given.top, len(model.names)))
        written, unread = counted(len(found) - failed, "prediction"), counted(failed, "image")
        tell(f"{written} written to {given.output}, {unread} could not be read")
    if given.json:
        say_json(found)
    elif not given.output:
        from headstart.cli.answers import record_line

        for record in found:
            say(record_line(record))
    _some_were_read(found)


def _tell_notes(table: Table) -> None:
    """What was found otherwise than written, or passed over."""
    for note in table.notes:
        tell(f"note: {note}")


def _classify(given: argparse.Namespace) -> None:
    from headstart.files.output import ANSWERS, check_output
    from headstart.story.options import check_top

    options = _options(given)
    check_top(given.top)
    if given.output:
        check_output(Path(given.output), ANSWERS)
    from headstart.data.table import list_images
    from headstart.data.to_label import named

    table = list_images(named(given.images, sys.stdin))
    from headstart.ship.classify import classify, write_answers
    from headstart.story import opening

    backbone = opening.as_published(options, tell)
    _tell_notes(table)
    with watching(tell) as watch:
        found = classify(table, backbone, given.top, given.precision, watch.bar("classify", len(table)))
    if given.output:
        write_answers(found, Path(given.output), given.top)
        tell(f"the answers for {counted(len(found), 'image')} written to {given.output}")
    if given.json:
        say_json(found)
    for record in [] if given.json or given.output else found:
        say(f"{record['path']}: {'cannot be read: ' + record['error'] if record['error'] else ''}")
        for best in record["predictions"]:
            say(f"  {best['wnid']}  {best['probability']:6.1%}  {best['name']}")
    _some_were_read(found)


def _some_were_read(found: Sequence[Mapping[str, Any]]) -> None:
    """Raises DataError where no image could be read."""
    if all(record["error"] for record in found):
        what = f"none of {counted(len(found), 'image')} can be read"
        raise DataError(f"{what}; the first, {found[0]['path']}: {found[0]['error']}")


def _features(given: argparse.Namespace) -> None:
    from headstart.files.output import FEATURES, check_output
    from headstart.story.options import check_pooling, check_random

    out, options = Path(given.output), _options(given, layer=None)
    check_pooling(given.pool, given.layer)
    check_random(options, "features")
    check_output(out, FEATURES)
    table = _any_images(given)
    from headstart.story.feature_file import write_features

    with watching(tell) as watch:
        count, blocks, set_aside = write_features(table, out, given.layer, given.pool, options, watch)
    if given.json:
        say_json({"file": str(out), "images": count, "blocks": blocks, "set_aside": set_aside})
    else:
        what = f"{counted(count, 'image')}, {counted(len(blocks), 'block')}"
        say(f"{what} ({counted(sum(blocks.values()), 'feature')}) written to {out}")
    for record in set_aside:
        tell(f"set aside: {record['path']}: {record['reason']}")


def _backbones(given: argparse.Namespace) -> None:
    from headstart.files.output import check_output
    from headstart.trunk.catalog import check_column

    doing = next((n for n in ("download", "export_weights", "import_weights") if getattr(given, n)), None)
    if doing and (given.search is not None or given.sort is not None):
        other = "search" if given.search is not None else "sort"
        raise OptionError(
            f"--{other} is of the list, and --{doing.replace('_', '-')} shows none: leave one of them out"
        )
    check_column(given.sort)
    if given.export_weights:
        check_output(Path(given.export_weights[1]), (".safetensors",))
    from headstart.story import backbones

    answer: Any
    if given.download:
        answer = backbones.download(given.download, tell)
    elif given.export_weights:
        answer = backbones.export_weights(*given.export_weights)
    elif given.import_weights:
        answer = backbones.import_weights(given.import_weights)
    else:
        answer = backbones.listing(given.search, given.sort)
    if given.json:
        say_json(answer)
        return
    for line in (
        backbones.lines(answer, given.sort) if isinstance(answer, list) else [f"{answer['network']}: {answer['path']}"]
    ):
        say(line)


def _inspect(given: argparse.Namespace) -> None:
    from headstart.story.options import check_random

    options = _options(given)
    check_random(options, "inspect")
    table = _read(given, 1)
    from headstart.cli import answers
    from headstart.story import pipeline

    with watching(tell) as watch:
        found = answers.inspection(pipeline.inspect(table, options, watch))
    if given.json:
        say_json(found)
        return
    for line in answers.inspection_lines(found):
        say(line)


def _compare(given: argparse.Namespace) -> None:
    options = _options(given, tune="all")
    if given.curve and given.freeze_depth:
        raise OptionError("--curve is of the comparison, and --freeze-depth makes another: leave one of them out")
    options = replace(options, tune="none")
    table = _read(given)
    from headstart.story import compare
    from headstart.story import freeze_depth as depth

    with watching(tell) as watch:
        if given.freeze_depth:
            curve = depth.freeze_depth(table, options, watch)
            lines, record = depth.lines(curve), curve.to_json()
        else:
            found = compare.compare(table, options, watch, given.curve)
            lines, record = compare.lines(found), found.to_json()
    if given.json:
        say_json(record)
        return
    for line in lines:
        say(line)


def _report(given: argparse.Namespace) -> None:
    from headstart.cli.answers import model_lines
    from headstart.files.bundle import read_bundle

    bundle = read_bundle(given.model)
    page = bundle.folder / "report.html"
    if given.json:
        say_json(bundle.metrics | {"model": str(bundle.folder), "report": str(page) if page.exists() else None})
        return
    for line in model_lines(bundle):
        say(line)


def _cache(given: argparse.Namespace) -> None:
    from headstart.cli.answers import cache_lines
    from headstart.trunk import shelf, store

    root = store.cache_root(given.cache)
    if given.clear:
        freed = store.usage(root).total_bytes + shelf.kept_bytes(root)
        store.clear(root)
        shelf.clear(root)
        tell(f"{freed / 1e6:.1f} MB of stored features and compiled networks deleted")
    found, networks = store.usage(root), shelf.kept_bytes(root)
    if given.json:
        entries = [dict(zip(("key", "made_by", "shards", "bytes"), entry, strict=True)) for entry in found.entries]
        total = found.total_bytes + networks
        say_json({"folder": str(root), "bytes": total, "networks": networks, "entries": entries})
        return
    for line in cache_lines(root, found, networks):
        say(line)


def _enrol(given: argparse.Namespace) -> None:
    from headstart.cli import people

    people.enrol(given)


def _verify(given: argparse.Namespace) -> None:
    from headstart.cli import people

    people.verify(given)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "demo": _demo,
    "fit": _fit_and_save,
    "evaluate": _evaluate,
    "predict": _predict,
    "enrol": _enrol,
    "verify": _verify,
    "classify": _classify,
    "backbones": _backbones,
    "features": _features,
    "inspect": _inspect,
    "compare": _compare,
    "report": _report,
    "cache": _cache,
}


def _options(given: argparse.Namespace, **as_if: Any) -> Options:
    """The options that a command has, checked; the defaults for those that it lacks, or what it does as if given."""
    from headstart.story.options import Options, check

    found = Options(**{name: getattr(given, name) for name in vars(Options()) if hasattr(given, name)} | as_if)
    check(found)
    return found


def _read(given: argparse.Namespace, min_classes: int = 2, task: str | None = None) -> Table:
    """The table of a data set, which is announced before the libraries are loaded that take seconds. `task`: of a saved
    model."""
    from headstart.data.table import read_table

    asked = task or getattr(given, "task", "auto")
    known = {name: getattr(given, name, None) for name in ("group_by", "label")}
    table = read_table(given.data, min_classes=min_classes, task=asked, **known)
    tell(table.layout)
    return table


def _any_images(given: argparse.Namespace) -> Table:
    """A labelled set; or the images of a folder without classes, or one image."""
    from headstart.data.table import list_images

    data, place = given.data, Path(given.data)
    if place.is_file() and place.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        return list_images([data])
    try:
        return _read(given, min_classes=1)
    except DataError:
        if not place.is_dir():
            raise
        return list_images([data])


if __name__ == "__main__":
    main()
