"""Soft Filter Pruning (He et al., IJCAI 2018).

Filters that are pruned are set to zero, and the training goes on with all of them: one that was cut too early grows back. Every so
often the smallest of each layer are zeroed anew, all layers at once; at the end those that are zero are taken out for good.

Departures: pruned so many times during the training, where the paper does it after every epoch; starts from a trained network (the
paper's second setting, at a tenth of the rate) on a small VGG; filters that a shortcut ties to other layers keep their number, and
so do those that are read in groups; and the last of the rounds trains the thin network, where the paper needs none: a filter of
zeros still hands on the shift of its batch norm, which the layers behind have to unlearn. Training is the kit's (Nesterov momentum,
weight decay 5e-4, one cosine over all rounds but the last, and one over that).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.layers import name_the_kept
from methods.kit.surgery import Order, at_random, free_channels, in_multiples, narrowed, remove_channels, widths
from methods.kit.task import Task, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    cut: float = 0.3  # P_i, the share of the filters of every layer, §4.1
    rounds: int = 20  # of training and pruning; the paper's are epochs, 200 of them
    rate: float = 1e-2  # a tenth of the rate from scratch, §4.1


SMOKE = Config(rounds=3)  # two dozen steps: a filter that was zeroed needs more to become of use again
LONG = Config(rounds=4)  # 700 steps, not two epochs


def reference(task: Task) -> nn.Module:
    """A small VGG, whose layers may all be pruned."""
    return nets.trained("vgg_wide", task.name)


def by_norm(name: str, layer: nn.Conv2d) -> list[int]:
    """The filters by their L2 norms (Eq. 2), the largest first."""
    return layer.weight.detach().flatten(1).norm(dim=1).argsort(descending=True, stable=True).tolist()


def smallest(layer: nn.Conv2d, cut: float) -> list[int]:
    """The N P filters of least norm, the smallest first; one filter is left."""
    return by_norm("", layer)[:0:-1][: int(cut * layer.out_channels)]


def chosen(model: nn.Module, free: Collection[str], task: Task, config: Config) -> dict[str, list[int]]:
    """The filters that go, of every layer that may lose some."""
    return in_multiples({name: smallest(model.get_submodule(name), config.cut) for name in free}, widths(model), task.multiple)


@torch.no_grad()
def zero(model: nn.Module, filters: dict[str, list[int]]) -> None:
    """Set filters to zero, in place, and hold none there: they learn on (Algorithm 1)."""
    for name, gone in filters.items():
        model.get_submodule(name).weight[gone] = 0.0


def prunable(model: nn.Module, image: Tensor, task: Task) -> Collection[str]:
    """The convolutions whose filters can be taken out."""
    free, kept = free_channels(model, image, task.exclude)
    name_the_kept("soft filter pruning needs a convolution with filters to spare", free, kept)
    return free


def train_soft(model: nn.Module, free: Collection[str], task: Task, config: Config) -> nn.Module:
    """Train all filters, and zero the smallest at the end of every round but the last."""
    soft, pruned = config.rounds - 1, 0

    def prune(progress: float) -> None:
        nonlocal pruned
        if int(progress * soft + 1e-9) > pruned:
            zero(model, chosen(model, free, task, config))
            pruned = int(progress * soft + 1e-9)

    return fit(model, task, share=soft / config.rounds, lr=config.rate, after_step=prune)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Algorithm 1: train, pruning softly; take out the filters that are zero at last."""
    image = task.train.first(1).images.to(task.device)
    free = prunable(model, image, task)
    model = train_soft(model, free, task, config)
    return fit(remove_channels(model, image, chosen(model, free, task, config), free), task, share=1 / config.rounds, lr=config.rate)


def hard(model: nn.Module, task: Task, config: Config, like: nn.Module, order: Order) -> nn.Module:
    """Pruned for good before the training, to the widths of `like`; the same steps."""
    small = narrowed(model, task.train.first(1).images.to(task.device), widths(like), order)
    small = fit(small, task, share=1 - 1 / config.rounds, lr=config.rate)
    return fit(small, task, share=1 / config.rounds, lr=config.rate)


@on_copies
def control_hard(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The smallest filters by the same norm go at the start and do not come back (Figure 1)."""
    return hard(model, task, config, like, by_norm)


@on_copies
def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Random filters go at the start."""
    return hard(model, task, config, like, at_random(task.seed))
