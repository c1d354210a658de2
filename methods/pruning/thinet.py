"""ThiNet (Luo et al., ICCV 2017).

A filter is worth what the layer that reads its channel would miss. Sampled outputs of that layer are split into what each input
channel adds, and the channels whose sum stays smallest are dropped one by one. Least squares scale what the others add, the filters
are removed with their channels, and the network trains a little before the next layer is looked at.

Departures: images for the statistics are drawn whatever their class; where a channel is read by several layers, their samples count
together and each gets scales of its own; behind a flattening all places of a channel are one, as in the authors' code. Of all
scales that fit equally well those nearest to one are taken. All layers whose channels can be removed lose the same share, the
last ones too, which the paper spares in VGG-16. Filters that a shortcut ties to another layer keep their number, as in the paper.
Training is the kit's (Nesterov momentum, weight decay 5e-4, one cosine each time). In a smoke run few images at more
places, and twenty times the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.layers import Layer, chunks, entering, patches_at
from methods.kit.surgery import at_random, by_l1_norm, narrower, readers, remove_channels, widths_left
from methods.kit.task import Task, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    kept: float = 0.5  # r, share of the filters that stays, §4.2 (VGG-16)
    images: int = 10_000  # ten of each class, §4.2
    places: int = 10  # of each image's output, §4.2
    last: float = 12.0  # epochs of training after the last layer, for one after each other, §4.2
    rate: float = 1e-3  # of training, §4.2


SMOKE = Config(images=128, places=20, rate=2e-2)  # a few thousand samples, and steps instead of epochs
LONG = Config(images=1000)

Choose = Callable[[str, nn.Conv2d, Tensor, int], Sequence[int]]  # the channels to be removed: of which layer, by its statistics, how many


def reference(task: Task) -> nn.Module:
    """A small VGG in the place of VGG-16."""
    return nets.trained("vgg_wide", task.name)


def build(variant: str) -> nn.Module:
    """VGG-16 for 224x224 images and what the paper makes of it (Table 1), to be counted."""
    plan: list[int | str] = {"vgg16": nets.VGG16, "thinet_tiny": TINY}.get(variant, HALVED)
    layers, inputs = list[nn.Module](), 3
    for step in plan:
        layers += [nn.MaxPool2d(2)] if isinstance(step, str) else [nn.Conv2d(inputs, step, 3, padding=1), nn.ReLU()]
        inputs = inputs if isinstance(step, str) else step
    if variant in ("thinet_gap", "thinet_tiny"):
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))
    dense = [nn.Linear(49 * inputs, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), *dense)


HALVED = [32, 32, "pool", 64, 64, "pool", *[128] * 3, "pool", *[256] * 3, "pool", *[512] * 3]  # §4.2
TINY = [16, 16, "pool", 32, 32, "pool", *[64] * 3, "pool", *[128] * 3, "pool", 128, 128, 256]  # the authors' trained model


def goal(model: nn.Module, task: Task, config: Config) -> dict[str, int]:
    """How many filters stay of each layer that loses some."""
    needs = "ThiNet needs a convolution whose channels another one or a dense layer reads"
    return widths_left(model, task, lambda depth, wide: int(config.kept * wide), needs)


def contributions(layer: Layer, whose: Tensor, x: Tensor, places: int, seed: int) -> Tensor:
    """What each channel adds to an output of a layer that reads it (§3.2.1): (M, channels), an output of a random filter a row.

    Their sum is the output without its bias and without what other inputs add: xhat_c and yhat of Eq. 4 and 5.
    """
    taken = patches_at(layer, x, places, seed).double()  # (M, inputs, d e)
    filters = torch.randint(len(layer.weight), (len(taken),), generator=torch.Generator().manual_seed(seed))
    weight = layer.weight.detach().double().flatten(2) if layer.weight.ndim > 2 else layer.weight.detach().double()[..., None]
    added = (taken * weight[filters.to(weight.device)]).sum(2)
    mine = whose >= 0
    return added.new_zeros(len(added), int(whose.max()) + 1).index_add(1, whose[mine], added[:, mine])


@torch.no_grad()
def statistics(model: nn.Module, read: Mapping[str, Tensor], images: Tensor, config: Config, seed: int) -> dict[str, Tensor]:
    """X^T X of the contributions of a layer's channels, by the layer that reads them: all that choice and scales take from the samples."""
    found = dict[str, Tensor]()
    for reader, whose in read.items():
        layer: Any = model.get_submodule(reader)
        wide = int(whose.max()) + 1
        found[reader] = torch.zeros(wide, wide, dtype=torch.float64, device=images.device)
        for number, (x, _) in enumerate(entering(model, chunks(model, images), reader)):
            added = contributions(layer, whose, x, config.places, seed + number)
            found[reader] += added.T @ added
    return found


def least_missed(name: str, layer: nn.Conv2d, products: Tensor, count: int) -> list[int]:
    """Algorithm 1: again and again the channel with which the sum of all that are dropped, squared, stays smallest (Eq. 6)."""
    dropped, cross, alone = list[int](), torch.zeros_like(products[0]), products.diagonal()
    for _ in range(count):
        value = 2 * cross + alone  # of || sum over T + x_j ||^2, less || sum over T ||^2
        value[dropped] = torch.inf
        dropped.append(int(value.argmin()))
        cross = cross + products[dropped[-1]]
    return dropped


def scales(products: Tensor, dropped: Sequence[int]) -> Tensor:
    """min over w of sum (yhat - w^T xhat)^2 for the channels that stay (Eq. 7): (stay,), as near to one as can be."""
    gone = torch.zeros(len(products), dtype=torch.bool, device=products.device)
    gone[list(dropped)] = True
    missing = products[~gone][:, gone].sum(1)
    return 1 + torch.linalg.pinv(products[~gone][:, ~gone], rtol=1e-10, hermitian=True) @ missing


@torch.no_grad()
def rescale(model: nn.Module, read: Mapping[str, Tensor], products: Mapping[str, Tensor], dropped: Sequence[int]) -> None:
    """Scale the kernels of the channels that stay in the layers that read them, in place (§3.2.3)."""
    for reader, whose in read.items():
        layer: Any = model.get_submodule(reader)
        wide = len(products[reader])
        factor = products[reader].new_ones(wide + 1)  # the last, which -1 picks, is for inputs from elsewhere
        factor[[channel for channel in range(wide) if channel not in dropped]] = scales(products[reader], dropped)
        layer.weight.mul_(factor[whose].to(layer.weight).view(1, -1, *[1] * (layer.weight.ndim - 2)))


def pruned(model: nn.Module, task: Task, config: Config, left: Mapping[str, int], choose: Choose, *, scaled: bool = True) -> nn.Module:
    """Layer after layer from the front (§3.1): choose by the layers that read it, scale them, remove the filters, train.

    `left` says how many filters stay. After the last layer the training is longer (§4.2).
    """
    image, images = task.train.first(1).images.to(task.device), task.train.sample(config.images, task.seed).images.to(task.device)
    for turn, (name, stays) in enumerate(left.items(), 1):
        read = readers(model, image, [name])[name]
        products = statistics(model, read, images, config, task.seed)
        layer: Any = model.get_submodule(name)
        gone = choose(name, layer, torch.stack([*products.values()]).sum(0), layer.out_channels - stays)
        if scaled:
            rescale(model, read, products, gone)
        share = (config.last if turn == len(left) else 1) / (len(left) - 1 + config.last)
        model = fit(remove_channels(model, image, {name: gone}, left), replace(task, seed=task.seed + turn), share=share, lr=config.rate)
    return model


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Drop from each layer what the next one misses least, scale the rest, train; layer after layer."""
    return pruned(model, task, config, goal(model, task, config), least_missed)


def narrowed(model: nn.Module, task: Task, config: Config, like: nn.Module, choose: Choose, *, scaled: bool = True) -> nn.Module:
    """To the widths of `like`."""
    return pruned(model, task, config, narrower(model, task.train.first(1).images.to(task.device), like), choose, scaled=scaled)


def the_others(order: Callable[[str, nn.Conv2d], Sequence[int]]) -> Choose:
    """What an order of the kit, which names those first that stay, removes."""
    return lambda name, layer, products, count: order(name, layer)[layer.out_channels - count :]


@on_copies
def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Random filters, as many; scales, stages and steps are the same."""
    return narrowed(model, task, config, like, the_others(at_random(task.seed)))


@on_copies
def control_norm(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The filters with the smallest sums of absolute weights ("weight sum", §4.1); scales, stages and steps are the same."""
    return narrowed(model, task, config, like, the_others(by_l1_norm))


@on_copies
def control_unscaled(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same choice without the scales (§3.2.3); stages and steps are the same."""
    return narrowed(model, task, config, like, least_missed, scaled=False)
