"""Network Slimming (Liu et al., ICCV 2017).

An L1 penalty on every batch-norm scale makes useless channels switch themselves off while the network trains. One
threshold for the whole network then decides which channels go; they are really removed, and a little more training
without the penalty repairs the rest.

Departures: the penalised training starts from a trained network, with the scales as they are, instead of from scratch
with scales of 0.5; one pass instead of several; every layer keeps at least one channel; channels that a shortcut ties to
another layer, or that are read in groups, keep their width (the paper puts a channel selection in front of each block
instead), and so do channels without which the network is another one than with zeros in their place, and neurons of dense
layers; the share that is cut is of the channels that can be. Both phases use the kit's training (weight decay 5e-4, one cosine
each). In a smoke run the penalty is 300 times the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.layers import name_the_kept
from methods.kit.surgery import at_random, free_channels, in_multiples, narrowed, norm_after, remove_channels, widths
from methods.kit.task import Task, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    penalty: float = 1e-4  # lambda of Eq. 1, §4.3 (VGG; 1e-5 for ResNet-164 and DenseNet-40)
    cut: float = 0.7  # share of channels removed, Table 1 (VGG on CIFAR-10)
    sparse_share: float = 0.5  # of the budget goes to training with the penalty, the rest to fine-tuning, §4.3


SMOKE = Config(penalty=3e-2, cut=0.4)  # 1e-4 needs epochs to act, and 70% epochs to repair; a smoke run has seconds


def reference(task: Task) -> nn.Module:
    """A small VGG in the place of Table 1 (a)'s VGG-19."""
    return nets.trained("vgg_wide", task.name)


def build(variant: str) -> nn.Module:
    """The paper's own network, to be counted."""
    return nets.NETS[variant]()


def scale_norm(model: nn.Module) -> Tensor:
    """g(gamma) of Eq. 1: the sum of |gamma| over all batch-norm scales."""
    return torch.stack([layer.weight.abs().sum() for layer in model.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]).sum()


def train_sparse(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """L = sum l(f(x, W), y) + lambda sum |gamma|  (Eq. 1)."""
    return fit(model, task, lambda m, x, y: task.loss_of(m, x, y) + config.penalty * scale_norm(m), share=config.sparse_share)


def norms_to_slim(model: nn.Module, image: Tensor, exclude: Iterable[str] = ()) -> dict[str, str]:
    """The convolutions whose channels can be removed, each with the batch norm behind it that scales them."""
    free, kept = free_channels(model, image, exclude)
    norms = {name: norm for name, norm in norm_after(model, image).items() if name in free and model.get_submodule(norm).affine}
    kept |= {name: "no batch norm behind it that scales" for name in free if name not in norms}
    name_the_kept("network slimming needs a convolution with a batch norm and channels of its own", norms, kept)
    return norms


def scales(model: nn.Module, norms: dict[str, str]) -> dict[str, Tensor]:
    """|gamma| of every channel that can be removed, by the convolution that makes the channel."""
    return {name: model.get_submodule(norm).weight.detach().abs() for name, norm in norms.items()}


def below_threshold(gammas: dict[str, Tensor], cut: float) -> dict[str, list[int]]:
    """Channels under one global threshold, the percentile `cut` of all |gamma| (§3, "Channel Pruning and Fine-tuning"), smallest first."""
    every = torch.cat(list(gammas.values()))
    under = torch.zeros_like(every, dtype=torch.bool)
    under[every.argsort(stable=True)[: int(cut * len(every))]] = True  # by rank: scales that are all zero are cut too
    cuts = {}
    for (name, gamma), cut_here in zip(gammas.items(), under.split([len(g) for g in gammas.values()]), strict=True):
        cut_here[gamma.argmax()] = False  # every layer keeps at least one channel
        cuts[name] = [channel for channel in gamma.argsort(stable=True).tolist() if cut_here[channel]]
    return cuts


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Train with the penalty, cut under one threshold, fine-tune. Returns a really thinner network."""
    image = task.train.first(1).images.to(task.device)
    norms = norms_to_slim(model, image, task.exclude)
    model = train_sparse(model, task, config)
    cuts = in_multiples(below_threshold(scales(model, norms), config.cut), widths(model), task.multiple)
    return fit(remove_channels(model, image, cuts, norms), task, share=1 - config.sparse_share)


@on_copies
def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Random channels to the same widths: the same steps before the cut (without the penalty) and after it."""
    image = task.train.first(1).images.to(task.device)
    model = fit(model, task, share=config.sparse_share)
    return fit(narrowed(model, image, widths(like), at_random(task.seed)), task, share=1 - config.sparse_share)


@on_copies
def control_unpenalised(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same cut by |gamma| and the same steps, but trained without the penalty: the same number of channels goes."""
    return compress(model, task, replace(config, penalty=0.0))
