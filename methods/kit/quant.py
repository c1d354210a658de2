"""What quantization methods share: batch norm folded away, the graph of a network, grids to round to.

Methods work on the `fx.GraphModule` that `fold_batch_norm` returns: it keeps the layers' names, shows what follows what,
and takes new nodes. A quantized layer is an ordinary layer: `weight` holds integers times the buffer `weight_scale`.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from methods.kit import layers
from methods.kit.layout import evaluating

Layer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
RELU = {nn.ReLU, F.relu, torch.relu, "relu", "relu_"}
RELU6 = {nn.ReLU6, F.relu6}
FLATTEN = {nn.Flatten, torch.flatten, "flatten"}
SHAPELESS = {
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.LeakyReLU,
    nn.Hardswish,
    F.gelu,
    F.silu,
    torch.sigmoid,
    torch.tanh,
    "sigmoid",
    "tanh",
}
ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
PASS = {  # whatever these do to the positions of a channel, a channel times s > 0, or plus a constant, comes out the same way
    nn.Identity, nn.Dropout, nn.Dropout2d, F.dropout, nn.Flatten, torch.flatten, "flatten",
    nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.max_pool2d,
}  # fmt: skip


def operation(network: fx.GraphModule, node: fx.Node) -> Any:
    """What a node does: the class of its module, else its function or the name of its method."""
    return type(network.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def layer_nodes(network: fx.GraphModule) -> dict[fx.Node, Layer]:
    """The convolutions and linear layers that can be quantized, in the order in which they run."""
    found, left = {}, kept(network)
    for node in network.graph.nodes:
        if node.op == "call_module" and node.target not in left and isinstance(layer := network.get_submodule(node.target), LAYERS):
            found[node] = layer
    return found


def kept(network: fx.GraphModule) -> dict[str, str]:
    """What stays in floats, and why: {name: reason}."""
    return network.meta.get("kept", {})


def leave(network: fx.GraphModule, reasons: Mapping[str, str]) -> None:
    """Leave these layers in floats, too."""
    network.meta["kept"] = kept(network) | dict(reasons)


def name_the_kept(needs: str, network: fx.GraphModule) -> None:
    """Log what stays in floats and why. Raises ValueError, beginning with `needs`, where nothing else is there."""
    layers.name_the_kept(needs, map(str, layer_nodes(network)), kept(network))


def is_norm(module: nn.Module) -> bool:
    """Whether a module is batch norm and computes what torch's does."""
    return isinstance(module, NORMS) and type(module).forward is nn.BatchNorm2d.forward


class _Tracer(fx.Tracer):
    """Goes into every module but torch's own and `leaves`; `culprit` is the innermost module in which it failed."""

    def __init__(self, leaves: set[nn.Module]) -> None:
        super().__init__()
        self.leaves, self.culprit = leaves, cast(nn.Module | None, None)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.culprit is None and not self.is_leaf_module(m, self.path_of_module(m)):
                self.culprit = m
            raise


def _graph(model: nn.Module) -> tuple[fx.Graph, dict[nn.Module, str]]:
    """The graph of a network in which modules that cannot be traced are leaves, and why each of those cannot."""
    leaves = dict[nn.Module, str]()
    whole = {part for part in model.modules() if is_norm(part) or isinstance(part, LAYERS)}
    while True:
        tracer = _Tracer(whole | set(leaves))
        try:
            return tracer.trace(model), leaves
        except Exception as problem:  # whatever a forward raises when it is fed a proxy
            if tracer.culprit is None:
                line = f"{type(model).__name__}: torch.fx cannot trace it ({problem}); forward must not branch on values"
                raise ValueError(line) from problem
            leaves[tracer.culprit] = f"torch.fx cannot trace it ({problem})"


def trace(model: nn.Module, exclude: Iterable[str] = (), image: Tensor | None = None) -> fx.GraphModule:
    """A copy of the network as a graph, in evaluation mode, that knows what stays in floats (`kept`).

    That is: what matches a pattern of `exclude`, layers that share a weight, run several times or never, weights of anything
    but convolutions and linear layers, and whatever is inside of a module that cannot be traced. Raises ValueError for
    a network whose own forward cannot be traced, that answers an `image` (1, C, H, W) otherwise than its graph does, that
    computes weights in every pass, or that has no layer to quantize.
    """
    layers.refuse_reparametrized(model)
    root, kind, exclude = copy.deepcopy(model).eval(), type(model).__name__, [*exclude]
    graph, opaque = _graph(root)
    for node in graph.nodes:
        node.type = None  # an annotation of the user's code, which a pickle would ask for
    graph._tracer_cls = fx.Tracer  # who loads the pickle has torch's, but not ours
    network, reasons = fx.GraphModule(root, graph, kind).eval(), dict[str, str]()
    calls, ties = Counter(str(node.target) for node in graph.nodes if node.op == "call_module"), layers.tied(root)
    out = {part for name, part in root.named_modules(remove_duplicate=False) if layers.excluded(name, exclude)}
    around = dict[str, str]()
    for name, part in root.named_modules():
        parent = around.get(name.rpartition(".")[0])
        if parent or (name in calls and list(part.children())):
            around[name] = parent or name  # a leaf of the graph with layers of its own
        weights = {key: value for key, value in part.named_parameters(recurse=False) if value.ndim > 1}
        if not layers.plain(part, LAYERS):
            raw = {f"{name}.{key}".lstrip("."): "a parameter that belongs to no layer" for key in weights}
            own = {name: f"no plain convolution or linear layer but {type(part).__name__}"} if weights else {}
            reasons |= own if isinstance(part, LAYERS) or type(part).__module__.startswith("torch.nn") else raw
        elif part in out:
            reasons[name] = "excluded"
        elif name in ties:
            reasons[name] = ties[name]
        elif name not in calls:
            reasons[name] = f"inside of {parent}, which is not taken apart" if parent else "never runs by itself"
        elif calls[name] > 1:
            reasons[name] = f"runs {calls[name]} times, on inputs of as many kinds"
    reasons |= {name: opaque[part] for name, part in root.named_modules() if part in opaque}
    leave(network, reasons)
    if not layer_nodes(network):
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "nothing has weights"
        raise ValueError(f"{kind}: has no convolution or linear layer to quantize ({why})")
    if image is not None:
        with evaluating(model), torch.no_grad():
            ours, theirs = ([value for value in tree_leaves(net(image)) if isinstance(value, Tensor)] for net in (network, model))
        if not all(torch.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True) for one, other in zip(ours, theirs, strict=True)):
            raise ValueError(f"{kind}: torch.fx traces it to another function; forward must not ask what type its input is of")
    return network


