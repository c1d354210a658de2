"""The claims of gemmlowp."""

from __future__ import annotations

import copy
import math
import random
from fractions import Fraction
from itertools import islice, product

import torch
from torch import nn

from methods.frameworks import gemmlowp as method
from methods.kit.lab import Lab
from methods.kit.task import Task


def claim_offsets_outside_the_loop(lab: Lab) -> float:
    """How many sums differ from 64-bit arithmetic with the zero points inside the loop; all corners, and the largest sums."""
    chance, wrong = torch.Generator().manual_seed(0), 0
    for rows, depth, columns in ((1, 1, 1), (7, 30, 5), (16, 257, 3), (2, 33025, 2)):
        for lhs_zero, rhs_zero in product((0, 255, 93), (0, 255, 181)):
            lhs, rhs = (torch.randint(256, shape, generator=chance) for shape in ((rows, depth), (depth, columns)))
            lhs[0], rhs[:, 0] = 255 - lhs_zero, 255 - rhs_zero
            direct = (lhs - lhs_zero) @ (rhs - rhs_zero)
            wrong += int((method.multiply(lhs.to(torch.uint8), rhs.to(torch.uint8), lhs_zero, rhs_zero) != direct).sum())
    return wrong


EDGES = [method.LOWEST, method.LOWEST + 1, -(2**30), -3, -2, -1, 0, 1, 2, 3, 2**30, method.HIGHEST]


def integers(count: int) -> list[int]:
    """The edges of int32, and random ones of all sizes."""
    chance = random.Random(0)
    return EDGES + [chance.randint(-(2**bits), 2**bits - 1) for bits in range(1, 32) for _ in range(count)]


def claim_fixed_point_primitives(lab: Lab) -> float:
    """How many results differ from exact fractions, ties and the overflow included."""
    values, half, wrong = integers(3), Fraction(1, 2), 0
    x = torch.tensor(values, dtype=torch.int32)
    for b in values:
        exact = [min(math.floor(Fraction(a * b, 2**31) + half), method.HIGHEST) for a in values]
        wrong += int((method.doubling_high_multiply(x, b) != torch.tensor(exact)).sum())
    for shift in range(32):
        exact = [(1 if a > 0 else -1) * math.floor(abs(Fraction(a, 2**shift)) + half) for a in values]
        wrong += int((method.rounding_shift(x, shift) != torch.tensor(exact)).sum())
    return wrong


def claim_multiplier_precision(lab: Lab) -> list[float]:
    """Largest relative error of the fixed-point multiplier, infinite where it is not within [1/2, 1)."""
    chance, found = random.Random(0), list[float]()
    for real in (0.5, 1 - 2**-40, 1 - 2**-31, 2**-20 * (1 - 2**-45), 3.7, *(2 ** chance.uniform(-30, 2) for _ in range(500))):
        m0, shift = method.fixed_point(real)
        error = abs(Fraction(m0, 2**31) / Fraction(2) ** shift / Fraction(real) - 1)
        found.append(float(error) if 2**30 <= m0 <= method.HIGHEST else math.inf)
    return found


def claim_requantize_rounds(lab: Lab) -> float:
    """How many results differ from exact fractions over all of int32, multipliers above and below one, saturation included."""
    sums, chance, half, wrong = integers(8), random.Random(1), Fraction(1, 2), 0
    for real in (0.5, 0.75, 1.5, 1 - 2**-40, 2**-36, 2**-70, *(2 ** chance.uniform(-20, 6) for _ in range(40))):
        m0, shift = method.fixed_point(real)
        left = [min(max(x * 2 ** max(-shift, 0), method.LOWEST), method.HIGHEST) for x in sums]
        high = [min(math.floor(Fraction(x * m0, 2**31) + half), method.HIGHEST) for x in left]
        exact = [(1 if x > 0 else -1) * math.floor(abs(Fraction(x, 2 ** max(shift, 0))) + half) for x in high]
        wrong += int((method.requantize(torch.tensor(sums, dtype=torch.int32), m0, shift) != torch.tensor(exact)).sum())
    return wrong


def claim_zero_is_exact(lab: Lab) -> list[float]:
    """Largest value that stands for zero, over ranges on both sides of it, or by which others err beyond half a step; ties gone wrong."""
    chance, found = random.Random(0), [abs(method.parameters_of(-257.0, 253.0)[1] - 129.0)]  # a tie, rounded away from zero
    found.append(float((method.quantize(torch.tensor([0.5, 1.5, 2.5]), 1.0, 0) != torch.tensor([1, 2, 3])).sum()))
    for low, high in [(0.0, 0.0), (1.0, 2.0), (-3.0, -1.0)] + [(-chance.expovariate(1), chance.expovariate(1)) for _ in range(100)]:
        scale, zero = method.parameters_of(low, high)
        reals = torch.linspace(min(low, 0), max(high, 0), 1001, dtype=torch.float64)
        back = scale * (method.quantize(reals, scale, zero).double() - zero)
        found.append(abs(scale * (int(method.quantize(torch.zeros(1), scale, zero)) - zero)))
        step = (max(high, 0.0) - min(low, 0.0)) / 255 or 1.0
        found.append(float((back - reals).abs().max()) / step - 0.5 - 1e-9)
    return found


@torch.no_grad()
def claim_bias_in_units_of_the_sums(lab: Lab) -> list[float]:
    """Largest distance, in those units, of a bias from its integer, for weights of all sizes; infinite where a sum could overflow."""
    torch.manual_seed(0)
    found = list[float]()
    for size in (1.0, 1e-3, 1e-7, 0.0):
        layer = nn.Linear(8, 64)
        layer.weight.mul_(size)
        ours = method.Integer(layer, [-1.0, 2.0, -3.0, 3.0])
        m0, shift = ours.integers[2:].tolist()
        unit = m0 / 2**31 * 2.0**-shift * 6 / 255  # of the output, from the multiplier that brings the sums there
        found.append(float((ours.bias - layer.bias.double() / unit).abs().max() / (1 + ours.bias.abs().max() * 2**-30)))
        found.append(math.inf if int(ours.bias.abs().max()) + 8 * 255**2 > method.HIGHEST else 0.0)
    return found


@torch.no_grad()
def claim_ranges_are_the_extremes(lab: Lab) -> float:
    """How many layers have other input scales than the extremes of the first batches, in evaluation mode, or leave a trace."""
    images = [(2.0**i * torch.rand(4, 3, 6, 6), torch.zeros(4, dtype=torch.long)) for i in range(6)]
    task, wrong = Task.from_loaders(images, images, images, steps=6, batch=4), 0
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5))
    plain = copy.deepcopy(model).eval()
    layers, x = [model[0], model[4]], torch.cat([x for x, _ in islice(task.batches(), 3)])
    small = method.compress(model, task, method.Config(batches=3))
    for place, inputs in ((0, x), (4, plain[:4](x))):
        scale, zero = method.parameters_of(*(float(v) for v in inputs.aminmax()))
        wrong += abs(float(small[place].scales[0]) / scale - 1) > 1e-5 or int(small[place].integers[0]) != zero
    wrong += sum(not torch.equal(value, plain[1].state_dict()[key]) for key, value in small[1].state_dict().items())
    return wrong + sum(bool(layer._forward_hooks) for layer in layers)


@torch.no_grad()
def claim_layer_equals_real_arithmetic(lab: Lab) -> list[float]:
    """Largest distance, in steps of the output, to the float layer on the values that the bytes stand for, cut off at the range's ends."""
    torch.manual_seed(0)
    layers: list[nn.Conv2d | nn.Linear] = [
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Conv2d(6, 9, (3, 1), padding=(2, 0), dilation=2, groups=3, bias=False),
        nn.Conv2d(6, 5, 1), nn.Conv2d(6, 4, 3, padding="same"), nn.Linear(11, 7),
    ]  # fmt: skip
    found = list[float]()
    for layer in layers:
        x = 3 * torch.rand(2, 6, 9, 11) - 1
        (shipped := copy.deepcopy(layer)).weight.sub_(0.02)
        ranges = [-1.0, 2.0, *(float(v) / 2 for v in shipped(x).aminmax())]
        ours = method.Integer(shipped, ranges)
        scale, zero = method.parameters_of(*(float(v) for v in shipped.weight.aminmax()))
        (scale_in, zero_in), (step, middle) = method.parameters_of(*ranges[:2]), method.parameters_of(*ranges[2:])
        shipped.weight.copy_(scale * (ours.weight.double() - zero))
        wanted = shipped.double()(scale_in * (method.quantize(x, scale_in, zero_in).double() - zero_in))
        found.append(float((ours(x) - wanted.clamp(-step * middle, step * (255 - middle))).abs().max()) / step)
    return found


def claim_accuracy_as_in_floats(lab: Lab) -> float:
    return lab.after.accuracy - lab.before.accuracy


def claim_bits(lab: Lab) -> float:
    """Stored bits a weight."""
    return lab.after.bits


@torch.no_grad()
def logit_error(lab: Lab, model: nn.Module) -> float:
    """Distance of the logits to those of the float network, relative to their size."""
    images = lab.held_out(256).images.to(lab.task.device)
    wanted = lab.reference(images)
    return float((model(images) - wanted).norm() / wanted.norm())


def claim_truncating_errs_more(lab: Lab) -> float:
    """Logit error with truncation over logit error with rounding."""
    return logit_error(lab, lab.controlled("truncating")) / logit_error(lab, lab.compressed)


def claim_beats_truncating(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("truncating").accuracy
