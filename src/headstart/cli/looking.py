"""`headstart inspect`, `features`, `backbones`, `report` and `cache`: what there is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.cli.console import say, say_json, tell
from headstart.cli.given import any_images, name_of, options_of, table_of
from headstart.cli.progress import watching
from headstart.cli.reasons import reasons
from headstart.cli.spreading import joined
from headstart.counted import counted
from headstart.data.truth import PLACED
from headstart.errors import DataError, OptionError


def inspect(given: argparse.Namespace) -> None:
    from headstart.files.output import PAGES, check_output
    from headstart.story.options import check_random

    options = options_of(given)
    check_random(options, "inspect")
    wanted, page = reasons(given.fail_on), given.output and Path(given.output)
    if page:
        check_output(page, PAGES)
    table = table_of(given, 1)
    if table.task in PLACED:
        from headstart.cli import placing

        fail_on(wanted, placing.inspect(given, table, options))
        return
    from headstart.cli import answers
    from headstart.story import pipeline
    from headstart.story.look import look_over

    with joined(options.ray, tell), watching(tell) as watch:
        look = look_over(pipeline.inspect(table, options, watch), options.seed, watch)
        found = answers.inspection(look)
    if given.json:
        say_json(found)
    for line in [] if given.json else answers.inspection_lines(found):
        say(line)
    if page:
        from headstart.story.look_page import write_page

        write_page(look, page, name_of(given.data))
        tell(f"page: {page}")
    fail_on(wanted, look.found())


def fail_on(wanted: tuple[str, ...], found: Mapping[str, int]) -> None:
    """Raises DataError where something was found that must not be there."""
    there = [f"{name} ({found[name]:,})" for name in wanted if found[name]]
    if there:
        raise DataError(f"found, and --fail-on names it: {', '.join(there)}")


def features(given: argparse.Namespace) -> None:
    from headstart.files.output import FEATURES, check_folder_of_files, check_output, names_folder, output_of
    from headstart.story.options import check_pooling, check_random

    out, options = output_of(given.output), options_of(given, layer=None)
    check_pooling(given.pool, given.layer)
    check_random(options, "features")
    folder = names_folder(given.output)
    if folder:
        check_folder_of_files(out)
    else:
        check_output(out, FEATURES)
    table = any_images(given)
    from headstart.story.feature_file import opened_for, write_features
    from headstart.story.feature_fit import seen_as

    with joined(options.ray, tell), watching(tell) as watch:
        seen = opened_for(table, options, given.model, watch)
        looks = seen_as(options, given.model) if folder else None
        count, blocks, set_aside = write_features(table, out, given.layer, given.pool, options, watch, seen, looks)
    if given.json:
        say_json({"file": str(out), "images": count, "blocks": blocks, "set_aside": set_aside})
    else:
        what = f"{counted(count, 'image')}, {counted(len(blocks), 'block')}"
        say(f"{what} ({counted(sum(blocks.values()), 'feature')}) written to {out}")
    for record in set_aside:
        tell(f"set aside: {record['path']}: {record['reason']}")


def backbones(given: argparse.Namespace) -> None:
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


def report(given: argparse.Namespace) -> None:
    from headstart.cli.answers import model_lines
    from headstart.files.bundle import read_bundle

    bundle = read_bundle(given.model)
    page = bundle.folder / "report.html"
    if given.json:
        say_json(bundle.metrics | {"model": str(bundle.folder), "report": str(page) if page.exists() else None})
        return
    for line in model_lines(bundle):
        say(line)


def cache(given: argparse.Namespace) -> None:
    from headstart.cli.answers import cache_lines
    from headstart.story import whereabouts
    from headstart.trunk import shelf, store

    root = store.cache_root(given.cache)
    if given.clear:
        freed = store.usage(root).total_bytes + shelf.kept_bytes(root)
        store.clear(root)
        shelf.clear(root)
        whereabouts.forget(root)
        tell(f"{freed / 1e6:.1f} MB of stored features and compiled networks deleted")
    found, networks = store.usage(root), shelf.kept_bytes(root)
    if given.json:
        entries = [dict(zip(("key", "made_by", "shards", "bytes"), entry, strict=True)) for entry in found.entries]
        total = found.total_bytes + networks
        say_json({"folder": str(root), "bytes": total, "networks": networks, "entries": entries})
        return
    for line in cache_lines(root, found, networks):
        say(line)
