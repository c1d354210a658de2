"""FitNets (Romero et al., ICLR 2015).

A student that is thinner and deeper than its teacher is hard to train from random weights. So its lower half first
learns to predict what the teacher's middle layer answers, through a small convolutional regressor that is thrown away
afterwards. From there the whole student is distilled, and the teacher's word counts less and less as training goes on.

Departures: ReLU and batch norm instead of maxout; the kit's wide plain network of seven layers as the teacher; a student
like FitNet 1 at half its widths, which ends in average pooling and one dense layer; where guided layers have maps of
several sizes, the smallest that the hint fits into count (this finds the authors' pairs); the stages share the task's
steps evenly, where the paper lets each go on until validation stops it; the kit's SGD instead of RMSProp, which does not
mind how large a loss is, so that the first stage's rate is divided by the places of the hint's map; the regressor's bias
starts above zero, because a ReLU, other than maxout, may never wake up; KL in the place of the cross-entropy, which
differs by a constant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.distillation.hinton_distillation import soft_loss
from methods.kit import nets
from methods.kit.layout import ask
from methods.kit.task import Task, classes_of, numbers, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    hint: str = ""  # the teacher's layer; the middle one where none is named, §2.2
    guided: str = ""  # the student's layer, likewise
    temperature: float = 3.0  # tau, §A.1.2
    first: float = 4.0  # lambda when the second stage begins, §A.1.2
    last: float = 1.0  # lambda when it ends, §A.1.2
    hints: float = 0.5  # share of the steps for the first stage; in the paper either stage has at most 500 epochs, §A.1.2
    hint_lr: float = 0.1  # of the first stage; both rates were chosen on validation images
    lr: float = 0.05  # of the second stage


SMOKE = (Config(), 48)  # steps: enough for the hints to tell
SWEEP = tuple((Config(), steps) for steps in (50, 100, 200, 400))
THIN: nets.Plan = [8, 8, 8, "pool", 16, 16, 16, "pool", 24, 24, 32]  # FitNet 1, Table 7, half as wide


def reference(task: Task) -> nn.Module:
    """The teacher: wide, not very deep and without shortcuts, like the paper's."""
    return nets.trained("vgg_wide", task.name)


def student(classes: int, colours: int = 3) -> nn.Module:
    """Thinner and deeper than the teacher, from random weights."""
    return nets.vgg(THIN, classes, colours)


def student_of(teacher: nn.Module, task: Task) -> nn.Module:
    """The student for the teacher's classes and the task's images."""
    image = task.train.first(1).images
    return student(classes_of(teacher, task), image.shape[1]).to(image)


Logits = Callable[[Any], Tensor]  # reads them in what a network answers


class Layer(NamedTuple):
    """Where a hint is given or taken: a non-linearity, with the pooling on it."""

    place: int  # layers from the image up to this one
    shape: torch.Size  # channels, rows, columns of what it answers
    act: nn.Module  # the non-linearity


class Reached(Exception):
    """Carries a layer's answer out of the network."""


def up_to(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """u_h or v_g of Eq. 3: what the named layer answers to images. The layers above it do not run."""

    def stop(layer: nn.Module, inputs: object, y: Tensor) -> None:
        raise Reached(y)

    handle = model.get_submodule(name).register_forward_hook(stop)
    try:
        model(x)
    except Reached as reached:
        return reached.args[0]
    finally:
        handle.remove()
    raise ValueError(f"{name}: does not run")


def layers(model: nn.Module, image: Tensor) -> tuple[dict[str, Layer], int]:
    """What answers behind a non-linearity, by name; and the network's depth in layers."""
    acts, found, latest = list[nn.Module](), dict[str, Layer](), None

    def watch(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], y: Any) -> None:
            nonlocal latest
            if not isinstance(y, Tensor):  # of attention, for instance
                return
            kind = type(layer).__module__.rpartition(".")[2]
            if kind == "activation":
                acts.append(layer)
            if kind == "activation" or (kind == "pooling" and inputs[0] is latest):
                latest = y
            if y is latest:
                found.setdefault(name, Layer(len(acts), y.shape[1:], acts[-1]))

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in model.named_modules()]
    model(image)
    for handle in handles:
        handle.remove()
    return found, len(acts) + 1  # the last layer has no non-linearity


def passed_by(model: nn.Module, name: str, image: Tensor, logits: Logits) -> bool:
    """Whether the image still reaches the output of a frozen network, on a shortcut, when the layer lets nothing through."""

    def shut(layer: nn.Module, inputs: object, y: Tensor) -> Tensor:
        handle.remove()  # a layer may run again, as another one
        return y.detach()

    handle = model.get_submodule(name).register_forward_hook(shut)
    return logits(model(image.detach().requires_grad_())).requires_grad


