"""ENC (Kim et al., CVPR 2019).

Choose the ranks of all layers together and without training. For every layer two curves say how accuracy falls with its
rank: the energy of its singular values, and the accuracy on held-out images with only that layer cut. Their products over
layers stand for the accuracy of the whole network. Ranks of equal energy in every layer fill the budget in one shot
(ENC-Map); among the sets of ranks around those that cost the budget, the highest product wins (ENC-Model), or the best few
are tried on images (ENC-Inf). Then the kernels are cut and the network is fine-tuned.

Algorithms: ENC-Map, ENC-Model, ENC-Inf.

Departures: the box around ENC-Map is searched whole, layer after layer, keeping for each cost only what can still end among
the best; the authors enumerate it in groups of layers, at steps as coarse as the time allows. The mapping always goes by
energy, as in the authors' scripts for ResNet-56 (for VGG-16 by accuracy), and knows it at every rank. Curves and sets of ranks
are tried on validation images, not on a part of the training images; a curve that dips, or rises above the uncut accuracy, is
flattened. The budget is that of the whole network, dense layers included. With strides the largest rank is that of equal
multiply-adds, not weights. The first convolution stays as it is (the authors' scripts leave it all or half of its rank), and
so do grouped ones and dense layers. Fine-tuning is the kit's, in a smoke run a few steps.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.interpolate import pchip_interpolate
from torch import nn

from methods.kit.layers import name_the_kept, replaceable, replaced, share_that_costs, within
from methods.kit.measure import multiply_adds
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit
from methods.low_rank.jaderberg_low_rank import scheme2, work

Array = np.ndarray[Any, Any]
Ranks = dict[str, int]
Pairs = dict[str, nn.Sequential]
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


def spectrum(pair: Any) -> Array:
    """The singular values: columns and rows hold their roots."""
    values: Array = pair[0].weight.detach().double().square().flatten(1).sum(1).cpu().numpy()
    return values


def split(model: nn.Module, **given: Any) -> tuple[Pairs, dict[str, str]]:
    """Each layer as D x 1 and 1 x D at its largest rank (supplement §2), and the reason why each other layer stays as it is."""
    layers, kept = replaceable(model, lambda layer, first: "the first convolution keeps its rank" if first else "", **given)
    pairs = {}
    for name, layer in layers.items():
        # r_max = I O D / (I + O), where both factors cost what the layer does (supplement §3)
        pair = scheme2(layer, max(1, round(layer.weight.numel() / work(layer, scheme2))))
        values = spectrum(pair)
        if len(values) > 1 and values[1] > 1e-6 * values[0]:
            pairs[name] = pair
        else:
            kept[name] = "too narrow, or a kernel of rank one: no ranks to choose from"
    return pairs, kept


def cut(model: nn.Module, pairs: Pairs, ranks: Ranks) -> nn.Module:
    """A copy of the network with the named layers' first columns and rows only, filters of one, channels of the other (supplement §2)."""
    small: dict[str, Any] = {name: copy.deepcopy(pairs[name]) for name in ranks}
    for (columns, rows), rank in zip(small.values(), ranks.values(), strict=True):
        columns.weight = nn.Parameter(columns.weight[:rank].clone())
        rows.weight = nn.Parameter(rows.weight[:, :rank].clone())
        columns.out_channels = rows.in_channels = rank
    return replaced(model, small)


class Cost(NamedTuple):
    """Multiply-adds C(R) = fixed + sum_l c_l r_l (supplement §4.3)."""

    original: int
    fixed: int  # of the layers that stay
    each: dict[str, int]  # c_l

    def of(self, ranks: Ranks) -> int:
        return self.fixed + sum(self.each[name] * rank for name, rank in ranks.items())


def linear_cost(model: nn.Module, pairs: Pairs, image: torch.Tensor) -> Cost:
    """As executed: strides, borders and repeated use included. c_l is what a second rank adds where each layer has one."""

    def done(ranks: Ranks) -> int:
        return int(multiply_adds(cut(model, pairs, ranks), image))

    ones = dict.fromkeys(pairs, 1)
    least = done(ones)
    each = {name: done(ones | {name: 2}) - least for name in pairs}
    return Cost(done({}), least - sum(each.values()), each)


def at_share(pairs: Pairs, share: float) -> Ranks:
    """The same share of every layer's largest rank."""
    return {name: max(1, round(share * pair[0].out_channels)) for name, pair in pairs.items()}


def with_few(task: Task, config: Config) -> Task:
    """The task with some of its validation images, picked at random."""
    return replace(task, validation=task.validation.sample(config.images, task.seed))


def energy(pair: nn.Sequential) -> Array:
    """y_p(r) = (s(r) - s(1)) / (s(r_max) - s(1)), s(r) the sum of the first r singular values."""
    total = np.cumsum(spectrum(pair))
    return np.append(0.0, (total - total[0]) / (total[-1] - total[0]))


def measured(model: nn.Module, pairs: Pairs, task: Task, config: Config) -> Curves:
    """y_m(r): the accuracy with only this layer at rank r over that of the uncut network, monotone cubic between a few ranks."""
    if (whole := task.score(model, task.validation)) <= 0:
        raise ValueError(f"ENC measures how accuracy falls, but the network's on validation images is {whole:g}")
    curves = {}
    for name, pair in pairs.items():
        full = pair[0].out_channels
        tried = sorted({max(1, round(share * full)) for share in config.profile} - {full})
        seen = [task.score(cut(model, pairs, {name: rank}), task.validation) / whole for rank in tried]
        heights = np.minimum(np.maximum.accumulate([0.0, *seen, 1.0]), 1.0)
        curves[name] = pchip_interpolate([0, *tried, full], heights, np.arange(full + 1))
    return curves


