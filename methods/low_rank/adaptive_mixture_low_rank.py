"""Adaptive mixture of low-rank factorizations (Chen et al., NIPS workshop 2018).

A weight matrix becomes a sum of K low-rank products, each with a weight of its own that depends on the input: a gate looks at a
pooled summary of it. The work is that of one product as wide as all K together, but different inputs meet different
matrices. Gate and factors are trained together with the task's loss.

Departures: kernels larger than 1x1 are taken as matrices, too (the paper has the pointwise convolutions of MobileNet and
the matrices of a recurrent network); factors start as the truncated SVD of the layer that they replace and gates as
constants, so that trained networks can be taken over; an untrained network, as in the paper, gives random factors. The
gate is the sigmoid, which the paper tries beside the softmax. How many products there are, at what share of the cost, and
how many numbers a summary has are ours. The first convolution stays as it is, and so do grouped ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.layers import Layer, name_the_kept, replaceable, replaced, truncated_svd, within
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    share: float = 0.25  # of a layer's multiply-adds
    components: int = 4  # K
    summary: int = 16  # numbers that the gate sees
    rate: float = 0.02


SMOKE = Config(share=0.1)  # at a quarter this network loses little, whatever the mixture
SWEEP = tuple(Config(share=share) for share in (0.5, 0.25, 0.15, 0.08))


def reference(task: Task) -> nn.Module:
    """Wide layers, where a low rank says something."""
    return trained("vgg_wide", task.name)


class Mixture(nn.Module):
    """y = sum_k pi_k(x) U_k V_k^T x: one wide product whose inner channels are scaled in K blocks, by each input's own weights.

    Inputs (N, C, H, W) for a convolution, with one set of weights an image; (..., C) for a dense layer, one set a vector.
    """

    def __init__(self, v: nn.Module, u: nn.Module, components: int, summary: int) -> None:
        super().__init__()
        self.v, self.u = v, u
        self.gate = nn.Linear(summary, components)

    def weights(self, x: Tensor) -> Tensor:
        """pi(x), sigmoids of a linear map of what is left of x when space and groups of channels are averaged: (..., K)."""
        pooled = x.mean((2, 3)) if isinstance(self.v, nn.Conv2d) else x
        summary = F.adaptive_avg_pool1d(pooled.reshape(-1, pooled.shape[-1]), self.gate.in_features)
        return torch.sigmoid(self.gate(summary.reshape(*pooled.shape[:-1], -1)))

    def forward(self, x: Tensor) -> Tensor:
        pi = self.weights(x)
        scale = pi.repeat_interleave(self.u.weight.shape[1] // pi.shape[-1], -1)
        return self.u(self.v(x) * (scale[..., None, None] if isinstance(self.v, nn.Conv2d) else scale))


def width(layer: Layer, config: Config) -> int:
    """d of each of the K products, so that all of them take the share of the layer's multiply-adds; 0 where that is too little."""
    outputs, inputs = layer.weight.flatten(1).shape
    return int(config.share * outputs * inputs / (outputs + inputs) / config.components)


def mixture(layer: Layer, config: Config) -> Mixture:
    """The truncated SVD of rank K d in K blocks, one singular direction to each in turn, under gates that are constant at first."""
    count = config.components
    v, u = truncated_svd(layer, count * width(layer, config))
    dealt = torch.arange(v.weight.shape[0]).view(-1, count).T.flatten()  # of 0 1 2 3 4 5, for two blocks: 0 2 4, 1 3 5
    made = Mixture(v, u, count, min(config.summary, layer.weight.shape[1])).to(layer.weight)
    with torch.no_grad():
        v.weight.copy_(v.weight[dealt])
        u.weight.copy_(2 * u.weight[:, dealt])  # sigmoid(0) = 1/2
        made.gate.weight.zero_()
        made.gate.bias.zero_()
    return made


def plan(model: nn.Module, config: Config, **given: Any) -> tuple[dict[str, Layer], dict[str, str]]:
    """The layers that become mixtures, and the reason why each other layer stays as it is."""

    def why_not(layer: Layer, first: bool) -> str:
        if first:
            return "the first convolution has few inputs to mix"
        few = f"too narrow for {config.components} products at {config.share:g} of its multiply-adds"
        return "" if width(layer, config) else few

    return replaceable(model, why_not, (nn.Conv2d, nn.Linear), **given)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Replace every layer, then train everything: factors, gates, batch norm."""
    layers, kept = plan(model, config, **within(task))
    name_the_kept("a mixture of low-rank products needs a wide layer behind the first convolution", layers, kept)
    return fit(replaced(model, {name: mixture(layer, config) for name, layer in layers.items()}), task, lr=config.rate)


@on_copies
def control_low_rank(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same layers as one product, of as many multiply-adds and the same start; the same training."""
    layers = plan(model, config, **within(task))[0]
    ranks = {name: config.components * width(layer, config) for name, layer in layers.items()}
    return fit(replaced(model, {name: truncated_svd(layer, ranks[name]) for name, layer in layers.items()}), task, lr=config.rate)
