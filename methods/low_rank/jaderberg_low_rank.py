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

import numpy as np
import tensorly as tl
import torch
import torch.nn.functional as F
from tensorly.decomposition import parafac
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import (
    along,
    filled,
    gathered,
    in_parts,
    name_the_kept,
    ranks_at,
    replaced,
    responses,
    run,
    truncated_svd,
    within,
)  # fmt: skip
from methods.kit.measure import multiply_adds
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.testing import images_only
from methods.kit.train import minimise

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

    for _ in range(sweeps):
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
    chance = torch.Generator().manual_seed(seed)  # equivalent: other batches of the same images

    def loss(step: int) -> Tensor:
        x, target = pairs(step)
        pick = torch.randint(len(x), (config.batch,), generator=chance)
        return F.mse_loss(factors(x[pick]), target[pick])  # equivalent: symmetric

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


@torch.no_grad()
def claim_best_of_its_rank(lab: Lab) -> float:
    """Largest relative difference of the kernel's squared error from the spectrum that numpy says must be dropped."""
    torch.manual_seed(0)
    worst = 0.0
    for layer, rank in ((nn.Conv2d(5, 8, 3).double(), 4), (nn.Conv2d(7, 3, (3, 5)).double(), 9), (nn.Conv2d(4, 4, 2).double(), 1)):
        columns, rows = (part.weight.numpy() for part in scheme2(layer, rank))
        kernel = layer.weight.numpy()
        error = sum(float(np.square(kernel[n, c] - columns[:, c, :, 0].T @ rows[n, :, 0]).sum()) for n, c in np.ndindex(kernel.shape[:2]))
        matrix = np.block([[kernel[n, c] for n in range(len(kernel))] for c in range(kernel.shape[1])])
        dropped = float(np.square(np.linalg.svd(matrix, compute_uv=False)[rank:]).sum())
        worst = max(worst, abs(error / dropped - 1))
    return worst


Case = tuple[nn.Conv2d, Build, int]


def separable(layer: nn.Conv2d, build: Build, rank: int) -> Case:
    """The layer with a kernel that the scheme can express at the rank."""
    n, c, d, e = layer.weight.shape
    if build is scheme1:
        layer.weight.data = torch.einsum("cmi,cmj,ncm->ncij", torch.randn(c, rank, d), torch.randn(c, rank, e), torch.randn(n, c, rank))
    else:
        layer.weight.data = torch.einsum("kci,nkj->ncij", torch.randn(rank, c, d), torch.randn(n, rank, e))
    return layer, build, rank


@torch.no_grad()
def claim_separable_kernels_reproduced(lab: Lab) -> float:
    """Largest difference of the outputs, relative to the largest output; with a full rank for any kernel."""
    torch.manual_seed(0)
    worst, images = 0.0, torch.randn(2, 6, 12, 13)
    cases: list[Case] = [
        separable(nn.Conv2d(6, 8, 3, stride=(2, 1), padding=(1, 2)), scheme2, 5),
        separable(nn.Conv2d(6, 9, (3, 5), padding=2, dilation=(1, 2), bias=False), scheme2, 1),
        separable(nn.Conv2d(6, 8, (2, 3), padding="same", padding_mode="circular"), scheme2, 4),
        separable(nn.Conv2d(6, 10, 3, stride=(1, 2), padding=(2, 1)), scheme1, 1),
        separable(nn.Conv2d(6, 12, (3, 4), dilation=(2, 1), bias=False), scheme1, 2),
        separable(nn.Conv2d(6, 16, 5, padding="valid"), scheme1, 3),
        (nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), scheme2, 40),
        (nn.Conv2d(6, 8, 3, stride=2, padding=(1, 0)), truncated_svd, 40),
        (nn.Conv2d(6, 9, 3, dilation=2, padding=2, padding_mode="circular", bias=False), truncated_svd, 9),
    ]
    for layer, build, rank in cases:
        found, wanted = build(layer, rank)(images), layer(images)
        worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return worst


@torch.no_grad()
def claim_basis_as_good_as_parafac(lab: Lab) -> float:
    """Largest ratio of the error that a basis leaves in a channel's kernels to that of tensorly's CP decomposition."""
    torch.manual_seed(0)
    ratios = []
    for layer, m in ((nn.Conv2d(3, 12, 3).double(), 2), (nn.Conv2d(2, 20, (4, 5)).double(), 3)):
        columns, rows, mix = (part.weight for part in scheme1(layer, m))
        for c, part in enumerate(layer.weight.unbind(1)):
            mine = slice(c * m, (c + 1) * m)
            ours = torch.einsum("nm,mi,mj->nij", mix[:, mine, 0, 0], columns[mine, 0, :, 0], rows[mine, 0, 0])
            with tl.backend_context("numpy"):
                theirs = tl.cp_to_tensor(parafac(part.numpy(), m, n_iter_max=200, tol=1e-12, init="svd"))
            ratios.append(float((part - ours).norm() / np.linalg.norm(part.numpy() - theirs)))
    return max(ratios)


def claim_cost_formula(lab: Lab) -> float:
    """Largest difference from M C (2 d + N) and K d (C + N) multiply-adds a place; with strides, columns run before the row's."""
    worst = 0.0
    for c, n, d, rank, stride in ((16, 32, 3, 2, 1), (8, 12, 5, 3, 1), (6, 20, 3, 4, (3, 2))):
        layer, image = nn.Conv2d(c, n, d, stride, d // 2), torch.zeros(1, c, 12, 12)
        down, across = layer.stride
        places, between = 12 * 12 / down / across, 12 * 12 / down  # H'W' and H'W
        formulas = {
            scheme1: rank * c * d * between + rank * c * (d + n) * places,
            scheme2: rank * c * d * between + rank * n * d * places,
            truncated_svd: rank * (c * d * d + n) * places,
        }
        for build, formula in formulas.items():
            found = multiply_adds(build(layer, rank), image)
            worst = max(worst, abs(found - formula), abs(work(layer, build) * rank * places - formula))
    return worst


def claim_each_layer_its_rank(lab: Lab) -> float:
    """How many layers of a network are planned wrongly, or get factors that are not as many times faster as asked."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(8, 10, 3)), nn.Conv2d(10, 24, 3, stride=2), nn.Conv2d(24, 24, 3, groups=2), nn.Conv2d(24, 18, 1),
        nn.Conv2d(18, 12, (1, 5)), nn.Conv2d(12, 16, (5, 3)), nn.Conv2d(16, 1, 2), nn.ConvTranspose2d(1, 9, 3), nn.Linear(40, 30),
    )  # fmt: skip
    wrong = 0
    for scheme, build in SCHEMES.items():
        ranks, kept = plan(model, build, 3.0)
        small, same = expand(model, Config(scheme=scheme, speedup=3.0))
        wrong += (list(ranks) != ["1", "5"]) + (ranks != same) + (set(kept) != {"0.0", "2", "3", "4", "6", "7", "8"})
        for name, rank in ranks.items():
            layer = model.get_submodule(name)
            image = torch.zeros(1, layer.in_channels, 7, 150)
            faster = [multiply_adds(layer, image) / multiply_adds(build(layer, r), image) for r in (rank, rank + 1)]
            wrong += not faster[0] >= 2.95 > faster[1]  # columns meet some more places at the borders of a map
            wrong += len(small.get_submodule(name)) != {1: 3, 2: 2}[scheme]  # columns, rows, and in scheme 1 a mixture
    twice = replaced(nn.Sequential(shared := nn.Conv2d(8, 8, 3), shared), {"0": scheme2(shared, 2)})
    return wrong + (twice[0] is not twice[1])


@torch.no_grad()
def claim_ignores_what_data_never_show(lab: Lab) -> float:
    """Output error left by the fit, of that of the kernel's own factors, where inputs fill few of the dimensions."""
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 3, padding=1)
    model = nn.Sequential(nn.Dropout(), layer, nn.ReLU(inplace=True), layer)  # what comes in the second time is another matter
    images = torch.einsum("cs,nshw->nchw", torch.randn(6, 2), torch.randn(64, 2, 6, 6))
    factors = scheme2(layer, 6)  # two dimensions of three rows each: an exact answer exists
    start = float((factors(images) - layer(images)).norm())
    small = fit_to_data(replaced(model, {"1": factors}), model, ["1"], images_only(images), Config(iterations=20, batch=64, lr=0.03))
    return float((small[1](images) - layer(images)).norm()) / start


@torch.no_grad()
def claim_data_beats_filter(lab: Lab) -> float:
    """Output error of the layers on held-out images, of that without the fit to data: the geometric mean over layers."""
    images, names = lab.task.test.images[:128].to(lab.task.device), plan(lab.reference, SCHEMES[lab.config.scheme], lab.config.speedup)[0]
    wanted, fitted, start = (responses(model, images, names) for model in (lab.reference, lab.compressed, lab.controlled("filter")))
    ratios = [float((fitted[name] - wanted[name]).norm() / (start[name] - wanted[name]).norm()) for name in names]
    return float(np.exp(np.mean(np.log(ratios))))


@torch.no_grad()
def claim_makes_up_for_earlier_layers(lab: Lab) -> float:
    """Error of the logits on held-out images, of that when every layer is fitted on the original network's inputs."""
    task, (apart, names) = lab.task, expand(lab.reference, lab.config)

    def fit_apart(name: str, x: Tensor, y: Tensor) -> None:
        reconstruct(apart.get_submodule(name), lambda step: (x, y), lab.config, task.seed)

    run(lab.reference, task.train.first(lab.config.images).images.to(task.device), fit_apart, names)
    images = task.test.images[:256].to(task.device)
    wanted = lab.reference(images)
    return float((lab.compressed(images) - wanted).norm() / (apart(images) - wanted).norm())


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_beats_filter_accuracy(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("filter").accuracy


def claim_beats_truncated_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy


def claim_keeps_accuracy(lab: Lab, case: str) -> float:
    """Accuracy lost at a speed-up."""
    small = compress(lab.reference, lab.task, replace(lab.config, speedup=float(case)))
    return lab.before.accuracy - lab.task.score(small, lab.task.test)
