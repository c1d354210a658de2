"""MUSCO (Gusak et al., ICCV workshop 2019).

Several gentle decompositions instead of one harsh one. Each stage asks VBMF how low every rank could go, goes only part of
the way, decomposes, and trains the whole network before the next stage. A layer that is three convolutions already has its
core decomposed again; the new outer factors melt into their neighbours, so that no layer ever gets deeper.

Departures:
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from methods.kit.lab import Lab
from methods.kit.layers import Layer, name_the_kept, replaceable
from methods.kit.nets import trained
from methods.kit.task import Task
from methods.kit.train import fit
from methods.low_rank.kim_tucker import Ranks, decomposed, evbmf_rank, tucker2, work


@dataclass(frozen=True)
class Config:
    weakening: float = 0.7  # w
    stages: int = 2
    floor: int = 21  # ranks that go no lower
    rate: float = 1e-3


SMOKE = Config(stages=3, rate=1e-2)


def reference(task: Task) -> nn.Module:
    """Many channels, like the paper's networks."""
    return trained("vgg_wide", task.name)


def weakened(rank: int, extreme: int, config: Config) -> int:
    """R_weak = R - w (R - R_extreme), rounded down; R itself at the floor, and where VBMF finds nothing."""
    lower = int(rank - config.weakening * (rank - extreme)) if extreme else rank
    return max(lower, min(rank, config.floor))


def core(layer: nn.Module) -> Layer:
    """What the next stage decomposes: the layer itself, or the part in front of the last one."""
    return layer[-2] if isinstance(layer, nn.Sequential) else layer


def next_ranks(layer: nn.Module, both: bool, config: Config) -> Ranks:
    """Weakened ranks of the core's channel modes, of the output mode only for a matrix and for the first layer.

    Raises ValueError with the reason why the layer stays as it is.
    """
    inner = core(layer)
    kernel = inner.weight.detach().double().cpu()
    unfoldings = [kernel.flatten(1)] + ([kernel.transpose(0, 1).flatten(1)] if both else [])
    full = [min(matrix.shape) for matrix in unfoldings]
    lower = [weakened(rank, evbmf_rank(matrix.numpy()), config) for rank, matrix in zip(full, unfoldings, strict=True)]
    if lower == full:
        raise ValueError(f"ranks {full} do not move")
    r4, *r3 = lower
    ranks = (r3[0] if r3 else None, r4)
    if inner is layer and work(inner, ranks) >= kernel.numel():
        raise ValueError(f"ranks {ranks} save nothing")
    return ranks


def melted(first: Layer, second: Layer) -> Layer:
    """second(first(x)) as one layer, for dense layers and 1x1 convolutions of which the first has no bias."""
    weight = second.weight.flatten(1) @ first.weight.flatten(1)
    outputs, inputs, bias = *weight.shape, second.bias is not None
    one = nn.Linear(inputs, outputs, bias) if isinstance(second, nn.Linear) else nn.Conv2d(inputs, outputs, 1, bias=bias)
    one.to(second.weight).load_state_dict(second.state_dict() | {"weight": weight.reshape(one.weight.shape)})
    return one


def decompose(layer: nn.Module, ranks: Ranks) -> nn.Sequential:
    """Tucker-2 of a layer; of a decomposed one's core, whose new outer factors melt into the old ones: U3 U3' and U4 U4'."""
    if not isinstance(layer, nn.Sequential):
        return tucker2(layer, ranks)
    *before, inner, behind = layer
    *reduce, inner, expand = tucker2(inner, ranks)
    return nn.Sequential(*(melted(old, new) for old, new in zip(before, reduce, strict=True)), inner, melted(expand, behind))


def decomposable(model: nn.Module) -> tuple[dict[str, bool], dict[str, str]]:
    """The layers to decompose, with whether in both channel modes, and the reason why each other layer stays as it is."""
    both: dict[Layer, bool] = {}

    def why_not(layer: Layer, first: bool) -> str:
        both[layer] = not first and layer.weight[0, 0].numel() > 1
        return ""

    layers, kept = replaceable(model, why_not, (nn.Conv2d, nn.Linear))
    return {name: both[layer] for name, layer in layers.items()}, kept


def plan(model: nn.Module, layers: dict[str, bool], config: Config) -> tuple[dict[str, Ranks], dict[str, str]]:
    """The ranks of the next stage, and the reason why each other layer stays as it is."""
    ranks, kept = dict[str, Ranks](), dict[str, str]()
    for name, both in layers.items():
        try:
            ranks[name] = next_ranks(model.get_submodule(name), both, config)
        except ValueError as reason:
            kept[name] = str(reason)
    return ranks, kept


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Choose ranks, weaken them, decompose, fine-tune; again until no rank moves. What is left of the training comes last."""
    layers, others = decomposable(model)
    ranks, kept = plan(model, layers, config)
    name_the_kept("MUSCO needs", ranks, others | kept)
    left = config.stages
    while ranks and left > 1:
        model = fit(decomposed(model, ranks, decompose), replace(task, seed=task.seed + left), share=1 / config.stages, lr=config.rate)
        left -= 1
        ranks, kept = plan(model, layers, config)
    return fit(decomposed(model, ranks, decompose), task, share=left / config.stages, lr=config.rate)


def control_one_shot(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same layers at the final ranks of `like`, decomposed at once; the same steps of fine-tuning."""
    chains = {name: like.get_submodule(name) for name in decomposable(model)[0]}
    ranks = {
        name: (core(chain).weight.shape[1] if len(chain) > 2 else None, len(core(chain).weight))
        for name, chain in chains.items()
        if isinstance(chain, nn.Sequential)
    }
    return fit(decomposed(model, ranks), task, lr=config.rate)
