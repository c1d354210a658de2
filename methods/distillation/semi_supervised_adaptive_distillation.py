"""Adaptive distillation (Tang et al., BMVC 2019).

A one-stage detector scores every place of an image, and countless easy places drown what a teacher has to say of the few others.
Each score of the student is weighted by its distance from the teacher's and by the teacher's own doubt, as the focal loss weights
what labels say. On images without labels the teacher's detections are the annotations, and all images mix in one training.

Departures: 2x2 mosaics of small images, a quarter of the cells empty, in the place of COCO, half of them without labels; one
map with one square anchor a place, and a head of two convolutions that classes and boxes share, in the place of a pyramid with
nine anchors and two heads of five; boxes are offsets of corners; the teacher is a classifier whose body stays as it is under a
new head, which learns from labelled mosaics for 240 steps of its own; a step sees an eighth of the task's batch, in mosaics;
the student starts from random weights, in smoke and long runs from those of a classifier, as in the paper, in the first at a lower rate;
the teacher's detections are found in passing, not stored; the temperature, which is 1 in the released set-up, is left out; the
kit's training.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.detection import apart, detections, head, in_mosaics, objects, retinanet_loss, targets
from methods.kit.layout import ask
from methods.kit.task import Split, Task, classes_of, on_copies
from methods.kit.train import autocast, fit


@dataclass(frozen=True)
class Config:
    gamma: float = 2.0  # of the adaptive weight; the authors' configs/focal_distillation, like alpha, theta and lr
    beta: float = 1.0  # of the teacher's entropy in it: their operator weighs by the cross-entropy, KL + H
    alpha: float = 0.5  # balance of the teacher's yes and no
    theta: float = 1.8  # power of the teacher's scores in the normaliser
    soft: float = 1.0  # weight of the teacher's scores beside the annotations; 0 leaves data distillation, hard targets alone
    sure: float = 0.4  # score from which a detection is an annotation; the authors' configs/model_comp
    lr: float = 0.01
    student: str = "random"  # where its body starts; "labels": from the committed classifier


LEARNING = Config(lr=0.02)
SMOKE = (Config(lr=0.006, student="labels"), 32)  # steps; from random weights nothing is detected in seconds
LONG = (Config(student="labels"), 300)  # within five minutes
SWEEP = tuple((LEARNING, steps) for steps in (50, 100, 200, 400))

HEAD_STEPS = 240  # of the teacher's head


def prepare(task: Task) -> Task:
    """Detection in mosaics; the second half of the training has no labels, which -1 says."""
    task = in_mosaics(task)
    task.train.labels[len(task.train) // 2 :] = -1
    return task


def labelled(task: Task) -> Task:
    """The part of the training that has labels."""
    known = task.train.labels >= 0
    return replace(task, train=Split(task.train.images[known], task.train.labels[known]))


def reference(task: Task) -> nn.Module:
    """The teacher: a trained classifier's body, and a head that learns from the labelled mosaics."""
    body, few = nets.trained("resnet20", task.name)[:-3].to(task.device), labelled(task)
    with torch.no_grad(), autocast(task.device):  # as the head learns
        features = torch.cat([body(x.to(task.device)).float().cpu() for x, _ in few.train.chunks()])
    few = replace(few, train=Split(features, few.train.labels), steps=HEAD_STEPS)
    top = fit(head(64, 10), few, lambda m, x, y: label_loss(m(x).float(), y), lr=0.02)
    return nn.Sequential(OrderedDict(body=body, head=top))


def student(task: Task, config: Config, classes: int) -> nn.Module:
    """A smaller body under the same head."""
    if classes < 1:
        raise ValueError(f"teacher: answers {classes + 4} numbers a place, a detector's are a score for each class and four offsets")
    image = task.train.first(1).images
    body = nets.trained("resnet8", task.name) if config.student == "labels" else nets.resnet(8, colours=image.shape[1])
    return nn.Sequential(OrderedDict(body=body[:-3], head=head(64, classes))).to(image)  # type: ignore[index]


def label_loss(maps: Tensor, y: Tensor) -> Tensor:
    """What labels alone teach."""
    return retinanet_loss(maps, *targets(maps, *objects(y)))


def adaptive_loss(x: Tensor, v: Tensor, counted: Tensor, config: Config) -> Tensor:
    """ADW [-alpha q log p - (1 - alpha)(1 - q) log(1 - p)] / N of the `counted` places; p and q are the scores of logits x and v.

    ADW = (1 - exp(-(KL + beta H(q))))^gamma passes its gradient; N, the sum of q^theta, stands for the number of objects.
    """
    q = v.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(v, q, reduction="none")
    kl = F.binary_cross_entropy_with_logits(x, q, reduction="none") - entropy
    weight = (-torch.expm1(-(kl + config.beta * entropy))).clamp_min(0) ** config.gamma
    cross = config.alpha * q * F.softplus(-x) + (1 - config.alpha) * (1 - q) * F.softplus(x)
    return (weight * cross)[counted].sum() / (q**config.theta).sum().clamp_min(1)


def annotations(y: Tensor, told: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Classes (N, K) and boxes (N, K, 4) that the labels give, and where there are none the teacher's detections."""
    scores, classes, boxes = detections(told)
    given = [F.pad(part, (0, 0) * (part.ndim - 2) + (0, classes.shape[1] - 4)) for part in objects(y)]
    known = (y >= 0)[:, None]
    return torch.where(known, given[0], classes * (scores >= config.sure)), torch.where(known[..., None], given[1], boxes)


def loss(maps: Tensor, told: Tensor, y: Tensor, config: Config) -> Tensor:
    """What the annotations teach on every image, and the teacher's scores."""
    found, offsets = targets(maps, *annotations(y, told, config))
    return retinanet_loss(maps, found, offsets) + config.soft * adaptive_loss(apart(maps)[0], apart(told)[0], found >= 0, config)


def agreed(learner: nn.Module, teacher: nn.Module, task: Task) -> None:
    """Raises ValueError where teacher and student do not answer alike, or nothing is labelled."""
    image = task.train.first(1).images.to(task.device)
    with torch.no_grad():
        told, said = (task.logits(model.to(task.device).eval()(image)).shape for model in (teacher, learner))
    if told != said:
        last = [name for name, _ in teacher.named_modules()][-1]
        raise ValueError(f"{last}: answers {tuple(told)}, but a teacher must answer {tuple(said)}: every place's scores and four offsets")
    if not (task.train.labels > 4095).any():
        raise ValueError("train: no label says what is where; make mosaics with `prepare(task)`")


def distil(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """Train any detector for the task's budget with any teacher, which is frozen. All losses are computed in float32."""
    teacher.to(task.device).eval().requires_grad_(False)
    agreed(learner, teacher, task)
    return fit(learner, task, lambda m, x, y: loss(task.logits(m(x)), task.logits(ask(teacher, x)), y, config), lr=config.lr)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student."""
    return distil(student(task, config, classes_of(model, task) - 4), model, task, config)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student from the same weights for as many steps with labels alone: every image has them."""
    few, learner = labelled(task), student(task, config, classes_of(model, task) - 4)
    return fit(learner, few, lambda m, x, y: label_loss(m(x).float(), y), lr=config.lr)


@on_copies
def control_plain(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same with a teacher whose scores all count alike."""
    return compress(model, task, replace(config, gamma=0.0))
