"""What quantization methods share: batch norm folded away, the graph of a network, grids to round to.

Methods work on the `fx.GraphModule` that `fold_batch_norm` returns: it keeps the layers' names, shows what follows what,
and takes new nodes. A quantized layer is an ordinary layer: `weight` holds integers times the buffer `weight_scale`.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

Layer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
RELU = {nn.ReLU, F.relu, torch.relu, "relu", "relu_"}
RELU6 = {nn.ReLU6, F.relu6}
FLATTEN = {nn.Flatten, torch.flatten, "flatten"}
ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
PASS = {  # whatever these do to the positions of a channel, a channel times s > 0, or plus a constant, comes out the same way
    nn.Identity, nn.Dropout, nn.Dropout2d, F.dropout, nn.Flatten, torch.flatten, "flatten",
    nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.max_pool2d,
}  # fmt: skip


def operation(network: fx.GraphModule, node: fx.Node) -> Any:
    """What a node does: the class of its module, else its function or the name of its method."""
    return type(network.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def layer_nodes(network: fx.GraphModule) -> dict[fx.Node, Layer]:
    """The convolutions and linear layers in the order in which they run."""
    found = {}
    for node in network.graph.nodes:
        if node.op == "call_module" and isinstance(layer := network.get_submodule(node.target), LAYERS):
            found[node] = layer
    return found


def trace(model: nn.Module) -> fx.GraphModule:
    """A copy of the network as a graph, in evaluation mode.

    Raises ValueError for a network that cannot be traced, has no layer to quantize, runs a layer twice, or holds
    weights outside of convolutions and linear layers.
    """
    try:
        network = fx.symbolic_trace(copy.deepcopy(model).eval())
    except Exception as problem:  # whatever the network's own forward raises when it is fed a proxy
        raise ValueError(f"{type(model).__name__}: torch.fx cannot trace it ({problem}); forward must not branch on values") from problem
    nodes = layer_nodes(network)
    names = [str(node.target) for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name}: runs {names.count(name)} times; a shared layer cannot be quantized for each of its inputs")
    for name, weight in network.named_parameters():
        place = name.rpartition(".")[0]
        if weight.ndim > 1 and place not in names:
            kind = type(network.get_submodule(place)).__name__
            raise ValueError(f"{name}: is a weight of {kind}; only convolutions and linear layers can be quantized")
    if not nodes:
        raise ValueError(f"{type(model).__name__}: has no convolution or linear layer to quantize")
    return network


def fold_batch_norm(model: nn.Module) -> tuple[fx.GraphModule, dict[str, tuple[Tensor, Tensor]]]:
    """The network with every batch norm folded into the layer that it follows, and what it said of that layer's output.

    Returns the graph and {layer: (mean, deviation)} of each output channel before the activation: batch norm's shift
    and the size of its scale. Batch norms that follow no layer of their own stay. Raises ValueError as `trace` does.
    """
    network = trace(model)
    layers, statistics = layer_nodes(network), {}
    for node in list(network.graph.nodes):
        norm = network.get_submodule(node.target) if node.op == "call_module" else None
        if not isinstance(norm, NORMS) or node.args[0] not in layers or len(node.args[0].users) > 1:
            continue
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError(f"{node.target}: keeps no running mean and variance; only such batch norm can be folded")
        source = node.args[0]
        layer, deviation = layers[source], (norm.running_var + norm.eps).sqrt()
        gamma = norm.weight.detach() if norm.affine else torch.ones_like(deviation)
        beta = norm.bias.detach() if norm.affine else torch.zeros_like(deviation)
        set_bias(layer, (bias_of(layer) - norm.running_mean) * gamma / deviation + beta)
        scale_outputs(layer, gamma / deviation)
        statistics[str(source.target)] = (beta.clone(), gamma.abs())
        node.replace_all_uses_with(source)
        network.graph.erase_node(node)
    return rebuilt(network), statistics


def neighbours(network: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Pairs of layers with no branch between them, and nothing but operations with f(s x) = s f(x) for s > 0.

    A linear layer behind a convolution counts only where maps are flattened channel by channel in between.
    """
    layers, found = layer_nodes(network), []
    for first in layers:
        node, flat, maps = first, False, not isinstance(layers[first], nn.Linear)
        while len(node.users) == 1:
            node = next(iter(node.users))
            if node in layers:
                second, channels = layers[node], len(layers[first].weight)
                if isinstance(second, nn.Linear):
                    fits = flat == maps and second.in_features % channels == 0 and (maps or second.in_features == channels)
                else:
                    fits = maps and not flat
                found += [(first, node)] if fits else []
            if operation(network, node) not in RELU | PASS or not channelwise(network, node):
                break
            flat = flat or operation(network, node) in FLATTEN
    return found


