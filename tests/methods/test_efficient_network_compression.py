"""ENC on a network of one's own: what it changes, what it leaves alone and says so."""

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.kit.measure import multiply_adds
from methods.kit.nets import Residual
from methods.kit.task import Task
from methods.low_rank.efficient_network_compression import Config, compress, control_uniform, energy, split

CONFIG = Config(budget=0.5, profile=(0.1, 0.3), margin=0.02, best=3)
NAMES = ["2.first.conv", "2.second.conv", "2.shortcut.conv", "4"]


class Masked(nn.Conv2d):
    """Does something else in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(min=0)


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), Residual(16, 24, 2), nn.Conv2d(24, 24, 3, padding=1, groups=4),
        nn.Conv2d(24, 24, 3, padding="same", padding_mode="circular", dilation=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip


def made(labels: list[int]) -> Task:
    chance = torch.Generator().manual_seed(0)

    def batches(count: int) -> list[tuple[Tensor, Tensor]]:
        return [(torch.randn(10, 3, 12, 12, generator=chance), torch.tensor(labels).repeat(10 // len(labels))) for _ in range(count)]

    return Task.from_loaders(batches(3), batches(2), batches(1), steps=2, batch=8)


@pytest.fixture
def task() -> Task:
    return made([0, 1, 2, 3, 4])


@pytest.mark.parametrize("change", [{}, {"best": 1}, {"space": 0.0}])
def test_compresses_a_residual_network_and_says_what_it_leaves(
    change: dict[str, Any], model: nn.Sequential, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        small = compress(model, task, replace(CONFIG, **change))
    image = task.test.images[:1]
    assert small(image).shape == (1, 5)
    assert not small.training
    assert [len(small.get_submodule(name)) for name in NAMES] == [2, 2, 2, 2]
    assert [part.stride for part in small[2].first.conv] == [(2, 1), (1, 2)]
    assert multiply_adds(small, image) / multiply_adds(model, image) == pytest.approx(0.5, rel=0.02)
    for said in ("0: the first convolution keeps its rank", "3: a grouped convolution", "7: no plain Conv2d but Linear"):
        assert said in caplog.text


def test_control_matches_the_cost(model: nn.Sequential, task: Task) -> None:
    image, small = task.test.images[:1], compress(model, task, CONFIG)
    control = control_uniform(model, task, CONFIG, small)
    assert multiply_adds(control, image) == pytest.approx(multiply_adds(small, image), rel=0.05)  # narrow layers: coarse steps
    shares = [control.get_submodule(name)[0].out_channels / len(energy(pair)) for name, pair in split(model)[0].items()]
    assert max(shares) - min(shares) < 0.1


def test_exports(model: nn.Sequential, task: Task) -> None:
    small, images = compress(model, task, CONFIG), task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_looks_at_validation_images_only(model: nn.Sequential, task: Task) -> None:
    seen: list[Tensor] = []

    def score(net: nn.Module, split: object) -> float:
        seen.append(split.images)  # type: ignore[attr-defined]
        return 0.5

    compress(model, replace(task, score=score), replace(CONFIG, images=6))
    assert {len(images) for images in seen} == {6}
    assert all(bool((task.validation.images == image).flatten(1).all(1).any()) for image in seen[0])


def rank_one() -> nn.Conv2d:
    layer = nn.Conv2d(6, 6, 3)
    layer.weight.data = torch.ones_like(layer.weight)
    return layer


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 6, 3)), "0: the first convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=3)), "1: a grouped convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 1, 1)), "1: too narrow"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), rank_one()), "1: too narrow, or a kernel of rank one"),
        (nn.Sequential(nn.Conv2d(3, 1, 3), nn.Conv2d(1, 1, 1)), "1: too narrow"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), Masked(6, 6, 3)), "1: no plain Conv2d but Masked"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 6, 3)), "1: no plain Conv2d but ConvTranspose2d"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(net, task, CONFIG)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"budget": 0.1}, "a budget of 0.1 of the multiply-adds is out of reach"), ({"margin": 1e-9}, "no ranks of .* cost 0.5")],
)
def test_refuses_budgets_that_no_ranks_meet(change: dict[str, Any], word: str, model: nn.Sequential, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(model, task, replace(CONFIG, **change))


def test_refuses_a_network_that_gets_nothing_right(model: nn.Sequential) -> None:
    model[-1].bias.data[0] = -1e3
    with pytest.raises(ValueError, match="on validation images is 0"):
        compress(model, made([0]), CONFIG)