def dimensions(network: fx.GraphModule) -> dict[fx.Node, int]:
    """How many dimensions each node's answer has, where the graph alone says it for sure."""
    found = dict[fx.Node, int]()
    for node in network.graph.nodes:
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        what, sources = operation(network, node), [found.get(source) for source in node.all_input_nodes]
        known = sources[0] if sources else None
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            found[node] = module.weight.ndim
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            found[node] = 4 if isinstance(module, nn.BatchNorm2d) else 5
        elif what in FLATTEN and channelwise(network, node):
            found[node] = 2
        elif what in ("view", "reshape", torch.reshape) and not node.kwargs:
            sizes = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], tuple | list) else node.args[1:]
            found[node] = len(sizes)
        elif what in ("mean", torch.mean) and known and len(node.args) == 2 and isinstance(node.args[1], tuple | list) and not node.kwargs:
            found[node] = known - len(node.args[1])
        elif what in ADD and all(sources):
            found[node] = max(value or 0 for value in sources)
        elif known and (what in (PASS - FLATTEN) | RELU | RELU6 | SHAPELESS or isinstance(module, nn.Linear | nn.BatchNorm1d)):
            found[node] = known
    return found


def fold_batch_norm(
    model: nn.Module, exclude: Iterable[str] = (), image: Tensor | None = None
) -> tuple[fx.GraphModule, dict[str, tuple[Tensor, Tensor]]]:
    """The network with every batch norm folded into the layer that it follows, and what it said of that layer's output.

    Returns the graph and {layer: (mean, deviation)} of each output channel before the activation: batch norm's shift
    and the size of its scale. Batch norms that follow no layer of their own stay, and so do those that keep no statistics, that are
    excluded, and that may not normalise the layer's channels: it is dimension 1 that they do, and a linear layer's channels
    are the last one, which is the same for vectors (N, C) only. Raises ValueError as `trace` does.
    """
    exclude = [*exclude]
    network = trace(model, exclude, image)
    parts, ranks, statistics = layer_nodes(network), dimensions(network), {}
    for node in list(network.graph.nodes):
        norm: Any = network.get_submodule(node.target) if node.op == "call_module" else None
        source = node.args[0] if node.args else None
        if norm is None or not is_norm(norm) or source not in parts or len(source.users) > 1:
            continue
        name, layer = str(node.target), parts[source]
        if isinstance(layer, nn.Linear) and ranks.get(source) != 2:
            reason = f"normalises dimension 1, which need not be the channels of {source.target}"
        elif norm.running_mean is None or norm.running_var is None:
            reason = "keeps no running mean and variance"
        else:
            reason = "excluded" if layers.excluded(name, exclude) else ""
        if reason:
            leave(network, {name: reason})
            continue
        deviation = (norm.running_var + norm.eps).sqrt()
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
    parts, found = layer_nodes(network), []
    for first in parts:
        node, flat, maps = first, False, not isinstance(parts[first], nn.Linear)
        while len(node.users) == 1:
            node = next(iter(node.users))
            if node in parts:
                second, channels = parts[node], len(parts[first].weight)
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
    parts: Callable[[int], Place] | None = None

    def at(self, step: int) -> Place:
        """The place as it is fed at a step: other images after every TURN steps where they do not all fit into memory."""
        return self.parts(step) if self.parts else self


def in_order(network: fx.GraphModule, images: Tensor, seed: int = 0) -> Iterator[Place]:
    """Every layer in the order in which it runs; whoever takes it may change its weight before asking for the next.

    Where not all images fit into memory, the place itself is that of the first one: `at` has more.
    """
    before = copy.deepcopy(network)
    for node in layer_nodes(network):
        name, what = str(node.target), operation(network, next(iter(node.users))) if len(node.users) == 1 else None
        activation = F.relu if what in RELU else F.relu6 if what in RELU6 else _same
        feed = partial(_fed, before, network, name, activation)
        one = feed(images[:1])
        size = one.original.nbytes + one.inputs.nbytes + one.target.nbytes
        parts = layers.in_parts(images, size, feed, seed)
        yield replace(parts(0) if len(images) * size <= layers.MOST_BYTES else one, parts=parts)


def _fed(before: fx.GraphModule, after: fx.GraphModule, name: str, activation: Callable[[Tensor], Tensor], images: Tensor) -> Place:
    """The place of this name on some images."""
    inputs, _ = layers.gathered(after, images, name)
    original, answers = layers.gathered(before, images, name)
    return Place(name, cast(Layer, after.get_submodule(name)), activation, original, inputs, activation(answers))


def _same(x: Tensor) -> Tensor:
    return x
