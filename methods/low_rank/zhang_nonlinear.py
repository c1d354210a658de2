"""Asymmetric 3D (Zhang et al., IEEE TPAMI 2016).

A convolution becomes one of fewer filters and a 1x1 convolution, chosen so that what leaves the ReLU stays the same.
With an auxiliary response for every sampled one, two easy problems alternate: a regression of reduced rank, solved by a
generalised SVD, and a choice for each number by itself. Layers follow from the first to the last: what comes in has
passed the approximated layers, the aim is the original answer. Ranks keep the largest product of PCA energies within a
budget of multiply-adds. A third factor comes from splitting the square kernels into columns and rows.

Departures: batch norm is first folded into its convolution, so that a response is what the ReLU sees; a layer that no
ReLU follows alone (one before a shortcut's sum) takes the linear solution; the budget counts the 1x1 convolutions too;
a few places of each map are sampled, our number; the first convolution stays, and so do grouped ones, dense layers and,
where columns and rows are wanted, kernels of one column or row. In a smoke run fewer images and iterations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize, minimize_scalar
from sklearn.decomposition import PCA
from torch import Tensor, fx, nn

from methods.kit import quant
from methods.kit.lab import Lab
from methods.kit.layers import filled, geometry, name_the_kept, replaceable, replaced, run, truncated_svd
from methods.kit.measure import multiply_adds
from methods.kit.nets import trained
from methods.kit.task import Task
from methods.low_rank.jaderberg_low_rank import scheme2

Factors = tuple[Tensor, Tensor, Tensor]  # P (d, d'), Q^T (d', d) and b (d): y ~ P Q^T y + b
Ranks = tuple[int, int]  # d' filters, and d'' maps between columns and rows; 0 where the kernel stays square


@dataclass(frozen=True)
class Config:
    speedup: float = 4.0  # multiply-adds of the layers over those of their factors; abstract, there of the whole network
    spatial: float = 0.5  # exponent of the part that columns and rows take: sqrt(r), §3.5; 0 keeps the kernels square
    images: int = 3000  # unlabelled, Figure 2
    places: int = 10  # of each map
    penalties: tuple[float, ...] = (0.01, 1.0)  # lambda, §3.2
    iterations: int = 25  # with each, §3.2


SMOKE = Config(speedup=10, images=256, places=8, iterations=8)  # 4 costs this network little, whoever factors it


def reference(task: Task) -> nn.Module:
    """Full convolutions and no shortcuts, like the paper's networks."""
    return trained("vgg_wide", task.name)


def regression(seen: Tensor, z: Tensor, rank: int) -> Factors:
    """min over M and b of sum_i || z_i - (M y_i + b) ||^2 with rank(M) <= d' (§3.2): seen is y, (n, d), and z likewise."""
    y, means = seen - seen.mean(0), (seen.mean(0), z.mean(0))
    cross = (z - means[1]).T @ y  # Z Y^T
    best = cross @ torch.linalg.pinv(y.T @ y, rtol=1e-10, hermitian=True)  # of any rank: Z Y^T (Y Y^T)^-1
    # It is U S V^T with U^T U = I and V^T Y Y^T V = I. M = U_d' S_d' V_d'^T = U_d' U_d'^T best, and U diagonalises:
    p = torch.linalg.eigh(best @ cross.T)[1][:, -rank:]
    q = p.T @ best
    return p, q, means[1] - p @ (q @ means[0])


def nearest(y: Tensor, guess: Tensor, penalty: float) -> Tensor:
    """min over z of (r(y) - r(z))^2 + lambda (z - y')^2 for each number (§3.2): the better of the best z <= 0 and z >= 0."""
    goal = y.relu()
    low, high = guess.clamp(max=0), ((penalty * guess + goal) / (penalty + 1)).relu()
    worse = goal**2 + penalty * (low - guess) ** 2 > (goal - high) ** 2 + penalty * (high - guess) ** 2
    return torch.where(worse, high, low)


