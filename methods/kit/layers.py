"""Replacing layers by cheaper ones: which can be, what takes their place, what the network feeds them."""

from __future__ import annotations

import copy
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils.hooks import RemovableHandle

Layer = nn.Conv2d | nn.Linear


def replaceable(
    model: nn.Module, why_not: Callable[[Any, bool], str], kinds: tuple[type[nn.Module], ...] = (nn.Conv2d,)
) -> tuple[dict[str, Any], dict[str, str]]:
    """The plain, ungrouped layers of these kinds, and why every other layer with a weight stays as it is.

    `why_not(layer, first)` answers with a method's own reason against a layer, or ""; `first` says that it is the network's
    first convolution. Exact types only: a subclass may do anything in its forward. Returns ({name: layer}, {name: reason}).
    """
    chosen, kept = dict[str, Any](), dict[str, str]()
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    for name, layer in model.named_modules():
        if type(layer) in kinds:
            reason = "a grouped convolution" if getattr(layer, "groups", 1) > 1 else why_not(layer, layer is first)
            if reason:
                kept[name] = reason
            else:
                chosen[name] = layer
        elif isinstance(getattr(layer, "weight", None), Tensor) and layer.weight.ndim > 1:
            kept[name] = f"no plain {' or '.join(kind.__name__ for kind in kinds)} but {type(layer).__name__}"
    return chosen, kept


def excluded(name: str, patterns: Iterable[str]) -> bool:
    """Whether a layer, or a part of the network around it, matches one of the patterns (fnmatch, on full names)."""
    parts = name.split(".")
    around = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return any(fnmatchcase(part, pattern) for part in around for pattern in patterns)


def name_the_kept(needs: str, chosen: Iterable[str], kept: Mapping[str, str]) -> None:
    """Log which layers stay as they are and why. Raises ValueError, beginning with `needs`, where none was chosen."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in kept.items()) or "no layer with weights"
    if not list(chosen):
        raise ValueError(f"{needs}, there is none ({reasons})")
    logging.getLogger(__name__).info("left as they are: %s", reasons)


def replaced(model: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of the network with these in place of the named layers, a shared layer under each of its names."""
    model = copy.deepcopy(model)
    swap = {model.get_submodule(name): part for name, part in parts.items()}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if layer is model and layer in swap:
            return swap[layer]
        if layer in swap:
            model.set_submodule(name, swap[layer])
    return model


def ranks_at(model: nn.Module, speedup: float, work: Callable[[nn.Conv2d], int], first: str) -> tuple[dict[str, int], dict[str, str]]:
    """The rank at which every convolution with columns and rows gets so much cheaper, and why each other layer stays.

    `work(layer)` are the multiply-adds for one output position and one unit of rank; `first` says why the first one stays.
    """

    def rank(layer: nn.Conv2d) -> int:
        return int(layer.weight.numel() / (speedup * work(layer)))

    def why_not(layer: nn.Conv2d, is_first: bool) -> str:
        if is_first:
            return first
        if 1 in layer.kernel_size:
            return f"a kernel of {layer.kernel_size[0]}x{layer.kernel_size[1]} has no columns and rows to split into"
        return "" if rank(layer) else f"too narrow to be {speedup:g} times faster"

    layers, kept = replaceable(model, why_not)
    return {name: rank(layer) for name, layer in layers.items()}, kept


def reparametrized(model: nn.Module) -> Iterator[tuple[str, str, str, str]]:
    """Weights that are computed from others before every pass: layer, weight, how, and the function that makes it plain."""
    for name, layer in model.named_modules():
        if parametrize.is_parametrized(layer):
            for tensor, parts in cast(nn.ModuleDict, layer.parametrizations).items():
                kinds = ", ".join(type(part).__name__.strip("_") for part in cast(nn.ModuleList, parts))
                yield name, tensor, f"parametrized ({kinds})", "torch.nn.utils.parametrize.remove_parametrizations"
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                yield name, str(hook._tensor_name), "masked", "torch.nn.utils.prune.remove"
            elif isinstance(hook, WeightNorm):
                yield name, hook.name, "normalised (weight_norm)", "torch.nn.utils.remove_weight_norm"
            elif isinstance(hook, SpectralNorm):
                yield name, hook.name, "normalised (spectral_norm)", "torch.nn.utils.remove_spectral_norm"


def refuse_reparametrized(model: nn.Module) -> None:
    """Raises ValueError, with the line of code that makes it plain, if a weight is computed from others: who sets it sets nothing.

    Of torch: pruning masks, parametrizations, weight and spectral norm of both kinds.
    """
    for name, tensor, how, cure in reparametrized(model):
        layer = f'model.get_submodule("{name}")'
        raise ValueError(f'{name or "the network"}: its {tensor} is {how}, no plain weight; make it one first: {cure}({layer}, "{tensor}")')


def unmasked(model: nn.Module) -> nn.Module:
    """The network; or where masks of `torch.nn.utils.prune` hide weights, a copy whose weights are the products with the masks."""
    masked = [(name, tensor) for name, tensor, how, _ in reparametrized(model) if how == "masked"]
    if masked:
        held = [value for part in model.modules() for value in vars(part).values() if isinstance(value, Tensor)]
        model = copy.deepcopy(model, {id(value): value.detach().clone() for value in held})  # which refuses what has a history
        for name, tensor in masked:
            prune.remove(model.get_submodule(name), tensor)
    return model


def fresh(model: nn.Module) -> nn.Module:
    """A copy with new random weights, drawn as each layer draws its own."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        draw: Any = getattr(layer, "reset_parameters", None)
        if draw:
            draw()
    return model


def geometry(layer: nn.Conv2d) -> dict[str, Any]:
    """Kernel size, stride, padding, dilation and padding mode, as arguments of another convolution."""
    return {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}


def along(layer: nn.Conv2d, axis: int, inputs: int, outputs: int, **settings: Any) -> nn.Conv2d:
    """A convolution with columns (axis 0) or rows (axis 1): the layer's geometry along the axis, none across."""

    def only(values: tuple[int, ...], across: int) -> tuple[int, ...]:
        return tuple(value if place == axis else across for place, value in enumerate(values))

    shape: dict[str, Any] = geometry(layer) | {"kernel_size": only(layer.kernel_size, 1), "stride": only(layer.stride, 1)}
    if not isinstance(layer.padding, str):
        shape["padding"] = only(layer.padding, 0)
    return nn.Conv2d(inputs, outputs, **shape, **settings)


@torch.no_grad()
def filled(layer: Layer, parts: Iterable[Any], weights: Iterable[Tensor]) -> nn.Sequential:
    """The parts, one after the other, with these weights, in the layer's precision; the last one with the layer's bias."""
    chain = [part.to(layer.weight) for part in parts]
    for part, weight in zip(chain, weights, strict=True):
        part.weight.copy_(weight.reshape(part.weight.shape))
    if layer.bias is not None:
        chain[-1].bias.copy_(layer.bias)
    return nn.Sequential(*chain)


def truncated_svd(layer: Layer, rank: int) -> nn.Sequential:
    """The weight as an N x C d^2 matrix of the rank: a narrower layer and a 1x1 convolution, or two dense layers."""
    outputs, inputs = layer.weight.shape[:2]
    u, spectrum, w = torch.linalg.svd(layer.weight.detach().double().flatten(1), full_matrices=False)
    rank, bias = min(rank, len(spectrum)), layer.bias is not None
    weights = [spectrum[:rank, None] * w[:rank], u[:, :rank]]
    if isinstance(layer, nn.Linear):
        return filled(layer, [nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias)], weights)
    return filled(layer, [nn.Conv2d(inputs, rank, **geometry(layer), bias=False), nn.Conv2d(rank, outputs, 1, bias=bias)], weights)


@torch.no_grad()
def run(model: nn.Module, images: Tensor, seen: Callable[[str, Tensor, Tensor], Tensor | None], names: Iterable[str]) -> None:
    """Run the network; `seen` gets each named layer's input and output when it first runs, and may answer with another output.

    What it gets may be overwritten by a later layer that works in place: clone what is to be kept.
    """

    handles = dict[str, RemovableHandle]()

    def watch(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
            handles[name].remove()
            return seen(name, inputs[0], output)

        handles[name] = model.get_submodule(name).register_forward_hook(hook)

    try:
        for name in names:
            watch(name)
        model.eval()(images)
    finally:
        for handle in handles.values():
            handle.remove()


def responses(model: nn.Module, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """What each named layer answers."""
    found: dict[str, Tensor] = {}
    run(model, images, lambda name, x, y: found.update({name: y.clone()}), names)
    return found


def output_error(model: nn.Module, reference: nn.Module, images: Tensor) -> float:
    """Relative error of a network's intermediate outputs: ||ours - theirs|| / ||theirs||, the root mean square over places.

    A place is the last layer in each of the reference's outermost parts with a convolution that both networks run under one
    name: behind batch norm and ReLU, where there are any. Every network sees its own inputs. Not a number where there is none.
    """
    here = dict(model.named_modules())
    names = [name for name, layer in reference.named_modules() if not list(layer.children()) and name in here]
    ours, theirs = responses(model, images, names), responses(reference, images, names)
    last = {name.partition(".")[0]: name for name in theirs if name in ours}
    parts = {name.partition(".")[0] for name, layer in reference.named_modules() if isinstance(layer, nn.Conv2d)}
    squares = [
        float((ours[name] - theirs[name]).square().sum() / theirs[name].square().sum()) for part, name in last.items() if part in parts
    ]
    return float(torch.tensor(squares).mean().sqrt())


def frame(layer: nn.Conv2d) -> list[int]:
    """The layer's padding as `F.pad` wants it, "same" in numbers: left, right, top, bottom."""
    return list(layer._reversed_padding_repeated_twice)


def patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What an ungrouped convolution multiplies with its kernel: inputs (N, C, H, W) -> (N, H'W', C d e), places in row order."""
    x = F.pad(x, frame(layer), "constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    return F.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride).transpose(1, 2)


def share_that_costs(goal: float, cost: Callable[[float], float], steps: int = 1000) -> float:
    """The share in [0, 1] whose cost is nearest to the goal; `cost` must not fall as the share rises."""
    shares = [step / steps for step in range(steps + 1)]
    above = bisect_left(shares, goal, key=cost)
    return min(shares[max(above - 1, 0) : above + 1], key=lambda share: abs(cost(share) - goal))


def disturbed(teacher: nn.Module, learn: Callable[[], object]) -> float:
    """Largest change of a teacher's weights and statistics while `learn` runs, plus its layers' answers in training mode or with gradient.

    The teacher starts in training mode and with gradients: to freeze it is `learn`'s business. Zero is right.
    """
    teacher.train().requires_grad_()
    before, wrong, layers = copy.deepcopy(teacher.state_dict()), [0], set(teacher.modules())

    def watch(layer: nn.Module, inputs: object, answer: Tensor) -> None:
        wrong[0] += (layer.training + answer.requires_grad) * (layer in layers)  # a copy has the hooks too

    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        learn()
    finally:
        for hook in hooks:
            hook.remove()
    return wrong[0] + max(float((value.double() - before[key].double()).abs().max()) for key, value in teacher.state_dict().items())
