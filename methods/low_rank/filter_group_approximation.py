"""Filter group approximation (Peng et al., ECCV 2018).

A convolution becomes a grouped convolution as wide as its input and a 1x1 convolution that mixes the groups again. What a
group of input channels contributes to the responses on sample images has few principal directions; keeping those is the
best pair, in closed form. Layers are done in order of depth, in more groups the smaller their maps are, each aimed at
its original responses from what the layers before it now feed. Training the whole network repairs the rest.

Departures: the numbers of groups and images and the rate are this catalogue's. Means are taken out before the principal
directions and put back by a bias of the 1x1 convolution. Where images leave directions unseen, the kernel's own weights stay.
Where the number of groups does not divide a layer's channels, the next smaller one does; no group has more maps than there are
outputs. The first convolution, grouped and dense layers, and what would not get cheaper stay as they are. Training is the kit's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.kit.layers import (
    chunks,
    entering,
    filled,
    geometry,
    name_the_kept,
    patches,
    replaceable,
    replaced,
    responses,
    small_enough,
    truncated_svd,
)  # fmt: skip
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit
from methods.low_rank import jaderberg_low_rank as jaderberg

Moments = tuple[Tensor, Tensor, Tensor, Tensor]  # means of x and z, (g, d) each; covariances of z with z and of x with z, (g, d, d)
UNSEEN = 1e-8  # share of the largest variance below which a direction counts as unseen
AT_ONCE = 32  # images whose patches are in memory


@dataclass(frozen=True)
class Config:
    groups: tuple[int, ...] = (4, 8, 16, 32)  # one number for each size of maps, largest maps first; the last one for the rest, too
    images: int = 512  # unlabelled
    rate: float = 0.01  # of the training that follows


SMOKE = Config(groups=(8, 16, 32), images=64)  # the network's three sizes of maps behind its first layer; seconds
SWEEP = tuple(Config(groups=groups, images=64) for groups in ((1, 2, 4), (2, 4, 8), (4, 8, 16), (8, 16, 32)))  # the 1x1 alone takes 1/9


def reference(task: Task) -> nn.Module:
    """Many channels and no shortcuts, like the paper's VGG."""
    return trained("vgg_wide", task.name)


def in_groups(layer: nn.Conv2d, groups: int) -> Tensor:
    """W = [W_1 ... W_g], each for c/g input channels: (g, n, c/g k^2)."""
    return layer.weight.double().unflatten(1, (groups, -1)).transpose(0, 1).flatten(2)


def maps_of(layer: nn.Conv2d, groups: int) -> int:
    """c/g maps for every group, as many as it has channels."""
    return min(layer.in_channels // groups, layer.out_channels)


def moments(layer: nn.Conv2d, groups: int, fed: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Of the patches x of what the layer saw and z of what it sees now, some images after others, group by group."""
    count, sums = 0, [torch.zeros((), dtype=torch.float64, device=layer.weight.device)] * 4
    for images in (pair for before, after in fed for pair in zip(*(few(layer, groups, part) for part in (before, after)), strict=True)):
        x, z = (patches(layer, part).mT.unflatten(1, (groups, -1)).double() for part in images)  # (images, g, d, places)
        count += len(x) * x.shape[3]
        parts = x.sum(3), z.sum(3), z @ z.mT, x @ z.mT
        sums = [total + part.sum(0) for total, part in zip(sums, parts, strict=True)]
    x, z, zz, xz = (total / count for total in sums)
    return x, z, zz - z[:, :, None] * z[:, None], xz - x[:, :, None] * z[:, None]


def few(layer: nn.Conv2d, groups: int, x: Tensor) -> tuple[Tensor, ...]:
    """Inputs in parts of at most AT_ONCE images, fewer where their patches and covariances take too much memory."""
    inside, places = layer.weight[0].numel(), layer(x[:1])[0, 0].numel()
    least = min(len(part) for part in small_enough(x, 8 * inside * (places + inside // groups))[:1])
    return x.split(min(AT_ONCE, least))


@torch.no_grad()
def paired(layer: nn.Conv2d, groups: int, seen: Moments) -> nn.Sequential:
    """min sum_i E || W_i x_i - A_i B_i z_i - b_i ||^2 for every group on its own: B = blockdiag(B_i), k x k; A = [A_1 ... A_g], 1x1."""
    (x, z, zz, xz), w, maps = seen, in_groups(layer, groups), maps_of(layer, groups)
    # of any rank M = W + W (E[x z'] - E[z z']) E[z z']^+ is best, W itself where z = x; A_i are principal directions of M z
    m = w + w @ (xz - zz) @ torch.linalg.pinv(zz, hermitian=True, rtol=UNSEEN)
    a = torch.linalg.eigh(m @ zz @ m.mT).eigenvectors[:, :, -maps:]
    b = a.mT @ m
    shift = (w @ x[:, :, None] - a @ (b @ z[:, :, None])).sum((0, 2))
    grouped = nn.Conv2d(layer.in_channels, groups * maps, **geometry(layer), groups=groups, bias=False)
    pair = filled(layer, [grouped, nn.Conv2d(groups * maps, layer.out_channels, 1)], [b, a.movedim(1, 0)])
    pair[1].bias.copy_(shift if layer.bias is None else layer.bias + shift)
    return pair


def work(layer: nn.Conv2d, groups: int) -> int:
    """Multiply-adds of the pair for one output position: c (c/g) k^2 + n c."""
    return groups * maps_of(layer, groups) * (layer.weight[0].numel() // groups + layer.out_channels)


def plan(model: nn.Module, image: Tensor, groups: tuple[int, ...], exclude: Iterable[str] = ()) -> tuple[dict[str, int], dict[str, str]]:
    """The number of groups of every layer that gets cheaper, and the reason why each other layer stays as it is."""
    raw = "sees raw pixels, which make no groups"
    layers, kept = replaceable(model, lambda layer, first: raw if first else "", exclude=exclude, image=image)
    maps = {name: answer[0, 0].numel() for name, answer in responses(model, image, layers).items()}
    sizes, chosen = sorted({*maps.values()}, reverse=True), dict[str, int]()
    for name, size in maps.items():
        layer, most = layers[name], groups[min(sizes.index(size), len(groups) - 1)]
        count = max(number for number in range(1, most + 1) if layer.in_channels % number == 0)
        if work(layer, count) < layer.weight.numel():
            chosen[name] = count
        else:
            kept[name] = f"a kernel of {'x'.join(map(str, layer.kernel_size))} saves nothing in groups of {layer.in_channels // count}"
    return chosen, kept


def from_responses(model: nn.Module, groups: Mapping[str, int], images: Tensor) -> nn.Module:
    """Layer after layer: the best pair for the original responses from what the layers approximated so far feed."""
    parts, small = chunks(model, images), model
    for name, number in groups.items():
        layer: Any = model.get_submodule(name)
        before, after = (entering(net, parts, name) for net in (model, small))
        seen = moments(layer, number, ((x, z) for (x, _), (z, _) in zip(before, after, strict=True)))
        small = replaced(small, {name: paired(layer, number, seen)})
    return small


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Choose groups by the size of maps, approximate one layer after the other, train the whole network."""
    images = task.train.first(config.images).images.to(task.device)
    groups, kept = plan(model, images[:1], config.groups, task.exclude)
    name_the_kept("filter groups need a convolution behind the first with a kernel to save on", groups, kept)
    return fit(from_responses(model, groups, images), task, lr=config.rate)


def as_cheap(model: nn.Module, task: Task, config: Config, build: jaderberg.Build) -> nn.Module:
    """The same layers in another decomposition of their kernels, of as many multiply-adds."""
    groups = plan(model, task.train.first(1).images.to(task.device), config.groups, task.exclude)[0]
    layers = {name: model.get_submodule(name) for name in groups}
    ranks = {name: max(1, round(work(layer, groups[name]) / jaderberg.work(layer, build))) for name, layer in layers.items()}
    return replaced(model, {name: build(layer, ranks[name]) for name, layer in layers.items()})


@on_copies
def control_jaderberg(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Columns and rows across all channels (scheme 2), as many multiply-adds, the same training."""
    return fit(as_cheap(model, task, config, jaderberg.scheme2), task, lr=config.rate)


@on_copies
def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Truncated SVDs: fewer maps instead of groups of them, as many multiply-adds, the same training."""
    return fit(as_cheap(model, task, config, truncated_svd), task, lr=config.rate)
