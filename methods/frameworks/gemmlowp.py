"""gemmlowp (Jacob, Warden and others, open-source library, 2015).

A real number is scale * (q - zero_point) with q a byte, so that real zero is exact. A matrix product then needs bytes and
32-bit sums only: zero points come in afterwards as sums over rows and columns, and one fixed-point multiplication with
rounding brings the sums back to bytes. `compress` makes every convolution (as im2col) and dense layer compute like that.

Departures: the products are the library's, bit by bit, its speed is not: operands are widened to 32 bits before torch
multiplies them. What lies between the layers (batch norm, ReLU, shortcuts) stays in floats. Ranges are the extremes
seen on a few batches, which the library leaves to its user.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.task import Task

LOWEST, HIGHEST = -(2**31), 2**31 - 1  # of int32


@dataclass(frozen=True)
class Config:
    batches: int = 4  # that show the ranges; the library takes ranges as given


def parameters_of(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of a range, which is widened to contain zero (doc/quantization_example.cc, ChooseQuantizationParams)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return scale, min(max(round(-low / scale), 0), 255)


def quantize(real: Tensor, scale: float, zero: int) -> Tensor:
    """real = scale * (q - zero), doc/quantization.md, equation 3."""
    return (real / scale + zero).round().clamp(0, 255).to(torch.uint8)


def multiply(lhs: Tensor, rhs: Tensor, lhs_zero: int, rhs_zero: int) -> Tensor:
    """sum_i (lhs_i - lhs_zero)(rhs_i - rhs_zero) in int32, zero points outside the inner loop (doc/low-precision.md):

    (L - z_l P)(R - z_r Q) = L R - z_l (column sums of R) - z_r (row sums of L) + z_l z_r depth
    """
    left, right = lhs.int(), rhs.int()
    columns, rows = right.sum(-2, keepdim=True, dtype=torch.int32), left.sum(-1, keepdim=True, dtype=torch.int32)
    return left @ right - lhs_zero * columns - rhs_zero * rows + lhs_zero * rhs_zero * lhs.shape[-1]


def fixed_point(real: float) -> tuple[int, int]:
    """A positive multiplier as m0 / 2^31 * 2^-shift, m0 / 2^31 in [1/2, 1) (QuantizeMultiplierSmallerThanOne)."""
    mantissa, exponent = math.frexp(real)
    m0 = round(mantissa * 2**31)
    return (m0 // 2, -exponent - 1) if m0 == 2**31 else (m0, -exponent)


def doubling_high_multiply(a: Tensor, b: int) -> Tensor:
    """SaturatingRoundingDoublingHighMul: 2 a b / 2^32 to the nearest, ties up; the one overflow saturates."""
    return ((a.long() * b + 2**30) >> 31).clamp(max=HIGHEST).int()


def rounding_shift(x: Tensor, exponent: int) -> Tensor:
    """RoundingDivideByPOT: x / 2^exponent to the nearest, ties away from zero."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0).int()).int()


def requantize(sums: Tensor, m0: int, shift: int) -> Tensor:
    """The multiplier times the sums; a negative shift (multiplier of one or more) goes left first, and saturates."""
    wide = (sums.long() << max(-shift, 0)).clamp(LOWEST, HIGHEST).int()
    return rounding_shift(doubling_high_multiply(wide, m0), max(shift, 0))


def truncate(sums: Tensor, m0: int, shift: int) -> Tensor:
    """The same multiplier without rounding: bits below the result are dropped."""
    return ((sums.long() * m0) >> (31 + shift)).int()


class Integer(nn.Module):
    """A convolution (as im2col) or dense layer whose products, sums, bias and rescaling are integers; floats come in and go out."""

    weight: Tensor
    bias: Tensor
    scales: Tensor
    integers: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear, inputs: tuple[float, float], outputs: tuple[float, float]) -> None:
        super().__init__()
        real, conv = layer.weight.detach(), layer if isinstance(layer, nn.Conv2d) else nn.Conv2d(1, 1, 1, device="meta")
        (scale_in, zero_in), (scale_out, zero_out) = parameters_of(*inputs), parameters_of(*outputs)
        scale, zero = parameters_of(float(real.min()), float(real.max()))
        bias = real.new_zeros(len(real)) if layer.bias is None else layer.bias.detach()
        numbers = [zero_in, zero, zero_out, *fixed_point(scale_in * scale / scale_out)]
        self.register_buffer("weight", quantize(real, scale, zero))
        self.register_buffer("bias", (bias.double() / (scale_in * scale)).round().clamp(LOWEST, HIGHEST).int())
        self.register_buffer("scales", torch.tensor([scale_in, scale_out], dtype=torch.float64, device=real.device))
        self.register_buffer("integers", torch.tensor(numbers, device=real.device))
        self.window, self.groups, self.pads = (conv.kernel_size, conv.dilation, 0, conv.stride), conv.groups, conv._reversed_padding_repeated_twice
        self.requantize = requantize

    def forward(self, x: Tensor) -> Tensor:
        (scale_in, scale_out), (zero_in, zero, zero_out, m0, shift) = self.scales.tolist(), self.integers.tolist()
        image = x if self.weight.ndim == 4 else x.reshape(-1, x.shape[-1], 1, 1)
        image = F.pad(quantize(image, scale_in, zero_in), self.pads, value=zero_in)  # real zero is a byte like any other
        columns = F.unfold(image.float(), *self.window).to(torch.uint8).unflatten(1, (self.groups, -1))
        kernel = self.weight.reshape(self.groups, len(self.weight) // self.groups, -1)
        sums = multiply(kernel, columns, zero, zero_in).flatten(1, 2) + self.bias[:, None]
        result = (self.requantize(sums, m0, shift) + zero_out).clamp(0, 255).to(torch.uint8)
        real = (scale_out * (result.double() - zero_out)).to(x.dtype)
        if self.weight.ndim == 2:
            return real.reshape(*x.shape[:-1], -1)
        size, (kernels, dilations, _, strides) = image.shape[2:], self.window
        return real.unflatten(2, [(n - d * (k - 1) - 1) // s + 1 for n, k, d, s in zip(size, kernels, dilations, strides, strict=True)])


def suited(model: nn.Module) -> tuple[list[str], dict[str, str]]:
    """Layers that can compute in integers, and the reason why each other layer with a weight matrix stays in floats."""
    names: list[str] = []
    kept: dict[str, str] = {}
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2:
            continue
        if type(layer) not in (nn.Conv2d, nn.Linear):
            kept[name] = f"{type(layer).__name__} is no plain Conv2d or Linear"
        elif isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            kept[name] = f"pads with {layer.padding_mode}, not with zeros"
        elif weight[0].numel() > HIGHEST // 255**2:
            kept[name] = f"sums of {weight[0].numel()} products overflow 32 bits"
        else:
            names.append(name)
    return names, kept


def observe(model: nn.Module, names: list[str], images: list[Tensor]) -> dict[str, list[float]]:
    """Smallest and largest input and output of the named layers: [lowest in, highest in, lowest out, highest out]."""
    seen: dict[str, list[float]] = {}

    def watch(name: str) -> Any:
        def note(layer: nn.Module, given: tuple[Tensor], result: Tensor) -> None:
            now = [float(v) for t in (given[0], result) for v in t.aminmax()]
            seen[name] = [pick(old, new) for pick, old, new in zip((min, max, min, max), seen.get(name, now), now, strict=True)]

        return model.get_submodule(name).register_forward_hook(note)

    handles = [watch(name) for name in names]
    with torch.no_grad():
        for x in images:
            model.eval()(x)
    for handle in handles:
        handle.remove()
    return seen


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Watch the ranges on a few batches; then give every layer its integers."""
    names, kept = suited(model)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in kept.items())
    images = [x for x, _ in islice(task.batches(), config.batches)]
    ranges = observe(model, names, images)
    for name, (low_in, high_in, low_out, high_out) in ranges.items():
        model.set_submodule(name, Integer(model.get_submodule(name), (low_in, high_in), (low_out, high_out)))
    if not ranges:
        raise ValueError(f"gemmlowp needs a convolution or a dense layer, there is none ({reasons or 'no layer with a weight matrix'})")
    logging.getLogger(__name__).info("left in floats: %s", reasons)
    return model


def control_truncating(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same bytes, ranges and multipliers; results are cut off instead of rounded."""
    model = copy.deepcopy(like)
    for layer in model.modules():
        if isinstance(layer, Integer):
            layer.requantize = truncate
    return model
