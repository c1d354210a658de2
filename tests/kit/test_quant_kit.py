"""methods/kit/quant.py, and the two methods that show it on a user's own network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets, quant
from methods.kit.pack import weight_codes
from methods.kit.task import Split, Task
from methods.quantization import adaround, data_free_quantization


class Own(nn.Module):
    """Strides, a shortcut, a grouped convolution, a functional ReLU and a linear layer on a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nets.conv_bn(3, 8, stride=2, act=nn.ReLU6)
        self.block = nets.Residual(8, 12, 2)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.grouped(self.block(self.stem(x)))))
        return cast(Tensor, self.fc(torch.flatten(x, 1)))


@pytest.fixture
def own() -> nn.Module:
    torch.manual_seed(0)
    model = Own()
    with torch.no_grad():
        model(torch.randn(64, 3, 8, 8) + 1)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(-2, 2)
                layer.bias.uniform_(-1, 1)
    return model.eval()


@pytest.fixture
def task() -> Task:
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    part = Split(images, torch.zeros(len(images)).long())
    return Task("toy", part, part, part, steps=1)


METHODS = [
    (data_free_quantization, data_free_quantization.Config(), "minmax"),
    (adaround, adaround.Config(bits=4, images=16, iterations=3, batch=4), "nearest"),
]


@pytest.mark.parametrize(("method", "config", "control"), METHODS)
def test_works_on_an_own_network(method: Any, config: Any, control: str, own: nn.Module, task: Task) -> None:
    state = {name: value.clone() for name, value in own.state_dict().items()}
    small = method.compress(own, task, config)
    plain = getattr(method, f"control_{control}")(own, task, config, small)
    for network in (small, plain):
        codes = weight_codes(network)
        assert len(codes) == 6
        assert all(coded.kind == "grid" and coded.bits <= config.bits for _, coded, _ in codes.values())
        assert network(task.train.images).shape == (16, 5)
    assert all(torch.equal(value, state[name]) for name, value in own.state_dict().items()), "the caller's network is left alone"


@pytest.mark.parametrize(("method", "config", "control"), METHODS)
def test_many_bits_change_nothing(method: Any, config: Any, control: str, own: nn.Module, task: Task) -> None:
    own.stem.act = nn.ReLU()  # type: ignore[union-attr]
    config = replace(config, bits=20, **({"reach": 100.0, "absorbed": 100.0} if hasattr(config, "reach") else {}))
    images = task.train.images
    for network in (method.compress(own, task, config), getattr(method, f"control_{control}")(own, task, config, own)):
        assert torch.allclose(network(images), own(images), atol=2e-2)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.twice(self.twice(x)))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc(x) if x.sum() > 0 else x)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Shared(), "twice: runs 2 times"),
        (Branching(), "Branching: torch.fx cannot trace it"),
        (nn.Sequential(nn.ConvTranspose2d(3, 3, 2)), "0.weight: is a weight of ConvTranspose2d"),
        (nn.Sequential(nn.ReLU()), "Sequential: has no convolution or linear layer"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), "1: keeps no running mean"),
    ],
)
@pytest.mark.parametrize(("method", "config", "control"), METHODS)
def test_refuses_by_name(method: Any, config: Any, control: str, network: nn.Module, reason: str, task: Task) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        method.compress(network, task, config)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)), "2: .*0 has no batch norm"),
        (nn.Sequential(nets.conv_bn(3, 3, act=nn.Sigmoid), nn.Conv2d(3, 3, 1)), "1: .*Sigmoid"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), "1: .*BatchNorm2d"),
    ],
)
def test_without_data_batch_norm_must_tell_the_ranges(network: nn.Module, reason: str, task: Task) -> None:
    with pytest.raises(ValueError, match=reason):
        data_free_quantization.compress(network, task, data_free_quantization.Config())


def test_equalization_that_does_not_settle_says_so(
    own: nn.Module, task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data_free_quantization.compress(own, task, data_free_quantization.Config())
    assert not caplog.messages
    monkeypatch.setattr(data_free_quantization, "MOST_SWEEPS", 1)
    data_free_quantization.compress(own, task, data_free_quantization.Config())
    assert "has not settled" in caplog.text


def test_folding_changes_nothing(own: nn.Module) -> None:
    network, statistics = quant.fold_batch_norm(own)
    images = torch.randn(4, 3, 8, 8)
    assert torch.allclose(network(images), own(images), atol=1e-5)
    assert not any(isinstance(layer, quant.NORMS) for layer in network.modules())
    assert set(statistics) == {"stem.conv", "block.first.conv", "block.second.conv", "block.shortcut.conv", "grouped"}
    assert torch.equal(statistics["grouped"][0], own.norm.bias)
    assert torch.equal(statistics["grouped"][1], own.norm.weight.abs())


def test_a_batch_norm_of_a_branched_layer_stays() -> None:
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return cast(Tensor, self.bn(y) + y)

    network, statistics = quant.fold_batch_norm(Branched())
    assert not statistics
    assert isinstance(network.get_submodule("bn"), nn.BatchNorm2d)


def test_neighbours(own: nn.Module) -> None:
    network, _ = quant.fold_batch_norm(own)
    found = {(str(a.target), str(b.target)) for a, b in quant.neighbours(quant.without_relu6(network))}
    assert found == {("block.first.conv", "block.second.conv"), ("grouped", "fc")}, "the stem branches, and a sum is no pair"


def test_in_order_feeds_what_was_changed_so_far(own: nn.Module) -> None:
    network, _ = quant.fold_batch_norm(own)
    images, original = torch.randn(4, 3, 8, 8), quant.fold_batch_norm(own)[0]
    names, activations = [], []
    for place in quant.in_order(network, images):
        names.append(place.name)
        activations.append(place.activation is F.relu)
        assert torch.is_grad_enabled()
        assert torch.equal(place.original, place.inputs) == (len(names) == 1)
        quant.set_weight(place.layer, place.layer.weight.detach() * 0.9)
    assert names == ["stem.conv", "block.first.conv", "block.second.conv", "block.shortcut.conv", "grouped", "fc"]
    assert activations == [False, True, False, False, True, False]
    assert torch.allclose(place.target, original(images), atol=1e-5)
    assert torch.allclose(place.layer(place.inputs), network(images), atol=1e-5)


@pytest.mark.parametrize(("layer", "channels"), [(nn.Conv2d(8, 12, 3, groups=4), 8), (nn.Conv1d(4, 6, 3), 4), (nn.Linear(12, 5), 3)])
def test_inputs_of_a_layer(layer: quant.Layer, channels: int) -> None:
    """Scaling inputs is scaling weights; the response is that to constant channels."""
    factors = torch.rand(channels) + 0.5
    shape = {3: (2, channels, 5), 4: (2, channels, 5, 5)}.get(layer.weight.ndim, (2, channels, 4))
    x, held = torch.randn(shape), factors.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape)
    feed = (lambda t: layer(t.flatten(1))) if isinstance(layer, nn.Linear) else layer
    with torch.no_grad():
        bias = quant.bias_of(layer).reshape(1, -1, *[1] * (feed(x).ndim - 2))
        constant = quant.response(layer, layer.weight, factors).reshape(bias.shape)
        assert torch.allclose(feed(held) - bias, constant.expand_as(feed(held)), atol=1e-5)
        expected = feed(x * held)
        quant.scale_inputs(layer, factors)
        assert torch.allclose(feed(x), expected, atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.5, 3.0), (-3.0, -1.0), (0.0, 0.0)])
def test_min_max_grid(low: float, high: float) -> None:
    grid = quant.min_max_grid(torch.tensor(low), torch.tensor(high), 8)
    assert grid.high - grid.low == 255
    assert grid.low <= 0 <= grid.high
    inside = torch.linspace(min(low, 0), max(high, 0), 1000)
    assert float((grid.nearest(inside) - inside).abs().max()) <= float(grid.scale)
    assert len(grid.nearest(inside).unique()) <= 256


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_least_squares_grid_is_the_best(bits: int) -> None:
    weight = torch.randn(500, generator=torch.Generator().manual_seed(bits))

    def loss(grid: quant.Grid) -> float:
        return float((grid.nearest(weight) - weight).square().sum())

    found = quant.least_squares_grid(weight, bits)
    tried = [quant.Grid(torch.tensor(scale), found.low, found.high) for scale in torch.linspace(0.005, 3, 2000).tolist()]
    assert (found.low, found.high) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert loss(found) <= 1.05 * min(map(loss, tried))
    assert torch.equal(quant.least_squares_grid(torch.zeros(5), bits).nearest(torch.zeros(5)), torch.zeros(5))


def test_layers_that_share_an_input_share_its_grid(own: nn.Module) -> None:
    network, _ = quant.fold_batch_norm(own)
    nodes = [node for node in quant.layer_nodes(network) if node.target in ("block.first.conv", "block.shortcut.conv")]
    grid = quant.Grid(torch.tensor(0.5), 0, 3)
    network = quant.round_inputs(network, dict.fromkeys(nodes, grid))
    assert sum(isinstance(layer, quant.Rounded) for layer in network.modules()) == 1
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("layers", "pairs"),
    [
        ([nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)], 1),
        ([nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(2), nn.Linear(36, 5)], 0),
        ([nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, 5)], 0),
        ([nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5)], 1),
        ([nn.Linear(8, 6), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)], 0),
        ([nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 5, 3)], 0),
        ([nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 1), nn.Conv2d(4, 5, 3)], 1),
    ],
)
def test_pairs_where_channels_stay_channels(layers: list[nn.Module], pairs: int) -> None:
    assert len(quant.neighbours(quant.trace(nn.Sequential(*layers)))) == pairs
