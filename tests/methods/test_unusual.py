"""Every method on what is unusual about a network or its data; `compress` and controls leave what they are given as it was."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.detection import head
from methods.kit.lab import Lab
from methods.kit.task import Split, Task
from scripts.evidence import source

ROOT = Path(__file__).resolve().parents[2]
METHODS = source.methods(ROOT)
QUICK: dict[str, Any] = {"iterations": 4, "images": 8, "batch": 4, "batches": 1, "student": "random"}  # where a Config has them
OWN: dict[str, dict[str, Any]] = {
    "adaptive_mixture_low_rank": {"share": 0.5},
    "efficient_network_compression": {"margin": 0.1, "budget": 0.5},
    "musco": {"floor": 4},
}


def network(id: str, colours: int = 3) -> nn.Module:
    """Layers alike and wide enough to be cut, of low rank beside a little noise; one is depthwise."""
    torch.manual_seed(0)
    if id == "semi_supervised_adaptive_distillation":
        return nn.Sequential(nets.conv_bn(colours, 12, 5, 4), head(12, 3))
    body = [nets.conv_bn(colours, 24), nets.conv_bn(24, 24, groups=24), *(nets.conv_bn(24, 24) for _ in range(3))]
    for block in body[2:]:
        low = torch.einsum("or,ic,rchw->oihw", torch.randn(24, 4), torch.randn(24, 4), torch.randn(4, 4, 3, 3))
        block.conv.weight.data = 0.05 * low + 0.01 * torch.randn_like(low)
    last = nn.Linear(24, 3)
    last.bias.data[0] = 9  # so that some answers are right
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


def some_task(id: str) -> Task:
    part = Split(torch.randn(32, 3, 8, 8), torch.arange(32) % 3)
    task = Task("standin", part, part, part, steps=2, batch=8, augmented=False)
    method: Any = import_module(f"methods.{METHODS[id].family}.{id}")
    return method.prepare(task) if hasattr(method, "prepare") else task


def state(model: nn.Module) -> list[Any]:
    """Everything of a network that somebody else might change."""
    found = list[Any]()
    for name, part in model.named_modules():
        found += [name, id(part), type(part), part.training, list(part._forward_hooks), list(part._forward_pre_hooks), part.extra_repr()]
        found.append(list(part._backward_hooks))
        for key, value in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            found += [key, id(value), value.data_ptr(), value.dtype, value.requires_grad, value.grad is None, value.stride()]
    return found


def numbers_of(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def quick(id: str) -> tuple[Any, Any]:
    """The method and its Config for a smoke run, shortened and fitting to the network above."""
    method: Any = import_module(f"methods.{METHODS[id].family}.{id}")
    config = Lab(method, lambda: some_task(id)).config
    return method, replace(config, **{key: value for key, value in QUICK.items() if hasattr(config, key)} | OWN.get(id, {}))


@pytest.mark.parametrize("id", METHODS)
def test_the_argument_stays_as_it_was(id: str) -> None:
    (method, config), task = quick(id), some_task(id)
    model = network(id).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()[0].eval()  # somebody keeps its statistics
    model[0][1].requires_grad_(False)
    model.register_forward_hook(lambda *_: None)
    before = state(model), numbers_of(model)
    small = method.compress(model, task, config)
    kept = state(small), numbers_of(small)
    shared = [small]
    for name in vars(method):
        if name.startswith("control_"):
            shared.append(getattr(method, name)(model, task, config, small))
    assert state(model) == before[0]
    assert state(small) == kept[0]
    for given, values in ((model, before[1]), (small, kept[1])):
        assert all(torch.equal(a, b) for a, b in zip(numbers_of(given), values, strict=True))
    assert all(not {*map(id_of, made.parameters())} & {*map(id_of, model.parameters())} for made in shared)


class Named(nn.Module):
    """Answers with a dictionary, and in training with an auxiliary head's answer, too."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.aux = body, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x)
        return {"logits": y, "aux": self.aux(y)} if self.training and y.ndim == 2 else {"logits": y}


@pytest.mark.parametrize("id", METHODS)
def test_dictionaries_doubles_one_colour_and_streams_are_worked_on(id: str) -> None:
    method, config = quick(id)
    streamed = not hasattr(method, "prepare")  # mosaics need all images
    loaders = [[(torch.randn(8, 1, 13, 11), torch.arange(8) % 2) for _ in range(4)] for _ in range(3)]  # of three classes
    task = Task.from_loaders(*loaders, steps=2, batch=8, outputs=lambda y: y["logits"], stream=streamed)
    task = task if streamed else method.prepare(task)
    model = Named(network(id, 1)).double()
    small = method.compress(model, task, config)
    assert all(p.dtype == torch.float64 for p in small.parameters())
    x = task.test.first(2).images.double()
    assert task.logits(small(x)).shape == task.logits(model(x)).shape
    assert task.score(small, task.test) >= 0
    if METHODS[id].family not in ("distillation", "architecture") or id == "net2net":
        assert isinstance(small(x), dict)


@pytest.mark.parametrize("id", METHODS)
def test_what_is_no_class_or_tensor_or_cannot_be_trained_is_refused_in_a_line(id: str) -> None:
    """Or worked on, where no training needs it."""
    method, config = quick(id)
    task = some_task(id)
    lines = [_attempt(method.compress, Named(network(id)), task, config), _attempt(method.compress, network(id).half(), task, config)]
    assert all(line == "" or (("outputs=lambda y: y['logits']" in line or "float16" in line) and "\n" not in line) for line in lines)


def _attempt(compress: Any, model: nn.Module, task: Task, config: Any) -> str:
    try:
        return "" if isinstance(compress(model, task, config), nn.Module) else "no network"
    except (TypeError, ValueError) as refusal:
        return str(refusal)


def id_of(value: object) -> int:
    return id(value)
