"""Report data -> the model card README.md of a bundle, with the front matter that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import Markup

from headstart.report import numbers, page, words
from headstart.report.classes import class_tables
from headstart.report.content import Measured, ReportData
from headstart.report.numbers import estimate
from headstart.report.sections import telling_of
from headstart.report.telling import Table, Telling

# SPDX names (small letters) that the Hub knows under the same word; any other is "other", with its name if it has one.
HUB_LICENCES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "unlicense", "unknown",
}  # fmt: skip
LICENCE_NAME = re.compile("[a-z0-9][a-z0-9._-]*")  # what the Hub takes for a name
HUB = "hub "  # before the repository, where weights say where they came from
LISTED_CLASSES = 30  # named in the first lines; more are in headstart.json


def render_card(data: ReportData) -> str:
    """The model card as Markdown (UTF-8) with YAML front matter whose values are JSON."""
    env = page.environment(code=code, md=markdown)
    shared, telling = page.shared_parts(data), telling_of(data)
    for key in ("model", "model_python", "timm_python"):
        shared[key] = Markup(
            " ".join(str(shared[key]).splitlines())
        )  # in a fenced block, where Markdown reads no entities
    names = [str(code(name)) for name in data.classes]
    text = env.get_template("card.md.jinja").render(
        data=data,
        telling=telling,
        front=Markup(front_matter(data)),  # JSON: nothing in it can end the front matter
        how=" ".join([words.how_measured(data.headline), *(f"{page.sentence(n)}." for n in data.judging_notes)]),
        classes=Markup(words.listing(names, LISTED_CLASSES)),  # each name is a code span already
        tables=[_written(table) for table in telling.tables(data)],
        **shared,
        **class_tables(data),
        parameters=numbers.millions(data.network.parameters) if data.network else "",
        versions=", ".join(f"{name} {value}" for name, value in data.versions.items()),
    )
    return re.sub(r"\n{3,}", "\n\n", page.clean(text))


def front_matter(data: ReportData) -> str:
    """The lines between the two `---`: one key a line, each value JSON, which is YAML too."""
    telling = telling_of(data)
    results = [_result(m, data.title, telling) for m in (data.headline, *data.also)]
    front: dict[str, Any] = {
        "library_name": "headstart",
        **({"pipeline_tag": telling.hub.pipeline} if telling.hub.pipeline else {}),
        "tags": [*telling.hub.tags, "transfer-learning", "headstart", "timm"],
        **_origin(data),
        "metrics": list(dict.fromkeys(metric["type"] for metric in results[0]["metrics"])),
        "model-index": [{"name": data.title, "results": results}],
    }
    return "\n".join(f"{key}: {_yaml(value)}" for key, value in front.items())


def _origin(data: ReportData) -> dict[str, str]:
    """The licence in the Hub's words, and the repository there that the weights came from."""
    network = data.network
    if network is None or not network.pretrained:
        return {}
    licence = network.licence.lower()
    known = {"license": licence} if licence in HUB_LICENCES else {}
    if not known and LICENCE_NAME.fullmatch(licence):
        known = {"license": "other", "license_name": licence}
    from_hub = [source.removeprefix(HUB) for source in (*network.chain, network.weights) if source.startswith(HUB)]
    return known | ({"base_model": from_hub[0]} if from_hub else {})


def _yaml(value: Any) -> str:
    """JSON, without what YAML 1.2 does not allow inside quotes."""
    text = json.dumps(_clean(value), ensure_ascii=False, allow_nan=False)
    return text.replace("\u2028", " ").replace("\u2029", " ")


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return page.clean(value)
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _result(measured: Measured, title: str, telling: Telling) -> dict[str, Any]:
    hub = telling.hub
    found = [(kind, name, estimate(measured.score.get(key))) for key, (kind, name) in hub.metrics.items()]
    return {
        "task": {"type": hub.pipeline or hub.tags[0], "name": hub.name},
        "dataset": {"type": "imagefolder", "name": title, "split": words.source_name(measured).removeprefix("your ")},
        "metrics": [{"type": kind, "name": name, "value": est.value} for kind, name, est in found if est is not None],
    }


def _written(table: Table) -> dict[str, Any]:
    """A table of the card as Markdown: names from the data as code, the rest with its signs made harmless."""
    lines = [table.columns, ("---",) * len(table.columns)]
    rows = [(code(first), *map(markdown, rest)) for first, *rest in table.rows]
    return {
        "heading": table.heading,
        "caption": Markup(table.caption),
        "lines": [Markup("| " + " | ".join(cells) + " |") for cells in (*lines, *rows)],
    }


def code(text: str) -> Markup:
    """A code span that shows the text as it is, whatever it holds; safe in a table."""
    line = " ".join(str(text).split()) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|"))


def markdown(text: str) -> Markup:
    """Free text on one line with the signs of Markdown and HTML made harmless."""
    line = " ".join(str(text).split())
    return Markup(
        re.sub(r"([\\`*\[\]|#]|\b_|_\b|(?<!\w)_(?!\w))", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")
    )
