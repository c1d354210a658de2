"""MUSCO (Gusak et al., ICCV workshop 2019).

Several gentle decompositions instead of one harsh one. Each stage asks VBMF how low every rank could go, goes only part of
the way, decomposes, and trains the whole network before the next stage. A layer that is three convolutions already has its
core decomposed again; the new outer factors melt into their neighbours, so that no layer ever gets deeper.

Departures: every stage decomposes all layers, where the paper may train after every few; CP and ranks of a fixed ratio, which
the paper's code pairs with each other, are left out. The first convolution is split in two like dense layers and 1x1
convolutions, as in Tucker-2 with VBMF ranks, and a layer is left alone where even the ranks that VBMF asks for would save
nothing. Stages share the task's steps evenly, each with batches of its own; training that is left when ranks stop early follows
at once. Fine-tuning is the kit's (one warm-up and cosine a stage), in a smoke run at three times the rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from methods.kit.layers import Layer, filled, name_the_kept, replaceable, within
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit
from methods.low_rank.kim_tucker import Ranks, decomposed, evbmf_rank, tucker2, work


@dataclass(frozen=True)
class Config:
    weakening: float = 0.7  # w, of the paper's detectors: comparative_results.pdf of the authors' list, Table 5
    stages: int = 2  # most rounds, ibid.
    floor: int = 21  # ranks go no lower; the authors' package, `weaken_rank`
    rate: float = 1e-3  # of fine-tuning; the authors' first code, `fine_tune_adv`


SMOKE = Config(stages=3, floor=12, rate=3e-3)  # seconds instead of epochs; lower ranks, so that decomposing at once hurts
SWEEP: tuple[Config, ...] = (*(replace(SMOKE, weakening=w, stages=2) for w in (0.3, 0.5, 0.7)), SMOKE)


def reference(task: Task) -> nn.Module:
    """Many channels, like the paper's networks."""
    return trained("vgg_wide", task.name)


def weakened(rank: int, extreme: int, config: Config) -> int:
    """R_weak = R - w (R - R_extreme), rounded down; R itself at the floor, and where VBMF finds nothing."""
    lower = int(rank - config.weakening * (rank - extreme)) if extreme else rank
    return max(lower, min(rank, config.floor))


def core(layer: nn.Module) -> Layer:
    """What a stage decomposes: the layer itself, or of a decomposed one the part before the last."""
    return layer[-2] if isinstance(layer, nn.Sequential) else layer  # type: ignore[return-value]


def next_ranks(layer: nn.Module, both: bool, config: Config) -> Ranks:
    """Weakened ranks of the core's unfoldings along the input channels (where `both`) and the output channels.

    Raises ValueError with the reason why the layer stays as it is.
    """
    kernel = core(layer).weight.detach().double().cpu()
    unfoldings = [kernel.flatten(1), *([kernel.transpose(0, 1).flatten(1)] if both else [])]
    now = [min(matrix.shape) for matrix in unfoldings]
    extreme = [evbmf_rank(matrix.numpy()) for matrix in unfoldings]

    def ranks(weakening: float) -> Ranks:
        some = replace(config, weakening=weakening)
        r4, *r3 = (weakened(rank, low, some) for rank, low in zip(now, extreme, strict=True))
        return (r3[0] if r3 else None, r4)

    if ranks(config.weakening) == ranks(0):
        raise ValueError(f"ranks {now} stay, at the floor of {config.floor} or where VBMF finds nothing")
    if core(layer) is layer and work(layer, ranks(1)) >= kernel.numel():
        raise ValueError(f"even ranks {ranks(1)} save nothing")
    return ranks(config.weakening)


def melted(first: Layer, second: Layer) -> nn.Module:
    """second(first(x)) as one layer: two dense layers or 1x1 convolutions, the first of them without a bias."""
    weight = second.weight.double().flatten(1) @ first.weight.double().flatten(1)
    outputs, inputs, bias = *weight.shape, second.bias is not None
    one = nn.Linear(inputs, outputs, bias) if isinstance(second, nn.Linear) else nn.Conv2d(inputs, outputs, 1, bias=bias)
    return filled(second, [one], [weight])[0]


def decompose(layer: nn.Module, ranks: Ranks) -> nn.Sequential:
    """Tucker-2 of a layer; of a decomposed one's core, whose new outer factors melt into the old ones: U3 U3' and U4 U4'."""
    if not isinstance(layer, nn.Sequential):
        return tucker2(layer, ranks)
    (*reduce, inner, expand), (*before, _, behind) = tucker2(core(layer), ranks), layer
    return nn.Sequential(*map(melted, before, reduce), inner, melted(expand, behind))


def decomposable(model: nn.Module, **given: Any) -> tuple[dict[str, bool], dict[str, str]]:
    """The layers to decompose, with whether in both channel modes, and the reason why each other layer stays as it is."""
    both: dict[Layer, bool] = {}

    def why_not(layer: Layer, first: bool) -> str:
        both[layer] = not first and layer.weight[0, 0].numel() > 1
        return ""

    layers, others = replaceable(model, why_not, (nn.Conv2d, nn.Linear), **given)
    return {name: both[layer] for name, layer in layers.items()}, others


def plan(model: nn.Module, layers: dict[str, bool], config: Config) -> tuple[dict[str, Ranks], dict[str, str]]:
    """The ranks of the layers that a stage decomposes, and the reason why each other one stays as it is."""
    ranks, kept = dict[str, Ranks](), dict[str, str]()
    for name, both in layers.items():
        try:
            ranks[name] = next_ranks(model.get_submodule(name), both, config)
        except ValueError as reason:
            kept[name] = str(reason)
    return ranks, kept


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Choose ranks, weaken them, decompose, fine-tune the whole network; again until no rank moves or the stages are over."""
    layers, others = decomposable(model, **within(task))
    ranks, kept = plan(model, layers, config)
    name_the_kept("MUSCO needs a convolution or dense layer of low rank", ranks, others | kept)
    left = config.stages
    while ranks and left > 1:
        apart = replace(task, seed=task.seed + left)
        model = fit(decomposed(model, ranks, decompose), apart, share=1 / config.stages, lr=config.rate)
        ranks, left = plan(model, layers, config)[0], left - 1
    return fit(decomposed(model, ranks, decompose), task, share=left / config.stages, lr=config.rate)


def ranks_of(model: nn.Module, names: Iterable[str]) -> dict[str, Ranks]:
    """The ranks at which the named layers are decomposed, where they are."""
    chains = {name: layer for name in names if isinstance(layer := model.get_submodule(name), nn.Sequential)}
    shapes = {name: core(chain).weight.shape for name, chain in chains.items()}
    return {name: (shapes[name][1] if len(chain) == 3 else None, shapes[name][0]) for name, chain in chains.items()}


@on_copies
def control_one_shot(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same layers at the same final ranks, decomposed at once; the same number of steps of fine-tuning."""
    return fit(decomposed(model, ranks_of(like, decomposable(model, **within(task))[0])), task, lr=config.rate)
