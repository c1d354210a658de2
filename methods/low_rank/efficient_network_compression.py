"""ENC (Kim et al., CVPR 2019).

Choose the ranks of all layers together and without training. For every layer two curves say how accuracy falls with its
rank: the energy of its singular values, and the accuracy on held-out images with only that layer cut. Their products over
layers stand for the accuracy of the whole network. Ranks of equal energy in every layer fill the budget in one shot
(ENC-Map); among the sets of ranks around those that cost the budget, the highest product wins (ENC-Model), or the best few
are tried on images (ENC-Inf). Then the kernels are cut and the network is fine-tuned.

Departures: the box around ENC-Map is searched whole, layer after layer, and for each cost only what can still end among the
best is kept; the authors enumerate it in groups of layers, at steps as coarse as the time allows. The mapping goes by energy
for every network, as in the authors' scripts for ResNet-56, and knows it at every rank. Curves are measured on validation
images, not on a part of the training images; one that dips, or rises above the uncut accuracy, is flattened. The budget is
that of the whole network, dense layers included. With strides the largest rank is that of equal multiply-adds instead of
equal weights. The first convolution stays as it is (in the authors' scripts it keeps its full rank, or half of it), and so do
grouped convolutions. Fine-tuning is the kit's, in a smoke run a few steps.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.interpolate import pchip_interpolate
from torch import nn

from methods.kit.lab import Lab
from methods.kit.layers import name_the_kept, replaceable, replaced, share_that_costs
from methods.kit.measure import multiply_adds
from methods.kit.nets import trained
from methods.kit.task import Split, Task
from methods.kit.train import fit
from methods.low_rank.jaderberg_low_rank import scheme2, work

Array = np.ndarray[Any, Any]
Ranks = dict[str, int]
Curves = dict[str, Array]  # of every layer, at the ranks 0 ... r_max


@dataclass(frozen=True)
class Config:
    budget: float = 0.5  # C_t, share of the multiply-adds; ResNet-56 in Table 1
    space: float = 0.1  # delta_s, share of the multiply-adds, supplement §4.1; 0 is ENC-Map
    margin: float = 0.005  # delta_m, share of the budget, supplement §4.1
    step: float = 0.01  # t_l, share of a layer's largest rank, supplement §4.1
    best: int = 20  # N, tried on images, authors' script for ResNet-56; 1 is ENC-Model
    profile: tuple[float, ...] = (0.1, 0.15, 0.2, 0.4)  # measured, share of the largest rank, authors' files for VGG-16; none goes below
    images: int = 1000
    rate: float = 1e-3  # of fine-tuning


# At half of its multiply-adds this network loses little, whoever chooses; below a fifth 10% of a rank is no lower end.
SMOKE = Config(budget=0.16, profile=(0.05, 0.1, 0.2, 0.4), best=12, images=128, rate=3e-3)
SWEEP = tuple(replace(SMOKE, budget=budget) for budget in (0.5, 0.3, 0.2, 0.12))


def reference(task: Task) -> nn.Module:
    """Full convolutions and no shortcuts, like the paper's AlexNet and VGG-16."""
    return trained("vgg_wide", task.name)


def largest(layer: nn.Conv2d) -> int:
    """r_max = I O D / (I + O), where both factors cost what the layer does (supplement §3)."""
    return round(layer.weight.numel() / work(layer, scheme2))


def spectrum(pair: Any) -> Array:
    """The singular values: columns and rows hold their roots."""
    values: Array = pair[0].weight.detach().double().square().flatten(1).sum(1).cpu().numpy()
    return values


def split(model: nn.Module) -> tuple[dict[str, nn.Sequential], dict[str, str]]:
    """Each layer as D x 1 and 1 x D at its largest rank (supplement §2), and the reason why each other layer stays as it is."""
    pairs: dict[nn.Conv2d, nn.Sequential] = {}

    def why_not(layer: nn.Conv2d, first: bool) -> str:
        if first:
            return "the first convolution keeps its rank"
        if largest(layer) < 2:
            return "too narrow to have ranks to choose from"
        pairs[layer] = scheme2(layer, largest(layer))
        values = spectrum(pairs[layer])
        return "" if values[1] > 1e-6 * values[0] else "a kernel of rank one has no ranks to choose from"

    layers, kept = replaceable(model, why_not)
    return {name: pairs[layer] for name, layer in layers.items()}, kept