def middle(model: nn.Module, image: Tensor, named: str = "", hint: Layer | None = None, logits: Logits = numbers) -> tuple[str, Layer]:
    """The middle layer of the network (§2.2), or the named one; where it is to follow a hint, its maps must not be smaller.

    Raises ValueError with the reason against every layer that might have been it.
    """
    probe = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    found, depth = layers(probe, image)
    names = [name for name in found if named in ("", name)]
    reasons = {} if names else {named or type(model).__name__: "no maps behind a non-linearity module"}
    reasons |= {name: "answers without maps" for name in names if len(found[name].shape) != 3}

    def rank(name: str) -> tuple[Any, ...]:
        place, shape, _ = found[name]  # of two the lower one, for more freedom (§2.2), with its pooling
        return shape[1:] if hint else (), abs(2 * place - depth), place, -names.index(name)

    for name in sorted(set(names) - set(reasons), key=rank):
        if hint and min(kernel(hint, found[name])) < 1:
            reasons[name] = f"maps of {tuple(found[name].shape[1:])} are smaller than the hint's {tuple(hint.shape[1:])}"
        elif passed_by(probe, name, image, logits):
            reasons[name] = "a shortcut leads past it"
        else:
            return name, found[name]
    refused = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    raise ValueError(f"FitNets need a {'guided' if hint else 'hint'} layer, there is none ({refused})")


def kernel(hint: Layer, guided: Layer) -> tuple[int, ...]:
    """k_i of N_g,i - k_i + 1 = N_h,i: what makes a convolution without padding answer with the hint's maps (§2.2)."""
    return tuple(g - h + 1 for g, h in zip(guided.shape[1:], hint.shape[1:], strict=True))


def regressor(hint: Layer, guided: Layer) -> nn.Sequential:
    """r of Eq. 3, convolutional, with the hint layer's own non-linearity, from small random values (Algorithm 1, line 3)."""
    layer = nn.Conv2d(guided.shape[0], hint.shape[0], kernel(hint, guided))
    nn.init.uniform_(layer.weight, -0.005, 0.005)  # §A.1.2
    nn.init.constant_(layer.bias, 0.1)
    return nn.Sequential(layer, copy.deepcopy(hint.act))


def hint_loss(u: Tensor, r: Tensor) -> Tensor:
    """L_HT = 1/2 || u_h(x) - r(v_g(x)) ||^2, Eq. 3; sum over channels and places, mean over images."""
    return (u - r).square().sum() / (2 * len(u))


def loss(z: Tensor, v: Tensor, y: Tensor, weight: float, temperature: float) -> Tensor:
    """L_KD = H(y, P_S) + lambda H(P_T^tau, P_S^tau), Eq. 2. There is no T^2 in this paper."""
    return F.cross_entropy(z, y) + weight * soft_loss(z, v, temperature) / temperature**2


def follow_hints(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """min over W_Guided and W_r of L_HT (lines 1-5), without labels. Returns the regressor, which has done its work."""
    image = task.train.first(1).images
    h, hint = middle(teacher, image, config.hint, logits=task.logits)
    g, guided = middle(learner, image, config.guided, hint, task.logits)
    pair = nn.ModuleList([learner, regressor(hint, guided).to(image)])  # layers above the guided one get no gradient and do not move
    places = hint.shape[1:].numel()

    def error(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        u, r = up_to(teacher, h, x).float(), pair[1](up_to(learner, g, x)).float()
        return hint_loss(u, r)

    fit(pair, task, error, lr=config.hint_lr / places)
    return pair[1]


def follow_outputs(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """min over the whole of W_S of L_KD (line 6), while lambda falls along a line (§2.4)."""
    task.labels_needed("A FitNet")
    weight = config.first

    def anneal(progress: float) -> None:
        nonlocal weight
        weight = config.first + progress * (config.last - config.first)

    def error(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        z, v = task.logits(m(x)), task.logits(ask(teacher, x))
        return loss(z, v, y, weight, config.temperature)

    return fit(learner, task, error, lr=config.lr, after_step=anneal)


def frozen(teacher: nn.Module, task: Task) -> nn.Module:
    return teacher.to(task.device).eval().requires_grad_(False)


def distil(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """Algorithm 1 for any student and teacher, whose middle layers are found or named in the config."""
    steps = round(config.hints * task.steps)
    frozen(teacher, task)
    follow_hints(learner, teacher, replace(task, steps=steps, seed=task.seed + 1), config)
    return follow_outputs(learner, teacher, task.with_steps(task.steps - steps), config)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student."""
    return distil(student_of(model, task), model, task, config)


@on_copies
def control_distillation(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The second stage alone: the same student from the same random weights, distilled for all of the steps."""
    return follow_outputs(student_of(model, task), frozen(model, task), task, config)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student from the same random weights for all of the steps, without a teacher."""
    return fit(student_of(model, task), task, lr=config.lr)
