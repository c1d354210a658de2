"""CP decomposition on a network of one's own: what it changes, what it leaves alone and says so."""

import logging

import pytest
import torch
from torch import Tensor, nn

from methods.kit.measure import multiply_adds
from methods.kit.task import Task
from methods.low_rank.lebedev_cp import SMOKE, SWEEP, Config, chain, compress, control_jaderberg, cp
from tests.helpers import Mixed, noise

SHORT = Config(speedup=2, iterations=2)


@pytest.fixture
def model() -> Mixed:
    torch.manual_seed(0)
    return Mixed()


@pytest.fixture
def task() -> Task:
    return noise(steps=3)


def test_decomposes_a_residual_network_and_says_what_it_leaves(model: Mixed, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small = compress(model, task, SHORT)
    image = task.test.images[:1]
    assert small(image).shape == (1, 5)
    assert not small.training
    assert [len(small.get_submodule(name)) for name in ("block.first.conv", "block.second.conv", "wide.conv")] == [4, 4, 4]
    assert [part.stride for part in small.block.first.conv] == [(1, 1), (2, 1), (1, 2), (1, 1)]
    assert [part.groups > 1 for part in small.wide.conv] == [False, True, True, False]
    assert multiply_adds(small, image) < 0.7 * multiply_adds(model, image)
    for said in (
        "stem.conv: the first convolution",
        "block.shortcut.conv: a kernel of 1x1",
        "grouped.conv: a grouped convolution",
        "fc1: no plain Conv2d but Linear",
    ):
        assert said in caplog.text


def test_control_matches_the_cost(model: Mixed, task: Task) -> None:
    image, small = task.test.images[:1], compress(model, task, SHORT)
    control = control_jaderberg(model, task, SHORT, small)
    assert [len(part) for part in (control.block.first.conv, control.wide.conv)] == [2, 2]
    assert multiply_adds(control, image) == pytest.approx(multiply_adds(small, image), rel=0.1)  # narrow layers: coarse steps


def test_exports(model: Mixed, task: Task) -> None:
    small = compress(model, task, SHORT)
    images = task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_shared_layer_is_decomposed_once(task: Task) -> None:
    shared = nn.Conv2d(6, 6, 3, padding=1)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), shared, nn.ReLU(), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    small = compress(net, task, SHORT)
    assert small[1] is small[3]
    assert len(small[1]) == 4


@pytest.mark.parametrize("kernel", [torch.zeros(4, 5, 3, 3), torch.ones(4, 5, 3, 3), torch.eye(4, 5)[:, :, None, None] * torch.eye(3)])
def test_kernels_of_too_low_a_rank(kernel: Tensor) -> None:
    layer, images = nn.Conv2d(5, 4, 3), torch.randn(2, 5, 6, 6)
    layer.weight.data.copy_(kernel)
    assert torch.allclose(chain(layer, cp(layer.weight, 14, Config(iterations=200)))(images), layer(images), atol=1e-3)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_chain_keeps_the_width_of_numbers(kind: torch.dtype) -> None:
    layer = nn.Conv2d(4, 6, 3).to(kind)
    assert chain(layer, cp(layer.weight, 2, SHORT))(torch.randn(1, 4, 5, 5).to(kind)).dtype == kind


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 6, 3)), "0: the first convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=3)), "1: a grouped convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, (1, 3))), "1: a kernel of 1x3"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3)), "1: too narrow to be 4 times faster"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 6, 3)), "1: no plain Conv2d but ConvTranspose2d"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(net, task, Config())


def test_sweep_gets_cheaper() -> None:
    speedups = [config.speedup for config in SWEEP]
    assert speedups == sorted(speedups)
    assert SMOKE in SWEEP
