"""`headstart evaluate`, `predict` and `classify`: a model is asked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cli.console import say, say_json, say_json_list, tell
from headstart.cli.given import none_were_read, options_of, some_were_read, table_of, tell_notes
from headstart.cli.progress import watching
from headstart.cli.spreading import joined
from headstart.counted import counted
from headstart.data.truth import PLACED
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.data.table import Table
    from headstart.files.far import Place
    from headstart.ship.batch import Answered
    from headstart.ship.package import Loaded
    from headstart.ship.stretches import Tally
    from headstart.story.opening import Watcher

ALL_SHOWN = 0.99  # share of the contributions that are drawn, from which nothing is said of the rest


def evaluate(given: argparse.Namespace) -> None:
    from headstart.files.bundle import read_bundle

    bundle = read_bundle(given.model)
    table = table_of(given, 1, str(bundle.manifest.get("task", "classify")))
    if table.task in PLACED:
        from headstart.cli import placing

        placing.evaluate(given, bundle, table)
        return
    from headstart.cli.answers import different, score_lines
    from headstart.ship.package import unpack
    from headstart.story import pipeline

    model = unpack(bundle)
    del bundle  # and with it a second copy of the weights
    part = pipeline.judged_part(table)
    tell_notes(table)
    with watching(tell) as watch:
        scored, found = pipeline.evaluate(model, table, watch=watch, positive=given.positive)
    if part:
        tell(f"scored on the {part} part alone")
    for note in (*found.notes, *different(found.apart)):
        tell(f"note: {note}")
    unread = [{"path": str(n), "reason": str(e)} for n, e in zip(found.names, found.errors, strict=True) if e]
    if given.json:
        say_json(scored.to_json() | {"set_aside": unread, "told_apart": found.apart and found.apart.to_json()})
        return
    for line in score_lines(scored):
        say(line)
    for record in unread:
        tell(f"set aside: {record['path']}: {record['reason']}")


def predict(given: argparse.Namespace) -> None:
    into_folder = _check_options(given)
    from headstart.data.table import list_images
    from headstart.data.to_label import named
    from headstart.files.bundle import read_bundle

    paths = named(given.images, sys.stdin)
    bundle = read_bundle(given.model)
    table = list_images(paths, masks=bundle.manifest.get("task") != "segment")
    if bundle.manifest.get("task") in PLACED:
        from headstart.cli import placing

        placing.predict(given, bundle, table)
        return
    if given.tiles:
        raise OptionError(f"--tiles is of a model of masks or boxes, and {given.model} is none: leave it out")
    if given.masks:
        raise OptionError(f"--masks is of a model that segments, and {given.model} gives no masks: leave it out")
    from headstart.ship.package import unpack

    model = unpack(bundle)
    del bundle  # and with it a second copy of the weights
    if given.explain:
        from headstart.ship.explain import linear_head
        from headstart.ship.heat import knows_patches

        knows_patches(model) or linear_head(model)
    tell_notes(table)
    with joined(given.ray, tell), watching(tell) as watch:
        tally = (_into_folder if into_folder else _into_file)(model, table, given, watch)
    if tally.n_failed == len(table):
        none_were_read(len(table), tally.first_failed)


def _check_answers(output: str | None) -> bool:
    """Whether answers go into a folder of files. Raises OptionError, OutputError where they cannot be written."""
    from headstart.files.output import PREDICTIONS, check_folder_beside, check_output, names_folder, output_of

    if output is None:
        return False
    place = output_of(output)
    if names_folder(output):
        check_folder_beside(place)
        return True
    if place.suffix.lower() not in PREDICTIONS:
        endings = " or ".join(PREDICTIONS)
        raise OptionError(
            f"the output {place} cannot be written: its name must end in {endings}, or in / for a folder of files"
        )
    check_output(place, PREDICTIONS)
    return False


def _into_file(model: Loaded, table: Table, given: argparse.Namespace, watch: Watcher) -> Tally:
    """Or onto stdout."""
    from headstart.files.far import place_of
    from headstart.ship.batch import answered

    output = place_of(given.output) if given.output else None
    with answered(model, table, output, watch.bar, tell, ray=given.ray) as found:
        if given.explain:
            _explain(model, table, Path(given.explain), watch)
        _hand_over(found, output, given)
    return found.tally


def _into_folder(model: Loaded, table: Table, given: argparse.Namespace, watch: Watcher) -> Tally:
    from headstart.cli.answers import different
    from headstart.files.far import place_of
    from headstart.ship.answer_folder import filed

    if given.explain:
        _explain(model, table, Path(given.explain), watch)
    folder = place_of(given.output)
    found = filed(model, table, folder, given.top, watch.bar, tell, ray=given.ray)
    for note in (*found.tally.notes(), *different(found.tally.apart())):
        tell(f"note: {note}")
    files = f" in {counted(len(found.paths), 'file')}"
    _tell_written(found.tally, len(table), f"{str(folder).rstrip('/')}/{files}")
    if given.json:
        say_json_list(found.records())
    return found.tally


def _tell_written(tally: Tally, n: int, where: str) -> None:
    written, unread = counted(n - tally.n_failed, "prediction"), counted(tally.n_failed, "image")
    tell(f"{written} written to {where}, {unread} could not be read")


def _check_options(given: argparse.Namespace) -> bool:
    """Whether answers go into a folder of files. Raises OptionError or OutputError for what `predict` cannot do, before
    anything is read."""
    from headstart.files.output import check_folder
    from headstart.story.options import check_top
    from headstart.trunk.scale import check_address

    check_top(given.top)
    if given.ray is not None:
        check_address(given.ray)
    into_folder = _check_answers(given.output)
    for option in ("explain", "masks"):
        if (folder := getattr(given, option)) is not None:
            check_folder(folder, f"--{option}")
    return into_folder


def _hand_over(found: Answered, output: Place | None, given: argparse.Namespace) -> None:
    """Notes, the file, and what is said on stdout."""
    from headstart.cli.answers import different

    for note in (*found.tally.notes(), *different(found.tally.apart())):
        tell(f"note: {note}")
    if output:
        found.write(output, given.top)
        _tell_written(found.tally, len(found.table), str(output))
    if given.json:
        say_json_list(found.records(given.top))
    elif not output:
        from headstart.cli.answers import record_line

        for record in found.records(given.top):
            say(record_line(record))


def _explain(model: Loaded, table: Table, folder: Path, watch: Watcher) -> None:
    from headstart.ship.heat import heat_maps, knows_patches
    from headstart.ship.overlay import overlays

    if knows_patches(model):
        n = heat_maps(model, table, folder, watch.bar("explain", len(table)))
        tell(f"{counted(n, 'image')} written to {folder}: orange is unlike what good pictures show")
        return
    shown = overlays(model, table, folder, watch.bar("explain", len(table)))
    tell(f"{counted(len(shown), 'image')} written to {folder}: orange spoke for the answer, blue against it")
    if shown and min(shown) < ALL_SHOWN:
        tell(f"note: of what the answers are made of, {min(shown):.0%} or more has a place in the image and is drawn")


def classify(given: argparse.Namespace) -> None:
    from headstart.files.output import ANSWERS, check_output
    from headstart.story.options import check_top

    options = options_of(given)
    check_top(given.top)
    if given.output:
        check_output(Path(given.output), ANSWERS)
    from headstart.data.table import list_images
    from headstart.data.to_label import named

    table = list_images(named(given.images, sys.stdin))
    from headstart.ship.classify import classify, write_answers
    from headstart.story import opening

    backbone = opening.as_published(options, tell)
    tell_notes(table)
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
    some_were_read(found)
