"""Multiply-adds by hand: of everything in torch that multiplies matrices, however it is asked for."""

from __future__ import annotations

import importlib.util
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from methods.kit import products
from methods.kit.measure import executed_work, multiply_adds


class Calls(nn.Module):
    """A function as a network, with the layers that it uses."""

    def __init__(self, call: Callable[[Tensor], Any], *layers: nn.Module) -> None:
        super().__init__()
        self.call, self.layers = call, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Any:
        return self.call(x)


class Tokens(nn.Module):
    """An image (N, 3, 32, 32) in patches of four, a block over 64 tokens of 96 numbers, and ten classes of their mean."""

    def __init__(self, block: nn.Module, call: Callable[[nn.Module, Tensor], Tensor] = lambda block, x: block(x)) -> None:
        super().__init__()
        self.patch, self.block, self.head, self.call = nn.Conv2d(3, 96, 4, 4), block, nn.Linear(96, 10), call

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self.block, self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class Attention(nn.Module):
    """Attention of four heads written with torch's function."""

    def __init__(self, width: int = 96, heads: int = 4) -> None:
        super().__init__()
        self.rows, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        count, places, width = x.shape
        q, k, v = self.rows(x).view(count, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).reshape(count, places, width))


class TransformerBlock(nn.Module):
    """A block of a vision transformer."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.before, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class ShiftedWindows(nn.Module):
    """A block of a Swin transformer: windows of 4x4 of 8x8 places, shifted by two, under a mask that is not saved."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.attention, self.norm = Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        part = torch.arange(64).view(1, 1, 8, 8) // 32 + torch.arange(8) // 6
        same = self.windows(part.permute(0, 2, 3, 1))[..., 0]
        self.register_buffer("mask", torch.where(same[:, None] == same[..., None], 0.0, -100.0)[:, None], persistent=False)

    @staticmethod
    def windows(x: Tensor) -> Tensor:
        """(N, 8, 8, C) as windows (4 N, 16, C)."""
        return x.view(len(x), 2, 4, 2, 4, -1).transpose(2, 3).reshape(4 * len(x), 16, -1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).view(len(x), 8, 8, -1).roll((-2, -2), (1, 2))
        y = self.attention(self.windows(y), self.mask.repeat(len(x), 1, 1, 1))
        y = y.view(len(x), 2, 2, 4, 4, -1).transpose(2, 3).reshape(len(x), 8, 8, -1).roll((2, 2), (1, 2))
        x = x + y.flatten(1, 2)
        return x + self.mlp(x)


PATCHES, HEAD = 64 * 48 * 96, 960
ROWS, SHARES = 64 * 96 * 4 * 96, 2 * 64 * 64 * 96  # of attention: queries, keys, values and what leaves it; its two products
ENDS = PATCHES + HEAD
BLOCKS = {
    "function": (Tokens(Attention()), 3_441_600),
    "layer": (Tokens(nn.MultiheadAttention(96, 4, batch_first=True), lambda a, x: a(x, x, x, need_weights=False)[0]), 3_441_600),
    "weights wanted": (Tokens(nn.MultiheadAttention(96, 4, batch_first=True), lambda a, x: a(x, x, x)[0]), 3_441_600),
    "sequence first": (
        Tokens(nn.MultiheadAttention(96, 4), lambda a, x: a(*[x.transpose(0, 1)] * 3, need_weights=False)[0].transpose(0, 1)),
        3_441_600,
    ),
    "encoder": (Tokens(nn.TransformerEncoderLayer(96, 4, 192, batch_first=True)), 5_800_896),
    "encoders": (
        Tokens(nn.TransformerEncoder(nn.TransformerEncoderLayer(96, 4, 192, batch_first=True), 2, enable_nested_tensor=False)),
        ENDS + 2 * (5_800_896 - ENDS),
    ),
    "padded": (
        Tokens(
            nn.TransformerEncoder(nn.TransformerEncoderLayer(96, 4, 192, batch_first=True), 1),
            lambda e, x: e(x, src_key_padding_mask=torch.arange(64).expand(len(x), -1) > 31),
        ),
        5_800_896,
    ),
    "transformer block": (Tokens(TransformerBlock()), ENDS + ROWS + SHARES + 64 * 8 * 96 * 96),
    "shifted windows": (Tokens(ShiftedWindows()), ENDS + ROWS + 4 * 2 * 16 * 16 * 96 + 64 * 4 * 96 * 96),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_attention_in_networks(name: str) -> None:
    assert ROWS + SHARES + ENDS == 3_441_600
    (network, right), x = BLOCKS[name], torch.randn(2, 3, 32, 32)
    for mode in (True, False):
        network.train(mode)
        assert multiply_adds(network, x[:1]) == right
        assert executed_work(network, x)[0] == right
        assert {part.training for part in network.modules()} == {mode}


Q = torch.randn(1, 4, 16, 8)  # four heads, 16 places, 8 numbers: one product is 4 * 16 * 16 * 8
ROW = torch.randn(8)


def recurrent(layer: nn.Module) -> tuple[nn.Module, Tensor]:
    """The layer over five steps of eight numbers."""
    return Calls(lambda x: layer(x if layer.batch_first else x.transpose(0, 1))[0], layer), torch.randn(1, 5, 8)


def under(backend: SDPBackend) -> Callable[[Tensor], Tensor]:
    def call(q: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, q, q)

    return call


@torch.inference_mode()
def without_history(x: Tensor) -> Tensor:
    return F.linear(F.scaled_dot_product_attention(x * 1, x * 1, x * 1), torch.ones(3, 8))


BILINEAR = nn.Bilinear(8, 8, 3)
KINDS: dict[str, tuple[nn.Module, Tensor, int]] = {
    "causal": (Calls(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True)), Q, 2 * 8192),
    "masked": (Calls(lambda q: F.scaled_dot_product_attention(q, q, q, torch.ones(16, 16, dtype=torch.bool).tril())), Q, 2 * 8192),
    "grouped queries": (Calls(lambda q: F.scaled_dot_product_attention(q, q[:, :2], q[:, :2], enable_gqa=True)), Q, 2 * 8192),
    "other keys and values": (Calls(lambda q: F.scaled_dot_product_attention(q, q[:, :, :3], q[:, :, :3, :5])), Q, 4 * 16 * 3 * (8 + 5)),
    "a fused kernel that the network wants": (Calls(under(SDPBackend.FLASH_ATTENTION)), Q, 2 * 8192),
    "inference mode": (Calls(without_history), Q, 2 * 8192 + 4 * 16 * 8 * 3),
    "by hand with @": (Calls(lambda q: (q @ q.mT).softmax(-1) @ q), Q, 2 * 8192),
    "einsum": (Calls(lambda q: torch.einsum("bhik,bhjk->bhij", q, q)), Q, 8192),
    "bmm": (Calls(lambda q: torch.bmm(q[0], q[0].mT)), Q, 8192),
    "baddbmm": (Calls(lambda q: torch.baddbmm(torch.zeros(4, 16, 16), q[0], q[0].mT)), Q, 8192),
    "addbmm in place": (Calls(lambda q: torch.zeros(16, 16).addbmm_(q[0], q[0].mT)), Q, 8192),
    "a matrix and a row": (Calls(lambda q: q[0, 0] @ ROW), Q, 16 * 8),
    "a row and a matrix": (Calls(lambda q: ROW @ q[0, 0].mT), Q, 16 * 8),
    "two rows": (Calls(lambda q: q[0, 0, 0] @ ROW), Q, 8),
    "tensordot": (Calls(lambda q: torch.tensordot(q, q, ([2, 3], [2, 3]))), Q, 4 * 4 * 16 * 8),
    "dense": (Calls(lambda q: F.linear(q, torch.ones(5, 8), torch.ones(5))), Q, 64 * 8 * 5),
    "bilinear": (Calls(lambda q: BILINEAR(q[0, 0], q[0, 1])), Q, 16 * 3 * (8 * 8 + 8)),
    "recurrent": (*recurrent(nn.RNN(8, 6)), 5 * (6 * 8 + 6 * 6)),
    "gated": (*recurrent(nn.GRU(8, 6, bidirectional=True)), 2 * 5 * 3 * (6 * 8 + 6 * 6)),
    "long short-term": (*recurrent(nn.LSTM(8, 6, 2)), 5 * 4 * 6 * (8 + 6 + 6 + 6)),
    "in both directions": (*recurrent(nn.LSTM(8, 6, bidirectional=True, batch_first=True)), 2 * 5 * 4 * (6 * 8 + 6 * 6)),
    "projected": (*recurrent(nn.LSTM(8, 6, proj_size=3)), 5 * (4 * 6 * (8 + 3) + 3 * 6)),
    "in bfloat16": (*recurrent(nn.LSTM(8, 6).bfloat16()), 5 * 4 * (6 * 8 + 6 * 6)),
    "cell": (Calls(lambda x: nn.GRUCell(8, 6)(x[0])), torch.randn(1, 1, 8), 3 * (6 * 8 + 6 * 6)),
    "convolution 1d": (nn.Conv1d(4, 6, 3, stride=2, groups=2), torch.randn(1, 4, 9), 4 * 6 * 2 * 3),
    "convolution 3d": (nn.Conv3d(2, 3, 3), torch.randn(1, 2, 5, 5, 5), 27 * 3 * 2 * 27),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), torch.randn(1, 4, 5, 5), 25 * 4 * 3 * 9),
    "time first": (
        Calls(lambda x: torch.conv_tbc(x.transpose(0, 1), torch.ones(3, 4, 6), torch.zeros(6))),
        torch.randn(1, 5, 4),
        3 * 6 * 3 * 4,
    ),
    "none": (Calls(lambda q: F.layer_norm(q, (8,)).softmax(-1) * F.avg_pool2d(q, 1)), Q, 0),
    "a table": (Calls(lambda x: F.embedding(x[0, 0, 0].long().abs(), torch.ones(9, 4))), Q, 0),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_product(name: str, caplog: pytest.LogCaptureFixture) -> None:
    network, x, right = KINDS[name]
    assert multiply_adds(network, x) == right
    assert executed_work(network, x)[0] == right
    assert not caplog.records


