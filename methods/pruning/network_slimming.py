"""Network Slimming (Liu et al., ICCV 2017).

An L1 penalty on every batch-norm scale makes useless channels switch themselves off while the network trains. One
threshold for the whole network then decides which channels go; they are really removed, and a little more training
without the penalty repairs the rest.

Departures: the penalised training starts from a trained network instead of from scratch; one pass instead of several;
every layer keeps at least one channel; channels that a shortcut ties to another layer keep their width (the paper puts
a channel selection in front of each block instead).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.surgery import free_channels, norm_after, remove_channels, widths
from methods.kit.task import Task
from methods.kit.train import cross_entropy, fit


@dataclass(frozen=True)
class Config:
    penalty: float = 1e-4  # lambda of Eq. 1, §4.2 (VGG; 1e-5 for ResNet-164 and DenseNet-40)
    cut: float = 0.7  # share of channels removed, Table 1 (VGG on CIFAR-10)
    sparse_share: float = 0.5  # of the budget goes to training with the penalty, the rest to fine-tuning, §4.2


SMOKE = Config(penalty=3e-2)  # 1e-4 needs 160 epochs to act; a smoke run has seconds


def scale_norm(model: nn.Module) -> Tensor:
    """g(gamma) of Eq. 1: the sum of |gamma| over all batch-norm scales."""
    return torch.stack([layer.weight.abs().sum() for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]).sum()


def train_sparse(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """L = sum l(f(x, W), y) + lambda sum |gamma|  (Eq. 1)."""
    return fit(model, task, lambda m, x, y: cross_entropy(m, x, y) + config.penalty * scale_norm(m), share=config.sparse_share)


def scales(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """|gamma| of every channel that can be removed, by the convolution that makes the channel."""
    free, _ = free_channels(model, image)
    norms = norm_after(model, image)
    found = {name: model.get_submodule(norms[name]).weight.detach().abs() for name in free if name in norms}
    if not found:
        raise ValueError("network slimming needs convolutions followed by batch norm whose channels no shortcut ties together")
    return found


def below_threshold(gammas: dict[str, Tensor], cut: float) -> dict[str, list[int]]:
    """Channels under one global threshold, the percentile `cut` of all |gamma| (§3, "Channel Pruning and Fine-tuning")."""
    ordered = torch.cat(list(gammas.values())).sort().values
    threshold = ordered[min(int(cut * len(ordered)), len(ordered) - 1)]
    cuts = {}
    for name, gamma in gammas.items():
        keep = gamma >= threshold
        keep[gamma.argmax()] = True  # every layer keeps at least one channel
        cuts[name] = (~keep).nonzero().flatten().tolist()
    return cuts


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Train with the penalty, cut under one threshold, fine-tune. Returns a really thinner network."""
    image = task.train.images[:1].to(task.device)
    model = train_sparse(model, task, config)
    model = remove_channels(model, image, below_threshold(scales(model, image), config.cut))
    return fit(model, task, share=1 - config.sparse_share)


def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Random channels to the same widths: the same steps before the cut (without the penalty) and after it."""
    image = task.train.images[:1].to(task.device)
    model = fit(model, task, share=config.sparse_share)
    goal, chance = widths(like), torch.Generator().manual_seed(task.seed)
    cuts = {name: torch.randperm(now, generator=chance)[goal[name] :].tolist() for name, now in widths(model).items() if goal[name] < now}
    return fit(remove_channels(model, image, cuts), task, share=1 - config.sparse_share)
