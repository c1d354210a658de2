"""Conditional adversarial distillation (Xu, Hsu and Huang, BMVC 2018).

How far a student is from its teacher is learned instead of fixed. A small discriminator sees logits and has two tasks: to tell
whether teacher (real) or student (fake) gave them, and which class they stand for. The student fits the labels, stays close to
the teacher's logits image by image, and hides where its own come from without losing the class; dropout is its only noise. The
two take turns, the discriminator first, and the student alone is kept.

Departures: the kit's networks (a ResNet-8 with dropout in its blocks for a wide residual network) and training (Nesterov
momentum, weight decay, one cosine, for both players); the teacher answers anew where the paper stores its logits. Where the
paper is silent: the last of the discriminator's three layers gives the answers, teacher's and student's logits pass it one batch
after the other, and its batch norm and dropout stay in training mode. In a smoke run the student has already learned from the
labels and learns slower, the discriminator faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.distillation import hinton_distillation as hinton
from methods.kit import nets
from methods.kit.layout import ask
from methods.kit.task import Task, classes_of, on_copies
from methods.kit.train import descend, fit, schedule


@dataclass(frozen=True)
class Config:
    dropout: float = 0.3  # of the student and of the discriminator, §4.1
    depth: int = 3  # layers of the discriminator, §4.1 and Table 4
    lr: float = 0.1  # of the student, §4.1
    judge_lr: float = 1e-3  # of the discriminator, §4.1
    temperature: float = 5.0  # of the control, Table 5
    student: str = "random"  # where it starts; "labels": from the committed weights, trained on labels alone


SMOKE = (Config(lr=0.001, judge_lr=0.02, student="labels"), 20)  # steps; from random weights a student learns too little in seconds
LONG = (Config(), 400)  # more take more than five minutes
SWEEP = tuple((Config(), steps) for steps in (50, 100, 200, 400))


def reference(task: Task) -> nn.Module:
    """The teacher."""
    return nets.trained("resnet20", task.name)


def student(task: Task, config: Config, classes: int) -> nn.Module:
    """The small network, with dropout between the two convolutions of every residual block (Figure 2, left)."""
    network = hinton.student(task, hinton.Config(student=config.student), classes)
    for block in network.children():
        if isinstance(block, nets.Residual):
            block.first.append(nn.Dropout(config.dropout))
    return network


class Block(nn.Module):
    """a_{l+1} = ReLU(a_l + dropout(BN(linear(a_l)))), Figure 2, right."""

    def __init__(self, nodes: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(nodes, nodes), nn.BatchNorm1d(nodes), nn.Dropout(dropout))

    def forward(self, a: Tensor) -> Tensor:
        return F.relu(a + self.branch(a))


def discriminator(classes: int, config: Config) -> nn.Sequential:
    """D: logits (N, C) to answers (N, C + 2), first the C classes, then real and fake; as many nodes in a layer as classes, §3.3.2."""
    blocks = [Block(classes, config.dropout) for _ in range(config.depth - 1)]
    return nn.Sequential(nn.BatchNorm1d(classes), *blocks, nn.Linear(classes, classes + 2))  # batch norm before the MLP, §4.1


def origin(of_teacher: Tensor, of_student: Tensor) -> Tensor:
    """L_A = 1/N sum_i log P(real | D(t_i)) + log P(fake | D(F(x_i))) of answers (N, C + 2), §3.3.2."""
    real, fake = of_teacher[:, -2:].log_softmax(1), of_student[:, -2:].log_softmax(1)
    return real[:, 0].mean() + fake[:, 1].mean()


def category(of_teacher: Tensor, of_student: Tensor, y: Tensor) -> Tensor:
    """L_DS = 1/N sum_i log P(l_i | D(t_i)) + log P(l_i | D(F(x_i))), §3.3.2."""
    return -F.cross_entropy(of_teacher[:, :-2], y) - F.cross_entropy(of_student[:, :-2], y)


def judge_gain(judge: nn.Module, t: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """(L_A + L_DS) / 2, which the discriminator maximises (Eq. 5)."""
    answers = judge(t), judge(s)
    return (origin(*answers) + category(*answers, y)) / 2


def gan_loss(judge: nn.Module, t: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """L_GAN = (L_A - L_DS) / 2, which the student minimises (Eq. 7): no origin, but a class."""
    answers = judge(t), judge(s)
    return (origin(*answers) - category(*answers, y)) / 2


def distance(s: Tensor, t: Tensor) -> Tensor:
    """L_L1 = 1/N sum_i || F(x_i) - t_i ||_1: a sum over classes (Eq. 6)."""
    return (s - t).abs().sum(1).mean()


def student_loss(judge: nn.Module, t: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """L_S + L_L1 + L_GAN, without weights (Eq. 7)."""
    return F.cross_entropy(s, y) + distance(s, t) + gan_loss(judge, t, s, y)


def play(learner: nn.Module, teacher: nn.Module, judge: nn.Module, task: Task, config: Config) -> nn.Module:
    """Update the discriminator, then the student, on every batch (§3.3.3); the teacher is frozen. Logits are compared in float32."""
    teacher.to(task.device).eval().requires_grad_(False)
    params = list(judge.to(task.device).train().parameters())
    velocity, step = dict[Tensor, Tensor | None](), count(1)

    def loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        t, s = task.logits(ask(teacher, x)).float(), task.logits(network(x)).float()
        with torch.autocast(x.device.type, enabled=False):
            gain = judge_gain(judge, t, s.detach(), y)
            for p, gradient in zip(params, torch.autograd.grad(-gain, params), strict=True):
                p.grad = gradient
            descend(params, velocity, config.judge_lr * schedule(next(step), task.steps), weight_decay=5e-4)  # "the same scheduler", §4.1
            return student_loss(judge, t, s, y)  # with D fixed: `fit` moves the student alone

    return fit(learner, task, loss, lr=config.lr)


def distil(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """Train any student that has dropout with any teacher. Raises ValueError where the two cannot play."""
    task.labels_needed("Adversarial distillation")
    classes, own = classes_of(teacher, task), classes_of(learner, task)
    last = [name for name, layer in learner.named_modules() if hasattr(layer, "weight")][-1]
    if own != classes:
        raise ValueError(f"student: {last} tells {own} classes apart, the teacher {classes}; logits are compared one by one (Eq. 6)")
    if not any(isinstance(layer, nn.Dropout | nn.Dropout2d) and layer.p for layer in learner.modules()):
        raise ValueError(f"student: no dropout in any layer up to {last}, the generator's only noise (§3.1); add nn.Dropout to its blocks")
    if (highest := max(int(y.max()) for _, y in task.train.chunks())) >= classes:
        raise ValueError(f"teacher: tells {classes} classes apart, but there are labels up to {highest}")
    return play(learner, teacher, discriminator(classes, config), task, config)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student, in which dropout is off."""
    return distil(student(task, config, classes_of(model, task)), model, task, config)


@on_copies
def control_hinton(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student on the same batches, distilled by fixed distance: L_S / 2 + T^2 L_KD (Eq. 4)."""
    fixed = hinton.Config(temperature=config.temperature, hard_weight=0.5, lr=config.lr)
    return hinton.distil(student(task, config, classes_of(model, task)), model, task, fixed)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student from the same weights on the same batches, without a teacher."""
    return fit(student(task, config, classes_of(model, task)), task, lr=config.lr)
