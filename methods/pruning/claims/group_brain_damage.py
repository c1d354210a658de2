"""The claims of Group-wise brain damage."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import entering, patches
from methods.kit.measure import multiply_adds, one_thread
from methods.kit.task import Split, Task
from methods.kit.testing import odd_network, odd_task, relative_error, toy_task, trace
from methods.pruning import group_brain_damage as method

LAYERS: list[tuple[int, int, Any, dict[str, Any]]] = [
    (5, 7, 3, {"stride": (2, 1), "padding": (1, 2)}),
    (4, 6, (3, 5), {"padding": "same", "dilation": (1, 2), "bias": False}),
    (4, 8, (2, 3), {"padding": 1, "padding_mode": "reflect"}),
    (6, 3, 1, {"stride": 2}),
    (3, 5, 5, {"padding": 2, "padding_mode": "circular", "dilation": 2}),
]


def _layer(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)


@torch.no_grad()
def claim_thinned_equals_masked(lab: Lab) -> list[float]:
    """Largest difference from torch's convolution by the kernel with zeros, relative to the largest output."""
    torch.manual_seed(0)
    found = []
    for inputs, outputs, kernel, settings in LAYERS:
        layer, x = nn.Conv2d(inputs, outputs, kernel, **settings), torch.randn(3, inputs, 13, 11)
        stays = torch.rand(layer.weight.shape[1:]) < 0.4
        stays[0] = False  # a whole map
        thin = method.ThinConv2d(layer, stays)
        layer.weight.mul_(stays)
        found.append(relative_error(thin(x), layer(x)))
        found.append(float(abs(thin.weight.numel() - int(stays.sum()) * outputs)))
    return found


@torch.no_grad()
def claim_rows_of_im2col(lab: Lab) -> list[float]:
    """Largest difference from the same rows of torch's own matrix of patches."""
    torch.manual_seed(0)
    found = []
    for inputs, outputs, kernel, settings in LAYERS:
        layer, x = nn.Conv2d(inputs, outputs, kernel, **settings), torch.randn(2, inputs, 9, 12)
        stays = torch.rand(layer.weight.shape[1:]) < 0.5
        thin, whole = method.ThinConv2d(layer, stays), patches(layer, x).transpose(1, 2)
        ours = thin.columns(F.pad(x, thin.frame, thin.mode))
        found.append(float((ours - whole[:, stays.flatten()]).abs().max()))
    return found


@torch.no_grad()
def claim_maps_vanish(lab: Lab) -> float:
    """How many answers are no numbers when maps without a tap are none."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(5, 4, 3, padding=1), torch.randn(2, 5, 8, 8)
    stays = torch.rand(5, 3, 3) < 0.6
    stays[[1, 4]] = False
    x[:, [1, 4]] = float("nan")
    return float((~method.ThinConv2d(layer, stays)(x).isfinite()).sum())


def claim_cost_falls_with_taps(lab: Lab) -> list[float]:
    """Largest difference of the multiply-adds from the share 1 - tau of the convolution's."""
    found = []
    for inputs, outputs, kernel, settings in LAYERS:
        layer, image = nn.Conv2d(inputs, outputs, kernel, **settings), torch.randn(1, inputs, 12, 12)
        for tau in (0.25, 0.5):
            stays = torch.ones(layer.weight.shape[1:], dtype=torch.bool)
            stays.view(-1)[: round(tau * stays.numel())] = False
            wanted = float(stays.float().mean()) * multiply_adds(layer, image)
            found.append(abs(multiply_adds(method.ThinConv2d(layer, stays), image) - wanted))
    return found


def claim_penalty_is_group_norms(lab: Lab) -> list[float]:
    """Largest relative difference of the penalty from numpy's loop over taps, and of its slope from central differences."""
    torch.manual_seed(0)
    layers = {"a": nn.Conv2d(3, 4, 3).double(), "b": nn.Conv2d(2, 5, (1, 3)).double()}
    wanted = 0.0
    for layer in layers.values():
        kernel = layer.weight.detach().numpy()
        wanted += sum(float(np.linalg.norm(kernel[:, s, i, j])) for s, i, j in np.ndindex(kernel.shape[1:]))
    found = [abs(float(method.group_sparsity(layers).detach()) / wanted - 1)]
    weight, step = layers["a"].weight, 1e-6
    (slope,) = torch.autograd.grad(method.group_sparsity(layers), weight)
    for place in ((0, 0, 0, 0), (3, 2, 1, 2), (1, 1, 2, 0)):
        values = []
        for shift in (step, -step):
            with torch.no_grad():
                weight[place] += shift
                values.append(float(method.group_sparsity(layers)))
                weight[place] -= shift
        found.append(abs((values[0] - values[1]) / (2 * step) - float(slope[place])))
    return found


def _toy(steps: int = 8) -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    part = Split(torch.randn(32, 3, 8, 8), torch.arange(32) % 4)
    return odd_network(), toy_task(part, steps=steps, batch=16)


def claim_smallest_go_for_good(lab: Lab) -> float:
    """How many taps, step after step, are zeroed otherwise than numpy does by an evenly rising share, or come back."""
    model, task = _toy()
    layers, wrong, seen, gone = method.layers_to_thin(model, task), 0, list[int](), dict[str, Any]()
    config = method.Config(cut=0.6, penalty=0.1, sparse_share=1.0)

    def watched(name: str, weight: Tensor) -> Tensor:
        nonlocal wrong
        norms = np.sqrt((weight.double().numpy() ** 2).sum(0)).ravel()
        turn = seen.count(hash(name)) + 1
        seen.append(hash(name))
        share = config.cut * min(turn / 8, 1)
        kept = max(1, round((1 - share) * norms.size))
        if name in gone:
            wrong += int((norms[gone[name]] != 0).sum())
        gone[name] = np.argsort(-norms, kind="stable")[kept:]
        return method.tap_norms(weight)

    masks = method.sparsified(model, task, layers, config, watched)
    for name, stays in masks.items():
        wrong += int((~stays.flatten()).nonzero().flatten().tolist() != sorted(gone[name].tolist()))
        weight = _layer(model, name).weight.detach()
        wrong += int(((weight != 0).any(0) != stays).sum())
    return float(wrong) if len(seen) == 9 * len(layers) else float("inf")


def claim_counts_are_multiples(lab: Lab) -> float:
    """How many layers keep another number of taps than the share asks for, rounded up to the task's multiple where there are so many."""
    model, task = _toy(2)
    wrong = 0
    for multiple in (1, 8):
        some = replace(task, multiple=multiple, exclude=("1.shortcut*",))
        layers = method.layers_to_thin(model, some)
        masks = method.patterns(layers, method.by_norm, 0.7, multiple)
        wrong += layers.keys() != {"1.first.conv", "1.second.conv", "2.conv"}
        for stays in masks.values():
            wanted = max(1, round(0.3 * stays.numel()))
            wanted = min(stays.numel(), -(-wanted // multiple) * multiple)
            wrong += int(stays.sum()) != wanted
    return float(wrong)


STAGES = [
    "trains the given network on 64 images of train, train mode, rate 0.02, 4 steps",  # with the penalty, zeroing
    "trains one like the given network on 64 images of train, train mode, rate 0.02, 4 steps",  # with the pattern fixed
]
CONFIG = method.Config(cut=0.5, penalty=0.5, sparse_share=0.5)


def claim_stages(lab: Lab) -> float:
    """Whether the trace differs from: train with the penalty and zero taps, then train with the pattern fixed."""
    return float(trace(method, odd_network(), odd_task(8), CONFIG) != STAGES)


def claim_pattern_is_fixed(lab: Lab) -> list[float]:
    """Largest difference of an output from the two stages written out, relative to the largest output."""
    model, task = _toy()
    small, x = method.compress(model, task, CONFIG), task.train.images
    layers = {name: _layer(model, name) for name in ("1.first.conv", "1.second.conv", "1.shortcut.conv", "2.conv")}
    zeros: dict[str, Tensor] = {}

    @torch.no_grad()
    def zero(progress: float) -> None:
        for name, layer in layers.items():
            layer.weight.mul_(zeros.get(name, torch.ones(())))
            norms = layer.weight.square().sum(0).sqrt()
            kept = max(1, round((1 - 0.5 * progress) * norms.numel()))
            zeros[name] = torch.zeros(norms.numel()).scatter(0, norms.flatten().argsort(descending=True, stable=True)[:kept], 1.0)
            zeros[name] = zeros[name].view(norms.shape)
            layer.weight.mul_(zeros[name])

    @torch.no_grad()
    def hold(progress: float) -> None:
        for name, layer in layers.items():
            layer.weight.mul_(zeros[name])

    def penalised(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        squares = torch.cat([layer.weight.square().sum(0).flatten() for layer in layers.values()])
        return F.cross_entropy(m(x), y) + 0.5 * torch.where(squares > 0, squares, torch.ones(())).sqrt()[squares > 0].sum()

    method.fit(model, task, penalised, share=0.5, after_step=zero)
    method.fit(model, task, share=0.5, after_step=hold)
    with torch.no_grad():
        return [relative_error(small(x), model(x))]


def claim_controls(lab: Lab) -> float:
    """How many controls train otherwise than the method, keep another number of taps, or the same ones."""
    model, task, wrong = odd_network(), odd_task(8), 0
    made = {"method": method.compress(model, task, CONFIG)}
    for name in ("unpenalised", "random"):
        wrong += trace(method, model, task, CONFIG, name) != STAGES
        made[name] = getattr(method, f"control_{name}")(model, task, CONFIG, made["method"])
    made["other seed"] = method.control_random(model, replace(task, seed=1), CONFIG, made["method"])
    plain = method.compress(model, task, replace(CONFIG, penalty=0.0))
    wrong += any(not torch.equal(a, b) for a, b in zip(plain.parameters(), made["unpenalised"].parameters(), strict=True))
    taps = {who: _taps(network) for who, network in made.items()}
    chance = torch.Generator().manual_seed(task.seed)
    for name, found_here in taps["random"].items():  # drawn once, not anew at every step
        drawn = torch.rand(_layer(model, name).weight.shape[1:], generator=chance).flatten()
        wrong += sorted(drawn.argsort(descending=True)[: len(found_here)].tolist()) != found_here.tolist()
    for who, found_taps in taps.items():
        wrong += found_taps.keys() != taps["method"].keys()
        wrong += sum(len(found_taps[name]) != len(other) for name, other in taps["method"].items())
        wrong += sum(_same(found_taps, other) for name, other in taps.items() if name < who)
    return float(wrong)


def _taps(network: nn.Module) -> dict[str, Tensor]:
    return {name: part.taps for name, part in network.named_modules() if isinstance(part, method.ThinConv2d)}


def _same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(torch.equal(taps, others[name]) for name, taps in some.items())


def claim_beats_random_patterns(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random").accuracy


def claim_beats_random_patterns_in_minutes(lab: Lab) -> float:
    return claim_beats_random_patterns(lab)


def claim_penalty_helps(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("unpenalised").accuracy


def claim_penalty_helps_in_minutes(lab: Lab) -> float:
    return claim_penalty_helps(lab)


def claim_runs_faster(lab: Lab) -> float:
    """How many times as fast as the reference, whose convolutions are torch's own."""
    return 1 / lab.after.latency


@torch.no_grad()
def claim_product_runs_faster(lab: Lab) -> float:
    """Time of the layers run as whole products, patches gathered, over that of the thinned ones: the median over turns."""
    image, pairs = lab.held_out(8).images, list[tuple[Any, Any, Tensor]]()
    for name, thin in lab.compressed.named_modules():
        if isinstance(thin, method.ThinConv2d):
            layer = _layer(lab.reference, name)
            x = next(entering(lab.reference, [image], name))[0]
            pairs.append((method.ThinConv2d(layer, torch.ones(layer.weight.shape[1:], dtype=torch.bool)), thin, x))
    ratios = []
    with one_thread():
        for _ in range(7):
            spent = [0.0, 0.0]
            for *layers, x in pairs:
                for place, layer in enumerate(layers):
                    start = time.perf_counter()
                    layer(x)
                    spent[place] += time.perf_counter() - start
            ratios.append(spent[0] / spent[1])
    return median(ratios)
