"""TT-conv (Garipov et al., NIPS workshop 2016).

A tensor train of a kernel as it stands does little: of a 1x1 kernel it is a plain low-rank matrix. So the numbers of input
and output channels are split into small factors, one factor of each makes a mode, and the kernel's positions make another.
The cores that describe this array are what is trained, from Gaussian noise and with a batch norm behind each such layer;
dense layers are done alike. A layer runs core by core and never builds its weight.

Departures: one rank for all convolutions and one for all dense layers, and no core wider than full rank asks for (the
authors set every rank by hand, some beyond that); channels are split by a rule that gives the authors' factors of 64
and 128, with factors of one where nothing else divides. As in the authors' networks the first convolution and the
classifier stay dense, and so do grouped convolutions and what a train would not make smaller. Layers keep their bias,
which the authors leave out; a batch norm counts as there if it is the next module registered, and a dense layer without
one is taken to see vectors (N, C), not sequences. The first two cores are multiplied before they meet the input, which
is faster. Training is the kit's (Nesterov momentum, weight decay 5e-4, one cosine instead of steps); a smoke run takes
fewer images a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import tensorly as tl
import torch
from tensorly.decomposition import tensor_train
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import Layer, geometry, name_the_kept, replaceable, replaced, truncated_svd
from methods.kit.measure import multiply_adds
from methods.kit.nets import conv_bn, count, on_meta, trained
from methods.kit.task import Split, Task
from methods.kit.train import fit
from methods.low_rank.kim_tucker import factored

Modes = Sequence[tuple[int, int]]  # (C_k, S_k), k = 1 ... d
Size = Callable[[int, int, int, int], int]  # of S, C, l^2 and a rank
Ranks = Sequence[int]  # r_0 ... r_d; r_d is 1, and r_0 of a dense layer, too


@dataclass(frozen=True)
class Config:
    rank: int = 16  # of a convolution: the authors' network of 41.65 times fewer parameters (panel 11, TT-conv-TT-fc.py)
    dense_rank: int = 40  # of a dense layer: the first of the same network
    factors: int = 3  # d of a convolution, panel 7
    dense_factors: int = 4  # d of a dense layer: the same network
    rate: float = 0.1  # TT-conv.py
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
    """W(c, s) = G_1[c_1, s_1] ... G_d[c_d, s_d], each G_k[c_k, s_k] a matrix of r_{k-1} x r_k (panel 3)."""

    def __init__(self, layer: Layer, shape: Modes, ranks: Ranks) -> None:
        """In place of `layer`, with a bias if that has one."""
        super().__init__()
        self.cores = nn.ParameterList(torch.empty(r, c, s, t) for (c, s), (r, t) in zip(shape, pairwise(ranks), strict=True))
        self.bias = None if layer.bias is None else nn.Parameter(torch.empty(len(layer.bias)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gaussian noise (panel 8), as wide as in the authors' code."""
        for core in self.cores:
            r, c, s, t = core.shape
            nn.init.normal_(core, std=math.sqrt(2 / (r * c + s * t)))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., S)."""
        y = contract(x.reshape(-1, x.shape[-1]), self.cores).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class Filters(nn.Conv2d):
    """G_0[x, y], r_0 filters that every channel meets."""

    def reset_parameters(self) -> None:
        """Gaussian noise; the only number of a 1x1 kernel is 1, as in the authors' code."""
        (nn.init.xavier_normal_ if self.weight.numel() > 1 else nn.init.ones_)(self.weight)

    def forward(self, x: Tensor, core: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve c_1 with G_0[x, y] G_1[c_1, s_1], a small kernel: (N, C, H, W) -> (N, s_1 r_1, c_2 ... c_d, H', W')."""
        kernel = torch.einsum("rxy,rcst->stcxy", self.weight[:, 0], core).flatten(0, 1)
        x, n = x.unflatten(1, (core.shape[1], -1)).transpose(1, 2), len(x)  # equivalent: a transpose is symmetric
        y = self._conv_forward(x.flatten(0, 1), kernel, None)
        return y.unflatten(0, (n, -1)).transpose(1, 2)  # equivalent: a transpose is symmetric


class TTConv(TTLinear):
    """K(x, y, c, s) = G_0[x, y] G_1[c_1, s_1] ... G_d[c_d, s_d] (panel 7)."""

    def __init__(self, layer: nn.Conv2d, shape: Modes, ranks: Ranks) -> None:
        super().__init__(layer, shape, ranks)
        self.filters = Filters(1, ranks[0], **geometry(layer), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, S, H', W')."""
        first, *others = self.cores
        y = self.filters(x, first)
        y = contract(y.reshape(len(x) * first.shape[2], -1), others).reshape(len(x), -1, *y.shape[3:])
        return y if self.bias is None else y + self.bias[:, None, None]


def split(number: int, d: int) -> list[int]:
    """d factors, as equal as the primes allow, the largest in the middle as in the authors' networks: 128 = 4 x 8 x 4."""
    divisors = [p for p in range(2, number + 1) if number % p == 0]  # equivalent: no larger number divides it
    primes = [p for p in divisors if all(p % q for q in range(2, p))]
    parts = [1] * d
    for prime in reversed([p for p in primes for e in range(1, number) if number % p**e == 0]):
        parts[parts.index(min(parts))] *= prime
    parts.sort()
    return parts[::2] + parts[1::2][::-1]


def modes(inputs: Sequence[int], outputs: Sequence[int]) -> Modes:
    """C = C_1 ... C_d, S = S_1 ... S_d, and one mode for every pair (c_k, s_k) (panel 7)."""
    return list(zip(inputs, outputs, strict=True))


def train_of(layer: Layer, shape: Modes, rank: int) -> TTLinear:
    """A train with one rank, but where full rank is less: r_k <= min(l^2 prod_{i<=k} C_i S_i, prod_{i>k} C_i S_i)."""
    area = layer.weight[0, 0].numel()  # equivalent: all positions are alike
    sizes = [area, *(c * s for c, s in shape)]
    ranks = [min(rank, math.prod(sizes[: k + 1]), math.prod(sizes[k + 1 :])) for k in range(len(sizes))]  # equivalent: min is symmetric
    return (TTConv(layer, shape, ranks) if isinstance(layer, nn.Conv2d) else TTLinear(layer, shape, ranks)).to(layer.weight)


def plan(model: nn.Module, config: Config) -> tuple[dict[str, TTLinear], dict[str, str]]:
    """The train of every layer that gets smaller, and the reason why each other layer stays as it is."""
    trains: dict[Layer, TTLinear] = {}
    classifier = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1:]

    def why_not(layer: Layer, first: bool) -> str:
        if first or layer in classifier:
            return "the first convolution and the classifier stay dense"
        dense, (outputs, inputs) = isinstance(layer, nn.Linear), layer.weight.shape[:2]
        d, rank = (config.dense_factors, config.dense_rank) if dense else (config.factors, config.rank)
        trains[layer] = train_of(layer, modes(split(inputs, d), split(outputs, d)), rank)
        return "" if count(trains[layer]) < count(layer) else f"{count(layer)} numbers are too few for a train of rank {rank}"

    layers, kept = replaceable(model, why_not, (nn.Conv2d, nn.Linear))
    return {name: trains[layer] for name, layer in layers.items()}, kept


def assembled(model: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """The network with these parts, a batch norm behind each that has none (panel 8), and every weight drawn anew."""
    leaves = [layer for layer in model.modules() if not list(layer.children())]
    normed = [layer for layer, behind in pairwise(leaves) if isinstance(behind, nn.BatchNorm1d | nn.BatchNorm2d)]
    behind = {}
    for name, part in parts.items():
        layer = model.get_submodule(name)
        norm = nn.BatchNorm1d if isinstance(layer, nn.Linear) else nn.BatchNorm2d
        behind[name] = part if layer in normed else nn.Sequential(part, norm(len(layer.weight)))
    model = replaced(model, behind)
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return model


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Give every layer the train of its reshaped weight; train the network from noise."""
    trains, kept = plan(model, config)
    name_the_kept("TT-conv needs a convolution behind the first, or a dense layer before the classifier, that it shrinks", trains, kept)
    return fit(assembled(model, trains), replace(task, batch=config.batch), lr=config.rate)


C4, C8 = (4, 4, 4), (4, 8, 4)
AUTHORS: dict[str, list[tuple[Modes, Ranks]]] = {  # the layers of TT-conv.py and TT-conv-TT-fc.py
    "TT-conv": [
        (modes(C4, C4), (22, 20, 20, 1)), (modes(C4, C8), (27, 22, 22, 1)), *[(modes(C8, C8), (23, 23, 23, 1))] * 3,
    ],
    "TT-conv-TT-fc": [
        *((modes(c, s), (16, 16, 16, 1)) for c, s in ((C4, C4), (C4, C8), *[(C8, C8)] * 3)),
        (modes((8, 8, 8, 16), (4, 6, 8, 8)), (1, 40, 40, 40, 1)), (modes((4, 6, 8, 8), (4, 4, 4, 8)), (1, 30, 30, 30, 1)),
    ],
}  # fmt: skip


def build(variant: str) -> nn.Module:
    """The authors' networks for CIFAR-10: conv, TT-conv, conv-fc, TT-conv-TT-fc. Biases that batch norm takes away are left out."""
    convs = [conv_bn(c, s) for c, s in ((64, 64), (64, 128), *[(128, 128)] * 3)]
    dense = [nn.Sequential(nn.Linear(c, s, bias=False), nn.BatchNorm1d(s), nn.ReLU()) for c, s in ((8192, 1536), (1536, 512))]
    tail: list[nn.Module] = [nn.Flatten(), *dense, nn.Linear(512, 10)]
    if not variant.endswith("fc"):
        convs[3].conv.padding = convs[4].conv.padding = (0, 0)
        tail = [nn.AvgPool2d(4), nn.Flatten(), nn.Linear(128, 10, bias=False)]
    for block, shape in zip(convs + dense, AUTHORS.get(variant, []), strict=False):
        block[0] = (TTConv if block in convs else TTLinear)(block[0], *shape)
    pool = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(conv_bn(3, 64), convs[0], pool, *convs[1:3], pool, *convs[3:], *tail)


def of_equal_size(model: nn.Module, config: Config, size: Size, build: Callable[[Layer, int], nn.Module]) -> dict[str, nn.Module]:
    """The same layers, each built at the rank whose number of weights is nearest to that of its train."""
    parts = {}
    for name, train in plan(model, config)[0].items():
        layer, goal = model.get_submodule(name), sum(weight.numel() for weight in train.parameters() if weight.ndim > 1)
        (outputs, inputs), area = layer.weight.shape[:2], layer.weight[0, 0].numel()
        parts[name] = build(layer, min(range(1, goal), key=lambda rank: abs(size(outputs, inputs, area, rank) - goal)))
    return parts


def plain_modes(layer: Layer) -> Modes:
    """The channels as they stand: K(x, y, c, s) = G_0[x, y] G_1[c] G_2[s] (panel 6); x and y in one core cost nothing."""
    outputs, inputs = layer.weight.shape[:2]
    return modes([inputs, 1], [1, outputs])


def control_plain(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Trains of the weights as they stand (panel 10), of as many numbers; from noise, for the same steps."""
    parts = of_equal_size(
        model, config, lambda s, c, area, r: min(area, r) * (area + c * r) + r * s,
        lambda layer, rank: train_of(layer, plain_modes(layer), rank),
    )  # fmt: skip
    return fit(assembled(model, parts), replace(task, batch=config.batch), lr=config.rate)


def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Low-rank matrices of as many numbers; from noise, for the same steps."""
    parts = of_equal_size(model, config, lambda s, c, area, r: r * (area * c + s), truncated_svd)
    return fit(assembled(model, parts), replace(task, batch=config.batch), lr=config.rate)


def control_tucker(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Tucker-2 layers with R3 = R4 (Tucker-1 for matrices), of as many numbers; from noise, for the same steps."""
    parts = of_equal_size(
        model, config, lambda s, c, area, r: r * (c + s) + (area > 1) * area * r**2,
        lambda layer, rank: factored(layer, (rank if layer.weight[0, 0].numel() > 1 else None, rank)),
    )  # fmt: skip
    return fit(assembled(model, parts), replace(task, batch=config.batch), lr=config.rate)


def tt_svd(array: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """Cores (r_{k-1}, n_k, r_k) of an array by one SVD after another, each cut to its rank (panel 4; Oseledets 2011)."""
    cores, rest = list[Tensor](), array[None]  # (r_{k-1}, n_k, ...)
    for rank in ranks:
        u, spectrum, v = torch.linalg.svd(rest.flatten(2).flatten(0, 1), full_matrices=False)
        cores.append(u[:, :rank].unflatten(0, rest.shape[:2]))
        rest = (spectrum[:rank, None] * v[:rank]).unflatten(1, rest.shape[2:])
    return [*cores, rest[..., None]]


def as_array(weight: Tensor, shape: Modes) -> Tensor:
    """(S, C, l, l) or (S, C) -> (l^2, C_1 S_1, ..., C_d S_d)."""
    inputs, outputs = zip(*shape, strict=True)
    d, digits = len(shape), weight.reshape(*outputs, *inputs, -1)
    return digits.permute(2 * d, *(axis for k in range(d) for axis in (d + k, k))).reshape(-1, *(c * s for c, s in shape))


@torch.no_grad()
def converted(layer: Layer, shape: Modes, rank: int) -> TTLinear:
    """The train of the layer's own weight."""
    train = train_of(layer, shape, rank)
    first, *cores = tt_svd(as_array(layer.weight.double(), shape), [train.cores[0].shape[0], *(core.shape[3] for core in train.cores[:-1])])
    if isinstance(train, TTConv):
        train.filters.weight.copy_(first[0].T.reshape(train.filters.weight.shape))
    else:
        cores[0] = first[0, 0, 0] * cores[0]
    for core, found in zip(train.cores, cores, strict=True):
        core.copy_(found.reshape(core.shape))
    if train.bias is not None:
        train.bias.copy_(layer.bias)
    return train


def dense_weight(train: TTLinear, layer: Layer, shape: Modes) -> np.ndarray[Any, Any]:
    """The weight that a train stands for, entry by entry, its array by tensorly."""
    cores = [core.detach().double().numpy() for core in train.cores]
    filters = train.filters.weight.detach().double().numpy() if isinstance(train, TTConv) else np.ones((1, 1))
    chain = [filters.reshape(len(filters), -1).T[None], *(core.reshape(len(core), -1, core.shape[-1]) for core in cores)]
    with tl.backend_context("numpy"):
        array = tl.tt_to_tensor(chain)
    weight = np.empty((*layer.weight.shape[:2], array.shape[0]))
    inputs, outputs = zip(*shape, strict=True)
    for s, c in np.ndindex(weight.shape[:2]):
        digits = zip(np.unravel_index(c, inputs), np.unravel_index(s, outputs), outputs, strict=True)
        weight[s, c] = array[(slice(None), *(c_k * most + s_k for c_k, s_k, most in digits))]
    return weight.reshape(layer.weight.shape)


Case = tuple[Layer, Modes, int]


def cases() -> list[tuple[Case, Tensor]]:
    """Layers with their modes, ranks and inputs: strides, padding, dilation, lone kernels, factors of one, vectors and sequences."""
    torch.manual_seed(0)
    image = torch.randn(2, 12, 9, 10)
    return [
        ((nn.Conv2d(12, 8, 3, stride=2, padding=1), modes([2, 3, 2], [2, 1, 4]), 5), image),
        ((nn.Conv2d(12, 10, (2, 3), stride=(1, 2), padding=(0, 2), dilation=(2, 1), bias=False), modes([3, 4], [5, 2]), 4), image),
        ((nn.Conv2d(12, 7, 3, padding="same", padding_mode="circular"), modes([3, 2, 2], [1, 7, 1]), 3), image),
        ((nn.Conv2d(12, 18, 1, stride=2), modes([2, 2, 3], [3, 2, 3]), 6), image),
        ((nn.Conv2d(12, 6, 3, padding=2, padding_mode="reflect"), modes([12, 1], [1, 6]), 4), image),
        ((nn.Linear(24, 30), modes([2, 3, 4], [5, 3, 2]), 7), torch.randn(3, 24)),
        ((nn.Linear(16, 6, bias=False), modes([4, 1, 4], [1, 6, 1]), 2), torch.randn(2, 5, 16)),
        ((nn.Linear(15, 6), modes([15], [6]), 1), torch.randn(4, 15)),
    ]


@torch.no_grad()
def claim_forward_equals_dense(lab: Lab) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    worst = 0.0
    for (layer, shape, rank), x in cases():
        train = train_of(layer, shape, rank)
        if train.bias is not None:
            train.bias.copy_(layer.bias)
        layer.weight.copy_(torch.from_numpy(dense_weight(train, layer, shape)))
        worst = max(worst, float((train(x) - layer(x)).abs().max() / layer(x).abs().max()))
    return worst


@torch.no_grad()
def claim_full_ranks_exact(lab: Lab) -> float:
    """Largest difference of the outputs, relative to the largest output; of one of the weights, a row and a column are nothing."""
    worst = 0.0
    for (layer, shape, _), x in cases():
        layer.weight[0] = layer.weight[:, 0] = 0
        worst = max(worst, float((converted(layer, shape, 10**6)(x) - layer(x)).abs().max() / layer(x).abs().max()))
    return worst


@torch.no_grad()
def claim_error_within_bound(lab: Lab) -> float:
    """Largest ratio of the squared error to the sum over unfoldings of the spectrum that their rank drops."""
    ratios = []
    for (layer, shape, rank), _ in cases():
        train = converted(layer.double(), shape, rank)
        error = float(np.square(layer.weight.numpy() - dense_weight(train, layer, shape)).sum())
        array, dropped = as_array(layer.weight, shape).numpy(), 0.0
        for k, core in enumerate(train.cores):
            spectrum = np.linalg.svd(array.reshape(math.prod(array.shape[: k + 1]), -1), compute_uv=False)
            dropped += float(np.square(spectrum[len(core) :]).sum())
        if dropped:
            ratios.append(error / dropped)
    return max(ratios)


@torch.no_grad()
def claim_as_close_as_tensorly(lab: Lab) -> float:
    """Largest difference of the weights from those of tensorly's decomposition, relative to the largest weight."""
    worst = 0.0
    for (layer, shape, rank), _ in cases():
        train = converted(layer.double(), shape, rank)
        array = as_array(layer.weight, shape)
        with tl.backend_context("numpy"):
            theirs = tl.tt_to_tensor(tensor_train(array.numpy(), [1, *(len(core) for core in train.cores), 1]))
        ours = as_array(torch.from_numpy(dense_weight(train, layer, shape)), shape)
        worst = max(worst, float((ours - torch.from_numpy(theirs.copy())).abs().max() / array.abs().max()))
    return worst


@torch.no_grad()
def claim_plain_train_is_low_rank_matrix(lab: Lab) -> float:
    """Largest relative difference of the error of a 1x1 kernel's plain train from that of its truncated SVD."""
    torch.manual_seed(0)
    worst, layer = 0.0, nn.Conv2d(20, 30, 1).double()
    for rank in (1, 4, 11):
        train = converted(layer, plain_modes(layer), rank)
        error = np.linalg.norm(layer.weight.numpy() - dense_weight(train, layer, plain_modes(layer)))
        low = truncated_svd(layer, rank)
        least = np.linalg.norm(layer.weight[..., 0, 0].numpy() - (low[1].weight[..., 0, 0] @ low[0].weight[..., 0, 0]).numpy())
        worst = max(worst, abs(float(error / least) - 1))
    return worst


@torch.no_grad()
def claim_rank_of_the_matrix(lab: Lab) -> float:
    """Smallest share of the full rank that the weight of a reshaped train has, of a rank at which a plain train has less."""
    torch.manual_seed(0)
    shares = []
    for layer, shape in ((nn.Conv2d(16, 32, 3), modes([4, 2, 2], [4, 4, 2])), (nn.Linear(27, 24), modes([3, 3, 3], [3, 4, 2]))):
        reshaped, low = train_of(layer, shape, 3), train_of(layer, plain_modes(layer), 3)
        weights = [dense_weight(reshaped, layer, shape), dense_weight(low, layer, plain_modes(layer))]
        ranks = [int(np.linalg.matrix_rank(weight.reshape(len(weight), -1))) for weight in weights]
        shares.append(ranks[0] / min(layer.weight.flatten(1).shape) if ranks[1] == 3 else math.nan)
    return min(shares)


def claim_cost_formula(lab: Lab) -> float:
    """Largest difference from l^2 r_0 + sum_k r_{k-1} C_k S_k r_k numbers and from the multiply-adds of one core after another."""
    worst = 0.0
    for (layer, shape, rank), x in cases():
        train, area = train_of(layer, shape, rank), layer.weight[0, 0].numel()
        ranks = [len(core) for core in train.cores] + [1]
        places = layer(x)[0, 0].numel() * len(x) if isinstance(layer, nn.Conv2d) else x[..., 0].numel()
        conv, (first_c, first_s) = isinstance(layer, nn.Conv2d), shape[0]
        numbers = conv * area * ranks[0] + (0 if layer.bias is None else len(layer.bias))
        once = conv * (ranks[0] > 1) * area * ranks[0] * first_c * first_s * ranks[1]  # G_0 G_1; one filter sums nothing
        work = 0
        for k, (c, s) in enumerate(shape):
            numbers += ranks[k] * c * s * ranks[k + 1]
            inward = area if conv and k == 0 else ranks[k]
            work += math.prod(s for _, s in shape[: k + 1]) * math.prod(c for c, _ in shape[k:]) * inward * ranks[k + 1]
        worst = max(worst, abs(count(train) - numbers), abs(multiply_adds(train, x) - once - work * places))
    return worst


def claim_parameters(lab: Lab, case: str) -> float:
    """Millions."""
    return count(on_meta(lambda: build(case))) / 1e6


def claim_compression(lab: Lab, case: str) -> float:
    """How many times fewer parameters than without trains."""
    small, large = on_meta(lambda: build(case)), on_meta(lambda: build(case.replace("TT-", "")))
    for network in (small, large):
        multiply_adds(network, torch.empty(1, 3, 32, 32, device="meta"))  # it runs
    return count(large) / count(small)


def claim_gaussian_start(lab: Lab) -> float:
    """Largest distance from 1 of the ratio of deviations found and wanted, and of the fourth moment found and a normal one's."""
    torch.manual_seed(0)
    train = train_of(nn.Conv2d(512, 64, 7), modes([8, 8, 8], [4, 4, 4]), 32)
    assert isinstance(train, TTConv)
    fourth = [float((core.detach() / core.detach().std()).pow(4).mean() / 3) for core in train.cores[:2]]
    wide = [(train.filters.weight, 49 + 49 * 32), (train.cores[0], 32 * 8 + 4 * 32), (train.cores[2], 32 * 8 + 4)]
    single = train_of(nn.Conv2d(4, 4, 1), modes([4], [4]), 2)
    assert isinstance(single, TTConv)
    found = [float(core.detach().std()) * math.sqrt(width / 2) for core, width in wide]
    return max(
        abs(ratio - 1) for ratio in [*fourth, *found, float(single.filters.weight.detach()), 1 + float(train.bias.detach().abs().max())]
    )


def small_network() -> nn.Sequential:
    """Convolutions and dense layers with and without batch norm, a stride, groups, a layer too small to shrink."""
    body = nn.Sequential(
        nn.Conv2d(16, 64, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 48, 1, bias=False), nn.BatchNorm2d(48), nn.Conv2d(48, 2, 1),
    )  # fmt: skip
    head = nn.Sequential(nn.Linear(8, 210), nn.ReLU(), nn.Linear(210, 128), nn.BatchNorm1d(128), nn.Linear(128, 5))
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), head)


def claim_each_layer_its_train(lab: Lab) -> float:
    """How many layers of a small network are planned or assembled otherwise than by hand."""
    model, config = small_network(), Config(rank=4, dense_rank=6)
    wanted = {
        "2.0": [(4, 2, 4, 4), (4, 4, 4, 4), (4, 2, 4, 1)],
        "2.3": [(1, 4, 3, 4), (4, 4, 4, 4), (4, 4, 4, 1)],
        "5.0": [(1, 1, 2, 2), (2, 2, 5, 6), (6, 2, 7, 6), (6, 2, 3, 1)],
        "5.2": [(1, 2, 2, 4), (4, 5, 4, 6), (6, 7, 4, 6), (6, 3, 4, 1)],
    }
    trains, kept = plan(model, config)
    shapes = {name: [tuple(core.shape) for core in train.cores] for name, train in trains.items()}
    wrong = sum(shapes.get(name) != wanted.get(name) for name in {*shapes, *wanted}) + (set(kept) != {"0", "2.2", "2.5", "5.4"})
    whole = assembled(model, trains)
    for name, train in trains.items():
        part, norm = whole.get_submodule(name), {"2.0": nn.BatchNorm2d, "5.0": nn.BatchNorm1d}.get(name)
        wrong += part is not train if norm is None else [type(layer) for layer in part.children()] != [type(train), norm]
    splits = {(64, 3): [4, 4, 4], (128, 3): [4, 8, 4], (30, 2): [5, 6], (7, 3): [1, 7, 1], (1, 2): [1, 1], (512, 3): [8, 8, 8]}
    return wrong + sum(
        sorted(split(*case)) != sorted(parts) or max(parts) != split(*case)[len(parts) // 2] for case, parts in splits.items()
    )


def claim_forgets_the_weights(lab: Lab) -> float:
    """Largest difference between what comes of two networks of other weights, and from noise that is trained here."""
    images = Split(torch.randn(16, 3, 8, 8), torch.arange(16) % 5)
    task, config = Task("noise", images, images, images, steps=2, batch=8), Config(rank=4, dense_rank=4, batch=4)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = small_network()
        torch.manual_seed(0)
        found.append(compress(model, task, config).state_dict())
    torch.manual_seed(0)
    found.append(fit(assembled(model, plan(model, config)[0]), replace(task, batch=4), lr=0.1).state_dict())
    return max(float((other[key] - weight).abs().max()) for key, weight in found[0].items() for other in found[1:])


def claim_saves_parameters(lab: Lab) -> float:
    return lab.after.parameters / lab.before.parameters


def claim_beats_plain_train(lab: Lab) -> float:
    """Difference of the accuracies at the rank of a smoke run."""
    config = replace(lab.config, rank=SMOKE.rank)
    reshaped, as_it_is = compress(lab.reference, lab.task, config), control_plain(lab.reference, lab.task, config, lab.reference)
    return lab.task.score(reshaped, lab.task.test) - lab.task.score(as_it_is, lab.task.test)


def claim_beats_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy


def claim_beats_tucker(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("tucker").accuracy


def claim_accuracy_lost(lab: Lab) -> float:
    """Accuracy of the authors' own network less that of the same with trains, both trained here."""
    dense, train = (lab.task.score(fit(build(variant), lab.task, lr=lab.config.rate), lab.task.test) for variant in ("conv", "TT-conv"))
    return dense - train
