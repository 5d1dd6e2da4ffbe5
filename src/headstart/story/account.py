"""What a fit did, in words: every setting with its source, and what tuning it or adding to it changed."""

from __future__ import annotations

from headstart import recipe, report
from headstart.counted import count, counted
from headstart.finetune.design import Epoch
from headstart.finetune.objective import CROSS_ENTROPY
from headstart.finetune.record import ACCURACY, Compared, TuningRecord
from headstart.finetune.trained_head import TrainedHead
from headstart.judge.marks import Interval, ends
from headstart.story.growth import Growth
from headstart.story.pipeline import Fitted
from headstart.trunk import catalog
from headstart.trunk.engine import Engine
from headstart.trunk.network import Backbone
from headstart.trunk.weights import PACKAGES

HEADS = {"ridge": "ridge", "lda": "shrunk LDA", "logistic": "logistic regression"}
TAPS = {"last": "the last layer", "plain": "the last layer", "all": "all stages", "late": "the upper stages"}


def settings(fitted: Fitted) -> list[recipe.Setting]:
    """The recipe's decisions with their sources."""
    seen, plan = fitted.seen, fitted.plan
    height, width = seen.backbone.preprocess.size
    score = fitted.verdict.score
    folds, repeats = score.folds or 1, score.repeats or 1
    judged = {
        "cross-validation": (
            f"{folds}-fold cross-validation" + (f", {repeats} times with new folds" if repeats > 1 else ", once"),
            f"fewer than {recipe.SMALL:,} images and no split of yours",
        ),
        "test split": (
            f"{counted(len(plan.judge) if plan.judge is not None else 0, 'image')} held out",
            f"{recipe.SMALL:,} images or more and no split of yours",
        ),
        "test folder": ("your test images", "your own split"),
        "validation folder": ("your validation images", "your own split"),
    }[plan.source]
    size_source = (
        "set by --size"
        if fitted.options.size
        else (
            "small pictures are enlarged and not cropped (measured on EuroSAT and CIFAR-10)"
            if seen.enlarged
            else "10/7 of the training size up to 20,000 photographs (FixRes, Touvron et al. 2019)"
        )
    )
    return [
        *ranking_settings(fitted),
        *pairing_settings(fitted),
        recipe.Setting("input size", f"{height} px" if height == width else f"{height} x {width} px", size_source),
        *view_settings(fitted),
        recipe.Setting(
            "precision",
            seen.engine.precision,
            "set by --precision"
            if fitted.options.precision != "auto"
            else "bfloat16 where the processor has it: same accuracy, twice the speed (measured)",
        ),
        recipe.Setting("judged by", *judged),
        *_head_settings(fitted),
        *([] if fitted.target is None else [fitted.target.setting()]),
    ]


def ranking_settings(fitted: Fitted) -> list[recipe.Setting]:
    """Which network `--backbone auto` chose, and why."""
    found = fitted.seen.ranking
    if found is None:
        return []
    rows = ", ".join(f"{row.name} {_written(row.score, found.percent)}" for row in found.rows)
    source = f"{found.why.partition(': ')[2]}; left-out {found.measure.replace('_', ' ')} of those images: {rows}"
    return [recipe.Setting("network", f"{found.chosen.name} by --backbone auto", source)]


def pairing_settings(fitted: Fitted) -> list[recipe.Setting]:
    """Whether the second network of `--backbone A+B` was kept, and why."""
    found = fitted.seen.pairing
    if found is None:
        return []
    words = f"{found.first} and {found.second}, side by side" if found.kept else f"{found.first} alone"
    cost = f"; {found.cost}" if found.kept else ""
    return [recipe.Setting("networks", words, f"{found.why.partition(': ')[2]}{cost}")]


def view_settings(fitted: Fitted) -> list[recipe.Setting]:
    """What the network saw of each picture, and why."""
    asked, how, sight = fitted.options.view, fitted.seen.backbone.preprocess, fitted.seen.sight
    words = {
        "shortest": "the middle" + (f", {how.crop_fraction:g} of the short side" if how.crop_fraction < 1 else ""),
        "squash": "all of it, " + ("squeezed into a square" if how.size[0] == how.size[1] else "in the shape of most"),
        "pad": "all of it in its own shape, with borders",
    }[how.resize]
    if sight:
        source = sight.why.partition(": ")[2]
    elif asked != "auto":
        source = f"set by --view {asked}"
    elif how.resize == "squash":
        source = "the whole picture, as this task or this network wants it"
    else:
        source = "as the network was trained" if how.crop_fraction < 1 else "small pictures are not cropped"
    found = [recipe.Setting("view", words, source)]
    if how.views > 1:
        found.append(
            recipe.Setting(
                "views",
                "the picture and its mirror image, features averaged",
                "set by --views 2: twice the network's time",
            )
        )
    return found


def _head_settings(fitted: Fitted) -> list[recipe.Setting]:
    own = fitted.method.task.own
    if own is not None:
        return list(own.settings(fitted.head))
    if fitted.tuning:
        return _tuning_settings(fitted, fitted.tuning)
    if isinstance(fitted.head, TrainedHead):
        how, stopped = fitted.head.design.training, len(fitted.head.epochs)
        held = (
            f"{100 * how.held_out:.0f} % of the training images held out to say when to stop"
            if how.held_out
            else "all epochs, since no image was held out to say when to stop"
        )
        words = (
            f"{how.optimizer}, peak rate {how.rate:g}, {stopped} of {counted(how.epochs, 'epoch')}, "
            f"batches of {counted(how.batch_size, 'image')}"
        )
        return [
            recipe.Setting("head", fitted.head.design.words, f"set by --head, reads {fitted.head.design.block}"),
            recipe.Setting("training", words, f"one cycle (Smith 2018); {held}"),
        ]
    best = [c for c in fitted.head.candidates if c.weight]
    return [
        recipe.Setting(
            "head",
            " + ".join(f"{HEADS.get(c.head, c.head)} on {TAPS.get(c.taps, c.taps)}" for c in best),
            "lowest left-out log-loss" + (", equal parts of those within a tenth of it" if len(best) > 1 else ""),
        ),
        recipe.Setting(
            "penalty",
            ", ".join(f"{c.l2:.2g}" for c in best),
            f"lowest left-out log-loss of {len(recipe.LOGISTIC_PENALTIES)} values for logistic regression, "
            f"of {len(recipe.PENALTIES)} for the other heads",
        ),
    ]


def _tuning_settings(fitted: Fitted, record: TuningRecord) -> list[recipe.Setting]:
    assert fitted.method.tuning is not None
    how, part = fitted.method.tuning.training, record.part
    kept = "kept" if record.kept else f"frozen is enough: {record.why}"
    if part is None:
        return [recipe.Setting("tuned", "nothing", f"set by --tune {fitted.options.tune}; {kept}")]
    modules, parameters = counted(part.modules, "module"), counted(part.parameters, "parameter")
    words = f"{modules}, {parameters} above {part.cut}"
    epochs = f"{len(part.epochs)} of {counted(how.epochs, 'epoch')}"
    training = f"{how.optimizer}, peak rate {part.rate:g}, {epochs}"
    if record.more_epochs:
        training += f", {record.more_epochs} more with the held-out images"
    found = [
        recipe.Setting("tuned", words, f"set by --tune {fitted.options.tune}; {kept}"),
        recipe.Setting("training", training, "LP-FT (Kumar et al. 2022), one cycle (Smith 2018), moving average"),
        recipe.Setting("arithmetic", part.arithmetic, "the fastest on this machine, measured"),
    ]
    if part.workers is not None:
        found.append(recipe.Setting("trained by", f"{counted(part.workers, 'worker')} of a cluster", "set by --ray"))
    if record.kept:
        loss = "log-loss" if fitted.method.task.objective is CROSS_ENTROPY else "loss"
        share = f"{100 * part.alpha:.0f} % tuned, the rest frozen" if part.alpha < 1 else "tuned"
        mixed = f"mixed by the held-out {loss} (WiSE-FT, Wortsman et al. 2022)"
        found.append(recipe.Setting("weights", share, mixed))
        found.append(recipe.Setting("head", part.head, f"lowest held-out {loss}"))
    return found


def tuning_line(record: TuningRecord) -> str:
    """What tuning was worth, in one line."""
    found, part = record.compared, record.part
    if found is None or part is None:
        if not record.kept or part is None:
            return f"frozen is enough: {record.why}"
        return f"tuned above {part.cut}; too few images to hold some out and compare"
    verdict = "the tuned model was kept" if record.kept else "frozen is enough, the frozen model was kept"
    if record.more_epochs:
        verdict += " and learned from them too"
    measure = "" if found.measure == ACCURACY else f"{found.measure.replace('_', ' ')} "
    frozen, tuned = (_written(score, found.percent) for score in (found.frozen, found.tuned))
    return (
        f"on {counted(found.n, 'held-out training image')}: {measure}frozen {frozen}, tuned above {part.cut} {tuned} "
        f"({_gained(found)}); {verdict}"
    )


def _written(score: Interval, percent: bool) -> str:
    return _percent(score) if percent else f"{ends(score)[0]:.4g}"


def _gained(found: Compared) -> str:
    """What tuning changed of the measure and of the loss, with their intervals."""
    loss = _losses(found.loss_difference, "log-loss" if found.measure == ACCURACY else "loss")
    if found.percent:
        return f"{_change(found.tuned, found.frozen, found.difference)}{loss}"
    value, low, high = ends(found.difference)
    return f"change {value:+.3g}, {low:+.3g} to {high:+.3g}{loss}"


def _percent(score: Interval) -> str:
    return f"{100 * ends(score)[0]:.1f} %"


def _change(now: Interval, before: Interval, difference: Interval) -> str:
    """The difference of two accuracies as they are written, with its interval."""
    value = round(100 * ends(now)[0], 1) - round(100 * ends(before)[0], 1)
    _, low, high = ends(difference)
    return f"change {value:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}"


def _losses(difference: Interval, word: str) -> str:
    """A difference of losses with its interval; nothing where that has no ends."""
    if difference["low"] is None:
        return ""
    value, low, high = ends(difference)
    return f"; {word} {value:+.3f}, {low:+.3f} to {high:+.3f}"


def epochs_of(fitted: Fitted) -> tuple[Epoch, ...]:
    """The loss curve of a trained head or a tuned network; empty for the closed-form heads."""
    if fitted.tuning:
        return fitted.tuning.epochs
    return fitted.head.epochs if isinstance(fitted.head, TrainedHead) else ()


def growth_line(growth: Growth) -> str:
    """What adding to a model did, in one line."""
    new = growth.new_names
    more = f" and {count(len(new) - 5)} more" if len(new) > 5 else ""
    classes = f", {counted(len(new), 'new class', 'new classes')} ({', '.join(new[:5])}{more})" if new else ""
    change = _change(growth.after, growth.before, growth.difference)
    return (
        f"{counted(growth.images, 'image')}{classes} added to {growth.model}; on {count(growth.n)} of its own images "
        f"that judge it the accuracy was {_percent(growth.before)} and is {_percent(growth.after)} ({change})"
    )


def outcomes(fitted: Fitted) -> list[str]:
    """What adding to a model, moving it to the place of use, or tuning it, did."""
    lines = [growth_line(fitted.growth)] if fitted.growth else []
    if fitted.target is not None and fitted.target.differs:
        lines.append(fitted.target.said())
    return [*lines, *([tuning_line(fitted.tuning)] if fitted.tuning else [])]


def no_gain_line(fitted: Fitted) -> str | None:
    """That the judged images show no gain of tuning, or a loss beyond doubt; None where they show one."""
    found = next((b for b in fitted.baselines if b.kind == "frozen"), None)
    if not fitted.tuned or found is None:
        return None
    gain, frozen, tuned = found.difference["difference"], found.scores[found.measure], found.rival[found.measure]
    if gain["low"] is None or gain["low"] > 0:
        return None
    again = "Fit it again without --tune" + (", or with --tune auto." if fitted.options.tune != "auto" else ".")
    of = "" if found.measure == "accuracy" else "in balanced accuracy "
    change = (
        f"on {counted(found.n, 'judged image')}: {of}frozen {_percent(frozen)}, tuned {_percent(tuned)} "
        f"({_change(tuned, frozen, gain)})"
    )
    if ends(gain)[2] < 0:
        return f"Tuning made it worse {change}. The frozen network is better here. {again}"
    return f"No gain of tuning is shown {change}. The frozen network may be as good, in seconds. {again}"


def network_told(backbone: Backbone, engine: Engine, taps: tuple[str, ...], tuned: bool) -> report.Network:
    """What the page says of a network; `taps`: the layers that the head reads."""
    source = backbone.weights_source
    package = source.removeprefix("package ")
    words = f"ImageNet, from the package {package}" if package in PACKAGES.values() else source
    terms = [] if backbone.random else catalog.terms(backbone.name, backbone.licence)
    return report.Network(
        name=backbone.name,
        weights=words,
        pretrained=source != "random weights",
        licence=backbone.licence,
        terms="".join(terms),
        parameters=backbone.n_parameters,
        size=backbone.preprocess.size,
        engine=engine.name,
        precision=engine.precision,
        chain=backbone.chain,
        taps=taps,
        tuned=tuned,
    )
