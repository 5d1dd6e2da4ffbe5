"""A head of the user's own layers: it learns, repeats itself, stops by images that nothing is reported on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from headstart import recipe
from headstart.data.targets import ClassNumbers
from headstart.finetune import spec
from headstart.finetune.at_cut import Stored
from headstart.finetune.design import Design, Epoch
from headstart.finetune.loop import batches, one_cycle
from headstart.finetune.objective import CROSS_ENTROPY
from headstart.finetune.own_layers import build_head
from headstart.finetune.trained_head import TrainedHead
from headstart.finetune.training import Examples, _Run, train_head
from headstart.heads.material import Material
from headstart.story import evidence
from headstart.story.plan import make_plan
from headstart.tasks.classification import CLASSIFICATION

SHAPE = (4, 3, 3)


def design(words: str = "flatten, dense 16 relu", epochs: int = 20, shape: tuple[int, ...] = SHAPE) -> Design:
    how = recipe.training(150, epochs, 16)
    return Design(words, spec.parse(words), "last_map/map", shape, how)


def maps(n: int = 150, seed: int = 0) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]:
    """Maps of three classes: each has its own bright position, which a mean over positions cannot see."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, *SHAPE))
    x[np.arange(n), :, y, y] += 3
    return x.reshape(n, -1).astype(np.float16), y


def examples(n: int = 150, seed: int = 0) -> Examples:
    values, y = maps(n, seed)
    return examples_of(values, y, "abc")


def examples_of(values: npt.NDArray[np.float16], y: npt.NDArray[np.int64], names: str) -> Examples:
    keys = [f"{k:05d}" for k in range(len(y))]
    return Examples(Stored(SHAPE, values), np.arange(len(y)), ClassNumbers(y, tuple(names)), np.arange(len(y)), keys)


def accuracy(head: TrainedHead, n: int = 300) -> float:
    values, y = maps(n, seed=9)
    return float((head.outputs({"last_map/map": values}).argmax(axis=1) == y).mean())


def test_a_head_on_maps_learns_what_a_mean_cannot_see() -> None:
    assert accuracy(train_head(design(), examples(), CROSS_ENTROPY)) > 0.9
    assert accuracy(train_head(design("gap, dense 16 relu"), examples(), CROSS_ENTROPY)) < 0.6
    assert accuracy(train_head(design("conv 8 3x3 relu, flatten"), examples(), CROSS_ENTROPY)) > 0.9


def test_a_seed_gives_the_same_head_and_the_callers_random_numbers_go_on() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, two = (train_head(design("flatten, dropout 0.3", 3), examples(), CROSS_ENTROPY, seed=0) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    other = train_head(design("flatten, dropout 0.3", 3), examples(), CROSS_ENTROPY, seed=1)
    weights = [head.module.state_dict()["2.weight"] for head in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_probabilities_do_not_depend_on_batch_mates_and_evaluation_moves_nothing() -> None:
    head = train_head(design("batchnorm, dropout 0.5, flatten, batchnorm", 2), examples(), CROSS_ENTROPY)
    before = {name: t.clone() for name, t in head.module.state_dict().items()}
    values, _ = maps(9, seed=4)
    whole = head.outputs({"last_map/map": values})
    single = np.concatenate([head.outputs({"last_map/map": values[k : k + 1]}) for k in range(9)])
    assert single == pytest.approx(whole, abs=1e-5)
    assert np.exp(whole).sum(axis=1) == pytest.approx(1)
    assert all(torch.equal(before[name], t) for name, t in head.module.state_dict().items())


def test_the_best_epoch_is_that_of_the_held_out_images_which_are_part_of_the_training_rows() -> None:
    head = train_head(design(epochs=40), examples(), CROSS_ENTROPY)
    held = [epoch.held_out_loss for epoch in head.epochs]
    assert all(loss is not None for loss in held)
    best = min(float(loss) for loss in held if loss is not None)
    assert head.candidates[0].log_loss == best
    out = ~np.isnan(head.left_out[:, 0])
    assert 0.1 <= out.mean() <= 0.2
    y = maps()[1][out]
    assert -head.left_out[out][np.arange(len(y)), y].mean() == pytest.approx(best, abs=1e-6)


def test_the_judged_images_have_no_part_in_the_head() -> None:
    """Other labels and other maps on the judged rows change nothing of it, the chosen epoch included."""
    values, y = maps()
    splits = np.array(["train"] * 100 + ["test"] * 50, dtype=object)
    keys = tuple(f"{k:05d}" for k in range(150))
    heads = []
    for changed in (False, True):
        x, labels = values.copy(), y.copy()
        if changed:
            x[100:], labels[100:] = -x[100:], (y[100:] + 1) % 3
        targets = ClassNumbers(labels, ("a", "b", "c"))
        m = Material({"last_map/map": x, "pre_logits": x[:, :8]}, targets, np.arange(150), keys, 0)
        plan = make_plan(splits, labels, m.groups, keys, 0)
        heads.append(
            evidence.final_head(
                m, plan, evidence.Method(CLASSIFICATION, (), design(epochs=5)), lambda s, t: lambda d: None
            )
        )
    states = [h.module.state_dict() for h in heads if isinstance(h, TrainedHead)]
    assert len(states) == 2
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    for n in range(1, 40):
        found = list(batches(np.arange(n), 8))
        assert np.concatenate(found).tolist() == list(range(n))
        assert all(len(batch) > 1 for batch in found) or n == 1
        assert max(map(len, found)) <= 9


def test_the_recipe_takes_what_is_given_and_trains_few_images_longer() -> None:
    assert recipe.training(200).epochs > recipe.training(20_000).epochs >= 10
    given = recipe.training(200, 7, 5, "sgd")
    assert (given.epochs, given.batch_size, given.optimizer) == (7, 5, "sgd")
    assert recipe.training(20).held_out == 0


def test_few_images_are_all_learned_from() -> None:
    few = examples(20)
    head = train_head(replace(design(epochs=5), training=recipe.training(20, 5)), few, CROSS_ENTROPY)
    assert len(head.epochs) == 5
    assert np.isnan(head.left_out).all()
    assert all(epoch.held_out_loss is None for epoch in head.epochs)


def test_the_last_epoch_is_kept_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the losses are said to be: the weights of the last epoch, and not of the first, whose loss is least."""
    few = examples_of(maps(20)[0], np.arange(20) % 2, "ab")
    how = recipe.training(20, 4)
    weights = []
    for last in (False, True):
        seen: list[Epoch] = []
        monkeypatch.setattr(_Run, "_measured", lambda run, loss: Epoch(1.0 + len(run.epochs), None, None, 0.0))
        head = train_head(replace(design(), training=how), few, CROSS_ENTROPY, progress=seen.append, keep_last=last)
        assert [epoch.loss for epoch in seen] == [1.0, 2.0, 3.0, 4.0]
        weights.append(head.module.state_dict()["1.weight"])
    monkeypatch.undo()
    whole = train_head(replace(design(), training=replace(how, patience=9)), few, CROSS_ENTROPY, keep_last=True)
    assert torch.equal(weights[1], whole.module.state_dict()["1.weight"])
    assert not torch.equal(weights[0], weights[1])


def test_the_first_weights_come_from_the_seed() -> None:
    one, two = (build_head(design(), 3, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_learning_rate_rises_falls_and_ends_whatever_the_number_of_steps() -> None:
    for steps in range(1, 60):
        rates = [one_cycle(step, steps, 0.1) for step in range(steps)]
        peak = int(np.argmax(rates))
        assert rates[peak] == 1
        assert all(0 <= rate <= 1 for rate in rates)
        assert np.all(np.diff(rates[: peak + 1]) > 0)
        assert np.all(np.diff(rates[peak:]) <= 0)
        assert rates[-1] < 0.01 or steps == 1


@pytest.mark.parametrize("n", [2, 3, 9, 10, 40])
def test_any_number_of_images_and_epochs_trains(n: int) -> None:
    values, _ = maps(n)
    y = np.arange(n) % 2
    some = examples_of(values, y, "ab")
    for epochs in (1, 2, 10):
        for batch_size in (1, 4, 64):
            how = recipe.training(n, epochs, batch_size)
            found = train_head(replace(design("flatten, dense 4 relu"), training=how), some, CROSS_ENTROPY)
            assert np.isfinite(found.outputs({"last_map/map": values})).all()