def channelwise(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the settings of an operation of `PASS` let it treat each channel by itself: no part flattening, no padded mean."""
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if operation(network, node) in FLATTEN:
        dims = (module.start_dim, module.end_dim) if isinstance(module, nn.Flatten) else (*node.args[1:], *node.kwargs.values())
        return dims in ((1, -1), (1,))
    if operation(network, node) is F.avg_pool2d:
        return len(node.args) < 4 and "padding" not in node.kwargs
    return not (isinstance(module, nn.AvgPool2d) and module.padding not in (0, (0, 0)) and module.count_include_pad)


def without_relu6(network: fx.GraphModule) -> fx.GraphModule:
    """Every ReLU6 replaced by a ReLU."""
    for node in network.graph.nodes:
        if operation(network, node) in RELU6:
            node.op, node.target, node.args, node.kwargs = "call_function", F.relu, (node.all_input_nodes[0],), {}
    return rebuilt(network)


def rebuilt(network: fx.GraphModule) -> fx.GraphModule:
    """The network after a change of its graph, without modules that nothing calls."""
    network.graph.lint()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def bias_of(layer: Layer) -> Tensor:
    """The layer's bias, zeros where it has none."""
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()


def set_bias(layer: Layer, bias: Tensor) -> None:
    layer.bias = nn.Parameter(bias.to(layer.weight))


def set_weight(layer: Layer, weight: Tensor) -> None:
    layer.weight = nn.Parameter(weight)


def by_input(layer: Layer, weight: Tensor, channels: int) -> Tensor:
    """A weight as (groups, outputs of a group, input channels of a group, the rest).

    The rest are kernel positions, or the positions of a map that was flattened into a linear layer's input.
    """
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    return weight.reshape(groups, len(weight) // groups, channels // groups, -1)


def scale_outputs(layer: Layer, factors: Tensor) -> None:
    """Multiply the weights of each output channel."""
    set_weight(layer, layer.weight.detach() * factors.reshape(-1, *[1] * (layer.weight.ndim - 1)))


def scale_inputs(layer: Layer, factors: Tensor) -> None:
    """Multiply the weights that each input channel meets."""
    view = by_input(layer, layer.weight.detach(), len(factors))
    set_weight(layer, (view * factors.reshape(len(view), 1, -1, 1)).reshape(layer.weight.shape))


def response(layer: Layer, weight: Tensor, inputs: Tensor) -> Tensor:
    """Output channels, bias apart, for input channels that hold one value everywhere (away from zero padding)."""
    view = by_input(layer, weight, len(inputs)).sum(3)
    return torch.einsum("goi,gi->go", view, inputs.reshape(len(view), -1)).reshape(-1)


def run(layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
    """What the layer answers with another weight in its place."""
    return torch.func.functional_call(layer, {"weight": weight}, (x,))


@dataclass(frozen=True)
class Grid:
    """The levels low * scale, (low + 1) * scale, ..., high * scale. Zero is one of them where low <= 0 <= high."""

    scale: Tensor
    low: int
    high: int

    def nearest(self, values: Tensor) -> Tensor:
        return (values / self.scale).round().clamp(self.low, self.high) * self.scale


def min_max_grid(low: Tensor, high: Tensor, bits: int) -> Grid:
    """2^bits levels from `low` to `high`, widened to hold zero and shifted by less than a step so that zero is a level."""
    low, high = low.detach().clamp_max(0), high.detach().clamp_min(0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    lowest = round(float(low / scale))
    return Grid(scale, lowest, lowest + 2**bits - 1)


def least_squares_grid(weight: Tensor, bits: int, candidates: int = 100) -> Grid:
    """The signed grid, -2^(bits-1) to 2^(bits-1) - 1, whose nearest levels have the least squared distance to the weight."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    largest = weight.detach().abs().max().clamp_min(torch.finfo(weight.dtype).tiny * 2**24)
    grids = [Grid(largest / -low * step / candidates, low, high) for step in range(candidates // 5, 6 * candidates // 5 + 1)]
    return min(grids, key=lambda grid: float((grid.nearest(weight.detach()) - weight.detach()).square().sum()))


def ship(layer: Layer, weight: Tensor, scale: Tensor) -> None:
    """Give the layer weights that are whole multiples of `scale` in float32, and the scale that says so."""
    set_weight(layer, weight)
    layer.register_buffer("weight_scale", scale.detach().reshape(-1).clone())


class Rounded(nn.Module):
    """Rounds its input to a grid."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.register_buffer("scale", grid.scale.clone())
        self.low, self.high = grid.low, grid.high

    def forward(self, x: Tensor) -> Tensor:
        return Grid(self.get_buffer("scale"), self.low, self.high).nearest(x)


def round_inputs(network: fx.GraphModule, grids: Mapping[fx.Node, Grid]) -> fx.GraphModule:
    """Round what enters each of these layers; layers that share an input share its grid, the first one given."""
    placed: dict[fx.Node, fx.Node] = {}
    for node, grid in grids.items():
        source = node.all_input_nodes[0]
        if source not in placed:
            name = f"rounded_{source.name}"
            network.add_submodule(name, Rounded(grid))
            with network.graph.inserting_after(source):
                placed[source] = network.graph.call_module(name, (source,))
        node.replace_input_with(source, placed[source])
    return rebuilt(network)


@dataclass(frozen=True)
class Place:
    """A layer about to be quantized: what enters it now, and what it should answer."""

    name: str
    layer: Layer
    activation: Callable[[Tensor], Tensor]  # the ReLU or ReLU6 that alone follows it, else the identity
    original: Tensor  # its input in the network as it was
    inputs: Tensor  # its input in the network quantized so far
    target: Tensor  # activation(layer(original))


def in_order(network: fx.GraphModule, images: Tensor) -> Iterator[Place]:
    """Every layer in the order in which it runs; whoever takes it may change its weight before asking for the next.

    The graph is walked once with two values a node: of the network as it was, and with the changes made so far.
    """
    layers = layer_nodes(network)
    last = {source: node for node in network.graph.nodes for source in node.all_input_nodes}
    before, after = fx.Interpreter(network), fx.Interpreter(network)
    for node in network.graph.nodes:
        if node.op == "placeholder":
            before.env[node] = after.env[node] = images
            continue
        if node.op == "output":
            return
        with torch.no_grad():
            before.env[node] = before.run_node(node)
        if node in layers:
            what = operation(network, next(iter(node.users))) if len(node.users) == 1 else None
            activation, source = F.relu if what in RELU else F.relu6 if what in RELU6 else _same, node.all_input_nodes[0]
            target = activation(before.env[node])
            yield Place(str(node.target), layers[node], activation, before.env[source], after.env[source], target)
        with torch.no_grad():
            after.env[node] = after.run_node(node)
        for source in node.all_input_nodes:
            if last[source] is node:
                del before.env[source], after.env[source]


def _same(x: Tensor) -> Tensor:
    return x
