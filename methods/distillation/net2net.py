"""Net2Net (Chen, Goodfellow and Shlens, ICLR 2016).

A trained network grows without changing what it computes, and learns on from there. Wider: a random mapping g makes new
channels copies of old ones, wherever these channels go, and the weights that read a channel are shared out among its copies.
Deeper: a layer that starts as the identity goes behind a ReLU, and its batch norm undoes its own normalisation.

Departures: residual networks on small images instead of Inception on ImageNet; square identity kernels, and only behind every
third activation; the network grows in width and then in depth, where the paper also tries each alone; every layer whose
channels can be copied grows by the same factor; the kit's training (Nesterov momentum, weight decay, one cosine).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torch_pruning as tp
from scipy.stats import chisquare
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import name_the_kept, responses
from methods.kit.surgery import widths
from methods.kit.task import Split, Task
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    widen: float = 0.3**-0.5  # the teacher has sqrt(0.3) of the student's channels, §3.2
    added: int = 2  # layers at a place: two more pairs behind each pair, §3.3
    every: int = 3  # of how many activations one is such a place, the last first; each in the paper
    kernel: int = 3  # of an identity convolution
    batches: int = 8  # of training images, whose statistics a new batch norm undoes; the paper has no number
    noise: float = 0.01  # on all copies but the first, in deviations of the layer's weights; "a small amount", §2.3
    rate: float = 0.1  # of a network with random weights
    lower: float = 0.1  # times that rate, for the grown network, §3.1


SMOKE = Config(widen=1.5, added=1, every=7)  # as much growth as trains in seconds
SWEEP = tuple((SMOKE, steps) for steps in (50, 100, 200, 400))

SIZES = {nn.Conv2d: ("out_channels", "in_channels"), nn.Linear: ("out_features", "in_features")} | dict.fromkeys(
    (nn.BatchNorm1d, nn.BatchNorm2d), ("num_features",)
)
READS = (tp.prune_conv_in_channels, tp.prune_linear_in_channels)
IDEMPOTENT = (nn.ReLU, nn.ReLU6, nn.Hardtanh)  # phi(I phi(v)) = phi(v), §2.4
Member = tuple[str, int, Tensor]  # a layer, its outputs (0) or inputs (1), and where they are: (places, channels, numbers a channel)
New = Callable[[Any, int, Tensor, Tensor], None]  # what becomes of new channels: (layer, axis, which are new, how many copies of each)


def mapping(n: int, q: int, chance: torch.Generator) -> Tensor:
    """g(j) = j for the first n of q channels, a random one of the n for the others, §2.3."""
    return torch.cat([torch.arange(n), torch.randint(n, (q - n,), generator=chance)])


def coupled(model: nn.Module, image: Tensor, name: str) -> list[Member]:
    """All layers that make, carry or read the channels of one layer, through additions, concatenations and flattenings.

    Raises ValueError with the reason why these channels cannot be copied.
    """
    with torch.enable_grad():  # the graph is traced through autograd
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=image)
    names: dict[Any, str] = {layer: name for name, layer in model.named_modules()}
    layer: Any = model.get_submodule(name)
    n, members = len(layer.weight), list[Member]()
    makes = tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else tp.prune_conv_out_channels
    for item in graph.get_pruning_group(layer, makes, list(range(n))):
        target = item.dep.target.module
        if type(target).__module__ == tp.ops.__name__:
            continue  # an addition, a concatenation
        if type(target) not in SIZES or 1 < getattr(target, "groups", 1) < target.in_channels:
            raise ValueError(f"its channels go through {names.get(target)}, a {type(target).__name__} that mixes or tells them apart")
        at, channel = torch.tensor(sorted(zip(item.idxs, item.root_idxs, strict=True))).T
        each = int((channel.cumsum(0) == 0).sum())  # more numbers than one a channel behind a flattening
        if not torch.equal(channel, (torch.arange(len(at)) // each) % n) or len(at) % (n * each):
            raise ValueError(f"its channels are split on the way to {names[target]}")
        members.append((names[target], int(item.dep.handler in READS), at.view(-1, n, each)))
    if not any(axis for _, axis, _ in members):
        raise ValueError("its channels are the network's output")
    return members


def resize(layer: Any, axis: int, source: Tensor, copies: Tensor) -> None:
    """Repeat what makes a channel, batch norm included; divide what reads it by its number of copies: Algorithm 1."""
    for key, old in [*layer.named_parameters(), *layer.named_buffers()]:
        if old.ndim > axis:  # no bias has inputs; the count of batches has no channels
            new = old.detach().index_select(axis, source.to(old.device))
            if axis:
                new /= copies.to(new).view(-1, *[1] * (old.ndim - 2))  # |{x: g(x) = g(j)}|
            setattr(layer, key, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    depthwise = getattr(layer, "groups", 1) > 1
    for size in ("in_channels", "out_channels", "groups") if depthwise else (SIZES[type(layer)][axis],):
        setattr(layer, size, len(source))


@torch.no_grad()
def wider(model: nn.Module, image: Tensor, members: list[Member], g: Tensor, new: New) -> nn.Module:
    """Net2WiderNet: a copy of the network in which one set of channels follows g in every layer; `new` may change what is new.

    Raises ValueError if the network would compute something else.
    """
    grown, fresh = copy.deepcopy(model), list[tuple[Any, int, Tensor, Tensor]]()
    for name, axis, places in members:
        layer: Any = grown.get_submodule(name)
        copies = torch.ones(layer.weight.shape[axis])
        copies[places] = g.bincount()[:, None].to(copies)
        behind = {int(place[-1, -1]): place[g[places.shape[1] :]].flatten().tolist() for place in places}
        slots = [(s, count > 0) for slot in range(len(copies)) for count, s in enumerate((slot, *behind.get(slot, ())))]
        source, is_new = torch.tensor(slots).T
        resize(layer, axis, source, copies[source])
        fresh.append((layer, axis, is_new > 0, copies[source]))
    before, after = model.eval()(image), None
    with suppress(RuntimeError):  # sizes may be written into the network's code
        after = grown.eval()(image)
    if after is None or after.shape != before.shape or not torch.allclose(after, before, 0, 1e-3 * float(before.abs().max())):
        raise ValueError("with copies of its channels the network would compute something else")
    for change in fresh:
        new(*change)
    return grown


def widened(model: nn.Module, image: Tensor, factor: float, chance: torch.Generator, new: New) -> nn.Module:
    """Net2WiderNet for every layer whose channels can be copied, coupled ones with the same g. Names the others."""
    done, kept = set[str](), dict[str, str]()
    for name, layer in model.named_modules():
        if type(layer) in (nn.Conv2d, nn.Linear) and name not in done:
            try:
                members = coupled(model, image, name)
                model = wider(model, image, members, mapping(len(layer.weight), round(factor * len(layer.weight)), chance), new)
                done |= {member for member, axis, _ in members if not axis}
            except ValueError as reason:
                kept[name] = str(reason)
    name_the_kept("Net2WiderNet needs a layer whose channels can be copied", done, {name: kept[name] for name in kept.keys() - done})
    return model


def places(model: nn.Module, image: Tensor) -> tuple[list[str], dict[str, str]]:
    """The activations that an identity layer can follow, and why it cannot follow each other one."""
    seen: dict[str, list[Any]] = {name: [] for name, layer in model.named_modules() if type(layer).__module__ == nn.ReLU.__module__}
    layers = {name: model.get_submodule(name) for name in seen}
    hooks = [layer.register_forward_hook(lambda _, x, y, name=name: seen[name].append(y)) for name, layer in layers.items()]  # type: ignore[misc]
    try:
        model.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
    kept = {name: f"runs {len(found)} times" for name, found in seen.items() if len(found) != 1}
    kept |= {name: "wants (N, C) or (N, C, H, W)" for name, found in seen.items() if found and found[0].ndim not in (2, 4)}
    kept |= {name: f"{type(layer).__name__} twice is not {type(layer).__name__} once" for name, layer in layers.items() if type(layer) not in IDEMPOTENT}
    return [name for name in seen if name not in kept], kept


@torch.no_grad()
def identity(like: Tensor, mean: Tensor, variance: Tensor, kernel: int, norm: bool) -> list[nn.Module]:
    """A layer that leaves (N, C, ...) as it is: 1 in the middle of the own channel's kernel; batch norm undoes itself, §2.4."""
    n, flat = like.shape[1], like.ndim == 2
    layer: Any = nn.Linear(n, n, not norm) if flat else nn.Conv2d(n, n, kernel, padding=kernel // 2, bias=not norm)
    if not norm:
        layer.bias.zero_()
    (nn.init.eye_ if flat else nn.init.dirac_)(layer.weight)
    after: Any = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(n)
    after.running_mean, after.running_var = mean, variance
    after.bias.copy_(mean)
    after.weight.copy_((variance + after.eps).sqrt())
    return [layer.to(like), after.to(like)][: 1 + norm]


def deeper(model: nn.Module, names: list[str], images: Iterable[Tensor], config: Config) -> nn.Module:
    """Net2DeeperNet: a copy of the network with identity layers behind the named activations.

    They have batch norm where the network has, whose scale and shift are the deviation and mean of what comes in on these images.
    """
    grown, moments, last = copy.deepcopy(model), dict[str, list[Tensor]](), dict[str, Tensor]()
    for x in images:
        last = responses(model, x, names)
        for name, v in last.items():
            values = v.detach().double().transpose(0, 1).flatten(1)
            moments.setdefault(name, []).append(torch.stack([values.mean(1), values.square().mean(1)]))
    norm = any(isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d) for layer in model.modules())
    for name, act in [(name, grown.get_submodule(name)) for name in names]:
        mean, square = torch.stack(moments[name]).mean(0)
        layers = [[*identity(last[name], mean, square - mean**2, config.kernel, norm), copy.deepcopy(act)] for _ in range(config.added)]
        grown.set_submodule(name, nn.Sequential(act, *sum(layers, [])))
    return grown


def noisy(layer: Any, axis: int, fresh: Tensor, copies: Tensor, share: float, chance: torch.Generator) -> None:
    """A little noise on the incoming weights of all copies but the first, which tells them apart, §2.3."""
    if not axis and layer.weight.ndim > 1:
        noise = share * layer.weight.std() * torch.randn(layer.weight.shape, generator=chance).to(layer.weight)
        layer.weight[fresh] += noise[fresh]


def grow(model: nn.Module, task: Task, config: Config, new: New | None = None) -> nn.Module:
    """Wider, then deeper; still the same function, but for the noise."""
    chance = torch.Generator().manual_seed(task.seed)
    images = [x for x, _ in islice(task.batches(), config.batches)]
    if config.widen > 1:
        new = new or partial(noisy, share=config.noise, chance=chance)
        model = widened(model.to(task.device), images[0][:1], config.widen, chance, new)
    if config.added:
        found, kept = places(model.to(task.device), images[0][:1])
        name_the_kept("Net2DeeperNet needs an idempotent activation that is a module", found, kept)
        model = deeper(model, found[:: -config.every], images, config)
    return model


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Grow the network and train all of it on the labels, at a lower rate than one with random weights."""
    return fit(grow(model, task, config), task, lr=config.lower * config.rate)


def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same large network from random weights, at their rate."""
    model = copy.deepcopy(like)
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return fit(model, task, lr=config.rate)


@torch.no_grad()
def padded(layer: Any, axis: int, fresh: Tensor, copies: Tensor) -> None:
    """Random weights as new layers have them in place of the copies, and nothing shared out."""
    random = copy.deepcopy(layer)
    random.reset_parameters()
    for old, new in zip(layer.state_dict().values(), random.state_dict().values(), strict=True):
        if old.ndim > axis:
            if axis:
                old *= copies.to(old).view(-1, *[1] * (old.ndim - 2))
            old.transpose(0, axis)[fresh] = new.transpose(0, axis)[fresh]


def control_random_pad(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """As large, but with random channels in place of the copies, §3.2; what it gains in depth is the method's."""
    return fit(grow(model, task, config, padded), task, lr=config.lower * config.rate)