def approximation(seen: Tensor, y: Tensor, rank: int, schedule: Iterable[float]) -> Factors:
    """min sum_i || r(y_i) - r(M yhat_i + b) ||^2 (§3.2, §3.3) from the linear solution on, lambda rising."""
    p, q, b = regression(seen, y, rank)
    for penalty in schedule:
        p, q, b = regression(seen, nearest(y, seen @ q.T @ p.T + b, penalty), rank)
    return p, q, b


def sampled(maps: Tensor, places: int, seed: int) -> Tensor:
    """Responses (N, d, H, W) at some places of each image's maps, the same ones for the same seed: (N places, d)."""
    flat, chance = maps.flatten(2), torch.Generator().manual_seed(seed)
    pick = torch.rand(len(flat), 1, flat.shape[2], generator=chance).argsort()[..., :places].to(maps.device)
    return flat.gather(2, pick.expand(-1, flat.shape[1], -1)).transpose(1, 2).flatten(0, 1).double()


def factored(layer: nn.Conv2d, ranks: Ranks, x: Tensor, fit: Callable[[Tensor], Factors]) -> nn.Sequential:
    """Columns and rows that come closest to the kernel (§3.5), then the last layer with d' filters and a 1x1 one (§3.1)."""
    *columns, last = scheme2(layer, ranks[1]) if ranks[1] else [layer]
    p, q, b = fit(nn.Sequential(*columns, last)(x))
    thin = nn.Conv2d(last.in_channels, len(q), **geometry(last), bias=False)
    weight = torch.einsum("rd,d...->r...", q, last.weight.double())  # W' = Q^T W
    parts = filled(last, [thin, nn.Conv2d(len(q), len(p), 1)], [weight, p])
    parts[-1].bias = nn.Parameter((p @ q @ quant.bias_of(last).double() + b).to(layer.weight))
    return nn.Sequential(*columns, *parts)


def energies(y: Tensor) -> Tensor:
    """Eigenvalues of the responses' covariance, the largest first (§3.1)."""
    y = y - y.mean(0)
    return torch.linalg.eigvalsh(y.T @ y / len(y)).flip(0).clamp(min=1e-30)


Feed = Callable[[nn.Module, Tensor, Tensor], Tensor]
Rule = Callable[[dict[str, Tensor], dict[str, float], dict[str, float], float], dict[str, int]]


def select(spectra: dict[str, Tensor], unit: dict[str, float], whole: dict[str, float], speedup: float) -> dict[str, int]:
    """max prod_l sum_{a <= d'_l} sigma_l,a under a budget (§3.4): again and again drop the eigenvalue that costs least energy.

    `unit` is what one unit of a layer's rank costs, `whole` the layer. Raises ValueError where rank one is too much.
    """
    ranks, kept = {name: len(spectrum) for name, spectrum in spectra.items()}, {name: s.cumsum(0) for name, s in spectra.items()}
    while sum(unit[name] * rank for name, rank in ranks.items()) > sum(whole.values()) / speedup:
        measure = {name: float(spectra[name][k - 1] / kept[name][k - 1]) / unit[name] for name, k in ranks.items() if k > 1}
        if not measure:
            raise ValueError(f"a speed-up of {speedup:g} cannot be had: with one filter each, layers cost more")
        ranks[min(measure, key=lambda name: measure[name])] -= 1
    return ranks


def between(layer: nn.Conv2d, rank: int, share: float) -> int:
    """Maps d'' that make columns and d' rows cost this share of d' square filters (§3.5); columns run before the row's stride."""
    c, d, e = layer.weight.shape[1:]
    return int(share * c * d * e * rank / (c * d * layer.stride[1] + e * rank))


