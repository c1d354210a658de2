"""Mixtures of low-rank products on a network of one's own: what becomes one, what stays and why."""

import logging

import pytest
import torch
from torch import nn

from methods.kit.measure import multiply_adds
from methods.kit.task import Split, Task
from methods.low_rank.adaptive_mixture_low_rank import Config, Mixture, compress, control_low_rank, mixture
from tests.helpers import Mixed

WIDE = Config(share=0.5, components=2)


@pytest.fixture
def task() -> Task:
    chance = torch.Generator().manual_seed(0)
    part = Split(torch.randn(32, 3, 16, 16, generator=chance), torch.arange(32) % 5)
    return Task("own", part, part, part, steps=2, batch=16, augmented=False)


def test_replaces_what_is_wide_and_says_what_it_leaves(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    with caplog.at_level(logging.INFO):
        small = compress(Mixed(), task, WIDE)
    mixed = {name for name, part in small.named_modules() if isinstance(part, Mixture)}
    assert mixed == {"block.first.conv", "block.second.conv", "block.shortcut.conv", "wide.conv", "fc1"}
    for said in ("stem.conv: the first convolution", "grouped.conv: a grouped convolution", "fc2: too narrow"):
        assert said in caplog.text
    assert small(task.test.images[:2]).shape == (2, 5)
    control = control_low_rank(Mixed(), task, WIDE, small)
    image = task.test.images[:1]
    assert multiply_adds(control, image) == pytest.approx(multiply_adds(small, image), rel=0.01)


def test_exports(task: Task) -> None:
    torch.manual_seed(0)
    small, images = compress(Mixed(), task, WIDE), task.test.images[:2]
    for part in small.modules():
        if isinstance(part, Mixture):
            nn.init.normal_(part.gate.weight)
    assert torch.allclose(torch.export.export(small, (images,)).module()(images), small(images), atol=1e-5)


def test_keeps_the_width_of_numbers() -> None:
    layer = nn.Conv2d(8, 12, 3).to(torch.bfloat16)
    assert mixture(layer, WIDE)(torch.randn(1, 8, 5, 5).to(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 60, 3)), "0: the first convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=3)), "1: a grouped convolution"),
        (
            nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d((4, 5)), nn.Flatten()), nn.Linear(60, 4)),
            "1: too narrow for 4 products at 0.25",
        ),
        (nn.Sequential(nn.ConvTranspose2d(3, 60, 3)), "0: no plain Conv2d or Linear but ConvTranspose2d"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(net, task, Config())
