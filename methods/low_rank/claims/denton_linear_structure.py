"""The claims of Biclustering and SVD."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import tensorly as tl
import torch
import torch.nn.functional as F
from tensorly.decomposition import parafac
from torch import Tensor, nn
from torch.func import functional_call

from methods.kit.lab import Lab
from methods.kit.layers import (
    patches,
    replaced,
    responses,
)  # fmt: skip
from methods.kit.measure import multiply_adds
from methods.kit.nets import count
from methods.kit.task import Task
from methods.kit.testing import convolutions, images_only, relative_error, won_back
from methods.low_rank import denton_linear_structure as method


@torch.no_grad()
def claim_cost_formula(lab: Lab) -> list[float]:
    """Largest difference from C C' + d e F, G H (C/G K1 + K1 d e K2 + K2 F/H) and G H K (C/G + d e + F/H), numbers and multiply-adds."""
    found = list[float]()
    for c, f, d, stride in ((12, 24, 3, 1), (12, 24, (5, 3), (3, 2))):
        layer, image = nn.Conv2d(c, f, d, stride, (2, 1), bias=False), torch.zeros(1, c, 12, 12)
        area, places = layer.weight[0, 0].numel(), layer(image)[0, 0].numel()
        cases: list[tuple[Callable[..., Any], method.Config, int, int]] = [
            (method.monochromatic, method.Config(colours=7), c * 6, area * f),
            (method.biclustered, method.Config(inputs=4, outputs=5, k1=0.7, k2=0.5), 16 * 3 * 2, 16 * (2 * area * 3 + 3 * 6)),
            (
                method.biclustered,
                method.Config(inputs=c, outputs=1, k1=0.01),
                c,
                c * min(12, area) * (area + f),
            ),  # K1 at least 1, K2 at most a rank
            (method.biclustered, method.Config(inputs=1, outputs=1, k1=1, k2=0.01), c * min(12, area), min(12, area) * area + f),
            (method.biclustered, method.Config(block="outer", inputs=5, outputs=2, terms=3), 8 * 3 * 3, 8 * 3 * (area + 12)),
        ]
        for build, config, before, after in cases:
            part = build(layer, method.frobenius(layer), config)
            found += [abs(count(part) - before - after), abs(multiply_adds(part, image) - 144 * before - places * after)]
            found.append(abs(method.work(part) - before * layer.stride[0] * layer.stride[1] - after))
    return found


def kernel_of(chain: nn.Module, layer: nn.Conv2d) -> Tensor:
    """The kernel (F, C, d, e) that a chain amounts to: its answers to patches with a single point."""
    points = torch.eye(layer.weight[0].numel()).to(layer.weight).view(-1, *layer.weight.shape[1:])
    answers: Tensor = chain(points)[:, :, int(layer.padding[0]), int(layer.padding[1])]
    return answers.T.view_as(layer.weight)


def clusters_of(chain: Any, g: int, h: int) -> tuple[Any, Any]:
    """Input channels (G, C/G) and output channels (H, F/H) of a biclustered layer."""
    return chain[0].order.view(g, -1), chain[-1].order.argsort().view(h, -1)


def dropped(matrix: Any, rank: int) -> float:
    """Squares of the singular values beyond a rank."""
    return float((np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2).sum())


def product_metric(layer: nn.Conv2d) -> tuple[method.Metric, Any]:
    """Random weights for channels, places and outputs, and the layer's kernel scaled by their roots."""
    channel, place, output = (torch.rand(n).double() + 0.1 for n in (layer.in_channels, layer.weight[0, 0].numel(), layer.out_channels))
    patch = torch.kron(channel, place)
    return (patch.diag(), output), (output[:, None] * patch.sqrt()).view_as(layer.weight)


@torch.no_grad()
def claim_dropped_spectrum(lab: Lab) -> list[float]:
    """Relative distance of the squared error to the spectrum that both SVDs drop in every block, weighted or not."""
    torch.manual_seed(0)
    found, layer = list[float](), nn.Conv2d(8, 15, (3, 2), bias=False).double()
    for metric, scale in ((method.frobenius(layer), 1), product_metric(layer)):
        chain = method.biclustered(layer, metric, method.Config(inputs=2, outputs=3, k1=0.5, k2=0.4))
        wanted, left = (scale * layer.weight).numpy(), scale * (layer.weight - kernel_of(chain, layer))
        into, out = clusters_of(chain, 2, 3)
        total = 0.0
        for rows, columns in product(out, into):
            block = wanted[rows][:, columns].reshape(5, -1)
            _, s, w = np.linalg.svd(block, full_matrices=False)
            narrow = (s[:2, None] * w[:2]).reshape(2, 4, 6).swapaxes(0, 1).reshape(4, -1)
            total += dropped(block, 2) + dropped(narrow, 2)
        found.append(abs(float(left.square().sum()) / total - 1))
    return found


@torch.no_grad()
def claim_least_response_error(lab: Lab) -> list[float]:
    """Largest ratio of the output error to that of the best kernel of the rank, sought by alternating least squares on the responses."""
    torch.manual_seed(0)
    chance, ratios = np.random.default_rng(0), []
    images = torch.einsum("cs,nshw->nchw", torch.randn(6, 6), torch.randn(40, 6, 7, 7).cumsum(3)).double() + 1
    for layer, k1, k2 in ((nn.Conv2d(6, 10, 3, padding=1, bias=False), 1.0, 0.3), (nn.Conv2d(6, 10, 1, bias=False), 0.5, 1.0)):
        config, seen = method.Config(inputs=1, outputs=1, k1=k1, k2=k2, images=30), images[:30]
        model: Any = nn.Sequential(nn.Conv2d(6, 6, 1, bias=False), layer).double()
        nn.init.dirac_(model[0].weight)  # hands the images on
        chain = method.approximated(model, "1", images_only(images), config)
        x, y = patches(layer, seen).flatten(0, 1).numpy(), layer(seen).flatten(2).transpose(1, 2).flatten(0, 1).numpy()
        best = list[float]()
        for _ in range(3):
            b = chance.standard_normal((3, 10))
            for _ in range(30):
                a = np.linalg.lstsq(x, y @ np.linalg.pinv(b), rcond=None)[0]
                b = np.linalg.lstsq(x @ a, y, rcond=None)[0]
            best.append(float(np.linalg.norm(y - x @ a @ b)))
        ratios.append(float((chain(seen) - layer(seen)).norm() / np.min(best)))
    return list(ratios)


def claim_gradients_of_likely_mistakes(lab: Lab) -> list[float]:
    """Largest relative error of the weights of patches and outputs, beside finite differences of the loss on wrong labels."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 2)
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(12, 5)).double()
    images, labels, step = torch.randn(4, 2, 3, 3).double(), torch.arange(4), 1e-5
    patch, output = method.mahalanobis(layer, model, images_only(images, labels), method.Config(images=3, wrong=2))

    def losses(move: Tensor) -> Tensor:
        moved = {"0.weight": layer.weight + move.view_as(layer.weight)}
        return -functional_call(model, moved, images[:3]).log_softmax(1)

    ranked = model(images[:3]).argsort(descending=True).tolist()
    wrong = torch.tensor([[k for k in row if k != label][:2] for label, row in enumerate(ranked)])
    slopes = [(losses(move) - losses(-move)) / (2 * step) for move in step * torch.eye(24).double()]
    alpha = torch.stack([slope.detach().gather(1, wrong).square().sum() for slope in slopes]).view(3, 8)
    wanted = [alpha.mean(0) / alpha.mean(), (alpha.mean(1) / alpha.mean()).sqrt()]
    return [float((found / want - 1).abs().max()) for found, want in zip((patch.diagonal(), output), wanted, strict=True)]


def least_distance(rows: Any, left: list[int], size: int) -> float:
    """The least sum of squared distances from clusters' lines, of all ways to cut these rows into clusters of this size."""
    ways = combinations(left[1:], size - 1) if left else ()
    rest = ((others, [k for k in left[1:] if k not in others]) for others in ways)
    found = [dropped(rows[[left[0], *others]], 1) + least_distance(rows, after, size) for others, after in rest]
    return float(np.min(found)) if left else 0.0


def claim_clusters_by_enumeration(lab: Lab) -> list[float]:
    """Largest ratio of the squared distance from the clusters' lines to that of the best of all partitions into equal clusters."""

    def ratio(rows: Any, members: Tensor, clusters: int) -> float:
        everyone = list(range(len(rows)))
        if len(members) != clusters or sorted(members.flatten().tolist()) != everyone:
            return math.inf
        found = sum(dropped(rows[cluster], 1) for cluster in members.tolist())
        return (found + 1e-9) / (least_distance(rows, everyone, len(rows) // clusters) + 1e-9)

    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 2, bias=False).double()
    metric, scale = product_metric(layer)
    weighty, chance = (scale * layer.weight).detach().numpy(), np.random.default_rng(0)
    into, out = clusters_of(method.biclustered(layer, metric, method.Config(inputs=2, outputs=3)), 2, 3)
    found = [ratio(weighty.swapaxes(0, 1).reshape(6, -1), into, 2), ratio(weighty.reshape(6, -1), out, 3)]
    colours: Any = method.monochromatic(layer, method.frobenius(layer), method.Config(colours=3))
    first = np.linalg.svd(layer.weight.detach().flatten(2).numpy())[0][:, :, 0]
    found.append(ratio(first, colours[-1].order.argsort().view(3, -1), 3))
    for number, clusters, width, uneven in ((8, 2, 3, 0), (6, 3, 2, 0), (9, 3, 20, 0), (4, 4, 2, 0), (8, 2, 3, 1), (9, 3, 5, 1)):
        planted = np.minimum(np.arange(number) % (clusters + uneven), clusters - 1)
        centres = chance.standard_normal((clusters, width))[chance.permutation(planted)]
        rows = centres * chance.choice([-2, -1, 1, 2], (number, 1)) + 0.2 * chance.standard_normal((number, width))
        found.append(ratio(rows, method.clustered(torch.from_numpy(rows), clusters), clusters))
    return found


@torch.no_grad()
def claim_outer_products_as_good_as_parafac(lab: Lab) -> list[float]:
    """Largest ratio of the weighted error to that of tensorly's best rank-one terms, one after the other, in the same blocks."""
    torch.manual_seed(0)
    ratios, config = [], method.Config(block="outer", inputs=2, outputs=2, terms=2)
    for _ in range(2):
        layer = nn.Conv2d(6, 8, (3, 2), bias=False).double()
        metric, scale = product_metric(layer)
        chain, theirs = method.biclustered(layer, metric, config), 0.0
        into, out = clusters_of(chain, 2, 2)
        for rows, columns in product(out, into):
            left = (scale * layer.weight)[rows][:, columns].flatten(2).numpy()
            for _ in range(config.terms):
                with tl.backend_context("numpy"):
                    left = left - tl.cp_to_tensor(parafac(left, 1, n_iter_max=200, tol=1e-12, init="svd"))
            theirs += float((left**2).sum())
        ratios.append(float((scale * (layer.weight - kernel_of(chain, layer))).square().sum()) / theirs)
    return list(ratios)


def differences(layer: nn.Conv2d, build: Callable[..., nn.Module], config: method.Config, images: Tensor) -> list[float]:
    """Largest difference of the outputs, relative to the largest, under each metric on these images."""
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    model(images)
    chains = [build(layer, metric(layer, model, images_only(images), config), config) for metric in method.METRICS.values()]
    return [relative_error(chain(images), layer(images)) for chain in chains]


def claim_monochromatic_filters_reproduced(lab: Lab) -> list[float]:
    """Largest difference of the outputs, relative to the largest output, where clusters of filters really share colours."""
    torch.manual_seed(0)
    found = list[float]()
    for layer in convolutions(3, 12):
        colours = torch.randn(4, 3)[torch.randperm(12) % 4]
        layer.weight.data = torch.einsum("fc,fij->fcij", colours, torch.randn_like(layer.weight[:, 0]))
        found += differences(layer, method.monochromatic, method.Config(colours=5, images=6, wrong=1), torch.randn(6, 3, 9, 10))
    return found


@torch.no_grad()
def claim_filters_keep_their_first_triple(lab: Lab) -> list[float]:
    """Largest distance of filters' norms to their first singular values, or of a shared colour to the line nearest to its filters'."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 12, (3, 2), bias=False).double()
    chain: Any = method.monochromatic(layer, method.frobenius(layer), method.Config(colours=3))
    kernel, (u, s, _) = kernel_of(chain, layer), np.linalg.svd(layer.weight.flatten(2).numpy(), full_matrices=False)
    if (kernel * layer.weight).flatten(1).sum(1).min() <= 0:  # turned the other way
        return [math.inf]
    found = [float(np.abs(kernel.flatten(1).norm(dim=1).numpy() / s[:, 0] - 1).max())]
    for members, colour in zip(chain[-1].order.argsort().view(3, -1), F.normalize(chain[0].weight.flatten(1)), strict=True):
        found.append(1 - abs(float(np.linalg.svd(u[members, :, 0])[2][0] @ colour.numpy())))
    return found


def claim_blocks_of_low_rank_reproduced(lab: Lab) -> list[float]:
    """Largest difference of the outputs, relative to the largest output, for blocks that are outer products and for full ranks."""
    torch.manual_seed(0)
    found, images = list[float](), torch.randn(6, 6, 9, 10)
    hidden = images * torch.tensor([1, 1, 0, 1, 1, 1])[:, None, None]  # a channel that never shows
    for layer in convolutions():
        found += differences(layer, method.biclustered, method.Config(inputs=5, outputs=5, k1=1, k2=1, images=6), hidden)
        f, c, p = torch.randn(3, 8), torch.randn(2, 6), torch.randn(3, 2, *layer.kernel_size)
        into, out = torch.randperm(6) % 2, torch.randperm(8) % 2
        layer.weight.data = torch.einsum("f,c,fcij->fcij", f[0], c[0], p[out][:, into])
        for block in method.BLOCKS:
            found += differences(layer, method.biclustered, method.Config(block=block, k1=0.1, k2=0.1, terms=1, images=6), images)
    return found


class Backwards(nn.Module):
    """Names its layers in another order than it runs them in, and has a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.second, self.norm, self.first = nn.Linear(12, 3), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(8), nn.Conv2d(4, 8, 3)
        self.third, self.scale = nn.Conv2d(12, 12, 2), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        return self.fc(self.third(self.second(x).relu()).mean((2, 3))) * self.scale


def claim_tunes_what_is_above(lab: Lab) -> float:
    """How many tensors change that are fixed, or stay that are tuned, after each layer's turn, in the order in which they run."""
    torch.manual_seed(0)
    states: dict[str, dict[str, Tensor]] = {}

    def approximate(model: nn.Module, name: str) -> nn.Module:
        states[name] = {key.replace(".0.", "."): value.clone() for key, value in model.state_dict().items()}
        return nn.Sequential(model.get_submodule(name)) if name != "end" else model

    batches = [(torch.randn(8, 4, 8, 8), torch.arange(8) % 3)]
    model = method.cascade(
        Backwards(), Task.from_loaders(batches, batches, batches, steps=6, batch=8), method.Config(rate=0.1), approximate
    )
    approximate(model, "end")
    wrong = int(states["end"]["norm.num_batches_tracked"] != 2)  # a third of the steps
    wrong += sum(not p.requires_grad for p in model.parameters())
    turns, run_order = list(states), ["first", "norm", "second", "third", "fc", "scale"]
    if turns != ["first", "second", "third", "end"]:
        return math.inf
    for turn, after in pairwise(turns):
        for key, value in states[turn].items():
            above = run_order.index(key.split(".")[0]) > run_order.index(turn)
            wrong += torch.equal(value, states[after][key]) == above
    return wrong


def claim_each_layer_its_approximation(lab: Lab) -> float:
    """How many layers of a network are planned wrongly, or replaced by something else than planned."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 10, 1)), nn.Conv2d(10, 24, 3, stride=2), nn.Conv2d(24, 24, 3, groups=2), nn.Conv2d(24, 18, 1),
        nn.Conv2d(18, 4, 2, stride=3), nn.ConvTranspose2d(4, 9, 3), nn.Linear(40, 30),
    )  # fmt: skip
    shapes = {"0.0": [(5, 3), (10, 1)], "1": [(8, 5), (24, 2), (24, 12)], "3": [(16, 12), (16, 4), (18, 8)]}
    config = method.Config(metric="frobenius")
    layers, kept = method.plan(model, config)
    wrong = (set(layers) != set(shapes)) + (set(kept) != {"2", "4", "5", "6"})
    for name, sizes in shapes.items():
        part = method.approximated(model, name, images_only(torch.zeros(1, 3, 11, 231)), config)
        wrong += [tuple(convolution.weight.shape[:2]) for convolution in part if isinstance(convolution, nn.Conv2d)] != sizes
    return wrong


@torch.no_grad()
def claim_clusters_fit_better(lab: Lab) -> float:
    """Error of the blocks' kernels, of that of blocks of consecutive channels: the geometric mean of the second and third layer."""

    def consecutive(rows: Tensor, count: int) -> Tensor:
        return torch.arange(len(rows)).view(count, -1)

    ratio = 1.0
    for layer in list(method.plan(lab.reference, lab.config)[0].values())[1:3]:
        for partition, power in ((method.clustered, 0.5), (consecutive, -0.5)):
            chain = method.biclustered(layer, method.frobenius(layer), lab.config, partition)
            ratio *= float((layer.weight - kernel_of(chain, layer)).norm()) ** power
    return ratio


@cache
def untuned(lab: Lab, metric: str, name: str) -> nn.Module:
    """A layer of the reference as the metric approximates it."""
    return method.approximated(lab.reference, name, lab.task, replace(lab.config, metric=metric))


def alone(lab: Lab, metric: str) -> Iterator[tuple[str, nn.Module]]:
    """The network with one of its first two layers approximated and nothing tuned."""
    for name in list(method.plan(lab.reference, lab.config)[0])[:2]:
        yield name, replaced(lab.reference, {name: untuned(lab, metric, name)})


def claim_covariance_lowers_response_error(lab: Lab) -> float:
    """Output error of the first two layers on held-out images, each on its own, of that under the Frobenius norm: the geometric mean."""
    images, ratio = lab.held_out(64).images.to(lab.task.device), 1.0
    wanted = responses(lab.reference, images, list(method.plan(lab.reference, lab.config)[0])[:2])
    for metric, power in (("covariance", 0.5), ("frobenius", -0.5)):
        for name, small in alone(lab, metric):
            ratio *= float((responses(small, images, [name])[name] - wanted[name]).norm()) ** power
    return ratio


def claim_metric_keeps_accuracy(lab: Lab, case: str) -> float:
    """Accuracy with one of the first two layers approximated and nothing tuned, less that under the Frobenius norm: the mean."""
    ours, theirs = ([lab.score(net) for _, net in alone(lab, metric)] for metric in (case, "frobenius"))
    return float(np.mean(ours) - np.mean(theirs))


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_fine_tuning_helps(lab: Lab) -> float:
    """Share of the accuracy lost in the approximation of all layers that fine-tuning wins back."""
    parts = {name: untuned(lab, lab.config.metric, name) for name in method.plan(lab.reference, lab.config)[0]}
    cut = lab.score(replaced(lab.reference, parts))
    return won_back(lab, cut)


def claim_beats_truncated_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy
