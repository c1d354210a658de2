"""Unstructured pruning: masks of the largest weights, in each layer or in all together, and training that keeps the others at zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from methods.kit.layers import Layer, name_the_kept, replaceable, within
from methods.kit.task import Task
from methods.kit.train import fit

Masks = Mapping[str, Tensor]  # by layer: True where a weight stays


def prunable(model: nn.Module, task: Task, needs: str, why_not: Callable[[Any, bool], str] = lambda layer, first: "") -> dict[str, Layer]:
    """The convolutions, grouped ones too, and dense layers whose weights may become zero; the others are named in the log.

    `why_not` is as in `replaceable`. Raises ValueError, beginning with `needs`, where there is none.
    """
    layers, kept = replaceable(model, why_not, (nn.Conv2d, nn.Linear), **within(task), grouped=True)
    name_the_kept(needs, layers, kept)
    return layers


def magnitudes(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """|w| of every layer: a score for `of_each` and `of_all`."""
    return {name: layer.weight.detach().abs() for name, layer in layers.items()}


def largest(scores: Tensor, count: int) -> Tensor:
    """True for so many of the largest scores and False elsewhere; of equal ones the first in the tensor's order."""
    found = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    found[scores.flatten().argsort(descending=True, stable=True)[:count]] = True
    return found.view(scores.shape)


def of_each(scores: Mapping[str, Tensor], kept: float | Mapping[str, float]) -> dict[str, Tensor]:
    """A mask of each layer's largest scores: the share `kept` of its weights, rounded; one at least."""
    share = {name: kept if isinstance(kept, int | float) else kept[name] for name in scores}
    return {name: largest(score, max(1, round(share[name] * score.numel()))) for name, score in scores.items()}


def of_all(scores: Mapping[str, Tensor], kept: float) -> dict[str, Tensor]:
    """Masks of the largest scores of all layers together, under one threshold; the largest of every layer stays in any case."""
    every = torch.cat([score.flatten() for score in scores.values()])
    parts = largest(every, round(kept * every.numel())).split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) | largest(score, 1) for (name, score), part in zip(scores.items(), parts, strict=True)}


@torch.no_grad()
def mask(model: nn.Module, masks: Masks) -> nn.Module:
    """Set to zero, in place, what does not stay. Returns the network."""
    for name, stays in masks.items():
        layer: Any = model.get_submodule(name)
        layer.weight.mul_(stays.to(layer.weight.device))
    return model


def fit_masked(model: nn.Module, task: Task, masks: Masks, **settings: Any) -> nn.Module:
    """`fit`, with what does not stay at zero before the first step and again after every one. `settings` are those of `fit`."""
    then = settings.pop("after_step", None)

    def hold(progress: float) -> None:
        mask(model, masks)
        if then is not None:
            then(progress)

    return fit(mask(model, masks), task, after_step=hold, **settings)
