"""What `headstart backbones` answers: which networks there are, and weights put in place or carried to a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headstart.data.preprocess import CROP_MODES
from headstart.errors import BackboneError, OptionError, OutputError, nearest
from headstart.trunk import catalog, hub, weights
from headstart.trunk.backbone import open_backbone, resolve

Record = dict[str, Any]
COLUMNS = catalog.COLUMNS
BEST_FIRST = ("top1", "top5", "frozen", "prior", "here")  # sorted from the highest
WIDTH = 120  # columns of text
# heading -> the record's column, how its cell is written
SHOWN: dict[str, tuple[str, Callable[[Record], str]]] = {
    "name": ("name", lambda r: r["name"]),
    "network": ("network", lambda r: r["network"]),
    "Mpar": ("parameters_millions", lambda r: _number(r["parameters_millions"])),
    "GMAC": ("gmacs", lambda r: _number(r["gmacs"], 1 if (r["gmacs"] or 0) >= 10 else 2)),
    "px": ("input_size", lambda r: f"{r['read_at'] or r['input_size']}{'*' if r['fixed_size'] else ''}"),
    "top1": ("top1", lambda r: _number(r["top1"]) or (f"{_number(r['frozen'])}f" if r["frozen"] else "")),
    "top5": ("top5", lambda r: _number(r["top5"])),
    "deep": ("depth", lambda r: "" if r["depth"] is None else str(r["depth"])),
    "tune": ("prior", lambda r: _number(r["prior"])),
    "licence": (
        "licence",
        lambda r: r["licence"].removesuffix("-license") + ("!" if _bound(r) else ""),
    ),
    "here": ("here", lambda r: r["here"]),
}
TEXT = ("name", "network", "licence", "here")  # columns written from the left
# columns that may be left out where a line would be too long, the last one first
DROPPED = ("px", "top1", "Mpar", "licence", "deep", "GMAC", "tune", "top5", "name")


def listing(search: str | None = None, sort: str | None = None) -> list[Record]:
    """One record a set of weights: the curated ones; with `search`, every one of timm's that has the text in its name.

    A record has COLUMNS, with None where a value is not known. `here`: "package", "file", "cached" or "".
    Raises OptionError for a column that there is not, BackboneError where no name has the text in it.
    """
    catalog.check_column(sort)
    there = _here()
    records: list[Record] = [asdict(entry) for entry in catalog.entries()]
    if search is not None:
        text = catalog.squeezed(search)
        named = {entry.network for entry in catalog.entries()}
        records = [r for r in records if any(text in catalog.squeezed(r[k]) for k in ("name", "network", "family"))]
        others = (n for n in catalog.published_networks() if n not in named and text in catalog.squeezed(n))
        records += [_record(catalog.published(network)) for network in others]
        if not records:
            known = [k for e in catalog.entries() for k in (e.name, e.network)]
            close = nearest(search, known) or ": headstart backbones lists those of the tutorials"
            raise BackboneError(f"no network with published weights has {search!r} in its name{close}")
    for record in records:
        record["here"] = there.get(record["network"], "")
    return _sorted(records, sort) if sort else records


def _record(about: catalog.Published) -> Record:
    """What timm itself knows of a network that is not in the catalog."""
    known = {
        "name": "",
        "network": about.network,
        "input_size": about.input_size,
        "licence": about.licence,
        "gated": False,
        "non_commercial": catalog.non_commercial(about.licence),
        "fixed_size": about.fixed_size is not None,
    }
    return dict.fromkeys(COLUMNS) | known


def _here() -> dict[str, str]:
    """timm's name with its tag -> where the weights are on this machine."""
    found = dict.fromkeys(weights.in_hub_cache(), "cached")
    for name in weights.brought():
        found[name if "." in name else catalog.published(name).network] = "file"
    return found | {catalog.published(name).network: "package" for name in weights.installed()}


def _sorted(records: list[Record], column: str) -> list[Record]:
    known = [r for r in records if r[column] not in (None, "")]
    unknown = [r for r in records if r[column] in (None, "")]
    words = known and isinstance(known[0][column], str)
    known.sort(key=lambda r: r[column].lower() if words else r[column], reverse=column in BEST_FIRST)
    return known + unknown


