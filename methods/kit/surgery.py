"""Real removal of channels, on residual networks too: torch-pruning's dependency graph finds what belongs together.

The graph knows common operations and takes all others for element-wise ones, so it is not believed but tried: a channel is
free only where the network without it is the one that has it zeroed where its readers read it (`methods.kit.proof`).
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.dependency import index_mapping

from methods.kit.layers import excluded, name_the_kept, plain, runs
from methods.kit.layout import copied, sharing
from methods.kit.proof import (
    CONVOLUTION,
    Trial,
    difference,
    difference_in_training,
    is_depthwise,
    one_line,
    passed,
    tensors,
    trial,
)
from methods.kit.task import Task

Order = Callable[[str, nn.Conv2d], Sequence[int]]  # a layer's channels, all of them, those that stay first

_READERS = (tp.prune_conv_in_channels, tp.prune_linear_in_channels, tp.prune_depthwise_conv_in_channels)
_MAKERS = (tp.prune_conv_out_channels, tp.prune_linear_out_channels)
_STRAYS = {  # what is known to lead channels astray: a layer's kind, or how autograd calls the operation
    "MultiheadAttention": "its channels are read by attention",
    "ChannelShuffle": "its channels come back in another order",
    "PixelShuffle": "its channels become positions",
    "PixelUnshuffle": "its channels come back in another order",
    "GLU": "its channels gate each other in pairs",
    "GroupNorm": "normalised by what cannot lose a channel",
    "LayerNorm": "normalised by what cannot lose a channel",
    "LocalResponseNorm": "normalised by what cannot lose a channel",
    "Softmax": "normalised by what cannot lose a channel",
}


@contextmanager
def _traceable(model: nn.Module) -> Iterator[None]:
    """Gradients everywhere, which the graph is traced through, and no warnings; modes and frozen parameters are put back."""
    modes = {part: part.training for part in model.modules()}
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for part, mode in modes.items():
            part.training = mode


def _graph(model: nn.Module, image: Tensor) -> Any:
    """torch-pruning's graph. Raises ValueError where it cannot follow the network at all."""

    def outputs(answer: Any) -> list[Tensor]:
        found = [tensor for tensor in tensors(answer) if tensor.grad_fn is not None]
        if not found:
            raise ValueError("no gradient leads back from what the network answers")
        return found

    reshape = index_mapping.update_reshape_index_mapping

    def follow(graph: Any, node: Any) -> None:
        with suppress(ZeroDivisionError):  # at fewer channels behind a reshape than before; the trial will tell whether that matters
            reshape(graph, node)

    try:
        with _traceable(model), patch.object(index_mapping, "update_reshape_index_mapping", follow):
            graph = tp.DependencyGraph()
            graph.widest = max(max(parameter.shape, default=0) for parameter in model.parameters())
            return graph.build_dependency(model, image, lambda model, image: model(image), outputs, verbose=False)
    except Exception as problem:
        raise ValueError(f"{type(model).__name__}: what hangs on its channels cannot be traced ({one_line(problem)})") from problem


def _group(graph: Any, layer: nn.Module, channels: Sequence[int]) -> Any:
    """What torch-pruning would cut with these output channels.

    It multiplies indices without end behind products of maps, so it is stopped at more than the network's widest layer has.
    """

    class Bounded(tp.dependency.Group):  # type: ignore[misc]
        def add_dep(self, dep: Any, idxs: Sequence[Any]) -> None:
            if len(idxs) > graph.widest:
                raise RecursionError(f"more than {graph.widest} indices")
            super().add_dep(dep, idxs)

    with patch.object(tp.dependency.graph, "Group", Bounded), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else tp.prune_conv_out_channels
        return graph.get_pruning_group(layer, cut, list(channels))


def group_of(model: nn.Module, image: Tensor, name: str) -> Any:
    """What is made, carried and read together with a layer's outputs, as torch-pruning has it; `image` is (1, C, H, W).

    Raises ValueError where torch-pruning cannot follow them.
    """
    layer: Any = model.get_submodule(name)
    try:
        return _group(_graph(model, image), layer, range(len(layer.weight)))
    except ValueError:
        raise
    except Exception as problem:  # whatever its code raises
        raise ValueError(f"its channels cannot be traced ({one_line(problem)})") from problem


def readers(model: nn.Module, image: Tensor, names: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """The layers that read each convolution's channels, depthwise ones passed through: which channel each of their inputs is, or else -1.

    `image` is (1, C, H, W). Behind a flattening several inputs are one channel; beside a concatenation there are others' inputs.
    Raises ValueError where torch-pruning cannot follow the channels.
    """
    graph, called = _graph(model, image), {layer: name for name, layer in model.named_modules()}
    found = dict[str, dict[str, Tensor]]()
    for name in names:
        maker: Any = model.get_submodule(name)
        found[name] = {}
        for item in _group(graph, maker, range(len(maker.weight))):
            if item.dep.handler in (tp.prune_conv_in_channels, tp.prune_linear_in_channels):
                layer = item.dep.target.module
                inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
                whose = found[name].setdefault(called[layer], torch.full((inputs,), -1, device=layer.weight.device))
                whose[torch.as_tensor(item.idxs)] = torch.as_tensor(item.root_idxs).to(whose)
    return found


def read_by_sums(model: nn.Module, image: Tensor, exclude: Iterable[str] = ()) -> tuple[dict[str, int], dict[str, str]]:
    """As `free_channels`, in the order in which layers run, and only where plain convolutions and dense layers read the channels."""
    free, kept = free_channels(model, image, exclude)
    for name, by in readers(model, image, free).items():
        if strange := [reader for reader in by if not plain(model.get_submodule(reader), (nn.Conv2d, nn.Linear))]:
            kept[name] = f"read by {', '.join(strange)}, no plain convolution or dense layer"
    return {name: free[name] for name in runs(model, image) if name in free and name not in kept}, kept


def _structure(graph: Any, owners: Mapping[nn.Parameter, Sequence[str]], layer: nn.Conv2d) -> str:
    """Why the graph says that the channels cannot be removed one by one, or ""."""
    if layer.groups > 1:
        return "depthwise: its channels are its input's" if layer.groups == layer.in_channels else "a grouped convolution"
    if not plain(layer, (nn.Conv2d,)):
        return f"no plain Conv2d but {type(layer).__name__}, with a forward of its own"
    if layer not in graph.module2node:
        return "the network's answer does not depend on it"
    try:
        group = _group(graph, layer, [0])
    except Exception as problem:
        return f"what hangs on its channels cannot be traced ({one_line(problem)})"
    names = {module: name for module, name in graph._module2name.items() if isinstance(module, nn.Module)}
    cut = [(names[dep.target.module], dep.target.module, dep.handler) for dep, _ in group if dep.target.module in names]
    others = sorted(name for name, module, handler in cut if handler in _MAKERS and module is not layer)
    uneven = sorted(
        name
        for name, module, _ in cut
        if isinstance(module, nn.GroupNorm) or (isinstance(module, CONVOLUTION) and module.groups > 1 and not is_depthwise(module))
    )
    if others:
        joints = [str(dep.target.module) for dep, _ in group if dep.target.type == tp.ops.OPTYPE.ELEMENTWISE and len(dep.target.inputs) > 1]
        scaled = joints and all("MulBackward" in joint for joint in joints)
        return ("multiplied with the channels of " if scaled else "tied by a shortcut to ") + ", ".join(others)
    if uneven:
        return "read in groups by " + ", ".join(uneven)
    if not any(handler in _READERS for _, _, handler in cut):
        ends = [f"{name} ({type(module).__name__})" for name, module, _ in cut if isinstance(module, nn.RNNBase)] + _loose(graph, group)
        return "read by " + ", ".join(ends) if ends else "its channels are the network's output"
    together = sorted(set(group[0].idxs) - {0})
    if together and together[-1] < layer.out_channels:  # else the graph is lost, and the trial says so
        return f"channel 0 goes only together with {', '.join(map(str, together)) if len(together) < 4 else f'{len(together)} others'}"
    computed = [
        name for name, module, _ in cut if "weight" not in module._parameters and isinstance(getattr(module, "weight", None), Tensor)
    ]
    if computed:
        return f"the weight of {computed[0]} is computed anew in every pass"
    shared = next((owners[p] for _, module, _ in cut for p in module.parameters(recurse=False) if len(owners[p]) > 1), [])
    return "a weight that would be cut is shared by " + " and ".join(shared) if shared else ""


def _loose(graph: Any, group: Any) -> list[str]:
    """The parameters in a group that belong to no layer that the graph knows."""
    return [graph._param_to_name[dep.target.module] for dep, _ in group if dep.target.type == tp.ops.OPTYPE.PARAMETER]


def _owners(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """The layers that hold each parameter."""
    owners = defaultdict[nn.Parameter, list[str]](list)
    for name, part in model.named_modules():
        for parameter in part.parameters(recurse=False):
            owners[parameter].append(name)
    return owners


def _trial(model: nn.Module, image: Tensor) -> Trial:
    """In float64, or in the model's own precision where it does not run in float64."""
    try:
        return trial(model, image)
    except Exception as problem:
        logging.getLogger(__name__).info("surgery is tried in %s, in float64 there is an error (%s)", image.dtype, one_line(problem))
    try:
        return trial(model, image, image.dtype)
    except Exception as problem:
        raise ValueError(f"{type(model).__name__}: does not run on a random image ({one_line(problem)})") from problem


def _cut(graph: Any, layer: nn.Module, channels: Sequence[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _group(graph, layer, channels).prune()


def _tried(known: Trial, names: Sequence[str]) -> str:
    """What goes wrong when the first, a middle and the last channel of all these layers go, one after the other, or ""."""
    model, channel = sharing(known.whole), 0
    wide = widths(model)
    places = {name: sorted({0, wide[name] // 2, wide[name] - 1})[: wide[name] - 1] for name in names}
    try:
        graph = _graph(model, known.image)
        for turn in range(turns := max(map(len, places.values()))):
            for name, gone in places.items():
                for channel in gone[turn : turn + 1]:
                    _cut(graph, model.get_submodule(name), [channel - turn])  # as many are gone before it
            problem = difference(known, model, {name: gone[: turn + 1] for name, gone in places.items()})
            if problem := problem or (difference_in_training(known, model) if turn == turns - 1 else ""):
                return f"removing channel {channel} {problem}"
    except Exception as error:
        return f"removing channel {channel} breaks the network ({one_line(error)})"
    return ""


def _disproved(graph: Any, model: nn.Module, image: Tensor, names: Sequence[str]) -> dict[str, str]:
    """Which of these layers' channels cannot be removed as the graph would, and why. The others can, all at once too."""
    if not names:
        return {}
    known, sound, wrong = _trial(model, image), list[str](), dict[str, str]()

    def sift(some: Sequence[str]) -> None:
        problem = _tried(known, [*sound, *some])
        if not problem:
            sound.extend(some)
        elif len(some) == 1:
            wrong[some[0]] = _astray(graph, model, known, some[0]) or problem
        else:
            sift(some[: len(some) // 2])
            sift(some[len(some) // 2 :])

    sift(names)
    return wrong


def _astray(graph: Any, model: nn.Module, known: Trial, name: str) -> str:
    """What is known to lead channels astray between this layer and its readers, or ""."""
    group = _group(graph, model.get_submodule(name), [0])
    there = [(type(model.get_submodule(part)).__name__, part) for part in passed(known, {name: [0]})]
    operations = [str(dep.target.module).lower() for dep, _ in group]
    for kind, reason in _STRAYS.items():
        if found := [part for other, part in there if other == kind]:
            return f"{reason} ({kind} {found[0]})"
        if any(f"{kind.lower()}backward" in operation for operation in operations):
            return f"{reason} ({kind})"
    loose = _loose(graph, group)
    return f"its channels meet {loose[0]}, a parameter of no layer" if loose else ""


def _examined(graph: Any, model: nn.Module, image: Tensor, names: Iterable[str]) -> dict[str, str]:
    """Why the channels of each of these convolutions cannot be removed one by one; "" where they can."""
    layers = {name: layer for name, layer in model.named_modules(remove_duplicate=False) if isinstance(layer, nn.Conv2d)}
    owners = _owners(model)
    reasons = {name: _structure(graph, owners, layers[name]) for name in names}
    return reasons | _disproved(graph, model, image, [name for name, reason in reasons.items() if not reason])


def free_channels(model: nn.Module, image: Tensor, exclude: Iterable[str] = ()) -> tuple[dict[str, int], dict[str, str]]:
    """Convolutions whose output channels can be removed one by one, and why the others cannot.

    `image` is one input (1, C, H, W). Free are channels without which the network is the one that has them zeroed where they are
    read: tried with the first, a middle and the last channel of each layer. Not free are channels that a shortcut ties to another
    layer's, that are read in groups, that are the network's output, and those of the layers that `exclude` matches.
    Returns ({name: channels}, {name: reason}). Raises ValueError where the network cannot be traced at all.
    """
    wide, exclude = widths(model), tuple(exclude)
    left = {name: "excluded" for name in wide if excluded(name, exclude)}
    names = [name for name in wide if name not in left]
    reasons = left | (_examined(_graph(model, image), model, image, names) if names else {})
    return {name: wide[name] for name in wide if not reasons[name]}, {name: reasons[name] for name in wide if reasons[name]}


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


def remove_channels(
    model: nn.Module, image: Tensor, channels: Mapping[str, Sequence[int]], free: Collection[str] | None = None
) -> nn.Module:
    """A copy of the network without the named output channels and all that hangs on them: batch norm, next layers' inputs.

    `free` are the layers that `free_channels` found free, in this network or in the one it was cut from; without it they are
    looked for. Raises ValueError for a layer that is no convolution, a channel that is not there, a removal of all channels, and
    channels that are not free.
    """
    wanted = {name: sorted(set(indices)) for name, indices in channels.items()}
    for name, gone in wanted.items():
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Conv2d):
            raise ValueError(f"{name}: channels are removed from convolutions, this is {type(layer).__name__}")
        if gone and not 0 <= gone[0] <= gone[-1] < layer.out_channels:
            raise ValueError(f"{name}: has channels 0 to {layer.out_channels - 1}, asked to remove {gone[0]} to {gone[-1]}")
        if len(gone) == layer.out_channels:
            raise ValueError(f"{name}: all {layer.out_channels} channels would go; keep at least one")
    model, wanted = copied(model), {name: gone for name, gone in wanted.items() if gone}
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    graph = _graph(model, image)
    if free is None:
        reasons = _examined(graph, model, image, wanted)
    else:
        reasons = {name: "" if name in free else "not among the free ones" for name in wanted}
    for name, gone in wanted.items():
        if reasons[name]:
            raise ValueError(f"{name}: its channels cannot be removed ({reasons[name]})")
        _cut(graph, model.get_submodule(name), gone)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained[name])
    return model.eval()


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution."""
    return {name: layer.out_channels for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}


def narrowed(
    model: nn.Module,
    image: Tensor,
    goal: Mapping[str, int],
    order: Order,
    free: Collection[str] | None = None,
) -> nn.Module:
    """A copy with as many channels as `goal` says: of those in `order(name, layer)`, which lists them all, the first stay.

    Layers are asked in the network's order and each before any is cut. `free` are those that may be, as for `remove_channels`;
    a depthwise layer, which is not, loses what its input loses.
    """
    free, wide = free_channels(model, image)[0] if free is None else free, widths(model)
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in wide if name in free and goal.get(name, wide[name]) < wide[name]}
    return remove_channels(model, image, {name: list(order(name, layer))[goal[name] :] for name, layer in layers.items()}, free)


def narrower(model: nn.Module, image: Tensor, like: nn.Module) -> dict[str, int]:
    """How many channels `like`, cut from this network, has kept where it has lost some, in the order in which layers run.

    Not told are depthwise layers, which lose what their input loses.
    """
    wide, left = widths(model), widths(like)
    layers = {name: left[name] for name in runs(model, image) if name in wide and left[name] < wide[name]}
    return {name: stays for name, stays in layers.items() if not is_depthwise(model.get_submodule(name))}


def at_random(seed: int) -> Order:
    """An order for `narrowed`: by chance, another one for every seed."""
    chance = torch.Generator().manual_seed(seed)
    return lambda name, layer: torch.randperm(layer.out_channels, generator=chance).tolist()


def first_ones(name: str, layer: nn.Conv2d) -> list[int]:
    """An order for `narrowed`: as they stand."""
    return list(range(layer.out_channels))


def by_l1_norm(name: str, layer: nn.Conv2d) -> list[int]:
    """An order for `narrowed`: filters with the largest sum of absolute weights stay (Li et al., ICLR 2017)."""
    return layer.weight.detach().abs().sum((1, 2, 3)).argsort(descending=True, stable=True).tolist()


def in_multiples(channels: Mapping[str, Sequence[int]], wide: Mapping[str, int], multiple: int) -> dict[str, list[int]]:
    """Channels to be removed, less the last of each list, so that what stays is a multiple, or all where the layer is not wider.

    `channels` name those first that are missed least, `wide` is the number of channels that each layer has.
    """
    stay = {name: min(wide[name], -(-(wide[name] - len(gone)) // multiple) * multiple) for name, gone in channels.items()}
    return {name: list(gone)[: wide[name] - stay[name]] for name, gone in channels.items()}


def widths_left(model: nn.Module, task: Task, keep: Callable[[float, int], int], needs: str) -> dict[str, int]:
    """How many channels stay of each layer that loses some, in the order in which layers run; why others lose none is in the log.

    Asked are layers whose channels are read by sums: `keep(depth, channels)`, the depth from 0 at the first of them to below 1 at
    the last; one at least stays, and multiples where the task wants them. Raises ValueError, beginning with `needs`, if none does.
    """
    layers, kept = read_by_sums(model, task.train.first(1).images.to(task.device), task.exclude)
    wanted = {name: range(wide - max(1, keep(place / len(layers), wide))) for place, (name, wide) in enumerate(layers.items())}
    found = {name: layers[name] - len(cut) for name, cut in in_multiples(wanted, layers, task.multiple).items() if cut}
    name_the_kept(needs, found, kept | {name: f"all {wide} channels stay" for name, wide in layers.items() if name not in found})
    return found
