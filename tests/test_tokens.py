"""Vision transformers: sizes, class token and patches, from pixels to the saved model and its exports."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models import eva, vision_transformer

import curated
from headstart import recipe
from headstart.errors import OptionError
from headstart.finetune.tunable import Tail, tunable
from headstart.story.opening import at_side
from headstart.trunk import catalog
from headstart.trunk.cut import find_cuts
from headstart.trunk.engine import OpenVinoEngine
from headstart.trunk.layers import LAST, LAST_MAP
from headstart.trunk.maker import backbone_of
from headstart.trunk.module import Trunk
from headstart.trunk.network import RANDOM, Backbone, block_names, tap_at, whole_maps
from headstart.trunk.tokens import Tokens, at_size, depths, tokens_in
from test_networks import normalised

NARROW: dict[str, Any] = {"embed_dim": 48, "depth": 4, "num_heads": 3}
# timm's name -> (px of its own, another size of input, tokens before the patches)
KINDS: dict[str, tuple[int, tuple[int, int], int]] = {
    "vit_small_patch14_dinov2": (70, (56, 84), 1),
    "vit_small_patch14_reg4_dinov2": (70, (84, 84), 5),
    "vit_pe_core_tiny_patch16_384": (64, (48, 80), 1),
    "vit_base_patch16_siglip_224": (64, (32, 32), 0),
    "vit_small_patch16_dinov3": (64, (80, 80), 5),
}


def narrow(name: str, size: int | tuple[int, int] | None = None) -> Any:
    """timm's network, four narrow blocks deep, with random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name, img_size=size or KINDS[name][0], **NARROW).eval()
        for p in network.parameters():  # what begins as 0 or 1 would hide a mistake
            torch.nn.init.normal_(p, float(p.detach().mean()), 0.05)
    return network


def of(name: str) -> Backbone:
    network, side = narrow(name), KINDS[name][0]
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, side, side)}
    return backbone_of(network, name, RANDOM)


def resized(backbone: Backbone, size: tuple[int, int]) -> Backbone:
    return backbone.resized(replace(backbone.preprocess, size=size))


def blocks_of(backbone: Backbone, pixels: Any) -> dict[str, np.ndarray[Any, Any]]:
    with torch.inference_mode():
        found = Trunk(backbone)(torch.from_numpy(pixels))
    return dict(zip(block_names(backbone), (block.numpy() for block in found), strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_at_every_size_it_says_what_timms_network_of_that_size_says(name: str) -> None:
    backbone, (own, other, prefix) = of(name), KINDS[name]
    before = {key: value.clone() for key, value in backbone.module.state_dict().items()}
    for size in ((own, own), other):
        at = resized(backbone, size)
        assert at.preprocess.size == size
        theirs = narrow(name, size)
        adapt = eva.checkpoint_filter_fn if isinstance(theirs, eva.Eva) else vision_transformer.checkpoint_filter_fn
        theirs.load_state_dict(adapt({key: value.clone() for key, value in before.items()}, theirs))
        pixels, trunk = curated.pictures(3, size), Trunk(at)
        with torch.inference_mode():
            x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - trunk.mean) / trunk.std
            tokens = theirs.forward_features(x)
            last = theirs.forward_head(tokens, pre_logits=True).numpy()
        found = blocks_of(at, pixels)
        assert np.array_equal(found[LAST], last)
        if backbone.tokens and backbone.tokens.norm == "norm":  # what the last block's tap reads
            assert np.allclose(found["blocks.3/mean"], tokens[:, prefix:].mean(1).numpy(), atol=1e-5)
    own_blocks = blocks_of(backbone, curated.pictures(2, (own, own)))
    assert own_blocks[LAST].std(0).mean() > 0
    after = backbone.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", KINDS)
def test_class_token_and_patches_are_read_apart_and_maps_lie_as_the_picture_does(name: str) -> None:
    backbone = resized(of(name), KINDS[name][1])
    tokens, size = backbone.tokens, backbone.preprocess.size
    assert tokens is not None
    assert tokens.prefix == KINDS[name][2]
    pixels = curated.pictures(2, size)
    with torch.inference_mode():
        kept: list[torch.Tensor] = []
        trunk = Trunk(backbone)
        hook = trunk.network.blocks[1].register_forward_hook(lambda module, given, output: kept.append(output))
        trunk(torch.from_numpy(pixels))
        hook.remove()
        whole = trunk.network.get_submodule(tokens.norm)(kept[0]).numpy() if tokens.norm else kept[0].numpy()
    rows, columns = size[0] // tokens.patch, size[1] // tokens.patch
    patches = whole[:, tokens.prefix :]
    assert patches.shape[1] == rows * columns
    found = blocks_of(whole_maps(backbone, ["blocks.1"]), pixels)
    expected = patches.reshape(2, rows, columns, -1).transpose(0, 3, 1, 2)
    assert np.allclose(found["blocks.1/map"].reshape(2, -1, rows, columns), expected, atol=1e-6)
    assert np.allclose(found["blocks.1/mean"], patches.mean(1), atol=1e-5)
    assert ("blocks.1/token" in found) == tokens.has_class
    if tokens.has_class:
        assert np.allclose(found["blocks.1/token"], whole[:, 0], atol=1e-6)
    last = tap_at(backbone, LAST_MAP, "none")
    assert last.shape == (48, rows, columns)
    assert backbone.features(list(pixels), LAST_MAP, "none").values.shape == (2, 48, rows, columns)


def test_a_layer_is_named_by_its_module_or_by_a_block_of_the_taps() -> None:
    backbone = of("vit_small_patch14_reg4_dinov2")
    pixels = list(curated.pictures(2, (70, 70)))
    taps = blocks_of(backbone, np.stack(pixels))
    assert np.allclose(backbone.features(pixels, "blocks.1/token").values, taps["blocks.1/token"], atol=1e-6)
    raw = backbone.features(pixels, "blocks.1", "token").values  # a module's name is its own output
    assert not np.allclose(raw, taps["blocks.1/token"], atol=1e-2)
    with pytest.raises(OptionError, match="has no class token: take --pool avg"):
        tap_at(of("vit_base_patch16_siglip_224"), "blocks.1", "token")
    with pytest.raises(OptionError, match="has no class token"):
        tap_at(backbone, "patch_embed", "token")  # patches alone: the class token comes later


def test_the_depths_that_are_read_are_the_ends_of_the_quarters() -> None:
    assert depths(12) == (2, 5, 8, 11)
    assert depths(24) == (5, 11, 17, 23)
    assert depths(3) == (0, 1, 2)
    assert depths(1) == (0,)


def test_a_batch_of_one_is_a_batch_of_eight_and_the_engine_agrees() -> None:
    backbone = resized(of("vit_small_patch14_reg4_dinov2"), (56, 56))
    pixels = curated.pictures(8, (56, 56))
    together = np.concatenate(list(blocks_of(backbone, pixels).values()), axis=1)
    alone = np.concatenate([np.concatenate(list(blocks_of(backbone, one[None]).values()), 1) for one in pixels])
    assert np.allclose(alone, together, atol=1e-5)
    engine, found = OpenVinoEngine(backbone, "f32"), dict[int, Any]()
    engine.run([(0, pixels[: engine.batch])], lambda tag, rows: found.update({tag: rows.copy()}))
    n = engine.batch
    cosine = (found[0] * together[:n]).sum(1) / (
        np.linalg.norm(found[0], axis=1) * np.linalg.norm(together[:n], axis=1)
    )
    assert cosine.min() > 0.99999


def test_a_side_that_is_no_multiple_of_the_patch_is_refused_in_one_line() -> None:
    backbone = of("vit_small_patch14_dinov2")
    with pytest.raises(
        OptionError, match=r"its patches are 14 px, and the side is a multiple of that: 56 or 70"
    ) as error:
        at_side(backbone, 64, 1.0)
    assert "\n" not in str(error.value)
    assert at_side(backbone, 56, 1.0).preprocess.size == (56, 56)
    with pytest.raises(AssertionError, match="not cut into patches of 14 px"):
        at_size(backbone.module, (64, 64))


@pytest.mark.parametrize("short", [16, 60, 120, 200, 800])
def test_the_recipe_reads_a_transformer_at_its_own_size_and_others_as_before(short: float) -> None:
    for native, patch in ((224, 14), (224, 16), (384, 16), (256, 16)):
        side, crop = recipe.input_side(short, native, 100, patch)
        assert side == native
        assert side % patch == 0
        assert crop == (short >= recipe.PHOTOGRAPH)
    assert recipe.input_side(short, 224, 100)[0] % 32 == 0


def test_the_copy_for_another_size_shares_its_weights() -> None:
    network = narrow("vit_small_patch14_dinov2")
    at = at_size(network, (56, 56))
    assert at is not network
    mine, theirs = dict(network.named_parameters()), dict(at.named_parameters())
    assert {name for name in mine if mine[name] is not theirs[name]} == {"pos_embed"}
    assert at_size(network, (70, 70)) is network
    assert tuple(network.patch_embed.img_size) == (70, 70)
    assert at.training == network.training


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_at_another_size_it_is_cut_and_what_learned_there_is_in_its_own_weights(name: str) -> None:
    backbone = resized(of(name), KINDS[name][1])
    pixels = curated.pictures(3, backbone.preprocess.size)
    x = normalised(backbone, pixels)
    cuts = find_cuts(backbone)
    whole = at_size(backbone.module, backbone.preprocess.size)
    trunk, rest = cuts.split("blocks.1")
    with torch.inference_mode():
        assert torch.allclose(rest(trunk(x)), whole(x), atol=1e-5)
    tail = Tail(backbone, tunable(backbone, "last"), 2)
    with torch.no_grad():
        for p in (p for _, some in tail.groups(0.8)[1:] for p in some):
            p.add_(0.01)
        learned = tail.eval().body(cuts.between("input", tunable(backbone, "last").cut)(x)).numpy()
    tuned = tail.tuned(backbone, "blocks.2")
    assert np.allclose(blocks_of(tuned, pixels)[LAST], learned, atol=1e-5)
    assert not np.allclose(blocks_of(backbone, pixels)[LAST], learned, atol=1e-3)
    shapes = {key: value.shape for key, value in backbone.module.state_dict().items()}
    assert {key: value.shape for key, value in tuned.module.state_dict().items()} == shapes


def test_networks_without_such_tokens_have_none() -> None:
    for name in ("resnet18", "swin_tiny_patch4_window7_224", "convnext_tiny.dinov3_lvd1689m"):
        with torch.device("meta"):
            assert tokens_in(timm.create_model(name)) is None


def test_the_catalogue_says_patch_and_side_of_every_transformer_as_timm_builds_it() -> None:
    for entry in catalog.entries():
        with torch.device("meta"):
            tokens = tokens_in(timm.create_model(entry.architecture)) if entry.family in TRANSFORMERS else None
        assert (tokens.patch if tokens else None) == entry.patch, entry.network
        assert entry.patch is None or entry.side % entry.patch == 0
        assert entry.top1 is None or entry.frozen is None


TRANSFORMERS = ("ViT", "DINO", "CLIP", "SigLIP", "PE")


@pytest.mark.parametrize(
    ("typed", "network"),
    [
        ("DINOv2-S", "vit_small_patch14_dinov2"),
        ("dinov2_vits14_reg", "vit_small_patch14_reg4_dinov2"),
        ("DINOv3-S", "vit_small_patch16_dinov3"),
        ("DINOv3 ConvNeXt-T", "convnext_tiny.dinov3_lvd1689m"),
        ("PE-Core-T", "vit_pe_core_tiny_patch16_384"),
        ("PE-Core-S16-384", "vit_pe_core_small_patch16_384"),
        ("SigLIP2", "vit_base_patch16_siglip_224"),
    ],
)
def test_names_that_people_know_them_by(typed: str, network: str) -> None:
    from headstart.trunk.backbone import resolve

    assert resolve(typed) == network


def test_tokens_are_told_as_plain_data() -> None:
    tokens = tokens_in(narrow("vit_small_patch14_reg4_dinov2"))
    assert tokens is not None
    assert Tokens(**json.loads(json.dumps(tokens.to_json()))) == tokens
    assert tokens.count((28, 42)) == 5 + 6
    assert tokens.nearest(64) == (56, 70)
    assert tokens.nearest(10) == (14,)
