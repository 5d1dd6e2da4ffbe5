"""`headstart rank` and `--backbone auto`: what is looked at, who wins, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Run
from headstart.cli.ranking import WIDTH, lines
from headstart.data.table import Table, read_table
from headstart.errors import BackboneError, HeadstartError, OptionError
from headstart.files.bundle import MANIFEST
from headstart.heads.transferability import leep, logme, nce
from headstart.story import candidates
from headstart.story.candidates import Candidate, gathered, named, to_fetch
from headstart.story.options import Options, auto_words, check
from headstart.story.pipeline import learn
from headstart.story.plan import make_plan
from headstart.story.rank import Asked, part_of, rank
from headstart.story.ranked import Ranked, Ranking, choose
from headstart.tasks.classification import CLASSIFICATION

HOW = Options(size=64, precision="f32")
Two = tuple[Candidate, ...]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of the user's own."""
    from safetensors.torch import save_file

    from headstart.trunk.backbone import open_backbone

    file = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_file(open_backbone("test_efficientnet", "none", 3).module.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def two(weights: Path) -> Two:
    """Networks that learned nothing: which of them is better does not matter here."""
    drawn = Candidate("test_efficientnet", "test_efficientnet", "none")
    return drawn, Candidate("own", "test_efficientnet", str(weights))


def ranked(table: Table, candidates: Two) -> Ranking:
    return rank(CLASSIFICATION, table, HOW, Asked(candidates))


def told(found: Ranking) -> list[tuple[object, ...]]:
    """What does not depend on the clock."""
    rows = sorted(found.rows, key=lambda row: row.name)
    return [(row.name, row.images, row.score, row.dropped) for row in rows]


@pytest.fixture(scope="module")
def table(parted: Path) -> Table:
    return read_table(parted)


@pytest.fixture(scope="module")
def both(table: Table, two: Two) -> Ranking:
    return ranked(table, two)


def row(name: str, behind: tuple[float, float, float] | None, dropped: bool = False) -> Ranked:
    score = {"value": 0.9, "low": 0.8, "high": 0.95}
    gap = None if behind is None else dict(zip(("value", "low", "high"), behind, strict=True))
    return Ranked(name, name, "auto", 100, score, gap, 100.0, 1.0, 2.0, 0.4, 75.0, dropped, {})  # type: ignore[arg-type]


def test_what_is_judged_by_is_not_looked_at(table: Table, two: Two, both: Ranking) -> None:
    """Nonsense in the test images and labels changes nothing."""
    judged = table.splits == "test"
    sources, labels = list(table.sources), table.labels.copy()
    for number in np.flatnonzero(judged):
        sources[number] = replace(sources[number], path=Path("nowhere.png"))
        labels[number] = "moss"
    assert told(ranked(replace(table, sources=tuple(sources), labels=labels), two)) == told(both)


def test_neither_the_order_of_the_networks_nor_that_of_the_images_matters(
    table: Table, two: Two, both: Ranking
) -> None:
    back = ranked(table.take(np.arange(len(table))[::-1]), two[::-1])
    assert told(both) == told(back)
    assert both.chosen.name == back.chosen.name
    assert told(both) == told(ranked(table, two))


def test_one_network_is_chosen_as_it_is(table: Table, two: Two) -> None:
    found = ranked(table, two[:1])
    assert (found.chosen.name, found.chosen.behind) == (two[0].name, None)
    assert "the only one" in found.why


def test_equals_go_to_the_cheapest_and_the_rest_to_the_best() -> None:
    """Rows stand in the order of their price: one within a standard error of the best is taken before it."""
    best = row("dear", None)
    near, far = (-0.01, -0.05, 0.03), (-0.03, -0.05, -0.01)
    assert choose([row("cheap", near), best]).name == "cheap"
    assert choose([row("cheap", far), best]).name == "dear"
    assert choose([row("cheap", near, dropped=True), best]).name == "dear"
    assert choose([row("cheap", (0.0, -0.02, 0.02)), row("middle", near), best]).name == "cheap"


def test_a_part_holds_whole_groups_and_all_classes_and_is_drawn_by_content(table: Table) -> None:
    names = np.array([f"{label} {k // 3}" for k, label in enumerate(table.labels)], dtype=object)
    grouped = replace(table, groups=names).take(table.teaching)
    part = part_of(CLASSIFICATION, grouped, 0, most=12)
    assert len(part.rows) <= 12
    for n in (1, 6, 12):
        taken = set(part.beginning(n))
        for name in set(grouped.groups[list(taken)]):
            assert set(np.flatnonzero(grouped.groups == name)) <= taken
    again = part_of(CLASSIFICATION, replace(grouped, names=grouped.names[::-1]), 0, most=12)
    assert part.rows.tolist() == again.rows.tolist()
    assert part.rows.tolist() != part_of(CLASSIFICATION, grouped, 1, most=12).rows.tolist()


def test_images_that_chose_the_network_judge_nothing() -> None:
    rng = np.random.default_rng(0)
    n = 6000
    strata, groups, keys = rng.integers(0, 3, n), rng.permutation(n), [f"{k:05d}" for k in range(n)]
    groups[1] = groups[0]
    spent = frozenset(keys[1:2000])
    splits = np.full(n, "none", object)
    plan = make_plan(splits, strata, groups, keys, 0, spent=spent)
    assert plan.judge is not None
    assert not spent & {keys[row] for row in plan.judge}
    assert 0 not in plan.judge  # of one group with an image that chose
    assert len(plan.judge) == pytest.approx(0.2 * n, rel=0.01)


def test_fit_goes_on_with_the_features_of_the_ranking(table: Table, weights: Path, tmp_path: Path) -> None:
    how = replace(HOW, backbone=f"auto:test_efficientnet={weights}", cache=str(tmp_path))
    learned = learn(table, how)
    found = learned.seen.ranking
    assert found is not None
    assert (learned.options.backbone, learned.options.weights) == ("test_efficientnet", str(weights))
    assert learned.seen.features.n_forward == len(table) - len(found.hashes)
    assert str(weights.parent) not in json.dumps(found.to_json(private=False))


def test_what_may_be_fetched_is_free_and_beaten_by_no_cheaper_one() -> None:
    found = to_fetch()
    assert 2 <= len(found) <= candidates.MOST
    cost = [c.entry.gmacs for c in found if c.entry]
    assert len(cost) == len(found)
    assert sorted(cost, reverse=True) == cost
    assert sorted((c.prior for c in found), reverse=True) == [c.prior for c in found]
    assert not any(c.entry.gated or c.entry.non_commercial for c in found if c.entry)


def test_names_are_networks_folders_and_files_once_each(tmp_path: Path) -> None:
    weights, model = tmp_path / "mine.pth", tmp_path / "model"
    weights.write_bytes(b"")
    model.mkdir()
    (model / MANIFEST).write_text("{}")
    found = named(f" ResNet18,resnet18 ,{model}, mobilenet_v2={weights}")
    assert [(c.name, c.weights) for c in found] == [
        ("resnet18", "auto"),
        ("model", "auto"),
        ("mobilenetv2_100=mine.pth", str(weights)),
    ]


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ("resnet81", BackboneError, "did you mean resnet18"),
        (" , ", OptionError, "no network is named"),
        ("resnet18=none.pth", BackboneError, "does not exist"),
    ],
)
def test_a_name_that_there_is_not_is_refused(words: str, error: type[HeadstartError], said: str) -> None:
    with pytest.raises(error, match=said):
        gathered(words, False)


