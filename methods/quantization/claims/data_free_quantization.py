"""The claims of Data-Free Quantization."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import norm as normal
from torch import fx, nn

from methods.kit import nets, quant
from methods.kit.lab import Lab
from methods.kit.ledger import UNSEEN
from methods.kit.task import Task
from methods.quantization import data_free_quantization as method


def claim_beats_minmax(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("minmax").accuracy


def claim_eight_bits_cost_half_a_point(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy


def claim_closes_the_gap(lab: Lab) -> float:
    """Share of what plain 8 bits lose that is won back."""
    return claim_beats_minmax(lab) / (lab.before.accuracy - lab.control("minmax").accuracy)


NO_TASK = Task("none", UNSEEN, UNSEEN, UNSEEN, steps=0)


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


@torch.no_grad()
def claim_equalization_changes_nothing(lab: Lab) -> float:
    model = small_network()
    network, statistics = method.prepare_network(model)
    method.equalize(network, statistics, method.Config().settled)
    return method.change(network, model, torch.randn(16, 3, 8, 8))


@torch.no_grad()
def claim_pair_has_equal_ranges(lab: Lab) -> float:
    """Largest relative distance of a range from sqrt(r1 r2) after one step, ranges taken channel by channel."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3, groups=2)

    def by_channel() -> np.ndarray:
        v, w = first.weight.numpy(), second.weight.numpy()
        return np.array([[abs(v[i]).max(), abs(w[i // 4 * 2 : i // 4 * 2 + 2, i % 4]).max()] for i in range(8)])

    goal = np.sqrt(by_channel().prod(1, keepdims=True))
    method.equalize_pair(first, second)
    return float(abs(by_channel() / goal - 1).max())


@torch.no_grad()
def claim_sweep_settles(lab: Lab) -> list[float]:
    """Largest |log(r1 / r2)| that the sweep leaves in any of four pairs."""
    network, statistics = method.prepare_network(small_network())
    method.equalize(network, statistics, method.Config().settled)
    layers = [network.get_submodule(name) for name in ("0.conv", "1.conv", "2.conv", "3.conv", "5")]
    return [float((r1 / r2).log().abs().max()) for r1, r2 in (method.ranges(*pair) for pair in pairwise(layers))]


@torch.no_grad()
def claim_statistics_follow(lab: Lab) -> float:
    """Largest error of the tracked mean and deviation, in deviations, equalized and absorbed, on normal inputs."""
    torch.manual_seed(0)
    model, draws = shaken(nets.conv_bn(6, 6, 1), nets.conv_bn(6, 4, 1)), torch.randn(40_000, 6, 1, 1)
    norm = model[0].bn
    norm.bias += 5
    norm.running_mean.zero_()
    norm.running_var.copy_(model[0].conv.weight.square().sum((1, 2, 3)) - norm.eps)
    network, statistics = method.prepare_network(model)
    method.equalize(network, statistics, method.Config().settled)
    method.absorb_high_biases(network, statistics, method.Config().absorbed)
    seen, told = network.get_submodule("0.conv")(draws).flatten(1), statistics["0.conv"]
    return float(torch.cat([(seen.mean(0) - told.beta) / told.gamma, seen.std(0) / told.gamma - 1]).abs().max())


@torch.no_grad()
def claim_absorption_changes_nothing(lab: Lab) -> float:
    """Where all inputs exceed c; infinite if they do not or the bias has not fallen by c."""
    torch.manual_seed(0)
    model = shaken(nets.conv_bn(3, 8, 1), nn.Conv2d(8, 6, 3, groups=2))
    beta, gamma = model[0].bn.bias.copy_(torch.linspace(2, 9, 8)), model[0].bn.weight.copy_(torch.linspace(0.5, 1, 8))
    c, images = np.maximum(0, beta.numpy() - 3 * gamma.numpy()), 0.02 * torch.randn(4, 3, 6, 6)
    network, statistics = method.prepare_network(model)
    bias = network.get_submodule("0.conv").bias.numpy().copy()
    method.absorb_high_biases(network, statistics, method.Config().absorbed)
    fallen = bias - network.get_submodule("0.conv").bias.numpy()
    exceeded = bool((model[0](images) > torch.tensor(c).reshape(-1, 1, 1)).all())
    return method.change(network, model, images) if exceeded and abs(fallen - c).max() < 1e-5 else math.inf


def clipped_moment(beta: float, gamma: float, power: int) -> float:
    """E[relu(z)^power] by numerical integration."""
    return float(quad(lambda z: z**power * normal.pdf(z, beta, gamma), 0, np.maximum(0, beta) + 12 * gamma, epsabs=1e-12, limit=200)[0])


def claim_clipped_normal(lab: Lab) -> list[float]:
    """Largest error of mean and variance after a ReLU against numerical integration."""
    beta, gamma = torch.cartesian_prod(torch.linspace(-2, 2, 9).double(), torch.linspace(0.3, 2, 4).double()).T
    channels, found = method.Channels(beta, gamma, clipped=True), list[float]()
    for b, g, mean, variance in torch.stack([beta, gamma, channels.mean, channels.variance], 1).tolist():
        first, second = clipped_moment(b, g, 1), clipped_moment(b, g, 2)
        found += [abs(mean - first), abs(variance - second + first**2)]
    return found


@torch.no_grad()
def claim_correction_is_exact(lab: Lab) -> float:
    """What is left of the mean shift of any output, over the largest shift, for normal pre-activations at 4 bits."""
    torch.manual_seed(0)
    model = shaken(nets.conv_bn(3, 8, 1), nn.Conv2d(8, 6, 3, groups=2))
    model[0].bn.bias[:2] = 5 * model[0].bn.weight[:2].abs()  # high enough to be absorbed
    shipped, folded = method.compress(model, NO_TASK, method.Config(bits=4)), method.prepare_network(model)[0]
    s = method.equalize_pair(folded.get_submodule("0.conv"), folded.get_submodule("1"))
    plain, layer, norm = folded.get_submodule("1"), shipped.get_submodule("1"), model[0].bn
    beta, gamma = ((values / s).double().numpy() for values in (norm.bias, norm.weight.abs()))
    c = np.maximum(0, beta - 3 * gamma)
    mean = [clipped_moment(b, g, 1) for b, g in zip(beta - c, gamma, strict=True)]
    eps = (layer.weight - plain.weight).double().numpy()
    taken = np.array([sum(float(plain.weight[o, i].sum()) * c[o // 3 * 4 + i] for i in range(4)) for o in range(6)])
    shift = np.array([sum(eps[o, i].sum() * mean[o // 3 * 4 + i] for i in range(4)) for o in range(6)])
    return float(abs(shift + (layer.bias - plain.bias).double().numpy() - taken).max() / abs(shift).max())


@torch.no_grad()
def claim_ranges_of_activations(lab: Lab) -> list[float]:
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
    grids = [layer for layer in method.compress(network.eval(), NO_TASK, method.Config()).modules() if isinstance(layer, quant.Rounded)]
    b, g = beta.numpy(), gamma.numpy()
    first, second = (np.array([clipped_moment(*pair, power) for pair in zip(b[::-1], g[::-1], strict=True)]) for power in (1, 2))
    low, high = np.minimum(b, 3 * g) - 6 * g, np.minimum(b, 3 * g) + 6 * g
    summed = b + first + 6 * np.sqrt(g**2 + second - first**2)
    goals = [(0, (b + 6 * g).max()), (0, high.max()), (0, summed.max()), (low.min(), high.max())]
    found = [np.array([grid.low, grid.high]) for grid in grids]
    gaps = [abs(ends - np.array(goal) / float(grid.scale)).max() for ends, goal, grid in zip(found, goals, grids, strict=True)]
    return [float(gap) if high - low == 255 else math.inf for gap, (low, high) in zip(gaps, found, strict=True)]


@torch.no_grad()
def claim_eight_bits_without_data(lab: Lab) -> list[float]:
    """Most levels that any layer's weight, or what enters it, takes; the task raises when it is touched."""
    shipped, levels, images = method.compress(small_network(), NO_TASK, method.Config()), [], torch.randn(64, 3, 8, 8)
    for place in quant.in_order(cast(fx.GraphModule, shipped), images):
        steps = (place.layer.weight / place.layer.weight_scale).round()
        if not torch.equal(steps * place.layer.weight_scale, place.layer.weight):
            return math.inf
        levels += [int(steps.max() - steps.min()) + 1, 0 if torch.equal(place.inputs, images) else len(place.inputs.unique())]
    return list(levels)


def claim_more_than_equalization(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("equalized").accuracy
