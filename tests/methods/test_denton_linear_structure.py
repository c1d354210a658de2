"""Biclustering on a network of one's own: what it changes, what it leaves alone and says so."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.kit.measure import multiply_adds
from methods.kit.task import Task
from methods.low_rank import denton_linear_structure as denton
from methods.low_rank.denton_linear_structure import Config, compress, control_svd
from tests.helpers import Mixed, noise


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Mixed()


@pytest.fixture
def task() -> Task:
    return noise(steps=5)


def small(**settings: Any) -> Config:
    return Config(**{"colours": 4, "images": 8, **settings})


@pytest.mark.parametrize("settings", [{}, {"metric": "mahalanobis"}, {"block": "outer", "inputs": 4, "terms": 2}])
def test_a_residual_network_is_approximated_and_exports(
    settings: dict[str, Any], model: nn.Module, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        net: Any = compress(model, task, small(**settings))
    images = task.test.images[:2]
    assert net(images).shape == (2, 5)
    assert not any(part.training for part in net.modules())
    assert multiply_adds(net, images[:1]) < 0.75 * multiply_adds(model, images[:1])
    assert [len(part) for part in (net.stem.conv, net.block.first.conv, net.wide.conv)] == [3, 6, 6]
    assert net.block.first.conv[2].stride == (2, 2)
    for said in ("grouped.conv: a grouped convolution", "fc1: no plain Conv2d but Linear"):
        assert said in caplog.text
    exported = torch.export.export(net, (images,)).module()
    assert torch.allclose(exported(images), net(images), atol=1e-5)


def test_a_frozen_network_is_tuned_and_weighed_by_gradients(model: nn.Module, task: Task) -> None:
    net = compress(model.requires_grad_(False), task, small(metric="mahalanobis"))
    assert all(p.requires_grad for p in net.parameters())


def test_control_matches_the_cost(model: nn.Module, task: Task) -> None:
    image, config = task.test.images[:1], small()
    net = compress(model, task, config)
    assert multiply_adds(control_svd(model, task, config, net), image) == pytest.approx(multiply_adds(net, image), rel=0.15)  # coarse steps


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("block", denton.BLOCKS)
def test_blocks_keep_the_width_of_numbers_and_survive_zeros(kind: torch.dtype, block: str) -> None:
    layer = nn.Conv2d(4, 6, 3).to(kind)
    layer.weight.data[:, 1], layer.weight.data[2] = 0, 0
    for weight in (layer.weight.data.clone(), torch.zeros_like(layer.weight)):
        layer.weight.data = weight
        metric = denton.frobenius(layer)
        for build in (denton.monochromatic, denton.biclustered):
            answer = build(layer, metric, Config(block=block))(torch.randn(1, 4, 5, 5).to(kind))
            assert answer.dtype == kind
            assert answer.isfinite().all()


@pytest.mark.parametrize("metric", ["covariance", "mahalanobis"])
def test_metric_bears_inputs_that_never_show(metric: str, task: Task) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    task.train.images[:, 1] = 0
    part = denton.biclustered(model[0], denton.METRICS[metric](model[0], model, task, small()), small(k1=1, k2=1))
    assert torch.allclose(part(task.test.images), model[0](task.test.images), atol=1e-4)  # full ranks lose nothing


def test_a_layer_whose_name_begins_another_is_tuned_alone(task: Task) -> None:
    torch.manual_seed(0)
    model = nn.Sequential()
    for name, part in (
        ("a", nn.Conv2d(3, 8, 3)),
        ("aa", nn.Conv2d(8, 8, 3, groups=2)),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("b", nn.Flatten()),
    ):
        model.add_module(name, part)
    net: Any = compress(model, task, small())
    assert len(net.a) == 3
    assert not torch.equal(model.get_submodule("aa").weight, net.aa.weight)


def test_a_network_of_one_convolution(task: Task) -> None:
    torch.manual_seed(0)
    net: Any = compress(nn.Conv2d(3, 12, 3), task, small())
    assert len(net) == 3


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), "0: a grouped convolution"),
        (nn.Sequential(nn.ConvTranspose2d(3, 6, 3)), "0: no plain Conv2d but ConvTranspose2d"),
        (nn.Sequential(nn.Conv2d(3, 1, 1)), "0: would cost as much in clusters"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(net, task, Config())


def test_says_which_layer_never_runs(task: Task) -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.idle = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    with pytest.raises(ValueError, match="idle: never runs"):
        compress(Idle(), task, Config())
