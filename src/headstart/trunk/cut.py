"""A network in two at a layer: `tail(trunk(x)) == network(x)`.

The network is traced once into a graph (torch.fx). A layer is a cut point where its output is the one value that all
later work needs: then the graph falls into two there, and each half runs the network's own modules, uncopied.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from headstart.errors import BackboneError, OptionError, nearest
from headstart.trunk.catalog import side_by_side
from headstart.trunk.layers import INPUT, find_layer
from headstart.trunk.maker import untraceable
from headstart.trunk.network import Backbone
from headstart.trunk.tokens import at_size


@dataclass(frozen=True)
class Cuts:
    """A traced network. `names`: cut points from the input to the top, one for each value (the outermost module)."""

    network: nn.Module
    graph: fx.Graph
    nodes: dict[str, fx.Node]  # every module with a single output -> its node
    names: tuple[str, ...]

    def split(self, layer: str) -> tuple[nn.Module, nn.Module]:
        """(trunk: images -> activation, tail: activation -> logits). Raises OptionError where this is no cut point."""
        return self.between(INPUT, layer), self.between(layer, None)

    def between(self, start: str, end: str | None) -> nn.Module:
        """The part that makes the activation at `end` (None: the logits) from that at `start`."""
        return self.part(self._node(start), None if end is None else self._node(end))

    def part(self, first: fx.Node, last: fx.Node | None) -> nn.Module:
        """The same between two values of the graph; the first must be a cut point."""
        part = fx.Graph()
        known = {first: part.placeholder("x")}
        if first is not self.nodes[INPUT]:  # the first layer may work in place: what was given stays as it was
            known[first] = part.call_method("clone", (known[first],))

        def value(node: fx.Node) -> fx.Node:
            if node.op == "get_attr" and node not in known:  # a parameter, wherever the network reads it
                known[node] = part.node_copy(node)
            return known[node]

        order = list(self.graph.nodes)
        for node in order[order.index(first) :]:
            if node.op == "output":
                part.output(fx.map_arg(node.args[0], value))
            elif node is not first and node.op not in ("get_attr", "placeholder"):
                known[node] = part.node_copy(node, value)
            if last is not None and node is last:
                part.output(known[last])
                break
        return fx.GraphModule(self.network, part)

    def _node(self, layer: str) -> fx.Node:
        node = self.nodes.get(layer)
        if node is None or node not in {self.nodes[name] for name in self.names}:
            near = nearest(layer, self.names)
            raise OptionError(f"the network cannot be cut at {layer!r}{near}: one of {', '.join(self.names)}")
        return node


def find_cuts(backbone: Backbone) -> Cuts:
    """Every cut point of a network. Raises BackboneError where torch.fx cannot trace it, and for two side by side."""
    if side_by_side(backbone.name):
        raise BackboneError(
            f"{backbone.name} is two networks side by side, which are not cut or tuned: name one of them"
        )
    network: Any = at_size(backbone.module, backbone.preprocess.size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tracer = _Tracer(*untraceable())
            graph = tracer.trace(network, _defaults(network))
            _without_options(graph)
            _with_constants(network, graph, backbone.preprocess.size)
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise BackboneError(f"{backbone.name} cannot be cut: torch.fx does not follow it ({reason})") from None
    start = next(node for node in graph.nodes if node.op == "placeholder")
    nodes = {INPUT: start, **tracer.outputs}
    alone = _alone(graph)
    names: dict[fx.Node, str] = {}
    for name, node in sorted(nodes.items(), key=lambda item: (item[0] != INPUT, item[0].count("."), len(item[0]))):
        if node in alone:
            names.setdefault(node, name)
    return Cuts(network, graph, nodes, tuple(names[node] for node in graph.nodes if node in names))


def _defaults(network: nn.Module) -> dict[str, Any]:
    """What a network takes beside the images, at its default: an attention mask that every block reads would be a value
    of its own, and leave no place to cut."""
    options = inspect.signature(network.forward).parameters.values()
    return {option.name: option.default for option in options if option.default is not option.empty}


def _without_options(graph: fx.Graph) -> None:
    """Takes out what the tracer adds for each option: an input, and a check that it has the default."""
    options = [node for node in graph.nodes if node.op == "placeholder"][1:]
    idle = set(options)
    for node in graph.nodes:
        if idle.intersection(node.all_input_nodes):
            idle.add(node)
    for node in reversed([node for node in graph.nodes if node in idle]):
        graph.erase_node(node)


def _with_constants(network: nn.Module, graph: fx.Graph, size: tuple[int, int]) -> None:
    """Tensors that follow from the size of the images alone and that several layers read, as constants: else the angles
    of DINOv3's positions, which are made at the bottom, would be a second value that every block needs."""
    sized = _of_the_size(network, graph)
    numbers = {"_operator", "builtins", "math"}
    shared = [
        node
        for node in graph.nodes
        if node in sized and len(node.users) > 1 and getattr(node.target, "__module__", None) not in numbers
    ]
    if not shared:
        return
    below, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        copies[node] = below.node_copy(node, copies.__getitem__)
        if node is shared[-1]:
            break
    below.output([copies[node] for node in shared])
    with torch.inference_mode():
        values = [fx.GraphModule(network, below)(torch.zeros(n, 3, *size)) for n in (1, 2)]
    for k, (node, one, two) in enumerate(zip(shared, *values, strict=True)):
        if isinstance(one, torch.Tensor) and torch.equal(one, two):  # whatever the batch
            name = f"_of_{size[0]}x{size[1]}_{k}"
            setattr(network, name, one.clone())
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.get_attr(name))


