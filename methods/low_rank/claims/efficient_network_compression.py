"""The claims of ENC."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from methods.kit.lab import Lab
from methods.kit.measure import multiply_adds
from methods.kit.task import Split, Task
from methods.kit.testing import toy_task, won_back
from methods.low_rank import efficient_network_compression as method


@torch.no_grad()
def claim_energy_of_the_spectrum(lab: Lab) -> list[float]:
    """Largest difference of the curve from sums of the roots of the eigenvalues that numpy finds of the kernel times its transpose."""
    torch.manual_seed(0)
    errors = list[float]()
    for layer in (nn.Conv2d(5, 8, 3), nn.Conv2d(7, 4, (3, 5)), nn.Conv2d(6, 9, 1), nn.Conv2d(4, 6, 3, stride=(3, 2))):
        kernel = layer.double().weight.numpy()
        matrix = np.block([[kernel[n, c] for n in range(len(kernel))] for c in range(kernel.shape[1])])
        square = min(matrix @ matrix.T, matrix.T @ matrix, key=len)  # full rank
        values = np.sqrt(np.linalg.eigvalsh(square)[::-1])
        (o, i, d, e), stride = kernel.shape, layer.stride[1]
        full = round(o * i * d * e / (i * d * stride + o * e))
        wanted = [0.0] + [sum(values[1:r]) / sum(values[1:full]) for r in range(1, full + 1)]
        found = method.energy(method.split(nn.Sequential(nn.Conv2d(3, i, 1).double(), layer))[0]["1"])
        errors.append(float(np.abs(found - wanted).max()) if len(found) == len(wanted) else np.inf)
    return errors


@torch.no_grad()
def claim_truncation_is_best_of_its_rank(lab: Lab) -> list[float]:
    """Largest distance of a truncated pair's kernel from that of the truncated SVD, relative; numpy's SVD."""
    torch.manual_seed(0)
    found = list[float]()
    for layer, rank in ((nn.Conv2d(5, 8, 3, stride=2), 4), (nn.Conv2d(7, 3, (3, 5)), 1), (nn.Conv2d(6, 9, 1), 3)):
        net = nn.Sequential(nn.Conv2d(3, layer.in_channels, 1), layer).double()
        pairs = method.split(net)[0]
        columns, rows = method.cut(net, pairs, {"1": rank}).get_submodule("1")
        kernel = torch.einsum("kci,nkj->ncij", columns.weight[..., 0], rows.weight[:, :, 0])
        found.append(float((kernel - low_rank(layer, rank)).norm() / kernel.norm()))
        found += [abs(len(columns.weight) - rank), abs(columns.out_channels - rank), abs(rows.in_channels - rank)]
        found.append(abs(len(pairs["1"][0].weight) - pairs["1"][0].out_channels))  # untouched
    return found


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
    pairs: method.Pairs
    cost: method.Cost


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
    toy = toy_task(held, batch=8)
    task = replace(toy, train=toy.validation, validation=held)  # what is searched on, nothing is trained on
    pairs = method.split(model)[0]
    return Case(model, task, pairs, method.linear_cost(model, pairs, images[:1]))


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
    pairs, kept = method.split(model)
    full = {name: pair[0].out_channels for name, pair in pairs.items()}
    return len({"1": 9, "4": 2, "6": 9}.items() ^ full.items()) + len(kept.keys() ^ {"0.0", "2", "3", "5", "7", "8"})


@torch.no_grad()
def claim_cost_is_linear(lab: Lab) -> list[float]:
    """Largest difference of the cost from executed multiply-adds, and of a rank's from D (I + O) H W at each run of a layer."""
    model, task, pairs, cost = toy()
    chance, image = np.random.default_rng(0), task.train.first(1).images
    errors = [abs(cost.original - multiply_adds(model, image))]
    for _ in range(5):
        ranks = {name: int(chance.integers(1, pair[0].out_channels + 1)) for name, pair in pairs.items()}
        errors.append(abs(cost.of(ranks) - multiply_adds(method.cut(model, pairs, ranks), image)))
    formula = {"2": 5 * (3 * 16 * 11 + 3 * 24 * 5), "4": 2 * 25 * 3 * (24 + 24), "8": 5 * (24 * 5 + 3 * 32 * 3)}
    return [*errors, list(cost.each) != list(formula), *(abs(cost.each[name] - c) for name, c in formula.items())]


