"""Arguments in, pipeline called, errors turned into one line and an exit code.

0: done. 1: a failure that it explains. 2: wrong usage. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from headstart import __version__
from headstart.errors import DataError, HeadstartError, OptionError

if TYPE_CHECKING:
    from headstart.pipeline import Options, Watcher

BACKBONE = "tf_efficientnet_lite0"  # equals trunk.backbone.DEFAULT, which would import torch
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # file names may hold line breaks and orders to the terminal
_RESUMES = "no result was written; images that were read need not be read again by the same command"
INTERRUPTED = dict.fromkeys(("demo", "fit", "features", "inspect"), _RESUMES)


def main(arguments: Sequence[str] | None = None) -> None:
    """The `headstart` command."""
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


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        _tell(f"{self.prog}: {message} (see {self.prog} --help)")
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="headstart",
        description="A folder of labelled images in; an honest, deployable classifier out.",
        epilog="Begin with: headstart demo. Each command has its own --help.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"headstart {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)

    demo = command("demo", "train on images that ship with a dependency, offline, and say where the report is")
    demo.add_argument(
        "-o", "--output", default="headstart-demo", metavar="FOLDER", help="where to write (default: %(default)s)"
    )
    demo.add_argument("--json", action="store_true", help="one JSON document on stdout")

    fit = command("fit", "train a classifier on labelled images, judge it, and save it with its report")
    fit.add_argument(
        "data",
        metavar="DATA",
        help="a folder with a folder per class, a CSV or Parquet manifest, or Parquet files of images",
    )
    fit.add_argument(
        "-o", "--output", default="model", metavar="MODEL", help="folder of the saved model (default: %(default)s)"
    )
    fit.add_argument(
        "--taps", default="auto", metavar="auto|last|all", help="layers that the head reads (default: auto)"
    )
    _network_options(fit)

    evaluate = command("evaluate", "score a saved model on labelled images")
    evaluate.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    evaluate.add_argument("data", metavar="DATA", help="as for fit; a test part is used alone where there is one")
    evaluate.add_argument("--json", action="store_true", help="one JSON document on stdout")

    predict = command("predict", "label images with a saved model")
    predict.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    predict.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders to search")
    predict.add_argument(
        "-o", "--output", metavar="FILE", help="a .csv, .jsonl, .json or .parquet file instead of the terminal"
    )
    predict.add_argument("--top", type=int, default=3, metavar="K", help="best classes to list (default: 3)")
    predict.add_argument("--json", action="store_true", help="one JSON document on stdout")

    _add_looking_commands(command)
    return top


def _add_looking_commands(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands that look at data, models and the cache, and train nothing."""
    features = command("features", "write what the network says of each image as a table")
    features.add_argument("data", metavar="DATA", help="as for fit, or images without labels")
    features.add_argument("-o", "--output", required=True, metavar="FILE", help="a .parquet file")
    features.add_argument("--layer", metavar="NAME", help="one block only, such as pre_logits (default: all)")
    _network_options(features)

    inspect = command("inspect", "list broken files, duplicates, leaks and imbalance, before anything is trained")
    inspect.add_argument("data", metavar="DATA", help="as for fit")
    _network_options(inspect)

    report = command("report", "say what a saved model is and where its report lies")
    report.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    report.add_argument("--json", action="store_true", help="one JSON document on stdout")

    cache = command("cache", "show the size of the stored features, or clear them")
    cache.add_argument("--clear", action="store_true", help="delete the stored features")
    cache.add_argument("--cache", metavar="FOLDER", help="another place than HEADSTART_CACHE or the platform's cache")
    cache.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _network_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--backbone", default=BACKBONE, metavar="NAME", help=f"any timm network (default: {BACKBONE})")
    command.add_argument(
        "--weights",
        default="auto",
        metavar="auto|none|FILE",
        help="a .safetensors or .pth file, or none for random (default: auto)",
    )
    command.add_argument(
        "--size", type=int, metavar="PX", help="side of the network's input in pixels (default: from the images)"
    )
    command.add_argument(
        "--precision", default="auto", metavar="auto|bf16|f32", help="numbers that the network runs in (default: auto)"
    )
    command.add_argument(
        "--cache",
        metavar="FOLDER",
        help="where features are kept (default: HEADSTART_CACHE, else the platform's cache)",
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of every random draw (default: 0)")
    command.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _demo(given: argparse.Namespace) -> None:
    from headstart.bundle import check_writable
    from headstart.demo import write_digits

    folder = Path(given.output)
    images = folder / "digits"
    check_writable(folder / "model")
    count = write_digits(images)
    _tell(f"{count} images of handwritten digits, one folder a class, written to {images}")
    given.data, given.output = str(images), str(folder / "model")
    _fit_and_save(given)
    if not given.json:
        for line in ("", "For your own images, one folder per class:", "  headstart fit YOUR-FOLDER -o model"):
            _say(line)


def _fit_and_save(given: argparse.Namespace) -> None:
    from headstart.bundle import check_writable
    from headstart.data.table import read_table

    folder = Path(given.output)
    check_writable(folder)
    table = read_table(given.data)
    from headstart import answers, pipeline, publish  # after the cheap checks: they take seconds to import

    with _watcher() as watch:
        fitted = pipeline.fit(table, _options(given), watch)
    command = shlex.join(["headstart", *_typed(given)])
    found = publish.save(fitted, folder, Path(given.data).resolve().name, command)
    if given.json:
        _print_json(found | {"model": str(folder)})
        return
    for line in answers.summary(fitted, folder):
        _say(line)


def _evaluate(given: argparse.Namespace) -> None:
    from headstart.data.table import read_table

    table = read_table(given.data, min_classes=1)
    from headstart import pipeline

    model = pipeline.load(given.model)
    part = next((split for split in ("test", "validation") if (table.splits == split).any()), None)
    if part:
        table = table.take(table.splits == part)
    with _watcher() as watch:
        scored, found = pipeline.evaluate(model, table, watch=watch)
    if part:
        _tell(f"scored on the {part} part alone")
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
        found = records(predict(model, table, progress=watch.bar("predict", len(table))), given.top)
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


def _features(given: argparse.Namespace) -> None:
    from headstart import publish
    from headstart.ship.predict import check_output

    out = Path(given.output)
    check_output(out, (".parquet",))
    with _watcher() as watch:
        count, blocks, set_aside = publish.write_features(given.data, out, given.layer, _options(given), watch)
    if given.json:
        _print_json({"file": str(out), "images": count, "blocks": blocks, "set_aside": set_aside})
    else:
        _say(f"{count} images, {len(blocks)} blocks ({sum(blocks.values())} features) written to {out}")
    for record in set_aside:
        _tell(f"set aside: {record['path']}: {record['reason']}")


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
    "features": _features,
    "inspect": _inspect,
    "report": _report,
    "cache": _cache,
}


def _options(given: argparse.Namespace) -> Options:
    """The options that a command has; the defaults for those that it lacks."""
    from headstart.pipeline import Options

    return Options(**{name: getattr(given, name) for name in vars(Options()) if hasattr(given, name)})


def _typed(given: argparse.Namespace) -> list[str]:
    """The command that makes the same model, with only what differs from the default."""
    from headstart.pipeline import Options

    words = ["fit", given.data, "-o", given.output]
    for name, default in vars(Options()).items():
        value = getattr(given, name, default)
        if value != default:
            words += [f"--{name}", str(value)]
    return words


@contextmanager
def _watcher() -> Iterator[Watcher]:
    """Progress bars on a terminal only; none is left there at the end."""
    from tqdm import tqdm

    from headstart.pipeline import Watcher

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
        yield Watcher(_tell, bar)
    finally:
        for shown in bars:
            shown.close()


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
    print(CONTROL.sub(_escape, line))


def _tell(line: str) -> None:
    """One line beside the result."""
    print(CONTROL.sub(_escape, line), file=sys.stderr)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=True, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
