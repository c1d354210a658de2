"""CP decomposition (Lebedev et al., ICLR 2015).

A kernel is an array of order four: output maps, input maps, height and width. Non-linear least squares write it as a sum
of R products of four vectors, all vectors at once, which makes the layer a chain of four cheap ones: a 1x1 convolution to
R maps, a column and a row for each map by itself, a 1x1 convolution out of them. One layer after another is replaced
so, and each time the whole network is trained on, at a small rate.

Departures: Gauss-Newton steps are damped (Levenberg-Marquardt), where the toolbox used in the paper bounds their length,
and start from a few sweeps of alternating least squares; the four vectors of a term share its size equally. Ranks follow
from one speed-up for all layers, where the paper sets each by hand. The first convolution stays as it is, and so do grouped
ones, kernels of one column or row, and dense layers. Training is the kit's (Nesterov momentum, a cosine for each layer),
with the rate our own. In a smoke run fewer Gauss-Newton steps and a larger speed-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from methods.kit.layers import along, filled, name_the_kept, ranks_at, replaced, within
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit
from methods.kit.watch import iterations
from methods.low_rank import jaderberg_low_rank as jaderberg

MODES = "tsxy"  # of a kernel: T output maps, S input maps, d rows, d columns
INNER, ENOUGH = 20, 0.03  # conjugate gradients to one Gauss-Newton step: at most so many, until so much of the residual is left
Build = Callable[[nn.Conv2d, int], nn.Sequential]


@dataclass(frozen=True)
class Config:
    speedup: float = 4.0  # multiply-adds of a layer over those of its chain; abstract, there of AlexNet's second convolution
    sweeps: int = 5  # of alternating least squares, to start from
    iterations: int = 50  # Gauss-Newton steps, tried or taken
    rate: float = 1e-4  # of fine-tuning


SMOKE = Config(speedup=12, iterations=10)  # at 4 this network loses little, whoever factors it
SWEEP = (replace(SMOKE, speedup=2), replace(SMOKE, speedup=4), replace(SMOKE, speedup=8), SMOKE)


def reference(task: Task) -> nn.Module:
    """Full convolutions and no shortcuts, like the paper's networks."""
    return trained("vgg_wide", task.name)


# The four factors lie on top of each other in one matrix (T + S + d + d, R): a column holds the four vectors of one term.


def composed(terms: Tensor, shape: torch.Size) -> Tensor:
    """K(t, s, x, y) = sum_r Kt(t, r) Ks(s, r) Kx(x, r) Ky(y, r)."""
    t, s, x, y = terms.split(shape)
    return torch.einsum("xr,yr,sr,tr->tsxy", x, y, s, t)


def contracted(kernel: Tensor, factors: Sequence[Tensor], mode: int) -> Tensor:
    """The kernel times the factors of the other three modes, over which it sums: (length of the mode, R)."""
    rest = [n for n in range(4) if n != mode]
    names = ",".join(f"{MODES[n]}r" for n in rest)
    return torch.einsum(f"{MODES},{names}->{MODES[mode]}r", kernel, *(factors[n] for n in rest))


def overlap(factors: Sequence[Tensor], *without: int) -> Tensor:
    """H, the elementwise product of the Gram matrices of all factors but some: (R, R)."""
    return math.prod(factor.T @ factor for n, factor in enumerate(factors) if n not in without)  # type: ignore[return-value]


def balanced(terms: Tensor, shape: torch.Size) -> Tensor:
    """The same sum, the four vectors of each term of equal length."""
    factors = terms.split(shape)
    lengths = torch.stack([factor.norm(dim=0) for factor in factors])
    scales = lengths.prod(0) ** 0.25 / lengths.clamp_min(1e-300)
    return torch.cat([factor * scale for factor, scale in zip(factors, scales, strict=True)])


def alternate(kernel: Tensor, terms: Tensor, sweeps: int) -> Tensor:
    """Each factor in turn by least squares, the others held: U_n = K_n H_n^-1, H_n without the factor itself."""
    factors = list(terms.split(kernel.shape))
    for _ in iterations(sweeps):
        for mode in range(4):
            inverse = torch.linalg.pinv(overlap(factors, mode), hermitian=True)
            factors[mode] = contracted(kernel, factors, mode) @ inverse
    return balanced(torch.cat(factors), kernel.shape)


def curvature(terms: Tensor, shape: torch.Size) -> Callable[[Tensor], Tensor]:
    """v -> J^T J v, with J the derivative of `composed`: (J^T J v)_n = v_n H_n + U_n sum over m != n of (H_nm * v_m^T U_m)."""
    factors = terms.split(shape)
    blocks = [torch.stack([overlap(factors, n, m) * (n != m) for m in range(4)]) for n in range(4)]
    own = [overlap(factors, n) for n in range(4)]

    def product(v: Tensor) -> Tensor:
        parts = v.split(shape)
        mixed = torch.stack([part.T @ factor for part, factor in zip(parts, factors, strict=True)])
        return torch.cat([parts[n] @ own[n] + factors[n] @ (blocks[n] * mixed).sum(0) for n in range(4)])

    return product