@torch.no_grad()
def claim_measures_one_layer_cut(lab: Lab) -> list[float]:
    """Largest difference of the measured curve from the accuracy with numpy's truncated kernel in the layer, over the uncut one."""
    model, task, pairs, _ = toy()
    held = task.validation
    few = method.with_few(task, method.Config(images=10)).validation
    known = [((held.images == x).flatten(1).all(1) & (held.labels == y)).any() for x, y in few.chunks(1)]
    if len(known) != 10 or not all(known):
        return [np.inf]
    errors, shares, heights = list[float](), (0.75, 0.1, 0.01, 1.0, 0.25), set()
    for labels in (held.labels, method.cut(model, pairs, {"2": 5})(held.images).argmax(1)):  # the second: better cut than uncut
        task = replace(task, validation=Split(held.images, labels))
        whole = task.score(model, task.validation)
        for name, curve in method.measured(model, pairs, task, method.Config(profile=shares)).items():
            full, highest = len(curve) - 1, 0.0
            for rank in sorted({max(1, round(share * full)) for share in shares if share < 1}):
                other = copy.deepcopy(model)
                layer: Any = other.get_submodule(name)
                layer.weight.copy_(low_rank(layer, rank))
                highest = min(1.0, max(highest, task.score(other, task.validation) / whole))
                heights.add(highest)
                errors.append(abs(curve[rank] - highest))
            errors += [abs(curve[0]), abs(curve[full] - 1), abs(full - pairs[name][0].out_channels)]
            errors.append(int((np.diff(curve) < -1e-12).sum()))
    return [*errors, len(heights) < 6 or 1 not in heights]  # if they hardly differed, nothing would be shown


def random_curves(seed: int, sizes: tuple[int, ...], flat: float = 0.0) -> method.Curves:
    """Rising curves from 0 to 1, with some steps left out."""
    chance = np.random.default_rng(seed)
    steps = [chance.random(size) * (chance.random(size) >= flat) for size in sizes]
    sums = [np.cumsum(np.append(0.0, step)) for step in steps]
    return {f"{place}": total / total[-1] for place, total in enumerate(sums)}


def budgets(cost: method.Cost) -> list[float]:
    return [cost.original * share for share in np.linspace(0, 1.2, 25)]


COST = method.Cost(3_000, 100, {"0": 37, "1": 12, "2": 12, "3": 12, "4": 5})


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
            found = method.equal_accuracy(curves, least, COST, goal)
            nearest = min(abs(COST.of(ranks) - goal) for ranks in known)
            wrong += found not in known or abs(COST.of(found) - goal) > nearest
    return wrong


def claim_mapping_is_monotone(lab: Lab) -> float:
    """How many times a layer's rank falls as the budget grows, on both kinds of curves; one more where nothing ever rises."""
    model, task, pairs, cost = toy()
    falls, least = 0, dict.fromkeys(pairs, 1)
    for curves in ({name: method.energy(pair) for name, pair in pairs.items()}, method.measured(model, pairs, task, method.Config())):
        sets = [method.equal_accuracy(curves, least, cost, goal) for goal in budgets(cost)]
        falls += sum(after[name] < before[name] for before, after in itertools.pairwise(sets) for name in pairs)
        falls += any(sets[0][name] >= sets[-1][name] for name in pairs)
    return falls


def claim_search_equals_enumeration(lab: Lab) -> list[float]:
    """Largest difference of the best values of A_c from those of every set of ranks in the box; infinite where one is outside."""
    errors = list[float]()
    cost, budget = COST._replace(original=900), 0.7  # so that A_p has a weight beside A_m
    cases = ((0.01, 0.005, 20), (0.1, 0.02, 1), (0.06, 0.02, 200), (0.01, 0.01, 1), (0.01, 0.01, 3))
    for seed, (step, margin, best) in enumerate(3 * cases):
        y_p, y_m = random_curves(seed, (12, 20, 20, 31, 16)), random_curves(seed + 90, (12, 20, 20, 31, 16), 0.2 * (seed % 3))
        low, high = {"0": 2, "1": 3, "2": 4, "3": 9, "4": 5}, {"0": 8, "1": 9, "2": 9, "3": 16, "4": 11}
        config = method.Config(budget=budget, step=step, margin=margin, best=best)

        def done(ranks: method.Array) -> method.Array:
            return cost.fixed + ranks @ np.array(list(cost.each.values()))

        def value(ranks: method.Array, y_p: method.Curves = y_p, y_m: method.Curves = y_m) -> method.Array:
            a_p, a_m = (np.prod([curve[column] for curve, column in zip(y.values(), ranks.T, strict=True)], axis=0) for y in (y_p, y_m))
            return np.asarray(a_p * done(ranks) / cost.original + a_m)

        grids = [range(low[name], high[name] + 1, max(1, round(step * (len(y_p[name]) - 1)))) for name in low]
        box = np.array(list(itertools.product(*grids)))
        fit_in = box[abs(done(box) / cost.original / budget - 1) <= margin]
        wanted = np.sort(value(fit_in))[::-1][:best]
        found = np.array([list(ranks.values()) for ranks in method.best_in_box(y_p, y_m, low, high, cost, config)])
        if found.shape != (len(wanted), len(low)) or not set(map(tuple, found)) <= set(map(tuple, fit_in)):
            return np.inf
        errors.append(float(np.abs(value(found) - wanted).max()))
    return errors


@torch.no_grad()
def claim_meets_the_budget(lab: Lab) -> list[float]:
    """Largest distance of the executed multiply-adds from the budget, relative, for all the sets that are tried on images."""
    model, task, pairs, cost = toy()
    found = list[float]()
    for budget in (0.45, 0.6, 0.8):
        for ranks in method.rank_sets(model, pairs, task, method.Config(budget=budget, profile=(0.1, 0.3), best=5)):
            done = multiply_adds(method.cut(model, pairs, ranks), task.train.first(1).images)
            found.append(abs(done / cost.original / budget - 1))
    return found


def ranks_of(model: nn.Module, pairs: method.Pairs) -> method.Ranks:
    return {name: model.get_submodule(name)[0].out_channels for name in pairs}


def claim_three_ways_to_choose(lab: Lab) -> float:
    """How many of ENC-Map, ENC-Model and ENC-Inf choose other ranks than by the definition."""
    model, task, pairs, cost = toy()
    y_p, wrong, different = {name: method.energy(pair) for name, pair in pairs.items()}, 0, set[int]()
    for profile, images in (((0.5, 0.2), 96), ((0.8, 0.2), 64)):  # the second: other ranks without A_p, and on all images
        config = method.Config(budget=0.45, profile=profile, space=0.2, best=15, images=images)
        few, least = method.with_few(task, config), method.at_share(pairs, 0.2)
        low, mapped, high = (method.equal_accuracy(y_p, least, cost, share * cost.original) for share in (0.25, 0.45, 0.65))
        best = method.best_in_box(y_p, method.measured(model, pairs, few, config), low, high, cost, config)
        right = [few.score(method.cut(model, pairs, ranks), few.validation) for ranks in best]
        wanted = [(replace(config, space=0, margin=0), mapped), (replace(config, best=1), best[0]), (config, best[right.index(max(right))])]
        wrong += sum(ranks_of(method.compress(model, task, change), pairs) != ranks for change, ranks in wanted)
        wrong += mapped["8"] != least["8"]  # the floor acts
        different.add(len({str(ranks) for _, ranks in wanted}))
    return wrong + (3 not in different)  # once at least no two choose the same


@lru_cache(maxsize=1)
def uncut(lab: Lab) -> Case:
    """The lab's network, in pairs."""
    model, pairs = lab.reference, method.split(lab.reference)[0]
    return Case(model, lab.task, pairs, method.linear_cost(model, pairs, lab.task.train.first(1).images.to(lab.task.device)))


@lru_cache(maxsize=4)
def accuracy_at(lab: Lab, *ranks: tuple[str, int]) -> float:
    """On test images, before fine-tuning."""
    model, _, pairs, _ = uncut(lab)
    return lab.score(method.cut(model, pairs, dict(ranks)))


def over_uniform(lab: Lab, ranks: method.Ranks) -> float:
    """Accuracy on test images, before fine-tuning, less that of one share for all layers."""
    _, _, pairs, cost = uncut(lab)
    return accuracy_at(lab, *ranks.items()) - accuracy_at(lab, *method.uniform(pairs, cost, cost.of(ranks)).items())


def candidates(lab: Lab, config: method.Config) -> list[method.Ranks]:
    model, task, pairs, _ = uncut(lab)
    return method.rank_sets(model, pairs, method.with_few(task, config), config)


def claim_map_beats_uniform(lab: Lab) -> float:
    return over_uniform(lab, candidates(lab, replace(lab.config, space=0))[0])


def claim_model_beats_uniform(lab: Lab) -> float:
    """At the budget of a smoke run: at half of its multiply-adds nobody loses anything."""
    return over_uniform(lab, candidates(lab, replace(method.SMOKE, best=1, images=1000))[0])


def claim_inference_beats_uniform(lab: Lab) -> float:
    return over_uniform(lab, ranks_of(lab.compressed, uncut(lab).pairs))


def claim_inference_beats_model(lab: Lab) -> float:
    """Accuracy on test images, not fine-tuned, at a smoke run's budget, of the set best on images less that of the best metric."""
    config = replace(method.SMOKE, images=1000)
    model, task, pairs, _ = uncut(lab)
    found, few = candidates(lab, config), method.with_few(task, config)
    tried = found[int(np.argmax([task.score(method.cut(model, pairs, ranks), few.validation) for ranks in found]))]
    return accuracy_at(lab, *tried.items()) - accuracy_at(lab, *found[0].items())


def claim_fine_tuning_restores(lab: Lab) -> float:
    """Share of the accuracy lost in the cut that fine-tuning wins back."""
    start = accuracy_at(lab, *ranks_of(lab.compressed, uncut(lab).pairs).items())
    return won_back(lab, start)


def claim_network_meets_the_budget(lab: Lab) -> float:
    """Distance of the measured multiply-adds from the budget, relative."""
    return abs(lab.after.multiply_adds / lab.before.multiply_adds / lab.config.budget - 1)
