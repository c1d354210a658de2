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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import tensorly as tl
import torch
import torch.nn.functional as F
from tensorly.decomposition import tensor_train
from tensorly.tenalg import mode_dot
from torch import Tensor, nn
from torch.func import functional_call

from methods.kit.lab import Lab
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
            u, spectrum, w = torch.linalg.svd(rest.flatten(0, 1).flatten(1), full_matrices=False)  # equivalent: cut below
            rank = max(1, round(share * largest))  # fewer where the ranks before leave fewer
            cores.append(u[:, :rank].unflatten(0, rest.shape[:2]))
            rest = (spectrum[:rank, None] * w[:rank]).unflatten(1, rest.shape[2:])
        self.cores = nn.ParameterList(balanced([*cores, rest[..., None]], kernels.norm() / rest.norm()))

    def forward(self) -> Tensor:
        whole = self.cores[0].new_ones(1)  # equivalent: all cores are of one type
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
            size = "x".join(map(str, kind[0]))  # equivalent: wording
            kept[name] = f"kernels of {size} hold fewer weights" if kind in several else f"the only kernel of {size}"  # equivalent: wording
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
            weight = layers[0].weight  # equivalent: all layers are alike
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


@torch.no_grad()
def claim_full_rank_reproduces_every_layer(lab: Lab) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    torch.manual_seed(0)
    mixed = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(6, 6, 3, padding="same"), nn.Conv2d(6, 6, 3, padding=(1, 2), stride=(1, 2), padding_mode="circular"),
        nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
    )  # fmt: skip
    worst, images = 0.0, torch.randn(2, 3, 32, 32)
    for model in (mixed, hourglasses(classes=5, width=6).eval()):
        for form in ("tucker", "train"):
            small = Tied(model, {tuple(plan(model)[0]): Config(form, channels=1.0)}).to(memory_format=torch.channels_last)  # as in training
            found, wanted = small(images), model(images)
            worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return worst


GRID = tuple(f"stack{s}.depth.{d}.{b}.{n}.conv" for s, d, b, n in product((0, 1, 2), (0, 1), ("encoder", "decoder"), (0, 1)))
LENGTHS = (3, 2, 2, 2, 6, 6, 3, 3)
PARTLY = (Config(positions=0.5, channels=0.4, windows=0.7), Config("train", positions=0.6, channels=0.3, windows=0.5))


def regular(config: Config) -> tuple[nn.Module, Tied]:
    """A small network in float64, and the same with its layers tied."""
    torch.manual_seed(0)
    model = hourglasses(classes=5, width=6, stacks=3).double().eval()
    return model, Tied(model, {tuple(plan(model)[0]): config})


def stacked(kernels: Iterable[Tensor]) -> Tensor:
    """Kernels of the small network, in the order of GRID, as one tensor."""
    return torch.stack(list(kernels)).reshape(LENGTHS)


def multiplied_out(tensor: nn.Module, **other: Tensor) -> Tensor:
    """The full tensor as tensorly multiplies it out, some of its parts replaced."""
    parts = [other.get(name, part.detach()).numpy() for name, part in tensor.named_parameters()]
    with tl.backend_context("numpy"):
        if isinstance(tensor, Tucker):
            return torch.from_numpy(tl.tucker_to_tensor((parts[0].reshape([u.shape[1] for u in parts[1:]]), parts[1:])))
        return torch.from_numpy(tl.tt_to_tensor(parts))


@torch.no_grad()
def claim_kernels_are_slices(lab: Lab) -> float:
    """Largest difference of a layer's kernel from its place in the tensor that tensorly multiplies out, relative to the largest."""
    worst = 0.0
    for config in PARTLY:
        _, small = regular(config)
        for part in small.tensors.parameters():
            part.normal_()
        kernels, wanted = small.kernels(), multiplied_out(small.tensors[0])
        found = stacked(kernels[f"{name}.weight"] for name in GRID)
        worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return worst


def claim_gradients_add_up(lab: Lab) -> float:
    """Largest relative difference, over all parts, of the loss's slope from that of the layers' own kernels, by tensorly.

    The tensor is linear in each part: a step of one part moves it by the same product with the step in the part's place.
    """
    worst, images = 0.0, torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for config in PARTLY:
        model, small = regular(config)
        tensor = small.tensors[0]
        model.load_state_dict(small.kernels(), strict=False)
        for network in (model, small):
            network(images).square().sum().backward()
        slopes = stacked(model.get_submodule(name).weight.grad for name in GRID)
        for name, part in tensor.named_parameters():
            step = torch.randn_like(part)
            worst = max(worst, abs(float((part.grad * step).sum() / (slopes * multiplied_out(tensor, **{name: step})).sum()) - 1))
    return worst


def claim_parameter_formula(lab: Lab) -> float:
    """Largest difference from prod R_k + sum I_k R_k (Tucker) and sum R_(k-1) I_k R_k (tensor-train), the other layers apart."""
    worst = 0
    for p, c, w in ((0.5, 0.4, 0.7), (0.6, 0.3, 0.5), (1.0, 1.0, 1.0), (0.01, 0.01, 0.01)):
        ranks = [max(1, round(share * length)) for share, length in zip([p, p, p, p, c, c, w, w], LENGTHS, strict=True)]
        bonds = [1]
        for k, share in enumerate((p, p, p, p, c, w, w), 1):
            largest = min(math.prod(LENGTHS[:k]), math.prod(LENGTHS[k:]))
            bonds.append(min(max(1, round(share * largest)), bonds[-1] * LENGTHS[k - 1]))
        formulas = {
            "tucker": math.prod(ranks) + sum(length * rank for length, rank in zip(LENGTHS, ranks, strict=True)),
            "train": sum(left * length * right for left, length, right in zip(bonds, LENGTHS, [*bonds[1:], 1], strict=True)),
        }
        for form, formula in formulas.items():
            model, small = regular(Config(form, p, c, w))
            worst = max(worst, abs(count(small) - count(model) + math.prod(LENGTHS) - formula))
    return worst


@torch.no_grad()
def claim_starts_as_truncated_svd(lab: Lab) -> float:
    """Largest relative difference from numpy's higher-order SVD and tensorly's TT-SVD at the kernels' norm, and of the parts' norms."""
    worst = 0.0
    for config in PARTLY:
        model, small = regular(config)
        tensor = small.tensors[0]
        kernels = stacked(model.get_submodule(name).weight for name in GRID).numpy()
        with tl.backend_context("numpy"):
            if config.form == "tucker":
                cut = kernels
                for mode, u in enumerate(tensor.factors):
                    unfolded = tl.unfold(kernels, mode)
                    first = np.linalg.eigh(unfolded @ unfolded.T)[1][:, -u.shape[1] :]
                    cut = mode_dot(cut, first @ first.T, mode)
            else:
                cut = tl.tt_to_tensor(tensor_train(kernels, [*(len(g) for g in tensor.cores), 1]))
        wanted = torch.from_numpy(cut * (np.linalg.norm(kernels) / np.linalg.norm(cut)))
        norms = [float(part.norm()) for part in tensor.parameters()]
        worst = max(worst, float((multiplied_out(tensor) - wanted).norm() / wanted.norm()), max(norms) / min(norms) - 1)
    return worst


def few() -> Task:
    """Two steps on eight images of two classes."""
    batches = [(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)]
    return Task.from_loaders(batches, batches, batches, steps=2, batch=8)


def claim_one_tensor_of_order_eight(lab: Lab) -> float:
    """How many networks get another tensor than they should, or tie other layers."""
    net, small = regular(Config(channels=1.0))
    wrong = ([tuple(map(len, tensor.factors)) for tensor in small.tensors] != [LENGTHS]) + (tuple(plan(net)[0]) != GRID)
    mixed = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Sequential(nn.Conv2d(6, 6, 3)), nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 6, 3),
        *(nn.Conv2d(6, 6, 1) for _ in range(5)), nn.Conv2d(6, 40, 5), nn.ConvTranspose2d(40, 6, 3), nn.Conv2d(6, 6, 3).double(),
        nn.Linear(6, 6), nn.Conv2d(6, 6, (3, 4)), nn.Conv2d(6, 6, (3, 4)),
    )  # fmt: skip
    names, kept = plan(mixed)
    wrong += (names != ["1", "2.0", "4"]) + (set(kept) != {"0", "3", *"56789", "10", "11", "12", "13", "14", "15"})
    wrong += plan(mixed[2:5])[0] != ["2.0", "4"]
    try:
        compress(mixed[:2], few(), Config())
        wrong += 1
    except ValueError as reason:
        wrong += "1: the only kernel" not in str(reason)
    wrong += places(names) != ((3,), [(0,), (1,), (2,)])
    wrong += places(["a.x", "a.y", "b.x", "b.y"]) != ((2, 2), [(0, 0), (0, 1), (1, 0), (1, 1)])
    wrong += places(["a.x.c", "b.x.c"]) != ((2,), [(0,), (1,)])
    wrong += places(["a.x", "a.y", "b.x"]) != ((3,), [(0,), (1,), (2,)])
    wrong += places(["a.x", "b.y", "a.x.c", "b.x"])[0] != (4,)
    return wrong + (places(["a.x"]) != ((), [()]))


def claim_trained_from_scratch(lab: Lab) -> float:
    """Difference of the result from a tied fresh network after two steps, whatever was given, and how many parameters they leave."""
    left = 0.0
    for config in PARTLY:
        given = [hourglasses(classes=2, width=4, stacks=3) for _ in range(2)]
        torch.manual_seed(0)
        start = Tied(fresh(given[0]), {GRID: config})
        wanted = dict(fit(copy.deepcopy(start), few(), lr=config.lr).named_parameters())
        left += sum(torch.equal(part, wanted[name]) for name, part in start.named_parameters())
        for model in given:
            torch.manual_seed(0)
            found = compress(model, few(), config)
            left = max(left, *(float((part - wanted[name]).detach().abs().max()) for name, part in found.named_parameters()))
    return left


def claim_saves_parameters(lab: Lab) -> float:
    return lab.after.parameters / lab.before.parameters


def claim_no_worse_than_layerwise(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("layerwise").accuracy


def claim_better_than_layerwise(lab: Lab) -> float:
    return claim_no_worse_than_layerwise(lab)


def claim_keeps_accuracy(lab: Lab, case: str) -> float:
    """Accuracy lost against the network with kernels of its own: Tucker and tensor-train at mild, Tucker at high compression."""
    if case == "tucker":
        return lab.before.accuracy - lab.after.accuracy
    mild = Config("train", channels=0.16)  # about as many parameters as Config()
    small = compress(lab.reference, lab.task, {"train": mild, "high": SMOKE}[case])
    return lab.before.accuracy - lab.task.score(small, lab.task.test)
