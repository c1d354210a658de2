"""Pruning Filters for Efficient ConvNets (Li et al., ICLR 2017).

A filter whose weights are small in sum moves its feature map little. Layers lose a share of their smallest filters, maps and
the next layer's kernels for them included; layers that the network cannot do without are found by cutting each alone, and
stay whole. All is cut at once, from the first layer to the last, and one training repairs the rest.

Departures: a layer stays whole when its cut costs more than a given share of the accuracy on validation images, where the
paper reads it off a plot, and it is judged alone, where the paper treats the layers of a stage alike; all others lose the same
share. Filters that a shortcut ties to another layer keep their number, as in the paper's networks for CIFAR-10 (on ImageNet the
shortcut's filters choose for both), and so do filters that are read in groups. Training is the kit's (Nesterov momentum,
one cosine instead of a constant rate), in a smoke run at twenty times the paper's rate.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.measure import multiply_adds
from methods.kit.surgery import free_channels, remove_channels, widths
from methods.kit.task import Split, Task
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    cut: float = 0.5  # share of the filters of a layer that is not sensitive, §4.1 (VGG-16)
    sensitive: float = 0.01  # share of validation images by which a layer's cut alone may lower accuracy; ours, see Departures
    rate: float = 1e-3  # of retraining, §4.1


SMOKE = Config(cut=0.35, sensitive=0.3, rate=2e-2)  # no layer of this small network can spare half; seconds instead of 40 epochs


def reference(task: Task) -> nn.Module:
    """A small VGG in the place of VGG-16."""
    return nets.trained("vgg_wide", task.name)


def build(variant: str) -> nn.Module:
    """VGG-16 for CIFAR-10 with its two dense layers, whole or pruned as in Table 2, to be counted."""
    plan = {"vgg16": nets.VGG16, "vgg16_pruned_a": PRUNED_A}[variant]
    inputs = plan[-2]
    dense = nn.Sequential(nn.Linear(inputs, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10))
    return nn.Sequential(*nets.vgg(plan)[:-1], dense)


PRUNED_A = [32, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", *[256] * 3, "pool", *[256] * 3, "pool"]  # Table 2


def smallest(layer: nn.Conv2d, cut: float) -> list[int]:
    """The share of a layer's filters with the least s_j = sum |F_ij|, §3.1; one is always left."""
    sums = layer.weight.detach().abs().sum((1, 2, 3))
    return sums.argsort(stable=True)[: min(int(cut * len(sums)), len(sums) - 1)].tolist()


def thinned(model: nn.Module, image: Tensor, names: list[str], cut: float) -> nn.Module:
    """Greedy, §3.3: layer after layer, so that kernels that went with an earlier layer's filters no longer count."""
    for name in names:
        model = remove_channels(model, image, {name: smallest(model.get_submodule(name), cut)})
    return model


def sensitivity(model: nn.Module, task: Task, cut: float) -> dict[str, float]:
    """How much accuracy on validation images each layer's cut costs, the others whole and without training, §3.2."""
    image = task.train.images[:1].to(task.device)
    whole, (free, tied) = task.score(model, task.validation), free_channels(model, image)
    if not free:
        listed = "; ".join(f"{name}: {reason}" for name, reason in tied.items()) or "no convolution at all"
        raise ValueError(f"filter pruning needs a convolution with filters of its own, there is none ({listed})")
    return {name: whole - task.score(thinned(model, image, [name], cut), task.validation) for name in free}


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Cut the smallest filters of every layer that is not sensitive, all at once (§3.3), and retrain once (§3.4)."""
    losses = sensitivity(model.eval(), task, config.cut)
    names = [name for name, loss in losses.items() if loss <= config.sensitive]
    if not names:
        listed = ", ".join(f"{name}: {loss:.1%}" for name, loss in losses.items())
        raise ValueError(
            f"filter pruning: every layer is too sensitive to lose {config.cut:.0%} of its filters ({listed}); raise `sensitive`"
        )
    return fit(thinned(model, task.train.images[:1].to(task.device), names, config.cut), task, lr=config.rate)


def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Random filters of the same layers, as many, and the same training (Figure 8)."""
    return fit(pruned_at_random(model, task, like), task, lr=config.rate)


def pruned_at_random(model: nn.Module, task: Task, like: nn.Module) -> nn.Module:
    goal, now, chance = widths(like), widths(model), torch.Generator().manual_seed(task.seed)
    cuts = {name: torch.randperm(width, generator=chance)[goal[name] :].tolist() for name, width in now.items() if goal[name] < width}
    return remove_channels(model, task.train.images[:1].to(task.device), cuts)


def _network() -> tuple[nn.Module, Tensor]:
    """A chain and a residual block, with random statistics, and some images."""
    torch.manual_seed(0)
    model = nn.Sequential(nets.conv_bn(3, 8), nets.conv_bn(8, 10), nets.Residual(10, 12, 2), nn.Flatten(), nn.Linear(192, 5)).eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)
    return model, torch.randn(4, 3, 8, 8)


def claim_smallest_filters_go(lab: Lab) -> float:
    """How many filters the cut chooses otherwise than numpy does, layer by layer, kernels of maps that are gone not counted."""
    model, x = _network()
    names, wrong, kept = ["0.conv", "1.conv", "2.first.conv"], 0, list(range(3))
    thin = thinned(model, x[:1], names, 0.4)
    for name in names:
        kernel = model.get_submodule(name).weight.detach().double().numpy()
        sums = np.abs(kernel[:, kept]).sum((1, 2, 3))
        stay = sorted(np.argsort(sums)[int(0.4 * len(sums)) :].tolist())
        wrong += not np.array_equal(thin.get_submodule(name).weight.detach().double().numpy(), kernel[np.ix_(stay, kept)])
        kept = stay
    return wrong + len(smallest(nn.Conv2d(2, 3, 1), 1.0)) - 2


def _without(model: nn.Module, maps: dict[str, list[int]]) -> nn.Module:
    """A copy whose maps (behind the non-linearity of the named block) are zero, with no layer thinner."""
    model = copy.deepcopy(model)
    for name, gone in maps.items():
        kept = torch.tensor([float(c not in gone) for c in range(model.get_submodule(name).conv.out_channels)])
        model.get_submodule(name).register_forward_hook(lambda layer, inputs, out, kept=kept: out * kept.view(-1, 1, 1))
    return model


@torch.no_grad()
def claim_thin_equals_zeroed(lab: Lab) -> float:
    """Largest difference of the output, relative to its largest entry, from the network whose removed maps are set to zero."""
    model, x = _network()
    thin = thinned(model, x[:1], ["0.conv", "2.first.conv"], 0.5)
    zeroed = _without(model, {name: smallest(model.get_submodule(f"{name}.conv"), 0.5) for name in ("0", "2.first")})(x)
    same = widths(thin) == widths(model) | {"0.conv": 4, "2.first.conv": 6}
    return float((thin(x) - zeroed).abs().max() / zeroed.abs().max()) if same else float("inf")


@torch.no_grad()
def claim_sensitive_layers_stay(lab: Lab) -> float:
    """How many layers are cut, or stay, against what cutting them alone costs on validation images, maps set to zero."""
    model, _ = _network()
    names, parts = ("0", "1", "2.first"), [Split(x := torch.randn(200, 3, 8, 8), model(x).argmax(1)) for _ in range(3)]
    losses = []
    for name in names:
        alone = _without(model, {name: smallest(model.get_submodule(f"{name}.conv"), 0.4)})
        losses.append(float((alone(parts[1].images).argmax(1) != parts[1].labels).double().mean()))
    wrong, task = 0, Task("toy", parts[0], parts[1], parts[2], steps=1, batch=16, augmented=False)
    for bound in sorted(losses)[:2]:  # one layer of the three, then two
        with torch.enable_grad():
            small = widths(compress(copy.deepcopy(model), task, Config(cut=0.4, sensitive=bound + 1e-9)))
        cut = [small[f"{name}.conv"] < widths(model)[f"{name}.conv"] for name in names]
        wrong += sum(was != (loss <= bound) for was, loss in zip(cut, losses, strict=True))
    return wrong


def claim_retrains_once(lab: Lab) -> float:
    """Largest difference of an output from cutting and then training for the whole budget, relative to the largest output."""
    model, x = _network()
    part = Split(torch.randn(32, 3, 8, 8), torch.arange(32) % 5)
    task = Task("toy", part, part, part, steps=6, batch=16, augmented=False)
    ours = compress(copy.deepcopy(model), task, Config(cut=0.4, sensitive=1.0, rate=0.05))
    theirs = fit(thinned(model, x[:1], list(free_channels(model, x[:1])[0]), 0.4), task, lr=0.05)
    with torch.no_grad():
        return float((ours(x) - theirs(x)).abs().max() / theirs(x).abs().max())


def claim_parameters(lab: Lab, variant: str) -> float:
    """Millions."""
    return nets.count(nets.on_meta(lambda: build(variant))) / 1e6


def claim_operations(lab: Lab, variant: str) -> float:
    """Multiply-adds for one image, in hundreds of millions."""
    return multiply_adds(nets.on_meta(lambda: build(variant)), torch.empty(1, 3, 32, 32, device="meta")) / 1e8


def claim_beats_random_filters(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random").accuracy


def claim_smallest_hurt_least(lab: Lab) -> float:
    """Accuracy with the smallest filters cut over that with random ones cut, both before any training."""
    image, after = lab.task.train.images[:1].to(lab.task.device), widths(lab.compressed)
    names = [name for name, width in widths(lab.reference).items() if after[name] < width]
    cuts = thinned(lab.reference, image, names, lab.config.cut), pruned_at_random(lab.reference, lab.task, lab.compressed)
    smallest_first, at_random = (lab.task.score(model, lab.task.test) for model in cuts)
    return smallest_first - at_random


def claim_retraining_restores(lab: Lab) -> float:
    """Share of the accuracy lost by the cut that the training wins back."""
    image, after = lab.task.train.images[:1].to(lab.task.device), widths(lab.compressed)
    names = [name for name, width in widths(lab.reference).items() if after[name] < width]
    cut = lab.task.score(thinned(lab.reference, image, names, lab.config.cut), lab.task.test)
    return (lab.after.accuracy - cut) / (lab.before.accuracy - cut)
