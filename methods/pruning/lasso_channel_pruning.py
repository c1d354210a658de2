"""LASSO channel pruning (He, Zhang and Sun, ICCV 2017).

A trained network is thinned layer by layer from the front. A LASSO over one number a channel tells which input channels of a
convolution its sampled outputs need; least squares then give the kernels of those that stay new weights. Outputs are the original
network's and inputs those of the network as pruned so far, so that each layer makes up for those before it; one whose answer is
added to a shortcut makes up for the shortcut's error as well. A gentle training of the whole network may follow.

Departures: the whole path of the LASSO is computed at once (least-angle regression) in place of trials with a growing penalty, from
all samples; where several layers read a channel, their errors count together and each gets weights of its own; of all weights that
fit equally well the nearest to the old ones are taken; batch norm stays, so a shortcut's error is divided by its scale. The first
layer of a residual branch reads all channels of the shortcut, which the paper samples, and the last layers are pruned, too, which
the paper spares in VGG-16. Training is the kit's (Nesterov momentum, weight decay 5e-4, one cosine). In a smoke run fewer images
at more places, and 300 times the rate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from methods.kit import nets
from methods.kit.layers import Layer, chunks, patches_at
from methods.kit.layout import copied, evaluating
from methods.kit.surgery import by_l1_norm, first_ones, narrower, norm_after, readers, remove_channels, widths_left
from methods.kit.task import Task, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    kept: float = 0.35  # share of the channels that stays in shallow layers; ours, for the paper's five times
    deeper: float = 1.5  # times as much stays in deep ones, §4.1.2
    shallow: float = 0.7  # seven of VGG-16's ten pruned layers are shallow, §4.1.2
    images: int = 5000  # §4.1
    places: int = 10  # of each image's output, §4.1
    rate: float = 1e-5  # of training, §4.1.2


SMOKE = Config(images=128, places=80, rate=3e-3)  # thousands of samples, and steps instead of ten epochs
LONG = Config(images=1000, places=20, rate=3e-3)

Samples = tuple[Tensor, Tensor]  # X^T X (C d e, C d e) and X^T R (C d e, N), R what the outputs still lack
Choose = Callable[[str, nn.Conv2d, Tensor, Tensor, int], Sequence[int]]  # which channels stay, at most so many, by Z^T Z and Z^T y


def reference(task: Task) -> nn.Module:
    """A small VGG in the place of VGG-16."""
    return nets.trained("vgg_wide", task.name)


def build(variant: str) -> nn.Module:
    """VGG-16 without its dense layers, whole or as the authors' released network has it, to be counted."""
    return nets.vgg({"vgg16": nets.VGG16, "vgg16_5x": FIVE_TIMES}[variant])


FIVE_TIMES: nets.Plan = [24, 22, "pool", 41, 51, "pool", 108, 89, 111, "pool", 184, 276, 228, "pool", 512, 512, 512]


def goal(model: nn.Module, task: Task, config: Config) -> dict[str, int]:
    """How many channels stay of what each layer makes; shallow ones keep less (§4.1.2)."""

    def keep(depth: float, wide: int) -> int:
        return round(config.kept * (1 if depth < config.shallow else config.deeper) * wide)

    return widths_left(model, task, keep, "channel pruning needs a convolution whose channels another one or a dense layer reads")


class Enough(Exception):
    """All has been seen."""


class Sum(TorchFunctionMode):
    """Notes what is added to `answer`, once that is set."""

    answer = added = cast(Tensor | None, None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.answer is not None and func in ADDITIONS and any(part is self.answer for part in args[:2]):
            others = [part for part in args[:2] if part is not self.answer and getattr(part, "shape", None) == self.answer.shape]
            self.added = others[0].clone() if others else None
        return func(*args, **(kwargs or {}))


ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}


def scale(norm: nn.Module) -> Tensor:
    """By what a batch norm multiplies each channel (N, 1, 1); one for any other layer."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
        return torch.ones(())
    return ((norm.weight if norm.affine else 1) / (norm.running_var + norm.eps).sqrt())[:, None, None]


@torch.no_grad()
def passing(model: nn.Module, images: Tensor, name: str, last: str, wait: bool = True) -> tuple[Tensor, Tensor, bool]:
    """What a layer reads and answers, and whether something is added behind it: then that is in the answer, too (Y1 + Y2 of §3.3).

    `last` is the batch norm behind the layer, by whose scale the addend is divided, or the layer itself. Without `wait` no addition
    is waited for.
    """
    layer, norm, seen = model.get_submodule(name), model.get_submodule(last), list[tuple[Tensor, Tensor]]()

    def note(_: nn.Module, inputs: tuple[Tensor], answer: Tensor) -> None:
        seen.append((inputs[0].clone(), answer.clone()))

    def behind(_: nn.Module, inputs: tuple[Tensor], answer: Tensor) -> None:
        sums.answer = answer
        if not wait:
            raise Enough

    hooks = [layer.register_forward_hook(note), norm.register_forward_hook(behind)]
    try:
        with evaluating(model), Sum() as sums:
            model(images)
    except Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    (x, y), added = seen[0], sums.added
    return x, y if added is None else y + torch.where(scale(norm) == 0, 0, added / scale(norm)), added is not None


def statistics(small: nn.Module, whole: nn.Module, read: Mapping[str, str], images: Tensor, places: int, seed: int) -> dict[str, Samples]:
    """X^T X and X^T R of the layers that read some channels: X from the network as pruned so far, aimed at the original one's (§3.2).

    `read` names each with the batch norm behind it, or itself.
    """
    found = dict[str, Samples]()
    for reader, last in read.items():
        layer: Any = small.get_submodule(reader)
        point = layer if isinstance(layer, nn.Linear) else nn.Conv2d(1, 1, 1)
        wait = passing(whole, images[:1], reader, last)[2]
        for number, part in enumerate(chunks(small, images)):
            x, now, _ = passing(small, part, reader, last, wait)
            lack = patches_at(point, passing(whole, part, reader, last, wait)[1] - now, places, seed + number)[..., 0]
            taken = patches_at(layer, x, places, seed + number).flatten(1)
            sums = ((taken.T @ taken).double(), (taken.T @ lack).double())
            found[reader] = (found[reader][0] + sums[0], found[reader][1] + sums[1]) if reader in found else sums
    return found


def kernels(layer: Layer) -> Tensor:
    """Weights as the samples have them: (C d e, N)."""
    return layer.weight.detach().double().flatten(1).T


def regression(layer: Layer, whose: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """Z^T Z (c, c) and Z^T y (c,) of the LASSO: Z_i = X_i W_i^T is what channel i adds to all outputs (§3.1 (i))."""
    (products, lack), weight = samples, kernels(layer)
    mine = nn.functional.one_hot(whose + 1)[:, 1:].double().repeat_interleave(len(weight) // len(whose), 0)  # (C d e, c)
    gram = mine.T @ (products * (weight @ weight.T)) @ mine
    return gram, mine.T @ (lack * weight).sum(1) + gram.sum(1)  # of what the channels add now, and what is lacking


def lasso(name: str, layer: nn.Conv2d, gram: Tensor, cross: Tensor, count: int) -> list[int]:
    """min over beta of 1/2N || Y - sum beta_i Z_i ||^2 + lambda || beta ||_1: what stays at the least lambda that keeps few enough."""
    from sklearn.linear_model import lars_path_gram

    alive = (gram.diagonal() > 0).nonzero().flatten()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of channels that say the same
        betas = lars_path_gram(cross[alive].cpu().numpy(), gram[alive][:, alive].cpu().numpy(), n_samples=1, method="lasso")[2]
    few = betas[:, np.flatnonzero((betas != 0).sum(0) <= count)[-1]]
    chosen = alive[torch.from_numpy(few != 0).to(alive.device)].tolist()
    return [*chosen, *(channel for channel in range(len(gram)) if channel not in chosen)][:count]


@torch.no_grad()
def reconstruct(layer: Layer, whose: Tensor, samples: Samples, stays: Sequence[int]) -> None:
    """min over W' of || Y - X' W'^T ||^2 for the channels that stay, in place (§3.1 (ii))."""
    (products, lack), weight, each = samples, kernels(layer), layer.weight[0, 0].numel()
    stay = torch.isin(whose, torch.tensor(stays).to(whose))
    kept, gone = stay.repeat_interleave(each), ((whose >= 0) & ~stay).repeat_interleave(each)
    inverse = torch.linalg.pinv(products[kept][:, kept], rtol=1e-7, hermitian=True)
    weight[kept] += inverse @ (lack[kept] + products[kept][:, gone] @ weight[gone])
    layer.weight.copy_(weight.T.reshape(layer.weight.shape))


def pruned(model: nn.Module, task: Task, config: Config, left: Mapping[str, int], choose: Choose, *, rebuilt: bool = True) -> nn.Module:
    """Layer after layer from the front (§3.2): choose channels by those that read them, rebuild their answers, remove the filters; train.

    `left` says how many channels stay.
    """
    image, images = task.train.first(1).images.to(task.device), task.train.sample(config.images, task.seed).images.to(task.device)
    norms, small = norm_after(model, image), copied(model)
    for name, stays in left.items():
        read, layer = readers(small, image, [name])[name], cast(nn.Conv2d, small.get_submodule(name))
        samples = statistics(small, model, {reader: norms.get(reader, reader) for reader in read}, images, config.places, task.seed)
        sums = [regression(cast(Layer, small.get_submodule(reader)), whose, samples[reader]) for reader, whose in read.items()]
        chosen = choose(name, layer, *(torch.stack(part).sum(0) for part in zip(*sums, strict=True)), stays)
        for reader, whose in read.items() if rebuilt else ():
            reconstruct(cast(Layer, small.get_submodule(reader)), whose, samples[reader], chosen)
        small = remove_channels(small, image, {name: sorted({*range(layer.out_channels)} - {*chosen})}, left)
    return fit(small, task, lr=config.rate)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Choose by the LASSO and rebuild by least squares, layer after layer; then train gently."""
    return pruned(model, task, config, goal(model, task, config), lasso)


def narrowed(model: nn.Module, task: Task, config: Config, like: nn.Module, choose: Choose, *, rebuilt: bool = True) -> nn.Module:
    """To the widths of `like`."""
    return pruned(model, task, config, narrower(model, task.train.first(1).images.to(task.device), like), choose, rebuilt=rebuilt)


def the_first(order: Callable[[str, nn.Conv2d], Sequence[int]]) -> Choose:
    """The first channels of an order of the kit."""
    return lambda name, layer, gram, cross, count: order(name, layer)[:count]


@on_copies
def control_first(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The first k channels (§4.1.1); least squares, stages and steps are the same."""
    return narrowed(model, task, config, like, the_first(first_ones))


@on_copies
def control_response(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The channels whose filters have the largest sums of absolute weights ("max response", §4.1.1); all else is the same."""
    return narrowed(model, task, config, like, the_first(by_l1_norm))


@on_copies
def control_masked(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The LASSO's channels with their old weights; stages and steps are the same."""
    return narrowed(model, task, config, like, lasso, rebuilt=False)