def _of_the_size(network: nn.Module, graph: fx.Graph) -> set[fx.Node]:
    """What depends on the size of the images, and neither on what they show nor on weights."""
    weighted = {name for name, module in network.named_modules() if any(True for _ in module.parameters())}
    weighted |= {name for name, _ in network.named_parameters()}
    found, other = set[fx.Node](), set[fx.Node]()
    for node in graph.nodes:
        asked = (node.op, node.target) == ("call_function", getattr) and node.args[1] == "shape"
        if node.op == "placeholder" or str(node.target) in weighted or (other & {*node.all_input_nodes} and not asked):
            other.add(node)
        elif asked or found & {*node.all_input_nodes}:
            found.add(node)
    return found


def layer_cut(backbone: Backbone, layer: str) -> str:
    """The cut point that a layer's name means (Keras's included). Raises OptionError."""
    return INPUT if layer == INPUT else find_layer(backbone.module, layer, tuple(t.name for t in backbone.taps))


def _alone(graph: fx.Graph) -> set[fx.Node]:
    """The nodes after which nothing earlier is needed any more."""
    order = {node: k for k, node in enumerate(graph.nodes)}
    last_use = {node: max((order[user] for user in node.users), default=order[node]) for node in graph.nodes}
    found, reach = set(), -1
    for node in graph.nodes:
        if node.op in ("get_attr", "output"):
            continue
        if reach <= order[node] and last_use[node] > order[node]:
            found.add(node)
        reach = max(reach, last_use[node])
    return found


class _Tracer(fx.Tracer):
    """Notes which node each module's output is. torch's own layers, and those that cannot be followed, stay whole."""

    def __init__(self, modules: Iterable[type[nn.Module]], functions: Iterable[Callable[..., Any]]) -> None:
        super().__init__(autowrap_functions=tuple(functions))
        self.whole = tuple(modules)
        self.outputs: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.outputs[self.path_of_module(m)] = output.node
        return output


def depth(cuts: Cuts) -> int:
    """Layers with weights (a matrix or filters) on the longest path, as tutorials count: VGG16 has 16."""
    modules = dict(cuts.network.named_modules())
    longest: dict[fx.Node, int] = {}
    for node in cuts.graph.nodes:
        before = max((longest[n] for n in node.all_input_nodes), default=0)
        own = modules.get(str(node.target)) if node.op == "call_module" else None
        weights = [m for m in own.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))] if own else []
        longest[node] = before + len(weights)
    return max(longest.values())
