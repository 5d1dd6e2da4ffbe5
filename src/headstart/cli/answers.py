"""What the commands answer: lines for the terminal, and the JSON of `inspect`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart.cli.diagnosed import diagnostic_lines, summary_line
from headstart.counted import counted
from headstart.data.duplicates import DuplicateSet, find_leaks
from headstart.data.targets import counts
from headstart.files.bundle import Bundle
from headstart.judge.labels import expected
from headstart.judge.marks import Interval, Score
from headstart.story.evidence import called
from headstart.story.given_away import shortcut_line
from headstart.story.look import shift_lines
from headstart.story.options import Options
from headstart.trunk import catalog
from headstart.trunk.network import RANDOM

if TYPE_CHECKING:
    from headstart.heads.apart import Apart
    from headstart.story.look import Look
    from headstart.story.pipeline import Fitted
    from headstart.trunk.store import Usage

MOST = 20  # lines of one list on the terminal, a screen; --json has them all


def summary(fitted: Fitted, folder: Path, seconds: float) -> list[str]:
    """What the terminal shows at the end of a fit. `seconds`: of the whole command so far."""
    score, task = fitted.verdict.score, fitted.method.task
    headline = task.judging.headline
    lines = [entry(_name(headline.name), f"{_told(score, headline.name)}  n = {score.n:,}  ({_judged(fitted)})")]
    if headline.name == "balanced_accuracy":
        lines.append(entry("", "accuracy in which each class counts the same, as in the comparisons below"))
        lines.append(entry("accuracy", _told(score, "accuracy")))
    elif any(b.measure == "balanced_accuracy" for b in fitted.baselines):
        also = f"{_told(score, 'balanced_accuracy')}  n = {score.n:,}  (each class counts the same, as below)"
        lines.append(entry("balanced", also))
    elif task.name != "classify":
        lines += [entry(_name(name), _told(score, name)) for name in score.estimates if name != headline.name]
    lines += [
        entry(called(b, task), f"{_interval(b.scores[b.measure], b.measure)}  n = {b.n:,}") for b in fitted.baselines
    ]
    lines += cost_lines(score)
    told = summary_line(score)
    lines += [entry("two classes", told)] if told else []
    worst = _weakest(score)
    lines += [entry(*worst)] if worst else []
    if task.own is not None:
        lines += [*_strangers(score), *(entry("note", remark) for remark in task.own.remarks(fitted.head))]
    lines += _groups_said(fitted) + _confidence(fitted) + _remarks(fitted)
    lines.append(entry("time", f"{seconds:.1f} s, {_work(fitted)}"))
    usage = shlex.join(["headstart", "predict", str(folder)])
    return ["", *lines, "", entry("report", str(folder / "report.html")), entry("next", f"{usage} IMAGES")]


def _groups_said(fitted: Fitted) -> list[str]:
    """How much the score differs between the user's groups."""
    from headstart.report.groups import spread
    from headstart.report.measures import measure
    from headstart.story.publish import groups_told

    found, headline = groups_told(fitted), fitted.method.task.judging.headline
    said = spread(found, measure(headline.name, percent=headline.percent)) if found else []
    return [entry("groups" if k == 0 else "", line) for k, line in enumerate(said)]


def _confidence(fitted: Fitted) -> list[str]:
    """What was asked of sets and answers, on the judged images, and what cannot be promised."""
    from headstart.story.confidence import measured, remarks

    lines = []
    sets = fitted.options.coverage is not None or fitted.options.sets != Options.sets
    asked = sets or fitted.options.max_error is not None
    found = measured(fitted) if asked else None
    if found is None:
        return [entry("note", remark) for remark in remarks(fitted)]
    if sets and found.sets:
        lines.append(entry("sets", f"{_interval(found.held, '')}  hold the true class ({found.coverage:g} was asked)"))
        lines.append(entry("", f"{found.size['value']:.2f} classes on average"))
        if found.method == "classwise" and found.classes:
            worst = found.classes[0]
            lines.append(entry("", f"{_interval(worst.held, '')}  of {worst.name!r}, the least (n = {worst.n})"))
    if found.answered is not None and found.answers:
        lines.append(entry("answered", f"{_interval(found.answered, '')}  are sure enough"))
        wrong = _interval(found.error, "") if found.error is not None else "none"
        lines.append(entry("", f"{wrong}  of these wrong ({found.max_error:g} was asked)"))
    return lines + [entry("note", remark) for remark in remarks(fitted)]


