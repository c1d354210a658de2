"""The claims of Pruning Filters for Efficient ConvNets."""

from __future__ import annotations

import copy
from itertools import combinations, pairwise

import numpy as np
import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.measure import multiply_adds
from methods.kit.surgery import at_random, free_channels, widths
from methods.kit.task import Split, Task
from methods.kit.testing import odd_network, odd_task, relative_error, toy_task, trace, won_back
from methods.kit.train import fit
from methods.pruning import pruning_filters as method


def _network() -> tuple[nn.Module, Tensor]:
    """A chain and a residual block, with random statistics and filters of many sizes, that gives all answers; and some images."""
    torch.manual_seed(0)
    model = nn.Sequential(nets.conv_bn(3, 8), nets.conv_bn(8, 10), nets.Residual(10, 12, 2), nn.Flatten(), nn.Linear(192, 5)).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(torch.randn_like(layer.weight) ** 3)
            elif isinstance(layer, nn.BatchNorm2d):
                for values in (layer.weight, layer.bias, layer.running_mean):
                    nn.init.normal_(values)
        model[-1].bias -= model(torch.randn(200, 3, 8, 8)).mean(0)
    return model, torch.randn(4, 3, 8, 8)


def claim_smallest_filters_go(lab: Lab) -> float:
    """How many filters the cut chooses otherwise than numpy does, layer by layer, kernels of maps that are gone not counted."""
    model, x = _network()
    cuts, wrong, kept = {"0.conv": 0.4, "1.conv": 0.5, "2.first.conv": 0.3}, 0, list(range(3))
    thin = method.thinned(model, x[:1], cuts)
    for name, cut in cuts.items():
        kernel = model.get_submodule(name).weight.detach().double().numpy()
        sums = np.abs(kernel[:, kept]).sum((1, 2, 3))
        stay = sorted(np.argsort(sums)[int(cut * len(sums)) :].tolist())
        wrong += not np.array_equal(thin.get_submodule(name).weight.detach().double().numpy(), kernel[np.ix_(stay, kept)])
        kept = stay
    return wrong + abs(len(method.smallest(nn.Conv2d(2, 3, 1), 1.0)) - 2)


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
    thin = method.thinned(model, x[:1], {"0.conv": 0.5, "2.first.conv": 0.5})
    zeroed = _without(model, {name: method.smallest(model.get_submodule(f"{name}.conv"), 0.5) for name in ("0", "2.first")})(x)
    same = widths(thin) == widths(model) | {"0.conv": 4, "2.first.conv": 6}
    return relative_error(thin(x), zeroed) if same else float("inf")


@torch.no_grad()
def claim_sensitive_layers_stay(lab: Lab) -> float:
    """How many layers keep another width than what their cut alone costs on validation images asks for, maps set to zero."""
    model, _ = _network()
    names, parts = ("0", "1", "2.first"), []
    for wrong_labels in (0.9, 0.3, 0.9):  # train and test would tell another story
        x = torch.randn(200, 3, 8, 8)
        parts.append(Split(x, (model(x).argmax(1) + (torch.rand(200) < wrong_labels)) % 5))
    task = Task("toy", *parts, steps=1, batch=16, augmented=False)
    full, losses = widths(model), {}
    for name in names:
        for cut in (0.6, 0.3):
            alone = _without(model, {name: method.smallest(model.get_submodule(f"{name}.conv"), cut)})
            right = [float((m(parts[1].images).argmax(1) == parts[1].labels).double().mean()) for m in (model, alone)]
            losses[name, cut] = right[0] - right[1]
    wrong, bounds = 0, sorted(losses.values())
    for low, high in pairwise(bounds):  # with every bound that decides otherwise
        with torch.enable_grad():
            small = widths(method.compress(copy.deepcopy(model), task, method.Config(cut=0.6, sensitive=(low + high) / 2)))
        for name in names:
            cut = next((cut for cut in (0.6, 0.3) if losses[name, cut] <= (low + high) / 2), 0)
            wrong += small[f"{name}.conv"] != full[f"{name}.conv"] - int(cut * full[f"{name}.conv"])
    return wrong if len(set(bounds)) == 6 else float("inf")


def claim_retrains_once(lab: Lab) -> float:
    """Largest difference of an output from cutting and then training for the whole budget, relative to the largest output."""
    model, x = _network()
    part = Split(torch.randn(32, 3, 8, 8), torch.arange(32) % 5)
    task = toy_task(part, steps=6, batch=16)
    ours = method.compress(copy.deepcopy(model), task, method.Config(cut=0.4, sensitive=1.0, rate=0.05))
    theirs = fit(method.thinned(model, x[:1], dict.fromkeys(free_channels(model, x[:1])[0], 0.4)), task, lr=0.05)
    return relative_error(ours(x), theirs(x))


def claim_controls_cut_other_filters(lab: Lab) -> list[float]:
    """How many layers, by control, lose other filters than numpy says, or more or fewer than the method."""
    model, _ = _network()
    task = toy_task(Split(torch.randn(32, 3, 8, 8), torch.arange(32) % 5), steps=1, batch=16)
    like, wrong = method.thinned(model, task.train.images[:1], {"0.conv": 0.5, "2.first.conv": 0.25}), []
    sums = {name: np.abs(model.get_submodule(name).weight.detach().numpy()).sum((1, 2, 3)) for name in ("0.conv", "2.first.conv")}
    for control, sign in ((method.control_independent, 1), (method.control_largest, -1)):
        small = control(copy.deepcopy(model), task, method.Config(sensitive=1.0, rate=0.0), like)
        stay = {name: sorted(np.argsort(-sign * each)[: widths(like)[name]]) for name, each in sums.items()}
        wrong.append(widths(small) != widths(like))
        wrong.append(not torch.equal(small.get_submodule("0.conv").weight, model.get_submodule("0.conv").weight[stay["0.conv"]]))
        kernel = model.get_submodule("2.first.conv").weight[stay["2.first.conv"]]
        wrong.append(not torch.equal(small.get_submodule("2.first.conv").weight, kernel))
    return [float(each) for each in wrong]


def claim_control_is_fair(lab: Lab) -> float:
    """How many layers of the control have another width than the method's, and how many seeds cut the same filters as another."""
    model, _ = _network()
    part = Split(torch.randn(32, 3, 8, 8), torch.arange(32) % 5)
    kernels, wrong, like = [], 0, method.thinned(model, part.images[:1], {"0.conv": 0.5, "2.first.conv": 0.25})
    for seed in range(3):
        task = toy_task(part, steps=4, batch=16, seed=seed)
        random = method.control_random(copy.deepcopy(model), task, method.Config(sensitive=1.0, rate=0.05), like)
        trained = fit(method.pruned_like(model, task, like, at_random(seed)), task, lr=0.05)
        wrong += sum(width != widths(like)[name] for name, width in widths(random).items())
        wrong += any(not torch.equal(a, b) for a, b in zip(random.parameters(), trained.parameters(), strict=True))
        kernels.append(method.pruned_like(model, task, like, at_random(seed)).get_submodule("0.conv").weight.detach())
    return wrong + sum(torch.equal(a, b) for a, b in combinations(kernels, 2))


STAGES = [
    "scores the given network on 20 images of validation, eval mode",
    "scores a candidate on 20 images of validation, eval mode (3 times)",
    "trains the returned network on 48 images of train, train mode, rate 0.02, 3 steps",
]
LARGE = method.Config(cut=0.5, sensitive=0.99, rate=0.02)


def claim_stages(lab: Lab) -> list[float]:
    """Whether a trace differs from the paper's: score the network and each layer's cut, cut all, retrain once; a control's likewise."""
    controls = ("", "random", "largest", "independent")
    return [float(trace(method, odd_network(), odd_task(), LARGE, control) != STAGES) for control in controls]


def claim_parameters(lab: Lab, variant: str) -> float:
    """Millions."""
    return nets.count(nets.on_meta(lambda: method.build(variant))) / 1e6


def claim_operations(lab: Lab, variant: str) -> float:
    """Multiply-adds for one image, in hundreds of millions."""
    return multiply_adds(nets.on_meta(lambda: method.build(variant)), torch.empty(1, 3, 32, 32, device="meta")) / 1e8


def claim_beats_random_filters(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random").accuracy


def claim_beats_random_filters_in_minutes(lab: Lab) -> float:
    return claim_beats_random_filters(lab)


def claim_beats_largest_filters(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("largest").accuracy


def claim_greedy_is_better(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("independent").accuracy


def claim_half_of_every_layer(lab: Lab, rate: str) -> float:
    """Accuracy beyond that of random filters where every layer loses half, after 150 steps at this rate."""
    other = lab.at((method.Config(sensitive=1.0, rate=float(rate)), 150))
    return other.after.accuracy - other.control("random").accuracy


def claim_keeps_accuracy(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy


def _only_cut(lab: Lab) -> nn.Module:
    """The method's network before its training. Its widths say what was planned, which takes longer to find out than to train."""
    whole, left = widths(lab.reference), widths(lab.compressed)
    cuts = {name: (whole[name] - left[name] + 0.5) / whole[name] for name in whole if left[name] < whole[name]}
    return method.thinned(lab.reference, lab.task.train.first(1).images.to(lab.task.device), cuts)


def claim_smallest_hurt_least(lab: Lab) -> float:
    """Share of the layers that, cut alone and not trained, leave more accuracy than random filters do in the mean of three draws."""
    model, image, test, better = lab.reference, lab.task.train.first(1).images.to(lab.task.device), lab.held_out(500), []
    for name in free_channels(model, image)[0]:
        thin = method.thinned(model, image, {name: lab.config.cut})
        draws = [lab.task.score(method.pruned_like(model, lab.task, thin, at_random(seed)), test) for seed in range(3)]
        better.append(lab.task.score(thin, test) > sum(draws) / len(draws))
    return sum(better) / len(better)


def claim_retraining_regains(lab: Lab) -> float:
    """Share of the accuracy lost by the cut that the training wins back."""
    cut = lab.score(_only_cut(lab))
    return won_back(lab, cut)
