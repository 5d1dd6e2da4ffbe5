"""`headstart demo`, `fit` and `compare`: a model is made, or several are."""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli.console import say, say_json, tell
from headstart.cli.featured import feature_set, featured_table
from headstart.cli.given import name_of, options_of, table_of
from headstart.cli.progress import watching
from headstart.cli.spreading import joined
from headstart.counted import counted
from headstart.data.truth import PLACED
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.data.feature_set import FeatureSet
    from headstart.data.table import Table
    from headstart.story.opening import Options, Watcher
    from headstart.story.pipeline import Fitted


def demo(given: argparse.Namespace) -> None:
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
    given.labels = None
    given.group_by, given.task, given.label, given.group, given.time = None, "auto", None, None, None
    given.explain, given.good, given.classes = False, None, None
    fit(given)
    if not given.json:
        for line in ("", "For your own images, one folder per class:", "  headstart fit YOUR-FOLDER -o model"):
            say(line)


def fit(given: argparse.Namespace) -> None:
    from headstart.story.options import set_otherwise, typed
    from headstart.story.track import open_trackers, read_words

    folder, options = Path(given.output), options_of(given)
    if given.add_to and (other := set_otherwise(options)):
        raise OptionError(f"--{other} cannot be set with --add-to: it is the model's own")
    if given.explain and options.head != "auto":
        raise OptionError("--explain is for linear heads, and --head gives this one layers of its own: leave one out")
    read_words(given.track)
    from headstart.files.bundle import check_writable, read_bundle
    from headstart.story.replacing import check_grows, check_replaceable

    if given.add_to:
        check_grows(read_bundle(given.add_to))
    check_writable(folder)
    features = feature_set(given)
    table = table_of(given, 1 if given.add_to else 2) if features is None else featured_table(given, features)
    own = {
        name: value
        for name in ("add_to", "labels", "group_by", "label", "group", "time", "good", "classes")
        if (value := getattr(given, name))
    }
    if table.task in PLACED:
        from headstart.cli import placing

        placing.fit(given, table, options, own)
        return
    if not given.force:
        check_replaceable(folder, table, given.add_to)
    from headstart.story import pipeline, publish
    from headstart.story.whereabouts import handed_on

    own |= {} if given.task == "auto" else {"task": given.task}
    words = typed(given.data, given.output, own, options, handed_on)
    command = shlex.join([*words, "--explain"] if given.explain else words)
    with open_trackers(given.track, tell) as tracker:
        tracker.settings(publish.public(vars(options)))
        started = time.perf_counter() - given.begun
        with joined(options.ray, tell), watching(tell, tracker) as watch:
            fitted = _fitted(given.add_to, features, table, options, watch)
        fitted = pipeline.timed(fitted, started, time.perf_counter() - given.begun)
        pictures = given.data if features is None else None
        found = publish.save(fitted, folder, name_of(given.data), command, given.explain, pictures)
        tracker.result(publish.main_scores(fitted), [folder / "report.html", folder / "metrics.json"])
    _say_fitted(given, fitted, found | {"model": str(folder)}, folder)


def _say_fitted(given: argparse.Namespace, fitted: Fitted, found: dict[str, Any], folder: Path) -> None:
    from headstart.cli import answers
    from headstart.story import account

    if given.json:
        say_json(found)
        return
    for line in answers.summary(fitted, folder, time.perf_counter() - given.begun):
        say(line)
    for said in (*account.outcomes(fitted), account.no_gain_line(fitted)):
        if said:
            say(said)


def _fitted(old: str | None, features: FeatureSet | None, table: Table, options: Options, watch: Watcher) -> Fitted:
    """From pictures, of them and those of a saved model, or from features."""
    from headstart.story import feature_fit, grow, pipeline

    if features is not None:
        return feature_fit.fit_features(features, table, options, watch)
    return grow.add_to(old, table, options, watch) if old else pipeline.fit(table, options, watch)


def compare(given: argparse.Namespace) -> None:
    options = options_of(given, tune="all")
    if given.curve and given.freeze_depth:
        raise OptionError("--curve is of the comparison, and --freeze-depth makes another: leave one of them out")
    options = replace(options, tune="none")
    table = table_of(given)
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
