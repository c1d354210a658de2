"""Measured quantities on networks whose answer is known by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from methods.kit.measure import Stats, executed, executed_work, latency, measure, multiply_adds, round_trip
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
        measure(net, toy_task(), pack=lambda model: b"x", unpack=lambda file, model: model)


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


def test_nothing_travels_beside_the_file() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept = torch.randn(10, 192)

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.kept.T

    with pytest.raises(ValueError, match="gives other outputs"):
        round_trip(Hidden(), torch.randn(2, 3, 8, 8), pack, unpack)
