"""The claims of AdaRound."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from methods.kit import nets, quant
from methods.kit.lab import Lab
from methods.kit.testing import images_only
from methods.quantization import adaround as method


def fractions(lab: Lab) -> list[Tensor]:
    """h(V) of the first two layers as it is before hard rounding."""
    network, _ = quant.fold_batch_norm(lab.reference)
    places = itertools.islice(quant.in_order(network, lab.task.train.first(lab.config.images).images.to(lab.task.device)), 2)
    return [method.learn_rounding(p, quant.least_squares_grid(p.layer.weight, lab.config.bits), lab.config, lab.task.seed) for p in places]


def claim_ends_binary(lab: Lab) -> float:
    """Share of the first two layers' rounding variables that are 0 or 1 by themselves."""
    up = torch.cat([h.flatten() for h in fractions(lab)])
    return float(((up == 0) | (up == 1)).float().mean())


def claim_beats_nearest(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("nearest").accuracy


def claim_beats_nearest_at_four_bits(lab: Lab) -> float:
    return claim_beats_nearest(lab)


def claim_four_bits_cost_a_point(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy


@torch.no_grad()
def claim_smaller_layer_error(lab: Lab) -> float:
    """E || dW x ||^2 over that of nearest rounding: the geometric mean over layers."""
    network, _ = quant.fold_batch_norm(lab.reference)
    ratios = []
    for place in quant.in_order(network, lab.task.validation.images[:128].to(lab.task.device)):
        weights = [model.get_submodule(place.name).weight.detach() for model in (lab.compressed, lab.controlled("nearest"))]
        learned, nearest = (quant.run(place.layer, w - place.layer.weight.detach(), place.original) for w in weights)
        still = quant.run(place.layer, torch.zeros_like(weights[0]), place.original)  # the bias alone
        ratios.append(float(method.distance(learned, still, place.layer) / method.distance(nearest, still, place.layer)))
    return float(np.exp(np.mean(np.log(ratios))))


def claim_floor_or_ceiling(lab: Lab) -> list[float]:
    """Largest distance, in steps, of a final weight from the nearer of the two neighbours of W / s, clipped to [n, p]."""
    torch.manual_seed(0)
    network, bits = nets.resnet(8, width=4), 2
    learned = method.compress(network, images_only(torch.randn(8, 3, 8, 8)), method.Config(bits=bits, iterations=4, batch=4, lr=1.0))
    folded, found = quant.fold_batch_norm(network)[0], list[float]()
    for name, layer in learned.named_modules():
        if isinstance(layer, quant.LAYERS):
            scale = layer.weight_scale.double().numpy()
            steps = folded.get_submodule(name).weight.detach().double().numpy() / scale
            final = layer.weight.detach().double().numpy() / scale
            ways = [np.clip(way(steps), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for way in (np.floor, np.ceil)]
            found.append(float(np.minimum(*(abs(final - way) for way in ways)).max()))
    return found


def claim_rectified_sigmoid(lab: Lab) -> list[float]:
    """Largest error of h, with the stretch that the paper prints, and of its gradient against finite differences."""
    v = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)
    method.rectified_sigmoid(v, method.Config()).sum().backward()

    def h(at: np.ndarray) -> np.ndarray:
        return np.clip(1.2 * expit(at) - 0.1, 0, 1)

    at = v.detach().numpy()
    slope = (h(at + 1e-6) - h(at - 1e-6)) / 2e-6
    return [abs(method.rectified_sigmoid(v, method.Config()).detach().numpy() - h(at)).max(), abs(v.grad.numpy() - slope).max()]


def claim_penalty(lab: Lab) -> list[float]:
    """Largest error of the penalty, 0 for a decided variable and 1 for one on the fence, and of its gradient."""
    up = torch.linspace(0.01, 0.99, 21, dtype=torch.float64, requires_grad=True)
    found = [abs(float(method.undecided(torch.tensor([0.0, 1.0, 0.5, 0.5]), 2.0)) - 2)]
    for beta in (2.0, 7.5, 20.0):
        (slope,) = torch.autograd.grad(method.undecided(up, beta), up)
        for k, h in enumerate(up.tolist()):
            around = [1 - math.pow(abs(2 * (h + step) - 1), beta) for step in (-1e-6, 1e-6)]
            found.append(abs((around[1] - around[0]) / 2e-6 - float(slope[k])))
    return found


def claim_reconstruction_error(lab: Lab) -> list[float]:
    """Largest relative error of the distance, for maps (N, C, H, W) and for sequences (N, T, C), against numpy."""
    found = list[float]()
    for layer, shape, channels in ((nn.Conv2d(3, 5, 1), (4, 5, 3, 2), 1), (nn.Linear(3, 5), (4, 3, 5), 2)):
        a, b = torch.randn(2, *shape, dtype=torch.float64)
        wanted = np.square(a.numpy() - b.numpy()).sum(channels).mean()
        found.append(abs(float(method.distance(a, b, layer)) / wanted - 1))
    return found


def claim_annealing(lab: Lab) -> list[float]:
    """Largest distance from the schedule: no penalty for a fifth, then beta from 20 by way of 11 to 2."""
    if any(method.annealed(progress, method.Config()) is not None for progress in (0, 0.1, 0.19)):
        return math.inf
    betas = [method.annealed(progress, method.Config()) for progress in (0.2, 0.6, 1.0)]
    return [abs(beta - goal) if beta is not None else math.inf for beta, goal in zip(betas, (20, 11, 2), strict=True)]


def claim_starts_at_the_weights(lab: Lab) -> float:
    """Largest distance, in steps, of the soft weight from the weight inside the grid, and from the grid's end outside."""
    torch.manual_seed(0)
    weight, grid = torch.randn(1000, dtype=torch.float64), quant.Grid(torch.tensor(0.23, dtype=torch.float64), -4, 3)
    soft = method.soft_weight(
        weight, method.rectified_sigmoid(method.starting_point(weight, grid.scale, method.Config()), method.Config()), grid
    )
    return float(((soft - weight.clamp(-4 * 0.23, 3 * 0.23)) / 0.23).abs().max())


TINY = method.Config(bits=2, iterations=20, batch=64, lr=0.5)


def excess(layer: nn.Linear, place: quant.Place, scale: Tensor, weights: list[Tensor]) -> list[float]:
    """Squared error of each weight's answer to the place's inputs, over the least of all 2^k roundings."""
    down = (layer.weight / scale).floor()
    ways = (torch.tensor(way).reshape(down.shape) for way in itertools.product((0.0, 1.0), repeat=down.numel()))
    tried = weights + [scale * (down + way).clamp(-2, 1) for way in ways]
    errors = [float((place.activation(place.inputs @ w.T + layer.bias) - place.target).square().sum()) for w in tried]
    return [error - float(np.min(errors)) for error in errors[: len(weights)]]


@torch.no_grad()
def claim_near_the_best_rounding(lab: Lab) -> float:
    """Excess error over the best rounding, of nearest rounding's: two layers in a row, summed over networks."""
    left = []
    for seed in range(6):
        torch.manual_seed(seed)
        network, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3)), torch.randn(64, 3) @ torch.randn(3, 3) + 1
        with torch.enable_grad():
            learned = method.compress(network, images_only(x), TINY)
        nearest, middle = method.control_nearest(network, images_only(x), TINY, network), network[:2](x)
        first = quant.Place("0", network[0], torch.relu, x, x, middle)
        second = quant.Place("2", network[2], torch.clone, middle, learned.get_submodule("0")(x).relu(), network(x))
        for place in (first, second):
            weights = [model.get_submodule(place.name).weight for model in (learned, nearest)]
            left.append(excess(place.layer, place, learned.get_submodule(place.name).weight_scale, weights))
    return float(np.divide(*np.sum(left, 0)))


@torch.no_grad()
def claim_makes_up_for_earlier_layers(lab: Lab) -> float:
    """The same for one layer whose inputs are off, and have outliers that only squared errors heed."""
    left = []
    for seed in range(12):
        torch.manual_seed(seed)
        layer, x = nn.Linear(4, 2), torch.randn(64, 4) * torch.randn(64, 1).exp()
        off = x + torch.randn(4) * x[:, :1]
        grid = quant.least_squares_grid(layer.weight, TINY.bits)
        place = quant.Place("", layer, torch.clone, x, off, layer(x))
        with torch.enable_grad():
            up = method.learn_rounding(place, grid, TINY, seed)
        left.append(excess(layer, place, grid.scale, [method.soft_weight(layer.weight, up.round(), grid), grid.nearest(layer.weight)]))
    return float(np.divide(*np.sum(left, 0)))
