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

import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.layout import ask
from methods.kit.task import Task, classes_of, on_copies
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
    task.labels_needed("Hinton's distillation")
    teacher.to(task.device).eval().requires_grad_(False)
    return fit(learner, task, lambda m, x, y: loss(task.logits(m(x)), task.logits(ask(teacher, x)), y, config), lr=config.lr)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student."""
    return distil(student(task, config, classes_of(model, task)), model, task, config)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student from the same weights on the same batches, without a teacher."""
    return fit(student(task, config, classes_of(model, task)), task, lr=config.lr)
