"""Quantized distillation (Polino, Pascanu and Alistarh, ICLR 2018).

A small student with weights of a few bits learns from a large teacher. Weights are cut into buckets, each stretched to [0, 1]
and put on levels there. In quantized distillation every step takes the gradient of the distillation loss at the quantized
weights and applies it to weights in full precision, where small steps gather until a weight changes its level. In differentiable
quantization a distilled student's weights stay as they are and the levels, one list a layer, are learned by gradient descent.

Departures: weights of convolutions and dense layers are quantized, not biases and batch norm, which the authors' code quantizes
too; residual networks; the kit's training (Nesterov momentum, weight decay, one cosine). The soft term is summed over classes, as
KL is; in the authors' code torch's default divides it by their number, too. Both algorithms share one budget: points are learned
in the second half of it. The points' teacher is the teacher, as the abstract says; in the authors' code it is the student in full
precision. Rounding is to the nearest level, as in their experiments. Indices are not Huffman-coded. In a smoke run the student
has already learned from the labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from methods.distillation.hinton_distillation import soft_loss, student
from methods.kit import nets
from methods.kit.layers import Layer, replaced
from methods.kit.layout import ask
from methods.kit.task import Task, classes_of, numbers, on_copies
from methods.kit.train import fit

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, images and labels


@dataclass(frozen=True)
class Config:
    algorithm: str = "projected"  # Algorithm 1; or "points", Algorithm 2
    bits: int = 4  # 2, 4 and 8 on CIFAR-10, §5.1
    bucket: int = 256  # weights that share a scale, §5.1
    temperature: float = 2.0  # authors' code
    teacher_weight: float = 0.7  # of the soft term, the rest is the labels'; authors' code
    lr: float = 0.1  # the student starts from random weights
    points_lr: float = 1e-5  # small, as a point's gradient sums those of many weights; authors' code
    gradient_batches: int = 5  # that a layer's share of the points rests on; authors' code
    student: str = "random"  # where it starts; "labels": from the committed weights, trained on labels alone


LEARNING = Config(bits=2)
SMOKE = (replace(LEARNING, lr=0.02, student="labels"), 24)  # steps; from random weights a student learns too little in seconds
LONG = (LEARNING, 400)  # two bits are where it matters how the levels are chosen; these take six minutes
SWEEP = tuple((LEARNING, steps) for steps in (50, 100, 200, 400))


def reference(task: Task) -> nn.Module:
    """The teacher."""
    return nets.trained("resnet20", task.name)


def in_buckets(weight: Tensor, bucket: int) -> tuple[Tensor, Tensor, Tensor]:
    """Runs of a weight (n, k), each stretched to [0, 1], with alpha and beta (n, 1), §2.1; the last run is filled up.

    sc(v) = (v - beta) / alpha with beta = min v and alpha = max v - min v of each bucket; a flat bucket has alpha 1.
    """
    flat = weight.detach().reshape(-1)
    bucket = min(bucket, len(flat))
    rows = torch.cat([flat, flat[-1:].expand(-len(flat) % bucket)]).view(-1, bucket)
    beta = rows.amin(1, keepdim=True)
    alpha = rows.amax(1, keepdim=True) - beta
    alpha = torch.where(alpha > 0, alpha, torch.ones_like(alpha))
    return (rows - beta) / alpha, alpha, beta


def nearest(scaled: Tensor, points: Tensor) -> Tensor:
    """Index of the point next to each number; `points` (s) ascend."""
    return torch.bucketize(scaled, (points[1:] + points[:-1]) / 2)


def on_points(weight: Tensor, points: Tensor, bucket: int) -> Tensor:
    """Q(v)_i = alpha p_j + beta for a weight i whose nearest point is p_j, §2.1. dQ(v)_i / dp_j = alpha, §4."""
    scaled, alpha, beta = in_buckets(weight, bucket)
    return (alpha * points[nearest(scaled, points.detach())] + beta).flatten()[: weight.numel()].view(weight.shape)


def uniform(levels: int, like: Tensor) -> Tensor:
    """Multiples of 1 / s in [0, 1], §2.1: 2^bits levels, both ends among them."""
    return torch.linspace(0, 1, levels, dtype=like.dtype, device=like.device)


def quantized(weight: Tensor, config: Config) -> Tensor:
    """The weight on the uniform levels of its buckets."""
    return on_points(weight, uniform(2**config.bits, weight), config.bucket)


class LookUp(nn.Module):
    """A convolution or dense layer as it is stored: a code a weight, the layer's points, a scale and an offset a bucket."""

    def __init__(self, layer: Layer, points: Tensor, bucket: int) -> None:
        super().__init__()
        (scaled, alpha, beta), shape = in_buckets(layer.weight, bucket), layer.weight.shape
        codes = nearest(scaled, points).flatten()[: shape.numel()].view(shape)
        self.register_buffer("weight", codes.to(torch.uint8 if len(points) <= 256 else torch.int16))
        self.register_buffer("weight_points", points.detach()[None].clone())
        self.register_buffer("weight_lines", torch.cat([alpha, beta], 1))
        self.register_buffer("weight_zero", torch.tensor(-1))  # no code stands for zero
        self.bucket, self.layer = scaled.shape[1], copy.deepcopy(layer)
        del self.layer.weight

    def float_weight(self) -> Tensor:
        points, lines, codes = self.get_buffer("weight_points")[0], self.get_buffer("weight_lines"), self.get_buffer("weight")
        alpha, beta = (line.repeat_interleave(self.bucket)[: codes.numel()].view(codes.shape) for line in lines.unbind(1))
        return alpha * points[codes.long()] + beta

    def forward(self, x: Tensor) -> Tensor:
        run = self.layer._conv_forward if isinstance(self.layer, nn.Conv2d) else F.linear
        return run(x, self.float_weight(), self.layer.bias)


