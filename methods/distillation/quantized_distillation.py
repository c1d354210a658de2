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
from itertools import combinations, islice

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr
from torch import Tensor, nn
from torch.func import functional_call

from methods.distillation.hinton_distillation import soft_loss, student
from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import Layer, disturbed, replaced
from methods.kit.layout import ask
from methods.kit.measure import weight_bits
from methods.kit.pack import pack
from methods.kit.task import Split, Task, classes_of, numbers, on_copies
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
    task.labels_needed("Quantized distillation")  # equivalent: tests refuse by name
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
    learner.requires_grad_(False)  # equivalent: spares gradients that nothing follows

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


def claim_nearest_level_by_enumeration(lab: Lab) -> float:
    """Largest difference of a stored weight from its nearest level, for layers of less than a bucket, of whole ones, and flat ones."""
    torch.manual_seed(0)
    worst = 0.0
    for layer, bucket, bits in (
        (nn.Conv2d(5, 7, 3), 16, 2), (nn.Linear(6, 4), 24, 4), (nn.Linear(3, 2), 256, 3), (nn.Conv2d(4, 4, 2, groups=2), 10, 8),
    ):  # fmt: skip
        config, layer = Config(bits=bits, bucket=bucket), layer.double()
        layer.weight.data.flatten()[:4] = 0.3
        for weight in (layer.weight, torch.full_like(layer.weight, -2.0)):
            stored = shipped(nn.Sequential(copy.deepcopy(layer)), {"0": uniform(2**bits, weight)}, config)[0]
            ours = (stored.float_weight(), quantized(layer.weight, config)) if weight is layer.weight else (quantized(weight, config),)
            worst = max(worst, *(float(abs(w.detach().numpy() - _oracle(weight, config)).max()) for w in ours))
    return worst


def _oracle(weight: Tensor, config: Config) -> np.ndarray:
    """The weight on its nearest level, by trying every level of every bucket."""
    flat, found = weight.detach().double().numpy().reshape(-1), []
    for start in range(0, len(flat), config.bucket):
        run = flat[start : start + config.bucket]
        levels = np.array([run.min() + (run.max() - run.min()) * k / (2**config.bits - 1) for k in range(2**config.bits)])
        found.append(levels[abs(run[:, None] - levels).argmin(1)])
    return np.concatenate(found).reshape(weight.shape)


def claim_buckets_hold_two_to_the_bits(lab: Lab) -> float:
    """How many values a bucket holds beyond its layer's number of points, or a layer on uniform levels lacks of 2^bits."""
    wrong = 0
    for algorithm, bits in (("projected", 2), ("points", 2), ("projected", 3)):
        teacher, learner, task = _toy()
        small = distil(learner, teacher, task, Config(algorithm, bits=bits, bucket=64, gradient_batches=1))
        for layer in (layer for layer in small.modules() if isinstance(layer, LookUp)):
            whole = layer.weight.numel() // 64 * 64
            held = [len(row.unique()) for row in layer.float_weight().flatten()[:whole].view(-1, 64)]
            wrong += max(0, max(held) - layer.weight_points.numel())
            wrong += abs(max(held) - 2**bits) if algorithm == "projected" else 0
    return wrong


