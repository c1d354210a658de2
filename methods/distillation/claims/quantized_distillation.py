"""The claims of Quantized distillation."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations, islice

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr
from torch import Tensor, nn

from methods.distillation import quantized_distillation as method
from methods.distillation.hinton_distillation import soft_loss
from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.measure import weight_bits
from methods.kit.pack import pack
from methods.kit.task import Split, Task
from methods.kit.testing import convolutions, relative_error, toy_task


def claim_nearest_level_by_enumeration(lab: Lab) -> list[float]:
    """Largest difference of a stored weight from its nearest level, for layers of less than a bucket, of whole ones, and flat ones."""
    torch.manual_seed(0)
    found = list[float]()
    for layer, bucket, bits in (
        (nn.Conv2d(5, 7, 3), 16, 2), (nn.Linear(6, 4), 24, 4), (nn.Linear(3, 2), 256, 3), (nn.Conv2d(4, 4, 2, groups=2), 10, 8),
    ):  # fmt: skip
        config, layer = method.Config(bits=bits, bucket=bucket), layer.double()
        layer.weight.data.flatten()[:4] = 0.3
        for weight in (layer.weight, torch.full_like(layer.weight, -2.0)):
            stored = method.shipped(nn.Sequential(copy.deepcopy(layer)), {"0": method.uniform(2**bits, weight)}, config)[0]
            ours = (
                (stored.float_weight(), method.quantized(layer.weight, config))
                if weight is layer.weight
                else (method.quantized(weight, config),)
            )
            found += [*(float(abs(w.detach().numpy() - _oracle(weight, config)).max()) for w in ours)]
    return found


def _oracle(weight: Tensor, config: method.Config) -> np.ndarray:
    """The weight on its nearest level, by trying every level of every bucket."""
    flat, found = weight.detach().double().numpy().reshape(-1), []
    for start in range(0, len(flat), config.bucket):
        run = flat[start : start + config.bucket]
        levels = np.array([run.min() + (run.max() - run.min()) * k / (2**config.bits - 1) for k in range(2**config.bits)])
        found.append(levels[abs(run[:, None] - levels).argmin(1)])
    return np.concatenate(found).reshape(weight.shape)


def claim_buckets_hold_two_to_the_bits(lab: Lab) -> list[float]:
    """How many values a bucket holds beyond its layer's number of points, or a layer on uniform levels lacks of 2^bits."""
    found = list[float]()
    for algorithm, bits in (("projected", 2), ("points", 2), ("projected", 3)):
        teacher, learner, task = _toy()
        small = method.distil(learner, teacher, task, method.Config(algorithm, bits=bits, bucket=64, gradient_batches=1))
        for layer in (layer for layer in small.modules() if isinstance(layer, method.LookUp)):
            whole = layer.weight.numel() // 64 * 64
            most = max(len(row.unique()) for row in layer.float_weight().flatten()[:whole].view(-1, 64))
            found += [most - layer.weight_points.numel(), 2**bits - most if algorithm == "projected" else 0]
    return found