def quantizable(model: nn.Module) -> dict[str, Layer]:
    """The convolutions and dense layers. Exact types only: a subclass may do anything in its forward."""
    layers = {name: layer for name, layer in model.named_modules() if type(layer) in (nn.Conv2d, nn.Linear)}
    if not layers:
        raise ValueError(f"{type(model).__name__}: quantized distillation needs a Conv2d or Linear layer, there is none")
    return layers


def loss(z: Tensor, v: Tensor, y: Tensor, config: Config) -> Tensor:
    """Weighted sum of Hinton's soft term and the labels' cross-entropy, §2 and authors' code."""
    return config.teacher_weight * soft_loss(z, v, config.temperature) + (1 - config.teacher_weight) * F.cross_entropy(z, y)


def teaching(teacher: nn.Module, task: Task, config: Config) -> Criterion:
    """The loss of a student's logits on images with labels. The teacher is frozen; logits are compared in no less than float32."""
    task.labels_needed("Quantized distillation")
    teacher.to(task.device).eval().requires_grad_(False)
    return lambda z, x, y: loss(task.logits(z), task.logits(ask(teacher, x)), y, config)


def labels(z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The loss without a teacher."""
    return F.cross_entropy(numbers(z), y)


def projected(learner: nn.Module, task: Task, config: Config, criterion: Criterion) -> nn.Module:
    """Algorithm 1: w_q = Q(w); the gradient at w_q moves w; in the end Q(w) is what is left."""
    names = list(quantizable(learner))

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weights = {f"{name}.weight": model.get_submodule(name).weight for name in names}
        at = {name: w - w.detach() + quantized(w, config) for name, w in weights.items()}  # w's gradient is that of w_q
        return criterion(functional_call(model, at, (x,), tie_weights=False), x, y)  # a shared layer is one layer

    fit(learner, task, step, lr=config.lr)
    return shipped(learner, {name: uniform(2**config.bits, learner.get_submodule(name).weight) for name in names}, config)


def points_of(learner: nn.Module, task: Task, config: Config) -> dict[str, nn.Parameter]:
    """As many points a layer as its gradient's norm deserves, at quantiles of its scaled weights, §4."""
    layers = quantizable(learner)
    learner.to(task.device).zero_grad()
    for x, y in islice(task.batches(), config.gradient_batches):
        task.loss_of(learner.train(), x, y).backward()
    levels = shared_out([float(layer.weight.grad.norm()) for layer in layers.values()], 2**config.bits)
    points = {}
    for (name, layer), count in zip(layers.items(), levels, strict=True):
        scaled = in_buckets(layer.weight, config.bucket)[0].flatten()[: layer.weight.numel()]
        points[name] = nn.Parameter(torch.quantile(scaled.float(), uniform(count, scaled.float())).to(scaled))
    return points


def shared_out(norms: list[float], levels: int) -> list[int]:
    """Half of the levels to each layer, the other halves in proportion to the norms; what rounding leaves over, to the last in line."""
    half = levels // 2
    rest = (levels - half) * len(norms)
    given = [half + round(rest * norm / sum(norms)) for norm in norms]
    over = sum(given) - levels * len(norms)
    place = given.index(max(given) if over > 0 else min(given))
    given[place] -= over
    return given


def differentiable(learner: nn.Module, task: Task, config: Config, criterion: Criterion) -> nn.Module:
    """Algorithm 2: train the student, then keep its weights and learn where the points lie; weights go to the nearest every time."""
    fit(learner, task, lambda m, x, y: criterion(m(x), x, y), share=0.5, lr=config.lr)
    return learned(learner, points_of(learner, task, config), task, config, criterion)


def learned(learner: nn.Module, points: dict[str, nn.Parameter], task: Task, config: Config, criterion: Criterion) -> nn.Module:
    """Gradient descent on the points alone, kept in order."""
    learner.requires_grad_(False)

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        at = {f"{name}.weight": on_points(model.get_submodule(name).weight, p, config.bucket) for name, p in points.items()}
        return criterion(functional_call(model, at, (x,), tie_weights=False), x, y)  # a shared layer is one layer

    def sort(progress: float) -> None:
        with torch.no_grad():
            for p in points.values():
                p.copy_(p.sort().values)

    fit(learner, task, step, share=0.5, lr=config.points_lr, weight_decay=0, params=points.values(), after_step=sort)
    return shipped(learner.requires_grad_(True), points, config)


def shipped(learner: nn.Module, points: dict[str, Tensor] | dict[str, nn.Parameter], config: Config) -> nn.Module:
    """The network with codes in place of weights."""
    return replaced(learner, {name: LookUp(learner.get_submodule(name), p, config.bucket) for name, p in points.items()}).eval()


ALGORITHMS = {"projected": projected, "points": differentiable}


def distil(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """Any student from any teacher, for the task's budget; the student comes back with `config.bits` bits a weight."""
    return ALGORITHMS[config.algorithm](learner, task, config, teaching(teacher, task, config))


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student in few bits."""
    return distil(student(task, config, classes_of(model, task)), model, task, config)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Quantization-aware training: the same student, algorithm, levels and steps, without a teacher."""
    return ALGORITHMS[config.algorithm](student(task, config, classes_of(model, task)), task, config, labels)


@on_copies
def control_afterwards(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student distilled in full precision for the same steps, then put on the uniform levels."""
    criterion = teaching(model, task, config)
    learner = fit(student(task, config, classes_of(model, task)), task, lambda m, x, y: criterion(m(x), x, y), lr=config.lr)
    return shipped(learner, {name: uniform(2**config.bits, layer.weight) for name, layer in quantizable(learner).items()}, config)
