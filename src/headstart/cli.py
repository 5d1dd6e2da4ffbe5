"""Arguments in, pipeline called, errors turned into one line and an exit code: 0, 1 (a failure it explains), 2 (usage)."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import __version__
from headstart.errors import DataError, HeadstartError, OptionError, OutputError

if TYPE_CHECKING:
    from headstart.pipeline import Options, Watcher


BACKBONE = "tf_efficientnet_lite0"  # equals trunk.backbone.DEFAULT, which would import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """The `headstart` command."""
    given = parser().parse_args(arguments)
    _quiet_libraries()
    try:
        COMMANDS[given.command](given)
        sys.stdout.flush()
    except HeadstartError as error:
        _tell(f"headstart: {error}")
        sys.exit(2 if isinstance(error, OptionError) else 1)
    except KeyboardInterrupt:
        _tell("headstart: interrupted; what was read so far is kept, the same command goes on from there")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except MemoryError:
        _tell("headstart: out of memory: try a smaller --size, or fewer images")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="headstart",
        description="A folder of labelled images in; an honest, deployable classifier out.",
        epilog="Begin with: headstart demo",
    )
    top.add_argument("--version", action="version", version=f"headstart {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    demo = command("demo", "train on images that ship with a dependency, offline, and say where the report is")
    demo.add_argument(
        "-o", "--output", default="headstart-demo", metavar="FOLDER", help="where to write (default: headstart-demo)"
    )
    demo.add_argument("--json", action="store_true", help="one JSON document on stdout")

    fit = command("fit", "train a classifier on labelled images, judge it, and save it with its report")
    fit.add_argument(
        "data",
        metavar="DATA",
        help="a folder with a folder per class, a CSV or Parquet manifest, or Parquet files of images",
    )
    fit.add_argument(
        "-o", "--output", default="model", metavar="MODEL", help="folder of the saved model (default: model)"
    )
    fit.add_argument(
        "--taps", default="auto", metavar="auto|last|all", help="layers that the head reads (default: auto)"
    )
    _network_options(fit)

    evaluate = command("evaluate", "score a saved model on labelled images")
    evaluate.add_argument("model", metavar="MODEL")
    evaluate.add_argument("data", metavar="DATA", help="as for fit; a test part is used alone where there is one")
    evaluate.add_argument("--json", action="store_true", help="one JSON document on stdout")

    predict = command("predict", "label images with a saved model")
    predict.add_argument("model", metavar="MODEL")
    predict.add_argument("images", nargs="+", metavar="IMAGES", help="files, or folders to walk")
    predict.add_argument(
        "-o", "--output", metavar="FILE", help="a .csv, .jsonl, .json or .parquet file instead of the terminal"
    )
    predict.add_argument("--top", type=int, default=3, metavar="K", help="best classes to list (default: 3)")
    predict.add_argument("--json", action="store_true", help="one JSON document on stdout")

    features = command("features", "write what the network says of each image as a table")
    features.add_argument("data", metavar="DATA", help="as for fit, or images without labels")
    features.add_argument("-o", "--output", required=True, metavar="FILE", help="a .parquet file")
    features.add_argument("--layer", metavar="NAME", help="one block only, such as pre_logits (default: all)")
    _network_options(features)

    inspect = command("inspect", "list broken files, duplicates, leaks and imbalance, before anything is trained")
    inspect.add_argument("data", metavar="DATA", help="as for fit")
    _network_options(inspect)

    report = command("report", "say what a saved model is and where its report lies")
    report.add_argument("model", metavar="MODEL")
    report.add_argument("--json", action="store_true", help="one JSON document on stdout")

    cache = command("cache", "show the size of the stored features, or clear them")
    cache.add_argument("--clear", action="store_true", help="delete the stored features")
    cache.add_argument("--cache", metavar="FOLDER", help="another place than HEADSTART_CACHE or the platform's cache")
    cache.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return top


def _network_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--backbone", default=BACKBONE, metavar="NAME", help=f"any timm network (default: {BACKBONE})")
    command.add_argument(
        "--weights",
        default="auto",
        metavar="auto|none|FILE",
        help="a .safetensors or .pth file, or none for random (default: auto)",
    )
    command.add_argument(
        "--size", type=int, metavar="PX", help="side of the network's input (default: from the images)"
    )
    command.add_argument("--precision", default="auto", metavar="auto|bf16|f32", help="of the network (default: auto)")
    command.add_argument(
        "--cache",
        metavar="FOLDER",
        help="where features are kept (default: HEADSTART_CACHE, else the platform's cache)",
    )
    command.add_argument("--seed", type=int, default=0, help="of every random draw (default: 0)")
    command.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _demo(given: argparse.Namespace) -> None:
    from headstart.demo import write_digits

    folder = Path(given.output)
    images = folder / "digits"
    _check_output(folder / "model")
    count = write_digits(images)
    _tell(f"{count} images of handwritten digits, one folder a class, written to {images}")
    given.data, given.output = str(images), str(folder / "model")
    given.taps, given.cache, given.seed = "auto", None, 0
    _fit_and_save(given, _options(given, demo=True))
    if not given.json:
        _say("\nFor your own images: put them in one folder per class, then\n  headstart fit YOUR-FOLDER -o model")


def _fit(given: argparse.Namespace) -> None:
    _fit_and_save(given, _options(given))


def _fit_and_save(given: argparse.Namespace, options: Options) -> None:
    folder = Path(given.output)
    _check_output(folder)
    from headstart.data.table import read_table

    table = read_table(given.data)
    _tell(table.layout)
    for note in table.notes:
        _tell(f"note: {note}")
    from headstart import pipeline, publish

    fitted = pipeline.fit(table, options, _watcher(given))
    command = shlex.join(["headstart", *_typed(given)])
    found = publish.save(fitted, folder, Path(given.data).resolve().name, command)
    if given.json:
        _print_json(found | {"model": str(folder)})
        return
    for line in publish.summary(fitted, found, folder):
        _say(line)


def _evaluate(given: argparse.Namespace) -> None:
    from headstart import pipeline
    from headstart.data.table import read_table

    model = pipeline.load(given.model)
    table = read_table(given.data, min_classes=1)
    tests = table.splits == "test"
    held = tests if tests.any() else table.splits == "validation"
    if held.any():
        table = table.take(held)
        _tell(f"the {'test' if tests.any() else 'validation'} part alone: {len(table)} images")
    scored, found = pipeline.evaluate(model, table, watch=_watcher(given))
    unread = [{"path": str(n), "reason": str(e)} for n, e in zip(found.names, found.errors, strict=True) if e]
    if given.json:
        _print_json(scored | {"set_aside": unread})
        return
    from headstart.publish import score_lines

    for line in score_lines(scored):
        _say(line)
    for record in unread:
        _tell(f"set aside: {record['path']}: {record['reason']}")


def _predict(given: argparse.Namespace) -> None:
    from headstart import pipeline
    from headstart.data.table import list_images
    from headstart.ship.predict import check_format, predict, records, write_predictions

    if given.top < 1:
        raise OptionError(f"--top {given.top} is not allowed: 1 or more")
    if given.output:
        check_format(Path(given.output))
    model = pipeline.load(given.model)
    table = list_images(given.images)
    found = records(predict(model, table, progress=_watcher(given).bar("predict", len(table))), given.top)
    failed = sum(record["error"] is not None for record in found)
    if given.output:
        write_predictions(found, Path(given.output), given.top)
        _tell(f"{len(found)} predictions written to {given.output}, {failed} of them unreadable images")
    if given.json:
        _print_json(found)
    elif not given.output:
        for record in found:
            best = ", ".join(f"{c['label']} {c['probability']:.1%}" for c in record["top"])
            _say(f"{record['path']}: {best or 'not readable: ' + record['error']}")
    if failed == len(found):
        raise DataError(f"none of {len(found)} images can be read; the first, {found[0]['path']}: {found[0]['error']}")


def _features(given: argparse.Namespace) -> None:
    from headstart import publish

    out = Path(given.output)
    if out.suffix.lower() != ".parquet":
        raise OptionError(f"features are written as Parquet: {out} must end in .parquet")
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist: make it first, or choose another -o")
    count, blocks, set_aside = publish.write_features(given.data, out, given.layer, _options(given), _watcher(given))
    if given.json:
        _print_json({"file": str(out), "images": count, "blocks": blocks, "set_aside": set_aside})
    else:
        _say(f"{count} images, {len(blocks)} blocks ({sum(blocks.values())} features) written to {out}")
    for record in set_aside:
        _tell(f"set aside: {record['path']}: {record['reason']}")


def _inspect(given: argparse.Namespace) -> None:
    from headstart import pipeline, publish
    from headstart.data.table import read_table

    table = read_table(given.data, min_classes=1)
    _tell(table.layout)
    found = publish.inspection(pipeline.inspect(table, _options(given), _watcher(given)))
    if given.json:
        _print_json(found)
        return
    for line in publish.inspection_lines(found):
        _say(line)


def _report(given: argparse.Namespace) -> None:
    from headstart.bundle import read_bundle
    from headstart.publish import model_lines

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
        store.clear(root)
    found = store.usage(root)
    if given.json:
        entries = [{"key": k, "made_by": m, "shards": s, "bytes": b} for k, m, s, b in found.entries]
        _print_json({"folder": str(root), "bytes": found.total_bytes, "entries": entries})
        return
    for _, made_by, shards, size in found.entries:
        _say(
            f"{size / 1e6:9.1f} MB  {shards:5d} shards  {made_by.get('backbone', 'unknown')}  {made_by.get('precision', '')}"
        )
    _say(f"{found.total_bytes / 1e6:9.1f} MB  in {root}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "demo": _demo,
    "fit": _fit,
    "evaluate": _evaluate,
    "predict": _predict,
    "features": _features,
    "inspect": _inspect,
    "report": _report,
    "cache": _cache,
}


def _options(given: argparse.Namespace, demo: bool = False) -> Options:
    from headstart.pipeline import Options

    if demo:
        return Options()
    own = {name: getattr(given, name) for name in ("backbone", "weights", "size", "precision", "cache", "seed")}
    return Options(taps=getattr(given, "taps", "auto"), **own)


def _typed(given: argparse.Namespace) -> list[str]:
    """The command as typed, with only what differs from the default."""
    words = [given.command if given.command != "demo" else "fit", given.data, "-o", given.output]
    usual = {
        "backbone": BACKBONE,
        "weights": "auto",
        "taps": "auto",
        "size": None,
        "precision": "auto",
        "cache": None,
        "seed": 0,
    }
    for name, default in usual.items():
        value = getattr(given, name, default)
        if value != default:
            words += [f"--{name}", str(value)]
    return words


def _check_output(folder: Path) -> None:
    from headstart.bundle import check_writable

    check_writable(folder)


def _watcher(given: argparse.Namespace) -> Watcher:
    """Progress bars on a terminal only."""
    from tqdm import tqdm

    from headstart.pipeline import Watcher

    def bar(stage: str, total: int) -> Callable[[int], None]:
        shown = tqdm(total=total, desc=stage, unit="img", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)

        def done(count: int) -> None:
            shown.update(count)
            if shown.n >= total:
                shown.close()

        return done

    return Watcher(_tell, bar)


def _quiet_libraries() -> None:
    """Keep other libraries' chatter off the user's terminal."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, format="headstart: %(message)s", stream=sys.stderr)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")


def _say(text: str) -> None:
    print(text.encode("utf-8", "replace").decode("utf-8"))


def _tell(text: str) -> None:
    print(text.encode("utf-8", "replace").decode("utf-8"), file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=True, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