def _net(seed: int = 0) -> nn.Module:
    """A strided, a grouped and a dense layer without batch norm, float64."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double()


def _step() -> Task:
    """One step on random images."""
    part = Split(torch.randn(16, 3, 8, 8).double(), torch.arange(16) % 3)
    return toy_task(part, steps=1, batch=16)


NESTEROV = 1.9  # times a gradient: the kit's first step, momentum 0.9


def claim_gradient_at_quantized_weights(lab: Lab) -> list[float]:
    """Largest difference of one step of Algorithm 1 from that along the gradient of a plain network with quantized weights."""
    learner, teacher, task, config = _net(), _net(1), _step(), method.Config(bits=2, bucket=16, lr=0.1)
    plain = copy.deepcopy(learner)
    for layer in plain:
        if hasattr(layer, "weight"):
            layer.weight.data = torch.from_numpy(_oracle(layer.weight, config))
    x, y = next(task.batches())
    with torch.no_grad():
        v = teacher(x)
    method.loss(plain(x), v, y, config).backward()
    wanted = {name: p - 0.1 * NESTEROV * (plain.get_parameter(name).grad + 5e-4 * p) for name, p in learner.named_parameters()}
    wanted = {name: value.detach().clone() for name, value in wanted.items()}
    method.distil(learner, teacher, task, config)
    return [float((p - wanted[name]).detach().abs().max()) for name, p in learner.named_parameters()]


def claim_point_gradient_is_scaled_sum(lab: Lab) -> list[float]:
    """Largest difference of one step of Algorithm 2 from that along sum_i alpha_i dL/dQ_i, dL/dQ_i by central differences."""
    learner, teacher, task, config = _net(), _net(1), _step(), method.Config(bits=2, bucket=16, points_lr=1e-6)
    criterion, (x, y) = method.teaching(teacher, task, config), next(task.batches())
    points = {name: nn.Parameter(torch.tensor([0.0, 0.2, 0.7, 1.1], dtype=torch.double)) for name in method.quantizable(learner)}
    start = {name: p.detach().clone() for name, p in points.items()}
    stored = method.shipped(learner, start, config)
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
    method.learned(learner, points, task, config, criterion)
    moved = {name: (start[name] - p.detach()) / (NESTEROV * config.points_lr) for name, p in points.items()}
    return [relative_error(moved[name], wanted[name]) for name in points]


def claim_only_points_move(lab: Lab) -> float:
    """How many weights and biases change while points are learned, how many points stay or end out of order, how many codes are wrong."""
    learner, teacher, task, config = _net(), _net(1), replace(_step(), steps=8), method.Config(bits=2, bucket=16, points_lr=3.0)
    before = copy.deepcopy(learner.state_dict())
    points = method.points_of(copy.deepcopy(learner), task, config)
    start = {name: p.detach().clone() for name, p in points.items()}
    small = method.learned(learner, points, task, config, method.teaching(teacher, task, config))
    wrong = sum(int((value != before[name]).sum()) for name, value in learner.state_dict().items())
    for name, p in points.items():
        wrong += int((p == start[name]).sum()) + int((p[1:] < p[:-1]).sum())
        scaled = method.in_buckets(before[f"{name}.weight"], 16)[0].flatten()[: before[f"{name}.weight"].numel()]
        chosen = (scaled[:, None] - p.detach()).abs().argmin(1)
        wrong += int((small.get_submodule(name).weight.flatten() != chosen).sum())
    return wrong + sum(not p.requires_grad for p in learner.parameters())


def claim_points_follow_gradients(lab: Lab) -> list[float]:
    """Largest difference of the first points from numpy's percentiles, infinite where their numbers are not shared by gradient norms."""
    learner, task = _net(), replace(_step(), steps=8, batch=4)
    config, gradients, found = method.Config(bits=3, bucket=16, gradient_batches=3), copy.deepcopy(learner), list[float]()
    for x, y in islice(task.batches(), 3):
        F.cross_entropy(gradients(x), y).backward()
    norms = {name: float(layer.weight.grad.square().sum() ** 0.5) for name, layer in method.quantizable(gradients).items()}
    points = method.points_of(learner, task, config)
    if sum(map(len, points.values())) != 8 * 3 or sorted(norms, key=norms.__getitem__) != sorted(
        points, key=lambda name: len(points[name])
    ):
        return [float("inf")]
    share = {name: 4 + 12 * norm / sum(norms.values()) for name, norm in norms.items()}
    for name, p in points.items():
        w = learner.get_submodule(name).weight.detach().numpy().reshape(-1)
        runs = [w[i : i + 16] for i in range(0, len(w), 16)]
        scaled = np.concatenate([(run - run.min()) / (run.max() - run.min()) for run in runs])
        found.append(float(abs(p.detach().numpy() - np.percentile(scaled, np.linspace(0, 100, len(p)))).max()))
        found.append(float("inf") if abs(len(p) - share[name]) > 1 else 0.0)
    kept = [method.shared_out(norms, 4) for norms in ([1.0, 1.0, 1.0], [5.0, 1.0, 1.0], [1e-9, 1.0, 1.0])]
    return found if kept == [[4, 4, 4], [6, 3, 3], [2, 5, 5]] else [float("inf")]


def claim_loss_mixes_teacher_and_labels(lab: Lab) -> list[float]:
    """Difference of the loss from 0.7 T^2 KL(p || q) and 0.3 of the labels' negative log-likelihood by scipy, of bfloat16 logits, too."""
    torch.manual_seed(0)
    (z, v), y, t, found = torch.randn(2, 32, 10).double(), torch.arange(32) % 10, 2.0, list[float]()
    for kind, scale in ((torch.float64, 1e6), (torch.bfloat16, 1.0)):  # float32 arithmetic is a million times coarser
        z, v = z.to(kind), v.to(kind)
        q, p = (log_softmax(x.double().numpy() / t, axis=1) for x in (z, v))
        likelihood = log_softmax(z.double().numpy(), axis=1)[range(32), y.numpy()].mean()
        soft = t**2 * rel_entr(np.exp(p), np.exp(q)).sum(1).mean()
        ours = method.teaching(nn.Identity(), toy_task(Split(z, y)), method.Config())(z, v, y), method.labels(z, v, y)
        wanted = 0.7 * soft - 0.3 * likelihood, -likelihood
        found += [*(scale * abs(float(value) - want) for value, want in zip(ours, wanted, strict=True))]
    return found


def claim_student_comes_back_small(lab: Lab) -> float:
    """Bytes of the student's file over the teacher's, infinite if it is no student of this teacher, or a control's."""
    task = replace(_toy()[2], steps=1)
    big, found = nets.resnet(20, classes=5), []
    for build in (method.compress, method.control_alone, method.control_afterwards):
        torch.manual_seed(0)
        like = (big,) if build is not method.compress else ()
        found.append(build(copy.deepcopy(big), task, method.Config(bits=2, bucket=64), *like).eval())
    answers = [network(task.train.images) for network in (big.eval(), *found)]
    if any(answer.shape != (64, 5) for answer in answers) or any(torch.equal(*pair) for pair in combinations(answers, 2)):
        return float("inf")
    return len(pack(found[0])) / len(pack(big))


def _toy() -> tuple[nn.Module, nn.Module, Task]:
    """A teacher and a student with batch norm, and a task of random images, for a few steps."""
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)) for _ in range(2)]
    part = Split(torch.randn(64, 3, 8, 8), torch.randint(3, (64,)))
    return nets[0], nets[1], toy_task(part, steps=16, batch=16)


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a student that learns by either algorithm disturbs its teacher: weights, statistics, mode and gradients."""
    teacher, learner, task = _toy()
    return sum(
        disturbed(teacher, lambda a=a: method.distil(copy.deepcopy(learner), teacher, task, method.Config(a))) for a in method.ALGORITHMS
    )  # type: ignore[misc]


def claim_student_follows_teacher(lab: Lab) -> list[float]:
    """KL from teacher to student after a few steps without labels, over that of the student put on levels untaught: the worse algorithm."""
    found = list[float]()
    for algorithm in method.ALGORITHMS:
        teacher, learner, task = _toy()
        config, x = method.Config(algorithm, bits=2, bucket=64, teacher_weight=1.0, lr=0.05, points_lr=3e-4), task.train.images
        start = method.shipped(
            learner, {name: method.uniform(4, layer.weight) for name, layer in method.quantizable(learner).items()}, config
        )
        small = method.distil(learner, teacher, task, config)
        with torch.no_grad():
            before, after = (float(soft_loss(net.eval()(x), teacher(x), 1.0)) for net in (start, small))
        found.append(after / before)
    return found


def claim_stored_layer_runs_like_its_layer(lab: Lab) -> list[float]:
    """Largest relative difference of the outputs of stored layers from those of plain layers with the same numbers."""
    torch.manual_seed(0)
    found, config, x = list[float](), method.Config(bits=3, bucket=10), torch.randn(2, 4, 9, 9)
    for layer in (*convolutions(4, 6), nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Linear(9, 5)):
        plain = copy.deepcopy(layer)
        plain.weight.data = method.quantized(layer.weight, config)
        stored = method.shipped(nn.Sequential(layer), {"0": method.uniform(8, layer.weight)}, config)
        found.append(relative_error(stored(x), plain(x)))
    return found


def claim_size_formula(lab: Lab) -> list[float]:
    """Relative difference of the measured bits from n b + 2 * 32 n / k, for a layer of n weights in buckets of k."""
    torch.manual_seed(0)
    layer, found = nn.Linear(512, 128, bias=False), list[float]()
    for bits, bucket in ((2, 256), (4, 64)):
        config = method.Config(bits=bits, bucket=bucket)
        small = method.shipped(nn.Sequential(layer), {"0": method.uniform(2**bits, layer.weight)}, config)
        n = layer.weight.numel()
        stored = sum(buffer.numel() for name, buffer in small.named_buffers() if buffer.ndim > 1)  # codes, points and lines
        found.append(abs(weight_bits(small) * stored / (n * bits + 64 * n / bucket) - 1))
    return found


def claim_beats_quantizing_afterwards(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("afterwards").accuracy


def claim_file_is_smaller(lab: Lab) -> float:
    return lab.after.file_bytes / lab.before.file_bytes


def claim_learned_points_help(lab: Lab) -> list[float]:
    """Accuracy beyond the better of two naive choices: points that stay at the quantiles where they begin, and uniform levels."""

    def score(points_lr: float) -> float:
        torch.manual_seed(lab.task.seed)
        config = replace(lab.config, algorithm="points", points_lr=points_lr)
        return lab.score(method.compress(copy.deepcopy(lab.reference), lab.task, config))

    learned = score(lab.config.points_lr)
    return [learned - naive for naive in (score(0.0), lab.control("afterwards").accuracy)]


def claim_teacher_helps_from_the_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy


def claim_beats_student_alone(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy
