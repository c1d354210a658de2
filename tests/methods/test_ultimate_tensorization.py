"""Tensor trains on a network of one's own: what they change, what they leave alone and say so."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from methods.kit.nets import count
from methods.kit.task import Split, Task
from methods.low_rank.claims.ultimate_tensorization import converted
from methods.low_rank.ultimate_tensorization import Config, TTConv, TTLinear, compress, control_plain, control_svd, control_tucker, train_of
from tests.helpers import Mixed, noise

SMALL = Config(rank=3, dense_rank=3, dense_factors=2)


class Wide(nn.Module):
    """A network with a wide dense layer behind the block of a residual one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.wide = (
            Mixed(),
            nn.Sequential(nn.Linear(5, 60), nn.ReLU(inplace=True), nn.Linear(60, 48), nn.ReLU(), nn.Linear(48, 5)),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.wide(self.body(x))
        return logits


@pytest.fixture
def model() -> Wide:
    torch.manual_seed(0)
    return Wide()


@pytest.fixture
def task() -> Task:
    return noise(steps=2)


def test_changes_a_residual_network_and_says_what_it_leaves(model: Wide, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small = compress(model, task, SMALL)
    assert small(task.test.images).shape == (8, 5)
    assert not small.training
    assert isinstance(small.body.block.first.conv, TTConv)
    assert small.body.block.first.conv.filters.stride == (2, 2)
    assert [type(layer) for layer in small.wide[2]] == [TTLinear, nn.BatchNorm1d]
    assert count(small) < 0.4 * count(model)
    for said in (
        "body.stem.conv: the first convolution and the classifier stay dense",
        "wide.4: the first convolution and",
        "grouped conv",
    ):
        assert said in caplog.text


def test_controls_match_the_size(task: Task) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.Conv2d(32, 48, 3, 2), nn.ReLU(), nn.Conv2d(48, 64, 1), nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 5)
    )
    config = Config(rank=8, dense_rank=12)
    small = compress(net, task, config)
    for control in (control_plain, control_svd, control_tucker):
        other = control(net, task, config, small)
        assert count(other) == pytest.approx(count(small), rel=0.15)  # narrow layers: coarse steps
        assert sum(isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d) for layer in other.modules()) == 3


def test_learns_with_a_wide_dense_layer(task: Task) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 128), nn.ReLU(), nn.Linear(128, 5))
    small = compress(net, task.with_steps(40), Config(dense_rank=8, dense_factors=3))
    assert count(small) < 0.15 * count(net)
    assert task.score(small, task.train) > 0.8


def test_exports(model: Wide, task: Task) -> None:
    small, images = compress(model, task, SMALL), task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_keeps_the_width_of_numbers_and_shares_what_was_shared(task: Task) -> None:
    layer = nn.Conv2d(4, 6, 3).double()
    for train in (train_of(layer, [(2, 2), (2, 3)], 2), converted(layer, [(2, 2), (2, 3)], 2)):
        assert train(torch.randn(1, 4, 5, 5).double()).dtype == torch.float64
    images = Split(task.train.images.double(), task.train.labels)
    wide = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).double()
    assert compress(wide, replace(task, train=images), SMALL)(images.images[:2]).dtype == torch.float64
    shared = nn.Conv2d(16, 16, 3, padding=1)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), shared, shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    small = compress(net, task, SMALL)
    assert small[1] is small[2]
    assert isinstance(small[1][0], TTConv)


def test_sequences_and_single_outputs() -> None:
    train = train_of(nn.Linear(12, 10), [(3, 5), (4, 2)], 3)
    x = torch.randn(2, 7, 12)
    assert torch.allclose(train(x)[1, 3], train(x[1, 3]), atol=1e-6)
    assert train_of(nn.Conv2d(4, 1, 3), [(2, 1), (2, 1)], 3)(torch.randn(2, 4, 3, 3)).shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten()), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(3, 64, 3)), "0: the first convolution and the classifier stay dense"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=3)), "1: a grouped convolution"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 1, 1)), "1: 7 numbers are too few"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 6, 3)), "1: no plain Conv2d or Linear but ConvTranspose2d"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(net, task, Config())
