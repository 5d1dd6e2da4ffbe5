"""Every family of the curated convolutional networks keeps the same laws, in its smallest member.

benchmarks/networks.py runs all laws on all networks. Here the larger members of a family are left out, which are made
of the same blocks, and the two that cost most by far (Inception-ResNet-v2, NASNet); of those, too, the layers of the
catalogue are counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import curated
from headstart.heads.closed import Ridge
from headstart.trunk import catalog
from headstart.trunk.cut import INPUT, Cuts, depth, find_cuts
from headstart.trunk.engine import Engine, OpenVinoEngine, cpu_has_bf16
from headstart.trunk.layers import Tap
from headstart.trunk.module import Trunk
from headstart.trunk.network import Backbone, block_names, block_widths, cut_at

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]


def normalised(backbone: Backbone, pixels: Bytes) -> torch.Tensor:
    """The network's input (image, 3, height, width)."""
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (backbone.preprocess.mean, backbone.preprocess.std))
    return (torch.from_numpy(pixels).movedim(-1, 1) - mean) / std


@contextmanager
def recording(network: Any, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """The output of each of these modules, filled in while the network runs inside."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[object, object, torch.Tensor], None]:
        return lambda module, inputs, output: kept.update({name: output.clone()})

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.inference_mode():
        yield kept
    for hook in hooks:
        hook.remove()


def through(backbone: Backbone, pixels: Bytes) -> list[Rows]:
    with torch.inference_mode():
        return [block.numpy() for block in Trunk(backbone)(torch.from_numpy(pixels))]


def check_taps(backbone: Backbone, pixels: Bytes) -> list[Rows]:
    """Every block is what hooks on the bare network see, pooled by numpy in float64. Gives the blocks."""
    network: Any = backbone.module
    with recording(network, [tap.name for tap in backbone.taps]) as kept:
        features = network.forward_features(normalised(backbone, pixels))
        pooled = backbone.last_is_pooled
        last = features.mean((2, 3)) if pooled else network.forward_head(features, pre_logits=True)
    expected = []
    for tap in backbone.taps:
        with torch.inference_mode():
            read = network.get_submodule(tap.through)(kept[tap.name]) if tap.through else kept[tap.name]
        activation = read.double().numpy()
        places = activation[:, tap.prefix :]
        positions = tuple(a for a in range(1, activation.ndim) if a != tap.channel_axis % activation.ndim)
        means = {"mean": places.mean(positions), "std": places.std(positions)}
        expected += [activation[:, 0] if pool == "token" else means[pool] for pool in tap.pools]
    blocks = through(backbone, pixels)
    assert tuple(b.shape[1] for b in blocks) == block_widths(backbone)
    sizes = [*(float(kept[t.name].abs().max()) for t in backbone.taps for _ in t.pools), float(last.abs().max())]
    for name, ours, theirs, top in zip(
        block_names(backbone), blocks, [*expected, last.double().numpy()], sizes, strict=True
    ):
        assert 1e-2 < top < 1e4, (name, top)  # alive
        assert float(np.abs(ours - theirs).max()) <= 1e-5 * top, name
    assert float(blocks[-1].std(0).mean()) > 0.02 * float(np.abs(blocks[-1]).mean())  # and it tells images apart
    return blocks


def check_cuts(backbone: Backbone, cuts: Cuts, pixels: Bytes, tails: int | None = None) -> None:
    """tail(trunk(x)) == network(x) at every cut, bit for bit, against activations that the whole network made.

    Each step from one cut to the next, and the last tail, are run, so that every tail is proved as a chain of steps;
    and as one piece at `tails` cuts (None: all of them).
    """
    network: Any = backbone.module
    assert cuts.names[0] == INPUT
    x = normalised(backbone, pixels)
    with recording(network, cuts.names[1:]) as acts:
        logits = network(x)
    acts[INPUT] = x
    assert float(logits.std(0).mean()) > 1e-3 * float(logits.abs().mean())
    with torch.inference_mode():
        for before, name in pairwise(cuts.names):
            step = cuts.between(before, name)(acts[before].clone())
            assert torch.allclose(step, acts[name], rtol=1e-5, atol=1e-5), (before, name)
        some = np.linspace(0, len(cuts.names) - 1, tails or len(cuts.names)).round().astype(int)
        for name in (cuts.names[k] for k in some):
            given = acts[name].clone()
            assert torch.allclose(cuts.between(name, None)(given), logits, rtol=1e-5, atol=1e-5), name
            assert torch.equal(given, acts[name]), f"the tail from {name} changed what it was given"
        trunk, tail = cuts.split(cuts.names[len(cuts.names) // 2])
        assert torch.allclose(tail(trunk(x)), logits, rtol=1e-5, atol=1e-5)


def check_batches(backbone: Backbone, pixels: Bytes, together: list[Rows]) -> None:
    """A batch of 1 equals a batch of 8."""
    for row in (0, len(pixels) - 1):
        for one, all_ in zip(through(backbone, pixels[row : row + 1]), together, strict=True):
            assert float(np.abs(one[0] - all_[row]).max()) <= 1e-4 * float(np.abs(all_[row]).max())


def fingerprints(network: torch.nn.Module) -> dict[str, int]:
    """A checksum of the bytes of every parameter and buffer."""
    return {name: zlib.crc32(t.contiguous().view(-1).numpy()) for name, t in network.state_dict().items()}


def check_frozen(backbone: Backbone, before: dict[str, int], rows: Rows) -> None:
    """After all that, and a head fitted on what the trunk says, not a bit of the network is another."""
    y = np.arange(len(rows)) % 2
    head = Ridge(l2=1e-6 * float(rows.var(0).sum())).fit(rows, y)
    assert (head.decision_function(rows).argmax(1) == y).mean() >= 0.9
    assert fingerprints(backbone.module) == before
    assert not any(m.training or m._forward_hooks for m in backbone.module.modules())
    assert not any(p.requires_grad for p in backbone.module.parameters())


def check_engine(backbone: Backbone, engine: Engine, pixels: Bytes, least: float) -> float:
    """Each image's last block, the pre-logits, agrees with eager float32; a row does not depend on its batch mates.

    Gives the smallest cosine.
    """
    n = engine.batch
    batches = [pixels[:n], np.stack([pixels[k] for k in range(n - 1, -1, -1)]), np.stack([pixels[1]] * n)]
    found: dict[int, Rows] = {}
    engine.run(list(enumerate(batches)), lambda tag, rows: found.update({tag: rows.copy()}))
    assert np.array_equal(found[0], found[1][::-1])
    assert all(np.array_equal(found[0][1], row) for row in found[2])
    theirs = through(backbone, pixels[:n])[-1]
    ours = found[0][:, -theirs.shape[1] :]
    cosine = (ours * theirs).sum(1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
    assert float(cosine.min()) >= least, cosine
    return float(cosine.min())


# One of each kind of block: plain, basic and bottleneck residuals, mixed branches, separable, dense, inverted residuals
# with and without gates, universal ones, fused ones, grouped ones, LayerNorm with and without response normalisation.
FAMILIES = (
    "vgg16",
    "resnet18",
    "resnet50",
    "inception_v3",
    "legacy_xception",
    "densenet121",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
    "regnety_032",
    "convnextv2_atto",
    "convnext_nano",
    "lcnet_100",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_taps_cuts_batches_and_frozen_buffers(name: str) -> None:
    backbone = curated.backbone(name)
    before = fingerprints(backbone.module)
    pixels = curated.pictures(8, backbone.preprocess.size)
    blocks = check_taps(backbone, pixels)
    cuts = find_cuts(backbone)
    check_cuts(backbone, cuts, pixels[:2], tails=3)
    assert listed_depths(name) == {depth(cuts)}
    check_batches(backbone, pixels, blocks)
    check_frozen(backbone, before, blocks[-1])


def listed_depths(name: str) -> set[int]:
    """What the catalogue says of the layers of an architecture."""
    return {entry.depth for entry in catalog.entries() if entry.network.split(".")[0] == name}


@pytest.mark.parametrize("name", [name for name in curated.SIDES if name not in FAMILIES])
def test_the_layers_of_the_larger_networks_are_counted_as_listed(name: str) -> None:
    """Of networks without numbers: they are traced and not run."""
    size = SimpleNamespace(size=(curated.SIDES[name],) * 2)
    bare: Any = SimpleNamespace(name=name, module=curated.bare(name), preprocess=size)
    assert listed_depths(name) == {depth(find_cuts(bare))}


@pytest.mark.parametrize(("name", "classes"), curated.TRANSFORMERS)
def test_a_transformer_keeps_the_same_laws_and_is_cut_between_its_blocks(name: str, classes: int) -> None:
    """Its blocks could be given an attention mask; without one, nothing but the tokens goes from block to block, and
    the angles of their positions, which the size of the pictures gives."""
    backbone = curated.transformer(name, classes)
    before = fingerprints(backbone.module)
    pixels = curated.pictures(8, backbone.preprocess.size)
    blocks = check_taps(backbone, pixels)
    cuts = find_cuts(backbone)
    assert {"blocks.0", "blocks.1", "norm"} < set(cuts.names)
    check_cuts(backbone, cuts, pixels[:2])
    check_batches(backbone, pixels, blocks)
    check_frozen(backbone, before, blocks[-1])
    n = 2 * 2 + backbone.module.num_prefix_tokens  # type: ignore[operator]
    tokens = cut_at(backbone, Tap("tokens", n, 1, ("map",), "blocks.1", (n, 48)))
    check_engine(tokens, OpenVinoEngine(tokens, "f32"), pixels, 0.99999)


# Chosen by cost, each compiles in under a second: plain, depthwise with gates, LayerNorm. The benchmark has all.
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "convnextv2_atto"])
@pytest.mark.parametrize(("precision", "least"), [("f32", 0.99999), ("bf16", 0.999)])
def test_the_engine_agrees_with_eager_float32(name: str, precision: str, least: float) -> None:
    if precision == "bf16" and not cpu_has_bf16():
        pytest.skip("no bfloat16 here")
    backbone = curated.backbone(name)
    check_engine(backbone, OpenVinoEngine(backbone, precision), curated.pictures(8, backbone.preprocess.size), least)
