"""The claims of Filter group approximation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import (
    patches,
    replaced,
    responses,
    run,
    truncated_svd,
)  # fmt: skip
from methods.kit.measure import multiply_adds
from methods.kit.task import Split
from methods.kit.testing import convolutions, relative_error, toy_task, won_back
from methods.low_rank import filter_group_approximation as method


@torch.no_grad()
def claim_best_pair_of_a_group(lab: Lab) -> list[float]:
    """Largest relative difference of a group's error from what numpy's alternating least squares reaches from random factors."""
    torch.manual_seed(0)
    chance, errors = np.random.default_rng(0), list[float]()
    for layer, groups in ((nn.Conv2d(6, 7, 3, stride=2, padding=1).double(), 3), (nn.Conv2d(4, 5, 2, dilation=2).double(), 2)):
        x = torch.randn(40, layer.in_channels, 6, 6).double() + 0.5
        z = torch.relu(x + 0.7 * torch.randn_like(x))
        pair, size = method.paired(layer, groups, method.moments(layer, groups, [(x, z)])), layer.in_channels // groups
        total = (pair(z) - layer(x)).mean((0, 2, 3)).abs().max()  # biases put the means where they were
        errors.append(float(total))
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
            errors.append(abs(float(np.square(y - found).sum() / np.square(y - seen @ b @ a).sum()) - 1))
    return errors


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
    small, wanted = method.from_responses(model, groups, images), responses(model, images, groups)["4.layer"]
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
    task = toy_task(held, steps=1, batch=8)
    wanted = method.from_responses(model, {"2": 3, "4": 2}, held.images[:16])(held.images)
    found = method.compress(model, task, method.Config(groups=(3, 2), images=16, rate=0.0))(held.images)
    return relative_error(found, wanted)


def white(layer: nn.Conv2d, groups: int) -> method.Moments:
    """Of inputs without means or correlations: the answer is the truncated SVD of each group's kernel."""
    size = layer.weight[0].numel() // groups
    means, same = torch.zeros(groups, size).to(layer.weight), torch.eye(size).expand(groups, -1, -1).to(layer.weight)
    return means.double(), means.double(), same.double(), same.double()


@torch.no_grad()
def claim_exact_where_rank_allows(lab: Lab) -> list[float]:
    """Largest difference of the outputs, relative to the largest, of fits to kernels and to images with dead channels."""
    torch.manual_seed(0)
    found, images = list[float](), torch.randn(2, 6, 12, 13)
    seen = torch.randn(3, 6, 8, 8) * torch.tensor([1.0, 0, 1, 2, 0, 1]).reshape(6, 1, 1)
    layers = [*convolutions()[:-1], *convolutions(outputs=2)[:-1]]  # a 1x1 kernel is never worth it; two outputs are no more than c/g
    for layer, groups in product(layers, (1, 2, 3)):
        w, maps = method.in_groups(layer, groups), method.maps_of(layer, groups)
        low = torch.randn(groups, len(layer.weight), maps).double() @ torch.randn(groups, maps, w.shape[2]).double()
        if layer.out_channels > maps:
            layer.weight.copy_(low.transpose(0, 1).reshape(layer.weight.shape))
        wanted = layer(images)
        for moment in (white(layer, groups), method.moments(layer, groups, [(seen, seen)])):
            pair = method.paired(layer, groups, moment)
            found.append(relative_error(pair(images), wanted))
    return found


def claim_cost_formula(lab: Lab) -> list[float]:
    """Largest difference from c (c/g) k^2 + n c multiply-adds a place, and from 1/g + 1/k^2 of the layer's own where n = c."""
    errors = list[float]()
    for c, n, k, groups, stride in ((16, 32, 3, 4, 1), (12, 12, 5, 3, 2), (8, 8, 3, 8, (2, 3)), (6, 6, 2, 1, 1)):
        layer, image = nn.Conv2d(c, n, k, stride, k // 2), torch.zeros(1, c, 12, 12)
        places = layer(image)[0, 0].numel()
        found = multiply_adds(method.paired(layer, groups, white(layer, groups)), image)
        formula = (c * (c // groups) * k**2 + n * c) * places
        errors += [abs(found - formula), abs(method.work(layer, groups) * places - formula)]
        if n == c:
            errors.append(abs(found - multiply_adds(layer, image) * (k**2 + groups) / (groups * k**2)))
    return errors


@torch.no_grad()
def claim_keeps_the_width(lab: Lab) -> list[float]:
    """Smallest rank of a pair's kernel, of that of the layer's."""
    torch.manual_seed(0)
    errors = list[float]()
    for layer, groups in ((nn.Conv2d(32, 32, 3), 8), (nn.Conv2d(32, 24, 3), 32), (nn.Conv2d(20, 20, 5), 4)):
        grouped, mix = (part.weight.flatten(1) for part in method.paired(layer, groups, white(layer, groups)))
        parts = zip(mix.chunk(groups, 1), grouped.chunk(groups), strict=True)  # A_i, B_i
        found = torch.cat([a @ b for a, b in parts], 1)
        errors.append(float(torch.linalg.matrix_rank(found) / torch.linalg.matrix_rank(layer.weight.flatten(1))))
    return errors


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
    chosen, kept = method.plan(model, torch.zeros(1, 3, 32, 32), (2, 4, 8, 16))
    return sum(chosen.get(str(i)) != wanted.get(str(i)) for i in range(len(model))) + len(set(kept) ^ {"0.0", "2", "4", "6.idle", "10"})


def from_kernels(model: nn.Module, groups: Mapping[str, int]) -> nn.Module:
    """The network with pairs that come as close to the kernels as they can."""
    layers = {name: model.get_submodule(name) for name in groups}
    return replaced(model, {name: method.paired(layer, groups[name], white(layer, groups[name])) for name, layer in layers.items()})


@lru_cache(maxsize=1)
@torch.no_grad()
def untrained(lab: Lab) -> dict[str, nn.Module]:
    """The pairs before training: "kernels" alone, responses of each layer "apart", and "responses" layer after layer."""
    model, images = lab.reference, lab.task.train.first(lab.config.images).images.to(lab.task.device)
    groups, apart = method.plan(model, images[:1], lab.config.groups)[0], dict[str, nn.Module]()

    def alone(name: str, x: Tensor, y: Tensor) -> None:
        layer = model.get_submodule(name)
        apart[name] = method.paired(layer, groups[name], method.moments(layer, groups[name], [(x, x)]))

    run(model, images, alone, groups)
    return {
        "kernels": from_kernels(model, groups),
        "apart": replaced(model, apart),
        "responses": method.from_responses(model, groups, images),
    }


@lru_cache(maxsize=1)
@torch.no_grad()
def logit_errors(lab: Lab) -> dict[str, float]:
    """Distance of the logits from the reference's on held-out images, before training."""
    images = lab.held_out(256).images.to(lab.task.device)
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
    images = lab.held_out(2).images.to(lab.task.device)
    return directions(lab.compressed, images) / directions(lab.controlled("svd"), images)


@lru_cache(maxsize=1)
def accuracy_before(lab: Lab) -> float:
    """On test images, before training."""
    return lab.score(untrained(lab)["responses"])


def claim_beats_untrained_svd(lab: Lab) -> float:
    """Accuracy before training, over that of the truncated SVDs."""
    return accuracy_before(lab) - lab.score(method.as_cheap(lab.reference, lab.task, lab.config, truncated_svd))


def claim_training_repairs(lab: Lab) -> float:
    """Share of the accuracy lost in the approximation that training wins back."""
    cut = accuracy_before(lab)
    return won_back(lab, cut)


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_beats_truncated_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy


def claim_beats_jaderberg(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("jaderberg").accuracy


def claim_beats_truncated_svd_in_seconds(lab: Lab) -> float:
    return claim_beats_truncated_svd(lab)
