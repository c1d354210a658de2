"""T-Net (Kossaifi et al., CVPR 2019).

The kernels of all convolutions of one shape are the slices of a single tensor. Four of its modes say where a kernel sits
(which stack, which depth, which branch, which convolution), four are the kernel's own. Only a Tucker or tensor-train form
of this tensor exists: the kernels are rebuilt from the shared factors in each step, and training moves the factors.

Departures: images are classified, where the paper finds the joints of people: two small hourglasses of depth two, one
behind the other without supervision in between, pooled into a linear classifier; what skips a depth meets no convolutions
there, so that branches are two and not three. Position modes are read off the layers'
names; layers that fill no grid get a single one. Factors start as the higher-order or tensor-train SVD of freshly drawn
kernels, brought back to their norm. Ranks are shares of the largest ones, one share each for position, channel and window
modes, where the paper sets each mode by itself. Training is the kit's (Nesterov momentum, weight decay 5e-4, one cosine).
"""

from __future__ import annotations

import copy
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from methods.kit.layers import fresh, name_the_kept, replaceable, share_that_costs, within
from methods.kit.nets import conv_bn, count, head
from methods.kit.task import Task, on_copies
from methods.kit.train import fit

Place = tuple[int, ...]  # of a layer, one index for each position mode


@dataclass(frozen=True)
class Config:
    form: str = "tucker"  # or "train", the paper's other form
    positions: float = 1.0  # share of the largest rank that position modes get; the paper tries many, mode by mode
    channels: float = 0.5  # the same of output and input channels
    windows: float = 1.0  # the same of the kernel's height and width
    lr: float = 0.1  # from random weights


SMOKE = Config(channels=0.15)  # milder forms lose nothing in seconds, whoever compresses
SWEEP = (Config(channels=0.7), Config(channels=0.55), Config(channels=0.4), Config(channels=0.3))  # fewer parameters; multiply-adds stay


def unit(width: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(width), act=nn.ReLU(), conv=nn.Conv2d(width, width, 3, padding=1, bias=False)))


class Block(nn.Sequential):
    """What a branch does at one depth, and a shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Hourglass(nn.Module):
    """At every depth an encoder, what is deeper, and a decoder at half this size, and past them a skip."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        branches = ("encoder", "decoder")
        self.depth = nn.ModuleList(nn.ModuleDict({name: Block(unit(width), unit(width)) for name in branches}) for _ in range(depth))

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        if level == len(self.depth):
            return x
        encoder, decoder = self.depth[level].values()
        low = self.forward(encoder(F.max_pool2d(x, 2, ceil_mode=True)), level + 1)
        return x + F.interpolate(decoder(low), x.shape[2:])


def hourglasses(classes: int, colours: int = 3, width: int = 32, stacks: int = 2, depth: int = 2) -> nn.Sequential:
    """A stem that divides the image's sides by four, hourglasses, pooling, classifier."""
    layers: list[tuple[str, nn.Module]] = [("stem", conv_bn(colours, width, stride=2)), ("shrink", nn.MaxPool2d(2))]
    layers += [(f"stack{stack}", Hourglass(width, depth)) for stack in range(stacks)]
    return nn.Sequential(OrderedDict([*layers, ("bn", nn.BatchNorm2d(width)), ("act", nn.ReLU()), *head(width, classes)]))


def reference(task: Task) -> nn.Module:
    """A fully convolutional network, regular like the paper's, with kernels of its own, trained for as many steps."""
    return fit(hourglasses(10, task.train.first(1).images.shape[1]), task, lr=Config().lr)


def balanced(parts: Sequence[Tensor], gain: Tensor) -> list[Tensor]:
    """The parts with one norm for all, so that training moves them alike; their product grows by the gain."""
    norms = torch.stack([part.norm() for part in parts])
    return [part / norm * (gain * norms.prod()) ** (1 / len(parts)) for part, norm in zip(parts, norms, strict=True)]


def tucker_ranks(shape: Sequence[int], config: Config) -> list[int]:
    """The rank of each mode: a share of its length, and no more than the other modes can tell apart."""
    shares = [*[config.positions] * (len(shape) - 4), *[config.channels] * 2, *[config.windows] * 2]
    return [max(1, min(round(share * n), n, math.prod(shape) // n)) for n, share in zip(shape, shares, strict=True)]


class Tucker(nn.Module):
    """W = G x_1 U_1 ... x_8 U_8."""

    def __init__(self, kernels: Tensor, config: Config) -> None:
        """Higher-order SVD: U_k are the first left singular vectors of the mode-k unfolding, G = W x_1 U_1^T ... x_8 U_8^T."""
        super().__init__()
        core, factors = kernels, []
        for mode, rank in enumerate(tucker_ranks(kernels.shape, config)):
            u = torch.linalg.svd(kernels.movedim(mode, 0).flatten(1), full_matrices=False)[0][:, :rank]
            core = torch.tensordot(core, u, ([0], [0]))
            factors.append(u)
        core, *factors = balanced([core, *factors], kernels.norm() / core.norm())
        self.core, self.factors = nn.Parameter(core.flatten(1)), nn.ParameterList(factors)  # channels_last refuses five modes

    def forward(self) -> Tensor:
        whole = self.core
        with torch.autocast(whole.device.type, enabled=False):
            for u in self.factors:  # the first mode goes, its product comes last
                whole = (u @ whole.reshape(u.shape[1], -1)).T
        return whole.reshape([len(u) for u in self.factors])


class Train(nn.Module):
    """W(i_1, ..., i_8) = G_1(i_1) ... G_8(i_8), matrices of R_(k-1) x R_k."""

    def __init__(self, kernels: Tensor, config: Config) -> None:
        """TT-SVD: split one mode after the other off the rest."""
        super().__init__()
        rest, cores, shape = kernels[None], [], kernels.shape
        for mode, share in enumerate([*[config.positions] * (kernels.ndim - 4), config.channels, *[config.windows] * 2], 1):
            largest = min(math.prod(shape[:mode]), math.prod(shape[mode:]))
            u, spectrum, w = torch.linalg.svd(rest.flatten(0, 1).flatten(1), full_matrices=False)
            rank = max(1, round(share * largest))  # fewer where the ranks before leave fewer
            cores.append(u[:, :rank].unflatten(0, rest.shape[:2]))
            rest = (spectrum[:rank, None] * w[:rank]).unflatten(1, rest.shape[2:])
        self.cores = nn.ParameterList(balanced([*cores, rest[..., None]], kernels.norm() / rest.norm()))

    def forward(self) -> Tensor:
        whole = self.cores[0].new_ones(1)
        with torch.autocast(whole.device.type, enabled=False):
            for g in self.cores:
                whole = torch.tensordot(whole, g, 1)
        return whole.squeeze(-1)


def plan(model: nn.Module, **given: Any) -> tuple[list[str], dict[str, str]]:
    """The plain convolutions of the one shape that holds most weights, and the reason why each other layer stays as it is."""
    layers, kept = replaceable(model, lambda layer, first: "", **given)
    kinds = {name: (layer.weight.shape, layer.weight.dtype) for name, layer in layers.items()}
    several = {kind: number for kind, number in Counter(kinds.values()).items() if number > 1}
    most = max(several, key=lambda kind: several[kind] * kind[0].numel(), default=None)
    for name, kind in kinds.items():
        if kind != most:
            size = "x".join(map(str, kind[0]))
            kept[name] = f"kernels of {size} hold fewer weights" if kind in several else f"the only kernel of {size}"
    return [name for name in kinds if name not in kept], kept


def places(names: Sequence[str]) -> tuple[tuple[int, ...], list[Place]]:
    """Lengths of the position modes, and each layer's place: every part of the names that varies is a mode.

    Layers that do not fill the grid of these modes get a single mode, in their order; a layer alone needs none.
    """
    parts = zip(*(name.split(".") for name in names), strict=False)
    numbers = [[list(dict.fromkeys(column)).index(part) for part in column] for column in parts]
    varying = [column for column in numbers if any(column)]
    modes, found = tuple(max(column) + 1 for column in varying), list(zip(*varying, strict=True)) or [()]
    if math.prod(modes) == len(names) == len(set(found)):
        return modes, found
    return (len(names),), [(number,) for number in range(len(names))]


class Tied(nn.Module):
    """The network without the kernels of some layers: they are slices of one or several tensors, rebuilt whenever it runs."""

    @torch.no_grad()
    def __init__(self, model: nn.Module, groups: Mapping[Sequence[str], Config]) -> None:
        """The layers of a group share one tensor in its config's form, each in its place."""
        super().__init__()
        self.net, self.tensors, self.places = copy.deepcopy(model), nn.ModuleList(), list[dict[str, Place]]()
        for names, config in groups.items():
            modes, found = places(names)
            layers = [self.net.get_submodule(name) for name in names]
            weight = layers[0].weight
            kernels = weight.new_empty(*modes, *weight.shape, dtype=torch.float64)
            for layer, place in zip(layers, found, strict=True):
                kernels[place] = layer.weight
                layer.register_parameter("weight", None)
            self.tensors.append({"tucker": Tucker, "train": Train}[config.form](kernels, config).to(weight))
            self.places.append(dict(zip(names, found, strict=True)))

    def kernels(self) -> dict[str, Tensor]:
        """Of each layer, by the name of its weight: (out, in, height, width)."""
        wholes = [tensor() for tensor in self.tensors]
        return {f"{name}.weight": whole[place] for whole, here in zip(wholes, self.places, strict=True) for name, place in here.items()}

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = functional_call(self.net, self.kernels(), (x,))
        return answer


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Tie all layers of one shape and train the factors, with what else there is, from the first step."""
    names, kept = plan(model, **within(task))
    name_the_kept("one tensor needs several convolutions of one shape", names, kept)
    return fit(Tied(fresh(model), {tuple(names): config}), task, lr=config.lr)


@on_copies
def control_layerwise(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Tucker layer by layer with as many parameters as `like`, all ranks alike but for a step to meet them; same start, same training."""
    names = plan(model, **within(task))[0]
    shape = model.get_submodule(names[0]).weight.shape

    def configs(share: float) -> list[Config]:
        return [Config(channels=share + number / len(names) / min(shape[:2])) for number in range(len(names))]

    def cost(share: float) -> int:
        total = count(model)
        for layer in configs(share):
            ranks = tucker_ranks(shape, layer)
            total += math.prod(ranks) + sum(n * r for n, r in zip(shape, ranks, strict=True)) - math.prod(shape)
        return total

    layers = configs(share_that_costs(count(like), cost))
    small = Tied(fresh(model), {(name,): layer for name, layer in zip(names, layers, strict=True)})
    return fit(small, task, lr=config.lr)
