"""Arguments in, pipeline called, errors turned into one line and an exit code.

0: done. 1: a failure that it explains. 2: wrong usage. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.arguments import parser
from headstart.errors import DataError, HeadstartError, OptionError
from headstart.files.cells import printable

if TYPE_CHECKING:
    from headstart.learn.trained import Epoch
    from headstart.opening import Options, Watcher
    from headstart.track import Tracker

_RESUMES = "no result was written; images that were read need not be read again by the same command"
INTERRUPTED = dict.fromkeys(("demo", "fit", "features", "inspect", "compare"), _RESUMES)


# Objects made before the next look for cycles. Libraries make a million that stay, and looking through them again and
# again was a fifth of the time that a start takes (5.4 s of CPU, 4.0 without).
UNLOOKED = (50_000, 20, 50)


def main(arguments: Sequence[str] | None = None) -> None:
    """The `headstart` command."""
    gc.set_threshold(*UNLOOKED)
    _quiet_libraries()
    given = parser().parse_args(arguments)
    try:
        COMMANDS[given.command](given)
        sys.stdout.flush()
    except HeadstartError as error:
        _tell(f"headstart: {error}")
        sys.exit(2 if isinstance(error, OptionError) else 1)
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")  # over the ^C that the terminal shows, and over a bar
        _tell(f"headstart: interrupted: {INTERRUPTED.get(given.command, 'nothing was written')}")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except MemoryError:
        _tell("headstart: out of memory: try a smaller --size, or fewer images")
        sys.exit(1)


def _demo(given: argparse.Namespace) -> None:
    from headstart.bundle import check_writable
    from headstart.demo import write_digits

    folder = Path(given.output)
    images = folder / "digits"
    check_writable(folder / "model")
    count = write_digits(images)
    _tell(f"{count} images of handwritten digits, one folder a class, written to {images}")
    given.data, given.output, given.add_to, given.track = str(images), str(folder / "model"), None, ""
    _fit_and_save(given)
    if not given.json:
        for line in ("", "For your own images, one folder per class:", "  headstart fit YOUR-FOLDER -o model"):
            _say(line)


def _fit_and_save(given: argparse.Namespace) -> None:
    from headstart.bundle import check_writable
    from headstart.data.table import read_table

    folder = Path(given.output)
    check_writable(folder)
    table = read_table(given.data, min_classes=1 if given.add_to else 2)
    from headstart import (  # after the cheap checks: they take seconds to import
        account,
        answers,
        grow,
        pipeline,
        publish,
    )
    from headstart.track import open_trackers

    options = _options(given)
    if given.add_to and (other := _set_otherwise(options)):
        raise OptionError(f"--{other} cannot be set with --add-to: it is the model's own")
    command = shlex.join(["headstart", *_typed(given)])
    with open_trackers(given.track, _tell) as tracker:
        tracker.settings(publish.public(vars(options)))
        with _watcher(tracker) as watch:
            fitted = (
                grow.add_to(given.add_to, table, options, watch)
                if given.add_to
                else pipeline.fit(table, options, watch)
            )
        found = publish.save(fitted, folder, Path(given.data).resolve().name, command)
        tracker.result(publish.main_scores(fitted), [folder / "report.html", folder / "metrics.json"])
    if given.json:
        _print_json(found | {"model": str(folder)})
        return
    for line in answers.summary(fitted, folder):
        _say(line)
    for said in (*account.outcomes(fitted), account.no_gain_line(fitted)):
        if said:
            _say(said)


def _evaluate(given: argparse.Namespace) -> None:
    from headstart.data.table import read_table

    table = read_table(given.data, min_classes=1)
    from headstart import pipeline

    model = pipeline.load(given.model)
    part = pipeline.judged_part(table)
    with _watcher() as watch:
        scored, found = pipeline.evaluate(model, table, watch=watch)
    if part:
        _tell(f"scored on the {part} part alone")
    for note in found.notes:
        _tell(f"note: {note}")
    unread = [{"path": str(n), "reason": str(e)} for n, e in zip(found.names, found.errors, strict=True) if e]
    if given.json:
        _print_json(scored | {"set_aside": unread})
        return
    from headstart.answers import score_lines

    for line in score_lines(scored):
        _say(line)
    for record in unread:
        _tell(f"set aside: {record['path']}: {record['reason']}")


def _predict(given: argparse.Namespace) -> None:
    from headstart.data.table import list_images

    if given.top < 1:
        raise OptionError(f"--top {given.top} is not allowed: 1 or more")
    table = list_images(given.images)
    from headstart import pipeline
    from headstart.ship.predict import FORMATS, check_output, predict, records, write_predictions

    if given.output:
        check_output(Path(given.output), FORMATS)
    model = pipeline.load(given.model)
    with _watcher() as watch:
        answer = predict(model, table, progress=watch.bar("predict", len(table)))
        found = records(answer, given.top)
    for note in answer.notes:
        _tell(f"note: {note}")
    failed = sum(record["error"] is not None for record in found)
    if given.output:
        write_predictions(found, Path(given.output), min(given.top, len(model.classes)))
        _tell(f"{len(found) - failed} predictions written to {given.output}, {failed} images could not be read")
    if given.json:
        _print_json(found)
    elif not given.output:
        for record in found:
            best = ", ".join(f"{c['label']} {c['probability']:.1%}" for c in record["top"])
            _say(f"{record['path']}: {best or 'cannot be read: ' + record['error']}")
    if failed == len(found):
        raise DataError(f"none of {len(found)} images can be read; the first, {found[0]['path']}: {found[0]['error']}")


def _classify(given: argparse.Namespace) -> None:
    from headstart.data.table import list_images

    if given.top < 1:
        raise OptionError(f"--top {given.top} is not allowed: 1 or more")
    table = list_images(given.images)
    from headstart import opening
    from headstart.ship.classify import classify

    backbone = opening.as_published(_options(given), _tell)
    with _watcher() as watch:
        found = classify(table, backbone, given.top, given.precision, watch.bar("classify", len(table)))
    if given.json:
        _print_json(found)
    for record in [] if given.json else found:
        _say(f"{record['path']}: {'cannot be read: ' + record['error'] if record['error'] else ''}")
        for best in record["predictions"]:
            _say(f"  {best['wnid']}  {best['probability']:6.1%}  {best['name']}")
    if all(record["error"] for record in found):
        raise DataError(f"none of {len(found)} images can be read; the first, {found[0]['path']}: {found[0]['error']}")


def _features(given: argparse.Namespace) -> None:
    from headstart.feature_file import write_features
    from headstart.ship.predict import check_output

    out = Path(given.output)
    check_output(out, (".parquet",))
    with _watcher() as watch:
        count, blocks, set_aside = write_features(given.data, out, given.layer, given.pool, _options(given), watch)
    if given.json:
        _print_json({"file": str(out), "images": count, "blocks": blocks, "set_aside": set_aside})
    else:
        _say(f"{count} images, {len(blocks)} blocks ({sum(blocks.values())} features) written to {out}")
    for record in set_aside:
        _tell(f"set aside: {record['path']}: {record['reason']}")


def _backbones(given: argparse.Namespace) -> None:
    from headstart import networks

    answer: Any
    if given.download:
        answer = networks.download(given.download, _tell)
    elif given.export_weights:
        answer = networks.export_weights(*given.export_weights)
    elif given.import_weights:
        answer = networks.import_weights(given.import_weights)
    else:
        answer = networks.listing(given.search, given.sort)
    if given.json:
        _print_json(answer)
        return
    for line in networks.lines(answer) if isinstance(answer, list) else [f"{answer['network']}: {answer['path']}"]:
        _say(line)


def _inspect(given: argparse.Namespace) -> None:
    from headstart.data.table import read_table

    table = read_table(given.data, min_classes=1)
    from headstart import answers, pipeline

    with _watcher() as watch:
        found = answers.inspection(pipeline.inspect(table, _options(given), watch))
    if given.json:
        _print_json(found)
        return
    for line in answers.inspection_lines(found):
        _say(line)


def _compare(given: argparse.Namespace) -> None:
    from headstart.data.table import read_table

    table = read_table(given.data)
    from headstart import compare, depth

    with _watcher() as watch:
        if given.freeze_depth:
            curve = depth.freeze_depth(table, _options(given), watch)
            lines, record = depth.lines(curve), curve.to_json()
        else:
            found = compare.compare(table, _options(given), watch, given.curve)
            lines, record = compare.lines(found), found.to_json()
    if given.json:
        _print_json(record)
        return
    for line in lines:
        _say(line)


def _report(given: argparse.Namespace) -> None:
    from headstart.answers import model_lines
    from headstart.bundle import read_bundle

    bundle = read_bundle(given.model)
    page = bundle.folder / "report.html"
    if given.json:
        _print_json(bundle.metrics | {"model": str(bundle.folder), "report": str(page) if page.exists() else None})
        return
    for line in model_lines(bundle):
        _say(line)


def _cache(given: argparse.Namespace) -> None:
    from headstart.trunk import store

    root = store.cache_root(given.cache)
    if given.clear:
        freed = store.usage(root).total_bytes
        store.clear(root)
        _tell(f"{freed / 1e6:.1f} MB of stored features deleted")
    found = store.usage(root)
    if given.json:
        entries = [{"key": k, "made_by": m, "shards": s, "bytes": b} for k, m, s, b in found.entries]
        _print_json({"folder": str(root), "bytes": found.total_bytes, "entries": entries})
        return
    for _, made_by, shards, size in found.entries:
        side = made_by.get("preprocess", {}).get("size", ["?"])[0]
        what = f"{made_by.get('backbone', 'unknown')}, {side} px, {made_by.get('precision', '?')}"
        _say(f"{size / 1e6:9.1f} MB  {what}, {shards} shard{'s' if shards != 1 else ''}")
    _say(f"{found.total_bytes / 1e6:9.1f} MB  in {root}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "demo": _demo,
    "fit": _fit_and_save,
    "evaluate": _evaluate,
    "predict": _predict,
    "classify": _classify,
    "backbones": _backbones,
    "features": _features,
    "inspect": _inspect,
    "compare": _compare,
    "report": _report,
    "cache": _cache,
}


def _options(given: argparse.Namespace) -> Options:
    """The options that a command has; the defaults for those that it lacks."""
    from headstart.opening import Options

    return Options(**{name: getattr(given, name) for name in vars(Options()) if hasattr(given, name)})


def _set_otherwise(options: Options) -> str | None:
    """The first option that is not at its default, of those that decide what a model is."""
    default = vars(type(options)())
    free = ("cache", "seed")
    return next((n.replace("_", "-") for n, v in vars(options).items() if v != default[n] and n not in free), None)


def _typed(given: argparse.Namespace) -> list[str]:
    """The command that makes the same model, with only what differs from the default.

    It is published with the model, so it names no private place.
    """
    from headstart.opening import Options
    from headstart.publish import handed_on

    words = ["fit", handed_on(given.data), "-o", handed_on(given.output)]
    words += ["--add-to", handed_on(given.add_to)] if given.add_to else []
    for name, default in vars(Options()).items():
        value = getattr(given, name, default)
        if value != default and name != "cache":
            words += [f"--{name.replace('_', '-')}", handed_on(str(value))]
    return words


@contextmanager
def _watcher(tracker: Tracker | None = None) -> Iterator[Watcher]:
    """Progress bars on a terminal only; none is left there at the end."""
    from tqdm import tqdm

    from headstart.opening import Watcher

    bars: list[Any] = []

    def bar(stage: str, total: int) -> Callable[[int], None]:
        unit = "fold" if stage == "judge" else "img"
        shown = tqdm(total=total, desc=stage, unit=unit, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)
        bars.append(shown)

        def done(count: int) -> None:
            shown.update(count)
            if shown.n >= total:
                shown.close()

        return done

    try:
        yield Watcher(_tell, bar, lambda total, n: _epoch_table(tracker, total, n))
    finally:
        for shown in bars:
            shown.close()


def _epoch_table(tracker: Tracker | None, total: int, n: int) -> Callable[[Epoch], None]:
    """A line for each epoch: losses, held-out accuracy with its 95 % interval, the pace, and the time left if all
    epochs are needed."""
    names, widths = ("epoch", "loss", "held-out", "accuracy", "rate", "images/s", "left, s"), (7, 7, 8, 20, 8, 8, 8)
    last, done = [time.perf_counter()], [0]

    def line(epoch: Epoch) -> None:
        now = time.perf_counter()
        seconds, last[0], done[0] = now - last[0], now, done[0] + 1
        if done[0] == 1:
            _tell(" ".join(f"{name:>{width}s}" for name, width in zip(names, widths, strict=True)))
        held, accuracy, pace = epoch.held_out_loss, epoch.held_out_accuracy, n / seconds
        cells = (
            f"{done[0]}/{total}",
            f"{epoch.loss:.3f}",
            "" if held is None else f"{held:.3f}",
            "" if accuracy is None else f"{accuracy:.1%}{_between(epoch.held_out_low, epoch.held_out_high)}",
            f"{epoch.rate:.1e}",
            f"{pace:.0f}",
            f"{seconds * (total - done[0]):.0f}",
        )
        _tell(" ".join(f"{cell:>{width}s}" for cell, width in zip(cells, widths, strict=True)))
        if tracker:
            values = {"loss": epoch.loss, "learning_rate": epoch.rate, "images_per_second": pace}
            known = {"held_out_loss": held, "held_out_accuracy": accuracy}
            tracker.epoch(done[0], values | {name: value for name, value in known.items() if value is not None})

    return line


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"


def _quiet_libraries() -> None:
    """Keep other libraries' chatter off the user's terminal."""
    import logging
    import warnings

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name is no reason to fail
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, format="headstart: %(message)s", stream=sys.stderr)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")


def _say(line: str) -> None:
    """One line of the result."""
    print(printable(line))


def _tell(line: str) -> None:
    """One line beside the result."""
    print(printable(line), file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=True, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
