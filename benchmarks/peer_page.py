"""Records of peers as tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import peer_runs
import peer_sets
from measure import Table
from peer_runs import Peer

OURS, SAME = "headstart", {"EfficientNet-Lite0": "headstart", "MobileNetV2": "headstart_mobilenet"}
BEGIN, END = "<!-- tables: python benchmarks/peers.py --page -->", "<!-- end of the tables -->"

LONGEST = 110  # characters of a reason in a cell

Record = dict[str, Any]


def tables(peers: Sequence[Peer], records: Sequence[Record]) -> list[Table]:
    """One table a set, and one of what does not depend on it; a peer without records is a row that says why."""
    sets = list(dict.fromkeys(r["set"] for r in records if "set" in r and r["set"] != peer_sets.MESSY))
    return [*(of_set(name, peers, records) for name in sorted(sets)), of_peers(peers, records)]


def of_set(name: str, peers: Sequence[Peer], records: Sequence[Record]) -> Table:
    runs = {peer.name: [r for r in records if r["peer"] == peer.name and r.get("set") == name] for peer in peers}
    n = max((len(r["hits"]) for found in runs.values() for r in found if "hits" in r), default=0)
    header = (
        "",
        "network",
        f"right of {n}, %",
        "headstart minus it, points",
        "the same with its network",
        "epochs, of those asked",
        "CPU s",
        "wall s",
        "peak MB",
    )
    return Table(name, header, [set_row(peer, runs) for peer in peers if peer.learn])


def set_row(peer: Peer, runs: dict[str, list[Record]]) -> list[str]:
    found = runs[peer.name]
    title = peer.title + (" †" if peer.picks else "")
    judged = [r for r in found if "hits" in r and not r["judge"]["ended"]]
    if not found:
        return [title, peer.network, "not run", *[""] * 6]
    if not judged:
        said = found[0]["learn"]["ended"] or found[0].get("judge", {}).get("ended", "") or "no answers"
        return [title, peer.network, reason(said), *[""] * 6]
    share, low, high = accuracy(hits(judged))
    learn, mine = [[r["learn"] for r in part] for part in (judged, [r for r in runs[OURS] if "hits" in r])]
    asked = peer_runs.asked(peer.learn)
    return [
        title,
        peer.network,
        f"{100 * share:.1f} ({100 * low:.1f} to {100 * high:.1f})",
        "" if peer.name == OURS else against(runs[OURS], judged),
        "" if peer.name in SAME.values() else against(runs.get(SAME.get(peer.network, ""), []), judged),
        f"{judged[0]['steps']} of {asked}" if asked else "",
        *(marked(typical(learn, what), typical(mine, what), "{:.0f}") for what in ("cpu", "seconds")),
        marked(typical(learn, "peak") / 1e6, typical(mine, "peak") / 1e6, "{:.0f}"),
    ]


def typical(entries: Sequence[dict[str, Any]], what: str) -> float:
    """Median over the runs; not a number where there are none."""
    return float(np.median([entry[what] for entry in entries])) if entries else float("nan")


def marked(value: float, ours: float, form: str) -> str:
    """A cost, bold where it is less than headstart's."""
    text = form.format(value) if value == value else ""
    return f"**{text}**" if value < ours and text != form.format(ours) else text


def hits(judged: Sequence[Record]) -> np.ndarray:
    """(image,): the share of the repeats in which it was answered right."""
    return np.array([[int(c) for c in r["hits"]] for r in judged], dtype=float).mean(axis=0)


def accuracy(right: np.ndarray) -> tuple[float, float, float]:
    from headstart.judge.intervals import wilson

    return float(right.mean()), *wilson(float(right.mean()), len(right))


def against(ours: Sequence[Record], theirs: Sequence[Record]) -> str:
    """Ours minus theirs on the same images, paired, in points; bold where it says that theirs is better."""
    from headstart.judge.intervals import paired_gain

    judged = [r for r in ours if "hits" in r]
    if not judged:
        return ""
    change = paired_gain(hits(judged), hits(theirs))["difference"]
    text = measure.points(change)
    return f"**{text}**" if (change["high"] or 0) < 0 else text


def of_peers(peers: Sequence[Peer], records: Sequence[Record]) -> Table:
    header = (
        "",
        "installed MB",
        "packages",
        "lines written",
        "first answer of a fresh process, s",
        "CPU s",
        "learns among 20 messy files",
        "is asked about them",
        "prints an interval",
        "note",
    )
    return Table("What does not depend on the set", header, [peer_row(peer, records) for peer in peers])


def peer_row(peer: Peer, records: Sequence[Record]) -> list[str]:
    mine, ours = ([r for r in records if r["peer"] == name] for name in (peer.name, OURS))
    well = any("hits" in r for r in mine)  # else it stops among whole pictures too
    messy = next((r for r in mine if well and r.get("set") == peer_sets.MESSY), None)
    runs = [r for r in mine if "interval" in r]
    return [
        peer.title,
        *installed(mine, ours),
        *written(peer),
        *(marked(typical(firsts(mine), what), typical(firsts(ours), what), "{:.1f}") for what in ("seconds", "cpu")),
        among(messy),
        asked_about(messy),
        ("yes" if any(r["interval"] for r in runs) else "no") if runs else "",
        peer.note,
    ]


def installed(mine: Sequence[Record], ours: Sequence[Record]) -> list[str]:
    """Megabytes and packages of the environment, or why there is none."""
    one, other = (
        next((r for r in part if r.get("kind") == "install"), {"ended": "not tried"}) for part in (mine, ours)
    )
    if one["ended"]:
        return [reason(one["ended"]), ""]
    sizes = ((what, unit, other.get(what, 0)) for what, unit in (("bytes", 1e6), ("packages", 1)))
    return [marked(one[what] / unit, theirs / unit, "{:.0f}") for what, unit, theirs in sizes]


def written(peer: Peer) -> list[str]:
    return [str(peer_runs.lines_of(peer.learn, peer.predict, *peer.beside))] if peer.learn else [""]


def firsts(mine: Sequence[Record]) -> list[dict[str, Any]]:
    return [r["first"] for r in mine if "first" in r and not r["first"]["ended"]]


def reason(ended: str) -> str:
    """Why a program stopped, short enough for a cell: no module of an error, nothing that TensorFlow puts in {{}}."""
    text = re.sub(r"^(\w+\.)+(?=\w+:)|\{\{.*?\}\} *", "", ended).replace("|", "/")
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."


def among(messy: Record | None) -> str:
    """What learning did with messy files among its pictures."""
    if messy is None:
        return ""
    return f"stops: {reason(messy['learn']['ended'])}" if messy["learn"]["ended"] else "goes on"


def asked_about(messy: Record | None) -> str:
    """What answering did: of the whole files and of those that hold no whole picture."""
    if messy is None or "answered" not in messy:
        return ""
    given = list(messy["answered"].values())
    n = len(peer_sets.WHOLE)
    whole, broken = (sum(1 for label in part if label) for part in (given[:n], given[n:]))
    counted = f"{whole} of {n} whole and {broken} of {len(given) - n} broken ones answered"
    return (
        f"stops after {whole + broken} answers: {reason(messy['judge']['ended'])}"
        if messy["judge"]["ended"]
        else counted
    )


def fill(page: Path, tables: Sequence[Table]) -> None:
    """Replace what stands between the two marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n\n".join(table.markdown() for table in tables)
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")