def lines(records: list[Record], sort: str | None = None) -> list[str]:
    """The records as a table of at most 120 columns of text: where they do not fit, some are left out.

    The column that they are sorted by has its own name as heading and is never left out.
    """
    shown = {by if by == sort else heading: cell for heading, (by, cell) in SHOWN.items()}
    if sort and sort not in {by for by, _ in SHOWN.values()}:
        shown |= {sort: lambda r: "" if r[sort] is None else str(r[sort])}
    table = {heading: [heading, *(cell(r) for r in records)] for heading, cell in shown.items()}
    kept = ("network", sort)
    table = {heading: cells for heading, cells in table.items() if heading in kept or any(cells[1:])}
    width = {heading: max(map(len, cells)) for heading, cells in table.items()}
    dropped = [heading for heading in DROPPED if heading not in kept]
    while sum(width.values()) + len(width) - 1 > WIDTH and dropped:
        width.pop(dropped.pop(), None)
    rows = [
        " ".join(table[h][k].ljust(w) if h in TEXT else table[h][k].rjust(w) for h, w in width.items()).rstrip()
        for k in range(len(records) + 1)
    ]
    notes = [
        "Mpar: million parameters; GMAC: billion multiplications an image; px: side of the input; deep: layers deep",
        "top1, top5: % on ImageNet",
        f"{'prior' if sort == 'prior' else 'tune'}: mean % over 11 data sets when fine-tuned",
    ]
    if sort:
        notes.append(f"sorted by {sort}, {'the highest' if sort in BEST_FIRST else 'the lowest'} first")
    if any(r["fixed_size"] for r in records):
        notes.append("* this input size only")
    if any(r["frozen"] for r in records):
        notes.append("f trained without those classes: frozen, with a linear head, or by texts alone")
    if any(map(_bound, records)):
        notes.append("! no commercial use, or terms of its own: read them first")
    return [*rows, "", *notes]


def _bound(record: Record) -> bool:
    """Whether the licence asks for more than the usual open ones."""
    return bool(record["gated"] or catalog.terms(record["network"], record["licence"]))


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def one_of(name: str, option: str) -> str:
    """timm's name of one network. Raises OptionError for two side by side, BackboneError for none."""
    full = resolve(name)
    if both := catalog.side_by_side(full):
        raise OptionError(f"{option} takes one network, and {name} is two: first {both[0]}, then {both[1]}")
    return full


def download(name: str, say: Callable[[str], object]) -> Record:
    """Put the weights that a name means on this machine; `say` is told size, licence and warnings before.

    Raises BackboneError.
    """
    full = one_of(name, "--download")
    if "." not in full and (path := weights.packaged(full)):
        say(f"{full} is here already: its weights are an installed package")
        return {"network": full, "path": str(path), "bytes": path.stat().st_size, "fetched": False}
    about = catalog.published(full)
    here = weights.brought_file(full, about.network) or (
        hub.cached(about.repository, about.filename) if about.repository else None
    )
    if here:
        say(f"{about.network} is here already")
    path = here or hub.obtain(about, say)
    return {
        "network": about.network,
        "licence": about.licence,
        "path": str(path),
        "bytes": path.stat().st_size,
        "fetched": here is None,
    }


def export_weights(name: str, file: str | Path) -> Record:
    """Write the weights that a name means as one .safetensors file, for `import_weights` on another machine.

    It carries the network's name, the preprocessing, the licence and a checksum. Raises BackboneError, OptionError,
    OutputError.
    """
    place = Path(file)
    if place.suffix != ".safetensors":
        raise OptionError(f"{place} does not end in .safetensors: give such a name to --export-weights")
    if not place.parent.is_dir():
        raise OutputError(f"the folder of {place} does not exist: make it first")
    backbone = open_backbone(one_of(name, "--export-weights"))
    architecture = backbone.name.partition(".")[0]
    tag = "" if backbone.weights_source.startswith("package") else backbone.network.described["tag"]
    steps = backbone.preprocess
    about = weights.Carried(
        network=f"{architecture}.{tag}" if tag else architecture,
        source=backbone.weights_source,
        licence=backbone.licence,
        preprocess={
            "input_size": [3, *steps.size],
            "mean": list(steps.mean),
            "std": list(steps.std),
            "interpolation": steps.interpolation,
            "crop_pct": steps.crop_fraction,
            "crop_mode": CROP_MODES[steps.resize],
        },
    )
    weights.write_carried(place, backbone.module.state_dict(), about)
    return {"network": about.network, "licence": about.licence, "path": str(place), "bytes": place.stat().st_size}


def import_weights(file: str | Path) -> Record:
    """Take a file of `export_weights` to where `open_backbone` finds it without a connection.

    Raises BackboneError, OutputError.
    """
    about = weights.bring(Path(file), resolve)
    path = weights.brought_file(about.network)
    return {"network": about.network, "licence": about.licence, "path": str(path)}


def count_depth(name: str) -> int | None:
    """The catalog's `depth` of a network, counted on the network itself; None where torch.fx cannot follow it."""
    from headstart.trunk.cut import depth, find_cuts  # torch

    try:
        return depth(find_cuts(open_backbone(name, "none")))
    except BackboneError:
        return None
