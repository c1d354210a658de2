"""The claims of Soft Filter Pruning."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.measure import multiply_adds
from methods.kit.surgery import free_channels, narrowed, remove_channels, widths
from methods.kit.task import Task
from methods.kit.testing import odd_network, odd_task, relative_error, toy_task, trace
from methods.kit.train import fit, schedule
from methods.pruning import soft_filter_pruning as method

ROUNDS = method.Config(cut=0.4, rounds=4, rate=0.2)  # so fast that other filters are the smallest after every round


def _least(layer: nn.Module, cut: float) -> list[int]:
    """The filters of least L2 norm by numpy, the smallest first."""
    kernel = layer.weight.detach().double().numpy()
    return np.argsort(np.sqrt((kernel.reshape(len(kernel), -1) ** 2).sum(1)))[: int(cut * len(kernel))].tolist()


def claim_smallest_filters_go(lab: Lab) -> list[float]:
    """How many filters of each layer are chosen otherwise than by numpy's L2 norms; and by how many one filter is not left."""
    chance, wrong = torch.Generator().manual_seed(0), []
    for filters in (4, 9, 30):
        layer = nn.Conv2d(5, filters, 3)
        layer.weight.data = torch.randn(layer.weight.shape, generator=chance) ** 5  # so that other norms choose others
        wrong += [float(method.smallest(layer, cut) != _least(layer, cut)) for cut in (0.0, 0.3, 0.5, 0.8)]
        wrong.append(abs(len(method.smallest(layer, 1.0)) - filters + 1))
    return wrong


def _double(steps: int) -> tuple[nn.Module, Task]:
    """The odd network and its task in double precision, images as they are."""
    task = replace(odd_task(steps), augmented=False)
    return odd_network().double(), replace(task, **{split: getattr(task, split).to(torch.float64) for split in ("train", "validation")})


def _descended(model: nn.Module, task: Task, share: float, then: dict[int, float]) -> nn.Module:
    """Trained by torch's own optimiser; after the steps of `then` the smallest filters of so large a share are set to zero."""
    optimiser = torch.optim.SGD(model.train().parameters(), lr=1.0, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batches, free = list(task.batches(share)), free_channels(model, task.train.images[:1])[0]
    model.train()
    for step, (x, y) in enumerate(batches, 1):
        optimiser.param_groups[0]["lr"] = ROUNDS.rate * schedule(step, len(batches))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x.double()), y).backward()
        optimiser.step()
        for name in free if step in then else ():
            layer = model.get_submodule(name)
            layer.weight.data[_least(layer, then[step])] = 0.0
    return model.eval()


def _nonzero(model: nn.Module) -> nn.Module:
    """Without the filters that are zero."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    zeros = {name: (layer.weight.detach().flatten(1) == 0).all(1).nonzero().flatten().tolist() for name, layer in layers.items()}
    return remove_channels(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64), zeros)


def claim_trains_zeroed_filters_on(lab: Lab) -> list[float]:
    """How far the answers are from a loop by hand, over the largest; and how many filters it should zero but does not."""
    model, task = _double(12)
    ours = method.compress(copy.deepcopy(model), task, ROUNDS)
    soft = _descended(copy.deepcopy(model), task, 0.75, dict.fromkeys((3, 6, 9), 0.4))
    thin = _nonzero(soft)
    fewer = sum(n - int(0.4 * n) for name, n in widths(model).items() if name in free_channels(model, task.train.images[:1])[0])
    fewer -= sum(n for name, n in widths(thin).items() if n < widths(model)[name])
    return [relative_error(ours(task.train.images), _descended(thin, task, 0.25, {})(task.train.images)), abs(fewer)]


def claim_controls_prune_for_good(lab: Lab) -> list[float]:
    """How far each control's answers are from the thin network's that is trained by hand from the start, over the largest."""
    model, task = _double(12)
    like, found = method.compress(copy.deepcopy(model), task, ROUNDS), []
    for seed in (0, 1):
        task = replace(task, seed=seed)
        drawn = torch.Generator().manual_seed(seed)
        orders = {
            "hard": lambda name, layer: _least(layer, 1.0)[::-1],
            "random": lambda name, layer, drawn=drawn: torch.randperm(layer.out_channels, generator=drawn).tolist(),
        }
        for name, order in orders.items():
            control = getattr(method, f"control_{name}")(copy.deepcopy(model), task, ROUNDS, like)
            thin = narrowed(model, task.train.images[:1], widths(like), order)
            for share in (0.75, 0.25):
                thin = _descended(thin, task, share, {})
            found.append(relative_error(control(task.train.images), thin(task.train.images)))
    return found


def claim_zeroed_filters_return(lab: Lab) -> list[float]:
    """Of filters set to zero, how many do not grow in one step with a shift above zero; and how many do with one below."""
    torch.manual_seed(0)
    model = nn.Sequential(nets.conv_bn(3, 12), *[part for _, part in nets.head(12, 4)])
    task = toy_task(odd_task().train, batch=16)
    method.zero(model, {"0.conv": list(range(12))})
    with torch.no_grad():
        model[0].bn.bias.copy_(torch.tensor([0.5, -0.5] * 6))
    grown = fit(model, task)[0].conv.weight.detach().flatten(1).abs().amax(1) > 0
    return [float((~grown[::2]).sum()), float(grown[1::2].sum())]


@torch.no_grad()
def claim_removed_equals_zeroed(lab: Lab) -> float:
    """Largest difference of the answers, over the largest, where what the batch norm adds to the zeroed filters is zero too."""
    model, task = _double(1)
    for norm in (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)):
        for values in (norm.bias, norm.running_mean):
            nn.init.normal_(values)
    free = free_channels(model, task.train.images[:1])[0]
    gone = method.chosen(model, free, task, ROUNDS)
    method.zero(model, gone)
    for name, filters in gone.items():
        norm = model.get_submodule(name.removesuffix("conv") + "bn")
        norm.bias[filters] = norm.running_mean[filters] = 0
    thin = remove_channels(model, task.train.images[:1], gone, free)
    return relative_error(thin(task.train.images), model(task.train.images)) if widths(thin) != widths(model) else float("inf")


def _operations(model: nn.Module) -> float:
    return float(multiply_adds(model, torch.zeros(1, 3, 8, 8)))


def claim_cost(lab: Lab) -> list[float]:
    """The thin network's multiply-adds over those by hand, times 1 - P_i and 1 - P_(i+1); so with a layer excluded, in multiples of 16."""
    model, task, found = nn.Sequential(nets.conv_bn(3, 20), nets.conv_bn(20, 40), *[part for _, part in nets.head(40, 4)]), odd_task(), []
    for settings, one, two in (({}, 0.6, 0.6), ({"exclude": ("1",)}, 0.6, 1), ({"multiple": 16}, 0.8, 0.8)):
        thin = method.compress(copy.deepcopy(model), replace(task, **settings), method.Config(cut=0.4, rounds=2))
        found.append(_operations(thin) / (64 * 9 * (3 * 20 * one + 20 * 40 * one * two) + 40 * 4 * two))
    return found


STAGES = [
    "trains the given network on 96 images of train, train mode, rate 0.01, 6 steps",
    "trains the returned network on 32 images of train, train mode, rate 0.01, 2 steps",
]


def claim_stages(lab: Lab) -> float:
    """Whether the trace differs from Algorithm 1: the whole network trains, then the thin one does for one round."""
    return float(trace(method, odd_network(), odd_task(8), method.Config(rounds=4)) != STAGES)


def claim_saves_what_it_says(lab: Lab) -> float:
    """Multiply-adds over those of 3x3 convolutions on maps of 32, 16, 8 and 4 pixels that have lost the share, and the classifier."""
    side, inputs, work = 32, 3, 0
    for step in nets.VGG_WIDE:
        if isinstance(step, str):
            side //= 2
        else:
            outputs = step - int(lab.config.cut * step)
            work += 9 * inputs * outputs * side * side
            inputs = outputs
    return lab.after.multiply_adds / (work + 10 * inputs)


def claim_beats_hard_pruning(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("hard").accuracy


def claim_beats_random_filters(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random").accuracy


def claim_keeps_accuracy(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy
