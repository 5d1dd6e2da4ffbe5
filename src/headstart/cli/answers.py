"""What the commands answer: lines for the terminal, and the JSON of `inspect`."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.data.duplicates import DuplicateSet, find_conflicts, find_leaks
from headstart.data.targets import counts
from headstart.files.bundle import Bundle
from headstart.judge.marks import Interval, Score
from headstart.story.evidence import called

if TYPE_CHECKING:
    from headstart.story.pipeline import Fitted, Seen
    from headstart.trunk.store import Usage

MOST = 20  # lines of one list on the terminal, a screen; --json has them all


def summary(fitted: Fitted, folder: Path, seconds: float) -> list[str]:
    """What the terminal shows at the end of a fit. `seconds`: of the whole command so far."""
    score = fitted.verdict.score
    lines = [_line("accuracy", f"{_interval(score['accuracy'])}  n = {score.n:,}  ({_judged(fitted)})")]
    rare = [b for b in fitted.baselines if b.measure == "balanced_accuracy"]
    if rare:
        lines.append(
            _line(
                "balanced",
                f"{_interval(score['balanced_accuracy'])}  n = {score.n:,}  (each class counts the same, as below)",
            )
        )
    lines += [
        _line(called(b, fitted.method.task), f"{_interval(b.scores[b.measure])}  n = {b.n:,}") for b in fitted.baselines
    ]
    found = [c for c in score.tables["per_class"] if c["recall"]["value"] is not None]
    worst = min(found, key=lambda c: c["recall"]["value"], default=None)
    if worst and worst["recall"]["value"] < 1:
        lines.append(
            _line("weakest class", f"{worst['class']}: {worst['recall']['value']:.1%} of its {worst['n']:,} found")
        )
    lines += _remarks(fitted)
    lines.append(_line("time", f"{seconds:.1f} s, {_work(fitted)}"))
    usage = shlex.join(["headstart", "predict", str(folder)])
    return ["", *lines, "", _line("report", str(folder / "report.html")), _line("next", f"{usage} IMAGES")]


def _work(fitted: Fitted) -> str:
    """Which images the network saw in this run; equal files are one picture to it."""
    features = fitted.seen.features
    different = len(set(features.hashes))
    fresh, copies = min(features.n_forward, different), len(features) - different
    parts = [f"{counted(fresh, 'image')} went through the network"]
    if copies:
        parts.append(f"{copies:,} {'is an exact copy of another' if copies == 1 else 'are exact copies of others'}")
    if different > fresh:
        parts.append(f"features of {different - fresh:,} were stored before")
    return ", ".join(parts)


def _judged(fitted: Fitted) -> str:
    """What the headline was measured on."""
    score = fitted.verdict.score
    return {
        "cross-validation": f"{score.folds}-fold cross-validation, {_times(score.repeats or 1)}",
        "test split": "held-out images, used once",
        "test folder": "your test images, used once",
        "validation folder": "your validation images, used once",
    }[fitted.plan.source]


def _times(repeats: int) -> str:
    return "once" if repeats == 1 else f"{repeats} times"


def _alike(kinds: list[str]) -> str:
    """ "2 sets of copies, 7 of pictures that are nearly the same"."""
    exact, near = (sum(kind == which for kind in kinds) for which in ("exact", "near"))
    if not near:
        return f"{counted(exact, 'set')} of copies"
    same = f"{counted(exact, 'set')} of copies, {near:,} of" if exact else f"{counted(near, 'set')} of"
    return f"{same} pictures that are nearly the same"


def _remarks(fitted: Fitted) -> list[str]:
    """What the user should look at."""
    seen, lines = fitted.seen, []
    if seen.features.set_aside:
        lines.append(_line("set aside", f"{counted(len(seen.features.set_aside), 'unreadable file')} (set_aside.csv)"))
    if seen.duplicates:
        leaks = len(find_leaks(seen.duplicates, seen.table.splits))
        across = f", {leaks:,} of them in more than one of train, validation and test" if leaks else ""
        lines.append(_line("duplicates", f"{_alike([s.kind for s in seen.duplicates])}{across} (duplicates.csv)"))
    if fitted.suspects:
        lines.append(_line("labels", f"{len(fitted.suspects):,} may be wrong (suspected_labels.csv)"))
    if seen.backbone.weights_source == "random weights":
        lines.append(_line("note", "the network has random weights: nothing was transferred"))
    return lines


def _line(name: str, text: str) -> str:
    return f"{name:15s}{text}"


def score_lines(scored: Score) -> list[str]:
    """A score for the terminal."""
    lines = [f"{name:18s} {_interval(scored[name])}" for name in ("accuracy", "balanced_accuracy", "macro_f1")]
    lines.append(f"{'log_loss':18s} {scored.value('log_loss'):.3f}")
    lines.append(f"{'n':18s} {scored.n:,}")
    for row in scored.tables["per_class"]:
        recall, precision = row["recall"]["value"], row["precision"]["value"]
        shown = [
            f"{what} {value:.1%}" for what, value in (("recall", recall), ("precision", precision)) if value is not None
        ]
        lines.append(f"  {row['class']}: {', '.join(shown) or 'no images'} (n = {row['n']:,})")
    return lines


def model_lines(bundle: Bundle) -> list[str]:
    """What `headstart report` shows of a saved model."""
    found, manifest = bundle.metrics, bundle.manifest
    headline = found.get("test") or found.get("cross_validation") or {}
    classes, backbone = manifest["classes"], manifest["backbone"]
    more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    lines = [
        _line("model", str(bundle.folder)),
        _line("classes", f"{len(classes)}: {', '.join(classes[:10])}{more}"),
        _line("network", f"{backbone['name']} ({backbone['weights_source']})"),
    ]
    if headline:
        source = headline.get("source", "")
        lines.append(_line("accuracy", f"{_interval(headline['accuracy'])}  n = {headline['n']:,}  ({source})"))
    page = bundle.folder / "report.html"
    return [*lines, _line("report", str(page) if page.exists() else "is gone from the folder")]


def inspection(seen: Seen) -> dict[str, Any]:
    """The JSON of `headstart inspect`."""
    table = seen.table
    splits = sorted(set(table.splits))
    by_split = {split: counts(seen.targets.take(table.splits == split)) for split in splits}
    whole = list(counts(seen.targets).values())

    def told(sets: list[DuplicateSet]) -> list[dict[str, Any]]:
        return [
            {"kind": s.kind}
            | {
                what: [str(column[r]) for r in s.rows]
                for what, column in (("paths", table.names), ("splits", table.splits), ("labels", table.labels))
            }
            for s in sets
        ]

    return {
        "classes": {name: {split: by_split[split].get(name, 0) for split in splits} for name in seen.targets.names},
        "images": len(table),
        "set_aside": [{"path": name, "reason": reason} for name, reason in seen.features.set_aside],
        "notes": list(table.notes),
        "duplicates": told(seen.duplicates),
        "leaks": told(find_leaks(seen.duplicates, table.splits)),
        "conflicts": told(find_conflicts(seen.duplicates, table.labels)),
        "imbalance": round(max(whole) / max(1, min(whole)), 2) if whole else None,
        "groups": _groups(table.groups),
    }


def _groups(groups: npt.NDArray[np.object_]) -> dict[str, int] | None:
    """How many images the user's own groups hold; None where there are none."""
    sizes = sorted(Counter(group for group in groups if group).values())
    if not sizes:
        return None
    return {"groups": len(sizes), "images": sum(sizes), "smallest": sizes[0], "largest": sizes[-1]}


