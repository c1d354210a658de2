"""AdaRound (Nagel et al., ICML 2020).

Rounding every weight to the nearest level is not the rounding that hurts a layer's output least: errors of weights
that see the same inputs can cancel. One soft variable a weight, between down and up, learns from a few unlabelled
images which way to go; a penalty that sharpens with time drives it to 0 or 1. Layer after layer, each making up for
what the layers before it did.

Departures: the activation function in a layer's loss is the ReLU or ReLU6 that alone follows it, where one does; the
loss is a mean over images and positions, as in the authors' toolkit (AIMET), whose annealing and penalty are used where
the paper prints none; in a smoke run 3 bits, fewer images, iterations and images a batch, and a larger learning rate;
in a long run what §5 says, where Table 7's numbers are for 2,048 images and 20,000 iterations. Where a layer's inputs
do not all fit into the memory that the kit allows, a hundred iterations at a time see as many of the images as do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.kit import quant
from methods.kit.task import Task, on_copies
from methods.kit.train import minimise


@dataclass(frozen=True)
class Config:
    bits: int = 4  # of every layer's weights, §5
    images: int = 1024  # unlabelled, §5
    iterations: int = 10_000  # a layer, §5
    batch: int = 32  # images, §5
    lr: float = 1e-3  # Adam's default, §5
    penalty: float = 0.01  # lambda of Eq. 21 and 25; as in the authors' toolkit
    zeta: float = 1.1  # stretch of the rectified sigmoid, Eq. 23
    gamma: float = -0.1
    sharpest: float = 2.0  # beta of Eq. 24 at the end; beta and warm-up as in the authors' toolkit
    flattest: float = 20.0  # and at the start
    warm_up: float = 0.2  # share of the iterations without penalty


SMOKE = Config(bits=3, images=256, iterations=150, batch=4, lr=0.1)  # resnet8 shrugs 4 bits off, and 10,000 steps a layer take minutes


def rectified_sigmoid(v: Tensor, config: Config) -> Tensor:
    """h(V) = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1)  (Eq. 23)."""
    return (torch.sigmoid(v) * (config.zeta - config.gamma) + config.gamma).clamp(0, 1)


def starting_point(weight: Tensor, scale: Tensor, config: Config) -> Tensor:
    """V with h(V) = W / s - floor(W / s): the soft weight starts as the weight."""
    rest = weight / scale - (weight / scale).floor()
    return torch.logit((rest - config.gamma) / (config.zeta - config.gamma))


def soft_weight(weight: Tensor, up: Tensor, grid: quant.Grid) -> Tensor:
    """W~ = s clip(floor(W / s) + h(V), n, p)  (Eq. 22)."""
    return grid.scale * ((weight / grid.scale).floor() + up).clamp(grid.low, grid.high)


def undecided(up: Tensor, beta: float) -> Tensor:
    """f_reg(V) = sum of 1 - |2 h(V) - 1|^beta  (Eq. 24)."""
    return (1 - (2 * up - 1).abs() ** beta).sum()


def annealed(progress: float, config: Config) -> float | None:
    """beta at a share of the iterations: none while warming up, then from flat to sharp along a cosine."""
    if progress < config.warm_up:
        return None
    turn = math.pi * (progress - config.warm_up) / (1 - config.warm_up)
    return config.sharpest + (config.flattest - config.sharpest) * (1 + math.cos(turn)) / 2


def distance(answer: Tensor, target: Tensor, layer: quant.Layer) -> Tensor:
    """Squared norm over a layer's output channels, mean over images and positions."""
    return (answer - target).square().sum(-1 if isinstance(layer, nn.Linear) else 1).mean()


def learn_rounding(place: quant.Place, grid: quant.Grid, config: Config, seed: int) -> Tensor:
    """min over V of || f_a(W x) - f_a(W~ x^) ||^2 + lambda f_reg(V)  (Eq. 25). Returns h(V)."""
    weight = place.layer.weight.detach()
    v = starting_point(weight, grid.scale, config).requires_grad_()
    chance = torch.Generator().manual_seed(seed)

    def loss(iteration: int) -> Tensor:
        fed = place.at(iteration)
        pick = torch.randint(len(fed.inputs), (config.batch,), generator=chance)
        up = rectified_sigmoid(v, config)
        answer = place.activation(quant.run(place.layer, soft_weight(weight, up, grid), fed.inputs[pick]))
        error = distance(answer, fed.target[pick], place.layer)
        beta = annealed(iteration / config.iterations, config)
        return error if beta is None else error + config.penalty * undecided(up, beta)

    minimise(loss, [v], config.iterations, config.lr)
    return rectified_sigmoid(v.detach(), config)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Learn layer by layer which weights to round up, round them, go on with the rounded layer's output (§3.3)."""
    images = task.train.first(config.images).images.to(task.device)
    network, _ = quant.fold_batch_norm(model, task.exclude, images[:1])
    quant.name_the_kept("AdaRound needs a convolution or linear layer", network)
    for place in quant.in_order(network, images, task.seed):
        grid = quant.least_squares_grid(place.layer.weight, config.bits)
        up = learn_rounding(place, grid, config, task.seed)
        hard = (up >= 0.5).float()
        quant.ship(place.layer, soft_weight(place.layer.weight.detach(), hard, grid), grid.scale)
    return network


@on_copies
def control_nearest(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Every weight to the nearest level of the same grid."""
    network, _ = quant.fold_batch_norm(model, task.exclude)
    for layer in quant.layer_nodes(network).values():
        grid = quant.least_squares_grid(layer.weight, config.bits)
        quant.ship(layer, grid.nearest(layer.weight.detach()), grid.scale)
    return network
