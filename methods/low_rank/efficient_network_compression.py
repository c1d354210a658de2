"""ENC (Kim et al., CVPR 2019).

Choose the ranks of all layers together and without training. For every layer two curves say how accuracy falls with its
rank: the energy of its singular values, and the accuracy on held-out images with only that layer cut. Their products over
layers stand for the accuracy of the whole network. Ranks of equal energy in every layer fill the budget in one shot
(ENC-Map); among the sets of ranks around those that cost the budget, the highest product wins (ENC-Model), or the best few
are tried on images (ENC-Inf). Then the kernels are cut and the network is fine-tuned.

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
import itertools
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.interpolate import pchip_interpolate
from torch import nn

from methods.kit.lab import Lab
from methods.kit.layers import name_the_kept, replaceable, replaced, share_that_costs, within
from methods.kit.measure import multiply_adds
from methods.kit.nets import trained
from methods.kit.task import Split, Task, on_copies
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
    values: Array = pair[0].weight.detach().double().square().flatten(1).sum(1).cpu().numpy()  # equivalent: float64 on the CPU already
    return values


def split(model: nn.Module, **given: Any) -> tuple[Pairs, dict[str, str]]:
    """Each layer as D x 1 and 1 x D at its largest rank (supplement §2), and the reason why each other layer stays as it is."""
    layers, kept = replaceable(model, lambda layer, first: "the first convolution keeps its rank" if first else "", **given)
    pairs = {}
    for name, layer in layers.items():
        # r_max = I O D / (I + O), where both factors cost what the layer does (supplement §3)
        pair = scheme2(layer, max(1, round(layer.weight.numel() / work(layer, scheme2))))  # equivalent: max is symmetric
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
        columns.weight = nn.Parameter(columns.weight[:rank].clone())  # equivalent: without, the rest stays in memory
        rows.weight = nn.Parameter(rows.weight[:, :rank].clone())  # equivalent: so, too
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
        return int(multiply_adds(cut(model, pairs, ranks), image))  # equivalent: a whole number already

    ones = dict.fromkeys(pairs, 1)
    least = done(ones)
    each = {name: done(ones | {name: 2}) - least for name in pairs}
    return Cost(done({}), least - sum(each.values()), each)


def at_share(pairs: Pairs, share: float) -> Ranks:
    """The same share of every layer's largest rank."""
    return {name: max(1, round(share * pair[0].out_channels)) for name, pair in pairs.items()}  # equivalent: max is symmetric


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
        tried = sorted({max(1, round(share * full)) for share in config.profile} - {full})  # equivalent: max is symmetric
        seen = [task.score(cut(model, pairs, {name: rank}), task.validation) / whole for rank in tried]
        heights = np.minimum(np.maximum.accumulate([0.0, *seen, 1.0]), 1.0)  # equivalent: the last may be more, and min is symmetric
        curves[name] = pchip_interpolate([0, *tried, full], heights, np.arange(full + 1))
    return curves


def equal_accuracy(curves: Curves, least: Ranks, cost: Cost, goal: float) -> Ranks:
    """ENC-Map: R_e(a) has the lowest ranks at which every layer's curve reaches a; invert a -> C(R_e(a)) at the goal.

    R_e changes only at the curves' own values.
    """

    def ranks(a: float) -> Ranks:
        return {name: max(least[name], int(np.searchsorted(curve, a))) for name, curve in curves.items()}  # equivalent: a symmetric max

    values = np.unique(np.concatenate(list(curves.values())))
    above = bisect_left(values, goal, key=lambda a: cost.of(ranks(a)))
    return min(map(ranks, values[max(above - 1, 0) : above + 1]), key=lambda found: abs(cost.of(found) - goal))


