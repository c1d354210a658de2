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
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.kit.lab import Lab
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
    run,
    small_enough,
    truncated_svd,
)  # fmt: skip
from methods.kit.measure import multiply_adds
from methods.kit.nets import trained
from methods.kit.task import Split, Task, on_copies
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
    return layer.weight.double().unflatten(1, (groups, -1)).transpose(0, 1).flatten(2)  # equivalent: transposing is symmetric


def maps_of(layer: nn.Conv2d, groups: int) -> int:
    """c/g maps for every group, as many as it has channels."""
    return min(layer.in_channels // groups, layer.out_channels)  # equivalent: symmetric


def moments(layer: nn.Conv2d, groups: int, fed: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Of the patches x of what the layer saw and z of what it sees now, some images after others, group by group."""
    count, sums = 0, [torch.zeros((), dtype=torch.float64, device=layer.weight.device)] * 4
    for images in (pair for before, after in fed for pair in zip(*(few(layer, groups, part) for part in (before, after)), strict=True)):
        x, z = (patches(layer, part).mT.unflatten(1, (groups, -1)).double() for part in images)  # (images, g, d, places)
        count += len(x) * x.shape[3]
        parts = x.sum(3), z.sum(3), z @ z.mT, x @ z.mT  # equivalent: a sum
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
    m = w + w @ (xz - zz) @ torch.linalg.pinv(zz, hermitian=True, rtol=UNSEEN)  # equivalent: symmetric anyway
    a = torch.linalg.eigh(m @ zz @ m.mT).eigenvectors[:, :, -maps:]
    b = a.mT @ m
    shift = (w @ x[:, :, None] - a @ (b @ z[:, :, None])).sum((0, 2))
    grouped = nn.Conv2d(layer.in_channels, groups * maps, **geometry(layer), groups=groups, bias=False)
    pair = filled(layer, [grouped, nn.Conv2d(groups * maps, layer.out_channels, 1)], [b, a.movedim(1, 0)])  # equivalent: symmetric
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
        layer, most = layers[name], groups[min(sizes.index(size), len(groups) - 1)]  # equivalent: symmetric
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
    images = task.train.first(config.images).images.to(task.device)  # equivalent: there already
    groups, kept = plan(model, images[:1], config.groups, task.exclude)  # equivalent: images are alike in size
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


@torch.no_grad()
def claim_best_pair_of_a_group(lab: Lab) -> float:
    """Largest relative difference of a group's error from what numpy's alternating least squares reaches from random factors."""
    torch.manual_seed(0)
    chance, worst = np.random.default_rng(0), 0.0
    for layer, groups in ((nn.Conv2d(6, 7, 3, stride=2, padding=1).double(), 3), (nn.Conv2d(4, 5, 2, dilation=2).double(), 2)):
        x = torch.randn(40, layer.in_channels, 6, 6).double() + 0.5
        z = torch.relu(x + 0.7 * torch.randn_like(x))
        pair, size = paired(layer, groups, moments(layer, groups, [(x, z)])), layer.in_channels // groups
        total = (pair(z) - layer(x)).mean((0, 2, 3)).abs().max()  # biases put the means where they were
        worst = max(worst, float(total))
        for group in range(groups):
            mine = torch.zeros(layer.in_channels, 1, 1).index_fill_(0, torch.arange(group * size, (group + 1) * size), 1).double()
            y, found, seen = (
                (part - part.mean(0)).numpy()
                for part in (
                    *((f(v * mine)).transpose(0, 1).flatten(1).T for f, v in ((layer, x), (pair, z))),
                    patches(layer, z[:, group * size : (group + 1) * size]).flatten(0, 1),
                )
            )
            a = chance.standard_normal((size, y.shape[1]))
            for _ in range(300):
                b = np.linalg.lstsq(seen, y @ np.linalg.pinv(a), rcond=None)[0]
                a = np.linalg.lstsq(seen @ b, y, rcond=None)[0]
            worst = max(worst, abs(float(np.square(y - found).sum() / np.square(y - seen @ b @ a).sum()) - 1))
    return worst


class Spoiling(nn.Module):
    """Overwrites what it has read, as what comes later may do in place."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        x.zero_()
        return y


@torch.no_grad()
def claim_aims_at_original_responses(lab: Lab) -> float:
    """Relative difference of the second layer's error, its pair of full rank, from numpy's least squares on what the first feeds."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), Spoiling(nn.Conv2d(6, 6, 3)), nn.ReLU(inplace=True), Spoiling(nn.Conv2d(6, 4, 3, bias=False)))
    model, images, groups = nn.Sequential(*layers).double(), torch.randn(40, 3, 9, 9).double(), {"2.layer": 3, "4.layer": 1}
    small, wanted = from_responses(model, groups, images), responses(model, images, groups)["4.layer"]
    fed = dict[str, Tensor]()
    run(small, images, lambda name, z, y: fed.update({name: z.clone()}), groups)
    z = patches(model[4].layer, fed["4.layer"]).flatten(0, 1).numpy()
    y, found = (part.transpose(0, 1).flatten(1).T.numpy() for part in (wanted, small(images)))
    seen = np.concatenate([z, np.ones((len(z), 1))], 1)
    least = np.square(y - seen @ np.linalg.lstsq(seen, y, rcond=None)[0]).sum()
    return abs(float(np.square(y - found).sum() / least) - 1)


def claim_compress_fits_responses(lab: Lab) -> float:
    """Relative difference of what `compress` returns at a rate of zero from pairs fitted in turn to responses on its images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten())
    held = Split(torch.randn(24, 3, 9, 9), torch.zeros(24, dtype=torch.long))
    task = Task("toy", held, held, held, steps=1, batch=8, augmented=False)
    wanted = from_responses(model, {"2": 3, "4": 2}, held.images[:16])(held.images)
    found = compress(model, task, Config(groups=(3, 2), images=16, rate=0.0))(held.images)
    return float((found - wanted).detach().abs().max() / wanted.detach().abs().max())


def white(layer: nn.Conv2d, groups: int) -> Moments:
    """Of inputs without means or correlations: the answer is the truncated SVD of each group's kernel."""
    size = layer.weight[0].numel() // groups
    means, same = torch.zeros(groups, size).to(layer.weight), torch.eye(size).expand(groups, -1, -1).to(layer.weight)
    return means.double(), means.double(), same.double(), same.double()


@torch.no_grad()
def claim_exact_where_rank_allows(lab: Lab) -> float:
    """Largest difference of the outputs, relative to the largest, of fits to kernels and to images with dead channels."""
    torch.manual_seed(0)
    worst, images, seen = 0.0, torch.randn(2, 6, 12, 13), torch.randn(3, 6, 8, 8) * torch.tensor([1.0, 0, 1, 2, 0, 1]).reshape(6, 1, 1)
    cases: list[tuple[nn.Conv2d, int]] = [
        (nn.Conv2d(6, 6, 3, stride=(2, 1), padding=(1, 2)), 1),
        (nn.Conv2d(6, 4, (3, 5), padding=2, dilation=(1, 2), bias=False), 1),
        (nn.Conv2d(6, 5, (2, 3), padding="same", padding_mode="circular"), 1),
        (nn.Conv2d(6, 2, 3, padding="valid"), 3),
        (nn.Conv2d(6, 9, 3, padding=1, padding_mode="reflect"), 2),  # more outputs, of kernels of rank c/g
        (nn.Conv2d(6, 8, 3, stride=2, padding=2, padding_mode="replicate", bias=False), 3),
    ]
    for layer, groups in cases:
        w, maps = in_groups(layer, groups), maps_of(layer, groups)
        low = torch.randn(groups, len(layer.weight), maps).double() @ torch.randn(groups, maps, w.shape[2]).double()
        if layer.out_channels > maps:
            layer.weight.copy_(low.transpose(0, 1).reshape(layer.weight.shape))
        wanted = layer(images)
        for moment in (white(layer, groups), moments(layer, groups, [(seen, seen)])):
            pair = paired(layer, groups, moment)
            worst = max(worst, float((pair(images) - wanted).abs().max() / wanted.abs().max()))
    return worst


def claim_cost_formula(lab: Lab) -> float:
    """Largest difference from c (c/g) k^2 + n c multiply-adds a place, and from 1/g + 1/k^2 of the layer's own where n = c."""
    worst = 0.0
    for c, n, k, groups, stride in ((16, 32, 3, 4, 1), (12, 12, 5, 3, 2), (8, 8, 3, 8, (2, 3)), (6, 6, 2, 1, 1)):
        layer, image = nn.Conv2d(c, n, k, stride, k // 2), torch.zeros(1, c, 12, 12)
        places = layer(image)[0, 0].numel()
        found = multiply_adds(paired(layer, groups, white(layer, groups)), image)
        formula = (c * (c // groups) * k**2 + n * c) * places
        worst = max(worst, abs(found - formula), abs(work(layer, groups) * places - formula))
        if n == c:
            worst = max(worst, abs(found - multiply_adds(layer, image) * (k**2 + groups) / (groups * k**2)))
    return worst


@torch.no_grad()
def claim_keeps_the_width(lab: Lab) -> float:
    """Smallest rank of a pair's kernel, of that of the layer's."""
    torch.manual_seed(0)
    worst = 1.0
    for layer, groups in ((nn.Conv2d(32, 32, 3), 8), (nn.Conv2d(32, 24, 3), 32), (nn.Conv2d(20, 20, 5), 4)):
        grouped, mix = (part.weight.flatten(1) for part in paired(layer, groups, white(layer, groups)))
        parts = zip(mix.chunk(groups, 1), grouped.chunk(groups), strict=True)  # A_i, B_i
        found = torch.cat([a @ b for a, b in parts], 1)
        worst = min(worst, float(torch.linalg.matrix_rank(found) / torch.linalg.matrix_rank(layer.weight.flatten(1))))
    return worst


def claim_each_layer_its_groups(lab: Lab) -> float:
    """How many layers of a network are planned wrongly."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), nn.Conv2d(8, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1, groups=2),
        nn.Conv2d(24, 18, 3, 2, padding=1), nn.Conv2d(18, 16, 1), nn.Conv2d(16, 18, (1, 5), padding=(0, 2)), nn.MaxPool2d(2),
        nn.Conv2d(18, 13, 3, padding=1), nn.Conv2d(13, 26, 3, padding=1), nn.Conv2d(26, 4, 3, 2, padding=1), nn.Conv2d(4, 1, 2),
    )  # fmt: skip
    model[6].idle = nn.Conv2d(8, 8, 3)
    wanted = {"1": 2, "3": 4, "5": 4, "7": 6, "8": 1, "9": 13}
    chosen, kept = plan(model, torch.zeros(1, 3, 32, 32), (2, 4, 8, 16))
    return sum(chosen.get(str(i)) != wanted.get(str(i)) for i in range(len(model))) + len(set(kept) ^ {"0.0", "2", "4", "6.idle", "10"})


def from_kernels(model: nn.Module, groups: Mapping[str, int]) -> nn.Module:
    """The network with pairs that come as close to the kernels as they can."""
    layers = {name: model.get_submodule(name) for name in groups}
    return replaced(model, {name: paired(layer, groups[name], white(layer, groups[name])) for name, layer in layers.items()})


@lru_cache(maxsize=1)
@torch.no_grad()
def untrained(lab: Lab) -> dict[str, nn.Module]:
    """The pairs before training: "kernels" alone, responses of each layer "apart", and "responses" layer after layer."""
    model, images = lab.reference, lab.task.train.first(lab.config.images).images.to(lab.task.device)
    groups, apart = plan(model, images[:1], lab.config.groups)[0], dict[str, nn.Module]()

    def alone(name: str, x: Tensor, y: Tensor) -> None:
        layer = model.get_submodule(name)
        apart[name] = paired(layer, groups[name], moments(layer, groups[name], [(x, x)]))

    run(model, images, alone, groups)
    return {"kernels": from_kernels(model, groups), "apart": replaced(model, apart), "responses": from_responses(model, groups, images)}


@lru_cache(maxsize=1)
@torch.no_grad()
def logit_errors(lab: Lab) -> dict[str, float]:
    """Distance of the logits from the reference's on held-out images, before training."""
    images = lab.task.test.images[:256].to(lab.task.device)
    wanted = lab.reference(images)
    return {name: float((model.eval()(images) - wanted).norm()) for name, model in untrained(lab).items()}


def claim_responses_beat_kernels(lab: Lab) -> float:
    """Error of the logits on held-out images before training, of that of pairs fitted to the kernels."""
    return logit_errors(lab)["responses"] / logit_errors(lab)["kernels"]


def claim_makes_up_for_earlier_layers(lab: Lab) -> float:
    """Error of the logits on held-out images before training, of that when each layer is fitted to the original network's inputs."""
    return logit_errors(lab)["responses"] / logit_errors(lab)["apart"]


def directions(model: Any, images: Tensor) -> float:
    """How many singular values of the features' Jacobian, of an image, are above a hundredth of the largest: the mean over images."""
    features, many = model[:-1], 0
    for image in images.split(1):
        copies = image.expand(features(image).shape[1], -1, -1, -1).clone().requires_grad_()
        (rows,) = torch.autograd.grad(features(copies).diagonal().sum(), copies)
        spectrum = torch.linalg.svdvals(rows.flatten(1))
        many += int((spectrum > 0.01 * spectrum[0]).sum())
    return many / len(images)


def claim_less_degenerate(lab: Lab) -> float:
    """How many more directions of an image reach the features than through the truncated SVDs, after training."""
    images = lab.task.test.images[:2].to(lab.task.device)
    return directions(lab.compressed, images) / directions(lab.controlled("svd"), images)


@lru_cache(maxsize=1)
def accuracy_before(lab: Lab) -> float:
    """On test images, before training."""
    return lab.task.score(untrained(lab)["responses"], lab.task.test)


def claim_beats_untrained_svd(lab: Lab) -> float:
    """Accuracy before training, over that of the truncated SVDs."""
    return accuracy_before(lab) - lab.task.score(as_cheap(lab.reference, lab.task, lab.config, truncated_svd), lab.task.test)


def claim_training_repairs(lab: Lab) -> float:
    """Share of the accuracy lost in the approximation that training wins back."""
    cut = accuracy_before(lab)
    return (lab.after.accuracy - cut) / (lab.before.accuracy - cut)


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_beats_truncated_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy


def claim_beats_jaderberg(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("jaderberg").accuracy


def claim_beats_truncated_svd_in_seconds(lab: Lab) -> float:
    return claim_beats_truncated_svd(lab)
