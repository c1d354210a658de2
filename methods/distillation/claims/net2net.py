"""The claims of Net2Net."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor, nn

from methods.distillation import net2net as method
from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.surgery import widths
from methods.kit.task import Split, Task
from methods.kit.testing import relative_error, toy_task
from methods.kit.train import fit


def claim_copies_are_uniform(lab: Lab) -> list[float]:
    """Chi-squared over its degrees of freedom, of how often each channel is copied, or the inverse, whichever is larger.

    Infinite if a first copy is not in its place.
    """
    g = method.mapping(11, 11 + 11_000, torch.Generator().manual_seed(0)).numpy()
    if list(g[:11]) != list(range(11)) or g.max() > 10:
        return float("inf")
    uneven = float(chisquare(np.bincount(g[11:], minlength=11)).statistic / 10)
    return [uneven, 1 / uneven if uneven else float("inf")]  # as even as in turn is not random


class Concat(nn.Module):
    """Channels that are concatenated, read again, and flattened, with biases and without batch norm; a hidden dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1, groups=1)
        self.three, self.fc1, self.fc2 = nn.Conv2d(13, 6, 2, stride=2), nn.Linear(96, 7), nn.Linear(7, 3)
        self.act1, self.act2, self.act3, self.act4 = nn.ReLU6(), nn.Hardtanh(), nn.ReLU(inplace=True), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.one(x))
        x = torch.cat([x, self.act2(self.two(x)), x], 1)
        return self.fc2(self.act4(self.fc1(self.act3(self.three(x)).flatten(1))))


def toy(*networks: nn.Module, steps: int = 4, dtype: torch.dtype = torch.float64) -> Task:
    """Random images, and networks whose weights, batch norms and statistics are random."""
    for layer in (layer for network in networks for layer in network.to(dtype).modules()):
        if isinstance(layer, method.NORMS):
            for values in (layer.weight, layer.running_var):
                nn.init.uniform_(values, 0.5, 2.0)
            for values in (layer.bias, layer.running_mean):
                nn.init.normal_(values)
    part = Split(torch.randn(64, 3, 8, 8, dtype=dtype), torch.arange(64) % 3)
    return toy_task(part, steps=steps, batch=16)


def dense() -> nn.Sequential:
    """Three dense layers, batch norm behind the first."""
    layers = [nn.Linear(192, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)]
    return nn.Sequential(nn.Flatten(), *layers)


GROWTHS = {
    "wider": method.Config(1.5, added=0),
    "deeper": method.Config(1.0, added=2, every=1, kernel=5),
    "both": method.Config(1.5, every=2),
}


def function_change(case: str, dtype: torch.dtype) -> list[float]:
    """Largest change of an output, over the largest output; infinite if a network is not as large as it should be."""
    networks: list[nn.Module] = [nets.resnet(8, 3, width=4), nets.separable([(2, 1), (8, 2)], 3), Concat(), dense()]
    task, config, found = toy(*networks, dtype=dtype), replace(GROWTHS[case], noise=0.0), list[float]()
    for network in networks:
        grown = method.grow(copy.deepcopy(network), task, config)  # in training mode until then
        layers, acts, norms = (
            [sum(type(layer) in kinds for layer in model.modules()) for model in (network, grown)]
            for kinds in (method.LAYERS, method.IDEMPOTENT, method.NORMS)
        )
        added = config.added * -(-acts[0] // config.every)
        as_large = (layers[1], acts[1], norms[1]) == (layers[0] + added, acts[0] + added, norms[0] + added * (norms[0] > 0))
        for name, layer in network.named_modules():
            if type(layer) in method.LAYERS:
                n = len(layer.weight)  # three are the outputs
                as_large &= len(grown.get_submodule(name).weight) == (round(config.widen * n) if n != 3 else n)
        before, after = network.eval()(task.train.first(9).images), grown(task.train.first(9).images)
        found.append(relative_error(after, before) if as_large else float("inf"))
    return found


def claim_keeps_function(lab: Lab, case: str) -> list[float]:
    """In double precision."""
    return function_change(case, torch.float64)


def claim_keeps_function_in_float32(lab: Lab) -> list[float]:
    """After both operators."""
    return function_change("both", torch.float32)


def claim_follows_algorithm(lab: Lab) -> list[float]:
    """Largest difference of a dense network's numbers from Algorithm 1, entry by entry; infinite if a first copy is not in its place."""
    network = dense()
    grown = method.grow(network, toy(network), method.Config(2.0, added=0, noise=0.0))
    w, u = ({key: value.double().numpy() for key, value in model.state_dict().items()} for model in (network, grown))
    g, g2 = ([int(np.flatnonzero(w[key] == value)[0]) for value in u[key]] for key in ("1.bias", "4.bias"))
    sizes = (grown[1].out_features, grown[2].num_features, grown[4].in_features, grown[4].out_features, grown[6].in_features)
    if (g[:5], g2[:4], len(g), len(g2), *sizes) != ([*range(5)], [*range(4)], 10, 8, 10, 10, 10, 8, 8):
        return float("inf")
    wrong = [abs(u[f"2.{key}"][j] - w[f"2.{key}"][g[j]]) for key in ("weight", "bias", "running_mean", "running_var") for j in range(10)]
    wrong += [abs(u["1.weight"][j, k] - w["1.weight"][g[j], k]) for j in range(10) for k in range(192)]
    wrong += [abs(u["4.weight"][j, k] - w["4.weight"][g2[j], g[k]] / g.count(g[k])) for j in range(8) for k in range(10)]
    wrong += [abs(u["6.weight"][j, k] - w["6.weight"][j, g2[k]] / g2.count(g2[k])) for j in range(3) for k in range(8)]
    return list(wrong)


def claim_norm_undoes_itself(lab: Lab) -> float:
    """Largest change of the outputs by deepening while batch norm goes by the images that growing saw, over the largest output."""
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)).eval()
    task = toy(network)
    x = task.train.images
    deep = method.grow(network, task, method.Config(1.0, added=2, every=2))  # behind the last activation
    for layer in deep[3].modules():
        layer.train()
    return relative_error(deep(x), network(x)) if len(deep[3]) == 7 else float("inf")


def claim_only_idempotent_activations(lab: Lab) -> float:
    """Activations of torch that deepening takes although twice is not once, by trying, or leaves although it is."""
    kinds = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Hardswish)
    v, image, wrong, act = torch.linspace(-9, 9, 1001), torch.zeros(1, 3, 2, 2), 0, nn.ReLU()
    for kind in kinds:
        network = nn.Sequential(nn.Conv2d(3, 4, 1), kind())
        found, kept = method.places(network, image)
        idempotent = torch.equal(kind()(kind()(v)), kind()(v))
        wrong += (found == ["1"]) != idempotent or (list(kept) == ["1"]) == idempotent
    twice, flat = nn.Sequential(act, nn.Conv2d(3, 4, 1), act), nn.Sequential(nn.Flatten(2), act)  # which channels?
    return wrong + sum(method.places(network, image)[0] != [] for network in (twice, flat))


class Awkward(nn.Module):
    """Layers whose channels cannot be copied: groups, group norm, a split, softmax over channels, a written-down size, the output."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.grouping, self.groups = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 1, groups=2)
        self.normed, self.norm, self.split = nn.Conv2d(6, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 8, 1)
        self.soft, self.sized, self.out = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.normed(self.groups(self.grouping(self.free(x)))))
        one, two = self.split(x).chunk(2, 1)
        x = self.sized(self.soft(one + two.exp()).softmax(1))
        return self.out(x.reshape(-1, 256))


def claim_leaves_the_others(lab: Lab) -> float:
    """Largest change of the outputs over the largest, plus the number of layers that are widened or left wrongly."""
    network = Awkward()
    task = toy(network)
    grown = method.grow(network, task, method.Config(1.5, added=0, noise=0.0))
    more = {name for name, width in widths(grown).items() if width != widths(network)[name]}
    change = relative_error(grown(task.train.images), network(task.train.images))
    return change + len(more ^ {"free"})


def claim_parameters_of_a_teacher_s_layer(lab: Lab) -> float:
    """Of the layer that it grows into: the largest layer of a ResNet-8."""
    network = nets.resnet(8, 3)
    grown = method.grow(network, toy(network, dtype=torch.float32), method.Config(0.3**-0.5, added=0))
    return float(network.stage3_0.second.conv.weight.numel() / grown.stage3_0.second.conv.weight.numel())


def copies_of(layer: Any) -> tuple[Tensor, Tensor]:
    """Weights of all copies but the first of six units, and of the first ones, found by their biases."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return weight[6:], weight[(bias[6:, None] - bias[:6]).abs().argmin(1)]


def claim_noise_spares_first_copy(lab: Lab) -> float:
    """Deviation of the other copies from the first, over that of the layer's weights; infinite if a first copy or a reader has changed."""
    network = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.Conv2d(6, 3, 4), nn.Flatten())
    network[0].weight.data += 1  # a mean is no deviation
    quiet, loud = (method.grow(network, toy(network), method.Config(100.0, added=0, noise=noise)) for noise in (0.0, 0.01))
    if not torch.equal(loud[0].weight[:6], network[0].weight) or not torch.equal(loud[2].weight, quiet[2].weight):
        return float("inf")
    copies, first = copies_of(loud[0])
    return float((copies - first).std() / network[0].weight.detach().std())


def claim_noise_tells_copies_apart(lab: Lab) -> float:
    """How far training drives copies apart without noise, over how far it does with it."""
    apart = []
    for noise in (0.0, 0.01):
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 3))
        trained = method.compress(network, toy(network, steps=8), method.Config(2.0, added=0, noise=noise, share=1.0))
        copies, first = copies_of(trained[1])
        apart.append(float((copies - first).norm()))
    return apart[0] / apart[1]


def claim_trains_everything(lab: Lab) -> list[float]:
    """Parameters that training leaves where growth put them, plus the largest difference from training on the labels at a tenth."""
    network = nets.resnet(8, 3, width=4)
    task, config = toy(network, steps=6, dtype=torch.float32), method.Config(1.5, every=2, rate=0.2)
    start = method.grow(copy.deepcopy(network), task, config)
    grown = method.compress(copy.deepcopy(network), task, config)
    still = sum(torch.equal(old, new) for old, new in zip(start.parameters(), grown.parameters(), strict=True))
    by_hand = fit(start, task.with_steps(3), lambda m, x, y: F.cross_entropy(m(x).float(), y), lr=0.02)
    return [still + float((a - b).detach().abs().max()) for a, b in zip(grown.parameters(), by_hand.parameters(), strict=True)]


def claim_starts_as_good(lab: Lab) -> float:
    grown = method.grow(copy.deepcopy(lab.reference), lab.task, lab.config)
    return lab.score(grown) - lab.before.accuracy


def claim_beats_random_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy


def claim_beats_random_pad(lab: Lab) -> float:
    """Cross-entropy on test images, over that of the padded network: in seconds it tells more than the accuracy does."""
    networks, parts = (lab.compressed, lab.controlled("random_pad")), list(lab.held_out(512).chunks())
    with torch.no_grad():
        method, pad = (sum(float(F.cross_entropy(m(x.to(lab.task.device)).cpu(), y, reduction="sum")) for x, y in parts) for m in networks)
    return method / pad


def claim_ahead_of_random_pad(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random_pad").accuracy


def claim_exceeds_teacher(lab: Lab) -> float:
    return lab.after.accuracy - lab.before.accuracy


def claim_ahead_after_one_epoch(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy
