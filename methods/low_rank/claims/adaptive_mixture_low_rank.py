"""The claims of Adaptive mixture of low-rank factorizations."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from methods.kit.lab import Lab
from methods.kit.layers import Layer, fresh, replaced
from methods.kit.measure import multiply_adds
from methods.kit.task import Task
from methods.kit.testing import convolutions, relative_error, won_back
from methods.low_rank import adaptive_mixture_low_rank as method


def matrices(layer: method.Mixture, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """W(x) = sum_k pi_k(x) U_k V_k^T of every input (N, C, H, W), written out with numpy."""
    v, u, g = (part.weight.detach().flatten(1).numpy() for part in (layer.v, layer.u, layer.gate))
    (k, p), d = g.shape, len(v) // len(g)
    found = []
    for image in x:
        means = [float(np.mean(image[c])) for c in range(len(image))]
        bins = [means[i * len(means) // p : -(-(i + 1) * len(means) // p)] for i in range(p)]
        pi = 1 / (1 + np.exp(-(g @ [np.mean(part) for part in bins] + layer.gate.bias.detach().numpy())))
        found.append(sum(pi[i] * u[:, i * d : (i + 1) * d] @ v[i * d : (i + 1) * d] for i in range(k)))
    return found


def awake(layer: Layer, config: method.Config) -> method.Mixture:
    """A mixture in float64 whose gates differ from input to input."""
    made = method.mixture(layer.double(), config)
    nn.init.normal_(made.gate.weight, std=3.0)
    nn.init.normal_(made.gate.bias)
    return made


@torch.no_grad()
def claim_one_constant_component_is_low_rank(lab: Lab) -> list[float]:
    """Largest relative difference of the weight's squared error from the spectrum that numpy says a rank of K d drops.

    And of the products' singular values from every K-th of the weight's.
    """
    torch.manual_seed(0)
    found = list[float]()
    for layer, config in (
        (nn.Conv2d(12, 20, 3), method.Config(0.4, 1)),
        (nn.Linear(40, 30), method.Config(0.5, 3)),
        (nn.Conv2d(24, 16, 1), method.Config(0.6, 2)),
    ):
        made, matrix = method.mixture(layer.double(), config), layer.weight.detach().flatten(1).numpy()
        pi = made.weights(torch.randn(1, layer.weight.shape[1], *(5, 5)[: 2 * isinstance(layer, nn.Conv2d)]).double())
        v, u = (part.weight.flatten(1).numpy() for part in (made.v, made.u))
        k, d = config.components, len(v) // config.components
        error, spectrum = matrix - (u * pi.repeat_interleave(d, -1).numpy()) @ v, np.linalg.svd(matrix, compute_uv=False)
        found += [abs(float(np.square(error).sum() / np.square(spectrum[k * d :]).sum()) - 1), float((pi - 0.5).abs().max())]
        for i in range(k):
            values = np.linalg.svd(u[:, i * d : (i + 1) * d] @ v[i * d : (i + 1) * d] / 2, compute_uv=False)[:d]
            found.append(float(np.abs(values / spectrum[i : k * d : k] - 1).max()))
    return found


@torch.no_grad()
def claim_sums_weighted_products(lab: Lab) -> list[float]:
    """Largest difference from W(x) x with W(x) written out for every input, relative to the largest output."""
    torch.manual_seed(0)
    errors = list[float]()
    configs = (method.Config(0.6, 2, 5), method.Config(0.7, 3, 16), method.Config(0.5, 1, 2))
    for layer, config in product(convolutions(12, 20), configs):
        made, x = awake(layer, config), torch.randn(3, 12, 6, 7).double()
        for image, matrix, answer in zip(x, matrices(made, x.numpy()), made(x), strict=True):
            whole = copy.deepcopy(layer)
            whole.weight.copy_(torch.from_numpy(matrix).view_as(layer.weight))
            errors.append(relative_error(whole(image[None])[0], answer))
    dense, vectors = awake(nn.Linear(18, 14), method.Config(0.7, 2, 4)), torch.randn(2, 1, 5, 18).double()
    images = vectors.reshape(10, 18, 1, 1)
    wanted = np.stack(
        [w @ x + dense.u.bias.numpy() for w, x in zip(matrices(dense, images.numpy()), images.numpy()[..., 0, 0], strict=True)]
    )
    return [*errors, float((dense(vectors).reshape(10, 14) - torch.from_numpy(wanted)).abs().max())]


@torch.no_grad()
def claim_spans_more_than_a_component(lab: Lab) -> float:
    """Rank of the answers to all inputs, of the largest rank of those to one kind of inputs, where a gate opens for each kind."""
    torch.manual_seed(0)
    made, kind = method.mixture(nn.Linear(48, 40, bias=False).double(), method.Config(0.5, 4, 4)), torch.arange(200) % 4
    made.gate.weight.copy_(400 * torch.eye(4))  # the k-th product where the mean of the k-th quarter is positive
    x = torch.randn(200, 4, 12).double()
    x += (2 * F.one_hot(kind) - 1)[..., None] - x.mean(-1, keepdim=True)
    answers = made(x.flatten(1))
    each = max(int(torch.linalg.matrix_rank(answers[kind == k])) for k in range(4))
    return int(torch.linalg.matrix_rank(answers)) / each


@torch.no_grad()
def claim_no_fixed_matrix_does_it(lab: Lab) -> float:
    """Error of a mixture whose gates tell two kinds of inputs apart, of that of the best fixed matrix of any rank (numpy)."""
    torch.manual_seed(0)
    layer = nn.Linear(12, 10, bias=False)
    made = method.mixture(layer.double(), method.Config(0.8, 2, 1))
    each = made.u.weight.shape[1] // 2
    made.gate.weight.copy_(torch.tensor([[40.0], [-40.0]]))  # the first product where the mean is positive
    x = torch.randn(400, 12).double()
    x += torch.where(torch.arange(400) < 200, 1.0, -1.0)[:, None] - x.mean(1, keepdim=True)
    u, v = made.u.weight, made.v.weight
    wanted = torch.cat([x[:200] @ v[:each].T @ u[:, :each].T, x[200:] @ v[each:].T @ u[:, each:].T])
    best = np.linalg.lstsq(x.numpy(), wanted.numpy(), rcond=None)[0]
    return float((made(x) - wanted).norm() / np.linalg.norm(x.numpy() @ best - wanted.numpy()))


def claim_cost_formula(lab: Lab) -> list[float]:
    """Largest difference from K d (C D^2 + N) multiply-adds at each place and K p for the gate; and whether the share is used up."""
    errors = list[float]()
    for layer, config, places in (
        (nn.Conv2d(16, 32, 3, padding=1), method.Config(0.3, 2, 8), 64),
        (nn.Conv2d(24, 40, 1, stride=2), method.Config(0.5, 3, 4), 16),
        (nn.Linear(60, 50), method.Config(0.4, 4, 99), 1),
    ):
        outputs, inputs = layer.weight.flatten(1).shape
        d, k = method.width(layer, config), config.components
        image = torch.zeros(1, layer.weight.shape[1], *(8, 8)[: 2 * (places > 1)])
        found, means = multiply_adds(method.mixture(layer, config), image), min(config.summary, layer.weight.shape[1])
        errors.append(abs(found - places * k * d * (inputs + outputs) - k * means))
        errors.append(not k * d * (inputs + outputs) <= config.share * inputs * outputs < k * (d + 1) * (inputs + outputs))
    return errors


def claim_trains_everything_together(lab: Lab) -> float:
    """How many layers of a network are planned wrongly, or have a factor, gate or norm that training does not move."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 32, 3)), nn.BatchNorm2d(32), nn.Conv2d(32, 48, 3, stride=2), nn.ReLU(),
        nn.Conv2d(48, 48, 3, groups=3), nn.Conv2d(48, 40, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 64), nn.Linear(64, 3),
    )  # fmt: skip
    config = method.Config(share=0.5, components=2)
    layers, kept = method.plan(model, config)
    wrong = (set(layers) != {"2", "5", "8"}) + (set(kept) != {"0.0", "4", "9"})
    images, labels = torch.randn(32, 3, 9, 9), torch.arange(32) % 3
    loader = [(images, labels)]
    task = Task.from_loaders(loader, loader, loader, steps=3, batch=32)
    start = replaced(model, {name: method.mixture(layer, config) for name, layer in layers.items()})
    after = dict(method.compress(copy.deepcopy(model), task, config).named_parameters())
    still = sum(bool(torch.equal(value, after[name])) for name, value in start.named_parameters() if name in after)
    wrong += still + abs(len(after) - sum(1 for _ in start.parameters()))
    try:
        return wrong + bool(method.compress(nn.Sequential(nn.Conv2d(3, 60, 3)), task, config))  # nothing here may become a mixture
    except ValueError as reason:
        return wrong + ("mixture" not in str(reason) or "0: the first convolution" not in str(reason))


@torch.no_grad()
def claim_gates_tell_inputs_apart(lab: Lab) -> float:
    """Accuracy of the network less its accuracy when every gate stays at its mean over training images."""
    fixed, images = copy.deepcopy(lab.compressed), lab.task.train.first(256).images.to(lab.task.device)
    gates = {name: part for name, part in fixed.named_modules() if isinstance(part, method.Mixture)}
    means = {}
    for name, part in gates.items():
        handle = part.register_forward_pre_hook(lambda part, x: means.__setitem__(name, part.weights(x[0]).mean(0)))
        fixed(images)
        handle.remove()
    for name, part in gates.items():
        part.gate.weight.zero_()
        part.gate.bias.copy_(torch.logit(means[name]))
    return lab.score(lab.compressed) - lab.score(fixed)


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_training_restores(lab: Lab) -> float:
    """Share of the accuracy lost in the cut that training wins back."""
    layers = method.plan(lab.reference, lab.config)[0]
    cut = lab.score(replaced(lab.reference, {name: method.mixture(layer, lab.config) for name, layer in layers.items()}))
    return won_back(lab, cut)


def claim_beats_low_rank(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("low_rank").accuracy


def claim_beats_low_rank_from_scratch(lab: Lab) -> float:
    """Accuracy of a mixture less that of one product at a tenth of the multiply-adds, both trained from the same random weights."""
    torch.manual_seed(lab.task.seed)
    untrained, config = fresh(lab.reference), replace(method.SMOKE, rate=0.1)
    mixed = method.compress(copy.deepcopy(untrained), lab.task, config)
    single = method.control_low_rank(untrained, lab.task, config, mixed)
    return lab.score(mixed) - lab.score(single)


def claim_beats_low_rank_in_minutes(lab: Lab) -> float:
    return claim_beats_low_rank(lab)