def test_bilinear_costs_what_it_does_by_hand() -> None:
    weight = torch.randn(3, 8, 8)
    by_hand = Calls(lambda q: torch.einsum("bi,oij,bj->bo", q[0, 0], weight, q[0, 1]))
    assert multiply_adds(by_hand, Q) == 16 * 3 * (8 * 8 + 8)


def settings() -> tuple[bool, ...]:
    cuda = torch.backends.cuda
    fused = (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled())
    return (*fused, torch.backends.mha.get_fastpath_enabled(), cuda.fp16_bf16_reduction_math_sdp_allowed(), torch.is_grad_enabled())


def test_nothing_is_left_behind_by_counting() -> None:
    def fails(x: Tensor) -> Tensor:
        raise KeyError("no")

    before = settings()
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3)).train()
    network[1].eval()
    assert multiply_adds(network, torch.randn(1, 3, 4, 4)) == 0
    assert [part.training for part in network.modules()] == [True, True, False]
    for count in (multiply_adds, executed_work):
        with pytest.raises(KeyError):
            count(Calls(fails), Q)
    assert settings() == before


def test_what_is_not_counted_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    work = Calls(lambda x: torch.cdist(x, x) + torch.cdist(x, x))
    assert multiply_adds(work, Q) == 0
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "the multiply-adds inside of aten._cdist_forward are not counted"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_the_fast_path_is_named_where_a_network_calls_it_itself(caplog: pytest.LogCaptureFixture) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def call(x: Tensor) -> Tensor:
        torch.backends.mha.set_fastpath_enabled(True)
        return layer(x)

    multiply_adds(Calls(call, layer), torch.randn(1, 4, 8))
    assert "aten._transformer_encoder_layer_fwd" in caplog.text


def test_operations_of_others_are_named(caplog: pytest.LogCaptureFixture) -> None:
    @torch.library.custom_op("toys::product", mutates_args=())
    def product(x: Tensor) -> Tensor:
        return x @ x.mT

    multiply_adds(Calls(lambda x: product(x)), Q)
    assert "toys.product" in caplog.text
    assert "methods.kit.measure.executed" in caplog.text


def test_no_operation_of_torch_hides_products_unnamed() -> None:
    """Whatever sounds like a product and does not fall apart into others is counted or named, also in a later torch."""
    sounds = re.compile(r"attention|rnn|lstm|gru|conv|mm|linear|matmul|dot|mv|transformer|cdist|euclid|gemm")
    free = re.compile(
        r"_?conv(ert|_linear)|.*backward|_cu(mmax|mmin)|cummin|cummax|.*gamma|hamming|_nested|_?upsample|_compute_linear|_thnn"
    )
    named = {schema.name.removeprefix("aten::") for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("aten::")}
    silent = []
    for name in sorted(name for name in named if sounds.search(name) and not name.startswith("__")):
        packet = getattr(torch.ops.aten, name, None)
        if packet is None or free.match(name):
            continue
        try:
            whole = torch._C._dispatch_has_kernel_for_dispatch_key(
                getattr(packet, packet.overloads()[0]).name(), "CompositeImplicitAutograd"
            )
        except RuntimeError:
            continue  # of the interpreter, not of the dispatcher
        stem = name.rstrip("_")
        known = stem in products.MATRICES or stem in products.CONVOLUTIONS or stem in products.RECURRENT or products.FUSED.fullmatch(stem)
        if not (whole or known or products.hides("aten", stem) or products.FREE.match(stem)):
            silent.append(name)
    assert silent == []


def test_counting_does_without_torch_s_compiler() -> None:
    program = """
import sys
import torch
from methods.kit.measure import executed_work
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 2, 2), torch.nn.Flatten(2), torch.nn.TransformerEncoderLayer(16, 2, 16, batch_first=True))
assert executed_work(net, torch.randn(1, 3, 8, 8))[0] > 0
assert not {"sympy", "torch._dynamo"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_both_products_of_attention_have_the_bits_of_the_type(kind: torch.dtype) -> None:
    x, bits = torch.randn(2, 3, 32, 32), 8 * kind.itemsize
    network = Calls(lambda x: F.scaled_dot_product_attention(*[x.flatten(2).mT[:, :256]] * 3), nn.Linear(9, 9).to(kind))
    done, work = executed_work(network, x)
    assert done == 2 * 256 * 256 * 3
    assert work == done * bits * bits


def test_queries_of_two_levels_cost_one_bit() -> None:
    def call(x: Tensor) -> Tensor:
        rows = x.flatten(1, 2)
        return F.scaled_dot_product_attention(rows.sign(), rows, rows)

    done, work = executed_work(Calls(call), torch.randn(2, 3, 32, 32))
    assert work == done / 2 * (1 * 32 + 32 * 32)


torchvision = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
# Giga multiply-adds at 224x224 as torchvision prints them with its weights (`meta["_ops"]`): convolutions, dense layers and products
# of matrices, both of attention included. The whole number is fvcore's `FlopCountAnalysis`, its norms and pooling left out; it does not
# see inside of `nn.MultiheadAttention`: twelve layers of 2 * 197 * 197 * 768 are added to it for ViT-B/16.
PRINTED = {
    "vit_b_16": (17.564, 115_605_504 + 16_732_895_232 + 12 * 2 * 197 * 197 * 768),
    "swin_t": (4.491, 14_450_688 + 4_335_974_400 + 140_141_568),
    "resnet50": (4.089, 4_087_136_256 + 2_048_000),
    "mobilenet_v2": (0.301, 299_494_272 + 1_280_000),
}
UNSEEN = {"vit_b_16": 12 * 2 * 197 * 197 * 768}


@pytest.mark.slow
@torchvision
@pytest.mark.parametrize("name", PRINTED)
def test_torchvision_s_networks(name: str) -> None:
    from torchvision import models

    printed, right = PRINTED[name]
    assert multiply_adds(models.get_model(name), torch.zeros(1, 3, 224, 224)) == right
    assert models.get_model_weights(name).DEFAULT.meta["_ops"] == printed == round(right / 1e9, 3)


@pytest.mark.slow
@torchvision
@pytest.mark.skipif(importlib.util.find_spec("fvcore") is None, reason="fvcore is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PRINTED)
def test_as_fvcore_counts(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis
    from torchvision import models

    image = torch.zeros(1, 3, 224, 224)
    model = models.get_model(name).eval()
    parts = FlopCountAnalysis(model, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    theirs = sum(parts[part] for part in ("conv", "linear", "matmul")) + UNSEEN.get(name, 0)
    assert multiply_adds(model, image) == theirs