def _net(seed: int = 0) -> nn.Module:
    """A strided, a grouped and a dense layer without batch norm, float64."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double()


def _step() -> Task:
    """One step on random images."""
    part = Split(torch.randn(16, 3, 8, 8).double(), torch.arange(16) % 3)
    return Task("toy", part, part, part, steps=1, batch=16, augmented=False)


NESTEROV = 1.9  # times a gradient: the kit's first step, momentum 0.9


def claim_gradient_at_quantized_weights(lab: Lab) -> float:
    """Largest difference of one step of Algorithm 1 from that along the gradient of a plain network with quantized weights."""
    learner, teacher, task, config = _net(), _net(1), _step(), Config(bits=2, bucket=16, lr=0.1)
    plain = copy.deepcopy(learner)
    for layer in plain:
        if hasattr(layer, "weight"):
            layer.weight.data = torch.from_numpy(_oracle(layer.weight, config))
    x, y = next(task.batches())
    with torch.no_grad():
        v = teacher(x)
    loss(plain(x), v, y, config).backward()
    wanted = {name: p - 0.1 * NESTEROV * (plain.get_parameter(name).grad + 5e-4 * p) for name, p in learner.named_parameters()}
    wanted = {name: value.detach().clone() for name, value in wanted.items()}
    distil(learner, teacher, task, config)
    return max(float((p - wanted[name]).detach().abs().max()) for name, p in learner.named_parameters())


def claim_point_gradient_is_scaled_sum(lab: Lab) -> float:
    """Largest difference of one step of Algorithm 2 from that along sum_i alpha_i dL/dQ_i, dL/dQ_i by central differences."""
    learner, teacher, task, config = _net(), _net(1), _step(), Config(bits=2, bucket=16, points_lr=1e-6)
    criterion, (x, y) = teaching(teacher, task, config), next(task.batches())
    points = {name: nn.Parameter(torch.tensor([0.0, 0.2, 0.7, 1.1], dtype=torch.double)) for name in quantizable(learner)}
    start = {name: p.detach().clone() for name, p in points.items()}
    stored = shipped(learner, start, config)
    plain, wanted, size = copy.deepcopy(learner).requires_grad_(False), {}, 1e-5
    for name in points:
        plain.get_submodule(name).weight.data = stored.get_submodule(name).float_weight()
    for name in points:
        flat, codes = plain.get_submodule(name).weight.data.view(-1), stored.get_submodule(name).weight.view(-1).tolist()
        original, sums = learner.get_submodule(name).weight.detach().numpy().reshape(-1), torch.zeros(4).double()
        for i, code in enumerate(codes):
            run = original[i // 16 * 16 : i // 16 * 16 + 16]
            sides = []
            for move in (size, -size):
                flat[i] += move
                sides.append(float(criterion(plain(x), x, y)))
                flat[i] -= move
            sums[code] += (run.max() - run.min()) * (sides[0] - sides[1]) / (2 * size)
        wanted[name] = sums
    learned(learner, points, task, config, criterion)
    moved = {name: (start[name] - p.detach()) / (NESTEROV * config.points_lr) for name, p in points.items()}
    return max(float((moved[name] - wanted[name]).abs().max() / wanted[name].abs().max()) for name in points)


def claim_only_points_move(lab: Lab) -> float:
    """How many weights and biases change while points are learned, how many points stay or end out of order, how many codes are wrong."""
    learner, teacher, task, config = _net(), _net(1), replace(_step(), steps=8), Config(bits=2, bucket=16, points_lr=3.0)
    before = copy.deepcopy(learner.state_dict())
    points = points_of(copy.deepcopy(learner), task, config)
    start = {name: p.detach().clone() for name, p in points.items()}
    small = learned(learner, points, task, config, teaching(teacher, task, config))
    wrong = sum(int((value != before[name]).sum()) for name, value in learner.state_dict().items())
    for name, p in points.items():
        wrong += int((p == start[name]).sum()) + int((p[1:] < p[:-1]).sum())
        scaled = in_buckets(before[f"{name}.weight"], 16)[0].flatten()[: before[f"{name}.weight"].numel()]
        chosen = (scaled[:, None] - p.detach()).abs().argmin(1)
        wrong += int((small.get_submodule(name).weight.flatten() != chosen).sum())
    return wrong + sum(not p.requires_grad for p in learner.parameters())


def claim_points_follow_gradients(lab: Lab) -> float:
    """Largest difference of the first points from numpy's percentiles, infinite where their numbers are not shared by gradient norms."""
    learner, task = _net(), replace(_step(), steps=8, batch=4)
    config, gradients, worst = Config(bits=3, bucket=16, gradient_batches=3), copy.deepcopy(learner), 0.0
    for x, y in islice(task.batches(), 3):
        F.cross_entropy(gradients(x), y).backward()
    norms = {name: float(layer.weight.grad.square().sum() ** 0.5) for name, layer in quantizable(gradients).items()}
    points = points_of(learner, task, config)
    if sum(map(len, points.values())) != 8 * 3 or sorted(norms, key=norms.__getitem__) != sorted(
        points, key=lambda name: len(points[name])
    ):
        return float("inf")
    share = {name: 4 + 12 * norm / sum(norms.values()) for name, norm in norms.items()}
    for name, p in points.items():
        w = learner.get_submodule(name).weight.detach().numpy().reshape(-1)
        runs = [w[i : i + 16] for i in range(0, len(w), 16)]
        scaled = np.concatenate([(run - run.min()) / (run.max() - run.min()) for run in runs])
        worst = max(worst, float(abs(p.detach().numpy() - np.percentile(scaled, np.linspace(0, 100, len(p)))).max()))
        worst = max(worst, float("inf") if abs(len(p) - share[name]) > 1 else 0.0)
    kept = [shared_out(norms, 4) for norms in ([1.0, 1.0, 1.0], [5.0, 1.0, 1.0], [1e-9, 1.0, 1.0])]
    return worst if kept == [[4, 4, 4], [6, 3, 3], [2, 5, 5]] else float("inf")


def claim_loss_mixes_teacher_and_labels(lab: Lab) -> float:
    """Difference of the loss from 0.7 T^2 KL(p || q) and 0.3 of the labels' negative log-likelihood by scipy, of bfloat16 logits, too."""
    torch.manual_seed(0)
    (z, v), y, t, worst = torch.randn(2, 32, 10).double(), torch.arange(32) % 10, 2.0, 0.0
    for kind, scale in ((torch.float64, 1e6), (torch.bfloat16, 1.0)):  # float32 arithmetic is a million times coarser
        z, v = z.to(kind), v.to(kind)
        q, p = (log_softmax(x.double().numpy() / t, axis=1) for x in (z, v))
        likelihood = log_softmax(z.double().numpy(), axis=1)[range(32), y.numpy()].mean()
        soft = t**2 * rel_entr(np.exp(p), np.exp(q)).sum(1).mean()
        ours = teaching(nn.Identity(), Task("none", *[Split(z, y)] * 3, steps=1), Config())(z, v, y), labels(z, v, y)
        wanted = 0.7 * soft - 0.3 * likelihood, -likelihood
        worst = max(worst, *(scale * abs(float(value) - want) for value, want in zip(ours, wanted, strict=True)))
    return worst


def claim_student_comes_back_small(lab: Lab) -> float:
    """Bytes of the student's file over the teacher's, infinite if it is no student of this teacher, or a control's."""
    task = replace(_toy()[2], steps=1)
    big, found = nets.resnet(20, classes=5), []
    for build in (compress, control_alone, control_afterwards):
        torch.manual_seed(0)
        like = (big,) if build is not compress else ()
        found.append(build(copy.deepcopy(big), task, Config(bits=2, bucket=64), *like).eval())
    answers = [network(task.train.images) for network in (big.eval(), *found)]
    if any(answer.shape != (64, 5) for answer in answers) or any(torch.equal(*pair) for pair in combinations(answers, 2)):
        return float("inf")
    return len(pack(found[0])) / len(pack(big))


def _toy() -> tuple[nn.Module, nn.Module, Task]:
    """A teacher and a student with batch norm, and a task of random images, for a few steps."""
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)) for _ in range(2)]
    part = Split(torch.randn(64, 3, 8, 8), torch.randint(3, (64,)))
    return nets[0], nets[1], Task("toy", part, part, part, steps=16, batch=16, augmented=False)


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a student that learns by either algorithm disturbs its teacher: weights, statistics, mode and gradients."""
    teacher, learner, task = _toy()
    return sum(disturbed(teacher, lambda a=a: distil(copy.deepcopy(learner), teacher, task, Config(a))) for a in ALGORITHMS)  # type: ignore[misc]


def claim_student_follows_teacher(lab: Lab) -> float:
    """KL from teacher to student after a few steps without labels, over that of the student put on levels untaught: the worse algorithm."""
    worst = 0.0
    for algorithm in ALGORITHMS:
        teacher, learner, task = _toy()
        config, x = Config(algorithm, bits=2, bucket=64, teacher_weight=1.0, lr=0.05, points_lr=3e-4), task.train.images
        start = shipped(learner, {name: uniform(4, layer.weight) for name, layer in quantizable(learner).items()}, config)
        small = distil(learner, teacher, task, config)
        with torch.no_grad():
            before, after = (float(soft_loss(net.eval()(x), teacher(x), 1.0)) for net in (start, small))
        worst = max(worst, after / before)
    return worst


def claim_stored_layer_runs_like_its_layer(lab: Lab) -> float:
    """Largest relative difference of the outputs of stored layers from those of plain layers with the same numbers."""
    torch.manual_seed(0)
    worst, config = 0.0, Config(bits=3, bucket=10)
    for layer, x in (
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.randn(2, 4, 9, 9)),
        (nn.Conv2d(4, 6, (2, 3), padding="same", dilation=2, bias=False), torch.randn(2, 4, 9, 9)),
        (nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"), torch.randn(2, 4, 9, 9)),
        (nn.Linear(9, 5), torch.randn(2, 4, 9)),
    ):
        plain = copy.deepcopy(layer)
        plain.weight.data = quantized(layer.weight, config)
        stored = shipped(nn.Sequential(layer), {"0": uniform(8, layer.weight)}, config)
        with torch.no_grad():
            worst = max(worst, float((stored(x) - plain(x)).abs().max() / plain(x).abs().max()))
    return worst


def claim_size_formula(lab: Lab) -> float:
    """Relative difference of the measured bits from n b + 2 * 32 n / k, for a layer of n weights in buckets of k."""
    torch.manual_seed(0)
    layer, worst = nn.Linear(512, 128, bias=False), 0.0
    for bits, bucket in ((2, 256), (4, 64)):
        config = Config(bits=bits, bucket=bucket)
        small = shipped(nn.Sequential(layer), {"0": uniform(2**bits, layer.weight)}, config)
        n = layer.weight.numel()
        stored = sum(buffer.numel() for name, buffer in small.named_buffers() if buffer.ndim > 1)  # codes, points and lines
        worst = max(worst, abs(weight_bits(small) * stored / (n * bits + 64 * n / bucket) - 1))
    return worst


def claim_beats_quantizing_afterwards(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("afterwards").accuracy


def claim_file_is_smaller(lab: Lab) -> float:
    return lab.after.file_bytes / lab.before.file_bytes


def claim_learned_points_help(lab: Lab) -> float:
    """Accuracy beyond the better of two naive choices: points that stay at the quantiles where they begin, and uniform levels."""

    def score(points_lr: float) -> float:
        torch.manual_seed(lab.task.seed)
        config = replace(lab.config, algorithm="points", points_lr=points_lr)
        return lab.task.score(compress(copy.deepcopy(lab.reference), lab.task, config), lab.task.test)

    return score(lab.config.points_lr) - max(score(0.0), lab.control("afterwards").accuracy)


def claim_teacher_helps_from_the_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy


def claim_beats_student_alone(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy
