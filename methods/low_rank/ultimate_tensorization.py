"""TT-conv (Garipov et al., NIPS workshop 2016).

A tensor train of a kernel as it stands does little: of a 1x1 kernel it is a plain low-rank matrix. So the numbers of input
and output channels are split into small factors, one factor of each makes a mode, and the kernel's positions make another.
The cores that describe this array are what is trained, from Gaussian noise and with a batch norm behind each such layer;
dense layers are done alike. A layer runs core by core and never builds its weight.

Departures: one rank for all convolutions, one for all dense layers, and no core wider than full rank asks for (the authors
set every rank by hand, some beyond that); channels are split by a rule that gives the authors' factors of 64 and 128. As in
their networks the first convolution and the classifier stay dense, and so do grouped convolutions and what a train would not
make smaller. A batch norm counts as there if it is the next module that runs; behind a dense layer on tokens (N, T, C)
ours norms the last dimension, whatever follows. The first two cores are multiplied before they meet the input, which is
faster; a 1x1 kernel's lone filter, a 1 that the authors leave alone, is trained. Training is the kit's (Nesterov momentum,
weight decay 5e-4, one cosine instead of steps); a smoke run takes fewer images a step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from methods.kit.layers import Layer, fresh, geometry, name_the_kept, replaceable, replaced, responses, runs, within
from methods.kit.nets import conv_bn, count, on_meta, trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit
from methods.low_rank.kim_tucker import factored

Modes = Sequence[tuple[int, int]]  # (C_k, S_k), k = 1 ... d


@dataclass(frozen=True)
class Config:
    rank: int = 16  # of a convolution: the authors' network of 41.65 times fewer parameters (panel 11, TT-conv-TT-fc.py)
    dense_rank: int = 40  # of a dense layer: the first of the same network
    factors: int = 3  # d of a convolution, panel 7
    dense_factors: int = 4  # d of a dense layer: the same network
    rate: float = 0.1  # TT-conv.py; 0.03 in TT-conv-TT-fc.py
    batch: int = 100  # images a step, train.py


SMOKE = Config(rank=4, batch=20)  # rank 16 hurts nobody much in a network of this size; many small contractions take their time
SWEEP = tuple(replace(SMOKE, rank=rank) for rank in (6, 4, 3, 2))  # 0.5 to 0.1 of the multiply-adds; outputs are not the reference's


def reference(task: Task) -> nn.Module:
    """A VGG with batch norm, like the paper's networks, whose channels factor well."""
    return trained("vgg_wide", task.name)


def contract(x: Tensor, cores: Iterable[Tensor]) -> Tensor:
    """Y(s) = sum_c X(c) G_k[c_k, s_k] ... G_d[c_d, s_d], one core after another: (N, r_{k-1} c_k ... c_d P) -> (N s_k ... s_d, P)."""
    for core in cores:  # (N s_1 ... s_{k-1}, r_{k-1} c_k, c_{k+1} ... c_d P) -> (N s_1 ... s_k, r_k c_{k+1} ... c_d P)
        r, c, s, t = core.shape
        step = core.permute(2, 3, 0, 1).reshape(s * t, r * c)
        x = torch.bmm(step.expand(len(x), -1, -1), x.reshape(len(x), r * c, -1)).reshape(len(x) * s, -1)
    return x


class TTLinear(nn.Module):
    """W(c, s) = G_1[c_1, s_1] ... G_d[c_d, s_d], each G_k[c_k, s_k] a matrix of r_{k-1} x r_k (panel 3); batch norm has the bias."""

    def __init__(self, shape: Modes, ranks: Sequence[int]) -> None:
        super().__init__()
        self.cores = nn.ParameterList(torch.empty(r, c, s, t) for (c, s), (r, t) in zip(shape, pairwise(ranks), strict=True))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gaussian noise (panel 8), as wide as in the authors' code."""
        for core in self.cores:
            r, c, s, t = core.shape
            if not core.is_meta:  # there, torch imports symbolic algebra to draw nothing
                nn.init.normal_(core, std=math.sqrt(2 / (r * c + s * t)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., S)."""
        return contract(x.reshape(-1, x.shape[-1]), self.cores).reshape(*x.shape[:-1], -1)


class Filters(nn.Conv2d):
    """G_0[x, y], r_0 filters that every channel meets: Gaussian noise, too; the only number of a 1x1 kernel starts as 1."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            (nn.init.xavier_normal_ if self.weight.numel() > 1 else nn.init.ones_)(self.weight)


class TTConv(TTLinear):
    """K(x, y, c, s) = G_0[x, y] G_1[c_1, s_1] ... G_d[c_d, s_d] (panel 7)."""

    def __init__(self, layer: nn.Conv2d, shape: Modes, ranks: Sequence[int]) -> None:
        super().__init__(shape, ranks)
        self.filters = Filters(1, ranks[0], **geometry(layer), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, S, H', W')."""
        n, (first, *others) = len(x), self.cores
        kernel = torch.einsum("rxy,rcst->stcxy", self.filters.weight[:, 0], first).flatten(0, 1)  # G_0[x, y] G_1[c_1, s_1]
        x = x.unflatten(1, (first.shape[1], -1)).transpose(1, 2)  # (N, c_2 ... c_d, c_1, H, W)
        y = self.filters._conv_forward(x.flatten(0, 1), kernel, None)
        y = y.unflatten(0, (n, -1)).transpose(1, 2)  # (N, s_1 r_1, c_2 ... c_d, H', W')
        return contract(y.reshape(n * first.shape[2], -1), others).reshape(n, -1, *y.shape[3:])


def split(number: int, d: int) -> list[int]:
    """d factors, as equal as they come, the largest in the middle as in the authors' networks: 128 = 4 x 8 x 4."""
    parts = list[int]()
    for left in range(d, 0, -1):  # the largest divisor of the rest that does not exceed its root
        parts.append(max(part for part in range(1, number + 1) if number % part == 0 and part**left <= number))
        number //= parts[-1]
    parts.sort()
    return parts[::2] + parts[1::2][::-1]


def train_of(layer: Layer, shape: Modes, rank: int) -> TTLinear:
    """A train with one rank, but where full rank is less: r_k <= min(l^2 prod_{i<=k} C_i S_i, prod_{i>k} C_i S_i)."""
    sizes = [layer.weight[0, 0].numel(), *(c * s for c, s in shape)]
    ranks = [min(rank, math.prod(sizes[: k + 1]), math.prod(sizes[k + 1 :])) for k in range(len(sizes))]
    return (TTConv(layer, shape, ranks) if isinstance(layer, nn.Conv2d) else TTLinear(shape, ranks)).to(layer.weight)


def plan(model: nn.Module, config: Config, **given: Any) -> tuple[dict[str, TTLinear], dict[str, str]]:
    """The train of every layer that gets smaller, and the reason why each other layer stays as it is."""
    trains = dict[Layer, TTLinear]()
    image = given.get("image")
    parts = model.modules() if image is None else map(model.get_submodule, runs(model, image))
    classifier = [layer for layer in parts if isinstance(layer, nn.Linear)][-1:]

    def why_not(layer: Layer, first: bool) -> str:
        if first or layer in classifier:
            return "the first convolution and the classifier stay dense"
        d, rank = (config.dense_factors, config.dense_rank) if isinstance(layer, nn.Linear) else (config.factors, config.rank)
        outputs, inputs = (split(number, d) for number in layer.weight.shape[:2])
        trains[layer] = train_of(layer, list(zip(inputs, outputs, strict=True)), rank)
        return "" if count(trains[layer]) < count(layer) else f"{count(layer)} numbers are too few for a train of rank {rank}"

    layers, kept = replaceable(model, why_not, (nn.Conv2d, nn.Linear), **given)
    return {name: trains[layer] for name, layer in layers.items()}, kept


class TokenNorm(nn.BatchNorm1d):
    """Batch norm of the last dimension, where dense layers have their channels: (..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view_as(x)


def from_noise(model: nn.Module, parts: Mapping[str, nn.Module], image: Tensor | None = None) -> nn.Module:
    """The network with these parts, a batch norm behind each that has none (panel 8), and every weight drawn anew.

    An `image` (1, C, H, W) says what runs behind what, and which dense layers see tokens (N, T, C); without one, all see vectors (N, C).
    """
    ran = model.modules() if image is None else map(model.get_submodule, runs(model, image))
    leaves = [layer for layer in ran if not list(layer.children())]
    normed = [layer for layer, behind in pairwise(leaves) if isinstance(behind, nn.BatchNorm1d | nn.BatchNorm2d)]
    tokens = {} if image is None else {name: answer.ndim > 2 for name, answer in responses(model, image, parts).items()}
    behind = {}
    for name, part in parts.items():
        layer = model.get_submodule(name)
        dense = TokenNorm if tokens.get(name) else nn.BatchNorm1d
        has_norm = layer in normed and not (dense is TokenNorm and isinstance(layer, nn.Linear))
        norm = dense if isinstance(layer, nn.Linear) else nn.BatchNorm2d
        behind[name] = part if has_norm else nn.Sequential(part, norm(len(layer.weight)).to(layer.weight))
    return fresh(replaced(model, behind))


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Give every layer the train of its reshaped weight; train the network from noise."""
    given = within(task)
    trains, kept = plan(model, config, **given)
    name_the_kept("TT-conv needs a convolution behind the first, or a dense layer before the classifier, that it shrinks", trains, kept)
    return fit(from_noise(model, trains, given["image"]), replace(task, batch=config.batch), lr=config.rate)


def of_equal_size(model: nn.Module, task: Task, config: Config, build: Callable[[Layer, int], nn.Module]) -> nn.Module:
    """Each layer built at the rank at which it has nearly as many numbers as its train; from noise, for the same steps."""
    parts, given = {}, within(task)
    for name, train in plan(model, config, **given)[0].items():
        layer, goal = model.get_submodule(name), count(train)
        blank, most = copy.deepcopy(layer).to("meta"), goal // sum(layer.weight.shape[:2])  # a rank costs S + C numbers or more
        parts[name] = build(layer, min(range(1, most + 2), key=lambda rank: abs(count(on_meta(lambda: build(blank, rank))) - goal)))
    return fit(from_noise(model, parts, given["image"]), replace(task, batch=config.batch), lr=config.rate)


def plain_modes(layer: Layer) -> Modes:
    """The channels as they stand: K(x, y, c, s) = G_0[x, y] G_1[c] G_2[s] (panel 6); x and y in one core cost nothing."""
    return [(layer.weight.shape[1], 1), (1, layer.weight.shape[0])]


@on_copies
def control_plain(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Trains of the weights as they stand (panel 10)."""
    return of_equal_size(model, task, config, lambda layer, rank: train_of(layer, plain_modes(layer), rank))


@on_copies
def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Low-rank matrices: the layers that a truncated SVD leaves."""
    return of_equal_size(model, task, config, lambda layer, rank: factored(layer, (None, rank)))


@on_copies
def control_tucker(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Tucker-2 layers with R3 = R4 (Tucker-1 for matrices)."""
    return of_equal_size(model, task, config, lambda layer, rank: factored(layer, (rank if layer.weight[0, 0].numel() > 1 else None, rank)))


CONVS: list[Modes] = [[(4, 4)] * 3, [(4, 4), (4, 8), (4, 4)], *[[(4, 4), (8, 8), (4, 4)]] * 3]
DENSE: list[Modes] = [[(8, 4), (8, 6), (8, 8), (16, 8)], [(4, 4), (6, 4), (8, 4), (8, 8)]]
AUTHORS = {  # modes and ranks of the layers of TT-conv.py and TT-conv-TT-fc.py
    "TT-conv": list(zip(CONVS, [(22, 20, 20, 1), (27, 22, 22, 1), *[(23, 23, 23, 1)] * 3], strict=True)),
    "TT-conv-TT-fc": list(zip(CONVS + DENSE, [*[(16, 16, 16, 1)] * 5, (1, 40, 40, 40, 1), (1, 30, 30, 30, 1)], strict=True)),
}


def build(variant: str) -> nn.Module:
    """The authors' networks for CIFAR-10: conv, TT-conv, conv-fc, TT-conv-TT-fc. Biases that batch norm takes away are left out."""
    convs = [conv_bn(c, s) for c, s in ((64, 64), (64, 128), *[(128, 128)] * 3)]
    dense = [nn.Sequential(nn.Linear(c, s, bias=False), nn.BatchNorm1d(s), nn.ReLU()) for c, s in ((8192, 1536), (1536, 512))]
    tail: list[nn.Module] = [nn.Flatten(), *dense, nn.Linear(512, 10)]
    if not variant.endswith("fc"):
        convs[3].conv.padding = convs[4].conv.padding = (0, 0)
        tail = [nn.AvgPool2d(4), nn.Flatten(), nn.Linear(128, 10, bias=False)]
    for block, shape in zip(convs + dense, AUTHORS.get(variant, []), strict=False):
        block[0] = TTConv(block[0], *shape) if block in convs else TTLinear(*shape)
    pool = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(conv_bn(3, 64), convs[0], pool, *convs[1:3], pool, *convs[3:], *tail)
