"""The claims of Tucker-2 with ranks from VBMF."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from scipy.optimize import brentq, minimize
from torch import nn

from methods.kit.lab import Lab
from methods.kit.layers import Layer
from methods.kit.measure import multiply_adds
from methods.kit.nets import count
from methods.kit.task import Task
from methods.kit.testing import convolutions, relative_error, won_back
from methods.kit.train import fit
from methods.low_rank import kim_tucker as method


def claim_threshold_minimises_free_energy(lab: Lab) -> list[float]:
    """Relative distance to the gamma^2 from which one component's free energy, minimised numerically, is below that of none."""

    def lowest(x: float, alpha: float) -> float:
        def energy(logs: method.Matrix) -> float:  # 2 F / M over both factors' signal-to-noise ratios, prior variances at their best
            u, v = np.exp(logs)
            return float(np.log1p(u) + alpha * np.log1p(v) - x * u * v / (1 + u) / (1 + v))

        return float(minimize(energy, [1.0, 2.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).fun)

    def oracle(alpha: float) -> float:
        edge = (1 + math.sqrt(alpha)) ** 2  # of the spectrum of pure noise
        return float(brentq(lambda x: lowest(x, alpha), 1.1 * edge, 2 * edge))

    return [abs(method.threshold(alpha) / oracle(alpha) - 1) for alpha in (0.05, 0.3, 1.0)]


def planted(rank: int, shape: tuple[int, int], noise: float, scale: float) -> method.Matrix:
    """A random matrix of the rank, under white noise."""
    chance = np.random.default_rng(0)
    signal = chance.standard_normal((shape[0], rank)) @ chance.standard_normal((rank, shape[1]))
    return scale * (signal + noise * chance.standard_normal(shape))


PLANTED = [(5, (40, 90), 1.0, 1e-4), (12, (64, 64), 0.5, 1.0), (30, (128, 576), 2.0, 1e3), (0, (200, 50), 1.0, 1e-2)]


def claim_recovers_planted_rank(lab: Lab) -> list[float]:
    """Largest distance from the planted rank."""
    plain = [abs(method.evbmf_rank(np.zeros((20, 30)))), abs(method.evbmf_rank(np.diag([1.0] + 19 * [0.0])) - 1)]
    return [*plain, *(abs(method.evbmf_rank(planted(*case)) - case[0]) for case in PLANTED)]


def claim_estimates_the_noise(lab: Lab) -> list[float]:
    """Largest relative error of the noise variance."""
    return [abs(method.evbmf(planted(*case))[1] / (case[2] * case[3]) ** 2 - 1) for case in PLANTED]


def claim_noise_minimises_free_energy(lab: Lab) -> list[float]:
    """Most by which a noise variance nearby has a lower free energy, each component's tau found as a root of its quadratic."""

    def energy(squares: method.Matrix, variance: float, alpha: float, large: int) -> float:
        total = 0.0
        for x in squares / (large * variance):
            total += x - math.log(x)
            if x > method.threshold(alpha):
                tau = max(np.roots([1, 1 + alpha - x, alpha]).real)  # of x = (1 + tau)(1 + alpha / tau)
                total += math.log(tau + 1) + alpha * math.log(tau / alpha + 1) - tau
        return total

    found = list[float]()
    for case in [*PLANTED, (10, (60, 80), 6.0, 1.0)]:  # the last one's signal is near the threshold
        squares = np.linalg.svd(matrix := planted(*case), compute_uv=False) ** 2
        (small, large), variance = sorted(matrix.shape), method.evbmf(matrix)[1]
        around = [energy(squares, variance * factor, small / large, large) for factor in (1, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1)]
        found += [around[0] - other for other in around]
    return found


@torch.no_grad()
def claim_full_rank_reproduces_layer(lab: Lab) -> list[float]:
    """Largest difference of the outputs, relative to the largest output."""
    torch.manual_seed(0)
    layers: list[Layer] = [*convolutions(), nn.Conv2d(6, 1, (3, 1)), nn.Conv2d(6, 60, 3)]
    cases: list[tuple[Layer, method.Ranks]] = [(layer, (6, len(layer.weight))) for layer in layers]
    cases += [(layer, (None, min(layer.weight.flatten(1).shape))) for layer in (*layers, nn.Linear(11, 7).double())]
    found, images = list[float](), torch.randn(2, 6, 11, 11)
    for layer, ranks in cases:
        whole, x = method.tucker2(layer, ranks), images.to(layer.weight)
        found.append(relative_error(whole(x), layer(x)))
    return found


@torch.no_grad()
def claim_no_worse_than_hosvd(lab: Lab) -> list[float]:
    """Largest ratio of the kernel's error to that of the truncated higher-order SVD, computed here on its own."""
    torch.manual_seed(0)
    layer, ratios = nn.Conv2d(8, 12, 3).double(), []
    for r3, r4 in ((2, 3), (5, 4), (7, 11)):
        ours = torch.einsum("asxy,baij,tbxy->tsij", *(part.weight for part in method.tucker2(layer, (r3, r4))))
        u4, u3 = (torch.linalg.svd(layer.weight.transpose(0, mode).flatten(1))[0][:, :r] for mode, r in ((0, r4), (1, r3)))
        theirs = torch.einsum("tsij,tb,ub,sa,va->uvij", layer.weight, u4, u4, u3, u3)
        ratios.append(float((layer.weight - ours).norm() / (layer.weight - theirs).norm()))
    return list(ratios)


def claim_cost_formula(lab: Lab) -> list[float]:
    """Largest difference from S R3 + D^2 R3 R4 + R4 T parameters and H W S R3 + H'W' (D^2 R3 R4 + R4 T) multiply-adds."""
    errors = list[float]()
    for s, t, d, r3, r4, stride in ((16, 32, 3, 5, 7, 2), (8, 8, 5, 3, 2, 1), (12, 24, 3, 12, 24, 1)):
        shipped = method.tucker2(layer := nn.Conv2d(s, t, d, stride, d // 2, bias=False), (r3, r4))
        places, formula = (12 // stride) ** 2, (s * r3, d**2 * r3 * r4 + r4 * t)
        executed = 12 * 12 * formula[0] + places * formula[1]
        found = multiply_adds(shipped, torch.zeros(1, s, 12, 12))
        errors += [abs(count(shipped) - sum(formula)), abs(found - executed), abs(method.work(layer, (r3, r4)) * places - executed)]
    return [
        *errors,
        abs(method.work(nn.Conv2d(16, 32, 3), (None, 5)) - (9 * 16 * 5 + 5 * 32)),
        abs(method.work(nn.Linear(9, 7), (None, 2)) - 32),
    ]


def claim_each_layer_its_decomposition(lab: Lab) -> float:
    """How many layers of a network with planted ranks are planned wrongly."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(8, 24, 3)), nn.Conv2d(24, 32, 3, stride=2), nn.Conv2d(32, 32, 3, groups=2),
        nn.Conv2d(32, 32, 3), nn.Conv2d(32, 48, 1),
        nn.Conv2d(48, 16, 3, stride=4), nn.ConvTranspose2d(16, 40, 3), nn.Linear(40, 30), nn.Linear(30, 15),
    )  # fmt: skip
    wanted: dict[str, method.Ranks] = {"0.0": (None, 4), "1": (5, 6), "4": (None, 7), "7": (None, 3)}
    for name, (r3, r4) in {**wanted, "5": (20, 6), "8": (None, 2)}.items():  # "5": smaller, but slower, with a factor before its stride
        weight = model.get_submodule(name).weight
        core = torch.randn(r4, r3 or weight.shape[1], *weight.shape[2:])
        inward = torch.randn(r3, weight.shape[1]) if r3 else torch.eye(weight.shape[1])
        weight.data = torch.einsum("tb,ba...,as->ts...", torch.randn(len(weight), r4), core, inward) + 0.1 * torch.randn_like(weight)
    twice = method.decomposed(nn.Sequential(shared := nn.Conv2d(8, 8, 3), shared), {"0": (4, 4)})
    ranks, kept = method.plan(model)
    return (twice[0] is not twice[1]) + sum(
        ranks.get(name) != wanted.get(name) or (name in kept) == (name in wanted)
        for name, layer in model.named_modules()
        if not isinstance(layer, nn.Sequential)
    )


def claim_fine_tunes_the_whole_network(lab: Lab) -> list[float]:
    """How many parameters two steps leave as they are decomposed, and the difference from training the decomposed network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.Flatten(), nn.Linear(720, 40), nn.ReLU(), nn.Linear(40, 2))
    model[3].weight.data = torch.from_numpy(planted(3, (40, 720), 1.0, 0.01)).float()
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 2)]
    task, start = Task.from_loaders(batches, batches, batches, steps=2, batch=8), method.decomposed(model, {"3": (None, 3)})
    tuned, wanted = method.compress(copy.deepcopy(model), task, method.Config()), fit(copy.deepcopy(start), task, lr=1e-3)
    left, off = 0, list[float]()
    for old, new, aim in zip(start.parameters(), tuned.parameters(), wanted.parameters(), strict=True):
        left += torch.equal(old, new)
        off.append(float((new - aim).detach().abs().max()))
    return [left, *off]


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_fine_tuning_helps(lab: Lab) -> float:
    """Share of the accuracy lost in the decomposition that fine-tuning wins back."""
    cut = lab.score(method.decomposed(lab.reference, method.plan(lab.reference)[0]))
    return won_back(lab, cut)


def claim_fine_tuning_restores(lab: Lab) -> float:
    return claim_fine_tuning_helps(lab)


def claim_beats_uniform_ranks(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("uniform").accuracy


def claim_beats_scratch(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("scratch").accuracy
