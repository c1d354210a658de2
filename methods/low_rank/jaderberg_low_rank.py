"""Low-rank expansions (Jaderberg et al., BMVC 2014).

Square kernels become columns and rows. Scheme 1 gives every input channel a small basis of separable filters and mixes
what they see; scheme 2 leads with columns to a few maps and with rows out of them, both across all channels. The factors
first come as close to the kernel as they can; then, layer after layer, to the layer's own outputs on unlabelled images
that have come through the layers done so far, so that each makes up for those before it.

Departures: scheme 2 is fitted to the kernel by an SVD instead of alternating conjugate gradients, and scheme 1 by
alternating least squares that keep the basis separable, where the paper drives it there with a nuclear norm; each channel
has a basis of its own, as in the paper's equations (its experiments share one); ranks follow from one speed-up for all
layers; outputs are fitted with Adam, and where not all images fit into the memory that the kit allows, on as many as do, others
every hundred steps. The first convolution stays as it is, as in the paper, and so do grouped ones, kernels of
one column or row, and dense layers. In a smoke run fewer images and iterations, and a larger learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.layers import (
    along,
    filled,
    gathered,
    in_parts,
    name_the_kept,
    ranks_at,
    replaced,
    truncated_svd,
    within,
)  # fmt: skip
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import minimise
from methods.kit.watch import iterations

Build = Callable[[nn.Conv2d, int], nn.Sequential]


@dataclass(frozen=True)
class Config:
    scheme: int = 2  # 1 or 2, §2.1
    speedup: float = 4.5  # multiply-adds of a layer over those of its factors; abstract, there of the whole network
    images: int = 1024  # unlabelled
    iterations: int = 500  # a layer
    batch: int = 32  # images
    lr: float = 1e-3


SMOKE = Config(speedup=8, images=128, iterations=30, batch=8, lr=3e-3)  # 4.5 costs this network little, whoever factors it
SWEEP = tuple(replace(SMOKE, speedup=speedup) for speedup in (2, 4, 8, 12))


def reference(task: Task) -> nn.Module:
    """Full convolutions and no shortcuts, like the paper's network."""
    return trained("vgg_wide", task.name)


def separable_basis(kernel: Tensor, m: int, sweeps: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """min sum_n || W_n^c - sum_m a_n^cm v_m^c h_m^c ||^2 for every channel c (§2.2.1): a, v and h in turn by least squares."""
    kernel = kernel.transpose(0, 1)  # (C, N, d, d)
    best = torch.linalg.svd(kernel.flatten(2), full_matrices=False)[2][:, :m].unflatten(2, kernel.shape[2:])  # of any rank
    u, _, w = torch.linalg.svd(best)  # cut to one column and row each
    v, h = u[..., 0], w[..., 0, :]  # (C, M, d)

    def solved(equation: str, x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.pinv((x @ x.mT) * (y @ y.mT), hermitian=True) @ torch.einsum(equation, kernel, x, y)

    for _ in iterations(sweeps):
        a = solved("cnij,cmi,cmj->cmn", v, h)
        v = solved("cnij,cmn,cmj->cmi", a, h)
        h = solved("cnij,cmn,cmi->cmj", a, v)
    return solved("cnij,cmi,cmj->cmn", v, h), v, h


def scheme1(layer: nn.Conv2d, m: int) -> nn.Sequential:
    """W_n^c ~ sum_m a_n^cm s_m^c with s_m^c = v_m^c h_m^c: columns, rows, and a 1x1 convolution that mixes (§2.1)."""
    n, c = layer.weight.shape[:2]
    a, v, h = separable_basis(layer.weight.detach().double(), m)
    m = v.shape[1]  # no more than there are filters, or weights in one
    columns, rows = along(layer, 0, c, c * m, groups=c, bias=False), along(layer, 1, c * m, c * m, groups=c * m, bias=False)
    return filled(layer, [columns, rows, nn.Conv2d(c * m, n, 1, bias=layer.bias is not None)], [v, h, a.permute(2, 0, 1)])


def scheme2(layer: nn.Conv2d, k: int) -> nn.Sequential:
    """W_n^c ~ sum_k v_k^c h_n^k: columns to K maps, rows out of them (§2.1); the best of its rank, by an SVD (§2.2.1)."""
    kernel, (n, c, d, e) = layer.weight.double(), layer.weight.shape
    u, spectrum, w = torch.linalg.svd(kernel.permute(1, 2, 0, 3).reshape(c * d, n * e), full_matrices=False)
    k, root = min(k, len(spectrum)), spectrum.sqrt()
    v, h = (u * root).T[:k], (root[:, None] * w)[:k].reshape(k, n, e).transpose(0, 1)
    return filled(layer, [along(layer, 0, c, k, bias=False), along(layer, 1, k, n, bias=layer.bias is not None)], [v, h])


SCHEMES: dict[int, Build] = {1: scheme1, 2: scheme2}


def work(layer: nn.Conv2d, build: Build) -> int:
    """Multiply-adds for one output position and one unit of rank; columns run at every place of a row, before its stride."""
    n, c, d, e = layer.weight.shape
    columns = c * d * layer.stride[1]
    return {scheme1: columns + c * e + c * n, scheme2: columns + n * e, truncated_svd: c * d * e + n}[build]


def plan(model: nn.Module, build: Build, speedup: float, **given: Any) -> tuple[dict[str, int], dict[str, str]]:
    """The rank of every layer that gets so much cheaper, and the reason why each other layer stays as it is."""
    reason = "sees raw pixels, which separable filters approximate badly (§3)"
    return ranks_at(model, speedup, partial(work, build=build), reason, **given)


def reconstruct(factors: nn.Sequential, pairs: Callable[[int], tuple[Tensor, Tensor]], config: Config, seed: int) -> None:
    """min over the factors of sum_i || Phi_l(x_i) - factors(x_i) ||^2 by back-propagation, without labels (§2.2.2).

    `pairs(step)` are what enters and what the layer should answer, x_i and Phi_l(x_i).
    """
    chance = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        x, target = pairs(step)
        pick = torch.randint(len(x), (config.batch,), generator=chance)
        return F.mse_loss(factors(x[pick]), target[pick])

    with torch.enable_grad():
        minimise(loss, [part.weight for part in factors], config.iterations, config.lr)


def fit_to_data(small: nn.Module, model: nn.Module, names: Iterable[str], task: Task, config: Config) -> nn.Module:
    """Layer after layer: aim at the original answer from what the layers approximated so far feed (§2.2.2)."""
    images = task.train.first(config.images).images.to(task.device)
    for name in names:

        def pairs(some: Tensor, name: str = name) -> tuple[Tensor, Tensor]:
            return gathered(small, some, name)[0], gathered(model, some, name)[1]

        size = sum(value.nbytes for value in pairs(images[:1]))
        reconstruct(small.get_submodule(name), in_parts(images, size, pairs, task.seed), config, task.seed)
    return small.eval()


def expand(model: nn.Module, config: Config, **given: Any) -> tuple[nn.Module, dict[str, int]]:
    """The network with the factors that come closest to its kernels (§2.2.1), and their ranks."""
    build = SCHEMES[config.scheme]
    ranks, kept = plan(model, build, config.speedup, **given)
    name_the_kept("low-rank expansions need a convolution with columns and rows behind the first", ranks, kept)
    return replaced(model, {name: build(model.get_submodule(name), rank) for name, rank in ranks.items()}), ranks


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Expand every layer by its kernel, then fit one after the other to the original outputs; the rest stays frozen (§3)."""
    small, ranks = expand(model, config, **within(task))
    return fit_to_data(small, model, ranks, task, config)


@on_copies
def control_filter(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same factors as they come from the kernels."""
    return expand(model, config, **within(task))[0]


@on_copies
def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same layers as truncated SVDs of the flattened kernels, of as many multiply-adds; the same fit to data."""
    build, narrow = SCHEMES[config.scheme], {}
    for name, rank in plan(model, build, config.speedup, **within(task))[0].items():
        layer = model.get_submodule(name)
        narrow[name] = truncated_svd(layer, max(1, round(rank * work(layer, build) / work(layer, truncated_svd))))
    return fit_to_data(replaced(model, narrow), model, narrow, task, config)
