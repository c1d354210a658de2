"""Channels last where a network can bear it, contiguous elsewhere; and that no process dies of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.layout import laid_out, memory_format
from methods.kit.task import Task, accuracy
from methods.kit.train import fit
from tests.helpers import noise

ROOT = Path(__file__).resolve().parents[2]
IMAGE = torch.randn(1, 3, 12, 12)


class Flat(nn.Module):
    """Flattens with `view`, as the commonest tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(800, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc(x.view(x.shape[0], -1))


class Functional(nn.Module):
    """A convolution that no layer holds."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv, self.kernel, self.fc = nn.Conv2d(3, inputs, 3), nn.Parameter(torch.randn(6, inputs, 1, 1)), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.conv2d(self.conv(x), self.kernel, stride=2).mean((2, 3)))


def narrow(inputs: int = 4, groups: int = 1, kernel: int = 1, stride: int = 2) -> nn.Module:
    strided = nn.Conv2d(inputs, 2 * inputs, kernel, stride, groups=groups)
    return nn.Sequential(nn.Conv2d(3, inputs, 3), strided, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * inputs, 5))


def wide_weight() -> nn.Module:
    model = narrow(8)
    model.register_parameter("five", nn.Parameter(torch.zeros(1, 1, 1, 1, 1)))
    return model


@pytest.mark.parametrize("build", [lambda: nets.resnet(8), lambda: narrow(8), lambda: narrow(kernel=3), lambda: Functional(8)])
def test_channels_last_where_it_can_be_borne(build: Callable[[], nn.Module]) -> None:
    assert memory_format(build(), IMAGE) == torch.channels_last


@pytest.mark.parametrize(
    "build", [lambda: narrow(4), lambda: narrow(8, groups=2), lambda: Functional(4), Flat, wide_weight, lambda: nn.Flatten()]
)
def test_contiguous_elsewhere(build: Callable[[], nn.Module]) -> None:
    assert memory_format(build(), IMAGE) == torch.contiguous_format


def test_tokens_are_not_images() -> None:
    assert memory_format(narrow(8), torch.randn(1, 16, 8)) == torch.contiguous_format


def test_the_question_leaves_no_trace() -> None:
    """Hooks, mode, statistics and the random numbers to come are as if nobody had asked."""
    model, passes = nn.Sequential(nets.conv_bn(3, 8), nn.Dropout(0.5)), list[object]()
    model.register_forward_hook(lambda *_: passes.append(1))
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    memory_format(model, IMAGE)
    assert torch.equal(torch.rand(3), first)
    assert model.training
    assert not passes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("build", [lambda: narrow(8), lambda: narrow(4), Flat])
def test_whatever_was_trained_is_contiguous_again(build: Callable[[], nn.Module]) -> None:
    model, task = build(), noise(2)
    fit(model.to(memory_format=torch.channels_last), task)  # type: ignore[call-overload]
    accuracy(model, task.test)
    assert all(p.is_contiguous() for p in model.parameters())
    with laid_out(model, IMAGE) as layout:
        assert all(p.is_contiguous(memory_format=layout) for p in model.parameters() if p.ndim == 4)


def test_a_task_yields_contiguous_images() -> None:
    task = noise(2)
    shifted = Task("toy", task.train, task.validation, task.test, steps=2, batch=8)
    assert all(x.is_contiguous() for part in (task, shifted) for x, _ in part.batches())


@pytest.mark.parametrize("build", ["narrow(4)", "narrow(3)", "narrow(8, groups=2)", "Functional(4)", "Flat()"])
def test_no_process_dies_of_it(build: str) -> None:
    """As a processor without AVX-512 computes, on one thread: there a layout chosen wrongly kills the process."""
    script = f"from tests.kit.test_layout import *; torch.set_num_threads(1); fit({build}, noise(40)); print('alive')"
    processor = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **processor}, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
