"""How images and weights lie in memory: one decision for training, judging and timing a network."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from methods.kit.watch import unseen

FEWEST = 8  # input channels; with fewer, oneDNN's gradient of a strided 1x1 kernel writes past its buffer (uxlfoundation/oneDNN#6035)


class Watching(TorchDispatchMode):
    """Sees every operation; does without torch's compiler, whose import takes a second and more."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Convolutions(Watching):
    """Whether one of the convolutions that run is one that channels last may not have."""

    unsafe = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func._overloadpacket is torch.ops.aten.convolution:
            weight, stride = args[1], args[3]
            self.unsafe |= is_unsafe(weight.shape[1], weight.shape[2:], stride)
        return func(*args, **(kwargs or {}))


def is_unsafe(inputs: int, kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether a convolution of so many input channels a group, trained in channels last, kills a process without AVX-512."""
    return inputs < FEWEST and set(kernel) == {1} and max(stride) > 1


def memory_format(model: nn.Module, image: Tensor) -> torch.memory_format:
    """The layout in which a network learns and runs: channels last where it can bear it, for that is faster, else contiguous.

    It cannot bear it where `is_unsafe` says so of a convolution, a layer's or a functional one that runs on `image` (1, C, H, W);
    where a weight has five dimensions, which torch refuses; and where the pass itself fails, as `view` does behind a convolution.
    """
    tensors = [*model.parameters(), *model.buffers()]
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    if image.ndim != 4 or not layers or any(tensor.ndim > 4 for tensor in tensors):
        return torch.contiguous_format
    if any(is_unsafe(layer.in_channels // layer.groups, layer.kernel_size, layer.stride) for layer in layers):
        return torch.contiguous_format
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), unseen(), _Convolutions() as seen:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # what comes out depends on the weights' layout, too
            _unwatched(model).eval()(image.to(memory_format=torch.channels_last))
    except Exception:  # what a loss feeds the network may be something else: the layout is all that is decided here
        return torch.contiguous_format
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return torch.contiguous_format if seen.unsafe else torch.channels_last


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing; what a part computed and keeps as an attribute, as `weight_norm` does, is copied as a number."""
    computed = [value for part in model.modules() for value in vars(part).values() if isinstance(value, Tensor) and not value.is_leaf]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})


def sharing(model: nn.Module) -> nn.Module:
    """A copy that shares all tensors: what is put in a tensor's place there, or hooked to a part, is not put here."""
    tensors = [value for part in model.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*tensors, *model.parameters(), *model.buffers())})


def _unwatched(model: nn.Module) -> nn.Module:
    """The same network, tensors shared, without hooks: nobody who counts passes sees one more."""
    twin = sharing(model)
    for part in twin.modules():
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
    return twin


def suited(model: nn.Module, images: Tensor) -> Tensor:
    """Images on a network's device and in the floating type that it computes in: that of its first weight of two or more dimensions,
    or of its first parameter; as they are where it has none."""
    known = [p for p in model.parameters() if p.is_floating_point()]
    like = next((p for p in known if p.ndim > 1), known[0] if known else None)
    device = next((tensor.device for tensor in (*known, *model.buffers())), images.device)
    return images.to(device, like.dtype if like is not None and images.is_floating_point() else images.dtype)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Networks in evaluation mode; afterwards each of their parts is in the mode in which it was."""
    modes = {part: part.training for model in models for part in model.modules() if hasattr(part, "training")}
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def laid_out(model: nn.Module, image: Tensor) -> Iterator[torch.memory_format]:
    """Lay a network out as `memory_format` says, for as long as it learns or runs there; its images are the caller's to lay out.

    Afterwards it is contiguous again: what a method does with a layer of its own must not depend on where the layer came from.
    """
    layout = memory_format(model, image)
    model.to(memory_format=layout)  # type: ignore[call-overload]
    try:
        yield layout
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


_bears: WeakKeyDictionary[nn.Module, torch.memory_format] = WeakKeyDictionary()


def ask(model: nn.Module, images: Tensor) -> Any:
    """What a network answers that is not the one that learns, a teacher for instance: images may be laid out as it cannot bear."""
    if model not in _bears:
        _bears[model] = memory_format(model, images[:1])
    return model(images.to(memory_format=_bears[model]))
