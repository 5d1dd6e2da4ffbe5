"""`headstart export`: a saved model as a file for another runtime."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from headstart.cli.console import say, say_json, tell
from headstart.cli.progress import watching
from headstart.errors import OptionError


def export_arguments(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The options of `headstart export`."""
    export = command("export", "write a saved model as a file for another runtime, checked there against predict")
    export.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    export.add_argument("--to", required=True, metavar="FORMAT", help="onnx, openvino, litert or torch")
    export.add_argument(
        "-o", "--output", metavar="FOLDER", help="where to write (default: MODEL-FORMAT, beside the model)"
    )
    export.add_argument(
        "--data", metavar="DATA", help="images to check it on (default: those that the fit held out, where they are)"
    )
    export.add_argument(
        "--any-size", action="store_true", help="take pictures of any size, and resize them in the graph"
    )
    export.add_argument(
        "--int8", action="store_true", help="in 8-bit integers, a third of the size, where that loses little enough"
    )
    export.add_argument(
        "--max-drop",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="what int8 may lose of the accuracy (default: %(default)s)",
    )
    export.add_argument("--force", action="store_true", help="replace the export of another model")
    export.add_argument("--json", action="store_true", help="one JSON document on stdout")


def export(given: argparse.Namespace) -> None:
    from headstart.export.formats import format_of

    format_of(given.to)
    if not 0 <= given.max_drop <= 100:
        raise OptionError(f"--max-drop {given.max_drop:g}: points of the accuracy, from 0 to 100")
    from headstart.files.bundle import read_bundle
    from headstart.story.export import Asked
    from headstart.story.export import export as story
    from headstart.story.export_placed import export_placed
    from headstart.tasks.known import PLACED

    asked = Asked(given.to, given.output, given.data, given.any_size, given.force, given.int8, given.max_drop)
    bundle = read_bundle(given.model)
    with watching(tell) as watch:
        if bundle.manifest.get("task") in PLACED:
            found = export_placed(bundle, asked, watch)
        else:
            found = story(given.model, asked, watch)
    for note in found.notes:
        tell(f"note: {note}")
    if given.json:
        say_json(found.record | {"folder": str(found.folder)})
        return
    for line in lines(found.record):
        say(line)
    say(f"{'written':<14}{found.folder}: {found.record['file']} and predict.py")


def lines(record: dict[str, Any]) -> list[str]:
    """What the terminal says of an export."""
    from headstart.cli.answers import NAMES

    unit = record.get("of")
    told = [
        ("format", f"{record['format']}, {record['bytes'] / 1e6:.1f} MB, run by {record['runtime']}"),
        ("checked on", f"{record['checked_on']}, beside predict in float32"),
        ("differs by", _differs(record, unit)),
    ]
    if further := record["further"]:
        told.append((further["name"], f"differs by at most {further['largest_difference']:.1e}"))
    if score := record["score"]:
        name = score["measure"]
        told.append((NAMES.get(name, name.replace("_", " ")), _score(score)))
    told += _int8(record.get("int8"))
    if (loader := record["loader"]) and not record["any_size"]:
        told.append(("predict.py", f"on {loader['n']:,} of the files: {_differs(loader, unit)}"))
        if loader["unread"]:
            told.append(("", f"it reads {loader['unread']:,} of them not at all, and says why"))
    if here := record["predict_here"]:
        from_plain = _differs(here, here.get("of", unit))
        told.append(("this machine", f"predicts in {here['precision']}, from float32: {from_plain}"))
    if record["latency_ms"] is not None:
        rate = f"{record['images_per_second']:.1f} images a second, {record['batch']} at once"
        told.append(("speed", f"{record['latency_ms']:.1f} ms for one image, {rate}"))
    return [f"{name:<13} {text}" for name, text in told]


def _int8(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What is said of an export in 8-bit integers."""
    if not found:
        return []
    verdict, floats = found["gate"], found["floats"]
    kept = f"{len(floats)} of {found['layers']} layers in float" + (f": {', '.join(floats)}" if floats else "")
    if found["weights"]:
        kept = "weights alone, as activations in int8 changed the answers too much"
    told = f"{found['size_ratio']:.0%} of the size of float32, {found['speed_ratio']:.2f} times its speed; {kept}"
    chance = "" if verdict["expected"] is None else f"; {verdict['expected']:.2f} points to be expected"
    lost = "" if verdict["lost"] is None else f": {verdict['lost']} right answers lost, {verdict['gained']} gained"
    gate = f"{verdict['drop']:.2f} points lost, {verdict['max_drop']:g} allowed{lost}{chance}"
    return [("int8", told), ("gate", gate), *(("", note) for note in found["notes"])]


def _differs(found: dict[str, Any], unit: str | None = None) -> str:
    """`unit`: what is counted of each picture, where that is no label."""
    largest = found.get("largest_difference", found.get("largest"))
    mean = found.get("mean_difference", found.get("mean"))
    labels = found.get("label_agreement", found.get("labels"))
    if unit is not None:
        return f"{mean:.2%} of the {unit}, of one picture at most {largest:.2%}"
    same = "" if labels is None else f"; {labels:.1%} of labels agree"
    return f"at most {largest:.1e}, {mean:.1e} in the mean{same}"


def _score(score: dict[str, Any]) -> str:
    mine, other, gain = (score[name] for name in ("exported", "predict", "difference"))
    unit, form, word = (100, "{:.1f}", " points") if score["percent"] else (1, "{:.3f}", "")
    sign = "%" if score["percent"] else ""

    def told(number: float | None) -> str:
        return "-" if number is None else form.format(round(unit * number, 6) + 0.0)

    ends = f"[{told(gain['low'])}, {told(gain['high'])}]"
    return (
        f"{told(mine['value'])}{sign}, predict {told(other['value'])}{sign}; difference {told(gain['value'])}{word} "
        f"{ends}  n = {score['n']:,}"
    )