def equal_accuracy(curves: Curves, least: Ranks, cost: Cost, goal: float) -> Ranks:
    """ENC-Map: R_e(a) has the lowest ranks at which every layer's curve reaches a; invert a -> C(R_e(a)) at the goal.

    R_e changes only at the curves' own values.
    """

    def ranks(a: float) -> Ranks:
        return {name: max(least[name], int(np.searchsorted(curve, a))) for name, curve in curves.items()}

    values = np.unique(np.concatenate(list(curves.values())))
    above = bisect_left(values, goal, key=lambda a: cost.of(ranks(a)))
    return min(map(ranks, values[max(above - 1, 0) : above + 1]), key=lambda found: abs(cost.of(found) - goal))


def undominated(spent: Array, p: Array, m: Array, best: int) -> Array:
    """Where fewer than `best` others of the same cost are as good in both metrics: the first Pareto fronts, so many."""
    left, fronts = np.lexsort((-m, -p, spent)), []  # equivalent for -m: of equals in p more are kept
    level = m + 2 * np.unique(spent, return_inverse=True)[1]
    for _ in range(best):
        highest = np.maximum.accumulate(np.append(-1.0, level[left]))
        front = level[left] > highest[:-1]  # equivalent to [:1]: all are kept
        fronts.append(left[front])
        left = left[~front]
    return np.concatenate(fronts)


def best_in_box(y_p: Curves, y_m: Curves, low: Ranks, high: Ranks, cost: Cost, config: Config) -> list[Ranks]:
    """The sets of ranks R between low and high, at a cost within the margin, of the highest A_c(R), best first.

    A_p = prod_l y_p,l(r_l), A_m = prod_l y_m,l(r_l), A_c = A_p C(R) / C_orig + A_m: of two choices for some layers at the same
    cost, one that is worse in both products stays worse whatever the other layers do.
    """
    goal, room = config.budget * cost.original, cost.of(high) - cost.of(low)  # room: what later layers may add
    spent, ranks, p, m = np.array([cost.of(low)]), np.zeros((1, 0), int), np.ones(1), np.ones(1)
    for name, c in cost.each.items():
        step = max(1, round(config.step * (len(y_p[name]) - 1)))
        grid = np.arange(low[name], high[name] + 1, step)
        ranks = np.hstack([ranks.repeat(len(grid), axis=0), np.tile(grid, len(ranks))[:, None]])
        p, m = np.outer(p, y_p[name][grid]).ravel(), np.outer(m, y_m[name][grid]).ravel()
        spent = np.add.outer(spent, c * (grid - low[name])).ravel()  # with later layers at their lowest
        room -= c * (high[name] - low[name])
        able = np.flatnonzero((spent <= goal * (1 + config.margin)) & (spent + room >= goal * (1 - config.margin)))
        kept = able[undominated(spent[able], p[able], m[able], config.best)]
        spent, ranks, p, m = spent[kept], ranks[kept], p[kept], m[kept]
    order = np.argsort(-(p * spent / cost.original + m), kind="stable")[: config.best]
    return [dict(zip(cost.each, map(int, row), strict=True)) for row in ranks[order]]


def rank_sets(model: nn.Module, pairs: Pairs, task: Task, config: Config) -> list[Ranks]:
    """ENC-Map's one set of ranks where the space is 0, else the best in the box from ENC-Map at C_t - delta_s to C_t + delta_s."""
    cost = linear_cost(model, pairs, task.train.first(1).images.to(task.device))
    y_p = {name: energy(pair) for name, pair in pairs.items()}
    least = at_share(pairs, min(config.profile))
    if (lowest := cost.of(least) / cost.original) > config.budget:
        at = f"of {', '.join(pairs)} take {lowest:.3f}"
        raise ValueError(f"a budget of {config.budget:g} of the multiply-adds is out of reach: the lowest ranks {at}")
    low, high = (equal_accuracy(y_p, least, cost, (config.budget + side) * cost.original) for side in (-config.space, config.space))
    if not config.space:
        return [low]
    found = best_in_box(y_p, measured(model, pairs, task, config), low, high, cost, config)
    if not found:
        able = f"no ranks of {', '.join(pairs)} cost {config.budget:g} of the multiply-adds within {config.margin:.1%}"
        raise ValueError(f"{able}: allow a wider margin or space")
    return found


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Factor every layer, find ranks for the budget, keep the set that does best on held-out images, cut, fine-tune."""
    pairs, kept = split(model, **within(task))
    name_the_kept("ENC needs a convolution behind the first", pairs, kept)
    task = with_few(task, config)
    found = rank_sets(model, pairs, task, config)
    chosen = max(found, key=lambda ranks: task.score(cut(model, pairs, ranks), task.validation)) if len(found) > 1 else found[0]
    return fit(cut(model, pairs, chosen), task, lr=config.rate)


def uniform(pairs: Pairs, cost: Cost, goal: float) -> Ranks:
    """One share of every layer's largest rank, at so many multiply-adds."""
    return at_share(pairs, share_that_costs(goal, lambda share: cost.of(at_share(pairs, share))))


@on_copies
def control_uniform(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same factors, all at one share of their largest ranks, at the multiply-adds of `like`; the same fine-tuning."""
    pairs, image = split(model, **within(task))[0], task.train.first(1).images.to(task.device)
    ranks = uniform(pairs, linear_cost(model, pairs, image), multiply_adds(like, image))
    return fit(cut(model, pairs, ranks), task, lr=config.rate)
