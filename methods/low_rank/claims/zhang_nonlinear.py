"""The claims of Asymmetric 3D."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from methods.kit import quant
from methods.kit.lab import Lab
from methods.kit.layers import (
    responses,
)  # fmt: skip
from methods.kit.measure import multiply_adds
from methods.kit.nets import Residual, conv_bn
from methods.kit.testing import convolutions, images_only, relative_error
from methods.low_rank import zhang_nonlinear as method
from methods.low_rank.jaderberg_low_rank import scheme2


@torch.no_grad()
def claim_symmetric_linear_is_pca(lab: Lab) -> list[float]:
    """Largest difference from the responses that NumPy's singular vectors restore, of the largest, and from their energies."""
    torch.manual_seed(0)
    y = torch.randn(300, 12).double() @ torch.randn(12, 12).double() + 3
    mean = y.numpy().mean(0)
    u, spectrum, axes = np.linalg.svd(y.numpy() - mean, full_matrices=False)  # scores and axes of the PCA
    found = [float(np.abs(method.energies(y).numpy() / spectrum**2 - 1).max())]
    for rank in (1, 5, 11):
        p, q, b = method.approximation(y, y, rank, [])
        restored = (u * spectrum)[:, :rank] @ axes[:rank] + mean
        found.append(float(np.abs((y @ q.T @ p.T + b).numpy() - restored).max() / y.abs().max()))
    return found


def claim_regression_is_optimal(lab: Lab) -> list[float]:
    """Largest relative difference of the squared error from the least that quasi-Newton steps over P, Q and b find."""
    chance, found = np.random.default_rng(0), list[float]()
    for n, d, rank, dims in ((40, 4, 2, 4), (30, 5, 1, 3)):
        seen = 2 + chance.standard_normal((n, dims)) @ chance.standard_normal((dims, d))
        z = seen @ chance.standard_normal((d, d)) + chance.standard_normal((n, d)) - 5

        def error(v: Any, z: Any = z, seen: Any = seen, shape: tuple[int, int] = (d, rank)) -> float:
            q, p, b = np.split(v, [math.prod(shape), 2 * math.prod(shape)])
            return float(np.square(z - seen @ q.reshape(shape) @ p.reshape(shape).T - b).sum())

        p, q, b = method.approximation(torch.from_numpy(seen), torch.from_numpy(z), rank, [])
        least = min(minimize(error, chance.standard_normal(2 * d * rank + d)).fun for _ in range(2))
        found.append(abs(error(torch.cat([q.T.flatten(), p.flatten(), b]).numpy()) / least - 1))
    return found


def claim_nearest_is_best(lab: Lab) -> list[float]:
    """Most by which any number of a fine grid beats the closed form."""
    grid, found = torch.linspace(-4, 4, 801).double(), list[float]()
    values = torch.linspace(-3, 3, 13).double()
    y, guess = (part.flatten() for part in torch.meshgrid(values, values + 0.1, indexing="ij"))

    def cost(z: Tensor, penalty: float) -> Tensor:
        return (y.clamp(min=0) - z.clamp(min=0)) ** 2 + penalty * (z - guess) ** 2

    for penalty in (0.01, 0.3, 1.0, 20.0):
        least = torch.stack([cost(z, penalty) for z in grid]).amin(0)
        found.append(float((cost(method.nearest(y, guess, penalty), penalty) - least).max()))
    return found


def claim_ignores_what_relu_cuts(lab: Lab) -> float:
    """Error behind the ReLU, of the linear solution's, where the responses that vary most never get through."""
    torch.manual_seed(0)
    y = torch.cat([torch.randn(400, 3) @ torch.randn(3, 6), 4 * torch.randn(400, 3) @ torch.randn(3, 6) - 40], 1).double()

    def error(penalties: Iterable[float]) -> float:
        p, q, b = method.approximation(y, y, 3, penalties)
        return float(((y @ q.T @ p.T + b).relu() - y.relu()).norm())

    return error(method.Config().penalties) / error(())


@torch.no_grad()
def claim_rounds_lower_relaxed_error(lab: Lab) -> list[float]:
    """Largest ratio of the relaxed error after a round to that before it, and of a penalty to the next; more where a mean is off."""
    torch.manual_seed(0)
    y, penalties = torch.randn(300, 8).double() @ torch.randn(8, 8).double() + 0.5, method.Config().penalties[19:31]  # six of each
    seen, found = y + 0.3 * torch.randn_like(y) + 2, list[float]()

    def relaxed(factors: method.Factors, penalty: float) -> tuple[Tensor, Tensor, float]:
        """What takes the place of the responses, the best z for it, and their error."""
        p, q, b = factors
        z = method.nearest(y, guess := seen @ q.T @ p.T + b, penalty)
        return guess, z, float((y.relu() - z.relu()).square().sum() + penalty * (z - guess).square().sum())

    rounds = itertools.pairwise(method.approximation(seen, y, 3, penalties[:done]) for done in range(len(penalties) + 1))
    for penalty, (old, new) in zip(penalties, rounds, strict=True):
        (_, z, before), (guess, _, after) = relaxed(old, penalty), relaxed(new, penalty)
        found += [after / before, 1 + float((guess.mean(0) - z.mean(0)).abs().max())]  # b = zbar - M ybar
    return [*found, *(before / after for before, after in itertools.pairwise(method.Config().penalties))]


@torch.no_grad()
def claim_full_rank_reproduces_layer(lab: Lab) -> list[float]:
    """Largest difference of the outputs, relative to the largest output."""
    torch.manual_seed(0)
    found, images = list[float](), torch.randn(60, 6, 9, 10)
    layers = convolutions()
    layers[0].weight[1:3] = layers[0].weight[:1]  # not of full rank
    layers[2].double()
    for layer, spatial in itertools.product(layers, (False, True)):
        x, rank = images.to(layer.weight), min(layer.weight.flatten(1).shape)
        chain = scheme2(layer, 99) if spatial else nn.Sequential(layer)
        chain = method.thinned(
            chain, method.approximation(method.sampled(chain(x), 20, 0), method.sampled(layer(x), 20, 0), rank, [0.01, 1])
        )
        found.append(relative_error(chain(x), layer(x)))
    return found


def stack(act: type[nn.Module]) -> nn.Module:
    """Four convolutions, the first three with a batch norm that has something to fold."""
    torch.manual_seed(0)
    model = nn.Sequential(
        conv_bn(3, 12, act=act), conv_bn(12, 16, 3, 2, 1, act), conv_bn(16, 20, act=act), nn.Conv2d(20, 24, 3), act()
    ).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                torch.nn.init.uniform_(values, 0.5, 1.5)  # type: ignore[arg-type]
    return model


@torch.no_grad()
def claim_means_are_kept(lab: Lab) -> list[float]:
    """Largest distance of an approximated layer's mean answer from the original one's, in deviations, on the images it was fitted to."""
    model, errors, images = stack(nn.Tanh), list[float](), torch.randn(40, 3, 12, 12)  # no ReLU: linear solutions
    small = method.compress(model, images_only(images), method.Config(speedup=3, places=1000))
    wanted, found = responses(model, images, ["1.bn", "2.bn", "3"]), responses(small, images, ["1.conv", "2.conv", "3"])
    for before, after in zip(wanted.values(), found.values(), strict=True):
        shift = (before.mean((0, 2, 3)) - after.mean((0, 2, 3))).abs() / before.std((0, 2, 3))
        errors += [float(shift.max()), float(torch.equal(before, after))]
    return errors


@torch.no_grad()
def claim_relu_and_order_count(lab: Lab) -> list[float]:
    """Error that is left behind the last ReLU, of that of the linear or the symmetric reconstruction, on the images fitted to."""
    model, images = stack(nn.ReLU), torch.randn(40, 3, 12, 12)
    task, config = images_only(images), method.Config(speedup=3, spatial=0.0, places=1000, penalties=5 * (0.01,) + 5 * (1.0,))
    small = method.compress(model, task, config)
    nets = (small, method.control_linear(model, task, config, small), method.control_symmetric(model, task, config, small))
    ours, *others = (float((net(images) - model(images)).norm()) for net in nets)
    return [ours / other for other in others]


def claim_greedy_ranks_nearly_best(lab: Lab) -> list[float]:
    """Least product of energies, of the largest among all ranks that cost no more; 0 where the budget is missed or not used."""
    chance, found = np.random.default_rng(0), list[float]()
    for _ in range(12):
        spectra = {name: torch.from_numpy(np.sort(chance.exponential(size=7) ** chance.uniform(0.2, 1))[::-1].copy()) for name in "abc"}
        unit = {name: float(chance.uniform(1, 4)) for name in spectra}
        whole = {name: 5 * unit[name] for name in spectra}

        def cost(ranks: Iterable[int], unit: dict[str, float] = unit) -> float:
            return sum(price * rank for price, rank in zip(unit.values(), ranks, strict=True))

        def energy(ranks: Iterable[int], spectra: dict[str, Tensor] = spectra) -> float:
            return math.prod(float(s[:rank].sum()) for s, rank in zip(spectra.values(), ranks, strict=True))

        spent = cost(ranks := method.select(spectra, unit, whole, speedup := float(chance.uniform(1.2, 4))).values())
        best = max(energy(other) for other in itertools.product(range(1, 8), repeat=3) if cost(other) <= spent)
        budget, dearest = sum(whole.values()) / speedup, max(unit.values())
        found.append(energy(ranks) / best * (spent <= budget < spent + dearest))
    return found


def alike(spectra: dict[str, Tensor], unit: dict[str, float], whole: dict[str, float], speedup: float) -> dict[str, int]:
    """The ranks that make every layer so much cheaper."""
    return {name: max(1, int(whole[name] / speedup / unit[name])) for name in spectra}


@torch.no_grad()
def claim_each_layer_its_ranks(lab: Lab) -> float:
    """How many layers are planned wrongly or take other than d'' k (c + d') + d' d multiply-adds a place, or are not worth it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 24, (5, 3), (1, 2), (0, 1)), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=2),
        nn.Conv2d(24, 18, 1), nn.ReLU(), nn.Conv2d(18, 20, (1, 5)), nn.ReLU(), nn.Conv2d(20, 40, 3, padding=1),
        nn.Conv2d(40, 1, 3, padding=1), nn.Flatten(), nn.Linear(156, 30),
    ).eval()  # fmt: skip
    wrong, images = 0, torch.randn(24, 3, 20, 40)
    task, folded = images_only(images), quant.fold_batch_norm(model)[0]
    area = {name: y[0, 0].numel() for name, y in responses(model, images, ["2", "5", "7", "9", "10"]).items()}
    for spatial, names in ((0.5, ["2", "9", "10"]), (0.0, ["2", "7", "9"])):
        config = method.Config(speedup=3.0, spatial=spatial, penalties=())
        (ranks, answers), (same, _) = (method.plan(folded, task, config, rule) for rule in (method.select, alike))
        chosen, uniform = (
            math.prod(float(method.energies(answers[name])[: some[name][0]].sum()) for name in ranks) for some in (ranks, same)
        )
        wrong += (not chosen > uniform) + any(len(answer) != len(images) * config.places for answer in answers.values())
        small = method.compress(model, task, config)
        wrong += (list(ranks) != names) + (method.renewed(small, model) != names)
        saved = spent = slack = 0.0
        for name, (rank, maps) in ranks.items():
            layer, widths = model.get_submodule(name), [len(part.weight) for part in small.get_submodule(name)]
            (n, c, d, e), price = layer.weight.shape, layer.weight[0].numel() * rank
            if spatial:
                strip = c * d * layer.stride[1] + e * rank  # columns and rows by way of one map
                wrong += not 0 <= price / 3**spatial - maps * strip < strip
                price = maps * strip
            wrong += widths != [*([maps] if spatial else []), rank, n]
            spent, saved = spent + area[name] * (price + rank * n), saved + area[name] * (layer.weight.numel() - price - rank * n)
            slack += area[name] * (layer.weight[0].numel() + n) / 2
        whole = sum(area[name] * model.get_submodule(name).weight.numel() for name in ({*names, "10"} if spatial else area))
        wrong += not 0.7 < 3 * spent / whole <= 1
        costs = [multiply_adds(net, images[:1]) for net in (model, small, method.control_svd(model, task, config, small))]
        wrong += (costs[0] - costs[1] != saved) + (abs(costs[2] - costs[1]) > slack)  # the control's ranks are rounded
    return wrong


def claim_knows_what_relu_sees(lab: Lab) -> float:
    """How many layers of a network are taken wrongly for followed, or not followed, by a ReLU alone."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block, self.a, self.b = conv_bn(3, 8), Residual(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.a(self.block(self.stem(x))))
            return (y := self.b(x)) * y.relu()

    return len(method.relu_follows(quant.fold_batch_norm(Mixed())[0]) ^ {"stem.conv", "block.first.conv", "a"})


@torch.no_grad()
def claim_lower_error_than_linear(lab: Lab) -> float:
    """Error behind the ReLU on held-out images, of that of the linear solution: the geometric mean over layers."""
    images, names = lab.held_out(128).images.to(lab.task.device), method.renewed(lab.compressed, lab.reference)
    whole = quant.fold_batch_norm(lab.reference)[0]
    wanted, found, linear = (responses(network, images, names) for network in (whole, lab.compressed, lab.controlled("linear")))
    errors = [[float((some[name].relu() - wanted[name].relu()).norm()) for name in names] for some in (found, linear)]
    return float(np.exp(np.mean(np.log(errors[0]) - np.log(errors[1]))))


@torch.no_grad()
def claim_makes_up_for_earlier_layers(lab: Lab) -> float:
    """Error of the logits on held-out images, of that of the symmetric reconstruction."""
    images = lab.held_out(128).images.to(lab.task.device)
    wanted = lab.reference(images)
    return float((lab.compressed(images) - wanted).norm() / (lab.controlled("symmetric")(images) - wanted).norm())


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_beats_weight_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy


def claim_columns_and_rows_help(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("square").accuracy


def claim_chosen_ranks_help(lab: Lab) -> float:
    """Accuracy with chosen ranks over that with one speed-up for all layers, both with square kernels as in Table 6."""
    uniform = method.rebuild(lab.reference, lab.task, replace(lab.config, spatial=0.0), rule=alike)
    return lab.control("square").accuracy - lab.score(uniform)


def claim_nonlinear_keeps_more_accuracy(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("linear").accuracy


def claim_keeps_accuracy(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy
