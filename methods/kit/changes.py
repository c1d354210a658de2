"""What became of a network, layer by layer, found by comparing it with what was returned."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


class _Heard(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.INFO)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def noted() -> Iterator[list[str]]:
    """What methods and kit say meanwhile of layers that stay as they are, and why."""
    said, logger = list[str](), logging.getLogger("methods")
    heard, level = _Heard(said), logger.level
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)


class Change(NamedTuple):
    """What became of a layer, in words."""

    name: str
    what: str


def changes(before: nn.Module, after: nn.Module) -> list[Change]:
    """Of every layer with weights, in the order of registration; a shared one once. Empty where the two have no layer in common."""
    there = dict(after.named_modules(remove_duplicate=False))
    layers = {name: layer for name, layer in before.named_modules() if own(layer)}
    if not any(name in there for name in layers):
        return []
    return [change(name, layer, there.get(name)) for name, layer in layers.items()]


def own(layer: nn.Module) -> Mapping[str, Tensor]:
    """A layer's own tensors of two or more dimensions: parameters, and buffers called weight."""
    named = {**layer._parameters, **{name: value for name, value in layer._buffers.items() if name.startswith("weight")}}
    return {name: value for name, value in named.items() if value is not None and value.ndim > 1}


def change(name: str, old: nn.Module, new: nn.Module | None) -> Change:
    kind = type(old).__name__
    if new is None:
        return Change(name, f"{kind}: is gone")
    if isinstance(new, nn.Sequential) and not isinstance(old, nn.Sequential):
        parts = " + ".join(_shape(part) for part in new if own(part))
        return Change(name, f"{_shape(old)} → {parts}")
    if _shape(old) != _shape(new):
        return Change(name, f"{_shape(old)} → {_shape(new)}")
    mine, theirs = own(old), own(new)
    if mine.keys() != theirs.keys():
        return Change(name, f"{kind} → {type(new).__name__}")
    if all(torch.equal(value, theirs[key]) for key, value in mine.items()):
        return Change(name, f"{_shape(old)}: as it was")
    zeros = sum(int((value == 0).sum()) for value in theirs.values()) / sum(value.numel() for value in theirs.values())
    levels = max(len(value.unique()) for value in theirs.values())
    few = levels <= min(256, max(value.numel() for value in theirs.values()) // 2)
    what = f", {levels} levels" if few else f", {zeros:.0%} zeros" if zeros > 0.01 else ""
    return Change(name, f"{_shape(old)}: other weights{what}")


def _shape(layer: nn.Module) -> str:
    """A layer in a word: "Conv2d 16→32 3x3"."""
    kind = type(layer).__name__
    if isinstance(layer, nn.Linear):
        return f"{kind} {layer.in_features}→{layer.out_features}"
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
        kernel, groups = "x".join(map(str, layer.kernel_size)), f", {layer.groups} groups" if layer.groups > 1 else ""
        return f"{kind} {layer.in_channels}→{layer.out_channels} {kernel}{groups}"
    shapes = ["x".join(map(str, value.shape)) for value in own(layer).values()]
    return f"{kind} {' '.join(shapes)}".strip()


def grouped(found: Iterable[Change]) -> list[str]:
    """The same in a few lines: layers with which the same was done stand together."""
    alike: dict[str, list[str]] = defaultdict(list)
    for one in found:
        alike[one.what].append(one.name)
    return [f"{', '.join(names)}: {what}" for what, names in alike.items()]
