"""The claims of ThiNet."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import chunks, entering
from methods.kit.measure import multiply_adds
from methods.kit.surgery import at_random, by_l1_norm, narrower, readers, widths
from methods.kit.testing import odd_network, odd_task, relative_error, trace
from methods.kit.watch import rehearsal
from methods.pruning import thinet as method


def claim_greedy_as_in_algorithm_1(lab: Lab) -> float:
    """How many of several orders of removal are other ones than those of Algorithm 1, its loops written out over all samples."""
    chance, wrong = np.random.default_rng(0), 0
    for channels, count in ((6, 5), (9, 4), (12, 12)):
        x = chance.standard_normal((40, channels)) @ chance.standard_normal((channels, channels)) + chance.standard_normal(channels)
        gone: list[int] = []
        while len(gone) < count:
            left = [j for j in range(channels) if j not in gone]
            gone.append(min(left, key=lambda j: float(sum(sum(row[k] for k in [*gone, j]) ** 2 for row in x))))
        wrong += method.least_missed("", nn.Conv2d(1, 1, 1), torch.from_numpy(x.T @ x), count) != gone
    return wrong


def claim_scales_are_least_squares(lab: Lab) -> list[float]:
    """Largest difference of the scales from NumPy's least squares of the outputs; of channels without any answer, from one."""
    chance, found = np.random.default_rng(0), list[float]()
    for channels, gone in ((5, [1]), (8, [7, 0, 3]), (12, [*range(1, 12)])):
        x = chance.standard_normal((60, channels)) + 1
        stay = [j for j in range(channels) if j not in gone]
        wanted = np.linalg.lstsq(x[:, stay], x.sum(1), rcond=None)[0]
        found.append(float(np.abs(method.scales(torch.from_numpy(x.T @ x), gone).numpy() - wanted).max()))
        dead = np.concatenate([x, np.zeros((60, 1))], 1)
        found.append(float(np.abs(method.scales(torch.from_numpy(dead.T @ dead), gone).numpy() - [*wanted, 1]).max()))
    return found


def error(products: Tensor, gone: Any, scales: Tensor | None = None) -> float:
    """Squared error of the outputs without some channels, of the outputs' own squares; the others as they are or scaled."""
    stays = torch.tensor([channel not in gone for channel in range(len(products))])
    missing = torch.ones_like(products[0])
    missing[stays] -= 1 if scales is None else scales
    return float(missing @ products @ missing / products.sum())


def claim_scales_never_raise_error(lab: Lab) -> list[float]:
    """Squared error on the samples with the scales, of that without."""
    found = list[float]()
    for seed in range(6):
        torch.manual_seed(seed)
        x = torch.randn(80, 10).double() + 0.3 * seed
        gone = method.least_missed("", nn.Conv2d(1, 1, 1), x.T @ x, 3 + seed)
        found.append(error(x.T @ x, gone, method.scales(x.T @ x, gone)) / error(x.T @ x, gone))
    return found


@torch.no_grad()
def claim_channels_add_up(lab: Lab) -> list[float]:
    """Largest distance of what channels add, all or one alone, from an answer of the layer less its bias; 1 where one is never drawn."""
    torch.manual_seed(0)
    found, each = list[float](), torch.arange(4)
    cases = [
        (nn.Conv2d(4, 3, 3, stride=(2, 1), padding=(1, 2)), each, (7, 6)),
        (nn.Conv2d(4, 2, (2, 3), dilation=(1, 2), padding="same", padding_mode="reflect"), each, (5, 6)),
        (nn.Conv2d(6, 5, 1, stride=2, bias=False), torch.tensor([-1, 0, 1, 2, 3, -1]), (5, 5)),
        (nn.Linear(16, 3), each.repeat_interleave(4), ()),
        (nn.Linear(4, 3), each, (5,)),
    ]
    for layer, whose, size in cases:
        layer.double()
        dense = isinstance(layer, nn.Linear)
        x = torch.randn(2, *size, len(whose)) if dense else torch.randn(2, len(whose), *size)
        x = x.double()
        parts = method.contributions(layer, whose, x, 600, 0).unflatten(0, (2, 600))  # (images, samples, channels)
        for mine in (whose >= 0, *(whose == channel for channel in range(4))):
            some = x * (mine if dense else mine[:, None, None])
            answers = layer(some) - layer(torch.zeros_like(x))
            sums = parts[..., whose[mine].unique()].sum(2)
            far = (sums[..., None] - answers.reshape(2, 1, -1)).abs()
            found += [float(far.amin(2).max()), float((far.amin(1) > 1e-9).any())]
    return found


def _sampled(model: nn.Module, reader: str, whose: Tensor, images: Tensor, config: method.Config, seed: int) -> Tensor:
    layer: Any = model.get_submodule(reader)
    parts = enumerate(entering(model, chunks(model, images), reader))
    return torch.cat([method.contributions(layer, whose, x, config.places, seed + number) for number, (x, _) in parts])


