"""Pruning Filters for Efficient ConvNets (Li et al., ICLR 2017).

A filter whose weights are small in sum moves its feature map little. Layers lose a share of their smallest filters, maps and
the next layer's kernels for them included; layers that the network can hardly do without are found by cutting each alone, and
lose half of that share or nothing. All is cut at once, and one training repairs the rest.

Departures: a layer counts as sensitive when its cut alone costs more than a given share of the accuracy on validation images,
where the paper reads it off a plot; it is judged alone, where the paper treats the layers of a stage alike; and sensitive layers
try half the share, where the paper picks shares by hand. Layers are cut in the order in which the network lists them. Filters
that a shortcut ties to another layer keep their number, as in the paper's networks for CIFAR-10 (on ImageNet the shortcut's
filters choose for both), and so do filters that are read in groups, and those without which the network is
another one than with zeros in place of their maps. Training is the kit's (Nesterov momentum, weight decay 5e-4, one cosine
instead of a constant rate). In a smoke run it has twenty times the paper's rate, and only layers that cost more than fifteen
points are spared.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn

from methods.kit import nets
from methods.kit.layers import name_the_kept
from methods.kit.surgery import Order, at_random, by_l1_norm, free_channels, in_multiples, narrowed, remove_channels, widths
from methods.kit.task import Task, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    cut: float = 0.5  # share of the filters of a layer that is not sensitive, §4.1 (VGG-16)
    sensitive: float = 0.05  # accuracy on validation images that a layer's cut alone may cost; ours, see Departures
    rate: float = 1e-3  # of retraining, §4


SMOKE = Config(sensitive=0.15, rate=2e-2)  # this small network has no layer to spare, and seconds instead of 40 epochs


def reference(task: Task) -> nn.Module:
    """A small VGG in the place of VGG-16."""
    return nets.trained("vgg_wide", task.name)


def build(variant: str) -> nn.Module:
    """VGG-16 for CIFAR-10 with its two dense layers, whole or pruned as in Table 2, to be counted."""
    layers = {"vgg16": nets.VGG16, "vgg16_pruned_a": PRUNED_A}[variant]
    dense = nn.Sequential(nn.Linear(layers[-1], 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10))
    return nn.Sequential(*nets.vgg(layers)[:-1], dense)


PRUNED_A = [32, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", *[256] * 3, "pool", *[256] * 3]  # Table 2


def smallest(layer: nn.Conv2d, cut: float) -> list[int]:
    """The share of a layer's filters with the least s_j = sum |F_ij|, §3.1; one is always left."""
    sums = layer.weight.detach().abs().sum((1, 2, 3))
    return sums.argsort(stable=True)[: min(int(cut * len(sums)), len(sums) - 1)].tolist()


def thinned(model: nn.Module, image: Tensor, cuts: dict[str, float], free: Collection[str] | None = None, multiple: int = 1) -> nn.Module:
    """Greedy, §3.3: layer after layer, so that kernels that went with an earlier layer's filters no longer count."""
    for name, cut in cuts.items():
        gone = in_multiples({name: smallest(model.get_submodule(name), cut)}, widths(model), multiple)
        model = remove_channels(model, image, gone, free)
    return model


def shares(model: nn.Module, task: Task, config: Config) -> dict[str, float]:
    """Each layer's share: `cut`, or half of it, or none where that alone, without training, costs too much accuracy, §3.2."""
    image = task.train.first(1).images.to(task.device)
    free, kept = free_channels(model, image, task.exclude)
    judged, cuts = config.sensitive < 1, {}  # no cut can cost more than all accuracy
    whole = task.score(model, task.validation) if judged else 0.0

    def costs(name: str, cut: float) -> float:
        return whole - task.score(thinned(model, image, {name: cut}, free, task.multiple), task.validation) if judged else 0.0

    for name in free:
        for cut in (config.cut, config.cut / 2):
            if smallest(model.get_submodule(name), cut) and costs(name, cut) <= config.sensitive:
                cuts[name] = cut
                break
    kept |= {name: f"too sensitive, or too narrow, to lose {config.cut / 2:.0%}" for name in free if name not in cuts}
    name_the_kept("filter pruning needs a convolution with filters to spare", cuts, kept)
    return cuts


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Cut the smallest filters of all layers at once (§3.3), then retrain once (§3.4)."""
    cuts = shares(model, task, config)
    return fit(thinned(model, task.train.first(1).images.to(task.device), cuts, cuts, task.multiple), task, lr=config.rate)


def pruned_like(model: nn.Module, task: Task, like: nn.Module, order: Order) -> nn.Module:
    """As many filters of each layer as `like` has lost, in another order."""
    return narrowed(model, task.train.first(1).images.to(task.device), widths(like), order)


def smallest_stay(name: str, layer: nn.Conv2d) -> list[int]:
    return by_l1_norm(name, layer)[::-1]


@on_copies
def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Random filters of the same layers, as many, and the same training (§4.4)."""
    shares(model, task, config)  # as many tries; `like` tells what they found
    return fit(pruned_like(model, task, like, at_random(task.seed)), task, lr=config.rate)


@on_copies
def control_largest(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The largest filters go (Figure 8)."""
    shares(model, task, config)  # as many tries; `like` tells what they found
    return fit(pruned_like(model, task, like, smallest_stay), task, lr=config.rate)


@on_copies
def control_independent(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The smallest filters, each layer's by itself: kernels that went with an earlier layer's filters still count (§3.3)."""
    shares(model, task, config)  # as many tries; `like` tells what they found
    return fit(pruned_like(model, task, like, by_l1_norm), task, lr=config.rate)
