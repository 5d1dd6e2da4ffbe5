"""`headstart relabel`: an edited list of suspected labels becomes a list of images that fit reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.cli.console import say, say_json, tell
from headstart.counted import counted
from headstart.errors import OptionError
from headstart.files.output import check_output


def relabel(given: argparse.Namespace) -> None:
    """Apply a list of fixes, and say what was done."""
    from headstart.data.relabel import read_fixes, relabelled, write_manifest
    from headstart.data.table import read_table

    output, fixes = Path(given.output), Path(given.fixes)
    check_output(output, (".csv",))
    for other in (Path(given.data), fixes):
        if output.exists() and other.is_file() and output.samefile(other):
            raise OptionError(f"-o {given.output} is one of the files that are read: choose another name")
    table = read_table(
        given.data, min_classes=1, task="classify", label=given.label, group=given.group, time=given.time
    )
    for note in table.notes:
        tell(f"note: {note}")
    found = relabelled(table, read_fixes(fixes), given.fixes, given.new_labels)
    write_manifest(found, output)
    if given.json:
        say_json(found.to_json() | {"manifest": given.output})
        return
    told = found.to_json()
    new = f"; new: {', '.join(found.new_labels)}" if found.new_labels else ""
    say(
        f"{counted(told['relabelled'], 'image')} relabelled, {told['dropped']:,} dropped, {told['kept']:,} of the list "
        f"kept as they are{new}"
    )
    say(f"{output}: {counted(told['images'], 'image')}; next: headstart fit {output} -o MODEL")
