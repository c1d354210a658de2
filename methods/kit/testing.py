"""What the claims of several methods share: tasks for small checks."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from methods.kit import ledger, nets
from methods.kit.lab import Lab
from methods.kit.layout import copied
from methods.kit.ledger import UNSEEN
from methods.kit.task import Split, Task


def images_only(images: Tensor, labels: Tensor | None = None) -> Task:
    """A task of training images (N, C, H, W) alone, of one class unless `labels` (N,) say otherwise; a look at others is an error."""
    train = Split(images, torch.zeros(len(images)).long() if labels is None else labels)
    return Task("toy", train, UNSEEN, UNSEEN, steps=1)


def toy_task(train: Split, **settings: Any) -> Task:
    """A task that trains on these images, as they are, for one step unless `settings` say otherwise.

    Its validation holds others of their shape under labels in another order, and a look at its test is an error.
    """
    chance = torch.Generator().manual_seed(1)
    other = torch.randn(train.images.shape, generator=chance).to(train.images)
    return Task("toy", train, Split(other, train.labels.roll(1)), UNSEEN, **{"steps": 1, "augmented": False, **settings})


def convolutions(inputs: int = 6, outputs: int = 8) -> list[nn.Conv2d]:
    """A layer for each way to look at images (N, inputs, 8 or more, 9 or more) that a method which replaces a kernel has to hand on."""
    settings: list[dict[str, Any]] = [
        {"kernel_size": 3, "stride": (2, 1), "padding": (1, 2)},
        {"kernel_size": (3, 5), "padding": 2, "dilation": (1, 2), "bias": False},
        {"kernel_size": (2, 3), "padding": "same", "dilation": (1, 2), "padding_mode": "circular"},
        {"kernel_size": (3, 2), "stride": (1, 3), "padding": "valid"},
        {"kernel_size": 3, "padding": (2, 1), "padding_mode": "reflect"},
        {"kernel_size": 3, "stride": 2, "padding": 2, "padding_mode": "replicate", "bias": False},
        {"kernel_size": 1, "stride": 2},
    ]
    return [nn.Conv2d(inputs, outputs, **setting) for setting in settings]


def odd_network(classes: int = 4) -> nn.Module:
    """A small network (N, 3, 8, 8) -> (N, classes) with a residual block whose layers have uneven widths, its weights drawn by seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nets.conv_bn(3, 24),
            nets.Residual(24, 40, 2),
            nets.conv_bn(40, 28),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(28, classes),
        ).eval()


def odd_task(steps: int = 3, classes: int = 4) -> Task:
    """A task (N, 3, 8, 8) whose three splits hold other images, of other numbers."""
    chance = torch.Generator().manual_seed(0)
    sizes = ((48, 0.0), (20, 1.0), (12, 2.0))
    train, validation, test = (Split(torch.randn(n, 3, 8, 8, generator=chance) + mean, torch.arange(n) % classes) for n, mean in sizes)
    return Task("toy", train, validation, test, steps=steps, batch=16)


def trace(method: ModuleType, model: nn.Module, task: Task, config: Any, control: str = "") -> list[str]:
    """What `compress`, or a control, does to a network on a task, an event a line, in order; the same on every processor."""
    known, task = {"the given network": model}, ledger.watched(task)
    if not control:
        with ledger.kept(known) as kept:
            network = method.compress(copied(model), task, config)
        return kept.trace(network)
    like = method.compress(copied(model), task, config)
    with ledger.kept({**known, "what the method returned": like}) as kept:
        network = getattr(method, f"control_{control}")(copied(model), task, config, like)
    return kept.trace(network)


def won_back(lab: Lab, cut: float) -> float:
    """Of the accuracy that a cut takes from the reference, and of which `cut` is left, the share that the method has again."""
    return (lab.after.accuracy - cut) / (lab.before.accuracy - cut)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of two tensors, over the largest number that is wanted; no number where one of them is none."""
    return float((found - wanted).detach().abs().max() / wanted.detach().abs().max())
