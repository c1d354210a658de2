"""Group-wise brain damage (Lebedev & Lempitsky, CVPR 2016).

Convolution as a product of matrices multiplies the patches of the maps by the filters: one row of the filters' matrix is one tap,
a position of the kernel on one input map, of all filters. A penalty on the norms of these rows drives them to zero while the
network trains; those under a threshold that rises are zeroed for good. What is left trains on with its pattern, and is run as the
product of two smaller matrices: of each input map only the taps that are left are gathered, of some maps none.

Departures: the threshold rises so that the share of zeroed taps grows evenly to the one that is asked for, the same for every
layer; taps are zeroed after every step; penalised training starts from the trained network. While it trains, zeros are held in an
ordinary convolution, as in the authors' code. The first convolution, grouped ones and dense layers stay as they are. Training is
the kit's (Nesterov momentum, one cosine each). In a smoke run fewer taps go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.layers import frame, name_the_kept, replaceable, replaced, within
from methods.kit.masks import Masks, fit_masked, mask, of_each
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit

Scores = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    cut: float = 0.7  # tau, the share of the taps that are zeroed; ours: about the three-fold speed-up of a product
    penalty: float = 3e-2  # lambda; ours
    sparse_share: float = 0.5  # of the steps are penalised; ours


SMOKE = (Config(cut=0.4, penalty=1e-2, sparse_share=0.4), 20)  # seconds repair no more
LONG = (Config(), 250)  # within five minutes


def reference(task: Task) -> nn.Module:
    """A small VGG, whose maps are many, in the place of AlexNet."""
    return trained("vgg_wide", task.name)


def layers_to_thin(model: nn.Module, task: Task) -> dict[str, nn.Conv2d]:
    """The convolutions that are one product of matrices."""
    layers, kept = replaceable(
        model, lambda layer, first: "the first one, which has hardly a tap to spare" if first else "", **within(task)
    )
    name_the_kept("group-wise brain damage needs a convolution without groups behind the first", layers, kept)
    return layers


def tap_norms(weight: Tensor) -> Tensor:
    """||K(i, j, s, :)||_2 of every tap: a kernel (T, S, d, d) -> (S, d, d)."""
    return torch.linalg.vector_norm(weight, dim=0)


def group_sparsity(layers: Mapping[str, nn.Conv2d]) -> Tensor:
    """Omega_2,1: the sum of the norms of all taps."""
    return torch.stack([tap_norms(layer.weight).sum() for layer in layers.values()]).sum()


def patterns(layers: Mapping[str, nn.Conv2d], scores: Scores, cut: float, multiple: int) -> dict[str, Tensor]:
    """The taps (S, d, d) that stay of each layer when the share `cut` with the lowest scores goes; so many that `multiple` divides them."""
    found = {name: scores(name, layer.weight.detach()) for name, layer in layers.items()}
    counts = {name: max(1, round((1 - cut) * score.numel())) for name, score in found.items()}
    return of_each(found, {name: min(1.0, -(-counts[name] // multiple) * multiple / score.numel()) for name, score in found.items()})


def by_norm(name: str, weight: Tensor) -> Tensor:
    """What is asked of a tap: its norm, zero where it is gone already."""
    return tap_norms(weight)


def sparsified(model: nn.Module, task: Task, layers: Mapping[str, nn.Conv2d], config: Config, scores: Scores = by_norm) -> Masks:
    """Train with lambda Omega_2,1; after every step the taps under the threshold, which rises, are zero for good. Returns the pattern."""
    masks: dict[str, Tensor] = {}

    def zero(progress: float) -> None:
        mask(model, masks)  # what is gone has no norm, and stays below any threshold
        masks.update(patterns(layers, scores, config.cut * progress, task.multiple))
        mask(model, masks)

    def loss(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return task.loss_of(m, x, y) + config.penalty * group_sparsity(layers)

    fit(model, task, loss, share=config.sparse_share, after_step=zero)
    zero(1.0)
    return masks


class ThinConv2d(nn.Module):
    """A convolution of the taps that are left: gathers those of every place, and multiplies by the smaller matrix of filters."""

    taps: Tensor

    def __init__(self, layer: nn.Conv2d, stays: Tensor) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.frame, self.mode = frame(layer), "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        self.register_buffer("taps", stays.flatten().nonzero().flatten().int())  # of S d d, in this order
        self.weight = nn.Parameter(layer.weight.detach().flatten(1)[:, stays.flatten()].clone())  # (T, taps that are left)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def columns(self, x: Tensor) -> Tensor:
        """The thinned im2col, (N, S, H, W) -> (N, taps, H' W'): no other tap is read."""
        (height, width), (down, across) = self.size(x), self.stride
        i, j = self.taps // self.kernel[1] % self.kernel[0], self.taps % self.kernel[1]
        start = (self.taps // (self.kernel[0] * self.kernel[1])) * x.shape[2] + i * self.dilation[0]
        rows = start[:, None] + down * torch.arange(height, device=x.device)  # (taps, H')
        places = rows[:, :, None] * x.shape[3] + j[:, None, None] * self.dilation[1] + across * torch.arange(width, device=x.device)
        return x.flatten(1).index_select(1, places.flatten()).view(len(x), len(self.taps), -1)

    def size(self, x: Tensor) -> tuple[int, int]:
        """H' and W' of a padded input."""
        sizes = zip(x.shape[2:], self.kernel, self.dilation, self.stride, strict=True)
        height, width = ((size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, dilation, stride in sizes)
        return height, width

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.frame, self.mode)
        y = torch.matmul(self.weight, self.columns(x))
        if self.bias is not None:
            y = y + self.bias[:, None]
        return y.unflatten(2, self.size(x))


def thinned(model: nn.Module, masks: Masks) -> nn.Module:
    """The network with the products of smaller matrices in the place of its convolutions."""
    parts: Any = {name: ThinConv2d(model.get_submodule(name), stays) for name, stays in masks.items()}  # type: ignore[arg-type]
    return replaced(model, parts).eval()


def damaged(model: nn.Module, task: Task, config: Config, scores: Scores = by_norm) -> nn.Module:
    """Zero taps while the network trains, then let the others train on without the penalty."""
    masks = sparsified(model, task, layers_to_thin(model, task), config, scores)
    return thinned(fit_masked(model, task, masks, share=1 - config.sparse_share), masks)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Penalise and zero taps gradually, fine-tune with the pattern fixed, multiply smaller matrices."""
    return damaged(model, task, config)


@on_copies
def control_unpenalised(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """As many taps of the least norm, zeroed as gradually, but nothing drives them to zero."""
    return damaged(model, task, replace(config, penalty=0.0))


@on_copies
def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Random patterns of as many taps, zeroed as gradually, without the penalty."""
    chance, drawn = torch.Generator().manual_seed(task.seed), dict[str, Tensor]()

    def by_chance(name: str, weight: Tensor) -> Tensor:
        return drawn.setdefault(name, torch.rand(weight.shape[1:], generator=chance))

    return damaged(model, task, replace(config, penalty=0.0), by_chance)
