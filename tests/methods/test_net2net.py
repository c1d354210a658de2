"""Net2Net on a network of one's own: what grows, what stays and is named, and that growth is only growth."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from methods.distillation.claims.net2net import Concat
from methods.distillation.net2net import Config, compress, control_alone, control_random_pad, coupled, grow, padded, places
from methods.kit import nets
from methods.kit.surgery import widths
from methods.kit.task import Task
from tests.helpers import Mixed, noise

SMALL = Config(widen=1.5, added=1, every=2)


@pytest.fixture
def task() -> Task:
    return noise(steps=3)


@pytest.fixture
def model() -> Mixed:
    torch.manual_seed(0)
    return Mixed().eval()


def test_grows_a_residual_network_and_says_what_it_leaves(model: Mixed, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        grown = grow(copy.deepcopy(model), task, replace(SMALL, noise=0.0))
    x = task.test.images
    assert torch.allclose(grown(x), model(x), atol=1e-5)
    old, new = widths(model), widths(grown)
    wide = {"stem.conv", "block.first.conv", "wide.conv"}
    assert {name for name in old if new[name] == 1.5 * old[name]} == wide
    assert (grown.fc1.out_features, grown.fc2.out_features) == (18, 5)
    assert grown.block.first.conv.stride == (2, 2)
    for said in (
        "block.second.conv: its channels meet the groups of grouped.conv",
        "grouped.conv: its channels meet the groups of grouped.conv",
        "fc2: its channels are the network's output",
    ):
        assert said in caplog.text


def test_noise_is_little(model: Mixed, task: Task) -> None:
    x, grown = task.test.images, grow(copy.deepcopy(model), task, SMALL)
    assert not torch.equal(grown(x), model(x))
    assert torch.allclose(grown(x), model(x), atol=0.05 * float(model(x).detach().abs().max()))


def test_added_layers_have_batch_norm_where_the_network_has(model: Mixed, task: Task) -> None:
    first = grow(copy.deepcopy(model), task, replace(SMALL, widen=1.0)).wide.act
    assert [type(layer) for layer in first] == [nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    plain = nn.Sequential(nn.Flatten(), nn.Linear(432, 6), nn.ReLU(), nn.Linear(6, 5))
    assert [type(layer) for layer in grow(plain, task, replace(SMALL, widen=1.0))[2]] == [nn.ReLU, nn.Linear, nn.ReLU]


def test_controls_are_as_large_and_leave_the_method_s_network(model: Mixed, task: Task) -> None:
    grown = compress(copy.deepcopy(model), task, SMALL)
    kept = copy.deepcopy(grown.state_dict())
    for control in (control_alone, control_random_pad):
        other = control(copy.deepcopy(model), task, SMALL, grown)
        assert [p.shape for p in other.parameters()] == [p.shape for p in grown.parameters()]
        assert not other.training
    assert all(torch.equal(value, kept[key]) for key, value in grown.state_dict().items())


def test_random_padding_keeps_the_old_channels(task: Task) -> None:
    torch.manual_seed(0)
    model = nets.resnet(8, 5, width=4)
    wide = grow(copy.deepcopy(model), task, replace(SMALL, added=0), padded).stage2_0.second.conv.weight
    assert wide.shape == (12, 12, 3, 3)
    assert torch.allclose(wide[:8, :8], model.stage2_0.second.conv.weight)
    assert len(wide.flatten().unique()) == wide.numel()


@pytest.mark.parametrize("net", [Mixed(), Concat()])
def test_exports(net: nn.Module, task: Task) -> None:
    images = task.test.images[:2] if isinstance(net, Mixed) else task.test.images[:2, :, :8, :8]
    part = replace(task.train, images=task.train.images[..., :8, :8]) if isinstance(net, Concat) else task.train
    grown = compress(net, replace(task, train=replace(part, labels=part.labels % 3)), SMALL)
    exported = torch.export.export(grown, (images,)).module()
    assert torch.allclose(exported(images), grown(images), atol=1e-5)


class Shared(nn.Module):
    """One ReLU module at two places, as in many residual networks."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 10), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.two(self.relu(self.one(x)))).flatten(1)


def head(layer: nn.Module, act: nn.Module) -> nn.Module:
    return nn.Sequential(layer, act, nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(432, 5)), "1: its channels are the network's output"),
        (head(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU()), "0: its channels meet the groups of 0"),
        (head(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6)), "0: its channels go through 1, a GroupNorm"),
        (head(nn.Conv2d(3, 6, 3), nn.PReLU(6)), "0: its channels go through 1, a PReLU"),
        (head(nn.Conv2d(3, 6, 3), nn.Softmax(1)), "0: with copies of its channels the network would compute something else"),
        (head(nn.Conv2d(3, 6, 3), nn.Sigmoid()), "1: Sigmoid twice is not Sigmoid once"),
        (Shared(), "relu: runs 2 times"),
        (nn.Sequential(nn.Flatten(), nn.Linear(432, 6), nn.Unflatten(1, (2, 3)), nn.ReLU(), nn.Flatten()), "3: wants"),
    ],
)
def test_refuses_by_name(net: nn.Module, word: str, task: Task) -> None:
    net(task.test.images[:2])  # a lazy layer learns its size
    config = Config(1.0) if any(hint in word for hint in ("twice", "runs", "wants")) else Config(added=0)
    with pytest.raises(ValueError, match=word):
        compress(net, task, config)


def test_a_dense_reader_behind_a_flattening_is_coupled(task: Task) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 5))
    changes = {
        name: (axis, source.tolist()) for name, axis, source in coupled(net, task.test.images[:1], "0", torch.tensor([0, 1, 2, 3, 2]))
    }
    assert changes == {"0": (0, [0, 1, 2, 3, 2]), "2": (1, [*range(400), *range(200, 300)])}
    assert places(net, task.test.images[:1]) == ([], {})
