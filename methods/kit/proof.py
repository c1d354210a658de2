"""Whether a network without some channels is the one that has them zeroed where their readers read them.

Readers are convolutions and dense layers; what lies between them (batch norm, activations, pooling, depthwise convolutions)
passes a channel on. Each reader is judged alone: whatever it gets, it goes on as it went in the whole network.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from methods.kit.layers import plain
from methods.kit.layout import copied

CONVOLUTION = nn.modules.conv._ConvNd
Cuts = Mapping[str, Sequence[int]]
Call = tuple[str, int]  # a layer's name, and how many times it has run
Layer = Callable[..., Tensor]
Run = Callable[[Layer, Tensor], Tensor]
Forward = Callable[[Call, Tensor, Run, Layer], Tensor]


@dataclass(frozen=True)
class Trial:
    """A network with weights that hide nothing, and what each reader read and answered on random images, in `image`'s precision."""

    whole: nn.Module
    image: Tensor
    readers: list[str]
    seen: dict[Call, tuple[Tensor, Tensor]]
    answer: list[Tensor]

    def same(self, ours: Tensor, theirs: Tensor) -> bool:
        """Equal up to rounding."""
        bound = torch.finfo(self.image.dtype).eps ** 0.5 * (1 + theirs.abs().max()) if theirs.numel() else 0
        return ours.shape == theirs.shape and bool(((ours - theirs).abs() <= bound).all())


def is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, CONVOLUTION) and layer.groups == layer.in_channels == layer.out_channels > 1


def tensors(answer: Any) -> Iterator[Tensor]:
    """All tensors in what a network answers: a tensor, or a sequence, mapping or object of them."""
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, list | tuple):
        for part in answer:
            yield from tensors(part)
    elif isinstance(answer, Mapping) or hasattr(answer, "__dict__"):
        yield from tensors(list((answer if isinstance(answer, Mapping) else vars(answer)).values()))


def one_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {shorten(str(problem) or 'no message', 100, placeholder=' ...')}"


@torch.no_grad()
def trial(model: nn.Module, image: Tensor, kind: torch.dtype = torch.float64) -> Trial:
    """Run a copy of the network on random numbers in the place of `image` (N, C, H, W). Raises what it raises."""
    whole, chance = copied(model).eval().to(kind), torch.Generator().manual_seed(0)
    for parameter in whole.parameters():
        hidden = parameter.abs() < 1e-3  # a scale of zero would hide its channel
        if parameter.is_floating_point() and (parameter.ndim < 2 or hidden.all()):
            parameter.copy_(torch.where(hidden, 0.5 + _random(parameter, chance), parameter))
    readers = [name for name, layer in whole.named_modules() if isinstance(layer, CONVOLUTION | nn.Linear) and not is_depthwise(layer)]
    seen = dict[Call, tuple[Tensor, Tensor]]()

    def note(call: Call, x: Tensor, run: Run, own: Layer) -> Tensor:
        x = x.clone()  # what runs in place behind it would overwrite it
        y = run(own, x)
        seen[call] = x, y.clone()
        return y

    image = 2 * _random(image.to(kind), chance) - 1
    return Trial(whole, image, readers, seen, _run(whole, image, readers, note))


def _random(like: Tensor, chance: torch.Generator) -> Tensor:
    """Numbers between 0 and 1, the same on every device."""
    return torch.rand(like.shape, generator=chance).to(like)


def _run(model: nn.Module, image: Tensor, readers: Iterable[str], forward: Forward) -> list[Tensor]:
    """What the network answers, with another forward in place of each reader's.

    It gets which call it is, the input, `run(layer, input)`, which passes on what else the reader is given, and its own forward.
    """
    times = Counter[str]()

    def instead(name: str, own: Layer) -> Layer:
        def watched(x: Tensor, *rest: Any, **named: Any) -> Tensor:
            times[name] += 1
            return forward((name, times[name]), x, lambda layer, x: layer(x, *rest, **named), own)

        return watched

    layers = {name: model.get_submodule(name) for name in readers}
    kept = {name: vars(layer)["forward"] for name, layer in layers.items() if "forward" in vars(layer)}
    try:
        for name, layer in layers.items():
            layer.forward = instead(name, layer.forward)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return [tensor.clone() for tensor in tensors(model(image.clone()))]
    finally:
        for name, layer in layers.items():
            del layer.forward
            if name in kept:
                layer.forward = kept[name]


def _axis(layer: nn.Module) -> int:
    """Where a reader has its channels, counted from the end."""
    return -1 - len(layer.kernel_size) if isinstance(layer, CONVOLUTION) else -1


def _corner(layer: nn.Module, x: Tensor) -> Tensor:
    """As much of a convolution's input as one place of its output reads: it tells which channels meet which weights."""
    if not plain(layer, (nn.Conv2d,)) or layer.padding_mode != "zeros":
        return x
    height, width = (d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))  # type: ignore[arg-type]
    return x[..., :height, :width]


