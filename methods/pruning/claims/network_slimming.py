"""The claims of Network Slimming."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.measure import multiply_adds
from methods.kit.surgery import remove_channels, widths
from methods.kit.task import Split, Task
from methods.kit.testing import relative_error, toy_task
from methods.kit.train import fit
from methods.pruning import network_slimming as method


def _scaled_net(seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A residual network whose batch norms have random scales, shifts and statistics, and some images."""
    torch.manual_seed(seed)
    model = nets.resnet(8, width=8).eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model, torch.randn(4, 3, 16, 16)


def claim_slim_equals_masked(lab: Lab) -> float:
    """Largest change of the output, relative to its largest entry, when channels with zero scale and shift are removed."""
    model, x = _scaled_net()
    norms = method.norms_to_slim(model, x[:1])
    cuts = method.below_threshold(method.scales(model, norms), 0.6)
    with torch.no_grad():
        for name, channels in cuts.items():
            norm = model.get_submodule(norms[name])
            norm.weight[channels] = norm.bias[channels] = 0
        masked, slim = model(x), remove_channels(model, x[:1], cuts)(x)
    return relative_error(slim, masked) if any(cuts.values()) else 1.0


def claim_one_global_threshold(lab: Lab) -> float:
    """Channels on which the cut differs from numpy's: the smallest 70% (and 100%) of all scales, but never a layer's last."""
    gammas = {"wide": torch.rand(60), "small": 0.1 * torch.rand(20), "large": 1 + torch.rand(20)}
    gammas["small"][:15] = 0.0  # of channels that have switched themselves off
    starts, wrong = {"wide": 0, "small": 60, "large": 80}, 0
    ordered = np.argsort(np.concatenate([g.numpy() for g in gammas.values()]), kind="stable")
    for cut in (70, 100):
        wanted = set(ordered[:cut].tolist()) - {starts[name] + int(g.argmax()) for name, g in gammas.items()}
        got = {starts[name] + c for name, channels in method.below_threshold(gammas, cut / 100).items() for c in channels}
        wrong += len(wanted ^ got)
    return float(wrong)


def claim_smallest_scales_go(lab: Lab) -> float:
    """Largest |gamma| that is cut over the smallest that stays (each layer's last apart), signs and all, read off the batch norms."""
    model, x = _scaled_net()
    norms, cut, kept = method.norms_to_slim(model, x[:1]), [], []
    for name, channels in method.below_threshold(method.scales(model, norms), 0.5).items():
        gamma = model.get_submodule(norms[name]).weight.detach().numpy()
        cut += [abs(gamma[c]) for c in channels]
        kept += sorted(abs(g) for c, g in enumerate(gamma) if c not in channels)[:-1]
    return float(np.max(cut) / np.min(kept))


def claim_penalty_is_l1(lab: Lab) -> list[float]:
    """Largest difference of the penalty's derivative by a scale, by central differences and by autograd, from its sign."""
    model, _ = _scaled_net()
    model, step, differences = model.double(), 1e-4, []
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm, slope in zip(norms, torch.autograd.grad(method.scale_norm(model), [n.weight for n in norms]), strict=True):
        differences.append(float((slope - norm.weight.detach().sign()).abs().max()))
        start, values = norm.weight[0].item(), []
        for shift in (step, -step):
            norm.weight.data[0] = start + shift
            values.append(float(method.scale_norm(model).detach()))
        differences.append(abs((values[0] - values[1]) / (2 * step) - np.sign(start)))
    return list(differences)


def _toy(steps: int) -> tuple[nn.Module, Task]:
    """A small network with batch norm, and a task of random images."""
    torch.manual_seed(0)
    part = Split(torch.randn(32, 3, 8, 8), torch.randint(3, (32,)))
    model = nn.Sequential(nets.conv_bn(3, 6), nets.conv_bn(6, 6), nn.Flatten(), nn.Linear(384, 3))
    return model, toy_task(part, steps=steps, batch=16)


def claim_training_shrinks_scales(lab: Lab) -> float:
    """Sum of |gamma| after a few steps with the penalty over that after the same steps without it."""
    sums = []
    for penalty in (0.5, 0.0):
        model, task = _toy(steps=16)
        sums.append(float(method.scale_norm(method.train_sparse(model, task, method.Config(penalty))).detach()))
    return sums[0] / sums[1]


def claim_stages_in_order(lab: Lab) -> float:
    """Largest difference of an output from the three stages written out, relative to the largest output."""
    (model, task), penalty = _toy(steps=20), 0.03
    norms, x = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], task.train.images
    slim = method.compress(copy.deepcopy(model), task, method.Config(penalty, cut=0.5, sparse_share=0.25))
    fit(model, task, lambda m, x, y: F.cross_entropy(m(x).float(), y) + penalty * sum(n.weight.abs().sum() for n in norms), share=0.25)
    order = np.argsort([abs(g) for n in norms for g in n.weight.tolist()], kind="stable")[:6]
    cuts = {"0.conv": [int(c) for c in order if c < 6], "1.conv": [int(c) - 6 for c in order if c >= 6]}
    model = fit(remove_channels(model, x[:1], cuts), task, share=0.75)
    return relative_error(slim(x), model(x))


def claim_parameters(lab: Lab, variant: str) -> float:
    """Millions."""
    return nets.count(nets.on_meta(lambda: method.build(variant))) / 1e6


def claim_operations(lab: Lab, variant: str) -> float:
    """Multiplications and additions for one image, in hundreds of millions."""
    return 2 * multiply_adds(nets.on_meta(lambda: method.build(variant)), torch.empty(1, 3, 32, 32, device="meta")) / 1e8


def claim_channels_removed(lab: Lab) -> float:
    """Share of all channels that is gone, over the share asked for."""
    before, after = (sum(widths(model).values()) for model in (lab.reference, lab.compressed))
    return (1 - after / before) / lab.config.cut


def claim_beats_random_channels(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("random").accuracy


def claim_beats_random_channels_in_minutes(lab: Lab) -> float:
    return claim_beats_random_channels(lab)


def claim_keeps_accuracy(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy


def claim_scales_shrink(lab: Lab) -> float:
    """Mean |gamma| of the method's network over that of the one trained without the penalty."""
    means = [
        float(method.scale_norm(model).detach()) / sum(widths(model).values()) for model in (lab.compressed, lab.controlled("unpenalised"))
    ]
    return means[0] / means[1]


def claim_penalty_helps(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("unpenalised").accuracy