def truncated(pair: Any, rank: int) -> nn.Module:
    """The first columns and rows only: filters go from one, input channels from the other (supplement §2)."""
    small = copy.deepcopy(pair)
    small[0].weight, small[1].weight = nn.Parameter(pair[0].weight[:rank].clone()), nn.Parameter(pair[1].weight[:, :rank].clone())
    small[0].out_channels = small[1].in_channels = rank
    return small  # type: ignore[no-any-return]


def cut(model: nn.Module, pairs: dict[str, nn.Sequential], ranks: Ranks) -> nn.Module:
    """A copy of the network with the named layers at these ranks."""
    return replaced(model, {name: truncated(pairs[name], rank) for name, rank in ranks.items()})


class Cost(NamedTuple):
    """Multiply-adds C(R) = fixed + sum_l c_l r_l (supplement §4.3)."""

    original: int
    fixed: int  # of the layers that stay
    each: dict[str, int]  # c_l

    def of(self, ranks: Ranks) -> int:
        return self.fixed + sum(self.each[name] * rank for name, rank in ranks.items())


def linear_cost(model: nn.Module, pairs: dict[str, nn.Sequential], image: torch.Tensor) -> Cost:
    """What one rank more costs in every layer, as executed: strides, borders and repeated use included."""
    original = fixed = int(multiply_adds(model, image))
    each = {}
    for name in pairs:
        one, two = (int(multiply_adds(cut(model, pairs, {name: rank}), image)) for rank in (1, 2))
        each[name] = two - one
        fixed -= original - (one - each[name])  # what the layer itself takes
    return Cost(original, fixed, each)


def energy(pair: nn.Sequential) -> Array:
    """y_p(r) = (s(r) - s(1)) / (s(r_max) - s(1)), s(r) the sum of the first r singular values."""
    total = np.cumsum(spectrum(pair))
    return np.append(0.0, (total - total[0]) / (total[-1] - total[0]))


def measured(model: nn.Module, pairs: dict[str, nn.Sequential], task: Task, held: Split, config: Config) -> Curves:
    """y_m(r): the accuracy with only this layer at rank r over that of the uncut network, monotone cubic between a few ranks.

    Raises ValueError where the uncut network gets nothing right.
    """
    if not (whole := task.score(model, held)):
        raise ValueError("ENC measures how accuracy falls, but the network gets no validation image right")
    curves = {}
    for name, pair in pairs.items():
        full = pair[0].out_channels
        tried = sorted({max(1, round(share * full)) for share in config.profile} - {full})
        seen = [task.score(cut(model, pairs, {name: rank}), held) / whole for rank in tried]
        heights = np.minimum(np.maximum.accumulate([0.0, *seen, 1.0]), 1.0)
        curves[name] = pchip_interpolate([0, *tried, full], heights, np.arange(full + 1))
    return curves


def equal_accuracy(curves: Curves, least: Ranks, cost: Cost, goal: float) -> Ranks:
    """ENC-Map: R_e(a) has the lowest ranks at which every layer's curve reaches a; invert a -> C(R_e(a)) at the goal."""

    def ranks(a: float) -> Ranks:
        return {name: max(least[name], int(np.searchsorted(curve, a))) for name, curve in curves.items()}

    return ranks(share_that_costs(goal, lambda a: cost.of(ranks(a)), steps=100_000))


def undominated(spent: Array, p: Array, m: Array, best: int) -> Array:
    """Where fewer than `best` others of the same cost are as good in both metrics: the first Pareto fronts, so many."""
    left, fronts = np.lexsort((-m, -p, spent)), []
    level = m + 2 * np.unique(spent, return_inverse=True)[1]  # m <= 1: each cost on a floor of its own
    for _ in range(best):
        highest = np.maximum.accumulate(np.append(-1.0, level[left]))
        front = level[left] > highest[:-1]
        fronts.append(left[front])
        left = left[~front]
    return np.concatenate(fronts)


