"""Stored and live activations are the same; a view is one of the image itself, and epoch 0 has none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from headstart import recipe
from headstart.data.augment import augmentation, view
from headstart.data.images import content_hash
from headstart.data.table import Table, read_table
from headstart.errors import OptionError, OutputError
from headstart.finetune.at_cut import Live, Stored
from headstart.finetune.job import Session, Tuning
from headstart.finetune.together import Away
from headstart.finetune.tunable import share_of, tunable
from headstart.story.activations_of import Views, prepare
from headstart.story.options import Options, rate_of, seconds_of
from headstart.tasks.classification import CLASSIFICATION
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import extract, store_key
from headstart.trunk.network import Backbone
from headstart.trunk.pieces import Sight, finish, pieces_of
from headstart.trunk.store import Store


@pytest.fixture(scope="module")
def network() -> Backbone:
    found = open_backbone("test_efficientnet", "none")
    return found.resized(replace(found.preprocess, size=(32, 32), crop_fraction=1.0))


@pytest.fixture
def table(pictures: Path) -> Table:
    return read_table(pictures)


def hashes(table: Table) -> tuple[str, ...]:
    return tuple(content_hash(table.read(row)) for row in range(len(table)))


def prepared(network: Backbone, table: Table, options: Options) -> Tuning:
    return prepare(CLASSIFICATION, table, hashes(table), network, options, np.arange(len(table)), 1)


def activations(
    network: Backbone, table: Table, cache: Path, stage: str, said: Callable[[str], None] = lambda text: None
) -> Stored | Live:
    options = Options(tune=stage, precision="f32", cache=str(cache), epochs=12)
    reader = prepared(network, table, options).reader
    found = reader.at_cut(tunable(network, stage), np.arange(len(table)), 12, Session(say=said))
    assert isinstance(found, Stored | Live)
    return found


def test_stored_and_live_are_the_same_to_half_precision(network: Backbone, table: Table, tmp_path: Path) -> None:
    """At the same cut, for the images and for each of their views, in whichever order and number they are asked for."""
    stored = activations(network, table, tmp_path, "last")
    assert isinstance(stored, Stored)
    how = augmentation("photo", True)
    cut = tunable(network, "last").cut
    from headstart.trunk.layers import Tap
    from headstart.trunk.network import cut_at

    tap = Tap("cut", stored.shape[0], 1, ("map",), cut, stored.shape)
    below = cut_at(network, tap)
    live = Live(
        stored.shape, table, hashes(table), below, compile_trunk(below, "f32"), lambda p, h, k: view(p, how, 0, h, k)
    )
    rows = np.array([5, 0, 17, 3])
    for epoch in range(4):
        assert live.viewed(rows, epoch) == pytest.approx(stored.viewed(rows, epoch), rel=2e-3, abs=2e-3)
    assert np.array_equal(live.viewed(rows[:1], 2), live.viewed(rows, 2)[:1])
    assert np.array_equal(stored.viewed(rows, 0), stored.still(rows))
    assert np.array_equal(stored.viewed(rows, 4), stored.still(rows))  # the round begins again
    assert not np.allclose(live.viewed(rows, 1), live.still(rows), atol=1e-2)


@pytest.mark.parametrize("stage", ["last", "blocks.1", "all"])
def test_activations_travel_as_where_they_lie_and_are_the_same_there(
    network: Backbone, table: Table, tmp_path: Path, stage: str
) -> None:
    """Stored ones in the cache, live ones with what compiles the frozen part, where there is one."""
    here = activations(network, table, tmp_path, stage)
    assert isinstance(here, Stored) == (stage == "last")
    sent = pickle.dumps(Away.of(here, tmp_path))
    there = pickle.loads(sent).back(tmp_path)
    rows = np.array([5, 0, 17, 3])
    for epoch in range(5):
        assert np.array_equal(here.viewed(rows, epoch), there.viewed(rows, epoch))
    assert np.array_equal(here.still(rows), there.still(rows))
    if isinstance(here, Stored):
        shards = [*tmp_path.glob("features/*/*.parquet")]
        assert len(sent) < sum(shard.stat().st_size for shard in shards)
        for shard in shards:
            shard.unlink()
        with pytest.raises(OutputError, match="activations are missing in the cache"):
            pickle.loads(sent).back(tmp_path)


def test_a_worker_sees_the_views_that_this_process_sees(network: Backbone, table: Table, tmp_path: Path) -> None:
    """And adds them to a store that is not the one of the pictures as they are."""
    what = Views(augmentation("photo", True), 0, True)
    engine, change = compile_trunk(network, "f32"), partial(what.at, 2)
    sight = replace(
        Sight.of(network, engine, tmp_path / "there"),
        change=change,
        view=what.numbered(2),
        device="cpu",
        precision="f32",
    )
    (piece,) = pieces_of(table, len(table))
    finish(pickle.loads(pickle.dumps(sight)))(piece)
    key = store_key(network, engine) | what.numbered(2)
    seen = extract(table, network, engine, Store(tmp_path / "here", key), None, change)
    found = Store(tmp_path / "there", key).read(seen.hashes)
    assert found is not None
    assert all(np.array_equal(found.blocks[name], block) for name, block in seen.blocks.items())
    plain = extract(table, network, engine, Store(tmp_path / "here", store_key(network, engine)))
    assert not all(np.array_equal(found.blocks[name], block) for name, block in plain.blocks.items())


def test_at_the_input_nothing_is_stored(network: Backbone, table: Table, tmp_path: Path) -> None:
    said: list[str] = []
    live = activations(network, table, tmp_path, "all", said.append)
    assert isinstance(live, Live)
    assert live.shape == (3, 32, 32)
    trunk = [p for name, p in network.module.named_parameters() if not name.startswith(f"{network.classifier}.")]
    all_of_it = f"{sum(p.numel() for p in trunk):,}"
    words = f"{all_of_it} of {all_of_it} parameters learn above input (3 x 32 x 32)"
    assert said == [f"{words}: 24 images are read anew in each of 12 epochs"]
    rows = np.arange(4)
    assert np.array_equal(live.still(rows), live.viewed(rows, 0))
    seen = [live.viewed(rows, epoch) for epoch in range(1, 4)]
    assert not np.allclose(seen[0], seen[1])
    assert np.array_equal(seen[1], live.viewed(rows, 2))


def test_what_is_stored_and_what_it_spares_is_said(network: Backbone, table: Table, tmp_path: Path) -> None:
    said: list[str] = []
    activations(network, table, tmp_path, "last", said.append)
    assert len(said) == 1
    assert said[0].startswith(
        f"{tunable(network, 'last').n_parameters:,} of {network.n_parameters:,} parameters learn "
    )
    assert "of 4 views of 24 images are stored" in said[0]
    assert said[0].endswith("the frozen part runs 4 times and not 12")


def test_what_is_stored_is_of_the_images_asked_for_and_serves_their_folds(
    network: Backbone, table: Table, tmp_path: Path
) -> None:
    """A trial on a part of the images takes no pass of the others."""
    said: list[str] = []
    options = Options(tune="auto", precision="f32", cache=str(tmp_path))
    tuning, session = prepared(network, table, options), Session(say=said.append)
    last, trial = tunable(network, "last"), np.array([20, 3, 7, 11])
    part = tuning.reader.at_cut(last, trial, 12, session)
    assert isinstance(part, Stored)
    assert [len(part.values), *map(len, part.views)] == [4, 4, 4, 4]
    whole = tuning.reader.at_cut(last, np.arange(len(table)), 12, session)
    assert len(said) == 2
    for epoch in range(4):
        assert np.array_equal(part.viewed(trial, epoch), whole.viewed(trial, epoch))
    assert tuning.reader.at_cut(last, trial, 3, session) is whole
    assert isinstance(tuning.reader.at_cut(last, trial, 13, session), Stored)
    epochs = tuning.training.epochs  # of a whole training
    folds = [tuning.reader.at_cut(last, rows, epochs, session) for rows in (trial, np.arange(9, 20))]
    assert folds[0] is folds[1]
    assert len(said) == 4
    short = tuning.reader.at_cut(tunable(network, "blocks.1"), trial, 3, session)
    assert isinstance(short, Live)
    assert said[-1].endswith("and spare nothing")
    assert tuning.reader.at_cut(tunable(network, "blocks.1"), np.arange(4), 3, session) is short


def test_storing_pays_where_it_takes_fewer_passes_and_fits() -> None:
    assert recipe.caches(12, 4, 0.2, 10**9, 10**10)
    assert not recipe.caches(4, 4, 0.2, 10**9, 10**10)  # as many passes
    assert not recipe.caches(12, 4, 0.8, 10**9, 10**10)  # of a part that costs little
    assert not recipe.caches(12, 2, 0.8, 10**9, 10**10)  # which would be seen in two views alone, for 6 % of the time
    assert recipe.caches(8, 4, 0.23, 10**9, 10**10)  # the last stage of resnet18, in the fewest epochs
    assert not recipe.caches(12, 4, 0.2, 6 * 10**9, 10**10)  # not both the shards and what is read back


def test_the_share_above_a_cut_is_that_of_the_tables() -> None:
    """methods.md 2.4: layer4 of resnet18 is 22.7 % of its 1.81 G multiply-adds."""
    network = open_backbone("resnet18", "none")
    assert share_of(network, tunable(network, "layer4")) == pytest.approx(0.227, abs=0.002)
    assert share_of(network, tunable(network, "all")) == 1
    shares = [share_of(network, tunable(network, f"layer{k}")) for k in (1, 2, 3, 4)]
    assert shares == sorted(shares, reverse=True)


def test_where_storing_spares_nothing_the_network_runs_anew(
    network: Backbone, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "n_views", lambda n: 11)
    said: list[str] = []
    live = activations(network, table, tmp_path, "blocks.1", said.append)
    assert isinstance(live, Live)
    assert live.engine is not None
    assert "runs anew in each of 12 epochs" in said[0]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5 h", 5400), ("2min", 120)])
def test_budgets_are_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "-3m", "0s", "1d", "ten minutes"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is not a time: such as 90s, 10m or 2h"):
        seconds_of(text)


def test_learning_rates_are_numbers_or_find() -> None:
    assert (rate_of("1e-3"), rate_of("find"), rate_of(None)) == (1e-3, None, None)
    for text in ("0", "-1", "11", "nan", "fast", ""):
        with pytest.raises(OptionError, match="a number above 0, at most 10, or find"):
            rate_of(text)
