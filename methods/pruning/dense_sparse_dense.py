"""DSD: Dense-Sparse-Dense Training for Deep Neural Networks (Han et al., ICLR 2017).

Pruning as a way to train. The smallest weights of every layer of a trained network go, the others learn alone, which is easier; then
the weights that went come back as zeros and all learn on at a tenth of the rate. The network is as large as before, and better.

Departures: the first dense phase is the trained network that is given; the two others share the task's steps evenly, with one cosine
each (Nesterov momentum, weight decay 5e-4) instead of a constant rate until nothing changes; one round, where the paper sometimes
has two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from methods.kit.masks import Masks, fit_masked, magnitudes, of_each, prunable
from methods.kit.task import Task, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    sparsity: float = 0.3  # share of every layer's weights that goes, §3 (25% to 50%)
    rate: float = 0.02  # of the sparse phase; ours
    last: float = 0.1  # times that rate in the last dense phase, §3
    sparse_share: float = 0.5  # of the steps; ours


def masks(model: nn.Module, task: Task, config: Config) -> Masks:
    """1(|W| > lambda), lambda the k-th smallest of the layer's |W| (Algorithm 1)."""
    return of_each(magnitudes(prunable(model, task, "dense-sparse-dense training needs a Conv2d or Linear")), 1 - config.sparsity)


def trained(model: nn.Module, task: Task, config: Config, kept: Masks) -> nn.Module:
    """The sparse phase and the last dense phase."""
    model = fit_masked(model, task, kept, share=config.sparse_share, lr=config.rate)
    return fit(model, task, share=1 - config.sparse_share, lr=config.last * config.rate)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Prune and train, then train without the mask."""
    return trained(model, task, config, masks(model, task, config))


@on_copies
def control_dense(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same steps at the same rates, and no weight ever goes."""
    return trained(model, task, config, {})


@on_copies
def control_low_rate(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Dense at the low rate throughout: the paper's own comparison, LLR."""
    return fit(model, task, lr=config.last * config.rate)


@on_copies
def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """As many weights of each layer go, drawn by chance."""
    chance = torch.Generator().manual_seed(task.seed)
    kept = {
        name: stays.flatten()[torch.randperm(stays.numel(), generator=chance)].view(stays.shape)
        for name, stays in masks(model, task, config).items()
    }
    return trained(model, task, config, kept)
