"""Fast gradients of depthwise convolutions are torch's own."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812, its usual name

from headstart.finetune import depthwise
from headstart.finetune.depthwise import FastGradients

ONE = st.integers(1, 3)
x86 = pytest.mark.skipif(not depthwise.X86, reason="the kernels are those for x86 processors")


def outcome(layer: nn.Conv2d, x: torch.Tensor, fast: bool) -> list[torch.Tensor]:
    """(what the layer says, the gradients of the picture and of the parameters), for some gradient of what it says."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    with FastGradients() if fast else torch.enable_grad():
        y = layer(x)
    y.backward(torch.arange(y.numel()).float().cos().add(2).view(y.shape).to(y.dtype))
    found = [y.detach(), x.grad, *(p.grad for p in layer.parameters())]
    return [value.float() for value in found if value is not None]


@settings(max_examples=60, deadline=None)
@given(
    filter_size=st.tuples(st.sampled_from([1, 2, 3, 4, 5, 7, 9]), st.sampled_from([1, 2, 3, 4, 5, 6, 7, 9])),
    stride=st.tuples(ONE, ONE),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.sampled_from([1, 1, 1, 2]),
    picture=st.tuples(st.integers(1, 3), st.integers(9, 14), st.integers(9, 14)),
    groups=st.sampled_from([1, 8, 16]),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_gradients_are_torchs_own(
    filter_size: Any, stride: Any, padding: Any, dilation: int, picture: Any, groups: int, bias: bool, seed: int
) -> None:
    n, height, width = picture
    sides = zip(filter_size, picture[1:], padding, strict=True)
    assume(all(dilation * (f - 1) + 1 <= side + 2 * p for f, side, p in sides))  # a filter that fits the picture
    torch.manual_seed(seed)
    layer = nn.Conv2d(16, 16, filter_size, stride, padding, dilation, groups, bias)
    x = torch.randn(n, 16, height, width).contiguous(memory_format=torch.channels_last)
    for usual, fast in zip(outcome(layer, x, False), outcome(layer, x, True), strict=True):
        assert torch.allclose(usual, fast, rtol=1e-4, atol=2e-4)


@x86
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)])
def test_in_bfloat16_they_are_as_near_as_its_digits(size: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, size, stride, size // 2, groups=16)
    x = torch.randn(4, 16, 12, 12)
    usual = outcome(layer, x, False)
    with torch.autocast("cpu", torch.bfloat16):
        fast = outcome(layer, x, True)
    for exact, near in zip(usual, fast, strict=True):
        assert torch.norm(exact - near) < 0.01 * torch.norm(exact)  # 8 bits: 0.4 % a number at most


@x86
def test_wide_filters_go_in_parts_that_the_kernel_takes() -> None:
    """A law about speed that needs no clock: no filter of more than three columns is asked for its gradient."""
    asked: list[int] = []
    usual = depthwise._gradient

    def noted(which: int, g: Any, x: Any, weight: torch.Tensor, how: Any) -> torch.Tensor:
        if which == 1:
            asked.append(weight.shape[3])
        return usual(which, g, x, weight, how)

    with mock.patch.object(depthwise, "_gradient", noted):
        outcome(nn.Conv2d(16, 16, 5, padding=2, groups=16), torch.randn(2, 16, 9, 9), True)
        assert asked == [3, 3]
        outcome(nn.Conv2d(16, 16, 7, 2, padding=3, groups=16), torch.randn(2, 16, 9, 9), True)
        assert asked[2:] == [3, 3, 3]


def test_what_is_not_depthwise_is_left_alone() -> None:
    layer = nn.Conv2d(16, 32, 5, padding="same", groups=16)
    x = torch.randn(2, 16, 9, 9)
    for usual, fast in zip(outcome(layer, x, False), outcome(layer, x, True), strict=True):
        assert torch.equal(usual, fast)
    with FastGradients():
        assert F.conv2d(torch.ones(1, 9, 9), torch.ones(1, 1, 3, 3)).shape == (1, 7, 7)  # a picture without a batch
