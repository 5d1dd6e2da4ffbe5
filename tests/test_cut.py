"""A network in two: where it can be cut, and what is said where it cannot."""

from __future__ import annotations

import pytest
import torch

import curated
from headstart.errors import OptionError
from headstart.trunk.cut import INPUT, depth, find_cuts, layer_cut


@pytest.mark.parametrize(("name", "layers"), [("vgg16", 16), ("resnet18", 18), ("resnet50", 50), ("densenet121", 121)])
def test_depth_is_the_number_in_the_name(name: str, layers: int) -> None:
    assert depth(find_cuts(curated.backbone(name))) == layers


def test_a_layer_inside_a_residual_branch_is_no_cut() -> None:
    backbone = curated.backbone("resnet18")
    cuts = find_cuts(backbone)
    assert cuts.names[0] == INPUT
    assert "layer1.0" in cuts.names
    assert "layer1.0.conv1" not in cuts.names
    with pytest.raises(OptionError, match=r"cannot be cut at 'layer1\.0\.conv1'") as error:
        cuts.split("layer1.0.conv1")
    assert "\n" not in str(error.value)


def test_a_cut_by_keras_name_and_by_the_input() -> None:
    backbone = curated.backbone("vgg16")
    cuts = find_cuts(backbone)
    assert layer_cut(backbone, INPUT) == INPUT
    place = layer_cut(backbone, "block4_pool")
    trunk, tail = cuts.split(place)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        kept = trunk(x)
        assert kept.shape == (2, 512, 2, 2)
        assert torch.equal(tail(kept), backbone.module(x))


def test_both_halves_hold_the_networks_own_weights() -> None:
    backbone = curated.backbone("resnet18")
    trunk, tail = find_cuts(backbone).split("layer2.1")
    own = {p.data_ptr() for p in backbone.module.parameters()}
    halves = [{p.data_ptr() for p in half.parameters()} for half in (trunk, tail)]
    assert halves[0] | halves[1] == own
    assert not halves[0] & halves[1]
