"""Data-Free Quantization (Nagel et al., ICCV 2019).

Networks with batch norm, depthwise ones above all, have channels of very different size, so one 8-bit grid a layer
wastes its levels on the largest. A ReLU does not mind when a channel is divided by s before it and multiplied by s
after it: such factors even out the ranges of neighbouring layers and leave the function as it was. What mean shift
rounding still causes follows from batch norm's own statistics, and is taken off the bias. No image is looked at.

Departures: the trained network starts with its channels rescaled at random, each pair of layers by s and 1/s, which
changes nothing in its function but makes plain 8 bits fail as they do on a real MobileNet (`reference`). What enters
a convolution or linear layer is 8 bits; sums before a ReLU, biases and the images, bytes by themselves, are left
alone, and normalised images need no correction of the first layer, their mean being zero. Max pooling counts as if
neighbours were equal, a shortcut's sum as if its terms were independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor, fx, nn

from methods.kit import nets, quant
from methods.kit.lab import Lab
from methods.kit.task import Task


@dataclass(frozen=True)
class Config:
    bits: int = 8  # of weights and activations, §5
    absorbed: float = 3.0  # deviations: c = max(0, beta - 3 gamma), §4.1.3
    reach: float = 6.0  # deviations: activations range over beta +- 6 gamma, §5
    settled: float = 1e-3  # the sweep ends when no factor is further from 1; "until convergence", §4.1.2


SPREAD = 3.0  # octaves up and down by which `reference` rescales channels


def reference(task: Task) -> nn.Module:
    """The trained depthwise net, its channels rescaled by 2^u, u uniform in +-SPREAD: the same function."""
    network, chance = nets.trained("depthwise", task.name), torch.Generator().manual_seed(task.seed)
    blocks = [block for block in network.children() if hasattr(block, "conv")]
    with torch.no_grad():
        for first, second in pairwise([*blocks, SimpleNamespace(conv=network.fc)]):
            factors = 2 ** (SPREAD * (2 * torch.rand(first.bn.num_features, generator=chance) - 1))
            first.bn.weight *= factors
            first.bn.bias *= factors
            quant.scale_inputs(second.conv, 1 / factors)
    return network


@dataclass(frozen=True)
class Channels:
    """A normal distribution for every channel, cut off at zero where a ReLU has acted."""

    beta: Tensor
    gamma: Tensor
    clipped: bool = False

    @property
    def mean(self) -> Tensor:
        """E[relu(z)] = gamma phi(beta / gamma) + beta Phi(beta / gamma) for z ~ N(beta, gamma^2)  (Eq. 19)."""
        if not self.clipped:
            return self.beta
        ratio = self.beta / self.gamma
        return self.gamma * density(ratio) + self.beta * torch.special.ndtr(ratio)

    @property
    def variance(self) -> Tensor:
        """E[relu(z)^2] - E[relu(z)]^2, the first being (beta^2 + gamma^2) Phi(beta / gamma) + beta gamma phi(beta / gamma)."""
        if not self.clipped:
            return self.gamma**2
        ratio = self.beta / self.gamma
        square = (self.beta**2 + self.gamma**2) * torch.special.ndtr(ratio) + self.beta * self.gamma * density(ratio)
        return (square - self.mean**2).clamp_min(0)


def density(x: Tensor) -> Tensor:
    """phi, the standard normal density."""
    return torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def prepare_network(model: nn.Module) -> tuple[fx.GraphModule, dict[str, Channels]]:
    """Batch norm folded, ReLU6 replaced by ReLU (§5), and what batch norm knew of each layer's output."""
    network, statistics = quant.fold_batch_norm(model)
    for node in network.graph.nodes:
        if quant.operation(network, node) in quant.RELU6:
            node.op, node.target, node.args, node.kwargs = "call_function", F.relu, node.args[:1], {}
    tiny = torch.finfo().tiny
    return quant.rebuilt(network), {name: Channels(beta, gamma.clamp_min(tiny)) for name, (beta, gamma) in statistics.items()}


