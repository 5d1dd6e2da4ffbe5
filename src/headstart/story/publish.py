"""What a fit found -> metrics.json, the report, the model card, the bundle on disk."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart import report
from headstart.data.duplicates import find_conflicts, find_leaks
from headstart.data.groups import sequences_in
from headstart.data.splits import write_split
from headstart.data.targets import counts
from headstart.files.bundle import NOVELTY, write_bundle
from headstart.files.cells import csv_bytes
from headstart.files.far import place_of
from headstart.finetune.choice import TUNED
from headstart.finetune.trained_head import TrainedHead
from headstart.heads.material import Ints, Material
from headstart.heads.oddity import Oddity
from headstart.heads.taps import LAST
from headstart.judge.labels import expected
from headstart.recipe import Setting
from headstart.report.measures import full, measure
from headstart.report.numbers import estimate
from headstart.ship.package import pack, versions
from headstart.story import confidence, pictures, reliability, whereabouts
from headstart.story.account import HEADS, TAPS, epochs_of, network_told, no_gain_line, outcomes, settings
from headstart.story.evidence import called
from headstart.story.given_away import shortcut_line
from headstart.story.mistakes import mistakes_list
from headstart.story.options import Options
from headstart.story.pipeline import Fitted
from headstart.story.trust import kept_of
from headstart.tasks.aims import DECIDING
from headstart.tasks.identifier import Identifier
from headstart.tasks.task import Head, Rule, Task
from headstart.trunk.engine import Engine, this_machine
from headstart.trunk.features import Features


def metrics(fitted: Fitted, sure: report.Confidence | None) -> dict[str, Any]:
    """The content of metrics.json."""
    plan, view, task = fitted.plan, fitted.view_verdict.score, fitted.method.task
    tried = fitted.head.candidates if task.own is None else task.own.tried(fitted.head)
    headline = fitted.verdict.score.to_json() | {"source": plan.source}
    crossed = plan.judge is None
    measure = task.judging.headline.name
    return {
        "validation": None if fitted.validation is None else fitted.validation.to_json(),
        "test": None if crossed else headline,
        "cross_validation": headline if crossed else None,
        "test_without_leaks": None if fitted.leak_free is None else fitted.leak_free.to_json(),
        "baselines": {
            called(b, task).replace(" ", "_"): {
                "n": b.n,
                **b.scores,
                "compared_with": {"what": b.against, "n": b.n, **b.rival},
                "measure": b.measure,
                "difference": b.difference,
            }
            for b in fitted.baselines
        },
        "confidence": confidence.to_json(sure),
        "reliability": reliability.to_json(fitted),
        "novelty": None if fitted.novelty is None else fitted.novelty.to_json(),
        "timm_view": {"same_model": fitted.view is fitted.head, "n": view.n, measure: view[measure]}
        if _has_view(fitted)
        else None,
        "trust": None if fitted.trust is None else fitted.trust.to_json(),
        "groups": None if fitted.groups is None else fitted.groups.to_json(),
        "shortcut": fitted.shortcut and fitted.shortcut.to_json(),
        "learning_curve": fitted.curve,
        "candidates": [asdict(c) for c in tried],
        "added": None if fitted.growth is None else fitted.growth.to_json(),
        "ranking": None if fitted.seen.ranking is None else fitted.seen.ranking.to_json(private=False),
        "view": None if fitted.seen.sight is None else fitted.seen.sight.to_json(),
        "second_network": None if fitted.seen.pairing is None else fitted.seen.pairing.to_json(),
        "place_of_use": None if fitted.target is None else fitted.target.to_json(),
        "tuning": None if fitted.tuning is None else fitted.tuning.to_json(),
        "training": [asdict(epoch) for epoch in epochs_of(fitted)],
        "set_aside": [{"path": name, "reason": reason} for name, reason in fitted.seen.features.set_aside],
        "seconds": {stage: round(s, 3) for stage, s in fitted.seconds.items()},
    }


def main_scores(fitted: Fitted) -> dict[str, float]:
    """The headline's scores, without their intervals."""
    score = fitted.verdict.score
    known = {name: found["value"] for name, found in score.estimates.items() if found["value"] is not None}
    return known | {"n": score.n}


def save(
    fitted: Fitted, folder: Path, title: str, command: str, explain: bool = False, data: str | None = None
) -> dict[str, Any]:
    """Write the bundle; returns the content of metrics.json. `explain`: with where the network looked, of the worst
    mistakes. `data`: where the images are, remembered on this machine and not in the bundle. Raises OutputError."""
    seen = fitted.seen
    manifest, config, tensors = pack(
        fitted.method.task,
        seen.backbone,
        fitted.head,
        fitted.view,
        seen.targets.names,
        fitted.rule,
        seen.engine.precision,
        None if fitted.tuned else kept_of(*_taught(fitted)),
    )
    if fitted.novelty is not None:
        manifest["novelty"], tensors[NOVELTY] = fitted.novelty.to_json(), fitted.novelty.tensors()
    sure = confidence.measured(fitted)
    found = metrics(fitted, sure)
    with tempfile.TemporaryDirectory() as scratch:
        split = Path(scratch) / "split.parquet"
        used = [str(s) for s in fitted.plan.splits]
        names, labels = [str(n) for n in seen.table.names], [str(x) for x in seen.table.labels]
        fingerprint = write_split(split, names, seen.features.hashes, labels, used, seen.groups)
        manifest |= {"class_type": seen.table.kind} if seen.table.kind != "str" else {}
        manifest |= {"data_fingerprint": fingerprint, "versions": dict(versions())}
        run = run_of(command, fitted.options, settings(fitted), seen.engine, seen.features, found["seconds"])
        shown = pictures.galleries(fitted, explain)
        page = report_data(fitted, folder, title, command, fingerprint, run["created"], shown)
        page = reliability.told(fitted, sure, _with_faults(fitted, page))
        files = {
            "split.parquet": split.read_bytes(),
            "report.html": report.render_report(page).encode(),
            "README.md": report.render_card(page).encode(),
            **_lists(fitted),
        }
        write_bundle(folder, manifest=manifest, config=config, metrics=found, run=run, tensors=tensors, files=files)
        if data is not None:
            whereabouts.remember(fingerprint, data, fitted.options.cache)
    return found


def run_of(
    command: str,
    options: Options,
    recipe: Sequence[Setting],
    engine: Engine,
    features: Features,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The content of run.json."""
    return {
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "options": public(asdict(options)),
        "recipe": [asdict(setting) for setting in recipe],
        "machine": asdict(this_machine()),
        "engine": engine.name,
        "precision": engine.precision,
        "images_through_the_network": features.n_forward,
        "seconds": seconds,
    }


def _lists(fitted: Fitted) -> dict[str, bytes]:
    """What the user should look at, as CSV files."""
    seen = fitted.seen
    names, labels, splits = ([str(v) for v in c] for c in (seen.table.names, seen.table.labels, seen.table.splits))
    classes = seen.targets.names
    suspects = [
        (names[s.row], "", classes[s.suggested], labels[s.row], round(s.score, 4), s.reason(classes))
        for s in fitted.suspects
    ]
    alike = [(k, s.kind, names[r], splits[r], labels[r]) for k, s in enumerate(seen.duplicates, 1) for r in s.rows]
    wrong = mistakes_list(fitted)
    return {
        **({} if wrong is None else {"mistakes.csv": wrong}),
        "suspected_labels.csv": csv_bytes(("path", "action", "label", "given", "score", "reason"), suspects),
        "duplicates.csv": csv_bytes(("set", "kind", "path", "split", "label"), alike),
        "set_aside.csv": csv_bytes(("path", "reason"), seen.features.set_aside),
    }


def _taught(fitted: Fitted) -> tuple[Task, Material, Ints, Head, Rule]:
    """What taught the model, and what it has learned."""
    material = fitted.seen.material(fitted.options.seed)
    return fitted.method.task, material, fitted.plan.train, fitted.head, fitted.rule


def public(options: dict[str, Any]) -> dict[str, Any]:
    """Options without the private places in them: a model is handed on."""
    paths = {
        name: place_of(str(options[name])).name for name in ("weights", "backbone", "target", "cost") if options[name]
    }
    return options | paths | {"cache": None, "ray": None}


def report_data(
    fitted: Fitted,
    folder: Path,
    title: str,
    command: str,
    fingerprint: str,
    created: str,
    shown: dict[str, pictures.Pictures],
) -> report.ReportData:
    """Everything that the report and the card say."""
    seen, plan, verdict, task = fitted.seen, fitted.plan, fitted.verdict, fitted.method.task
    headline, also = _measured(fitted)
    machine = this_machine()
    return report.ReportData(
        title=title,
        model=whereabouts.handed_on(folder),
        classes=seen.targets.names,
        task=task.name,
        headline_name=task.judging.headline.name,
        headline_percent=task.judging.headline.percent,
        higher_is_better=task.judging.headline.higher_is_better,
        judging_notes=verdict.notes,
        headline=headline,
        also=also,
        baselines=_baselines(fitted),
        warnings=tuple(line for line in (no_gain_line(fitted), _leak_free_line(fitted)) if line),
        shift=_shift(fitted),
        counts=_counts(fitted),
        images={split: int((plan.splits == split).sum()) for split in ("train", "validation", "test")},
        layout=whereabouts.without_place(seen.table.layout),
        notes=(*seen.table.notes, *outcomes(fitted)),
        fingerprint=fingerprint,
        set_aside=seen.features.set_aside,
        worst=shown.get("worst", ()),
        least_certain=shown.get("least_certain", ()),
        most_certain=shown.get("most_certain", ()),
        suspects=shown.get("suspects", ()),
        n_suspects=len(fitted.suspects),
        suspects_said=str(expected(fitted.suspects)) if fitted.suspects else "",
        curve=tuple(report.CurvePoint(p["n"], p["accuracy"]) for p in fitted.curve),
        gain=fitted.curve[-1].get("gain") if fitted.curve else None,
        losses=tuple((epoch.loss, epoch.held_out_loss) for epoch in epochs_of(fitted)),
        more_epochs=(fitted.tuning.more_epochs or 0) if fitted.tuning else 0,
        rates=tuple(epoch.rate for epoch in epochs_of(fitted)),
        groups=groups_told(fitted),
        threshold=fitted.options.threshold,
        columns=_columns(fitted),
        acceptance=_acceptance(fitted),
        network=network_told(seen.backbone, seen.engine, _layers_read(fitted.head), fitted.tuned),
        candidates=_candidates(fitted),
        tried_on=_tried_on(fitted),
        recipe=tuple(report.Setting(s.name, s.value, s.source) for s in settings(fitted)),
        seconds=fitted.seconds,
        machine={"Processor": machine.processor, "Cores": str(machine.cores), "Accelerator": machine.accelerator},
        versions=versions(),
        seed=fitted.options.seed,
        command=command,
        created=created.replace("T", " ").replace("+00:00", " UTC"),
        timm=_timm_view(fitted),
    )


def _with_faults(fitted: Fitted, data: report.ReportData) -> report.ReportData:
    """With what is to be mended in the data."""
    seen = fitted.seen
    return replace(
        data,
        leak_free=None if fitted.leak_free is None else fitted.leak_free[fitted.method.task.judging.headline.name],
        shortcut=_shortcut(fitted),
        films=_films(fitted),
        detection=_detection(fitted),
        decides=any(name in fitted.rule for name in DECIDING),
        twice=fitted.curve[-1].get("twice") if fitted.curve else None,
        duplicates=pictures.duplicate_groups(fitted),
        n_duplicates=len(seen.duplicates),
        n_leaks=len(find_leaks(seen.duplicates, seen.table.splits)),
        n_conflicts=len(find_conflicts(seen.duplicates, seen.table.labels)),
    )


def _measured(fitted: Fitted) -> tuple[report.Measured, tuple[report.Measured, ...]]:
    """The headline's score, and those beside it."""
    plan, score = fitted.plan, fitted.verdict.score
    folds, repeats = score.folds or 1, score.repeats or 1
    n_train = len(plan.train) if plan.judge is not None else round(len(plan.train) * (1 - 1 / max(folds, 2)))
    headline = report.Measured(score.to_json(), plan.source, n_train, folds, repeats)
    if fitted.validation is None:
        return headline, ()
    return headline, (report.Measured(fitted.validation.to_json(), "validation folder", n_train),)


def _baselines(fitted: Fitted) -> tuple[report.Baseline, ...]:
    headline = fitted.method.task.judging.headline
    return tuple(
        report.Baseline(
            called(b, fitted.method.task),
            b.scores[b.measure],
            b.n,
            b.difference["difference"],
            b.rival[b.measure],
            b.measure.replace("_", " "),
            b.n_train,
            b.measure != headline.name or headline.percent,
        )
        for b in fitted.baselines
    )


def groups_told(fitted: Fitted) -> report.Groups | None:
    """The score by the user's groups, as the report has it."""
    found = fitted.groups
    if found is None:
        return None
    each = tuple(report.OneGroup(one.name, one.n, one.value) for one in found.each)
    return report.Groups(found.how, each, found.p, found.not_judged)


def _shift(fitted: Fitted) -> report.Shift | None:
    trust = fitted.trust
    if trust is None or not trust.shifted:
        return None
    clear = trust.apart is not None and trust.apart.clear
    return report.Shift(trust.left_out, trust.dropped, trust.apart.auroc if trust.apart is not None and clear else None)


def _leak_free_line(fitted: Fitted) -> str:
    """The headline without the judged images that have a copy among the training images; "" where none has."""
    if fitted.leak_free is None:
        return ""
    name, percent = fitted.method.task.judging.headline.name, fitted.method.task.judging.headline.percent
    what = measure(name, percent=percent)
    told = full(what, estimate(fitted.leak_free[name]), fitted.leak_free.n)
    without = "Without the judged images that are the same, or nearly the same, as a training image the"
    return f"{without} {what.name} is {told}."


def _shortcut(fitted: Fitted) -> report.Shortcut | None:
    told = fitted.shortcut
    if told is None or not told.clear:
        return None
    value = {"value": told.value, "low": told.low, "high": told.high}
    return report.Shortcut(told.label, value, f"The {shortcut_line(told)}.")


def _films(fitted: Fitted) -> int:
    """Films of which the names look like frames, where no groups were given."""
    table = fitted.seen.table
    takes = None if any(table.groups) else sequences_in([str(name) for name in table.names])
    return 0 if takes is None else len(set(takes) - {""})


def _has_view(fitted: Fitted) -> bool:
    return fitted.view is not None and bool(fitted.seen.backbone.classifier)


def _columns(fitted: Fitted) -> tuple[report.Column, ...]:
    """Truth and answer of the judged images, where values are measured."""
    marks, names = fitted.verdict.marks, fitted.seen.targets.names
    if "half_width" not in marks.columns:
        return ()
    widths = fitted.rule.get("half_widths", (float("inf"),) * len(names))
    return tuple(
        report.Column(
            name,
            marks["truth"][:, k].tolist(),
            marks["answer"][:, k].tolist(),
            widths[k] if np.isfinite(widths[k]) else None,
        )
        for k, name in enumerate(names)
    )


def _acceptance(fitted: Fitted) -> report.Acceptance | None:
    """The thresholds of a model that recognises."""
    if not isinstance(fitted.head, Identifier):
        return None
    one, two = fitted.head.recogniser.identify, fitted.head.recogniser.verify
    return report.Acceptance(one.value, two.value, one.rate, one.n, two.n)


def _detection(fitted: Fitted) -> report.Detection | None:
    """The threshold of a model that knows odd images."""
    own = fitted.head
    return report.Detection(own.rate, own.n, own.supported) if isinstance(own, Oddity) else None


def _candidates(fitted: Fitted) -> tuple[report.Candidate, ...]:
    own = fitted.method.task.own
    if own is not None:
        return tuple(report.Candidate(t.name, t.error, t.quality, t.chosen) for t in own.tried(fitted.head))
    return tuple(
        report.Candidate(
            c.head if c.taps == TUNED else f"{HEADS.get(c.head, c.head)} on {TAPS.get(c.taps, c.taps)}",
            c.log_loss,
            c.accuracy,
            c.weight > 0,
            f"weight {c.weight:.2f}" if c.weight else "",
        )
        for c in fitted.head.candidates
    )


def _tried_on(fitted: Fitted) -> str:
    """The images by which heads were compared."""
    if fitted.tuned or isinstance(fitted.head, TrainedHead):
        return "training images that were held out"
    if fitted.method.task.own is not None:
        return "training images of identities that were left out"
    also = " (for logistic regression, in five folds)" if fitted.method.task.name == "classify" else ""
    return f"the training images, each left out in turn{also}"


def _timm_view(fitted: Fitted) -> report.TimmView | None:
    if not _has_view(fitted):
        return None
    view = fitted.view_verdict.score
    headline = fitted.method.task.judging.headline.name
    return report.TimmView(fitted.view is fitted.head, view[headline], view.n, _why_other(fitted.head))


def _why_other(head: Head) -> str:
    """Why the timm view is not the model itself."""
    top = "a timm network has one linear layer on the values of its last layer"
    if isinstance(head, TrainedHead):
        return f"{top}, and the head of this model has layers of its own"
    layers = _layers_read(head)
    if layers == (LAST,):
        return (
            f"{top} as they are; the head of this model reads the same layer, but takes the square root of its values "
            "and scales those of each picture to the same length first"
        )
    reads = f"{len(layers)} layers" if len(layers) > 1 else f"the layer {layers[0]}"
    return f"{top}, and the head of this model reads {reads}"


def _layers_read(head: Head) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.block.split("/")[0] for part in head.parts))


def _counts(fitted: Fitted) -> dict[str, dict[str, int]]:
    seen, found = fitted.seen, {}
    for split in ("train", "validation", "test"):
        here = counts(seen.targets.take(fitted.plan.splits == split))
        if any(here.values()):
            found[split] = here
    return found
