"""The claims of Discrimination-aware Channel Pruning."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.nets import conv_bn
from methods.kit.surgery import widths
from methods.kit.task import Split, Task
from methods.kit.testing import odd_network, odd_task, toy_task, trace
from methods.pruning import discrimination_aware_pruning as method


def _toy(seed: int) -> tuple[nn.Sequential, Task]:
    """Three layers in float64, and images whose labels the network mostly knows."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    model = nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        model[-1].weight.mul_(20)
    images = torch.randn(12, 3, 6, 6, dtype=torch.float64)
    return model, toy_task(Split(images, model(images).argmax(1)))


def _joint(model: nn.Sequential, task: Task, weight: Tensor, balance: float) -> float:
    """L of Eq. 6 by hand, where the second convolution has this weight."""
    hidden = F.relu(model[0](task.train.images))
    wanted, found = model[2](hidden), F.conv2d(hidden, weight, model[2].bias)
    logits = model[6](F.relu(found).mean((2, 3)))
    told = logits.logsumexp(1) - logits.gather(1, task.train.labels[:, None])[:, 0]
    return float(((wanted - found) ** 2).sum() / (2 * found.numel()) + balance * told.mean())


def _select(model: nn.Module, task: Task, config: method.Config, stays: int) -> tuple[list[int], list[float], nn.Module]:
    small = copy.deepcopy(model)
    chosen, values = method.select(small, model, "0", "", None, task, config, stays, lambda norms: norms)
    return chosen, values, small


@torch.no_grad()
def claim_largest_gradient_joins(lab: Lab) -> list[float]:
    """How often another channel joins first than the one whose gradient, by finite differences of L, has the largest norm."""
    wrong = []
    for seed in range(4):
        for balance in (0.0, 1.0, 30.0):
            model, task = _toy(seed)
            slopes = np.zeros(model[2].weight.shape)
            for place in np.ndindex(*slopes.shape):
                step = torch.zeros_like(model[2].weight)
                step[place] = 1e-5
                slopes[place] = (_joint(model, task, step, balance) - _joint(model, task, -step, balance)) / 2e-5
            best = int(np.sqrt((slopes**2).sum((0, 2, 3))).argmax())
            chosen, values, _ = _select(model, task, method.Config(balance=balance, inner=0), 1)
            wrong += [float(chosen != [best]), abs(values[0] / _joint(model, task, torch.zeros_like(model[2].weight), balance) - 1)]
    return wrong


def claim_joined_weights_are_trained(lab: Lab) -> list[float]:
    """Largest difference of the reader's weights from gradient steps by hand on the channels that have joined, others' zero."""
    model, task = _toy(0)
    config = method.Config(inner=3, inner_rate=0.05)
    chosen, _, small = _select(model, task, config, 4)
    weight, gone = torch.zeros_like(model[2].weight), set(range(7)) - set(chosen)
    for place in chosen:
        weight[:, place] = model[2].weight[:, place].detach()
        joined = torch.tensor([float(c in chosen[: chosen.index(place) + 1]) for c in range(7)]).view(1, 7, 1, 1)
        for _ in range(3):
            w = weight.clone().requires_grad_()
            hidden = F.relu(model[0](task.train.images)).detach()
            found = F.conv2d(hidden, w, model[2].bias)
            loss = (found - model[2](hidden)).square().mean() / 2
            loss = loss + F.cross_entropy(model[6](F.relu(found).mean((2, 3))), task.train.labels)
            weight = weight - 0.05 * joined * torch.autograd.grad(loss, w)[0]
    others = [
        float((a - b).detach().abs().max())
        for name, a in small.named_parameters()
        for b in [model.get_parameter(name)]
        if name != "2.weight"
    ]
    return [float((small[2].weight - weight).detach().abs().max()), *others, float(small[2].weight[:, sorted(gone)].detach().abs().max())]


def claim_objective_falls(lab: Lab) -> list[float]:
    """By how much L rises from one channel that joins to the next, where the weights are trained until they rest; convex in them (§3.5)."""
    found = []
    for seed in range(2):
        model, task = _toy(seed)
        linear = nn.Sequential(model[0], nn.ReLU(), model[2], nn.AdaptiveAvgPool2d(1), nn.Flatten(), model[6])  # L_S convex in W, too
        _, values, _ = _select(linear, task, method.Config(inner=60, inner_rate=0.05), 7)
        found += np.diff(values).tolist()
    return found


def claim_stops_at_the_tolerance(lab: Lab) -> list[float]:
    """How many channels more or fewer than Eq. 10 asks for join, for tolerances between those that decide otherwise."""
    model, task = _toy(1)
    whole = method.Config(inner=20, inner_rate=0.01)
    _, values, _ = _select(model, task, whole, 7)
    falls = [abs(a - b) / values[0] for a, b in pairwise(values)]
    found = []
    for low, high in pairwise(sorted(falls)):
        tolerance = (low + high) / 2
        wanted = next((turn + 1 for turn, fall in enumerate(falls) if fall <= tolerance), 7)
        found.append(abs(len(_select(model, task, replace(whole, tolerance=tolerance), 7)[0]) - wanted))
    return found


@torch.no_grad()
def claim_classifier(lab: Lab) -> float:
    """Largest difference of the extra classifier's answer from numpy's, batch norm by its own statistics."""
    torch.manual_seed(0)
    head, x = method.Head(5, 3).double().eval(), torch.randn(4, 5, 6, 7, dtype=torch.float64)
    for values in (head.bn.running_mean, head.bn.weight, head.bn.bias):
        values.normal_()
    head.bn.running_var.uniform_(0.5, 2)
    norm = head.bn
    mean, variance, gamma, beta = (v.numpy()[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    features = np.maximum((x.numpy() - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0).mean((2, 3))
    return float(np.abs(features @ head.fc.weight.numpy().T + head.fc.bias.numpy() - head(x).numpy()).max())


def claim_stages_are_spread(lab: Lab) -> list[float]:
    """How many networks, of six and of four convolutions, are cut into other stages than by hand."""
    wrong = []
    for depth, heads, wanted in (
        (6, 2, [("1.conv", ["0.conv"]), ("3.conv", ["1.conv", "2.conv"]), ("", ["3.conv", "4.conv", "5.conv"])]),
        (4, 3, [("0.conv", []), ("1.conv", ["0.conv"]), ("2.conv", ["1.conv"]), ("", ["2.conv", "3.conv"])]),
    ):
        blocks = [conv_bn(8 if place else 3, 8) for place in range(depth)]
        model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
        left = {f"{place}.conv": 4 for place in range(depth)}
        wrong.append(float(method.stages(model, torch.zeros(1, 3, 8, 8), left, heads) != wanted))
    return wrong


SMALL = method.Config(images=16, joins=8)


def claim_widths(lab: Lab) -> list[float]:
    """How many channels of each layer that may lose some stay otherwise than ceil(kept times all)."""
    model = odd_network()
    small = widths(method.compress(model, odd_task(8), replace(SMALL, kept=0.37)))
    free = ("0.conv", "1.first.conv", "2.conv")
    return [abs(width - (math.ceil(0.37 * widths(model)[name]) if name in free else widths(model)[name])) for name, width in small.items()]


STAGES = [
    "trains the given network on 32 images of train, train mode, rate 0.02, 2 steps",
    "trains one like the given network on 32 images of train, train mode, rate 0.02, 2 steps",
    "runs one like the given network on 16 images of train, eval mode (12 times)",
    "trains a network of 23,628 parameters on 32 images of train, train mode, rate 0.02, 2 steps",
    "runs a network of 23,628 parameters on 16 images of train, eval mode (9 times)",
    "runs a network of 20,640 parameters on 16 images of train, eval mode",
    "runs a network of 23,628 parameters on 16 images of train, eval mode (3 times these 2 lines)",
    "runs a network of 20,640 parameters on 16 images of train, eval mode",
    "trains the returned network on 48 images of train, train mode, rate 0.02, 3 steps",
]


def claim_stages(lab: Lab) -> list[float]:
    """Whether a trace differs from Algorithm 1, or a control's from the method's."""
    model, task = odd_network(), odd_task(8)
    return [float(trace(method, model, task, SMALL, control) != STAGES) for control in ("", "reconstruction", "random")]


def claim_beats_reconstruction(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("reconstruction").accuracy


def claim_beats_random(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random").accuracy


def claim_beats_reconstruction_in_minutes(lab: Lab) -> float:
    return claim_beats_reconstruction(lab)


def claim_beats_random_in_minutes(lab: Lab) -> float:
    return claim_beats_random(lab)


def claim_keeps_accuracy(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy
