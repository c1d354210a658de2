"""Asymmetric 3D on a network of one's own: what it changes, what it leaves alone and says so."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from methods.kit.layers import responses
from methods.kit.measure import multiply_adds
from methods.kit.task import Task
from methods.low_rank.zhang_nonlinear import Config, approximation, compress, control_linear, control_square, control_svd, control_symmetric
from tests.helpers import Mixed, noise

SHORT = Config(speedup=2, images=24, places=20, penalties=(0.01, 0.01, 1.0, 1.0))


class Masked(nn.Conv2d):
    """Does something else in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(min=0)


class Twice(nn.Module):
    """Runs a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = Mixed()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            layer.running_mean.uniform_(-0.2, 0.2)
    return net.eval()


@pytest.fixture
def task() -> Task:
    return noise(steps=2)


def test_factors_a_residual_network_and_says_what_it_leaves(model: nn.Module, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small = compress(model, task, SHORT)
    image = task.test.images[:1]
    assert small(image).shape == (1, 5)
    assert not small.training
    columns, rows, mix = small.get_submodule("block.first.conv")
    assert (columns.kernel_size, rows.kernel_size, mix.kernel_size) == ((3, 1), (1, 3), (1, 1))
    assert (columns.stride, rows.stride, mix.stride) == ((2, 1), (1, 2), (1, 1))
    assert multiply_adds(small, image) < 0.75 * multiply_adds(model, image)
    for said in (
        "stem.conv: sees raw pixels",
        "block.shortcut.conv: a kernel of 1x1",
        "grouped.conv: a grouped",
        "fc1: no plain Conv2d but Linear",
    ):
        assert said in caplog.text
    with caplog.at_level(logging.INFO):
        square = compress(model, task, replace(SHORT, spatial=0.0))
    assert len(square.get_submodule("block.first.conv")) == 2
    assert "block.shortcut.conv: a rank of" in caplog.text


def test_stays_near_the_network_where_little_is_asked(model: nn.Module, task: Task) -> None:
    images, errors = task.train.images, []
    wanted = responses(model, images, ["wide.act"])["wide.act"]
    for speedup in (1.1, 4):
        small = compress(model, task, replace(SHORT, speedup=speedup))
        errors.append(float((responses(small, images, ["wide.act"])["wide.act"] - wanted).norm() / wanted.norm()))
    assert errors[0] < errors[1] / 2


def test_controls_match_the_cost(model: nn.Module, task: Task) -> None:
    image, small = task.test.images[:1], compress(model, task, SHORT)
    cost = multiply_adds(small, image)
    for control in (control_linear, control_symmetric):
        assert multiply_adds(control(model, task, SHORT, small), image) == cost
    assert multiply_adds(control_svd(model, task, SHORT, small), image) == pytest.approx(cost, rel=0.05)  # narrow layers: coarse steps
    assert multiply_adds(control_square(model, task, SHORT, small), image) == pytest.approx(cost, rel=0.15)


def test_svd_control_has_the_ranks_of_square_kernels(model: nn.Module, task: Task) -> None:
    config = replace(SHORT, spatial=0.0)
    small = compress(model, task, config)
    control = control_svd(model, task, config, small)
    assert {name: p.shape for name, p in small.named_parameters()} == {name: p.shape for name, p in control.named_parameters()}


def test_first_layers_agree_and_later_ones_make_up(model: nn.Module, task: Task) -> None:
    asymmetric = compress(model, task, SHORT)
    symmetric = control_symmetric(model, task, SHORT, asymmetric)
    names = ["block.first.conv", "block.second.conv"]
    first, second = (responses(net, task.train.images, names) for net in (asymmetric, symmetric))
    assert torch.equal(first[names[0]], second[names[0]])
    assert not torch.equal(first[names[1]], second[names[1]])


def test_exports(model: nn.Module, task: Task) -> None:
    small, images = compress(model, task, SHORT), task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_dead_responses_give_their_mean() -> None:
    p, q, b = approximation(torch.ones(20, 3).double(), torch.arange(60).reshape(20, 3).double(), 2, [])
    assert torch.isfinite(p).all()
    assert torch.allclose(torch.ones(3).double() @ q.T @ p.T + b, torch.tensor([28.5, 29.5, 30.5]).double())


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no convolution or linear layer"),
        (nn.Sequential(nn.Conv2d(3, 6, 3)), "0: sees raw pixels"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=3)), "1: a grouped convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, (1, 3))), "1: a kernel of 1x3"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), Masked(6, 6, 3)), "1: no plain Conv2d but Masked"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)), "a speed-up of 100 cannot be had"),
        (Twice(), "layer: runs 2 times"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(net, task, replace(SHORT, speedup=100))