def undominated(spent: Array, p: Array, m: Array, best: int) -> Array:
    """Where fewer than `best` others of the same cost are as good in both metrics: the first Pareto fronts, so many."""
    left, fronts = np.lexsort((-m, -p, spent)), []  # equivalent for -m: of equals in p more are kept
    level = m + 2 * np.unique(spent, return_inverse=True)[1]  # equivalent: higher floors; m <= 1, so that each cost has its own
    for _ in range(best):
        highest = np.maximum.accumulate(np.append(-1.0, level[left]))  # equivalent: below every level
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
    spent, ranks, p, m = np.array([cost.of(low)]), np.zeros((1, 0), int), np.ones(1), np.ones(1)  # equivalent: twice the same
    for name, c in cost.each.items():
        step = max(1, round(config.step * (len(y_p[name]) - 1)))  # equivalent: one rank of many changes no step
        grid = np.arange(low[name], high[name] + 1, step)
        ranks = np.hstack([ranks.repeat(len(grid), axis=0), np.tile(grid, len(ranks))[:, None]])
        p, m = np.outer(p, y_p[name][grid]).ravel(), np.outer(m, y_m[name][grid]).ravel()
        spent = np.add.outer(spent, c * (grid - low[name])).ravel()  # with later layers at their lowest
        room -= c * (high[name] - low[name])
        able = np.flatnonzero((spent <= goal * (1 + config.margin)) & (spent + room >= goal * (1 - config.margin)))
        kept = able[undominated(spent[able], p[able], m[able], config.best)]  # equivalent: prunes less
        spent, ranks, p, m = spent[kept], ranks[kept], p[kept], m[kept]
    order = np.argsort(-(p * spent / cost.original + m), kind="stable")[: config.best]
    return [dict(zip(cost.each, map(int, row), strict=True)) for row in ranks[order]]


def rank_sets(model: nn.Module, pairs: Pairs, task: Task, config: Config) -> list[Ranks]:
    """ENC-Map's one set of ranks where the space is 0, else the best in the box from ENC-Map at C_t - delta_s to C_t + delta_s."""
    cost = linear_cost(model, pairs, task.train.first(1).images.to(task.device))  # equivalent: twice the cost of two images
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


@torch.no_grad()
def claim_energy_of_the_spectrum(lab: Lab) -> float:
    """Largest difference of the curve from sums of the roots of the eigenvalues that numpy finds of the kernel times its transpose."""
    torch.manual_seed(0)
    worst = 0.0
    for layer in (nn.Conv2d(5, 8, 3), nn.Conv2d(7, 4, (3, 5)), nn.Conv2d(6, 9, 1), nn.Conv2d(4, 6, 3, stride=(3, 2))):
        kernel = layer.double().weight.numpy()
        matrix = np.block([[kernel[n, c] for n in range(len(kernel))] for c in range(kernel.shape[1])])
        square = min(matrix @ matrix.T, matrix.T @ matrix, key=len)  # full rank
        values = np.sqrt(np.linalg.eigvalsh(square)[::-1])
        (o, i, d, e), stride = kernel.shape, layer.stride[1]
        full = round(o * i * d * e / (i * d * stride + o * e))
        wanted = [0.0] + [sum(values[1:r]) / sum(values[1:full]) for r in range(1, full + 1)]
        found = energy(split(nn.Sequential(nn.Conv2d(3, i, 1).double(), layer))[0]["1"])
        worst = max(worst, float(np.abs(found - wanted).max()) if len(found) == len(wanted) else np.inf)
    return worst


@torch.no_grad()
def claim_truncation_is_best_of_its_rank(lab: Lab) -> float:
    """Largest distance of a truncated pair's kernel from that of the truncated SVD, relative; numpy's SVD."""
    torch.manual_seed(0)
    worst = 0.0
    for layer, rank in ((nn.Conv2d(5, 8, 3, stride=2), 4), (nn.Conv2d(7, 3, (3, 5)), 1), (nn.Conv2d(6, 9, 1), 3)):
        net = nn.Sequential(nn.Conv2d(3, layer.in_channels, 1), layer).double()
        pairs = split(net)[0]
        columns, rows = cut(net, pairs, {"1": rank}).get_submodule("1")
        kernel = torch.einsum("kci,nkj->ncij", columns.weight[..., 0], rows.weight[:, :, 0])
        worst = max(worst, float((kernel - low_rank(layer, rank)).norm() / kernel.norm()))
        worst = max(worst, abs(len(columns.weight) - rank), abs(columns.out_channels - rank), abs(rows.in_channels - rank))
        worst = max(worst, abs(len(pairs["1"][0].weight) - pairs["1"][0].out_channels))  # untouched
    return worst


def low_rank(layer: nn.Conv2d, rank: int) -> torch.Tensor:
    """The kernel of the rank that is nearest to the layer's, columns of all input channels against rows of all outputs."""
    kernel = layer.weight.detach().numpy()
    n, c, d, e = kernel.shape
    u, s, v = np.linalg.svd(np.block([[kernel[i, j] for i in range(n)] for j in range(c)]), full_matrices=False)
    return torch.from_numpy(((u[:, :rank] * s[:rank]) @ v[:rank]).reshape(c, d, n, e).transpose(2, 0, 1, 3).copy())


class Case(NamedTuple):
    """What ranks are chosen for."""

    model: nn.Module
    task: Task
    pairs: Pairs
    cost: Cost


@cache
def toy() -> Case:
    """A network of random weights and images that it labels itself, but for a few."""
    torch.manual_seed(0)
    shared = nn.Conv2d(24, 24, 3, padding=1)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(),
        nn.Conv2d(24, 32, (1, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 3  # so that images differ in the end
    last: Any = model[8]
    last.weight.data = 0.2 * last.weight.data + 0.8 * low_rank(last, 3)  # few ranks hold its energy
    with torch.no_grad():
        images = torch.randn(96, 3, 11, 11)
        labels = (model(images) - model(images).mean(0)).argmax(1)
    model[-1].bias.data -= model(images).mean(0).detach()
    labels[::7] = 0
    held = Split(images, labels)
    task = Task("toy", held, held, held, steps=1, batch=8, augmented=False)
    pairs = split(model)[0]
    return Case(model, task, pairs, linear_cost(model, pairs, images[:1]))


def claim_first_layer_keeps_its_rank(lab: Lab) -> float:
    """How many layers of a network are split that should stay, or the reverse."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 9, 3, stride=2), nn.Conv2d(9, 1, 1), nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 1),
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3, groups=2), nn.Linear(6, 6),
    )  # fmt: skip
    for place, rank in ((5, 1), (6, 2)):
        layer: Any = model[place]
        n, c, d, _ = layer.weight.shape
        layer.weight.data = torch.einsum("rci,rnj->ncij", torch.randn(rank, c, d), torch.randn(rank, n, d))
    pairs, kept = split(model)
    full = {name: pair[0].out_channels for name, pair in pairs.items()}
    return len({"1": 9, "4": 2, "6": 9}.items() ^ full.items()) + len(kept.keys() ^ {"0.0", "2", "3", "5", "7", "8"})


@torch.no_grad()
def claim_cost_is_linear(lab: Lab) -> float:
    """Largest difference of the cost from executed multiply-adds, and of a rank's from D (I + O) H W at each run of a layer."""
    model, task, pairs, cost = toy()
    chance, image = np.random.default_rng(0), task.train.first(1).images
    worst = abs(cost.original - multiply_adds(model, image))
    for _ in range(5):
        ranks = {name: int(chance.integers(1, pair[0].out_channels + 1)) for name, pair in pairs.items()}
        worst = max(worst, abs(cost.of(ranks) - multiply_adds(cut(model, pairs, ranks), image)))
    formula = {"2": 5 * (3 * 16 * 11 + 3 * 24 * 5), "4": 2 * 25 * 3 * (24 + 24), "8": 5 * (24 * 5 + 3 * 32 * 3)}
    return worst + (list(cost.each) != list(formula)) + sum(abs(cost.each[name] - c) for name, c in formula.items())


@torch.no_grad()
def claim_measures_one_layer_cut(lab: Lab) -> float:
    """Largest difference of the measured curve from the accuracy with numpy's truncated kernel in the layer, over the uncut one."""
    model, task, pairs, _ = toy()
    few = with_few(task, Config(images=10)).validation
    known = [((task.test.images == x).flatten(1).all(1) & (task.test.labels == y)).any() for x, y in few.chunks(1)]
    if len(known) != 10 or not all(known):
        return np.inf
    worst, falls, shares, heights = 0.0, 0, (0.75, 0.1, 0.01, 1.0, 0.25), set()
    for labels in (task.test.labels, cut(model, pairs, {"2": 5})(task.test.images).argmax(1)):  # the second: better cut than uncut
        task = replace(task, validation=Split(task.test.images, labels))
        whole = task.score(model, task.validation)
        for name, curve in measured(model, pairs, task, Config(profile=shares)).items():
            full, highest = len(curve) - 1, 0.0
            for rank in sorted({max(1, round(share * full)) for share in shares if share < 1}):
                other = copy.deepcopy(model)
                layer: Any = other.get_submodule(name)
                layer.weight.copy_(low_rank(layer, rank))
                highest = min(1.0, max(highest, task.score(other, task.validation) / whole))
                heights.add(highest)
                worst = max(worst, abs(curve[rank] - highest))
            worst = max(worst, abs(curve[0]), abs(curve[full] - 1), abs(full - pairs[name][0].out_channels))
            falls += int((np.diff(curve) < -1e-12).sum())
    return worst + falls + (len(heights) < 6 or max(heights) < 1)  # if they hardly differed, nothing would be shown


def random_curves(seed: int, sizes: tuple[int, ...], flat: float = 0.0) -> Curves:
    """Rising curves from 0 to 1, with some steps left out."""
    chance = np.random.default_rng(seed)
    steps = [chance.random(size) * (chance.random(size) >= flat) for size in sizes]
    sums = [np.cumsum(np.append(0.0, step)) for step in steps]
    return {f"{place}": total / total[-1] for place, total in enumerate(sums)}


def budgets(cost: Cost) -> list[float]:
    return [cost.original * share for share in np.linspace(0, 1.2, 25)]


COST = Cost(3_000, 100, {"0": 37, "1": 12, "2": 12, "3": 12, "4": 5})


def claim_equal_in_every_layer(lab: Lab) -> float:
    """How many times ENC-Map gives ranks that are not the lowest for one value in all layers, or others are nearer to the goal."""
    wrong = 0
    for seed, flat in ((0, 0.0), (1, 0.4)):
        curves, least = random_curves(seed, (20, 31, 24, 40, 12), flat), {"0": 3, "1": 1, "2": 2, "3": 1, "4": 1}
        values = sorted({float(value) for curve in curves.values() for value in curve})
        known = [
            {name: next(r for r in range(len(curve)) if r >= least[name] and curve[r] >= value) for name, curve in curves.items()}
            for value in values
        ]
        for goal in budgets(COST):
            found = equal_accuracy(curves, least, COST, goal)
            nearest = min(abs(COST.of(ranks) - goal) for ranks in known)
            wrong += found not in known or abs(COST.of(found) - goal) > nearest
    return wrong


def claim_mapping_is_monotone(lab: Lab) -> float:
    """How many times a layer's rank falls as the budget grows, on both kinds of curves; one more where nothing ever rises."""
    model, task, pairs, cost = toy()
    falls, least = 0, dict.fromkeys(pairs, 1)
    for curves in ({name: energy(pair) for name, pair in pairs.items()}, measured(model, pairs, task, Config())):
        sets = [equal_accuracy(curves, least, cost, goal) for goal in budgets(cost)]
        falls += sum(after[name] < before[name] for before, after in itertools.pairwise(sets) for name in pairs)
        falls += any(sets[0][name] >= sets[-1][name] for name in pairs)
    return falls


def claim_search_equals_enumeration(lab: Lab) -> float:
    """Largest difference of the best values of A_c from those of every set of ranks in the box; infinite where one is outside."""
    worst = 0.0
    cost, budget = COST._replace(original=900), 0.7  # so that A_p has a weight beside A_m
    cases = ((0.01, 0.005, 20), (0.1, 0.02, 1), (0.06, 0.02, 200), (0.01, 0.01, 1), (0.01, 0.01, 3))
    for seed, (step, margin, best) in enumerate(3 * cases):
        y_p, y_m = random_curves(seed, (12, 20, 20, 31, 16)), random_curves(seed + 90, (12, 20, 20, 31, 16), 0.2 * (seed % 3))
        low, high = {"0": 2, "1": 3, "2": 4, "3": 9, "4": 5}, {"0": 8, "1": 9, "2": 9, "3": 16, "4": 11}
        config = Config(budget=budget, step=step, margin=margin, best=best)

        def done(ranks: Array) -> Array:
            return cost.fixed + ranks @ np.array(list(cost.each.values()))

        def value(ranks: Array, y_p: Curves = y_p, y_m: Curves = y_m) -> Array:
            a_p, a_m = (np.prod([curve[column] for curve, column in zip(y.values(), ranks.T, strict=True)], axis=0) for y in (y_p, y_m))
            return np.asarray(a_p * done(ranks) / cost.original + a_m)

        grids = [range(low[name], high[name] + 1, max(1, round(step * (len(y_p[name]) - 1)))) for name in low]
        box = np.array(list(itertools.product(*grids)))
        fit_in = box[abs(done(box) / cost.original / budget - 1) <= margin]
        wanted = np.sort(value(fit_in))[::-1][:best]
        found = np.array([list(ranks.values()) for ranks in best_in_box(y_p, y_m, low, high, cost, config)])
        if found.shape != (len(wanted), len(low)) or not set(map(tuple, found)) <= set(map(tuple, fit_in)):
            return np.inf
        worst = max(worst, float(np.abs(value(found) - wanted).max()))
    return worst


@torch.no_grad()
def claim_meets_the_budget(lab: Lab) -> float:
    """Largest distance of the executed multiply-adds from the budget, relative, for all the sets that are tried on images."""
    model, task, pairs, cost = toy()
    worst = 0.0
    for budget in (0.45, 0.6, 0.8):
        for ranks in rank_sets(model, pairs, task, Config(budget=budget, profile=(0.1, 0.3), best=5)):
            done = multiply_adds(cut(model, pairs, ranks), task.train.first(1).images)
            worst = max(worst, abs(done / cost.original / budget - 1))
    return worst


def ranks_of(model: nn.Module, pairs: Pairs) -> Ranks:
    return {name: model.get_submodule(name)[0].out_channels for name in pairs}


def claim_three_ways_to_choose(lab: Lab) -> float:
    """How many of ENC-Map, ENC-Model and ENC-Inf choose other ranks than by the definition."""
    model, task, pairs, cost = toy()
    y_p, wrong, different = {name: energy(pair) for name, pair in pairs.items()}, 0, 0
    for profile, images in (((0.5, 0.2), 96), ((0.8, 0.2), 64)):  # the second: other ranks without A_p, and on all images
        config = Config(budget=0.45, profile=profile, space=0.2, best=15, images=images)
        few, least = with_few(task, config), at_share(pairs, 0.2)
        low, mapped, high = (equal_accuracy(y_p, least, cost, share * cost.original) for share in (0.25, 0.45, 0.65))
        best = best_in_box(y_p, measured(model, pairs, few, config), low, high, cost, config)
        right = [few.score(cut(model, pairs, ranks), few.validation) for ranks in best]
        wanted = [(replace(config, space=0, margin=0), mapped), (replace(config, best=1), best[0]), (config, best[right.index(max(right))])]
        wrong += sum(ranks_of(compress(model, task, change), pairs) != ranks for change, ranks in wanted)
        wrong += mapped["8"] != least["8"]  # the floor acts
        different = max(different, len({str(ranks) for _, ranks in wanted}))
    return wrong + 3 - different


@lru_cache(maxsize=1)
def uncut(lab: Lab) -> Case:
    """The lab's network, in pairs."""
    model, pairs = lab.reference, split(lab.reference)[0]
    return Case(model, lab.task, pairs, linear_cost(model, pairs, lab.task.train.first(1).images.to(lab.task.device)))


@lru_cache(maxsize=4)
def accuracy_at(lab: Lab, *ranks: tuple[str, int]) -> float:
    """On test images, before fine-tuning."""
    model, task, pairs, _ = uncut(lab)
    return task.score(cut(model, pairs, dict(ranks)), task.test)


def over_uniform(lab: Lab, ranks: Ranks) -> float:
    """Accuracy on test images, before fine-tuning, less that of one share for all layers."""
    _, _, pairs, cost = uncut(lab)
    return accuracy_at(lab, *ranks.items()) - accuracy_at(lab, *uniform(pairs, cost, cost.of(ranks)).items())


def candidates(lab: Lab, config: Config) -> list[Ranks]:
    model, task, pairs, _ = uncut(lab)
    return rank_sets(model, pairs, with_few(task, config), config)


def claim_map_beats_uniform(lab: Lab) -> float:
    return over_uniform(lab, candidates(lab, replace(lab.config, space=0))[0])


def claim_model_beats_uniform(lab: Lab) -> float:
    """At the budget of a smoke run: at half of its multiply-adds nobody loses anything."""
    return over_uniform(lab, candidates(lab, replace(SMOKE, best=1, images=1000))[0])


def claim_inference_beats_uniform(lab: Lab) -> float:
    return over_uniform(lab, ranks_of(lab.compressed, uncut(lab).pairs))


def claim_inference_beats_model(lab: Lab) -> float:
    """Accuracy on test images, not fine-tuned, at a smoke run's budget, of the set best on images less that of the best metric."""
    config = replace(SMOKE, images=1000)
    model, task, pairs, _ = uncut(lab)
    found, few = candidates(lab, config), with_few(task, config)
    tried = max(found, key=lambda ranks: task.score(cut(model, pairs, ranks), few.validation))
    return accuracy_at(lab, *tried.items()) - accuracy_at(lab, *found[0].items())


def claim_fine_tuning_restores(lab: Lab) -> float:
    """Share of the accuracy lost in the cut that fine-tuning wins back."""
    start = accuracy_at(lab, *ranks_of(lab.compressed, uncut(lab).pairs).items())
    return (lab.after.accuracy - start) / (lab.before.accuracy - start)


def claim_network_meets_the_budget(lab: Lab) -> float:
    """Distance of the measured multiply-adds from the budget, relative."""
    return abs(lab.after.multiply_adds / lab.before.multiply_adds / lab.config.budget - 1)
