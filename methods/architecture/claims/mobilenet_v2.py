"""The claims of MobileNetV2: Inverted Residuals and Linear Bottlenecks."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from methods.architecture import mobilenet_v2 as method
from methods.kit.lab import Lab
from methods.kit.measure import multiply_adds
from methods.kit.nets import conv_bn, count, head, on_meta
from methods.kit.task import Split
from methods.kit.testing import toy_task


def claim_parameters(lab: Lab, variant: str) -> float:
    """Millions."""
    return count(on_meta(lambda: method.build(variant))) / 1e6


def claim_parameters_without_norms(lab: Lab, variant: str) -> float:
    """Millions, scales and shifts of batch norm left out."""
    norms = [layer for layer in on_meta(lambda: method.build(variant)).modules() if isinstance(layer, nn.BatchNorm2d)]
    return claim_parameters(lab, variant) - sum(count(norm) for norm in norms) / 1e6


def claim_multiply_adds(lab: Lab, variant: str) -> float:
    """Millions, for one 224x224 image."""
    return multiply_adds(on_meta(lambda: method.build(variant)), torch.empty(1, 3, 224, 224, device="meta")) / 1e6


def claim_separable_cost(lab: Lab) -> float:
    """How many times cheaper the 3x3 depthwise and linear 1x1 of a block are than one ordinary 3x3 convolution, for 64 to 96 channels."""
    image = torch.empty(1, 64, 14, 14, device="meta")
    separable = multiply_adds(on_meta(lambda: method.InvertedResidual(64, 96, 1, 1)), image)
    return multiply_adds(on_meta(lambda: conv_bn(64, 96)), image) / separable


def claim_block_cost(lab: Lab) -> list[float]:
    """Largest difference between a block's counted multiply-adds and h w t d' (d' + k^2 + d'')."""
    differences = []
    for size, inputs, outputs, t in ((14, 64, 64, 6), (7, 96, 160, 6), (28, 24, 32, 3)):
        image = torch.empty(1, inputs, size, size, device="meta")
        counted = multiply_adds(on_meta(lambda i=inputs, o=outputs, t=t: method.InvertedResidual(i, o, 1, t)), image)
        differences.append(abs(counted - size * size * t * inputs * (inputs + 9 + outputs)))
    return list(differences)


def claim_block_equals_equations(lab: Lab) -> list[float]:
    """Largest difference between a block and its three lines written out, with and without stride and expansion."""
    differences = []
    for inputs, outputs, stride, t in ((4, 4, 1, 6), (4, 8, 1, 2), (4, 4, 2, 6), (4, 4, 1, 1)):
        block = method.InvertedResidual(inputs, outputs, stride, t)
        norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias, std=3)
        x = y = 4 * torch.randn(8, inputs, 6, 6)
        convs = [m.weight for m in block.modules() if isinstance(m, nn.Conv2d)]
        for place, (w, norm) in enumerate(zip(convs, norms, strict=True)):
            depthwise = w.shape[1] == 1
            y = F.conv2d(y, w, None, stride if depthwise else 1, int(depthwise), groups=len(w) if depthwise else 1)
            mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
            y = (y - mean) / (variance + 1e-5).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
            y = y.clamp(0, 6) if place < len(convs) - 1 else y
        differences.append(float((block(x) - (x + y if stride == 1 and inputs == outputs else y)).detach().abs().max()))
    return list(differences)


def claim_returns_inverted_residuals(lab: Lab) -> float:
    """How many bottlenecks of the returned network are rectified, fail to expand six times, or lack their shortcut."""
    part = Split(torch.randn(32, 3, 32, 32), torch.arange(32) % 4)
    task = toy_task(part, steps=2, batch=16)
    model = method.compress(nn.Sequential(OrderedDict(head(3, 4))), task, method.Config(width=0.5))
    x, wrong, blocks = part.images, 0, [layer for layer in model if isinstance(layer, method.InvertedResidual)]
    with torch.no_grad():
        for layer in model:
            y = layer(x)
            if layer in blocks:
                wide, narrow = layer.filter.conv.out_channels, x.shape[1]
                alone = layer.project(layer.filter(layer.expand(x)))
                joined = y - alone if y.shape == x.shape else torch.zeros(())
                wrong += bool((y >= 0).all()) + (wide != (narrow if layer is blocks[0] else 6 * narrow))
                wrong += y.shape == x.shape and not torch.allclose(joined, x, atol=1e-5)
            x = y
    return wrong + abs(len(blocks) - 6)


def claim_linear_beats_nonlinear_bottleneck(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("nonlinear_bottleneck").accuracy


def claim_beats_plain_convolutions(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("plain").accuracy


def claim_learns(lab: Lab) -> float:
    """Accuracy on test images; chance is 0.1."""
    return lab.after.accuracy
