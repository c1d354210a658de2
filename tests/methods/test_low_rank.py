"""Low-rank methods on a network of one's own: what they change, what they leave alone and say so."""

import copy
import logging
import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, fx, nn

from methods.kit.layers import output_error, patches, responses, share_that_costs, truncated_svd
from methods.kit.measure import multiply_adds
from methods.kit.nets import Residual
from methods.kit.task import Task
from methods.low_rank import jaderberg_low_rank as jaderberg
from tests.helpers import noise

SHORT = {"images": 16, "iterations": 3, "batch": 4}


class Twice(nn.Module):
    """Runs a layer twice, with a ReLU in place behind it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.act = layer, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.act(self.layer(x)))


class Masked(nn.Conv2d):
    """Does something else in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(min=0)


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), Residual(16, 24, 2), nn.Conv2d(24, 24, 3, padding=1, groups=4),
        Twice(nn.Conv2d(24, 24, 3, padding="same")), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip


@pytest.fixture
def task() -> Task:
    return noise(steps=2)


@pytest.mark.parametrize(("scheme", "parts"), [(1, 3), (2, 2)])
def test_expands_a_residual_network_and_says_what_it_leaves(
    scheme: int, parts: int, model: nn.Sequential, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        small = jaderberg.compress(model, task, jaderberg.Config(scheme=scheme, speedup=2, **SHORT))
    image = task.test.images[:1]
    assert small(image).shape == (1, 5)
    assert not small.training
    assert [len(small.get_submodule(name)) for name in ("2.first.conv", "2.second.conv", "4.layer")] == 3 * [parts]
    assert [part.stride for part in small[2].first.conv][:2] == [(2, 1), (1, 2)]
    assert multiply_adds(small, image) < 0.75 * multiply_adds(model, image)
    for said in ("0: sees raw pixels", "2.shortcut.conv: a kernel of 1x1", "3: a grouped convolution", "7: no plain Conv2d but Linear"):
        assert said in caplog.text


@pytest.mark.parametrize("build", [jaderberg.scheme1, jaderberg.scheme2, truncated_svd])
def test_factors_keep_the_width_of_numbers(build: jaderberg.Build) -> None:
    for kind in (torch.bfloat16, torch.float64):
        layer = nn.Conv2d(4, 6, 3).to(kind)
        assert build(layer, 2)(torch.randn(1, 4, 5, 5).to(kind)).dtype == kind


def test_output_error_is_that_of_what_both_networks_name(model: nn.Sequential, task: Task) -> None:
    images, other = task.test.images, copy.deepcopy(model)
    assert output_error(other, model, images) == 0
    with torch.no_grad():
        other[0].weight.mul_(2)
        other[0].bias.mul_(2)
    assert output_error(nn.Sequential(other[0]), model, images) == pytest.approx(1)
    assert math.isnan(output_error(nn.Sequential(OrderedDict(apart=other)), model, images))
    assert output_error(fx.symbolic_trace(model), model, images) == 0  # runs what is inside the parts, never a part


def test_patches_times_kernel_is_the_convolution() -> None:
    torch.manual_seed(0)
    for settings in ({"padding": (1, 2), "stride": 2}, {"padding": "same", "dilation": 2}, {"padding": 1, "padding_mode": "reflect"}):
        layer, images = nn.Conv2d(3, 5, 3, **settings).double(), torch.randn(2, 3, 9, 8).double()
        wanted = layer(images).flatten(2).transpose(1, 2)
        assert torch.allclose(patches(layer, images) @ layer.weight.flatten(1).T + layer.bias, wanted)


@pytest.mark.parametrize("goal", [0.0, 0.3, 0.62, 1.5])
def test_share_that_costs_is_the_nearest(goal: float) -> None:
    steps = [round(share, 1) for share in torch.linspace(0, 1, 11).tolist()]
    assert share_that_costs(goal, lambda share: share, steps=10) == min(steps, key=lambda share: abs(share - goal))


def test_control_matches_the_cost(model: nn.Sequential, task: Task) -> None:
    image, config = task.test.images[:1], jaderberg.Config(speedup=2, **SHORT)
    small = jaderberg.compress(model, task, config)
    control = jaderberg.control_svd(model, task, config, small)
    assert multiply_adds(control, image) == pytest.approx(multiply_adds(small, image), rel=0.1)  # narrow layers: coarse steps


@pytest.mark.parametrize("scheme", [1, 2])
def test_exports(scheme: int, model: nn.Sequential, task: Task) -> None:
    small = jaderberg.compress(model, task, jaderberg.Config(scheme=scheme, speedup=2, **SHORT))
    images = task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_fit_aims_at_the_first_answer_before_relu(model: nn.Sequential, task: Task) -> None:
    config = jaderberg.Config(speedup=1.2, images=24, iterations=60, batch=24, lr=3e-3)
    images, names = task.train.images, ["2.first.conv", "2.second.conv", "4.layer"]
    model.eval()
    start, small = jaderberg.expand(model, config)[0], jaderberg.compress(model, task, config)
    wanted, before, after = (responses(net, images, names) for net in (model, start, small))
    assert all(answer.min() < 0 for answer in wanted.values())
    for name in names:
        assert (after[name] - wanted[name]).norm() < (before[name] - wanted[name]).norm()


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 6, 3)), "0: sees raw pixels"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=3)), "1: a grouped convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, (1, 3))), "1: a kernel of 1x3"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 1, 3)), "1: too narrow to be 4.5 times faster"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), Masked(6, 6, 3)), "1: no plain Conv2d but Masked"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 6, 3)), "1: no plain Conv2d but ConvTranspose2d"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        jaderberg.compress(net, task, jaderberg.Config(**SHORT))
