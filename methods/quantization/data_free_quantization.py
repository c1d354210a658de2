"""Data-Free Quantization (Nagel et al., ICCV 2019).

Networks with batch norm, depthwise ones above all, have channels of very different size, so one 8-bit grid a layer
wastes its levels on the largest. A ReLU does not mind when a channel is divided by s before it and multiplied by s
after it: such factors even out the ranges of neighbouring layers and leave the function as it was. What mean shift
rounding still causes follows from batch norm's own statistics, and is taken off the bias. No image is looked at.

Algorithms: cross-layer equalization, absorption of high biases, bias correction.

Departures: the trained network starts with its channels rescaled at random, each pair of layers by s and 1/s, which
changes nothing in its function but makes plain 8 bits fail as they do on a real MobileNet (`reference`). What enters
a convolution or linear layer is 8 bits; sums before a ReLU, biases and the images, bytes by themselves, are left
alone, and normalised images need no correction of the first layer, their mean being zero. Max pooling counts as if
neighbours were equal, a shortcut's sum as if its terms were independent. Absorption and correction count a channel's
mean at every position of the kernel, zero padding too, as the authors' toolkit (AIMET) does. Layers stay in
floats where nothing but data would tell the range of what enters them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import torch
from torch import Tensor, fx, nn

from methods.kit import nets, quant
from methods.kit.task import Task, on_copies
from methods.kit.watch import iterations


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


MOST_SWEEPS = 1000


@dataclass(frozen=True)
class Channels:
    """A normal distribution for every channel, cut off at zero where a ReLU has acted."""

    beta: Tensor
    gamma: Tensor
    clipped: bool = False

    @property
    def mean(self) -> Tensor:
        """E[relu(z)] = gamma phi(beta / gamma) + beta Phi(beta / gamma) for z ~ N(beta, gamma^2)  (§4.2.1)."""
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


TINY = torch.finfo().tiny


def prepare_network(model: nn.Module, exclude: Iterable[str] = ()) -> tuple[fx.GraphModule, dict[str, Channels]]:
    """Batch norm folded, ReLU6 replaced by ReLU (§5.1), and what batch norm knew of each layer's output."""
    network, statistics = quant.fold_batch_norm(model, exclude)
    return quant.without_relu6(network), {name: Channels(beta, gamma.clamp_min(TINY)) for name, (beta, gamma) in statistics.items()}


def ranges(first: quant.Layer, second: quant.Layer) -> tuple[Tensor, Tensor]:
    """r1 of each output channel of the first layer, r2 of each input channel of the second: largest |w|."""
    rows = first.weight.detach().flatten(1)
    return rows.abs().amax(1), quant.by_input(second, second.weight.detach(), len(rows)).abs().amax((1, 3)).flatten()


def equalize_pair(first: quant.Layer, second: quant.Layer) -> Tensor:
    """s = sqrt(r1 r2) / r2, W1 <- S^-1 W1, b1 <- S^-1 b1, W2 <- W2 S (§4.1). Returns s."""
    r1, r2 = ranges(first, second)
    s = torch.where((r1 > 0) & (r2 > 0), (r1 * r2).sqrt() / r2, 1.0)
    quant.scale_outputs(first, 1 / s)
    quant.set_bias(first, quant.bias_of(first) / s)
    quant.scale_inputs(second, s)
    return s


def equalize(network: fx.GraphModule, statistics: dict[str, Channels], settled: float) -> None:
    """Sweep over all pairs until every factor is 1; the statistics follow. Warns where they still move after MOST_SWEEPS."""
    layers = quant.layer_nodes(network)
    for _ in iterations(MOST_SWEEPS):
        change = 0.0
        for first, second in quant.neighbours(network):
            s = equalize_pair(layers[first], layers[second])
            change = max(change, float(s.log().abs().max()))
            if (known := statistics.get(str(first.target))) is not None:
                statistics[str(first.target)] = Channels(known.beta / s, known.gamma / s)
        if change < settled:
            return
    logging.getLogger(__name__).warning("equalization has not settled: a factor still moves by %.2g after %d sweeps", change, MOST_SWEEPS)


def absorb_high_biases(network: fx.GraphModule, statistics: dict[str, Channels], deviations: float) -> None:
    """c = max(0, beta - 3 gamma) moves into the next layer: b1 <- b1 - c, b2 <- b2 + W2 c, as relu(x - c) = relu(x) - c (§4.1.3)."""
    layers = quant.layer_nodes(network)
    for first, second in quant.neighbours(network):
        if (known := statistics.get(str(first.target))) is not None:
            one, two = layers[first], layers[second]
            c = (known.beta - deviations * known.gamma).clamp_min(0)
            quant.set_bias(one, quant.bias_of(one) - c)
            quant.set_bias(two, quant.bias_of(two) + quant.response(two, two.weight.detach(), c))
            statistics[str(first.target)] = Channels(known.beta - c, known.gamma)


def entering(network: fx.GraphModule, statistics: dict[str, Channels]) -> dict[fx.Node, Channels]:
    """How what enters each layer is distributed, images excepted; layers of which batch norm does not tell are left in floats.

    Raises ValueError where all are.
    """
    layers, found = quant.layer_nodes(network), {}
    known: dict[fx.Node, Channels | str | None] = {}  # None for images, a reason where nothing is known
    for node in network.graph.nodes:
        what, inputs = quant.operation(network, node), [known[source] for source in node.all_input_nodes]
        reasons = [value for value in inputs if isinstance(value, str)]
        if node in layers:
            if reasons:
                quant.leave(network, {str(node.target): f"the range of its input is unknown without data: {reasons[0]}"})
            if isinstance(inputs[0], Channels):
                found[node] = inputs[0]
            known[node] = statistics.get(str(node.target), f"{node.target} has no batch norm of its own behind it")
        elif node.op == "placeholder":
            known[node] = None
        elif what is nn.BatchNorm2d and (norm := network.get_submodule(str(node.target))).running_mean is not None and norm.affine:
            known[node] = Channels(norm.bias.detach(), norm.weight.detach().abs().clamp_min(TINY))
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
    quant.name_the_kept("data-free quantization needs a layer whose input batch norm or the image tells", network)
    return found


def activation_grid(channels: Channels, config: Config) -> quant.Grid:
    """From the least beta - 6 gamma, or 0 after a ReLU, to the largest beta + 6 gamma of all channels (§5)."""
    low = channels.beta - config.reach * channels.gamma
    high = channels.beta + config.reach * channels.gamma
    return quant.min_max_grid(low.new_zeros(()) if channels.clipped else low.min(), high.max(), config.bits)


def quantize(network: fx.GraphModule, inputs: dict[fx.Node, Channels], config: Config) -> dict[fx.Node, Tensor]:
    """One asymmetric grid a layer, from its least to its largest weight, and one for what enters it (§5). Returns eps = W~ - W."""
    errors = {}
    for node, layer in quant.layer_nodes(network).items():
        weight = layer.weight.detach()
        grid = quant.min_max_grid(weight.min(), weight.max(), config.bits)
        quant.ship(layer, grid.nearest(weight), grid.scale)
        errors[node] = layer.weight.detach() - weight
    quant.round_inputs(network, {node: activation_grid(channels, config) for node, channels in inputs.items()})
    return errors


def correct_biases(network: fx.GraphModule, inputs: dict[fx.Node, Channels], errors: dict[fx.Node, Tensor]) -> None:
    """b <- b - eps E[x], the kernel's positions summed as x has one mean a channel (§4.2.1)."""
    layers = quant.layer_nodes(network)
    for node, channels in inputs.items():
        quant.set_bias(layers[node], quant.bias_of(layers[node]) - quant.response(layers[node], errors[node], channels.mean))


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Equalize, absorb, quantize, correct (§4). Returns the network with 8-bit weights and activations."""
    network, statistics = prepare_network(model, task.exclude)
    equalize(network, statistics, config.settled)
    absorb_high_biases(network, statistics, config.absorbed)
    inputs = entering(network, statistics)
    errors = quantize(network, inputs, config)
    correct_biases(network, inputs, errors)
    return network


@on_copies
def control_minmax(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same kinds of grids and data-free ranges (with ReLU in the place of ReLU6), and nothing else."""
    network, statistics = prepare_network(model, task.exclude)
    quantize(network, entering(network, statistics), config)
    return network


@on_copies
def control_equalized(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Equalization alone: biases neither absorbed nor corrected."""
    network, statistics = prepare_network(model, task.exclude)
    equalize(network, statistics, config.settled)
    quantize(network, entering(network, statistics), config)
    return network


def change(network: nn.Module, model: nn.Module, images: Tensor) -> float:
    """Largest change of an output, over the largest output."""
    return float((network(images) - model(images)).abs().max() / model(images).abs().max())
