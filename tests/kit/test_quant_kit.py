"""methods/kit/quant.py, and the two methods that show it on a user's own network."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from methods.kit import layers, nets, quant
from methods.kit.pack import weight_codes
from methods.kit.task import Task
from methods.kit.testing import images_only
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
    return images_only(images)


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


def tie(part: Any, other: Any) -> Any:
    part.weight = other.weight
    return part


CONV = nn.Conv2d(3, 3, 1)


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # it warns of its end
        return cast(nn.Module, weight_norm(layer))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Shared(), "Shared: has no convolution or linear layer to quantize .twice: runs 2 times"),
        (Branching(), "Branching: torch.fx cannot trace it"),
        (nn.Sequential(nn.ConvTranspose2d(3, 3, 2)), "Sequential: .*0: no plain convolution or linear layer but ConvTranspose2d"),
        (nn.Sequential(nn.ReLU()), "Sequential: has no convolution or linear layer"),
        (nn.Sequential(tie(nn.Conv2d(3, 3, 1, bias=False), CONV), CONV), "0: shares a weight with 1; 1: shares"),
        (
            nn.Sequential(nn.Conv2d(3, 3, 1), old_weight_norm(nn.Conv2d(3, 3, 1))),
            r"1: .*\(weight_norm\).*remove_weight_norm\(model.get_submodule\(.1.\)",
        ),
        (nn.Sequential(spectral_norm(nn.Conv2d(3, 3, 1))), "0: .*spectral_norm.*remove_spectral_norm"),
        (nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 3, 1))), "0: .*WeightNorm.*remove_parametrizations"),
        (nn.Sequential(prune.l1_unstructured(nn.Conv2d(3, 3, 1), "weight", 0.5)), "0: .*masked.*prune.remove"),
    ],
)
@pytest.mark.parametrize(("method", "config", "control"), METHODS)
def test_refuses_by_name(method: Any, config: Any, control: str, network: nn.Module, reason: str, task: Task) -> None:
    with pytest.raises(ValueError, match=reason):
        method.compress(network, task, config)


@pytest.mark.parametrize(
    ("network", "left"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)), {"2": "0 has no batch norm"}),
        (nn.Sequential(nets.conv_bn(3, 3, act=nn.Sigmoid), nn.Conv2d(3, 3, 1)), {"1": "Sigmoid"}),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), {}),
    ],
)
def test_without_data_batch_norm_must_tell_the_ranges(network: nn.Module, left: dict[str, str], task: Task) -> None:
    small: Any = data_free_quantization.compress(network.eval(), task, data_free_quantization.Config())
    assert set(quant.kept(small)) == set(left)
    assert all(word in quant.kept(small)[name] for name, word in left.items())
    with torch.no_grad():
        assert torch.allclose(small(task.train.images), network(task.train.images), atol=0.1)


class Tokens(nn.Module):
    """Patches as tokens: a class token, a table of positions, a layer scale, batch norm over tokens, attention, a weight that is lent."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.patch = nn.Conv2d(9, 9, 1), nn.Conv2d(3, 16, 4, 4)
        self.first, self.positions = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 5, 16))
        self.mix, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(5)
        self.attention, self.scale = nn.MultiheadAttention(16, 2, batch_first=True), nn.Parameter(torch.rand(1, 1, 16))
        self.branch, self.lent = Branching16(), nn.Linear(16, 16)
        self.fc, self.vectors, self.out = Spelled(16, 8), nn.BatchNorm1d(8), Subclass(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = self.norm(self.mix(x)).relu()
        x = x + self.scale * self.attention(x, x, x, need_weights=False)[0]
        x = F.linear(self.branch(x), self.lent.weight, self.lent.bias)
        return cast(Tensor, self.out(self.vectors(self.fc(x.mean(1).reshape(-1, 16))).relu()))


class Branching16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.inner(x) if x.abs().sum() > 0 else x)


class Subclass(nn.Linear):
    """Says nothing of its own."""


