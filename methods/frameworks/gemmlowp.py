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
import random
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import chunks, frame, name_the_kept, replaceable, replaced, within
from methods.kit.layout import evaluating
from methods.kit.task import Task, on_copies

LOWEST, HIGHEST = -(2**31), 2**31 - 1  # of int32


@dataclass(frozen=True)
class Config:
    batches: int = 4  # that show the ranges; the library takes ranges as given


def parameters_of(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of a range, which is widened to contain zero (doc/quantization_example.cc, ChooseQuantizationParams)."""
    low, high = min(low, 0.0), max(high, 0.0)  # equivalent: both are symmetric
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
    inner = (left.double() @ right.double()).int() if left.is_cuda else left @ right  # equivalent: CUDA has no product of int32
    return inner - lhs_zero * columns - rhs_zero * rows + lhs_zero * rhs_zero * lhs.shape[-1]


def fixed_point(real: float) -> tuple[int, int]:
    """A positive multiplier as m0 / 2^31 * 2^-shift, m0 / 2^31 in [1/2, 1) (QuantizeMultiplierSmallerThanOne)."""
    mantissa, exponent = math.frexp(real)
    m0 = math.floor(mantissa * 2**31 + 0.5)
    return (m0 // 2, -exponent - 1) if m0 == 2**31 else (m0, -exponent)


def doubling_high_multiply(a: Tensor, b: int) -> Tensor:
    """SaturatingRoundingDoublingHighMul: 2 a b / 2^32 to the nearest, ties up; the one overflow saturates."""
    return ((a.long() * b + 2**30) >> 31).clamp(max=HIGHEST).int()  # equivalent: wider integers hold the same numbers


def rounding_shift(x: Tensor, exponent: int) -> Tensor:
    """RoundingDivideByPOT: x / 2^exponent to the nearest, ties away from zero."""
    x, exponent = x.long(), min(exponent, 62)  # equivalent: min is symmetric
    mask = (1 << exponent) - 1
    return ((x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0).long())).int()  # equivalent: wider integers


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
        conv = layer if isinstance(layer, nn.Conv2d) else nn.Conv2d(1, 1, 1, device="meta")  # equivalent: channels are not read
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
        columns = self.columns(F.pad(image, self.pads, value=zero_in).int().contiguous())  # equivalent: `multiply` makes integers
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
        products = layer.weight[0].numel()  # equivalent: all outputs have as many
        return f"sums of {products} products overflow 32 bits" if products >= HIGHEST // 255**2 else ""

    names, kept = replaceable(model, why_not, (nn.Conv2d, nn.Linear), grouped=True, **given)
    return list(names), kept


def observe(model: nn.Module, names: list[str], images: list[Tensor]) -> dict[str, list[float]]:
    """Smallest and largest input and output of the named layers: [lowest in, highest in, lowest out, highest out]."""
    seen: dict[str, list[float]] = {}

    def note(name: str, layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], result: Tensor) -> None:
        now = [float(v) for t in (*given, *named.values(), result) for v in t.aminmax()]
        seen[name] = [f(a, b) for f, a, b in zip((min, max, min, max), seen.get(name, now), now, strict=True)]  # equivalent: symmetric

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


def claim_offsets_outside_the_loop(lab: Lab) -> float:
    """How many sums differ from 64-bit arithmetic with the zero points inside the loop; all corners, and the largest sums."""
    chance, wrong = torch.Generator().manual_seed(0), 0
    for rows, depth, columns in ((1, 1, 1), (7, 30, 5), (16, 257, 3), (2, 33025, 2)):
        for lhs_zero, rhs_zero in product((0, 255, 93), (0, 255, 181)):
            lhs, rhs = (torch.randint(256, shape, generator=chance) for shape in ((rows, depth), (depth, columns)))
            lhs[0], rhs[:, 0] = 255 - lhs_zero, 255 - rhs_zero
            direct = (lhs - lhs_zero) @ (rhs - rhs_zero)
            wrong += int((multiply(lhs.to(torch.uint8), rhs.to(torch.uint8), lhs_zero, rhs_zero) != direct).sum())
    return wrong


EDGES = [LOWEST, LOWEST + 1, -(2**30), -3, -2, -1, 0, 1, 2, 3, 2**30, HIGHEST]


def integers(count: int) -> list[int]:
    """The edges of int32, and random ones of all sizes."""
    chance = random.Random(0)
    return EDGES + [chance.randint(-(2**bits), 2**bits - 1) for bits in range(1, 32) for _ in range(count)]


def claim_fixed_point_primitives(lab: Lab) -> float:
    """How many results differ from exact fractions, ties and the overflow included."""
    values, half, wrong = integers(3), Fraction(1, 2), 0
    x = torch.tensor(values, dtype=torch.int32)
    for b in values:
        exact = [min(math.floor(Fraction(a * b, 2**31) + half), HIGHEST) for a in values]
        wrong += int((doubling_high_multiply(x, b) != torch.tensor(exact)).sum())
    for shift in range(32):
        exact = [(1 if a > 0 else -1) * math.floor(abs(Fraction(a, 2**shift)) + half) for a in values]
        wrong += int((rounding_shift(x, shift) != torch.tensor(exact)).sum())
    return wrong


def claim_multiplier_precision(lab: Lab) -> float:
    """Largest relative error of the fixed-point multiplier, infinite where it is not within [1/2, 1)."""
    chance, worst = random.Random(0), 0.0
    for real in (0.5, 1 - 2**-40, 1 - 2**-31, 2**-20 * (1 - 2**-45), 3.7, *(2 ** chance.uniform(-30, 2) for _ in range(500))):
        m0, shift = fixed_point(real)
        error = abs(Fraction(m0, 2**31) / Fraction(2) ** shift / Fraction(real) - 1)
        worst = max(worst, float(error) if 2**30 <= m0 <= HIGHEST else math.inf)
    return worst


def claim_requantize_rounds(lab: Lab) -> float:
    """How many results differ from exact fractions over all of int32, multipliers above and below one, saturation included."""
    sums, chance, half, wrong = integers(8), random.Random(1), Fraction(1, 2), 0
    for real in (0.5, 0.75, 1.5, 1 - 2**-40, 2**-36, 2**-70, *(2 ** chance.uniform(-20, 6) for _ in range(40))):
        m0, shift = fixed_point(real)
        left = [min(max(x * 2 ** max(-shift, 0), LOWEST), HIGHEST) for x in sums]
        high = [min(math.floor(Fraction(x * m0, 2**31) + half), HIGHEST) for x in left]
        exact = [(1 if x > 0 else -1) * math.floor(abs(Fraction(x, 2 ** max(shift, 0))) + half) for x in high]
        wrong += int((requantize(torch.tensor(sums, dtype=torch.int32), m0, shift) != torch.tensor(exact)).sum())
    return wrong


def claim_zero_is_exact(lab: Lab) -> float:
    """Largest value that stands for zero, over ranges on both sides of it, plus what other values err by beyond half a step."""
    chance, worst = random.Random(0), abs(parameters_of(-257.0, 253.0)[1] - 129.0)  # a tie, rounded away from zero
    worst += float((quantize(torch.tensor([0.5, 1.5, 2.5]), 1.0, 0) != torch.tensor([1, 2, 3])).sum())
    for low, high in [(0.0, 0.0), (1.0, 2.0), (-3.0, -1.0)] + [(-chance.expovariate(1), chance.expovariate(1)) for _ in range(100)]:
        scale, zero = parameters_of(low, high)
        reals = torch.linspace(min(low, 0), max(high, 0), 1001, dtype=torch.float64)
        back = scale * (quantize(reals, scale, zero).double() - zero)
        at_zero = abs(scale * (int(quantize(torch.zeros(1), scale, zero)) - zero))
        step = (max(high, 0.0) - min(low, 0.0)) / 255 or 1.0
        worst = max(worst, at_zero, float((back - reals).abs().max()) / step - 0.5 - 1e-9)
    return worst


@torch.no_grad()
def claim_bias_in_units_of_the_sums(lab: Lab) -> float:
    """Largest distance, in those units, of a bias from its integer, for weights of all sizes; infinite where a sum could overflow."""
    torch.manual_seed(0)
    worst = 0.0
    for size in (1.0, 1e-3, 1e-7, 0.0):
        layer = nn.Linear(8, 64)
        layer.weight.mul_(size)
        ours = Integer(layer, [-1.0, 2.0, -3.0, 3.0])
        m0, shift = ours.integers[2:].tolist()
        unit = m0 / 2**31 * 2.0**-shift * 6 / 255  # of the output, from the multiplier that brings the sums there
        worst = max(worst, float((ours.bias - layer.bias.double() / unit).abs().max() / (1 + ours.bias.abs().max() * 2**-30)))
        worst = max(worst, math.inf if int(ours.bias.abs().max()) + 8 * 255**2 > HIGHEST else 0.0)
    return worst


@torch.no_grad()
def claim_ranges_are_the_extremes(lab: Lab) -> float:
    """How many layers have other input scales than the extremes of the first batches, in evaluation mode, or leave a trace."""
    images = [(2.0**i * torch.rand(4, 3, 6, 6), torch.zeros(4, dtype=torch.long)) for i in range(6)]
    task, wrong = Task.from_loaders(images, images, images, steps=6, batch=4), 0
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5))
    plain = copy.deepcopy(model).eval()
    layers, x = [model[0], model[4]], torch.cat([x for x, _ in islice(task.batches(), 3)])
    small = compress(model, task, Config(batches=3))
    for place, inputs in ((0, x), (4, plain[:4](x))):
        scale, zero = parameters_of(*(float(v) for v in inputs.aminmax()))
        wrong += abs(float(small[place].scales[0]) / scale - 1) > 1e-5 or int(small[place].integers[0]) != zero
    wrong += sum(not torch.equal(value, plain[1].state_dict()[key]) for key, value in small[1].state_dict().items())
    return wrong + sum(bool(layer._forward_hooks) for layer in layers)


@torch.no_grad()
def claim_layer_equals_real_arithmetic(lab: Lab) -> float:
    """Largest distance, in steps of the output, to the float layer on the values that the bytes stand for, cut off at the range's ends."""
    torch.manual_seed(0)
    layers: list[nn.Conv2d | nn.Linear] = [
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Conv2d(6, 9, (3, 1), padding=(2, 0), dilation=2, groups=3, bias=False),
        nn.Conv2d(6, 5, 1), nn.Conv2d(6, 4, 3, padding="same"), nn.Linear(11, 7),
    ]  # fmt: skip
    worst = 0.0
    for layer in layers:
        x = 3 * torch.rand(2, 6, 9, 11) - 1
        (shipped := copy.deepcopy(layer)).weight.sub_(0.02)
        ranges = [-1.0, 2.0, *(float(v) / 2 for v in shipped(x).aminmax())]
        ours = Integer(shipped, ranges)
        scale, zero = parameters_of(*(float(v) for v in shipped.weight.aminmax()))
        (scale_in, zero_in), (step, middle) = parameters_of(*ranges[:2]), parameters_of(*ranges[2:])
        shipped.weight.copy_(scale * (ours.weight.double() - zero))
        wanted = shipped.double()(scale_in * (quantize(x, scale_in, zero_in).double() - zero_in))
        worst = max(worst, float((ours(x) - wanted.clamp(-step * middle, step * (255 - middle))).abs().max()) / step)
    return worst


def claim_accuracy_as_in_floats(lab: Lab) -> float:
    return lab.after.accuracy - lab.before.accuracy


def claim_bits(lab: Lab) -> float:
    """Stored bits a weight."""
    return lab.after.bits


@torch.no_grad()
def logit_error(lab: Lab, model: nn.Module) -> float:
    """Distance of the logits to those of the float network, relative to their size."""
    images = lab.task.test.images[:256].to(lab.task.device)
    wanted = lab.reference(images)
    return float((model(images) - wanted).norm() / wanted.norm())


def claim_truncating_errs_more(lab: Lab) -> float:
    """Logit error with truncation over logit error with rounding."""
    return logit_error(lab, lab.controlled("truncating")) / logit_error(lab, lab.compressed)


def claim_beats_truncating(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("truncating").accuracy
