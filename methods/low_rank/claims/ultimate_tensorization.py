"""The claims of TT-conv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import tensorly as tl
import torch
from tensorly.decomposition import tensor_train
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import Layer, truncated_svd
from methods.kit.measure import multiply_adds
from methods.kit.nets import count, on_meta
from methods.kit.task import Split
from methods.kit.testing import relative_error, toy_task
from methods.kit.train import fit
from methods.low_rank import ultimate_tensorization as method


def claim_gaussian_start(lab: Lab) -> list[float]:
    """Largest distance from 1 of the ratio of deviations found and wanted, and of the fourth moment found and a normal one's."""
    torch.manual_seed(0)
    train = method.train_of(nn.Conv2d(512, 64, 7), [(8, 4), (8, 4), (8, 4)], 32)
    assert isinstance(train, method.TTConv)
    fourth = [float((core.detach() / core.detach().std()).pow(4).mean() / 3) for core in train.cores[:2]]
    wide = [(train.filters.weight, 49 + 49 * 32), (train.cores[0], 32 * 8 + 4 * 32), (train.cores[2], 32 * 8 + 4)]
    single = method.train_of(nn.Conv2d(4, 4, 1), [(4, 4)], 2)
    assert isinstance(single, method.TTConv)
    found = [float(core.detach().std()) * math.sqrt(width / 2) for core, width in wide]
    return [abs(ratio - 1) for ratio in [*fourth, *found, float(single.filters.weight.detach())]]


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
    model, config = small_network(), method.Config(rank=4, dense_rank=6)
    wanted = {
        "2.0": [(4, 2, 4, 4), (4, 4, 4, 4), (4, 2, 4, 1)],
        "2.3": [(1, 4, 3, 4), (4, 4, 4, 4), (4, 4, 4, 1)],
        "5.0": [(1, 1, 2, 2), (2, 2, 5, 6), (6, 2, 7, 6), (6, 2, 3, 1)],
        "5.2": [(1, 2, 2, 4), (4, 5, 4, 6), (6, 7, 4, 6), (6, 3, 4, 1)],
    }
    trains, kept = method.plan(model, config)
    shapes = {name: [tuple(core.shape) for core in train.cores] for name, train in trains.items()}
    wrong = sum(shapes.get(name) != wanted.get(name) for name in {*shapes, *wanted}) + (set(kept) != {"0", "2.2", "2.5", "5.4"})
    whole = method.from_noise(model, trains)
    for name, train in trains.items():
        part, norm = whole.get_submodule(name), {"2.0": nn.BatchNorm2d, "5.0": nn.BatchNorm1d}.get(name)
        inside = [part] if norm is None else list(part.children())
        wrong += [type(layer) for layer in inside] != [type(train), *filter(None, [norm])]
        wrong += [core.shape for core in inside[0].cores] != [core.shape for core in train.cores]
    splits = {(64, 3): [4, 4, 4], (128, 3): [4, 8, 4], (30, 2): [5, 6], (7, 3): [1, 7, 1], (1, 2): [1, 1], (512, 3): [8, 8, 8]}
    return wrong + sum(
        sorted(method.split(*case)) != sorted(parts) or sorted(parts)[-1] != method.split(*case)[len(parts) // 2]
        for case, parts in splits.items()
    )


def claim_forgets_the_weights(lab: Lab) -> list[float]:
    """Largest difference between what comes of two networks of other weights, and from noise that is trained here."""
    images = Split(torch.randn(16, 3, 8, 8), torch.arange(16) % 5)
    task, config = toy_task(images, steps=2, batch=8), method.Config(rank=4, dense_rank=4, batch=4)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = small_network()
        torch.manual_seed(0)
        found.append(method.compress(model, task, config).state_dict())
    torch.manual_seed(0)
    found.append(fit(method.from_noise(model, method.plan(model, config)[0]), replace(task, batch=4), lr=0.1).state_dict())
    return [float((other[key] - weight).abs().max()) for key, weight in found[0].items() for other in found[1:]]


def claim_controls_of_equal_size(lab: Lab) -> list[float]:
    """Largest difference of a control's numbers from those of the method, as a share; infinite after other steps of training."""
    images = Split(torch.randn(8, 3, 4, 4), torch.arange(8) % 2)
    task, config = toy_task(images, steps=2), method.Config(batch=4, rank=10, dense_rank=16)
    convs = [nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 128, 2, bias=False)]
    model = nn.Sequential(*convs, nn.Flatten(), nn.Linear(128, 128, bias=False), nn.Linear(128, 2))
    numbers, apart = count(method.compress(model, task, config)), [0.0]
    for control in (method.control_plain, method.control_svd, method.control_tucker):
        other = control(model, task, config, model)
        assert isinstance(other, nn.Sequential)
        apart.append(abs(count(other) / numbers - 1) if int(other[1].num_batches_tracked) == task.steps else math.inf)
    return list(apart)


def dense_weight(train: method.TTLinear, layer: Layer, shape: method.Modes) -> Tensor:
    """The weight that a train stands for, entry by entry, its array by tensorly."""
    cores = [core.detach().double().numpy() for core in train.cores]
    filters = train.filters.weight.detach().double().numpy() if isinstance(train, method.TTConv) else np.ones((1, 1))
    chain = [filters.reshape(len(filters), -1).T[None], *(core.reshape(len(core), -1, core.shape[-1]) for core in cores)]
    with tl.backend_context("numpy"):
        array = tl.tt_to_tensor(chain)
    weight = np.empty((*layer.weight.shape[:2], array.shape[0]))
    inputs, outputs = zip(*shape, strict=True)
    for s, c in np.ndindex(weight.shape[:2]):
        digits = zip(np.unravel_index(c, inputs), np.unravel_index(s, outputs), outputs, strict=True)
        weight[s, c] = array[(slice(None), *(c_k * most + s_k for c_k, s_k, most in digits))]
    return torch.from_numpy(weight).reshape(layer.weight.shape)


Case = tuple[Layer, method.Modes, int]


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


@torch.no_grad()
def claim_forward_equals_dense(lab: Lab) -> list[float]:
    """Largest relative difference of the outputs."""
    found = list[float]()
    for (layer, shape, rank), x in cases():
        train = method.train_of(layer, shape, rank)
        layer.weight.copy_(dense_weight(train, layer, shape))
        found.append(relative_error(train(x), layer(x)))
    return found


@torch.no_grad()
def claim_rank_of_the_matrix(lab: Lab) -> list[float]:
    """Smallest share of the full rank that the weight of a reshaped train has, of a rank at which a plain train has less."""
    torch.manual_seed(0)
    shares = []
    for layer, shape in ((nn.Conv2d(16, 32, 3), [(4, 4), (2, 4), (2, 2)]), (nn.Linear(27, 24), [(3, 3), (3, 4), (3, 2)])):
        reshaped, low = method.train_of(layer, shape, 3), method.train_of(layer, method.plain_modes(layer), 3)
        weights = [dense_weight(reshaped, layer, shape), dense_weight(low, layer, method.plain_modes(layer))]
        ranks = [int(torch.linalg.matrix_rank(weight.flatten(1))) for weight in weights]
        full = min(layer.weight.flatten(1).shape)
        shares.append(ranks[0] / full if ranks[1] == 3 else math.nan)
    return list(shares)


def claim_cost_formula(lab: Lab) -> list[float]:
    """Largest difference from l^2 r_0 + sum_k r_{k-1} C_k S_k r_k numbers and from the multiply-adds of one core after another."""
    found = list[float]()
    for (layer, shape, rank), x in cases():
        train, area = method.train_of(layer, shape, rank), layer.weight[0, 0].numel()
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
        found += [abs(count(train) - numbers), abs(multiply_adds(train, x) - once - work * places)]
    return found


def tt_svd(array: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """Cores (r_{k-1}, n_k, r_k) of an array by one SVD after another, each cut to its rank (panel 4; Oseledets 2011)."""
    cores, rest = list[Tensor](), array[None]  # (r_{k-1}, n_k, ...)
    for rank in ranks:
        u, spectrum, v = torch.linalg.svd(rest.flatten(2).flatten(0, 1), full_matrices=False)
        cores.append(u[:, :rank].unflatten(0, rest.shape[:2]))
        rest = (spectrum[:rank, None] * v[:rank]).unflatten(1, rest.shape[2:])
    return [*cores, rest[..., None]]


def as_array(weight: Tensor, shape: method.Modes) -> Tensor:
    """(S, C, l, l) or (S, C) -> (l^2, C_1 S_1, ..., C_d S_d)."""
    inputs, outputs = zip(*shape, strict=True)
    d, digits = len(shape), weight.reshape(*outputs, *inputs, -1)
    return digits.permute(2 * d, *(axis for k in range(d) for axis in (d + k, k))).reshape(-1, *(c * s for c, s in shape))


@torch.no_grad()
def converted(layer: Layer, shape: method.Modes, rank: int) -> method.TTLinear:
    """The train of the layer's own weight."""
    train = method.train_of(layer, shape, rank)
    first, *cores = tt_svd(as_array(layer.weight.double(), shape), [train.cores[0].shape[0], *(core.shape[3] for core in train.cores[:-1])])
    if isinstance(train, method.TTConv):
        train.filters.weight.copy_(first[0].T.reshape(train.filters.weight.shape))
    else:
        cores[0] = first[0, 0, 0] * cores[0]
    for core, found in zip(train.cores, cores, strict=True):
        core.copy_(found.reshape(core.shape))
    return train


@torch.no_grad()
def claim_full_ranks_exact(lab: Lab) -> list[float]:
    """Largest relative difference of the outputs; a row and a column of the weight are zero."""
    found = list[float]()
    for (layer, shape, _), x in cases():
        layer.weight[0] = layer.weight[:, 0] = 0
        found.append(relative_error(converted(layer, shape, 10**6)(x), layer(x)))
    return found


@torch.no_grad()
def claim_error_within_bound(lab: Lab) -> list[float]:
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
    return list(ratios)


@torch.no_grad()
def claim_as_close_as_tensorly(lab: Lab) -> list[float]:
    """Largest relative difference of the weights from those of tensorly's decomposition."""
    found = list[float]()
    for (layer, shape, rank), _ in cases():
        train = converted(layer.double(), shape, rank)
        with tl.backend_context("numpy"):
            theirs = tl.tt_to_tensor(tensor_train(as_array(layer.weight, shape).numpy(), [1, *(len(core) for core in train.cores), 1]))
        found.append(relative_error(as_array(dense_weight(train, layer, shape), shape), torch.from_numpy(theirs.copy())))
    return found


@torch.no_grad()
def claim_plain_train_is_low_rank_matrix(lab: Lab) -> list[float]:
    """Largest relative difference of the error of a 1x1 kernel's plain train from that of its truncated SVD."""
    torch.manual_seed(0)
    found, layer = list[float](), nn.Conv2d(20, 30, 1).double()
    for rank in (1, 4, 11):
        train, low = converted(layer, method.plain_modes(layer), rank), truncated_svd(layer, rank)
        error = (layer.weight - dense_weight(train, layer, method.plain_modes(layer))).norm()
        least = (layer.weight.flatten(1) - low[1].weight.flatten(1) @ low[0].weight.flatten(1)).norm()
        found.append(abs(float(error / least) - 1))
    return found


def claim_parameters(lab: Lab, case: str) -> float:
    """Millions."""
    return count(on_meta(lambda: method.build(case))) / 1e6


def claim_compression(lab: Lab, case: str) -> float:
    """How many times fewer parameters than without trains."""
    small, large = on_meta(lambda: method.build(case)), on_meta(lambda: method.build(case.replace("TT-", "")))
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
    dense, train = (lab.score(fit(method.build(variant), lab.task, lr=lab.config.rate)) for variant in ("conv", "TT-conv"))
    return dense - train