def test_what_is_of_one_network_is_refused_beside_auto() -> None:
    assert [auto_words(name) for name in ("auto", "auto:a,b", "resnet18")] == ["", "a,b", None]
    for wrong in (Options("auto", weights="none"), Options("auto:a", layer="x")):
        with pytest.raises(OptionError, match="of one network"):
            check(wrong)


def test_the_command_says_what_json_says_in_100_columns(parted: Path, run: Run, two: Two, both: Ranking) -> None:
    network = f"test_efficientnet={two[1].weights}"
    words = ["--size", "64", "--precision", "f32", "--backbones", network, "--diagnostics", "--budget", "2h"]
    found = run("rank", parted, "--json", *words)
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert said["chosen"] == "test_efficientnet=own.safetensors"
    assert set(said["networks"][0]["diagnostics"]) == {"nce", "leep", "logme"}
    refused = run("rank", parted, "--backbones", "resnet81")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert max(map(len, lines(both))) <= WIDTH


def test_diagnostics_know_a_network_that_tells_the_classes_apart() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    knows, guesses = np.eye(3)[y] * 9 + rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    for of in (nce, leep, logme):
        assert of(knows, y) > of(guesses, y) + 0.1
    assert nce(np.eye(3)[y], y) == pytest.approx(0)
    assert leep(np.zeros((60, 4)), y) == pytest.approx(-np.log(3))
