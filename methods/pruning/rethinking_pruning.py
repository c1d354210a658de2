"""Rethinking the Value of Network Pruning (Liu et al., ICLR 2019).

A pruned network inherits the large one's weights and is trained a little more. Give its shape new random weights and train it as
the large one was trained: for as many steps (Scratch-E), or for as much computation (Scratch-B). If that does as well, pruning has
found an architecture, and the inherited weights were worth nothing.

Departures: the large network is trained here, for the task's steps, so that the comparison is at every scale the paper's: a large
network's whole training against a quarter of it for pruning and fine-tuning (40 epochs of 160, L1 norm; network slimming's penalty
has half of that quarter, where the paper's has a whole training). Training is the kit's (Nesterov momentum, weight decay 5e-4, one
cosine from the rate of 0.1 instead of two drops), new weights are drawn as torch draws them. Shapes are those of the structured
methods of this catalogue, on a small VGG; unstructured pruning and lottery tickets (§5, §6) are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from methods.kit import nets
from methods.kit.layers import fresh
from methods.kit.measure import multiply_adds
from methods.kit.task import Task, on_copies
from methods.kit.train import fit
from methods.pruning import (
    discrimination_aware_pruning,
    lasso_channel_pruning,
    network_slimming,
    pruning_filters,
    soft_filter_pruning,
    thinet,
)

PRUNERS: dict[str, tuple[Callable[..., nn.Module], Any]] = {  # about half of the channels, so that more than half of the multiply-adds go
    "network_slimming": (network_slimming.compress, network_slimming.Config(penalty=1e-3, cut=0.5)),
    "pruning_filters": (pruning_filters.compress, pruning_filters.Config(cut=0.5, sensitive=1.0, rate=1e-2)),
    "thinet": (thinet.compress, thinet.Config(images=512, rate=1e-2)),
    "lasso_channel_pruning": (lasso_channel_pruning.compress, lasso_channel_pruning.Config(kept=0.4, images=512, rate=1e-2)),
    "soft_filter_pruning": (soft_filter_pruning.compress, soft_filter_pruning.Config(cut=0.5, rounds=4)),
    "discrimination_aware_pruning": (
        discrimination_aware_pruning.compress,
        discrimination_aware_pruning.Config(images=64, joins=8, rate=1e-2),
    ),
}

PLAN: nets.Plan = [16, "pool", 64, "pool", 64, 64, "pool", 64, 64]  # VGG so small that minutes train it


@dataclass(frozen=True)
class Config:
    pruner: str = "network_slimming"  # whose shape
    tuned: float = 0.25  # of the large network's steps, for pruning and fine-tuning: 40 epochs of 160, §4.1
    longest: float = 2.0  # Scratch-B has no more than twice the epochs, §3
    rate: float = 0.1  # §3


LONG = (Config(), 600)  # five minutes for each shape
SMOKE = (Config(pruner="pruning_filters"), 60)  # after seconds scales tell nothing yet; half of every layer is a shape all the same


def reference(task: Task) -> nn.Module:
    """The large network, trained from random weights for the task's steps."""
    return fit(nets.vgg(PLAN), task, lr=Config.rate)


def pruned(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Weights inherited: the pruning method, its fine-tuning included."""
    prune, settings = PRUNERS[config.pruner]
    return prune(model, task.with_steps(max(1, round(config.tuned * task.steps))), settings)


def stretch(model: nn.Module, small: nn.Module, task: Task, config: Config) -> float:
    """How much longer Scratch-B trains than the large network: as the small one's multiply-adds are fewer, capped (§3)."""
    image = task.train.first(1).images.to(task.device)
    return min(multiply_adds(model, image) / multiply_adds(small, image), config.longest)


def scratch(shape: nn.Module, task: Task, config: Config, longer: float) -> nn.Module:
    """The shape with new random weights, trained as the large network was, but `longer`."""
    return fit(fresh(shape), task.with_steps(round(longer * task.steps)), lr=config.rate)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Scratch-B: prune, forget the weights, train anew for as much computation as the large network took."""
    shape = pruned(model, task, config)
    return scratch(shape, task, config, stretch(model, shape, task, config))


@on_copies
def control_finetuned(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The pruned network with the weights that it inherited. Its budget is the paper's: the large network's training went before.

    Differs: steps, images, labelled x0.11 (no training from scratch).
    """
    return pruned(model, task, config)


@on_copies
def control_scratch_e(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Scratch-E: new weights, as many steps as the large network.

    Differs: steps, images, labelled x0.56 (as many epochs, not as much computation).
    """
    return scratch(pruned(model, task, config), task, config, 1.0)