def best_in_box(y_p: Curves, y_m: Curves, low: Ranks, high: Ranks, cost: Cost, config: Config) -> list[Ranks]:
    """The sets of ranks R between low and high, at a cost within the margin, of the highest A_c(R), best first.

    A_p = prod_l y_p,l(r_l), A_m = prod_l y_m,l(r_l), A_c = A_p C(R) / C_orig + A_m: of two choices for some layers at the same
    cost, one that is worse in both products stays worse whatever the other layers do.
    """
    goal, least, most = config.budget * cost.original, cost.of(low), cost.of(high)
    spent, ranks, p, m = np.array([cost.fixed]), np.zeros((1, 0), int), np.ones(1), np.ones(1)
    least, most = least - cost.fixed, most - cost.fixed  # of the layers to come
    for name, c in cost.each.items():
        grid = np.arange(low[name], high[name] + 1, max(1, round(config.step * (len(y_p[name]) - 1))))
        ranks = np.hstack([ranks.repeat(len(grid), axis=0), np.tile(grid, len(ranks))[:, None]])
        spent, p, m = np.add.outer(spent, c * grid).ravel(), np.outer(p, y_p[name][grid]).ravel(), np.outer(m, y_m[name][grid]).ravel()
        least, most = least - c * low[name], most - c * high[name]
        able = np.flatnonzero((spent + least <= goal * (1 + config.margin)) & (spent + most >= goal * (1 - config.margin)))
        kept = able[undominated(spent[able], p[able], m[able], config.best)]
        spent, ranks, p, m = spent[kept], ranks[kept], p[kept], m[kept]
    order = np.argsort(-(p * spent / cost.original + m), kind="stable")[: config.best]
    return [dict(zip(cost.each, map(int, row), strict=True)) for row in ranks[order]]


def rank_sets(model: nn.Module, pairs: dict[str, nn.Sequential], task: Task, held: Split, config: Config) -> list[Ranks]:
    """ENC-Map's one set of ranks where the space is 0, else the best in the box from ENC-Map at C_t - delta_s to C_t + delta_s.

    Raises ValueError where nothing costs the budget.
    """
    cost, y_p = linear_cost(model, pairs, task.train.images[:1].to(task.device)), {name: energy(pair) for name, pair in pairs.items()}
    least = {name: max(1, round(min(config.profile) * pair[0].out_channels)) for name, pair in pairs.items()}
    if (lowest := cost.of(least) / cost.original) > config.budget:
        raise ValueError(
            f"a budget of {config.budget:g} of the multiply-adds is out of reach: the lowest ranks to profile take {lowest:.3f}"
        )
    low, high = (equal_accuracy(y_p, least, cost, (config.budget + side * config.space) * cost.original) for side in (-1, 1))
    if not config.space:
        return [low]
    found = best_in_box(y_p, measured(model, pairs, task, held, config), low, high, cost, config)
    if not found:
        raise ValueError(f"no ranks cost {config.budget:g} of the multiply-adds within {config.margin:.1%}: allow a wider margin or space")
    return found


def held_out(task: Task, config: Config) -> Split:
    """Some validation images, picked at random."""
    pick = torch.randperm(len(task.validation), generator=torch.Generator().manual_seed(task.seed))[: config.images]
    return Split(task.validation.images[pick], task.validation.labels[pick])


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Factor every layer, find ranks for the budget, keep the set that does best on held-out images, cut, fine-tune."""
    pairs, kept = split(model)
    name_the_kept("ENC needs a convolution behind the first", pairs, kept)
    held = held_out(task, config)
    found = rank_sets(model, pairs, task, held, config)
    chosen = max(found, key=lambda ranks: task.score(cut(model, pairs, ranks), held)) if len(found) > 1 else found[0]
    return fit(cut(model, pairs, chosen), task, lr=config.rate)


def uniform(pairs: dict[str, nn.Sequential], cost: Cost, goal: float) -> Ranks:
    """One share of the largest rank for every layer, at the cost nearest to the goal."""

    def ranks(share: float) -> Ranks:
        return {name: max(1, round(share * pair[0].out_channels)) for name, pair in pairs.items()}

    return ranks(share_that_costs(goal, lambda share: cost.of(ranks(share))))


def control_uniform(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same factors, all at one share of their largest ranks, at the multiply-adds of `like`; the same fine-tuning."""
    pairs, image = split(model)[0], task.train.images[:1].to(task.device)
    ranks = uniform(pairs, linear_cost(model, pairs, image), multiply_adds(like, image))
    return fit(cut(model, pairs, ranks), task, lr=config.rate)