def pairs(network: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Neighbouring layers with no branch between them, and nothing but operations with f(s x) = s f(x) for s > 0."""
    layers, found = quant.layer_nodes(network), []
    for first in layers:
        node = first
        while len(node.users) == 1:
            node = next(iter(node.users))
            if node in layers:
                found.append((first, node))
            if quant.operation(network, node) not in quant.RELU | quant.PASS:
                break
    return found


def ranges(first: quant.Layer, second: quant.Layer) -> tuple[Tensor, Tensor]:
    """r1 of each output channel of the first layer, r2 of each input channel of the second: largest |w|."""
    rows = first.weight.detach().flatten(1)
    return rows.abs().amax(1), quant.by_input(second, second.weight.detach(), len(rows)).abs().amax((1, 3)).flatten()


def equalize_pair(first: quant.Layer, second: quant.Layer) -> Tensor:
    """s = sqrt(r1 r2) / r2 (Eq. 11), W1 <- S^-1 W1, b1 <- S^-1 b1, W2 <- W2 S (Eq. 7). Returns s."""
    r1, r2 = ranges(first, second)
    s = torch.where((r1 > 0) & (r2 > 0), (r1 * r2).sqrt() / r2, 1.0)
    quant.scale_outputs(first, 1 / s)
    quant.set_bias(first, quant.bias_of(first) / s)
    quant.scale_inputs(second, s)
    return s


def equalize(network: fx.GraphModule, statistics: dict[str, Channels], settled: float) -> None:
    """Sweep over all pairs until every factor is 1; the statistics follow."""
    layers, chain, change = quant.layer_nodes(network), pairs(network), math.inf
    while chain and change > settled:
        change = 0.0
        for first, second in chain:
            s = equalize_pair(layers[first], layers[second])
            change = max(change, float(s.log().abs().max()))
            if (known := statistics.get(str(first.target))) is not None:
                statistics[str(first.target)] = Channels(known.beta / s, known.gamma / s)


def absorb_high_biases(network: fx.GraphModule, statistics: dict[str, Channels], deviations: float) -> None:
    """c = max(0, beta - 3 gamma) moves into the next layer: b1 <- b1 - c, b2 <- b2 + W2 c (Eq. 15-16), as relu(x - c) = relu(x) - c."""
    layers = quant.layer_nodes(network)
    for first, second in pairs(network):
        if (known := statistics.get(str(first.target))) is not None:
            c = (known.beta - deviations * known.gamma).clamp_min(0)
            quant.set_bias(layers[first], quant.bias_of(layers[first]) - c)
            quant.set_bias(layers[second], quant.bias_of(layers[second]) + quant.response(layers[second], layers[second].weight.detach(), c))
            statistics[str(first.target)] = Channels(known.beta - c, known.gamma)


def entering(network: fx.GraphModule, statistics: dict[str, Channels]) -> dict[fx.Node, Channels]:
    """How what enters each layer is distributed, images excepted. Raises ValueError where batch norm does not tell."""
    layers, found = quant.layer_nodes(network), {}
    known: dict[fx.Node, Channels | str | None] = {}  # None for images, a reason where nothing is known
    for node in network.graph.nodes:
        what, inputs = quant.operation(network, node), [known[source] for source in node.all_input_nodes]
        reasons = [value for value in inputs if isinstance(value, str)]
        if node in layers:
            if reasons:
                raise ValueError(f"{node.target}: the range of its input is unknown without data: {reasons[0]}")
            if isinstance(inputs[0], Channels):
                found[node] = spread(inputs[0], layers[node])
            known[node] = statistics.get(str(node.target), f"{node.target} has no batch norm of its own behind it")
        elif node.op == "placeholder":
            known[node] = None
        elif reasons:
            known[node] = reasons[0]
        elif what in quant.PASS:
            known[node] = inputs[0]
        elif what in quant.RELU and isinstance(inputs[0], Channels):
            known[node] = Channels(inputs[0].beta, inputs[0].gamma, clipped=True)
        elif what in quant.ADD and len(inputs) == 2 and all(isinstance(value, Channels) for value in inputs):
            known[node] = Channels(sum(v.mean for v in inputs), sum(v.variance for v in inputs).sqrt())
        else:
            known[node] = f"no rule for {node.name} ({getattr(what, '__name__', what)})"
    return found


def spread(channels: Channels, layer: quant.Layer) -> Channels:
    """One entry for each of a linear layer's inputs where a map was flattened into them."""
    times = layer.in_features // len(channels.beta) if isinstance(layer, nn.Linear) else 1
    return Channels(channels.beta.repeat_interleave(times), channels.gamma.repeat_interleave(times), channels.clipped)


def quantize_weights(network: fx.GraphModule, bits: int) -> dict[fx.Node, Tensor]:
    """One asymmetric grid a layer from its least to its largest weight (§5). Returns eps = W~ - W."""
    errors = {}
    for node, layer in quant.layer_nodes(network).items():
        weight = layer.weight.detach()
        grid = quant.min_max_grid(weight.min(), weight.max(), bits)
        quant.ship(layer, grid.nearest(weight), grid.scale)
        errors[node] = layer.weight.detach() - weight
    return errors


def correct_biases(errors: dict[fx.Node, Tensor], inputs: dict[fx.Node, Channels], layers: dict[fx.Node, quant.Layer]) -> None:
    """b <- b - eps E[x]  (Eq. 17), the kernel's positions summed as x has one mean a channel (§4.2.1)."""
    for node, channels in inputs.items():
        quant.set_bias(layers[node], quant.bias_of(layers[node]) - quant.response(layers[node], errors[node], channels.mean))


def activation_grid(channels: Channels, config: Config) -> quant.Grid:
    """From the least beta - 6 gamma, or 0 after a ReLU, to the largest beta + 6 gamma of all channels (§5)."""
    low = channels.beta - config.reach * channels.gamma
    high = channels.beta + config.reach * channels.gamma
    return quant.min_max_grid(torch.zeros(()) if channels.clipped else low.min(), high.max(), config.bits)


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Equalize, absorb, quantize, correct (Fig. 4). Returns the network with 8-bit weights and activations."""
    network, statistics = prepare_network(model)
    equalize(network, statistics, config.settled)
    absorb_high_biases(network, statistics, config.absorbed)
    inputs = entering(network, statistics)
    errors = quantize_weights(network, config.bits)
    correct_biases(errors, inputs, quant.layer_nodes(network))
    return quant.round_inputs(network, {node: activation_grid(channels, config) for node, channels in inputs.items()})


def control_minmax(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same grids and data-free ranges, and nothing else."""
    network, statistics = prepare_network(model)
    inputs = entering(network, statistics)
    quantize_weights(network, config.bits)
    return quant.round_inputs(network, {node: activation_grid(channels, config) for node, channels in inputs.items()})
