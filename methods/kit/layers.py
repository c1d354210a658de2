"""Replacing layers by cheaper ones: which can be, what takes their place, what the network feeds them."""

from __future__ import annotations

import copy
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils.hooks import RemovableHandle

from methods.kit.layout import copied, evaluating
from methods.kit.task import Task

Layer = nn.Conv2d | nn.Linear
MOST_BYTES = 2**29  # that calibration and statistics hold at once of what images become inside a network; weights come on top
TURN = 100  # steps for which one part of the images stays in memory, where not all fit


def excluded(name: str, patterns: Iterable[str]) -> bool:
    """Whether a layer, or a part of the network around it, matches one of the patterns (fnmatch, on full names)."""
    parts = name.split(".")
    around = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return any(fnmatchcase(part, pattern) for part in around for pattern in patterns)


def tied(model: nn.Module) -> dict[str, str]:
    """The layers that share a parameter with another layer, and the reason to leave each alone: {name: reason}."""
    owners: dict[Any, dict[str, None]] = {}
    for name, part in model.named_modules():
        for value in part.parameters(recurse=False):
            owners.setdefault((value.data_ptr() if value.numel() and not value.is_meta else 0) or id(value), {})[name] = None
    groups = [list(names) for names in owners.values() if len(names) > 1]
    return {name: f"shares a weight with {', '.join(other for other in names if other != name)}" for names in groups for name in names}


def runs(model: nn.Module, image: Tensor) -> dict[str, int]:
    """The parts that run in evaluation mode, in this order, and how often; one that only lends its weights does not run.

    Raises ValueError where the network does not run on the image (1, C, H, W).
    """
    names, found = {part: name for name, part in model.named_modules()}, dict[str, int]()

    def begins(part: nn.Module, *_: Any) -> None:
        if part in names:
            found[names[part]] = found.get(names[part], 0) + 1

    hook = register_module_forward_pre_hook(begins)  # a hook of a part's own would make torch's transformer layers take another path
    try:
        with evaluating(model), torch.no_grad():
            model(image.to(next((value for value in model.parameters() if value.is_floating_point()), image)))  # its device and type
    except Exception as problem:  # whatever its forward raises
        raise ValueError(f"{type(model).__name__}: does not run on an image of {tuple(image.shape)} ({problem})") from problem
    finally:
        hook.remove()
    return found