def plan(network: nn.Module, task: Task, config: Config, rule: Rule = select) -> tuple[dict[str, Ranks], dict[str, Tensor]]:
    """The ranks of every layer that gets cheaper, and its original responses; logs why each other layer stays as it is."""
    share = config.speedup**-config.spatial

    def why_not(layer: nn.Conv2d, first: bool) -> str:
        if first:
            return "sees raw pixels, where there is little work to save"
        if share < 1 and 1 in layer.kernel_size:
            return f"a kernel of {layer.kernel_size[0]}x{layer.kernel_size[1]} has no columns and rows to split into"
        return ""

    layers, kept = replaceable(network, why_not)
    answers, unit, whole = dict[str, Tensor](), dict[str, float](), dict[str, float]()

    def note(name: str, x: Tensor, y: Tensor) -> None:
        weight, area = layers[name].weight, y[0, 0].numel()
        answers[name] = sampled(y, config.places, task.seed)
        unit[name], whole[name] = area * (share * weight[0].numel() + len(weight)), area * weight.numel()

    run(network, task.train.images[: config.images].to(task.device), note, layers)
    chosen = rule({name: energies(y) for name, y in answers.items()}, unit, whole, config.speedup)
    ranks = {name: (rank, between(layers[name], rank, share) if share < 1 else 0) for name, rank in chosen.items()}
    for name, (rank, maps) in list(ranks.items()):
        if unit[name] * rank >= whole[name] or (share < 1 and not maps):
            kept[name] = f"a rank of {rank} saves nothing"
            del ranks[name]
    name_the_kept("asymmetric reconstruction needs a wide convolution behind the first", ranks, kept)
    return ranks, answers


def relu_follows(network: fx.GraphModule) -> set[str]:
    """The layers whose answer goes to a ReLU and nowhere else."""
    readers = {str(node.target): list(node.users) for node in quant.layer_nodes(network)}
    return {name for name, users in readers.items() if len(users) == 1 and quant.operation(network, users[0]) in quant.RELU}


def fed_approximated(part: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The next layer is fitted to what the approximated layer answers: the asymmetric reconstruction (§3.3)."""
    return part(x)  # type: ignore[no-any-return]


def rebuild(model: nn.Module, task: Task, config: Config, rule: Rule = select, feed: Feed = fed_approximated) -> nn.Module:
    """Fold batch norm, choose ranks; then, layer after layer, aim at the original answer; nothing is trained."""
    network = quant.fold_batch_norm(model)[0]
    ranks, answers = plan(network, task, config, rule)
    schedule = [penalty for penalty in config.penalties for _ in range(config.iterations)]
    parts, nonlinear = dict[str, nn.Module](), relu_follows(network)

    def approximate(name: str, x: Tensor, y: Tensor) -> Tensor:
        def fit(seen: Tensor) -> Factors:
            seen = sampled(seen, config.places, task.seed)
            return approximation(seen, answers[name], ranks[name][0], schedule if name in nonlinear else [])

        parts[name] = factored(network.get_submodule(name), ranks[name], x, fit)
        return feed(parts[name], x, y)

    run(network, task.train.images[: config.images].to(task.device), approximate, ranks)
    return replaced(network, parts)


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Asymmetric reconstruction with ranks by PCA energy."""
    return rebuild(model, task, config)


def work(parts: nn.Module) -> int:
    """Multiply-adds of a chain of convolutions for one place of its output; what comes before a stride runs more often."""
    total, often = 0, 1
    for part in reversed([part for part in parts.modules() if isinstance(part, nn.Conv2d)]):
        total, often = total + often * part.weight.numel(), often * math.prod(part.stride)
    return total


def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same layers as truncated SVDs of their weights, of as many multiply-adds; no data."""
    network, parts = quant.fold_batch_norm(model)[0], {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and isinstance(like.get_submodule(name), nn.Sequential):
            unit = layer.weight[0].numel() + len(layer.weight)
            parts[name] = truncated_svd(layer, max(1, round(work(like.get_submodule(name)) / unit)))
    return replaced(network, parts)


def control_linear(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same without the ReLU in the aim."""
    return rebuild(model, task, replace(config, iterations=0))


def control_symmetric(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same with every layer fitted to what the original network feeds it."""
    return rebuild(model, task, config, feed=lambda part, x, y: y)


def alike(spectra: dict[str, Tensor], unit: dict[str, float], whole: dict[str, float], speedup: float) -> dict[str, int]:
    """The ranks that make every layer so much cheaper."""
    return {name: max(1, int(whole[name] / speedup / unit[name])) for name in spectra}


def control_uniform(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same with one speed-up for every layer."""
    return rebuild(model, task, config, rule=alike)


def control_square(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same multiply-adds without columns and rows."""
    return rebuild(model, task, replace(config, spatial=0.0))
