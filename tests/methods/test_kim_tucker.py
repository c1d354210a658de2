"""Tucker-2 on a network of one's own: what it changes, what it leaves alone and says so."""

import warnings

import pytest
import torch
from torch import nn

from methods.kit.measure import multiply_adds
from methods.kit.nets import Residual
from methods.kit.task import Task
from methods.low_rank.kim_tucker import Config, compress, control_scratch, control_uniform, decomposed, evbmf_rank, plan
from tests.helpers import noise


def low_rank(layer: nn.Conv2d, r3: int, r4: int) -> nn.Conv2d:
    """The layer with a kernel of these channel ranks, under a little noise."""
    t, s, *window = layer.weight.shape
    kernel = torch.einsum("tb,ba...,as->ts...", torch.randn(t, r4), torch.randn(r4, r3, *window), torch.randn(r3, s))
    layer.weight.data = kernel / kernel.std() * 0.05 + 0.002 * torch.randn_like(kernel)
    return layer


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Residual(16, 32, 2), nn.Conv2d(32, 32, 3, padding=1, groups=4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    low_rank(net[1].first.conv, 4, 5)
    low_rank(net[1].second.conv, 6, 3)
    return net


@pytest.fixture
def task() -> Task:
    return noise(steps=2)


def test_decomposes_a_residual_network_and_says_what_it_leaves(model: nn.Sequential, task: Task) -> None:
    ranks, kept = plan(model)
    assert ranks["1.first.conv"] == (4, 5)
    assert ranks["1.second.conv"] == (6, 3)
    assert kept["2"] == "a grouped convolution"
    assert "noise" in kept["5"]
    image = task.test.images[:1]
    small = compress(model, task, Config())
    assert small(image).shape == (1, 5)
    assert not small.training
    assert small[1].first.conv[1].stride == (2, 2)
    assert small[1].first.conv[0].stride == (1, 1)
    assert multiply_adds(small, image) < 0.6 * multiply_adds(model, image)


def test_controls_match_the_cost(model: nn.Sequential, task: Task) -> None:
    image, small = task.test.images[:1], compress(model, task, Config())
    uniform, scratch = control_uniform(model, task, Config(), small), control_scratch(model, task, Config(), small)
    assert multiply_adds(uniform, image) == pytest.approx(multiply_adds(small, image), rel=0.1)  # narrow layers: coarse steps
    assert multiply_adds(scratch, image) == multiply_adds(small, image)
    assert not torch.allclose(scratch[1].first.conv[1].weight, small[1].first.conv[1].weight)


def test_decomposition_keeps_the_function_of_low_rank_layers(model: nn.Sequential, task: Task) -> None:
    cut = decomposed(model, plan(model)[0]).eval()
    with torch.no_grad():
        wanted, found = model.eval()(task.test.images), cut(task.test.images)
    assert (wanted - found).norm() < 0.1 * wanted.norm()


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), "0: a grouped convolution"),
        (nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d((4, 5)), nn.Flatten()), nn.Linear(60, 40)), "1: VBMF finds nothing"),
        (nn.Sequential(nn.ConvTranspose2d(3, 6, 3)), "0: no plain Conv2d or Linear but ConvTranspose2d"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=word):
        compress(net, task, Config())


def test_rank_of_degenerate_matrices() -> None:
    zeros, one = torch.zeros(4, 9).numpy(), torch.ones(1, 5).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evbmf_rank(zeros) == 0
        assert evbmf_rank(one) == 0
        assert evbmf_rank(torch.outer(torch.arange(1.0, 9), torch.arange(1.0, 20)).numpy()) == 1
