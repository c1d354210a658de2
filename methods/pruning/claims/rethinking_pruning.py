"""The claims of Rethinking the Value of Network Pruning."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import nn

from methods.kit.lab import Lab
from methods.kit.nets import conv_bn, head
from methods.kit.testing import odd_network, odd_task, trace
from methods.pruning import rethinking_pruning as method

HALF = method.Config(pruner="pruning_filters")


def _multiply_adds(widths: list[int], side: int = 8, classes: int = 4) -> int:
    """Of 3x3 convolutions of these widths on maps of one size, and the classifier behind them, by hand."""
    return sum(9 * a * b * side * side for a, b in zip([3, *widths], widths, strict=False)) + widths[-1] * classes


def _chain(*widths: int) -> nn.Module:
    layers = [(str(place), conv_bn(a, b)) for place, (a, b) in enumerate(zip([3, *widths], widths, strict=False))]
    return nn.Sequential(*(layer for _, layer in [*layers, *head(widths[-1], 4)]))


def claim_as_much_computation(lab: Lab) -> list[float]:
    """How far Scratch-B's multiply-adds are from those of the large network's training, or its length from the cap, in shares."""
    task, large, found = odd_task(), [24, 20], []
    for thin in ([24, 19], [20, 16], [17, 14], [17, 13], [3, 5]):
        wanted = min(_multiply_adds(large) / _multiply_adds(thin), 2.0)
        found.append(abs(method.stretch(_chain(*large), _chain(*thin), task, method.Config()) / wanted - 1))
    return found


def claim_nothing_is_inherited(lab: Lab) -> list[float]:
    """Largest difference between the networks that come of two large ones of one shape and other weights, where those fine-tuned differ."""
    task, one = odd_task(8), odd_network()
    other = copy.deepcopy(one)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1 + 0.1 * torch.randn_like(p))
    ours, theirs = (list(method.compress(model, task, HALF).parameters()) for model in (one, other))
    tuned = [list(method.control_finetuned(model, task, HALF, model).parameters()) for model in (one, other)]
    inherited = any(torch.equal(a, b) for a, b in zip(*tuned, strict=True))
    return [float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True)] + [math.inf] * inherited


def claim_new_weights_are_drawn(lab: Lab) -> list[float]:
    """How far the weights that Scratch-B starts from are from what torch draws: within 1/sqrt(fan-in), of its variance; norms as new."""
    model, found = odd_network(), []
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(5 + torch.randn_like(p))
    small = method.compress(model, odd_task(8), replace(HALF, rate=0.0))
    for layer in small.modules():
        if isinstance(layer, nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            within = float(layer.weight.detach().abs().max()) <= bound
            found.append(abs(3 * float(layer.weight.detach().square().mean()) / bound**2 - 1) if within else math.inf)
        elif isinstance(layer, nn.BatchNorm2d):
            found.append(float((layer.weight - 1).detach().abs().max() + layer.bias.detach().abs().max()))
    return found


def claim_fine_tuned_as_published(lab: Lab) -> list[float]:
    """Largest difference of the fine-tuned network from what each pruning method returns by itself in a quarter of the steps."""
    model, task = odd_network(), odd_task(8)
    found = []
    for name, (pruner, settings) in method.PRUNERS.items():
        ours = method.control_finetuned(model, task, method.Config(pruner=name), model)
        theirs = pruner(model, task.with_steps(2), settings)
        pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        found += [float((a.double() - b.double()).abs().max()) if a.shape == b.shape else math.inf for a, b in pairs]
    return found


STAGES = [
    "trains a network of 15,516 parameters on 32 images of train, train mode, rate 0.01, 2 steps",
    "trains the returned network on 256 images of train, train mode, rate 0.1, 16 steps",
]


def claim_stages(lab: Lab) -> float:
    """Whether the trace differs from the paper's: prune and fine-tune, then train another network twice as long as the large one."""
    return float(trace(method, odd_network(), odd_task(8), HALF) != STAGES)


def claim_more_computation_helps(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("scratch_e").accuracy


def claim_scratch_beats_fine_tuning_in_seconds(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("finetuned").accuracy


def claim_scratch_is_as_good(lab: Lab, pruner: str) -> float:
    """Accuracy of Scratch-B beyond the fine-tuned network's, for one method's shape."""
    other = lab.at((replace(lab.config, pruner=pruner), lab.task.steps))
    return other.after.accuracy - other.control("finetuned").accuracy


def claim_scratch_e_is_as_good(lab: Lab, pruner: str) -> float:
    """The same for Scratch-E."""
    other = lab.at((replace(lab.config, pruner=pruner), lab.task.steps))
    return other.control("scratch_e").accuracy - other.control("finetuned").accuracy
