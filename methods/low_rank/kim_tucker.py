"""Tucker-2 with ranks from VBMF (Kim et al., ICLR 2016).

Compress a whole network in one shot. Variational Bayesian matrix factorisation says how many directions of a kernel's
input and output channels stand out from noise; a Tucker decomposition of the two channel modes keeps those, which turns
one D x D convolution into a 1x1, a narrow D x D and a 1x1 convolution; fine-tuning the whole network repairs the rest.

Departures: the noise variance is sought on a logarithmic scale, over a grid before the bounded minimisation, so that the
ranks do not depend on the scale of the weights; the threshold is solved for, where its authors tabulate a constant. A
layer is left alone where VBMF finds no rank at all, where the factors would cost as much as the layer, and where there are
fewer than 16 singular values to tell signal from noise: of a classifier for ten classes VBMF often keeps a single
direction. Convolutions of 1x1 are split in two like dense layers; a dense layer behind a flattened map is a dense layer (the
paper makes the first one a convolution with Tucker-2). Fine-tuning is the kit's (Nesterov momentum, weight decay 5e-4, one
cosine instead of steps), in a smoke run at three times the paper's rate. The cost of a layer is counted as if its map kept
its size but for the stride.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorly as tl
import torch
from scipy.optimize import brentq, minimize_scalar
from tensorly.decomposition import partial_tucker
from torch import nn

from methods.kit.layers import Layer, filled, fresh, geometry, name_the_kept, replaceable, replaced, share_that_costs, within
from methods.kit.measure import multiply_adds
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit

Matrix = np.ndarray[Any, Any]
Ranks = tuple[int | None, int]  # R3 and R4 of Tucker-2; R3 is None for Tucker-1
FEWEST = 16  # singular values that a noise level is estimated from


@dataclass(frozen=True)
class Config:
    rate: float = 1e-3  # base rate of fine-tuning, §3.3


SMOKE = Config(rate=3e-3)  # seconds instead of epochs
SWEEP = (SMOKE,)  # VBMF decides how small


def reference(task: Task) -> nn.Module:
    """Many channels and no shortcuts, like the paper's networks."""
    return trained("vgg_wide", task.name)


def threshold(alpha: float) -> float:
    """gamma^2 / (M sigma^2) above which a component is kept: (1 + tau)(1 + alpha / tau), phi(tau) + phi(tau / alpha) = 0."""
    tau = brentq(lambda t: sum(math.log1p(z) / z - 0.5 for z in (t, t / alpha)), alpha, 2.52)
    return float((1 + tau) * (1 + alpha / tau))


def evbmf(matrix: Matrix) -> tuple[int, float]:
    """Rank and noise variance of the global analytic solution of empirical VBMF (Nakajima et al., JMLR 2013 and 2015)."""
    small, large = sorted(matrix.shape)  # L <= M
    alpha, limit = small / large, threshold(small / large)
    energy = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False) ** 2
    if not energy[0] > 0:
        return 0, 0.0
    energy = np.maximum(energy, 1e-24 * energy[0])

    def free_energy(log_variance: float) -> float:
        # 2 F / M = sum_h psi(x_h), psi(x) = x - log x + [x > limit] (log(tau + 1) + alpha log(tau / alpha + 1) - tau)
        x = energy / (large * math.exp(log_variance))
        kept = x[x > limit] - 1 - alpha
        tau = (kept + np.sqrt(kept**2 - 4 * alpha)) / 2
        return float((x - np.log(x)).sum() + (np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau).sum())

    most = math.ceil(small / (1 + alpha)) - 1  # components that can be kept at all
    lowest = max(energy[most] / limit, energy[most:].mean()) / large
    grid = np.linspace(math.log(lowest), math.log(energy.mean() / large), 200)
    best = int(np.argmin([free_energy(point) for point in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    variance = math.exp(minimize_scalar(free_energy, bounds=around, method="bounded").x)
    return int((energy > large * variance * limit).sum()), variance


def evbmf_rank(matrix: Matrix) -> int:
    """How many components of a matrix stand out from noise."""
    return evbmf(matrix)[0]


def work(layer: Layer, ranks: Ranks) -> int:
    """Multiply-adds for one output position: stride^2 S R3 + D^2 R3 R4 + R4 T; the parameters where the stride is one."""
    (outputs, inputs), (r3, r4) = layer.weight.shape[:2], ranks
    area, stride = layer.weight[0, 0].numel(), math.prod(getattr(layer, "stride", ()))
    return (stride * inputs * r3 if r3 else 0) + area * (r3 or inputs) * r4 + r4 * outputs


def choose_ranks(layer: Layer, first: bool) -> tuple[Ranks, str]:
    """VBMF on the mode-3 and mode-4 unfoldings (§3.2), for the first layer and for matrices only on mode 4; and what speaks against it."""
    kernel = layer.weight.detach().double().cpu()
    output, inward = kernel.flatten(1).numpy(), kernel.transpose(0, 1).flatten(1).numpy()
    unfoldings = [output] if first or kernel[0, 0].numel() == 1 else [output, inward]
    if (few := min(min(matrix.shape) for matrix in unfoldings)) < FEWEST:
        return (None, few), f"{few} singular values are too few to tell signal from noise"
    r4, *r3 = (evbmf_rank(matrix) for matrix in unfoldings)
    ranks = (r3[0] if r3 else None, r4)
    if 0 in ranks:
        return ranks, "VBMF finds nothing that stands out from noise"
    return ranks, f"ranks {ranks} save nothing" if work(layer, ranks) >= layer.weight.numel() else ""


def plan(model: nn.Module, **given: Any) -> tuple[dict[str, Ranks], dict[str, str]]:
    """The ranks of every layer that gets cheaper, and the reason why each other layer stays as it is."""
    ranks = dict[Layer, Ranks]()

    def why_not(layer: Layer, first: bool) -> str:
        ranks[layer], reason = choose_ranks(layer, first)
        return reason

    layers, kept = replaceable(model, why_not, (nn.Conv2d, nn.Linear), **given)
    return {name: ranks[layer] for name, layer in layers.items()}, kept


def factored(layer: Layer, ranks: Ranks) -> nn.Sequential:
    """A decomposition's layers before they get their weights: 1x1 S -> R3 (Tucker-2 only), D x D -> R4, 1x1 R4 -> T with the bias."""
    (outputs, inputs), (r3, r4), bias = layer.weight.shape[:2], ranks, layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Sequential(nn.Linear(inputs, r4, bias=False), nn.Linear(r4, outputs, bias)).to(layer.weight)
    reduce = [nn.Conv2d(inputs, r3, 1, bias=False)] if r3 else []
    core = nn.Conv2d(r3 or inputs, r4, **geometry(layer), bias=False)
    return nn.Sequential(*reduce, core, nn.Conv2d(r4, outputs, 1, bias=bias)).to(layer.weight)


def tucker2(layer: Layer, ranks: Ranks) -> nn.Sequential:
    """K(i, j, s, t) = sum C(i, j, r3, r4) U3(s, r3) U4(t, r4) by alternating orthogonal iterations; Tucker-1 where R3 is None."""
    (r3, r4), kernel = ranks, layer.weight.detach().double().cpu().numpy()
    area = kernel[0, 0].size
    r3, r4 = r3 and min(r3, area * r4), min(r4, area * (r3 or kernel.shape[1]))
    with tl.backend_context("numpy"):
        (core, (u4, *u3)), _ = partial_tucker(kernel, rank=[r4, r3] if r3 else [r4], modes=[0, 1] if r3 else [0], init="svd", tol=1e-5)
    weights = [torch.from_numpy(weight.copy()) for weight in [*(u.T for u in u3), core, u4]]
    return filled(layer, factored(layer, (r3, r4)), weights)


def decomposed(model: nn.Module, ranks: dict[str, Ranks], build: Callable[[Layer, Ranks], nn.Sequential] = tucker2) -> nn.Module:
    """A copy of the network with the named layers decomposed."""
    return replaced(model, {name: build(model.get_submodule(name), chosen) for name, chosen in ranks.items()})


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Choose ranks, decompose every layer at once, fine-tune the whole network."""
    ranks, kept = plan(model, **within(task))
    name_the_kept("Tucker-2 needs a convolution or dense layer of low rank", ranks, kept)
    return fit(decomposed(model, ranks), task, lr=config.rate)


@on_copies
def control_uniform(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same layers at one share of their full ranks, chosen so that the multiply-adds are those of `like`; same steps."""
    image, chosen = task.train.first(1).images.to(task.device), plan(model, **within(task))[0]
    weights = {name: model.get_submodule(name).weight for name in chosen}

    def ranks(share: float) -> dict[str, Ranks]:
        part = {name: [max(1, round(share * full)) for full in (w.shape[1], min(w.flatten(1).shape))] for name, w in weights.items()}
        return {name: (part[name][0] if r3 else None, part[name][1]) for name, (r3, _) in chosen.items()}

    def cost(share: float) -> float:
        return multiply_adds(decomposed(model, ranks(share), factored), image)

    share = share_that_costs(multiply_adds(like, image), cost)
    return fit(decomposed(model, ranks(share)), task, lr=config.rate)


@on_copies
def control_scratch(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same factors from random weights, trained for the same steps at a rate for random weights."""
    return fit(fresh(like), task, lr=0.1)
