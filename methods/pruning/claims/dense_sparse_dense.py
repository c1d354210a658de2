"""The claims of Dense-Sparse-Dense training."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from methods.kit.lab import Lab
from methods.kit.task import Task
from methods.kit.testing import odd_network, odd_task, trace
from methods.kit.train import schedule
from methods.pruning import dense_sparse_dense as method

SPARSE = method.Config(sparsity=0.4, last=0.0)  # the last phase leaves everything as it is


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.weight.detach() for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def claim_smallest_weights_go(lab: Lab) -> list[float]:
    """How many weights of each layer are zero after the sparse phase though numpy keeps them, or the other way about."""
    model, found = odd_network(), []
    small = _weights(method.compress(model, replace(odd_task(), exclude=("1.second*",)), SPARSE))
    for name, weight in _weights(model).items():
        sizes = np.abs(weight.numpy())
        stays = (sizes > np.sort(sizes, None)[round(0.4 * sizes.size) - 1]) | name.startswith("1.second")
        found.append(float(((small[name].numpy() != 0) != stays).sum()))
    return found


def claim_sparse_phase_is_masked_training(lab: Lab) -> list[float]:
    """Largest difference of the weights after the sparse phase from torch's own masks, trained by torch's own optimiser."""
    model, task = odd_network(), replace(odd_task(8), augmented=False)
    ours = _weights(method.compress(model, task, SPARSE))
    theirs = copy.deepcopy(model).train()
    for layer in theirs.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            prune.l1_unstructured(layer, "weight", round(0.4 * layer.weight.numel()))
    _descended(theirs, task, SPARSE)
    masked = {name: theirs.get_submodule(name) for name in ours}
    return [float((ours[name] - layer.weight_orig * layer.weight_mask).detach().abs().max()) for name, layer in masked.items()]


def _descended(model: nn.Module, task: Task, config: method.Config) -> None:
    """Trained on half of the task's batches."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batches = list(task.batches(config.sparse_share))
    for step, (x, y) in enumerate(batches, 1):
        optimiser.param_groups[0]["lr"] = config.rate * schedule(step, len(batches))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()


def claim_all_weights_come_back(lab: Lab) -> list[float]:
    """Share of each layer's weights that the last phase leaves at zero, and how far from its zeros it leads where it is one small step."""
    model, task = odd_network(), odd_task(8)
    dense = _weights(method.compress(model, task, method.Config(sparsity=0.4)))
    sparse, near = (_weights(method.compress(model, task, replace(SPARSE, last=last))) for last in (0.0, 1e-6))
    zeros = [float((weight == 0).double().mean()) for weight in dense.values()]
    return zeros + [float(near[name][weight == 0].abs().max()) for name, weight in sparse.items()]


UNEVEN = method.Config(sparse_share=0.25)
STAGES = [
    "trains the returned network on 32 images of train, train mode, rate 0.02, 2 steps",
    "trains the returned network on 96 images of train, train mode, rate 0.002, 6 steps",
]


def claim_stages(lab: Lab) -> float:
    """Whether the trace differs from Algorithm 1: the network trains sparse, then dense at a tenth of the rate."""
    return float(trace(method, odd_network(), odd_task(8), UNEVEN) != STAGES)


DENSE = [STAGES[0].replace("returned", "given"), STAGES[1]]  # without a mask the network that is trained is the given one
LOW_RATE = ["trains the given network on 128 images of train, train mode, rate 0.002, 8 steps"]


def claim_controls(lab: Lab) -> list[float]:
    """Whether a control's trace is another; how far it starts from the given network; how many weights go, or come again with a seed."""
    model, task = odd_network(), odd_task(8)
    wanted = {"dense": DENSE, "random": STAGES, "low_rate": LOW_RATE}
    found = [float(trace(method, model, task, UNEVEN, control) != stages) for control, stages in wanted.items()]
    like, given, still = method.compress(model, task, method.Config()), _weights(model), method.Config(rate=0.0)
    for control in (method.control_dense, method.control_low_rate):
        weights = _weights(control(model, task, still, like))
        found += [float((weights[name] - weight).abs().max()) for name, weight in given.items()]
    draws = [_weights(method.control_random(model, replace(task, seed=seed), still, like)) for seed in (0, 0, 1)]
    for name, weight in given.items():
        first, again, other = (draw[name] for draw in draws)
        found += [float(((first != 0) & (first != weight)).sum()), abs(float((first == 0).sum()) - round(0.3 * weight.numel()))]
        found += [float(not torch.equal(first, again)), float(torch.equal(first, other))]
    return found


def claim_as_large_as_before(lab: Lab) -> list[float]:
    """Multiply-adds and bytes of the file, over the given network's."""
    return [lab.after.multiply_adds / lab.before.multiply_adds, lab.after.file_bytes / lab.before.file_bytes]


def claim_beats_dense_training(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("dense").accuracy


def claim_beats_dense_training_in_minutes(lab: Lab) -> float:
    return claim_beats_dense_training(lab)


def claim_beats_low_rate_in_minutes(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("low_rate").accuracy


def claim_smallest_are_the_ones(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random").accuracy


def claim_better_than_before(lab: Lab) -> float:
    return lab.after.accuracy - lab.before.accuracy