def damped_step(terms: Tensor, shape: torch.Size, gradient: Tensor, damping: Tensor, enough: float = ENOUGH) -> Tensor:
    """(J^T J + damping) p = -gradient by conjugate gradients, preconditioned with the blocks H_n on the diagonal."""
    factors, eye, product = terms.split(shape), torch.eye(terms.shape[1]).to(terms), curvature(terms, shape)
    inverses = [torch.linalg.pinv(overlap(factors, n) + damping * eye, hermitian=True) for n in range(4)]

    def preconditioned(v: Tensor) -> Tensor:
        return torch.cat([part @ inverse for part, inverse in zip(v.split(shape), inverses, strict=True)])

    step, left = torch.zeros_like(terms), -gradient
    ahead = nearer = preconditioned(left)
    size = first = (left * nearer).sum()
    for _ in range(INNER):
        if size <= enough**2 * first:
            break
        pulled = product(ahead) + damping * ahead
        length = size / (ahead * pulled).sum()
        step, left = step + length * ahead, left - length * pulled
        nearer = preconditioned(left)
        before, size = size, (left * nearer).sum()
        ahead = nearer + size / before * ahead
    return step


def gauss_newton(kernel: Tensor, terms: Tensor, most: int) -> Tensor:
    """min || composed - kernel ||^2 over all factors together, less damped after a step that lowers it, more after one that fails."""
    shape, error = kernel.shape, composed(terms, kernel.shape) - kernel
    damping = torch.stack([overlap(terms.split(shape), n) for n in range(4)]).max()
    for _ in iterations(most):
        gradient = torch.cat([contracted(error, terms.split(shape), n) for n in range(4)])  # J^T error
        moved = terms + damped_step(terms, shape, gradient, damping)
        after = composed(moved, shape) - kernel
        if after.norm() < error.norm():
            terms, error, damping = moved, after, damping / 3
        else:
            damping = 4 * damping
    return terms


@torch.no_grad()
def cp(kernel: Tensor, rank: int, config: Config) -> Tensor:
    """The terms of a CP decomposition, in float64: (T + S + d + d, R)."""
    kernel = kernel.double()
    start = torch.randn(sum(kernel.shape), rank, generator=torch.Generator().manual_seed(0)).to(kernel)
    return balanced(gauss_newton(kernel, alternate(kernel, start, config.sweeps), config.iterations), kernel.shape)


def chain(layer: nn.Conv2d, terms: Tensor) -> nn.Sequential:
    """1x1 S -> R, a column and a row for each of R maps, 1x1 R -> T with the bias; stride and padding go with column and row."""
    (outputs, inputs), rank = layer.weight.shape[:2], terms.shape[1]
    t, s, x, y = terms.split(layer.weight.shape)
    column, row = (along(layer, axis, rank, rank, groups=rank, bias=False) for axis in (0, 1))
    first, last = nn.Conv2d(inputs, rank, 1, bias=False), nn.Conv2d(rank, outputs, 1, bias=layer.bias is not None)
    return filled(layer, [first, column, row, last], [s.T, x.T, y.T, t])


def work(layer: nn.Conv2d) -> int:
    """Multiply-adds for one output position and one term, S + 2d + T; with a stride, maps are larger before column and row."""
    outputs, inputs, d, e = layer.weight.shape
    down, across = layer.stride
    return down * across * inputs + across * d + e + outputs


def plan(model: nn.Module, speedup: float, **given: Any) -> tuple[dict[str, int], dict[str, str]]:
    """The rank of every layer that gets so much cheaper, and the reason why each other layer stays as it is."""
    return ranks_at(model, speedup, work, "the first convolution, with few maps to factorise", **given)


def one_after_another(model: nn.Module, ranks: Mapping[str, int], build: Build, task: Task, rate: float) -> nn.Module:
    """Replace a layer, train the whole network on for its share of the steps, go on to the next layer as training has left it."""
    for turn, (name, rank) in enumerate(ranks.items()):
        model = replaced(model, {name: build(model.get_submodule(name), rank)})
        fresh = replace(task, seed=len(ranks) * task.seed + turn)
        model = fit(model, fresh, share=1 / len(ranks), lr=rate)
    return model


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Decompose a layer, fine-tune the network, and so on from the second convolution to the last."""
    ranks, kept = plan(model, config.speedup, **within(task))
    name_the_kept("CP decomposition needs a convolution with columns and rows behind the first", ranks, kept)
    return one_after_another(model, ranks, lambda layer, rank: chain(layer, cp(layer.weight, rank, config)), task, config.rate)


BOLD = 3e-3  # rate at which the controls' factors gain most; those of the method do not survive it


@on_copies
def control_jaderberg(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same layers as columns and rows of as many multiply-adds; the same steps, at a rate that these bear and gain by."""

    def build(layer: nn.Conv2d, rank: int) -> nn.Sequential:
        return jaderberg.scheme2(layer, max(1, round(rank * work(layer) / jaderberg.work(layer, jaderberg.scheme2))))

    return one_after_another(model, plan(model, config.speedup, **within(task))[0], build, task, BOLD)
