"""A head in words: what it builds, and where it is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headstart.errors import OptionError
from headstart.finetune.own_layers import build
from headstart.finetune.spec import Layer, parse, pooling


def shapes(spec: str, shape: tuple[int, ...], n_classes: int = 4) -> list[tuple[int, ...]]:
    """The shape after each module for two inputs, by running them."""
    x, found = torch.randn(2, *shape), []
    for module in build(parse(spec), shape, n_classes, spec):
        x = module(x)
        found.append(tuple(x.shape[1:]))
    return found


@pytest.mark.parametrize(
    ("spec", "shape", "expected"),
    [
        ("flatten, dense 256 relu, dense", (8, 5, 5), [(200,), (256,), (256,), (4,)]),
        ("gap, dropout 0.2, dense 128 relu", (8,), [(8,), (128,), (128,), (4,)]),
        ("conv 16 3x3 relu, gap", (8, 5, 5), [(16, 5, 5), (16, 5, 5), (16, 1, 1), (16,), (4,)]),
        ("gap, batchnorm, dense 512 relu, dropout 0.5", (8,), [(8,), (512,), (512,), (512,), (4,)]),
        ("maxpool, conv 4 1x1, flatten", (8, 5, 5), [(8, 2, 2), (4, 2, 2), (16,), (4,)]),
        ("GAP,Dense", (8,), [(4,)]),
    ],
)
def test_layers_do_what_their_words_say(spec: str, shape: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
    assert shapes(spec, shape) == expected


def test_the_last_dense_is_always_there_and_only_once() -> None:
    assert parse("gap") == (Layer("gap"), Layer("dense", at=3))
    assert [layer.kind for layer in parse("gap, dense")] == ["gap", "dense"]
    assert [layer.units for layer in parse("gap, dense 7")] == [0, 7, 0]


def test_only_a_first_pooling_is_left_to_the_trunk() -> None:
    assert pooling(parse("gap, dense 8")) == "avg"
    assert pooling(parse("gmp")) == "max"
    assert pooling(parse("conv 8 3x3, gap")) == "none"
    assert pooling(parse("flatten")) == "none"


def test_dropout_works_in_training_only() -> None:
    head = build(parse("dropout 0.9, dense"), (50,), 2, "")
    assert isinstance(head[0], nn.Dropout)
    x = torch.ones(1, 50)
    assert torch.equal(head.eval()(x), head(x))
    assert not torch.equal(head.train()[0](x), x)


@pytest.mark.parametrize(
    ("spec", "character", "word"),
    [
        ("dense 25o", 7, "'25o' is not allowed: dense takes a whole number"),
        ("gap, dens 25", 6, "'dens' is not known (did you mean dense"),
        ("gap, dropout 1.5", 14, "'1.5' is not allowed: dropout takes a share from 0 to below 1"),
        ("gap, dropout", 6, "dropout takes a share"),
        ("conv 16 3x5, gap", 9, "'3x5' is not allowed"),
        ("conv 16, gap", 1, "conv takes a number of filters"),
        ("gap,, dense", 5, "nothing stands there"),
        ("", 1, "nothing stands there"),
        ("gap, dense, dense 8", 6, "only the last dense"),
        ("gap 7, dense", 5, "'7' is not allowed: gap takes nothing"),
        ("gap, dense 0", 12, "'0' is not allowed"),
        ("gap, dense 10 softmax", 15, "'softmax' is not allowed"),
    ],
)
def test_a_wrong_word_is_named_with_its_place(spec: str, character: int, word: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(spec)
    assert f"character {character}: {word}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "shape", "character"),
    [
        ("dense 8", (8, 5, 5), 1),
        ("conv 8 3x3", (8, 5, 5), 11),
        ("gap, conv 8 3x3", (8,), 6),
        ("maxpool 9", (8, 5, 5), 1),
    ],
)
def test_layers_that_cannot_follow_each_other_are_named(spec: str, shape: tuple[int, ...], character: int) -> None:
    with pytest.raises(OptionError, match=f"character {character}: "):
        build(parse(spec), shape, 2, spec)
