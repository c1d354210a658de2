"""Measured quantities on networks whose answer is known by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from methods.kit.layers import refuse_reparametrized, unmasked
from methods.kit.measure import Stats, _tensors, executed, executed_work, latency, measure, measured, multiply_adds, round_trip, weight_bits
from methods.kit.pack import pack, unpack
from methods.kit.task import Split, Task


def images(count: int = 16, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def toy_task() -> Task:
    part = Split(images(64), torch.arange(64) % 10)
    return Task("toy", part, part, part, steps=1)


def test_a_convolution_by_hand() -> None:
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
    work, bit_operations = executed_work(conv, images())
    assert work == multiply_adds(conv, images(1)) == 4 * 4 * 4 * 3 * 9
    assert bit_operations == work * 32 * 32


def test_a_grouped_convolution_and_a_linear_layer_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.Flatten(), nn.Linear(6 * 64, 10))
    assert executed_work(net, images())[0] == 6 * 64 * 9 + 6 * 64 * 10


class Quantize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 0.875).mul(8).round().div(8)  # 16 levels


def test_bit_operations_follow_the_levels_that_are_really_there() -> None:
    conv = nn.Conv2d(3, 32, 3, bias=False)
    conv.weight.data = torch.randint(-4, 4, conv.weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1
    conv.register_buffer("weight_scale", torch.tensor([0.1]))
    conv.weight.data = (conv.weight / 0.1).round() * torch.tensor([0.1])
    net = nn.Sequential(Quantize(), conv)
    work, bit_operations = executed_work(net, images())
    assert bit_operations == work * 3 * 4


class Lazy(nn.Module):
    """Skips its second convolution for half of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y) if x[0, 0, 0, 0] > 0 else y


def test_an_input_dependent_network_is_averaged_over_images() -> None:
    x = images()
    x[:, 0, 0, 0] = torch.tensor([1.0, -1.0]).repeat(8)
    assert executed_work(Lazy(), x)[0] == 9 * 64 + 0.5 * 81 * 64


class Integer(nn.Module):
    """A kernel that torch cannot see, which registers its work."""

    def forward(self, x: Tensor) -> Tensor:
        executed(1000, 1, 8)
        return x


def test_an_unseen_kernel_registers_its_work() -> None:
    assert executed_work(Integer(), images()) == (1000, 8000)
    executed(1000, 1, 8)  # outside a measurement: no effect, no error


def test_an_integer_product_is_counted() -> None:
    class Int(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q = (x.flatten(1) * 8).round().to(torch.int32)
            return (q @ torch.ones(192, 10, dtype=torch.int32)).float()

    assert executed_work(Int(), images())[0] == 1920


def test_parameters_nonzeros_and_integer_weights() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    net[1].weight.data[:, :96] = 0
    stats = measure(net, toy_task())
    assert (stats.parameters, stats.nonzeros) == (1930, 970)

    class Stored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randint(0, 255, (10, 192), generator=torch.Generator().manual_seed(0)).to(torch.uint8))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.weight.float().T

    stats = measure(Stored(), toy_task())
    assert stats.parameters == 1920
    assert stats.bits == 8
    assert stats.file_bytes < 1920 + 120


def test_a_method_s_own_file_must_read_back_to_the_same_network() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    with pytest.raises(ValueError, match="read back"):
        measured(net, toy_task(), pack=lambda model: b"x", unpack=lambda file, model: model)


def test_latency_is_a_ratio() -> None:
    small, large = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 256, 3, padding=1)
    assert 0 < latency(small, large, images(size=32)) < 1


def test_stats_are_plain_numbers() -> None:
    stats = measure(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), toy_task(), nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
    assert isinstance(stats, Stats)
    assert all(isinstance(value, int | float) for value in vars(stats).values())


def test_bits_of_weights_that_the_network_makes_as_it_runs() -> None:
    """One float and one sign-binarised product of the same shape: neither takes the other's bits, in either order."""

    class Made(nn.Module):
        def __init__(self, first: bool) -> None:
            super().__init__()
            self.a, self.b, self.first = nn.Parameter(torch.randn(24, 24)), nn.Parameter(torch.randn(24, 24)), first

        def forward(self, x: Tensor) -> Tensor:
            for latent, binary in ((self.a, self.first), (self.b, not self.first)):
                x = x.flatten(1)[:, :24] @ (latent.sign() if binary else latent * 1.5)
            return x

    for first in (True, False):
        done, bits = executed_work(Made(first), torch.randn(16, 3, 8, 8))
        assert bits / done == (32 * 32 + 32) / 2


def test_weight_times_input_is_the_same_work_as_input_times_weight() -> None:
    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(20, 192))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight @ x.flatten(1).T

    done, bits = executed_work(Left(), torch.randn(16, 3, 8, 8))
    assert bits == 1024 * done


@dataclass
class Holder:
    kept: Tensor


BESIDE: dict[str, Callable[[Tensor], Any]] = {
    "itself": lambda kept: kept,
    "list": lambda kept: [1, kept],
    "nested": lambda kept: {"a": (kept, [2.0])},
    "dataclass": Holder,
    "array": lambda kept: kept.numpy(),
}


class Hidden(nn.Module):
    """Weights that are in no state."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.part = nn.Identity()
        self.part.kept = wrap(torch.randn(10, 192))

    def forward(self, x: Tensor) -> Tensor:
        (held,) = _tensors(self.part.kept)
        return x.flatten(1) @ torch.as_tensor(held).T


@pytest.mark.parametrize("wrap", BESIDE.values(), ids=BESIDE)
def test_nothing_travels_beside_the_file(wrap: Callable[[Tensor], Any]) -> None:
    with pytest.raises(ValueError, match=r"gives other outputs than the network that was written; .* make buffers of part\.kept"):
        round_trip(Hidden(wrap), torch.randn(2, 3, 8, 8), pack, unpack)


class Scaled(nn.Module):
    """A buffer that is not saved, as the constructor makes it; and one that is a weight all the same."""

    def __init__(self, name: str = "scale", value: float = 2.0) -> None:
        super().__init__()
        self.fc, self.name = nn.Linear(192, 10), name
        self.register_buffer(name, torch.full((10,), value), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * getattr(self, self.name)


def test_what_the_constructor_makes_need_not_be_in_the_file() -> None:
    assert measure(Scaled(), toy_task()).parameters == 1930
    with pytest.raises(ValueError, match="gives other outputs"):
        measure(Scaled("weight"), toy_task())


@dataclass
class Answer:
    logits: Tensor
    other: tuple[Tensor, None]


@pytest.mark.parametrize(
    "wrap", [lambda y: {"logits": y}, lambda y: (y, None), lambda y: Answer(y, (y, None))], ids=["dict", "tuple", "data"]
)
def test_a_file_is_compared_by_every_tensor_of_the_answer(wrap: Callable[[Tensor], Any]) -> None:
    class Wrapped(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            return wrap(super().forward(x))

    network = Wrapped(nn.Flatten(), nn.Linear(192, 10))
    assert round_trip(network, images(), pack, unpack)
    with pytest.raises(ValueError, match="gives other outputs"):
        round_trip(network, images(), pack, lambda file, model: model)


TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def small(kind: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*parts).to(kind)


@pytest.mark.parametrize("kind", TYPES)
def test_every_floating_type_is_followed(kind: torch.dtype) -> None:
    network, bits = small(kind).train(), 8 * kind.itemsize
    stats = measure(network, toy_task(), small())
    assert stats.parameters == 8 * 27 + 16 + 5130
    assert stats.bits == bits
    assert stats.bit_operations == stats.multiply_adds * bits * bits
    assert stats.file_bytes == pytest.approx((8 * 27 + 32 + 5130) * bits / 8, abs=500)
    assert stats.latency > 0
    assert all(part.training for part in network.modules())


@pytest.mark.parametrize("kind", TYPES)
def test_a_quantized_network_of_every_type(kind: torch.dtype) -> None:
    """Levels, a grid with a scale of the same type, and zeros."""
    network = small(kind)
    layer, scale = network[4], torch.tensor([0.1], dtype=kind)
    layer.register_buffer("weight_scale", scale)
    layer.weight.data = torch.randint(-4, 4, layer.weight.shape).to(kind) * scale
    assert weight_bits(nn.Sequential(nn.Flatten(), layer)) == pytest.approx(3 + 8 * kind.itemsize / 5120)
    assert measure(network, toy_task()).file_bytes < 0.5 * 5120 + 300 * kind.itemsize + 300


def test_half_precision_is_not_taken_for_few_levels() -> None:
    """A million activations cannot all differ in sixteen bits."""
    network = nn.Conv2d(3, 4, 1, bias=False).bfloat16()
    network.weight.data = torch.randn(4, 3, 1, 1).bfloat16()
    done, bits = executed_work(network, torch.randn(4, 3, 256, 256))
    assert bits == done * 16 * 16


def masked(layers: tuple[int, ...] = (0, 4)) -> nn.Sequential:
    network = small()
    for layer in layers:
        prune.l1_unstructured(network[layer], "weight", 0.5)
    network(images())  # the product has a history now, which refuses to be copied
    return network


def test_a_mask_is_no_weight() -> None:
    network = masked()
    plain = unmasked(network)
    assert [key for key in plain.state_dict() if key.endswith(("_mask", "_orig"))] == []
    assert any(key.endswith("_mask") for key in network.state_dict()), "the argument stays as it is"
    stats, right = measure(network, toy_task()), measure(plain, toy_task())
    assert (stats.parameters, stats.nonzeros) == (8 * 27 + 16 + 5130, 8 * 27 // 2 + 8 + 2560 + 10)
    assert replace(stats, latency=0) == replace(right, latency=0)
    assert weight_bits(network) == weight_bits(plain)
    assert executed_work(network, images())[0] == executed_work(plain, images())[0]
    assert unmasked(small()) is not None
    one = small()
    assert unmasked(one) is one


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


REPARAMETRIZED: dict[str, tuple[Callable[[nn.Module], Any], str, str]] = {
    "mask": (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "masked", "prune.remove"),
    "mask of a bias": (lambda layer: prune.random_unstructured(layer, "bias", 0.5), "masked", "prune.remove"),
    "weight norm": (parametrizations.weight_norm, "parametrized (WeightNorm)", "parametrize.remove_parametrizations"),
    "spectral norm": (parametrizations.spectral_norm, "parametrized (SpectralNorm)", "parametrize.remove_parametrizations"),
    "own": (
        lambda layer: parametrize.register_parametrization(layer, "weight", Twice()),
        "parametrized (Twice)",
        "remove_parametrizations",
    ),
    "old weight norm": (nn.utils.weight_norm, "normalised (weight_norm)", "remove_weight_norm"),
    "old spectral norm": (nn.utils.spectral_norm, "normalised (spectral_norm)", "remove_spectral_norm"),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("kind", REPARAMETRIZED)
def test_weights_that_are_computed_from_others_are_refused_with_the_cure(kind: str) -> None:
    change, how, cure = REPARAMETRIZED[kind]
    model = small()
    change(model[4])
    model(images())
    with pytest.raises(ValueError, match=r"^4: its \w+ is ") as problem:
        refuse_reparametrized(model)
    assert how in str(problem.value)
    assert cure in str(problem.value)
    if not kind.startswith("mask"):
        with pytest.raises(ValueError, match="no plain weight"):
            measure(model, toy_task())
    exec(str(problem.value).partition("first: ")[2], {"torch": torch, "model": model})
    refuse_reparametrized(model)
    measure(model, toy_task())


def test_tied_weights_are_counted_once() -> None:
    def network(tie: Callable[[nn.Module, nn.Module], None]) -> nn.Sequential:
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 192, bias=False), nn.ReLU(), nn.Linear(192, 192, bias=False))
        tie(model[1], model[3])
        return model

    def one(a: nn.Module, b: nn.Module) -> None:
        b.weight = a.weight

    def turned(a: nn.Module, b: nn.Module) -> None:
        b.weight = nn.Parameter(a.weight.detach().T)

    for tie in (one, turned):
        stats = measure(network(tie), toy_task())
        assert (stats.parameters, stats.nonzeros, stats.bits) == (192 * 192, 192 * 192, 32)
        assert stats.multiply_adds == 2 * 192 * 192
    assert measure(network(one), toy_task()).file_bytes < 4 * 192 * 192 + 200


def test_what_is_more_than_its_reference_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.kit.measure.latency", lambda *_: 2.0)
    large = nn.Sequential(nn.Flatten(), nn.Linear(192, 384), nn.ReLU(), nn.Linear(384, 10))
    lesser = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    assert measured(large, toy_task(), lesser).latency == 2.0
    assert not caplog.records
    measure(large, toy_task(), lesser)
    assert caplog.messages == [
        "more than what it was made from: "
        "40.40 times the multiply-adds, 40.39 times the parameters, 40.41 times the bytes, 2.00 times the time"
    ]
    assert caplog.records[0].levelno == logging.WARNING
    caplog.clear()
    monkeypatch.setattr("methods.kit.measure.latency", lambda *_: 1.1)
    measure(lesser, toy_task(), large)
    measure(lesser, toy_task(), lesser)
    measure(large, toy_task())
    assert not caplog.records