def cost_lines(score: Score) -> list[str]:
    """What deciding by costs saves."""
    found = score.tables.get("cost")
    if found is None:
        return []
    mean, plain, saved = (found[name] for name in ("mean", "by_probability", "saved"))
    by = "saves" if saved["value"] >= 0 else "costs more:"
    ends = "" if saved["low"] is None else f" [{saved['low']:.3g}, {saved['high']:.3g}]"
    told = f"{mean['value']:.3g} instead of {plain['value']:.3g} an image by the most probable class"
    return [entry("mean cost", told), entry("", f"{by} {abs(saved['value']):.3g}{ends}")]


def _strangers(score: Score) -> list[str]:
    """How many strangers were taken for somebody."""
    found = score.tables.get("false_accept_rate")
    if found is None or found["value"] is None:
        return []
    return [entry("strangers", f"{_interval(found, '')}  were taken for somebody ({found['asked']:.0%} was asked)")]


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
    for choice, of in ((fitted.seen.sight, "the view"), (fitted.seen.pairing, "between one network and two")):
        if choice:
            parts.append(f"{counted(choice.n_forward, 'pass', 'passes')} of an image before chose {of}")
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
    seen, lines = fitted.seen, _shift(fitted)
    if seen.features.set_aside:
        lines.append(entry("set aside", f"{counted(len(seen.features.set_aside), 'unreadable file')} (set_aside.csv)"))
    if seen.duplicates:
        leaks = len(find_leaks(seen.duplicates, seen.table.splits))
        across = f", {leaks:,} of them in more than one of train, validation and test" if leaks else ""
        lines.append(entry("duplicates", f"{_alike([s.kind for s in seen.duplicates])}{across} (duplicates.csv)"))
    if fitted.suspects:
        lines.append(entry("labels", f"{expected(fitted.suspects)}: suspected_labels.csv,"))
        lines.append(entry("", "which headstart review walks through, with copies and mistakes"))
    if fitted.shortcut is not None and fitted.shortcut.clear:
        lines.append(entry("shortcut", shortcut_line(fitted.shortcut)))
    if seen.backbone.weights_source == "random weights":
        lines.append(entry("note", "the network has random weights: nothing was transferred"))
    return lines


def _shift(fitted: Fitted) -> list[str]:
    """That the judged images are of another kind than those that taught."""
    trust, name = fitted.trust, fitted.method.task.judging.headline.name
    if trust is None or not trust.shifted:
        return []
    lines = []
    if trust.dropped and trust.left_out is not None:
        lines.append(
            f"{_interval(trust.left_out, name).strip()} on the training images, each left out: the judged ones"
        )
        lines.append("are of another kind, so this model is not shown to work on them")
    if trust.apart is not None and trust.apart.clear:
        lines.append(f"judged and training images look different (told apart with AUROC {trust.apart.auroc:.2f})")
    return [entry("shift" if k == 0 else "", line) for k, line in enumerate(lines)]


def different(apart: Apart | None) -> list[str]:
    """That the images given to a saved model are of another kind than those that taught it."""
    if apart is None or not apart.clear:
        return []
    told = f"told apart with AUROC {apart.auroc:.2f} [{apart.low:.2f}, {apart.high:.2f}]; 0.5 is by chance"
    return [f"these pictures look different from those that taught the model ({told}): its answers may not hold"]


def entry(name: str, text: str) -> str:
    return f"{name:14s} {text}"


def _weakest(score: Score) -> tuple[str, str] | None:
    """The class or label that fares worst, in words; None where all are perfect or there are none."""
    rows = [("class", "recall", row) for row in score.tables.get("per_class", ())]
    rows += [("label", "average_precision", row) for row in score.tables.get("per_label", ())]
    known = [(row[what]["value"], kind, what, row) for kind, what, row in rows if row[what]["value"] is not None]
    if not known:
        return None
    value, kind, what, row = min(known, key=lambda one: one[0])
    if value >= 1:
        return None
    said = "found" if what == "recall" else "is its average precision"
    share = f"{value:.1%} of its {row['n']:,} {said}" if what == "recall" else f"{value:.1%} {said}, in {row['n']:,}"
    return f"weakest {kind}", f"{row[kind]}: {share}"


NAMES = {  # of scores, where a terminal has room for less
    "balanced_accuracy": "balanced",
    "mean_average_precision": "mAP",
    "r2": "R2",
    "mae": "MAE",
    "rmse": "RMSE",
    "identification_rate": "identified",
    "eer": "EER",
    "tar_at_far_1e2": "TAR, FAR 1 %",
    "tar_at_far_1e3": "TAR, FAR 0.1 %",
    "open_set_rate": "open set",
    "log_loss": "log-loss",
    "auroc": "AUROC",
}
NO_SHARES = ("r2", "mae", "rmse", "log_loss", "auroc")


def _name(score: str) -> str:
    return NAMES.get(score, score.replace("_", " "))


def _told(score: Score, name: str) -> str:
    return _interval(score[name], name)


def score_lines(scored: Score) -> list[str]:
    """A score for the terminal."""
    shown = [
        n for n in scored.estimates if n not in ("macro_precision", "macro_recall", "ece", "ece_plain", "log_loss")
    ]
    lines = [f"{name:18s} {_told(scored, name)}" for name in shown]
    if "log_loss" in scored.estimates and scored["log_loss"]["value"] is not None:
        lines.append(f"{'log_loss':18s} {scored.value('log_loss'):.3f}")
    lines.append(f"{'n':18s} {scored.n:,}")
    lines += diagnostic_lines(scored) + cost_lines(scored)
    for row in scored.tables.get("per_class", ()):
        lines.append(_row_line(row["class"], row, ("recall", "precision"), row["n"]))
    for row in scored.tables.get("per_label", ()):
        lines.append(_row_line(row["label"], row, ("average_precision", "recall", "precision"), row["n"]))
    lines += _strangers(scored)
    for row in scored.tables.get("per_column", ()):
        cells = ", ".join(f"{_name(what)} {row[what]['value']:.3g}" for what in ("r2", "mae", "rmse"))
        lines.append(f"  {row['column']}: {cells}")
    return lines


def _row_line(name: str, row: Mapping[str, Any], columns: tuple[str, ...], n: int) -> str:
    known = [(what.replace("_", " "), row[what]["value"]) for what in columns if row[what]["value"] is not None]
    shown = ", ".join(f"{what} {value:.1%}" for what, value in known)
    return f"  {name}: {shown or 'no images'} (n = {n:,})"


def record_line(record: Mapping[str, Any]) -> str:
    """What `predict` says of one image on a terminal."""
    if record["error"]:
        return f"{record['path']}: cannot be read: {record['error']}"
    if "top" in record:
        said = _class_said(record)
    elif "labels" in record:
        said = ", ".join(f"{name} {record['probabilities'][name]:.1%}" for name in record["labels"]) or "none of them"
    elif "values" in record:
        said = ", ".join(_value_said(record, name) for name in record["values"])
    elif "verdict" in record:
        said = f"{record['verdict']} ({record['score']:.3f})"
    else:
        said = f"{record['identity'] or 'unknown'} ({record['score']:.3f})"
    return f"{record['path']}: {said}"


def _class_said(record: Mapping[str, Any]) -> str:
    """ "ants 97.0%, bees 3.0%"; where several classes can be meant "ants 71.0%, or bees 28.0%; wasps 1.0%"."""
    meant = record.get("set", [])
    told = [f"{c['label']} {c['probability']:.1%}" for c in record["top"]]
    among = min(len(meant), len(told))
    if len(meant) < 2:
        said = ", ".join(told)
    else:
        more = [f"one of {len(meant) - among:,} more"] if len(meant) > among else []
        said = "; ".join(part for part in (", or ".join([*told[:among], *more]), ", ".join(told[among:])) if part)
    if record.get("known") is False:
        said = f"unlike anything that the model was taught: {said}"
    return f"not sure enough: {said}" if record.get("abstain") else said


def _value_said(record: Mapping[str, Any], name: str) -> str:
    low, high = record["low"][name], record["high"][name]
    span = "" if low is None else f" [{low:.4g}, {high:.4g}]"
    return f"{name} {record['values'][name]:.4g}{span}"


def model_lines(bundle: Bundle) -> list[str]:
    """What `headstart report` shows of a saved model."""
    found, manifest = bundle.metrics, bundle.manifest
    headline = found.get("test") or found.get("cross_validation") or {}
    classes, backbone = manifest["classes"], manifest["backbone"]
    more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    lines = [
        entry("model", str(bundle.folder)),
        entry("classes", f"{len(classes)}: {', '.join(classes[:10])}{more}"),
        entry("network", f"{backbone['name']} ({backbone['weights_source']})"),
    ]
    if backbone["weights_source"] != RANDOM and (licence := backbone["licence"]):
        lines.append(entry("licence", "".join(catalog.terms(backbone["name"], licence)) or licence))
    if headline:
        source, first = headline.get("source", ""), next(name for name in headline if name != "n")
        lines.append(entry(_name(first), f"{_interval(headline[first], first)}  n = {headline['n']:,}  ({source})"))
    page = bundle.folder / "report.html"
    return [*lines, entry("report", str(page) if page.exists() else "is gone from the folder")]


def inspection(look: Look) -> dict[str, Any]:
    """The JSON of `headstart inspect`."""
    seen, table = look.seen, look.seen.table
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
        "leaks": told(look.leaks),
        "conflicts": told(look.conflicts),
        "faults": [
            {"path": str(table.names[odd.row]), "fault": odd.fault, "measured": odd.measured} for odd in look.faults
        ],
        "shortcut": look.files and look.files.to_json() | {"said": shortcut_line(look.files)},
        "told_by_pictures": look.pictures and look.pictures.to_json(),
        "shift": {part: one.to_json() for part, one in look.shifts.items()},
        "shift_said": shift_lines(look),
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
    lines = [entry("images", f"{found['images']:,} can be read, {len(found['set_aside']):,} cannot")]
    lines += _some([f"  {record['path']}: {record['reason']}" for record in found["set_aside"]])
    lines.append(entry("classes", f"{len(found['classes']):,}"))
    for name, splits in found["classes"].items():
        counts = [f"{count:,}" if split == "none" else f"{split} {count:,}" for split, count in splits.items()]
        lines.append(f"  {name}: {', '.join(counts)}")
    lines.append(entry("imbalance", f"the largest class has {found['imbalance']} times the images of the smallest"))
    groups = found["groups"]
    used = "none: each image may go anywhere (--group-by says what belongs together)"
    if groups:
        used = f"{groups['groups']:,} of {groups['smallest']:,} to {groups['largest']:,} images that stay together"
    lines.append(entry("groups", used))
    lines.append(entry("duplicates", _alike([s["kind"] for s in found["duplicates"]])))
    lines.append(entry("leaks", f"{len(found['leaks']):,} of them in more than one of train, validation and test"))
    lines.append(entry("conflicts", f"{len(found['conflicts']):,} of them with different labels"))
    lines += _some([f"  {s['kind']}: {' = '.join(s['paths'])}" for s in _worst_first(found)])
    kinds = Counter(odd["fault"] for odd in found["faults"])
    lines.append(entry("odd pictures", ", ".join(f"{n:,} {fault}" for fault, n in kinds.items()) or "none"))
    lines += _some([f"  {odd['path']}: {odd['fault']}: {odd['measured']}" for odd in found["faults"]])
    told = found["shortcut"]
    if told is not None:
        most = f"{told['class']} in {told['value']:.0%} [{told['low']:.0%}, {told['high']:.0%}], guessing 50 %"
        none = f"no class is given away by its files beyond doubt (the most: {most})"
        lines.append(entry("shortcut", told["said"] if told["clear"] else none))
    return lines + [entry("shift", said) for said in found["shift_said"]]


def _worst_first(found: dict[str, Any]) -> list[dict[str, Any]]:
    bad = [*found["leaks"], *found["conflicts"]]
    return sorted(found["duplicates"], key=lambda s: s not in bad)


def _some(lines: list[str]) -> list[str]:
    """The first lines of a list and how many more there are."""
    rest = len(lines) - MOST
    return lines if rest <= 0 else [*lines[:MOST], f"  ... and {rest:,} more: --json lists them all"]


def _interval(metric: Interval, name: str) -> str:
    if metric["value"] is None:
        return "not determined by these images"
    if name in NO_SHARES:
        return f"{metric['value']:6.3g}  [{metric['low']:.3g}, {metric['high']:.3g}]"
    return f"{metric['value']:6.1%}  [{metric['low']:.1%}, {metric['high']:.1%}]"


def cache_lines(root: Path, found: Usage, networks: int) -> list[str]:
    """What `headstart cache` shows; `networks`: bytes of compiled networks."""
    lines = [f"{networks / 1e6:9,.1f} MB  networks, compiled for this machine"] if networks else []
    for _, made_by, shards, size in found.entries:
        side = made_by.get("preprocess", {}).get("size", ["?"])[0]
        what = f"{made_by.get('backbone', 'unknown')}, {side} px, {made_by.get('precision', '?')}"
        lines.append(f"{size / 1e6:9,.1f} MB  {what}, {counted(shards, 'shard')}")
    return [*lines, f"{(found.total_bytes + networks) / 1e6:9,.1f} MB  in {root}"]
