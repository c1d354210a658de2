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
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import tensorly as tl
import torch
from tensorly.decomposition import tensor_train
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import Layer, fresh, geometry, name_the_kept, replaceable, replaced, responses, runs, truncated_svd, within
from methods.kit.measure import multiply_adds
from methods.kit.nets import conv_bn, count, on_meta, trained
from methods.kit.task import Split, Task, on_copies
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
            if not core.is_meta:  # there, torch imports symbolic algebra to draw nothing; equivalent: only slower
                nn.init.normal_(core, std=math.sqrt(2 / (r * c + s * t)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., S)."""
        return contract(x.reshape(-1, x.shape[-1]), self.cores).reshape(*x.shape[:-1], -1)


class Filters(nn.Conv2d):
    """G_0[x, y], r_0 filters that every channel meets: Gaussian noise, too; the only number of a 1x1 kernel starts as 1."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # equivalent: as above
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
        x = x.unflatten(1, (first.shape[1], -1)).transpose(1, 2)  # (N, c_2 ... c_d, c_1, H, W); equivalent: a transpose is symmetric
        y = self.filters._conv_forward(x.flatten(0, 1), kernel, None)
        y = y.unflatten(0, (n, -1)).transpose(1, 2)  # (N, s_1 r_1, c_2 ... c_d, H', W'); equivalent: a transpose is symmetric
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
    sizes = [layer.weight[0, 0].numel(), *(c * s for c, s in shape)]  # equivalent: all positions are alike
    ranks = [min(rank, math.prod(sizes[: k + 1]), math.prod(sizes[k + 1 :])) for k in range(len(sizes))]  # equivalent: min is symmetric
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


def claim_gaussian_start(lab: Lab) -> float:
    """Largest distance from 1 of the ratio of deviations found and wanted, and of the fourth moment found and a normal one's."""
    torch.manual_seed(0)
    train = train_of(nn.Conv2d(512, 64, 7), [(8, 4), (8, 4), (8, 4)], 32)
    assert isinstance(train, TTConv)
    fourth = [float((core.detach() / core.detach().std()).pow(4).mean() / 3) for core in train.cores[:2]]
    wide = [(train.filters.weight, 49 + 49 * 32), (train.cores[0], 32 * 8 + 4 * 32), (train.cores[2], 32 * 8 + 4)]
    single = train_of(nn.Conv2d(4, 4, 1), [(4, 4)], 2)
    assert isinstance(single, TTConv)
    found = [float(core.detach().std()) * math.sqrt(width / 2) for core, width in wide]
    return max(abs(ratio - 1) for ratio in [*fourth, *found, float(single.filters.weight.detach())])


def small_network() -> nn.Sequential:
    """Convolutions and dense layers with and without batch norm, a stride, groups, a layer too small to shrink."""
    body = nn.Sequential(
        nn.Conv2d(16, 64, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 48, 1, bias=False), nn.BatchNorm2d(48), nn.Conv2d(48, 2, 1),
    )  # fmt: skip
    head = nn.Sequential(nn.Linear(8, 210), nn.ReLU(), nn.Linear(210, 128), nn.BatchNorm1d(128), nn.Linear(128, 5))
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), head, nn.Identity())


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
    whole = from_noise(model, trains)
    for name, train in trains.items():
        part, norm = whole.get_submodule(name), {"2.0": nn.BatchNorm2d, "5.0": nn.BatchNorm1d}.get(name)
        inside = [part] if norm is None else list(part.children())
        wrong += [type(layer) for layer in inside] != [type(train), *filter(None, [norm])]
        wrong += [core.shape for core in inside[0].cores] != [core.shape for core in train.cores]
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
    found.append(fit(from_noise(model, plan(model, config)[0]), replace(task, batch=4), lr=0.1).state_dict())
    return max(float((other[key] - weight).abs().max()) for key, weight in found[0].items() for other in found[1:])


def claim_controls_of_equal_size(lab: Lab) -> float:
    """Largest difference of a control's numbers from those of the method, as a share; infinite after other steps of training."""
    images = Split(torch.randn(8, 3, 4, 4), torch.arange(8) % 2)
    task, config = Task("noise", images, images, images, steps=2), Config(batch=4, rank=10, dense_rank=16)
    convs = [nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 128, 2, bias=False)]
    model = nn.Sequential(*convs, nn.Flatten(), nn.Linear(128, 128, bias=False), nn.Linear(128, 2))
    numbers, apart = count(compress(model, task, config)), [0.0]
    for control in (control_plain, control_svd, control_tucker):
        other = control(model, task, config, model)
        assert isinstance(other, nn.Sequential)
        apart.append(abs(count(other) / numbers - 1) if int(other[1].num_batches_tracked) == task.steps else math.inf)
    return max(apart)


def dense_weight(train: TTLinear, layer: Layer, shape: Modes) -> Tensor:
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
    return torch.from_numpy(weight).reshape(layer.weight.shape)


Case = tuple[Layer, Modes, int]


def cases() -> list[tuple[Case, Tensor]]:
    """Layers with their modes, ranks and inputs: strides, padding, dilation, lone kernels, factors of one, vectors and sequences."""
    torch.manual_seed(0)
    image, conv, dense = torch.randn(2, 12, 9, 10), partial(nn.Conv2d, 12, bias=False), partial(nn.Linear, bias=False)
    return [
        ((conv(8, 3, stride=2, padding=1), [(2, 2), (3, 1), (2, 4)], 5), image),
        ((conv(10, (2, 3), stride=(1, 2), padding=(0, 2), dilation=(2, 1)), [(3, 5), (4, 2)], 4), image),
        ((conv(7, 3, padding="same", padding_mode="circular"), [(3, 1), (2, 7), (2, 1)], 3), image),
        ((conv(18, 1, stride=2), [(2, 3), (2, 2), (3, 3)], 6), image),
        ((conv(6, 3, padding=2, padding_mode="reflect"), [(12, 1), (1, 6)], 4), image),
        ((dense(24, 30), [(2, 5), (3, 3), (4, 2)], 7), torch.randn(3, 24)),
        ((dense(16, 6), [(4, 1), (1, 6), (4, 1)], 2), torch.randn(2, 5, 16)),
        ((dense(15, 6), [(15, 6)], 1), torch.randn(4, 15)),
    ]


def gap(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def claim_forward_equals_dense(lab: Lab) -> float:
    """Largest relative difference of the outputs."""
    worst = 0.0
    for (layer, shape, rank), x in cases():
        train = train_of(layer, shape, rank)
        layer.weight.copy_(dense_weight(train, layer, shape))
        worst = max(worst, gap(train(x), layer(x)))
    return worst


@torch.no_grad()
def claim_rank_of_the_matrix(lab: Lab) -> float:
    """Smallest share of the full rank that the weight of a reshaped train has, of a rank at which a plain train has less."""
    torch.manual_seed(0)
    shares = []
    for layer, shape in ((nn.Conv2d(16, 32, 3), [(4, 4), (2, 4), (2, 2)]), (nn.Linear(27, 24), [(3, 3), (3, 4), (3, 2)])):
        reshaped, low = train_of(layer, shape, 3), train_of(layer, plain_modes(layer), 3)
        weights = [dense_weight(reshaped, layer, shape), dense_weight(low, layer, plain_modes(layer))]
        ranks = [int(torch.linalg.matrix_rank(weight.flatten(1))) for weight in weights]
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
        numbers = conv * area * ranks[0]
        once = conv * (ranks[0] > 1) * area * ranks[0] * first_c * first_s * ranks[1]  # G_0 G_1; one filter sums nothing
        work = 0
        for k, (c, s) in enumerate(shape):
            numbers += ranks[k] * c * s * ranks[k + 1]
            inward = area if conv and k == 0 else ranks[k]
            work += math.prod(s for _, s in shape[: k + 1]) * math.prod(c for c, _ in shape[k:]) * inward * ranks[k + 1]
        worst = max(worst, abs(count(train) - numbers), abs(multiply_adds(train, x) - once - work * places))
    return worst


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
    return train


@torch.no_grad()
def claim_full_ranks_exact(lab: Lab) -> float:
    """Largest relative difference of the outputs; a row and a column of the weight are zero."""
    worst = 0.0
    for (layer, shape, _), x in cases():
        layer.weight[0] = layer.weight[:, 0] = 0
        worst = max(worst, gap(converted(layer, shape, 10**6)(x), layer(x)))
    return worst


@torch.no_grad()
def claim_error_within_bound(lab: Lab) -> float:
    """Largest ratio of the squared error to the sum over unfoldings of the spectrum that their rank drops."""
    ratios = []
    for (layer, shape, rank), _ in cases():
        train = converted(layer.double(), shape, rank)
        error = float((layer.weight - dense_weight(train, layer, shape)).square().sum())
        array, dropped = as_array(layer.weight, shape), 0.0
        for k, core in enumerate(train.cores):
            spectrum = torch.linalg.svdvals(array.reshape(math.prod(array.shape[: k + 1]), -1))
            dropped += float(spectrum[len(core) :].square().sum())
        if dropped:
            ratios.append(error / dropped)
    return max(ratios)


@torch.no_grad()
def claim_as_close_as_tensorly(lab: Lab) -> float:
    """Largest relative difference of the weights from those of tensorly's decomposition."""
    worst = 0.0
    for (layer, shape, rank), _ in cases():
        train = converted(layer.double(), shape, rank)
        with tl.backend_context("numpy"):
            theirs = tl.tt_to_tensor(tensor_train(as_array(layer.weight, shape).numpy(), [1, *(len(core) for core in train.cores), 1]))
        worst = max(worst, gap(as_array(dense_weight(train, layer, shape), shape), torch.from_numpy(theirs.copy())))
    return worst


@torch.no_grad()
def claim_plain_train_is_low_rank_matrix(lab: Lab) -> float:
    """Largest relative difference of the error of a 1x1 kernel's plain train from that of its truncated SVD."""
    torch.manual_seed(0)
    worst, layer = 0.0, nn.Conv2d(20, 30, 1).double()
    for rank in (1, 4, 11):
        train, low = converted(layer, plain_modes(layer), rank), truncated_svd(layer, rank)
        error = (layer.weight - dense_weight(train, layer, plain_modes(layer))).norm()
        least = (layer.weight.flatten(1) - low[1].weight.flatten(1) @ low[0].weight.flatten(1)).norm()
        worst = max(worst, abs(float(error / least) - 1))
    return worst


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


def claim_parameters(lab: Lab, case: str) -> float:
    """Millions."""
    return count(on_meta(lambda: build(case))) / 1e6


def claim_compression(lab: Lab, case: str) -> float:
    """How many times fewer parameters than without trains."""
    small, large = on_meta(lambda: build(case)), on_meta(lambda: build(case.replace("TT-", "")))
    for network in (small, large):
        multiply_adds(network, torch.empty(1, 3, 32, 32, device="meta"))  # it runs
    return count(large) / count(small)


def claim_saves_parameters(lab: Lab) -> float:
    return lab.after.parameters / lab.before.parameters


def claim_beats_plain_train(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("plain").accuracy


def claim_beats_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy


def claim_beats_tucker(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("tucker").accuracy


def claim_accuracy_lost(lab: Lab) -> float:
    """Accuracy of the authors' own network less that of the same with trains, both trained here."""
    dense, train = (lab.task.score(fit(build(variant), lab.task, lr=lab.config.rate), lab.task.test) for variant in ("conv", "TT-conv"))
    return dense - train
