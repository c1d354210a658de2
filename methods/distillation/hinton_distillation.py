"""Distilling the Knowledge in a Neural Network (Hinton, Vinyals and Dean, NIPS 2014 workshop).

A small network learns from the probabilities of a large one, both softened by a temperature: how the teacher ranks
the wrong classes tells more than the label. The soft term is multiplied by T^2, so that the balance with the hard
labels does not move when the temperature is changed.

Departures: a residual teacher and student on images instead of dense networks on digits and speech; one teacher
instead of an ensemble; KL in the place of the cross-entropy, which differs by a constant; the kit's training (Nesterov
momentum, weight decay, one cosine); in a smoke run the student has already learned from the labels; the specialist networks
of the paper's second part are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.layout import ask
from methods.kit.task import Split, Task, classes_of, on_copies
from methods.kit.train import fit


@dataclass(frozen=True)
class Config:
    temperature: float = 2.0  # T, best of 1, 2, 5 and 10 on speech, §4.1
    hard_weight: float = 0.5  # relative weight of the hard labels, §4.1
    lr: float = 0.1  # the student starts from random weights
    student: str = "random"  # where it starts; "labels": from the committed weights, trained on labels alone


LEARNING = Config(temperature=4.0, hard_weight=0.1)  # small networks do best at 2.5 to 4, §3; "a considerably lower weight", §2
SMOKE = (replace(LEARNING, lr=0.02, student="labels"), 40)  # steps; from random weights a student learns too little in seconds
SWEEP = tuple((LEARNING, steps) for steps in (50, 100, 200, 400))


def reference(task: Task) -> nn.Module:
    """The teacher."""
    return nets.trained("resnet20", task.name)


def student(task: Task, config: Config, classes: int) -> nn.Module:
    """The small network, untrained unless the config says otherwise; for images of the task's colours and floating type."""
    image = task.train.first(1).images
    return (nets.trained("resnet8", task.name) if config.student == "labels" else nets.resnet(8, classes, colours=image.shape[1])).to(image)


def soft_loss(z: Tensor, v: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p || q) of student logits z and teacher logits v (N, classes); mean over images, sum over classes.

    KL differs from the paper's cross-entropy of p and q by the entropy of p, which no student can change.
    """
    q = F.log_softmax(z / temperature, dim=1)  # q_i = exp(z_i / T) / sum_j exp(z_j / T), Eq. 1
    p = F.log_softmax(v / temperature, dim=1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)  # T^2: end of §2


def loss(z: Tensor, v: Tensor, y: Tensor, config: Config) -> Tensor:
    """Soft targets at temperature T and hard labels at temperature 1, §2."""
    return soft_loss(z, v, config.temperature) + config.hard_weight * F.cross_entropy(z, y)


def distil(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """Train any student for the task's budget with any teacher, which is frozen. Logits are compared in float32."""
    task.labels_needed("Hinton's distillation")  # equivalent: tests refuse by name
    teacher.to(task.device).eval().requires_grad_(False)  # equivalent: on the CPU .to() moves nothing
    return fit(learner, task, lambda m, x, y: loss(task.logits(m(x)), task.logits(ask(teacher, x)), y, config), lr=config.lr)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student."""
    return distil(student(task, config, classes_of(model, task)), model, task, config)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student from the same weights on the same batches, without a teacher."""
    return fit(student(task, config, classes_of(model, task)), task, lr=config.lr)


def _logits(classes: int = 10, count: int = 32) -> tuple[Tensor, Tensor]:
    """Random zero-mean student and teacher logits, float64."""
    z, v = torch.randn(2, count, classes, dtype=torch.float64)
    return (z - z.mean(1, keepdim=True)).requires_grad_(), v - v.mean(1, keepdim=True)


def _gradient(z: Tensor, v: Tensor, temperature: float) -> Tensor:
    """Of the soft loss by one image's logits."""
    return torch.autograd.grad(soft_loss(z, v, temperature), z)[0] * len(z)


def claim_soft_loss_is_kl(lab: Lab) -> float:
    """Largest difference from T^2 KL computed by scipy, over temperatures."""
    z, v = _logits()
    differences = []
    for t in (1.0, 2.0, 20.0):
        q, p = (log_softmax(x.detach().numpy() / t, axis=1) for x in (z, v))
        oracle = t**2 * rel_entr(np.exp(p), np.exp(q)).sum(1).mean()
        differences.append(abs(soft_loss(z, v, t).item() - oracle))
    return max(differences)


def claim_gradient_is_difference_of_probabilities(lab: Lab) -> float:
    """Largest difference between T^2 (q - p) / T (Eq. 2) and the derivative, by central differences."""
    z, v = _logits(4, 1)
    t, step = 3.0, 1e-5
    shifts = step * torch.eye(4, dtype=torch.float64)
    numeric = torch.stack([(soft_loss(z + d, v, t) - soft_loss(z - d, v, t)) / (2 * step) for d in shifts])
    stated = t**2 * ((z / t).softmax(1) - (v / t).softmax(1)) / t
    return float((numeric - stated).detach().abs().max())


def claim_high_temperature_matches_logits(lab: Lab) -> float:
    """Largest difference, relative to the largest entry, from (z - v) / N at T = 1000 (Eq. 4 times T^2)."""
    z, v = _logits()
    limit = (z - v).detach() / z.shape[1]
    return float((_gradient(z, v, 1000.0) - limit).abs().max() / limit.abs().max())


def claim_t2_keeps_gradient_scale(lab: Lab) -> float:
    """Gradient norm of the soft term at T = 20 over that at T = 40, or the other way round, whichever is larger."""
    z, v = _logits()
    ratio = float(_gradient(z, v, 20.0).norm() / _gradient(z, v, 40.0).norm())
    return max(ratio, 1 / ratio)


def claim_equal_logits_cost_nothing(lab: Lab) -> float:
    """Soft loss of a student that says what its teacher says, and its largest derivative by a logit."""
    _, v = _logits()
    z = v.clone().requires_grad_()
    return float(soft_loss(z, v, 4.0).detach().abs() + _gradient(z, v, 4.0).abs().max())


def _toy(seed: int = 0) -> tuple[nn.Module, nn.Module, Task]:
    """A teacher and a student with batch norm, and a task of random images, for a few steps."""
    torch.manual_seed(seed)
    teacher, learner = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)) for _ in range(2))
    part = Split(torch.randn(64, 3, 8, 8), torch.randint(3, (64,)))
    return teacher, learner, Task("toy", part, part, part, steps=8, batch=16, augmented=False)


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a learning student disturbs its teacher: weights, statistics, mode and gradients."""
    teacher, learner, task = _toy()
    return disturbed(teacher, lambda: distil(learner, teacher, task, Config()))


def claim_student_follows_teacher(lab: Lab) -> float:
    """KL from teacher to student after a few steps without hard labels, over that before."""
    teacher, learner, task = _toy()
    x = task.train.images

    def gap() -> float:
        with torch.no_grad():
            return float(soft_loss(learner.eval()(x), teacher.eval()(x), 1.0))

    before = gap()
    distil(learner, teacher, task, Config(hard_weight=0.0))
    return gap() / before


def claim_loss_adds_hard_labels(lab: Lab) -> float:
    """Difference of the whole loss from T^2 KL(p || q) and half of the labels' negative log-likelihood, by scipy."""
    (z, v), y, t = _logits(), torch.arange(32) % 10, 4.0
    q, p = (log_softmax(x.detach().numpy() / t, axis=1) for x in (z, v))
    likelihood = log_softmax(z.detach().numpy(), axis=1)[range(32), y.numpy()].mean()
    oracle = t**2 * rel_entr(np.exp(p), np.exp(q)).sum(1).mean() - 0.5 * likelihood
    return float(abs(loss(z, v, y, Config(temperature=t, hard_weight=0.5)).item() - oracle))


def claim_student_learns_labels(lab: Lab) -> float:
    """Cross-entropy of a student after a few steps in which the labels weigh most, over that before."""
    teacher, learner, task = _toy()
    x, y = task.train.images, task.train.labels
    before = float(F.cross_entropy(learner.eval()(x), y).detach())
    distil(learner, teacher, task, Config(hard_weight=100.0, lr=1e-3))
    return float(F.cross_entropy(learner(x), y).detach()) / before


def claim_student_is_small(lab: Lab) -> float:
    """Parameters of what comes back over the teacher's, infinite if it is not a distilled student with the teacher's classes."""
    task, big = replace(_toy()[2], steps=1), nets.resnet(20, classes=5)
    torch.manual_seed(0)
    learner = student(task, Config(), 5)
    torch.manual_seed(0)
    small = compress(big, task, Config())
    distil(learner, big, task, Config())
    same = all(map(torch.equal, small.state_dict().values(), learner.state_dict().values()))
    return nets.count(small) / nets.count(big) if same else float("inf")


def claim_generalises_like_teacher(lab: Lab) -> float:
    """Soft loss to the teacher on test images, over that of the student that learned alone."""
    networks = (lab.reference, lab.compressed, lab.controlled("alone"))
    with torch.no_grad():
        parts = [[model(x.to(lab.task.device)) for model in networks] for x, _ in lab.task.test.first(512).chunks()]
    teacher, taught, alone = (torch.cat(logits) for logits in zip(*parts, strict=True))
    return float(soft_loss(taught, teacher, lab.config.temperature) / soft_loss(alone, teacher, lab.config.temperature))


def claim_helps_from_the_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy


def claim_beats_student_alone(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy
