"""Discrimination-aware Channel Pruning (Zhuang et al., NeurIPS 2018).

Channels that copy the maps of the large network well need not be those that tell the classes apart. Classifiers are attached at a few
depths, and the network is trained with their losses, one stage after the other. Then the layers of the stage choose the channels that
they read: the one with the largest gradient of reconstruction error and classifier's loss together joins, the weights of those that
have joined are trained a little, and so on, until there are enough or the loss hardly falls any more.

Departures: of several layers that read a channel the gradients count together; several channels may join at a time, each, as in the
authors' code, with the weights that it had; those that have joined take plain gradient steps, without momentum; the last layer's
channels are chosen, too, by the dense layer that reads them; each stage's classifier starts from random weights, and the last stage
has none but the network's own. Filters that a shortcut ties to other layers keep their number, as in the paper. Training is the kit's
(Nesterov momentum, weight decay 5e-4, one cosine a stage). In a smoke run few images and many channels at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.layers import chunks, runs
from methods.kit.layout import copied
from methods.kit.surgery import narrower, readers, remove_channels, widths_left
from methods.kit.task import Task, classes_of, on_copies
from methods.kit.train import fit
from methods.kit.watch import iterations


@dataclass(frozen=True)
class Config:
    kept: float = 0.5  # 1 - eta, share of the channels that a layer goes on reading, §4.2
    tolerance: float = 0.0  # epsilon of Eq. 10, at which selection stops earlier; 0: never
    balance: float = 1.0  # lambda of Eq. 6, §4.3
    heads: int = 2  # P, of VGGNet, §4.1
    images: int = 512  # on which channels are chosen; ours
    joins: int = 1  # channels at a time, Algorithm 2
    inner: int = 1  # passes over the images to train the weights that have joined; ours
    inner_rate: float = 0.01  # ours
    staged: float = 0.6  # share of the steps for the stages, the rest is for fine-tuning; ours
    rate: float = 0.02  # ours


SMOKE = Config(kept=0.75, images=32, joins=32, inner=2, staged=0.3)  # seconds choose and repair no more
LONG = (Config(images=128, joins=8, inner=2), 200)  # within five minutes

Score = Callable[[Tensor], Tensor]  # which channels join first, by the norms of their gradients


def reference(task: Task) -> nn.Module:
    """A small VGG in the place of VGGNet."""
    return nets.trained("vgg_wide", task.name)


class Head(nn.Module):
    """F_p = AvgPool(ReLU(BN(O_p))) and a linear classifier (Eq. 4): (N, C, H, W) -> (N, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.bn, self.fc = nn.BatchNorm2d(channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(F.relu(self.bn(x)), 1).flatten(1))


@contextmanager
def heard(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What the named layers answer meanwhile."""
    found = dict[str, Tensor]()
    hooks = [model.get_submodule(n).register_forward_hook(lambda _, x, y, n=n: found.update({n: y.clone()})) for n in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def goal(model: nn.Module, task: Task, config: Config) -> dict[str, int]:
    """How many channels go on being read, of each layer that loses some."""
    needs = "discrimination-aware pruning needs a convolution whose channels another one or a dense layer reads"
    return widths_left(model, task, lambda depth, wide: math.ceil(config.kept * wide), needs)


def stages(model: nn.Module, image: Tensor, left: Mapping[str, int], heads: int) -> list[tuple[str, list[str]]]:
    """The layer with the extra classifier, "" for the last stage, and the layers whose channels are chosen in the stage."""
    order = list(runs(model, image))
    convolutions = [name for name in order if isinstance(model.get_submodule(name), nn.Conv2d)]
    ends = [convolutions[max(0, round(p * len(convolutions) / (heads + 1)) - 1)] for p in range(1, heads + 1)]
    found, last = [], {name: max(map(order.index, read)) for name, read in readers(model, image, left).items()}
    for end in [*dict.fromkeys(ends), ""]:
        limit = order.index(end) if end else len(order)
        found.append((end, [name for name in left if last[name] <= limit and not any(name in names for _, names in found)]))
    return found


def train_stage(model: nn.Module, head: Head | None, end: str, task: Task, config: Config, share: float) -> nn.Module:
    """All weights, with the extra loss and the final one (Algorithm 1)."""
    if head is None:
        return fit(model, task, share=share, lr=config.rate)

    def loss(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with heard(m, [end]) as answers:
            final = task.loss_of(m, x, y)
        return final + task.loss(head(answers[end]).float(), y)

    head.train()
    model = fit(model, task, loss, share=share, lr=config.rate, params=[*model.parameters(), *head.parameters()])
    head.eval()
    return model


Chosen = tuple[list[int], list[float]]  # channels, in the order in which they joined, and L before each joined


def select(
    model: nn.Module, whole: nn.Module, name: str, end: str, head: Head | None, task: Task, config: Config, stays: int, score: Score
) -> Chosen:
    """Algorithm 2: `stays` of a layer's channels join one after the other, or fewer; what reads them is trained meanwhile, in place."""
    image, some = task.train.first(1).images.to(task.device), task.train.sample(config.images, task.seed)
    size, read = len(chunks(model, some.images.to(task.device))[0]), readers(model, image, [name])[name]
    layers: dict[str, Any] = {reader: model.get_submodule(reader) for reader in read}
    given = {reader: layer.weight.detach().clone() for reader, layer in layers.items()}
    chosen, values = list[int](), list[float]()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        """L = L_M + lambda L_S (Eq. 6)."""
        with torch.no_grad(), heard(whole, list(read)) as wanted:
            whole(x)
        with heard(model, [*read, *([end] if head else [])]) as answers:
            told = task.logits(model(x))
        apart = torch.stack([(answers[reader] - wanted[reader]).square().mean() / 2 for reader in read]).sum()
        return apart + config.balance * task.loss(head(answers[end]) if head else told, y)

    def passes() -> Iterator[tuple[Tensor, list[Tensor], float]]:
        """L and its gradients for each part of the images, and the part's share of them."""
        for x, y in zip(some.images.split(size), some.labels.split(size), strict=True):
            with torch.enable_grad():
                value = loss(x.to(task.device), y.to(task.device))
                found = torch.autograd.grad(value, [layer.weight.requires_grad_() for layer in layers.values()])
            yield value.detach(), list(found), len(x) / len(some)

    def joined(reader: str, channels: Sequence[int], others: bool = False) -> Tensor:
        """1 for the inputs that are one of the channels, or that are none of this layer's at all: as the weights broadcast."""
        whose = read[reader]
        found = torch.isin(whose, torch.tensor([*channels, *([-1] if others else [])]).to(whose))
        return found.to(given[reader]).view(1, -1, *[1] * (given[reader].ndim - 2))

    with torch.no_grad():
        for reader, layer in layers.items():
            layer.weight.mul_(joined(reader, [], others=True))
        for _ in iterations(math.ceil(stays / config.joins)):
            norms, parts = image.new_zeros(model.get_submodule(name).out_channels), list(passes())
            values.append(sum(share * float(value) for value, _, share in parts))
            if len(values) > 1 and abs(values[-2] - values[-1]) <= config.tolerance * values[0] and config.tolerance:  # Eq. 10
                break
            for place, whose in enumerate(read.values()):
                g = torch.stack([share * gradients[place] for _, gradients, share in parts]).sum(0)
                norms.index_add_(0, whose[whose >= 0], g.square().transpose(0, 1).flatten(1).sum(1)[whose >= 0].to(norms))
            order = score(norms.sqrt())
            order[chosen] = -1.0
            new = order.topk(min(config.joins, stays - len(chosen))).indices.tolist()
            chosen += new
            for reader, layer in layers.items():
                layer.weight.add_(given[reader] * joined(reader, new))  # from the weights that they had
            for _ in iterations(config.inner):
                for _, gradients, _ in passes():
                    for reader, g in zip(layers, gradients, strict=True):
                        layers[reader].weight.sub_(config.inner_rate * g * joined(reader, chosen))
    return chosen, values


def pruned(model: nn.Module, task: Task, config: Config, left: Mapping[str, int], score: Score) -> nn.Module:
    """Algorithm 1: stage after stage, train with the extra loss, then choose; fine-tune at the end. `left` says how many channels stay."""
    image, classes = task.train.first(1).images.to(task.device), classes_of(model, task)
    plan = stages(model, image, left, config.heads)
    for end, names in plan:
        layer: Any = model.get_submodule(end) if end else None
        head = Head(layer.out_channels, classes).to(layer.weight) if end else None
        model = train_stage(model, head, end, task, config, config.staged / len(plan))
        whole = copied(model)
        for name in names:
            wide = model.get_submodule(name).out_channels
            chosen, _ = select(model, whole, name, end, head, task, config, left[name], score)
            model = remove_channels(model, image, {name: sorted({*range(wide)} - {*chosen})}, left)
    return fit(model, task, share=1 - config.staged, lr=config.rate)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Channels join by the gradient of both losses."""
    task.labels_needed("discrimination-aware pruning")
    return pruned(model, task, config, goal(model, task, config), lambda norms: norms)


def narrowed(model: nn.Module, task: Task, config: Config, like: nn.Module, score: Score) -> nn.Module:
    """To the widths of `like`."""
    left = narrower(model, task.train.first(1).images.to(task.device), like)
    return pruned(model, task, replace(config, tolerance=0.0), left, score)


@on_copies
def control_reconstruction(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Channels join by the reconstruction error alone, in the same stages (WM+ of Table 1)."""
    return narrowed(model, task, replace(config, balance=0.0), like, lambda norms: norms)


@on_copies
def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Channels join by chance, in the same stages ("random", Table 1)."""
    chance = torch.Generator().manual_seed(task.seed)
    return narrowed(model, task, config, like, lambda norms: torch.rand(norms.shape, generator=chance).to(norms))
