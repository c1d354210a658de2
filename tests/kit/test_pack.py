"""A packed network comes back number by number, and the bits per weight are what anyone would count by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from methods.kit import pack
from methods.kit.measure import weight_bits


def linear(weight: torch.Tensor, scale: torch.Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    if scale is not None:
        layer.register_buffer("weight_scale", scale)
    return layer


def back(layer: nn.Module) -> nn.Module:
    file = pack.pack(layer)
    blank = linear(torch.zeros_like(layer.weight), torch.zeros_like(layer.weight_scale) if hasattr(layer, "weight_scale") else None)
    return pack.unpack(file, blank)


@given(st.integers(0, 12), st.lists(st.integers(0, 4095), max_size=50))
def test_bit_packing_is_the_inverse_of_unpacking(bits: int, numbers: list[int]) -> None:
    import numpy as np

    codes = np.array([n % (1 << bits) for n in numbers], np.int64)
    body = pack.to_bits(codes, bits)
    assert len(body) == -(-len(codes) * bits // 8)
    assert pack.from_bits(body, len(codes), bits).tolist() == codes.tolist()


@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0, 0.95), st.booleans())
def test_quantized_sparse_weights_come_back_exactly(seed: int, bits: int, zeros: float, channelwise: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    scale = torch.rand(8 if channelwise else 1, generator=g) + 0.01
    steps = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (8, 24), generator=g) * (torch.rand(8, 24, generator=g) >= zeros)
    layer = linear(steps.float() * scale.view(-1, 1), scale)
    assert torch.equal(back(layer).weight, layer.weight)


@pytest.mark.parametrize(
    ("weight", "scale", "bits"),
    [
        (torch.linspace(-1, 1, 4096).view(64, 64), None, 32.0),  # plain floats
        (torch.tensor([-0.3, 0.7]).repeat(2048).view(64, 64), None, 1 + 80 / 4096),  # codebook of two: 1 bit, 10 bytes
        (torch.arange(16).repeat(256).view(64, 64) * 0.25, torch.tensor([0.25]), 4 + 32 / 4096),  # one scale: 4 bits, 4 bytes
        (torch.arange(16.0).repeat(4) * torch.arange(1.0, 65).view(64, 1), torch.arange(1.0, 65), 4 + 32 * 64 / 4096),
    ],
)
def test_bits_per_weight_count_scales_and_codebooks(weight: torch.Tensor, scale: torch.Tensor | None, bits: float) -> None:
    assert weight_bits(linear(weight, scale)) == pytest.approx(bits)


def test_a_scale_that_does_not_explain_the_weights_is_not_believed() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    assert weight_bits(linear(weight, torch.tensor([0.1]))) == 32


def test_zeros_are_left_out_of_the_file() -> None:
    weight = torch.zeros(64, 64)
    weight[0] = torch.linspace(1, 2, 64)
    layer = linear(weight)
    assert len(pack.pack(layer)) < 64 * 64 / 8 + 64 * 4 + 100
    assert torch.equal(back(layer).weight, weight)


def test_a_foreign_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not a packed network"):
        pack.unpack(b"PK\x03\x04", nn.Linear(2, 2))


def test_a_shared_tensor_is_stored_once_and_read_back_twice() -> None:
    def network(tied: bool) -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
        if tied:
            model[1].weight = model[0].weight
        return model

    model = network(True)
    file = pack.pack(model)
    assert len(file) < 0.6 * len(pack.pack(network(False)))
    assert len(pack.weight_codes(model)) == 1
    again = pack.unpack(file, network(False))
    assert all(torch.equal(layer.weight, model[0].weight) for layer in again)


def test_bfloat16_comes_back() -> None:
    model = nn.Linear(8, 4).bfloat16()
    assert torch.equal(pack.unpack(pack.pack(model), nn.Linear(8, 4).bfloat16()).weight, model.weight)
