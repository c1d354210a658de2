"""Net2Net (Chen, Goodfellow and Shlens, ICLR 2016).

A trained network grows without changing what it computes, and learns on from there. Wider: a random mapping g makes new
channels copies of old ones, wherever these channels go, and the weights that read a channel are shared out among its copies.
Deeper: a layer that starts as the identity goes behind a ReLU, and its batch norm undoes its own normalisation.

Departures: residual networks on small images instead of Inception on ImageNet; they grow by a quarter in width and by one layer,
and train for half of a task's steps, so that minutes suffice, where the paper's grow by 1.8 and by two pairs of layers at every
place; square identity kernels; the network grows in width and then in depth, where the paper also tries each alone; every layer
whose channels can be copied grows by the same factor; the kit's training (Nesterov momentum, weight decay, one cosine).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
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
from methods.kit.layers import fresh, name_the_kept, plain, responses
from methods.kit.surgery import group_of, widths
from methods.kit.task import Split, Task, numbers, on_copies
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
        if groups > 1 and not groups == target.in_channels == target.out_channels:  # equivalent: `wider` refuses, too
            raise ValueError(f"its channels meet the groups of {names[target]}")
        at, channel = torch.tensor(sorted(zip(item.idxs, item.root_idxs, strict=True))).T
        each = max(1, int((channel == 0).cumprod(0).sum()))  # equivalent: max is symmetric, and a tensor does as well
        order = torch.arange(n).repeat_interleave(each)  # several numbers a channel behind a flattening
        if not torch.equal(channel, order.repeat(len(at) // len(order))):  # equivalent: so is equal
            raise ValueError(f"its channels are split on the way to {names[target]}")
        axis, source, end = int(item.dep.handler in READS), list[int](), 0
        for place in at.view(-1, n, each):  # one, or several in a concatenation
            source += [*range(end, int(place[0, 0])), *place[g].flatten().tolist()]
            end = int(place[-1, -1]) + 1
        changes.append((names[target], axis, torch.tensor([*source, *range(end, getattr(target, SIZES[kind_of(target)][axis]))])))
    if not any(axis for _, axis, _ in changes):  # equivalent: `wider` refuses, too
        raise ValueError("its channels are the network's output")
    return changes


def resize(layer: Any, axis: int, source: Tensor) -> None:
    """Repeat what makes a channel, batch norm included; divide what reads it by its number of copies: Algorithm 1."""
    copies = source.bincount()[source]  # |{x: g(x) = g(j)}|
    for key, old in [*layer.named_parameters(), *layer.named_buffers()]:
        if old.ndim > axis:  # no bias has inputs; the count of batches has no channels
            new = old.index_select(axis, source.to(old.device))  # equivalent: on the CPU
            if axis:
                new.transpose(axis, -1).div_(copies.to(new))  # equivalent: on the CPU
            setattr(layer, key, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
    for size in ("in_channels", "out_channels", "groups") if depthwise else (SIZES[kind_of(layer)][axis],):
        setattr(layer, size, len(source))


@torch.no_grad()
def wider(model: nn.Module, image: Tensor, changes: list[Change], new: New, logits: Logits = numbers) -> nn.Module:
    """Net2WiderNet for one set of channels, in a copy of the network; `new` may change what is new.

    Raises ValueError if the network would compute something else.
    """
    grown, before, after = copy.deepcopy(model), logits(model.eval()(image)), None  # equivalent: tracing does it
    with suppress(RuntimeError, IndexError, ValueError):  # sizes may be written into the network's code
        for name, axis, source in changes:
            resize(grown.get_submodule(name), axis, source)
        copy.deepcopy(grown).train()(torch.cat([image, image]))  # what runs in training alone, a second head for instance
        after = logits(grown.eval()(image))  # equivalent: tracing does it
    enough = 1e-3 * float(before.abs().max())  # equivalent: any small number
    if after is None or after.shape != before.shape or not torch.allclose(after, before, 0, enough):  # equivalent: allclose is symmetric
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
                kept[name] = str(reason)  # equivalent: wording
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
    variance, mean = torch.var_mean(v.double().transpose(0, 1).flatten(1), 1, correction=0)  # equivalent: precision
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
        random, again = torch.randn(layer.weight.shape, generator=chance).to(layer.weight), repeated(source)  # equivalent: on the CPU
        layer.weight[again] += share * layer.weight.std() * random[again]


def grow(model: nn.Module, task: Task, config: Config, new: New | None = None) -> nn.Module:
    """Wider, then deeper; still the same function, but for the noise."""
    model, chance = model.to(task.device), torch.Generator().manual_seed(task.seed)  # equivalent: on the CPU, another seed
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


def claim_copies_are_uniform(lab: Lab) -> float:
    """Chi-squared over its degrees of freedom, of how often each channel is copied, or the inverse, whichever is larger.

    Infinite if a first copy is not in its place.
    """
    g = mapping(11, 11 + 11_000, torch.Generator().manual_seed(0)).numpy()
    if list(g[:11]) != list(range(11)) or g.max() > 10:
        return float("inf")
    uneven = float(chisquare(np.bincount(g[11:], minlength=11)).statistic / 10)
    return max(uneven, 1 / max(uneven, 1e-9))  # as even as in turn is not random


class Concat(nn.Module):
    """Channels that are concatenated, read again, and flattened, with biases and without batch norm; a hidden dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1, groups=1)
        self.three, self.fc1, self.fc2 = nn.Conv2d(13, 6, 2, stride=2), nn.Linear(96, 7), nn.Linear(7, 3)
        self.act1, self.act2, self.act3, self.act4 = nn.ReLU6(), nn.Hardtanh(), nn.ReLU(inplace=True), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.one(x))
        x = torch.cat([x, self.act2(self.two(x)), x], 1)
        return self.fc2(self.act4(self.fc1(self.act3(self.three(x)).flatten(1))))


def toy(*networks: nn.Module, steps: int = 4, dtype: torch.dtype = torch.float64) -> Task:
    """Random images, and networks whose weights, batch norms and statistics are random."""
    for layer in (layer for network in networks for layer in network.to(dtype).modules()):
        if isinstance(layer, NORMS):
            for values in (layer.weight, layer.running_var):
                nn.init.uniform_(values, 0.5, 2.0)
            for values in (layer.bias, layer.running_mean):
                nn.init.normal_(values)
    part = Split(torch.randn(64, 3, 8, 8, dtype=dtype), torch.arange(64) % 3)
    return Task("toy", part, part, part, steps=steps, batch=16, augmented=False)


def dense() -> nn.Sequential:
    """Three dense layers, batch norm behind the first."""
    layers = [nn.Linear(192, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)]
    return nn.Sequential(nn.Flatten(), *layers)


GROWTHS = {"wider": Config(1.5, added=0), "deeper": Config(1.0, added=2, every=1, kernel=5), "both": Config(1.5, every=2)}


def function_change(case: str, dtype: torch.dtype) -> float:
    """Largest change of an output, over the largest output; infinite if a network is not as large as it should be."""
    networks: list[nn.Module] = [nets.resnet(8, 3, width=4), nets.separable([(2, 1), (8, 2)], 3), Concat(), dense()]
    task, config, worst = toy(*networks, dtype=dtype), replace(GROWTHS[case], noise=0.0), 0.0
    for network in networks:
        grown = grow(copy.deepcopy(network), task, config)  # in training mode until then
        layers, acts, norms = (
            [sum(type(layer) in kinds for layer in model.modules()) for model in (network, grown)] for kinds in (LAYERS, IDEMPOTENT, NORMS)
        )
        added = config.added * -(-acts[0] // config.every)
        as_large = (layers[1], acts[1], norms[1]) == (layers[0] + added, acts[0] + added, norms[0] + added * (norms[0] > 0))
        for name, layer in network.named_modules():
            if type(layer) in LAYERS:
                n = len(layer.weight)  # three are the outputs
                as_large &= len(grown.get_submodule(name).weight) == (round(config.widen * n) if n != 3 else n)
        with torch.no_grad():
            before, after = network.eval()(task.train.first(9).images), grown(task.train.first(9).images)
        worst = max(worst, float((before - after).abs().max() / before.abs().max()) if as_large else float("inf"))
    return worst


def claim_keeps_function(lab: Lab, case: str) -> float:
    """In double precision."""
    return function_change(case, torch.float64)


def claim_keeps_function_in_float32(lab: Lab) -> float:
    """After both operators."""
    return function_change("both", torch.float32)


def claim_follows_algorithm(lab: Lab) -> float:
    """Largest difference of a dense network's numbers from Algorithm 1, entry by entry; infinite if a first copy is not in its place."""
    network = dense()
    grown = grow(network, toy(network), Config(2.0, added=0, noise=0.0))
    w, u = ({key: value.double().numpy() for key, value in model.state_dict().items()} for model in (network, grown))
    g, g2 = ([int(np.flatnonzero(w[key] == value)[0]) for value in u[key]] for key in ("1.bias", "4.bias"))
    sizes = (grown[1].out_features, grown[2].num_features, grown[4].in_features, grown[4].out_features, grown[6].in_features)
    if (g[:5], g2[:4], len(g), len(g2), *sizes) != ([*range(5)], [*range(4)], 10, 8, 10, 10, 10, 8, 8):
        return float("inf")
    wrong = [abs(u[f"2.{key}"][j] - w[f"2.{key}"][g[j]]) for key in ("weight", "bias", "running_mean", "running_var") for j in range(10)]
    wrong += [abs(u["1.weight"][j, k] - w["1.weight"][g[j], k]) for j in range(10) for k in range(192)]
    wrong += [abs(u["4.weight"][j, k] - w["4.weight"][g2[j], g[k]] / g.count(g[k])) for j in range(8) for k in range(10)]
    wrong += [abs(u["6.weight"][j, k] - w["6.weight"][j, g2[k]] / g2.count(g2[k])) for j in range(3) for k in range(8)]
    return float(max(wrong))


def claim_norm_undoes_itself(lab: Lab) -> float:
    """Largest change of the outputs by deepening while batch norm goes by the images that growing saw, over the largest output."""
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)).eval()
    task = toy(network)
    x = task.train.images
    deep = grow(network, task, Config(1.0, added=2, every=2))  # behind the last activation
    for layer in deep[3].modules():
        layer.train()
    with torch.no_grad():
        return float((deep(x) - network(x)).abs().max() / network(x).abs().max()) if len(deep[3]) == 7 else float("inf")


def claim_only_idempotent_activations(lab: Lab) -> float:
    """Activations of torch that deepening takes although twice is not once, by trying, or leaves although it is."""
    kinds = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Hardswish)
    v, image, wrong, act = torch.linspace(-9, 9, 1001), torch.zeros(1, 3, 2, 2), 0, nn.ReLU()
    for kind in kinds:
        network = nn.Sequential(nn.Conv2d(3, 4, 1), kind())
        found, kept = places(network, image)
        idempotent = torch.equal(kind()(kind()(v)), kind()(v))
        wrong += (found == ["1"]) != idempotent or (list(kept) == ["1"]) == idempotent
    twice, flat = nn.Sequential(act, nn.Conv2d(3, 4, 1), act), nn.Sequential(nn.Flatten(2), act)  # which channels?
    return wrong + sum(places(network, image)[0] != [] for network in (twice, flat))


class Awkward(nn.Module):
    """Layers whose channels cannot be copied: groups, group norm, a split, softmax over channels, a written-down size, the output."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.grouping, self.groups = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 1, groups=2)
        self.normed, self.norm, self.split = nn.Conv2d(6, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 8, 1)
        self.soft, self.sized, self.out = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.normed(self.groups(self.grouping(self.free(x)))))
        one, two = self.split(x).chunk(2, 1)
        x = self.sized(self.soft(one + two.exp()).softmax(1))
        return self.out(x.reshape(-1, 256))


def claim_leaves_the_others(lab: Lab) -> float:
    """Largest change of the outputs over the largest, plus the number of layers that are widened or left wrongly."""
    network = Awkward()
    task = toy(network)
    grown = grow(network, task, Config(1.5, added=0, noise=0.0))
    more = {name for name, width in widths(grown).items() if width != widths(network)[name]}
    with torch.no_grad():
        change = (network(task.train.images) - grown(task.train.images)).abs().max() / network(task.train.images).abs().max()
    return float(change) + len(more ^ {"free"})


def claim_parameters_of_a_teacher_s_layer(lab: Lab) -> float:
    """Of the layer that it grows into: the largest layer of a ResNet-8."""
    network = nets.resnet(8, 3)
    grown = grow(network, toy(network, dtype=torch.float32), Config(0.3**-0.5, added=0))
    return float(network.stage3_0.second.conv.weight.numel() / grown.stage3_0.second.conv.weight.numel())


def copies_of(layer: Any) -> tuple[Tensor, Tensor]:
    """Weights of all copies but the first of six units, and of the first ones, found by their biases."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return weight[6:], weight[(bias[6:, None] - bias[:6]).abs().argmin(1)]


def claim_noise_spares_first_copy(lab: Lab) -> float:
    """Deviation of the other copies from the first, over that of the layer's weights; infinite if a first copy or a reader has changed."""
    network = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.Conv2d(6, 3, 4), nn.Flatten())
    network[0].weight.data += 1  # a mean is no deviation
    quiet, loud = (grow(network, toy(network), Config(100.0, added=0, noise=noise)) for noise in (0.0, 0.01))
    if not torch.equal(loud[0].weight[:6], network[0].weight) or not torch.equal(loud[2].weight, quiet[2].weight):
        return float("inf")
    copies, first = copies_of(loud[0])
    return float((copies - first).std() / network[0].weight.detach().std())


def claim_noise_tells_copies_apart(lab: Lab) -> float:
    """How far training drives copies apart without noise, over how far it does with it."""
    apart = []
    for noise in (0.0, 0.01):
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 3))
        trained = compress(network, toy(network, steps=8), Config(2.0, added=0, noise=noise, share=1.0))
        copies, first = copies_of(trained[1])
        apart.append(float((copies - first).norm()))
    return apart[0] / apart[1]


def claim_trains_everything(lab: Lab) -> float:
    """Parameters that training leaves where growth put them, plus the largest difference from training on the labels at a tenth."""
    network = nets.resnet(8, 3, width=4)
    task, config = toy(network, steps=6, dtype=torch.float32), Config(1.5, every=2, rate=0.2)
    start = grow(copy.deepcopy(network), task, config)
    grown = compress(copy.deepcopy(network), task, config)
    still = sum(torch.equal(old, new) for old, new in zip(start.parameters(), grown.parameters(), strict=True))
    by_hand = fit(start, task.with_steps(3), lambda m, x, y: F.cross_entropy(m(x).float(), y), lr=0.02)
    return still + max(float((a - b).detach().abs().max()) for a, b in zip(grown.parameters(), by_hand.parameters(), strict=True))


def claim_starts_as_good(lab: Lab) -> float:
    grown = grow(copy.deepcopy(lab.reference), lab.task, lab.config)
    return lab.task.score(grown, lab.task.test) - lab.before.accuracy


def claim_beats_random_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy


def claim_beats_random_pad(lab: Lab) -> float:
    """Cross-entropy on test images, over that of the padded network: in seconds it tells more than the accuracy does."""
    networks, parts = (lab.compressed, lab.controlled("random_pad")), list(lab.task.test.first(512).chunks())
    with torch.no_grad():
        method, pad = (sum(float(F.cross_entropy(m(x.to(lab.task.device)).cpu(), y, reduction="sum")) for x, y in parts) for m in networks)
    return method / pad


def claim_ahead_of_random_pad(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random_pad").accuracy


def claim_exceeds_teacher(lab: Lab) -> float:
    return lab.after.accuracy - lab.before.accuracy


def claim_ahead_after_one_epoch(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy
