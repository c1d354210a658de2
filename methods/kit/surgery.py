"""Real removal of channels, on residual networks too: torch-pruning's dependency graph finds what belongs together."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

_READERS = (tp.prune_conv_in_channels, tp.prune_linear_in_channels, tp.prune_depthwise_conv_in_channels)


def _graph(model: nn.Module, image: Tensor) -> Any:
    with torch.enable_grad():  # the graph is traced through autograd
        return tp.DependencyGraph().build_dependency(model, example_inputs=image)


def free_channels(model: nn.Module, image: Tensor) -> tuple[dict[str, int], dict[str, str]]:
    """Convolutions whose output channels can be removed one by one, and why the others cannot.

    `image` is one input (1, C, H, W). Free are channels that no shortcut ties to another layer's, that nobody reads in
    groups and that are not the network's output. Returns ({name: channels}, {name: reason}).
    """
    graph = _graph(model, image)
    free: dict[str, int] = {}
    tied: dict[str, str] = {}
    names = {module: name for name, module in model.named_modules()}
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if layer.groups > 1:
            kind = "depthwise: its channels are its input's" if layer.groups == layer.in_channels else "a grouped convolution"
            tied[name] = kind
            continue
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, [0])
        others = {
            names.get(dep.target.module, "")
            for dep, _ in group
            if dep.handler in (tp.prune_conv_out_channels, tp.prune_linear_out_channels) and dep.target.module is not layer
        }
        uneven = sorted(
            names[dep.target.module]
            for dep, _ in group
            if (isinstance(dep.target.module, nn.Conv2d) and 1 < dep.target.module.groups < dep.target.module.in_channels)
            or isinstance(dep.target.module, nn.GroupNorm)
        )
        followed = any(dep.handler in _READERS for dep, _ in group)
        if others:
            tied[name] = "tied by a shortcut to " + ", ".join(sorted(others))
        elif uneven:
            tied[name] = "read in groups by " + ", ".join(uneven)
        elif not followed:
            tied[name] = "its channels are the network's output"
        else:
            free[name] = layer.out_channels
    return free, tied


def norm_after(model: nn.Module, image: Tensor) -> dict[str, str]:
    """The batch norm that directly follows each convolution, where there is one: {convolution: batch norm}."""
    graph = _graph(model, image)
    names = {module: name for name, module in model.named_modules()}
    return {
        names[layer]: names[dep.target.module]
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d) and layer in graph.module2node
        for dep in graph.module2node[layer].dependencies
        if isinstance(dep.target.module, nn.BatchNorm2d) and dep.trigger == tp.prune_conv_out_channels
    }


def remove_channels(model: nn.Module, image: Tensor, channels: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy of the network without the named output channels and all that hangs on them: batch norm, next layers' inputs.

    Raises ValueError for a layer that is no convolution, a channel that is not there, or a removal of all channels.
    """
    model = copy.deepcopy(model)
    graph = _graph(model, image)
    for name, indices in channels.items():
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Conv2d):
            raise ValueError(f"{name}: channels are removed from convolutions, this is {type(layer).__name__}")
        wanted = sorted(set(indices))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < layer.out_channels:
            raise ValueError(f"{name}: has channels 0 to {layer.out_channels - 1}, asked to remove {wanted[0]} to {wanted[-1]}")
        if len(wanted) == layer.out_channels:
            raise ValueError(f"{name}: all {layer.out_channels} channels would go; keep at least one")
        if wanted:
            graph.get_pruning_group(layer, tp.prune_conv_out_channels, wanted).prune()
    return model.eval()


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution."""
    return {name: layer.out_channels for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
