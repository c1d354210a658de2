"""The claims of Distilling the Knowledge in a Neural Network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr
from torch import Tensor, nn

from methods.distillation import hinton_distillation as method
from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.task import Split, Task
from methods.kit.testing import relative_error, toy_task


def _logits(classes: int = 10, count: int = 32) -> tuple[Tensor, Tensor]:
    """Random zero-mean student and teacher logits, float64."""
    z, v = torch.randn(2, count, classes, dtype=torch.float64)
    return (z - z.mean(1, keepdim=True)).requires_grad_(), v - v.mean(1, keepdim=True)


def _gradient(z: Tensor, v: Tensor, temperature: float) -> Tensor:
    """Of the soft loss by one image's logits."""
    return torch.autograd.grad(method.soft_loss(z, v, temperature), z)[0] * len(z)


def claim_soft_loss_is_kl(lab: Lab) -> list[float]:
    """Largest difference from T^2 KL computed by scipy, over temperatures."""
    z, v = _logits()
    differences = []
    for t in (1.0, 2.0, 20.0):
        q, p = (log_softmax(x.detach().numpy() / t, axis=1) for x in (z, v))
        oracle = t**2 * rel_entr(np.exp(p), np.exp(q)).sum(1).mean()
        differences.append(abs(method.soft_loss(z, v, t).item() - oracle))
    return list(differences)


def claim_gradient_is_difference_of_probabilities(lab: Lab) -> float:
    """Largest difference between T^2 (q - p) / T (Eq. 2) and the derivative, by central differences."""
    z, v = _logits(4, 1)
    t, step = 3.0, 1e-5
    shifts = step * torch.eye(4, dtype=torch.float64)
    numeric = torch.stack([(method.soft_loss(z + d, v, t) - method.soft_loss(z - d, v, t)) / (2 * step) for d in shifts])
    stated = t**2 * ((z / t).softmax(1) - (v / t).softmax(1)) / t
    return float((numeric - stated).detach().abs().max())


def claim_high_temperature_matches_logits(lab: Lab) -> float:
    """Largest difference, relative to the largest entry, from (z - v) / N at T = 1000 (Eq. 4 times T^2)."""
    z, v = _logits()
    limit = (z - v).detach() / z.shape[1]
    return relative_error(_gradient(z, v, 1000.0), limit)


def claim_t2_keeps_gradient_scale(lab: Lab) -> list[float]:
    """Gradient norm of the soft term at T = 20 over that at T = 40, or the other way round, whichever is larger."""
    z, v = _logits()
    ratio = float(_gradient(z, v, 20.0).norm() / _gradient(z, v, 40.0).norm())
    return [ratio, 1 / ratio]


def claim_equal_logits_cost_nothing(lab: Lab) -> float:
    """Soft loss of a student that says what its teacher says, and its largest derivative by a logit."""
    _, v = _logits()
    z = v.clone().requires_grad_()
    return float(method.soft_loss(z, v, 4.0).detach().abs() + _gradient(z, v, 4.0).abs().max())


def _toy(seed: int = 0) -> tuple[nn.Module, nn.Module, Task]:
    """A teacher and a student with batch norm, and a task of random images, for a few steps."""
    torch.manual_seed(seed)
    teacher, learner = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)) for _ in range(2))
    part = Split(torch.randn(64, 3, 8, 8), torch.randint(3, (64,)))
    return teacher, learner, toy_task(part, steps=8, batch=16)


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a learning student disturbs its teacher: weights, statistics, mode and gradients."""
    teacher, learner, task = _toy()
    return disturbed(teacher, lambda: method.distil(learner, teacher, task, method.Config()))


def claim_student_follows_teacher(lab: Lab) -> float:
    """KL from teacher to student after a few steps without hard labels, over that before."""
    teacher, learner, task = _toy()
    x = task.train.images

    def gap() -> float:
        with torch.no_grad():
            return float(method.soft_loss(learner.eval()(x), teacher.eval()(x), 1.0))

    before = gap()
    method.distil(learner, teacher, task, method.Config(hard_weight=0.0))
    return gap() / before


def claim_loss_adds_hard_labels(lab: Lab) -> float:
    """Difference of the whole loss from T^2 KL(p || q) and half of the labels' negative log-likelihood, by scipy."""
    (z, v), y, t = _logits(), torch.arange(32) % 10, 4.0
    q, p = (log_softmax(x.detach().numpy() / t, axis=1) for x in (z, v))
    likelihood = log_softmax(z.detach().numpy(), axis=1)[range(32), y.numpy()].mean()
    oracle = t**2 * rel_entr(np.exp(p), np.exp(q)).sum(1).mean() - 0.5 * likelihood
    return float(abs(method.loss(z, v, y, method.Config(temperature=t, hard_weight=0.5)).item() - oracle))


def claim_student_learns_labels(lab: Lab) -> float:
    """Cross-entropy of a student after a few steps in which the labels weigh most, over that before."""
    teacher, learner, task = _toy()
    x, y = task.train.images, task.train.labels
    before = float(F.cross_entropy(learner.eval()(x), y).detach())
    method.distil(learner, teacher, task, method.Config(hard_weight=100.0, lr=1e-3))
    return float(F.cross_entropy(learner(x), y).detach()) / before


def claim_student_is_small(lab: Lab) -> float:
    """Parameters of what comes back over the teacher's, infinite if it is not a distilled student with the teacher's classes."""
    task, big = replace(_toy()[2], steps=1), nets.resnet(20, classes=5)
    torch.manual_seed(0)
    learner = method.student(task, method.Config(), 5)
    torch.manual_seed(0)
    small = method.compress(big, task, method.Config())
    method.distil(learner, big, task, method.Config())
    same = all(map(torch.equal, small.state_dict().values(), learner.state_dict().values()))
    return nets.count(small) / nets.count(big) if same else float("inf")


def claim_generalises_like_teacher(lab: Lab) -> float:
    """Soft loss to the teacher on test images, over that of the student that learned alone."""
    networks = (lab.reference, lab.compressed, lab.controlled("alone"))
    with torch.no_grad():
        parts = [[model(x.to(lab.task.device)) for model in networks] for x, _ in lab.held_out(512).chunks()]
    teacher, taught, alone = (torch.cat(logits) for logits in zip(*parts, strict=True))
    return float(method.soft_loss(taught, teacher, lab.config.temperature) / method.soft_loss(alone, teacher, lab.config.temperature))


def claim_helps_from_the_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy


def claim_beats_student_alone(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy
