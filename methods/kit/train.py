"""Training: one loop for every method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from methods.kit.layout import laid_out, suited
from methods.kit.progress import told
from methods.kit.task import Task
from methods.kit.watch import rehearsed, watcher

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def autocast(device: str) -> torch.autocast:
    """Half-width floats on an accelerator. On a processor float32, so that two kinds of them differ by rounding alone."""
    kind = device.split(":")[0]
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu")


# torch.optim's classes call `sgd` and `adam` too, but import torch's compiler first, which takes longer than a smoke test trains.


@torch.no_grad()
def descend(params: Iterable[nn.Parameter], velocity: dict[Tensor, Tensor | None], lr: float, weight_decay: float) -> None:
    """One step of SGD with Nesterov momentum 0.9 for the parameters that have a gradient; `velocity` starts empty."""
    gradients: dict[Tensor, Tensor] = {p: p.grad for p in params if p.grad is not None}
    moved, buffers = list(gradients), [velocity.get(p) for p in gradients]
    sgd(
        moved, list(gradients.values()), buffers, weight_decay=weight_decay, momentum=0.9, lr=lr, dampening=0, nesterov=True, maximize=False
    )
    velocity.update(zip(moved, buffers, strict=True))
    watcher().note(steps=1, rate=lr)


def schedule(step: int, total: int) -> float:
    """Share of the highest learning rate in step 1 ... `total`: rises over the first tenth, then falls to zero along a cosine."""
    warm = max(1, total // 10)
    return min(step / warm, (1 + math.cos(math.pi * max(0, step - 1 - warm) / max(1, total - warm))) / 2)


def fit(
    model: nn.Module,
    task: Task,
    loss: Loss | None = None,
    *,
    share: float = 1.0,
    lr: float = 0.02,
    weight_decay: float = 5e-4,
    params: Iterable[nn.Parameter] | None = None,
    after_step: Callable[[float], None] | None = None,
) -> nn.Module:
    """Train `model` in place for a `share` of the task's steps and return it in evaluation mode.

    SGD with Nesterov momentum 0.9 and a rate of `lr` times `schedule`; `loss(model, x, y)` is the task's own unless another is given.
    Images come on the task's device and in the model's floating type; where a training takes longer, the log says every five seconds
    how far it is. `params` limits what is trained (default:
    everything). `after_step(progress)` runs after every step with progress in (0, 1], to project weights or anneal
    something. Same task, same seed, same result. Raises ValueError where nothing can be trained, or only in float16.
    """
    if (sizes := rehearsed()) is not None:
        sizes.append(sum(p.numel() for p in model.parameters()))
        return model.eval()
    chosen = [p for p in (model.parameters() if params is None else params) if p.requires_grad]
    if not chosen:
        raise ValueError("fit: nothing to train (no parameter requires a gradient)")
    if any(p.dtype == torch.float16 for p in chosen):
        raise ValueError("fit: weights are float16, in which small gradients vanish; train model.float() or model.bfloat16()")
    total = max(1, round(share * task.steps))
    loss = loss or task.loss_of
    velocity: dict[Tensor, Tensor | None] = {}
    torch.manual_seed(task.seed)
    with (
        laid_out(model.to(task.device), suited(model, task.train.first(1).images)) as layout,
        watcher().during("trains", model, rate=lr, params=chosen),
    ):
        model.train()
        for step, (x, y) in enumerate(told(task.batches(share), "training", total), 1):
            with autocast(task.device):
                value = loss(model, suited(model, x).to(memory_format=layout), y)
            for p in chosen:
                p.grad = None
            value.backward()
            descend(chosen, velocity, lr * schedule(step, total), weight_decay)
            if after_step is not None:
                after_step(step / total)
    return model.eval()


def minimise(loss: Callable[[int], Tensor], params: list[Tensor], steps: int, lr: float) -> None:
    """Adam with its usual constants, for what is searched and not trained: `loss(step)` of `params`, which change in place."""
    if rehearsed() is not None:
        return
    means, squares = ([torch.zeros_like(p) for p in params] for _ in range(2))
    counts: list[Tensor] = [torch.zeros(()) for _ in params]
    with watcher().during("minimises", rate=lr, iterations=steps):
        for step in told(range(steps), "searching", steps):
            gradients = list(torch.autograd.grad(loss(step), params))
            with torch.no_grad():
                adam(
                    params, gradients, means, squares, [], counts, lr=lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
                    amsgrad=False, maximize=False,
                )  # fmt: skip
            watcher().note(iterations=1, rate=lr)
