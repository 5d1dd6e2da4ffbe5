"""What a fit found -> metrics.json, the report, the model card, the bundle on disk."""

from __future__ import annotations

import csv
import datetime
import io
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from headstart import report
from headstart.bundle import Bundle, write_bundle
from headstart.data import images
from headstart.data.duplicates import DuplicateSet, find_conflicts, find_leaks
from headstart.data.splits import write_split
from headstart.data.table import list_images, read_table
from headstart.errors import DataError, ImageError, OptionError, OutputError, nearest
from headstart.learn import recipe
from headstart.pipeline import Fitted, Options, Seen, Watcher, open_network, see
from headstart.report.page import MAX_COPIES, MAX_GROUPS
from headstart.ship.package import pack, versions
from headstart.trunk.backbone import block_names
from headstart.trunk.engine import this_machine
from headstart.trunk.weights import PACKAGES

GALLERY = 12  # pictures of a kind in the report
PREVIEW = 256  # px, the longer side: sharp on a phone, 10 to 20 KiB
BINS = 10  # of the reliability diagram


def metrics(fitted: Fitted) -> dict[str, Any]:
    """The content of metrics.json."""
    plan, view = fitted.plan, fitted.view_verdict.score
    headline = fitted.verdict.score | {"source": plan.source}
    crossed = plan.judge is None
    return {
        "validation": fitted.validation,
        "test": None if crossed else headline,
        "cross_validation": headline if crossed else None,
        "test_without_leaks": fitted.leak_free,
        "baselines": {
            b.kind.replace(" ", "_"): {"accuracy": b.accuracy, "n": b.n, "difference": b.difference}
            for b in fitted.baselines
        },
        "timm_view": {"same_model": fitted.view is fitted.probe, "n": view["n"], "accuracy": view["accuracy"]}
        if fitted.seen.backbone.classifier
        else None,
        "learning_curve": fitted.curve,
        "candidates": [asdict(c) for c in fitted.probe.candidates],
        "seconds": {stage: round(s, 3) for stage, s in fitted.seconds.items()},
    }


def save(fitted: Fitted, folder: Path, title: str, command: str) -> dict[str, Any]:
    """Write the bundle; returns the content of metrics.json. Raises OutputError."""
    seen = fitted.seen
    manifest, config, tensors = pack(seen.backbone, fitted.probe, fitted.view, seen.classes, seen.engine.precision)
    found = metrics(fitted)
    with tempfile.TemporaryDirectory() as scratch:
        split = Path(scratch) / "split.parquet"
        used = [str(s) for s in fitted.plan.splits]
        names, labels = [str(n) for n in seen.table.names], [str(x) for x in seen.table.labels]
        fingerprint = write_split(split, names, seen.features.hashes, labels, used, seen.groups)
        manifest |= {"data_fingerprint": fingerprint, "versions": dict(versions())}
        run = {
            "command": command,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "options": asdict(fitted.options),
            "recipe": [asdict(s) for s in settings(fitted)],
            "machine": asdict(this_machine()),
            "engine": seen.engine.name,
            "precision": seen.engine.precision,
            "images_through_the_network": seen.features.n_forward,
            "seconds": found["seconds"],
        }
        data = report_data(fitted, folder, title, command, fingerprint, run["created"])
        files = {
            "split.parquet": split.read_bytes(),
            "report.html": report.render_report(data).encode(),
            "README.md": report.render_card(data).encode(),
            "suspected_labels.csv": _csv(
                ("path", "label", "suggested", "score"),
                [
                    (seen.table.names[s.row], seen.table.labels[s.row], seen.classes[s.suggested], f"{s.score:.4f}")
                    for s in fitted.suspects
                ],
            ),
            "set_aside.csv": _csv(("path", "reason"), seen.features.set_aside),
        }
        write_bundle(folder, manifest=manifest, config=config, metrics=found, run=run, tensors=tensors, files=files)
    return found


def settings(fitted: Fitted) -> list[recipe.Setting]:
    """The recipe's decisions with their sources."""
    seen, plan = fitted.seen, fitted.plan
    side = seen.backbone.preprocess.size[0]
    folds, repeats = recipe.cross_validation(len(plan.train))
    judged = {
        "cross-validation": (
            f"{folds}-fold cross-validation, {repeats} repeats",
            f"fewer than {recipe.SMALL} images and no split of yours",
        ),
        "test split": (
            f"{len(plan.judge) if plan.judge is not None else 0} images held out",
            f"{recipe.SMALL} images or more and no split of yours",
        ),
    }.get(plan.source, (plan.source, "your own split"))
    size_source = (
        "set by --size"
        if fitted.options.size
        else (
            "small pictures are enlarged and not cropped (methods.md 9, EuroSAT, CIFAR-10)"
            if seen.enlarged
            else "10/7 of the training size up to 20,000 photographs (FixRes, Touvron et al. 2019)"
        )
    )
    best = [c for c in fitted.probe.candidates if c.weight]
    return [
        recipe.Setting("input size", f"{side} px", size_source),
        recipe.Setting(
            "precision",
            seen.engine.precision,
            "bfloat16 where the processor has it: same accuracy, twice the speed (methods.md 9)",
        ),
        recipe.Setting("judged by", *judged),
        recipe.Setting(
            "heads", " + ".join(f"{c.weight:.2f} {c.head} on {c.taps}" for c in best), "least leave-one-out log-loss"
        ),
        recipe.Setting(
            "penalty", ", ".join(f"{c.l2:.2g}" for c in best), "leave-one-out log-loss over 13 values, each exact"
        ),
    ]


def report_data(
    fitted: Fitted, folder: Path, title: str, command: str, fingerprint: str, created: str
) -> report.ReportData:
    """Everything that the report and the card say."""
    seen, plan, verdict = fitted.seen, fitted.plan, fitted.verdict
    folds, repeats = verdict.score.get("folds", 1), verdict.score.get("repeats", 1)
    n_train = len(plan.train) if plan.judge is not None else round(len(plan.train) * (1 - 1 / max(folds, 2)))
    also = () if fitted.validation is None else (report.Measured(fitted.validation, "validation folder", n_train),)
    leaks, conflicts = (
        find_leaks(seen.duplicates, seen.table.splits),
        find_conflicts(seen.duplicates, seen.table.labels),
    )
    galleries = _galleries(fitted)
    view = fitted.view_verdict.score
    machine = this_machine()
    warnings = []
    if fitted.leak_free:
        clean = fitted.leak_free
        warnings.append(
            f"Without the judged images that have a copy among the training images the accuracy is {clean['accuracy']['value']:.1%} (n = {clean['n']})."
        )
    return report.ReportData(
        title=title,
        model=str(folder),
        classes=seen.classes,
        headline=report.Measured(verdict.score, plan.source, n_train, folds, repeats),
        also=also,
        baselines=tuple(
            report.Baseline(b.kind, b.accuracy, b.n, b.difference["difference"] if b.difference else None)  # type: ignore[arg-type]
            for b in fitted.baselines
        ),
        warnings=tuple(warnings),
        counts=_counts(fitted),
        layout=seen.table.layout,
        notes=seen.table.notes,
        fingerprint=fingerprint,
        set_aside=seen.features.set_aside,
        worst=galleries["worst"],
        least_certain=galleries["least_certain"],
        most_certain=galleries["most_certain"],
        suspects=galleries["suspects"],
        n_suspects=len(fitted.suspects),
        duplicates=_duplicate_groups(fitted),
        n_duplicates=len(seen.duplicates),
        n_leaks=len(leaks),
        n_conflicts=len(conflicts),
        curve=tuple(report.CurvePoint(p["n"], p["accuracy"]) for p in fitted.curve),
        reliability=_reliability(fitted),
        network=_network(fitted),
        candidates=tuple(
            report.Candidate(
                f"{c.head} on {c.taps}",
                c.log_loss,
                c.accuracy,
                c.weight > 0,
                f"weight {c.weight:.2f}" if c.weight else "",
            )
            for c in fitted.probe.candidates
        ),
        recipe=tuple(report.Setting(s.name, s.value, s.source) for s in settings(fitted)),
        seconds=fitted.seconds,
        machine={"processor": machine.processor, "cores": str(machine.cores), "accelerator": machine.accelerator},
        versions=versions(),
        seed=fitted.options.seed,
        command=command,
        created=created,
        timm=report.TimmView(fitted.view is fitted.probe, view["accuracy"], view["n"])
        if seen.backbone.classifier
        else None,
    )


def _network(fitted: Fitted) -> report.Network:
    backbone, engine = fitted.seen.backbone, fitted.seen.engine
    source = backbone.weights_source
    package = source.removeprefix("package ")
    words = f"ImageNet, from the package {package}" if package in PACKAGES.values() else source
    return report.Network(
        name=backbone.name,
        weights=words,
        pretrained=source != "random weights",
        licence=backbone.licence,
        parameters=backbone.n_parameters,
        size=backbone.preprocess.size,
        engine=engine.name,
        precision=engine.precision,
        taps=tuple(dict.fromkeys(p.block.split("/")[0] for p in fitted.probe.parts)),
    )


def _counts(fitted: Fitted) -> dict[str, dict[str, int]]:
    seen, found = fitted.seen, {}
    for split in ("train", "validation", "test"):
        here = np.bincount(seen.y[fitted.plan.splits == split], minlength=len(seen.classes))
        if here.sum():
            found[split] = {name: int(n) for name, n in zip(seen.classes, here, strict=True)}
    return found


def _preview(fitted: Fitted, row: int) -> bytes:
    try:
        return images.preview(fitted.seen.table.read(row), PREVIEW)
    except ImageError:
        return b""


def _picture(fitted: Fitted, row: int, predicted: int, probability: float) -> report.Picture:
    seen = fitted.seen
    return report.Picture(
        _preview(fitted, row),
        str(seen.table.names[row]),
        str(seen.table.labels[row]),
        seen.classes[predicted],
        probability,
    )


def _galleries(fitted: Fitted) -> dict[str, tuple[report.Picture, ...]]:
    rows, p = fitted.verdict.rows, fitted.verdict.probabilities
    best, sure = p.argmax(axis=1), p.max(axis=1)
    right = best == fitted.seen.y[rows]
    order = np.argsort(-sure, kind="stable")

    def some(chosen: Any) -> tuple[report.Picture, ...]:
        return tuple(_picture(fitted, int(rows[k]), int(best[k]), float(sure[k])) for k in chosen[:GALLERY])

    return {
        "worst": some(order[~right[order]]),
        "least_certain": some(order[::-1]),
        "most_certain": some(order[right[order]]),
        "suspects": tuple(_picture(fitted, s.row, s.suggested, s.score) for s in fitted.suspects[:GALLERY]),
    }


def _duplicate_groups(fitted: Fitted) -> tuple[report.DuplicateGroup, ...]:
    """The groups shown: leaks and conflicts first."""
    seen = fitted.seen
    bad = {
        id(s)
        for s in [*find_leaks(seen.duplicates, seen.table.splits), *find_conflicts(seen.duplicates, seen.table.labels)]
    }
    order = sorted(seen.duplicates, key=lambda s: id(s) not in bad)
    return tuple(
        report.DuplicateGroup(
            s.kind,
            tuple(
                report.Copy(
                    _preview(fitted, r), str(seen.table.names[r]), str(seen.table.labels[r]), str(seen.table.splits[r])
                )
                for r in s.rows[:MAX_COPIES]
            ),
        )
        for s in order[:MAX_GROUPS]
    )


def _reliability(fitted: Fitted) -> tuple[report.ReliabilityBin, ...]:
    """Bins of equal numbers of answers by their probability."""
    p = fitted.verdict.probabilities
    sure, right = p.max(axis=1), p.argmax(axis=1) == fitted.seen.y[fitted.verdict.rows]
    order = np.argsort(sure, kind="stable")
    parts = [k for k in np.array_split(order, BINS) if len(k)]
    return tuple(report.ReliabilityBin(float(sure[k].mean()), float(right[k].mean()), len(k)) for k in parts)


def _csv(header: tuple[str, ...], rows: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def summary(fitted: Fitted, found: dict[str, Any], folder: Path) -> list[str]:
    """What the terminal shows at the end of a fit."""
    seen, verdict = fitted.seen, fitted.verdict
    source = {
        "cross-validation": f"{verdict.score.get('folds')}-fold cross-validation, {verdict.score.get('repeats')} repeats, everything chosen inside the fold",
        "test split": "held-out images, touched once",
        "test folder": "your test images, touched once",
        "validation folder": "your validation images, touched once",
    }[fitted.plan.source]
    lines = ["", f"accuracy       {_interval(verdict.score['accuracy'])}  n = {verdict.score['n']}  ({source})"]
    lines += [f"{b.kind:14s} {_interval(b.accuracy)}  n = {b.n}" for b in fitted.baselines]
    weakest = [c for c in verdict.score["per_class"] if c["recall"]["value"] is not None]
    if weakest:
        worst = min(weakest, key=lambda c: c["recall"]["value"])
        lines.append(f"weakest class  {worst['class']}: {worst['recall']['value']:.1%} of its {worst['n']} found")
    if seen.features.set_aside:
        lines.append(f"set aside      {len(seen.features.set_aside)} unreadable files (set_aside.csv)")
    if seen.duplicates:
        leaks = len(find_leaks(seen.duplicates, seen.table.splits))
        lines.append(
            f"duplicates     {len(seen.duplicates)} sets" + (f", {leaks} across your own parts" if leaks else "")
        )
    if fitted.suspects:
        lines.append(f"labels         {len(fitted.suspects)} may be wrong (suspected_labels.csv)")
    if seen.backbone.weights_source == "random weights":
        lines.append("note           the network has random weights: this is no transfer")
    total = sum(fitted.seconds.values())
    lines.append(
        f"time           {total:.1f} s, {seen.features.n_forward} of {len(seen.features)} images went through the network"
    )
    return [*lines, "", f"report         {folder / 'report.html'}", f"next           headstart predict {folder} IMAGES"]


def score_lines(scored: dict[str, Any]) -> list[str]:
    """A score for the terminal."""
    lines = [f"{name:18s} {_interval(scored[name])}" for name in ("accuracy", "balanced_accuracy", "macro_f1")]
    lines.append(f"{'log_loss':18s} {scored['log_loss']['value']:.3f}")
    lines.append(f"{'n':18s} {scored['n']}")
    for row in scored["per_class"]:
        recall, precision = row["recall"]["value"], row["precision"]["value"]
        shown = [
            f"{what} {value:.1%}" for what, value in (("recall", recall), ("precision", precision)) if value is not None
        ]
        lines.append(f"  {row['class']}: {', '.join(shown) or 'no images'} (n = {row['n']})")
    return lines


def model_lines(bundle: Bundle) -> list[str]:
    """What `headstart report` shows of a saved model."""
    found, manifest = bundle.metrics, bundle.manifest
    headline = found.get("test") or found.get("cross_validation") or {}
    lines = [
        f"model          {bundle.folder}",
        f"classes        {len(manifest['classes'])}: {', '.join(manifest['classes'][:10])}",
        f"network        {manifest['backbone']['name']} ({manifest['backbone']['weights_source']})",
    ]
    if headline:
        lines.append(
            f"accuracy       {_interval(headline['accuracy'])}  n = {headline['n']}  ({headline.get('source', '')})"
        )
    page = bundle.folder / "report.html"
    return [*lines, f"report         {page if page.exists() else 'is gone from the folder'}"]


def inspection(seen: Seen) -> dict[str, Any]:
    """The JSON of `headstart inspect`."""
    table = seen.table

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
        "classes": {
            name: {split: int(((seen.y == k) & (table.splits == split)).sum()) for split in sorted(set(table.splits))}
            for k, name in enumerate(seen.classes)
        },
        "images": len(table),
        "set_aside": [{"path": name, "reason": reason} for name, reason in seen.features.set_aside],
        "notes": list(table.notes),
        "duplicates": told(seen.duplicates),
        "leaks": told(find_leaks(seen.duplicates, table.splits)),
        "conflicts": told(find_conflicts(seen.duplicates, table.labels)),
        "imbalance": round(
            float(max(np.bincount(seen.y)) / max(1, min(np.bincount(seen.y, minlength=len(seen.classes))))), 2
        ),
    }


def inspection_lines(found: dict[str, Any]) -> list[str]:
    """The same for the terminal."""
    lines = [f"{found['images']} images can be read, {len(found['set_aside'])} cannot"]
    lines += [f"  {record['path']}: {record['reason']}" for record in found["set_aside"]]
    for name, splits in found["classes"].items():
        lines.append(
            f"class {name}: "
            + ", ".join(f"{split} {count}" if split != "none" else str(count) for split, count in splits.items())
        )
    lines.append(f"largest class / smallest class: {found['imbalance']}")
    for title, key in (
        ("duplicate sets", "duplicates"),
        ("of them across your own parts (leaks)", "leaks"),
        ("of them with different labels", "conflicts"),
    ):
        lines.append(f"{title}: {len(found[key])}")
    lines += [f"  {s['kind']}: {' = '.join(s['paths'])}" for s in found["duplicates"]]
    return lines


def write_features(
    data: str, out: Path, layer: str | None, options: Options, watch: Watcher
) -> tuple[int, dict[str, int], list[dict[str, str]]]:
    """Features of a data set (labelled or not) as Parquet: path, label, split, hash and one float16 list a block.

    Returns (images, {block: features}, set aside). Raises OptionError for an unknown layer, OutputError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = read_table(data, min_classes=1)
    except DataError:
        table = list_images([data])
    backbone, engine = open_network(table, options)
    names = block_names(backbone)
    if layer is not None and layer not in names:
        raise OptionError(f"layer {layer!r} is not known{nearest(layer, names)}: one of {', '.join(names)}")
    features = see(table, backbone, engine, options, watch.bar("network", len(table)))
    kept = table.take(features.kept)
    chosen = {name: block for name, block in features.blocks.items() if layer in (None, name)}
    columns: dict[str, Any] = {
        "path": kept.names.tolist(),
        "label": kept.labels.tolist(),
        "split": kept.splits.tolist(),
        "content_hash": list(features.hashes),
    }
    for name, block in chosen.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
    partial = out.with_name(f".{out.name}.partial")
    try:
        pq.write_table(pa.table(columns), partial)
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"features cannot be written to {out} ({error.strerror}): choose another -o") from None
    finally:
        partial.unlink(missing_ok=True)
    return (
        len(kept),
        {name: block.shape[1] for name, block in chosen.items()},
        [{"path": n, "reason": r} for n, r in features.set_aside],
    )


def _interval(metric: dict[str, Any]) -> str:
    return f"{metric['value']:6.1%}  [{metric['low']:.1%}, {metric['high']:.1%}]"