def plain(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer is one of these kinds of torch's, or a subclass that computes the same.

    A subclass is taken at its word where it does not override what computes. Where it does, it may hold nothing but weight and
    bias (so no mask, no adapter that is zero today), and answer as torch's layer in training and evaluation mode, on several sizes:
    no proof for code that asks for something else, but all that a library's own spelling of `F.linear` can differ in.
    """
    kind: Any = next((kind for kind in kinds if isinstance(layer, kind)), None)
    if kind is None or "forward" in vars(layer):  # somebody has put another one into this layer alone
        return False
    ours: Any = type(layer)
    same = all(getattr(ours, way, None) is getattr(kind, way, None) for way in ("forward", "_conv_forward", "__call__"))
    if same:
        return True
    more = [*layer.children(), *layer.buffers(recurse=False), *(key for key in layer._parameters if key not in ("weight", "bias"))]
    return not more and _answers_like(copy.deepcopy(layer), kind)


@torch.no_grad()
def _answers_like(layer: Any, kind: Any) -> bool:
    """Whether the layer answers random inputs as its base class does, which may not raise."""
    chance, width = torch.Generator().manual_seed(0), layer.weight.shape[1] * getattr(layer, "groups", 1)
    shapes: list[tuple[int, ...]] = [(2, width), (2, 3, width)]
    if layer.weight.ndim > 2:
        least = [dilation * (size - 1) + 1 for dilation, size in zip(layer.dilation, layer.weight.shape[2:], strict=True)]
        shapes = [(2, width, *(side + more for side in least)) for more in range(8, 9 + max(layer.stride))]
    try:
        with torch.random.fork_rng(devices=[]):
            layer, base = layer.double().cpu(), copy.deepcopy(layer).double().cpu()
            base.__class__ = kind
            inputs = [torch.randn(shape, generator=chance, dtype=torch.float64) for shape in shapes]
            return all(torch.allclose(layer.train(mode)(x), base(x), rtol=1e-4) for mode in (True, False) for x in inputs)
    except Exception:  # whatever its forward does with an input that is none of its kind
        return False


def within(task: Task) -> dict[str, Any]:
    """What a task has to say of layers, as arguments of `replaceable`: which to leave alone, and an image to see which of them run."""
    return {"exclude": task.exclude, "image": task.train.first(1).images.to(task.device)}


def replaceable(
    model: nn.Module,
    why_not: Callable[[Any, bool], str],
    kinds: tuple[type[nn.Module], ...] = (nn.Conv2d,),
    *,
    exclude: Iterable[str] = (),
    image: Tensor | None = None,
    grouped: bool = False,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The plain layers of these kinds, ungrouped unless `grouped` asks for all, and why every other layer with a weight stays.

    `why_not(layer, first)` answers with a method's own reason against a layer, or ""; `first` says that it is the network's
    first convolution: the first that runs on `image` (1, C, H, W), without one the first that is registered. What does not run
    on it stays. So does what matches a pattern of `exclude`, and layers that share a weight with others. Returns
    ({name: layer}, {name: reason}). Raises ValueError for weights that are computed in every pass.
    """
    refuse_reparametrized(model)
    chosen, kept, layers = dict[str, Any](), dict[str, str](), dict(model.named_modules())
    ran, ties, exclude = list(layers if image is None else runs(model, image)), tied(model), [*exclude]
    first = next((layers[name] for name in ran if isinstance(layers[name], nn.Conv2d)), None)
    out = {part for name, part in model.named_modules(remove_duplicate=False) if excluded(name, exclude)}
    for name, layer in layers.items():
        if not isinstance(getattr(layer, "weight", None), Tensor) or layer.weight.ndim < 2:
            continue
        if layer in out:
            reason = "excluded"
        elif not plain(layer, kinds):
            reason = f"no plain {' or '.join(kind.__name__ for kind in kinds)} but {type(layer).__name__}"
        elif name in ties:
            reason = ties[name]
        elif name not in ran:
            reason = "never runs by itself"
        elif getattr(layer, "groups", 1) > 1 and not grouped:
            reason = "a grouped convolution"
        else:
            reason = why_not(layer, layer is first)
        if reason:
            kept[name] = reason
        else:
            chosen[name] = layer
    return chosen, kept


def name_the_kept(needs: str, chosen: Iterable[str], kept: Mapping[str, str]) -> None:
    """Log which layers stay as they are and why. Raises ValueError, beginning with `needs`, where none was chosen."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in kept.items())
    if not list(chosen):
        raise ValueError(f"{needs}, there is none ({reasons or 'no layer with weights'})")
    if reasons:
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


def ranks_at(
    model: nn.Module,
    speedup: float,
    work: Callable[[nn.Conv2d], int],
    first: str,
    *,
    exclude: Iterable[str] = (),
    image: Tensor | None = None,
) -> tuple[dict[str, int], dict[str, str]]:
    """The rank at which every convolution with columns and rows gets so much cheaper, and why each other layer stays.

    `work(layer)` are the multiply-adds for one output position and one unit of rank; `first` says why the first one stays.
    The rest is as for `replaceable`.
    """

    def rank(layer: nn.Conv2d) -> int:
        return int(layer.weight.numel() / (speedup * work(layer)))

    def why_not(layer: nn.Conv2d, is_first: bool) -> str:
        if is_first:
            return first
        if 1 in layer.kernel_size:
            return f"a kernel of {layer.kernel_size[0]}x{layer.kernel_size[1]} has no columns and rows to split into"
        return "" if rank(layer) else f"too narrow to be {speedup:g} times faster"

    layers, kept = replaceable(model, why_not, exclude=exclude, image=image)
    order = layers if image is None else [name for name in runs(model, image) if name in layers]
    return {name: rank(layers[name]) for name in order}, kept


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
        model = copied(model)
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


class _Enough(Exception):
    """All that was to be seen has been seen."""


@torch.no_grad()
def run(model: nn.Module, images: Tensor, seen: Callable[[str, Tensor, Tensor], Tensor | None], names: Iterable[str]) -> None:
    """Run the network; `seen` gets each named layer's input and output when it first runs, and may answer with another output.

    What it gets may be overwritten by a later layer that works in place: clone what is to be kept. The pass ends with the last
    named layer. One that does not run, or whose input or output is no tensor, is not seen.
    """

    handles = dict[str, RemovableHandle]()

    def watch(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
            handles.pop(name).remove()
            tensors = bool(inputs) and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
            other = seen(name, inputs[0], output) if tensors else None
            if not handles:
                raise _Enough
            return other

        handles[name] = model.get_submodule(name).register_forward_hook(hook)

    try:
        for name in names:
            watch(name)
        with evaluating(model):
            model(images)
    except _Enough:
        pass
    finally:
        for handle in handles.values():
            handle.remove()


def chunks(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """The images in parts so large that four times what one layer sees and answers, a pass without gradients, is half of MOST_BYTES."""
    most = 0

    def note(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal most
        most = max(most, sum(value.nbytes for value in (*inputs, output) if isinstance(value, Tensor)))

    hook = register_module_forward_hook(note)
    try:
        with evaluating(model), torch.no_grad():
            model(images[:1])
    finally:
        hook.remove()
    return images.split(max(1, MOST_BYTES // max(1, 8 * most)))


def responses(model: nn.Module, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """What each named layer answers."""
    found, names = dict[str, list[Tensor]](), list(names)
    for part in chunks(model, images) if names else ():
        run(model, part, lambda name, x, y: found.setdefault(name, []).append(y.clone()), names)
    return {name: torch.cat(answers) for name, answers in found.items()}


def entering(model: nn.Module, parts: Iterable[Tensor], name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """What the named layer sees and answers when it first runs, one part of the images (`chunks`) at a time."""
    for part in parts:
        found = list[tuple[Tensor, Tensor]]()
        run(model, part, lambda _, x, y: found.append((x.clone(), y.clone())), [name])
        yield from found


def gathered(model: nn.Module, images: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """What the named layer sees and answers for all of the images; no more than that and one pass is ever in memory."""
    found, start = list[Tensor](), 0
    for part in chunks(model, images):
        for values in entering(model, [part], name):
            each = [len(value) // len(part) for value in values]  # rows that an image makes
            found = found or [value.new_empty(len(images) * rows, *value.shape[1:]) for value, rows in zip(values, each, strict=True)]
            for whole, value, rows in zip(found, values, each, strict=True):
                whole[start * rows : start * rows + len(value)] = value
        start += len(part)
    return found[0], found[1]


def small_enough(x: Tensor, size: int) -> tuple[Tensor, ...]:
    """A tensor in parts along its first dimension, so large that `size` bytes for each row, three times over, are within MOST_BYTES."""
    return x.split(max(1, MOST_BYTES // max(1, 3 * size)))


Held = TypeVar("Held")


def in_parts(images: Tensor, size: int, of: Callable[[Tensor], Held], seed: int) -> Callable[[int], Held]:
    """What `of` makes of the images, at a step: of all of them where `size` bytes an image are within MOST_BYTES.

    Else of as many at random as take half of that, for learning takes memory too; of others after every TURN steps.
    """
    most = len(images) if len(images) * size <= MOST_BYTES else max(1, MOST_BYTES // (2 * size))
    held: dict[int, Held] = {}

    def at(step: int) -> Held:
        turn = step // TURN if most < len(images) else 0
        if turn not in held:
            held.clear()
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed + turn))[:most]
            held[turn] = of(images[order] if most < len(images) else images)
        return held[turn]

    return at


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


def patches_at(layer: Layer, x: Tensor, places: int, seed: int) -> Tensor:
    """What a layer multiplies with its weights, at so many random places of each image: inputs (N, C, H, W) -> (N places, C, d e).

    The places of a dense layer are its rows (N, ..., C) -> (N places, C, 1), always the same one where an image has but one. Same
    seed, same places, however many inputs there are.
    """
    chance, whose = torch.Generator().manual_seed(seed), torch.arange(len(x), device=x.device).repeat_interleave(places)
    if isinstance(layer, nn.Linear):
        x = x.reshape(len(x), -1, x.shape[-1])
        return x[whose, torch.randint(x.shape[1], (len(whose),), generator=chance).to(x.device)][..., None]
    x, at = F.pad(x, frame(layer), "constant" if layer.padding_mode == "zeros" else layer.padding_mode), list[Tensor]()
    for side, size, stride, dilation in zip(x.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True):
        starts = torch.randint((side - dilation * (size - 1) - 1) // stride + 1, (len(whose), 1), generator=chance) * stride
        at.append((starts + dilation * torch.arange(size)).to(x.device))
    rows, columns = at
    return x[whose[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).flatten(2)


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
