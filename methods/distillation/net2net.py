"""Net2Net (Chen, Goodfellow and Shlens, ICLR 2016).

A trained network grows without changing what it computes, and learns on from there. Wider: a random mapping g makes new
channels copies of old ones, wherever these channels go, and the weights that read a channel are shared out among its copies.
Deeper: a layer that starts as the identity goes behind a ReLU, and its batch norm undoes its own normalisation.

Algorithms: Net2WiderNet, Net2DeeperNet.

Departures: residual networks on small images instead of Inception on ImageNet; they grow by a quarter in width and by one layer,
and train for half of a task's steps, so that minutes suffice, where the paper's grow by 1.8 and by two pairs of layers at every
place; square identity kernels; the network grows in width and then in depth, where the paper also tries each alone; every layer
whose channels can be copied grows by the same factor; the kit's training (Nesterov momentum, weight decay, one cosine).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn

from methods.kit.layers import fresh, name_the_kept, plain, responses
from methods.kit.surgery import group_of
from methods.kit.task import Task, numbers, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    widen: float = 1.25  # times the channels; 1 / sqrt(0.3) in §3.2
    added: int = 1  # layers at a place; two pairs behind each pair in §3.3
    every: int = 7  # of how many activations one is such a place, the last first; each in §3.3
    kernel: int = 3  # of an identity convolution
    batches: int = 4  # of training images, whose statistics a new batch norm undoes; the paper has no number
    noise: float = 0.01  # on all copies but the first, in deviations of the layer's weights; "a small amount", §2.3
    rate: float = 0.1  # of a network with random weights
    lower: float = 0.1  # times that rate, for the grown network, §3
    share: float = 0.5  # of the task's steps, for the controls too


SWEEP = tuple((Config(share=1.0), steps) for steps in (50, 100, 200, 400))

LAYERS = {nn.Conv2d: ("out_channels", "in_channels"), nn.Linear: ("out_features", "in_features")}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
SIZES: dict[Any, tuple[str, ...]] = LAYERS | dict.fromkeys(NORMS, ("num_features",))
READS = (tp.prune_conv_in_channels, tp.prune_linear_in_channels)
IDEMPOTENT = (nn.ReLU, nn.ReLU6, nn.Hardtanh)  # phi(I phi(v)) = phi(v), §2.4
Change = tuple[str, int, Tensor]  # a layer, its outputs (0) or inputs (1), and which old one each new one of these repeats
Logits = Callable[[Any], Tensor]  # reads them in what a network answers
New = Callable[[Any, int, Tensor], None]  # what becomes of the copies in one layer: (layer, axis, which old one each repeats)


def mapping(n: int, q: int, chance: torch.Generator) -> Tensor:
    """g(j) = j for the first n of q channels, a random one of the n for the others, §2.3."""
    return torch.cat([torch.arange(n), torch.randint(n, (q - n,), generator=chance)])


def kind_of(layer: nn.Module) -> Any:
    """The kind of layer whose channels are copied, also of a subclass that computes the same; None of another."""
    return next((kind for kind in SIZES if type(layer) is kind or (kind in LAYERS and plain(layer, (kind,)))), None)


def coupled(model: nn.Module, image: Tensor, name: str, g: Tensor) -> list[Change]:
    """g for all layers that make, carry or read a layer's channels, through additions, concatenations and flattenings.

    Raises ValueError with the reason why these channels cannot be copied.
    """
    names: dict[Any, str] = {layer: name for name, layer in model.named_modules()}
    layer: Any = model.get_submodule(name)
    n, changes = len(layer.weight), list[Change]()
    for item in group_of(model, image, name):
        target = item.dep.target.module
        if target.__module__ == tp.ops.__name__:  # an addition, a concatenation
            continue
        if kind_of(target) is None:
            raise ValueError(f"its channels go through {names.get(target)}, a {type(target).__name__}")
        groups = getattr(target, "groups", 1)
        if groups > 1 and not groups == target.in_channels == target.out_channels:
            raise ValueError(f"its channels meet the groups of {names[target]}")
        at, channel = torch.tensor(sorted(zip(item.idxs, item.root_idxs, strict=True))).T
        each = max(1, int((channel == 0).cumprod(0).sum()))
        order = torch.arange(n).repeat_interleave(each)  # several numbers a channel behind a flattening
        if not torch.equal(channel, order.repeat(len(at) // len(order))):
            raise ValueError(f"its channels are split on the way to {names[target]}")
        axis, source, end = int(item.dep.handler in READS), list[int](), 0
        for place in at.view(-1, n, each):  # one, or several in a concatenation
            source += [*range(end, int(place[0, 0])), *place[g].flatten().tolist()]
            end = int(place[-1, -1]) + 1
        changes.append((names[target], axis, torch.tensor([*source, *range(end, getattr(target, SIZES[kind_of(target)][axis]))])))
    if not any(axis for _, axis, _ in changes):
        raise ValueError("its channels are the network's output")
    return changes


def resize(layer: Any, axis: int, source: Tensor) -> None:
    """Repeat what makes a channel, batch norm included; divide what reads it by its number of copies: Algorithm 1."""
    copies = source.bincount()[source]  # |{x: g(x) = g(j)}|
    for key, old in [*layer.named_parameters(), *layer.named_buffers()]:
        if old.ndim > axis:  # no bias has inputs; the count of batches has no channels
            new = old.index_select(axis, source.to(old.device))
            if axis:
                new.transpose(axis, -1).div_(copies.to(new))
            setattr(layer, key, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
    for size in ("in_channels", "out_channels", "groups") if depthwise else (SIZES[kind_of(layer)][axis],):
        setattr(layer, size, len(source))


@torch.no_grad()
def wider(model: nn.Module, image: Tensor, changes: list[Change], new: New, logits: Logits = numbers) -> nn.Module:
    """Net2WiderNet for one set of channels, in a copy of the network; `new` may change what is new.

    Raises ValueError if the network would compute something else.
    """
    grown, before, after = copy.deepcopy(model), logits(model.eval()(image)), None
    with suppress(RuntimeError, IndexError, ValueError):  # sizes may be written into the network's code
        for name, axis, source in changes:
            resize(grown.get_submodule(name), axis, source)
        copy.deepcopy(grown).train()(torch.cat([image, image]))  # what runs in training alone, a second head for instance
        after = logits(grown.eval()(image))
    enough = 1e-3 * float(before.abs().max())
    if after is None or after.shape != before.shape or not torch.allclose(after, before, 0, enough):
        raise ValueError("with copies of its channels the network would compute something else")
    for name, axis, source in changes:
        new(grown.get_submodule(name), axis, source)
    return grown


def widened(model: nn.Module, image: Tensor, factor: float, chance: torch.Generator, new: New, logits: Logits = numbers) -> nn.Module:
    """Net2WiderNet for every layer whose channels can be copied, coupled ones with the same g. Names the others."""
    done, kept = set[str](), dict[str, str]()
    for name, layer in model.named_modules():
        if isinstance(layer, tuple(LAYERS)) and kind_of(layer) is None:
            kept[name] = f"no plain Conv2d or Linear but {type(layer).__name__}"
        elif kind_of(layer) in LAYERS and name not in done:
            n = len(layer.weight)
            try:
                changes = coupled(model, image, name, mapping(n, round(factor * n), chance))
                model = wider(model, image, changes, new, logits)
                done |= {changed for changed, axis, _ in changes if not axis}
            except ValueError as reason:
                kept[name] = str(reason)
    name_the_kept("Net2WiderNet needs a layer whose channels can be copied", done, kept)
    return model


def places(model: nn.Module, image: Tensor) -> tuple[list[str], dict[str, str]]:
    """The activations that an identity layer can follow, and why it cannot follow each other one."""
    watched, found, kept = copy.deepcopy(model).eval(), list[str](), dict[str, str]()
    seen: dict[str, list[Tensor]] = {
        name: []
        for name, layer in model.named_modules()
        if layer.__module__ == nn.ReLU.__module__ and type(layer) is not nn.MultiheadAttention
    }
    for name, answers in seen.items():
        watched.get_submodule(name).register_forward_hook(lambda _, x, y, answers=answers: answers.append(y))
    watched(image)
    for name, answers in seen.items():
        kind = type(model.get_submodule(name))
        if kind not in IDEMPOTENT:
            kept[name] = f"{kind.__name__} twice is not {kind.__name__} once"
        elif len(answers) != 1:
            kept[name] = f"runs {len(answers)} times"
        elif answers[0].ndim not in (2, 4):
            kept[name] = "wants (N, C) or (N, C, H, W)"
        else:
            found.append(name)
    return found, kept


@torch.no_grad()
def identity(v: Tensor, kernel: int, norm: bool) -> list[nn.Module]:
    """A layer that leaves v (N, C, ...) as it is: 1 in the middle of the own channel's kernel; batch norm undoes itself, §2.4."""
    n, flat = v.shape[1], v.ndim == 2
    layer: Any = (nn.Linear(n, n, not norm) if flat else nn.Conv2d(n, n, kernel, padding=kernel // 2, bias=not norm)).to(v)
    (nn.init.eye_ if flat else nn.init.dirac_)(layer.weight)
    if not norm:
        layer.bias.zero_()
        return [layer]
    after: Any = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(n).to(v)
    variance, mean = torch.var_mean(v.double().transpose(0, 1).flatten(1), 1, correction=0)
    after.running_mean.copy_(mean)
    after.running_var.copy_(variance)
    after.bias.copy_(mean)
    after.weight.copy_((variance + after.eps).sqrt())
    return [layer, after]


def deeper(model: nn.Module, names: list[str], images: Tensor, config: Config) -> nn.Module:
    """Net2DeeperNet: a copy of the network with identity layers behind the named activations, with batch norm where it has any."""
    grown, norm = copy.deepcopy(model), any(isinstance(layer, NORMS) for layer in model.modules())
    for name, v in responses(model, images, names).items():
        chain = [act := grown.get_submodule(name)]
        for _ in range(config.added):
            chain += [*identity(v, config.kernel, norm), copy.deepcopy(act)]
        grown.set_submodule(name, nn.Sequential(*chain))
    return grown


def repeated(source: Tensor) -> Tensor:
    """Which are not the first copy of theirs: first copies come in ascending order."""
    return source <= F.pad(source.cummax(0).values[:-1], (1, 0), value=-1)


def noisy(layer: Any, axis: int, source: Tensor, share: float, chance: torch.Generator) -> None:
    """A little noise on the incoming weights of all copies but the first, which tells them apart, §2.3."""
    if not axis and layer.weight is not None and layer.weight.ndim > 1:
        random, again = torch.randn(layer.weight.shape, generator=chance).to(layer.weight), repeated(source)
        layer.weight[again] += share * layer.weight.std() * random[again]


def grow(model: nn.Module, task: Task, config: Config, new: New | None = None) -> nn.Module:
    """Wider, then deeper; still the same function, but for the noise."""
    model, chance = model.to(task.device), torch.Generator().manual_seed(task.seed)
    images = torch.cat([x for x, _ in islice(task.batches(), config.batches)])
    if config.widen > 1:
        model = widened(model, images[:1], config.widen, chance, new or partial(noisy, share=config.noise, chance=chance), task.logits)
    if config.added:
        found, kept = places(model, images[:1])
        none = {} if found or kept else {type(model).__name__: "its activations are no modules"}
        name_the_kept("Net2DeeperNet needs an idempotent activation that is a module", found, kept | none)
        model = deeper(model, found[:: -config.every], images, config)
    return model.eval()


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Grow the network and train all of it on the labels, at a lower rate than one with random weights."""
    return fit(grow(model, task, config), task, share=config.share, lr=config.lower * config.rate)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same large network from random weights, at their rate."""
    return fit(fresh(like), task, share=config.share, lr=config.rate)


@torch.no_grad()
def padded(layer: Any, axis: int, source: Tensor) -> None:
    """Random weights as new layers have them in place of the copies, and nothing shared out."""
    random, again = copy.deepcopy(layer), repeated(source)
    random.reset_parameters()
    for old, new in zip(layer.state_dict().values(), random.state_dict().values(), strict=True):
        if old.ndim > axis:
            if axis:
                old.transpose(axis, -1).mul_(source.bincount()[source].to(old))
            old.transpose(0, axis)[again] = new.transpose(0, axis)[again]


@on_copies
def control_random_pad(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """As large, but with random channels in place of the copies, §3.2; what it gains in depth is the method's."""
    return fit(grow(model, task, config, padded), task, share=config.share, lr=config.lower * config.rate)