@torch.no_grad()
def claim_thin_equals_scaled(lab: Lab) -> float:
    """Largest difference of an output from the whole network's with kernels at zero or times NumPy's scales, of the largest output."""
    torch.manual_seed(0)
    model, task, config = odd_network(), odd_task(), method.Config(kept=0.6, images=40, places=20)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
            torch.nn.init.normal_(layer.bias)
    uneven = torch.linspace(0.2, 3, 24)[:, None, None]  # so that both layers that read the first one count
    model[1].shortcut.conv.weight.mul_(uneven)  # type: ignore[index, union-attr]
    images, image = task.train.sample(40, task.seed).images, task.train.first(1).images
    with rehearsal():
        thin = method.compress(model, task, config)
    whole, stays = copy.deepcopy(model), {"0.conv": 14, "1.first.conv": 24, "2.conv": 16}
    for name, count in stays.items():
        read = readers(whole, image, [name])[name]
        samples = {reader: _sampled(whole, reader, whose, images, config, task.seed).numpy() for reader, whose in read.items()}
        together = torch.from_numpy(np.concatenate([*samples.values()]))
        wide = together.shape[1]
        gone = method.least_missed(name, whole.get_submodule(name), together.T @ together, wide - count)
        stay = [channel for channel in range(wide) if channel not in gone]
        for reader, x in samples.items():
            factor = np.zeros(wide)
            factor[stay] = np.linalg.lstsq(x[:, stay], x.sum(1), rcond=None)[0]
            weight = whole.get_submodule(reader).weight
            weight.mul_(torch.from_numpy(factor).to(weight).view(1, -1, *[1] * (weight.ndim - 2)))
    wrong = any(widths(thin)[name] != count for name, count in stays.items())
    return relative_error(thin(images), whole(images)) + wrong


STAGES = [  # §3.1: a layer is chosen from by what reads it, here two layers, then cut and trained; then the next one
    "runs the given network on 80 images of train, eval mode",
    "trains a network of 30,040 parameters on 16 images of train, train mode, rate 0.01, 1 steps",  # §4.2: one epoch
    "runs a network of 30,040 parameters on 40 images of train, eval mode",  # as it is now, cut and trained
    "trains a network of 20,640 parameters on 16 images of train, train mode, rate 0.01, 1 steps",
    "runs a network of 20,640 parameters on 40 images of train, eval mode",
    "trains the returned network on 192 images of train, train mode, rate 0.01, 12 steps",  # §4.2: twelve after the last
]


def claim_stages(lab: Lab) -> float:
    """Whether the trace differs from §3.1: look at what reads a layer, cut it, train; then the next one, and longer after the last."""
    found = trace(method, odd_network(), odd_task(steps=14), method.Config(kept=0.5, images=40, places=4, rate=0.01))
    return float(found != STAGES)


def claim_parameters(lab: Lab, variant: str) -> float:
    """Millions."""
    return nets.count(nets.on_meta(lambda: method.build(variant))) / 1e6


def claim_operations(lab: Lab, variant: str) -> float:
    """Multiplications and additions for one image, in billions."""
    return 2 * multiply_adds(nets.on_meta(lambda: method.build(variant)), torch.empty(1, 3, 224, 224, device="meta")) / 1e9


@cache
def _statistics(lab: Lab) -> list[tuple[str, int, dict[str, Tensor], dict[str, Tensor]]]:
    """Of every layer of the reference how many channels go, and the products that choice and scales see, and held-out ones."""
    model, task, config = lab.reference, lab.task, lab.config
    images = [some.images.to(task.device) for some in (task.train.sample(config.images, task.seed), lab.held_out(128))]
    left, whole, found = narrower(model, images[0][:1], lab.compressed), widths(model), []
    for name, read in readers(model, images[0][:1], left).items():
        fitted, judged = (method.statistics(model, read, some, config, task.seed) for some in images)
        found.append((name, whole[name] - left[name], fitted, judged))
    return found


def _errors(lab: Lab, choose: method.Choose, scaled: bool = True) -> Tensor:
    """Logarithm of the error that each layer's cut alone leaves in what the next one answers to held-out images."""
    found = list[float]()
    for name, count, fitted, judged in _statistics(lab):
        layer: Any = lab.reference.get_submodule(name)
        gone = choose(name, layer, torch.stack([*fitted.values()]).sum(0), count)
        found += [error(judged[part], gone, method.scales(fitted[part], gone) if scaled else None) for part in fitted]
    return torch.tensor(found).log()


def claim_lower_error_than_random(lab: Lab) -> float:
    """Geometric mean of the layers' errors, over that of random channels in three draws."""
    draws = [_errors(lab, method.the_others(at_random(seed))).mean() for seed in range(3)]
    return float((_errors(lab, method.least_missed).mean() - torch.stack(draws).mean()).exp())


def claim_lower_error_than_norm(lab: Lab) -> float:
    """Geometric mean of the layers' errors, over that of the filters with the smallest norms."""
    return float((_errors(lab, method.least_missed) - _errors(lab, method.the_others(by_l1_norm))).mean().exp())


def claim_scales_lower_error(lab: Lab) -> float:
    """Geometric mean of the layers' errors with the scales, over that without."""
    return float((_errors(lab, method.least_missed) - _errors(lab, method.least_missed, scaled=False)).mean().exp())


def claim_beats_random(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random").accuracy


def claim_beats_norm(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("norm").accuracy


def claim_scales_help(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("unscaled").accuracy


def claim_beats_random_in_minutes(lab: Lab) -> float:
    return claim_beats_random(lab)


def claim_beats_norm_in_minutes(lab: Lab) -> float:
    return claim_beats_norm(lab)


def claim_scales_help_in_minutes(lab: Lab) -> float:
    return claim_scales_help(lab)


def claim_keeps_accuracy(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy
