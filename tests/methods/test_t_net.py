"""T-Net on a network of one's own: which layers it ties, what it leaves alone and says so, how it ships."""

import logging

import pytest
import torch
from torch import nn

from methods.kit.measure import measure
from methods.kit.nets import Residual, conv_bn, count
from methods.kit.task import Task
from methods.low_rank import t_net
from tests.helpers import noise

TIED = ["2.first.conv", "2.second.conv", "3.first.conv", "3.second.conv"]


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        conv_bn(3, 12), nn.Conv2d(12, 12, 3, padding=1, groups=4), Residual(12, 12, 2), Residual(12, 12, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


@pytest.fixture
def task() -> Task:
    return noise(steps=2)


@pytest.mark.parametrize("form", ["tucker", "train"])
def test_ties_a_residual_network_and_says_what_it_leaves(
    form: str, model: nn.Sequential, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        small = t_net.compress(model, task, t_net.Config(form, channels=0.3))
    assert small(task.test.images).shape == (8, 5)
    assert not small.training
    assert small.places == [dict(zip(TIED, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True))]
    assert len(small.tensors) == 1
    assert [name for name, layer in small.net.named_modules() if getattr(layer, "weight", small) is None] == TIED
    assert count(small) < 0.6 * count(model)
    for said in (
        "0.conv: the only kernel of 12x3x3x3",
        "1: a grouped convolution",
        "shortcut.conv: the only",
        "6: no plain Conv2d but Linear",
    ):
        assert said in caplog.text


@pytest.mark.parametrize("form", ["tucker", "train"])
def test_ships_the_factors_alone(form: str, model: nn.Sequential, task: Task) -> None:
    small = t_net.compress(model, task, t_net.Config(form, channels=0.3))
    before, after = measure(model, task), measure(small, task)
    assert after.parameters == count(small)
    assert after.file_bytes - 4 * after.parameters < 2_000  # header and batch norms' statistics: each factor once
    assert after.multiply_adds > before.multiply_adds  # rebuilding the kernels is work


@pytest.mark.parametrize("form", ["tucker", "train"])
def test_exports(form: str, model: nn.Sequential, task: Task) -> None:
    small, images = t_net.compress(model, task, t_net.Config(form)), task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


@pytest.mark.parametrize("form", ["tucker", "train"])
def test_control_matches_the_parameters(form: str, task: Task) -> None:
    model = t_net.hourglasses(classes=5, width=12, depth=1)
    small = t_net.compress(model, task, t_net.Config(form, channels=0.6))
    control = t_net.control_layerwise(model, task, t_net.Config(form), small)
    assert count(control) == pytest.approx(count(small), rel=0.01)
    assert [list(here.values()) for here in control.places] == [[()]] * 8
    ranks = [len(tensor.core) for tensor in control.tensors]
    assert max(ranks) - min(ranks) <= 1


def test_control_starts_anew(task: Task) -> None:
    found = []
    for _ in range(2):
        model, small = t_net.hourglasses(classes=5, width=4, depth=1), nn.Linear(30, 40)
        torch.manual_seed(0)
        found.append(list(t_net.control_layerwise(model, task, t_net.Config(), small).parameters()))
    assert all(map(torch.equal, *found))


def test_a_shared_layer_stays_shared(task: Task) -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(shared, nn.ReLU(), nn.Conv2d(3, 3, 3), shared, nn.Flatten(), nn.Linear(300, 5))
    small = t_net.compress(model, task, t_net.Config())
    assert small.net[0] is small.net[3]
    assert small.kernels()["0.weight"].shape == (3, 3, 3, 3)
    assert not torch.equal(small.net[0].bias, shared.bias)


def test_keeps_the_width_of_numbers() -> None:
    for kind in (torch.bfloat16, torch.float64):
        model = nn.Sequential(*(nn.Conv2d(4, 4, 3, bias=False) for _ in range(2))).to(kind)
        assert t_net.Tied(model, {("0", "1"): t_net.Config()})(torch.randn(1, 4, 7, 7).to(kind)).dtype == kind


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 6, 3)), "0: the only kernel of 6x3x3x3"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)), "1: the only kernel of 6x6x3x3"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 3, 3, groups=3)), "0: a grouped convolution"),
        (
            nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.Linear(14, 2)),
            "ConvTranspose2d; 1: no plain Conv2d but Linear",
        ),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        t_net.compress(net, task, t_net.Config())