def _disturbed(known: Trial, cuts: Cuts, sign: int, hear: Callable[[Call, Tensor], None]) -> list[Tensor]:
    """What the network answers when these channels of these layers are others, and every reader answers as before."""
    chance = torch.Generator().manual_seed(1)

    def forward(call: Call, x: Tensor, run: Run, own: Layer) -> Tensor:
        y = known.seen[call][1].clone()
        hear(call, x)
        if call[0] in cuts:
            part = y.movedim(_axis(known.whole.get_submodule(call[0])), 0)
            gone = list(cuts[call[0]])
            part[gone] += sign * (1 + y.abs().max()) * (1 + 9 * _random(part[gone], chance))
        return y

    return _run(known.whole, known.image, known.readers, forward)


def _read(known: Trial, cuts: Cuts) -> tuple[dict[Call, Tensor], bool]:
    """Which channels of each reader's input come from these channels, past no other reader; whether the answer changes."""
    read, answers = dict[Call, Tensor](), False

    def hear(call: Call, x: Tensor) -> None:
        changed = (x != known.seen[call][0]).movedim(_axis(known.whole.get_submodule(call[0])), 0).flatten(1).any(1)
        read[call] = read.get(call, torch.zeros_like(changed)) | changed

    for sign in (1, -1):  # up and down: behind an activation one of both may look as before
        found = _disturbed(known, cuts, sign, hear)
        answers |= any(not torch.equal(ours, theirs) for ours, theirs in zip(found, known.answer, strict=True))
    return read, answers


@torch.no_grad()
def difference(known: Trial, thin: nn.Module, cuts: Cuts) -> str:
    """What removing these channels, as in `thin`, does that zeroing them where they are read does not: "breaks ...", or "" for nothing."""
    read, answers = _read(known, cuts)
    if answers:
        return "changes the network's output itself"
    wrong = list[str]()

    def forward(call: Call, x: Tensor, run: Run, own: Layer) -> Tensor:
        layer, (whole_x, y) = known.whole.get_submodule(call[0]), known.seen[call]
        axis, shape = _axis(layer), [1] * whole_x.ndim
        shape[axis] = -1
        wanted = run(layer, _corner(layer, whole_x.masked_fill(read[call].view(shape), 0)))
        if call[0] in cuts:
            stay = torch.tensor([c for c in range(y.shape[axis]) if c not in cuts[call[0]]], device=y.device)
            wanted, y = wanted.index_select(axis, stay), y.index_select(axis, stay)
        try:
            fits = known.same(run(own, _corner(layer, x)), wanted)
        except Exception:  # it has lost other inputs than it gets fewer
            fits = False
        if not fits:
            wrong.append(call[0])
        return y.clone()

    try:
        found = _run(thin, known.image, known.readers, forward)
    except Exception as problem:
        return f"breaks the network ({one_line(problem)})"
    if not wrong and all(known.same(ours, theirs) for ours, theirs in zip(found, known.answer, strict=True)):
        return ""
    return "is not the same as zeroing it" + (f" where {wrong[0]} reads it" if wrong else "")


@torch.no_grad()
def difference_in_training(known: Trial, thin: nn.Module) -> str:
    """What goes wrong in `thin` where only training runs a reader, an auxiliary head for instance; "" if nothing."""
    idle = [name for name in known.readers if (name, 1) not in known.seen]
    images, where = known.image.repeat(2, *[1] * (known.image.ndim - 1)), list[str]()

    def forward(call: Call, x: Tensor, run: Run, own: Layer) -> Tensor:
        where.append(call[0])
        y = run(own, x)
        where.pop()
        return y

    def train(model: nn.Module) -> None:
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]  # batch norm counts what it sees
        try:
            _run(model.train(), images, idle, forward)
        finally:
            model.eval()
            for buffer, before in buffers:
                buffer.copy_(before)

    try:
        if idle:
            train(known.whole)
    except Exception:  # it wants more than images: there is nothing to compare with
        return ""
    try:
        if idle:
            train(thin)
    except Exception as problem:
        return f"breaks the network in training ({where[0] if where else one_line(problem)})"
    return ""


@torch.no_grad()
def passed(known: Trial, cuts: Cuts) -> list[str]:
    """The other layers that these channels run through before a reader has read them."""
    before, changed = dict[str, list[Tensor]](), list[str]()

    @contextmanager
    def watching(seen: Callable[[str, list[Tensor]], object]) -> Iterator[None]:
        hooks = [
            layer.register_forward_hook(lambda _, inputs, answer, name=name: seen(name, list(tensors(answer))) and None)
            for name, layer in known.whole.named_modules()
            if name and name not in known.readers
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def compare(name: str, answer: list[Tensor]) -> None:
        if any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(answer, before[name], strict=True)):
            changed.append(name)

    with watching(lambda name, answer: before.update({name: [tensor.clone() for tensor in answer]})):
        _disturbed(known, {}, 1, lambda call, x: None)
    with watching(compare):
        _disturbed(known, cuts, 1, lambda call, x: None)
    return changed
