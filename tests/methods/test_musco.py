"""MUSCO on a network of one's own: what it changes stage by stage, what it leaves alone and says so."""

import logging
from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from methods.kit.measure import multiply_adds
from methods.kit.task import Task
from methods.low_rank.claims.musco import planted
from methods.low_rank.kim_tucker import tucker2
from methods.low_rank.musco import Config, compress, control_one_shot, decomposable, decompose, melted, ranks_of
from tests.helpers import Mixed, noise

GENTLE = Config(weakening=0.5, stages=3, floor=6)
RANKS = {"block.second.conv": (6, 6), "wide.conv": (6, 6), "fc1": (None, 6)}  # after three stages


@pytest.fixture
def model() -> Mixed:
    torch.manual_seed(0)
    net = Mixed()
    planted(net.block.second.conv, 2, 2)
    planted(net.wide.conv, 2, 3)
    planted(net.fc1, None, 1)
    return net


@pytest.fixture
def task() -> Task:
    return noise(steps=6)


def test_decomposes_a_residual_network_and_says_what_it_leaves(model: Mixed, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small = compress(model, task, GENTLE)
    image = task.test.images[:1]
    assert ranks_of(small, decomposable(model)[0]) == RANKS
    assert small(image).shape == (1, 5)
    assert not small.training
    assert multiply_adds(small, image) < 0.8 * multiply_adds(model, image)
    for said in ("grouped.conv: a grouped convolution", "stem.conv: ranks [8] stay", "fc2: ranks [5] stay"):
        assert said in caplog.text


def test_strides_stay_in_the_core(model: Mixed, task: Task) -> None:
    planted(model.block.first.conv, 2, 2)
    small = compress(model, task, Config(weakening=0.5, stages=2, floor=6))
    assert [part.stride for part in small.block.first.conv] == [(1, 1), (2, 2), (1, 1)]


def test_control_matches_cost_and_training(model: Mixed, task: Task) -> None:
    image, steps = task.test.images[:1], []

    class Counted(Task):
        def batches(self, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().batches(share):
                steps.append(share)
                yield batch

    counted = Counted(**{field.name: getattr(task, field.name) for field in fields(task)})
    small = compress(model, counted, GENTLE)
    assert len(steps) == task.steps
    once = control_one_shot(model, counted, GENTLE, small)
    assert len(steps) == 2 * task.steps
    assert multiply_adds(once, image) == multiply_adds(small, image)
    assert ranks_of(once, decomposable(model)[0]) == RANKS


def test_exports(model: Mixed, task: Task) -> None:
    small, images = compress(model, task, GENTLE), task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_a_shared_layer_stays_shared(task: Task) -> None:
    torch.manual_seed(0)
    shared = planted(nn.Conv2d(24, 24, 3, padding=1), 2, 2)
    net = nn.Sequential(nn.Conv2d(3, 24, 3), shared, nn.ReLU(), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))
    small = compress(net, task, GENTLE)
    assert small[1] is small[3]
    assert len(small[1]) == 3


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_melting_keeps_the_width_of_numbers(kind: torch.dtype) -> None:
    chain = tucker2(nn.Conv2d(8, 9, 3).to(kind), (6, 6))
    again = decompose(chain, (4, 5))
    assert again(torch.randn(1, 8, 5, 5).to(kind)).dtype == kind
    assert melted(nn.Linear(4, 3, bias=False), nn.Linear(3, 6)).bias is not None


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), "0: a grouped convolution"),
        (nn.Sequential(nn.Conv2d(3, 20, 3)), r"0: ranks \[20\] stay, at the floor of 21"),
        (nn.Sequential(nn.Conv2d(3, 40, 5), nn.Conv2d(40, 40, 3)), r"1: ranks \[40, 40\] stay, .* VBMF finds nothing"),
        (
            nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d((4, 5)), nn.Flatten()), planted(nn.Linear(60, 30), None, 2)),
            "1: even ranks .* save nothing",
        ),
        (nn.Sequential(nn.ConvTranspose2d(3, 60, 3)), "0: no plain Conv2d or Linear but ConvTranspose2d"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=word):
        compress(net, task, Config())
