"""What learns in fine-tuning, in networks of other builds than the default one's."""

from __future__ import annotations

import copy
import itertools
from functools import cache
from typing import Any

import pytest
import torch

import curated
from headstart.errors import OptionError
from headstart.finetune.tunable import Tail, depths, stages, tunable
from headstart.trunk.cut import find_cuts
from headstart.trunk.module import Trunk
from headstart.trunk.network import Backbone, block_names


@cache
def made(name: str) -> Backbone:
    """A network for all tests of this file; not to be changed."""
    return curated.backbone(name)


@pytest.mark.parametrize(
    "name", ["vgg16", "resnet18", "inception_v3", "densenet121", "tf_efficientnet_lite0", "convnext_tiny"]
)
def test_the_higher_the_stage_the_less_learns(name: str) -> None:
    backbone = made(name)
    parts = [tunable(backbone, stage) for stage in ("all", *stages(backbone))]
    assert len(parts) > 4
    assert all(set(low.modules) >= set(high.modules) for low, high in itertools.pairwise(parts))
    assert all(low.n_parameters > high.n_parameters for low, high in itertools.pairwise(parts[1:]))
    assert set(depths(backbone)) <= {"last", *stages(backbone)}


@pytest.mark.parametrize("what", ["last", "5", "all", "stage"])
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "densenet121"])
def test_the_layers_below_the_cut_are_those_that_learning_leaves_alone(name: str, what: str) -> None:
    """Other weights in all that learns: the features of just these layers stay, bit for bit."""
    backbone = made(name).around(copy.deepcopy(made(name).module))
    part = tunable(backbone, stages(backbone)[1] if what == "stage" else what)
    modules = dict(backbone.module.named_modules())
    trunk, pixels = Trunk(backbone), torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = trunk(pixels)
        for parameter in (p for module in part.modules for p in modules[module].parameters()):
            parameter.add_(torch.rand_like(parameter))
        after = trunk(pixels)
    pairs = zip(block_names(backbone), before, after, strict=True)
    kept = {block for block, one, other in pairs if torch.equal(one, other)}
    assert kept == set(part.below)
    assert bool(kept) == (what != "all")


def test_a_stage_that_ends_in_a_layer_without_weights_is_what_lies_below_it() -> None:
    """VGG's stages are known by their last activation; above the highest is a pooling layer, known as one too."""
    vgg = made("vgg16")
    assert tunable(vgg, "features.15").modules == tunable(vgg, "9").modules
    assert [tunable(vgg, depth).cut for depth in depths(vgg)] == ["features.23", "features.4"]
    with pytest.raises(OptionError, match=r"tune 'features\.30': no weights .* last, all, a number, features\.3, "):
        tunable(vgg, "features.30")


@pytest.mark.parametrize(("name", "classes"), curated.TRANSFORMERS)
def test_a_transformer_learns_above_a_block_with_classes_of_its_own_or_without(name: str, classes: int) -> None:
    """Networks trained without classes (DINOv2) have no layer in place of which a new top goes: it goes on the end."""
    vit, x = curated.transformer(name, classes), torch.randn(4, 3, 32, 32)
    network: Any = vit.module
    part = tunable(vit, "last")
    assert part.cut == "blocks.1"
    assert {module.split(".")[0] for module in part.modules} == {"blocks", "norm"}
    tail = Tail(vit, part, 3).eval()
    with torch.inference_mode():
        features = network.forward_head(network.forward_features(x), pre_logits=True)
        assert torch.allclose(tail(find_cuts(vit).between("input", part.cut)(x)), tail.linear(features), atol=1e-5)