def inspection_lines(found: dict[str, Any]) -> list[str]:
    """The same for the terminal."""
    lines = [_line("images", f"{found['images']:,} can be read, {len(found['set_aside']):,} cannot")]
    lines += _some([f"  {record['path']}: {record['reason']}" for record in found["set_aside"]])
    lines.append(_line("classes", f"{len(found['classes']):,}"))
    for name, splits in found["classes"].items():
        counts = [f"{count:,}" if split == "none" else f"{split} {count:,}" for split, count in splits.items()]
        lines.append(f"  {name}: {', '.join(counts)}")
    lines.append(_line("imbalance", f"the largest class has {found['imbalance']} times the images of the smallest"))
    groups = found["groups"]
    used = "none: each image may go anywhere (--group-by says what belongs together)"
    if groups:
        used = f"{groups['groups']:,} of {groups['smallest']:,} to {groups['largest']:,} images that stay together"
    lines.append(_line("groups", used))
    lines.append(_line("duplicates", _alike([s["kind"] for s in found["duplicates"]])))
    lines.append(_line("leaks", f"{len(found['leaks']):,} of them in more than one of train, validation and test"))
    lines.append(_line("conflicts", f"{len(found['conflicts']):,} of them with different labels"))
    return lines + _some([f"  {s['kind']}: {' = '.join(s['paths'])}" for s in _worst_first(found)])


def _worst_first(found: dict[str, Any]) -> list[dict[str, Any]]:
    bad = [*found["leaks"], *found["conflicts"]]
    return sorted(found["duplicates"], key=lambda s: s not in bad)


def _some(lines: list[str]) -> list[str]:
    """The first lines of a list and how many more there are."""
    rest = len(lines) - MOST
    return lines if rest <= 0 else [*lines[:MOST], f"  ... and {rest:,} more: --json lists them all"]


def _interval(metric: Interval) -> str:
    return f"{metric['value']:6.1%}  [{metric['low']:.1%}, {metric['high']:.1%}]"


def cache_lines(root: Path, found: Usage) -> list[str]:
    """What `headstart cache` shows."""
    lines = []
    for _, made_by, shards, size in found.entries:
        side = made_by.get("preprocess", {}).get("size", ["?"])[0]
        what = f"{made_by.get('backbone', 'unknown')}, {side} px, {made_by.get('precision', '?')}"
        lines.append(f"{size / 1e6:9,.1f} MB  {what}, {counted(shards, 'shard')}")
    return [*lines, f"{found.total_bytes / 1e6:9,.1f} MB  in {root}"]
