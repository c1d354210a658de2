"""Data-Free Quantization (Nagel et al., ICCV 2019).

Networks with batch norm, depthwise ones above all, have channels of very different size, so one 8-bit grid a layer
wastes its levels on the largest. A ReLU does not mind when a channel is divided by s before it and multiplied by s
after it: such factors even out the ranges of neighbouring layers and leave the function as it was. What mean shift
rounding still causes follows from batch norm's own statistics, and is taken off the bias. No image is looked at.

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
from typing import cast

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import norm as normal
from torch import Tensor, fx, nn

from methods.kit import nets, quant
from methods.kit.lab import Lab
from methods.kit.task import Task, on_copies
from methods.kit.testing import UNTOUCHABLE


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
        return (square - self.mean**2).clamp_min(0)  # equivalent: below zero by rounding errors alone


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
    for _ in range(MOST_SWEEPS):
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


def claim_beats_minmax(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("minmax").accuracy


def claim_eight_bits_cost_half_a_point(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy


def claim_closes_the_gap(lab: Lab) -> float:
    """Share of what plain 8 bits lose that is won back."""
    return claim_beats_minmax(lab) / (lab.before.accuracy - lab.control("minmax").accuracy)


NO_TASK = Task("none", UNTOUCHABLE, UNTOUCHABLE, UNTOUCHABLE, steps=0)


def shaken(*layers: nn.Module) -> nn.Sequential:
    """The layers with random batch norms, as after training; scales may be negative."""
    network = nn.Sequential(*layers).eval()
    for norm in (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.2, 2), norm.weight.uniform_(-2, 2), norm.bias.uniform_(-1, 1)
    return network


def small_network() -> nn.Sequential:
    """Four pairs: depthwise, pointwise, grouped, and a map flattened into a linear layer."""
    torch.manual_seed(0)
    blocks = nets.conv_bn(3, 8), nets.conv_bn(8, 8, groups=8), nets.conv_bn(8, 8, 1), nets.conv_bn(8, 12, groups=4, stride=2)
    return shaken(*blocks, nn.Flatten(), nn.Linear(12 * 16, 5))


def change(network: nn.Module, model: nn.Module, images: Tensor) -> float:
    """Largest change of an output, over the largest output."""
    return float((network(images) - model(images)).abs().max() / model(images).abs().max())


@torch.no_grad()
def claim_equalization_changes_nothing(lab: Lab) -> float:
    model = small_network()
    network, statistics = prepare_network(model)
    equalize(network, statistics, Config().settled)
    return change(network, model, torch.randn(16, 3, 8, 8))


@torch.no_grad()
def claim_pair_has_equal_ranges(lab: Lab) -> float:
    """Largest relative distance of a range from sqrt(r1 r2) after one step, ranges taken channel by channel."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3, groups=2)

    def by_channel() -> np.ndarray:
        v, w = first.weight.numpy(), second.weight.numpy()
        return np.array([[abs(v[i]).max(), abs(w[i // 4 * 2 : i // 4 * 2 + 2, i % 4]).max()] for i in range(8)])

    goal = np.sqrt(by_channel().prod(1, keepdims=True))
    equalize_pair(first, second)
    return float(abs(by_channel() / goal - 1).max())


@torch.no_grad()
def claim_sweep_settles(lab: Lab) -> float:
    """Largest |log(r1 / r2)| that the sweep leaves in any of four pairs."""
    network, statistics = prepare_network(small_network())
    equalize(network, statistics, Config().settled)
    layers = [network.get_submodule(name) for name in ("0.conv", "1.conv", "2.conv", "3.conv", "5")]
    return max(float((r1 / r2).log().abs().max()) for r1, r2 in (ranges(*pair) for pair in pairwise(layers)))


@torch.no_grad()
def claim_statistics_follow(lab: Lab) -> float:
    """Largest error of the tracked mean and deviation, in deviations, equalized and absorbed, on normal inputs."""
    torch.manual_seed(0)
    model, draws = shaken(nets.conv_bn(6, 6, 1), nets.conv_bn(6, 4, 1)), torch.randn(40_000, 6, 1, 1)
    norm = model[0].bn
    norm.bias += 5
    norm.running_mean.zero_()
    norm.running_var.copy_(model[0].conv.weight.square().sum((1, 2, 3)) - norm.eps)
    network, statistics = prepare_network(model)
    equalize(network, statistics, Config().settled)
    absorb_high_biases(network, statistics, Config().absorbed)
    seen, told = network.get_submodule("0.conv")(draws).flatten(1), statistics["0.conv"]
    return float(torch.cat([(seen.mean(0) - told.beta) / told.gamma, seen.std(0) / told.gamma - 1]).abs().max())


@torch.no_grad()
def claim_absorption_changes_nothing(lab: Lab) -> float:
    """Where all inputs exceed c; infinite if they do not or the bias has not fallen by c."""
    torch.manual_seed(0)
    model = shaken(nets.conv_bn(3, 8, 1), nn.Conv2d(8, 6, 3, groups=2))
    beta, gamma = model[0].bn.bias.copy_(torch.linspace(2, 9, 8)), model[0].bn.weight.copy_(torch.linspace(0.5, 1, 8))
    c, images = np.maximum(0, beta.numpy() - 3 * gamma.numpy()), 0.02 * torch.randn(4, 3, 6, 6)
    network, statistics = prepare_network(model)
    bias = network.get_submodule("0.conv").bias.numpy().copy()
    absorb_high_biases(network, statistics, Config().absorbed)
    fallen = bias - network.get_submodule("0.conv").bias.numpy()
    exceeded = bool((model[0](images) > torch.tensor(c).reshape(-1, 1, 1)).all())
    return change(network, model, images) if exceeded and abs(fallen - c).max() < 1e-5 else math.inf


def clipped_moment(beta: float, gamma: float, power: int) -> float:
    """E[relu(z)^power] by numerical integration."""
    return float(quad(lambda z: z**power * normal.pdf(z, beta, gamma), 0, max(0, beta) + 12 * gamma, epsabs=1e-12, limit=200)[0])


def claim_clipped_normal(lab: Lab) -> float:
    """Largest error of mean and variance after a ReLU against numerical integration."""
    beta, gamma = torch.cartesian_prod(torch.linspace(-2, 2, 9).double(), torch.linspace(0.3, 2, 4).double()).T
    channels, worst = Channels(beta, gamma, clipped=True), 0.0
    for b, g, mean, variance in torch.stack([beta, gamma, channels.mean, channels.variance], 1).tolist():
        first, second = clipped_moment(b, g, 1), clipped_moment(b, g, 2)
        worst = max(worst, abs(mean - first), abs(variance - second + first**2))
    return worst


@torch.no_grad()
def claim_correction_is_exact(lab: Lab) -> float:
    """What is left of the mean shift of any output, over the largest shift, for normal pre-activations at 4 bits."""
    torch.manual_seed(0)
    model = shaken(nets.conv_bn(3, 8, 1), nn.Conv2d(8, 6, 3, groups=2))
    model[0].bn.bias[:2] = 5 * model[0].bn.weight[:2].abs()  # high enough to be absorbed
    shipped, folded = compress(model, NO_TASK, Config(bits=4)), prepare_network(model)[0]
    s = equalize_pair(folded.get_submodule("0.conv"), folded.get_submodule("1"))
    plain, layer, norm = folded.get_submodule("1"), shipped.get_submodule("1"), model[0].bn
    beta, gamma = ((values / s).double().numpy() for values in (norm.bias, norm.weight.abs()))
    c = np.maximum(0, beta - 3 * gamma)
    mean = [clipped_moment(b, g, 1) for b, g in zip(beta - c, gamma, strict=True)]
    eps = (layer.weight - plain.weight).double().numpy()
    taken = np.array([sum(float(plain.weight[o, i].sum()) * c[o // 3 * 4 + i] for i in range(4)) for o in range(6)])
    shift = np.array([sum(eps[o, i].sum() * mean[o // 3 * 4 + i] for i in range(4)) for o in range(6)])
    return float(abs(shift + (layer.bias - plain.bias).double().numpy() - taken).max() / abs(shift).max())


@torch.no_grad()
def claim_ranges_of_activations(lab: Lab) -> float:
    """Largest error, in steps, of an end of a grid: behind ReLU6, a high bias absorbed, a shortcut, and no activation at all."""
    ends = nets.conv_bn(4, 4, 1, act=nn.ReLU6), nets.conv_bn(4, 4, 1, act=None)
    network = nn.Sequential(ends[0], nets.Residual(4, 4, 1), ends[1], nn.Conv2d(4, 4, 1))
    beta, gamma = torch.tensor([-1.0, 0.5, 2.0, 8.0]), torch.tensor([1.0, 2.0, 1.5, 1.0])
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.fill_(0.5)  # equal ranges leave equalization nothing to do
        elif isinstance(layer, nn.BatchNorm2d):
            layer.weight.copy_(gamma), layer.bias.copy_(beta), layer.running_var.copy_(gamma**2 - layer.eps)
    network[0].bn.weight.copy_(gamma.flip(0)), network[0].bn.bias.copy_(beta.flip(0)), network[0].bn.running_var.copy_(gamma.flip(0) ** 2)
    grids = [layer for layer in compress(network.eval(), NO_TASK, Config()).modules() if isinstance(layer, quant.Rounded)]
    b, g = beta.numpy(), gamma.numpy()
    first, second = (np.array([clipped_moment(*pair, power) for pair in zip(b[::-1], g[::-1], strict=True)]) for power in (1, 2))
    low, high = np.minimum(b, 3 * g) - 6 * g, np.minimum(b, 3 * g) + 6 * g
    summed = b + first + 6 * np.sqrt(g**2 + second - first**2)
    goals = [(0, (b + 6 * g).max()), (0, high.max()), (0, summed.max()), (low.min(), high.max())]
    found = [np.array([grid.low, grid.high]) for grid in grids]
    gaps = [abs(ends - np.array(goal) / float(grid.scale)).max() for ends, goal, grid in zip(found, goals, grids, strict=True)]
    return float(max(gaps)) if all(high - low == 255 for low, high in found) else math.inf


@torch.no_grad()
def claim_eight_bits_without_data(lab: Lab) -> float:
    """Most levels that any layer's weight, or what enters it, takes; the task raises when it is touched."""
    shipped, levels, images = compress(small_network(), NO_TASK, Config()), [], torch.randn(64, 3, 8, 8)
    for place in quant.in_order(cast(fx.GraphModule, shipped), images):
        steps = (place.layer.weight / place.layer.weight_scale).round()
        if not torch.equal(steps * place.layer.weight_scale, place.layer.weight):
            return math.inf
        levels += [int(steps.max() - steps.min()) + 1, 0 if torch.equal(place.inputs, images) else len(place.inputs.unique())]
    return max(levels)


def claim_more_than_equalization(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("equalized").accuracy
