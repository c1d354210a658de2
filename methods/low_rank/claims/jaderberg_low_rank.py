"""The claims of Low-rank expansions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import tensorly as tl
import torch
from tensorly.decomposition import parafac
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import (
    replaced,
    responses,
    run,
    truncated_svd,
)  # fmt: skip
from methods.kit.measure import multiply_adds
from methods.kit.testing import convolutions, images_only, relative_error
from methods.low_rank import jaderberg_low_rank as method


@torch.no_grad()
def claim_best_of_its_rank(lab: Lab) -> list[float]:
    """Largest relative difference of the kernel's squared error from the spectrum that numpy says must be dropped."""
    torch.manual_seed(0)
    found = list[float]()
    for layer, rank in ((nn.Conv2d(5, 8, 3).double(), 4), (nn.Conv2d(7, 3, (3, 5)).double(), 9), (nn.Conv2d(4, 4, 2).double(), 1)):
        columns, rows = (part.weight.numpy() for part in method.scheme2(layer, rank))
        kernel = layer.weight.numpy()
        error = sum(float(np.square(kernel[n, c] - columns[:, c, :, 0].T @ rows[n, :, 0]).sum()) for n, c in np.ndindex(kernel.shape[:2]))
        matrix = np.block([[kernel[n, c] for n in range(len(kernel))] for c in range(kernel.shape[1])])
        dropped = float(np.square(np.linalg.svd(matrix, compute_uv=False)[rank:]).sum())
        found.append(abs(error / dropped - 1))
    return found


def separable(layer: nn.Conv2d, build: method.Build, rank: int) -> Tensor:
    """A kernel for the layer that the scheme can express at the rank."""
    n, c, d, e = layer.weight.shape
    if build is method.scheme1:
        return torch.einsum("cmi,cmj,ncm->ncij", torch.randn(c, rank, d), torch.randn(c, rank, e), torch.randn(n, c, rank))
    return torch.einsum("kci,nkj->ncij", torch.randn(rank, c, d), torch.randn(n, rank, e))


@torch.no_grad()
def claim_separable_kernels_reproduced(lab: Lab) -> list[float]:
    """Largest difference of the outputs, relative to the largest output; with a full rank for any kernel."""
    torch.manual_seed(0)
    errors, images = list[float](), torch.randn(2, 6, 12, 13)
    for layer, build in product(convolutions(), (method.scheme2, truncated_svd)):
        errors.append(relative_error(build(layer, 99)(images), layer(images)))
    several = (nn.Conv2d(6, 16, 5), (method.scheme1, 2))  # in smaller windows the sweeps may stop before they have told terms apart
    for layer, (build, rank) in (*product(convolutions(), ((method.scheme1, 1), (method.scheme2, 1), (method.scheme2, 5))), several):
        layer.weight.copy_(separable(layer, build, rank))
        errors.append(relative_error(build(layer, rank)(images), layer(images)))
    return errors


@torch.no_grad()
def claim_basis_as_good_as_parafac(lab: Lab) -> list[float]:
    """Largest ratio of the error that a basis leaves in a channel's kernels to that of tensorly's CP decomposition."""
    torch.manual_seed(0)
    ratios = []
    for layer, m in ((nn.Conv2d(3, 12, 3).double(), 2), (nn.Conv2d(2, 20, (4, 5)).double(), 3)):
        columns, rows, mix = (part.weight for part in method.scheme1(layer, m))
        for c, part in enumerate(layer.weight.unbind(1)):
            mine = slice(c * m, (c + 1) * m)
            ours = torch.einsum("nm,mi,mj->nij", mix[:, mine, 0, 0], columns[mine, 0, :, 0], rows[mine, 0, 0])
            with tl.backend_context("numpy"):
                theirs = tl.cp_to_tensor(parafac(part.numpy(), m, n_iter_max=200, tol=1e-12, init="svd"))
            ratios.append(float((part - ours).norm() / np.linalg.norm(part.numpy() - theirs)))
    return list(ratios)


def claim_cost_formula(lab: Lab) -> list[float]:
    """Largest difference from M C (2 d + N) and K d (C + N) multiply-adds a place; with strides, columns run before the row's."""
    errors = list[float]()
    for c, n, d, rank, stride in ((16, 32, 3, 2, 1), (8, 12, 5, 3, 1), (6, 20, 3, 4, (3, 2))):
        layer, image = nn.Conv2d(c, n, d, stride, d // 2), torch.zeros(1, c, 12, 12)
        down, across = layer.stride
        places, between = 12 * 12 / down / across, 12 * 12 / down  # H'W' and H'W
        formulas = {
            method.scheme1: rank * c * d * between + rank * c * (d + n) * places,
            method.scheme2: rank * c * d * between + rank * n * d * places,
            truncated_svd: rank * (c * d * d + n) * places,
        }
        for build, formula in formulas.items():
            found = multiply_adds(build(layer, rank), image)
            errors += [abs(found - formula), abs(method.work(layer, build) * rank * places - formula)]
    return errors


def claim_each_layer_its_rank(lab: Lab) -> float:
    """How many layers of a network are planned wrongly, or get factors that are not as many times faster as asked."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(8, 10, 3)), nn.Conv2d(10, 24, 3, stride=2), nn.Conv2d(24, 24, 3, groups=2), nn.Conv2d(24, 18, 1),
        nn.Conv2d(18, 12, (1, 5)), nn.Conv2d(12, 16, (5, 3)), nn.Conv2d(16, 1, 2), nn.ConvTranspose2d(1, 9, 3), nn.Linear(40, 30),
    )  # fmt: skip
    wrong = 0
    for scheme, build in method.SCHEMES.items():
        ranks, kept = method.plan(model, build, 3.0)
        small, same = method.expand(model, method.Config(scheme=scheme, speedup=3.0))
        wrong += (list(ranks) != ["1", "5"]) + (ranks != same) + (set(kept) != {"0.0", "2", "3", "4", "6", "7", "8"})
        for name, rank in ranks.items():
            layer = model.get_submodule(name)
            image = torch.zeros(1, layer.in_channels, 7, 150)
            faster = [multiply_adds(layer, image) / multiply_adds(build(layer, r), image) for r in (rank, rank + 1)]
            wrong += not faster[0] >= 2.95 > faster[1]  # columns meet some more places at the borders of a map
            wrong += len(small.get_submodule(name)) != {1: 3, 2: 2}[scheme]  # columns, rows, and in scheme 1 a mixture
    twice = replaced(nn.Sequential(shared := nn.Conv2d(8, 8, 3), shared), {"0": method.scheme2(shared, 2)})
    return wrong + (twice[0] is not twice[1])


@torch.no_grad()
def claim_ignores_what_data_never_show(lab: Lab) -> float:
    """Output error left by the fit, of that of the kernel's own factors, where inputs fill few of the dimensions."""
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 3, padding=1)
    model = nn.Sequential(nn.Dropout(), layer, nn.ReLU(inplace=True), layer)  # what comes in the second time is another matter
    images = torch.einsum("cs,nshw->nchw", torch.randn(6, 2), torch.randn(64, 2, 6, 6))
    factors = method.scheme2(layer, 6)  # two dimensions of three rows each: an exact answer exists
    start = float((factors(images) - layer(images)).norm())
    small = method.fit_to_data(
        replaced(model, {"1": factors}), model, ["1"], images_only(images), method.Config(iterations=20, batch=64, lr=0.03)
    )
    return float((small[1](images) - layer(images)).norm()) / start


@torch.no_grad()
def claim_data_beats_filter(lab: Lab) -> float:
    """Output error of the layers on held-out images, of that without the fit to data: the geometric mean over layers."""
    images, names = (
        lab.held_out(128).images.to(lab.task.device),
        method.plan(lab.reference, method.SCHEMES[lab.config.scheme], lab.config.speedup)[0],
    )
    wanted, fitted, start = (responses(model, images, names) for model in (lab.reference, lab.compressed, lab.controlled("filter")))
    ratios = [float((fitted[name] - wanted[name]).norm() / (start[name] - wanted[name]).norm()) for name in names]
    return float(np.exp(np.mean(np.log(ratios))))


@torch.no_grad()
def claim_makes_up_for_earlier_layers(lab: Lab) -> float:
    """Error of the logits on held-out images, of that when every layer is fitted on the original network's inputs."""
    task, (apart, names) = lab.task, method.expand(lab.reference, lab.config)

    def fit_apart(name: str, x: Tensor, y: Tensor) -> None:
        method.reconstruct(apart.get_submodule(name), lambda step: (x, y), lab.config, task.seed)

    run(lab.reference, task.train.first(lab.config.images).images.to(task.device), fit_apart, names)
    images = lab.held_out(256).images.to(task.device)
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
    small = method.compress(lab.reference, lab.task, replace(lab.config, speedup=float(case)))
    return lab.before.accuracy - lab.score(small)
