"""Where a network is cut for fine-tuning, and the part above the cut with a linear top, ready to learn."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from headstart.errors import OptionError, nearest
from headstart.trunk.cut import Cuts, find_cuts
from headstart.trunk.layers import INPUT, find_layer
from headstart.trunk.module import shapes
from headstart.trunk.network import Backbone
from headstart.trunk.weights import fingerprint


@dataclass(frozen=True)
class Tunable:
    """`cut`: the last cut point below all that learns; `modules`: what learns, from the cut upwards, all of it with
    weights; `stages`: how many stages each of them lies below the last; `below`: the blocks of features up to the cut,
    which stay as they are."""

    cut: str
    modules: tuple[str, ...]
    n_parameters: int  # that learn, the new top not counted
    stages: tuple[int, ...] = ()
    below: tuple[str, ...] = ()


def tunable(backbone: Backbone, tune: str) -> Tunable:
    """`tune`: "last" (the last stage), "all", a number of modules with weights counted from the top as the tutorials
    count layers, or the name of a stage or layer from which on all learns.

    Raises OptionError with what is allowed, BackboneError for a network that cannot be cut.
    """
    cuts = find_cuts(backbone)
    weighted = _weighted(backbone, cuts)
    learn = tuple(weighted[_first(backbone, cuts, weighted, tune) :])
    modules: dict[str, nn.Module] = dict(backbone.module.named_modules())
    parameters = {id(p): p for name in learn for p in modules[name].parameters()}
    place, ends = _places(cuts), _stage_ends(backbone, cuts)
    stages_below = tuple(sum(end >= place[name] for end in [*ends.values()][:-1]) for name in learn)
    cut = _cut_before(cuts, learn[0])
    height = [*cuts.graph.nodes].index(cuts.nodes[cut])
    stay = [tap for tap in backbone.taps if ends.get(tap.module, height + 1) <= height]
    blocks = tuple(block for tap in stay for block in tap.blocks)
    return Tunable(cut, learn, sum(p.numel() for p in parameters.values()), stages_below, blocks)


def _first(backbone: Backbone, cuts: Cuts, weighted: list[str], tune: str) -> int:
    """The place of the lowest module that learns, among those with weights."""
    if tune == "all":
        return 0
    if tune.isdigit():
        if not 1 <= int(tune) <= len(weighted):
            raise OptionError(f"tune {tune} is not allowed: {backbone.name} has {len(weighted)} modules with weights")
        return len(weighted) - int(tune)
    starts = _starts(backbone, cuts)
    if tune == "last":
        return weighted.index([*starts.values()][-1]) if starts else len(weighted) - 1
    stage = _stage(backbone, tune)
    inside = [k for k, name in enumerate(weighted) if name == stage or name.startswith(f"{stage}.")]
    if inside:
        return min(inside)
    if stage in starts:  # it ends in a layer without weights
        return weighted.index(starts[stage])
    raise OptionError(f"tune {tune!r}: no weights learn from there on; one of last, all, a number, {', '.join(starts)}")


def share_of(backbone: Backbone, what: Tunable) -> float:
    """The share of the network's multiply-adds, below its top, that lies in what learns."""
    modules: dict[str, nn.Module] = dict(backbone.module.named_modules())
    found = shapes(backbone.module, modules, backbone.preprocess.size)
    costs = {}
    for name in tunable(backbone, "all").modules:
        weight = getattr(modules[name], "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim > 1 and name in found:
            places = math.prod(found[name]) // weight.shape[0]  # where the filters, or the rows, are applied
            costs[name] = places * weight.numel()
    return sum(cost for name, cost in costs.items() if name in what.modules) / max(1, sum(costs.values()))


def kind_of(backbone: Backbone) -> str:
    """ "normalised" (LayerNorm, and what has attention has that), "depthwise" (grouped convolutions), or "plain"."""
    layers = list(backbone.module.modules())
    if any(isinstance(layer, nn.LayerNorm) for layer in layers):
        return "normalised"
    return "depthwise" if any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers) else "plain"


def stages(backbone: Backbone) -> tuple[str, ...]:
    """The stages that can learn, from low to high: a stage is what works between one tap and the next, and bears the
    name of the tap at its end. VGG's last one is a pooling layer, which has nothing to learn."""
    starts = _starts(backbone, find_cuts(backbone))
    return tuple(tap.name for tap in backbone.taps if tap.module in starts)


def depths(backbone: Backbone) -> tuple[str, ...]:
    """What is worth trying, from little to much: the last stage; the upper two thirds of the stages, since the lowest
    are the most general (Yosinski et al. 2014) and, on the largest maps, the most expensive."""
    names = stages(backbone)
    middle = names[len(names) // 3] if len(names) >= 3 else "all"
    last, deep = tunable(backbone, "last"), tunable(backbone, middle)
    return ("last",) if deep.n_parameters <= last.n_parameters else ("last", middle)


def _weighted(backbone: Backbone, cuts: Cuts) -> list[str]:
    """The modules with weights of their own below the top, in the order in which they work."""
    top = _top(backbone, cuts)
    modules = dict(cuts.network.named_modules())
    found: dict[str, None] = {}
    for node in cuts.graph.nodes:
        if node.op == "call_module" and any(True for _ in modules[str(node.target)].parameters()):
            found[str(node.target)] = None
        elif node.op == "get_attr":
            found.setdefault(str(node.target).rpartition(".")[0], None)
        if node is top:
            break
    return [name for name in found if name]


def _top(backbone: Backbone, cuts: Cuts) -> fx.Node:
    """The node whose value a new top reads: what the network's own classifier reads, or the last map; of a network that
    was trained without classes (DINOv2, SigLIP) what it gives out."""
    if backbone.last_is_pooled and "features" in cuts.nodes:
        return cuts.nodes["features"]
    node: fx.Node
    for node in cuts.graph.nodes:
        if str(node.target) == backbone.classifier and node.op == "call_module":
            return node.all_input_nodes[0]
        if str(node.target) == f"{backbone.classifier}.weight":  # a linear layer of timm's own, which is followed
            return next(n for user in node.users for n in user.all_input_nodes if n.op != "get_attr")
        if node.op == "output" and isinstance(cuts.network.get_classifier(), nn.Identity):  # type: ignore[operator]
            return node.all_input_nodes[0]
    raise OptionError(
        f"{backbone.name} has no linear top of its own and cannot be tuned: leave --tune away, or take another network"
    )


def _stage(backbone: Backbone, name: str) -> str:
    try:
        return find_layer(backbone.module, name, tuple(tap.name for tap in backbone.taps))
    except OptionError:
        names = ["last", "all", *(tap.name for tap in backbone.taps)]
        raise OptionError(
            f"tune {name!r} is not known{nearest(name, names)}: one of none, auto, last, all, a number of modules, or "
            f"a stage: {', '.join(tap.name for tap in backbone.taps)}"
        ) from None


def _starts(backbone: Backbone, cuts: Cuts) -> dict[str, str]:
    """Tap -> the first module with weights of the stage that ends there, from low to high."""
    place = _places(cuts)
    weighted = sorted(_weighted(backbone, cuts), key=place.__getitem__)
    found, low = {}, -1
    for tap, high in _stage_ends(backbone, cuts).items():
        inside = [name for name in weighted if low < place[name] <= high]
        found |= {tap: inside[0]} if inside else {}
        low = high
    return found


def _stage_ends(backbone: Backbone, cuts: Cuts) -> dict[str, int]:
    """Where in the graph each stage ends: its tap. From low to high."""
    order = {node: k for k, node in enumerate(cuts.graph.nodes)}
    ends = {tap.module: order[cuts.nodes[tap.module]] for tap in backbone.taps if tap.module in cuts.nodes}
    return dict(sorted(ends.items(), key=lambda item: item[1]))


def _places(cuts: Cuts) -> dict[str, int]:
    """Where in the graph each module first works, or is first read."""
    found: dict[str, int] = {}
    for k, node in enumerate(cuts.graph.nodes):
        if node.op in ("call_module", "get_attr"):
            name = str(node.target)
            found.setdefault(name.rpartition(".")[0] if node.op == "get_attr" else name, k)
    return found


def _cut_before(cuts: Cuts, module: str) -> str:
    """The last cut point that the module does not work before."""
    order, first = {node: k for k, node in enumerate(cuts.graph.nodes)}, _places(cuts)[module]
    return [name for name in cuts.names if name == INPUT or order[cuts.nodes[name]] < first][-1]


class Tail(nn.Module):
    """Activation at the cut -> scores (image, output). `network` is a copy of the backbone's, of which the body's
    modules are part: it learns with them, and is the tuned network in the end."""

    def __init__(self, backbone: Backbone, what: Tunable, n_outputs: int) -> None:
        super().__init__()
        network = copy.deepcopy(backbone.module)
        cuts = find_cuts(backbone.around(network))
        self.body = cuts.part(cuts.nodes[what.cut], _top(backbone, cuts))
        self.linear = nn.Linear(backbone.last_channels, n_outputs)
        self._network = [network]  # in a list: its other parameters are not this module's
        learn = dict(network.named_modules())
        network.requires_grad_(False)
        for name in what.modules:
            learn[name].requires_grad_(True)
        self._stages: dict[int, list[nn.Parameter]] = {}
        for name, stage in zip(what.modules, what.stages, strict=True):
            self._stages.setdefault(stage, []).extend(learn[name].parameters())

    @property
    def network(self) -> Any:
        return self._network[0]

    def groups(self, decay: float) -> list[tuple[float, list[nn.Parameter]]]:
        """(share of the learning rate, parameters): `decay` for each stage below the last, the new top 1."""
        found, seen = [(1.0, list(self.linear.parameters()))], set()
        for stage, some in sorted(self._stages.items()):
            found.append((decay**stage, [p for p in dict.fromkeys(some) if p not in seen]))
            seen.update(some)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.body(x)
        return self.linear(z.mean((2, 3)) if z.ndim == 4 else z)  # type: ignore[no-any-return]

    def tuned(self, backbone: Backbone, cut: str) -> Backbone:
        """The backbone with what was learned, read at the same taps."""
        network = self.network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
        tops = (f"{backbone.classifier}.",) if backbone.classifier else ("head.", "pre_logits.")
        state = {k: v for k, v in network.state_dict().items() if not k.startswith(tops)}
        return backbone.around(
            network,
            weights_hash=fingerprint(state),
            weights_source=f"{backbone.weights_source}, tuned above {cut}",
            chain=(*(backbone.chain or (backbone.weights_source,)), f"tuned above {cut}"),
        )
