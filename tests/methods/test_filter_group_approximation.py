"""Filter groups on a network of one's own: what they change, what they leave alone and say so."""

import logging

import pytest
import torch
from torch import Tensor, nn

from methods.kit.layers import responses
from methods.kit.measure import multiply_adds
from methods.kit.task import Task
from methods.low_rank.claims.filter_group_approximation import from_kernels, white
from methods.low_rank.filter_group_approximation import (
    Config,
    compress,
    control_jaderberg,
    control_svd,
    from_responses,
    moments,
    paired,
    plan,
)
from tests.helpers import Mixed, noise

SHORT = Config(groups=(2, 4), images=16)


class Twice(nn.Module):
    """Runs a layer twice, with a ReLU in place behind it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.act = layer, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.act(self.layer(x)))


@pytest.fixture
def model() -> Mixed:
    torch.manual_seed(0)
    return Mixed().eval()


@pytest.fixture
def task() -> Task:
    return noise(steps=2)


def test_groups_a_residual_network_and_says_what_it_leaves(model: Mixed, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small = compress(model, task, SHORT)
    image = task.test.images[:1]
    assert small(image).shape == (1, 5)
    assert not small.training
    assert [small.get_submodule(name)[0].groups for name in ("block.first.conv", "block.second.conv", "wide.conv")] == [2, 2, 2]
    assert small.block.first.conv[0].stride == (2, 2)
    assert small.block.first.conv[1].stride == (1, 1)
    assert multiply_adds(small, image) < 0.8 * multiply_adds(model, image)
    said = ("stem.conv: sees raw pixels", "shortcut.conv: a kernel of 1x1", "grouped.conv: a grouped", "fc1: no plain Conv2d but Linear")
    assert [words for words in said if words not in caplog.text] == []


def test_controls_match_the_cost(model: Mixed, task: Task) -> None:
    image, small = task.test.images[:1], compress(model, task, SHORT)
    for control in (control_jaderberg, control_svd):
        assert multiply_adds(control(model, task, SHORT, small), image) == pytest.approx(multiply_adds(small, image), rel=0.1)


def test_exports(model: Mixed, task: Task) -> None:
    small, images = compress(model, task, SHORT), task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_responses_come_closer_than_kernels_layer_by_layer(model: Mixed, task: Task) -> None:
    images = task.train.images
    groups, _ = plan(model, images[:1], (4,))
    nets = (model, from_kernels(model, groups), from_responses(model, groups, images))
    wanted, kernels, found = (responses(net, images, groups) for net in nets)
    for name in groups:
        assert (found[name] - wanted[name]).norm() < (kernels[name] - wanted[name]).norm()


def test_a_shared_layer_stays_shared(task: Task) -> None:
    torch.manual_seed(0)
    small = compress(nn.Sequential(nn.Conv2d(3, 8, 3), Twice(nn.Conv2d(8, 8, 3)), nn.Flatten(), nn.Linear(8 * 36, 5)), task, SHORT)
    assert small(task.test.images).shape == (8, 5)
    assert len(small[1].layer) == 2


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_pairs_keep_the_width_of_numbers(kind: torch.dtype) -> None:
    layer = nn.Conv2d(4, 6, 3).to(kind)
    assert paired(layer, 2, white(layer, 2))(torch.randn(1, 4, 5, 5).to(kind)).dtype == kind


def test_dead_inputs_and_zero_kernels(task: Task) -> None:
    layer, dead = nn.Conv2d(4, 4, 3), torch.zeros(2, 4, 6, 6)
    assert torch.allclose(paired(layer, 1, moments(layer, 1, [(dead, dead)]))(dead), layer(dead), atol=1e-6)
    ones = torch.ones_like(dead)
    assert torch.allclose(paired(layer, 1, moments(layer, 1, [(ones, dead)]))(dead), layer(ones), atol=1e-5)
    nn.init.zeros_(layer.weight)
    assert torch.allclose(paired(layer, 2, white(layer, 2))(task.train.images.new_ones(1, 4, 5, 5)), layer.bias[:, None, None], atol=1e-6)


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 6, 3)), "0: sees raw pixels"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=3)), "1: a grouped convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1)), "1: a kernel of 1x1 saves nothing in groups of 3"),
        (nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3)), "1: a kernel of 3x3 saves nothing in groups of 5"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 6, 3)), "1: no plain Conv2d but ConvTranspose2d"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(net, task, SHORT)
