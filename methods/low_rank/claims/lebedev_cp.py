"""The claims of CP decomposition."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import tensorly as tl
import torch
import torch.nn.functional as F
from scipy.optimize import least_squares, linear_sum_assignment
from tensorly.cp_tensor import CPTensor
from tensorly.decomposition import parafac
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import replaced
from methods.kit.measure import multiply_adds
from methods.kit.nets import count
from methods.kit.task import Task
from methods.kit.testing import convolutions, relative_error, won_back
from methods.kit.train import fit
from methods.low_rank import lebedev_cp as method


@torch.no_grad()
def claim_chain_equals_sum_of_terms(lab: Lab) -> list[float]:
    """Largest difference from the layer whose kernel numpy adds up term by term, relative to the largest output."""
    torch.manual_seed(0)
    found, images = list[float](), torch.randn(2, 6, 11, 12)
    for layer in convolutions():
        terms = method.cp(layer.weight, 7, method.Config(iterations=3))
        small = method.chain(layer, terms)
        t, s, x, y = (factor.numpy().T for factor in terms.split(layer.weight.shape))
        kernel = sum(np.multiply.outer(np.outer(t[r], s[r]), np.outer(x[r], y[r])) for r in range(7))
        layer.weight.copy_(torch.from_numpy(kernel))
        found.append(relative_error(small(images), layer(images)))
    return found


def claim_cost_formula(lab: Lab) -> list[float]:
    """Largest difference from R (S + 2d + T) parameters and as many multiply-adds a place; with a stride the first ones at more places."""
    found = list[float]()
    for s, t, d, rank, (down, across) in ((16, 32, 3, 5, (1, 1)), (8, 12, 5, 3, (2, 2)), (6, 20, 3, 4, (3, 2))):
        layer = nn.Conv2d(s, t, d, (down, across), d // 2, bias=False)
        small, places = method.chain(layer, torch.ones(s + t + 2 * d, rank)), 12 * 12 / down / across
        formula = rank * (12 * 12 * s + places * (across * d + d + t))
        executed = multiply_adds(small, torch.zeros(1, s, 12, 12))
        found += [abs(count(small) - rank * (s + 2 * d + t)), abs(executed - formula), abs(method.work(layer) * rank * places - formula)]
    return found


def claim_each_layer_its_rank(lab: Lab) -> float:
    """How many layers of a network are planned wrongly, or get chains that are not as many times faster as asked."""
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(8, 10, 3)), nn.Conv2d(10, 24, 3, stride=2), nn.Conv2d(24, 24, 3, groups=2), nn.Conv2d(24, 18, 1),
        nn.Conv2d(18, 12, (1, 5)), nn.Conv2d(12, 16, (5, 3)), nn.Conv2d(16, 1, 2), nn.ConvTranspose2d(1, 9, 3), nn.Linear(40, 30),
    )  # fmt: skip
    ranks, kept = method.plan(model, 4.0)
    wrong = (list(ranks) != ["1", "5"]) + (set(kept) != {"0.0", "2", "3", "4", "6", "7", "8"})
    for name, rank in ranks.items():
        layer = model.get_submodule(name)
        image = torch.zeros(1, layer.in_channels, 80, 81)
        chains = [method.chain(layer, torch.ones(sum(layer.weight.shape), r)) for r in (rank, rank + 1)]
        faster = [multiply_adds(layer, image) / multiply_adds(small, image) for small in chains]
        wrong += not faster[0] >= 3.85 > faster[1]  # the first parts of a chain meet some more places at the borders of a map
    return wrong


def planted(shape: tuple[int, ...], rank: int, noise: float = 0.0, alike: float = 0.0) -> tuple[Tensor, Tensor]:
    """A kernel that is a sum of random terms, under white noise, and its terms; `alike` makes the vectors of a mode point the same way."""
    terms = torch.cat([torch.randn(n, rank) + alike * torch.randn(n, 1) for n in shape]).double()
    kernel = method.composed(terms, torch.Size(shape))
    return kernel + noise * kernel.std() * torch.randn(shape), terms


def misfit(kernel: Tensor, terms: Tensor) -> float:
    """Distance of the kernel from the sum of terms."""
    return float((method.composed(terms, kernel.shape) - kernel).norm())


def claim_planted_terms_recovered(lab: Lab) -> list[float]:
    """Largest distance from 1 of the cosine between a planted term and the one found for it, each kept whole."""
    torch.manual_seed(0)
    errors = list[float]()
    for shape, rank in (((9, 8, 3, 3), 5), ((6, 10, 3, 5), 4), ((12, 7, 5, 5), 6)):
        kernel, wanted = planted(shape, rank)
        found = method.cp(kernel.float(), rank, method.Config(iterations=30))  # whose rounding is all that may be left
        one, other = (
            torch.stack([method.composed(terms[:, r : r + 1], kernel.shape).flatten() for r in range(rank)]) for terms in (wanted, found)
        )
        cosines = (one @ other.T / torch.outer(one.norm(dim=1), other.norm(dim=1))).numpy()
        errors += [1 - cosines[linear_sum_assignment(-cosines)].min(), misfit(kernel, found) / float(kernel.norm())]
    return [*errors, float(method.cp(torch.zeros(3, 4, 3, 3), 2, method.Config()).norm())]  # nothing is planted there


def claim_steps_are_damped_gauss_newton(lab: Lab) -> list[float]:
    """Largest relative difference of gradient, J^T J v and step from those of a Jacobian by central differences."""
    torch.manual_seed(0)
    errors = list[float]()
    for shape, rank in (((3, 2, 2, 2), 2), ((2, 3, 1, 2), 2)):
        size, kernel = torch.Size(shape), torch.randn(shape).double()
        terms, v = torch.randn(2, sum(shape), rank).double()
        moves = 1e-4 * torch.eye(terms.numel()).double().view(-1, *terms.shape)
        jacobian = torch.stack(
            [(method.composed(terms + h, size) - method.composed(terms - h, size)).flatten() / 2e-4 for h in moves], 1
        ).numpy()
        error = (method.composed(terms, size) - kernel).flatten().numpy()
        gradient = torch.cat([method.contracted(torch.from_numpy(error).view(shape), terms.split(shape), mode) for mode in range(4)])
        wide = np.vstack([jacobian, np.sqrt(0.7) * np.eye(terms.numel())])
        step = np.linalg.lstsq(wide, np.append(-error, np.zeros(terms.numel())))[0]
        for found, wanted in (
            (gradient, jacobian.T @ error),
            (method.curvature(terms, size)(v), jacobian.T @ (jacobian @ v.flatten().numpy())),
            (method.damped_step(terms, size, gradient, torch.tensor(0.7), enough=1e-12), step),
        ):
            errors.append(relative_error(found.flatten(), torch.from_numpy(wanted)))
    return errors


def als(kernel: Tensor, rank: int, sweeps: int) -> float:
    """Error that tensorly's alternating least squares leave from where `cp` starts."""
    start = torch.randn(sum(kernel.shape), rank, generator=torch.Generator().manual_seed(0)).double()
    factors = [factor.numpy() for factor in start.split(kernel.shape)]
    with tl.backend_context("numpy"):
        found = parafac(kernel.numpy(), rank, n_iter_max=sweeps, init=CPTensor((np.ones(rank), factors)), tol=0)
        return float(np.linalg.norm(kernel.numpy() - tl.cp_to_tensor(found)))


def claim_starts_from_als(lab: Lab) -> float:
    """Relative difference of the error where the Gauss-Newton steps start from that of as many of tensorly's sweeps."""
    torch.manual_seed(0)
    kernel = planted((10, 8, 3, 4), 4, noise=0.1)[0]
    return abs(misfit(kernel, method.cp(kernel, 4, method.Config(iterations=0))) / als(kernel, 4, 5) - 1)


def claim_no_worse_than_als(lab: Lab) -> list[float]:
    """Largest ratio of the kernel's error to that of tensorly's alternating least squares from the same start, in as many rounds."""
    ratios = []
    for seed, alike in ((0, 2.0), (0, 3.0), (1, 3.0)):  # vectors of a mode point nearly the same way, where alternating gets stuck
        torch.manual_seed(seed)
        kernel = planted((10, 8, 3, 3), 4, noise=0.02, alike=alike)[0]
        ratios.append(misfit(kernel, method.cp(kernel, 4, method.Config())) / als(kernel, 4, 55))
    return list(ratios)


def claim_no_step_raises_error(lab: Lab) -> list[float]:
    """Largest ratio of the kernel's error after a step, taken or not, to that before it, starting near a solution."""
    torch.manual_seed(0)
    kernel, wanted = planted((10, 8, 3, 3), 6, noise=0.1, alike=1.0)
    terms = wanted + 0.5 * torch.randn_like(wanted)
    errors = [misfit(kernel, method.gauss_newton(kernel, terms, steps)) for steps in range(12)]
    return [after / before for before, after in pairwise(errors)]


def claim_nothing_better_nearby(lab: Lab) -> float:
    """Relative part of the squared error that scipy's least squares can still take away, from where ours have ended."""
    torch.manual_seed(0)
    kernel = planted((5, 4, 3, 3), 2, noise=0.3)[0]
    terms = method.cp(kernel, 2, method.Config())

    def errors(flat: np.ndarray) -> np.ndarray:
        return (method.composed(torch.from_numpy(flat).view(terms.shape), kernel.shape) - kernel).flatten().numpy()

    return float(1 - 2 * least_squares(errors, terms.flatten().numpy()).cost / misfit(kernel, terms) ** 2)


def greedy(layer: nn.Conv2d, rank: int) -> nn.Sequential:
    """One term after the other, each the best for what those before it leave."""
    left, terms = layer.weight.detach().double(), list[Tensor]()
    for seed in range(rank):
        start = torch.randn(sum(left.shape), 1, generator=torch.Generator().manual_seed(seed)).to(left)
        terms.append(method.alternate(left, start, 10))
        left = left - method.composed(terms[-1], left.shape)
    return method.chain(layer, torch.cat(terms, 1))


@torch.no_grad()
def claim_beats_greedy_fit(lab: Lab) -> list[float]:
    """Largest ratio of the kernel's error to that of as many terms fitted one after the other."""
    torch.manual_seed(0)
    ratios, images = [], torch.eye(8).double()[:, :, None, None]
    for rank in (3, 4):
        layer = nn.Conv2d(8, 10, 3, padding=1, bias=False).double()
        layer.weight.copy_(kernel := planted((10, 8, 3, 3), rank, noise=0.1)[0])
        ours, theirs = (
            build(F.pad(images, [1] * 4)) for build in (method.chain(layer, method.cp(kernel, rank, method.Config())), greedy(layer, rank))
        )
        wanted = layer(F.pad(images, [1] * 4))
        ratios.append(float((ours - wanted).norm() / (theirs - wanted).norm()))
    return list(ratios)


@torch.no_grad()
def claim_vectors_share_size(lab: Lab) -> list[float]:
    """Largest relative difference of the lengths of a term's four vectors, where the steps start and in the layers returned."""
    torch.manual_seed(0)
    layer, found = nn.Conv2d(8, 10, 3), list[float]()
    for terms in (
        method.alternate(layer.weight.double(), torch.randn(24, 6).double(), 3),
        method.cp(layer.weight, 6, method.Config(iterations=5)),
    ):
        into, column, row, out = (part.weight for part in method.chain(layer, terms))
        lengths = torch.stack([weight.flatten(1).norm(dim=1) for weight in (into, column, row, out.transpose(0, 1))])
        found.append(float((lengths.max(0).values / lengths.min(0).values - 1).max()))
    return found


def claim_one_layer_after_another(lab: Lab) -> float:
    """How many training steps see another number of chains than they should, or layers are not trained."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    seen, images = list[int](), list[Tensor]()

    def watch(net: nn.Module, inputs: tuple[Tensor]) -> None:
        if net.training:
            seen.append(sum(isinstance(part, nn.Sequential) for part in net))
            images.append(inputs[0])

    model.register_forward_pre_hook(watch)
    batch = [(torch.randn(40, 3, 9, 9), torch.randint(4, (40,)))]
    task = Task.from_loaders(batch, batch, batch, steps=6, batch=4)
    small = method.compress(model, task, method.Config(speedup=1, iterations=3, rate=0.1))
    untrained = replaced(
        model, {"2": method.chain(model[2], method.cp(model[2].weight, len(small[2][0].weight), method.Config(iterations=3)))}
    )
    method.compress(model, replace(task, seed=1), method.Config(speedup=1, iterations=3, rate=0.1))
    wrong = (seen != 2 * (3 * [1] + 3 * [2])) + (len({float(x.sum()) for x in images[::3]}) < 4)
    wrong += sum(torch.equal(after, before) for after, before in zip(small[2].parameters(), untrained[2].parameters(), strict=True))
    return wrong + torch.equal(small[0].weight, model[0].weight) + torch.equal(small[7].weight, model[7].weight)


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_fine_tuning_restores(lab: Lab) -> float:
    """Share of the accuracy lost in the decomposition of all layers that fine-tuning wins back."""
    ranks = method.plan(lab.reference, lab.config.speedup)[0]
    layers = {name: lab.reference.get_submodule(name) for name in ranks}
    untuned = replaced(
        lab.reference, {name: method.chain(layer, method.cp(layer.weight, ranks[name], lab.config)) for name, layer in layers.items()}
    )
    cut = lab.score(untuned)
    return won_back(lab, cut)


def claim_large_rates_destroy(lab: Lab) -> float:
    """Accuracy that a quarter of the steps at the rate of the controls take away again."""
    shaken = fit(copy.deepcopy(lab.compressed), lab.task, share=0.25, lr=method.BOLD)
    return lab.after.accuracy - lab.score(shaken)


def claim_beats_jaderberg(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("jaderberg").accuracy


def claim_beats_greedy(lab: Lab) -> float:
    """The same ranks, fitted greedily; the same steps, at a rate that these factors bear and gain by."""
    net = method.one_after_another(lab.reference, method.plan(lab.reference, lab.config.speedup)[0], greedy, lab.task, method.BOLD)
    return lab.after.accuracy - lab.score(net)


def claim_second_layer_four_times_faster(lab: Lab) -> float:
    """Accuracy lost when only the second convolution is decomposed."""
    name, rank = next(iter(method.plan(lab.reference, 4.0)[0].items()))
    config = method.Config(iterations=lab.config.iterations)
    small = method.one_after_another(
        lab.reference, {name: rank}, lambda layer, r: method.chain(layer, method.cp(layer.weight, r, config)), lab.task, config.rate
    )
    return lab.before.accuracy - lab.score(small)