class Spelled(nn.Linear):
    """torch's own forward, in other words."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


@pytest.fixture
def tokens() -> nn.Module:
    torch.manual_seed(0)
    model = Tokens()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(32, 3, 8, 8))
    for norm in (model.norm, model.vectors):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return model.eval()


def test_batch_norm_is_folded_only_along_channels(tokens: nn.Module) -> None:
    network, statistics = quant.fold_batch_norm(tokens)
    images = torch.randn(4, 3, 8, 8)
    assert torch.allclose(network(images), tokens(images), atol=1e-5)
    assert set(statistics) == {"fc"}
    assert "dimension 1" in quant.kept(network)["norm"]


@pytest.mark.parametrize(
    ("before", "folded"),
    [
        ([nn.Flatten()], True),
        ([nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(3, 192), nn.GELU()], True),
        ([nn.Flatten(2), nn.Linear(64, 192)], False),
    ],
)
def test_vectors_are_known_by_the_graph(before: list[nn.Module], folded: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*before, nn.Linear(192, 3), nn.BatchNorm1d(3)).eval()
    nn.init.uniform_(model[-1].running_var, 1, 2)
    network, statistics = quant.fold_batch_norm(model)
    images = torch.randn(4, 3, 8, 8)
    assert torch.allclose(network(images), model(images), atol=1e-5)
    assert bool(statistics) == folded


def test_leaves_in_floats_what_it_cannot_quantize(tokens: nn.Module, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small: Any = adaround.compress(tokens, task, METHODS[1][1])
    reasons = {
        "unused": "never runs", "first": "belongs to no layer", "positions": "belongs to no layer", "scale": "belongs to no layer",
        "norm": "dimension 1", "attention": "MultiheadAttention", "attention.out_proj": "inside of attention", "lent": "never runs",
        "branch": "cannot trace", "branch.inner": "inside of branch",
    }  # fmt: skip
    left = quant.kept(small)
    assert {name for name in reasons if reasons[name] not in left.get(name, "")} == set()
    assert set(left) == set(reasons)
    assert all(f"{name}: {reason}" in caplog.text for name, reason in left.items())
    assert {str(node.target) for node in quant.layer_nodes(small)} == {"patch", "mix", "fc", "out"}
    for name in ("first", "positions", "scale", "branch.inner.weight", "attention.in_proj_weight"):
        assert torch.equal(small.get_parameter(name), tokens.get_parameter(name))


@pytest.mark.parametrize(("method", "config", "control"), METHODS)
@pytest.mark.parametrize("pattern", ["block.second.conv", "block*", "block", "*.first.*"])
def test_what_is_excluded_stays_as_it_is(method: Any, config: Any, control: str, pattern: str, own: nn.Module, task: Task) -> None:
    own.stem.act = nn.ReLU()  # type: ignore[union-attr]
    task = replace(task, exclude=(pattern,))
    for small in (method.compress(own, task, config), getattr(method, f"control_{control}")(own, task, config, own)):
        out = [name for name, layer in own.named_modules() if isinstance(layer, nn.Conv2d) and layers.excluded(name, [pattern])]
        assert out
        for name in out:
            assert quant.kept(small)[name] == "excluded"
            assert torch.equal(small.get_submodule(name).weight, own.get_submodule(name).weight)
            assert small.get_submodule(name).bias is None
        assert small(task.train.images).shape == (16, 5)


@pytest.mark.parametrize(("method", "config", "control"), METHODS)
def test_tied_weights_stay_tied(method: Any, config: Any, control: str, task: Task) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nets.conv_bn(3, 3, 3), nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1, bias=False))
    model[3].weight = model[1].weight
    small = method.compress(model.eval(), task, config)
    assert small.get_submodule("1").weight is small.get_submodule("3").weight
    assert torch.equal(small.get_submodule("1").weight, model[1].weight)
    assert "shares a weight with 3" in quant.kept(small)["1"]


def test_in_parts_a_place_is_fed_other_images_now_and_then(own: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randn(64, 3, 8, 8)
    whole = {place.name: place for place in quant.in_order(quant.fold_batch_norm(own)[0], images)}
    monkeypatch.setattr(layers, "MOST_BYTES", 10_000)
    for place in quant.in_order(quant.fold_batch_norm(own)[0], images):
        assert len(place.inputs) == 1
        now, then = place.at(0), place.at(layers.TURN)
        assert place.at(2 * layers.TURN - 1) is then
        assert not torch.equal(now.target, then.target)
        assert 1 < len(now.inputs) < 64
        assert now.original.nbytes + now.inputs.nbytes + now.target.nbytes <= 5_000
        known = whole[place.name].target
        for some in (now, then):
            near = [(known - answer).abs().flatten(1).amax(1).min() for answer in some.target]
            assert max(near) < 1e-4


class Typed(nn.Module):
    """Takes another way when its input is no tensor, as a proxy is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x) if isinstance(x, Tensor) else self.conv(x) + 1)


def test_a_graph_of_another_function_is_refused(task: Task) -> None:
    with pytest.raises(ValueError, match=r"Typed: torch\.fx traces it to another function"):
        adaround.compress(Typed(), task, METHODS[1][1])


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
