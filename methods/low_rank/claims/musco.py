"""The claims of MUSCO."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product

import tensorly as tl
import torch
from tensorly.decomposition import partial_tucker
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import Layer
from methods.kit.measure import multiply_adds
from methods.kit.task import Split, Task
from methods.kit.testing import convolutions, relative_error
from methods.low_rank import musco as method
from methods.low_rank.kim_tucker import Ranks, decomposed, tucker2

POINTS = [(16, 8, 0.0, 2, 16), (16, 8, 1.0, 2, 8), (16, 8, 0.5, 2, 12), (16, 8, 1.0, 10, 10)]  # R, extreme, w, floor: the authors' tests


def claim_weakened_rank_formula(lab: Lab) -> list[float]:
    """Most by which a rank is off: at the authors' points, and in exact arithmetic wherever a rank may move."""
    wrong = [abs(method.weakened(rank, extreme, method.Config(w, floor=floor)) - found) for rank, extreme, w, floor, found in POINTS]
    for w, rank in product(("0.3", "0.7", "0.9"), range(22, 130, 9)):
        exact = {extreme: max(21, math.floor(rank - Fraction(w) * (rank - extreme))) for extreme in range(1, rank + 1)}
        wrong += [abs(method.weakened(rank, extreme, method.Config(float(w))) - found) for extreme, found in exact.items()]
    stay = [(rank, extreme) for rank in range(1, 22) for extreme in range(rank + 1)] + [(rank, 0) for rank in range(22, 99)]
    return [*wrong, *(abs(method.weakened(rank, extreme, method.Config()) - rank) for rank, extreme in stay)]


def planted(layer: Layer, r3: int | None, r4: int, noise: float = 0.03) -> Layer:
    """The layer with a kernel of these channel ranks, under a little white noise."""
    (outputs, inputs), window = layer.weight.shape[:2], layer.weight.shape[2:]
    inward = torch.linalg.qr(torch.randn(inputs, r3))[0].T if r3 else torch.eye(inputs)
    outward = torch.linalg.qr(torch.randn(outputs, r4))[0]
    kernel = torch.einsum("tb,ba...,as->ts...", outward, torch.randn(r4, len(inward), *window), inward)
    layer.weight.data = (kernel / kernel.std() + noise * torch.randn_like(kernel)).to(layer.weight)
    return layer


def watched(steps: int) -> tuple[Task, dict[int, float]]:
    """Random images of 8 channels, and the shares of the training that are asked for, by seed."""
    asked: dict[int, float] = {}

    class Watched(Task):
        def batches(self, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
            asked[self.seed] = share
            return super().batches(share)

    split = Split(torch.randn(4, 8, 9, 9), torch.arange(4))
    return Watched("random", split, split, split, steps, batch=4, augmented=False), asked


PLANTED: dict[str, Ranks] = {"0": (None, 4), "1": (4, 3), "2": (None, 2), "6": (None, 3)}


def small_network() -> nn.Sequential:
    """Layers of the planted ranks, the first, a 1x1 and a dense one among them; and one of noise, where VBMF finds nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 24, 3), nn.Conv2d(24, 40, 3, stride=2, padding=1), nn.Conv2d(40, 36, 1), nn.Conv2d(36, 36, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(36, 30),
    )  # fmt: skip
    for name, ranks in PLANTED.items():
        planted(model.get_submodule(name), *ranks)
    return model


def claim_ranks_fall_and_stop(lab: Lab) -> float:
    """How many ranks, depths or shares of the training are not what follows from the planted ranks, with 1 to 9 stages.

    And how many parts of the network training leaves as they were, at a rate that moves no rank.
    """
    model, wrong = small_network(), 0
    full: dict[str, Ranks] = {"0": (None, 24), "1": (24, 40), "2": (None, 36), "6": (None, 30)}

    def fallen(rank: int | None, extreme: int | None, stages: int) -> int | None:
        """R <- floor(R - (R - R_extreme) / 2) so many times, but no further than 5."""
        return rank if not (rank and extreme and stages) else fallen(max(5, (rank + extreme) // 2), extreme, stages - 1)

    for stages in (1, 2, 9):
        task, asked = watched(12)
        small = method.compress(copy.deepcopy(model), task, method.Config(weakening=0.5, stages=stages, floor=5, rate=1e-5))
        cut = decomposed(model, method.ranks_of(small, full))
        wrong += sum(torch.equal(one, other) for one, other in zip(small.parameters(), cut.parameters(), strict=True))
        wanted = {name: tuple(map(fallen, full[name], PLANTED[name], (stages, stages))) for name in full}
        wrong += method.ranks_of(small, method.decomposable(model)[0]) != wanted
        wrong += sum(len(list(small.get_submodule(name).modules())) != 3 + (name == "1") for name in full)
        moves = min(stages, 4)  # 40, 21, 12, 7, 5
        wrong += [round(share * stages) for share in asked.values()] != moves * [1] + ([stages - moves] if stages > moves else [])
    return wrong


@torch.no_grad()
def trained_chains() -> list[tuple[nn.Sequential, Tensor]]:
    """Decomposed layers after some training: no factor is orthogonal any more. Each with what comes in."""
    torch.manual_seed(0)
    layers: list[tuple[Layer, int | None]] = [*product(convolutions(9, 12), (7, None)), (nn.Linear(9, 11), None)]
    chains = []
    for layer, r3 in layers:
        chain = tucker2(layer.double(), (r3, 8))
        for part in chain:
            part.weight.add_(0.3 * torch.randn_like(part.weight))
        chains.append((chain, torch.randn(2, 9, *(() if isinstance(layer, nn.Linear) else (8, 9))).double()))
    return chains


@torch.no_grad()
def claim_melting_keeps_function(lab: Lab) -> list[float]:
    """Largest difference of the outputs from those of the chain with the core's factors left apart; at full ranks, of the chain."""
    found = list[float]()
    for chain, x in trained_chains():
        (*reduce, inner, expand), (r4, r3) = chain, method.core(chain).weight.shape[:2]
        for ranks in ((r3, r4), (4, 5)):
            ranks = ranks if reduce else (None, ranks[1])
            again, apart = method.decompose(chain, ranks), nn.Sequential(*reduce, tucker2(inner, ranks), expand)
            wanted = chain(x) if ranks[1] == r4 else apart(x)
            found += [relative_error(again(x), wanted), abs(len(again) - len(chain))]
    return found


def composed(chain: nn.Sequential) -> Tensor:
    """The kernel that a decomposed layer applies."""
    *reduce, inner, expand = (part.weight.detach() for part in chain)
    inward = reduce[0].flatten(1) if reduce else torch.eye(inner.shape[1]).to(inner)
    return torch.einsum("tb,ba...,as->ts...", expand.flatten(1), inner, inward)


def claim_core_stands_for_kernel(lab: Lab) -> list[float]:
    """Largest relative distance of kernels: tensorly's Tucker-2 of the composed kernel, and one that has the ranks exactly."""
    torch.manual_seed(0)
    pairs = []
    for kernel, before, ranks in ((nn.Conv2d(10, 12, 3), (7, 9), (3, 4)), (nn.Conv2d(9, 8, (2, 3)), (6, 6), (5, 2))):
        once = tucker2(kernel.double(), before)
        with tl.backend_context("numpy"):
            theirs, _ = partial_tucker(composed(once).numpy(), rank=ranks[::-1], modes=[0, 1], init="svd", tol=1e-5)
            theirs = torch.from_numpy(tl.tenalg.multi_mode_dot(theirs[0], theirs[1], modes=[0, 1]))
        pairs.append((composed(method.decompose(once, ranks)), theirs))
    for chain, _ in trained_chains():
        ranks = (2 if len(chain) == 3 else None, 3)
        planted(method.core(chain), *ranks, noise=0.0)
        pairs.append((composed(method.decompose(chain, ranks)), composed(chain)))
    return [float((ours - wanted).norm() / wanted.norm()) for ours, wanted in pairs]


def claim_each_layer_its_decomposition(lab: Lab) -> float:
    """How many layers are planned wrongly."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(8, 30, 3)), nn.Conv2d(30, 32, 3, stride=2), nn.Conv2d(32, 32, 3, groups=2), nn.Conv2d(32, 24, 1),
        nn.Conv2d(24, 24, 1), nn.Conv2d(24, 12, 3), nn.Conv2d(12, 12, 3), nn.ConvTranspose2d(12, 40, 3), nn.Linear(40, 60),
        nn.Linear(60, 10),
    )  # fmt: skip
    plain: dict[str, Ranks] = {"0.0": (None, 4), "1": (5, 2), "3": (None, 3), "4": (None, 3), "5": (3, 3), "8": (None, 2)}
    for name, ranks in plain.items():
        planted(model.get_submodule(name), *ranks)
    wanted: dict[str, Ranks] = {"0.0": (None, 17), "1": (17, 17), "3": (None, 13), "5": (13, 12), "8": (None, 21)}
    # half-way to the planted ranks, but no lower than 12, where "4" would still cost what it does
    layers, others = method.decomposable(model)
    ranks, kept = method.plan(model, layers, config := method.Config(weakening=0.5, floor=12))
    wrong = sum(ranks.get(name) != wanted.get(name) for name in layers) + len({"2", "7"} ^ set(others)) + len(set(layers) ^ {*ranks, *kept})
    strided = nn.Sequential(nn.Conv2d(8, 30, 1), planted(nn.Conv2d(30, 32, 3, stride=2), 24, 25), nn.Conv2d(32, 8, (1, 2)))
    wrong += method.decomposable(strided)[0] != {"0": False, "1": True, "2": True}
    try:
        return wrong + bool(
            method.compress(strided, watched(2)[0], config)
        )  # at ranks 24 and 25 it would cost more, in front of the stride
    except ValueError as reason:
        return wrong + ("MUSCO" not in str(reason) or "(24, 25)" not in str(reason))


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


@cache
def first_cut(lab: Lab, weakening: float) -> nn.Module:
    """The network after the first stage's decomposition, untrained; at a weakening of 1 with the ranks that VBMF asks for."""
    ranks = method.plan(lab.reference, method.decomposable(lab.reference)[0], replace(lab.config, weakening=weakening))[0]
    return decomposed(lab.reference, ranks, method.decompose)


def claim_gentle_step_loses_less(lab: Lab) -> float:
    return lab.score(first_cut(lab, lab.config.weakening)) - lab.score(first_cut(lab, 1.0))


def claim_compresses_further(lab: Lab) -> float:
    """Multiply-adds after all stages, of those at the ranks that VBMF asks for at first."""
    return lab.after.multiply_adds / multiply_adds(first_cut(lab, 1.0), lab.held_out(1).images.to(lab.task.device))


def claim_beats_one_shot(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("one_shot").accuracy


def claim_beats_one_shot_in_minutes(lab: Lab) -> float:
    return claim_beats_one_shot(lab)
