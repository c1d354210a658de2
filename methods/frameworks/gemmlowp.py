"""gemmlowp (Jacob, Warden and others, open-source library, 2015).

A real number is scale * (q - zero_point) with q a byte, so that real zero is exact. A matrix product then needs bytes and
32-bit sums only: zero points come in afterwards as sums over rows and columns, and one fixed-point multiplication with
rounding brings the sums back to bytes. `compress` makes every convolution (as im2col) and dense layer compute like that.

Departures: the products are the library's, bit by bit, its speed is not: operands are widened to 32 bits before torch
multiplies them. What lies between the layers (batch norm, ReLU, shortcuts) stays in floats. Ranges are the extremes
seen on a few batches, which the library leaves to its user. Scales and multipliers are float64 before they are rounded,
where the library has float32. Multipliers of one or more take OutputStageScaleInt32ByFixedPointAndExponent's left shift. The
weight range of a layer is widened until its bias fits into 32 bits beside the sums.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.layers import chunks, frame, name_the_kept, replaceable, replaced, within
from methods.kit.layout import evaluating
from methods.kit.task import Task, on_copies

LOWEST, HIGHEST = -(2**31), 2**31 - 1  # of int32


@dataclass(frozen=True)
class Config:
    batches: int = 4  # that show the ranges; the library takes ranges as given


def parameters_of(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of a range, which is widened to contain zero (doc/quantization_example.cc, ChooseQuantizationParams)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return scale, math.floor(-low / scale + 0.5)


def quantize(real: Tensor, scale: float, zero: int) -> Tensor:
    """real = scale * (q - zero), doc/quantization.md, equation 3."""
    return (real / scale + zero).clamp(0, 255).add(0.5).floor().to(torch.uint8)  # to nearest, ties up, as std::round above zero


def multiply(lhs: Tensor, rhs: Tensor, lhs_zero: int, rhs_zero: int) -> Tensor:
    """sum_i (lhs_i - lhs_zero)(rhs_i - rhs_zero) in int32, zero points outside the inner loop (doc/low-precision.md):

    (L - z_l P)(R - z_r Q) = L R - z_l (column sums of R) - z_r (row sums of L) + z_l z_r depth
    """
    left, right = lhs.int(), rhs.int()
    columns, rows = right.sum(-2, keepdim=True, dtype=torch.int32), left.sum(-1, keepdim=True, dtype=torch.int32)
    inner = (left.double() @ right.double()).int() if left.is_cuda else left @ right
    return inner - lhs_zero * columns - rhs_zero * rows + lhs_zero * rhs_zero * lhs.shape[-1]


def fixed_point(real: float) -> tuple[int, int]:
    """A positive multiplier as m0 / 2^31 * 2^-shift, m0 / 2^31 in [1/2, 1) (QuantizeMultiplierSmallerThanOne)."""
    mantissa, exponent = math.frexp(real)
    m0 = math.floor(mantissa * 2**31 + 0.5)
    return (m0 // 2, -exponent - 1) if m0 == 2**31 else (m0, -exponent)


def doubling_high_multiply(a: Tensor, b: int) -> Tensor:
    """SaturatingRoundingDoublingHighMul: 2 a b / 2^32 to the nearest, ties up; the one overflow saturates."""
    return ((a.long() * b + 2**30) >> 31).clamp(max=HIGHEST).int()


def rounding_shift(x: Tensor, exponent: int) -> Tensor:
    """RoundingDivideByPOT: x / 2^exponent to the nearest, ties away from zero."""
    x, exponent = x.long(), min(exponent, 62)
    mask = (1 << exponent) - 1
    return ((x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0).long())).int()


def requantize(sums: Tensor, m0: int, shift: int) -> Tensor:
    """The multiplier times the sums; a negative shift (multiplier of one or more) goes left first, and saturates."""
    sums = (sums.long() << max(-shift, 0)).clamp(LOWEST, HIGHEST)
    return rounding_shift(doubling_high_multiply(sums, m0), max(shift, 0))


def truncate(sums: Tensor, m0: int, shift: int) -> Tensor:
    """The same multiplier without rounding: bits below the result are dropped, towards minus infinity."""
    return ((sums.long() * m0) >> min(31 + shift, 63)).int()


class Integer(nn.Module):
    """A convolution (as im2col) or dense layer whose products, sums, bias and rescaling are integers; floats come in and go out."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, ranges: list[float]) -> None:
        super().__init__()
        conv = layer if isinstance(layer, nn.Conv2d) else nn.Conv2d(1, 1, 1, device="meta")
        real = layer.weight.detach()
        (scale_in, zero_in), (scale_out, zero_out) = parameters_of(*ranges[:2]), parameters_of(*ranges[2:])
        bias = (real.new_zeros(len(real)) if layer.bias is None else layer.bias.detach()).double()
        low, high = float(real.min()), float(real.max())
        high = max(high, low + 255 * float(bias.abs().max()) / scale_in / (HIGHEST - 255**2 * real[0].numel()))
        scale, zero = parameters_of(low, high)
        numbers = [zero_in, zero_out, *fixed_point(scale_in * scale / scale_out)]
        self.register_buffer("weight", quantize(real, scale, zero))
        self.register_buffer("weight_zero", torch.tensor(zero, device=real.device))
        self.register_buffer("bias", (bias / (scale_in * scale)).round().int())
        self.register_buffer("scales", torch.tensor([scale_in, scale_out], dtype=torch.float64, device=real.device))
        self.register_buffer("integers", torch.tensor(numbers, device=real.device))
        self.kernel, self.stride, self.dilation, self.groups = conv.kernel_size, conv.stride, conv.dilation, conv.groups
        self.pads = frame(conv)
        self.requantize = requantize

    def columns(self, image: Tensor) -> Tensor:
        """im2col as a view: (images, channels, kernel rows, kernel columns, rows, columns)."""
        size = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(image.shape[2:], self.dilation, self.kernel, self.stride, strict=True)]
        steps = image.stride()
        within, between = ([m * step for m, step in zip(by, steps[2:], strict=True)] for by in (self.dilation, self.stride))
        return image.as_strided((*image.shape[:2], *self.kernel, *size), (*steps[:2], *within, *between))

    def forward(self, x: Tensor) -> Tensor:
        conv = self.weight.ndim == 4
        rows = x if conv else x.reshape(-1, x.shape[-1], 1, 1)
        real = torch.cat([self.block(part) for part in rows.split(16)])  # few enough for the cache, as the library packs its blocks
        return real if conv else real.reshape(*x.shape[:-1], -1)

    def block(self, x: Tensor) -> Tensor:
        """Quantize, multiply, add the bias, requantize, add the zero point, saturate; then back to floats."""
        (scale_in, scale_out), (zero_in, zero_out, m0, shift) = self.scales.tolist(), self.integers.tolist()
        zero, image = int(self.weight_zero), quantize(x, scale_in, zero_in)
        columns = self.columns(F.pad(image, self.pads, value=zero_in).int().contiguous())
        lhs = self.weight.reshape(self.groups, len(self.weight) // self.groups, -1)
        rhs = columns.reshape(len(image), self.groups, lhs.shape[-1], -1)
        sums = multiply(lhs, rhs, zero, zero_in).flatten(1, 2) + self.bias[:, None]
        result = (self.requantize(sums, m0, shift) + zero_out).clamp(0, 255).to(torch.uint8)
        return ((result.to(x.dtype) - zero_out) * scale_out).unflatten(2, columns.shape[4:])


def suited(model: nn.Module, **given: Any) -> tuple[list[str], dict[str, str]]:
    """Layers that can compute in integers, and the reason why each other layer with a weight matrix stays in floats."""

    def why_not(layer: nn.Conv2d | nn.Linear, first: bool) -> str:
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            return f"pads with {layer.padding_mode}, not with zeros"
        products = layer.weight[0].numel()
        return f"sums of {products} products overflow 32 bits" if products >= HIGHEST // 255**2 else ""

    names, kept = replaceable(model, why_not, (nn.Conv2d, nn.Linear), grouped=True, **given)
    return list(names), kept


def observe(model: nn.Module, names: list[str], images: list[Tensor]) -> dict[str, list[float]]:
    """Smallest and largest input and output of the named layers: [lowest in, highest in, lowest out, highest out]."""
    seen: dict[str, list[float]] = {}

    def note(name: str, layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], result: Tensor) -> None:
        now = [float(v) for t in (*given, *named.values(), result) for v in t.aminmax()]
        seen[name] = [f(a, b) for f, a, b in zip((min, max, min, max), seen.get(name, now), now, strict=True)]

    handles = [model.get_submodule(name).register_forward_hook(partial(note, name), with_kwargs=True) for name in names]
    with torch.no_grad():
        for x in (part for batch in images for part in chunks(model, batch)):
            model(x)
    for handle in handles:
        handle.remove()
    return seen


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Watch the ranges on a few batches; then give every layer its integers."""
    names, kept = suited(model, **within(task))
    name_the_kept("gemmlowp needs a convolution or a dense layer", names, kept)
    with evaluating(model):
        seen = observe(model, names, [x for x, _ in islice(task.batches(), config.batches)])
    return replaced(model, {name: Integer(model.get_submodule(name), ranges) for name, ranges in seen.items()}).eval()


@on_copies
def control_truncating(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same bytes, ranges and multipliers; results are rounded down instead of to the nearest."""
    model = copy.deepcopy(like)
    for layer in model.modules():
        if isinstance(layer, Integer):
            layer.requantize = truncate
    return model
